//! The spans of a rendered conversation that are trained, found from the marks of its messages.
//!
//! Takes a text whose data says from which message it comes. Gives the spans of the trained
//! messages, or why the template leaves them open. Never searches data.

use std::ops::Range;

use super::Controls;
use super::chat_messages::{ASSISTANT, Kind, Message, Origin};
use super::marks::Marked;
use super::methods::is_space;

/// What stands between the end of a message and the start of an answer, found by a probe.
#[derive(Debug, Clone, Default)]
pub(super) struct Heads {
    /// The text from the end of a user's message to the start of the answer.
    pub(super) after_user: String,
    /// The text that `add_generation_prompt` adds.
    pub(super) generation: String,
}

/// The stretches of a message's text in a rendered conversation, by their indices.
#[derive(Debug, Clone, Copy, Default)]
struct Shown {
    first: Option<usize>,
    last: usize,
    /// Bytes of the content.
    content: usize,
    has_calls: bool,
}

/// A rendered conversation.
pub(super) struct Conversation<'a> {
    /// The text with the origins of its data.
    pub(super) marked: &'a Marked,
    /// The text that the template says is generated, in order.
    pub(super) generated: &'a [Range<usize>],
    /// The messages.
    pub(super) messages: &'a [Message<'a>],
}

impl Conversation<'_> {
    /// Returns the trained spans in order, or the reason why they are open.
    pub(super) fn trained(
        &self,
        heads: &Heads,
        controls: &Controls,
    ) -> Result<Vec<Range<usize>>, String> {
        let shown = self.shown();
        let mut spans: Vec<Range<usize>> = Vec::new();
        for (index, message) in self.messages.iter().enumerate() {
            if !message.trained {
                continue;
            }
            let shown = &shown[index];
            let Some(first) = shown.first else {
                return Err(format!("{} is not shown", self.name(index)));
            };
            if message.has_calls && !shown.has_calls {
                return Err(format!("the tool calls of {} are not shown", self.name(index)));
            }
            let found = match self.generated_spans(index, first..=shown.last)? {
                blocks if !blocks.is_empty() => blocks,
                _ => vec![self.span(index, shown, first, heads, controls)?],
            };
            for span in found {
                match spans.last() {
                    // One block may hold several messages.
                    Some(last) if *last == span => {}
                    Some(last) if last.end > span.start => {
                        return Err(format!("{} is shown out of order", self.name(index)));
                    }
                    _ => spans.push(span),
                }
            }
        }
        Ok(spans)
    }

    /// Names a message in words.
    fn name(&self, index: usize) -> String {
        format!("message {} ({})", index + 1, self.messages[index].role)
    }

    /// Returns where the text of each message is shown.
    fn shown(&self) -> Vec<Shown> {
        let mut all = vec![Shown::default(); self.messages.len()];
        for (nth, data) in self.marked.data.iter().enumerate() {
            let Some(Origin { message, kind }) = Origin::of(data.label) else { continue };
            let Some(shown) = all.get_mut(message).filter(|_| kind != Kind::Aside) else {
                continue;
            };
            shown.first = shown.first.or(Some(nth));
            shown.last = nth;
            shown.has_calls |= kind == Kind::Call;
            shown.content += if kind == Kind::Content { data.range().len() } else { 0 };
        }
        all
    }

    /// Returns the message whose text a stretch of data is, if it is one.
    fn text_of(&self, nth: usize) -> Option<usize> {
        let origin = Origin::of(self.marked.data[nth].label)?;
        (origin.kind != Kind::Aside).then_some(origin.message)
    }

    /// Returns the generated spans that hold text of a message. Refuses one that holds text of an
    /// untrained message too.
    fn generated_spans(
        &self,
        index: usize,
        stretches: std::ops::RangeInclusive<usize>,
    ) -> Result<Vec<Range<usize>>, String> {
        let mut spans: Vec<Range<usize>> = Vec::new();
        if self.generated.is_empty() {
            return Ok(spans);
        }
        for nth in stretches {
            let data = self.marked.data[nth];
            if self.text_of(nth) != Some(index) {
                continue;
            }
            let after = self.generated.partition_point(|block| block.start <= data.start);
            let Some(block) = after.checked_sub(1).map(|block| &self.generated[block]) else {
                continue;
            };
            if data.end <= block.end && spans.last() != Some(block) {
                spans.push(block.clone());
            }
        }
        for span in &spans {
            let first = self.marked.data.partition_point(|data| data.end <= span.start);
            let inside = (first..self.marked.data.len())
                .take_while(|&nth| self.marked.data[nth].start < span.end);
            let mut others = inside.filter_map(|nth| self.text_of(nth));
            if let Some(other) = others.find(|&other| !self.messages[other].trained) {
                let (own, other) = (self.name(index), self.name(other));
                return Err(format!("one `generation` block holds {own} and {other}"));
            }
        }
        Ok(spans)
    }

    /// Returns the span of a message, from the start of its answer to its end-of-turn token.
    fn span(
        &self,
        index: usize,
        shown: &Shown,
        first: usize,
        heads: &Heads,
        controls: &Controls,
    ) -> Result<Range<usize>, String> {
        let (message, name) = (&self.messages[index], || self.name(index));
        let (text, data) = (&self.marked.text, &self.marked.data);
        if (first..=shown.last).any(|nth| self.text_of(nth).is_some_and(|other| other != index)) {
            return Err(format!("{} is shown among others", name()));
        }
        if shown.content > message.text.len() {
            return Err(format!("the content of {} is shown twice", name()));
        }
        let is_own =
            |nth: usize| Origin::of(data[nth].label).is_some_and(|origin| origin.message == index);
        let before = (0..first).rev().find(|&nth| !is_own(nth)).map_or(0, |nth| data[nth].end);
        let start = match message.role {
            ASSISTANT => before + heads.length_in(&text[before..data[first].start]),
            _ => data[first].start,
        };
        let end = self.end_of_turn(index, shown.last, controls);
        let content = message.text.trim_matches(is_space);
        let answer = text[start..end].trim_start();
        if !answer.starts_with(content) && !answer.contains(content) {
            return Err(format!(
                "{} is not shown as it is written ({} of its {} bytes are left): a template may \
                 trim a trained message, but not change it; train_on = \"last\" trains the last \
                 alone",
                name(),
                shown.content,
                message.text.len()
            ));
        }
        Ok(start..end)
    }

    /// Returns the end of the first control token that the template spells after the stretch
    /// `last` and before another message; without one, the end of the stretch.
    fn end_of_turn(&self, index: usize, last: usize, controls: &Controls) -> usize {
        let (text, data) = (&self.marked.text, &self.marked.data);
        let mut from = data[last].end;
        for nth in last + 1..=data.len() {
            let to = data.get(nth).map_or(text.len(), |data| data.start);
            if let Some(found) = controls.first_in(&text[from..to]) {
                return from + found.end;
            }
            let Some(next) = data.get(nth) else { break };
            if Origin::of(next.label).is_some_and(|origin| origin.message != index) {
                break;
            }
            from = next.end;
        }
        data[last].end
    }
}

impl Heads {
    /// Returns the bytes of `gap`, the text before an answer, that come before its start. Where no
    /// head is known, all of it does.
    fn length_in(&self, gap: &str) -> usize {
        if !self.after_user.is_empty() && gap.starts_with(&self.after_user) {
            return self.after_user.len();
        }
        // A user who said nothing leaves no data before the head, nor does a tool that gave nothing.
        let head = if self.generation.is_empty() { &self.after_user } else { &self.generation };
        let mut found = gap.match_indices(head).filter(|_| !head.is_empty());
        match (found.next(), found.next()) {
            (Some((place, _)), None) => place + head.len(),
            _ => gap.len(),
        }
    }
}
