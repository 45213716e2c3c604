//! `Merges`: a BPE model; turns the bytes of a word into ids.
//!
//! Short words take a plain vector and a search for the least rank at each step, long ones a queue.
//! Both do what `tokenizers` does: the merge of least rank first, the leftmost of equals.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use serde_json::Value;

use super::queue::{ByRank, Queue};

/// No id, or no rank.
const NONE: u32 = u32::MAX;
/// Symbols up to which a search by eye beats a queue.
const SHORT: usize = 32;
/// Symbols up to which a heap, near the processor, beats lists by rank.
const MANY: usize = 1 << 16;
/// Ids have 21 bits and ranks 22, so that a pair and its rank are one word of 64 bits.
const ID_BITS: u32 = 21;
const RANK_BITS: u32 = 22;
const EMPTY: u64 = u64::MAX;

/// What no pair is, and no entry.
const NO_PAIR: u64 = EMPTY >> RANK_BITS;

/// Two ids as one key.
#[inline]
fn pair(left: u32, right: u32) -> u64 {
    u64::from(left) << ID_BITS | u64::from(right)
}

/// Where two bytes have their place in a table.
#[inline]
fn bytes_at(first: u8, second: u8) -> usize {
    usize::from(first) << 8 | usize::from(second)
}

/// Where two bytes have their bit, and the bit.
#[inline]
fn join(last: u8, first: u8) -> (usize, u64) {
    let at = bytes_at(last, first);
    (at / 64, 1 << (at % 64))
}

/// A BPE model over bytes.
#[derive(Debug)]
pub struct Merges {
    /// By byte: its id.
    atoms: [u32; 256],
    /// What stands for bytes that have no id, and whether one stands for many in a row.
    unknown: Option<(u32, bool)>,
    /// Open addressing: left id, right id, rank.
    pairs: Vec<u64>,
    /// Bits that a hash's place is made of.
    shift: u32,
    /// By two bytes: the rank of their pair.
    byte_ranks: Vec<u32>,
    /// By two bytes, a bit each: whether any merge joins a token that ends with the one to a token
    /// that starts with the other.
    joins: Vec<u64>,
    /// By rank: what the merge makes.
    products: Vec<u32>,
    /// What to add to a rank for what the merge makes, where it is the same for all.
    step: Option<u32>,
    /// Whether whatever a merge makes is merged by later ones only.
    orderly: bool,
    /// Where whole words are looked for first: their ids.
    whole: Option<HashMap<Box<[u8]>, u32>>,
    /// By id: bytes of its token.
    lengths: Vec<u32>,
    /// By byte: the character that the vocabulary writes for it.
    characters: [char; 256],
}

/// A symbol of a word too long for the stack, in a list linked both ways.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    id: u32,
    /// The rank of its pair with the next.
    rank: u32,
    previous: u32,
    next: u32,
}

impl Merges {
    /// The model of a tokenizer.json, or why this engine does not take it.
    pub fn of(model: &Value) -> Result<Self, String> {
        let vocab = model["vocab"].as_object().ok_or("its model has no vocabulary")?;
        let characters = byte_characters();
        let byte_of: HashMap<char, u8> = characters.iter().copied().zip(0..=u8::MAX).collect();
        let mut ids: HashMap<&str, u32> = HashMap::with_capacity(vocab.len());
        let mut lengths = Vec::new();
        for (token, id) in vocab {
            let id = id
                .as_u64()
                .filter(|&id| id < (1 << ID_BITS) - 1)
                .ok_or("its model has an id of 2,097,151 or more")?;
            let id = id as usize;
            if lengths.len() <= id {
                lengths.resize(id + 1, NONE);
            }
            if lengths[id] != NONE {
                return Err(format!("two tokens of its model have the id {id}"));
            }
            lengths[id] = token.chars().count() as u32;
            ids.insert(token, id as u32);
        }
        let atoms = characters
            .map(|char| ids.get(&*char.encode_utf8(&mut [0; 4])).copied().unwrap_or(NONE));
        let unknown = match model["unk_token"].as_str() {
            Some(token) if atoms.contains(&NONE) => {
                let id = ids.get(token).ok_or("its unknown token is not in its vocabulary")?;
                Some((*id, model["fuse_unk"] == true))
            }
            _ => None,
        };
        let merges = model["merges"].as_array().ok_or("its model has no merges")?;
        if merges.len() >= (1 << RANK_BITS) - 1 {
            return Err("its model has more than 4,194,302 merges".to_owned());
        }
        let size = (merges.len() * 2).max(16).next_power_of_two();
        let mut this = Self {
            atoms,
            unknown,
            pairs: vec![EMPTY; size],
            shift: u64::BITS - size.trailing_zeros(),
            byte_ranks: Vec::new(),
            joins: vec![0; (1 << 16) / 64],
            products: Vec::with_capacity(merges.len()),
            step: None,
            orderly: false,
            whole: None,
            lengths,
            characters,
        };
        this.add_merges(merges, &ids, &byte_of)?;
        if model["ignore_merges"] == true {
            let bytes = |token: &str| {
                token.chars().map(|char| byte_of.get(&char).copied()).collect::<Option<Box<[u8]>>>()
            };
            this.whole =
                Some(ids.iter().filter_map(|(token, id)| Some((bytes(token)?, *id))).collect());
        }
        Ok(this)
    }

