//! `Splitter`: cuts a text into words as a split pattern would, without a regex engine.
//!
//! Each function follows the alternatives of its pattern in their order, backtracking included; the
//! tests hold every known pattern against the regex engine.

use super::ascii::{Letters, MARK_LEAD, is_latin, is_latin_mark};
use super::classes::{CASELESS, Classes, LOWER, MARK, NUMBER, SPACE, UPPER};
use super::pattern::{Contraction, Family, Rules};

/// What a class is to a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ErrorKind {
    Word,
    Number,
    Space,
    Other,
    /// The text's end.
    End,
}

/// How far from where letters were last looked at a word may start: up to here one of fifteen bytes
/// is seen whole.
const KNOWN: usize = 47;

/// What a byte is to a word that starts with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Its first letter's first byte.
    Letter,
    /// What may go before its letters.
    Lead,
    /// It starts no word.
    None,
}

/// A split pattern at work.
#[derive(Debug, Clone)]
pub struct Splitter {
    rules: Rules,
    classes: &'static Classes,
    /// By class.
    kinds: [ErrorKind; 8],
    /// By byte.
    ascii: [ErrorKind; 128],
    /// By byte.
    starts: [Start; 256],
    /// Whether all Latin letters belong to words whatever their case.
    takes_latin: bool,
    /// Whether the marks do that stand above and below letters.
    takes_marks: bool,
}

impl Splitter {
    /// The splitter of `rules`.
    pub fn new(rules: Rules) -> Self {
        let classes = Classes::get();
        let kinds = std::array::from_fn(|class| match class as u8 {
            class if rules.word >> class & 1 == 1 => ErrorKind::Word,
            NUMBER => ErrorKind::Number,
            SPACE => ErrorKind::Space,
            _ => ErrorKind::Other,
        });
        let ascii = std::array::from_fn(|byte| kinds[classes.of(byte as u32) as usize]);
        let is_word = |char: char| kinds[classes.of(char.into()) as usize] == ErrorKind::Word;
        let are_words =
            |is: fn(char) -> bool| ('\u{80}'..'\u{2000}').filter(|&char| is(char)).all(is_word);
        let takes_latin = rules.family != Family::O200k && are_words(is_latin);
        let takes_marks = takes_latin && are_words(is_latin_mark);
        let starts = std::array::from_fn(|byte| {
            let may_lead = match rules.family {
                Family::Gpt2 => byte == usize::from(b' '),
                _ => {
                    ascii.get(byte).is_some_and(|&kind| kind != ErrorKind::Number)
                        && !b"\r\n'".contains(&(byte as u8))
                }
            };
            match byte as u8 {
                b'A'..=b'Z' | b'a'..=b'z' => Start::Letter,
                0xc3..=0xca | 0xe1 if takes_latin => Start::Letter,
                MARK_LEAD if takes_marks => Start::Letter,
                _ if may_lead => Start::Lead,
                _ => Start::None,
            }
        });
        Self { rules, classes, kinds, ascii, starts, takes_latin, takes_marks }
    }

    /// Calls `word` with the start and the end of each word of `text`, in order.
    #[inline]
    pub fn each(&self, text: &str, mut word: impl FnMut(usize, usize)) {
        let mut cut = Cut::of(self, text.as_bytes());
        let mut start = 0;
        while let Some(end) = cut.next(text.len()) {
            word(start, end);
            start = end;
        }
    }

    /// The end of a word that is not seen at once; `end` is that of the letters it starts with,
    /// `at` if none were seen.
    #[inline(never)]
    fn other(&self, text: &[u8], at: usize, end: usize) -> usize {
        match self.rules.family {
            Family::Gpt2 | Family::Cl100k if end > at => self.run(text, end, ErrorKind::Word),
            Family::Gpt2 => self.gpt2(text, at),
            Family::Cl100k => self.cl100k(text, at),
            Family::O200k => self.o200k(text, at),
        }
    }

