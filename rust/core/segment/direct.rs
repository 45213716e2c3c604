//! The direct path: renders a record without a tree of values in between.
//!
//! If all templates of a source only substitute fields, and the fields are text, their text is
//! borrowed from the record, one slot for each field. Every other record (another kind of value, a
//! missing field, a malformed record) is left to the fields path, by way of
//! [`Fields`](super::Fields), which names the fault; so the two differ in speed alone.

use std::borrow::Cow;
use std::sync::Arc;

use super::compiled::{Part, Template, in_record};
use super::{Editor, RECORD, Rendered, is_target_text};
use crate::read::{FieldTree, Record, Slots};
use crate::schema::Role;

/// The templates of a source with each field as a slot.
#[derive(Debug)]
pub(super) struct Direct {
    /// Whether each segment is a target, and its pieces.
    segments: Vec<(bool, Vec<Piece>)>,
    fields: Arc<FieldTree>,
}

/// A piece of a template.
#[derive(Debug)]
enum Piece {
    /// Text of the template.
    Literal(String),
    /// The slot of a field.
    Slot(usize),
}

impl Direct {
    /// Returns the direct path of `segments`; `None` if they show too many fields, or a field both
    /// as text and as an object.
    pub(super) fn new(segments: &[(bool, &Template)]) -> Option<Self> {
        let is_record =
            |part: &Part| matches!(part, Part::Field(path) if in_record(path).is_some());
        let names_record =
            segments.iter().any(|(_, template)| template.parts.iter().any(is_record));
        // `record` means all fields, unless a record has a field of this name: it is declined.
        let mut fields = FieldTree::new(names_record.then_some(RECORD));
        let mut compiled = Vec::new();
        for (is_target, template) in segments {
            let mut pieces = Vec::new();
            for part in &template.parts {
                pieces.push(match part {
                    Part::Literal(text) => Piece::Literal(text.clone()),
                    Part::Field(path) => {
                        Piece::Slot(fields.slot_of(in_record(path).unwrap_or(path))?)
                    }
                });
            }
            compiled.push((*is_target, pieces));
        }
        Some(Self { segments: compiled, fields: Arc::new(fields) })
    }

    /// Returns the fields that a reader is to fill slots with.
    pub(super) fn fields(&self) -> &Arc<FieldTree> {
        &self.fields
    }

    /// Renders a record into `out`, in place of the old content. Returns `false` if the record is
    /// left to the fields path.
    pub(super) fn render(&self, record: &Record<'_>, out: &mut Rendered) -> bool {
        let mut slots: Slots<'_> = Default::default();
        record.fill(&self.fields, &mut slots) && self.fill(&slots, out).is_some()
    }

    /// Renders a record as [`Self::render`] does, its texts changed by `editor` first.
    pub(super) fn render_edited(
        &self,
        record: &Record<'_>,
        editor: &mut Editor<'_>,
        out: &mut Rendered,
    ) -> bool {
        let mut slots: Slots<'_> = Default::default();
        if !record.fill(&self.fields, &mut slots) {
            return false;
        }
        for text in slots.iter_mut().flatten() {
            if let Some(new) = editor.edit(text) {
                *text = Cow::Owned(new);
            }
        }
        self.fill(&slots, out).is_some()
    }

