//! The pipeline: the only place that knows every stage.
//!
//! Map turns each input split into a spool, settle decides, reduce makes each shard; then the
//! manifest is written. Tasks are independent of each other and of their number, so the output is
//! too.

mod against;
mod content;
mod explain;
mod fit;
mod gather;
mod map;
mod reduce;
mod space;
mod spooled;
mod train;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

pub use against::{Against, verify_against};
pub use explain::{Explanation, ShownToken, explain};
pub use fit::windows;
pub use train::{TokenizerReport, train_tokenizer};

use crate::contamination::HeldOut;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::files;
use crate::monitor::{Monitor, Phase};
use crate::notes::notes;
use crate::plan::{Overrides, Plan, Source};
use crate::read::InputSplit;
use crate::report::{self, Report, ShardSums, Timing};
use crate::segment::Segmenter;
use crate::settle::{Corpus, PartOf, Settlement, ShardPlan, settle};
use crate::spool::{Spool, Store, Tally};
use crate::tasks;
use crate::tokenize::Encoder;
use crate::write::{
    self, Identity, InputEntry, Manifest, Program, Stage, State, Survey, WorkFolder, Written,
};

/// How a job runs; none of it shows in the dataset.
#[derive(Debug, Clone)]
pub struct Options {
    /// Threads that map and reduce; at least 1.
    pub threads: usize,
    /// Whether a dataset of ours in OUT, or an unfinished one, may be replaced.
    pub overwrite: bool,
    /// Whether an unfinished run in OUT is to go on.
    pub resume: bool,
    /// Whether the spool stays in OUT, for the next run that can use some of it.
    pub keep_spool: bool,
    /// Bytes of spool held in memory; beyond them it is files.
    pub spool_bytes: u64,
    /// Datasets whose kept spools may serve.
    pub reuse: Vec<PathBuf>,
}

/// What a run holds of its spool in memory, unless it is told otherwise: 192 MiB.
pub const SPOOL_BYTES: u64 = 192 << 20;

/// A plan with its tokenizer loaded and its templates compiled.
#[derive(Debug)]
pub struct Job<'a> {
    /// What will run.
    pub plan: &'a Plan,
    /// The tokenizer.
    pub encoder: Encoder,
    /// The templates of each source.
    pub segmenters: Vec<Segmenter>,
    /// Whether the spool has content keys.
    pub keyed: bool,
    /// What training is kept clean of.
    pub held_out: Option<HeldOut>,
}

impl<'a> Job<'a> {
    /// Loads what the plan names, on a few threads, and refuses what cannot work together.
    pub fn prepare(plan: &'a Plan, threads: usize) -> Result<Self> {
        Self::with_encoder(plan, Encoder::load(&plan.tokenizer, &plan.config_file, threads)?)
    }

    /// Compiles what the plan names for `encoder`.
    fn with_encoder(plan: &'a Plan, encoder: Encoder) -> Result<Self> {
        let names = encoder.token_names();
        let compile = |source| Segmenter::compile(source, encoder.spellings(), &names);
        let segmenters = plan.sources.iter().map(compile).collect::<Result<_>>();
        let segmenters = segmenters.map_err(|error: Error| error.file(plan.config_file.clone()))?;
        for source in plan.sources.iter().filter(|source| !source.is_plain()) {
            encoder.check_continuation(&source.name)?;
        }
        Ok(Self { plan, encoder, segmenters, keyed: plan.looks_at_content(), held_out: None })
    }

    /// Sources of some of whose records, rendered in this run, all text had to count as data, each
    /// in a sentence.
    fn template_notes(&self) -> Vec<String> {
        let unmarked = self
            .plan
            .sources
            .iter()
            .zip(&self.segmenters)
            .filter(|(_, segmenter)| segmenter.unmarked() > 0);
        let note = |(source, segmenter): (&Source, &Segmenter)| {
            format!(
                "{}: the template changes its data so that its own text cannot be told from it (renders: {}): \
                 there all text counts as data, but for control tokens",
                source.name,
                segmenter.unmarked()
            )
        };
        unmarked.map(note).collect()
    }

