//! `Forest`: groups of numbers that threads unite at the same time.
//!
//! Anderson and Woll 1991, "Wait-free parallel algorithms for the union-find problem": a tree for
//! each group, whose root is its lowest number. The groups depend on what was united, never on the
//! order.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The parent of a number that is in no group.
const NONE: u32 = u32::MAX;

/// Groups of numbers below a count.
pub(super) struct Forest(Vec<AtomicU32>);

impl Forest {
    /// Returns a forest of `count` numbers, none of them in a group.
    pub(super) fn new(count: u32) -> Self {
        Self((0..count).map(|_| AtomicU32::new(NONE)).collect())
    }

    /// Makes a number a group of its own.
    pub(super) fn plant(&self, number: u32) {
        self.0[number as usize].store(number, Relaxed);
    }

    /// Returns the lowest number of the group of `number`; `None` if it is in no group.
    pub(super) fn root(&self, mut number: u32) -> Option<u32> {
        loop {
            let parent = self.0[number as usize].load(Relaxed);
            if parent == NONE {
                return None;
            }
            if parent == number {
                return Some(number);
            }
            // Halves the path for those that come later. Another thread may have done so.
            let above = self.0[parent as usize].load(Relaxed);
            let _ = self.0[number as usize].compare_exchange_weak(parent, above, Relaxed, Relaxed);
            number = parent;
        }
    }

    /// Makes one group of the groups of two numbers, if both are in a group.
    pub(super) fn unite(&self, one: u32, other: u32) {
        loop {
            let (Some(one), Some(other)) = (self.root(one), self.root(other)) else { return };
            let (low, high) = (one.min(other), one.max(other));
            let root = &self.0[high as usize];
            // Fails if another thread has put the root below a lower one: begin again there.
            if low == high || root.compare_exchange(high, low, Relaxed, Relaxed).is_ok() {
                return;
            }
        }
    }

    /// Returns a bit for each number that is the root of a group of two or more.
    pub(super) fn shared_roots(&self) -> Vec<u64> {
        let mut bits = vec![0; self.0.len().div_ceil(64)];
        for number in 0..self.0.len() as u32 {
            if let Some(root) = self.root(number).filter(|root| *root != number) {
                bits[root as usize / 64] |= 1 << (root % 64);
            }
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns the lowest number that each number is tied to, by walking until nothing changes.
    fn roots_slowly(planted: &[bool], pairs: &[(u32, u32)]) -> Vec<Option<u32>> {
        let mut roots: Vec<Option<u32>> =
            (0..).zip(planted).map(|(number, is)| is.then_some(number)).collect();
        loop {
            let before = roots.clone();
            for &(one, other) in pairs {
                if let (Some(a), Some(b)) = (roots[one as usize], roots[other as usize]) {
                    roots[one as usize] = Some(a.min(b));
                    roots[other as usize] = Some(a.min(b));
                }
            }
            if roots == before {
                return roots;
            }
        }
    }

    proptest! {
        #[test]
        fn groups_are_those_of_a_slow_walk_however_many_threads_unite(
            planted in prop::collection::vec(any::<bool>(), 60),
            pairs in prop::collection::vec((0u32..60, 0u32..60), 0..80),
        ) {
            let forest = Forest::new(60);
            (0..60).filter(|&number| planted[number as usize]).for_each(|number| {
                forest.plant(number);
            });
            std::thread::scope(|scope| {
                for pairs in pairs.chunks(pairs.len().div_ceil(4).max(1)) {
                    let forest = &forest;
                    scope.spawn(move || {
                        for &(one, other) in pairs {
                            forest.unite(one, other);
                        }
                    });
                }
            });
            let roots: Vec<Option<u32>> = (0..60).map(|number| forest.root(number)).collect();
            prop_assert_eq!(&roots, &roots_slowly(&planted, &pairs));
            let shared = forest.shared_roots();
            for number in 0..60_u32 {
                let members = roots.iter().filter(|root| **root == Some(number)).count();
                prop_assert_eq!(shared[number as usize / 64] >> (number % 64) & 1 == 1, members > 1);
            }
        }
    }
}
