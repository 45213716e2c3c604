//! `LineReader`: reads files of every format whose records are lines.

use std::sync::Arc;

use super::encoding::Encoding;
use super::json::Fields;
use super::lines::{Line, Lines, MAX_LINE};
use super::record::{Detached, Reader, malformed, utf8};
use super::request::Request;
use super::slots::Slots;
use crate::error::Result;
use crate::schema::Refusal;

/// The way in which a format reads a line.
pub(super) trait LineFormat: Send + Sync {
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
    format: Arc<F>,
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
        let encoding = request.options.encoding;
        Ok(Box::new(Self { lines, format: Arc::new(format), skips_first, encoding }))
    }
}

impl<F: LineFormat + 'static> Reader for LineReader<F> {
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
        match self.lines.current().1 {
            Line::Text(line) => fill(&*self.format, line, slots),
            Line::TooLong => false,
        }
    }

    fn fields(&self) -> std::result::Result<Fields, Refusal> {
        match self.lines.current().1 {
            Line::Text(line) => fields(&*self.format, line, self.encoding),
            Line::TooLong => Err(malformed(format!("longer than {} MiB", MAX_LINE >> 20))),
        }
    }

    fn is_doubtful(&self) -> bool {
        matches!(self.lines.current().1, Line::Text(line) if self.format.is_doubtful(line))
    }

    fn detach(&self) -> Box<dyn Detached> {
        match self.lines.current().1 {
            Line::Text(line) => {
                let (line, format) = (line.to_owned(), Arc::clone(&self.format));
                Box::new(OneLine { line, format, encoding: self.encoding })
            }
            Line::TooLong => Box::new(self.fields()),
        }
    }
}

/// Fills the slots of the wanted fields of a line.
fn fill<'a>(format: &impl LineFormat, line: &'a [u8], slots: &mut Slots<'a>) -> bool {
    std::str::from_utf8(line).is_ok_and(|text| format.fill(text, slots))
}

/// Returns all fields of a line.
fn fields(
    format: &impl LineFormat,
    line: &[u8],
    encoding: Option<Encoding>,
) -> std::result::Result<Fields, Refusal> {
    format.fields(utf8(line, encoding)?).map_err(malformed)
}

/// A line apart from its file.
struct OneLine<F> {
    line: Vec<u8>,
    format: Arc<F>,
    encoding: Option<Encoding>,
}

impl<F: LineFormat> Detached for OneLine<F> {
    fn memory(&self) -> usize {
        self.line.len()
    }

    fn fill<'a>(&'a self, slots: &mut Slots<'a>) -> bool {
        fill(&*self.format, &self.line, slots)
    }

    fn fields(&self) -> std::result::Result<Fields, Refusal> {
        fields(&*self.format, &self.line, self.encoding)
    }
}
