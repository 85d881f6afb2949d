//! `global` on a simulated network that breaks connections one by one and in partitions, and crashes nodes.
//!
//! Invariants, checked after the last fault and a time of rest with everything connected:
//!
//! 1. Everybody knows everybody.
//! 2. Every name is that of a process that runs.
//! 3. All nodes have the same names. That is promised for nodes that crash and for a network that splits in two. When single
//!    pairs lose each other while partitions merge, the protocol of `global` itself may leave a name out on some nodes (a node
//!    drops the names of one it has lost, and the others, which have them still, do not tell it again); OTP has the same. So
//!    has it when the next fault comes before the last one is noticed everywhere and settled, a few seconds.
//! 4. No lock is left over, and nobody waits for anybody.
//! 5. Nothing that a server of ours sends is ignored by another.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foundation_cluster::Machine;
use foundation_cluster::global::{Action, Command, Config, Event, Global, MonitorId, To};
use foundation_cluster::sim::{Conditions, Host, Io, Network, NodeId, Random};
use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, Term};

#[derive(Clone, Debug)]
enum Wire {
    Message(Term),
    Monitor { id: MonitorId, pid: Pid },
    Demonitor { id: MonitorId },
    Down { id: MonitorId },
    Kill(Pid),
}

struct Node {
    id: NodeId,
    name: Atom,
    creation: u32,
    global: Global,
    next_pid: u32,
    alive: BTreeSet<Pid>,
    peers: BTreeSet<NodeId>,
    watched_by: Vec<(NodeId, MonitorId, Pid)>,
    watching: BTreeMap<MonitorId, Pid>,
    /// Monitors of processes on nodes that are not connected yet, and until when they wait.
    unreached: BTreeMap<MonitorId, (Pid, Mono)>,
    /// Connections that `global` wants to end; the network has to do that.
    leaves: Vec<NodeId>,
    /// Nodes that `global` wants connected, and until when.
    calls: BTreeMap<NodeId, Mono>,
    done: BTreeMap<u64, bool>,
    commands: u64,
    killed: usize,
}

fn name_of(id: NodeId) -> Atom {
    Atom::new(&format!("n{id:02}@sim{}", id % 2)).unwrap()
}

fn id_of(name: &Atom) -> NodeId {
    name.as_str()[1..3].parse().unwrap()
}

impl Node {
    fn new(id: NodeId, creation: u32, random: u64) -> Self {
        let name = name_of(id);
        let me = Pid { node: name.clone(), id: 1, serial: 0, creation };
        Self {
            id,
            name,
            creation,
            global: Global::new(me, Config::default(), random),
            next_pid: 1,
            alive: BTreeSet::new(),
            peers: BTreeSet::new(),
            watched_by: Vec::new(),
            watching: BTreeMap::new(),
            unreached: BTreeMap::new(),
            leaves: Vec::new(),
            calls: BTreeMap::new(),
            done: BTreeMap::new(),
            commands: 0,
            killed: 0,
        }
    }

    fn spawn(&mut self) -> Pid {
        self.next_pid += 1;
        let pid = Pid { node: self.name.clone(), id: self.next_pid, serial: 0, creation: self.creation };
        self.alive.insert(pid.clone());
        pid
    }

    fn event(&mut self, io: &mut Io<Wire>, event: Event) {
        self.global.handle(io.now(), event);
        self.carry_out(io);
    }

    fn command(&mut self, io: &mut Io<Wire>, what: Command) -> u64 {
        self.commands += 1;
        let command = self.commands;
        self.event(io, Event::Command { command, what });
        command
    }

    fn carry_out(&mut self, io: &mut Io<Wire>) {
        while let Some(action) = self.global.poll_action() {
            match action {
                Action::Send { to, message } => {
                    let node = match &to {
                        To::Pid(pid) => id_of(&pid.node),
                        To::Server(node) => id_of(node),
                    };
                    assert_ne!(node, self.id, "nothing is sent to the own node");
                    io.send(node, Wire::Message(message));
                }
                Action::Reply { to, tag, reply } => {
                    io.send(id_of(&to.node), Wire::Message(Term::tuple([tag, reply])));
                }
                Action::Monitor { monitor, pid, connect } => {
                    let node = id_of(&pid.node);
                    if node == self.id {
                        self.watched_by.push((self.id, monitor, pid.clone()));
                        if !self.alive.contains(&pid) {
                            self.event(io, Event::Down(monitor));
                        }
                    } else if self.peers.contains(&node) {
                        self.watching.insert(monitor, pid.clone());
                        io.send(node, Wire::Monitor { id: monitor, pid });
                    } else if !connect {
                        self.event(io, Event::Down(monitor));
                    } else {
                        self.unreached.insert(monitor, (pid, io.now() + Duration::from_secs(7)));
                    }
                }
                Action::Demonitor(id) => {
                    self.unreached.remove(&id);
                    self.watched_by.retain(|(node, monitor, _)| (*node, *monitor) != (self.id, id));
                    if let Some(pid) = self.watching.remove(&id) {
                        io.send(id_of(&pid.node), Wire::Demonitor { id });
                    }
                }
                Action::Connect(node) => {
                    self.calls.insert(id_of(&node), io.now() + Duration::from_secs(7));
                }
                Action::Disconnect(node) => self.leaves.push(id_of(&node)),
                Action::Resolve { conflict, pid1, pid2, .. } => {
                    let (least, greatest) = if pid1.node < pid2.node { (pid1, pid2) } else { (pid2, pid1) };
                    if greatest.node == self.name {
                        self.kill(io, &greatest);
                    } else {
                        io.send(id_of(&greatest.node), Wire::Kill(greatest));
                    }
                    self.event(io, Event::Resolved { conflict, result: Some(Term::Pid(least)) });
                }
                Action::Done { command, result } => {
                    self.done.insert(command, result);
                }
                other => panic!("unknown action {other:?}"),
            }
        }
    }

