//! What the formats of columns share: batches of rows read as records, values of Arrow's types, and
//! the parts of Parquet that must not trust what a file claims.

mod inflate;
mod messages;
mod pages;
mod places;
mod rows;
mod texts;
mod thrift;
mod values;

pub(super) use messages::{CONTINUATION, Found, MAGIC, Messages};
pub(super) use pages::{Budget, Chunks, StoredBytes};
pub(super) use places::row_places;
pub(super) use rows::{Batch, Batches, Column, RowReader};
pub(super) use thrift::fields_of;
pub(super) use values::{leaves_of, refusal};

/// Returns the words of a library about a file, in one line of a bounded length.
pub(super) fn shortened(why: &str) -> String {
    why.chars().take(200).map(|char| if char.is_control() { ' ' } else { char }).collect()
}

/// The most bytes that are decoded at once: a page, a record batch, or the pages of one batch.
pub(super) const MAX_DECODED: u64 = 1 << 30;
/// The largest description of a file or of one of its batches.
pub(super) const MAX_METADATA: u64 = 64 << 20;
