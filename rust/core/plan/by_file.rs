//! `{lang}` in `files`: a source for each language that the names of its files hold.
//!
//! The languages of a pattern are those that, put in the place of `{lang}`, make it match a file.
//! A list (`{lang:hau|ibo}`) names them itself.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};

use glob::Pattern;

use super::SourceSpec;
use super::find::{find_files, no_match, paths_below, portable_name};
use super::placeholder::{LANG, in_segments, in_text, is_plain, name_of};
use super::spec::Files;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// Returns the sources that `spec` stands for: one for each language in the names of its files, in
/// order of language; or the one that it is.
pub(super) fn by_file(
    spec: SourceSpec,
    root: &Path,
    storage: &dyn Storage,
) -> Result<Vec<SourceSpec>> {
    let entries = |patterns: &[String]| -> Result<Vec<Entry>> {
        patterns.iter().map(|pattern| Entry::of(pattern, root, storage)).collect()
    };
    let (Files::List(files), Files::List(held_out)) = (&spec.files, &spec.validation_files) else {
        refuse_sides_by_language(&spec)?;
        return Ok(vec![spec]);
    };
    let (files, held_out) = (entries(files)?, entries(held_out)?);
    let all = || files.iter().chain(&held_out);
    if all().all(|entry| entry.languages.is_none()) {
        return Ok(vec![spec]);
    }
    if spec.lang.as_ref().is_some_and(|lang| lang.contains("{{")) {
        return Err(Error::config(format!("`lang` is a field, and its files name one by {LANG}"))
            .remedy("leave one of them out"));
    }
    if let Some(entry) = all().find(|entry| entry.languages.is_none()) {
        return Err(Error::config(format!(
            "`{}` names no language, and other files of the source do by {LANG}",
            entry.pattern
        ))
        .remedy("make it a source of its own"));
    }
    let languages: BTreeSet<&String> =
        all().flat_map(|entry| entry.languages.iter().flatten()).collect();
    let of_language = |lang: &String| {
        let own = |entries: &[Entry]| -> Vec<String> {
            entries.iter().filter_map(|entry| entry.of_language(lang)).collect()
        };
        of_language(&spec, lang, own(&files), own(&held_out))
    };
    languages.into_iter().map(of_language).collect()
}

/// Refuses `{lang}` in the files of parallel text.
fn refuse_sides_by_language(spec: &SourceSpec) -> Result<()> {
    let has_language = |files: &Files| {
        let fields = files.fields();
        let mut patterns = fields.iter().flat_map(|field| files.patterns(field.as_deref()));
        patterns.any(|pattern| pattern.contains("{lang"))
    };
    if has_language(&spec.files) || has_language(&spec.validation_files) {
        return Err(Error::config(format!("{LANG} is not known in the files of parallel text"))
            .remedy("write a source for each language, with what they share in [template.NAME]"));
    }
    Ok(())
}

/// Returns the source that reads `lang` of `spec`, from these files.
fn of_language(
    spec: &SourceSpec,
    lang: &str,
    files: Vec<String>,
    validation_files: Vec<String>,
) -> Result<SourceSpec> {
    let segments =
        spec.segments.as_ref().map(|segments| in_segments(segments, lang)).transpose()?;
    Ok(SourceSpec {
        name: name_of(&spec.name, lang),
        // All languages of a source are one task, unless its name tells them apart.
        task: Some(in_text(spec.task.as_ref().unwrap_or(&spec.name), lang)),
        lang: Some(spec.lang.as_ref().map_or_else(|| lang.to_owned(), |own| in_text(own, lang))),
        files: Files::List(files),
        validation_files: Files::List(validation_files),
        segments,
        ..spec.clone()
    })
}

/// An entry of `files`.
struct Entry {
    /// The pattern, with any list of languages as `{lang}`.
    pattern: String,
    /// The languages that it stands for; `None` without `{lang}`.
    languages: Option<BTreeSet<String>>,
}

impl Entry {
    /// Reads an entry and finds its languages.
    fn of(written: &str, root: &Path, storage: &dyn Storage) -> Result<Self> {
        let plain = || Self { pattern: written.to_owned(), languages: None };
        // A name that exists is taken as it is.
        let Some((pattern, listed)) = without_list(written)? else { return Ok(plain()) };
        if storage.is_there(&root.join(written)) {
            return Ok(plain());
        }
        let languages = match listed {
            Some(listed) => listed,
            None => languages_of(&pattern, root, storage)?,
        };
        if languages.is_empty() {
            return Err(no_match(storage, root, written));
        }
        Ok(Self { pattern, languages: Some(languages) })
    }

    /// Returns the pattern for the files of `lang`, if it has any.
    fn of_language(&self, lang: &str) -> Option<String> {
        let languages = self.languages.as_ref()?;
        languages.contains(lang).then(|| in_text(&self.pattern, lang))
    }
}