    /// Whether there are bytes that nothing stands for.
    pub fn lacks_letters(&self) -> bool {
        self.unknown.is_none() && self.atoms.contains(&NONE)
    }

    fn add_merges(
        &mut self,
        merges: &[Value],
        ids: &HashMap<&str, u32>,
        byte_of: &HashMap<char, u8>,
    ) -> Result<(), String> {
        let mut operands = Vec::with_capacity(merges.len());
        let lines = merges
            .iter()
            .filter(|merge| merge.as_str().is_none_or(|line| !line.starts_with("#version")));
        for merge in lines {
            let parts = merge.as_str().and_then(|line| line.split_once(' '));
            let (left, right) = parts
                .or_else(|| Some((merge[0].as_str()?, merge[1].as_str()?)))
                .ok_or_else(|| format!("its merge {merge} is not two tokens"))?;
            let byte = |char: Option<char>| byte_of.get(&char?).copied();
            if let (Some(last), Some(first)) =
                (byte(left.chars().next_back()), byte(right.chars().next()))
            {
                let (at, bit) = join(last, first);
                self.joins[at] |= bit;
            }
            let id = |token: &str| {
                ids.get(token).copied().ok_or_else(|| format!("its merge {merge} makes no token"))
            };
            let (left, right, product) = (id(left)?, id(right)?, id(&format!("{left}{right}"))?);
            let rank = self.products.len() as u32;
            self.products.push(product);
            self.put(left, right, rank);
            operands.push((left, right));
        }
        let step = |(rank, &product): (usize, &u32)| product.checked_sub(rank as u32);
        let mut steps = self.products.iter().enumerate().map(step);
        self.step = steps.next().flatten().filter(|&first| steps.all(|step| step == Some(first)));
        // Of merges written twice the last counts, as `tokenizers` has it.
        let mut made_by = vec![None; self.lengths.len()];
        let valid =
            |rank: usize, this: &Self| this.rank(operands[rank].0, operands[rank].1) == rank as u32;
        for rank in (0..operands.len()).filter(|&rank| valid(rank, self)) {
            made_by[self.products[rank] as usize] = Some(rank);
        }
        let later = |rank: usize, id: u32| made_by[id as usize].is_none_or(|made| made < rank);
        self.orderly = (0..operands.len())
            .filter(|&rank| valid(rank, self))
            .all(|rank| later(rank, operands[rank].0) && later(rank, operands[rank].1));
        let pair = |at: usize| (self.atoms[at >> 8], self.atoms[at & 0xff]);
        let rank = |(left, right)| {
            if left == NONE || right == NONE { NONE } else { self.rank(left, right) }
        };
        self.byte_ranks = (0..1 << 16).map(|at| rank(pair(at))).collect();
        Ok(())
    }

    fn put(&mut self, left: u32, right: u32, rank: u32) {
        let pair = pair(left, right);
        let mut at = self.place(pair);
        while self.pairs[at] != EMPTY && self.pairs[at] >> RANK_BITS != pair {
            at = (at + 1) & (self.pairs.len() - 1);
        }
        self.pairs[at] = pair << RANK_BITS | u64::from(rank);
    }

