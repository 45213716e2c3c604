//! The pipeline: the only room that knows every stage.
//!
//! Map turns each input split into a spool, settle decides, reduce makes each shard; then the
//! manifest is written. Tasks do not depend on each other or on their number, so neither does the
//! output.

mod begin;
mod cluster;
mod content;
mod document;
mod fit;
mod gather;
mod hits;
mod map;
mod mapper;
mod minhash;
mod names;
mod parts;
mod reduce;
mod runner;
mod settled;
mod sharing;
mod space;
#[cfg(test)]
mod tests;
mod unfit;
mod units;
mod worker;

use std::path::Path;
use std::time::Instant;

pub use cluster::{Order, Take, Workers};
pub(crate) use content::Contents;
pub(crate) use document::Scratch;
pub(crate) use fit::fit;
pub(crate) use map::{MapStage, MapTask};
pub(crate) use names::SpoolNames;
pub use parts::{PartReport, finish, map_part, settle_parts};
pub(crate) use reduce::{ReduceStage, ReduceTask};
pub(crate) use runner::{Runner, Threads};
pub(crate) use unfit::allowed_unfit;
pub use worker::{Worker, refusal, sum_inputs};

use crate::contamination::HeldOut;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::job::Job;
use crate::monitor::Phase;
use crate::notes::{notes, numbered, numbered_labels};
use crate::plan::{PackOptions, Plan, Source};
use crate::read::InputSplit;
use crate::report::{self, Facts, Report, ShardSums, Timing};
use crate::segment::Segmenter;
use crate::settle::{Corpus, Decisions, PartOf, kept_by_any, settle};
use crate::spool::{Listing, Spool, Store, Tally};
use crate::storage::{Stamp, Storage};
use crate::tasks;
use crate::tokenize::ControlIds;
use crate::write::{
    self, Identity, InputEntry, Manifest, Program, Stage, State, Survey, WorkFolder,
};
use begin::{load_plan, refuse_many_splits, refuse_nesting};
use cluster::Cluster;

/// Packs the folder `corpus` into the dataset folder `out` and returns the report.
///
/// With `options.reuse`, the documents come from the spool that the reused dataset kept. So a
/// change that leaves the tokens of records alone (weights, rows, validation) costs no tokenizing.
/// `corpus` may then be `None`.
pub fn pack(
    corpus: Option<&Path>,
    out: &Path,
    options: &PackOptions,
    context: &Context<'_>,
) -> Result<Report> {
    let context = &context.with_threads(options.threads);
    pack_by(&Threads, corpus, out, options, context)
}

/// Packs as [`pack`] does, with tasks done by `workers`, which see the same folders. The dataset is
/// the same, byte for byte.
pub fn pack_with(
    workers: &dyn Workers,
    corpus: &Path,
    out: &Path,
    options: &PackOptions,
    context: &Context<'_>,
) -> Result<Report> {
    let context = &context.with_threads(options.threads);
    pack_by(&Cluster::new(workers), Some(corpus), out, options, context)
}

/// Packs as [`pack`] does, with tasks run by `runner`.
fn pack_by(
    runner: &dyn Runner,
    corpus: Option<&Path>,
    out: &Path,
    options: &PackOptions,
    context: &Context<'_>,
) -> Result<Report> {
    let started = Instant::now();
    let Begun { run, inputs, mut survey } = Run::begin(runner, corpus, out, options, context)?;
    let identity = identity(&run.job, &inputs);
    if matches!(survey, Survey::Finished) {
        match run.finished(&identity)? {
            Some(made) => return Ok(run.report(runner, started, made)),
            None => survey = write::survey(context.storage, out, true, false)?,
        }
    }
    let state = run.state(&survey, identity)?;
    let is_moving = state.stage == Stage::Moving;
    let folder = WorkFolder::open(context.storage, out, &survey, state)?;
    let made = if is_moving {
        folder.check_move(context.monitor)?;
        folder.end_move()?;
        let manifest = Manifest::read(context.storage, out)?;
        run.refuse_drops_of(&manifest)?;
        Made::before(manifest)
    } else {
        run.make_in(runner, folder, inputs)?
    };
    Ok(run.report(runner, started, made))
}

/// Adds to the remedy of an error how a run of `runner` goes on: it was stopped from outside. A remedy
/// that names `--resume` says so already.
fn resumable(error: Error, runner: &dyn Runner) -> Error {
    let first = error.remedy.clone().unwrap_or_default();
    if first.contains("--resume") {
        return error;
    }
    let first = if first.is_empty() { first } else { format!("{first}; then ") };
    error.remedy(format!("{first}{}: what is done is kept", runner.going_on()))
}

