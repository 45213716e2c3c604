//! The one error map: each kind of the core's error is one class of `sabiprep.errors`.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use sabiprep::error::{Error, ErrorKind};

/// The Python class of a kind.
fn class_of(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Config => "ConfigError",
        ErrorKind::Input => "InputError",
        ErrorKind::Tokenizer => "TokenizerError",
        ErrorKind::Dataset => "DatasetError",
        ErrorKind::Output => "OutputError",
        ErrorKind::Interrupted => "Interrupted",
        ErrorKind::System => "SabiprepError",
        ErrorKind::Internal => "InternalError",
    }
}

/// The Python exception of an error.
pub fn to_python(py: Python<'_>, error: &Error) -> PyErr {
    let build = || -> PyResult<PyErr> {
        let class = py.import("sabiprep.errors")?.getattr(class_of(error.kind))?;
        let place = PyDict::new(py);
        place.set_item("file", &error.file)?;
        place.set_item("line", error.line)?;
        place.set_item("source", &error.source_name)?;
        place.set_item("remedy", &error.remedy)?;
        Ok(PyErr::from_value(class.call((&error.message,), Some(&place))?))
    };
    build().unwrap_or_else(|failure| failure)
}
