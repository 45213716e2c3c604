//! `Spans`: templates of which only some spans of the target's text are trained, as a field of the
//! record lists them.
//!
//! A span is `[start, end)` in characters (code points) of the text of the one field that the
//! target shows. What lies outside the spans is given: it has the roles of a prompt. So runs are cut
//! at the edges of spans, each is encoded by itself, and no token covers text on both sides.

use std::ops::Range;

use super::compiled::{Part, in_record, lookup};
use super::{
    Compiled, Controls, Each, Editor, Fields, Rendered, SegmentBuilder, Segmenter, Span, Step,
    TokenNames, is_target_text, value_at_mut, words,
};
use crate::error::{Error, Result};
use crate::plan::Source;
use crate::read::{Number, Value, field_path};
use crate::schema::{DropReason, Refusal, Role};

/// The templates of a source, and where a record has its spans.
#[derive(Debug)]
pub(super) struct Spans {
    segmenter: Segmenter,
    /// The path of the field with the spans.
    field: Vec<String>,
    /// The path of the field whose text they are of.
    text: Vec<String>,
}

/// Returns the path of the field that a key names; any name counts as it is written.
pub(super) fn path_of(key: &str, field: &str) -> Result<Vec<String>> {
    if field.trim().is_empty() {
        return Err(Error::config(format!("{key} names no field"))
            .remedy(format!("name the field of your records: {key} = \"{key}\"")));
    }
    Ok(field_path(field).unwrap_or_else(|| vec![field.to_owned()]))
}

impl Spans {
    /// Compiles the templates of a source whose spans are in `field`. Refuses a target that shows
    /// other than the text of one field.
    pub(super) fn compile(
        source: &Source,
        field: &str,
        controls: &Controls,
        tokens: &TokenNames,
    ) -> Result<Self> {
        let segmenter = Segmenter::compile(source, controls, tokens)?;
        let paths = path_of("spans", field).and_then(|field| Ok((field, text_of(&segmenter)?)));
        let (field, text) = paths.map_err(|error| error.source(source.name.clone()))?;
        Ok(Self { segmenter, field, text })
    }

    /// Returns the text that the spans are of.
    fn text<'a>(&self, fields: &'a Fields) -> std::result::Result<&'a str, Refusal> {
        lookup(fields, &self.text).and_then(Value::as_str).ok_or_else(|| {
            let name = self.text.join(".");
            malformed(format!("field '{name}' is no text, so spans have no place in it"))
        })
    }

    /// Returns the spans of a record as bytes of `text`, in order and not empty.
    fn spans(
        &self,
        fields: &Fields,
        text: &str,
    ) -> std::result::Result<Vec<Range<usize>>, Refusal> {
        let name = self.field.join(".");
        let value = lookup(fields, &self.field).ok_or_else(|| {
            Refusal::new(DropReason::MissingField, words::missing_field(fields, &self.field))
        })?;
        let Value::Array(listed) = value else {
            let hint = if value.as_str().is_some() {
                format!("; if its text is a list, say literals = [\"{name}\"]")
            } else {
                String::new()
            };
            return Err(malformed(format!("field '{name}' is no list of spans{hint}")));
        };
        let spans = listed.iter().enumerate().map(|(nth, span)| {
            pair_of(span).ok_or_else(|| {
                malformed(format!(
                    "field '{name}': span {} is no pair of whole numbers [start, end), 0 or above",
                    nth + 1
                ))
            })
        });
        bytes_of(spans.collect::<std::result::Result<_, _>>()?, text)
            .map_err(|what| malformed(format!("field '{name}': {what}")))
    }
}

/// Returns the refusal of a record whose spans are not what the source says.
fn malformed(why: String) -> Refusal {
    Refusal::new(DropReason::Malformed, why)
}

