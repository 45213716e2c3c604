//! `DocId`: identifies a document of a corpus.
//!
//! The columns `record_ids` and `doc_parts` hold it in two packed words. They are packed and
//! unpacked here and nowhere else (in Python: `sabiprep/doc_id.py`).

/// Bits of a record id below the index of its input.
pub(crate) const OFFSET_BITS: u32 = 40;
/// The most copies of one record: a copy's number fits the top byte of `doc_parts`.
pub(crate) const MAX_COPIES: u32 = 255;
/// The most documents that one record may make.
pub(crate) const MAX_PARTS: u32 = 256;
/// The most windows of one document.
pub(crate) const MAX_WINDOWS: u32 = 1 << 16;

const COPY_SHIFT: u32 = 24;
const PART_SHIFT: u32 = 16;

/// A document of a corpus. Ordered by source, record, copy, part and window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocId {
    /// The index of its source.
    pub source: u16,
    /// The id of its record within its source.
    pub record: u64,
    /// The index of its copy, below [`MAX_COPIES`].
    pub copy: u32,
    /// The index among the documents of its record, below [`MAX_PARTS`].
    pub part: u32,
    /// The index of its window, below [`MAX_WINDOWS`].
    pub window: u32,
}

impl DocId {
    /// Packs copy, part and window into the word of `doc_parts`:
    /// `copy << 24 | part << 16 | window`.
    #[must_use]
    pub(crate) fn doc_parts(self) -> u32 {
        let Self { copy, part, window, .. } = self;
        debug_assert!(copy < MAX_COPIES && part < MAX_PARTS && window < MAX_WINDOWS);
        copy << COPY_SHIFT | part << PART_SHIFT | window
    }

    /// Unpacks the words of a row's document.
    #[must_use]
    pub(crate) fn of_row(source: u16, record: u64, doc_parts: u32) -> Self {
        Self {
            source,
            record,
            copy: doc_parts >> COPY_SHIFT,
            part: doc_parts >> PART_SHIFT & (MAX_PARTS - 1),
            window: doc_parts & (MAX_WINDOWS - 1),
        }
    }

    /// Returns the id of the whole document, whose first window it shares.
    #[must_use]
    pub(crate) fn whole(self) -> Self {
        Self { window: 0, ..self }
    }

    /// Returns whether both belong to one record.
    #[must_use]
    pub(crate) fn is_of_record_of(self, other: Self) -> bool {
        (self.source, self.record) == (other.source, other.record)
    }
}

/// A record of a source: the index of its input within the source, and its start in that input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RecordId {
    /// The index of its input within its source.
    pub nth_input: usize,
    /// The byte of the decompressed input at which it starts, or the number of its row.
    pub offset: u64,
}

impl RecordId {
    /// Packs both into the word of `record_ids`: `input << 40 | offset`.
    #[must_use]
    pub(crate) fn pack(self) -> u64 {
        debug_assert!(self.offset >> OFFSET_BITS == 0);
        (self.nth_input as u64) << OFFSET_BITS | self.offset
    }

    /// Unpacks a word of `record_ids`.
    #[must_use]
    pub(crate) fn unpack(id: u64) -> Self {
        Self { nth_input: (id >> OFFSET_BITS) as usize, offset: id & ((1 << OFFSET_BITS) - 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn words_unpack_to_what_was_packed(
            source in 0..u16::MAX,
            nth_input in 0..1_usize << 24,
            offset in 0..1_u64 << OFFSET_BITS,
            copy in 0..MAX_COPIES,
            part in 0..MAX_PARTS,
            window in 0..MAX_WINDOWS,
        ) {
            let record = RecordId { nth_input, offset };
            prop_assert_eq!(RecordId::unpack(record.pack()), record);
            let id = DocId { source, record: record.pack(), copy, part, window };
            prop_assert_eq!(DocId::of_row(source, record.pack(), id.doc_parts()), id);
            // The contract, spelled without the code above.
            let [copy, part, window] = [copy, part, window].map(u64::from);
            let word = copy * (1 << 24) + part * (1 << 16) + window;
            prop_assert_eq!(u64::from(id.doc_parts()), word);
        }
    }
}
