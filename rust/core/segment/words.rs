//! Messages about wrong templates, and about records that a template cannot render: the position,
//! the name, the remedy.

use minijinja::{Error as JinjaError, ErrorKind};

use super::source::Source;
use super::{Fields, RECORD};
use crate::error::{Error, Result};
use crate::plan::SegmentSpec;
use crate::read::Value;

/// The names under which `transformers` gives a template the tokenizer's tokens.
const TOKENS: [&str; 3] = ["bos_token", "eos_token", "pad_token"];
/// The most characters of a tag in an error.
const SHOWN: usize = 80;

/// Returns the fault of a template that does not compile, and the remedy.
pub(crate) fn wrong_template(source: &Source, error: &JinjaError) -> (String, String) {
    let tag = tag_of(source, error).or_else(|| error_line(source, error));
    // `{{ my field }}` is a common mistake: several words in one pair of braces.
    let inner = tag.and_then(|tag| tag.strip_prefix("{{")?.strip_suffix("}}")).map(str::trim);
    let is_words = |text: &&str| {
        text.contains(' ') && text.split(' ').all(|word| !word.is_empty() && is_word(word))
    };
    let remedy = match inner.filter(is_words) {
        Some(name) => in_brackets(name),
        None => "templates are Jinja: https://jinja.palletsprojects.com/templates".to_owned(),
    };
    (describe(source, error), remedy)
}

/// Returns a template as errors call it: by its text, if that is short.
pub(crate) fn named(text: &str) -> String {
    let is_short = text.chars().count() <= SHOWN && !text.contains('\n');
    if is_short { format!("the template `{text}`") } else { "the template".to_owned() }
}

/// Returns an error about a template with the key that holds it.
pub(crate) fn in_segment(error: Error, nth: usize, segment: &SegmentSpec) -> Error {
    let key = if matches!(segment, SegmentSpec::Target(_)) { "target" } else { "prompt" };
    let message = format!("`{key}` of `segments`, entry {}: {}", nth + 1, error.message);
    Error { message, ..error }
}

/// Returns the way to write a field whose name is no identifier.
fn in_brackets(name: &str) -> String {
    format!("a field whose name is no identifier is written {{{{ {RECORD}[\"{name}\"] }}}}")
}

/// Returns whether a word could be meant as the name of a field.
fn is_word(word: &str) -> bool {
    word.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '?' | '/'))
}

/// Describes the error on which a template failed, and its position.
pub(crate) fn failed(source: &Source, fields: &Fields, error: &JinjaError) -> String {
    if let Some(name) = field_read_as_expression(source, fields, error) {
        return format!("`{{{{ {name} }}}}` is not the field '{name}': {}", in_brackets(name));
    }
    describe(source, error)
}

/// Describes the missing value that a template shows.
pub(crate) fn not_there(source: &Source, fields: &Fields, error: &JinjaError) -> String {
    // `{{ word-count }}` is a subtraction to Jinja; people mean the field.
    if let Some(name) = field_read_as_expression(source, fields, error) {
        return format!("`{{{{ {name} }}}}` is not the field '{name}': {}", in_brackets(name));
    }
    let tag = tag_of(source, error);
    // The engine does not name the missing value: the first path in the tag that the record lacks
    // is the best guess.
    let missing = tag.into_iter().flat_map(paths).find(|path| {
        let is_local = source.locals.contains(&path[0]) && !fields.contains_key(&path[0]);
        !is_local && !KNOWN.contains(&path[0].as_str()) && !is_there(fields, path)
    });
    let place = place_of(source, error);
    match missing {
        Some(path) => format!("{}{place}", missing_field(fields, &path)),
        None => format!("a field that it shows is missing or null{place}"),
    }
}

/// Describes a field that cannot be read, and the position at which the template reads it.
pub(crate) fn unreadable(source: &Source, error: &JinjaError) -> String {
    format!(
        "a field that the template reads {}{}",
        error.detail().unwrap_or("is no text"),
        place_of(source, error)
    )
}

