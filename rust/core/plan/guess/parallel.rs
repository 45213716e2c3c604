//! Parallel text by the names of its files: `train.en` beside `train.yo`, as OPUS and Moses name
//! them, or `eng.dev` beside `yor.dev`, as FLORES does. Files are a pair if they have as many lines.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::by_language::opened;
use super::codes::{is_code, is_language_key};
use super::folder::{COMPRESSED, Folder, NO_RECORD, NO_SUFFIX, TEST_FILES};
use super::names::{Named, NamedSplit, split_of};
use super::shape::{direction, expression};
use super::source::GuessedSource;
use crate::plan::files::{Files, Patterns};
use crate::plan::language::code_of;
use crate::plan::placeholder::{LANG, is_plain};
use crate::read::{self, FormatName, FormatOptions};
use crate::storage::Storage;

/// The language that the others are paired with, where there are more than two.
const ENGLISH: &str = "eng";
/// The most languages that one text in English is paired with.
const MOST_PAIRS: usize = 100;
/// Why text in several languages is passed over.
const NO_ENGLISH: &str = "text in more than two languages, none of them English: pair them in a \
                          corpus.toml, files = { … }";
/// Why languages beyond the most are passed over.
const TOO_MANY: &str = "English has 100 languages already: list others in {lang:…}";
/// The field of the other language, where several sources share a block.
const OTHER: &str = "other";
/// The most bytes of content in which lines are counted.
const MOST_COUNTED: u64 = 1 << 30;

/// A file that may be one language of parallel text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Side {
    path: PathBuf,
    name: String,
    lang: String,
    /// Its name with `{lang}` for the language, equal for all languages of a text.
    key: String,
    /// Its name without the language and suffixes.
    stem: String,
}

impl Side {
    /// Returns the file called `name` if its name ends with a language, or has one before a split.
    pub(super) fn of(name: &str, path: &Path) -> Option<Self> {
        let slash = name.rfind('/').map_or(0, |slash| slash + 1);
        let (folder, whole) = name.split_at(slash);
        let file = match whole.rsplit_once('.') {
            Some((file, suffix)) if suffix != "zip" && COMPRESSED.contains(&suffix) => file,
            _ => whole,
        };
        let (before, after) = file.split_once('.')?;
        let (stem, last) = file.rsplit_once('.').filter(|(stem, _)| !stem.is_empty())?;
        let (lang, key, stem) = if is_side(last, stem) {
            (last, format!("{stem}.{LANG}"), stem)
        } else if before == stem && split_of(after).is_some() && is_side(before, "") {
            (before, format!("{LANG}.{after}"), after)
        } else {
            return None;
        };
        let [key, stem] = [&key, stem].map(|text| format!("{folder}{text}"));
        let lang = lang.to_owned();
        Some(Self { path: path.to_owned(), name: name.to_owned(), lang, key, stem })
    }
}

/// Returns whether a part of a file's name is a language. The rest of the name may say which
/// languages the text has, as in `news.en-is.is`.
fn is_side(part: &str, rest: &str) -> bool {
    if !part.chars().all(is_plain) || split_of(part).is_some() {
        return false;
    }
    let is_of_pair = |word: &str| {
        word.split_once('-').is_some_and(|(one, two)| {
            [one, two].contains(&part) && is_language_key(one) && is_language_key(two)
        })
    };
    match part.split_once(['_', '-']) {
        Some((code, script)) => {
            let is_script = script.chars().all(char::is_alphabetic);
            is_script && (2..=4).contains(&script.len()) && is_language_key(code)
        }
        None => is_code(part) || rest.split(['.', '_', '/']).any(is_of_pair),
    }
}

/// Two files of a text: its languages, its split, and the number of lines, if it was counted.
struct Pair {
    named: Named,
    languages: [String; 2],
    files: [String; 2],
    lines: Option<u64>,
}

/// The pairs of one text in two languages, by split.
struct Text {
    named: Named,
    languages: [String; 2],
    train: Vec<[String; 2]>,
    validation: Vec<[String; 2]>,
    lines: Option<u64>,
}

/// Returns two sources for each pair of languages, one a direction, and passes over files that make
/// no pair.
pub(super) fn parallel_sources(folder: &mut Folder, storage: &dyn Storage) -> Vec<GuessedSource> {
    let mut groups: BTreeMap<String, Vec<Side>> = BTreeMap::new();
    for side in std::mem::take(&mut folder.sides) {
        groups.entry(side.key.clone()).or_default().push(side);
    }
    let mut texts: Vec<Text> = Vec::new();
    for pair in groups.into_values().flat_map(|sides| pairs_of(sides, folder, storage)) {
        let is_same = |text: &Text| {
            text.named.family() == pair.named.family() && text.languages == pair.languages
        };
        let split = pair.named.split;
        let index = texts.iter().position(is_same);
        let index = index.unwrap_or_else(|| {
            let (train, validation) = (Vec::new(), Vec::new());
            let Pair { named, languages, .. } = &pair;
            let (named, languages) = (named.clone(), languages.clone());
            texts.push(Text { named, languages, train, validation, lines: Some(0) });
            texts.len() - 1
        });
        let text = &mut texts[index];
        text.lines = text.lines.zip(pair.lines).map(|(sum, lines)| sum + lines);
        let of_split = match split {
            NamedSplit::Validation => &mut text.validation,
            _ => &mut text.train,
        };
        of_split.push(pair.files);
    }
    by_english(texts)
        .iter()
        .flat_map(|block| [block.source([0, 1]), block.source([1, 0])])
        .collect()
}

