//! Duplicates: drops records whose content another record has.
//!
//! The content keys of all parts are merged in order of content, so that the records of one content
//! come together, the lowest first. Contents are hashes: each thread merges an equal share of all
//! possible hashes. Held in memory: a block of keys of each part, a bit for each record, and the
//! spellings kept of one content.
//!
//! A training record whose content a held-out record has is dropped, whatever its source says. Of
//! the rest, in either split, a record is dropped if its source drops duplicates and a lower kept
//! record has the same text, or the same content. So every dropped content is kept once. Copies
//! are made later: `epochs` may leave out the record that was kept.
//!
//! A task that is made from a text has the content of this text, so that neither is trained where
//! the other is held out. Of one text, each kind of task is kept, and plain text beside them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::corpus::{Corpus, Outcome, PartOf};
use super::merge::Merge;
use crate::context::Context;
use crate::error::Result;
use crate::plan::Source;
use crate::schema::{DropReason, Duplicates, RecordId, Split};
use crate::spool::{Key, Tally};
use crate::storage::Storage;
use crate::tasks;

/// Decides which records are dropped for their content. Returns, by part, a bit for the first
/// document of each record.
pub(super) fn drop_by_content(
    corpus: &Corpus<'_>,
    tallies: &mut [Tally],
    context: &Context<'_>,
) -> Result<Vec<Vec<u64>>> {
    let threads = context.threads;
    // Atomic: threads set bits of one word, since contents are in another order than records.
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

/// Sets the bits of the records of a share that are dropped. Returns their counts by source.
fn drop_share(
    corpus: &Corpus<'_>,
    share: (usize, usize),
    dropped: &[Vec<AtomicU64>],
    storage: &dyn Storage,
) -> Result<Vec<Tally>> {
    let mut tallies = vec![Tally::default(); corpus.plan.sources.len()];
    let by_text = corpus.plan.sources.iter().any(|source| source.duplicates == Duplicates::Exact);
    let kinds = kinds(&corpus.plan.sources);
    // The first merge goes ahead to the end of each content, to see whether it is held out; the
    // second follows.
    let mut ahead = corpus
        .plan
        .holds_out()
        .then(|| Merge::<Key>::new(storage, &corpus.parts, share))
        .transpose()?;
    let mut merge = Merge::<Key>::new(storage, &corpus.parts, share)?;
    while let Some(content) = merge.hash() {
        let mut held_out = false;
        while let Some((index, key)) =
            ahead.as_mut().map_or(Ok(None), |ahead| ahead.advance_within(content))?
        {
            held_out |= corpus.split_of(index, &key) == Some(Split::Validation);
        }
        let mut group = Group { held_out, by_text, ..Group::default() };
        while let Some((index, key)) = merge.advance_within(content)? {
            // A record that is dropped anyway stands for no other.
            let Some(split) = corpus.split_of(index, &key) else { continue };
            let policy = corpus.source(&corpus.parts[index]).duplicates;
            let told = (kinds[corpus.parts[index].source], key.exact);
            let judged = group.judge(policy, split, told, (index, key.record_id));
            if let Some((reason, earlier)) = judged {
                dropped[index][key.meta as usize / 64].fetch_or(1 << (key.meta % 64), Relaxed);
                let source = corpus.parts[index].source;
                let why = || corpus.duplicate_of(earlier);
                corpus.listing.add(source, reason, key.record_id, why);
                tallies[source].drop_record(reason, key.record_id, why);
            }
        }
    }
    Ok(tallies)
}

/// Returns the kind of each source: 0 for one whose texts are as they are, and one number for all
/// sources that make the same task by the same templates.
pub(super) fn kinds(sources: &[Source]) -> Vec<usize> {
    let same = |source: &Source| {
        let is_same =
            |other: &Source| other.augment == source.augment && other.segments == source.segments;
        sources.iter().position(is_same).map_or(0, |first| first + 1)
    };
    sources.iter().map(|source| if source.augment.is_none() { 0 } else { same(source) }).collect()
}

impl Corpus<'_> {
    /// Returns the split of the record of `key` in part `index`; `None` if it is in neither split.
    fn split_of(&self, index: usize, key: &Key) -> Option<Split> {
        match self.outcome(&self.parts[index], key.record_id, key.longest) {
            Outcome::Kept(split) => Some(split),
            Outcome::Superseded | Outcome::Dropped(..) => None,
        }
    }

    /// Names for the report the record that a dropped record repeats.
    fn duplicate_of(&self, earlier: Option<Kept>) -> String {
        let Some((index, record_id)) = earlier else {
            return "a held-out record has the same content".to_owned();
        };
        let name = &self.plan.inputs[self.parts[index].input].name;
        let offset = RecordId::unpack(record_id).offset;
        format!("the record at byte {offset} of {name} says the same")
    }
}

