//! `Reading`: the start of a delimited file, read in one way: how regular its records are, and what
//! its quotes do.
//!
//! Stricter than the readers of `formats/`, which take whatever there is: here a quote in the wrong
//! place is a fault, because it tells that quotes are text.

/// What one way of reading makes of a sample.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Fields of each record.
    widths: Vec<usize>,
    /// Quotes where no writer of quoted files puts them.
    pub(super) faults: usize,
    /// Fields in quotes that hold a quote written twice.
    pub(super) doubled: usize,
    /// Fields in quotes that hold a delimiter or an end of line.
    pub(super) grouping: usize,
    /// Whether all fields of the first record are in quotes.
    pub(super) is_header_quoted: bool,
}

impl Reading {
    /// Reads a sample without quoting. An unfinished last line is left out.
    pub(super) fn raw(sample: &[u8], delimiter: u8, is_whole: bool) -> Self {
        let mut lines: Vec<&[u8]> = sample.split(|byte| *byte == b'\n').collect();
        if !is_whole {
            lines.pop();
        }
        let width = |line: &&[u8]| 1 + memchr::memchr_iter(delimiter, line).count();
        lines.retain(|line| !line.strip_suffix(b"\r").unwrap_or(line).is_empty());
        Self { widths: lines.iter().map(width).collect(), ..Self::default() }
    }

    /// Reads a sample as RFC 4180 says. An unfinished last record is left out.
    pub(super) fn quoted(sample: &[u8], delimiter: u8, is_whole: bool) -> Self {
        let mut reading = Self::default();
        let mut rest = sample;
        let (mut width, mut quoted) = (0, 0);
        while !rest.is_empty() {
            if width == 0 && is_line_end(rest[0]) {
                rest = &rest[1..];
                continue;
            }
            let field = Field::read(rest, delimiter);
            let ends_sample = field.len == rest.len();
            if ends_sample && !is_whole {
                // A field that takes half of the sample was most likely opened by a stray quote.
                reading.faults +=
                    usize::from(field.end == End::Open && field.len > sample.len() / 2);
                break;
            }
            reading.faults += usize::from(field.end != End::Proper);
            reading.doubled += usize::from(field.is_quoted && field.has_doubled);
            reading.grouping += usize::from(field.is_quoted && field.has_separator);
            quoted += usize::from(field.is_quoted);
            width += 1;
            rest = &rest[field.len..];
            let is_end = rest.first().is_none_or(|byte| is_line_end(*byte));
            if is_end {
                reading.is_header_quoted |= reading.widths.is_empty() && quoted == width;
                reading.widths.push(std::mem::take(&mut width));
            } else {
                rest = &rest[1..];
                // A delimiter at the very end of the sample opens one more field.
                if rest.is_empty() && is_whole {
                    reading.widths.push(width + 1);
                }
            }
        }
        reading
    }

    /// Returns the number of fields of the first record.
    pub(super) fn width(&self) -> usize {
        self.widths.first().copied().unwrap_or_default()
    }

    /// Returns the share of records with `width` fields, the first one aside if there are others.
    pub(super) fn share_of(&self, width: usize) -> f64 {
        let others = if self.widths.len() > 1 { &self.widths[1..] } else { &self.widths };
        let equal = others.iter().filter(|other| **other == width).count();
        equal as f64 / others.len().max(1) as f64
    }
}

/// Returns whether a byte ends a record.
fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// A field of a sample.
#[derive(Debug, Default)]
struct Field {
    /// Its bytes up to the delimiter or the end of line, which is not counted.
    len: usize,
    end: End,
    is_quoted: bool,
    has_doubled: bool,
    has_separator: bool,
}

/// The way in which a field ends.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum End {
    #[default]
    Proper,
    /// Its quote is not closed.
    Open,
    /// A quote is where none belongs.
    Faulty,
}

impl Field {
    /// Reads the field that `rest` begins with.
    fn read(rest: &[u8], delimiter: u8) -> Self {
        let is_end = |byte: &u8| *byte == delimiter || is_line_end(*byte);
        let len =
            |from: usize| from + rest[from..].iter().position(is_end).unwrap_or(rest.len() - from);
        if rest[0] != b'"' {
            let len = len(0);
            let is_proper = !rest[..len].contains(&b'"');
            let end = if is_proper { End::Proper } else { End::Faulty };
            return Self { len, end, ..Self::default() };
        }
        let mut field = Self { is_quoted: true, ..Self::default() };
        let mut start = 1;
        loop {
            let Some(inner) = memchr::memchr(b'"', &rest[start..]) else {
                return Self { len: rest.len(), end: End::Open, ..field };
            };
            field.has_separator |= rest[start..start + inner].iter().any(is_end);
            let after = start + inner + 1;
            match rest.get(after) {
                Some(b'"') => {
                    field.has_doubled = true;
                    start = after + 1;
                }
                Some(byte) if !is_end(byte) => {
                    return Self { len: len(after), end: End::Faulty, ..field };
                }
                _ => return Self { len: after, ..field },
            }
        }
    }
}

/// Returns the fields of the first record of a sample, without quotes around them.
pub(super) fn first_fields(sample: &[u8], delimiter: u8, is_quoted: bool) -> Vec<Vec<u8>> {
    let start = sample.iter().take_while(|byte| is_line_end(**byte)).count();
    let mut rest = &sample[start..];
    let mut names = Vec::new();
    if rest.is_empty() {
        return names;
    }
    loop {
        let end =
            |rest: &[u8]| rest.iter().position(|byte| *byte == delimiter || is_line_end(*byte));
        let len = match rest.first() {
            Some(b'"') if is_quoted => Field::read(rest, delimiter).len,
            _ => end(rest).unwrap_or(rest.len()),
        };
        let name = &rest[..len];
        let inner = name.strip_prefix(b"\"").and_then(|name| name.strip_suffix(b"\""));
        names.push(inner.filter(|_| is_quoted).unwrap_or(name).to_vec());
        match rest.get(len) {
            Some(byte) if *byte == delimiter => rest = &rest[len + 1..],
            _ => return names,
        }
    }
}
