//! `CleanSpec`: the table `clean` of a source, which says how the texts of its records are changed
//! before they are rendered.

use serde::{Deserialize, Serialize};

/// The table `clean`. Every key is off unless it is written, but for the Unicode form: a source
/// that is cleaned at all is put in NFC unless it says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CleanSpec {
    /// The Unicode form of the texts.
    #[serde(default)]
    pub unicode: UnicodeForm,
    /// The treatment of characters that cannot be seen.
    #[serde(default, skip_serializing_if = "is_default")]
    pub invisible: Invisible,
    /// The character that takes the place of every apostrophe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apostrophes: Option<Apostrophe>,
    /// The mark that takes the place of every mark below a letter, of the two that stand for one
    /// letter in the languages of Nigeria.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub underdots: Option<Underdot>,
}

/// A Unicode form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnicodeForm {
    /// Letters and marks as one character where there is one.
    #[default]
    Nfc,
    /// Letters and marks apart.
    Nfd,
    /// As NFC, with one character for those that look alike: ligatures, full-width letters.
    Nfkc,
    /// The form that the texts have.
    AsIs,
}

/// The treatment of characters that cannot be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Invisible {
    /// They stay.
    #[default]
    Keep,
    /// They are removed, but for joiners and variation selectors.
    Remove,
}

/// An apostrophe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Apostrophe {
    /// U+0027, of ASCII.
    #[serde(rename = "'")]
    Straight,
    /// U+2019, the right single quotation mark.
    #[serde(rename = "’")]
    Curly,
    /// U+02BC, the letter.
    #[serde(rename = "ʼ")]
    Letter,
}

/// A mark below a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Underdot {
    /// U+0323, the dot below: ẹ.
    Dot,
    /// U+0329, the vertical line below: e̩.
    Line,
}

impl Apostrophe {
    /// Returns the character.
    #[must_use]
    pub(crate) fn char(self) -> char {
        match self {
            Self::Straight => '\'',
            Self::Curly => '\u{2019}',
            Self::Letter => '\u{2bc}',
        }
    }
}

/// Returns whether a value is the one that a key has when it is not written.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
