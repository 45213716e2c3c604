//! `Lines`: the lines of a byte range, each with its offset. A line belongs to the range its first byte lies in.

use std::io::{self, BufRead};
use std::path::Path;

use crate::error::Result;
use crate::files::{BOM, open_content, unreadable};

/// Longer lines are not records; they are passed over in bounded memory. (A tokenizer takes some 30 bytes a byte.)
pub const MAX_LINE: usize = 16 << 20;

/// One line, without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// Its bytes, without `\n` or `\r\n`.
    Text(&'a [u8]),
    /// It is longer than [`MAX_LINE`].
    TooLong,
}

/// A cursor over lines.
pub struct Lines {
    reader: Box<dyn BufRead + Send>,
    path: std::path::PathBuf,
    /// Offset of the next unread byte.
    offset: u64,
    end: u64,
    /// Offset of the current line.
    start: u64,
    /// Whether the current line is in the buffer.
    fits: bool,
    buffer: Vec<u8>,
}

impl Lines {
    /// The lines of `path` that start in `start..end`.
    pub fn open(path: &Path, start: u64, end: u64) -> Result<Self> {
        // A line starts at `start` only if the byte before is an end of line: read from there and drop that line.
        let from = start.saturating_sub(1);
        let reader = open_content(path, from)?;
        let path = path.to_owned();
        let mut lines = Self { reader, path, offset: from, end, start: from, fits: false, buffer: Vec::new() };
        if start > 0 {
            lines.fill()?;
        }
        Ok(lines)
    }

    /// Goes to the next line; `false` after the last one that starts in the range.
    pub fn step(&mut self) -> Result<bool> {
        self.start = self.offset;
        if self.start >= self.end {
            return Ok(false);
        }
        let fits = self.fill()?;
        self.fits = fits == Some(true);
        Ok(fits.is_some())
    }

    /// The line gone to, with the offset of its first byte.
    #[must_use]
    pub fn current(&self) -> (u64, Line<'_>) {
        if !self.fits {
            return (self.start, Line::TooLong);
        }
        let mut line = self.buffer.as_slice();
        line = line.strip_suffix(b"\n").map_or(line, |line| line.strip_suffix(b"\r").unwrap_or(line));
        if self.start == 0 {
            line = line.strip_prefix(BOM).unwrap_or(line);
        }
        (self.start, Line::Text(line))
    }

    /// Reads one line with its end into the buffer: `None` at the end of the input, `false` if it is too long.
    fn fill(&mut self) -> Result<Option<bool>> {
        self.buffer.clear();
        let (mut fits, mut read) = (true, 0);
        loop {
            let chunk = match self.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreadable(&self.path, self.offset, &error)),
            };
            let newline = memchr::memchr(b'\n', chunk);
            let len = newline.map_or(chunk.len(), |at| at + 1);
            fits &= self.buffer.len() + len <= MAX_LINE;
            if fits {
                self.buffer.extend_from_slice(&chunk[..len]);
            }
            self.reader.consume(len);
            read += len as u64;
            if newline.is_some() || len == 0 {
                break;
            }
        }
        self.offset += read;
        Ok((read > 0).then_some(fits))
    }
}