    fn kill(&mut self, io: &mut Io<Wire>, pid: &Pid) {
        if !self.alive.remove(pid) {
            return;
        }
        self.killed += 1;
        let (gone, kept) = std::mem::take(&mut self.watched_by).into_iter().partition(|(_, _, p)| p == pid);
        self.watched_by = kept;
        let gone: Vec<(NodeId, MonitorId, Pid)> = gone;
        for (node, id, _) in gone {
            if node == self.id {
                self.event(io, Event::Down(id));
            } else {
                io.send(node, Wire::Down { id });
            }
        }
    }
}

impl Host for Node {
    type Message = Wire;

    fn connected(&mut self, io: &mut Io<Wire>, peer: NodeId) {
        self.peers.insert(peer);
        self.calls.remove(&peer);
        let reached: Vec<MonitorId> = self
            .unreached
            .iter()
            .filter(|(_, (pid, _))| id_of(&pid.node) == peer)
            .map(|(id, _)| *id)
            .collect();
        for id in reached {
            if let Some((pid, _)) = self.unreached.remove(&id) {
                self.watching.insert(id, pid.clone());
                io.send(peer, Wire::Monitor { id, pid });
            }
        }
        self.event(io, Event::NodeUp(name_of(peer)));
    }

    fn disconnected(&mut self, io: &mut Io<Wire>, peer: NodeId) {
        self.peers.remove(&peer);
        self.watched_by.retain(|(node, ..)| *node != peer);
        let lost: Vec<MonitorId> =
            self.watching.iter().filter(|(_, pid)| id_of(&pid.node) == peer).map(|(id, _)| *id).collect();
        for id in lost {
            self.watching.remove(&id);
            self.event(io, Event::Down(id));
        }
        self.event(io, Event::NodeDown(name_of(peer)));
    }

    fn receive(&mut self, io: &mut Io<Wire>, from: NodeId, message: Wire) {
        match message {
            Wire::Message(message) => self.event(io, Event::Message(message)),
            // The server itself runs as long as its node.
            Wire::Monitor { id, pid }
                if pid.creation == self.creation && (pid.id == 1 || self.alive.contains(&pid)) =>
            {
                self.watched_by.push((from, id, pid));
            }
            Wire::Monitor { id, .. } => io.send(from, Wire::Down { id }),
            Wire::Demonitor { id } => {
                self.watched_by.retain(|(node, other, _)| (*node, *other) != (from, id))
            }
            Wire::Down { id } => {
                if self.watching.remove(&id).is_some() {
                    self.event(io, Event::Down(id));
                }
            }
            Wire::Kill(pid) => self.kill(io, &pid),
        }
    }

    fn wake(&mut self, io: &mut Io<Wire>) {
        let now = io.now();
        self.global.handle_timeout(now);
        self.carry_out(io);
        let late: Vec<NodeId> =
            self.calls.iter().filter(|(_, until)| **until <= now).map(|(node, _)| *node).collect();
        for node in late {
            self.calls.remove(&node);
            self.event(io, Event::ConnectFailed(name_of(node)));
        }
        let late: Vec<MonitorId> =
            self.unreached.iter().filter(|(_, (_, until))| *until <= now).map(|(id, _)| *id).collect();
        for id in late {
            self.unreached.remove(&id);
            self.event(io, Event::Down(id));
        }
    }

    fn next_wake(&self) -> Option<Mono> {
        self.global
            .poll_timeout()
            .into_iter()
            .chain(self.calls.values().copied())
            .chain(self.unreached.values().map(|(_, until)| *until))
            .min()
    }
}

/// Runs, and ends the connections that the nodes want ended.
fn run_for(network: &mut Network<Node>, nodes: usize, time: Duration) {
    let until = network.now() + time;
    while network.now() < until {
        network.run_for(Duration::from_millis(5));
        for id in 0..nodes {
            let leaves = network.with(id, |node, _| std::mem::take(&mut node.leaves)).unwrap_or_default();
            for peer in leaves {
                network.disconnect(id, peer);
            }
        }
    }
}

fn names(node: &Node) -> BTreeMap<String, Pid> {
    let global = &node.global;
    global
        .registered_names()
        .map(|name| (format!("{name:?}"), global.whereis_name(name).unwrap().clone()))
        .collect()
}

