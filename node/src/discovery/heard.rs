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

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        NodeName::parse(name).unwrap()
    }

    #[test]
    fn of_a_flood_a_thousand_datagrams_a_second_are_looked_at() {
        let mut heard = Heard::default();
        let begun = Instant::now();
        let taken = (0..100_000).filter(|_| heard.takes()).count();
        // One more thousand for each second that this has taken.
        let seconds = begun.elapsed().as_secs() as usize + 1;
        assert!(taken >= MAX_PER_SECOND as usize && taken <= MAX_PER_SECOND as usize * seconds, "{taken}");
        heard.second = Instant::now().checked_sub(Duration::from_secs(1));
        assert!(heard.takes(), "the next second begins anew");
    }

    #[test]
    fn new_names_are_looked_up_a_few_a_second_and_remembered_to_a_bound() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut heard = Heard { second: Some(Instant::now()), ..Heard::default() };
            let all: Vec<NodeName> =
                (0..NEW_PER_SECOND * 2).map(|at| node(&format!("x{at}@localhost"))).collect();
            for (at, name) in (0..).zip(&all) {
                assert_eq!(heard.addresses(name).await.is_some(), at < NEW_PER_SECOND, "{at}");
            }
            assert!(heard.addresses(&all[0]).await.is_some(), "it is remembered");
            assert_eq!(
                heard.addresses(&node("y@10.0.0.1")).await.unwrap().len(),
                1,
                "nothing is to be looked up"
            );
            heard.new = 0;
            for at in 0..MAX_NAMES * 2 {
                heard.names.insert(node(&format!("z{at}@h")), (Instant::now(), Vec::new()));
            }
            assert!(heard.addresses(&node("one-more@localhost")).await.is_none(), "the table is full");
            let long_ago = Instant::now().checked_sub(ADDRESSES).unwrap();
            heard.names.values_mut().for_each(|(at, _)| *at = long_ago);
            assert!(heard.addresses(&node("one-more@localhost")).await.is_some());
            assert_eq!(heard.names.len(), 1, "what is old is forgotten");
        });
    }
}
