//! `Lines`: the lines of a byte range, each with its offset. A line belongs to the range its first byte lies in.

use std::io::{self, BufRead};
use std::path::Path;

use crate::error::Result;
use crate::files::{BOM, open_content, unreadable};

/// Longer lines are not records; they are passed over in bounded memory. (A tokenizer takes some 30 bytes a byte.)
pub const MAX_LINE: usize = 16 << 20;

/// One line, without its end.
#[derive(Debug, PartialEq, Eq)]
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
    buffer: Vec<u8>,
}

impl Lines {
    /// The lines of `path` that start in `start..end`.
    pub fn open(path: &Path, start: u64, end: u64) -> Result<Self> {
        // A line starts at `start` only if the byte before is an end of line: read from there and drop that line.
        let from = start.saturating_sub(1);
        let mut lines =
            Self { reader: open_content(path, from)?, path: path.to_owned(), offset: from, end, buffer: Vec::new() };
        if start > 0 {
            lines.fill()?;
        }
        Ok(lines)
    }

    /// The next line with the offset of its first byte, or `None` after the last one that starts in the range.
    pub fn advance(&mut self) -> Result<Option<(u64, Line<'_>)>> {
        let offset = self.offset;
        if offset >= self.end {
            return Ok(None);
        }
        let Some(fits) = self.fill()? else { return Ok(None) };
        if !fits {
            return Ok(Some((offset, Line::TooLong)));
        }
        let mut line = self.buffer.as_slice();
        line = line.strip_suffix(b"\n").map_or(line, |line| line.strip_suffix(b"\r").unwrap_or(line));
        if offset == 0 {
            line = line.strip_prefix(BOM).unwrap_or(line);
        }
        Ok(Some((offset, Line::Text(line))))
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