    fn gpt2(&self, text: &[u8], at: usize) -> usize {
        if text[at] == b'\''
            && let Some(end) = self.contraction(text, at)
        {
            return end;
        }
        let (kind, after) = self.kind(text, at);
        if kind != ErrorKind::Space {
            return self.run(text, after, kind);
        }
        match self.kind(text, after) {
            (kind @ (ErrorKind::Word | ErrorKind::Number | ErrorKind::Other), next)
                if text[at] == b' ' =>
            {
                self.run(text, next, kind)
            }
            _ => self.spaces(text, at, false),
        }
    }

    fn cl100k(&self, text: &[u8], at: usize) -> usize {
        if text[at] == b'\''
            && let Some(end) = self.contraction(text, at)
        {
            return end;
        }
        let (kind, after) = self.kind(text, at);
        if kind == ErrorKind::Word {
            return self.run(text, after, kind);
        }
        if kind != ErrorKind::Number && !is_line_end(text[at]) {
            let (next, past) = self.kind(text, after);
            if next == ErrorKind::Word {
                return self.run(text, past, next);
            }
        }
        self.rest(text, at)
    }

    fn o200k(&self, text: &[u8], at: usize) -> usize {
        let (class, after) = self.class(text, at);
        let found = match class {
            Some(LOWER | UPPER | CASELESS) => {
                self.ends_lower(text, at).or_else(|| self.upper(text, at))
            }
            // A mark can go before a word as well as belong to it.
            Some(MARK) => self.ends_lower(text, after).or_else(|| self.ends_lower(text, at)),
            Some(NUMBER) => None,
            _ if is_line_end(text[at]) => None,
            _ => self.ends_lower(text, after).or_else(|| self.upper(text, after)),
        };
        let Some(end) = found else { return self.rest(text, at) };
        match text.get(end) {
            Some(b'\'') => self.contraction(text, end).unwrap_or(end),
            _ => end,
        }
    }

    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+`: where it ends, if it matches.
    fn ends_lower(&self, text: &[u8], from: usize) -> Option<usize> {
        let (mut at, mut of_both) = (from, None);
        loop {
            match self.class(text, at) {
                (Some(UPPER), next) => at = next,
                (Some(CASELESS | MARK), next) => (at, of_both) = (next, Some(next)),
                (Some(LOWER), next) => {
                    at = next;
                    while let (Some(LOWER | CASELESS | MARK), next) = self.class(text, at) {
                        at = next;
                    }
                    return Some(at);
                }
                // Backtracking: the last that the first set can give to the second.
                _ => return of_both,
            }
        }
    }

    /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+`, where the above does not match.
    fn upper(&self, text: &[u8], from: usize) -> Option<usize> {
        let mut at = from;
        while let (Some(UPPER), next) = self.class(text, at) {
            at = next;
        }
        (at > from).then_some(at)
    }

    /// What cl100k and its followers do with what is no word: numbers, punctuation, white space.
    fn rest(&self, text: &[u8], at: usize) -> usize {
        let (kind, after) = self.kind(text, at);
        match kind {
            ErrorKind::Number => {
                let mut end = after;
                for _ in 1..self.rules.digits {
                    match self.kind(text, end) {
                        (ErrorKind::Number, next) => end = next,
                        _ => break,
                    }
                }
                end
            }
            ErrorKind::Space => match self.other_end(text, after) {
                Some(next) if text[at] == b' ' => self.punctuation(text, next),
                _ => self.spaces(text, at, true),
            },
            _ => self.punctuation(text, after),
        }
    }

    /// The end of the punctuation character at `at`, if there is one.
    fn other_end(&self, text: &[u8], at: usize) -> Option<usize> {
        let (class, after) = self.class(text, at);
        let is_mark = class? == MARK && self.rules.marks_are_other;
        (is_mark || self.kinds[class? as usize] == ErrorKind::Other).then_some(after)
    }

