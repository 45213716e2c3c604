//! The list of dropped records: `dropped.jsonl`, a JSON object a line.
//!
//! By source and record; of each source and reason the lowest records, and a last line with the
//! number of the others. So its lines account for every drop that the manifest counts.

use std::io::Write;

use serde::Serialize;

use super::manifest::DroppedEntry;
use super::shard::Summing;
use super::work::WorkFolder;
use super::{DROPPED_FILE, failed};
use crate::context::Context;
use crate::error::{Error, Place, Result};
use crate::plan::{Plan, Source};
use crate::read::Found;
use crate::schema::DropReason;
use crate::spool::{Dropped, Listing, Tally};
use crate::tasks;

/// The entry of a record.
#[derive(Serialize)]
struct Entry<'a> {
    source: &'a str,
    file: &'a str,
    #[serde(flatten)]
    place: Place,
    reason: &'static str,
    why: &'a str,
    text: &'a str,
}

/// The entry of the records of a source and reason that have none of their own.
#[derive(Serialize)]
struct Others<'a> {
    source: &'a str,
    reason: &'static str,
    not_listed: u64,
}

/// Writes the list of dropped records into the work folder, and returns its entry in the manifest;
/// `None` if no record was dropped. `tallies` has the counts of each source; its records are taken
/// out of `listing`.
pub(crate) fn write_dropped<'a>(
    folder: &WorkFolder<'_>,
    plan: &Plan,
    tallies: impl Iterator<Item = &'a Tally> + Clone,
    listing: &Listing,
    context: &Context<'_>,
) -> Result<Option<DroppedEntry>> {
    if tallies.clone().all(|tally| tally.drops.iter().all(|&count| count == 0)) {
        return Ok(None);
    }
    let path = folder.dropped_path();
    let wrong = |error: std::io::Error| failed(&path, &error);
    let mut out = Summing::create(context.storage, &path).map_err(wrong)?;
    let mut records = 0;
    for (index, (source, tally)) in plan.sources.iter().zip(tallies).enumerate() {
        let dropped = listing.take(index);
        records += dropped.len() as u64;
        out.write_all(&lines_of(plan, source, tally, &dropped, context)?).map_err(wrong)?;
    }
    let (bytes, xxh3_128) = out.publish().map_err(wrong)?;
    Ok(Some(DroppedEntry { file: DROPPED_FILE.to_owned(), records, bytes, xxh3_128 }))
}

/// Returns the lines of a source. `dropped` holds its lowest dropped records, by record.
fn lines_of(
    plan: &Plan,
    source: &Source,
    tally: &Tally,
    dropped: &[Dropped],
    context: &Context<'_>,
) -> Result<Vec<u8>> {
    let mut lines = Vec::new();
    let by_input: Vec<&[Dropped]> =
        dropped.chunk_by(|a, b| a.nth_input() == b.nth_input()).collect();
    let places = tasks::run(context.threads, by_input.len(), |nth| {
        let ids: Vec<u64> = by_input[nth].iter().map(|dropped| dropped.record_id).collect();
        plan.places_of(source, &ids, context)
    })?;
    for (Dropped { reason, record_id: _, why }, found, file) in
        by_input.iter().zip(&places).flat_map(|(dropped, places)| {
            let file = &plan.inputs[source.inputs[dropped[0].nth_input()]].name;
            dropped.iter().zip(places).map(move |(dropped, place)| (dropped, place, file))
        })
    {
        let Found { place, text } = found;
        let (source, reason) = (&source.name, reason.name());
        push_line(&mut lines, &Entry { source, file, place: *place, reason, why, text })?;
    }
    for (reason, count) in DropReason::ALL.into_iter().zip(tally.drops) {
        let listed = dropped.iter().filter(|dropped| dropped.reason == reason).count() as u64;
        if count > listed {
            let (source, reason) = (&source.name, reason.name());
            push_line(&mut lines, &Others { source, reason, not_listed: count - listed })?;
        }
    }
    Ok(lines)
}

/// Appends a line.
pub(crate) fn push_line(lines: &mut Vec<u8>, line: &impl Serialize) -> Result<()> {
    let written = serde_json::to_string(line);
    let written =
        written.map_err(|error| Error::internal(format!("a line of {DROPPED_FILE}: {error}")))?;
    for c in written.chars() {
        // What a terminal would obey is shown. JSON has escaped the other controls.
        if matches!(c, '\u{7f}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            lines.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
        } else {
            lines.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    lines.push(b'\n');
    Ok(())
}
