//! A simulated network in virtual time.
//!
//! Everything that happens follows from one seed: run it again and it happens again. Nodes are connected pair by pair as
//! Erlang nodes are: what one sends to another arrives in order or, when the connection breaks, a suffix of it is lost; each
//! side notices the break at a time of its own; and a pair is connected again only after both have noticed. Nothing is said
//! about the order of messages from different nodes.
//!
//! A [`Host`] is a node. It hands what arrives to its machines and carries out their actions through the [`Io`] it is given.

mod random;
pub mod scenario;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Range;
use std::time::Duration;

use foundation_proto::Mono;

pub use random::Random;

/// A node of the simulation: its number, from 0.
pub type NodeId = usize;

/// What runs on a node.
pub trait Host {
    /// What nodes send each other.
    type Message;

    /// A connection to `peer` came up.
    fn connected(&mut self, io: &mut Io<Self::Message>, peer: NodeId);
    /// The connection to `peer` is gone.
    fn disconnected(&mut self, io: &mut Io<Self::Message>, peer: NodeId);
    /// A message arrived.
    fn receive(&mut self, io: &mut Io<Self::Message>, from: NodeId, message: Self::Message);
    /// The time of [`Host::next_wake`] has come.
    fn wake(&mut self, io: &mut Io<Self::Message>);
    /// When the node wants to be woken.
    fn next_wake(&self) -> Option<Mono>;
}

/// What a host does: it knows the time, and it sends.
#[derive(Debug)]
pub struct Io<M> {
    now: Mono,
    sent: Vec<(NodeId, M)>,
}

impl<M> Io<M> {
    /// The time.
    pub fn now(&self) -> Mono {
        self.now
    }

    /// Sends to a node; lost if there is no connection to it.
    pub fn send(&mut self, to: NodeId, message: M) {
        self.sent.push((to, message));
    }
}

/// How the network behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Conditions {
    /// How long a message travels.
    pub latency: Range<Duration>,
    /// How long a side needs to notice that a connection broke.
    pub detection: Range<Duration>,
    /// How long after both sides noticed a pair may be connected again.
    pub reconnect: Range<Duration>,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            latency: Duration::from_micros(50)..Duration::from_millis(5),
            detection: Duration::ZERO..Duration::from_millis(500),
            reconnect: Duration::from_millis(10)..Duration::from_millis(500),
        }
    }
}

/// The simulated network with its nodes.
#[derive(Debug)]
pub struct Network<H: Host> {
    now: Mono,
    random: Random,
    conditions: Conditions,
    hosts: BTreeMap<NodeId, H>,
    links: Links,
    agenda: Agenda<H::Message>,
    /// The earliest [`What::Wake`] of each node that is to come.
    wakes: BTreeMap<NodeId, Mono>,
    delivered: u64,
}

/// The connection of one pair, seen from outside.
#[derive(Debug, Default)]
struct Link {
    /// Raised by each connection and each break: what was sent before does not arrive after.
    epoch: u64,
    /// Which of the two sides (lower, higher) regard the connection as up.
    up: [bool; 2],
    /// Whether what is sent arrives.
    live: bool,
    /// Whether the network lets the pair talk.
    open: bool,
    /// The latest arrival in each direction; nothing overtakes it.
    latest: [Mono; 2],
}

#[derive(Debug)]
enum What<M> {
    Deliver { from: NodeId, to: NodeId, epoch: u64, message: M },
    Connect { pair: (NodeId, NodeId), epoch: u64 },
    Notice { node: NodeId, peer: NodeId, epoch: u64 },
    Wake(NodeId),
}

/// What is going to happen, in order. What stands for it in the heap is small: a simulation holds half a million at a time.
#[derive(Debug)]
struct Agenda<M> {
    times: BinaryHeap<Reverse<(Mono, u64, usize)>>,
    entries: Vec<Option<What<M>>>,
    free: Vec<usize>,
    sequence: u64,
}

impl<M> Agenda<M> {
    fn new() -> Self {
        Self { times: BinaryHeap::new(), entries: Vec::new(), free: Vec::new(), sequence: 0 }
    }

