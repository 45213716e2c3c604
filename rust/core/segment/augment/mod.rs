//! `Augmented`: makes a task from plain text, then renders it by templates.
//!
//! An augmentation, one file of this room each, adds fields to a record: the text and what it makes
//! of it. The templates of the source show them as they show any field. So the wording is the
//! source's, and what is data, prompt or target is decided in one place.

mod blanks;
mod continuation;
mod denoise;
mod diacritize;
mod draws;
mod language_id;
mod order;
mod span_fill;
mod texts;

use std::fmt;
use std::sync::Arc;

use super::jinja::collect_strings;
use super::words::{missing_field, value_at};
use super::{
    Controls, Each, Fields, Rendered, SegmentBuilder, Segmenter, Step, TokenNames, names_in,
    value_at_mut,
};
use crate::choice::{Purpose, Subject, choice};
use crate::error::{Error, Result};
use crate::plan::{Augment, Made as Task, Source, language_shown};
use crate::read::{FieldTree, Record, Slots, Value, field_path};
use crate::schema::{DropReason, Refusal};
use blanks::Blanks;
use continuation::Continuation;
use denoise::Denoise;
use diacritize::Diacritize;
use draws::Draws;
use language_id::LanguageId;
use order::Order;
use span_fill::SpanFill;
use texts::{ends_of_words, has_letter};

/// The field that every augmentation adds: the text itself, without white space around it.
const TEXT: &str = "text";

type Augmenting<T> = std::result::Result<T, Refusal>;

/// A way to make a task of a text.
trait Augmentation: fmt::Debug + Send + Sync {
    /// Returns the values of the fields that its task adds beside the text. `mark` is a character that the text does not hold, for
    /// an augmentation with blanks. Refuses a text of which no task can be made.
    fn make(&self, text: &str, mark: char, draws: &mut Draws) -> Augmenting<Vec<String>>;

    /// Returns the ends, in order, at which a text that is too long may be cut. Before each of them
    /// there is text enough for the task.
    fn cuts(&self, text: &str) -> Vec<usize> {
        ends_of_words(text)
    }

    /// Returns the blanks in its values, if it has any.
    fn blanks(&self) -> Option<&Blanks> {
        None
    }
}

/// Returns the augmentation that a source asks for. Another one is one file of this room and one
/// line here.
fn augmentation_of(augment: &Augment, source: &Source) -> Box<dyn Augmentation> {
    match &augment.made {
        Task::Diacritize { underdots } => Box::new(Diacritize::new(*underdots)),
        Task::Denoise(noise) => Box::new(Denoise::new(noise)),
        Task::Continue { min_share, max_share } => {
            Box::new(Continuation { min_share: *min_share, max_share: *max_share })
        }
        Task::SpanFill { rate, span, blank, first } => {
            Box::new(SpanFill { rate: *rate, span: *span, blanks: Blanks::new(blank, *first) })
        }
        Task::LanguageId { language } => {
            Box::new(LanguageId { language: language_shown(source, *language) })
        }
        Task::Order { min_sentences } => Box::new(Order { min_sentences: *min_sentences as usize }),
    }
}

/// A builder that makes a task of the text of each record.
#[derive(Debug)]
pub(super) struct Augmented {
    augmentation: Box<dyn Augmentation>,
    /// The names of the fields that it adds beside the text.
    made: &'static [&'static str],
    templates: Segmenter,
    /// The path of the field that holds the text.
    path: Vec<String>,
    /// The field of the text alone, if the templates show nothing but what is made of it.
    wanted: Option<Arc<FieldTree>>,
    /// The seed and the name of the source, by which choices are made.
    seed: u64,
    source: String,
}

impl Augmented {
    /// Compiles the templates of `source`, and the augmentation `augment` that it asks for. Refuses
    /// templates that show nothing of what is made.
    pub(super) fn compile(
        source: &Source,
        augment: &Augment,
        controls: &Controls,
        tokens: &TokenNames,
        seed: u64,
    ) -> Result<Self> {
        let templates = Segmenter::compile(source, controls, tokens)?;
        let augmentation = augmentation_of(augment, source);
        let names: Vec<String> =
            source.segments.iter().flat_map(|segment| names_in(segment.template())).collect();
        let made = augment.fields();
        if !names.iter().any(|name| made.contains(&name.as_str())) {
            let listed: Vec<String> = made.iter().map(|name| format!("{{{{ {name} }}}}")).collect();
            let what =
                format!("its segments show nothing that `augment` makes: {}", listed.join(", "));
            return Err(Error::config(what)
                .source(source.name.clone())
                .remedy("show it in a segment, or leave out `segments` for the usual ones"));
        }
        let path = field_path(&augment.field).unwrap_or_else(|| vec![augment.field.clone()]);
        let is_made = |name: &String| name == TEXT || made.contains(&name.as_str());
        let mut tree = FieldTree::new(None);
        let is_alone = names.iter().all(is_made) && tree.slot_of(&path).is_some();
        Ok(Self {
            templates,
            wanted: is_alone.then(|| Arc::new(tree)),
            augmentation,
            made,
            path,
            seed,
            source: source.name.clone(),
        })
    }

    /// Returns the path of the field that holds the text.
    fn steps(&self) -> Vec<Step> {
        self.path.iter().cloned().map(Step::Key).collect()
    }

