//! A node of the simulation: one registry, and processes that have keys.

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;
use crate::sim::{Host, Io, NodeId, Random};

/// What nodes of the simulation send each other. Messages between registries may be lost, doubled and delayed; what the
/// connection itself says, as all between Erlang nodes, is not.
#[derive(Clone, Debug)]
pub(super) enum Wire {
    Message { to: Option<Pid>, message: Term },
    Monitor { id: MonitorId, pid: Pid },
    Demonitor { id: MonitorId },
    Down { id: MonitorId },
}

/// What may happen to the messages of a registry although the connection stands, in percent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub(super) loss: usize,
    pub(super) double: usize,
    pub(super) delay: usize,
}

impl Faults {
    pub(super) fn any(self) -> bool {
        self.loss + self.double + self.delay > 0
    }
}

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) names: Names,
    pub(super) me: Pid,
    /// How far its wall clock is off.
    pub(super) skew: i64,
    pub(super) faults: Faults,
    random: Random,
    peers: BTreeSet<NodeId>,
    /// Nodes that nothing reaches from here, although nobody has noticed yet.
    pub(super) muted: BTreeSet<NodeId>,
    watched_by: BTreeMap<(NodeId, u64), Pid>,
    watching: BTreeMap<MonitorId, NodeId>,
    /// The processes that live, and the keys that each believes to have.
    pub(super) processes: BTreeMap<Pid, BTreeSet<Key>>,
    own_monitors: BTreeMap<MonitorId, Pid>,
    delayed: BTreeMap<(Mono, u64), (NodeId, Wire)>,
    /// Connections that came and went, of which the registry is told after messages of theirs.
    news: std::collections::VecDeque<(Mono, Event)>,
    sequence: u64,
    /// What the changes say is there.
    pub(super) replay: BTreeMap<(Key, Pid), Term>,
    /// What became of commands, and who shared names with this node then.
    pub(super) done: Vec<(u64, Outcome, Vec<Pid>)>,
    pub(super) messages: u64,
    pub(super) broken: Option<String>,
}

pub(super) fn node_name(id: NodeId) -> Atom {
    Atom::new(&format!("n{id}@sim")).unwrap()
}

pub(super) fn node_id(name: &Atom) -> NodeId {
    name.as_str()[1..].split('@').next().unwrap().parse().unwrap()
}

impl Node {
    pub(super) fn new(id: NodeId, incarnation: u32, config: Config, faults: Faults, seed: u64) -> Self {
        let me = Pid { node: node_name(id), id: 0, serial: 0, creation: incarnation };
        let mut random = Random::new(seed ^ u64::from(incarnation) << 32);
        Self {
            id,
            names: Names::new(Atom::new_static("names"), me.clone(), config),
            me,
            skew: random.below(600_000) as i64 - 300_000,
            faults,
            random,
            peers: BTreeSet::new(),
            muted: BTreeSet::new(),
            watched_by: BTreeMap::new(),
            watching: BTreeMap::new(),
            processes: BTreeMap::new(),
            own_monitors: BTreeMap::new(),
            delayed: BTreeMap::new(),
            news: std::collections::VecDeque::new(),
            sequence: 0,
            replay: BTreeMap::new(),
            done: Vec::new(),
            messages: 0,
            broken: None,
        }
    }

    /// From now on nothing is lost while a connection stands.
    pub(super) fn calm(&mut self) {
        self.faults = Faults::default();
        self.muted.clear();
    }

    pub(super) fn wall(&self, now: Mono) -> i64 {
        1_700_000_000_000 + now.0 / 1_000_000 + self.skew
    }

    /// The pid of the `n`-th process of this node.
    pub(super) fn process(&self, n: u32) -> Pid {
        Pid { id: n, ..self.me.clone() }
    }

    /// The processes of this node that have a key, or the one of them that is named.
    pub(super) fn with_key(&self, key: &Key, process: Option<u32>) -> Vec<Pid> {
        let wanted = |pid: &&Pid| process.is_none_or(|process| pid.id == process);
        let has = |(pid, keys): (&Pid, &BTreeSet<Key>)| keys.contains(key).then(|| pid.clone());
        self.processes.iter().filter(|(pid, _)| wanted(pid)).filter_map(has).collect()
    }

