//! `FilterSpec`: the table `filter` of a source, which says which of its records are dropped for
//! their text.

use serde::{Deserialize, Serialize};

use super::mix;
use crate::error::{Error, Result};

/// The table `filter`. Every key is off unless it is written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterSpec {
    /// The text that is measured.
    #[serde(default)]
    pub of: Measured,
    /// The fewest characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_chars: Option<u64>,
    /// The most characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_chars: Option<u64>,
    /// The fewest words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_words: Option<u64>,
    /// The most words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_words: Option<u64>,
    /// The fewest tokens of a whole document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_tokens: Option<u64>,
    /// The most tokens of a whole document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// The smallest share of letters among the characters that are no white space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_letters: Option<f64>,
    /// The smallest share of letters of the expected script among all letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_script: Option<f64>,
    /// The expected script; that of the source's language by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// The smallest probability that the text is in the expected language.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_language: Option<f64>,
    /// The expected language; that of the source by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// The library that identifies languages, with its version, and its code of the expected one.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub(crate) identifier: Option<(String, String)>,
    /// The largest share of lines that repeat an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_repeated_lines: Option<f64>,
    /// The largest share of characters in n-grams that repeat an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_repeated_ngrams: Option<f64>,
    /// The words of such an n-gram.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ngram: Option<u64>,
    /// Published rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// The limits of `FineWeb`-2 for the language.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// The limits of `FineWeb`-2 for a language, under the names that its files `configs/*.yml` use.
/// Each is off unless it is written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The largest share of lines that repeat an earlier one.
    pub dup_line_frac: Option<f64>,
    /// By n: the largest share of characters in the most frequent n-gram.
    pub top_n_grams: Vec<(u64, f64)>,
    /// By n: the largest share of characters in repeated n-grams.
    pub dup_n_grams: Vec<(u64, f64)>,
    /// The smallest share of lines that end in punctuation.
    pub line_punct_thr: Option<f64>,
    /// The most line breaks for a word.
    pub new_line_ratio: Option<f64>,
    /// The smallest mean length of words.
    pub min_avg_word_length: Option<f64>,
    /// The largest mean length of words.
    pub max_avg_word_length: Option<f64>,
    /// The smallest share of words with a letter, whatever the name says.
    pub max_non_alpha_words_ratio: Option<f64>,
    /// The words of which a text has two at least.
    pub stopwords: Vec<String>,
}

/// The text that a filter measures. Text of templates counts in none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measured {
    /// The data of prompts and targets.
    #[default]
    Text,
    /// The data of prompts.
    Prompt,
    /// The data of targets.
    Target,
}

/// A set of published rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Against repetition: Rae et al. 2021, table A1.
    GopherRepetition,
    /// Of quality: Rae et al. 2021, section A.1.1.
    GopherQuality,
    /// Of quality: Penedo et al. 2024.
    FinewebQuality,
    /// Of repetition and quality, with limits for each language: Penedo et al. 2025.
    #[serde(rename = "fineweb-2")]
    Fineweb2,
}

/// The words of an n-gram, unless the table says otherwise.
const NGRAM: u64 = 5;

impl FilterSpec {
    /// Returns the words of the n-grams whose repetition is measured.
    #[must_use]
    pub(crate) fn ngram(&self) -> usize {
        self.ngram.unwrap_or(NGRAM) as usize
    }

    /// Refuses limits that no text, or every text, would meet, and keys without effect.
    pub(super) fn check(&self) -> Result<()> {
        let shares = [
            ("min_letters", self.min_letters),
            ("min_script", self.min_script),
            ("min_language", self.min_language),
            ("max_repeated_lines", self.max_repeated_lines),
            ("max_repeated_ngrams", self.max_repeated_ngrams),
        ];
        for (name, share) in shares {
            if let Some(share) = share.filter(|share| !(0.0..=1.0).contains(share)) {
                let what = format!("filter: {name} = {}: must be from 0 to 1", mix::shown(share));
                return Err(Error::config(what).remedy("it is a share: 0.3 is 30 %"));
            }
        }
        let ranges = [
            ("chars", self.min_chars, self.max_chars),
            ("words", self.min_words, self.max_words),
            ("tokens", self.min_tokens, self.max_tokens),
        ];
        for (unit, min, max) in ranges {
            if let (Some(min), Some(max)) = (min, max)
                && min > max
            {
                let what = format!("filter: min_{unit} = {min} is above max_{unit} = {max}");
                return Err(Error::config(what).remedy("no text could be kept: swap them"));
            }
        }
        if self.ngram == Some(0) {
            return Err(Error::config("filter: ngram = 0: an n-gram has a word or more")
                .remedy("leave it out: it is 5 by default"));
        }
        for (key, given, other, needed) in [
            ("script", self.script.is_some(), "min_script", self.min_script.is_some()),
            ("language", self.language.is_some(), "min_language", self.min_language.is_some()),
            (
                "ngram",
                self.ngram.is_some(),
                "max_repeated_ngrams",
                self.max_repeated_ngrams.is_some(),
            ),
        ] {
            if given && !needed {
                return Err(Error::config(format!(
                    "filter: `{key}` without `{other}` does nothing"
                ))
                .remedy(format!("give `{other}` too, a share such as 0.5")));
            }
        }
        let lists =
            self.limits.iter().flat_map(|limits| [&limits.top_n_grams, &limits.dup_n_grams]);
        let mut lists = lists.map(|list| list.iter().map(|(n, _)| *n));
        if lists.any(|mut ns| ns.any(|n| n == 0) || !ns.is_sorted()) {
            return Err(Error::config(
                "filter: n-grams of `limits` are listed from the smallest on",
            )
            .remedy("write them as [[5, 0.15], [6, 0.14]]"));
        }
        match (self.rules.contains(&Rule::Fineweb2), self.limits.is_some()) {
            (true, false) => Err(Error::config("filter: the rules \"fineweb-2\" need `limits`")
                .remedy("take them over from the file of your language in FineWeb-2's configs/")),
            (false, true) => {
                Err(Error::config("filter: `limits` without \"fineweb-2\" does nothing")
                    .remedy("name the rules too: rules = [\"fineweb-2\"]"))
            }
            _ => Ok(()),
        }
    }
}
