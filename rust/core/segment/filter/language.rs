//! The check that a text is in the language of its source. A library outside the core identifies
//! languages; the Python package registers one.

use std::fmt;
use std::sync::OnceLock;

use super::{Judged, Value, at_least, filtered};
use crate::error::{Error, Result};
use crate::plan::{Source, code_of};

/// The characters of a text that are looked at: more of them change next to nothing.
const LOOKED_AT: usize = 4000;

/// Codes that FLORES-200 and others write for the standard form of a language that identifiers know
/// by the code of the whole (the macrolanguages of ISO 639-3).
const STANDARD_FORMS: [(&str, &str); 19] = [
    ("arb", "ara"),
    ("azj", "aze"),
    ("ekk", "est"),
    ("gaz", "orm"),
    ("khk", "mon"),
    ("kmr", "kur"),
    ("lvs", "lav"),
    ("npi", "nep"),
    ("ory", "ori"),
    ("pbt", "pus"),
    ("pes", "fas"),
    ("plt", "mlg"),
    ("als", "sqi"),
    ("swh", "swa"),
    ("uzn", "uzb"),
    ("ydd", "yid"),
    ("cmn", "zho"),
    ("zlm", "msa"),
    ("zsm", "msa"),
];

/// A library that identifies languages.
pub trait IdentifyLanguage: Send + Sync {
    /// Returns its name and version, and its own codes of the languages that it knows.
    ///
    /// Refuses with a remedy if it is not installed.
    fn open(&self) -> Result<(String, Vec<String>)>;

    /// Returns how likely a text is in the language with this code of its own, and the likeliest
    /// language. Fails with the words for the report.
    fn judge(&self, text: &str, code: &str) -> std::result::Result<Likelihood, String>;
}

/// The judgement about a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Likelihood {
    /// The probability that the text is in the language asked for.
    pub expected: f64,
    /// The identifier's code of the likeliest language.
    pub likeliest: String,
    /// The probability of that language.
    pub most: f64,
}

static IDENTIFIER: OnceLock<Box<dyn IdentifyLanguage>> = OnceLock::new();

/// Registers the library that identifies languages. The first one stays.
pub fn register_identifier(identifier: Box<dyn IdentifyLanguage>) {
    let _ = IDENTIFIER.set(identifier);
}

/// Finds the identifier of a source whose filter checks the language, and the identifier's code of
/// that language. Refuses a language that it does not know.
pub(crate) fn find_identifier(source: &mut Source) -> Result<()> {
    let (name, lang) = (source.name.clone(), source.lang.clone());
    let Some(filter) = source.filter.as_mut().filter(|filter| filter.min_language.is_some()) else {
        return Ok(());
    };
    let Some(identifier) = IDENTIFIER.get() else {
        return Err(Error::config("`min_language` needs a library that identifies languages")
            .source(name)
            .remedy("pack with the Python package, or remove `min_language`"));
    };
    let (library, codes) = identifier.open().map_err(|error| error.source(name.clone()))?;
    let written = filter.language.clone().unwrap_or(lang);
    let Some(code) = code_in(&codes, &written) else {
        return Err(Error::config(format!("{library} does not know the language '{written}'"))
            .source(name)
            .remedy(format!(
                "name one that it knows, filter = {{ language = \"…\" }}, or remove \
                 `min_language`: {}",
                codes.join(" ")
            )));
    };
    filter.identifier = Some((library, code.to_owned()));
    Ok(())
}

/// Returns the identifier's code of a language, however it is written.
fn code_in<'c>(codes: &'c [String], written: &str) -> Option<&'c str> {
    let wanted = code_of(written).unwrap_or(written);
    let standard = STANDARD_FORMS.iter().find(|(form, _)| *form == wanted).map(|(_, whole)| *whole);
    let is_it = |code: &&String| {
        let known = code_of(code).unwrap_or(code);
        known == wanted || Some(known) == standard
    };
    codes.iter().find(is_it).map(String::as_str)
}

/// The check of a source's texts.
pub(super) struct Language {
    identifier: &'static dyn IdentifyLanguage,
    /// The identifier's code of the expected language.
    code: String,
    /// The smallest probability of that language.
    min: f64,
}

impl fmt::Debug for Language {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Language({}, {})", self.code, self.min)
    }
}

impl Language {
    /// Returns the check of a filter whose identifier was found.
    pub(super) fn new(min: Option<f64>, found: Option<&(String, String)>) -> Option<Self> {
        let (identifier, (_, code)) = (IDENTIFIER.get()?, found?);
        Some(Self { identifier: &**identifier, code: code.clone(), min: min? })
    }

    /// Refuses a text that is likely in another language.
    pub(super) fn judge(&self, text: &str) -> Judged {
        let end = text.char_indices().nth(LOOKED_AT).map_or(text.len(), |(end, _)| end);
        let found = self.identifier.judge(&text[..end], &self.code);
        let Likelihood { expected, likeliest, most } = found.map_err(|why| {
            filtered(format!("min_language: its language could not be identified: {why}"))
        })?;
        let what = if likeliest == self.code {
            format!("the likelihood of {}", self.code)
        } else {
            let most = Value::Share(most);
            format!("looks like {likeliest} ({most}); the likelihood of {}", self.code)
        };
        at_least("min_language", &what, Value::Share(expected), self.min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_found_however_they_are_written() {
        let codes: Vec<String> = ["yo", "sw", "pcm", "ne"].map(str::to_owned).to_vec();
        for (written, code) in [
            ("yor", Some("yo")),
            ("Yoruba", Some("yo")),
            ("yor_Latn", Some("yo")),
            ("swh", Some("sw")),
            ("swa", Some("sw")),
            ("npi", Some("ne")),
            ("pcm", Some("pcm")),
            ("hau", None),
            ("nonsense", None),
        ] {
            assert_eq!(code_in(&codes, written), code, "{written}");
        }
    }
}
