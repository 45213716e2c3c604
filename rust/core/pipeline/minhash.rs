//! `MinHash`: the band hashes of a text. Texts with nearly the same n-grams share one.
//!
//! Broder 1997, "On the resemblance and containment of documents": of each of several hash functions
//! a signature holds the least hash of the text's n-grams; two texts agree in a place with the
//! probability of their Jaccard similarity J (shared n-grams among all n-grams of both). The
//! signature is cut into `bands` of `rows` values (Leskovec et al., "Mining of Massive Datasets",
//! 3.4): texts share a band with probability 1 − (1 − J^rows)^bands.
//!
//! A hash function is (a·x + b) mod 2⁶⁴ div 2³², of a 32-bit x (Dietzfelbinger 1996, "Universal
//! hashing and k-wise independent random variables via integer arithmetic without primes").

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::contamination::{any_n_gram_of, words};
use crate::plan::Near;

/// Makes band hashes; holds the buffers that it uses again for each text.
#[derive(Debug)]
pub(crate) struct MinHash {
    near: Near,
    /// The factor and the summand of each hash function.
    functions: Vec<(u64, u64)>,
    /// The least value of each function so far.
    least: Vec<u32>,
}

impl MinHash {
    /// Returns the maker of the band hashes that `near` describes.
    #[must_use]
    pub(crate) fn new(near: Near) -> Self {
        let count = near.bands * near.rows;
        // The functions must be the same for every text that is ever compared.
        let random = |nth: usize| xxh3_64_with_seed(b"minhash", nth as u64);
        let functions = (0..count).map(|nth| (random(2 * nth), random(2 * nth + 1))).collect();
        Self { near, functions, least: vec![u32::MAX; count] }
    }

    /// Returns the band hashes of a text in NFC and lower case. The n-gram of a text with fewer
    /// words are all its words; of a text without words, the text.
    pub(crate) fn bands(&mut self, text: &str) -> Vec<u64> {
        self.least.fill(u32::MAX);
        let mut has_any = false;
        any_n_gram_of(words(text), self.near.ngram, |n_gram| {
            has_any = true;
            self.add(n_gram);
            false
        });
        if !has_any {
            let all: Vec<&str> = words(text).collect();
            let all = if all.is_empty() { text.to_owned() } else { all.join(" ") };
            self.add(xxh3_64(all.as_bytes()));
        }
        let bands = self.least.chunks_exact(self.near.rows).enumerate();
        bands.map(|(nth, values)| band_hash(nth, values)).collect()
    }

    /// Adds an n-gram.
    fn add(&mut self, n_gram: u64) {
        let n_gram = n_gram & u64::from(u32::MAX);
        for (least, (factor, summand)) in self.least.iter_mut().zip(&self.functions) {
            let value = (factor.wrapping_mul(n_gram).wrapping_add(*summand) >> 32) as u32;
            *least = value.min(*least);
        }
    }
}

/// Returns the hash of band `nth` with these values. Bands of different places never meet.
fn band_hash(nth: usize, values: &[u32]) -> u64 {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    xxh3_64_with_seed(&bytes, nth as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn text_of(words: impl Iterator<Item = u32>) -> String {
        words.map(|word| format!("w{word}")).collect::<Vec<_>>().join(" ")
    }

    /// Returns the similarity of two texts by their sets of n-grams.
    fn jaccard(one: &str, other: &str, n: usize) -> f64 {
        let n_grams = |text: &str| -> HashSet<Vec<String>> {
            let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
            words.windows(n).map(<[String]>::to_vec).collect()
        };
        let (one, other) = (n_grams(one), n_grams(other));
        one.intersection(&other).count() as f64 / one.union(&other).count() as f64
    }

    #[test]
    fn values_agree_as_often_as_n_grams_do() {
        // Bands of one row: each is a value of the signature.
        let near = Near { ngram: 2, bands: 512, rows: 1 };
        let mut minhash = MinHash::new(near);
        let one = text_of(0..200);
        for shared in [0, 20, 60, 100, 140, 180, 200_u32] {
            let other = text_of((0..shared).chain(1000..1200 - shared));
            let expected = jaccard(&one, &other, 2);
            let (a, b) = (minhash.bands(&one), minhash.bands(&other));
            let agreed = a.iter().zip(&b).filter(|(a, b)| a == b).count() as f64 / 512.0;
            // Five standard deviations of 512 draws.
            let margin = 5.0 * (expected * (1.0 - expected) / 512.0).sqrt();
            assert!((agreed - expected).abs() <= margin, "{shared}: {agreed} {expected}");
        }
    }

    #[test]
    fn words_alone_count_and_short_texts_are_compared_whole() {
        let mut minhash = MinHash::new(Near::default());
        let mut same = |one: &str, other: &str| minhash.bands(one) == minhash.bands(other);
        assert!(same("a b c d e f", "a, b; c — d (e) f!"));
        assert!(same("a b", "a, b.") && !same("a b", "a b c") && !same("", "!") && same("?", "?"));
    }

    #[test]
    fn a_band_is_shared_with_the_probability_of_the_curve() {
        let near = Near { ngram: 1, ..Near::default() };
        let mut minhash = MinHash::new(near);
        let mut share_of = |similarity: f64| {
            let shared = (similarity * 100.0) as u32;
            let meets = |nth: u32| {
                let one = minhash.bands(&text_of(nth * 1000..nth * 1000 + 100));
                // Of n words each, s shared: J = s / (2n − s).
                let same = shared * 200 / (100 + shared);
                let words = (nth * 1000..nth * 1000 + same).chain(nth * 1000 + 500..);
                let other = minhash.bands(&text_of(words.take(100)));
                one.iter().any(|hash| other.contains(hash))
            };
            (0..400).map(meets).filter(|met| *met).count() as f64 / 400.0
        };
        // 1 − (1 − J⁸)¹⁴
        for (similarity, expected) in [(0.5, 0.053), (0.72, 0.645), (0.75, 0.772), (0.9, 0.999)] {
            let share = share_of(similarity);
            assert!((share - expected).abs() < 0.12, "{similarity}: {share} {expected}");
        }
    }
}
