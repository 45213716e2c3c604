//! Reads Parquet: a record is a row. Only the columns that templates name are read, one row group
//! after another.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Field, Fields as ArrowFields, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use parquet::arrow::{
    FieldLevels, ProjectionMask, parquet_to_arrow_field_levels, parquet_to_arrow_schema,
};
use parquet::file::metadata::{
    ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData,
};
use parquet::schema::types::SchemaDescriptor;

use crate::context::Context;
use crate::error::{Error, ErrorKind, Place, Result};
use crate::monitor::Stop;
use crate::panics::{GAVE_UP, caught};
use crate::read::class_labels::{ClassLabels, METADATA, labels_of_metadata};
use crate::read::columnar::{
    Batch, Batches, Budget, Chunks, Column, MAX_METADATA, RowReader, StoredBytes, fields_of,
    leaves_of, row_places, shortened,
};
use crate::read::columns::refuse_repeated;
use crate::read::content::Found;
use crate::read::format::{Format, FormatOptions, Likeness};
use crate::read::head::Head;
use crate::read::record::Reader;
use crate::read::request::Request;
use crate::read::slots::FieldTree;
use crate::read::split::RowGroup;
use crate::storage::Storage;

/// The first and the last bytes of a file.
const MAGIC: &[u8] = b"PAR1";
/// The same where the file is encrypted as a whole.
const ENCRYPTED: &[u8] = b"PARE";
/// The bytes after the metadata: their length, and the magic.
const TAIL: u64 = 8;
/// The rows of a batch, and the decoded bytes that it aims at.
const BATCH_ROWS: u64 = 4096;
const BATCH_BYTES: u64 = 4 << 20;
/// The bytes of a batch whose rows all hold the longest value of a dictionary.
const BATCH_WORST: u64 = 64 << 20;

pub(super) struct Parquet;

impl Format for Parquet {
    fn name(&self) -> &'static str {
        "parquet"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &["parquet", "pq"]
    }

    fn sniff(&self, content: &[u8], _: &FormatOptions) -> Result<Likeness> {
        Ok(if content.starts_with(MAGIC) { Likeness::Certain } else { Likeness::Possible })
    }

    fn refuse(&self, head: &Head) -> Result<()> {
        if head.text().starts_with(ENCRYPTED) {
            return Err(encrypted());
        }
        if !head.text().starts_with(MAGIC) {
            head.refuse_binary()?;
            return Err(Error::input("is not Parquet: it does not begin with PAR1")
                .remedy("fetch the file again, or say its `format`"));
        }
        if head.is_compressed() {
            return Err(Error::input("is Parquet inside of another compression").remedy(
                "unpack it (for .gz: gunzip -k FILE) and name what comes of it: Parquet compresses \
                 its own columns",
            ));
        }
        Ok(())
    }

    fn is_text(&self) -> bool {
        false
    }

    fn options(&self) -> &'static [&'static str] {
        &["labels"]
    }

    fn class_labels(&self, path: &Path, storage: &dyn Storage) -> Result<ClassLabels> {
        let file = File::open(path, storage, Stop::default())?;
        let own = file.metadata.file_metadata().key_value_metadata().into_iter().flatten();
        let value = own.filter(|pair| pair.key == METADATA).find_map(|pair| pair.value.as_deref());
        Ok(value.map(labels_of_metadata).unwrap_or_default())
    }

    fn row_groups(&self, path: &Path, storage: &dyn Storage) -> Result<Option<Vec<RowGroup>>> {
        let file = File::open(path, storage, Stop::default())?;
        let groups = file.metadata.row_groups().iter();
        Ok(Some(groups.map(|group| RowGroup { rows: rows(group), bytes: bytes(group) }).collect()))
    }

    fn open(&self, request: &Request<'_>) -> Result<Box<dyn Reader>> {
        let Context { storage, monitor, .. } = *request.context;
        let file = File::open(request.path, storage, monitor.stop())?;
        let (columns, projection) = project(&file.metadata, request.wanted.map(|tree| &**tree))
            .map_err(|error| error.file(file.name.clone()))?;
        let mut first_row = 0u64;
        let mut waiting = VecDeque::new();
        for (index, group) in file.metadata.row_groups().iter().enumerate() {
            if request.range.contains(&first_row) && rows(group) > 0 {
                waiting.push_back((index, first_row));
            }
            first_row = first_row.saturating_add(rows(group));
        }
        let batches = Groups { file, projection, budget: Arc::default(), waiting, current: None };
        Ok(Box::new(RowReader::new(batches, columns, request.wanted)))
    }

    fn locate(&self, _: &Request<'_>, offset: u64) -> Result<Place> {
        Ok(Place::Row(offset + 1))
    }

    fn places(&self, request: &Request<'_>, offsets: &[u64]) -> Result<Vec<Found>> {
        row_places(self, request, offsets)
    }

    fn stated_bytes(&self, path: &Path, context: &Context<'_>) -> Option<u64> {
        let file = File::open(path, context.storage, Stop::default()).ok()?;
        let groups = file.metadata.row_groups().iter();
        let whole = |group: &RowGroupMetaData| u64::try_from(group.total_byte_size()).unwrap_or(0);
        Some(groups.fold(0, |sum, group| sum.saturating_add(whole(group))))
    }

    fn stated_records(&self, path: &Path, context: &Context<'_>) -> Option<u64> {
        let groups = self.row_groups(path, context.storage).ok().flatten()?;
        Some(groups.iter().fold(0, |sum, group| sum.saturating_add(group.rows)))
    }
}

