//! `View`: the records of a file as their source sees them: fields renamed, and only the records of
//! its language.
//!
//! The one place that renames and chooses, whichever way a record is read afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::format::FormatOptions;
use super::json::{Fields, Value};
use super::record::{Reader, malformed};
use super::slots::{FieldTree, Slots};
use crate::error::{Error, Result};
use crate::schema::Refusal;

/// New names of fields by their old ones.
pub(crate) type Renames = BTreeMap<String, String>;

/// The records that a source reads of its files: those with one of these texts in a field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Only {
    /// The path of the field.
    pub field: Vec<String>,
    /// The texts, without the white space around them.
    pub values: Vec<String>,
    /// Whether records without a text there are read too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub missing: bool,
}

/// The records of a file as their source sees them.
pub(super) struct View {
    renames: Renames,
    only: Option<(Only, Field)>,
}

/// A field that is looked at in every record.
pub(super) struct Field {
    path: Vec<String>,
    /// Its slot, if the reader fills slots.
    slot: Option<usize>,
}

impl View {
    /// Returns the view of a source, and the fields whose slots its reader is to fill: the `wanted`
    /// ones by their old names, and that which chooses records.
    pub(super) fn new(
        options: &FormatOptions,
        wanted: Option<&Arc<FieldTree>>,
    ) -> (Self, Option<Arc<FieldTree>>) {
        let FormatOptions { rename, only, .. } = options;
        let (tree, field) = match only {
            None => (wanted.cloned(), None),
            Some(only) => {
                let (tree, field) = Field::within(&only.field, wanted);
                (tree, Some((only.clone(), field)))
            }
        };
        let tree = match tree {
            Some(tree) if !rename.is_empty() => tree.renamed(rename).map(Arc::new),
            tree => tree,
        };
        (Self { renames: rename.clone(), only: field }, tree)
    }

    /// Returns whether the source reads the record at hand.
    pub(super) fn takes(&self, reader: &dyn Reader) -> bool {
        let Some((only, field)) = &self.only else { return true };
        field.text(reader, self, |text| match text {
            Some(text) => only.values.iter().any(|value| value == text),
            None => only.missing,
        })
    }

    /// Returns the fields of a record by their new names.
    pub(super) fn fields(
        &self,
        fields: std::result::Result<Fields, Refusal>,
    ) -> std::result::Result<Fields, Refusal> {
        renamed(fields?, &self.renames)
    }
}

impl Field {
    /// Returns the field at `path`, and the `wanted` fields with it. Without it, if it cannot be
    /// among them: then records are read by way of all their fields.
    pub(super) fn within(
        path: &[String],
        wanted: Option<&Arc<FieldTree>>,
    ) -> (Option<Arc<FieldTree>>, Self) {
        let mut tree = wanted.map_or_else(|| FieldTree::new(None), |wanted| (**wanted).clone());
        let slot = tree.slot_of(path);
        (slot.map(|_| Arc::new(tree)), Self { path: path.to_owned(), slot })
    }

    /// Calls `then` with the text of the field in the record at hand, without the white space around
    /// it; with `None` if there is none.
    pub(super) fn text<R>(
        &self,
        reader: &dyn Reader,
        view: &View,
        then: impl FnOnce(Option<&str>) -> R,
    ) -> R {
        let is_text = |text: &str| !text.trim().is_empty();
        if let Some(slot) = self.slot {
            let mut slots = Slots::default();
            if reader.fill(&mut slots) {
                return then(slots[slot].as_deref().filter(|text| is_text(text)).map(str::trim));
            }
        }
        let fields = view.fields(reader.fields()).ok();
        let text = fields.as_ref().and_then(|fields| text_at(fields, &self.path));
        then(text.filter(|text| is_text(text)).map(str::trim))
    }
}

/// Returns the text at a path.
fn text_at<'a>(fields: &'a Fields, path: &[String]) -> Option<&'a str> {
    let (last, above) = path.split_last()?;
    let mut fields = fields;
    for name in above {
        let Value::Object(inner) = fields.get(name)? else { return None };
        fields = inner;
    }
    fields.get(last)?.as_str()
}

/// Returns fields by their new names. Refuses a record that has a new name already.
pub(crate) fn renamed(fields: Fields, renames: &Renames) -> std::result::Result<Fields, Refusal> {
    if renames.is_empty() {
        return Ok(fields);
    }
    let mut out = Fields::with_capacity(fields.len());
    for (old, value) in fields {
        let name = renames.get(&old).cloned().unwrap_or(old);
        if out.insert(name.clone(), value).is_some() {
            let old = renames.iter().find(|(_, new)| **new == name).map_or("", |(old, _)| old);
            return Err(malformed(format!(
                "has a field '{name}' beside '{old}', which `rename` gives this name"
            )));
        }
    }
    Ok(out)
}

