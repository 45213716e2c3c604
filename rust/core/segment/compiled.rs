//! The compiled path: templates that only substitute fields, without a template engine.

use serde_json::Value;

use super::jinja::value_of;
use super::{Fields, Rendered, Step};
use crate::schema::{Drop, Refusal, Role};

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
    /// The template, if it does nothing but substitute fields.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find("{{") {
            let (literal, tail) = rest.split_at(at);
            let (expression, after) = tail[2..].split_once("}}")?;
            parts.push(Part::Literal(literal.to_owned()));
            parts.push(Part::Field(field_path(expression)?));
            rest = after;
        }
        parts.push(Part::Literal(rest.to_owned()));
        let plain = |part: &Part| !matches!(part, Part::Literal(text) if text.contains("{%") || text.contains("{#"));
        parts.retain(|part| !matches!(part, Part::Literal(text) if text.is_empty()));
        parts.iter().all(plain).then_some(Self { parts })
    }

    /// Renders into `out`. Gives whether there is data and all of it is blank.
    pub fn render(&self, fields: &Fields, is_target: bool, out: &mut Rendered) -> Result<bool, Refusal> {
        let (literal_role, data_role) =
            if is_target { (Role::Target, Role::Target) } else { (Role::Template, Role::Data) };
        let (mut has_data, mut blank) = (false, true);
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.push(text, literal_role, true),
                Part::Field(path) => {
                    has_data = true;
                    let value = lookup(fields, path).ok_or_else(|| {
                        let names: Vec<&str> = fields.keys().map(String::as_str).take(12).collect();
                        let (path, names) = (path.join("."), names.join(", "));
                        Refusal::new(Drop::MissingField, format!("field '{path}' is missing or null (fields: {names})"))
                    })?;
                    let start = out.text.len();
                    match value {
                        Value::String(text) => out.push(text, data_role, false),
                        // Numbers, booleans, lists: spelled as the template engine spells them.
                        other => out.push(&value_of(other, &str::to_owned).to_string(), data_role, false),
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
            }
        }
    }
}

/// `a.b.c` of an expression that is nothing else. Jinja's own words are left to Jinja.
fn field_path(expression: &str) -> Option<Vec<String>> {
    const WORDS: [&str; 11] =
        ["true", "false", "none", "True", "False", "None", "not", "self", "loop", "super", "caller"];
    let path: Vec<String> = expression.trim().split('.').map(str::to_owned).collect();
    let is_name = |name: &String| {
        let mut chars = name.chars();
        chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    (path.iter().all(is_name) && !WORDS.contains(&path[0].as_str())).then_some(path)
}

fn lookup<'a>(fields: &'a Fields, path: &[String]) -> Option<&'a Value> {
    let mut value = fields.get(&path[0])?;
    for name in &path[1..] {
        value = value.as_object()?.get(name)?;
    }
    (!value.is_null()).then_some(value)
}
