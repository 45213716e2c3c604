//! `Contents`: makes the content keys; texts of equal content have equal keys.

use xxhash_rust::xxh3::xxh3_128;

use crate::tokenize::fast::Composer;

/// Makes keys; holds the buffers that it uses again for each.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    composer: Composer,
    normalised: String,
}

impl Contents {
    /// Returns the xxh3-128 of a text in NFC and lower case, each run of white space as one space,
    /// none at the ends.
    pub(crate) fn key(&mut self, text: &str) -> u128 {
        let composed = self.composer.compose(text);
        let text = composed.as_ref().map_or(text, |(text, _)| text);
        self.normalised.clear();
        // The one letter whose lower case depends on its neighbours.
        if text.contains('Σ') {
            fold(&text.to_lowercase(), &mut self.normalised);
        } else {
            fold(text, &mut self.normalised);
        }
        xxh3_128(self.normalised.as_bytes())
    }

    /// Returns the text that the last key is the hash of.
    pub(crate) fn normalised(&self) -> &str {
        &self.normalised
    }
}

/// Appends a text in lower case, each run of white space as one space, none at the ends.
fn fold(text: &str, out: &mut String) {
    let mut spaced = false;
    for char in text.chars() {
        let is_space = if char.is_ascii() {
            char.is_ascii_whitespace() || char == '\u{b}'
        } else {
            char.is_whitespace()
        };
        if is_space {
            spaced = true;
            continue;
        }
        if std::mem::take(&mut spaced) && !out.is_empty() {
            out.push(' ');
        }
        match char {
            '\0'..='\u{7f}' => out.push(char.to_ascii_lowercase()),
            // Combining marks, of which African languages have many, have no case.
            '\u{300}'..='\u{344}' => out.push(char),
            _ => out.extend(char.to_lowercase()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use unicode_normalization_alignments::UnicodeNormalization;

    /// Returns the text that a key is the hash of, step by step.
    fn normalised(text: &str) -> String {
        let composed: String = text.nfc().map(|(char, _)| char).collect();
        composed.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn assert_same(contents: &mut Contents, text: &str) {
        let key = contents.key(text);
        assert_eq!(contents.normalised, normalised(text), "{text:?}");
        assert_eq!(key, xxh3_128(normalised(text).as_bytes()));
    }

    proptest! {
        #[test]
        fn one_pass_normalises_as_the_library_does(
            text in "([a-zA-Z \t\u{b}\u{a0}\u{2003}àÀİıßẹỌẸ\u{300}\u{301}\u{323}\u{345}\
                     ΣσςK’“…é\r\n]|.){0,12}",
        ) {
            assert_same(&mut Contents::default(), &text);
        }
    }

    #[test]
    fn every_character_alone_and_among_others() {
        let mut contents = Contents::default();
        for char in '\0'..=char::MAX {
            for text in [char.to_string(), format!("a{char}B"), format!("{char}{char}\u{e9}")] {
                assert_same(&mut contents, &text);
            }
        }
    }

    #[test]
    fn content_is_the_same_whatever_its_case_spaces_and_normal_form() {
        let mut contents = Contents::default();
        assert_eq!(
            contents.key("  Ẹ\u{300} kọ́\t\n a "),
            contents.key("e\u{323}\u{300} kọ\u{301} A")
        );
        assert_ne!(contents.key("a b"), contents.key("ab"));
    }
}
