//! Verifies a dataset against its corpus: derives its documents again from their records, by the
//! slow path.
//!
//! The slow path finds a record by its id, renders it by way of its fields, encodes it with the
//! `tokenizers` library, and makes it fit. It uses neither the direct path, the fast encoder and
//! spools, nor settling, packing and masking.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arrow_ipc::reader::FileReader;
use xxhash_rust::xxh3::Xxh3Default;

use crate::choice::{Purpose, Subject, choice, within};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::mask::Row;
use crate::monitor::Phase;
use crate::pipeline::{Scratch, fit, identity, input_entries};
use crate::plan::{HubFiles, PackOptions, Plan};
use crate::read::InputSplit;
use crate::schema::{DocId, IdType, Role, Run, Weight};
use crate::tasks;
use crate::tokenize::Document;
use crate::verify::{open_tokenizer, row_of};
use crate::write::{Identity, Manifest};

/// Documents compared in one pass over dataset and corpus; bounds the memory.
const DOCUMENTS_A_PASS: u64 = 2_000_000;
/// Failures that are named; further ones are counted.
const NAMED: usize = 20;

/// The result of deriving documents again.
#[derive(Debug, Clone, Default)]
pub struct Against {
    /// Records derived again.
    pub records: u64,
    /// The documents of these records in the dataset, copies included, windows put together.
    pub documents: u64,
    /// One sentence for each record that differs. Empty if none does.
    pub failures: Vec<String>,
}

/// Derives about `sample` records of the dataset `out` (all for `None`) from the folder `corpus`
/// and compares. `hub` has the files of the Hugging Face Hub that the corpus names.
///
/// Returns an error that names the difference if the dataset was packed from another corpus.
pub fn verify_against(
    out: &Path,
    corpus: &Path,
    hub: HubFiles,
    sample: Option<u64>,
    context: &Context<'_>,
) -> Result<Against> {
    let manifest = Manifest::read(context.storage, out)?;
    let (seq_len, seed) = (Some(manifest.seq_len), Some(manifest.seed));
    let options = PackOptions { seq_len, seed, hub, ..PackOptions::default() };
    let mut plan = Plan::load(corpus, &options, context.storage)?.with_languages(context)?;
    plan.sources.iter_mut().for_each(|source| source.take_chat_of(&manifest.config));
    let encoder = open_tokenizer(context.storage, out, &manifest)?.by_library();
    let job = Job::with_encoder(plan, encoder)?;
    refuse_other_corpus(&job, &manifest, (out, corpus), context)?;
    let plan = &job.plan;
    let documents: u64 = manifest.splits.values().map(|split| split.documents).sum();
    let share = sample.map_or(1.0, |sample| (sample as f64 / documents.max(1) as f64).min(1.0));
    let passes = ((documents as f64 * share) as u64).div_ceil(DOCUMENTS_A_PASS).max(1);
    let mut found = Against::default();
    for pass in 0..passes {
        // Two choices, so that the passes share the sample evenly.
        let is_sampled = |source: u16, record: u64| {
            let name = &plan.sources[usize::from(source)].name;
            let subject = Subject { name, record, copy: 0 };
            within(choice(manifest.seed, Purpose::Sample, subject), share)
                && choice(manifest.seed, Purpose::Pass, subject) % passes == pass
        };
        let packed = packed_documents(out, &manifest, is_sampled, context)?;
        compare(&job, &packed, &mut found, context)?;
    }
    let more = found.failures.len().saturating_sub(NAMED);
    if more > 0 {
        found.failures.truncate(NAMED);
        found.failures.push(format!("and {more} more records"));
    }
    Ok(found)
}

