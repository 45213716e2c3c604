//! Rows as they are stored, read back from record batches.

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Int32Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use crate::mask::Row;
use crate::schema::IdType;

fn values<T: ArrowPrimitiveType>(batch: &RecordBatch, column: usize, at: usize) -> Vec<T::Native> {
    batch.column(column).as_list::<i32>().value(at).as_primitive::<T>().values().to_vec()
}

/// Row `at` of a batch of a shard that was verified.
#[must_use]
pub(crate) fn row_of(batch: &RecordBatch, at: usize, ids: IdType) -> Row {
    let stored = batch.column(0).as_fixed_size_list().value(at);
    let mask = batch.column(1).as_fixed_size_list().value(at);
    Row {
        ids: match ids {
            IdType::U16 => stored
                .as_primitive::<UInt16Type>()
                .values()
                .iter()
                .map(|&id| u32::from(id))
                .collect(),
            IdType::U32 => stored.as_primitive::<UInt32Type>().values().to_vec(),
        },
        mask: mask.as_boolean().values().iter().collect(),
        seq_lengths: values::<Int32Type>(batch, 2, at),
        segment_lengths: values::<Int32Type>(batch, 3, at),
        segment_roles: values::<UInt8Type>(batch, 4, at),
        source_ids: values::<UInt16Type>(batch, 5, at),
        record_ids: values::<UInt64Type>(batch, 6, at),
        doc_parts: values::<UInt32Type>(batch, 7, at),
        n_targets: batch.column(8).as_primitive::<Int32Type>().value(at),
    }
}
