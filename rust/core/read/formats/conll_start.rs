//! `Start`: what the start of a `CoNLL` file tells about all of it.

use std::collections::HashSet;

use super::conll::{DOCUMENT, TOKENS, columns};
use super::text_unit::is_blank;
use crate::error::Result;
use crate::read::lines::{Line, Lines};

/// The columns of CoNLL-U, whose FORM are the tokens.
const CONLL_U: [&str; 10] =
    ["id", TOKENS, "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc"];
/// The comment of CoNLL-U Plus that names its columns.
const COLUMNS_COMMENT: &[u8] = b"# global.columns = ";
/// The lines that are looked at for tags, and the most tags.
const LINES: usize = 1000;
const TAGS: usize = 256;

/// What the first lines of a file tell.
#[derive(Default)]
pub(super) struct Start {
    /// The names of the columns, if the file is in CoNLL-U.
    pub(super) conll_u: Option<Vec<String>>,
    /// The number of columns of the first token.
    pub(super) width: usize,
    /// The last columns of the first tokens.
    pub(super) tags: HashSet<Vec<u8>>,
}

impl Start {
    /// Reads the first lines of a file.
    pub(super) fn read(lines: &mut Lines) -> Result<Self> {
        let (mut start, mut named) = (Self::default(), None);
        for _ in 0..LINES {
            if !lines.step()? {
                break;
            }
            let Line::Text(line) = lines.current().1 else { continue };
            if let Some(names) = line.strip_prefix(COLUMNS_COMMENT) {
                named = named.or_else(|| names_of(names));
            }
            let is_document = columns(line).next() == Some(DOCUMENT);
            if is_blank(line) || line.starts_with(b"#") || is_document {
                continue;
            }
            if start.width == 0 {
                start.width = columns(line).count();
                start.conll_u = conll_u(line, named.take());
            }
            if let Some(tag) = columns(line).last().filter(|_| start.tags.len() < TAGS)
                && !start.tags.contains(tag)
            {
                start.tags.insert(tag.to_vec());
            }
        }
        Ok(start)
    }
}

/// Returns the names in the comment of CoNLL-U Plus; `None` for those that do not begin with ID.
fn names_of(names: &[u8]) -> Option<Vec<String>> {
    let names = std::str::from_utf8(names).ok()?.split_whitespace();
    let name = |name: &str| match name {
        "FORM" => TOKENS.to_owned(),
        name => name.to_lowercase(),
    };
    let names: Vec<String> = names.map(name).collect();
    let distinct: HashSet<&String> = names.iter().collect();
    (names.first().is_some_and(|name| name == "id") && distinct.len() == names.len())
        .then_some(names)
}

/// Returns the names of the columns of a file in CoNLL-U, whose first token has this `line`; `None`
/// for other files.
fn conll_u(line: &[u8], named: Option<Vec<String>>) -> Option<Vec<String>> {
    let names = named.unwrap_or_else(|| CONLL_U.map(str::to_owned).to_vec());
    let width = line.split(|byte| *byte == b'\t').count();
    (width == names.len() && line[0].is_ascii_digit()).then_some(names)
}