    fn identity(&self, inputs: &[InputEntry]) -> Identity {
        let controls = self.encoder.controls();
        Identity {
            program: Program::this(),
            tokenizer: self.encoder.sha256().to_owned(),
            controls: (controls.bos, controls.eos, controls.pad),
            config: report::resolved_config(self.plan),
            inputs: inputs.to_vec(),
        }
    }
}

/// Packs the corpus of `plan` into the dataset folder `out`.
pub fn pack(plan: &Plan, out: &Path, options: &Options, monitor: &Monitor) -> Result<Report> {
    let started = Instant::now();
    monitor.begin(Phase::Plan, 0);
    refuse_nesting(plan, out)?;
    let mut survey = write::survey(out, options.overwrite, options.resume)?;
    let (mut plan, mut options) = (plan.clone(), options.clone());
    if let Survey::Unfinished(state) = &survey {
        // The splits must be the same for its spools to serve.
        plan.split_bytes = state.split_bytes;
        options.keep_spool |= state.keep_spool;
    }
    refuse_many_splits(&plan)?;
    plan.sources
        .iter()
        .try_for_each(Segmenter::refuse_constant)
        .map_err(|error| error.file(plan.config_file.clone()))?;
    let mut job = Job::prepare(&plan, options.threads)?;
    // Whoever comes to use a kept spool may hold records out.
    job.keyed |= options.keep_spool || !options.reuse.is_empty();
    // The manifest holds them: better to know now whether the tokenizer encodes them.
    job.encoder.probes()?;
    let stamps = stamps(&plan)?;
    job.held_out = HeldOut::read(&plan, &Context { threads: 1, monitor })?;
    let inputs = tasks::run(options.threads, plan.inputs.len(), |at| {
        report::input_entry(&plan.inputs[at], monitor)
    })?;
    let identity = job.identity(&inputs);
    let bytes: u64 = plan
        .sources
        .iter()
        .flat_map(|source| &source.inputs)
        .map(|&input| plan.inputs[input].size)
        .sum();
    let report = |manifest: Manifest, timing: Timing, reused_splits: (usize, usize)| Report {
        out: out.display().to_string(),
        manifest,
        timing: Timing { total: started.elapsed().as_secs_f64(), ..timing },
        threads: options.threads,
        bytes,
        reused_splits,
        engine_warning: job.encoder.engine_warning(),
        template_notes: job.template_notes(),
    };
    if matches!(survey, Survey::Finished) {
        let manifest = Manifest::read(out)?;
        match Identity::of_dataset(&manifest).refuse_changes(&identity, out) {
            Ok(()) => {
                write::clear_leftover(out)?;
                return Ok(report(manifest, Timing::default(), (0, 0)));
            }
            Err(_) if options.overwrite => survey = write::survey(out, true, false)?,
            Err(error) => return Err(error),
        }
    }
    let state = match &survey {
        Survey::Unfinished(state) => {
            state.identity.refuse_changes(&identity, out)?;
            if state.stage == Stage::Moving {
                let folder = WorkFolder::open(out, &survey, state.clone())?;
                folder.check_move(monitor)?;
                folder.end_move()?;
                return Ok(report(Manifest::read(out)?, Timing::default(), (0, 0)));
            }
            State { keep_spool: options.keep_spool, ..state.clone() }
        }
        Survey::Fresh(_) | Survey::Finished => {
            space::refuse_too_little(&job, out, &options, monitor)?;
            State {
                identity,
                split_bytes: plan.split_bytes,
                keep_spool: options.keep_spool,
                corpus: plan.root.canonicalize().unwrap_or_else(|_| plan.root.clone()),
                tokenizer: plan.tokenizer.file.as_ref().and_then(|file| file.canonicalize().ok()),
                stage: Stage::Working,
            }
        }
    };
    let folder = WorkFolder::open(out, &survey, state)?;
    let others = options.reuse.iter().map(|other| write::spool_of(other)).collect();
    let store = Store::new(folder.spool(), others, job.encoder.id_type(), options.spool_bytes);
    match make(&store, &job, &options, &folder, inputs, &stamps, monitor) {
        Ok(made) => {
            let committed = folder.commit(job.encoder.bytes(), &made.manifest, &made.spools);
            committed.map_err(resumable)?;
            Ok(report(made.manifest, made.timing, made.reused_splits))
        }
        Err(error) if error.kind == ErrorKind::Interrupted => {
            // What is mapped so far becomes files.
            store.keep().map_err(resumable)?;
            Err(resumable(error))
        }
        Err(error) if error.kind == ErrorKind::Output => Err(resumable(error)),
        Err(error) => {
            folder.abandon();
            Err(error)
        }
    }
}

