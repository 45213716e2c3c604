//! Verifies a finished dataset: reads it back and checks every promise about it again.
//!
//! Takes a dataset folder; gives every failure (of each shard's rows, the first). Repairs nothing.

mod row;
mod windows;

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use arrow_ipc::reader::{FileReader, read_footer_length};
use arrow_ipc::root_as_footer;

use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::mask::{Row, RowRules, Violation, check_row};
use crate::monitor::Phase;
use crate::pack::Packing;
use crate::panics;
use crate::report::{account, utilisation};
use crate::schema::{DocId, IdType, LossPolicy, ROWS_PER_BATCH, Role, Split, shard_schema};
use crate::settle::Sums;
use crate::storage::Storage;
use crate::tokenize::{ControlIds, Encoder, hex};
use crate::write::{DroppedEntry, Manifest, ShardEntry};

use sha2::{Digest, Sha256};

pub(crate) use row::row_of;
use windows::{Turns, Window, verify_windows};

/// The result of verifying a dataset.
#[derive(Debug, Clone, Default)]
pub struct Verification {
    /// The number of shards read.
    pub shards: u64,
    /// The number of rows checked.
    pub rows: u64,
    /// The number of documents in these rows.
    pub documents: u64,
    /// One sentence for each failure, with its file. Empty if the dataset is sound.
    pub failures: Vec<String>,
}

/// Verifies the dataset `out` and returns the failures.
///
/// An unreadable or changed manifest is an error; every other fault is a failure in the result.
pub fn verify(out: &Path, context: &Context<'_>) -> Result<Verification> {
    let manifest = Manifest::read(context.storage, out)?;
    let mut found = Verification::default();
    if let Err(error) = open_tokenizer(context.storage, out, &manifest) {
        found.failures.push(format!("{}: {}", manifest.tokenizer.file, error.message));
    }
    for list in manifest.dropped.iter().chain(&manifest.contaminated) {
        if let Err(what) = verify_dropped(out, list, context)? {
            found.failures.push(format!("{}: {what}", list.file));
        }
    }
    context.monitor.begin(Phase::Verify, manifest.splits.values().map(|split| split.rows).sum());
    let rules = rules_of(&manifest);
    let mut read = Contents::default();
    for split in Split::ALL {
        let shards = manifest.splits.get(split.name()).map_or(&[][..], |split| &split.shards);
        read.splits.push(Sums::default());
        for shard in shards {
            found.shards += 1;
            read.split = split;
            if let Err(Failure(what)) = verify_shard(out, shard, &rules, context, &mut read)? {
                found.failures.push(format!("{}: {what}", shard.file));
            }
        }
    }
    found.rows = read.rows;
    found.documents = read.splits.iter().map(|sums| sums.documents).sum();
    // Counts over damaged shards would only repeat that they are damaged.
    if found.failures.is_empty() {
        verify_windows(&read.windows, &mut found.failures);
        verify_manifest(&manifest, &read, &mut found.failures);
    }
    Ok(found)
}

/// Checks a list of dropped records. The outer error is for a user who stops the run.
fn verify_dropped(
    out: &Path,
    entry: &DroppedEntry,
    context: &Context<'_>,
) -> Result<std::result::Result<(), String>> {
    let path = match Manifest::file_in(context.storage, out, &entry.file) {
        Ok(path) => path,
        Err(error) => return Ok(Err(error.message)),
    };
    intact(&path, entry.bytes, &entry.xxh3_128, context)
}

/// Checks the size and the checksum of a file. The outer error is for a user who stops the run.
fn intact(
    path: &Path,
    bytes: u64,
    xxh3_128: &str,
    context: &Context<'_>,
) -> Result<std::result::Result<(), String>> {
    let read = || -> Result<Option<String>> {
        let size = context.storage.file_size(path)?;
        if size != bytes {
            return Ok(Some(format!("{size} bytes, the manifest says {bytes}")));
        }
        let sum = context.storage.xxh3_128_of_file(path, || context.monitor.check())?;
        Ok((sum != xxh3_128).then(|| {
            "its checksum is not the manifest's: the file was changed or damaged".to_owned()
        }))
    };
    let found = match read() {
        Ok(None) => Ok(()),
        Ok(Some(what)) => Err(what),
        Err(error) => Err(error.message),
    };
    context.monitor.check()?;
    Ok(found)
}

