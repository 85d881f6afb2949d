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
//!
//! A seed that fails prints what happened as a scenario ([`crate::sim::scenario`]); the files of `crates/cluster/scenarios` are run
//! too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, Term};

use super::super::{Action, CausalCrdt, Config, Event, MonitorId, Mutant};
use crate::registry::{Address, Change, Dot, MapSetShape};
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

/// A node with one member.
struct Node {
    id: NodeId,
    incarnation: i64,
    crdt: CausalCrdt,
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
    fn new(id: NodeId, incarnation: i64, ahead: Duration, mutant: Option<Mutant>) -> Self {
        let pid = Pid { node: node_name(id), id: incarnation as u32, serial: 0, creation: 4 };
        let mut crdt = CausalCrdt::new(pid.clone(), Config::new(incarnation));
        crdt.mutant.rule = mutant;
        Self {
            id,
            incarnation,
            crdt,
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
    fn restart(&mut self, io: &mut Io<Wire>, incarnation: i64, ahead: Duration, size: usize) {
        for (peer, id) in std::mem::take(&mut self.watched_by) {
            self.say(io, peer, Wire::Down { id: MonitorId(id) });
        }
        for (id, node) in std::mem::take(&mut self.watching) {
            self.say(io, node, Wire::Demonitor { id });
        }
        let (peers, muted) = (std::mem::take(&mut self.peers), std::mem::take(&mut self.muted));
        *self = Self::new(self.id, incarnation, ahead, self.crdt.mutant.rule);
        (self.peers, self.muted) = (peers, muted);
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
    mutant: Option<Mutant>,
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
    fn new(seed: u64, size: usize, keys: usize, mutant: Option<Mutant>) -> Self {
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
            mutant,
        };
        for id in 0..size {
            run.start(id);
        }
        run
    }

    /// What has happened so far, for others to see it again.
    fn scenario(&self) -> Scenario {
        Scenario::recorded("map", self.size, self.seed, &[], self.steps.clone())
    }

    fn ahead_of(&self, id: NodeId) -> Duration {
        self.ahead.get(&id).copied().unwrap_or(AHEAD)
    }

    fn start(&mut self, id: NodeId) {
        self.incarnations += 1;
        self.network.start(id, Node::new(id, self.incarnations, self.ahead_of(id), self.mutant));
        let all = neighbours(self.size);
        self.network.with(id, |node, io| node.event(io, Event::SetNeighbours(all)));
    }

    fn crash(&mut self, id: NodeId) {
        let lost = self.network.crash(id).into_iter().chain(self.paused.remove(&id));
        self.oracle.dead.extend(lost.map(|node| node.incarnation));
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
                let dot = node.crdt.map().context().next(by);
                self.oracle.written.insert(dot, word.to_owned());
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
                    let dead = self.network.with(id, |node, io| {
                        let dead = node.incarnation;
                        node.restart(io, incarnation, ahead, size);
                        dead
                    });
                    self.oracle.dead.extend(dead);
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
        let size = self.size;
        let to = to.of(size);
        for id in from.of(size) {
            let lost = self.network.with(id, |node, _| {
                let others = to.iter().copied().filter(|to| *to != id);
                if muted {
                    node.muted.extend(others);
                    return Vec::new();
                }
                others.filter(|to| node.muted.remove(to)).collect::<Vec<_>>()
            });
            lost.into_iter().flatten().for_each(|to| self.network.disconnect(id, to));
        }
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
        self.rest(rest_of(self.size));
        let scenario = self.scenario();
        match self.check() {
            Ok(()) => Ok((self.network.delivered(), scenario)),
            Err(what) => Err(Failed { what, scenario: Box::new(scenario) }),
        }
    }

    fn check(&mut self) -> Checked {
        let seed = self.seed;
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
            let map: BTreeMap<Key, Term> =
                node.crdt.map().iter().map(|(k, v)| (k.clone(), v.clone())).collect();
            holds(node.replay == map, || format!("seed {seed}: invariant 4, node {id}"))?;
            holds(node.broken.is_none(), || format!("seed {seed}: {:?}, node {id}", node.broken))?;
            let context = node.crdt.map().context();
            let writers: BTreeSet<i64> = self.oracle.written.keys().map(|dot| dot.replica).collect();
            let mut open = context.beyond().filter(|dot| !self.oracle.dead.contains(&dot.replica));
            holds(open.next().is_none() && context.size() <= writers.len() * 3, || {
                format!("seed {seed}: invariant 5, node {id}: {context:?}")
            })?;
            holds(node.crdt.stats().ignored == 0, || format!("seed {seed}: invariant 7, node {id}"))?;
        }
        let ids: Vec<NodeId> = nodes.iter().map(|node| node.id).collect();
        let mut roots = BTreeSet::new();
        for id in ids {
            roots.extend(self.network.with(id, |node, _| node.crdt.root_hash(MapSetShape::Plain)));
        }
        holds(roots.len() == 1, || format!("seed {seed}: invariant 1, roots"))?;
        // Four comparisons of two messages each, every 30 s, from each node.
        let before = self.network.delivered();
        self.network.run_for(Duration::from_secs(300));
        let quiet = self.network.delivered() - before;
        let allowed = self.size as u64 * 4 * 2 * 11;
        holds(quiet <= allowed, || format!("seed {seed}: invariant 6, {quiet} messages, {allowed} allowed"))
    }

    /// All members hold equal elements.
    fn agreed(&self) -> Checked {
        let seed = self.seed;
        let words: BTreeSet<&String> = self.oracle.written.values().collect();
        let nodes: Vec<&Node> = self.network.nodes().map(|(_, node)| node).collect();
        for (node, word) in nodes.iter().flat_map(|node| words.iter().map(move |word| (node, word))) {
            let (here, there) =
                (node.crdt.map().elements(&key(word)), nodes[0].crdt.map().elements(&key(word)));
            holds(here == there, || {
                format!("seed {seed}: invariant 1, node {}, key {word}: {here:?} and {there:?}", node.id)
            })?;
        }
        Ok(())
    }
}

/// The files that are run among more than ten members: each takes ten seconds then.
const LARGE: [&str; 2] = ["halves.scenario", "restarts.scenario"];

/// How long a network of so many members needs to come to rest.
fn rest_of(size: usize) -> Duration {
    // Each compares with four others every 30 s when nothing changes.
    Duration::from_secs(if size <= 10 { 120 + 30 * size as u64 } else { 360 + 8 * size as u64 })
}

fn run(
    seed: u64,
    size: usize,
    keys: usize,
    steps: i64,
    mutant: Option<Mutant>,
) -> Result<(u64, Scenario), Failed> {
    let mut run = Run::new(seed, size, keys, mutant);
    for _ in 0..steps {
        run.step();
    }
    run.end()
}

fn replay(scenario: &Scenario, size: usize, mutant: Option<Mutant>) -> Result<u64, Failed> {
    let mut run = Run::new(scenario.seed, size, 0, mutant);
    for (at, step) in &scenario.steps {
        run.network.run_until(Mono::ZERO + *at);
        run.apply(step.clone());
    }
    Ok(run.end()?.0)
}

/// One of many short runs.
fn short(seed: u64, mutant: Option<Mutant>) -> Result<(u64, Scenario), Failed> {
    run(seed, 2 + (seed % 6) as usize, 12, 250, mutant)
}

#[test]
fn maps_converge_and_no_name_is_lost_or_comes_back() {
    let delivered: u64 =
        seeds(60).map(|seed| short(seed, None).unwrap_or_else(|failed| panic!("{failed}")).0).sum();
    println!("causal_crdt: {delivered} messages delivered");
}

#[test]
fn many_keys_go_through_several_levels_of_the_tree() {
    for seed in seeds(2) {
        run(seed, 3, 2000, 4000, None).unwrap_or_else(|failed| panic!("{failed}"));
    }
}

#[test]
fn a_seed_runs_the_same_way_twice() {
    let run = || run(7, 4, 12, 300, None).unwrap_or_else(|failed| panic!("{failed}"));
    let (delivered, scenario) = run();
    assert_eq!(run().0, delivered);
    // And what it prints does too.
    let scenario = Scenario::parse(&scenario.to_string()).unwrap();
    assert_eq!(replay(&scenario, 4, None).ok(), Some(delivered));
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
    ];
    for mutant in mutants {
        let caught = (0..300).find_map(|seed| short(seed, Some(mutant)).err());
        let caught = caught.unwrap_or_else(|| panic!("{mutant:?} was not noticed"));
        // What is printed runs the same way again.
        let scenario = Scenario::parse(&caught.scenario.to_string()).unwrap();
        let again = replay(&scenario, scenario.nodes[0], Some(mutant)).err().map(|failed| failed.what);
        assert_eq!(again.as_ref(), Some(&caught.what), "{caught}");
        println!("causal_crdt: without {mutant:?}: {}", caught.what);
    }
}

#[test]
fn two_hundred_members_converge() {
    let mut run = Run::new(1, 200, 100, None);
    for _ in 0..100 {
        run.step();
    }
    run.rest(Duration::from_secs(60));
    run.agreed().unwrap_or_else(|what| panic!("{what}"));
    println!("causal_crdt: {} messages delivered among 200", run.network.delivered());
}