    /// Renders the texts of a record; `None` if a field is missing or a target empty.
    fn fill(&self, slots: &Slots<'_>, out: &mut Rendered) -> Option<()> {
        out.clear();
        let mut any_target = false;
        for (is_target, pieces) in &self.segments {
            let (literal_role, data_role) = if *is_target {
                (Role::Target, Role::Target)
            } else {
                (Role::Template, Role::Data)
            };
            let start = out.text.len();
            let (mut has_data, mut blank) = (false, true);
            for piece in pieces {
                match piece {
                    Piece::Literal(text) => out.push(text, literal_role, true),
                    Piece::Slot(slot) => {
                        let text = slots[*slot].as_deref()?;
                        out.push(text, data_role, false);
                        has_data = true;
                        blank = blank && text.trim().is_empty();
                    }
                }
            }
            // The rules of `Segmenter::render`, which words the refusal.
            if *is_target {
                if has_data && blank {
                    return None;
                }
                any_target |= is_target_text(&out.text[start..]);
            }
        }
        any_target.then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Segmenter;
    use super::*;
    use crate::context::Context;
    use crate::monitor::Monitor;
    use crate::plan::SegmentSpec;
    use crate::read::{FormatName, FormatOptions, Only, Records, Request};
    use crate::segment::Controls;
    use proptest::prelude::*;

    fn segmenter() -> Segmenter {
        let prompt = |text: &str| SegmentSpec::Prompt(text.to_owned());
        let target = |text: &str| SegmentSpec::Target(text.to_owned());
        let segments = [
            prompt("<t> {{ a }}{{ b.c }}"),
            target(" {{ b.d }}"),
            prompt("{{ a }}?"),
            target("{{ text }} ."),
        ];
        Segmenter::of_segments(&segments, &Controls::new([]), &Vec::new()).unwrap()
    }

    /// Compares both paths on each record of a file. Returns whether all take the direct path.
    fn agree(
        format: &str,
        columns: Option<&[&str]>,
        content: &[u8],
    ) -> Result<bool, TestCaseError> {
        let columns = columns.map(|names| names.iter().map(|&name| name.to_owned()).collect());
        let header = columns.as_ref().map(|_| false);
        let options = FormatOptions { columns, header, ..FormatOptions::default() };
        // Renamed fields and a choice of records change what both paths see.
        let only = |missing: bool| {
            Some(Only { field: vec!["b".into(), "c".into()], values: vec!["a".into()], missing })
        };
        for (renames, only) in [
            (vec![("other", "a"), ("x", "text")], None),
            (vec![("a", "text"), ("text", "a")], only(true)),
            (vec![("text", "z"), ("b", "record"), ("x", "b")], only(false)),
        ] {
            let rename = renames.into_iter().map(|(old, new)| (old.into(), new.into())).collect();
            agree_with(format, &FormatOptions { rename, only, ..options.clone() }, content)?;
        }
        agree_with(format, &options, content)
    }

    /// Compares both paths for a source with these options.
    fn agree_with(
        format: &str,
        options: &FormatOptions,
        content: &[u8],
    ) -> Result<bool, TestCaseError> {
        let folder = tempfile::tempdir().unwrap();
        let path = &folder.path().join("a");
        crate::storage::LOCAL.write_file(path, content).unwrap();
        let context =
            &Context { threads: 1, monitor: &Monitor::default(), storage: crate::storage::LOCAL };
        let segmenter = segmenter();
        let direct = segmenter.direct.as_ref().unwrap();
        let wanted = Some(direct.fields());
        let request = Request { wanted, ..Request::all(path, options, context) };
        let mut records = Records::open(FormatName::find(format).unwrap(), &request, 0).unwrap();
        let (mut fast, mut slow) = (Rendered::default(), Rendered::default());
        let mut all_direct = true;
        while let Some(record) = records.advance().unwrap() {
            let rendered = direct.render(&record, &mut fast);
            let by_fields = record.fields().and_then(|fields| segmenter.render(&fields, &mut slow));
            if rendered {
                prop_assert!(by_fields.is_ok(), "{by_fields:?}");
                prop_assert_eq!(&fast, &slow);
            }
            all_direct &= rendered;
        }
        Ok(all_direct)
    }

    #[test]
    fn ordinary_lines_take_the_direct_path() {
        let json = concat!(
            r#"{"n": [1.5e3, null, {"x": "\u00e9"}], "a": "\u1ecd\ud83d\ude00", "#,
            r#""b": {"d": "e", "c": ""}, "text": "t"}"#
        );
        assert!(agree("jsonl", None, json.as_bytes()).unwrap());
        let other = |line: &str| agree("jsonl", None, line.as_bytes()).unwrap();
        for line in [
            r#"{"a": "x", "b": {"d": "e", "c": 1}, "text": "t"}"#,
            r#"{"a": "x", "b": {"d": "e", "c": "c"}, "text": "t", "a": "y"}"#,
            r#"{"a": "x", "b": {"c": "c"}, "text": "t", "b": {"d": "e"}}"#,
            r#"{"a": "x", "b": {"d": " ", "c": "c"}, "text": "t"}"#,
            r#"{"a": "x", "b": {"d": "e", "c": "c"}, "text": "t"} 1"#,
            r#"{"a": "x", "b": {"d": "e", "c": "c"}, "text": "t", "o": "\ud800"}"#,
            r#"{"a": "x", "b": {"d": "e", "c": "c"}, "text": "t", "o": 1e999}"#,
            r#"{"a": "x", "b": "b", "text": "t"}"#,
            r#"{"a": {}, "b": {"d": "e", "c": "c"}, "text": "t"}"#,
            "[]",
        ] {
            assert!(!other(line), "{line}");
        }
        assert!(!other(&format!(
            r#"{{"a": "x", "b": {{"d": "e", "c": "c"}}, "text": "t", "o": {}}}"#,
            "[".repeat(200) + &"]".repeat(200)
        )));
    }

    proptest! {
        #[test]
        fn json_lines_are_rendered_as_by_way_of_fields(
            values in prop::collection::vec(prop_oneof![
                "[a-zọ\u{301} \n\"\\\\]{0,5}".prop_map(serde_json::Value::from),
                any::<f64>().prop_map(serde_json::Value::from), Just(serde_json::Value::Null),
            ], 4),
            keys in prop::sample::subsequence(vec![0, 1, 2, 3], 2..=4),
            cut in prop::option::of(0usize..60),
            not_finite in prop::sample::select(vec!["null", "NaN", "-Infinity", "1e999"]),
        ) {
            let mut line = serde_json::Map::new();
            for key in keys {
                let (name, value) = match key {
                    0 => ("a", values[0].clone()),
                    1 => ("text", values[1].clone()),
                    2 => ("b", serde_json::json!({"c": values[2], "d": values[3]})),
                    _ => ("other", values[3].clone()),
                };
                line.insert(name.to_owned(), value);
            }
            let line = serde_json::to_string(&line).unwrap().replace("null", not_finite);

            let mut line = line.into_bytes();
            line.truncate(cut.unwrap_or(line.len()));
            agree("jsonl", None, &line)?;
            if cut.is_none() {
                agree("json", None, &[b"[", line.as_slice(), b" ,\n", &line, b"]"].concat())?;
            }
        }

        #[test]
        fn columns_are_rendered_as_by_way_of_fields(
            line in "[a-c\t ]{0,9}",
            bytes in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            for line in [line.as_bytes(), &bytes] {
                agree("tsv", Some(&["a", "x", "text"]), line)?;
                agree("text", None, line)?;
            }
        }

        #[test]
        fn quoted_columns_are_rendered_as_by_way_of_fields(
            text in "([a,\"\n]|ọ|,\"a\"\"\n\"){0,20}",
            bytes in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            for content in [text.as_bytes(), &bytes] {
                agree("csv", Some(&["a", "x", "text"]), content)?;
            }
        }
    }
}
