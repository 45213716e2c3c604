//! The spool: the documents of each input split, whole and compact, ordered by virtual bucket.
//!
//! Holds one copy of a document, whatever the length of rows: ids in the dataset's type, roles as
//! run-lengths, and a meta with the facts that later stages decide by. Windows and copies are made
//! together with rows. A record that its source shortens to fit a row is stored twice: whole, and
//! as a fitted document, which depends on the length of rows. Spools stay in memory up to a budget
//! and are files beyond it; both give the same bytes.

mod counted;
mod lowest;
mod part;
mod sorted;
mod store;
mod writer;

use serde::{Deserialize, Serialize};

pub(crate) use counted::{Cleaned, LeftOut};
pub(crate) use lowest::{Listing, Lowest};
pub(crate) use part::{Layout, Part};
pub(crate) use sorted::{Band, Cursor, Key, Sorted};
pub(crate) use store::{Spool, SpoolWriter, Store};
pub(crate) use writer::{PartWriter, decode, weight_of};

use crate::schema::{DropReason, RecordId};
use crate::tokenize::Marks;

/// Virtual buckets of a dataset. A shard is made of whole buckets, so this bounds how evenly shards
/// are filled.
pub(crate) const BUCKETS: u32 = 4096;

/// The entry of a document in a spool: everything but its tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DocMeta {
    /// The id of its record.
    pub record_id: u64,
    /// The byte of its part at which its tokens start.
    at: u32,
    /// The number of bytes of its tokens.
    size: u32,
    /// The number of its tokens.
    pub tokens: u32,
    /// The number of its trained tokens.
    pub targets: u32,
    /// The virtual bucket it lies in, below [`BUCKETS`].
    pub bucket: u16,
    /// Its index among the documents of its record.
    pub part: u8,
    /// Whether it shares an n-gram with the files that training is kept clean of.
    pub contaminated: bool,
}

impl DocMeta {
    /// The size of a stored meta.
    const BYTES: usize = 28;

    /// Returns the meta of a document that no part holds yet.
    #[must_use]
    pub(crate) fn new(
        record_id: u64,
        part: u8,
        targets: u32,
        bucket: u16,
        contaminated: bool,
    ) -> Self {
        Self { record_id, targets, bucket, part, contaminated, ..Self::default() }
    }

    /// Returns the sort key of the document within its part.
    #[must_use]
    pub(crate) fn order(&self) -> u32 {
        self.at
    }

    /// Returns whether both are documents of one record.
    #[must_use]
    pub(crate) fn is_of_record_of(&self, other: &Self) -> bool {
        self.record_id == other.record_id
    }

    /// Returns the byte of its part after its tokens.
    fn end(&self) -> u64 {
        u64::from(self.at) + u64::from(self.size)
    }

    /// Appends the stored meta.
    fn push_bytes(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.record_id.to_le_bytes());
        for word in [self.at, self.size, self.tokens, self.targets] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.bucket.to_le_bytes());
        out.extend_from_slice(&[u8::from(self.contaminated), self.part]);
    }

    /// Reads a stored meta.
    fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let (record_id, rest) = bytes.split_first_chunk().expect("28 bytes are more than 8");
        let words = rest.as_chunks().0;
        let word = |nth: usize| u32::from_le_bytes(words[nth]);
        Self {
            record_id: u64::from_le_bytes(*record_id),
            at: word(0),
            size: word(1),
            tokens: word(2),
            targets: word(3),
            // The last word holds three fields, the lowest byte first.
            bucket: word(4) as u16,
            contaminated: word(4) >> 16 & 0xff != 0,
            part: (word(4) >> 24) as u8,
        }
    }
}

/// A record that was dropped, as an example for the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dropped {
    /// The reason it is counted under.
    pub reason: DropReason,
    /// The id of the record.
    pub record_id: u64,
    /// The exact fault, in words.
    pub why: String,
}

impl Dropped {
    /// Returns the index of its input within its source.
    #[must_use]
    pub(crate) fn nth_input(&self) -> usize {
        RecordId::unpack(self.record_id).nth_input
    }
}

/// Examples kept per reason.
pub(crate) const EXAMPLES: usize = 3;

