//! `SegmentBuilder`: a way from a record to the texts of its documents.

use std::fmt;

use super::{Fields, Rendered, Segmenter, Step};
use crate::schema::Refusal;

/// A way from a record to the texts of its documents. Each way is one file of this room.
pub trait SegmentBuilder: fmt::Debug + Send + Sync {
    /// Renders a record. Calls `each` with the text of every document that it makes, in order; a
    /// record that makes none is refused, with the reason.
    fn build(
        &self,
        fields: &Fields,
        rendered: &mut Rendered,
        each: &mut dyn FnMut(&Rendered) -> Result<(), Refusal>,
    ) -> Result<(), Refusal>;

    /// Returns the paths of the fields that may be shortened, in order of first use.
    fn shortenable_fields(&self, fields: &Fields) -> Vec<Vec<Step>>;

    /// Returns how many records were rendered whose template text is not known apart from data.
    fn unmarked(&self) -> u64;
}

impl SegmentBuilder for Segmenter {
    fn build(
        &self,
        fields: &Fields,
        rendered: &mut Rendered,
        each: &mut dyn FnMut(&Rendered) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        self.render(fields, rendered)?;
        each(rendered)
    }

    fn shortenable_fields(&self, fields: &Fields) -> Vec<Vec<Step>> {
        self.shortenable_fields(fields)
    }

    fn unmarked(&self) -> u64 {
        self.unmarked()
    }
}
