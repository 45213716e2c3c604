//! Reads `CoNLL`: a token on each line with its columns, a blank line between sentences. A sentence is
//! a record.
//!
//! Its fields are a list for each column, `text` (the tokens with a space between them), and
//! `entities`, the spans of the column `tags`. A sentence is held in memory up to [`MAX_LINE`]
//! bytes; the rest of a longer one is passed over.

use super::conll_start::Start;
use super::spans::{Span, is_tag, spans};
use super::text_unit::is_blank;
use crate::error::Result;
use crate::read::encoding::Encoding;
use crate::read::format::{Format, FormatOptions, Likeness};
use crate::read::head::Head;
use crate::read::json::{Fields, Number, Value};
use crate::read::lines::{Line, Lines, MAX_LINE};
use crate::read::needed::MAX_VALUES;
use crate::read::record::{Reader, malformed, utf8};
use crate::read::request::Request;
use crate::read::slots::Slots;
use crate::schema::Refusal;

/// The column of the tokens, and that of the tags.
pub(super) const TOKENS: &str = "tokens";
const TAGS: &str = "tags";
/// Fields beside the columns.
const TEXT: &str = "text";
const ENTITIES: &str = "entities";
/// The comment of CoNLL-U with the text of a sentence.
const TEXT_COMMENT: &[u8] = b"# text = ";
/// The most tokens of a sentence. Each takes some hundred bytes beside its text while it is read.
const MAX_TOKENS: usize = 1 << 16;
/// The first column of a line between documents.
pub(super) const DOCUMENT: &[u8] = b"-DOCSTART-";

pub(super) struct Conll;

impl Format for Conll {
    fn name(&self) -> &'static str {
        "conll"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &["conll", "conllu", "bio", "iob", "iob2"]
    }

    fn sniff(&self, _: &[u8], _: &FormatOptions) -> Result<Likeness> {
        Ok(Likeness::Possible)
    }

    fn refuse(&self, head: &Head) -> Result<()> {
        head.refuse_binary()?;
        head.refuse_carriage_returns()
    }

    fn options(&self) -> &'static [&'static str] {
        &["columns"]
    }

    fn open(&self, request: &Request<'_>) -> Result<Box<dyn Reader>> {
        let start = Start::read(&mut open_lines(request)?)?;
        Ok(Box::new(ConllReader {
            lines: open_lines(request)?,
            names: request.options.columns.clone(),
            encoding: request.options.encoding,
            line: 0,
            first_width: 0,
            width: start.width,
            start,
            sentence: Sentence::default(),
        }))
    }
}

/// Opens all lines of a file.
fn open_lines(request: &Request<'_>) -> Result<Lines> {
    Lines::open(request, 0..u64::MAX)
}

/// A cursor over the sentences of a file.
struct ConllReader {
    lines: Lines,
    /// The names of the columns, if the source names them.
    names: Option<Vec<String>>,
    /// The encoding of the file, if it is not UTF-8.
    encoding: Option<Encoding>,
    start: Start,
    /// The line at hand, from 1.
    line: u64,
    /// Columns of the first token of the file, and of the last one.
    first_width: usize,
    width: usize,
    sentence: Sentence,
}

/// A sentence.
#[derive(Default)]
struct Sentence {
    /// The offset of its first token's line.
    start: u64,
    /// The bytes of its tokens' lines, those that are passed over included.
    bytes: usize,
    /// The lines of its tokens, each ended by `\n`, if they are not too many.
    tokens: Vec<u8>,
    /// The line of each token in the file.
    places: Vec<u64>,
    /// The text that a comment gives.
    text: Option<Vec<u8>>,
    /// Whether a comment before it may be its first token, a `#`.
    is_doubtful: bool,
}

/// The meaning of a line.
enum Meaning {
    /// It ends a sentence.
    Boundary,
    /// It is about the sentence that follows.
    Comment,
    Token,
    /// A token of several words, or a word that is not written.
    Skipped,
}

impl ConllReader {
    /// Returns the meaning of a line.
    fn meaning(&self, line: &[u8]) -> Meaning {
        if is_blank(line) || columns(line).next() == Some(DOCUMENT) {
            return Meaning::Boundary;
        }
        if line.starts_with(if self.is_conll_u() { b"#" } else { b"# " }) && !self.is_hash(line) {
            return Meaning::Comment;
        }
        let is_number = |id: &[u8]| id.iter().all(u8::is_ascii_digit);
        match columns(line).next() {
            Some(id) if self.is_conll_u() && !is_number(id) => Meaning::Skipped,
            _ => Meaning::Token,
        }
    }

