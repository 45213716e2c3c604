//! `Touched`: the changes that cleaning made in the texts of one record, each with an example.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// The most characters of a word, and the most code points, that an example shows.
const WORD: usize = 40;
const POINTS: usize = 6;

/// A kind of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    /// The text had another Unicode form.
    Unicode,
    /// Characters that cannot be seen were removed.
    Invisible,
    /// Apostrophes were replaced.
    Apostrophes,
    /// Marks below letters were replaced.
    Underdots,
}

impl Change {
    /// Returns the change as the report and the manifest spell it: by its key in `clean`.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unicode => "unicode",
            Self::Invisible => "invisible",
            Self::Apostrophes => "apostrophes",
            Self::Underdots => "underdots",
        }
    }
}

/// The changes in the texts of one record, each once with its first example.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Touched(Vec<(Change, String)>);

impl Touched {
    /// Adds the change of a text.
    pub(super) fn add(&mut self, change: Change, before: &str, after: &str) {
        if self.0.iter().all(|(known, _)| *known != change) {
            self.0.push((change, difference(before, after)));
        }
    }

    /// Removes all changes.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the changes and their examples.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Change, &str)> {
        self.0.iter().map(|(change, example)| (*change, example.as_str()))
    }
}

/// Returns the first word that differs, with the code points that differ in it.
fn difference(before: &str, after: &str) -> String {
    let mut words = before.split_whitespace().zip(after.split_whitespace());
    // A text of other white space alone differs as a whole.
    let (before, after) = words.find(|(old, new)| old != new).unwrap_or((before, after));
    let (old, new): (Vec<char>, Vec<char>) = (before.chars().collect(), after.chars().collect());
    let same = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let (old, new) = (&old[same..], &new[same..]);
    let ends = old.iter().rev().zip(new.iter().rev());
    let same = ends.take_while(|(old, new)| old == new).count();
    let (old, new) = (&old[..old.len() - same], &new[..new.len() - same]);
    let (word, [old, new]) = (in_short(before), [old, new].map(points));
    format!("{word} ({old} → {new})")
}

/// Returns the start of a word.
fn in_short(word: &str) -> String {
    let mut short: String = word.chars().take(WORD).collect();
    if short.len() < word.len() {
        short.push('…');
    }
    short
}

/// Returns the names of code points.
fn points(chars: &[char]) -> String {
    if chars.is_empty() {
        return "nothing".to_owned();
    }
    let mut out = String::new();
    for (nth, char) in chars.iter().take(POINTS).enumerate() {
        let space = if nth == 0 { "" } else { " " };
        write!(out, "{space}U+{:04X}", u32::from(*char)).expect("a string takes all text");
    }
    if chars.len() > POINTS {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_is_the_first_word_that_differs() {
        for (before, after, words) in [
            ("a ke\u{323} e\u{323}", "a kẹ ẹ", "ke\u{323} (U+0065 U+0323 → U+1EB9)"),
            ("ab\u{200b}c d", "abc d", "ab\u{200b}c (U+200B → nothing)"),
            ("'yan", "ʼyan", "'yan (U+0027 → U+02BC)"),
            ("\u{a0}", " ", "\u{a0} (U+00A0 → U+0020)"),
            ("a\u{feff}\u{feff}a", "aa", "a\u{feff}\u{feff}a (U+FEFF U+FEFF → nothing)"),
        ] {
            assert_eq!(difference(before, after), words);
        }
    }
}
