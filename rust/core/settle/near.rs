//! Near duplicates: drops records whose text is nearly that of another record.
//!
//! The band hashes of all parts are merged in order of hash, as content keys are: records that share
//! one are near duplicates of each other, and so are those that a chain of them ties together. Held
//! in memory: four bytes for each document, and the lowest record of each group that has two.
//!
//! A record that is dropped for another reason ties nothing. A training record of a source with
//! `duplicates = "near"` is dropped if its group has a held-out record. Of the rest, in either
//! split, a record of such a source is dropped if its group has a lower one of its kind: of one text,
//! each kind of task that is made from it is kept, and plain text beside them.

use std::collections::{HashMap, HashSet};

use super::Decisions;
use super::corpus::{Corpus, Facts, PartOf};
use super::duplicates::kinds;
use super::forest::Forest;
use super::merge::Merge;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::schema::{DropReason, Duplicates, RecordId, Split};
use crate::spool::{Band, DocMeta, Tally};
use crate::tasks;

/// A record by its place in the order of records: source, id, and the index of its part.
type Place = (usize, u64, usize);

/// A group by its root and the kind of its records.
type Kind = (u32, usize);

/// Near duplicates of each other, of one kind.
#[derive(Debug, Default)]
struct Group {
    /// Whether one of them is held out, of any kind.
    held_out: bool,
    /// The lowest.
    lowest: Option<Place>,
    /// The lowest of those that are kept though one of them is held out.
    lowest_beside_held_out: Option<Place>,
}

/// The search for near duplicates.
struct Search<'a> {
    corpus: &'a Corpus<'a>,
    decisions: &'a Decisions,
    context: &'a Context<'a>,
    /// The groups of the first documents of records, numbered over all parts.
    forest: Forest,
    /// The number of the first document of each part.
    starts: Vec<u32>,
    /// The kind of each source.
    kinds: Vec<usize>,
}

/// Drops near duplicates: sets their bits in `decisions` and counts them in `tallies`.
pub(super) fn drop_near(
    corpus: &Corpus<'_>,
    decisions: &mut Decisions,
    tallies: &mut [Tally],
    context: &Context<'_>,
) -> Result<()> {
    let search = Search::new(corpus, decisions, context)?;
    search.unite()?;
    let found = search.judge(&search.groups()?)?;
    for (index, dropped) in found.into_iter().enumerate() {
        let source = corpus.parts[index].source;
        for (first, record_id, reason, why) in dropped {
            decisions.drop_for_content(index, first);
            corpus.listing.add(source, reason, record_id, || why.clone());
            tallies[source].drop_record(reason, record_id, || why);
        }
    }
    Ok(())
}

/// The index of the first document of a dropped record, its id, the reason and the words for the
/// report.
type DroppedRecord = (u32, u64, DropReason, String);

impl<'a> Search<'a> {
    /// Begins the search: every record that could be in the dataset is a group of its own.
    fn new(
        corpus: &'a Corpus<'_>,
        decisions: &'a Decisions,
        context: &'a Context<'_>,
    ) -> Result<Self> {
        let (mut starts, mut count) = (Vec::with_capacity(corpus.parts.len()), 0_u32);
        for part in &corpus.parts {
            starts.push(count);
            count = count.checked_add(part.part.layout.documents).ok_or_else(|| {
                Error::config("near duplicates are found among at most 4,294,967,295 documents")
                    .remedy("set duplicates = \"normalised\", or pack the corpus in parts")
            })?;
        }
        let kinds = kinds(&corpus.plan.sources);
        let forest = Forest::new(count);
        let search = Self { corpus, decisions, context, forest, starts, kinds };
        search.for_each_part(|index| {
            search.for_each_kept(index, |first, _, _| search.forest.plant(first))
        })?;
        Ok(search)
    }

    /// Runs a task for every part.
    fn for_each_part<T: Send>(&self, task: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
        tasks::run(self.context.threads, self.corpus.parts.len(), task)
    }

    /// Calls `each` with the number of the first document of each record of a part that is kept so
    /// far, with the record's facts and split.
    fn for_each_kept(&self, index: usize, mut each: impl FnMut(u32, Facts, Split)) -> Result<()> {
        let (corpus, part) = (self.corpus, &self.corpus.parts[index]);
        part.part.for_each_record(self.context.storage, |first, documents: &[DocMeta]| {
            if let Some(split) = self.decisions.split(corpus, index, first, documents) {
                each(self.starts[index] + first, Facts::of(documents), split);
            }
        })
    }

    /// Unites the records that share a band hash.
    fn unite(&self) -> Result<()> {
        let shares = self.context.threads;
        tasks::run(shares, shares, |nth| {
            let mut merge =
                Merge::<Band>::new(self.context.storage, &self.corpus.parts, (nth, shares))?;
            while let Some(hash) = merge.hash() {
                let mut known = None;
                while let Some((index, band)) = merge.advance_within(hash)? {
                    let number = self.starts[index] + band.meta;
                    // A record in no group must not stand between others.
                    if self.forest.root(number).is_some() {
                        self.forest.unite(*known.get_or_insert(number), number);
                    }
                }
            }
            Ok(())
        })
        .map(|_| ())
    }