/// Refuses a corpus that differs from the corpus that the dataset `out` was packed from.
fn refuse_other_corpus(
    job: &Job,
    manifest: &Manifest,
    (out, corpus): (&Path, &Path),
    context: &Context<'_>,
) -> Result<()> {
    let inputs = input_entries(&job.plan, context)?;
    let made_of = Identity::of_dataset(manifest);
    // Another version of the program may derive equal documents; nothing else may differ.
    let now = Identity { program: made_of.program.clone(), ..identity(job, &inputs) };
    if let Some(what) = made_of.change(&now) {
        let dataset = out.display();
        return Err(Error::input(format!("is not what {dataset} was packed from: {what}"))
            .file(corpus.display().to_string())
            .remedy("undo the change, or name the corpus as it was"));
    }
    // A forged manifest: a row's source is an index into both lists.
    let names = manifest.sources.iter().map(|source| &source.name);
    if !names.eq(job.plan.sources.iter().map(|source| &source.name)) {
        return Err(Error::dataset("its sources are not those of its own configuration")
            .file(out.display().to_string())
            .remedy("pack the corpus again"));
    }
    Ok(())
}

/// The documents of one record in a dataset.
#[derive(Debug, Default)]
struct Packed {
    /// The digest of each copy of each document, with the index of the document in its record.
    copies: Vec<(u32, u128)>,
    /// Whether the record was found in the corpus.
    is_met: AtomicBool,
}

/// A window of a document that lies in more than one row.
#[derive(Debug)]
struct Window {
    number: u32,
    ids: Vec<u32>,
    roles: Vec<u8>,
    weight: Option<Weight>,
}

/// Packed documents by source and record.
type ByRecord = HashMap<(u16, u64), Packed>;

/// Reads the sampled documents of a dataset and puts their windows together.
fn packed_documents(
    out: &Path,
    manifest: &Manifest,
    is_sampled: impl Fn(u16, u64) -> bool,
    context: &Context<'_>,
) -> Result<ByRecord> {
    context.monitor.begin(Phase::Verify, manifest.splits.values().map(|split| split.rows).sum());
    let ids = IdType::for_vocab(manifest.tokenizer.vocab_size);
    let mut packed = ByRecord::new();
    let mut windows: BTreeMap<DocId, Vec<Window>> = BTreeMap::new();
    for shard in manifest.splits.values().flat_map(|split| &split.shards) {
        let unreadable = |error: &dyn std::fmt::Display| {
            Error::dataset(format!("not a readable Arrow file: {error}"))
                .file(out.join(&shard.file).display().to_string())
                .remedy("`sabiprep verify` without --against says what is wrong")
        };
        let file =
            context.storage.open_shard(&Manifest::file_in(context.storage, out, &shard.file)?)?;
        for batch in FileReader::try_new(file, None).map_err(|error| unreadable(&error))? {
            context.monitor.check()?;
            let batch = batch.map_err(|error| unreadable(&error))?;
            for index in 0..batch.num_rows() {
                collect(&row_of(&batch, index, ids), &is_sampled, &mut packed, &mut windows);
                context.monitor.done.fetch_add(1, Relaxed);
            }
        }
    }
    for (DocId { source, record, part, .. }, mut windows) in windows {
        windows.sort_by_key(|window| window.number);
        let (mut ids, mut roles, mut weight) = (Vec::new(), Vec::new(), None);
        for (nth, window) in windows.into_iter().enumerate() {
            // A window begins with the last token of the one before it.
            let shared = usize::from(nth > 0);
            ids.extend_from_slice(&window.ids[shared..]);
            roles.extend_from_slice(&window.roles[shared..]);
            weight = window.weight;
        }
        let digest = digest(&ids, &roles, weight);
        packed.entry((source, record)).or_default().copies.push((part, digest));
    }
    Ok(packed)
}

/// Adds the sampled documents of a row.
fn collect(
    row: &Row,
    is_sampled: impl Fn(u16, u64) -> bool,
    packed: &mut ByRecord,
    windows: &mut BTreeMap<DocId, Vec<Window>>,
) {
    let mut roles = Vec::with_capacity(row.ids.len());
    for (&len, &role) in row.segment_lengths.iter().zip(&row.segment_roles) {
        roles.resize(roles.len() + len as usize, role);
    }
    let mut start = 0;
    for (nth, &len) in row.seq_lengths.iter().enumerate() {
        let range = start..start + len as usize;
        start = range.end;
        let id = DocId::of_row(row.source_ids[nth], row.record_ids[nth], row.doc_parts[nth]);
        if !is_sampled(id.source, id.record) {
            continue;
        }
        let (ids, roles) = (&row.ids[range.clone()], &roles[range]);
        let weight = row.doc_weights.get(nth).copied();
        // Only a document that lies in one row whole is its first window and is closed.
        if id.window == 0 && roles.last() == Some(&(Role::Control as u8)) {
            let packed = packed.entry((id.source, id.record)).or_default();
            packed.copies.push((id.part, digest(ids, roles, weight)));
        } else {
            let (ids, roles) = (ids.to_vec(), roles.to_vec());
            let window = Window { number: id.window, ids, roles, weight };
            windows.entry(id.whole()).or_default().push(window);
        }
    }
}

