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
use sabiprep::tokenize::Encoder;
use sabiprep::verify::open_tokenizer;
use sabiprep::write::Manifest;

use crate::door::enter;

/// The decoder of a packed dataset.
#[pyclass(frozen, module = "sabiprep._core")]
pub struct Decoder(Encoder);

#[pymethods]
impl Decoder {
    /// Loads the tokenizer of a dataset, if it is the one it was packed with.
    #[new]
    fn new(py: Python<'_>, out: PathBuf) -> PyResult<Self> {
        enter(py, None, |_| open_tokenizer(&out, &Manifest::read(&out)?)).map(Self)
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
