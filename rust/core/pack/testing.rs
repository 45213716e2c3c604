//! What the tests of the policies share.

use proptest::prelude::*;

use super::{Rows, Sorting};

/// Returns the items of each row.
pub(super) fn lists(rows: &Rows) -> Vec<Vec<u32>> {
    (0..rows.len() as u32).map(|row| rows.items(row).collect()).collect()
}

/// Sorting a few keys at a time, or all at once, on some threads.
pub(super) fn sortings() -> impl Strategy<Value = Sorting> {
    let keys_at_once = prop_oneof![Just(1), 2usize..9, Just(usize::MAX)];
    (keys_at_once, 1usize..4).prop_map(|(keys_at_once, threads)| Sorting { keys_at_once, threads })
}
