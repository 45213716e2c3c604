//! `Family`: the files of one folder that make one source, or one for each of their shapes.

use std::collections::HashMap;

use super::folder::{Folder, Found, NO_RECORD};
use super::look::{Looked, look_at};
use super::names::{Named, NamedSplit};
use super::shape::{Shape, shapes_of};
use crate::error::Error;
use crate::read::{ClassLabels, Encoding, Fields, FormatName, TextUnit, Value, names_shown};
use crate::storage::Storage;

/// Files of one folder with names that differ only by a split or a shard, or that are a document
/// each.
pub(super) struct Family {
    pub(super) named: Named,
    /// The format; `None` if the files cannot be read.
    pub(super) format: Option<FormatName>,
    /// The encoding, if it is not UTF-8.
    pub(super) encoding: Option<Encoding>,
    /// The part of a text file that is a record, if it is not a line.
    pub(super) unit: Option<TextUnit>,
    pub(super) found: Result<Vec<Shape>, Open>,
    pub(super) train: Vec<String>,
    pub(super) validation: Vec<String>,
    pub(super) test: Vec<String>,
}

/// Why the fields of a file are not recognised.
#[derive(Debug, Clone, Default)]
pub(super) struct Open {
    pub(super) fields: Vec<String>,
    pub(super) why: String,
    pub(super) error: Option<Box<Error>>,
    pub(super) format: Option<&'static str>,
    /// The fields of class labels.
    pub(super) labels: Vec<String>,
}

/// A file as it is looked at.
struct LookedAt {
    format: Option<FormatName>,
    encoding: Option<Encoding>,
    found: Result<Vec<Shape>, Open>,
}

/// Groups files into families: of one folder, with one format and the same shapes. Passes over
/// files without records.
///
/// Files that differ by a language alone stay apart here.
pub(super) fn families(
    files: Vec<Found>,
    folder: &mut Folder,
    storage: &dyn Storage,
) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    let mut index_of: HashMap<String, usize> = HashMap::new();
    for file in files {
        let Some(LookedAt { format, encoding, found }) = looked_at(&file, storage) else {
            folder.pass_over(NO_RECORD, file.name);
            continue;
        };
        let is_document = file.is_document && format.is_some();
        let named = if is_document { Named::of_folder(&file.stem) } else { Named::of(&file.stem) };
        let key = match format {
            Some(format) => {
                let (family, alike) = (named.family(), key_of(&found));
                format!("{family}|{is_document}|{format}|{encoding:?}|{alike}")
            }
            None => file.name.clone(),
        };
        let split = named.split;
        let index = *index_of.entry(key).or_insert(families.len());
        if index == families.len() {
            let (train, validation, test) = (Vec::new(), Vec::new(), Vec::new());
            let (unit, found) = (is_document.then_some(TextUnit::File), found.clone());
            families.push(Family { named, format, encoding, unit, found, train, validation, test });
        }
        let family = &mut families[index];
        // One file may lack a field in some records that others have in all: the templates that
        // allow for that are the longer ones.
        if let (Ok(known), Ok(new)) = (&mut family.found, found)
            && length(&new) > length(known)
        {
            *known = new;
        }
        family.files_of(split).push(file.name);
    }
    families
}

impl Family {
    /// Returns the files of a split.
    fn files_of(&mut self, split: NamedSplit) -> &mut Vec<String> {
        match split {
            NamedSplit::Train => &mut self.train,
            NamedSplit::Validation => &mut self.validation,
            NamedSplit::Test => &mut self.test,
        }
    }
}

/// Returns a text that is equal for files that were recognised alike.
fn key_of(found: &Result<Vec<Shape>, Open>) -> String {
    match found {
        Ok(shapes) => {
            let key = |shape: &Shape| format!("{}{:?}", shape.understood, shape.labels);
            shapes.iter().map(key).collect::<Vec<_>>().join("|")
        }
        Err(open) => format!("{:?}|{}", open.fields, open.why),
    }
}

/// Looks at a file; returns `None` if it has no record.
fn looked_at(file: &Found, storage: &dyn Storage) -> Option<LookedAt> {
    Some(match look_at(file, storage) {
        Ok(looked) => {
            let looked = looked?;
            let (format, encoding) = (Some(looked.format), looked.options.encoding);
            LookedAt { format, encoding, found: recognise(&looked) }
        }
        Err(error) => {
            let error = Some(Box::new(error.file(file.name.clone())));
            let open = Open { why: "it cannot be read".to_owned(), error, ..Open::default() };
            LookedAt { format: None, encoding: None, found: Err(open) }
        }
    })
}

/// Returns the length of the templates of some shapes.
fn length(shapes: &[Shape]) -> usize {
    let segments = shapes.iter().flat_map(|shape| &shape.segments);
    segments.map(|segment| segment.template().len()).sum()
}

/// Returns the shapes of records. Tokens with tags are none: what they are to become is open.
fn recognise(looked: &Looked) -> Result<Vec<Shape>, Open> {
    let Looked { format, records, options, .. } = looked;
    let format = format.get().name();
    let has_tags = records.iter().any(|fields| fields.contains_key("tokens"));
    if format == "text" && are_tagged(records) {
        let fields = ["tokens", "tags", "text", "entities"].map(str::to_owned).to_vec();
        let why = "its lines are tokens with tags, as in CoNLL".to_owned();
        return Err(Open { fields, why, format: Some("conll"), ..Open::default() });
    }
    let none = ClassLabels::new();
    let labels = options.labels.as_ref().unwrap_or(&none);
    let shapes = if format == "conll" && has_tags {
        Err("its tokens have tags: say how they are written".to_owned())
    } else {
        shapes_of(records, labels)
    };
    shapes.map_err(|why| {
        let mut fields: Vec<String> = Vec::new();
        for name in records.iter().flat_map(Fields::keys) {
            let name = match labels.get(name) {
                Some(names) => format!("{name} ({})", names_shown(names)),
                None => name.clone(),
            };
            if !fields.contains(&name) {
                fields.push(name);
            }
        }
        Open { fields, why, labels: labels.keys().cloned().collect(), ..Open::default() }
    })
}

/// Returns whether lines of text are those of `CoNLL`: a token and its columns, the last a tag.
fn are_tagged(records: &[Fields]) -> bool {
    let is_tag = |word: &str| {
        let (kind, label) = word.split_once('-').unwrap_or((word, ""));
        word == "O" || matches!(kind, "B" | "I" | "E" | "S" | "L" | "U") && !label.is_empty()
    };
    let is_tagged = |fields: &&Fields| {
        let text = fields.get("text").and_then(Value::as_str).unwrap_or_default();
        let words: Vec<&str> = text.split_whitespace().collect();
        words.len() > 1 && words.last().is_some_and(|word| is_tag(word))
    };
    // Lines of another form, such as `-DOCSTART-`, are few.
    records.iter().filter(is_tagged).count() * 10 > records.len() * 9
}
