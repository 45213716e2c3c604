//! `Items`: the documents that are packed, by index.

use crate::schema::DocId;

/// The documents that are packed, by index.
pub trait Items: Sync {
    /// Returns the number of items.
    fn count(&self) -> usize;

    /// Returns the number of tokens of an item.
    fn tokens(&self, item: u32) -> u32;

    /// Returns the sort key of an item in the seeded random order.
    fn order(&self, item: u32) -> u64;

    /// Returns the id of an item, which is unique.
    fn id(&self, item: u32) -> DocId;

    /// Returns whether two items are of different copies of one record.
    fn are_copies(&self, item: u32, other: u32) -> bool {
        let (item, other) = (self.id(item), self.id(other));
        item.is_of_record_of(other) && item.copy != other.copy
    }

    /// Returns whether any two items may be copies of one record.
    fn has_copies(&self) -> bool;
}

/// An item for tests and benchmarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// The number of its tokens, at least 1; at most `seq_len` unless the policy cuts.
    pub len: u32,
    /// The sort key in the seeded random order.
    pub order: u64,
    /// The document that it is.
    pub id: DocId,
}

impl Items for Vec<Item> {
    fn count(&self) -> usize {
        self.len()
    }

    fn tokens(&self, item: u32) -> u32 {
        self[item as usize].len
    }

    fn order(&self, item: u32) -> u64 {
        self[item as usize].order
    }

    fn id(&self, item: u32) -> DocId {
        self[item as usize].id
    }

    fn has_copies(&self) -> bool {
        self.iter().any(|item| item.id.copy > 0)
    }
}
