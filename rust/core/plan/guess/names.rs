//! What the name of a file says: its split, its language, its task, and the files it belongs with.

use super::codes::is_code;

/// The split that a name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NamedSplit {
    /// Training, said or not.
    Train,
    /// Files to hold out.
    Validation,
    /// Files that no training may see.
    Test,
}

const TRAIN: &[&str] = &["train", "training", "trainset"];
const VALIDATION: &[&str] =
    &["dev", "devset", "development", "validation", "valid", "val", "valset", "eval"];
/// `devtest` is FLORES's name of its test split.
const TEST: &[&str] = &["test", "tests", "testing", "testset", "devtest", "heldout"];
/// Words that come before the number of a shard.
const SHARD: &[&str] = &["part", "shard", "chunk"];

/// Words that name tasks, each with the task.
const TASKS: &[(&str, &str)] = &[
    ("classification", "classify"),
    ("dialogue", "dialogue"),
    ("emotion", "emotion"),
    ("instruct", "instruct"),
    ("instructions", "instruct"),
    ("mt", "translate"),
    ("news", "news"),
    ("ner", "ner"),
    ("nli", "nli"),
    ("pos", "pos"),
    ("qa", "qa"),
    ("sentiment", "sentiment"),
    ("sum", "sum"),
    ("summarization", "sum"),
    ("summary", "sum"),
    ("topic", "topic"),
    ("topics", "topic"),
    ("translate", "translate"),
    ("translation", "translate"),
];

/// The name of a file, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    /// The words of its path that are neither a split nor a shard, folder by folder.
    words: Vec<Vec<String>>,
    /// The split that it says.
    pub(super) split: NamedSplit,
    /// Its folder, without folders that say a split.
    folder: String,
}

impl Named {
    /// Takes apart `path`, relative to the corpus, with `/`, and without its suffixes.
    pub(super) fn of(path: &str) -> Self {
        let mut parts: Vec<&str> = path.split('/').collect();
        let stem = parts.pop().unwrap_or_default();
        let of_folders = parts.iter().find_map(|part| split_of(part));
        parts.retain(|part| split_of(part).is_none());
        let words = without_shard(&words_of(stem));
        let of_stem = words.iter().find_map(|word| split_of(word));
        let words: Vec<String> =
            words.into_iter().filter(|word| split_of(word).is_none()).collect();
        let folders = parts.iter().map(|part| words_of(part));
        Self {
            words: folders.chain([words]).filter(|words| !words.is_empty()).collect(),
            split: of_stem.or(of_folders).unwrap_or(NamedSplit::Train),
            folder: parts.join("/"),
        }
    }

    /// Returns the text that is equal for the files of one source.
    pub(super) fn family(&self) -> String {
        format!("{}|{}", self.folder, self.name())
    }

    /// Returns the words of the path as the name of a source.
    pub(super) fn name(&self) -> String {
        self.words.iter().map(|words| words.join("-")).collect::<Vec<_>>().join("-")
    }

    /// Returns the language that the path names. Of two in one folder, such as `eng-yor`, it is the
    /// second, into which a translation goes.
    pub(super) fn lang(&self) -> Option<&str> {
        self.words
            .iter()
            .rev()
            .find_map(|words| words.iter().rfind(|word| task_of(word).is_none() && is_code(word)))
            .map(String::as_str)
    }

    /// Returns the task that the path names.
    pub(super) fn task(&self) -> Option<&'static str> {
        self.words.iter().rev().flatten().find_map(|word| task_of(word))
    }
}

/// Returns the task that a word names.
fn task_of(word: &str) -> Option<&'static str> {
    let lower = word.to_lowercase();
    TASKS.iter().find(|(known, _)| *known == lower).map(|&(_, task)| task)
}

/// Returns the words of a name, between separators.
fn words_of(name: &str) -> Vec<String> {
    name.split(['-', '_', '.', ' ']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Returns the split that a word says, numbered or not: `dev`, `Dev2`.
fn split_of(word: &str) -> Option<NamedSplit> {
    let lower = word.to_lowercase();
    let lower = lower.trim_end_matches(|c: char| c.is_ascii_digit());
    let splits = [
        (TRAIN, NamedSplit::Train),
        (VALIDATION, NamedSplit::Validation),
        (TEST, NamedSplit::Test),
    ];
    splits.into_iter().find(|(words, _)| words.contains(&lower)).map(|(_, split)| split)
}

/// Returns the words without those that number a shard: `00000-of-00005`, `part-3`, `shard3`.
fn without_shard(words: &[String]) -> Vec<String> {
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let is_numbered = |word: &str| {
        SHARD.iter().any(|shard| word.to_lowercase().strip_prefix(shard).is_some_and(is_number))
    };
    let next_is_number = |index: usize| words.get(index + 1).is_some_and(|word| is_number(word));
    let is_shard = |(index, word): (usize, &String)| {
        let lower = word.to_lowercase();
        is_number(word)
            || is_numbered(word)
            || next_is_number(index) && (SHARD.contains(&lower.as_str()) || lower == "of")
    };
    let kept = words.iter().enumerate().filter(|&(index, word)| !is_shard((index, word)));
    kept.map(|(_, word)| word.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_its_split_and_its_family() {
        for (path, split, name) in [
            ("mafand/eng-yor/train", NamedSplit::Train, "mafand-eng-yor"),
            ("mafand/eng-yor/dev", NamedSplit::Validation, "mafand-eng-yor"),
            ("qa/test", NamedSplit::Test, "qa"),
            ("qa/data/train-00000-of-00002", NamedSplit::Train, "qa-data"),
            ("qa/validation/data-00000-of-00001", NamedSplit::Validation, "qa-data"),
            ("a/part-0003", NamedSplit::Train, "a"),
            ("a/shard12", NamedSplit::Train, "a"),
            ("latest/contest", NamedSplit::Train, "latest-contest"),
            ("yor_dev", NamedSplit::Validation, "yor"),
            ("train/test", NamedSplit::Test, ""),
            ("flores/yor.devtest", NamedSplit::Test, "flores-yor"),
            ("x/dev2", NamedSplit::Validation, "x"),
            ("Tests/hau", NamedSplit::Test, "hau"),
        ] {
            let named = Named::of(path);
            assert_eq!((named.split, named.name().as_str()), (split, name), "{path}");
        }
    }

    #[test]
    fn a_path_says_its_language_and_its_task() {
        for (path, lang, task) in [
            ("sentiment/yor/train", Some("yor"), Some("sentiment")),
            ("mafand/eng-yor/train", Some("yor"), None),
            ("hau_Latn/all", Some("hau"), None),
            ("news/the/new", None, Some("news")),
            ("mt/x", None, Some("translate")),
        ] {
            let named = Named::of(path);
            assert_eq!((named.lang(), named.task()), (lang, task), "{path}");
        }
    }
}
