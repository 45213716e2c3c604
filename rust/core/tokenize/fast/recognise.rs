//! `Recipe`: what a tokenizer.json does around its model, where it is all known to this engine.

use serde_json::Value;

use super::pattern::{GPT2, Rules};

/// Where a space is put before text that does not start with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    /// Nowhere.
    None,
    /// Before the text.
    Text,
    /// Before each word: the text was split first.
    Words,
}

/// What happens to a text before the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    /// Whether it is normalized to NFC.
    pub nfc: bool,
    /// Whether a space goes first.
    pub prefix: Prefix,
    /// How it is split.
    pub rules: Rules,
}

impl Recipe {
    /// The recipe of a tokenizer.json, or what of it this engine does not know.
    pub fn of(json: &Value) -> Result<Self, String> {
        let model = &json["model"];
        if model["type"] != "BPE" {
            return Err(format!("its model is {}, not a BPE", shown(&model["type"])));
        }
        for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
            if model[key].as_str().is_some_and(|affix| !affix.is_empty()) {
                return Err(format!("its model has a {key}"));
            }
        }
        if model["dropout"].as_f64().is_some_and(|dropout| dropout > 0.0) {
            return Err("its model has dropout".to_owned());
        }
        if model["byte_fallback"] == true {
            return Err("its model has byte_fallback".to_owned());
        }
        let nfc = match json["normalizer"]["type"].as_str() {
            None if json["normalizer"].is_null() => false,
            Some("NFC") => true,
            Some("Sequence")
                if json["normalizer"]["normalizers"] == serde_json::json!([{ "type": "NFC" }]) =>
            {
                true
            }
            _ => return Err(format!("its normalizer is {}", shown(&json["normalizer"]["type"]))),
        };
        let whole = std::slice::from_ref(&json["pre_tokenizer"]);
        let parts = json["pre_tokenizer"]["pretokenizers"].as_array().map_or(whole, Vec::as_slice);
        let (split, bytes) = match parts {
            [bytes] => (None, bytes),
            [split, bytes] => (Some(split), bytes),
            _ => return Err(format!("its pre-tokenizer has {} parts", parts.len())),
        };
        if bytes["type"] != "ByteLevel" {
            return Err(format!(
                "its pre-tokenizer ends with {}, not ByteLevel",
                shown(&bytes["type"])
            ));
        }
        let (spaced, by_regex) = (bytes["add_prefix_space"] != false, bytes["use_regex"] != false);
        let rules = match split {
            None if by_regex => Rules::of(GPT2),
            Some(split) if split["type"] == "Split" && !by_regex => rules_of(split)?,
            _ => return Err("its pre-tokenizer splits twice, or not at all".to_owned()),
        };
        let prefix = match (spaced, split) {
            (false, _) => Prefix::None,
            (true, None) => Prefix::Text,
            (true, Some(_)) => Prefix::Words,
        };
        Ok(Self { nfc, prefix, rules: rules.ok_or("its split pattern is not one of those known")? })
    }
}

fn rules_of(split: &Value) -> Result<Option<Rules>, String> {
    // The known patterns match all of any text, so nothing lies between matches.
    let kept = match split["behavior"].as_str() {
        Some("Isolated") => true,
        Some("Removed") => split["invert"] == true,
        _ => false,
    };
    if !kept {
        return Err(format!("its split's behavior is {}", shown(&split["behavior"])));
    }
    Ok(split["pattern"]["Regex"].as_str().and_then(Rules::of))
}

/// A name in a file, for people.
fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| "unnamed".to_owned(), str::to_owned)
}
