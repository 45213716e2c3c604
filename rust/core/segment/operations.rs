//! The operations that rebuilt templates call: bounded, and carrying marks on data.
//!
//! Takes and gives values of the engine. There are two sets under the same names: a plain set, and
//! a set for a render whose data is marked. A marked operation works on texts without their marks,
//! as the plain one does, and then marks each part of its result that comes from data.

use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::filters::{GENERATION, TEXT};
use super::limits::{keep, pay, prepare, solid, walk};
use super::marks::{self, Marked};
use super::slices::slice;

/// The most arguments of `map`: nested filters and their own arguments.
const MAX_MAP_ARGS: usize = 16;

type Result<T> = std::result::Result<T, Error>;

/// Adds the operations to `environment`, those for marked data if `marked`.
pub(crate) fn install(environment: &mut Environment<'static>, marked: bool) {
    let call = move |kind: CallKind| {
        move |state: &mut State, args: Rest<ValueOrKwargs>| {
            // The value comes first, then the name of the operation, then its own arguments.
            let mut args = args.into_values();
            if args.len() < 2 {
                return Err(Error::from(ErrorKind::MissingArgument));
            }
            let receiver = args.remove(0);
            let name = args.remove(0);
            let name = name.as_str().unwrap_or_default();
            let operation = Operation { kind, name };
            if marked {
                operation.carry(state, &receiver, &args)
            } else {
                operation.run(state, &receiver, &args)
            }
        }
    };
    environment.add_filter("__filter", call(CallKind::Filter));
    environment.add_filter("__method", call(CallKind::Method));
    environment.add_filter(
        "__slice",
        move |state: &mut State, value: Value, start: Value, stop: Value, step: Value| {
            slice(state, &value, [start, stop, step], marked)
        },
    );
    install_bounds(environment);
    install_views(environment, marked);
}

/// Adds the operations that bound a value and leave it as it is.
fn install_bounds(environment: &mut Environment<'static>) {
    environment.add_filter("__solid", |state: &mut State, value: Value| solid(state, value));
    environment.add_filter("__kept", |state: &mut State, value: Value| {
        keep(state, &value).map(|()| value)
    });
}

/// Returns whether a chain of comparisons holds: a value, then comparisons and values by turns.
///
/// The engine puts values of different kinds in an order of its own, in which every text is greater
/// than every number. Python refuses to, and so do we.
fn compared(first: Value, rest: &[Value]) -> Result<bool> {
    let mut left = first;
    for pair in rest.chunks_exact(2) {
        let (op, right) = (pair[0].as_str().unwrap_or_default(), &pair[1]);
        let holds = match op {
            "==" => left == *right,
            "!=" => left != *right,
            _ => {
                refuse_unordered(&left, op, right)?;
                match op {
                    "<" => left < *right,
                    "<=" => left <= *right,
                    ">" => left > *right,
                    _ => left >= *right,
                }
            }
        };
        if !holds {
            return Ok(false);
        }
        left = right.clone();
    }
    Ok(true)
}

/// Refuses to compare values that have no order, such as a text and a number.
fn refuse_unordered(left: &Value, op: &str, right: &Value) -> Result<()> {
    let group = |value: &Value| match value.kind() {
        ValueKind::Number | ValueKind::Bool => "a number",
        ValueKind::String => "a text",
        ValueKind::Seq | ValueKind::Iterable => "a list",
        ValueKind::Undefined => "",
        ValueKind::None => "null",
        _ => "a value without order",
    };
    let (left, right) = (group(left), group(right));
    if left.is_empty() || right.is_empty() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    if left == right && left != "null" && left != "a value without order" {
        return Ok(());
    }
    let remedy = if [left, right].contains(&"a text") && [left, right].contains(&"a number") {
        "; write `| int` or `| float` behind a text that holds a number"
    } else {
        ""
    };
    let what = format!("`{op}` compares {left} with {right}{remedy}");
    Err(Error::new(ErrorKind::InvalidOperation, what))
}

/// Adds the operations that prepare a value to be compared, shown or walked.
fn install_views(environment: &mut Environment<'static>, marked: bool) {
    environment.add_filter("__bare", move |state: &mut State, value: Value| {
        walk(state, &value, false)?;
        Ok::<Value, Error>(if marked { marks::bare(&value) } else { value })
    });
    environment.add_filter("__compared", |value: Value, rest: Rest<Value>| compared(value, &rest));
    environment.add_filter("__text", move |state: &mut State, value: Value| {
        walk(state, &value, true)?;
        if marked { shown(state, value) } else { Ok(value) }
    });
    environment.add_filter("__iter", move |state: &mut State, value: Value| match value.as_str() {
        _ if marked => Ok(items_of(value)),
        // A list, so that the loop knows its last turn.
        Some(text) => {
            pay(state, 32 * text.len())?;
            Ok(text.chars().map(Value::from).collect())
        }
        None => Ok::<Value, Error>(value),
    });
    environment.add_filter("__indexed", move |value: Value| match value.kind() {
        ValueKind::String if marked => items_of(value),
        _ => value,
    });
}

