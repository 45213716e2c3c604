//! The reduce task: one shard is packed, masked, checked and written.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

use arrow_array::RecordBatch;

use super::Job;
use super::gather::Documents;
use crate::error::{Error, Result};
use crate::mask::{Row, RowRules, check_row};
use crate::monitor::Monitor;
use crate::pack::{Items, Rows, Sorting, concat, pack};
use crate::report::ShardSums;
use crate::schema::{Packing, ROWS_PER_BATCH, doc_parts};
use crate::settle::{Settlement, ShardPlan, Sums};
use crate::tasks;
use crate::tokenize::ControlIds;
use crate::write::{Batch, ShardWriter, WorkFolder, shard_name};

/// Batches made between two writes, for each thread.
const BATCHES_A_THREAD: usize = 4;

/// The rules that every row of the job must meet.
pub fn row_rules(job: &Job<'_>) -> RowRules {
    let ControlIds { bos, eos, pad } = job.encoder.controls();
    RowRules {
        seq_len: job.plan.pack.seq_len,
        bos,
        eos,
        pad,
        vocab_size: job.encoder.vocab_size(),
        policies: job.plan.sources.iter().map(|source| source.loss).collect(),
        cuts: job.plan.pack.pack == Packing::Concat,
    }
}

/// Makes the shard of `plan` on a few threads.
pub fn reduce_shard(
    job: &Job<'_>,
    settlement: &Settlement<'_>,
    plan: &ShardPlan,
    folder: &WorkFolder,
    threads: usize,
    monitor: &Monitor,
) -> Result<ShardSums> {
    let mut documents = Documents::gather(job, settlement, plan, threads)?;
    monitor.check()?;
    let mut sums = ShardSums::new(plan.split, shard_name(plan.split, plan.index));
    let seq_len = job.plan.pack.seq_len;
    let sorting = Sorting::on(threads);
    let rows = match job.plan.pack.pack {
        Packing::BestFit => pack(&documents, seq_len, sorting)?,
        Packing::None => Rows::of_one_each(documents.count()),
        Packing::Concat => {
            let (pieces, rows) = concat(&documents, seq_len, sorting)?;
            sums.cuts = documents.cut(pieces);
            rows
        }
    };
    sums.kept_apart = rows.kept_apart;
    let order = shuffled(&documents, &rows);
    let rules = row_rules(job);
    let path = folder.shard_path(plan.split, plan.index);
    let writer = Mutex::new(ShardWriter::create(&path, rules.seq_len, job.encoder.id_type())?);
    let batches: Vec<&[(u64, u32)]> = order.chunks(ROWS_PER_BATCH).collect();
    let mut waiting: Vec<RecordBatch> = Vec::new();
    // What was made last is written while the next are made; after the last, one more round writes.
    for at_once in batches.chunks(threads * BATCHES_A_THREAD).chain([&[][..]]) {
        monitor.check()?;
        let last = std::mem::take(&mut waiting);
        let made = tasks::run(threads, at_once.len() + 1, |nth| match nth.checked_sub(1) {
            None => {
                let mut writer = tasks::lock(&writer);
                last.iter().try_for_each(|batch| writer.write(batch)).map(|()| None)
            }
            Some(nth) => make_batch(
                job,
                &documents,
                at_once[nth].iter().map(|(_, row)| rows.items(*row)),
                &rules,
            )
            .map(Some),
        })?;
        monitor.done.fetch_add(last.iter().map(|batch| batch.num_rows() as u64).sum(), Relaxed);
        for (batch, rows) in made.into_iter().flatten() {
            waiting.push(batch);
            sums.sums.add_sums(rows.sums);
            sums.single_source_rows += rows.single_source;
        }
    }
    let writer = writer.into_inner().unwrap_or_else(PoisonError::into_inner);
    sums.written = writer.finish()?;
    Ok(sums)
}

/// What some rows hold.
#[derive(Debug, Default)]
struct RowSums {
    sums: Sums,
    single_source: u64,
}

/// Rows masked, checked and laid out.
fn make_batch(
    job: &Job<'_>,
    documents: &Documents<'_>,
    rows: impl Iterator<Item = impl Iterator<Item = u32>>,
    rules: &RowRules,
) -> Result<(RecordBatch, RowSums)> {
    let mut batch = Batch::new(rules.seq_len, job.encoder.id_type());
    let mut found = RowSums::default();
    let mut row = Row::default();
    for items in rows {
        documents.fill(items, &mut row);
        row.ids.resize(rules.seq_len, rules.pad);
        row.mask.resize(rules.seq_len, false);
        check_row(&row, rules).map_err(|violation| {
            Error::internal(format!("a row breaks the mask contract: {}", violation.0))
                .remedy("this is a bug in sabiprep: please report it; nothing was written")
        })?;
        found.sums.documents += row.seq_lengths.len() as u64;
        found.sums.tokens += row.seq_lengths.iter().map(|&len| len as u64).sum::<u64>();
        found.sums.targets += row.n_targets as u64;
        found.single_source += u64::from(row.is_single_source());
        batch.push(&row);
    }
    Ok((batch.finish()?, found))
}

/// The rows of a shard in seeded random order, each by its first document.
fn shuffled(documents: &Documents<'_>, rows: &Rows) -> Vec<(u64, u32)> {
    let key = |row: u32| documents.choice_of(rows.first(row), "row", doc_parts);
    let mut order: Vec<(u64, u32)> = (0..rows.len() as u32).map(|row| (key(row), row)).collect();
    let first = |row: u32| documents.identity(rows.first(row));
    order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| first(a.1).cmp(&first(b.1))));
    order
}
