//! `GuessedSource`: a source as it is guessed. `Unrecognised`: files that no source is guessed for.

use std::path::Path;

use super::shape::Chat;
use crate::error::Error;
use crate::plan::SegmentSpec;
use crate::plan::files::Files;
use crate::read::{Encoding, TextUnit};

/// A source, guessed.
#[derive(Debug)]
pub(crate) struct GuessedSource {
    pub(super) name: String,
    pub(super) task: String,
    pub(super) lang: Option<String>,
    /// The language as the names of its files have it; `None` where `{lang}` stands in them.
    pub(super) path_lang: Option<String>,
    pub(super) files: Files,
    pub(super) validation_files: Files,
    pub(super) encoding: Option<Encoding>,
    pub(super) unit: Option<TextUnit>,
    /// The fields whose labels are shown by name.
    pub(super) labels: Vec<String>,
    pub(super) segments: Option<Vec<SegmentSpec>>,
    pub(super) chat: Option<Chat>,
    /// What was recognised, in a sentence.
    pub(super) understood: String,
}

/// Files of one family whose fields are not known, or that cannot be read.
#[derive(Debug, Clone)]
pub(crate) struct Unrecognised {
    /// The name that their source would have.
    pub(super) name: String,
    pub(super) lang: Option<String>,
    pub(crate) files: Vec<String>,
    pub(super) encoding: Option<Encoding>,
    /// The names of their fields.
    pub(crate) fields: Vec<String>,
    /// The fields of class labels.
    pub(super) labels: Vec<String>,
    /// Why they are not recognised; empty if none of their fields is known.
    pub(crate) why: String,
    /// The error of a file that cannot be read.
    pub(super) error: Option<Box<Error>>,
    /// The format, where the suffix does not tell it.
    pub(super) format: Option<&'static str>,
}

impl GuessedSource {
    /// Returns whether `{lang}` stands in the name of a file.
    pub(super) fn is_open(&self) -> bool {
        [&self.files, &self.validation_files].into_iter().any(|files| {
            let mut patterns = files.fields().into_iter();
            patterns.any(|side| {
                files.patterns(side.as_deref()).iter().any(|file| file.contains("{lang"))
            })
        })
    }
}

impl Unrecognised {
    /// Returns the error of these files.
    pub(crate) fn error(&self, root: &Path) -> Error {
        if let Some(error) = &self.error {
            return (**error).clone();
        }
        let fields = self.fields.iter().map(|field| format!("`{field}`")).collect::<Vec<_>>();
        let why = if self.why.is_empty() { String::new() } else { format!(": {}", self.why) };
        Error::input(format!(
            "no corpus.toml, and its fields are not recognised{why}; it has {}",
            fields.join(", ")
        ))
        .file(self.files.first().cloned().unwrap_or_default())
        .remedy(format!(
            "`sabiprep init {}` writes a corpus.toml; say in it which fields are prompt and target",
            root.display()
        ))
    }
}
