//! Dialects of CSV and TSV: whether quotes group the text of a field, and the character between
//! fields. Found from samples of a source's files where its configuration does not say them.
//!
//! Takes the start of each file; gives the format and the options that are to be read by. A file
//! whose dialect is not clear is an error, never a guess.

use std::io::{self, Read};
use std::path::Path;

use super::decoded::Decoded;
use super::encoding::Encoding;
use super::format::{FormatName, FormatOptions};
use super::sample::{Reading, first_fields};
use crate::error::{Error, Result};
use crate::storage::{BOM, Storage, unreadable};

/// The number of bytes that are read of each file, if the files are few.
const SAMPLE: u64 = 256 << 10;
/// The least number of bytes that are read of each file.
const LEAST_SAMPLE: u64 = 16 << 10;
/// The number of files that are read up to [`SAMPLE`].
const FEW_FILES: u64 = 64;
/// Characters between fields of files named `.csv`, the usual one first.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// A file whose dialect is to be found: its path, and its name in errors.
pub(crate) type Named<'a> = (&'a Path, &'a str);

/// What a file says about its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quotes {
    /// Quotes are text.
    Text,
    /// Quotes are around fields, without doubt.
    Around,
    /// Either may be.
    Unclear,
}

/// Finds the dialect of the files of a source. Returns the format and the options to read them by.
///
/// `is_given` tells whether the source names the format: then only the delimiter of quoted files
/// is found, and only where the source does not name it. Files of other formats have no dialect.
pub(crate) fn resolve_dialect(
    storage: &dyn Storage,
    (format, is_given): (FormatName, bool),
    mut options: FormatOptions,
    files: &[Named<'_>],
) -> Result<(FormatName, FormatOptions)> {
    let delimited = [FormatName::find("tsv"), FormatName::find("csv")];
    let [Some(raw), Some(quoted)] = delimited else { return Ok((format, options)) };
    if format != raw && format != quoted || options.delimiter.is_some() {
        return Ok((format, options));
    }
    let size = (SAMPLE * FEW_FILES / (files.len() as u64).max(1)).clamp(LEAST_SAMPLE, SAMPLE);
    let encoding = options.encoding;
    let samples_of =
        |size: u64| files.iter().map(move |file| Sample::read(storage, *file, encoding, size));
    let samples = || samples_of(size);
    let mut format = format;
    if format == raw && !is_given && quotes_of(samples(), &options)? {
        format = quoted;
        options.delimiter = Some("\t".to_owned());
    } else if format == quoted {
        let found = delimiter_of(samples(), &options, is_given)?;
        options.delimiter = found.map(|byte| char::from(byte).to_string());
    }
    if files.len() > 1 && options.columns.is_none() {
        refuse_other_headers(samples_of(LEAST_SAMPLE), format == quoted, &options)?;
    }
    Ok((format, options))
}

/// Returns the dialect of a source in words; `None` for a format without dialects.
pub(crate) fn dialect_in_words(format: FormatName, options: &FormatOptions) -> Option<String> {
    let quoting = match format.get().name() {
        "tsv" => return Some("raw, tab between fields".to_owned()),
        "csv" => "quoted",
        _ => return None,
    };
    let delimiter = match options.delimiter.as_deref() {
        None | Some(",") => "comma".to_owned(),
        Some(";") => "semicolon".to_owned(),
        Some("\t") => "tab".to_owned(),
        Some("|") => "bar".to_owned(),
        Some(other) => format!("'{}'", other.escape_default()),
    };
    Some(format!("{quoting}, {delimiter} between fields"))
}

/// Returns the delimiter that the first line of a content states, as Excel writes one (`sep=;`), and
/// the bytes of that line.
pub(super) fn stated_delimiter(content: &[u8]) -> Option<(u8, usize)> {
    let rest = content.strip_prefix(b"sep=").or_else(|| content.strip_prefix(b"SEP="))?;
    let (&delimiter, rest) = rest.split_first().filter(|(byte, _)| !b"\"\r\n".contains(byte))?;
    let end = [&b"\r\n"[..], b"\n", b"\r"].into_iter().find(|end| rest.starts_with(end))?;
    delimiter.is_ascii().then_some((delimiter, "sep=;".len() + end.len()))
}

/// The start of a file.
struct Sample<'a> {
    name: &'a str,
    bytes: Vec<u8>,
    /// Whether the sample is the whole file.
    is_whole: bool,
    /// The delimiter that its first line states.
    stated: Option<u8>,
}

impl<'a> Sample<'a> {
    /// Reads at most `size` bytes of a file of `encoding`, in UTF-8 and without a byte order mark.
    fn read(
        storage: &dyn Storage,
        (path, name): Named<'a>,
        encoding: Option<Encoding>,
        size: u64,
    ) -> Result<Self> {
        let mut bytes = Vec::new();
        let failed = |error: io::Error| unreadable(path, 0, &error);
        let content = storage.open_content(path, 0)?;
        Decoded::open(encoding.unwrap_or(Encoding::Utf8), content)
            .map_err(failed)?
            .take(size)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        let is_whole = (bytes.len() as u64) < size;
        if bytes.starts_with(BOM) {
            bytes.drain(..BOM.len());
        }
        let stated = stated_delimiter(&bytes);
        bytes.drain(..stated.map_or(0, |(_, len)| len));
        Ok(Self { name, bytes, is_whole, stated: stated.map(|(delimiter, _)| delimiter) })
    }

