//! Reads a JSON array of objects, one record at a time, in bounded memory.
//!
//! An element begins at its first byte and ends at the comma or bracket outside of its own strings
//! and brackets. These bytes are an element even if they are not JSON, so that a malformed element
//! costs itself alone. A file whose array does not end is damaged, and refused.

use std::sync::Arc;

use super::nested::NestedReader;
use crate::error::{Error, Result};
use crate::read::content::{Content, newlines};
use crate::read::encoding::Encoding;
use crate::read::format::{Format, FormatOptions, Likeness};
use crate::read::head::Head;
use crate::read::json::Fields;
use crate::read::json_slots::fill_from_json;
use crate::read::lines::MAX_LINE;
use crate::read::needed::Needed;
use crate::read::record::{Detached, Reader, malformed, parse_element};
use crate::read::request::Request;
use crate::read::slots::{FieldTree, Slots};
use crate::schema::Refusal;

pub(super) struct JsonArray;

impl Format for JsonArray {
    fn name(&self) -> &'static str {
        "json"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &["json", "jsonl", "ndjson"]
    }

    fn sniff(&self, content: &[u8], options: &FormatOptions) -> Result<Likeness> {
        let mut bytes = content.iter().filter(|byte| !is_space(**byte));
        Ok(match (bytes.next(), bytes.next()) {
            // One object over many lines, or on one that is longer than what was read.
            (Some(b'{'), _) if options.records.is_some() && !begins_with_line(content) => {
                Likeness::Certain
            }
            (Some(b'['), Some(b'{')) => Likeness::Certain,
            (Some(b'['), _) => Likeness::Possible,
            _ => Likeness::None,
        })
    }

    /// A NUL costs its element only: JSON escapes it, so it is never part of a text.
    fn refuse(&self, head: &Head) -> Result<()> {
        head.refuse_encoded()
    }

    fn options(&self) -> &'static [&'static str] {
        &["records"]
    }

    fn cut<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[..Scan::until(b']').element(bytes).0]
    }

    fn described(&self, options: &FormatOptions) -> String {
        options.described("a JSON array")
    }

    fn open(&self, request: &Request<'_>) -> Result<Box<dyn Reader>> {
        if let Some(steps) = request.options.steps() {
            return NestedReader::of_file(request, steps);
        }
        let mut content = Content::open(request, 0)?;
        content.skip_bom()?;
        let mut elements = Elements::new(content);
        elements.begin_array()?;
        let (encoding, wanted) = (request.options.encoding, request.wanted.cloned());
        let needed = request.needed.clone();
        Ok(Box::new(ArrayReader { elements, wanted, needed, encoding }))
    }
}

/// Returns whether the first line of a content is an object of its own, and another follows.
fn begins_with_line(content: &[u8]) -> bool {
    let start = content.iter().take_while(|byte| is_space(**byte)).count();
    let content = &content[start..];
    let Some(end) = memchr::memchr(b'\n', content) else { return false };
    let is_followed = content[end..].iter().any(|byte| !is_space(*byte));
    is_followed && parse_element(&content[..end], None, Needed::all()).is_ok()
}

/// Returns whether a byte is white space between the tokens of JSON.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// A cursor over the elements, read as objects.
struct ArrayReader {
    elements: Elements,
    wanted: Option<Arc<FieldTree>>,
    needed: Needed,
    /// The encoding of the file, if it is not UTF-8.
    encoding: Option<Encoding>,
}

impl Reader for ArrayReader {
    fn advance(&mut self) -> Result<bool> {
        self.elements.advance()
    }

    fn offset(&self) -> u64 {
        self.elements.start
    }

    fn bytes(&self) -> usize {
        self.elements.bytes
    }

