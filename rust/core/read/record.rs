//! `Record`: one record of a file, with its id. `Records`: the records of a range of a file.

use std::sync::Arc;

use super::format::{FormatName, Request};
use super::json::{Fields, parse_object};
use super::slots::{FieldTree, Slots};
use crate::error::{Error, Result};
use crate::schema::{DropReason, OFFSET_BITS, RecordId, Refusal};

/// A cursor over the records of a file, which its format gives.
pub(crate) trait Reader: Send {
    /// Goes to the next record. Returns `false` after the last record.
    fn advance(&mut self) -> Result<bool>;

    /// Returns the offset of the record's first byte in the decompressed content.
    fn offset(&self) -> u64;

    /// Returns the number of bytes that the record takes in its file, roughly.
    fn bytes(&self) -> usize;

    /// Fills the slots of the wanted fields with text of the record.
    ///
    /// Returns `false` for an unusual record: it is left to [`Self::fields`], which names the
    /// fault. A slot whose field is missing stays empty.
    fn fill<'a>(&'a self, slots: &mut Slots<'a>) -> bool;

    /// Returns all fields by name. Refuses a malformed record.
    fn fields(&self) -> std::result::Result<Fields, Refusal>;
}

/// A record of an input.
pub struct Record<'a> {
    /// The offset of its first byte in the decompressed input.
    pub offset: u64,
    /// The id within its source: `index of the input << 40 | offset`.
    pub id: u64,
    reader: &'a dyn Reader,
    wanted: Option<&'a Arc<FieldTree>>,
}

impl Record<'_> {
    /// Returns the number of bytes that the record takes in its file, roughly.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.reader.bytes()
    }

    /// Returns all fields by name. Refuses a malformed record.
    pub fn fields(&self) -> std::result::Result<Fields, Refusal> {
        self.reader.fields()
    }
}

impl<'a> Record<'a> {
    /// Fills the slots of `tree`. Returns `false` if the record is left to [`Self::fields`], or was
    /// not opened for `tree`.
    pub(crate) fn fill(&self, tree: &Arc<FieldTree>, slots: &mut Slots<'a>) -> bool {
        self.wanted.is_some_and(|wanted| Arc::ptr_eq(wanted, tree)) && self.reader.fill(slots)
    }
}

/// A cursor over the records of a range of a file.
pub struct Records {
    reader: Box<dyn Reader>,
    wanted: Option<Arc<FieldTree>>,
    nth_input: usize,
}

impl Records {
    /// Opens the records of `request`, whose file is the input `nth_input` of its source.
    pub(crate) fn open(
        format: FormatName,
        request: &Request<'_>,
        nth_input: usize,
    ) -> Result<Self> {
        let reader = format.get().open(request)?;
        Ok(Self { reader, wanted: request.wanted.cloned(), nth_input })
    }

    /// Returns the next record.
    pub fn advance(&mut self) -> Result<Option<Record<'_>>> {
        if !self.reader.advance()? {
            return Ok(None);
        }
        let offset = self.reader.offset();
        if offset >> OFFSET_BITS != 0 {
            return Err(
                Error::input("more than 1 TiB of content").remedy("split it into smaller files")
            );
        }
        Ok(Some(Record {
            offset,
            id: RecordId { nth_input: self.nth_input, offset }.pack(),
            reader: &*self.reader,
            wanted: self.wanted.as_ref(),
        }))
    }
}

/// Returns the refusal of a record that breaks its format.
pub(super) fn malformed(why: impl Into<String>) -> Refusal {
    Refusal::new(DropReason::Malformed, why)
}

/// Returns a line as text. Refuses a line that is not UTF-8.
pub(super) fn utf8(line: &[u8]) -> std::result::Result<&str, Refusal> {
    let not_utf8 = |error: std::str::Utf8Error| {
        malformed(format!("not UTF-8 from byte {} on", error.valid_up_to() + 1))
    };
    std::str::from_utf8(line).map_err(not_utf8)
}

/// Returns the fields of a JSON object. Refuses any other text.
pub(crate) fn parse_json(text: &[u8]) -> std::result::Result<Fields, Refusal> {
    parse_object(utf8(text)?).map_err(malformed)
}
