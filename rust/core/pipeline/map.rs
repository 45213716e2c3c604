//! The map task: turns one input split into a spool of whole documents, and another of the
//! documents that were shortened to fit a row.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::content::Contents;
use super::document::{Scratch, prepare, prepare_record};
use super::fit::truncate;
use super::names::SpoolNames;
use crate::choice::{Purpose, Subject, choice};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::mask::count_targets;
use crate::plan::Source;
use crate::read::InputSplit;
use crate::schema::{DropReason, Overflow, Refusal};
use crate::segment::Fields;
use crate::settle;
use crate::spool::{BUCKETS, DocMeta, Doubts, Dropped, Key, Spool, SpoolWriter, Store};

/// A map task: plain data that any machine can run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MapTask {
    /// The input split to read.
    pub split: InputSplit,
    /// The names of the spools to make.
    pub names: SpoolNames,
    /// The slot of the spool of whole documents.
    pub slot: usize,
    /// The slot of the spool of fitted documents, if the source shortens documents.
    pub fitted_slot: usize,
    /// Whether spools of other datasets are to be linked, so that this dataset keeps them.
    pub keep: bool,
}

/// The surroundings of map tasks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MapStage<'a> {
    /// The plan with its tokenizer and templates.
    pub job: &'a Job,
    /// The store that receives the spools.
    pub store: &'a Store<'a>,
    /// The machine that runs the tasks.
    pub context: Context<'a>,
}

impl MapStage<'_> {
    /// Fills the slots of `task`. Returns whether an earlier run made its whole documents.
    pub(crate) fn run(&self, task: &MapTask) -> Result<bool> {
        let MapTask { split, names, slot, fitted_slot, keep } = task;
        let (store, monitor) = (self.store, self.context.monitor);
        // The fitted spool depends on `seq_len`, so it may be missing where the whole one is not.
        let mut missing = None;
        if let Some(name) = &names.fitted
            && !store.take_finished(*fitted_slot, name, *keep, monitor)?
        {
            missing = Some(store.begin(*fitted_slot, name.clone()));
        }
        if !store.take_finished(*slot, &names.whole, *keep, monitor)? {
            let whole = store.begin(*slot, names.whole.clone());
            map_split(self.job, split, whole, missing, &self.context)?;
            return Ok(false);
        }
        if let Some(fitted) = missing {
            fit_split(self.job, split, &store.spool(*slot), fitted, &self.context)?;
        }
        monitor.done.fetch_add(split.bytes, Relaxed);
        Ok(true)
    }
}

/// Maps `split` into `whole`. If `fitted` is given, it receives the shortened documents.
fn map_split(
    job: &Job,
    split: &InputSplit,
    mut whole: SpoolWriter<'_>,
    mut fitted: Option<SpoolWriter<'_>>,
    context: &Context<'_>,
) -> Result<()> {
    let (source, monitor) = (&job.plan.sources[split.source], context.monitor);
    let mut records = job.open(split, context)?;
    let mut mapper = Mapper::new(job, split);
    while let Some(record) = records.advance().map_err(in_place(job, split))? {
        monitor.check()?;
        monitor.records.fetch_add(1, Relaxed);
        // The end of its line counts too, as in the bytes of a split.
        monitor.done.fetch_add(record.bytes() as u64 + 1, Relaxed);
        whole.tally().records += 1;
        let id = record.id;
        if record.is_doubtful() {
            whole.tally().doubts.add(Doubts { count: 1, first: Some(id) });
        }
        let made = prepare_record(job, split.source, &record, &mut mapper.scratch);
        if let Err(Refusal { reason, why }) = made {
            whole.drop_record(reason, id, why);
            continue;
        }
        for document in &mapper.scratch.documents {
            monitor.tokens.fetch_add(document.ids.len() as u64, Relaxed);
            whole.tally().marks.add(&document.marks);
        }
        // Before shortening, which replaces the documents at hand.
        mapper.push(&mut whole, id)?;
        let longest = mapper.scratch.longest();
        if let Some(fitted) = fitted.as_mut().filter(|_| longest > job.plan.pack.seq_len)
            && let Ok(fields) = record.fields()
        {
            mapper.shorten(fitted, id, fields)?;
        }
        refuse_too_long(job, source, id, longest, context)?;
    }
    whole.finish()?;
    fitted.map_or(Ok(()), SpoolWriter::finish)
}