/// Counts of the records of a source, or of a part of it, by outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Records read.
    pub records: u64,
    /// Records dropped, by the order of [`DropReason::ALL`].
    pub drops: [u64; DropReason::ALL.len()],
    /// The lowest dropped records of each reason, sorted by reason and record.
    pub examples: Vec<Dropped>,
    /// Counts about its documents that the report may have a note on.
    #[serde(default, skip_serializing_if = "Marks::is_empty")]
    pub marks: Marks,
    /// Records whose quotes may have been read the wrong way.
    #[serde(default, skip_serializing_if = "Doubts::is_empty")]
    pub doubts: Doubts,
    /// Records that cleaning changed.
    #[serde(default, skip_serializing_if = "Cleaned::is_empty")]
    pub cleaned: Cleaned,
    /// Documents that were left out of records with others.
    #[serde(default, skip_serializing_if = "LeftOut::is_empty")]
    pub left_out: LeftOut,
}

/// The number of doubtful records, and the lowest of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Doubts {
    /// The number of records.
    pub count: u64,
    /// The id of the lowest record, if there is any.
    pub first: Option<u64>,
}

impl Doubts {
    /// Returns whether there is none.
    fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Counts other records.
    pub(crate) fn add(&mut self, other: Self) {
        self.count += other.count;
        self.first = self.first.into_iter().chain(other.first).min();
    }
}

impl Tally {
    /// Counts a dropped record.
    pub(crate) fn drop_record(
        &mut self,
        reason: DropReason,
        record_id: u64,
        why: impl FnOnce() -> String,
    ) {
        self.drops[reason as usize] += 1;
        if self.is_example(reason, record_id) {
            self.keep_example(Dropped { reason, record_id, why: why() });
        }
    }

    /// Returns whether a record is among the lowest of its reason so far.
    fn is_example(&self, reason: DropReason, record_id: u64) -> bool {
        let lower = self
            .examples
            .iter()
            .filter(|known| known.reason == reason && known.record_id < record_id);
        lower.count() < EXAMPLES
    }

    /// Inserts an example in order, and removes the highest of its reason if there are too many.
    fn keep_example(&mut self, dropped: Dropped) {
        let order = |example: &Dropped| (example.reason, example.record_id);
        let index = self.examples.partition_point(|known| order(known) < order(&dropped));
        let reason = dropped.reason;
        self.examples.insert(index, dropped);
        let of_reason = self.examples.iter().filter(|known| known.reason == reason).count();
        if of_reason > EXAMPLES {
            let last = self.examples.partition_point(|known| known.reason <= reason) - 1;
            self.examples.remove(last);
        }
    }

    /// Adds the counts of other records of the source.
    pub(crate) fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.marks.add(&other.marks);
        self.doubts.add(other.doubts);
        self.cleaned.add(&other.cleaned);
        self.left_out.add(&other.left_out);
        for (count, more) in self.drops.iter_mut().zip(other.drops) {
            *count += more;
        }
        for example in &other.examples {
            if self.is_example(example.reason, example.record_id) {
                self.keep_example(example.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_lowest_records_are_the_examples_in_whatever_order_they_come(
            records in prop::collection::hash_map(0u64..100, 0usize..3, 0..40),
            cut in 0usize..40,
        ) {
            let drop_all = |records: &[(u64, usize)]| {
                let mut tally = Tally::default();
                for &(record, reason) in records {
                    tally.drop_record(DropReason::ALL[reason], record, || record.to_string());
                }
                tally
            };
            let mut records: Vec<(u64, usize)> = records.into_iter().collect();
            let (first, second) = records.split_at(cut.min(records.len()));
            let mut tally = drop_all(first);
            tally.add(&drop_all(second));
            records.sort_unstable();
            let examples = &tally.examples;
            for reason in 0..3 {
                let of_reason = records.iter().filter(|(_, other)| *other == reason);
                let of_reason: Vec<u64> = of_reason.map(|(id, _)| *id).collect();
                let is_of = |example: &&Dropped| example.reason == DropReason::ALL[reason];
                let kept = examples.iter().filter(is_of).map(|example| example.record_id);
                let lowest = of_reason.iter().copied().take(EXAMPLES);
                prop_assert!(kept.eq(lowest), "{:?} {:?}", examples, of_reason);
                prop_assert_eq!(tally.drops[reason], of_reason.len() as u64);
            }
            let order = |example: &Dropped| (example.reason, example.record_id);
            prop_assert!(examples.is_sorted_by_key(order));
        }
    }
}
