//! `ShardWriter`: rows become record batches, and batches one Arrow IPC file, uncompressed, 64-byte
//! aligned, with its checksum.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{BooleanBufferBuilder, Int32Builder, ListBuilder, PrimitiveBuilder};
use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Int32Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{ArrayRef, BooleanArray, FixedSizeListArray, PrimitiveArray, RecordBatch};
use arrow_ipc::MetadataVersion;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3Default;

use super::failed;
use crate::error::{Error, Result};
use crate::mask::Row;
use crate::schema::{IdType, ROWS_PER_BATCH, shard_schema};
use crate::storage::{NewFile, Storage, finish};

/// A finished shard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Written {
    /// The number of its rows.
    pub rows: u64,
    /// The size of its file in bytes.
    pub bytes: u64,
    /// The checksum of its file in hexadecimal.
    pub xxh3_128: String,
}

/// A writer that counts and hashes the bytes that pass through it.
pub(super) struct Summing<W> {
    inner: W,
    hasher: Xxh3Default,
    bytes: u64,
}

impl Summing<BufWriter<Box<dyn NewFile>>> {
    /// Begins the file `path`, which appears under its name once it is published.
    pub(super) fn create(storage: &dyn Storage, path: &Path) -> io::Result<Self> {
        let inner = BufWriter::with_capacity(1 << 20, storage.create(path)?);
        Ok(Self { inner, hasher: Xxh3Default::new(), bytes: 0 })
    }

    /// Syncs the file and gives it its name. Returns its size and its checksum in hexadecimal.
    pub(super) fn publish(self) -> io::Result<(u64, String)> {
        let (bytes, xxh3_128) = (self.bytes, format!("{:032x}", self.hasher.digest128()));
        finish(self.inner.into_inner().map_err(io::IntoInnerError::into_error)?)?;
        Ok((bytes, xxh3_128))
    }
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes record batches of [`ROWS_PER_BATCH`] rows, the last one aside.
pub(crate) struct ShardWriter {
    writer: FileWriter<Summing<BufWriter<Box<dyn NewFile>>>>,
    path: PathBuf,
    rows: u64,
}

impl ShardWriter {
    /// Begins the shard `path`, which appears under its name once it is finished.
    pub(crate) fn create(storage: &dyn Storage, path: &Path, schema: &Schema) -> Result<Self> {
        let sink = Summing::create(storage, path).map_err(|error| failed(path, &error))?;
        let options = IpcWriteOptions::try_new(64, false, MetadataVersion::V5)
            .map_err(|error| broken(path, &error))?;
        let writer = FileWriter::try_new_with_options(sink, schema, options)
            .map_err(|error| broken(path, &error))?;
        Ok(Self { writer, path: path.to_owned(), rows: 0 })
    }

    /// Adds the rows of a batch.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        debug_assert!(
            self.rows.is_multiple_of(ROWS_PER_BATCH as u64),
            "only the last batch is short"
        );
        self.rows += batch.num_rows() as u64;
        self.writer.write(batch).map_err(|error| broken(&self.path, &error))
    }

    /// Ends the file, syncs it and gives it its name.
    pub(crate) fn finish(mut self) -> Result<Written> {
        self.writer.finish().map_err(|error| broken(&self.path, &error))?;
        let sink = self.writer.into_inner().map_err(|error| broken(&self.path, &error))?;
        let (bytes, xxh3_128) = sink.publish().map_err(|error| failed(&self.path, &error))?;
        Ok(Written { rows: self.rows, bytes, xxh3_128 })
    }
}

/// Returns the error of the Arrow library about the shard `path`.
fn broken(path: &Path, error: &arrow_schema::ArrowError) -> Error {
    // A full disk must be told as such.
    if let arrow_schema::ArrowError::IoError(_, error) = error {
        return failed(path, error);
    }
    Error::output(format!("could not write the shard: {error}")).file(path.display().to_string())
}

/// Rows on their way into a record batch.
pub(crate) struct Batch {
    schema: SchemaRef,
    ids: Ids,
    mask: BooleanBufferBuilder,
    seq_lengths: ListBuilder<PrimitiveBuilder<Int32Type>>,
    segment_lengths: ListBuilder<PrimitiveBuilder<Int32Type>>,
    segment_roles: ListBuilder<PrimitiveBuilder<UInt8Type>>,
    source_ids: ListBuilder<PrimitiveBuilder<UInt16Type>>,
    record_ids: ListBuilder<PrimitiveBuilder<UInt64Type>>,
    doc_parts: ListBuilder<PrimitiveBuilder<UInt32Type>>,
    n_targets: Int32Builder,
    /// Only of a dataset with weights.
    doc_weights: Option<ListBuilder<PrimitiveBuilder<Float32Type>>>,
}

