//! `pg` on a simulated network that breaks connections, crashes nodes and restarts scopes.
//!
//! Invariants, checked after the last fault and a time of rest:
//!
//! 1. Convergence: what a node sees of each node it is connected to is exactly what that node has, counting repetitions.
//! 2. Nothing is left over: no member of a node that is gone, or of an earlier scope process or incarnation, is listed.
//! 3. `Changed` tells the whole story: replaying it from the start gives the members.
//! 4. No growth: a scope holds one monitor for each local member, known peer and node it searches, and no more.
//! 5. Nothing that a scope of ours sends is ignored by another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use foundation_cluster::Machine;
use foundation_cluster::pg::{Action, Event, MonitorId, Scope, To};
use foundation_cluster::sim::{Conditions, Host, Io, Network, NodeId, Random};
use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, Term};

/// What nodes of the simulation send each other: the signals that `pg` uses.
#[derive(Clone, Debug)]
enum Wire {
    Message { to: To, message: Term },
    Monitor { id: MonitorId, target: To },
    Demonitor { id: MonitorId },
    Down { id: MonitorId },
}

/// A node with one scope and some processes that join and leave.
struct Node {
    id: NodeId,
    name: Atom,
    creation: u32,
    scope: Scope,
    scope_pid: Pid,
    next_pid: u32,
    members: Vec<Pid>,
    /// What was joined and not left, kept apart from the scope: the truth that others must come to see.
    truth: BTreeMap<(usize, Pid), usize>,
    peers: BTreeSet<NodeId>,
    /// Monitors of others on our scope process.
    watched_by: Vec<(NodeId, MonitorId)>,
    /// Our monitors on other nodes.
    watching: BTreeMap<MonitorId, NodeId>,
    local_monitors: BTreeMap<MonitorId, Pid>,
    /// Replay of `Changed`.
    replay: BTreeMap<(usize, Pid), usize>,
}

/// Made once: a thousand nodes say them a million times.
static NAMES: LazyLock<Vec<Atom>> =
    LazyLock::new(|| (0..1_000).map(|id| Atom::new(&format!("n{id}@sim")).unwrap()).collect());

fn node_name(id: NodeId) -> Atom {
    NAMES[id].clone()
}

fn node_id(name: &Atom) -> NodeId {
    name.as_str()[1..].split('@').next().unwrap().parse().unwrap()
}

fn group(number: usize) -> Term {
    match number {
        0 => Term::Integer(1),
        1 => Term::Float(1.0),
        n => Term::Atom(Atom::new(&format!("group{n}")).unwrap()),
    }
}

fn group_number(group: &Term) -> usize {
    match group {
        Term::Integer(1) => 0,
        Term::Float(_) => 1,
        Term::Atom(name) => name.as_str().strip_prefix("group").unwrap().parse().unwrap(),
        other => panic!("{other:?} is no group of this simulation"),
    }
}

impl Node {
    fn new(id: NodeId, creation: u32) -> Self {
        let name = node_name(id);
        let scope_pid = Pid { node: name.clone(), id: 1, serial: 0, creation };
        Self {
            id,
            name,
            creation,
            scope: Scope::new(scope_pid.clone()),
            scope_pid,
            next_pid: 2,
            members: Vec::new(),
            truth: BTreeMap::new(),
            peers: BTreeSet::new(),
            watched_by: Vec::new(),
            watching: BTreeMap::new(),
            local_monitors: BTreeMap::new(),
            replay: BTreeMap::new(),
        }
    }

    fn pid(&mut self) -> Pid {
        self.next_pid += 1;
        Pid { node: self.name.clone(), id: self.next_pid, serial: 0, creation: self.creation }
    }

    fn event(&mut self, io: &mut Io<Wire>, event: Event) {
        self.scope.handle(io.now(), event);
        self.carry_out(io);
    }

    fn carry_out(&mut self, io: &mut Io<Wire>) {
        // A monitor of a node that is not connected fires at once.
        let mut lost = Vec::new();
        while let Some(action) = self.scope.poll_action() {
            match action {
                Action::Send { to, message } => {
                    let node = destination(&to);
                    assert_ne!(node, self.id, "a scope never sends to its own node");
                    io.send(node, Wire::Message { to, message });
                }
                Action::Monitor { monitor, target } => match &target {
                    To::Pid(pid) if pid.node == self.name => {
                        self.local_monitors.insert(monitor, pid.clone());
                    }
                    _ => {
                        let node = destination(&target);
                        if self.peers.contains(&node) {
                            self.watching.insert(monitor, node);
                            io.send(node, Wire::Monitor { id: monitor, target });
                        } else {
                            lost.push(monitor);
                        }
                    }
                },
                Action::Demonitor(id) => {
                    self.local_monitors.remove(&id);
                    if let Some(node) = self.watching.remove(&id) {
                        io.send(node, Wire::Demonitor { id });
                    }
                }
                Action::Changed { group, joined, left } => {
                    for pid in joined {
                        *self.replay.entry((group_number(&group), pid)).or_default() += 1;
                    }
                    for pid in left {
                        let key = (group_number(&group), pid);
                        let count =
                            self.replay.get_mut(&key).expect("invariant 3: nobody leaves who did not join");
                        *count -= 1;
                        if *count == 0 {
                            self.replay.remove(&key);
                        }
                    }
                }
                other => panic!("unknown action {other:?}"),
            }
        }
        for monitor in lost {
            self.event(io, Event::Down { monitor, noconnection: true });
        }
    }

