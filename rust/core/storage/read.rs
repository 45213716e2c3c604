//! Reading from a storage: whole files, ranges, checksums, decompressed content.
//!
//! Only regular files are read, and no further than their size: a FIFO would wait for ever, and
//! `/dev/zero` never ends. The kind is taken from the open file, so that a path cannot change in
//! between.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use xxhash_rust::xxh3::Xxh3Default;

use super::compression::{Compression, unreadable};
use super::{FileKind, Metadata, Storage, StoredFile};
use crate::error::{Error, ErrorKind, Fault, Result};

/// The size of a read in bytes.
const BUFFER: usize = 256 << 10;
/// The byte order mark that some programs begin a text file with.
pub(crate) const BOM: &[u8] = "\u{feff}".as_bytes();

/// The largest file that is read whole: tokenizers of a million entries and manifests of a million
/// inputs are smaller.
const MAX_WHOLE: u64 = 512 << 20;
/// The largest file that a person may have written by hand.
const MAX_SMALL: u64 = 64 << 20;

/// The size of a file in bytes and the time of its last change, if the storage knows it.
pub(crate) type Stamp = (u64, Option<SystemTime>);

/// Returns the size of a regular file; refuses every other kind of file.
fn regular_size(kind: ErrorKind, path: &Path, metadata: &Metadata) -> Result<u64> {
    let name = match metadata.kind {
        FileKind::Regular => return Ok(metadata.size),
        FileKind::Folder => {
            return Err(Error::io(kind, path, &io::ErrorKind::IsADirectory.into()));
        }
        FileKind::Link => "a link",
        FileKind::Other(name) => name,
    };
    let what = format!("is {name}, not a regular file");
    Err(Error { kind, ..Error::input(what) }.file(path.display().to_string()).remedy(
        "name a regular file; what a program or a device gives has to be written to one first",
    ))
}

/// Returns the error of a file of ours that changed since it was written.
fn disturbed(path: &Path, error: &io::Error) -> Error {
    let disturbed = Error::io(ErrorKind::Dataset, path, error);
    if Fault::of(error).is_some() {
        return disturbed;
    }
    disturbed.remedy("something changed the folder .work while it was in use")
}

