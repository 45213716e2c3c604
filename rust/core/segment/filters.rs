//! The filters, tests and functions that templates call, as in Jinja2 set up by `transformers`.
//!
//! Only those in which the engine differs from Python. Where the two cannot agree, the call is an
//! error that says so.

// The engine hands keyword arguments over by value.
#![allow(clippy::needless_pass_by_value)]

use minijinja::value::{Kwargs, Rest, Value as Jinja, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error as JinjaError, ErrorKind, State};

use super::formats::{printf, to_json};
use super::methods::{is_space, lines_of, method, strip};
use super::python::{is_big, text};

/// The filter that each operand of `~`, and each value before a filter of [`OF_TEXT`], passes
/// through.
pub(crate) const TEXT: &str = "__str";
/// The filter that the text of `{% generation %}` passes through.
pub(crate) const GENERATION: &str = "__generation";
/// Filters that turn any value into text first.
pub(crate) const OF_TEXT: [&str; 5] = ["upper", "lower", "title", "capitalize", "replace"];
/// The widest column that a format may ask for.
pub(super) const MAX_WIDTH: usize = 10_000;

pub(super) type Result<T> = std::result::Result<T, JinjaError>;

/// Returns the error about a call that templates must not make.
pub(super) fn error(what: impl Into<std::borrow::Cow<'static, str>>) -> JinjaError {
    JinjaError::new(ErrorKind::InvalidOperation, what)
}

/// Adds the filters, tests and functions to `environment`.
pub(crate) fn add_to(environment: &mut Environment<'static>) {
    environment.set_formatter(|out, _state, value| match value.as_str() {
        Some(text) => Ok(out.write_str(text)?),
        // An `if` without `else` gives an undefined value: nothing is written.
        None if value.is_undefined() => Ok(()),
        None => Ok(out.write_str(&text(value)?)?),
    });
    environment.add_filter(TEXT, text_filter);
    environment.add_filter(GENERATION, |value: Jinja| value);
    environment.add_filter("string", text_filter);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("join", join);
    environment.add_filter("trim", trim);
    environment.add_filter("title", title_filter);
    environment.add_filter("indent", indent);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter("tojson", to_json);
    environment.add_filter("format", printf);
    environment.add_test("sequence", |value: Jinja| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String)
    });
    environment.add_test("number", |value: Jinja| {
        matches!(value.kind(), ValueKind::Number | ValueKind::Bool) || is_big(&value)
    });
    environment.add_test("integer", |value: Jinja| value.is_integer() || is_big(&value));
    environment.add_function("raise_exception", |message: String| -> Result<String> {
        Err(error(message))
    });
    // A date would differ from day to day, and with it the dataset.
    environment.add_function("strftime_now", |_: String| -> Result<String> {
        Err(error(
            "strftime_now would make the dataset another each day: \
             write the date into the template, or into a field",
        ))
    });
    environment.set_unknown_method_callback(method);
}

/// Pays for `bytes` of text.
pub(super) fn charge(state: &State, bytes: usize) -> Result<()> {
    state.consume_fuel(bytes as u64 / 64)
}

/// Returns a value as Python's `str` gives it.
fn text_filter(state: &State, value: &Jinja) -> Result<Jinja> {
    if value.as_str().is_some() {
        return Ok(value.clone());
    }
    let text = text(value)?;
    charge(state, text.len())?;
    Ok(Jinja::from(text))
}

/// Implements `default`, for null as for missing fields: a template that calls it accepts either.
fn default(
    value: &Jinja,
    default: Option<Jinja>,
    boolean: Option<bool>,
    kwargs: Kwargs,
) -> Result<Jinja> {
    let default = default
        .map_or_else(|| kwargs.get::<Option<Jinja>>("default_value"), |value| Ok(Some(value)))?;
    let boolean =
        boolean.map_or_else(|| kwargs.get::<Option<bool>>("boolean"), |truth| Ok(Some(truth)))?;
    kwargs.assert_all_used()?;
    let is_missing =
        value.is_undefined() || value.is_none() || (boolean == Some(true) && !value.is_true());
    Ok(if is_missing { default.unwrap_or_else(|| Jinja::from("")) } else { value.clone() })
}

