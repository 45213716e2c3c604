//! `Sampled`: what a sample of a source shows.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::fields::SeenFields;
use super::source::ShownRecord;
use crate::error::Error;
use crate::schema::DropReason;
use crate::segment::Change;
use crate::spool::Doubts;

/// What a sample of a source shows.
#[derive(Debug, Default)]
pub(super) struct Sampled {
    /// The index of the source.
    pub(super) index: usize,
    /// Its inputs, read or not.
    pub(super) inputs: Vec<SampledInput>,
    pub(super) fields: SeenFields,
    /// Fields that `rename` and `literals` name and no record has, each with the key.
    pub(super) unmet: BTreeSet<(&'static str, String)>,
    /// Records read, and those that break their format or template.
    pub(super) records: u64,
    pub(super) unfit: u64,
    /// Dropped records by reason, with the first of each.
    pub(super) drops: BTreeMap<DropReason, (u64, Dropped)>,
    /// Records that cleaning changed, by the kind of change.
    pub(super) cleaned: BTreeMap<Change, u64>,
    pub(super) shown: Vec<ShownRecord>,
    /// Sums over the records, by where they go: [`TRAINED`], [`DRAWN`] or [`HELD_OUT`].
    pub(super) tokenized: [Tokenized; 3],
    /// Records whose data spells a control token, and the first such token.
    pub(super) control: Option<(u64, String, u64)>,
    /// The records' texts, by their hashes.
    pub(super) texts: HashMap<u128, Text>,
    /// Records with the text of an earlier one, and the first such record with that earlier one.
    pub(super) repeated: Option<(u64, u64, u64)>,
    /// Records that may have been read the wrong way, and the first.
    pub(super) doubts: Doubts,
    /// Errors of inputs.
    pub(super) faults: Vec<Error>,
    /// Bytes read of the inputs.
    pub(super) read_bytes: u64,
}

/// The place of the sums over records that are trained on.
pub(super) const TRAINED: usize = 0;
/// The place of those of training files that a seeded choice holds out.
pub(super) const DRAWN: usize = 1;
/// The place of those of files that are held out.
pub(super) const HELD_OUT: usize = 2;

/// An input in a sample.
#[derive(Debug, Default, Clone)]
pub(super) struct SampledInput {
    /// Whether it was read at all.
    pub(super) is_read: bool,
    /// Whether it was read to its end.
    pub(super) is_whole: bool,
    /// Whether it is compressed, so that its size says little.
    pub(super) is_compressed: bool,
    /// The number of records that the file states, if it does.
    pub(super) stated: Option<u64>,
    pub(super) records: u64,
    /// Input splits that were read to their end.
    pub(super) ended: usize,
    /// Places of it that gave no record, since the one there goes on and on.
    pub(super) stuck: usize,
    /// Bytes of the largest record.
    pub(super) largest: u64,
    /// The records for each byte of content, in each place that was read.
    pub(super) densities: Vec<f64>,
    /// Bytes of content that these records take.
    pub(super) content: u64,
    /// Bytes of the start of a compressed file, and of the content that they stand for.
    pub(super) packed: u64,
    pub(super) unpacked: u64,
}

impl SampledInput {
    /// Returns whether what was read says little of the rest: a record goes on and on, or takes most of
    /// it.
    pub(super) fn is_uneven(&self) -> bool {
        let is_large = self.largest > LARGE && self.largest > self.content / 2;
        !self.is_whole && self.stated.is_none() && (self.stuck > 0 || is_large)
    }
}

/// The bytes of a record up to which it is not large for its file, whatever the others have.
const LARGE: u64 = 64 << 10;

/// A text that records have.
#[derive(Debug, Default)]
pub(super) struct Text {
    /// The first record with it, one that is trained on if there is one.
    pub(super) first: u64,
    /// The key of its content, by which leaks are found.
    pub(super) content: u128,
    pub(super) trained: bool,
    pub(super) held_out: bool,
}

/// A dropped record.
#[derive(Debug)]
pub(super) struct Dropped {
    pub(super) record_id: u64,
    pub(super) why: String,
    /// The first text of its fields, if they could be read.
    pub(super) words: Option<String>,
}

/// Sums over tokenized records.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tokenized {
    /// Records that were read, tokenized or not, and their bytes.
    pub(super) read: u64,
    pub(super) read_bytes: u64,
    /// Records that were tokenized, kept or not, and their bytes.
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    pub(super) documents: u64,
    pub(super) tokens: u64,
    pub(super) targets: u64,
    /// Runs of one role.
    pub(super) runs: u64,
    /// Records with a document longer than a row.
    pub(super) long: u64,
    /// Documents longer than half a row, of which a row holds one.
    pub(super) halves: u64,
    /// Tokens that stand for unknown text, and words without some letters.
    pub(super) unknown: u64,
    pub(super) unspelled: u64,
    /// Words and letters of the texts.
    pub(super) words: u64,
    pub(super) letters: u64,
}

impl Tokenized {
    /// Returns the sums of both together.
    pub(super) fn plus(&self, other: &Self) -> Self {
        Self {
            read: self.read + other.read,
            read_bytes: self.read_bytes + other.read_bytes,
            records: self.records + other.records,
            bytes: self.bytes + other.bytes,
            seconds: self.seconds + other.seconds,
            documents: self.documents + other.documents,
            tokens: self.tokens + other.tokens,
            targets: self.targets + other.targets,
            runs: self.runs + other.runs,
            long: self.long + other.long,
            halves: self.halves + other.halves,
            unknown: self.unknown + other.unknown,
            unspelled: self.unspelled + other.unspelled,
            words: self.words + other.words,
            letters: self.letters + other.letters,
        }
    }
}

impl Sampled {
    /// Returns the sums over all records that were tokenized.
    pub(super) fn sums(&self) -> Tokenized {
        self.tokenized.iter().fold(Tokenized::default(), |sums, side| sums.plus(side))
    }

    /// Returns whether every record of every file was read.
    pub(super) fn is_whole(&self) -> bool {
        self.inputs.iter().all(|input| input.is_whole)
    }

    /// Returns the records that `when` and `each` chose, by which a source is judged.
    pub(super) fn chosen(&self) -> u64 {
        let not_chosen = self.drops.get(&DropReason::NotChosen);
        self.records - not_chosen.map_or(0, |(count, _)| *count)
    }

    /// Returns the bytes of content that were read.
    pub(super) fn content(&self) -> u64 {
        self.inputs.iter().map(|input| input.content).sum()
    }
}
