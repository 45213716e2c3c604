//! `RowReader`: reads the rows of record batches as records.

use std::sync::Arc;

use arrow_array::RecordBatch;

use super::texts::{Found, TextColumn};
use super::values::column_value;
use crate::error::Result;
use crate::read::json::{Fields, Value};
use crate::read::lines::MAX_LINE;
use crate::read::record::Reader;
use crate::read::slots::{FieldTree, Slots};
use crate::schema::Refusal;

/// Rows that are in memory at once.
pub(in crate::read) struct Batch {
    /// The columns that are read.
    pub(in crate::read) columns: RecordBatch,
    /// The number of its first row in the file, from 0.
    pub(in crate::read) first_row: u64,
    /// The bytes that the rows take in the file, columns that are not read included.
    pub(in crate::read) bytes: u64,
}

/// A cursor over the batches of a file.
pub(in crate::read) trait Batches: Send {
    /// Returns the next batch; `None` after the last one.
    fn next(&mut self) -> Result<Option<Batch>>;
}

/// A column of a file.
pub(in crate::read) struct Column {
    pub(in crate::read) name: String,
    /// Its index in a batch, or why it is not read.
    pub(in crate::read) place: std::result::Result<usize, &'static str>,
}

/// A cursor over rows.
pub(in crate::read) struct RowReader<B> {
    batches: B,
    /// Every column of the file, in its order.
    columns: Vec<Column>,
    /// The slots of the wanted fields, with the paths of the fields; `None` if every row is left
    /// to the fields path.
    wanted: Option<Vec<(usize, Vec<String>)>>,
    batch: Option<Batch>,
    /// The row of the batch.
    row: usize,
    /// The texts of each slot in this batch.
    slots: Vec<(usize, TextColumn)>,
}

impl<B: Batches> RowReader<B> {
    /// Returns a cursor before the first row of `batches`. `columns` are those of the file.
    pub(in crate::read) fn new(
        batches: B,
        columns: Vec<Column>,
        wanted: Option<&Arc<FieldTree>>,
    ) -> Self {
        let names = |name: &str| columns.iter().any(|column| column.name == name);
        let wanted = wanted.and_then(|wanted| wanted.paths(names));
        Self { batches, columns, wanted, batch: None, row: 0, slots: Vec::new() }
    }

    /// Finds the texts of each slot in the batch at hand.
    fn find_slots(&mut self) {
        self.slots.clear();
        let Some((batch, wanted)) = self.batch.as_ref().zip(self.wanted.as_ref()) else { return };
        for (slot, path) in wanted {
            let column = self.columns.iter().find(|column| column.name == path[0]);
            let index = column.and_then(|column| column.place.ok());
            let array = index.map(|index| batch.columns.column(index));
            self.slots.push((*slot, TextColumn::of(array, &path[1..])));
        }
    }
}

impl<B: Batches> Reader for RowReader<B> {
    fn advance(&mut self) -> Result<bool> {
        self.row += 1;
        while self.batch.as_ref().is_none_or(|batch| self.row >= batch.columns.num_rows()) {
            self.batch = self.batches.next()?;
            self.row = 0;
            self.find_slots();
            if self.batch.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn offset(&self) -> u64 {
        self.batch.as_ref().map_or(0, |batch| batch.first_row + self.row as u64)
    }

    /// Returns the row's share of the bytes of its batch, less one for the end of a line, which it
    /// has not.
    fn bytes(&self) -> usize {
        let Some(batch) = &self.batch else { return 0 };
        let (rows, row) = (batch.columns.num_rows().max(1) as u128, self.row as u128);
        let until = |row: u128| u128::from(batch.bytes) * row / rows;
        (until(row + 1) - until(row)).saturating_sub(1) as usize
    }

    fn fill<'a>(&'a self, slots: &mut Slots<'a>) -> bool {
        if self.wanted.is_none() {
            return false;
        }
        for (slot, texts) in &self.slots {
            match texts.at(self.row) {
                Found::Text(text) if text.len() <= MAX_LINE => slots[*slot] = Some(text.into()),
                Found::Nothing => {}
                _ => return false,
            }
        }
        true
    }

    fn fields(&self) -> std::result::Result<Fields, Refusal> {
        let Some(batch) = &self.batch else { return Ok(Fields::new()) };
        let value = |column: &Column| match column.place {
            Ok(index) => column_value(batch.columns.column(index), self.row),
            Err(why) => Value::Unreadable(why.to_owned()),
        };
        Ok(self.columns.iter().map(|column| (column.name.clone(), value(column))).collect())
    }
}