/// Returns a value as text. Anything that is no text counts as data if it may hold numbers of the
/// record.
fn shown(state: &mut State<'_, '_>, value: Value) -> Result<Value> {
    match value.kind() {
        ValueKind::String | ValueKind::Undefined => Ok(value),
        ValueKind::Number | ValueKind::Bool if !marks::numbers_are_data() => {
            Ok(Value::from(state.format(value)?))
        }
        _ => {
            let text = state.format(marks::bare(&value))?;
            Ok(Value::from(Marked::data(text, marks::label_in([&value])).write()))
        }
    }
}

/// Returns the items of a loop: the characters of a text or the keys of a map, each marked.
fn items_of(value: Value) -> Value {
    match value.kind() {
        ValueKind::String => {
            let text = Marked::read(value.as_str().unwrap_or_default());
            let piece = |(start, c): (usize, char)| {
                Value::from(text.slice(start..start + c.len_utf8()).write())
            };
            text.text.char_indices().map(piece).collect()
        }
        ValueKind::Map if !value.is_kwargs() => value
            .try_iter()
            .map_or(value.clone(), |names| names.map(|name| marks::data_in(&name, 0)).collect()),
        _ => value,
    }
}

/// Returns a result that was made of data with `label`, marked.
fn data_of(value: &Value, label: u32) -> Value {
    if matches!(value.kind(), ValueKind::Number | ValueKind::Bool) {
        marks::count_numbers_as_data();
    }
    marks::data_in(value, label)
}

/// Returns a list with each item as the text that is shown for it.
fn shown_items(state: &mut State<'_, '_>, list: &Value) -> Result<Value> {
    let Ok(items) = list.try_iter() else { return Ok(list.clone()) };
    let has_name = |item: &Value| item.as_object().is_some();
    let items: Vec<Value> = items.checked().collect::<Result<_>>()?;
    // Items with attributes may still be joined by one of those.
    if items.iter().any(has_name) {
        return Ok(Value::from(items));
    }
    let show = |item: Value| match item.kind() {
        // A null in a list is shown as `None`, unlike a null field.
        ValueKind::None => Ok(Value::from(Marked::data("None".to_owned(), 0).write())),
        _ => shown(state, item),
    };
    Ok(Value::from(items.into_iter().map(show).collect::<Result<Vec<_>>>()?))
}

/// Returns pairs of names and values with the names marked: the names of fields are data.
fn with_marked_names(pairs: &Value) -> Result<Value> {
    let name = |(nth, item): (usize, Value)| if nth == 0 { marks::data_in(&item, 0) } else { item };
    let pairs = pairs.try_iter()?.map(|pair| {
        let items: Vec<Value> = pair.try_iter().map(Iterator::collect).unwrap_or_default();
        Value::from(items.into_iter().enumerate().map(name).collect::<Vec<_>>())
    });
    Ok(pairs.collect())
}

/// Returns whether the template spells the format itself and formats only texts.
fn is_plain_format(format: &Value, args: &[Value]) -> bool {
    format.as_str().is_some_and(|text| !marks::are_in(text))
        && args.iter().all(|arg| arg.as_str().is_some())
}

/// The kind of a call.
#[derive(Debug, Clone, Copy)]
enum CallKind {
    Filter,
    Method,
}

/// A filter or a method, by name.
struct Operation<'a> {
    kind: CallKind,
    name: &'a str,
}

