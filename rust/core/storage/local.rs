//! `Local`: the file system of this machine.

#![expect(clippy::disallowed_methods, reason = "this is where files are opened and changed")]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::change::temporary;
use super::{FileKind, Lock, Metadata, NewFile, Storage, StoredFile};

/// The file system of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Local;

impl Storage for Local {
    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        fs::metadata(path).map(|metadata| described(&metadata))
    }

    fn symlink_metadata(&self, path: &Path) -> io::Result<Metadata> {
        fs::symlink_metadata(path).map(|metadata| described(&metadata))
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        path.canonicalize()
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        let entries = fs::read_dir(folder)?;
        let mut names =
            entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        let mut options = File::options();
        options.read(true);
        // A FIFO without a writer would wait for ever; a terminal must not become ours.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::custom_flags(
            &mut options,
            libc::O_NONBLOCK | libc::O_NOCTTY,
        );
        Ok(Box::new(LocalFile(options.open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        let temporary = temporary(path);
        let file = File::options().write(true).create_new(true).open(&temporary)?;
        Ok(Box::new(NewLocalFile { file: Some(file), temporary, path: path.to_owned() }))
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to).or_else(|_| {
            let mut copy = self.create(to)?;
            io::copy(&mut File::open(from)?, &mut copy)?;
            copy.sync()?;
            copy.publish()
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn sync_folder(&self, path: &Path) {
        // Some file systems cannot sync a folder; then there is nothing to do.
        if let Ok(folder) = File::open(path) {
            let _ = folder.sync_all();
        }
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let mut options = File::options();
        options.create(true).truncate(false).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::custom_flags(
            &mut options,
            libc::O_NOFOLLOW | libc::O_NONBLOCK,
        );
        let file = options.open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(LocalLock(file)))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn free_bytes(&self, path: &Path) -> Option<u64> {
        let is_below_here = path.as_os_str().is_empty() || path.is_relative();
        let path = if is_below_here { Path::new(".").join(path) } else { path.to_owned() };
        // A folder that is yet to be made will lie on the disk of the nearest one that exists.
        let nearest = path.ancestors().find(|folder| folder.is_dir())?;
        fs4::available_space(nearest).ok()
    }
}

/// Returns the metadata of the file system as our own type.
fn described(metadata: &fs::Metadata) -> Metadata {
    let kind = if metadata.is_file() {
        FileKind::Regular
    } else if metadata.is_dir() {
        FileKind::Folder
    } else if metadata.is_symlink() {
        FileKind::Link
    } else {
        FileKind::Other(name_of(metadata.file_type()))
    };
    Metadata { kind, size: metadata.len(), modified: metadata.modified().ok() }
}

/// Returns the name of a kind of file that is neither regular nor a folder.
fn name_of(kind: fs::FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a FIFO";
        }
        if kind.is_socket() {
            return "a socket";
        }
        if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
    }
    if kind.is_symlink() { "a link" } else { "something else" }
}

/// A file of this machine, open for reading.
struct LocalFile(File);

impl StoredFile for LocalFile {
    fn metadata(&self) -> io::Result<Metadata> {
        self.0.metadata().map(|metadata| described(&metadata))
    }
}

impl Read for LocalFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Seek for LocalFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.0.seek(position)
    }
}

/// A lock on a file of this machine. The system releases it when the process ends.
#[derive(Debug)]
struct LocalLock(#[expect(dead_code, reason = "the open file is the lock")] File);

impl Lock for LocalLock {}

/// A file of this machine on its way to its name.
#[derive(Debug)]
struct NewLocalFile {
    /// None once it is published.
    file: Option<File>,
    /// Its name until it is published.
    temporary: PathBuf,
    path: PathBuf,
}

impl NewLocalFile {
    /// Returns the open file.
    fn file(&mut self) -> &mut File {
        self.file.as_mut().expect("a published file is gone")
    }

    /// Tries to remove the temporary file. The caller has a worse error to report.
    fn forget(&self) {
        let _ = fs::remove_file(&self.temporary);
    }
}

impl NewFile for NewLocalFile {
    fn sync(&mut self) -> io::Result<()> {
        self.file().sync_all()
    }

    fn publish(mut self: Box<Self>) -> io::Result<()> {
        // Closed first: some systems rename no open file. A failed rename leaves it to be dropped.
        let file = self.file.take().expect("a published file is gone");
        close(file)
            .and_then(|()| fs::rename(&self.temporary, &self.path))
            .inspect_err(|_| self.forget())
    }
}

/// Closes a file. A file system of the network may tell only now that a write failed.
#[cfg(unix)]
fn close(file: File) -> io::Result<()> {
    match nix::unistd::close(file) {
        // It is closed all the same.
        Err(nix::errno::Errno::EINTR) => Ok(()),
        closed => Ok(closed?),
    }
}

/// Closes a file.
#[cfg(not(unix))]
fn close(file: File) -> io::Result<()> {
    drop(file);
    Ok(())
}

impl Write for NewLocalFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.file().write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for NewLocalFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            self.forget();
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_is_removed_or_written_through_a_link() {
        // Files that the links below lead to, and that must stay as they are.
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("victim/sub")).unwrap();
        for name in ["victim/a", "victim/sub/b"] {
            fs::write(at(name), "keep").unwrap();
        }
        let intact = || {
            let kept = ["victim/a", "victim/sub/b"]
                .map(|name| fs::read_to_string(at(name)).unwrap_or_default());
            assert_eq!(kept, ["keep", "keep"]);
        };
        fs::create_dir_all(at("tree/deep/er")).unwrap();
        for (link, target) in [
            ("tree/folder", "victim"),
            ("tree/deep/file", "victim/a"),
            ("tree/deep/er/folder", "victim/sub"),
            ("tree/nowhere", "none"),
            ("link", "victim"),
            (".new.sabiprep-tmp", "victim/a"),
            ("lock", "victim/a"),
            ("second", "none"),
        ] {
            symlink(at(target), at(link)).unwrap();
        }
        let local: &dyn Storage = &Local;
        local.remove_all(&at("tree")).unwrap();
        local.remove_all(&at("link")).unwrap();
        assert!(!at("tree").exists() && !local.is_link(&at("link")));
        intact();
        local.write_file(&at("new"), b"new").unwrap();
        assert_eq!(fs::read_to_string(at("new")).unwrap(), "new");
        assert!(local.lock(&at("lock")).is_err());
        local.link(&at("victim/a"), &at("second")).unwrap();
        assert!(!at("none").exists() && fs::read_to_string(at("second")).unwrap() == "keep");
        intact();
    }
}
