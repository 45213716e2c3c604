//! `Worker`: a process that does tasks of a run that another process leads.
//!
//! Both see the same corpus and the same dataset folder. The leader sends tasks as JSON; spools,
//! shards and notes go through the folder, and a small outcome comes back.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;

use once_cell::sync::OnceCell;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::begin::load_plan;
use super::cluster::READERS;
use super::settled::Settled;
use super::{MapStage, MapTask, ReduceStage, ReduceTask, Runner, Threads, identity, prepare_job};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::plan::{PackOptions, Plan};
use crate::report::{self, ShardSums};
use crate::spool::Store;
use crate::tasks;
use crate::write::{self, InputEntry, Stage, State, WorkFolder};

/// What came of an order: what its tasks gave, or the first error; and the counters of its work.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Outcome<T> {
    /// What each task gave.
    pub result: std::result::Result<Vec<T>, Error>,
    /// Records read, bytes or rows done, and tokens made.
    pub counts: [u64; 3],
    /// The renders of each source in which template text could not be told from data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmarked: Vec<u64>,
}

impl<T: Serialize> Outcome<T> {
    /// Returns the outcome of work that `context` counted, as JSON.
    fn sent(result: Result<Vec<T>>, context: &Context<'_>, unmarked: Vec<u64>) -> String {
        let monitor = context.monitor;
        let counters = [&monitor.records, &monitor.done, &monitor.tokens];
        let counts = counters.map(|counter| counter.load(Relaxed));
        serde_json::to_string(&Self { result, counts, unmarked }).expect("it is plain data")
    }
}

/// Reads tasks that the leader sent.
fn received<T: DeserializeOwned>(tasks: &[String]) -> Result<Vec<T>> {
    let read = |task: &String| serde_json::from_str(task);
    tasks.iter().map(read).collect::<std::result::Result<_, _>>().map_err(|error| {
        Error::config(format!("was sent a task that it cannot read: {error}"))
            .remedy("install one version of sabiprep on every machine of the cluster")
    })
}

/// Returns the entries of the inputs of `corpus` with these indices, as the JSON of an outcome.
#[must_use]
pub fn sum_inputs(
    corpus: &Path,
    options: &PackOptions,
    tasks: &[String],
    context: &Context<'_>,
) -> String {
    let sum = || -> Result<Vec<InputEntry>> {
        let (plan, indices) = (load_plan(Some(corpus), options, context)?, received(tasks)?);
        tasks::run(context.threads, indices.len(), |nth| {
            let index: usize = indices[nth];
            let input = plan.inputs.get(index).ok_or_else(|| other_files(corpus))?;
            report::input_entry(input, context)
        })
    };
    Outcome::sent(sum(), context, Vec::new())
}

/// Returns the outcome, as JSON, of an order that cannot be begun.
#[must_use]
pub fn refusal(error: Error, context: &Context<'_>) -> String {
    Outcome::<()>::sent(Err(error), context, Vec::new())
}

/// Returns the error of a machine on which the corpus is another.
pub(super) fn other_files(corpus: &Path) -> Error {
    Error::input("is not the same on every machine of the cluster")
        .file(corpus.display().to_string())
        .remedy("put the corpus where all of them see it under one path: a shared disk or a bucket")
}

/// A process that does tasks of a run that another process leads, by the threads of the context of
/// each call. Threads may call it concurrently.
#[derive(Debug)]
pub struct Worker {
    job: Job,
    options: PackOptions,
    out: PathBuf,
    state: State,
    /// Read with the first shard to make.
    settled: OnceCell<Settled>,
    /// The renders of each source that outcomes have told.
    told_unmarked: Mutex<Vec<u64>>,
}

impl Worker {
    /// Takes part in the run in `out`. The options are those of the leader, but for the threads.
    pub fn join(
        corpus: &Path,
        out: &Path,
        options: &PackOptions,
        context: &Context<'_>,
    ) -> Result<Self> {
        let state = State::of(context.storage, out)?;
        let state = state.filter(|state| state.stage == Stage::Working).ok_or_else(|| {
            Error::output("holds no run to take part in").file(out.display().to_string()).remedy(
                "name the folder that the leader of the run packs into, on a disk or in a \
                     bucket that every machine sees",
            )
        })?;
        let mut plan = load_plan(Some(corpus), options, context)?;
        plan.split_bytes = state.split_bytes;
        let unsummed = unsummed(&plan);
        let mut options = options.clone();
        options.keep_spool |= state.keep_spool;
        let job = prepare_job(plan, &options, context)?;
        state.identity.refuse_changes(&identity(&job, &unsummed), out)?;
        let told_unmarked = Mutex::new(job.unmarked());
        let out = out.to_owned();
        Ok(Self { job, options, out, state, settled: OnceCell::new(), told_unmarked })
    }

