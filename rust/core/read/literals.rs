//! `LiteralReader`: the records of a reader, some of whose fields are Python literals in strings.

use super::json::{Fields, Value};
use super::needed::{Needed, Room};
use super::python_literal::parse_literal;
use super::record::{Reader, malformed};
use super::slots::Slots;
use crate::error::{Error, Result};
use crate::schema::Refusal;

/// A cursor over records with the values of their literals.
pub(super) struct LiteralReader {
    reader: Box<dyn Reader>,
    /// The fields whose strings are literals.
    names: Vec<String>,
    needed: Needed,
}

impl LiteralReader {
    /// Returns the records of `reader`, in which the fields `names` are literals.
    pub(super) fn over(
        reader: Box<dyn Reader>,
        names: Option<&Vec<String>>,
        needed: &Needed,
    ) -> Box<dyn Reader> {
        match names {
            None => reader,
            Some(names) => Box::new(Self { reader, names: names.clone(), needed: needed.clone() }),
        }
    }
}

impl Reader for LiteralReader {
    fn advance(&mut self) -> Result<bool> {
        self.reader.advance()
    }

    fn offset(&self) -> u64 {
        self.reader.offset()
    }

    fn bytes(&self) -> usize {
        self.reader.bytes()
    }

    /// Every literal is read, whether a template shows it or not.
    fn fill<'a>(&'a self, _: &mut Slots<'a>) -> bool {
        false
    }

    /// A value that is no string, or missing, stays as it is.
    fn fields(&self) -> std::result::Result<Fields, Refusal> {
        let mut fields = self.reader.fields()?;
        let mut room = Room::new();
        for name in &self.names {
            let Some(value) = fields.get_mut(name) else { continue };
            if let Value::String(text) = value {
                room.enter(self.needed.has(name));
                *value = parse_literal(text, &mut room).map_err(|why| {
                    malformed(format!("field '{name}' is no Python literal: {why}"))
                })?;
            }
        }
        Ok(fields)
    }

    fn is_doubtful(&self) -> bool {
        self.reader.is_doubtful()
    }
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
