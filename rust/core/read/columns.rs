//! `Columns`: the names of the columns of a file, from its header or from its source.

use std::collections::HashSet;

use super::json::{Fields, Value};
use super::request::Request;
use super::slots::Slots;
use crate::error::{Error, Result};

/// The columns of a file.
pub(super) struct Columns {
    names: Vec<String>,
    /// The fields of the header, if the file has one.
    header: Option<Vec<String>>,
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
        let (names, header) = match (&options.columns, options.header) {
            (Some(columns), None) => {
                if is_start {
                    refuse_header(&first()?, columns)?;
                }
                (columns.clone(), None)
            }
            (Some(columns), Some(false)) => (columns.clone(), None),
            // Whatever is wrong with a header that is passed over, its names are not needed.
            (Some(columns), Some(true)) => (columns.clone(), Some(first().unwrap_or_default())),
            (None, _) => {
                let header = first()?;
                refuse_repeated(&header).map_err(|error| error.line(1))?;
                (header.clone(), Some(header))
            }
        };
        let skips_first = header.is_some() && is_start;
        Ok((Self { header, ..Self::new(names, request) }, skips_first))
    }

    /// Returns columns with these names. `request` tells which of them have slots.
    pub(super) fn new(names: Vec<String>, request: &Request<'_>) -> Self {
        let slots = request.wanted.and_then(|wanted| wanted.columns(&names));
        Self { names, header: None, slots }
    }

    /// Returns the number of columns.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Returns whether `field` is the one at `index` in the header, as it is where files are
    /// joined.
    fn is_of_header(&self, index: usize, field: &str) -> bool {
        let name = self.header.as_ref().and_then(|header| header.get(index));
        let field = if index == 0 { field.trim_start_matches('\u{feff}') } else { field };
        name.is_some_and(|name| name == field)
    }

    /// Fills the slots of the wanted columns. Returns `false` for a header, and where there are
    /// more or fewer fields than columns.
    pub(super) fn fill<'a>(
        &self,
        mut fields: impl Iterator<Item = &'a str>,
        slots: &mut Slots<'a>,
    ) -> bool {
        let Some(wanted) = &self.slots else { return false };
        let mut is_header = true;
        for (index, slot) in wanted.iter().enumerate() {
            let Some(field) = fields.next() else { return false };
            is_header = is_header && self.is_of_header(index, field);
            if let Some(slot) = slot {
                slots[*slot] = Some(field.into());
            }
        }
        fields.next().is_none() && !is_header
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
        let fields: Fields = self.names.iter().cloned().zip(fields).collect();
        let is_header = |(index, field): (usize, &Value)| {
            field.as_str().is_some_and(|field| self.is_of_header(index, field))
        };
        if fields.values().enumerate().all(is_header) {
            return Err("repeats the header".to_owned());
        }
        Ok(fields)
    }
}

/// Refuses two equal column names.
pub(super) fn refuse_repeated(names: &[String]) -> Result<()> {
    let mut seen = HashSet::with_capacity(names.len());
    for name in names {
        // Tables from a spreadsheet end in columns without a name.
        if !seen.insert(name) && !name.is_empty() {
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
