//! `Record`: one line, parsed into named fields; `Records`: those of a split.

use std::ops::Range;
use std::path::Path;

use super::json::{Fields, Value, parse_object};
use super::lines::{Line, Lines, MAX_LINE};
use super::split::InputSplit;
use crate::error::{Error, Result};
use crate::files;
use crate::monitor::{Monitor, Stop};
use crate::plan::{Plan, refuse_repeated};
use crate::schema::{DropReason, Format, OFFSET_BITS, Refusal};

/// How the lines of an input hold fields.
#[derive(Debug)]
pub struct Layout {
    /// Their format.
    pub format: Format,
    /// The columns of a TSV.
    pub header: Vec<String>,
}

/// A line of an input as a record.
#[derive(Debug)]
pub struct Record<'a> {
    /// Offset of its first byte in the decompressed input.
    pub offset: u64,
    /// `index of the input within its source << 40 | offset`.
    pub id: u64,
    /// Its bytes, the end of line aside, or why they are no record.
    pub line: std::result::Result<&'a [u8], Refusal>,
    layout: &'a Layout,
}

impl Record<'_> {
    /// Its bytes, the end of line aside.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.line.as_ref().map_or(0, |line| line.len())
    }

    /// Its fields by name, or why it has none.
    pub fn fields(&self) -> std::result::Result<Fields, Refusal> {
        self.line.clone().and_then(|line| parse_line(line, self.layout))
    }
}

/// A cursor over the records of a split.
pub struct Records {
    lines: Lines,
    layout: Layout,
    nth_input: u64,
    skip_first: bool,
}

impl Records {
    /// The records of `split`; reading ends with an error once `monitor` is asked to stop.
    pub fn open(plan: &Plan, split: &InputSplit, monitor: &Monitor) -> Result<Self> {
        let source = &plan.sources[split.source];
        let input = &plan.inputs[split.input];
        let columns = source.columns.as_deref().map(|columns| (columns, source.header));
        let records = Self::of_range(
            &input.path,
            split.range.clone(),
            source.format,
            columns,
            monitor.stop(),
        );
        let records =
            records.map_err(|error| error.file(input.name.clone()).source(source.name.clone()))?;
        Ok(Self { nth_input: split.nth_input as u64, ..records })
    }

    /// The records of a file that no source describes, its format guessed.
    pub fn of_file(path: &Path, monitor: &Monitor) -> Result<Self> {
        Self::of_range(path, 0..u64::MAX, files::guess_format(path)?, None, monitor.stop())
    }

    fn of_range(
        path: &Path,
        range: Range<u64>,
        format: Format,
        columns: Option<Columns<'_>>,
        stop: Stop,
    ) -> Result<Self> {
        let (mut header, mut skip_first) = (Vec::new(), false);
        if format == Format::Tsv {
            if let Some((columns, has_header)) = columns {
                columns.clone_into(&mut header);
                skip_first = has_header == Some(true) && range.start == 0;
                if has_header.is_none() && range.start == 0 {
                    refuse_header(
                        &first_line(&mut Lines::open(path, 0, 1, stop.clone())?)?,
                        columns,
                    )?;
                }
            } else {
                header = read_header(&mut Lines::open(path, 0, 1, stop.clone())?)?;
                skip_first = range.start == 0;
            }
        }
        let lines = Lines::open(path, range.start, range.end, stop)?;
        Ok(Self { lines, layout: Layout { format, header }, nth_input: 0, skip_first })
    }

    /// How its lines hold fields.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The next record; blank lines are none.
    pub fn advance(&mut self) -> Result<Option<Record<'_>>> {
        loop {
            if !self.lines.step()? {
                return Ok(None);
            }
            let (offset, line) = self.lines.current();
            if std::mem::take(&mut self.skip_first)
                || matches!(line, Line::Text(text) if is_blank(text, self.layout.format))
            {
                continue;
            }
            if offset >> OFFSET_BITS != 0 {
                return Err(Error::input("more than 1 TiB of content")
                    .remedy("split it into smaller files"));
            }
            break;
        }
        let (offset, line) = self.lines.current();
        let line = match line {
            Line::Text(line) => Ok(line),
            Line::TooLong => Err(malformed(format!("longer than {} MiB", MAX_LINE >> 20))),
        };
        Ok(Some(Record {
            offset,
            id: self.nth_input << OFFSET_BITS | offset,
            line,
            layout: &self.layout,
        }))
    }
}

