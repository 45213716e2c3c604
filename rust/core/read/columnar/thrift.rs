//! Reads Thrift's compact protocol as far as Parquet needs it, and trusts no length in it: a list
//! has at least a byte for each of its elements, and a text lies within its bytes.

use parquet::basic::Encoding;

/// The deepest nesting of structs and lists.
const MAX_DEPTH: usize = 32;

/// Kinds of fields that are looked into.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const STRUCT: u8 = 12;

/// A position in bytes of the compact protocol. Every method returns `None` where the bytes end too
/// early or are wrong.
struct Compact<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Compact<'_> {
    /// Returns the number of unread bytes.
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Reads a byte.
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// Moves past `len` bytes.
    fn pass(&mut self, len: u64) -> Option<()> {
        (len <= self.left() as u64).then(|| self.at += len as usize)
    }

    /// Reads an unsigned integer of variable length.
    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// Reads a signed integer of variable length.
    fn signed(&mut self) -> Option<i64> {
        let value = self.unsigned()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Reads the number of a field and its kind, after field `last`; kind 0 ends the struct.
    fn field(&mut self, last: &mut i16) -> Option<(i16, u8)> {
        let byte = self.byte()?;
        let (delta, kind) = (byte >> 4, byte & 0xf);
        if kind != 0 {
            *last = if delta == 0 {
                i16::try_from(self.signed()?).ok()?
            } else {
                last.checked_add(i16::from(delta))?
            };
        }
        Some((*last, kind))
    }

    /// Moves past a value of `kind`. `in_list` tells whether it is an element of a list, where a
    /// boolean has a byte.
    fn skip(&mut self, kind: u8, in_list: bool, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match kind {
            TRUE | FALSE => self.pass(u64::from(in_list)),
            3 => self.pass(1),
            4..=6 => self.unsigned().map(|_| ()),
            7 => self.pass(8),
            8 => {
                let len = self.unsigned()?;
                self.pass(len)
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.unsigned()? } else { u64::from(head >> 4) };
                self.elements(count, &[head & 0xf], depth)
            }
            11 => {
                let count = self.unsigned()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                self.elements(count, &[kinds >> 4, kinds & 0xf], depth)
            }
            STRUCT => {
                let mut last = 0;
                loop {
                    match self.field(&mut last)? {
                        (_, 0) => return Some(()),
                        (_, kind) => self.skip(kind, false, depth + 1)?,
                    }
                }
            }
            13 => self.pass(16),
            _ => None,
        }
    }

    /// Moves past `count` elements, each of which has a value of each of `kinds`.
    fn elements(&mut self, count: u64, kinds: &[u8], depth: usize) -> Option<()> {
        if count > self.left() as u64 {
            return None;
        }
        for _ in 0..count {
            for kind in kinds {
                self.skip(*kind, true, depth + 1)?;
            }
        }
        Some(())
    }

    /// Reads a struct; `on` reads the value of a field, or returns `Some(false)` to pass over it.
    fn fields(&mut self, mut on: impl FnMut(&mut Self, i16, u8) -> Option<bool>) -> Option<()> {
        let mut last = 0;
        loop {
            let (number, kind) = self.field(&mut last)?;
            if kind == 0 {
                return Some(());
            }
            if !on(self, number, kind)? {
                self.skip(kind, false, 0)?;
            }
        }
    }
}

/// Returns the numbers of the fields of a struct that fills `bytes`; `None` if any length in it is
/// wrong.
pub(in crate::read) fn fields_of(bytes: &[u8]) -> Option<Vec<i16>> {
    let mut numbers = Vec::new();
    let mut compact = Compact { bytes, at: 0 };
    compact.fields(|_, number, _| {
        numbers.push(number);
        Some(false)
    })?;
    Some(numbers)
}

