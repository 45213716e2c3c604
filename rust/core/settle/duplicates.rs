//! Duplicates: what is dropped because another record says the same.
//!
//! The content keys of all parts are merged in order of content, so that the records of one content
//! come together, the lowest first. Contents are hashes: each thread merges an equal share of all
//! that there can be. Held in memory: a block of keys of each part, a bit for each record, and the
//! spellings kept of one content.
//!
//! A training record whose content a held-out one has is dropped, whatever its source says. Of the
//! rest, on either split, a record is dropped if its source drops duplicates and a lower record
//! that is kept has the same text, or the same content. So what is dropped is always still there
//! once. Copies are made later: a record that stands for others may be left out by `epochs`.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::corpus::{Corpus, Outcome, PartOf};
use crate::context::Context;
use crate::error::Result;
use crate::schema::{DropReason, Duplicates, RecordId, Split};
use crate::spool::{Key, Keys, Tally};
use crate::storage::Storage;
use crate::tasks;

/// Content keys of a part held at once, by all merges together.
const KEYS_AT_ONCE: u64 = 512;
/// Content keys of a part that one merge holds at least.
const KEYS_OF_A_MERGE: u64 = 64;

/// Decides which records are dropped for their content. Returns, by part, a bit for the first
/// document of each record.
pub(super) fn drop_by_content(
    corpus: &Corpus<'_>,
    tallies: &mut [Tally],
    context: &Context<'_>,
) -> Result<Vec<Vec<u64>>> {
    let threads = context.threads;
    let bits = |part: &PartOf<'_>| {
        (0..part.part.layout.documents.div_ceil(64)).map(|_| AtomicU64::new(0)).collect()
    };
    let dropped: Vec<Vec<AtomicU64>> = corpus.parts.iter().map(bits).collect();
    let drop = |nth| drop_share(corpus, (nth, threads), &dropped, context.storage);
    for found in tasks::run(threads, threads, drop)? {
        tallies.iter_mut().zip(&found).for_each(|(tally, more)| tally.add(more));
    }
    Ok(dropped
        .into_iter()
        .map(|part| part.into_iter().map(AtomicU64::into_inner).collect())
        .collect())
}

/// Returns the contents of share `nth` of `shares`.
fn share(nth: usize, shares: usize) -> RangeInclusive<u128> {
    let size = u128::MAX / shares as u128;
    size * nth as u128..=if nth + 1 == shares { u128::MAX } else { size * (nth as u128 + 1) - 1 }
}

/// Sets the bits of the records of a share that are dropped. Returns their counts by source.
fn drop_share(
    corpus: &Corpus<'_>,
    (nth, shares): (usize, usize),
    dropped: &[Vec<AtomicU64>],
    storage: &dyn Storage,
) -> Result<Vec<Tally>> {
    let mut tallies = vec![Tally::default(); corpus.plan.sources.len()];
    let by_text = corpus.plan.sources.iter().any(|source| source.duplicates == Duplicates::Exact);
    let (contents, at_once) =
        (share(nth, shares), (KEYS_AT_ONCE / shares as u64).max(KEYS_OF_A_MERGE));
    // The first merge goes ahead to the end of each content, to see whether it is held out; the
    // second follows.
    let mut ahead = corpus
        .plan
        .holds_out()
        .then(|| Merge::new(storage, &corpus.parts, &contents, at_once))
        .transpose()?;
    let mut merge = Merge::new(storage, &corpus.parts, &contents, at_once)?;
    while let Some(content) = merge.content() {
        let mut held_out = false;
        while let Some((at, key)) =
            ahead.as_mut().map_or(Ok(None), |ahead| ahead.advance_within(content))?
        {
            held_out |= corpus.split_of(at, &key) == Some(Split::Validation);
        }
        let mut group = Group { held_out, by_text, ..Group::default() };
        while let Some((at, key)) = merge.advance_within(content)? {
            let Some(split) = corpus.split_of(at, &key) else { continue };
            let policy = corpus.source(&corpus.parts[at]).duplicates;
            if let Some((reason, earlier)) =
                group.judge(policy, split, key.exact, (at, key.record_id))
            {
                dropped[at][key.meta as usize / 64].fetch_or(1 << (key.meta % 64), Relaxed);
                let why = || match earlier {
                    None => "a held-out record has the same content".to_owned(),
                    Some((at, record_id)) => {
                        let name = &corpus.plan.inputs[corpus.parts[at].input].name;
                        let offset = RecordId::unpack(record_id).offset;
                        format!("the record at byte {offset} of {name} says the same")
                    }
                };
                tallies[corpus.parts[at].source].drop_record(reason, key.record_id, why);
            }
        }
    }
    Ok(tallies)
}

