use std::collections::HashMap;
use std::sync::Arc;

use foundation_proto::etf::Pid;

/// Who on this node wants the messages of which topic.
///
/// A process may subscribe to a topic several times and then gets each message as often, as Elixir's `Registry` with duplicate
/// keys has it; to unsubscribe removes all of its subscriptions to the topic. The subscribers of a topic are handed out as
/// a snapshot, so that delivering holds no lock.
#[derive(Debug, Default)]
pub struct Subscriptions {
    topics: HashMap<Arc<[u8]>, Arc<Vec<Subscriber>>>,
    /// The topics of each subscriber, so that its end need not search all topics.
    of: HashMap<Pid, Vec<Arc<[u8]>>>,
}

/// One subscription.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Subscriber {
    /// The process.
    pub pid: Pid,
}

impl Subscriptions {
    /// Adds a subscription; whether it is the first of this process to anything.
    pub fn subscribe(&mut self, topic: &[u8], pid: &Pid) -> bool {
        let topic: Arc<[u8]> = match self.topics.get_key_value(topic) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::from(topic),
        };
        Arc::make_mut(self.topics.entry(Arc::clone(&topic)).or_default())
            .push(Subscriber { pid: pid.clone() });
        let first = !self.of.contains_key(pid);
        self.of.entry(pid.clone()).or_default().push(topic);
        first
    }

    /// Removes all subscriptions of a process to a topic; whether it now has none at all.
    pub fn unsubscribe(&mut self, topic: &[u8], pid: &Pid) -> bool {
        self.remove(topic, pid);
        let Some(topics) = self.of.get_mut(pid) else { return true };
        topics.retain(|known| &**known != topic);
        if topics.is_empty() {
            self.of.remove(pid);
            return true;
        }
        false
    }

    /// Removes all subscriptions of a process that ended.
    pub fn down(&mut self, pid: &Pid) {
        for topic in self.of.remove(pid).unwrap_or_default() {
            self.remove(&topic, pid);
        }
    }

    /// The subscribers of a topic, in the order in which they subscribed.
    pub fn of_topic(&self, topic: &[u8]) -> Option<Arc<Vec<Subscriber>>> {
        self.topics.get(topic).cloned()
    }

    /// How many topics have subscribers.
    pub fn topics(&self) -> usize {
        self.topics.len()
    }

    /// How many processes have subscribed to something.
    pub fn subscribers(&self) -> usize {
        self.of.len()
    }

    fn remove(&mut self, topic: &[u8], pid: &Pid) {
        let Some(subscribers) = self.topics.get_mut(topic) else { return };
        Arc::make_mut(subscribers).retain(|subscriber| subscriber.pid != *pid);
        if subscribers.is_empty() {
            self.topics.remove(topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use foundation_proto::etf::Atom;

    use super::*;

    fn pid(id: u32) -> Pid {
        Pid { node: Atom::new_static("me@h"), id, serial: 0, creation: 4 }
    }

    fn ids(subscriptions: &Subscriptions, topic: &[u8]) -> Vec<u32> {
        subscriptions.of_topic(topic).map(|all| all.iter().map(|s| s.pid.id).collect()).unwrap_or_default()
    }

    #[test]
    fn a_process_gets_each_message_as_often_as_it_subscribed() {
        let mut subscriptions = Subscriptions::default();
        assert!(subscriptions.subscribe(b"t", &pid(1)));
        assert!(!subscriptions.subscribe(b"t", &pid(1)));
        assert!(subscriptions.subscribe(b"t", &pid(2)));
        assert!(!subscriptions.subscribe(b"u", &pid(2)));
        assert_eq!(ids(&subscriptions, b"t"), [1, 1, 2]);
        let snapshot = subscriptions.of_topic(b"t").unwrap();
        assert!(subscriptions.unsubscribe(b"t", &pid(1)));
        assert!(!subscriptions.unsubscribe(b"t", &pid(2)));
        assert_eq!(snapshot.len(), 3, "a delivery under way keeps its view");
        assert_eq!((ids(&subscriptions, b"t"), ids(&subscriptions, b"u")), (vec![], vec![2]));
        subscriptions.down(&pid(2));
        assert_eq!((subscriptions.topics(), subscriptions.subscribers()), (0, 0));
    }
}