    pub(super) fn event(&mut self, io: &mut Io<Wire>, event: Event) {
        self.names.handle(io.now(), event);
        self.carry_out(io);
    }

    pub(super) fn command(&mut self, io: &mut Io<Wire>, number: u64, what: Command) -> Option<Outcome> {
        let wall = self.wall(io.now());
        self.event(io, Event::Command { command: number, what, wall });
        let at = self.done.iter().position(|(done, ..)| *done == number)?;
        Some(self.done.remove(at).1)
    }

    /// A process of this node ends.
    pub(super) fn kill(&mut self, io: &mut Io<Wire>, pid: &Pid) {
        self.processes.remove(pid);
        let fired: Vec<MonitorId> =
            self.own_monitors.iter().filter(|(_, watched)| *watched == pid).map(|(id, _)| *id).collect();
        for id in fired {
            self.own_monitors.remove(&id);
            self.event(io, Event::Down(id));
        }
    }

    fn carry_out(&mut self, io: &mut Io<Wire>) {
        let mut lost = Vec::new();
        let mut ended = Vec::new();
        while let Some(action) = self.names.poll_action() {
            match action {
                Action::Send { to, message } => {
                    for to in to {
                        let (node, to) = match to {
                            To::Pid(pid) if pid.node == self.me.node => {
                                self.told(&pid, &message);
                                continue;
                            }
                            To::Pid(pid) => (node_id(&pid.node), Some(pid)),
                            To::Server(node) => (node_id(&node), None),
                        };
                        self.send(io, node, Wire::Message { to, message: message.clone() });
                    }
                }
                Action::Monitor { monitor, pid } => {
                    let node = node_id(&pid.node);
                    if node == self.id {
                        if self.processes.contains_key(&pid) {
                            self.own_monitors.insert(monitor, pid);
                        } else {
                            lost.push(monitor);
                        }
                    } else if self.peers.contains(&node) {
                        self.watching.insert(monitor, node);
                        io.send(node, Wire::Monitor { id: monitor, pid });
                    } else {
                        lost.push(monitor);
                    }
                }
                Action::Demonitor(id) => {
                    self.own_monitors.remove(&id);
                    if let Some(node) = self.watching.remove(&id) {
                        io.send(node, Wire::Demonitor { id });
                    }
                }
                Action::Exit { to, .. } => ended.push(to),
                Action::Changed(changes) => changes.into_iter().for_each(|change| self.note(change)),
                Action::Done { command, outcome } => {
                    let members = self.names.peers.values().filter_map(|peer| peer.follower.as_ref());
                    let members = members.map(|follower| follower.pid.clone()).collect();
                    self.done.push((command, outcome, members));
                }
                Action::Reply { .. } => {}
            }
        }
        for monitor in lost {
            self.event(io, Event::Down(monitor));
        }
        for pid in ended {
            self.kill(io, &pid);
        }
    }

    /// A process that opted out of exiting is told that it has lost a key.
    fn told(&mut self, pid: &Pid, message: &Term) {
        let lost = message.as_tuple().and_then(|parts| parts.get(1)?.as_tuple()?.first().cloned());
        if let (Some(keys), Some(key)) = (self.processes.get_mut(pid), lost) {
            keys.remove(&Key(key));
        }
    }

    fn send(&mut self, io: &mut Io<Wire>, node: NodeId, wire: Wire) {
        self.messages += 1;
        if self.muted.contains(&node) || self.random.chance(self.faults.loss) {
            return;
        }
        if self.random.chance(self.faults.double) {
            self.delay(io.now(), node, wire.clone());
        }
        if self.random.chance(self.faults.delay) {
            self.delay(io.now(), node, wire);
        } else {
            io.send(node, wire);
        }
    }

