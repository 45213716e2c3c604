//! The path of a field, as templates write it.

use unicode_normalization::char::is_combining_mark;

/// Returns the path of an expression `a.b.c` or `a["b"].c`; none for any other expression. Jinja's
/// own words are left to Jinja.
pub(crate) fn field_path(expression: &str) -> Option<Vec<String>> {
    const WORDS: [&str; 11] = [
        "true", "false", "none", "True", "False", "None", "not", "self", "loop", "super", "caller",
    ];
    // A combining mark inside a name (Yorùbá) is no letter to Unicode, but people write it.
    let is_inside = |c: char| c == '_' || c.is_alphanumeric() || is_combining_mark(c);
    let mut rest = expression.trim();
    let mut path = Vec::new();
    loop {
        if let Some(quoted) =
            rest.strip_prefix(['[']).filter(|_| !path.is_empty()).map(str::trim_start)
        {
            let quote = quoted.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            let (name, after) = quoted[1..].split_once(quote)?;
            // An escape needs the engine's rules for strings.
            if name.contains('\\') {
                return None;
            }
            path.push(name.to_owned());
            rest = after.trim_start().strip_prefix(']')?;
        } else {
            rest = if path.is_empty() { rest } else { rest.strip_prefix('.')? };
            let (name, after) = rest.split_at(rest.find(|c| !is_inside(c)).unwrap_or(rest.len()));
            if !name.starts_with(|c: char| c == '_' || c.is_alphabetic()) {
                return None;
            }
            path.push(name.to_owned());
            rest = after;
        }
        if rest.is_empty() {
            return (!WORDS.contains(&path[0].as_str())).then_some(path);
        }
    }
}
