//! Reads a Python literal, as `repr` writes one into a column of a table: strings, numbers, `None`,
//! `True`, `False`, and lists, tuples, sets and dictionaries of them.
//!
//! Takes a text; gives a [`Value`], or the fault in words. Stricter than Python where the text
//! would mean something else than was meant: two strings without a comma between them, as
//! `NumPy` prints an array, are no string.

use super::json::{Fields, Number, Value};
use super::needed::{Kinds, Room};

/// The deepest nesting of containers.
const MAX_DEPTH: usize = 100;

/// Reads a literal, as far as there is `room` for its values. Returns an error in words for any other
/// text, with the place counted in characters from 1.
pub(super) fn parse_literal(text: &str, room: &mut Room) -> Result<Value, String> {
    let mut parser = Parser { text, at: 0, depth: 0, room };
    parser.skip_blank();
    let value = parser.value()?;
    parser.skip_blank();
    if parser.at < text.len() { Err(parser.error("more text")) } else { Ok(value) }
}

/// A position in a text.
struct Parser<'a> {
    text: &'a str,
    /// The byte to be read next; always at the edge of a character.
    at: usize,
    /// The number of open containers.
    depth: usize,
    room: &'a mut Room,
}

impl<'a> Parser<'a> {
    /// Returns the text that is not read yet.
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Returns the next byte without moving past it.
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Returns the error `what` with the position.
    fn error(&self, what: &str) -> String {
        if self.rest().starts_with("array(") {
            return "printed by NumPy, which Python cannot read: export lists, as `.tolist()` gives \
                    them"
                .to_owned();
        }
        format!("{what} at its character {}", self.text[..self.at].chars().count() + 1)
    }

    /// Moves past white space.
    fn skip_blank(&mut self) {
        let blank = [' ', '\t', '\n', '\r', '\u{c}'];
        self.at = self.text.len() - self.rest().trim_start_matches(blank).len();
    }

    /// Moves past `word` if it comes next. Returns whether it does.
    fn take(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        self.at += if found { word.len() } else { 0 };
        found
    }

    /// Moves past a name, such as `None`, if it comes next.
    fn take_name(&mut self, name: &str) -> bool {
        let after = self.rest().strip_prefix(name).and_then(|rest| rest.chars().next());
        !after.is_some_and(|c| c.is_alphanumeric() || c == '_') && self.take(name)
    }

    /// Reads a value, of which the room of the record knows from then on.
    fn value(&mut self) -> Result<Value, String> {
        let value = self.any_value()?;
        self.room.note(Kinds {
            has_number: matches!(value, Value::Number(_) | Value::Bool(_)),
            has_empty: value.as_str() == Some(""),
        });
        Ok(value)
    }

    /// Reads a value of a list into `items`, if there is room for it.
    fn item(&mut self, items: &mut Vec<Value>) -> Result<(), String> {
        let begun = self.room.begin()?;
        let item = self.value()?;
        if self.room.keeps(&begun) {
            items.push(item);
        }
        Ok(())
    }

    /// Reads a value.
    fn any_value(&mut self) -> Result<Value, String> {
        match self.peek() {
            None => Err(self.error("ends where a value is expected")),
            Some(b'[') => self.nested(|parser| parser.items("]").map(|(items, _)| items)),
            Some(b'(') => self.nested(Self::tuple),
            Some(b'{') => self.nested(Self::braces),
            Some(b'0'..=b'9' | b'.' | b'+' | b'-') => self.number(),
            Some(_) if self.take_name("None") => Ok(Value::Null),
            Some(_) if self.take_name("True") => Ok(Value::Bool(true)),
            Some(_) if self.take_name("False") => Ok(Value::Bool(false)),
            Some(_) if self.take("set()") => Ok(Value::Array(Vec::new())),
            Some(_) => self.string().map(Value::String),
        }
    }

    /// Reads the rest of a container after its opening bracket, by `container`.
    fn nested(
        &mut self,
        container: impl Fn(&mut Self) -> Result<Value, String>,
    ) -> Result<Value, String> {
        if self.depth == MAX_DEPTH {
            return Err(self.error("nested too deeply"));
        }
        self.depth += 1;
        self.at += 1;
        self.skip_blank();
        let value = container(self);
        self.depth -= 1;
        value
    }

    /// Moves past a comma or past `close`. Returns whether the container may go on.
    fn goes_on(&mut self, close: &str) -> Result<bool, String> {
        self.skip_blank();
        if self.take(close) {
            return Ok(false);
        }
        if !self.take(",") {
            let is_string = matches!(self.peek(), Some(b'\'' | b'"'));
            return Err(self.error(if is_string {
                "no comma between two strings (NumPy prints arrays so: export lists)"
            } else {
                "no comma or closing bracket"
            }));
        }
        self.skip_blank();
        Ok(true)
    }

