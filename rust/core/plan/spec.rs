//! `PlanSpec`: `corpus.toml` as it was written. Unknown keys are errors. No other file is read.

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
    /// The settings of packing.
    #[serde(default)]
    pub pack: PackSpec,
    /// The mix of sources without `epochs`.
    pub mix: Option<MixSpec>,
    /// The sources, in order.
    #[serde(default, rename = "source")]
    pub sources: Vec<SourceSpec>,
}

/// The section `[tokenizer]`.
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

/// The section `[pack]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackSpec {
    /// The number of tokens in a row.
    pub seq_len: Option<usize>,
    /// The policy that puts documents into rows.
    pub pack: Option<Packing>,
    /// The share of records held out, in `[0, 1)`.
    pub validation: Option<f64>,
    /// The seed of every random choice.
    pub seed: Option<u64>,
    /// The policy for data that spells a control token, for sources that name none.
    pub special_in_data: Option<SpecialInData>,
    /// The number of tokens that a shard is planned to hold.
    pub shard_tokens: Option<u64>,
    /// Files or glob patterns that training is kept clean of.
    #[serde(default)]
    pub decontaminate: Vec<String>,
    /// The size in words of the n-grams that training may not share with these files.
    pub decontaminate_ngram: Option<usize>,
    /// The policy for duplicates, for sources that name none.
    pub duplicates: Option<Duplicates>,
}

/// The section `[mix]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixSpec {
    /// The kind of group that receives shares.
    pub by: Option<MixBy>,
    /// The temperature. Above 1, shares are nearer to each other than sizes or weights are.
    pub temperature: Option<f64>,
    /// The unit of shares.
    pub unit: Option<Unit>,
    /// The most copies of a record, on average over its source.
    pub max_epochs: Option<f64>,
}

/// The kind of group that receives shares of a mix.
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

/// The unit of shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Documents; each window of a long text counts as a document.
    Examples,
    /// Tokens.
    Tokens,
    /// Trained tokens: a share of them is a share of the loss.
    #[default]
    Targets,
}

/// A section `[[source]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSpec {
    /// The name, unique in the corpus: it identifies the records of the source.
    pub name: String,
    /// The task that it trains; its name by default.
    pub task: Option<String>,
    /// The language of its texts, `und` by default.
    pub lang: Option<String>,
    /// Files or glob patterns, relative to the corpus.
    pub files: Vec<String>,
    /// Files or glob patterns whose records are all held out.
    #[serde(default)]
    pub validation_files: Vec<String>,
    /// The format, guessed from the suffix or the content by default.
    pub format: Option<FormatName>,
    /// The names of the columns of a file without a header.
    pub columns: Option<Vec<String>>,
    /// Whether the first record of a file is a header, which `columns` then renames.
    pub header: Option<bool>,
    /// The character between the fields of quoted CSV.
    pub delimiter: Option<String>,
    /// The templates of its prompts and targets, in order.
    pub segments: Option<Vec<SegmentSpec>>,
    /// Copies of each record in the dataset, on average.
    pub epochs: Option<f64>,
    /// The weight in the mix, in place of its size.
    pub weight: Option<f64>,
    /// The policy for records longer than a row.
    pub overflow: Option<Overflow>,
    /// The policy that chooses trained tokens.
    pub loss: Option<LossPolicy>,
    /// The policy for data that spells a control token.
    pub special_in_data: Option<SpecialInData>,
    /// The policy for duplicates.
    pub duplicates: Option<Duplicates>,
}

/// A segment of a source: a template, as prompt or as target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentSpec {
    /// The template of text that the model is given.
    Prompt(String),
    /// The template of text that is trained.
    Target(String),
}

impl SegmentSpec {
    /// Returns the template of the prompt or target.
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

/// Returns the candidate most like `word`; `None` if all are too different.
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
