//! The rendered path: any other template, by minijinja, with the settings chat templates are written for.
//!
//! Of a rendered prompt only its control tokens are known to be the template's; all other text counts as data.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value as Jinja;
use minijinja::{Environment, Error as JinjaError, ErrorKind, UndefinedBehavior};

use super::guard::Controls;
use super::python::value_of;
use super::source::Source;
use super::{Fields, RECORD, Rendered, TokenNames, filters, words};
use crate::error::{Error, Result};
use crate::read::Value;
use crate::schema::{Drop, Refusal, Role};

const NAME: &str = "template";

/// A template of the engine.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    source: Source,
    controls: Controls,
    tokens: TokenNames,
}

impl Template {
    /// Compiles `text`; `tokens` are the names it knows beside the fields.
    pub fn parse(text: &str, controls: &Controls, tokens: &TokenNames) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
        let syntax = syntax.expect("the delimiters are the default ones");
        environment.set_syntax(syntax.clone());
        filters::add_to(&mut environment);
        let source = Source::new(text, &syntax);
        environment.add_template_owned(NAME, source.engine.clone()).map_err(|error| {
            let (what, remedy) = words::wrong_template(&source, &error);
            Error::config(format!("the template `{text}` is wrong: {what}")).remedy(remedy)
        })?;
        Ok(Self { environment, source, controls: controls.clone(), tokens: tokens.clone() })
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
        let all = names.iter().chain(&strings).copied().chain([self.source.original.as_str()]);
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
        let object = |fields: &Fields| -> Vec<(String, Jinja)> {
            let value = |value| value_of(value, &string, self.source.shows_only);
            fields.iter().map(|(key, field)| (key.clone(), value(field))).collect()
        };
        let mut names = object(fields);
        if self.source.uses_record && !fields.contains_key(RECORD) {
            names.push((RECORD.to_owned(), Jinja::from_pairs(object(fields))));
        }
        names.extend(self.tokens.iter().map(|(name, token)| (name.clone(), Jinja::from(token.as_str()))));
        template.render(Jinja::from_pairs(names)).map_err(|error| self.refusal(fields, &error))
    }

    /// Why a record is dropped that the engine fails on.
    fn refusal(&self, fields: &Fields, error: &JinjaError) -> Refusal {
        match error.kind() {
            ErrorKind::UndefinedError => {
                Refusal::new(Drop::MissingField, words::not_there(&self.source, fields, error))
            }
            ErrorKind::BadSerialization => Refusal::new(Drop::Malformed, words::unreadable(&self.source, error)),
            _ => Refusal::new(Drop::TemplateError, words::failed(&self.source, fields, error)),
        }
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
