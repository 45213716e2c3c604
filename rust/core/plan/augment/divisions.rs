//! Refuses sources that divide a file into different records, where a task is made of one of them.

use std::collections::BTreeMap;

use super::super::{Plan, Source};
use super::refused;
use crate::error::{Error, Result};
use crate::read::TextUnit;

/// The way in which a source divides a file into records that are held out: the file that decides,
/// the unit of text, the path to records, and whether records are sentences.
type Division<'a> = (usize, Option<TextUnit>, Option<&'a str>, bool);

impl Plan {
    /// Refuses a source that makes a task of the records of a file where another source divides
    /// this file otherwise: a text would be held out by one and trained on by the other.
    pub(in super::super) fn refuse_other_records(&self) -> Result<()> {
        let mut readings: BTreeMap<usize, Vec<(Division<'_>, &Source)>> = BTreeMap::new();
        let is_drawn = self.pack.validation > 0.0;
        for source in self.sources.iter().filter(|_| is_drawn) {
            for nth in 0..source.training_inputs {
                let division = division_of(source, nth);
                for input in source.files_of(nth) {
                    let known = readings.entry(input).or_default();
                    if let Some((_, other)) = known.iter().find(|(of, other)| {
                        *of != division && (other.augment.is_some() || source.augment.is_some())
                    }) {
                        return Err(self.other_records(input, source, other));
                    }
                    // One reading of each kind is enough to compare with.
                    let is_known = |(of, other): &(Division<'_>, &Source)| {
                        *of == division && other.augment.is_some() == source.augment.is_some()
                    };
                    if !known.iter().any(is_known) {
                        known.push((division, source));
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the error of two sources that divide a file otherwise.
    fn other_records(&self, input: usize, source: &Source, other: &Source) -> Error {
        let name = &self.inputs[input].name;
        let what = format!("reads {name} in other records than source '{}' does", other.name);
        refused(
            &what,
            "a text that one holds out would be trained on by the other: give both the same \
             `unit`, `records` and `files` (with `field` for one side of parallel text), or hold \
             out files by `validation_files`",
        )
        .source(source.name.clone())
    }
}

/// Returns the way in which a source divides its input `nth`.
fn division_of(source: &Source, nth: usize) -> Division<'_> {
    let options = &source.options;
    let is_of_sentences = source.format.get().name() == "conll";
    (source.inputs[nth], options.unit, options.records.as_deref(), is_of_sentences)
}
