//! The report: the result of a run. Its lasting part is the manifest; timing is for the terminal.

mod accounts;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::contamination::{HeldOut, HeldOutFile};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::plan::{HubFiles, Input, Plan, Source};
use crate::schema::{DropReason, ROWS_PER_BATCH, RecordId, Split, format_version};
use crate::settle::{Decisions, Epochs, SourceTotals, Sums};
use crate::spool::{Dropped, Tally};
use crate::tokenize::Encoder;
pub(crate) use accounts::account;

use crate::write::{
    BenchmarkEntry, CleanedEntry, CleanedExample, DroppedEntry, ExampleEntry, InputEntry,
    LeftOutEntry, LeftOutExample, Manifest, Program, RecordsEntry, ShardEntry, SourceEntry,
    SplitEntry, TOKENIZER_FILE, TokenizerEntry, Written,
};

/// The result of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The dataset folder, as the user named it.
    pub out: String,
    /// The manifest of the dataset.
    pub manifest: Manifest,
    /// The seconds of each phase.
    pub timing: Timing,
    /// The number of threads used.
    pub threads: usize,
    /// The bytes of input, counted once for each source that reads them.
    pub bytes: u64,
    /// The number of input splits that an earlier run mapped, and of all splits.
    pub reused_splits: (usize, usize),
    /// A warning if the fast encoder knows the tokenizer but gave other ids than the library, so
    /// that it does not encode.
    pub engine_warning: Option<String>,
    /// A sentence for each source with records in which template text could not be told from data.
    pub template_notes: Vec<String>,
}

/// Seconds by phase.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Timing {
    /// Planning, reading and tokenizing.
    pub map: f64,
    /// Deciding.
    pub settle: f64,
    /// Packing and writing.
    pub reduce: f64,
    /// The whole run.
    pub total: f64,
}

/// The result of a reduce task: counts over one shard.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ShardSums {
    pub split: Split,
    /// The path of the shard in the dataset.
    pub file: String,
    /// Sums over its documents.
    pub sums: Sums,
    /// Rows with 95 % or more of their tokens from one source.
    pub single_source_rows: u64,
    /// The number of cuts that packing made in documents of each source. Each cut makes a document
    /// and repeats a token.
    pub cuts: Vec<u64>,
    /// Rows that were opened although another row had room, to keep copies of a record apart.
    #[serde(default)]
    pub kept_apart: u64,
    /// The size and checksum of its file.
    pub written: Written,
}

impl ShardSums {
    /// Returns the counts of a shard without rows.
    #[must_use]
    pub(crate) fn new(split: Split, file: String) -> Self {
        Self {
            split,
            file,
            sums: Sums::default(),
            single_source_rows: 0,
            cuts: Vec::new(),
            kept_apart: 0,
            written: Written::default(),
        }
    }
}

/// Returns the entry of an input: its name, size and checksum.
pub(crate) fn input_entry(input: &Input, context: &Context<'_>) -> Result<InputEntry> {
    let xxh3_128 = context.storage.xxh3_128_of_file(&input.path, || context.monitor.check())?;
    Ok(InputEntry { path: input.name.clone(), size: input.size, xxh3_128 })
}

/// Returns the resolved configuration, as the manifest records it. A resumed run must have an equal
/// one.
#[must_use]
pub(crate) fn resolved_config(plan: &Plan) -> Value {
    json!({ "pack": plan.pack, "mix": plan.mix, "source": plan.sources })
}

/// Returns an error, which shows the first dropped records, if no training document remains.
pub(crate) fn refuse_nothing(
    plan: &Plan,
    decisions: &Decisions,
    context: &Context<'_>,
) -> Result<()> {
    if decisions.sources.iter().any(|source| source.sums[Split::Train as usize].documents > 0) {
        return Ok(());
    }
    let records: u64 = decisions.sources.iter().map(|source| source.tally.records).sum();
    let mut reasons: Vec<String> = Vec::new();
    for (source, totals) in plan.sources.iter().zip(&decisions.sources) {
        reasons.extend(first_drops(plan, source, &totals.tally, 1, context)?);
    }
    let error = Error::input(format!("no training document is left (records read: {records})"))
        .file(plan.config_file.clone());
    Err(match reasons.is_empty() {
        true if records > 0 => error
            .remedy("hold out fewer: lower `validation` under [pack], or name training `files`"),
        true => error.remedy("the inputs hold no records: check `files`"),
        false => {
            error.remedy(format!("look at the first dropped records:\n  {}", reasons.join("\n  ")))
        }
    })
}

