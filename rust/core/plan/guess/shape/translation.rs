//! Translations: an object of texts, one a language, in both directions.

use super::seen::{Seen, is_scalar};
use super::{Shape, segments};
use crate::plan::guess::codes::is_language_key;
use crate::read::Value;

/// Words that Jinja would take for its own after a dot.
const JINJA_WORDS: [&str; 12] =
    ["and", "as", "do", "else", "for", "if", "in", "is", "not", "or", "set", "with"];

/// Returns the shapes of translations, in both directions.
pub(super) fn translation(seen: &Seen<'_>) -> Result<Vec<Shape>, String> {
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
    Ok([(first, second), (second, first)].map(|(from, to)| of_translation(from, to)).into())
}

/// Returns the shape of translations from one language into another.
fn of_translation(from: &str, to: &str) -> Shape {
    let texts = [from, to].map(|key| expression(Some("translation"), key));
    let understood = format!("`translation` from {from} into {to}");
    direction(understood, [from, to], &texts)
}

/// Returns the shape of translations from one language into another, by the expressions of their
/// texts.
pub(in crate::plan::guess) fn direction(
    understood: String,
    [from, to]: [&str; 2],
    texts: &[String; 2],
) -> Shape {
    let [prompt, target] = texts;
    let segments =
        segments(format!("{from}: {{{{ {prompt} }}}}\n{to}:"), format!(" {{{{ {target} }}}}"));
    Shape {
        suffix: format!("{from}-{to}"),
        lang: is_language_key(to).then(|| to.to_owned()),
        ..Shape::new(understood, "translate", segments)
    }
}

/// Returns the expression of a field of `object`; of the record itself for `None`.
pub(in crate::plan::guess) fn expression(object: Option<&str>, key: &str) -> String {
    let is_word = !key.starts_with(|first: char| first.is_ascii_digit())
        && !key.contains('-')
        && !JINJA_WORDS.contains(&key);
    match object {
        None if is_word => key.to_owned(),
        Some(object) if is_word => format!("{object}.{key}"),
        object => format!("{}[\"{key}\"]", object.unwrap_or("record")),
    }
}
