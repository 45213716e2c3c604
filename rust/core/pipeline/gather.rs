//! `Documents`: the documents of a shard, in sixteen bytes each beside their tokens.

use std::borrow::Cow;

use super::reduce::ReduceStage;
use crate::choice::{Purpose, Subject, choice};
use crate::error::{Error, Result};
use crate::job::Job;
use crate::mask::{Row, push_document_mask, push_piece_mask};
use crate::pack::{Items, Piece};
use crate::schema::{DocId, LossPolicy, Weight};
use crate::settle::{Made, ShardPlan, buckets_of_copy};
use crate::spool::{DocMeta, decode, weight_of};
use crate::tasks;

/// Bytes held for each document of a shard while it is packed: its [`Entry`], its link to the next
/// document of its row, and its role runs. Its tokens and the keys being sorted are not counted.
pub(crate) const DOCUMENT_BYTES: u64 = 24;

/// Parts read at a time, for each thread.
const PARTS_A_THREAD: usize = 16;

/// The documents of a shard, copies included, by block; and the items that are packed, by index.
///
/// An item below `whole` is the first window of the document of that index. An item from `whole` on
/// is a piece.
#[derive(Debug)]
pub(crate) struct Documents<'a> {
    job: &'a Job,
    blocks: Vec<Block<'a>>,
    /// All documents, block after block.
    entries: Vec<Entry>,
    /// Windows after the first of their document; all pieces, if the policy cuts.
    pieces: Vec<Piece>,
    /// The number of items that are documents.
    whole: u32,
}

/// Bytes that hold documents of one source, copy and part.
#[derive(Debug)]
struct Block<'a> {
    bytes: Cow<'a, [u8]>,
    /// The index of their source.
    source: u16,
    /// The number of their copy.
    copy: u32,
    /// The index of each document among the documents of its record.
    part: u32,
    /// The index of the first of its documents; they come one after another.
    first: u32,
}

/// A document of a block.
#[derive(Debug, Clone, Copy)]
struct Entry {
    record_id: u64,
    /// The byte of its block at which it starts.
    start: u32,
    /// The number of its tokens.
    tokens: u32,
}

impl Block<'_> {
    /// Returns the id of a document of the block.
    fn id_of(&self, entry: &Entry) -> DocId {
        let Self { source, copy, part, .. } = *self;
        DocId { source, record: entry.record_id, copy, part, window: 0 }
    }
}

impl<'a> Documents<'a> {
    /// Reads the documents of the shard `plan`.
    pub(crate) fn gather(stage: &ReduceStage<'a>, plan: &ShardPlan) -> Result<Self> {
        let ReduceStage { job, corpus, readers, .. } = *stage;
        let sizes: Vec<u64> = corpus.parts.iter().map(|of| of.part.layout.payload).collect();
        let entries = Vec::with_capacity(plan.documents as usize);
        let mut documents = Self { job, blocks: Vec::new(), entries, pieces: Vec::new(), whole: 0 };
        // A few parts at a time: their entries are not held twice.
        let at_once = readers * PARTS_A_THREAD;
        for (nth, sizes) in sizes.chunks(at_once).enumerate() {
            let gather = |index| gather_part(stage, plan, nth * at_once + index);
            let found = tasks::run_largest_first(readers, sizes, gather)?;
            for (block, entries) in found.into_iter().flatten() {
                documents.blocks.push(Block { first: documents.entries.len() as u32, ..block });
                documents.entries.extend(entries);
            }
            refuse_too_many(documents.entries.len())?;
        }
        let count = documents.entries.len();
        documents.whole = count as u32;
        for item in 0..count as u32 {
            documents.add_windows(item);
        }
        refuse_too_many(count + documents.pieces.len())?;
        Ok(documents)
    }

