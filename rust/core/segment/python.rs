//! Values as Python writes them: `str`, `repr` and `json.dumps`.
//!
//! Takes the engine's values. Gives text equal to that of Python's `json` and Jinja2, or an error
//! that says why there is none. The engine's own `Display` differs in floats and in escaped
//! characters.

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use minijinja::value::{Enumerator, Object, ObjectRepr, Value as Jinja, ValueKind};
use minijinja::{Error as JinjaError, ErrorKind};
use regex::Regex;

use crate::read::{Number, Value};

/// An integer beyond the engine's 128 bits. Templates can show it, but not calculate with it.
#[derive(Debug)]
struct BigInt(String);

impl Object for BigInt {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }

    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Converts a field's value to a value of the engine. `shows_only` is false if the template also
/// compares or calculates: it then refuses integers beyond 128 bits, which the engine would compare
/// wrongly.
pub(crate) fn value_of(value: &Value, string: &impl Fn(&str) -> String, shows_only: bool) -> Jinja {
    match value {
        Value::Null => Jinja::from(()),
        Value::Bool(truth) => Jinja::from(*truth),
        // As 64 bits where they fit: the engine keeps 128-bit integers apart.
        Value::Number(Number::Int(int)) => {
            i64::try_from(*int).map_or_else(|_| Jinja::from(*int), Jinja::from)
        }
        Value::Number(Number::Float(float)) => Jinja::from(*float),
        Value::Number(Number::Big(digits)) if shows_only => {
            Jinja::from_object(BigInt(digits.clone()))
        }
        Value::Number(Number::Big(digits)) => {
            let digits = digits.trim_start_matches('-').len();
            Jinja::from(error(format!(
                "an integer of {digits} digits is read by a template that compares or calculates"
            )))
        }
        Value::String(text) => Jinja::from(string(text)),
        Value::Array(items) => {
            items.iter().map(|item| value_of(item, string, shows_only)).collect()
        }
        Value::Object(fields) => Jinja::from_pairs(
            fields.iter().map(|(key, value)| (key.clone(), value_of(value, string, shows_only))),
        ),
        Value::Unreadable(why) => unreadable(why),
    }
}

/// Returns whether a value is an integer beyond 128 bits.
pub(crate) fn is_big(value: &Jinja) -> bool {
    value.downcast_object_ref::<BigInt>().is_some()
}

/// Returns a value that fails where it is read.
fn unreadable(why: &str) -> Jinja {
    Jinja::from(JinjaError::new(ErrorKind::BadSerialization, why.to_owned()))
}

/// Returns the error about an operation that gives no text.
fn error(what: impl Into<std::borrow::Cow<'static, str>>) -> JinjaError {
    JinjaError::new(ErrorKind::InvalidOperation, what)
}

/// Returns `str(value)`; an error if the value is undefined or null.
pub(crate) fn text(value: &Jinja) -> Result<String, JinjaError> {
    match value.kind() {
        ValueKind::Undefined => Err(ErrorKind::UndefinedError.into()),
        ValueKind::None => Err(JinjaError::new(ErrorKind::UndefinedError, "null")),
        _ => {
            let mut out = String::new();
            match value.as_str() {
                Some(text) => out.push_str(text),
                None => write_repr(value, &mut out)?,
            }
            Ok(out)
        }
    }
}

/// Returns `repr(value)`.
pub(crate) fn repr(value: &Jinja) -> Result<String, JinjaError> {
    let mut out = String::new();
    write_repr(value, &mut out)?;
    Ok(out)
}

/// Appends `repr(value)`.
fn write_repr(value: &Jinja, out: &mut String) -> Result<(), JinjaError> {
    match value.kind() {
        ValueKind::Undefined => return Err(ErrorKind::UndefinedError.into()),
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => write_number(value, out),
        ValueKind::String => string_repr(value.as_str().unwrap_or_default(), out),
        ValueKind::Map => {
            out.push('{');
            for (index, (key, item)) in pairs(value)?.into_iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write_repr(&key, out)?;
                out.push_str(": ");
                write_repr(&item, out)?;
            }
            out.push('}');
        }
        ValueKind::Seq => {
            // The engine knows tuples, and Python shows them with parentheses.
            let (open, close) = if value.is_tuple() { ('(', ')') } else { ('[', ']') };
            let items = items(value)?;
            out.push(open);
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write_repr(item, out)?;
            }
            // A tuple of one has a comma in Python.
            out.push_str(if value.is_tuple() && items.len() == 1 { "," } else { "" });
            out.push(close);
        }
        ValueKind::Invalid => return Err(invalid(value)),
        ValueKind::Plain if is_big(value) => {
            let _ = write!(out, "{value}");
        }
        ValueKind::Iterable => {
            return Err(error("a sequence that is not a list is shown: put `| list` after it"));
        }
        _ => return Err(error("a function, macro or loop is shown, which has no text")),
    }
    Ok(())
}

