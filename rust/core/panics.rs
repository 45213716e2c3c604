//! Catches panics of libraries and keeps them off the terminal.
//!
//! A file from outside may make a library panic. The fault is the file's: it becomes an error, not
//! a crash.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// The number of nested calls of [`caught`] on this thread.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Installs the hook below once, when it is first needed.
static HOOK: Once = Once::new();

/// Runs `work` and returns its result, or the message of its panic. Nothing is printed about the
/// panic.
///
/// After a panic, values that `work` was changing may be half changed: the caller drops them.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    HOOK.call_once(|| {
        // Panics outside `caught` still go to the hook that was there before.
        let shown = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if DEPTH.get() == 0 {
                shown(info);
            }
        }));
    });
    // A counter, not a flag: `caught` may run inside `caught`.
    DEPTH.set(DEPTH.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(work));
    DEPTH.set(DEPTH.get() - 1);
    result.map_err(|panic| message(&*panic).to_owned())
}

/// What a user is told of a file on which a library gave up by a panic: its words are about its code.
pub(crate) const GAVE_UP: &str = "its bytes contradict each other";

/// Returns the message of a panic.
pub(crate) fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message_however_deep() {
        let inner = || caught(|| -> u32 { panic!("within {}", 2) });
        assert_eq!(caught(|| (inner(), 1)), Ok((Err("within 2".to_owned()), 1)));
        assert_eq!(caught(|| -> u32 { panic!("plain") }), Err("plain".to_owned()));
        assert_eq!(DEPTH.get(), 0);
    }
}
