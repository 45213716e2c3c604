//! Shapes: what the fields of the first records say about prompt and target.

mod conversations;
mod labelled;
mod language;
mod question;
mod seen;
mod translation;

use conversations::conversations;
use labelled::labelled;
use language::lang_field;
use question::question;
use seen::{Seen, when_given};
use translation::translation;
pub(super) use translation::{direction, expression};

use crate::plan::SegmentSpec;
use crate::read::{ClassLabels, Fields, names_shown};

/// What one source makes of the records of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shape {
    /// What was recognised, in words.
    pub(super) understood: String,
    /// Ends the name of the source, if a file makes several.
    pub(super) suffix: String,
    /// The task, unless the path names one.
    pub(super) task: &'static str,
    /// The language, if the fields say it.
    pub(super) lang: Option<String>,
    /// The field that holds the language of each record, unless the path names one.
    pub(super) lang_field: Option<&'static str>,
    /// The class labels that the templates show, or that name the language.
    pub(super) labels: ClassLabels,
    /// The templates.
    pub(super) segments: Vec<SegmentSpec>,
    /// The fields of conversations, in place of templates.
    pub(super) chat: Option<Chat>,
}

/// The fields of conversations.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chat {
    /// The field with the messages.
    pub(super) messages: &'static str,
    /// Whether the field `tools` has the tools.
    pub(super) tools: bool,
}

/// Pairs of a prompt and the fields that may be its target, in order of preference.
const PAIRS: &[(&str, &[&str])] = &[
    ("prompt", &["completion", "response", "target", "answer", "output"]),
    ("inputs", &["targets"]),
    ("source", &["target"]),
];

/// Returns the shapes of records, one for each source that a file makes, or an explanation why none
/// was recognised. The fields of `labels` hold names.
pub(super) fn shapes_of(records: &[Fields], labels: &ClassLabels) -> Result<Vec<Shape>, String> {
    let seen = Seen(records);
    let mut shapes = recognised(&seen)?;
    let lang_field = lang_field(&seen);
    for shape in &mut shapes {
        shape.lang_field = lang_field.filter(|_| shape.lang.is_none());
        let shows = |field: &String| {
            let name = field.split('.').next().unwrap_or_default();
            shape.lang_field == Some(name) || shape.segments.iter().any(|it| shows(it, name))
        };
        shape.labels = labels.clone();
        shape.labels.retain(|field, _| shows(field));
        for (field, names) in &shape.labels {
            shape.understood.extend([" (`", field, "`: ", &names_shown(names), ")"]);
        }
    }
    Ok(shapes)
}

/// Returns the shapes of records by their fields.
fn recognised(seen: &Seen<'_>) -> Result<Vec<Shape>, String> {
    for name in ["messages", "conversations"] {
        if seen.has(name) {
            return conversations(seen, name).map(|shape| vec![shape]);
        }
    }
    if seen.has("translation") {
        return translation(seen);
    }
    if let Some(shape) = instruction(seen).or_else(|| pair(seen)).or_else(|| question(seen)) {
        return Ok(vec![shape]);
    }
    let open = || Err(String::new());
    labelled(seen).or_else(|| plain(seen).map(Ok)).unwrap_or_else(open).map(|shape| vec![shape])
}

/// Returns whether a template shows the field `name`.
fn shows(segment: &SegmentSpec, name: &str) -> bool {
    let shown = format!("{{{{ {name}");
    let goes_on = |c: char| c == '_' || c.is_alphanumeric();
    segment.template().split(&shown).skip(1).any(|rest| !rest.starts_with(goes_on))
}

impl Shape {
    /// Returns the shape of one source for each file.
    fn new(understood: String, task: &'static str, segments: Vec<SegmentSpec>) -> Self {
        Self {
            understood,
            suffix: String::new(),
            task,
            lang: None,
            lang_field: None,
            labels: ClassLabels::new(),
            segments,
            chat: None,
        }
    }
}

/// Returns the segments of one prompt and one target.
fn segments(prompt: String, target: String) -> Vec<SegmentSpec> {
    vec![SegmentSpec::Prompt(prompt), SegmentSpec::Target(target)]
}

/// Returns the shape of instructions with an output, and an input where there is one.
fn instruction(seen: &Seen<'_>) -> Option<Shape> {
    if !(seen.is_text("instruction") && seen.is_text("output")) {
        return None;
    }
    // Later records may have one, even if the first do not.
    let prompt = format!("{{{{ instruction }}}}\n{}", when_given("input"));
    let understood = "`instruction`, `input` where it is given, `output`".to_owned();
    Some(Shape::new(understood, "instruct", segments(prompt, "{{ output }}".to_owned())))
}

