//! Finds the files of a source: a list of them, or one list for each field of parallel text.

use super::files::Files;
use super::{Plan, Source};
use crate::error::{Error, Result};
use crate::storage::Storage;

/// The files of one field of parallel text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Side {
    /// The field.
    pub field: String,
    /// Indices of its files in [`Plan::inputs`]: one for each input of the source.
    pub inputs: Vec<usize>,
}

/// The files of a source.
pub(super) struct Found {
    /// Indices of the inputs, those of the first field for parallel text.
    pub inputs: Vec<usize>,
    /// The number of inputs that are not held out.
    pub training_inputs: usize,
    /// The fields of parallel text, the first one included.
    pub sides: Vec<Side>,
}

impl Found {
    /// Returns every file, in order.
    pub(super) fn all(&self) -> Vec<usize> {
        let others = self.sides.iter().skip(1).flat_map(|side| &side.inputs);
        self.inputs.iter().chain(others).copied().collect()
    }
}

impl Source {
    /// Returns the files from which its input `nth` is read: more than one for parallel text.
    pub(crate) fn files_of(&self, nth: usize) -> impl Iterator<Item = usize> + '_ {
        let others = self.sides.iter().skip(1).map(move |side| side.inputs[nth]);
        std::iter::once(self.inputs[nth]).chain(others)
    }
}

impl Plan {
    /// Finds the files of a source.
    pub(super) fn find_inputs(
        &mut self,
        files: &Files,
        held_out: &Files,
        storage: &dyn Storage,
    ) -> Result<Found> {
        let fields = if files.is_empty() { held_out.fields() } else { files.fields() };
        refuse_other_fields(files, held_out)?;
        let mut sides = Vec::new();
        let mut training_inputs = 0;
        for (nth, field) in fields.iter().enumerate() {
            let mut inputs = Vec::new();
            self.add_inputs(files.patterns(field.as_deref()), &mut inputs, storage)?;
            if nth == 0 {
                training_inputs = inputs.len();
            }
            let counts = [training_inputs, inputs.len()];
            self.add_inputs(held_out.patterns(field.as_deref()), &mut inputs, storage)?;
            let field = field.clone().unwrap_or_default();
            let side = Side { field, inputs };
            self.refuse_equal(&sides, &side)?;
            refuse_other_count(sides.first().unwrap_or(&side), &side, counts)?;
            sides.push(side);
        }
        let inputs = sides.first().map(|side| side.inputs.clone()).unwrap_or_default();
        if sides.len() == 1 {
            sides.clear();
        }
        self.refuse_empty(&sides)?;
        Ok(Found { inputs, training_inputs, sides })
    }

    /// Refuses a file that is two sides of a text: prompt and target would be equal.
    fn refuse_equal(&self, sides: &[Side], side: &Side) -> Result<()> {
        for other in sides {
            let pairs = other.inputs.iter().zip(&side.inputs);
            if let Some((_, &input)) = pairs.into_iter().find(|(one, two)| one == two) {
                let (name, other, field) = (&self.inputs[input].name, &other.field, &side.field);
                return Err(Error::config(format!("reads {name} as '{other}' and as '{field}'"))
                    .remedy(
                        "name two files; of languages by {lang}, list the others: {lang:hau|yor}",
                    ));
            }
        }
        Ok(())
    }

    /// Refuses an empty file beside one that is not: nothing would be read of either.
    fn refuse_empty(&self, sides: &[Side]) -> Result<()> {
        for nth in 0..sides.first().map_or(0, |side| side.inputs.len()) {
            let inputs = || sides.iter().map(|side| &self.inputs[side.inputs[nth]]);
            let empty = inputs().find(|input| input.size == 0);
            let other = inputs().find(|input| input.size > 0);
            if let (Some(empty), Some(other)) = (empty, other) {
                return Err(Error::input(format!("is empty, {} is not", other.name))
                    .file(empty.name.clone())
                    .remedy("parallel files have as many lines as each other: fetch it again"));
            }
        }
        Ok(())
    }
}

/// Refuses files that are held out of other fields than those that are trained on.
fn refuse_other_fields(files: &Files, held_out: &Files) -> Result<()> {
    for files in [files, held_out] {
        if matches!(files, Files::Sides(sides) if sides.len() < 2) {
            return Err(Error::config("parallel text needs files of two fields or more")
                .remedy("name them all: files = { en = \"train.en\", yo = \"train.yo\" }"));
        }
    }
    if files.is_empty() || held_out.is_empty() || files.fields() == held_out.fields() {
        return Ok(());
    }
    Err(Error::config("`files` and `validation_files` are not of the same fields").remedy(
        "write both as lists, or both as tables of the same fields: \
         validation_files = { en = \"dev.en\", yo = \"dev.yo\" }",
    ))
}

/// Refuses a field with more or fewer files than the first one, trained on or held out.
fn refuse_other_count(first: &Side, side: &Side, [wanted, found]: [usize; 2]) -> Result<()> {
    let (of_first, of_side) = (first.inputs.len(), side.inputs.len());
    if wanted == found && of_first == of_side {
        return Ok(());
    }
    let [a, b] =
        if wanted == found { [of_first - wanted, of_side - found] } else { [wanted, found] };
    Err(Error::config(format!("has {a} files of '{}', {b} of '{}'", first.field, side.field))
        .remedy("parallel files are taken in order, each with one of every other field"))
}
