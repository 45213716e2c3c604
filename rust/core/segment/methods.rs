//! The methods of Python's strings that templates call, where the engine differs from Python.

use minijinja::value::{StringInput, Value as Jinja, from_args};
use minijinja::{State, filters};

use super::filters::{Result, error, joined};
use super::formats::str_format;

/// Implements the methods of Python's types in which the engine differs.
pub(super) fn method(
    state: &mut State,
    value: &Jinja,
    name: &str,
    args: &[Jinja],
) -> Result<Jinja> {
    let Some(this) = value.as_str() else {
        return minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args);
    };
    let chars = || from_args::<(Option<&str>,)>(args).map(|(chars,)| chars);
    Ok(match name {
        "strip" => Jinja::from(strip(this, chars()?, true, true)),
        "lstrip" => Jinja::from(strip(this, chars()?, true, false)),
        "rstrip" => Jinja::from(strip(this, chars()?, false, true)),
        // Without a separator Python splits at its own white space.
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
        "join" => Jinja::from(str_join(state, this, args)?),
        "format" => str_format(this, args)?,
        "isspace" => Jinja::from(!this.is_empty() && this.chars().all(is_space)),
        // Python's classes of characters beyond ASCII differ from Rust's.
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

/// Implements `str.join`, which takes only strings.
fn str_join(state: &State, separator: &str, args: &[Jinja]) -> Result<String> {
    let (values,): (&Jinja,) = from_args(args)?;
    let texts: Vec<Jinja> = values.try_iter()?.collect();
    if let Some(other) = texts.iter().find(|text| text.as_str().is_none()) {
        return Err(error(format!("str.join takes strings, not {}", other.kind())));
    }
    joined(state, &Jinja::from(texts), separator, None)
}

/// Returns whether a character is white space to `str.strip` and `str.split`: they know four
/// separators more than Unicode's property.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Strips white space, or the characters of `chars`, from the chosen ends.
pub(super) fn strip<'a>(text: &'a str, chars: Option<&str>, start: bool, end: bool) -> &'a str {
    let wanted = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if start { text.trim_start_matches(wanted) } else { text };
    if end { text.trim_end_matches(wanted) } else { text }
}

/// Returns the lines of `str.splitlines`.
pub(super) fn lines_of(text: &str, keep_ends: bool) -> Vec<&str> {
    let is_end = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'
                ..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(is_end) {
        let len = if rest[end..].starts_with("\r\n") {
            2
        } else {
            rest[end..].chars().next().map_or(1, char::len_utf8)
        };
        lines.push(&rest[..if keep_ends { end + len } else { end }]);
        rest = &rest[end + len..];
    }
    lines.extend(Some(rest).filter(|rest| !rest.is_empty()));
    lines
}

/// Implements `str.title`: a word is a run of letters that have a case.
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
