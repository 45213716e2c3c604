//! Writing: shards, the manifest, and the folder in which they become a dataset.
//!
//! A dataset is built under `OUT/.work` and moved into place once it is complete, the manifest
//! last; a file appears under its name only when it is whole and synced. (Spools that no dataset keeps
//! are not synced.) Nothing outside OUT is touched.

mod check;
mod dropped;
mod manifest;
mod seal;
mod shard;
mod state;
mod work;

use std::path::Path;

pub(crate) use dropped::{push_line, write_dropped};
pub use manifest::Manifest;
pub(crate) use manifest::{
    BenchmarkEntry, CleanedEntry, CleanedExample, DroppedEntry, ExampleEntry, InputEntry,
    LeftOutEntry, LeftOutExample, Program, RecordsEntry, ShardEntry, SourceEntry, SplitEntry,
    TokenizerEntry,
};
pub(crate) use shard::{Batch, ShardWriter, Written};
pub(crate) use state::{Identity, Stage, State, any_path};
pub(crate) use work::{
    Survey, WorkFolder, clear_leftover, save_input, saved_input, spool_of, survey,
};

use crate::error::{Error, ErrorKind};
use crate::schema::Split;

/// The tokenizer's copy in a dataset.
pub(crate) const TOKENIZER_FILE: &str = "tokenizer.json";

/// The list of dropped records in a dataset.
pub(crate) const DROPPED_FILE: &str = "dropped.jsonl";

/// Returns the error of a path that cannot be written to.
fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::io(ErrorKind::Output, path, error)
}

/// Returns the path of a shard in its dataset, such as `train/shard-00000.arrow`.
#[must_use]
pub(crate) fn shard_name(split: Split, index: usize) -> String {
    format!("{}/shard-{index:05}.arrow", split.name())
}
