//! Waiting for a condition with a deadline: tests never sleep for a guessed time.

use std::time::{Duration, Instant};

/// Asks until it holds, and says how long that took.
///
/// # Panics
/// If it does not hold within this time.
pub(crate) async fn eventually(within: Duration, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < within, "not within {within:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    start.elapsed()
}
