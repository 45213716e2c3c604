//! Too many unfit records, or any dropped record where the run is strict, end a run.
//!
//! The share of unfit records is judged per source once every record is mapped. Before that, the
//! first records of each source are looked at, so that a source of the wrong format or template
//! stops the run within a second. Nothing here depends on threads or input splits: both looks have
//! bounds of their own.

use super::document::{Scratch, prepare_record};
use super::fit::fit;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use crate::plan::{Input, Plan, Source};
use crate::read::{self, InputSplit};
use crate::report::{example_entry, first_drops};
use crate::schema::{DropReason, Refusal};
use crate::spool::{Dropped, Tally};
use crate::tasks;
use crate::write::{ExampleEntry, LeftOutEntry, LeftOutExample, Manifest};

/// The largest share of unfit records where the configuration says nothing.
const MAX_BAD_FRACTION: f64 = 0.05;
/// The records of a source from which on that default holds, and from which on its first records
/// speak for the others.
const ENOUGH: u64 = 100;
/// The first records of a source that are looked at, at most.
const FIRST_RECORDS: u64 = 1000;
/// The bytes after which [`ENOUGH`] of them will do.
const FIRST_BYTES: u64 = 256 << 10;
/// Their bytes, at most: of a source, and of all sources.
const MOST_FIRST_BYTES: u64 = 4 << 20;
const ALL_FIRST_BYTES: u64 = 64 << 20;

/// Returns the number of unfit records.
fn unfit(tally: &Tally) -> u64 {
    count(tally, DropReason::is_unfit)
}

/// Returns the number of records dropped for such reasons.
fn count(tally: &Tally, is_such: fn(DropReason) -> bool) -> u64 {
    let reasons = DropReason::ALL.into_iter().filter(|reason| is_such(*reason));
    reasons.map(|reason| tally.drops[reason as usize]).sum()
}

/// Returns the number of records that a source is judged by: those that its `when` and `each` chose.
fn chosen(tally: &Tally) -> u64 {
    tally.records - tally.drops[DropReason::NotChosen as usize]
}

/// Returns the largest share of unfit records that a source of `records` records may have.
pub(crate) fn allowed_unfit(source: &Source, records: u64) -> f64 {
    let default = if records >= ENOUGH { MAX_BAD_FRACTION } else { 1.0 };
    source.max_bad_fraction.unwrap_or(default)
}

/// Returns whether `bad` of `records` records are more than `share` of them.
fn passes(bad: u64, records: f64, share: f64) -> bool {
    share < 1.0 && bad as f64 > share * records
}

/// Refuses the first source of which no record can be used, or more records are unfit than it
/// allows.
pub(super) fn refuse_unfit(plan: &Plan, tallies: &[Tally], context: &Context<'_>) -> Result<()> {
    for (source, tally) in plan.sources.iter().zip(tallies) {
        let bad = unfit(tally);
        // Records without a language may all be unfit: they are a share of the file's.
        let is_rest = is_rest(source);
        // Not one fit record: the configuration is wrong, not the data.
        if !is_rest && bad > 0 && bad == chosen(tally) {
            let first = first_drops(plan, source, tally, 1, context)?.join("");
            let what = format!("none of its records ({bad}) can be used; the first: {first}");
            return Err(Error::input(what)
                .file(plan.config_file.clone())
                .source(source.name.clone())
                .remedy(
                    "check its `segments` and `format` against the file; `sabiprep explain` shows \
                     one record",
                ));
        }
        let records = if is_rest { records_of_files(plan, source, tallies) } else { chosen(tally) };
        let share = allowed_unfit(source, records);
        if passes(bad, records as f64, share) {
            let of = format!("{bad} of its {records} records");
            return Err(too_many(plan, source, tally, &of, share, context)?);
        }
    }
    Ok(())
}

/// Returns whether a source reads the records of its files that have no language.
fn is_rest(source: &Source) -> bool {
    source.options.only.as_ref().is_some_and(|only| only.missing)
}

/// Returns the number of records in the files of a source, whatever their language.
fn records_of_files(plan: &Plan, source: &Source, tallies: &[Tally]) -> u64 {
    let all = plan.sources.iter().zip(tallies);
    let same = all.filter(|(other, _)| {
        other.options.only.is_some()
            && other.inputs == source.inputs
            && other.lang_field == source.lang_field
    });
    same.map(|(_, tally)| tally.records).sum()
}

/// Returns the error of a source with too many unfit records, which `of` counts.
fn too_many(
    plan: &Plan,
    source: &Source,
    tally: &Tally,
    of: &str,
    share: f64,
    context: &Context<'_>,
) -> Result<Error> {
    let percent = 100.0 * unfit(tally) as f64 / chosen(tally).max(1) as f64;
    let reasons = by_reason(tally, DropReason::is_unfit);
    let first = first_drops(plan, source, tally, 5, context)?.join("\n  ");
    let what = format!(
        "{of} ({percent:.1} %) cannot be used: {reasons}; max_bad_fraction = {share} allows fewer"
    );
    Ok(Error::input(what).file(plan.config_file.clone()).source(source.name.clone()).remedy(
        format!(
            "mend them, or raise `max_bad_fraction` of the source or under [pack] (1.0 allows \
             all); the first:\n  {first}"
        ),
    ))
}

