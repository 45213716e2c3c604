//! `Memory`: files in memory that are only read. Tests and fuzz targets open bytes from it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{FileKind, Lock, Metadata, NewFile, Storage, StoredFile};

/// Regular files by their paths.
#[derive(Debug, Default)]
pub struct Memory {
    files: BTreeMap<PathBuf, Arc<[u8]>>,
}

impl Memory {
    /// Returns a storage of these files: path and content.
    pub fn new<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let file = |(path, content): (&str, &[u8])| (PathBuf::from(path), Arc::from(content));
        Self { files: files.into_iter().map(file).collect() }
    }

    /// Returns the content of a file.
    fn content(&self, path: &Path) -> io::Result<Arc<[u8]>> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Returns the error of a change.
fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns the metadata of a content.
fn metadata_of(content: &[u8]) -> Metadata {
    Metadata { kind: FileKind::Regular, size: content.len() as u64, modified: None }
}

impl StoredFile for Cursor<Arc<[u8]>> {
    fn metadata(&self) -> io::Result<Metadata> {
        Ok(metadata_of(self.get_ref()))
    }
}

impl Storage for Memory {
    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.content(path).map(|content| metadata_of(&content))
    }

    fn symlink_metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.metadata(path)
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        self.content(path).map(|_| path.to_owned())
    }

    fn list(&self, _: &Path) -> io::Result<Vec<OsString>> {
        unsupported()
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        Ok(Box::new(Cursor::new(self.content(path)?)))
    }

    fn create(&self, _: &Path) -> io::Result<Box<dyn NewFile>> {
        unsupported()
    }

    fn create_folder(&self, _: &Path) -> io::Result<()> {
        unsupported()
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        unsupported()
    }

    fn link(&self, _: &Path, _: &Path) -> io::Result<()> {
        unsupported()
    }

    fn remove_file(&self, _: &Path) -> io::Result<()> {
        unsupported()
    }

    fn remove_folder(&self, _: &Path) -> io::Result<()> {
        unsupported()
    }

    fn sync_folder(&self, _: &Path) {}

    fn lock(&self, _: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        unsupported()
    }

    fn free_bytes(&self, _: &Path) -> Option<u64> {
        None
    }
}
