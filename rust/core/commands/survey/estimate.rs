//! Estimates: how much would come of a corpus, from its samples.

use serde::Serialize;

use super::resolve::Bench;
use super::sampled::{Sampled, SampledInput, Tokenized};
use crate::job::Job;
use crate::plan::Source;

/// Bytes that a shard's file takes a second to write and sync, about: the slow end of disks.
const WRITTEN_A_SECOND: f64 = 300e6;
/// Bytes of a document's length, source, record and part in a row; of a run of one role; and of the
/// offsets and the count of targets of a row.
const DOCUMENT: f64 = 4.0 + 2.0 + 8.0 + 4.0;
const RUN: f64 = 5.0;
const ROW: f64 = 32.0;

/// What packing would give and take, estimated from samples.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Estimate {
    /// Records in the files.
    pub records: u64,
    /// Documents, copies and windows included.
    pub documents: u64,
    /// Tokens, control tokens included.
    pub tokens: u64,
    /// Trained tokens.
    pub targets: u64,
    /// Rows of both splits.
    pub rows: u64,
    /// Bytes of the dataset.
    pub bytes: u64,
    /// Seconds of packing at the speed of the sample, on all threads.
    pub seconds: f64,
    /// Whether every record was read and tokenized, so that only rows, bytes and time are estimates.
    pub exact: bool,
    /// Whether there is more than these numbers: what was read says little of the rest.
    pub at_least: bool,
    /// Sums that rows depend on.
    #[serde(skip)]
    rows_of: RowsOf,
}

/// Sums over documents that rows are estimated from, for training and for validation.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct RowsOf {
    documents: [f64; 2],
    tokens: [f64; 2],
    /// Documents longer than half a row.
    halves: [f64; 2],
    runs: f64,
    /// Seconds of one thread.
    seconds: f64,
}

/// Returns the estimate of a source, but for rows, bytes and time, which depend on all of them.
pub(super) fn of_source(bench: &Bench, sampled: &Sampled) -> Estimate {
    let plan = bench.plan();
    let source = &plan.sources[sampled.index];
    let sums = sampled.sums();
    let mean = mean_bytes(&sums);
    let is_whole = sampled.is_whole();
    let records = |nth: usize| records_of(&sampled.inputs, nth, size_of(bench, source, nth), mean);
    let (training, all) = (source.training_inputs, source.inputs.len());
    let trained: f64 = (0..training).map(records).sum();
    let held_out: f64 = (training..all).map(records).sum();
    let mut estimate = Estimate {
        records: (trained + held_out).round() as u64,
        at_least: sampled.inputs.iter().any(SampledInput::is_uneven),
        ..Estimate::default()
    };
    if bench.job().is_none() {
        return estimate;
    }
    // Of a sample that makes no document, nothing is known of those that the rest makes.
    estimate.at_least |= !is_whole && sums.documents == 0;
    let (share, copies) = (plan.pack.validation, source.epochs.unwrap_or(1.0));
    let [kept, drawn, apart] = sampled.tokenized;
    let is_exact = is_whole && sums.records == sampled.records;
    // Which records are held out is known of those that were read, of others their share.
    let (sides, made) = if is_exact {
        let made = [[kept.read as f64 * copies, 0.0, 0.0], [0.0, drawn.read as f64, held_out]];
        ([kept, drawn, apart], made)
    } else {
        let made = [[trained * (1.0 - share) * copies, 0.0, 0.0], [trained * share, 0.0, held_out]];
        ([kept.plus(&drawn), drawn, apart], made)
    };
    // Files that are held out may differ from others, if any of them was tokenized.
    let sides = sides.map(|side| if side.records > 0 { side } else { sums });
    let times = |each: [f64; 3]| made.map(|made| made.iter().zip(each).map(|(n, x)| n * x).sum());
    let by_record = |of: Sum| times(sides.each_ref().map(|sums| a_record(sums, of)));
    let by_bytes = |of: Sum| times(sides.each_ref().map(|sums| by_bytes(sums, of)));
    let whole = |both: [f64; 2]| (both[0] + both[1]).round() as u64;
    let (documents, tokens) = (by_record(|sums| sums.documents), by_bytes(|sums| sums.tokens));
    estimate.documents = whole(documents);
    estimate.tokens = whole(tokens);
    estimate.targets = whole(by_bytes(|sums| sums.targets));
    // Which records are copied once more is left to chance.
    estimate.exact = is_exact && copies.fract() == 0.0 && plan.mix.is_none();
    let runs = by_record(|sums| sums.runs);
    let content = (trained + held_out) * mean;
    let speed = if sums.bytes == 0 { 0.0 } else { sums.seconds / sums.bytes as f64 };
    estimate.rows_of = RowsOf {
        documents,
        tokens,
        halves: by_bytes(|sums| sums.halves),
        runs: runs[0] + runs[1],
        seconds: content * speed,
    };
    estimate
}

