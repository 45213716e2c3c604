//! The compiled path: templates that only substitute fields, without a template engine.

use unicode_normalization::char::is_combining_mark;

use super::python::{text, value_of};
use super::{Fields, RECORD, Rendered, Step, TokenNames, words};
use crate::read::Value;
use crate::schema::{DropReason, Refusal, Role};

/// Literal text and dotted fields in turn.
#[derive(Debug)]
pub struct Template {
    /// In order.
    pub parts: Vec<Part>,
}

/// A part of a template.
#[derive(Debug)]
pub enum Part {
    /// Its own text.
    Literal(String),
    /// A field by its path.
    Field(Vec<String>),
}

impl Template {
    /// The template, if it does nothing but substitute fields. A name among `tokens` is its token,
    /// as the template's text.
    pub fn parse(text: &str, tokens: &TokenNames) -> Option<Self> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find("{{") {
            let (literal, tail) = rest.split_at(at);
            let (expression, after) = tail[2..].split_once("}}")?;
            parts.push(Part::Literal(literal.to_owned()));
            let path = field_path(expression)?;
            let token = tokens.iter().find(|(name, _)| path == [name.as_str()]);
            parts.push(token.map_or(Part::Field(path), |(_, token)| Part::Literal(token.clone())));
            rest = after;
        }
        parts.push(Part::Literal(rest.to_owned()));
        let plain = |part: &Part| !matches!(part, Part::Literal(text) if text.contains("{%") || text.contains("{#"));
        parts.retain(|part| !matches!(part, Part::Literal(text) if text.is_empty()));
        parts.iter().all(plain).then_some(Self { parts })
    }

    /// Renders into `out`. Gives whether there is data and all of it is blank.
    pub fn render(
        &self,
        fields: &Fields,
        is_target: bool,
        out: &mut Rendered,
    ) -> Result<bool, Refusal> {
        let (literal_role, data_role) =
            if is_target { (Role::Target, Role::Target) } else { (Role::Template, Role::Data) };
        let (mut has_data, mut blank) = (false, true);
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.push(text, literal_role, true),
                Part::Field(path) => {
                    has_data = true;
                    let value = lookup(fields, path).ok_or_else(|| {
                        Refusal::new(DropReason::MissingField, words::missing_field(fields, path))
                    })?;
                    let start = out.text.len();
                    match value {
                        Value::String(text) => out.push(text, data_role, false),
                        other => out.push(&shown(other, path)?, data_role, false),
                    }
                    blank &= out.text[start..].trim().is_empty();
                }
            }
        }
        Ok(has_data && blank)
    }

    /// Appends the paths of its fields.
    pub fn paths(&self, out: &mut Vec<Vec<Step>>) {
        for part in &self.parts {
            if let Part::Field(path) = part {
                out.push(path.iter().cloned().map(Step::Key).collect());
                if let Some(inner) = in_record(path) {
                    out.push(inner.iter().cloned().map(Step::Key).collect());
                }
            }
        }
    }
}

/// Numbers, booleans, lists: as Python writes them.
fn shown(value: &Value, path: &[String]) -> Result<String, Refusal> {
    let unreadable = |error: minijinja::Error| {
        let why = error.detail().unwrap_or("holds a value that is no text").to_owned();
        Refusal::new(DropReason::Malformed, format!("field '{}' {why}", path.join(".")))
    };
    if let Value::Unreadable(why) = value {
        return Err(Refusal::new(
            DropReason::Malformed,
            format!("field '{}' {why}", path.join(".")),
        ));
    }
    text(&value_of(value, &str::to_owned, true)).map_err(unreadable)
}

/// The path in the record of `record.…`.
pub fn in_record(path: &[String]) -> Option<&[String]> {
    path.split_first()
        .filter(|(first, rest)| *first == RECORD && !rest.is_empty())
        .map(|(_, rest)| rest)
}

/// `a.b.c` or `a["b"].c` of an expression that is nothing else. Jinja's own words are left to
/// Jinja.
fn field_path(expression: &str) -> Option<Vec<String>> {
    const WORDS: [&str; 11] = [
        "true", "false", "none", "True", "False", "None", "not", "self", "loop", "super", "caller",
    ];
    let is_inside = |c: char| c == '_' || c.is_alphanumeric() || is_combining_mark(c);
    let mut rest = expression.trim();
    let mut path = Vec::new();
    loop {
        if let Some(quoted) =
            rest.strip_prefix(['[']).filter(|_| !path.is_empty()).map(str::trim_start)
        {
            let quote = quoted.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            let (name, after) = quoted[1..].split_once(quote)?;
            if name.contains('\\') {
                return None;
            }
            path.push(name.to_owned());
            rest = after.trim_start().strip_prefix(']')?;
        } else {
            rest = if path.is_empty() { rest } else { rest.strip_prefix('.')? };
            let (name, after) = rest.split_at(rest.find(|c| !is_inside(c)).unwrap_or(rest.len()));
            if !name.starts_with(|c: char| c == '_' || c.is_alphabetic()) {
                return None;
            }
            path.push(name.to_owned());
            rest = after;
        }
        if rest.is_empty() {
            return (!WORDS.contains(&path[0].as_str())).then_some(path);
        }
    }
}

fn lookup<'a>(fields: &'a Fields, path: &[String]) -> Option<&'a Value> {
    let path = in_record(path).filter(|_| !fields.contains_key(RECORD)).unwrap_or(path);
    let mut value = fields.get(&path[0])?;
    for name in &path[1..] {
        let Value::Object(fields) = value else { return None };
        value = fields.get(name)?;
    }
    (!value.is_null()).then_some(value)
}
