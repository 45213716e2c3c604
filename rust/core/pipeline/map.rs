//! The map task: one input split becomes a spool of whole documents, and one of those that were
//! made to fit a row.

use std::sync::atomic::Ordering::Relaxed;

use xxhash_rust::xxh3::xxh3_64;

use super::Job;
use super::content::Contents;
use super::fit::truncate;
use crate::choice::{Subject, choice};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::mask::count_targets;
use crate::monitor::Monitor;
use crate::plan::Source;
use crate::read::{InputSplit, Record, Records};
use crate::schema::{DropReason, Overflow, Refusal, Run, SpecialInData, push_run, window_count};
use crate::segment::{Fields, Rendered};
use crate::settle;
use crate::spool::{BUCKETS, DocMeta, Dropped, Key, Spool, SpoolWriter};
use crate::tokenize::{Document, Session};

/// Maps `split` into `whole`, and what it shortens into `fitted`, if that is wanted.
pub fn map_split(
    job: &Job<'_>,
    split: &InputSplit,
    mut whole: SpoolWriter<'_>,
    mut fitted: Option<SpoolWriter<'_>>,
    monitor: &Monitor,
) -> Result<()> {
    let source = &job.plan.sources[split.source];
    let context = Context { threads: 1, monitor };
    let mut records = job.segmenters[split.source].open(job.plan, split, &context)?;
    let mut task = Task::new(job, split);
    while let Some(record) = records.advance().map_err(in_place(job, split))? {
        monitor.check()?;
        monitor.records.fetch_add(1, Relaxed);
        monitor.done.fetch_add(record.bytes() as u64 + 1, Relaxed);
        whole.tally().records += 1;
        let id = record.id;
        let prepared = prepare_record(job, split.source, &record, &mut task.scratch);
        match prepared {
            Ok(document) => {
                monitor.tokens.fetch_add(document.ids.len() as u64, Relaxed);
                whole.tally().marks.add(&document.marks);
                task.push(&mut whole, id, &document)?;
                let len = document.ids.len();
                if let Some(fitted) = fitted.as_mut().filter(|_| len > job.plan.pack.seq_len)
                    && let Ok(fields) = record.fields()
                {
                    task.shorten(fitted, id, fields, len)?;
                }
                refuse_too_long(job, source, id, len)?;
            }
            Err(Refusal { reason, why }) => whole.tally().drop_record(reason, id, || why),
        }
    }
    whole.finish()?;
    fitted.map_or(Ok(()), SpoolWriter::finish)
}

/// Makes the records of `split` fit whose documents in `whole` do not: what [`map_split`] does of
/// them.
pub fn fit_split(
    job: &Job<'_>,
    split: &InputSplit,
    whole: &Spool,
    mut fitted: SpoolWriter<'_>,
    monitor: &Monitor,
) -> Result<()> {
    let mut wanted = std::collections::HashSet::new();
    for part in &whole.parts {
        for meta in part.metas(0..part.layout.documents as usize)? {
            if meta.tokens as usize > job.plan.pack.seq_len {
                wanted.insert(meta.record_id);
            }
        }
    }
    let mut task = Task::new(job, split);
    let context = Context { threads: 1, monitor };
    let mut records = if wanted.is_empty() { None } else { Some(job.plan.open(split, &context)?) };
    while let Some(record) =
        records.as_mut().map_or(Ok(None), Records::advance).map_err(in_place(job, split))?
    {
        monitor.check()?;
        if !wanted.remove(&record.id) {
            continue;
        }
        let changed = || {
            Error::input("was changed while it was read")
                .file(job.plan.inputs[split.input].name.clone())
        };
        let fields = record.fields().map_err(|_| changed())?;
        let document =
            prepare(job, split.source, &fields, &mut task.scratch).map_err(|_| changed())?;
        task.shorten(&mut fitted, record.id, fields, document.ids.len())?;
        if wanted.is_empty() {
            break;
        }
    }
    fitted.finish()
}

fn in_place<'a>(job: &'a Job<'_>, split: &InputSplit) -> impl Fn(Error) -> Error + 'a {
    let (source, input) = (&job.plan.sources[split.source], &job.plan.inputs[split.input]);
    |error: Error| error.file(input.name.clone()).source(source.name.clone())
}

/// What stays from record to record.
#[derive(Debug)]
pub struct Scratch {
    /// The text of the record at hand.
    pub rendered: Rendered,
    /// The tokenizer's.
    pub session: Session,
}

