//! `RemoteFile`: an object read by ranges, some of them ahead of the reader.
//!
//! The request that opens an object brings its first bytes, which are all of a small one. Ranges
//! begin small and grow as long as they are read to their ends, up to a bound; a jump drops what
//! lies elsewhere. Every range is bound to the version of the object that was opened, so that a
//! change in between is an error, and an answer that breaks off is taken up where it broke.

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStoreExt};

use super::runtime::{Running, wait};
use super::trouble::{Trouble, kind_of, unreachable};
use super::{Bucket, PAUSES};
use crate::error::Fault;
use crate::storage::{FileKind, Metadata, StoredFile};

/// The first range of an object, which opens it: as much as readers ask for at a time.
const OPENED: u64 = 256 << 10;
/// The first range after a jump, unless more is asked for.
const FIRST: u64 = 64 << 10;
/// The largest range that is asked for ahead of the reader.
const LARGEST: u64 = 4 << 20;
/// The most ranges that are held or on their way.
const AHEAD: usize = 4;

/// A range of an object.
enum Piece {
    /// On its way.
    Coming(Running<Bytes>),
    /// Here.
    Here(Bytes),
}

/// A range that is held or on its way.
struct Held {
    range: Range<u64>,
    piece: Piece,
}

/// An object open for reading.
pub(super) struct RemoteFile {
    bucket: Arc<Bucket>,
    object: Arc<ObjectMeta>,
    position: u64,
    /// Ranges that follow each other. The position lies in the first two or at the end of them.
    held: VecDeque<Held>,
    /// The size of the next range.
    next: u64,
}

impl RemoteFile {
    /// Returns an object, to be read from its start.
    pub(super) fn new(bucket: Arc<Bucket>, object: ObjectMeta) -> Self {
        let object = Arc::new(object);
        Self { bucket, object, position: 0, held: VecDeque::new(), next: FIRST }
    }

    /// Opens an object by asking for its first bytes; `None` where there is none.
    pub(super) fn open(bucket: Arc<Bucket>, key: &Key) -> io::Result<Option<Self>> {
        match wait(bucket.ask(|| first_of(&bucket, key))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
            Ok((object, bytes)) => {
                let mut file = Self::new(bucket, object);
                if !bytes.is_empty() {
                    let range = 0..bytes.len() as u64;
                    file.held.push_back(Held { range, piece: Piece::Here(bytes) });
                }
                Ok(Some(file))
            }
        }
    }

    /// Asks for `range`.
    fn ask(&mut self, range: Range<u64>) -> io::Result<()> {
        let object = Wanted::Version(Arc::clone(&self.object));
        let fetch = fetch(Arc::clone(&self.bucket), object, range.clone());
        self.held.push_back(Held { range, piece: Piece::Coming(Running::start(fetch)?) });
        Ok(())
    }

    /// Sees to it that the range with the position is asked for, and some after it where the reader
    /// goes on from one to the next. `wanted` bytes are asked for. Returns its index.
    fn look_ahead(&mut self, wanted: u64) -> io::Result<usize> {
        let (position, size) = (self.position, self.object.size);
        let end = self.held.back().map(|held| held.range.end);
        let goes_on = end.is_some();
        let is_held = self.held.front().is_some_and(|held| held.range.start <= position)
            && end.is_some_and(|end| position < end);
        if !is_held && end != Some(position) {
            self.held.clear();
            self.next = FIRST;
            // Near its end an object is read to the end: files of columns begin with that.
            let last = size.saturating_sub(FIRST);
            let start = if position >= last && wanted < FIRST { last } else { position };
            let len = wanted.max(FIRST).min(LARGEST.max(wanted.min(2 * LARGEST)));
            self.ask(start..size.min(start + len))?;
        } else if end == Some(position) {
            self.ask(position..size.min(position + self.next.max(wanted.min(LARGEST))))?;
        }
        let index = self
            .held
            .iter()
            .position(|held| held.range.contains(&position))
            .ok_or_else(|| io::Error::other("a position outside of every range"))?;
        // One range behind the position is kept, for a small step back.
        let passed = index.saturating_sub(1);
        self.held.drain(..passed);
        let index = index - passed;
        if goes_on && index > 0 {
            while self.held.len() < AHEAD {
                let start = self.held.back().map_or(size, |held| held.range.end);
                if start >= size {
                    break;
                }
                self.next = (self.next * 2).min(LARGEST);
                self.ask(start..size.min(start + self.next))?;
            }
        }
        Ok(index)
    }

    /// Returns the bytes of a range once they are here.
    fn bytes(&mut self, index: usize) -> io::Result<&Bytes> {
        let held = &mut self.held[index];
        if let Piece::Coming(_) = held.piece {
            let coming = std::mem::replace(&mut held.piece, Piece::Here(Bytes::new()));
            let Piece::Coming(running) = coming else { unreachable!("it was looked at") };
            match running.join() {
                Ok(bytes) => held.piece = Piece::Here(bytes),
                Err(error) => {
                    // Read again, it is asked for again.
                    self.held.clear();
                    self.next = FIRST;
                    return Err(error);
                }
            }
        }
        match &self.held[index].piece {
            Piece::Here(bytes) => Ok(bytes),
            Piece::Coming(_) => Err(io::Error::other("a range that never came")),
        }
    }
}

impl Read for RemoteFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.position >= self.object.size {
            return Ok(0);
        }
        let index = self.look_ahead(buffer.len() as u64)?;
        let start = (self.position - self.held[index].range.start) as usize;
        let bytes = self.bytes(index)?;
        let here = &bytes[start.min(bytes.len())..];
        let len = here.len().min(buffer.len());
        buffer[..len].copy_from_slice(&here[..len]);
        self.position += len as u64;
        Ok(len)
    }
}

