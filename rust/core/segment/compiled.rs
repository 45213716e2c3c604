//! The compiled path: templates that only substitute fields, rendered without a template engine.

use super::python::{text, value_of};
use super::{Fields, RECORD, Rendered, Step, TokenNames, words};
use crate::read::{Value, field_path};
use crate::schema::{DropReason, Refusal, Role};

/// A template of literal text and dotted fields.
#[derive(Debug)]
pub(crate) struct Template {
    /// The parts, in order.
    pub(crate) parts: Vec<Part>,
}

/// A part of a compiled template.
#[derive(Debug)]
pub(crate) enum Part {
    /// Text that the template spells.
    Literal(String),
    /// A field, by its path.
    Field(Vec<String>),
}

impl Template {
    /// Parses a template; returns none if it does more than substitute fields. A name in `tokens`
    /// becomes its token, as text of the template.
    pub(crate) fn parse(text: &str, tokens: &TokenNames) -> Option<Self> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find("{{") {
            let (literal, tail) = rest.split_at(start);
            // A string with `}}` in it leaves a torn expression, which is no path: Jinja gets it.
            let (expression, after) = tail[2..].split_once("}}")?;
            parts.push(Part::Literal(literal.to_owned()));
            let path = field_path(expression)?;
            let token = tokens.iter().find(|(name, _)| path == [name.as_str()]);
            parts.push(token.map_or(Part::Field(path), |(_, token)| Part::Literal(token.clone())));
            rest = after;
        }
        parts.push(Part::Literal(rest.to_owned()));
        let is_tag = |text: &str| text.contains("{%") || text.contains("{#");
        let plain = |part: &Part| !matches!(part, Part::Literal(text) if is_tag(text));
        parts.retain(|part| !matches!(part, Part::Literal(text) if text.is_empty()));
        parts.iter().all(plain).then_some(Self { parts })
    }

    /// Renders a record into `out`. Returns whether the template shows data and all of it is blank.
    pub(crate) fn render(
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

    /// Returns the names of the record's own fields that the template reads.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        let mut paths = Vec::new();
        self.paths(&mut paths);
        paths.into_iter().filter_map(|path| match path.into_iter().next() {
            Some(Step::Key(name)) => Some(name),
            _ => None,
        })
    }

    /// Appends the paths of the template's fields.
    pub(crate) fn paths(&self, out: &mut Vec<Vec<Step>>) {
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

/// Returns a number, a boolean or a list as Python writes it.
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

/// Returns the path inside the record of a path that starts with `record`.
pub(crate) fn in_record(path: &[String]) -> Option<&[String]> {
    path.split_first()
        .filter(|(first, rest)| *first == RECORD && !rest.is_empty())
        .map(|(_, rest)| rest)
}

/// Returns the value at a path; none if it is missing or null.
pub(crate) fn lookup<'a>(fields: &'a Fields, path: &[String]) -> Option<&'a Value> {
    let path = in_record(path).filter(|_| !fields.contains_key(RECORD)).unwrap_or(path);
    let mut value = fields.get(&path[0])?;
    for name in &path[1..] {
        let Value::Object(fields) = value else { return None };
        value = fields.get(name)?;
    }
    (!value.is_null()).then_some(value)
}