    fn punctuation(&self, text: &[u8], from: usize) -> usize {
        let mut at = from;
        while let Some(next) = self.other_end(text, at) {
            at = next;
        }
        while text
            .get(at)
            .is_some_and(|&byte| is_line_end(byte) || (byte == b'/' && self.rules.slashes))
        {
            at += 1;
        }
        at
    }

    /// `\s*[\r\n]+|\s+(?!\S)|\s+`, or without the first.
    fn spaces(&self, text: &[u8], from: usize, lines: bool) -> usize {
        let (mut at, mut last, mut line_end) = (from, from, None);
        while let (ErrorKind::Space, next) = self.kind(text, at) {
            if is_line_end(text[at]) {
                line_end = Some(next);
            }
            (last, at) = (at, next);
        }
        match line_end {
            Some(end) if lines => end,
            _ if at == text.len() || last == from => at,
            _ => last,
        }
    }

    /// The end of the characters of `kind` from `at`.
    fn run(&self, text: &[u8], from: usize, kind: ErrorKind) -> usize {
        let mut at = from;
        loop {
            let (found, next) = self.kind(text, at);
            if found != kind {
                return at;
            }
            at = next;
        }
    }

    /// The end of the contraction whose apostrophe is at `at`, if there is one.
    fn contraction(&self, text: &[u8], at: usize) -> Option<usize> {
        let (first, after) = self.letter(text, at + 1)?;
        let second = match first {
            b's' | b't' | b'm' | b'd' => return Some(after),
            b'r' | b'v' => b'e',
            b'l' => b'l',
            _ => return None,
        };
        self.letter(text, after).filter(|&(letter, _)| letter == second).map(|(_, end)| end)
    }

    /// The letter of a contraction at `at`, in lower case, and its end.
    fn letter(&self, text: &[u8], at: usize) -> Option<(u8, usize)> {
        let byte = *text.get(at)?;
        match self.rules.contraction {
            Contraction::None => None,
            Contraction::Exact => Some((byte, at + 1)),
            _ if byte.is_ascii() => Some((byte.to_ascii_lowercase(), at + 1)),
            Contraction::Ascii => None,
            Contraction::Folded => {
                let (code, end) = decode(text, at);
                let char = char::from_u32(code)?;
                b"sdmtlver"
                    .iter()
                    .find(|&&letter| self.classes.folds_to(char, letter))
                    .map(|&letter| (letter, end))
            }
        }
    }

    /// The kind of the character at `at`, and its end.
    #[inline]
    fn kind(&self, text: &[u8], at: usize) -> (ErrorKind, usize) {
        match text.get(at) {
            None => (ErrorKind::End, at),
            Some(&byte) if byte.is_ascii() => (self.ascii[byte as usize], at + 1),
            _ => {
                let (code, end) = decode(text, at);
                (self.kinds[self.classes.of(code) as usize & 7], end)
            }
        }
    }

    /// The class of the character at `at`, and its end.
    #[inline]
    fn class(&self, text: &[u8], at: usize) -> (Option<u8>, usize) {
        if at >= text.len() {
            return (None, at);
        }
        let (code, end) = decode(text, at);
        (Some(self.classes.of(code)), end)
    }
}

/// A text that is cut into words, from its start on.
#[derive(Debug)]
pub struct Cut<'a> {
    splitter: &'a Splitter,
    text: &'a [u8],
    /// Where the next word starts.
    at: usize,
    /// The letters from `from` on.
    letters: Letters,
    from: usize,
}

impl<'a> Cut<'a> {
    /// The words of a text.
    #[inline]
    pub fn of(splitter: &'a Splitter, text: &'a [u8]) -> Self {
        let mut cut = Self { splitter, text, at: 0, letters: Letters::default(), from: 0 };
        cut.look();
        cut
    }