    /// Returns whether a field is one that the augmentation adds.
    fn is_made(&self, path: &[Step]) -> bool {
        let Some(Step::Key(first)) = path.first() else { return false };
        first == TEXT || self.made.contains(&first.as_str())
    }

    /// Returns the text of a record with these fields, without white space around it.
    fn text_of<'a>(&self, fields: &'a Fields) -> Augmenting<&'a str> {
        let shown = self.path.join(".");
        match value_at(fields, &self.path) {
            Some(Value::String(text)) => Ok(text.trim()),
            None | Some(Value::Null) => {
                Err(Refusal::new(DropReason::MissingField, missing_field(fields, &self.path)))
            }
            Some(_) => {
                let why =
                    format!("field '{shown}' is no text, so that `augment` can make nothing of it");
                Err(Refusal::new(DropReason::Malformed, why))
            }
        }
    }

    /// Adds the text and what is made of it to `fields`, in place of fields of these names, renders
    /// them, and calls `each`.
    fn render(
        &self,
        text: &str,
        mut fields: Fields,
        rendered: &mut Rendered,
        each: &mut Each<'_>,
    ) -> Augmenting<()> {
        rendered.clear();
        if text.is_empty() {
            return Err(Refusal::new(DropReason::EmptyTarget, "the text is empty"));
        }
        if !has_letter(text) {
            return Err(refused("the text has no letter"));
        }
        let mark = self.mark(text, &fields)?;
        let subject = Subject { name: &self.source, record: rendered.record_id, copy: 0 };
        let mut draws = Draws::new(choice(self.seed, Purpose::Augment, subject));
        let values = self.augmentation.make(text, mark, &mut draws)?;
        fields.insert(TEXT.to_owned(), text.into());
        for (name, value) in self.made.iter().zip(values) {
            fields.insert((*name).to_owned(), Value::String(value));
        }
        self.templates.render(&fields, rendered)?;
        if let Some(blanks) = self.augmentation.blanks() {
            blanks.fill_in(mark, rendered)?;
        }
        rendered.origin = Some(text.to_owned());
        each(rendered)
    }

    /// Returns a character that no text of the record holds, where blanks need one.
    fn mark(&self, text: &str, fields: &Fields) -> Augmenting<char> {
        if self.augmentation.blanks().is_none() {
            return Ok('\0');
        }
        let (mut names, mut strings) = (Vec::new(), vec![text]);
        collect_strings(fields, &mut names, &mut strings);
        let mark = Controls::free(strings.into_iter()).next();
        mark.ok_or_else(|| {
            Refusal::new(DropReason::Refused, "the record holds every Unicode noncharacter")
        })
    }
}

/// Returns the refusal of a text that is no text for the task.
fn refused(why: impl Into<String>) -> Refusal {
    Refusal::new(DropReason::Filtered, format!("augment: {}", why.into()))
}

impl SegmentBuilder for Augmented {
    fn build(
        &self,
        fields: &Fields,
        rendered: &mut Rendered,
        each: &mut Each<'_>,
    ) -> Augmenting<()> {
        rendered.clear();
        let text = self.text_of(fields)?;
        self.render(text, fields.clone(), rendered, each)
    }

    fn wanted(&self) -> Option<&Arc<FieldTree>> {
        self.wanted.as_ref()
    }

    fn build_record(
        &self,
        record: &Record<'_>,
        rendered: &mut Rendered,
        each: &mut Each<'_>,
    ) -> Augmenting<()> {
        let mut slots: Slots<'_> = Default::default();
        let is_filled = self.wanted.as_ref().is_some_and(|tree| record.fill(tree, &mut slots));
        match slots[0].as_deref().filter(|_| is_filled) {
            Some(text) => self.render(text.trim(), Fields::new(), rendered, each),
            None => self.build(&record.fields()?, rendered, each),
        }
    }

    fn shown_fields(&self, fields: &Fields) -> Vec<Vec<Step>> {
        let mut shown = vec![self.steps()];
        let others = self.templates.shown_fields(fields).into_iter();
        shown.extend(others.filter(|path| !self.is_made(path) && *path != self.steps()));
        shown
    }

    fn shortenable_fields(&self, _: &Fields) -> Vec<Vec<Step>> {
        vec![self.steps()]
    }

    fn units(&self, fields: &Fields) -> Option<Vec<usize>> {
        Some(vec![self.text_of(fields).map_or(0, |text| self.augmentation.cuts(text).len())])
    }

    fn without_units(&self, fields: &Fields, counts: &[usize]) -> Option<Fields> {
        let &[count] = counts else { return None };
        let text = self.text_of(fields).ok()?;
        let cuts = self.augmentation.cuts(text);
        let end = *cuts.get(cuts.len().checked_sub(count)?)?;
        let mut shorter = fields.clone();
        *value_at_mut(&mut shorter, &self.steps())? = text[..end].into();
        Some(shorter)
    }

    fn named_fields(&self) -> Vec<Vec<Step>> {
        let others = self.templates.named_fields().into_iter();
        others.filter(|path| !self.is_made(path)).chain([self.steps()]).collect()
    }

    fn unmarked(&self) -> u64 {
        self.templates.unmarked()
    }
}
