//! `Continuation`: the start of a text, up to the end of a word, and the rest of it.

use super::draws::Draws;
use super::texts::{ends_of_words, words};
use super::{Augmentation, Augmenting, refused};

/// Parts a text where a seeded share of its words ends.
#[derive(Debug)]
pub(super) struct Continuation {
    pub(super) min_share: f64,
    pub(super) max_share: f64,
}

impl Augmentation for Continuation {
    fn make(&self, text: &str, _: char, draws: &mut Draws) -> Augmenting<Vec<String>> {
        let words = words(text);
        if words.len() < 2 {
            return Err(refused("a text of one word has no rest"));
        }
        let share = self.min_share + (self.max_share - self.min_share) * draws.fraction();
        let given = ((share * words.len() as f64) as usize).clamp(1, words.len() - 1);
        let (start, rest) = (&text[..words[given - 1].end], &text[words[given].start..]);
        Ok(vec![start.to_owned(), rest.to_owned()])
    }

    fn cuts(&self, text: &str) -> Vec<usize> {
        ends_of_words(text).into_iter().skip(1).collect()
    }
}
