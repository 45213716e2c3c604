//! `State`: the record of a run in its work folder. `Identity`: everything that the bytes of its
//! dataset depend on.
//!
//! A state is sealed, and its values are checked when it is read: a run never goes on from a
//! damaged state.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::manifest::{InputEntry, Manifest, Program};
use super::seal::{sealed_text, unsealed};
use super::work::{STATE_FILE, WORK};
use crate::error::{Error, Result};
use crate::storage::Storage;

/// Everything that the bytes of a dataset depend on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The program that packs.
    pub program: Program,
    /// The sha256 of the tokenizer's bytes.
    pub tokenizer: String,
    /// The ids of BOS, EOS and pad.
    pub controls: (Option<u32>, u32, u32),
    /// The resolved configuration.
    pub config: Value,
    /// The inputs with their checksums.
    pub inputs: Vec<InputEntry>,
}

impl Identity {
    /// Returns the identity of a finished dataset.
    #[must_use]
    pub(crate) fn of_dataset(manifest: &Manifest) -> Self {
        let tokenizer = &manifest.tokenizer;
        Self {
            program: manifest.program.clone(),
            tokenizer: tokenizer.sha256.clone(),
            controls: (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id),
            config: manifest.config.clone(),
            inputs: manifest.inputs.clone(),
        }
    }

    /// Returns the first difference of `now`, in words; `None` if there is none. An empty checksum
    /// is not known yet.
    #[must_use]
    pub(crate) fn change(&self, now: &Self) -> Option<String> {
        if self.program != now.program {
            let version = |program: &Program| format!("{} {}", program.name, program.version);
            return Some(format!(
                "the program was {}, it is {}",
                version(&self.program),
                version(&now.program)
            ));
        }
        if self.tokenizer != now.tokenizer {
            return Some("the tokenizer file was changed".to_owned());
        }
        if self.controls != now.controls {
            return Some("the tokenizer's BOS, EOS or pad was changed".to_owned());
        }
        if let Some(what) = changed_value(&self.config, &now.config, "") {
            return Some(format!("the configuration was changed: {what}"));
        }
        let paths = |inputs: &[InputEntry]| {
            inputs.iter().map(|input| input.path.clone()).collect::<Vec<_>>()
        };
        if paths(&self.inputs) != paths(&now.inputs) {
            return Some("the list of inputs was changed".to_owned());
        }
        let is_unknown = |input: &InputEntry| input.xxh3_128.is_empty();
        let is_same = |was: &InputEntry, is: &InputEntry| {
            let is_equal = was.xxh3_128 == is.xxh3_128 || is_unknown(was) || is_unknown(is);
            was.size == is.size && is_equal
        };
        let changed = self.inputs.iter().zip(&now.inputs).find(|(was, is)| !is_same(was, is));
        changed.map(|(was, _)| format!("the input {} was changed", was.path))
    }

    /// Refuses to go on in `out` if `now` differs.
    pub(crate) fn refuse_changes(&self, now: &Self, out: &Path) -> Result<()> {
        match self.change(now) {
            None => Ok(()),
            Some(what) => Err(Error::output(format!("cannot be resumed: {what}"))
                .file(out.display().to_string())
                .remedy("undo the change, or pass --overwrite without --resume to start again")),
        }
    }
}

/// Returns the first value in which two configurations differ, with its path, in words.
fn changed_value(was: &Value, is: &Value, path: &str) -> Option<String> {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (was, is) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            keys.into_iter().find_map(|key| changed_value(&was[key], &is[key], &below(key)))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            // A source is known by its name.
            let key = |nth: usize, value: &Value| {
                value["name"].as_str().map_or(nth.to_string(), str::to_owned)
            };
            a.iter()
                .zip(b)
                .enumerate()
                .find_map(|(nth, (a, b))| changed_value(a, b, &below(&key(nth, a))))
        }
        _ if was == is => None,
        _ => Some(format!("{path} was {}, it is {}", in_short(was), in_short(is))),
    }
}

/// The most characters of a value that an error shows.
const SHOWN: usize = 200;

/// Returns a value in a few words: sources by their names, other JSON cut where it is long.
fn in_short(value: &Value) -> String {
    let names = value.as_array().map(|values| {
        values.iter().map(|value| value["name"].as_str()).collect::<Option<Vec<_>>>()
    });
    let text = match names {
        Some(Some(names)) if !names.is_empty() => names.join(", "),
        _ => value.to_string(),
    };
    if text.chars().count() <= SHOWN {
        return text;
    }
    text.chars().take(SHOWN).chain(['…']).collect()
}

/// The stage that a run has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// Spools or shards are being made.
    Working,
    /// The dataset is whole and on its way into place.
    Moving,
    /// The dataset is in place; its spool was kept.
    Kept,
}

