//! Finds rows again, for the list of dropped records.

use crate::error::{Place, Result};
use crate::read::content::{Found, first_words};
use crate::read::format::Format;
use crate::read::json::Value;
use crate::read::request::Request;

/// The letters of a row that its first words are taken from.
const MAX_TEXT: usize = 400;

/// Returns the rows at `offsets`, which ascend, with their first words, in one pass over the file.
pub(in crate::read) fn row_places(
    format: &dyn Format,
    request: &Request<'_>,
    offsets: &[u64],
) -> Result<Vec<Found>> {
    let Some(last) = offsets.last() else { return Ok(Vec::new()) };
    let mut reader = format.open(&Request { range: 0..last + 1, wanted: None, ..*request })?;
    let mut found = Vec::with_capacity(offsets.len());
    let mut left = offsets.iter().peekable();
    while let Some(&&offset) = left.peek() {
        let is_there = reader.advance()?;
        if !is_there || reader.offset() >= offset {
            let mut text = String::new();
            if let (true, Ok(fields)) = (is_there, reader.fields()) {
                fields.values().for_each(|value| push_texts(value, &mut text));
            }
            found.push(Found { place: Place::Row(offset + 1), text: first_words(text.as_bytes()) });
            left.next();
        }
    }
    Ok(found)
}

/// Appends the texts of a value, until there are enough for the first words of a record.
fn push_texts(value: &Value, out: &mut String) {
    match value {
        _ if out.len() > MAX_TEXT => {}
        Value::String(text) => {
            out.extend(text.chars().take(MAX_TEXT));
            out.push(' ');
        }
        Value::Array(items) => items.iter().for_each(|item| push_texts(item, out)),
        Value::Object(fields) => fields.values().for_each(|value| push_texts(value, out)),
        _ => {}
    }
}
