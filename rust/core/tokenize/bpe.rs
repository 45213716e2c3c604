//! Trains a byte-level BPE on a corpus with the `tokenizers` library.
//!
//! The split pattern keeps combining marks with their letters. GPT-2's `\p{L}+` cuts a Yorùbá word
//! at each tone mark that has no precomposed form: MAFAND Yorùbá then takes a quarter more tokens
//! (measured: `benches/README.md`).

use std::sync::LazyLock;

use regex::Regex;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::utils::parallelism::set_parallelism;
use tokenizers::{AddedToken, SplitDelimiterBehavior, TokenizerBuilder};

use crate::error::{Error, Result};

/// Matches a word with the character before it (letters with their marks), digits by threes,
/// punctuation, white space.
pub(crate) const PATTERN: &str = concat!(
    r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+|\p{N}{1,3}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|",
    r"\s*[\r\n]+|\s+(?!\S)|\s+",
);

static TAG: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"<[^\s<>{}%'"]+>"#).expect("a valid pattern"));

/// A trained tokenizer.
#[derive(Debug)]
pub struct TrainedTokenizer {
    /// The bytes of a tokenizer.json.
    pub json: Vec<u8>,
    /// The number of entries, special tokens included.
    pub(crate) vocab_size: usize,
}

/// Returns the tags that templates spell, each once, in order of first use.
pub(crate) fn tags_of<'a>(templates: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut tags: Vec<String> = Vec::new();
    for found in templates.flat_map(|template| TAG.find_iter(template)) {
        if !tags.iter().any(|tag| tag == found.as_str()) {
            tags.push(found.as_str().to_owned());
        }
    }
    tags
}

/// Makes the library train on the calling thread if the system cannot start threads; otherwise the
/// library would panic.
fn spare_threads() {
    let pool = rayon::ThreadPoolBuilder::new().build_global();
    // A pool that exists already is no failure of the system: that error has no source.
    if pool.is_err_and(|error| std::error::Error::source(&error).is_some()) {
        set_parallelism(false);
    }
}

/// Trains a tokenizer on `texts`. Each of `specials` becomes a special token, the first with id 0.
pub fn train_bpe(
    texts: impl Iterator<Item = String> + Send,
    vocab_size: usize,
    specials: &[String],
) -> Result<TrainedTokenizer> {
    // Every byte must have a token, or some text could not be spelled.
    let least = 256 + specials.len();
    if vocab_size < least {
        return Err(Error::config(format!(
            "a vocabulary of {vocab_size} cannot hold 256 bytes and the special tokens ({})",
            specials.len()
        ))
        .remedy(format!("ask for at least {least}, better 8,000 and more")));
    }
    // Before the library starts its pool: it cannot recover from a missing thread.
    spare_threads();
    let failed = |error: tokenizers::Error| Error::tokenizer(format!("training failed: {error}"));
    let split = Split::new(
        SplitPattern::Regex(PATTERN.to_owned()),
        SplitDelimiterBehavior::Isolated,
        false,
    )
    .map_err(failed)?;
    // No prefix space: a target starts with its own space, or with none.
    let bytes = ByteLevel::new(false, false, false);
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(Some(NFC))
        .with_pre_tokenizer(Some(Sequence::new(vec![split.into(), bytes.into()])))
        .with_post_processor(None::<ByteLevel>)
        .with_decoder(Some(bytes))
        .build()
        .map_err(failed)?;
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        // Pairs that occur once would fill the vocabulary with single words.
        .min_frequency(2)
        .show_progress(false)
        // All bytes from the start, also those that the corpus lacks.
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(
            specials.iter().map(|token| AddedToken::from(token.clone(), true)).collect(),
        )
        .build();
    tokenizer.train(&mut trainer, texts).map_err(failed)?;
    let vocab_size = tokenizer.get_vocab_size(true);
    let json = tokenizer.to_string(true).map_err(failed)?.into_bytes();
    Ok(TrainedTokenizer { json, vocab_size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_in_literals_and_in_expressions() {
        let templates =
            ["<translate> {{ a }} <yor>:", "{{ '<|im|>' + x }}{% if a < b %}>{% endif %}", "<yor>"];
        assert_eq!(tags_of(templates.into_iter()), ["<translate>", "<yor>", "<|im|>"]);
    }
}
