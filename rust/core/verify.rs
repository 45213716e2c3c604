//! Verifying: a finished dataset is read back and every promise about it is checked again.
//!
//! Takes a dataset folder; gives every failure it finds (the first of each shard's rows), and never repairs.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Int32Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_ipc::reader::FileReader;

use crate::error::Result;
use crate::mask::{Row, RowRules, Violation, check_row};
use crate::monitor::{Monitor, Phase};
use crate::read;
use crate::schema::{IdType, ROWS_PER_BATCH, Side, shard_schema};
use crate::settle::Sums;
use crate::tokenize::{ControlIds, Encoder, hex};
use crate::write::{Manifest, ShardEntry};

use sha2::{Digest, Sha256};

/// What verifying a dataset found.
#[derive(Debug, Clone, Default)]
pub struct Verification {
    /// Shards read.
    pub shards: u64,
    /// Rows checked.
    pub rows: u64,
    /// Documents in them.
    pub documents: u64,
    /// What is wrong, each with its file. Empty if nothing is.
    pub failures: Vec<String>,
}

/// Verifies the dataset `out`.
///
/// An unreadable or changed manifest is an error; everything else is a failure in the result.
pub fn verify(out: &Path, monitor: &Monitor) -> Result<Verification> {
    let manifest = Manifest::read(out)?;
    let mut found = Verification::default();
    verify_tokenizer(out, &manifest, &mut found.failures);
    monitor.begin(Phase::Verify, manifest.splits.values().map(|split| split.rows).sum());
    let rules = RowRules {
        seq_len: manifest.seq_len,
        pad: manifest.tokenizer.pad_id,
        vocab_size: manifest.tokenizer.vocab_size,
        policies: manifest.sources.iter().map(|source| source.loss).collect(),
    };
    let mut per_source: HashMap<(Side, u16), Sums> = HashMap::new();
    for side in Side::ALL {
        let Some(split) = manifest.splits.get(side.name()) else {
            found.failures.push(format!("manifest.json: no split '{}'", side.name()));
            continue;
        };
        let total: u64 = split.shards.iter().map(|shard| shard.rows).sum();
        if total != split.rows {
            found.failures.push(format!(
                "manifest.json: {} rows in {}, {total} in its shards",
                split.rows,
                side.name()
            ));
        }
        for shard in &split.shards {
            found.shards += 1;
            let mut sums = |source, more: Sums| per_source.entry((side, source)).or_default().add_sums(more);
            if let Err(Failure(what)) = verify_shard(out, shard, &rules, monitor, &mut found, &mut sums)? {
                found.failures.push(format!("{}: {what}", shard.file));
            }
        }
    }
    if found.failures.is_empty() {
        verify_sums(&manifest, &per_source, &mut found.failures);
    }
    Ok(found)
}

/// What is wrong with a shard.
struct Failure(String);

impl From<arrow_schema::ArrowError> for Failure {
    fn from(error: arrow_schema::ArrowError) -> Self {
        Self(format!("not a readable Arrow file: {error}"))
    }
}

fn verify_tokenizer(out: &Path, manifest: &Manifest, failures: &mut Vec<String>) {
    let entry = &manifest.tokenizer;
    let path = out.join(&entry.file);
    let check = || -> Result<Option<String>> {
        let bytes = read::whole_bytes(&path)?;
        if hex(&Sha256::digest(&bytes)) != entry.sha256 {
            return Ok(Some("its sha256 is not the manifest's".to_owned()));
        }
        let controls = ControlIds { bos: entry.bos_id, eos: entry.eos_id, pad: entry.pad_id };
        let encoder = Encoder::of_dataset(&path, controls)?;
        let drifted = encoder.probes()? != entry.probes;
        Ok(drifted.then(|| "it no longer gives the probe strings the ids in the manifest".to_owned()))
    };
    match check() {
        Ok(None) => {}
        Ok(Some(what)) => failures.push(format!("{}: {what}", entry.file)),
        Err(error) => failures.push(format!("{}: {}", entry.file, error.message)),
    }
}

