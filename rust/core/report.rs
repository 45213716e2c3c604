//! The report: what a run made of its corpus. Its lasting part is the manifest; timing is for the
//! terminal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::plan::{Input, Plan, Source};
use crate::schema::{DropReason, FORMAT_VERSION, ROWS_PER_BATCH, Split};
use crate::settle::{Decisions, Epochs, SourceTotals, Sums};
use crate::spool::Dropped;
use crate::write::{
    ExampleEntry, InputEntry, Manifest, Program, ShardEntry, SourceEntry, SplitEntry,
    TOKENIZER_FILE, TokenizerEntry, Written,
};

/// What a run made.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The dataset's folder, as named.
    pub out: String,
    /// What it holds.
    pub manifest: Manifest,
    /// How long it took.
    pub timing: Timing,
    /// Threads used.
    pub threads: usize,
    /// Bytes of input, as often as sources read them.
    pub bytes: u64,
    /// Input splits whose documents were there already, of all splits.
    pub reused_splits: (usize, usize),
    /// Why the engine of our own, which knows the tokenizer, does not encode: where it gave other
    /// ids than the library.
    pub engine_warning: Option<String>,
    /// Sources of some of whose records it was not known what is the template's text, each in a
    /// sentence.
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
    /// All of it.
    pub total: f64,
}

/// What a reduce task made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ShardSums {
    /// Its split.
    pub split: Split,
    /// Its file in the dataset.
    pub file: String,
    /// Its documents.
    pub sums: Sums,
    /// Its rows with 95 % or more of their tokens from one source.
    pub single_source_rows: u64,
    /// How often documents of each source were cut by packing; each cut makes a document and
    /// repeats a token.
    pub cuts: Vec<u64>,
    /// Rows that were opened although another had room, to keep copies of a record apart.
    #[serde(default)]
    pub kept_apart: u64,
    /// The file.
    pub written: Written,
}

impl ShardSums {
    /// A shard with nothing in it yet.
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

/// An input's entry: its name, size and checksum.
pub(crate) fn input_entry(input: &Input, context: &Context<'_>) -> Result<InputEntry> {
    let xxh3_128 = context.storage.xxh3_128_of_file(&input.path, || context.monitor.check())?;
    Ok(InputEntry { path: input.name.clone(), size: input.size, xxh3_128 })
}

/// The configuration as it was resolved: what the manifest records, and a resumed run must not
/// differ in.
#[must_use]
pub(crate) fn resolved_config(plan: &Plan) -> Value {
    json!({ "pack": plan.pack, "mix": plan.mix, "source": plan.sources })
}

/// Refuses a corpus of which nothing is left to train on, and a source that no record of fits,
/// saying where it went.
pub(crate) fn refuse_nothing(
    plan: &Plan,
    decisions: &Decisions,
    context: &Context<'_>,
) -> Result<()> {
    let first_drop = |source: &Source, totals: &SourceTotals| -> Result<Option<String>> {
        let Some(example) = totals.tally.examples.iter().min_by_key(|example| example.reason)
        else {
            return Ok(None);
        };
        let entry = example_entry(plan, source, example, context)?;
        Ok(Some(format!("{}:{}: {}: {}", entry.file, entry.line, entry.reason, entry.why)))
    };
    for (source, totals) in plan.sources.iter().zip(&decisions.sources) {
        let unfit = DropReason::ALL.into_iter().filter(|reason| reason.is_unfit());
        let unfit: u64 = unfit.map(|reason| totals.tally.drops[reason as usize]).sum();
        if unfit > 0 && unfit == totals.tally.records {
            let first = first_drop(source, totals)?.unwrap_or_default();
            return Err(Error::input(format!("none of its records ({unfit}) can be used; the first: {first}"))
                .file(plan.config_file.clone())
                .source(source.name.clone())
                .remedy("check its `segments` and `format` against the file; `sabiprep explain` shows one record"));
        }
    }
    if decisions.sources.iter().any(|source| source.sums[Split::Train as usize].documents > 0) {
        return Ok(());
    }
    let records: u64 = decisions.sources.iter().map(|source| source.tally.records).sum();
    let mut reasons: Vec<String> = Vec::new();
    for (source, totals) in plan.sources.iter().zip(&decisions.sources) {
        reasons.extend(first_drop(source, totals)?);
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

/// The manifest of a finished run.
pub(crate) fn manifest(
    job: &Job,
    decisions: &Decisions,
    shards: &[ShardSums],
    inputs: Vec<InputEntry>,
    notes: Vec<String>,
    context: &Context<'_>,
) -> Result<Manifest> {
    let (plan, encoder) = (&job.plan, &job.encoder);
    let controls = encoder.controls();
    let (engine, unicode) = encoder.engine();
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
        format_version: FORMAT_VERSION,
        sha256: String::new(),
        program: Program::this(),
        tokenizer: TokenizerEntry {
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
        },
        seq_len: plan.pack.seq_len,
        rows_per_batch: ROWS_PER_BATCH,
        id_dtype: encoder.id_type().name().to_owned(),
        seed: plan.pack.seed,
        config: resolved_config(plan),
        inputs,
        sources: sources.collect::<Result<_>>()?,
        splits: Split::ALL
            .into_iter()
            .map(|split| (split.name().to_owned(), split_entry(plan, split, shards)))
            .collect(),
        notes,
    };
    account(&manifest).map_err(|what| {
        Error::internal(what).remedy("this is a bug in sabiprep: please report it")
    })?;
    manifest.seal();
    Ok(manifest)
}

/// M7: every record is kept or dropped for a reason, and the shards hold what the sources say.
pub(crate) fn account(manifest: &Manifest) -> std::result::Result<(), String> {
    let broken = |what: String| Err(format!("M7: {what}"));
    for source in &manifest.sources {
        let drops: u64 = source.drops.values().sum();
        if source.records != source.kept + drops {
            let (name, records, kept) = (&source.name, source.records, source.kept);
            return broken(format!(
                "source '{name}': {records} records, {kept} kept, {drops} dropped"
            ));
        }
    }
    for split in Split::ALL {
        let Some(entry) = manifest.splits.get(split.name()) else {
            return broken(format!("no split '{}'", split.name()));
        };
        let mut of_sources = Sums::default();
        for source in &manifest.sources {
            of_sources.add_sums(if split == Split::Train {
                source.train
            } else {
                source.validation
            });
        }
        let of_shards =
            Sums { documents: entry.documents, tokens: entry.tokens, targets: entry.targets };
        if of_sources != of_shards {
            return broken(format!(
                "the sources' {} sums are not those of its shards",
                split.name()
            ));
        }
    }
    Ok(())
}

fn source_entry(
    plan: &Plan,
    source: &Source,
    totals: &SourceTotals,
    epochs: Epochs,
    context: &Context<'_>,
) -> Result<SourceEntry> {
    let tally = &totals.tally;
    let example = |example| example_entry(plan, source, example, context);
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
    })
}

/// The place of a dropped record: its file and its line.
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
        line: plan.line_of(source, example.record_id, context)?,
        why: example.why.clone(),
    })
}

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

/// Tokens over the room of `rows` rows; 0 where there is none.
#[must_use]
pub(crate) fn utilisation(tokens: u64, rows: u64, seq_len: usize) -> f64 {
    if rows == 0 { 0.0 } else { tokens as f64 / (rows * seq_len as u64) as f64 }
}