/// Refuses renames that leave a field without a name, or two fields with one.
pub(super) fn refuse_renames(renames: &Renames) -> Result<()> {
    for (nth, (old, new)) in renames.iter().enumerate() {
        let what = if new.is_empty() || old.is_empty() {
            "a field with no name".to_owned()
        } else if old == new {
            format!("'{old}' the name that it has")
        } else if let Some((other, _)) = renames.iter().take(nth).find(|(_, other)| *other == new) {
            format!("'{other}' and '{old}' one name, '{new}'")
        } else {
            continue;
        };
        return Err(Error::config(format!("`rename` gives {what}"))
            .remedy("write the old name first: rename = { \"Tweet text\" = \"tweet\" }"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{FormatName, Records, Request, for_each_text, parse_json};
    use super::*;
    use crate::context::Context;
    use crate::monitor::Monitor;
    use crate::storage::LOCAL;

    const LINES: &[&str] = &[
        r#"{"m": {"l": "yor"}, "t": "1"}"#,
        r#"{"m": {"l": " yor "}, "t": "2"}"#,
        r#"{"m": {"l": "hau"}, "t": "3"}"#,
        r#"{"m": {"l": ""}, "t": "4"}"#,
        r#"{"m": {"l": 5}, "t": "5"}"#,
        r#"{"m": "yor", "t": "6"}"#,
        r#"{"t": "7"}"#,
        r#"{"n": {"l": "yor"}, "t": "8"}"#,
        r#"{"n": {"l": "hau"}, "m": {"l": "ibo"}, "t": "9"}"#,
        r#"{"m": {"l": "ibo"}, "t": "a", "t": "b"}"#,
        "no JSON",
        "[]",
    ];

    /// The text of the language of a line, by way of all its fields; `None` without one.
    fn lang_of(line: &str, renames: &Renames) -> Option<String> {
        let mut fields = parse_json(line.as_bytes()).ok()?;
        if !renames.is_empty() {
            let new = fields.contains_key("m");
            if let Some(value) = fields.shift_remove("n") {
                if new {
                    return None;
                }
                fields.insert("m".to_owned(), value);
            }
        }
        let Value::Object(inner) = fields.get("m")? else { return None };
        let text = inner.get("l")?.as_str()?.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    proptest! {
        #[test]
        fn every_record_belongs_to_one_language(
            lines in prop::collection::vec(prop::sample::select(LINES), 0..30),
            does_rename: bool,
            wants: bool,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = &folder.path().join("a");
            LOCAL.write_file(path, lines.join("\n").as_bytes()).unwrap();
            let renames: Renames =
                does_rename.then(|| ("n".to_owned(), "m".to_owned())).into_iter().collect();
            let context = &Context { threads: 1, monitor: &Monitor::default(), storage: LOCAL };
            let field = vec!["m".to_owned(), "l".to_owned()];
            let format = FormatName::find("jsonl").unwrap();
            let base = FormatOptions { rename: renames.clone(), ..FormatOptions::default() };
            let mut found = Vec::new();
            let request = Request::all(path, &base, context);
            for_each_text(format, &request, &field, |text| {
                found.push(text.map(str::to_owned));
                Ok(())
            })
            .unwrap();
            let expected: Vec<Option<String>> =
                lines.iter().map(|line| lang_of(line, &renames)).collect();
            prop_assert_eq!(&found, &expected);
            let mut tree = FieldTree::new(None);
            tree.slot_of(&["t".to_owned()]);
            let tree = Arc::new(tree);
            let offsets: Vec<u64> = lines
                .iter()
                .scan(0, |at, line| {
                    *at += line.len() as u64 + 1;
                    Some(*at - line.len() as u64 - 1)
                })
                .collect();
            for lang in [Some("yor"), Some("hau"), Some("ibo"), None] {
                let values = lang.iter().map(|&lang| lang.to_owned()).collect();
                let only = Only { field: field.clone(), values, missing: lang.is_none() };
                let options = &FormatOptions { only: Some(only), ..base.clone() };
                let wanted = wants.then_some(&tree);
                let request = Request { wanted, ..Request::all(path, options, context) };
                let mut records = Records::open(format, &request, 0).unwrap();
                let mut read = Vec::new();
                while let Some(record) = records.advance().unwrap() {
                    read.push(record.offset);
                }
                let of_lang = offsets.iter().zip(&expected);
                let own: Vec<u64> = of_lang
                    .filter(|(_, expected)| expected.as_deref() == lang)
                    .map(|(offset, _)| *offset)
                    .collect();
                prop_assert_eq!(read, own);
            }
        }
    }
}
