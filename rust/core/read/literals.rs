//! Literals: the values of fields that are Python literals in strings.

use super::changed::Changed;
use super::json::Value;
use super::needed::{Needed, Room};
use super::python_literal::parse_literal;
use super::record::{Reader, malformed};
use crate::error::{Error, Result};

/// Returns the records of `reader`, in which the fields `names` are literals. Every literal is read,
/// whether a template shows it or not; a value that is no string, or missing, stays as it is.
pub(super) fn with_literals(
    reader: Box<dyn Reader>,
    names: Option<&Vec<String>>,
    needed: &Needed,
) -> Box<dyn Reader> {
    let Some(names) = names.cloned() else { return reader };
    let needed = needed.clone();
    Changed::over(reader, move |fields| {
        let mut room = Room::new();
        for name in &names {
            let Some(value) = fields.get_mut(name) else { continue };
            if let Value::String(text) = value {
                room.enter(needed.has(name));
                *value = parse_literal(text, &mut room).map_err(|why| {
                    malformed(format!("field '{name}' is no Python literal: {why}"))
                })?;
            }
        }
        Ok(())
    })
}

/// Refuses a list of literals that names no field.
pub(super) fn refuse_unnamed(names: &[String]) -> Result<()> {
    if names.is_empty() || names.iter().any(String::is_empty) {
        return Err(Error::config("`literals` names no field, or one by an empty name").remedy(
            "name the fields whose strings are Python literals: literals = [\"answers\"]",
        ));
    }
    Ok(())
}
