//! `Cluster`: the runner of a run whose tasks are done by worker processes, on any machines that see
//! the corpus and the dataset folder.
//!
//! The leader plans, settles and commits; it sends tasks as JSON, in orders of some tasks each.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::settled::write_settled;
use super::worker::{Outcome, other_files};
use super::{MapStage, MapTask, ReduceStage, ReduceTask, Runner, Threads};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::report::ShardSums;
use crate::tasks;
use crate::write::InputEntry;

/// The least bytes of input that an order covers, where its file has as many.
const ORDER_BYTES: u64 = 32 << 20;
/// The bytes of input below which the leader itself takes the checksums: sooner than workers start.
const FEW_BYTES: u64 = if cfg!(test) { 1 } else { 8 << 30 };
/// The input splits that a large corpus is divided into, roughly.
const SPLITS: u64 = 4096;
/// The smallest and the largest size that is chosen for an input split.
const SPLIT_BYTES: (u64, u64) = (8 << 20, 256 << 20);
/// The threads that read spools of other processes, at least: each waits for a disk or a network.
pub(super) const READERS: usize = 16;

/// Tasks that one worker does, one after another.
#[derive(Debug)]
pub struct Order {
    /// The kind of the tasks: `inputs`, `map` or `reduce`.
    pub kind: &'static str,
    /// The tasks as JSON.
    pub tasks: Vec<String>,
    /// The work that it takes, by a measure that all orders of its kind share.
    pub weight: u64,
    /// The index of the file that it reads; 0 if it reads all.
    pub file: usize,
}

/// A function that takes the index of an order and its outcome, or `None` while there is none.
pub type Take<'a> = dyn FnMut(Option<(usize, &str)>) -> Result<()> + 'a;

/// Worker processes.
pub trait Workers: std::fmt::Debug + Sync {
    /// Has every order done, in any sequence. Calls `take` with the index of an order and its
    /// outcome as it comes, and with `None` now and then while it waits. Stops at an error of
    /// `take`, and returns it.
    fn run(&self, orders: &[Order], take: &mut Take<'_>) -> Result<()>;
}

/// A runner that has tasks done by worker processes.
#[derive(Debug)]
pub(crate) struct Cluster<'a> {
    workers: &'a dyn Workers,
    /// The renders of each source, in all workers, in which template text could not be told from
    /// data.
    unmarked: Mutex<Vec<u64>>,
}

impl<'a> Cluster<'a> {
    /// Returns the runner of these workers.
    pub(crate) fn new(workers: &'a dyn Workers) -> Self {
        Self { workers, unmarked: Mutex::default() }
    }

    /// Has orders done. Returns what the tasks of each gave.
    fn done<T: DeserializeOwned>(
        &self,
        orders: &[Order],
        context: &Context<'_>,
    ) -> Result<Vec<Vec<T>>> {
        let monitor = context.monitor;
        let mut found: Vec<Option<Vec<T>>> = orders.iter().map(|_| None).collect();
        self.workers.run(orders, &mut |outcome| {
            monitor.check()?;
            let Some((index, text)) = outcome else { return Ok(()) };
            let outcome: Outcome<T> = serde_json::from_str(text).map_err(|error| unread(&error))?;
            for (counter, more) in
                [&monitor.records, &monitor.done, &monitor.tokens].into_iter().zip(outcome.counts)
            {
                counter.fetch_add(more, Relaxed);
            }
            let mut unmarked = self.unmarked.lock().unwrap_or_else(PoisonError::into_inner);
            let len = unmarked.len().max(outcome.unmarked.len());
            unmarked.resize(len, 0);
            unmarked.iter_mut().zip(outcome.unmarked).for_each(|(all, more)| *all += more);
            found[index] = Some(outcome.result?);
            Ok(())
        })?;
        let complete = |(found, order): (Option<Vec<T>>, &Order)| {
            found.filter(|found| found.len() == order.tasks.len()).ok_or_else(|| {
                Error::internal("an order came back undone")
                    .remedy("this is a bug in sabiprep: please report it")
            })
        };
        found.into_iter().zip(orders).map(complete).collect()
    }
}