    /// Adds every window of a document but the first as a piece.
    fn add_windows(&mut self, item: u32) {
        let tokens = self.entries[item as usize].tokens as usize;
        if tokens > self.job.plan.pack.seq_len {
            let windows = (0..).zip(self.job.plan.pack.windows(tokens)).skip(1);
            self.pieces.extend(windows.map(|(window, range)| Piece {
                item,
                start: range.start as u32,
                len: range.len() as u32,
                window,
            }));
        }
    }

    /// Replaces the items by `pieces`. Returns how often the documents of each source were cut.
    pub(crate) fn cut(&mut self, pieces: Vec<Piece>) -> Vec<u64> {
        let mut cuts = vec![0; self.job.plan.sources.len()];
        for piece in pieces.iter().filter(|piece| piece.window > 0) {
            cuts[usize::from(self.block(piece.item).source)] += 1;
        }
        (self.pieces, self.whole) = (pieces, 0);
        cuts
    }

    /// Returns an item as a piece of its document.
    fn piece(&self, item: u32) -> Piece {
        if let Some(nth) = item.checked_sub(self.whole) {
            return self.pieces[nth as usize];
        }
        let tokens = self.entries[item as usize].tokens;
        let len = if tokens as usize > self.job.plan.pack.seq_len {
            self.job.plan.pack.windows(tokens as usize)[0].len() as u32
        } else {
            tokens
        };
        Piece { item, start: 0, len, window: 0 }
    }

    /// Returns the index of the document that `item` belongs to.
    fn document(&self, item: u32) -> u32 {
        item.checked_sub(self.whole).map_or(item, |nth| self.pieces[nth as usize].item)
    }

    /// Returns the block that holds a document.
    fn block(&self, document: u32) -> &Block<'a> {
        &self.blocks[self.blocks.partition_point(|block| block.first <= document) - 1]
    }

    /// Returns the seeded choice of `purpose` about an item. `number` tells the items of a record
    /// apart. The choice does not depend on the order of work.
    pub(crate) fn choice_of(
        &self,
        item: u32,
        purpose: Purpose,
        number: impl Fn(DocId) -> u32,
    ) -> u64 {
        let id = self.id(item);
        let plan = &self.job.plan;
        let name = &plan.sources[usize::from(id.source)].name;
        let subject = Subject { name, record: id.record, copy: number(id) };
        choice(plan.pack.seed, purpose, subject)
    }

    /// Fills `row` with `items`, without padding.
    pub(crate) fn fill(&self, items: impl Iterator<Item = u32>, row: &mut Row) {
        let mut runs = Vec::new();
        let is_weighted = self.job.plan.is_weighted();
        row.clear();
        for item in items {
            let Piece { item, start, len, window } = self.piece(item);
            let (entry, block) = (&self.entries[item as usize], self.block(item));
            let range = start as usize..(start + len) as usize;
            let bytes = &block.bytes[entry.start as usize..];
            let id_type = self.job.encoder.id_type();
            let tokens = entry.tokens as usize;
            decode(bytes, tokens, range.clone(), id_type, &mut row.ids, &mut runs);
            let source = &self.job.plan.sources[usize::from(block.source)];
            if source.loss == LossPolicy::LastTurn && range.len() < tokens {
                let (mut ids, mut whole) = (Vec::new(), Vec::new());
                decode(bytes, tokens, 0..tokens, id_type, &mut ids, &mut whole);
                push_piece_mask(&whole, range, source.loss, &mut row.mask);
            } else {
                push_document_mask(&runs, source.loss, &mut row.mask);
            }
            if is_weighted {
                let stored = source.loss_weight.is_some();
                let weight = || weight_of(bytes, tokens, id_type);
                row.doc_weights.push(if stored { weight() } else { Weight::ONE });
            }
            row.seq_lengths.push(len as i32);
            row.segment_lengths.extend(runs.iter().map(|run| run.len as i32));
            row.segment_roles.extend(runs.iter().map(|run| run.role as u8));
            row.source_ids.push(block.source);
            row.record_ids.push(entry.record_id);
            let id = DocId { window, ..block.id_of(entry) };
            row.doc_parts.push(id.doc_parts());
        }
        row.n_targets = row.mask.iter().map(|&trained| i32::from(trained)).sum();
    }
}

