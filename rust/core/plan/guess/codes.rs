//! Codes of languages in the names of files and folders, and the words that are none.
//!
//! ISO 639 has a code for most short words. A word is taken for a code only where it stands alone
//! between separators, and is no word that people name files with.

use isolang::Language;

/// Words of file names that are codes of languages too.
const WORDS: &[&str] = &[
    "a", "abs", "all", "an", "and", "any", "app", "are", "arc", "art", "as", "ask", "at", "aug",
    "bad", "bag", "ban", "bar", "bat", "be", "bin", "bio", "bit", "bot", "box", "bug", "but", "by",
    "can", "car", "cat", "chr", "cls", "col", "con", "cut", "data", "day", "dev", "dim", "div",
    "do", "doc", "dot", "dry", "eat", "ed", "end", "eos", "err", "etc", "eye", "fan", "far", "fin",
    "fit", "fix", "fly", "for", "fun", "gap", "gen", "get", "go", "god", "gold", "got", "had",
    "has", "he", "her", "him", "his", "hit", "hot", "how", "hub", "i", "id", "if", "img", "in",
    "ind", "inf", "ing", "is", "it", "its", "job", "key", "kit", "lab", "law", "led", "let", "lie",
    "lin", "log", "lot", "low", "man", "map", "max", "may", "me", "med", "men", "met", "mid",
    "min", "mis", "mix", "mod", "mon", "mul", "my", "neg", "ner", "net", "new", "nli", "no", "nom",
    "non", "nor", "not", "now", "num", "obj", "odd", "of", "off", "old", "on", "one", "opt", "or",
    "org", "our", "out", "own", "pad", "pan", "pay", "pdf", "per", "pos", "pre", "pro", "put",
    "raw", "ref", "rel", "rep", "res", "rev", "row", "run", "saw", "say", "sea", "sec", "see",
    "seg", "sep", "seq", "set", "she", "sim", "sin", "sit", "six", "so", "src", "std", "sub",
    "sum", "sun", "tab", "tag", "tar", "tax", "ten", "term", "text", "tgt", "the", "thin", "tip",
    "tmp", "to", "tok", "too", "top", "toy", "try", "two", "und", "up", "us", "use", "val", "van",
    "var", "ver", "via", "vol", "war", "was", "way", "we", "web", "who", "why", "win", "yes",
    "you",
];

/// Returns the language that `code` stands for in ISO 639, by two letters or three.
fn language(code: &str) -> Option<Language> {
    let lower = code.to_ascii_lowercase();
    match lower.len() {
        2 => Language::from_639_1(&lower),
        3 => Language::from_639_3(&lower),
        _ => None,
    }
}

/// Returns whether a word of a file name is taken for the code of a language.
#[must_use]
pub(super) fn is_code(word: &str) -> bool {
    // Codes are written in one case; `Was` and `Per` are words.
    let is_plain = word.bytes().all(|byte| byte.is_ascii_lowercase())
        || word.bytes().all(|byte| byte.is_ascii_uppercase());
    is_plain
        && !WORDS.contains(&word.to_ascii_lowercase().as_str())
        && language(word).is_some_and(|language| language != Language::Und)
}

/// Returns whether a key, such as those of `translation`, names a language.
#[must_use]
pub(super) fn is_language_key(key: &str) -> bool {
    let code = key.split(['-', '_']).next().unwrap_or_default();
    language(code).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_taken_and_words_are_not() {
        for code in ["yor", "eng", "hau", "ibo", "pcm", "en", "yo", "swa", "YOR", "fr"] {
            assert!(is_code(code), "{code}");
        }
        for word in ["dev", "the", "new", "set", "Was", "train", "zzz", "und", "", "x", "to"] {
            assert!(!is_code(word), "{word}");
        }
    }
}