/// A record that was kept: the index of its part, and its id.
type Kept = (usize, u64);

/// The records kept of one content so far.
#[derive(Debug, Default)]
struct Group {
    /// Whether a held-out record has this content.
    held_out: bool,
    /// Whether some source compares texts.
    by_text: bool,
    /// The first record that was kept of texts as they are.
    first: Option<Kept>,
    /// The first record that was kept of each other kind.
    first_made: Vec<(usize, Kept)>,
    /// The first record of each text, by its kind and the hash of the text.
    texts: HashMap<(usize, u64), Kept>,
}

impl Group {
    /// Judges the next record, in order of source and record, told by its kind and the hash of its
    /// text. Returns why it is dropped, and the earlier record that it repeats; `None` if it is
    /// kept.
    fn judge(
        &mut self,
        policy: Duplicates,
        split: Split,
        told: (usize, u64),
        record: Kept,
    ) -> Option<(DropReason, Option<Kept>)> {
        if self.held_out && split == Split::Train {
            return Some((DropReason::InValidation, None));
        }
        let earlier = match policy {
            Duplicates::Keep => None,
            Duplicates::Exact => self.texts.get(&told).copied(),
            // Equal contents are as near as can be.
            Duplicates::Normalised | Duplicates::Near => self.first_of(told.0),
        };
        if earlier.is_some() {
            return Some((DropReason::Duplicate, earlier));
        }
        if self.first_of(told.0).is_none() {
            match told.0 {
                0 => self.first = Some(record),
                kind => self.first_made.push((kind, record)),
            }
        }
        if self.by_text {
            self.texts.entry(told).or_insert(record);
        }
        None
    }

    /// Returns the first record that was kept of a kind.
    fn first_of(&self, kind: usize) -> Option<Kept> {
        if kind == 0 {
            return self.first;
        }
        self.first_made.iter().find(|(of, _)| *of == kind).map(|(_, first)| *first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A record of a group: its split, the policy of its source, its kind and the hash of its text.
    type Member = (Split, Duplicates, (usize, u64));

    /// Compares each record with all records before it, as the contract says.
    fn judge_slowly(members: &[Member]) -> Vec<Option<DropReason>> {
        let held_out = members.iter().any(|(split, ..)| *split == Split::Validation);
        let mut reasons: Vec<Option<DropReason>> = Vec::new();
        for (nth, (split, policy, text)) in members.iter().enumerate() {
            let mut kept =
                members[..nth].iter().zip(&reasons).filter(|(_, reason)| reason.is_none());
            let repeats = match policy {
                Duplicates::Keep => false,
                Duplicates::Exact => kept.any(|((_, _, other), _)| other == text),
                Duplicates::Normalised | Duplicates::Near => {
                    kept.any(|((_, _, other), _)| other.0 == text.0)
                }
            };
            reasons.push(match (held_out && *split == Split::Train, repeats) {
                (true, _) => Some(DropReason::InValidation),
                (false, true) => Some(DropReason::Duplicate),
                (false, false) => None,
            });
        }
        reasons
    }

    proptest! {
        #[test]
        fn what_is_dropped_is_kept_once_under_the_lowest_record(
            members in prop::collection::vec(
                (any::<bool>(), 0usize..3, (0usize..3, 0u64..4)),
                1..12,
            ),
            mixed: bool,
        ) {
            let policies = [Duplicates::Keep, Duplicates::Exact, Duplicates::Normalised];
            let split = |held_out| if held_out && mixed { Split::Validation } else { Split::Train };
            let members: Vec<Member> = members
                .into_iter()
                .map(|(held_out, policy, text)| (split(held_out), policies[policy], text))
                .collect();
            let held_out = members.iter().any(|(split, ..)| *split == Split::Validation);
            let mut group = Group { held_out, by_text: true, ..Group::default() };
            let judge = |(nth, &(split, policy, told)): (usize, &Member)| {
                group.judge(policy, split, told, (0, nth as u64))
            };
            let found: Vec<_> = members.iter().enumerate().map(judge).collect();
            for (nth, verdict) in found.iter().enumerate() {
                if let Some((DropReason::Duplicate, earlier)) = verdict {
                    let (_, earlier) = earlier.unwrap();
                    prop_assert!((earlier as usize) < nth && found[earlier as usize].is_none());
                }
            }
            let reason = |verdict: Option<(DropReason, _)>| verdict.map(|(reason, _)| reason);
            let reasons: Vec<_> = found.into_iter().map(reason).collect();
            prop_assert_eq!(reasons, judge_slowly(&members));
        }
    }
}
