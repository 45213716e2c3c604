//! Tasks: independent pieces of work on a few threads, results in the order of the tasks.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::error::{Error, Result};

/// Runs tasks `0..count`. The error is that of the first task, by index, that failed before the rest were stopped.
pub fn run<T: Send>(threads: usize, count: usize, task: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let results: Vec<Mutex<Option<Result<T>>>> = (0..count).map(|_| Mutex::new(None)).collect();
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(slot) = results.get(at) else { return };
            let result = catch_unwind(AssertUnwindSafe(|| task(at))).unwrap_or_else(|panic| Err(panicked(&*panic)));
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            *slot.lock().expect("nothing panics while it holds a result") = Some(result);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.clamp(1, count.max(1)) {
            scope.spawn(work);
        }
        work();
    });
    let results = results.into_iter().map(|slot| slot.into_inner().expect("nothing panics while it holds a result"));
    // After a failure the later slots may be empty; the failure itself comes before them.
    results.map_while(|result| result).collect()
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Error::internal(format!("a task panicked: {}", text.unwrap_or("no message")))
        .remedy("this is a bug in sabiprep: please report it with the input that shows it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_their_order_and_failures_are_found() {
        for threads in 1..4 {
            assert_eq!(run(threads, 50, |at| Ok(at * 2)).unwrap(), (0..50).map(|at| at * 2).collect::<Vec<_>>());
            let failing = |at| if at == 7 { Err(Error::input("seven")) } else { Ok(at) };
            assert_eq!(run(threads, 50, failing).unwrap_err().message, "seven");
            assert!(run(threads, 3, |at| -> Result<()> { panic!("task {at}") }).is_err());
        }
    }
}
