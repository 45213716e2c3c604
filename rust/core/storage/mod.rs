//! `Storage`: reads and writes files. Every change that a run makes to a disk goes through it.
//!
//! The core opens, creates, renames and removes files nowhere else. `Local` is the file system,
//! `Remote` the stores of the network, `Places` both, told apart by how a path begins; tests add a storage that ends the process, or fails as a full disk does, at any step. A method
//! of the trait is one such step. Reading and removing whole trees are built on the steps (`read`,
//! `change`), so that every storage shares them.
//!
//! Writing and removing never follow a link: the link is removed, and its target stays. Only the
//! folders above a path that the user gives may be links.

mod bounded;
mod change;
mod compression;
mod local;
mod members;
#[cfg(any(test, fuzzing))]
mod memory;
mod places;
mod read;
mod remote;
mod stored;
mod zip;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read, Seek, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub(crate) use bounded::Bounded;
pub(crate) use change::{finish, is_temporary};
pub(crate) use compression::{Compression, Flaw, unreadable};
pub use local::Local;
#[cfg(any(test, fuzzing))]
pub(crate) use memory::Memory;
pub use places::Places;
pub(crate) use read::{BOM, Stamp};
pub use remote::Remote;
pub(crate) use remote::{below, is_listed, split_store};

/// The local file system, for unit tests.
#[cfg(test)]
pub(crate) const LOCAL: &dyn Storage = &Local;

/// The kind of file that a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A folder.
    Folder,
    /// A link, by methods that do not follow it.
    Link,
    /// Any other kind, by its name in an error.
    Other(&'static str),
}

/// The kind, size and age of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// The kind of the file.
    pub kind: FileKind,
    /// The size of the file in bytes.
    pub size: u64,
    /// The time of its last change, if the storage knows it.
    pub modified: Option<SystemTime>,
}

/// A place for files. Each method is one step.
pub trait Storage: fmt::Debug + Send + Sync {
    /// Returns the metadata of the file that `path` leads to; follows links.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;
    /// Returns whether `path` leads to a regular file; no where that cannot be told.
    fn is_file(&self, path: &Path) -> bool {
        self.metadata(path).is_ok_and(|metadata| metadata.kind == FileKind::Regular)
    }
    /// Returns the metadata of `path` itself; follows no link at its end.
    fn symlink_metadata(&self, path: &Path) -> io::Result<Metadata>;
    /// Returns the absolute path, free of links, of the file that `path` leads to.
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf>;
    /// Returns the names in a folder, sorted, as the storage spells them.
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>>;
    /// Opens a file for reading, whatever its kind, and does not wait for its content.
    fn open(&self, path: &Path) -> io::Result<Box<dyn StoredFile>>;
    /// Returns a range of a file of ours, which nothing changes once it is there; `None` where that
    /// is no faster than to open the file.
    fn read_at(&self, _path: &Path, _range: Range<u64>) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }
    /// Begins a file that appears as `path` once it is published.
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>>;
    /// Makes a folder and the folders above it.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// Gives a file or folder another name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Returns whether folders and links are things of their own at `path`. Where they are not, no
    /// path is a link, and a folder is renamed one file after another.
    fn has_folders(&self, _path: &Path) -> bool {
        true
    }
    /// Removes everything at and below `path` at once, where the storage can; returns whether it did.
    fn remove_tree(&self, _path: &Path) -> io::Result<bool> {
        Ok(false)
    }
    /// Gives a file a second name; copies the file where the storage knows no second names.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file or a link.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes the renames of a folder durable, where the storage can.
    fn sync_folder(&self, path: &Path);
    /// Takes the lock `path` for this process; returns `None` if another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>>;
    /// Returns the bytes free to this user on the disk of `path`; `None` if unknown.
    fn free_bytes(&self, path: &Path) -> Option<u64>;
}

/// A file open for reading.
pub trait StoredFile: Read + Seek + Send {
    /// Returns the metadata of the open file, which no rename can exchange any more.
    fn metadata(&self) -> io::Result<Metadata>;
}

/// A file that is written under a temporary name. Dropped before it is published, it is removed.
pub trait NewFile: Write + fmt::Debug + Send + Sync {
    /// Makes the content durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Gives the file its name.
    fn publish(self: Box<Self>) -> io::Result<()>;
}

/// A lock that a process holds until the value is dropped.
pub trait Lock: fmt::Debug + Send + Sync {}
