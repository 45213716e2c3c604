//! A run in parts: processes that know nothing of each other map a part of the corpus each, and one
//! more finishes the dataset. What a batch system's array of jobs needs.

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::begin::{load_plan, refuse_nesting};
use super::cluster::{READERS, split_bytes_of};
use super::settled::write_settled;
use super::worker::{shared_store, unsummed};
use super::{
    Begun, MapStage, MapTask, ReduceStage, ReduceTask, Run, Runner, Threads, identity, pack_by,
    template_notes,
};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::plan::{PackOptions, Plan};
use crate::read::InputSplit;
use crate::report::{self, Report, ShardSums};
use crate::storage::Stamp;
use crate::tasks;
use crate::write::{self, InputEntry, Manifest, Stage, State, Survey, WorkFolder, saved_input};

/// The missing parts that an error lists.
const SHOWN: usize = 10;

/// Returns the indices of the tasks, of which `weights` are given, that are part `part` of `parts`.
/// Every task is in one part; parts are even, as far as tasks allow.
pub(super) fn part_of(weights: &[u64], part: usize, parts: usize) -> Range<usize> {
    // No task is without weight, so that each lies somewhere.
    let weights = weights.iter().map(|&weight| u128::from(weight) + 1);
    let (total, mut before) = (weights.clone().sum::<u128>(), 0);
    // A task is of the part in which its middle lies.
    let middles = weights.map(|weight| {
        before += weight;
        2 * before - weight
    });
    let parts_of: Vec<u128> = middles.map(|middle| middle * parts as u128 / (2 * total)).collect();
    let first = |part: usize| parts_of.partition_point(|&of| of < part as u128);
    first(part)..first(part + 1)
}

/// An input's checksum, with what tells that the file is as it was.
#[derive(Debug, Serialize, Deserialize)]
struct InputNote {
    entry: InputEntry,
    /// The time of its last change since 1970, if the storage knows it.
    modified: Option<Duration>,
}

impl InputNote {
    /// Returns whether it is about the file with this entry and this stamp.
    fn is_of(&self, name: &str, (size, modified): Stamp) -> bool {
        let InputEntry { path, size: known, .. } = &self.entry;
        path == name && *known == size && self.modified == since_1970(modified)
    }
}

/// Returns a time as a duration, which can be written down.
fn since_1970(time: Option<SystemTime>) -> Option<Duration> {
    time.and_then(|time| time.duration_since(UNIX_EPOCH).ok())
}

/// Returns the entry of the input `index`, from the note of another part where there is one.
fn entry_of(plan: &Plan, out: &Path, index: usize, context: &Context<'_>) -> Result<InputEntry> {
    let (input, storage) = (&plan.inputs[index], context.storage);
    let stamp = storage.stamp(&input.path)?;
    match saved_input::<InputNote>(storage, out, index) {
        Some(note) if note.is_of(&input.name, stamp) => Ok(note.entry),
        _ => {
            let entry = report::input_entry(input, context)?;
            let note = InputNote { entry, modified: since_1970(stamp.1) };
            write::save_input(storage, out, index, &note)?;
            Ok(note.entry)
        }
    }
}

/// What was done of a run in parts.
#[derive(Debug, Clone, Serialize)]
pub struct PartReport {
    /// The input splits, or the shards, of this part.
    pub tasks: usize,
    /// Those that an earlier run had made.
    pub reused: usize,
    /// Those of all parts.
    pub all: usize,
    /// The bytes of input of this part.
    pub bytes: u64,
    /// A sentence for each source about whose templates there is something to say.
    pub template_notes: Vec<String>,
}