/// Says that the field at `path` is missing or null.
pub(crate) fn missing_field(fields: &Fields, path: &[String]) -> String {
    let shown = path.join(".");
    // A name of a token is no field: the remedy is in the configuration, not in the data.
    if let [name] = path
        && TOKENS.contains(&name.as_str())
    {
        let key = name.trim_end_matches("_token");
        return format!(
            "`{name}` is not known: set `{key}` under [tokenizer], or take it out of the template"
        );
    }
    // The first few are enough to spot a misspelled name.
    let names: Vec<&str> = fields.keys().map(String::as_str).take(12).collect();
    let state = if value_at(fields, path).is_some_and(Value::is_null) { "null" } else { "missing" };
    format!("field '{shown}' is {state} (fields: {})", names.join(", "))
}

/// Says that target `nth` of `count` targets has no data.
pub(crate) fn empty_target(nth: usize, count: usize) -> String {
    if count < 2 {
        return "the target's data is empty".to_owned();
    }
    format!(
        "the data of target {nth} of {count} is empty: \
         every record of a source has as many turns as it has `segments`. \
         Conversations that differ in length are read by `chat` (docs/configuration.md)"
    )
}

/// Returns an error if no segment shows a field, or a target names one in one brace: every document
/// would be trained on the same text.
pub(crate) fn refuse_constant(segments: &[SegmentSpec]) -> Result<()> {
    let is_constant =
        |segment: &&SegmentSpec| !["{{", "{%"].iter().any(|tag| segment.template().contains(tag));
    // Python's format strings take one brace, so `{name}` is a likely mistake.
    let meant = |segment: &SegmentSpec| {
        let (_, rest) = segment.template().split_once('{')?;
        let name = rest.split_once('}')?.0.trim();
        (!name.is_empty() && is_word(name)).then(|| name.to_owned())
    };
    let target = segments
        .iter()
        .filter(|segment| matches!(segment, SegmentSpec::Target(_)))
        .filter(is_constant)
        .find_map(meant);
    if target.is_none() && !segments.iter().all(|segment| is_constant(&segment)) {
        return Ok(());
    }
    let error = Error::config(if target.is_some() {
        "a target shows no field: every record would be trained on the same text"
    } else {
        "its templates show no field: every record would give the same text"
    });
    let meant = target.or_else(|| segments.iter().find_map(meant));
    Err(error.remedy(match meant {
        Some(name) => {
            format!("a field stands in two braces: write {{{{ {name} }}}} for {{{name}}}")
        }
        None => "name a field in two braces: {{ text }}".to_owned(),
    }))
}

/// The most operators of a template. Each may be a level of its tree, which is walked by recursion.
const MOST_OPERATORS: usize = 5_000;

/// Refuses a template that no person wrote.
pub(crate) fn refuse_deep(template: &str) -> Result<()> {
    let is_operator = |c: &u8| b".[(|{+-~*/%".contains(c);
    let mut rest = template;
    let mut count = 0;
    while let Some(start) = rest.find("{{").into_iter().chain(rest.find("{%")).min() {
        let end = rest[start..].find("}}").into_iter().chain(rest[start..].find("%}")).min();
        let end = end.map_or(rest.len(), |end| start + end);
        count += rest.as_bytes()[start..end].iter().filter(|c| is_operator(c)).count();
        rest = &rest[end..];
        rest = rest.strip_prefix("}}").or_else(|| rest.strip_prefix("%}")).unwrap_or("");
    }
    if count > MOST_OPERATORS {
        return Err(Error::config(format!(
            "a template of {count} operators, at most {MOST_OPERATORS} are read"
        ))
        .remedy("make it shorter, or prepare the field before"));
    }
    Ok(())
}

/// Names that a template may read and that are no fields.
const GIVEN: [&str; 15] = [
    RECORD,
    "bos_token",
    "eos_token",
    "pad_token",
    "range",
    "dict",
    "namespace",
    "lipsum",
    "cycler",
    "joiner",
    "debug",
    "loop",
    "self",
    "raise_exception",
    "strftime_now",
];

/// Returns the names of the fields that a template reads, shown or not. None of a template that
/// does not compile.
pub(crate) fn names_in(template: &str) -> Vec<String> {
    let engine = minijinja::Environment::new();
    let names = engine.template_from_str(template).map(|read| read.undeclared_variables(false));
    let names = names.into_iter().flatten();
    names.filter(|name| !GIVEN.contains(&name.as_str())).collect()
}

/// Names in tags that are no fields.
const KNOWN: [&str; 24] = [
    "and",
    "or",
    "not",
    "if",
    "else",
    "elif",
    "in",
    "is",
    "for",
    "set",
    "loop",
    "range",
    "namespace",
    "dict",
    "true",
    "false",
    "none",
    "True",
    "False",
    "None",
    "raise_exception",
    "strftime_now",
    "macro",
    "with",
];