/// Returns the rules that every row of the dataset must meet.
fn rules_of(manifest: &Manifest) -> RowRules {
    let tokenizer = &manifest.tokenizer;
    let packing = manifest.config["pack"]["pack"].as_str().and_then(Packing::named);
    RowRules {
        seq_len: manifest.seq_len,
        bos: tokenizer.bos_id,
        eos: tokenizer.eos_id,
        pad: tokenizer.pad_id,
        vocab_size: tokenizer.vocab_size,
        policies: manifest.sources.iter().map(|source| source.loss).collect(),
        spans: manifest.sources.iter().map(|source| source.spans.is_some()).collect(),
        is_weighted: manifest.is_weighted(),
        cuts: packing.is_some_and(Packing::may_cut),
    }
}

/// Counts over the rows read so far, and the windows found in them.
#[derive(Debug, Default)]
struct Contents {
    /// The split being read.
    split: Split,
    rows: u64,
    /// Sums by split.
    splits: Vec<Sums>,
    /// Sums by split and source.
    per_source: HashMap<(Split, u16), Sums>,
    single_source_rows: HashMap<Split, u64>,
    /// The windows of split documents, by the id of the whole document.
    windows: BTreeMap<DocId, Vec<Window>>,
}

/// The fault of a shard, in words.
struct Failure(String);

impl From<arrow_schema::ArrowError> for Failure {
    fn from(error: arrow_schema::ArrowError) -> Self {
        Self(format!("not a readable Arrow file: {error}"))
    }
}

/// Loads the tokenizer of the dataset `out`. Refuses a tokenizer that the dataset was not packed
/// with: another file, or a file that gives other ids now.
pub fn open_tokenizer(storage: &dyn Storage, out: &Path, manifest: &Manifest) -> Result<Encoder> {
    let entry = &manifest.tokenizer;
    let path = Manifest::file_in(storage, out, &entry.file)?;
    let remedy = "put back the tokenizer.json it was packed with, or pack it again";
    let refuse =
        |what: &str| Err(Error::dataset(what).file(path.display().to_string()).remedy(remedy));
    let unreadable = |error| Error { kind: ErrorKind::Dataset, ..error };
    let bytes = storage.whole_bytes(&path).map_err(|error| unreadable(error).remedy(remedy))?;
    if hex(&Sha256::digest(&bytes)) != entry.sha256 {
        return refuse(
            "is not the tokenizer this dataset was packed with: its sha256 is not the manifest's",
        );
    }
    let controls = ControlIds { bos: entry.bos_id, eos: entry.eos_id, pad: entry.pad_id };
    let encoder = Encoder::of_dataset(&path, controls, storage)?;
    if encoder.probes()? != entry.probes {
        return refuse(
            "no longer gives the probe strings the ids in the manifest: the tokenizer has drifted",
        );
    }
    Ok(encoder)
}

/// Reads and checks one shard. The outer error is for a user who stops the run.
fn verify_shard(
    out: &Path,
    entry: &ShardEntry,
    rules: &RowRules,
    context: &Context<'_>,
    read: &mut Contents,
) -> Result<std::result::Result<(), Failure>> {
    let path = match Manifest::file_in(context.storage, out, &entry.file) {
        Ok(path) => path,
        Err(error) => return Ok(Err(Failure(error.message))),
    };
    if let Err(what) = intact(&path, entry.bytes, &entry.xxh3_128, context)? {
        return Ok(Err(Failure(what)));
    }
    // The Arrow library panics on some files that are damaged on purpose.
    let checked = panics::caught(|| verify_rows(&path, entry, rules, context, read));
    Ok(checked.unwrap_or_else(|_| Err(Failure("not a readable Arrow file".to_owned()))))
}

