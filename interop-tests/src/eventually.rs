//! Waiting for a condition with a deadline: tests never sleep for a guessed time.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Calls `probe` until it answers, and returns the answer.
///
/// # Panics
/// After `within`, with `what` was waited for.
pub fn eventually<T>(what: &str, within: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < deadline, "did not happen within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// [`eventually`] for a plain condition.
pub fn eventually_true(what: &str, within: Duration, mut probe: impl FnMut() -> bool) {
    eventually(what, within, || probe().then_some(()));
}

/// Waits until `probe` answers what is expected.
///
/// # Panics
/// After `within`, with what it answered last.
pub fn eventually_eq<T: PartialEq + Debug>(
    what: &str,
    within: Duration,
    expected: &T,
    mut probe: impl FnMut() -> T,
) {
    let deadline = Instant::now() + within;
    loop {
        let value = probe();
        if value == *expected {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "did not happen within {within:?}: {what}: {expected:?}; it is {value:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