    /// Returns whether a line is a token `#` with its columns, in a file with spaces between columns.
    /// Comments come before a sentence, so that inside of it as many columns are enough.
    fn is_hash(&self, line: &[u8]) -> bool {
        let tag = columns(line).last().and_then(|tag| std::str::from_utf8(tag).ok());
        let is_inside = !self.sentence.places.is_empty();
        !self.is_conll_u()
            && columns(line).count() == self.width
            && (is_inside || tag.is_some_and(is_tag))
    }

    /// Returns whether the file is in CoNLL-U.
    fn is_conll_u(&self) -> bool {
        self.start.conll_u.is_some()
    }

    /// Returns whether a comment has the columns of a token `#`, whose tag other tokens have.
    fn may_be_token(&self, comment: &[u8]) -> bool {
        let is_tag = columns(comment).last().is_some_and(|tag| self.start.tags.contains(tag));
        !self.is_conll_u() && columns(comment).count() == self.width && is_tag
    }

    /// Returns whether the first column of the sentence counts its tokens, and is read as tokens.
    fn is_numbered(&self) -> bool {
        let firsts = self.sentence.tokens.split(|byte| *byte == b'\n');
        let mut firsts = firsts.map_while(|line| columns(line).next());
        self.names.is_none()
            && !self.is_conll_u()
            && self.sentence.places.len() > 1
            && self.width > 2
            && (firsts.next(), firsts.next()) == (Some(&b"1"[..]), Some(&b"2"[..]))
    }

    /// Returns the names of `width` columns.
    fn names(&self, width: usize) -> std::result::Result<Vec<String>, String> {
        let known = self.start.conll_u.as_ref().filter(|names| names.len() == width);
        match &self.names {
            Some(names) if names.len() == width => Ok(names.clone()),
            Some(names) => Err(format!("{width} columns, {} are named", names.len())),
            None if known.is_some() => Ok(known.cloned().unwrap_or_default()),
            // The last column of a shorter sentence would pass for its tags.
            None if width != self.first_width => {
                Err(format!("{width} columns, the first sentence has {}", self.first_width))
            }
            None => Ok((1..=width)
                .map(|nth| match nth {
                    1 => TOKENS.to_owned(),
                    nth if nth == width => TAGS.to_owned(),
                    nth => format!("column_{nth}"),
                })
                .collect()),
        }
    }

    /// Returns the fields of the sentence, or its fault in words.
    fn fields_of(&self, text: &str) -> std::result::Result<Fields, String> {
        let Sentence { places, text: comment, .. } = &self.sentence;
        let width = columns(text.lines().next().unwrap_or_default().as_bytes()).count();
        let names = self.names(width)?;
        if places.len() * width > MAX_VALUES {
            return Err(format!("a sentence of more than {MAX_VALUES} values"));
        }
        let mut lists: Vec<Vec<&str>> = vec![Vec::with_capacity(places.len()); width];
        for (line, place) in text.lines().zip(places) {
            let count = split(line).count();
            if count != width {
                let first = places[0];
                return Err(format!(
                    "line {place} has {count} columns, line {first} of its sentence {width}"
                ));
            }
            lists.iter_mut().zip(split(line)).for_each(|(list, value)| list.push(value));
        }
        let list_of =
            |name: &str| names.iter().position(|known| known == name).map(|nth| &lists[nth]);
        let mut fields: Fields =
            names.iter().zip(&lists).map(|(name, list)| (name.clone(), strings(list))).collect();
        if let Some(tokens) = list_of(TOKENS) {
            let comment = comment.as_ref().and_then(|text| std::str::from_utf8(text).ok());
            let joined = comment.map_or_else(|| tokens.join(" "), str::to_owned);
            fields.entry(TEXT.to_owned()).or_insert(Value::String(joined));
            if let Some(tags) = list_of(TAGS) {
                let spans = spans(tags.iter().copied()).into_iter();
                let entities = spans.map(|span| entity(span, tokens)).collect();
                fields.entry(ENTITIES.to_owned()).or_insert(Value::Array(entities));
            }
        }
        Ok(fields)
    }
}

