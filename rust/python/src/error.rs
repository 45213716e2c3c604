//! The one error map: maps each kind of the core's error to a class of `sabiprep.errors`, and each
//! failure of the operating system that has a class in Python to an `errno`.

use std::io;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use sabiprep::error::{Error, ErrorKind, Place};

/// Returns the name of the Python class of a kind.
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

/// Returns the name in Python's `errno` of a failure that Python's own exceptions tell apart.
fn errno_of(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::NotFound => Some("ENOENT"),
        io::ErrorKind::PermissionDenied => Some("EACCES"),
        io::ErrorKind::AlreadyExists => Some("EEXIST"),
        io::ErrorKind::IsADirectory => Some("EISDIR"),
        io::ErrorKind::NotADirectory => Some("ENOTDIR"),
        io::ErrorKind::StorageFull => Some("ENOSPC"),
        _ => None,
    }
}

/// Returns the Python exception of an error.
pub fn to_python(py: Python<'_>, error: &Error) -> PyErr {
    // An exception that cannot be built is replaced by the reason.
    let build = || -> PyResult<PyErr> {
        let class = py.import("sabiprep.errors")?.getattr(class_of(error.kind))?;
        let place = PyDict::new(py);
        place.set_item("file", &error.file)?;
        match error.place {
            Some(Place::Line(line)) => place.set_item("line", line)?,
            Some(Place::Row(row)) => place.set_item("row", row)?,
            None => {}
        }
        place.set_item("source", &error.source_name)?;
        place.set_item("remedy", &error.remedy)?;
        if let Some(name) = error.io_kind.and_then(errno_of) {
            place.set_item("errno", py.import("errno")?.getattr(name)?)?;
        }
        Ok(PyErr::from_value(class.call((&error.message,), Some(&place))?))
    };
    build().unwrap_or_else(|failure| failure)
}

/// Returns a Python exception of the workers of a run as an error: the run can go on once they work.
pub fn from_python(py: Python<'_>, error: &PyErr) -> Error {
    let text = |name: &str| error.value(py).getattr(name).and_then(|text| text.extract()).ok();
    let message: String = text("message").unwrap_or_else(|| error.to_string());
    let remedy: String = text("remedy").unwrap_or_else(|| "see what the cluster says".to_owned());
    Error::system(message).remedy(remedy)
}
