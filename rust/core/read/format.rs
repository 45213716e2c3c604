//! `Format`: the way in which files of one kind hold records. `guess` finds the format of a file.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::class_labels::{ClassLabels, refuse_no_field};
use super::columns::refuse_repeated;
use super::content::{Found, line_at, places_at};
use super::encoding::Encoding;
use super::formats::{FORMATS, Step, steps_of};
use super::head::Head;
use super::literals::refuse_unnamed;
use super::record::Reader;
use super::request::Request;
use super::split::RowGroup;
use super::view::{Only, Renames, refuse_renames};
use crate::context::Context;
use crate::error::{Error, Place, Result};
use crate::storage::Storage;

/// A format: the one place that recognises, splits, reads and locates its files and records.
pub(crate) trait Format: Sync {
    /// Returns the name of the format in `corpus.toml` and in the manifest.
    fn name(&self) -> &'static str;

    /// Returns the suffixes of its files, in lower case, without that of a compression.
    fn suffixes(&self) -> &'static [&'static str];

    /// Judges a file whose source names no format, by the start of its content and the options of
    /// its source. Returns an error if a file with a suffix of this format is unclear.
    fn sniff(&self, content: &[u8], options: &FormatOptions) -> Result<Likeness>;

    /// Returns the names of the options that sources of this format may give.
    fn options(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns whether a record begins at every line start, so that a plain file may be read in
    /// parts.
    fn splits_at_lines(&self, _: &FormatOptions) -> bool {
        false
    }

    /// Returns the rows of a plain file as it stores them together; `None` for a format whose
    /// records are found by their bytes.
    fn row_groups(&self, _: &Path, _: &dyn Storage) -> Result<Option<Vec<RowGroup>>> {
        Ok(None)
    }

    /// Returns the names of the labels that a file stores as numbers, by their fields.
    fn class_labels(&self, _: &Path, _: &dyn Storage) -> Result<ClassLabels> {
        Ok(ClassLabels::new())
    }

    /// Returns whether its files are text, so that they may be in another encoding than UTF-8.
    fn is_text(&self) -> bool {
        true
    }

    /// Returns the template of the target for sources without segments.
    fn default_target(&self) -> Option<&'static str> {
        None
    }

    /// Refuses a file whose start shows that no record can be read from it.
    fn refuse(&self, head: &Head) -> Result<()> {
        head.refuse_binary()
    }

    /// Opens the records of a file.
    fn open(&self, request: &Request<'_>) -> Result<Box<dyn Reader>>;

    /// Returns the format in a few words for a person, with the dialect that `options` choose.
    fn described(&self, options: &FormatOptions) -> String {
        options.described(self.name())
    }

    /// Returns the number of records that the file itself states, without reading them.
    fn stated_records(&self, _path: &Path, _context: &Context<'_>) -> Option<u64> {
        None
    }

    /// Returns the bytes that the file itself states for its values, without its own compression.
    fn stated_bytes(&self, _path: &Path, _context: &Context<'_>) -> Option<u64> {
        None
    }

    /// Returns the line on which a record of the file of `request` begins, or its row.
    fn locate(&self, request: &Request<'_>, offset: u64) -> Result<Place> {
        line_at(request, offset).map(Place::Line)
    }

    /// Returns the bytes of the record that `bytes` begin with, as far as they hold it.
    fn cut<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[..memchr::memchr(b'\n', bytes).unwrap_or(bytes.len())]
    }

    /// Returns the places of the records with these `offsets`, which ascend, in one pass over the
    /// file of `request`.
    fn places(&self, request: &Request<'_>, offsets: &[u64]) -> Result<Vec<Found>> {
        places_at(request, offsets, |bytes| self.cut(bytes))
    }
}

/// The judgement of a format about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Likeness {
    /// The content has another format.
    None,
    /// The content may have this format: the suffix decides.
    Possible,
    /// The content has this format, even under another suffix.
    Certain,
}

/// A format of the table, known by its name.
#[derive(Clone, Copy)]
pub struct FormatName(&'static dyn Format);

impl FormatName {
    /// Returns the format.
    pub(crate) fn get(self) -> &'static dyn Format {
        self.0
    }

    /// Returns the names of all formats.
    pub(crate) fn all() -> &'static [&'static str] {
        static NAMES: LazyLock<Vec<&'static str>> =
            LazyLock::new(|| FORMATS.iter().map(|format| format.name()).collect());
        &NAMES
    }

    /// Returns the format called `name`.
    pub(crate) fn find(name: &str) -> Option<Self> {
        FORMATS.iter().find(|format| format.name() == name).map(|&format| Self(format))
    }
}

