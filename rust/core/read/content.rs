//! `Content`: the decompressed bytes of a file, from an offset on. Every reader opens its file
//! here.

use std::io::{self, BufRead, Cursor, Read};
use std::path::{Path, PathBuf};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::monitor::Stop;
use crate::storage::{BOM, unreadable};

/// A cursor over the content of a file.
pub(super) struct Content {
    reader: Box<dyn BufRead + Send>,
    path: PathBuf,
    /// The offset of the next unread byte.
    offset: u64,
    /// Tells when the job is to stop.
    stop: Stop,
}

impl Content {
    /// Opens `path` at the byte `start` of its content, which is 0 for a compressed file. Reading
    /// ends with an error once the job is to stop.
    pub(super) fn open(path: &Path, start: u64, context: &Context<'_>) -> Result<Self> {
        Ok(Self {
            reader: context.storage.open_content(path, start)?,
            path: path.to_owned(),
            offset: start,
            stop: context.monitor.stop(),
        })
    }

    /// Returns the offset of the next unread byte.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the next bytes without moving past them; no bytes at the end of the file.
    pub(super) fn chunk(&mut self) -> Result<&[u8]> {
        self.stop.check()?;
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
        self.reader.consume(len);
        self.offset += len as u64;
    }

    /// Returns an error about the content of the file.
    pub(super) fn fault(&self, what: &str) -> Error {
        Error::input(what).file(self.path.display().to_string())
    }

    /// Moves past a byte order mark, if the file begins with one.
    pub(super) fn skip_bom(&mut self) -> Result<()> {
        self.stop.check()?;
        let mut first = Vec::new();
        let read = self.reader.by_ref().take(BOM.len() as u64).read_to_end(&mut first);
        read.map_err(|error| unreadable(&self.path, self.offset, &error))?;
        if first == BOM {
            self.offset += first.len() as u64;
        } else {
            let rest = std::mem::replace(&mut self.reader, Box::new(io::empty()));
            self.reader = Box::new(Cursor::new(first).chain(rest));
        }
        Ok(())
    }
}

/// Returns the line, from 1, in which the byte `offset` of the content of `path` lies.
pub(super) fn line_at(path: &Path, offset: u64, context: &Context<'_>) -> Result<u64> {
    let mut content = Content::open(path, 0, context)?;
    let mut line = 1;
    while content.offset < offset {
        let left = offset - content.offset;
        let chunk = content.chunk()?;
        if chunk.is_empty() {
            break;
        }
        let len = chunk.len().min(left as usize);
        line += memchr::memchr_iter(b'\n', &chunk[..len]).count() as u64;
        content.consume(len);
    }
    Ok(line)
}
