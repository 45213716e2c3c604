//! Bounds on a render: its steps and bytes, and the size and depth of each value.
//!
//! The engine's fuel pays for instructions and for the bytes that they make. It does not pay for
//! walking a value (a list of one list twice, forty times over, is small in memory and endless to
//! print), for lazy lists, or for depth, which costs stack. This module walks those step by step
//! before the engine does.

use minijinja::value::{DynObject, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

/// The steps of a render, in the engine's fuel: one for an instruction, one for 64 bytes.
pub(crate) const FUEL: u64 = 2_000_000;
/// The most levels of nested lists and maps.
const MAX_DEPTH: usize = 200;
/// The most levels of nested macros, loops and blocks, as the engine counts: a macro is 4.
const MAX_RECURSION: usize = 200;
/// The largest number that a filter or method may fill, pad or indent by.
const MAX_WIDTH: i64 = 100_000;
const MAX_JSON_INDENT: i64 = 64;

/// Units of work: the value of one fuel, and the price of an item that is visited.
const UNITS: u64 = 64;
const ITEM: u64 = 32;

/// Sets the bounds on templates of `environment`.
pub(crate) fn install(environment: &mut Environment<'static>) {
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(MAX_RECURSION);
    // `debug` prints the engine's state.
    environment.remove_global("debug");
}

/// Returns the reason for dropping a record whose render took too much.
#[must_use]
pub(crate) fn out_of_fuel() -> String {
    format!(
        "it takes more than {FUEL} steps, or makes more than {} MiB of text and lists",
        (FUEL * UNITS) >> 20
    )
}

/// A counter that collects small amounts of work until they are worth one fuel.
struct Meter<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    units: u64,
}

impl Meter<'_, '_, '_> {
    /// Pays for `units` of work; returns an error when the fuel is used up.
    fn pay(&mut self, units: usize) -> Result<(), Error> {
        self.units = self.units.saturating_add(units as u64);
        if self.units >= UNITS {
            self.state.consume_fuel(self.units / UNITS)?;
            self.units %= UNITS;
        }
        Ok(())
    }
}

/// Pays for `units` of work, 64 to a step.
pub(crate) fn pay(state: &State<'_, '_>, units: usize) -> Result<(), Error> {
    Meter { state, units: 0 }.pay(units)
}

/// Returns the error about an operation beyond a bound.
fn bad(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, why.into())
}

/// Pays for walking all of `value`, with its text if `with_text`. Returns an error if it nests too
/// deep.
pub(crate) fn walk(state: &State<'_, '_>, value: &Value, with_text: bool) -> Result<(), Error> {
    walk_seeing(state, value, with_text, &mut |_| Ok(()))
}

/// Pays for storing a value in another. Refuses a namespace: it could come to hold itself.
pub(crate) fn keep(state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    let refuse_namespace = |object: &DynObject| {
        // The type is private to the engine: its name is all there is to see.
        let is_namespace = object.type_name().ends_with("::Namespace");
        if is_namespace {
            Err(bad("a namespace cannot be kept in a list, a map or a namespace"))
        } else {
            Ok(())
        }
    };
    walk_seeing(state, value, false, &mut { refuse_namespace })
}

