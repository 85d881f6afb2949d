//! Sources that are asked again and again.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

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

/// Makes a strategy of a [`Poll`]: asks at once, then after each interval with a tenth of jitter; while it fails, ever
/// more rarely, down to once in 30 seconds.
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

/// Waits so long, give or take a tenth: what began together need not go on so.
pub(super) async fn pause(duration: Duration) {
    tokio::time::sleep(random::between(duration.mul_f64(0.9), duration.mul_f64(1.1))).await;
}

/// The pause after one more failure.
pub(super) fn back_off(interval: Duration, failures: &mut u32) -> Duration {
    let pause = interval.saturating_mul(1_u32 << (*failures).min(16));
    *failures = failures.saturating_add(1);
    pause.min(SLOWEST.max(interval))
}
