//! Questions and answers, with the context of the question where there is one.

use super::seen::{Seen, is_scalar};
use super::{Shape, segments};
use crate::read::Value;

/// Returns the shape of questions and answers.
pub(super) fn question(seen: &Seen<'_>) -> Option<Shape> {
    if !seen.is_text("question") {
        return None;
    }
    let path = ["answer", "answers"].into_iter().find_map(|name| answer(seen, name))?;
    let context = if seen.is_text("context") { "`context`, " } else { "" };
    let understood = format!("{context}`question` and `{path}`");
    let segments = segments(seen.prompt("context", "question"), format!("{{{{ {path} }}}}"));
    Some(Shape::new(understood, "qa", segments))
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
