//! `Denoise`: a text with seeded noise in its letters, words and spaces.
//!
//! Letters alone are changed, with the marks on them: no model could restore a digit. A cluster is
//! never split. Whatever is drawn, a word that is not dropped keeps a cluster, and the text a word.

mod letters;

use std::ops::Range;

use super::draws::{Draws, Shares};
use super::texts::{Clusters, is_letter, words};
use super::{Augmentation, Augmenting};
use crate::plan::Noise;
use letters::replacement;

/// Makes a text noisy.
#[derive(Debug)]
pub(super) struct Denoise {
    chars: Shares<4>,
    words: Shares<5>,
}

/// Kinds of noise in letters, in the order of their rates.
const DROP: usize = 0;
const SWAP: usize = 1;
const REPEAT: usize = 2;
const REPLACE: usize = 3;

/// Kinds of noise in words and spaces, in the order of their rates.
const WORD_DROP: usize = 0;
const WORD_SWAP: usize = 1;
const WORD_JOIN: usize = 2;
const SPACE_SPLIT: usize = 3;
const SPACE_DOUBLE: usize = 4;

impl Denoise {
    /// Returns an augmentation with these rates.
    pub(super) fn new(noise: &Noise) -> Self {
        Self { chars: Shares::new(noise.chars()), words: Shares::new(noise.words()) }
    }
}

/// A text that is made noisy, and the draws of its record.
struct Noisy<'a> {
    denoise: &'a Denoise,
    text: &'a str,
    draws: &'a mut Draws,
    /// The clusters of the word at hand.
    clusters: Vec<Range<usize>>,
    out: String,
}

impl Noisy<'_> {
    /// Appends the words, each with the space behind it.
    fn push_words(&mut self, words: &[Range<usize>]) {
        let mut nth = 0;
        while nth < words.len() {
            let (word, space) = (words[nth].clone(), self.space_behind(words, nth));
            nth += 1;
            let is_last = nth == words.len();
            // Words of two lines stay apart.
            let is_between = !is_last && !self.text[space.clone()].contains('\n');
            match self.draws.among(&self.denoise.words) {
                Some(WORD_DROP) if !is_last || !self.out.trim().is_empty() => {}
                Some(WORD_SWAP) if is_between => {
                    self.push_word(words[nth].clone());
                    self.push(space);
                    self.push_word(word);
                    self.push(self.space_behind(words, nth));
                    nth += 1;
                }
                Some(WORD_JOIN) if is_between => self.push_word(word),
                Some(SPACE_SPLIT) => {
                    self.push_split(word);
                    self.push(space);
                }
                kind => {
                    self.push_word(word);
                    self.push(space);
                    if kind == Some(SPACE_DOUBLE) && is_between {
                        self.out.push(' ');
                    }
                }
            }
        }
    }

    /// Returns the space behind word `nth`.
    fn space_behind(&self, words: &[Range<usize>], nth: usize) -> Range<usize> {
        words[nth].end..words.get(nth + 1).map_or(self.text.len(), |next| next.start)
    }

    /// Appends a stretch of the text as it is.
    fn push(&mut self, range: Range<usize>) {
        self.out.push_str(&self.text[range]);
    }

    /// Appends a word in two, where it has two clusters.
    fn push_split(&mut self, word: Range<usize>) {
        let clusters: Vec<Range<usize>> = Clusters::of(&self.text[word.clone()]).collect();
        if clusters.len() < 2 {
            return self.push_word(word);
        }
        let place = word.start + clusters[1 + self.draws.below(clusters.len() - 1)].start;
        self.push_word(word.start..place);
        self.out.push(' ');
        self.push_word(place..word.end);
    }

    /// Appends a word with noise in its letters.
    fn push_word(&mut self, word: Range<usize>) {
        let mut clusters = std::mem::take(&mut self.clusters);
        clusters.clear();
        let start = word.start;
        let place = |range: Range<usize>| start + range.start..start + range.end;
        clusters.extend(Clusters::of(&self.text[word]).map(place));
        let (mut nth, before) = (0, self.out.len());
        // The clusters from here on are pushed as they are, together.
        let mut kept = nth;
        while nth < clusters.len() {
            let noise = if self.text[clusters[nth].clone()].starts_with(is_letter) {
                self.draws.among(&self.denoise.chars)
            } else {
                None
            };
            let Some(noise) = noise else {
                nth += 1;
                continue;
            };
            self.push_clusters(&clusters[kept..nth]);
            let is_only = nth + 1 == clusters.len() && self.out.len() == before;
            nth += self.push_noisy(noise, &clusters, nth, is_only);
            kept = nth;
        }
        self.push_clusters(&clusters[kept..]);
        self.clusters = clusters;
    }

    /// Appends clusters that follow one another as they are.
    fn push_clusters(&mut self, clusters: &[Range<usize>]) {
        if let (Some(first), Some(last)) = (clusters.first(), clusters.last()) {
            self.push(first.start..last.end);
        }
    }

    /// Appends a cluster of a word with noise, or two if they change places. Returns their number.
    /// `is_only` says that the word would be lost without the cluster.
    fn push_noisy(
        &mut self,
        noise: usize,
        clusters: &[Range<usize>],
        nth: usize,
        is_only: bool,
    ) -> usize {
        let cluster = clusters[nth].clone();
        match noise {
            DROP if !is_only => {}
            SWAP => {
                let next = clusters.get(nth + 1).cloned();
                if let Some(next) =
                    next.filter(|next| self.text[next.clone()].starts_with(is_letter))
                {
                    self.push(next);
                    self.push(cluster);
                    return 2;
                }
                self.push(cluster);
            }
            REPEAT => {
                self.push(cluster.clone());
                self.push(cluster);
            }
            REPLACE => {
                let other = replacement(self.text, cluster.clone(), self.draws);
                self.out.push_str(other.as_deref().unwrap_or(&self.text[cluster]));
            }
            _ => self.push(cluster),
        }
        1
    }
}

impl Augmentation for Denoise {
    fn make(&self, text: &str, _: char, draws: &mut Draws) -> Augmenting<Vec<String>> {
        let out = String::with_capacity(text.len() + text.len() / 8);
        let mut noisy = Noisy { denoise: self, text, draws, clusters: Vec::new(), out };
        noisy.push_words(&words(text));
        let mut out = noisy.out;
        out.truncate(out.trim_end().len());
        Ok(vec![out])
    }
}
