//! Writing: shards, the manifest, and the folder in which they become a dataset.
//!
//! A dataset is built under `OUT/.work` and moved into place once it is complete, the manifest
//! last; a file appears under its name only when it is whole and synced. Nothing outside OUT is
//! touched.

mod manifest;
mod seal;
mod shard;
mod state;
mod work;

use std::io::Write;
use std::path::Path;

pub use manifest::{
    ExampleEntry, InputEntry, MANIFEST_FILE, Manifest, Program, ShardEntry, SourceEntry,
    SplitEntry, TokenizerEntry,
};
pub use shard::{Batch, ShardWriter, Written};
pub use state::{Identity, Stage, State};
pub use work::{Survey, WORK, WorkFolder, clear_leftover, spool_of, survey};

use crate::disk::{self, NewFile};
use crate::error::{Error, ErrorKind, Result};
use crate::schema::Split;

/// The tokenizer's copy in a dataset.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::io(ErrorKind::Output, path, error)
}

/// Writes `bytes` to `path`, which appears under its name once it is whole and synced.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = NewFile::create(path)?;
        file.write_all(bytes)?;
        file.finish()
    };
    write().map_err(|error| failed(path, &error))
}

/// Makes the folder that `path` will lie in.
pub fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new(""));
    if parent.as_os_str().is_empty() {
        return Ok(());
    }
    disk::create_folder(parent).map_err(|error| failed(parent, &error))
}

/// `train/shard-00000.arrow`.
#[must_use]
pub fn shard_name(split: Split, index: usize) -> String {
    format!("{}/shard-{index:05}.arrow", split.name())
}
