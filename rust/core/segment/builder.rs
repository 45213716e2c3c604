//! `SegmentBuilder`: a way from a record to the texts of its documents.

use std::fmt;
use std::sync::Arc;

use super::alternatives::Alternatives;
use super::augment::Augmented;
use super::chat::{Chat, find_chat_template};
use super::clean::{Cleaned, Editor};
use super::conditional::Conditional;
use super::exploded::Exploded;
use super::filter::find_identifier;
use super::spans::Spans;
use super::tagged::Tagged;
use super::weights::Weighted;
use super::{Controls, Fields, Rendered, Segmenter, Step, TokenNames, string_leaves_of};
use crate::error::Result;
use crate::plan::{Source, TokenizerChats};
use crate::read::{FieldTree, Needed, Record};
use crate::schema::Refusal;

/// A function that receives the text of each document, and may refuse the whole record.
pub(crate) type Each<'a> = dyn FnMut(&Rendered) -> std::result::Result<(), Refusal> + 'a;

/// A way from a record to the texts of its documents. Each way is one file of this room.
pub trait SegmentBuilder: fmt::Debug + Send + Sync {
    /// Returns the builder that this one lies over, whose answers it gives where it has none of its
    /// own.
    fn inner(&self) -> Option<&dyn SegmentBuilder> {
        None
    }

    /// Renders the record with these `fields`. Calls `each` with the text of every document of the
    /// record, in order. Refuses a record that makes no document.
    fn build(
        &self,
        fields: &Fields,
        rendered: &mut Rendered,
        each: &mut Each<'_>,
    ) -> std::result::Result<(), Refusal>;

    /// Refuses a rendered document, whole rather than shortened, that its source filters out.
    fn refuse(&self, _rendered: &Rendered) -> std::result::Result<(), Refusal> {
        Ok(())
    }

    /// Returns the fields that the builder shows, for readers that can read these fields alone. The
    /// record is then rendered by [`Self::build_record`].
    fn wanted(&self) -> Option<&Arc<FieldTree>> {
        None
    }

    /// Returns the fields that the texts of documents may depend on: all of them, unless the builder
    /// knows better. Of others, [`Self::build`] is given the first values at least.
    fn needed(&self) -> &Needed {
        self.inner().map_or(Needed::all(), SegmentBuilder::needed)
    }

    /// Renders a record that was opened for the wanted fields, as [`Self::build`] does.
    fn build_record(
        &self,
        record: &Record<'_>,
        rendered: &mut Rendered,
        each: &mut Each<'_>,
    ) -> std::result::Result<(), Refusal> {
        self.build(&record.fields()?, rendered, each)
    }

    /// Renders a record that was opened for the wanted fields, as [`Self::build`] does, its shown
    /// texts changed by `editor` first.
    fn build_edited(
        &self,
        record: &Record<'_>,
        editor: &mut Editor<'_>,
        rendered: &mut Rendered,
        each: &mut Each<'_>,
    ) -> std::result::Result<(), Refusal> {
        let mut fields = record.fields()?;
        self.edit_fields(&mut fields, editor);
        self.build(&fields, rendered, each)
    }

    /// Changes the texts that documents show by `editor`.
    fn edit_fields(&self, fields: &mut Fields, editor: &mut Editor<'_>) {
        if let Some(inner) = self.inner() {
            return inner.edit_fields(fields, editor);
        }
        let shown = self.shown_fields(fields);
        editor.edit_fields(fields, &shown);
    }

    /// Returns the paths of the fields that the texts of documents may show, in order of first use:
    /// all texts of the record, unless the builder knows better.
    fn shown_fields(&self, fields: &Fields) -> Vec<Vec<Step>> {
        self.inner().map_or_else(|| string_leaves_of(fields), |inner| inner.shown_fields(fields))
    }

    /// Returns the paths of the fields that may be shortened, in order of first use.
    fn shortenable_fields(&self, fields: &Fields) -> Vec<Vec<Step>> {
        self.inner().map_or_else(Vec::new, |inner| inner.shortenable_fields(fields))
    }

    /// Returns how many units may be left out of each element of the list of a record, or of the
    /// record: the oldest exchanges of a conversation, the last words of a prompt in which tags
    /// stand, or the last words or sentences of a text of which a task is made. `None` for records
    /// whose fields are shortened.
    fn units(&self, fields: &Fields) -> Option<Vec<usize>> {
        self.inner()?.units(fields)
    }

