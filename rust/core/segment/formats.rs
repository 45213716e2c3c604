//! Values written in a format: the filters `tojson` and `format`, and the method `str.format`.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, Rest, Value as Jinja, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Error as JinjaError, ErrorKind, State};

use super::filters::{MAX_WIDTH, Result, argument, charge, error, is_true};
use super::python::{Dumps, repr, text};

/// Implements `tojson` of `transformers`: `json.dumps` with four of its arguments.
pub(super) fn to_json(state: &State, args: Rest<ValueOrKwargs>) -> Result<String> {
    const NAMES: [&str; 4] = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let args = args.into_values();
    let (values, kwargs): (&[Jinja], Kwargs) = from_args(&args)?;
    let Some((value, given)) = values.split_first().filter(|(_, given)| given.len() <= NAMES.len())
    else {
        return Err(JinjaError::new(ErrorKind::TooManyArguments, "tojson takes four arguments"));
    };
    let argument = |index: usize| argument(given, &kwargs, index, NAMES[index]);
    let indent = argument(1)?.filter(|indent| !indent.is_none()).map(json_indent).transpose()?;
    let separators = match argument(2)?.filter(|separators| !separators.is_none()) {
        // As in Python, a line end replaces the space after a comma.
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some(both) => json_separators(&both)?,
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

/// Returns the white space of one level: a string as it is, a number as so many spaces.
fn json_indent(indent: Jinja) -> Result<String> {
    if indent.as_str().is_some() {
        return Ok(indent.to_string());
    }
    // To Python, true and false are the numbers 1 and 0.
    let width = if indent.kind() == ValueKind::Bool {
        i64::from(indent.is_true())
    } else {
        i64::try_from(indent)?
    };
    if width > MAX_WIDTH as i64 {
        return Err(error(format!("tojson(indent={width}) is wider than {MAX_WIDTH}")));
    }
    Ok(" ".repeat(usize::try_from(width).unwrap_or(0)))
}

/// Returns the two separators: between items, and after a key.
fn json_separators(both: &Jinja) -> Result<(String, String)> {
    let both: Vec<Jinja> = both.try_iter()?.collect();
    match both.iter().map(Jinja::as_str).collect::<Vec<_>>()[..] {
        [Some(item), Some(key)] => Ok((item.to_owned(), key.to_owned())),
        _ => Err(error("tojson(separators=…) takes two strings")),
    }
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

/// Implements the filter `format`: Python's `%`. `%s` and `%r` are written here, other conversions
/// by the engine.
pub(super) fn printf(state: &State, args: Rest<ValueOrKwargs>) -> Result<String> {
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
    let mut given = args.to_vec();
    let (pattern, places) = texts_for_printf(&pattern, &mut given)?;
    if places != given.len() {
        return Err(error(format!("format is given {} values for {places} places", given.len())));
    }
    let text = format(FormatStyle::Printf, &pattern, &given)?;
    charge(state, text.len())?;
    Ok(text)
}

/// Replaces the values for `%s` and `%r` by their texts. Returns the pattern with `%s` for `%r`,
/// and the number of values that it takes.
fn texts_for_printf(pattern: &str, given: &mut [Jinja]) -> Result<(String, usize)> {
    let (mut out, mut next, mut rest) = (String::new(), 0, pattern);
    while let Some(start) = rest.find('%') {
        out.push_str(&rest[..=start]);
        rest = &rest[start + 1..];
        // Flags, width and precision stand between `%` and the letter of the conversion.
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
                's' if value.is_none() => *value = Jinja::from("None"),
                's' => *value = Jinja::from(text(value)?),
                _ => {}
            }
        }
        next += 1;
    }
    out.push_str(rest);
    Ok((out, next))
}

/// Implements `str.format`. Values without a format of their own are written here, others by the
/// engine.
pub(super) fn str_format(pattern: &str, args: &[Jinja]) -> Result<Jinja> {
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
        // Without a format specification a number is shown as it is.
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
