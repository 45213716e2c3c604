//! Finds files: the matches of a pattern in `corpus.toml`, and the name of each file in the
//! dataset.

use std::collections::HashSet;
use std::io::ErrorKind::{IsADirectory, NotFound};
use std::path::{Component, Path, PathBuf};

use glob::{Pattern, PatternError};

use super::nearest;
use super::saved::{holds_splits, is_beside_data, saved_files};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Storage, below, is_listed, split_store};

/// Returns the files below `root` that `pattern` matches, sorted. Refuses a match that is no
/// regular file instead of skipping it.
pub(crate) fn find_files(
    storage: &dyn Storage,
    root: &Path,
    pattern: &str,
) -> Result<Vec<PathBuf>> {
    if pattern.trim().is_empty() {
        return Err(Error::config("a name in its list of files is empty")
            .remedy("name a file, or remove the entry"));
    }
    let plain = below(root, pattern);
    // A name that exists is taken as it is, even if it holds `*` or a bracket.
    let is_there = storage.is_surely_there(&plain).map_err(|error| error.file(pattern))?;
    if is_there && storage.is_regular(&plain).map_err(|error| error.file(pattern))? {
        return Ok(vec![plain]);
    }
    if is_there {
        if let Some(files) = saved_files(storage, &plain, pattern)? {
            return Ok(files);
        }
        return Err(Error::input("is a folder")
            .file(pattern)
            .remedy(format!("name its files: \"{pattern}/*\""))
            .io_kind(IsADirectory));
    }
    if !pattern.contains(['*', '?', '[']) {
        return Err(Error::input("no such file")
            .file(pattern)
            .remedy(near_files(storage, root, &plain))
            .io_kind(NotFound));
    }
    let (start, components) = components_of(root, pattern);
    if !is_listed(&start) {
        return Err(Error::config("is a pattern, and a web server does not list its files")
            .file(pattern)
            .remedy("name each file by its address"));
    }
    let found = paths_below(storage, &start, pattern, &components)?;
    // Only now, so that each error names one file.
    let mut kept = Vec::new();
    for (nth, path) in found.iter().enumerate() {
        let name = portable_name(root, path);
        if storage.is_regular(path).map_err(|error| error.file(name.clone()))? {
            refuse_bytes(path.strip_prefix(root).unwrap_or(path))
                .map_err(|error| error.file(pattern))?;
            if !is_beside_data(storage, path) {
                kept.push(path.clone());
            }
            continue;
        }
        // Sorted, what lies in a folder comes after it.
        let goes_on = found.get(nth + 1).is_some_and(|next| next.starts_with(path));
        if !(goes_on && holds_splits(storage, path)) {
            kept.extend(saved_files(storage, path, &name)?.into_iter().flatten());
        }
    }
    let folder = found.iter().find(|path| storage.is_folder(path));
    if let (true, Some(folder)) = (kept.is_empty(), folder) {
        let name = portable_name(root, folder);
        let error = no_match(storage, root, pattern);
        return Err(Error { message: format!("matches the folder {name}, and no file"), ..error }
            .remedy(format!("name its files: \"{name}/*\"")));
    }
    let mut seen = HashSet::new();
    kept.retain(|path| seen.insert(path.clone()));
    if kept.is_empty() {
        return Err(no_match(storage, root, pattern));
    }
    Ok(kept)
}

/// Returns the error of a pattern that matches no file.
pub(super) fn no_match(storage: &dyn Storage, root: &Path, pattern: &str) -> Error {
    Error::input("no file matches this pattern")
        .file(pattern)
        .remedy(near_files(storage, root, &below(root, pattern)))
        .io_kind(NotFound)
}

/// Returns the folder from which a pattern leads, and its components: `root`, or the store that it
/// names itself.
pub(super) fn components_of<'p>(root: &Path, pattern: &'p str) -> (PathBuf, Vec<Component<'p>>) {
    let (start, inner) = split_store(pattern).unwrap_or_else(|| (root.to_owned(), pattern));
    (start, Path::new(inner).components().collect())
}