/// Returns a pattern with `{lang}` for each of its placeholders, and the languages that they list;
/// `None` if it has no placeholder.
fn without_list(written: &str) -> Result<Option<(String, Option<BTreeSet<String>>)>> {
    let (mut pattern, mut rest, mut listed) = (String::new(), written, None);
    while let Some(start) = rest.find("{lang:") {
        let wrong = |what: &str| {
            Error::config(format!("{what} in `{written}`"))
                .remedy("list languages as in {lang:hau|ibo|yor}")
        };
        let list = &rest[start + "{lang:".len()..];
        let end = list.find('}').ok_or_else(|| wrong("a list of languages has no end"))?;
        let languages: BTreeSet<String> = list[..end].split('|').map(str::to_owned).collect();
        let is_language = |text: &String| !text.is_empty() && text.chars().all(is_plain);
        if !languages.iter().all(is_language) {
            return Err(wrong("a listed language is more than letters, digits, `_` and `-`"));
        }
        if listed.replace(languages.clone()).is_some_and(|other| other != languages) {
            return Err(wrong("two lists of languages"));
        }
        pattern.push_str(&rest[..start]);
        pattern.push_str(LANG);
        rest = &list[end + 1..];
    }
    pattern.push_str(rest);
    Ok(pattern.contains(LANG).then_some((pattern, listed)))
}

/// Returns the languages for which `pattern` matches files. Refuses a file that it matches for two.
fn languages_of(pattern: &str, root: &Path, storage: &dyn Storage) -> Result<BTreeSet<String>> {
    let mut languages = BTreeSet::new();
    let mut first: BTreeMap<PathBuf, String> = BTreeMap::new();
    for lang in candidates_of(pattern, root, storage)? {
        let found = match find_files(storage, root, &in_text(pattern, &lang)) {
            Err(error) if error.io_kind == Some(NotFound) => continue,
            found => found?,
        };
        for path in found {
            if let Some(other) = first.insert(path.clone(), lang.clone()) {
                let name = portable_name(root, &path);
                return Err(Error::config(format!(
                    "{LANG} in `{pattern}` may be {other} or {lang} in the name of {name}"
                ))
                .remedy("list the languages, as in {lang:hau|ibo}, or use fewer wildcards"));
            }
        }
        languages.insert(lang);
    }
    Ok(languages)
}

/// Returns the texts that may stand for `{lang}` by the first component of `pattern` that holds it.
fn candidates_of(pattern: &str, root: &Path, storage: &dyn Storage) -> Result<BTreeSet<String>> {
    let mut candidates = BTreeSet::new();
    let components: Vec<_> = Path::new(pattern).components().collect();
    let holds = |component: &std::path::Component<'_>| {
        component.as_os_str().to_string_lossy().contains(LANG)
    };
    let Some(nth) = components.iter().position(holds) else { return Ok(candidates) };
    let component = components[nth].as_os_str().to_string_lossy();
    for folder in paths_below(storage, root, pattern, &components[..nth])? {
        // `*` may have matched a file.
        if !storage.is_folder(&folder) {
            continue;
        }
        let names =
            storage.list(&folder).map_err(|error| Error::io(ErrorKind::Input, &folder, &error))?;
        for name in names {
            add_candidates(&component, &name.to_string_lossy(), &mut candidates);
        }
    }
    Ok(candidates)
}

/// Adds the texts for which `component` matches `name` once they stand for `{lang}`.
fn add_candidates(component: &str, name: &str, candidates: &mut BTreeSet<String>) {
    let Some((before, after)) = component.split_once(LANG) else { return };
    let matches = |pattern: &str, text: &str| {
        pattern == text || Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(text))
    };
    for (start, _) in name.char_indices().filter(|(start, _)| matches(before, &name[..*start])) {
        let rest = &name[start..];
        let run = rest.find(|c| !is_plain(c)).unwrap_or(rest.len());
        for (end, last) in rest[..run].char_indices() {
            let (lang, rest) = rest.split_at(end + last.len_utf8());
            if matches(&in_text(after, lang), rest) {
                candidates.insert(lang.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(component: &str, name: &str) -> Vec<String> {
        let mut candidates = BTreeSet::new();
        add_candidates(component, name, &mut candidates);
        candidates.into_iter().collect()
    }

    #[test]
    fn a_name_holds_the_languages_that_its_pattern_leaves_open() {
        assert_eq!(candidates("eng-{lang}", "eng-yor-Latn"), ["yor-Latn"]);
        assert_eq!(candidates("{lang}.json", "Yorùbá.json"), ["Yorùbá"]);
        assert_eq!(candidates("*-{lang}.json", "a-b-yor.json"), ["b-yor", "yor"]);
        assert_eq!(candidates("{lang}-{lang}", "yor-yor"), ["yor"]);
        assert!(candidates("{lang}-{lang}", "yor-ibo").is_empty());
        assert!(candidates("{lang}.json", "a b.json").is_empty());
        assert!(candidates("x{lang}", "x").is_empty());
    }

    #[test]
    fn a_list_of_languages_is_read_or_refused() {
        let read = |text: &str| without_list(text);
        assert_eq!(read("a/{long}/{lang").unwrap(), None);
        let (pattern, listed) = read("{lang:a|b-C}/x.{lang:b-C|a}").unwrap().unwrap();
        assert_eq!(pattern, "{lang}/x.{lang}");
        assert_eq!(listed.unwrap().into_iter().collect::<Vec<_>>(), ["a", "b-C"]);
        for wrong in ["{lang:}", "{lang:a|}", "{lang:a", "{lang:a/b}", "{lang:a}{lang:b}"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