    fn fill<'a>(&'a self, slots: &mut Slots<'a>) -> bool {
        self.elements.element().is_some_and(|element| fill(self.wanted.as_ref(), element, slots))
    }

    fn fields(&self) -> std::result::Result<Fields, Refusal> {
        match self.elements.element() {
            Some(element) => parse_element(element, self.encoding, &self.needed),
            None => Err(malformed(format!("longer than {} MiB", MAX_LINE >> 20))),
        }
    }

    fn detach(&self) -> Box<dyn Detached> {
        match self.elements.element() {
            Some(bytes) => Box::new(Element {
                bytes: bytes.to_owned(),
                wanted: self.wanted.clone(),
                needed: self.needed.clone(),
                encoding: self.encoding,
            }),
            None => Box::new(self.fields()),
        }
    }
}

/// Fills the slots of the wanted fields of an element.
fn fill<'a>(wanted: Option<&Arc<FieldTree>>, bytes: &'a [u8], slots: &mut Slots<'a>) -> bool {
    wanted.is_some_and(|wanted| {
        std::str::from_utf8(bytes).is_ok_and(|text| fill_from_json(wanted, text, slots))
    })
}

/// An element apart from its file.
struct Element {
    bytes: Vec<u8>,
    wanted: Option<Arc<FieldTree>>,
    needed: Needed,
    encoding: Option<Encoding>,
}

impl Detached for Element {
    fn memory(&self) -> usize {
        self.bytes.len()
    }

    fn fill<'a>(&'a self, slots: &mut Slots<'a>) -> bool {
        fill(self.wanted.as_ref(), &self.bytes, slots)
    }

    fn fields(&self) -> std::result::Result<Fields, Refusal> {
        parse_element(&self.bytes, self.encoding, &self.needed)
    }
}

/// A cursor over the elements as bytes.
pub(super) struct Elements {
    content: Content,
    /// The line of the next unread byte, from 1.
    line: u64,
    /// The offset of the element at hand.
    start: u64,
    /// The length of the element in bytes.
    bytes: usize,
    /// The bytes of the element, if they are not too many.
    buffer: Vec<u8>,
    next: Next,
    /// The last byte of the element that is not white space.
    last: Option<u8>,
    /// Whether the array is inside of an object, which was read to its end before.
    is_inside: bool,
}

/// The next thing expected in the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The first element, or the end of an empty array.
    First,
    /// An element.
    Element,
    /// The end of the file, after white space.
    End,
}

impl Elements {
    /// Returns a cursor before the array.
    pub(super) fn new(content: Content) -> Self {
        let (buffer, next) = (Vec::new(), Next::First);
        Self { content, line: 1, start: 0, bytes: 0, buffer, next, last: None, is_inside: false }
    }

    /// Ends reading at the end of the array, whose first element is next.
    pub(super) fn ends_inside(&mut self) {
        self.is_inside = true;
    }

    /// Returns the offset of the element at hand.
    pub(super) fn offset(&self) -> u64 {
        self.start
    }

    /// Returns the length in bytes of the element at hand.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the last byte of the element at hand that is not white space, however long it is.
    pub(super) fn last_byte(&self) -> Option<u8> {
        self.last
    }

    /// Moves past the next byte, which was looked at.
    pub(super) fn consume(&mut self) {
        self.content.consume(1);
    }

    /// Returns the element at hand, unless it is too long.
    pub(super) fn element(&self) -> Option<&[u8]> {
        (self.bytes <= MAX_LINE).then_some(&self.buffer)
    }

    /// Moves past the bracket that opens the array.
    pub(super) fn begin_array(&mut self) -> Result<()> {
        match self.next_byte()? {
            Some(b'[') => {
                self.content.consume(1);
                Ok(())
            }
            Some(_) => Err(self.fault("is not a JSON array: it does not begin with `[`").remedy(
                "say format = \"jsonl\" in its source if each line is an object of its own",
            )),
            None => Err(self
                .fault("is not a JSON array: it is empty")
                .remedy("fetch the file again, or name another")),
        }
    }

