//! Keys of `corpus.toml`: the values that each may hold. They are checked on the text, so that an
//! error names its line and its remedy.
//!
//! Takes the text; gives nothing, or the first error in it. Serde reads the text afterwards and
//! finds no fault. A test compares the keys and words listed here with those that serde knows.

mod keys;
mod tables;
mod values;

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::nearest;
use crate::error::{Error, Result};
use keys::{SEGMENTS, TOP};
use tables::{check_table, quoted};

/// A fault in the text, its remedy, and its position.
struct Fault {
    message: String,
    remedy: String,
    span: Range<usize>,
}

type Checked = std::result::Result<(), Fault>;

/// Returns a fault.
fn fault(span: Range<usize>, message: impl Into<String>, remedy: impl Into<String>) -> Checked {
    Err(Fault { message: message.into(), remedy: remedy.into(), span })
}

/// Refuses a text that is no TOML, or that has a key or a value that `corpus.toml` does not know.
/// Errors name `file`.
pub(crate) fn check(text: &str, file: &str) -> Result<()> {
    let checked = match DeTable::parse(text) {
        Ok(table) => check_table(table.get_ref(), table.span(), TOP, "")
            .and_then(|()| check_templates(table.get_ref())),
        Err(error) => Err(not_toml(text, error.message(), error.span().unwrap_or(0..0))),
    };
    checked.map_err(|Fault { message, remedy, span }| {
        let line = 1 + text[..span.start.min(text.len())].matches('\n').count() as u64;
        Error::config(message).file(file).line(line).remedy(remedy)
    })
}

/// Returns the fault of a text that is no TOML.
fn not_toml(text: &str, message: &str, span: Range<usize>) -> Fault {
    let line = text[..span.start].rfind('\n').map_or(0, |end| end + 1);
    let line = text[line..].lines().next().unwrap_or_default().trim();
    // The parser's own words for common mistakes do not say what to write instead.
    let (message, remedy) = if message.contains("duplicate key") {
        match line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            Some(name) if name.trim_start_matches('[').trim() == "source" => (
                "[source] is there twice".to_owned(),
                "write [[source]], brackets doubled, at the head of every source".to_owned(),
            ),
            Some(table) => (
                format!("the table [{table}] is there twice"),
                "put its keys under one of them".to_owned(),
            ),
            None => {
                let key = text.get(span.clone()).unwrap_or_default().trim();
                (
                    format!("the key `{key}` is there twice in its table"),
                    "keep one of them".to_owned(),
                )
            }
        }
    } else if message.contains("must be quoted") {
        ("a text without quotes".to_owned(), "put it in quotes: lang = \"yor\"".to_owned())
    } else {
        (
            format!("this line cannot be read as TOML: {message}"),
            "a key is written name = value, a text in quotes, a list in brackets; \
             [[source]] begins a source"
                .to_owned(),
        )
    };
    Fault { message, remedy, span }
}

