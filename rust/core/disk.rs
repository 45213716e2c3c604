//! Every change to the disk, one step at a time.
//!
//! Nothing else creates, writes, renames or removes. So a test can end the program, or fill the
//! disk, at any step: `SABIPREP_TEST_FAULT=abort:N` aborts at the N-th step (a write half done),
//! `full:N` fails that step and all writes after it as a full disk does;
//! `SABIPREP_TEST_FREE_BYTES=N` has the disk say that N bytes are free.
//!
//! No link is followed by what is removed or written: a link goes, and what it leads to stays. Only
//! the folders above the path that is given may be links.

#![expect(clippy::disallowed_methods, reason = "this is where the disk is changed")]

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a test asked for.
enum Fault {
    None,
    Abort(u64),
    Full(u64),
}

static FAULT: LazyLock<Fault> = LazyLock::new(|| {
    let asked = std::env::var("SABIPREP_TEST_FAULT").unwrap_or_default();
    match asked.split_once(':').and_then(|(kind, step)| Some((kind, step.parse().ok()?))) {
        Some(("abort", step)) => Fault::Abort(step),
        Some(("full", step)) => Fault::Full(step),
        _ => Fault::None,
    }
});
static STEPS: AtomicU64 = AtomicU64::new(0);

/// Counts a step; `grows` says whether it needs room on the disk. True where the process is to end
/// in it.
fn step(grows: bool) -> io::Result<bool> {
    let now = STEPS.fetch_add(1, Relaxed) + 1;
    match *FAULT {
        Fault::Abort(at) if now == at => Ok(true),
        Fault::Full(at) if grows && now >= at => Err(io::ErrorKind::StorageFull.into()),
        _ => Ok(false),
    }
}

fn plain_step(grows: bool) -> io::Result<()> {
    if step(grows)? {
        std::process::abort();
    }
    Ok(())
}

/// Makes a folder and those above it.
pub fn create_folder(path: &Path) -> io::Result<()> {
    plain_step(true)?;
    fs::create_dir_all(path)
}

/// Gives a file or folder another name.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    plain_step(false)?;
    fs::rename(from, to)
}

/// Gives a file a second name; where the file system cannot, copies it.
pub fn link(from: &Path, to: &Path) -> io::Result<()> {
    plain_step(true)?;
    fs::hard_link(from, to).or_else(|_| {
        let mut copy = NewFile::create(to)?;
        io::copy(&mut File::open(from)?, &mut copy)?;
        copy.finish()
    })
}

/// Whether `path` itself is a link, wherever it leads.
#[must_use]
pub fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink())
}

/// Removes a file or a link, if it is there.
pub fn remove_file(path: &Path) -> io::Result<()> {
    plain_step(false)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Removes a file or a link, or a folder with what is in it, if it is there; one step for each.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => {}
        _ => return remove_file(path),
    }
    for entry in fs::read_dir(path)? {
        remove(&entry?.path())?;
    }
    plain_step(false)?;
    fs::remove_dir(path)
}

/// Removes a folder if it is empty.
pub fn remove_empty_folder(path: &Path) -> io::Result<()> {
    plain_step(false)?;
    fs::remove_dir(path)
}

/// Makes the renames of a folder durable. Some file systems cannot sync a folder; then there is
/// nothing to do.
pub fn sync_folder(path: &Path) {
    if let Ok(folder) = File::open(path) {
        let _ = folder.sync_all();
    }
}

/// Takes the lock file `path` for this process; `None` if another holds it. It is let go when the
/// file is dropped.
pub fn lock(path: &Path) -> io::Result<Option<File>> {
    plain_step(true)?;
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        libc::O_NOFOLLOW | libc::O_NONBLOCK,
    );
    let file = options.open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// A file that appears under its name only once it is whole; dropped before that, nothing is left
/// of it.
#[derive(Debug)]
pub struct NewFile {
    /// None once it is finished.
    file: Option<File>,
    path: PathBuf,
}

impl NewFile {
    /// Opens the file that will be `path`, under a temporary name beside it.
    pub fn create(path: &Path) -> io::Result<Self> {
        plain_step(true)?;
        let open = || File::options().write(true).create_new(true).open(temporary(path));
        // What has the name already was left by a process that was killed, or is a link: it goes.
        let file = open().or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => fs::remove_file(temporary(path)).and_then(|()| open()),
            _ => Err(error),
        })?;
        Ok(Self { file: Some(file), path: path.to_owned() })
    }

    /// Syncs the file and gives it its name.
    pub fn finish(mut self) -> io::Result<()> {
        let file = self.file.take().expect("a file is finished once");
        let named = plain_step(true).and_then(|()| file.sync_all()).and_then(|()| {
            drop(file);
            rename(&temporary(&self.path), &self.path)
        });
        named.inspect_err(|_| forget(&self.path))
    }
}

impl Write for NewFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let file = self.file.as_mut().expect("nothing is written to a finished file");
        if step(true)? {
            let _ = file.write_all(&buffer[..buffer.len() / 2]);
            std::process::abort();
        }
        file.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            forget(&self.path);
        }
    }
}

/// Best effort: the error that matters is the one at hand.
fn forget(path: &Path) {
    let _ = fs::remove_file(temporary(path));
}

const TEMPORARY: &str = ".sabiprep-tmp";

/// The name a file has until it is whole.
fn temporary(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(TEMPORARY);
    path.with_file_name(name)
}

/// Whether a file has a name that a file has until it is whole.
#[must_use]
pub fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(TEMPORARY)
}

/// Bytes free to this user on the file system that `path`, or the nearest folder above it that
/// exists, is on.
#[must_use]
pub fn free_bytes(path: &Path) -> Option<u64> {
    if let Ok(bytes) = std::env::var("SABIPREP_TEST_FREE_BYTES") {
        return bytes.parse().ok();
    }
    let path = if path.as_os_str().is_empty() || path.is_relative() {
        Path::new(".").join(path)
    } else {
        path.to_owned()
    };
    path.ancestors()
        .find(|folder| folder.is_dir())
        .and_then(|folder| fs4::available_space(folder).ok())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_is_removed_or_written_through_a_link() {
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
        remove(&at("tree")).unwrap();
        remove(&at("link")).unwrap();
        assert!(!at("tree").exists() && !is_link(&at("link")));
        intact();
        let mut file = NewFile::create(&at("new")).unwrap();
        file.write_all(b"new").unwrap();
        file.finish().unwrap();
        assert_eq!(fs::read_to_string(at("new")).unwrap(), "new");
        assert!(lock(&at("lock")).is_err());
        link(&at("victim/a"), &at("second")).unwrap();
        assert!(!at("none").exists() && fs::read_to_string(at("second")).unwrap() == "keep");
        intact();
    }
}