    /// Does map tasks. Returns the JSON of an outcome: whether each was done by an earlier run.
    #[must_use]
    pub fn map(&self, tasks: &[String], context: &Context<'_>) -> String {
        let made = received(tasks).and_then(|tasks| self.map_tasks(&tasks, context));
        Outcome::sent(made, context, self.untold_unmarked())
    }

    /// Returns the renders of each source that no outcome has told yet; concurrent calls share them.
    fn untold_unmarked(&self) -> Vec<u64> {
        let mut told = tasks::lock(&self.told_unmarked);
        let before = std::mem::replace(&mut *told, self.job.unmarked());
        told.iter().zip(before).map(|(now, before)| now - before).collect()
    }

    /// Does map tasks. Returns whether each was done by an earlier run.
    fn map_tasks(&self, tasks: &[MapTask], context: &Context<'_>) -> Result<Vec<bool>> {
        let store = shared_store(&self.job, &self.options, &self.out, context);
        Threads.map(&MapStage { job: &self.job, store: &store, context: *context }, tasks)
    }

    /// Makes shards. Returns the JSON of an outcome: the sums of each.
    #[must_use]
    pub fn reduce(&self, tasks: &[String], context: &Context<'_>) -> String {
        let made = received(tasks).and_then(|tasks| self.reduce_tasks(&tasks, context));
        Outcome::sent(made, context, Vec::new())
    }

    /// Makes shards. Returns the sums of each.
    fn reduce_tasks(&self, tasks: &[ReduceTask], context: &Context<'_>) -> Result<Vec<ShardSums>> {
        let folder = WorkFolder::join(context.storage, &self.out, self.state.clone())?;
        let settled = self.settled(&folder, context)?;
        let (job, corpus) = (&self.job, &settled.corpus(&self.job.plan));
        let decisions = settled.decisions();
        let (folder, readers) = (&folder, context.threads.max(READERS));
        let stage = ReduceStage { job, corpus, decisions, folder, readers, context: *context };
        Threads.reduce(&stage, tasks)
    }

    /// Makes the shards of part `part` of `parts`, once another process has settled the corpus.
    /// Returns their number, and that of all shards.
    pub fn reduce_part(
        &self,
        (part, parts): (usize, usize),
        context: &Context<'_>,
    ) -> Result<(usize, usize)> {
        let folder = WorkFolder::join(context.storage, &self.out, self.state.clone())?;
        let shards = &self.settled(&folder, context)?.decisions().shards;
        let tokens: Vec<u64> = shards.iter().map(|shard| shard.tokens).collect();
        let range = super::parts::part_of(&tokens, part, parts);
        let tasks: Vec<ReduceTask> =
            shards[range].iter().map(|shard| ReduceTask { shard: shard.clone() }).collect();
        self.reduce_tasks(&tasks, context)?;
        Ok((tasks.len(), shards.len()))
    }

    /// Returns the mapped corpus and the decisions over it.
    fn settled(&self, folder: &WorkFolder<'_>, context: &Context<'_>) -> Result<&Settled> {
        self.settled.get_or_try_init(|| {
            let path = folder.settled_path();
            if !context.storage.is_file(&path) {
                return Err(Error::output("is not settled yet")
                    .file(self.out.display().to_string())
                    .remedy(
                        "run `sabiprep finish CORPUS OUT --settle` first, once every part is done",
                    ));
            }
            Settled::read(context.storage, &path)
        })
    }
}

/// Returns the entries of a plan's inputs, without their checksums.
pub(super) fn unsummed(plan: &Plan) -> Vec<InputEntry> {
    let entry = |input: &crate::plan::Input| InputEntry {
        path: input.name.clone(),
        size: input.size,
        xxh3_128: String::new(),
    };
    plan.inputs.iter().map(entry).collect()
}

/// Returns the store of a process whose spools others read.
pub(super) fn shared_store<'a>(
    job: &Job,
    options: &PackOptions,
    out: &Path,
    context: &Context<'a>,
) -> Store<'a> {
    let others = options.reuse.iter().map(|other| write::spool_of(other)).collect();
    Store::shared(context.storage, write::spool_of(out), others, job.encoder.id_type())
        .synced(options.keep_spool)
}
