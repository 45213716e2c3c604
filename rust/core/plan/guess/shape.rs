//! Shapes: what the fields of the first records say about prompt and target.

use std::collections::HashSet;

use super::codes::is_language_key;
use crate::plan::SegmentSpec;
use crate::read::{Fields, Value};

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
const TEXTS: [&str; 4] = ["text", "tweet", "sentence", "review"];
const LABELS: [&str; 4] = ["label", "category", "sentiment", "class"];
/// Fields beside a text and its label that change nothing.
const ASIDE: [&str; 6] = ["id", "idx", "index", "url", "link", "source_url"];
/// The most labels of a classification, and the most letters of one.
const MOST_LABELS: usize = 50;
const LONGEST_LABEL: usize = 40;
/// Words that Jinja would take for its own after a dot.
const JINJA_WORDS: [&str; 12] =
    ["and", "as", "do", "else", "for", "if", "in", "is", "not", "or", "set", "with"];

/// Returns the shapes of records, one for each source that a file makes, or an explanation why none
/// was recognised.
pub(super) fn shapes_of(records: &[Fields]) -> Result<Vec<Shape>, String> {
    let seen = Seen(records);
    for name in ["messages", "conversations"] {
        if seen.has(name) {
            return conversations(&seen, name).map(|shape| vec![shape]);
        }
    }
    if seen.has("translation") {
        return translation(&seen);
    }
    if let Some(shape) = instruction(&seen).or_else(|| pair(&seen)).or_else(|| question(&seen)) {
        return Ok(vec![shape]);
    }
    let open = || Err(String::new());
    labelled(&seen).or_else(|| plain(&seen)).unwrap_or_else(open).map(|shape| vec![shape])
}

/// The first records of a file.
struct Seen<'a>(&'a [Fields]);

impl<'a> Seen<'a> {
    /// Returns the values of a field that are not null.
    fn values(&self, name: &str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter_map(move |fields| fields.get(name)).filter(|value| !value.is_null())
    }

    /// Returns whether a record has the field, null or not.
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|fields| fields.contains_key(name))
    }

    /// Returns whether every record has a value for the field.
    fn always(&self, name: &str) -> bool {
        self.values(name).count() == self.0.len()
    }

    /// Returns whether the field holds texts or numbers, and nothing else.
    fn is_text(&self, name: &str) -> bool {
        let mut values = self.values(name).peekable();
        values.peek().is_some() && values.all(is_scalar)
    }

    /// Returns the names of all fields, in order of first use.
    fn names(&self) -> Vec<&'a str> {
        let mut names: Vec<&str> = Vec::new();
        for name in self.0.iter().flat_map(Fields::keys) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }

    /// Returns the template of a prompt: `name`, preceded by the field `before` if records have it.
    fn prompt(&self, before: &str, name: &str) -> String {
        let first = if !self.is_text(before) {
            String::new()
        } else if self.always(before) {
            format!("{{{{ {before} }}}}\n")
        } else {
            when_given(before)
        };
        line(&format!("{first}{{{{ {name} }}}}"))
    }
}

/// Returns whether a value is a text, a number or a truth value.
fn is_scalar(value: &Value) -> bool {
    matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_))
}

/// Returns the template of a line that a field makes where it is there and not empty.
fn when_given(name: &str) -> String {
    format!("{{% if {name} is defined and {name} %}}{{{{ {name} }}}}\n{{% endif %}}")
}

/// Returns a template that ends its line: Jinja drops one end of line at the end of a template.
fn line(template: &str) -> String {
    format!("{template}\n\n")
}

/// Returns the segments of one prompt and one target.
fn segments(prompt: String, target: String) -> Vec<SegmentSpec> {
    vec![SegmentSpec::Prompt(prompt), SegmentSpec::Target(target)]
}

