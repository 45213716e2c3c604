//! `Runner`: runs the tasks of a run.
//!
//! Tasks and decisions are plain data: they can be written down, sent, and run in any order on any
//! machine that sees the same storage. `Threads` runs them on this machine, `Cluster` has workers run
//! them.

use super::gather::DOCUMENT_BYTES;
use super::input_entries;
use super::map::{MapStage, MapTask};
use super::reduce::{ReduceStage, ReduceTask};
use crate::context::Context;
use crate::error::Result;
use crate::plan::Plan;
use crate::report::ShardSums;
use crate::tasks;
use crate::write::InputEntry;

/// A way to run the tasks of a run.
pub(crate) trait Runner: std::fmt::Debug + Sync {
    /// Returns the entry of every input, with its checksum.
    fn inputs(&self, plan: &Plan, context: &Context<'_>) -> Result<Vec<InputEntry>> {
        input_entries(plan, context)
    }

    /// Returns the size of input splits that suits the runner, if any does better than another.
    fn split_bytes(&self, _plan: &Plan) -> Option<u64> {
        None
    }

    /// Returns the words that say how a run goes on that was stopped from outside.
    fn going_on(&self) -> &'static str {
        "run the same command with --resume"
    }

    /// Runs every map task. Returns, in the order of `tasks`, whether an earlier run made its whole
    /// documents.
    fn map(&self, stage: &MapStage<'_>, tasks: &[MapTask]) -> Result<Vec<bool>>;

    /// Runs every reduce task. Returns the sums of each shard, in the order of `tasks`.
    fn reduce(&self, stage: &ReduceStage<'_>, tasks: &[ReduceTask]) -> Result<Vec<ShardSums>>;

    /// Returns the renders of each source, in other processes, in which template text could not be
    /// told from data; nothing if there are none.
    fn unmarked(&self) -> Vec<u64> {
        Vec::new()
    }
}

/// Runs tasks on threads of this process. The stage's context gives their number.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Threads;

impl Runner for Threads {
    fn map(&self, stage: &MapStage<'_>, tasks: &[MapTask]) -> Result<Vec<bool>> {
        let bytes = |task: &MapTask| task.split.bytes;
        let sizes: Vec<u64> = tasks.iter().map(bytes).collect();
        tasks::run_sharing(stage.context.threads, &sizes, |nth, helpers| {
            stage.run(&tasks[nth], helpers)
        })
    }

    fn reduce(&self, stage: &ReduceStage<'_>, tasks: &[ReduceTask]) -> Result<Vec<ShardSums>> {
        let threads = stage.context.threads;
        let at_once = shards_at_once(tasks, threads, DOCUMENTS_BYTES);
        let alone = stage.with_threads(threads / at_once);
        tasks::run(at_once, tasks.len(), |nth| alone.run(&tasks[nth]))
    }
}

/// The bytes that all shards being made may hold for their documents, without tokens.
const DOCUMENTS_BYTES: u64 = 256 << 20;
/// The number of shards for each thread from which on a thread makes whole shards.
const SHARDS_A_THREAD: usize = 4;

/// Returns how many shards are made at a time.
///
/// Where shards are many, each thread makes its own, as far as their documents stay within `budget`
/// bytes. Otherwise all threads share one shard.
fn shards_at_once(tasks: &[ReduceTask], threads: usize, budget: u64) -> usize {
    let documents = tasks.iter().map(|task| task.shard.documents).max();
    let largest = documents.unwrap_or(0) * DOCUMENT_BYTES;
    let within = (budget / largest.max(1)).clamp(1, threads as u64) as usize;
    if tasks.len() >= within * SHARDS_A_THREAD { within } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Split;
    use crate::settle::ShardPlan;

    #[test]
    fn shards_of_many_documents_are_made_one_after_another() {
        let shards = |count: usize, documents: u64| -> Vec<ReduceTask> {
            let shard = |index| ShardPlan {
                split: Split::Train,
                index,
                buckets: 0..1,
                tokens: 0,
                documents,
            };
            (0..count).map(|index| ReduceTask { shard: shard(index) }).collect()
        };
        let budget = 1_000 * DOCUMENT_BYTES;
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
