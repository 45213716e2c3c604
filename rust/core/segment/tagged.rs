//! `Tagged`: text in which the tags already stand, `<translate> … <yor>: …`.
//!
//! An open tag begins the prompt, an action tag ends it; the target follows. The boundary is found
//! from the roles that the configuration gives to tags. A text that has not exactly one of each, in
//! this order and with nothing before, is refused.

use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};

use super::{Each, Fields, Rendered, SegmentBuilder, Step, is_target_text, value_at, value_at_mut};
use crate::error::{Error, Result};
use crate::plan::{Source, TaggedSpec};
use crate::read::{Needed, Value, field_path};
use crate::schema::{DropReason, Refusal, Role};

/// The tagged texts of a source.
#[derive(Debug)]
pub(super) struct Tagged {
    /// The path of the field that holds the text.
    text: Vec<String>,
    /// Finds the tags that are declared, of several at one place the longest.
    tags: AhoCorasick,
    /// The number of open tags; the tags after them are action tags.
    open: usize,
    /// The field that holds the text.
    needed: Needed,
}

/// The places of the tags in a text.
struct Parsed {
    open: Range<usize>,
    action: Range<usize>,
}

impl Tagged {
    /// Prepares the search for the tags of a source.
    pub(super) fn compile(source: &Source, spec: &TaggedSpec) -> Result<Self> {
        let text = field_path(&spec.text).ok_or_else(|| {
            Error::config(format!("tagged: text = {:?} is no field", spec.text))
                .source(source.name.clone())
                .remedy("name the field without braces: text = \"text\" or \"data.text\"")
        })?;
        let tags = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(spec.open.iter().chain(&spec.action))
            .expect("tags are a small vocabulary");
        let needed = Needed::of(text.first().cloned());
        Ok(Self { text, tags, open: spec.open.len(), needed })
    }

    /// Returns the text of a record.
    fn text_of<'a>(&self, fields: &'a Fields) -> std::result::Result<&'a str, Refusal> {
        let name = || self.text.join(".");
        match value_at(fields, &self.text) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(Refusal::new(DropReason::Malformed, format!("`{}` is no text", name()))),
            None => {
                let why = format!("`{}` is missing or null", name());
                Err(Refusal::new(DropReason::MissingField, why))
            }
        }
    }

    /// Finds the tags of a text. Refuses a text whose tags leave the boundary open.
    fn parse(&self, text: &str) -> std::result::Result<Parsed, Refusal> {
        let refuse = |why: String| Err(Refusal::new(DropReason::UnparsedTags, why));
        let found: Vec<_> = self.tags.find_iter(text).collect();
        let is_open = |found: &aho_corasick::Match| found.pattern().as_usize() < self.open;
        let (opens, actions): (Vec<_>, Vec<_>) = found.iter().partition(|found| is_open(found));
        let shown = |found: &aho_corasick::Match| format!("`{}`", &text[found.range()]);
        let (open, action) = match (opens.as_slice(), actions.as_slice()) {
            ([], []) => return refuse("it has none of the tags".to_owned()),
            ([], [action, ..]) => return refuse(format!("{} without an open tag", shown(action))),
            ([open], []) => return refuse(format!("{} without an action tag", shown(open))),
            ([open], [action]) => (open, action),
            ([_, second, ..], _) => {
                let (count, second) = (opens.len(), shown(second));
                return refuse(format!("{count} open tags, the second is {second}"));
            }
            (_, [_, second, ..]) => {
                let (count, second) = (actions.len(), shown(second));
                return refuse(format!("{count} action tags, the second is {second}"));
            }
        };
        if action.start() < open.start() {
            return refuse(format!("{} stands before {}", shown(action), shown(open)));
        }
        if !text[..open.start()].trim().is_empty() {
            return refuse(format!("text stands before {}", shown(open)));
        }
        Ok(Parsed { open: open.range(), action: action.range() })
    }

    /// Returns the ends of the words of a record's prompt, as bytes of its text.
    fn prompt_words(&self, fields: &Fields) -> Option<(Parsed, Vec<usize>)> {
        let text = self.text_of(fields).ok()?;
        let parsed = self.parse(text).ok()?;
        let start = text.as_ptr() as usize;
        let prompt = &text[parsed.open.end..parsed.action.start];
        let ends = prompt.split_whitespace();
        let ends = ends.map(|word| word.as_ptr() as usize - start + word.len()).collect();
        Some((parsed, ends))
    }
}

impl SegmentBuilder for Tagged {
    fn build(
        &self,
        fields: &Fields,
        rendered: &mut Rendered,
        each: &mut Each<'_>,
    ) -> std::result::Result<(), Refusal> {
        let text = self.text_of(fields)?;
        rendered.clear();
        let Parsed { open, action } = self.parse(text)?;
        if !is_target_text(&text[action.end..]) {
            let why = format!("nothing follows `{}`", &text[action]);
            return Err(Refusal::new(DropReason::EmptyTarget, why));
        }
        rendered.push(&text[..open.start], Role::Data, false);
        rendered.push(&text[open.clone()], Role::Template, true);
        rendered.push(&text[open.end..action.start], Role::Data, false);
        rendered.push(&text[action.clone()], Role::Template, true);
        rendered.push(&text[action.end..], Role::Target, false);
        each(rendered)
    }

    fn needed(&self) -> &Needed {
        &self.needed
    }

    fn shown_fields(&self, _: &Fields) -> Vec<Vec<Step>> {
        self.named_fields()
    }

    fn units(&self, fields: &Fields) -> Option<Vec<usize>> {
        // A word of the prompt stays.
        Some(vec![self.prompt_words(fields).map_or(0, |(_, ends)| ends.len().saturating_sub(1))])
    }

    fn without_units(&self, fields: &Fields, counts: &[usize]) -> Option<Fields> {
        let &[count] = counts else { return None };
        let (parsed, ends) = self.prompt_words(fields)?;
        let kept = *ends.get(ends.len().checked_sub(count + 1)?)?;
        let text = self.text_of(fields).ok()?;
        // The white space before the action tag stays, as it is part of how the tag stands.
        let prompt = &text[..parsed.action.start];
        let space = prompt.trim_end().len();
        let shortened = [&text[..kept], &prompt[space..], &text[parsed.action.start..]].concat();
        let mut fields = fields.clone();
        let path: Vec<Step> = self.text.iter().cloned().map(Step::Key).collect();
        *value_at_mut(&mut fields, &path)? = Value::String(shortened);
        Some(fields)
    }

    fn named_fields(&self) -> Vec<Vec<Step>> {
        vec![self.text.iter().cloned().map(Step::Key).collect()]
    }
}
