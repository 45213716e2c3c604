//! Sums over documents, record by record: first the record is counted, then each of its documents.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::corpus::{Corpus, Facts, Outcome, PartOf};
use super::decisions::{Decisions, Made, SourceTotals};
use super::shards::bucket_of_copy;
use crate::context::Context;
use crate::error::Result;
use crate::plan::{Plan, Source};
use crate::schema::{DropReason, Split};
use crate::spool::{BUCKETS, DocMeta};
use crate::tasks;

/// Ranges of parts that are summed up separately, for each thread.
const RANGES_A_THREAD: usize = 4;

/// Counts of documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// The number of documents, copies and windows included.
    pub documents: u64,
    /// The number of tokens in them.
    pub tokens: u64,
    /// The number of trained tokens in them.
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

    /// Adds the sums over other documents.
    pub(crate) fn add_sums(&mut self, other: Self) {
        self.documents += other.documents;
        self.tokens += other.tokens;
        self.targets += other.targets;
    }
}

/// Sums over the records of some parts.
#[derive(Debug)]
pub(super) struct PartSums {
    /// The counts of each source.
    pub sources: Vec<SourceTotals>,
    /// Tokens by split and bucket of the copy.
    pub tokens: [Vec<u64>; 2],
    /// Documents by split and bucket of the copy.
    pub documents: [Vec<u64>; 2],
}

/// Returns the sums over all records, as `decisions` has them made.
pub(super) fn sum_all(
    corpus: &Corpus<'_>,
    decisions: &Decisions,
    context: &Context<'_>,
) -> Result<PartSums> {
    let parts = corpus.parts.len();
    let mut sums = PartSums::new(corpus.plan);
    let ranges = parts.min(context.threads * RANGES_A_THREAD);
    let bound = |nth: usize| parts * nth / ranges;
    let sum = |nth| sum_parts(corpus, decisions, bound(nth)..bound(nth + 1), context);
    for more in tasks::run(context.threads, ranges, sum)? {
        sums.merge(&more);
    }
    Ok(sums)
}

/// Returns the sums over the records of the parts with these indices.
fn sum_parts(
    corpus: &Corpus<'_>,
    decisions: &Decisions,
    parts: Range<usize>,
    context: &Context<'_>,
) -> Result<PartSums> {
    let mut sums = PartSums::new(corpus.plan);
    for (index, part) in parts.clone().zip(&corpus.parts[parts]) {
        part.part.for_each_record(context.storage, |first, documents| {
            let made = decisions.made(corpus, index, first, documents);
            if made.is_some_and(|made| made.split == Split::Train) {
                sums.add_unique(corpus.plan, part, documents);
            }
            match made {
                Some(made) if made.copies > 0 => sums.add(corpus.plan, part, documents, made),
                _ => sums.drop_record(corpus, decisions, (index, first), documents, made),
            }
        })?;
    }
    Ok(sums)
}

impl PartSums {
    /// Returns sums of zero for every source.
    fn new(plan: &Plan) -> Self {
        let buckets = vec![0; BUCKETS as usize];
        let nothing = |source: &Source| SourceTotals {
            kept_of_inputs: vec![0; source.inputs.len()],
            ..SourceTotals::default()
        };
        let by_split = [buckets.clone(), buckets];
        let sources = plan.sources.iter().map(nothing).collect();
        Self { sources, tokens: by_split.clone(), documents: by_split }
    }

    /// Adds a training record to the sums that count each record once.
    fn add_unique(&mut self, plan: &Plan, part: &PartOf<'_>, documents: &[DocMeta]) {
        for document in documents {
            let windows = plan.pack.window_count(document.tokens as usize) as u64;
            self.sources[part.source].unique.add(document, windows, 1);
        }
    }

    /// Adds a record of the dataset: once as a record, then each of its documents with its copies.
    fn add(&mut self, plan: &Plan, part: &PartOf<'_>, documents: &[DocMeta], made: Made) {
        let split = made.split as usize;
        let totals = &mut self.sources[part.source];
        totals.kept += 1;
        totals.kept_of_inputs[part.nth_input] += 1;
        totals.truncated += u64::from(part.fitted);
        totals.copies += u64::from(made.copies) * u64::from(made.split == Split::Train);
        for document in documents {
            let windows = plan.pack.window_count(document.tokens as usize) as u64;
            totals.sums[split].add(document, windows, made.copies);
            for copy in 0..made.copies {
                let bucket = bucket_of_copy(document.bucket, copy) as usize;
                self.tokens[split][bucket] += u64::from(document.tokens) + windows - 1;
                self.documents[split][bucket] += windows;
            }
        }
    }

    /// Counts a record that is not in the dataset under its one reason, if not yet counted.
    fn drop_record(
        &mut self,
        corpus: &Corpus<'_>,
        decisions: &Decisions,
        (index, first): (usize, u32),
        documents: &[DocMeta],
        made: Option<Made>,
    ) {
        let (part, facts) = (&corpus.parts[index], Facts::of(documents));
        let tally = &mut self.sources[part.source].tally;
        let mut drop = |reason, why: String| {
            // What `epochs` leaves out is not listed, only counted: nothing is wrong with it.
            if reason != DropReason::NotSampled {
                corpus.listing.add(part.source, reason, facts.record_id, || why.clone());
            }
            tally.drop_record(reason, facts.record_id, || why);
        };
        match corpus.outcome(part, facts.record_id, facts.longest) {
            Outcome::Dropped(reason, why) => drop(reason, why),
            Outcome::Kept(_) if made.is_some() => {
                drop(DropReason::NotSampled, "left out by its source's epochs".to_owned());
            }
            Outcome::Kept(_) if !decisions.is_dropped(index, first) => {
                let why = "it shares an n-gram with a file that `decontaminate` names";
                drop(DropReason::Contaminated, why.to_owned());
            }
            // Duplicates were counted when they were found; a superseded record is counted as
            // fitted.
            Outcome::Kept(_) | Outcome::Superseded => {}
        }
    }

    /// Adds the sums over other parts.
    fn merge(&mut self, other: &Self) {
        for (all, more) in self.sources.iter_mut().zip(&other.sources) {
            all.tally.add(&more.tally);
            all.kept += more.kept;
            let inputs = all.kept_of_inputs.iter_mut().zip(&more.kept_of_inputs);
            inputs.for_each(|(all, more)| *all += more);
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
