//! The source of a template: read as Jinja2 reads it, and rewritten where the engine differs.
//!
//! `a ~ b` becomes `(a)|__str ~ (b)|__str`, and `x | upper` becomes `x |__str|upper`, so that
//! values become text as in Python. `{% generation %}` becomes a scope whose text passes through a
//! filter, which marks it where that counts. Errors give positions in the template as its author
//! wrote it.

use std::collections::BTreeSet;
use std::ops::Range;

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;

use super::RECORD;
use super::filters::{GENERATION, OF_TEXT, TEXT};

/// Returns a template as Jinja2 reads it: line ends become `\n`, and one at the very end is
/// dropped.
pub(crate) fn as_jinja_reads(template: &str) -> String {
    let text = template.replace("\r\n", "\n").replace('\r', "\n");
    text.strip_suffix('\n').map(str::to_owned).unwrap_or(text)
}

/// A template rewritten for the engine.
#[derive(Debug)]
pub(crate) struct Source {
    /// The text as its author wrote it.
    pub(crate) original: String,
    /// The text that the engine gets.
    pub(crate) engine: String,
    /// Whether the template neither compares nor calculates.
    pub(crate) shows_only: bool,
    /// Whether the template names the whole record.
    pub(crate) uses_record: bool,
    /// The words of its tags, all fields that it reads among them; `None` if it may read any field.
    pub(crate) reads: Option<BTreeSet<String>>,
    /// The names that the template itself assigns.
    pub(crate) locals: BTreeSet<String>,
    /// Positions in `original`, in order, each with the number of bytes added there less those
    /// removed.
    edits: Vec<(usize, isize)>,
}

type Tokens<'a> = Vec<(Token<'a>, Range<usize>)>;

/// A range of a template, and the text that replaces it.
type Change = (Range<usize>, String);

/// Words that end an operand of `~`.
const WORDS: [&str; 8] = ["and", "or", "not", "if", "else", "in", "recursive", "elif"];
/// Words that compare or calculate, besides the operators.
const COMPARE: [&str; 19] = [
    "in",
    "sameas",
    "eq",
    "ne",
    "lt",
    "gt",
    "le",
    "ge",
    "equalto",
    "sort",
    "unique",
    "min",
    "max",
    "groupby",
    "selectattr",
    "rejectattr",
    "select",
    "reject",
    "dictsort",
];

impl Source {
    /// Rewrites `original` for the engine. A template that the engine's lexer refuses stays as it
    /// is: the engine reports the error.
    pub(crate) fn new(original: &str, syntax: &SyntaxConfig) -> Self {
        let tokens: Result<Tokens<'_>, _> = tokenize(original, false, syntax.clone())
            .map(|token| {
                token.map(|(token, span)| {
                    (token, span.start_offset as usize..span.end_offset as usize)
                })
            })
            .collect();
        let tokens = tokens.unwrap_or_default();
        let mut changes = changes(&tokens);
        // At one position, closing text comes before opening text.
        changes.sort_by_key(|(span, text)| (span.start, !text.starts_with(')')));
        Self {
            shows_only: !(0..tokens.len()).any(|index| compares(&tokens, index)),
            uses_record: tokens
                .iter()
                .any(|(token, _)| matches!(token, Token::Ident(name) if *name == RECORD)),
            reads: reads(&tokens),
            locals: locals(&tokens),
            ..Self::changed(original, changes)
        }
    }

    /// Applies sorted changes to a template and remembers where they are.
    fn changed(original: &str, changes: Vec<Change>) -> Self {
        let (mut engine, mut edits, mut from) = (String::new(), Vec::new(), 0);
        for (span, text) in changes {
            engine.push_str(&original[from..span.start]);
            engine.push_str(&text);
            edits.push((span.start, text.len() as isize - span.len() as isize));
            from = span.end;
        }
        engine.push_str(&original[from..]);
        let (original, locals) = (original.to_owned(), BTreeSet::new());
        Self { original, engine, shows_only: false, uses_record: false, reads: None, locals, edits }
    }

    /// Returns the position in the original of a position in the engine's text.
    pub(crate) fn place(&self, offset: usize) -> usize {
        let mut shift = 0;
        for &(position, added) in &self.edits {
            if position as isize + shift >= offset as isize {
                break;
            }
            shift = (shift + added).min(offset as isize - position as isize);
        }
        // An error may point into text that the author did not write, or inside a character.
        let mut place = (offset as isize - shift).clamp(0, self.original.len() as isize) as usize;
        while !self.original.is_char_boundary(place) {
            place -= 1;
        }
        place
    }

    /// Returns the tag around a position in the original, with its delimiters.
    pub(crate) fn tag_at(&self, place: usize) -> Option<&str> {
        // The position may be that of the delimiter itself.
        let end = self.original[place..]
            .char_indices()
            .nth(2)
            .map_or(self.original.len(), |(position, _)| place + position);
        let before = &self.original[..end];
        let start = before.rfind("{{").max(before.rfind("{%"))?;
        let close = if self.original[start..].starts_with("{{") { "}}" } else { "%}" };
        let len = self.original[start..].find(close)? + 2;
        (start + len > place).then(|| &self.original[start..start + len])
    }

