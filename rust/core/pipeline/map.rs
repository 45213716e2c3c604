//! The map task: one input split becomes a spool.

use std::sync::atomic::Ordering::Relaxed;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};
use xxhash_rust::xxh3::Xxh3Default;

use super::Job;
use super::fit::{Fitted, fit};
use crate::choice::{Subject, choice, within};
use crate::error::{Error, Result};
use crate::files;
use crate::mask::count_targets;
use crate::monitor::Monitor;
use crate::read::{Record, Records, Split};
use crate::schema::{Drop, Overflow, Refusal, Run, Side, SpecialInData, push_run};
use crate::segment::{Fields, Rendered};
use crate::spool::{BUCKETS, Dropped, HeadOf, Spool, SpoolWriter};
use crate::tokenize::Document;

/// Maps `split`.
pub fn map_split(job: &Job<'_>, split: &Split, monitor: &Monitor) -> Result<Spool> {
    let plan = job.plan;
    let (source, input) = (&plan.sources[split.source], &plan.inputs[split.input]);
    let mut records = Records::open(plan, split)?;
    let mut spool = SpoolWriter::new(split.source, split.input, job.encoder.id_type());
    let mut rendered = Rendered::default();
    let in_place = |error: Error| error.file(input.name.clone()).source(source.name.clone());
    while let Some(record) = records.advance().map_err(in_place)? {
        monitor.check()?;
        monitor.records.fetch_add(1, Relaxed);
        monitor.done.fetch_add(record.bytes as u64 + 1, Relaxed);
        spool.tally().records += 1;
        let Record { offset, id, fields, .. } = record;
        match fields.and_then(|fields| prepare(job, split.source, fields, &mut rendered)) {
            Ok(fitted) => {
                monitor.tokens.fetch_add(fitted.document.ids.len() as u64, Relaxed);
                let subject = Subject { name: &source.name, record: id, copy: 0 };
                let held_out = Subject { name: &input.name, record: offset, copy: 0 };
                let is_held_out = within(choice(plan.pack.seed, "validation", held_out), plan.pack.validation);
                let head = HeadOf {
                    key: if plan.pack.validation > 0.0 { content_key(&rendered.text) } else { 0 },
                    record_id: id,
                    targets: 0,
                    window: 0,
                    bucket: (choice(plan.pack.seed, "bucket", subject) % u64::from(BUCKETS)) as u16,
                    side: if is_held_out { Side::Validation } else { Side::Train },
                    truncated: fitted.truncated,
                };
                spool_windows(&mut spool, job, split.source, &fitted, head);
            }
            Err(refusal) if refusal.reason == Drop::TooLong && source.overflow == Overflow::Error => {
                let line = files::line_at(&input.path, offset)?;
                return Err(in_place(Error::input(refusal.why)).line(line).remedy(
                    "raise seq_len, or set the source's overflow to \"truncate\", \"split\" (plain text) or \"drop\"",
                ));
            }
            Err(Refusal { reason, why }) => {
                spool.tally().drop_record(Dropped { reason, offset, input: split.input, why });
            }
        }
    }
    Ok(spool.finish())
}

/// A record as a document that fits the rows of its plan, or why there is none.
pub fn prepare(
    job: &Job<'_>,
    source: usize,
    fields: Fields,
    rendered: &mut Rendered,
) -> std::result::Result<Fitted, Refusal> {
    job.segmenters[source].render(&fields, rendered)?;
    if job.plan.sources[source].special_in_data == SpecialInData::Error
        && let Some(token) = job.encoder.control_in_data(rendered)
    {
        return Err(Refusal::new(Drop::Refused, format!("its data spells the control token '{token}'")));
    }
    let document = job.encoder.encode(rendered)?;
    fit(job, source, fields, rendered, document)
}

/// Spools each window of a document; nearly always the whole document is the only one.
fn spool_windows(spool: &mut SpoolWriter, job: &Job<'_>, source: usize, fitted: &Fitted, head: HeadOf) {
    let policy = job.plan.sources[source].loss;
    let whole = &fitted.document;
    for (nth, range) in fitted.windows.iter().enumerate() {
        let window =
            Document { ids: whole.ids[range.clone()].to_vec(), runs: cut_runs(&whole.runs, range.start, range.end) };
        let targets = count_targets(&window.runs, policy);
        spool.push(HeadOf { window: nth as u32, targets, ..head }, &window);
    }
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
