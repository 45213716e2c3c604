//! `ChatSpec`: the table `chat` of a source, and the template that it names, once it is found.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Source;
use super::placeholder::{LANG, in_template, in_text, outside_tags};
use crate::error::Result;

/// The table `chat` of a source: conversations, and the messages that are trained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatSpec {
    /// The path of the field that holds the messages.
    pub messages: String,
    /// The name of a template, or the text of one; the tokenizer's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The messages that are trained.
    #[serde(default)]
    pub train_on: TrainOn,
    /// The path of the field that holds the tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<String>,
    /// The path of the field that holds the documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<String>,
    /// The template, once it is found.
    #[serde(skip_deserializing, default, skip_serializing_if = "Option::is_none")]
    pub(crate) found: Option<FoundTemplate>,
}

impl ChatSpec {
    /// Returns the fields that it names.
    fn fields(&self) -> impl Iterator<Item = &String> {
        [&self.messages].into_iter().chain(&self.tools).chain(&self.documents)
    }

    /// Returns whether `{lang}` stands in the name of a field or in the text of the template.
    pub(super) fn shows_language(&self) -> bool {
        let template = self.template.as_deref().map(outside_tags);
        self.fields().chain(&template).any(|text| text.contains(LANG))
    }

    /// Returns the table with a language in the place of `{lang}`.
    pub(super) fn with_language(&self, lang: &str) -> Result<Self> {
        let put = |field: &Option<String>| field.as_ref().map(|field| in_text(field, lang));
        let template = self.template.as_ref().map(|text| in_template(text, lang)).transpose()?;
        let (tools, documents) = (put(&self.tools), put(&self.documents));
        let messages = in_text(&self.messages, lang);
        Ok(Self { messages, template, tools, documents, ..self.clone() })
    }
}

/// The messages of a conversation that are trained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TrainOn {
    /// Chosen by a word.
    Word(TrainWord),
    /// Those of these roles.
    Roles(Vec<String>),
}

/// A word that chooses messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainWord {
    /// The messages of the assistant.
    Assistant,
    /// The last message of the assistant.
    Last,
    /// Every message.
    All,
}

impl TrainOn {
    /// The words of `train_on`.
    pub(crate) const WORDS: [&str; 3] = ["assistant", "last", "all"];
}

impl Default for TrainOn {
    fn default() -> Self {
        Self::Word(TrainWord::Assistant)
    }
}

/// A chat template, with the tokens that it knows by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FoundTemplate {
    /// The text of the template.
    pub(crate) text: String,
    /// The special tokens by their names, such as `bos_token`.
    pub(crate) tokens: BTreeMap<String, String>,
}

/// The files beside a tokenizer that are about chats.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TokenizerChats {
    /// The templates by their names; the usual one is called `default`.
    pub(crate) templates: BTreeMap<String, String>,
    /// The special tokens by their names, such as `bos_token`.
    pub(crate) tokens: BTreeMap<String, String>,
}

impl Source {
    /// Takes the chat templates that a dataset of the configuration `config` was made with.
    pub(crate) fn take_chat_of(&mut self, config: &serde_json::Value) {
        let Some(chat) = &mut self.chat else { return };
        let sources = config["source"].as_array().into_iter().flatten();
        let same = sources.into_iter().find(|source| source["name"] == self.name.as_str());
        let found =
            same.and_then(|source| FoundTemplate::deserialize(source["chat"].get("found")?).ok());
        chat.found = chat.found.take().or(found);
    }
}
