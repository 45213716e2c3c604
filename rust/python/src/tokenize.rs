//! Encodes texts, and turns the tokens of a dataset back to text.

use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt32Type;
use arrow_array::{Array, ListArray, StringArray, StringArrayType, UInt32Array, make_array};
use arrow_buffer::OffsetBuffer;
use arrow_data::ArrayData;
use arrow_pyarrow::PyArrowType;
use arrow_schema::{DataType, Field};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyUnicodeEncodeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};
use sabiprep::error::Error;
use sabiprep::tokenize::{self, Encoder, Ids, Share};
use sabiprep::verify::open_tokenizer;
use sabiprep::write::Manifest;

use crate::door::enter;

/// The decoder of a packed dataset.
#[pyclass(frozen, module = "sabiprep._core")]
pub struct Decoder(Encoder);

#[pymethods]
impl Decoder {
    /// Loads the tokenizer of a dataset. Refuses a tokenizer that the dataset was not packed with.
    #[new]
    fn new(py: Python<'_>, out: PathBuf) -> PyResult<Self> {
        enter(py, None, |context| {
            let manifest = Manifest::read(context.storage, &out)?;
            open_tokenizer(context.storage, &out, &manifest)
        })
        .map(Self)
    }

    /// Returns the text that each token of an Arrow uint32 array adds, as an Arrow string array.
    fn pieces(
        &self,
        py: Python<'_>,
        ids: PyArrowType<ArrayData>,
    ) -> PyResult<PyArrowType<ArrayData>> {
        let ids = make_array(ids.0);
        if ids.data_type() != &DataType::UInt32 {
            return Err(PyTypeError::new_err(format!("ids are {}, not uint32", ids.data_type())));
        }
        let pieces = enter(py, None, |_| self.0.pieces(ids.as_primitive::<UInt32Type>().values()))?;
        Ok(PyArrowType(StringArray::from(pieces).into_data()))
    }
}

/// The encoder of a tokenizer file, for text alone.
#[pyclass(frozen, module = "sabiprep._core")]
pub struct TextEncoder(tokenize::TextEncoder);

#[pymethods]
impl TextEncoder {
    /// Loads a tokenizer file.
    #[new]
    fn new(py: Python<'_>, file: PathBuf) -> PyResult<Self> {
        enter(py, None, |context| tokenize::TextEncoder::load(&file, context.storage)).map(Self)
    }

    /// Returns the name of the engine that encodes, and the reason.
    #[getter]
    fn engine(&self) -> String {
        self.0.engine().name()
    }

    /// Returns a warning about the engine, if there is one.
    #[getter]
    fn warning(&self) -> Option<String> {
        self.0.engine().warning()
    }

    /// Returns the ids of texts, given as a list of str or an Arrow string array. The ids are an
    /// Arrow list<uint32> array.
    #[pyo3(signature = (texts, *, threads))]
    fn encode(
        &self,
        py: Python<'_>,
        texts: &Bound<'_, PyAny>,
        threads: usize,
    ) -> PyResult<PyArrowType<ArrayData>> {
        if !texts.hasattr("__arrow_c_array__")? {
            return self.encode_list(texts.cast()?, threads);
        }
        let array = make_array(texts.extract::<PyArrowType<ArrayData>>()?.0);
        if array.null_count() > 0 {
            return Err(PyValueError::new_err(format!(
                "{} of the texts are null",
                array.null_count()
            )));
        }
        match array.data_type() {
            DataType::Utf8 => self.encode_array(py, array.as_string::<i32>(), threads),
            DataType::LargeUtf8 => self.encode_array(py, array.as_string::<i64>(), threads),
            DataType::Utf8View => self.encode_array(py, array.as_string_view(), threads),
            other => Err(PyTypeError::new_err(format!("texts are {other}, not strings"))),
        }
    }
}

impl TextEncoder {
    /// Returns the ids of a string array without nulls.
    fn encode_array<'a>(
        &self,
        py: Python<'_>,
        texts: impl StringArrayType<'a> + Send,
        threads: usize,
    ) -> PyResult<PyArrowType<ArrayData>> {
        let count = texts.len();
        let mut texts = (0..count).map(|index| texts.value(index));
        enter(py, None, |context| {
            let next = |share: &mut Share| {
                share.fill(&mut texts);
                context.monitor.check()
            };
            lists(self.0.encode_from(count, threads, next)?)
        })
        .map(|ids| PyArrowType(ids.into_data()))
    }

    /// Returns the ids of a list of str. The thread that needs more texts takes the GIL to read
    /// them, while the others encode.
    fn encode_list(
        &self,
        texts: &Bound<'_, PyList>,
        threads: usize,
    ) -> PyResult<PyArrowType<ArrayData>> {
        let (py, count, list) = (texts.py(), texts.len(), texts.as_unbound());
        // An exception cannot pass through the core, so it is kept in `failed`.
        let (mut index, mut failed) = (0, None);
        let ids = enter(py, None, |context| {
            let next = |share: &mut Share| {
                context.monitor.check()?;
                let read = Python::attach(|py| {
                    let list = list.bind(py);
                    // Other Python threads run meanwhile and may change the list.
                    if index < count && list.len() != count {
                        return Err(PyRuntimeError::new_err(
                            "the list changed size while it was encoded",
                        ));
                    }
                    while index < count && !share.is_full() {
                        let text = list.get_item(index)?;
                        let text = text.cast::<PyString>().map_err(|_| no_text(index, &text))?;
                        share.push(text.to_str().map_err(|error| not_unicode(py, index, error))?);
                        index += 1;
                    }
                    Ok(())
                });
                read.map_err(|error: PyErr| {
                    failed = Some(error);
                    Error::input("a text could not be read")
                })
            };
            lists(self.0.encode_from(count, threads, next)?)
        });
        match failed {
            Some(error) => Err(error),
            None => ids.map(|ids| PyArrowType(ids.into_data())),
        }
    }
}

/// Returns the error of an item of a list that is not a str.
fn no_text(index: usize, found: &Bound<'_, PyAny>) -> PyErr {
    let kind =
        found.get_type().name().map_or_else(|_| "an object".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!("text {index} of the list is {kind}, not str"))
}

/// Returns the error of a str that is not valid Unicode, with its index; other errors stay.
fn not_unicode(py: Python<'_>, index: usize, error: PyErr) -> PyErr {
    if !error.is_instance_of::<PyUnicodeEncodeError>(py) {
        return error;
    }
    PyValueError::new_err(format!("text {index} of the list is not valid Unicode: {error}"))
}

/// Returns ids as an Arrow list array.
fn lists(ids: Ids) -> Result<ListArray, Error> {
    if i32::try_from(ids.flat.len()).is_err() {
        return Err(Error::input(format!(
            "{} ids are more than one Arrow list array can hold",
            ids.flat.len()
        ))
        .remedy("encode the texts in several calls"));
    }
    let item = Arc::new(Field::new_list_field(DataType::UInt32, false));
    let offsets = OffsetBuffer::from_lengths(ids.lengths);
    ListArray::try_new(item, offsets, Arc::new(UInt32Array::from(ids.flat)), None)
        .map_err(|error| Error::internal(error.to_string()))
}
