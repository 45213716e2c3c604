//! The vocabulary of the dataset contract: roles, policies, drop reasons, the columns of a shard.
//!
//! A leaf: pure definitions that every stage shares, with the Arrow schema they are stored under.

mod doc_id;
mod weight;

use std::sync::Arc;

pub use doc_id::DocId;
pub(crate) use doc_id::{MAX_COPIES, MAX_PARTS, MAX_WINDOWS, OFFSET_BITS, RecordId};
pub use weight::Weight;

use arrow_schema::{DataType, Field, Schema};
use serde::{Deserialize, Serialize};

/// The newest version of the dataset on disk; this program reads it and all before it.
pub(crate) const FORMAT_VERSION: u32 = 2;

/// Returns the version of a dataset. Only the column of weights asks for the newest, so that every
/// other dataset has the bytes that it always had.
#[must_use]
pub(crate) fn format_version(is_weighted: bool) -> u32 {
    if is_weighted { FORMAT_VERSION } else { 1 }
}

/// Rows in every record batch of a shard but its last, so that row i is found in O(1).
pub(crate) const ROWS_PER_BATCH: usize = 256;
/// `seq_len` is a multiple of this, so that a row's mask fills whole 64-bit words.
pub(crate) const SEQ_LEN_MULTIPLE: usize = 64;
/// The largest `seq_len`; a row's token count then fits every 32-bit field with room to spare.
pub(crate) const MAX_SEQ_LEN: usize = 1 << 20;

/// The origin of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Role {
    /// BOS or EOS, put there by the configuration.
    Control = 0,
    /// Text of a prompt's template.
    Template = 1,
    /// Text of a prompt that comes from the record.
    Data = 2,
    /// Text of a target, from the template or the record.
    Target = 3,
}

impl Role {
    /// Returns the role stored as `value`, if there is one.
    #[must_use]
    pub(crate) fn from_u8(value: u8) -> Option<Self> {
        [Self::Control, Self::Template, Self::Data, Self::Target].get(usize::from(value)).copied()
    }
}

/// A run of consecutive tokens of one role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// The number of tokens, at least one.
    pub len: u32,
    /// The role of these tokens.
    pub role: Role,
}

/// Appends `len` tokens of `role` to the run-lengths `runs`.
pub(crate) fn push_run(runs: &mut Vec<Run>, len: u32, role: Role) {
    match runs.last_mut() {
        Some(last) if last.role == role => last.len += len,
        _ if len > 0 => runs.push(Run { len, role }),
        _ => {}
    }
}

/// The policy that chooses the trained tokens of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossPolicy {
    /// Targets and the closing EOS.
    #[default]
    TargetOnly,
    /// Every token but the first of its document.
    Full,
    /// Every token but the first of its document and the text of prompts' templates.
    TemplateMasked,
    /// The last target of its document, and the closing EOS.
    LastTurn,
}

/// The policy for a record with a document longer than a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// Plain text only: windows that overlap by one untrained token.
    Split,
    /// Shorten the longest data field, from its end, at a word boundary.
    Truncate,
    /// Drop and count the record.
    Drop,
    /// Stop the run.
    Error,
}

/// The policy for a record whose data spells one of the tokenizer's added tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpecialInData {
    /// Encode the data as ordinary text.
    #[default]
    Text,
    /// Refuse and count the record.
    Error,
}

/// The policy for a record that repeats a lower record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duplicates {
    /// Keep every record.
    #[default]
    Keep,
    /// Drop a record with an equal rendered text, byte for byte.
    Exact,
    /// Drop a record with an equal content: the text in NFC and lower case, white space as one
    /// space.
    Normalised,
    /// Drop a record with nearly the same words, by its `MinHash` signature.
    Near,
}

/// The reason why a record was dropped. Each dropped record has exactly one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// The line is not a record of its format.
    Malformed,
    /// A field of the template is missing or null.
    MissingField,
    /// The template failed on this record.
    TemplateError,
    /// The tags of a tagged text do not say where its prompt ends and its target begins.
    UnparsedTags,
    /// The target has no text.
    EmptyTarget,
    /// The target has text, but none of it is left as tokens.
    NoTargetLeft,
    /// The document does not fit a row.
    TooLong,
    /// The data spells a control token, and the source refuses that.
    Refused,
    /// It makes more documents than a record may have.
    TooManyDocuments,
    /// The `when` of its source is false for it, or the list that its source takes apart is empty.
    NotChosen,
    /// The source filters it out for its text.
    Filtered,
    /// A training record shares an n-gram with a file that training is kept clean of.
    Contaminated,
    /// A lower record has an equal text or content, and the source drops duplicates.
    Duplicate,
    /// A training record has a content that is in the validation split.
    InValidation,
    /// The source's `epochs` left it out.
    NotSampled,
}

