//! `Cache`: the ids of words seen before, in bounded memory.
//!
//! A word of up to 15 bytes with up to four ids lies whole in a slot of 32 bytes, two slots to a
//! cache line. A longer word, up to 64 bytes, lies in a ring that overwrites the oldest. The cache
//! never grows.

use std::hint::black_box;

use xxhash_rust::xxh3::xxh3_64;

use super::ascii::window;
use super::machine::prefetch;

/// The number of lines of two slots: 11 MiB.
const LINES: usize = 11 << 14;
/// The number of slots that point into the ring: half a MiB.
const POINTERS: usize = 1 << 16;
/// The size of the ring in words of 32 bits: 2 MiB.
const RING: usize = 1 << 19;
/// The most bytes of a short word.
const SHORT: usize = 15;
/// The most bytes of a long word.
pub(crate) const LONG: usize = 64;
/// The number of ids in a slot.
const IDS: usize = 4;
/// The count in the slot of a short word with more ids: they are in the ring.
const IN_RING: u32 = 7;

const COUNT_SHIFT: u32 = 24;
const FLAG: u32 = 1 << 31;

/// The ids of words seen before.
#[derive(Debug)]
pub(crate) struct Cache {
    lines: Vec<u64>,
    /// The index at which the first cache line starts.
    aligned: usize,
    pointers: Vec<u64>,
    ring: Vec<u32>,
    /// The number of words ever written to the ring.
    head: u64,
}

/// A short word: its bytes, and its length in the highest byte. All zeros for any other word.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    low: u64,
    high: u64,
}

/// By length of a word: the masks of its bytes, in the lower and the higher half.
const BITS: [[u64; 2]; SHORT + 1] = {
    let mut bits = [[0; 2]; SHORT + 1];
    let mut len = 1;
    while len <= SHORT {
        let all = u128::MAX >> (128 - 8 * len);
        bits[len] = [all as u64, (all >> 64) as u64];
        len += 1;
    }
    bits
};

impl Key {
    /// Returns the key of the word at `start..end` of `text`.
    #[inline]
    pub(crate) fn of(text: &[u8], start: usize, end: usize) -> Self {
        let len = end - start;
        let Some(bits) = BITS.get(len) else { return Self::default() };
        window(text, start, |window| {
            let bytes = u128::from_le_bytes(*window);
            let (low, high) = (bytes as u64 & bits[0], (bytes >> 64) as u64 & bits[1]);
            Self { low, high: high | (len as u64) << 56 }
        })
    }

    /// Returns whether the key is that of a short word.
    #[inline]
    pub(crate) fn is_short(self) -> bool {
        self.high != 0
    }

    /// Returns the only line that can hold the key.
    #[inline]
    fn line(self) -> usize {
        let product = u128::from(self.low ^ 0x243f_6a88_85a3_08d3)
            * u128::from(self.high ^ 0x1319_8a2e_0370_7344);
        let hash = product as u64 ^ (product >> 64) as u64;
        // Scales the upper half to the number of lines, without a division.
        (((hash >> 32) * LINES as u64) >> 32) as usize
    }

    /// Returns the bytes of the word in a buffer, and their number.
    fn bytes(self) -> ([u8; 16], usize) {
        (
            (u128::from(self.high) << 64 | u128::from(self.low)).to_le_bytes(),
            (self.high >> 56) as usize,
        )
    }
}

/// Returns zeros that are really written, not memory that the system only promises as zeros. The
/// first use of a slot is a read. The system would map a page of zeros that all processes share,
/// and replace it at the first write; every processor that another thread runs on must then be told
/// (some 8 µs a page when two threads start at once).
fn zeros<T: Clone + Default>(len: usize) -> Vec<T> {
    // Opaque, so that the compiler cannot turn this back into zeros from the system.
    let mut zeros = black_box(Vec::with_capacity(len));
    zeros.resize(len, T::default());
    zeros
}

impl Default for Cache {
    fn default() -> Self {
        let lines = zeros(LINES * 8 + 8);
        // A line must not straddle two cache lines: a lookup would wait twice.
        let aligned = (64 - lines.as_ptr() as usize % 64) % 64 / 8;
        Self { lines, aligned, pointers: zeros(POINTERS), ring: zeros(RING), head: RING as u64 }
    }
}

impl Cache {
    /// Makes the processor fetch the line that `short` will read. Returns its index.
    #[inline]
    pub(crate) fn expect(&self, key: Key) -> usize {
        let place = self.aligned + key.line() * 8;
        prefetch(&self.lines, place);
        place
    }

    /// Appends the ids of a short word to `out` if the cache holds it, and returns its flag.
    /// `place` is the index that `expect` returned.
    #[inline]
    pub(crate) fn short(&self, key: Key, place: usize, out: &mut Vec<u32>) -> Option<bool> {
        let line = self.lines.get(place..)?.first_chunk::<8>()?;
        let differs = |slot: usize| (line[slot] ^ key.low) | (line[slot + 1] ^ key.high);
        // Which of the two slots matches cannot be predicted, so no branch depends on it.
        let (first, second) = (differs(0) != 0, differs(4) != 0);
        if first & second {
            return None;
        }
        let slot = 4 * usize::from(first);
        let ids = [line[slot + 2], line[slot + 3]];
        let head = ids[0] as u32;
        let count = (head >> COUNT_SHIFT & 7) as usize;
        if count > IDS {
            let (bytes, len) = key.bytes();
            return self.long(&bytes[..len], out);
        }
        let known = out.len();
        let first = head & ((1 << COUNT_SHIFT) - 1);
        // Copies four ids and drops some: cheaper than a copy of unknown length.
        out.extend_from_slice(&[
            first,
            (ids[0] >> 32) as u32,
            ids[1] as u32,
            (ids[1] >> 32) as u32,
        ]);
        out.truncate(known + count);
        Some(head & FLAG != 0)
    }

