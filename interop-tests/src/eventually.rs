//! Waiting for a condition with a deadline: tests never sleep for a guessed time.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Between two probes.
const PAUSE: Duration = Duration::from_millis(5);

/// Calls `probe` until it answers; `None` if it has not after `within`.
pub fn answer_within<T>(within: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + within;
    loop {
        let answer = probe();
        if answer.is_some() || Instant::now() >= deadline {
            return answer;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Calls `probe` until it answers, and returns the answer.
///
/// # Panics
/// After `within`, with `what` was waited for.
pub fn eventually<T>(what: &str, within: Duration, probe: impl FnMut() -> Option<T>) -> T {
    answer_within(within, probe).unwrap_or_else(|| panic!("did not happen within {within:?}: {what}"))
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
    let mut last = None;
    let equal = answer_within(within, || {
        let value = probe();
        let equal = value == *expected;
        last = Some(value);
        equal.then_some(())
    });
    assert!(
        equal.is_some(),
        "did not happen within {within:?}: {what}: {expected:?}; it is {:?}",
        last.expect("probed at least once")
    );
}