    /// Behind everything else of this time.
    fn put(&mut self, at: Mono, what: What<M>) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        self.entries[place] = Some(what);
        self.sequence += 1;
        self.times.push(Reverse((at, self.sequence, place)));
    }

    /// The next one, if it is due by then.
    fn take(&mut self, until: Mono) -> Option<(Mono, What<M>)> {
        let Reverse((at, _, place)) = *self.times.peek().filter(|Reverse((at, ..))| *at <= until)?;
        self.times.pop();
        self.free.push(place);
        self.entries[place].take().map(|what| (at, what))
    }
}

/// The connections, by the higher node and then by the lower.
#[derive(Debug, Default)]
struct Links(Vec<Vec<Option<Link>>>);

impl Links {
    fn get(&self, (low, high): (NodeId, NodeId)) -> Option<&Link> {
        self.0.get(high)?.get(low)?.as_ref()
    }

    fn get_mut(&mut self, (low, high): (NodeId, NodeId)) -> Option<&mut Link> {
        self.0.get_mut(high)?.get_mut(low)?.as_mut()
    }

    fn get_or_insert_with(&mut self, (low, high): (NodeId, NodeId), new: impl FnOnce() -> Link) -> &mut Link {
        if self.0.len() <= high {
            self.0.resize_with(high + 1, Vec::new);
        }
        let row = &mut self.0[high];
        if row.len() <= low {
            row.resize_with(low + 1, || None);
        }
        row[low].get_or_insert_with(new)
    }
}

impl<H: Host> Network<H> {
    /// An empty network.
    pub fn new(seed: u64, conditions: Conditions) -> Self {
        Self {
            now: Mono::ZERO,
            random: Random::new(seed),
            conditions,
            hosts: BTreeMap::new(),
            links: Links::default(),
            agenda: Agenda::new(),
            wakes: BTreeMap::new(),
            delivered: 0,
        }
    }

    /// The time.
    pub fn now(&self) -> Mono {
        self.now
    }

