//! `Blanks`: numbered blanks in what is made of a text. They are text of the template, so that one
//! that the tokenizer has as a control token becomes that token, which text of the data never does.
//!
//! While templates are rendered, a blank is its number between two marks. Afterwards the text of
//! the blank takes its place.

use regex::Regex;

use super::super::{Rendered, Span};
use super::Augmenting;
use crate::plan::NUMBER;
use crate::schema::{DropReason, Refusal, Role};

/// The text of blanks.
#[derive(Debug, Clone)]
pub(super) struct Blanks {
    /// The text before the number, and that after it.
    parts: (String, String),
    /// The number of the first blank.
    first: u64,
    /// A blank of any number.
    any: Regex,
}

impl Blanks {
    /// Returns the blanks that `written` describes.
    pub(super) fn new(written: &str, first: u64) -> Self {
        let (before, after) = written.split_once(NUMBER).unwrap_or((written, ""));
        let any = format!("{}(0|[1-9][0-9]*){}", regex::escape(before), regex::escape(after));
        let any = Regex::new(&any).expect("escaped text is a pattern");
        Self { parts: (before.to_owned(), after.to_owned()), first, any }
    }

    /// Returns the first of `count` blanks that a text spells itself.
    pub(super) fn spelled_in<'t>(&self, text: &'t str, count: usize) -> Option<&'t str> {
        let ours = self.first..self.first + count as u64;
        let mut blanks = self.any.captures_iter(text);
        let is_ours = |number: &str| number.parse().is_ok_and(|number| ours.contains(&number));
        blanks.find(|blank| is_ours(&blank[1])).and_then(|blank| Some(blank.get(0)?.as_str()))
    }

    /// Returns the text of blank `nth`, from 0.
    pub(super) fn text(&self, nth: usize) -> String {
        let (before, after) = &self.parts;
        format!("{before}{}{after}", self.first + nth as u64)
    }

    /// Returns blank `nth` as templates are given it.
    pub(super) fn marked(nth: usize, mark: char) -> String {
        format!("{mark}{nth}{mark}")
    }

    /// Puts the text of blanks in the place of marked ones.
    pub(super) fn fill_in(&self, mark: char, rendered: &mut Rendered) -> Augmenting<()> {
        if !rendered.text.contains(mark) {
            return Ok(());
        }
        let mut out = Rendered::default();
        let mut start = 0;
        for &Span { end, role, literal } in &rendered.spans {
            self.fill_span(&rendered.text[start..end], (role, literal), mark, &mut out)?;
            start = end;
        }
        (rendered.text, rendered.spans, rendered.parted) = (out.text, out.spans, out.parted);
        Ok(())
    }

    /// Appends a span with the text of its blanks.
    fn fill_span(
        &self,
        text: &str,
        (role, literal): (Role, bool),
        mark: char,
        out: &mut Rendered,
    ) -> Augmenting<()> {
        let of_template = if role == Role::Data { Role::Template } else { role };
        // Every other piece is a number.
        for (index, piece) in text.split(mark).enumerate() {
            if index % 2 == 0 {
                out.push(piece, role, literal);
                continue;
            }
            let nth = piece.parse().map_err(|_| torn())?;
            out.push(&self.text(nth), of_template, true);
        }
        // A number without its second mark is the last piece.
        if text.matches(mark).count().is_multiple_of(2) { Ok(()) } else { Err(torn()) }
    }
}

/// Returns the refusal of a record whose template cuts a blank in two.
fn torn() -> Refusal {
    Refusal::new(
        DropReason::TemplateError,
        "the template changes a blank: show `blanked` and `fills` as they are",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use Role::{Data, Target, Template};

    const MARK: char = '\u{fdd0}';

    fn rendered(spans: &[(&str, Role, bool)]) -> Rendered {
        let mut out = Rendered::default();
        for (text, role, literal) in spans {
            out.push(text, *role, *literal);
        }
        out
    }

    #[test]
    fn a_blank_is_text_of_the_template() {
        let blanks = Blanks::new("<x{n}>", 1);
        let blank = Blanks::marked(1, MARK);
        let (given, wanted) = (format!("a {blank} b"), format!("{blank} c"));
        let mut found =
            rendered(&[("<f> ", Template, true), (&given, Data, false), (&wanted, Target, false)]);
        blanks.fill_in(MARK, &mut found).unwrap();
        let expected = rendered(&[
            ("<f> ", Template, true),
            ("a ", Data, false),
            ("<x2>", Template, true),
            (" b", Data, false),
            ("<x2>", Target, true),
            (" c", Target, false),
        ]);
        assert_eq!(found, expected);
    }

    #[test]
    fn a_torn_blank_is_refused() {
        for text in [format!("a {MARK}1"), format!("{MARK}x{MARK}"), format!("1{MARK}")] {
            let mut found = rendered(&[(&text, Data, false)]);
            let refusal = Blanks::new("_{n}", 0).fill_in(MARK, &mut found).unwrap_err();
            assert_eq!(refusal.reason, DropReason::TemplateError);
        }
    }
}
