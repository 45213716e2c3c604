//! Duplicates: what is dropped because another record says the same.
//!
//! The content keys of all parts are merged in order of content, so that the records of one content come together, the
//! lowest first. Held in memory: a block of keys of each part, a bit for each record, and the spellings kept of one content.
//!
//! A training record whose content a held-out one has is dropped, whatever its source says. Of the rest, on either
//! side, a record is dropped if its source drops duplicates and a lower record that is kept has the same text, or the
//! same content. So what is dropped is always still there once. Copies are made later: a record that stands for others
//! may be left out by `epochs`.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::corpus::{Corpus, Fate, PartOf};
use crate::error::Result;
use crate::schema::{Drop, Duplicates, OFFSET_BITS, Side};
use crate::spool::{Key, Keys, Tally};

/// Which documents are dropped for their content: a bit for each, by part.
pub fn drop_by_content(corpus: &Corpus<'_>, tallies: &mut [Tally]) -> Result<Vec<Vec<u64>>> {
    let room = |part: &PartOf<'_>| vec![0_u64; (part.part.layout.keys as usize).div_ceil(64)];
    let mut dropped: Vec<Vec<u64>> = corpus.parts.iter().map(room).collect();
    let by_text = corpus.plan.sources.iter().any(|source| source.duplicates == Duplicates::Exact);
    // The first merge goes ahead to the end of each content, to see whether it is held out; the second follows.
    let mut ahead = corpus.plan.holds_out().then(|| Merge::new(&corpus.parts)).transpose()?;
    let mut merge = Merge::new(&corpus.parts)?;
    while let Some(content) = merge.content() {
        let mut held_out = false;
        while let Some((at, key)) = ahead.as_mut().map_or(Ok(None), |ahead| ahead.advance_within(content))? {
            held_out |= corpus.side_of(at, &key) == Some(Side::Validation);
        }
        let mut group = Group { held_out, by_text, ..Group::default() };
        while let Some((at, key)) = merge.advance_within(content)? {
            let Some(side) = corpus.side_of(at, &key) else { continue };
            let policy = corpus.source(&corpus.parts[at]).duplicates;
            if let Some((reason, earlier)) = group.judge(policy, side, key.exact, (at, key.record_id)) {
                dropped[at][key.head as usize / 64] |= 1 << (key.head % 64);
                let why = || match earlier {
                    None => "a held-out record has the same content".to_owned(),
                    Some((at, record_id)) => {
                        let name = &corpus.plan.inputs[corpus.parts[at].input].name;
                        format!("the record at byte {} of {name} says the same", record_id & ((1 << OFFSET_BITS) - 1))
                    }
                };
                tallies[corpus.parts[at].source].drop_record(reason, key.record_id, why);
            }
        }
    }
    Ok(dropped)
}

impl Corpus<'_> {
    /// The side of the document of `key` in part `at`, if it is on any.
    fn side_of(&self, at: usize, key: &Key) -> Option<Side> {
        match self.fate(&self.parts[at], key.record_id, key.tokens) {
            Fate::Kept(side) => Some(side),
            Fate::Superseded | Fate::Dropped(..) => None,
        }
    }
}

/// A record that was kept: its part and its id.
type Kept = (usize, u64);

/// What was kept of one content so far.
#[derive(Debug, Default)]
struct Group {
    /// Whether a held-out record has it.
    held_out: bool,
    /// Whether some source looks at texts.
    by_text: bool,
    first: Option<Kept>,
    /// The first of each text.
    texts: HashMap<u64, Kept>,
}

impl Group {
    /// Why the next record, in order of source and record, is dropped, and for which; if it is not, it is kept from now
    /// on.
    fn judge(&mut self, policy: Duplicates, side: Side, text: u64, record: Kept) -> Option<(Drop, Option<Kept>)> {
        if self.held_out && side == Side::Train {
            return Some((Drop::InValidation, None));
        }
        let earlier = match policy {
            Duplicates::Keep => None,
            Duplicates::Exact => self.texts.get(&text).copied(),
            Duplicates::Normalised => self.first,
        };
        if earlier.is_some() {
            return Some((Drop::Duplicate, earlier));
        }
        self.first.get_or_insert(record);
        if self.by_text {
            self.texts.entry(text).or_insert(record);
        }
        None
    }
}

