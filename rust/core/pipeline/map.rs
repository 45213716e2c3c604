//! The map task: turns one input split into a spool of whole documents, and another of the
//! documents that were shortened to fit a row.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};

use super::mapper::{Mapper, Spools, spool};
use super::names::SpoolNames;
use super::sharing::{BatchWork, Batches};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::read::InputSplit;
use crate::spool::{Spool, SpoolWriter, Store};
use crate::tasks::Helpers;

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

impl<'a> MapStage<'a> {
    /// Fills the slots of `task`, with `helpers` where it has threads. Returns whether an earlier
    /// run made its whole documents.
    pub(crate) fn run(&self, task: &MapTask, helpers: &Helpers<'a>) -> Result<bool> {
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
            let spools = Spools { whole, fitted: missing };
            map_split(self.job, split, spools, &self.context, helpers)?;
            return Ok(false);
        }
        if let Some(fitted) = missing {
            fit_split(self.job, split, &store.spool(*slot), fitted, &self.context)?;
        }
        monitor.done.fetch_add(split.bytes, Relaxed);
        Ok(true)
    }
}

/// Maps `split` into `spools`. Threads without a task of their own take part.
fn map_split<'a>(
    job: &'a Job,
    split: &InputSplit,
    mut spools: Spools<'_>,
    context: &Context<'a>,
    helpers: &Helpers<'a>,
) -> Result<()> {
    let mut records = job.open(split, context)?;
    let shortens = spools.fitted.is_some();
    let work = BatchWork::new(job, split.source, shortens, context.monitor);
    let mut mapper = work.mapper();
    let mut batches = Batches::new(work, helpers);
    let mut spool = |mapped| spools.push(job, split.source, mapped, context);
    let read = loop {
        match records.advance() {
            Ok(Some(record)) if batches.take_next() => batches.add(record.detach(), &mut spool)?,
            Ok(Some(record)) => spool(mapper.map(&record)?)?,
            Ok(None) => break Ok(()),
            Err(error) => break Err(in_place(job, split)(error)),
        }
    };
    // The records before a fault of the file come first: one of them may stop the run too.
    batches.finish(&mut spool)?;
    read?;
    spools.finish()
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
    let mut mapper = Mapper::new(job, split.source, true, context.monitor);
    let mut records = job.open_fields(split, context)?;
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
        let made = mapper.fit(record.id, fields).map_err(|_| changed())?;
        spool(&mut fitted, record.id, made)?;
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
