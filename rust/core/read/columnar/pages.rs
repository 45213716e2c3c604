//! `Chunks`: the pages of a row group's columns, for the Parquet library to decode.
//!
//! The library would decompress and allocate whatever a page claims. So pages are read and
//! decompressed here, within [`MAX_DECODED`], and what is decoded for one batch is counted.

use std::io::{self, SeekFrom};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use parquet::arrow::arrow_reader::RowGroups;
use parquet::basic::Compression;
use parquet::column::page::{Page, PageIterator, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};

use super::MAX_DECODED;
use super::inflate::inflated;
use super::thrift::PageHeader;
use crate::monitor::Stop;
use crate::storage::StoredFile;

/// The bytes that are read at once, where less is asked for.
const WINDOW: u64 = 256 << 10;
/// The longest header of a page.
const MAX_HEADER: u64 = 1 << 20;
/// The most values of a page, and of one batch of a column of lists. Runs of equal values take no
/// room in a file.
const MAX_VALUES: u64 = 64 << 20;

/// A file that several columns read.
pub(in crate::read) struct StoredBytes {
    file: Mutex<Box<dyn StoredFile>>,
    pub(in crate::read) size: u64,
    stop: Stop,
}

impl StoredBytes {
    /// Returns the bytes of an open file of `size` bytes.
    pub(in crate::read) fn new(file: Box<dyn StoredFile>, size: u64, stop: Stop) -> Self {
        Self { file: Mutex::new(file), size, stop }
    }

    /// Reads `len` bytes from `offset` on, all of which lie within the file.
    pub(in crate::read) fn read(&self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        if self.stop.check().is_err() {
            return Err(io::Error::other("stopped by the user"));
        }
        if offset.checked_add(len).is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut file = self.file.lock().map_err(|_| io::Error::other("a reader panicked"))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = vec![0; len as usize];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// What the pages of one batch hold, over all columns.
#[derive(Debug, Default)]
pub(in crate::read) struct Budget {
    bytes: AtomicU64,
    values: AtomicU64,
}

impl Budget {
    /// Begins another batch.
    pub(in crate::read) fn renew(&self) {
        self.bytes.store(0, Relaxed);
        self.values.store(0, Relaxed);
    }

    /// Counts a page.
    fn take(&self, bytes: u64, values: u64) -> Result<()> {
        let bytes = self.bytes.fetch_add(bytes, Relaxed) + bytes;
        let values = self.values.fetch_add(values, Relaxed) + values;
        if bytes > MAX_DECODED || values > MAX_VALUES {
            return Err(fault("its rows take more than 1 GiB at once"));
        }
        Ok(())
    }
}

/// Returns an error in words.
fn fault(what: &str) -> ParquetError {
    ParquetError::General(what.to_owned())
}

/// The columns of one row group.
pub(in crate::read) struct Chunks {
    pub(in crate::read) file: Arc<StoredBytes>,
    pub(in crate::read) metadata: Arc<ParquetMetaData>,
    /// The index of the row group.
    pub(in crate::read) group: usize,
    pub(in crate::read) budget: Arc<Budget>,
}

impl RowGroups for Chunks {
    fn num_rows(&self) -> usize {
        usize::try_from(self.metadata.row_group(self.group).num_rows()).unwrap_or(0)
    }

    fn column_chunks(&self, index: usize) -> Result<Box<dyn PageIterator>> {
        let column = self.metadata.row_group(self.group).column(index);
        let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
        let range = u64::try_from(start).ok().zip(u64::try_from(column.compressed_size()).ok());
        let (start, len) = range.ok_or_else(|| fault("a column begins before its file"))?;
        let end = start.checked_add(len).filter(|end| *end <= self.file.size);
        let end = end.ok_or_else(|| fault("a column ends after its file"))?;
        let reader = ColumnPages {
            file: Arc::clone(&self.file),
            budget: Arc::clone(&self.budget),
            compression: column.compression(),
            repeats: column.column_descr().max_rep_level() > 0,
            offset: start,
            end,
            window: (0, Bytes::new()),
            next: None,
        };
        Ok(Box::new(OneColumn(Some(Box::new(reader)))))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(std::iter::once(self.metadata.row_group(self.group)))
    }

    fn metadata(&self) -> &ParquetMetaData {
        &self.metadata
    }
}

/// The one chunk of a column.
struct OneColumn(Option<Box<ColumnPages>>);

impl Iterator for OneColumn {
    type Item = Result<Box<dyn PageReader>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.take().map(|reader| Ok(reader as Box<dyn PageReader>))
    }
}

impl PageIterator for OneColumn {}

/// A cursor over the pages of a column chunk.
struct ColumnPages {
    file: Arc<StoredBytes>,
    budget: Arc<Budget>,
    compression: Compression,
    /// Whether a row may have any number of values.
    repeats: bool,
    /// The place of the next unread byte, and of the end of the chunk.
    offset: u64,
    end: u64,
    /// Bytes of the file that were read, and where they begin.
    window: (u64, Bytes),
    /// A header that was read before its page.
    next: Option<PageHeader>,
}

impl ColumnPages {
    /// Returns `len` bytes of the chunk from `offset` on.
    fn bytes(&mut self, offset: u64, len: u64) -> Result<Bytes> {
        if offset.checked_add(len).is_none_or(|end| end > self.end) {
            return Err(fault("a page ends after its column"));
        }
        let (start, window) = &self.window;
        if offset < *start || offset + len > start + window.len() as u64 {
            let read = len.max(WINDOW).min(self.end - offset);
            self.window = (offset, Bytes::from(self.file.read(offset, read)?));
        }
        let from = (offset - self.window.0) as usize;
        Ok(self.window.1.slice(from..from + len as usize))
    }