/// Checks that every source names a template that is there.
fn check_templates(table: &DeTable<'_>) -> Checked {
    let known: Vec<&str> = match table.get("template").map(Spanned::get_ref) {
        Some(DeValue::Table(templates)) => {
            templates.iter().map(|(name, _)| &**name.get_ref()).collect()
        }
        _ => Vec::new(),
    };
    let Some(DeValue::Array(sources)) = table.get("source").map(Spanned::get_ref) else {
        return Ok(());
    };
    for source in sources.iter().filter_map(|source| source.get_ref().as_table()) {
        let Some(named) = source.get("template") else { continue };
        let name = named.get_ref().as_str().unwrap_or_default();
        if known.contains(&name) {
            continue;
        }
        if name.contains(['{', ' ']) {
            let message = "`template` names a [template.NAME]; this is the text of one";
            return fault(named.span(), message.to_owned(), format!("write segments = {SEGMENTS}"));
        }
        let remedy = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None if known.is_empty() => {
                format!("write its keys below a line [template.{name}]")
            }
            None => format!("the templates here are {}", quoted(known.iter().copied())),
        };
        return fault(named.span(), format!("there is no [template.{name}]"), remedy);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::keys::{Key, Kind};
    use super::*;
    use crate::error::Place;
    use crate::plan::PlanSpec;

    /// Returns the names in backquotes of serde's "expected one of `a`, `b`".
    fn expected(text: &str) -> Vec<String> {
        let error = toml::from_str::<PlanSpec>(text).unwrap_err();
        let list = error.message().split_once("expected ").unwrap().1.to_owned();
        let list = list.lines().next().unwrap();
        list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    fn listed_as_serde_has_them(keys: &'static [Key], head: &str) {
        let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
        assert_eq!(names, expected(&format!("{head}no_such_key = 1\n")));
        for Key { name, kind, example, .. } in keys {
            let others: String = keys
                .iter()
                .filter(|key| key.is_needed && key.name != *name)
                .fold(String::new(), |all, key| all + key.name + " = " + key.example + "\n");
            match kind {
                Kind::Word(words) | Kind::Words(words) => {
                    let wrong =
                        if matches!(kind, Kind::Words(_)) { "['no word']" } else { "'no word'" };
                    let mut known = expected(&format!("{head}{others}{name} = {wrong}\n"));
                    known.sort();
                    let mut words = words().to_vec();
                    words.sort_unstable();
                    assert_eq!(words, known, "{name}");
                }
                Kind::Table(inner) => listed_as_serde_has_them(inner, &format!("[{name}]\n")),
                Kind::Inner(inner) | Kind::WordOrInner(_, inner) => {
                    let table = head.rsplit('[').next().unwrap_or_default();
                    let table = table.trim_end_matches(['\n', ']']);
                    let head = format!("{head}{others}[{table}.{name}]\n");
                    listed_as_serde_has_them(inner, &head);
                }
                Kind::Tables(inner) => listed_as_serde_has_them(inner, &format!("[[{name}]]\n")),
                _ => {}
            }
            if !example.is_empty() {
                let text = format!("{head}{others}{name} = {example}\n[template.sum]\n");
                check(&text, "corpus.toml").unwrap();
                toml::from_str::<PlanSpec>(&text).unwrap();
            }
        }
    }

    #[test]
    fn keys_and_words_are_those_that_serde_knows() {
        listed_as_serde_has_them(TOP, "");
    }

    #[test]
    fn what_was_written_wrong_is_named_with_its_line_and_a_remedy() {
        let source = "[[source]]\nname = 'a'\nfiles = ['a']\n";
        for (text, line, message, remedy) in [
            (
                "[source]\nname = 'a'\n[source]\nname = 'b'\n",
                3,
                "[source] is there twice",
                "[[source]]",
            ),
            ("[source]\nname = 'a'\n", 1, "[source] is one table", "[[source]]"),
            ("[pack]\nseq_len = 64\n[pack]\nseed = 1\n", 3, "[pack] is there twice", "under one"),
            ("[pack]\nseed = 2\nseed = 1\n", 3, "`seed` is there twice", "keep one"),
            (
                "[pack]\nseq_len = -64\n",
                2,
                "`seq_len` under [pack] takes a whole number, 0 or above",
                "seq_len = 2048",
            ),
            ("[pack]\nseed = 99999999999999999999\n", 2, "99999999999999999999", "seed = 0"),
            ("[pack]\nseq_len = 64.0\n", 2, "not the number 64.0", "seq_len = 2048"),
            ("[pack]\nvalidation = true\n", 2, "takes a number, not true", "validation = 0.01"),
            ("[pack]\ndecontaminate = 'a'\n", 2, "a list of texts", "decontaminate = ["),
            (
                "[pack]\npack = 'bestfit'\n",
                2,
                "cannot be \"bestfit\"",
                "did you mean \"best_fit\"?",
            ),
            ("seq_len = 64\n", 1, "no key `seq_len`", "a key of [pack]"),
            (
                "[tokenizer]\nweight = 1\n",
                2,
                "no key `weight` is known under [tokenizer]",
                "below its [[source]]",
            ),
            ("mix = 'task'\n", 1, "`mix` is a table", "[mix]"),
            ("source = ['a']\n", 1, "a source is a table", "[[source]]"),
            ("[[source]]\nname = 'a'\n", 1, "a source has no `files`", "files = ["),
            ("[[source]\n", 1, "cannot be read as TOML", "[[source]]"),
            ("[pack]\nx = y\n", 2, "without quotes", "quotes"),
            ("[defaults]\nfiles = ['a']\n", 2, "under [defaults]", "each source has its own"),
            ("[defaults]\nlnag = 'a'\n", 2, "no key `lnag`", "did you mean `lang`?"),
            ("[template.t]\nname = 'a'\n", 2, "under [template.t]", "each source has its own"),
            ("[template.t]\nlang = 1\n", 2, "`lang` under [template.t]", "lang = \"yor\""),
            ("[template]\nlang = 'a'\n", 2, "[template.lang] is a table", "[template.NAME]"),
            ("template = 'a'\n", 1, "a table of named tables", "[template.NAME]"),
            (
                "[template.sum]\nlang = 'a'\n[[source]]\nname = 'a'\nfiles = ['a']\n\
                 template = 'sun'\n",
                6,
                "no [template.sun]",
                "did you mean \"sum\"?",
            ),
        ] {
            let error = check(text, "corpus.toml").unwrap_err();
            assert_eq!(error.place, Some(Place::Line(line)), "{error}");
            assert!(error.message.contains(message), "{error}");
            assert!(error.remedy.as_ref().unwrap().contains(remedy), "{error}");
        }
        for (added, message, remedy) in [
            (
                "segments = [{ prompt = 'x', target = 'y' }]",
                "holds both `prompt` and `target`",
                "{ target =",
            ),
            ("segments = [{}]", "a segment is empty", "one prompt or one target"),
            (
                "segments = ['x']",
                "a segment is a table in braces, not the text \"x\"",
                "one prompt or one target",
            ),
            ("segments = [{ prompt = 1 }]", "`prompt` takes a template in quotes", "{ prompt ="),
            ("segments = [{ promt = 'x' }]", "no key `promt`", "did you mean `prompt`?"),
            ("prompt = 'x'", "no key `prompt`", "segments = ["),
            ("template = 't'", "no [template.t]", "below a line [template.t]"),
            ("template = '{{ text }}'", "this is the text of one", "segments = ["),
            ("epochs = 2020-01-01", "not a date", "epochs = 2.0"),
            ("weight = '2'", "a number, or a field?", "no quotes: weight = 2;"),
            ("weight = true", "a number, the weight in the mix, or the field", "weight = 1.0"),
            ("loss = 'last_turns'", "cannot be \"last_turns\"", "did you mean \"last_turn\"?"),
            ("span = 'x'", "no key `span`", "did you mean `spans`?"),
            ("lang = 1", "a text in quotes, not the number 1", "lang = \"yor\""),
            ("header = 'yes'", "true or false, not the text \"yes\"", "header = true"),
            ("rename = ['a']", "a table in braces", "{ \"Tweet text\" = \"tweet\" }"),
            ("rename = { 'a b' = 1 }", "gives 'a b' the number 1, not a name", "rename = {"),
            ("columns = [1]", "lists texts in quotes, not the number 1", "columns = ["),
        ] {
            let error = check(&format!("{source}{added}\n"), "corpus.toml").unwrap_err();
            assert_eq!(error.place, Some(Place::Line(4)), "{error}");
            assert!(
                error.message.contains(message) && error.remedy.as_ref().unwrap().contains(remedy),
                "{error}"
            );
        }
    }
}