/// Returns the error that an invalid value carries.
// The engine keeps the error inside the value and shows it in this text only.
fn invalid(value: &Jinja) -> JinjaError {
    let shown = value.to_string();
    let why = shown.trim_start_matches("<invalid value: ").trim_end_matches('>');
    match (
        why.strip_prefix("could not serialize to value: "),
        why.strip_prefix("invalid operation: "),
    ) {
        (Some(why), _) => JinjaError::new(ErrorKind::BadSerialization, why.to_owned()),
        (_, operation) => error(operation.unwrap_or(why).to_owned()),
    }
}

/// Returns the items of a list.
fn items(value: &Jinja) -> Result<Vec<Jinja>, JinjaError> {
    Ok(value.try_iter()?.collect())
}

/// Returns the keys and values of a map.
fn pairs(value: &Jinja) -> Result<Vec<(Jinja, Jinja)>, JinjaError> {
    items(value)?.into_iter().map(|key| Ok((key.clone(), value.get_item(&key)?))).collect()
}

/// Appends `repr` of a number.
fn write_number(value: &Jinja, out: &mut String) {
    match f64::try_from(value.clone()) {
        Ok(float) if !value.is_integer() => write_float(float, out),
        _ => {
            let _ = write!(out, "{value}");
        }
    }
}

/// Appends `repr` of a float: the shortest digits that read back as it, with an exponent below 1e-4
/// and from 1e16 on.
fn write_float(float: f64, out: &mut String) {
    if !float.is_finite() {
        out.push_str(if float.is_nan() { "nan" } else { "" });
        out.push_str(if float == f64::INFINITY { "inf" } else { "" });
        out.push_str(if float == f64::NEG_INFINITY { "-inf" } else { "" });
        return;
    }
    // Of two shortest spellings that are equally near, Python uses the even one.
    let shortest = format!("{float:e}");
    let places =
        shortest.bytes().take_while(|byte| *byte != b'e').filter(u8::is_ascii_digit).count() - 1;
    let even = format!("{float:.places$e}");
    let scientific = if even.parse() == Ok(float) { even } else { shortest };
    let (digits, exponent) = scientific.split_once('e').expect("written with an exponent");
    let exponent: i32 = exponent.parse().expect("written as an integer");
    let _ = if (-4..16).contains(&exponent) || float == 0.0 {
        // Uses the digits as they are: the point moves, and a whole number gets `.0`.
        out.write_str(&positional(digits, exponent))
    } else {
        write!(out, "{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
    };
}

/// Writes a number of `digits` (`-d.ddd`) and a power of ten without an exponent.
fn positional(digits: &str, exponent: i32) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let digits = digits.replace('.', "");
    let Ok(whole) = usize::try_from(exponent) else {
        return format!("{sign}0.{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1));
    };
    if digits.len() <= whole + 1 {
        return format!("{sign}{digits:0<width$}.0", width = whole + 1);
    }
    format!("{sign}{}.{}", &digits[..=whole], &digits[whole + 1..])
}

/// Matches the characters beyond ASCII that Python's `repr` escapes.
static NOT_PRINTABLE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"[\p{C}\p{Z}&&[^ ]]").expect("the pattern is constant"));

/// Appends `repr` of a string.
fn string_repr(text: &str, out: &mut String) {
    // Python uses double quotes only for a text with single quotes and no double ones.
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        let point = c as u32;
        let _ = match c {
            '\n' => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            '\t' => out.write_str("\\t"),
            _ if c == quote || c == '\\' => write!(out, "\\{c}"),
            ' '..='~' => out.write_char(c),
            _ if !NOT_PRINTABLE.is_match(c.encode_utf8(&mut [0; 4])) => out.write_char(c),
            _ if point <= 0xff => write!(out, "\\x{point:02x}"),
            _ if point <= 0xffff => write!(out, "\\u{point:04x}"),
            _ => write!(out, "\\U{point:08x}"),
        };
    }
    out.push(quote);
}

/// The arguments of `json.dumps`.
#[derive(Debug)]
pub(crate) struct Dumps {
    /// Whether characters beyond ASCII are escaped.
    pub(crate) ensure_ascii: bool,
    /// The white space of one level, if each item has a line of its own.
    pub(crate) indent: Option<String>,
    /// The text between items, and after a key.
    pub(crate) separators: (String, String),
    /// Whether keys are sorted.
    pub(crate) sort_keys: bool,
}

impl Dumps {
    /// Returns `json.dumps(value)` with these arguments.
    pub(crate) fn text(&self, value: &Jinja) -> Result<String, JinjaError> {
        let mut out = String::new();
        self.write(value, 0, &mut out)?;
        Ok(out)
    }

