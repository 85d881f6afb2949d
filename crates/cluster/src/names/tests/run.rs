//! One run: steps that are drawn from a seed or stand in a scenario, then rest, then what must hold.

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;
use super::node::{Faults, Node, node_name};
use crate::sim::scenario::{Between, Keys as KeySet, Nodes, Scenario, Step, Who};
use crate::sim::{Conditions, Network, NodeId, Random};

/// What a run is made of.
#[derive(Clone, Debug)]
pub(super) struct Plan {
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
    plan: Plan,
    network: Network<Node>,
    random: Random,
    incarnations: u32,
    processes: u32,
    commands: u64,
    /// Waits that have not ended: node and its incarnation, key, version.
    waits: BTreeMap<u64, (NodeId, u32, u64)>,
    /// Nodes that stand still, with their state.
    paused: BTreeMap<NodeId, Node>,
    /// How far wall clocks are off that a step has set.
    skews: BTreeMap<NodeId, i64>,
    /// What has happened so far.
    steps: Vec<(Duration, Step)>,
}

type Checked = Result<(), String>;

/// A run that went wrong, and how to run it again.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) what: String,
    pub(super) scenario: Box<Scenario>,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nas a file of crates/cluster/scenarios:\n{}", self.what, self.scenario)
    }
}

fn holds(condition: bool, what: impl FnOnce() -> String) -> Checked {
    if condition { Ok(()) } else { Err(what()) }
}

impl Run {
    pub(super) fn new(plan: Plan) -> Self {
        let mut run = Self {
            network: Network::new(plan.seed, Conditions::default()),
            random: Random::new(!plan.seed),
            incarnations: 0,
            processes: 0,
            commands: 0,
            waits: BTreeMap::new(),
            paused: BTreeMap::new(),
            skews: BTreeMap::new(),
            steps: Vec::new(),
            plan,
        };
        for id in 0..run.plan.size {
            run.start(id);
        }
        if run.plan.faults.any() {
            let Faults { loss, double, delay } = run.plan.faults;
            run.steps.push((Duration::ZERO, Step::Faults([loss, double, delay])));
        }
        run
    }

    /// The run of a scenario among so many nodes.
    pub(super) fn of(scenario: &Scenario, size: usize, mutant: Option<Mutant>) -> Result<Self, String> {
        let mut plan = Plan {
            seed: scenario.seed,
            size,
            keys: 0,
            steps: 0,
            unique: true,
            faults: Faults::default(),
            max_removed: 1000,
            mutant,
        };
        for (name, value, line) in scenario.settings_of("names") {
            match (name, value, value.parse()) {
                ("keys", "unique", _) => plan.unique = true,
                ("keys", "duplicate", _) => plan.unique = false,
                ("max_removed", _, Ok(number)) => plan.max_removed = number,
                _ => return Err(format!("line {line}: names.{name} cannot be {value}")),
            }
        }
        Ok(Self::new(plan))
    }

    /// What has happened so far, for others to see it again.
    fn scenario(&self) -> Scenario {
        let keys = if self.plan.unique { "unique" } else { "duplicate" };
        let settings = [("keys", keys.to_owned()), ("max_removed", self.plan.max_removed.to_string())];
        Scenario::recorded("names", self.plan.size, self.plan.seed, &settings, self.steps.clone())
    }

    pub(super) fn delivered(&self) -> u64 {
        self.network.delivered()
    }

    pub(super) fn network(&mut self) -> &mut Network<Node> {
        &mut self.network
    }

    fn start(&mut self, id: NodeId) {
        self.incarnations += 1;
        let keys = if self.plan.unique { Keys::Unique } else { Keys::Duplicate };
        let mut config = Config::new(keys);
        config.max_removed = self.plan.max_removed;
        config.part_entries = 8;
        let Plan { faults, seed, mutant, .. } = self.plan;
        let mut node = Node::new(id, self.incarnations, config, faults, seed);
        node.names.mutant.rule = mutant;
        node.skew = self.skews.get(&id).copied().unwrap_or(node.skew);
        self.network.start(id, node);
    }

    /// A key by chance.
    fn key(&mut self) -> KeySet {
        KeySet::one(format!("key{}", self.random.below(self.plan.keys)))
    }

    /// Registers a key for a process of a node: a new one, or one that it has.
    pub(super) fn register(&mut self, at: NodeId) -> Checked {
        let keys = self.key();
        let notify = self.random.chance(20);
        let reuse = self.random.chance(30);
        let pick = self.random.next_u64() as usize;
        let known: Vec<u32> = self.processes_of(at);
        let process = match known.get(pick % known.len().max(1)) {
            Some(process) if reuse => *process,
            _ => self.processes + 1,
        };
        self.apply(Step::Register(Nodes::one(at), keys, Who { process: Some(process), notify }))
    }