    /// The text.
    #[inline]
    pub fn text(&self) -> &'a [u8] {
        self.text
    }

    /// Where the next word starts.
    #[inline]
    pub fn at(&self) -> usize {
        self.at
    }

    /// Sees which bytes are letters from here on.
    #[inline(never)]
    fn look(&mut self) {
        let Splitter { takes_latin, takes_marks, .. } = *self.splitter;
        (self.letters, self.from) =
            (Letters::at(self.text, self.at, takes_latin, takes_marks), self.at);
    }

    /// The end of the next word, if one is left; the text counts as if it ended at `stop`.
    #[inline]
    pub fn next(&mut self, stop: usize) -> Option<usize> {
        let (splitter, bytes) = (self.splitter, &self.text[..stop]);
        let start = splitter.starts[usize::from(*bytes.get(self.at)?)];
        if self.at - self.from > KNOWN {
            self.look();
        }
        // Most words are Latin letters, perhaps after a character that may lead a word: every
        // pattern takes those the same, case aside. Where they end hangs on nothing but where they
        // start: the processor finds the next word meanwhile.
        let (letters, at) = (self.letters, self.at - self.from);
        let first = at + usize::from(start == Start::Lead);
        let end = match splitter.rules.family {
            Family::O200k => letters.lower_end(letters.upper_end(first)),
            _ => letters.end(at + 1),
        };
        let is_word = start != Start::None && letters.has(first);
        let is_seen = is_word
            && letters.is_ascii(end)
            && (splitter.rules.family != Family::O200k
                || bytes.get(self.from + end) != Some(&b'\''));
        // What follows `stop` may be seen too; a word ends there.
        self.at = if is_seen {
            stop.min(self.from + end)
        } else {
            splitter.other(
                bytes,
                self.at,
                if is_word { stop.min(self.from + end) } else { self.at },
            )
        };
        Some(self.at)
    }
}

fn is_line_end(byte: u8) -> bool {
    byte == b'\n' || byte == b'\r'
}

/// The code point at `at`, where a character of UTF-8 starts, and its end.
#[inline]
pub fn decode(text: &[u8], at: usize) -> (u32, usize) {
    let low = |nth: usize| u32::from(text[at + nth] & 0x3f);
    let first = u32::from(text[at]);
    match first {
        0..0x80 => (first, at + 1),
        0x80..0xe0 => ((first & 0x1f) << 6 | low(1), at + 2),
        0xe0..0xf0 => ((first & 0x0f) << 12 | low(1) << 6 | low(2), at + 3),
        _ => ((first & 0x07) << 18 | low(1) << 12 | low(2) << 6 | low(3), at + 4),
    }
}

#[cfg(test)]
mod tests {
    use onig::Regex;
    use proptest::prelude::*;

    use super::super::pattern::known;
    use super::*;

    /// What the regex engine finds, between matches included.
    fn oracle(pattern: &Regex, text: &str) -> Vec<(usize, usize)> {
        let (mut words, mut last) = (Vec::new(), 0);
        for (start, end) in pattern.find_iter(text) {
            if last < start {
                words.push((last, start));
            }
            words.push((start, end));
            last = end;
        }
        assert_eq!(last, text.len(), "a known pattern covers every text");
        words
    }

    fn assert_same(pattern: &str, regex: &Regex, splitter: &Splitter, text: &str) {
        let mut words = Vec::new();
        splitter.each(text, |start, end| words.push((start, end)));
        let expected = oracle(regex, text);
        // With more after it, and before: each part as by itself.
        let all = format!("{text}{text}aẹ");
        let (mut cut, mut start) = (Cut::of(splitter, all.as_bytes()), 0);
        for nth in 1..=2 {
            let stop = nth * text.len();
            for word in &words {
                assert_eq!(
                    (start, cut.at()),
                    (word.0 + stop - text.len(), start),
                    "{pattern}\n on {text:?} twice"
                );
                start = cut.next(stop).expect("a word");
                assert_eq!(start, word.1 + stop - text.len(), "{pattern}\n on {text:?} twice");
            }
            assert_eq!(cut.next(stop), None);
        }
        if words != expected {
            let at = words.iter().zip(&expected).position(|(a, b)| a != b).unwrap_or(0);
            let from = expected[at].0;
            let shown: String = text[from..].chars().take(20).collect();
            panic!("{pattern}\n on {shown:?}: {:?}, not {:?}", words.get(at), expected.get(at));
        }
    }