/// Returns the size of input splits that serves processes of their own: large where the corpus is,
/// since every shard reads of every spool.
pub(super) fn split_bytes_of(plan: &Plan) -> u64 {
    let total: u64 = plan.inputs.iter().map(|input| input.size).sum();
    (total / SPLITS).clamp(SPLIT_BYTES.0, SPLIT_BYTES.1)
}

/// Returns the error of an outcome that is not of this version.
fn unread(error: &serde_json::Error) -> Error {
    Error::config(format!("a worker gave an outcome that cannot be read: {error}"))
        .remedy("install one version of sabiprep on every machine of the cluster")
}

/// Returns a task as JSON.
fn sent(task: &impl Serialize) -> String {
    serde_json::to_string(task).expect("a task is plain data")
}

/// Returns orders of consecutive tasks, each of one file and of [`ORDER_BYTES`] or more where the
/// file has as many. A task is given with its file and its bytes.
fn orders_of(
    kind: &'static str,
    tasks: impl Iterator<Item = (usize, u64, String)>,
    least: u64,
) -> Vec<Order> {
    let mut orders: Vec<Order> = Vec::new();
    for (file, bytes, task) in tasks {
        match orders.last_mut().filter(|order| order.file == file && order.weight < least) {
            Some(order) => {
                order.weight += bytes;
                order.tasks.push(task);
            }
            None => orders.push(Order { kind, tasks: vec![task], weight: bytes, file }),
        }
    }
    orders
}

impl Runner for Cluster<'_> {
    fn inputs(&self, plan: &Plan, context: &Context<'_>) -> Result<Vec<InputEntry>> {
        if plan.inputs.iter().map(|input| input.size).sum::<u64>() < FEW_BYTES {
            return Threads.inputs(plan, context);
        }
        let inputs = plan.inputs.iter().enumerate();
        let tasks = inputs.map(|(index, input)| (index, input.size, sent(&index)));
        let orders = orders_of("inputs", tasks, 0);
        let found: Vec<InputEntry> =
            self.done::<InputEntry>(&orders, context)?.into_iter().flatten().collect();
        let is_other = |(input, entry): &(&crate::plan::Input, &InputEntry)| {
            input.name != entry.path || input.size != entry.size
        };
        match plan.inputs.iter().zip(&found).find(is_other) {
            None => Ok(found),
            Some((input, _)) => Err(other_files(&input.path)),
        }
    }

    fn split_bytes(&self, plan: &Plan) -> Option<u64> {
        Some(split_bytes_of(plan))
    }

    fn map(&self, stage: &MapStage<'_>, tasks: &[MapTask]) -> Result<Vec<bool>> {
        let weighed = tasks.iter().map(|task| (task.split.input, task.split.bytes, sent(task)));
        let orders = orders_of("map", weighed, ORDER_BYTES);
        let reused = self.done::<bool>(&orders, &stage.context)?.concat();
        tasks::run(READERS, tasks.len(), |nth| {
            let MapTask { names, slot, fitted_slot, .. } = &tasks[nth];
            stage.store.take_made(*slot, &names.whole)?;
            names.fitted.iter().try_for_each(|name| stage.store.take_made(*fitted_slot, name))
        })?;
        Ok(reused)
    }

    fn reduce(&self, stage: &ReduceStage<'_>, tasks: &[ReduceTask]) -> Result<Vec<ShardSums>> {
        let path = stage.folder.settled_path();
        write_settled(stage.context.storage, &path, stage.corpus, stage.decisions)?;
        let order = |task: &ReduceTask| Order {
            kind: "reduce",
            tasks: vec![sent(task)],
            weight: task.shard.tokens,
            file: 0,
        };
        let orders: Vec<Order> = tasks.iter().map(order).collect();
        Ok(self.done(&orders, &stage.context)?.into_iter().flatten().collect())
    }

    fn unmarked(&self) -> Vec<u64> {
        self.unmarked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