/// Packs the corpus that the dataset `from` was made of into `out`, from the spool that `from`
/// kept: whatever of the plan does not change what records are as tokens (weights, rows,
/// validation) costs no tokenizing.
///
/// The corpus is where it was, unless `corpus` is given; so is the tokenizer, unless the plan names
/// one.
pub fn remix(
    from: &Path,
    corpus: Option<&Path>,
    overrides: &Overrides,
    out: &Path,
    options: &Options,
    monitor: &Monitor,
) -> Result<Report> {
    let kept = State::of(from)?.filter(|state| state.stage == Stage::Kept).ok_or_else(|| {
        Error::dataset("keeps no spool to mix again")
            .file(from.display().to_string())
            .remedy("pack it with --keep-spool")
    })?;
    let overrides = Overrides { split_bytes: Some(kept.split_bytes), ..overrides.clone() };
    let mut plan = Plan::load(corpus.unwrap_or(&kept.corpus), &overrides)?;
    plan.tokenizer.file = plan.tokenizer.file.or(kept.tokenizer);
    pack(&plan, out, &Options { reuse: vec![from.to_owned()], ..options.clone() }, monitor)
}

/// A run that was stopped from outside can go on.
fn resumable(error: Error) -> Error {
    let first = error.remedy.as_ref().map(|remedy| format!("{remedy}; then ")).unwrap_or_default();
    error.remedy(format!("{first}run the same command with --resume: what is done is kept"))
}

/// Size and time of change of every input.
fn stamps(plan: &Plan) -> Result<Vec<files::Stamp>> {
    plan.inputs.iter().map(|input| files::stamp(&input.path)).collect()
}

/// What a run made, not yet in place.
struct MadeDataset {
    manifest: Manifest,
    /// Names of the spools it is made of.
    spools: Vec<String>,
    timing: Timing,
    reused_splits: (usize, usize),
}

/// Map, settle, reduce.
fn make(
    store: &Store,
    job: &Job<'_>,
    options: &Options,
    folder: &WorkFolder,
    inputs: Vec<InputEntry>,
    stamps: &[files::Stamp],
    monitor: &Monitor,
) -> Result<MadeDataset> {
    let plan = job.plan;
    let started = Instant::now();
    let splits = plan.splits();
    let names: Vec<_> =
        splits.iter().map(|split| spooled::names(job, split, &inputs[split.input])).collect();
    let sizes: Vec<u64> = splits.iter().map(|split| split_bytes(plan, split)).collect();
    monitor.begin(Phase::Map, sizes.iter().sum());
    let reused = tasks::run_largest_first(options.threads, &sizes, |at| {
        map_or_reuse(job, store, &splits, at, &names[at], options.keep_spool, monitor)
    })?;
    refuse_changed(plan, stamps)?;
    if options.keep_spool {
        store.keep()?;
    }
    let spools = store.spools(splits.len() * 2);
    let corpus = corpus(plan, &splits, &spools);
    let mapped = Instant::now();

    let settlement = settle(&corpus, options.threads)?;
    report::refuse_nothing(plan, &settlement, monitor)?;
    let settled = Instant::now();

    monitor.begin(
        Phase::Reduce,
        settlement.shards.iter().map(|shard| shard.tokens / plan.pack.seq_len as u64).sum(),
    );
    let shards = reduce_all(job, &settlement, folder, options.threads, monitor)?;
    let notes = notes(&job.encoder, plan, &settlement, &shards, job.held_out.as_ref());
    let manifest =
        report::manifest(&job.encoder, plan, &settlement, &shards, inputs, notes, monitor)?;
    let timing = Timing {
        map: (mapped - started).as_secs_f64(),
        settle: (settled - mapped).as_secs_f64(),
        reduce: settled.elapsed().as_secs_f64(),
        total: 0.0,
    };
    let spools =
        names.into_iter().flat_map(|names| [Some(names.whole), names.fitted]).flatten().collect();
    let reused_splits = (reused.iter().filter(|reused| **reused).count(), reused.len());
    Ok(MadeDataset { manifest, spools, timing, reused_splits })
}

