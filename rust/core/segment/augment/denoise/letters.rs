//! Letters that take the place of others: a neighbour on the keyboard, or a letter of the same
//! script that the text has.

use std::ops::Range;
use std::sync::LazyLock;

use super::super::super::characters::Characters;
use super::super::draws::Draws;
use super::super::texts::{Clusters, is_letter};

/// Places of a text that are looked at for another letter.
const TRIES: usize = 8;
/// The rows of a keyboard.
const ROWS: [&str; 3] = ["qwertyuiop", "asdfghjkl", "zxcvbnm"];
/// Scripts of living languages. Letters of others are of one script if they lie close together.
const SCRIPTS: [&str; 40] = [
    "Latn", "Arab", "Ethi", "Nkoo", "Tfng", "Vaii", "Adlm", "Bamu", "Mend", "Osge", "Copt", "Grek",
    "Cyrl", "Armn", "Geor", "Hebr", "Syrc", "Thaa", "Deva", "Beng", "Guru", "Gujr", "Orya", "Taml",
    "Telu", "Knda", "Mlym", "Sinh", "Thai", "Laoo", "Tibt", "Mymr", "Khmr", "Mong", "Cher", "Cans",
    "Hang", "Hira", "Kana", "Hani",
];

/// The letters of each script.
static LETTERS: LazyLock<Vec<Characters>> = LazyLock::new(|| {
    let letters = |script: &&str| Characters::of(&format!(r"\p{{sc={script}}}"));
    SCRIPTS.iter().map(|script| letters(script).expect("a script of Unicode")).collect()
});

/// Returns a letter for the place of a cluster of `text`; `None` if none is found.
pub(super) fn replacement(text: &str, cluster: Range<usize>, draws: &mut Draws) -> Option<String> {
    let old = &text[cluster];
    let letter = old.chars().next()?;
    if draws.draw().is_multiple_of(2)
        && let Some(near) = neighbour(letter, draws)
    {
        return Some(near.to_string());
    }
    let is_other = |found: &&str| {
        *found != old && found.chars().next().is_some_and(|other| are_alike(letter, other))
    };
    (0..TRIES)
        .find_map(|_| cluster_at(text, draws.below(text.len())).filter(is_other))
        .map(str::to_owned)
}

/// Returns a neighbour of an ASCII letter on the keyboard, in its case.
fn neighbour(letter: char, draws: &mut Draws) -> Option<char> {
    let lower = letter.to_ascii_lowercase();
    let row = ROWS.iter().position(|row| row.contains(lower))?;
    let place = ROWS[row].find(lower)?;
    let mut near: Vec<char> = Vec::new();
    for (other, keys) in ROWS.iter().enumerate().filter(|(other, _)| other.abs_diff(row) < 2) {
        // A lower row begins half a key to the right.
        let first = if other < row { place } else { place.saturating_sub(1) };
        let last = if other > row { place } else { place + 1 };
        near.extend(keys.chars().skip(first).take(last + 1 - first).filter(|key| *key != lower));
    }
    let near = near[draws.below(near.len())];
    Some(if letter.is_ascii_uppercase() { near.to_ascii_uppercase() } else { near })
}

/// Returns the letter of `text` at a byte, with its marks; `None` if there is none.
fn cluster_at(text: &str, mut byte: usize) -> Option<&str> {
    while !text.is_char_boundary(byte) {
        byte -= 1;
    }
    let rest = &text[byte..];
    rest.starts_with(is_letter)
        .then(|| Clusters::of(rest).next())
        .flatten()
        .map(|range| &rest[range])
}

/// Returns whether two letters are of one script and one case.
fn are_alike(one: char, two: char) -> bool {
    let script = |letter: char| LETTERS.iter().position(|letters| letters.contains(letter));
    let case = |letter: char| (letter.is_uppercase(), letter.is_lowercase());
    let close = |letter: char| u32::from(letter) >> 7;
    let are_of_one = match (script(one), script(two)) {
        (None, None) => close(one) == close(two),
        (one, two) => one == two,
    };
    are_of_one && case(one) == case(two)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns all neighbours of a letter.
    fn neighbours(letter: char) -> String {
        let mut draws = Draws::new(1);
        let mut all: Vec<char> = (0..200).filter_map(|_| neighbour(letter, &mut draws)).collect();
        all.sort_unstable();
        all.dedup();
        all.into_iter().collect()
    }

    #[test]
    fn neighbours_lie_around_their_key() {
        for (letter, expected) in [
            ('g', "bfhtvy"),
            ('q', "aw"),
            ('p', "lo"),
            ('a', "qswz"),
            ('m', "jkn"),
            ('G', "BFHTVY"),
        ] {
            assert_eq!(neighbours(letter), expected, "{letter}");
        }
        assert_eq!(neighbours('ẹ'), "");
    }

    #[test]
    fn a_letter_is_replaced_by_one_of_its_script_and_case() {
        assert!(are_alike('ẹ', 'a') && are_alike('ሀ', 'ለ') && are_alike('ه', 'و'));
        assert!(!are_alike('ẹ', 'A') && !are_alike('a', 'а') && !are_alike('ሀ', 'a'));
        let text = "ẹ́ 1 ሀ Ọ̀ ṣ";
        let mut draws = Draws::new(3);
        for _ in 0..200 {
            let other = replacement(text, 0.."ẹ́".len(), &mut draws);
            assert!(other.as_deref().is_none_or(|other| other == "ṣ"), "{other:?}");
        }
        assert!((0..50).any(|_| replacement(text, 0.."ẹ́".len(), &mut draws).is_some()));
    }
}
