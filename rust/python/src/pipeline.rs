//! Packs, explains a record, trains a tokenizer.

use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::{BooleanArray, RecordBatch, StringArray, UInt8Array, UInt32Array};
use arrow_pyarrow::PyArrowType;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use sabiprep::commands::{self, Explanation};
use sabiprep::error::{Error, Result};
use sabiprep::pipeline;
use sabiprep::plan::Plan;
use sabiprep::schema::Refusal;
use serde::Serialize;
use serde_json::json;

use crate::door::enter;
use crate::error::to_python;
use crate::options::{Hub, Options, hub_files};

/// Packs a corpus and returns the report as JSON.
#[pyfunction]
#[pyo3(signature = (corpus, out, options, progress, *, hub = None))]
pub fn pack(
    py: Python<'_>,
    corpus: Option<PathBuf>,
    out: PathBuf,
    options: Options,
    progress: Option<&Bound<'_, PyAny>>,
    hub: Option<Hub>,
) -> PyResult<String> {
    let options = options.with_hub(hub);
    enter(py, progress, |context| {
        to_json(&pipeline::pack(corpus.as_deref(), &out, &options, context)?)
    })
}

/// Returns a report as JSON.
pub fn to_json(report: &impl Serialize) -> Result<String> {
    serde_json::to_string(report).map_err(|error| Error::internal(error.to_string()))
}

/// Explains a record, given as JSON. Returns the stages of each of its documents as a list in JSON,
/// and the tokens of all as an Arrow table.
#[pyfunction]
#[pyo3(signature = (corpus, source, record, options, *, hub = None))]
pub fn explain(
    py: Python<'_>,
    corpus: PathBuf,
    source: &str,
    record: &str,
    options: Options,
    hub: Option<Hub>,
) -> PyResult<(String, PyArrowType<RecordBatch>)> {
    let options = options.with_hub(hub);
    let documents = enter(py, None, |context| {
        let plan = Plan::load(&corpus, &options, context.storage)?;
        commands::explain(plan, source, record.as_bytes(), context)
    })?;
    let tokens = token_table(&documents)
        .map_err(|error| to_python(py, &Error::internal(error.to_string())))?;
    // Few values: JSON will do. Tokens may be thousands.
    let stages: Vec<_> = documents.iter().map(stages_of).collect();
    Ok((json!(stages).to_string(), PyArrowType(tokens)))
}

/// Returns the stages of a document, but for its tokens.
fn stages_of(document: &Explanation) -> serde_json::Value {
    let spans = document.spans.iter().map(
        |(role, literal, text)| json!({ "role": *role as u8, "literal": literal, "text": text }),
    );
    let refusal =
        |refusal: &Refusal| json!({ "reason": refusal.reason.name(), "why": refusal.why });
    json!({
        "source": document.source,
        "part": document.part,
        "spans": spans.collect::<Vec<_>>(),
        "runs": document.runs,
        "truncated": document.truncated,
        "weight": document.weight,
        "cleaned": document.cleaned,
        "left_out": document.left_out.iter().map(refusal).collect::<Vec<_>>(),
        "dropped": document.dropped.as_ref().map(refusal),
    })
}

/// Returns the tokens of all documents as a table.
fn token_table(
    documents: &[Explanation],
) -> std::result::Result<RecordBatch, arrow_schema::ArrowError> {
    let tokens: Vec<_> = documents.iter().flat_map(|document| &document.tokens).collect();
    let indices = (0_u32..)
        .zip(documents)
        .flat_map(|(index, document)| std::iter::repeat_n(index, document.tokens.len()));
    RecordBatch::try_from_iter([
        ("id", Arc::new(tokens.iter().map(|token| token.id).collect::<UInt32Array>()) as _),
        (
            "text",
            Arc::new(StringArray::from_iter_values(tokens.iter().map(|token| &token.piece))) as _,
        ),
        (
            "role",
            Arc::new(tokens.iter().map(|token| token.role as u8).collect::<UInt8Array>()) as _,
        ),
        (
            "trained",
            Arc::new(tokens.iter().map(|token| Some(token.trained)).collect::<BooleanArray>()) as _,
        ),
        ("window", Arc::new(tokens.iter().map(|token| token.window).collect::<UInt32Array>()) as _),
        ("document", Arc::new(indices.collect::<UInt32Array>()) as _),
    ])
}

/// Trains a tokenizer on a corpus and writes its file. Returns the counts of its records as JSON.
#[pyfunction]
#[pyo3(signature = (corpus, file, vocab_size, *, overwrite, progress, hub = None))]
pub fn train_tokenizer(
    py: Python<'_>,
    corpus: PathBuf,
    file: PathBuf,
    vocab_size: usize,
    overwrite: bool,
    progress: Option<&Bound<'_, PyAny>>,
    hub: Option<Hub>,
) -> PyResult<String> {
    let hub = hub_files(hub);
    enter(py, progress, |context| {
        let wanted = (vocab_size, overwrite);
        let report = commands::train_tokenizer_with(&corpus, hub, &file, wanted, context)?;
        Ok(json!({
            "vocab_size": report.vocab_size,
            "specials": report.specials,
            "records": report.records,
            "passed_over": report.passed_over,
            "drops": report.drops,
            "examples": report.examples,
        })
        .to_string())
    })
}

/// Returns the content of a file of at most `limit` bytes.
#[pyfunction]
pub fn read_file(py: Python<'_>, path: PathBuf, limit: u64) -> PyResult<Bound<'_, PyBytes>> {
    let content = enter(py, None, |context| context.storage.bytes_up_to(&path, limit))?;
    Ok(PyBytes::new(py, &content))
}