/// The ids of a batch in the dataset's type.
enum Ids {
    U16(Vec<u16>),
    U32(Vec<u32>),
}

/// Returns the builder of a column of lists without nulls.
fn list<T: ArrowPrimitiveType>() -> ListBuilder<PrimitiveBuilder<T>> {
    ListBuilder::new(PrimitiveBuilder::new()).with_field(Field::new("item", T::DATA_TYPE, false))
}

/// Appends one list to a column.
fn append<T: ArrowPrimitiveType>(
    builder: &mut ListBuilder<PrimitiveBuilder<T>>,
    values: &[T::Native],
) {
    builder.values().append_slice(values);
    builder.append(true);
}

impl Batch {
    /// Returns an empty batch of rows of `seq_len` tokens, with weights if it `is_weighted`.
    #[must_use]
    pub(crate) fn new(seq_len: usize, ids: IdType, is_weighted: bool) -> Self {
        Self {
            schema: shard_schema(seq_len, ids, is_weighted),
            ids: match ids {
                IdType::U16 => Ids::U16(Vec::new()),
                IdType::U32 => Ids::U32(Vec::new()),
            },
            mask: BooleanBufferBuilder::new(0),
            seq_lengths: list(),
            segment_lengths: list(),
            segment_roles: list(),
            source_ids: list(),
            record_ids: list(),
            doc_parts: list(),
            n_targets: Int32Builder::new(),
            doc_weights: is_weighted.then(list),
        }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, row: &Row) {
        match &mut self.ids {
            Ids::U16(ids) => ids.extend(row.ids.iter().map(|&id| id as u16)),
            Ids::U32(ids) => ids.extend_from_slice(&row.ids),
        }
        self.mask.append_slice(&row.mask);
        append(&mut self.seq_lengths, &row.seq_lengths);
        append(&mut self.segment_lengths, &row.segment_lengths);
        append(&mut self.segment_roles, &row.segment_roles);
        append(&mut self.source_ids, &row.source_ids);
        append(&mut self.record_ids, &row.record_ids);
        append(&mut self.doc_parts, &row.doc_parts);
        self.n_targets.append_value(row.n_targets);
        if let Some(column) = &mut self.doc_weights {
            let weights: Vec<f32> = row.doc_weights.iter().map(|weight| weight.value()).collect();
            append(column, &weights);
        }
    }

    /// Returns the rows as a record batch.
    pub(crate) fn finish(self) -> Result<RecordBatch> {
        self.assemble()
            .map_err(|error| Error::internal(format!("rows that make no record batch: {error}")))
    }

    /// Puts the columns together, in the order of the schema.
    fn assemble(mut self) -> std::result::Result<RecordBatch, arrow_schema::ArrowError> {
        let ids: ArrayRef = match self.ids {
            Ids::U16(ids) => Arc::new(PrimitiveArray::<UInt16Type>::from(ids)),
            Ids::U32(ids) => Arc::new(PrimitiveArray::<UInt32Type>::from(ids)),
        };
        let mask: ArrayRef = Arc::new(BooleanArray::new(self.mask.finish(), None));
        let fixed = |column: usize, values: ArrayRef| match self.schema.field(column).data_type() {
            DataType::FixedSizeList(item, len) => {
                FixedSizeListArray::try_new(Arc::clone(item), *len, values, None)
                    .map(|array| Arc::new(array) as ArrayRef)
            }
            other => {
                Err(arrow_schema::ArrowError::SchemaError(format!("column {column} is {other}")))
            }
        };
        let mut columns: Vec<ArrayRef> = vec![
            fixed(0, ids)?,
            fixed(1, mask)?,
            Arc::new(self.seq_lengths.finish()),
            Arc::new(self.segment_lengths.finish()),
            Arc::new(self.segment_roles.finish()),
            Arc::new(self.source_ids.finish()),
            Arc::new(self.record_ids.finish()),
            Arc::new(self.doc_parts.finish()),
            Arc::new(self.n_targets.finish()),
        ];
        columns.extend(self.doc_weights.map(|mut column| Arc::new(column.finish()) as ArrayRef));
        RecordBatch::try_new(self.schema, columns)
    }
}
