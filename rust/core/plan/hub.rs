//! `HubFiles`: files of the Hugging Face Hub that a corpus names by `hf://`.
//!
//! The core opens no connection. Its caller finds the files of each pattern, fetches them, and
//! gives their local paths here, each with the name by which the dataset records it: that name
//! holds the commit, and nothing of this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::find::{find_files, portable_name};
use super::placeholder::{LANG, in_text};
use super::{CONFIG_FILE, Plan};
use crate::error::{Error, Result};
use crate::storage::{Storage, below};

/// The beginning of a pattern of files of the Hub.
const SCHEME: &str = "hf://";
/// The beginning of the name of a task of `lm-eval`. Its documents come as a file from the caller,
/// as those of the Hub do.
const BENCHMARK: &str = "lm-eval:";

/// Files of the Hub that the caller has fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HubFiles {
    /// The local paths of the matches of each pattern, in order.
    found: BTreeMap<String, Vec<PathBuf>>,
    /// The name of each local path.
    names: BTreeMap<PathBuf, String>,
}

impl HubFiles {
    /// Returns the files of some patterns, each with its matches: local path and name.
    pub fn new(patterns: impl IntoIterator<Item = (String, Vec<(PathBuf, String)>)>) -> Self {
        let mut files = Self::default();
        for (pattern, matches) in patterns {
            let paths = matches.iter().map(|(path, _)| path.clone()).collect();
            files.found.insert(pattern, paths);
            files.names.extend(matches);
        }
        files
    }

    /// Returns whether a pattern names files of the Hub.
    pub(super) fn are_named_by(pattern: &str) -> bool {
        pattern.starts_with(SCHEME)
    }

    /// Returns whether a name is that of a task of `lm-eval`.
    pub(crate) fn are_benchmarks(name: &str) -> bool {
        name.starts_with(BENCHMARK)
    }

    /// Returns whether the caller has found files by this very pattern.
    pub(super) fn has(&self, pattern: &str) -> bool {
        self.found.contains_key(pattern)
    }

    /// Returns the languages that make `pattern` one by which the caller has found files, once they
    /// stand for `{lang}`.
    pub(super) fn languages_of(&self, pattern: &str) -> BTreeSet<String> {
        let count = pattern.matches(LANG).count();
        let Some((before, _)) = pattern.split_once(LANG) else { return BTreeSet::new() };
        let language = |found: &String| {
            let bytes = (found.len() + count * LANG.len()).checked_sub(pattern.len())? / count;
            let lang = found.strip_prefix(before)?.get(..bytes)?;
            (in_text(pattern, lang) == *found).then(|| lang.to_owned())
        };
        self.found.keys().filter_map(language).collect()
    }
}

impl Plan {
    /// Returns the files that `pattern` matches, sorted: on the Hub, or below the corpus folder.
    pub(super) fn find(&self, pattern: &str, storage: &dyn Storage) -> Result<Vec<PathBuf>> {
        if HubFiles::are_benchmarks(pattern) {
            return self.find_benchmark(pattern);
        }
        if !HubFiles::are_named_by(pattern) {
            return self.find_below(pattern, storage);
        }
        self.hub.found.get(pattern).cloned().ok_or_else(|| {
            Error::input("is on the Hugging Face Hub, and nothing has fetched it")
                .file(pattern)
                .remedy(
                    "pack with the command `sabiprep` or its Python package, or name a local file",
                )
        })
    }

    /// Returns the file with the documents of a task of `lm-eval`.
    fn find_benchmark(&self, name: &str) -> Result<Vec<PathBuf>> {
        self.hub.found.get(name).cloned().ok_or_else(|| {
            Error::config("is a task of lm-eval, whose documents nothing has read")
                .file(name)
                .remedy(
                    "name it in `decontaminate`, and pack with the command `sabiprep` or its Python \
                     package; to train on its documents, save them as a file",
                )
        })
    }

    /// Returns the files below the corpus folder that `pattern` matches, sorted. The configuration
    /// and the tokenizer are no texts, unless their very names are given.
    fn find_below(&self, pattern: &str, storage: &dyn Storage) -> Result<Vec<PathBuf>> {
        let mut found = find_files(storage, &self.root, pattern)?;
        if found == [below(&self.root, pattern)] {
            return Ok(found);
        }
        let own = [Some(self.root.join(CONFIG_FILE)), self.tokenizer.file.clone()];
        let own: Vec<PathBuf> =
            own.into_iter().flatten().map(|own| storage.real_path(&own)).collect();
        found.retain(|path| !own.contains(&storage.real_path(path)));
        if found.is_empty() {
            return Err(Error::input(
                "no file matches this pattern but the configuration or the tokenizer",
            )
            .file(pattern)
            .remedy("name the files of texts: files = [\"*.jsonl\"]"));
        }
        Ok(found)
    }

    /// Returns the name of a file in the dataset, which is equal on every machine.
    pub(super) fn name_of(&self, path: &Path) -> String {
        self.hub.names.get(path).cloned().unwrap_or_else(|| portable_name(&self.root, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{PackOptions, PlanSpec};
    use crate::storage::LOCAL;

    #[test]
    fn the_languages_of_a_pattern_are_those_that_the_caller_found() {
        let found = ["yor/x-yor", "a-b/x-a-b", "ibo/x-hau", "yor/y"];
        let hub = HubFiles::new(found.map(|found| (format!("hf://{found}"), Vec::new())));
        let languages: Vec<_> = hub.languages_of("hf://{lang}/x-{lang}").into_iter().collect();
        assert_eq!(languages, ["a-b", "yor"]);
        assert!(hub.languages_of("hf://{lang}/x-{lang}{lang}{lang}{lang}").is_empty());
        assert!(hub.languages_of("hf://yor").is_empty());
    }

    #[test]
    fn a_file_of_the_hub_has_the_name_that_the_caller_gives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache").join("a.txt");
        LOCAL.make_parent(&path).unwrap();
        LOCAL.write_file(&path, b"a text\n").unwrap();
        let pattern = "hf://datasets/o/n/*.txt";
        let spec = || {
            let text = format!("[[source]]\nname = 's'\nfiles = ['{pattern}']\n");
            PlanSpec::parse(&text, "corpus.toml").unwrap()
        };
        let name = "hf://datasets/o/n@c0/a.txt";
        let hub = HubFiles::new([(pattern.to_owned(), vec![(path.clone(), name.to_owned())])]);
        let options = PackOptions { hub, ..PackOptions::default() };
        let plan = Plan::resolve(spec(), folder.path(), &options, LOCAL).unwrap();
        assert_eq!((plan.inputs[0].name.as_str(), &plan.inputs[0].path), (name, &path));
        let without = PackOptions::default();
        let error = Plan::resolve(spec(), folder.path(), &without, LOCAL).unwrap_err();
        assert_eq!(error.file.as_deref(), Some(pattern));
        assert!(error.message.contains("Hub"), "{error}");
    }
}