/// Returns the shape of conversations in the field `name`.
fn conversations(seen: &Seen<'_>, name: &'static str) -> Result<Shape, String> {
    let has = |message: &Value, key: &str| match message {
        Value::Object(fields) => fields.get(key).is_some_and(|value| value.as_str().is_some()),
        _ => false,
    };
    let is_message = |message: &Value| has(message, "role") || has(message, "from");
    let mut any = false;
    for value in seen.values(name) {
        match value {
            Value::Array(messages) if messages.iter().all(is_message) => {
                any |= !messages.is_empty();
            }
            _ => return Err(format!("`{name}` is no list of messages, each with its `role`")),
        }
    }
    if !any {
        return Err(format!("`{name}` holds no message in the first records"));
    }
    let tools = seen.values("tools").next().is_some();
    let with = if tools { " with `tools`" } else { "" };
    Ok(Shape {
        understood: format!("conversations in `{name}`{with}"),
        suffix: String::new(),
        task: "chat",
        lang: None,
        segments: Vec::new(),
        chat: Some(Chat { messages: name, tools }),
    })
}

/// Returns the shapes of translations, in both directions.
fn translation(seen: &Seen<'_>) -> Result<Vec<Shape>, String> {
    let mut keys: Vec<&str> = Vec::new();
    for value in seen.values("translation") {
        let Value::Object(texts) = value else {
            return Err("`translation` is no object of texts".to_owned());
        };
        for (key, text) in texts {
            if !(text.is_null() || is_scalar(text)) {
                return Err(format!("`translation.{key}` is no text"));
            }
            if !keys.contains(&key.as_str()) {
                keys.push(key);
            }
        }
    }
    let [first, second] = keys[..] else {
        return Err(format!(
            "`translation` has {} languages, and which goes into which is open",
            keys.len()
        ));
    };
    let is_plain = |key: &str| {
        !key.is_empty()
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if !is_plain(first) || !is_plain(second) {
        return Err("the languages of `translation` have unusual names".to_owned());
    }
    Ok([(first, second), (second, first)].map(|(from, to)| direction(from, to)).into())
}

/// Returns the shape of translations from one language into another.
fn direction(from: &str, to: &str) -> Shape {
    Shape {
        understood: format!("`translation` from {from} into {to}"),
        suffix: format!("{from}-{to}"),
        task: "translate",
        lang: is_language_key(to).then(|| to.to_owned()),
        segments: segments(
            format!("{from}: {}\n{to}:", in_translation(from)),
            format!(" {}", in_translation(to)),
        ),
        chat: None,
    }
}

/// Returns the expression of a language of `translation`.
fn in_translation(key: &str) -> String {
    let is_word = !key.starts_with(|first: char| first.is_ascii_digit())
        && !key.contains('-')
        && !JINJA_WORDS.contains(&key);
    if is_word {
        format!("{{{{ translation.{key} }}}}")
    } else {
        format!("{{{{ translation[\"{key}\"] }}}}")
    }
}

/// Returns the shape of instructions with an output, and an input where there is one.
fn instruction(seen: &Seen<'_>) -> Option<Shape> {
    if !(seen.is_text("instruction") && seen.is_text("output")) {
        return None;
    }
    // Later records may have one, even if the first do not.
    let prompt = format!("{{{{ instruction }}}}\n{}", when_given("input"));
    Some(Shape {
        understood: "`instruction`, `input` where it is given, `output`".to_owned(),
        suffix: String::new(),
        task: "instruct",
        lang: None,
        segments: segments(prompt, "{{ output }}".to_owned()),
        chat: None,
    })
}

/// Returns the shape of a prompt and a target by their usual names.
fn pair(seen: &Seen<'_>) -> Option<Shape> {
    let mut pairs =
        PAIRS.iter().filter(|(prompt, _)| seen.is_text(prompt)).filter_map(|&(prompt, targets)| {
            targets.iter().find(|target| seen.is_text(target)).map(|&target| (prompt, target))
        });
    let (prompt, target) = pairs.next()?;
    Some(Shape {
        understood: format!("`{prompt}` and `{target}`"),
        suffix: String::new(),
        task: "instruct",
        lang: None,
        segments: segments(seen.prompt("", prompt), format!("{{{{ {target} }}}}")),
        chat: None,
    })
}

/// Returns the shape of questions and answers.
fn question(seen: &Seen<'_>) -> Option<Shape> {
    if !seen.is_text("question") {
        return None;
    }
    let path = ["answer", "answers"].into_iter().find_map(|name| answer(seen, name))?;
    let context = if seen.is_text("context") { "`context`, " } else { "" };
    Some(Shape {
        understood: format!("{context}`question` and `{path}`"),
        suffix: String::new(),
        task: "qa",
        lang: None,
        segments: segments(seen.prompt("context", "question"), format!("{{{{ {path} }}}}")),
        chat: None,
    })
}

/// Returns the expression of the first answer in the field `name`.
fn answer(seen: &Seen<'_>, name: &str) -> Option<String> {
    /// Where a value has its first answer; `None` for no answer.
    fn place(value: &Value) -> Option<&'static str> {
        match value {
            value if is_scalar(value) => Some(""),
            Value::Array(items) => match items.first()? {
                first if is_scalar(first) => Some("[0]"),
                Value::Object(first) if first.get("text").is_some_and(is_scalar) => {
                    Some("[0].text")
                }
                _ => None,
            },
            Value::Object(fields) => match fields.get("text")? {
                text if is_scalar(text) => Some(".text"),
                Value::Array(texts) => {
                    texts.first().filter(|text| is_scalar(text)).map(|_| ".text[0]")
                }
                _ => None,
            },
            _ => None,
        }
    }
    let mut places = seen.values(name).filter_map(place);
    let first = places.next()?;
    places.all(|place| place == first).then(|| format!("{name}{first}"))
}