/// Returns the rows of a group.
fn rows(group: &RowGroupMetaData) -> u64 {
    u64::try_from(group.num_rows()).unwrap_or(0)
}

/// Returns the most bytes that one row may take, where the values of a column are those of a
/// dictionary: how large each is, only its page would tell.
fn most_of_a_row(column: &ColumnChunkMetaData) -> u64 {
    let Some(dictionary) = column.dictionary_page_offset() else { return 0 };
    let [stored, whole] = [column.compressed_size(), column.uncompressed_size()]
        .map(|bytes| u64::try_from(bytes).unwrap_or(0));
    let dictionary = u64::try_from(column.data_page_offset() - dictionary).unwrap_or(0);
    // Text shrinks to a fifth or so; what shrinks more was made to.
    if whole / (stored + 1) > 8 { whole } else { (8 * dictionary).min(whole) }
}

/// Returns the bytes of a group in its file.
fn bytes(group: &RowGroupMetaData) -> u64 {
    group.columns().iter().fold(0, |sum: u64, column| {
        sum.saturating_add(u64::try_from(column.compressed_size()).unwrap_or(0))
    })
}

/// Returns the error of an encrypted file.
fn encrypted() -> Error {
    Error::input("is encrypted").remedy("decrypt it and name what comes of it")
}

/// An open file.
struct File {
    /// Its name in errors.
    name: String,
    bytes: Arc<StoredBytes>,
    metadata: Arc<ParquetMetaData>,
    stop: Stop,
}

impl File {
    /// Opens a file and reads its metadata. Refuses a file that is not whole.
    fn open(path: &Path, storage: &dyn Storage, stop: Stop) -> Result<Self> {
        let (stored, size) = storage.open_regular(ErrorKind::Input, path)?;
        let name = path.display().to_string();
        let bytes = StoredBytes::new(stored, size, stop.clone());
        let fault = |what: &str, remedy: &str| Error::input(what).file(name.clone()).remedy(remedy);
        let again = "fetch the file again, or write it again";
        if size < 4 + TAIL {
            return Err(fault("is not Parquet: it is too short", again));
        }
        let read = |offset, len| {
            bytes.read(offset, len).map_err(|error| Error::io(ErrorKind::Input, path, &error))
        };
        let tail = read(size - TAIL, TAIL)?;
        if tail[4..] == *ENCRYPTED {
            return Err(encrypted().file(name));
        }
        if tail[4..] != *MAGIC {
            let what = "is truncated, or no Parquet: it does not end with PAR1";
            return Err(fault(what, again));
        }
        let len = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
        if len > size - TAIL - 4 {
            return Err(fault("is damaged: its metadata would begin before it does", again));
        }
        if len > MAX_METADATA {
            return Err(fault(
                "has more than 64 MiB of metadata",
                "write it again with fewer columns, fewer row groups, or without statistics",
            ));
        }
        let encoded = read(size - TAIL - len, len)?;
        let damaged = |why: &str| fault(&format!("is damaged: {}", shortened(why)), again);
        let Some(fields) = fields_of(&encoded) else {
            return Err(damaged("its metadata cannot be read"));
        };
        // The algorithm, and the key that signs the metadata.
        if fields.contains(&8) || fields.contains(&9) {
            return Err(encrypted().file(name));
        }
        let metadata = caught(|| ParquetMetaDataReader::decode_metadata(&encoded))
            .map_err(|_| damaged(GAVE_UP))?
            .map_err(|error| damaged(&error.to_string()))?;
        Ok(Self { bytes: Arc::new(bytes), metadata: Arc::new(metadata), stop, name })
    }
}

