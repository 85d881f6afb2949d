use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The bytes of messages that came through one connection and that no process has received yet.
///
/// A reader never waits for one mailbox. What holds a fast peer back is this sum: above the limit the reader stops, until
/// the processes of this node have caught up.
#[derive(Debug)]
pub struct Undelivered {
    limit: usize,
    bytes: AtomicUsize,
    below: Notify,
}

impl Undelivered {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, bytes: AtomicUsize::new(0), below: Notify::new() }
    }

    /// Bytes that wait in mailboxes.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether the reader should stop.
    pub fn is_full(&self) -> bool {
        self.bytes() > self.limit
    }

    /// Waits until the reader may go on; returns at once if it may now.
    pub async fn caught_up(&self) {
        while self.is_full() {
            let below = self.below.notified();
            tokio::pin!(below);
            below.as_mut().enable();
            if self.is_full() {
                below.await;
            }
        }
    }

    /// Counts `bytes` until the returned value is dropped.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize) -> Credit {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Credit { of: Arc::clone(self), bytes }
    }
}

/// Bytes that are counted as undelivered as long as this exists.
#[derive(Debug)]
pub(crate) struct Credit {
    of: Arc<Undelivered>,
    bytes: usize,
}

impl Credit {
    /// How many.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether more than half of what may be undelivered is, so that nobody should keep what could be given back.
    pub(crate) fn is_short(&self) -> bool {
        self.of.bytes() > self.of.limit / 2
    }

    /// Takes out a part.
    pub(crate) fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { of: Arc::clone(&self.of), bytes }
    }

    /// Moves a part to `sum`. If that is one of another connection, it is counted down now, and this part at its time.
    #[inline]
    pub(crate) fn move_to(&mut self, sum: &mut Option<Self>, bytes: usize) {
        match sum {
            Some(sum) if Arc::ptr_eq(&self.of, &sum.of) => {
                let bytes = bytes.min(self.bytes);
                self.bytes -= bytes;
                sum.bytes += bytes;
            }
            sum => *sum = Some(self.split(bytes)),
        }
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let before = self.of.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        if before > self.of.limit && before - self.bytes <= self.of.limit {
            self.of.below.notify_waiters();
        }
    }
}
