//! Reads quoted comma-separated values by RFC 4180: a field in quotes may hold delimiters, ends of
//! line, and quotes written twice. The first record names the columns, unless the source does.
//!
//! The `csv-core` crate finds the fields; a record without a quote is cut at its delimiters, as its
//! fields then are. A record is held in memory up to [`MAX_LINE`] bytes; the
//! rest of a longer record, such as the file after a quote that is never closed, is passed over.

use std::sync::Arc;

use csv_core::{ReadFieldResult, ReaderBuilder};

use crate::error::{Error, Result};
use crate::read::columns::Columns;
use crate::read::content::Content;
use crate::read::dialect::stated_delimiter;
use crate::read::encoding::{Encoding, NAME_ENCODING, not_text};
use crate::read::format::{Format, FormatOptions, Likeness};
use crate::read::json::{Fields, Value};
use crate::read::lines::MAX_LINE;
use crate::read::record::{Detached, Reader, malformed};
use crate::read::request::Request;
use crate::read::slots::Slots;
use crate::schema::Refusal;

/// The lines that a field may hold before they are looked at.
const MANY_LINES: usize = 20;

pub(super) struct Csv;

impl Format for Csv {
    fn name(&self) -> &'static str {
        "csv"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &["csv"]
    }

    fn sniff(&self, _: &[u8], _: &FormatOptions) -> Result<Likeness> {
        Ok(Likeness::Possible)
    }

    fn options(&self) -> &'static [&'static str] {
        &["columns", "header", "delimiter"]
    }

    fn cut<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let mut is_quoted = false;
        let is_end = |&byte: &u8| {
            is_quoted ^= byte == b'"';
            !is_quoted && matches!(byte, b'\r' | b'\n')
        };
        &bytes[..bytes.iter().position(is_end).unwrap_or(bytes.len())]
    }

    fn described(&self, options: &FormatOptions) -> String {
        options.described("quoted CSV")
    }

    fn open(&self, request: &Request<'_>) -> Result<Box<dyn Reader>> {
        let mut rows = Rows::open(request)?;
        let mut has_first = false;
        let (columns, skips_first) = Columns::resolve(request, true, || {
            has_first = rows.advance()?;
            rows.row.names()
        })?;
        rows.row.most_fields = columns.len();
        Ok(Box::new(CsvReader { rows, columns: Arc::new(columns), has_first, skips_first }))
    }
}

/// A cursor over the records, with the names of their fields.
struct CsvReader {
    rows: Rows,
    columns: Arc<Columns>,
    /// Whether the first record is read already.
    has_first: bool,
    skips_first: bool,
}

impl Reader for CsvReader {
    fn advance(&mut self) -> Result<bool> {
        let skips_first = std::mem::take(&mut self.skips_first);
        if std::mem::take(&mut self.has_first) {
            if !skips_first {
                return Ok(true);
            }
        } else if skips_first {
            self.rows.advance()?;
        }
        self.rows.advance()
    }

    fn offset(&self) -> u64 {
        self.rows.row.start
    }

    fn bytes(&self) -> usize {
        self.rows.row.bytes
    }

    fn fill<'a>(&'a self, slots: &mut Slots<'a>) -> bool {
        self.rows.row.fill(&self.columns, slots)
    }

    fn fields(&self) -> std::result::Result<Fields, Refusal> {
        self.rows.row.named(&self.columns)
    }

    fn is_doubtful(&self) -> bool {
        let row = &self.rows.row;
        row.flaw.is_some()
            || row.has_stray_text
            || row.swallows(self.rows.delimiter, self.columns.len())
    }

    fn detach(&self) -> Box<dyn Detached> {
        Box::new(OneRow { row: self.rows.row.copied(), columns: Arc::clone(&self.columns) })
    }
}

/// A record apart from its file.
struct OneRow {
    row: Row,
    columns: Arc<Columns>,
}

impl Detached for OneRow {
    fn memory(&self) -> usize {
        self.row.data.len()
    }

