//! The one door to long work: releases the GIL, lets Ctrl-C through, reports progress and maps
//! errors.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use pyo3::prelude::*;
use sabiprep::context::Context;
use sabiprep::error::{Error, Result};
use sabiprep::monitor::Monitor;
use sabiprep::storage::Places;

use crate::error::to_python;

/// The time between two looks at signals and two reports of progress.
const TICK: Duration = Duration::from_millis(50);

/// Runs `work` on a thread of its own and returns its result. An exception from a signal or from
/// `progress` stops the work, and is raised once the work has stopped.
pub fn enter<T: Send>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&Context<'_>) -> Result<T> + Send,
) -> PyResult<T> {
    let monitor = Monitor::default();
    let done = AtomicBool::new(false);
    let waiting = thread::current();
    thread::scope(|scope| {
        let worker = thread::Builder::new().spawn_scoped(scope, || {
            let storage = Places::default();
            let context = Context { threads: 1, monitor: &monitor, storage: &storage };
            let result = work(&context);
            done.store(true, Relaxed);
            waiting.unpark();
            result
        });
        let worker = worker.map_err(|error| {
            let error = Error::system(format!("the system has no thread left to work on: {error}"));
            to_python(
                py,
                &error.remedy(
                    "end other programs, or raise the limits on processes and memory (ulimit -a)",
                ),
            )
        })?;
        // Python looks at signals on this thread alone, so it stays here and the work does not.
        let mut stopped = None;
        while !done.load(Relaxed) && !worker.is_finished() {
            py.detach(|| thread::park_timeout(TICK));
            if stopped.is_none()
                && let Err(error) = py.check_signals().and_then(|()| tell(progress, &monitor))
            {
                monitor.cancel();
                stopped = Some(error);
            }
        }
        let result = py.detach(|| worker.join());
        match (stopped, result) {
            // Work that was done before it could be stopped is done.
            (_, Ok(Ok(done))) => Ok(done),
            (Some(error), _) => Err(error),
            (None, Ok(Err(error))) => Err(to_python(py, &error)),
            (None, Err(_)) => Err(to_python(
                py,
                &Error::internal("the core panicked")
                    .remedy("this is a bug in sabiprep: please report it"),
            )),
        }
    })
}

/// Calls `progress` with the phase and the counters of the monitor.
fn tell(progress: Option<&Bound<'_, PyAny>>, monitor: &Monitor) -> PyResult<()> {
    let Some(progress) = progress else { return Ok(()) };
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
    let counters =
        (read(&monitor.records), read(&monitor.done), read(&monitor.total), read(&monitor.tokens));
    progress.call1((monitor.phase().name(), counters.0, counters.1, counters.2, counters.3))?;
    Ok(())
}
