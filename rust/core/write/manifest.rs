//! `Manifest`: the contents and origin of a dataset, sealed against changes.
//!
//! Its `sha256` covers its own bytes, with the 64 digits of that value read as zeros.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::seal::{ZEROS, digest_of, is_sealed};
use crate::error::{Error, ErrorKind, Fault, Place, Result};
use crate::schema::{FORMAT_VERSION, LossPolicy, Overflow};
use crate::settle::Sums;
use crate::storage::Storage;
use crate::tokenize::Probe;

/// The manifest's name in a dataset.
pub(crate) const MANIFEST_FILE: &str = "manifest.json";

/// The manifest of a dataset.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// The word `sabiprep`.
    pub format: String,
    /// The version of the format on disk.
    pub format_version: u32,
    /// The sha256 of this file's bytes, this value read as zeros.
    pub sha256: String,
    /// The program that made the dataset.
    pub program: Program,
    /// The tokenizer of the dataset.
    pub tokenizer: TokenizerEntry,
    /// Tokens in a row.
    pub seq_len: usize,
    /// Rows in every record batch but a shard's last.
    pub rows_per_batch: usize,
    /// The type of token ids: `uint16` or `uint32`.
    pub id_dtype: String,
    /// The seed of every random choice.
    pub seed: u64,
    /// The resolved configuration.
    pub config: Value,
    /// The files that the dataset was made from.
    pub inputs: Vec<InputEntry>,
    /// The counts of each source; a source's id is its index.
    pub sources: Vec<SourceEntry>,
    /// The records of each source of several document tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<RecordsEntry>,
    /// The splits `train` and `validation`.
    pub splits: BTreeMap<String, SplitEntry>,
    /// The list of dropped records; `None` if no record was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<DroppedEntry>,
    /// The list of contaminated records; `None` if no record is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contaminated: Option<DroppedEntry>,
    /// The tasks of `lm-eval` that training is kept clean of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub benchmarks: Vec<BenchmarkEntry>,
    /// Notes about the data or the tokenizer that the user should know, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A program and its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    pub name: String,
    pub version: String,
}

impl Program {
    /// Returns the name and version of this program.
    #[must_use]
    pub(crate) fn this() -> Self {
        Self { name: "sabiprep".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// The tokenizer of a dataset.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenizerEntry {
    /// The path of its file in the dataset.
    pub file: String,
    pub sha256: String,
    /// Its largest id + 1.
    pub vocab_size: usize,
    /// The id of BOS, if it opens documents.
    pub bos_id: Option<u32>,
    /// The id of EOS.
    pub eos_id: u32,
    /// The id that fills rows.
    pub pad_id: u32,
    /// The engine that encoded.
    pub engine: String,
    /// The Unicode version of the content keys.
    pub unicode: String,
    /// Strings with their ids: a tokenizer that gives others has drifted.
    pub probes: Vec<Probe>,
    /// The chat template beside the tokenizer file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
}

/// An input of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputEntry {
    /// The path of the file in the corpus.
    pub path: String,
    /// The size of the file in bytes.
    pub size: u64,
    /// The checksum of the file.
    pub xxh3_128: String,
}

/// A source of a dataset.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SourceEntry {
    pub name: String,
    /// The task that it trains.
    pub task: String,
    /// The language of its texts.
    pub lang: String,
    /// The paths of its inputs: bits 40 and up of a record id are an index into this list.
    pub inputs: Vec<String>,
    /// The policy that chooses its trained tokens.
    pub loss: LossPolicy,
    /// The policy for records longer than a row.
    pub overflow: Overflow,
    /// Copies of each training record, on average.
    pub epochs: f64,
    /// The epochs that the configuration asks for: more than `epochs` where `max_epochs` holds the
    /// source back.
    pub asked_epochs: f64,
    /// Copies made of its training records.
    pub copies: u64,
    /// Sums over its training records, each counted once.
    pub unique: Sums,
    /// Records read.
    pub records: u64,
    /// Records in the dataset.
    pub kept: u64,
    /// Records shortened to fit a row.
    pub truncated: u64,
    /// Records dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Sums over its training documents.
    pub train: Sums,
    /// Sums over its validation documents.
    pub validation: Sums,
    /// The first dropped records of each reason.
    pub examples: Vec<ExampleEntry>,
    /// Records that cleaning changed, by the key of `clean` that asked for the change.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cleaned: BTreeMap<String, CleanedEntry>,
    /// The field with the spans of its text that are trained, if it has such spans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spans: Option<String>,
    /// The field with the weight of a document in the loss, if it has weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_weight: Option<String>,
    /// Documents that were left out of records with others, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, LeftOutEntry>,
    /// The source of the configuration whose document table it is: all of its tables read the same
    /// records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_of: Option<String>,
}

