//! Probes: strings whose ids reveal whether a tokenizer is the one that made a dataset.

use std::sync::LazyLock;

use super::form::Form;
use crate::error::{Error, Result};
use crate::panics::caught;
use serde::{Deserialize, Serialize};

/// The version of the `tokenizers` library that the core is built with.
const TOKENIZERS: &str = "0.23.2";

/// The version of the regex engine. Asked once: its library writes the answer anew into one buffer,
/// which may be empty or half written for another thread.
static ONIGURUMA: LazyLock<String> = LazyLock::new(onig::version);

const STRINGS: [&str; 8] = [
    "The quick brown fox.",
    "Ìwé mẹ́ta wà lórí tábìlì; ọmọ náà ń kà á.",
    "Ina kwana? Ƙasa, ɓera, 'ya'ya.",
    "Kedu? Ụlọ akwụkwọ, ọ́nụ́ na ńnù.",
    "e\u{301} \u{1e5}\u{329}g  two  spaces\ttab\r\nline",
    "1 12 123 1234567890 3.14",
    "👩\u{200d}👩\u{200d}👧 \u{0}\u{feff}中文 नेपाली",
    "<s></s> [CLS] <|endoftext|>",
];

/// A string with the ids that a tokenizer gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The string.
    pub(crate) text: String,
    /// Its ids, without special tokens added.
    pub(crate) ids: Vec<u32>,
}

/// Encodes the probe strings with a tokenizer.
pub(crate) fn probes(form: &Form) -> Result<Vec<Probe>> {
    let mut plain = form.tokenizer().clone();
    plain.with_padding(None);
    plain.with_truncation(None).map_err(|error| Error::tokenizer(error.to_string()))?;
    let by_library = |text: &str| {
        let encoding = plain.encode(text, false);
        let encoding = encoding
            .map_err(|error| Error::tokenizer(format!("cannot encode {text:?}: {error}")))?;
        Ok(encoding.get_ids().to_vec())
    };
    let probe = |text: &&str| {
        // If the library panics on a text, its ids are those that a template with it gets.
        let by_library = if form.is_careful() { None } else { caught(|| by_library(text)).ok() };
        by_library
            .unwrap_or_else(|| form.ids(text, true))
            .map(|ids| Probe { text: (*text).to_owned(), ids })
    };
    STRINGS.iter().map(probe).collect()
}

/// Returns the name and version of the library and its regex engine.
pub(crate) fn library() -> String {
    format!("tokenizers {TOKENIZERS}, oniguruma {}", *ONIGURUMA)
}

/// Returns the versions of the Unicode tables in use.
pub(crate) fn unicode() -> String {
    let (major, minor, tiny) = unicode_normalization::UNICODE_VERSION;
    let (nfc_major, nfc_minor, nfc_tiny) = unicode_normalization_alignments::UNICODE_VERSION;
    format!(
        "content keys by Unicode {major}.{minor}.{tiny}, \
         normalizers by {nfc_major}.{nfc_minor}.{nfc_tiny}, \
         classes by oniguruma {}",
        *ONIGURUMA
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_whole_when_many_threads_ask() {
        let ask = || (0..10_000).map(|_| unicode()).collect::<std::collections::BTreeSet<_>>();
        let seen: std::collections::BTreeSet<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(seen.len(), 1, "{seen:?}");
    }

    #[test]
    fn the_version_named_is_the_version_locked() {
        let lock = include_str!("../../../Cargo.lock");
        assert!(lock.contains(&format!("name = \"tokenizers\"\nversion = \"{TOKENIZERS}\"")));
    }
}