impl DropReason {
    /// Every reason, in the order of the report.
    pub(crate) const ALL: [Self; 15] = [
        Self::Malformed,
        Self::MissingField,
        Self::TemplateError,
        Self::UnparsedTags,
        Self::EmptyTarget,
        Self::NoTargetLeft,
        Self::TooLong,
        Self::Refused,
        Self::TooManyDocuments,
        Self::NotChosen,
        Self::Filtered,
        Self::Contaminated,
        Self::Duplicate,
        Self::InValidation,
        Self::NotSampled,
    ];

    /// Returns whether the record breaks its source's format or template, rather than being left
    /// out by choice.
    #[must_use]
    pub(crate) fn is_unfit(self) -> bool {
        matches!(
            self,
            Self::Malformed
                | Self::MissingField
                | Self::TemplateError
                | Self::UnparsedTags
                | Self::EmptyTarget
                | Self::NoTargetLeft
        )
    }

    /// Returns whether the configuration chose to leave the record out: nothing is wrong with it.
    #[must_use]
    pub(crate) fn is_choice(self) -> bool {
        matches!(
            self,
            Self::NotChosen
                | Self::Filtered
                | Self::Contaminated
                | Self::Duplicate
                | Self::InValidation
                | Self::NotSampled
        )
    }

    /// Returns the reason as the report and the manifest spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::MissingField => "missing field",
            Self::TemplateError => "template error",
            Self::UnparsedTags => "unparsed tags",
            Self::EmptyTarget => "empty target",
            Self::NoTargetLeft => "no target left",
            Self::TooLong => "too long",
            Self::Refused => "refused",
            Self::TooManyDocuments => "too many documents",
            Self::NotChosen => "not chosen",
            Self::Filtered => "filtered",
            Self::Contaminated => "contaminated",
            Self::Duplicate => "duplicate",
            Self::InValidation => "in validation",
            Self::NotSampled => "not sampled",
        }
    }
}

/// The refusal of one record, with the words for the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reason it is counted under.
    pub reason: DropReason,
    /// The exact fault of this record, in words.
    pub why: String,
}

impl Refusal {
    /// Returns a refusal for `reason`.
    pub(crate) fn new(reason: DropReason, why: impl Into<String>) -> Self {
        Self { reason, why: why.into() }
    }

    /// Returns the refusal with the index of its segment, if the template is at fault.
    #[must_use]
    pub(crate) fn in_segment(self, index: usize) -> Self {
        match self.reason {
            DropReason::Refused | DropReason::TemplateError => {
                Self { why: format!("segment {}: {}", index + 1, self.why), ..self }
            }
            _ => self,
        }
    }
}

/// The split that a record belongs to.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Split {
    /// The records that are trained on.
    #[default]
    Train,
    /// The records that are held out.
    Validation,
}

impl Split {
    /// Both splits, in the order they are written.
    pub(crate) const ALL: [Self; 2] = [Self::Train, Self::Validation];

    /// Returns the folder and the manifest key of this split.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
        }
    }
}

/// The type that token ids are stored in: two bytes if every id fits, else four.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdType {
    /// Every id is below 65,536.
    U16,
    /// Some id is not.
    U32,
}

impl IdType {
    /// Returns the type for ids below `vocab_size`.
    #[must_use]
    pub(crate) fn for_vocab(vocab_size: usize) -> Self {
        if vocab_size <= 1 << 16 { Self::U16 } else { Self::U32 }
    }

    /// Returns the number of bytes of an id.
    #[must_use]
    pub(crate) fn width(self) -> usize {
        match self {
            Self::U16 => 2,
            Self::U32 => 4,
        }
    }

    /// Returns the name of the type in the manifest.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::U16 => "uint16",
            Self::U32 => "uint32",
        }
    }

    /// Returns the type as Arrow's.
    #[must_use]
    pub(crate) fn arrow(self) -> DataType {
        match self {
            Self::U16 => DataType::UInt16,
            Self::U32 => DataType::UInt32,
        }
    }
}

/// Returns the Arrow schema of a shard. Only a dataset that `is_weighted` has a column of weights.
#[must_use]
pub(crate) fn shard_schema(seq_len: usize, ids: IdType, is_weighted: bool) -> Arc<Schema> {
    let item = |data_type| Arc::new(Field::new("item", data_type, false));
    let fixed = |data_type| DataType::FixedSizeList(item(data_type), seq_len as i32);
    let list = |data_type| DataType::List(item(data_type));
    let mut columns = vec![
        ("input_ids", fixed(ids.arrow())),
        ("loss_mask", fixed(DataType::Boolean)),
        ("seq_lengths", list(DataType::Int32)),
        ("segment_lengths", list(DataType::Int32)),
        ("segment_roles", list(DataType::UInt8)),
        ("source_ids", list(DataType::UInt16)),
        ("record_ids", list(DataType::UInt64)),
        ("doc_parts", list(DataType::UInt32)),
        ("n_targets", DataType::Int32),
    ];
    if is_weighted {
        columns.push(("doc_weights", list(DataType::Float32)));
    }
    let field = |(name, data_type)| Field::new(name, data_type, false);
    Arc::new(Schema::new(columns.into_iter().map(field).collect::<Vec<_>>()))
}
