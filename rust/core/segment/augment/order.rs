//! `Order`: the sentences of a text in another order, each with a number.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use super::draws::Draws;
use super::texts::has_letter;
use super::{Augmentation, Augmenting, refused};

/// Orders that are tried before one is made by hand: with two sentences, half of them are right.
const TRIES: usize = 32;

/// Shuffles the sentences of a text, as UAX #29 bounds them.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) min_sentences: usize,
}

impl Augmentation for Order {
    fn make(&self, text: &str, _: char, draws: &mut Draws) -> Augmenting<Vec<String>> {
        let sentences = sentences(text);
        let count = sentences.len();
        if count < self.min_sentences {
            let why = format!("sentences {count}, at least {}", self.min_sentences);
            return Err(refused(why));
        }
        let shown = other_order(count, draws);
        let mut shuffled = String::with_capacity(text.len() + 5 * count);
        // The number of each sentence among those shown, by its place in the text.
        let mut numbers = vec![0; count];
        for (nth, &sentence) in shown.iter().enumerate() {
            let space = if nth == 0 { "" } else { " " };
            let words = text[sentences[sentence].clone()].trim();
            shuffled.extend([space, "[", &(nth + 1).to_string(), "] ", words]);
            numbers[sentence] = nth + 1;
        }
        let numbers: Vec<String> = numbers.iter().map(usize::to_string).collect();
        Ok(vec![shuffled, numbers.join(" ")])
    }

    fn cuts(&self, text: &str) -> Vec<usize> {
        let mut sentences = sentences(text);
        sentences.pop();
        let enough = sentences.into_iter().skip(self.min_sentences - 1);
        enough.map(|sentence| text[..sentence.end].trim_end().len()).collect()
    }
}

/// Returns the sentences of a text, as ranges of bytes that cover it. One without a letter, such as
/// a closing quotation mark, is part of the one before.
fn sentences(text: &str) -> Vec<Range<usize>> {
    let mut sentences: Vec<Range<usize>> = Vec::new();
    let mut is_begun = false;
    for (start, sentence) in text.split_sentence_bound_indices() {
        let end = start + sentence.len();
        let is_own = is_begun && has_letter(sentence);
        is_begun |= has_letter(sentence);
        match sentences.last_mut() {
            Some(last) if !is_own => last.end = end,
            _ => sentences.push(start..end),
        }
    }
    sentences
}

/// Returns numbers below `count`, at least 2, in another order than their own.
fn other_order(count: usize, draws: &mut Draws) -> Vec<usize> {
    for _ in 0..TRIES {
        let order = draws.shuffled(count);
        if !order.is_sorted() {
            return order;
        }
    }
    (0..count).rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sentences_end_where_unicode_says_and_marks_alone_are_none() {
        for (text, expected) in [
            ("Ó dára. Ṣé o wá? Bẹ́ẹ̀ ni!", vec!["Ó dára. ", "Ṣé o wá? ", "Bẹ́ẹ̀ ni!"]),
            ("“Wá.” “Lọ!”\n…\nÓ tán", vec!["“Wá.” ", "“Lọ!”\n…\n", "Ó tán"]),
            ("— Wá", vec!["— Wá"]),
            ("ሰላም። ለዓለም።", vec!["ሰላም። ", "ለዓለም።"]),
            ("3.5 km ni. ok", vec!["3.5 km ni. ok"]),
        ] {
            let found: Vec<&str> = sentences(text).into_iter().map(|range| &text[range]).collect();
            assert_eq!(found, expected);
        }
    }

    proptest! {
        #[test]
        fn sentences_cover_the_text(text in "([a-cẸ.?!”\n ]|.){0,24}") {
            let mut end = 0;
            for sentence in sentences(&text) {
                prop_assert_eq!(sentence.start, end);
                end = sentence.end;
            }
            prop_assert_eq!(end, text.len());
        }

        #[test]
        fn another_order_is_never_their_own(key: u64, count in 2usize..6) {
            prop_assert!(!other_order(count, &mut Draws::new(key)).is_sorted());
        }
    }
}
