//! The rendered path: templates that do more than substitute fields, rendered by minijinja with the
//! settings of chat templates.
//!
//! A second render, with marks around everything that comes from data, finds the text of the
//! template itself. Its text without marks must equal the text of the first render. If it does not,
//! all text counts as data, except the control tokens that the template provably spells.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value as Jinja;
use minijinja::{Environment, Error as JinjaError, ErrorKind, UndefinedBehavior};

use super::guard::Controls;
use super::marks::{self, Marked, Signs};
use super::program::Program;
use super::python::value_of;
use super::source::Source;
use super::{Fields, RECORD, Rendered, TokenNames, filters, limits, operations, words};
use crate::error::{Error, Result};
use crate::read::Value;
use crate::schema::{DropReason, Refusal, Role};

/// A compiled template of the engine.
#[derive(Debug)]
pub(crate) struct Template {
    program: Program,
    environment: Environment<'static>,
    /// The environment whose operations carry marks.
    marked: Environment<'static>,
    source: Source,
    controls: Controls,
    tokens: TokenNames,
    /// The number of records for which template and data could not be told apart.
    unmarked: AtomicU64,
}

impl Template {
    /// Compiles `text`; `tokens` are the names that it knows besides the fields.
    pub(crate) fn parse(text: &str, controls: &Controls, tokens: &TokenNames) -> Result<Self> {
        Self::compile(text, controls, tokens, &words::named(text))
    }

    /// Compiles `when`, a tag of an expression, for the question whether it is true.
    pub(crate) fn of_condition(when: &str, tokens: &TokenNames) -> Result<Self> {
        let inner = when.trim();
        let inner = inner.strip_prefix("{{-").or_else(|| inner.strip_prefix("{{")).unwrap_or(inner);
        let inner = inner.strip_suffix("-}}").or_else(|| inner.strip_suffix("}}")).unwrap_or(inner);
        let text = format!("{{% if {} %}}1{{% endif %}}", inner.trim());
        Self::compile(&text, &Controls::new([]), tokens, &format!("when = {when:?}"))
    }

    /// Returns whether the condition holds for a record.
    pub(crate) fn holds(&self, fields: &Fields) -> std::result::Result<bool, Refusal> {
        self.render_text(&self.environment, fields, str::to_owned).map(|text| !text.is_empty())
    }

    /// Compiles the template of chats. It cannot ask for the date, but it can ask whether it can.
    pub(crate) fn of_chat(text: &str) -> Result<Self> {
        let text = super::source::as_jinja_reads(text);
        let mut template =
            Self::compile(&text, &Controls::new([]), &TokenNames::new(), "its chat template")?;
        template.environment.remove_global("strftime_now");
        template.marked.remove_global("strftime_now");
        Ok(template)
    }

    /// Compiles `text`, which errors call `name`.
    fn compile(text: &str, controls: &Controls, tokens: &TokenNames, name: &str) -> Result<Self> {
        let source = Source::new(text, &syntax());
        let program = Program::compile(&source.engine, &syntax()).map_err(|error| {
            let (what, remedy) = words::wrong_template(&source, &error);
            Error::config(format!("{name} is wrong: {what}")).remedy(remedy)
        })?;
        let [environment, marked] = [false, true].map(environment);
        Ok(Self {
            program,
            environment,
            marked,
            source,
            controls: controls.clone(),
            tokens: tokens.clone(),
            unmarked: AtomicU64::new(0),
        })
    }