/// Refuses to go on with inputs that were written to since they were looked at.
fn refuse_changed(plan: &Plan, stamps: &[files::Stamp]) -> Result<()> {
    for (input, stamp) in plan.inputs.iter().zip(stamps) {
        if files::stamp(&input.path)? != *stamp {
            return Err(Error::input("was changed while it was read")
                .file(input.name.clone())
                .remedy("pack again once nothing writes to it"));
        }
    }
    Ok(())
}

/// Bytes of input that a split covers.
fn split_bytes(plan: &Plan, split: &InputSplit) -> u64 {
    split.range.end.min(plan.inputs[split.input].size) - split.range.start
}

/// Fills the slots of split `at`: its own for whole documents, and one after those of all splits
/// for fitted ones. Whether its whole documents were there already.
fn map_or_reuse(
    job: &Job<'_>,
    store: &Store,
    splits: &[InputSplit],
    at: usize,
    names: &spooled::Names,
    keep: bool,
    monitor: &Monitor,
) -> Result<bool> {
    let (split, fitted_slot) = (&splits[at], splits.len() + at);
    let mut missing = None;
    if let Some(name) = &names.fitted
        && !store.take_finished(fitted_slot, name, keep, monitor)?
    {
        missing = Some(store.begin(fitted_slot, name.clone()));
    }
    if !store.take_finished(at, &names.whole, keep, monitor)? {
        map::map_split(job, split, store.begin(at, names.whole.clone()), missing, monitor)?;
        return Ok(false);
    }
    if let Some(fitted) = missing {
        map::fit_split(job, split, &store.spool(at), fitted, monitor)?;
    }
    monitor.done.fetch_add(split_bytes(job.plan, split), Relaxed);
    Ok(true)
}

/// The parts of all spools, with what happened to the records of each source.
fn corpus<'a>(plan: &'a Plan, splits: &[InputSplit], spools: &'a [Spool]) -> Corpus<'a> {
    let mut corpus =
        Corpus { plan, parts: Vec::new(), tallies: vec![Tally::default(); plan.sources.len()] };
    let (whole, fitted) = spools.split_at(splits.len());
    for (nth, split) in splits.iter().enumerate() {
        for (spool, fitted) in [(&whole[nth], false), (&fitted[nth], true)] {
            let InputSplit { source, nth_input, input, .. } = *split;
            corpus.tallies[source].add(&spool.tally);
            let parts = spool.parts.iter().filter(|part| part.layout.documents > 0);
            corpus.parts.extend(parts.map(|part| PartOf {
                source,
                nth_input,
                input,
                fitted,
                part,
            }));
        }
    }
    corpus
}

/// Makes the shards that an earlier run did not.
fn reduce_all(
    job: &Job<'_>,
    settlement: &Settlement<'_>,
    folder: &WorkFolder,
    threads: usize,
    monitor: &Monitor,
) -> Result<Vec<ShardSums>> {
    let shards = &settlement.shards;
    let reduce = |plan: &ShardPlan, threads| -> Result<ShardSums> {
        if let Some(saved) = folder.saved::<ShardSums>(plan.split, plan.index)
            && is_whole(&folder.shard_path(plan.split, plan.index), &saved.written, monitor)?
        {
            monitor.done.fetch_add(saved.written.rows, Relaxed);
            return Ok(saved);
        }
        let sums = reduce::reduce_shard(job, settlement, plan, folder, threads, monitor)?;
        folder.save(plan.split, plan.index, &sums)?;
        Ok(sums)
    };
    let at_once = shards_at_once(shards, threads, DOCUMENTS_BYTES);
    if at_once > 1 {
        return tasks::run(at_once, shards.len(), |at| reduce(&shards[at], threads / at_once));
    }
    shards.iter().map(|plan| reduce(plan, threads)).collect()
}

