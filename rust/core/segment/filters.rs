//! The filters, functions and methods that templates call, as Jinja2 has them where `transformers`
//! sets it up.
//!
//! Only those where the engine differs from Python; where the two cannot agree, the call is an
//! error that says so.

// The engine hands keyword arguments over by value.
#![allow(clippy::needless_pass_by_value)]

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{
    Kwargs, Rest, StringInput, Value as Jinja, ValueKind, ValueOrKwargs, from_args,
};
use minijinja::{Environment, Error as JinjaError, ErrorKind, State, filters};

use super::python::{Dumps, is_big, repr, text};

/// The filter that every operand of `~` and the value before a filter of [`OF_TEXT`] pass through.
pub const TEXT: &str = "__str";
/// Filters that make text of whatever they are given.
pub const OF_TEXT: [&str; 5] = ["upper", "lower", "title", "capitalize", "replace"];
/// The widest column that a format may ask for.
const MAX_WIDTH: usize = 10_000;

type Result<T> = std::result::Result<T, JinjaError>;

fn error(what: impl Into<std::borrow::Cow<'static, str>>) -> JinjaError {
    JinjaError::new(ErrorKind::InvalidOperation, what)
}

/// Adds them to `environment`.
pub fn add_to(environment: &mut Environment<'static>) {
    environment.set_formatter(|out, _state, value| match value.as_str() {
        Some(text) => Ok(out.write_str(text)?),
        // What an `if` without `else` gives: nothing.
        None if value.is_undefined() => Ok(()),
        None => Ok(out.write_str(&text(value)?)?),
    });
    environment.add_filter(TEXT, text_filter);
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
    environment.add_function("strftime_now", |_: String| -> Result<String> {
        Err(error(
            "strftime_now would make the dataset another each day: write the date into the template, or into a field",
        ))
    });
    environment.set_unknown_method_callback(method);
}

fn charge(state: &State, bytes: usize) -> Result<()> {
    state.consume_fuel(bytes as u64 / 64)
}

fn text_filter(state: &State, value: &Jinja) -> Result<Jinja> {
    if value.as_str().is_some() {
        return Ok(value.clone());
    }
    let text = text(value)?;
    charge(state, text.len())?;
    Ok(Jinja::from(text))
}

/// `default`, for null as for what is missing: that a template says so is how it takes either.
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

/// `join`, of an attribute of the items if one is named. A null among them is `None`, as in a list.
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

fn joined(
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

/// White space as `str.strip` and `str.split` know it: four separators more than Unicode's
/// property.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn trim(value: &Jinja, chars: Option<&str>, kwargs: Kwargs) -> Result<String> {
    let chars =
        chars.map_or_else(|| kwargs.get::<Option<&str>>("chars"), |chars| Ok(Some(chars)))?;
    kwargs.assert_all_used()?;
    let text = text(value)?;
    Ok(strip(&text, chars, true, true).to_owned())
}

fn strip<'a>(text: &'a str, chars: Option<&str>, start: bool, end: bool) -> &'a str {
    let wanted = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if start { text.trim_start_matches(wanted) } else { text };
    if end { text.trim_end_matches(wanted) } else { text }
}

/// `title`: what stands after white space, a hyphen or an opening bracket is in upper case, the
/// rest in lower.
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

/// The argument of a filter, by its place among `given` or by its name.
fn argument(given: &[Jinja], kwargs: &Kwargs, index: usize, name: &str) -> Result<Option<Jinja>> {
    given.get(index).map_or_else(|| kwargs.get(name), |value| Ok(Some(value.clone())))
}

fn is_true(value: Option<Jinja>) -> bool {
    value.is_some_and(|value| value.is_true())
}