/// Checks every row of the shard at `path`, and its counts against its `entry`.
fn verify_rows(
    path: &Path,
    entry: &ShardEntry,
    rules: &RowRules,
    context: &Context<'_>,
    read: &mut Contents,
) -> std::result::Result<(), Failure> {
    refuse_blocks_beyond(path, entry.bytes, context.storage)?;
    let reader = FileReader::try_new(
        context.storage.open_shard(path).map_err(|error| Failure(error.message))?,
        None,
    )?;
    let ids = IdType::for_vocab(rules.vocab_size);
    if reader.schema() != shard_schema(rules.seq_len, ids, rules.is_weighted) {
        return Err(Failure("its columns are not those of the format".to_owned()));
    }
    // The counts go on over shards; the counts of this shard are differences.
    let before = (read.rows, read.splits.last().copied().unwrap_or_default());
    verify_batches(reader, ids, rules, context, read)?;
    let sums = read.splits.last().copied().unwrap_or_default();
    let is = (
        read.rows - before.0,
        sums.documents - before.1.documents,
        sums.tokens - before.1.tokens,
        sums.targets - before.1.targets,
    );
    let said = (entry.rows, entry.documents, entry.tokens, entry.targets);
    if said == is {
        return Ok(());
    }
    Err(Failure(format!("rows, documents, tokens, targets are {is:?}, the manifest says {said:?}")))
}

/// Checks every row of a shard and adds it to the counts.
fn verify_batches(
    reader: FileReader<impl Read + Seek>,
    ids: IdType,
    rules: &RowRules,
    context: &Context<'_>,
    read: &mut Contents,
) -> std::result::Result<(), Failure> {
    let batches = reader.num_batches();
    for (nth, batch) in reader.enumerate() {
        let batch = batch?;
        // Readers find row i by a division.
        if nth + 1 < batches && batch.num_rows() != ROWS_PER_BATCH {
            return Err(Failure(format!(
                "batch {nth} has {} rows, not {ROWS_PER_BATCH}",
                batch.num_rows()
            )));
        }
        for index in 0..batch.num_rows() {
            let row = row_of(&batch, index, ids);
            check_row(&row, rules).map_err(|Violation(what)| {
                Failure(format!("row {}: {what}", nth * ROWS_PER_BATCH + index))
            })?;
            read.add(&row, rules);
            context.monitor.done.fetch_add(1, Relaxed);
        }
    }
    Ok(())
}

/// Refuses a file whose footer names batches outside the file: the Arrow library would allocate
/// memory for them first.
fn refuse_blocks_beyond(
    path: &Path,
    size: u64,
    storage: &dyn Storage,
) -> std::result::Result<(), Failure> {
    let broken = |what: &str| Failure(format!("not a readable Arrow file: {what}"));
    let mut file = storage.open_shard(path).map_err(|error| Failure(error.message))?;
    let mut read_at = |from: i64, len: usize| -> std::result::Result<Vec<u8>, Failure> {
        let mut bytes = vec![0; len];
        let filled = file.seek(SeekFrom::End(from)).and_then(|_| file.read_exact(&mut bytes));
        filled.map(|()| bytes).map_err(|error| broken(&error.to_string()))
    };
    // An Arrow file ends with its footer, the length of that, and a word of six bytes.
    let trailer: [u8; 10] = read_at(-10, 10)?.try_into().map_err(|_| broken("it is cut short"))?;
    let len = read_footer_length(trailer)?;
    if len as u64 + 10 > size {
        return Err(broken("its footer is longer than the file"));
    }
    let footer = read_at(-10 - len as i64, len)?;
    let footer = root_as_footer(&footer).map_err(|error| broken(&error.to_string()))?;
    let batches = footer.recordBatches().into_iter().flatten();
    for block in batches.chain(footer.dictionaries().into_iter().flatten()) {
        // Wider than the fields, so that a forged sum cannot overflow.
        let lengths = [
            i128::from(block.offset()),
            i128::from(block.metaDataLength()),
            i128::from(block.bodyLength()),
        ];
        let is_negative = lengths.iter().any(|&length| length < 0);
        if is_negative || lengths.iter().sum::<i128>() > i128::from(size) {
            return Err(broken("its footer names a batch outside the file"));
        }
    }
    Ok(())
}