    fn processes_of(&self, at: NodeId) -> Vec<u32> {
        let node = self.network.node(at);
        node.map(|node| node.processes.keys().map(|pid| pid.id).collect()).unwrap_or_default()
    }

    fn unregister(&mut self, at: NodeId) -> Checked {
        let pick = self.random.next_u64() as usize;
        let update = self.random.chance(30);
        let Some(node) = self.network.node(at) else { return Ok(()) };
        let all: Vec<(u32, &Key)> =
            node.processes.iter().flat_map(|(pid, keys)| keys.iter().map(move |key| (pid.id, key))).collect();
        let Some((process, key)) = all.get(pick % all.len().max(1)) else { return Ok(()) };
        let (nodes, keys) = (Nodes::one(at), KeySet::one(word(key)));
        let who = Who { process: Some(*process), notify: false };
        self.apply(if update { Step::Update(nodes, keys, who) } else { Step::Unregister(nodes, keys, who) })
    }

    fn exit(&mut self, at: NodeId) -> Checked {
        let pick = self.random.next_u64() as usize;
        let all = self.processes_of(at);
        let Some(process) = all.get(pick % all.len().max(1)) else { return Ok(()) };
        self.apply(Step::Exit(Nodes::one(at), None, Who { process: Some(*process), notify: false }))
    }

    // -- what steps do -------------------------------------------------------------------------------------------------

