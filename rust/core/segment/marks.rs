//! Marks: noncharacters around data while a template is rendered to find the origin of its text.
//!
//! Takes and gives texts and values of the engine, with marks or without. Data may carry a label,
//! a number that is written behind its first mark. Knows nothing of templates, or of the use of
//! the marks.

use std::cell::Cell;
use std::ops::Range;

use minijinja::Value;
use minijinja::value::ValueKind;

use super::operations::kwargs_of;

/// The bits of a label that one sign holds.
const SIGN_BITS: u32 = 3;

/// The characters of one render that no text of it holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signs {
    /// Stand at the start and at the end of data.
    edges: [char; 2],
    /// Write the labels; none where data has none.
    labels: Option<[char; 1 << SIGN_BITS]>,
    /// Stand around the text of `{% generation %}`, where it counts.
    generation: Option<[char; 2]>,
}

impl Signs {
    /// Returns the signs of data without labels.
    pub(crate) fn plain(edges: [char; 2]) -> Self {
        Self { edges, labels: None, generation: None }
    }

    /// Returns signs with labels and marks of generation; none if there are too few characters.
    pub(crate) fn labelled(mut free: impl Iterator<Item = char>) -> Option<Self> {
        let edges = [free.next()?, free.next()?];
        let generation = [free.next()?, free.next()?];
        let labels: Vec<char> = free.take(1 << SIGN_BITS).collect();
        let (labels, generation) = (Some(labels.try_into().ok()?), Some(generation));
        Some(Self { edges, labels, generation })
    }

    /// Returns the marks around the text of `{% generation %}`.
    pub(crate) fn generation(&self) -> Option<[char; 2]> {
        self.generation
    }

    /// Returns whether `c` marks data or is a part of a label.
    fn is_mark(&self, c: char) -> bool {
        self.edges.contains(&c) || self.labels.is_some_and(|signs| signs.contains(&c))
    }

    /// Returns `text` as data with a label.
    pub(crate) fn marked(&self, text: &str, label: u32) -> String {
        let mut out = String::with_capacity(text.len() + 16);
        self.push(text, label, &mut out);
        out
    }

    /// Appends `text` as data with a label.
    fn push(&self, text: &str, label: u32, out: &mut String) {
        out.push(self.edges[0]);
        if let Some(signs) = self.labels {
            let mut rest = label;
            while rest > 0 {
                out.push(signs[(rest & ((1 << SIGN_BITS) - 1)) as usize]);
                rest >>= SIGN_BITS;
            }
        }
        out.push_str(text);
        out.push(self.edges[1]);
    }
}

thread_local! {
    static NUMBERS: Cell<bool> = const { Cell::new(false) };
    static SIGNS: Cell<Signs> = const {
        let edges = ['\u{fdd0}', '\u{fdd1}'];
        Cell::new(Signs { edges, labels: None, generation: None })
    };
}

/// Returns whether numbers in the template's output count as data: a number carries no mark.
pub(crate) fn numbers_are_data() -> bool {
    NUMBERS.get()
}

/// Makes numbers count as data from here on in this render: one was made of data.
pub(crate) fn count_numbers_as_data() {
    NUMBERS.set(true);
}

/// Begins a render. `has_numbers` says whether the data holds numbers.
pub(crate) fn begin(has_numbers: bool, signs: Signs) {
    NUMBERS.set(has_numbers);
    SIGNS.set(signs);
}

/// Returns whether `text` holds marks.
pub(crate) fn are_in(text: &str) -> bool {
    find(text, SIGNS.get().edges).is_some()
}

/// Returns the place of the first of two marks in `text`. Few texts hold the bytes that marks begin
/// with, so that these are looked for.
pub(crate) fn find(text: &str, marks: [char; 2]) -> Option<usize> {
    let [first, second] = marks.map(|mark| mark.encode_utf8(&mut [0; 4]).as_bytes()[0]);
    memchr::memchr2_iter(first, second, text.as_bytes())
        .find(|&place| text[place..].starts_with(marks))
}