    /// Reads the next header, if there is one and it is not at hand.
    fn header(&mut self) -> Result<Option<PageHeader>> {
        while self.next.is_none() && self.offset < self.end {
            let mut len = WINDOW.min(1 << 12);
            let (header, used) = loop {
                let bytes = self.bytes(self.offset, len.min(self.end - self.offset))?;
                match PageHeader::read(&bytes) {
                    Some(found) => break found,
                    None if len < MAX_HEADER.min(self.end - self.offset) => len *= 16,
                    None => return Err(fault("a page has no header that could be read")),
                }
            };
            self.offset += used as u64;
            if header.compressed > MAX_DECODED || header.uncompressed > MAX_DECODED {
                return Err(fault("a page is larger than 1 GiB"));
            }
            // Index pages hold no values.
            if header.kind == 1 {
                self.bytes(self.offset, header.compressed)?;
                self.offset += header.compressed;
                continue;
            }
            self.next = Some(header);
        }
        Ok(self.next)
    }

    /// Decompresses the bytes of a page.
    fn inflate(&self, header: &PageHeader, stored: &Bytes) -> Result<Bytes> {
        // The levels of the second version's pages are never compressed.
        let levels = match header.kind {
            3 => u64::from(header.definition_bytes) + u64::from(header.repetition_bytes),
            _ => 0,
        };
        if levels > header.compressed || levels > header.uncompressed {
            return Err(fault("the levels of a page are longer than the page"));
        }
        if self.compression == Compression::UNCOMPRESSED || header.kind == 3 && header.is_plain {
            if header.compressed != header.uncompressed {
                return Err(fault("a page holds more or less than its header says"));
            }
            return Ok(stored.clone());
        }
        let levels = levels as usize;
        let (plain, packed) = stored.split_at(levels);
        let len = header.uncompressed as usize - levels;
        if len == 0 {
            return Ok(Bytes::copy_from_slice(plain));
        }
        let values = inflated(self.compression, packed, len).map_err(|what| fault(&what))?;
        Ok(if levels == 0 { values.into() } else { [plain, &values].concat().into() })
    }
}

impl PageReader for ColumnPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let Some(header) = self.header()? else { return Ok(None) };
        self.next = None;
        let stored = self.bytes(self.offset, header.compressed)?;
        self.offset += header.compressed;
        let values = u64::from(header.values);
        if values > MAX_VALUES || header.kind == 2 && values > header.uncompressed {
            return Err(fault("a page claims more values than it can hold"));
        }
        self.budget.take(header.uncompressed, if self.repeats { values } else { 0 })?;
        let buf = self.inflate(&header, &stored)?;
        let unknown = || fault("a page has an encoding that is not known");
        let encoding = header.encoding.ok_or_else(unknown)?;
        Ok(Some(match header.kind {
            0 => Page::DataPage {
                buf,
                num_values: header.values,
                encoding,
                def_level_encoding: header.definition_encoding.ok_or_else(unknown)?,
                rep_level_encoding: header.repetition_encoding.ok_or_else(unknown)?,
                statistics: None,
            },
            2 => {
                Page::DictionaryPage { buf, num_values: header.values, encoding, is_sorted: false }
            }
            3 => Page::DataPageV2 {
                buf,
                num_values: header.values,
                encoding,
                num_nulls: header.nulls,
                num_rows: header.rows,
                def_levels_byte_len: header.definition_bytes,
                rep_levels_byte_len: header.repetition_bytes,
                is_compressed: !header.is_plain,
                statistics: None,
            },
            _ => return Err(fault("a page is of no kind that is known")),
        }))
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        Ok(self.header()?.map(|header| PageMetadata {
            num_rows: (header.kind == 3).then_some(header.rows as usize),
            num_levels: (header.kind != 2).then_some(header.values as usize),
            is_dict: header.kind == 2,
        }))
    }

    fn skip_next_page(&mut self) -> Result<()> {
        if let Some(header) = self.header()? {
            self.next = None;
            self.offset += header.compressed;
        }
        Ok(())
    }
}

impl Iterator for ColumnPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}