    /// The source of chance; drawing from it is part of the run.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// How many messages have arrived.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// The nodes that are running.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &H)> {
        self.hosts.iter().map(|(id, host)| (*id, host))
    }

    /// A node, if it is running.
    pub fn node(&self, id: NodeId) -> Option<&H> {
        self.hosts.get(&id)
    }

    /// Whether both sides regard the pair as connected.
    pub fn is_connected(&self, a: NodeId, b: NodeId) -> bool {
        self.links.get(pair(a, b)).is_some_and(|link| link.up == [true, true])
    }

    /// Starts a node, and connects it to all nodes that the network lets it talk to.
    pub fn start(&mut self, id: NodeId, host: H) {
        let others: Vec<NodeId> = self.hosts.keys().copied().filter(|other| *other != id).collect();
        self.hosts.insert(id, host);
        for other in others {
            self.links.get_or_insert_with(pair(id, other), || Link { open: true, ..Link::default() });
            self.schedule_connect(pair(id, other));
        }
        self.schedule_wake(id);
    }

    /// Stops a node at once, without a word to anyone.
    pub fn crash(&mut self, id: NodeId) -> Option<H> {
        let host = self.hosts.remove(&id);
        let peers: Vec<NodeId> = self.hosts.keys().copied().collect();
        for peer in peers {
            let key = pair(id, peer);
            if let Some(link) = self.links.get_mut(key) {
                // The dead node will not notice anything; its side is down already.
                link.up[side(key, id)] = false;
            }
            self.break_link(key);
        }
        host
    }

    /// Breaks the connection of a pair and lets it come back by itself.
    pub fn disconnect(&mut self, a: NodeId, b: NodeId) {
        self.break_link(pair(a, b));
        self.schedule_connect(pair(a, b));
    }

    /// Lets a pair talk, or keeps it apart until it is allowed again.
    pub fn allow(&mut self, a: NodeId, b: NodeId, open: bool) {
        let key = pair(a, b);
        self.links.get_or_insert_with(key, Link::default).open = open;
        if open {
            self.schedule_connect(key);
        } else {
            self.break_link(key);
        }
    }

    /// Does something on a node, such as a command of its user.
    pub fn with<R>(&mut self, id: NodeId, act: impl FnOnce(&mut H, &mut Io<H::Message>) -> R) -> Option<R> {
        let host = self.hosts.get_mut(&id)?;
        let mut io = Io { now: self.now, sent: Vec::new() };
        let result = act(host, &mut io);
        self.carry_out(id, io);
        Some(result)
    }

    /// Lets all pairs talk that are kept apart.
    pub fn allow_all(&mut self) {
        let mut closed = Vec::new();
        for (high, row) in self.links.0.iter().enumerate() {
            let links = row.iter().enumerate().filter_map(|(low, link)| Some((low, link.as_ref()?)));
            closed.extend(links.filter(|(_, link)| !link.open).map(|(low, _)| (low, high)));
        }
        for (low, high) in closed {
            self.allow(low, high, true);
        }
    }

    /// Runs until nothing is left to happen before `until`.
    pub fn run_until(&mut self, until: Mono) {
        while let Some((at, what)) = self.agenda.take(until) {
            self.now = at;
            self.happen(what);
        }
        self.now = self.now.max(until);
    }

    /// Runs for some time.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    fn happen(&mut self, what: What<H::Message>) {
        match what {
            What::Deliver { from, to, epoch, message } => {
                let key = pair(from, to);
                let alive =
                    self.links.get(key).is_some_and(|link| link.epoch == epoch && link.up[side(key, to)]);
                if alive {
                    self.delivered += 1;
                    self.with(to, |host, io| host.receive(io, from, message));
                }
            }
            What::Connect { pair: (a, b), epoch } => {
                let both = self.hosts.contains_key(&a) && self.hosts.contains_key(&b);
                let Some(link) = self.links.get_mut((a, b)) else { return };
                if both && link.open && link.epoch == epoch && link.up == [false, false] {
                    link.epoch += 1;
                    link.live = true;
                    link.up = [true, true];
                    link.latest = [self.now; 2];
                    self.with(a, |host, io| host.connected(io, b));
                    self.with(b, |host, io| host.connected(io, a));
                }
            }
            What::Notice { node, peer, epoch } => {
                let key = pair(node, peer);
                let Some(link) = self.links.get_mut(key) else { return };
                if link.epoch == epoch && std::mem::take(&mut link.up[side(key, node)]) {
                    let free = link.up == [false, false];
                    self.with(node, |host, io| host.disconnected(io, peer));
                    if free {
                        self.schedule_connect(key);
                    }
                }
            }
            What::Wake(node) => {
                if self.wakes.get(&node) != Some(&self.now) {
                    // An earlier one has come in between.
                    return;
                }
                self.wakes.remove(&node);
                if self.hosts.get(&node).and_then(Host::next_wake).is_some_and(|at| at <= self.now) {
                    self.with(node, |host, io| host.wake(io));
                } else {
                    self.schedule_wake(node);
                }
            }
        }
    }

    fn break_link(&mut self, key: (NodeId, NodeId)) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.epoch += 1;
        link.live = false;
        let epoch = link.epoch;
        let up = link.up;
        for (node, peer, up) in [(key.0, key.1, up[0]), (key.1, key.0, up[1])] {
            if up {
                let at = self.now + self.random.duration(self.conditions.detection.clone());
                self.agenda.put(at, What::Notice { node, peer, epoch });
            }
        }
    }

    fn schedule_connect(&mut self, key: (NodeId, NodeId)) {
        let Some(link) = self.links.get(key) else { return };
        let epoch = link.epoch;
        let at = self.now + self.random.duration(self.conditions.reconnect.clone());
        self.agenda.put(at, What::Connect { pair: key, epoch });
    }

    fn carry_out(&mut self, from: NodeId, io: Io<H::Message>) {
        for (to, message) in io.sent {
            let key = pair(from, to);
            let Some(link) = self.links.get_mut(key) else { continue };
            if !link.live || !link.up[side(key, from)] {
                continue;
            }
            let direction = side(key, from);
            let at = (self.now + self.random.duration(self.conditions.latency.clone()))
                .max(link.latest[direction]);
            link.latest[direction] = at;
            let epoch = link.epoch;
            self.agenda.put(at, What::Deliver { from, to, epoch, message });
        }
        self.schedule_wake(from);
    }

    fn schedule_wake(&mut self, node: NodeId) {
        let Some(at) = self.hosts.get(&node).and_then(Host::next_wake) else { return };
        let at = at.max(self.now);
        if self.wakes.get(&node).is_none_or(|earlier| at < *earlier) {
            self.wakes.insert(node, at);
            self.agenda.put(at, What::Wake(node));
        }
    }
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}

fn side(pair: (NodeId, NodeId), node: NodeId) -> usize {
    usize::from(node == pair.1)
}
