//! Reads JSON as Python's `json.loads` does, into the fields of a record.
//!
//! Takes the text of a line; gives [`Fields`]. Integers keep every digit, floats are the nearest
//! double, `-0` is an integer. Numbers that are not finite (`NaN`, `Infinity`, `1e999`), which
//! programs write for a value that is not there, are null. A string that no text can hold (with a
//! lone surrogate) becomes [`Value::Unreadable`]: it costs the record only where a template shows it.

use std::ops::Range;

use indexmap::IndexMap;

use super::json_parser::{Parser, Text};
use super::needed::{MAX_OTHERS, Needed, Room};

/// The fields of a record, in the order of the line. A name that comes twice has its last value.
pub type Fields = IndexMap<String, Value>;

/// A value of a field.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string.
    String(String),
    /// A list.
    Array(Vec<Value>),
    /// An object.
    Object(Fields),
    /// A value that cannot be text, with the reason: a template that shows it refuses the record.
    Unreadable(String),
}

/// A number, integers apart from floats as Python has them.
#[derive(Debug, Clone, PartialEq)]
pub enum Number {
    /// An integer of up to 128 bits.
    Int(i128),
    /// A larger integer: its sign and digits.
    Big(String),
    /// A finite float.
    Float(f64),
}

impl Value {
    /// Returns the text of a string.
    #[must_use]
    pub(crate) fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// Returns the bytes that the value takes in memory, roughly.
    pub(super) fn memory(&self) -> usize {
        let inner = match self {
            Self::String(text) | Self::Unreadable(text) => text.len(),
            Self::Array(items) => items.iter().map(Self::memory).sum(),
            Self::Object(fields) => {
                fields.iter().map(|(name, value)| name.len() + value.memory()).sum()
            }
            Self::Null | Self::Bool(_) | Self::Number(_) => 0,
        };
        size_of::<Self>() + inner
    }

    /// Returns whether the value is `null`.
    #[must_use]
    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

/// Reads a JSON object. Returns an error in words for any other text, with the column counted in
/// bytes from 1.
pub(crate) fn parse_object(text: &str) -> Result<Fields, String> {
    parse_needed(text, Needed::all())
}

/// Reads a JSON object as [`parse_object`] does, whose fields are built as far as they are needed.
pub(super) fn parse_needed(text: &str, needed: &Needed) -> Result<Fields, String> {
    let mut room = Room::new();
    let mut parser = Parser::new(text, needed, &mut room);
    match parser.whole()? {
        Value::Object(fields) => Ok(fields),
        Value::Unreadable(why) => Err(why),
        _ => Err("JSON, but not an object".to_owned()),
    }
}

/// Reads the value of a field, as far as there is `room` in its record.
pub(super) fn value_in(text: &str, room: &mut Room) -> Result<Value, String> {
    Parser::new(text, Needed::all(), room).inside().whole()
}

/// A field of an object: its name, and the bytes of its value.
pub(super) type Member = (String, Range<usize>);

/// Checks a JSON object as [`parse_object`] does. Returns its fields in order: the needed ones, that
/// called `wanted`, and so many others as are built of a record.
pub(super) fn members(
    text: &str,
    needed: &Needed,
    wanted: Option<&str>,
) -> Result<Vec<Member>, String> {
    let mut room = Room::none();
    let mut parser = Parser::new(text, needed, &mut room);
    parser.skip_blank();
    if parser.peek() != Some(b'{') {
        return Err(parse_object(text).err().unwrap_or_default());
    }
    parser.open();
    let (mut members, mut others) = (Vec::new(), 0);
    parser.fields(|parser, name| {
        let start = parser.place();
        parser.value()?;
        if let Text::Whole(name) = name {
            others += 1;
            if others <= MAX_OTHERS || needed.has(&name) || wanted == Some(&name) {
                members.push((name, start..parser.place()));
            }
        }
        Ok(())
    })?;
    parser.end()?;
    Ok(members)
}

/// Returns the place of the next element of a list of JSON in `text`, from `start` on, and moves
/// `start` past it; `None` after the last. The list begins with its bracket.
pub(super) fn next_item(text: &str, start: &mut usize) -> Option<Range<usize>> {
    let mut room = Room::none();
    let mut parser = Parser::new(&text[*start..], Needed::all(), &mut room).inside();
    let is_first = parser.take("[");
    parser.skip_blank();
    if is_first && parser.peek() == Some(b']') {
        return None;
    }
    if !is_first && !parser.take(",") {
        return None;
    }
    parser.skip_blank();
    let first = *start + parser.place();
    parser.value().ok()?;
    let end = *start + parser.place();
    *start = end;
    Some(first..end)
}

#[cfg(test)]
impl From<serde_json::Value> for Value {
    fn from(value: serde_json::Value) -> Self {
        let text = format!("{{\"value\":{value}}}");
        parse_object(&text)
            .expect("it was written as JSON")
            .swap_remove("value")
            .expect("it was put there")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str) -> Value {
        parse_object(&format!("{{\"v\": {text}}}")).unwrap().swap_remove("v").unwrap()
    }

