//! `Messages`: the messages of an Arrow file or stream, one after another.
//!
//! A file is a stream between its magic and its footer, so both are read alike; the footer only
//! tells where a plain file's messages end. No length is believed before its bytes are there.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use arrow_buffer::Buffer;
use arrow_ipc::reader::read_footer_length;
use arrow_ipc::{CompressionType, Message, RecordBatch, root_as_message};

use super::inflate::lz4_frame_bound;
use super::{MAX_DECODED, MAX_METADATA, shortened};
use crate::error::{Error, ErrorKind, Result};
use crate::monitor::Stop;
use crate::panics::{GAVE_UP, caught};
use crate::storage::{Compression, Storage, StoredFile, unreadable};

/// The first bytes of a file, padded to eight, and its last ones.
pub(in crate::read) const MAGIC: &[u8] = b"ARROW1";
/// What begins each message, since version 0.15.
pub(in crate::read) const CONTINUATION: [u8; 4] = [0xff; 4];

/// The most bytes before the first message of a file.
const MOST_PADDING: u64 = 64;

/// The content of a file.
enum Input {
    Plain(BufReader<Box<dyn StoredFile>>),
    Packed(Box<dyn BufRead + Send>),
}

/// A cursor over messages.
pub(in crate::read) struct Messages {
    input: Input,
    /// The name of the file in errors.
    name: String,
    path: std::path::PathBuf,
    /// The offset of the next unread byte.
    offset: u64,
    /// The end of the messages, if it is known.
    end: Option<u64>,
    is_file: bool,
    stop: Stop,
}

/// The metadata of a message, and the place of its body.
pub(in crate::read) struct Found {
    metadata: Vec<u8>,
    /// The bytes of its body, which come next.
    body: u64,
    /// The bytes of the whole message.
    pub(in crate::read) bytes: u64,
}

impl Found {
    /// Returns the message. Its bytes were verified.
    pub(in crate::read) fn message(&self) -> Result<Message<'_>> {
        root_as_message(&self.metadata).map_err(|error| Error::input(error.to_string()))
    }
}

impl Messages {
    /// Opens the messages of a file, which may be compressed as a whole.
    pub(in crate::read) fn open(path: &Path, storage: &dyn Storage, stop: Stop) -> Result<Self> {
        let mut messages = Self {
            input: Input::Packed(Box::new(io::empty())),
            name: path.display().to_string(),
            path: path.to_owned(),
            offset: 0,
            end: None,
            is_file: false,
            stop,
        };
        if Compression::of(path).is_some() {
            messages.input = Input::Packed(storage.open_content(path, 0)?);
        } else {
            let (file, size) = storage.open_regular(ErrorKind::Input, path)?;
            messages.input = Input::Plain(BufReader::with_capacity(64 << 10, file));
            messages.end = Some(size);
        }
        messages.is_file = messages.peek(MAGIC.len())? == MAGIC;
        if messages.is_file {
            messages.read(8)?;
            messages.end = messages.end.map(|size| messages.footer(size)).transpose()?;
        }
        Ok(messages)
    }

    /// Returns the start of the footer of a plain file of `size` bytes, and goes back to the first
    /// message.
    fn footer(&mut self, size: u64) -> Result<u64> {
        let what = "is truncated, or damaged: it does not end as an Arrow file does";
        let broken = self.fault(what);
        let Input::Plain(file) = &mut self.input else { return Ok(size) };
        let mut tail = [0; 10];
        if size < 18 {
            return Err(broken);
        }
        let failed = |error: io::Error| Error::io(ErrorKind::Input, &self.path, &error);
        file.seek(SeekFrom::Start(size - 10)).map_err(failed)?;
        file.read_exact(&mut tail).map_err(failed)?;
        file.seek(SeekFrom::Start(8)).map_err(failed)?;
        let footer = caught(|| read_footer_length(tail)).ok().and_then(std::result::Result::ok);
        footer
            .and_then(|len| (size - 10).checked_sub(len as u64))
            .filter(|start| *start >= 8)
            .ok_or(broken)
    }

    /// Returns an error about the file.
    pub(in crate::read) fn fault(&self, what: &str) -> Error {
        if let Err(stopped) = self.stop.check() {
            return stopped;
        }
        Error::input(what).file(self.name.clone()).remedy("fetch the file again, or write it again")
    }

    /// Returns the error of the Arrow library, or of its panic.
    pub(in crate::read) fn damaged(&self, why: &str) -> Error {
        self.fault(&format!("is damaged: {}", shortened(why)))
    }

    /// Returns the error of a message that is too large.
    fn too_large(&self) -> Error {
        self.fault("has a record batch that takes more than 1 GiB")
            .remedy("write it again with smaller record batches: max_chunksize=1000 in pyarrow")
    }

    /// Returns the input for reading.
    fn reader(&mut self) -> &mut dyn BufRead {
        match &mut self.input {
            Input::Plain(file) => file,
            Input::Packed(content) => content,
        }
    }

    /// Returns the first bytes, at most `len`, without moving past them. Nothing was read so far.
    fn peek(&mut self, len: usize) -> Result<Vec<u8>> {
        let bytes = self.read_up_to(len as u64)?;
        self.offset = 0;
        match &mut self.input {
            Input::Plain(file) => {
                file.seek(SeekFrom::Start(0))
                    .map_err(|error| Error::io(ErrorKind::Input, &self.path, &error))?;
            }
            Input::Packed(content) => {
                let rest = std::mem::replace(content, Box::new(io::empty()));
                *content = Box::new(io::Cursor::new(bytes.clone()).chain(rest));
            }
        }
        Ok(bytes)
    }