/// The records of a source of several document tables: each counts once, whatever its documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordsEntry {
    /// The name of the source in the configuration.
    pub source: String,
    /// Records read.
    pub records: u64,
    /// Records of which some table makes a document.
    pub kept: u64,
    /// Records of which none does.
    pub without: u64,
}

/// The documents that were left out for one reason.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LeftOutEntry {
    /// Their number.
    pub documents: u64,
    /// The first records with any.
    pub examples: Vec<LeftOutExample>,
}

/// A record of which a document was left out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LeftOutExample {
    /// The path of its input.
    pub file: String,
    /// The line it begins on, or its row: `line` or `row`.
    #[serde(flatten)]
    pub place: Place,
    /// The document and its fault, in words.
    pub why: String,
}

/// The records that cleaning changed in one way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CleanedEntry {
    /// Their number.
    pub records: u64,
    /// The first of them.
    pub examples: Vec<CleanedExample>,
}

/// A record that cleaning changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CleanedExample {
    /// The path of its input.
    pub file: String,
    /// The line it begins on, or its row: `line` or `row`.
    #[serde(flatten)]
    pub place: Place,
    /// The first changed word, with the code points before and after.
    pub change: String,
}

/// A task of `lm-eval` that training is kept clean of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BenchmarkEntry {
    /// The name, version and split of the task; the inputs hold the checksum of its texts.
    pub name: String,
    /// The number of its documents.
    pub documents: u64,
    /// The number of its documents with fewer words than an n-gram.
    pub short: u64,
}

/// A dropped record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExampleEntry {
    /// The reason it is counted under.
    pub reason: String,
    /// The path of its input.
    pub file: String,
    /// The line it begins on, or its row: `line` or `row`.
    #[serde(flatten)]
    pub place: Place,
    /// The exact fault, in words.
    pub why: String,
}

/// The list of the dropped records of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedEntry {
    /// The path of its file in the dataset.
    pub file: String,
    /// The number of records that it lists.
    pub records: u64,
    /// The size of the file in bytes.
    pub bytes: u64,
    /// The checksum of the file.
    pub xxh3_128: String,
}

/// One split of a dataset.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SplitEntry {
    /// The number of rows.
    pub rows: u64,
    /// The number of documents, copies and windows included.
    pub documents: u64,
    /// The number of tokens.
    pub tokens: u64,
    /// The number of trained tokens.
    pub targets: u64,
    /// The number of tokens over rows × `seq_len`.
    pub utilisation: f64,
    /// The number of rows with 95 % or more of their tokens from one source.
    pub single_source_rows: u64,
    /// The shards, in order.
    pub shards: Vec<ShardEntry>,
}

/// A shard of a dataset.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShardEntry {
    /// The path of its file in the dataset.
    pub file: String,
    /// The number of rows.
    pub rows: u64,
    /// The number of documents.
    pub documents: u64,
    /// The number of tokens.
    pub tokens: u64,
    /// The number of trained tokens.
    pub targets: u64,
    /// The size of the file in bytes.
    pub bytes: u64,
    /// The checksum of the file.
    pub xxh3_128: String,
}