/// Walks all of `value` and calls `see` with each object in it.
fn walk_seeing(
    state: &State<'_, '_>,
    value: &Value,
    with_text: bool,
    see: &mut dyn FnMut(&DynObject) -> Result<(), Error>,
) -> Result<(), Error> {
    if value.as_object().is_none() {
        return Ok(());
    }
    // An explicit stack: values nest deeper than the thread's stack may allow.
    let mut meter = Meter { state, units: 0 };
    let mut open = vec![(value.clone(), 1)];
    while let Some((value, depth)) = open.pop() {
        let Some(object) = value.as_object() else { continue };
        see(object)?;
        if depth > MAX_DEPTH {
            return Err(bad(format!("a value nests more than {MAX_DEPTH} deep")));
        }
        let mut visit = |item: Value| {
            let text = item.as_str().filter(|_| with_text).map_or(0, str::len);
            meter.pay(ITEM as usize + text)?;
            if item.as_object().is_some() {
                open.push((item, depth + 1));
            }
            Ok::<(), Error>(())
        };
        match value.kind() {
            ValueKind::Map => {
                for (key, item) in object.try_iter_pairs().into_iter().flatten() {
                    visit(key)?;
                    visit(item)?;
                }
            }
            ValueKind::Seq | ValueKind::Iterable => {
                for item in object.try_iter().into_iter().flatten() {
                    visit(item)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns `value` with nothing lazy in it: lists that the engine makes while they are read are
/// made here, and paid for.
pub(crate) fn solid(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    let Some(object) = value.as_object() else { return Ok(value) };
    // The engine joins lists and maps lazily, under a type it does not export.
    let is_merged = object.type_name().contains("::Merge");
    let mut meter = Meter { state, units: 0 };
    match value.kind() {
        ValueKind::Map if is_merged => {
            let mut pairs = Vec::new();
            for pair in object.try_iter_pairs().into_iter().flatten() {
                meter.pay(2 * ITEM as usize)?;
                pairs.push(pair);
            }
            Ok(Value::from_pairs(pairs))
        }
        ValueKind::Seq if !is_merged => Ok(value),
        ValueKind::Seq | ValueKind::Iterable => {
            let mut items = Vec::new();
            for item in value.try_iter()?.checked() {
                meter.pay(ITEM as usize)?;
                items.push(item?);
            }
            Ok(Value::from(items))
        }
        _ => Ok(value),
    }
}

/// The operations that look only at the first level of a list or a map.
const SHALLOW: [&str; 18] = [
    "length", "count", "first", "last", "default", "d", "items", "list", "batch", "slice",
    "reverse", "zip", "chain", "attr", "map", "keys", "values", "get",
];

/// Pays in advance for the filter or method `name` of `receiver` with `args`. Refuses operations
/// beyond a bound.
pub(crate) fn prepare(
    state: &State<'_, '_>,
    name: &str,
    receiver: &Value,
    args: &[Value],
) -> Result<(), Error> {
    for value in std::iter::once(receiver).chain(args) {
        // These touch each item once, whatever is in it.
        if SHALLOW.contains(&name) {
            pay(
                state,
                ITEM as usize * value.as_object().and_then(DynObject::enumerator_len).unwrap_or(0),
            )?;
        } else {
            walk(state, value, true)?;
        }
    }
    refuse_wide(name, args)?;
    // Some operations make more than they read: they pay for their result too.
    let text = receiver.as_str().unwrap_or_default();
    let first = args.first().and_then(Value::as_str);
    match name {
        "split" => {
            let pieces = match first {
                Some(separator) => text.matches(separator).count(),
                None => text.split_whitespace().count(),
            };
            pay(state, ITEM as usize * pieces)
        }
        "lines" | "splitlines" => pay(state, ITEM as usize * text.matches('\n').count()),
        "list" | "batch" | "slice" | "map" | "first" | "last" | "join" | "sort" | "unique" => {
            pay(state, ITEM as usize * text.len())
        }
        "escape" | "e" | "tojson" | "pprint" => pay(state, 8 * text.len()),
        "sum" => pay_for_sum(state, receiver),
        "format" => pay_for_format(state, text, args),
        _ => Ok(()),
    }
}

/// Pays for a sum. Adding texts or lists one by one copies the first ones again and again.
fn pay_for_sum(state: &State<'_, '_>, list: &Value) -> Result<(), Error> {
    let Ok(items) = list.try_iter() else { return Ok(()) };
    let mut sum = 0usize;
    for item in items {
        sum = sum.saturating_add(item.as_str().map_or_else(|| item.len().unwrap_or(0), str::len));
        pay(state, ITEM as usize + sum)?;
    }
    Ok(())
}

/// Pays for a format. Widths and precisions are digits in the format, or arguments named inside
/// braces.
fn pay_for_format(state: &State<'_, '_>, format: &str, args: &[Value]) -> Result<(), Error> {
    let mut widths = 0u64;
    for digits in format.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty()) {
        widths = widths.saturating_add(digits.parse().unwrap_or(u64::MAX));
    }
    let texts: usize = args.iter().filter_map(Value::as_str).map(str::len).sum();
    let fields = format.matches(['{', '%']).count();
    let mut numbers = Vec::new();
    for arg in args {
        numbers_in(arg, &mut numbers);
    }
    let widest = numbers.iter().copied().max().unwrap_or(0);
    // A width may be an argument: the largest number among them is the worst case.
    let named =
        format.matches(":{").count() + format.matches(".{").count() + format.matches('*').count();
    let bytes = widths.saturating_add((named as u64).saturating_mul(widest));
    let bytes = bytes.saturating_add((fields as u64).saturating_mul(texts as u64));
    state.consume_fuel(bytes.saturating_mul(4) / UNITS)
}

/// Collects the numbers in an argument: given by position, by name, or in a list.
fn numbers_in(value: &Value, numbers: &mut Vec<u64>) {
    if let Some(number) = value.as_i64() {
        numbers.push(number.unsigned_abs());
    } else if value.as_str().is_some() {
        // A text of digits can be a width too.
        numbers.extend(value.as_str().and_then(|text| text.parse::<u64>().ok()));
    } else if let Some(object) = value.as_object() {
        if value.kind() == ValueKind::Map {
            let items = object.try_iter_pairs().into_iter().flatten();
            numbers.extend(items.filter_map(|(_, item)| item.as_i64().map(i64::unsigned_abs)));
        } else {
            let items = object.try_iter().into_iter().flatten();
            numbers.extend(items.filter_map(|item| item.as_i64().map(i64::unsigned_abs)));
        }
    }
}

/// Refuses numbers that would make an operation fill, pad or indent without end.
fn refuse_wide(name: &str, args: &[Value]) -> Result<(), Error> {
    let most = match name {
        "tojson" => MAX_JSON_INDENT,
        "indent" | "batch" | "slice" | "center" | "ljust" | "rjust" | "zfill" | "expandtabs"
        | "wordwrap" => MAX_WIDTH,
        _ => return Ok(()),
    };
    for arg in args {
        let mut numbers = Vec::new();
        if arg.as_i64().is_some() || arg.is_kwargs() {
            numbers_in(arg, &mut numbers);
        }
        let is_text = name == "tojson" && arg.as_str().is_some_and(|text| text.len() as i64 > most);
        if is_text || numbers.iter().any(|&number| number > most as u64) {
            return Err(bad(format!("{name}: a number above {most}")));
        }
    }
    Ok(())
}