/// Returns the path of the one field that the targets show.
fn text_of(segmenter: &Segmenter) -> Result<Vec<String>> {
    let refuse = |what: &str| {
        Err(Error::config(format!("has `spans`, and {what}")).remedy(
            "spans are positions in the text of one field: write { target = \"{{ text }}\" }",
        ))
    };
    let mut shown = Vec::new();
    for (_, template) in segmenter.segments.iter().filter(|(is_target, _)| *is_target) {
        let Compiled::Plain(template) = template else {
            return refuse("a target that does more than show a field");
        };
        let paths = template.parts.iter().filter_map(|part| match part {
            Part::Field(path) => Some(in_record(path).unwrap_or(path).to_vec()),
            Part::Literal(_) => None,
        });
        shown.extend(paths);
    }
    match shown.as_slice() {
        [text] => Ok(text.clone()),
        [] => refuse("its target shows no field"),
        _ => refuse("its targets show several fields"),
    }
}

/// Returns the start and end of a span: of a list, whose third value may be a label, or an object.
fn pair_of(span: &Value) -> Option<(u64, u64)> {
    let (start, end) = match span {
        Value::Array(pair) => match pair.as_slice() {
            [start, end] | [start, end, Value::String(_) | Value::Null] => (start, end),
            _ => return None,
        },
        Value::Object(span) => (span.get("start")?, span.get("end")?),
        _ => return None,
    };
    Some((position(start)?, position(end)?))
}

/// Returns a whole number, 0 or above. Tables of numbers may hold it as a float.
fn position(value: &Value) -> Option<u64> {
    match value {
        Value::Number(Number::Int(number)) => u64::try_from(*number).ok(),
        Value::Number(Number::Float(number))
            if number.fract() == 0.0 && (0.0..9e15).contains(number) =>
        {
            Some(*number as u64)
        }
        _ => None,
    }
}

/// Returns spans in characters as bytes of `text`, in order; empty ones are left out. Refuses, in
/// words, spans that are reversed, overlap or lie beyond the text.
fn bytes_of(
    mut spans: Vec<(u64, u64)>,
    text: &str,
) -> std::result::Result<Vec<Range<usize>>, String> {
    spans.sort_unstable();
    let mut places = text.char_indices().map(|(byte, _)| byte).chain([text.len()]);
    // The character that `byte` begins.
    let (mut byte, mut character) = (places.next().unwrap_or(0), 0);
    let mut out: Vec<Range<usize>> = Vec::new();
    let mut before = (0, 0);
    for (start, end) in spans {
        if end < start {
            return Err(format!("span [{start}, {end}) ends before it begins"));
        }
        if start < before.1 && start < end {
            let (from, to) = before;
            return Err(format!("spans [{from}, {to}) and [{start}, {end}) overlap"));
        }
        let mut walk_to = |place: u64| {
            while character < place {
                byte = places.next()?;
                character += 1;
            }
            Some(byte)
        };
        let (Some(from), Some(to)) = (walk_to(start), walk_to(end)) else {
            let count = text.chars().count();
            return Err(format!(
                "span [{start}, {end}) ends beyond the {count} characters (code points) of the text"
            ));
        };
        if from < to {
            before = (start, end);
            out.push(from..to);
        }
    }
    Ok(out)
}

impl Rendered {
    /// Gives the text of targets the roles of a prompt, but for `spans` of its data, in bytes of
    /// that data.
    fn train_only(&mut self, spans: &[Range<usize>]) {
        let mut start = 0;
        for span in std::mem::take(&mut self.spans) {
            let (role, literal, begin) = (span.role, span.literal, start);
            start = span.end;
            if role != Role::Target || literal {
                let role = if role == Role::Target { Role::Template } else { role };
                self.spans.push(Span { role, ..span });
                continue;
            }
            let mut put = |end: usize, role: Role| {
                let before = self.spans.last().map_or(0, |last: &Span| last.end);
                match self.spans.last_mut() {
                    // Spans that touch are one run.
                    Some(last) if last.role == role && before > begin => last.end = end,
                    _ if end > before => self.spans.push(Span { end, role, literal }),
                    _ => {}
                }
            };
            for Range { start, end } in spans {
                put(begin + start, Role::Data);
                put(begin + end, Role::Target);
            }
            put(span.end, Role::Data);
        }
    }
}

