//! Marks: noncharacters around data while a template is rendered to find the origin of its text.
//!
//! Takes and gives texts and values of the engine, with marks or without. Knows nothing of
//! templates, or of the use of the marks.

use std::cell::Cell;
use std::ops::Range;

use minijinja::Value;
use minijinja::value::ValueKind;

use super::operations::kwargs_of;

thread_local! {
    static NUMBERS: Cell<bool> = const { Cell::new(false) };
    static MARKS: Cell<[char; 2]> = const { Cell::new(['\u{fdd0}', '\u{fdd1}']) };
}

/// Returns whether numbers in the template's output count as data: a number carries no mark.
pub(crate) fn numbers_are_data() -> bool {
    NUMBERS.get()
}

/// Makes numbers count as data from here on in this render: one was made of data.
pub(crate) fn count_numbers_as_data() {
    NUMBERS.set(true);
}

/// Begins a render. `has_numbers` says whether the data holds numbers; `marks` are the characters
/// at the start and at the end of data.
pub(crate) fn begin(has_numbers: bool, marks: [char; 2]) {
    NUMBERS.set(has_numbers);
    MARKS.set(marks);
}

/// Returns whether `text` holds marks.
pub(crate) fn are_in(text: &str) -> bool {
    text.contains(MARKS.get())
}

/// Returns `text` without marks.
fn without_marks(text: &str) -> String {
    text.replace(MARKS.get(), "")
}

/// A text with the stretches of it that are data, in order and apart. An empty stretch is an empty
/// string of the data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Marked {
    /// The text without marks.
    pub(crate) text: String,
    /// The stretches of data.
    pub(crate) data: Vec<Range<usize>>,
    /// Whether some marks had no partner.
    torn: bool,
}

impl Marked {
    /// Returns a text of the template.
    pub(crate) fn plain(text: &str) -> Self {
        Self { text: text.to_owned(), ..Self::default() }
    }

    /// Returns a text of the data.
    pub(crate) fn data(text: String) -> Self {
        Self { data: vec![0..text.len()], text, torn: false }
    }

    /// Reads a text with marks. If they do not pair, the whole text counts as data.
    pub(crate) fn read(marked: &str) -> Self {
        let mut out = Self { text: String::with_capacity(marked.len()), ..Self::default() };
        let [opening, closing] = MARKS.get();
        let mut open = None;
        for c in marked.chars() {
            match c {
                _ if c == opening => {
                    out.torn |= open.is_some();
                    open = open.or(Some(out.text.len()));
                }
                _ if c == closing => {
                    out.torn |= open.is_none();
                    let start = open.take().unwrap_or(0);
                    out.data.push(start..out.text.len());
                }
                other => out.text.push(other),
            }
        }
        if let Some(start) = open {
            out.torn = true;
            out.data.push(start..out.text.len());
        }
        if out.torn {
            out.data = vec![0..out.text.len()];
        }
        out
    }

    /// Returns whether each mark had its partner.
    pub(crate) fn is_whole(&self) -> bool {
        !self.torn
    }

    /// Returns the text with marks.
    pub(crate) fn write(&self) -> String {
        let mut out = String::with_capacity(self.text.len() + 6 * self.data.len());
        let [opening, closing] = MARKS.get();
        let mut from = 0;
        for data in &self.data {
            out.push_str(&self.text[from..data.start]);
            out.push(opening);
            out.push_str(&self.text[data.clone()]);
            out.push(closing);
            from = data.end;
        }
        out.push_str(&self.text[from..]);
        out
    }

    /// Returns a part of the text.
    pub(crate) fn slice(&self, part: Range<usize>) -> Self {
        let mut out = Self::default();
        out.push_slice(self, part);
        out
    }

    /// Appends a part of another text.
    pub(crate) fn push_slice(&mut self, other: &Self, part: Range<usize>) {
        let start = self.text.len();
        self.text.push_str(&other.text[part.clone()]);
        // Stretches are in order, so the first one is found by halving.
        let first = other.data.partition_point(|data| data.end <= part.start);
        for data in &other.data[first..] {
            if data.start >= part.end {
                break;
            }
            let cut = data.start.max(part.start)..data.end.min(part.end);
            self.push_data(start + cut.start - part.start..start + cut.end - part.start);
        }
    }

