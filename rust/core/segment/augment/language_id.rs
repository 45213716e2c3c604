//! `LanguageId`: the language of a text, which its source tells.

use super::draws::Draws;
use super::{Augmentation, Augmenting, refused};

/// Names a language.
#[derive(Debug)]
pub(super) struct LanguageId {
    /// The language as it is named; `None` for records whose language is not known.
    pub(super) language: Option<String>,
}

impl Augmentation for LanguageId {
    fn make(&self, _: &str, _: char, _: &mut Draws) -> Augmenting<Vec<String>> {
        let language = self.language.clone();
        Ok(vec![language.ok_or_else(|| refused("the language of the record is not known"))?])
    }
}
