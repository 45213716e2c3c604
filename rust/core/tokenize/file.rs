//! What is refused of a tokenizer.json before the library reads it.
//!
//! The library normalizes each added token while it loads a file, so a file can make it grow texts
//! without end at once.

use serde::Deserialize;
use serde_json::Value;
use tokenizers::NormalizedString;

use super::form::{panicked, unusable};
use super::steps::Steps;
use crate::error::Result;
use crate::panics::caught;

/// The longest added token, in bytes. In use are some hundred.
const LONGEST_TOKEN: usize = 1 << 14;
/// The longest piece of a Unigram model, in bytes: a search from every place of a text may be as
/// long.
const LONGEST_PIECE: usize = 1 << 12;
/// Texts that a post-processor may make of one.
const MOST_SEQUENCES: usize = 16;

/// The parts that can be hostile, without the model.
#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    added_tokens: Vec<Value>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    model: ModelParts,
}

/// Of the model only what tells whether its merges must be looked at.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ModelParts {
    continuing_subword_prefix: Value,
}

/// Refuses a file with which loading, or encoding any text, would not end soon.
pub fn refuse_hostile(bytes: &[u8]) -> Result<()> {
    let parts: Parts = serde_json::from_slice(bytes).map_err(unusable)?;
    let spellings = || parts.added_tokens.iter().filter_map(|token| token["content"].as_str());
    if let Some(long) = spellings().find(|text| text.len() > LONGEST_TOKEN) {
        let start: String = long.chars().take(20).collect();
        let size = long.len();
        return Err(unusable(format!(
            "its added token '{start}…' has {size} bytes; {LONGEST_TOKEN} are the most"
        )));
    }
    if let Some(prefix) =
        parts.model.continuing_subword_prefix.as_str().filter(|prefix| !prefix.is_empty())
    {
        refuse_torn_merges(bytes, prefix.len())?;
    }
    let sequences = count_sequences(&parts.post_processor);
    if sequences > MOST_SEQUENCES {
        return Err(unusable(format!(
            "its post-processor repeats a text {sequences} times; {MOST_SEQUENCES} are the most"
        )));
    }
    if let Some(steps) = Steps::of(&parts.normalizer, &parts.pre_tokenizer).map_err(unusable)? {
        for spelling in spellings() {
            let mut text = NormalizedString::from(spelling);
            caught(|| steps.normalize(&mut text, spelling.len()))
                .unwrap_or_else(|panic| Err(panicked(&panic)))
                .map_err(|why| unusable(format!("its added token {spelling:?}: {why}")))?;
        }
    }
    Ok(())
}

/// Refuses merges of which the model's prefix cuts a character in two: the library takes what is
/// left for text.
fn refuse_torn_merges(bytes: &[u8], prefix: usize) -> Result<()> {
    let file: Value = serde_json::from_slice(bytes).map_err(unusable)?;
    let right = |merge: &'_ Value| -> Option<String> {
        let parts = merge.as_str().and_then(|line| line.split_once(' ')).map(|(_, right)| right);
        parts.or_else(|| merge[1].as_str()).map(str::to_owned)
    };
    let mut rights = file["model"]["merges"].as_array().into_iter().flatten().filter_map(right);
    match rights.find(|right| !right.is_char_boundary(prefix)) {
        None => Ok(()),
        Some(right) => Err(unusable(format!(
            "its merge with {right:?} does not start with its model's prefix"
        ))),
    }
}

/// Refuses a model with which encoding any text may not end soon.
pub fn refuse_long_pieces(model: &Value) -> Result<()> {
    let pieces = model["vocab"].as_array().into_iter().flatten();
    let longest =
        pieces.filter_map(|piece| piece[0].as_str()).map(str::len).max().unwrap_or_default();
    if longest > LONGEST_PIECE {
        return Err(unusable(format!(
            "its model has a piece of {longest} bytes; {LONGEST_PIECE} are the most"
        )));
    }
    Ok(())
}

/// How often the templates of a post-processor repeat a text, at most.
fn count_sequences(post_processor: &Value) -> usize {
    let nested = post_processor["processors"].as_array().into_iter().flatten().map(count_sequences);
    let own = post_processor["single"].as_array().into_iter().flatten();
    let own = own.filter(|piece| piece.get("Sequence").is_some()).count();
    nested.chain([own]).map(|count| count.max(1)).fold(1, usize::saturating_mul)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(file: &Value) -> String {
        refuse_hostile(file.to_string().as_bytes()).expect_err("hostile").message
    }

    #[test]
    fn what_grows_an_added_token_without_end_is_refused_before_the_library_reads_it() {
        let double = json!({ "type": "Replace", "pattern": { "String": "a" }, "content": "aa" });
        let file = json!({
            "added_tokens": [{ "content": "<a>", "normalized": true }],
            "normalizer": { "type": "Sequence", "normalizers": vec![double; 60] },
        });
        assert!(refused(&file).contains("its normalizer makes"), "{}", refused(&file));
        let many = json!({ "added_tokens": [{ "content": "a".repeat(1 << 20) }] });
        assert!(refused(&many).contains("has 1048576 bytes"), "{}", refused(&many));
        let pieces = vec![json!({ "Sequence": { "id": "A", "type_id": 0 } }); 5];
        let template = json!({ "type": "TemplateProcessing", "single": pieces });
        let repeats = json!({ "post_processor": { "type": "Sequence", "processors": [template.clone(), template] } });
        assert!(refused(&repeats).contains("25 times"), "{}", refused(&repeats));
        assert!(refuse_hostile(b"{}").is_ok());
        let model =
            json!({ "continuing_subword_prefix": "#", "merges": [["a", "#b"], ["a", "\u{105}"]] });
        let torn = refused(&json!({ "model": model }));
        assert!(torn.contains("does not start with its model's prefix"), "{torn}");
    }
}
