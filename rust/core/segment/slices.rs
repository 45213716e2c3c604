//! Slices of texts and lists, as Python has them.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

use super::limits::pay;
use super::marks::Marked;

/// Returns some of a text's characters or of a list's items, as Python's slices do.
pub(super) fn slice(
    state: &mut State<'_, '_>,
    value: &Value,
    bounds: [Value; 3],
    marked: bool,
) -> Result<Value, Error> {
    let bad = |why: &str| Error::new(ErrorKind::InvalidOperation, why.to_owned());
    let [start, stop, step] = bounds.map(|bound| match bound.kind() {
        ValueKind::None => Ok(None),
        _ => i64::try_from(bound).map(Some),
    });
    let (start, stop, step) = (start?, stop?, step?.unwrap_or(1));
    if step == 0 {
        return Err(bad("cannot slice by step size of 0"));
    }
    if let Some(text) = value.as_str() {
        let text = if marked { Marked::read(text) } else { Marked::plain(text) };
        pay(state, text.text.len())?;
        let ends: Vec<usize> =
            text.text.char_indices().map(|(index, _)| index).chain([text.text.len()]).collect();
        let places = places(ends.len() - 1, start, stop, step);
        let mut out = Marked::default();
        places.for_each(|index| out.push_slice(&text, ends[index]..ends[index + 1]));
        return Ok(Value::from(out.write()));
    }
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => Ok(Value::from(Vec::<Value>::new())),
        ValueKind::Seq | ValueKind::Iterable => {
            let mut items = Vec::new();
            for item in value.try_iter()?.checked() {
                pay(state, 64)?;
                items.push(item?);
            }
            let chosen = places(items.len(), start, stop, step).map(|index| items[index].clone());
            if value.is_tuple() {
                return Ok(Value::from(minijinja::value::Tuple::from(chosen.collect::<Vec<_>>())));
            }
            Ok(Value::from(chosen.collect::<Vec<_>>()))
        }
        kind => Err(bad(&format!("value of type {kind} cannot be sliced"))),
    }
}

/// Returns the indices of a slice of `len` items.
fn places(
    len: usize,
    start: Option<i64>,
    stop: Option<i64>,
    step: i64,
) -> impl Iterator<Item = usize> {
    let len = len as i64;
    // As in Python, a negative step starts at the last item and ends before the first.
    let (low, high) = if step < 0 { (-1, len - 1) } else { (0, len) };
    let clamp =
        |index: i64| if index < 0 { index.saturating_add(len).max(low) } else { index.min(high) };
    let start = start.map_or(if step < 0 { high } else { low }, clamp);
    let stop = stop.map_or(if step < 0 { low } else { high }, clamp);
    let next = move |index: &i64| index.checked_add(step);
    std::iter::successors(Some(start), next)
        .take_while(move |&index| if step < 0 { index > stop } else { index < stop })
        .map(|index| index as usize)
}
