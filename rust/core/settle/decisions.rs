//! `Decisions`: every decision over a mapped corpus, as owned data that can be sent anywhere.

use serde::{Deserialize, Serialize};

use super::corpus::{Corpus, Facts, Outcome};
use super::{Epochs, ShardPlan, Sums};
use crate::choice::{Purpose, Subject, choice, within};
use crate::plan::Plan;
use crate::schema::Split;
use crate::spool::{DocMeta, Tally};

/// The counts of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourceTotals {
    /// Counts of its records, with the drops that settling decided.
    pub tally: Tally,
    /// Records in the dataset.
    pub kept: u64,
    /// Records in the dataset that were shortened to fit a row.
    pub truncated: u64,
    /// Copies made of training records.
    pub copies: u64,
    /// Sums over its training records, each counted once.
    pub unique: Sums,
    /// Sums by split, in the order of [`Split::ALL`].
    pub sums: [Sums; 2],
    /// Records in the dataset by input of the source.
    pub kept_of_inputs: Vec<u64>,
}

/// Every decision over a mapped corpus.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Decisions {
    /// Records dropped for their content: by part, a bit for the first document of each record.
    pub(super) dropped: Vec<Vec<u64>>,
    /// Copies of each source's records, on average.
    pub epochs: Vec<Epochs>,
    /// The shards, by split and index.
    pub shards: Vec<ShardPlan>,
    /// The counts of each source.
    pub sources: Vec<SourceTotals>,
}

/// The decision about a record that is not dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Made {
    pub split: Split,
    /// Copies of the record; 0 if it was not sampled.
    pub copies: u32,
}

impl Decisions {
    /// Returns the most copies of a record of `source`: at least 1, since held-out records have
    /// one copy.
    #[must_use]
    pub(crate) fn max_copies(&self, source: usize) -> u32 {
        (self.epochs[source].made.ceil() as u32).max(1)
    }

    /// Returns the decision about the record with these `documents`; `None` if it was dropped.
    /// Its first document has the index `first` in part `index` of `corpus`.
    #[must_use]
    pub(crate) fn made(
        &self,
        corpus: &Corpus<'_>,
        index: usize,
        first: u32,
        documents: &[DocMeta],
    ) -> Option<Made> {
        let split = self.split(corpus, index, first, documents)?;
        let (source, record_id) = (corpus.parts[index].source, documents[0].record_id);
        let copies = match split {
            Split::Train => self.copies(corpus.plan, source, record_id),
            Split::Validation => 1,
        };
        Some(Made { split, copies })
    }

    /// Returns the split of the record with these `documents`, as [`Self::made`] takes them; `None`
    /// if it was dropped.
    pub(super) fn split(
        &self,
        corpus: &Corpus<'_>,
        index: usize,
        first: u32,
        documents: &[DocMeta],
    ) -> Option<Split> {
        let (part, facts) = (&corpus.parts[index], Facts::of(documents));
        let outcome = corpus.outcome(part, facts.record_id, facts.longest);
        let Outcome::Kept(split) = outcome else { return None };
        // A held-out record may share n-grams with other held-out text.
        let is_contaminated = split == Split::Train && facts.contaminated;
        (!self.is_dropped(index, first) && !is_contaminated).then_some(split)
    }

    /// Returns the decisions without the bits of dropped records, and these bits by part.
    #[must_use]
    pub(crate) fn without_bits(&self) -> (Self, &[Vec<u64>]) {
        let (epochs, shards) = (self.epochs.clone(), self.shards.clone());
        let sources = self.sources.clone();
        (Self { dropped: Vec::new(), epochs, shards, sources }, &self.dropped)
    }

    /// Puts the bits of dropped records back, by part.
    pub(crate) fn set_bits(&mut self, bits: Vec<Vec<u64>>) {
        self.dropped = bits;
    }

    /// Drops the record whose first document has the index `first` in part `index` for its
    /// content.
    pub(super) fn drop_for_content(&mut self, index: usize, first: u32) {
        self.dropped[index][first as usize / 64] |= 1 << (first % 64);
    }

    /// Returns whether a record is dropped because another record has its content.
    pub(super) fn is_dropped(&self, index: usize, first: u32) -> bool {
        // Without content keys a part has no bits at all.
        let word = self.dropped[index].get(first as usize / 64);
        word.is_some_and(|word| word >> (first % 64) & 1 == 1)
    }

    /// Returns the number of copies of a training record.
    fn copies(&self, plan: &Plan, source: usize, record: u64) -> u32 {
        let subject = Subject { name: &plan.sources[source].name, record, copy: 0 };
        let choice = || choice(plan.pack.seed, Purpose::Epochs, subject);
        copies_of(self.epochs[source].made, choice)
    }
}

/// Returns the whole part of `epochs`; for a share of records equal to its fraction, one more.
fn copies_of(epochs: f64, choice: impl FnOnce() -> u64) -> u32 {
    let fraction = epochs.fract();
    epochs.trunc() as u32 + u32::from(fraction > 0.0 && within(choice(), fraction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractional_epochs_are_met_on_average() {
        let made: u32 = (0..10_000)
            .map(|record| {
                copies_of(1.25, || {
                    choice(3, Purpose::Epochs, Subject { name: "a", record, copy: 0 })
                })
            })
            .sum();
        assert!((12_300..12_700).contains(&made), "{made}");
    }
}
