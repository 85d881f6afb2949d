//! What a service tells whoever listens, as it happens.

use tokio::sync::broadcast;

use crate::error::{Error, Result};

/// Changes that wait for a slow listener before the oldest are dropped and it has to look at the whole again.
const CHANGES: usize = 4096;

/// What a service tells of, from the moment on at which it was asked.
#[derive(Debug)]
pub struct Changes<T>(broadcast::Receiver<T>);

impl<T: Clone> Changes<T> {
    /// Where a service says it.
    pub(super) fn channel() -> broadcast::Sender<T> {
        broadcast::channel(CHANGES).0
    }

    /// From now on.
    pub(super) fn of(sender: &broadcast::Sender<T>) -> Self {
        Self(sender.subscribe())
    }

    /// The next change. Nothing is lost if this is cancelled.
    ///
    /// # Errors
    /// [`Error::Full`] if changes were dropped because they were not received fast enough: look at the whole again, and go on.
    /// [`Error::NoProc`] once the service has ended with its node.
    pub async fn next(&mut self) -> Result<T> {
        self.0.recv().await.map_err(|error| match error {
            broadcast::error::RecvError::Lagged(_) => Error::Full,
            broadcast::error::RecvError::Closed => Error::NoProc,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_listener_is_told_and_goes_on() {
        let sender = Changes::channel();
        let mut changes = Changes::of(&sender);
        for number in 0..CHANGES + 2 {
            sender.send(number).unwrap();
        }
        assert!(matches!(changes.next().await, Err(Error::Full)));
        assert_eq!(changes.next().await.unwrap(), 2);
        drop(sender);
        while changes.next().await.is_ok() {}
        assert!(matches!(changes.next().await, Err(Error::NoProc)));
    }
}