/// The columns to decode; `None` if no column is read.
type Projection = Option<(FieldLevels, Vec<bool>)>;

/// Returns the columns of a file, and what to decode for the `wanted` fields.
fn project(
    metadata: &ParquetMetaData,
    wanted: Option<&FieldTree>,
) -> Result<(Vec<Column>, Projection)> {
    let schema = metadata.file_metadata().schema_descr();
    let unreadable = |why: &str| {
        Error::input(format!("its schema cannot be read: {}", shortened(why)))
            .remedy("write the file again, with pyarrow for example")
    };
    let hints = caught(|| hints(metadata, schema))
        .map_err(|_| unreadable(GAVE_UP))?
        .map_err(|error| unreadable(&error))?;
    let roots = schema.root_schema().get_fields();
    let names: Vec<String> = roots.iter().map(|field| field.name().to_owned()).collect();
    refuse_repeated(&names).map_err(|error| error.remedy("rename one of them"))?;

    let leaves: Vec<_> = hints.iter().flat_map(|field| leaves_of(field.data_type())).collect();
    if leaves.len() != schema.num_columns() || roots.len() != hints.len() {
        return Err(unreadable("its columns are not those of its Arrow schema"));
    }
    let path_of = |leaf: usize| schema.column(leaf).path().parts().to_vec();
    let mut chosen: Vec<bool> = (0..leaves.len())
        .map(|leaf| wanted.is_none_or(|tree| tree.reaches(&path_of(leaf))))
        .collect();
    let mut columns = Vec::with_capacity(names.len());
    let mut read = 0;
    for (root, name) in names.into_iter().enumerate() {
        let of_root: Vec<usize> =
            (0..leaves.len()).filter(|&leaf| schema.get_column_root_idx(leaf) == root).collect();
        let is_wanted = wanted.is_none_or(|tree| tree.root().child(&name).is_some());
        // A field that is not there: the whole column shows what is.
        if is_wanted && !of_root.iter().any(|&leaf| chosen[leaf]) {
            for &leaf in &of_root {
                chosen[leaf] = true;
            }
        }
        let refused = of_root.iter().find_map(|&leaf| leaves[leaf]);
        for &leaf in &of_root {
            chosen[leaf] &= leaves[leaf].is_none();
        }
        let place = if of_root.iter().any(|&leaf| chosen[leaf]) {
            read += 1;
            Ok(read - 1)
        } else {
            Err(refused.filter(|_| is_wanted).unwrap_or("is not read"))
        };
        columns.push(Column { name, place });
    }
    if read == 0 {
        return Ok((columns, None));
    }
    let mask = ProjectionMask::leaves(schema, (0..leaves.len()).filter(|&leaf| chosen[leaf]));
    let levels = caught(|| parquet_to_arrow_field_levels(schema, mask, Some(&hints)))
        .map_err(|_| unreadable(GAVE_UP))?
        .map_err(|error| unreadable(&error.to_string()))?;
    Ok((columns, Some((levels, chosen))))
}

/// Returns the Arrow types to decode to: those of the writer, but texts as views, which share the
/// bytes of a page instead of copying them, however often a dictionary repeats one.
fn hints(
    metadata: &ParquetMetaData,
    schema: &SchemaDescriptor,
) -> std::result::Result<ArrowFields, String> {
    let own = metadata.file_metadata().key_value_metadata();
    let arrow = parquet_to_arrow_schema(schema, own)
        .or_else(|_| parquet_to_arrow_schema(schema, None))
        .map_err(|error| error.to_string())?;
    Ok(arrow.fields().iter().map(|field| viewed_field(field)).collect())
}

/// Returns a field with texts as views.
fn viewed_field(field: &Field) -> Field {
    Field::new(field.name(), viewed(field.data_type()), field.is_nullable())
}

/// Returns a type with texts as views.
fn viewed(kind: &DataType) -> DataType {
    let field = |field: &Arc<Field>| Arc::new(viewed_field(field));
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Dictionary(_, values) => viewed(values),
        DataType::List(item) => DataType::List(field(item)),
        DataType::LargeList(item) => DataType::LargeList(field(item)),
        DataType::ListView(item) => DataType::ListView(field(item)),
        DataType::LargeListView(item) => DataType::LargeListView(field(item)),
        DataType::FixedSizeList(item, len) => DataType::FixedSizeList(field(item), *len),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        DataType::Map(entries, sorted) => DataType::Map(field(entries), *sorted),
        other => other.clone(),
    }
}