    fn join(&mut self, io: &mut Io<Wire>, group: Term, pids: Vec<Pid>) {
        for pid in &pids {
            *self.truth.entry((group_number(&group), pid.clone())).or_default() += 1;
        }
        self.event(io, Event::Join { group, pids });
    }

    fn leave(&mut self, io: &mut Io<Wire>, group: Term, pid: Pid) {
        let key = (group_number(&group), pid.clone());
        if let Some(count) = self.truth.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.truth.remove(&key);
            }
        }
        self.event(io, Event::Leave { group, pids: vec![pid] });
    }

    /// A member dies.
    fn exit(&mut self, io: &mut Io<Wire>, at: usize) {
        let pid = self.members.swap_remove(at);
        self.truth.retain(|(_, member), _| *member != pid);
        let monitor = self.local_monitors.iter().find(|(_, watched)| **watched == pid).map(|(id, _)| *id);
        if let Some(monitor) = monitor {
            self.local_monitors.remove(&monitor);
            self.event(io, Event::Down { monitor, noconnection: false });
        }
    }

    /// The scope process dies and is started again by its supervisor; like OTP's, it has lost its local members.
    fn restart_scope(&mut self, io: &mut Io<Wire>) {
        for (peer, id) in std::mem::take(&mut self.watched_by) {
            io.send(peer, Wire::Down { id });
        }
        for (id, node) in std::mem::take(&mut self.watching) {
            io.send(node, Wire::Demonitor { id });
        }
        self.local_monitors.clear();
        self.truth.clear();
        self.replay.clear();
        self.members.clear();
        self.scope_pid = self.pid();
        // The numbers of monitors are the host's keys here, so the new scope must not reuse them while old ones are in flight.
        self.scope = Scope::new(self.scope_pid.clone());
        for peer in self.peers.clone() {
            self.event(io, Event::NodeUp(node_name(peer)));
        }
    }
}

fn destination(to: &To) -> NodeId {
    match to {
        To::Pid(pid) => node_id(&pid.node),
        To::Scope(node) => node_id(node),
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
            self.event(io, Event::Down { monitor, noconnection: true });
        }
        self.event(io, Event::NodeDown(node_name(peer)));
    }

    fn receive(&mut self, io: &mut Io<Wire>, from: NodeId, wire: Wire) {
        match wire {
            Wire::Message { to, message } => {
                if matches!(to, To::Scope(_)) || to == To::Pid(self.scope_pid.clone()) {
                    self.event(io, Event::Message(message));
                }
            }
            Wire::Monitor { id, target } => {
                if matches!(target, To::Scope(_)) || target == To::Pid(self.scope_pid.clone()) {
                    self.watched_by.push((from, id));
                } else {
                    io.send(from, Wire::Down { id });
                }
            }
            Wire::Demonitor { id } => self.watched_by.retain(|watch| *watch != (from, id)),
            Wire::Down { id } => {
                if self.watching.get(&id) == Some(&from) {
                    self.watching.remove(&id);
                    self.event(io, Event::Down { monitor: id, noconnection: false });
                }
            }
        }
    }

    fn wake(&mut self, io: &mut Io<Wire>) {
        self.scope.handle_timeout(io.now());
        self.carry_out(io);
    }

    fn next_wake(&self) -> Option<Mono> {
        self.scope.poll_timeout()
    }
}

const GROUPS: usize = 5;

fn act(node: &mut Node, io: &mut Io<Wire>, choice: usize, random: &mut Random) {
    let group = group(random.below(GROUPS));
    match choice {
        0..=3 => {
            let pid = node.pid();
            node.members.push(pid.clone());
            let mut pids = vec![pid];
            if random.chance(30)
                && let Some(again) = node.members.get(random.below(node.members.len())).cloned()
            {
                pids.push(again);
            }
            node.join(io, group, pids);
        }
        4..=5 if !node.members.is_empty() => {
            let pid = node.members[random.below(node.members.len())].clone();
            node.join(io, group, vec![pid]);
        }
        6..=7 if !node.members.is_empty() => {
            let pid = node.members[random.below(node.members.len())].clone();
            node.leave(io, group, pid);
        }
        8 if !node.members.is_empty() => {
            let at = random.below(node.members.len());
            node.exit(io, at);
        }
        9 if random.chance(10) => node.restart_scope(io),
        _ => {}
    }
}