impl Corpus<'_> {
    /// Returns the split of the record of `key` in part `at`; `None` if it is in neither.
    fn split_of(&self, at: usize, key: &Key) -> Option<Split> {
        match self.outcome(&self.parts[at], key.record_id, key.longest) {
            Outcome::Kept(split) => Some(split),
            Outcome::Superseded | Outcome::Dropped(..) => None,
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
    /// Why the next record, in order of source and record, is dropped, and for which; if it is not,
    /// it is kept from now on.
    fn judge(
        &mut self,
        policy: Duplicates,
        split: Split,
        text: u64,
        record: Kept,
    ) -> Option<(DropReason, Option<Kept>)> {
        if self.held_out && split == Split::Train {
            return Some((DropReason::InValidation, None));
        }
        let earlier = match policy {
            Duplicates::Keep => None,
            Duplicates::Exact => self.texts.get(&text).copied(),
            Duplicates::Normalised => self.first,
        };
        if earlier.is_some() {
            return Some((DropReason::Duplicate, earlier));
        }
        self.first.get_or_insert(record);
        if self.by_text {
            self.texts.entry(text).or_insert(record);
        }
        None
    }
}

/// Content keys of all parts, in order of key, source and record.
struct Merge<'a> {
    cursors: Vec<Keys<'a>>,
    /// The next key of each part; the order of a part's source comes before that of its records.
    next: BinaryHeap<Reverse<(u128, usize, u64, usize)>>,
    keys: Vec<Key>,
    sources: Vec<usize>,
}

impl<'a> Merge<'a> {
    fn new(
        storage: &'a dyn Storage,
        parts: &[PartOf<'a>],
        contents: &RangeInclusive<u128>,
        at_once: u64,
    ) -> Result<Self> {
        let mut merge = Self {
            cursors: parts
                .iter()
                .map(|part| part.part.keys(storage, contents, at_once))
                .collect::<Result<_>>()?,
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

    /// A record of a group: its split, its source's policy, its text.
    type Member = (Split, Duplicates, u64);

    /// Each record against all before it, as the contract says it.
    fn judge_slowly(members: &[Member]) -> Vec<Option<DropReason>> {
        let held_out = members.iter().any(|(split, ..)| *split == Split::Validation);
        let mut reasons: Vec<Option<DropReason>> = Vec::new();
        for (nth, (split, policy, text)) in members.iter().enumerate() {
            let mut kept =
                members[..nth].iter().zip(&reasons).filter(|(_, reason)| reason.is_none());
            let repeats = match policy {
                Duplicates::Keep => false,
                Duplicates::Exact => kept.any(|((_, _, other), _)| other == text),
                Duplicates::Normalised => kept.next().is_some(),
            };
            reasons.push(match (held_out && *split == Split::Train, repeats) {
                (true, _) => Some(DropReason::InValidation),
                (false, true) => Some(DropReason::Duplicate),
                (false, false) => None,
            });
        }
        reasons
    }

    #[test]
    fn every_content_is_in_one_share() {
        for shares in [1, 2, 3, 7, 64] {
            assert_eq!(
                (*share(0, shares).start(), *share(shares - 1, shares).end()),
                (0, u128::MAX)
            );
            for nth in 1..shares {
                assert_eq!(*share(nth, shares).start(), share(nth - 1, shares).end() + 1);
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_dropped_is_kept_once_under_the_lowest_record(
            members in prop::collection::vec((any::<bool>(), 0usize..3, 0u64..4), 1..12), mixed: bool,
        ) {
            let policies = [Duplicates::Keep, Duplicates::Exact, Duplicates::Normalised];
            let split = |held_out| if held_out && mixed { Split::Validation } else { Split::Train };
            let members: Vec<Member> =
                members.into_iter().map(|(held_out, policy, text)| (split(held_out), policies[policy], text)).collect();
            let held_out = members.iter().any(|(split, ..)| *split == Split::Validation);
            let mut group = Group { held_out, by_text: true, ..Group::default() };
            let found: Vec<_> = members.iter().enumerate()
                .map(|(nth, &(split, policy, text))| group.judge(policy, split, text, (0, nth as u64)))
                .collect();
            for (nth, verdict) in found.iter().enumerate() {
                if let Some((DropReason::Duplicate, earlier)) = verdict {
                    let (_, earlier) = earlier.unwrap();
                    prop_assert!((earlier as usize) < nth && found[earlier as usize].is_none());
                }
            }
            let reasons: Vec<_> = found.into_iter().map(|verdict| verdict.map(|(reason, _)| reason)).collect();
            prop_assert_eq!(reasons, judge_slowly(&members));
        }
    }
}
