//! `InputSplit`: the part of an input that one map task reads.

use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::format::{FormatName, FormatOptions};
use crate::error::Result;
use crate::storage::{Compression, Storage};

/// A part of one input of one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputSplit {
    /// The index of the source.
    pub source: usize,
    /// The index of the input within its source: the upper bits of its record ids.
    pub nth_input: usize,
    /// The index of the input within the plan.
    pub input: usize,
    /// The offsets of its records: the bytes in which they begin, or the numbers of their rows.
    /// All that there can be for an input that is one split.
    pub range: Range<u64>,
    /// The bytes of the file that it covers.
    pub bytes: u64,
}

/// A part in which a file is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// The offsets of its records.
    pub(crate) range: Range<u64>,
    /// The bytes of the file that it covers.
    pub(crate) bytes: u64,
}

/// Rows that a file stores together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowGroup {
    /// The number of rows.
    pub(crate) rows: u64,
    /// The bytes that they take in the file.
    pub(crate) bytes: u64,
}

/// The most parts of a file of rows: each part reads what the file says of all its rows.
const MAX_PARTS: u64 = 256;

/// Returns the parts of about `split_bytes` bytes in which a file of `size` bytes is read.
pub(crate) fn parts(
    (format, options): (FormatName, &FormatOptions),
    path: &Path,
    size: u64,
    split_bytes: u64,
    storage: &dyn Storage,
) -> Result<Vec<Part>> {
    let whole = || vec![Part { range: 0..u64::MAX, bytes: size }];
    // Only from its start can a compressed or encoded file be read.
    if Compression::of(path).is_some() || options.encoding.is_some() {
        return Ok(whole());
    }
    if let Some(groups) = format.get().row_groups(path, storage)? {
        return Ok(by_groups(&groups, size, split_bytes.max(size.div_ceil(MAX_PARTS))));
    }
    if size > 0 && !format.get().splits_at_lines(options) {
        return Ok(whole());
    }
    let starts = (0..size.div_ceil(split_bytes)).map(|nth| nth * split_bytes);
    let ranges = starts.map(|start| start..(start.saturating_add(split_bytes)).min(size));
    Ok(ranges.map(|range| Part { bytes: range.end - range.start, range }).collect())
}

/// Returns parts of whole groups, each of which has at least `split_bytes` bytes but the last. The
/// bytes of a file of `size` bytes that lie in no group count to its last part.
fn by_groups(groups: &[RowGroup], size: u64, split_bytes: u64) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let (mut row, mut covered) = (0u64, 0u64);
    let mut is_full = true;
    for group in groups {
        let end = row.saturating_add(group.rows);
        let bytes = group.bytes.min(size - covered);
        match parts.last_mut() {
            Some(part) if !is_full => {
                part.range.end = end;
                part.bytes += bytes;
            }
            _ => parts.push(Part { range: row..end, bytes }),
        }
        (row, covered) = (end, covered + bytes);
        is_full = parts.last().is_some_and(|part| part.bytes >= split_bytes);
    }
    if let Some(last) = parts.last_mut() {
        last.bytes += size - covered;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_of_groups_hold_every_row_and_every_byte_once(
            groups in prop::collection::vec((0u64..50, 0u64..1000), 0..20),
            more in 0u64..100,
            split_bytes in 1u64..3000,
        ) {
            let groups: Vec<RowGroup> =
                groups.into_iter().map(|(rows, bytes)| RowGroup { rows, bytes }).collect();
            let size = groups.iter().map(|group| group.bytes).sum::<u64>() + more;
            let parts = by_groups(&groups, size, split_bytes);
            let mut row = 0;
            for part in &parts {
                prop_assert_eq!(part.range.start, row);
                row = part.range.end;
            }
            prop_assert_eq!(row, groups.iter().map(|group| group.rows).sum::<u64>());
            if !parts.is_empty() {
                prop_assert_eq!(parts.iter().map(|part| part.bytes).sum::<u64>(), size);
                let full = parts[..parts.len() - 1].iter().all(|part| part.bytes >= split_bytes);
                prop_assert!(full);
            }
        }
    }
}
