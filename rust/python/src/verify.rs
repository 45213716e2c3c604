//! Verifying a dataset.

use std::path::PathBuf;

use pyo3::prelude::*;
use serde_json::json;

use crate::door::enter;

/// Verifies a dataset; gives what was checked and what failed as JSON.
#[pyfunction]
#[pyo3(signature = (out, *, progress))]
pub fn verify(py: Python<'_>, out: PathBuf, progress: Option<&Bound<'_, PyAny>>) -> PyResult<String> {
    let found = enter(py, progress, |monitor| sabiprep::verify::verify(&out, monitor))?;
    Ok(json!({
        "shards": found.shards,
        "rows": found.rows,
        "documents": found.documents,
        "failures": found.failures,
    })
    .to_string())
}
