//! One run: steps that are drawn from a seed, then rest, then what must hold.

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;
use super::node::{Faults, Node, node_name};
use crate::sim::{Conditions, Network, NodeId, Random};

/// What a run is made of.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) seed: u64,
    pub(super) size: usize,
    pub(super) keys: usize,
    pub(super) steps: u64,
    pub(super) unique: bool,
    pub(super) faults: Faults,
    /// Removals that are remembered: few, so that members go through all entries.
    pub(super) max_removed: usize,
    pub(super) mutant: Option<Mutant>,
}

pub(super) struct Run {
    scenario: Scenario,
    network: Network<Node>,
    random: Random,
    incarnations: u32,
    processes: u32,
    commands: u64,
    /// Waits that have not ended: node and its incarnation, key, version.
    waits: BTreeMap<u64, (NodeId, u32, u64)>,
    /// Nodes that stand still, with their state.
    paused: BTreeMap<NodeId, Node>,
}

type Checked = Result<(), String>;

fn holds(condition: bool, what: impl FnOnce() -> String) -> Checked {
    if condition { Ok(()) } else { Err(what()) }
}

impl Run {
    pub(super) fn new(scenario: Scenario) -> Self {
        let mut run = Self {
            network: Network::new(scenario.seed, Conditions::default()),
            random: Random::new(!scenario.seed),
            incarnations: 0,
            processes: 0,
            commands: 0,
            waits: BTreeMap::new(),
            paused: BTreeMap::new(),
            scenario,
        };
        for id in 0..run.scenario.size {
            run.start(id);
        }
        run
    }

    pub(super) fn delivered(&self) -> u64 {
        self.network.delivered()
    }

    pub(super) fn network(&mut self) -> &mut Network<Node> {
        &mut self.network
    }

    fn start(&mut self, id: NodeId) {
        self.incarnations += 1;
        let keys = if self.scenario.unique { Keys::Unique } else { Keys::Duplicate };
        let mut config = Config::new(keys);
        config.max_removed = self.scenario.max_removed;
        config.part_entries = 8;
        let Scenario { faults, seed, mutant, .. } = self.scenario;
        let mut node = Node::new(id, self.incarnations, config, faults, seed);
        node.names.mutant = mutant;
        self.network.start(id, node);
    }

    fn key(&mut self) -> Key {
        Key(Term::from((Term::atom("key"), self.random.below(self.scenario.keys) as i64)))
    }

    /// Registers a key for a process of a node: a new one, or one that it has.
    pub(super) fn register(&mut self, at: NodeId) -> Checked {
        let key = self.key();
        let on_conflict = if self.random.chance(20) { OnConflict::Notify } else { OnConflict::Exit };
        let reuse = self.random.chance(30);
        self.processes += 1;
        self.commands += 1;
        let (fresh, number) = (self.processes, self.commands);
        let value = Term::Integer(number as i64);
        let pick = self.random.next_u64() as usize;
        let result = self.network.with(at, |node, io| {
            let known: Vec<Pid> = node.processes.keys().cloned().collect();
            let pid = match known.get(pick % known.len().max(1)) {
                Some(pid) if reuse => pid.clone(),
                _ => node.process(fresh),
            };
            node.processes.entry(pid.clone()).or_default();
            let what = Command::Register { key: key.0.clone(), pid: pid.clone(), value, on_conflict };
            let outcome = node.command(io, number, what);
            let found = node.names.lookup(&key.0).iter().any(|entry| entry.pid == pid);
            if outcome == Some(Outcome::Done) {
                if let Some(keys) = node.processes.get_mut(&pid) {
                    keys.insert(key.clone());
                }
                return holds(found, || format!("invariant 9: {key:?} is not found where it was registered"));
            }
            let taken = matches!(outcome, Some(Outcome::AlreadyRegistered(_)));
            holds(taken, || format!("registering ended in {outcome:?}"))
        });
        result.unwrap_or(Ok(()))
    }

    fn unregister(&mut self, at: NodeId) {
        let pick = self.random.next_u64() as usize;
        let update = self.random.chance(30);
        self.commands += 1;
        let number = self.commands;
        self.network.with(at, |node, io| {
            let all: Vec<(Pid, Key)> = node
                .processes
                .iter()
                .flat_map(|(pid, keys)| keys.iter().map(move |key| (pid.clone(), key.clone())))
                .collect();
            let Some((pid, key)) = all.get(pick % all.len().max(1)).cloned() else { return };
            let name = key.0.clone();
            if update {
                let value = Term::Integer(-(number as i64));
                node.command(io, number, Command::UpdateValue { key: name, pid, value });
            } else {
                node.processes.get_mut(&pid).unwrap().remove(&key);
                node.command(io, number, Command::Unregister { key: name, pid });
            }
        });
    }

