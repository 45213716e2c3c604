//! The fields that sampled records have: types, nulls, and records without them.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use serde::Serialize;

use crate::read::{Fields, Value};

/// The most fields that are listed; a file of more is seldom meant.
const MOST: usize = 200;

/// A field of the sampled records.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SurveyedField {
    /// Its name; a field of an object is named after it, with a dot.
    pub name: String,
    /// The types of its values, nulls aside: `text`, `number`, `true or false`, `list of text`…
    pub types: Vec<&'static str>,
    /// The names of its labels, if it is a field of class labels.
    pub labels: Vec<String>,
    /// The share of the records in which it is null.
    pub null: f64,
    /// The share of the records that lack it.
    pub missing: f64,
}

/// Counts of fields over records.
#[derive(Debug, Default)]
pub(super) struct SeenFields {
    records: u64,
    seen: IndexMap<String, Seen>,
    /// Fields that are not counted, there being too many.
    pub(super) others: u64,
}

/// Counts of a field.
#[derive(Debug, Default)]
struct Seen {
    types: BTreeSet<&'static str>,
    nulls: u64,
    present: u64,
    /// Texts that look like a list or an object written out.
    literals: u64,
}

impl SeenFields {
    /// Counts the fields of a record.
    pub(super) fn add(&mut self, fields: &Fields) {
        self.records += 1;
        for (name, value) in fields {
            self.count(name, value);
            if let Value::Object(inner) = value {
                for (key, value) in inner {
                    self.count(&format!("{name}.{key}"), value);
                }
            }
        }
    }

    /// Counts a value.
    fn count(&mut self, name: &str, value: &Value) {
        if self.seen.len() >= MOST && !self.seen.contains_key(name) {
            self.others += 1;
            return;
        }
        if !self.seen.contains_key(name) {
            self.seen.insert(name.to_owned(), Seen::default());
        }
        let seen = &mut self.seen[name];
        seen.present += 1;
        if value.is_null() {
            seen.nulls += 1;
        } else {
            seen.types.insert(type_of(value));
            seen.literals += u64::from(value.as_str().is_some_and(is_literal));
        }
    }

    /// Returns the number of records that could be read.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// Returns whether some record has a field called `name`, or one of an object by its path.
    pub(super) fn has(&self, name: &str) -> bool {
        self.seen.contains_key(name)
    }

    /// Returns whether the values of a field are lists or objects.
    pub(super) fn are_lists(&self, name: &str) -> bool {
        let is_list = |name: &&str| name.contains("list") || *name == "object";
        self.seen.get(name).is_some_and(|seen| seen.types.iter().any(is_list))
    }

    /// Returns whether the values of a field are texts, and all look like a list or an object.
    pub(super) fn are_literals(&self, name: &str) -> bool {
        let is_one = |seen: &Seen| seen.literals > 0 && seen.literals == seen.present - seen.nulls;
        self.seen.get(name).is_some_and(is_one)
    }

    /// Returns the names of the fields.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.seen.keys().map(String::as_str)
    }

    /// Returns whether every field counted is listed.
    pub(super) fn is_complete(&self) -> bool {
        self.others == 0
    }

    /// Returns the fields in order of first use.
    pub(super) fn listed(&self) -> Vec<SurveyedField> {
        let share = |count: u64| count as f64 / self.records.max(1) as f64;
        let field = |(name, seen): (&String, &Seen)| SurveyedField {
            name: name.clone(),
            types: seen.types.iter().copied().collect(),
            labels: Vec::new(),
            null: share(seen.nulls),
            missing: share(self.records - seen.present.min(self.records)),
        };
        self.seen.iter().map(field).collect()
    }
}

/// Returns whether a text looks like a list or an object written out.
fn is_literal(text: &str) -> bool {
    let text = text.trim();
    [("['", "']"), ("[\"", "\"]"), ("{'", "}"), ("{\"", "}")]
        .into_iter()
        .any(|(start, end)| text.len() > 2 && text.starts_with(start) && text.ends_with(end))
}

/// Returns the name of a value's type.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(items) => match items.first().map(type_of) {
            None => "empty list",
            Some("text") => "list of text",
            Some("number") => "list of number",
            Some("object") => "list of object",
            Some(_) => "list",
        },
        Value::Object(_) => "object",
        Value::Unreadable(_) => "unreadable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::parse_json;

    #[test]
    fn types_nulls_and_missing_fields_are_counted() {
        let mut seen = SeenFields::default();
        for line in [
            r#"{"a": "x", "b": {"c": 1}}"#,
            r#"{"a": null, "b": {"c": [1]}}"#,
            r#"{"a": "y"}"#,
            r#"{"a": 1}"#,
        ] {
            seen.add(&parse_json(line.as_bytes()).unwrap());
        }
        let listed = seen.listed();
        let shown: Vec<_> =
            listed.iter().map(|field| (field.name.as_str(), field.null, field.missing)).collect();
        assert_eq!(shown, [("a", 0.25, 0.0), ("b", 0.0, 0.5), ("b.c", 0.0, 0.5)]);
        assert_eq!(listed[0].types, ["number", "text"]);
        assert_eq!(listed[2].types, ["list of number", "number"]);
    }
}
