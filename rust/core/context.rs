//! `Context`: the machine that stages run on. It holds no data of a corpus.

use crate::monitor::Monitor;
use crate::storage::Storage;

/// The threads, the monitor and the storage that stages run with. The output depends on none of
/// them.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The number of threads to work on; at least 1.
    pub threads: usize,
    /// Receives progress, and tells when the user stops the run.
    pub monitor: &'a Monitor,
    /// Reads and writes files.
    pub storage: &'a dyn Storage,
}

impl Context<'_> {
    /// Returns the context with another number of threads.
    #[must_use]
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }
}
