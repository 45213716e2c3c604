//! `Splitter`: cuts a text into words as a split pattern would, without a regex engine.
//!
//! Each function follows the alternatives of its pattern in order, backtracking included. The tests
//! compare every known pattern with the regex engine.

use super::ascii::{Letters, MARK_LEAD, is_latin, is_latin_mark};
use super::classes::{CASELESS, Classes, LOWER, MARK, NUMBER, SPACE, UPPER};
use super::pattern::{Contraction, Family, Rules};

/// The role of a character in a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    Number,
    Space,
    Other,
    /// The end of the text.
    End,
}

/// The most distance between the start of the known letters and the start of a word: up to here a
/// word of fifteen bytes is seen whole.
const KNOWN: usize = 47;

/// The role of a byte at the start of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// The first byte of the word's first letter.
    Letter,
    /// A character that may stand before the letters.
    Lead,
    /// A byte that starts no such word.
    None,
}

/// A split pattern, ready to use.
#[derive(Debug, Clone)]
pub(crate) struct Splitter {
    rules: Rules,
    classes: &'static Classes,
    /// By class: the kind of a character.
    kinds: [Kind; 8],
    /// By ASCII byte: its kind.
    ascii: [Kind; 128],
    /// By byte: its role at the start of a word.
    starts: [Start; 256],
    /// Whether all Latin letters belong to words, whatever their case.
    takes_latin: bool,
    /// Whether the marks above and below Latin letters belong to words.
    takes_marks: bool,
}

