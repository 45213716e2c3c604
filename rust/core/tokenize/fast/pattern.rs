//! `Rules`: the meaning of a split pattern, for the known patterns.
//!
//! A pattern is known if it is, character for character, a sequence of alternatives listed here.
//! `split` applies the rules.

use super::classes::{CASELESS, LOWER, MARK, UPPER};

/// The pattern of GPT-2, which `ByteLevel` has built in.
pub(crate) const GPT2: &str =
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// The way in which `'s`, `'re` and similar endings are recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contraction {
    /// Never.
    None,
    /// In lower case only.
    Exact,
    /// In either case, ASCII letters only.
    Ascii,
    /// In any case, folded as the regex engine folds it.
    Folded,
}

/// The shape of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// A space may go before words, numbers and punctuation (GPT-2).
    Gpt2,
    /// Any character but a letter, a number or a line end may go before a word (cl100k and after).
    Cl100k,
    /// As `Cl100k`, and words are split where lower case turns to upper case; contractions stay
    /// with their word (o200k).
    O200k,
}

/// A split pattern as rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// The shape of words.
    pub(crate) family: Family,
    /// The way in which contractions are recognised.
    pub(crate) contraction: Contraction,
    /// The classes of characters that make words, a bit each.
    pub(crate) word: u8,
    /// The most digits in one word.
    pub(crate) digits: usize,
    /// Whether a mark outside a word counts as punctuation.
    pub(crate) marks_are_other: bool,
    /// Whether slashes stay with the punctuation before them, as line ends do.
    pub(crate) slashes: bool,
}

const LETTERS: u8 = 1 << LOWER | 1 << UPPER | 1 << CASELESS;
const WITH_MARKS: u8 = LETTERS | 1 << MARK;

// Each table maps the spellings of one alternative to its rule. `take` uses the first entry that
// fits, so an empty spelling comes last.
const CONTRACTIONS: [(&str, Contraction); 4] = [
    (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|", Contraction::Folded),
    (r"'(?i:[sdmt]|ll|ve|re)|", Contraction::Folded),
    (r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|", Contraction::Ascii),
    ("", Contraction::None),
];
const WORDS: [(&str, u8); 3] = [
    (r"[^\r\n\p{L}\p{N}]?\p{L}+|", LETTERS),
    (r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|", WITH_MARKS),
    (r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+|", WITH_MARKS),
];
const DIGITS: [(&str, usize); 5] = [
    (r"\p{N}{1,3}|", 3),
    (r"\p{N}{1,2}|", 2),
    (r"\p{N}{1}|", 1),
    (r"\p{N}+|", usize::MAX),
    (r"\p{N}|", 1),
];
const OTHERS: [(&str, bool); 2] =
    [(r" ?[^\s\p{L}\p{N}]+[\r\n]*|", true), (r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|", false)];
const SPACES: &str = r"\s*[\r\n]+|\s+(?!\S)|\s+";

const O200K_WORDS: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|",
);
const O200K_OTHERS: &str = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|";

impl Rules {
    /// The rules of GPT-2's pattern.
    pub(crate) const GPT2: Self = Self {
        family: Family::Gpt2,
        contraction: Contraction::Exact,
        word: LETTERS,
        digits: usize::MAX,
        marks_are_other: true,
        slashes: false,
    };

    /// Returns the rules of `pattern`, if it is known.
    pub(crate) fn of(pattern: &str) -> Option<Self> {
        if pattern == GPT2 {
            return Some(Self::GPT2);
        }
        // o200k has contractions inside its words, and shares only digits and spaces with cl100k.
        if let Some(rest) = pattern.strip_prefix(O200K_WORDS) {
            let (digits, rest) = take(rest, &DIGITS)?;
            let known = rest.strip_prefix(O200K_OTHERS)? == SPACES;
            return known.then_some(Self {
                family: Family::O200k,
                contraction: Contraction::Folded,
                word: WITH_MARKS,
                digits,
                marks_are_other: true,
                slashes: true,
            });
        }
        let (contraction, rest) = take(pattern, &CONTRACTIONS)?;
        let (word, rest) = take(rest, &WORDS)?;
        let (digits, rest) = take(rest, &DIGITS)?;
        let (marks_are_other, rest) = take(rest, &OTHERS)?;
        let rules = Self {
            family: Family::Cl100k,
            contraction,
            word,
            digits,
            marks_are_other,
            slashes: false,
        };
        // A mark must be in a word or in punctuation: otherwise some text would match nothing.
        (rest == SPACES && (marks_are_other || word == WITH_MARKS)).then_some(rules)
    }
}

/// Returns the value of the first entry that `text` starts with, and the text after it.
fn take<'a, T: Copy>(text: &'a str, entries: &[(&str, T)]) -> Option<(T, &'a str)> {
    entries.iter().find_map(|(prefix, value)| Some((*value, text.strip_prefix(prefix)?)))
}

/// Returns every known pattern.
#[cfg(test)]
pub(crate) fn known() -> Vec<String> {
    let mut patterns = vec![GPT2.to_owned()];
    for (digits, _) in DIGITS {
        patterns.push(format!("{O200K_WORDS}{digits}{O200K_OTHERS}{SPACES}"));
        for (contraction, _) in CONTRACTIONS {
            for (word, _) in WORDS {
                for (other, _) in OTHERS {
                    patterns.push(format!("{contraction}{word}{digits}{other}{SPACES}"));
                }
            }
        }
    }
    patterns.retain(|pattern| Rules::of(pattern).is_some());
    patterns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_known_by_every_character() {
        let llama3 = concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
            r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        );
        let rules = Rules::of(llama3).expect("known");
        assert_eq!((rules.family, rules.digits, rules.word), (Family::Cl100k, 3, LETTERS));
        assert!(Rules::of(crate::tokenize::bpe::PATTERN).is_some());
        assert_eq!(Rules::of(&llama3.replace("{1,3}", "{1,4}")), None);
        assert_eq!(Rules::of(&format!("{llama3} ")), None);
        assert_eq!(Rules::of(r"\w+|\s+"), None);
    }
}