    fn all() -> Vec<(String, Regex, Splitter)> {
        let build = |pattern: String| {
            let regex = Regex::new(&pattern).expect("a valid pattern");
            let splitter = Splitter::new(Rules::of(&pattern).expect("a known pattern"));
            (pattern, regex, splitter)
        };
        known().into_iter().map(build).collect()
    }

    #[test]
    fn every_code_point_in_several_contexts() {
        // One pattern of each kind: the others differ from them in what has nothing to do with a
        // character.
        let kinds = [
            r"'s|'t",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]",
            r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+|\p{N}|",
            O200K,
        ];
        for kind in kinds {
            let (pattern, regex, splitter) =
                all().into_iter().find(|(pattern, ..)| pattern.starts_with(kind)).expect("known");
            for block in 0..0x440_u32 {
                let mut text = String::new();
                for char in (block << 10..(block + 1) << 10).filter_map(char::from_u32) {
                    text.extend(['a', char, ' ', char, '1', char, 'B', '\'', char, '\n', char]);
                    // Nothing is assigned from here to the last planes but one.
                    if !('\u{40000}'..'\u{e0000}').contains(&char) {
                        text.extend([
                            'b', ' ', ' ', char, char, 'A', '\'', 'l', char, '.', char, 'ʰ', char,
                            'B', '\u{301}', char, '!',
                        ]);
                        text.extend(['/', char, '\t', char, '\u{301}', 'd']);
                    }
                }
                assert_same(&pattern, &regex, &splitter, &text);
            }
        }
    }

    #[test]
    fn words_longer_than_a_chunk_and_line_ends() {
        let texts = [
            "",
            " ",
            "\n",
            "a",
            "'",
            "'s",
            "'S",
            "'ſ",
            "'LL",
            "it's IT'S we'Re o'clock '' 'll'll",
            "abcdefghijklmno",
            "abcdefghijklmnopq",
            " abcdefghijklmno pq",
            "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopq1",
            "ABCDEFGHIJKLMNOPQRS",
            "ABCDEFGHIJKLMNOp'sq",
            "aBcDeFGhI ABc'd",
            "x   y",
            "x \n y\r\n\r\n  z  ",
            "  \n\n  ",
            "\t\tx",
            "a/b//\n/c",
            "1234567",
            "ọ́nụ́ ẹ̀kọ́ ʼYaʼya Ǹjẹ́ abcdefghijklmnẹ́opq",
            "日本語テキスト、中文。",
            "…—‘’“”",
            "a\u{a0}b\u{3000}c\u{85}d",
        ];
        for (pattern, regex, splitter) in all() {
            for text in texts {
                assert_same(&pattern, &regex, &splitter, text);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn random_texts(text in r"([a-eA-E]{0,18}|[ \t\n\r'/]{0,3}|'(s|S|ſ|Ll|rE|ve|D|m)|[0-9²٣]{0,4}|[.,!ẹàʰªǅ中あß\u{301}\u{323}\u{a0}\u{2028}\u{1f600}]|.){0,12}") {
            for (pattern, regex, splitter) in PATTERNS.with(Clone::clone).iter() {
                assert_same(pattern, regex, splitter, &text);
            }
        }
    }

    const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}";

    thread_local! {
        static PATTERNS: std::rc::Rc<Vec<(String, Regex, Splitter)>> = std::rc::Rc::new(all());
    }
}
