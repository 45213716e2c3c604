//! `[[source.document]]`: the documents that a source makes of each record. Each table becomes a
//! source of its own, which reads the same records.

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::spec::{inherit, with_loss_weight};

/// The key of the tables in a source. Afterwards it holds the name of a table.
const DOCUMENT: &str = "document";
/// The key of a table's name.
const NAME: &str = "name";

/// How many of its templates a record takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choose {
    /// One, by a seeded choice.
    #[default]
    One,
    /// All, a document each.
    All,
}

impl Choose {
    /// The words of `choose`.
    pub(crate) const WORDS: [&str; 2] = ["one", "all"];
}

/// Returns the sources that a source stands for: one for each of its document tables, with the
/// keys of the source that the table does not have; or the source that it is.
pub(super) fn sources_of(mut source: Table) -> Vec<Table> {
    let Some(Value::Array(tables)) = source.remove(DOCUMENT) else { return vec![source] };
    let tables = tables.into_iter().enumerate().filter_map(|(nth, table)| match table {
        Value::Table(table) => Some((nth, table)),
        _ => None,
    });
    let source_of = |(nth, table): (usize, Table)| {
        let mut table = with_loss_weight(table);
        let number = || Value::String((nth + 1).to_string());
        let name = table.remove(NAME).unwrap_or_else(number);
        inherit(&mut table, &source);
        table.insert(DOCUMENT.to_owned(), name);
        table
    };
    tables.map(source_of).collect()
}

/// Returns the name of a source of a document table: that of the source as it is written, and that
/// of the table.
#[must_use]
pub(crate) fn full_name(name: &str, document: Option<&str>) -> String {
    document.map_or_else(|| name.to_owned(), |document| format!("{name}/{document}"))
}