    /// Appends a stretch of data; joins it to the last if they touch.
    fn push_data(&mut self, data: Range<usize>) {
        match self.data.last_mut() {
            Some(last) if last.end == data.start && !data.is_empty() => last.end = data.end,
            _ if data.is_empty() => {}
            _ => self.data.push(data),
        }
    }

    /// Returns the text with `result` in its place, letter for letter; none if the letters do not
    /// correspond.
    pub(crate) fn respelled(&self, result: &str) -> Option<Self> {
        if self.data.len() == 1 && self.data[0] == (0..self.text.len()) {
            return Some(Self::data(result.to_owned()));
        }
        // A letter that became two (`ß` to `SS`) leaves the others out of step.
        if self.text.chars().count() != result.chars().count() {
            return None;
        }
        let mut out = Self::default();
        for ((position, old), new) in self.text.char_indices().zip(result.chars()) {
            let start = out.text.len();
            out.text.push(new);
            let part = self.slice(position..position + old.len_utf8());
            if !part.data.is_empty() {
                out.push_data(start..out.text.len());
            }
        }
        Some(out)
    }

    /// Returns the text with the first `most` occurrences of `from` replaced. A replacement counts
    /// as data if the replaced text held data.
    pub(crate) fn replaced(&self, from: &str, to: &str, most: usize) -> Self {
        let (mut out, mut position) = (Self::default(), 0);
        for (found, _) in self.text.match_indices(from).take(most) {
            out.push_slice(self, position..found);
            let start = out.text.len();
            out.text.push_str(to);
            position = found + from.len();
            if !self.slice(found..position).data.is_empty() {
                out.push_data(start..out.text.len());
            }
        }
        out.push_slice(self, position..self.text.len());
        out
    }
}

/// Returns whether `value` holds marks anywhere.
pub(crate) fn in_value(value: &Value) -> bool {
    if let Some(text) = value.as_str() {
        return are_in(text);
    }
    let Some(object) = value.as_object() else { return false };
    match value.kind() {
        ValueKind::Map => object
            .try_iter_pairs()
            .into_iter()
            .flatten()
            .any(|(key, item)| in_value(&key) || in_value(&item)),
        ValueKind::Seq | ValueKind::Iterable => {
            object.try_iter().into_iter().flatten().any(|item| in_value(&item))
        }
        _ => false,
    }
}

/// Returns `value` without marks.
pub(crate) fn bare(value: &Value) -> Value {
    if !in_value(value) {
        return value.clone();
    }
    changed(value, &|text| Value::from(without_marks(text)), true)
}

/// Returns `value` with all its texts marked as data.
pub(crate) fn data_in(value: &Value) -> Value {
    changed(value, &|text| Value::from(Marked::data(without_marks(text)).write()), false)
}

/// Returns `value` with its texts passed through `change`; with `names`, the keys of maps too.
fn changed(value: &Value, change: &dyn Fn(&str) -> Value, names: bool) -> Value {
    if let Some(text) = value.as_str() {
        return change(text);
    }
    let Some(object) = value.as_object() else { return value.clone() };
    // Names stay as they are when data is marked: lookups compare them.
    let name = |key: Value| if names { changed(&key, change, names) } else { key };
    match value.kind() {
        ValueKind::Map => {
            let pairs = object.try_iter_pairs().into_iter().flatten();
            let pairs = pairs.map(|(key, item)| (name(key), changed(&item, change, names)));
            // Keyword arguments must stay what they are, or the call would get a map.
            if value.is_kwargs() {
                return kwargs_of(pairs.map(|(key, item)| (key.to_string(), item)).collect());
            }
            Value::from_pairs(pairs)
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = object
                .try_iter()
                .into_iter()
                .flatten()
                .map(|item| changed(&item, change, names))
                .collect();
            if value.is_tuple() {
                Value::from(minijinja::value::Tuple::from(items))
            } else {
                Value::from(items)
            }
        }
        _ => value.clone(),
    }
}
