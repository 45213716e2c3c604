//! `Mapper`: turns one record into the documents that its spools receive. `Spools`: receives them,
//! in the order of the records.

use std::sync::atomic::Ordering::Relaxed;

use xxhash_rust::xxh3::xxh3_64;

use super::content::Contents;
use super::document::{Scratch, prepare, prepare_record};
use super::fit::truncate;
use super::minhash::MinHash;
use crate::choice::{Purpose, Subject, choice};
use crate::context::Context;
use crate::error::Result;
use crate::job::Job;
use crate::mask::count_targets;
use crate::monitor::Monitor;
use crate::read::Record;
use crate::schema::{DropReason, Overflow, Refusal};
use crate::segment::{Fields, Touched};
use crate::settle;
use crate::spool::{BUCKETS, DocMeta, Doubts, Dropped, Key, SpoolWriter};
use crate::tokenize::Document;

/// The documents of a record, ready for a spool, or the reason why it has none.
pub(super) type Made = std::result::Result<Documents, Refusal>;

/// The documents of a record.
#[derive(Default)]
pub(super) struct Documents {
    list: Vec<(DocMeta, Document)>,
    key: Option<Key>,
    /// The band hashes of the record, if near duplicates are dropped.
    bands: Vec<u64>,
}

/// A mapped record.
pub(super) struct Mapped {
    record_id: u64,
    whole: Made,
    /// The shortened documents, if the whole ones are too long and the task makes others.
    fitted: Option<Made>,
    /// The number of tokens of the longest whole document.
    longest: usize,
    /// Whether its quotes may have been read the wrong way.
    is_doubtful: bool,
    /// The changes that cleaning made in its texts.
    touched: Touched,
    /// The documents that were left out of it.
    left_out: Vec<Refusal>,
}

/// Maps the records of one source on one thread.
pub(super) struct Mapper<'a> {
    job: &'a Job,
    source: usize,
    /// Whether documents longer than a row are shortened too.
    shortens: bool,
    monitor: &'a Monitor,
    scratch: Scratch,
    contents: Contents,
    /// Makes band hashes, if near duplicates are dropped.
    minhash: Option<MinHash>,
}

impl<'a> Mapper<'a> {
    /// Returns a mapper for records of `source`.
    pub(super) fn new(job: &'a Job, source: usize, shortens: bool, monitor: &'a Monitor) -> Self {
        let (scratch, contents) = (Scratch::new(job), Contents::default());
        let minhash = job.plan.pack.near.map(MinHash::new);
        Self { job, source, shortens, monitor, scratch, contents, minhash }
    }

    /// Maps a record, and counts it as done.
    pub(super) fn map(&mut self, record: &Record<'_>) -> Result<Mapped> {
        let (monitor, record_id) = (self.monitor, record.id);
        monitor.check()?;
        monitor.records.fetch_add(1, Relaxed);
        // The end of its line counts too, as in the bytes of a split.
        monitor.done.fetch_add(record.bytes() as u64 + 1, Relaxed);
        let is_doubtful = record.is_doubtful();
        let prepared = prepare_record(self.job, self.source, record, &mut self.scratch);
        let touched = std::mem::take(&mut self.scratch.rendered.touched);
        let left_out = std::mem::take(&mut self.scratch.rendered.left_out);
        let mut mapped = Mapped {
            record_id,
            whole: prepared.map(|()| Documents::default()),
            fitted: None,
            longest: 0,
            is_doubtful,
            touched,
            left_out,
        };
        if mapped.whole.is_err() {
            return Ok(mapped);
        }
        let (longest, documents) = (self.scratch.longest(), self.scratch.documents.iter());
        let tokens: usize = documents.map(|document| document.ids.len()).sum();
        monitor.tokens.fetch_add(tokens as u64, Relaxed);
        (mapped.whole, mapped.longest) = (Ok(self.take(record_id)), longest);
        let is_long = self.shortens && longest > self.job.plan.pack.seq_len;
        let fields = is_long.then(|| record.fields().ok()).flatten();
        mapped.fitted = fields.map(|fields| self.shorten(record_id, fields, longest));
        Ok(mapped)
    }

    /// Makes the shortened documents of a record with these fields, whose whole documents an
    /// earlier run made.
    pub(super) fn fit(
        &mut self,
        record_id: u64,
        fields: Fields,
    ) -> std::result::Result<Made, Refusal> {
        self.scratch.rendered.record_id = record_id;
        prepare(self.job, self.source, &fields, &mut self.scratch)?;
        let longest = self.scratch.longest();
        Ok(self.shorten(record_id, fields, longest))
    }

