//! Reads raw tab-separated values: no quoting, no escapes. The first line names the columns, unless
//! the source does.

use crate::error::{Error, Result};
use crate::read::columns::Columns;
use crate::read::encoding::{NAME_ENCODING, not_text};
use crate::read::format::{Format, FormatOptions, Likeness};
use crate::read::head::Head;
use crate::read::json::{Fields, Value};
use crate::read::line_reader::{LineFormat, LineReader};
use crate::read::lines::{Line, Lines};
use crate::read::record::Reader;
use crate::read::request::Request;
use crate::read::slots::Slots;

pub(super) struct Tsv;

impl Format for Tsv {
    fn name(&self) -> &'static str {
        "tsv"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &["tsv", "tab"]
    }

    fn sniff(&self, _: &[u8], _: &FormatOptions) -> Result<Likeness> {
        Ok(Likeness::Possible)
    }

    fn refuse(&self, head: &Head) -> Result<()> {
        head.refuse_binary()?;
        head.refuse_carriage_returns()
    }

    fn options(&self) -> &'static [&'static str] {
        &["columns", "header"]
    }

    fn splits_at_lines(&self, _: &FormatOptions) -> bool {
        true
    }

    fn described(&self, options: &FormatOptions) -> String {
        options.described("raw TSV")
    }

    fn open(&self, request: &Request<'_>) -> Result<Box<dyn Reader>> {
        let is_start = request.range.start == 0;
        let (columns, skips_first) = Columns::resolve(request, is_start, || first_line(request))?;
        LineReader::open(request, skips_first, Row { columns })
    }
}

/// Returns the fields of the first line of a file.
fn first_line(request: &Request<'_>) -> Result<Vec<String>> {
    let mut lines = Lines::open(request, 0..1)?;
    if !lines.step()? {
        return Ok(Vec::new());
    }
    let (_, Line::Text(line)) = lines.current() else { return Ok(Vec::new()) };
    let text = std::str::from_utf8(line).map_err(|_| {
        let why = not_text(line, request.options.encoding, "its ");
        Error::input(format!("the header is {why}")).line(1).remedy(NAME_ENCODING)
    })?;
    Ok(text.split('\t').map(str::to_owned).collect())
}

/// Reads a line as fields.
struct Row {
    columns: Columns,
}

impl LineFormat for Row {
    /// A line of tabs is a record of empty fields.
    fn is_blank(&self, line: &[u8]) -> bool {
        line.is_empty()
    }

    fn fill<'a>(&self, text: &'a str, slots: &mut Slots<'a>) -> bool {
        self.columns.fill(text.split('\t'), slots)
    }

    fn fields(&self, text: &str) -> std::result::Result<Fields, String> {
        let count = text.split('\t').count();
        self.columns.fields(count, text.split('\t').map(Value::from))
    }

    fn is_doubtful(&self, line: &[u8]) -> bool {
        memchr::memmem::find(line, b"\"\"").is_some()
            && line.split(|byte| *byte == b'\t').any(is_quoted_field)
    }
}

/// Returns whether a field is in quotes and holds a quote, written twice as in quoted files.
fn is_quoted_field(field: &[u8]) -> bool {
    let inner = field.strip_prefix(b"\"").and_then(|field| field.strip_suffix(b"\""));
    let Some(mut inner) = inner else { return false };
    let mut has_quote = false;
    while let Some(index) = memchr::memchr(b'"', inner) {
        if inner.get(index + 1) != Some(&b'"') {
            return false;
        }
        has_quote = true;
        inner = &inner[index + 2..];
    }
    has_quote
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_field_that_a_writer_of_quoted_files_wrote_is_in_quotes() {
        for (field, is_quoted) in [
            ("\"one \"\"two\"\"\"", true),
            ("\"\"\"one\"\"\"", true),
            ("\"\"\"\"one\"\"\"\"", false),
            ("\"one\"", false),
            ("\"one\" and \"two\"", false),
            ("\"\"", false),
            ("\"", false),
            ("one \"\"two\"\"", false),
        ] {
            assert_eq!(is_quoted_field(field.as_bytes()), is_quoted, "{field}");
        }
    }
}
