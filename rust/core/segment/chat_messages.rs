//! Conversations: the messages of a record, as chat templates expect them.
//!
//! Takes the value of a field; gives messages with a role and a content, or refuses the record.
//! Knows `role` and `content`, `ShareGPT`'s `from` and `value`, and contents in parts of text.

use std::borrow::Cow;

use minijinja::Value as Jinja;

use super::marks::Signs;
use super::python::value_of;
use crate::plan::{TrainOn, TrainWord};
use crate::read::{Fields, Value};
use crate::schema::{DropReason, Refusal};

/// The role of the messages that a model writes.
pub(super) const ASSISTANT: &str = "assistant";
const USER: &str = "user";
/// Roles that are template text, not data: a record only chooses among them.
const KNOWN_ROLES: [&str; 8] =
    ["system", "developer", USER, ASSISTANT, "tool", "function", "ipython", "model"];
/// Fields that hold more of what the assistant wrote.
const REASONING: [&str; 3] = ["reasoning_content", "reasoning", "thinking"];
const CALLS: [&str; 2] = ["tool_calls", "function_call"];

/// The part of a message that a stretch of rendered data comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A field beside the text, such as a name.
    Aside,
    /// The content.
    Content,
    /// A call of a tool.
    Call,
    /// Thoughts before the content.
    Reasoning,
}

/// The origin of a stretch of rendered data, written as the label of its marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    /// The index of the message.
    pub(super) message: usize,
    /// The part of it.
    pub(super) kind: Kind,
}

impl Origin {
    /// Returns the label of this origin: never 0, which stands for no message.
    fn label(self) -> u32 {
        self.message as u32 * 4 + self.kind as u32 + 1
    }

    /// Returns the origin that a label stands for; none for data of no message.
    pub(super) fn of(label: u32) -> Option<Self> {
        let rest = label.checked_sub(1)?;
        let kinds = [Kind::Aside, Kind::Content, Kind::Call, Kind::Reasoning];
        Some(Self { message: rest as usize / 4, kind: kinds[rest as usize % 4] })
    }
}

/// A message of a conversation.
#[derive(Debug)]
pub(super) struct Message<'a> {
    /// The role, by the name that templates know.
    pub(super) role: &'a str,
    /// The text of the content; empty if there is none.
    pub(super) text: Cow<'a, str>,
    /// Whether it calls tools.
    pub(super) has_calls: bool,
    /// Whether it is trained.
    pub(super) trained: bool,
    /// Its fields in order, but for the role and a content that is text.
    others: Vec<(&'a str, &'a Value)>,
    /// Whether the content is null or not there.
    lacks_text: bool,
}

/// Returns a refusal of the message `index`.
fn malformed(index: usize, what: &str) -> Refusal {
    Refusal::new(DropReason::Malformed, format!("message {} {what}", index + 1))
}

/// Returns the messages of a conversation, up to the last that is trained.
pub(super) fn messages_of<'a>(
    list: &'a Value,
    field: &str,
    train_on: &TrainOn,
) -> Result<Vec<Message<'a>>, Refusal> {
    let Value::Array(items) = list else {
        let why = format!("`{field}` is no list of messages");
        return Err(Refusal::new(DropReason::Malformed, why));
    };
    let mut messages = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let Value::Object(fields) = item else { return Err(malformed(index, "is no object")) };
        messages.push(message_of(index, fields)?);
    }
    choose(&mut messages, train_on);
    let last = messages.iter().rposition(|message| message.trained);
    let Some(last) = last else { return Err(nothing_trained(&messages, field, train_on)) };
    // A turn that gets no answer teaches nothing, and EOS would follow it.
    messages.truncate(last + 1);
    let is_silent = |message: &Message<'_>| {
        message.trained && !message.has_calls && message.text.trim().is_empty()
    };
    if let Some(index) = messages.iter().position(is_silent) {
        let why = format!("message {} ({}) is empty", index + 1, messages[index].role);
        return Err(Refusal::new(DropReason::EmptyTarget, why));
    }
    Ok(messages)
}

