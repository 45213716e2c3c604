//! `Problem`: what is wrong with a corpus, or may be, with its place and its remedy.

use serde::Serialize;

use crate::error::{Error, Place};

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Packing would fail.
    Error,
    /// Packing would lose records, or may not do what is meant.
    Warning,
    /// Worth knowing.
    Note,
}

/// A problem of a corpus.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Its kind, one of a fixed list of words.
    pub kind: &'static str,
    /// The source that it is about.
    pub source: Option<String>,
    /// The file that it is about.
    pub file: Option<String>,
    /// The line in that file, or the row: `line` or `row`, from 1.
    #[serde(flatten)]
    pub place: Option<Place>,
    /// The problem in words.
    pub message: String,
    /// The advice to the user.
    pub remedy: Option<String>,
}

impl Problem {
    /// Returns the problem that an error is.
    pub(super) fn of_error(kind: &'static str, error: Error) -> Self {
        Self {
            severity: Severity::Error,
            kind,
            source: error.source_name,
            file: error.file,
            place: error.place,
            message: error.message,
            remedy: error.remedy,
        }
    }

    /// Returns whether packing would fail for it.
    pub(super) fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// The most names that are listed.
const NAMED: usize = 3;

/// Returns the first few of `names`, and the number of the others.
pub(super) fn listed(names: &[String]) -> String {
    let first = names[..names.len().min(NAMED)].join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        others => format!("{first} and {others} more"),
    }
}
