//! `TaggedSpec`: the table `tagged` of a source, text in which the tags already stand.

use serde::{Deserialize, Serialize};

use super::placeholder::in_text;
use crate::error::{Error, Result};

/// The field of plain text, in every format of text.
fn text() -> String {
    "text".to_owned()
}

/// The table `tagged` of a source: the field with the text, and the roles of its tags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaggedSpec {
    /// The path of the field that holds the text.
    #[serde(default = "text")]
    pub text: String,
    /// The tags that begin a prompt.
    pub open: Vec<String>,
    /// The tags that end a prompt: the target follows.
    pub action: Vec<String>,
}

impl TaggedSpec {
    /// Refuses tags that no text could be told apart by.
    pub(super) fn check(&self) -> Result<()> {
        let remedy = "say both: tagged = { open = [\"<translate>\"], action = [\"<yor>:\"] }";
        for (key, tags) in [("open", &self.open), ("action", &self.action)] {
            if tags.is_empty() {
                return Err(Error::config(format!("tagged: `{key}` names no tag")).remedy(remedy));
            }
            if tags.iter().any(|tag| tag.trim().is_empty()) {
                let what = format!("tagged: `{key}` names a tag without text");
                return Err(Error::config(what).remedy(remedy));
            }
        }
        let tags = || self.open.iter().chain(&self.action);
        let twice = tags().enumerate().find(|(nth, tag)| tags().take(*nth).any(|one| one == *tag));
        if let Some((_, tag)) = twice {
            return Err(Error::config(format!("tagged: the tag `{tag}` is there twice"))
                .remedy("a tag either begins a prompt (`open`) or ends it (`action`)"));
        }
        Ok(())
    }

    /// Returns the tags, open ones first.
    pub(crate) fn tags(&self) -> impl Iterator<Item = &str> {
        self.open.iter().chain(&self.action).map(String::as_str)
    }

    /// Returns the table with a language in the place of `{lang}`.
    pub(super) fn with_language(&self, lang: &str) -> Self {
        let put = |tags: &[String]| tags.iter().map(|tag| in_text(tag, lang)).collect();
        let text = in_text(&self.text, lang);
        Self { text, open: put(&self.open), action: put(&self.action) }
    }
}
