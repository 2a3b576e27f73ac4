//! A fence around calls into an engine: what panics in there becomes damage out here.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::StoreError;

thread_local! {
    static CALLS_ENGINE: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic on this thread is about to become an error: for a panic hook, which runs before
/// it is caught.
pub fn engine_panic_is_caught() -> bool {
    CALLS_ENGINE.with(Cell::get)
}

/// Runs a call into the engine of this name; its panics mean damage.
pub(super) fn fenced<T>(
    engine: &str,
    call: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let outer = CALLS_ENGINE.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    CALLS_ENGINE.set(outer);
    result.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(StoreError::Damaged(format!("{engine} panicked: {text}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_inside_an_engine_is_damage() {
        let result = fenced("sled", || -> Result<(), StoreError> { panic!("page {} is torn", 7) });
        assert!(
            matches!(&result, Err(StoreError::Damaged(what)) if what == "sled panicked: page 7 is torn")
        );
        assert!(!engine_panic_is_caught());
    }
}