/// `indent`, by lines as `str.splitlines` knows them.
fn indent(state: &State, args: Rest<ValueOrKwargs>) -> Result<String> {
    let args = args.into_values();
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

/// What `int` and `float` make of a string: an ASCII number, white space around it aside.
fn number_of<T: std::str::FromStr>(text: &str) -> Result<Option<T>> {
    let text = strip(text, None, true, true);
    if text.contains('_') || text.chars().any(|c| c.is_numeric() && !c.is_ascii()) {
        return Err(error("int and float know numbers of ASCII digits without underscores"));
    }
    Ok(text.parse().ok())
}

fn whole(float: f64) -> Result<Option<Jinja>> {
    if float.is_finite() && float.abs() >= 2f64.powi(126) {
        return Err(error(format!("int of {float:e} has more than 126 bits")));
    }
    Ok(float.is_finite().then(|| Jinja::from(float as i128)))
}

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
        ValueKind::Undefined => return Err(ErrorKind::UndefinedError.into()),
        ValueKind::Bool => Some(Jinja::from(i64::from(value.is_true()))),
        ValueKind::Number if value.is_integer() => Some(value.clone()),
        ValueKind::Number => {
            let float = f64::try_from(value.clone())?;
            Some(whole(float)?.ok_or_else(|| error("int of a number that is not finite"))?)
        }
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
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

/// `tojson` of `transformers`: `json.dumps` with four of its arguments.
fn to_json(state: &State, args: Rest<ValueOrKwargs>) -> Result<String> {
    const NAMES: [&str; 4] = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let args = args.into_values();
    let (values, kwargs): (&[Jinja], Kwargs) = from_args(&args)?;
    let Some((value, given)) = values.split_first().filter(|(_, given)| given.len() <= NAMES.len())
    else {
        return Err(JinjaError::new(ErrorKind::TooManyArguments, "tojson takes four arguments"));
    };
    let argument = |index: usize| argument(given, &kwargs, index, NAMES[index]);
    let indent = match argument(1)?.filter(|indent| !indent.is_none()) {
        None => None,
        Some(indent) if indent.as_str().is_some() => Some(indent.to_string()),
        Some(indent) => {
            let width = if indent.kind() == ValueKind::Bool {
                i64::from(indent.is_true())
            } else {
                i64::try_from(indent)?
            };
            if width > MAX_WIDTH as i64 {
                return Err(error(format!("tojson(indent={width}) is wider than {MAX_WIDTH}")));
            }
            Some(" ".repeat(usize::try_from(width).unwrap_or(0)))
        }
    };
    let separators = match argument(2)?.filter(|separators| !separators.is_none()) {
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some(both) => {
            let both: Vec<Jinja> = both.try_iter()?.collect();
            match both.iter().map(Jinja::as_str).collect::<Vec<_>>()[..] {
                [Some(item), Some(key)] => (item.to_owned(), key.to_owned()),
                _ => return Err(error("tojson(separators=…) takes two strings")),
            }
        }
    };
    let dumps = Dumps {
        ensure_ascii: is_true(argument(0)?),
        indent,
        separators,
        sort_keys: is_true(argument(3)?),
    };
    kwargs.assert_all_used()?;
    let text = dumps.text(value)?;
    charge(state, text.len())?;
    Ok(text)
}

/// Refuses a format that asks for columns wider than [`MAX_WIDTH`].
fn refuse_wide(format: &str) -> Result<()> {
    let is_wide = |digits: &str| {
        digits.len() > 9 || digits.parse::<usize>().is_ok_and(|width| width > MAX_WIDTH)
    };
    if format.split(|c: char| !c.is_ascii_digit()).any(is_wide) {
        return Err(error(format!("the format asks for a column wider than {MAX_WIDTH}")));
    }
    Ok(())
}

/// The filter `format`: Python's `%`. `%s` and `%r` are written here, the others by the engine.
fn printf(state: &State, args: Rest<ValueOrKwargs>) -> Result<String> {
    let args = args.into_values();
    let Some((pattern, args)) = args.split_first() else {
        return Err(ErrorKind::MissingArgument.into());
    };
    let pattern = text(pattern)?;
    refuse_wide(&pattern)?;
    if pattern.contains('*') || pattern.contains("%(") {
        return Err(error(
            "format knows neither `%(name)s` nor `*`: use `\"{name}\".format(name=…)`",
        ));
    }
    let (mut out, mut given) = (String::new(), args.to_vec());
    let (mut next, mut rest) = (0, pattern.as_str());
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..=at]);
        rest = &rest[at + 1..];
        let Some(end) = rest.find(|c: char| {
            !matches!(c, '#' | '0'..='9' | ' ' | '+' | '-' | '.' | 'h' | 'l' | 'L')
        }) else {
            break;
        };
        out.push_str(&rest[..end]);
        let conversion = rest[end..].chars().next().unwrap_or('%');
        rest = &rest[end + conversion.len_utf8()..];
        out.push(if conversion == 'r' { 's' } else { conversion });
        if conversion == '%' {
            continue;
        }
        if let Some(value) = given.get_mut(next) {
            match conversion {
                'r' => *value = Jinja::from(repr(value)?),
                's' => {
                    *value =
                        Jinja::from(if value.is_none() { "None".to_owned() } else { text(value)? });
                }
                _ => {}
            }
        }
        next += 1;
    }
    out.push_str(rest);
    if next != given.len() {
        return Err(error(format!("format is given {} values for {next} places", given.len())));
    }
    let text = format(FormatStyle::Printf, &out, &given)?;
    charge(state, text.len())?;
    Ok(text)
}