/// Returns the counts of such reasons, in words.
fn by_reason(tally: &Tally, is_such: fn(DropReason) -> bool) -> String {
    let counts = DropReason::ALL.into_iter().zip(tally.drops);
    let counts = counts.filter(|(reason, count)| is_such(*reason) && *count > 0);
    let words: Vec<String> =
        counts.map(|(reason, count)| format!("{count} {}", reason.name())).collect();
    words.join(", ")
}

/// The first records of a source.
#[derive(Debug, Default)]
struct First {
    /// Their counts. Records that are too long are dropped where the run is strict.
    tally: Tally,
    /// Whether the source has no other records.
    is_whole: bool,
    /// The records that the source has, judged by the length of the first, where that can be told.
    estimate: Option<f64>,
}

/// Looks at the first records of each source. Refuses a source that they show to have too many
/// unfit records; if `strict`, the lowest record that the run would drop.
pub(super) fn look_at_first(job: &Job, strict: bool, context: &Context<'_>) -> Result<()> {
    let plan = &job.plan;
    let first = |index| first_of(job, index, strict, context);
    let found = tasks::run(context.threads, plan.sources.len(), first)?;
    if strict {
        for (source, First { tally, is_whole, .. }) in plan.sources.iter().zip(&found) {
            refuse_drops(plan, source, tally, "at least ", context)?;
            // A lower record may lie in the rest of this source.
            if !is_whole {
                break;
            }
        }
        // Any unfit record will end the run, by the lowest of all.
        return Ok(());
    }
    for (source, First { tally, is_whole, estimate }) in plan.sources.iter().zip(&found) {
        let bad = unfit(tally);
        if *is_whole || chosen(tally) < ENOUGH || is_rest(source) {
            // The whole source is judged after the map phase, when its records are few.
            continue;
        }
        let share = allowed_unfit(source, chosen(tally));
        let mostly = passes(bad, chosen(tally) as f64, share.max(0.5));
        if mostly || estimate.is_some_and(|records| passes(bad, records, share)) {
            let of = format!("{bad} of its first {} records", tally.records);
            return Err(too_many(plan, source, tally, &of, share, context)?);
        }
    }
    Ok(())
}

/// Reads and renders the first records of a source. A file that cannot be read is left to the map
/// phase.
fn first_of(job: &Job, index: usize, strict: bool, context: &Context<'_>) -> Result<First> {
    let source = &job.plan.sources[index];
    let mut first = First::default();
    match read_first(job, index, strict, &mut first, context) {
        Err(error) if error.kind == ErrorKind::Interrupted => return Err(error),
        // Records before a fault are as good as none: the fault itself is named later.
        Err(_) => return Ok(First::default()),
        Ok(bytes) => {
            let sizes = source.inputs.iter().map(|&input| job.plan.inputs[input].size);
            let input = &job.plan.inputs[source.inputs[0]];
            let is_plain = source.format.get().splits_at_lines(&source.options)
                && is_whole_in_place(source, input, context)?;
            first.estimate = (is_plain && bytes > 0)
                .then(|| sizes.sum::<u64>() as f64 / bytes as f64 * first.tally.records as f64);
        }
    }
    Ok(first)
}

/// Returns whether a plain file of a source is read as it lies on the disk.
fn is_whole_in_place(source: &Source, input: &Input, context: &Context<'_>) -> Result<bool> {
    let format = (source.format, &source.options);
    let parts = read::parts(format, &input.path, input.size, u64::MAX, context.storage)?;
    Ok(parts.first().is_some_and(|part| part.range.end == input.size))
}

/// Fills in the counts of `first`. Returns the bytes of the records.
fn read_first(
    job: &Job,
    index: usize,
    strict: bool,
    first: &mut First,
    context: &Context<'_>,
) -> Result<u64> {
    let source = &job.plan.sources[index];
    let most_bytes = MOST_FIRST_BYTES.min(ALL_FIRST_BYTES / job.plan.sources.len() as u64);
    let input = source.inputs[0];
    let bytes = job.plan.inputs[input].size;
    let split = InputSplit { source: index, nth_input: 0, input, range: 0..u64::MAX, bytes };
    let mut records = job.open(&split, context)?;
    let (mut scratch, mut bytes) = (Scratch::new(job), 0);
    let wants_more = |records, bytes| {
        let wanted = if bytes < FIRST_BYTES { FIRST_RECORDS } else { ENOUGH };
        records < wanted && bytes < most_bytes
    };
    while wants_more(first.tally.records, bytes) {
        let Some(record) = records.advance()? else {
            first.is_whole = source.inputs.len() == 1;
            return Ok(bytes);
        };
        context.monitor.check()?;
        bytes += record.bytes() as u64 + 1;
        first.tally.records += 1;
        let mut made = prepare_record(job, index, &record, &mut scratch);
        if strict && made.is_ok() && scratch.longest() > job.plan.pack.seq_len {
            let fields = record.fields();
            made = fields
                .and_then(|fields| fit(job, index, record.id, fields, &mut scratch))
                .map(|_| ());
        }
        let left_out = std::mem::take(&mut scratch.rendered.left_out);
        if made.is_ok() {
            first.tally.left_out.count(record.id, &left_out);
        }
        if let Err(Refusal { reason, why }) = made {
            first.tally.drop_record(reason, record.id, || why);
        }
    }
    Ok(bytes)
}

