//! Runs independent tasks on a few threads; the results have the order of the tasks.
//!
//! If the system has no thread left, fewer threads do the work. The calling thread always takes
//! part.

mod helpers;

use std::cmp::Reverse;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

pub(crate) use helpers::{Helpers, Shared};

use crate::error::{Error, Result};

/// Runs tasks `0..count` and returns their results in order. The error is that of the first task,
/// by index, that failed before the rest were stopped.
pub fn run<T: Send>(
    threads: usize,
    count: usize,
    task: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    run_then(threads.min(count), count, task, || {})
}

/// Runs tasks as [`run`] does. A thread that finds no task left ends with `rest`.
fn run_then<T: Send>(
    threads: usize,
    count: usize,
    task: impl Fn(usize) -> Result<T> + Sync,
    rest: impl Fn() + Sync,
) -> Result<Vec<T>> {
    let results: Vec<Mutex<Option<Result<T>>>> = (0..count).map(|_| Mutex::new(None)).collect();
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(slot) = results.get(index) else { break };
            let result = attempt(|| task(index));
            // Other threads finish their task and take no new one.
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            *slot.lock().expect("nothing panics while it holds a result") = Some(result);
        }
        rest();
    };
    thread::scope(|scope| {
        // The calling thread is one of the `threads`, and goes on alone if no other can be made.
        for _ in 1..threads {
            if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    let results = results
        .into_iter()
        .map(|slot| slot.into_inner().expect("nothing panics while it holds a result"));
    // After a failure later slots may be empty; the failure itself comes before them.
    results.map_while(|result| result).collect()
}

/// Runs tasks of known sizes, the largest first, so that no thread has much left to do when the
/// others are done.
pub(crate) fn run_largest_first<T: Send>(
    threads: usize,
    sizes: &[u64],
    task: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    run_sharing(threads.min(sizes.len()), sizes, |nth, _| task(nth))
}

/// Runs tasks as [`run_largest_first`] does. A thread without a task left helps the tasks that
/// share their work.
pub(crate) fn run_sharing<'p, T: Send>(
    threads: usize,
    sizes: &[u64],
    task: impl Fn(usize, &Helpers<'p>) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&index| Reverse(sizes[index]));
    let helpers = Helpers::new(order.len());
    let run_one = |nth: usize| {
        let result = attempt(|| task(order[nth], &helpers));
        helpers.end_task(result.is_err());
        result
    };
    let results = run_then(threads, order.len(), run_one, || helpers.help())?;
    let mut results: Vec<(usize, T)> = order.into_iter().zip(results).collect();
    results.sort_unstable_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

/// Returns the results of `first` and `second`, which run at the same time if there is more than
/// one thread. Panics if one of them panics.
pub(crate) fn both<A: Send, B>(
    threads: usize,
    first: impl FnOnce() -> A + Send,
    second: impl FnOnce() -> B,
) -> (A, B) {
    if threads == 1 {
        return (first(), second());
    }
    // A closure whose thread could not be started is lost. This closure leaves `first` behind, so
    // that the calling thread can still run it.
    let first = Mutex::new(Some(first));
    let run_first = || {
        let first = lock(&first).take();
        first.map(|first| first())
    };
    let (found, second) = thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, run_first);
        let second = second();
        let found = thread
            .ok()
            .and_then(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        (found, second)
    });
    (found.or_else(run_first).expect("one of the two ran it"), second)
}

/// Locks `mutex`, ignoring poisoning. Only for data that is valid after every statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the result of `task`, or an error if it panics.
fn attempt<T>(task: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(task)).unwrap_or_else(|panic| Err(panicked(&*panic)))
}

/// Returns the error about a task that panicked.
fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    Error::internal(format!("a task panicked: {}", text.unwrap_or("no message")))
        .remedy("this is a bug in sabiprep: please report it with the input that shows it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_go_first() {
        let started = Mutex::new(Vec::new());
        run_largest_first(1, &[3, 7, 5], |at| {
            started.lock().unwrap().push(at);
            Ok(())
        })
        .unwrap();
        assert_eq!(started.into_inner().unwrap(), [1, 2, 0]);
    }

    #[test]
    fn results_keep_their_order_and_failures_are_found() {
        for threads in 1..4 {
            assert_eq!(
                run(threads, 50, |at| Ok(at * 2)).unwrap(),
                (0..50).map(|at| at * 2).collect::<Vec<_>>()
            );
            let failing = |at| if at == 7 { Err(Error::input("seven")) } else { Ok(at) };
            assert_eq!(run(threads, 50, failing).unwrap_err().message, "seven");
            assert!(run(threads, 3, |at| -> Result<()> { panic!("task {at}") }).is_err());
            let sizes = [3, 1, 4, 1, 5, 9, 2, 6];
            let found = run_largest_first(threads, &sizes, |at| Ok(sizes[at])).unwrap();
            assert_eq!(found, sizes);
            assert_eq!(both(threads, || 1, || "two"), (1, "two"));
            assert!(catch_unwind(|| both(threads, || panic!("the first"), || ())).is_err());
        }
    }

    /// Runs this test again where no thread can be made: each would need more memory than there are
    /// addresses for.
    #[test]
    fn a_system_out_of_threads_gets_the_work_done_by_one() {
        const HERE: &str = "tasks::tests::a_system_out_of_threads_gets_the_work_done_by_one";
        const STACK: &str = "RUST_MIN_STACK";
        if std::env::var_os(STACK).is_none() {
            let mut again = std::process::Command::new(std::env::current_exe().unwrap());
            again.args(["--exact", HERE, "--test-threads=1"]).env(STACK, (1_u64 << 50).to_string());
            let output = again.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            return;
        }
        assert!(thread::Builder::new().spawn(|| ()).is_err(), "there is a thread after all");
        assert_eq!(
            run(8, 50, |at| Ok(at * 2)).unwrap(),
            (0..50).map(|at| at * 2).collect::<Vec<_>>()
        );
        assert_eq!(both(2, || 1, || "two"), (1, "two"));
    }
}
