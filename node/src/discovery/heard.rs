//! What a source hears that anybody on the network can write to, within bounds whatever is sent.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use foundation_proto::dist::NodeName;
use tokio::task::JoinSet;

use crate::names;

/// Datagrams a second that are looked at. 1,024 nodes send about 400 heartbeats.
const MAX_PER_SECOND: u32 = 1024;
/// Hosts a second that are looked up: a hundred may begin at once. The others wait.
const NEW_PER_SECOND: u32 = 128;
/// Hosts that are looked up at once.
const AT_ONCE: usize = 16;
/// Hosts whose addresses are remembered, and names that wait for those of theirs.
const MAX_NAMES: usize = 1024;
/// How long addresses are believed, and that there are none.
const ADDRESSES: Duration = Duration::from_secs(60);
const NO_ADDRESSES: Duration = Duration::from_secs(5);
const LOOK_UP: Duration = Duration::from_secs(2);
const SECOND: Duration = Duration::from_secs(1);

/// What was heard. `T` is what was said with a name, kept while the host of the name is looked up.
#[derive(Debug)]
pub(super) struct Heard<T> {
    /// When what is counted began to be.
    since: Instant,
    datagrams: u32,
    new: u32,
    hosts: BTreeMap<String, (Instant, Vec<IpAddr>)>,
    waiting: BTreeMap<String, BTreeMap<NodeName, T>>,
    /// Hosts among those whose look-up has not begun.
    queue: VecDeque<String>,
    look_ups: JoinSet<(String, Vec<IpAddr>)>,
}

impl<T> Default for Heard<T> {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            datagrams: 0,
            new: 0,
            hosts: BTreeMap::new(),
            waiting: BTreeMap::new(),
            queue: VecDeque::new(),
            look_ups: JoinSet::new(),
        }
    }
}

impl<T> Heard<T> {
    fn count(&mut self) {
        if self.since.elapsed() >= SECOND {
            (self.since, self.datagrams, self.new) = (Instant::now(), 0, 0);
        }
    }

    /// Whether one more datagram is looked at in this second.
    pub(super) fn takes(&mut self) -> bool {
        self.count();
        self.datagrams += 1;
        self.datagrams <= MAX_PER_SECOND
    }

    /// Where a name leads, with what was said. `None` while that is looked up: then [`Heard::resolved`] returns both. What is
    /// said of a name that waits already takes the place of what was said before.
    pub(super) fn addresses(&mut self, node: &NodeName, said: T) -> Option<(T, Vec<IpAddr>)> {
        if let Some(ip) = node.host_ip() {
            return Some((said, vec![ip]));
        }
        let host = node.host();
        if let Some((at, addresses)) = self.hosts.get(host)
            && at.elapsed() < believed(addresses)
        {
            return Some((said, addresses.clone()));
        }
        let others: usize = self.waiting.values().map(BTreeMap::len).sum();
        if others < MAX_NAMES || self.waiting.get(host).is_some_and(|names| names.contains_key(node)) {
            let names = self.waiting.entry(host.to_owned()).or_insert_with(|| {
                self.queue.push_back(host.to_owned());
                BTreeMap::new()
            });
            names.insert(node.clone(), said);
        }
        None
    }

    /// What was said of names whose host has been looked up, and where that leads. It waits for ever while there are none, and
    /// loses nothing if it is not waited for to the end.
    pub(super) async fn resolved(&mut self) -> (Vec<T>, Vec<IpAddr>) {
        loop {
            self.begin();
            let next_second = tokio::time::Instant::from_std(self.since + SECOND);
            let rested = !self.queue.is_empty() && self.look_ups.len() < AT_ONCE;
            let done = tokio::select! {
                Some(done) = self.look_ups.join_next(), if !self.look_ups.is_empty() => done,
                () = tokio::time::sleep_until(next_second), if rested => continue,
                else => std::future::pending().await,
            };
            let Ok((host, addresses)) = done else { continue };
            let said = self.waiting.remove(&host).unwrap_or_default().into_values().collect();
            self.remember(host, addresses.clone());
            return (said, addresses);
        }
    }

    /// Begins the look-ups that may begin now.
    fn begin(&mut self) {
        self.count();
        while self.look_ups.len() < AT_ONCE && self.new < NEW_PER_SECOND {
            let Some(host) = self.queue.pop_front() else { return };
            self.new += 1;
            self.look_ups.spawn(async move {
                let resolved = tokio::time::timeout(LOOK_UP, names::resolve(&host)).await;
                (host, resolved.ok().and_then(Result::ok).unwrap_or_default())
            });
        }
    }

