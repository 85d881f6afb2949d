//! Members of a replicated map on a simulated network that breaks connections, keeps pairs apart, crashes nodes and restarts
//! members without their state. Some of the members may be DeltaCrdts ([`DeltaCrdt`]).
//!
//! Invariants, checked after the last fault and a time of rest:
//!
//! 1. Convergence: all members hold equal elements, and their hash trees have equal roots.
//! 2. No lost name: a write stands unless a later write or remove had seen it. (What only a member knew that then lost its
//!    state may be lost with it: its own writes, and its removes, whose victims may stand again. And what a DeltaCrdt has claimed
//!    to have seen, and had not: two or more of them lose writes among themselves, [see there](super::delta_crdt).)
//! 3. No resurrected name: what a surviving member replaced or removed does not come back.
//! 4. `Changed` tells the whole story: replaying it from the start gives the map.
//! 5. Bounded state, of our kind: dots are kept as one number for each incarnation that wrote.
//! 6. Bounded traffic: with nothing to say, a node sends no more than its beat allows.
//! 7. Nothing that a member sends is ignored by another.
//! 8. Nothing that a member of our kind sends makes a DeltaCrdt claim to have seen what it has not, but for what that member
//!    itself lacks and says so.
//!
//! A seed that fails prints what happened as a scenario ([`crate::sim::scenario`]); the files of `crates/cluster/scenarios` are run
//! too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, Term};

use super::super::{Action, CausalCrdt, Config, Event, MonitorId, Mutant};
use super::delta_crdt::DeltaCrdt;
use crate::registry::{Address, Change, Dot, Element, MapSetShape};
use crate::seeds::seeds;
use crate::sim::scenario::{Between, Keys, Nodes, Scenario, Step, Who, committed};
use crate::sim::{Conditions, Host, Io, Network, NodeId, Random};
use crate::{Key, Machine};

/// What nodes of the simulation send each other.
#[derive(Clone, Debug)]
enum Wire {
    Message { to: Address, message: Term },
    Monitor { id: MonitorId },
    Demonitor { id: MonitorId },
    Down { id: MonitorId },
}

/// A member, whichever it is.
pub(in crate::registry) trait Member: Machine<Event = Event, Action = Action> {
    fn elements(&self, key: &Key) -> &[Element];
    fn values(&self) -> BTreeMap<Key, Term>;
    /// The dot of the next write here.
    fn next(&self) -> Dot;
    fn root_hash(&mut self) -> Option<u32>;
    fn ours(&self) -> Option<&CausalCrdt> {
        None
    }
    fn theirs(&mut self) -> Option<&mut DeltaCrdt> {
        None
    }
}

impl Member for CausalCrdt {
    fn elements(&self, key: &Key) -> &[Element] {
        self.map.elements(key)
    }

    fn values(&self) -> BTreeMap<Key, Term> {
        self.map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn next(&self) -> Dot {
        self.map.context().next(self.config.replica)
    }

    fn root_hash(&mut self) -> Option<u32> {
        self.root_hash(MapSetShape::Plain)
    }

    fn ours(&self) -> Option<&CausalCrdt> {
        Some(self)
    }
}

impl Member for DeltaCrdt {
    fn elements(&self, key: &Key) -> &[Element] {
        self.elements(key)
    }

    fn values(&self) -> BTreeMap<Key, Term> {
        self.values()
    }

    fn next(&self) -> Dot {
        self.next()
    }

    fn root_hash(&mut self) -> Option<u32> {
        self.root_hash()
    }

    fn theirs(&mut self) -> Option<&mut DeltaCrdt> {
        Some(self)
    }
}

/// What the members of a run are.
#[derive(Clone, Copy, Default)]
struct Kinds {
    /// The rule that ours leave out.
    mutant: Option<Mutant>,
    /// How many of the members, the last ones, are DeltaCrdts.
    theirs: usize,
}

impl Kinds {
    fn without(mutant: Mutant) -> Self {
        Self { mutant: Some(mutant), ..Self::default() }
    }

