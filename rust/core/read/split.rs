//! `InputSplit`: the part of an input that one map task reads.

use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::format::FormatName;
use crate::storage::is_gzip;

/// A byte range of one input of one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputSplit {
    /// The index of the source.
    pub source: usize,
    /// The index of the input within its source: the upper bits of its record ids.
    pub nth_input: usize,
    /// The index of the input within the plan.
    pub input: usize,
    /// The bytes in which its records start; all bytes for an input that is one split.
    pub range: Range<u64>,
}

/// Returns the ranges of at most `split_bytes` bytes in which a file of `size` bytes is read.
pub(crate) fn ranges(
    format: FormatName,
    path: &Path,
    size: u64,
    split_bytes: u64,
) -> Vec<Range<u64>> {
    if is_gzip(path) || size > 0 && !format.get().splits_at_lines() {
        return std::iter::once(0..u64::MAX).collect();
    }
    let starts = (0..size.div_ceil(split_bytes)).map(|nth| nth * split_bytes);
    starts.map(|start| start..(start.saturating_add(split_bytes)).min(size)).collect()
}