    fn delay(&mut self, now: Mono, node: NodeId, wire: Wire) {
        let wait = self.random.duration(Duration::from_millis(1)..Duration::from_millis(300));
        self.sequence += 1;
        self.delayed.insert((now + wait, self.sequence), (node, wire));
    }

    fn note(&mut self, change: Change) {
        let place = |entry: &Entry| (Key::clone(&entry.key), entry.pid.clone());
        let broken = match change {
            Change::Added(entry) => {
                self.replay.insert(place(&entry), entry.value.clone()).map(|_| "added what was there")
            }
            Change::Updated(entry) => {
                let before = self.replay.insert(place(&entry), entry.value.clone());
                before.is_none().then_some("updated what was not there")
            }
            Change::Removed(entry) => {
                self.replay.remove(&place(&entry)).is_none().then_some("removed what was not there")
            }
            Change::Conflict { .. } => None,
        };
        if let Some(what) = broken {
            self.broken.get_or_insert_with(|| format!("invariant 5: {what}"));
        }
    }

    /// The node stops for a while, and goes on with what it had; its connections are gone.
    pub(super) fn resume(&mut self, io: &mut Io<Wire>) {
        for peer in std::mem::take(&mut self.peers) {
            self.lose(io, peer);
        }
    }

    fn lose(&mut self, io: &mut Io<Wire>, peer: NodeId) {
        self.peers.remove(&peer);
        self.watched_by.retain(|(node, _), _| *node != peer);
        let fired: Vec<MonitorId> =
            self.watching.iter().filter(|(_, node)| **node == peer).map(|(id, _)| *id).collect();
        for monitor in fired {
            self.watching.remove(&monitor);
            self.event(io, Event::Down(monitor));
        }
        self.tell(io, Event::NodeDown(node_name(peer)));
    }

    /// Tells the registry of a connection, now or a little later, in order.
    fn tell(&mut self, io: &mut Io<Wire>, event: Event) {
        let late = self.random.chance(50);
        let wait = self.random.duration(Duration::ZERO..Duration::from_millis(if late { 20 } else { 1 }));
        let at = self.news.back().map_or(io.now(), |(at, _)| *at).max(io.now() + wait);
        self.news.push_back((at, event));
    }
}

impl Host for Node {
    type Message = Wire;

    fn connected(&mut self, io: &mut Io<Wire>, peer: NodeId) {
        self.peers.insert(peer);
        self.tell(io, Event::NodeUp(node_name(peer)));
    }

    fn disconnected(&mut self, io: &mut Io<Wire>, peer: NodeId) {
        self.lose(io, peer);
    }

    fn receive(&mut self, io: &mut Io<Wire>, from: NodeId, wire: Wire) {
        match wire {
            Wire::Message { to, message } => {
                if to.is_none_or(|pid| pid == self.me) {
                    let wall = self.wall(io.now());
                    self.event(io, Event::Message { message, wall });
                }
            }
            Wire::Monitor { id, pid } => {
                if pid == self.me || self.processes.contains_key(&pid) {
                    self.watched_by.insert((from, id.0), pid);
                } else {
                    io.send(from, Wire::Down { id });
                }
            }
            Wire::Demonitor { id } => {
                self.watched_by.remove(&(from, id.0));
            }
            Wire::Down { id } => {
                if self.watching.remove(&id).is_some() {
                    self.event(io, Event::Down(id));
                }
            }
        }
    }

    fn wake(&mut self, io: &mut Io<Wire>) {
        while let Some(first) = self.delayed.first_entry().filter(|first| first.key().0 <= io.now()) {
            let (node, wire) = first.remove();
            io.send(node, wire);
        }
        while self.news.front().is_some_and(|(at, _)| *at <= io.now()) {
            let Some((_, event)) = self.news.pop_front() else { break };
            self.event(io, event);
        }
        self.names.handle_timeout(io.now());
        self.carry_out(io);
    }

    fn next_wake(&self) -> Option<Mono> {
        let delayed = self.delayed.first_key_value().map(|((at, _), _)| *at);
        let news = self.news.front().map(|(at, _)| *at);
        self.names.poll_timeout().into_iter().chain(delayed).chain(news).min()
    }
}
