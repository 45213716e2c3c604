//! Settling: what can only be decided once every split is mapped. Small and deterministic.
//!
//! Takes the spools' metas and content keys, read in bounded memory; decides which records are
//! duplicates or leak into validation, how many copies of each are made, and which virtual buckets
//! make which shard, by exact token counts. Knows nothing of threads or split sizes: every decision
//! is a sum over records or a hash of one.

mod corpus;
mod duplicates;
mod mix;

use std::ops::Range;

use serde::{Deserialize, Serialize};

pub use corpus::{Corpus, PartOf};
pub use mix::Epochs;

use corpus::Fate;

use crate::choice::{Subject, choice, within};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::plan::{Plan, Source};
use crate::schema::{DropReason, Overflow, Split};
use crate::spool::{BUCKETS, DocMeta, Dropped, Tally};
use crate::tasks;

/// Copy j of virtual bucket v is made where bucket (v + j · this) mod [`BUCKETS`] is. Odd, so that
/// copies spread.
const COPY_STRIDE: u32 = 1597;

/// The bucket that copy `copy` of a document of `bucket` belongs to.
#[must_use]
pub fn bucket_of_copy(bucket: u16, copy: u32) -> u32 {
    (u32::from(bucket) + copy * COPY_STRIDE) % BUCKETS
}

/// The buckets whose copy `copy` belongs to `buckets`: one range, or two where it wraps around.
#[must_use]
pub fn buckets_of_copy(buckets: &Range<u32>, copy: u32) -> [Range<u32>; 2] {
    let shift = copy * COPY_STRIDE % BUCKETS;
    let start = (buckets.start + BUCKETS - shift) % BUCKETS;
    let end = start + (buckets.end - buckets.start);
    [start..end.min(BUCKETS), 0..end.saturating_sub(BUCKETS)]
}

/// Sums over documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Documents, copies and windows included.
    pub documents: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Their trained tokens.
    pub targets: u64,
}

impl Sums {
    /// Adds `copies` copies of a document, in `windows` windows that overlap by a token.
    fn add(&mut self, meta: &DocMeta, windows: u64, copies: u32) {
        let copies = u64::from(copies);
        self.documents += copies * windows;
        self.tokens += copies * (u64::from(meta.tokens) + windows - 1);
        self.targets += copies * u64::from(meta.targets);
    }

    /// Adds other sums.
    pub fn add_sums(&mut self, other: Self) {
        self.documents += other.documents;
        self.tokens += other.tokens;
        self.targets += other.targets;
    }
}

/// What became of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceTotals {
    /// Counts of its records; drops decided here included.
    pub tally: Tally,
    /// Records in the dataset.
    pub kept: u64,
    /// Those of them that were shortened to fit a row.
    pub truncated: u64,
    /// Copies made of training records.
    pub copies: u64,
    /// What there is to train on, each record once.
    pub unique: Sums,
    /// Sums by split, in the order of [`Split::ALL`].
    pub sums: [Sums; 2],
    /// Records in the dataset by input of the source.
    pub kept_of_inputs: Vec<u64>,
}

/// A shard to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardPlan {
    /// Its split.
    pub split: Split,
    /// Its number within its split.
    pub index: usize,
    /// The buckets it is made of.
    pub buckets: Range<u32>,
    /// Its tokens.
    pub tokens: u64,
    /// Its documents, copies and windows included.
    pub documents: u64,
}

/// Every decision.
#[derive(Debug)]
pub struct Settlement<'a> {
    corpus: &'a Corpus<'a>,
    /// Documents dropped for their content.
    dropped: Vec<Vec<u64>>,
    /// Copies of each source's records, on average.
    pub epochs: Vec<Epochs>,
    /// The shards, by split and index.
    pub shards: Vec<ShardPlan>,
    /// What became of each source.
    pub sources: Vec<SourceTotals>,
}

/// A document of the dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// Its split.
    pub split: Split,
    /// Copies made of it; 0 where it was not sampled.
    pub copies: u32,
}

impl<'a> Settlement<'a> {
    /// The mapped corpus.
    #[must_use]
    pub fn corpus(&self) -> &'a Corpus<'a> {
        self.corpus
    }

