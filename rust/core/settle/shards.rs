//! Shards: assigns virtual buckets to shards, and the copies of a bucket to other buckets.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::schema::Split;
use crate::spool::BUCKETS;

/// Copy j of virtual bucket v is made in the shard of bucket (v + j · stride) mod [`BUCKETS`]. The
/// stride is odd, so that the copies of a bucket all lie in different buckets.
const COPY_STRIDE: u32 = 1597;

/// A shard to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShardPlan {
    /// The split it belongs to.
    pub split: Split,
    /// Its index within its split.
    pub index: usize,
    /// The virtual buckets whose documents it holds.
    pub buckets: Range<u32>,
    /// The number of its tokens.
    pub tokens: u64,
    /// The number of its documents, copies and windows included.
    pub documents: u64,
}

/// Returns the bucket that copy `copy` of a document of `bucket` belongs to.
pub(super) fn bucket_of_copy(bucket: u16, copy: u32) -> u32 {
    (u32::from(bucket) + copy * COPY_STRIDE) % BUCKETS
}

/// Returns the buckets whose copy `copy` belongs to `buckets`: two ranges, the second empty unless
/// the first would pass the last bucket.
#[must_use]
pub(crate) fn buckets_of_copy(buckets: &Range<u32>, copy: u32) -> [Range<u32>; 2] {
    let shift = copy * COPY_STRIDE % BUCKETS;
    let start = (buckets.start + BUCKETS - shift) % BUCKETS;
    let end = start + (buckets.end - buckets.start);
    [start..end.min(BUCKETS), 0..end.saturating_sub(BUCKETS)]
}

/// Returns shards of about `shard_tokens` tokens, as even as buckets allow.
pub(super) fn shards_of(split: Split, tokens: &[u64], shard_tokens: u64) -> Vec<ShardPlan> {
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
            tokens in prop::collection::vec(
                prop_oneof![Just(0u64), 0u64..1000],
                BUCKETS as usize,
            ),
            target in 1u64..2_000_000,
        ) {
            let shards = shards_of(Split::Train, &tokens, target);
            let total: u64 = tokens.iter().sum();
            prop_assert_eq!(shards.iter().map(|shard| shard.tokens).sum::<u64>(), total);
            let adjoin = |pair: &[ShardPlan]| pair[0].buckets.end == pair[1].buckets.start;
            prop_assert!(shards.windows(2).all(adjoin));
            let share = total / (shards.len() as u64).max(1);
            for (nth, shard) in shards.iter().enumerate() {
                prop_assert_eq!(shard.index, nth);
                let range = shard.buckets.start as usize..shard.buckets.end as usize;
                let sum: u64 = tokens[range].iter().sum();
                prop_assert_eq!(shard.tokens, sum);
                let most = share + 1000 + target.min(total);
                prop_assert!(shard.tokens <= most, "{} {share}", shard.tokens);
            }
        }

        #[test]
        fn a_copy_is_found_by_its_bucket_from_both_sides(
            bucket in 0u16..BUCKETS as u16,
            copy in 0u32..256,
            a in 0u32..4096,
            b in 0u32..=4096,
        ) {
            let range = a.min(b)..a.max(b);
            let inside = range.contains(&bucket_of_copy(bucket, copy));
            let ranges = buckets_of_copy(&range, copy);
            let found = ranges.iter().filter(|range| range.contains(&u32::from(bucket))).count();
            prop_assert_eq!(found, usize::from(inside));
        }
    }
}