/// Returns the hash of a document, with its weight in a dataset that has weights.
fn digest(ids: &[u32], roles: &[u8], weight: Option<Weight>) -> u128 {
    let mut hasher = Xxh3Default::new();
    for id in ids {
        hasher.update(&id.to_le_bytes());
    }
    hasher.update(roles);
    if let Some(weight) = weight {
        hasher.update(&weight.to_bytes());
    }
    hasher.digest128()
}

/// Returns the role of each token.
fn roles_of(runs: &[Run]) -> Vec<u8> {
    runs.iter().flat_map(|run| std::iter::repeat_n(run.role as u8, run.len as usize)).collect()
}

/// Derives the packed records again and adds the result to `found`.
fn compare(job: &Job, packed: &ByRecord, found: &mut Against, context: &Context<'_>) -> Result<()> {
    let splits = job.plan.splits(context.storage)?;
    let compare = |index: usize| compare_split(job, &splits[index], packed, context);
    for failures in tasks::run(context.threads, splits.len(), compare)? {
        found.failures.extend(failures);
    }
    // A record that no split has met is in no file.
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

/// Derives the records of an input split again. Returns a sentence for each record that differs.
fn compare_split(
    job: &Job,
    split: &InputSplit,
    packed: &ByRecord,
    context: &Context<'_>,
) -> Result<Vec<String>> {
    let (source, input) = (&job.plan.sources[split.source], &job.plan.inputs[split.input]);
    let is_weighted = job.plan.is_weighted();
    let mut failures = Vec::new();
    let mut scratch = Scratch::new(job);
    let mut records = job.open_fields(split, context)?;
    while let Some(record) = records.advance().map_err(|error| error.file(input.name.clone()))? {
        context.monitor.check()?;
        let Some(packed) = packed.get(&(split.source as u16, record.id)) else { continue };
        packed.is_met.store(true, Relaxed);
        let fitted = record
            .fields()
            .and_then(|fields| fit(job, split.source, record.id, fields, &mut scratch));
        let what = match fitted {
            Ok(_) if packed.is_of(&scratch.documents, is_weighted) => continue,
            Ok(_) if is_weighted => {
                "its ids, roles or weights are not those its record gives".to_owned()
            }
            Ok(_) => "its ids or roles are not those its record gives".to_owned(),
            Err(refusal) => format!("its record gives no document: {}", refusal.why),
        };
        let place = job.plan.place_of(source, record.id, context)?;
        failures.push(format!("{}{place}, source '{}': {what}", input.name, source.name));
    }
    Ok(failures)
}

impl Packed {
    /// Returns whether each of `documents` was packed, and no others; with its weight, in a dataset
    /// that `is_weighted`.
    fn is_of(&self, documents: &[Document], is_weighted: bool) -> bool {
        let derived = documents.iter().map(|document| {
            let weight = is_weighted.then(|| document.weight.unwrap_or(Weight::ONE));
            digest(&document.ids, &roles_of(&document.runs), weight)
        });
        let mut copies = 0;
        let all_same = (0..).zip(derived).all(|(part, derived)| {
            let mut of_part = self.copies.iter().filter(|(of, _)| *of == part).peekable();
            let is_there = of_part.peek().is_some();
            is_there
                && of_part.all(|(_, copy)| {
                    copies += 1;
                    *copy == derived
                })
        });
        all_same && copies == self.copies.len()
    }
}
