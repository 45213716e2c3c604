//! Refuses hostile tokenizer files before the library reads them.
//!
//! The library normalizes each added token while it loads a file. So a file can make a text grow
//! without end before anything is encoded.

use serde::Deserialize;
use serde_json::Value;
use tokenizers::NormalizedString;

use super::form::{panicked, unusable};
use super::steps::Steps;
use crate::error::Result;
use crate::panics::caught;

/// The longest added token in bytes. Tokenizers in use have at most some hundred.
const LONGEST_TOKEN: usize = 1 << 14;
/// The longest token of a Unigram model in bytes: the model may search this far from each byte of a
/// text.
const LONGEST_PIECE: usize = 1 << 12;
/// The most copies of a text that a post-processor may produce.
const MOST_SEQUENCES: usize = 16;

/// The parts of a file that can be hostile, except the model.
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

/// The part of the model that decides whether its merges are checked.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ModelParts {
    continuing_subword_prefix: Value,
}

/// Refuses a file for which loading or encoding might not end soon.
pub(crate) fn refuse_hostile(bytes: &[u8]) -> Result<()> {
    let parts: Parts = serde_json::from_slice(bytes).map_err(unusable)?;
    let spellings = || parts.added_tokens.iter().filter_map(|token| token["content"].as_str());
    // Length first: each later check costs time in proportion to it.
    if let Some(long) = spellings().find(|text| text.len() > LONGEST_TOKEN) {
        let start: String = long.chars().take(20).collect();
        let size = long.len();
        return Err(unusable(format!(
            "its added token '{start}…' has {size} bytes; {LONGEST_TOKEN} are the most"
        )));
    }
    // Parsing the merges takes long, so only models with a prefix pay for it.
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
    // Steps that can grow a text are tried on the added tokens with their bounds; the library would
    // take the same steps without any.
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

/// Refuses merges in which the model's prefix ends inside a character: the library would slice a
/// string there and panic.
fn refuse_torn_merges(bytes: &[u8], prefix: usize) -> Result<()> {
    let file: Value = serde_json::from_slice(bytes).map_err(unusable)?;
    let right = |merge: &'_ Value| -> Option<String> {
        // Older files write a merge as one string, newer ones as a list of two.
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

/// Refuses a model with tokens so long that encoding might not end soon.
pub(crate) fn refuse_long_pieces(model: &Value) -> Result<()> {
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

/// Returns the most copies of a text that the templates of a post-processor can produce.
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
        let processors = [template.clone(), template];
        let repeats = json!({ "post_processor": { "type": "Sequence", "processors": processors } });
        assert!(refused(&repeats).contains("25 times"), "{}", refused(&repeats));
        assert!(refuse_hostile(b"{}").is_ok());
        let model =
            json!({ "continuing_subword_prefix": "#", "merges": [["a", "#b"], ["a", "\u{105}"]] });
        let torn = refused(&json!({ "model": model }));
        assert!(torn.contains("does not start with its model's prefix"), "{torn}");
    }
}
