//! Finds folders of many small texts, each of which is a document.

use std::collections::HashMap;

use super::by_language::opened;
use super::folder::Found;
use super::names::{Named, is_shard, split_of};
use crate::read::FormatName;
use crate::storage::Storage;

/// The fewest texts of a folder that are taken for documents, and the most bytes of one.
const FEWEST: usize = 8;
const MOST_BYTES: u64 = 256 << 10;

/// Marks the files that are a document each: many small texts in one folder, whose names say no
/// split, no shard, and no language that tells one from another.
pub(super) fn mark_documents(files: &mut [Found], storage: &dyn Storage) {
    let mut folders: HashMap<(String, String), Vec<usize>> = HashMap::new();
    for (index, file) in files.iter().enumerate() {
        let (folder, name) = file.stem.rsplit_once('/').unwrap_or(("", &file.stem));
        let suffix = file.name[file.stem.len()..].to_lowercase();
        if is_text(&suffix) && !is_shard(name) && !says_split(name) && is_small(file, storage) {
            folders.entry((folder.to_owned(), suffix)).or_default().push(index);
        }
    }
    for indices in folders.into_values() {
        let documents = without_languages(&indices, files);
        if documents.len() >= FEWEST {
            for index in documents {
                files[index].is_document = true;
            }
        }
    }
}

/// Returns whether files of this suffix are plain text.
fn is_text(suffix: &str) -> bool {
    let suffixes = FormatName::find("text").map_or(&[][..], |format| format.get().suffixes());
    suffix.split('.').any(|part| suffixes.contains(&part))
}

/// Returns whether a word of a name says a split.
fn says_split(name: &str) -> bool {
    name.split(['-', '_', '.', ' ']).any(|word| split_of(word).is_some())
}

/// Returns whether a file may be one document.
fn is_small(file: &Found, storage: &dyn Storage) -> bool {
    storage.file_size(&file.path).is_ok_and(|size| size <= MOST_BYTES)
}

/// Returns the files without those that differ from another one by a language alone; with them, if
/// they are few: short words are codes too.
fn without_languages(indices: &[usize], files: &[Found]) -> Vec<usize> {
    let key = |index: usize| {
        let named = Named::of(&files[index].stem);
        let is_of_name = |lang: &&str| named.last_words().iter().any(|word| word == lang);
        named.lang().filter(is_of_name).map(|lang| opened(&files[index].stem, lang))
    };
    let keys: Vec<Option<String>> = indices.iter().map(|&index| key(index)).collect();
    let mut counts: HashMap<&String, usize> = HashMap::new();
    keys.iter().flatten().for_each(|key| *counts.entry(key).or_default() += 1);
    let is_alone = |key: &Option<String>| key.as_ref().is_none_or(|key| counts[key] < 2);
    let alone: Vec<usize> =
        indices.iter().zip(&keys).filter(|(_, key)| is_alone(key)).map(|(&it, _)| it).collect();
    if alone.len() * 2 > indices.len() { indices.to_vec() } else { alone }
}