/// Whether a shard is as it was written. One that is not is made again, and takes the place of the
/// damaged one.
fn is_whole(path: &Path, written: &Written, monitor: &Monitor) -> Result<bool> {
    if !files::file_size(path).is_ok_and(|size| size == written.bytes) {
        return Ok(false);
    }
    match files::xxh3_128_of_file(path, || monitor.check()) {
        Err(error) if error.kind == ErrorKind::Interrupted => Err(error),
        sum => Ok(sum.is_ok_and(|sum| sum == written.xxh3_128)),
    }
}

/// Returns how many shards are made at the same time: as many as there are threads where shards are
/// many, as long as what they hold for their documents stays within `budget`; else one, which all
/// threads share.
fn shards_at_once(shards: &[ShardPlan], threads: usize, budget: u64) -> usize {
    let largest =
        shards.iter().map(|shard| shard.documents * gather::DOCUMENT_BYTES).max().unwrap_or(0);
    let within = (budget / largest.max(1)).clamp(1, threads as u64) as usize;
    if shards.len() >= within * SHARDS_A_THREAD { within } else { 1 }
}

/// From this many shards for each thread on, a thread makes whole shards.
const SHARDS_A_THREAD: usize = 4;

/// Splits that a run may have: each is a spool, and what is known of them is held in memory.
const MAX_SPLITS: u64 = 1 << 22;

/// Refuses splits so small that there would be millions of them.
fn refuse_many_splits(plan: &Plan) -> Result<()> {
    let inputs = plan.sources.iter().flat_map(|source| &source.inputs);
    let splits: u64 = inputs.map(|&input| plan.inputs[input].size.div_ceil(plan.split_bytes)).sum();
    if splits <= MAX_SPLITS {
        return Ok(());
    }
    Err(Error::config(format!(
        "split_bytes = {} makes {splits} splits, at most {MAX_SPLITS} can be",
        plan.split_bytes
    ))
    .file(plan.config_file.clone())
    .remedy("leave --split-bytes out, or raise it; --overwrite starts an unfinished run again"))
}

/// Bytes that the shards made at the same time hold for their documents, tokens aside.
const DOCUMENTS_BYTES: u64 = 256 << 20;

/// A dataset folder that holds the corpus, or a file of it, would change what it is made of.
fn refuse_nesting(plan: &Plan, out: &Path) -> Result<()> {
    let Ok(out_path) = out.canonicalize() else { return Ok(()) };
    if !out_path.is_dir() {
        return Ok(());
    }
    let is_below = |path: &Path| path.canonicalize().is_ok_and(|path| path.starts_with(&out_path));
    let refuse = |what: String| Err(Error::output(what).file(out.display().to_string()));
    if is_below(&plan.root) {
        return refuse("is, or holds, the corpus itself".to_owned())
            .map_err(|error| error.remedy("name a folder outside the corpus"));
    }
    match plan.inputs.iter().find(|input| is_below(&input.path)) {
        None => Ok(()),
        Some(input) => {
            refuse(format!("holds {}, which a source reads", input.name)).map_err(|error| {
                error.remedy("name a folder outside the corpus, or patterns that do not take it in")
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Split;

    #[test]
    fn shards_of_many_documents_are_made_one_after_another() {
        let shards = |count: usize, documents: u64| -> Vec<ShardPlan> {
            let shard = |index| ShardPlan {
                split: Split::Train,
                index,
                buckets: 0..1,
                tokens: 0,
                documents,
            };
            (0..count).map(shard).collect()
        };
        let budget = 1_000 * gather::DOCUMENT_BYTES;
        for (count, documents, threads, expected) in [
            (64, 10, 16, 16),
            (63, 10, 16, 1),
            (64, 250, 16, 4),
            (64, 501, 16, 1),
            (64, 2_000, 16, 1),
            (8, 10, 1, 1),
            (0, 0, 4, 1),
        ] {
            let found = shards_at_once(&shards(count, documents), threads, budget);
            assert_eq!(
                found, expected,
                "{count} shards of {documents} documents on {threads} threads"
            );
        }
    }
}