    /// The most copies of a record of `source`. Held-out records have one, however small the share
    /// of the others.
    #[must_use]
    pub fn max_copies(&self, source: usize) -> u32 {
        (self.epochs[source].made.ceil() as u32).max(1)
    }

    /// What is made of the document at `meta` of part `at`; nothing if it was dropped.
    #[must_use]
    pub fn made(&self, at: usize, index: u32, meta: &DocMeta) -> Option<Made> {
        let part = &self.corpus.parts[at];
        let Fate::Kept(split) = self.corpus.fate(part, meta.record_id, meta.tokens) else {
            return None;
        };
        if self.is_dropped(at, index) || split == Split::Train && meta.contaminated {
            return None;
        }
        let copies =
            if split == Split::Train { self.copies(part.source, meta.record_id) } else { 1 };
        Some(Made { split, copies })
    }

    /// Whether a document is dropped for what another says.
    fn is_dropped(&self, at: usize, index: u32) -> bool {
        self.dropped[at].get(index as usize / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// The whole part of the source's epochs, and one more for a share of records that is its
    /// fraction.
    fn copies(&self, source: usize, record: u64) -> u32 {
        let subject = Subject { name: &self.corpus.plan.sources[source].name, record, copy: 0 };
        copies_of(self.epochs[source].made, || {
            choice(self.corpus.plan.pack.seed, "epochs", subject)
        })
    }

    /// Windows that a document that was kept is split into before it is packed.
    #[must_use]
    pub fn windows(&self, meta: &DocMeta) -> usize {
        self.corpus.plan.pack.window_count(meta.tokens as usize)
    }
}

/// Sums over some parts.
#[derive(Debug)]
struct PartSums {
    sources: Vec<SourceTotals>,
    /// Tokens by split and bucket of the copy.
    tokens: [Vec<u64>; 2],
    /// Documents by split and bucket of the copy.
    documents: [Vec<u64>; 2],
}

/// Heads looked at in one go.
const HEADS_AT_ONCE: usize = 1 << 14;
/// Pieces that parts are summed up in, for each thread.
const RANGES_A_THREAD: usize = 4;

/// Settles a mapped corpus, on a few threads.
pub fn settle<'a>(corpus: &'a Corpus<'a>, threads: usize) -> Result<Settlement<'a>> {
    let plan = corpus.plan;
    let mut tallies = corpus.tallies.clone();
    let dropped = if plan.looks_at_content() {
        duplicates::drop_by_content(corpus, &mut tallies, threads)?
    } else {
        vec![Vec::new(); corpus.parts.len()]
    };
    let epochs = vec![Epochs::of(1.0); plan.sources.len()];
    let mut settlement =
        Settlement { corpus, dropped, epochs, shards: Vec::new(), sources: Vec::new() };
    let unique = match plan.mix {
        None => vec![Sums::default(); plan.sources.len()],
        Some(_) => {
            sum_all(&settlement, threads)?.sources.into_iter().map(|totals| totals.unique).collect()
        }
    };
    settlement.epochs = mix::epochs(plan, &unique)?;
    let PartSums { mut sources, tokens, documents } = sum_all(&settlement, threads)?;
    for (totals, tally) in sources.iter_mut().zip(tallies) {
        totals.tally.add(&tally);
    }
    refuse_too_long(corpus, &sources)?;
    let shards = Split::ALL
        .into_iter()
        .flat_map(|split| shards_of(split, &tokens[split as usize], plan.pack.shard_tokens));
    settlement.shards = shards.collect();
    for ShardPlan { split, buckets, documents: count, .. } in &mut settlement.shards {
        *count =
            documents[*split as usize][buckets.start as usize..buckets.end as usize].iter().sum();
    }
    settlement.sources = sources;
    Ok(settlement)
}

/// Sums up what is made of all documents.
fn sum_all(settlement: &Settlement<'_>, threads: usize) -> Result<PartSums> {
    let parts = settlement.corpus.parts.len();
    let mut sums = PartSums::new(settlement.corpus.plan);
    let ranges = parts.min(threads * RANGES_A_THREAD);
    let bound = |nth: usize| parts * nth / ranges;
    for more in
        tasks::run(threads, ranges, |nth| sum_parts(settlement, bound(nth)..bound(nth + 1)))?
    {
        sums.merge(&more);
    }
    Ok(sums)
}

/// Sums up what is made of the documents of some parts.
fn sum_parts(settlement: &Settlement<'_>, parts: Range<usize>) -> Result<PartSums> {
    let corpus = settlement.corpus;
    let mut sums = PartSums::new(corpus.plan);
    for (at, part) in parts.clone().zip(&corpus.parts[parts]) {
        let metas = part.part.layout.documents as usize;
        for start in (0..metas).step_by(HEADS_AT_ONCE) {
            let found = part.part.metas(start..(start + HEADS_AT_ONCE).min(metas))?;
            for (index, meta) in (start as u32..).zip(&found) {
                let SourceTotals { tally, unique, .. } = &mut sums.sources[part.source];
                let windows = settlement.windows(meta) as u64;
                let made = settlement.made(at, index, meta);
                if made.is_some_and(|made| made.split == Split::Train) {
                    unique.add(meta, windows, 1);
                }
                match (corpus.fate(part, meta.record_id, meta.tokens), made) {
                    (Fate::Dropped(reason, why), _) => {
                        tally.drop_record(reason, meta.record_id, || why);
                    }
                    (_, Some(Made { copies: 0, .. })) => {
                        tally.drop_record(DropReason::NotSampled, meta.record_id, || {
                            "left out by its source's epochs".to_owned()
                        });
                    }
                    (_, Some(made)) => sums.add(part, meta, made, windows),
                    (Fate::Kept(_), None) if !settlement.is_dropped(at, index) => {
                        let why = "it shares a run of words with a file that `decontaminate` names";
                        tally.drop_record(DropReason::Contaminated, meta.record_id, || {
                            why.to_owned()
                        });
                    }
                    (_, None) => {}
                }
            }
        }
    }
    Ok(sums)
}

impl PartSums {
    fn new(plan: &Plan) -> Self {
        let buckets = vec![0; BUCKETS as usize];
        let nothing = |source: &Source| SourceTotals {
            kept_of_inputs: vec![0; source.inputs.len()],
            ..SourceTotals::default()
        };
        let by_split = [buckets.clone(), buckets];
        Self {
            sources: plan.sources.iter().map(nothing).collect(),
            tokens: by_split.clone(),
            documents: by_split,
        }
    }

    fn add(&mut self, part: &PartOf<'_>, meta: &DocMeta, made: Made, windows: u64) {
        let split = made.split as usize;
        let totals = &mut self.sources[part.source];
        totals.kept += 1;
        totals.kept_of_inputs[part.nth_input] += 1;
        totals.truncated += u64::from(part.fitted);
        totals.copies += u64::from(made.copies) * u64::from(made.split == Split::Train);
        totals.sums[split].add(meta, windows, made.copies);
        for copy in 0..made.copies {
            let bucket = bucket_of_copy(meta.bucket, copy) as usize;
            self.tokens[split][bucket] += u64::from(meta.tokens) + windows - 1;
            self.documents[split][bucket] += windows;
        }
    }

    fn merge(&mut self, other: &Self) {
        for (all, more) in self.sources.iter_mut().zip(&other.sources) {
            all.tally.add(&more.tally);
            all.kept += more.kept;
            all.kept_of_inputs
                .iter_mut()
                .zip(&more.kept_of_inputs)
                .for_each(|(all, more)| *all += more);
            all.truncated += more.truncated;
            all.copies += more.copies;
            all.unique.add_sums(more.unique);
            all.sums.iter_mut().zip(more.sums).for_each(|(all, more)| all.add_sums(more));
        }
        let documents = self.documents.iter_mut().zip(&other.documents);
        for (all, more) in self.tokens.iter_mut().zip(&other.tokens).chain(documents) {
            all.iter_mut().zip(more).for_each(|(all, more)| *all += more);
        }
    }
}

/// Stops the run at the lowest record that is too long, where its source says so.
fn refuse_too_long(corpus: &Corpus<'_>, sources: &[SourceTotals]) -> Result<()> {
    for (source, totals) in
        corpus.plan.sources.iter().zip(sources).filter(|(s, _)| s.overflow == Overflow::Error)
    {
        if let Some(first) =
            totals.tally.examples.iter().find(|example| example.reason == DropReason::TooLong)
        {
            return Err(too_long(corpus.plan, source, first)?);
        }
    }
    Ok(())
}

/// The error of a record that is too long for its source.
pub fn too_long(plan: &Plan, source: &Source, record: &Dropped) -> Result<Error> {
    let input = &plan.inputs[source.inputs[record.nth_input()]];
    let context = Context { threads: 1, monitor: &Monitor::default() };
    let line = plan.line_of(source, record.record_id, &context)?;
    Ok(Error::input(record.why.clone())
        .file(input.name.clone())
        .line(line)
        .source(source.name.clone())
        .remedy("raise seq_len, or set the source's overflow to \"truncate\", \"split\" (plain text) or \"drop\""))
}

/// The whole part of `epochs`, and one more for a share of records that is its fraction.
fn copies_of(epochs: f64, choice: impl FnOnce() -> u64) -> u32 {
    let fraction = epochs.fract();
    epochs.trunc() as u32 + u32::from(fraction > 0.0 && within(choice(), fraction))
}

/// Cuts the buckets into shards of about `shard_tokens` tokens, as even as buckets allow.
fn shards_of(split: Split, tokens: &[u64], shard_tokens: u64) -> Vec<ShardPlan> {
    let total: u64 = tokens.iter().sum();
    let count = total.div_ceil(shard_tokens);
    let mut shards: Vec<ShardPlan> = Vec::new();
    let (mut start, mut held, mut before) = (0, 0, 0);
    for (bucket, &more) in tokens.iter().enumerate() {
        held += more;
        before += more;
        let bucket = bucket as u32;
        // A shard closes once the tokens so far reach its share of the total.
        let due = u128::from(total) * (shards.len() as u128 + 1)
            <= u128::from(before) * u128::from(count);
        if held > 0 && (due || bucket + 1 == BUCKETS) {
            shards.push(ShardPlan {
                split,
                index: shards.len(),
                buckets: start..bucket + 1,
                tokens: held,
                documents: 0,
            });
            (start, held) = (bucket + 1, 0);
        }
    }
    shards
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_bucket_with_tokens_is_in_one_shard_and_shards_are_even(
            tokens in prop::collection::vec(prop_oneof![Just(0u64), 0u64..1000], BUCKETS as usize), target in 1u64..2_000_000,
        ) {
            let shards = shards_of(Split::Train, &tokens, target);
            let total: u64 = tokens.iter().sum();
            prop_assert_eq!(shards.iter().map(|shard| shard.tokens).sum::<u64>(), total);
            prop_assert!(shards.windows(2).all(|pair| pair[0].buckets.end == pair[1].buckets.start));
            let share = total / (shards.len() as u64).max(1);
            for (nth, shard) in shards.iter().enumerate() {
                prop_assert_eq!(shard.index, nth);
                let sum: u64 = tokens[shard.buckets.start as usize..shard.buckets.end as usize].iter().sum();
                prop_assert_eq!(shard.tokens, sum);
                prop_assert!(shard.tokens <= share + 1000 + target.min(total), "{} {share}", shard.tokens);
            }
        }

        #[test]
        fn a_copy_is_found_by_its_bucket_from_both_sides(bucket in 0u16..BUCKETS as u16, copy in 0u32..256, a in 0u32..4096, b in 0u32..=4096) {
            let range = a.min(b)..a.max(b);
            let inside = range.contains(&bucket_of_copy(bucket, copy));
            let found = buckets_of_copy(&range, copy).iter().filter(|r| r.contains(&u32::from(bucket))).count();
            prop_assert_eq!(found, usize::from(inside));
        }
    }

    #[test]
    fn fractional_epochs_are_met_on_average() {
        let made: u32 = (0..10_000)
            .map(|at| {
                copies_of(1.25, || choice(3, "epochs", Subject { name: "a", record: at, copy: 0 }))
            })
            .sum();
        assert!((12_300..12_700).contains(&made), "{made}");
    }
}
