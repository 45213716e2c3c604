//! `PackOptions`: every setting of a run that is not in `corpus.toml`.
//!
//! The Python dataclass `sabiprep.PackOptions` has the same fields but `hub`, which Python fills in;
//! a test compares their names.

use std::num::NonZero;
use std::path::PathBuf;
use std::thread::available_parallelism;

use super::HubFiles;

/// The spool bytes held in memory by default: 192 MiB.
pub const SPOOL_BYTES: u64 = 192 << 20;

/// The settings of a run. The first three replace values of `corpus.toml`; the others never change
/// the bytes of the dataset.
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// Tokens in a row.
    pub seq_len: Option<usize>,
    /// The tokenizer file, relative to the working folder.
    pub tokenizer: Option<PathBuf>,
    /// The seed of every random choice.
    pub seed: Option<u64>,
    /// Threads that map and reduce; at least 1.
    pub threads: usize,
    /// Bytes of an input split. A reused dataset's value takes precedence.
    pub split_bytes: Option<u64>,
    /// Spool bytes held in memory; beyond them the spool is files.
    pub spool_bytes: u64,
    /// Whether a dropped record ends the run, unless the configuration chose to drop it.
    pub strict: bool,
    /// Whether a dataset of ours in OUT, or an unfinished one, may be replaced.
    pub overwrite: bool,
    /// Whether an unfinished run in OUT goes on.
    pub resume: bool,
    /// Whether the spool stays in OUT for later runs.
    pub keep_spool: bool,
    /// A dataset whose kept spool serves this run.
    pub reuse: Option<PathBuf>,
    /// The files of the Hugging Face Hub that the corpus names.
    pub hub: HubFiles,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self {
            seq_len: None,
            tokenizer: None,
            seed: None,
            threads: available_parallelism().map_or(1, NonZero::get),
            split_bytes: None,
            spool_bytes: SPOOL_BYTES,
            strict: false,
            overwrite: false,
            resume: false,
            keep_spool: false,
            reuse: None,
            hub: HubFiles::default(),
        }
    }
}
