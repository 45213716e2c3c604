//! The runtime that requests run on. It starts with the first request of the process.

use std::future::Future;
use std::io;
use std::sync::{Mutex, PoisonError};

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// The threads that move bytes; hashing and packing have threads of their own.
const THREADS: usize = 2;

/// The runtime with the id of the process that started it.
static RUNTIME: Mutex<Option<(u32, &'static Runtime)>> = Mutex::new(None);

/// Returns the runtime of this process; starts it where there is none.
fn runtime() -> io::Result<&'static Runtime> {
    let mut known = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if let Some((owner, runtime)) = *known
        && owner == process
    {
        return Ok(runtime);
    }
    // A forked process has none of the threads of its parent: it starts its own.
    let runtime = Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("sabiprep-store")
        .enable_all()
        .build()?;
    let runtime = Box::leak(Box::new(runtime));
    *known = Some((process, runtime));
    Ok(runtime)
}

/// Waits for a future on this thread.
pub(super) fn wait<T>(future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    runtime()?.block_on(future)
}

/// A future that runs by itself until it is dropped.
#[derive(Debug)]
pub(super) struct Running<T>(JoinHandle<io::Result<T>>);

impl<T: Send + 'static> Running<T> {
    /// Starts a future.
    pub(super) fn start(
        future: impl Future<Output = io::Result<T>> + Send + 'static,
    ) -> io::Result<Self> {
        Ok(Self(runtime()?.spawn(future)))
    }

    /// Waits for its result.
    pub(super) fn join(mut self) -> io::Result<T> {
        wait(async { (&mut self.0).await.map_err(io::Error::other)? })
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
