//! `Needed`: the fields of a record that its templates may show. `Room`: how many values of one
//! record are built in memory.
//!
//! A line of 16 MiB may hold eight million numbers, each of which takes many times its text. Of
//! fields that no template shows, no more is built than tells what they are.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::format::FormatOptions;

/// The most values that needed fields may hold; a record of more is malformed.
pub(super) const MAX_VALUES: usize = 1 << 20;
/// The most values that are built of all other fields of a record.
pub(super) const MAX_OTHERS: usize = 1 << 16;

/// The fields of a record that its templates may show, by name. Of the others, only the first
/// values of a record are read.
#[derive(Debug, Clone, Default)]
pub struct Needed(Option<Arc<BTreeSet<String>>>);

impl Needed {
    /// Returns that every field is needed.
    pub(crate) fn all() -> &'static Self {
        static ALL: Needed = Needed(None);
        &ALL
    }

    /// Returns that no field but these is needed.
    pub(crate) fn of(names: impl IntoIterator<Item = String>) -> Self {
        Self(Some(Arc::new(names.into_iter().collect())))
    }

    /// Returns that the fields of both are needed.
    pub(crate) fn and(&self, other: &Self) -> Self {
        match (&self.0, &other.0) {
            (Some(own), Some(others)) => Self::of(own.union(others).cloned()),
            _ => Self(None),
        }
    }

    /// Returns whether a field is needed.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.contains(name))
    }

    /// Returns the needed fields by the names that they have before they are renamed, and those by
    /// which records are chosen and refused.
    pub(super) fn in_files_of(&self, options: &FormatOptions) -> Self {
        let Some(names) = &self.0 else { return Self(None) };
        let only = options.only.iter().filter_map(|only| only.field.first());
        let renamed = options.rename.iter().flat_map(|(old, new)| [old, new]);
        Self::of(names.iter().chain(only).chain(renamed).cloned())
    }
}

/// The values of one record that may still be built.
#[derive(Debug)]
pub(super) struct Room {
    needed: usize,
    others: usize,
    /// Whether the field at hand is needed.
    is_needed: bool,
    kinds: Kinds,
}

/// The kinds of values that were read of a record, and that tell how its template may treat it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kinds {
    /// A number or a truth value.
    pub(super) has_number: bool,
    /// An empty text.
    pub(super) has_empty: bool,
}

impl Room {
    /// Returns the room of a record whose fields are all needed until [`Self::enter`] says more.
    pub(super) fn new() -> Self {
        let (needed, others) = (MAX_VALUES, MAX_OTHERS);
        Self { needed, others, is_needed: true, kinds: Kinds::default() }
    }

    /// Returns the room of a text that is looked at alone.
    pub(super) fn none() -> Self {
        Self { others: 0, is_needed: false, ..Self::new() }
    }

    /// Begins a field.
    pub(super) fn enter(&mut self, is_needed: bool) {
        self.is_needed = is_needed;
    }

    /// Adds to the kinds of values that were read.
    pub(super) fn note(&mut self, kinds: Kinds) {
        self.kinds.has_number |= kinds.has_number;
        self.kinds.has_empty |= kinds.has_empty;
    }

    /// Begins a value: one of a list, or of a field. Returns whether there is room for it, or an error
    /// in words for a needed value too many.
    pub(super) fn begin(&mut self) -> Result<Begun, String> {
        let left = if self.is_needed { &mut self.needed } else { &mut self.others };
        let has_room = *left > 0;
        *left -= usize::from(has_room);
        if self.is_needed && !has_room {
            return Err(format!("holds more than {MAX_VALUES} values that templates may show"));
        }
        Ok(Begun { has_room, before: self.kinds })
    }

    /// Returns whether a value that was read since is kept: there was room for it, or it is the first
    /// of its kind.
    pub(super) fn keeps(&self, begun: &Begun) -> bool {
        begun.has_room || self.kinds != begun.before
    }
}

/// A value that is being read.
pub(super) struct Begun {
    has_room: bool,
    /// The kinds of values before it.
    before: Kinds,
}

#[cfg(test)]
mod tests {
    use super::super::json::{Fields, Value, parse_needed, parse_object};
    use super::*;

    /// A record of the fields `a` and `b`, the latter a list of so many values.
    fn record(count: usize, value: &str) -> String {
        format!(r#"{{"a": [1, "x"], "b": [{}{value}]}}"#, format!("{value},").repeat(count - 1))
    }

    fn has_number(value: &Value) -> bool {
        match value {
            Value::Number(_) | Value::Bool(_) => true,
            Value::Array(items) => items.iter().any(has_number),
            _ => false,
        }
    }

    fn len(fields: &Fields, name: &str) -> usize {
        let Value::Array(items) = &fields[name] else { panic!("{name} is a list") };
        items.len()
    }

    #[test]
    fn fields_that_no_template_shows_are_built_up_to_a_bound() {
        let only_a = Needed::of(["a".to_owned()]);
        for value in ["1", "\"x\"", "[2]", "{\"y\": null}", "[[], [[{\"z\": []}]]]"] {
            let text = record(3 * MAX_OTHERS, value);
            let fields = parse_needed(&text, &only_a).unwrap();
            assert_eq!((len(&fields, "a"), fields.len()), (2, 2), "{value}");
            assert!(len(&fields, "b") <= MAX_OTHERS, "{value}: {}", len(&fields, "b"));
        }
        let few = record(1000, "{\"y\": [1, \"x\"]}");
        assert_eq!(parse_needed(&few, &only_a), parse_object(&few));
    }

    #[test]
    fn numbers_beyond_the_bound_are_still_known_of() {
        let none = Needed::of([]);
        let texts = "\"x\",".repeat(2 * MAX_OTHERS);
        for (last, expected) in [("[[7]]", true), ("true", true), ("\"7\"", false)] {
            let fields = parse_needed(&format!(r#"{{"b": [{texts} {last}]}}"#), &none).unwrap();
            assert_eq!(fields.values().any(has_number), expected, "{last}");
        }
    }

    #[test]
    fn a_record_of_too_many_needed_values_is_malformed_and_a_fault_anywhere_is_found() {
        let why = parse_object(&record(MAX_VALUES + 1, "1")).unwrap_err();
        assert!(why.contains("more than 1048576 values"), "{why}");
        let faulty = record(2 * MAX_OTHERS, "1").replace("1]", "1,]");
        assert!(parse_needed(&faulty, &Needed::of([])).is_err());
    }
}