    fn fill<'a>(&'a self, slots: &mut Slots<'a>) -> bool {
        self.row.fill(&self.columns, slots)
    }

    fn fields(&self) -> std::result::Result<Fields, Refusal> {
        self.row.named(&self.columns)
    }
}

/// A cursor over records without names.
struct Rows {
    content: Content,
    delimiter: u8,
    parser: csv_core::Reader,
    row: Row,
}

/// A record.
#[derive(Default)]
struct Row {
    start: u64,
    /// Bytes of the record in the content.
    bytes: usize,
    /// The fields, unquoted, one after another in the first `filled` bytes.
    data: Vec<u8>,
    filled: usize,
    /// The bytes between two fields in `data`.
    gap: usize,
    /// Where fields end in `data`; of at most `most_fields`.
    ends: Vec<usize>,
    most_fields: usize,
    /// Fields of the record.
    count: usize,
    /// The line on which the field at hand begins.
    line: u64,
    /// Whether the field at hand begins with a quote, once that is read.
    is_quoted: Option<bool>,
    /// The quotes that were read of the field at hand, and its last byte.
    quotes: usize,
    last: u8,
    /// Whether a field goes on after the quote that closes it: `"a"b`, whose quotes are lost.
    has_stray_text: bool,
    /// What is wrong with the record as a whole.
    flaw: Option<String>,
    /// The encoding of the file, if it is not UTF-8.
    encoding: Option<Encoding>,
}

impl Rows {
    /// Opens the records of a file.
    fn open(request: &Request<'_>) -> Result<Self> {
        let delimiter = request.options.delimiter.as_ref().map_or(b',', |text| text.as_bytes()[0]);
        let mut content = Content::open(request, 0)?;
        content.skip_bom()?;
        let stated = stated_delimiter(content.chunk()?);
        content.consume(stated.map_or(0, |(_, len)| len));
        let mut parser = ReaderBuilder::new().delimiter(delimiter).build();
        // A parser that has read something looks for no second byte order mark.
        parser.read_field(b"\n", &mut [0]);
        parser.set_line(1 + u64::from(stated.is_some()));
        Ok(Self {
            content,
            delimiter,
            parser,
            row: Row {
                data: vec![0; 1 << 12],
                most_fields: usize::MAX,
                encoding: request.options.encoding,
                ..Row::default()
            },
        })
    }

    /// Goes to the next record. Returns `false` after the last record. Empty lines are no records.
    /// A byte order mark before a record shows where files were put together.
    fn advance(&mut self) -> Result<bool> {
        if !self.skip_line_ends()? {
            return Ok(false);
        }
        self.content.skip_bom()?;
        if !self.skip_line_ends()? {
            return Ok(false);
        }
        self.row.begin(self.content.offset(), self.parser.line());
        let chunk = self.content.chunk()?;
        if let Some(len) = self.row.read_unquoted(chunk, self.delimiter) {
            // The parser counts lines, and has not seen this one.
            self.parser.set_line(self.parser.line() + u64::from(chunk[len - 1] == b'\n'));
            self.content.consume(len);
            return Ok(true);
        }
        loop {
            let chunk = self.content.chunk()?;
            if chunk.is_empty() {
                self.row.end_of_file(&mut self.parser);
                return Ok(true);
            }
            let (len, is_whole) = self.row.read(&mut self.parser, chunk);
            self.content.consume(len);
            if is_whole {
                return Ok(true);
            }
        }
    }

    /// Moves past ends of line. Returns `false` at the end of the file.
    fn skip_line_ends(&mut self) -> Result<bool> {
        loop {
            let chunk = self.content.chunk()?;
            let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
            let len = chunk.iter().take_while(|byte| is_end(byte)).count();
            let (has_more, is_empty) = (len < chunk.len(), chunk.is_empty());
            if len > 0 {
                // The parser counts lines.
                self.parser.read_field(&chunk[..len], &mut [0]);
                self.content.consume(len);
            }
            if has_more || is_empty {
                return Ok(has_more);
            }
        }
    }
}

