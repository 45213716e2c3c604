//! Verifies a dataset, by itself and against its corpus.

use std::path::PathBuf;

use pyo3::prelude::*;
use sabiprep::commands::{self, Against};
use serde_json::json;

use crate::door::enter;
use crate::options::{Hub, hub_files};

/// Derives a sample of a dataset's records (all for `None`) again from its corpus, and compares.
/// Returns the counts and the failures as JSON.
#[pyfunction]
#[pyo3(signature = (out, corpus, *, sample, threads, progress, hub = None))]
pub fn verify_against(
    py: Python<'_>,
    out: PathBuf,
    corpus: PathBuf,
    sample: Option<u64>,
    threads: usize,
    progress: Option<&Bound<'_, PyAny>>,
    hub: Option<Hub>,
) -> PyResult<String> {
    let hub = hub_files(hub);
    let found = enter(py, progress, |context| {
        commands::verify_against(&out, &corpus, hub, sample, &context.with_threads(threads))
    })?;
    let Against { records, documents, failures } = found;
    Ok(json!({ "records": records, "documents": documents, "failures": failures }).to_string())
}

/// Verifies a dataset. Returns the counts and the failures as JSON.
#[pyfunction]
#[pyo3(signature = (out, *, progress))]
pub fn verify(
    py: Python<'_>,
    out: PathBuf,
    progress: Option<&Bound<'_, PyAny>>,
) -> PyResult<String> {
    let found = enter(py, progress, |context| sabiprep::verify::verify(&out, context))?;
    Ok(json!({
        "shards": found.shards,
        "rows": found.rows,
        "documents": found.documents,
        "failures": found.failures,
    })
    .to_string())
}
