//! Reads plain text: one record on each line, in each paragraph or in each file, in the field
//! `text`.

use super::text_unit::{UnitReader, is_blank};
use crate::error::Result;
use crate::read::columns::Columns;
use crate::read::format::{Format, FormatOptions, Likeness, TextUnit};
use crate::read::head::Head;
use crate::read::json::{Fields, Value};
use crate::read::line_reader::{LineFormat, LineReader};
use crate::read::record::Reader;
use crate::read::request::Request;
use crate::read::slots::Slots;

/// The name of the one field.
const FIELD: &str = "text";

pub(super) struct Text;

impl Format for Text {
    fn name(&self) -> &'static str {
        "text"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &["txt", "text"]
    }

    fn sniff(&self, _: &[u8], _: &FormatOptions) -> Result<Likeness> {
        Ok(Likeness::Possible)
    }

    fn options(&self) -> &'static [&'static str] {
        &["unit"]
    }

    fn splits_at_lines(&self, options: &FormatOptions) -> bool {
        options.unit.is_none()
    }

    fn refuse(&self, head: &Head) -> Result<()> {
        head.refuse_binary()?;
        head.refuse_carriage_returns()
    }

    fn default_target(&self) -> Option<&'static str> {
        Some("{{ text }}")
    }

    fn described(&self, options: &FormatOptions) -> String {
        options.described(match options.unit {
            None | Some(TextUnit::Line) => "text, one record a line",
            Some(TextUnit::Paragraph) => "text, one record a paragraph",
            Some(TextUnit::File) => "text, one record a file",
        })
    }

    fn open(&self, request: &Request<'_>) -> Result<Box<dyn Reader>> {
        let columns = Columns::new(vec![FIELD.to_owned()], request);
        match request.options.unit {
            Some(unit) => UnitReader::open(request, columns, unit),
            None => LineReader::open(request, false, TextLine { columns }),
        }
    }
}

/// Reads a line as the one field.
struct TextLine {
    columns: Columns,
}

impl LineFormat for TextLine {
    fn is_blank(&self, line: &[u8]) -> bool {
        is_blank(line)
    }

    fn fill<'a>(&self, text: &'a str, slots: &mut Slots<'a>) -> bool {
        self.columns.fill(std::iter::once(text), slots)
    }

    fn fields(&self, text: &str) -> std::result::Result<Fields, String> {
        self.columns.fields(1, std::iter::once(Value::from(text)))
    }
}
