//! `Helpers`: threads of a run that have no task left, and the work that running tasks share with
//! them.
//!
//! A task shares work only while helpers want it, so that a task without helpers pays nothing. The
//! task waits for the results in whatever order it needs, and works on the queue itself while it
//! waits: shared work shares nothing on, so no thread ever waits for itself.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::sync::{Condvar, Mutex, PoisonError};

use super::lock;

/// Shared work that no thread has begun.
type Piece<'p> = Box<dyn FnOnce() + Send + 'p>;

/// The threads without a task, and the queue that they work on.
pub(crate) struct Helpers<'p> {
    state: Mutex<State<'p>>,
    changed: Condvar,
    /// The number of helpers, for tasks that look without the lock.
    count: AtomicUsize,
    /// How many more pieces the queue should hold, for tasks that look without the lock.
    wanted: AtomicUsize,
}

/// The state that the threads share.
struct State<'p> {
    queue: VecDeque<Piece<'p>>,
    helpers: usize,
    /// Tasks that may still share work.
    unfinished: usize,
}

/// The result of shared work, once a thread has done it.
pub(crate) struct Shared<T>(Receiver<Result<T, Box<dyn Any + Send>>>);

impl<'p> Helpers<'p> {
    /// Returns the helpers of a run of `tasks` tasks, before any thread is free.
    pub(super) fn new(tasks: usize) -> Self {
        let state = State { queue: VecDeque::new(), helpers: 0, unfinished: tasks };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            count: AtomicUsize::new(0),
            wanted: AtomicUsize::new(0),
        }
    }

    /// Returns helpers that never come, for a task that runs alone.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self::new(0)
    }

    /// Returns the number of threads without a task.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Returns whether helpers want more work than the queue holds.
    pub(crate) fn want_work(&self) -> bool {
        self.wanted.load(Relaxed) > 0
    }

    /// Puts `work` into the queue.
    pub(crate) fn share<T: Send + 'p>(&self, work: impl FnOnce() -> T + Send + 'p) -> Shared<T> {
        let (sender, receiver) = sync_channel(1);
        let piece = move || {
            let result = catch_unwind(AssertUnwindSafe(work));
            // A task that has failed takes no results.
            let _ = sender.send(result);
        };
        let mut state = lock(&self.state);
        state.queue.push_back(Box::new(piece));
        self.update(&state);
        drop(state);
        self.changed.notify_one();
        Shared(receiver)
    }

    /// Returns the result of shared work, and works on the queue until it is there. Panics if the
    /// work did.
    pub(crate) fn wait<T>(&self, shared: &Shared<T>) -> T {
        loop {
            if let Some(result) = shared.ready() {
                return result;
            }
            let Some(piece) = self.take(&mut lock(&self.state)) else { break };
            piece();
        }
        let result = shared.0.recv().expect("shared work sends its result, whatever happens");
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Works on the queue as a thread without a task, until no task is left that could share more.
    pub(super) fn help(&self) {
        let mut state = lock(&self.state);
        state.helpers += 1;
        self.update(&state);
        while state.unfinished > 0 {
            if let Some(piece) = self.take(&mut state) {
                drop(state);
                piece();
                state = lock(&self.state);
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Counts a task that ended. After a failure, helpers stop too.
    pub(super) fn end_task(&self, failed: bool) {
        let mut state = lock(&self.state);
        state.unfinished = if failed { 0 } else { state.unfinished.saturating_sub(1) };
        if state.unfinished == 0 {
            state.helpers = 0;
            self.update(&state);
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Takes the piece that has waited longest.
    fn take(&self, state: &mut State<'p>) -> Option<Piece<'p>> {
        let piece = state.queue.pop_front();
        self.update(state);
        piece
    }

    /// Notes what tasks look at without the lock: two pieces for each helper, so that none waits
    /// while a task is busy.
    fn update(&self, state: &State<'p>) {
        self.count.store(state.helpers, Relaxed);
        self.wanted.store((2 * state.helpers).saturating_sub(state.queue.len()), Relaxed);
    }
}

impl<T> Shared<T> {
    /// Returns the result if it is there. Panics if the work did.
    pub(crate) fn ready(&self) -> Option<T> {
        match self.0.try_recv() {
            Ok(result) => Some(result.unwrap_or_else(|panic| resume_unwind(panic))),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Result, run_sharing};
    use super::*;
    use crate::error::Error;

    /// Returns the squares up to `count`, made by `helpers` too.
    fn squares(count: usize, helpers: &Helpers<'_>) -> Vec<usize> {
        let mut pending = VecDeque::new();
        let mut squares = Vec::new();
        for nth in 0..count {
            pending.push_back(helpers.share(move || nth * nth));
            while pending.len() > 4 || pending.len() > 1 && !helpers.want_work() {
                squares.extend(pending.pop_front().map(|shared| helpers.wait(&shared)));
            }
        }
        squares.extend(pending.iter().map(|shared| helpers.wait(shared)));
        squares
    }

    #[test]
    fn results_are_those_of_the_work_whoever_does_it() {
        let expected: Vec<usize> = (0..1000).map(|nth| nth * nth).collect();
        for threads in [1, 2, 3, 8] {
            for tasks in [1, 2, 5] {
                let sizes = vec![1; tasks];
                let made =
                    run_sharing(threads, &sizes, |_, helpers| Ok(squares(1000, helpers))).unwrap();
                assert_eq!(made, vec![expected.clone(); tasks]);
            }
        }
    }

    #[test]
    fn free_threads_do_the_work_of_a_task() {
        let names = run_sharing(3, &[1], |_, helpers| {
            while helpers.count() < 2 {
                std::thread::yield_now();
            }
            assert!(helpers.want_work());
            // Each waits for the other: two threads beside this one are needed.
            let barrier = std::sync::Arc::new(std::sync::Barrier::new(3));
            let pieces = [(); 2].map(|()| {
                let barrier = barrier.clone();
                helpers.share(move || barrier.wait().is_leader())
            });
            barrier.wait();
            for piece in &pieces {
                helpers.wait(piece);
            }
            Ok(())
        });
        assert_eq!(names.unwrap(), [()]);
    }

    #[test]
    fn a_panic_or_an_error_ends_the_run_and_its_helpers() {
        for threads in [1, 2, 4] {
            let panics = run_sharing(threads, &[1, 1], |_, helpers| -> Result<()> {
                let shared = helpers.share(|| panic!("in a piece"));
                helpers.wait(&shared)
            });
            assert!(panics.unwrap_err().message.contains("in a piece"));
            let fails = run_sharing(threads, &[1; 9], |nth, helpers| {
                let shared = helpers.share(|| 0);
                if nth == 3 { Err(Error::input("three")) } else { Ok(helpers.wait(&shared)) }
            });
            assert_eq!(fails.unwrap_err().message, "three");
        }
    }
}