impl Row {
    /// Begins a record at the byte `start`, on `line`.
    fn begin(&mut self, start: u64, line: u64) {
        (self.start, self.line, self.is_quoted) = (start, line, None);
        (self.bytes, self.filled, self.gap, self.count) = (0, 0, 0, 0);
        self.ends.clear();
        (self.quotes, self.last, self.has_stray_text) = (0, 0, false);
        self.flaw = None;
    }

    /// Reads a record that `chunk` holds whole and without a quote. Returns the number of bytes
    /// read; `None` for any other record, of which nothing is read.
    fn read_unquoted(&mut self, chunk: &[u8], delimiter: u8) -> Option<usize> {
        let len = memchr::memchr3(b'\n', b'\r', b'"', chunk)?;
        if chunk[len] == b'"' || len >= MAX_LINE {
            return None;
        }
        let line = &chunk[..len];
        if self.data.len() < len {
            self.data.resize(len, 0);
        }
        self.data[..len].copy_from_slice(line);
        for end in memchr::memchr_iter(delimiter, line).chain([len]) {
            if self.ends.len() < self.most_fields {
                self.ends.push(end);
            }
            self.count += 1;
        }
        (self.filled, self.gap, self.bytes) = (len, 1, len + 1);
        Some(len + 1)
    }

    /// Adds the fields of `chunk` up to the end of the record. Returns the number of bytes read,
    /// and whether the record ends with them.
    fn read(&mut self, parser: &mut csv_core::Reader, chunk: &[u8]) -> (usize, bool) {
        let mut read = 0;
        while read < chunk.len() {
            self.is_quoted.get_or_insert(chunk[read] == b'"');
            let (result, len, filled) =
                parser.read_field(&chunk[read..], &mut self.data[self.filled..]);
            let raw = &chunk[read..read + len];
            read += len;
            self.bytes += len;
            self.filled += filled;
            self.note_quotes(raw, matches!(result, ReadFieldResult::Field { .. }));
            match result {
                // The rest of a record that is too long overwrites its start.
                ReadFieldResult::OutputFull if self.flaw.is_some() => self.filled = 0,
                ReadFieldResult::OutputFull => self.data.resize(self.data.len() * 2, 0),
                ReadFieldResult::InputEmpty => {}
                ReadFieldResult::Field { record_end } => {
                    self.end_field(parser.line());
                    if record_end {
                        return (read, true);
                    }
                }
                ReadFieldResult::End => return (read, true),
            }
            if self.bytes > MAX_LINE && self.flaw.is_none() {
                self.flaw = Some(self.too_long());
            }
        }
        (read, false)
    }

    /// Notes the quotes of `raw`, bytes of the field at hand; of its end if `is_end`, with what ends
    /// it.
    fn note_quotes(&mut self, raw: &[u8], is_end: bool) {
        if self.is_quoted != Some(true) || self.flaw.is_some() {
            return;
        }
        let content = if is_end { &raw[..raw.len().saturating_sub(1)] } else { raw };
        self.quotes += memchr::memchr_iter(b'"', content).count();
        self.last = content.last().copied().unwrap_or(self.last);
        if is_end {
            // All quotes are the two around the field, and two for each in it.
            let start = if self.ends.len() == self.count {
                self.ends.last().copied().unwrap_or(0)
            } else {
                return;
            };
            let within = memchr::memchr_iter(b'"', &self.data[start..self.filled]).count();
            self.has_stray_text |= self.last != b'"' || self.quotes != 2 + 2 * within;
            (self.quotes, self.last) = (0, 0);
        }
    }

    /// Ends a field. The next field begins on `line`.
    fn end_field(&mut self, line: u64) {
        if self.ends.len() < self.most_fields && self.flaw.is_none() {
            self.ends.push(self.filled);
        }
        self.count += 1;
        (self.line, self.is_quoted) = (line, None);
    }

    /// Ends a record at the end of the file.
    fn end_of_file(&mut self, parser: &mut csv_core::Reader) {
        // Inside of quotes, an end of line is part of the field.
        let (result, _, _) = parser.read_field(b"\n", &mut [0; 2]);
        if result == ReadFieldResult::InputEmpty {
            self.flaw = Some(format!(
                "the quote that opens on line {} is not closed by the end of the file",
                self.line
            ));
        }
        self.end_field(self.line);
    }

