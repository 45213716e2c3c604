//! `sabiprep._core`: the core for Python. Newtypes and this one list of exports, without logic.

#![expect(clippy::needless_pass_by_value, reason = "arguments come from Python by value")]

mod cluster;
mod door;
mod error;
mod language;
mod options;
mod pipeline;
mod survey;
mod tokenize;
mod verify;

use mimalloc::MiMalloc;
use pyo3::prelude::*;

/// Threads free what other threads have allocated, which the allocator of glibc is slow at.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The Rust core of sabiprep.
#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    sabiprep::segment::register_identifier(Box::new(language::Library));
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("OPTION_NAMES", options::NAMES)?;
    module.add_function(wrap_pyfunction!(pipeline::pack, module)?)?;
    module.add_function(wrap_pyfunction!(pipeline::explain, module)?)?;
    module.add_function(wrap_pyfunction!(pipeline::train_tokenizer, module)?)?;
    module.add_function(wrap_pyfunction!(pipeline::read_file, module)?)?;
    module.add_function(wrap_pyfunction!(survey::survey, module)?)?;
    module.add_function(wrap_pyfunction!(survey::init, module)?)?;
    module.add_function(wrap_pyfunction!(verify::verify, module)?)?;
    module.add_function(wrap_pyfunction!(verify::verify_against, module)?)?;
    module.add_function(wrap_pyfunction!(cluster::pack_with, module)?)?;
    module.add_function(wrap_pyfunction!(cluster::map_part, module)?)?;
    module.add_function(wrap_pyfunction!(cluster::settle_parts, module)?)?;
    module.add_function(wrap_pyfunction!(cluster::finish, module)?)?;
    module.add_class::<cluster::Worker>()?;
    module.add_class::<tokenize::Decoder>()?;
    module.add_class::<tokenize::TextEncoder>()?;
    Ok(())
}