impl Scratch {
    /// An empty one, for one thread.
    pub fn new(job: &Job<'_>) -> Self {
        Self { rendered: Rendered::default(), session: job.encoder.session() }
    }
}

/// Makes a document of a record, whatever its length, or says why there is none.
pub fn prepare_record(
    job: &Job<'_>,
    source: usize,
    record: &Record<'_>,
    scratch: &mut Scratch,
) -> std::result::Result<Document, Refusal> {
    job.segmenters[source].render_record(record, &mut scratch.rendered)?;
    encode(job, source, scratch)
}

/// Makes a document of the fields of a record, as [`prepare_record`] does.
pub fn prepare(
    job: &Job<'_>,
    source: usize,
    fields: &Fields,
    scratch: &mut Scratch,
) -> std::result::Result<Document, Refusal> {
    job.segmenters[source].render(fields, &mut scratch.rendered)?;
    encode(job, source, scratch)
}

/// A rendered record as a document.
fn encode(
    job: &Job<'_>,
    source: usize,
    scratch: &mut Scratch,
) -> std::result::Result<Document, Refusal> {
    let Scratch { rendered, session } = scratch;
    if job.plan.sources[source].special_in_data == SpecialInData::Error
        && let Some(token) = job.encoder.control_in_data(rendered)
    {
        return Err(Refusal::new(
            DropReason::Refused,
            format!("its data spells the control token '{token}'"),
        ));
    }
    job.encoder.encode(rendered, session)
}

/// What a map task holds from record to record.
struct Task<'a> {
    job: &'a Job<'a>,
    source: usize,
    scratch: Scratch,
    contents: Contents,
}

impl<'a> Task<'a> {
    fn new(job: &'a Job<'a>, split: &InputSplit) -> Self {
        Self {
            job,
            source: split.source,
            scratch: Scratch::new(job),
            contents: Contents::default(),
        }
    }

    /// Spools the document of the record at hand.
    fn push(
        &mut self,
        spool: &mut SpoolWriter<'_>,
        record_id: u64,
        document: &Document,
    ) -> Result<()> {
        let (job, source, text) =
            (self.job, &self.job.plan.sources[self.source], &self.scratch.rendered.text);
        let subject = Subject { name: &source.name, record: record_id, copy: 0 };
        let bucket = choice(job.plan.pack.seed, "bucket", subject) % u64::from(BUCKETS);
        let contaminated = job.held_out.as_ref().is_some_and(|held_out| held_out.has_part_of(text));
        let meta = DocMeta::new(
            record_id,
            count_targets(&document.runs, source.loss),
            bucket as u16,
            contaminated,
        );
        let key = job.keyed.then(|| Key {
            content: self.contents.key(text),
            exact: xxh3_64(text.as_bytes()),
            record_id,
            ..Key::default()
        });
        spool.push(meta, key, document)
    }

    /// Spools the shortened document of a record whose own has `len` tokens, or counts why there is
    /// none.
    fn shorten(
        &mut self,
        spool: &mut SpoolWriter<'_>,
        record_id: u64,
        fields: Fields,
        len: usize,
    ) -> Result<()> {
        match truncate(self.job, self.source, fields, &mut self.scratch, len) {
            Ok(document) => self.push(spool, record_id, &document),
            Err(Refusal { reason, why }) => {
                spool.tally().drop_record(reason, record_id, || why);
                Ok(())
            }
        }
    }
}

/// Stops the run at a record that is too long, where its source says so: better now than when all
/// is mapped.
fn refuse_too_long(job: &Job<'_>, source: &Source, record_id: u64, len: usize) -> Result<()> {
    let seq_len = job.plan.pack.seq_len;
    if source.overflow != Overflow::Error || window_count(len, seq_len) == 1 {
        return Ok(());
    }
    let why = format!("{len} tokens, a row holds {seq_len}");
    Err(settle::too_long(
        job.plan,
        source,
        &Dropped { reason: DropReason::TooLong, record_id, why },
    )?)
}

/// The role runs of tokens `start..end`.
pub fn cut_runs(runs: &[Run], start: usize, end: usize) -> Vec<Run> {
    let mut cut = Vec::new();
    let mut at = 0;
    for run in runs {
        let next = at + run.len as usize;
        let len = next.min(end).saturating_sub(at.max(start));
        push_run(&mut cut, len as u32, run.role);
        at = next;
    }
    cut
}
