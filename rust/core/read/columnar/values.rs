//! Values of Arrow's arrays, as `to_pylist` of pyarrow gives them and JSON can hold them.
//!
//! Dates, times and timestamps are ISO 8601 text, decimals the text of their digits, numbers that
//! are not finite null, maps lists of pairs. Binary values, durations and unions have no text that
//! all would agree on: they cost the record only where a template shows them.

use arrow_array::cast::AsArray;
use arrow_array::timezone::Tz;
use arrow_array::types::{
    ArrowPrimitiveType, ArrowTemporalType, ArrowTimestampType, Date32Type, Date64Type,
    Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, Float16Type,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, RunEndIndexType,
    Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, FixedSizeListArray, PrimitiveArray, StructArray, temporal_conversions};
use arrow_schema::{DataType, TimeUnit};

use crate::read::json::{Fields, Number, Value};
use crate::read::lines::MAX_LINE;

/// The deepest nesting of lists and structs.
const MAX_DEPTH: usize = 64;
/// A timestamp to the second in ISO 8601.
const SECONDS: &str = "%Y-%m-%dT%H:%M:%S";
/// What a value counts beside its text.
const VALUE: usize = 4;

/// Returns the value of a column in `row`, which is within the column.
pub(super) fn column_value(column: &dyn Array, row: usize) -> Value {
    let mut room = Room { left: MAX_LINE, depth: 0 };
    let too_long = || Value::Unreadable(format!("is longer than {} MiB", MAX_LINE >> 20));
    room.value(column, row).unwrap_or_else(too_long)
}

/// Returns the reason why values of a type are no text; `None` if they may be.
pub(in crate::read) fn refusal(kind: &DataType) -> Option<&'static str> {
    Some(match kind {
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => "is binary, not text",
        DataType::Duration(_) | DataType::Interval(_) => "is a duration, not text",
        DataType::Union(..) => "is a union of types, which is not read",
        _ => return None,
    })
}

/// Returns the columns that a type is made of, each with why it is not read: it is binary, say, and
/// lies in no list, which has to be read whole.
pub(in crate::read) fn leaves_of(kind: &DataType) -> Vec<Option<&'static str>> {
    fn add(kind: &DataType, in_list: bool, out: &mut Vec<Option<&'static str>>) {
        match kind {
            DataType::Struct(fields) => {
                fields.iter().for_each(|field| add(field.data_type(), in_list, out));
            }
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::LargeListView(item)
            | DataType::FixedSizeList(item, _)
            | DataType::Map(item, _) => add(item.data_type(), true, out),
            DataType::Dictionary(_, values) => add(values, in_list, out),
            kind => out.push(refusal(kind).filter(|_| !in_list)),
        }
    }
    let mut leaves = Vec::new();
    add(kind, false, &mut leaves);
    leaves
}

/// The room that is left for the value of a column.
struct Room {
    left: usize,
    depth: usize,
}

impl Room {
    /// Takes the room of `bytes`; `None` where too little is left.
    fn take(&mut self, bytes: usize) -> Option<()> {
        self.left = self.left.checked_sub(bytes)?;
        Some(())
    }

    /// Returns a text.
    fn text(&mut self, text: &str) -> Option<Value> {
        self.take(text.len())?;
        Some(Value::from(text))
    }

    /// Returns the value of `array` in `row`; `None` if it is too long or too deep.
    fn value(&mut self, array: &dyn Array, row: usize) -> Option<Value> {
        self.take(VALUE)?;
        if array.is_null(row) {
            return Some(Value::Null);
        }
        match array.data_type() {
            DataType::Null => Some(Value::Null),
            DataType::Boolean => Some(Value::Bool(array.as_boolean().value(row))),
            DataType::Utf8 => self.text(array.as_string::<i32>().value(row)),
            DataType::LargeUtf8 => self.text(array.as_string::<i64>().value(row)),
            DataType::Utf8View => self.text(array.as_string_view().value(row)),
            DataType::Dictionary(..) | DataType::RunEndEncoded(..) => self.inner(array, row),
            kind if kind.is_nested() => self.inner(array, row),
            kind => Some(match refusal(kind) {
                Some(why) => Value::Unreadable(why.to_owned()),
                None => plain(array, row),
            }),
        }
    }

