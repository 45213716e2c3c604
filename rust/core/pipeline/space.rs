//! Whether a dataset will fit on its disk: estimated before work starts, from a sample of each
//! source.

use std::path::Path;

use super::document::{Scratch, prepare_record};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::plan::PackOptions;
use crate::read::InputSplit;
use crate::storage::is_gzip;

/// Bytes of each source's first input that are looked at.
const SAMPLE: u64 = 64 << 10;
/// More bytes of disk than a byte of input ever takes for one copy, spool included: a token for
/// every byte, of four bytes in the spool and in a row, and the metas and lists of one document a
/// line of a dozen bytes.
const AT_MOST: u64 = 16;
/// Bytes of a compressed input's content for each byte of its file, at most what text compresses
/// to.
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
    let at_most: u64 = (0..job.plan.sources.len())
        .map(|at| AT_MOST * content(job, at) * copies(job, at) as u64)
        .sum();
    if at_most <= free {
        return Ok(());
    }
    let (mut spool, mut shards) = (0.0, 0.0);
    for at in 0..job.plan.sources.len() {
        let sample = sample(job, at, context)?;
        let scale = content(job, at) as f64 / sample.bytes.max(1) as f64;
        spool += scale * sample.spool;
        shards += scale * sample.shards * copies(job, at);
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

/// Bytes of a source's inputs, decompressed.
fn content(job: &Job, source: usize) -> u64 {
    let size = |&input: &usize| {
        let input = &job.plan.inputs[input];
        input.size * if is_gzip(&input.path) { INFLATES } else { 1 }
    };
    job.plan.sources[source].inputs.iter().map(size).sum()
}

/// Copies of a source's records, rounded up. A mix makes as much as there is, of one source more
/// and of another less.
fn copies(job: &Job, source: usize) -> f64 {
    job.plan.sources[source].epochs.unwrap_or(1.0).ceil()
}

/// What some records take.
#[derive(Debug, Default)]
struct Sample {
    bytes: u64,
    spool: f64,
    shards: f64,
}

/// The first records of a source. Those that cannot be used take no room.
fn sample(job: &Job, source: usize, context: &Context<'_>) -> Result<Sample> {
    let mut sample = Sample::default();
    let Some(&input) =
        job.plan.sources[source].inputs.iter().find(|&&input| job.plan.inputs[input].size > 0)
    else {
        return Ok(sample);
    };
    let split = InputSplit { source, nth_input: 0, input, range: 0..u64::MAX };
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
