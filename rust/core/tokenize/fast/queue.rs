//! Queues of pending merges, the least key first. A key has a rank in its high half and a position
//! in its low half.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A queue that returns the least key first.
pub(crate) trait Queue {
    /// Adds a key.
    fn push(&mut self, key: u64);
    /// Removes and returns the least key.
    fn pop(&mut self) -> Option<u64>;
}

impl Queue for BinaryHeap<Reverse<u64>> {
    fn push(&mut self, key: u64) {
        BinaryHeap::push(self, Reverse(key));
    }

    fn pop(&mut self) -> Option<u64> {
        BinaryHeap::pop(self).map(|Reverse(key)| key)
    }
}

/// Positions listed by rank. Each added key must have a higher rank than the last removed one.
///
/// A list is sorted when its turn comes: it is a few sorted stretches, one for each rank that added
/// to it. So a word of 50 MB costs one pass over its symbols for each rank, not the cache misses of
/// a heap of 400 MB.
#[derive(Debug)]
pub(crate) struct ByRank {
    lists: Vec<Vec<u32>>,
    ranks: BinaryHeap<Reverse<u32>>,
    /// The current rank and its positions, the last first.
    rank: u32,
    places: Vec<u32>,
}

impl ByRank {
    /// Builds a queue for ranks below `ranks`.
    pub(crate) fn new(ranks: usize) -> Self {
        Self {
            lists: vec![Vec::new(); ranks],
            ranks: BinaryHeap::new(),
            rank: 0,
            places: Vec::new(),
        }
    }
}

impl Queue for ByRank {
    fn push(&mut self, key: u64) {
        let rank = (key >> 32) as u32;
        let list = &mut self.lists[rank as usize];
        // A rank is queued once, with its first position.
        if list.is_empty() {
            self.ranks.push(Reverse(rank));
        }
        list.push(key as u32);
    }

    fn pop(&mut self) -> Option<u64> {
        if self.places.is_empty() {
            self.rank = self.ranks.pop()?.0;
            self.places = std::mem::take(&mut self.lists[self.rank as usize]);
            // Reversed first: ascending stretches become descending ones, which this sort keeps.
            self.places.reverse();
            self.places.sort_by_key(|&place| Reverse(place));
        }
        self.places.pop().map(|place| u64::from(self.rank) << 32 | u64::from(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn lists_by_rank_give_what_a_heap_gives(steps: Vec<Option<(u8, u8)>>) {
            let (mut lists, mut heap) = (ByRank::new(1 << 16), BinaryHeap::new());
            let mut least = 0;
            for step in steps {
                if let Some((more, place)) = step {
                    let key = u64::from(least + 1 + u32::from(more)) << 32 | u64::from(place);
                    Queue::push(&mut lists, key);
                    Queue::push(&mut heap, key);
                } else {
                    let taken = Queue::pop(&mut lists);
                    assert_eq!(taken, Queue::pop(&mut heap));
                    least = taken.map_or(least, |key| (key >> 32) as u32);
                }
            }
        }
    }
}