impl Contents {
    /// Adds the counts of a checked row, and its windows of split documents.
    fn add(&mut self, row: &Row, rules: &RowRules) {
        self.rows += 1;
        *self.single_source_rows.entry(self.split).or_default() +=
            u64::from(row.is_single_source());
        let mut run_ends =
            row.segment_lengths.iter().zip(&row.segment_roles).scan(0, |end, (&len, &role)| {
                *end += len as usize;
                Some((*end, role))
            });
        let mut start = 0;
        for (nth, (&len, &source)) in row.seq_lengths.iter().zip(&row.source_ids).enumerate() {
            let end = start + len as usize;
            let targets = row.mask[start..end].iter().filter(|&&trained| trained).count() as u64;
            let document = Sums { documents: 1, tokens: len as u64, targets };
            if let Some(split) = self.splits.last_mut() {
                split.add_sums(document);
            }
            self.per_source.entry((self.split, source)).or_default().add_sums(document);
            // A document ends with a run of roles, so its last run is the first to reach its end.
            let last_role =
                run_ends.by_ref().find(|(run_end, _)| *run_end >= end).map_or(0, |(_, role)| role);
            let closes = last_role == Role::Control as u8;
            let id = DocId::of_row(source, row.record_ids[nth], row.doc_parts[nth]);
            // A first window that is closed is a whole document.
            if id.window > 0 || !closes {
                let is_last_turn = rules.policies[usize::from(source)] == LossPolicy::LastTurn;
                let window = Window {
                    turns: is_last_turn.then(|| Turns::of(row, start, end)),
                    number: id.window,
                    first_id: row.ids[start],
                    last_id: row.ids[end - 1],
                    closes,
                    is_trained: targets > 0,
                };
                self.windows.entry(id.whole()).or_default().push(window);
            }
            start = end;
        }
    }
}

/// Checks every count in the manifest that the rows give again.
fn verify_manifest(manifest: &Manifest, read: &Contents, failures: &mut Vec<String>) {
    let mut fail = |what: String| failures.push(format!("manifest.json: {what}"));
    if let Err(what) = account(manifest) {
        fail(what);
    }
    if manifest.rows_per_batch != ROWS_PER_BATCH {
        fail(format!("rows_per_batch is {}, not {ROWS_PER_BATCH}", manifest.rows_per_batch));
    }
    let id_type = IdType::for_vocab(manifest.tokenizer.vocab_size).name();
    if manifest.id_dtype != id_type {
        fail(format!("id_dtype is {}, not {id_type}", manifest.id_dtype));
    }
    for (nth, split) in Split::ALL.into_iter().enumerate() {
        let (Some(entry), name) = (manifest.splits.get(split.name()), split.name()) else {
            continue;
        };
        let rows: u64 = entry.shards.iter().map(|shard| shard.rows).sum();
        let single = read.single_source_rows.get(&split).copied().unwrap_or(0);
        let sums =
            Sums { documents: entry.documents, tokens: entry.tokens, targets: entry.targets };
        if (entry.rows, entry.single_source_rows, sums) != (rows, single, read.splits[nth]) {
            fail(format!("the counts of {name} are not those of its shards"));
        }
        // A quotient that went through JSON: equal but for rounding.
        if (entry.utilisation - utilisation(entry.tokens, rows, manifest.seq_len)).abs() > 1e-12 {
            fail(format!("the utilisation of {name} is not its tokens over its room"));
        }
    }
    verify_sources(manifest, read, &mut fail);
}

/// Checks the counts of every source, and that its inputs are listed.
fn verify_sources(manifest: &Manifest, read: &Contents, fail: &mut impl FnMut(String)) {
    for (id, source) in manifest.sources.iter().enumerate() {
        for (split, said) in [(Split::Train, source.train), (Split::Validation, source.validation)]
        {
            let is = read.per_source.get(&(split, id as u16)).copied().unwrap_or_default();
            if is != said {
                let (name, split) = (&source.name, split.name());
                fail(format!("source '{name}' in {split}: {said:?}, the shards hold {is:?}"));
            }
        }
        let is_listed = |path: &str| manifest.inputs.iter().any(|input| input.path == path);
        if let Some(path) = source.inputs.iter().find(|path| !is_listed(path)) {
            fail(format!("source '{}' names the input {path}, which is not listed", source.name));
        }
    }
}
