//! `Script`: the letters that a source expects. Scripts of languages.

use super::super::characters::Characters;
use crate::error::{Error, Result};
use crate::plan::Source;

/// An expected script.
#[derive(Debug, Clone)]
pub(super) struct Script {
    /// Its name, as written or found.
    pub(super) name: String,
    letters: Characters,
    /// Characters that many scripts share.
    shared: Characters,
}

impl Script {
    /// Returns the script that a source expects: the one that `written` names, or that of its
    /// language.
    pub(super) fn of(written: Option<&str>, source: &Source) -> Result<Self> {
        let refused = |what: String| {
            Error::config(what).source(source.name.clone()).remedy(
                "name the script by its code: filter = { script = \"Latn\", min_script = 0.5 }",
            )
        };
        let name = match written {
            Some(written) => written.to_owned(),
            None => script_of(&source.written_lang, &source.lang).ok_or_else(|| {
                refused(format!("the script of the language '{}' is not known", source.lang))
            })?,
        };
        let unknown = || refused(format!("no script is named '{name}'"));
        // Of letters alone, so that it is no more than a name.
        if name.is_empty() || !name.chars().all(|char| char.is_ascii_alphabetic() || char == '_') {
            return Err(unknown());
        }
        let scripts = match name.to_ascii_lowercase().as_str() {
            "jpan" => r"\p{scx=Hani}\p{scx=Hira}\p{scx=Kana}".to_owned(),
            "kore" => r"\p{scx=Hani}\p{scx=Hang}".to_owned(),
            "hans" | "hant" => r"\p{scx=Hani}".to_owned(),
            name => format!(r"\p{{scx={name}}}"),
        };
        let letters = Characters::of(&format!("[{scripts}]")).ok_or_else(unknown)?;
        let shared = Characters::of(r"[\p{sc=Zyyy}\p{sc=Zinh}]").expect("scripts of Unicode");
        Ok(Self { name, letters, shared })
    }

    /// Returns whether a letter is of the script; `None` if many scripts share it.
    pub(super) fn has(&self, letter: char) -> Option<bool> {
        if self.letters.contains(letter) {
            Some(true)
        } else {
            (!self.shared.contains(letter)).then_some(false)
        }
    }
}

/// Languages by script, those that are written in more than one by the most common.
const SCRIPTS: [(&str, &str); 20] = [
    ("Ethi", "amh tir tig gez gur sgw"),
    ("Arab", "ara arb arz ary arq apc acm aeb ars fas pes prs urd pus snd uig ckb"),
    ("Beng", "ben asm"),
    ("Cyrl", "rus ukr bel bul mkd srp kaz kir tgk tat mon"),
    ("Deva", "hin mar nep npi mai bho san"),
    ("Grek", "ell"),
    ("Hebr", "heb yid"),
    ("Jpan", "jpn"),
    ("Kore", "kor"),
    ("Hani", "zho cmn yue"),
    ("Thai", "tha"),
    ("Laoo", "lao"),
    ("Khmr", "khm"),
    ("Mymr", "mya"),
    ("Taml", "tam"),
    ("Telu", "tel"),
    ("Geor", "kat"),
    ("Armn", "hye"),
    ("Nkoo", "nqo"),
    (
        "Latn",
        "yor hau ibo pcm eng fra por spa ita deu nld pol ces slk slv hrv ron hun swe dan nor nob nno \
         fin est lav lit tur aze uzb vie ind msa zsm tgl ceb jav sun swa swh zul xho sot nso tsn ssw \
         ven tso nbl afr lin lug kin run wol ful fuv fuf ffm fuc fue aka twi ewe fon bam dyu mos sna \
         nde nya bem orm gaz som kik kam luo luy guz mer kon kmb umb lua tum loz kau knc efi ibb ann \
         tiv igl ige gbr nup bin urh iso ijc its isl cat glg eus gle cym mlt sqi mlg plt gaa \
         dag kbp dga ada sag her kua ndo teo ach lgg nyn xog cgg ybb bba ebu mgh vmw seh",
    ),
];

/// Returns the script of a language: the one that its tag names, as `hau_Arab` does, or the usual
/// one; `None` if it is not known.
fn script_of(written: &str, code: &str) -> Option<String> {
    let is_script = |part: &&str| part.len() == 4 && part.chars().all(|c| c.is_ascii_alphabetic());
    let mut parts = written.split(['_', '-']);
    parts.next();
    if let Some(script) = parts.find(is_script) {
        return Some(script.to_owned());
    }
    let has = |codes: &str| codes.split_whitespace().any(|known| known == code);
    SCRIPTS.iter().find(|(_, codes)| has(codes)).map(|(script, _)| (*script).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_has_one_script_and_every_script_its_letters() {
        let mut known: Vec<&str> =
            SCRIPTS.iter().flat_map(|(_, codes)| codes.split_whitespace()).collect();
        known.sort_unstable();
        assert!(known.windows(2).all(|pair| pair[0] != pair[1]), "{known:?}");
        for code in known {
            assert_eq!(crate::plan::code_of(code), Some(code));
        }
        assert_eq!(script_of("hau_Arab", "hau").as_deref(), Some("Arab"));
        assert_eq!(script_of("Yoruba", "yor").as_deref(), Some("Latn"));
        assert_eq!(script_of("qqq", "qqq"), None);
    }
}
