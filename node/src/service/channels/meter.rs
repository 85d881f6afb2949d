//! What is counted on a channel.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What has happened on a channel of this node since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Metrics {
    /// Messages that were handed in here.
    pub sent: u64,
    /// Their encoded bytes, each message counted once.
    pub bytes_sent: u64,
    /// Messages that came from other nodes.
    pub received: u64,
    /// Their encoded bytes.
    pub bytes_received: u64,
    /// Messages that could not be sent in time or at all.
    pub errors: u64,
    /// Messages with a promise that were sent again.
    pub resent: u64,
    /// Messages that arrived once more and were not delivered again.
    pub duplicates: u64,
    /// Messages of other nodes that were passed on.
    pub relayed: u64,
    /// Messages that were given up, here or by their senders.
    pub lost: u64,
    /// Messages that wait for an acknowledgement now, each counted once for each node.
    pub queued: usize,
    /// How long messages were on their way, where that is known: from nodes with this service, once the clocks were compared.
    pub latency: Option<Latency>,
}

/// How long messages were on their way to this node.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Latency {
    /// How many messages this is about.
    pub messages: u64,
    /// Of all.
    pub mean: Duration,
    /// Of all.
    pub max: Duration,
    /// Of the last.
    pub last: Duration,
    /// By how much that of the last may be wrong, because the clocks of two hosts differ.
    pub clock_error: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Meter {
    sent: AtomicU64,
    bytes_sent: AtomicU64,
    received: AtomicU64,
    bytes_received: AtomicU64,
    errors: AtomicU64,
    latency: Mutex<Option<Latency>>,
}

impl Meter {
    pub(super) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: usize, latency: Option<(Duration, Duration)>) {
        self.received.fetch_add(1, Ordering::Relaxed);
        self.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
        let Some((last, clock_error)) = latency else { return };
        let mut known = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.unwrap_or(Latency { messages: 0, mean: last, max: last, last, clock_error });
        let messages = before.messages + 1;
        let count = u32::try_from(messages).unwrap_or(u32::MAX);
        let mean = if last >= before.mean {
            before.mean + (last - before.mean) / count
        } else {
            before.mean - (before.mean - last) / count
        };
        *known = Some(Latency { messages, mean, max: before.max.max(last), last, clock_error });
    }

    pub(super) fn error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Metrics {
        Metrics {
            sent: self.sent.load(Ordering::Relaxed),
            bytes_sent: self.bytes_sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            bytes_received: self.bytes_received.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            latency: *self.latency.lock().unwrap_or_else(PoisonError::into_inner),
            ..Metrics::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_that_of_all() {
        let meter = Meter::default();
        for micros in [100, 300, 200, 600] {
            meter.received(10, Some((Duration::from_micros(micros), Duration::from_micros(5))));
        }
        meter.received(10, None);
        let metrics = meter.read();
        assert_eq!((metrics.received, metrics.bytes_received), (5, 50));
        let latency = metrics.latency.unwrap();
        assert_eq!((latency.messages, latency.max), (4, Duration::from_micros(600)));
        assert_eq!(latency.mean.as_micros(), 300);
    }
}
