//! Verifying against the corpus: the documents of a dataset are derived again from their records,
//! by the slow path.
//!
//! The slow path reads a record where its id says it lies, renders it by way of its fields, has the
//! `tokenizers` library encode it, and makes it fit; the direct path, the engine of our own,
//! spools, settling, packing and masking have no part in it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arrow_ipc::reader::FileReader;
use xxhash_rust::xxh3::Xxh3Default;

use super::Job;
use super::fit::fit;
use super::map::Scratch;
use crate::choice::{Subject, choice, within};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::files;
use crate::mask::Row;
use crate::monitor::{Monitor, Phase};
use crate::plan::{Overrides, Plan};
use crate::read::InputSplit;
use crate::report;
use crate::schema::{IdType, Role, Run};
use crate::tasks;
use crate::verify::{open_tokenizer, row_of};
use crate::write::{Identity, Manifest};

/// Documents looked at in one pass over dataset and corpus; bounds the memory.
const DOCUMENTS_A_PASS: u64 = 2_000_000;
/// Failures that are named; more are counted.
const NAMED: usize = 20;

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Against {
    /// Records derived again.
    pub records: u64,
    /// Their documents in the dataset, copies included, windows put together.
    pub documents: u64,
    /// What is wrong. Empty if nothing is.
    pub failures: Vec<String>,
}

/// Compares about `sample` records of the dataset `out` (all for `None`) with what the corpus
/// folder `corpus` gives.
///
/// An error where the corpus is not the one the dataset was packed from, naming what differs.
pub fn verify_against(
    out: &Path,
    corpus: &Path,
    sample: Option<u64>,
    threads: usize,
    monitor: &Monitor,
) -> Result<Against> {
    let manifest = Manifest::read(out)?;
    let overrides = Overrides {
        seq_len: Some(manifest.seq_len),
        seed: Some(manifest.seed),
        ..Overrides::default()
    };
    let plan = Plan::load(corpus, &overrides)?;
    let job = Job::with_encoder(&plan, open_tokenizer(out, &manifest)?.by_library())?;
    let inputs = tasks::run(threads, plan.inputs.len(), |at| {
        report::input_entry(&plan.inputs[at], monitor)
    })?;
    let made_of = Identity::of_dataset(&manifest);
    if let Some(what) =
        made_of.change(&Identity { program: made_of.program.clone(), ..job.identity(&inputs) })
    {
        return Err(Error::input(format!("is not what {} was packed from: {what}", out.display()))
            .file(corpus.display().to_string())
            .remedy("undo the change, or name the corpus as it was"));
    }
    if !manifest
        .sources
        .iter()
        .map(|source| &source.name)
        .eq(plan.sources.iter().map(|source| &source.name))
    {
        return Err(Error::dataset("its sources are not those of its own configuration")
            .file(out.display().to_string())
            .remedy("pack the corpus again"));
    }
    let documents: u64 = manifest.splits.values().map(|split| split.documents).sum();
    let share = sample.map_or(1.0, |sample| (sample as f64 / documents.max(1) as f64).min(1.0));
    let passes = ((documents as f64 * share) as u64).div_ceil(DOCUMENTS_A_PASS).max(1);
    let mut found = Against::default();
    for pass in 0..passes {
        let is_looked_at = |source: u16, record: u64| {
            let subject =
                Subject { name: &plan.sources[usize::from(source)].name, record, copy: 0 };
            within(choice(manifest.seed, "sample", subject), share)
                && choice(manifest.seed, "pass", subject) % passes == pass
        };
        let packed = packed_documents(out, &manifest, is_looked_at, monitor)?;
        compare(&job, &packed, threads, &mut found, monitor)?;
    }
    let more = found.failures.len().saturating_sub(NAMED);
    if more > 0 {
        found.failures.truncate(NAMED);
        found.failures.push(format!("and {more} more records"));
    }
    Ok(found)
}

/// The documents of one record in a dataset.
#[derive(Debug, Default)]
struct Packed {
    /// The digest of each copy.
    copies: Vec<u128>,
    /// Whether its record was come upon in the corpus.
    is_met: AtomicBool,
}

/// A part of a document that was not in one row whole.
#[derive(Debug)]
struct Window {
    number: u32,
    ids: Vec<u32>,
    roles: Vec<u8>,
}

type ByRecord = HashMap<(u16, u64), Packed>;

