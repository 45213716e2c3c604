//! Reads JSON Lines: one JSON object on each line.

use std::sync::Arc;

use super::nested::NestedReader;
use crate::error::Result;
use crate::read::format::{Format, FormatOptions, Likeness};
use crate::read::head::Head;
use crate::read::json::{Fields, parse_needed};
use crate::read::json_slots::fill_from_json;
use crate::read::line_reader::{LineFormat, LineReader};
use crate::read::needed::Needed;
use crate::read::record::Reader;
use crate::read::request::Request;
use crate::read::slots::{FieldTree, Slots};

pub(super) struct Jsonl;

impl Format for Jsonl {
    fn name(&self) -> &'static str {
        "jsonl"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &["jsonl", "ndjson", "json"]
    }

    fn sniff(&self, content: &[u8], _: &FormatOptions) -> Result<Likeness> {
        Ok(match content.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'{') => Likeness::Certain,
            _ => Likeness::Possible,
        })
    }

    fn splits_at_lines(&self, _: &FormatOptions) -> bool {
        true
    }

    /// A NUL costs its line only: JSON escapes it, so it is never part of a text.
    fn refuse(&self, head: &Head) -> Result<()> {
        head.refuse_encoded()?;
        head.refuse_carriage_returns()
    }

    fn options(&self) -> &'static [&'static str] {
        &["records"]
    }

    fn described(&self, options: &FormatOptions) -> String {
        options.described("JSON Lines")
    }

    fn open(&self, request: &Request<'_>) -> Result<Box<dyn Reader>> {
        if let Some(steps) = request.options.steps() {
            return NestedReader::of_lines(request, steps);
        }
        let (wanted, needed) = (request.wanted.cloned(), request.needed.clone());
        LineReader::open(request, false, JsonLine { wanted, needed })
    }
}

/// Reads a line as an object.
struct JsonLine {
    wanted: Option<Arc<FieldTree>>,
    needed: Needed,
}

impl LineFormat for JsonLine {
    fn is_blank(&self, line: &[u8]) -> bool {
        line.iter().all(u8::is_ascii_whitespace)
    }

    fn fill<'a>(&self, text: &'a str, slots: &mut Slots<'a>) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| fill_from_json(wanted, text, slots))
    }

    fn fields(&self, text: &str) -> std::result::Result<Fields, String> {
        parse_needed(text, &self.needed)
    }
}