/// Returns everything that the bytes of the job's dataset depend on.
pub(crate) fn identity(job: &Job, inputs: &[InputEntry]) -> Identity {
    let ControlIds { bos, eos, pad } = job.encoder.controls();
    Identity {
        program: Program::this(),
        tokenizer: job.encoder.sha256().to_owned(),
        controls: (bos, eos, pad),
        config: report::resolved_config(&job.plan),
        inputs: inputs.to_vec(),
    }
}

/// Returns the entry of every input, with its checksum.
pub(crate) fn input_entries(plan: &Plan, context: &Context<'_>) -> Result<Vec<InputEntry>> {
    tasks::run(context.threads, plan.inputs.len(), |index| {
        report::input_entry(&plan.inputs[index], context)
    })
}

/// Loads the tokenizer and compiles the templates of a plan, for a run with these options.
fn prepare_job(plan: Plan, options: &PackOptions, context: &Context<'_>) -> Result<Job> {
    let mut job = Job::prepare(plan, context)?;
    // A later run that uses the kept spool may hold records out.
    job.keyed |= options.keep_spool || options.reuse.is_some();
    job.held_out = HeldOut::read(&job.plan, context)?;
    Ok(job)
}

/// A run that has begun.
struct Begun<'a> {
    run: Run<'a>,
    /// The entries of its inputs.
    inputs: Vec<InputEntry>,
    /// The task that it has in its folder.
    survey: Survey,
}

/// A run: a job with its options, its dataset folder and its machine.
struct Run<'a> {
    job: Job,
    options: PackOptions,
    out: &'a Path,
    context: &'a Context<'a>,
    /// Size and time of change of every input, before any is read.
    stamps: Vec<Stamp>,
    /// The renders of each source, before the run, in which template text could not be told from
    /// data.
    unmarked: Vec<u64>,
}

/// A dataset that is made, for the report.
struct Made {
    manifest: Manifest,
    /// The names of the spools that it is made of.
    spools: Vec<String>,
    timing: Timing,
    /// The number of input splits that an earlier run mapped, and of all splits.
    reused_splits: (usize, usize),
}

impl Made {
    /// Returns a dataset that an earlier run made.
    fn before(manifest: Manifest) -> Self {
        Self { manifest, spools: Vec::new(), timing: Timing::default(), reused_splits: (0, 0) }
    }
}

