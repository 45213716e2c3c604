//! `Sorted`: entries that a part holds in order of a hash, for settling to merge. `Cursor` reads
//! them.

use std::fmt;
use std::ops::{Range, RangeInclusive};

use super::Part;
use super::part::Layout;
use crate::error::Result;
use crate::storage::Storage;

/// An entry that a part holds in order of its hash.
pub(crate) trait Sorted: Copy + Default + fmt::Debug {
    /// The size of a stored entry.
    const BYTES: usize;

    /// Returns the byte of a block at which the entries start, and their number.
    fn place(layout: &Layout) -> (u64, u64);

    /// Reads a stored entry of [`Self::BYTES`] bytes.
    fn from_bytes(bytes: &[u8]) -> Self;

    /// Returns the hash, spread over all numbers.
    fn hash(&self) -> u128;

    /// Returns the place of the entry among those of its source with an equal hash.
    fn place_in_source(&self) -> u64;
}

/// The content keys of a record: records with equal keys are duplicates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Key {
    /// The xxh3-128 of the normalised text.
    pub content: u128,
    /// The xxh3-64 of the text, byte for byte.
    pub exact: u64,
    /// The id of the record.
    pub record_id: u64,
    /// The index of its first document in its part.
    pub meta: u32,
    /// The number of tokens of its longest document.
    pub longest: u32,
}

impl Key {
    /// Appends the stored key.
    pub(super) fn push_bytes(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.content.to_le_bytes());
        out.extend_from_slice(&self.exact.to_le_bytes());
        out.extend_from_slice(&self.record_id.to_le_bytes());
        out.extend_from_slice(&self.meta.to_le_bytes());
        out.extend_from_slice(&self.longest.to_le_bytes());
    }
}

impl Sorted for Key {
    const BYTES: usize = 40;

    fn place(layout: &Layout) -> (u64, u64) {
        (layout.keys_at(), u64::from(layout.keys))
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let (content, rest) = bytes.split_first_chunk().expect("40 bytes are more than 16");
        let words = rest.as_chunks().0;
        let word = |nth: usize| u64::from_le_bytes(words[nth]);
        Self {
            content: u128::from_le_bytes(*content),
            exact: word(0),
            record_id: word(1),
            meta: word(2) as u32,
            longest: (word(2) >> 32) as u32,
        }
    }

    fn hash(&self) -> u128 {
        self.content
    }

    fn place_in_source(&self) -> u64 {
        self.record_id
    }
}

/// The hash of a band of a record's `MinHash` signature: records that share one are near duplicates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Band {
    /// The xxh3-64 of the band's place in the signature and of its values.
    pub hash: u64,
    /// The index of the record's first document in its part.
    pub meta: u32,
}

impl Band {
    /// Appends the stored band.
    pub(super) fn push_bytes(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.hash.to_le_bytes());
        out.extend_from_slice(&self.meta.to_le_bytes());
    }
}

impl Sorted for Band {
    const BYTES: usize = 12;

    fn place(layout: &Layout) -> (u64, u64) {
        (layout.bands_at(), u64::from(layout.bands))
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let (hash, rest) = bytes.split_first_chunk().expect("12 bytes are more than 8");
        let meta = rest.first_chunk().expect("4 bytes are left");
        Self { hash: u64::from_le_bytes(*hash), meta: u32::from_le_bytes(*meta) }
    }

    fn hash(&self) -> u128 {
        u128::from(self.hash) << 64
    }

    fn place_in_source(&self) -> u64 {
        u64::from(self.meta)
    }
}

/// A cursor over entries of a part, in order of hash.
#[derive(Debug)]
pub(crate) struct Cursor<'a, E> {
    part: &'a Part,
    storage: &'a dyn Storage,
    /// The index of the next entry to read.
    next: u64,
    /// The index after the last entry to read.
    end: u64,
    /// Entries that are read together.
    at_once: u64,
    /// Entries that were read and not yet returned.
    held: std::vec::IntoIter<E>,
}

impl<'a, E: Sorted> Cursor<'a, E> {
    /// Returns a cursor over the entries of `part` whose hash lies in `hashes`. It reads `at_once`
    /// entries at a time.
    pub(crate) fn new(
        part: &'a Part,
        storage: &'a dyn Storage,
        hashes: &RangeInclusive<u128>,
        at_once: u64,
    ) -> Result<Self> {
        let mut cursor =
            Self { part, storage, next: 0, end: 0, at_once, held: Vec::new().into_iter() };
        cursor.end = cursor.first_where(|hash| hash > *hashes.end())?;
        cursor.next = cursor.first_where(|hash| hash >= *hashes.start())?;
        Ok(cursor)
    }

    /// Returns the next entry, or `None` after the last.
    pub(crate) fn advance(&mut self) -> Result<Option<E>> {
        if let Some(entry) = self.held.next() {
            return Ok(Some(entry));
        }
        let next = (self.next + self.at_once).min(self.end);
        self.held = self.read(self.next..next)?.into_iter();
        self.next = next;
        Ok(self.held.next())
    }

    /// Returns the index of the first entry whose hash `is_past`, by a binary search.
    fn first_where(&self, is_past: impl Fn(u128) -> bool) -> Result<u64> {
        let (mut first, mut end) = (0, E::place(&self.part.layout).1);
        // The least and the greatest possible hash need no search.
        if is_past(0) {
            return Ok(0);
        }
        if !is_past(u128::MAX) {
            return Ok(end);
        }
        while first < end {
            let middle = first.midpoint(end);
            let is_past = self.read(middle..middle + 1)?.iter().all(|entry| is_past(entry.hash()));
            if is_past { end = middle } else { first = middle + 1 }
        }
        Ok(first)
    }

    /// Reads the entries with these indices.
    fn read(&self, range: Range<u64>) -> Result<Vec<E>> {
        let (start, size) = (E::place(&self.part.layout).0, E::BYTES as u64);
        let bytes =
            self.part.read(self.storage, start + range.start * size..start + range.end * size)?;
        Ok(bytes.chunks_exact(E::BYTES).map(E::from_bytes).collect())
    }
}