    fn exit(&mut self, at: NodeId) {
        let pick = self.random.next_u64() as usize;
        self.network.with(at, |node, io| {
            let all: Vec<Pid> = node.processes.keys().cloned().collect();
            if let Some(pid) = all.get(pick % all.len().max(1)) {
                node.kill(io, pid);
            }
        });
    }

    fn wait(&mut self, at: NodeId) -> Checked {
        let key = self.key();
        self.commands += 1;
        let number = self.commands;
        let waiting = self.network.with(at, |node, io| {
            let own = node.names.index.all(&key).iter().filter(|entry| entry.node == node.me.node);
            let version = own.map(|entry| entry.version).max();
            let what = Command::WaitUntilAll { key: key.0.clone(), timeout: Duration::from_secs(3) };
            let outcome = node.command(io, number, what);
            (version, node.me.creation, outcome)
        });
        match waiting {
            Some((Some(version), incarnation, None)) => {
                self.waits.insert(number, (at, incarnation, version));
                Ok(())
            }
            Some((Some(version), incarnation, Some(Outcome::Done))) => {
                let members =
                    self.network.node(at).map(|node| node.names.peers.values()).into_iter().flatten();
                let members = members.filter_map(|peer| Some(peer.follower.as_ref()?.pid.clone())).collect();
                self.everywhere(at, incarnation, version, members)
            }
            Some((None, _, outcome)) => {
                holds(outcome == Some(Outcome::NotRegistered), || format!("waiting for nothing: {outcome:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Whether those that shared names with a node have its writes up to a version.
    fn everywhere(&self, at: NodeId, incarnation: u32, version: u64, members: Vec<Pid>) -> Checked {
        let Some(author) = self.network.node(at).filter(|node| node.me.creation == incarnation) else {
            return Ok(());
        };
        for member in members {
            let id = super::node::node_id(&member.node);
            let Some(node) = self.network.node(id).filter(|node| node.me == member) else { continue };
            let held = node.names.held.get(&author.me.node).filter(|held| held.incarnation == author.me);
            let has = held.map_or(0, |held| held.version);
            holds(has >= version, || {
                format!(
                    "invariant 10: node {id} has {has} of node {at}, which was told that all have {version}"
                )
            })?;
        }
        Ok(())
    }

    fn check_waits(&mut self) -> Checked {
        let mut over = Vec::new();
        for (number, (at, incarnation, version)) in self.waits.clone() {
            let ended = self.network.with(at, |node, _| {
                let place = node.done.iter().position(|(done, ..)| *done == number)?;
                Some(node.done.remove(place))
            });
            if let Some(Some((_, outcome, members))) = ended {
                over.push(number);
                if outcome == Outcome::Done {
                    self.everywhere(at, incarnation, version, members)?;
                }
            }
        }
        self.waits.retain(|number, _| !over.contains(number));
        Ok(())
    }

    fn step(&mut self) -> Checked {
        let pause = self.random.duration(Duration::ZERO..Duration::from_millis(30));
        self.network.run_for(pause);
        self.check_waits()?;
        let size = self.scenario.size;
        let (a, b) = (self.random.below(size), self.random.below(size));
        match self.random.below(100) {
            0..4 if a != b => self.network.disconnect(a, b),
            4..8 if a != b => {
                let open = self.random.chance(50);
                if open {
                    self.mute(a, b, false);
                }
                self.network.allow(a, b, open);
            }
            // One way: what b hears of a ends, a while before either notices.
            8..10 if a != b => {
                self.network.with(a, |node, _| node.muted.insert(b));
                let notice = self.random.duration(Duration::ZERO..Duration::from_millis(500));
                self.network.run_for(notice);
                self.network.allow(a, b, false);
                self.mute(a, b, false);
            }
            10 => {
                self.network.crash(a);
                self.paused.remove(&a);
                let pause = self.random.duration(Duration::ZERO..Duration::from_secs(1));
                self.network.run_for(pause);
                self.start(a);
            }
            11 => {
                if let Some(node) = self.network.crash(a) {
                    self.paused.insert(a, node);
                }
            }
            12 | 13 => self.resume(a),
            14..18 => return self.wait(a),
            18..40 => self.unregister(a),
            40..50 => self.exit(a),
            _ => return self.register(a),
        }
        Ok(())
    }

    fn mute(&mut self, a: NodeId, b: NodeId, muted: bool) {
        for (from, to) in [(a, b), (b, a)] {
            self.network
                .with(from, |node, _| if muted { node.muted.insert(to) } else { node.muted.remove(&to) });
        }
    }

    fn resume(&mut self, id: NodeId) {
        if let Some(node) = self.paused.remove(&id) {
            self.network.start(id, node);
            self.network.with(id, |node, io| node.resume(io));
        }
    }

    fn rest(&mut self, time: Duration) {
        for id in 0..self.scenario.size {
            self.resume(id);
            for other in 0..id {
                self.network.allow(id, other, true);
            }
        }
        for id in 0..self.scenario.size {
            self.network.with(id, |node, _| node.calm());
        }
        self.network.run_for(time);
    }

    /// What must hold after a time of rest.
    pub(super) fn check(&mut self) -> Checked {
        let max_removed = self.scenario.max_removed;
        let nodes: Vec<&Node> = self.network.nodes().map(|(_, node)| node).collect();
        let mut expected: BTreeMap<(Key, Pid), Term> = BTreeMap::new();
        let mut owners: BTreeMap<Key, usize> = BTreeMap::new();
        for node in &nodes {
            if let Some(broken) = &node.broken {
                return Err(format!("{broken}, on node {}", node.id));
            }
            let mut written: BTreeSet<(Key, Pid)> = BTreeSet::new();
            for entry in node.names.own.iter() {
                written.insert((Key::clone(&entry.key), entry.pid.clone()));
                expected.insert((Key::clone(&entry.key), entry.pid.clone()), entry.value.clone());
            }
            let mut believed = BTreeSet::new();
            for (pid, keys) in &node.processes {
                for key in keys {
                    believed.insert((key.clone(), pid.clone()));
                    *owners.entry(key.clone()).or_default() += 1;
                }
            }
            let id = node.id;
            if let Some(missing) = believed.difference(&written).next() {
                return Err(format!("invariant 3: node {id} has lost {missing:?}"));
            }
            if let Some(extra) = written.difference(&believed).next() {
                return Err(format!("invariant 2: node {id} still has {extra:?}"));
            }
        }
        if self.scenario.unique
            && let Some((key, count)) = owners.iter().find(|(_, count)| **count > 1)
        {
            return Err(format!("invariant 4: {count} processes have {key:?}"));
        }
        for node in &nodes {
            let id = node.id;
            let found: BTreeMap<(Key, Pid), Term> = node
                .names
                .iter()
                .map(|entry| ((Key::clone(&entry.key), entry.pid.clone()), entry.value.clone()))
                .collect();
            if found != expected {
                let here = found.iter().find(|(key, value)| expected.get(key) != Some(value));
                let there = expected.iter().find(|(key, value)| found.get(key) != Some(value));
                let number = if here.is_some() { 2 } else { 1 };
                return Err(format!("invariant {number}: node {id} finds {here:?} and not {there:?}"));
            }
            holds(node.replay == found, || format!("invariant 5: node {id}"))?;
            let names = &node.names;
            let size = names.own.size();
            let bound = names.own.len() + max_removed + 1;
            holds(size <= bound, || format!("invariant 6: node {id} keeps {size} writes, {bound} allowed"))?;
            let others = self.scenario.size - 1;
            let (held, peers) = (names.held.len(), names.peers.len());
            holds(held <= others && peers <= others, || {
                format!("invariant 6: node {id} keeps {held} and {peers}")
            })?;
            let monitors = 2 * others + names.processes.len();
            holds(names.monitors.len() <= monitors, || format!("invariant 6: node {id} has monitors left"))?;
            holds(names.waits.is_empty(), || format!("invariant 10: a wait on node {id} has not ended"))?;
            holds(names.members().count() == others, || format!("invariant 1: node {id} lacks members"))?;
            let behind = names.behind().map(|(_, behind)| behind).max().unwrap_or_default();
            holds(behind == 0, || format!("invariant 1: node {id} does not know that all have its writes"))?;
            holds(names.stats.ignored == 0, || format!("invariant 8: node {id} ignored a message"))?;
        }
        let sent = |network: &Network<Node>| network.nodes().map(|(_, node)| node.messages).sum::<u64>();
        let before = sent(&self.network);
        self.network.run_for(Duration::from_secs(300));
        let quiet = sent(&self.network) - before;
        holds(quiet == 0, || format!("invariant 7: {quiet} messages while nothing happened"))
    }

    /// All steps, rest, and the check.
    pub(super) fn all(mut self) -> Result<u64, String> {
        let seed = self.scenario.seed;
        let mut work = || {
            for _ in 0..self.scenario.steps {
                self.step()?;
            }
            self.rest(Duration::from_secs(200));
            self.check_waits()?;
            self.check()
        };
        work().map_err(|what| format!("seed {seed}: {what} (FOUNDATION_SIM_SEED={seed} runs it again)"))?;
        Ok(self.network.delivered())
    }
}

/// A whole network that starts and settles, with a number of names each.
pub(super) fn grown(scenario: Scenario, names: usize) -> Result<Run, String> {
    let mut run = Run::new(scenario);
    run.network.run_for(Duration::from_secs(5));
    for id in 0..run.scenario.size {
        for _ in 0..names {
            run.register(id)?;
        }
    }
    run.network.run_for(Duration::from_secs(5));
    let last = node_name(run.scenario.size - 1);
    holds(
        run.network.node(0).is_some_and(|node| node.names.members().any(|member| *member == last)),
        || "the last node was not found".to_owned(),
    )?;
    Ok(run)
}