/// The record of a run in its work folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    /// The identity of the dataset that it makes.
    pub identity: Identity,
    /// The size of its input splits in bytes.
    pub split_bytes: u64,
    /// Whether its spool is to be kept.
    pub keep_spool: bool,
    /// The path of its corpus.
    #[serde(with = "any_path")]
    pub corpus: PathBuf,
    /// The path of its tokenizer file.
    #[serde(with = "any_path_or_none")]
    pub tokenizer: Option<PathBuf>,
    /// The stage it has reached.
    pub stage: Stage,
    /// The number of parts in which processes of their own map the corpus, if it is mapped so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<usize>,
}

impl State {
    /// Reads the state in the work folder of `out`; `None` if there is none.
    pub(crate) fn of(storage: &dyn Storage, out: &Path) -> Result<Option<Self>> {
        let path = out.join(WORK).join(STATE_FILE);
        if !storage.is_surely_there(&path)? {
            return Ok(None);
        }
        let damaged = |what: &str| {
            Error::output(format!("is of another version of sabiprep, or damaged: {what}"))
                .file(path.display().to_string())
                .remedy("remove the folder .work, then pack again")
        };
        let bytes = storage.whole_bytes(&path)?;
        let text = std::str::from_utf8(&bytes).map_err(|error| damaged(&error.to_string()))?;
        let state: Self = unsealed(text).map_err(|what| damaged(&what))?;
        if state.split_bytes == 0 {
            return Err(damaged("split_bytes is 0"));
        }
        Ok(Some(state))
    }

    /// Returns the sealed text of the state.
    pub(super) fn to_text(&self) -> String {
        sealed_text(self).expect("a state is plain data")
    }
}

/// A path in JSON: text where it is UTF-8, else its bytes.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum AnyPath {
    Text(String),
    Bytes(Vec<u8>),
}

impl AnyPath {
    /// Returns the form of a path that loses nothing.
    fn of(path: &Path) -> Self {
        path.to_str().map_or_else(
            || Self::Bytes(path.as_os_str().as_encoded_bytes().to_vec()),
            |text| Self::Text(text.to_owned()),
        )
    }

    /// Returns the path again.
    fn into_path(self) -> PathBuf {
        match self {
            Self::Text(text) => text.into(),
            #[cfg(unix)]
            Self::Bytes(bytes) => {
                <std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes).into()
            }
            #[cfg(not(unix))]
            Self::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned().into(),
        }
    }
}

pub(crate) mod any_path {
    use super::{AnyPath, Deserialize, Path, PathBuf, Serialize};

    pub(crate) fn serialize<S: serde::Serializer>(
        path: &Path,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        AnyPath::of(path).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<PathBuf, D::Error> {
        AnyPath::deserialize(deserializer).map(AnyPath::into_path)
    }
}

mod any_path_or_none {
    use super::{AnyPath, Deserialize, PathBuf, Serialize};

    #[expect(clippy::ref_option, reason = "serde gives it so")]
    pub(crate) fn serialize<S: serde::Serializer>(
        path: &Option<PathBuf>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        path.as_deref().map(AnyPath::of).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        Option::<AnyPath>::deserialize(deserializer).map(|path| path.map(AnyPath::into_path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_changed_is_named() {
        let identity = Identity {
            program: Program { name: "sabiprep".to_owned(), version: "1".to_owned() },
            tokenizer: "a".to_owned(),
            controls: (None, 0, 0),
            config: json!({"pack": {"seq_len": 64}, "source": [{"name": "x", "epochs": 1.0}]}),
            inputs: vec![InputEntry {
                path: "a.txt".to_owned(),
                size: 3,
                xxh3_128: "0".to_owned(),
            }],
        };
        assert_eq!(identity.change(&identity.clone()), None);
        let change = |with: &dyn Fn(&mut Identity)| {
            let mut now = identity.clone();
            with(&mut now);
            identity.change(&now).unwrap()
        };
        assert!(change(&|now| now.program.version = "2".to_owned()).contains("sabiprep 2"));
        assert!(change(&|now| now.tokenizer = "b".to_owned()).contains("tokenizer"));
        assert!(change(&|now| now.controls.1 = 7).contains("EOS"));
        assert!(change(&|now| now.inputs[0].xxh3_128 = "1".to_owned()).contains("a.txt"));
        assert!(change(&|now| now.inputs.clear()).contains("list of inputs"));
        let config = change(&|now| now.config["source"][0]["epochs"] = json!(2.0));
        assert!(config.ends_with("source.x.epochs was 1.0, it is 2.0"), "{config}");
        let config = change(&|now| now.config["pack"]["pack"] = json!("none"));
        assert!(config.ends_with("pack.pack was null, it is \"none\""), "{config}");
    }
}
