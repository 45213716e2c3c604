//! Panics of the libraries that we call: caught, and kept off the terminal.
//!
//! A file from outside may make a library panic. That is the file's fault, to be told as an error,
//! not a crash of ours.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// How many calls of [`caught`] this thread is in.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

static HOOK: Once = Once::new();

/// Runs `work`, and returns the message of its panic if it panics. Nothing is printed of that
/// panic.
///
/// What `work` changes may be half changed after a panic: the caller drops it.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    HOOK.call_once(|| {
        let shown = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if DEPTH.get() == 0 {
                shown(info);
            }
        }));
    });
    DEPTH.set(DEPTH.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(work));
    DEPTH.set(DEPTH.get() - 1);
    result.map_err(|panic| message(&*panic).to_owned())
}

/// The message of a panic.
pub fn message(panic: &(dyn Any + Send)) -> &str {
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
