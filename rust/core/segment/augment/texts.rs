//! Words, clusters and letters of a text.
//!
//! A word lies between white space or the Ethiopic wordspace, as filters count words. A cluster is
//! what people take for one character (UAX #29): a letter with its marks, an emoji of several
//! characters.

use std::ops::Range;
use std::sync::LazyLock;

use unicode_segmentation::UnicodeSegmentation;

use super::super::characters::Letters;

/// The space between words of Ethiopic texts, which is no white space to Unicode.
const ETHIOPIC_SPACE: char = '\u{1361}';
/// The kinds of characters, by Unicode's general category.
static LETTERS: LazyLock<Letters> = LazyLock::new(Letters::new);

/// Returns whether a character parts words.
fn is_space(char: char) -> bool {
    char.is_whitespace() || char == ETHIOPIC_SPACE
}

/// Returns whether a character is a letter.
pub(super) fn is_letter(char: char) -> bool {
    match char {
        '\0'..='\u{7f}' => char.is_ascii_alphabetic(),
        // Of these, all but two signs are letters: most texts need no search.
        '\u{c0}'..='\u{2af}' => !matches!(char, '×' | '÷'),
        '\u{1e00}'..='\u{1eff}' => true,
        _ => LETTERS.is_letter(char),
    }
}

/// Returns the bytes of the character at `at`, if it is a plain one: of ASCII, or up to U+02FF or in
/// Latin Extended Additional, neither a control nor a soft hyphen.
///
/// A plain character begins a cluster, joins no character before it, and composes with none.
pub(super) fn plain(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        0x20..=0x7e => Some(1),
        0xc2 => (bytes[at + 1] > 0xa0 && bytes[at + 1] != 0xad).then_some(2),
        0xc3..=0xcb => Some(2),
        0xe1 => matches!(bytes[at + 1], 0xb8..=0xbb).then_some(3),
        _ => None,
    }
}

/// Returns the end of the marks from U+0300 to U+036F at `at`.
pub(super) fn marks_end(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at) == Some(&0xcc) || bytes.get(at) == Some(&0xcd) && bytes[at + 1] < 0xb0 {
        at += 2;
    }
    at
}

/// Returns whether a text has a letter.
pub(super) fn has_letter(text: &str) -> bool {
    text.chars().any(is_letter)
}

/// Returns the words of a text, as ranges of bytes in order.
pub(super) fn words(text: &str) -> Vec<Range<usize>> {
    let mut words = Vec::with_capacity(text.len() / 6 + 1);
    let mut start = None;
    for (index, char) in text.char_indices() {
        match (is_space(char), start) {
            (true, Some(from)) => {
                words.push(from..index);
                start = None;
            }
            (false, None) => start = Some(index),
            _ => {}
        }
    }
    words.extend(start.map(|from| from..text.len()));
    words
}

/// Returns the ends of all words but the last.
pub(super) fn ends_of_words(text: &str) -> Vec<usize> {
    let mut ends: Vec<usize> = words(text).into_iter().map(|word| word.end).collect();
    ends.pop();
    ends
}

/// The clusters of a text, in order.
#[derive(Debug, Clone)]
pub(super) struct Clusters<'a> {
    text: &'a str,
    next: usize,
}

impl<'a> Clusters<'a> {
    /// Returns the clusters of `text`.
    pub(super) fn of(text: &'a str) -> Self {
        Self { text, next: 0 }
    }
}

impl Iterator for Clusters<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let (start, bytes) = (self.next, self.text.as_bytes());
        if start == bytes.len() {
            return None;
        }
        // Most clusters are a plain character with its marks, before another plain one.
        let end = plain(bytes, start).map(|len| marks_end(bytes, start + len));
        let is_end = |end: &usize| *end == bytes.len() || plain(bytes, *end).is_some();
        self.next = match end.filter(is_end) {
            Some(end) => end,
            // No rule looks back beyond the start of a cluster.
            None => start + self.text[start..].graphemes(true).next()?.len(),
        };
        Some(start..self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn letters_are_those_of_unicode() {
        for char in '\0'..=char::MAX {
            assert_eq!(is_letter(char), LETTERS.is_letter(char), "{char:?}");
        }
    }

    #[test]
    fn plain_characters_begin_clusters_and_only_marks_join_them() {
        for char in '\0'..='\u{2fff}' {
            let text = format!("a{char}\u{301}\u{36f}b");
            let found: Vec<&str> = Clusters::of(&text).map(|range| &text[range]).collect();
            let expected: Vec<&str> = text.graphemes(true).collect();
            assert_eq!(found, expected, "{char:?}");
            let mut bytes = [0; 4];
            let len = char.encode_utf8(&mut bytes).len();
            let is_latin = matches!(char, '\u{a1}'..='\u{2ff}' | '\u{1e00}'..='\u{1eff}');
            let is_plain = (is_latin && char != '\u{ad}') || matches!(char, ' '..='~');
            assert_eq!(plain(&bytes, 0), is_plain.then_some(len), "{char:?}");
        }
    }

    proptest! {
        #[test]
        fn clusters_are_those_of_the_library(
            text in "(.|[a-e\r\n \u{300}\u{301}\u{323}\u{200d}\u{fe0f}👩❤🇳🇬ẹሀ한각]\
                     |[\u{1112}\u{1161}\u{11ab}क\u{94d}ष\u{600}]){0,16}",
        ) {
            let found: Vec<&str> = Clusters::of(&text).map(|range| &text[range]).collect();
            let expected: Vec<&str> = text.graphemes(true).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn words_are_the_stretches_without_space(text in "[a ẹ\u{301}\u{1361}\n\u{a0}.]{0,16}") {
            let found: Vec<&str> = words(&text).into_iter().map(|range| &text[range]).collect();
            let expected: Vec<&str> =
                text.split(is_space).filter(|word| !word.is_empty()).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
