//! `Filter`: refuses a document for its text, as the table `filter` of its source says.
//!
//! Takes a rendered document, whole: one that was shortened to fit a row is not measured again.
//! Measures its data, since the text of templates says nothing about a record.

mod language;
mod measures;
mod rules;
mod script;

use std::borrow::Cow;
use std::fmt;

use super::Rendered;
use super::characters::Letters;
use crate::error::Result;
use crate::plan::{FilterSpec, Measured, Source};
use crate::schema::{DropReason, Refusal, Role};
use language::Language;
pub(crate) use language::find_identifier;
pub use language::{IdentifyLanguage, Likelihood, register_identifier};
use measures::{Ngrams, Repeated, share};
use script::Script;

type Judged = std::result::Result<(), Refusal>;

/// A filter, ready to judge documents.
#[derive(Debug)]
pub(super) struct Filter {
    spec: FilterSpec,
    letters: Letters,
    /// The expected script, if it is measured.
    script: Option<Script>,
    /// The check of the language, if it is asked for.
    language: Option<Language>,
    /// Whether the texts are English, for which rules list words.
    is_english: bool,
}

/// A measured value.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Value {
    /// A number of things.
    Count(u64),
    /// A share of a whole.
    Share(f64),
    /// A mean.
    Mean(f64),
}

impl Value {
    /// Returns the value as a number.
    fn number(self) -> f64 {
        match self {
            Self::Count(count) => count as f64,
            Self::Share(number) | Self::Mean(number) => number,
        }
    }

    /// Returns a limit of the same kind.
    fn limit(self, limit: f64) -> Self {
        match self {
            Self::Count(_) => Self::Count(limit as u64),
            Self::Share(_) => Self::Share(limit),
            Self::Mean(_) => Self::Mean(limit),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(out, "{count}"),
            Self::Share(share) => write!(out, "{:.1} %", 100.0 * share),
            Self::Mean(mean) => write!(out, "{mean:.2}"),
        }
    }
}

/// Refuses a value below `limit`. `rule` names the key or the set of rules, `what` the measure.
fn at_least(rule: &str, what: &str, value: Value, limit: f64) -> Judged {
    if value.number() >= limit {
        return Ok(());
    }
    Err(filtered(format!("{rule}: {what} {value}, at least {}", value.limit(limit))))
}

/// Refuses a value above `limit`, as [`at_least`] does.
fn at_most(rule: &str, what: &str, value: Value, limit: f64) -> Judged {
    if value.number() <= limit {
        return Ok(());
    }
    Err(filtered(format!("{rule}: {what} {value}, at most {}", value.limit(limit))))
}

/// Returns the refusal of a record that a filter drops.
fn filtered(why: String) -> Refusal {
    Refusal::new(DropReason::Filtered, why)
}

/// Refuses a document for the number of its tokens.
pub(crate) fn refuse_tokens(spec: &FilterSpec, tokens: usize) -> Judged {
    let value = Value::Count(tokens as u64);
    if let Some(min) = spec.min_tokens {
        at_least("min_tokens", "tokens", value, min as f64)?;
    }
    if let Some(max) = spec.max_tokens {
        at_most("max_tokens", "tokens", value, max as f64)?;
    }
    Ok(())
}

impl Filter {
    /// Returns the filter that `spec` asks for. Refuses a script that is not known.
    pub(super) fn new(spec: &FilterSpec, source: &Source) -> Result<Self> {
        let script = spec.min_script.map(|_| Script::of(spec.script.as_deref(), source));
        Ok(Self {
            spec: spec.clone(),
            letters: Letters::new(),
            script: script.transpose()?,
            language: Language::new(spec.min_language, spec.identifier.as_ref()),
            is_english: source.lang == "eng",
        })
    }