/// Refuses the lowest dropped record of a corpus, unless the configuration chose to drop it.
/// `tallies` has the counts of each source.
pub(super) fn refuse_any<'a>(
    plan: &Plan,
    tallies: impl Iterator<Item = &'a Tally>,
    context: &Context<'_>,
) -> Result<()> {
    let mut sources = plan.sources.iter().zip(tallies);
    sources.try_for_each(|(source, tally)| refuse_drops(plan, source, tally, "", context))
}

/// Refuses the lowest dropped record of a source, unless the configuration chose to drop it.
fn refuse_drops(
    plan: &Plan,
    source: &Source,
    tally: &Tally,
    at_least: &str,
    context: &Context<'_>,
) -> Result<()> {
    refuse_left_out(plan, source, tally, at_least, context)?;
    let faults = tally.examples.iter().filter(|example| !example.reason.is_choice());
    let Some(lowest) = faults.min_by_key(|example| example.record_id) else { return Ok(()) };
    let count = count(tally, |reason| !reason.is_choice());
    let counts = format!("{at_least}{count}: {}", by_reason(tally, |reason| !reason.is_choice()));
    let entry = example_entry(plan, source, lowest, context)?;
    Err(strict_error(&source.name, &entry, &counts))
}

/// Refuses the lowest record of which a document was left out, unless the configuration chose to.
fn refuse_left_out(
    plan: &Plan,
    source: &Source,
    tally: &Tally,
    at_least: &str,
    context: &Context<'_>,
) -> Result<()> {
    let faults = || tally.left_out.iter().filter(|(reason, _)| !reason.is_choice());
    let examples = faults().flat_map(|(reason, counts)| {
        counts.examples.iter().map(move |(record_id, why)| (*record_id, reason, why))
    });
    let Some((record_id, reason, why)) = examples.min_by_key(|example| example.0) else {
        return Ok(());
    };
    let entry =
        example_entry(plan, source, &Dropped { reason, record_id, why: why.clone() }, context)?;
    let counts = faults().map(|(reason, counts)| format!("{} {}", counts.count, reason.name()));
    let counts = counts.collect::<Vec<_>>().join(", ");
    let all: u64 = faults().map(|(_, counts)| counts.count).sum();
    Err(strict_error(&source.name, &entry, &format!("documents, {at_least}{all}: {counts}")))
}

/// Refuses a finished dataset with dropped records, unless the configuration chose to drop them.
pub(super) fn refuse_any_of(manifest: &Manifest) -> Result<()> {
    let is_choice = |name: &str| {
        DropReason::ALL.into_iter().any(|reason| reason.is_choice() && reason.name() == name)
    };
    for source in &manifest.sources {
        let faults = source.drops.iter().filter(|(reason, _)| !is_choice(reason));
        let faults: Vec<_> = faults.collect();
        let place = |entry: &&ExampleEntry| {
            (source.inputs.iter().position(|input| *input == entry.file), *entry.place.number())
        };
        let mut left_out = source.left_out.iter().filter(|(reason, _)| !is_choice(reason));
        if let Some((reason, LeftOutEntry { documents, examples })) = left_out.next()
            && let Some(LeftOutExample { file, place, why }) = examples.first()
        {
            let (reason, file, why) = (reason.clone(), file.clone(), why.clone());
            let entry = ExampleEntry { reason, file, place: *place, why };
            return Err(strict_error(&source.name, &entry, &format!("documents, {documents}")));
        }
        let examples = source.examples.iter().filter(|example| !is_choice(&example.reason));
        if let Some(lowest) = examples.min_by_key(place) {
            let count: u64 = faults.iter().map(|(_, count)| **count).sum();
            let words: Vec<String> =
                faults.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            let counts = format!("{count}: {}", words.join(", "));
            return Err(strict_error(&source.name, lowest, &counts));
        }
    }
    Ok(())
}

/// Returns the error of a strict run about its lowest dropped record.
fn strict_error(source: &str, entry: &ExampleEntry, counts: &str) -> Error {
    Error::input(format!("{}: {}", entry.reason, entry.why))
        .file(entry.file.clone())
        .place(entry.place)
        .source(source)
        .remedy(format!(
            "mend the record, or pack without --strict; this source would drop {counts}"
        ))
}
