//! Estimates, before work starts, whether a dataset fits on its disk, from a sample of each source.

use std::path::Path;

use super::document::{Scratch, prepare_record};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::plan::PackOptions;
use crate::read::InputSplit;
use crate::storage::Compression;

/// The bytes of each source's first input that are sampled.
const SAMPLE: u64 = 64 << 10;
/// An upper bound of the disk bytes that a byte of input takes for one copy, spool included: a
/// token of four bytes in the spool and in a row, and the meta and lists of a document for each
/// line of a dozen bytes.
const AT_MOST: u64 = 16;
/// The bytes of content for each byte of a compressed file: text rarely compresses better.
const INFLATES: u64 = 8;
/// Bytes of a document's meta, key and role runs in a spool.
const SPOOLED_DOCUMENT: f64 = 76.0;
/// Bytes of a document's lengths, roles and ids in a row.
const PACKED_DOCUMENT: f64 = 40.0;

/// Refuses to start where the disk of `out` has too little room.
pub(crate) fn refuse_too_little(
    job: &Job,
    out: &Path,
    options: &PackOptions,
    context: &Context<'_>,
) -> Result<()> {
    let Some(free) = context.storage.free_bytes(out) else { return Ok(()) };
    let sources = 0..job.plan.sources.len();
    let at_most = |source| {
        let bytes = whole_content(job, source, context).saturating_mul(AT_MOST);
        bytes.saturating_mul(copies(job, source) as u64)
    };
    // Nearly always there is room in any case, so that no record is read.
    if sources.clone().map(at_most).fold(0, u64::saturating_add) <= free {
        return Ok(());
    }
    let (mut spool, mut shards) = (0.0, 0.0);
    for source in sources {
        let sample = sample(job, source, context)?;
        let scale = content(job, source) as f64 / sample.bytes.max(1) as f64;
        spool += scale * sample.spool;
        shards += scale * sample.shards * copies(job, source);
    }
    // A spool within its budget stays in memory.
    let spilled =
        if options.keep_spool || spool > options.spool_bytes as f64 { spool } else { 0.0 };
    let needed = (spilled + shards) as u64;
    if needed <= free {
        return Ok(());
    }
    Err(Error::output(format!(
        "the disk has {} MB free, this needs about {} MB ({} MB of rows, {} MB of spool)",
        free >> 20,
        needed.div_ceil(1 << 20),
        shards as u64 >> 20,
        spilled as u64 >> 20
    ))
    .file(out.display().to_string())
    .remedy("make room, or name a folder on another disk"))
}

/// Returns the bytes of a source's inputs, decompressed, and without the compression of their formats
/// either.
fn whole_content(job: &Job, source: usize, context: &Context<'_>) -> u64 {
    let format = job.plan.sources[source].format.get();
    let inputs = job.plan.sources[source].inputs.iter();
    let stated =
        inputs.filter_map(|&input| format.stated_bytes(&job.plan.inputs[input].path, context));
    stated.fold(0, u64::saturating_add).max(content(job, source))
}

/// Returns the bytes of a source's inputs, decompressed.
fn content(job: &Job, source: usize) -> u64 {
    let source = &job.plan.sources[source];
    let size = |input: usize| {
        let input = &job.plan.inputs[input];
        input.size * if Compression::of(&input.path).is_some() { INFLATES } else { 1 }
    };
    (0..source.inputs.len()).flat_map(|nth| source.files_of(nth)).map(size).sum()
}

/// Returns the copies of a source's records, rounded up. A mix counts as one copy of each source:
/// its sum over all sources is the same.
fn copies(job: &Job, source: usize) -> f64 {
    job.plan.sources[source].epochs.unwrap_or(1.0).ceil()
}

/// The disk room that some records take.
#[derive(Debug, Default)]
struct Sample {
    /// Bytes of input.
    bytes: u64,
    /// Bytes of spool.
    spool: f64,
    /// Bytes of shards for one copy.
    shards: f64,
}

/// Returns the room that the first records of a source take. Dropped records take none.
fn sample(job: &Job, source: usize, context: &Context<'_>) -> Result<Sample> {
    let mut sample = Sample::default();
    let Some(&input) =
        job.plan.sources[source].inputs.iter().find(|&&input| job.plan.inputs[input].size > 0)
    else {
        return Ok(sample);
    };
    let split = InputSplit { source, nth_input: 0, input, range: 0..u64::MAX, bytes: 0 };
    let mut records = job.open(&split, context)?;
    let width = job.encoder.id_type().width() as f64;
    let mut scratch = Scratch::new(job);
    while sample.bytes < SAMPLE {
        let Some(record) = records.advance()? else { break };
        sample.bytes += record.bytes() as u64 + 1;
        if prepare_record(job, source, &record, &mut scratch).is_err() {
            continue;
        }
        for document in &scratch.documents {
            let tokens = document.ids.len() as f64;
            sample.spool += tokens * width + SPOOLED_DOCUMENT;
            // An id and a bit of mask for each token.
            sample.shards += tokens * (width + 0.125) + PACKED_DOCUMENT;
        }
    }
    Ok(sample)
}