impl Reader for ConllReader {
    fn advance(&mut self) -> Result<bool> {
        let Sentence { mut tokens, mut places, .. } = std::mem::take(&mut self.sentence);
        tokens.clear();
        places.clear();
        self.sentence = Sentence { tokens, places, ..Sentence::default() };
        while self.lines.step()? {
            self.line += 1;
            let (start, line) = self.lines.current();
            let meaning = match line {
                Line::Text(line) => self.meaning(line),
                Line::TooLong => Meaning::Token,
            };
            let is_doubtful = match (&meaning, line) {
                (Meaning::Comment, Line::Text(line)) => self.may_be_token(line),
                _ => false,
            };
            let is_conll_u = self.is_conll_u();
            let sentence = &mut self.sentence;
            match (meaning, line) {
                (Meaning::Boundary, _) if !sentence.places.is_empty() => return Ok(true),
                // A comment belongs to the sentence right after it.
                (Meaning::Boundary, _) => (sentence.text, sentence.is_doubtful) = (None, false),
                (Meaning::Comment, Line::Text(line)) if sentence.places.is_empty() => {
                    let text = line.strip_prefix(TEXT_COMMENT).filter(|_| is_conll_u);
                    sentence.is_doubtful |= is_doubtful;
                    sentence.text = text.map(<[u8]>::to_vec).or(sentence.text.take());
                }
                (Meaning::Comment | Meaning::Skipped, _) => {}
                (Meaning::Token, line) => {
                    if let Line::Text(line) = line {
                        self.width = columns(line).count();
                        if self.first_width == 0 {
                            self.first_width = self.width;
                        }
                    }
                    sentence.push(start, line, self.line);
                }
            }
        }
        Ok(!self.sentence.places.is_empty())
    }

    fn offset(&self) -> u64 {
        self.sentence.start
    }

    fn bytes(&self) -> usize {
        self.sentence.bytes
    }

    fn fill<'a>(&'a self, _: &mut Slots<'a>) -> bool {
        false
    }

    fn is_doubtful(&self) -> bool {
        self.sentence.is_doubtful || self.is_numbered()
    }

    fn fields(&self) -> std::result::Result<Fields, Refusal> {
        if self.sentence.bytes > MAX_LINE {
            return Err(malformed(format!("longer than {} MiB", MAX_LINE >> 20)));
        }
        if self.sentence.places.len() > MAX_TOKENS {
            return Err(malformed(format!("a sentence of more than {MAX_TOKENS} tokens")));
        }
        self.fields_of(utf8(&self.sentence.tokens, self.encoding)?).map_err(malformed)
    }
}

impl Sentence {
    /// Adds the line of a token, which begins at the byte `start`.
    fn push(&mut self, start: u64, line: Line<'_>, place: u64) {
        if self.places.is_empty() {
            self.start = start;
        }
        let len = if let Line::Text(line) = line { line.len() } else { MAX_LINE };
        self.bytes = self.bytes.saturating_add(len + 1);
        if self.bytes > MAX_LINE && !self.places.is_empty() {
            return;
        }
        self.places.push(place);
        if let Line::Text(line) = line {
            self.tokens.extend_from_slice(line);
            self.tokens.push(b'\n');
        }
    }
}

/// Returns the columns of a line: those between tabs if it has any, else those between spaces.
/// White space at the end of a line is of no column.
pub(super) fn columns(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let line = line.trim_ascii_end();
    let has_tab = line.contains(&b'\t');
    let is_separator = move |byte: &u8| if has_tab { *byte == b'\t' } else { *byte == b' ' };
    line.split(is_separator).filter(move |column| has_tab || !column.is_empty())
}

/// Returns the columns of a line of text.
fn split(line: &str) -> impl Iterator<Item = &str> {
    let line = line.trim_end_matches(|c: char| c.is_ascii_whitespace());
    let separator = if line.contains('\t') { '\t' } else { ' ' };
    line.split(separator).filter(move |column| separator == '\t' || !column.is_empty())
}

/// Returns a list of strings.
fn strings(list: &[&str]) -> Value {
    Value::Array(list.iter().map(|text| Value::from(*text)).collect())
}

/// Returns a span as an object.
fn entity(span: Span<'_>, tokens: &[&str]) -> Value {
    let Span { kind, start, end } = span;
    let number = |index: usize| Value::Number(Number::Int(index as i128));
    let fields = [
        ("type", Value::from(kind)),
        ("text", Value::String(tokens[start..end].join(" "))),
        ("start", number(start)),
        ("end", number(end)),
    ];
    Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}
