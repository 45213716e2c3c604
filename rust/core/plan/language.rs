//! Languages: one code for the many ways of writing a language.
//!
//! `yo`, `yor`, `yor_Latn`, `yo-NG`, `Yoruba` and `Yorùbá` are the language `yor` of ISO 639-3.

use isolang::Language;
use oxilangtag::LanguageTag;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// The code of texts whose language is not known.
pub(crate) const UNDETERMINED: &str = "und";
/// Codes of ISO 639-3 that stand for no one language.
const SPECIAL: [&str; 4] = [UNDETERMINED, "mul", "zxx", "mis"];
/// Codes of ISO 639-2/B, and codes that were withdrawn, with the codes of today.
const OTHER: [(&str, &str); 24] = [
    ("alb", "sqi"),
    ("arm", "hye"),
    ("baq", "eus"),
    ("bur", "mya"),
    ("chi", "zho"),
    ("cze", "ces"),
    ("dut", "nld"),
    ("fre", "fra"),
    ("geo", "kat"),
    ("ger", "deu"),
    ("gre", "ell"),
    ("ice", "isl"),
    ("in", "ind"),
    ("iw", "heb"),
    ("ji", "yid"),
    ("mac", "mkd"),
    ("mao", "mri"),
    ("may", "msa"),
    ("mo", "ron"),
    ("per", "fas"),
    ("rum", "ron"),
    ("slo", "slk"),
    ("tib", "bod"),
    ("wel", "cym"),
];
/// A likeness from which on another language may be meant.
const ALIKE: f64 = 0.9;

/// Returns the code of ISO 639-3 of a language, however it is written; `None` if it is unknown.
#[must_use]
pub(crate) fn code_of(written: &str) -> Option<&'static str> {
    let written = written.trim();
    let tag = written.replace('_', "-");
    of_tag(&tag).or_else(|| of_name(&folded(&tag.replace('-', " "))))
}

/// Returns the code of a language, or the text itself if it is unknown.
#[must_use]
pub(crate) fn code_or_text(written: &str) -> String {
    code_of(written).unwrap_or_else(|| written.trim()).to_owned()
}

/// Returns the English name of a language, however it is written; `None` if it is unknown or none.
#[must_use]
pub(crate) fn language_name(written: &str) -> Option<&'static str> {
    let code = code_of(written).filter(|code| !SPECIAL.contains(code))?;
    Language::from_639_3(code).map(|language| language.to_name())
}

/// Returns the code of a language that looks like an unknown one.
#[must_use]
pub(crate) fn near_code(written: &str) -> Option<&'static str> {
    let wanted = folded(written);
    // Of two or three letters, almost any code looks like almost any other.
    if wanted.chars().count() < 4 {
        return None;
    }
    let likeness = |text: &str| strsim::jaro_winkler(&wanted, text);
    let all = Language::match_names(|_| true).map(|language| {
        let by_name = likeness(&folded(language.to_name()));
        let alike = by_name.max(likeness(language.to_639_3()));
        // Of two that are as near, the better known one.
        (alike, language.to_639_1().is_some(), language.to_639_3())
    });
    all.filter(|(alike, ..)| *alike > ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(b.2.cmp(a.2)))
        .map(|(.., code)| code)
}

/// Returns the language of a tag of BCP 47: of its first part, whatever script or region follows.
fn of_tag(tag: &str) -> Option<&'static str> {
    let tag = LanguageTag::parse(tag.to_lowercase()).ok()?;
    // `eng-yor` is a pair of languages rather than one with an extension.
    if tag.extended_language().is_some() {
        return None;
    }
    let primary = tag.primary_language();
    if let Some(special) = SPECIAL.into_iter().find(|special| *special == primary) {
        return Some(special);
    }
    let other = OTHER.iter().find(|(code, _)| *code == primary).map(|(_, code)| *code);
    let known = match primary.len() {
        2 => Language::from_639_1(primary),
        3 => Language::from_639_3(primary),
        _ => None,
    };
    known.map(|language| language.to_639_3()).or(other)
}

/// Returns the language with this English name, which is [`folded`].
fn of_name(name: &str) -> Option<&'static str> {
    let find = |wanted: &str| {
        Language::match_names(|_| true)
            .find(|language| folded(language.to_name()).replace('-', " ") == wanted)
            .map(|language| language.to_639_3())
    };
    // Swahili is there as a macrolanguage and as one of its languages.
    find(name).or_else(|| find(&format!("{name} (macrolanguage)")))
}

/// Returns a name in lower case and without marks.
fn folded(name: &str) -> String {
    name.nfd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_language_has_one_code() {
        for (written, code) in [
            (
                "yo yor YOR yor_Latn yor-Latn yo-NG yo_NG Yoruba yoruba Yorùbá yoru\u{300}ba\u{301}",
                "yor",
            ),
            ("ha hau Hausa ha-Arab hau_Latn", "hau"),
            ("ig ibo Igbo", "ibo"),
            ("pcm Nigerian_Pidgin nigerian-pidgin", "pcm"),
            ("en eng English en-GB en_US", "eng"),
            ("fr fre fra French", "fra"),
            ("sw swa Swahili", "swa"),
            ("und", "und"),
            ("mul", "mul"),
            ("zxx", "zxx"),
            ("zh zh-Hant zh_TW chi", "zho"),
            ("is", "isl"),
        ] {
            for written in written.split(' ') {
                assert_eq!(code_of(written), Some(code), "{written}");
            }
        }
        assert_eq!(code_of(" Nigerian Pidgin\n"), Some("pcm"));
        for unknown in ["", "xx", "yoru", "eng-yor", "qqq1", "a", "train", "{{ lang }}", "yo NG!"] {
            assert_eq!(code_of(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_language_has_its_name_however_it_is_written() {
        for lang in ["yo", "yor", "yor_Latn", "yo-NG", "Yoruba", "yoruba"] {
            assert_eq!(language_name(lang), Some("Yoruba"), "{lang}");
        }
        for lang in ["und", "mul", "", "zzz", "Nowhere"] {
            assert_eq!(language_name(lang), None, "{lang}");
        }
    }

    #[test]
    fn a_misspelled_language_has_a_near_one() {
        assert_eq!(near_code("yoru"), Some("yor"));
        assert_eq!(near_code("Yorubaa"), Some("yor"));
        assert_eq!(near_code("hausaa"), Some("hau"));
        assert_eq!(near_code("xx"), None);
        assert_eq!(near_code("no such thing"), None);
    }
}