impl Manifest {
    /// Returns the text of the manifest as it is written.
    #[must_use]
    pub(crate) fn to_text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a manifest is plain data");
        text.push('\n');
        text
    }

    /// Returns whether the rows have a column with the weights of their documents.
    #[must_use]
    pub(crate) fn is_weighted(&self) -> bool {
        self.format_version == FORMAT_VERSION
    }

    /// Fills in the digest of the manifest.
    pub(crate) fn seal(&mut self) {
        ZEROS.clone_into(&mut self.sha256);
        self.sha256 = digest_of(&self.to_text());
    }

    /// Reads the manifest of the dataset `out` and proves that it was not changed.
    pub fn read(storage: &dyn Storage, out: &Path) -> Result<Self> {
        let (manifest, text) = Self::parse(storage, out)?;
        if !is_sealed(&text, &manifest.sha256) {
            return Err(Error::dataset("the manifest was changed: its sha256 does not fit")
                .file(shown(out))
                .remedy("pack the corpus again"));
        }
        Ok(manifest)
    }

    /// Returns whether `out` holds a manifest of sabiprep. The version and the rest of the text do
    /// not matter.
    #[must_use]
    pub(crate) fn is_ours(storage: &dyn Storage, out: &Path) -> bool {
        let text = storage.whole_text(&out.join(MANIFEST_FILE)).unwrap_or_default();
        serde_json::from_str::<Value>(&text).is_ok_and(|value| value["format"] == "sabiprep")
    }

    /// Reads and checks the manifest of the dataset `out`. Returns it with its text.
    fn parse(storage: &dyn Storage, out: &Path) -> Result<(Self, String)> {
        let path = out.join(MANIFEST_FILE);
        if let Err(error) = storage.symlink_metadata(&path) {
            if Fault::of(&error).is_some() {
                return Err(Error::io(ErrorKind::Dataset, &path, &error));
            }
            return Err(Error::dataset("no manifest.json: not a dataset, or an unfinished one")
                .file(out.display().to_string())
                .remedy("run `sabiprep pack`; it writes the manifest last")
                .io_kind(error.kind()));
        }
        let text = storage.whole_text(&path)?;
        let value: Value =
            serde_json::from_str(&text).map_err(|error| not_ours(out, &error.to_string()))?;
        if value["format"] != "sabiprep" {
            return Err(not_ours(out, "it does not say \"format\": \"sabiprep\""));
        }
        // Before the fields: another version may have others.
        let version = &value["format_version"];
        if !(1..=u64::from(FORMAT_VERSION)).any(|known| version.as_u64() == Some(known)) {
            return Err(Error::dataset(format!(
                "format version {version}, this program reads versions up to {FORMAT_VERSION}"
            ))
            .file(shown(out))
            .remedy("pack the corpus again with this version of sabiprep"));
        }
        let manifest: Self =
            serde_json::from_str(&text).map_err(|error| not_ours(out, &error.to_string()))?;
        manifest.check().map_err(|what| not_ours(out, &what))?;
        Ok((manifest, text))
    }

    /// Returns the path of `file`, which the manifest names, in the folder `out`.
    ///
    /// Refuses a file outside the folder, by way of a link, and a path that is no regular file. A
    /// missing file is left to its reader.
    pub(crate) fn file_in(storage: &dyn Storage, out: &Path, file: &str) -> Result<PathBuf> {
        let path = out.join(file);
        match (storage.canonicalize(out), storage.canonicalize(&path)) {
            (Ok(inside), Ok(real)) if !real.starts_with(&inside) => Err(Error::dataset(format!(
                "a link out of the dataset's folder, to {}",
                real.display()
            ))
            .file(path.display().to_string())
            .remedy("put a copy of the file there instead of the link")),
            (_, Ok(real)) if !storage.is_file(&real) && storage.exists(&real) => {
                Err(Error::dataset("no regular file")
                    .file(path.display().to_string())
                    .remedy("copy the dataset again, or pack the corpus again"))
            }
            _ => Ok(path),
        }
    }
}

/// Returns the path of the manifest of `out`, for errors.
fn shown(out: &Path) -> String {
    out.join(MANIFEST_FILE).display().to_string()
}

/// Returns the error of a text that is not a manifest.
fn not_ours(out: &Path, why: &str) -> Error {
    Error::dataset(format!("not a manifest of sabiprep: {why}"))
        .file(shown(out))
        .remedy("pack the corpus again")
}
