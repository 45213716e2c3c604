//! `Columns`: the names of the columns of a file, from its header or from its source.

use std::collections::HashSet;

use super::format::Request;
use super::json::{Fields, Value};
use super::slots::Slots;
use crate::error::{Error, Result};

/// The columns of a file.
pub(super) struct Columns {
    names: Vec<String>,
    /// The slot of each column that templates show; `None` if records are left to the fields path.
    slots: Option<Vec<Option<usize>>>,
}

impl Columns {
    /// Returns the columns of a file, and whether the request begins with a header to pass over.
    ///
    /// `first` reads the fields of the file's first record. `is_start` tells whether the request
    /// begins with that record.
    pub(super) fn resolve(
        request: &Request<'_>,
        is_start: bool,
        first: impl FnOnce() -> Result<Vec<String>>,
    ) -> Result<(Self, bool)> {
        let options = request.options;
        let (names, skips_first) = if let Some(columns) = &options.columns {
            if options.header.is_none() && is_start {
                refuse_header(&first()?, columns)?;
            }
            (columns.clone(), options.header == Some(true) && is_start)
        } else {
            let header = first()?;
            refuse_repeated(&header).map_err(|error| error.line(1))?;
            (header, is_start)
        };
        Ok((Self::new(names, request), skips_first))
    }

    /// Returns columns with these names. `request` tells which of them have slots.
    pub(super) fn new(names: Vec<String>, request: &Request<'_>) -> Self {
        let slots = request.wanted.and_then(|wanted| wanted.columns(&names));
        Self { names, slots }
    }

    /// Returns the number of columns.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Fills the slots of the wanted columns. Returns whether there are as many fields as columns.
    pub(super) fn fill<'a>(
        &self,
        mut fields: impl Iterator<Item = &'a str>,
        slots: &mut Slots<'a>,
    ) -> bool {
        let Some(wanted) = &self.slots else { return false };
        for slot in wanted {
            let Some(field) = fields.next() else { return false };
            if let Some(slot) = slot {
                slots[*slot] = Some(field.into());
            }
        }
        fields.next().is_none()
    }

    /// Returns the fields of a record by name, or an error in words if `count` is wrong.
    pub(super) fn fields(
        &self,
        count: usize,
        fields: impl Iterator<Item = Value>,
    ) -> std::result::Result<Fields, String> {
        if count != self.names.len() {
            return Err(format!("{count} fields, {} columns", self.names.len()));
        }
        Ok(self.names.iter().cloned().zip(fields).collect())
    }
}

/// Refuses two equal column names.
pub(super) fn refuse_repeated(names: &[String]) -> Result<()> {
    let mut seen = HashSet::with_capacity(names.len());
    for name in names {
        if !seen.insert(name) {
            return Err(Error::input(format!("two columns are named '{name}'")).remedy(
                "rename one, or name the columns of a file without a header: columns = [\"…\"]",
            ));
        }
    }
    Ok(())
}

/// Words that name columns.
const COLUMN_WORDS: &str = "answer category class context emotion en id input instruction label \
     lang language name output prompt question response score sentence sentiment source src \
     summary tags target task text tgt title tokens topic translation tweet url utterance word";

/// Refuses a first line that looks like a header, for a source that names its columns and does not
/// say `header`. In a header every field is the column's own name, or a few words among which is a
/// usual name of columns.
fn refuse_header(first: &[String], columns: &[String]) -> Result<()> {
    let is_column_word = |word: &str| COLUMN_WORDS.split(' ').any(|known| known == word);
    let names_column = |field: &str| {
        let field = field.to_lowercase();
        let words: Vec<&str> =
            field.split([' ', '_', '-', '.']).filter(|word| !word.is_empty()).collect();
        words.len() <= 3
            && words.iter().any(|word| is_column_word(word.trim_end_matches(char::is_numeric)))
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