    /// Goes to the next element. Returns `false` at the end of the array.
    pub(super) fn advance(&mut self) -> Result<bool> {
        if self.next == Next::End && self.is_inside {
            return Ok(false);
        }
        let first = self.next_byte()?;
        if self.next == Next::End {
            return match first {
                None => Ok(false),
                Some(_) => Err(self.fault("goes on after the end of its array").remedy(
                    "make one array of it, or write one object a line and say format = \"jsonl\"",
                )),
            };
        }
        if self.next == Next::First && first == Some(b']') {
            self.content.consume(1);
            self.next = Next::End;
            return self.advance();
        }
        // Between two commas there is an element of no bytes, which is malformed.
        self.read_element(b']')?;
        let end = self.next_byte()?;
        self.content.consume(1);
        self.next = if end == Some(b']') { Next::End } else { Next::Element };
        Ok(true)
    }

    /// Reads an element up to the comma or the byte `close` that ends it.
    pub(super) fn read_element(&mut self, close: u8) -> Result<()> {
        let line = self.line;
        (self.start, self.bytes) = (self.content.offset(), 0);
        self.last = None;
        self.buffer.clear();
        let mut scan = Scan::until(close);
        loop {
            let chunk = self.content.chunk()?;
            if chunk.is_empty() {
                return Err(self.unfinished().line(line));
            }
            let (len, is_whole) = scan.element(chunk);
            self.bytes += len;
            let last = chunk[..len].iter().rev().find(|byte| !is_space(**byte)).copied();
            self.last = last.or(self.last);
            if self.bytes <= MAX_LINE {
                self.buffer.extend_from_slice(&chunk[..len]);
            }
            self.line += newlines(&chunk[..len]);
            self.content.consume(len);
            if is_whole {
                return Ok(());
            }
        }
    }

    /// Returns the next byte that is not white space, without moving past it; `None` at the end of
    /// the file.
    pub(super) fn next_byte(&mut self) -> Result<Option<u8>> {
        loop {
            let chunk = self.content.chunk()?;
            let blank = chunk.iter().take_while(|byte| is_space(**byte)).count();
            let (next, is_end) = (chunk.get(blank).copied(), chunk.is_empty());
            self.line += newlines(&chunk[..blank]);
            self.content.consume(blank);
            if next.is_some() || is_end {
                return Ok(next);
            }
        }
    }

    /// Returns the error of a file that ends where the array should go on.
    pub(super) fn unfinished(&self) -> Error {
        let what = if self.bytes == 0 {
            "ends before its array does: it is truncated"
        } else {
            "ends before its array does: it is truncated, or a quote or a bracket of the element \
             that begins on this line is not closed"
        };
        self.content.fault(what).remedy("fetch the file again, or mend the element")
    }

    /// Returns an error about the current line.
    pub(super) fn fault(&self, what: &str) -> Error {
        self.content.fault(what).line(self.line)
    }
}

/// Finds the end of an element.
struct Scan {
    /// The byte that ends the container of the element.
    close: u8,
    /// The number of open brackets and braces.
    depth: usize,
    in_string: bool,
    /// Whether the next byte follows a backslash.
    is_escaped: bool,
}

impl Scan {
    /// Returns a search in an element of a container that `close` ends.
    fn until(close: u8) -> Self {
        Self { close, depth: 0, in_string: false, is_escaped: false }
    }

    /// Returns the number of bytes of `chunk` that belong to the element, and whether it ends after
    /// them.
    fn element(&mut self, chunk: &[u8]) -> (usize, bool) {
        let mut index = 0;
        while index < chunk.len() {
            if std::mem::take(&mut self.is_escaped) {
                index += 1;
                continue;
            }
            if self.in_string {
                // A string is passed over at the speed of memory, up to what can end it.
                let Some(len) = memchr::memchr2(b'"', b'\\', &chunk[index..]) else {
                    return (chunk.len(), false);
                };
                index += len;
                self.is_escaped = chunk[index] == b'\\';
                self.in_string = self.is_escaped;
                index += 1;
                continue;
            }
            match chunk[index] {
                b'"' => self.in_string = true,
                b'[' | b'{' => self.depth += 1,
                byte if self.depth == 0 && (byte == b',' || byte == self.close) => {
                    return (index, true);
                }
                // A brace too many is part of its element, which is malformed.
                b']' | b'}' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            index += 1;
        }
        (chunk.len(), false)
    }
}
