//! The list of contaminated records: `dropped/contaminated.jsonl`, a JSON object a line.
//!
//! Mapping keeps a flag of each document alone. The records that are listed are read and rendered
//! again, to name the n-gram that each shares and the held-out record that has it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::document::Scratch;
use super::fit::fit;
use crate::contamination::{HeldOut, Hit};
use crate::context::Context;
use crate::error::{Error, Place, Result};
use crate::job::Job;
use crate::read::InputSplit;
use crate::schema::{DropReason, RecordId};
use crate::spool::Listing;
use crate::tasks;
use crate::write::{self, DroppedEntry, WorkFolder};

/// The entry of a contaminated record.
#[derive(Serialize)]
struct Entry<'a> {
    source: &'a str,
    file: &'a str,
    #[serde(flatten)]
    place: Place,
    /// The words that it shares, in NFC and lower case.
    n_gram: &'a str,
    /// The file, or the task of `lm-eval`, that has them too.
    held_out: &'a str,
    /// The number of the record in that file, or of the document in that task, from 0.
    held_out_record: u64,
}

/// Writes the list into the work folder, and returns its entry in the manifest; `None` if no record
/// is contaminated. The records are those of `listing`, the lowest of each source.
pub(super) fn write_hits(
    job: &Job,
    folder: &WorkFolder<'_>,
    listing: &Listing,
    context: &Context<'_>,
) -> Result<Option<DroppedEntry>> {
    let Some(held_out) = &job.held_out else { return Ok(None) };
    let splits = job.plan.splits(context.storage)?;
    let (mut lines, mut records) = (Vec::new(), 0);
    for source in 0..job.plan.sources.len() {
        let ids = listing.of_reason(source, DropReason::Contaminated);
        let hits = hits_of(job, held_out, source, &ids, &splits, context)?;
        records += hits.len() as u64;
        push_lines(job, source, &hits, &mut lines, context)?;
    }
    if records == 0 {
        return Ok(None);
    }
    folder.write_hits(records, |out| out.write_all(&lines)).map(Some)
}

/// Returns the hits of the records `ids` of a source, which ascend.
fn hits_of<'h>(
    job: &Job,
    held_out: &'h HeldOut,
    source: usize,
    ids: &[u64],
    splits: &[InputSplit],
    context: &Context<'_>,
) -> Result<BTreeMap<u64, Hit<'h>>> {
    let has_some = |split: &&InputSplit| {
        let is_here = |&id: &u64| RecordId::unpack(id).nth_input == split.nth_input;
        split.source == source && ids.iter().any(is_here)
    };
    let splits: Vec<&InputSplit> = splits.iter().filter(has_some).collect();
    let found = tasks::run(context.threads, splits.len(), |nth| {
        hits_in(job, held_out, splits[nth], ids, context)
    })?;
    Ok(found.into_iter().flatten().collect())
}

/// Returns the hits of the records `ids` that lie in an input split.
fn hits_in<'h>(
    job: &Job,
    held_out: &'h HeldOut,
    split: &InputSplit,
    ids: &[u64],
    context: &Context<'_>,
) -> Result<Vec<(u64, Hit<'h>)>> {
    let input = &job.plan.inputs[split.input].name;
    let (mut hits, mut scratch) = (Vec::new(), Scratch::new(job));
    let mut records = job.open_fields(split, context)?;
    while let Some(record) = records.advance().map_err(|error| error.file(input.clone()))? {
        context.monitor.check()?;
        if ids.binary_search(&record.id).is_err() {
            continue;
        }
        let fields = record
            .fields()
            .and_then(|fields| fit(job, split.source, record.id, fields, &mut scratch));
        if fields.is_ok()
            && let Some(hit) = scratch.texts().find_map(|text| held_out.hit_of(text))
        {
            hits.push((record.id, hit));
        }
    }
    Ok(hits)
}

/// Appends the lines of a source.
fn push_lines(
    job: &Job,
    source: usize,
    hits: &BTreeMap<u64, Hit<'_>>,
    lines: &mut Vec<u8>,
    context: &Context<'_>,
) -> Result<()> {
    let (plan, source) = (&job.plan, &job.plan.sources[source]);
    let ids: Vec<u64> = hits.keys().copied().collect();
    for ids in ids.chunk_by(|&a, &b| RecordId::unpack(a).nth_input == RecordId::unpack(b).nth_input)
    {
        let file = &plan.inputs[source.inputs[RecordId::unpack(ids[0]).nth_input]].name;
        for (id, found) in ids.iter().zip(plan.places_of(source, ids, context)?) {
            let Hit { n_gram, held_out, record } = &hits[id];
            let entry = Entry {
                source: &source.name,
                file,
                place: found.place,
                n_gram,
                held_out,
                held_out_record: *record,
            };
            write::push_line(lines, &entry).map_err(|error: Error| error.file(file.clone()))?;
        }
    }
    Ok(())
}
