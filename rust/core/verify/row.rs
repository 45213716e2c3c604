//! Reads rows back from the record batches of a shard.

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Int32Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use crate::mask::Row;
use crate::schema::{IdType, Weight};

/// Returns the list in a row of a column.
fn values<T: ArrowPrimitiveType>(batch: &RecordBatch, column: usize, row: usize) -> Vec<T::Native> {
    batch.column(column).as_list::<i32>().value(row).as_primitive::<T>().values().to_vec()
}

/// Returns a row of a batch. The schema of the shard must have been checked.
#[must_use]
pub(crate) fn row_of(batch: &RecordBatch, row: usize, ids: IdType) -> Row {
    let stored = batch.column(0).as_fixed_size_list().value(row);
    let mask = batch.column(1).as_fixed_size_list().value(row);
    // Columns by their place in `shard_schema`.
    Row {
        ids: match ids {
            IdType::U16 => {
                let ids = stored.as_primitive::<UInt16Type>().values();
                ids.iter().map(|&id| u32::from(id)).collect()
            }
            IdType::U32 => stored.as_primitive::<UInt32Type>().values().to_vec(),
        },
        mask: mask.as_boolean().values().iter().collect(),
        seq_lengths: values::<Int32Type>(batch, 2, row),
        segment_lengths: values::<Int32Type>(batch, 3, row),
        segment_roles: values::<UInt8Type>(batch, 4, row),
        source_ids: values::<UInt16Type>(batch, 5, row),
        record_ids: values::<UInt64Type>(batch, 6, row),
        doc_parts: values::<UInt32Type>(batch, 7, row),
        n_targets: batch.column(8).as_primitive::<Int32Type>().value(row),
        doc_weights: if batch.num_columns() > 9 {
            let bits = |value: &f32| Weight::from_bytes(value.to_le_bytes());
            values::<Float32Type>(batch, 9, row).iter().map(bits).collect()
        } else {
            Vec::new()
        },
    }
}
