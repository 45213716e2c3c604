//! The map task: one input split becomes a spool of whole documents, and one of those that were made to fit a row.

use std::sync::atomic::Ordering::Relaxed;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::Job;
use super::fit::truncate;
use crate::choice::{Subject, choice};
use crate::error::{Error, Result};
use crate::mask::count_targets;
use crate::monitor::Monitor;
use crate::plan::Source;
use crate::read::{Records, Split};
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
    let mut records = Records::open(job.plan, split)?;
    let direct = job.segmenters[split.source].direct().map(|direct| (direct, direct.bind(records.layout())));
    let mut rendered = Rendered::default();
    while let Some(record) = records.advance().map_err(in_place(job, split))? {
        monitor.check()?;
        monitor.records.fetch_add(1, Relaxed);
        monitor.done.fetch_add(record.bytes() as u64 + 1, Relaxed);
        whole.tally().records += 1;
        let id = record.id;
        let prepared = match (&direct, &record.line) {
            (Some((direct, binding)), Ok(line)) if direct.render(binding, line, &mut rendered) => {
                encode(job, split.source, &rendered)
            }
            _ => record.fields().and_then(|fields| prepare(job, split.source, &fields, &mut rendered)),
        };
        match prepared {
            Ok(document) => {
                monitor.tokens.fetch_add(document.ids.len() as u64, Relaxed);
                push(job, source, &mut whole, id, &rendered, &document)?;
                let len = document.ids.len();
                if let Some(fitted) = fitted.as_mut().filter(|_| len > job.plan.pack.seq_len)
                    && let Ok(fields) = record.fields()
                {
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
    let mut records = if wanted.is_empty() { None } else { Some(Records::open(job.plan, split)?) };
    while let Some(record) = records.as_mut().map_or(Ok(None), Records::advance).map_err(in_place(job, split))? {
        monitor.check()?;
        if !wanted.remove(&record.id) {
            continue;
        }
        let changed = || Error::input("was changed while it was read").file(job.plan.inputs[split.input].name.clone());
        let fields = record.fields().map_err(|_| changed())?;
        let document = prepare(job, split.source, &fields, &mut rendered).map_err(|_| changed())?;
        shorten(job, split.source, &mut fitted, record.id, fields, &mut rendered, document.ids.len())?;
        if wanted.is_empty() {
            break;
        }
    }
    fitted.finish()
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
    encode(job, source, rendered)
}

/// A rendered record as a document.
fn encode(job: &Job<'_>, source: usize, rendered: &Rendered) -> std::result::Result<Document, Refusal> {
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
    let contaminated = job.held_out.as_ref().is_some_and(|held_out| held_out.has_part_of(&rendered.text));
    let head = Head::new(record_id, count_targets(&document.runs, source.loss), bucket as u16, contaminated);
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
    let mut normalised = String::with_capacity(text.len() + 8);
    if !normalise_simply(text, &mut normalised) {
        normalised.clear();
        normalise(text, &mut normalised);
    }
    xxh3_128(normalised.as_bytes())
}

/// NFC, lower case, white space runs as one space, none at the ends.
fn normalise(text: &str, out: &mut String) {
    let composed: std::borrow::Cow<'_, str> = match is_nfc_quick(text.chars()) {
        IsNormalized::Yes => text.into(),
        _ => text.nfc().collect::<String>().into(),
    };
    for word in composed.to_lowercase().split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
}

/// Characters below this are in NFC whatever surrounds them, as long as those are.
const FIRST_COMBINING: char = '\u{300}';

/// Does what [`normalise`] does in one pass; `false` where a character's case or form may depend on its neighbours.
fn normalise_simply(text: &str, out: &mut String) -> bool {
    let mut spaced = false;
    for char in text.chars() {
        let is_space =
            if char.is_ascii() { char.is_ascii_whitespace() || char == '\u{b}' } else { char.is_whitespace() };
        if is_space {
            spaced = true;
            continue;
        }
        if std::mem::take(&mut spaced) && !out.is_empty() {
            out.push(' ');
        }
        if char.is_ascii() {
            out.push(char.to_ascii_lowercase());
        } else if char < FIRST_COMBINING {
            out.extend(char.to_lowercase());
        } else if matches!(char, '\u{1e00}'..='\u{1eff}' | '\u{2010}'..='\u{2027}') {
            // Composed Latin letters and general punctuation: they are their own NFC, and none combines.
            out.extend(char.to_lowercase());
        } else {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn one_pass_normalises_as_the_library_does(text in "[a-zA-Z \t\u{b}\u{a0}\u{2003}àÀİıßẹỌẸ\u{300}\u{301}\u{323}ΣσςK’“…é\r\n]{0,12}") {
            let (mut simply, mut whole) = (String::new(), String::new());
            normalise(&text, &mut whole);
            if normalise_simply(&text, &mut simply) {
                prop_assert_eq!(simply, whole);
            }
        }
    }

    #[test]
    fn every_character_that_is_simple_is_its_own_form() {
        for char in '\0'..=char::MAX {
            for text in [char.to_string(), format!("a{char}B"), format!("{char}{char}\u{e9}")] {
                let (mut simply, mut whole) = (String::new(), String::new());
                normalise(&text, &mut whole);
                if normalise_simply(&text, &mut simply) {
                    assert_eq!(simply, whole, "{char:?}");
                }
            }
        }
    }

    #[test]
    fn content_is_the_same_whatever_its_case_spaces_and_normal_form() {
        assert_eq!(content_key("  Ẹ\u{300} kọ́\t\n a "), content_key("e\u{323}\u{300} kọ\u{301} A"));
        assert_ne!(content_key("a b"), content_key("ab"));
    }
}
