//! `Rows`: lists of the items of each row, in four bytes for an item and eight for a row.

/// Ends the list of a row's items.
const NONE: u32 = u32::MAX;

/// Rows of indices of items, each row in the order its items were placed.
///
/// Each item points to the next item of its row, so rows of one item take little memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    /// The first item of each row.
    first: Vec<u32>,
    /// The last item of each row.
    last: Vec<u32>,
    /// The item after each item in its row, or [`NONE`].
    next: Vec<u32>,
    /// Rows that were opened although another had room, to keep copies of a record apart.
    pub kept_apart: u64,
}

impl Rows {
    /// Returns no rows, with space for `items` items.
    #[must_use]
    pub(crate) fn with_capacity(items: usize) -> Self {
        Self { next: Vec::with_capacity(items), ..Self::default() }
    }

    /// Returns a row for each of `items` items.
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

    /// Makes space for an item that ends its row.
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
