//! Members of a replicated map on a simulated network that breaks connections, keeps pairs apart, crashes nodes and restarts
//! members without their state.
//!
//! Invariants, checked after the last fault and a time of rest:
//!
//! 1. Convergence: all members hold equal elements, and their hash trees have equal roots.
//! 2. No lost name: a write stands unless a later write or remove had seen it. (What only a member knew that then lost its
//!    state may be lost with it: its own writes, and its removes, whose victims may stand again.)
//! 3. No resurrected name: what a surviving member replaced or removed does not come back.
//! 4. `Changed` tells the whole story: replaying it from the start gives the map.
//! 5. Bounded state: dots are kept as one number for each incarnation that wrote. (One that died in the middle of telling
//!    may leave a few more, that nobody can close.)
//! 6. Bounded traffic: with nothing to say, a node sends no more than its beat allows.
//! 7. Nothing that a member sends is ignored by another.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foundation_cluster::registry::causal_crdt::{Action, Config, Event, MonitorId};
use foundation_cluster::registry::{Address, CausalCrdt, Change, Dot, MapSetShape};
use foundation_cluster::sim::{Conditions, Host, Io, Network, NodeId, Random};
use foundation_cluster::{Key, Machine};
use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, Term};

/// What nodes of the simulation send each other.
#[derive(Clone, Debug)]
enum Wire {
    Message { to: Address, message: Term },
    Monitor { id: MonitorId },
    Demonitor { id: MonitorId },
    Down { id: MonitorId },
}

/// A node with one member.
struct Node {
    id: NodeId,
    incarnation: i64,
    crdt: CausalCrdt,
    pid: Pid,
    peers: BTreeSet<NodeId>,
    watched_by: BTreeSet<(NodeId, u64)>,
    watching: BTreeMap<MonitorId, NodeId>,
    replay: BTreeMap<Key, Term>,
}

fn name() -> Atom {
    Atom::new_static("map")
}

fn node_name(id: NodeId) -> Atom {
    Atom::new(&format!("n{id}@sim")).unwrap()
}

fn node_id(name: &Atom) -> NodeId {
    name.as_str()[1..].split('@').next().unwrap().parse().unwrap()
}

fn key(n: usize) -> Key {
    Key(Term::from((Term::atom("key"), n as i64)))
}

fn neighbours(size: usize) -> Vec<Address> {
    (0..size).map(|id| Address::Name { name: name(), node: node_name(id) }).collect()
}

impl Node {
    fn new(id: NodeId, incarnation: i64) -> Self {
        let pid = Pid { node: node_name(id), id: incarnation as u32, serial: 0, creation: 4 };
        Self {
            id,
            incarnation,
            crdt: CausalCrdt::new(pid.clone(), Config::new(incarnation)),
            pid,
            peers: BTreeSet::new(),
            watched_by: BTreeSet::new(),
            watching: BTreeMap::new(),
            replay: BTreeMap::new(),
        }
    }

    fn event(&mut self, io: &mut Io<Wire>, event: Event) {
        self.crdt.handle(io.now(), event);
        self.carry_out(io);
    }

    fn carry_out(&mut self, io: &mut Io<Wire>) {
        let mut lost = Vec::new();
        while let Some(action) = self.crdt.poll_action() {
            match action {
                Action::Send { to, message } => {
                    for to in to {
                        io.send(node_id(to.node()), Wire::Message { to, message: message.clone() });
                    }
                }
                Action::Monitor { monitor, target } => {
                    let node = node_id(target.node());
                    assert_ne!(node, self.id, "a member never monitors itself");
                    if self.peers.contains(&node) {
                        self.watching.insert(monitor, node);
                        io.send(node, Wire::Monitor { id: monitor });
                    } else {
                        lost.push(monitor);
                    }
                }
                Action::Demonitor(id) => {
                    if let Some(node) = self.watching.remove(&id) {
                        io.send(node, Wire::Demonitor { id });
                    }
                }
                Action::Changed(changes) => changes.into_iter().for_each(|change| self.note(change)),
                // For those who keep names in it; the map itself goes on without.
                Action::Missing(_) | Action::Alone => {}
                other => panic!("unknown action {other:?}"),
            }
        }
        for monitor in lost {
            self.event(io, Event::Down(monitor));
        }
    }

    fn note(&mut self, change: Change) {
        match change {
            Change::Put(key, value) => {
                let old = self.replay.insert(key, value.clone());
                assert_ne!(old, Some(value), "invariant 4: nothing changed");
            }
            Change::Removed(key) => {
                assert!(self.replay.remove(&key).is_some(), "invariant 4: removed what was not there");
            }
        }
    }

