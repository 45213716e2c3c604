//! Groups what differs by a language alone: one source with `{lang}` in place of several.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::path::Path;

use super::source::{GuessedSource, Unrecognised};
use crate::plan::SegmentSpec;
use crate::plan::by_file::languages_of;
use crate::plan::files::Files;
use crate::plan::placeholder::{LANG, in_segments, is_plain};
use crate::storage::Storage;

/// Something that the names of its files give a language.
pub(super) trait OfLanguage: Sized + Debug {
    /// Returns the language as the names of the files have it.
    fn lang(&self) -> Option<&str>;
    /// Returns the files.
    fn files(&mut self) -> Vec<&mut String>;
    /// Returns this with `{lang}` in the place of `lang`; `None` if it would not say the same.
    fn opened(&self, lang: &str) -> Option<Self>;
    /// Says which languages `{lang}` stands for.
    fn say(&mut self, languages: &BTreeSet<String>);
}

/// Puts one in place of those that differ by a language alone, where the first of them is.
pub(super) fn by_language<T: OfLanguage>(
    all: Vec<T>,
    root: &Path,
    storage: &dyn Storage,
) -> Vec<T> {
    // Each with its languages, and with `{lang}` for those of two or more.
    let mut groups: Vec<(T, Option<T>, BTreeSet<String>)> = Vec::new();
    let mut group_of: HashMap<String, usize> = HashMap::new();
    for mut one in all {
        let lang = one.lang().map(str::to_owned);
        let lang = lang.filter(|lang| can_be_open(&mut one, lang, root, storage));
        let opened = lang.as_ref().and_then(|lang| one.opened(lang));
        // All that is equal but for the language is of one group.
        let key = opened.as_ref().map(|opened| format!("{opened:?}"));
        if let Some(&group) = key.as_ref().and_then(|key| group_of.get(key)) {
            groups[group].2.extend(lang);
            continue;
        }
        group_of.extend(key.map(|key| (key, groups.len())));
        groups.push((one, opened, lang.into_iter().collect()));
    }
    let one_of = |(one, opened, languages): (T, Option<T>, BTreeSet<String>)| match opened {
        Some(opened) if languages.len() > 1 => with_languages(opened, &languages, root, storage),
        _ => one,
    };
    groups.into_iter().map(one_of).collect()
}

/// Returns whether `{lang}` may stand in the name of every file. It may not beside a wildcard, which
/// could stand for a part of it.
fn can_be_open<T: OfLanguage>(one: &mut T, lang: &str, root: &Path, storage: &dyn Storage) -> bool {
    let is_open = |file: &String| {
        let open = opened(file, lang);
        let mut parts = open.split('/');
        let has_both = parts.any(|part| part.contains(LANG) && part.contains('*'));
        let is_name = file.contains('*') && storage.is_there(&root.join(file));
        !file.contains(['?', '[', ']', '{', '}']) && open.contains(LANG) && !has_both && !is_name
    };
    lang.chars().all(is_plain) && one.files().into_iter().all(|file| is_open(file))
}

/// Returns a group as one. Lists its languages where its patterns would find others.
fn with_languages<T: OfLanguage>(
    mut one: T,
    languages: &BTreeSet<String>,
    root: &Path,
    storage: &dyn Storage,
) -> T {
    let listed = languages.iter().map(String::as_str).collect::<Vec<_>>().join("|");
    for file in one.files() {
        if languages_of(file, root, storage).ok().as_ref() != Some(languages) {
            *file = file.replacen(LANG, &format!("{{lang:{listed}}}"), 1);
        }
    }
    one.say(languages);
    one
}

/// Returns a text with `{lang}` in the place of every word `lang`.
pub(super) fn opened(text: &str, lang: &str) -> String {
    let (mut out, mut end) = (String::new(), 0);
    for (start, _) in text.match_indices(lang) {
        let next = start + lang.len();
        let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        if is_word(text[..start].chars().next_back()) || is_word(text[next..].chars().next()) {
            continue;
        }
        out.push_str(&text[end..start]);
        out.push_str(LANG);
        end = next;
    }
    out + &text[end..]
}

/// Returns the files of a list; none of parallel text.
fn list_of(files: &mut Files) -> &mut [String] {
    match files {
        Files::List(files) => files,
        Files::Sides(_) => &mut [],
    }
}

impl OfLanguage for GuessedSource {
    fn lang(&self) -> Option<&str> {
        self.path_lang.as_deref()
    }

    fn files(&mut self) -> Vec<&mut String> {
        let both = [&mut self.files, &mut self.validation_files];
        both.into_iter().flat_map(list_of).collect()
    }

    fn opened(&self, lang: &str) -> Option<Self> {
        let all = |files: &Files| {
            Files::List(files.patterns(None).iter().map(|text| opened(text, lang)).collect())
        };
        let segment = |segment: &SegmentSpec| match segment {
            SegmentSpec::Prompt(template) => SegmentSpec::Prompt(opened(template, lang)),
            SegmentSpec::Target(template) => SegmentSpec::Target(opened(template, lang)),
        };
        let open = Self {
            name: opened(&self.name, lang),
            task: self.task.clone(),
            // A source of files by language has their language.
            lang: self.lang.clone().filter(|own| own != lang),
            path_lang: None,
            files: all(&self.files),
            validation_files: all(&self.validation_files),
            encoding: self.encoding,
            unit: self.unit,
            labels: self.labels.clone(),
            segments: self.segments.as_ref().map(|all| all.iter().map(segment).collect()),
            chat: self.chat.clone(),
            understood: opened(&self.understood, lang),
        };
        let again = open.segments.as_ref().map(|segments| in_segments(segments, lang));
        let is_same = match (again, &self.segments) {
            (Some(Ok(again)), Some(own)) => again == *own,
            (again, own) => again.is_none() && own.is_none(),
        };
        (is_same && open.name.contains(LANG)).then_some(open)
    }

    fn say(&mut self, languages: &BTreeSet<String>) {
        let languages = languages.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        self.understood.extend(["; {lang} is ", &languages]);
    }
}

impl OfLanguage for Unrecognised {
    fn lang(&self) -> Option<&str> {
        self.lang.as_deref().filter(|_| self.error.is_none())
    }

    fn files(&mut self) -> Vec<&mut String> {
        self.files.iter_mut().collect()
    }

    fn opened(&self, lang: &str) -> Option<Self> {
        let files = self.files.iter().map(|file| opened(file, lang)).collect();
        let open = Self { name: opened(&self.name, lang), lang: None, files, ..self.clone() };
        open.name.contains(LANG).then_some(open)
    }

    fn say(&mut self, _: &BTreeSet<String>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_is_opened_where_it_is_a_word() {
        for (text, expected) in [
            ("mt-eng-yor-en-yor", "mt-eng-{lang}-en-{lang}"),
            ("yor/yoruba_yor.yor", "{lang}/yoruba_{lang}.{lang}"),
            ("{{ translation.yor }} ọyor", "{{ translation.{lang} }} ọyor"),
            ("", ""),
        ] {
            assert_eq!(opened(text, "yor"), expected);
        }
    }
}