    fn remember(&mut self, host: String, addresses: Vec<IpAddr>) {
        if self.hosts.len() >= MAX_NAMES {
            self.hosts.retain(|_, (at, addresses)| at.elapsed() < believed(addresses));
        }
        // In a flood it is looked up again when it is heard again.
        if self.hosts.len() < MAX_NAMES {
            self.hosts.insert(host, (Instant::now(), addresses));
        }
    }
}

/// How long this answer of a look-up is believed.
fn believed(addresses: &[IpAddr]) -> Duration {
    if addresses.is_empty() { NO_ADDRESSES } else { ADDRESSES }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        NodeName::parse(name).unwrap()
    }

    #[tokio::test]
    async fn of_a_flood_a_thousand_datagrams_a_second_are_looked_at() {
        let mut heard = Heard::<()>::default();
        let begun = Instant::now();
        let taken = (0..100_000).filter(|_| heard.takes()).count();
        // One more thousand for each second that this has taken.
        let seconds = begun.elapsed().as_secs() as usize + 1;
        assert!(taken >= MAX_PER_SECOND as usize && taken <= MAX_PER_SECOND as usize * seconds, "{taken}");
        heard.since = Instant::now().checked_sub(SECOND).unwrap();
        assert!(heard.takes(), "the next second begins anew");
    }

    #[tokio::test]
    async fn all_names_of_a_host_are_heard_with_one_look_up() {
        let mut heard = Heard::default();
        assert_eq!(heard.addresses(&node("y@10.0.0.1"), 7), Some((7, vec![[10, 0, 0, 1].into()])));
        for at in 0..200 {
            assert_eq!(heard.addresses(&node(&format!("x{at}@localhost")), at), None);
        }
        assert_eq!(heard.addresses(&node("x7@localhost"), 1000), None, "the later word counts");
        let (said, addresses) = heard.resolved().await;
        assert_eq!(said.len(), 200);
        assert!(said.contains(&1000) && !said.contains(&7), "{said:?}");
        assert!(addresses.iter().all(IpAddr::is_loopback) && !addresses.is_empty(), "{addresses:?}");
        assert_eq!(heard.new, 1);
        assert_eq!(heard.addresses(&node("one-more@localhost"), 3), Some((3, addresses)), "it is remembered");
        let long_ago = Instant::now().checked_sub(ADDRESSES).unwrap();
        heard.hosts.values_mut().for_each(|(at, _)| *at = long_ago);
        assert_eq!(heard.addresses(&node("x@localhost"), 4), None, "not for ever");
        assert_eq!(heard.resolved().await.0, [4]);
    }

    /// `127.n` is an address to the system's resolver, and a host to us.
    #[tokio::test]
    async fn many_hosts_at_once_are_looked_up_within_seconds_and_none_is_left_out() {
        let mut heard = Heard::default();
        let hosts = NEW_PER_SECOND + 10;
        let begun = heard.since;
        for at in 0..hosts {
            assert_eq!(heard.addresses(&node(&format!("x@127.{}", at + 1)), at), None);
        }
        let mut said = Vec::new();
        while said.len() < hosts as usize {
            let (some, addresses) = heard.resolved().await;
            assert!(heard.look_ups.len() < AT_ONCE);
            assert_eq!(addresses.len(), 1);
            said.extend(some);
        }
        assert!(begun.elapsed() >= SECOND, "the last of them waited for the next second");
        said.sort_unstable();
        assert_eq!(said, (0..hosts).collect::<Vec<_>>());
        assert!(heard.waiting.is_empty() && heard.queue.is_empty() && heard.look_ups.is_empty());
        let nothing = tokio::time::timeout(Duration::from_millis(10), heard.resolved()).await;
        assert!(nothing.is_err(), "nobody waits");
    }

    #[tokio::test]
    async fn a_flood_of_hosts_is_remembered_to_a_bound() {
        let mut heard = Heard::default();
        for at in 0..MAX_NAMES * 2 {
            assert_eq!(heard.addresses(&node(&format!("x@h{at}")), at), None);
            assert_eq!(heard.addresses(&node(&format!("x{at}@one")), at), None);
        }
        assert_eq!(heard.waiting.values().map(BTreeMap::len).sum::<usize>(), MAX_NAMES);
        assert_eq!(heard.queue.len(), heard.waiting.len());
        for at in 0..MAX_NAMES * 2 {
            heard.remember(format!("h{at}"), Vec::new());
        }
        assert_eq!(heard.hosts.len(), MAX_NAMES);
        let long_ago = Instant::now().checked_sub(NO_ADDRESSES).unwrap();
        heard.hosts.values_mut().for_each(|(at, _)| *at = long_ago);
        heard.remember("one-more".into(), Vec::new());
        assert_eq!(heard.hosts.len(), 1, "what is old is forgotten");
    }
}
