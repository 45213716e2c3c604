//! Settling: the decisions that need every input split. Small and deterministic.
//!
//! Takes the entries and content keys of spools, read in bounded memory; decides which records are
//! duplicates or leak into validation, how many copies of each are made, and which virtual buckets
//! make which shard, by exact token counts. Knows nothing of threads or split sizes: every decision
//! is a sum over records or a hash of a record.

mod corpus;
mod decisions;
mod duplicates;
mod forest;
mod merge;
mod mix;
mod near;
mod records;
mod shards;
mod sums;

pub(crate) use corpus::{Corpus, PartOf};
pub(crate) use decisions::{Decisions, Made, SourceTotals};
pub(crate) use mix::Epochs;
pub(crate) use records::kept_by_any;
pub(crate) use shards::{ShardPlan, buckets_of_copy};
pub(crate) use sums::Sums;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::plan::{Plan, Source};
use crate::schema::{DropReason, Overflow, Split};
use crate::spool::Dropped;
use sums::{PartSums, sum_all};

/// Returns every decision over a mapped corpus.
pub(crate) fn settle(corpus: &Corpus<'_>, context: &Context<'_>) -> Result<Decisions> {
    let plan = corpus.plan;
    let mut tallies = corpus.tallies.clone();
    let dropped = if plan.looks_at_content() {
        duplicates::drop_by_content(corpus, &mut tallies, context)?
    } else {
        vec![Vec::new(); corpus.parts.len()]
    };
    let epochs = vec![Epochs::of(1.0); plan.sources.len()];
    let mut decisions = Decisions { dropped, epochs, shards: Vec::new(), sources: Vec::new() };
    if plan.pack.near.is_some() {
        near::drop_near(corpus, &mut decisions, &mut tallies, context)?;
    }
    // A mix is decided from what is left to train on, so records are summed up twice.
    let unique = if plan.mix.is_some() {
        let sums = sum_all(corpus, &decisions, context)?;
        sums.sources.into_iter().map(|totals| totals.unique).collect()
    } else {
        vec![Sums::default(); plan.sources.len()]
    };
    decisions.epochs = mix::epochs(plan, &unique)?;
    let PartSums { mut sources, tokens, documents } = sum_all(corpus, &decisions, context)?;
    for (totals, tally) in sources.iter_mut().zip(tallies) {
        totals.tally.add(&tally);
    }
    refuse_too_long(corpus, &sources, context)?;
    let shards_of_split =
        |split: Split| shards::shards_of(split, &tokens[split as usize], plan.pack.shard_tokens);
    decisions.shards = Split::ALL.into_iter().flat_map(shards_of_split).collect();
    // Counts of documents let the reduce tasks make room for them at once.
    for ShardPlan { split, buckets, documents: count, .. } in &mut decisions.shards {
        let range = buckets.start as usize..buckets.end as usize;
        *count = documents[*split as usize][range].iter().sum();
    }
    decisions.sources = sources;
    Ok(decisions)
}

/// Refuses the lowest record that is too long, if its source stops the run there.
fn refuse_too_long(
    corpus: &Corpus<'_>,
    sources: &[SourceTotals],
    context: &Context<'_>,
) -> Result<()> {
    let sources = corpus.plan.sources.iter().zip(sources);
    for (source, totals) in sources.filter(|(source, _)| source.overflow == Overflow::Error) {
        let mut examples = totals.tally.examples.iter();
        if let Some(first) = examples.find(|example| example.reason == DropReason::TooLong) {
            return Err(too_long(corpus.plan, source, first, context)?);
        }
    }
    Ok(())
}

/// Returns the error of a record that is too long for its source.
pub(crate) fn too_long(
    plan: &Plan,
    source: &Source,
    record: &Dropped,
    context: &Context<'_>,
) -> Result<Error> {
    let input = &plan.inputs[source.inputs[record.nth_input()]];
    let place = plan.place_of(source, record.record_id, context)?;
    Ok(Error::input(record.why.clone())
        .file(input.name.clone())
        .place(place)
        .source(source.name.clone())
        .remedy(
            "raise seq_len, or set the source's overflow to \"truncate\", \"split\" (plain text) \
             or \"drop\"",
        ))
}