    /// The member dies and is started again by its supervisor, with an empty map; whoever watches it is told.
    fn restart(&mut self, io: &mut Io<Wire>, incarnation: i64, size: usize) {
        for (peer, id) in std::mem::take(&mut self.watched_by) {
            io.send(peer, Wire::Down { id: MonitorId(id) });
        }
        for (id, node) in std::mem::take(&mut self.watching) {
            io.send(node, Wire::Demonitor { id });
        }
        let peers = std::mem::take(&mut self.peers);
        *self = Self::new(self.id, incarnation);
        self.peers = peers;
        self.event(io, Event::SetNeighbours(neighbours(size)));
    }

    fn dots(&self, key: &Key) -> BTreeSet<Dot> {
        self.crdt.map().elements(key).iter().flat_map(|element| element.dots.iter().copied()).collect()
    }
}

impl Host for Node {
    type Message = Wire;

    fn connected(&mut self, io: &mut Io<Wire>, peer: NodeId) {
        self.peers.insert(peer);
        self.event(io, Event::NodeUp(node_name(peer)));
    }

    fn disconnected(&mut self, io: &mut Io<Wire>, peer: NodeId) {
        self.peers.remove(&peer);
        self.watched_by.retain(|(p, _)| *p != peer);
        let fired: Vec<MonitorId> =
            self.watching.iter().filter(|(_, node)| **node == peer).map(|(id, _)| *id).collect();
        for monitor in fired {
            self.watching.remove(&monitor);
            self.event(io, Event::Down(monitor));
        }
    }

    fn receive(&mut self, io: &mut Io<Wire>, from: NodeId, wire: Wire) {
        match wire {
            Wire::Message { to, message } => {
                if matches!(to, Address::Name { .. }) || to == Address::Pid(self.pid.clone()) {
                    self.event(io, Event::Message(message));
                }
            }
            Wire::Monitor { id } => {
                self.watched_by.insert((from, id.0));
            }
            Wire::Demonitor { id } => {
                self.watched_by.remove(&(from, id.0));
            }
            Wire::Down { id } => {
                if self.watching.get(&id) == Some(&from) {
                    self.watching.remove(&id);
                    self.event(io, Event::Down(id));
                }
            }
        }
    }

    fn wake(&mut self, io: &mut Io<Wire>) {
        self.crdt.handle_timeout(io.now());
        self.carry_out(io);
    }

    fn next_wake(&self) -> Option<Mono> {
        self.crdt.poll_timeout()
    }
}

/// What has been written, and who has taken it away.
#[derive(Default)]
struct Oracle {
    written: BTreeMap<Dot, usize>,
    /// The incarnations that replaced or removed a write they had seen.
    removed: BTreeMap<Dot, Vec<i64>>,
    /// The incarnations that lost their state.
    dead: BTreeSet<i64>,
}

impl Oracle {
    fn remove(&mut self, seen: BTreeSet<Dot>, by: i64) {
        for dot in seen {
            self.removed.entry(dot).or_default().push(by);
        }
    }

    /// Whether a write must stand; `None` if it may.
    fn stands(&self, dot: Dot) -> Option<bool> {
        match self.removed.get(&dot) {
            Some(by) if by.iter().any(|by| !self.dead.contains(by)) => Some(false),
            Some(_) => None,
            None if self.dead.contains(&dot.replica) => None,
            None => Some(true),
        }
    }
}

struct Run {
    network: Network<Node>,
    oracle: Oracle,
    random: Random,
    size: usize,
    keys: usize,
    incarnations: i64,
    seed: u64,
}

impl Run {
    fn new(seed: u64, size: usize, keys: usize) -> Self {
        let mut run = Self {
            network: Network::new(seed, Conditions::default()),
            oracle: Oracle::default(),
            random: Random::new(!seed),
            size,
            keys,
            incarnations: 0,
            seed,
        };
        for id in 0..size {
            run.start(id);
        }
        run
    }

    fn start(&mut self, id: NodeId) {
        self.incarnations += 1;
        self.network.start(id, Node::new(id, self.incarnations));
        let all = neighbours(self.size);
        self.network.with(id, |node, io| node.event(io, Event::SetNeighbours(all)));
    }

    fn write(&mut self, at: NodeId, n: usize, value: Option<i64>) {
        let Some(node) = self.network.node(at) else { return };
        let (seen, by) = (node.dots(&key(n)), node.incarnation);
        self.oracle.remove(seen, by);
        let event = match value {
            Some(value) => {
                let dot = node.crdt.map().context().next(by);
                self.oracle.written.insert(dot, n);
                Event::Put { key: key(n), value: Term::Integer(value) }
            }
            None => Event::Remove(key(n)),
        };
        self.network.with(at, |node, io| node.event(io, event));
    }

