//! Finding files: what a pattern of `corpus.toml` names, and what a file is called in the dataset.

use std::path::{Component, Path, PathBuf};

use super::nearest;
use crate::error::{Error, Kind, Result};
use crate::files;

/// The files that `pattern` names below `root`, sorted.
pub fn find_files(root: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    if pattern.trim().is_empty() {
        return Err(Error::config("a name in its list of files is empty").remedy("name a file, or remove the entry"));
    }
    let plain = root.join(pattern);
    if plain.is_file() {
        return Ok(vec![plain]);
    }
    if plain.is_dir() {
        return Err(Error::input("is a folder").file(pattern).remedy(format!("name its files: \"{pattern}/*\"")));
    }
    if !pattern.contains(['*', '?', '[']) {
        return Err(Error::input("no such file").file(pattern).remedy(near_files(root, &plain)));
    }
    let full = Path::new(&glob::Pattern::escape(&root.to_string_lossy())).join(pattern);
    let paths = glob::glob(&full.to_string_lossy()).map_err(|error| {
        Error::config(format!("the pattern \"{pattern}\" is wrong: {}", error.msg))
            .remedy("`*` and `?` stand for any letters and for one; write [[] for a bracket in a name")
    })?;
    let mut files = Vec::new();
    for path in paths {
        let path = path.map_err(|error| Error::io(Kind::Input, error.path(), error.error()))?;
        if path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(Error::input("no file matches this pattern").file(pattern).remedy(near_files(root, &plain)));
    }
    files.sort();
    Ok(files)
}

/// What the user may have meant instead of the missing `path`.
fn near_files(root: &Path, path: &Path) -> String {
    let folder = path.parent().unwrap_or(root);
    let names = files::names_in(folder);
    let wanted = path.file_name().unwrap_or_default().to_string_lossy();
    match nearest(&wanted, names.iter().map(String::as_str)) {
        Some(name) => format!("did you mean {}?", portable_name(root, &folder.join(name))),
        None => format!("paths are relative to {}", root.display()),
    }
}

/// `path` relative to `root`, with `/`, `.` removed: the same on every machine.
pub fn portable_name(root: &Path, path: &Path) -> String {
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

    #[test]
    fn names_of_inputs_do_not_depend_on_how_they_were_spelled() {
        let root = Path::new("/c");
        assert_eq!(portable_name(root, &root.join("./a/../b/x.json")), "b/x.json");
        assert_eq!(portable_name(root, &root.join("../d/x.json")), "../d/x.json");
    }
}
