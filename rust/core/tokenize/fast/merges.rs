//! `Merges`: a BPE model; turns the bytes of a word into ids.
//!
//! A short word takes a plain vector and a search for the least rank at each step, a long word a
//! queue. Both follow `tokenizers`: the merge of the least rank first, the leftmost among equals.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::queue::{ByRank, Queue};

/// No id, or no rank.
pub(super) const NONE: u32 = u32::MAX;
/// The most symbols for which a linear search beats a queue.
const SHORT: usize = 32;
/// The most symbols for which a heap, near the processor, beats lists by rank.
const MANY: usize = 1 << 16;
/// Ids have 21 bits and ranks 22, so that a pair and its rank fit in 64 bits.
pub(super) const ID_BITS: u32 = 21;
pub(super) const RANK_BITS: u32 = 22;
pub(super) const EMPTY: u64 = u64::MAX;

/// A value that equals no pair and no entry.
const NO_PAIR: u64 = EMPTY >> RANK_BITS;

/// Packs two ids into one key.
#[inline]
pub(super) fn pair(left: u32, right: u32) -> u64 {
    u64::from(left) << ID_BITS | u64::from(right)
}

/// Returns the index of two bytes in a table.
#[inline]
fn bytes_at(first: u8, second: u8) -> usize {
    usize::from(first) << 8 | usize::from(second)
}

/// Returns the index of the word that holds the bit of two bytes, and the bit.
#[inline]
pub(super) fn join(last: u8, first: u8) -> (usize, u64) {
    let index = bytes_at(last, first);
    (index / 64, 1 << (index % 64))
}

/// A BPE model over bytes.
#[derive(Debug)]
pub(crate) struct Merges {
    /// By byte: its id.
    pub(super) atoms: [u32; 256],
    /// The unknown token, and whether one token stands for several unknown bytes in a row.
    pub(super) unknown: Option<(u32, bool)>,
    /// A hash table with open addressing: left id, right id, rank.
    pub(super) pairs: Vec<u64>,
    /// The shift that turns a hash into an index.
    pub(super) shift: u32,
    /// By two bytes: the rank of their pair.
    pub(super) byte_ranks: Vec<u32>,
    /// By two bytes, a bit each: whether any merge joins a token that ends with the first byte to a
    /// token that starts with the second.
    pub(super) joins: Vec<u64>,
    /// By rank: the id that the merge produces.
    pub(super) products: Vec<u32>,
    /// The difference between a rank and the id it produces, if it is one number for all merges.
    pub(super) step: Option<u32>,
    /// Whether each merge comes after the merges that make its parts.
    pub(super) orderly: bool,
    /// The ids of whole words that are looked up first, if the model ignores merges for them.
    pub(super) whole: Option<HashMap<Box<[u8]>, u32>>,
    /// By id: the number of bytes of its token.
    pub(super) lengths: Vec<u32>,
    /// By byte: the character that the vocabulary writes for it.
    pub(super) characters: [char; 256],
}

/// A symbol of a word too long for the stack, in a doubly linked list.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    id: u32,
    /// The rank of the pair of this symbol and the next.
    rank: u32,
    previous: u32,
    next: u32,
}

impl Merges {
    /// Returns whether the model leaves some bytes out.
    pub(crate) fn lacks_letters(&self) -> bool {
        self.unknown.is_none() && self.atoms.contains(&NONE)
    }