    fn member(self, me: Pid, replica: i64, id: NodeId, size: usize) -> Box<dyn Member> {
        if id + self.theirs >= size {
            return Box::new(DeltaCrdt::new(me, replica));
        }
        // A map of the simulation has few keys.
        let piece = 1 + replica.unsigned_abs() as usize % 4;
        let mut crdt = CausalCrdt::new(me, Config { piece, ..Config::new(replica) });
        crdt.mutant.rule = self.mutant;
        Box::new(crdt)
    }
}

/// A node with one member.
struct Node {
    id: NodeId,
    incarnation: i64,
    crdt: Box<dyn Member>,
    pid: Pid,
    peers: BTreeSet<NodeId>,
    /// Nodes that nothing reaches from here, although nobody has noticed yet.
    muted: BTreeSet<NodeId>,
    /// How far its clock is ahead of the simulation's.
    ahead: Duration,
    watched_by: BTreeSet<(NodeId, u64)>,
    watching: BTreeMap<MonitorId, NodeId>,
    replay: BTreeMap<Key, Term>,
    /// What went wrong with what it said had changed.
    broken: Option<String>,
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

fn key(word: &str) -> Key {
    Key(Term::from((Term::atom("key"), Term::from(word))))
}

fn neighbours(size: usize) -> Vec<Address> {
    (0..size).map(|id| Address::Name { name: name(), node: node_name(id) }).collect()
}

impl Node {
    fn new(id: NodeId, incarnation: i64, ahead: Duration, kinds: Kinds, size: usize) -> Self {
        let pid = Pid { node: node_name(id), id: incarnation as u32, serial: 0, creation: 4 };
        Self {
            id,
            incarnation,
            crdt: kinds.member(pid.clone(), incarnation, id, size),
            pid,
            peers: BTreeSet::new(),
            muted: BTreeSet::new(),
            ahead,
            watched_by: BTreeSet::new(),
            watching: BTreeMap::new(),
            replay: BTreeMap::new(),
            broken: None,
        }
    }

    fn event(&mut self, io: &mut Io<Wire>, event: Event) {
        self.crdt.handle(io.now() + self.ahead, event);
        self.carry_out(io);
    }

    fn say(&self, io: &mut Io<Wire>, to: NodeId, wire: Wire) {
        if !self.muted.contains(&to) {
            io.send(to, wire);
        }
    }

