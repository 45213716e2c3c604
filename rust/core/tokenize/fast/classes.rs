//! The class of each code point, as the regex engine that `tokenizers` links sees it.
//!
//! Oniguruma is asked once a process, about all code points in one text, so that two Unicode
//! versions cannot differ. Letters are told apart by case, since some patterns split there.

use std::sync::OnceLock;

use onig::Regex;

/// `\p{Ll}`.
pub(crate) const LOWER: u8 = 0;
/// `\p{Lu}` and `\p{Lt}`.
pub(crate) const UPPER: u8 = 1;
/// Letters without case: `\p{Lm}` and `\p{Lo}`.
pub(crate) const CASELESS: u8 = 2;
/// `\p{M}`.
pub(crate) const MARK: u8 = 3;
/// `\p{N}`.
pub(crate) const NUMBER: u8 = 4;
/// `\s`.
pub(crate) const SPACE: u8 = 5;
/// Any other character.
pub(crate) const OTHER: u8 = 6;

/// One alternative for each class, in the order of the constants.
const PATTERN: &str =
    r"(\p{Ll}+)|([\p{Lu}\p{Lt}]+)|([\p{Lm}\p{Lo}]+)|(\p{M}+)|(\p{N}+)|(\s+)|[^\p{L}\p{M}\p{N}\s]+";

/// The class of each code point, and the characters that fold to a letter of a contraction.
#[derive(Debug)]
pub(crate) struct Classes {
    of: Vec<u8>,
    /// For each of `sdmtlver`: the characters beyond ASCII that match it in any case.
    folds: Vec<(u8, char)>,
}

impl Classes {
    /// Returns the classes, computed on first use.
    pub(crate) fn get() -> &'static Self {
        static CLASSES: OnceLock<Classes> = OnceLock::new();
        CLASSES.get_or_init(Self::probe)
    }

    /// Asks the regex engine for the class of each code point.
    fn probe() -> Self {
        // One text, so that one search classifies all code points.
        let all: String = (0..=u32::from(char::MAX)).filter_map(char::from_u32).collect();
        let pattern = Regex::new(PATTERN).expect("a valid pattern");
        let mut of = vec![OTHER; char::MAX as usize + 1];
        for found in pattern.captures_iter(&all) {
            let class = (1..=6)
                .find(|&group| found.pos(group).is_some())
                .map_or(OTHER, |group| group as u8 - 1);
            let (start, end) = found.pos(0).expect("a match has a place");
            all[start..end].chars().for_each(|char| of[char as usize] = class);
        }
        // Only cased letters can fold to an ASCII letter: the search below stays short.
        let beyond: String =
            ('\u{80}'..=char::MAX).filter(|&char| of[char as usize] <= UPPER).collect();
        let fold = |letter: u8| {
            let pattern =
                Regex::new(&format!("(?i:{})", char::from(letter))).expect("a valid pattern");
            let found: Vec<_> = pattern
                .find_iter(&beyond)
                .filter_map(|(start, _)| beyond[start..].chars().next())
                .collect();
            found.into_iter().map(move |char| (letter, char))
        };
        let folds = b"sdmtlver".iter().flat_map(|&letter| fold(letter)).collect();
        Self { of, folds }
    }

    /// Returns the class of a code point.
    #[inline]
    pub(crate) fn of(&self, code: u32) -> u8 {
        self.of.get(code as usize).copied().unwrap_or(OTHER)
    }

    /// Returns whether `char`, not ASCII, matches `letter` in any case.
    pub(crate) fn folds_to(&self, char: char, letter: u8) -> bool {
        self.folds.contains(&(letter, char))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_oniguruma() {
        let classes = Classes::get();
        let sets: [(&str, &[u8]); 6] = [
            (r"\p{L}", &[LOWER, UPPER, CASELESS]),
            (r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", &[UPPER, CASELESS, MARK]),
            (r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", &[LOWER, CASELESS, MARK]),
            (r"\p{N}", &[NUMBER]),
            (r"\s", &[SPACE]),
            (r"[^\s\p{L}\p{N}]", &[MARK, OTHER]),
        ];
        for (pattern, set) in sets {
            let regex = Regex::new(pattern).expect("a valid pattern");
            for char in '\0'..=char::MAX {
                let mut bytes = [0; 4];
                let matches = regex.is_match(char.encode_utf8(&mut bytes));
                assert_eq!(
                    matches,
                    set.contains(&classes.of(char.into())),
                    "{pattern} on {char:?}"
                );
            }
        }
        assert!(classes.folds_to('ſ', b's') && !classes.folds_to('é', b's'));
    }
}