/// Returns the paths below `root` that match `components` of `pattern`, sorted.
pub(super) fn paths_below(
    storage: &dyn Storage,
    root: &Path,
    pattern: &str,
    components: &[Component<'_>],
) -> Result<Vec<PathBuf>> {
    let wrong = |error: PatternError| {
        Error::config(format!("the pattern \"{pattern}\" is wrong: {}", error.msg)).remedy(
            "`*` and `?` stand for any letters and for one; write [[] for a bracket in a name",
        )
    };
    let parts: std::result::Result<Vec<Part>, _> =
        components.iter().copied().map(Part::of).collect();
    let parts = parts.map_err(wrong)?;
    // One component at a time, so that a folder that cannot be read is an error.
    let mut found = Vec::new();
    find_below(storage, root.to_owned(), &parts, &mut found)?;
    found.sort();
    found.dedup();
    Ok(found)
}

/// Refuses the name of a file that the dataset cannot store: its manifest is JSON.
fn refuse_bytes(name: &Path) -> Result<()> {
    if name.to_str().is_some() {
        return Ok(());
    }
    #[expect(clippy::unnecessary_debug_formatting, reason = "it shows the bytes that are no text")]
    let what = format!("the file {name:?} that it matches has a name that is not UTF-8");
    Err(Error::input(what)
        .remedy("rename it (convmv does so for whole folders), or narrow the pattern"))
}

/// A component of a pattern.
enum Part {
    /// Any folders, or none: `**`.
    Folders,
    /// Names that match a pattern.
    Names(Pattern),
    /// One name.
    Name(PathBuf),
}

impl Part {
    /// Parses a component.
    fn of(component: Component<'_>) -> std::result::Result<Self, PatternError> {
        let text = component.as_os_str().to_string_lossy();
        Ok(match component {
            Component::Normal(_) if text == "**" => Self::Folders,
            // `Pattern` itself reports `**` inside a longer name as an error.
            Component::Normal(_) if text.contains(['*', '?', '[']) => {
                Self::Names(Pattern::new(&text)?)
            }
            _ => Self::Name(component.as_os_str().into()),
        })
    }
}

/// Adds the matches of `parts` below `path`.
fn find_below(
    storage: &dyn Storage,
    path: PathBuf,
    parts: &[Part],
    found: &mut Vec<PathBuf>,
) -> Result<()> {
    let Some((part, rest)) = parts.split_first() else {
        found.push(path);
        return Ok(());
    };
    // A fixed name may be `..`, which no listing of a folder holds.
    if let Part::Name(name) = part {
        let next = path.join(name);
        return if storage.is_surely_there(&next)? {
            find_below(storage, next, rest, found)
        } else {
            Ok(())
        };
    }
    if !storage.is_folder(&path) {
        return Ok(());
    }
    let names = storage.list(&path).map_err(|error| Error::io(ErrorKind::Input, &path, &error))?;
    for name in names {
        let next = path.join(&name);
        match part {
            Part::Folders if storage.is_folder(&next) => find_below(storage, next, parts, found)?,
            Part::Names(pattern) if pattern.matches(&name.to_string_lossy()) => {
                find_below(storage, next, rest, found)?;
            }
            _ => {}
        }
    }
    // A pattern that ends in `**` matches folders, not files.
    if matches!(part, Part::Folders) && !rest.is_empty() {
        find_below(storage, path, rest, found)
    } else {
        Ok(())
    }
}

/// Returns a guess at the file that the user meant instead of the missing `path`.
fn near_files(storage: &dyn Storage, root: &Path, path: &Path) -> String {
    let folder = path.parent().unwrap_or(root);
    let names = storage.names_in(folder);
    let wanted = path.file_name().unwrap_or_default().to_string_lossy();
    match nearest(&wanted, names.iter().map(String::as_str)) {
        Some(name) => format!("did you mean {}?", portable_name(root, &folder.join(name))),
        None => format!("paths are relative to {}", root.display()),
    }
}

/// Returns `path` relative to `root`, with `/`, and without `.`: equal on every machine.
pub(crate) fn portable_name(root: &Path, path: &Path) -> String {
    let Ok(relative) = path.strip_prefix(root) else {
        return path.to_string_lossy().into_owned();
    };
    let mut parts: Vec<String> = Vec::new();
    for component in relative.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if parts.last().is_some_and(|last| last != "..") => {
                parts.pop();
            }
            other => parts.push(other.as_os_str().to_string_lossy().into_owned()),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::LOCAL;

    #[test]
    fn patterns_name_what_they_always_did_and_nothing_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("caf[é]");
        for name in [
            "a.jsonl",
            "b.jsonl",
            "c.txt",
            ".h.jsonl",
            "d/e.jsonl",
            "d/f/g.jsonl",
            "d/f/h.txt",
            "x-1/y.jsonl",
        ] {
            LOCAL.make_parent(&root.join(name)).unwrap();
            LOCAL.write_file(&root.join(name), b"x").unwrap();
        }
        for pattern in [
            "*.jsonl",
            "?.jsonl",
            "[ab].jsonl",
            "[!a]*.*",
            "**/*.jsonl",
            "d/**/*.jsonl",
            "d/**/**/g*",
            "*/*.jsonl",
            "./*.txt",
            "x-*/../c.*",
            "**/f/*",
            "d/../*.txt",
            "x-[0-9]/y*",
            "**/*",
        ] {
            let full = Path::new(&Pattern::escape(root.to_str().unwrap())).join(pattern);
            let mut expected: Vec<PathBuf> = glob::glob(full.to_str().unwrap())
                .unwrap()
                .map(|path| path.unwrap())
                .filter(|path| path.is_file())
                .collect();
            expected.sort();
            expected.dedup();
            let named = |paths: &[PathBuf]| {
                paths.iter().map(|path| portable_name(&root, path)).collect::<Vec<_>>()
            };
            assert!(!expected.is_empty(), "{pattern}");
            assert_eq!(
                named(&find_files(LOCAL, &root, pattern).unwrap()),
                named(&expected),
                "{pattern}"
            );
        }
        for pattern in ["*.csv", "**", "a**", "[", "no/*"] {
            assert!(find_files(LOCAL, &root, pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_folder_of_datasets_is_told_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let found = |pattern: &str| find_files(LOCAL, folder.path(), pattern);
        let add = |name: &str, text: &str| {
            LOCAL.make_parent(&folder.path().join(name)).unwrap();
            LOCAL.write_file(&folder.path().join(name), text.as_bytes()).unwrap();
        };
        let names = |paths: Vec<PathBuf>| -> Vec<String> {
            paths.iter().map(|path| portable_name(folder.path(), path)).collect()
        };
        add("s/a/b.arrow", "");
        add("s/a/a.arrow", "");
        add("s/a/cache.arrow", "");
        assert!(found("s/a").unwrap_err().remedy.unwrap().contains("s/a/*"));
        add("s/a/dataset_info.json", "{}");
        let state = r#"{"_data_files": [{"filename": "b.arrow"}, {"filename": "a.arrow"}]}"#;
        add("s/a/state.json", state);
        let files = ["s/a/b.arrow", "s/a/a.arrow"];
        assert_eq!(names(found("s/a").unwrap()), files);
        assert_eq!(names(found("s/*").unwrap()), files);
        assert_eq!(names(found("**/*").unwrap()), files);
        assert_eq!(names(found("s/a/*").unwrap()), ["s/a/a.arrow", "s/a/b.arrow"]);
        add("s/dataset_dict.json", r#"{"splits": ["a", "test"]}"#);
        let error = found("s").unwrap_err();
        assert!(error.message.contains("a, test"), "{error}");
        assert!(error.remedy.unwrap().contains(r#"files = ["s/a"]"#));
        assert_eq!(names(found("**/*").unwrap()), files);
        for (state, what) in [
            (r#"{"_data_files": [{"filename": "../a.arrow"}]}"#, "outside"),
            (r#"{"_data_files": [{"filename": "c.arrow"}]}"#, "missing"),
            (r#"{"_data_files": [], "_indices_data_files": [{"filename": "i"}]}"#, "selection"),
            ("{", "no JSON"),
            ("[]", "_data_files"),
        ] {
            add("s/a/state.json", state);
            let error = found("s/a").unwrap_err();
            assert!(error.message.contains(what), "{error}");
        }
    }

    #[test]
    fn names_of_inputs_do_not_depend_on_how_they_were_spelled() {
        let root = Path::new("/c");
        assert_eq!(portable_name(root, &root.join("./a/../b/x.json")), "b/x.json");
        assert_eq!(portable_name(root, &root.join("../d/x.json")), "../d/x.json");
    }
}
