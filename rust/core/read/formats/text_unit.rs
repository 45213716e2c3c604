//! Reads plain text whose records are paragraphs or whole files: lines put together, in the field
//! `text`.
//!
//! A record is held in memory up to [`MAX_LINE`] bytes; the rest of a longer one is passed over.

use crate::error::Result;
use crate::read::columns::Columns;
use crate::read::encoding::Encoding;
use crate::read::format::TextUnit;
use crate::read::json::{Fields, Value};
use crate::read::lines::{Line, Lines, MAX_LINE};
use crate::read::record::{Reader, malformed, utf8};
use crate::read::request::Request;
use crate::read::slots::Slots;
use crate::schema::Refusal;

/// A cursor over records of several lines.
pub(super) struct UnitReader {
    lines: Lines,
    columns: Columns,
    unit: TextUnit,
    /// The encoding of the file, if it is not UTF-8.
    encoding: Option<Encoding>,
    /// The offset of the record's first line.
    start: u64,
    /// The lines of the record with `\n` between them, if they are not too many.
    buffer: Vec<u8>,
    /// The bytes of the record, those that are passed over included.
    bytes: usize,
}

impl UnitReader {
    /// Opens the records of a file. Their text goes to the one column of `columns`.
    pub(super) fn open(
        request: &Request<'_>,
        columns: Columns,
        unit: TextUnit,
    ) -> Result<Box<dyn Reader>> {
        let lines = Lines::open(request, 0..u64::MAX)?;
        let (encoding, buffer) = (request.options.encoding, Vec::new());
        Ok(Box::new(Self { lines, columns, unit, encoding, start: 0, buffer, bytes: 0 }))
    }

    /// Returns the text of the record, unless it is too long.
    fn text(&self) -> Option<&[u8]> {
        (self.bytes <= MAX_LINE).then_some(&self.buffer)
    }
}

impl Reader for UnitReader {
    /// Blank lines before and after a record are no part of it.
    fn advance(&mut self) -> Result<bool> {
        self.buffer.clear();
        self.bytes = 0;
        // The bytes up to the end of the line at hand, and those of them in the buffer that count.
        let (mut read, mut kept, mut has_any) = (0_usize, 0, false);
        while self.lines.step()? {
            let (start, line) = self.lines.current();
            let is_blank = matches!(line, Line::Text(line) if is_blank(line));
            if is_blank && (!has_any || self.unit == TextUnit::Paragraph) {
                if has_any {
                    break;
                }
                continue;
            }
            if has_any {
                read = read.saturating_add(1);
                if read <= MAX_LINE {
                    self.buffer.push(b'\n');
                }
            } else {
                (has_any, self.start) = (true, start);
            }
            match line {
                Line::Text(line) => {
                    read = read.saturating_add(line.len());
                    if read <= MAX_LINE {
                        self.buffer.extend_from_slice(line);
                    }
                }
                Line::TooLong => read = read.saturating_add(MAX_LINE + 1),
            }
            if !is_blank {
                (self.bytes, kept) = (read, self.buffer.len());
            }
        }
        self.buffer.truncate(kept);
        Ok(has_any)
    }

    fn offset(&self) -> u64 {
        self.start
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn fill<'a>(&'a self, slots: &mut Slots<'a>) -> bool {
        let text = self.text().and_then(|text| std::str::from_utf8(text).ok());
        text.is_some_and(|text| self.columns.fill(std::iter::once(text), slots))
    }

    fn fields(&self) -> std::result::Result<Fields, Refusal> {
        let Some(text) = self.text() else {
            return Err(malformed(format!("longer than {} MiB", MAX_LINE >> 20)));
        };
        let text = std::iter::once(Value::from(utf8(text, self.encoding)?));
        self.columns.fields(1, text).map_err(malformed)
    }
}

/// Returns whether a line is of white space alone.
pub(super) fn is_blank(line: &[u8]) -> bool {
    std::str::from_utf8(line).is_ok_and(|text| text.trim().is_empty())
}