/// Makes the fitted spool of a split whose whole spool an earlier run made.
fn fit_split(
    job: &Job,
    split: &InputSplit,
    whole: &Spool,
    mut fitted: SpoolWriter<'_>,
    context: &Context<'_>,
) -> Result<()> {
    // Only records with a document longer than a row are read and encoded again.
    let mut wanted = HashSet::new();
    for part in &whole.parts {
        part.for_each_record(context.storage, |_, documents| {
            if documents.iter().any(|meta| meta.tokens as usize > job.plan.pack.seq_len) {
                wanted.insert(documents[0].record_id);
            }
        })?;
    }
    if wanted.is_empty() {
        return fitted.finish();
    }
    let mut mapper = Mapper::new(job, split);
    let mut records = job.plan.open(split, context)?;
    while let Some(record) = records.advance().map_err(in_place(job, split))? {
        context.monitor.check()?;
        if !wanted.remove(&record.id) {
            continue;
        }
        // The spool was made of this record, so it can be read and encoded, unless it changed.
        let changed = || {
            let name = job.plan.inputs[split.input].name.clone();
            Error::input("was changed while it was read").file(name)
        };
        let fields = record.fields().map_err(|_| changed())?;
        let id = record.id;
        prepare(job, split.source, &fields, &mut mapper.scratch).map_err(|_| changed())?;
        mapper.shorten(&mut fitted, id, fields)?;
        // The rest of the split has no document to shorten.
        if wanted.is_empty() {
            break;
        }
    }
    fitted.finish()
}

/// Returns a function that adds the file and the source of `split` to an error.
fn in_place<'a>(job: &'a Job, split: &InputSplit) -> impl Fn(Error) -> Error + 'a {
    let (source, input) = (&job.plan.sources[split.source], &job.plan.inputs[split.input]);
    |error: Error| error.file(input.name.clone()).source(source.name.clone())
}

/// The state of a map task between records.
struct Mapper<'a> {
    job: &'a Job,
    source: usize,
    scratch: Scratch,
    contents: Contents,
}

impl<'a> Mapper<'a> {
    /// Returns the state before the first record of `split`.
    fn new(job: &'a Job, split: &InputSplit) -> Self {
        let contents = Contents::default();
        Self { job, source: split.source, scratch: Scratch::new(job), contents }
    }

    /// Spools the documents of the record at hand.
    fn push(&mut self, spool: &mut SpoolWriter<'_>, record_id: u64) -> Result<()> {
        let (job, source) = (self.job, &self.job.plan.sources[self.source]);
        let text = &self.scratch.text;
        let subject = Subject { name: &source.name, record: record_id, copy: 0 };
        // One choice a record: its documents share a bucket, so that they are settled together.
        let bucket = choice(job.plan.pack.seed, Purpose::Bucket, subject) % u64::from(BUCKETS);
        let contaminated = job
            .held_out
            .as_ref()
            .is_some_and(|n_grams| self.scratch.texts().any(|text| n_grams.has_part_of(text)));
        let key = job.keyed.then(|| Key {
            content: self.contents.key(text),
            exact: xxh3_64(text.as_bytes()),
            record_id,
            ..Key::default()
        });
        let documents = (0..).zip(&self.scratch.documents).map(|(part, document)| {
            let targets = count_targets(&document.runs, source.loss);
            let meta = DocMeta::new(record_id, part, targets, bucket as u16, contaminated);
            (meta, document)
        });
        spool.push(documents, key)
    }

    /// Spools the shortened documents of the record at hand, or counts why there are none.
    fn shorten(
        &mut self,
        spool: &mut SpoolWriter<'_>,
        record_id: u64,
        fields: Fields,
    ) -> Result<()> {
        match truncate(self.job, self.source, fields, &mut self.scratch) {
            Ok(()) => self.push(spool, record_id),
            Err(Refusal { reason, why }) => {
                spool.drop_record(reason, record_id, why);
                Ok(())
            }
        }
    }
}

/// Refuses a record that is too long, if its source stops the run there. Settling would refuse it
/// too, but only once the whole corpus is mapped.
fn refuse_too_long(
    job: &Job,
    source: &Source,
    record_id: u64,
    longest: usize,
    context: &Context<'_>,
) -> Result<()> {
    let seq_len = job.plan.pack.seq_len;
    if source.overflow != Overflow::Error || longest <= seq_len {
        return Ok(());
    }
    let why = format!("{longest} tokens, a row holds {seq_len}");
    let dropped = Dropped { reason: DropReason::TooLong, record_id, why };
    Err(settle::too_long(&job.plan, source, &dropped, context)?)
}
