//! What a source hears that anybody on the network can write to, within bounds whatever is sent.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use foundation_proto::dist::NodeName;

use crate::names;

/// Datagrams a second that are looked at. 1,024 nodes send about 400 heartbeats.
const MAX_PER_SECOND: u32 = 1024;
/// New names a second that are looked up.
const NEW_PER_SECOND: u32 = 16;
/// Names whose addresses are remembered.
const MAX_NAMES: usize = 1024;
/// How long addresses are believed.
const ADDRESSES: Duration = Duration::from_secs(60);
const LOOK_UP: Duration = Duration::from_secs(2);

/// What was heard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    second: Option<Instant>,
    datagrams: u32,
    new: u32,
    names: BTreeMap<NodeName, (Instant, Vec<IpAddr>)>,
}

impl Heard {
    /// Whether one more datagram is looked at in this second.
    pub(super) fn takes(&mut self) -> bool {
        if self.second.is_none_or(|second| second.elapsed() >= Duration::from_secs(1)) {
            (self.second, self.datagrams, self.new) = (Some(Instant::now()), 0, 0);
        }
        self.datagrams += 1;
        self.datagrams <= MAX_PER_SECOND
    }

    /// Where a name leads, looked up now and then; `None` if too many new names come at once.
    pub(super) async fn addresses(&mut self, node: &NodeName) -> Option<Vec<IpAddr>> {
        if let Some(ip) = node.host_ip() {
            return Some(vec![ip]);
        }
        if let Some((at, addresses)) = self.names.get(node)
            && at.elapsed() < ADDRESSES
        {
            return Some(addresses.clone());
        }
        self.new += 1;
        if self.new > NEW_PER_SECOND {
            return None;
        }
        if self.names.len() >= MAX_NAMES {
            self.names.retain(|_, (at, _)| at.elapsed() < ADDRESSES);
            if self.names.len() >= MAX_NAMES {
                return None;
            }
        }
        let resolved = tokio::time::timeout(LOOK_UP, names::resolve(node.host())).await;
        let addresses = resolved.ok().and_then(Result::ok).unwrap_or_default();
        self.names.insert(node.clone(), (Instant::now(), addresses.clone()));
        Some(addresses)
    }
}
