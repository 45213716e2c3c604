//! `Diacritize`: a text without its marks.
//!
//! The marks are those of Unicode's category Mn, once letters are taken apart (NFD): tone marks and
//! underdots, the vowel signs of Arabic script. Variation selectors stay: they shape emoji.

use std::sync::LazyLock;

use unicode_normalization::{UnicodeNormalization, is_nfc, is_nfd};

use super::super::characters::Characters;
use super::draws::Draws;
use super::texts::{ends_of_words, marks_end, plain};
use super::{Augmentation, Augmenting, refused};
use crate::plan::Underdots;

/// The marks below letters, which tell letters apart.
const UNDERDOTS: [char; 2] = ['\u{323}', '\u{329}'];
/// Marks that are put on letters.
static MARKS: LazyLock<Characters> = LazyLock::new(|| {
    let selectors = r"\x{180B}-\x{180D}\x{180F}\x{FE00}-\x{FE0F}\x{E0100}-\x{E01EF}";
    Characters::of(&format!(r"[\p{{Mn}}--[{selectors}]]")).expect("a class of Unicode")
});

/// Plain characters without marks, and with their underdots alone.
static BARE: LazyLock<Vec<char>> = LazyLock::new(|| table(&Diacritize { keeps_underdots: false }));
static DOTTED: LazyLock<Vec<char>> = LazyLock::new(|| table(&Diacritize { keeps_underdots: true }));

/// Strips the marks of a text.
#[derive(Debug)]
pub(super) struct Diacritize {
    keeps_underdots: bool,
}

impl Diacritize {
    /// Returns an augmentation that treats underdots so.
    pub(super) fn new(underdots: Underdots) -> Self {
        Self { keeps_underdots: underdots == Underdots::Keep }
    }

    /// Returns whether a character of a text in NFD is stripped.
    fn is_stripped(&self, char: char) -> bool {
        let is_kept = char.is_ascii() || self.keeps_underdots && UNDERDOTS.contains(&char);
        !is_kept && MARKS.contains(char)
    }

    /// Returns a text without its marks; `None` if it has none.
    fn strip(&self, text: &str) -> Option<String> {
        // A text in NFD stays in it; any other is composed.
        if is_apart(text) {
            let kept: String = text.chars().filter(|char| !self.is_stripped(*char)).collect();
            return (kept.len() < text.len()).then_some(kept);
        }
        let bytes = text.as_bytes();
        let mut out = String::with_capacity(text.len());
        let (mut at, mut is_changed) = (0, false);
        while at < bytes.len() {
            let end = self.plain_end(bytes, at);
            is_changed |= self.push_plain(&text[at..end], &mut out);
            at = other_end(bytes, end);
            is_changed |= self.push_other(&text[end..at], &mut out);
        }
        is_changed.then_some(out)
    }

    /// Returns the end of the plain characters from `at` on, with marks that are all stripped.
    fn plain_end(&self, bytes: &[u8], mut at: usize) -> usize {
        while let Some(len) = plain(bytes, at) {
            let end = marks_end(bytes, at + len);
            let mut marks = bytes[at + len..end].as_chunks().0.iter();
            // A mark that stays may compose with its letter, and the letter with what is not plain.
            let is_kept = self.keeps_underdots && marks.any(|mark| is_underdot(*mark));
            if is_kept || end < bytes.len() && plain(bytes, end).is_none() {
                break;
            }
            at = end;
        }
        at
    }

    /// Appends plain characters without marks. Returns whether they had any.
    fn push_plain(&self, text: &str, out: &mut String) -> bool {
        let bare: &[char] = if self.keeps_underdots { &DOTTED } else { &BARE };
        let mut is_changed = false;
        for char in text.chars() {
            let place = place_of(char);
            is_changed |= place.is_none_or(|place| bare[place] != char);
            out.extend(place.map(|place| bare[place]));
        }
        is_changed
    }

    /// Appends any characters. Returns whether a mark was stripped.
    fn push_other(&self, text: &str, out: &mut String) -> bool {
        let mut is_changed = false;
        let stripped = text.nfd().filter(|char| {
            let is_stripped = self.is_stripped(*char);
            is_changed |= is_stripped;
            !is_stripped
        });
        out.extend(stripped.nfc());
        is_changed
    }
}

/// Returns the place of a plain character in tables.
fn place_of(char: char) -> Option<usize> {
    match char {
        '\0'..='\u{2ff}' => Some(char as usize),
        '\u{1e00}'..='\u{1eff}' => Some(char as usize - 0x1e00 + 0x300),
        _ => None,
    }
}

/// Returns each plain character as `diacritize` strips it, by its place.
fn table(diacritize: &Diacritize) -> Vec<char> {
    let strip = |char: char| {
        let kept = std::iter::once(char).nfd().filter(|part| !diacritize.is_stripped(*part));
        // What stays of a letter is one letter.
        kept.nfc().next().unwrap_or(char)
    };
    ('\0'..='\u{2ff}').chain('\u{1e00}'..='\u{1eff}').map(strip).collect()
}

