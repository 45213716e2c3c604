//! Reads Arrow: a record is a row of an IPC file (Feather is one) or of an IPC stream, as
//! `datasets` writes them. Only the columns that templates name are decoded.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_ipc::convert::fb_to_schema;
use arrow_ipc::reader::{read_dictionary, read_record_batch};
use arrow_ipc::{Endianness, MessageHeader};
use arrow_schema::SchemaRef;

use crate::context::Context;
use crate::error::{Error, Place, Result};
use crate::monitor::Stop;
use crate::panics::{GAVE_UP, caught};
use crate::read::class_labels::{ClassLabels, METADATA, labels_of_metadata};
use crate::read::columnar::{
    Batch, Batches, CONTINUATION, Column, Found, MAGIC, MAX_DECODED, Messages, RowReader, refusal,
    row_places,
};
use crate::read::columns::refuse_repeated;
use crate::read::content::Found as Row;
use crate::read::format::{Format, FormatOptions, Likeness};
use crate::read::head::Head;
use crate::read::record::Reader;
use crate::read::request::Request;
use crate::read::slots::FieldTree;
use crate::read::split::RowGroup;
use crate::storage::Storage;

/// The first bytes of the first version of Feather.
const FEATHER_1: &[u8] = b"FEA1";
/// The most rows of a batch: those without columns take no room.
const MAX_ROWS: u64 = 1 << 31;

pub(super) struct Arrow;

impl Format for Arrow {
    fn name(&self) -> &'static str {
        "arrow"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &["arrow", "feather", "ipc", "arrows"]
    }

    fn sniff(&self, content: &[u8], _: &FormatOptions) -> Result<Likeness> {
        let is_new = content.starts_with(&CONTINUATION) && is_stream(content);
        let is_certain = content.starts_with(MAGIC) || is_new;
        Ok(if is_certain { Likeness::Certain } else { Likeness::Possible })
    }

    fn refuse(&self, head: &Head) -> Result<()> {
        let content = head.text();
        if content.starts_with(MAGIC) || is_stream(content) {
            return Ok(());
        }
        if content.starts_with(FEATHER_1) {
            return Err(Error::input("is Feather of the first version, which is not read").remedy(
                "write it again: python -c \"from pyarrow import feather; \
                 feather.write_feather(feather.read_table('OLD'), 'NEW.feather')\"",
            ));
        }
        head.refuse_binary()?;
        Err(Error::input("is neither an Arrow file nor an Arrow stream")
            .remedy("fetch the file again, or say its `format`"))
    }

    fn is_text(&self) -> bool {
        false
    }

    fn options(&self) -> &'static [&'static str] {
        &["labels"]
    }

    fn class_labels(&self, path: &Path, storage: &dyn Storage) -> Result<ClassLabels> {
        let schema = schema_of(&mut Messages::open(path, storage, Stop::default())?)?;
        Ok(schema.metadata().get(METADATA).map(|text| labels_of_metadata(text)).unwrap_or_default())
    }

    fn row_groups(&self, path: &Path, storage: &dyn Storage) -> Result<Option<Vec<RowGroup>>> {
        let mut messages = Messages::open(path, storage, Stop::default())?;
        let mut groups = Vec::new();
        while let Some(found) = messages.next()? {
            if let Some(rows) = rows_of(&messages, &found)? {
                groups.push(RowGroup { rows, bytes: found.bytes });
            }
            messages.pass(&found)?;
        }
        Ok(Some(groups))
    }

    fn open(&self, request: &Request<'_>) -> Result<Box<dyn Reader>> {
        let Context { storage, monitor, .. } = *request.context;
        let mut messages = Messages::open(request.path, storage, monitor.stop())?;
        let schema = schema_of(&mut messages)?;
        let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        refuse_repeated(&names)
            .map_err(|error| error.file(request.path.display().to_string()))
            .map_err(|error| error.remedy("rename one of them"))?;
        let (columns, projection) = project(&schema, request.wanted.map(|tree| &**tree));
        let batches = RecordBatches {
            messages,
            schema,
            projection,
            dictionaries: HashMap::new(),
            dictionary_bytes: 0,
            row: 0,
            range: request.range.clone(),
        };
        Ok(Box::new(RowReader::new(batches, columns, request.wanted)))
    }

    fn locate(&self, _: &Request<'_>, offset: u64) -> Result<Place> {
        Ok(Place::Row(offset + 1))
    }

    fn places(&self, request: &Request<'_>, offsets: &[u64]) -> Result<Vec<Row>> {
        row_places(self, request, offsets)
    }

    fn stated_records(&self, path: &Path, context: &Context<'_>) -> Option<u64> {
        let groups = self.row_groups(path, context.storage).ok().flatten()?;
        Some(groups.iter().fold(0, |sum, group| sum.saturating_add(group.rows)))
    }
}

/// Returns whether content begins with a message: its length, and a table of plausible size. Before
/// version 0.15, no continuation came before the length.
fn is_stream(content: &[u8]) -> bool {
    let after = content.strip_prefix(&CONTINUATION).unwrap_or(content);
    let Some((len, metadata)) = after.split_first_chunk::<4>() else { return false };
    let Some((root, _)) = metadata.split_first_chunk::<4>() else { return false };
    let [len, root] = [len, root].map(|bytes| u32::from_le_bytes(*bytes));
    (16..1 << 26).contains(&len) && root >= 4 && root < len && len % 8 == after_padding(content)
}

