//! Contamination: finds texts that share an n-gram with files that training is kept clean of.
//!
//! A text is its words in NFC and lower case: runs of letters, marks and digits; the characters
//! between them do not count. Held in memory: a hash of every n-gram of the files. The n-grams of a
//! record are the n-grams of each field. If no field has n words, its text fields are joined by
//! spaces, in the order of the file (so a short question and its short answer count together). A
//! record with fewer than n words in all has no n-grams: training cannot be kept clean of it, and
//! such records are counted by file.

use std::collections::{HashMap, VecDeque};
use std::path::Path;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::Plan;
use crate::read::{self, FormatOptions, Records, Request, Value};

/// The n-grams of the files that training is kept clean of.
#[derive(Debug, Clone, Default)]
pub struct HeldOut {
    /// The number of words in an n-gram.
    n: usize,
    /// The hashes of the n-grams, each with the first record that has it.
    n_grams: HashMap<u64, Origin>,
    files: Vec<HeldOutFile>,
}

/// A record of the files: the index of its file, and its number there.
#[derive(Debug, Clone, Copy)]
struct Origin {
    file: u32,
    record: u32,
}

/// An n-gram that a text shares with the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hit<'a> {
    /// Its words, parted by spaces.
    pub n_gram: String,
    /// The name of the first file that has it.
    pub held_out: &'a str,
    /// The number of the first record of that file that has it, from 0.
    pub record: u64,
}

/// The counts of a file that training is kept clean of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldOutFile {
    /// The path of the file in the corpus.
    pub name: String,
    /// The number of its records.
    pub records: u64,
    /// The number of its records without an n-gram: they have too few words, all fields together.
    pub short: u64,
}

impl HeldOut {
    /// Reads the files that the plan names, if it names any.
    pub(crate) fn read(plan: &Plan, context: &Context<'_>) -> Result<Option<Self>> {
        let Some(n) = plan.pack.decontaminate_ngram else { return Ok(None) };
        let mut held_out = Self { n, ..Self::default() };
        for &input in &plan.decontaminate {
            let input = &plan.inputs[input];
            let mut file = HeldOutFile { name: input.name.clone(), records: 0, short: 0 };
            held_out
                .add_file(&input.path, &mut file, context)
                .map_err(|error| error.file(input.name.clone()))?;
            held_out.files.push(file);
        }
        Ok(Some(held_out))
    }

    /// Returns the counts of each file, in the order of reading.
    #[must_use]
    pub(crate) fn files(&self) -> &[HeldOutFile] {
        &self.files
    }

    /// Returns the number of words in an n-gram.
    #[must_use]
    pub(crate) fn n(&self) -> usize {
        self.n
    }

    /// Adds the n-grams of a file, and counts its records in `file`.
    fn add_file(
        &mut self,
        path: &Path,
        file: &mut HeldOutFile,
        context: &Context<'_>,
    ) -> Result<()> {
        // No source describes the file: its suffix and its content do.
        let options = FormatOptions::default();
        let guessed = read::guess(context.storage, path, &options).and_then(|format| {
            let files = [(path, file.name.as_str())];
            read::resolve_dialect(context.storage, (format, false), options, &files)
        });
        let (format, options) = &guessed.map_err(|error| match error.kind {
            // The remedy names keys of a source, and this file has none.
            ErrorKind::Config => error.remedy(
                "a file of `decontaminate` has no source that could say its format: save it as \
                 JSON Lines, or as CSV with commas",
            ),
            _ => error,
        })?;
        let request = Request::all(path, options, context);
        let mut records = Records::open(*format, &request, 0)?;
        while let Some(record) = records.advance()? {
            context.monitor.check()?;
            let fields = match record.fields() {
                Ok(fields) => fields,
                // To pass over a test record unread would break the promise.
                Err(refusal) => {
                    return Err(Error::input(format!(
                        "{}: training cannot be kept clean of it",
                        refusal.why
                    ))
                    .place(format.get().locate(&request, record.offset)?)
                    .remedy("mend the record, or remove it"));
                }
            };
            let origin = Origin { file: self.files.len() as u32, record: file.records as u32 };
            file.records += 1;
            file.short += u64::from(!self.add_record(fields.values(), origin));
        }
        Ok(())
    }

    /// Adds the n-grams of a record's fields. Returns whether it has any.
    fn add_record<'v>(&mut self, fields: impl Iterator<Item = &'v Value>, origin: Origin) -> bool {
        let mut texts: Vec<&str> = Vec::new();
        fields.for_each(|value| collect_texts(value, &mut texts));
        // Every field is added, also after one that has n-grams.
        let has_any =
            texts.iter().fold(false, |has_any, text| self.add_text(text, origin) | has_any);
        has_any || texts.len() > 1 && self.add_text(&texts.join(" "), origin)
    }

    /// Adds the n-grams of a text. Returns whether it has any.
    fn add_text(&mut self, text: &str, origin: Origin) -> bool {
        let mut has_any = false;
        any_n_gram(text, self.n, |n_gram| {
            has_any = true;
            self.n_grams.entry(n_gram).or_insert(origin);
            false
        });
        has_any
    }

    /// Returns whether `text` shares an n-gram with the files.
    #[must_use]
    pub(crate) fn has_part_of(&self, text: &str) -> bool {
        any_n_gram(text, self.n, |n_gram| self.n_grams.contains_key(&n_gram))
    }

    /// Returns the first n-gram that `text` shares with the files.
    pub(crate) fn hit_of(&self, text: &str) -> Option<Hit<'_>> {
        let (mut end, mut origin) = (self.n - 1, None);
        any_n_gram(text, self.n, |n_gram| {
            end += 1;
            origin = self.n_grams.get(&n_gram);
            origin.is_some()
        });
        let Origin { file, record } = *origin?;
        let folded = folded(text);
        let words: Vec<&str> = words(&folded).skip(end - self.n).take(self.n).collect();
        let held_out = &self.files[file as usize].name;
        Some(Hit { n_gram: words.join(" "), held_out, record: record.into() })
    }

    /// Returns a digest of all n-grams, on which alone the result of [`Self::has_part_of`] depends.
    #[must_use]
    pub(crate) fn digest(&self) -> u128 {
        let mut words: Vec<u64> = self.n_grams.keys().copied().collect();
        // A map has no order of its own.
        words.sort_unstable();
        words.push(self.n as u64);
        xxh3_128(&words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>())
    }
}