/// Returns `text` without marks.
fn without_marks(text: &str) -> String {
    let signs = SIGNS.get();
    match signs.labels {
        None => text.replace(signs.edges, ""),
        Some(_) => text.replace(|c| signs.is_mark(c), ""),
    }
}

/// Returns `text` between the marks of generation; as it is where these do not count.
pub(crate) fn generated(text: &str) -> String {
    match SIGNS.get().generation {
        Some([open, close]) => format!("{open}{text}{close}"),
        None => text.to_owned(),
    }
}

/// A stretch of data. One of no length is an empty string of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// The first byte.
    pub(crate) start: usize,
    /// The byte after the last.
    pub(crate) end: usize,
    /// The label; 0 for none.
    pub(crate) label: u32,
}

impl Stretch {
    /// Returns the bytes of the stretch.
    pub(crate) fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// Returns whether the stretch has no byte.
    fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

/// A text with the stretches of it that are data, in order and apart. An empty stretch is an empty
/// string of the data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Marked {
    /// The text without marks.
    pub(crate) text: String,
    /// The stretches of data.
    pub(crate) data: Vec<Stretch>,
    /// Whether some marks had no partner.
    torn: bool,
}

impl Marked {
    /// Returns a text of the template.
    pub(crate) fn plain(text: &str) -> Self {
        Self { text: text.to_owned(), ..Self::default() }
    }

    /// Returns a text of the data.
    pub(crate) fn data(text: String, label: u32) -> Self {
        Self { data: vec![Stretch { start: 0, end: text.len(), label }], text, torn: false }
    }

    /// Returns the label that all data of the text has; 0 if there is no such label.
    pub(crate) fn label(&self) -> u32 {
        let first = self.data.first().map_or(0, |data| data.label);
        if self.data.iter().all(|data| data.label == first) { first } else { 0 }
    }

    /// Reads a text with marks. If they do not pair, the whole text counts as data.
    pub(crate) fn read(marked: &str) -> Self {
        let mut out = Self { text: String::with_capacity(marked.len()), ..Self::default() };
        let signs = SIGNS.get();
        let [opening, closing] = signs.edges;
        let mut open = None;
        let mut rest = marked;
        // Marks are rare: the text between them is copied as a whole.
        while let Some(found) = find(rest, signs.edges) {
            out.text.push_str(&rest[..found]);
            let mark = rest[found..].chars().next().unwrap_or(closing);
            rest = &rest[found + mark.len_utf8()..];
            if mark == opening {
                out.torn |= open.is_some();
                let label = signs.labels.map_or(0, |signs| take_label(&mut rest, &signs));
                open = open.or(Some((out.text.len(), label)));
            } else {
                out.torn |= open.is_none();
                let (start, label) = open.take().unwrap_or_default();
                out.data.push(Stretch { start, end: out.text.len(), label });
            }
        }
        out.text.push_str(rest);
        out.torn |= open.is_some();
        if out.torn {
            out.data = vec![Stretch { start: 0, end: out.text.len(), label: 0 }];
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
        let signs = SIGNS.get();
        let mut from = 0;
        for data in &self.data {
            out.push_str(&self.text[from..data.start]);
            signs.push(&self.text[data.range()], data.label, &mut out);
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
            self.push_data(Stretch {
                start: start + cut.start - part.start,
                end: start + cut.end - part.start,
                label: data.label,
            });
        }
    }

    /// Appends a stretch of data; joins it to the last if they touch.
    fn push_data(&mut self, data: Stretch) {
        match self.data.last_mut() {
            Some(last)
                if last.end == data.start && last.label == data.label && !data.is_empty() =>
            {
                last.end = data.end;
            }
            _ if data.is_empty() => {}
            _ => self.data.push(data),
        }
    }

    /// Returns the text with `result` in its place, letter for letter; none if the letters do not
    /// correspond.
    pub(crate) fn respelled(&self, result: &str) -> Option<Self> {
        if self.data.len() == 1 && self.data[0].range() == (0..self.text.len()) {
            return Some(Self::data(result.to_owned(), self.data[0].label));
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
                out.push_data(Stretch { start, end: out.text.len(), label: part.label() });
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
            let replaced = self.slice(found..position);
            if !replaced.data.is_empty() {
                out.push_data(Stretch { start, end: out.text.len(), label: replaced.label() });
            }
        }
        out.push_slice(self, position..self.text.len());
        out
    }
}

/// Takes a label from the start of `rest`.
fn take_label(rest: &mut &str, signs: &[char; 1 << SIGN_BITS]) -> u32 {
    let (mut label, mut shift) = (0u32, 0);
    while let Some(first) = rest.chars().next()
        && let Some(digit) = signs.iter().position(|sign| *sign == first)
    {
        *rest = &rest[first.len_utf8()..];
        label |= (digit as u32).checked_shl(shift).unwrap_or(0);
        shift += SIGN_BITS;
    }
    label
}

/// Returns the label that all data in `values` has; 0 if there is no such label.
pub(crate) fn label_in<'a>(values: impl IntoIterator<Item = &'a Value>) -> u32 {
    if SIGNS.get().labels.is_none() {
        return 0;
    }
    let mut found = None;
    let mut see = |label: u32| match found {
        None => found = Some(label),
        Some(known) if known != label => found = Some(0),
        Some(_) => {}
    };
    values.into_iter().for_each(|value| labels_in(value, &mut see));
    found.unwrap_or(0)
}