    fn carry_out(&mut self, io: &mut Io<Wire>) {
        let mut lost = Vec::new();
        while let Some(action) = self.crdt.poll_action() {
            match action {
                Action::Send { to, message } => {
                    for to in to {
                        self.say(io, node_id(to.node()), Wire::Message { to, message: message.clone() });
                    }
                }
                Action::Monitor { monitor, target } => {
                    let node = node_id(target.node());
                    assert_ne!(node, self.id, "a member never monitors itself");
                    if self.peers.contains(&node) {
                        self.watching.insert(monitor, node);
                        self.say(io, node, Wire::Monitor { id: monitor });
                    } else {
                        lost.push(monitor);
                    }
                }
                Action::Demonitor(id) => {
                    if let Some(node) = self.watching.remove(&id) {
                        self.say(io, node, Wire::Demonitor { id });
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
        let told = match change {
            Change::Put(key, value) => self.replay.insert(key, value.clone()) != Some(value),
            Change::Removed(key) => self.replay.remove(&key).is_some(),
        };
        if !told {
            self.broken = Some("invariant 4: a change that changes nothing".to_owned());
        }
    }

    /// The member dies and is started again by its supervisor, with an empty map; whoever watches it is told.
    fn restart(
        &mut self,
        io: &mut Io<Wire>,
        incarnation: i64,
        ahead: Duration,
        kinds: Kinds,
        size: usize,
    ) -> Self {
        for (peer, id) in std::mem::take(&mut self.watched_by) {
            self.say(io, peer, Wire::Down { id: MonitorId(id) });
        }
        for (id, node) in std::mem::take(&mut self.watching) {
            self.say(io, node, Wire::Demonitor { id });
        }
        let (peers, muted) = (std::mem::take(&mut self.peers), std::mem::take(&mut self.muted));
        let dead = std::mem::replace(self, Self::new(self.id, incarnation, ahead, kinds, size));
        (self.peers, self.muted) = (peers, muted);
        self.event(io, Event::SetNeighbours(neighbours(size)));
        dead
    }

    fn dots(&self, key: &Key) -> BTreeSet<Dot> {
        self.crdt.elements(key).iter().flat_map(|element| element.dots.iter().copied()).collect()
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
                let named = matches!(to, Address::Name { .. });
                if named || to == Address::Pid(self.pid.clone()) {
                    if let Some(theirs) = self.crdt.theirs().filter(|_| named) {
                        theirs.takes_for_another(&node_name(from), &message);
                    }
                    self.event(io, super::message(message));
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
        self.crdt.handle_timeout(io.now() + self.ahead);
        self.carry_out(io);
    }

    fn next_wake(&self) -> Option<Mono> {
        self.crdt.poll_timeout().map(|at| at - self.ahead)
    }
}

/// What has been written, and who has taken it away.
#[derive(Default)]
struct Oracle {
    written: BTreeMap<Dot, String>,
    /// The incarnations that replaced or removed a write they had seen.
    removed: BTreeMap<Dot, Vec<i64>>,
    /// The incarnations that lost their state.
    dead: BTreeSet<i64>,
    /// What DeltaCrdts have claimed to have seen, and had not.
    claimed: BTreeSet<Dot>,
    /// Of these, what one of ours made them claim.
    misled: BTreeSet<Dot>,
}

impl Oracle {
    fn remove(&mut self, seen: BTreeSet<Dot>, by: i64) {
        for dot in seen {
            self.removed.entry(dot).or_default().push(by);
        }
    }

    /// A member is not there any more.
    fn lost(&mut self, mut node: Node) {
        self.dead.insert(node.incarnation);
        self.heard(&mut node);
    }

    /// What a DeltaCrdt has claimed.
    fn heard(&mut self, node: &mut Node) {
        let Some(theirs) = node.crdt.theirs() else { return };
        self.claimed.extend(theirs.claimed());
        self.misled.extend(theirs.misled());
    }

    /// Whether a write must stand; `None` if it may.
    fn stands(&self, dot: Dot) -> Option<bool> {
        match self.removed.get(&dot) {
            Some(by) if by.iter().any(|by| !self.dead.contains(by)) => Some(false),
            Some(_) => None,
            None if self.dead.contains(&dot.replica) || self.claimed.contains(&dot) => None,
            None => Some(true),
        }
    }
}

struct Run {
    network: Network<Node>,
    oracle: Oracle,
    random: Random,
    size: usize,
    /// How many keys chance chooses from.
    keys: usize,
    incarnations: i64,
    writes: i64,
    seed: u64,
    /// Nodes that stand still, with their state.
    paused: BTreeMap<NodeId, Node>,
    /// How far the clocks of members are ahead from their next start on.
    ahead: BTreeMap<NodeId, Duration>,
    /// What has happened so far.
    steps: Vec<(Duration, Step)>,
    kinds: Kinds,
}

type Checked = Result<(), String>;

/// A run that went wrong, and how to see it again.
struct Failed {
    what: String,
    scenario: Box<Scenario>,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nas a file of crates/cluster/scenarios:\n{}", self.what, self.scenario)
    }
}

fn holds(condition: bool, what: impl FnOnce() -> String) -> Checked {
    if condition { Ok(()) } else { Err(what()) }
}

/// Clocks are ahead by this if nothing is said, so that they can be behind that too.
const AHEAD: Duration = Duration::from_secs(3600);

impl Run {
    fn new(seed: u64, size: usize, keys: usize, kinds: Kinds) -> Self {
        let mut run = Self {
            network: Network::new(seed, Conditions::default()),
            oracle: Oracle::default(),
            random: Random::new(!seed),
            size,
            keys,
            incarnations: 0,
            writes: 0,
            seed,
            paused: BTreeMap::new(),
            ahead: BTreeMap::new(),
            steps: Vec::new(),
            kinds,
        };
        for id in 0..size {
            run.start(id);
        }
        run
    }

    /// What has happened so far, for others to see it again.
    fn scenario(&self) -> Scenario {
        let settings = [("delta_crdts", self.kinds.theirs.to_string())];
        let settings = if self.kinds.theirs > 0 { &settings[..] } else { &[] };
        Scenario::recorded("map", self.size, self.seed, settings, self.steps.clone())
    }

    fn ahead_of(&self, id: NodeId) -> Duration {
        self.ahead.get(&id).copied().unwrap_or(AHEAD)
    }

    fn start(&mut self, id: NodeId) {
        self.incarnations += 1;
        let node = Node::new(id, self.incarnations, self.ahead_of(id), self.kinds, self.size);
        self.network.start(id, node);
        let all = neighbours(self.size);
        self.network.with(id, |node, io| node.event(io, Event::SetNeighbours(all)));
    }

    fn crash(&mut self, id: NodeId) {
        let lost = self.network.crash(id).into_iter().chain(self.paused.remove(&id));
        lost.for_each(|node| self.oracle.lost(node));
    }

    fn resume(&mut self, id: NodeId) {
        if let Some(node) = self.paused.remove(&id) {
            self.network.start(id, node);
            self.network.with(id, |node, io| {
                for peer in std::mem::take(&mut node.peers) {
                    node.disconnected(io, peer);
                }
            });
        }
    }

    fn write(&mut self, at: NodeId, word: &str, value: Option<i64>) {
        let Some(node) = self.network.node(at) else { return };
        let (seen, by) = (node.dots(&key(word)), node.incarnation);
        self.oracle.remove(seen, by);
        let event = match value {
            Some(value) => {
                self.oracle.written.insert(node.crdt.next(), word.to_owned());
                Event::Put { key: key(word), value: Term::Integer(value) }
            }
            None => Event::Remove(key(word)),
        };
        self.network.with(at, |node, io| node.event(io, event));
    }

    fn step(&mut self) {
        let pause = self.random.duration(Duration::ZERO..Duration::from_millis(30));
        self.network.run_for(pause);
        let (a, b) = (self.random.below(self.size), self.random.below(self.size));
        let keys = Keys::one(self.random.below(self.keys).to_string());
        let node = Nodes::one(a);
        let between = |one_way| Between { from: Nodes::one(a), to: Nodes::one(b), one_way };
        let step = match self.random.below(100) {
            0..4 if a != b => Step::Break(node, Nodes::one(b)),
            4..7 if a != b => {
                let open = self.random.chance(50);
                if open { Step::Heal(between(false)) } else { Step::Partition(between(false)) }
            }
            7 if a != b => {
                let open = self.random.chance(50);
                if open { Step::Heal(between(true)) } else { Step::Partition(between(true)) }
            }
            8 => {
                self.apply(Step::Crash(node.clone()));
                let pause = self.random.duration(Duration::ZERO..Duration::from_secs(1));
                self.network.run_for(pause);
                Step::Start(node)
            }
            9 => Step::Restart(node),
            10 => Step::Pause(node),
            11 | 12 => Step::Resume(node),
            13..35 => Step::Unregister(node, keys, Who::default()),
            _ => Step::Register(node, keys, Who::default()),
        };
        self.apply(step);
    }

    fn apply(&mut self, step: Step) {
        self.steps.push((Duration::from_nanos(self.network.now().0.unsigned_abs()), step.clone()));
        let size = self.size;
        if self.network.apply(&step, size) {
            if step == Step::HealAll {
                let all = Nodes::all();
                self.mute(&all, &all, false);
            }
            return;
        }
        match step {
            Step::Partition(Between { from, to, .. }) => self.mute(&from, &to, true),
            Step::Heal(Between { from, to, .. }) => self.mute(&from, &to, false),
            Step::Crash(nodes) => nodes.of(size).into_iter().for_each(|id| self.crash(id)),
            Step::Start(nodes) => {
                for id in nodes.of(size) {
                    if self.network.node(id).is_none() && !self.paused.contains_key(&id) {
                        self.start(id);
                    }
                }
            }
            Step::Restart(nodes) => {
                for id in nodes.of(size) {
                    self.incarnations += 1;
                    let (incarnation, ahead) = (self.incarnations, self.ahead_of(id));
                    let kinds = self.kinds;
                    let dead =
                        self.network.with(id, |node, io| node.restart(io, incarnation, ahead, kinds, size));
                    dead.into_iter().for_each(|node| self.oracle.lost(node));
                }
            }
            Step::Pause(nodes) => {
                for id in nodes.of(size) {
                    if let Some(node) = self.network.crash(id) {
                        self.paused.insert(id, node);
                    }
                }
            }
            Step::Resume(nodes) => nodes.of(size).into_iter().for_each(|id| self.resume(id)),
            Step::Skew(nodes, millis) => {
                let ahead = AHEAD.as_millis() as i64 + millis;
                let ahead = Duration::from_millis(u64::try_from(ahead).expect("an hour at most"));
                self.ahead.extend(nodes.of(size).into_iter().map(|id| (id, ahead)));
            }
            // No time that a member measures has to be exact.
            Step::Rate(..) => {}
            Step::Register(nodes, keys, _) => {
                for id in nodes.of(size) {
                    for word in keys.of(id) {
                        self.writes += 1;
                        self.write(id, &word, Some(self.writes));
                    }
                }
            }
            Step::Unregister(nodes, keys, _) | Step::Exit(nodes, Some(keys), _) => {
                for id in nodes.of(size) {
                    keys.of(id).iter().for_each(|word| self.write(id, word, None));
                }
            }
            other => panic!("a map cannot do `{other}`"),
        }
    }

    /// What one side says does not arrive. When it does again, what was said meanwhile is lost, and with it the connection.
    fn mute(&mut self, from: &Nodes, to: &Nodes, muted: bool) {
        let heard = self.network.mute(from, to, self.size, muted, |node| &mut node.muted);
        heard.into_iter().for_each(|(a, b)| self.network.disconnect(a, b));
    }

    fn rest(&mut self, time: Duration) {
        for id in 0..self.size {
            self.resume(id);
            if self.network.node(id).is_none() {
                self.start(id);
            }
        }
        self.network.allow_all();
        let all = Nodes::all();
        self.mute(&all, &all, false);
        self.network.run_for(time);
    }

    /// Rests, and says what must hold then and does not.
    fn end(mut self) -> Result<(u64, Scenario), Failed> {
        let until = self.network.now() + rest_of(self.size);
        self.rest(A_WHILE);
        // DeltaCrdts talk all the time, and nothing new can be heard once they agree.
        while self.network.now() < until && !(self.kinds.theirs > 0 && self.is_settled()) {
            self.network.run_for(A_WHILE);
        }
        let scenario = self.scenario();
        match self.check() {
            Ok(()) => Ok((self.network.delivered(), scenario)),
            Err(what) => Err(Failed { what, scenario: Box::new(scenario) }),
        }
    }

    fn check(&mut self) -> Checked {
        let seed = self.seed;
        for id in 0..self.size {
            self.network.with(id, |node, _| self.oracle.heard(node));
        }
        // What was removed may well be claimed.
        let gone =
            |dot: &Dot| self.oracle.removed.contains_key(dot) || self.oracle.dead.contains(&dot.replica);
        let misled =
            self.oracle.misled.iter().find(|dot| self.oracle.written.contains_key(dot) && !gone(dot));
        holds(misled.is_none(), || format!("seed {seed}: invariant 8, {misled:?}"))?;
        self.agreed()?;
        let nodes: Vec<&Node> = self.network.nodes().map(|(_, node)| node).collect();
        for node in &nodes {
            let id = node.id;
            for (dot, n) in &self.oracle.written {
                let there = node.dots(&key(n)).contains(dot);
                if let Some(stands) = self.oracle.stands(*dot) {
                    let which = if stands { 2 } else { 3 };
                    holds(there == stands, || {
                        format!("seed {seed}: invariant {which}, node {id}, key {n}, {dot:?}")
                    })?;
                }
            }
            holds(node.replay == node.crdt.values(), || format!("seed {seed}: invariant 4, node {id}"))?;
            holds(node.broken.is_none(), || format!("seed {seed}: {:?}, node {id}", node.broken))?;
            // What one could not make out would have made a DeltaCrdt panic.
            let Some(ours) = node.crdt.ours() else { continue };
            let context = ours.map().context();
            let writers: BTreeSet<i64> = self.oracle.written.keys().map(|dot| dot.replica).collect();
            holds(context.beyond().next().is_none() && context.size() <= writers.len(), || {
                format!("seed {seed}: invariant 5, node {id}: {context:?}")
            })?;
            holds(ours.stats().ignored == 0, || format!("seed {seed}: invariant 7, node {id}"))?;
        }
        let ids: Vec<NodeId> = nodes.iter().map(|node| node.id).collect();
        let mut roots = BTreeSet::new();
        for id in ids {
            roots.extend(self.network.with(id, |node, _| node.crdt.root_hash()));
        }
        holds(roots.len() == 1, || format!("seed {seed}: invariant 1, roots"))?;
        // Four comparisons of two messages each, every 30 s, from each node.
        let before = self.network.delivered();
        let time = if self.kinds.theirs > 0 { 30 } else { 300 };
        self.network.run_for(Duration::from_secs(time));
        let quiet = self.network.delivered() - before;
        // And of a DeltaCrdt with all others, every 300 ms.
        let theirs = self.kinds.theirs as u64 * (self.size as u64 - 1) * 2 * (time * 10 / 3 + 1);
        let allowed = self.size as u64 * 4 * 2 * (time / 30 + 1) + theirs;
        holds(quiet <= allowed, || format!("seed {seed}: invariant 6, {quiet} messages, {allowed} allowed"))
    }

    /// Whether all members agree, and miss nothing of any replica.
    fn is_settled(&self) -> bool {
        let open = |crdt: &CausalCrdt| crdt.map().context().beyond().next().is_some();
        self.agreed().is_ok() && !self.network.nodes().any(|(_, node)| node.crdt.ours().is_some_and(open))
    }

    /// All members hold equal elements.
    fn agreed(&self) -> Checked {
        let seed = self.seed;
        let words: BTreeSet<&String> = self.oracle.written.values().collect();
        let nodes: Vec<&Node> = self.network.nodes().map(|(_, node)| node).collect();
        for (node, word) in nodes.iter().flat_map(|node| words.iter().map(move |word| (node, word))) {
            let (here, there) = (node.crdt.elements(&key(word)), nodes[0].crdt.elements(&key(word)));
            holds(here == there, || {
                format!("seed {seed}: invariant 1, node {}, key {word}: {here:?} and {there:?}", node.id)
            })?;
        }
        Ok(())
    }
}

const A_WHILE: Duration = Duration::from_secs(5);

/// The files that are run among more than ten members: each takes ten seconds then.
const LARGE: [&str; 2] = ["halves.scenario", "restarts.scenario"];

/// How long a network of so many members needs to come to rest.
fn rest_of(size: usize) -> Duration {
    // Each compares with four others every 30 s when nothing changes.
    Duration::from_secs(if size <= 10 { 120 + 30 * size as u64 } else { 360 + 8 * size as u64 })
}

fn run(seed: u64, size: usize, keys: usize, steps: i64, kinds: Kinds) -> Result<(u64, Scenario), Failed> {
    let mut run = Run::new(seed, size, keys, kinds);
    for _ in 0..steps {
        run.step();
    }
    run.end()
}

/// `mutant` is the rule that is left out; which members are DeltaCrdts stands in the scenario.
fn replay(scenario: &Scenario, size: usize, mutant: Option<Mutant>) -> Result<u64, Failed> {
    let theirs = scenario.settings_of("map").map(|(name, value, line)| match name {
        "delta_crdts" => value.parse().unwrap_or_else(|_| panic!("line {line}: {value} is no number")),
        _ => panic!("line {line}: a map has no {name}"),
    });
    let kinds = Kinds { mutant, theirs: theirs.last().unwrap_or(0) };
    let mut run = Run::new(scenario.seed, size, 0, kinds);
    for (at, step) in &scenario.steps {
        run.network.run_until(Mono::ZERO + *at);
        run.apply(step.clone());
    }
    Ok(run.end()?.0)
}

/// One of many short runs.
fn short(seed: u64, kinds: Kinds) -> Result<(u64, Scenario), Failed> {
    run(seed, size_of(seed), 12, 250, kinds)
}

fn size_of(seed: u64) -> usize {
    2 + (seed % 6) as usize
}

/// One DeltaCrdt among several of ours, one of ours among several DeltaCrdts, or any number between.
fn mixed(seed: u64, mutant: Option<Mutant>) -> Kinds {
    Kinds { mutant, theirs: 1 + (seed / 6) as usize % (size_of(seed) - 1) }
}

#[test]
fn maps_converge_and_no_name_is_lost_or_comes_back() {
    let ran = seeds(60).map(|seed| short(seed, Kinds::default()));
    let delivered: u64 = ran.map(|ran| ran.unwrap_or_else(|failed| panic!("{failed}")).0).sum();
    println!("causal_crdt: {delivered} messages delivered");
}

#[test]
fn members_of_ours_and_delta_crdts_converge() {
    let ran = seeds(24).map(|seed| short(seed, mixed(seed, None)));
    let delivered: u64 = ran.map(|ran| ran.unwrap_or_else(|failed| panic!("{failed}")).0).sum();
    println!("causal_crdt: {delivered} messages delivered among ours and DeltaCrdts");
}

#[test]
fn many_keys_go_through_several_levels_of_the_tree() {
    for seed in seeds(2) {
        for theirs in [0, 1] {
            let kinds = Kinds { mutant: None, theirs };
            run(seed, 3, 2000, 4000, kinds).unwrap_or_else(|failed| panic!("{failed}"));
        }
    }
}

#[test]
fn a_seed_runs_the_same_way_twice() {
    for theirs in [0, 2] {
        let kinds = Kinds { mutant: None, theirs };
        let run = || run(7, 4, 12, 300, kinds).unwrap_or_else(|failed| panic!("{failed}"));
        let (delivered, scenario) = run();
        assert_eq!(run().0, delivered);
        // And what it prints does too.
        let scenario = Scenario::parse(&scenario.to_string()).unwrap();
        assert_eq!(replay(&scenario, 4, None).ok(), Some(delivered));
    }
}

#[test]
fn scenarios_of_files_hold() {
    for (file, scenario) in committed().into_iter().filter(|(_, scenario)| scenario.is_for("map")) {
        let wanted = |size: &&usize| **size <= 10 || LARGE.contains(&file.as_str());
        for size in scenario.nodes.iter().filter(wanted) {
            let delivered = replay(&scenario, *size, None);
            let delivered = delivered.unwrap_or_else(|failed| panic!("{file}, {size} nodes: {failed}"));
            println!("causal_crdt: {file}, {size} nodes: {delivered} messages delivered");
        }
    }
}

#[test]
fn a_rule_that_is_left_out_is_noticed() {
    let mutants = [
        Mutant::AdoptFromAll,
        Mutant::NeverAdopt,
        Mutant::ClaimAll,
        Mutant::IgnoreSeen,
        Mutant::LatestOnly,
        Mutant::Truncate,
        Mutant::StaleTree,
        Mutant::KeepQuiet,
        Mutant::NoRetry,
        Mutant::NoBeat,
        Mutant::NeverIdle,
        Mutant::WaitForEver,
    ];
    for mutant in mutants {
        is_noticed(mutant, (0..300).find_map(|seed| short(seed, Kinds::without(mutant)).err()));
    }
    // These matter only beside a DeltaCrdt; the second is noticed by few seeds.
    for mutant in [Mutant::NameUnseen, Mutant::OldNumbers, Mutant::WholeNumbers] {
        is_noticed(mutant, (200..500).find_map(|seed| short(seed, mixed(seed, Some(mutant))).err()));
    }
}

fn is_noticed(mutant: Mutant, caught: Option<Failed>) {
    let caught = caught.unwrap_or_else(|| panic!("{mutant:?} was not noticed"));
    // What is printed runs the same way again.
    let scenario = Scenario::parse(&caught.scenario.to_string()).unwrap();
    let again = replay(&scenario, scenario.nodes[0], Some(mutant)).err().map(|failed| failed.what);
    assert_eq!(again.as_ref(), Some(&caught.what), "{caught}");
    println!("causal_crdt: without {mutant:?}: {}", caught.what);
}

#[test]
fn two_hundred_members_converge() {
    converge(200, 100);
}

/// By `make soak`.
#[test]
#[ignore = "five minutes: cargo test --release -p foundation-cluster --lib a_thousand_members -- --ignored"]
fn a_thousand_members_converge() {
    converge(1000, 100);
}

fn converge(members: usize, steps: usize) {
    let mut run = Run::new(1, members, 100, Kinds::default());
    for _ in 0..steps {
        run.step();
    }
    run.rest(Duration::from_secs(60));
    run.agreed().unwrap_or_else(|what| panic!("{what}"));
    println!("causal_crdt: {} messages delivered among {members}", run.network.delivered());
}
