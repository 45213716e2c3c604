//! `Counted`: records or documents counted by a kind, each kind with its lowest records.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::EXAMPLES;
use crate::schema::{DropReason, Refusal};
use crate::segment::{Change, Touched};

/// Counts by kind, of a source or of a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counted<K: Ord>(BTreeMap<K, Kind>);

/// The records that cleaning changed. A record counts once for each kind of change, whatever
/// becomes of it.
pub(crate) type Cleaned = Counted<Change>;

/// The documents that were left out of records with others, by the reason.
pub(crate) type LeftOut = Counted<DropReason>;

/// The counts of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kind {
    /// The number of records or documents.
    pub count: u64,
    /// The lowest records by id, each with the first case of it in words.
    pub examples: BTreeMap<u64, String>,
}

impl<K: Ord> Default for Counted<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Copy> Counted<K> {
    /// Returns whether nothing was counted.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the counts of each kind.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &Kind)> {
        self.0.iter().map(|(kind, counts)| (*kind, counts))
    }

    /// Counts a case of `kind` in a record.
    fn add_one(&mut self, kind: K, record_id: u64, example: &str) {
        let counts = self.0.entry(kind).or_default();
        counts.count += 1;
        counts.keep(record_id, example);
    }

    /// Adds the counts of other records of the source.
    pub(crate) fn add(&mut self, other: &Self) {
        for (kind, more) in &other.0 {
            let counts = self.0.entry(*kind).or_default();
            counts.count += more.count;
            more.examples.iter().for_each(|(record_id, example)| counts.keep(*record_id, example));
        }
    }
}

impl Cleaned {
    /// Counts the changes of a record.
    pub(crate) fn count(&mut self, record_id: u64, touched: &Touched) {
        for (change, example) in touched.iter() {
            self.add_one(change, record_id, example);
        }
    }
}

impl LeftOut {
    /// Counts the documents that were left out of a record.
    pub(crate) fn count(&mut self, record_id: u64, refusals: &[Refusal]) {
        for Refusal { reason, why } in refusals {
            self.add_one(*reason, record_id, why);
        }
    }
}

impl Kind {
    /// Keeps a record as an example, if it is among the lowest and not kept yet.
    fn keep(&mut self, record_id: u64, example: &str) {
        let is_low = self.examples.last_key_value().is_none_or(|(highest, _)| record_id < *highest);
        if is_low || self.examples.len() < EXAMPLES {
            self.examples.entry(record_id).or_insert_with(|| example.to_owned());
        }
        if self.examples.len() > EXAMPLES {
            self.examples.pop_last();
        }
    }
}