impl<'a> Run<'a> {
    /// Begins the run of `runner` that packs `corpus` into `out`: plans it, and looks at both.
    fn begin(
        runner: &dyn Runner,
        corpus: Option<&Path>,
        out: &'a Path,
        options: &PackOptions,
        context: &'a Context<'a>,
    ) -> Result<Begun<'a>> {
        context.monitor.begin(Phase::Plan, 0);
        let mut plan = load_plan(corpus, options, context)?;
        refuse_nesting(&plan, out, context)?;
        let survey = write::survey(context.storage, out, options.overwrite, options.resume)?;
        let mut options = options.clone();
        if let Survey::Unfinished(state) = &survey {
            // The splits must be the same for its spools to serve.
            plan.split_bytes = state.split_bytes;
            options.keep_spool |= state.keep_spool;
        } else if options.split_bytes.is_none() && options.reuse.is_none() {
            plan.split_bytes = runner.split_bytes(&plan).unwrap_or(plan.split_bytes);
        }
        let sum = |plan: &Plan| runner.inputs(plan, context);
        let (run, inputs) = Self::prepare(plan, options, out, context, sum)?;
        Ok(Begun { run, inputs, survey })
    }

    /// Loads tokenizer and templates and looks at the inputs. Returns the run, and the entries of
    /// its inputs, which `sum` gives.
    fn prepare(
        plan: Plan,
        options: PackOptions,
        out: &'a Path,
        context: &'a Context<'a>,
        sum: impl FnOnce(&Plan) -> Result<Vec<InputEntry>>,
    ) -> Result<(Self, Vec<InputEntry>)> {
        refuse_many_splits(&plan)?;
        let constant = plan.sources.iter().try_for_each(Segmenter::refuse_constant);
        constant.map_err(|error| error.file(plan.config_file.clone()))?;
        let job = prepare_job(plan, &options, context)?;
        // The manifest holds the probes: it is better to know now whether they can be encoded.
        job.encoder.probes()?;
        unfit::look_at_first(&job, options.strict, context)?;
        let unmarked = job.unmarked();
        let stamp = |input: &crate::plan::Input| context.storage.stamp(&input.path);
        let stamps: Vec<Stamp> = job.plan.inputs.iter().map(stamp).collect::<Result<_>>()?;
        let changed = job.plan.looked_at.iter().find(|(input, stamp)| stamps[*input] != *stamp);
        if let Some((input, _)) = changed {
            return Err(was_changed(&job.plan.inputs[*input].name));
        }
        let inputs = sum(&job.plan)?;
        Ok((Self { job, options, out, context, stamps, unmarked }, inputs))
    }

    /// Returns the finished dataset in OUT, if this run would make it again. Otherwise refuses to
    /// go on, or returns `None` if the dataset may be replaced.
    fn finished(&self, identity: &Identity) -> Result<Option<Made>> {
        let (storage, out) = (self.context.storage, self.out);
        let manifest = Manifest::read(storage, out)?;
        match Identity::of_dataset(&manifest).refuse_changes(identity, out) {
            Ok(()) => {
                self.refuse_drops_of(&manifest)?;
                write::clear_leftover(storage, out)?;
                Ok(Some(Made::before(manifest)))
            }
            Err(_) if self.options.overwrite => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Refuses a finished dataset with dropped records if the run is strict.
    fn refuse_drops_of(&self, manifest: &Manifest) -> Result<()> {
        if self.options.strict { unfit::refuse_any_of(manifest) } else { Ok(()) }
    }

    /// Returns the state to begin with: the state of the unfinished run in OUT, or a new state, if
    /// the disk has room for the dataset.
    fn state(&self, survey: &Survey, identity: Identity) -> Result<State> {
        let Self { job, options, out, context, .. } = self;
        if let Survey::Unfinished(state) = survey {
            let changed = state.identity.refuse_changes(&identity, out);
            changed.map_err(|error| match state.parts {
                None => error,
                Some(_) => error.remedy(
                    "undo the change: all parts take the same corpus and options; or remove the \
                     folder, and begin with the first part again",
                ),
            })?;
            // A dataset on its way into place is as it was made.
            let is_moving = state.stage == Stage::Moving;
            let keep_spool = if is_moving { state.keep_spool } else { options.keep_spool };
            // Checksums that were not known before are known now.
            return Ok(State { identity, keep_spool, ..state.clone() });
        }
        space::refuse_too_little(job, out, options, context)?;
        let plan = &job.plan;
        let tokenizer = plan.tokenizer.file.as_ref();
        Ok(State {
            identity,
            split_bytes: plan.split_bytes,
            keep_spool: options.keep_spool,
            corpus: context.storage.real_path(&plan.root),
            tokenizer: tokenizer.and_then(|file| context.storage.canonicalize(file).ok()),
            stage: Stage::Working,
            parts: None,
        })
    }

    /// Makes the dataset in `folder` and moves it into place.
    fn make_in(
        &self,
        runner: &dyn Runner,
        folder: WorkFolder<'_>,
        inputs: Vec<InputEntry>,
    ) -> Result<Made> {
        let (job, options, storage) = (&self.job, &self.options, self.context.storage);
        let others = options.reuse.iter().map(|other| write::spool_of(other)).collect();
        let (id_type, budget) = (job.encoder.id_type(), options.spool_bytes);
        let store =
            Store::new(storage, folder.spool(), others, id_type, budget).synced(options.keep_spool);
        let goes_on = |error| resumable(error, runner);
        match self.make(runner, &store, &folder, inputs) {
            Ok(made) => {
                let tokenizer = job.encoder.bytes();
                folder.commit(tokenizer, &made.manifest, &made.spools).map_err(goes_on)?;
                Ok(made)
            }
            Err(error) if error.kind == ErrorKind::Interrupted => {
                // The spools made so far become files, for the run that goes on.
                store.keep().map_err(goes_on)?;
                Err(goes_on(error))
            }
            // A full disk may get room again, and lost machines come back; every other error would
            // come again.
            Err(error) if matches!(error.kind, ErrorKind::Output | ErrorKind::System) => {
                Err(goes_on(error))
            }
            // A store of the network may work again; its error says how to go on.
            Err(error) if error.io_kind == Some(std::io::ErrorKind::TimedOut) => {
                // Best effort: it may be the store of this folder that fails.
                let _ = store.keep();
                Err(error)
            }
            Err(error) => {
                folder.abandon();
                Err(error)
            }
        }
    }

    /// Maps, settles and reduces. Returns the dataset, which still lies in `folder`.
    fn make(
        &self,
        runner: &dyn Runner,
        store: &Store<'_>,
        folder: &WorkFolder<'_>,
        inputs: Vec<InputEntry>,
    ) -> Result<Made> {
        let (job, context, plan) = (&self.job, self.context, &self.job.plan);
        let started = Instant::now();
        let map_tasks = self.map_tasks(&inputs)?;
        let reused = self.map(runner, store, &map_tasks)?;
        let mapped = Instant::now();

        // A spool of whole documents and one of fitted documents for each task.
        let spools = store.spools(map_tasks.len() * 2);
        let (corpus, decisions) = &self.settle(&map_tasks, &spools)?;
        let tallies = decisions.sources.iter().map(|source| &source.tally);
        let contaminated = hits::write_hits(job, folder, &corpus.listing, context)?;
        let dropped = write::write_dropped(folder, plan, tallies, &corpus.listing, context)?;
        let dropped = [dropped, contaminated];
        let settled = Instant::now();

        let readers = context.threads;
        let stage = ReduceStage { job, corpus, decisions, folder, readers, context: *context };
        let shards = reduce(runner, &stage)?;
        let held_out = job.held_out.as_ref();
        let notes = notes(&job.encoder, plan, decisions, &shards, held_out, context)?;
        let kept_by_any = kept_by_any(corpus, decisions, context)?;
        let [dropped, contaminated] = dropped;
        let facts = Facts { inputs, dropped, contaminated, notes, kept_by_any };
        let manifest = report::manifest(job, decisions, &shards, facts, context)?;
        let timing = Timing {
            map: (mapped - started).as_secs_f64(),
            settle: (settled - mapped).as_secs_f64(),
            reduce: settled.elapsed().as_secs_f64(),
            total: 0.0,
        };
        let names = map_tasks.into_iter().map(|task| task.names);
        let spools = names.flat_map(|names| [Some(names.whole), names.fitted]).flatten().collect();
        let reused_splits = (reused.iter().filter(|reused| **reused).count(), reused.len());
        Ok(Made { manifest, spools, timing, reused_splits })
    }

    /// Settles the corpus whose `spools` the map tasks have made. Refuses one with too many records
    /// that cannot be used, or with none to train on.
    fn settle<'s>(
        &'s self,
        map_tasks: &[MapTask],
        spools: &'s [Spool],
    ) -> Result<(Corpus<'s>, Decisions)> {
        let (plan, context) = (&self.job.plan, self.context);
        let corpus = corpus_of(plan, map_tasks, spools, context.storage)?;
        if !self.options.strict {
            unfit::refuse_unfit(plan, &corpus.tallies, context)?;
        }
        let decisions = settle(&corpus, context)?;
        if self.options.strict {
            let tallies = decisions.sources.iter().map(|source| &source.tally);
            unfit::refuse_any(plan, tallies, context)?;
        }
        report::refuse_nothing(plan, &decisions, context)?;
        Ok((corpus, decisions))
    }

    /// Runs the map tasks. Returns whether each found its whole documents already made.
    fn map(&self, runner: &dyn Runner, store: &Store<'_>, tasks: &[MapTask]) -> Result<Vec<bool>> {
        let (job, context) = (&self.job, self.context);
        let bytes = tasks.iter().map(|task| task.split.bytes).sum();
        context.monitor.begin(Phase::Map, bytes);
        let reused = runner.map(&MapStage { job, store, context: *context }, tasks);
        // A file that is written to may look broken: that it changed says more.
        if reused.as_ref().err().is_none_or(|error| error.kind == ErrorKind::Input) {
            self.refuse_changed()?;
        }
        let reused = reused?;
        // Now rather than at the end: a run that fails later leaves the spools too.
        if self.options.keep_spool {
            store.keep()?;
        }
        Ok(reused)
    }

    /// Returns a map task for each input split. The slots of whole documents come first, then the
    /// slots of fitted documents.
    fn map_tasks(&self, inputs: &[InputEntry]) -> Result<Vec<MapTask>> {
        let splits = self.job.plan.splits(self.context.storage)?;
        let count = splits.len();
        let splits = splits.into_iter().enumerate();
        Ok(splits.map(|(slot, split)| self.map_task(slot, count, split, inputs)).collect())
    }

    /// Returns the map task of an input split, which is number `slot` of `count`.
    fn map_task(
        &self,
        slot: usize,
        count: usize,
        split: InputSplit,
        inputs: &[InputEntry],
    ) -> MapTask {
        MapTask {
            names: SpoolNames::of(&self.job, &split, inputs),
            split,
            slot,
            fitted_slot: count + slot,
            keep: self.options.keep_spool,
        }
    }

    /// Refuses to go on if an input was written to since its stamp was taken.
    fn refuse_changed(&self) -> Result<()> {
        for (input, stamp) in self.job.plan.inputs.iter().zip(&self.stamps) {
            if self.context.storage.stamp(&input.path)? != *stamp {
                return Err(was_changed(&input.name));
            }
        }
        Ok(())
    }

    /// Returns the report of a run of `runner` that began at `started`.
    fn report(&self, runner: &dyn Runner, started: Instant, made: Made) -> Report {
        let plan = &self.job.plan;
        let inputs = plan
            .sources
            .iter()
            .flat_map(|source| (0..source.inputs.len()).flat_map(|nth| source.files_of(nth)));
        Report {
            out: self.out.display().to_string(),
            manifest: made.manifest,
            timing: Timing { total: started.elapsed().as_secs_f64(), ..made.timing },
            threads: self.context.threads,
            bytes: inputs.map(|input| plan.inputs[input].size).sum(),
            reused_splits: made.reused_splits,
            engine_warning: self.job.encoder.engine_warning(),
            template_notes: template_notes(&self.job, &self.unmarked, &runner.unmarked()),
        }
    }
}