/// The names of a TSV's columns, and whether its first line is a header, where that is said.
type Columns<'a> = (&'a [String], Option<bool>);

fn first_line(lines: &mut Lines) -> Result<Vec<String>> {
    if !lines.step()? {
        return Ok(Vec::new());
    }
    let (_, Line::Text(line)) = lines.current() else { return Ok(Vec::new()) };
    let text =
        std::str::from_utf8(line).map_err(|_| Error::input("the header is not UTF-8").line(1))?;
    Ok(text.split('\t').map(str::to_owned).collect())
}

/// Words that name columns.
const COLUMN_WORDS: [&str; 36] = [
    "answer",
    "category",
    "class",
    "context",
    "emotion",
    "en",
    "id",
    "input",
    "instruction",
    "label",
    "lang",
    "language",
    "name",
    "output",
    "prompt",
    "question",
    "response",
    "score",
    "sentence",
    "sentiment",
    "source",
    "src",
    "summary",
    "tags",
    "target",
    "task",
    "text",
    "tgt",
    "title",
    "tokens",
    "topic",
    "translation",
    "tweet",
    "url",
    "utterance",
    "word",
];

/// Refuses a first line that evidently is a header where the columns are named and nothing is said
/// of a header: every field is the column's own name, or is a few words of which one is the name of
/// a kind of column.
fn refuse_header(first: &[String], columns: &[String]) -> Result<()> {
    let names_column = |field: &str| {
        let field = field.to_lowercase();
        let words: Vec<&str> =
            field.split([' ', '_', '-', '.']).filter(|word| !word.is_empty()).collect();
        words.len() <= 3
            && words
                .iter()
                .any(|word| COLUMN_WORDS.contains(&word.trim_end_matches(char::is_numeric)))
    };
    let is_name = |(field, column): (&String, &String)| {
        let field = field.trim_start_matches('\u{feff}').trim();
        field.eq_ignore_ascii_case(column) || names_column(field)
    };
    if first.len() != columns.len() || !first.iter().zip(columns).all(is_name) {
        return Ok(());
    }
    Err(Error::input(format!(
        "its first line looks like a header ('{}'), which would be a record",
        first.join("', '")
    ))
    .line(1)
    .remedy("say `header = true` to pass over it, or `header = false` if it is a record"))
}

fn read_header(lines: &mut Lines) -> Result<Vec<String>> {
    let header = first_line(lines)?;
    refuse_repeated(&header).map_err(|error| error.line(1))?;
    Ok(header)
}

/// A blank line separates records; in a TSV, a line of tabs is a record of empty fields.
fn is_blank(line: &[u8], format: Format) -> bool {
    match format {
        Format::Tsv => line.is_empty(),
        Format::Jsonl => line.iter().all(u8::is_ascii_whitespace),
        Format::Text => std::str::from_utf8(line).is_ok_and(|text| text.trim().is_empty()),
    }
}

fn malformed(why: impl Into<String>) -> Refusal {
    Refusal::new(DropReason::Malformed, why)
}

fn utf8(line: &[u8]) -> std::result::Result<&str, Refusal> {
    let not_utf8 = |error: std::str::Utf8Error| {
        malformed(format!("not UTF-8 from byte {} on", error.valid_up_to() + 1))
    };
    std::str::from_utf8(line).map_err(not_utf8)
}

/// The fields of a JSON object.
pub fn parse_json(text: &[u8]) -> std::result::Result<Fields, Refusal> {
    parse_object(utf8(text)?).map_err(malformed)
}

/// The fields of one line.
pub fn parse_line(line: &[u8], layout: &Layout) -> std::result::Result<Fields, Refusal> {
    let Layout { format, header } = layout;
    if *format == Format::Jsonl {
        return parse_json(line);
    }
    let text = utf8(line)?;
    if *format == Format::Text {
        return Ok(Fields::from_iter([("text".to_owned(), Value::from(text))]));
    }
    let count = text.split('\t').count();
    if count != header.len() {
        return Err(malformed(format!("{count} fields, {} columns", header.len())));
    }
    Ok(header.iter().cloned().zip(text.split('\t').map(Value::from)).collect())
}