/// Maps part `part` of `parts` of the folder `corpus`, for the dataset folder `out`.
///
/// Processes may map parts at a time, on any machines that see both folders. The first one writes
/// down what is packed; the others refuse to take part in anything else.
pub fn map_part(
    corpus: &Path,
    out: &Path,
    options: &PackOptions,
    (part, parts): (usize, usize),
    context: &Context<'_>,
) -> Result<PartReport> {
    let context = &context.with_threads(options.threads);
    let plan = load_plan(Some(corpus), options, context)?;
    refuse_nesting(&plan, out, context)?;
    let (survey, plan, mut options) = surveyed(plan, out, options, parts, context)?;
    if let Survey::Unfinished(state) = &survey {
        options.keep_spool |= state.keep_spool;
    }
    let sum_none = |plan: &Plan| Ok(unsummed(plan));
    let (run, mut inputs) = Run::prepare(plan, options, out, context, sum_none)?;
    let identity = identity(&run.job, &inputs);
    let state = State { parts: Some(parts), ..run.state(&survey, identity)? };
    WorkFolder::join(context.storage, out, state)?;
    let splits = run.job.plan.splits(context.storage)?;
    let (all, range) = (splits.len(), part_of(&weights(&splits), part, parts));
    let mine = &splits[range.clone()];
    let sources = &run.job.plan.sources;
    let files = mine.iter().flat_map(|split| sources[split.source].files_of(split.nth_input));
    let mut files: Vec<usize> = files.collect();
    files.sort_unstable();
    files.dedup();
    let entry = |nth: usize| entry_of(&run.job.plan, out, files[nth], context);
    let entries = tasks::run(context.threads, files.len(), entry)?;
    files.iter().zip(entries).for_each(|(&file, entry)| inputs[file] = entry);
    let tasks: Vec<MapTask> = range
        .zip(mine)
        .map(|(slot, split)| run.map_task(slot, all, split.clone(), &inputs))
        .collect();
    let store = shared_store(&run.job, &run.options, out, context);
    let reused = run.map(&Threads, &store, &tasks)?;
    Ok(PartReport {
        tasks: tasks.len(),
        reused: reused.iter().filter(|reused| **reused).count(),
        all,
        bytes: mine.iter().map(|split| split.bytes).sum(),
        template_notes: template_notes(&run.job, &run.unmarked, &[]),
    })
}

/// Returns the task that a part has in `out`, and the plan and options with what the run there has
/// decided.
fn surveyed(
    mut plan: Plan,
    out: &Path,
    options: &PackOptions,
    parts: usize,
    context: &Context<'_>,
) -> Result<(Survey, Plan, PackOptions)> {
    let storage = context.storage;
    let refuse = |what: String, remedy: &str| {
        Err(Error::output(what).file(out.display().to_string()).remedy(remedy))
    };
    if options.overwrite {
        return refuse(
            "cannot be replaced by one part: the others may be at work in it".to_owned(),
            "remove the folder before the parts begin, and leave --overwrite out",
        );
    }
    let state = match write::survey(storage, out, false, true)? {
        Survey::Unfinished(state) => state,
        Survey::Finished => {
            return refuse("holds a dataset".to_owned(), "name another folder, or remove this one");
        }
        survey @ Survey::Fresh(_) => {
            if options.split_bytes.is_none() {
                plan.split_bytes = split_bytes_of(&plan);
            }
            return Ok((survey, plan, options.clone()));
        }
    };
    if state.parts != Some(parts) {
        let what = match state.parts {
            Some(others) => format!("is packed in {others} parts, not in {parts}"),
            None => "holds a run that is not in parts".to_owned(),
        };
        return refuse(what, "name another folder, or the parts that it is packed in");
    }
    plan.split_bytes = state.split_bytes;
    Ok((Survey::Unfinished(state), plan, options.clone()))
}

/// Returns the weights by which input splits are divided into parts.
fn weights(splits: &[InputSplit]) -> Vec<u64> {
    splits.iter().map(|split| split.bytes).collect()
}

/// A runner that goes on where parts have mapped the corpus. It refuses to while any has not.
#[derive(Debug)]
struct Finishing<'a> {
    out: &'a Path,
    parts: usize,
}

impl<'a> Finishing<'a> {
    /// Returns the runner for the dataset folder `out`.
    fn new(out: &'a Path, context: &Context<'_>) -> Result<Self> {
        let state = State::of(context.storage, out)?;
        let parts = state.as_ref().and_then(|state| state.parts).ok_or_else(|| {
            Error::output("holds no run in parts")
                .file(out.display().to_string())
                .remedy("run `sabiprep pack CORPUS OUT --part I/N` for each I from 1 to N first")
        })?;
        Ok(Self { out, parts })
    }

