//! Sources that are asked again and again.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::{Candidate, Reports, Running, SourceError, Strategy};
use crate::random;

/// The longest that one question may take, whatever the strategy thinks.
const LONGEST: Duration = Duration::from_secs(30);
/// The most that the pause grows to while a source fails.
const SLOWEST: Duration = Duration::from_secs(30);

/// A source that answers completely each time it is asked.
pub trait Poll: Send + Sync + 'static {
    /// The pause between two questions.
    fn interval(&self) -> Duration;

    /// All nodes there are.
    ///
    /// # Errors
    /// If that cannot be told; no nodes at all is an answer, not an error.
    fn poll(&self) -> impl Future<Output = Result<Vec<Candidate>, SourceError>> + Send;
}

/// Makes a strategy of a [`Poll`]: asks at once, then after each interval with a tenth of jitter, on the beat of one second that all sources of
/// a process share; while it fails, ever more rarely, down to once in 30 seconds.
#[derive(Debug)]
pub struct Polling<P>(pub P);

impl<P: Poll> Strategy for Polling<P> {
    fn run(self: Arc<Self>, reports: Reports) -> Running {
        Box::pin(async move {
            let mut failures = 0_u32;
            loop {
                let interval = self.0.interval();
                let pause = match tokio::time::timeout(LONGEST, self.0.poll()).await {
                    Ok(Ok(candidates)) => {
                        failures = 0;
                        reports.found(candidates).await;
                        interval
                    }
                    Ok(Err(error)) => {
                        reports.failed(error).await;
                        back_off(interval, &mut failures)
                    }
                    Err(_) => {
                        reports.failed(SourceError::new(format!("no answer within {LONGEST:?}"))).await;
                        back_off(interval, &mut failures)
                    }
                };
                self::pause(pause).await;
            }
        })
    }
}

/// Sources wake together: each wake-up of an idle process costs more than what a source does then (100 µs of processor time on a virtual
/// machine), and a timer of tokio that is seconds ahead takes up to three of them.
const BEAT: Duration = Duration::from_secs(1);

/// Waits so long, give or take a tenth, until the [next beat](after): what began together on several nodes need not go on so.
pub(super) async fn pause(duration: Duration) {
    tokio::time::sleep_until(after(jitter(duration))).await;
}

/// So long, give or take a tenth.
pub(super) fn jitter(duration: Duration) -> Duration {
    random::between(duration.mul_f64(0.9), duration.mul_f64(1.1))
}

/// The time after this pause, moved to the nearest beat of this process if it is long enough. Each process has beats of its own.
pub(super) fn after(pause: Duration) -> Instant {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let now = Instant::now();
    on_beat(*FIRST.get_or_init(|| now + random::between(Duration::ZERO, BEAT)), now, pause)
}

/// The same, of a process whose first beat is given.
fn on_beat(first: Instant, now: Instant, pause: Duration) -> Instant {
    let due = now + pause;
    if pause < BEAT / 2 || due <= first {
        return due;
    }
    let beats = ((due - first).as_secs_f64() / BEAT.as_secs_f64()).round();
    first + BEAT.mul_f64(beats)
}

/// The pause after one more failure.
pub(super) fn back_off(interval: Duration, failures: &mut u32) -> Duration {
    let pause = interval.saturating_mul(1_u32 << (*failures).min(16));
    *failures = failures.saturating_add(1);
    pause.min(SLOWEST.max(interval))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_pauses_end_on_one_beat_and_short_ones_when_they_are_over() {
        let now = Instant::now();
        for tenths in 0..30 {
            let first = now + BEAT * tenths / 10;
            assert_eq!(
                on_beat(first, now, BEAT / 4),
                now + BEAT / 4,
                "a short pause is as long as asked for"
            );
            for pause in (10..100).map(|tenths| BEAT * tenths / 10) {
                let (at, asked) = (on_beat(first, now, pause), now + pause);
                if asked <= first {
                    assert_eq!(at, asked, "there is no beat yet");
                    continue;
                }
                let beats = (at - first).as_secs_f64();
                assert!((beats - beats.round()).abs() < 1e-6, "{pause:?} ends between two beats");
                let off = at.saturating_duration_since(asked).max(asked.saturating_duration_since(at));
                assert!(off <= BEAT / 2 + Duration::from_micros(1), "{pause:?} is off by {off:?}");
            }
        }
    }
}
