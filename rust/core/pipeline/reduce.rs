//! The reduce task: packs, masks, checks and writes one shard.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

use arrow_array::RecordBatch;
use serde::{Deserialize, Serialize};

use super::gather::Documents;
use crate::choice::Purpose;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use crate::mask::{Row, RowRules, check_row};
use crate::pack::{Items, Packed, Rows, Sorting};
use crate::report::ShardSums;
use crate::schema::{DocId, ROWS_PER_BATCH, shard_schema};
use crate::settle::{Corpus, Decisions, ShardPlan, Sums};
use crate::tasks;
use crate::tokenize::ControlIds;
use crate::write::{Batch, ShardWriter, WorkFolder, Written, shard_name};

/// Batches made between two writes, for each thread.
const BATCHES_A_THREAD: usize = 4;

/// A reduce task: plain data that any machine can run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReduceTask {
    /// The shard to make.
    pub shard: ShardPlan,
}

/// The surroundings of reduce tasks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReduceStage<'a> {
    /// The plan with its tokenizer and templates.
    pub job: &'a Job,
    /// The mapped corpus.
    pub corpus: &'a Corpus<'a>,
    /// The decisions over the corpus.
    pub decisions: &'a Decisions,
    /// The folder that shards are written to.
    pub folder: &'a WorkFolder<'a>,
    /// The threads that read documents: more than those that work, where spools are far away.
    pub readers: usize,
    /// The machine that runs the tasks.
    pub context: Context<'a>,
}

impl ReduceStage<'_> {
    /// Returns the stage with another number of threads.
    pub(crate) fn with_threads(self, threads: usize) -> Self {
        // As many shards more are made at a time as each has fewer threads.
        let readers = (self.readers * threads / self.context.threads).max(threads);
        Self { context: self.context.with_threads(threads), readers, ..self }
    }

    /// Makes the shard of `task`, unless an earlier run made it. Returns its sums.
    pub(crate) fn run(&self, task: &ReduceTask) -> Result<ShardSums> {
        let ShardPlan { split, index, .. } = task.shard;
        if let Some(saved) = self.folder.saved::<ShardSums>(split, index)
            && self.is_whole(&task.shard, &saved.written)?
        {
            self.context.monitor.done.fetch_add(saved.written.rows, Relaxed);
            return Ok(saved);
        }
        let sums = self.make_shard(&task.shard)?;
        self.folder.save(split, index, &sums)?;
        Ok(sums)
    }

    /// Returns whether the file of a shard has the bytes that were written. A damaged shard is made
    /// again in its place.
    fn is_whole(&self, shard: &ShardPlan, written: &Written) -> Result<bool> {
        let (path, storage) =
            (self.folder.shard_path(shard.split, shard.index), self.context.storage);
        if !storage.file_size(&path).is_ok_and(|size| size == written.bytes) {
            return Ok(false);
        }
        match storage.xxh3_128_of_file(&path, || self.context.monitor.check()) {
            Err(error) if error.kind == ErrorKind::Interrupted => Err(error),
            sum => Ok(sum.is_ok_and(|sum| sum == written.xxh3_128)),
        }
    }

    /// Packs, masks, checks and writes a shard. Returns its sums.
    fn make_shard(&self, shard: &ShardPlan) -> Result<ShardSums> {
        let (job, context) = (self.job, &self.context);
        let mut documents = Documents::gather(self, shard)?;
        context.monitor.check()?;
        let mut sums = ShardSums::new(shard.split, shard_name(shard.split, shard.index));
        let pack = &job.plan.pack;
        let Packed { rows, pieces } =
            pack.pack.pack(&documents, pack.seq_len, Sorting::on(context.threads))?;
        if let Some(pieces) = pieces {
            sums.cuts = documents.cut(pieces);
        }
        sums.kept_apart = rows.kept_apart;
        let path = self.folder.shard_path(shard.split, shard.index);
        self.write_rows(&path, &documents, &rows, &mut sums)?;
        Ok(sums)
    }

    /// Writes the rows of a shard to `path`, in seeded order, and adds them to `sums`.
    fn write_rows(
        &self,
        path: &Path,
        documents: &Documents<'_>,
        rows: &Rows,
        sums: &mut ShardSums,
    ) -> Result<()> {
        let (job, context) = (self.job, &self.context);
        let (seq_len, id_type) = (job.plan.pack.seq_len, job.encoder.id_type());
        let order = shuffled(documents, rows);
        let rules = row_rules(job);
        let schema = shard_schema(seq_len, id_type, job.plan.is_weighted());
        let writer = ShardWriter::create(context.storage, path, &schema)?;
        let writer = Mutex::new(writer);
        let batches: Vec<&[(u64, u32)]> = order.chunks(ROWS_PER_BATCH).collect();
        let mut waiting: Vec<RecordBatch> = Vec::new();
        // The last batches are written while the next are made; one more round writes the rest.
        for at_once in batches.chunks(context.threads * BATCHES_A_THREAD).chain([&[][..]]) {
            context.monitor.check()?;
            let last = std::mem::take(&mut waiting);
            let made = tasks::run(context.threads, at_once.len() + 1, |nth| {
                // The first task is the writing: it takes the longest.
                let Some(nth) = nth.checked_sub(1) else {
                    let mut writer = tasks::lock(&writer);
                    return last.iter().try_for_each(|batch| writer.write(batch)).map(|()| None);
                };
                let rows = at_once[nth].iter().map(|(_, row)| rows.items(*row));
                make_batch(job, documents, rows, &rules).map(Some)
            })?;
            let written = last.iter().map(|batch| batch.num_rows() as u64).sum();
            context.monitor.done.fetch_add(written, Relaxed);
            for (batch, rows) in made.into_iter().flatten() {
                waiting.push(batch);
                sums.sums.add_sums(rows.sums);
                sums.single_source_rows += rows.single_source;
            }
        }
        let writer = writer.into_inner().unwrap_or_else(PoisonError::into_inner);
        sums.written = writer.finish()?;
        Ok(())
    }
}