/// Returns whether a text is in NFD and not in NFC.
fn is_apart(text: &str) -> bool {
    // Most texts have a composed letter soon.
    let is_composed = |char: char| place_of(char).is_some_and(|place| BARE[place] != char);
    !text.contains(is_composed) && !is_nfc(text) && is_nfd(text)
}

/// Returns the end of other characters from `at` on, and of a plain one there: the next plain one.
fn other_end(bytes: &[u8], at: usize) -> usize {
    let mut end = at + plain(bytes, at).unwrap_or(0);
    while end < bytes.len() && plain(bytes, end).is_none() {
        end += 1;
    }
    end
}

/// Returns whether two bytes are a mark of [`UNDERDOTS`].
fn is_underdot(mark: [u8; 2]) -> bool {
    matches!(mark, [0xcc, 0xa3 | 0xa9])
}

impl Augmentation for Diacritize {
    fn make(&self, text: &str, _: char, _: &mut Draws) -> Augmenting<Vec<String>> {
        Ok(vec![self.strip(text).ok_or_else(|| refused("the text has no marks"))?])
    }

    fn cuts(&self, text: &str) -> Vec<usize> {
        let mut cuts = ends_of_words(text);
        // Before the first mark there is nothing to restore. The words up to it are tried in turn,
        // each once.
        let mut start = 0;
        let is_marked =
            |end: &usize| self.strip(&text[std::mem::replace(&mut start, *end)..*end]).is_some();
        let first = cuts.iter().position(is_marked).unwrap_or(cuts.len());
        cuts.drain(..first);
        cuts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn strip(underdots: Underdots, text: &str) -> Option<String> {
        Diacritize::new(underdots).strip(text)
    }

    #[test]
    fn marks_are_stripped_whatever_the_form_and_nothing_else() {
        use Underdots::{Keep, Strip};
        for (text, bare, dotted) in [
            ("Ẹ̀kọ́ ṣe é", "Eko se e", "Ẹkọ ṣe e"),
            // In NFD it stays in NFD.
            ("E\u{323}\u{300}ko\u{323}\u{301}", "Eko", "E\u{323}ko\u{323}"),
            ("é\u{329}", "e", "e\u{329}"),
            ("ọmọ", "omo", "ọmọ"),
            ("هَوْسَ", "هوس", "هوس"),
            ("각 ❤\u{fe0f} é", "각 ❤\u{fe0f} e", "각 ❤\u{fe0f} e"),
            ("ɓɗƙ ŋ ø é", "ɓɗƙ ŋ ø e", "ɓɗƙ ŋ ø e"),
        ] {
            assert_eq!(strip(Strip, text).as_deref(), Some(bare), "{text}");
            let expected = (dotted != text).then_some(dotted);
            assert_eq!(strip(Keep, text).as_deref(), expected, "{text}");
        }
        for text in ["omo ni", "ɓɗƙ", "❤\u{fe0f}", "각"] {
            assert_eq!(strip(Strip, text), None, "{text}");
        }
    }

    #[test]
    fn a_cut_leaves_a_mark() {
        let diacritize = Diacritize::new(Underdots::Strip);
        let text = "omo ni mo ṣe ni ile";
        let cuts: Vec<&str> = diacritize.cuts(text).into_iter().map(|end| &text[..end]).collect();
        assert_eq!(cuts, ["omo ni mo ṣe", "omo ni mo ṣe ni"]);
        assert_eq!(diacritize.cuts("omo ṣe"), [] as [usize; 0]);
    }

    #[test]
    fn every_plain_character_is_stripped_to_one() {
        for diacritize in [Underdots::Keep, Underdots::Strip].map(Diacritize::new) {
            for char in ('\0'..='\u{2ff}').chain('\u{1e00}'..='\u{1eff}') {
                let apart = std::iter::once(char).nfd();
                let whole: String =
                    apart.filter(|part| !diacritize.is_stripped(*part)).nfc().collect();
                let expected = (whole != char.to_string()).then_some(whole);
                assert_eq!(diacritize.strip(&char.to_string()), expected, "{char:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn stretches_change_nothing(
            text in "([a-zọẹṣẸéàḅ각 \u{300}\u{301}\u{323}\u{329}\u{345}\u{1112}\u{1161}\u{fe0f}]\
                     |.){0,16}",
        ) {
            for underdots in [Underdots::Keep, Underdots::Strip] {
                let diacritize = Diacritize::new(underdots);
                let apart = text.nfd().filter(|char| !diacritize.is_stripped(*char));
                let is_apart = !is_nfc(&text) && is_nfd(&text);
                let whole: String =
                    if is_apart { apart.collect() } else { apart.nfc().collect() };
                let is_marked = text.nfd().any(|char| diacritize.is_stripped(char));
                prop_assert_eq!(diacritize.strip(&text), is_marked.then_some(whole));
            }
        }
    }
}
