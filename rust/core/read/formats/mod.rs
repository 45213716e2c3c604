//! The table of formats. A format is one file here and one line of the table.

mod csv;
mod json_array;
mod jsonl;
mod text;
mod tsv;

use super::format::Format;

/// Every format, in the order in which messages name them. If two formats are equally likely, the
/// first is taken.
pub(super) static FORMATS: [&dyn Format; 5] =
    [&json_array::JsonArray, &jsonl::Jsonl, &tsv::Tsv, &csv::Csv, &text::Text];
