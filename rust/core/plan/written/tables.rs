//! Checks of the tables of `corpus.toml`: each of their keys is known, and none is lacking.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{IN_DOCUMENT, Key, Kind, SEGMENTS, SOURCE, TOP, is_of_reading};
use super::values::{check_value, described};
use super::{Checked, fault};
use crate::plan::nearest;

/// Checks the keys of a table. `place` names the table in errors, for example ` under [pack]`.
pub(super) fn check_table(
    table: &DeTable<'_>,
    span: Range<usize>,
    keys: &'static [Key],
    place: &str,
) -> Checked {
    // In order of the text, so that the first fault in the file is reported.
    let mut written: Vec<_> = table.iter().collect();
    written.sort_by_key(|(name, _)| name.span().start);
    for (name, value) in written {
        match keys.iter().find(|key| key.name == &**name.get_ref()) {
            Some(key) => check_value(value, name.span(), key, place)?,
            None => return unknown_key(name.get_ref(), name.span(), keys, place),
        }
    }
    match keys.iter().find(|key| key.is_needed && !table.contains_key(key.name)) {
        Some(Key { name, example, .. }) => {
            let table = place.strip_prefix(" in ").filter(|table| table.starts_with('`'));
            let message = format!("{} has no `{name}`", table.unwrap_or("a source"));
            fault(span, message, format!("give it one: {name} = {example}"))
        }
        None => Ok(()),
    }
}

/// Returns the fault of a key that is not known, with the most likely remedy.
fn unknown_key(name: &str, span: Range<usize>, keys: &[Key], place: &str) -> Checked {
    let elsewhere = |key: &&Key| match key.kind {
        Kind::Table(inner) | Kind::Tables(inner) => inner.iter().any(|inner| inner.name == name),
        _ => false,
    };
    let names = || keys.iter().map(|key| key.name);
    let is_own = ["name", "template", "files", "validation_files"].contains(&name);
    let remedy = match (nearest(name, names()), TOP.iter().find(elsewhere)) {
        _ if place == IN_DOCUMENT && is_of_reading(name) => {
            "it is a key of the whole source: write it above the first [[source.document]]"
                .to_owned()
        }
        // Of a source, and looked for where sources share their keys.
        _ if is_own && !place.is_empty() && SOURCE.iter().any(|key| key.name == name) => {
            "each source has its own: write it below its [[source]]".to_owned()
        }
        _ if ["prompt", "target"].contains(&name) => {
            format!("a source lists its segments: segments = {SEGMENTS}")
        }
        _ if name == "file" && place.contains("source") => "did you mean `files`?".to_owned(),
        (_, Some(Key { name: "source", .. })) => {
            "it is a key of a source: write it below its [[source]]".to_owned()
        }
        (_, Some(table)) => format!("it is a key of [{}]: write it there", table.name),
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, None) => format!("the keys here are {}", quoted(names())),
    };
    fault(span, format!("no key `{name}` is known{place}"), remedy)
}

/// Returns names in backquotes, separated by commas.
pub(super) fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Checks the value of a key that is a table, or a list of tables.
pub(super) fn check_section(
    value: &Spanned<DeValue<'_>>,
    name_span: Range<usize>,
    key: &Key,
) -> Checked {
    let name = key.name;
    match (key.kind, value.get_ref()) {
        (Kind::Table(keys), DeValue::Table(table)) => {
            check_table(table, name_span, keys, &format!(" under [{name}]"))
        }
        (Kind::Shared(keys), DeValue::Table(table)) => {
            check_table(table, name_span, keys(), &format!(" under [{name}]"))
        }
        (Kind::Named(keys), DeValue::Table(tables)) => check_named(tables, name, keys()),
        (Kind::Named(_), other) => fault(
            value.span(),
            format!("`{name}` is a table of named tables, not {}", described(other)),
            format!("write [{name}.NAME] on a line of its own, and its keys below it"),
        ),
        (Kind::Tables(keys), DeValue::Array(tables)) => {
            tables.iter().try_for_each(|table| match table.get_ref() {
                DeValue::Table(inner) => check_table(inner, table.span(), keys, " in a [[source]]"),
                other => fault(
                    table.span(),
                    format!("a source is a table, not {}", described(other)),
                    "write [[source]] on a line of its own, and the source's keys below it",
                ),
            })
        }
        (Kind::Tables(_), _) => fault(
            name_span,
            format!("[{name}] is one table; sources are a list"),
            format!("write [[{name}]], brackets doubled, at the head of every source"),
        ),
        (_, other) => {
            let remedy = format!("write [{name}] on a line of its own, and its keys below it");
            fault(value.span(), format!("`{name}` is a table, not {}", described(other)), remedy)
        }
    }
}

/// Checks the document tables of a source.
pub(super) fn check_documents(
    value: &Spanned<DeValue<'_>>,
    name_span: Range<usize>,
    keys: &'static [Key],
) -> Checked {
    let remedy = "write [[source.document]], brackets doubled, at the head of every document";
    let DeValue::Array(tables) = value.get_ref() else {
        let found = described(value.get_ref());
        return fault(name_span, format!("`document` is a list of tables, not {found}"), remedy);
    };
    if tables.is_empty() {
        return fault(value.span(), "`document` is an empty list", remedy);
    }
    tables.iter().try_for_each(|table| match table.get_ref() {
        DeValue::Table(inner) => check_table(inner, table.span(), keys, IN_DOCUMENT),
        other => {
            fault(table.span(), format!("a document is a table, not {}", described(other)), remedy)
        }
    })
}

/// Checks the tables of `section`, each with a name of its own.
fn check_named(tables: &DeTable<'_>, section: &str, keys: &'static [Key]) -> Checked {
    let mut written: Vec<_> = tables.iter().collect();
    written.sort_by_key(|(name, _)| name.span().start);
    for (name, table) in written {
        let place = format!("[{section}.{}]", name.get_ref());
        match table.get_ref() {
            DeValue::Table(inner) => {
                check_table(inner, name.span(), keys, &format!(" under {place}"))?;
            }
            other => {
                return fault(
                    name.span(),
                    format!("{place} is a table, not {}", described(other)),
                    format!("write [{section}.NAME] on a line of its own, and its keys below it"),
                );
            }
        }
    }
    Ok(())
}
