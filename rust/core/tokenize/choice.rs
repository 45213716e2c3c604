//! Chooses the encoder: the fast encoder if it knows the file and agrees with the library, else the
//! library with the reason.

use serde_json::Value;
use tokenizers::Tokenizer;

use super::config;
use super::fast::{self, Engine};
use super::file;
use super::form::{self, Form};
use super::probe;
use crate::error::Result;
use crate::panics::caught;
use crate::tasks;

/// The encoder chosen for a tokenizer.
#[derive(Debug)]
pub struct Chosen {
    engine: Option<Engine>,
    /// The reason why the library encodes, if it does.
    why: Option<String>,
    /// A text on which the fast encoder was wrong.
    differs: Option<String>,
}

/// A tokenizer.json: its values, the library's tokenizer, and the fast encoder or the reason
/// against it.
pub(crate) struct Loaded {
    pub(crate) json: Value,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) engine: std::result::Result<Engine, String>,
}

/// Reads a tokenizer.json. Panics of the library on a senseless file become errors.
pub(crate) fn load(bytes: &[u8], threads: usize) -> Result<Loaded> {
    // The JSON and the fast encoder are built beside the library's tokenizer, to halve the wait.
    let own = || -> Result<_> {
        let json = serde_json::from_slice(bytes).map_err(form::unusable)?;
        config::refuse_dropout(&json)?;
        file::refuse_long_pieces(&json["model"])?;
        let engine = Engine::of(&json);
        Ok((json, engine))
    };
    // Must come first: the library normalizes added tokens as soon as it reads them.
    file::refuse_hostile(bytes)?;
    let (tokenizer, own) = tasks::both(threads, || caught(|| Tokenizer::from_bytes(bytes)), own);
    let (json, engine) = own?;
    let tokenizer = tokenizer.map_err(|panic| form::unusable(form::panicked(&panic)))?;
    let tokenizer = tokenizer.map_err(form::unusable)?;
    refuse_endless(&tokenizer)?;
    Ok(Loaded { json, tokenizer, engine })
}

/// Refuses a file on which the library would loop: it finds an added token of no length forever.
fn refuse_endless(tokenizer: &Tokenizer) -> Result<()> {
    let added = tokenizer.get_added_vocabulary();
    // Only tokens that are matched after normalization can become empty.
    let is_endless = |id: u32| added.simple_id_to_token(id).is_some_and(|text| text.is_empty());
    let mut tokens = added.get_added_tokens_decoder().iter();
    match tokens.find(|(id, token)| token.normalized && is_endless(**id)) {
        None => Ok(()),
        Some((_, token)) => {
            let why = format!(
                "nothing is left of its added token {:?} when it is normalized",
                token.content
            );
            Err(form::unusable(why).remedy(
                "set \"normalized\" to false for it, or take it out of its \"added_tokens\"",
            ))
        }
    }
}

/// Chooses the fast encoder if there is one and `agrees` confirms that its ids equal the library's
/// on each stress text.
pub(crate) fn choose(
    engine: std::result::Result<Engine, String>,
    form: &Form,
    threads: usize,
    agrees: impl Fn(&Engine, &str) -> bool + Sync,
) -> Result<Chosen> {
    let engine = match engine {
        Ok(engine) => engine,
        Err(why) => return Ok(Chosen { engine: None, why: Some(why), differs: None }),
    };
    let added = form.tokenizer().get_added_tokens_decoder();
    let mut spellings: Vec<String> = added.into_values().map(|token| token.content).collect();
    // The texts must be the same at each load: the order of a map is not.
    spellings.sort();
    let texts = fast::stress_texts(&spellings);
    let agreed = tasks::run(threads, texts.len(), |index| {
        caught(|| agrees(&engine, &texts[index]))
            .map_err(|panic| form::unusable(form::panicked(&panic)))
    })?;
    Ok(match texts.into_iter().zip(agreed).find(|(_, agreed)| !agreed) {
        None => Chosen { engine: Some(engine), why: None, differs: None },
        Some((text, _)) => Chosen {
            engine: None,
            why: Some("our engine gives other ids".to_owned()),
            differs: Some(text),
        },
    })
}

impl Chosen {
    /// Takes the fast encoder out, if it was chosen. A second call returns none.
    pub(super) fn take(&mut self) -> Option<Engine> {
        self.engine.take()
    }

    /// Returns the encoder's name with the versions that matter, and the reason if the library
    /// encodes.
    #[must_use]
    pub fn name(&self) -> String {
        let library = probe::library();
        match &self.why {
            None => format!("sabiprep {} (checked against {library})", env!("CARGO_PKG_VERSION")),
            Some(why) => format!("{library} ({why})"),
        }
    }

    /// Returns a warning if the fast encoder accepted the file and then gave wrong ids.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let text: String = self.differs.as_ref()?.chars().take(60).collect();
        Some(format!(
            "the fast engine differs from the tokenizers library on {text:?}; the library encodes"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_differs_is_not_used_and_the_user_is_told() {
        let json = serde_json::json!({
            "added_tokens": [], "normalizer": null, "decoder": null, "post_processor": null,
            "pre_tokenizer": {
                "type": "ByteLevel",
                "add_prefix_space": false,
                "use_regex": true,
                "trim_offsets": true,
            },
            "model": {
                "type": "BPE",
                "vocab": { "a": 0, "b": 1, "ab": 2 },
                "merges": [["a", "b"]],
            },
        });
        for threads in [1, 2] {
            let choose = |agrees: fn(&Engine, &str) -> bool| {
                let loaded = load(json.to_string().as_bytes(), threads).expect("a usable file");
                let form = Form::plain(loaded.tokenizer, &loaded.json).expect("a usable file");
                choose(loaded.engine, &form, threads, agrees)
            };
            let mut agreeing = choose(|_, _| true).expect("a choice");
            assert_eq!((agreeing.take().is_some(), agreeing.warning()), (true, None));
            let mut differing = choose(|_, text| !text.contains('a')).expect("a choice");
            assert!(differing.take().is_none());
            assert!(
                differing.name().contains("our engine gives other ids"),
                "{}",
                differing.name()
            );
            assert!(
                differing.warning().is_some_and(|warning| warning.contains("the library encodes"))
            );
            let panicking = choose(|_, _| panic!("the library does"));
            assert!(
                panicking.is_err_and(|error| error.message.contains("it makes the library panic"))
            );
        }
    }
}
