//! Reads parallel text: files whose lines belong together. Line i of every file makes one record,
//! with a field for each file.
//!
//! A record is known by the offset of its line in the first file. Files of different lengths are
//! refused: from the line that one of them lacks on, texts would belong to the wrong ones.

use crate::error::{Error, Result};
use crate::read::columns::Columns;
use crate::read::encoding::Encoding;
use crate::read::format::{Format, FormatOptions, Likeness};
use crate::read::head::Head;
use crate::read::json::{Fields, Value};
use crate::read::lines::{Line, Lines, MAX_LINE};
use crate::read::record::{Reader, malformed, utf8};
use crate::read::request::Request;
use crate::read::slots::Slots;
use crate::schema::Refusal;

use super::text_unit::is_blank;

pub(super) struct Parallel;

impl Format for Parallel {
    fn name(&self) -> &'static str {
        "parallel"
    }

    fn suffixes(&self) -> &'static [&'static str] {
        &[]
    }

    fn sniff(&self, _: &[u8], _: &FormatOptions) -> Result<Likeness> {
        Ok(Likeness::None)
    }

    fn refuse(&self, head: &Head) -> Result<()> {
        head.refuse_binary()?;
        head.refuse_carriage_returns()
    }

    fn open(&self, request: &Request<'_>) -> Result<Box<dyn Reader>> {
        let fields: Vec<String> = request.sides.iter().map(|side| side.field.to_owned()).collect();
        let columns = Columns::new(fields.clone(), request);
        let files = request.sides.iter().map(|side| side.name.to_owned()).collect();
        let open = |path| Lines::open(&Request { path, ..request.clone() }, 0..u64::MAX);
        let sides = request.sides.iter().map(|side| open(side.path)).collect::<Result<_>>()?;
        let encoding = request.options.encoding;
        Ok(Box::new(ParallelReader { sides, fields, files, columns, encoding, line: 0 }))
    }
}

/// A cursor over the lines of all files at once.
struct ParallelReader {
    sides: Vec<Lines>,
    /// The field of each file, and its name.
    fields: Vec<String>,
    files: Vec<String>,
    columns: Columns,
    /// The encoding of the files, if it is not UTF-8.
    encoding: Option<Encoding>,
    /// The line at hand, from 1.
    line: u64,
}

impl ParallelReader {
    /// Returns the error of files of different lengths.
    fn uneven(&self, ended: usize, going: usize) -> Error {
        let [ended, going] = [ended, going].map(|side| &self.files[side]);
        let last = self.line - 1;
        Error::input(format!("{ended} ends after line {last}, {going} goes on"))
            .remedy("parallel files have as many lines as each other: mend or fetch the shorter")
    }
}

impl Reader for ParallelReader {
    /// A line that is blank in every file is no record.
    fn advance(&mut self) -> Result<bool> {
        loop {
            self.line += 1;
            let (mut ended, mut going) = (None, None);
            for (nth, side) in self.sides.iter_mut().enumerate() {
                let place = if side.step()? { &mut going } else { &mut ended };
                place.get_or_insert(nth);
            }
            match (ended, going) {
                (Some(ended), Some(going)) => return Err(self.uneven(ended, going)),
                (_, None) => return Ok(false),
                (None, Some(_)) => {}
            }
            let is_blank =
                |side: &Lines| matches!(side.current().1, Line::Text(line) if is_blank(line));
            if !self.sides.iter().all(is_blank) {
                return Ok(true);
            }
        }
    }

    fn offset(&self) -> u64 {
        self.sides.first().map_or(0, |side| side.current().0)
    }

    fn bytes(&self) -> usize {
        let len =
            |side: &Lines| if let Line::Text(line) = side.current().1 { line.len() } else { 0 };
        // Each line but the last is counted with its end here.
        self.sides.iter().map(len).sum::<usize>() + self.sides.len().saturating_sub(1)
    }

    fn fill<'a>(&'a self, slots: &mut Slots<'a>) -> bool {
        let is_text = |side: &Lines| matches!(side.current().1, Line::Text(line) if std::str::from_utf8(line).is_ok());
        let text = |side: &'a Lines| match side.current().1 {
            Line::Text(line) => std::str::from_utf8(line).unwrap_or_default(),
            Line::TooLong => "",
        };
        self.sides.iter().all(is_text) && self.columns.fill(self.sides.iter().map(text), slots)
    }

    fn fields(&self) -> std::result::Result<Fields, Refusal> {
        let mut values = Vec::with_capacity(self.sides.len());
        for (side, field) in self.sides.iter().zip(&self.fields) {
            let Line::Text(line) = side.current().1 else {
                let most = MAX_LINE >> 20;
                return Err(malformed(format!("field '{field}' is longer than {most} MiB")));
            };
            let text = utf8(line, self.encoding)
                .map_err(|refusal| malformed(format!("field '{field}' is {}", refusal.why)))?;
            values.push(Value::from(text));
        }
        self.columns.fields(values.len(), values.into_iter()).map_err(malformed)
    }
}