/// Implements `join`, of an attribute of the items if one is named. A null item is `None`, as in a
/// list.
fn join(
    state: &State,
    values: &Jinja,
    separator: Option<&str>,
    attribute: Option<&str>,
    kwargs: Kwargs,
) -> Result<String> {
    let separator = separator
        .map_or_else(|| kwargs.get::<Option<&str>>("d"), |text| Ok(Some(text)))?
        .unwrap_or("");
    let attribute =
        attribute.map_or_else(|| kwargs.get::<Option<&str>>("attribute"), |name| Ok(Some(name)))?;
    kwargs.assert_all_used()?;
    joined(state, values, separator, attribute)
}

/// Joins the texts of `values`, or of an attribute of each.
pub(super) fn joined(
    state: &State,
    values: &Jinja,
    separator: &str,
    attribute: Option<&str>,
) -> Result<String> {
    if values.is_undefined() || values.is_none() {
        return text(values);
    }
    let mut out = String::new();
    for (index, item) in values.try_iter()?.enumerate() {
        // A dotted attribute is a path; a part of digits is an index.
        let item = attribute.map_or(Ok(item.clone()), |name| {
            name.split('.').try_fold(item, |item, name| match name.parse::<usize>() {
                Ok(index) => item.get_item(&Jinja::from(index)),
                Err(_) => item.get_attr(name),
            })
        })?;
        charge(state, separator.len() + 64)?;
        out.push_str(if index > 0 { separator } else { "" });
        out.push_str(&if item.is_none() { "None".to_owned() } else { text(&item)? });
    }
    charge(state, out.len())?;
    Ok(out)
}

/// Implements `trim`.
fn trim(value: &Jinja, chars: Option<&str>, kwargs: Kwargs) -> Result<String> {
    let chars =
        chars.map_or_else(|| kwargs.get::<Option<&str>>("chars"), |chars| Ok(Some(chars)))?;
    kwargs.assert_all_used()?;
    let text = text(value)?;
    Ok(strip(&text, chars, true, true).to_owned())
}

/// Implements `title`: a letter after white space, a hyphen or an opening bracket becomes upper
/// case, any other lower case.
fn title_filter(value: &Jinja) -> Result<String> {
    let text = text(value)?;
    let is_start = |c: char| is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
    let mut out = String::with_capacity(text.len());
    for word in text.split_inclusive(is_start) {
        let mut chars = word.chars();
        out.extend(chars.next().into_iter().flat_map(char::to_uppercase));
        out.push_str(&chars.as_str().to_lowercase());
    }
    Ok(out)
}

/// Returns an argument of a filter, given by position or by name.
pub(super) fn argument(
    given: &[Jinja],
    kwargs: &Kwargs,
    index: usize,
    name: &str,
) -> Result<Option<Jinja>> {
    given.get(index).map_or_else(|| kwargs.get(name), |value| Ok(Some(value.clone())))
}

/// Returns whether an argument is given and true.
pub(super) fn is_true(value: Option<Jinja>) -> bool {
    value.is_some_and(|value| value.is_true())
}

/// Implements `indent`, with the lines of `str.splitlines`.
fn indent(state: &State, args: Rest<ValueOrKwargs>) -> Result<String> {
    let args = args.into_values();
    // Each argument may be given by position or by name.
    let (given, kwargs): (&[Jinja], Kwargs) = from_args(&args)?;
    let Some((value, given)) = given.split_first().filter(|(_, given)| given.len() <= 3) else {
        return Err(JinjaError::new(ErrorKind::TooManyArguments, "indent takes three arguments"));
    };
    let width = argument(given, &kwargs, 0, "width")?;
    let (first, blank) =
        (argument(given, &kwargs, 1, "first")?, argument(given, &kwargs, 2, "blank")?);
    let (first, blank) = (is_true(first), is_true(blank));
    kwargs.assert_all_used()?;
    let Some(text) = value.as_str() else {
        return Err(error(format!("indent takes a string, not {}", value.kind())));
    };
    let width = match width {
        None => " ".repeat(4),
        Some(width) if width.as_str().is_some() => width.to_string(),
        Some(width) => {
            let width = usize::try_from(width)?;
            if width > MAX_WIDTH {
                return Err(error(format!("indent({width}) is wider than {MAX_WIDTH}")));
            }
            " ".repeat(width)
        }
    };
    // As in Jinja2, a line end is added first: an empty text has one line.
    let text = format!("{text}\n");
    let lines = lines_of(&text, false);
    charge(state, text.len() + lines.len() * width.len())?;
    let mut out = if first { width.clone() } else { String::new() };
    for (index, line) in lines.into_iter().enumerate() {
        if index > 0 {
            out.push('\n');
            out.push_str(if blank || !line.is_empty() { &width } else { "" });
        }
        out.push_str(line);
    }
    Ok(out)
}