    /// Makes the shortened documents of a record whose longest document has `longest` tokens.
    fn shorten(&mut self, record_id: u64, fields: Fields, longest: usize) -> Made {
        let origin = self.scratch.rendered.origin.take();
        let made = truncate(self.job, self.source, fields, longest, &mut self.scratch);
        // A shortened text is still known by the whole.
        self.scratch.rendered.origin = origin;
        made.map(|()| self.take(record_id))
    }

    /// Takes the documents of the record at hand out of the scratch.
    fn take(&mut self, record_id: u64) -> Documents {
        let (job, source) = (self.job, &self.job.plan.sources[self.source]);
        let text = self.scratch.content();
        let subject = Subject { name: &source.record_name, record: record_id, copy: 0 };
        // One choice a record: its documents share a bucket, so that they are settled together, and
        // those of other document tables, so that its record is counted once.
        let bucket = choice(job.plan.pack.seed, Purpose::Bucket, subject) % u64::from(BUCKETS);
        let contaminated = job.held_out.as_ref().is_some_and(|n_grams| {
            let mut texts = self.scratch.texts().chain([text]);
            texts.any(|text| n_grams.has_part_of(text))
        });
        let key = job.keyed.then(|| Key {
            content: self.contents.key(text),
            exact: xxh3_64(text.as_bytes()),
            record_id,
            ..Key::default()
        });
        let minhash = self.minhash.as_mut();
        let bands = minhash.map(|minhash| minhash.bands(self.contents.normalised()));
        let documents =
            (0..=u8::MAX).zip(self.scratch.documents.drain(..)).map(|(part, document)| {
                let targets = count_targets(&document.runs, source.loss);
                let meta = DocMeta::new(record_id, part, targets, bucket as u16, contaminated);
                (meta, document)
            });
        Documents { list: documents.collect(), key, bands: bands.unwrap_or_default() }
    }
}

/// The spools of a map task being made.
pub(super) struct Spools<'a> {
    /// Receives the whole documents.
    pub whole: SpoolWriter<'a>,
    /// Receives the shortened documents, if the task makes any.
    pub fitted: Option<SpoolWriter<'a>>,
}

impl Spools<'_> {
    /// Adds a record of `source`. Records come in their order.
    pub(super) fn push(
        &mut self,
        job: &Job,
        source: usize,
        mapped: Mapped,
        context: &Context<'_>,
    ) -> Result<()> {
        let Mapped { record_id, whole, fitted, longest, is_doubtful, touched, left_out } = mapped;
        let tally = self.whole.tally();
        tally.records += 1;
        tally.cleaned.count(record_id, &touched);
        if whole.is_ok() {
            tally.left_out.count(record_id, &left_out);
        }
        if is_doubtful {
            tally.doubts.add(Doubts { count: 1, first: Some(record_id) });
        }
        for (_, document) in whole.iter().flat_map(|made| &made.list) {
            tally.marks.add(&document.marks);
        }
        spool(&mut self.whole, record_id, whole)?;
        if let (Some(spools), Some(fitted)) = (&mut self.fitted, fitted) {
            spool(spools, record_id, fitted)?;
        }
        refuse_too_long(job, source, record_id, longest, context)
    }

    /// Ends the spools.
    pub(super) fn finish(self) -> Result<()> {
        self.whole.finish()?;
        self.fitted.map_or(Ok(()), SpoolWriter::finish)
    }
}

/// Adds the documents of a record to a spool, or counts why it has none.
pub(super) fn spool(spool: &mut SpoolWriter<'_>, record_id: u64, made: Made) -> Result<()> {
    match made {
        Ok(Documents { list, key, bands }) => {
            spool.push(list.iter().map(|(meta, document)| (*meta, document)), key, &bands)
        }
        Err(Refusal { reason, why }) => {
            spool.drop_record(reason, record_id, why);
            Ok(())
        }
    }
}

/// Refuses a record that is too long, if its source stops the run there. Settling would refuse it
/// too, but only once the whole corpus is mapped.
fn refuse_too_long(
    job: &Job,
    source: usize,
    record_id: u64,
    longest: usize,
    context: &Context<'_>,
) -> Result<()> {
    let (source, seq_len) = (&job.plan.sources[source], job.plan.pack.seq_len);
    if source.overflow != Overflow::Error || longest <= seq_len {
        return Ok(());
    }
    let why = format!("{longest} tokens, a row holds {seq_len}");
    let dropped = Dropped { reason: DropReason::TooLong, record_id, why };
    Err(settle::too_long(&job.plan, source, &dropped, context)?)
}