/// Returns the first dropped records of a source, by reason, in words; `most` at most.
pub(crate) fn first_drops(
    plan: &Plan,
    source: &Source,
    tally: &Tally,
    most: usize,
    context: &Context<'_>,
) -> Result<Vec<String>> {
    // Sorted by reason and record.
    let in_words = |example| {
        let entry = example_entry(plan, source, example, context)?;
        Ok(format!("{}{}: {}: {}", entry.file, entry.place, entry.reason, entry.why))
    };
    tally.examples.iter().take(most).map(in_words).collect()
}

/// The facts about a finished run that were found beside its decisions.
pub(crate) struct Facts {
    /// The entry of every input.
    pub inputs: Vec<InputEntry>,
    /// The list of dropped records, if there is one.
    pub dropped: Option<DroppedEntry>,
    /// The list of contaminated records, if there is one.
    pub contaminated: Option<DroppedEntry>,
    /// The notes.
    pub notes: Vec<String>,
    /// Records with a document, by the name of a source of several document tables.
    pub kept_by_any: BTreeMap<String, u64>,
}

/// Returns the manifest of a finished run, sealed.
pub(crate) fn manifest(
    job: &Job,
    decisions: &Decisions,
    shards: &[ShardSums],
    facts: Facts,
    context: &Context<'_>,
) -> Result<Manifest> {
    let Facts { inputs, dropped, contaminated, notes, kept_by_any } = facts;
    let (plan, encoder) = (&job.plan, &job.encoder);
    // Settling counted documents before packing cut them.
    let sources = (0..plan.sources.len()).map(|index| {
        let mut totals = decisions.sources[index].clone();
        // A cut makes a document more, and repeats a token.
        for shard in shards {
            let cuts = shard.cuts.get(index).copied().unwrap_or(0);
            let more = Sums { documents: cuts, tokens: cuts, targets: 0 };
            totals.sums[shard.split as usize].add_sums(more);
        }
        source_entry(plan, &plan.sources[index], &totals, decisions.epochs[index], context)
    });
    let mut manifest = Manifest {
        format: "sabiprep".to_owned(),
        format_version: format_version(plan.is_weighted()),
        sha256: String::new(),
        program: Program::this(),
        tokenizer: tokenizer_entry(encoder)?,
        seq_len: plan.pack.seq_len,
        rows_per_batch: ROWS_PER_BATCH,
        id_dtype: encoder.id_type().name().to_owned(),
        seed: plan.pack.seed,
        config: resolved_config(plan),
        inputs,
        sources: sources.collect::<Result<_>>()?,
        records: record_entries(plan, decisions, kept_by_any),
        splits: Split::ALL
            .into_iter()
            .map(|split| (split.name().to_owned(), split_entry(plan, split, shards)))
            .collect(),
        dropped,
        contaminated,
        benchmarks: benchmarks_of(job.held_out.as_ref()),
        notes,
    };
    account(&manifest).map_err(|what| {
        Error::internal(what).remedy("this is a bug in sabiprep: please report it")
    })?;
    manifest.seal();
    Ok(manifest)
}

/// Returns the entries of the tasks of `lm-eval` that training is kept clean of.
fn benchmarks_of(held_out: Option<&HeldOut>) -> Vec<BenchmarkEntry> {
    let files = held_out.into_iter().flat_map(HeldOut::files);
    let tasks = files.filter(|file| HubFiles::are_benchmarks(&file.name));
    let entry = |file: &HeldOutFile| BenchmarkEntry {
        name: file.name.clone(),
        documents: file.records,
        short: file.short,
    };
    tasks.map(entry).collect()
}

/// Returns the entries of the sources of several document tables, in order of name.
fn record_entries(
    plan: &Plan,
    decisions: &Decisions,
    kept_by_any: BTreeMap<String, u64>,
) -> Vec<RecordsEntry> {
    let entry = |(name, kept): (String, u64)| {
        let mut tables = plan.sources.iter().zip(&decisions.sources);
        let table =
            tables.find(|(source, _)| source.document.is_some() && source.record_name == name);
        let records = table.map_or(0, |(_, totals)| totals.tally.records);
        RecordsEntry { source: name, records, kept, without: records - kept }
    };
    kept_by_any.into_iter().map(entry).collect()
}

/// Returns the entry of a tokenizer.
fn tokenizer_entry(encoder: &Encoder) -> Result<TokenizerEntry> {
    let controls = encoder.controls();
    let (engine, unicode) = encoder.engine();
    Ok(TokenizerEntry {
        file: TOKENIZER_FILE.to_owned(),
        sha256: encoder.sha256().to_owned(),
        vocab_size: encoder.vocab_size(),
        bos_id: controls.bos,
        eos_id: controls.eos,
        pad_id: controls.pad,
        engine,
        unicode,
        probes: encoder.probes()?,
        chat_template: encoder.chat_template().map(str::to_owned),
    })
}

