//! `Lines`: the lines of a byte range, each with its offset. A line belongs to the range in which
//! its first byte lies.

use std::io::BufRead;
use std::ops::Range;
use std::path::Path;

use super::content::Content;
use super::request::Request;
use crate::error::Result;
use crate::storage::{BOM, Storage, unreadable};

/// The longest line that is a record; longer lines are passed over in bounded memory. (A tokenizer
/// takes some 30 bytes of memory for each byte.)
pub(crate) const MAX_LINE: usize = 16 << 20;

/// One line, without its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// The bytes of the line, without `\n` or `\r\n`.
    Text(&'a [u8]),
    /// A line longer than [`MAX_LINE`].
    TooLong,
}

/// A cursor over lines.
pub(crate) struct Lines {
    content: Content,
    /// The end of the range in which lines start.
    end: u64,
    /// The offset of the current line.
    start: u64,
    /// Whether the current line is in the buffer.
    fits: bool,
    buffer: Vec<u8>,
}

impl Lines {
    /// Opens the lines of the file of `request` that start in `range`. Reading ends with an error
    /// once the job is to stop.
    pub(super) fn open(request: &Request<'_>, range: Range<u64>) -> Result<Self> {
        let Range { start, end } = range;
        // A line starts at `start` only if the byte before is an end of line: read from there and
        // drop that line.
        let from = start.saturating_sub(1);
        let content = Content::open(request, from)?;
        let mut lines = Self { content, end, start: from, fits: false, buffer: Vec::new() };
        if start > 0 {
            lines.skip()?;
        }
        Ok(lines)
    }

    /// Goes to the next line. Returns `false` after the last line that starts in the range.
    pub(crate) fn step(&mut self) -> Result<bool> {
        self.start = self.content.offset();
        if self.start >= self.end {
            return Ok(false);
        }
        let fits = self.fill()?;
        self.fits = fits == Some(true);
        Ok(fits.is_some())
    }

    /// Returns the current line, with the offset of its first byte. A byte order mark at its start
    /// is no part of it: in the middle of a file it shows where files were put together.
    #[must_use]
    pub(crate) fn current(&self) -> (u64, Line<'_>) {
        if !self.fits {
            return (self.start, Line::TooLong);
        }
        let mut line = self.buffer.as_slice();
        line =
            line.strip_suffix(b"\n").map_or(line, |line| line.strip_suffix(b"\r").unwrap_or(line));
        (self.start, Line::Text(line.strip_prefix(BOM).unwrap_or(line)))
    }

