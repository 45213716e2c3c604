//! Decoding the tokens of a dataset.

use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::StringArray;
use arrow_array::cast::AsArray;
use arrow_array::types::UInt32Type;
use arrow_schema::DataType;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3_arrow::PyArray;
use sabiprep::tokenize::{ControlIds, Encoder};

use crate::door::enter;

/// The decoder of a tokenizer file.
#[pyclass(frozen, module = "sabiprep._core")]
pub struct Decoder(Encoder);

#[pymethods]
impl Decoder {
    /// Loads a tokenizer file.
    #[new]
    fn new(py: Python<'_>, file: PathBuf) -> PyResult<Self> {
        // Decoding places no control token.
        let controls = ControlIds { bos: None, eos: 0, pad: 0 };
        enter(py, None, |_| Encoder::of_dataset(&file, controls)).map(Self)
    }

    /// The text that each token of an Arrow uint32 array adds, as an Arrow string array.
    fn pieces(&self, py: Python<'_>, ids: PyArray) -> PyResult<PyArray> {
        let (ids, _) = ids.into_inner();
        if ids.data_type() != &DataType::UInt32 {
            return Err(PyTypeError::new_err(format!("ids are {}, not uint32", ids.data_type())));
        }
        let pieces = enter(py, None, |_| self.0.pieces(ids.as_primitive::<UInt32Type>().values()))?;
        Ok(PyArray::from_array_ref(Arc::new(StringArray::from(pieces))))
    }
}
