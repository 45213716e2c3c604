//! `Items`: the documents that are packed, by index.

use crate::schema::DocId;

/// The documents that are packed, by index.
pub trait Items: Sync {
    /// Returns how many there are.
    fn count(&self) -> usize;

    /// Returns the tokens of an item.
    fn tokens(&self, item: u32) -> u32;

    /// Returns the place of an item in the seeded random order.
    fn order(&self, item: u32) -> u64;

    /// Returns the id of an item: no two items have the same.
    fn id(&self, item: u32) -> DocId;

    /// Returns whether two items are of different copies of one record.
    fn are_copies(&self, item: u32, other: u32) -> bool {
        let (item, other) = (self.id(item), self.id(other));
        item.is_of_record_of(other) && item.copy != other.copy
    }

    /// Returns whether any two items may be copies of one record.
    fn has_copies(&self) -> bool;
}

/// An item by itself, for tests and benchmarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// Its tokens, at least 1; at most `seq_len` unless the policy cuts.
    pub len: u32,
    /// Its place in the seeded random order.
    pub order: u64,
    /// Its id.
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
