//! `Manifest`: what a dataset is made of, and the proof that it was not changed.
//!
//! Its `sha256` covers its own bytes, with the 64 digits of that value read as zeros.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::seal::{ZEROS, digest_of, is_sealed};
use crate::error::{Error, Result};
use crate::schema::{FORMAT_VERSION, LossPolicy, Overflow};
use crate::settle::Sums;
use crate::storage::Storage;
use crate::tokenize::Probe;

/// The manifest's name in a dataset.
pub(crate) const MANIFEST_FILE: &str = "manifest.json";

/// The manifest of a dataset.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// `sabiprep`.
    pub format: String,
    /// The version of the format.
    pub format_version: u32,
    /// The sha256 of this file's bytes, this value read as zeros.
    pub sha256: String,
    /// The program that made it.
    pub program: Program,
    /// The tokenizer.
    pub tokenizer: TokenizerEntry,
    /// Tokens in a row.
    pub seq_len: usize,
    /// Rows in every record batch but a shard's last.
    pub rows_per_batch: usize,
    /// `uint16` or `uint32`.
    pub id_dtype: String,
    /// The seed of every random choice.
    pub seed: u64,
    /// The resolved configuration.
    pub config: Value,
    /// The files it was made from.
    pub inputs: Vec<InputEntry>,
    /// What became of each source; a source's id is its index.
    pub sources: Vec<SourceEntry>,
    /// Train and validation.
    pub splits: BTreeMap<String, SplitEntry>,
    /// What is worth knowing of how it was made, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A program and its version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl Program {
    /// This one.
    #[must_use]
    pub(crate) fn this() -> Self {
        Self { name: "sabiprep".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// The tokenizer of a dataset.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenizerEntry {
    /// Its file in the dataset.
    pub file: String,
    /// The sha256 of its bytes.
    pub sha256: String,
    /// Its largest id + 1.
    pub vocab_size: usize,
    /// BOS, if documents are opened by one.
    pub bos_id: Option<u32>,
    /// EOS.
    pub eos_id: u32,
    /// Padding.
    pub pad_id: u32,
    /// What encoded.
    pub engine: String,
    /// The Unicode version of the content keys.
    pub unicode: String,
    /// Strings with their ids.
    pub probes: Vec<Probe>,
    /// The chat template that was beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
}

/// An input of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputEntry {
    /// Its path in the corpus.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its checksum.
    pub xxh3_128: String,
}

/// A source of a dataset.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SourceEntry {
    /// Its name.
    pub name: String,
    /// What is to be trained.
    pub task: String,
    /// The language.
    pub lang: String,
    /// The paths of its inputs: bits 40 and up of a record id are an index into this list.
    pub inputs: Vec<String>,
    /// Which tokens are trained.
    pub loss: LossPolicy,
    /// What became of records longer than a row.
    pub overflow: Overflow,
    /// Copies of each training record, on average.
    pub epochs: f64,
    /// Those that the configuration asks for; more than are made where `max_epochs` holds the
    /// source back.
    pub asked_epochs: f64,
    /// Copies made of its training records.
    pub copies: u64,
    /// What there is to train on, each record once.
    pub unique: Sums,
    /// Records read.
    pub records: u64,
    /// Records in the dataset.
    pub kept: u64,
    /// Records shortened to fit a row.
    pub truncated: u64,
    /// Records dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Its training documents.
    pub train: Sums,
    /// Its validation documents.
    pub validation: Sums,
    /// The first dropped records of each reason.
    pub examples: Vec<ExampleEntry>,
}

/// A dropped record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExampleEntry {
    /// The reason it is counted under.
    pub reason: String,
    /// Its input.
    pub file: String,
    /// Its line, from 1.
    pub line: u64,
    /// What exactly was wrong.
    pub why: String,
}

/// One split of a dataset.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SplitEntry {
    /// Its rows.
    pub rows: u64,
    /// Its documents, copies and windows included.
    pub documents: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Their trained tokens.
    pub targets: u64,
    /// Tokens over rows × `seq_len`.
    pub utilisation: f64,
    /// Rows with 95 % or more of their tokens from one source.
    pub single_source_rows: u64,
    /// Its shards.
    pub shards: Vec<ShardEntry>,
}

/// A shard of a dataset.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShardEntry {
    /// Its file in the dataset.
    pub file: String,
    /// Its rows.
    pub rows: u64,
    /// Its documents.
    pub documents: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Their trained tokens.
    pub targets: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its checksum.
    pub xxh3_128: String,
}

impl Manifest {
    /// Its text.
    #[must_use]
    pub(crate) fn to_text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a manifest is plain data");
        text.push('\n');
        text
    }

    /// Fills in its digest.
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

    /// Whether `out` holds a manifest of sabiprep, of whatever version and however damaged beyond
    /// that word.
    #[must_use]
    pub(crate) fn is_ours(storage: &dyn Storage, out: &Path) -> bool {
        let text = storage.whole_text(&out.join(MANIFEST_FILE)).unwrap_or_default();
        serde_json::from_str::<Value>(&text).is_ok_and(|value| value["format"] == "sabiprep")
    }

    fn parse(storage: &dyn Storage, out: &Path) -> Result<(Self, String)> {
        let path = out.join(MANIFEST_FILE);
        if let Err(error) = storage.symlink_metadata(&path) {
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
        if value["format_version"] != FORMAT_VERSION {
            return Err(Error::dataset(format!(
                "format version {}, this program reads {FORMAT_VERSION}",
                value["format_version"]
            ))
            .file(shown(out))
            .remedy("pack the corpus again with this version of sabiprep"));
        }
        let manifest: Self =
            serde_json::from_str(&text).map_err(|error| not_ours(out, &error.to_string()))?;
        manifest.check().map_err(|what| not_ours(out, &what))?;
        Ok((manifest, text))
    }

    /// Returns where `file`, which the manifest names, is: inside the folder `out`, wherever links
    /// lead.
    ///
    /// An error if a link leads out of it, or it is no regular file. One that is not there is for
    /// its reader to miss.
    pub(crate) fn file_in(storage: &dyn Storage, out: &Path, file: &str) -> Result<PathBuf> {
        let path = out.join(file);
        match (storage.canonicalize(out), storage.canonicalize(&path)) {
            (Ok(inside), Ok(real)) if !real.starts_with(&inside) => Err(Error::dataset(format!(
                "a link out of the dataset's folder, to {}",
                real.display()
            ))
            .file(path.display().to_string())
            .remedy("put a copy of the file there instead of the link")),
            (_, Ok(real)) if !storage.is_file(&real) => Err(Error::dataset("no regular file")
                .file(path.display().to_string())
                .remedy("copy the dataset again, or pack the corpus again")),
            _ => Ok(path),
        }
    }
}

fn shown(out: &Path) -> String {
    out.join(MANIFEST_FILE).display().to_string()
}

fn not_ours(out: &Path, why: &str) -> Error {
    Error::dataset(format!("not a manifest of sabiprep: {why}"))
        .file(shown(out))
        .remedy("pack the corpus again")
}