    /// Refuses to go on if the spools of a part are missing.
    fn refuse_missing(&self, stage: &MapStage<'_>, tasks: &[MapTask]) -> Result<()> {
        let is_made = |task: &MapTask| {
            let mut names = std::iter::once(&task.names.whole).chain(&task.names.fitted);
            names.all(|name| stage.store.place_of(name).is_some())
        };
        let made = tasks::run(READERS, tasks.len(), |nth| Ok(is_made(&tasks[nth])))?;
        let bytes: Vec<u64> = tasks.iter().map(|task| task.split.bytes).collect();
        let is_missing =
            |part: &usize| made[part_of(&bytes, *part, self.parts)].iter().any(|is_made| !is_made);
        let missing: Vec<usize> = (0..self.parts).filter(is_missing).collect();
        let Some(first) = missing.first() else { return Ok(()) };
        let shown: Vec<String> =
            missing.iter().take(SHOWN).map(|part| (part + 1).to_string()).collect();
        let more = missing.len().saturating_sub(SHOWN);
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        let parts = self.parts;
        Err(Error::output(format!("is not mapped yet: part {}{rest} of {parts}", shown.join(", ")))
            .file(self.out.display().to_string())
            .remedy(format!(
                "run them, such as `sabiprep pack CORPUS OUT --part {}/{parts}`, and finish again; \
                 or let this machine do the rest: `sabiprep pack CORPUS OUT --resume`",
                first + 1
            )))
    }
}

impl Runner for Finishing<'_> {
    fn inputs(&self, plan: &Plan, context: &Context<'_>) -> Result<Vec<InputEntry>> {
        tasks::run(context.threads, plan.inputs.len(), |index| {
            entry_of(plan, self.out, index, context)
        })
    }

    fn going_on(&self) -> &'static str {
        "run the same command again"
    }

    fn map(&self, stage: &MapStage<'_>, tasks: &[MapTask]) -> Result<Vec<bool>> {
        self.refuse_missing(stage, tasks)?;
        Threads.map(stage, tasks)
    }

    fn reduce(&self, stage: &ReduceStage<'_>, tasks: &[ReduceTask]) -> Result<Vec<ShardSums>> {
        Threads.reduce(stage, tasks)
    }
}

/// Finishes the dataset in `out`, all parts of which are mapped, and returns the report. Shards that
/// other processes have made serve as they are.
pub fn finish(
    corpus: &Path,
    out: &Path,
    options: &PackOptions,
    context: &Context<'_>,
) -> Result<Report> {
    let context = &context.with_threads(options.threads);
    let options = PackOptions { resume: true, ..options.clone() };
    // A job that is queued again after it was done has nothing to do.
    let is_done = State::of(context.storage, out)?.is_none_or(|state| state.stage == Stage::Kept);
    if is_done && Manifest::is_ours(context.storage, out) {
        return pack_by(&Threads, Some(corpus), out, &options, context);
    }
    pack_by(&Finishing::new(out, context)?, Some(corpus), out, &options, context)
}

/// Settles the dataset in `out`, all parts of which are mapped, so that other processes can make its
/// shards. Returns their number.
pub fn settle_parts(
    corpus: &Path,
    out: &Path,
    options: &PackOptions,
    context: &Context<'_>,
) -> Result<usize> {
    let context = &context.with_threads(options.threads);
    let runner = Finishing::new(out, context)?;
    let options = PackOptions { resume: true, ..options.clone() };
    let Begun { run, inputs, survey } = Run::begin(&runner, Some(corpus), out, &options, context)?;
    let state = run.state(&survey, identity(&run.job, &inputs))?;
    let folder = WorkFolder::open(context.storage, out, &survey, state)?;
    let store = shared_store(&run.job, &run.options, out, context);
    let map_tasks = run.map_tasks(&inputs)?;
    run.map(&runner, &store, &map_tasks)?;
    let spools = store.spools(map_tasks.len() * 2);
    let (corpus, decisions) = run.settle(&map_tasks, &spools)?;
    write_settled(context.storage, &folder.settled_path(), &corpus, &decisions)?;
    Ok(decisions.shards.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_task_is_in_one_part_and_no_part_is_a_task_too_heavy(
            weights in prop::collection::vec(0u64..1000, 0..60),
            parts in 1usize..20,
        ) {
            let mut next = 0;
            let total: u64 = weights.iter().map(|weight| weight + 1).sum();
            let heaviest = weights.iter().max().map_or(0, |weight| weight + 1);
            for part in 0..parts {
                let range = part_of(&weights, part, parts);
                prop_assert_eq!(range.start, next);
                next = range.end;
                let weight: u64 = weights[range].iter().map(|weight| weight + 1).sum();
                prop_assert!(weight <= total / parts as u64 + heaviest + 1);
            }
            prop_assert_eq!(next, weights.len());
        }
    }
}
