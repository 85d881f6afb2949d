//! Which nodes were announced by whom, so that goodbyes and silence mean something.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use foundation_proto::dist::NodeName;

use super::message::same_name;

/// Nodes that are remembered.
const MAX_NODES: usize = 1024;
/// How long a node that said goodbye is not believed to be back. Whoever sends both in turn shall not make this node dial
/// at his rate.
const GONE: Duration = Duration::from_secs(1);

/// The nodes.
#[derive(Debug, Default)]
pub(super) struct Table(BTreeMap<NodeName, Entry>);

#[derive(Debug)]
struct Entry {
    instance: String,
    from: IpAddr,
    at: Instant,
    gone: bool,
}

impl Table {
    /// How many are announced.
    pub(super) fn len(&self) -> usize {
        self.0.values().filter(|entry| !entry.gone).count()
    }

    /// A node was announced; `false` if that is not to be believed now.
    pub(super) fn seen(&mut self, now: Instant, node: &NodeName, instance: &str, from: IpAddr) -> bool {
        match self.0.get(node) {
            Some(entry) if entry.gone && now.saturating_duration_since(entry.at) < GONE => return false,
            None if self.0.len() >= MAX_NODES => return false,
            _ => {}
        }
        self.0.insert(node.clone(), Entry { instance: instance.to_owned(), from, at: now, gone: false });
        true
    }

    /// An instance is taken back by who announced it: the nodes that this ends. A node that is named there is the only one.
    pub(super) fn goodbye(
        &mut self,
        now: Instant,
        instance: &str,
        node: Option<&NodeName>,
        from: IpAddr,
    ) -> Vec<NodeName> {
        let mut gone = Vec::new();
        for (name, entry) in &mut self.0 {
            let meant = entry.from == from
                && match node {
                    Some(node) => node == name,
                    None => same_name(&entry.instance, instance),
                };
            if meant && !entry.gone {
                (entry.gone, entry.at) = (true, now);
                gone.push(name.clone());
            }
        }
        gone
    }

    /// The nodes that nobody has announced for so long.
    pub(super) fn silent(&mut self, now: Instant, patience: Duration) -> Vec<NodeName> {
        let mut silent = Vec::new();
        self.0.retain(|name, entry| {
            let quiet = now.saturating_duration_since(entry.at);
            if !entry.gone && quiet >= patience {
                silent.push(name.clone());
                return false;
            }
            !entry.gone || quiet < GONE
        });
        silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goodbyes_and_silence_end_what_was_announced() {
        let mut table = Table::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let [a, b]: [NodeName; 2] = ["a@h", "b@h"].map(|name| name.parse().unwrap());
        let [here, there]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().unwrap());
        assert!(table.seen(start, &a, "I._epmd._tcp.local", here));
        assert!(table.seen(start, &b, "i._epmd._tcp.local", here));
        // Not by somebody else.
        assert!(table.goodbye(start, "i._epmd._tcp.local", None, there).is_empty());
        assert_eq!(table.goodbye(start, "i._epmd._tcp.local", Some(&a), here), std::slice::from_ref(&a));
        assert_eq!(table.len(), 1);
        // It is not back in the same second.
        assert!(!table.seen(start, &a, "i._epmd._tcp.local", here));
        assert!(table.seen(after(1), &a, "i._epmd._tcp.local", here));
        assert_eq!(table.goodbye(after(1), "i._EPMD._tcp.local", None, here), [a.clone(), b.clone()]);
        assert!(table.seen(after(2), &b, "x", here));
        assert_eq!(table.silent(after(30), Duration::from_secs(30)), []);
        assert_eq!(table.silent(after(32), Duration::from_secs(30)), [b]);
        assert_eq!(table.0.len(), 0);
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let mut table = Table::default();
        let now = Instant::now();
        let ip = "10.0.0.1".parse().unwrap();
        let taken = (0..2 * MAX_NODES)
            .filter(|number| table.seen(now, &NodeName::parse(&format!("n{number}@h")).unwrap(), "x", ip))
            .count();
        assert_eq!(taken, MAX_NODES);
    }
}