/// Returns the error of an input that was written to during the run.
fn was_changed(name: &str) -> Error {
    Error::input("was changed while it was read")
        .file(name)
        .remedy("pack again once nothing writes to it")
}

/// Makes every shard. Returns their sums, in order.
fn reduce(runner: &dyn Runner, stage: &ReduceStage<'_>) -> Result<Vec<ShardSums>> {
    let (shards, seq_len) = (&stage.decisions.shards, stage.job.plan.pack.seq_len as u64);
    // An estimate for the display of progress: rows are not quite full.
    let rows = shards.iter().map(|shard| shard.tokens / seq_len);
    stage.context.monitor.begin(Phase::Reduce, rows.sum());
    let tasks: Vec<ReduceTask> =
        shards.iter().map(|shard| ReduceTask { shard: shard.clone() }).collect();
    runner.reduce(stage, &tasks)
}

/// Returns a sentence for each source that shows labels by number, and for each that rendered
/// records in this run whose whole text had to count as data. `before` has the renders of each
/// source before the run, `elsewhere` those of other processes.
fn template_notes(job: &Job, before: &[u64], elsewhere: &[u64]) -> Vec<String> {
    let elsewhere = elsewhere.iter().copied().chain(std::iter::repeat(0));
    let renders = job.unmarked().into_iter().zip(before).zip(elsewhere);
    let renders = renders.map(|((now, before), more)| now - before + more);
    let unmarked = job.plan.sources.iter().zip(renders);
    let note = |(source, renders): (&Source, u64)| {
        format!(
            "{}: the template changes its data so that its own text cannot be told from it \
             (renders: {renders}): there all text counts as data, but for control tokens",
            source.name
        )
    };
    let numbers = job.plan.sources.iter().zip(&job.builders).flat_map(|(source, builder)| {
        numbered_labels(source, &**builder).into_iter().map(|(field, names)| {
            let (what, remedy) = numbered(&field, &names);
            format!("{}: {what}; {remedy}", source.name)
        })
    });
    unmarked.filter(|(_, renders)| *renders > 0).map(note).chain(numbers).collect()
}

/// Returns the mapped corpus: the parts of all spools, with the counts of each source.
fn corpus_of<'a>(
    plan: &'a Plan,
    tasks: &[MapTask],
    spools: &'a [Spool],
    storage: &dyn Storage,
) -> Result<Corpus<'a>> {
    let tallies = vec![Tally::default(); plan.sources.len()];
    let listing = Listing::new(plan.sources.len());
    let mut corpus = Corpus { plan, parts: Vec::new(), tallies, listing };
    for task in tasks {
        let InputSplit { source, nth_input, input, .. } = task.split;
        for (slot, fitted) in [(task.slot, false), (task.fitted_slot, true)] {
            corpus.tallies[source].add(&spools[slot].tally);
            spools[slot].list_drops(source, &corpus.listing, storage)?;
            let parts = spools[slot].parts.iter().filter(|part| part.layout.documents > 0);
            let part_of = |part| PartOf { source, nth_input, input, fitted, part };
            corpus.parts.extend(parts.map(part_of));
        }
    }
    Ok(corpus)
}