fn check(network: &Network<Node>, seed: u64, faults: Faults) {
    let nodes: Vec<&Node> = network.nodes().map(|(_, node)| node).collect();
    let all: BTreeSet<&Atom> = nodes.iter().map(|node| &node.name).collect();
    let alive: BTreeSet<&Pid> = nodes.iter().flat_map(|node| &node.alive).collect();
    let expected = names(nodes[0]);
    for node in &nodes {
        let others: BTreeSet<&Atom> = all.iter().copied().filter(|name| **name != node.name).collect();
        assert_eq!(
            node.global.known().collect::<BTreeSet<_>>(),
            others,
            "seed {seed}: invariant 1 at {}",
            node.id
        );
        if faults == Faults::Splits {
            assert_eq!(names(node), expected, "seed {seed}: invariant 3 at {}", node.id);
        }
        for pid in names(node).values() {
            assert!(alive.contains(pid), "seed {seed}: invariant 2 at {}: {pid:?} has ended", node.id);
        }
        assert_eq!(node.global.ignored(), 0, "seed {seed}: invariant 5 at {}", node.id);
        assert!(node.global.is_idle(), "seed {seed}: invariant 4 at {}: {:#?}", node.id, node.global);
    }
}

/// What the network does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Faults {
    /// It splits in two, and heals; nodes crash.
    Splits,
    /// Single pairs lose each other, too.
    Pairs,
}

/// Registers, unregisters, kills, breaks and heals at random, then rests.
fn scenario(seed: u64, nodes: usize, steps: usize, faults: Faults) {
    let mut network: Network<Node> = Network::new(seed, Conditions::default());
    let mut random = Random::new(seed ^ 0x51ed);
    let mut creation = 1;
    for id in 0..nodes {
        network.start(id, Node::new(id, creation, random.next_u64()));
    }
    run_for(&mut network, nodes, Duration::from_secs(10));
    for _ in 0..steps {
        let id = random.below(nodes);
        let other = random.below(nodes);
        let name = Term::Integer(random.below(6) as i64);
        match random.below(12) {
            0..=4 => {
                network.with(id, |node, io| {
                    let pid = node.spawn();
                    node.command(io, Command::Register { name, pid, method: Term::atom("default") });
                });
            }
            5 => {
                network.with(id, |node, io| node.command(io, Command::Unregister { name }));
            }
            6 => {
                network.with(id, |node, io| {
                    if let Some(pid) = node.alive.first().cloned() {
                        node.kill(io, &pid);
                    }
                });
            }
            7 if id != other && faults == Faults::Pairs => network.disconnect(id, other),
            8 if id != other && faults == Faults::Pairs => network.allow(id, other, false),
            7 | 8 if id != 0 => {
                for a in 0..id {
                    for b in id..nodes {
                        network.allow(a, b, false);
                    }
                }
                // A split is noticed everywhere before anything else happens.
                run_for(&mut network, nodes, Duration::from_secs(30));
            }
            9 | 10 => {
                for a in 0..nodes {
                    for b in 0..a {
                        network.allow(a, b, true);
                    }
                }
            }
            11 => {
                network.crash(id);
                creation += 1;
                network.start(id, Node::new(id, creation, random.next_u64()));
                run_for(&mut network, nodes, Duration::from_secs(10));
            }
            _ => {}
        }
        let pause = random.duration(Duration::ZERO..Duration::from_millis(1500));
        run_for(&mut network, nodes, pause);
    }
    for a in 0..nodes {
        for b in 0..a {
            network.allow(a, b, true);
        }
    }
    run_for(&mut network, nodes, Duration::from_secs(240));
    check(&network, seed, faults);
}

#[test]
fn splits_and_crashes_leave_one_table_of_names() {
    for seed in crate::seeds(40) {
        scenario(seed, 4, 25, Faults::Splits);
    }
    for seed in crate::seeds(6) {
        scenario(seed, 7, 20, Faults::Splits);
    }
}

#[test]
fn nothing_is_left_over_when_pairs_lose_each_other() {
    for seed in crate::seeds(60) {
        scenario(seed, 4, 25, Faults::Pairs);
    }
    for seed in crate::seeds(6) {
        scenario(seed, 7, 20, Faults::Pairs);
    }
}

/// Registrations of one name on all nodes at once: one succeeds.
#[test]
fn one_of_many_gets_the_name() {
    for seed in crate::seeds(10) {
        let nodes = 5;
        let mut network: Network<Node> = Network::new(seed, Conditions::default());
        for id in 0..nodes {
            network.start(id, Node::new(id, 1, seed * 31 + id as u64));
        }
        run_for(&mut network, nodes, Duration::from_secs(60));
        for id in 0..nodes {
            network.with(id, |node, io| {
                let pid = node.spawn();
                node.command(
                    io,
                    Command::Register { name: Term::atom("one"), pid, method: Term::atom("default") },
                )
            });
        }
        run_for(&mut network, nodes, Duration::from_secs(60));
        let won = network.nodes().filter(|(_, node)| node.done.get(&1) == Some(&true)).count();
        assert_eq!(won, 1, "seed {seed}");
        check(&network, seed, Faults::Splits);
    }
}
