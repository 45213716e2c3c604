//! `Cleaned`: a segment builder over another one, for the sources whose texts are cleaned first or
//! whose documents are filtered afterwards.
//!
//! Only the texts that the templates show are changed. A source that asks for neither has no such
//! builder, so that its records are rendered as they always were.

mod text;
mod touched;

use std::sync::Arc;

use super::filter::Filter;
use super::{Each, Fields, Rendered, SegmentBuilder, Step, string_leaves, value_at_mut};
use crate::error::Result;
use crate::plan::Source;
use crate::read::{FieldTree, Record, Value};
use crate::schema::Refusal;
use text::Cleaner;
pub(crate) use touched::{Change, Touched};

/// A builder whose records are cleaned before they are rendered.
#[derive(Debug)]
pub(super) struct Cleaned {
    inner: Box<dyn SegmentBuilder>,
    cleaner: Option<Cleaner>,
    filter: Option<Filter>,
}

impl Cleaned {
    /// Returns `inner` with the cleaning and the filter that `source` asks for.
    pub(super) fn over(inner: Box<dyn SegmentBuilder>, source: &Source) -> Result<Self> {
        let cleaner = source.clean.as_ref().map(Cleaner::new);
        let filter = source.filter.as_ref().map(|spec| Filter::new(spec, source));
        Ok(Self { inner, cleaner, filter: filter.transpose()? })
    }
}

/// Changes the shown texts of one record, and remembers the changes.
#[derive(Debug)]
pub struct Editor<'a> {
    cleaner: &'a Cleaner,
    touched: Touched,
}

impl Editor<'_> {
    /// Forgets the changes: the record is begun again.
    pub(super) fn restart(&mut self) {
        self.touched.clear();
    }

    /// Returns a text as it is to be shown; `None` if it stays as it is.
    pub(super) fn edit(&mut self, text: &str) -> Option<String> {
        self.cleaner.clean(text, &mut self.touched)
    }

    /// Changes the texts at `paths`, and those in lists and objects there.
    pub(super) fn edit_fields(&mut self, fields: &mut Fields, paths: &[Vec<Step>]) {
        for path in paths {
            let Some(value) = value_at_mut(fields, path) else { continue };
            let mut leaves = Vec::new();
            string_leaves(value, &mut path.clone(), &mut leaves);
            for leaf in leaves {
                if let Some(Value::String(text)) = value_at_mut(fields, &leaf)
                    && let Some(new) = self.edit(text)
                {
                    *text = new;
                }
            }
        }
    }
}

impl SegmentBuilder for Cleaned {
    fn inner(&self) -> Option<&dyn SegmentBuilder> {
        Some(&*self.inner)
    }

    fn build(
        &self,
        fields: &Fields,
        rendered: &mut Rendered,
        each: &mut Each<'_>,
    ) -> std::result::Result<(), Refusal> {
        let Some(cleaner) = &self.cleaner else { return self.inner.build(fields, rendered, each) };
        let mut fields = fields.clone();
        let mut editor = Editor { cleaner, touched: Touched::default() };
        self.inner.edit_fields(&mut fields, &mut editor);
        let built = self.inner.build(&fields, rendered, each);
        rendered.touched = editor.touched;
        built
    }

    fn refuse(&self, rendered: &Rendered) -> std::result::Result<(), Refusal> {
        self.filter.as_ref().map_or(Ok(()), |filter| filter.judge(rendered))
    }

    fn wanted(&self) -> Option<&Arc<FieldTree>> {
        self.inner.wanted()
    }

    fn build_record(
        &self,
        record: &Record<'_>,
        rendered: &mut Rendered,
        each: &mut Each<'_>,
    ) -> std::result::Result<(), Refusal> {
        let Some(cleaner) = &self.cleaner else {
            return self.inner.build_record(record, rendered, each);
        };
        let mut editor = Editor { cleaner, touched: Touched::default() };
        let built = self.inner.build_edited(record, &mut editor, rendered, each);
        rendered.touched = editor.touched;
        built
    }
}
