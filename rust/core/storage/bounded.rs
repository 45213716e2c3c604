//! `Bounded`: a storage that reads no more than some bytes of each file, and counts what it reads.
//!
//! A reader may have to read on and on for one record, such as the file after a quote that nobody
//! closes. Where only the start of a file is of interest, this storage stops it.

use std::ffi::OsString;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::{Lock, Metadata, NewFile, Storage, StoredFile};

/// The storage `inner`, of whose files a bounded number of bytes is read.
#[derive(Debug)]
pub(crate) struct Bounded<'a> {
    inner: &'a dyn Storage,
    /// The most bytes that are read of a file each time it is opened.
    most: u64,
    read: Arc<AtomicU64>,
    is_exhausted: Arc<AtomicBool>,
}

impl<'a> Bounded<'a> {
    /// Returns the storage `inner`, with at most `most` bytes read of each opened file.
    pub(crate) fn new(inner: &'a dyn Storage, most: u64) -> Self {
        Self { inner, most, read: Arc::default(), is_exhausted: Arc::default() }
    }

    /// Returns the number of bytes read so far.
    pub(crate) fn read(&self) -> u64 {
        self.read.load(Relaxed)
    }

    /// Returns whether a reader wanted more of a file than it may read. Its error is then no fault
    /// of the file.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.is_exhausted.load(Relaxed)
    }
}

/// An open file of which `left` more bytes may be read.
struct BoundedFile {
    inner: Box<dyn StoredFile>,
    left: u64,
    read: Arc<AtomicU64>,
    is_exhausted: Arc<AtomicBool>,
}

impl Read for BoundedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            // The end of a file is no excess.
            if self.inner.read(&mut [0])? == 0 {
                return Ok(0);
            }
            self.is_exhausted.store(true, Relaxed);
            return Err(io::Error::other("more of it would have to be read than a sample may"));
        }
        let len = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.inner.read(&mut buffer[..len])?;
        self.left -= read as u64;
        self.read.fetch_add(read as u64, Relaxed);
        Ok(read)
    }
}

impl Seek for BoundedFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.inner.seek(position)
    }
}

impl StoredFile for BoundedFile {
    fn metadata(&self) -> io::Result<Metadata> {
        self.inner.metadata()
    }
}

impl Storage for Bounded<'_> {
    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.inner.metadata(path)
    }

    fn is_file(&self, path: &Path) -> bool {
        self.inner.is_file(path)
    }

    fn symlink_metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.inner.symlink_metadata(path)
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        self.inner.canonicalize(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        self.inner.list(folder)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        Ok(Box::new(BoundedFile {
            inner: self.inner.open(path)?,
            left: self.most,
            read: Arc::clone(&self.read),
            is_exhausted: Arc::clone(&self.is_exhausted),
        }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        self.inner.create(path)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.inner.create_folder(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn has_folders(&self, path: &Path) -> bool {
        self.inner.has_folders(path)
    }

    fn remove_tree(&self, path: &Path) -> io::Result<bool> {
        self.inner.remove_tree(path)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_folder(path)
    }

    fn sync_folder(&self, path: &Path) {
        self.inner.sync_folder(path);
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.inner.lock(path)
    }

    fn free_bytes(&self, path: &Path) -> Option<u64> {
        self.inner.free_bytes(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::storage::LOCAL;

    #[test]
    fn no_more_is_read_than_may_be_and_a_file_of_just_that_size_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        LOCAL.write_file(&path, &[b'x'; 1000]).unwrap();
        for (most, is_whole) in [(999, false), (1000, true), (2000, true)] {
            let bounded = Bounded::new(LOCAL, most);
            let storage: &dyn Storage = &bounded;
            let (mut file, _) = storage.open_regular(ErrorKind::Input, &path).unwrap();
            let mut bytes = Vec::new();
            assert_eq!(file.read_to_end(&mut bytes).is_ok(), is_whole, "{most}");
            assert_eq!(bounded.is_exhausted(), !is_whole);
            assert_eq!(bounded.read(), most.min(1000));
        }
    }
}