    /// Stores the ids of a short word.
    pub(crate) fn put_short(&mut self, key: Key, ids: &[u32], flagged: bool) {
        let mut slot = [0_u32; IDS];
        if let Some(kept) = slot.get_mut(..ids.len()) {
            kept.copy_from_slice(ids);
            slot[0] |= (ids.len() as u32) << COUNT_SHIFT | if flagged { FLAG } else { 0 };
        } else {
            slot[0] = IN_RING << COUNT_SHIFT;
            let (bytes, len) = key.bytes();
            self.put_long(&bytes[..len], ids, flagged);
        }
        let index = self.aligned + key.line() * 8;
        let (first, second) = self.lines[index..index + 8].split_at_mut(4);
        // The newest word comes first and pushes out the older of the two.
        if (first[0], first[1]) != (key.low, key.high) {
            second.copy_from_slice(first);
        }
        let pair = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        first.copy_from_slice(&[key.low, key.high, pair(slot[0], slot[1]), pair(slot[2], slot[3])]);
    }

    /// Appends the ids of a word of up to 64 bytes to `out` if the cache holds it, and returns its
    /// flag.
    pub(crate) fn long(&self, word: &[u8], out: &mut Vec<u32>) -> Option<bool> {
        let hash = xxh3_64(word);
        let pointer = self.pointers[hash as usize % POINTERS];
        let place = pointer & ((1 << 40) - 1);
        // Part of the hash tells words apart; the head tells whether the entry was overwritten
        // since.
        if pointer >> 40 != hash >> 40 || self.head > place + RING as u64 {
            return None;
        }
        let entry = &self.ring[place as usize % RING..];
        let header = *entry.first()?;
        let (len, count) = ((header & 0xff) as usize, (header >> 8 & 0xff) as usize);
        let (key, ids) = entry[1..].split_at(len.div_ceil(4));
        // The hash alone is no proof: the bytes decide.
        if len != word.len() || word.chunks(4).zip(key).any(|(bytes, &kept)| pack(bytes) != kept) {
            return None;
        }
        out.extend_from_slice(&ids[..count]);
        Some(header & FLAG != 0)
    }

    /// Stores the ids of a word of up to 64 bytes.
    pub(crate) fn put_long(&mut self, word: &[u8], ids: &[u32], flagged: bool) {
        let size = 1 + word.len().div_ceil(4) + ids.len();
        let mut index = self.head as usize % RING;
        // An entry is read as one slice, so it never wraps around the end.
        if index + size > RING {
            self.head += (RING - index) as u64;
            index = 0;
        }
        let hash = xxh3_64(word);
        self.pointers[hash as usize % POINTERS] = hash >> 40 << 40 | self.head;
        self.ring[index] =
            word.len() as u32 | (ids.len() as u32) << 8 | if flagged { FLAG } else { 0 };
        let (key, rest) = self.ring[index + 1..index + size].split_at_mut(word.len().div_ceil(4));
        key.iter_mut().zip(word.chunks(4)).for_each(|(kept, bytes)| *kept = pack(bytes));
        rest.copy_from_slice(ids);
        self.head += size as u64;
    }
}

/// Packs up to four bytes into one word.
fn pack(bytes: &[u8]) -> u32 {
    let mut word = [0; 4];
    word[..bytes.len()].copy_from_slice(bytes);
    u32::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn it_fits_its_bound() {
        let bytes = LINES * 64 + 64 + POINTERS * 8 + RING * 4;
        assert!(bytes <= 16_000_000, "{bytes}");
    }

    #[test]
    fn words_spread_over_all_lines() {
        let mut used = vec![false; LINES];
        for nth in 0..4 * LINES {
            let word = format!(" {nth}");
            used[Key::of(word.as_bytes(), 0, word.len()).line()] = true;
        }
        // By chance 1.8 % of the lines would have none.
        let unused = used.iter().filter(|&&used| !used).count();
        assert!(unused < LINES / 40, "{unused}");
    }

    #[test]
    fn what_it_gives_is_what_was_put_in() {
        let mut cache = Cache::default();
        let mut kept: HashMap<Vec<u8>, (Vec<u32>, bool)> = HashMap::new();
        let mut state = 1_u64;
        let mut random = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let (mut hits, mut tries) = (0, 0);
        for _ in 0..400_000 {
            let most = if random(4) == 0 { 64 } else { 9 };
            let len = 1 + random(most) as usize;
            let text: Vec<u8> =
                (0..len).map(|_| b"ab\0\xff"[random(4) as usize]).chain(*b"tail").collect();
            let word = text[..len].to_vec();
            let mut out = vec![9];
            let key = Key::of(&text, 0, len);
            assert_eq!(key.is_short(), len <= SHORT);
            let place = cache.expect(key);
            let found = if key.is_short() {
                cache.short(key, place, &mut out)
            } else {
                cache.long(&word, &mut out)
            };
            tries += u32::from(kept.contains_key(&word));
            if let Some(found) = found {
                let (ids, flagged) = &kept[&word];
                assert_eq!((&out[1..], found), (ids.as_slice(), *flagged));
                hits += 1;
            } else {
                assert_eq!(out, [9]);
                let ids: Vec<u32> =
                    (0..=random(len as u64)).map(|_| random(1 << 21) as u32).collect();
                let flagged = random(2) == 1;
                if key.is_short() {
                    cache.put_short(key, &ids, flagged);
                } else {
                    cache.put_long(&word, &ids, flagged);
                }
                kept.insert(word, (ids, flagged));
            }
        }
        assert!(hits > tries / 2, "{hits} of {tries}");
    }
}