impl PartialEq for FormatName {
    fn eq(&self, other: &Self) -> bool {
        self.0.name() == other.0.name()
    }
}

impl Eq for FormatName {}

impl fmt::Debug for FormatName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl fmt::Display for FormatName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl Serialize for FormatName {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name())
    }
}

impl<'de> Deserialize<'de> for FormatName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let unknown = || serde::de::Error::unknown_variant(&name, Self::all());
        Self::find(&name).ok_or_else(unknown)
    }
}

/// The options of a source about reading its files, beside their format.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FormatOptions {
    /// The names of the columns, in place of the names in the header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// Whether a file whose columns are named here has a header to pass over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<bool>,
    /// The character between fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<String>,
    /// New names of fields by their old ones.
    #[serde(skip_serializing_if = "Renames::is_empty")]
    pub rename: Renames,
    /// The records that are read; `None` for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<Only>,
    /// The part of a text file that is a record; `None` for a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<TextUnit>,
    /// The path from the objects of a JSON file to its records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records: Option<String>,
    /// The fields whose strings are Python literals; for every format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub literals: Option<Vec<String>>,
    /// The fields whose labels are shown by name, with the names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<ClassLabels>,
    /// The encoding of the files, if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
}

/// The part of a text file that is a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextUnit {
    /// A line.
    Line,
    /// The lines between blank lines.
    Paragraph,
    /// All lines of the file.
    File,
}

impl FormatOptions {
    /// Checks the options of a source of `format`. Returns them without options that change
    /// nothing.
    pub(crate) fn resolve(self, format: FormatName) -> Result<Self> {
        if let Some(columns) = &self.columns {
            if columns.is_empty() || columns.iter().any(String::is_empty) {
                return Err(Error::config("`columns` names no column, or one by an empty name")
                    .remedy(
                        "name every column of the file: columns = [\"question\", \"answer\"]",
                    ));
            }
            refuse_repeated(columns)?;
        }
        if let Some(delimiter) = &self.delimiter
            && (!delimiter.is_ascii() || delimiter.len() != 1 || "\"\r\n".contains(delimiter))
        {
            return Err(Error::config(format!(
                "delimiter = {delimiter:?}: must be one ASCII character, no quote or end of line"
            ))
            .remedy("write delimiter = \";\" or delimiter = \"\\t\", whichever the file has"));
        }
        refuse_renames(&self.rename)?;
        if let Some(path) = &self.records {
            steps_of(path).map_err(|why| {
                Error::config(format!("records = {path:?}: {why}"))
                    .remedy("name the lists on the way to the records: \"data[].paragraphs[]\"")
            })?;
        }
        self.literals.as_deref().map_or(Ok(()), refuse_unnamed)?;
        self.labels.as_ref().map_or(Ok(()), refuse_no_field)?;
        self.refuse_unknown(format)?;
        if self.header == Some(false) && self.columns.is_none() {
            return Err(Error::config("header = false leaves the columns without names")
                .remedy("name them: columns = [\"…\"]"));
        }
        Ok(Self {
            header: self.header.filter(|_| self.columns.is_some()),
            encoding: self.encoding.filter(|encoding| *encoding != Encoding::Utf8),
            unit: self.unit.filter(|unit| *unit != TextUnit::Line),
            ..self
        })
    }

    /// Returns the steps from the objects of a file to its records, if these are inside.
    pub(super) fn steps(&self) -> Option<Vec<Step>> {
        self.records.as_ref().and_then(|path| steps_of(path).ok())
    }

    /// Returns a format that people call `name`, with these options in words.
    pub(crate) fn described(&self, name: &str) -> String {
        let delimiter = self.delimiter.as_ref();
        let delimiter = delimiter.map(|text| format!(", delimiter {text:?}")).unwrap_or_default();
        let header = match (&self.columns, self.header) {
            (Some(_), Some(true)) => ", its header renamed",
            (Some(_), _) => ", no header",
            _ => "",
        };
        format!("{name}{delimiter}{header}")
    }

    /// Returns the fields that options name, as they are in the files, each with the option.
    pub(crate) fn named_fields(&self) -> BTreeSet<(&'static str, String)> {
        let renamed = self.rename.keys().map(|name| ("rename", name.clone()));
        let literals = self.literals.iter().flatten().map(|name| ("literals", name.clone()));
        renamed.chain(literals).collect()
    }

