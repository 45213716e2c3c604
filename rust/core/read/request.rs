//! `Request`: a file whose records are to be read, and how.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::format::FormatOptions;
use super::needed::Needed;
use super::slots::FieldTree;
use crate::context::Context;

/// A file whose records are to be read.
#[derive(Clone)]
pub(crate) struct Request<'a> {
    pub(crate) path: &'a Path,
    /// The offsets of the records: the bytes in which they begin, or the numbers of their rows.
    pub(crate) range: Range<u64>,
    pub(crate) options: &'a FormatOptions,
    /// The fields that templates show; `None` if every record is read by way of all its fields.
    pub(crate) wanted: Option<&'a Arc<FieldTree>>,
    /// The fields that a record read by way of all its fields must have in full.
    pub(crate) needed: &'a Needed,
    /// The files of parallel text, the one at `path` first; none for other formats.
    pub(crate) sides: &'a [SideFile<'a>],
    pub(crate) context: &'a Context<'a>,
}

impl<'a> Request<'a> {
    /// Returns the request for all records of a file, by way of all their fields.
    pub(crate) fn all(
        path: &'a Path,
        options: &'a FormatOptions,
        context: &'a Context<'a>,
    ) -> Self {
        let (range, needed) = (0..u64::MAX, Needed::all());
        Self { path, range, options, wanted: None, needed, sides: &[], context }
    }
}

/// A file of parallel text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SideFile<'a> {
    /// The field that its lines are.
    pub(crate) field: &'a str,
    pub(crate) path: &'a Path,
    /// Its name in errors.
    pub(crate) name: &'a str,
}
