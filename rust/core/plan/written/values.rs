//! Checks of the values of `corpus.toml`: each is of the kind that its key takes.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::keys::{Key, Kind, SEGMENTS};
use super::tables::{check_documents, check_section, check_table};
use super::{Checked, fault};
use crate::plan::nearest;

/// Checks the value of a known key.
pub(super) fn check_value(
    value: &Spanned<DeValue<'_>>,
    name_span: Range<usize>,
    key: &Key,
    place: &str,
) -> Checked {
    let Key { name, example, .. } = key;
    // Every fault of a value is mended by the example of its key.
    let remedy = format!("write it as {name} = {example}");
    let refuse = |what: &str| {
        let message = format!("`{name}`{place} takes {what}, not {}", described(value.get_ref()));
        fault(value.span(), message, remedy.clone())
    };
    match (key.kind, value.get_ref()) {
        (Kind::Word(words), DeValue::String(text)) => {
            check_word(text, words(), value.span(), &format!("`{name}`{place}"))
        }
        (Kind::Whole, DeValue::Integer(number)) => match whole(number) {
            Some(_) => Ok(()),
            None => refuse("a whole number, 0 or above and not too large"),
        },
        (Kind::Whole, _) => refuse("a whole number"),
        // An integer is a number as well: `temperature = 2` is what people write.
        (Kind::Number | Kind::NumberOrField, DeValue::Integer(number))
            if i64::from_str_radix(number.as_str(), number.radix()).is_ok() =>
        {
            Ok(())
        }
        (Kind::Text | Kind::Files, DeValue::String(_))
        | (Kind::Number | Kind::NumberOrField, DeValue::Float(_))
        | (Kind::Truth, DeValue::Boolean(_)) => Ok(()),
        (Kind::Text | Kind::Word(_), _) => refuse("a text in quotes"),
        (Kind::Number, _) => refuse("a number"),
        (Kind::NumberOrField, DeValue::String(text)) => {
            check_field(name, text, value.span(), &format!("`{name}`{place}"))
        }
        (Kind::NumberOrField, _) => {
            refuse("a number, the weight in the mix, or the field with a document's weight")
        }
        (Kind::Truth, _) => refuse("true or false"),
        (Kind::Files, DeValue::Table(sides)) => check_sides(name, sides, place),
        (Kind::Texts | Kind::Files | Kind::Words(_), DeValue::Array(texts)) => {
            match texts.iter().find(|text| !text.get_ref().is_str()) {
                None => check_words(texts, key.kind, &format!("`{name}`{place}")),
                Some(other) => {
                    let found = described(other.get_ref());
                    let message = format!("`{name}`{place} lists texts in quotes, not {found}");
                    fault(other.span(), message, remedy.clone())
                }
            }
        }
        (Kind::Renames, DeValue::Table(names)) => {
            match names.iter().find(|(_, new)| !new.get_ref().is_str()) {
                None => Ok(()),
                Some((old, new)) => {
                    let (old, found) = (old.get_ref(), described(new.get_ref()));
                    let message = format!("`{name}`{place} gives '{old}' {found}, not a name");
                    fault(new.span(), message, remedy.clone())
                }
            }
        }
        (Kind::WordOrTexts(words) | Kind::WordOrInner(words, _), DeValue::String(text)) => {
            check_word(text, words, value.span(), &format!("`{name}`{place}"))
        }
        (Kind::WordOrTexts(_), DeValue::Array(texts))
            if texts.iter().all(|text| text.get_ref().is_str()) =>
        {
            Ok(())
        }
        (Kind::WordOrTexts(_), _) => refuse("a word in quotes, or a list of texts in brackets"),
        (Kind::Renames, _) => refuse("a table in braces, the old names before the new ones"),
        (Kind::Texts | Kind::Words(_), _) => refuse("a list of texts in brackets"),
        (Kind::Files, _) => refuse("a text in quotes, or a list of them in brackets"),
        (Kind::Segments, DeValue::Array(segments)) => segments.iter().try_for_each(check_segment),
        (Kind::Segments, _) => refuse("a list in brackets, a table in braces for each segment"),
        (Kind::Templates, DeValue::Array(templates)) => {
            templates.iter().try_for_each(|template| match template.get_ref() {
                DeValue::Array(segments) => segments.iter().try_for_each(check_segment),
                _ => refuse("a list of templates, each a list of segments"),
            })
        }
        (Kind::Templates, _) => refuse("a list of templates, each a list of segments"),
        (Kind::Documents(keys), _) => check_documents(value, name_span, keys()),
        (Kind::WordOrInner(..), other) if !other.is_table() => {
            refuse("one of its words in quotes, or a table in braces")
        }
        (Kind::Inner(keys) | Kind::WordOrInner(_, keys), DeValue::Table(table)) => {
            check_table(table, name_span, keys, &format!(" in `{name}`"))
        }
        (Kind::Inner(_) | Kind::WordOrInner(..), _) => refuse("a table in braces"),
        (Kind::Pairs, DeValue::Array(pairs)) if pairs.iter().all(is_pair) => Ok(()),
        (Kind::Pairs, _) => refuse("a list of pairs in brackets"),
        (Kind::Table(_) | Kind::Tables(_) | Kind::Shared(_) | Kind::Named(_), _) => {
            check_section(value, name_span, key)
        }
    }
}