    #[inline]
    fn place(&self, pair: u64) -> usize {
        (pair.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    #[inline]
    fn entry(&self, at: usize) -> u64 {
        self.pairs[at & (self.pairs.len() - 1)]
    }

    /// The rank of the merge of two ids.
    #[inline]
    fn rank(&self, left: u32, right: u32) -> u32 {
        let pair = pair(left, right);
        self.find(pair, self.entry(self.place(pair)))
    }

    /// The rank of a pair; `entry` is the one at its place.
    #[inline]
    fn find(&self, pair: u64, mut entry: u64) -> u32 {
        let mut at = self.place(pair);
        while entry != EMPTY {
            if entry >> RANK_BITS == pair {
                return entry as u32 & ((1 << RANK_BITS) - 1);
            }
            at += 1;
            entry = self.entry(at);
        }
        NONE
    }

    /// What a merge makes. Most files number it as they list the merges: then nothing has to be
    /// looked up.
    #[inline]
    fn product(&self, rank: u32) -> u32 {
        self.step.map_or_else(|| self.products[rank as usize], |step| rank + step)
    }

    /// Bytes of a token.
    pub fn length(&self, id: u32) -> usize {
        self.lengths.get(id as usize).map_or(0, |&length| length as usize)
    }

    /// The character that the vocabulary writes for a byte.
    pub fn character(&self, byte: u8) -> char {
        self.characters[byte as usize]
    }

    /// Adds the ids of `word`.
    pub fn encode(&self, word: &[u8], out: &mut Vec<u32>) {
        if let Some(id) = self.whole.as_ref().and_then(|whole| whole.get(word)) {
            out.push(*id);
        } else if word.iter().any(|&byte| self.atoms[byte as usize] == NONE) {
            self.encode_long(word, out);
        } else if word.len() <= SHORT {
            self.encode_short(word, out);
        } else {
            // A token over two bytes was made by a merge that joined them: where none does, what
            // lies before has nothing to do with what lies after.
            let apart = |&at: &usize| {
                let (place, bit) = join(word[at - 1], word[at]);
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

    /// Adds the ids of up to `SHORT` bytes that all have one.
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

    /// Merges `len` symbols; gives how many are left. `ranks[i]` is that of symbols i and i + 1.
    #[inline]
    fn reduce(&self, ids: &mut [u32; SHORT], ranks: &mut [u32; SHORT], mut len: usize) -> usize {
        loop {
            let (mut least, mut at) = (NONE, 0);
            for (nth, &rank) in ranks[..len.saturating_sub(1)].iter().enumerate() {
                if rank < least {
                    (least, at) = (rank, nth);
                }
            }
            if least == NONE {
                return len;
            }
            len -= 1;
            ids[at] = self.product(least);
            for nth in at + 1..len {
                ids[nth] = ids[nth + 1];
                ranks[nth - 1] = ranks[nth];
            }
            ranks[len - 1] = NONE;
            // The table is larger than a near cache: both entries are asked for before either is
            // looked at.
            let after = if at + 1 < len { pair(ids[at], ids[at + 1]) } else { NO_PAIR };
            let before = if at > 0 { pair(ids[at - 1], ids[at]) } else { NO_PAIR };
            let entries = (self.entry(self.place(after)), self.entry(self.place(before)));
            ranks[at] = self.find(after, entries.0);
            if at > 0 {
                ranks[at - 1] = self.find(before, entries.1);
            }
        }
    }

    fn encode_long(&self, word: &[u8], out: &mut Vec<u32>) {
        let mut symbols: Vec<Symbol> = Vec::with_capacity(word.len());
        let mut was_unknown = false;
        for &byte in word {
            let atom = self.atoms[byte as usize];
            let id = match self.unknown {
                _ if atom != NONE => Some(atom),
                Some((_, true)) if was_unknown => None,
                unknown => unknown.map(|(id, _)| id),
            };
            was_unknown = atom == NONE;
            let at = symbols.len() as u32;
            symbols.extend(id.map(|id| Symbol {
                id,
                rank: NONE,
                previous: at.wrapping_sub(1),
                next: at + 1,
            }));
        }
        if self.orderly && symbols.len() > MANY {
            self.drain(&mut symbols, &mut ByRank::new(self.products.len()));
        } else {
            self.drain(&mut symbols, &mut BinaryHeap::<Reverse<u64>>::new());
        }
        out.extend(symbols.iter().map(|symbol| symbol.id).filter(|&id| id != NONE));
    }

    /// Merges by a queue; a symbol that went into another is left as `NONE`.
    fn drain(&self, symbols: &mut [Symbol], queue: &mut impl Queue) {
        let len = symbols.len() as u32;
        let key = |rank: u32, at: u32| u64::from(rank) << 32 | u64::from(at);
        for at in 1..symbols.len() {
            let rank = self.rank(symbols[at - 1].id, symbols[at].id);
            symbols[at - 1].rank = rank;
            if rank != NONE {
                queue.push(key(rank, at as u32 - 1));
            }
        }
        while let Some(top) = queue.pop() {
            let (rank, at) = ((top >> 32) as u32, top as u32);
            let Symbol { rank: current, previous: before, next: gone, .. } = symbols[at as usize];
            // A pair that changed since has another rank.
            if current != rank {
                continue;
            }
            let product = self.product(rank);
            let after = symbols[gone as usize].next;
            (symbols[gone as usize].id, symbols[gone as usize].rank) = (NONE, NONE);
            let mut rank = NONE;
            if after < len {
                symbols[after as usize].previous = at;
                rank = self.rank(product, symbols[after as usize].id);
                if rank != NONE {
                    queue.push(key(rank, at));
                }
            }
            symbols[at as usize] = Symbol { id: product, rank, previous: before, next: after };
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

/// The character that byte-level models write for each byte: printable ones for themselves, the
/// rest from U+0100 on.
fn byte_characters() -> [char; 256] {
    let mut beyond = (0x100..).filter_map(char::from_u32);
    std::array::from_fn(|byte| match byte as u8 {
        byte @ (b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) => char::from(byte),
        _ => beyond.next().expect("there are more code points than bytes"),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn a_word_in_parts_is_the_word_whole(
            pairs in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..30),
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