/// Chooses the messages that are trained.
fn choose(messages: &mut [Message<'_>], train_on: &TrainOn) {
    if matches!(train_on, TrainOn::Word(TrainWord::Last)) {
        let last = messages.iter_mut().rfind(|message| message.role == ASSISTANT);
        if let Some(last) = last {
            last.trained = true;
        }
        return;
    }
    for message in messages {
        message.trained = match train_on {
            TrainOn::Word(TrainWord::All) => true,
            TrainOn::Word(_) => message.role == ASSISTANT,
            TrainOn::Roles(roles) => roles.iter().any(|role| named(role) == message.role),
        };
    }
}

/// Returns the refusal of a conversation without a message to train.
fn nothing_trained(messages: &[Message<'_>], field: &str, train_on: &TrainOn) -> Refusal {
    let mut roles: Vec<&str> = Vec::new();
    for message in messages {
        if !roles.contains(&message.role) {
            roles.push(message.role);
        }
    }
    let wanted = match train_on {
        TrainOn::Roles(roles) => roles.join(" or "),
        TrainOn::Word(TrainWord::All) => "anybody".to_owned(),
        TrainOn::Word(_) => ASSISTANT.to_owned(),
    };
    let why = if roles.is_empty() {
        format!("`{field}` holds no message")
    } else {
        format!("no message of {wanted}, only of {}", roles.join(", "))
    };
    Refusal::new(DropReason::EmptyTarget, why)
}

/// Returns a role by the name that templates know: `ShareGPT` has its own.
fn named(role: &str) -> &str {
    match role {
        "human" => USER,
        "gpt" => ASSISTANT,
        other => other,
    }
}

/// Reads a message.
fn message_of(index: usize, fields: &Fields) -> Result<Message<'_>, Refusal> {
    let (role_key, text_key) = match (fields.get("role"), fields.get("from")) {
        (Some(role), _) if !role.is_null() => ("role", "content"),
        (_, Some(from)) if !from.is_null() => ("from", "value"),
        _ => return Err(malformed(index, "has neither `role` nor `from`")),
    };
    let Some(role) = fields[role_key].as_str() else {
        return Err(malformed(index, &format!("has a `{role_key}` that is no text")));
    };
    let content = fields.get(text_key).filter(|content| !content.is_null());
    let is_other = |key: &str| key != role_key && key != text_key;
    let others: Vec<(&str, &Value)> = fields
        .iter()
        // Columns give every message all fields of any: a null is no field.
        .filter(|(key, value)| is_other(key) && !value.is_null())
        .map(|(key, value)| (key.as_str(), value))
        .collect();
    let is_given = |value: &Value| !matches!(value, Value::Array(items) if items.is_empty());
    let has_calls = others.iter().any(|(key, value)| CALLS.contains(key) && is_given(value));
    if content.is_none() && !has_calls {
        return Err(malformed(index, &format!("has no `{text_key}`")));
    }
    let text =
        content.map_or(Ok(Cow::Borrowed("")), |content| text_of(index, text_key, content))?;
    let (trained, lacks_text) = (false, content.is_none());
    Ok(Message { role: named(role), text, has_calls, trained, others, lacks_text })
}

/// Returns the text of a content: a text, or parts that are texts, one after another.
fn text_of<'a>(index: usize, key: &str, content: &'a Value) -> Result<Cow<'a, str>, Refusal> {
    let parts = match content {
        Value::String(text) => return Ok(Cow::Borrowed(text)),
        Value::Array(parts) => parts,
        _ => {
            return Err(malformed(index, &format!("has a `{key}` that is neither text nor parts")));
        }
    };
    let mut text = String::new();
    for part in parts {
        let Value::Object(part) = part else {
            return Err(malformed(index, "has a part that is no object"));
        };
        let kind = part.get("type").and_then(Value::as_str).unwrap_or("text");
        if kind != "text" {
            let why =
                format!("message {} has a part of type '{kind}': only text is read", index + 1);
            return Err(Refusal::new(DropReason::Refused, why));
        }
        let Some(part) = part.get("text").and_then(Value::as_str) else {
            return Err(malformed(index, "has a part without `text`"));
        };
        text.push_str(part);
    }
    Ok(Cow::Owned(text))
}

impl Message<'_> {
    /// Returns its values but for the role and the content.
    pub(super) fn values(&self) -> impl Iterator<Item = &Value> {
        self.others.iter().map(|(_, value)| *value)
    }

    /// Returns the message, the `index`th, as a value of the engine; its data marked with `signs`.
    pub(super) fn value(&self, index: usize, signs: Option<&Signs>, shows_only: bool) -> Jinja {
        let marked = |text: &str, kind: Kind| match signs {
            // A mark would make an empty text look like one that is not.
            Some(signs) if !text.is_empty() => {
                Jinja::from(signs.marked(text, Origin { message: index, kind }.label()))
            }
            _ => Jinja::from(text),
        };
        let is_known = KNOWN_ROLES.contains(&self.role);
        let role = if is_known { Jinja::from(self.role) } else { marked(self.role, Kind::Aside) };
        let mut pairs = vec![("role", role)];
        let content =
            if self.lacks_text { Jinja::from(()) } else { marked(&self.text, Kind::Content) };
        pairs.push(("content", content));
        for &(key, value) in &self.others {
            let kind = match key {
                _ if CALLS.contains(&key) => Kind::Call,
                _ if REASONING.contains(&key) => Kind::Reasoning,
                _ => Kind::Aside,
            };
            let label = Origin { message: index, kind }.label();
            let string = |text: &str| match signs {
                Some(signs) if !text.is_empty() => signs.marked(text, label),
                _ => text.to_owned(),
            };
            pairs.push((key, value_of(value, &string, shows_only)));
        }
        Jinja::from_pairs(pairs)
    }
}

/// Returns how many exchanges may be dropped before the last one, which holds the last trained
/// message.
pub(super) fn most_dropped(messages: &[Message<'_>]) -> usize {
    let users = messages.iter().filter(|message| message.role == USER).count();
    // A user whose own message is trained may be the last.
    users.saturating_sub(1)
}

/// Returns the list of messages without its `count` oldest exchanges, each of which begins with a
/// user. Messages before the first user stay.
pub(super) fn without_oldest(items: &[Value], count: usize) -> Vec<Value> {
    let is_user = |item: &Value| match item {
        Value::Object(fields) => {
            let role = fields.get("role").or_else(|| fields.get("from"));
            role.and_then(Value::as_str).map(named) == Some(USER)
        }
        _ => false,
    };
    let users: Vec<usize> = (0..items.len()).filter(|&index| is_user(&items[index])).collect();
    let first = users.first().copied().unwrap_or(items.len());
    let kept = users.get(count).copied().unwrap_or(items.len());
    items[..first].iter().chain(&items[kept..]).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_read_from_its_label() {
        for message in [0, 1, 77_777] {
            for kind in [Kind::Aside, Kind::Content, Kind::Call, Kind::Reasoning] {
                let origin = Origin { message, kind };
                assert_eq!(Origin::of(origin.label()), Some(origin));
            }
        }
        assert_eq!(Origin::of(0), None);
    }
}
