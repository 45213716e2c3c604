//! Reads raw tab-separated values: no quoting, no escapes. The first line names the columns, unless
//! the source does.

use crate::error::{Error, Result};
use crate::read::columns::Columns;
use crate::read::format::{Format, FormatOptions, Likeness, Request};
use crate::read::json::{Fields, Value};
use crate::read::line_reader::{LineFormat, LineReader};
use crate::read::lines::{Line, Lines};
use crate::read::record::Reader;
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

    fn options(&self) -> &'static [&'static str] {
        &["columns", "header"]
    }

    fn splits_at_lines(&self) -> bool {
        true
    }

    fn open(&self, request: &Request<'_>) -> Result<Box<dyn Reader>> {
        let is_start = request.range.start == 0;
        let (columns, skips_first) = Columns::resolve(request, is_start, || first_line(request))?;
        LineReader::open(request, skips_first, Row { columns })
    }
}

/// Returns the fields of the first line of a file.
fn first_line(request: &Request<'_>) -> Result<Vec<String>> {
    let mut lines = Lines::open(request.path, 0, 1, request.context)?;
    if !lines.step()? {
        return Ok(Vec::new());
    }
    let (_, Line::Text(line)) = lines.current() else { return Ok(Vec::new()) };
    let text =
        std::str::from_utf8(line).map_err(|_| Error::input("the header is not UTF-8").line(1))?;
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
}
