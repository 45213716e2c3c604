//! The one object of a file in which `records` lie: the way to its outermost list, and the fields
//! around it.

use super::json_array::Elements;
use super::nested::Step;
use crate::error::{Error, Result};
use crate::read::json::{Fields, parse_object, value_in};
use crate::read::lines::MAX_LINE;
use crate::read::needed::{Needed, Room};

/// The fields around the outermost list of a file: of each object on the way, in their order.
pub(super) struct Around<'a> {
    levels: Vec<Fields>,
    needed: &'a Needed,
    room: Room,
    /// The bytes of their values.
    bytes: usize,
}

impl<'a> Around<'a> {
    /// Returns no field yet, for so many objects.
    pub(super) fn of(needed: &'a Needed, objects: usize) -> Self {
        Self { levels: vec![Fields::new(); objects], needed, room: Room::new(), bytes: 0 }
    }

    /// Adds a field of the object `level`, whose value is the element at hand.
    fn add(&mut self, level: usize, name: String, elements: &Elements) -> Result<()> {
        self.bytes += elements.bytes();
        let Some(text) = elements.element().filter(|_| self.bytes <= MAX_LINE) else {
            let what = format!("holds more than {} MiB around its list", MAX_LINE >> 20);
            return Err(not_json(elements, &what));
        };
        let fault =
            |why: String| not_json(elements, &format!("its field '{name}' cannot be read: {why}"));
        let text = std::str::from_utf8(text).map_err(|_| fault("not UTF-8".to_owned()))?;
        self.room.enter(self.needed.has(&name));
        let begun = self.room.begin().map_err(&fault)?;
        let value = value_in(text, &mut self.room).map_err(&fault)?;
        if self.room.keeps(&begun) {
            self.levels[level].insert(name, value);
        }
        Ok(())
    }

    /// Returns all fields; an inner one takes the place of an outer one of the same name.
    pub(super) fn fields(self) -> Fields {
        self.levels.into_iter().flatten().collect()
    }
}

/// Moves into the object that comes next, up to the list at the end of `steps`. Returns whether
/// there is such a list.
///
/// With `around`, it moves past the whole object instead, and adds the fields of each object on the
/// way, of which this one has the number that comes with `around`.
pub(super) fn enter(
    elements: &mut Elements,
    steps: &[Step],
    mut around: Option<(&mut Around<'_>, usize)>,
) -> Result<bool> {
    elements.consume();
    let mut found = false;
    if elements.next_byte()? == Some(b'}') {
        elements.consume();
        return Ok(false);
    }
    loop {
        let name = read_name(elements)?;
        let first = elements.next_byte()?;
        if !found && name == steps[0].name {
            let wanted = if steps.len() == 1 { b'[' } else { b'{' };
            if first != Some(wanted) {
                let wanted = if steps.len() == 1 { "list" } else { "object" };
                return Err(not_json(elements, &format!("its field '{name}' is no {wanted}")));
            }
            found = true;
            match &mut around {
                None if steps.len() == 1 => {
                    elements.consume();
                    return Ok(true);
                }
                None => return enter(elements, &steps[1..], None),
                Some(_) if steps.len() == 1 => {
                    elements.read_element(b'}')?;
                    // Only the end of the list is looked at here; its elements are read later.
                    let is_list = elements.last_byte() == Some(b']');
                    if !is_list {
                        return Err(not_json(elements, "is not JSON: expected `,` or `}`"));
                    }
                }
                Some((around, level)) => {
                    found = enter(elements, &steps[1..], Some((around, *level + 1)))?;
                }
            }
        } else {
            elements.read_element(b'}')?;
            if let Some((around, level)) = &mut around {
                around.add(*level, name, elements)?;
            }
        }
        let end = elements.next_byte()?;
        elements.consume();
        match end {
            Some(b',') => {
                elements.next_byte()?;
            }
            Some(b'}') => return Ok(found),
            None => return Err(elements.unfinished()),
            Some(_) => return Err(not_json(elements, "is not JSON: expected `,` or `}`")),
        }
    }
}

/// Reads the name of a field and its colon.
fn read_name(elements: &mut Elements) -> Result<String> {
    elements.read_element(b':')?;
    let name = elements.element().and_then(|name| {
        let text = format!("{{{}:null}}", std::str::from_utf8(name).ok()?);
        parse_object(&text).ok()?.into_iter().next().map(|(name, _)| name)
    });
    if elements.next_byte()? != Some(b':') {
        return Err(not_json(elements, "is not JSON: expected a field's name in quotes and `:`"));
    }
    elements.consume();
    // A name with a lone surrogate is no text, and names nothing that is looked for.
    Ok(name.unwrap_or_default())
}

/// Returns the error of a file whose object cannot be read.
fn not_json(elements: &Elements, what: &str) -> Error {
    elements.fault(what).remedy("mend the file, or write another path in `records`")
}
