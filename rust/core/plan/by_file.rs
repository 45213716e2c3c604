//! `{lang}` in `files`: a source for each language that the names of its files hold.
//!
//! The languages of a pattern are those that, put in the place of `{lang}`, make it match a file.
//! A list (`{lang:hau|ibo}`) names them itself.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind::NotFound;
use std::path::{Component, Path, PathBuf};

use glob::Pattern;

use super::files::{Files, Patterns};
use super::find::{components_of, find_files, no_match, paths_below, portable_name};
use super::placeholder::{
    LANG, in_segments, in_template, in_text, is_plain, name_of, outside_tags,
};
use super::{ChatSpec, HubFiles, SegmentSpec, SourceSpec, UNDETERMINED};
use crate::error::{Error, Result};
use crate::storage::{Storage, below};

/// Returns the sources that `spec` stands for: one for each language in the names of its files, in
/// order of language; or the one that it is.
pub(super) fn by_file(spec: SourceSpec, places: Places<'_>) -> Result<Vec<SourceSpec>> {
    let files = Entries::of(&spec.files, places)?;
    let held_out = Entries::of(&spec.validation_files, places)?;
    let languages: BTreeSet<&String> =
        files.languages().chain(held_out.languages()).flatten().collect();
    if languages.is_empty() {
        return refuse_unnamed(&spec).map(|()| vec![spec]);
    }
    if spec.lang.as_ref().is_some_and(|lang| lang.contains("{{")) {
        return Err(Error::config(format!("`lang` is a field, and its files name one by {LANG}"))
            .remedy("leave one of them out"));
    }
    for entries in [&files, &held_out] {
        entries.refuse_without_language()?;
    }
    let of_language = |lang: &String| {
        of_language(&spec, lang, files.of_language(lang)?, held_out.of_language(lang)?)
    };
    languages.into_iter().map(of_language).collect()
}

/// Refuses `{lang}` in a source whose files name no language by it.
fn refuse_unnamed(spec: &SourceSpec) -> Result<()> {
    let SourceSpec { name, task, lang, segments, templates, chat, tagged, when, each, .. } = spec;
    // A field of languages puts them there too.
    if lang.as_ref().is_some_and(|lang| lang.contains("{{")) {
        return Ok(());
    }
    let holds = |text: &Option<String>| text.as_ref().is_some_and(|text| text.contains(LANG));
    let shows = |segments: &Vec<SegmentSpec>| {
        segments.iter().any(|segment| outside_tags(segment.template()).contains(LANG))
    };
    let keys = [
        ("name", name.contains(LANG)),
        ("task", holds(task)),
        ("lang", holds(lang)),
        ("segments", segments.as_ref().is_some_and(shows)),
        ("templates", templates.iter().flatten().any(shows)),
        ("chat", chat.as_ref().is_some_and(ChatSpec::shows_language)),
        ("tagged", tagged.as_ref().is_some_and(|it| it.with_language(UNDETERMINED) != *it)),
        ("when", holds(when)),
        ("each", holds(each)),
    ];
    let Some((key, _)) = keys.into_iter().find(|(_, holds)| *holds) else { return Ok(()) };
    let sides = spec.files.fields();
    let mut named = sides.iter().flat_map(|side| spec.files.patterns(side.as_deref()));
    if let Some(file) = named.find(|pattern| pattern.contains(LANG)) {
        return Err(Error::config(format!(
            "`{key}` holds {LANG}, and `{file}` is itself the name of a file: it stands for no \
             language"
        ))
        .remedy(format!("rename the file, or leave {LANG} out of `{key}`")));
    }
    Err(Error::config(format!("`{key}` holds {LANG}, and no entry of `files` does")).remedy(
        format!(
            "write {LANG} where the language stands in the names of its files, such as \
         files = [\"data/{LANG}/train.jsonl\"], or lang = \"{{{{ FIELD }}}}\" for a field; as text \
         of a template it is {{{{ \"{LANG}\" }}}}"
        ),
    ))
}

/// Returns the source that reads `lang` of `spec`, from these files.
fn of_language(
    spec: &SourceSpec,
    lang: &str,
    files: Files,
    validation_files: Files,
) -> Result<SourceSpec> {
    let put = |segments: &Vec<_>| in_segments(segments, lang);
    let segments = spec.segments.as_ref().map(put).transpose()?;
    let templates = spec.templates.as_ref().map(|all| all.iter().map(put).collect());
    Ok(SourceSpec {
        name: name_of(&spec.name, lang),
        // All languages of a source are one task, unless its name tells them apart.
        task: Some(in_text(&spec.task(), lang)),
        lang: Some(spec.lang.as_ref().map_or_else(|| lang.to_owned(), |own| in_text(own, lang))),
        files,
        validation_files,
        segments,
        templates: templates.transpose()?,
        chat: spec.chat.as_ref().map(|chat| chat.with_language(lang)).transpose()?,
        tagged: spec.tagged.as_ref().map(|tagged| tagged.with_language(lang)),
        when: spec.when.as_ref().map(|when| in_template(when, lang)).transpose()?,
        each: spec.each.as_ref().map(|each| in_text(each, lang)),
        ..spec.clone()
    })
}

/// Where files are found.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    /// The corpus folder.
    pub root: &'a Path,
    pub storage: &'a dyn Storage,
    /// The files of the Hub.
    pub hub: &'a HubFiles,
}

/// The entries of `files`, by the field that their lines are; whole records have none.
struct Entries(Vec<(Option<String>, Vec<Entry>)>);

