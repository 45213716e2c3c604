//! `Recipe`: the steps of a tokenizer.json around its model, if the fast encoder knows them all.

use serde_json::Value;

use super::pattern::{GPT2, Rules};

/// The places where a space is put before text that does not start with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefix {
    /// Nowhere.
    None,
    /// Before the text.
    Text,
    /// Before each word: the text is split first.
    Words,
}

/// The steps that a text takes before the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recipe {
    /// Whether the text is normalized to NFC.
    pub(crate) nfc: bool,
    /// Where a space is added.
    pub(crate) prefix: Prefix,
    /// How the text is split.
    pub(crate) rules: Rules,
}

impl Recipe {
    /// Returns the recipe of a tokenizer.json, or the first thing in it that the fast encoder does
    /// not know.
    pub(crate) fn of(json: &Value) -> Result<Self, String> {
        refuse_model(&json["model"])?;
        let nfc = is_nfc(&json["normalizer"])?;
        // One pre-tokenizer, or a sequence of a split and one: both forms are in use.
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
        // Both keys are true where a file leaves them out.
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

/// Returns an error if the model is not a plain byte-level BPE.
fn refuse_model(model: &Value) -> Result<(), String> {
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
    Ok(())
}

/// Returns whether a normalizer is NFC; an error if it is anything else than NFC or absent.
fn is_nfc(normalizer: &Value) -> Result<bool, String> {
    match normalizer["type"].as_str() {
        None if normalizer.is_null() => Ok(false),
        Some("NFC") => Ok(true),
        Some("Sequence") if normalizer["normalizers"] == serde_json::json!([{ "type": "NFC" }]) => {
            Ok(true)
        }
        _ => Err(format!("its normalizer is {}", shown(&normalizer["type"]))),
    }
}

/// Returns the rules of a split with its pattern; none if the pattern is not known.
fn rules_of(split: &Value) -> Result<Option<Rules>, String> {
    // The known patterns cover all of any text, so no text lies between matches.
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

/// Returns a name in a file as an error shows it.
fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| "unnamed".to_owned(), str::to_owned)
}
