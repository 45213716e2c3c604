//! The parser of JSON behind [`parse_object`](super::json::parse_object): it builds as many values as
//! there is [`Room`] for, and passes over the others just as strictly.

use super::json::{Fields, Number, Value};
use super::needed::{Kinds, Needed, Room};

/// The deepest nesting of containers; a deeper line is malformed.
const MAX_DEPTH: usize = 127;

/// Words that programs write for numbers that are not finite.
const NOT_FINITE: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// A position in a JSON text.
pub(super) struct Parser<'a> {
    text: &'a str,
    /// The byte to be read next; always at the edge of a character.
    at: usize,
    /// The number of open containers.
    depth: usize,
    /// The fields of the record that are needed.
    needed: &'a Needed,
    room: &'a mut Room,
}

/// A string of a line.
pub(super) enum Text {
    /// A string that is text.
    Whole(String),
    /// A string with this lone surrogate, which no text can hold.
    Surrogate(u16),
}

impl<'a> Parser<'a> {
    /// Returns the start of `text`, of which the `needed` fields are built as far as there is `room`.
    pub(super) fn new(text: &'a str, needed: &'a Needed, room: &'a mut Room) -> Self {
        Self { text, at: 0, depth: 0, needed, room }
    }

    /// Returns the parser of the value of a field.
    pub(super) fn inside(self) -> Self {
        Self { depth: 1, ..self }
    }

    /// Returns the place of the byte to be read next.
    pub(super) fn place(&self) -> usize {
        self.at
    }

    /// Reads a value that is the whole text.
    pub(super) fn whole(&mut self) -> Result<Value, String> {
        self.skip_blank();
        let value = self.value()?;
        self.end()?;
        Ok(value)
    }

    /// Moves past the bracket of a container.
    pub(super) fn open(&mut self) {
        self.depth += 1;
        self.at += 1;
        self.skip_blank();
    }

    /// Refuses text after the value.
    pub(super) fn end(&mut self) -> Result<(), String> {
        self.skip_blank();
        if self.at < self.text.len() { Err(self.error("trailing characters")) } else { Ok(()) }
    }

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
    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Moves past white space.
    pub(super) fn skip_blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Moves past `word` if it comes next. Returns whether it does.
    pub(super) fn take(&mut self, word: &str) -> bool {
        let found = self.text[self.at..].starts_with(word);
        self.at += if found { word.len() } else { 0 };
        found
    }

    /// Reads a value.
    pub(super) fn value(&mut self) -> Result<Value, String> {
        match self.peek() {
            Some(b'"') => Ok(match self.string()? {
                Text::Whole(text) => {
                    self.room.note(Kinds { has_empty: text.is_empty(), ..Kinds::default() });
                    Value::String(text)
                }
                Text::Surrogate(unit) => lone_surrogate(unit),
            }),
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            None => Err(self.error("ends where a value is expected")),
            Some(_) if self.take("null") => Ok(Value::Null),
            Some(_) if self.take("true") => Ok(self.counted(Value::Bool(true))),
            Some(_) if self.take("false") => Ok(self.counted(Value::Bool(false))),
            Some(_) if NOT_FINITE.into_iter().any(|word| self.take(word)) => Ok(Value::Null),
            Some(_) => self.number().map(|number| self.counted(number)),
        }
    }

    /// Returns a number or a truth value, which the room of the record knows of from then on.
    fn counted(&mut self, value: Value) -> Value {
        self.room.note(Kinds { has_number: !value.is_null(), ..Kinds::default() });
        value
    }

    /// Reads the rest of a container after its opening bracket, by `container`.
    fn nested(
        &mut self,
        container: impl Fn(&mut Self) -> Result<Value, String>,
    ) -> Result<Value, String> {
        if self.depth == MAX_DEPTH {
            return Err(self.error("recursion limit exceeded"));
        }
        self.open();
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
        if self.take("]") {
            return Ok(Value::Array(items));
        }
        loop {
            let begun = self.room.begin()?;
            let item = self.value()?;
            if self.room.keeps(&begun) {
                items.push(item);
            }
            if !self.goes_on(b']')? {
                return Ok(Value::Array(items));
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
        let is_record = self.depth == 1;
        self.fields(|parser, name| {
            if is_record {
                let needed = parser.needed;
                parser.room.enter(matches!(&name, Text::Whole(name) if needed.has(name)));
            }
            let begun = parser.room.begin()?;
            let value = parser.value()?;
            let is_kept = parser.room.keeps(&begun);
            match name {
                Text::Whole(name) if is_kept => _ = fields.insert(name, value),
                Text::Whole(_) => {}
                Text::Surrogate(unit) => unreadable = Some(lone_surrogate(unit)),
            }
            Ok(())
        })?;
        Ok(unreadable.filter(|_| !is_record).unwrap_or(Value::Object(fields)))
    }

    /// Reads the fields of an object and its end. Calls `each` with each name, before its value,
    /// which `each` is to read.
    pub(super) fn fields(
        &mut self,
        mut each: impl FnMut(&mut Self, Text) -> Result<(), String>,
    ) -> Result<(), String> {
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
            each(self, name)?;
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