/// `str.format`. What has no format of its own is written here, other values by the engine.
fn str_format(pattern: &str, args: &[Jinja]) -> Result<Jinja> {
    refuse_wide(pattern)?;
    if pattern.contains('!')
        && pattern
            .split('{')
            .skip(1)
            .any(|field| field.split('}').next().is_some_and(|f| f.contains('!')))
    {
        return Err(error("`str.format` here knows no conversion such as `!r`"));
    }
    let shown = |value: &Jinja| match value.kind() {
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => text(value).map(Jinja::from),
        // Without a format of its own, a number is shown as it is.
        ValueKind::Number if !pattern.contains(':') => text(value).map(Jinja::from),
        _ => Ok(value.clone()),
    };
    let args = args.iter().map(|value| match Kwargs::try_from(value.clone()) {
        Ok(kwargs) if value.is_kwargs() => {
            let named = kwargs.args().map(|name| Ok((name, shown(&kwargs.get::<Jinja>(name)?)?)));
            named.collect::<Result<Kwargs>>().map(Jinja::from)
        }
        _ => shown(value),
    });
    format(FormatStyle::StrFormat, pattern, &args.collect::<Result<Vec<_>>>()?).map(Jinja::from)
}

/// The methods of Python's types that templates call.
fn method(state: &mut State, value: &Jinja, name: &str, args: &[Jinja]) -> Result<Jinja> {
    let Some(this) = value.as_str() else {
        return minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args);
    };
    let chars = || from_args::<(Option<&str>,)>(args).map(|(chars,)| chars);
    Ok(match name {
        "strip" => Jinja::from(strip(this, chars()?, true, true)),
        "lstrip" => Jinja::from(strip(this, chars()?, true, false)),
        "rstrip" => Jinja::from(strip(this, chars()?, false, true)),
        "split" if args.first().is_none_or(Jinja::is_none) && args.len() < 2 => {
            this.split(is_space).filter(|word| !word.is_empty()).map(Jinja::from).collect()
        }
        "splitlines" => {
            let (keep_ends,) = from_args::<(Option<bool>,)>(args)?;
            lines_of(this, keep_ends.unwrap_or(false)).into_iter().map(Jinja::from).collect()
        }
        "title" => {
            let () = from_args(args)?;
            title(state, this)?
        }
        "join" => {
            let (values,): (&Jinja,) = from_args(args)?;
            let texts: Vec<Jinja> = values.try_iter()?.collect();
            if let Some(other) = texts.iter().find(|text| text.as_str().is_none()) {
                return Err(error(format!("str.join takes strings, not {}", other.kind())));
            }
            Jinja::from(joined(state, &Jinja::from(texts), this, None)?)
        }
        "format" => str_format(this, args)?,
        "isspace" => Jinja::from(!this.is_empty() && this.chars().all(is_space)),
        "isalpha" | "isalnum" | "isdigit" | "isnumeric" | "isdecimal" if !this.is_ascii() => {
            return Err(error(format!("str.{name} of text beyond ASCII is not known here")));
        }
        "isdecimal" => {
            Jinja::from(!this.is_empty() && this.bytes().all(|byte| byte.is_ascii_digit()))
        }
        "removeprefix" => {
            Jinja::from(this.strip_prefix(from_args::<(&str,)>(args)?.0).unwrap_or(this))
        }
        "removesuffix" => {
            Jinja::from(this.strip_suffix(from_args::<(&str,)>(args)?.0).unwrap_or(this))
        }
        _ => return minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    })
}

/// The lines of `str.splitlines`.
fn lines_of(text: &str, keep_ends: bool) -> Vec<&str> {
    let is_end = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'
                ..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(is_end) {
        let len = if rest[at..].starts_with("\r\n") {
            2
        } else {
            rest[at..].chars().next().map_or(1, char::len_utf8)
        };
        lines.push(&rest[..if keep_ends { at + len } else { at }]);
        rest = &rest[at + len..];
    }
    lines.extend(Some(rest).filter(|rest| !rest.is_empty()));
    lines
}

/// `str.title`: a word is a run of letters that have a case.
fn title(state: &mut State, text: &str) -> Result<Jinja> {
    let is_cased = |c: char| c.is_lowercase() || c.is_uppercase();
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_cased) {
        out.push_str(&rest[..start]);
        let word = &rest[start..];
        let word = &word[..word.find(|c| !is_cased(c)).unwrap_or(word.len())];
        let value = Jinja::from(word);
        out.push_str(&filters::capitalize(StringInput::new(state, &value)?).to_string());
        rest = &rest[start + word.len()..];
    }
    out.push_str(rest);
    Ok(Jinja::from(out))
}
