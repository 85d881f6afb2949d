//! What discovery has done, as events with libcluster's telemetry names.

use std::time::Duration;

use foundation_proto::dist::NodeName;
use tokio::sync::broadcast;

/// Something that discovery has done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DiscoveryEvent {
    /// A node that sources name is connected.
    Connected {
        /// The node.
        node: NodeName,
        /// Who names it.
        topology: String,
        /// How long the dial took; zero if the node came by itself.
        duration: Duration,
    },
    /// A node that sources name could not be connected.
    NotConnected {
        /// The node.
        node: NodeName,
        /// Who names it.
        topology: String,
        /// Why.
        reason: String,
    },
    /// A node that no source names any more is disconnected for it.
    Disconnected {
        /// The node.
        node: NodeName,
        /// Who named it last.
        topology: String,
    },
    /// A name that may not be dialled.
    Refused {
        /// The node.
        node: NodeName,
        /// Who names it.
        topology: String,
        /// What was seen of it.
        evidence: String,
    },
    /// A source cannot answer.
    SourceFailed {
        /// Which one.
        topology: String,
        /// Why.
        reason: String,
    },
    /// A source answers again.
    SourceRecovered {
        /// Which one.
        topology: String,
    },
    /// All that was found at first has been tried, and somebody is there.
    Formed {
        /// The name of the cluster.
        cluster_id: String,
        /// Nodes in it, this one among them.
        node_count: usize,
        /// From the start of discovery to the last connection.
        formation_time: Duration,
        /// Who named the connected nodes.
        strategy: String,
    },
}

impl DiscoveryEvent {
    /// The name of the telemetry event: libcluster's where it has one.
    pub fn telemetry_name(&self) -> [&'static str; 3] {
        match self {
            Self::Connected { .. } => ["libcluster", "connect_node", "ok"],
            Self::NotConnected { .. } => ["libcluster", "connect_node", "error"],
            Self::Disconnected { .. } => ["libcluster", "disconnect_node", "ok"],
            Self::Refused { .. } => ["foundation", "discovery", "refused"],
            Self::SourceFailed { .. } => ["foundation", "discovery", "source_failed"],
            Self::SourceRecovered { .. } => ["foundation", "discovery", "source_recovered"],
            Self::Formed { .. } => ["foundation", "cluster", "formed"],
        }
    }
}

/// Events that wait for a slow listener before the oldest are dropped.
const BUFFERED: usize = 1024;

/// Hands events to everybody who listens.
#[derive(Debug)]
pub(crate) struct Publisher(broadcast::Sender<DiscoveryEvent>);

impl Default for Publisher {
    fn default() -> Self {
        Self(broadcast::Sender::new(BUFFERED))
    }
}

impl Publisher {
    pub(crate) fn publish(&self, event: DiscoveryEvent) {
        // Nobody has to listen.
        let _ = self.0.send(event);
    }

    pub(crate) fn subscribe(&self) -> DiscoveryEvents {
        DiscoveryEvents(self.0.subscribe())
    }
}

/// What discovery does from the moment of [`Node::discovery_events`](crate::Node::discovery_events) on.
#[derive(Debug)]
pub struct DiscoveryEvents(broadcast::Receiver<DiscoveryEvent>);

impl DiscoveryEvents {
    /// The next event; `None` once the node is gone. A listener that is 1,024 events behind misses the oldest.
    pub async fn next(&mut self) -> Option<DiscoveryEvent> {
        loop {
            match self.0.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
