use std::collections::BTreeSet;
use std::time::Duration;

use foundation_proto::etf::Atom;

use crate::lease;

/// How a supervisor behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The nodes of which a majority decides, for children with [`Requirement::Safety`](super::Requirement::Safety) and
    /// [`Placement::Quorum`](super::Placement::Quorum); the same on all nodes. Empty: such children are refused.
    pub members: BTreeSet<Atom>,
    /// How long a lease holds without being renewed: 1.2 s, so that another node takes over within 2 s of a loss. A child whose
    /// node cannot reach a majority for about that long is stopped.
    pub lease: Duration,
    /// How long before the end of its lease such a child is killed: 250 ms.
    pub margin: Duration,
    /// By how many thousandths the clocks of the members may be too fast or too slow: 10.
    pub drift: u32,
    /// How long after a connection came up its node may take to say what it runs before children are started: 500 ms. It delays
    /// the start of a child by no more than a second in all.
    pub settle: Duration,
    /// How long a caller waits until a child runs, has ended or was moved: 30 s.
    pub wait: Duration,
    /// Specifications and partitions, at most: 8,192. A singleton counts twice, because of the mark that it has ended.
    pub max_children: usize,
    /// The longest specification, with its argument: 8 KiB. All nodes have all of them, and a node that joins gets them in one message.
    pub max_bytes: usize,
    /// The longest state that is handed over: 1 MiB. A node that leaves hands over 16 children at a time, and a connection that has
    /// 64 MiB queued is closed.
    pub max_state: usize,
    /// The states that wait to be taken up on a node take no more than this together: 64 MiB.
    pub max_states: usize,
    /// Callers that wait, at most: 65,536.
    pub max_waits: usize,
    /// Incarnations of nodes that have written specifications, at most: 4,096. Beyond that, the oldest of which nothing is left are
    /// forgotten; what they wrote and others removed could come back with a node that was away all the time.
    pub max_writers: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            members: BTreeSet::new(),
            lease: Duration::from_millis(1200),
            margin: Duration::from_millis(250),
            drift: 10,
            settle: Duration::from_millis(500),
            wait: Duration::from_secs(30),
            max_children: 8192,
            max_bytes: 8 << 10,
            max_state: 1 << 20,
            max_states: 64 << 20,
            max_waits: 1 << 16,
            max_writers: 4096,
        }
    }
}

impl Config {
    /// With these members, of which a majority decides.
    #[must_use]
    pub fn members(self, members: impl IntoIterator<Item = Atom>) -> Self {
        Self { members: members.into_iter().collect(), ..self }
    }

    pub(super) fn leases(&self) -> Option<lease::Config> {
        if self.members.is_empty() {
            return None;
        }
        let mut leases = lease::Config::new(self.members.iter().cloned());
        leases.duration = self.lease;
        leases.margin = self.margin;
        leases.drift = self.drift;
        // The name of a lease is the id with a few bytes around it.
        leases.max_bytes = self.max_bytes.saturating_add(1024);
        Some(leases)
    }
}