    /// Returns the fields without so many units of each element.
    fn without_units(&self, fields: &Fields, counts: &[usize]) -> Option<Fields> {
        self.inner()?.without_units(fields, counts)
    }

    /// Returns the paths of the fields that every record must have, as far as they are known without
    /// a record.
    fn named_fields(&self) -> Vec<Vec<Step>> {
        self.inner().map_or_else(Vec::new, SegmentBuilder::named_fields)
    }

    /// Returns the number of rendered records whose template text could not be told from data.
    fn unmarked(&self) -> u64 {
        self.inner().map_or(0, SegmentBuilder::unmarked)
    }
}

/// Finds what a source names and does not hold: its chat template, the identifier of languages. Must
/// be done before [`builder_of`].
pub(crate) fn find_named(
    source: &mut Source,
    chats: &TokenizerChats,
    names: &TokenNames,
) -> Result<()> {
    find_chat_template(source, chats, names)?;
    find_identifier(source)
}

/// Returns the builder that a source asks for. Another way is one file of this room and one line
/// here. Weights, conditions, lists, cleaning and filtering lie over any of them. `seed` is that of
/// seeded choices.
pub(crate) fn builder_of(
    source: &Source,
    controls: &Controls,
    tokens: &TokenNames,
    seed: u64,
) -> Result<Box<dyn SegmentBuilder>> {
    let mut builder: Box<dyn SegmentBuilder> = match source {
        Source { chat: Some(chat), .. } => Box::new(Chat::compile(source, chat, controls, tokens)?),
        Source { tagged: Some(tagged), .. } => Box::new(Tagged::compile(source, tagged)?),
        Source { augment: Some(augment), .. } => {
            Box::new(Augmented::compile(source, augment, controls, tokens, seed)?)
        }
        Source { spans: Some(field), .. } => {
            Box::new(Spans::compile(source, field, controls, tokens)?)
        }
        Source { templates, .. } if !templates.is_empty() => {
            Box::new(Alternatives::compile(source, controls, tokens, seed)?)
        }
        _ => Box::new(Segmenter::compile(source, controls, tokens)?),
    };
    // Within the list, so that a weight and a condition can be those of the element; a record that
    // is not chosen needs no weight.
    if let Some(field) = &source.loss_weight {
        builder = Box::new(Weighted::over(builder, source, field)?);
    }
    if let Some(when) = &source.when {
        builder = Box::new(Conditional::over(builder, source, when, tokens)?);
    }
    if let Some(each) = &source.each {
        builder = Box::new(Exploded::over(builder, source, each)?);
    }
    if source.clean.is_some() || source.filter.is_some() {
        builder = Box::new(Cleaned::over(builder, source)?);
    }
    Ok(builder)
}

/// Makes one document of a record, from templates.
impl SegmentBuilder for Segmenter {
    fn build(
        &self,
        fields: &Fields,
        rendered: &mut Rendered,
        each: &mut Each<'_>,
    ) -> std::result::Result<(), Refusal> {
        self.render(fields, rendered)?;
        each(rendered)
    }

    fn wanted(&self) -> Option<&Arc<FieldTree>> {
        self.wanted()
    }

    fn needed(&self) -> &Needed {
        &self.needed
    }

    fn build_record(
        &self,
        record: &Record<'_>,
        rendered: &mut Rendered,
        each: &mut Each<'_>,
    ) -> std::result::Result<(), Refusal> {
        self.render_record(record, rendered)?;
        each(rendered)
    }

    fn build_edited(
        &self,
        record: &Record<'_>,
        editor: &mut Editor<'_>,
        rendered: &mut Rendered,
        each: &mut Each<'_>,
    ) -> std::result::Result<(), Refusal> {
        self.render_edited(record, editor, rendered)?;
        each(rendered)
    }

    fn shown_fields(&self, fields: &Fields) -> Vec<Vec<Step>> {
        self.shown_fields(fields)
    }

    fn shortenable_fields(&self, fields: &Fields) -> Vec<Vec<Step>> {
        self.shortenable_fields(fields)
    }

    fn named_fields(&self) -> Vec<Vec<Step>> {
        self.named_fields()
    }

    fn unmarked(&self) -> u64 {
        self.unmarked()
    }
}
