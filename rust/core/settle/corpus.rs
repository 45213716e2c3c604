//! `Corpus`: a mapped corpus, and what becomes of each of its documents for itself alone.

use crate::choice::{Subject, choice, within};
use crate::plan::{Plan, Source};
use crate::schema::{DropReason, MAX_WINDOWS, OFFSET_BITS, Overflow, Split};
use crate::spool::{Part, Tally};

/// A part of a spool, with whose documents it holds.
#[derive(Debug, Clone, Copy)]
pub struct PartOf<'a> {
    /// The source.
    pub source: usize,
    /// The input's index within the source.
    pub nth_input: usize,
    /// The input's index in the plan.
    pub input: usize,
    /// Whether its documents were shortened to fit a row; else they are whole.
    pub fitted: bool,
    /// The documents.
    pub part: &'a Part,
}

/// A mapped corpus.
#[derive(Debug)]
pub struct Corpus<'a> {
    /// What is run.
    pub plan: &'a Plan,
    /// All parts, by source and input.
    pub parts: Vec<PartOf<'a>>,
    /// What happened to the records of each source so far.
    pub tallies: Vec<Tally>,
}

/// What becomes of a document, duplicates aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// A fitted document is there in its stead, or its record was dropped when it was fitted.
    Superseded,
    /// Its record is dropped.
    Dropped(DropReason, String),
    /// It is on this split.
    Kept(Split),
}

impl Corpus<'_> {
    pub(super) fn source(&self, part: &PartOf<'_>) -> &Source {
        &self.plan.sources[part.source]
    }

    /// The split of a record: that of its file, where the whole file is held out; else by its place
    /// in the file.
    fn split(&self, part: &PartOf<'_>, record_id: u64) -> Split {
        if self.source(part).holds_out(part.nth_input) {
            return Split::Validation;
        }
        let pack = &self.plan.pack;
        if pack.validation == 0.0 {
            return Split::Train;
        }
        let offset = record_id & ((1 << OFFSET_BITS) - 1);
        let subject = Subject { name: &self.plan.inputs[part.input].name, record: offset, copy: 0 };
        if within(choice(pack.seed, "validation", subject), pack.validation) {
            Split::Validation
        } else {
            Split::Train
        }
    }

    /// What becomes of a document of `tokens` tokens.
    pub(super) fn fate(&self, part: &PartOf<'_>, record_id: u64, tokens: u32) -> Fate {
        let seq_len = self.plan.pack.seq_len;
        if tokens as usize > seq_len && !part.fitted {
            let why = || format!("{tokens} tokens, a row holds {seq_len}");
            match self.source(part).overflow {
                Overflow::Truncate => return Fate::Superseded,
                Overflow::Drop | Overflow::Error => {
                    return Fate::Dropped(DropReason::TooLong, why());
                }
                Overflow::Split
                    if self.plan.pack.most_windows(tokens as usize) > MAX_WINDOWS as usize =>
                {
                    return Fate::Dropped(
                        DropReason::TooLong,
                        why() + ", more windows than a record may have",
                    );
                }
                Overflow::Split => {}
            }
        }
        Fate::Kept(self.split(part, record_id))
    }
}