impl SegmentBuilder for Spans {
    fn build(
        &self,
        fields: &Fields,
        rendered: &mut Rendered,
        each: &mut Each<'_>,
    ) -> std::result::Result<(), Refusal> {
        self.segmenter.render(fields, rendered)?;
        let text = self.text(fields)?;
        let spans = self.spans(fields, text)?;
        if !spans.iter().any(|span| is_target_text(&text[span.clone()])) {
            let why = format!("field '{}' names no text to train", self.field.join("."));
            return Err(Refusal::new(DropReason::EmptyTarget, why));
        }
        rendered.train_only(&spans);
        each(rendered)
    }

    /// Changes the text piece by piece, so that its spans stay where they were, and then the other
    /// fields.
    fn edit_fields(&self, fields: &mut Fields, editor: &mut Editor<'_>) {
        let mut shown = self.shown_fields(fields);
        if let Ok((text, spans)) = self.text(fields).and_then(|text| {
            let spans = self.spans(fields, text)?;
            Ok((text.to_owned(), spans))
        }) {
            let text_path = steps(&self.text);
            shown.retain(|path| *path != text_path);
            let (text, spans) = edited(&text, &spans, editor);
            put(fields, &text_path, Value::String(text));
            put(fields, &steps(&self.field), Value::Array(spans));
        }
        editor.edit_fields(fields, &shown);
    }

    fn shown_fields(&self, fields: &Fields) -> Vec<Vec<Step>> {
        self.segmenter.shown_fields(fields)
    }

    fn shortenable_fields(&self, fields: &Fields) -> Vec<Vec<Step>> {
        self.segmenter.shortenable_fields(fields)
    }

    fn named_fields(&self) -> Vec<Vec<Step>> {
        let mut paths = self.segmenter.named_fields();
        paths.push(steps(&self.field));
        paths
    }

    fn unmarked(&self) -> u64 {
        self.segmenter.unmarked()
    }
}

/// Returns the steps of a path, inside the record if it begins with the record.
fn steps(path: &[String]) -> Vec<Step> {
    in_record(path).unwrap_or(path).iter().cloned().map(Step::Key).collect()
}

/// Replaces the value at a path.
fn put(fields: &mut Fields, path: &[Step], value: Value) {
    if let Some(place) = value_at_mut(fields, path) {
        *place = value;
    }
}

