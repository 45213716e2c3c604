//! The rendered path: any other template, by minijinja, with the settings chat templates are written for.
//!
//! What of the text is the template's is found by a second render, with marks around what comes from data: its text
//! without marks must be the text of the first. Where it is not, all of the text counts as data but for the control
//! tokens that the template is proved to spell.

use std::sync::atomic::{AtomicU64, Ordering};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value as Jinja};
use minijinja::{Environment, Error as JinjaError, ErrorKind, UndefinedBehavior};
use serde_json::Value;

use super::guard::Controls;
use super::marks::{self, Marked};
use super::program::Program;
use super::{Fields, Rendered, limits, operations};
use crate::error::{Error, Result};
use crate::schema::{Drop, Refusal, Role};

/// A template of the engine.
#[derive(Debug)]
pub struct Template {
    program: Program,
    environment: Environment<'static>,
    /// Where operations carry marks.
    marked: Environment<'static>,
    text: String,
    controls: Controls,
    /// Records of which it is not known what is the template's.
    unmarked: AtomicU64,
}

impl Template {
    /// Compiles `text`.
    pub fn parse(text: &str, controls: &Controls) -> Result<Self> {
        let program = Program::compile(text, &syntax()).map_err(|error| {
            Error::config(format!("the template `{text}` is wrong: {}", describe(&error)))
                .remedy("templates are Jinja: https://jinja.palletsprojects.com/templates")
        })?;
        let [environment, marked] = [false, true].map(environment);
        Ok(Self {
            program,
            environment,
            marked,
            text: text.to_owned(),
            controls: controls.clone(),
            unmarked: AtomicU64::new(0),
        })
    }

    /// Renders into `out`. Gives whether it shows only blank text.
    pub fn render(&self, fields: &Fields, is_target: bool, out: &mut Rendered) -> std::result::Result<bool, Refusal> {
        let text = self.render_text(&self.environment, fields, str::to_owned)?;
        let (literal_role, data_role) =
            if is_target { (Role::Target, Role::Target) } else { (Role::Template, Role::Data) };
        if let Some(marked) = self.marked(fields, &text) {
            let mut from = 0;
            for data in &marked.data {
                out.push(&text[from..data.start], literal_role, true);
                out.push(&text[data.clone()], data_role, false);
                from = data.end;
            }
            out.push(&text[from..], literal_role, true);
        } else {
            for (piece, is_control) in self.separate(fields, &text)? {
                out.push(&piece, if is_control { literal_role } else { data_role }, is_control);
            }
            self.unmarked.fetch_add(1, Ordering::Relaxed);
        }
        Ok(text.trim().is_empty())
    }

    /// Records of which it was not known what is the template's and what is data.
    #[must_use]
    pub fn unmarked(&self) -> u64 {
        self.unmarked.load(Ordering::Relaxed)
    }

    /// The rendered `text` with what of it is data; nothing where a render of marked data gives another text.
    fn marked(&self, fields: &Fields, text: &str) -> Option<Marked> {
        let (mut names, mut strings) = (Vec::new(), Vec::new());
        collect_strings(fields, &mut names, &mut strings);
        let mut free = Controls::free(names.iter().chain(&strings).copied().chain([self.text.as_str()]));
        let (open, close) = (free.next()?, free.next()?);
        let has_numbers = fields.values().any(has_numbers);
        // An empty string with marks is not empty, and a template may ask for that.
        let attempts: &[bool] = if strings.contains(&"") { &[true, false] } else { &[true] };
        attempts.iter().find_map(|&marks_empty| {
            let mark = |text: &str| match text {
                "" if !marks_empty => String::new(),
                _ => format!("{open}{text}{close}"),
            };
            marks::begin(has_numbers, [open, close]);
            let marked = Marked::read(&self.render_text(&self.marked, fields, mark).ok()?);
            (marked.is_whole() && marked.text == text).then_some(marked)
        })
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
            let guarded = self.render_text(&self.environment, fields, |text| controls.guard(text, &guards, middles));
            if let Ok(guarded) = guarded
                && guards.undo(&guarded) == text
            {
                return Ok(controls.split(&guarded, &guards));
            }
        }
        Err(Refusal::new(Drop::Refused, self.why_refused(text)))
    }

    /// Why a record is refused whose rendered `text` spells a control token.
    fn why_refused(&self, text: &str) -> String {
        let token = self.controls.occurrences(text).next().map_or("", |found| &text[found]);
        let line = self.text.lines().position(|line| line.contains(token));
        let place = line.map_or_else(|| "put together by it".to_owned(), |line| format!("line {}", line + 1));
        format!(
            "the control token '{token}' of its template ({place}) cannot be told from its data, which holds text like \
             a control token that the template changes"
        )
    }

    fn render_text(
        &self,
        environment: &Environment<'static>,
        fields: &Fields,
        string: impl Fn(&str) -> String,
    ) -> std::result::Result<String, Refusal> {
        self.program.render(environment, object_of(fields, &string)).map_err(|error| match error.kind() {
            ErrorKind::UndefinedError => Refusal::new(Drop::MissingField, describe(&error)),
            ErrorKind::OutOfFuel => Refusal::new(Drop::TemplateError, limits::out_of_fuel()),
            _ => Refusal::new(Drop::TemplateError, describe(&error)),
        })
    }
}

fn syntax() -> SyntaxConfig {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
    syntax.expect("the delimiters are the default ones")
}

/// The engine with what chat templates are written for; its operations carry marks where `marked`.
fn environment(marked: bool) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
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
    limits::install(&mut environment);
    operations::install(&mut environment, marked);
    environment
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

/// Whether `value` holds anything that is shown but no string.
fn has_numbers(value: &Value) -> bool {
    match value {
        Value::Null | Value::String(_) => false,
        Value::Array(items) => items.iter().any(has_numbers),
        Value::Object(fields) => fields.values().any(has_numbers),
        Value::Number(_) | Value::Bool(_) => true,
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

#[cfg(test)]
impl Template {
    /// The text as the engine renders the template as it is written, by none of our operations.
    pub fn rendered_by_the_engine_alone(&self, fields: &Fields) -> std::result::Result<String, JinjaError> {
        let mut environment = environment(false);
        environment.set_syntax(syntax());
        environment.render_str(&self.text, object_of(fields, &str::to_owned))
    }
}