    /// Reads the sample as quoted records with this delimiter.
    fn quoted(&self, delimiter: u8) -> Reading {
        Reading::quoted(&self.bytes, delimiter, self.is_whole)
    }

    /// Returns what the sample says about quotes, where a tab is between fields.
    fn quotes(&self, columns: Option<usize>) -> Quotes {
        if !self.bytes.contains(&b'"') {
            return Quotes::Unclear;
        }
        let quoted = self.quoted(b'\t');
        let raw = Reading::raw(&self.bytes, b'\t', self.is_whole);
        let [by_quotes, by_lines] =
            [&quoted, &raw].map(|reading| reading.share_of(columns.unwrap_or(reading.width())));
        let groups = if by_lines < by_quotes { quoted.grouping } else { 0 };
        let evidence = quoted.doubled + groups + usize::from(quoted.is_header_quoted);
        // A stray quote among many proper ones is a fault of its record.
        if evidence > quoted.faults * 20 && by_quotes >= CONSISTENT {
            Quotes::Around
        } else if quoted.faults > 0 || by_quotes < by_lines {
            Quotes::Text
        } else {
            Quotes::Unclear
        }
    }

    /// Returns the character between the fields of a quoted file, or those that it may be.
    fn delimiter(&self, columns: Option<usize>) -> std::result::Result<u8, Vec<u8>> {
        if let Some(stated) = self.stated {
            return Ok(stated);
        }
        let share = |delimiter: u8| {
            let reading = self.quoted(delimiter);
            let width = columns.unwrap_or(reading.width());
            (delimiter, width, reading.share_of(width), reading.width())
        };
        let likely: Vec<(u8, f64)> = DELIMITERS
            .map(share)
            .into_iter()
            .filter(|(_, width, _, first)| *width > 1 && *first > 1)
            .map(|(delimiter, _, share, _)| (delimiter, share))
            .collect();
        let clear: Vec<u8> = likely
            .iter()
            .filter(|(_, share)| *share >= CONSISTENT)
            .map(|(delimiter, _)| *delimiter)
            .collect();
        let others = likely.iter().filter(|(_, share)| *share >= UNLIKELY).count();
        match (likely.as_slice(), clear.as_slice()) {
            // Nothing else separates fields in the first record.
            ([] | [(b',', _)], _) => Ok(b','),
            (_, [only]) if others == 1 => Ok(*only),
            _ => Err(likely.iter().map(|(delimiter, _)| *delimiter).collect()),
        }
    }
}

/// The least share of records with as many fields as the first, in a reading that is right.
const CONSISTENT: f64 = 0.95;
/// The least share of such records in a reading that may be right.
const UNLIKELY: f64 = 0.5;

/// Returns whether the files of a source have quotes around fields. Refuses files of which some
/// have and others have not.
fn quotes_of<'a>(
    samples: impl Iterator<Item = Result<Sample<'a>>>,
    options: &FormatOptions,
) -> Result<bool> {
    let columns = options.columns.as_ref().map(Vec::len);
    let (mut around, mut text) = (None, None);
    for sample in samples {
        let sample = sample?;
        match sample.quotes(columns) {
            Quotes::Around => around = around.or(Some(sample.name)),
            Quotes::Text => text = text.or(Some(sample.name)),
            Quotes::Unclear => {}
        }
        if let (Some(around), Some(text)) = (around, text) {
            let what = format!("{around} has quotes around fields, in {text} quotes are text");
            return Err(Error::config(what).remedy(
                "make them two sources; or say format = \"tsv\" if quotes are text, or \
                 format = \"csv\" and delimiter = \"\\t\" if they are not",
            ));
        }
    }
    Ok(around.is_some())
}

/// Returns the character between the fields of quoted files, `None` for the comma. Where it is not
/// clear, it is the comma if the source names the format, and else an error.
fn delimiter_of<'a>(
    samples: impl Iterator<Item = Result<Sample<'a>>>,
    options: &FormatOptions,
    is_given: bool,
) -> Result<Option<u8>> {
    let columns = options.columns.as_ref().map(Vec::len);
    let mut found: Option<(u8, &str)> = None;
    for sample in samples {
        let sample = sample?;
        // An empty file has no fields.
        if sample.bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let delimiter = match sample.delimiter(columns) {
            Ok(delimiter) => delimiter,
            Err(_) if is_given => return Ok(None),
            Err(likely) => return Err(unclear(&likely).file(sample.name)),
        };
        match found {
            Some((known, _)) if known != delimiter && is_given => return Ok(None),
            Some((known, name)) if known != delimiter => {
                let [known, other] = [known, delimiter].map(u8::escape_ascii);
                let what =
                    format!("{name} has '{known}' between fields, {} has '{other}'", sample.name);
                return Err(Error::config(what)
                    .remedy("make them two sources, or say format = \"csv\" and `delimiter`"));
            }
            _ => found = Some((delimiter, sample.name)),
        }
    }
    Ok(found.map(|(delimiter, _)| delimiter).filter(|delimiter| *delimiter != b','))
}

