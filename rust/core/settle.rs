//! Settling: what can only be decided once every split is mapped. Small and deterministic.
//!
//! Takes the spools' heads; decides which records leak into validation, how many copies of each are made, and which
//! virtual buckets make which shard, by exact token counts. Knows nothing of threads or split sizes: every decision
//! is a sum over records or a hash of one.

use std::collections::HashSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::choice::{Subject, choice, within};
use crate::plan::Plan;
use crate::schema::{Drop, Side};
use crate::spool::{BUCKETS, Dropped, Head, Spool, Tally};

/// Copy j of virtual bucket v is made where bucket (v + j · this) mod [`BUCKETS`] is. Odd, so that copies spread.
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
    /// Their learnt tokens.
    pub targets: u64,
}

impl Sums {
    fn add(&mut self, head: &Head, copies: u32) {
        let copies = u64::from(copies);
        self.documents += copies;
        self.tokens += copies * u64::from(head.tokens);
        self.targets += copies * u64::from(head.targets);
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
    /// Sums by side, in the order of [`Side::ALL`].
    pub sums: [Sums; 2],
}

/// A shard to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardPlan {
    /// Its side.
    pub side: Side,
    /// Its number within its side.
    pub index: usize,
    /// The buckets it is made of.
    pub buckets: Range<u32>,
    /// Its tokens.
    pub tokens: u64,
}

/// Every decision.
#[derive(Debug)]
pub struct Settlement {
    /// Copies of each document, by spool and head.
    pub copies: Vec<Vec<u8>>,
    /// The largest number of copies.
    pub max_copies: u32,
    /// The shards, by side and index.
    pub shards: Vec<ShardPlan>,
    /// What became of each source.
    pub sources: Vec<SourceTotals>,
}

/// Settles the spools of a plan.
#[must_use]
pub fn settle(plan: &Plan, spools: &[Spool]) -> Settlement {
    let held_out: HashSet<u128> = spools
        .iter()
        .flat_map(Spool::heads)
        .filter(|head| head.side == Side::Validation)
        .map(|head| head.key)
        .collect();
    let mut sources = vec![SourceTotals::default(); plan.sources.len()];
    let mut tokens = [vec![0_u64; BUCKETS as usize], vec![0_u64; BUCKETS as usize]];
    let mut max_copies = 0;
    let mut copies = Vec::with_capacity(spools.len());
    for spool in spools {
        let source = &plan.sources[spool.source];
        let totals = &mut sources[spool.source];
        totals.tally.add(&spool.tally);
        let mut dropped: Vec<Dropped> = Vec::new();
        let decide = |head: &Head| {
            let made = if head.side == Side::Validation {
                Ok(1)
            } else if held_out.contains(&head.key) {
                Err((Drop::InValidation, "a held-out record has the same content"))
            } else {
                let subject = Subject { name: &source.name, record: head.record_id, copy: 0 };
                match copies_of(source.epochs, choice(plan.pack.seed, "epochs", subject)) {
                    0 => Err((Drop::NotSampled, "left out by `epochs`")),
                    n => Ok(n),
                }
            };
            match made {
                Ok(n) => {
                    totals.kept += u64::from(head.window == 0);
                    totals.copies += u64::from(n) * u64::from(head.window == 0 && head.side == Side::Train);
                    totals.truncated += u64::from(head.window == 0 && head.truncated);
                    totals.sums[head.side as usize].add(head, n);
                    for copy in 0..n {
                        tokens[head.side as usize][bucket_of_copy(head.bucket, copy) as usize] +=
                            u64::from(head.tokens);
                    }
                    max_copies = max_copies.max(n);
                    n as u8
                }
                Err((reason, why)) => {
                    if head.window == 0 {
                        let offset = head.record_id & ((1 << crate::schema::OFFSET_BITS) - 1);
                        dropped.push(Dropped { reason, offset, input: spool.input, why: why.to_owned() });
                    }
                    0
                }
            }
        };
        copies.push(spool.heads().iter().map(decide).collect());
        dropped.sort_by_key(|dropped| dropped.offset);
        for record in dropped {
            totals.tally.drop_record(record);
        }
    }
    let shards = Side::ALL.into_iter().flat_map(|side| shards_of(side, &tokens[side as usize], plan.pack.shard_tokens));
    Settlement { copies, max_copies, shards: shards.collect(), sources }
}

/// The whole part of `epochs`, and one more for a share of records that is its fraction.
fn copies_of(epochs: f64, choice: u64) -> u32 {
    epochs.trunc() as u32 + u32::from(within(choice, epochs.fract()))
}

/// Cuts the buckets into shards of about `shard_tokens` tokens, as even as buckets allow.
fn shards_of(side: Side, tokens: &[u64], shard_tokens: u64) -> Vec<ShardPlan> {
    let total: u64 = tokens.iter().sum();
    let count = total.div_ceil(shard_tokens);
    let mut shards: Vec<ShardPlan> = Vec::new();
    let (mut start, mut held, mut before) = (0, 0, 0);
    for (bucket, &more) in tokens.iter().enumerate() {
        held += more;
        before += more;
        let bucket = bucket as u32;
        // A shard closes once the tokens so far reach its share of the total.
        let due = u128::from(total) * (shards.len() as u128 + 1) <= u128::from(before) * u128::from(count);
        if held > 0 && (due || bucket + 1 == BUCKETS) {
            shards.push(ShardPlan { side, index: shards.len(), buckets: start..bucket + 1, tokens: held });
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
            let shards = shards_of(Side::Train, &tokens, target);
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
            .map(|at| copies_of(1.25, choice(3, "epochs", Subject { name: "a", record: at, copy: 0 })))
            .sum();
        assert!((12_300..12_700).contains(&made), "{made}");
    }
}
