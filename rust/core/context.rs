//! `Context`: the machine that stages run on. It holds no data of a corpus.

use crate::monitor::Monitor;
use crate::storage::Storage;

/// The threads, the observer and the storage that stages run with; none of them shows in the output.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Threads to work on; at least 1.
    pub threads: usize,
    /// Where progress is told, and where a wish to stop comes from.
    pub monitor: &'a Monitor,
    /// Where files are read and written.
    pub storage: &'a dyn Storage,
}

impl Context<'_> {
    /// Returns the same with another number of threads.
    #[must_use]
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }
}
