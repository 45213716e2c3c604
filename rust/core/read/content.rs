//! `Content`: the bytes of a file, decompressed and in UTF-8, from an offset on. Every reader opens
//! its file here.

use std::io::{self, BufRead, Read};
use std::path::PathBuf;

use super::decoded::Decoded;
use super::request::Request;
use crate::error::{Error, Place, Result};
use crate::monitor::Stop;
use crate::storage::{BOM, unreadable};

/// A cursor over the content of a file.
pub(super) struct Content {
    reader: Box<dyn BufRead + Send>,
    path: PathBuf,
    /// The offset of the next unread byte.
    offset: u64,
    /// The next bytes, fewer than a mark has, that were looked at and are out of the reader.
    ahead: Vec<u8>,
    /// Tells when the job is to stop.
    stop: Stop,
}

impl Content {
    /// Opens the file of `request` at the byte `start` of its content, which is 0 for a compressed
    /// or encoded file. Reading ends with an error once the job is to stop.
    pub(super) fn open(request: &Request<'_>, start: u64) -> Result<Self> {
        let Request { path, options, context, .. } = request;
        let mut reader = context.storage.open_content(path, start)?;
        if let Some(encoding) = options.encoding {
            debug_assert_eq!(start, 0, "an encoded input is one input split");
            reader =
                Decoded::open(encoding, reader).map_err(|error| unreadable(path, 0, &error))?;
        }
        let stop = context.monitor.stop();
        Ok(Self { reader, path: path.to_path_buf(), offset: start, ahead: Vec::new(), stop })
    }

    /// Returns the offset of the next unread byte.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the next bytes without moving past them; no bytes at the end of the file.
    pub(super) fn chunk(&mut self) -> Result<&[u8]> {
        self.stop.check()?;
        if !self.ahead.is_empty() {
            return Ok(&self.ahead);
        }
        // A loop that returns what it borrows would not pass the borrow checker.
        while let Err(error) = self.reader.fill_buf() {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(unreadable(&self.path, self.offset, &error));
            }
        }
        self.reader.fill_buf().map_err(|error| unreadable(&self.path, self.offset, &error))
    }

    /// Moves past the first `len` bytes of the chunk.
    pub(super) fn consume(&mut self, len: usize) {
        self.pass(len);
        self.offset += len as u64;
    }

    /// Returns an error about the content of the file.
    pub(super) fn fault(&self, what: &str) -> Error {
        Error::input(what).file(self.path.display().to_string())
    }

    /// Moves past a byte order mark, if one is next.
    pub(super) fn skip_bom(&mut self) -> Result<()> {
        let chunk = self.chunk()?;
        if chunk.first() != BOM.first() {
            return Ok(());
        }
        if chunk.len() >= BOM.len() {
            if chunk.starts_with(BOM) {
                self.consume(BOM.len());
            }
            return Ok(());
        }
        // The mark may lie across the ends of two chunks.
        let mut next = chunk.to_vec();
        self.pass(next.len());
        let rest = (BOM.len() - next.len()) as u64;
        let read = self.reader.by_ref().take(rest).read_to_end(&mut next);
        read.map_err(|error| unreadable(&self.path, self.offset, &error))?;
        if next == BOM {
            self.offset += next.len() as u64;
        } else {
            self.ahead = next;
        }
        Ok(())
    }

    /// Moves past the first `len` bytes of the chunk, which stay unread.
    fn pass(&mut self, len: usize) {
        if self.ahead.is_empty() {
            self.reader.consume(len);
        } else {
            self.ahead.drain(..len);
        }
    }
}

/// The bytes at the start of a record that its first words are taken from.
const FIRST_BYTES: usize = 4 << 10;
/// The most characters of the first words of a record.
const FIRST_WORDS: usize = 100;

/// A record found in its file again: its place and its first words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The line on which the record begins, or its row.
    pub place: Place,
    /// Its first words as they stand in the file, each white space as one space.
    pub text: String,
}