    /// Passes over the rest of a line, no further than the end of the range: after that no line
    /// starts in the range.
    fn skip(&mut self) -> Result<()> {
        while self.content.offset() < self.end {
            let (len, ended) = self.read(|_| {})?;
            if ended || len == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Reads one line with its end into the buffer. Returns whether the line fits; `None` at the
    /// end of the input. A line that is too long is read up to the end of the range at most.
    fn fill(&mut self) -> Result<Option<bool>> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let (mut fits, start) = (true, self.content.offset());
        while fits || self.content.offset() < self.end {
            let (len, ended) = self.read(|piece| {
                fits &= buffer.len() + piece.len() <= MAX_LINE;
                if fits {
                    buffer.extend_from_slice(piece);
                }
            })?;
            if ended || len == 0 {
                break;
            }
        }
        self.buffer = buffer;
        Ok((self.content.offset() > start).then_some(fits))
    }

    /// Gives the next bytes of the current line to `take`. Returns their number, and whether the
    /// line ends with them.
    fn read(&mut self, take: impl FnOnce(&[u8])) -> Result<(usize, bool)> {
        let chunk = self.content.chunk()?;
        let newline = memchr::memchr(b'\n', chunk);
        let len = newline.map_or(chunk.len(), |index| index + 1);
        take(&chunk[..len]);
        self.content.consume(len);
        Ok((len, newline.is_some()))
    }
}

/// Returns the number of lines of a file; `None` if it has more than `most` bytes of content.
pub(crate) fn count_lines(storage: &dyn Storage, path: &Path, most: u64) -> Result<Option<u64>> {
    let mut content = storage.open_content(path, 0)?;
    let (mut lines, mut read, mut is_open) = (0, 0, false);
    loop {
        let bytes = content.fill_buf().map_err(|error| unreadable(path, read, &error))?;
        let len = bytes.len();
        if len == 0 {
            // A last line may lack its end.
            return Ok(Some(lines + u64::from(is_open)));
        }
        lines += memchr::memchr_iter(b'\n', bytes).count() as u64;
        is_open = bytes[len - 1] != b'\n';
        read += len as u64;
        if read > most {
            return Ok(None);
        }
        content.consume(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use crate::context::Context;
    use crate::error::ErrorKind;
    use crate::monitor::Monitor;
    use crate::read::format::FormatOptions;

    /// Opens lines of a file with these options.
    fn open(
        path: &Path,
        range: Range<u64>,
        options: &FormatOptions,
        monitor: &Monitor,
    ) -> Result<Lines> {
        let context = &Context { threads: 1, monitor, storage: crate::storage::LOCAL };
        Lines::open(&Request::all(path, options, context), range)
    }

    fn lines_of(path: &Path, start: u64, end: u64) -> Vec<(u64, Option<Vec<u8>>)> {
        let (options, monitor) = (FormatOptions::default(), Monitor::default());
        let mut lines = open(path, start..end, &options, &monitor).unwrap();
        let mut found = Vec::new();
        while lines.step().unwrap() {
            let (offset, line) = lines.current();
            let text = if let Line::Text(text) = line { Some(text.to_owned()) } else { None };
            found.push((offset, text));
        }
        found
    }

    #[test]
    fn a_line_longer_than_many_splits_is_read_by_one_and_costs_the_others_their_own_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let long = MAX_LINE + (1 << 20);
        (&crate::storage::Local as &dyn crate::storage::Storage)
            .write_file(&path, &[b"one\n", vec![b'x'; long].as_slice(), b"\nlast\n"].concat())
            .unwrap();
        let size = long as u64 + 10;
        let whole = lines_of(&path, 0, size);
        assert_eq!(
            whole,
            [(0, Some(b"one".to_vec())), (4, None), (long as u64 + 5, Some(b"last".to_vec()))]
        );
        let step = 3_000_000;
        let starts = (0..size).step_by(step);
        let by_split: Vec<_> = starts
            .flat_map(|start| lines_of(&path, start, (start + step as u64).min(size)))
            .collect();
        assert_eq!(by_split, whole);
        let (options, monitor) = (FormatOptions::default(), Monitor::default());
        let inside = open(&path, step as u64..2 * step as u64, &options, &monitor).unwrap();
        let offset = inside.content.offset();
        assert!(offset < 2 * step as u64 + (1 << 20), "read up to {offset}");
    }

    #[test]
    fn a_mark_at_the_start_of_any_line_is_no_part_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let content = "\u{feff}one\n\u{feff}two\r\nth\u{feff}ree\n\u{feff}\n";
        crate::storage::LOCAL.write_file(&path, content.as_bytes()).unwrap();
        let lines = ["one", "two", "th\u{feff}ree", ""];
        let offsets = [0, 7, 15, 24];
        let found = lines_of(&path, 0, content.len() as u64);
        let expected = offsets.iter().zip(lines);
        let expected: Vec<_> =
            expected.map(|(&offset, line)| (offset, Some(line.as_bytes().to_vec()))).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_line_without_end_is_left_once_the_job_is_to_stop() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        (&crate::storage::Local as &dyn crate::storage::Storage)
            .write_file(&path, &vec![b'x'; 1 << 20])
            .unwrap();
        let monitor = Monitor::default();
        let options = FormatOptions::default();
        let mut lines = open(&path, 0..u64::MAX, &options, &monitor).unwrap();
        monitor.cancel();
        assert_eq!(lines.step().unwrap_err().kind, ErrorKind::Interrupted);
        assert_eq!(lines.content.offset(), 0, "nothing is read after that");
        assert!(
            open(&path, 5..10, &options, &monitor)
                .is_err_and(|error| error.kind == ErrorKind::Interrupted)
        );
    }
}
