//! `Matcher`: finds added tokens in a text as `tokenizers` does, but only where the template spells
//! them.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};
use regex::Regex;
use tokenizers::AddedToken;

/// A stretch of a text: ordinary text or a control token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The bytes of the stretch.
    pub(crate) range: Range<usize>,
    /// The id of the control token; none for ordinary text.
    pub(crate) id: Option<u32>,
}

/// The added tokens of one kind: matched before normalization, or after it.
#[derive(Debug)]
pub(crate) struct Matcher {
    /// Finds the leftmost, longest matches, as `tokenizers` does.
    automaton: AhoCorasick,
    /// Finds every occurrence.
    overlapping: AhoCorasick,
    tokens: Vec<(u32, AddedToken)>,
}

static WORD: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\w").expect("a valid pattern"));

/// Returns whether `char` belongs to a word, as the `single_word` flag defines it.
fn is_word(char: char) -> bool {
    WORD.is_match(char.encode_utf8(&mut [0; 4]))
}

impl Matcher {
    /// Builds a matcher of `(spelling, id, token)`.
    pub(crate) fn new(tokens: Vec<(String, u32, AddedToken)>) -> Self {
        let tokens: Vec<_> =
            // An empty spelling would match everywhere.
            tokens.into_iter().filter(|(spelling, _, _)| !spelling.is_empty()).collect();
        // Two automata: the library takes the longest match, the check of data must see every one.
        let build = |kind| {
            let spellings = tokens.iter().map(|(spelling, _, _)| spelling);
            AhoCorasick::builder()
                .match_kind(kind)
                .build(spellings)
                .expect("added tokens are a small vocabulary")
        };
        let (automaton, overlapping) =
            (build(MatchKind::LeftmostLongest), build(MatchKind::Standard));
        Self {
            automaton,
            overlapping,
            tokens: tokens.into_iter().map(|(_, id, token)| (id, token)).collect(),
        }
    }

    /// Returns whether the matcher has no tokens.
    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Returns whether any spelling occurs in `text`.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        !self.is_empty() && self.automaton.is_match(text)
    }

    /// Returns the stretches of `text`. Control tokens are matched only inside one of `literals`;
    /// the flags of a token look at the whole text.
    pub(crate) fn find(&self, text: &str, literals: &[Range<usize>]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut from = 0;
        for literal in literals {
            for found in self.automaton.find_iter(&text[literal.clone()]) {
                let (mut start, mut end) =
                    (literal.start + found.start(), literal.start + found.end());
                let (id, token) = &self.tokens[found.pattern().as_usize()];
                // The flags see the text outside the literal too, as they do in the library.
                let (before, after) = (&text[..start], &text[end..]);
                if token.single_word
                    && (before.chars().next_back().is_some_and(is_word)
                        || after.chars().next().is_some_and(is_word))
                {
                    continue;
                }
                // An earlier token may have taken the white space already: never step back before
                // it.
                if token.lstrip {
                    start = before.trim_end().len().max(from);
                }
                if token.rstrip {
                    end += after.len() - after.trim_start().len();
                }
                if from < start {
                    pieces.push(Piece { range: from..start, id: None });
                }
                pieces.push(Piece { range: start..end, id: Some(*id) });
                from = end;
            }
        }
        // An empty text is one empty stretch, as in the library: a normalizer may still prepend to
        // it.
        if from < text.len() || text.is_empty() {
            pieces.push(Piece { range: from..text.len(), id: None });
        }
        pieces
    }

    /// Returns every occurrence of any spelling, overlaps included.
    pub(crate) fn occurrences<'a>(
        &'a self,
        text: &'a str,
    ) -> impl Iterator<Item = Range<usize>> + 'a {
        self.overlapping.find_overlapping_iter(text).map(|found| found.range())
    }
}