/// The documents that are looked at, put together from their windows.
fn packed_documents(
    out: &Path,
    manifest: &Manifest,
    is_looked_at: impl Fn(u16, u64) -> bool,
    monitor: &Monitor,
) -> Result<ByRecord> {
    monitor.begin(Phase::Verify, manifest.splits.values().map(|split| split.rows).sum());
    let ids = IdType::for_vocab(manifest.tokenizer.vocab_size);
    let mut packed = ByRecord::new();
    let mut windows: BTreeMap<(u16, u64, u32), Vec<Window>> = BTreeMap::new();
    for shard in manifest.splits.values().flat_map(|split| &split.shards) {
        let unreadable = |error: &dyn std::fmt::Display| {
            Error::dataset(format!("not a readable Arrow file: {error}"))
                .file(out.join(&shard.file).display().to_string())
                .remedy("`sabiprep verify` without --against says what is wrong")
        };
        let file = files::open_shard(&Manifest::file_in(out, &shard.file)?)?;
        for batch in FileReader::try_new(file, None).map_err(|error| unreadable(&error))? {
            monitor.check()?;
            let batch = batch.map_err(|error| unreadable(&error))?;
            for at in 0..batch.num_rows() {
                collect(&row_of(&batch, at, ids), &is_looked_at, &mut packed, &mut windows);
                monitor.done.fetch_add(1, Relaxed);
            }
        }
    }
    for ((source, record, _), mut parts) in windows {
        parts.sort_by_key(|part| part.number);
        let (mut ids, mut roles) = (Vec::new(), Vec::new());
        for (nth, part) in parts.into_iter().enumerate() {
            // A window begins with the last token of the one before it.
            let shared = usize::from(nth > 0);
            ids.extend_from_slice(&part.ids[shared..]);
            roles.extend_from_slice(&part.roles[shared..]);
        }
        packed.entry((source, record)).or_default().copies.push(digest(&ids, &roles));
    }
    Ok(packed)
}

/// Adds the documents of a row.
fn collect(
    row: &Row,
    is_looked_at: impl Fn(u16, u64) -> bool,
    packed: &mut ByRecord,
    windows: &mut BTreeMap<(u16, u64, u32), Vec<Window>>,
) {
    let mut roles = Vec::with_capacity(row.ids.len());
    for (&len, &role) in row.segment_lengths.iter().zip(&row.segment_roles) {
        roles.resize(roles.len() + len as usize, role);
    }
    let mut start = 0;
    for (nth, &len) in row.seq_lengths.iter().enumerate() {
        let range = start..start + len as usize;
        start = range.end;
        let (source, record, parts) =
            (row.source_ids[nth], row.record_ids[nth], row.doc_parts[nth]);
        if !is_looked_at(source, record) {
            continue;
        }
        let (ids, roles) = (&row.ids[range.clone()], &roles[range]);
        let (copy, number) = (parts >> 16, parts & 0xffff);
        if number == 0 && roles.last() == Some(&(Role::Control as u8)) {
            packed.entry((source, record)).or_default().copies.push(digest(ids, roles));
        } else {
            let window = Window { number, ids: ids.to_vec(), roles: roles.to_vec() };
            windows.entry((source, record, copy)).or_default().push(window);
        }
    }
}

fn digest(ids: &[u32], roles: &[u8]) -> u128 {
    let mut hasher = Xxh3Default::new();
    for id in ids {
        hasher.update(&id.to_le_bytes());
    }
    hasher.update(roles);
    hasher.digest128()
}

fn roles_of(runs: &[Run]) -> Vec<u8> {
    runs.iter().flat_map(|run| std::iter::repeat_n(run.role as u8, run.len as usize)).collect()
}

/// Derives the records again and compares.
fn compare(
    job: &Job<'_>,
    packed: &ByRecord,
    threads: usize,
    found: &mut Against,
    monitor: &Monitor,
) -> Result<()> {
    let splits = job.plan.splits();
    let compared =
        tasks::run(threads, splits.len(), |at| compare_split(job, &splits[at], packed, monitor))?;
    for failures in compared {
        found.failures.extend(failures);
    }
    for (&(source, record), documents) in packed {
        found.records += 1;
        found.documents += documents.copies.len() as u64;
        if !documents.is_met.load(Relaxed) {
            let name = &job.plan.sources[usize::from(source)].name;
            found.failures.push(format!(
                "source '{name}': record {record} of the dataset is none of its files"
            ));
        }
    }
    Ok(())
}

fn compare_split(
    job: &Job<'_>,
    split: &InputSplit,
    packed: &ByRecord,
    monitor: &Monitor,
) -> Result<Vec<String>> {
    let (source, input) = (&job.plan.sources[split.source], &job.plan.inputs[split.input]);
    let mut failures = Vec::new();
    let mut scratch = Scratch::new(job);
    let context = Context { threads: 1, monitor };
    let mut records = job.plan.open(split, &context)?;
    while let Some(record) = records.advance().map_err(|error| error.file(input.name.clone()))? {
        monitor.check()?;
        let Some(documents) = packed.get(&(split.source as u16, record.id)) else { continue };
        documents.is_met.store(true, Relaxed);
        let fitted =
            record.fields().and_then(|fields| fit(job, split.source, fields, &mut scratch));
        let what = match fitted {
            Ok(fitted) => {
                let derived = digest(&fitted.document.ids, &roles_of(&fitted.document.runs));
                if documents.copies.iter().all(|&copy| copy == derived) {
                    continue;
                }
                "its ids or roles are not those its record gives".to_owned()
            }
            Err(refusal) => format!("its record gives no document: {}", refusal.why),
        };
        let line = job.plan.line_of(source, record.id, &context)?;
        failures.push(format!("{}:{line}, source '{}': {what}", input.name, source.name));
    }
    Ok(failures)
}
