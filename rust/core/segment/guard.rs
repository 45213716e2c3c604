//! Guards: noncharacters that keep data from spelling control tokens in a rendered template.
//!
//! A template engine returns one text, in which data and template can no longer be told apart. So
//! the data is rendered with noncharacters in it, which no token holds. Each control token in the
//! result was then spelled by the template, and the noncharacters are removed again. There are two
//! kinds. Punctuation that begins or ends a control token is *swapped*, one for one, so that
//! filters that change case, cut or count work as before. Where letters or white space begin or end
//! a token, a guard is *inserted* in each occurrence, and at the end or start of a string that
//! could begin or end a token.
//!
//! A string that is the middle of a token (`user` of `<|user|>`; an empty string of any) is guarded
//! too, in a first attempt. Templates compare such strings (`role == 'user'`). A template that
//! renders another text for that reason is rendered again with these strings unguarded: a control
//! token then counts as the template's if the template spells both its ends.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};

/// The spellings of a tokenizer's control tokens.
#[derive(Debug, Clone)]
pub(crate) struct Controls {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Finds every occurrence, overlaps included.
    look_alikes: AhoCorasick,
    /// Finds the occurrences that a tokenizer takes.
    tokens: AhoCorasick,
    contents: Vec<String>,
    /// Proper prefixes and suffixes of the contents, and the length of the longest content.
    prefixes: HashSet<String>,
    suffixes: HashSet<String>,
    longest: usize,
    /// Punctuation that begins or ends a control token.
    swapped: Vec<char>,
}

/// The guards of one record: characters that its text does not contain.
#[derive(Debug, Clone)]
pub(crate) struct Guards {
    /// Breaks a token inside, or at the edge of a string.
    inside: char,
    /// Stands before a token of one character, which has no inside.
    before: char,
    /// Pairs of punctuation and its replacement.
    swaps: Vec<(char, char)>,
}

impl Guards {
    /// Returns `text` as it was before it was guarded.
    #[must_use]
    pub(crate) fn undo(&self, text: &str) -> String {
        let undo = |c: char| match self.swaps.iter().find(|(_, swapped)| *swapped == c) {
            _ if c == self.inside || c == self.before => None,
            Some((original, _)) => Some(*original),
            None => Some(c),
        };
        text.chars().filter_map(undo).collect()
    }
}

/// Returns the noncharacters of Unicode.
fn noncharacters() -> impl Iterator<Item = char> {
    let ends = (0..=16).flat_map(|plane: u32| [plane << 16 | 0xfffe, plane << 16 | 0xffff]);
    (0xfdd0..=0xfdef).chain(ends).filter_map(char::from_u32)
}

