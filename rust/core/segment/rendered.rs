//! `Rendered`: a document as text whose every byte has a role.

use super::Touched;
use crate::schema::{Refusal, Role, Weight};

/// The text of a record and, in order, the spans that cover it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The text of all segments.
    pub text: String,
    /// Contiguous from 0 to the end of the text; none is empty.
    pub spans: Vec<Span>,
    /// Whether an empty field lies at the end: it parts the template's texts around it.
    pub(super) parted: bool,
    /// The changes that cleaning made in the record, if its source is cleaned.
    pub(crate) touched: Touched,
    /// The id of the record, by which its seeded choices are made. Whoever has it sets it.
    pub(crate) record_id: u64,
    /// Whether the record lies in no file: then no template is chosen for it, and all are shown.
    pub(crate) in_no_file: bool,
    /// The text that the document is made of, if a task is made from it: duplicates, leaks and
    /// filters are judged by it.
    pub(crate) origin: Option<String>,
    /// The weight of the document in the loss, if its source has weights.
    pub(crate) weight: Option<Weight>,
    /// The part of the record, and the template, that the text is made by.
    pub(crate) way: Way,
    /// Whether the condition of its source held, each time that it was asked of the whole record.
    chosen: Vec<bool>,
    /// The number of times that it was asked of the shortened record; `None` for the whole one.
    asked: Option<usize>,
    /// The documents that were left out of the record so far, each with the reason.
    pub(crate) left_out: Vec<Refusal>,
}

/// The way to one of several documents of a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Way {
    /// The index of the element, of a list that is taken apart.
    pub(crate) element: Option<usize>,
    /// The index of the template, where there are several.
    pub(crate) template: Option<usize>,
}

/// A stretch of text of one role and one origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The byte of the text after the span.
    pub end: usize,
    /// The role: template, data or target.
    pub role: Role,
    /// Whether the template spelled it: only such text may hold control tokens.
    pub literal: bool,
}

impl Rendered {
    /// Begins the record `record_id`.
    pub(crate) fn begin(&mut self, record_id: u64) {
        self.record_id = record_id;
        self.begin_again();
        self.chosen.clear();
        self.asked = None;
    }

    /// Begins the record at hand again, shortened: its documents stay those that were chosen whole.
    pub(crate) fn begin_again(&mut self) {
        self.way = Way::default();
        self.weight = None;
        self.left_out.clear();
        self.asked = Some(0);
    }

    /// Returns whether a condition holds for the next document: of a shortened record, whether it
    /// held for the whole one.
    pub(super) fn choose(
        &mut self,
        holds: impl FnOnce() -> Result<bool, Refusal>,
    ) -> Result<bool, Refusal> {
        if let Some(asked) = &mut self.asked {
            *asked += 1;
            return Ok(self.chosen.get(*asked - 1).copied().unwrap_or(false));
        }
        // What the condition fails on is not chosen either.
        self.chosen.push(false);
        let holds = holds()?;
        if let Some(last) = self.chosen.last_mut() {
            *last = holds;
        }
        Ok(holds)
    }

    /// Removes the text and its spans.
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.spans.clear();
        self.parted = false;
        self.origin = None;
    }

    /// Appends text to the last span, or as a new span if its role or origin differs.
    pub(super) fn push(&mut self, text: &str, role: Role, literal: bool) {
        if text.is_empty() {
            self.parted |= !literal;
            return;
        }
        self.text.push_str(text);
        let end = self.text.len();
        let parted = std::mem::take(&mut self.parted);
        match self.spans.last_mut() {
            Some(last) if last.role == role && last.literal == literal && !parted => last.end = end,
            _ => self.spans.push(Span { end, role, literal }),
        }
    }

    /// Returns the runs of the text: prompts and targets by turns.
    #[must_use]
    pub(crate) fn runs(&self) -> Vec<TextRun<'_>> {
        let mut runs: Vec<TextRun<'_>> = Vec::new();
        let (mut start, mut first) = (0, 0);
        for (nth, span) in self.spans.iter().enumerate() {
            let is_target = span.role == Role::Target;
            let last =
                self.spans.get(nth + 1).is_none_or(|next| (next.role == Role::Target) != is_target);
            if last {
                runs.push(TextRun {
                    text: &self.text[start..span.end],
                    start,
                    spans: &self.spans[first..=nth],
                });
                (start, first) = (span.end, nth + 1);
            }
        }
        runs
    }

    /// Returns the text of every target run, in order.
    #[must_use]
    pub(crate) fn targets(&self) -> Vec<&str> {
        self.runs().into_iter().filter(TextRun::is_target).map(|run| run.text).collect()
    }
}

/// Adjacent text that is encoded together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TextRun<'a> {
    pub text: &'a str,
    /// The byte of the record's text at which the run starts. Ends of spans are bytes of that text
    /// too.
    pub start: usize,
    /// The spans that cover the run.
    pub spans: &'a [Span],
}

impl TextRun<'_> {
    /// Returns whether the run is a target.
    #[must_use]
    pub(crate) fn is_target(&self) -> bool {
        self.spans[0].role == Role::Target
    }
}

/// Returns whether a target's text is more than white space.
pub(super) fn is_target_text(text: &str) -> bool {
    !text.trim().is_empty()
}