/// Appends the texts in a value, in order.
fn collect_texts<'v>(value: &'v Value, texts: &mut Vec<&'v str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(values) => values.iter().for_each(|value| collect_texts(value, texts)),
        Value::Object(fields) => fields.values().for_each(|value| collect_texts(value, texts)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Unreadable(_) => {}
    }
}

/// Returns a text in NFC and lower case.
fn folded(text: &str) -> String {
    text.nfc().collect::<String>().to_lowercase()
}

/// Returns whether `found` holds for the hash of any n-gram of `text`.
fn any_n_gram(text: &str, n: usize, found: impl FnMut(u64) -> bool) -> bool {
    any_n_gram_of(words(&folded(text)), n, found)
}

/// Returns the words of a text in NFC and lower case: its runs of letters, marks and digits.
pub(crate) fn words(folded: &str) -> impl Iterator<Item = &str> {
    folded
        .split(|c: char| !c.is_alphanumeric() && !is_combining_mark(c))
        .filter(|word| !word.is_empty())
}

/// Returns whether `found` holds for the hash of any n-gram of these words.
pub(crate) fn any_n_gram_of<'t>(
    words: impl Iterator<Item = &'t str>,
    n: usize,
    mut found: impl FnMut(u64) -> bool,
) -> bool {
    // Hashes of the last n words; the hash of an n-gram is made from these.
    let mut last: VecDeque<u64> = VecDeque::with_capacity(n);
    let mut bytes = Vec::with_capacity(n * 8);
    for word in words {
        if last.len() == n {
            last.pop_front();
        }
        last.push_back(xxh3_64(word.as_bytes()));
        if last.len() == n {
            bytes.clear();
            bytes.extend(last.iter().flat_map(|hash| hash.to_le_bytes()));
            if found(xxh3_64(&bytes)) {
                return true;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FIRST: Origin = Origin { file: 0, record: 0 };

    fn held_out(texts: &[String], n: usize) -> HeldOut {
        let name = "test.txt".to_owned();
        let files = vec![HeldOutFile { name, records: 0, short: 0 }];
        let mut held_out = HeldOut { n, files, ..HeldOut::default() };
        for (record, text) in (0..).zip(texts) {
            held_out.add_record([Value::String(text.clone())].iter(), Origin { file: 0, record });
        }
        held_out
    }

    #[test]
    fn case_marks_and_what_is_between_words_do_not_count() {
        let held_out = held_out(&["Ẹ káàárọ̀, ilé-ìwé: 12".to_owned()], 5);
        assert!(held_out.has_part_of("so: «e\u{323} KÁÀÁRO\u{323}\u{300} ile\u{301}…ÌWÉ!» 12, 13"));
        assert!(!held_out.has_part_of("ẹ káàárọ̀ ilé ìwé"));
    }

    #[test]
    fn short_fields_of_a_record_count_together_and_long_ones_alone() {
        let mut held_out = HeldOut { n: 4, ..HeldOut::default() };
        let record = |text: &str| crate::read::parse_json(text.as_bytes()).unwrap();
        assert!(
            held_out.add_record(
                record(r#"{"q": "what is", "n": 7, "a": ["two words"]}"#).values(),
                FIRST
            )
        );
        assert!(held_out.has_part_of("What is: two words!"));
        // A field that is long enough stands for its record; what spans it and another does not.
        assert!(held_out.add_record(
            record(r#"{"q": "one two three four", "a": "five six seven"}"#).values(),
            FIRST
        ));
        assert!(held_out.has_part_of("zero one two three four"));
        assert!(!held_out.has_part_of("two three four five"));
        assert!(!held_out.add_record(record(r#"{"q": "too few", "a": "words"}"#).values(), FIRST));
        assert!(!held_out.add_record(record("{}").values(), FIRST));
    }

    proptest! {
        #[test]
        fn an_n_gram_is_shared_where_some_n_words_are_equal(
            held in prop::collection::vec("[ab]( [ab]){0,6}", 0..4),
            text in "[ab]( [ab]){0,8}",
            n in 1usize..5,
        ) {
            let words =
                |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<String>>();
            let held_words: Vec<_> = held.iter().map(|text| words(text)).collect();
            let is_held = |n_gram: &[String]| {
                held_words.iter().any(|held| held.windows(n).any(|other| other == n_gram))
            };
            let expected = words(&text).windows(n).any(is_held);
            let held_out = held_out(&held, n);
            prop_assert_eq!(held_out.has_part_of(&text), expected);
            let hit = held_out.hit_of(&text);
            prop_assert_eq!(hit.is_some(), expected);
            // The first n-gram of the text, and the first record that has it.
            if let Some(hit) = hit {
                let n_gram = words(&hit.n_gram);
                let first = words(&text).windows(n).find(|words| is_held(words)).map(<[_]>::to_vec);
                prop_assert_eq!(Some(&n_gram), first.as_ref());
                let of = held_words.iter().position(|held| held.windows(n).any(|of| of == n_gram));
                prop_assert_eq!(Some(hit.record as usize), of);
            }
        }
    }
}
