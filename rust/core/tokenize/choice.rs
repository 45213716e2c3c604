//! Which engine encodes: our own where it knows the file and agrees with the library, else the library, and why.

use serde_json::Value;

use super::fast::{self, Engine};
use super::form::Form;
use super::probe;

/// The engine of a tokenizer.
#[derive(Debug)]
pub struct Chosen {
    engine: Option<Engine>,
    /// Why the library encodes, where it does.
    why: Option<String>,
    /// A text on which our own engine was wrong.
    differs: Option<String>,
}

/// The engine for a tokenizer.json. `agrees` tells whether an engine gives what the library gives for a text.
pub fn choose(json: &Value, guarded: Vec<bool>, form: &Form, agrees: impl Fn(&Engine, &str) -> bool) -> Chosen {
    let engine = match Engine::of(json, guarded) {
        Ok(engine) => engine,
        Err(why) => return Chosen { engine: None, why: Some(why), differs: None },
    };
    let added = form.tokenizer().get_added_tokens_decoder();
    let mut spellings: Vec<String> = added.into_values().map(|token| token.content).collect();
    spellings.sort();
    let texts = fast::stress_texts(&spellings);
    match texts.into_iter().find(|text| !agrees(&engine, text)) {
        None => Chosen { engine: Some(engine), why: None, differs: None },
        Some(text) => Chosen { engine: None, why: Some("our engine gives other ids".to_owned()), differs: Some(text) },
    }
}

impl Chosen {
    /// The engine, if it is our own; it is given once.
    pub(super) fn take(&mut self) -> Option<Engine> {
        self.engine.take()
    }

    /// Its name and the versions that count; why it is not our own, where it is not.
    #[must_use]
    pub fn name(&self) -> String {
        let library = probe::library();
        match &self.why {
            None => format!("sabiprep {} (checked against {library})", env!("CARGO_PKG_VERSION")),
            Some(why) => format!("{library} ({why})"),
        }
    }

    /// What a user should be told: a file that our engine took, and got wrong.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let text: String = self.differs.as_ref()?.chars().take(60).collect();
        Some(format!("the fast engine differs from the tokenizers library on {text:?}; the library encodes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_differs_is_not_used_and_the_user_is_told() {
        let json = serde_json::json!({
            "added_tokens": [], "normalizer": null, "decoder": null, "post_processor": null,
            "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "use_regex": true, "trim_offsets": true },
            "model": { "type": "BPE", "vocab": { "a": 0, "b": 1, "ab": 2 }, "merges": [["a", "b"]] },
        });
        let form = Form::plain(json.to_string().as_bytes(), &json).expect("a usable file");
        let mut agreeing = choose(&json, Vec::new(), &form, |_, _| true);
        assert_eq!((agreeing.take().is_some(), agreeing.warning()), (true, None));
        let mut differing = choose(&json, Vec::new(), &form, |_, text| !text.contains('a'));
        assert!(differing.take().is_none());
        assert!(differing.name().contains("our engine gives other ids"), "{}", differing.name());
        assert!(differing.warning().is_some_and(|warning| warning.contains("the library encodes")));
    }
}