    /// Appends the JSON of a value at `depth`.
    fn write(&self, value: &Jinja, depth: usize, out: &mut String) -> Result<(), JinjaError> {
        match value.kind() {
            ValueKind::Undefined => return Err(ErrorKind::UndefinedError.into()),
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::String => self.write_string(value.as_str().unwrap_or_default(), out),
            ValueKind::Number => write_json_number(value, out),
            ValueKind::Plain => write_repr(value, out)?,
            ValueKind::Map => {
                let mut pairs = pairs(value)?;
                if self.sort_keys {
                    // Python fails on keys of mixed types; other keys have no order here either.
                    if pairs.iter().any(|(key, _)| key.kind() != ValueKind::String) {
                        return Err(error("sort_keys sorts keys that are strings"));
                    }
                    pairs.sort_by(|(a, _), (b, _)| a.as_str().cmp(&b.as_str()));
                }
                self.write_items(('{', '}'), pairs.len(), depth, out, |index, out| {
                    let (key, item) = &pairs[index];
                    self.write_key(key, out)?;
                    out.push_str(&self.separators.1);
                    self.write(item, depth + 1, out)
                })?;
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let items = items(value)?;
                self.write_items(('[', ']'), items.len(), depth, out, |index, out| {
                    self.write(&items[index], depth + 1, out)
                })?;
            }
            ValueKind::Invalid => return Err(invalid(value)),
            _ => return Err(error("is no JSON value")),
        }
        Ok(())
    }

    /// Appends the items of a list or a map between brackets.
    fn write_items(
        &self,
        (open, close): (char, char),
        count: usize,
        depth: usize,
        out: &mut String,
        mut item: impl FnMut(usize, &mut String) -> Result<(), JinjaError>,
    ) -> Result<(), JinjaError> {
        let new_line = |depth: usize, out: &mut String| {
            if let Some(indent) = self.indent.as_ref().filter(|_| count > 0) {
                out.push('\n');
                out.push_str(&indent.repeat(depth));
            }
        };
        out.push(open);
        for index in 0..count {
            out.push_str(if index > 0 { &self.separators.0 } else { "" });
            new_line(depth + 1, out);
            item(index, out)?;
        }
        new_line(depth, out);
        out.push(close);
        Ok(())
    }

    /// Appends a key, as a string: JSON has no other keys.
    fn write_key(&self, key: &Jinja, out: &mut String) -> Result<(), JinjaError> {
        match key.kind() {
            ValueKind::String => self.write_string(key.as_str().unwrap_or_default(), out),
            ValueKind::Number | ValueKind::Bool | ValueKind::None => {
                out.push('"');
                self.write(key, 0, out)?;
                out.push('"');
            }
            _ => return Err(error("keys of JSON are strings, numbers, booleans or none")),
        }
        Ok(())
    }

    /// Appends a string in quotes, escaped as Python does.
    fn write_string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            let _ = match c {
                '"' => out.write_str("\\\""),
                '\\' => out.write_str("\\\\"),
                '\n' => out.write_str("\\n"),
                '\r' => out.write_str("\\r"),
                '\t' => out.write_str("\\t"),
                '\u{8}' => out.write_str("\\b"),
                '\u{c}' => out.write_str("\\f"),
                '\0'..='\u{1f}' => write!(out, "\\u{:04x}", c as u32),
                '\u{7f}'.. if self.ensure_ascii => c
                    .encode_utf16(&mut [0; 2])
                    .iter()
                    .try_for_each(|unit| write!(out, "\\u{unit:04x}")),
                _ => out.write_char(c),
            };
        }
        out.push('"');
    }
}

/// Appends a number; JSON in Python has names for those that are not finite.
fn write_json_number(value: &Jinja, out: &mut String) {
    match f64::try_from(value.clone()) {
        Ok(float) if !value.is_integer() && !float.is_finite() => out.push_str(match float {
            f64::INFINITY => "Infinity",
            f64::NEG_INFINITY => "-Infinity",
            _ => "NaN",
        }),
        _ => write_number(value, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn floats_are_written_as_pythons_repr() {
        for (float, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1e-7, "1e-07"),
            (1e16, "1e+16"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
            (1e15, "1000000000000000.0"),
            (0.0001, "0.0001"),
            (0.000_012_5, "1.25e-05"),
            (117.633_311_394_000_17, "117.63331139400017"),
            // Halfway between two spellings of sixteen digits.
            (-694_419_800_652_033.0 - 0.25, "-694419800652033.2"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
        ] {
            assert_eq!(text(&Jinja::from(float)).unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn a_float_written_is_the_same_float_read(float in any::<f64>()) {
            prop_assume!(float.is_finite());
            prop_assert_eq!(text(&Jinja::from(float)).unwrap().parse(), Ok(float));
        }
    }
}