    fn apply(&mut self, step: Step) -> Checked {
        self.steps.push((Duration::from_nanos(self.network.now().0.unsigned_abs()), step.clone()));
        let size = self.plan.size;
        if self.network.apply(&step, size) {
            if step == Step::HealAll {
                for id in 0..size {
                    self.network.with(id, |node, _| node.muted.clear());
                }
            }
            return Ok(());
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
                    self.crash(id);
                    self.start(id);
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
                for id in nodes.of(size) {
                    self.skews.insert(id, millis);
                    self.network.with(id, |node, _| node.skew = millis);
                }
            }
            // No time that a registry measures has to be exact.
            Step::Rate(..) => {}
            Step::Faults([loss, double, delay]) => {
                self.plan.faults = Faults { loss, double, delay };
                let faults = self.plan.faults;
                for id in 0..size {
                    self.network.with(id, |node, _| node.faults = faults);
                }
            }
            Step::Register(nodes, keys, who) => {
                for (id, key) in each(&nodes, &keys, size) {
                    self.register_key(id, &key, who)?;
                }
            }
            Step::Update(nodes, keys, who) => {
                for (id, key) in each(&nodes, &keys, size) {
                    self.change_key(id, &key, who, true);
                }
            }
            Step::Unregister(nodes, keys, who) => {
                for (id, key) in each(&nodes, &keys, size) {
                    self.change_key(id, &key, who, false);
                }
            }
            Step::Exit(nodes, None, who) => {
                for id in nodes.of(size) {
                    self.network
                        .with(id, |node, io| node.kill(io, &node.process(who.process.unwrap_or_default())));
                }
            }
            Step::Exit(nodes, Some(keys), who) => {
                for (id, key) in each(&nodes, &keys, size) {
                    self.network.with(id, |node, io| {
                        node.with_key(&key, who.process).iter().for_each(|pid| node.kill(io, pid));
                    });
                }
            }
            Step::Wait(nodes, keys) => {
                for (id, key) in each(&nodes, &keys, size) {
                    self.wait(id, &key)?;
                }
            }
            other => return Err(format!("names cannot do `{other}`")),
        }
        Ok(())
    }

    fn mute(&mut self, from: &Nodes, to: &Nodes, muted: bool) {
        self.network.mute(from, to, self.plan.size, muted, |node| &mut node.muted);
    }

    fn crash(&mut self, id: NodeId) {
        self.network.crash(id);
        self.paused.remove(&id);
    }

    fn register_key(&mut self, at: NodeId, key: &Key, who: Who) -> Checked {
        self.commands += 1;
        let number = self.commands;
        let process = who.process.unwrap_or(self.processes + 1);
        self.processes = self.processes.max(process);
        let value = Term::Integer(number as i64);
        let on_conflict = if who.notify { OnConflict::Notify } else { OnConflict::Exit };
        let result = self.network.with(at, |node, io| {
            let pid = node.process(process);
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

    /// Writes another value, or gives the key up.
    fn change_key(&mut self, at: NodeId, key: &Key, who: Who, update: bool) {
        self.commands += 1;
        let number = self.commands;
        self.network.with(at, |node, io| {
            for pid in node.with_key(key, who.process) {
                let name = key.0.clone();
                if update {
                    let value = Term::Integer(-(number as i64));
                    node.command(io, number, Command::UpdateValue { key: name, pid, value });
                } else {
                    if let Some(keys) = node.processes.get_mut(&pid) {
                        keys.remove(key);
                    }
                    node.command(io, number, Command::Unregister { key: name, pid });
                }
            }
        });
    }

    fn wait(&mut self, at: NodeId, key: &Key) -> Checked {
        self.commands += 1;
        let number = self.commands;
        let waiting = self.network.with(at, |node, io| {
            let own = node.names.index.all(key).iter().filter(|entry| entry.node == node.me.node);
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
        let size = self.plan.size;
        let (a, b) = (self.random.below(size), self.random.below(size));
        let node = Nodes::one(a);
        let between = |one_way| Between { from: Nodes::one(a), to: Nodes::one(b), one_way };
        match self.random.below(100) {
            0..4 if a != b => self.apply(Step::Break(node, Nodes::one(b))),
            4..8 if a != b => {
                let open = self.random.chance(50);
                self.apply(if open { Step::Heal(between(false)) } else { Step::Partition(between(false)) })
            }
            // One way: what b hears of a ends, a while before either notices.
            8..10 if a != b => {
                self.apply(Step::Partition(between(true)))?;
                let notice = self.random.duration(Duration::ZERO..Duration::from_millis(500));
                self.network.run_for(notice);
                self.apply(Step::Partition(between(false)))?;
                self.apply(Step::Heal(between(true)))
            }
            10 => {
                self.apply(Step::Crash(node.clone()))?;
                let pause = self.random.duration(Duration::ZERO..Duration::from_secs(1));
                self.network.run_for(pause);
                self.apply(Step::Start(node))
            }
            11 => self.apply(Step::Pause(node)),
            12 | 13 => self.apply(Step::Resume(node)),
            14..18 => {
                let key = self.key();
                self.apply(Step::Wait(node, key))
            }
            18..40 => self.unregister(a),
            40..50 => self.exit(a),
            _ => self.register(a),
        }
    }

    fn resume(&mut self, id: NodeId) {
        if let Some(node) = self.paused.remove(&id) {
            self.network.start(id, node);
            self.network.with(id, |node, io| node.resume(io));
        }
    }

    fn rest(&mut self, time: Duration) {
        for id in 0..self.plan.size {
            self.resume(id);
            if self.network.node(id).is_none() {
                self.start(id);
            }
        }
        self.network.allow_all();
        for id in 0..self.plan.size {
            self.network.with(id, |node, _| node.calm());
        }
        self.network.run_for(time);
    }

    /// What must hold after a time of rest.
    pub(super) fn check(&mut self) -> Checked {
        let max_removed = self.plan.max_removed;
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
        if self.plan.unique
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
            let others = self.plan.size - 1;
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

    /// All steps that chance brings, rest, and the check.
    pub(super) fn all(mut self) -> Result<u64, Failed> {
        let seed = self.plan.seed;
        let mut work = || {
            for _ in 0..self.plan.steps {
                self.step()?;
            }
            self.finish()
        };
        let outcome = work();
        self.end(
            outcome.map_err(|what| format!("seed {seed}: {what} (FOUNDATION_SIM_SEED={seed} runs it again)")),
        )
    }

    /// The steps of a scenario, rest, and the check.
    pub(super) fn replay(mut self, scenario: &Scenario) -> Result<u64, Failed> {
        let mut work = || {
            for (at, step) in &scenario.steps {
                self.network.run_until(Mono::ZERO + *at);
                self.check_waits()?;
                self.apply(step.clone())?;
            }
            self.finish()
        };
        let outcome = work();
        self.end(outcome)
    }

    fn finish(&mut self) -> Checked {
        self.rest(Duration::from_secs(200));
        self.check_waits()?;
        self.check()
    }

    fn end(self, outcome: Checked) -> Result<u64, Failed> {
        match outcome {
            Ok(()) => Ok(self.network.delivered()),
            Err(what) => Err(Failed { what, scenario: Box::new(self.scenario()) }),
        }
    }
}

/// Each node with each of its keys.
fn each(nodes: &Nodes, keys: &KeySet, size: usize) -> Vec<(NodeId, Key)> {
    let keys_of = |id: NodeId| keys.of(id).into_iter().map(move |key| (id, Key(Term::from(key.as_str()))));
    nodes.of(size).into_iter().flat_map(keys_of).collect()
}

/// The word that a key is made of.
fn word(key: &Key) -> String {
    key.0.as_binary().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
}

/// A whole network that starts and settles, with a number of names each.
pub(super) fn grown(plan: Plan, names: usize) -> Result<Run, String> {
    let mut run = Run::new(plan);
    run.network.run_for(Duration::from_secs(5));
    for id in 0..run.plan.size {
        for _ in 0..names {
            run.register(id)?;
        }
    }
    run.network.run_for(Duration::from_secs(5));
    let last = node_name(run.plan.size - 1);
    holds(
        run.network.node(0).is_some_and(|node| node.names.members().any(|member| *member == last)),
        || "the last node was not found".to_owned(),
    )?;
    Ok(run)
}
