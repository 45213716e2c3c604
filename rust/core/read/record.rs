//! `Record`: one record of a file, with its id. `Records`: the records of a range of a file.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::class_labels::with_names;
use super::encoding::{Encoding, not_text};
use super::format::FormatName;
use super::json::{Fields, parse_needed};
use super::literals::with_literals;
use super::needed::Needed;
use super::request::Request;
use super::slots::{FieldTree, Slots};
use super::view::{Field, View};
use crate::error::{Error, Result};
use crate::schema::{DropReason, OFFSET_BITS, RecordId, Refusal};

/// A cursor over the records of a file, which its format gives.
pub(crate) trait Reader: Send {
    /// Goes to the next record. Returns `false` after the last record.
    fn advance(&mut self) -> Result<bool>;

    /// Returns the offset of the record's first byte in the decompressed content, or the number of
    /// its row, from 0.
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

    /// Returns whether the record looks as if its quotes were read the wrong way.
    fn is_doubtful(&self) -> bool {
        false
    }

    /// Returns the record as [`Self::fill`] and [`Self::fields`] read it, to be read by another
    /// thread while this one goes on. A reader whose records are cheap to copy copies their bytes,
    /// so that the other thread parses them.
    fn detach(&self) -> Box<dyn Detached> {
        Box::new(self.fields())
    }
}

/// A record apart from its file.
pub(crate) trait Detached: Send {
    /// Returns the bytes of its texts in memory, roughly: a value that its file holds once, as in a
    /// dictionary, counts wherever it is.
    fn memory(&self) -> usize;

    /// Fills slots as [`Reader::fill`] does.
    fn fill<'a>(&'a self, slots: &mut Slots<'a>) -> bool;

    /// Returns all fields by name. Refuses a malformed record.
    fn fields(&self) -> std::result::Result<Fields, Refusal>;
}

/// A record whose fields are read already.
impl Detached for std::result::Result<Fields, Refusal> {
    fn memory(&self) -> usize {
        let fields = self.iter().flatten();
        fields.map(|(name, value)| name.len() + value.memory()).sum()
    }

    fn fill<'a>(&'a self, _: &mut Slots<'a>) -> bool {
        false
    }

    fn fields(&self) -> std::result::Result<Fields, Refusal> {
        self.clone()
    }
}

/// A record of an input.
pub struct Record<'a> {
    /// The offset of its first byte in the decompressed input, or the number of its row.
    pub offset: u64,
    /// The id within its source: `index of the input << 40 | offset`.
    pub id: u64,
    /// The number of bytes that it takes in its file, roughly, with those of the records before it
    /// that its source does not read.
    bytes: usize,
    is_doubtful: bool,
    content: Content<'a>,
    view: &'a Arc<View>,
    wanted: Option<&'a Arc<FieldTree>>,
}

/// The place of a record's content.
enum Content<'a> {
    Reader(&'a dyn Reader),
    Detached(&'a dyn Detached),
}

impl Record<'_> {
    /// Returns the number of bytes that the record takes in its file, roughly, with those of the
    /// records before it that its source does not read.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns whether the record looks as if its quotes were read the wrong way: as text where
    /// they are around fields, or around fields where they are text.
    #[must_use]
    pub(crate) fn is_doubtful(&self) -> bool {
        self.is_doubtful
    }

    /// Returns all fields by name. Refuses a malformed record.
    pub fn fields(&self) -> std::result::Result<Fields, Refusal> {
        match self.content {
            Content::Reader(reader) => self.view.fields(reader.fields()),
            Content::Detached(record) => self.view.fields(record.fields()),
        }
    }

    /// Removes the fields that the record has, before they are renamed, from those that options name.
    pub(crate) fn meet(&self, named: &mut BTreeSet<(&'static str, String)>) {
        if named.is_empty() {
            return;
        }
        let fields = match self.content {
            Content::Reader(reader) => reader.fields(),
            Content::Detached(record) => record.fields(),
        };
        if let Ok(fields) = fields {
            named.retain(|(_, name)| !fields.contains_key(name));
        }
    }

    /// Returns the record apart from its file, so that another thread can read it.
    pub(crate) fn detach(&self) -> DetachedRecord {
        let content = match self.content {
            Content::Reader(reader) => reader.detach(),
            Content::Detached(record) => Box::new(record.fields()),
        };
        let Self { offset, id, bytes, is_doubtful, .. } = *self;
        let (wanted, view) = (self.wanted.cloned(), Arc::clone(self.view));
        DetachedRecord { offset, id, bytes, is_doubtful, content, view, wanted }
    }
}

impl<'a> Record<'a> {
    /// Fills the slots of `tree`. Returns `false` if the record is left to [`Self::fields`], or was
    /// not opened for `tree`.
    pub(crate) fn fill(&self, tree: &Arc<FieldTree>, slots: &mut Slots<'a>) -> bool {
        self.wanted.is_some_and(|wanted| Arc::ptr_eq(wanted, tree))
            && match self.content {
                Content::Reader(reader) => reader.fill(slots),
                Content::Detached(record) => record.fill(slots),
            }
    }
}

/// A [`Record`] apart from its file.
pub(crate) struct DetachedRecord {
    offset: u64,
    id: u64,
    bytes: usize,
    is_doubtful: bool,
    content: Box<dyn Detached>,
    view: Arc<View>,
    wanted: Option<Arc<FieldTree>>,
}

impl DetachedRecord {
    /// Returns the bytes that the record takes in memory, roughly.
    pub(crate) fn memory(&self) -> usize {
        self.content.memory().max(self.bytes)
    }

    /// Returns the record.
    pub(crate) fn record(&self) -> Record<'_> {
        let Self { offset, id, bytes, is_doubtful, .. } = *self;
        let content = Content::Detached(&*self.content);
        let (view, wanted) = (&self.view, self.wanted.as_ref());
        Record { offset, id, bytes, is_doubtful, content, view, wanted }
    }
}