/// Reads and checks one shard. The outer result is for the user's wish to stop.
fn verify_shard(
    out: &Path,
    entry: &ShardEntry,
    rules: &RowRules,
    monitor: &Monitor,
    found: &mut Verification,
    sums: &mut impl FnMut(u16, Sums),
) -> Result<std::result::Result<(), Failure>> {
    let path = out.join(&entry.file);
    let intact = || -> Result<Option<String>> {
        let size = read::file_size(&path)?;
        if size != entry.bytes {
            return Ok(Some(format!("{size} bytes, the manifest says {}", entry.bytes)));
        }
        let differs = read::xxh3_128_of_file(&path)? != entry.xxh3_128;
        Ok(differs.then(|| "its checksum is not the manifest's: the file was changed or damaged".to_owned()))
    };
    match intact() {
        Ok(None) => {}
        Ok(Some(what)) => return Ok(Err(Failure(what))),
        Err(error) => return Ok(Err(Failure(error.message))),
    }
    monitor.check()?;
    // Bytes are as they were written; from here on a failure is a fault of the writer.
    let mut totals = (0, Sums::default());
    let mut check = || -> std::result::Result<(), Failure> {
        let reader = FileReader::try_new(read::open_shard(&path).map_err(|error| Failure(error.message))?, None)?;
        let ids = IdType::for_vocab(rules.vocab_size);
        if reader.schema() != shard_schema(rules.seq_len, ids) {
            return Err(Failure("its columns are not those of the format".to_owned()));
        }
        let batches = reader.num_batches();
        for (nth, batch) in reader.enumerate() {
            let batch = batch?;
            if nth + 1 < batches && batch.num_rows() != ROWS_PER_BATCH {
                return Err(Failure(format!("batch {nth} has {} rows, not {ROWS_PER_BATCH}", batch.num_rows())));
            }
            for at in 0..batch.num_rows() {
                let row = row_of(&batch, at, ids);
                check_row(&row, rules)
                    .map_err(|Violation(what)| Failure(format!("row {}: {what}", nth * ROWS_PER_BATCH + at)))?;
                totals.0 += 1;
                add_row(&row, &mut totals.1, sums);
                monitor.done.fetch_add(1, Relaxed);
            }
        }
        Ok(())
    };
    let checked = check();
    let (rows, read) = totals;
    found.rows += rows;
    found.documents += read.documents;
    if checked.is_err() {
        return Ok(checked);
    }
    let said = (entry.rows, entry.documents, entry.tokens, entry.targets);
    let is = (rows, read.documents, read.tokens, read.targets);
    Ok(if said == is {
        Ok(())
    } else {
        Err(Failure(format!("rows, documents, tokens, targets are {is:?}, the manifest says {said:?}")))
    })
}

fn add_row(row: &Row, totals: &mut Sums, sums: &mut impl FnMut(u16, Sums)) {
    let mut start = 0;
    for (&len, &source) in row.seq_lengths.iter().zip(&row.source_ids) {
        let end = start + len as usize;
        let targets = row.mask[start..end].iter().filter(|&&learnt| learnt).count() as u64;
        let document = Sums { documents: 1, tokens: len as u64, targets };
        totals.add_sums(document);
        sums(source, document);
        start = end;
    }
}

fn verify_sums(manifest: &Manifest, per_source: &HashMap<(Side, u16), Sums>, failures: &mut Vec<String>) {
    for (id, source) in manifest.sources.iter().enumerate() {
        for (side, said) in [(Side::Train, source.train), (Side::Validation, source.validation)] {
            let is = per_source.get(&(side, id as u16)).copied().unwrap_or_default();
            if is != said {
                let (name, side) = (&source.name, side.name());
                failures.push(format!("manifest.json: source '{name}' in {side}: {said:?}, the shards hold {is:?}"));
            }
        }
    }
}

fn values<T: ArrowPrimitiveType>(batch: &RecordBatch, column: usize, at: usize) -> Vec<T::Native> {
    batch.column(column).as_list::<i32>().value(at).as_primitive::<T>().values().to_vec()
}

fn row_of(batch: &RecordBatch, at: usize, ids: IdType) -> Row {
    let stored = batch.column(0).as_fixed_size_list().value(at);
    let mask = batch.column(1).as_fixed_size_list().value(at);
    Row {
        ids: match ids {
            IdType::U16 => stored.as_primitive::<UInt16Type>().values().iter().map(|&id| u32::from(id)).collect(),
            IdType::U32 => stored.as_primitive::<UInt32Type>().values().to_vec(),
        },
        mask: mask.as_boolean().values().iter().collect(),
        seq_lengths: values::<Int32Type>(batch, 2, at),
        segment_lengths: values::<Int32Type>(batch, 3, at),
        segment_roles: values::<UInt8Type>(batch, 4, at),
        source_ids: values::<UInt16Type>(batch, 5, at),
        record_ids: values::<UInt64Type>(batch, 6, at),
        doc_parts: values::<UInt32Type>(batch, 7, at),
        n_targets: batch.column(8).as_primitive::<Int32Type>().value(at),
    }
}