    /// Reads items up to `close`. Returns them, and whether a comma follows the last.
    fn items(&mut self, close: &str) -> Result<(Value, bool), String> {
        let (mut items, mut has_comma) = (Vec::new(), false);
        while !self.take(close) {
            self.item(&mut items)?;
            has_comma = self.goes_on(close)?;
            if !has_comma {
                break;
            }
        }
        Ok((Value::Array(items), has_comma))
    }

    /// Reads a tuple, or a value in parentheses.
    fn tuple(&mut self) -> Result<Value, String> {
        match self.items(")")? {
            (Value::Array(mut items), false) if items.len() == 1 => Ok(items.remove(0)),
            (items, _) => Ok(items),
        }
    }

    /// Reads a dictionary or a set.
    fn braces(&mut self) -> Result<Value, String> {
        let mut fields = Fields::new();
        if self.take("}") {
            return Ok(Value::Object(fields));
        }
        let mut start = self.at;
        let mut name = self.value()?;
        self.skip_blank();
        if self.peek() != Some(b':') {
            let mut items = vec![name];
            while self.goes_on("}")? && !self.take("}") {
                self.item(&mut items)?;
            }
            return Ok(Value::Array(items));
        }
        loop {
            let Value::String(key) = name else {
                self.at = start;
                return Err(self.error("a key that is no string"));
            };
            self.skip_blank();
            if !self.take(":") {
                return Err(self.error("no colon after a key"));
            }
            self.skip_blank();
            let begun = self.room.begin()?;
            let value = self.value()?;
            if self.room.keeps(&begun) {
                fields.insert(key, value);
            }
            if !self.goes_on("}")? || self.take("}") {
                return Ok(Value::Object(fields));
            }
            start = self.at;
            name = self.value()?;
        }
    }

    /// Reads a number with its sign.
    fn number(&mut self) -> Result<Value, String> {
        let start = self.at;
        let is_negative = self.take("-");
        if !is_negative {
            self.take("+");
        }
        self.skip_blank();
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
        let rest = self.rest();
        let mut len = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        // The sign of an exponent belongs to the number.
        let is_radix = rest
            .get(..2)
            .is_some_and(|head| matches!(head, "0x" | "0X" | "0o" | "0O" | "0b" | "0B"));
        if !is_radix && rest[..len].ends_with(['e', 'E']) && rest[len..].starts_with(['+', '-']) {
            let digits = &rest[len + 1..];
            len += 1 + digits.find(|c| !is_part(c)).unwrap_or(digits.len());
        }
        let number = number_of(&rest[..len], is_negative).ok_or_else(|| {
            self.at = start;
            self.error("no number")
        })?;
        self.at += len;
        Ok(number)
    }

    /// Reads a string.
    fn string(&mut self) -> Result<String, String> {
        let start = self.at;
        let prefix = self.rest().find(['\'', '"']).unwrap_or_default();
        let is_raw = match &self.rest()[..prefix] {
            "" | "u" | "U" => false,
            "r" | "R" => true,
            _ => return Err(self.error("no value of a literal")),
        };
        self.at += prefix;
        let quote = match self.peek() {
            Some(b'\'') => "'",
            Some(b'"') => "\"",
            _ => return Err(self.error("no value of a literal")),
        };
        let long = quote.repeat(3);
        let close = if self.take(&long) { long.as_str() } else { quote };
        if close == quote {
            self.at += 1;
        }
        let mut out = String::new();
        loop {
            if self.take(close) {
                return Ok(out);
            }
            let Some(c) = self.rest().chars().next() else {
                self.at = start;
                return Err(self.error("a string without its end"));
            };
            if c == '\\' {
                self.escape(is_raw, &mut out)?;
            } else if close == quote && matches!(c, '\n' | '\r') {
                return Err(self.error("an end of line inside a string"));
            } else {
                // Python reads every end of line as `\n`.
                self.at += c.len_utf8();
                let is_break = c == '\r';
                if is_break {
                    self.take("\n");
                }
                out.push(if is_break { '\n' } else { c });
            }
        }
    }

