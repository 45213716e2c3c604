//! `Monitor`: shows the progress of a running job to the outside, and carries the request to stop.
//! A leaf.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};

use crate::error::{Error, Result};

/// A phase of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Reading the configuration and the tokenizer.
    Plan,
    /// Reading and tokenizing.
    Map,
    /// Packing and writing.
    Reduce,
    /// Reading a dataset.
    Verify,
    /// Training a tokenizer.
    Train,
}

impl Phase {
    const ALL: [Self; 5] = [Self::Plan, Self::Map, Self::Reduce, Self::Verify, Self::Train];

    /// Returns the name of the phase.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Map => "map",
            Self::Reduce => "reduce",
            Self::Verify => "verify",
            Self::Train => "train",
        }
    }
}

/// The request that a job stop, for code that outlives a borrow of the job's [`Monitor`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Returns an error once the job has been asked to stop.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Relaxed) { Err(Error::interrupted()) } else { Ok(()) }
    }
}

/// Counters that a job advances and others read.
#[derive(Debug, Default)]
pub struct Monitor {
    phase: AtomicU8,
    /// The number of records read.
    pub records: AtomicU64,
    /// The bytes (map) or rows (reduce, verify) done in this phase.
    pub done: AtomicU64,
    /// The value of `done` at the end of the phase; 0 if unknown.
    pub total: AtomicU64,
    /// The number of tokens made.
    pub tokens: AtomicU64,
    stop: Stop,
}

impl Monitor {
    /// Begins a phase of `total` units and resets `done`.
    pub(crate) fn begin(&self, phase: Phase, total: u64) {
        self.done.store(0, Relaxed);
        self.total.store(total, Relaxed);
        self.phase.store(phase as u8, Relaxed);
    }

    /// Returns the current phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Relaxed)) % Phase::ALL.len()]
    }

    /// Asks the job to stop.
    pub fn cancel(&self) {
        self.stop.0.store(true, Relaxed);
    }

    /// Returns an error once the job has been asked to stop.
    pub fn check(&self) -> Result<()> {
        self.stop.check()
    }

    /// Returns the stop request, to be checked elsewhere.
    #[must_use]
    pub(crate) fn stop(&self) -> Stop {
        self.stop.clone()
    }
}