impl Splitter {
    /// Builds the splitter of `rules`.
    pub(crate) fn new(rules: Rules) -> Self {
        let classes = Classes::get();
        let kinds = std::array::from_fn(|class| match class as u8 {
            class if rules.word >> class & 1 == 1 => Kind::Word,
            NUMBER => Kind::Number,
            SPACE => Kind::Space,
            _ => Kind::Other,
        });
        let ascii = std::array::from_fn(|byte| kinds[classes.of(byte as u32) as usize]);
        let is_word = |char: char| kinds[classes.of(char.into()) as usize] == Kind::Word;
        // Asks the tables, not the pattern: a shortcut is taken only if every letter it covers is a
        // word character to this regex engine.
        let are_words =
            |is: fn(char) -> bool| ('\u{80}'..'\u{2000}').filter(|&char| is(char)).all(is_word);
        let takes_latin = rules.family != Family::O200k && are_words(is_latin);
        // Marks count only together with Latin letters, since they follow them.
        let takes_marks = takes_latin && are_words(is_latin_mark);
        // By first byte of a word. A line end, a digit and an apostrophe need the slow path.
        let starts = std::array::from_fn(|byte| {
            let may_lead = match rules.family {
                Family::Gpt2 => byte == usize::from(b' '),
                _ => {
                    ascii.get(byte).is_some_and(|&kind| kind != Kind::Number)
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
    pub(crate) fn each(&self, text: &str, mut word: impl FnMut(usize, usize)) {
        let mut cut = Cut::of(self, text.as_bytes());
        let mut start = 0;
        while let Some(end) = cut.next(text.len()) {
            word(start, end);
            start = end;
        }
    }

    /// Returns the end of a word that the bit masks do not show whole. `end` is the end of the
    /// letters it starts with, or `position` if none were seen.
    #[inline(never)]
    fn other(&self, text: &[u8], position: usize, end: usize) -> usize {
        match self.rules.family {
            Family::Gpt2 | Family::Cl100k if end > position => self.run(text, end, Kind::Word),
            Family::Gpt2 => self.gpt2(text, position),
            Family::Cl100k => self.cl100k(text, position),
            Family::O200k => self.o200k(text, position),
        }
    }

    /// Returns the end of the word at `position`, by GPT-2's pattern.
    fn gpt2(&self, text: &[u8], position: usize) -> usize {
        if text[position] == b'\''
            && let Some(end) = self.contraction(text, position)
        {
            return end;
        }
        let (kind, after) = self.kind(text, position);
        if kind != Kind::Space {
            return self.run(text, after, kind);
        }
        match self.kind(text, after) {
            (kind @ (Kind::Word | Kind::Number | Kind::Other), next) if text[position] == b' ' => {
                self.run(text, next, kind)
            }
            _ => self.spaces(text, position, false),
        }
    }

    /// Returns the end of the word at `position`, by a pattern of cl100k's family.
    fn cl100k(&self, text: &[u8], position: usize) -> usize {
        if text[position] == b'\''
            && let Some(end) = self.contraction(text, position)
        {
            return end;
        }
        let (kind, after) = self.kind(text, position);
        if kind == Kind::Word {
            return self.run(text, after, kind);
        }
        // `[^\r\n\p{L}\p{N}]?` before the letters: one character may lead a word.
        if kind != Kind::Number && !is_line_end(text[position]) {
            let (next, past) = self.kind(text, after);
            if next == Kind::Word {
                return self.run(text, past, next);
            }
        }
        self.rest(text, position)
    }

    /// Returns the end of the word at `position`, by a pattern of o200k's family.
    fn o200k(&self, text: &[u8], position: usize) -> usize {
        let (class, after) = self.class(text, position);
        let found = match class {
            Some(LOWER | UPPER | CASELESS) => {
                self.ends_lower(text, position).or_else(|| self.upper(text, position))
            }
            // A mark can lead a word as well as belong to it.
            Some(MARK) => self.ends_lower(text, after).or_else(|| self.ends_lower(text, position)),
            Some(NUMBER) => None,
            _ if is_line_end(text[position]) => None,
            _ => self.ends_lower(text, after).or_else(|| self.upper(text, after)),
        };
        let Some(end) = found else { return self.rest(text, position) };
        match text.get(end) {
            Some(b'\'') => self.contraction(text, end).unwrap_or(end),
            _ => end,
        }
    }

    /// Returns the end of `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+`, if it
    /// matches.
    fn ends_lower(&self, text: &[u8], from: usize) -> Option<usize> {
        let (mut position, mut of_both) = (from, None);
        loop {
            match self.class(text, position) {
                (Some(UPPER), next) => position = next,
                (Some(CASELESS | MARK), next) => (position, of_both) = (next, Some(next)),
                (Some(LOWER), next) => {
                    position = next;
                    while let (Some(LOWER | CASELESS | MARK), next) = self.class(text, position) {
                        position = next;
                    }
                    return Some(position);
                }
                // Backtracks to the last character that the first set can give to the second.
                _ => return of_both,
            }
        }
    }

    /// Returns the end of `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+`. Only called where `ends_lower` fails.
    fn upper(&self, text: &[u8], from: usize) -> Option<usize> {
        let mut position = from;
        while let (Some(UPPER), next) = self.class(text, position) {
            position = next;
        }
        (position > from).then_some(position)
    }

    /// Returns the end of a number, of punctuation or of white space in cl100k and its followers.
    fn rest(&self, text: &[u8], position: usize) -> usize {
        let (kind, after) = self.kind(text, position);
        match kind {
            Kind::Number => {
                let mut end = after;
                for _ in 1..self.rules.digits {
                    match self.kind(text, end) {
                        (Kind::Number, next) => end = next,
                        _ => break,
                    }
                }
                end
            }
            Kind::Space => match self.other_end(text, after) {
                Some(next) if text[position] == b' ' => self.punctuation(text, next),
                _ => self.spaces(text, position, true),
            },
            _ => self.punctuation(text, after),
        }
    }

    /// Returns the end of the punctuation character at `position`, if there is one.
    fn other_end(&self, text: &[u8], position: usize) -> Option<usize> {
        let (class, after) = self.class(text, position);
        let is_mark = class? == MARK && self.rules.marks_are_other;
        (is_mark || self.kinds[class? as usize] == Kind::Other).then_some(after)
    }

    /// Returns the end of punctuation, with the line ends (and slashes) after it.
    fn punctuation(&self, text: &[u8], from: usize) -> usize {
        let mut position = from;
        while let Some(next) = self.other_end(text, position) {
            position = next;
        }
        while text
            .get(position)
            .is_some_and(|&byte| is_line_end(byte) || (byte == b'/' && self.rules.slashes))
        {
            position += 1;
        }
        position
    }

    /// Returns the end of `\s*[\r\n]+|\s+(?!\S)|\s+`, without the first alternative unless `lines`.
    fn spaces(&self, text: &[u8], from: usize, lines: bool) -> usize {
        let (mut position, mut last, mut line_end) = (from, from, None);
        while let (Kind::Space, next) = self.kind(text, position) {
            if is_line_end(text[position]) {
                line_end = Some(next);
            }
            (last, position) = (position, next);
        }
        // The last space stays for the word after it, unless the text ends or it is the only one.
        match line_end {
            Some(end) if lines => end,
            _ if position == text.len() || last == from => position,
            _ => last,
        }
    }

    /// Returns the end of the characters of `kind`.
    fn run(&self, text: &[u8], from: usize, kind: Kind) -> usize {
        let mut position = from;
        loop {
            let (found, next) = self.kind(text, position);
            if found != kind {
                return position;
            }
            position = next;
        }
    }

    /// Returns the end of the contraction whose apostrophe is at `position`, if there is one.
    fn contraction(&self, text: &[u8], position: usize) -> Option<usize> {
        let (first, after) = self.letter(text, position + 1)?;
        let second = match first {
            b's' | b't' | b'm' | b'd' => return Some(after),
            b'r' | b'v' => b'e',
            b'l' => b'l',
            _ => return None,
        };
        self.letter(text, after).filter(|&(letter, _)| letter == second).map(|(_, end)| end)
    }

    /// Returns the letter of a contraction at `position`, in lower case, and its end.
    fn letter(&self, text: &[u8], position: usize) -> Option<(u8, usize)> {
        let byte = *text.get(position)?;
        match self.rules.contraction {
            Contraction::None => None,
            Contraction::Exact => Some((byte, position + 1)),
            _ if byte.is_ascii() => Some((byte.to_ascii_lowercase(), position + 1)),
            Contraction::Ascii => None,
            Contraction::Folded => {
                let (code, end) = decode(text, position);
                let char = char::from_u32(code)?;
                b"sdmtlver"
                    .iter()
                    .find(|&&letter| self.classes.folds_to(char, letter))
                    .map(|&letter| (letter, end))
            }
        }
    }

    /// Returns the kind of the character at `position`, and its end.
    #[inline]
    fn kind(&self, text: &[u8], position: usize) -> (Kind, usize) {
        match text.get(position) {
            None => (Kind::End, position),
            Some(&byte) if byte.is_ascii() => (self.ascii[byte as usize], position + 1),
            _ => {
                let (code, end) = decode(text, position);
                (self.kinds[self.classes.of(code) as usize & 7], end)
            }
        }
    }

    /// Returns the class of the character at `position`, and its end.
    #[inline]
    fn class(&self, text: &[u8], position: usize) -> (Option<u8>, usize) {
        if position >= text.len() {
            return (None, position);
        }
        let (code, end) = decode(text, position);
        (Some(self.classes.of(code)), end)
    }
}

/// A text that is cut into words, from its start.
#[derive(Debug)]
pub(crate) struct Cut<'a> {
    splitter: &'a Splitter,
    text: &'a [u8],
    /// The start of the next word.
    position: usize,
    /// The letters from `from` on.
    letters: Letters,
    from: usize,
}

impl<'a> Cut<'a> {
    /// Starts cutting a text.
    #[inline]
    pub(crate) fn of(splitter: &'a Splitter, text: &'a [u8]) -> Self {
        let mut cut = Self { splitter, text, position: 0, letters: Letters::default(), from: 0 };
        cut.look();
        cut
    }

    /// Returns the text.
    #[inline]
    pub(crate) fn text(&self) -> &'a [u8] {
        self.text
    }

    /// Returns the start of the next word.
    #[inline]
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// Computes which of the bytes from here on are letters.
    #[inline(never)]
    fn look(&mut self) {
        let Splitter { takes_latin, takes_marks, .. } = *self.splitter;
        (self.letters, self.from) =
            (Letters::at(self.text, self.position, takes_latin, takes_marks), self.position);
    }

    /// Returns the end of the next word, if one is left. The text counts as if it ended at `stop`.
    #[inline]
    pub(crate) fn next(&mut self, stop: usize) -> Option<usize> {
        let (splitter, bytes) = (self.splitter, &self.text[..stop]);
        let start = splitter.starts[usize::from(*bytes.get(self.position)?)];
        if self.position - self.from > KNOWN {
            self.look();
        }
        // Most words are Latin letters, perhaps after a character that may lead a word. Every
        // pattern takes those alike, case aside. The end then depends on the start alone, so the
        // processor can work on the next word meanwhile.
        let (letters, position) = (self.letters, self.position - self.from);
        let first = position + usize::from(start == Start::Lead);
        let end = match splitter.rules.family {
            Family::O200k => letters.lower_end(letters.upper_end(first)),
            _ => letters.end(position + 1),
        };
        let is_word = start != Start::None && letters.has(first);
        let is_seen = is_word
            && letters.is_ascii(end)
            && (splitter.rules.family != Family::O200k
                || bytes.get(self.from + end) != Some(&b'\''));
        // The letters may reach beyond `stop`; the word ends there.
        self.position = if is_seen {
            stop.min(self.from + end)
        } else {
            splitter.other(
                bytes,
                self.position,
                if is_word { stop.min(self.from + end) } else { self.position },
            )
        };
        Some(self.position)
    }
}

/// Returns whether a byte is a line feed or a carriage return.
fn is_line_end(byte: u8) -> bool {
    byte == b'\n' || byte == b'\r'
}

/// Returns the code point of the UTF-8 character at `position`, and its end.
#[inline]
pub(crate) fn decode(text: &[u8], position: usize) -> (u32, usize) {
    let low = |nth: usize| u32::from(text[position + nth] & 0x3f);
    let first = u32::from(text[position]);
    match first {
        0..0x80 => (first, position + 1),
        0x80..0xe0 => ((first & 0x1f) << 6 | low(1), position + 2),
        0xe0..0xf0 => ((first & 0x0f) << 12 | low(1) << 6 | low(2), position + 3),
        _ => ((first & 0x07) << 18 | low(1) << 12 | low(2) << 6 | low(3), position + 4),
    }
}