impl Seek for RemoteFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let (base, step) = match position {
            SeekFrom::Start(position) => (position, 0),
            SeekFrom::End(step) => (self.object.size, step),
            SeekFrom::Current(step) => (self.position, step),
        };
        let position = base.checked_add_signed(step);
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

impl StoredFile for RemoteFile {
    fn metadata(&self) -> io::Result<Metadata> {
        Ok(described(&self.object))
    }
}

/// Returns the metadata of an object as our own type.
pub(super) fn described(object: &ObjectMeta) -> Metadata {
    // A server that tells no time is taken to know none.
    let modified = Some(object.last_modified.into()).filter(|&time| time != std::time::UNIX_EPOCH);
    Metadata { kind: FileKind::Regular, size: object.size, modified }
}

/// The object that a range is wanted of.
enum Wanted {
    /// This version of it.
    Version(Arc<ObjectMeta>),
    /// Whatever version there is.
    Any(object_store::path::Path),
}

impl Wanted {
    /// Returns the name of the object.
    fn location(&self) -> &object_store::path::Path {
        match self {
            Self::Version(object) => &object.location,
            Self::Any(location) => location,
        }
    }
}

/// Returns the bytes of a range of an object that nothing changes once it is there.
pub(super) fn range_of(
    bucket: Arc<Bucket>,
    key: object_store::path::Path,
    range: Range<u64>,
) -> io::Result<Bytes> {
    wait(fetch(bucket, Wanted::Any(key), range))
}

/// Returns the bytes of a range of an object. What breaks off is taken up where it broke, as long as
/// the patience with the store lasts without a byte.
async fn fetch(bucket: Arc<Bucket>, object: Wanted, range: Range<u64>) -> io::Result<Bytes> {
    let len = (range.end - range.start) as usize;
    let mut bytes = BytesMut::with_capacity(len);
    let (mut pause, mut since) = (PAUSES.start, Instant::now());
    loop {
        let had = bytes.len();
        let rest = range.start + had as u64..range.end;
        let failure = fetch_once(&bucket, &object, rest, &mut bytes).await;
        if failure.is_ok() && bytes.len() == len {
            return Ok(bytes.freeze());
        }
        if bytes.len() > len {
            return Err(changed());
        }
        if bytes.len() > had {
            (pause, since) = (PAUSES.start, Instant::now());
        }
        if let Err(error) = &failure
            && kind_of(error) != Trouble::Passing
        {
            return Err(bucket.explained(error));
        }
        if since.elapsed() >= bucket.patience {
            return Err(match failure {
                Err(error) => bucket.explained(&error),
                Ok(()) => unreachable("its answers break off", bucket.patience),
            });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.end);
    }
}

/// Adds the bytes of a range of an object, up to where the answer breaks off.
async fn fetch_once(
    bucket: &Bucket,
    wanted: &Wanted,
    range: Range<u64>,
    bytes: &mut BytesMut,
) -> object_store::Result<()> {
    let mut options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
    if let Wanted::Version(object) = wanted {
        options.if_match.clone_from(&object.e_tag);
        // A condition by time is all that there is where a server names no versions.
        if object.e_tag.is_none() && described(object).modified.is_some() {
            options.if_unmodified_since = Some(object.last_modified);
        }
    }
    let answer = bucket.store.get_opts(wanted.location(), options).await?;
    if let Wanted::Version(object) = wanted
        && answer.meta.size != object.size
    {
        return Err(object_store::Error::Precondition {
            path: object.location.to_string(),
            source: "its size is another".into(),
        });
    }
    let mut content = answer.into_stream();
    while let Some(more) = content.next().await {
        bytes.extend_from_slice(&more?);
    }
    Ok(())
}

/// Returns an object with its first bytes: as many as come of an answer that breaks off.
async fn first_of(bucket: &Bucket, key: &Key) -> object_store::Result<(ObjectMeta, Bytes)> {
    let range = Some(GetRange::Bounded(0..OPENED));
    let asked = GetOptions { range, ..GetOptions::default() };
    let answer = match bucket.store.get_opts(key, asked).await {
        Ok(answer) => answer,
        Err(error) if matches!(kind_of(&error), Trouble::Missing | Trouble::Passing) => {
            return Err(error);
        }
        // An object without bytes has no range of them.
        Err(error) => match bucket.store.head(key).await {
            Ok(object) if object.size == 0 => return Ok((object, Bytes::new())),
            Err(other) if kind_of(&other) == Trouble::Passing => return Err(other),
            _ => return Err(error),
        },
    };
    let (object, mut bytes) = (answer.meta.clone(), BytesMut::new());
    let mut content = answer.into_stream();
    while let Some(more) = content.next().await {
        match more {
            Ok(more) => bytes.extend_from_slice(&more),
            Err(error) if bytes.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    // No more than was asked for, whatever the server gives.
    bytes.truncate(OPENED.min(object.size) as usize);
    Ok((object, bytes.freeze()))
}

/// Returns the error of an object that is no longer what was opened.
fn changed() -> io::Error {
    Fault::carried(
        io::ErrorKind::InvalidData,
        "was changed while it was read",
        "run the command again once nothing writes to it",
    )
}

/// Returns the object at a place; `None` where there is none.
pub(super) fn head(bucket: &Bucket, key: &Key) -> io::Result<Option<ObjectMeta>> {
    match wait(bucket.ask(|| bucket.store.head(key))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        object => object.map(Some),
    }
}
