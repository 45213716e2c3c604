//! No packing: gives each document a row of its own.

use super::{Items, Packed, Packer, Rows, Sorting};
use crate::error::Result;

/// The policy that gives each document a row of its own.
#[derive(Debug)]
pub(super) struct NoPacking;

impl Packer for NoPacking {
    fn name(&self) -> &'static str {
        "none"
    }

    fn pack(&self, items: &dyn Items, _seq_len: usize, _sorting: Sorting) -> Result<Packed> {
        Ok(Packed { rows: Rows::of_one_each(items.count()), pieces: None })
    }
}
