//! `Lowest`: the lowest dropped records of each reason. `Listing`: those of every source, for the
//! file of dropped records.
//!
//! At most [`LISTED`] records are held for a source and reason, whatever the order in which they
//! are found, so that the file depends on no order of work and the memory stays bounded.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::Dropped;
use crate::schema::DropReason;

/// The most records of a source that are listed under one reason.
pub(crate) const LISTED: usize = 10_000;
/// The most bytes of a fault that are kept.
const MOST_WORDS: usize = 500;

/// The lowest dropped records of each reason, in a source or a part of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lowest {
    /// By reason and record: the fault in words.
    found: BTreeMap<DropReason, BTreeMap<u64, String>>,
}

impl Lowest {
    /// Adds a record unless enough lower ones are known. Returns the id from which on further
    /// records of the reason cannot be among the lowest.
    pub(crate) fn add(
        &mut self,
        reason: DropReason,
        record_id: u64,
        why: impl FnOnce() -> String,
    ) -> u64 {
        let found = self.found.entry(reason).or_default();
        let highest = |found: &BTreeMap<u64, String>| match found.last_key_value() {
            Some((highest, _)) if found.len() >= LISTED => *highest,
            _ => u64::MAX,
        };
        if record_id < highest(found) {
            found.insert(record_id, in_short(why()));
            if found.len() > LISTED {
                found.pop_last();
            }
        }
        highest(found)
    }

    /// Returns the records by reason and id.
    pub(crate) fn into_records(self) -> Vec<Dropped> {
        let of_reason = |(reason, found): (DropReason, BTreeMap<u64, String>)| {
            found.into_iter().map(move |(record_id, why)| Dropped { reason, record_id, why })
        };
        self.found.into_iter().flat_map(of_reason).collect()
    }
}

/// Returns a fault, cut at a character where it is long.
fn in_short(mut why: String) -> String {
    if why.len() > MOST_WORDS {
        let is_boundary = |index: &usize| why.is_char_boundary(*index);
        let end = (0..=MOST_WORDS).rev().find(is_boundary).unwrap_or(0);
        why.truncate(end);
        why.push('…');
    }
    why
}

/// The lowest dropped records of every source. Threads add to it in any order.
#[derive(Debug)]
pub(crate) struct Listing {
    sources: Vec<OfSource>,
}

/// The lowest dropped records of a source.
#[derive(Debug)]
struct OfSource {
    lowest: Mutex<Lowest>,
    /// By reason: the id from which on no record is wanted, so that most records take no lock.
    bounds: [AtomicU64; DropReason::ALL.len()],
}

impl Listing {
    /// Returns an empty listing for as many `sources`.
    pub(crate) fn new(sources: usize) -> Self {
        let empty = || OfSource {
            lowest: Mutex::default(),
            bounds: [const { AtomicU64::new(u64::MAX) }; DropReason::ALL.len()],
        };
        Self { sources: (0..sources).map(|_| empty()).collect() }
    }

    /// Adds a dropped record of a source, unless enough lower ones are known.
    pub(crate) fn add(
        &self,
        source: usize,
        reason: DropReason,
        record_id: u64,
        why: impl FnOnce() -> String,
    ) {
        let OfSource { lowest, bounds } = &self.sources[source];
        let bound = &bounds[reason as usize];
        if record_id < bound.load(Relaxed) {
            let mut lowest = lowest.lock().unwrap_or_else(PoisonError::into_inner);
            bound.store(lowest.add(reason, record_id, why), Relaxed);
        }
    }

    /// Returns the ids of the records of a source that are listed under `reason`, in order.
    pub(crate) fn of_reason(&self, source: usize, reason: DropReason) -> Vec<u64> {
        let lowest = self.sources[source].lowest.lock().unwrap_or_else(PoisonError::into_inner);
        lowest.found.get(&reason).map(|found| found.keys().copied().collect()).unwrap_or_default()
    }

    /// Takes the records of a source out of the listing, by record id.
    pub(crate) fn take(&self, source: usize) -> Vec<Dropped> {
        let lowest = &self.sources[source].lowest;
        let lowest = std::mem::take(&mut *lowest.lock().unwrap_or_else(PoisonError::into_inner));
        let mut records = lowest.into_records();
        records.sort_by_key(|record| record.record_id);
        records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_records_are_listed_in_whatever_order_they_come() {
        let count = LISTED as u64 + 3000;
        for step in [1, 7, count - 1] {
            let listing = Listing::new(2);
            // `step` has no divisor in common with `count`: every record comes once.
            for nth in 0..count {
                let record = nth * step % count;
                listing.add(1, DropReason::Malformed, record, || record.to_string());
                if record.is_multiple_of(2) {
                    listing.add(1, DropReason::Duplicate, count + record, String::new);
                }
            }
            let records = listing.take(1);
            let of = |reason| records.iter().filter(move |record| record.reason == reason);
            let ids = of(DropReason::Malformed).map(|record| record.record_id);
            assert!(ids.eq(0..LISTED as u64), "step {step}");
            assert!(
                of(DropReason::Malformed).all(|record| record.why == record.record_id.to_string())
            );
            assert_eq!(of(DropReason::Duplicate).count() as u64, count.div_ceil(2));
            assert!(records.is_sorted_by_key(|record| record.record_id));
            assert!(listing.take(1).is_empty() && listing.take(0).is_empty());
        }
    }

    #[test]
    fn a_long_fault_is_cut_at_a_character() {
        assert_eq!(in_short("ọ".repeat(166)).len(), 498);
        assert_eq!(in_short("ọ".repeat(167)), format!("{}…", "ọ".repeat(166)));
    }
}
