//! A storage that fails: at a chosen step the process ends, or the disk is full.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sabiprep::storage::{Local, Lock, Metadata, NewFile, Storage, StoredFile};

/// The failure of a storage.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The process is aborted at this step; a write is half done.
    Abort(u64),
    /// From this step on, every step that needs room fails.
    Full(u64),
    /// The disk reports this many free bytes.
    Free(u64),
}

impl Fault {
    /// Reads `abort:N` or `full:N`.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, step) = text.split_once(':')?;
        let step = step.parse().ok()?;
        match kind {
            "abort" => Some(Self::Abort(step)),
            "full" => Some(Self::Full(step)),
            _ => None,
        }
    }
}

/// The local file system with a fault. Each change is a step; steps are counted from 1.
#[derive(Debug)]
pub struct Faulty {
    fault: Fault,
    steps: Arc<AtomicU64>,
}

impl Faulty {
    /// Returns a storage with `fault`.
    pub fn new(fault: Fault) -> Self {
        Self { fault, steps: Arc::default() }
    }

    /// Counts a step. Returns whether the process is to end in this step. `grows` tells whether the
    /// step needs room.
    fn step(fault: Fault, steps: &AtomicU64, grows: bool) -> io::Result<bool> {
        let now = steps.fetch_add(1, Relaxed) + 1;
        match fault {
            Fault::Abort(at) if now == at => Ok(true),
            Fault::Full(at) if grows && now >= at => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(false),
        }
    }

    /// Counts a step of which nothing is done before the process ends.
    fn plain_step(&self, grows: bool) -> io::Result<()> {
        if Self::step(self.fault, &self.steps, grows)? {
            std::process::abort();
        }
        Ok(())
    }
}

impl Storage for Faulty {
    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        Local.metadata(path)
    }

    fn symlink_metadata(&self, path: &Path) -> io::Result<Metadata> {
        Local.symlink_metadata(path)
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        Local.canonicalize(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        Local.list(folder)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        Local.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        self.plain_step(true)?;
        let (fault, steps) = (self.fault, Arc::clone(&self.steps));
        Ok(Box::new(FaultyFile { file: Local.create(path)?, fault, steps }))
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.plain_step(true)?;
        Local.create_folder(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.plain_step(false)?;
        Local.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.plain_step(true)?;
        Local.link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.plain_step(false)?;
        Local.remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.plain_step(false)?;
        Local.remove_folder(path)
    }

    fn sync_folder(&self, path: &Path) {
        Local.sync_folder(path);
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.plain_step(true)?;
        Local.lock(path)
    }

    fn free_bytes(&self, path: &Path) -> Option<u64> {
        if let Fault::Free(bytes) = self.fault { Some(bytes) } else { Local.free_bytes(path) }
    }
}

/// A file of the storage on its way to its name.
#[derive(Debug)]
struct FaultyFile {
    file: Box<dyn NewFile>,
    fault: Fault,
    steps: Arc<AtomicU64>,
}

impl FaultyFile {
    /// Counts a step of which nothing is done before the process ends.
    fn step(&self, grows: bool) -> io::Result<()> {
        if Faulty::step(self.fault, &self.steps, grows)? {
            std::process::abort();
        }
        Ok(())
    }
}

impl NewFile for FaultyFile {
    fn sync(&mut self) -> io::Result<()> {
        self.step(true)?;
        self.file.sync()
    }

    fn publish(self: Box<Self>) -> io::Result<()> {
        self.step(false)?;
        self.file.publish()
    }
}

impl Write for FaultyFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if Faulty::step(self.fault, &self.steps, true)? {
            let _ = self.file.write_all(&buffer[..buffer.len() / 2]);
            std::process::abort();
        }
        self.file.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
