//! `Context`: what every stage runs with. A leaf: it holds no data of a corpus.

use crate::monitor::Monitor;

/// What every stage runs with; none of it shows in the output.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Threads to work on; at least 1.
    pub threads: usize,
    /// Where progress is told, and where a wish to stop comes from.
    pub monitor: &'a Monitor,
}