/// Returns the mean size of the records that were read.
fn mean_bytes(sums: &Tokenized) -> f64 {
    sums.read_bytes as f64 / sums.read.max(1) as f64
}

/// One of the sums over tokenized records.
type Sum = fn(&Tokenized) -> u64;

/// Returns a sum over tokenized records for each of them.
fn a_record(sums: &Tokenized, of: Sum) -> f64 {
    of(sums) as f64 / sums.records.max(1) as f64
}

/// Returns a sum that grows with the size of records for each record that was read: the tokenized
/// ones may be shorter than others.
fn by_bytes(sums: &Tokenized, of: Sum) -> f64 {
    if sums.bytes == 0 { 0.0 } else { of(sums) as f64 * mean_bytes(sums) / sums.bytes as f64 }
}

/// Returns the size of the input `nth` of a source.
fn size_of(bench: &Bench, source: &Source, nth: usize) -> u64 {
    bench.plan().inputs[source.inputs[nth]].size
}

/// Returns the number of records of the input `nth`, whose file has `size` bytes. `mean` is the
/// mean size of the source's records.
fn records_of(inputs: &[SampledInput], nth: usize, size: u64, mean: f64) -> f64 {
    let input = &inputs[nth];
    if input.is_whole || input.is_uneven() {
        return input.records as f64;
    }
    if let Some(stated) = input.stated {
        return stated as f64;
    }
    if !input.densities.is_empty() {
        // Places are evenly spread, whatever was read of each.
        let density = input.densities.iter().sum::<f64>() / input.densities.len() as f64;
        return size as f64 * inflation(&[input]) * density;
    }
    // Not read: as the files of the source that were.
    let read: Vec<&SampledInput> = inputs.iter().filter(|input| input.records > 0).collect();
    if mean == 0.0 { 0.0 } else { size as f64 * inflation(&read) / mean }
}

/// Returns the bytes of content for each byte of a compressed file; 1 for plain files.
fn inflation(inputs: &[&SampledInput]) -> f64 {
    let sum = |of: fn(&SampledInput) -> u64| inputs.iter().map(|input| of(input)).sum::<u64>();
    if !inputs.iter().any(|input| input.is_compressed) {
        return 1.0;
    }
    sum(|input| input.unpacked) as f64 / sum(|input| input.packed).max(1) as f64
}

/// Returns the number of documents that would be trained on, copies included.
pub(super) fn trained(sources: &[Estimate]) -> f64 {
    sources.iter().map(|source| source.rows_of.documents[0]).sum()
}

/// Returns the number of documents that would be held out.
pub(super) fn held_out(sources: &[Estimate]) -> f64 {
    sources.iter().map(|source| source.rows_of.documents[1]).sum()
}

/// Adds up the estimates of sources, and estimates rows, bytes and time.
pub(super) fn of_corpus(job: &Job, sources: &[Estimate], threads: usize) -> Estimate {
    let mut total = Estimate { exact: true, ..Estimate::default() };
    let sums = &mut RowsOf::default();
    for source in sources {
        total.records += source.records;
        total.documents += source.documents;
        total.tokens += source.tokens;
        total.targets += source.targets;
        total.exact &= source.exact;
        total.at_least |= source.at_least;
        let of = source.rows_of;
        for side in 0..2 {
            sums.documents[side] += of.documents[side];
            sums.tokens[side] += of.tokens[side];
            sums.halves[side] += of.halves[side];
        }
        sums.runs += of.runs;
        sums.seconds += of.seconds;
    }
    let pack = &job.plan.pack;
    let seq_len = pack.seq_len as f64;
    for side in 0..2 {
        let full = (sums.tokens[side] / seq_len).ceil();
        // Two documents longer than half a row never share one, unless rows cut documents.
        let rows = match pack.pack.name() {
            "none" => sums.documents[side].round(),
            _ if pack.pack.may_cut() => full,
            _ => full.max(sums.halves[side].round()),
        };
        total.rows += rows as u64;
    }
    let documents = sums.documents[0] + sums.documents[1];
    // An id and a bit of mask for each token of a row.
    let row = seq_len * (job.encoder.id_type().width() as f64 + 0.125) + ROW;
    total.bytes = (total.rows as f64 * row + documents * DOCUMENT + sums.runs * RUN) as u64
        + job.encoder.bytes().len() as u64;
    total.seconds = sums.seconds / threads as f64 + total.bytes as f64 / WRITTEN_A_SECOND;
    total
}
