//! `Cleaned`: the records that cleaning changed, counted by the kind of change.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::EXAMPLES;
use crate::segment::{Change, Touched};

/// The records of a source, or of a part of it, that cleaning changed. A record counts once for
/// each kind of change, whatever becomes of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cleaned(BTreeMap<Change, Records>);

/// The records of one kind of change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Records {
    /// Their number.
    pub count: u64,
    /// The lowest records by id, each with the change in words.
    pub examples: BTreeMap<u64, String>,
}

impl Cleaned {
    /// Returns whether no record was changed.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the records of each kind of change.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Change, &Records)> {
        self.0.iter().map(|(change, records)| (*change, records))
    }

    /// Counts the changes of a record.
    pub(crate) fn count(&mut self, record_id: u64, touched: &Touched) {
        for (change, example) in touched.iter() {
            let records = self.0.entry(change).or_default();
            records.count += 1;
            records.keep(record_id, example);
        }
    }

    /// Adds the counts of other records of the source.
    pub(crate) fn add(&mut self, other: &Self) {
        for (change, more) in &other.0 {
            let records = self.0.entry(*change).or_default();
            records.count += more.count;
            more.examples.iter().for_each(|(record_id, example)| records.keep(*record_id, example));
        }
    }
}

impl Records {
    /// Keeps a record as an example, if it is among the lowest.
    fn keep(&mut self, record_id: u64, example: &str) {
        let is_low = self.examples.last_key_value().is_none_or(|(highest, _)| record_id < *highest);
        if is_low || self.examples.len() < EXAMPLES {
            self.examples.insert(record_id, example.to_owned());
        }
        if self.examples.len() > EXAMPLES {
            self.examples.pop_last();
        }
    }
}