    #[test]
    fn numbers_are_those_of_the_file() {
        let number =
            |text| if let Value::Number(number) = value(text) { number } else { panic!("{text}") };
        assert_eq!(number("-0"), Number::Int(0));
        assert_eq!(number("36893488147419103232"), Number::Int(36_893_488_147_419_103_232));
        let big = "9".repeat(400);
        assert_eq!(number(&big), Number::Big(big.clone()));
        for float in
            ["117.63331139400017", "0.9215686321258545", "0.9452706955539223", "1e-7", "5e-324"]
        {
            assert_eq!(number(float), Number::Float(float.parse().unwrap()));
        }
        assert!(matches!(number("-0.0"), Number::Float(zero) if zero.is_sign_negative()));
    }

    #[test]
    fn numbers_that_are_not_finite_are_null() {
        for text in ["NaN", "Infinity", "-Infinity", "1e999", "-1E+999"] {
            assert_eq!(value(text), Value::Null, "{text}");
        }
        assert_eq!(value("[NaN]"), Value::Array(vec![Value::Null]));
        for text in ["nan", "+Infinity", "-NaN", "Inf", "NaNa", "Infinity1"] {
            assert!(parse_object(&format!("{{\"v\": {text}}}")).is_err(), "{text}");
        }
        assert_eq!(parse_object("NaN").unwrap_err(), "JSON, but not an object");
    }

    #[test]
    fn what_no_text_can_hold_is_unreadable_where_it_stands() {
        for text in [r#""\ud800x""#, r#"{"\udc00": 1}"#] {
            assert!(matches!(value(text), Value::Unreadable(_)), "{text}");
        }
        assert_eq!(value(r#""\ud83d\ude00""#), Value::from("\u{1f600}"));
        assert_eq!(parse_object(r#"{"\ud800": 1, "a": 2}"#).unwrap().len(), 1);
    }

    #[test]
    fn what_python_refuses_is_refused() {
        for text in [
            "01",
            "1.",
            ".5",
            "+1",
            "[1,]",
            "{\"a\": 1,}",
            "'a'",
            "\"\t\"",
            "nul",
            "1e",
            "\"\\x\"",
            "[",
            "\"\\u12\"",
        ] {
            assert!(parse_object(&format!("{{\"v\": {text}}}")).is_err(), "{text}");
        }
        assert_eq!(parse_object("[]").unwrap_err(), "JSON, but not an object");
        let deep = |depth: usize| format!("{{\"v\": {}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse_object(&deep(126)).is_ok() && parse_object(&deep(200)).is_err());
    }

    proptest! {
        #[test]
        fn the_same_lines_are_json_as_for_serde(text in "[\\[\\]{}\":, a0-9.eE\\\\u+-]{0,12}") {
            let text = format!("{{\"v\":{text}}}");
            let theirs = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text);
            if let Ok(fields) = theirs {
                let ours = parse_object(&text);
                prop_assert!(ours.is_ok(), "{:?} {:?}", text, ours);
                let ours = ours.unwrap();
                prop_assert_eq!(ours.keys().collect::<Vec<_>>(), fields.keys().collect::<Vec<_>>());
            }
        }
    }
}