impl dyn Storage + '_ {
    /// Returns whether anything is at `path`, a link to nowhere included.
    #[must_use]
    pub(crate) fn is_there(&self, path: &Path) -> bool {
        self.symlink_metadata(path).is_ok()
    }

    /// Returns whether anything is at `path`. A fault of a store is an error: it tells nothing about
    /// what is there.
    pub(crate) fn is_surely_there(&self, path: &Path) -> Result<bool> {
        match self.symlink_metadata(path) {
            Err(error) if Fault::of(&error).is_some() => {
                Err(Error::io(ErrorKind::Input, path, &error))
            }
            found => Ok(found.is_ok()),
        }
    }

    /// Returns the names in a folder as [`Self::names_in`] does. A fault of a store is an error.
    pub(crate) fn names_surely_in(&self, folder: &Path) -> Result<Vec<String>> {
        match self.list(folder) {
            Err(error) if Fault::of(&error).is_some() => {
                Err(Error::io(ErrorKind::Output, folder, &error))
            }
            names => {
                let names = names.unwrap_or_default().into_iter();
                Ok(names.map(|name| name.to_string_lossy().into_owned()).collect())
            }
        }
    }

    /// Returns whether `path` leads to anything.
    #[must_use]
    pub fn exists(&self, path: &Path) -> bool {
        self.metadata(path).is_ok()
    }

    /// Returns whether `path` leads to anything. A path that cannot be looked at is an error, which
    /// no decision may take for an absence.
    pub(crate) fn surely_exists(&self, path: &Path) -> io::Result<bool> {
        match self.metadata(path) {
            Ok(_) => Ok(true),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns whether `path` leads to a folder.
    #[must_use]
    pub(crate) fn is_folder(&self, path: &Path) -> bool {
        self.metadata(path).is_ok_and(|metadata| metadata.kind == FileKind::Folder)
    }

    /// Returns whether `path` itself is a link, wherever it leads.
    #[must_use]
    pub(crate) fn is_link(&self, path: &Path) -> bool {
        self.has_folders(path)
            && self.symlink_metadata(path).is_ok_and(|metadata| metadata.kind == FileKind::Link)
    }

    /// Returns whether `path` leads to a regular file rather than to a folder. Refuses every other
    /// kind of file, and a link to nowhere.
    pub(crate) fn is_regular(&self, path: &Path) -> Result<bool> {
        match self.metadata(path) {
            Ok(metadata) if metadata.kind == FileKind::Folder => Ok(false),
            Ok(metadata) => regular_size(ErrorKind::Input, path, &metadata).map(|_| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_link(path) => {
                Err(Error::input("is a link that leads nowhere")
                    .file(path.display().to_string())
                    .remedy("remove the link, or put back the file that it names")
                    .io_kind(error.kind()))
            }
            Err(error) => Err(Error::io(ErrorKind::Input, path, &error)),
        }
    }

    /// Returns the size in bytes of a regular file.
    pub(crate) fn file_size(&self, path: &Path) -> Result<u64> {
        let failed = |error: io::Error| Error::io(ErrorKind::Input, path, &error);
        regular_size(ErrorKind::Input, path, &self.metadata(path).map_err(failed)?)
    }

    /// Returns the stamp of a file.
    pub(crate) fn stamp(&self, path: &Path) -> Result<Stamp> {
        let failed = |error: io::Error| Error::io(ErrorKind::Input, path, &error);
        self.metadata(path).map(|metadata| (metadata.size, metadata.modified)).map_err(failed)
    }

    /// Returns whether two paths lead to one file.
    #[must_use]
    pub(crate) fn is_same_file(&self, a: &Path, b: &Path) -> bool {
        let real = |path: &Path| self.canonicalize(path);
        a == b || matches!((real(a), real(b)), (Ok(a), Ok(b)) if a == b)
    }

    /// Returns the absolute path of `path`, or `path` where it leads nowhere.
    #[must_use]
    pub(crate) fn real_path(&self, path: &Path) -> PathBuf {
        self.canonicalize(path).unwrap_or_else(|_| path.to_owned())
    }

    /// Returns the names in a folder, sorted; none where it cannot be listed.
    #[must_use]
    pub(crate) fn names_in(&self, folder: &Path) -> Vec<String> {
        let names = self.list(folder).unwrap_or_default();
        names.into_iter().map(|name| name.to_string_lossy().into_owned()).collect()
    }

    /// Opens a regular file and returns it with its size. Refuses every other kind of file, without
    /// waiting for its content.
    pub(crate) fn open_regular(
        &self,
        kind: ErrorKind,
        path: &Path,
    ) -> Result<(Box<dyn StoredFile>, u64)> {
        let failed = |error: io::Error| Error::io(kind, path, &error);
        let mut file = self.open(path).map_err(failed)?;
        let size = regular_size(kind, path, &file.metadata().map_err(failed)?)?;
        // Files of /proc are regular, of no size, and made up as they are read.
        if size == 0 && file.read(&mut [0]).map_err(failed)? > 0 {
            let what = "has content but no size, as files of /proc have";
            return Err(Error { kind, ..Error::input(what) }
                .file(path.display().to_string())
                .remedy(
                    "copy its content to a regular file and name that, once nothing writes to it",
                ));
        }
        Ok((file, size))
    }

    /// Opens the content of a file from `start`. A file with the suffix of a compression is
    /// decompressed, and `start` must be 0.
    pub(crate) fn open_content(&self, path: &Path, start: u64) -> Result<Box<dyn BufRead + Send>> {
        if Compression::of(path).is_some() {
            debug_assert_eq!(start, 0, "a compressed input is one input split");
            return self.open_named_content(path).map(|(content, _)| content);
        }
        let (mut file, size) = self.open_regular(ErrorKind::Input, path)?;
        file.seek(SeekFrom::Start(start))
            .map_err(|error| Error::io(ErrorKind::Input, path, &error))?;
        Ok(Box::new(BufReader::with_capacity(BUFFER, file.take(size.saturating_sub(start)))))
    }

    /// Opens the content of a file from its start. Returns it with its name, whose suffix tells the
    /// format: the name without the suffix of a compression, or the one that an archive gives it.
    pub(crate) fn open_named_content(
        &self,
        path: &Path,
    ) -> Result<(Box<dyn BufRead + Send>, PathBuf)> {
        let Some(compression) = Compression::of(path) else {
            return Ok((self.open_content(path, 0)?, path.to_owned()));
        };
        let (file, size) = self.open_regular(ErrorKind::Input, path)?;
        let content = compression.open(file, size).map_err(|error| unreadable(path, 0, &error))?;
        let name = content.name.map_or_else(|| path.with_extension(""), PathBuf::from);
        Ok((Box::new(BufReader::with_capacity(BUFFER, content.reader)), name))
    }

    /// Opens a shard for the Arrow library.
    pub(crate) fn open_shard(&self, path: &Path) -> Result<BufReader<Box<dyn StoredFile>>> {
        let (file, _) = self.open_regular(ErrorKind::Dataset, path)?;
        Ok(BufReader::with_capacity(BUFFER, file))
    }

    /// Reads a text file of ours, whole.
    pub(crate) fn whole_text(&self, path: &Path) -> Result<String> {
        text_of(path, self.whole_bytes(path)?)
    }

    /// Reads a whole file of ours; refuses an impossible size.
    pub fn whole_bytes(&self, path: &Path) -> Result<Vec<u8>> {
        self.bytes_up_to(path, MAX_WHOLE)
    }

    /// Reads a whole file that a person wrote; refuses an impossible size.
    pub(crate) fn small_bytes(&self, path: &Path) -> Result<Vec<u8>> {
        self.bytes_up_to(path, MAX_SMALL)
    }

    /// Reads a whole file of at most `most` bytes.
    pub fn bytes_up_to(&self, path: &Path, most: u64) -> Result<Vec<u8>> {
        let (file, size) = self.open_regular(ErrorKind::Input, path)?;
        if size > most {
            let [size, most] = [size, most].map(|bytes| bytes >> 20);
            return Err(Error::input(format!(
                "{size} MiB: no such file is larger than {most} MiB"
            ))
            .file(path.display().to_string())
            .remedy("look at what it holds: it is not what its name says"));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        file.take(size)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::io(ErrorKind::Input, path, &error))?;
        Ok(bytes)
    }

    /// Reads `len` bytes of a file of ours, from `offset` on.
    pub(crate) fn bytes_at(&self, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>> {
        let range = offset..offset.saturating_add(len as u64);
        match self.read_at(path, range).map_err(|error| disturbed(path, &error))? {
            Some(bytes) if bytes.len() == len => return Ok(bytes),
            Some(_) => return Err(disturbed(path, &io::ErrorKind::UnexpectedEof.into())),
            None => {}
        }
        let (mut file, size) = self.open_regular(ErrorKind::Dataset, path)?;
        if offset.checked_add(len as u64).is_none_or(|end| end > size) {
            return Err(disturbed(path, &io::ErrorKind::UnexpectedEof.into()));
        }
        let mut bytes = vec![0; len];
        let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut bytes));
        read.map(|()| bytes).map_err(|error| disturbed(path, &error))
    }

    /// Returns the xxh3-64 of ranges of a file of ours that follow each other from its start. Calls
    /// `check` before each read, and stops at its error.
    pub(crate) fn xxh3_64_of_ranges(
        &self,
        path: &Path,
        ranges: &[Range<u64>],
        check: impl Fn() -> Result<()>,
    ) -> Result<Vec<u64>> {
        let (mut file, _) = self.open_regular(ErrorKind::Dataset, path)?;
        let mut buffer = vec![0; BUFFER];
        let mut sums = Vec::with_capacity(ranges.len());
        for range in ranges {
            let mut hasher = Xxh3Default::new();
            let mut left = range.end - range.start;
            while left > 0 {
                check()?;
                let piece = &mut buffer[..left.min(BUFFER as u64) as usize];
                file.read_exact(piece).map_err(|error| disturbed(path, &error))?;
                hasher.update(piece);
                left -= piece.len() as u64;
            }
            sums.push(hasher.digest());
        }
        Ok(sums)
    }

    /// Returns the xxh3-128 of a file's bytes, in hexadecimal. Calls `check` before each read, and
    /// stops at its error.
    pub(crate) fn xxh3_128_of_file(
        &self,
        path: &Path,
        check: impl Fn() -> Result<()>,
    ) -> Result<String> {
        let (file, size) = self.open_regular(ErrorKind::Input, path)?;
        let mut file = file.take(size);
        let mut hasher = Xxh3Default::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            check()?;
            match file.read(&mut buffer) {
                Ok(0) => return Ok(format!("{:032x}", hasher.digest128())),
                Ok(n) => hasher.update(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io(ErrorKind::Input, path, &error)),
            }
        }
    }
}

/// Returns the bytes of a file of ours as text.
fn text_of(path: &Path, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes)
        .map_err(|_| Error::input("is not UTF-8").file(path.display().to_string()))
}
