//! Measures of a text: its words, its lines, and how much of it repeats.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// The space between words of Ethiopic texts, which is no white space to Unicode.
const ETHIOPIC_SPACE: char = '\u{1361}';

/// Returns the words of a text: its stretches between white space.
pub(super) fn words(text: &str) -> Vec<&str> {
    let is_space = |char: char| char.is_whitespace() || char == ETHIOPIC_SPACE;
    text.split(is_space).filter(|word| !word.is_empty()).collect()
}

/// Returns the lines of a text without white space around them, blank lines aside.
pub(super) fn lines(text: &str) -> Vec<&str> {
    text.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect()
}

/// Returns the paragraphs of a text, which empty lines part, as [`lines`] returns lines.
pub(super) fn paragraphs(text: &str) -> Vec<&str> {
    text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty()).collect()
}

/// Returns the number of characters.
pub(super) fn chars(text: &str) -> u64 {
    text.chars().count() as u64
}

/// Returns a part as a share of a whole; 0 if the whole is nothing.
pub(super) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Texts that repeat earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Repeated {
    /// Their number.
    pub(super) count: u64,
    /// Their characters.
    pub(super) chars: u64,
}

impl Repeated {
    /// Finds the texts that repeat earlier ones.
    pub(super) fn of(texts: &[&str]) -> Self {
        let mut known = HashSet::new();
        let mut repeated = Self { count: 0, chars: 0 };
        for text in texts {
            if !known.insert(*text) {
                repeated.count += 1;
                repeated.chars += chars(text);
            }
        }
        repeated
    }
}

/// Numbers distinct things in order of their first occurrence.
#[derive(Debug)]
struct Numbers<T>(HashMap<T, u32>);

impl<T: Hash + Eq> Numbers<T> {
    /// Returns no numbers.
    fn new() -> Self {
        Self(HashMap::new())
    }

    /// Returns the number of a thing.
    fn of(&mut self, thing: T) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry(thing).or_insert(next)
    }
}

/// The n-grams of a text, for one n after another: equal n-grams have equal numbers.
#[derive(Debug)]
pub(super) struct Ngrams {
    /// The number of each word, and its characters.
    words: Vec<(u32, u64)>,
    /// The number of the n-gram at each word.
    grams: Vec<u32>,
    /// The words of these n-grams.
    n: usize,
}

impl Ngrams {
    /// Returns the n-grams of one word.
    pub(super) fn new(words: &[&str]) -> Self {
        let mut numbers = Numbers::new();
        let words: Vec<(u32, u64)> =
            words.iter().map(|word| (numbers.of(*word), chars(word))).collect();
        let grams = words.iter().map(|(word, _)| *word).collect();
        Self { words, grams, n: 1 }
    }

    /// Goes on to the n-grams of `n` words, which are at least those of before.
    pub(super) fn advance_to(&mut self, n: usize) {
        while self.n < n && !self.grams.is_empty() {
            // An n-gram is the one of a word less, and its last word.
            let mut numbers = Numbers::new();
            let lasts = self.words.iter().skip(self.n);
            let pairs = self.grams.iter().zip(lasts);
            self.grams = pairs.map(|(gram, (last, _))| numbers.of((*gram, *last))).collect();
            self.n += 1;
        }
    }

    /// Returns the characters of the n-gram at a word, without spaces.
    fn chars_at(&self, index: usize) -> u64 {
        self.words[index..index + self.n].iter().map(|(_, chars)| chars).sum()
    }

    /// Returns the characters that the most frequent n-gram takes in all its places, with a space
    /// between words; 0 if no n-gram comes twice. Of several that are as frequent, the longest.
    pub(super) fn top(&self) -> u64 {
        let mut counts: HashMap<u32, (u64, usize)> = HashMap::new();
        for (index, gram) in self.grams.iter().enumerate() {
            counts.entry(*gram).or_insert((0, index)).0 += 1;
        }
        let repeated = counts.values().filter(|(count, _)| *count > 1);
        let chars = |first: usize| self.chars_at(first) + self.n as u64 - 1;
        let top = repeated.map(|&(count, first)| (count, chars(first))).max();
        top.map_or(0, |(count, chars)| count * chars)
    }

    /// Returns the characters of n-grams that repeat earlier ones, without spaces. The words of one
    /// that does count once: the next begins after it.
    pub(super) fn repeated(&self) -> u64 {
        let mut known = HashSet::new();
        let (mut index, mut chars) = (0, 0);
        while index < self.grams.len() {
            if known.insert(self.grams[index]) {
                index += 1;
            } else {
                chars += self.chars_at(index);
                index += self.n;
            }
        }
        chars
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns the characters of repeated n-grams and of the most frequent one, by comparing words.
    fn slowly(words: &[&str], n: usize) -> (u64, u64) {
        let windows: Vec<&[&str]> = words.windows(n).collect();
        let (mut known, mut index, mut repeated) = (Vec::new(), 0, 0);
        while index < windows.len() {
            if known.contains(&windows[index]) {
                repeated += chars(&windows[index].concat());
                index += n;
            } else {
                known.push(windows[index]);
                index += 1;
            }
        }
        let count = |gram: &&[&str]| windows.iter().filter(|other| *other == gram).count() as u64;
        let counted = windows.iter().map(|gram| (count(gram), chars(&gram.join(" "))));
        let top = counted.filter(|(count, _)| *count > 1).max();
        (repeated, top.map_or(0, |(count, chars)| count * chars))
    }

    proptest! {
        #[test]
        fn ngrams_repeat_as_words_compared_one_by_one(
            words in prop::collection::vec(prop::sample::select(vec!["a", "bb", "ẹ\u{301}", "ab", "b"]), 0..40),
            first in 1usize..4,
        ) {
            let mut grams = Ngrams::new(&words);
            for n in first..7 {
                grams.advance_to(n);
                prop_assert_eq!((grams.repeated(), grams.top()), slowly(&words, n));
            }
        }
    }

    #[test]
    fn words_and_lines_are_apart_by_white_space() {
        assert_eq!(words(" a\u{a0}b\u{1361}c\n"), ["a", "b", "c"]);
        assert_eq!(lines(" a \n\n \nb"), ["a", "b"]);
        assert_eq!(paragraphs("a\nb\n\n\n\nc\n\n\nd"), ["a\nb", "c", "d"]);
        assert_eq!(Repeated::of(&["ẹ", "b", "ẹ", "ẹ"]), Repeated { count: 2, chars: 2 });
    }
}