    /// Returns the index at which the search for a pair starts.
    #[inline]
    pub(super) fn place(&self, pair: u64) -> usize {
        (pair.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    /// Returns the entry at an index that may be beyond the end: the table wraps around.
    #[inline]
    fn entry(&self, index: usize) -> u64 {
        self.pairs[index & (self.pairs.len() - 1)]
    }

    /// Returns the rank of the merge of two ids.
    #[inline]
    pub(super) fn rank(&self, left: u32, right: u32) -> u32 {
        let pair = pair(left, right);
        self.find(pair, self.entry(self.place(pair)))
    }

    /// Returns the rank of a pair. `entry` is the entry at which the search starts.
    #[inline]
    fn find(&self, pair: u64, mut entry: u64) -> u32 {
        let mut index = self.place(pair);
        while entry != EMPTY {
            if entry >> RANK_BITS == pair {
                return entry as u32 & ((1 << RANK_BITS) - 1);
            }
            index += 1;
            entry = self.entry(index);
        }
        NONE
    }

    /// Returns the id that a merge produces. Most files number products as they list the merges:
    /// then no table is needed.
    #[inline]
    fn product(&self, rank: u32) -> u32 {
        self.step.map_or_else(|| self.products[rank as usize], |step| rank + step)
    }

    /// Returns the number of bytes of a token.
    pub(crate) fn length(&self, id: u32) -> usize {
        self.lengths.get(id as usize).map_or(0, |&length| length as usize)
    }

    /// Returns the character that the vocabulary writes for a byte.
    pub(crate) fn character(&self, byte: u8) -> char {
        self.characters[byte as usize]
    }

    /// Appends the ids of `word`.
    pub(crate) fn encode(&self, word: &[u8], out: &mut Vec<u32>) {
        if let Some(id) = self.whole.as_ref().and_then(|whole| whole.get(word)) {
            out.push(*id);
        } else if word.iter().any(|&byte| self.atoms[byte as usize] == NONE) {
            self.encode_long(word, out);
        } else if word.len() <= SHORT {
            self.encode_short(word, out);
        } else {
            // A token over two bytes was made by a merge that joined them. Where no merge joins two
            // bytes, the texts on both sides do not depend on each other.
            let apart = |&index: &usize| {
                let (place, bit) = join(word[index - 1], word[index]);
                self.joins[place] & bit == 0
            };
            let mut start = 0;
            for end in (1..word.len()).filter(apart).chain([word.len()]) {
                let part = &word[start..end];
                if part.len() <= SHORT {
                    self.encode_short(part, out);
                } else {
                    self.encode_long(part, out);
                }
                start = end;
            }
        }
    }

    /// Appends the ids of up to `SHORT` bytes that all have an id.
    #[inline]
    fn encode_short(&self, word: &[u8], out: &mut Vec<u32>) {
        let mut ids = [NONE; SHORT];
        let mut ranks = [NONE; SHORT];
        for (nth, &byte) in word.iter().enumerate() {
            ids[nth] = self.atoms[byte as usize];
        }
        for (nth, pair) in word.windows(2).enumerate() {
            ranks[nth] = self.byte_ranks[bytes_at(pair[0], pair[1])];
        }
        let len = self.reduce(&mut ids, &mut ranks, word.len());
        out.extend_from_slice(&ids[..len]);
    }

    /// Merges `len` symbols and returns how many are left. `ranks[i]` belongs to symbols i and i +
    /// 1.
    #[inline]
    fn reduce(&self, ids: &mut [u32; SHORT], ranks: &mut [u32; SHORT], mut len: usize) -> usize {
        loop {
            let (mut least, mut index) = (NONE, 0);
            for (nth, &rank) in ranks[..len.saturating_sub(1)].iter().enumerate() {
                if rank < least {
                    (least, index) = (rank, nth);
                }
            }
            if least == NONE {
                return len;
            }
            len -= 1;
            ids[index] = self.product(least);
            for nth in index + 1..len {
                ids[nth] = ids[nth + 1];
                ranks[nth - 1] = ranks[nth];
            }
            ranks[len - 1] = NONE;
            // The table is larger than a near cache: both entries are loaded before either is
            // compared.
            let after = if index + 1 < len { pair(ids[index], ids[index + 1]) } else { NO_PAIR };
            let before = if index > 0 { pair(ids[index - 1], ids[index]) } else { NO_PAIR };
            let entries = (self.entry(self.place(after)), self.entry(self.place(before)));
            ranks[index] = self.find(after, entries.0);
            if index > 0 {
                ranks[index - 1] = self.find(before, entries.1);
            }
        }
    }

    /// Appends the ids of a word of any length, unknown bytes included.
    fn encode_long(&self, word: &[u8], out: &mut Vec<u32>) {
        let mut symbols: Vec<Symbol> = Vec::with_capacity(word.len());
        let mut was_unknown = false;
        for &byte in word {
            let atom = self.atoms[byte as usize];
            let id = match self.unknown {
                _ if atom != NONE => Some(atom),
                Some((_, true)) if was_unknown => None,
                // With `fuse_unk` only the first of several unknown bytes makes a token.
                unknown => unknown.map(|(id, _)| id),
            };
            was_unknown = atom == NONE;
            let index = symbols.len() as u32;
            symbols.extend(id.map(|id| Symbol {
                id,
                rank: NONE,
                previous: index.wrapping_sub(1),
                next: index + 1,
            }));
            // Lists by rank need merges in order; below this size a heap stays in the cache and is
            // faster.
        }
        if self.orderly && symbols.len() > MANY {
            self.drain(&mut symbols, &mut ByRank::new(self.products.len()));
        } else {
            self.drain(&mut symbols, &mut BinaryHeap::<Reverse<u64>>::new());
        }
        out.extend(symbols.iter().map(|symbol| symbol.id).filter(|&id| id != NONE));
    }

    /// Merges with a queue. A symbol that was merged into another is left as `NONE`.
    fn drain(&self, symbols: &mut [Symbol], queue: &mut impl Queue) {
        let len = symbols.len() as u32;
        let key = |rank: u32, index: u32| u64::from(rank) << 32 | u64::from(index);
        for index in 1..symbols.len() {
            let rank = self.rank(symbols[index - 1].id, symbols[index].id);
            symbols[index - 1].rank = rank;
            if rank != NONE {
                queue.push(key(rank, index as u32 - 1));
            }
        }
        while let Some(top) = queue.pop() {
            let (rank, index) = ((top >> 32) as u32, top as u32);
            let Symbol { rank: current, previous: before, next: gone, .. } =
                symbols[index as usize];
            // The queue keeps outdated entries: a pair that changed since has another rank.
            if current != rank {
                continue;
            }
            let product = self.product(rank);
            let after = symbols[gone as usize].next;
            (symbols[gone as usize].id, symbols[gone as usize].rank) = (NONE, NONE);
            let mut rank = NONE;
            if after < len {
                symbols[after as usize].previous = index;
                rank = self.rank(product, symbols[after as usize].id);
                if rank != NONE {
                    queue.push(key(rank, index));
                }
            }
            symbols[index as usize] = Symbol { id: product, rank, previous: before, next: after };
            if before < len {
                let rank = self.rank(symbols[before as usize].id, product);
                symbols[before as usize].rank = rank;
                if rank != NONE {
                    queue.push(key(rank, before));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn a_word_in_parts_is_the_word_whole(
            pairs in proptest::collection::vec(
                (any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..30,
            ),
            word in "[a-f]{33,200}",
        ) {
            let mut tokens: Vec<String> = ('a'..='f').map(String::from).collect();
            let mut merges = Vec::new();
            for (left, right) in pairs {
                let (left, right) = (left.get(&tokens).clone(), right.get(&tokens).clone());
                let product = format!("{left}{right}");
                if product.len() < 12 && !tokens.contains(&product) {
                    merges.push(json!([left, right]));
                    tokens.push(product);
                }
            }
            let vocab: serde_json::Map<String, Value> =
                tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
            let model = Merges::of(&json!({ "vocab": vocab, "merges": merges })).expect("a model");
            let (mut parts, mut whole) = (Vec::new(), Vec::new());
            model.encode(word.as_bytes(), &mut parts);
            model.encode_long(word.as_bytes(), &mut whole);
            prop_assert_eq!(parts, whole);
        }
    }
}