/// The header of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct PageHeader {
    /// The kind: 0 data, 1 index, 2 dictionary, 3 data of the second version.
    pub(super) kind: i64,
    pub(super) uncompressed: u64,
    pub(super) compressed: u64,
    pub(super) values: u32,
    pub(super) encoding: Option<Encoding>,
    pub(super) definition_encoding: Option<Encoding>,
    pub(super) repetition_encoding: Option<Encoding>,
    /// The second version's own.
    pub(super) nulls: u32,
    pub(super) rows: u32,
    pub(super) definition_bytes: u32,
    pub(super) repetition_bytes: u32,
    pub(super) is_plain: bool,
}

impl PageHeader {
    /// Reads a header at the start of `bytes`. Returns it with its length.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut compact = Compact { bytes, at: 0 };
        let mut header = Self { kind: -1, ..Self::default() };
        compact.fields(|compact, number, kind| {
            match number {
                1 => header.kind = compact.signed()?,
                2 => header.uncompressed = u64::try_from(compact.signed()?).ok()?,
                3 => header.compressed = u64::try_from(compact.signed()?).ok()?,
                5 | 7 | 8 if kind == STRUCT => compact
                    .fields(|compact, field, kind| header.field(compact, number, field, kind))?,
                _ => return Some(false),
            }
            Some(true)
        })?;
        Some((header, compact.at))
    }

    /// Reads `field` of the part `part` of the header.
    fn field(
        &mut self,
        compact: &mut Compact<'_>,
        part: i16,
        field: i16,
        kind: u8,
    ) -> Option<bool> {
        match (part, field) {
            (_, 1) => self.values = number(compact)?,
            (5 | 7, 2) | (8, 4) => self.encoding = encoding(compact)?,
            (5, 3) => self.definition_encoding = encoding(compact)?,
            (5, 4) => self.repetition_encoding = encoding(compact)?,
            (8, 2) => self.nulls = number(compact)?,
            (8, 3) => self.rows = number(compact)?,
            (8, 5) => self.definition_bytes = number(compact)?,
            (8, 6) => self.repetition_bytes = number(compact)?,
            (8, 7) => self.is_plain = kind == FALSE,
            _ => return Some(false),
        }
        Some(true)
    }
}

/// Reads a count.
fn number(compact: &mut Compact<'_>) -> Option<u32> {
    u32::try_from(compact.signed()?).ok()
}

/// Reads an encoding; the inner `None` is one that nobody reads.
#[expect(clippy::option_option, reason = "wrong bytes are told from an unknown encoding")]
fn encoding(compact: &mut Compact<'_>) -> Option<Option<Encoding>> {
    #[expect(deprecated, reason = "old files have it")]
    Some(Some(match compact.signed()? {
        0 => Encoding::PLAIN,
        2 => Encoding::PLAIN_DICTIONARY,
        3 => Encoding::RLE,
        4 => Encoding::BIT_PACKED,
        5 => Encoding::DELTA_BINARY_PACKED,
        6 => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        7 => Encoding::DELTA_BYTE_ARRAY,
        8 => Encoding::RLE_DICTIONARY,
        9 => Encoding::BYTE_STREAM_SPLIT,
        _ => return Some(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_or_a_text_longer_than_its_bytes_is_refused() {
        // Field 1, a list of 2^28 structs; field 1, a text of 2^35 bytes.
        let list = [0x19, 0xfc, 0x80, 0x80, 0x80, 0x80, 0x01, 0x00];
        let text = [0x18, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0x00];
        assert_eq!(fields_of(&list), None);
        assert_eq!(fields_of(&text), None);
        assert_eq!(fields_of(&[0x15, 0x02, 0x18, 0x01, b'a', 0x00]), Some(vec![1, 2]));
        let deep = [0x1c; 100];
        assert_eq!(fields_of(&deep), None);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = fields_of(&bytes);
            if let Some((_, len)) = PageHeader::read(&bytes) {
                prop_assert!(len <= bytes.len());
            }
        }
    }
}