/// A cursor over the batches of row groups.
struct Groups {
    file: File,
    projection: Projection,
    budget: Arc<Budget>,
    /// The groups to read, each with its first row.
    waiting: VecDeque<(usize, u64)>,
    current: Option<Group>,
}

/// The row group at hand.
struct Group {
    index: usize,
    first_row: u64,
    /// The rows that were read.
    done: u64,
    /// `None` if no column is read.
    reader: Option<ParquetRecordBatchReader>,
}

impl Groups {
    /// Begins a row group.
    fn begin(&self, index: usize, first_row: u64) -> Result<Group> {
        let reader = match &self.projection {
            None => None,
            Some((levels, chosen)) => {
                let group = self.file.metadata.row_group(index);
                let decoded = group.columns().iter().zip(chosen).filter(|(_, chosen)| **chosen);
                let decoded: u64 = decoded.fold(0, |sum: u64, (column, _)| {
                    sum.saturating_add(u64::try_from(column.uncompressed_size()).unwrap_or(0))
                });
                let per_row = decoded / rows(group) + 1;
                let widest = group.columns().iter().zip(chosen).filter(|(_, chosen)| **chosen);
                let widest = widest.map(|(column, _)| most_of_a_row(column)).sum::<u64>() + 1;
                let most = (BATCH_WORST / widest).max(1);
                let batch = (BATCH_BYTES / per_row).clamp(1, BATCH_ROWS).min(most) as usize;
                let chunks = Chunks {
                    file: Arc::clone(&self.file.bytes),
                    metadata: Arc::clone(&self.file.metadata),
                    group: index,
                    budget: Arc::clone(&self.budget),
                };
                let open = || {
                    ParquetRecordBatchReader::try_new_with_row_groups(levels, &chunks, batch, None)
                };
                let reader = caught(open).map_err(|_| self.fault(index, GAVE_UP))?;
                Some(reader.map_err(|error| self.fault(index, &error.to_string()))?)
            }
        };
        Ok(Group { index, first_row, done: 0, reader })
    }

    /// Returns the error of a row group that cannot be read.
    fn fault(&self, index: usize, why: &str) -> Error {
        if let Err(stopped) = self.file.stop.check() {
            return stopped;
        }
        let remedy = if why.contains("1 GiB") {
            "write it again with smaller row groups and pages: \
             pyarrow.parquet.write_table(table, FILE, row_group_size=1000)"
        } else {
            "fetch the file again, or write it again"
        };
        let why = shortened(why);
        Error::input(format!("its row group {} cannot be read: {why}", index + 1))
            .file(self.file.name.clone())
            .remedy(remedy)
    }
}

impl Batches for Groups {
    fn next(&mut self) -> Result<Option<Batch>> {
        loop {
            self.file.stop.check()?;
            let Some(group) = &mut self.current else {
                let Some((index, first_row)) = self.waiting.pop_front() else { return Ok(None) };
                self.budget.renew();
                self.current = Some(self.begin(index, first_row)?);
                continue;
            };
            let index = group.index;
            let metadata = self.file.metadata.row_group(index);
            let total = rows(metadata);
            let columns = match &mut group.reader {
                None if group.done < total => Some(Ok(unread(total - group.done))),
                None => None,
                Some(reader) => {
                    self.budget.renew();
                    let next = caught(|| reader.next());
                    match next {
                        Ok(next) => next,
                        Err(_) => return Err(self.fault(index, GAVE_UP)),
                    }
                }
            };
            let Some(columns) = columns else {
                let done = group.done;
                if done != total {
                    let why = format!("it has {done} rows, its metadata says {total}");
                    return Err(self.fault(index, &why));
                }
                self.current = None;
                continue;
            };
            let columns = match columns {
                Ok(columns) => columns,
                Err(error) => return Err(self.fault(index, &error.to_string())),
            };
            let stored = u128::from(bytes(metadata));
            let until = |row: u64| (stored * u128::from(row) / u128::from(total)) as u64;
            let end = group.done + columns.num_rows() as u64;
            let batch = Batch {
                first_row: group.first_row + group.done,
                bytes: until(end) - until(group.done),
                columns,
            };
            group.done = end;
            return Ok(Some(batch));
        }
    }
}

/// Returns a batch of rows without columns.
fn unread(rows: u64) -> RecordBatch {
    let options = RecordBatchOptions::new().with_row_count(Some(rows as usize));
    RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)
        .expect("a batch without columns has no column of another length")
}
