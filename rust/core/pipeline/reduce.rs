//! The reduce task: one shard is packed, masked, checked and written.

use std::sync::atomic::Ordering::Relaxed;

use super::Job;
use crate::choice::{Subject, choice};
use crate::error::{Error, Result};
use crate::mask::{Row, RowRules, check_row, push_document_mask};
use crate::monitor::Monitor;
use crate::pack::{Item, pack};
use crate::report::ShardSums;
use crate::schema::doc_parts;
use crate::settle::{Settlement, ShardPlan, Sums, buckets_of_copy};
use crate::spool::{Head, Spool};
use crate::tokenize::ControlIds;
use crate::write::{OutFolder, ShardWriter, shard_name};

/// Where a document of the shard lies.
#[derive(Debug, Clone, Copy)]
struct Place {
    spool: u32,
    head: u32,
}

/// The rules that every row of the job must meet.
pub fn row_rules(job: &Job<'_>) -> RowRules {
    let ControlIds { bos, eos, pad } = job.encoder.controls();
    RowRules {
        seq_len: job.plan.pack.seq_len,
        bos,
        eos,
        pad,
        vocab_size: job.encoder.vocab_size(),
        policies: job.plan.sources.iter().map(|source| source.loss).collect(),
    }
}

/// Makes the shard of `plan`.
pub fn reduce_shard(
    job: &Job<'_>,
    spools: &[Spool],
    settlement: &Settlement,
    plan: &ShardPlan,
    folder: &OutFolder,
    monitor: &Monitor,
) -> Result<ShardSums> {
    let seq_len = job.plan.pack.seq_len;
    let (places, items) = gather(job, spools, settlement, plan);
    let mut rows = pack(&items, seq_len);
    shuffle(job, &items, &mut rows);
    let rules = row_rules(job);
    let mut writer = ShardWriter::create(&folder.shard_path(plan.side, plan.index), seq_len, job.encoder.id_type())?;
    let mut sums = Sums::default();
    let mut single_source_rows = 0;
    let mut row = Row::default();
    for held in &rows {
        monitor.check()?;
        fill(&mut row, job, spools, held.iter().map(|&at| (places[at as usize], items[at as usize])));
        pad(&mut row, &rules);
        check_row(&row, &rules).map_err(|violation| {
            Error::internal(format!("a row breaks the mask contract: {}", violation.0))
                .file(shard_name(plan.side, plan.index))
                .remedy("this is a bug in sabiprep: please report it; nothing was written")
        })?;
        sums.documents += row.seq_lengths.len() as u64;
        sums.tokens += row.seq_lengths.iter().map(|&len| len as u64).sum::<u64>();
        sums.targets += row.n_targets as u64;
        single_source_rows += u64::from(row.is_single_source());
        writer.push(&row)?;
        monitor.done.fetch_add(1, Relaxed);
    }
    let written = writer.finish()?;
    Ok(ShardSums { side: plan.side, file: shard_name(plan.side, plan.index), sums, single_source_rows, written })
}

/// The documents of a shard, copies included, in the order of sources and records.
fn gather(job: &Job<'_>, spools: &[Spool], settlement: &Settlement, plan: &ShardPlan) -> (Vec<Place>, Vec<Item>) {
    let (mut places, mut items) = (Vec::new(), Vec::new());
    for (nth, spool) in spools.iter().enumerate() {
        for copy in 0..settlement.max_copies {
            let heads = buckets_of_copy(&plan.buckets, copy).into_iter().flat_map(|buckets| spool.in_buckets(buckets));
            for at in heads {
                let head = &spool.heads()[at];
                if head.side == plan.side && copy < u32::from(settlement.copies[nth][at]) {
                    places.push(Place { spool: nth as u32, head: at as u32 });
                    items.push(item(job, spool, head, copy));
                }
            }
        }
    }
    (places, items)
}

fn item(job: &Job<'_>, spool: &Spool, head: &Head, copy: u32) -> Item {
    let subject = Subject { name: &job.plan.sources[spool.source].name, record: head.record_id, copy };
    Item {
        len: head.tokens,
        order: choice(job.plan.pack.seed, "pack", subject),
        record: (spool.source as u16, head.record_id),
        copy,
        window: head.window,
    }
}

/// Puts the rows in seeded random order, each by its first document.
fn shuffle(job: &Job<'_>, items: &[Item], rows: &mut [Vec<u32>]) {
    rows.sort_by_cached_key(|row| {
        let first = &items[row[0] as usize];
        let name = &job.plan.sources[usize::from(first.record.0)].name;
        let subject = Subject { name, record: first.record.1, copy: doc_parts(first.copy, first.window) };
        (choice(job.plan.pack.seed, "row", subject), first.record, first.copy, first.window)
    });
}

fn fill(row: &mut Row, job: &Job<'_>, spools: &[Spool], documents: impl Iterator<Item = (Place, Item)>) {
    let mut runs = Vec::new();
    *row = Row::default();
    for (place, item) in documents {
        let spool = &spools[place.spool as usize];
        spool.read(&spool.heads()[place.head as usize], &mut row.ids, &mut runs);
        push_document_mask(&runs, job.plan.sources[spool.source].loss, &mut row.mask);
        row.seq_lengths.push(item.len as i32);
        row.segment_lengths.extend(runs.iter().map(|run| run.len as i32));
        row.segment_roles.extend(runs.iter().map(|run| run.role as u8));
        row.source_ids.push(item.record.0);
        row.record_ids.push(item.record.1);
        row.doc_parts.push(doc_parts(item.copy, item.window));
    }
    row.n_targets = row.mask.iter().map(|&learnt| i32::from(learnt)).sum();
}

fn pad(row: &mut Row, rules: &RowRules) {
    row.ids.resize(rules.seq_len, rules.pad);
    row.mask.resize(rules.seq_len, false);
}
