//! `Characters`: sets of characters by their classes in Unicode. `Letters`: which characters are
//! letters, marks or digits.

use regex_syntax::hir::{Class, HirKind};

/// A set of characters, as ranges in order.
#[derive(Debug, Clone)]
pub(super) struct Characters(Vec<(char, char)>);

impl Characters {
    /// Returns the characters of a class as regular expressions write it; `None` if there is no such
    /// class.
    pub(super) fn of(class: &str) -> Option<Self> {
        let parsed = regex_syntax::parse(class).ok()?;
        let HirKind::Class(Class::Unicode(class)) = parsed.kind() else { return None };
        Some(Self(class.iter().map(|range| (range.start(), range.end())).collect()))
    }

    /// Returns whether a character is in the set.
    pub(super) fn contains(&self, char: char) -> bool {
        let after = self.0.partition_point(|(start, _)| *start <= char);
        after > 0 && char <= self.0[after - 1].1
    }
}

/// The kinds of characters that are told apart.
#[derive(Debug, Clone)]
pub(super) struct Letters {
    alone: Characters,
    marks: Characters,
    digits: Characters,
}

impl Letters {
    /// Returns the kinds, by Unicode's general category.
    pub(super) fn new() -> Self {
        let of = |class| Characters::of(class).expect("a category of Unicode");
        Self { alone: of(r"\p{L}"), marks: of(r"\p{M}"), digits: of(r"\p{N}") }
    }

    /// Returns whether a character is a letter.
    pub(super) fn is_letter(&self, char: char) -> bool {
        if char.is_ascii() { char.is_ascii_alphabetic() } else { self.alone.contains(char) }
    }

    /// Returns whether a character is a letter or a mark on one.
    pub(super) fn is_of_letter(&self, char: char) -> bool {
        self.is_letter(char) || !char.is_ascii() && self.marks.contains(char)
    }

    /// Returns whether a character is a letter or a digit.
    pub(super) fn is_of_word(&self, char: char) -> bool {
        let is_digit = |char: char| {
            if char.is_ascii() { char.is_ascii_digit() } else { self.digits.contains(char) }
        };
        self.is_letter(char) || is_digit(char)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_characters_are_those_of_unicode() {
        let letters = Letters::new();
        for char in ['a', 'ẹ', 'ሀ', 'ه', 'ʼ', 'ー'] {
            assert!(letters.is_letter(char) && letters.is_of_word(char), "{char}");
        }
        for char in ['\u{301}', '1', '.', '¹', '።'] {
            assert!(!letters.is_letter(char), "{char}");
        }
        assert!(letters.is_of_letter('\u{323}') && !letters.is_of_word('\u{323}'));
        assert!(letters.is_of_word('٣') && !letters.is_of_word('…'));
    }
}
