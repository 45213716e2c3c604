//! Queues of pending merges, least key first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What gives the least key that was put in.
pub trait Queue {
    /// Puts a key in.
    fn push(&mut self, key: u64);
    /// Takes the least key out.
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

/// A radix heap: no key may be less than the last taken out.
///
/// A key lies in the bucket of its highest bit that differs from the last key's, so it moves down a few times in all,
/// each time by reading a bucket from end to end: a word of 50 MB costs what its bytes cost, not the cache misses of a
/// heap of 400 MB.
#[derive(Debug, Default)]
pub struct RadixHeap {
    buckets: Vec<Vec<u64>>,
    last: u64,
}

impl Queue for RadixHeap {
    fn push(&mut self, key: u64) {
        let bucket = (u64::BITS - (key ^ self.last).leading_zeros()) as usize;
        if self.buckets.len() <= bucket {
            self.buckets.resize_with(bucket + 1, Vec::new);
        }
        self.buckets[bucket].push(key);
    }

    fn pop(&mut self) -> Option<u64> {
        let first = self.buckets.iter().position(|bucket| !bucket.is_empty())?;
        if first > 0 {
            let keys = std::mem::take(&mut self.buckets[first]);
            self.last = *keys.iter().min()?;
            for key in keys {
                self.push(key);
            }
        }
        self.buckets[0].pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_radix_heap_gives_what_a_binary_heap_gives(steps: Vec<Option<u32>>) {
            let (mut radix, mut binary) = (RadixHeap::default(), BinaryHeap::new());
            let mut least = 0;
            for step in steps {
                if let Some(more) = step {
                    let key = least + u64::from(more);
                    Queue::push(&mut radix, key);
                    Queue::push(&mut binary, key);
                } else {
                    let taken = Queue::pop(&mut radix);
                    assert_eq!(taken, Queue::pop(&mut binary));
                    least = taken.unwrap_or(least);
                }
            }
        }
    }
}
