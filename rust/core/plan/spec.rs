//! `PlanSpec`: `corpus.toml` as it was written, its sources with the keys that they take from
//! `[defaults]` and templates. Unknown keys are errors. No other file is read.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::Table;

use super::augment::{self, AugmentSpec};
use super::files::Files;
use super::{
    CONFIG_FILE, ChatSpec, Choose, CleanSpec, FilterSpec, NearSpec, TaggedSpec, documents, shown,
    written,
};
use crate::error::{Error, Result};
use crate::pack::Packing;
use crate::read::{Encoding, FormatName, Renames, TextUnit, small_text};
use crate::schema::{Duplicates, LossPolicy, Overflow, SpecialInData};
use crate::storage::Storage;

/// The whole of `corpus.toml`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(try_from = "Sections")]
pub struct PlanSpec {
    /// The tokenizer and its control tokens.
    pub tokenizer: TokenizerSpec,
    /// The settings of packing.
    pub pack: PackSpec,
    /// The mix of sources without `epochs`.
    pub mix: Option<MixSpec>,
    /// The sources, in order, each with the keys of its template and of `[defaults]`.
    pub sources: Vec<SourceSpec>,
}

/// The sections of `corpus.toml`, sources still apart from the keys that they share.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sections {
    #[serde(default)]
    tokenizer: TokenizerSpec,
    #[serde(default)]
    pack: PackSpec,
    mix: Option<MixSpec>,
    /// Keys of every source that does not have them.
    #[serde(default)]
    defaults: Table,
    /// Keys of the sources that name the template.
    #[serde(default)]
    template: BTreeMap<String, Table>,
    #[serde(default)]
    source: Vec<Table>,
}

impl TryFrom<Sections> for PlanSpec {
    type Error = toml::de::Error;

    fn try_from(sections: Sections) -> std::result::Result<Self, Self::Error> {
        let Sections { tokenizer, pack, mix, defaults, template, source } = sections;
        let defaults = with_loss_weight(defaults);
        let template: BTreeMap<String, Table> =
            template.into_iter().map(|(name, table)| (name, with_loss_weight(table))).collect();
        let whole = |source: Table| {
            let mut source = with_loss_weight(source);
            let named = source.get("template").and_then(|name| template.get(name.as_str()?));
            for shared in named.into_iter().chain([&defaults]) {
                inherit(&mut source, shared);
            }
            documents::sources_of(source)
        };
        let sources = source.into_iter().flat_map(whole).map(Table::try_into);
        let sources = sources.collect::<std::result::Result<_, _>>()?;
        Ok(Self { tokenizer, pack, mix, sources })
    }
}

/// Returns the keys of a table with the field of a weight under its own key: `weight = "w"` is a
/// document's weight in the loss, `weight = 2.0` a source's weight in the mix. A source may have
/// both.
pub(super) fn with_loss_weight(mut table: Table) -> Table {
    if table.get("weight").is_some_and(toml::Value::is_str)
        && let Some(field) = table.remove("weight")
    {
        table.insert("loss_weight".to_owned(), field);
    }
    table
}

