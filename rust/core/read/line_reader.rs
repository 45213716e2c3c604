//! `LineReader`: reads files of every format whose records are lines.

use super::encoding::Encoding;
use super::format::Request;
use super::json::Fields;
use super::lines::{Line, Lines, MAX_LINE};
use super::record::{Reader, malformed, utf8};
use super::slots::Slots;
use crate::error::Result;
use crate::schema::Refusal;

/// The way in which a format reads a line.
pub(super) trait LineFormat: Send {
    /// Returns whether the line separates records, rather than being one.
    fn is_blank(&self, line: &[u8]) -> bool;

    /// Fills the slots of the wanted fields. Returns `false` if the line is left to
    /// [`Self::fields`].
    fn fill<'a>(&self, text: &'a str, slots: &mut Slots<'a>) -> bool;

    /// Returns all fields, or the fault of the line in words.
    fn fields(&self, text: &str) -> std::result::Result<Fields, String>;

    /// Returns whether the line looks as if its quotes were not text.
    fn is_doubtful(&self, _line: &[u8]) -> bool {
        false
    }
}

/// A cursor over the lines of a range that are records.
pub(super) struct LineReader<F> {
    lines: Lines,
    format: F,
    /// Whether the first line is a header to pass over.
    skips_first: bool,
    /// The encoding of the file, if it is not UTF-8.
    encoding: Option<Encoding>,
}

impl<F: LineFormat + 'static> LineReader<F> {
    /// Opens the lines of `request`, without the first one if `skips_first`.
    pub(super) fn open(
        request: &Request<'_>,
        skips_first: bool,
        format: F,
    ) -> Result<Box<dyn Reader>> {
        let lines = Lines::open(request, request.range.clone())?;
        Ok(Box::new(Self { lines, format, skips_first, encoding: request.options.encoding }))
    }
}

impl<F: LineFormat> Reader for LineReader<F> {
    fn advance(&mut self) -> Result<bool> {
        while self.lines.step()? {
            let is_header = std::mem::take(&mut self.skips_first);
            let (_, line) = self.lines.current();
            let is_blank = || matches!(line, Line::Text(line) if self.format.is_blank(line));
            if !is_header && !is_blank() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn offset(&self) -> u64 {
        self.lines.current().0
    }

    fn bytes(&self) -> usize {
        match self.lines.current().1 {
            Line::Text(line) => line.len(),
            Line::TooLong => 0,
        }
    }

    fn fill<'a>(&'a self, slots: &mut Slots<'a>) -> bool {
        let Line::Text(line) = self.lines.current().1 else { return false };
        std::str::from_utf8(line).is_ok_and(|text| self.format.fill(text, slots))
    }

    fn fields(&self) -> std::result::Result<Fields, Refusal> {
        match self.lines.current().1 {
            Line::Text(line) => self.format.fields(utf8(line, self.encoding)?).map_err(malformed),
            Line::TooLong => Err(malformed(format!("longer than {} MiB", MAX_LINE >> 20))),
        }
    }

    fn is_doubtful(&self) -> bool {
        matches!(self.lines.current().1, Line::Text(line) if self.format.is_doubtful(line))
    }
}
