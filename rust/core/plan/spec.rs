//! `PlanSpec`: `corpus.toml` as it was written. Unknown keys are errors; no file but the text is
//! looked at.

use serde::{Deserialize, Serialize};

use super::written;
use crate::error::{Error, Result};
use crate::pack::Packing;
use crate::read::FormatName;
use crate::schema::{Duplicates, LossPolicy, Overflow, SpecialInData};

/// The whole of `corpus.toml`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanSpec {
    /// The tokenizer and its control tokens.
    #[serde(default)]
    pub tokenizer: TokenizerSpec,
    /// How rows are made.
    #[serde(default)]
    pub pack: PackSpec,
    /// How sources without `epochs` are mixed.
    pub mix: Option<MixSpec>,
    /// The sources, in order.
    #[serde(default, rename = "source")]
    pub sources: Vec<SourceSpec>,
}

/// `[tokenizer]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerSpec {
    /// The tokenizer file, relative to the corpus.
    pub file: Option<String>,
    /// The token that opens every document; the empty string means none.
    pub bos: Option<String>,
    /// The token that closes every document.
    pub eos: Option<String>,
    /// The token that fills rows; EOS by default.
    pub pad: Option<String>,
}

/// `[pack]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackSpec {
    /// Tokens in a row.
    pub seq_len: Option<usize>,
    /// How documents are put into rows.
    pub pack: Option<Packing>,
    /// The share of records held out, in `[0, 1)`.
    pub validation: Option<f64>,
    /// The seed of every random choice.
    pub seed: Option<u64>,
    /// What becomes of data that spells a control token, where the source does not say.
    pub special_in_data: Option<SpecialInData>,
    /// Tokens a shard is planned to hold.
    pub shard_tokens: Option<u64>,
    /// Files or glob patterns that training is kept clean of.
    #[serde(default)]
    pub decontaminate: Vec<String>,
    /// Words in a run that training may not share with them.
    pub decontaminate_ngram: Option<usize>,
    /// Which duplicates are dropped, where the source does not say.
    pub duplicates: Option<Duplicates>,
}

/// `[mix]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixSpec {
    /// What shares are of.
    pub by: Option<MixBy>,
    /// Above 1, shares are nearer to each other than sizes or weights are.
    pub temperature: Option<f64>,
    /// What shares are counted in.
    pub unit: Option<Unit>,
    /// The most copies of a record, on average over its source.
    pub max_epochs: Option<f64>,
}

/// What a mix gives shares to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MixBy {
    /// All sources of a task together.
    #[default]
    Task,
    /// All sources of a language together.
    Lang,
    /// Each source.
    Source,
}

/// What shares are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Documents; each window of a long text is one.
    Examples,
    /// Tokens.
    Tokens,
    /// Trained tokens: a share of them is a share of the loss.
    #[default]
    Targets,
}

/// One `[[source]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSpec {
    /// Its name, unique in the corpus: it identifies its records.
    pub name: String,
    /// What is to be trained; its name by default.
    pub task: Option<String>,
    /// The language, `und` by default.
    pub lang: Option<String>,
    /// Files or glob patterns, relative to the corpus.
    pub files: Vec<String>,
    /// Files or glob patterns whose records are all held out.
    #[serde(default)]
    pub validation_files: Vec<String>,
    /// The format, guessed from the suffix or the content by default.
    pub format: Option<FormatName>,
    /// Names of the columns of a file without a header.
    pub columns: Option<Vec<String>>,
    /// Whether the first record of a file is a header, which `columns` then renames.
    pub header: Option<bool>,
    /// The character between the fields of quoted CSV.
    pub delimiter: Option<String>,
    /// Prompts and targets, in order.
    pub segments: Option<Vec<SegmentSpec>>,
    /// How often each record is trained on in one pass over the dataset.
    pub epochs: Option<f64>,
    /// Its part in the mix, instead of its size.
    pub weight: Option<f64>,
    /// What becomes of a record longer than a row.
    pub overflow: Option<Overflow>,
    /// Which tokens are trained.
    pub loss: Option<LossPolicy>,
    /// What becomes of data that spells a control token.
    pub special_in_data: Option<SpecialInData>,
    /// Which duplicates are dropped.
    pub duplicates: Option<Duplicates>,
}

/// One segment of a source: a template and its part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentSpec {
    /// Text that is given.
    Prompt(String),
    /// Text that is trained.
    Target(String),
}

impl SegmentSpec {
    /// The template, whichever part it plays.
    #[must_use]
    pub(crate) fn template(&self) -> &str {
        match self {
            Self::Prompt(template) | Self::Target(template) => template,
        }
    }
}

impl PlanSpec {
    /// Reads the text of a `corpus.toml`; `file` is its name in errors.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        written::check(text, file)?;
        toml::from_str(text).map_err(|error| {
            let mut out = Error::config(error.message().to_owned()).file(file);
            if let Some(span) = error.span() {
                out = out.line(1 + text[..span.start].matches('\n').count() as u64);
            }
            out.remedy("see docs/configuration.md")
        })
    }
}

/// The candidate most like `word`, if any is like it at all.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.6)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_names_its_line_and_the_nearest_known_one() {
        let error = PlanSpec::parse("[pack]\nseq_length = 5\n", "corpus.toml").unwrap_err();
        assert_eq!(error.line, Some(2));
        assert_eq!(error.remedy.as_deref(), Some("did you mean `seq_len`?"));
    }

    #[test]
    fn a_segment_is_a_prompt_or_a_target() {
        let text = "[[source]]\nname='a'\nfiles=['a']\nsegments=[{promt='x'}]\n";
        let error = PlanSpec::parse(text, "corpus.toml").unwrap_err();
        assert!(error.remedy.unwrap().contains("`prompt`"), "{}", error.message);
    }
}
