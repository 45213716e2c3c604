//! Writing: every file the core writes is opened here.
//!
//! A dataset is built under `OUT/.work` and moved into place once it is complete, the manifest last; a file appears
//! under its name only when it is whole and synced. Nothing outside OUT is touched.

#![expect(clippy::disallowed_methods, reason = "this is where files are opened for writing")]

mod manifest;
mod shard;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

pub use manifest::{
    ExampleEntry, InputEntry, MANIFEST_FILE, Manifest, Program, ShardEntry, SourceEntry, SplitEntry, TokenizerEntry,
};
pub use shard::{ShardWriter, Written};

use crate::error::{Error, Kind, Result};
use crate::schema::Side;

/// The folder of unfinished work inside OUT.
pub const WORK: &str = ".work";
/// The file in it that says whose work it is.
const MARKER: &str = "sabiprep-work";
/// The tokenizer's copy in a dataset.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::io(Kind::Output, path, error)
}

/// Writes `bytes` to `path` through a temporary file beside it: synced, then renamed.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = temporary(path);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        // Best effort: the error that matters is the one at hand.
        let _ = fs::remove_file(&temporary);
        failed(path, &error)
    })
}

/// The name a file has until it is whole.
fn temporary(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".sabiprep-tmp");
    path.with_file_name(name)
}

/// Makes the renames of a folder durable. Some file systems cannot sync a folder; then there is nothing to do.
fn sync_folder(path: &Path) {
    if let Ok(folder) = File::open(path) {
        let _ = folder.sync_all();
    }
}

/// A dataset folder being made. Dropped before [`OutFolder::commit`], it is left as it was found.
#[derive(Debug)]
pub struct OutFolder {
    out: PathBuf,
    /// The folders that did not exist before, the innermost first.
    made: Vec<PathBuf>,
    /// Whether the dataset is on its way into place: from then on nothing of it is removed.
    is_moving: bool,
}

impl Drop for OutFolder {
    fn drop(&mut self) {
        let work = self.out.join(WORK);
        if work.exists() && !self.is_moving {
            // Best effort: what cannot be removed bears our marker, and --overwrite takes it.
            let _ = fs::remove_dir_all(&work);
            for folder in &self.made {
                let _ = fs::remove_dir(folder);
            }
        }
    }
}

impl OutFolder {
    /// Claims `out`: missing or empty, or with `overwrite` one that bears our manifest or work marker.
    pub fn claim(out: &Path, overwrite: bool) -> Result<Self> {
        let shown = out.display().to_string();
        if out.exists() && !out.is_dir() {
            return Err(Error::output("is not a folder").file(shown).remedy("name another folder for the dataset"));
        }
        let work = out.join(WORK);
        let has_manifest = out.join(MANIFEST_FILE).is_file();
        let is_ours = Manifest::is_ours(out) || work.join(MARKER).is_file();
        let is_empty = !out.exists() || fs::read_dir(out).map_err(|error| failed(out, &error))?.next().is_none();
        if !is_empty && !is_ours {
            return Err(Error::output("is not empty and holds no dataset of sabiprep").file(shown).remedy(
                "name an empty or a new folder; --overwrite replaces only a folder with a dataset of sabiprep",
            ));
        }
        if !is_empty && !overwrite {
            let what = if has_manifest { "holds a dataset" } else { "holds an unfinished run" };
            return Err(Error::output(what).file(shown).remedy("pass --overwrite to replace it"));
        }
        if work.exists() && !work.join(MARKER).is_file() {
            return Err(Error::output("was not made by sabiprep, and its name is needed")
                .file(work.display().to_string())
                .remedy("move it away, or name another folder for the dataset"));
        }
        let prepare = || -> std::io::Result<()> {
            fs::create_dir_all(&work)?;
            fs::write(work.join(MARKER), concat!("sabiprep ", env!("CARGO_PKG_VERSION"), "\n"))?;
            for name in Side::ALL.map(Side::name) {
                remove_if_there(&work.join(name))?;
                fs::create_dir(work.join(name))?;
            }
            Ok(())
        };
        let made = missing_folders(out);
        prepare().map_err(|error| failed(out, &error))?;
        Ok(Self { out: out.to_owned(), made, is_moving: false })
    }

    /// Where shard `index` of `side` is written.
    #[must_use]
    pub fn shard_path(&self, side: Side, index: usize) -> PathBuf {
        self.out.join(WORK).join(shard_name(side, index))
    }

    /// Moves the finished dataset into place, in the stead of an old one.
    pub fn commit(mut self, tokenizer: &[u8], manifest: &Manifest) -> Result<()> {
        let work = self.out.join(WORK);
        let text = manifest.to_text();
        write_file(&work.join(TOKENIZER_FILE), tokenizer)?;
        write_file(&work.join(MANIFEST_FILE), text.as_bytes())?;
        self.is_moving = true;
        let moved = || -> std::io::Result<()> {
            // From here on the folder is unfinished until its manifest is back.
            remove_if_there(&self.out.join(MANIFEST_FILE))?;
            for name in Side::ALL.map(Side::name).into_iter().chain([TOKENIZER_FILE, MANIFEST_FILE]) {
                remove_if_there(&self.out.join(name))?;
                if name == MANIFEST_FILE {
                    sync_folder(&self.out);
                }
                fs::rename(work.join(name), self.out.join(name))?;
            }
            fs::remove_dir_all(&work)
        };
        moved().map_err(|error| failed(&self.out, &error))?;
        sync_folder(&self.out);
        Ok(())
    }
}

/// The folders of `path` that do not exist, the innermost first.
fn missing_folders(path: &Path) -> Vec<PathBuf> {
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    path.ancestors().take_while(is_missing).map(Path::to_owned).collect()
}

/// Makes the folder that `path` will lie in.
pub fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new(""));
    if parent.as_os_str().is_empty() {
        return Ok(());
    }
    fs::create_dir_all(parent).map_err(|error| failed(parent, &error))
}

/// `train/shard-00000.arrow`.
#[must_use]
pub fn shard_name(side: Side, index: usize) -> String {
    format!("{}/shard-{index:05}.arrow", side.name())
}

fn remove_if_there(path: &Path) -> std::io::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