/// Checks that the values of a table of files are files.
fn check_sides(name: &str, sides: &DeTable<'_>, place: &str) -> Checked {
    let is_text = |text: &Spanned<DeValue<'_>>| text.get_ref().is_str();
    let is_side = |value: &DeValue<'_>| match value {
        DeValue::Array(texts) => texts.iter().all(is_text),
        value => value.is_str(),
    };
    match sides.iter().find(|(_, side)| !is_side(side.get_ref())) {
        None => Ok(()),
        Some((field, side)) => {
            let (field, found) = (field.get_ref(), described(side.get_ref()));
            let message = format!("`{name}`{place} names {found} for '{field}'");
            let remedy = format!("write {name} = {{ en = \"train.en\", yo = \"train.yo\" }}");
            fault(side.span(), message, remedy)
        }
    }
}

/// Checks that a text names a field, where a number would mean something else. `key` names its key
/// in errors.
fn check_field(name: &str, text: &str, span: Range<usize>, key: &str) -> Checked {
    let number = text.trim();
    if number.parse::<f64>().is_err() {
        return Ok(());
    }
    fault(
        span,
        format!("{key} is the text \"{text}\": a number, or a field?"),
        format!(
            "a weight in the mix has no quotes: {name} = {number}; of a field with this name say \
             loss_{name} = \"{text}\""
        ),
    )
}

/// Returns whether a value is a list of a whole number, 0 or above, and a number.
fn is_pair(value: &Spanned<DeValue<'_>>) -> bool {
    let DeValue::Array(pair) = value.get_ref() else { return false };
    let mut values = pair.iter();
    let (Some(first), Some(second), None) = (values.next(), values.next(), values.next()) else {
        return false;
    };
    matches!(first.get_ref(), DeValue::Integer(number) if whole(number).is_some())
        && matches!(second.get_ref(), DeValue::Integer(_) | DeValue::Float(_))
}

/// Checks that a text is one of `words`. `key` names its key in errors.
fn check_word(text: &str, words: &[&str], span: Range<usize>, key: &str) -> Checked {
    if words.contains(&text) {
        return Ok(());
    }
    let known = words.join(", ");
    let remedy = match nearest(text, words.iter().copied()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!("write one of {known}"),
    };
    fault(span, format!("{key} cannot be \"{text}\": it is one of {known}"), remedy)
}

/// Checks that each of some texts is a word of `kind`, if it is a list of words.
fn check_words(texts: &[Spanned<DeValue<'_>>], kind: Kind, key: &str) -> Checked {
    let Kind::Words(words) = kind else { return Ok(()) };
    let mut listed = texts.iter().filter_map(|text| Some((text.get_ref().as_str()?, text.span())));
    listed.try_for_each(|(text, span)| check_word(text, words(), span, key))
}

/// Checks that a segment has one prompt or one target.
fn check_segment(segment: &Spanned<DeValue<'_>>) -> Checked {
    let remedy = || format!("a segment is one prompt or one target: segments = {SEGMENTS}");
    let DeValue::Table(table) = segment.get_ref() else {
        return fault(
            segment.span(),
            format!("a segment is a table in braces, not {}", described(segment.get_ref())),
            remedy(),
        );
    };
    let mut written: Vec<_> = table.iter().collect();
    written.sort_by_key(|(name, _)| name.span().start);
    for (name, template) in &written {
        let part = &**name.get_ref();
        // A segment has one key of two: a third is most likely a misspelled one.
        if !["prompt", "target"].contains(&part) {
            let near = nearest(part, ["prompt", "target"].into_iter());
            let remedy = near.map_or_else(remedy, |near| format!("did you mean `{near}`?"));
            return fault(name.span(), format!("no key `{part}` is known in a segment"), remedy);
        }
        if !template.get_ref().is_str() {
            let message = format!(
                "`{part}` takes a template in quotes, not {}",
                described(template.get_ref())
            );
            return fault(template.span(), message, remedy());
        }
    }
    // Two keys would leave the order of prompt and target open.
    match written.len() {
        1 => Ok(()),
        0 => fault(segment.span(), "a segment is empty", remedy()),
        _ => fault(
            segment.span(),
            "a segment holds both `prompt` and `target`",
            remedy().replacen("a segment", "each segment", 1),
        ),
    }
}

/// Returns the value of a whole number, 0 or above; none if it is negative or too large.
fn whole(number: &DeInteger<'_>) -> Option<u64> {
    let (digits, radix) = (number.as_str(), number.radix());
    // TOML's integers are signed; larger seeds are accepted as well.
    let signed = i64::from_str_radix(digits, radix).ok().and_then(|value| value.try_into().ok());
    signed.or_else(|| u64::from_str_radix(digits, radix).ok())
}

/// Returns a value as an error names it.
pub(super) fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.chars().count() > 40 => "a text".to_owned(),
        DeValue::String(text) => format!("the text \"{text}\""),
        DeValue::Integer(number) => format!("the number {}", number.as_str()),
        DeValue::Float(number) => format!("the number {}", number.as_str()),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
