//! The table of formats. A format is one file here and one line of the table.

mod arrow;
mod conll;
mod conll_start;
mod csv;
mod json_array;
mod jsonl;
mod nested;
mod nested_file;
mod parallel;
mod parquet;
mod spans;
mod text;
mod text_unit;
mod tsv;

use super::format::Format;
pub(super) use nested::{Step, steps_of};

/// Every format, in the order in which messages name them. If two formats are equally likely, the
/// first is taken.
pub(super) static FORMATS: [&dyn Format; 9] = [
    &json_array::JsonArray,
    &jsonl::Jsonl,
    &tsv::Tsv,
    &csv::Csv,
    &conll::Conll,
    &text::Text,
    &parallel::Parallel,
    &parquet::Parquet,
    &arrow::Arrow,
];