/// Describes an error of the engine in one line, with its position.
fn describe(source: &Source, error: &JinjaError) -> String {
    let what = error
        .detail()
        .map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    let what = match (error.kind(), std::error::Error::source(error)) {
        // The engine hides the reason of a failed call in the cause.
        (ErrorKind::InvalidOperation, Some(cause)) => format!("{what}: {cause}"),
        _ => what,
    };
    format!("{what}{}", place_of(source, error))
}

/// Returns the position of an error in the author's template, in parentheses.
fn place_of(source: &Source, error: &JinjaError) -> String {
    let Some(range) = error.range() else { return String::new() };
    let place = source.place(range.start);
    let (line, column) = source.line_and_column(place);
    let tag = source.tag_at(place).map_or_else(|| around(source, place), shortened);
    format!(" (template line {line}, column {column}, in `{tag}`)")
}

/// Returns the part of its line that lies around a place of a template.
fn around(source: &Source, place: usize) -> String {
    let text = &source.original;
    let start = text[..place].rfind('\n').map_or(0, |end| end + 1);
    let end = text[place..].find('\n').map_or(text.len(), |len| place + len);
    let before: Vec<char> = text[start..place].chars().collect();
    let from = before.len().saturating_sub(SHOWN / 2);
    let more = if from > 0 { "…" } else { "" };
    let before: String = before[from..].iter().collect();
    format!("{more}{}", shortened(&(before + &text[place..end])))
}

/// Returns a text cut to the length that an error shows.
fn shortened(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        text.to_owned()
    } else {
        text.chars().take(SHOWN).chain(['…']).collect()
    }
}

/// Returns the tag in which an error is.
fn tag_of<'a>(source: &'a Source, error: &JinjaError) -> Option<&'a str> {
    source.tag_at(source.place(error.range()?.start))
}

/// Returns the first tag on the line of an error.
fn error_line<'a>(source: &'a Source, error: &JinjaError) -> Option<&'a str> {
    let line = source.original.lines().nth(error.line()?.checked_sub(1)?)?;
    let tag = &line[line.find("{{")?..];
    tag.find("}}").map(|end| &tag[..end + 2])
}

/// Returns the field whose name is no identifier and stands in a tag without quotes.
fn field_read_as_expression<'a>(
    source: &Source,
    fields: &'a Fields,
    error: &JinjaError,
) -> Option<&'a str> {
    let inner = tag_of(source, error)?.strip_prefix("{{")?.strip_suffix("}}")?.trim();
    let (name, _) = fields.get_key_value(inner)?;
    name.contains(|c: char| !c.is_alphanumeric() && c != '_').then_some(name)
}

/// Returns the dotted paths that a tag names, without the names of filters.
fn paths(tag: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut quote = None;
    let (mut word, mut after_pipe) = (String::new(), false);
    // A space at the end closes the last word.
    for c in tag.chars().chain([' ']) {
        if quote.is_some() {
            quote = quote.filter(|open| *open != c);
        } else if c.is_alphanumeric() || c == '_' || (c == '.' && !word.is_empty()) {
            word.push(c);
        } else {
            let is_name = word.starts_with(|c: char| c.is_alphabetic() || c == '_');
            if is_name && !after_pipe {
                // The last name of a call is a method; the path is the text before it.
                let mut path: Vec<String> = word.split('.').map(str::to_owned).collect();
                if c == '(' && path.len() > 1 {
                    path.pop();
                }
                paths.push(path);
            }
            after_pipe = c == '|' || (after_pipe && word.is_empty() && c.is_whitespace());
            word.clear();
            quote = matches!(c, '"' | '\'').then_some(c);
        }
    }
    paths
}

/// Returns the value at a path, if there is one.
pub(super) fn value_at<'a>(fields: &'a Fields, path: &[String]) -> Option<&'a Value> {
    let path = path
        .strip_prefix(&[RECORD.to_owned()])
        .filter(|_| !fields.contains_key(RECORD))
        .unwrap_or(path);
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(fields.get(first)?, |value, name| match value {
        Value::Object(fields) => fields.get(name),
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Returns whether the value at a path exists and is not null.
fn is_there(fields: &Fields, path: &[String]) -> bool {
    value_at(fields, path).is_some_and(|value| !value.is_null())
}
