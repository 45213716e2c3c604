//! Reads JSON as Python's `json.loads` does, into the fields of a record.
//!
//! Takes the text of a line; gives [`Fields`]. Integers keep every digit, floats are the nearest
//! double, `-0` is an integer. Numbers that are not finite (`NaN`, `Infinity`, `1e999`), which
//! programs write for a value that is not there, are null. A string that no text can hold (with a
//! lone surrogate) becomes [`Value::Unreadable`]: it costs the record only where a template shows it.

use std::ops::Range;

use indexmap::IndexMap;

/// The fields of a record, in the order of the line. A name that comes twice has its last value.
pub type Fields = IndexMap<String, Value>;

/// The deepest nesting of containers; a deeper line is malformed.
const MAX_DEPTH: usize = 127;

/// Words that programs write for numbers that are not finite.
const NOT_FINITE: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

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
    let mut parser = Parser { text, at: 0, depth: 0 };
    parser.skip_blank();
    let value = parser.value()?;
    parser.skip_blank();
    if parser.at < text.len() {
        return Err(parser.error("trailing characters"));
    }
    match value {
        Value::Object(fields) => Ok(fields),
        Value::Unreadable(why) => Err(why),
        _ => Err("JSON, but not an object".to_owned()),
    }
}

/// A field of an object, with its place.
pub(super) struct Member {
    pub(super) name: String,
    /// The bytes of its value.
    pub(super) span: Range<usize>,
    pub(super) value: Value,
}

/// Reads a JSON object as [`parse_object`] does. Returns its fields in order, with their places.
pub(super) fn members(text: &str) -> Result<Vec<Member>, String> {
    let mut parser = Parser { text, at: 0, depth: 0 };
    parser.skip_blank();
    if parser.peek() != Some(b'{') {
        return Err(parse_object(text).err().unwrap_or_default());
    }
    (parser.at, parser.depth) = (parser.at + 1, 1);
    parser.skip_blank();
    let mut members = Vec::new();
    parser.fields(|name, span, value| {
        if let Text::Whole(name) = name {
            members.push(Member { name, span, value });
        }
    })?;
    parser.skip_blank();
    if parser.at < text.len() {
        return Err(parser.error("trailing characters"));
    }
    Ok(members)
}

/// Returns the elements of a JSON array with their places; none for any other text.
pub(super) fn items(text: &str) -> Vec<(Range<usize>, Value)> {
    let mut parser = Parser { text, at: 1, depth: 1 };
    parser.skip_blank();
    let mut items = Vec::new();
    let is_array =
        text.starts_with('[') && parser.items(|span, item| items.push((span, item))).is_ok();
    items.truncate(if is_array { items.len() } else { 0 });
    items
}

/// A position in a JSON text.
struct Parser<'a> {
    text: &'a str,
    /// The byte to be read next; always at the edge of a character.
    at: usize,
    /// The number of open containers.
    depth: usize,
}

/// A string of a line.
enum Text {
    /// A string that is text.
    Whole(String),
    /// A string with this lone surrogate, which no text can hold.
    Surrogate(u16),
}

