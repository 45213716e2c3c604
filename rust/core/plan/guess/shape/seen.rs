//! `Seen`: the first records of a file, asked for what their fields hold.

use crate::read::{Fields, Value};

/// The first records of a file.
pub(super) struct Seen<'a>(pub(super) &'a [Fields]);

impl<'a> Seen<'a> {
    /// Returns the values of a field that are not null.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &'a Value> {
        self.0.iter().filter_map(move |fields| fields.get(name)).filter(|value| !value.is_null())
    }

    /// Returns whether a record has the field, null or not.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|fields| fields.contains_key(name))
    }

    /// Returns whether every record has a value for the field.
    pub(super) fn always(&self, name: &str) -> bool {
        self.values(name).count() == self.0.len()
    }

    /// Returns whether the field holds texts or numbers, and nothing else.
    pub(super) fn is_text(&self, name: &str) -> bool {
        let mut values = self.values(name).peekable();
        values.peek().is_some() && values.all(is_scalar)
    }

    /// Returns the names of all fields, in order of first use.
    pub(super) fn names(&self) -> Vec<&'a str> {
        let mut names: Vec<&str> = Vec::new();
        for name in self.0.iter().flat_map(Fields::keys) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }

    /// Returns the template of a prompt: `name`, preceded by the field `before` if records have it.
    pub(super) fn prompt(&self, before: &str, name: &str) -> String {
        let first = if !self.is_text(before) {
            String::new()
        } else if self.always(before) {
            format!("{{{{ {before} }}}}\n")
        } else {
            when_given(before)
        };
        line(&format!("{first}{{{{ {name} }}}}"))
    }
}

/// Returns whether a value is a text, a number or a truth value.
pub(super) fn is_scalar(value: &Value) -> bool {
    matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_))
}

/// Returns the template of a line that a field makes where it is there and not empty.
pub(super) fn when_given(name: &str) -> String {
    format!("{{% if {name} is defined and {name} %}}{{{{ {name} }}}}\n{{% endif %}}")
}

/// Returns a template that ends its line: Jinja drops one end of line at the end of a template.
fn line(template: &str) -> String {
    format!("{template}\n\n")
}