/// Returns the shape of a text and its label, if nothing else could be meant; an explanation where
/// the label, or what it is a label of, is open.
fn labelled(seen: &Seen<'_>) -> Option<Result<Shape, String>> {
    let names = seen.names();
    let of = |known: &[&str]| -> Vec<&str> {
        names.iter().copied().filter(|name| known.contains(name) && seen.is_text(name)).collect()
    };
    let (texts, labels) = (of(&TEXTS), of(&LABELS));
    let (Some(&text), Some(&label)) = (texts.first(), labels.first()) else { return None };
    let others: Vec<String> = names
        .iter()
        .filter(|name| ![text, label].contains(name) && !ASIDE.contains(name))
        .map(|name| format!("`{name}`"))
        .collect();
    if !others.is_empty() {
        return Some(Err(format!(
            "`{label}` may be the label of `{text}`, but there is more: {}",
            others.join(", ")
        )));
    }
    let all: Vec<String> = seen.values(label).map(spelled).collect();
    let distinct: HashSet<&String> = all.iter().collect();
    let is_label = |label: &String| label.chars().count() <= LONGEST_LABEL;
    if distinct.len() > MOST_LABELS
        || all.len() >= 8 && distinct.len() * 2 > all.len()
        || !all.iter().all(is_label)
    {
        return Some(Err(format!("`{label}` has too many different values for labels")));
    }
    Some(Ok(Shape {
        understood: format!("`{text}` and its `{label}`"),
        suffix: String::new(),
        task: "classify",
        lang: None,
        segments: segments(seen.prompt("", text), format!("{{{{ {label} }}}}")),
        chat: None,
    }))
}

/// Returns a value as a label is compared.
fn spelled(value: &Value) -> String {
    value.as_str().map_or_else(|| format!("{value:?}"), str::to_owned)
}

/// Returns the shape of plain text.
fn plain(seen: &Seen<'_>) -> Option<Result<Shape, String>> {
    seen.is_text("text").then(|| {
        let target = SegmentSpec::Target("{{ text }}".to_owned());
        Ok(Shape {
            understood: "`text`".to_owned(),
            suffix: String::new(),
            task: "text",
            lang: None,
            segments: vec![target],
            chat: None,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::parse_json;

    fn shapes(lines: &[&str]) -> Result<Vec<Shape>, String> {
        let records: Vec<Fields> =
            lines.iter().map(|line| parse_json(line.as_bytes()).unwrap()).collect();
        shapes_of(&records)
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
