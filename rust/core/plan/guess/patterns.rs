//! Writes many files of one folder as one pattern.

use std::collections::HashSet;
use std::path::Path;

use super::names::is_hashed;
use crate::plan::find::{find_files, portable_name};
use crate::storage::Storage;

/// The fewest files of a folder that become a pattern, and the fewest with a hash in their names.
const MANY: usize = 8;
const MANY_HASHED: usize = 2;

/// The characters that a pattern reads otherwise, or `{lang}`.
const SPECIAL: [char; 6] = ['*', '?', '[', ']', '{', '}'];

/// Returns the files, those of a folder that are many as a pattern which matches them alone, in the
/// same order; `without_record` may be matched as well.
pub(super) fn as_patterns(
    files: &[String],
    without_record: &HashSet<String>,
    root: &Path,
    storage: &dyn Storage,
) -> Vec<String> {
    let folder_of = |file: &str| file.rfind('/').map_or(0, |slash| slash + 1);
    let is_of_one = |one: &String, two: &String| one[..folder_of(one)] == two[..folder_of(two)];
    let mut out = Vec::new();
    for files in files.chunk_by(is_of_one) {
        let fewest = if files.iter().all(|file| is_hashed(file)) { MANY_HASHED } else { MANY };
        let is_plain = !files.iter().any(|file| file.contains(SPECIAL));
        let pattern = (files.len() >= fewest && is_plain).then(|| pattern_of(files));
        let matches = |pattern: &String| {
            let found = find_files(storage, root, pattern).unwrap_or_default();
            let names = found.iter().map(|path| portable_name(root, path));
            names.filter(|name| !without_record.contains(name)).eq(files.iter().cloned())
        };
        match pattern.filter(matches) {
            Some(pattern) => out.push(pattern),
            None => out.extend_from_slice(files),
        }
    }
    out
}

/// Returns what all files have in common, up to a separator, with `*` for the rest.
fn pattern_of(files: &[String]) -> String {
    let (first, rest) = files.split_first().map_or(("", files), |(first, rest)| (first, rest));
    let same = |a: &str, b: &str| -> usize {
        let pairs = a.chars().zip(b.chars()).take_while(|(a, b)| a == b);
        pairs.map(|(char, _)| char.len_utf8()).sum()
    };
    let from_end = |a: &str, b: &str| -> usize {
        let pairs = a.chars().rev().zip(b.chars().rev()).take_while(|(a, b)| a == b);
        pairs.map(|(char, _)| char.len_utf8()).sum()
    };
    let start = rest.iter().map(|file| same(first, file)).min().unwrap_or(0);
    let is_separator = |c: char| ['-', '_', '.', ' ', '/'].contains(&c);
    let start = first[..start].rfind(is_separator).map_or(0, |separator| separator + 1);
    let end = rest.iter().map(|file| from_end(&first[start..], &file[start..])).min().unwrap_or(0);
    let end = &first[first.len() - end..];
    let end = end.find('.').map_or(end, |dot| &end[dot..]);
    format!("{}*{end}", &first[..start])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_holds_what_names_have_in_common() {
        for (files, expected) in [
            (
                &["a/train-00000-of-00002-ab12.parquet", "a/train-00001-of-00002-cd34.parquet"][..],
                "a/train-*.parquet",
            ),
            (&["books/ada.txt", "books/bola.txt", "books/ọla.txt"], "books/*.txt"),
            (&["1.txt.gz", "11.txt.gz"], "*.txt.gz"),
            (&["x/a-1.tsv", "x/a-1-b.tsv"], "x/a-*.tsv"),
            (&["é.txt", "è.txt"], "*.txt"),
        ] {
            let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
            assert_eq!(pattern_of(&files), expected);
        }
    }
}