/// Calls `see` with the label of each text of data in `value`.
fn labels_in(value: &Value, see: &mut dyn FnMut(u32)) {
    if let Some(text) = value.as_str() {
        let read = Marked::read(text);
        read.data.iter().for_each(|data| see(data.label));
        return;
    }
    let Some(object) = value.as_object() else { return };
    match value.kind() {
        ValueKind::Map => {
            object
                .try_iter_pairs()
                .into_iter()
                .flatten()
                .for_each(|(_, item)| labels_in(&item, see));
        }
        ValueKind::Seq | ValueKind::Iterable => {
            object.try_iter().into_iter().flatten().for_each(|item| labels_in(&item, see));
        }
        _ => {}
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

/// Returns `value` with all its texts marked as data with `label`.
pub(crate) fn data_in(value: &Value, label: u32) -> Value {
    let signs = SIGNS.get();
    changed(value, &|text| Value::from(signs.marked(&without_marks(text), label)), false)
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Signs of which no text of these tests holds any.
    fn signs() -> Signs {
        Signs::labelled('\u{fdd0}'..='\u{fdef}').unwrap()
    }

    proptest! {
        #[test]
        fn labels_are_read_as_they_were_written(
            parts in prop::collection::vec(("[a-zẹ<]{0,4}", "[a-zọ<]{1,4}", 0u32..u32::MAX), 0..6),
            start in 0usize..40,
            len in 0usize..40,
        ) {
            begin(false, signs());
            let mut written = String::new();
            let mut expected = Marked::default();
            for (literal, data, label) in &parts {
                written += literal;
                written += &signs().marked(data, *label);
                expected.text += literal;
                let at = expected.text.len();
                expected.text += data;
                expected.data.push(Stretch { start: at, end: expected.text.len(), label: *label });
            }
            let read = Marked::read(&written);
            prop_assert_eq!(&read, &expected);
            prop_assert_eq!(Marked::read(&read.write()), read.clone());
            prop_assert_eq!(without_marks(&written), read.text.as_str());
            let edges = signs().edges;
            prop_assert_eq!(find(&written, edges), written.find(edges));
            // A slice has the labels of its letters.
            let end = (start + len).min(read.text.len());
            let is_cut = |index: usize| read.text.is_char_boundary(index);
            if start <= end && is_cut(start) && is_cut(end) {
                let label = |marked: &Marked, index: usize| {
                    let data = marked.data.iter().find(|data| data.range().contains(&index));
                    data.map(|data| data.label)
                };
                let slice = read.slice(start..end);
                for index in start..end {
                    prop_assert_eq!(label(&slice, index - start), label(&read, index));
                }
            }
        }
    }
}