    /// Returns the fault of a record that is too long.
    fn too_long(&self) -> String {
        let what = format!("longer than {} MiB", MAX_LINE >> 20);
        if self.is_quoted == Some(true) {
            format!("{what}: the quote that opens on line {} closes late or never", self.line)
        } else {
            what
        }
    }

    /// Returns all fields as one text; `None` if any field is not text.
    fn text(&self) -> Option<&str> {
        let text = std::str::from_utf8(&self.data[..self.filled]).ok()?;
        // Halves of a character in two fields are text only together.
        self.ends.iter().all(|&end| text.is_char_boundary(end)).then_some(text)
    }

    /// Returns the fields, cut out of the text of all fields.
    fn fields<'a>(&self, text: &'a str) -> impl Iterator<Item = &'a str> {
        let (mut start, gap) = (0, self.gap);
        self.ends.iter().map(move |&end| &text[std::mem::replace(&mut start, end + gap)..end])
    }

    /// Fills the slots of the wanted columns. Returns `false` for a record that breaks its format.
    fn fill<'a>(&'a self, columns: &Columns, slots: &mut Slots<'a>) -> bool {
        self.flaw.is_none()
            && self.count == self.ends.len()
            && self.text().is_some_and(|text| columns.fill(self.fields(text), slots))
    }

    /// Returns the fields by name. Refuses a record that breaks its format.
    fn named(&self, columns: &Columns) -> std::result::Result<Fields, Refusal> {
        if let Some(flaw) = &self.flaw {
            return Err(malformed(flaw.clone()));
        }
        // Of a record with too many fields, some were passed over: their number is the fault.
        if self.count > self.ends.len() {
            return columns.fields(self.count, std::iter::empty()).map_err(malformed);
        }
        let text = self.text().ok_or_else(|| malformed(self.not_utf8()))?;
        columns.fields(self.count, self.fields(text).map(Value::from)).map_err(malformed)
    }

    /// Returns the record in a buffer of its own.
    fn copied(&self) -> Self {
        let (data, ends, flaw) =
            (self.data[..self.filled].to_owned(), self.ends.clone(), self.flaw.clone());
        Self { data, ends, flaw, ..*self }
    }

    /// Returns the fault of a record with a field that is not text.
    fn not_utf8(&self) -> String {
        let mut start = 0;
        for (nth, &end) in self.ends.iter().enumerate() {
            let field = &self.data[std::mem::replace(&mut start, end + self.gap)..end];
            if std::str::from_utf8(field).is_err() {
                return format!("field {} is {}", nth + 1, not_text(field, self.encoding, "its "));
            }
        }
        "not UTF-8".to_owned()
    }

    /// Returns whether a field holds many lines, most of which look like records of `columns`
    /// fields: a quote that should be text opens it, and the next such quote closes it.
    fn swallows(&self, delimiter: u8, columns: usize) -> bool {
        let data = &self.data[..self.filled];
        if columns < 2 || memchr::memchr_iter(b'\n', data).nth(MANY_LINES).is_none() {
            return false;
        }
        let mut start = 0;
        self.ends.iter().any(|&end| {
            let field = &data[std::mem::replace(&mut start, end)..end];
            let lines = field.split(|byte| *byte == b'\n');
            let (mut count, mut alike) = (0, 0);
            for line in lines {
                count += 1;
                let width = 1 + memchr::memchr_iter(delimiter, line).count();
                alike += usize::from(width == columns);
            }
            count > MANY_LINES && alike * 2 > count
        })
    }

    /// Returns the fields of a header.
    fn names(&self) -> Result<Vec<String>> {
        let header = |what: &str| Error::input(format!("the header: {what}")).line(1);
        match (&self.flaw, self.text()) {
            (Some(flaw), _) => Err(header(flaw)),
            (None, None) => Err(header(&self.not_utf8()).remedy(NAME_ENCODING)),
            (None, Some(text)) => Ok(self.fields(text).map(str::to_owned).collect()),
        }
    }
}