    /// Reads an escape, and appends its character.
    fn escape(&mut self, is_raw: bool, out: &mut String) -> Result<(), String> {
        self.at += 1;
        let Some(kind) = self.rest().chars().next() else {
            return Err(self.error("ends inside a string"));
        };
        if is_raw || matches!(kind, '\n' | '\r') {
            if is_raw {
                out.push('\\');
            }
            self.at += kind.len_utf8();
            let is_pair = kind == '\r' && self.take("\n");
            if is_raw {
                out.push(if is_pair || kind == '\r' { '\n' } else { kind });
            }
            return Ok(());
        }
        let c = match kind {
            '\\' | '\'' | '"' => kind,
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '0'..='7' => return self.octal(out),
            'x' => return self.code(2, out),
            'u' => return self.code(4, out),
            'U' => return self.code(8, out),
            'N' => return Err(self.error("a character by its name, which is not read")),
            // An escape that Python does not know stays as it is.
            _ => {
                out.push('\\');
                kind
            }
        };
        self.at += kind.len_utf8();
        out.push(c);
        Ok(())
    }

    /// Reads up to three octal digits.
    fn octal(&mut self, out: &mut String) -> Result<(), String> {
        let digits = self.rest().bytes().take(3).take_while(|byte| matches!(byte, b'0'..=b'7'));
        let count = digits.count();
        let code = u32::from_str_radix(&self.rest()[..count], 8).ok().and_then(char::from_u32);
        let c = code.ok_or_else(|| self.error("no character"))?;
        self.at += count;
        out.push(c);
        Ok(())
    }

    /// Reads the letter of an escape and its `count` hexadecimal digits.
    fn code(&mut self, count: usize, out: &mut String) -> Result<(), String> {
        let digits = self.rest().get(1..=count);
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let c = code
            .and_then(char::from_u32)
            .ok_or_else(|| self.error("an escape that is no character"))?;
        self.at += 1 + count;
        out.push(c);
        Ok(())
    }
}

/// Returns a number without its sign as a value; `None` for any other text.
fn number_of(text: &str, is_negative: bool) -> Option<Value> {
    let sign = if is_negative { "-" } else { "" };
    // An underscore stands between two digits, or after the letter of a base.
    let bytes = text.as_bytes();
    let has_base =
        matches!(bytes.get(1), Some(b'x' | b'X' | b'o' | b'O' | b'b' | b'B')) && bytes[0] == b'0';
    let is_digit = |byte: Option<&u8>| {
        byte.is_some_and(|byte| byte.is_ascii_digit() || has_base && byte.is_ascii_alphabetic())
    };
    let is_misplaced = |(at, byte): (usize, &u8)| {
        *byte == b'_' && !(at > 0 && is_digit(bytes.get(at - 1)) && is_digit(bytes.get(at + 1)))
    };
    if bytes.iter().enumerate().any(is_misplaced) {
        return None;
    }
    let digits = text.replace('_', "");
    let lower = digits.to_ascii_lowercase();
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = lower.strip_prefix(prefix) {
            let is_plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_alphanumeric());
            let number = i128::from_str_radix(digits, radix).ok().filter(|_| is_plain)?;
            let number = if is_negative { -number } else { number };
            return Some(Value::Number(Number::Int(number)));
        }
    }
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let significant = digits.trim_start_matches('0');
        // Python refuses zeros before other digits.
        if significant.len() < digits.len() && !significant.is_empty() {
            return None;
        }
        let shown = if significant.is_empty() { "0".to_owned() } else { format!("{sign}{digits}") };
        let number = shown.parse().map_or_else(|_| Number::Big(shown.clone()), Number::Int);
        return Some(Value::Number(number));
    }
    if !lower.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'+' | b'-'))
        || !lower.bytes().next().is_some_and(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return None;
    }
    let float: f64 = format!("{sign}{lower}").parse().ok()?;
    // A number too large for a double is null, as in JSON.
    Some(if float.is_finite() { Value::Number(Number::Float(float)) } else { Value::Null })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_means_something_else_is_refused_with_why() {
        for (text, why) in [
            ("['a' 'b']", "no comma between two strings"),
            ("array(['a'], dtype=object)", "NumPy"),
            ("[array(['a'])]", "NumPy"),
            ("{'a': array([1])}", "NumPy"),
            ("['a', nan]", "no value of a literal at its character 7"),
            ("[b'a']", "no value"),
            ("['a", "a string without its end at its character 2"),
            ("['a'] x", "more text at its character 7"),
            ("", "ends where a value is expected"),
            ("{1: 2}", "a key that is no string"),
            ("['\\ud800']", "no character"),
            ("1j", "no number"),
            ("01", "no number"),
        ] {
            let error = parse_literal(text, &mut Room::new()).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let read = |text: &str| parse_literal(text, &mut Room::new());
        assert!(read(&deep(100)).is_ok());
        assert!(read(&deep(1_000_000)).unwrap_err().contains("nested too deeply"));
        assert!(read(&"(".repeat(1_000_000)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[\\[\\](){}'\"\\\\,: a0-9ọnNux.eE_+-]{0,24}") {
            let _ = parse_literal(&text, &mut Room::new());
        }
    }
}