/// Adds the keys of `shared` that `source` does not have.
pub(super) fn inherit(source: &mut Table, shared: &Table) {
    // A source has one of each group, so its own takes the place of the others too.
    const APART: [&[&str]; 2] =
        [&["epochs", "weight"], &["segments", "chat", "tagged", "templates", "document"]];
    let own: Vec<String> = source.keys().cloned().collect();
    let is_replaced = |key: &str| {
        let group = APART.iter().find(|group| group.contains(&key));
        group.is_some_and(|group| own.iter().any(|own| group.contains(&own.as_str())))
    };
    for (key, value) in shared {
        if is_replaced(key) {
            continue;
        }
        source.entry(key.clone()).or_insert_with(|| value.clone());
    }
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
    /// How near duplicates are found.
    pub near: Option<NearSpec>,
    /// The largest share of unfit records, for sources that name none.
    pub max_bad_fraction: Option<f64>,
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
    /// The template whose keys it took.
    pub template: Option<String>,
    /// The task that it trains; its name by default.
    pub task: Option<String>,
    /// The language of its texts, `und` by default; or the field that holds it, as a template.
    pub lang: Option<String>,
    /// Files or glob patterns, relative to the corpus.
    pub files: Files,
    /// Files or glob patterns whose records are all held out.
    #[serde(default)]
    pub validation_files: Files,
    /// The format, guessed from the suffix or the content by default.
    pub format: Option<FormatName>,
    /// The names of the columns of a file without a header.
    pub columns: Option<Vec<String>>,
    /// Whether the first record of a file is a header, which `columns` then renames.
    pub header: Option<bool>,
    /// The character between the fields of quoted CSV.
    pub delimiter: Option<String>,
    /// New names of fields by their old ones.
    #[serde(default)]
    pub rename: Renames,
    /// The part of a text file that is a record.
    pub unit: Option<TextUnit>,
    /// The path from the objects of a JSON file to its records.
    pub records: Option<String>,
    /// The fields whose strings are Python literals.
    pub literals: Option<Vec<String>>,
    /// The fields whose labels are shown by name instead of by number.
    pub labels: Option<Vec<String>>,
    /// The encoding of its files, UTF-8 by default.
    pub encoding: Option<Encoding>,
    /// The templates of its prompts and targets, in order.
    pub segments: Option<Vec<SegmentSpec>>,
    /// The conversations of its records, in place of segments.
    pub chat: Option<ChatSpec>,
    /// The task that is made from its texts.
    #[serde(default, deserialize_with = "augment::written")]
    pub augment: Option<AugmentSpec>,
    /// The tagged texts of its records, in place of segments.
    pub tagged: Option<TaggedSpec>,
    /// Several templates of one task, in place of segments.
    pub templates: Option<Vec<Vec<SegmentSpec>>>,
    /// How many of its templates a record takes.
    pub choose: Option<Choose>,
    /// The name of its document table, if the source was made of one.
    pub document: Option<String>,
    /// The expression that must hold for a document, as a tag.
    pub when: Option<String>,
    /// The path of the list of which each element makes a document.
    pub each: Option<String>,
    /// Copies of each record in the dataset, on average.
    pub epochs: Option<f64>,
    /// The weight in the mix, in place of its size.
    pub weight: Option<f64>,
    /// The policy for records longer than a row.
    pub overflow: Option<Overflow>,
    /// The policy that chooses trained tokens.
    pub loss: Option<LossPolicy>,
    /// The field with the spans of the target's text that are trained.
    pub spans: Option<String>,
    /// The field with the weight of a document in the loss.
    pub loss_weight: Option<String>,
    /// The policy for data that spells a control token.
    pub special_in_data: Option<SpecialInData>,
    /// The policy for duplicates.
    pub duplicates: Option<Duplicates>,
    /// The changes of its texts before they are rendered.
    pub clean: Option<CleanSpec>,
    /// The limits beyond which a record is dropped for its text.
    pub filter: Option<FilterSpec>,
    /// The largest share of its records that may be unfit.
    pub max_bad_fraction: Option<f64>,
}

impl SourceSpec {
    /// Returns the name, with that of its document table.
    #[must_use]
    pub(crate) fn full_name(&self) -> String {
        documents::full_name(&self.name, self.document.as_deref())
    }
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
    /// Reads the `corpus.toml` of the corpus folder `root`.
    pub(crate) fn read(root: &Path, storage: &dyn Storage) -> Result<Self> {
        let path = root.join(CONFIG_FILE);
        let text = small_text(storage, &path).map_err(|error| {
            if storage.is_folder(root) {
                return error;
            }
            Error { io_kind: error.io_kind, ..Error::config("no such corpus folder") }
                .file(root.display().to_string())
                .remedy("name the folder that holds your corpus.toml")
        })?;
        // A checkout may change line ends, but not the text of templates.
        Self::parse(&text.replace("\r\n", "\n"), &shown(&path))
    }

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
    use crate::error::Place;

    #[test]
    fn an_unknown_key_names_its_line_and_the_nearest_known_one() {
        let error = PlanSpec::parse("[pack]\nseq_length = 5\n", "corpus.toml").unwrap_err();
        assert_eq!(error.place, Some(Place::Line(2)));
        assert_eq!(error.remedy.as_deref(), Some("did you mean `seq_len`?"));
    }

    #[test]
    fn a_sources_own_key_wins_over_its_templates_and_that_over_the_defaults() {
        let text = "[defaults]\ntask='d'\nlang='d'\nformat='text'\nepochs=2.0\n\
                    [template.t]\ntask='t'\nlang='t'\nvalidation_files=['v']\n\
                    [[source]]\nname='a'\nfiles=['a']\ntemplate='t'\nlang='a'\nweight=1\n\
                    [[source]]\nname='b'\nfiles='b'\n";
        let sources = PlanSpec::parse(text, "corpus.toml").unwrap().sources;
        let shown = |source: &SourceSpec| {
            let SourceSpec { task, lang, format, .. } = source.clone();
            [task, lang, format.map(|format| format.to_string())].map(Option::unwrap)
        };
        assert_eq!(shown(&sources[0]), ["t", "a", "text"]);
        assert_eq!(shown(&sources[1]), ["d", "d", "text"]);
        assert_eq!(sources[0].validation_files, Files::List(vec!["v".to_owned()]));
        assert_eq!(sources[1].files, Files::List(vec!["b".to_owned()]));
        // Epochs and a weight exclude each other.
        let chosen: Vec<_> = sources.iter().map(|source| (source.epochs, source.weight)).collect();
        assert_eq!(chosen, [(None, Some(1.0)), (Some(2.0), None)]);
    }

    #[test]
    fn a_segment_is_a_prompt_or_a_target() {
        let text = "[[source]]\nname='a'\nfiles=['a']\nsegments=[{promt='x'}]\n";
        let error = PlanSpec::parse(text, "corpus.toml").unwrap_err();
        assert!(error.remedy.unwrap().contains("`prompt`"), "{}", error.message);
    }
}