/// Returns the pairs of languages of a text.
fn pairs_of(sides: Vec<Side>, folder: &mut Folder, storage: &dyn Storage) -> Vec<Pair> {
    let Some((first, others)) = sides_of(sides, folder) else { return Vec::new() };
    let looked = Counted::of(&first, storage);
    let mut pairs = Vec::new();
    for (nth, side) in others.into_iter().enumerate() {
        if nth >= MOST_PAIRS {
            folder.pass_over(TOO_MANY, side.name);
            continue;
        }
        match looked.compare(&Counted::of(&side, storage)) {
            Ok(lines) => pairs.push(Pair {
                named: Named::of(&first.stem),
                languages: [first.lang.clone(), side.lang],
                files: [first.name.clone(), side.name],
                lines,
            }),
            Err((why, said)) => {
                folder.pass_over(why, format!("{} and {}{said}", first.name, side.name));
            }
        }
    }
    pairs
}

/// Returns the side that the others are paired with, and these; `None` if there is no pair, or if
/// they are test files.
fn sides_of(sides: Vec<Side>, folder: &mut Folder) -> Option<(Side, Vec<Side>)> {
    let (mut known, mut kept) = (BTreeSet::new(), Vec::new());
    for side in sides {
        if known.insert(side.lang.clone()) {
            kept.push(side);
        } else {
            folder.pass_over("a second file of one language", side.name);
        }
    }
    let english = kept.iter().position(|side| code_of(&side.lang) == Some(ENGLISH));
    let (first, why) = match kept.len() {
        1 => (None, NO_SUFFIX),
        2 => (Some(english.unwrap_or(0)), TEST_FILES),
        _ => (english, if english.is_some() { TEST_FILES } else { NO_ENGLISH }),
    };
    let is_test = |side: &Side| Named::of(&side.stem).split == NamedSplit::Test;
    match first {
        Some(first) if !is_test(&kept[first]) => Some((kept.remove(first), kept)),
        _ => {
            for side in kept {
                folder.pass_over(why, side.name);
            }
            None
        }
    }
}

/// What is known of a file's lines.
enum Counted {
    Lines(u64),
    /// Too many to be counted.
    Unknown,
    /// The file is no text in UTF-8.
    Unreadable,
}

impl Counted {
    /// Counts the lines of a file.
    fn of(side: &Side, storage: &dyn Storage) -> Self {
        let Some(format) = FormatName::find("parallel") else { return Self::Unreadable };
        let options = FormatOptions::default();
        let is_text = read::refuse_other_content(storage, &side.path, format, &options).is_ok()
            && read::encoding_of(storage, &side.path).is_none();
        if !is_text {
            return Self::Unreadable;
        }
        match read::count_lines(storage, &side.path, MOST_COUNTED) {
            Ok(lines) => lines.map_or(Self::Unknown, Self::Lines),
            Err(_) => Self::Unreadable,
        }
    }

    /// Returns the number of lines of two files, if it is known; why they are no pair otherwise.
    fn compare(&self, other: &Self) -> Result<Option<u64>, (&'static str, String)> {
        match (self, other) {
            (Self::Unreadable, _) | (_, Self::Unreadable) => {
                Err(("parallel by their names, and not all text in UTF-8", String::new()))
            }
            (Self::Lines(0), Self::Lines(0)) => Err((NO_RECORD, String::new())),
            (Self::Lines(one), Self::Lines(two)) if one != two => {
                let said = format!(" ({one} and {two} lines)");
                Err(("parallel by their names, but of different lengths", said))
            }
            (Self::Lines(lines), Self::Lines(_)) => Ok(Some(*lines)),
            _ => Ok(None),
        }
    }
}

/// A text in two languages, or in English and each of several others by `{lang}`.
struct Block {
    name: String,
    task: Option<&'static str>,
    /// The languages as templates name them; `{lang}` for several.
    languages: [String; 2],
    /// The fields of the languages.
    fields: [String; 2],
    train: Vec<[String; 2]>,
    validation: Vec<[String; 2]>,
    /// The end of a sentence about it.
    said: String,
}

/// Returns the texts, those with English that differ by the other language alone as one.
fn by_english(texts: Vec<Text>) -> Vec<Block> {
    let mut groups: Vec<(Text, Option<String>, BTreeSet<String>)> = Vec::new();
    for text in texts {
        let key = text.key();
        let same = groups.iter_mut().find(|(_, other, _)| key.is_some() && *other == key);
        let lang = text.languages[1].clone();
        match same {
            Some((_, _, languages)) => drop(languages.insert(lang)),
            None => groups.push((text, key, BTreeSet::from([lang]))),
        }
    }
    let block = |(text, _, languages): (Text, _, BTreeSet<String>)| match languages.len() {
        1 => text.alone(),
        _ => text.with(&languages),
    };
    groups.into_iter().map(block).collect()
}

