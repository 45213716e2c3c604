//! `Budget`: how much of each source a survey reads. Small sources are read whole, so that what is
//! said of them is exact; of large ones a sample.

use std::time::{Duration, Instant};

use super::resolve::Bench;
use crate::plan::{Plan, Source};
use crate::storage::Compression;

/// Bytes of content that are read of all sources together, roughly, and those that are tokenized.
const READ: u64 = 64 << 20;
const TOKENIZED: u64 = 4 << 20;
/// The least bytes of an input split among which the places of long files are chosen.
pub(super) const PLACE: u64 = 256 << 10;
/// The most input splits that places are chosen among.
const SPLITS: u64 = 4096;

/// The cost, in bytes of plain content, of all sources that are read whole, and the time for it.
const WHOLE: u64 = 16 << 20;
const TIME: Duration = Duration::from_secs(2);
/// The cost of a file, beside that of its content.
const FILE: u64 = 4 << 10;
/// Bytes of content that stand for a byte of a compressed file, and of a file of columns.
const COMPRESSED: u64 = 8;
const COLUMNS: u64 = 4;
/// The times that a record costs whose templates do more than show fields.
const RENDERED: u64 = 4;

/// The bytes of content that may be read and tokenized of a source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    pub(super) read: u64,
    pub(super) tokenized: u64,
    /// The content that may be read of a source that is read whole.
    pub(super) whole: Option<u64>,
    /// The time at which reading whole sources ends.
    pub(super) until: Instant,
}

impl Budget {
    /// Returns the budget of each source: the smallest ones are read whole, as many as there is time
    /// for.
    pub(super) fn of(bench: &Bench) -> Vec<Self> {
        let plan = bench.plan();
        let sources = plan.sources.len().max(1) as u64;
        let sampled = Self {
            read: (READ / sources).clamp(128 << 10, 8 << 20),
            tokenized: (TOKENIZED / sources).clamp(16 << 10, 512 << 10),
            whole: None,
            until: Instant::now() + TIME,
        };
        let mut budgets = vec![sampled; plan.sources.len()];
        let cost = |index: usize| {
            let is_rendered = bench.builder(index).wanted().is_none();
            let times = if is_rendered { RENDERED } else { 1 };
            content_of(plan, &plan.sources[index]).saturating_mul(times)
        };
        let mut by_cost: Vec<(u64, usize)> =
            (0..plan.sources.len()).map(|index| (cost(index), index)).collect();
        by_cost.sort_unstable();
        let mut left = WHOLE;
        for (cost, index) in by_cost {
            let Some(less) = left.checked_sub(cost) else { break };
            left = less;
            budgets[index].whole = Some(content_of(plan, &plan.sources[index]) + HEADROOM);
        }
        budgets
    }
}

/// The content that a source may have beyond what its files' sizes tell.
const HEADROOM: u64 = 256 << 10;

/// Returns the bytes of content of a source, roughly, with the cost of opening its files.
fn content_of(plan: &Plan, source: &Source) -> u64 {
    let is_text = source.format.get().is_text();
    let bytes = |input: usize| {
        let input = &plan.inputs[input];
        let is_compressed = Compression::of(&input.path).is_some();
        let times = if is_compressed { COMPRESSED } else { 1 };
        let times = if is_text { times } else { times * COLUMNS };
        input.size.saturating_mul(times).saturating_add(FILE)
    };
    let files = (0..source.inputs.len()).flat_map(|nth| source.files_of(nth));
    files.map(bytes).fold(0, u64::saturating_add)
}

/// Returns the size of input splits among which the places of long files are chosen.
pub(super) fn split_bytes(plan: &Plan) -> u64 {
    let total: u64 = plan.inputs.iter().map(|input| input.size).sum();
    (total / SPLITS).max(PLACE)
}
