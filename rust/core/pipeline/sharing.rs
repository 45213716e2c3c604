//! `Batches`: the records of a map task that other threads map, spooled in their order.
//!
//! A file that is one input split has one thread, which reads and decompresses it, spools its
//! documents, and maps records when others have enough. The threads whose tasks are done parse,
//! render and encode its records, a batch at a time. So the bytes of a spool are those that one
//! thread alone would make.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::mapper::{Mapped, Mapper};
use crate::error::Result;
use crate::job::Job;
use crate::monitor::Monitor;
use crate::read::DetachedRecord;
use crate::tasks::{Helpers, Shared, lock};

/// The size at which a batch is closed: some ten milliseconds of work. Small in tests, so that
/// small files have many.
const BATCH_BYTES: usize = if cfg!(test) { 1 << 9 } else { 128 << 10 };
/// The memory that a record takes beside its bytes, roughly.
const RECORD_BYTES: usize = 128;

/// The work on a batch, which any thread can do.
#[derive(Clone)]
pub(super) struct BatchWork<'a> {
    job: &'a Job,
    /// The source of the records.
    source: usize,
    /// Whether documents longer than a row are shortened too.
    shortens: bool,
    monitor: &'a Monitor,
    /// Mappers that no thread uses, with the words that they have encoded.
    mappers: Arc<Mutex<Vec<Mapper<'a>>>>,
}

impl<'a> BatchWork<'a> {
    /// Returns the work on batches of a source.
    pub(super) fn new(job: &'a Job, source: usize, shortens: bool, monitor: &'a Monitor) -> Self {
        Self { job, source, shortens, monitor, mappers: Arc::default() }
    }

    /// Returns a mapper for one thread.
    pub(super) fn mapper(&self) -> Mapper<'a> {
        let free = lock(&self.mappers).pop();
        free.unwrap_or_else(|| Mapper::new(self.job, self.source, self.shortens, self.monitor))
    }

    /// Maps the records of a batch.
    fn map(&self, records: &[DetachedRecord]) -> Result<Vec<Mapped>> {
        let mut mapper = self.mapper();
        let mapped = records.iter().map(|record| mapper.map(&record.record())).collect();
        lock(&self.mappers).push(mapper);
        mapped
    }
}

/// The batches of a map task that are not spooled yet.
pub(super) struct Batches<'h, 'a> {
    work: BatchWork<'a>,
    helpers: &'h Helpers<'a>,
    /// The records of the next batch, and the memory that they take.
    open: (Vec<DetachedRecord>, usize),
    /// The shared batches in order, each with the memory of its records.
    pending: VecDeque<(Shared<Result<Vec<Mapped>>>, usize)>,
    /// The memory of all records that are not spooled.
    held: usize,
}

impl<'h, 'a> Batches<'h, 'a> {
    /// Returns no batches, to be shared with `helpers`.
    pub(super) fn new(work: BatchWork<'a>, helpers: &'h Helpers<'a>) -> Self {
        Self { work, helpers, open: (Vec::new(), 0), pending: VecDeque::new(), held: 0 }
    }

    /// Returns whether the next record has to join a batch: helpers want work, or records before it
    /// are not spooled.
    pub(super) fn take_next(&self) -> bool {
        self.held > 0 || self.helpers.want_work()
    }

    /// Adds the next record. Spools what is due.
    pub(super) fn add(
        &mut self,
        record: DetachedRecord,
        spool: &mut impl FnMut(Mapped) -> Result<()>,
    ) -> Result<()> {
        let bytes = record.memory() + RECORD_BYTES;
        self.open.0.push(record);
        self.open.1 += bytes;
        self.held += bytes;
        if self.open.1 < BATCH_BYTES {
            return Ok(());
        }
        self.share();
        // Two batches for each thread. Where the helpers have enough, this thread works too.
        let most = BATCH_BYTES * 2 * (self.helpers.count() + 1);
        while let Some((batch, _)) = self.pending.front() {
            let mapped = if self.held > most || !self.helpers.want_work() {
                self.helpers.wait(batch)
            } else if let Some(mapped) = batch.ready() {
                mapped
            } else {
                break;
            };
            self.spool_front(mapped?, spool)?;
        }
        Ok(())
    }

    /// Maps and spools all that is left.
    pub(super) fn finish(&mut self, spool: &mut impl FnMut(Mapped) -> Result<()>) -> Result<()> {
        self.share();
        while let Some((batch, _)) = self.pending.front() {
            let mapped = self.helpers.wait(batch);
            self.spool_front(mapped?, spool)?;
        }
        Ok(())
    }

    /// Shares the next batch, if it has a record.
    fn share(&mut self) {
        let (records, bytes) = std::mem::take(&mut self.open);
        if !records.is_empty() {
            let work = self.work.clone();
            let batch = self.helpers.share(move || work.map(&records));
            self.pending.push_back((batch, bytes));
        }
    }

    /// Removes the first batch and spools its records.
    fn spool_front(
        &mut self,
        mapped: Vec<Mapped>,
        spool: &mut impl FnMut(Mapped) -> Result<()>,
    ) -> Result<()> {
        self.held -= self.pending.pop_front().map_or(0, |(_, bytes)| bytes);
        mapped.into_iter().try_for_each(spool)
    }
}
