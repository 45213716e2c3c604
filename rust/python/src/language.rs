//! Identifies languages by `sabiprep.languages`, which is imported when a corpus first asks for it.

use pyo3::prelude::*;
use sabiprep::error::{Error, Result};
use sabiprep::segment::{IdentifyLanguage, Likelihood};

/// The library that `sabiprep.languages` wraps.
pub struct Library;

impl IdentifyLanguage for Library {
    fn open(&self) -> Result<(String, Vec<String>)> {
        Python::attach(|py| {
            let described = languages(py).and_then(|module| module.call_method0("describe"));
            described.and_then(|found| found.extract()).map_err(|error: PyErr| {
                Error::config(format!(
                    "`min_language` needs a library that identifies languages: {}",
                    error.value(py)
                ))
                .remedy("install it: pip install \"sabiprep[language]\", or remove `min_language`")
            })
        })
    }

    fn judge(&self, text: &str, code: &str) -> std::result::Result<Likelihood, String> {
        Python::attach(|py| {
            let judged =
                languages(py).and_then(|module| module.call_method1("judge", (text, code)));
            let (expected, likeliest, most) = judged
                .and_then(|found| found.extract())
                .map_err(|error: PyErr| error.value(py).to_string())?;
            Ok(Likelihood { expected, likeliest, most })
        })
    }
}

/// Returns the module.
fn languages(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import("sabiprep.languages")
}