    /// Returns the line and the column, both from 1, of a position in the original.
    pub(crate) fn line_and_column(&self, place: usize) -> (usize, usize) {
        let before = &self.original[..place];
        let line_start = before.rfind('\n').map_or(0, |position| position + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

/// Returns the changes that make a template of Jinja2 one of the engine's.
fn changes(tokens: &Tokens<'_>) -> Vec<Change> {
    // All changes are collected first and applied in one pass, so that positions stay valid.
    let mut changes = Vec::new();
    // A set: an operand between two tildes belongs to both, and must be wrapped once.
    let mut operands = BTreeSet::new();
    for (index, (token, span)) in tokens.iter().enumerate() {
        match token {
            Token::Tilde => operands.extend(
                [left_of(tokens, index), right_of(tokens, index)]
                    .map(|operand| (operand.start, operand.end)),
            ),
            Token::Ident(name)
                if OF_TEXT.contains(name) && follows(tokens, index, &Token::Pipe) =>
            {
                changes.push((span.start..span.start, format!("{TEXT}|")));
            }
            Token::Ident("generation") if follows(tokens, index, &Token::BlockStart) => {
                changes.push((span.clone(), format!("with %}}{{% filter {GENERATION}")));
            }
            Token::Ident("endgeneration") if follows(tokens, index, &Token::BlockStart) => {
                changes.push((span.clone(), "endfilter %}{% endwith".to_owned()));
            }
            _ => {}
        }
    }
    for (first, end) in operands.into_iter().filter(|(first, end)| first < end) {
        let (start, end) = (tokens[first].1.start, tokens[end - 1].1.end);
        changes.push((start..start, "(".to_owned()));
        changes.push((end..end, format!(")|{TEXT}")));
    }
    changes
}

/// Returns the words of the tags, names of fields in quotes too; `None` if the template may read
/// fields that it does not name, by way of the record or of all that the engine knows.
fn reads(tokens: &Tokens<'_>) -> Option<BTreeSet<String>> {
    let token = |index: usize| tokens.get(index).map(|(token, _)| token);
    let mut words = BTreeSet::new();
    for (index, (word, _)) in tokens.iter().enumerate() {
        match word {
            Token::Ident("debug") => return None,
            Token::Ident(name) => {
                let is_named = match (token(index + 1), token(index + 2), token(index + 3)) {
                    // A method, such as `record.items()`, reads more than its name.
                    (Some(Token::Dot), Some(Token::Ident(_)), next) => {
                        !matches!(next, Some(Token::ParenOpen))
                    }
                    (Some(Token::BracketOpen), Some(name), Some(Token::BracketClose)) => {
                        matches!(name, Token::Str(_) | Token::String(_))
                    }
                    _ => false,
                };
                if *name == RECORD && !is_named {
                    return None;
                }
                words.insert((*name).to_owned());
            }
            Token::Str(text) => _ = words.insert((*text).to_owned()),
            Token::String(text) => _ = words.insert(text.to_string()),
            _ => {}
        }
    }
    (!tokens.is_empty()).then_some(words)
}

/// Returns the names that loops, assignments and macros of a template define.
fn locals(tokens: &Tokens<'_>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut rest = tokens.iter().map(|(token, _)| token);
    while let Some(token) = rest.next() {
        // Only a tag can define a name.
        if !matches!(token, Token::BlockStart) {
            continue;
        }
        let Some(Token::Ident("for" | "set" | "macro" | "with" | "call")) = rest.next() else {
            continue;
        };
        let made = rest.by_ref().take_while(|token| {
            !matches!(token, Token::Ident("in") | Token::Assign | Token::BlockEnd)
        });
        names.extend(made.filter_map(|token| {
            if let Token::Ident(name) = token { Some((*name).to_owned()) } else { None }
        }));
    }
    names
}

/// Returns whether the token before `index` is of the kind of `wanted`.
fn follows(tokens: &Tokens<'_>, index: usize, wanted: &Token<'_>) -> bool {
    let same = std::mem::discriminant(wanted);
    index > 0 && std::mem::discriminant(&tokens[index - 1].0) == same
}

/// Returns whether the token at `index` compares or calculates.
fn compares(tokens: &Tokens<'_>, index: usize) -> bool {
    match &tokens[index].0 {
        // The `in` of a loop comes after the loop's names.
        Token::Ident("in") => {
            let names = |token: &Token<'_>| matches!(token, Token::Ident(_) | Token::Comma);
            let start = tokens[..index].iter().rposition(|(token, _)| !names(token));
            !start.is_some_and(|start| {
                matches!(tokens.get(start + 1), Some((Token::Ident("for"), _)))
            })
        }
        Token::Ident(name) => COMPARE.contains(name),
        Token::Eq | Token::Ne | Token::Gt | Token::Gte | Token::Lt | Token::Lte => true,
        _ => false,
    }
}

/// Returns 1 if a token opens a bracket, -1 if it closes one, else 0.
fn bracket(token: &Token<'_>) -> i32 {
    match token {
        Token::BracketOpen | Token::ParenOpen | Token::BraceOpen => 1,
        Token::BracketClose | Token::ParenClose | Token::BraceClose => -1,
        _ => 0,
    }
}

/// Returns whether the token at `index`, outside brackets, ends an operand of `~` since it binds no
/// tighter.
fn ends_operand(tokens: &Tokens<'_>, index: usize) -> bool {
    match &tokens[index].0 {
        Token::Tilde
        | Token::Comma
        | Token::Colon
        | Token::Assign
        | Token::VariableStart
        | Token::VariableEnd
        | Token::BlockStart
        | Token::BlockEnd
        | Token::Eq
        | Token::Ne
        | Token::Gt
        | Token::Gte
        | Token::Lt
        | Token::Lte => true,
        // A sign with no operand before it belongs to an operand.
        Token::Plus | Token::Minus => index > 0 && is_end(tokens, index - 1),
        Token::Ident(name) => {
            let after_is = index > 0 && matches!(tokens[index - 1].0, Token::Ident("is"));
            let is_keyword =
                WORDS.contains(name) && !follows(tokens, index, &Token::Dot) && !after_is;
            is_keyword || follows(tokens, index, &Token::BlockStart)
        }
        _ => false,
    }
}

/// Returns whether an operand can end with the token at `index`.
fn is_end(tokens: &Tokens<'_>, index: usize) -> bool {
    match &tokens[index].0 {
        Token::Ident(name) => {
            (!WORDS.contains(name) && *name != "is") || follows(tokens, index, &Token::Dot)
        }
        Token::Str(_) | Token::String(_) | Token::Int(_) | Token::Int128(_) | Token::Float(_) => {
            true
        }
        token => bracket(token) < 0,
    }
}

/// Returns the tokens of the operand to the left of the `~` at `index`.
fn left_of(tokens: &Tokens<'_>, index: usize) -> Range<usize> {
    let (mut start, mut depth) = (index, 0);
    while start > 0 {
        depth -= bracket(&tokens[start - 1].0);
        if depth < 0
            || (depth == 0 && bracket(&tokens[start - 1].0) == 0 && ends_operand(tokens, start - 1))
        {
            break;
        }
        start -= 1;
    }
    start..index
}

/// Returns the tokens of the operand to the right of the `~` at `index`.
fn right_of(tokens: &Tokens<'_>, index: usize) -> Range<usize> {
    let (mut end, mut depth) = (index + 1, 0);
    while end < tokens.len() {
        depth += bracket(&tokens[end].0);
        if depth < 0 || (depth == 0 && bracket(&tokens[end].0) == 0 && ends_operand(tokens, end)) {
            break;
        }
        end += 1;
    }
    index + 1..end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new(text, &SyntaxConfig::default())
    }

    #[test]
    fn operands_of_a_tilde_are_whole() {
        for (text, expected) in [
            ("{{ a ~ b }}", "{{ (a)|__str ~ (b)|__str }}"),
            (
                "{{ m.a[0] * 2 ~ -b ~ c|d(1, e) == f }}",
                "{{ (m.a[0] * 2)|__str ~ (-b)|__str ~ (c|d(1, e))|__str == f }}",
            ),
            (
                "{{ x + a ~ (b ~ c) - d }}",
                "{{ x + (a)|__str ~ (((b)|__str ~ (c)|__str))|__str - d }}",
            ),
            (
                "{% if not a ~ b is none and c %}",
                "{% if not (a)|__str ~ (b is none)|__str and c %}",
            ),
            ("{% set x = [a ~ 'b', c] %}", "{% set x = [(a)|__str ~ ('b')|__str, c] %}"),
            ("~ {{ a|upper }}", "~ {{ a|__str|upper }}"),
            (
                "{%- generation -%}a{% endgeneration %}",
                "{%- with %}{% filter __generation -%}a{% endfilter %}{% endwith %}",
            ),
        ] {
            assert_eq!(source(text).engine, expected, "{text}");
        }
    }

    #[test]
    fn places_are_those_of_the_author() {
        let source = source("a\n{{ x ~ yy }}{{ zz }}");
        for word in ["x", "yy", "zz"] {
            let (engine, original) =
                (source.engine.find(word).unwrap(), source.original.find(word).unwrap());
            assert_eq!(source.place(engine), original, "{word}");
        }
        let place = source.original.find("zz").unwrap();
        assert_eq!(
            (source.tag_at(place), source.line_and_column(place)),
            (Some("{{ zz }}"), (2, 16))
        );
    }

    #[test]
    fn one_final_newline_is_dropped() {
        for (text, expected) in
            [("a\n", "a"), ("a\n\n", "a\n"), ("a\r\nb\r\n", "a\nb"), ("a\rb\r", "a\nb"), ("\n", "")]
        {
            assert_eq!(as_jinja_reads(text), expected, "{text:?}");
        }
    }
}
