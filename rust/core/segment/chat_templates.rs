//! The chat templates that are known by name, and those of the tokenizer.

use crate::error::{Error, Result};
use crate::plan::{TokenizerChats, nearest};

/// The name of a tokenizer's usual chat template.
pub(crate) const DEFAULT_CHAT: &str = "default";
/// The prefix of the names of a tokenizer's templates.
const OF_TOKENIZER: &str = "tokenizer";

/// Templates by name, written for this project: each renders what the published one of its name
/// does.
const KNOWN: [(&str, &str); 11] = [
    ("chatml", include_str!("chat_templates/chatml.jinja")),
    ("gemma", include_str!("chat_templates/gemma.jinja")),
    ("llama-2", include_str!("chat_templates/llama-2.jinja")),
    ("llama-3", include_str!("chat_templates/llama-3.jinja")),
    ("mistral", include_str!("chat_templates/mistral.jinja")),
    ("olmo-2", include_str!("chat_templates/olmo-2.jinja")),
    ("phi-3", include_str!("chat_templates/phi-3.jinja")),
    ("qwen-2.5", include_str!("chat_templates/qwen-2.5.jinja")),
    ("qwen-3", include_str!("chat_templates/qwen-3.jinja")),
    ("smollm-2", include_str!("chat_templates/smollm-2.jinja")),
    ("zephyr", include_str!("chat_templates/zephyr.jinja")),
];

/// Returns the text of the template that a source asks for: the tokenizer's own, one of the
/// tokenizer's by name (`tokenizer:NAME`), one known by name, or the text itself.
pub(super) fn text_of(asked: Option<&str>, chats: &TokenizerChats) -> Result<String> {
    let asked = asked.unwrap_or(OF_TOKENIZER);
    let own = asked.strip_prefix(OF_TOKENIZER);
    if let Some(name) = own.and_then(|rest| match rest {
        "" => Some(DEFAULT_CHAT),
        _ => rest.strip_prefix(':'),
    }) {
        return chats.templates.get(name).cloned().ok_or_else(|| not_there(name, chats));
    }
    if let Some((_, text)) = KNOWN.iter().find(|(name, _)| *name == asked) {
        return Ok((*text).to_owned());
    }
    if asked.contains("{{") || asked.contains("{%") {
        return Ok(asked.to_owned());
    }
    let near = nearest(asked, KNOWN.iter().map(|(name, _)| *name));
    let hint = near.map(|near| format!("did you mean \"{near}\"? ")).unwrap_or_default();
    Err(Error::config(format!("chat: template = \"{asked}\" is the name of no chat template"))
        .remedy(format!("{hint}write \"tokenizer\", the text of a template, or {}", known())))
}

/// Returns the names of the known templates, in words.
fn known() -> String {
    let names: Vec<String> = KNOWN.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    format!("one of {}", names.join(", "))
}

/// Returns the error about a template that the tokenizer does not have.
fn not_there(name: &str, chats: &TokenizerChats) -> Error {
    if name == DEFAULT_CHAT {
        return Error::config(
            "no chat template: none lies beside the tokenizer (chat_template.jinja, or \
             `chat_template` in tokenizer_config.json)",
        )
        .remedy(format!("name one in `chat` (template = \"chatml\"): {}", known()));
    }
    let names: Vec<&str> = chats.templates.keys().map(String::as_str).collect();
    Error::config(format!("the tokenizer has no chat template called \"{name}\"")).remedy(
        if names.is_empty() {
            "none lies beside it".to_owned()
        } else {
            format!("it has {}", names.join(", "))
        },
    )
}
