//! `Augment`: the key `augment` of a source, with every option filled in and checked.

mod divisions;
mod written;

use serde::{Deserialize, Serialize};

use super::language::{UNDETERMINED, code_or_text, language_name};
use super::placeholder::{LANG, is_plain};
use super::{SegmentSpec, Source, SourceSpec};
use crate::error::{Error, Result};
pub use written::AugmentSpec;
pub(super) use written::written;

/// A task that is made from plain text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AugmentTask {
    /// Restores the marks of a text.
    Diacritize,
    /// Cleans a text of noise.
    Denoise,
    /// Goes on with the start of a text.
    Continue,
    /// Fills the blanks of a text.
    SpanFill,
    /// Names the language of a text.
    LanguageId,
    /// Puts the sentences of a text in order.
    Order,
}

/// The marks below letters that tell letters apart, U+0323 and U+0329.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Underdots {
    /// They stay.
    Keep,
    /// They are stripped as other marks are.
    Strip,
}

/// The way in which a language is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LanguageShown {
    /// By its code of ISO 639-3.
    Code,
    /// By its English name.
    Name,
    /// As the source has it.
    Written,
}

/// A task made from plain text, with all its options.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Augment {
    /// The path of the field that holds the text.
    pub field: String,
    /// The task and its options.
    #[serde(flatten)]
    pub made: Made,
}

/// A task and its options, which [`AugmentSpec`] documents. The variants are those of
/// [`AugmentTask`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "task", rename_all = "snake_case")]
pub enum Made {
    Diacritize { underdots: Underdots },
    Denoise(Noise),
    Continue { min_share: f64, max_share: f64 },
    SpanFill { rate: f64, span: f64, blank: String, first: u64 },
    LanguageId { language: LanguageShown },
    Order { min_sentences: u64 },
}

/// The rates of noise, each the share of letters or words that it meets, which [`AugmentSpec`]
/// documents.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Noise {
    pub char_drop: f64,
    pub char_swap: f64,
    pub char_repeat: f64,
    pub char_replace: f64,
    pub word_drop: f64,
    pub word_swap: f64,
    pub word_join: f64,
    pub space_split: f64,
    pub space_double: f64,
}

/// The place of a blank's number in the text of a blank.
pub(crate) const NUMBER: &str = "{n}";
impl AugmentTask {
    /// Every task.
    const ALL: [Self; 6] = [
        Self::Diacritize,
        Self::Denoise,
        Self::Continue,
        Self::SpanFill,
        Self::LanguageId,
        Self::Order,
    ];
    /// The names of all tasks.
    pub(crate) const NAMES: [&str; 6] =
        ["diacritize", "denoise", "continue", "span_fill", "language_id", "order"];

    /// Returns the name of the task, which is its tag too.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Returns the keys of the task's own options.
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Diacritize => &["underdots"],
            Self::Denoise => &written::RATES,
            Self::Continue => &["min_share", "max_share"],
            Self::SpanFill => &["rate", "span", "blank", "first"],
            Self::LanguageId => &["language"],
            Self::Order => &["min_sentences"],
        }
    }
}

impl Noise {
    /// Returns the rates for letters: drop, swap, repeat, replace.
    #[must_use]
    pub(crate) fn chars(&self) -> [f64; 4] {
        [self.char_drop, self.char_swap, self.char_repeat, self.char_replace]
    }

    /// Returns the rates for words: drop, swap, join, split, double.
    #[must_use]
    pub(crate) fn words(&self) -> [f64; 5] {
        [self.word_drop, self.word_swap, self.word_join, self.space_split, self.space_double]
    }
}

impl Augment {
    /// Returns the task.
    #[must_use]
    pub(crate) fn task(&self) -> AugmentTask {
        match self.made {
            Made::Diacritize { .. } => AugmentTask::Diacritize,
            Made::Denoise(_) => AugmentTask::Denoise,
            Made::Continue { .. } => AugmentTask::Continue,
            Made::SpanFill { .. } => AugmentTask::SpanFill,
            Made::LanguageId { .. } => AugmentTask::LanguageId,
            Made::Order { .. } => AugmentTask::Order,
        }
    }

    /// Returns the names of the fields that the task adds beside the text.
    #[must_use]
    pub(crate) fn fields(&self) -> &'static [&'static str] {
        match self.task() {
            AugmentTask::Diacritize => &["stripped"],
            AugmentTask::Denoise => &["noisy"],
            AugmentTask::Continue => &["start", "rest"],
            AugmentTask::SpanFill => &["blanked", "fills"],
            AugmentTask::LanguageId => &["language"],
            AugmentTask::Order => &["shuffled", "order"],
        }
    }

    /// Returns the text of blank `nth`, from 0, if the task has blanks.
    #[must_use]
    pub(crate) fn blank(&self, nth: u64) -> Option<String> {
        let Made::SpanFill { blank, first, .. } = &self.made else { return None };
        Some(blank.replace(NUMBER, &(first + nth).to_string()))
    }

    /// Refuses a source whose task is to name a language that nothing tells.
    pub(super) fn refuse_no_language(&self, lang: &str, is_by_field: bool) -> Result<()> {
        let names_one = self.task() == AugmentTask::LanguageId;
        if names_one && !is_by_field && code_or_text(lang) == UNDETERMINED {
            return Err(refused("the source has no language to name", "set lang = \"yor\""));
        }
        Ok(())
    }

    /// Returns the segments of a source that writes none. Their last tag is the language, `{lang}`
    /// where a field of the records holds it.
    pub(super) fn segments(&self, lang: &str, is_by_field: bool) -> Vec<SegmentSpec> {
        let (given, wanted) = match self.task() {
            AugmentTask::Diacritize => ("stripped", "text"),
            AugmentTask::Denoise => ("noisy", "text"),
            AugmentTask::Continue => ("start", "rest"),
            AugmentTask::SpanFill => ("blanked", "fills"),
            AugmentTask::LanguageId => ("text", "language"),
            AugmentTask::Order => ("shuffled", "text"),
        };
        let action = match self.task() {
            AugmentTask::LanguageId => "language",
            _ if is_by_field => LANG,
            // A tag holds no more than this.
            _ if lang == UNDETERMINED || !lang.chars().all(is_plain) => "text",
            _ => lang,
        };
        let tag = self.task().name();
        vec![
            SegmentSpec::Prompt(format!("<{tag}> {{{{ {given} }}}} <{action}>:")),
            SegmentSpec::Target(format!(" {{{{ {wanted} }}}}")),
        ]
    }
}

impl SourceSpec {
    /// Returns the task that it trains, by default the one that is made from its texts, else one of
    /// its name.
    #[must_use]
    pub(super) fn task(&self) -> String {
        let made = self.augment.as_ref().map(|augment| augment.task.name().to_owned());
        self.task.clone().or(made).unwrap_or_else(|| self.full_name())
    }
}

/// Returns the language of a source as a task names it; `None` if it is not known.
#[must_use]
pub(crate) fn language_shown(source: &Source, shown: LanguageShown) -> Option<String> {
    let name = || language_name(&source.lang).unwrap_or(&source.written_lang);
    let language = match shown {
        LanguageShown::Code => source.lang.as_str(),
        LanguageShown::Name => name(),
        LanguageShown::Written => source.written_lang.as_str(),
    };
    (source.lang != UNDETERMINED).then(|| language.to_owned())
}

/// Returns an error about the key.
fn refused(what: &str, remedy: &str) -> Error {
    Error::config(format!("augment: {what}")).remedy(remedy)
}
