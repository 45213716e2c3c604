//! `Merge`: the hashed entries of all parts, in order of hash. Each thread takes a share of all
//! possible hashes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::RangeInclusive;

use super::corpus::PartOf;
use crate::error::Result;
use crate::spool::{Cursor, Sorted};
use crate::storage::Storage;

/// Entries of a part held at once, by all merges together, where parts are few.
const AT_ONCE: u64 = 512;
/// Bytes of all parts held at once, where parts are many.
const HELD_BYTES: u64 = 256 << 20;
/// Entries of a part that one merge holds at least.
const OF_A_MERGE: u64 = 64;

/// Returns the range of hashes that is share `nth` of `shares`.
pub(super) fn share(nth: usize, shares: usize) -> RangeInclusive<u128> {
    let size = u128::MAX / shares as u128;
    size * nth as u128..=if nth + 1 == shares { u128::MAX } else { size * (nth as u128 + 1) - 1 }
}

/// The entries of all parts, in order of hash, source and place in the source.
pub(super) struct Merge<'a, E> {
    /// A cursor over the entries of each part.
    cursors: Vec<Cursor<'a, E>>,
    /// Hash, source, place and part of the next entry of each part, the lowest on top.
    next: BinaryHeap<Reverse<(u128, usize, u64, usize)>>,
    /// The next entry of each part.
    entries: Vec<E>,
    /// The source of each part.
    sources: Vec<usize>,
}

impl<'a, E: Sorted> Merge<'a, E> {
    /// Begins the merge of the entries of `parts` whose hash lies in share `nth` of `shares`.
    pub(super) fn new(
        storage: &'a dyn Storage,
        parts: &[PartOf<'a>],
        (nth, shares): (usize, usize),
    ) -> Result<Self> {
        let within = HELD_BYTES / (parts.len() * E::BYTES).max(1) as u64;
        let at_once = (AT_ONCE.min(within) / shares as u64).max(OF_A_MERGE);
        let hashes = share(nth, shares);
        let mut merge = Self {
            cursors: parts
                .iter()
                .map(|part| Cursor::new(part.part, storage, &hashes, at_once))
                .collect::<Result<_>>()?,
            next: BinaryHeap::new(),
            entries: vec![E::default(); parts.len()],
            sources: parts.iter().map(|part| part.source).collect(),
        };
        (0..parts.len()).try_for_each(|part| merge.refill(part))?;
        Ok(merge)
    }

    /// Reads the next entry of a part.
    fn refill(&mut self, part: usize) -> Result<()> {
        if let Some(entry) = self.cursors[part].advance()? {
            self.entries[part] = entry;
            let place = (entry.hash(), self.sources[part], entry.place_in_source(), part);
            self.next.push(Reverse(place));
        }
        Ok(())
    }

    /// Returns the hash of the next entry.
    pub(super) fn hash(&self) -> Option<u128> {
        self.next.peek().map(|Reverse((hash, ..))| *hash)
    }

    /// Moves past the next entry and returns it with the index of its part, if it has this hash.
    pub(super) fn advance_within(&mut self, hash: u128) -> Result<Option<(usize, E)>> {
        if self.hash() != Some(hash) {
            return Ok(None);
        }
        let Some(Reverse((.., part))) = self.next.pop() else { return Ok(None) };
        let entry = self.entries[part];
        self.refill(part)?;
        Ok(Some((part, entry)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hash_is_in_one_share() {
        for shares in [1, 2, 3, 7, 64] {
            let ends = (*share(0, shares).start(), *share(shares - 1, shares).end());
            assert_eq!(ends, (0, u128::MAX));
            for nth in 1..shares {
                assert_eq!(*share(nth, shares).start(), share(nth - 1, shares).end() + 1);
            }
        }
    }
}