    /// Returns the value of a list, a struct, or of an index of other values.
    fn inner(&mut self, array: &dyn Array, row: usize) -> Option<Value> {
        if self.depth == MAX_DEPTH {
            return None;
        }
        self.depth += 1;
        let value = match array.data_type() {
            DataType::List(_) => self.list(&array.as_list::<i32>().value(row)),
            DataType::LargeList(_) => self.list(&array.as_list::<i64>().value(row)),
            DataType::ListView(_) => self.list(&array.as_list_view::<i32>().value(row)),
            DataType::LargeListView(_) => self.list(&array.as_list_view::<i64>().value(row)),
            DataType::FixedSizeList(..) => {
                let array: &FixedSizeListArray = array.as_fixed_size_list();
                self.list(&array.value(row))
            }
            DataType::Struct(_) => self.object(array.as_struct(), row),
            DataType::Map(..) => self.pairs(&array.as_map().value(row)),
            DataType::Dictionary(..) => {
                let dictionary = array.as_any_dictionary();
                let index = dictionary.normalized_key(row)?;
                self.value(dictionary.values(), index)
            }
            DataType::RunEndEncoded(ends, _) => match ends.data_type() {
                DataType::Int16 => self.run::<Int16Type>(array, row),
                DataType::Int32 => self.run::<Int32Type>(array, row),
                _ => self.run::<Int64Type>(array, row),
            },
            kind => Some(Value::Unreadable(refusal(kind).unwrap_or("is no text").to_owned())),
        };
        self.depth -= 1;
        value
    }

    /// Returns a list of all values of `items`.
    fn list(&mut self, items: &dyn Array) -> Option<Value> {
        self.take(items.len().checked_mul(VALUE)?)?;
        let mut values = Vec::with_capacity(items.len());
        for row in 0..items.len() {
            values.push(self.value(items, row)?);
        }
        Some(Value::Array(values))
    }

    /// Returns the fields of a struct.
    fn object(&mut self, array: &StructArray, row: usize) -> Option<Value> {
        let mut fields = Fields::with_capacity(array.num_columns());
        for (name, column) in array.column_names().into_iter().zip(array.columns()) {
            self.take(name.len())?;
            fields.insert(name.to_owned(), self.value(column, row)?);
        }
        Some(Value::Object(fields))
    }

    /// Returns the entries of a map as lists of two.
    fn pairs(&mut self, entries: &StructArray) -> Option<Value> {
        let mut pairs = Vec::new();
        for row in 0..entries.len() {
            let pair = entries.columns().iter().map(|column| self.value(column, row));
            pairs.push(Value::Array(pair.collect::<Option<_>>()?));
        }
        Some(Value::Array(pairs))
    }

    /// Returns the value of the run in which `row` lies.
    fn run<R: RunEndIndexType>(&mut self, array: &dyn Array, row: usize) -> Option<Value> {
        let array = array.as_run::<R>();
        self.value(array.values(), array.get_physical_index(row))
    }
}

/// The index of a dictionary's value.
trait Keys {
    /// Returns the index of the value in `row`; `None` if it is outside.
    fn normalized_key(&self, row: usize) -> Option<usize>;
}

impl Keys for &dyn arrow_array::AnyDictionaryArray {
    fn normalized_key(&self, row: usize) -> Option<usize> {
        let one = self.keys().slice(row, 1);
        let index = match plain(&one, 0) {
            Value::Number(Number::Int(index)) => usize::try_from(index).ok()?,
            _ => return None,
        };
        (index < self.values().len()).then_some(index)
    }
}

