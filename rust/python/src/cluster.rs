//! Packing by several processes: the worker that does tasks, the workers that a leader has, parts.

use std::path::PathBuf;

use once_cell::sync::OnceCell;
use pyo3::prelude::*;
use sabiprep::context::Context;
use sabiprep::error::{Error, Result};
use sabiprep::pipeline::{self, Order, Take, Workers};
use sabiprep::plan::PackOptions;

use crate::door::enter;
use crate::error::from_python;
use crate::options::{Hub, Options};
use crate::pipeline::to_json;

/// Workers that a Python function has at its command. It takes a list of orders (kind, tasks,
/// weight, file) and returns an iterator of outcomes (index of the order, its text), and of None
/// while it waits.
#[derive(Debug)]
pub struct PythonWorkers(pub Py<PyAny>);

impl Workers for PythonWorkers {
    fn run(&self, orders: &[Order], take: &mut Take<'_>) -> Result<()> {
        let sent: Vec<(&str, &[String], u64, usize)> = orders
            .iter()
            .map(|order| (order.kind, order.tasks.as_slice(), order.weight, order.file))
            .collect();
        let failed = |error: PyErr| Python::attach(|py| from_python(py, &error));
        let outcomes = Python::attach(|py| self.0.call1(py, (sent,))).map_err(failed)?;
        let mut work = || -> Result<()> {
            loop {
                let next = Python::attach(|py| -> PyResult<Option<Option<(usize, String)>>> {
                    let mut outcomes = outcomes.bind(py).try_iter()?;
                    outcomes.next().transpose()?.map(|outcome| outcome.extract()).transpose()
                });
                match next.map_err(failed)? {
                    None => return Ok(()),
                    Some(None) => take(None)?,
                    Some(Some((index, text))) => take(Some((index, &text)))?,
                }
            }
        };
        let result = work();
        if result.is_err() {
            // A generator that is closed calls back what it has under way. The error comes first.
            let _ = Python::attach(|py| outcomes.call_method0(py, "close"));
        }
        result
    }
}

/// A process that does tasks of a run that another process leads. Threads may call its
/// methods concurrently.
#[pyclass(module = "sabiprep._core", frozen)]
pub struct Worker {
    corpus: PathBuf,
    options: PackOptions,
    out: PathBuf,
    joined: OnceCell<pipeline::Worker>,
}

#[pymethods]
impl Worker {
    /// Makes a worker for the run that packs a corpus into a folder, with its options.
    #[new]
    #[pyo3(signature = (corpus, out, options, *, hub = None))]
    fn new(corpus: PathBuf, out: PathBuf, options: Options, hub: Option<Hub>) -> Self {
        let options = options.with_hub(hub);
        Self { corpus, options, out, joined: OnceCell::new() }
    }

    /// Does tasks of a kind, given as JSON, by some threads. Returns their outcome as JSON; their
    /// errors are in it.
    fn run(
        &self,
        py: Python<'_>,
        kind: &str,
        tasks: Vec<String>,
        threads: usize,
    ) -> PyResult<String> {
        enter(py, None, |context| {
            let context = &context.with_threads(threads);
            match kind {
                "inputs" => Ok(pipeline::sum_inputs(&self.corpus, &self.options, &tasks, context)),
                "map" | "reduce" => Ok(match self.joined(context) {
                    Err(error) => pipeline::refusal(error, context),
                    Ok(worker) if kind == "map" => worker.map(&tasks, context),
                    Ok(worker) => worker.reduce(&tasks, context),
                }),
                _ => Err(Error::internal(format!("{kind} is no kind of tasks"))),
            }
        })
    }

    /// Makes the shards of part `part` of `parts`, counted from 0. Returns their number, and that of
    /// all shards.
    fn reduce_part(
        &self,
        py: Python<'_>,
        part: (usize, usize),
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<(usize, usize)> {
        enter(py, progress, |context| {
            let context = &context.with_threads(self.options.threads);
            self.joined(context)?.reduce_part(part, context)
        })
    }
}

impl Worker {
    /// Returns the worker of the run, which is joined with the first task; others wait for that.
    fn joined(&self, context: &Context<'_>) -> Result<&pipeline::Worker> {
        self.joined.get_or_try_init(|| {
            pipeline::Worker::join(&self.corpus, &self.out, &self.options, context)
        })
    }
}

/// Packs a corpus by the workers of a Python function, and returns the report as JSON.
#[pyfunction]
#[pyo3(signature = (corpus, out, options, workers, progress, *, hub = None))]
pub fn pack_with(
    py: Python<'_>,
    corpus: PathBuf,
    out: PathBuf,
    options: Options,
    workers: Py<PyAny>,
    progress: Option<&Bound<'_, PyAny>>,
    hub: Option<Hub>,
) -> PyResult<String> {
    let (options, workers) = (options.with_hub(hub), PythonWorkers(workers));
    enter(py, progress, |context| {
        to_json(&pipeline::pack_with(&workers, &corpus, &out, &options, context)?)
    })
}

/// Maps a part of a corpus, such as (0, 16), and returns what was done as JSON.
#[pyfunction]
#[pyo3(signature = (corpus, out, options, part, progress, *, hub = None))]
pub fn map_part(
    py: Python<'_>,
    corpus: PathBuf,
    out: PathBuf,
    options: Options,
    part: (usize, usize),
    progress: Option<&Bound<'_, PyAny>>,
    hub: Option<Hub>,
) -> PyResult<String> {
    let options = options.with_hub(hub);
    enter(py, progress, |context| {
        to_json(&pipeline::map_part(&corpus, &out, &options, part, context)?)
    })
}

/// Finishes a dataset whose parts are mapped, and returns the report as JSON.
#[pyfunction]
#[pyo3(signature = (corpus, out, options, progress, *, hub = None))]
pub fn finish(
    py: Python<'_>,
    corpus: PathBuf,
    out: PathBuf,
    options: Options,
    progress: Option<&Bound<'_, PyAny>>,
    hub: Option<Hub>,
) -> PyResult<String> {
    let options = options.with_hub(hub);
    enter(py, progress, |context| to_json(&pipeline::finish(&corpus, &out, &options, context)?))
}

/// Settles a dataset whose parts are mapped, for others to make its shards. Returns their number.
#[pyfunction]
#[pyo3(signature = (corpus, out, options, progress, *, hub = None))]
pub fn settle_parts(
    py: Python<'_>,
    corpus: PathBuf,
    out: PathBuf,
    options: Options,
    progress: Option<&Bound<'_, PyAny>>,
    hub: Option<Hub>,
) -> PyResult<usize> {
    let options = options.with_hub(hub);
    enter(py, progress, |context| pipeline::settle_parts(&corpus, &out, &options, context))
}
