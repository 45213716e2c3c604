//! A text and its label, where nothing else could be meant.

use std::collections::HashSet;

use super::language::lang_field;
use super::seen::Seen;
use super::{Shape, segments};
use crate::read::Value;

const TEXTS: [&str; 4] = ["text", "tweet", "sentence", "review"];
const LABELS: [&str; 4] = ["label", "category", "sentiment", "class"];
/// Fields beside a text and its label that change nothing.
const ASIDE: [&str; 6] = ["id", "idx", "index", "url", "link", "source_url"];
/// The most labels of a classification, and the most letters of one.
const MOST_LABELS: usize = 50;
const LONGEST_LABEL: usize = 40;
/// Returns the shape of a text and its label, if nothing else could be meant; an explanation where
/// the label, or what it is a label of, is open.
pub(super) fn labelled(seen: &Seen<'_>) -> Option<Result<Shape, String>> {
    let names = seen.names();
    let of = |known: &[&str]| -> Vec<&str> {
        names.iter().copied().filter(|name| known.contains(name) && seen.is_text(name)).collect()
    };
    let (texts, labels) = (of(&TEXTS), of(&LABELS));
    let (Some(&text), Some(&label)) = (texts.first(), labels.first()) else { return None };
    let language = lang_field(seen);
    let others: Vec<String> = names
        .iter()
        .filter(|name| ![text, label].contains(name) && !ASIDE.contains(name))
        .filter(|name| language != Some(**name))
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
    let understood = format!("`{text}` and its `{label}`");
    let segments = segments(seen.prompt("", text), format!("{{{{ {label} }}}}"));
    Some(Ok(Shape::new(understood, "classify", segments)))
}

/// Returns a value as a label is compared.
fn spelled(value: &Value) -> String {
    value.as_str().map_or_else(|| format!("{value:?}"), str::to_owned)
}