impl Controls {
    /// Prepares the search for the control tokens spelled `contents`.
    #[must_use]
    pub(crate) fn new<'a>(contents: impl IntoIterator<Item = &'a str>) -> Self {
        let mut contents: Vec<String> =
            contents.into_iter().filter(|content| !content.is_empty()).map(str::to_owned).collect();
        // Two tokens may have one spelling; the search needs it once.
        contents.sort();
        contents.dedup();
        let build = |kind| {
            AhoCorasick::builder()
                .match_kind(kind)
                .build(&contents)
                .expect("control tokens are a small vocabulary")
        };
        let (mut prefixes, mut suffixes) = (HashSet::new(), HashSet::new());
        for content in &contents {
            // Proper parts only: the whole token is found by the automata.
            for (position, _) in content.char_indices().skip(1) {
                prefixes.insert(content[..position].to_owned());
                suffixes.insert(content[position..].to_owned());
            }
        }
        // Letters and white space are not swapped: filters change their case or strip them.
        let ends = contents
            .iter()
            .flat_map(|content| content.chars().next().into_iter().chain(content.chars().last()));
        let mut swapped: Vec<char> =
            ends.filter(|c| !c.is_alphanumeric() && !c.is_whitespace()).collect();
        swapped.sort_unstable();
        swapped.dedup();
        let longest = contents.iter().map(String::len).max().unwrap_or(0);
        let (look_alikes, tokens) = (build(MatchKind::Standard), build(MatchKind::LeftmostLongest));
        Self {
            inner: Arc::new(Inner {
                look_alikes,
                tokens,
                contents,
                prefixes,
                suffixes,
                longest,
                swapped,
            }),
        }
    }

    /// Returns every range where `text` spells a control token, overlaps included.
    pub(crate) fn occurrences<'a>(
        &'a self,
        text: &'a str,
    ) -> impl Iterator<Item = Range<usize>> + 'a {
        self.inner.look_alikes.find_overlapping_iter(text).map(|found| found.range())
    }

    /// Returns whether `text` spells a control token somewhere.
    #[must_use]
    pub(crate) fn occur_in(&self, text: &str) -> bool {
        self.inner.look_alikes.is_match(text)
    }

    /// Returns the first control token that a tokenizer would take in `text`.
    pub(crate) fn first_in(&self, text: &str) -> Option<Range<usize>> {
        self.inner.tokens.find(text).map(|found| found.range())
    }

    /// Returns the control token at the end of `text`.
    pub(crate) fn at_end<'a>(&self, text: &'a str) -> Option<&'a str> {
        let last = self.inner.tokens.find_iter(text).last()?;
        (last.end() == text.len()).then(|| &text[last.range()])
    }

    /// Returns whether there is any control token.
    pub(crate) fn any(&self) -> bool {
        !self.inner.contents.is_empty()
    }

    /// Returns the stretches of `text` between control tokens. None of them is empty.
    pub(crate) fn between<'a>(&self, text: &'a str) -> impl Iterator<Item = &'a str> {
        let mut from = 0;
        let mut cuts: Vec<&str> = Vec::new();
        for found in self.inner.tokens.find_iter(text) {
            cuts.push(&text[from..found.start()]);
            from = found.end();
        }
        cuts.push(&text[from..]);
        cuts.into_iter().filter(|text| !text.is_empty())
    }

    /// Returns noncharacters that do not occur in `texts`.
    pub(crate) fn free<'a>(texts: impl Iterator<Item = &'a str>) -> impl Iterator<Item = char> {
        let is_noncharacter =
            |c: &char| (*c as u32) & 0xfffe == 0xfffe || ('\u{fdd0}'..='\u{fdef}').contains(c);
        // In UTF-8 they begin with a byte that few texts hold.
        let highest = |bytes: &[u8]| bytes.iter().fold(0, |most, byte| most.max(*byte));
        let may_hold = |text: &&str| text.as_bytes().chunks(64).any(|bytes| highest(bytes) >= 0xef);
        let used: HashSet<char> =
            texts.filter(may_hold).flat_map(str::chars).filter(is_noncharacter).collect();
        noncharacters().filter(move |c| !used.contains(c))
    }

    /// Returns guards that do not occur in `texts`; none if the texts hold every noncharacter.
    pub(crate) fn guards<'a>(&self, texts: impl Iterator<Item = &'a str>) -> Option<Guards> {
        let mut free = Self::free(texts);
        let (inside, before) = (free.next()?, free.next()?);
        Some(Guards {
            inside,
            before,
            swaps: self.inner.swapped.iter().copied().zip(free).collect(),
        })
    }

    /// Returns `text` with guards. With `middles`, a text that is the middle of a control token is
    /// guarded too.
    #[must_use]
    pub(crate) fn guard(&self, text: &str, guards: &Guards, middles: bool) -> String {
        let inner = &*self.inner;
        let swap = |c: char| {
            guards
                .swaps
                .iter()
                .find(|(original, _)| *original == c)
                .map_or(c, |(_, swapped)| *swapped)
        };
        let is_middle = |content: &String| content.len() > text.len() && content.contains(text);
        // A middle spells nothing itself, so every position in it gets a guard.
        if middles && text.len() < inner.longest && inner.contents.iter().any(is_middle) {
            return text
                .chars()
                .flat_map(|c| [guards.inside, swap(c)])
                .chain([guards.inside])
                .collect();
        }
        let text: String = text.chars().map(swap).collect();
        let breaks = self.breaks(&text, guards);
        let mut out = String::with_capacity(text.len() + 3 * breaks.len());
        let mut from = 0;
        for (position, guard) in breaks {
            out.push_str(&text[from..position]);
            out.push(guard);
            from = position;
        }
        out.push_str(&text[from..]);
        out
    }

    /// Returns the guards that a text needs after swapping, with their positions in order.
    fn breaks(&self, text: &str, guards: &Guards) -> Vec<(usize, char)> {
        let inner = &*self.inner;
        let mut breaks: Vec<(usize, char)> = Vec::new();
        for found in inner.look_alikes.find_overlapping_iter(text) {
            let first = text[found.start()..].chars().next().map_or(0, char::len_utf8);
            if first == found.len() {
                breaks.push((found.start(), guards.before));
            } else {
                breaks.push((found.start() + first, guards.inside));
            }
        }
        // A token could also be completed by the text before or after this one.
        let (len, edges) = (text.len(), 1..=text.len().min(inner.longest));
        if edges.clone().any(|n| text.is_char_boundary(n) && inner.suffixes.contains(&text[..n])) {
            breaks.push((0, guards.inside));
        }
        if edges
            .clone()
            .any(|n| text.is_char_boundary(len - n) && inner.prefixes.contains(&text[len - n..]))
        {
            breaks.push((len, guards.inside));
        }
        breaks.sort_unstable();
        breaks.dedup();
        breaks
    }

    /// Returns the stretches of a rendered text without guards, each with whether it is a control
    /// token of the template.
    #[must_use]
    pub(crate) fn split(&self, rendered: &str, guards: &Guards) -> Vec<(String, bool)> {
        let mut pieces = Vec::new();
        let mut from = 0;
        for found in self.inner.tokens.find_iter(rendered) {
            // A token of one character, guarded from outside, comes from data.
            if rendered[..found.start()].ends_with(guards.before) {
                continue;
            }
            pieces.push((guards.undo(&rendered[from..found.start()]), false));
            pieces.push((rendered[found.range()].to_owned(), true));
            from = found.end();
        }
        pieces.push((guards.undo(&rendered[from..]), false));
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn guarded_data_spells_no_token_alone_or_across_edges(
            text in "[<>|a~\u{fdd0}]{0,7}", literal in "[<>a ]{0,3}", middles: bool,
        ) {
            let controls = Controls::new(["<a>", "<|a|>", "~", "aa", "|a"]);
            let guards = controls.guards([text.as_str()].into_iter()).unwrap();
            // The template shows one field between two texts of its own: each token that touches
            // the data is foreign.
            let rendered = format!("{literal}{}{literal}", controls.guard(&text, &guards, middles));
            prop_assert_eq!(guards.undo(&rendered), format!("{literal}{text}{literal}"));
            let pieces = controls.split(&rendered, &guards);
            let joined: String = pieces.iter().map(|(piece, _)| piece.as_str()).collect();
            prop_assert_eq!(&joined, &format!("{literal}{text}{literal}"));
            let mut position = 0;
            for (piece, is_token) in pieces {
                let end = position + piece.len();
                let touches = end > literal.len() && position < literal.len() + text.len();
                let is_around = position < literal.len() && end > literal.len() + text.len();
                let is_foreign = is_token && touches && (middles || !is_around);
                prop_assert!(!is_foreign, "{piece} in {rendered:?}");
                position = end;
            }
        }
    }
}