    fn step(&mut self, step: i64) {
        let pause = self.random.duration(Duration::ZERO..Duration::from_millis(30));
        self.network.run_for(pause);
        let (a, b) = (self.random.below(self.size), self.random.below(self.size));
        let n = self.random.below(self.keys);
        match self.random.below(100) {
            0..5 if a != b => self.network.disconnect(a, b),
            5..8 if a != b => {
                let open = self.random.chance(50);
                self.network.allow(a, b, open);
            }
            8 => {
                if let Some(node) = self.network.crash(a) {
                    self.oracle.dead.insert(node.incarnation);
                }
                let pause = self.random.duration(Duration::ZERO..Duration::from_secs(1));
                self.network.run_for(pause);
                self.start(a);
            }
            9 => {
                self.incarnations += 1;
                let (incarnation, size) = (self.incarnations, self.size);
                let dead = self.network.with(a, |node, io| {
                    let dead = node.incarnation;
                    node.restart(io, incarnation, size);
                    dead
                });
                self.oracle.dead.extend(dead);
            }
            10..35 => self.write(a, n, None),
            _ => self.write(a, n, Some(step)),
        }
    }

    fn rest(&mut self, time: Duration) {
        for a in 0..self.size {
            for b in a + 1..self.size {
                self.network.allow(a, b, true);
            }
        }
        self.network.run_for(time);
    }

    fn check(&mut self) {
        let seed = self.seed;
        let nodes: Vec<&Node> = self.network.nodes().map(|(_, node)| node).collect();
        for node in &nodes {
            let id = node.id;
            for n in 0..self.keys {
                assert_eq!(
                    node.crdt.map().elements(&key(n)),
                    nodes[0].crdt.map().elements(&key(n)),
                    "seed {seed}: invariant 1, node {id}, key {n}"
                );
            }
            for (dot, n) in &self.oracle.written {
                let there = node.dots(&key(*n)).contains(dot);
                if let Some(stands) = self.oracle.stands(*dot) {
                    let which = if stands { 2 } else { 3 };
                    assert_eq!(there, stands, "seed {seed}: invariant {which}, node {id}, key {n}, {dot:?}");
                }
            }
            let map: BTreeMap<Key, Term> =
                node.crdt.map().iter().map(|(k, v)| (k.clone(), v.clone())).collect();
            assert_eq!(node.replay, map, "seed {seed}: invariant 4, node {id}");
            let context = node.crdt.map().context();
            let writers: BTreeSet<i64> = self.oracle.written.keys().map(|dot| dot.replica).collect();
            let (size, open) =
                (context.size(), context.beyond().filter(|dot| !self.oracle.dead.contains(&dot.replica)));
            assert_eq!(open.count(), 0, "seed {seed}: invariant 5, node {id}: {context:?}");
            assert!(size <= writers.len() * 3, "seed {seed}: invariant 5, node {id}: {context:?}");
            assert_eq!(node.crdt.stats().ignored, 0, "seed {seed}: invariant 7, node {id}");
        }
        let ids: Vec<NodeId> = nodes.iter().map(|node| node.id).collect();
        let mut roots = BTreeSet::new();
        for id in ids {
            roots.extend(self.network.with(id, |node, _| node.crdt.root_hash(MapSetShape::Plain)));
        }
        assert_eq!(roots.len(), 1, "seed {seed}: invariant 1, roots");
        // Four comparisons of two messages each, every 30 s, from each node.
        let before = self.network.delivered();
        self.network.run_for(Duration::from_secs(300));
        let quiet = self.network.delivered() - before;
        let allowed = self.size as u64 * 4 * 2 * 11;
        assert!(quiet <= allowed, "seed {seed}: invariant 6, {quiet} messages, {allowed} allowed");
    }
}

fn run(seed: u64, size: usize, keys: usize, steps: i64) -> u64 {
    let mut run = Run::new(seed, size, keys);
    for step in 0..steps {
        run.step(step);
    }
    run.rest(Duration::from_secs(120 + 30 * size as u64));
    run.check();
    run.network.delivered()
}

#[test]
fn maps_converge_and_no_name_is_lost_or_comes_back() {
    let delivered: u64 = super::seeds(60).map(|seed| run(seed, 2 + (seed % 6) as usize, 12, 250)).sum();
    println!("causal_crdt: {delivered} messages delivered");
}

#[test]
fn many_keys_go_through_several_levels_of_the_tree() {
    for seed in super::seeds(2) {
        run(seed, 3, 2000, 4000);
    }
}

#[test]
fn a_seed_runs_the_same_way_twice() {
    assert_eq!(run(7, 4, 12, 300), run(7, 4, 12, 300));
}

#[test]
fn two_hundred_members_converge() {
    let mut run = Run::new(1, 200, 100);
    for step in 0..100 {
        run.step(step);
    }
    run.rest(Duration::from_secs(60));
    let nodes: Vec<&Node> = run.network.nodes().map(|(_, node)| node).collect();
    for node in &nodes {
        for n in 0..run.keys {
            assert_eq!(
                node.crdt.map().elements(&key(n)),
                nodes[0].crdt.map().elements(&key(n)),
                "invariant 1"
            );
        }
    }
    println!("causal_crdt: {} messages delivered among 200", run.network.delivered());
}
