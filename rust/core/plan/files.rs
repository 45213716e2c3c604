//! `Files`: the key `files` of a source, as it was written.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// Files or glob patterns, as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Files {
    /// Files with whole records; one may be written without brackets.
    List(#[serde(deserialize_with = "one_or_many")] Vec<String>),
    /// Files of parallel text, by the field that their lines are.
    Sides(BTreeMap<String, Patterns>),
}

/// One file or pattern, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Patterns {
    /// A file or a pattern.
    One(String),
    /// A list.
    Many(Vec<String>),
}

/// Reads a file or a list of files as a list.
fn one_or_many<'de, D: Deserializer<'de>>(value: D) -> std::result::Result<Vec<String>, D::Error> {
    Ok(match Patterns::deserialize(value)? {
        Patterns::One(file) => vec![file],
        Patterns::Many(files) => files,
    })
}

impl Default for Files {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Files {
    /// Returns whether no file is named.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::List(files) => files.is_empty(),
            Self::Sides(sides) => sides.is_empty(),
        }
    }

    /// Returns the fields of parallel text in alphabetical order; one without a name for a list.
    #[must_use]
    pub(crate) fn fields(&self) -> Vec<Option<String>> {
        match self {
            Self::List(_) => vec![None],
            Self::Sides(sides) => sides.keys().cloned().map(Some).collect(),
        }
    }

    /// Returns the files and patterns of a field, or those of a list.
    #[must_use]
    pub(crate) fn patterns(&self, field: Option<&str>) -> &[String] {
        match (self, field) {
            (Self::List(files), _) => files,
            (Self::Sides(sides), Some(field)) => match sides.get(field) {
                Some(Patterns::One(file)) => std::slice::from_ref(file),
                Some(Patterns::Many(files)) => files,
                None => &[],
            },
            (Self::Sides(_), None) => &[],
        }
    }
}