/// Parses a string as `int` and `float` do: an ASCII number, with white space around it.
fn number_of<T: std::str::FromStr>(text: &str) -> Result<Option<T>> {
    let text = strip(text, None, true, true);
    // Python reads `1_000` and digits of other scripts as numbers; Rust's parser does not.
    if text.contains('_') || text.chars().any(|c| c.is_numeric() && !c.is_ascii()) {
        return Err(error("int and float know numbers of ASCII digits without underscores"));
    }
    Ok(text.parse().ok())
}

/// Returns the integer part of a float; none if it is not finite.
fn whole(float: f64) -> Result<Option<Jinja>> {
    if float.is_finite() && float.abs() >= 2f64.powi(126) {
        return Err(error(format!("int of {float:e} has more than 126 bits")));
    }
    Ok(float.is_finite().then(|| Jinja::from(float as i128)))
}

/// Implements `int`.
fn int(value: &Jinja, default: Option<Jinja>, base: Option<u32>, kwargs: Kwargs) -> Result<Jinja> {
    let default =
        default.map_or_else(|| kwargs.get::<Option<Jinja>>("default"), |value| Ok(Some(value)))?;
    let base = base
        .map_or_else(|| kwargs.get::<Option<u32>>("base"), |base| Ok(Some(base)))?
        .unwrap_or(10);
    kwargs.assert_all_used()?;
    if base != 10 {
        return Err(error("int knows base 10 alone"));
    }
    let made = match value.kind() {
        // A missing field must be counted as such, not become the default.
        ValueKind::Undefined => return Err(ErrorKind::UndefinedError.into()),
        ValueKind::Bool => Some(Jinja::from(i64::from(value.is_true()))),
        ValueKind::Number if value.is_integer() => Some(value.clone()),
        ValueKind::Number => {
            let float = f64::try_from(value.clone())?;
            Some(whole(float)?.ok_or_else(|| error("int of a number that is not finite"))?)
        }
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            // As Python does: an integer if the text is one, else the integer part of a float.
            match number_of::<i128>(text)? {
                Some(int) => {
                    Some(i64::try_from(int).map_or_else(|_| Jinja::from(int), Jinja::from))
                }
                None => number_of::<f64>(text)?.map_or(Ok(None), whole)?,
            }
        }
        _ if is_big(value) => Some(value.clone()),
        _ => None,
    };
    Ok(made.or(default).unwrap_or_else(|| Jinja::from(0)))
}

/// Implements `float`.
fn float(value: &Jinja, default: Option<Jinja>, kwargs: Kwargs) -> Result<Jinja> {
    let default =
        default.map_or_else(|| kwargs.get::<Option<Jinja>>("default"), |value| Ok(Some(value)))?;
    kwargs.assert_all_used()?;
    let made = match value.kind() {
        ValueKind::Undefined => return Err(ErrorKind::UndefinedError.into()),
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        ValueKind::Number => value.to_string().parse().ok(),
        ValueKind::String => number_of::<f64>(value.as_str().unwrap_or_default())?,
        _ if is_big(value) => {
            value.to_string().parse().ok().filter(|float: &f64| float.is_finite())
        }
        _ => None,
    };
    Ok(made.map(Jinja::from).or(default).unwrap_or_else(|| Jinja::from(0.0)))
}
