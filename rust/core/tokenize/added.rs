//! `Matcher`: finds added tokens in a text the way `tokenizers` does, but only where the template
//! spells them.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};
use regex::Regex;
use tokenizers::AddedToken;

/// A piece of a text: ordinary, or a control token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Its bytes in the text.
    pub range: Range<usize>,
    /// The control token's id.
    pub id: Option<u32>,
}

/// The added tokens of one kind (matched before or after normalization).
#[derive(Debug)]
pub struct Matcher {
    /// Leftmost, longest: what `tokenizers` takes.
    automaton: AhoCorasick,
    /// Every occurrence.
    overlapping: AhoCorasick,
    tokens: Vec<(u32, AddedToken)>,
}

static WORD: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\w").expect("a valid pattern"));

fn is_word(char: char) -> bool {
    WORD.is_match(char.encode_utf8(&mut [0; 4]))
}

impl Matcher {
    /// A matcher of `(spelling, id, token)`.
    pub fn new(tokens: Vec<(String, u32, AddedToken)>) -> Self {
        let tokens: Vec<_> =
            tokens.into_iter().filter(|(spelling, _, _)| !spelling.is_empty()).collect();
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

    /// Whether there is nothing to match.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Whether a spelling occurs in `text`.
    pub fn is_in(&self, text: &str) -> bool {
        !self.is_empty() && self.automaton.is_match(text)
    }

    /// The pieces of `text`; control tokens only inside one of `literals`. A token's flags look at
    /// all of the text.
    pub fn find(&self, text: &str, literals: &[Range<usize>]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut from = 0;
        for literal in literals {
            for found in self.automaton.find_iter(&text[literal.clone()]) {
                let (mut start, mut end) =
                    (literal.start + found.start(), literal.start + found.end());
                let (id, token) = &self.tokens[found.pattern().as_usize()];
                let (before, after) = (&text[..start], &text[end..]);
                if token.single_word
                    && (before.chars().next_back().is_some_and(is_word)
                        || after.chars().next().is_some_and(is_word))
                {
                    continue;
                }
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
        if from < text.len() || text.is_empty() {
            pieces.push(Piece { range: from..text.len(), id: None });
        }
        pieces
    }

    /// Every occurrence of a spelling.
    pub fn occurrences<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
        self.overlapping.find_overlapping_iter(text).map(|found| found.range())
    }
}
