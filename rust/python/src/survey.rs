//! Surveys a corpus, and begins its configuration.

use std::path::PathBuf;

use pyo3::prelude::*;
use sabiprep::commands;
use sabiprep::error::Error;

use crate::door::enter;
use crate::options::{Hub, Options};

/// Surveys a corpus and returns the result as JSON.
#[pyfunction]
#[pyo3(signature = (corpus, options, *, hub = None))]
pub fn survey(
    py: Python<'_>,
    corpus: PathBuf,
    options: Options,
    hub: Option<Hub>,
) -> PyResult<String> {
    let options = options.with_hub(hub);
    enter(py, None, |context| {
        let survey = commands::survey(&corpus, &options, context)?;
        serde_json::to_string(&survey).map_err(|error| Error::internal(error.to_string()))
    })
}

/// Returns the text of a `corpus.toml` for a corpus, guessed from its files, and writes it there if
/// `write`.
#[pyfunction]
#[pyo3(signature = (corpus, options, *, write))]
pub fn init(py: Python<'_>, corpus: PathBuf, options: Options, write: bool) -> PyResult<String> {
    let options = options.with_hub(None);
    enter(py, None, |context| commands::init(&corpus, &options, write, context))
}
