//! Packing: puts documents together in rows.
//!
//! Takes lengths and seeded orders; gives rows of indices. Knows nothing of tokens or files. A
//! policy is one file with a [`Packer`], and one line of [`PACKERS`]; other modules know a policy
//! as a [`Packing`] and ask it how many windows a document is split into, and whether rows may cut
//! it.

mod best_fit;
mod concat;
mod items;
mod none;
mod order;
mod packing;
mod rows;
#[cfg(test)]
mod testing;
mod windows;

pub use items::Item;
pub(crate) use items::Items;
pub use order::Sorting;
pub use packing::Packing;
pub(crate) use rows::Rows;
pub(crate) use windows::window_count;
pub use windows::windows;

use crate::error::Result;

/// A packing policy.
pub(crate) trait Packer: std::fmt::Debug + Sync {
    /// Returns the value of `pack` in `corpus.toml` that chooses the policy.
    fn name(&self) -> &'static str;

    /// Returns whether rows cut documents anywhere. If so, documents are not split into windows
    /// before they are packed, and a piece may hold no target.
    fn may_cut(&self) -> bool {
        false
    }

    /// Packs `items` into rows of `seq_len` tokens.
    fn pack(&self, items: &dyn Items, seq_len: usize, sorting: Sorting) -> Result<Packed>;
}

/// The rows that a policy makes.
#[derive(Debug)]
pub struct Packed {
    /// Rows of indices: into `pieces` if the policy cuts, else into the items.
    pub rows: Rows,
    /// The pieces of all items, if the policy cuts.
    pub pieces: Option<Vec<Piece>>,
}

/// A piece of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The index of the item.
    pub item: u32,
    /// The index of its first token in the item.
    pub start: u32,
    /// The number of its tokens.
    pub len: u32,
    /// Its index among the pieces of the item.
    pub window: u32,
}
