//! Finds the data files below a folder, and says which others are passed over, and why.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::parallel::Side;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::find::portable_name;
use crate::plan::saved::{holds_splits, saved_files};
use crate::read::FormatName;
use crate::storage::Storage;

/// The deepest folder below the corpus that is looked at.
const DEEPEST: usize = 16;
/// The most files of a corpus without `corpus.toml`.
const MOST_FILES: usize = 100_000;
/// The most names that a sentence about passed-over files lists.
const NAMED: usize = 3;

/// Why a file of no known kind is passed over.
pub(super) const NO_SUFFIX: &str = "no suffix of a format";
/// Why a file without a record is passed over.
pub(super) const NO_RECORD: &str = "no record in them";
/// Why a test file is passed over.
pub(super) const TEST_FILES: &str = "test files: no training sees them";

/// Suffixes of compressed files, before which the suffix of the format stands.
pub(super) const COMPRESSED: [&str; 5] = ["gz", "zst", "bz2", "xz", "zip"];
/// Beginnings of the names of files about a corpus, in lower case.
const ABOUT: [&str; 10] = [
    "readme",
    "license",
    "licence",
    "copying",
    "notice",
    "citation",
    "changelog",
    "authors",
    "sources",
    "requirements",
];
/// Files that models, tokenizers and libraries keep beside data.
const KEPT_BESIDE: [&str; 13] = [
    "added_tokens.json",
    "config.json",
    "dataset_dict.json",
    "dataset_info.json",
    "dataset_infos.json",
    "generation_config.json",
    "manifest.json",
    "merges.txt",
    "package.json",
    "special_tokens_map.json",
    "state.json",
    "vocab.json",
    "vocab.txt",
];

/// A data file below the corpus folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    /// Its path relative to the corpus, with `/`.
    pub(super) name: String,
    /// The same without the suffixes of its format and of its compression.
    pub(super) stem: String,
    /// Whether all of it is one document.
    pub(super) is_document: bool,
}

/// The files below a folder.
#[derive(Debug, Default)]
pub(super) struct Folder {
    /// Files with the suffix of a format, in order of their names.
    pub(super) files: Vec<Found>,
    /// Files that may be one language of parallel text, in order of their names.
    pub(super) sides: Vec<Side>,
    /// Names that are passed over, by the reason.
    passed_over: BTreeMap<&'static str, Vec<String>>,
}

impl Folder {
    /// Lists the files below `root`.
    pub(super) fn list(root: &Path, storage: &dyn Storage) -> Result<Self> {
        let mut folder = Self::default();
        folder.add(root, root, 0, storage)?;
        Ok(folder)
    }

    /// Adds the files below `path`, in order of their names.
    fn add(&mut self, root: &Path, path: &Path, depth: usize, storage: &dyn Storage) -> Result<()> {
        let names =
            storage.list(path).map_err(|error| Error::io(ErrorKind::Input, path, &error))?;
        for name in names {
            let next = path.join(&name);
            let shown = portable_name(root, &next);
            let Some(name) = name.to_str() else {
                self.pass_over("names that are not UTF-8", shown);
                continue;
            };
            if name.starts_with('.') {
                self.pass_over("hidden", shown);
            } else if storage.is_folder(&next) {
                if storage.is_link(&next) {
                    self.pass_over("links to folders", shown);
                } else if is_dataset(&next, storage) {
                    self.pass_over("packed datasets", shown);
                } else if !holds_splits(storage, &next)
                    && let Some(files) = saved_files(storage, &next, &shown)?
                {
                    // Beside its files may lie others that a program cached there.
                    let path = files.into_iter().next().unwrap_or(next);
                    let (stem, is_document) = (shown.clone(), false);
                    self.files.push(Found { path, name: shown, stem, is_document });
                } else if depth == DEEPEST {
                    self.pass_over("too deep", shown);
                } else {
                    self.add(root, &next, depth + 1, storage)?;
                }
            } else if let Some(why) = set_aside(name) {
                self.pass_over(why, shown);
            } else if let Some(stem) = stem_of(&shown) {
                let stem = stem.to_owned();
                let found = Found { path: next, stem, name: shown, is_document: false };
                self.files.push(found);
                if self.files.len() > MOST_FILES {
                    return Err(Error::input(format!("holds more than {MOST_FILES} data files"))
                        .file(root.display().to_string())
                        .remedy("write a corpus.toml whose `files` are patterns"));
                }
            } else if let Some(side) = Side::of(&shown, &next) {
                self.sides.push(side);
            } else {
                self.pass_over(NO_SUFFIX, shown);
            }
        }
        Ok(())
    }