/// Returns the entry of a source.
fn source_entry(
    plan: &Plan,
    source: &Source,
    totals: &SourceTotals,
    epochs: Epochs,
    context: &Context<'_>,
) -> Result<SourceEntry> {
    let tally = &totals.tally;
    let example = |example| example_entry(plan, source, example, context);
    // Reasons without a record are left out of the manifest.
    let drops: BTreeMap<String, u64> = DropReason::ALL
        .into_iter()
        .zip(tally.drops)
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| (reason.name().to_owned(), count))
        .collect();
    let [train, validation] = totals.sums;
    Ok(SourceEntry {
        name: source.name.clone(),
        task: source.task.clone(),
        lang: source.lang.clone(),
        inputs: source.inputs.iter().map(|&input| plan.inputs[input].name.clone()).collect(),
        loss: source.loss,
        overflow: source.overflow,
        epochs: epochs.made,
        asked_epochs: epochs.asked,
        copies: totals.copies,
        unique: totals.unique,
        records: tally.records,
        kept: totals.kept,
        truncated: totals.truncated,
        drops,
        train,
        validation,
        examples: tally.examples.iter().map(example).collect::<Result<_>>()?,
        cleaned: cleaned_entries(plan, source, tally, context)?,
        spans: source.spans.clone(),
        loss_weight: source.loss_weight.clone(),
        left_out: left_out_entries(plan, source, tally, context)?,
        document_of: source.document.is_some().then(|| source.record_name.clone()),
    })
}

/// Returns the entries of the records that cleaning changed, by the key that asked for it.
fn cleaned_entries(
    plan: &Plan,
    source: &Source,
    tally: &Tally,
    context: &Context<'_>,
) -> Result<BTreeMap<String, CleanedEntry>> {
    let example = |(&record_id, change): (&u64, &String)| {
        let input = &plan.inputs[source.inputs[RecordId::unpack(record_id).nth_input]];
        let place = plan.place_of(source, record_id, context)?;
        Ok(CleanedExample { file: input.name.clone(), place, change: change.clone() })
    };
    let entries = tally.cleaned.iter().map(|(change, records)| {
        let examples = records.examples.iter().map(example).collect::<Result<_>>()?;
        Ok((change.name().to_owned(), CleanedEntry { records: records.count, examples }))
    });
    entries.collect()
}

/// Returns the entries of the documents that were left out of records, by reason.
fn left_out_entries(
    plan: &Plan,
    source: &Source,
    tally: &Tally,
    context: &Context<'_>,
) -> Result<BTreeMap<String, LeftOutEntry>> {
    let example = |(&record_id, why): (&u64, &String)| {
        let input = &plan.inputs[source.inputs[RecordId::unpack(record_id).nth_input]];
        let place = plan.place_of(source, record_id, context)?;
        Ok(LeftOutExample { file: input.name.clone(), place, why: why.clone() })
    };
    let entries = tally.left_out.iter().map(|(reason, counts)| {
        let examples = counts.examples.iter().map(example).collect::<Result<_>>()?;
        Ok((reason.name().to_owned(), LeftOutEntry { documents: counts.count, examples }))
    });
    entries.collect()
}

/// Returns the entry of a dropped record, with its file and its line or row.
pub(crate) fn example_entry(
    plan: &Plan,
    source: &Source,
    example: &Dropped,
    context: &Context<'_>,
) -> Result<ExampleEntry> {
    let input = &plan.inputs[source.inputs[example.nth_input()]];
    Ok(ExampleEntry {
        reason: example.reason.name().to_owned(),
        file: input.name.clone(),
        place: plan.place_of(source, example.record_id, context)?,
        why: example.why.clone(),
    })
}

/// Returns the entry of a split.
fn split_entry(plan: &Plan, split: Split, shards: &[ShardSums]) -> SplitEntry {
    let mut entry = SplitEntry::default();
    for shard in shards.iter().filter(|shard| shard.split == split) {
        let ShardSums { file, sums, single_source_rows, written, .. } = shard;
        entry.rows += written.rows;
        entry.documents += sums.documents;
        entry.tokens += sums.tokens;
        entry.targets += sums.targets;
        entry.single_source_rows += single_source_rows;
        entry.shards.push(ShardEntry {
            file: file.clone(),
            rows: written.rows,
            documents: sums.documents,
            tokens: sums.tokens,
            targets: sums.targets,
            bytes: written.bytes,
            xxh3_128: written.xxh3_128.clone(),
        });
    }
    entry.utilisation = utilisation(entry.tokens, entry.rows, plan.pack.seq_len);
    entry
}

/// Returns the number of tokens over the room of `rows` rows; 0 without rows.
#[must_use]
pub(crate) fn utilisation(tokens: u64, rows: u64, seq_len: usize) -> f64 {
    if rows == 0 { 0.0 } else { tokens as f64 / (rows * seq_len as u64) as f64 }
}
