//! The ways to values inside a record.

use super::Fields;
use crate::read::Value;

/// A step on the way to a value inside a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The value of this field.
    Key(String),
    /// The value at this index.
    Index(usize),
}

/// Returns the paths of all strings of a record.
pub(super) fn string_leaves_of(fields: &Fields) -> Vec<Vec<Step>> {
    let mut paths = Vec::new();
    for (key, value) in fields {
        string_leaves(value, &mut vec![Step::Key(key.clone())], &mut paths);
    }
    paths
}

/// Appends the paths of all strings in the value at `path`.
pub(super) fn string_leaves(value: &Value, path: &mut Vec<Step>, out: &mut Vec<Vec<Step>>) {
    match value {
        Value::String(_) => out.push(path.clone()),
        Value::Array(items) => {
            for (nth, item) in items.iter().enumerate() {
                path.push(Step::Index(nth));
                string_leaves(item, path, out);
                path.pop();
            }
        }
        Value::Object(fields) => {
            for (key, value) in fields {
                path.push(Step::Key(key.clone()));
                string_leaves(value, path, out);
                path.pop();
            }
        }
        _ => {}
    }
}

/// Returns the value at a path of names, if it is there and not null.
pub(super) fn value_at<'a>(fields: &'a Fields, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    let value = rest.iter().try_fold(fields.get(first)?, |value, name| match value {
        Value::Object(fields) => fields.get(name),
        _ => None,
    });
    value.filter(|value| !value.is_null())
}

/// Returns the value at `path`, to be changed.
pub(crate) fn value_at_mut<'a>(fields: &'a mut Fields, path: &[Step]) -> Option<&'a mut Value> {
    let (Step::Key(first), rest) = path.split_first()? else { return None };
    rest.iter().try_fold(fields.get_mut(first)?, |value, step| match (step, value) {
        (Step::Key(key), Value::Object(fields)) => fields.get_mut(key),
        (Step::Index(nth), Value::Array(items)) => items.get_mut(*nth),
        _ => None,
    })
}
