//! Nodes that join and leave, as a stream.

use foundation_proto::etf::Atom;
use tokio::sync::broadcast;

use crate::net::DownReason;

/// A connection came up or went down.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A node is connected (`nodeup`).
    NodeUp {
        /// Its name.
        node: Atom,
        /// Whether it, or this node, is hidden.
        hidden: bool,
        /// Its incarnation.
        creation: u32,
    },
    /// A node is not connected any more (`nodedown`). Links and monitors across the connection have fired.
    NodeDown {
        /// Its name.
        node: Atom,
        /// Whether it, or this node, was hidden.
        hidden: bool,
        /// Why.
        reason: DownReason,
    },
    /// Events were missed because they were not received fast enough; ask [`Node::nodes`](crate::Node::nodes) for the state.
    Missed(u64),
}

/// Events that wait for a slow listener before the oldest are dropped and reported as [`Event::Missed`].
const BUFFERED: usize = 1024;

/// Hands events to everybody who listens.
#[derive(Debug)]
pub(crate) struct Publisher(broadcast::Sender<Event>);

impl Publisher {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(BUFFERED))
    }

    pub(crate) fn publish(&self, event: Event) {
        // Nobody has to listen.
        let _ = self.0.send(event);
    }

    pub(crate) fn subscribe(&self) -> Events {
        Events(self.0.subscribe())
    }
}

/// What happens from the moment of [`Node::events`](crate::Node::events) on.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Event>);

impl Events {
    /// The next event; `None` once the node has stopped. Nothing is lost if this is cancelled.
    pub async fn next(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Event::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