impl Operation<'_> {
    /// Runs the operation within its bounds.
    fn run(&self, state: &mut State<'_, '_>, receiver: &Value, args: &[Value]) -> Result<Value> {
        if let Some(mapped) = self.map(state, receiver, args, false) {
            return mapped;
        }
        prepare(state, self.name, receiver, args)?;
        let value = match self.kind {
            CallKind::Method => receiver.call_method(state, self.name, args)?,
            CallKind::Filter => {
                let all: Vec<Value> = std::iter::once(receiver).chain(args).cloned().collect();
                state.apply_filter(self.name, &all).map_err(|error| match error.kind() {
                    ErrorKind::UnknownFilter if error.detail().is_none() => Error::new(
                        ErrorKind::UnknownFilter,
                        format!("filter {} is unknown", self.name),
                    ),
                    _ => error,
                })?
            }
        };
        solid(state, value)
    }

    /// Runs a filter on each item if the operation is `map` with the name of a filter.
    fn map(
        &self,
        state: &mut State<'_, '_>,
        receiver: &Value,
        args: &[Value],
        marked: bool,
    ) -> Option<Result<Value>> {
        let is_map = matches!(self.kind, CallKind::Filter) && self.name == "map";
        let (name, args) = args.split_first().filter(|_| is_map)?;
        let name = marks::bare(name);
        let inner = Operation { kind: CallKind::Filter, name: name.as_str()? };
        if receiver.is_undefined() {
            return None;
        }
        if args.len() > MAX_MAP_ARGS {
            // Nested `map`s take stack for each level.
            return Some(Err(Error::from(ErrorKind::TooManyArguments)));
        }
        let items = receiver.try_iter().ok()?;
        let mut mapped = Vec::new();
        for item in items.checked() {
            let mut apply = |item: Value| {
                pay(state, 96)?;
                if marked { inner.carry(state, &item, args) } else { inner.run(state, &item, args) }
            };
            match item.and_then(&mut apply) {
                Ok(value) => mapped.push(value),
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(Value::from(mapped)))
    }

    /// Runs the operation on marked values and marks the data in its result.
    fn carry(&self, state: &mut State<'_, '_>, receiver: &Value, args: &[Value]) -> Result<Value> {
        let is_filter = matches!(self.kind, CallKind::Filter);
        // Paid for here, since reading and writing marks walks the values too.
        for value in std::iter::once(receiver).chain(args) {
            walk(state, value, false)?;
        }
        match self.name {
            "select" | "reject" | "selectattr" | "rejectattr" if is_filter => {
                return self.choose(state, receiver, args);
            }
            // These combine whole texts or return one of them: marks stay as they are.
            "default" | "d" | "safe" => return self.run(state, receiver, args),
            "join" if !is_filter => return self.join(state, receiver, args),
            "format" if is_plain_format(receiver, args) => return self.run(state, receiver, args),
            "string" | TEXT if is_filter && receiver.as_str().is_some() => {
                return Ok(receiver.clone());
            }
            "string" | TEXT if is_filter => return shown(state, receiver.clone()),
            GENERATION if is_filter => {
                let text = receiver.as_str().unwrap_or_default();
                return Ok(Value::from(marks::generated(text)));
            }
            _ => {}
        }
        if let Some(mapped) = self.map(state, receiver, args, true) {
            return mapped;
        }
        match receiver.kind() {
            ValueKind::String => self.carry_text(state, receiver, args),
            ValueKind::Seq | ValueKind::Iterable | ValueKind::Map if !self.looks_whole() => {
                self.carry_items(state, receiver, args)
            }
            // Neither a text nor items: the marks inside cannot be followed, so all of the result
            // counts as data if anything in it may be.
            _ => {
                let bare_args: Vec<Value> = args.iter().map(marks::bare).collect();
                let bare_receiver = marks::bare(receiver);
                let value = self.run(state, &bare_receiver, &bare_args)?;
                let has_data = receiver.as_object().is_some()
                    || marks::numbers_are_data()
                    || args.iter().any(marks::in_value);
                let of = std::iter::once(receiver).chain(args);
                Ok(if has_data { data_of(&value, marks::label_in(of)) } else { value })
            }
        }
    }

    /// Joins texts with a text, as the method does. A value that is no text counts as data if
    /// numbers do.
    fn join(&self, state: &mut State<'_, '_>, receiver: &Value, args: &[Value]) -> Result<Value> {
        match args.split_first() {
            Some((list, rest)) if list.as_object().is_some() => {
                let list = shown_items(state, list)?;
                let args: Vec<Value> = std::iter::once(list).chain(rest.iter().cloned()).collect();
                self.run(state, receiver, &args)
            }
            _ => self.carry_text(state, receiver, args),
        }
    }

    /// Returns whether the operation makes one text of a whole list or map.
    fn looks_whole(&self) -> bool {
        matches!(
            self.name,
            "tojson" | "pprint" | "escape" | "e" | "urlencode" | "xmlattr" | "indent"
        )
    }

    /// Runs the operation on a list or a map whose texts keep their marks.
    fn carry_items(
        &self,
        state: &mut State<'_, '_>,
        receiver: &Value,
        args: &[Value],
    ) -> Result<Value> {
        let mut receiver = if receiver.kind() == ValueKind::Map && self.sees_names_only() {
            items_of(receiver.clone())
        } else {
            receiver.clone()
        };
        if self.name == "join" {
            receiver = shown_items(state, &receiver)?;
        }
        let shows_args = matches!(self.name, "join" | "sum" | "chain" | "zip" | "batch" | "slice");
        let looks_up =
            matches!(self.name, "get" | "attr" | "count" | "index" | "groupby" | "sort" | "unique");
        let mut args = args.to_vec();
        let mut had_data = false;
        // An argument that is compared must have no marks; one that is shown keeps them.
        if let Some(first) =
            args.first_mut().filter(|first| !shows_args && first.as_object().is_none())
        {
            had_data = marks::in_value(first) && !looks_up;
            *first = marks::bare(first);
        }
        let value = self.run(state, &receiver, &args)?;
        let value = if had_data { data_of(&value, 0) } else { value };
        match self.name {
            "keys" => Ok(marks::data_in(&value, 0)),
            "items" | "dictsort" => with_marked_names(&value),
            _ => {
                // The number may be a field's, or a count of the data's items.
                if matches!(value.kind(), ValueKind::Number | ValueKind::Bool) {
                    marks::count_numbers_as_data();
                }
                Ok(value)
            }
        }
    }

    /// Returns whether the operation sees only the names of a map.
    fn sees_names_only(&self) -> bool {
        matches!(
            self.name,
            "list"
                | "first"
                | "last"
                | "min"
                | "max"
                | "sort"
                | "join"
                | "reverse"
                | "unique"
                | "batch"
                | "slice"
                | "map"
        )
    }

    /// Returns the items that a test selects. The test sees each item without its marks.
    fn choose(&self, state: &mut State<'_, '_>, receiver: &Value, args: &[Value]) -> Result<Value> {
        let args: Vec<Value> = args.iter().map(marks::bare).collect();
        let receiver = items_of(receiver.clone());
        let Ok(items) = receiver.try_iter() else { return self.run(state, &receiver, &args) };
        let mut chosen = Vec::new();
        for item in items.checked() {
            let item = item?;
            let alone = Value::from(vec![marks::bare(&item)]);
            if self.run(state, &alone, &args)?.len().unwrap_or(0) > 0 {
                chosen.push(item);
            }
        }
        Ok(Value::from(chosen))
    }

    /// Runs the operation on a text.
    fn carry_text(
        &self,
        state: &mut State<'_, '_>,
        receiver: &Value,
        args: &[Value],
    ) -> Result<Value> {
        let args_have_data = args.iter().any(marks::in_value)
            || marks::numbers_are_data() && args.iter().any(|arg| arg.as_str().is_none());
        let text = receiver.as_str().unwrap_or_default();
        if !marks::are_in(text) && !args_have_data {
            return self.run(state, receiver, args);
        }
        let label = marks::label_in(std::iter::once(receiver).chain(args));
        let text = Marked::read(text);
        let args: Vec<Value> = args.iter().map(marks::bare).collect();
        let value = self.run(state, &Value::from(text.text.as_str()), &args)?;
        let Some(result) = value.as_str() else { return Ok(data_of(&value, label)) };
        // Data among the arguments may be anywhere in the result.
        let kept = if args_have_data { None } else { self.keep_marks(&text, result, &args) };
        let data = || Marked::data(result.to_owned(), label);
        Ok(Value::from(kept.unwrap_or_else(data).write()))
    }

    /// Returns the result with the marks of `text`, if the origin of each of its letters is known.
    fn keep_marks(&self, text: &Marked, result: &str, args: &[Value]) -> Option<Marked> {
        let from_end = text.text.len().checked_sub(result.len());
        let kept = match self.name {
            // These change letters one by one.
            "upper" | "lower" | "title" | "capitalize" => return text.respelled(result),
            "lstrip" => text.slice(from_end?..text.text.len()),
            "rstrip" => text.slice(0..result.len()),
            "strip" | "trim" => {
                let start = text.text.find(result)?;
                text.slice(start..start + result.len())
            }
            "replace" => {
                let from = args.first()?.as_str().filter(|from| !from.is_empty())?;
                let to = args.get(1)?.as_str()?;
                let most =
                    args.get(2).and_then(Value::as_i64).and_then(|most| usize::try_from(most).ok());
                if args.get(2).is_some_and(Value::is_kwargs) {
                    return None;
                }
                text.replaced(from, to, most.unwrap_or(usize::MAX))
            }
            _ => return None,
        };
        (kept.text == result).then_some(kept)
    }
}

/// Returns keyword arguments made of `pairs`.
pub(crate) fn kwargs_of(pairs: Vec<(String, Value)>) -> Value {
    Value::from(pairs.into_iter().collect::<Kwargs>())
}