impl Text {
    /// Returns a text that is equal for those that differ by the second language alone.
    fn key(&self) -> Option<String> {
        let [first, second] = &self.languages;
        let is_open = |files: &[String; 2]| opened(&files[1], second).contains(LANG);
        let all = || self.train.iter().chain(&self.validation);
        let is_english = code_of(first) == Some(ENGLISH) && all().all(is_open);
        let open = |files: &[String; 2]| files.each_ref().map(|file| opened(file, second));
        let [train, held_out] =
            [&self.train, &self.validation].map(|all| all.iter().map(open).collect::<Vec<_>>());
        let family = opened(&self.named.family(), second);
        is_english.then(|| format!("{family}|{first}|{train:?}|{held_out:?}"))
    }

    /// Returns the text as a block of its own.
    fn alone(self) -> Block {
        let lines = self.lines.map(|lines| format!(", {lines} lines each"));
        let said = lines.unwrap_or_else(|| ", lines not counted".to_owned());
        let Self { named, languages, train, validation, .. } = self;
        let (name, task, fields) = (named.name(), named.task(), languages.clone());
        Block { name, task, languages, fields, train, validation, said }
    }

    /// Returns the texts in English and each of `languages` as one block.
    fn with(self, languages: &BTreeSet<String>) -> Block {
        let [first, second] = self.languages.clone();
        let listed: Vec<&str> = languages.iter().map(String::as_str).collect();
        let listed = format!("{{lang:{}}}", listed.join("|"));
        let said = format!("; English with each of {} languages by {{lang}}", languages.len());
        let open = |files: [String; 2]| {
            files.map(|file| opened(&file, &second).replacen(LANG, &listed, 1))
        };
        let [train, validation] =
            [self.train, self.validation].map(|all| all.into_iter().map(open).collect());
        Block {
            name: opened(&self.named.name(), &second),
            task: self.named.task(),
            fields: [first.clone(), OTHER.to_owned()],
            languages: [first, LANG.to_owned()],
            train,
            validation,
            said,
        }
    }
}

impl Block {
    /// Returns the source that translates from the first of two languages into the second.
    fn source(&self, [from, to]: [usize; 2]) -> GuessedSource {
        let texts = [from, to].map(|nth| expression(None, &self.fields[nth]));
        let languages = [from, to].map(|nth| self.languages[nth].as_str());
        let understood = format!("parallel text from {} into {}", languages[0], languages[1]);
        let shape = direction(understood, languages, &texts);
        let first = self.train.first().or(self.validation.first());
        let named = first.map(|[one, two]| format!(" in {one} and {two}")).unwrap_or_default();
        let held_out =
            if self.validation.is_empty() { "" } else { "; its validation files are held out" };
        let name = [self.name.as_str(), &shape.suffix];
        let name: Vec<&str> = name.into_iter().filter(|part| !part.is_empty()).collect();
        GuessedSource {
            name: name.join("-"),
            task: self.task.unwrap_or(shape.task).to_owned(),
            lang: (languages[1] != LANG).then(|| languages[1].to_owned()),
            path_lang: None,
            files: self.sides(&self.train),
            validation_files: self.sides(&self.validation),
            encoding: None,
            unit: None,
            labels: Vec::new(),
            segments: Some(shape.segments),
            chat: None,
            understood: format!("{}{named}{}{held_out}", shape.understood, self.said),
        }
    }

    /// Returns files by the field that their lines are.
    fn sides(&self, files: &[[String; 2]]) -> Files {
        if files.is_empty() {
            return Files::default();
        }
        let side = |nth: usize| match files {
            [one] => Patterns::One(one[nth].clone()),
            many => Patterns::Many(many.iter().map(|files| files[nth].clone()).collect()),
        };
        let sides = self.fields.iter().enumerate();
        Files::Sides(sides.map(|(nth, field)| (field.clone(), side(nth))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_the_language_of_a_side() {
        let side = |name: &str| {
            let side = Side::of(name, Path::new(name))?;
            Some((side.lang, side.key))
        };
        for (name, lang, key) in [
            ("a/train.en", "en", "a/train.{lang}"),
            ("a/train.yo.gz", "yo", "a/train.{lang}"),
            ("JW300.en-yo.yo", "yo", "JW300.en-yo.{lang}"),
            ("news.en-is.is", "is", "news.en-is.{lang}"),
            ("dev/eng.dev", "eng", "dev/{lang}.dev"),
            ("dev/yor_Latn.dev", "yor_Latn", "dev/{lang}.dev"),
            ("x.pt-BR", "pt-BR", "x.{lang}"),
        ] {
            assert_eq!(side(name), Some((lang.to_owned(), key.to_owned())), "{name}");
        }
        let none = [
            "train", "train.is", "a.log", "a.bin", "x.dev", "en", ".en", "a.zip", "a.tar.gz",
            "a.src",
        ];
        for name in none {
            assert_eq!(side(name), None, "{name}");
        }
    }
}