    /// Returns the names of the options that are given.
    fn given(&self) -> impl Iterator<Item = &'static str> {
        let options = [
            ("columns", self.columns.is_some()),
            ("header", self.header.is_some()),
            ("delimiter", self.delimiter.is_some()),
            ("unit", self.unit.is_some()),
            ("records", self.records.is_some()),
            ("labels", self.labels.is_some()),
            ("encoding", self.encoding.is_some()),
        ];
        options.into_iter().filter_map(|(name, is_given)| is_given.then_some(name))
    }

    /// Refuses an option that `format` does not have.
    fn refuse_unknown(&self, format: FormatName) -> Result<()> {
        let has = |format: &dyn Format, option: &'static str| match option {
            "encoding" => format.is_text(),
            option => format.options().contains(&option),
        };
        let Some(option) = self.given().find(|option| !has(format.get(), option)) else {
            return Ok(());
        };
        let having = FORMATS.iter().filter(|format| has(**format, option));
        let names: Vec<&str> = having.map(|format| format.name()).collect();
        let (last, others) = names.split_last().unwrap_or((&"no format", &[]));
        let others = others.join(", ") + if others.is_empty() { "" } else { " and " };
        Err(Error::config(format!("`{option}` is for {others}{last}; this source is {format}"))
            .remedy(format!(
                "remove `{option}`, or say format = \"{}\"",
                names.first().unwrap_or(last)
            )))
    }
}

/// Returns the format of a file by its suffix (that of the content of a compressed file), or else by
/// its content. Refuses a file that is not text.
pub(crate) fn guess(
    storage: &dyn Storage,
    path: &Path,
    options: &FormatOptions,
) -> Result<FormatName> {
    let head = Head::read(storage, path, options.encoding)?;
    let suffix = head.suffix();
    let (mut by_suffix, mut by_content) = (Vec::new(), Vec::new());
    for format in FORMATS.map(FormatName) {
        let likeness = format.get().sniff(head.text(), options);
        if format.get().suffixes().contains(&suffix.as_str()) {
            match likeness {
                Ok(likeness) => by_suffix.push((likeness, format)),
                // That the file is binary says more than that its delimiter is unclear.
                Err(error) => return head.refuse_binary().and(Err(error)),
            }
        } else if likeness.is_ok_and(|likeness| likeness == Likeness::Certain) {
            by_content.push((Likeness::Certain, format));
        }
    }
    // The suffix decides before the content. Between two formats that share it, the content does.
    by_suffix.retain(|(likeness, _)| *likeness > Likeness::None);
    by_suffix.sort_by_key(|(likeness, _)| std::cmp::Reverse(*likeness));
    let best = by_suffix.into_iter().chain(by_content).next();
    let Some((_, format)) = best else {
        head.refuse_binary()?;
        let names: Vec<String> =
            FormatName::all().iter().map(|name| format!("\"{name}\"")).collect();
        return Err(Error::config("its format cannot be guessed").remedy(format!(
            "say format = {} in its source, whichever it is",
            names.join(" or ")
        )));
    };
    format.get().refuse(&head).map(|()| format)
}

/// Refuses a file that cannot be of `format`.
pub(crate) fn refuse_other_content(
    storage: &dyn Storage,
    path: &Path,
    format: FormatName,
    options: &FormatOptions,
) -> Result<()> {
    format.get().refuse(&Head::read(storage, path, options.encoding)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guessed(name: &str, content: &[u8]) -> Option<&'static str> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        crate::storage::LOCAL.write_file(&path, content).unwrap();
        guess(crate::storage::LOCAL, &path, &FormatOptions::default())
            .ok()
            .map(|format| format.get().name())
    }

    #[test]
    fn a_suffix_decides_before_the_content_and_no_suffix_leaves_it_to_the_content() {
        for (name, content, format) in [
            ("a.jsonl", "x", Some("jsonl")),
            ("a.NDJSON", "", Some("jsonl")),
            ("a.json", "{}", Some("jsonl")),
            ("a.json", " [\n{", Some("json")),
            ("a.jsonl", "[1]", Some("json")),
            ("a.gz", "", None),
            ("a", "\u{feff}[ {", Some("json")),
            ("a.txt", "{\"a\": 1}", Some("text")),
            ("a.txt", "[{\"a\": 1}]", Some("text")),
            ("a.tsv", "{\"a\": 1}", Some("tsv")),
            ("a.tab", "\"a\"\t\"b\"", Some("tsv")),
            ("a", " {\"a\": 1}", Some("jsonl")),
            ("a.log", "\u{feff}{", Some("jsonl")),
            ("a", "text", None),
            ("a", "[1] a footnote", None),
            ("a", "", None),
        ] {
            assert_eq!(guessed(name, content.as_bytes()), format, "{name}: {content}");
        }
    }
}