    /// Refuses a document for its text.
    pub(super) fn judge(&self, rendered: &Rendered) -> Judged {
        let text = &*measured(rendered, self.spec.of);
        self.judge_length(text)?;
        self.judge_letters(text)?;
        self.judge_repetition(text)?;
        self.spec.rules.iter().try_for_each(|rule| self.judge_by(*rule, text))?;
        // The slowest comes last.
        self.language.as_ref().map_or(Ok(()), |language| language.judge(text))
    }

    /// Refuses a text for its characters or words.
    fn judge_length(&self, text: &str) -> Judged {
        let FilterSpec { min_chars, max_chars, min_words, max_words, .. } = self.spec;
        if min_chars.is_some() || max_chars.is_some() {
            let chars = Value::Count(measures::chars(text));
            if let Some(min) = min_chars {
                at_least("min_chars", "characters", chars, min as f64)?;
            }
            if let Some(max) = max_chars {
                at_most("max_chars", "characters", chars, max as f64)?;
            }
        }
        if min_words.is_some() || max_words.is_some() {
            let words = Value::Count(measures::words(text).len() as u64);
            if let Some(min) = min_words {
                at_least("min_words", "words", words, min as f64)?;
            }
            if let Some(max) = max_words {
                at_most("max_words", "words", words, max as f64)?;
            }
        }
        Ok(())
    }

    /// Refuses a text for its share of letters, or of letters of the expected script.
    fn judge_letters(&self, text: &str) -> Judged {
        if let Some(min) = self.spec.min_letters {
            let (mut letters, mut all) = (0, 0);
            for char in text.chars().filter(|char| !char.is_whitespace()) {
                all += 1;
                letters += u64::from(self.letters.is_of_letter(char));
            }
            at_least("min_letters", "letters", Value::Share(share(letters, all)), min)?;
        }
        if let (Some(min), Some(script)) = (self.spec.min_script, &self.script) {
            let (mut own, mut all) = (0, 0);
            let letters = text.chars().filter(|char| self.letters.is_letter(*char));
            for has in letters.filter_map(|letter| script.has(letter)) {
                all += 1;
                own += u64::from(has);
            }
            let what = format!("letters of the script {}", script.name);
            at_least("min_script", &what, Value::Share(share(own, all)), min)?;
        }
        Ok(())
    }

    /// Refuses a text for its share of repeated lines or n-grams.
    fn judge_repetition(&self, text: &str) -> Judged {
        if let Some(max) = self.spec.max_repeated_lines {
            let lines = measures::lines(text);
            let repeated = share(Repeated::of(&lines).count, lines.len() as u64);
            at_most("max_repeated_lines", "repeated lines", Value::Share(repeated), max)?;
        }
        if let Some(max) = self.spec.max_repeated_ngrams {
            let n = self.spec.ngram();
            let mut grams = Ngrams::new(&measures::words(text));
            grams.advance_to(n);
            let repeated = share(grams.repeated(), measures::chars(text));
            let what = format!("characters in repeated {n}-grams");
            at_most("max_repeated_ngrams", &what, Value::Share(repeated), max)?;
        }
        Ok(())
    }
}

/// Returns the data of a document, stretches apart by a line break; all the data of a task that is
/// made from a text is this text.
fn measured(rendered: &Rendered, of: Measured) -> Cow<'_, str> {
    if let (Measured::Text, Some(origin)) = (of, &rendered.origin) {
        return Cow::Borrowed(origin);
    }
    let is_wanted = |role: Role| match of {
        Measured::Text => true,
        Measured::Prompt => role == Role::Data,
        Measured::Target => role == Role::Target,
    };
    let starts = std::iter::once(0).chain(rendered.spans.iter().map(|span| span.end));
    let spans = starts.zip(&rendered.spans);
    let mut texts = spans
        .filter(|(_, span)| !span.literal && is_wanted(span.role))
        .map(|(start, span)| &rendered.text[start..span.end]);
    let Some(first) = texts.next() else { return Cow::Borrowed("") };
    let mut whole = Cow::Borrowed(first);
    for text in texts {
        let whole = whole.to_mut();
        whole.push('\n');
        whole.push_str(text);
    }
    whole
}
