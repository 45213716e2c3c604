//! NFC where a text needs it. A quick check finds the few stretches that may change; only those are
//! normalized, by the library that `tokenizers` uses.

use std::ops::Range;
use std::sync::OnceLock;

use unicode_normalization_alignments::char::canonical_combining_class;
use unicode_normalization_alignments::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// Below this code point no character changes or combines; its UTF-8 starts below `FIRST_BYTE`.
const FIRST: u32 = 0x300;
const FIRST_BYTE: u8 = 0xcc;
/// From this code point on no character changes or combines either.
const LAST: u32 = 0x3_0000;
/// The number of unchanged stretches that are remembered.
const REMEMBERED: usize = 1 << 10;

/// A stretch that normalization changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edit {
    /// The bytes of the stretch in the text.
    pub(crate) original: Range<usize>,
    /// The bytes in the normalized text that replace them.
    pub(crate) normal: Range<usize>,
}

/// Normalizes texts, and remembers short stretches that did not change.
#[derive(Debug)]
pub(crate) struct Composer {
    /// By hash: the bytes of a stretch of up to eight bytes.
    stable: Vec<u64>,
}

impl Default for Composer {
    fn default() -> Self {
        Self { stable: vec![0; REMEMBERED] }
    }
}

impl Composer {
    /// Returns the normalized text and its edits; none if the text does not change.
    pub(crate) fn compose(&mut self, text: &str) -> Option<(String, Vec<Edit>)> {
        let mut found: Option<(String, Vec<Edit>)> = None;
        // Text between the changes is copied in one piece.
        let mut copied = 0;
        while let Some(stretch) = self.next_change(text, copied) {
            let (normal, edits) =
                found.get_or_insert_with(|| (String::with_capacity(text.len()), Vec::new()));
            normal.push_str(&text[copied..stretch.start]);
            let from = normal.len();
            normal.extend(text[stretch.clone()].chars().nfc().map(|(char, _)| char));
            copied = stretch.end;
            edits.push(Edit { original: stretch, normal: from..normal.len() });
        }
        if let Some((normal, _)) = &mut found {
            normal.push_str(&text[copied..]);
        }
        found
    }

    /// Returns whether normalization leaves a text, and any text cut from it, unchanged.
    pub(crate) fn is_normal(&mut self, text: &str) -> bool {
        self.next_change(text, 0).is_none()
    }

    /// Returns the next stretch from `from` on that normalization changes.
    fn next_change(&mut self, text: &str, from: usize) -> Option<Range<usize>> {
        let mut position = from;
        while let Some(unsure) = next_unsure(text, position) {
            // The change is bounded by characters that start anew and combine with none before
            // them.
            let start = text[position..unsure]
                .char_indices()
                .next_back()
                .map_or(unsure, |(back, _)| position + back);
            let end = text[unsure..]
                .char_indices()
                .find(|&(_, char)| is_sure(char))
                .map_or(text.len(), |(on, _)| unsure + on);
            if !self.is_stable(&text[start..end]) {
                return Some(start..end);
            }
            position = end;
        }
        None
    }

    /// Returns whether normalization leaves a stretch unchanged.
    fn is_stable(&mut self, stretch: &str) -> bool {
        let is_stable = || stretch.chars().eq(stretch.chars().nfc().map(|(char, _)| char));
        // Only stretches that fit a word of 64 bits are remembered.
        if stretch.len() > 8 {
            return is_stable();
        }
        // Short stretches return again and again: remembering them saves most calls of the library.
        let bytes = stretch.bytes().fold(0, |bytes, byte| bytes << 8 | u64::from(byte));
        let place = (bytes.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % REMEMBERED;
        if self.stable[place] == bytes {
            return true;
        }
        let stable = is_stable();
        if stable {
            self.stable[place] = bytes;
        }
        stable
    }
}

/// Returns the position of the next character from `from` on that may change or combine.
fn next_unsure(text: &str, from: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut position = from;
    loop {
        // Whole chunks at once: most text has no such byte.
        let high = |chunk: &[u8]| chunk.iter().fold(0, |most, &byte| most.max(byte)) >= FIRST_BYTE;
        position +=
            64 * bytes[position..].chunks_exact(64).take_while(|chunk| !high(chunk)).count();
        let chunk = &bytes[position..bytes.len().min(position + 64)];
        for (nth, _) in chunk.iter().enumerate().filter(|&(_, &byte)| byte >= FIRST_BYTE) {
            let (code, _) = super::split::decode(bytes, position + nth);
            if unsure(code) {
                return Some(position + nth);
            }
        }
        position += chunk.len();
        if position == bytes.len() {
            return None;
        }
    }
}

/// Returns whether `char` never changes and never combines with a character before it.
fn is_sure(char: char) -> bool {
    !unsure(char.into())
}

/// Returns whether a code point may change or combine, from a table built on first use.
fn unsure(code: u32) -> bool {
    static UNSURE: OnceLock<Vec<u64>> = OnceLock::new();
    if !(FIRST..LAST).contains(&code) {
        return false;
    }
    let bits = UNSURE.get_or_init(|| {
        let mut bits = vec![0; (LAST as usize).div_ceil(64)];
        for char in (FIRST..LAST).filter_map(char::from_u32).filter(|&char| may_change(char)) {
            bits[char as usize / 64] |= 1 << (char as u32 % 64);
        }
        bits
    });
    bits[code as usize / 64] >> (code % 64) & 1 == 1
}

/// Returns whether a character combines, or does not pass the quick check of NFC.
fn may_change(char: char) -> bool {
    canonical_combining_class(char) != 0 || is_nfc_quick(std::iter::once(char)) != IsNormalized::Yes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_changes_beyond_the_bounds() {
        for char in ('\0'..=char::MAX).filter(|&char| !(FIRST..LAST).contains(&char.into())) {
            assert!(!may_change(char), "{char:?}");
        }
        assert!(
            ('\0'..'\u{300}').all(|char| char.encode_utf8(&mut [0; 4]).as_bytes()[0] < FIRST_BYTE)
        );
    }

    fn check(text: &str) {
        let expected: String = text.chars().nfc().map(|(char, _)| char).collect();
        match Composer::default().compose(text) {
            None => assert_eq!(text, expected),
            Some((normal, edits)) => {
                assert_eq!(normal, expected, "{text:?}");
                let (mut original_at, mut normal_at) = (0, 0);
                for edit in edits {
                    assert_eq!(
                        text[original_at..edit.original.start],
                        normal[normal_at..edit.normal.start]
                    );
                    (original_at, normal_at) = (edit.original.end, edit.normal.end);
                }
                assert_eq!(text[original_at..], normal[normal_at..]);
            }
        }
    }

    #[test]
    fn every_code_point_between_others() {
        for char in '\0'..=char::MAX {
            check(&format!(
                "e{char}\u{323}\u{301}ò{char}\u{323}{char} \u{1100}{char}\u{1161}\u{11a8}"
            ));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn random_texts(
            text in concat!(
                "[a-eoọòñńẹḍ\u{300}-\u{345}\u{1100}-\u{1113}\u{1161}-\u{1170}",
                "\u{11a8}-\u{11b0}\u{ac00}-\u{ac20}\u{212b}\u{f73}\u{9c7}\u{9be}\u{9d7} ]{0,90}",
            ),
        ) {
            check(&text);
        }
    }
}
