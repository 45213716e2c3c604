//! `Corpus`: a mapped corpus. Decides the outcome of each record, duplicates aside.

use crate::plan::{Plan, Source};
use crate::schema::{DropReason, MAX_WINDOWS, Overflow, Split};
use crate::spool::{DocMeta, Listing, Part, Tally};

/// A part of a spool, with the source and input of its documents.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartOf<'a> {
    /// The index of the source in the plan.
    pub source: usize,
    /// The input's index within the source.
    pub nth_input: usize,
    /// The input's index in the plan.
    pub input: usize,
    /// Whether its documents were shortened to fit a row; else they are whole.
    pub fitted: bool,
    /// The part itself.
    pub part: &'a Part,
}

/// A mapped corpus.
#[derive(Debug)]
pub(crate) struct Corpus<'a> {
    pub plan: &'a Plan,
    /// All parts, by source and input.
    pub parts: Vec<PartOf<'a>>,
    /// The counts of each source so far: records read, and those dropped when they were mapped.
    pub tallies: Vec<Tally>,
    /// The lowest dropped records of each source. Settling adds those that it drops.
    pub listing: Listing,
}

/// The facts about one record that settling decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    /// The id of the record within its source.
    pub record_id: u64,
    /// Tokens of its longest document.
    pub longest: u32,
    /// Whether any of its documents shares an n-gram with files that training is kept clean of.
    pub contaminated: bool,
}

impl Facts {
    /// Returns the facts of the record with these documents. At least one is given.
    pub(crate) fn of(documents: &[DocMeta]) -> Self {
        Self {
            record_id: documents[0].record_id,
            longest: documents.iter().map(|document| document.tokens).max().unwrap_or(0),
            contaminated: documents.iter().any(|document| document.contaminated),
        }
    }
}

/// The outcome of a record in one part, duplicates aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Its fitted documents take its place, or it was dropped when it was fitted.
    Superseded,
    /// The record is dropped, with the reason and the words for the report.
    Dropped(DropReason, String),
    /// The record is kept in this split.
    Kept(Split),
}

impl Corpus<'_> {
    /// Returns the source that a part belongs to.
    pub(super) fn source(&self, part: &PartOf<'_>) -> &Source {
        &self.plan.sources[part.source]
    }

    /// Returns the split of a record. A file that is held out whole decides for its records;
    /// elsewhere a seeded choice does.
    fn split(&self, part: &PartOf<'_>, record_id: u64) -> Split {
        let is_held_out =
            self.source(part).holds_out(part.nth_input) || self.plan.draws(part.input, record_id);
        if is_held_out { Split::Validation } else { Split::Train }
    }

    /// Returns the outcome of a record whose longest document has `longest` tokens.
    pub(super) fn outcome(&self, part: &PartOf<'_>, record_id: u64, longest: u32) -> Outcome {
        let (seq_len, longest) = (self.plan.pack.seq_len, longest as usize);
        if longest > seq_len && !part.fitted {
            let too_long = |more: &str| {
                let why = format!("{longest} tokens, a row holds {seq_len}{more}");
                Outcome::Dropped(DropReason::TooLong, why)
            };
            match self.source(part).overflow {
                Overflow::Truncate => return Outcome::Superseded,
                Overflow::Drop | Overflow::Error => return too_long(""),
                Overflow::Split if self.plan.pack.most_windows(longest) > MAX_WINDOWS as usize => {
                    return too_long(", more windows than a record may have");
                }
                Overflow::Split => {}
            }
        }
        Outcome::Kept(self.split(part, record_id))
    }
}
