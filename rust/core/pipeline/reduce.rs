//! The reduce task: one shard is packed, masked, checked and written.

use std::borrow::Cow;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

use arrow_array::RecordBatch;

use super::Job;
use super::fit::windows_of;
use crate::choice::{Subject, choice};
use crate::error::{Error, Result};
use crate::mask::{Row, RowRules, check_row, push_document_mask};
use crate::monitor::Monitor;
use crate::pack::{Item, Piece, concat, pack};
use crate::report::ShardSums;
use crate::schema::{Packing, ROWS_PER_BATCH, doc_parts};
use crate::settle::{Made, Settlement, ShardPlan, Sums, buckets_of_copy};
use crate::spool::{Head, decode};
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

/// The documents of a shard, copies included, in the order of sources and records.
#[derive(Debug, Default)]
struct Documents<'a> {
    /// Bytes that hold them.
    blocks: Vec<Cow<'a, [u8]>>,
    /// What is packed: a window of a document, or all of it.
    items: Vec<Item>,
    /// Where each item lies.
    places: Vec<Place>,
}

/// Where the tokens of an item lie.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// The block that its document lies in.
    block: u32,
    /// Where its document starts in the block.
    at: u32,
    /// Tokens of its document.
    tokens: u32,
    /// The first of them that is in the item.
    start: u32,
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
    let mut documents = gather(job, settlement, plan, threads)?;
    monitor.check()?;
    let mut sums = ShardSums::new(plan.side, shard_name(plan.side, plan.index));
    let seq_len = job.plan.pack.seq_len;
    let mut rows = match job.plan.pack.pack {
        Packing::BestFit => pack(&documents.items, seq_len),
        Packing::None => (0..documents.items.len() as u32).map(|at| vec![at]).collect(),
        Packing::Concat => {
            let (pieces, rows) = concat(&documents.items, seq_len);
            sums.cuts = documents.cut(&pieces, job.plan.sources.len());
            rows
        }
    };
    shuffle(job, &documents.items, &mut rows);
    let rules = row_rules(job);
    let path = folder.shard_path(plan.side, plan.index);
    let writer = Mutex::new(ShardWriter::create(&path, rules.seq_len, job.encoder.id_type())?);
    let batches: Vec<&[Vec<u32>]> = rows.chunks(ROWS_PER_BATCH).collect();
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
            Some(nth) => make_batch(job, &documents, at_once[nth], &rules).map(Some),
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
    rows: &[Vec<u32>],
    rules: &RowRules,
) -> Result<(RecordBatch, RowSums)> {
    let mut batch = Batch::new(rules.seq_len, job.encoder.id_type());
    let mut found = RowSums::default();
    let mut row = Row::default();
    for held in rows {
        documents.fill(job, held, &mut row);
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

/// Reads the documents of a shard.
fn gather<'a>(job: &Job<'_>, settlement: &Settlement<'a>, plan: &ShardPlan, threads: usize) -> Result<Documents<'a>> {
    let sizes: Vec<u64> = settlement.corpus().parts.iter().map(|of| of.part.layout.payload).collect();
    let found = tasks::run_largest_first(threads, &sizes, |at| gather_part(job, settlement, plan, at))?;
    let count = found.iter().map(|part| part.items.len()).sum();
    let (items, places) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let mut documents = Documents { items, places, ..Documents::default() };
    for Documents { blocks, items, places } in found {
        let before = documents.blocks.len() as u32;
        documents.blocks.extend(blocks);
        documents.items.extend_from_slice(&items);
        documents.places.extend(places.iter().map(|place| Place { block: place.block + before, ..*place }));
    }
    Ok(documents)
}

/// Reads those of them that part `at` holds.
fn gather_part<'a>(job: &Job<'_>, settlement: &Settlement<'a>, plan: &ShardPlan, at: usize) -> Result<Documents<'a>> {
    let of = &settlement.corpus().parts[at];
    let mut documents = Documents::default();
    for copy in 0..settlement.max_copies(of.source) {
        let mut heads: Vec<Head> = Vec::new();
        for buckets in buckets_of_copy(&plan.buckets, copy) {
            let is_made = |(index, head): &(u32, Head)| {
                let is_of = |made: Made| made.side == plan.side && copy < made.copies;
                settlement.made(at, *index, head).is_some_and(is_of)
            };
            heads.extend(of.part.in_buckets(buckets)?.into_iter().filter(is_made).map(|(_, head)| head));
        }
        // The buckets of a copy may wrap around: what comes first in the part is read first.
        heads.sort_by_key(Head::order);
        let Documents { blocks, items, places } = &mut documents;
        let block = blocks.len() as u32;
        let mut starts = Vec::with_capacity(heads.len());
        blocks.push(of.part.documents(heads.iter(), |at| starts.push(at))?);
        for (head, at) in heads.iter().zip(starts) {
            for (window, range) in windows_of(&job.plan.pack, head.tokens as usize).into_iter().enumerate() {
                items.push(item(job, of.source, head, copy, window as u32, range.len() as u32));
                places.push(Place { block, at, tokens: head.tokens, start: range.start as u32 });
            }
        }
    }
    Ok(documents)
}

fn item(job: &Job<'_>, source: usize, head: &Head, copy: u32, window: u32, len: u32) -> Item {
    let subject = Subject { name: &job.plan.sources[source].name, record: head.record_id, copy };
    let order = choice(job.plan.pack.seed, "pack", subject);
    Item { len, order, record: (source as u16, head.record_id), copy, window }
}

/// Puts the rows in seeded random order, each by its first document.
fn shuffle(job: &Job<'_>, items: &[Item], rows: &mut [Vec<u32>]) {
    rows.sort_by_cached_key(|row| {
        let first = &items[row[0] as usize];
        let name = &job.plan.sources[usize::from(first.record.0)].name;
        let subject = Subject { name, record: first.record.1, copy: doc_parts(first.copy, first.window) };
        (choice(job.plan.pack.seed, "row", subject), first.record, first.copy, first.window)
    });
}

impl Documents<'_> {
    /// Puts pieces in the place of documents. How often the documents of each source were cut.
    fn cut(&mut self, pieces: &[Piece], sources: usize) -> Vec<u64> {
        let mut cuts = vec![0; sources];
        let (items, places) = (std::mem::take(&mut self.items), std::mem::take(&mut self.places));
        for piece in pieces {
            let (item, place) = (items[piece.item as usize], places[piece.item as usize]);
            cuts[usize::from(item.record.0)] += u64::from(piece.window > 0);
            self.items.push(Item { len: piece.len, window: piece.window, ..item });
            self.places.push(Place { start: piece.start, ..place });
        }
        cuts
    }

    /// Makes `row` of the items `held`, padding aside.
    fn fill(&self, job: &Job<'_>, held: &[u32], row: &mut Row) {
        let mut runs = Vec::new();
        row.clear();
        for &at in held {
            let (item, place) = (&self.items[at as usize], &self.places[at as usize]);
            let range = place.start as usize..(place.start + item.len) as usize;
            let bytes = &self.blocks[place.block as usize][place.at as usize..];
            decode(bytes, place.tokens as usize, range, job.encoder.id_type(), &mut row.ids, &mut runs);
            push_document_mask(&runs, job.plan.sources[usize::from(item.record.0)].loss, &mut row.mask);
            row.seq_lengths.push(item.len as i32);
            row.segment_lengths.extend(runs.iter().map(|run| run.len as i32));
            row.segment_roles.extend(runs.iter().map(|run| run.role as u8));
            row.source_ids.push(item.record.0);
            row.record_ids.push(item.record.1);
            row.doc_parts.push(doc_parts(item.copy, item.window));
        }
        row.n_targets = row.mask.iter().map(|&learnt| i32::from(learnt)).sum();
    }
}
