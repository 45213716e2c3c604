//! Reads the BPE model of a tokenizer.json into [`Merges`].
//!
//! Refuses a model that the fast encoder cannot hold or that `tokenizers` might read differently.

use std::collections::HashMap;

use serde_json::Value;

use super::merges::{EMPTY, ID_BITS, Merges, NONE, RANK_BITS, join, pair};

impl Merges {
    /// Builds the model of a tokenizer.json; the error says why the fast encoder does not take it.
    pub(crate) fn of(model: &Value) -> Result<Self, String> {
        let vocab = model["vocab"].as_object().ok_or("its model has no vocabulary")?;
        let characters = byte_characters();
        let byte_of: HashMap<char, u8> = characters.iter().copied().zip(0..=u8::MAX).collect();
        let (ids, lengths) = ids_and_lengths(vocab)?;
        // By byte: the lookup in the hot loops is one load.
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
        // At most half full, so that probes stay short.
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
            this.whole = Some(whole_words(&ids, &byte_of));
        }
        Ok(this)
    }

    /// Reads the merges, in order of their ranks, and computes the tables that depend on them.
    fn add_merges(
        &mut self,
        merges: &[Value],
        ids: &HashMap<&str, u32>,
        byte_of: &HashMap<char, u8>,
    ) -> Result<(), String> {
        let mut operands = Vec::with_capacity(merges.len());
        // Older files begin the list with a line about its version, which has no rank.
        let lines = merges
            .iter()
            .filter(|merge| merge.as_str().is_none_or(|line| !line.starts_with("#version")));
        for merge in lines {
            let (left, right) = operands_of(merge)?;
            let byte = |char: Option<char>| byte_of.get(&char?).copied();
            if let (Some(last), Some(first)) =
                (byte(left.chars().next_back()), byte(right.chars().next()))
            {
                let (index, bit) = join(last, first);
                self.joins[index] |= bit;
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
        self.orderly = self.is_orderly(&operands);
        let pair = |index: usize| (self.atoms[index >> 8], self.atoms[index & 0xff]);
        let rank = |(left, right)| {
            if left == NONE || right == NONE { NONE } else { self.rank(left, right) }
        };
        self.byte_ranks = (0..1 << 16).map(|index| rank(pair(index))).collect();
        Ok(())
    }

    /// Returns whether each merge comes after the merges that make its parts. `operands` has the
    /// parts by rank.
    fn is_orderly(&self, operands: &[(u32, u32)]) -> bool {
        // Of a merge listed twice the last entry counts, as in `tokenizers`.
        let is_valid = |&rank: &usize| self.rank(operands[rank].0, operands[rank].1) == rank as u32;
        let mut made_by = vec![None; self.lengths.len()];
        for rank in (0..operands.len()).filter(is_valid) {
            made_by[self.products[rank] as usize] = Some(rank);
        }
        let is_later = |rank: usize, id: u32| made_by[id as usize].is_none_or(|made| made < rank);
        (0..operands.len())
            .filter(is_valid)
            .all(|rank| is_later(rank, operands[rank].0) && is_later(rank, operands[rank].1))
    }

    /// Adds a pair with its rank to the table, or replaces the rank that it has.
    fn put(&mut self, left: u32, right: u32, rank: u32) {
        let pair = pair(left, right);
        let mut index = self.place(pair);
        while self.pairs[index] != EMPTY && self.pairs[index] >> RANK_BITS != pair {
            index = (index + 1) & (self.pairs.len() - 1);
        }
        self.pairs[index] = pair << RANK_BITS | u64::from(rank);
    }
}

/// Returns the character that byte-level models write for each byte: printable bytes as themselves,
/// the others from U+0100 on.
fn byte_characters() -> [char; 256] {
    let mut beyond = (0x100..).filter_map(char::from_u32);
    std::array::from_fn(|byte| match byte as u8 {
        byte @ (b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) => char::from(byte),
        _ => beyond.next().expect("there are more code points than bytes"),
    })
}

/// Returns the id of each token of a vocabulary, and by id the number of bytes of its token.
fn ids_and_lengths(
    vocab: &serde_json::Map<String, Value>,
) -> Result<(HashMap<&str, u32>, Vec<u32>), String> {
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
        // The vocabulary writes one character for each byte.
        lengths[id] = token.chars().count() as u32;
        ids.insert(token, id as u32);
    }
    Ok((ids, lengths))
}

/// Returns the two tokens of a merge, written as one string or as a list of two.
fn operands_of(merge: &Value) -> Result<(&str, &str), String> {
    let parts = merge.as_str().and_then(|line| line.split_once(' '));
    parts
        .or_else(|| Some((merge[0].as_str()?, merge[1].as_str()?)))
        .ok_or_else(|| format!("its merge {merge} is not two tokens"))
}

/// Returns the ids of the words that are tokens as a whole.
fn whole_words(ids: &HashMap<&str, u32>, byte_of: &HashMap<char, u8>) -> HashMap<Box<[u8]>, u32> {
    let bytes = |token: &str| {
        token.chars().map(|char| byte_of.get(&char).copied()).collect::<Option<Box<[u8]>>>()
    };
    ids.iter().filter_map(|(token, id)| Some((bytes(token)?, *id))).collect()
}