    /// Reads `len` bytes, or less at the end.
    fn read_up_to(&mut self, len: u64) -> Result<Vec<u8>> {
        self.stop.check()?;
        let len = self.end.map_or(len, |end| len.min(end - self.offset.min(end)));
        let mut bytes = Vec::new();
        let read = self.reader().take(len).read_to_end(&mut bytes);
        read.map_err(|error| unreadable(&self.path, self.offset, &error))?;
        self.offset += bytes.len() as u64;
        Ok(bytes)
    }

    /// Reads `len` bytes.
    fn read(&mut self, len: u64) -> Result<Vec<u8>> {
        let bytes = self.read_up_to(len)?;
        if (bytes.len() as u64) < len {
            return Err(self.fault("is truncated: it ends inside of a message"));
        }
        Ok(bytes)
    }

    /// Reads the next message up to its body; `None` after the last one.
    pub(in crate::read) fn next(&mut self) -> Result<Option<Found>> {
        let start = self.offset;
        let mut prefix = self.read_up_to(4)?;
        // Arrow's own library for Rust fills up the first 64 bytes of a file with zeros.
        while self.is_file && prefix == [0; 4] && self.offset <= MOST_PADDING {
            prefix = self.read_up_to(4)?;
        }
        if prefix == CONTINUATION {
            prefix = self.read(4)?;
        }
        let Ok(len) = <[u8; 4]>::try_from(&*prefix) else {
            // A compressed file ends with a mark: its footer cannot be found.
            if prefix.is_empty() && (!self.is_file || self.end.is_some()) {
                return Ok(None);
            }
            return Err(self.fault("is truncated: it ends inside of a message"));
        };
        let len = u64::from(u32::from_le_bytes(len));
        if len == 0 {
            // A reader of one stream would not see the next.
            if !self.is_file && !self.read_up_to(1)?.is_empty() {
                let what = "has other bytes after the end of its stream, such as another stream";
                return Err(self.fault(what).remedy("keep each stream in a file of its own"));
            }
            return Ok(None);
        }
        if len > MAX_METADATA {
            return Err(self.fault("is damaged: a message has more than 64 MiB of metadata"));
        }
        let metadata = self.read(len)?;
        let body = caught(|| root_as_message(&metadata).map(|message| message.bodyLength()));
        let body = body.map_err(|_| self.damaged(GAVE_UP))?;
        let body = body.map_err(|error| self.damaged(&error.to_string()))?;
        let body = u64::try_from(body).map_err(|_| self.damaged("a message of negative length"))?;
        if self.end.is_some_and(|end| body > end - self.offset.min(end)) {
            return Err(self.fault("is truncated: it ends inside of a message"));
        }
        let bytes = self.offset - start + body;
        Ok(Some(Found { metadata, body, bytes }))
    }

    /// Passes over the body of a message.
    pub(in crate::read) fn pass(&mut self, found: &Found) -> Result<()> {
        if let Input::Plain(file) = &mut self.input {
            // It lies within the file, as `next` saw.
            file.seek_relative(found.body as i64)
                .map_err(|error| Error::io(ErrorKind::Input, &self.path, &error))?;
            self.offset += found.body;
            return Ok(());
        }
        let mut left = found.body;
        while left > 0 {
            left -= self.read(left.min(1 << 20))?.len() as u64;
        }
        Ok(())
    }

    /// Reads the body of a message that holds `batch`. Refuses one that decodes to too much.
    pub(in crate::read) fn body(
        &mut self,
        found: &Found,
        batch: &RecordBatch<'_>,
    ) -> Result<Buffer> {
        if found.body > MAX_DECODED {
            return Err(self.too_large());
        }
        let body = Buffer::from_vec(self.read(found.body)?);
        match decoded(&body, batch) {
            Some(bytes) if bytes <= MAX_DECODED => Ok(body),
            Some(_) => Err(self.too_large()),
            None => Err(self.damaged("a compressed column is not what it claims to be")),
        }
    }
}

/// Returns the bytes that the buffers of a batch take once they are decompressed; `None` if they
/// claim what cannot be.
fn decoded(body: &Buffer, batch: &RecordBatch<'_>) -> Option<u64> {
    let Some(compression) = batch.compression() else { return Some(body.len() as u64) };
    let mut sum = 0u64;
    for buffer in batch.buffers()? {
        let start = usize::try_from(buffer.offset()).ok()?;
        let len = usize::try_from(buffer.length()).ok()?;
        let stored = body.as_slice().get(start..start.checked_add(len)?)?;
        if stored.is_empty() {
            continue;
        }
        let (claimed, packed) = stored.split_first_chunk::<8>()?;
        let claimed = match i64::from_le_bytes(*claimed) {
            -1 => packed.len() as u64,
            claimed => u64::try_from(claimed).ok()?,
        };
        // LZ4 is decompressed to its end, whatever it claims.
        let real = match compression.codec() {
            CompressionType::LZ4_FRAME if claimed != packed.len() as u64 => {
                lz4_frame_bound(packed)?
            }
            _ => claimed,
        };
        if real > claimed.saturating_add(8 << 20) {
            return None;
        }
        sum = sum.checked_add(claimed)?;
    }
    Some(sum)
}
