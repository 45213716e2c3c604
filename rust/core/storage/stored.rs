//! `Stored`: the bytes of a compressed file as they lie in the storage. They can be looked at before
//! they are read, and each knows its place.

use std::io::{self, BufRead, Read};

/// The bytes that are read from the file at once.
const BUFFER: usize = 128 << 10;

/// A cursor over the stored bytes of a file.
pub(super) struct Stored<R> {
    file: R,
    buffer: Vec<u8>,
    /// The unread bytes of the buffer.
    start: usize,
    end: usize,
    /// The place in the file of the next unread byte.
    offset: u64,
}

impl<R: Read> Stored<R> {
    /// Returns a cursor before the first byte of `file`.
    pub(super) fn new(file: R) -> Self {
        Self { file, buffer: vec![0; BUFFER], start: 0, end: 0, offset: 0 }
    }

    /// Returns the place in the file of the next unread byte.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the next `len` bytes without moving past them; fewer at the end of the file.
    pub(super) fn peek(&mut self, len: usize) -> io::Result<&[u8]> {
        if self.end - self.start < len {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            while self.end < len && self.read_more()? > 0 {}
        }
        let end = self.end.min(self.start + len);
        Ok(&self.buffer[self.start..end])
    }

    /// Moves past bytes that are zero. Returns whether a byte follows them.
    pub(super) fn skip_zeros(&mut self) -> io::Result<bool> {
        loop {
            let unread = self.fill_buf()?;
            let zeros = unread.iter().take_while(|byte| **byte == 0).count();
            let (has_more, is_end) = (zeros < unread.len(), unread.is_empty());
            self.consume(zeros);
            if has_more || is_end {
                return Ok(has_more);
            }
        }
    }

    /// Reads bytes behind those in the buffer. Returns their number, 0 at the end of the file.
    fn read_more(&mut self) -> io::Result<usize> {
        loop {
            match self.file.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => {
                    let len = read?;
                    self.end += len;
                    return Ok(len);
                }
            }
        }
    }
}

impl<R: Read> BufRead for Stored<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.read_more()?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, len: usize) {
        self.start += len;
        self.offset += len as u64;
    }
}

impl<R: Read> Read for Stored<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let unread = self.fill_buf()?;
        let len = unread.len().min(into.len());
        into[..len].copy_from_slice(&unread[..len]);
        self.consume(len);
        Ok(len)
    }
}