impl Entries {
    /// Reads the entries and finds their languages.
    fn of(files: &Files, places: Places<'_>) -> Result<Self> {
        let of_field = |field: Option<String>| {
            let patterns = files.patterns(field.as_deref()).iter();
            let entries: Result<_> = patterns.map(|pattern| Entry::of(pattern, places)).collect();
            Ok((field, entries?))
        };
        files.fields().into_iter().map(of_field).collect::<Result<_>>().map(Self)
    }

    /// Returns the languages of each entry.
    fn languages(&self) -> impl Iterator<Item = &BTreeSet<String>> {
        self.0.iter().flat_map(|(_, entries)| entries).filter_map(|entry| entry.languages.as_ref())
    }

    /// Refuses an entry that names no language, beside others that do. A side of parallel text may:
    /// all languages share it.
    fn refuse_without_language(&self) -> Result<()> {
        let is_shared = |field: &Option<String>, entries: &[Entry]| {
            field.is_some()
                && self.languages().next().is_some()
                && entries.iter().all(|entry| entry.languages.is_none())
        };
        for (field, entries) in &self.0 {
            let without = entries.iter().find(|entry| entry.languages.is_none());
            if let Some(entry) = without.filter(|_| !is_shared(field, entries)) {
                return Err(Error::config(format!(
                    "`{}` names no language, and other files of the source do by {LANG}",
                    entry.pattern
                ))
                .remedy("make it a source of its own"));
            }
        }
        Ok(())
    }

    /// Returns the files of `lang`; none if it has none here.
    fn of_language(&self, lang: &str) -> Result<Files> {
        if !self.languages().any(|languages| languages.contains(lang)) {
            return Ok(Files::default());
        }
        let mut sides = BTreeMap::new();
        for (field, entries) in &self.0 {
            let files: Vec<String> =
                entries.iter().filter_map(|entry| entry.of_language(lang)).collect();
            let Some(field) = field else { return Ok(Files::List(files)) };
            if files.is_empty() {
                return Err(Error::config(format!(
                    "'{field}' has no file of the language {lang}, which other files of the \
                     source name by {LANG}"
                ))
                .remedy("list the languages that all of them have, as in {lang:hau|ibo}"));
            }
            sides.insert(field.clone(), Patterns::Many(files));
        }
        Ok(Files::Sides(sides))
    }
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
    fn of(written: &str, places: Places<'_>) -> Result<Self> {
        let Places { root, storage, hub } = places;
        let plain = || Self { pattern: written.to_owned(), languages: None };
        // A name that exists is taken as it is, unless languages have files by it too.
        let Some((pattern, listed)) = without_list(written)? else { return Ok(plain()) };
        if hub.has(written) {
            return Ok(plain());
        }
        if let Some(named) = literal(written, root, storage) {
            let languages = languages_of(&pattern, root, storage)?;
            return match languages.first() {
                None if storage.is_there(&below(root, written)) => Ok(plain()),
                other => Err(two_meanings(&named, other)),
            };
        }
        let languages = match listed {
            Some(listed) => listed,
            None if HubFiles::are_named_by(written) => hub.languages_of(&pattern),
            None => languages_of(&pattern, root, storage)?,
        };
        // Finding the files of the Hub says why there are none.
        if languages.is_empty() && HubFiles::are_named_by(written) {
            return Ok(plain());
        }
        if languages.is_empty() {
            return Err(no_match(storage, root, written));
        }
        Ok(Self { pattern, languages: Some(languages) })
    }

    /// Returns the pattern for the files of `lang`, if it has any.
    fn of_language(&self, lang: &str) -> Option<String> {
        let Some(languages) = &self.languages else { return Some(self.pattern.clone()) };
        languages.contains(lang).then(|| in_text(&self.pattern, lang))
    }
}

/// Returns the file or folder that is itself named as `written`, up to the first component that holds
/// a placeholder.
fn literal(written: &str, root: &Path, storage: &dyn Storage) -> Option<String> {
    let is_open = |part: &&str| part.contains("{lang");
    let end = written.split('/').take_while(|part| !is_open(part)).map(|part| part.len() + 1).sum();
    let rest: &str = written.get(end..)?;
    let named = &written[..end + rest.find('/').unwrap_or(rest.len())];
    storage.is_there(&below(root, named)).then(|| named.to_owned())
}

/// Returns the error of a file or folder `named` with a placeholder, which also stands for languages.
fn two_meanings(named: &str, other: Option<&String>) -> Error {
    let also = other.map(|lang| format!(", such as {lang}")).unwrap_or_default();
    Error::config(format!(
        "{LANG} stands for a language{also}, and there is a file or folder called {named}"
    ))
    .remedy(format!("rename {named}"))
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
pub(super) fn languages_of(
    pattern: &str,
    root: &Path,
    storage: &dyn Storage,
) -> Result<BTreeSet<String>> {
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
    let (start, components) = components_of(root, pattern);
    let holds = |component: &Component<'_>| component.as_os_str().to_string_lossy().contains(LANG);
    let Some(nth) = components.iter().position(holds) else { return Ok(candidates) };
    let component = components[nth].as_os_str().to_string_lossy();
    let all = Component::Normal("*".as_ref());
    let beside: Vec<Component<'_>> = components[..nth].iter().copied().chain([all]).collect();
    for path in paths_below(storage, &start, pattern, &beside)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        add_candidates(&component, &name, &mut candidates);
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