/// Returns the error of a quoted file with more than one likely delimiter, or an unlikely one.
fn unclear(likely: &[u8]) -> Error {
    let shown: Vec<String> =
        likely.iter().map(|delimiter| format!("'{}'", delimiter.escape_ascii())).collect();
    let other = likely.iter().find(|delimiter| **delimiter != b',').unwrap_or(&b';');
    let other = other.escape_ascii();
    Error::config(format!(
        "holds {} outside of quotes in its first line, and other numbers of them in other lines or \
         as many: its delimiter cannot be guessed",
        shown.join(" and ")
    ))
    .remedy(format!(
        "say format = \"csv\" in its source, and delimiter = \"{other}\" or \",\", whichever it is"
    ))
}

/// Refuses a file whose first record names no column of the first file, if it has as many: it is
/// most likely a record of a file without a header.
fn refuse_other_headers<'a>(
    samples: impl Iterator<Item = Result<Sample<'a>>>,
    is_quoted: bool,
    options: &FormatOptions,
) -> Result<()> {
    let delimiter = options.delimiter.as_ref().map_or(b',', |text| text.as_bytes()[0]);
    let mut first: Option<(Vec<Vec<u8>>, &str)> = None;
    for sample in samples {
        let sample = sample?;
        let names = if is_quoted {
            first_fields(&sample.bytes, delimiter, true)
        } else {
            first_fields(&sample.bytes, b'\t', false)
        };
        let Some((known, name)) = &first else {
            first = Some((names, sample.name)).filter(|(names, _)| !names.is_empty());
            continue;
        };
        if names.len() == known.len() && !names.iter().any(|name| known.contains(name)) {
            let shown = String::from_utf8_lossy(&names.join(&b", "[..])).into_owned();
            let shown: String = shown.chars().take(60).collect();
            return Err(Error::input(format!(
                "its first line ('{shown}') names no column of {name}: it is a record that would be \
                 taken for a header, or the header of another table"
            ))
            .file(sample.name)
            .line(1)
            .remedy(
                "make files without a header a source of their own, with columns = [\"…\"] and \
                 header = false; and files of another table, too",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(text: &str) -> Sample<'_> {
        Sample { name: "a", bytes: text.as_bytes().to_vec(), is_whole: true, stated: None }
    }

    #[test]
    fn quotes_are_around_fields_only_without_doubt() {
        for (text, quotes) in [
            ("a\tb\n1\t2\n", Quotes::Unclear),
            ("a\tb\n\"1\"\t2\n", Quotes::Unclear),
            ("a\tb\n\"one \"\"two\"\"\"\t2\n", Quotes::Around),
            ("\"a\"\t\"b\"\n\"1\"\t\"2\"\n", Quotes::Around),
            ("a\tb\n\"one\ntwo\"\t2\n", Quotes::Around),
            ("a\tb\n\"one\ttwo\"\t2\n", Quotes::Around),
            ("a\tb\n\"one\" two\t2\n", Quotes::Text),
            ("a\tb\nsay \"one\"\t2\n", Quotes::Text),
            ("a\tb\n\"\"\"\"one\"\"\"\" two\t2\n", Quotes::Text),
            ("a\tb\n\"one\t2\n3\t4\n", Quotes::Text),
            ("a\tb\n\"one\t2\n\"3\t4\n", Quotes::Text),
            ("a\tb\n5\"\t2\n6\"\t4\n", Quotes::Text),
        ] {
            assert_eq!(sample(text).quotes(None), quotes, "{text}");
        }
    }

    #[test]
    fn a_delimiter_is_clear_by_consistent_counts() {
        for (text, delimiter) in [
            ("q,a\n1,2\n", Ok(b',')),
            ("q;a\n1,5;2\n", Ok(b';')),
            ("q\ta\n1, 2\t2\n", Ok(b'\t')),
            ("q|a\n1|2\n", Ok(b'|')),
            ("q,a;b\n1,2\n", Ok(b',')),
            ("a;b, c\n1;2\n3;4\n", Ok(b';')),
            ("q,\"x; y\",a\n1,2,3\n", Ok(b',')),
            ("text\none, two\n", Ok(b',')),
            ("", Ok(b',')),
            ("q,a;b\n1,2;3\n", Err(vec![b',', b';'])),
            ("remark; note\none\ntwo\n", Err(vec![b';'])),
        ] {
            assert_eq!(sample(text).delimiter(None), delimiter, "{text}");
        }
        assert_eq!(sample("1;2\n3;4\n").delimiter(Some(2)), Ok(b';'));
        assert_eq!(sample("one; two\n").delimiter(Some(1)), Ok(b','));
    }
}