/// A cursor over the records of a range of a file.
pub struct Records {
    reader: Box<dyn Reader>,
    view: Arc<View>,
    /// The fields that templates show, if the reader fills their slots.
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
        let (view, tree) = View::new(request.options, request.wanted);
        let view = Arc::new(view);
        let needed = request.needed.in_files_of(request.options);
        let reader = format.get().open(&Request {
            wanted: tree.as_ref(),
            needed: &needed,
            range: request.range.clone(),
            ..*request
        })?;
        let reader = with_literals(reader, request.options.literals.as_ref(), &needed);
        let reader = with_names(reader, request.options.labels.as_ref());
        let wanted = request.wanted.filter(|_| tree.is_some()).cloned();
        Ok(Self { reader, view, wanted, nth_input })
    }

    /// Returns the next record that the source reads.
    pub fn advance(&mut self) -> Result<Option<Record<'_>>> {
        let mut passed = 0;
        loop {
            if !self.reader.advance()? {
                return Ok(None);
            }
            if self.view.takes(&*self.reader) {
                break;
            }
            passed += self.reader.bytes() + 1;
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
            bytes: passed + self.reader.bytes(),
            is_doubtful: self.reader.is_doubtful(),
            content: Content::Reader(&*self.reader),
            view: &self.view,
            wanted: self.wanted.as_ref(),
        }))
    }
}

/// Calls `each` with the text of the field at `path` in every record of `request`, until it returns
/// an error; with `None` for a record that has none.
pub(crate) fn for_each_text(
    format: FormatName,
    request: &Request<'_>,
    path: &[String],
    mut each: impl FnMut(Option<&str>) -> Result<()>,
) -> Result<()> {
    let (tree, field) = Field::within(path, None);
    let (view, tree) = View::new(request.options, tree.as_ref());
    let needed = Needed::of(path.first().cloned()).in_files_of(request.options);
    let reader = format.get().open(&Request {
        wanted: tree.as_ref(),
        needed: &needed,
        range: request.range.clone(),
        ..*request
    })?;
    let mut reader = with_names(reader, request.options.labels.as_ref());
    while reader.advance()? {
        field.text(&*reader, &view, &mut each)?;
    }
    Ok(())
}

/// Returns the refusal of a record that breaks its format.
pub(super) fn malformed(why: impl Into<String>) -> Refusal {
    Refusal::new(DropReason::Malformed, why)
}

/// Returns a line as text. Refuses a line that is not; `encoding` is that of its file, if it is not
/// UTF-8.
pub(super) fn utf8(line: &[u8], encoding: Option<Encoding>) -> std::result::Result<&str, Refusal> {
    std::str::from_utf8(line).map_err(|_| malformed(not_text(line, encoding, "")))
}

/// Returns the fields of a JSON object. Refuses any other text.
pub(crate) fn parse_json(text: &[u8]) -> std::result::Result<Fields, Refusal> {
    parse_element(text, None, Needed::all())
}

/// Returns the fields of a JSON object in a file of `encoding`, as far as they are needed. Refuses any
/// other text.
pub(super) fn parse_element(
    text: &[u8],
    encoding: Option<Encoding>,
    needed: &Needed,
) -> std::result::Result<Fields, Refusal> {
    parse_needed(utf8(text, encoding)?, needed).map_err(malformed)
}
