//! The rendered path: any other template, by minijinja, with the settings chat templates are written for.
//!
//! Of a rendered prompt only its control tokens are known to be the template's; all other text counts as data.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value as Jinja};
use minijinja::{Environment, Error as JinjaError, ErrorKind, UndefinedBehavior};
use serde_json::Value;

use super::guard::Controls;
use super::{Fields, Rendered};
use crate::error::{Error, Result};
use crate::schema::{Drop, Refusal, Role};

const NAME: &str = "template";

/// A template of the engine.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    text: String,
    controls: Controls,
}

impl Template {
    /// Compiles `text`.
    pub fn parse(text: &str, controls: &Controls) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
        environment.set_syntax(syntax.expect("the delimiters are the default ones"));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> std::result::Result<String, JinjaError> {
            Err(JinjaError::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_filter("tojson", |value: Jinja| -> std::result::Result<String, JinjaError> {
            let value = serde_json::to_value(&value)
                .map_err(|error| JinjaError::new(ErrorKind::BadSerialization, error.to_string()))?;
            let mut text = String::new();
            to_json(&value, &mut text);
            Ok(text)
        });
        environment.add_template_owned(NAME, text.to_owned()).map_err(|error| {
            Error::config(format!("the template `{text}` is wrong: {}", describe(&error)))
                .remedy("templates are Jinja: https://jinja.palletsprojects.com/templates")
        })?;
        Ok(Self { environment, text: text.to_owned(), controls: controls.clone() })
    }

    /// Renders into `out`. Gives whether it shows only blank text.
    pub fn render(&self, fields: &Fields, is_target: bool, out: &mut Rendered) -> std::result::Result<bool, Refusal> {
        let text = self.render_text(fields, str::to_owned)?;
        let (literal_role, data_role) =
            if is_target { (Role::Target, Role::Target) } else { (Role::Template, Role::Data) };
        for (piece, is_control) in self.separate(fields, &text)? {
            out.push(&piece, if is_control { literal_role } else { data_role }, is_control);
        }
        Ok(text.trim().is_empty())
    }

    /// The pieces of the rendered `text`, each with whether it is a control token of the template. Refused if guards
    /// change what the template makes of the data.
    fn separate(&self, fields: &Fields, text: &str) -> std::result::Result<Vec<(String, bool)>, Refusal> {
        let controls = &self.controls;
        if !controls.occur_in(text) {
            return Ok(vec![(text.to_owned(), false)]);
        }
        let (mut names, mut strings) = (Vec::new(), Vec::new());
        collect_strings(fields, &mut names, &mut strings);
        let all = names.iter().chain(&strings).copied().chain([self.text.as_str()]);
        let guards = (controls.guards(all))
            .ok_or_else(|| Refusal::new(Drop::TemplateError, "its data holds every Unicode noncharacter"))?;
        // Names are looked up by the template, so they stay as they are; one that could help to spell a token is refused.
        let is_word = |name: &str| name.chars().all(|c| c.is_alphanumeric() || c == '_');
        let may_spell = |name: &&&str| !is_word(name) && controls.guard(name, &guards, false) != **name;
        if let Some(name) = names.iter().find(may_spell) {
            return Err(Refusal::new(Drop::Refused, format!("the field name '{name}' could spell a control token")));
        }
        if strings.iter().all(|text| controls.guard(text, &guards, true) == *text) {
            return Ok(controls.split(text, &guards));
        }
        for middles in [true, false] {
            let guarded = self.render_text(fields, |text| controls.guard(text, &guards, middles));
            if let Ok(guarded) = guarded
                && guards.undo(&guarded) == text
            {
                return Ok(controls.split(&guarded, &guards));
            }
        }
        let why = "its data holds text like a control token, which the template compares or changes: the template's own \
                   control tokens cannot be told from it";
        Err(Refusal::new(Drop::Refused, why))
    }

    fn render_text(&self, fields: &Fields, string: impl Fn(&str) -> String) -> std::result::Result<String, Refusal> {
        let template = self.environment.get_template(NAME).expect("added when it was parsed");
        template.render(object_of(fields, &string)).map_err(|error| {
            let reason = match error.kind() {
                ErrorKind::UndefinedError => Drop::MissingField,
                _ => Drop::TemplateError,
            };
            Refusal::new(reason, describe(&error))
        })
    }
}

/// Fields as the engine's value: strings through `string`, null as undefined.
fn object_of(fields: &Fields, string: &impl Fn(&str) -> String) -> Jinja {
    Jinja::from_pairs(fields.iter().map(|(key, value)| (key.clone(), value_of(value, string))))
}

/// A field's value as the engine's.
pub fn value_of(value: &Value, string: &impl Fn(&str) -> String) -> Jinja {
    match value {
        Value::Null => Jinja::UNDEFINED,
        Value::String(text) => Jinja::from(string(text)),
        Value::Array(items) => items.iter().map(|item| value_of(item, string)).collect(),
        Value::Object(fields) => object_of(fields, string),
        other => Jinja::from(Serde(other)),
    }
}

/// JSON as Python's `json.dumps(value, ensure_ascii=False)` writes it, which chat templates are written for.
fn to_json(value: &Value, out: &mut String) {
    let mut list = |open: char, close: char, items: &mut dyn Iterator<Item = (Option<&String>, &Value)>| {
        out.push(open);
        for (nth, (key, item)) in items.enumerate() {
            if nth > 0 {
                out.push_str(", ");
            }
            if let Some(key) = key {
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push_str(": ");
            }
            to_json(item, out);
        }
        out.push(close);
    };
    match value {
        Value::Array(items) => list('[', ']', &mut items.iter().map(|item| (None, item))),
        Value::Object(fields) => list('{', '}', &mut fields.iter().map(|(key, item)| (Some(key), item))),
        other => out.push_str(&other.to_string()),
    }
}

/// The names of fields, and the strings in them, at any depth.
fn collect_strings<'a>(fields: &'a Fields, names: &mut Vec<&'a str>, strings: &mut Vec<&'a str>) {
    for (name, value) in fields {
        names.push(name);
        collect_from(value, names, strings);
    }
}

fn collect_from<'a>(value: &'a Value, names: &mut Vec<&'a str>, strings: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => strings.push(text),
        Value::Array(items) => items.iter().for_each(|item| collect_from(item, names, strings)),
        Value::Object(fields) => collect_strings(fields, names, strings),
        _ => {}
    }
}

/// An engine's error in one line.
fn describe(error: &JinjaError) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    match error.line() {
        Some(line) if line > 1 => format!("{what} (template line {line})"),
        _ => what,
    }
}