/// Returns the rules that every row of the job must meet.
fn row_rules(job: &Job) -> RowRules {
    let ControlIds { bos, eos, pad } = job.encoder.controls();
    RowRules {
        seq_len: job.plan.pack.seq_len,
        bos,
        eos,
        pad,
        vocab_size: job.encoder.vocab_size(),
        policies: job.plan.sources.iter().map(|source| source.loss).collect(),
        spans: job.plan.sources.iter().map(|source| source.spans.is_some()).collect(),
        is_weighted: job.plan.is_weighted(),
        cuts: job.plan.pack.pack.may_cut(),
    }
}

/// Sums over some rows.
#[derive(Debug, Default)]
struct RowSums {
    sums: Sums,
    single_source: u64,
}

/// Masks and checks rows. Returns them as a batch, with their sums.
fn make_batch(
    job: &Job,
    documents: &Documents<'_>,
    rows: impl Iterator<Item = impl Iterator<Item = u32>>,
    rules: &RowRules,
) -> Result<(RecordBatch, RowSums)> {
    let mut batch = Batch::new(rules.seq_len, job.encoder.id_type(), rules.is_weighted);
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

/// Returns the rows of a shard in seeded random order. The first document of a row decides its
/// place.
fn shuffled(documents: &Documents<'_>, rows: &Rows) -> Vec<(u64, u32)> {
    let key = |row: u32| documents.choice_of(rows.first(row), Purpose::Row, DocId::doc_parts);
    let mut order: Vec<(u64, u32)> = (0..rows.len() as u32).map(|row| (key(row), row)).collect();
    let first = |row: u32| documents.id(rows.first(row));
    order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| first(a.1).cmp(&first(b.1))));
    order
}