/// Returns what the length of the first message leaves when it is divided by eight: with the bytes
/// before it, a message is padded to eight bytes.
fn after_padding(content: &[u8]) -> u32 {
    if content.starts_with(&CONTINUATION) { 0 } else { 4 }
}

/// Reads the schema, which comes first.
fn schema_of(messages: &mut Messages) -> Result<SchemaRef> {
    let Some(found) = messages.next()? else {
        return Err(messages.fault("is truncated: it has no schema"));
    };
    let message = found.message()?;
    let Some(schema) = message.header_as_schema() else {
        return Err(messages.damaged("it does not begin with a schema"));
    };
    if schema.endianness() == Endianness::Big {
        return Err(messages
            .fault("is big-endian, which is not read")
            .remedy("write it again on a machine of today"));
    }
    let schema = caught(|| fb_to_schema(schema)).map_err(|_| messages.damaged(GAVE_UP))?;
    messages.pass(&found)?;
    Ok(Arc::new(schema))
}

/// Returns the columns of a file, and the indices of those to decode for the `wanted` fields.
fn project(schema: &SchemaRef, wanted: Option<&FieldTree>) -> (Vec<Column>, Vec<usize>) {
    let (mut columns, mut projection) = (Vec::new(), Vec::new());
    for (index, field) in schema.fields().iter().enumerate() {
        let is_wanted = wanted.is_none_or(|tree| tree.root().child(field.name()).is_some());
        let place = match refusal(field.data_type()) {
            _ if !is_wanted => Err("is not read"),
            Some(why) => Err(why),
            None => {
                projection.push(index);
                Ok(projection.len() - 1)
            }
        };
        columns.push(Column { name: field.name().clone(), place });
    }
    (columns, projection)
}

/// Returns the rows of a message with a record batch; `None` for other messages.
fn rows_of(messages: &Messages, found: &Found) -> Result<Option<u64>> {
    let message = found.message()?;
    let Some(batch) = message.header_as_record_batch() else { return Ok(None) };
    match u64::try_from(batch.length()) {
        Ok(rows) if rows <= MAX_ROWS => Ok(Some(rows)),
        _ => Err(messages.damaged("a record batch claims more rows than it can have")),
    }
}

/// A cursor over the record batches that begin in a range of rows.
struct RecordBatches {
    messages: Messages,
    schema: SchemaRef,
    projection: Vec<usize>,
    dictionaries: HashMap<i64, ArrayRef>,
    /// The bytes of all dictionaries so far.
    dictionary_bytes: u64,
    /// The row after the last batch.
    row: u64,
    range: Range<u64>,
}

impl RecordBatches {
    /// Reads a message with a dictionary.
    fn add_dictionary(&mut self, found: &Found) -> Result<()> {
        let message = found.message()?;
        let dictionary = message.header_as_dictionary_batch();
        let Some((dictionary, data)) = dictionary.and_then(|all| Some((all, all.data()?))) else {
            return Err(self.messages.damaged("a dictionary holds no values"));
        };
        let body = self.messages.body(found, &data)?;
        let (schema, known) = (&self.schema, &mut self.dictionaries);
        let version = message.version();
        let read = caught(|| read_dictionary(&body, dictionary, schema, known, &version));
        self.checked(read)?;
        self.dictionary_bytes += body.len() as u64;
        if self.dictionary_bytes > MAX_DECODED {
            return Err(self
                .messages
                .fault("has dictionaries of more than 1 GiB")
                .remedy("write it again without dictionaries"));
        }
        Ok(())
    }

    /// Reads a message with a record batch.
    fn batch(&mut self, found: &Found) -> Result<RecordBatch> {
        let message = found.message()?;
        let Some(batch) = message.header_as_record_batch() else {
            return Err(self.messages.damaged("a record batch is none"));
        };
        let body = self.messages.body(found, &batch)?;
        let version = message.version();
        let read = caught(|| {
            let (schema, known) = (Arc::clone(&self.schema), &self.dictionaries);
            read_record_batch(&body, batch, schema, known, Some(&self.projection), &version)
        });
        self.checked(read)
    }

    /// Returns what the library read.
    fn checked<T>(
        &self,
        read: std::result::Result<std::result::Result<T, arrow_schema::ArrowError>, String>,
    ) -> Result<T> {
        let read = read.map_err(|_| self.messages.damaged(GAVE_UP))?;
        read.map_err(|error| self.messages.damaged(&error.to_string()))
    }
}

impl Batches for RecordBatches {
    fn next(&mut self) -> Result<Option<Batch>> {
        while self.row < self.range.end {
            let Some(found) = self.messages.next()? else { break };
            match found.message()?.header_type() {
                MessageHeader::DictionaryBatch => self.add_dictionary(&found)?,
                MessageHeader::RecordBatch => {
                    let rows = rows_of(&self.messages, &found)?.unwrap_or(0);
                    let first_row = self.row;
                    self.row += rows;
                    if first_row < self.range.start || rows == 0 {
                        self.messages.pass(&found)?;
                        continue;
                    }
                    let columns = self.batch(&found)?;
                    if columns.num_rows() as u64 != rows {
                        return Err(self.messages.damaged("a record batch lacks rows"));
                    }
                    return Ok(Some(Batch { columns, first_row, bytes: found.bytes }));
                }
                MessageHeader::Schema => {
                    return Err(self.messages.damaged("it has two schemas"));
                }
                _ => return Err(self.messages.damaged("a message is of no kind that is read")),
            }
        }
        Ok(None)
    }
}