/// Returns the shape of a prompt and a target by their usual names.
fn pair(seen: &Seen<'_>) -> Option<Shape> {
    let mut pairs =
        PAIRS.iter().filter(|(prompt, _)| seen.is_text(prompt)).filter_map(|&(prompt, targets)| {
            targets.iter().find(|target| seen.is_text(target)).map(|&target| (prompt, target))
        });
    let (prompt, target) = pairs.next()?;
    let understood = format!("`{prompt}` and `{target}`");
    let segments = segments(seen.prompt("", prompt), format!("{{{{ {target} }}}}"));
    Some(Shape::new(understood, "instruct", segments))
}

/// Returns the shape of plain text.
fn plain(seen: &Seen<'_>) -> Option<Shape> {
    let segments = || vec![SegmentSpec::Target("{{ text }}".to_owned())];
    seen.is_text("text").then(|| Shape::new("`text`".to_owned(), "text", segments()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::parse_json;

    fn shapes(lines: &[&str]) -> Result<Vec<Shape>, String> {
        let records: Vec<Fields> =
            lines.iter().map(|line| parse_json(line.as_bytes()).unwrap()).collect();
        shapes_of(&records, &ClassLabels::new())
    }

    fn templates(lines: &[&str]) -> Vec<String> {
        let shapes = shapes(lines).unwrap();
        let segments = shapes.iter().flat_map(|shape| &shape.segments);
        segments.map(|segment| segment.template().to_owned()).collect()
    }

    #[test]
    fn every_shape_has_its_templates() {
        for (line, prompt, target) in [
            (r#"{"prompt": "a", "completion": "b"}"#, "{{ prompt }}\n\n", "{{ completion }}"),
            (r#"{"prompt": "a", "response": "b"}"#, "{{ prompt }}\n\n", "{{ response }}"),
            (r#"{"prompt": "a", "output": "b", "text": "x"}"#, "{{ prompt }}\n\n", "{{ output }}"),
            (r#"{"inputs": "a", "targets": "b"}"#, "{{ inputs }}\n\n", "{{ targets }}"),
            (r#"{"source": "a", "target": "b"}"#, "{{ source }}\n\n", "{{ target }}"),
            (r#"{"question": "a", "answer": "b"}"#, "{{ question }}\n\n", "{{ answer }}"),
            (r#"{"question": "a", "answers": ["b"]}"#, "{{ question }}\n\n", "{{ answers[0] }}"),
            (
                r#"{"question": "a", "context": "c", "answers": {"text": ["b"], "answer_start": [0]}}"#,
                "{{ context }}\n{{ question }}\n\n",
                "{{ answers.text[0] }}",
            ),
            (
                r#"{"question": "a", "answers": [{"text": "b"}]}"#,
                "{{ question }}\n\n",
                "{{ answers[0].text }}",
            ),
            (r#"{"tweet": "a", "label": "b"}"#, "{{ tweet }}\n\n", "{{ label }}"),
        ] {
            assert_eq!(templates(&[line]), [prompt, target], "{line}");
        }
        assert_eq!(templates(&[r#"{"text": "a", "date": 3}"#]), ["{{ text }}"]);
        assert_eq!(
            templates(&[r#"{"translation": {"en": "a", "is": "b"}}"#]),
            [
                "en: {{ translation.en }}\nis:",
                " {{ translation[\"is\"] }}",
                "is: {{ translation[\"is\"] }}\nen:",
                " {{ translation.en }}"
            ]
        );
    }

    #[test]
    fn conversations_are_known_by_their_messages() {
        for (line, messages, tools) in [
            (r#"{"messages": [{"role": "user", "content": "a"}]}"#, "messages", false),
            (r#"{"conversations": [{"from": "gpt", "value": "a"}]}"#, "conversations", false),
            (r#"{"messages": [{"role": "a"}], "tools": [{}], "id": 1}"#, "messages", true),
        ] {
            let shapes = shapes(&[line]).unwrap();
            assert_eq!(shapes[0].chat, Some(Chat { messages, tools }), "{line}");
        }
    }

    #[test]
    fn what_is_open_is_said() {
        for (line, why) in [
            (r#"{"messages": []}"#, "`messages`"),
            (r#"{"messages": [{"content": "a"}]}"#, "no list of messages"),
            (r#"{"conversations": [], "text": "a"}"#, "`conversations`"),
            (r#"{"translation": {"a": "x", "b": "y", "c": "z"}}"#, "3 languages"),
            (r#"{"translation": "x"}"#, "no object"),
            (r#"{"text": "a", "label": "b", "headline": "c"}"#, "`headline`"),
        ] {
            assert!(shapes(&[line]).unwrap_err().contains(why), "{line}");
        }
        assert_eq!(shapes(&[r#"{"a": "b"}"#]).unwrap_err(), "");
        assert_eq!(shapes(&[r#"{"prompt": ["a"], "answer": "b"}"#]).unwrap_err(), "");
    }
}