/// Returns a number, a date or a time.
fn plain(array: &dyn Array, row: usize) -> Value {
    fn int<T: ArrowPrimitiveType<Native: Into<i128>>>(array: &dyn Array, row: usize) -> Value {
        Value::Number(Number::Int(array.as_primitive::<T>().value(row).into()))
    }
    fn decimal<T: DecimalType + ArrowPrimitiveType>(array: &dyn Array, row: usize) -> Value {
        Value::String(array.as_primitive::<T>().value_as_string(row))
    }
    match array.data_type() {
        DataType::Int8 => int::<Int8Type>(array, row),
        DataType::Int16 => int::<Int16Type>(array, row),
        DataType::Int32 => int::<Int32Type>(array, row),
        DataType::Int64 => int::<Int64Type>(array, row),
        DataType::UInt8 => int::<UInt8Type>(array, row),
        DataType::UInt16 => int::<UInt16Type>(array, row),
        DataType::UInt32 => int::<UInt32Type>(array, row),
        DataType::UInt64 => int::<UInt64Type>(array, row),
        DataType::Float16 => float(array.as_primitive::<Float16Type>().value(row).to_f64()),
        DataType::Float32 => float(array.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal32(..) => decimal::<Decimal32Type>(array, row),
        DataType::Decimal64(..) => decimal::<Decimal64Type>(array, row),
        DataType::Decimal128(..) => decimal::<Decimal128Type>(array, row),
        DataType::Decimal256(..) => decimal::<Decimal256Type>(array, row),
        DataType::Date32 => {
            let date = array.as_primitive::<Date32Type>().value_as_date(row);
            iso(date.map(|date| date.format("%Y-%m-%d").to_string()))
        }
        DataType::Date64 => {
            let date = array.as_primitive::<Date64Type>().value_as_date(row);
            iso(date.map(|date| date.format("%Y-%m-%d").to_string()))
        }
        DataType::Time32(TimeUnit::Second) => time::<Time32SecondType>(array, row),
        DataType::Time32(_) => time::<Time32MillisecondType>(array, row),
        DataType::Time64(TimeUnit::Microsecond) => time::<Time64MicrosecondType>(array, row),
        DataType::Time64(_) => time::<Time64NanosecondType>(array, row),
        DataType::Timestamp(unit, zone) => {
            let zone = zone.as_deref();
            match unit {
                TimeUnit::Second => timestamp::<TimestampSecondType>(array, row, zone),
                TimeUnit::Millisecond => timestamp::<TimestampMillisecondType>(array, row, zone),
                TimeUnit::Microsecond => timestamp::<TimestampMicrosecondType>(array, row, zone),
                TimeUnit::Nanosecond => timestamp::<TimestampNanosecondType>(array, row, zone),
            }
        }
        _ => Value::Unreadable("is of a type that is not read".to_owned()),
    }
}

/// Returns a float; null for one that is not finite, as in JSON.
fn float(value: f64) -> Value {
    if value.is_finite() { Value::Number(Number::Float(value)) } else { Value::Null }
}

/// Returns a date or a time in ISO 8601; refuses a year that has more than four digits.
fn iso(text: Option<String>) -> Value {
    match text.filter(|text| !text.starts_with(['-', '+'])) {
        Some(text) => Value::String(text),
        None => Value::Unreadable("is a time outside of the years 0 to 9999".to_owned()),
    }
}

/// Returns a fraction of a second as Python writes it: six digits if there is one, nine if six do
/// not hold it.
fn fraction(nanoseconds: u32) -> String {
    match nanoseconds {
        0 => String::new(),
        nanoseconds if nanoseconds % 1000 == 0 => format!(".{:06}", nanoseconds / 1000),
        nanoseconds => format!(".{nanoseconds:09}"),
    }
}

/// Returns the nanoseconds that a time shows after its seconds.
fn nanoseconds(shown: &str) -> u32 {
    shown.parse().unwrap_or(0)
}

/// Returns a time of day.
fn time<T>(array: &dyn Array, row: usize) -> Value
where
    T: ArrowPrimitiveType<Native: Into<i64>> + ArrowTemporalType,
    i64: From<T::Native>,
{
    let array: &PrimitiveArray<T> = array.as_primitive();
    let time = array.value_as_time(row);
    iso(time.map(|time| {
        let fraction = fraction(nanoseconds(&time.format("%9f").to_string()));
        format!("{}{fraction}", time.format("%H:%M:%S"))
    }))
}

/// Returns a timestamp, in its time zone if it has one.
fn timestamp<T: ArrowTimestampType>(array: &dyn Array, row: usize, zone: Option<&str>) -> Value {
    let value = array.as_primitive::<T>().value(row);
    let Some(zone) = zone else {
        let moment = temporal_conversions::as_datetime::<T>(value);
        return iso(moment.map(|moment| {
            let fraction = fraction(nanoseconds(&moment.format("%9f").to_string()));
            format!("{}{fraction}", moment.format(SECONDS))
        }));
    };
    // Without a table of time zones a name is the instant in UTC.
    let zone: Option<Tz> = zone.parse().or_else(|_| "+00:00".parse()).ok();
    let moment =
        zone.and_then(|zone| temporal_conversions::as_datetime_with_timezone::<T>(value, zone));
    iso(moment.map(|moment| {
        let fraction = fraction(nanoseconds(&moment.format("%9f").to_string()));
        format!("{}{fraction}{}", moment.format(SECONDS), moment.format("%:z"))
    }))
}
