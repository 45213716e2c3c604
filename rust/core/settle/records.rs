//! The records of a source of several document tables: how many have a document in the dataset,
//! whichever table makes it.
//!
//! Tables are sources of their own, so a record is kept or dropped by each of them. All documents
//! of a record share a virtual bucket. So records are counted some buckets at a time, in bounded
//! memory.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use super::corpus::Corpus;
use super::decisions::Decisions;
use crate::context::Context;
use crate::error::Result;
use crate::plan::Source;
use crate::spool::{BUCKETS, DocMeta};
use crate::tasks;

/// Buckets whose records are counted together.
const BUCKETS_AT_ONCE: u32 = 64;

/// Returns the number of records that have a document, by the name of their source. Sources of one
/// document are left out.
pub(crate) fn kept_by_any(
    corpus: &Corpus<'_>,
    decisions: &Decisions,
    context: &Context<'_>,
) -> Result<BTreeMap<String, u64>> {
    let mut kept = BTreeMap::new();
    for source in corpus.plan.sources.iter().filter(|source| source.document.is_some()) {
        kept.insert(source.record_name.clone(), 0);
    }
    if kept.is_empty() {
        return Ok(kept);
    }
    let starts: Vec<u32> = (0..BUCKETS).step_by(BUCKETS_AT_ONCE as usize).collect();
    let count = |nth: usize| {
        let buckets = starts[nth]..starts[nth] + BUCKETS_AT_ONCE;
        kept_in(corpus, decisions, &buckets, context)
    };
    for records in tasks::run(context.threads, starts.len(), count)? {
        for (name, _) in records {
            *kept.entry(name.to_owned()).or_default() += 1;
        }
    }
    Ok(kept)
}

/// Returns the records of some buckets that have a document, each with the name of its source.
fn kept_in<'a>(
    corpus: &Corpus<'a>,
    decisions: &Decisions,
    buckets: &Range<u32>,
    context: &Context<'_>,
) -> Result<HashSet<(&'a str, u64)>> {
    let mut records = HashSet::new();
    let plan = corpus.plan;
    for (index, part) in corpus.parts.iter().enumerate() {
        let Source { document, record_name, .. } = &plan.sources[part.source];
        if document.is_none() {
            continue;
        }
        let (mut first, metas) = part.part.in_buckets(context.storage, buckets.clone())?;
        for documents in metas.chunk_by(DocMeta::is_of_record_of) {
            let made = decisions.made(corpus, index, first, documents);
            if made.is_some_and(|made| made.copies > 0) {
                records.insert((record_name.as_str(), documents[0].record_id));
            }
            first += documents.len() as u32;
        }
    }
    Ok(records)
}