    /// Passes over a file.
    pub(super) fn pass_over(&mut self, why: &'static str, name: String) {
        self.passed_over.entry(why).or_default().push(name);
    }

    /// Returns the names that are passed over for a reason.
    pub(super) fn passed_over_for(&self, why: &str) -> HashSet<String> {
        self.passed_over.get(why).into_iter().flatten().cloned().collect()
    }

    /// Returns a sentence for each reason for which files were passed over.
    pub(super) fn passed_over(&self) -> Vec<String> {
        let sentence = |(why, names): (&&str, &Vec<String>)| {
            let first = names[..names.len().min(NAMED)].join(", ");
            match names.len().saturating_sub(NAMED) {
                0 => format!("passed over ({why}): {first}"),
                more => format!("passed over ({why}): {first} and {more} more"),
            }
        };
        self.passed_over.iter().map(sentence).collect()
    }
}

/// Returns whether a folder is a packed dataset, finished or not.
fn is_dataset(path: &Path, storage: &dyn Storage) -> bool {
    storage.is_folder(&path.join(".work"))
        || storage.is_file(&path.join("manifest.json"))
            && storage.is_file(&path.join("tokenizer.json"))
}

/// Returns why a file is no data whatever its suffix.
fn set_aside(name: &str) -> Option<&'static str> {
    let lower = name.to_lowercase();
    let suffix = lower.rsplit_once('.').map_or("", |(_, suffix)| suffix);
    if ["md", "rst", "html", "pdf", "bib"].contains(&suffix)
        || ABOUT.iter().any(|about| {
            lower.strip_prefix(about).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    {
        return Some("about the corpus");
    }
    if ["py", "sh", "ipynb", "toml", "yaml", "yml", "cfg", "ini", "lock"].contains(&suffix) {
        return Some("programs and their settings");
    }
    let is_tokenizer = lower.starts_with("tokenizer") && suffix == "json";
    (is_tokenizer || KEPT_BESIDE.contains(&lower.as_str()))
        .then_some("beside data, such as a tokenizer")
}

/// Returns a name without the suffixes of its format and its compression; `None` without the suffix
/// of a format.
fn stem_of(name: &str) -> Option<&str> {
    let split = |name: &'_ str| -> Option<(usize, String)> {
        let (stem, suffix) = name.rsplit_once('.')?;
        Some((stem.len(), suffix.to_lowercase()))
    };
    let (mut end, mut suffix) = split(name)?;
    let has_stem = |end: usize| !name[..end].is_empty() && !name[..end].ends_with('/');
    if COMPRESSED.contains(&suffix.as_str()) {
        let is_zip = suffix == "zip";
        match split(&name[..end]) {
            Some((next, inner)) if is_suffix(&inner) => (end, suffix) = (next, inner),
            // The name of the file in it tells its format.
            _ if is_zip => return has_stem(end).then(|| &name[..end]),
            _ => return None,
        }
    }
    (is_suffix(&suffix) && has_stem(end)).then(|| &name[..end])
}

/// Returns whether files of a format have this suffix.
fn is_suffix(suffix: &str) -> bool {
    FormatName::all()
        .iter()
        .filter_map(|name| FormatName::find(name))
        .any(|format| format.get().suffixes().contains(&suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_whether_it_is_data() {
        for (name, stem) in [
            ("a/train.jsonl", Some("a/train")),
            ("train.tsv.gz", Some("train")),
            ("x.JSON", Some("x")),
            ("x.gz", None),
            ("a/x.zip", Some("a/x")),
            ("x.csv.zip", Some("x")),
            ("a/.zip", None),
            ("x.bin", None),
            ("x", None),
        ] {
            assert_eq!(stem_of(name), stem, "{name}");
        }
        for name in ["README.txt", "readme", "LICENSE", "load.py", "tokenizer_config.json", "a.md"]
        {
            assert!(set_aside(name).is_some(), "{name}");
        }
        for name in ["reader.txt", "train.json", "sources-yor.jsonl"] {
            assert!(set_aside(name).is_none(), "{name}");
        }
    }
}
