//! Panics of libraries that read what strangers wrote: caught, and without a word on standard error.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Returns what `work` gives, or `None` if it panicked; nothing of the panic is shown.
///
/// `work` must leave nothing half done behind that is used afterwards.
pub fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let shown = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IS_CAUGHT.get() {
                shown(info);
            }
        }));
    });
    let outer = IS_CAUGHT.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    IS_CAUGHT.set(outer);
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::caught;

    #[test]
    fn a_panic_is_none() {
        assert_eq!(caught(|| 1), Some(1));
        let places: Vec<u8> = Vec::new();
        assert_eq!(caught(|| places[places.len()]), None);
        assert_eq!(caught(|| caught(|| places[0]).is_none()), Some(true));
    }
}
