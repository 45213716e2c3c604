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

    /// Takes apart the folder of `path`: its files are of one source, whatever their names.
    pub(super) fn of_folder(path: &str) -> Self {
        Self::of(&path[..path.rfind('/').map_or(0, |slash| slash + 1)])
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

    /// Returns the words of the last part of the path.
    pub(super) fn last_words(&self) -> &[String] {
        self.words.last().map_or(&[], Vec::as_slice)
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
pub(super) fn split_of(word: &str) -> Option<NamedSplit> {
    let lower = word.to_lowercase();
    let lower = lower.trim_end_matches(|c: char| c.is_ascii_digit());
    let splits = [
        (TRAIN, NamedSplit::Train),
        (VALIDATION, NamedSplit::Validation),
        (TEST, NamedSplit::Test),
    ];
    splits.into_iter().find(|(words, _)| words.contains(&lower)).map(|(_, split)| split)
}

/// Returns whether a name has the number of a shard.
pub(super) fn is_shard(name: &str) -> bool {
    let words = words_of(name);
    (0..words.len()).any(|index| says_shard(&words, index))
}

/// Returns whether a name has the number of a shard and a hash after it.
pub(super) fn is_hashed(name: &str) -> bool {
    let words = words_of(name);
    (0..words.len()).any(|index| hash_after(&words, index) > 0)
}

/// Returns whether a word is a number.
fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns whether a word is a shard with its number: `part3`.
fn is_numbered(word: &str) -> bool {
    let lower = word.to_lowercase();
    SHARD.iter().any(|shard| lower.strip_prefix(shard).is_some_and(is_number))
}

/// Returns whether the word at `index` says that a shard is numbered: `part3`, `part` or `of` before a
/// number.
fn says_shard(words: &[String], index: usize) -> bool {
    let lower = words[index].to_lowercase();
    let next_is_number = words.get(index + 1).is_some_and(|word| is_number(word));
    is_numbered(&lower) || next_is_number && (SHARD.contains(&lower.as_str()) || lower == "of")
}

/// Returns the words without those that number a shard: `00000-of-00005`, `part-3`, `shard3`, and
/// without a hash after the number.
fn without_shard(words: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut index = 0;
    while index < words.len() {
        let hash = hash_after(words, index);
        if !is_number(&words[index]) && !says_shard(words, index) {
            kept.push(words[index].clone());
        }
        index += 1 + hash;
    }
    kept
}

/// Returns the number of words after the shard's number at `index` that are a hash: one, as the Hub
/// writes it after `00000-of-00004`, or a UUID and what Spark puts after it.
fn hash_after(words: &[String], index: usize) -> usize {
    let word = |index: usize| words.get(index).map_or("", String::as_str);
    let is_hash = |word: &str, len: usize| {
        word.len() == len && word.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    if !is_number(word(index)) || index == 0 {
        return 0;
    }
    let next = word(index + 1);
    if word(index - 1) == "of" && next.len() >= 6 && is_hash(next, next.len()) {
        return 1;
    }
    let is_uuid =
        [8, 4, 4, 4, 12].iter().enumerate().all(|(nth, &len)| is_hash(word(index + 1 + nth), len));
    if !is_uuid || word(index - 1) != "part" {
        return 0;
    }
    let is_number_of_file = |word: &str| word.strip_prefix('c').is_some_and(is_number);
    let codecs = ["snappy", "gz", "zstd", "lz4"];
    let mut count = 5;
    count += usize::from(is_number_of_file(word(index + 1 + count)));
    count + usize::from(codecs.contains(&word(index + 1 + count)))
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
            ("a/train-00000-of-00004-a09b74b3ef9c3b56", NamedSplit::Train, "a"),
            ("a/test-00001-of-00004-abcdef", NamedSplit::Test, "a"),
            (
                "a/part-00000-27ca4ea1-4f24-4e6c-a9a9-0ac5a9a9b0a1-c000.snappy",
                NamedSplit::Train,
                "a",
            ),
            ("a/00000-of-00004-faces", NamedSplit::Train, "a-faces"),
            ("a/part-1-decade", NamedSplit::Train, "a-decade"),
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
