//! Looks at the start of a file: its format, its encoding, its first records.

use super::folder::Found;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::read::{self, Encoding, Fields, FormatName, FormatOptions, Needed, Records, Request};
use crate::storage::{Bounded, Storage};

/// The records of a file that are looked at, and the bytes of its content in which they begin.
const RECORDS: usize = 200;
const CONTENT: u64 = 256 << 10;
/// The most bytes that are read of a file for that: a record may be 16 MiB long.
const READ: u64 = 20 << 20;

/// The start of a file.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) format: FormatName,
    /// The encoding, if it is not UTF-8; the class labels, if there are any.
    pub(super) options: FormatOptions,
    /// The first records, with the names of their labels.
    pub(super) records: Vec<Fields>,
    /// Whether a record could not be read.
    is_faulty: bool,
}

/// Returns what the start of a file shows; `None` if it has no record.
pub(super) fn look_at(file: &Found, storage: &dyn Storage) -> Result<Option<Looked>> {
    let as_utf8 = looked(file, None, storage);
    let is_faulty = match &as_utf8 {
        Ok(looked) => looked.as_ref().is_some_and(|looked| looked.is_faulty),
        Err(_) => true,
    };
    if is_faulty
        && let Some(encoding) = read::encoding_of(&Bounded::new(storage, READ), &file.path)
        && let Ok(Some(encoded)) = looked(file, Some(encoding), storage)
        && encoded.format.get().is_text()
        && !encoded.is_faulty
    {
        return Ok(Some(encoded));
    }
    as_utf8
}

/// Returns what the start of a file in `encoding` shows.
fn looked(
    file: &Found,
    encoding: Option<Encoding>,
    storage: &dyn Storage,
) -> Result<Option<Looked>> {
    let bounded = &Bounded::new(storage, READ);
    let size = storage.file_size(&file.path)?;
    if size == 0 {
        return Ok(None);
    }
    let mut options = FormatOptions { encoding, ..FormatOptions::default() };
    let format = read::guess(bounded, &file.path, &options)?;
    let labels = read::class_labels(bounded, format, &file.path)?;
    options.labels = (!labels.is_empty()).then_some(labels);
    let given = (format, &options);
    let parts = read::parts(given, &file.path, size, CONTENT, bounded as &dyn Storage)?;
    let range = parts.into_iter().next().map_or(0..size, |part| part.range);
    let monitor = &Monitor::default();
    let context = &Context { threads: 1, monitor, storage: bounded };
    let needed = &Needed::of([]);
    let request = Request { range, needed, ..Request::all(&file.path, &options, context) };
    let (records, is_faulty) = first_records(format, &request)?;
    Ok((!records.is_empty()).then_some(Looked { format, options, records, is_faulty }))
}

/// Returns the first records that can be read, and whether others cannot.
fn first_records(format: FormatName, request: &Request<'_>) -> Result<(Vec<Fields>, bool)> {
    let (mut records, mut refused) = (Vec::new(), None);
    let mut read = || -> Result<()> {
        let mut reader = Records::open(format, request, 0)?;
        let mut content = 0;
        while records.len() < RECORDS && content < CONTENT {
            let Some(record) = reader.advance()? else { break };
            content += record.bytes() as u64 + 1;
            match record.fields() {
                Ok(fields) => records.push(fields),
                Err(refusal) => refused = refused.take().or(Some(refusal)),
            }
        }
        Ok(())
    };
    match (read(), refused) {
        // What was read before a fault further on is enough to recognise.
        (Err(_), _) if !records.is_empty() => Ok((records, true)),
        (Err(error), _) => Err(error),
        (Ok(()), Some(refusal)) if records.is_empty() => {
            let records = if format.get().options().contains(&"records") {
                "; of one object over many lines, `records` names the list to read"
            } else {
                ""
            };
            Err(Error::input(format!("none of its first records can be read: {}", refusal.why))
                .remedy(format!(
                    "it was read as {format}, by its suffix: name it in a corpus.toml with the \
                     right `format`, or move it elsewhere{records}"
                )))
        }
        (Ok(()), refused) => Ok((records, refused.is_some())),
    }
}
