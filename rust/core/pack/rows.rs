//! `Rows`: which items share a row, in four bytes an item and eight a row.

/// Ends the list of a row's items.
const NONE: u32 = u32::MAX;

/// Rows of indices of items, each row in the order its items were placed.
///
/// Each item points to the next one of its row, so a row of one item costs no more than a place in
/// a full one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    first: Vec<u32>,
    last: Vec<u32>,
    next: Vec<u32>,
    /// Rows that were opened although another had room, to keep copies of a record apart.
    pub kept_apart: u64,
}

impl Rows {
    /// No rows yet, with space for `items` items.
    #[must_use]
    pub(crate) fn with_capacity(items: usize) -> Self {
        Self { next: Vec::with_capacity(items), ..Self::default() }
    }

    /// A row for each of `items` items.
    #[must_use]
    pub(crate) fn of_one_each(items: usize) -> Self {
        let first: Vec<u32> = (0..items as u32).collect();
        Self { last: first.clone(), first, next: vec![NONE; items], kept_apart: 0 }
    }

    /// Returns the number of rows.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.first.len()
    }

    /// Opens a row with `item` in it and returns the row.
    pub(super) fn open(&mut self, item: u32) -> u32 {
        self.add(item);
        self.first.push(item);
        self.last.push(item);
        self.first.len() as u32 - 1
    }

    /// Adds `item` to the end of `row`.
    pub(super) fn push(&mut self, row: u32, item: u32) {
        self.add(item);
        let last = std::mem::replace(&mut self.last[row as usize], item);
        self.next[last as usize] = item;
    }

    fn add(&mut self, item: u32) {
        if self.next.len() <= item as usize {
            self.next.resize(item as usize + 1, NONE);
        }
    }

    /// Returns the first item of `row`.
    #[must_use]
    pub(crate) fn first(&self, row: u32) -> u32 {
        self.first[row as usize]
    }

    /// Returns the items of `row`, in the order they were placed.
    pub(crate) fn items(&self, row: u32) -> impl Iterator<Item = u32> {
        let known = |item: u32| (item != NONE).then_some(item);
        std::iter::successors(known(self.first[row as usize]), move |&item| {
            known(self.next[item as usize])
        })
    }
}
