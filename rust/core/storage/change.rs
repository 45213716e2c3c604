//! Changes made of several steps, built on the steps of any storage.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use super::{FileKind, NewFile, Storage};
use crate::error::{Error, ErrorKind, Result};

/// Ends the name of a file until it is published.
const TEMPORARY: &str = ".sabiprep-tmp";

/// Returns a name for the file that becomes `path`, until it is published.
///
/// No two calls return one name: on a shared disk two processes may make the same file at a time.
pub(super) fn temporary(path: &Path) -> PathBuf {
    // The standard library seeds each of these anew.
    let number = RandomState::new().hash_one(std::process::id());
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{number:016x}{TEMPORARY}"));
    path.with_file_name(name)
}

/// Returns whether a file has the name of one that was never published.
#[must_use]
pub(crate) fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(TEMPORARY)
}

/// Returns the error of a path that cannot be written to.
fn failed(path: &Path, error: &io::Error) -> Error {
    Error::io(ErrorKind::Output, path, error)
}

/// Syncs `file` and gives it its name.
pub(crate) fn finish(mut file: Box<dyn NewFile>) -> io::Result<()> {
    file.sync()?;
    file.publish()
}

impl dyn Storage + '_ {
    /// Writes `bytes` to `path`, which appears under its name once it is whole and synced.
    pub fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let write = || -> io::Result<()> {
            let mut file = self.create(path)?;
            file.write_all(bytes)?;
            finish(file)
        };
        write().map_err(|error| failed(path, &error))
    }

    /// Makes the folder that `path` will lie in.
    pub fn make_parent(&self, path: &Path) -> Result<()> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if parent.as_os_str().is_empty() {
            return Ok(());
        }
        self.create_folder(parent).map_err(|error| failed(parent, &error))
    }

    /// Removes a file or a link; does nothing where there is none.
    pub(crate) fn remove_if_there(&self, path: &Path) -> io::Result<()> {
        match self.remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Removes a file or a link, or a folder with its content; does nothing where there is none.
    pub(crate) fn remove_all(&self, path: &Path) -> io::Result<()> {
        if self.remove_tree(path)? {
            return Ok(());
        }
        match self.symlink_metadata(path) {
            Ok(metadata) if metadata.kind == FileKind::Folder => {}
            Ok(_) => return self.remove_if_there(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        for name in self.list(path)? {
            self.remove_all(&path.join(name))?;
        }
        self.remove_folder(path)
    }
}
