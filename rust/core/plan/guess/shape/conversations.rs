//! Conversations: a list of messages in a field.

use super::seen::Seen;
use super::{Chat, Shape};
use crate::read::Value;

/// Returns the shape of conversations in the field `name`.
pub(super) fn conversations(seen: &Seen<'_>, name: &'static str) -> Result<Shape, String> {
    let has = |message: &Value, key: &str| match message {
        Value::Object(fields) => fields.get(key).is_some_and(|value| value.as_str().is_some()),
        _ => false,
    };
    let is_message = |message: &Value| has(message, "role") || has(message, "from");
    let mut any = false;
    for value in seen.values(name) {
        match value {
            Value::Array(messages) if messages.iter().all(is_message) => {
                any |= !messages.is_empty();
            }
            _ => return Err(format!("`{name}` is no list of messages, each with its `role`")),
        }
    }
    if !any {
        return Err(format!("`{name}` holds no message in the first records"));
    }
    let tools = seen.values("tools").next().is_some();
    let with = if tools { " with `tools`" } else { "" };
    let understood = format!("conversations in `{name}`{with}");
    let chat = Some(Chat { messages: name, tools });
    Ok(Shape { chat, ..Shape::new(understood, "chat", Vec::new()) })
}
