//! Finds the order in which items are placed, by sorting a bounded number of keys at a time.
//!
//! Keys are made again in each pass rather than kept: a hash costs less than the memory of all
//! keys.

use std::cmp::Ordering;
use std::ops::{Range, RangeInclusive};

use super::Items;
use crate::error::Result;
use crate::tasks;

/// Bounds on sorting. They do not change the order.
#[derive(Debug, Clone, Copy)]
pub struct Sorting {
    /// The number of keys sorted at a time, roughly; each takes 16 bytes.
    pub keys_at_once: usize,
    /// Threads that make and sort keys.
    pub threads: usize,
}

impl Sorting {
    /// Returns the bounds of sorting 16 MiB of keys at a time on `threads` threads.
    #[must_use]
    pub fn on(threads: usize) -> Self {
        Self { keys_at_once: 1 << 20, threads }
    }
}

/// The key of an item.
#[derive(Debug, Clone, Copy)]
struct Key {
    order: u64,
    item: u32,
    tier: u32,
}

/// The items that one pass sorts: all items of some tiers, or a range of the orders of one tier.
#[derive(Debug)]
struct Pass {
    tiers: Range<u32>,
    orders: RangeInclusive<u64>,
}

/// Calls `place` with each item, sorted by the `tier` of its length, then by its seeded order, and
/// at last by its id.
pub(crate) fn for_each_in_order(
    items: &dyn Items,
    tier: impl Fn(u32) -> u32 + Sync,
    sorting: Sorting,
    mut place: impl FnMut(u32),
) -> Result<()> {
    let by_key = |a: &Key, b: &Key| {
        let key = |key: &Key| (key.tier, key.order);
        key(a).cmp(&key(b)).then_with(|| items.id(a.item).cmp(&items.id(b.item)))
    };
    // Each thread sorts the keys of a share of the items; the sorted shares are merged.
    for pass in passes(items, &tier, sorting.keys_at_once) {
        let share = |nth: usize| (items.count() * nth / sorting.threads) as u32;
        let sorted = tasks::run(sorting.threads, sorting.threads, |nth| {
            let mut keys: Vec<Key> = Vec::new();
            for item in share(nth)..share(nth + 1) {
                let tier = tier(items.tokens(item));
                if pass.tiers.contains(&tier) {
                    let order = items.order(item);
                    keys.extend(pass.orders.contains(&order).then_some(Key { order, item, tier }));
                }
            }
            keys.sort_unstable_by(by_key);
            Ok(keys)
        })?;
        merge(sorted, by_key, |key| place(key.item));
    }
    Ok(())
}

/// Calls `next` with the keys of sorted lists, in order. The lists are few: one for each thread.
fn merge(
    sorted: Vec<Vec<Key>>,
    by_key: impl Fn(&Key, &Key) -> Ordering,
    mut next: impl FnMut(Key),
) {
    let mut lists: Vec<_> = sorted.into_iter().map(|keys| keys.into_iter().peekable()).collect();
    if let [only] = &mut lists[..] {
        return only.for_each(next);
    }
    loop {
        let heads = lists
            .iter_mut()
            .enumerate()
            .filter_map(|(nth, list)| list.peek().map(|key| (nth, *key)));
        let Some((least, _)) = heads.min_by(|(_, a), (_, b)| by_key(a, b)) else { return };
        lists[least].next().into_iter().for_each(&mut next);
    }
}

/// Returns passes of about `at_once` keys that cover all items, in order.
fn passes(items: &dyn Items, tier: impl Fn(u32) -> u32, at_once: usize) -> Vec<Pass> {
    let mut counts: Vec<usize> = Vec::new();
    for item in 0..items.count() as u32 {
        let tier = tier(items.tokens(item)) as usize;
        if counts.len() <= tier {
            counts.resize(tier + 1, 0);
        }
        counts[tier] += 1;
    }
    let mut passes: Vec<Pass> = Vec::new();
    // Keys of the last pass; the greatest number where no tier may join it.
    let mut held = usize::MAX;
    for (tier, &count) in (0_u32..).zip(&counts).filter(|(_, count)| **count > 0) {
        if let Some(last) = passes.last_mut()
            && held.saturating_add(count) <= at_once
        {
            last.tiers.end = tier + 1;
            held += count;
            continue;
        }
        // A tier of too many keys is cut by order: orders are hashes, so the slices are even.
        let slices = count.div_ceil(at_once.max(1)) as u64;
        let bound = |nth: u64| (u128::from(nth) << 64).div_ceil(u128::from(slices));
        passes.extend((0..slices).map(|nth| Pass {
            tiers: tier..tier + 1,
            orders: bound(nth) as u64..=(bound(nth + 1) - 1) as u64,
        }));
        held = if slices == 1 { count } else { usize::MAX };
    }
    passes
}