    /// Renders a record into `out`. Returns whether the whole text is blank.
    pub(crate) fn render(
        &self,
        fields: &Fields,
        is_target: bool,
        out: &mut Rendered,
    ) -> std::result::Result<bool, Refusal> {
        let text = self.render_text(&self.environment, fields, str::to_owned)?;
        let (literal_role, data_role) =
            if is_target { (Role::Target, Role::Target) } else { (Role::Template, Role::Data) };
        if let Some(marked) = self.marked(fields, &text) {
            let mut from = 0;
            for data in &marked.data {
                out.push(&text[from..data.start], literal_role, true);
                out.push(&text[data.range()], data_role, false);
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

    /// Renders a chat of these names.
    pub(crate) fn render_chat(&self, names: Jinja) -> std::result::Result<String, Refusal> {
        let rendered = self.program.render(&self.environment, names);
        rendered.map_err(|error| self.refusal(&Fields::new(), &error))
    }

    /// Renders a chat of these names, whose data is marked with `signs`. Returns none if the engine
    /// fails, or marks lose their partners.
    pub(crate) fn render_marked(
        &self,
        names: Jinja,
        signs: &Signs,
        has_numbers: bool,
    ) -> Option<Marked> {
        marks::begin(has_numbers, *signs);
        let marked = Marked::read(&self.program.render(&self.marked, names).ok()?);
        marked.is_whole().then_some(marked)
    }

    /// Returns signs that neither `texts` nor the template hold.
    pub(crate) fn signs(&self, texts: &[&str]) -> Option<Signs> {
        let all = texts.iter().copied().chain([self.source.original.as_str()]);
        Signs::labelled(Controls::free(all))
    }

    /// Returns the names of fields that the template may read; `None` if it may read any.
    pub(crate) fn names(&self) -> Option<&BTreeSet<String>> {
        self.source.reads.as_ref()
    }

    /// Returns whether the template neither compares nor calculates.
    pub(crate) fn shows_only(&self) -> bool {
        self.source.shows_only
    }

    /// Returns the number of records for which template and data could not be told apart.
    #[must_use]
    pub(crate) fn unmarked(&self) -> u64 {
        self.unmarked.load(Ordering::Relaxed)
    }

    /// Returns the rendered `text` with its data marked; none if a render of marked data gives
    /// another text.
    fn marked(&self, fields: &Fields, text: &str) -> Option<Marked> {
        let (mut names, mut strings) = (Vec::new(), Vec::new());
        collect_strings(fields, &mut names, &mut strings);
        // Marks must occur in no text of the record or the template.
        let mut free = Controls::free(
            names.iter().chain(&strings).copied().chain([self.source.original.as_str()]),
        );
        let (open, close) = (free.next()?, free.next()?);
        let has_numbers = fields.values().any(has_numbers);
        // An empty string with marks is not empty, and a template may test for that.
        let attempts: &[bool] = if strings.contains(&"") { &[true, false] } else { &[true] };
        attempts.iter().find_map(|&marks_empty| {
            let mark = |text: &str| match text {
                "" if !marks_empty => String::new(),
                _ => format!("{open}{text}{close}"),
            };
            marks::begin(has_numbers, Signs::plain([open, close]));
            let marked = Marked::read(&self.render_text(&self.marked, fields, mark).ok()?);
            (marked.is_whole() && marked.text == text).then_some(marked)
        })
    }

    /// Returns the stretches of the rendered `text`, each with whether it is a control token of the
    /// template. Refuses a record if guards change the text that the template makes of it.
    fn separate(
        &self,
        fields: &Fields,
        text: &str,
    ) -> std::result::Result<Vec<(String, bool)>, Refusal> {
        // Without a look-alike there is nothing to tell apart: all text is data.
        let controls = &self.controls;
        if !controls.occur_in(text) {
            return Ok(vec![(text.to_owned(), false)]);
        }
        let (mut names, mut strings) = (Vec::new(), Vec::new());
        collect_strings(fields, &mut names, &mut strings);
        let all = names.iter().chain(&strings).copied().chain([self.source.original.as_str()]);
        let guards = (controls.guards(all)).ok_or_else(|| {
            Refusal::new(DropReason::TemplateError, "its data holds every Unicode noncharacter")
        })?;
        // The template looks names up, so they stay as they are. A name that could help to spell a
        // token is refused.
        let is_word = |name: &str| name.chars().all(|c| c.is_alphanumeric() || c == '_');
        let may_spell =
            |name: &&&str| !is_word(name) && controls.guard(name, &guards, false) != **name;
        if let Some(name) = names.iter().find(may_spell) {
            return Err(Refusal::new(
                DropReason::Refused,
                format!("the field name '{name}' could spell a control token"),
            ));
        }
        // No guard is needed: the data cannot spell any part of a token, so the template spelled
        // it.
        if strings.iter().all(|text| controls.guard(text, &guards, true) == *text) {
            return Ok(controls.split(text, &guards));
        }
        // First with guards in the middles of tokens too; templates that compare such strings then
        // render another text, and get a second attempt without those guards.
        for middles in [true, false] {
            let guarded = self.render_text(&self.environment, fields, |text| {
                controls.guard(text, &guards, middles)
            });
            if let Ok(guarded) = guarded
                && guards.undo(&guarded) == text
            {
                return Ok(controls.split(&guarded, &guards));
            }
        }
        Err(Refusal::new(DropReason::Refused, self.why_refused(text)))
    }

    /// Returns the reason for refusing a record whose rendered `text` spells a control token.
    fn why_refused(&self, text: &str) -> String {
        let token = self.controls.occurrences(text).next().map_or("", |found| &text[found]);
        let line = self.source.original.lines().position(|line| line.contains(token));
        let place = line
            .map_or_else(|| "put together by it".to_owned(), |line| format!("line {}", line + 1));
        format!(
            "the control token '{token}' of its template ({place}) cannot be told from its data, \
             which holds text like a control token that the template changes"
        )
    }

    /// Renders the template with each string of the fields through `string`.
    fn render_text(
        &self,
        environment: &Environment<'static>,
        fields: &Fields,
        string: impl Fn(&str) -> String,
    ) -> std::result::Result<String, Refusal> {
        let names = self.values(fields, &string);
        self.program.render(environment, names).map_err(|error| self.refusal(fields, &error))
    }

    /// Returns the names that the template knows: fields, the whole record, control tokens.
    fn values(&self, fields: &Fields, string: &impl Fn(&str) -> String) -> Jinja {
        let object = |fields: &Fields| -> Vec<(String, Jinja)> {
            let value = |value| value_of(value, string, self.source.shows_only);
            fields.iter().map(|(key, field)| (key.clone(), value(field))).collect()
        };
        let mut names = object(fields);
        if self.source.uses_record && !fields.contains_key(RECORD) {
            names.push((RECORD.to_owned(), Jinja::from_pairs(object(fields))));
        }
        names.extend(
            self.tokens.iter().map(|(name, token)| (name.clone(), Jinja::from(token.as_str()))),
        );
        Jinja::from_pairs(names)
    }

    /// Returns the refusal of a record on which the engine failed.
    fn refusal(&self, fields: &Fields, error: &JinjaError) -> Refusal {
        match error.kind() {
            ErrorKind::UndefinedError => Refusal::new(
                DropReason::MissingField,
                words::not_there(&self.source, fields, error),
            ),
            ErrorKind::BadSerialization => {
                Refusal::new(DropReason::Malformed, words::unreadable(&self.source, error))
            }
            ErrorKind::OutOfFuel => Refusal::new(DropReason::TemplateError, limits::out_of_fuel()),
            _ => {
                Refusal::new(DropReason::TemplateError, words::failed(&self.source, fields, error))
            }
        }
    }
}

/// Returns the syntax settings of chat templates.
fn syntax() -> SyntaxConfig {
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .keep_trailing_newline(true)
        .build();
    syntax.expect("the delimiters are the default ones")
}

/// Returns an engine with the features that chat templates need. Its operations carry marks if
/// `marked`.
fn environment(marked: bool) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    filters::add_to(&mut environment);
    limits::install(&mut environment);
    operations::install(&mut environment, marked);
    environment
}

/// Collects the texts of fields, names among them, at any depth.
pub(super) fn collect_texts<'a>(fields: &'a Fields, texts: &mut Vec<&'a str>) {
    let mut names = Vec::new();
    collect_strings(fields, &mut names, texts);
    texts.append(&mut names);
}

/// Collects the names of fields, and the strings in them, at any depth.
pub(super) fn collect_strings<'a>(
    fields: &'a Fields,
    names: &mut Vec<&'a str>,
    strings: &mut Vec<&'a str>,
) {
    for (name, value) in fields {
        names.push(name);
        collect_from(value, names, strings);
    }
}

/// Returns whether `value` holds a number or a boolean.
pub(super) fn has_numbers(value: &Value) -> bool {
    match value {
        Value::Null | Value::String(_) | Value::Unreadable(_) => false,
        Value::Array(items) => items.iter().any(has_numbers),
        Value::Object(fields) => fields.values().any(has_numbers),
        Value::Number(_) | Value::Bool(_) => true,
    }
}

/// Collects the names and the strings in a value.
fn collect_from<'a>(value: &'a Value, names: &mut Vec<&'a str>, strings: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => strings.push(text),
        Value::Array(items) => items.iter().for_each(|item| collect_from(item, names, strings)),
        Value::Object(fields) => collect_strings(fields, names, strings),
        _ => {}
    }
}

#[cfg(test)]
impl Template {
    /// Renders the template as it is written, with none of our operations.
    pub(crate) fn rendered_by_the_engine_alone(
        &self,
        fields: &Fields,
    ) -> std::result::Result<String, JinjaError> {
        let mut environment = environment(false);
        environment.set_syntax(syntax());
        environment.render_str(&self.source.engine, self.values(fields, &str::to_owned))
    }
}