impl Parser<'_> {
    /// Returns the error `what` with the position.
    fn error(&self, what: &str) -> String {
        let before = &self.text.as_bytes()[..self.at];
        match before.iter().rposition(|&byte| byte == b'\n') {
            None => format!("not JSON: {what} at column {}", self.at + 1),
            Some(newline) => {
                let line = 1 + memchr::memchr_iter(b'\n', before).count();
                format!("not JSON: {what} at column {} of its line {line}", self.at - newline)
            }
        }
    }

    /// Returns the next byte without moving past it.
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Moves past white space.
    fn skip_blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Moves past `word` if it comes next. Returns whether it does.
    fn take(&mut self, word: &str) -> bool {
        let found = self.text[self.at..].starts_with(word);
        self.at += if found { word.len() } else { 0 };
        found
    }

    /// Reads a value.
    fn value(&mut self) -> Result<Value, String> {
        match self.peek() {
            Some(b'"') => Ok(match self.string()? {
                Text::Whole(text) => Value::String(text),
                Text::Surrogate(unit) => lone_surrogate(unit),
            }),
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            None => Err(self.error("ends where a value is expected")),
            Some(_) if self.take("null") => Ok(Value::Null),
            Some(_) if self.take("true") => Ok(Value::Bool(true)),
            Some(_) if self.take("false") => Ok(Value::Bool(false)),
            Some(_) if NOT_FINITE.into_iter().any(|word| self.take(word)) => Ok(Value::Null),
            Some(_) => self.number(),
        }
    }

    /// Reads the rest of a container after its opening bracket, by `container`.
    fn nested(
        &mut self,
        container: impl Fn(&mut Self) -> Result<Value, String>,
    ) -> Result<Value, String> {
        if self.depth == MAX_DEPTH {
            return Err(self.error("recursion limit exceeded"));
        }
        self.depth += 1;
        self.at += 1;
        self.skip_blank();
        let value = container(self);
        self.depth -= 1;
        value
    }

    /// Moves past a comma or past `close`. Returns whether the container goes on.
    fn goes_on(&mut self, close: u8) -> Result<bool, String> {
        self.skip_blank();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                self.skip_blank();
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.error(&format!("expected `,` or `{}`", char::from(close)))),
        }
    }

    /// Reads the items of a list and its end.
    fn array(&mut self) -> Result<Value, String> {
        let mut items = Vec::new();
        self.items(|_, item| items.push(item))?;
        Ok(Value::Array(items))
    }

    /// Reads the items of a list and its end. Calls `each` with the place of each and its value.
    fn items(&mut self, mut each: impl FnMut(Range<usize>, Value)) -> Result<(), String> {
        if self.take("]") {
            return Ok(());
        }
        loop {
            let start = self.at;
            let value = self.value()?;
            each(start..self.at, value);
            if !self.goes_on(b']')? {
                return Ok(());
            }
        }
    }

    /// Reads the fields of an object and its end.
    ///
    /// No template can name a field whose name is no text. Such a field of the record itself is
    /// left out; further inside, it makes its object unreadable.
    fn object(&mut self) -> Result<Value, String> {
        let mut fields = Fields::new();
        let mut unreadable = None;
        self.fields(|name, _, value| match name {
            Text::Whole(name) => {
                fields.insert(name, value);
            }
            Text::Surrogate(unit) => unreadable = Some(lone_surrogate(unit)),
        })?;
        Ok(unreadable.filter(|_| self.depth > 1).unwrap_or(Value::Object(fields)))
    }

    /// Reads the fields of an object and its end. Calls `each` with each name, the place of its
    /// value, and the value.
    fn fields(&mut self, mut each: impl FnMut(Text, Range<usize>, Value)) -> Result<(), String> {
        if self.take("}") {
            return Ok(());
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.error("expected a field's name in quotes"));
            }
            let name = self.string()?;
            self.skip_blank();
            if !self.take(":") {
                return Err(self.error("expected `:`"));
            }
            self.skip_blank();
            let start = self.at;
            let value = self.value()?;
            each(name, start..self.at, value);
            if !self.goes_on(b'}')? {
                return Ok(());
            }
        }
    }

    /// Reads a string, from its opening quote on.
    fn string(&mut self) -> Result<Text, String> {
        self.at += 1;
        let mut out = String::new();
        let mut surrogate = None;
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
            let Some(len) = rest.iter().position(special) else {
                self.at = self.text.len();
                return Err(self.error("ends inside a string"));
            };
            out.push_str(&self.text[self.at..self.at + len]);
            self.at += len;
            match rest[len] {
                b'"' => break,
                b'\\' => match self.escape()? {
                    Ok(c) => out.push(c),
                    Err(unit) => surrogate = Some(unit),
                },
                _ => return Err(self.error("a control character inside a string")),
            }
        }
        self.at += 1;
        Ok(surrogate.map_or(Text::Whole(out), Text::Surrogate))
    }

    /// Reads an escape. Returns its character, or its lone surrogate.
    fn escape(&mut self) -> Result<Result<char, u16>, String> {
        let Some(kind) = self.text.as_bytes().get(self.at + 1) else {
            return Err(self.error("ends inside a string"));
        };
        let c = match kind {
            b'"' | b'\\' | b'/' => char::from(*kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(),
            _ => return Err(self.error("no such escape")),
        };
        self.at += 2;
        Ok(Ok(c))
    }

    /// Reads an escape `\u`, and a second one if both make one character.
    fn unicode_escape(&mut self) -> Result<Result<char, u16>, String> {
        let Some(first) = self.unit(self.at) else {
            return Err(self.error("`\\u` without four hexadecimal digits"));
        };
        self.at += 6;
        if let 0xd800..0xdc00 = first
            && let Some(second @ 0xdc00..0xe000) = self.unit(self.at)
        {
            self.at += 6;
            let point =
                0x1_0000 + ((u32::from(first) - 0xd800) << 10) + (u32::from(second) - 0xdc00);
            return Ok(char::from_u32(point).ok_or(first));
        }
        Ok(char::from_u32(u32::from(first)).ok_or(first))
    }

    /// Returns the code unit of the escape `\u` at `start`.
    fn unit(&self, start: usize) -> Option<u16> {
        let digits = self.text.as_bytes().get(start..start + 6)?.strip_prefix(b"\\u")?;
        digits
            .iter()
            .try_fold(0, |unit, &digit| Some(unit << 4 | char::from(digit).to_digit(16)? as u16))
    }

    /// Reads a number.
    fn number(&mut self) -> Result<Value, String> {
        let bytes = self.text.as_bytes();
        // Returns the end of the digits that start at `index`.
        let digits = |mut index: usize| {
            while bytes.get(index).is_some_and(u8::is_ascii_digit) {
                index += 1;
            }
            index
        };
        let start = self.at;
        let first = start + usize::from(self.peek() == Some(b'-'));
        // After a leading zero the number ends: more digits are trailing characters.
        let whole = if bytes.get(first) == Some(&b'0') { first + 1 } else { digits(first) };
        if whole == first {
            return Err(self.error("expected a value"));
        }
        // A point or an exponent without digits does not belong to the number, as in Python.
        let mut end = whole;
        if bytes.get(end) == Some(&b'.') && digits(end + 1) > end + 1 {
            end = digits(end + 1);
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            let exponent = end + 1 + sign;
            end = if digits(exponent) > exponent { digits(exponent) } else { end };
        }
        self.at = end;
        let text = &self.text[start..end];
        if end > whole {
            let float: f64 = text.parse().map_err(|_| self.error("a number that is none"))?;
            // `1e999` is infinite as a double.
            let is_finite = float.is_finite();
            return Ok(if is_finite { Value::Number(Number::Float(float)) } else { Value::Null });
        }
        Ok(Value::Number(text.parse().map_or_else(|_| Number::Big(text.to_owned()), Number::Int)))
    }
}

/// Returns the value of a string with a lone surrogate.
fn lone_surrogate(unit: u16) -> Value {
    Value::Unreadable(format!("holds \\u{unit:04x}, half a character (a lone surrogate)"))
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