/// The content keys of all parts, in order of key, source and record.
struct Merge<'a> {
    cursors: Vec<Keys<'a>>,
    /// The next key of each part; the order of a part's source comes before that of its records.
    next: BinaryHeap<Reverse<(u128, usize, u64, usize)>>,
    keys: Vec<Key>,
    sources: Vec<usize>,
}

impl<'a> Merge<'a> {
    fn new(parts: &[PartOf<'a>]) -> Result<Self> {
        let mut merge = Self {
            cursors: parts.iter().map(|part| part.part.keys()).collect(),
            next: BinaryHeap::new(),
            keys: vec![Key::default(); parts.len()],
            sources: parts.iter().map(|part| part.source).collect(),
        };
        (0..parts.len()).try_for_each(|part| merge.refill(part))?;
        Ok(merge)
    }

    fn refill(&mut self, part: usize) -> Result<()> {
        if let Some(key) = self.cursors[part].advance()? {
            self.keys[part] = key;
            self.next.push(Reverse((key.content, self.sources[part], key.record_id, part)));
        }
        Ok(())
    }

    /// The content of the next key.
    fn content(&self) -> Option<u128> {
        self.next.peek().map(|Reverse((content, ..))| *content)
    }

    /// The index of the next key's part and the key, if it is of this content.
    fn advance_within(&mut self, content: u128) -> Result<Option<(usize, Key)>> {
        if self.content() != Some(content) {
            return Ok(None);
        }
        let Some(Reverse((.., part))) = self.next.pop() else { return Ok(None) };
        let key = self.keys[part];
        self.refill(part)?;
        Ok(Some((part, key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A record of a group: its side, its source's policy, its text.
    type Member = (Side, Duplicates, u64);

    /// Each record against all before it, as the contract says it.
    fn judge_slowly(members: &[Member]) -> Vec<Option<Drop>> {
        let held_out = members.iter().any(|(side, ..)| *side == Side::Validation);
        let mut reasons: Vec<Option<Drop>> = Vec::new();
        for (nth, (side, policy, text)) in members.iter().enumerate() {
            let mut kept = members[..nth].iter().zip(&reasons).filter(|(_, reason)| reason.is_none());
            let repeats = match policy {
                Duplicates::Keep => false,
                Duplicates::Exact => kept.any(|((_, _, other), _)| other == text),
                Duplicates::Normalised => kept.next().is_some(),
            };
            reasons.push(match (held_out && *side == Side::Train, repeats) {
                (true, _) => Some(Drop::InValidation),
                (false, true) => Some(Drop::Duplicate),
                (false, false) => None,
            });
        }
        reasons
    }

    proptest! {
        #[test]
        fn what_is_dropped_is_kept_once_under_the_lowest_record(
            members in prop::collection::vec((any::<bool>(), 0usize..3, 0u64..4), 1..12), mixed: bool,
        ) {
            let policies = [Duplicates::Keep, Duplicates::Exact, Duplicates::Normalised];
            let side = |held_out| if held_out && mixed { Side::Validation } else { Side::Train };
            let members: Vec<Member> =
                members.into_iter().map(|(held_out, policy, text)| (side(held_out), policies[policy], text)).collect();
            let held_out = members.iter().any(|(side, ..)| *side == Side::Validation);
            let mut group = Group { held_out, by_text: true, ..Group::default() };
            let found: Vec<_> = members.iter().enumerate()
                .map(|(nth, &(side, policy, text))| group.judge(policy, side, text, (0, nth as u64)))
                .collect();
            for (nth, verdict) in found.iter().enumerate() {
                if let Some((Drop::Duplicate, earlier)) = verdict {
                    let (_, earlier) = earlier.unwrap();
                    prop_assert!((earlier as usize) < nth && found[earlier as usize].is_none());
                }
            }
            let reasons: Vec<_> = found.into_iter().map(|verdict| verdict.map(|(reason, _)| reason)).collect();
            prop_assert_eq!(reasons, judge_slowly(&members));
        }
    }
}