fn check(seed: u64, network: &Network<Node>) {
    check_every(1, seed, network);
}

/// The same for every `step`th node.
fn check_every(step: usize, seed: u64, network: &Network<Node>) {
    let nodes: BTreeMap<NodeId, &Node> = network.nodes().collect();
    for (a, seer) in nodes.iter().step_by(step) {
        let mut expected = seer.truth.clone();
        for (b, seen) in &nodes {
            if a != b {
                assert!(network.is_connected(*a, *b), "seed {seed}: the network rests connected");
                expected.extend(seen.truth.clone());
            }
        }
        let mut found: BTreeMap<(usize, Pid), usize> = BTreeMap::new();
        for group in seer.scope.groups() {
            for pid in seer.scope.members(group) {
                *found.entry((group_number(group), pid.clone())).or_default() += 1;
            }
        }
        assert_eq!(found, expected, "seed {seed}: invariants 1 and 2, node {a}");
        assert_eq!(seer.replay, expected, "seed {seed}: invariant 3, node {a}");
        let members = seer.truth.keys().map(|(_, pid)| pid).collect::<BTreeSet<_>>().len();
        assert_eq!(seer.local_monitors.len(), members, "seed {seed}: invariant 4, members of node {a}");
        assert_eq!(
            seer.scope.peers().count(),
            nodes.len() - 1,
            "seed {seed}: invariant 2, peers of node {a}"
        );
        assert_eq!(seer.watching.len(), 2 * (nodes.len() - 1), "seed {seed}: invariant 4, peers of node {a}");
    }
}

fn run(seed: u64, size: usize, steps: usize) -> u64 {
    let mut network = Network::new(seed, Conditions::default());
    let mut random = Random::new(!seed);
    let mut creation = 4;
    for id in 0..size {
        network.start(id, Node::new(id, creation));
    }
    for _ in 0..steps {
        network.run_for(random.duration(Duration::ZERO..Duration::from_millis(20)));
        let (a, b) = (random.below(size), random.below(size));
        match random.below(100) {
            0..4 if a != b => network.disconnect(a, b),
            4..6 if a != b => {
                let open = random.chance(50);
                network.allow(a, b, open);
            }
            6 => {
                network.crash(a);
                network.run_for(random.duration(Duration::ZERO..Duration::from_secs(1)));
                creation += 1;
                network.start(a, Node::new(a, creation));
            }
            _ => {
                let choice = random.below(10);
                network.with(a, |node, io| act(node, io, choice, &mut random));
            }
        }
    }
    for a in 0..size {
        for b in a + 1..size {
            network.allow(a, b, true);
        }
    }
    network.run_for(Duration::from_secs(120));
    check(seed, &network);
    network.delivered()
}

#[test]
fn views_converge_after_churn_breaks_crashes_and_scope_restarts() {
    let delivered: u64 = super::seeds(300).map(|seed| run(seed, 2 + (seed % 5) as usize, 200)).sum();
    println!("pg: {delivered} messages delivered");
}

#[test]
fn a_seed_runs_the_same_way_twice() {
    assert_eq!(run(7, 4, 300), run(7, 4, 300));
}

#[test]
fn a_hundred_nodes_converge() {
    run(1, 100, 400);
}

#[test]
fn three_hundred_nodes_converge() {
    run_many(300);
}

/// Half a million connections: six million messages and 3 GB.
#[test]
fn a_thousand_nodes_converge() {
    run_many(1_000);
}

/// All connect at once; then some nodes are started again, and some pairs lose each other.
fn run_many(size: usize) {
    let mut network = Network::new(1, Conditions::default());
    let mut random = Random::new(2);
    for id in 0..size {
        network.start(id, Node::new(id, 4));
    }
    let join = |network: &mut Network<Node>, id: NodeId| {
        network.with(id, |node, io| {
            let pid = node.pid();
            node.members.push(pid.clone());
            node.join(io, group(id % GROUPS), vec![pid]);
        });
    };
    for id in 0..size {
        join(&mut network, id);
    }
    network.run_for(Duration::from_secs(5));
    check_every(50, 1, &network);
    for creation in 5..15 {
        let (a, b, c) = (random.below(size), random.below(size), random.below(size));
        network.crash(a);
        if b != c && b != a && c != a {
            network.disconnect(b, c);
        }
        network.run_for(Duration::from_millis(700));
        network.start(a, Node::new(a, creation));
        join(&mut network, a);
    }
    network.run_for(Duration::from_secs(60));
    check_every(50, 1, &network);
    println!("pg: {size} nodes, {} messages delivered", network.delivered());
}