impl Items for Documents<'_> {
    fn count(&self) -> usize {
        self.whole as usize + self.pieces.len()
    }

    fn tokens(&self, item: u32) -> u32 {
        self.piece(item).len
    }

    fn order(&self, item: u32) -> u64 {
        // Windows of a document come one after another; its record's other documents do not.
        self.choice_of(item, Purpose::Pack, |id| id.part << 8 | id.copy)
    }

    fn id(&self, item: u32) -> DocId {
        let window = item.checked_sub(self.whole).map_or(0, |nth| self.pieces[nth as usize].window);
        let document = self.document(item);
        let whole = self.block(document).id_of(&self.entries[document as usize]);
        DocId { window, ..whole }
    }

    fn are_copies(&self, item: u32, other: u32) -> bool {
        let (item, other) = (self.document(item), self.document(other));
        // Nearly always another record, which needs no look at blocks.
        self.entries[item as usize].record_id == self.entries[other as usize].record_id && {
            let (a, b) = (self.block(item), self.block(other));
            a.source == b.source && a.copy != b.copy
        }
    }

    fn has_copies(&self) -> bool {
        self.blocks.iter().any(|block| block.copy > 0)
    }
}

/// Refuses more documents in one shard than an index of 32 bits can count.
fn refuse_too_many(count: usize) -> Result<()> {
    if count < u32::MAX as usize {
        return Ok(());
    }
    Err(Error::config(format!("a shard of {count} documents is more than can be packed at once"))
        .remedy("lower `shard_tokens` under [pack]"))
}

/// Reads the documents of a shard in part `index`. Returns a block for each copy and part.
fn gather_part<'a>(
    stage: &ReduceStage<'a>,
    plan: &ShardPlan,
    index: usize,
) -> Result<Vec<(Block<'a>, Vec<Entry>)>> {
    let of = &stage.corpus.parts[index];
    let mut found = Vec::new();
    for copy in 0..stage.decisions.max_copies(of.source) {
        let mut metas = copied(stage, plan, index, copy)?;
        // The buckets of a copy may wrap around, but reading wants the order of the part.
        metas.sort_by_key(|meta| (meta.part, meta.order()));
        for metas in metas.chunk_by(|a, b| a.part == b.part) {
            let mut starts = Vec::with_capacity(metas.len());
            let place = |start| starts.push(start);
            let mut bytes = of.part.documents(stage.context.storage, metas.iter(), place)?;
            // Held until the shard is written: spare room would count against the memory.
            if let Cow::Owned(bytes) = &mut bytes {
                bytes.shrink_to_fit();
            }
            let entry = |(meta, start): (&DocMeta, u32)| Entry {
                record_id: meta.record_id,
                start,
                tokens: meta.tokens,
            };
            let entries = metas.iter().zip(starts).map(entry).collect();
            let (source, part) = (of.source as u16, u32::from(metas[0].part));
            found.push((Block { bytes, source, copy, part, first: 0 }, entries));
        }
    }
    Ok(found)
}

/// Returns the documents of part `index` whose copy `copy` is made in the shard `plan`.
fn copied(
    stage: &ReduceStage<'_>,
    plan: &ShardPlan,
    index: usize,
    copy: u32,
) -> Result<Vec<DocMeta>> {
    let ReduceStage { corpus, decisions, context, .. } = *stage;
    let mut metas: Vec<DocMeta> = Vec::new();
    for buckets in buckets_of_copy(&plan.buckets, copy) {
        let (mut first, found) = corpus.parts[index].part.in_buckets(context.storage, buckets)?;
        for documents in found.chunk_by(DocMeta::is_of_record_of) {
            let is_here = |made: Made| made.split == plan.split && copy < made.copies;
            if decisions.made(corpus, index, first, documents).is_some_and(is_here) {
                metas.extend(documents);
            }
            first += documents.len() as u32;
        }
    }
    Ok(metas)
}
