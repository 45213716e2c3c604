//! `Places`: the file system and the stores of the network, told apart by how a path begins.

use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::remote::{Remote, is_remote};
use super::{Local, Lock, Metadata, NewFile, Storage, StoredFile, finish};

/// Every place that a path may name. Paths without a scheme are those of [`Local`].
#[derive(Debug, Default)]
pub struct Places {
    remote: Remote,
}

impl Places {
    /// Returns the file system beside the stores of `remote`.
    #[must_use]
    pub fn over(remote: Remote) -> Self {
        Self { remote }
    }

    /// Returns the storage of a path.
    fn of(&self, path: &Path) -> &dyn Storage {
        if is_remote(path) { &self.remote } else { &Local }
    }

    /// Returns the one storage within which both paths can be served in one step, if any.
    fn of_both(&self, a: &Path, b: &Path) -> Option<&dyn Storage> {
        match (is_remote(a), is_remote(b)) {
            (false, false) => Some(&Local),
            (true, true) if Remote::share_store(a, b) => Some(&self.remote),
            _ => None,
        }
    }
}

impl Storage for Places {
    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.of(path).metadata(path)
    }

    fn is_file(&self, path: &Path) -> bool {
        self.of(path).is_file(path)
    }

    fn symlink_metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.of(path).symlink_metadata(path)
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        self.of(path).canonicalize(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        self.of(folder).list(folder)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        self.of(path).open(path)
    }

    fn read_at(&self, path: &Path, range: Range<u64>) -> io::Result<Option<Vec<u8>>> {
        self.of(path).read_at(path, range)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        self.of(path).create(path)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.of(path).create_folder(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.of_both(from, to) {
            Some(storage) => storage.rename(from, to),
            None => self.link(from, to).and_then(|()| self.remove_file(from)),
        }
    }

    fn has_folders(&self, path: &Path) -> bool {
        self.of(path).has_folders(path)
    }

    fn remove_tree(&self, path: &Path) -> io::Result<bool> {
        self.of(path).remove_tree(path)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        if let Some(storage) = self.of_both(from, to) {
            return storage.link(from, to);
        }
        let mut copy = self.create(to)?;
        io::copy(&mut self.open(from)?, &mut copy)?;
        finish(copy)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.of(path).remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.of(path).remove_folder(path)
    }

    fn sync_folder(&self, path: &Path) {
        self.of(path).sync_folder(path);
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.of(path).lock(path)
    }

    fn free_bytes(&self, path: &Path) -> Option<u64> {
        self.of(path).free_bytes(path)
    }
}
