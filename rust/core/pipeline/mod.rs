//! The pipeline: the only place that knows every stage.
//!
//! Map turns each input split into a spool, settle decides, reduce makes each shard; then the manifest is written.
//! Tasks are independent of each other and of their number, so the output is too.

mod explain;
mod fit;
mod map;
mod reduce;
mod tasks;
mod train;

use std::path::Path;
use std::time::Instant;

pub use explain::{Explanation, ShownToken, explain};
pub use fit::windows;
pub use train::{TokenizerReport, train_tokenizer};

use crate::error::{Error, Result};
use crate::monitor::{Monitor, Phase};
use crate::plan::Plan;
use crate::read;
use crate::report::{self, Report, Timing};
use crate::segment::Segmenter;
use crate::settle::settle;
use crate::tokenize::Encoder;
use crate::write::OutFolder;

/// How a job runs; none of it shows in the output.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Threads that map and reduce; at least 1.
    pub threads: usize,
    /// Whether a dataset of ours in OUT may be replaced.
    pub overwrite: bool,
}

/// A plan with its tokenizer loaded and its templates compiled.
#[derive(Debug)]
pub struct Job<'a> {
    /// What will run.
    pub plan: &'a Plan,
    /// The tokenizer.
    pub encoder: Encoder,
    /// The templates of each source.
    pub segmenters: Vec<Segmenter>,
}

impl<'a> Job<'a> {
    /// Loads what the plan names, and refuses what cannot work together.
    pub fn prepare(plan: &'a Plan) -> Result<Self> {
        let encoder = Encoder::load(&plan.tokenizer, &plan.config_file)?;
        let compile = |source| Segmenter::compile(source, encoder.spellings());
        let segmenters = plan.sources.iter().map(compile).collect::<Result<_>>();
        let segmenters = segmenters.map_err(|error: Error| error.file(plan.config_file.clone()))?;
        for source in plan.sources.iter().filter(|source| !source.is_plain()) {
            encoder.check_continuation(&source.name)?;
        }
        Ok(Self { plan, encoder, segmenters })
    }
}

/// Packs the corpus of `plan` into the dataset folder `out`.
pub fn pack(plan: &Plan, out: &Path, options: Options, monitor: &Monitor) -> Result<Report> {
    let started = Instant::now();
    monitor.begin(Phase::Plan, 0);
    refuse_nesting(plan, out)?;
    let job = Job::prepare(plan)?;
    let folder = OutFolder::claim(out, options.overwrite)?;

    let splits = read::splits(plan);
    let bytes: u64 = plan.sources.iter().flat_map(|source| &source.inputs).map(|&input| plan.inputs[input].size).sum();
    monitor.begin(Phase::Map, bytes);
    let spools = tasks::run(options.threads, splits.len(), |at| map::map_split(&job, &splits[at], monitor))?;
    let inputs = tasks::run(options.threads, plan.inputs.len(), |at| {
        monitor.check()?;
        report::input_entry(&plan.inputs[at])
    })?;
    let mapped = Instant::now();

    let settlement = settle(plan, &spools);
    report::refuse_nothing(plan, &settlement)?;
    let settled = Instant::now();

    monitor.begin(Phase::Reduce, settlement.shards.iter().map(|shard| shard.tokens / plan.pack.seq_len as u64).sum());
    let shards = tasks::run(options.threads, settlement.shards.len(), |at| {
        reduce::reduce_shard(&job, &spools, &settlement, &settlement.shards[at], &folder, monitor)
    })?;
    drop(spools);
    let manifest = report::manifest(&job.encoder, plan, &settlement, &shards, inputs)?;
    folder.commit(job.encoder.bytes(), &manifest)?;
    let timing = Timing {
        map: (mapped - started).as_secs_f64(),
        settle: (settled - mapped).as_secs_f64(),
        reduce: settled.elapsed().as_secs_f64(),
        total: started.elapsed().as_secs_f64(),
    };
    Ok(Report { out: out.display().to_string(), manifest, timing, threads: options.threads, bytes })
}

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
        Some(input) => refuse(format!("holds {}, which a source reads", input.name))
            .map_err(|error| error.remedy("name a folder outside the corpus, or patterns that do not take it in")),
    }
}