/// Returns the places of the records that begin at `offsets`, which ascend, in one pass over the
/// content of a file. `cut` takes the first bytes after an offset and returns those of its record.
pub(super) fn places_at(
    request: &Request<'_>,
    offsets: &[u64],
    cut: impl Fn(&[u8]) -> &[u8],
) -> Result<Vec<Found>> {
    let mut content = Content::open(request, 0)?;
    let (mut line, mut places) = (1, Vec::with_capacity(offsets.len()));
    // The bytes from the next offset on that were read ahead, for the words of the last record.
    let mut ahead: Vec<u8> = Vec::new();
    for &offset in offsets {
        let start = content.offset - ahead.len() as u64;
        let passed = ahead.len().min((offset - start) as usize);
        line += newlines(&ahead[..passed]);
        ahead.drain(..passed);
        while content.offset < offset {
            let left = offset - content.offset;
            let chunk = content.chunk()?;
            if chunk.is_empty() {
                break;
            }
            let len = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            line += newlines(&chunk[..len]);
            content.consume(len);
        }
        while ahead.len() < FIRST_BYTES {
            let chunk = content.chunk()?;
            if chunk.is_empty() {
                break;
            }
            let len = chunk.len().min(FIRST_BYTES - ahead.len());
            ahead.extend_from_slice(&chunk[..len]);
            content.consume(len);
        }
        places.push(Found { place: Place::Line(line), text: first_words(cut(&ahead)) });
    }
    Ok(places)
}

/// Returns the number of lines that end in `bytes`.
pub(super) fn newlines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// Returns the first words of a record: at most [`FIRST_WORDS`] characters, each white space as one
/// space.
pub(super) fn first_words(record: &[u8]) -> String {
    let record = record.strip_prefix(BOM).unwrap_or(record);
    let text = String::from_utf8_lossy(record);
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(FIRST_WORDS).collect()
}

/// Returns the line, from 1, in which the byte `offset` of the content of a file lies.
pub(super) fn line_at(request: &Request<'_>, offset: u64) -> Result<u64> {
    let mut content = Content::open(request, 0)?;
    let mut line = 1;
    while content.offset < offset {
        let left = offset - content.offset;
        let chunk = content.chunk()?;
        if chunk.is_empty() {
            break;
        }
        let len = chunk.len().min(left as usize);
        line += newlines(&chunk[..len]);
        content.consume(len);
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::context::Context;
    use crate::monitor::Monitor;
    use crate::read::format::FormatOptions;
    use crate::storage::LOCAL;

    proptest! {
        #[test]
        fn the_places_of_one_pass_are_those_of_a_pass_each(
            lengths in prop::collection::vec(0usize..3000, 1..40),
            picked in prop::collection::vec(any::<bool>(), 40),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a");
            let (mut text, mut starts) = (String::new(), Vec::new());
            for (nth, length) in lengths.iter().enumerate() {
                starts.push(text.len() as u64);
                text.push_str(&nth.to_string());
                text.push_str(&" ọ".repeat(length / 4));
                text.push('\n');
            }
            LOCAL.write_file(&path, text.as_bytes()).unwrap();
            let context = &Context { threads: 1, monitor: &Monitor::default(), storage: LOCAL };
            let options = &FormatOptions::default();
            let request = &Request::all(&path, options, context);
            let picked = starts.iter().zip(picked).filter(|(_, picked)| *picked);
            let offsets: Vec<u64> = picked.map(|(start, _)| *start).collect();
            let cut = |bytes: &[u8]| bytes.iter().position(|&byte| byte == b'\n');
            let cut = |bytes: &[u8]| cut(bytes).unwrap_or(bytes.len());
            let places = places_at(request, &offsets, |bytes| &bytes[..cut(bytes)]);
            for (offset, place) in offsets.iter().zip(places.unwrap()) {
                let line = text[*offset as usize..].lines().next().unwrap();
                let words: String = line.trim().chars().take(FIRST_WORDS).collect();
                let line = line_at(request, *offset).unwrap();
                let place_of_one = Found { place: Place::Line(line), text: words };
                prop_assert_eq!(place, place_of_one);
            }
        }
    }
}