    /// Returns the groups of two or more, by kind.
    fn groups(&self) -> Result<HashMap<Kind, Group>> {
        let shared = self.forest.shared_roots();
        let is_shared = |root: u32| shared[root as usize / 64] >> (root % 64) & 1 == 1;
        let members = self.for_each_part(|index| {
            let mut members = Vec::new();
            self.for_each_kept(index, |first, facts, split| {
                if let Some(root) = self.forest.root(first).filter(|root| is_shared(*root)) {
                    members.push((root, facts.record_id, split));
                }
            })?;
            Ok(members)
        })?;
        let mut groups: HashMap<Kind, Group> = HashMap::new();
        for (index, members) in members.into_iter().enumerate() {
            for (root, record_id, split) in members {
                let place = (self.corpus.parts[index].source, record_id, index);
                let group = groups.entry((root, self.kinds[place.0])).or_default();
                group.add(place, split, self.is_near(index));
            }
        }
        let held_out = groups.iter().filter(|(_, group)| group.held_out);
        let held_out: HashSet<u32> = held_out.map(|((root, _), _)| *root).collect();
        for ((root, _), group) in &mut groups {
            group.held_out = held_out.contains(root);
        }
        Ok(groups)
    }

    /// Returns whether the source of a part drops near duplicates.
    fn is_near(&self, index: usize) -> bool {
        self.corpus.source(&self.corpus.parts[index]).duplicates == Duplicates::Near
    }

    /// Returns the records of each part that are dropped.
    fn judge(&self, groups: &HashMap<Kind, Group>) -> Result<Vec<Vec<DroppedRecord>>> {
        self.for_each_part(|index| {
            let mut dropped = Vec::new();
            if !self.is_near(index) {
                return Ok(dropped);
            }
            let PartOf { source, .. } = self.corpus.parts[index];
            self.for_each_kept(index, |first, facts, split| {
                let root = self.forest.root(first);
                let group = root.and_then(|root| groups.get(&(root, self.kinds[source])));
                let place = (source, facts.record_id, index);
                let judged = group.and_then(|group| group.judge(place, split));
                if let Some((reason, earlier)) = judged {
                    let why = self.why(earlier);
                    dropped.push((first - self.starts[index], facts.record_id, reason, why));
                }
            })?;
            Ok(dropped)
        })
    }

    /// Names for the report the record that a dropped record nearly repeats.
    fn why(&self, earlier: Option<Place>) -> String {
        let Some((_, record_id, index)) = earlier else {
            return "a held-out record says nearly the same".to_owned();
        };
        let name = &self.corpus.plan.inputs[self.corpus.parts[index].input].name;
        let offset = RecordId::unpack(record_id).offset;
        format!("the record at byte {offset} of {name} says nearly the same")
    }
}

impl Group {
    /// Adds a record, whose source drops near duplicates if `is_near`.
    fn add(&mut self, place: Place, split: Split, is_near: bool) {
        let lower = |known: Option<Place>| Some(known.map_or(place, |known| known.min(place)));
        self.held_out |= split == Split::Validation;
        self.lowest = lower(self.lowest);
        if split == Split::Validation || !is_near {
            self.lowest_beside_held_out = lower(self.lowest_beside_held_out);
        }
    }

    /// Judges a record of a source that drops near duplicates. Returns why it is dropped, and the
    /// record that it repeats; `None` if it is kept.
    fn judge(&self, place: Place, split: Split) -> Option<(DropReason, Option<Place>)> {
        if self.held_out && split == Split::Train {
            return Some((DropReason::InValidation, None));
        }
        let lowest = if self.held_out { self.lowest_beside_held_out } else { self.lowest };
        (lowest != Some(place)).then_some((DropReason::Duplicate, lowest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn one_of_a_group_is_kept_and_none_beside_a_held_out_one(
            members in prop::collection::vec((any::<bool>(), any::<bool>()), 2..9),
        ) {
            let split = |held_out| if held_out { Split::Validation } else { Split::Train };
            let members: Vec<(Place, Split, bool)> = (0..)
                .zip(members)
                .map(|(id, (held_out, is_near))| {
                    ((usize::from(!is_near), id, 0), split(held_out), is_near)
                })
                .collect();
            let mut group = Group::default();
            members.iter().rev().for_each(|&(place, split, near)| group.add(place, split, near));
            let kept: Vec<_> = members
                .iter()
                .filter(|(place, split, near)| !near || group.judge(*place, *split).is_none())
                .collect();
            let held_out = |(_, split, _): &&(Place, Split, bool)| *split == Split::Validation;
            let near: Vec<_> = kept.iter().copied().filter(|(.., near)| *near).collect();
            prop_assert!(!kept.is_empty() && near.len() <= 1);
            if members.iter().any(|member| held_out(&member)) {
                prop_assert!(kept.iter().copied().any(|member| held_out(&member)));
                prop_assert!(near.iter().all(held_out));
            }
        }
    }
}