/// Returns a text whose stretches in and between `spans` were edited one by one, and the spans in
/// characters of the new text.
fn edited(text: &str, spans: &[Range<usize>], editor: &mut Editor<'_>) -> (String, Vec<Value>) {
    let (mut out, mut moved, mut from) = (String::new(), Vec::new(), 0);
    let mut characters = 0;
    let mut push = |stretch: &str| {
        let new = editor.edit(stretch);
        let new = new.as_deref().unwrap_or(stretch);
        out.push_str(new);
        characters += new.chars().count();
        characters
    };
    for span in spans {
        let start = push(&text[from..span.start]);
        let end = push(&text[span.clone()]);
        let place = |at: usize| Value::Number(Number::Int(at as i128));
        moved.push(Value::Array(vec![place(start), place(end)]));
        from = span.end;
    }
    push(&text[from..]);
    (out, moved)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::SegmentSpec;
    use crate::read::parse_json;
    use proptest::prelude::*;

    fn spans(segments: &[SegmentSpec]) -> Result<Spans> {
        let segmenter = Segmenter::of_segments(segments, &Controls::new([]), &Vec::new()).unwrap();
        let text = text_of(&segmenter)?;
        Ok(Spans { segmenter, field: vec!["s".to_owned()], text })
    }

    fn target(text: &str) -> SegmentSpec {
        SegmentSpec::Target(text.to_owned())
    }

    /// Returns the text of a record by role: `[` and `]` around what is trained.
    fn shown(record: &str) -> std::result::Result<String, Refusal> {
        let segments = [SegmentSpec::Prompt("<t>".to_owned()), target("({{ text }})")];
        let mut out = String::new();
        let fields = parse_json(record.as_bytes()).unwrap();
        spans(&segments).unwrap().build(&fields, &mut Rendered::default(), &mut |rendered| {
            for run in rendered.runs() {
                let [open, close] = if run.is_target() { ["[", "]"] } else { ["", ""] };
                out.extend([open, run.text, close]);
            }
            Ok(())
        })?;
        Ok(out)
    }

    #[test]
    fn the_text_in_spans_is_trained_and_nothing_else() {
        for (record, expected) in [
            (r#"{"text": "abcdef", "s": [[1, 3]]}"#, "<t>(a[bc]def)"),
            (r#"{"text": "abcdef", "s": [[4, 6], [0, 1]]}"#, "<t>([a]bcd[ef])"),
            (r#"{"text": "abcdef", "s": [[0, 2], [2, 4], [5, 5]]}"#, "<t>([abcd]ef)"),
            (r#"{"text": "ẹ́🌍b", "s": [{"start": 2, "end": 3, "label": 1}]}"#, "<t>(ẹ́[🌍]b)"),
            (r#"{"text": "abc", "s": [[0.0, 3.0, "LOC"]]}"#, "<t>([abc])"),
        ] {
            assert_eq!(shown(record).unwrap(), expected, "{record}");
        }
    }

    #[test]
    fn spans_that_cannot_be_right_are_refused_by_what_is_wrong() {
        for (spans, reason, why) in [
            ("[[0, 9]]", DropReason::Malformed, "beyond the 6 characters"),
            ("[[3, 1]]", DropReason::Malformed, "[3, 1) ends before it begins"),
            ("[[0, 3], [2, 4]]", DropReason::Malformed, "[0, 3) and [2, 4) overlap"),
            ("[[0, 1], [\"a\", 4]]", DropReason::Malformed, "span 2 is no pair"),
            ("[[-1, 4]]", DropReason::Malformed, "span 1 is no pair"),
            ("[[0, 1.5]]", DropReason::Malformed, "span 1 is no pair"),
            ("[[0]]", DropReason::Malformed, "span 1 is no pair"),
            ("[1, 2]", DropReason::Malformed, "span 1 is no pair"),
            ("[{\"start\": 1}]", DropReason::Malformed, "span 1 is no pair"),
            ("[[0, 9999999999]]", DropReason::Malformed, "beyond the 6 characters"),
            ("\"[[0, 1]]\"", DropReason::Malformed, "literals = [\"s\"]"),
            ("3", DropReason::Malformed, "no list of spans"),
            ("null", DropReason::MissingField, "field 's' is null"),
            ("[]", DropReason::EmptyTarget, "names no text to train"),
            ("[[2, 2]]", DropReason::EmptyTarget, "names no text to train"),
            ("[[2, 3]]", DropReason::EmptyTarget, "names no text to train"),
        ] {
            let refusal = shown(&format!(r#"{{"text": "ab cde", "s": {spans}}}"#)).unwrap_err();
            assert_eq!(refusal.reason, reason, "{spans}: {}", refusal.why);
            assert!(refusal.why.contains(why), "{spans}: {}", refusal.why);
        }
        let refusal = shown(r#"{"text": 5, "s": [[0, 1]]}"#).unwrap_err();
        assert!(refusal.why.contains("field 'text' is no text"), "{}", refusal.why);
    }

    #[test]
    fn a_target_of_other_than_one_field_is_refused() {
        for segments in [
            vec![target("{{ a }}{{ b }}")],
            vec![target("{{ a }}"), target("{{ a }}")],
            vec![target("{{ a | upper }}")],
            vec![target("x")],
        ] {
            let error = spans(&segments).unwrap_err();
            assert!(error.remedy.unwrap().contains("one field"), "{}", error.message);
        }
    }

    proptest! {
        #[test]
        fn bytes_are_those_of_the_characters(
            text in "[aẹ́🌍 ]{0,12}",
            cuts in prop::collection::btree_set(0usize..14, 0..6),
        ) {
            let cuts: Vec<u64> = cuts.into_iter().map(|cut| cut as u64).collect();
            let pairs: Vec<(u64, u64)> = cuts.chunks_exact(2).map(|p| (p[0], p[1])).collect();
            let characters: Vec<char> = text.chars().collect();
            let found = bytes_of(pairs.clone(), &text);
            let fits = pairs.iter().all(|(_, end)| *end <= characters.len() as u64);
            prop_assert_eq!(found.is_ok(), fits);
            for (range, (start, end)) in found.unwrap_or_default().into_iter().zip(pairs) {
                let slow: String = characters[start as usize..end as usize].iter().collect();
                prop_assert_eq!(&text[range], slow);
            }
        }
    }
}
