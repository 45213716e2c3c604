//! The map task: one input split becomes a spool of whole documents, and one of those that were made to fit a row.

use std::sync::atomic::Ordering::Relaxed;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::Job;
use super::fit::truncate;
use crate::choice::{Subject, choice};
use crate::error::{Error, Result};
use crate::mask::count_targets;
use crate::monitor::Monitor;
use crate::plan::Source;
use crate::read::{Record, Records, Split};
use crate::schema::{Drop, Overflow, Refusal, Run, SpecialInData, push_run, window_count};
use crate::segment::{Fields, Rendered};
use crate::settle;
use crate::spool::{BUCKETS, Dropped, Head, Key, Spool, SpoolWriter};
use crate::tokenize::Document;

/// Maps `split` into `whole`, and what it shortens into `fitted`, if that is wanted.
pub fn map_split(
    job: &Job<'_>,
    split: &Split,
    mut whole: SpoolWriter<'_>,
    mut fitted: Option<SpoolWriter<'_>>,
    monitor: &Monitor,
) -> Result<()> {
    let source = &job.plan.sources[split.source];
    let mut records = open(job, split)?;
    let mut rendered = Rendered::default();
    while let Some(record) = records.advance().map_err(in_place(job, split))? {
        monitor.check()?;
        monitor.records.fetch_add(1, Relaxed);
        monitor.done.fetch_add(record.bytes as u64 + 1, Relaxed);
        whole.tally().records += 1;
        let Record { id, fields, .. } = record;
        let prepared = fields
            .and_then(|fields| prepare(job, split.source, &fields, &mut rendered).map(|document| (fields, document)));
        match prepared {
            Ok((fields, document)) => {
                monitor.tokens.fetch_add(document.ids.len() as u64, Relaxed);
                push(job, source, &mut whole, id, &rendered, &document)?;
                let len = document.ids.len();
                if let Some(fitted) = fitted.as_mut().filter(|_| len > job.plan.pack.seq_len) {
                    shorten(job, split.source, fitted, id, fields, &mut rendered, len)?;
                }
                refuse_too_long(job, source, id, len)?;
            }
            Err(Refusal { reason, why }) => whole.tally().drop_record(reason, id, || why),
        }
    }
    whole.finish()?;
    fitted.map_or(Ok(()), SpoolWriter::finish)
}

/// Makes the records of `split` fit whose documents in `whole` do not: what [`map_split`] does of them.
pub fn fit_split(
    job: &Job<'_>,
    split: &Split,
    whole: &Spool,
    mut fitted: SpoolWriter<'_>,
    monitor: &Monitor,
) -> Result<()> {
    let mut wanted = std::collections::HashSet::new();
    for part in &whole.parts {
        for head in part.heads(0..part.layout.heads as usize)? {
            if head.tokens as usize > job.plan.pack.seq_len {
                wanted.insert(head.record_id);
            }
        }
    }
    let mut rendered = Rendered::default();
    let mut records = if wanted.is_empty() { None } else { Some(open(job, split)?) };
    while let Some(record) = records.as_mut().map_or(Ok(None), Records::advance).map_err(in_place(job, split))? {
        monitor.check()?;
        if !wanted.remove(&record.id) {
            continue;
        }
        let changed = || Error::input("was changed while it was read").file(job.plan.inputs[split.input].name.clone());
        let fields = record.fields.map_err(|_| changed())?;
        let document = prepare(job, split.source, &fields, &mut rendered).map_err(|_| changed())?;
        shorten(job, split.source, &mut fitted, record.id, fields, &mut rendered, document.ids.len())?;
        if wanted.is_empty() {
            break;
        }
    }
    fitted.finish()
}

fn open(job: &Job<'_>, split: &Split) -> Result<Records> {
    Records::open(job.plan, split)
}

fn in_place<'a>(job: &'a Job<'_>, split: &Split) -> impl Fn(Error) -> Error + 'a {
    let (source, input) = (&job.plan.sources[split.source], &job.plan.inputs[split.input]);
    |error: Error| error.file(input.name.clone()).source(source.name.clone())
}

/// A record as a document, whatever its length, or why there is none.
pub fn prepare(
    job: &Job<'_>,
    source: usize,
    fields: &Fields,
    rendered: &mut Rendered,
) -> std::result::Result<Document, Refusal> {
    job.segmenters[source].render(fields, rendered)?;
    if job.plan.sources[source].special_in_data == SpecialInData::Error
        && let Some(token) = job.encoder.control_in_data(rendered)
    {
        return Err(Refusal::new(Drop::Refused, format!("its data spells the control token '{token}'")));
    }
    job.encoder.encode(rendered)
}

/// Spools a document.
fn push(
    job: &Job<'_>,
    source: &Source,
    spool: &mut SpoolWriter<'_>,
    record_id: u64,
    rendered: &Rendered,
    document: &Document,
) -> Result<()> {
    let subject = Subject { name: &source.name, record: record_id, copy: 0 };
    let bucket = choice(job.plan.pack.seed, "bucket", subject) % u64::from(BUCKETS);
    let head = Head::new(record_id, count_targets(&document.runs, source.loss), bucket as u16);
    let key = || Key {
        content: content_key(&rendered.text),
        exact: xxh3_64(rendered.text.as_bytes()),
        record_id,
        ..Key::default()
    };
    spool.push(head, job.keyed.then(key), document)
}

/// Spools the shortened document of a record that is too long, or counts why there is none.
fn shorten(
    job: &Job<'_>,
    source: usize,
    spool: &mut SpoolWriter<'_>,
    record_id: u64,
    fields: Fields,
    rendered: &mut Rendered,
    len: usize,
) -> Result<()> {
    match truncate(job, source, fields, rendered, len) {
        Ok(document) => push(job, &job.plan.sources[source], spool, record_id, rendered, &document),
        Err(Refusal { reason, why }) => {
            spool.tally().drop_record(reason, record_id, || why);
            Ok(())
        }
    }
}

/// Stops the run at a record that is too long, where its source says so: better now than when all is mapped.
fn refuse_too_long(job: &Job<'_>, source: &Source, record_id: u64, len: usize) -> Result<()> {
    let seq_len = job.plan.pack.seq_len;
    if source.overflow != Overflow::Error || window_count(len, seq_len) == 1 {
        return Ok(());
    }
    let why = format!("{len} tokens, a row holds {seq_len}");
    Err(settle::too_long(job.plan, source, &Dropped { reason: Drop::TooLong, record_id, why })?)
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

/// The xxh3-128 of a text in NFC and lower case, white space runs as one space, none at the ends.
pub fn content_key(text: &str) -> u128 {
    let composed: std::borrow::Cow<'_, str> = match is_nfc_quick(text.chars()) {
        IsNormalized::Yes => text.into(),
        _ => text.nfc().collect::<String>().into(),
    };
    let lower = composed.to_lowercase();
    let mut hasher = Xxh3Default::new();
    for (nth, word) in lower.split_whitespace().enumerate() {
        if nth > 0 {
            hasher.update(b" ");
        }
        hasher.update(word.as_bytes());
    }
    hasher.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_the_same_whatever_its_case_spaces_and_normal_form() {
        assert_eq!(content_key("  Ẹ\u{300} kọ́\t\n a "), content_key("e\u{323}\u{300} kọ\u{301} A"));
        assert_ne!(content_key("a b"), content_key("ab"));
    }
}
