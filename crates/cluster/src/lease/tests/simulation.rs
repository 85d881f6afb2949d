//! Leases on a simulated network that breaks connections, keeps pairs apart in one direction or both, crashes nodes, stops them for a
//! while, loses, doubles and delays messages; with clocks that run up to 10 % too fast or too slow.
//!
//! Invariants:
//!
//! 1. A name never has two holders at once, in the true time, as each holder's own clock counts its lease.
//! 2. A holder is told that it loses its name before its lease ends.
//! 3. Once the faults are over, a name that nobody has can be had.
//! 4. Bounded state: when all have given up their names, no member keeps a grant.
//! 5. Bounded traffic: then nothing is sent.
//! 6. Nothing that a member sends is ignored by another.
//!
//! `FOUNDATION_SIM_SEED=N` runs one seed, `FOUNDATION_SIM_SEEDS=N` that many. A seed that fails prints what happened as a scenario
//! ([`crate::sim::scenario`]); the files of `crates/cluster/scenarios` are run too.

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;
use crate::seeds::seeds;
use crate::sim::scenario::{Between, Keys, Nodes, Scenario, Step, Who, committed};
use crate::sim::{Conditions, Host, Io, Network, NodeId, Random};

fn node_name(id: NodeId) -> Atom {
    Atom::new(&format!("n{id}@sim")).unwrap()
}

fn node_id(name: &Atom) -> NodeId {
    name.as_str()[1..].split('@').next().unwrap().parse().unwrap()
}

/// A time for which a node believes that it holds a name, in true time.
#[derive(Clone, Debug)]
struct Span {
    name: Term,
    from: Mono,
    until: Mono,
}

struct Node {
    id: NodeId,
    leases: Leases,
    me: Pid,
    /// Nanoseconds of this node's clock in 1000 true ones.
    rate: i64,
    random: Random,
    /// Percent of messages that are lost, doubled, delayed.
    faults: [usize; 3],
    muted: BTreeSet<NodeId>,
    delayed: BTreeMap<(Mono, u64), (NodeId, Term)>,
    sequence: u64,
    monitors: BTreeMap<MonitorId, Pid>,
    /// Holdings that have ended, and those that go on, by name.
    ended: Vec<Span>,
    holding: BTreeMap<Key, Span>,
    done: BTreeMap<u64, Outcome>,
    messages: u64,
    broken: Option<String>,
}

impl Node {
    fn local(&self, at: Mono) -> Mono {
        Mono(at.0 / 1000 * self.rate + at.0 % 1000)
    }

    /// When this clock shows that time; not later than it really does.
    fn truly(&self, local: Mono) -> Mono {
        Mono(local.0 / self.rate * 1000)
    }

    fn event(&mut self, io: &mut Io<Term>, event: Event) {
        let now = self.local(io.now());
        self.leases.handle(now, event);
        self.carry_out(io);
    }

    fn carry_out(&mut self, io: &mut Io<Term>) {
        let now = io.now();
        let mut ended = Vec::new();
        while let Some(action) = self.leases.poll_action() {
            match action {
                Action::Send { to, message } => {
                    for node in to {
                        self.send(io, node_id(&node), message.clone());
                    }
                }
                Action::Monitor { monitor, pid } => drop(self.monitors.insert(monitor, pid)),
                Action::Demonitor(monitor) => drop(self.monitors.remove(&monitor)),
                Action::Held { name, until, .. } => {
                    let until = self.truly(until);
                    let span = Span { name: name.clone(), from: now, until };
                    let before = self.holding.entry(Key(name)).or_insert_with(|| span.clone());
                    if before.until < now {
                        self.ended.push(std::mem::replace(before, span));
                    } else {
                        before.until = until;
                    }
                }
                Action::Released { name } => self.end(now, &Key(name)),
                Action::Lost { name, pid } => {
                    let late = self.holding.get(&Key(name.clone())).is_some_and(|span| span.until < now);
                    if late {
                        self.broken.get_or_insert_with(|| "invariant 2: it was told too late".to_owned());
                    }
                    // The process may take all the time there is.
                    self.ended.extend(self.holding.remove(&Key(name)));
                    ended.push(pid);
                }
                Action::Done { command, outcome } => drop(self.done.insert(command, outcome)),
            }
        }
        for pid in ended {
            self.kill(io, &pid);
        }
    }

    fn end(&mut self, now: Mono, name: &Key) {
        if let Some(mut span) = self.holding.remove(name) {
            span.until = span.until.min(now);
            self.ended.push(span);
        }
    }

    fn kill(&mut self, io: &mut Io<Term>, pid: &Pid) {
        let fired: Vec<MonitorId> =
            self.monitors.iter().filter(|(_, watched)| *watched == pid).map(|(id, _)| *id).collect();
        for monitor in fired {
            self.monitors.remove(&monitor);
            self.event(io, Event::Down(monitor));
        }
    }

    fn send(&mut self, io: &mut Io<Term>, node: NodeId, message: Term) {
        self.messages += 1;
        let [loss, double, delay] = self.faults;
        if self.muted.contains(&node) || self.random.chance(loss) {
            return;
        }
        for copy in 0..2 {
            if copy == 1 && !self.random.chance(double) {
                break;
            }
            if self.random.chance(delay) {
                // By less than the time in which a vote counts, or by far more.
                let longest = Duration::from_millis([300, 8000][self.random.below(2)]);
                let wait = self.random.duration(Duration::from_millis(1)..longest);
                self.sequence += 1;
                self.delayed.insert((io.now() + wait, self.sequence), (node, message.clone()));
            } else {
                io.send(node, message.clone());
            }
        }
    }
}

impl Host for Node {
    type Message = Term;

    fn connected(&mut self, _: &mut Io<Term>, _: NodeId) {}

    fn disconnected(&mut self, _: &mut Io<Term>, _: NodeId) {}

    fn receive(&mut self, io: &mut Io<Term>, _: NodeId, message: Term) {
        self.event(io, Event::Message(message));
    }

    fn wake(&mut self, io: &mut Io<Term>) {
        while let Some(first) = self.delayed.first_entry().filter(|first| first.key().0 <= io.now()) {
            let (node, message) = first.remove();
            io.send(node, message);
        }
        let now = self.local(io.now());
        self.leases.handle_timeout(now);
        self.carry_out(io);
    }

    fn next_wake(&self) -> Option<Mono> {
        let delayed = self.delayed.first_key_value().map(|((at, _), _)| *at);
        // A microsecond later, so that the clock shows at least that.
        let due = self.leases.poll_timeout().map(|at| self.truly(at) + Duration::from_micros(2));
        due.into_iter().chain(delayed).min()
    }
}

/// What a run is made of.
#[derive(Clone, Debug)]
struct Plan {
    seed: u64,
    size: usize,
    /// The first of the nodes vote.
    members: usize,
    /// In thousandths, by how much clocks may be off, and are.
    drift: u32,
    faults: [usize; 3],
    mutant: Option<Mutant>,
}

struct Run {
    network: Network<Node>,
    random: Random,
    plan: Plan,
    incarnations: u32,
    commands: u64,
    /// How fast the clocks of nodes run from their next start on, if a step has said so.
    rates: BTreeMap<NodeId, i64>,
    /// What has happened so far.
    steps: Vec<(Duration, Step)>,
    paused: BTreeMap<NodeId, Node>,
    /// What nodes held that have crashed.
    past: Vec<(NodeId, Span)>,
}

type Checked = Result<(), String>;

/// A run that went wrong, and how to run it again.
#[derive(Debug)]
struct Failed {
    what: String,
    scenario: Box<Scenario>,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nas a file of crates/cluster/scenarios:\n{}", self.what, self.scenario)
    }
}

/// How long a process tries to get a name.
const PATIENCE: Duration = Duration::from_secs(6);

impl Plan {
    fn of_seed(seed: u64, mutant: Option<Mutant>) -> Self {
        let size = [3, 5, 4, 7, 2][(seed % 5) as usize];
        // Exact clocks leave no slack that would hide other faults.
        let drifts = match mutant {
            Some(mutant) => mutant == Mutant::NoDrift,
            None => seed % 2 == 1,
        };
        let faults = [[0; 3], [5, 5, 10], [15, 15, 30]][(seed / 5 % 3) as usize];
        let drift = if drifts { 100 } else { 0 };
        Self { seed, size, members: size, drift, faults, mutant }
    }

    /// Of a scenario among so many nodes.
    fn of(scenario: &Scenario, size: usize, mutant: Option<Mutant>) -> Result<Self, String> {
        let faults = [0; 3];
        let mut plan = Self { seed: scenario.seed, size, members: size.min(5), drift: 0, faults, mutant };
        for (name, value, line) in scenario.settings_of("lease") {
            match (name, value.parse()) {
                ("members", Ok(members)) => plan.members = size.min(members),
                ("drift", Ok(drift)) if drift <= 500 => plan.drift = drift as u32,
                _ => return Err(format!("line {line}: lease.{name} cannot be {value}")),
            }
        }
        Ok(plan)
    }
}

impl Run {
    fn new(plan: Plan) -> Self {
        // Slow enough for the difference of clocks, and of question and vote, to matter.
        let latency = Duration::from_micros(50)..Duration::from_millis(60);
        let conditions = Conditions { latency, ..Conditions::default() };
        let mut run = Self {
            network: Network::new(plan.seed, conditions),
            random: Random::new(!plan.seed),
            incarnations: 0,
            commands: 0,
            rates: BTreeMap::new(),
            steps: Vec::new(),
            paused: BTreeMap::new(),
            past: Vec::new(),
            plan,
        };
        for id in 0..run.plan.size {
            run.start(id);
        }
        if run.plan.faults != [0; 3] {
            run.steps.push((Duration::ZERO, Step::Faults(run.plan.faults)));
        }
        run
    }

    /// What has happened so far, for others to see it again.
    fn scenario(&self) -> Scenario {
        let settings = [("members", self.plan.members.to_string()), ("drift", self.plan.drift.to_string())];
        Scenario::recorded("lease", self.plan.size, self.plan.seed, &settings, self.steps.clone())
    }

    fn start(&mut self, id: NodeId) {
        self.incarnations += 1;
        let Plan { seed, members, drift, faults, mutant, .. } = self.plan;
        let mut config = Config::new((0..members).map(node_name));
        config.duration = Duration::from_secs(2);
        config.margin = Duration::from_millis(200);
        config.drift = drift;
        let me = Pid { node: node_name(id), id: 0, serial: 0, creation: self.incarnations };
        let mut random = Random::new(!(seed ^ u64::from(self.incarnations) << 32));
        let drift = i64::from(drift);
        let between = 1000 - drift + random.below(2 * drift as usize + 1) as i64;
        let by_chance = [1000 - drift, 1000 + drift, between][random.below(3)];
        let mut node = Node {
            id,
            leases: Leases::new(Mono::ZERO, me.clone(), config.clone(), 1),
            me: me.clone(),
            rate: self.rates.get(&id).copied().unwrap_or(by_chance),
            random: Random::new(seed ^ u64::from(self.incarnations) << 32),
            faults,
            muted: BTreeSet::new(),
            delayed: BTreeMap::new(),
            sequence: 0,
            monitors: BTreeMap::new(),
            ended: Vec::new(),
            holding: BTreeMap::new(),
            done: BTreeMap::new(),
            messages: 0,
            broken: None,
        };
        let begin = node.local(self.network.now());
        node.leases = Leases::new(begin, me, config, random.next_u64());
        node.leases.mutant.rule = mutant;
        self.network.start(id, node);
    }

    fn acquire(&mut self, at: NodeId, name: &str, timeout: Duration) -> u64 {
        self.commands += 1;
        let command = self.commands;
        let name = Term::from(name);
        self.network.with(at, |node, io| {
            let pid = Pid { id: command as u32, ..node.me.clone() };
            node.event(io, Event::Acquire { command, name, pid, timeout });
        });
        command
    }

    /// The names that processes of a node have.
    fn held(&self, at: NodeId) -> Vec<(Term, Pid)> {
        let now = self.network.now();
        let Some(node) = self.network.node(at) else { return Vec::new() };
        node.leases.held(node.local(now)).map(|(name, pid)| (name.clone(), pid.clone())).collect()
    }

    fn give_up(&mut self, at: NodeId, held: Vec<(Term, Pid)>, by_exit: bool) {
        self.commands += 1;
        let command = self.commands;
        self.network.with(at, |node, io| {
            for (name, pid) in held {
                if by_exit {
                    node.kill(io, &pid);
                } else {
                    node.event(io, Event::Release { command, name, pid });
                }
            }
        });
    }

    fn crash(&mut self, id: NodeId) -> Option<Node> {
        let mut node = self.network.crash(id)?;
        let now = self.network.now();
        for name in node.holding.keys().cloned().collect::<Vec<_>>() {
            node.end(now, &name);
        }
        self.past.extend(node.ended.drain(..).map(|span| (id, span)));
        Some(node)
    }

    fn step(&mut self) -> Checked {
        let pause = self.random.duration(Duration::ZERO..Duration::from_millis(400));
        self.network.run_for(pause);
        let (a, b) = (self.random.below(self.plan.size), self.random.below(self.plan.size));
        let node = Nodes::one(a);
        let between = |one_way| Between { from: Nodes::one(a), to: Nodes::one(b), one_way };
        match self.random.below(100) {
            0..8 if a != b => self.apply(Step::Break(node, Nodes::one(b))),
            8..18 if a != b => {
                let open = self.random.chance(60);
                self.apply(if open { Step::Heal(between(false)) } else { Step::Partition(between(false)) })
            }
            // One way, and then both.
            18..24 if a != b => {
                let mute = self.random.chance(40);
                self.apply(if mute { Step::Partition(between(true)) } else { Step::Heal(between(true)) })
            }
            24..28 => {
                self.apply(Step::Crash(node.clone()))?;
                let pause = self.random.duration(Duration::ZERO..Duration::from_secs(3));
                self.network.run_for(pause);
                self.apply(Step::Start(node))
            }
            // It stands still, and its processes believe what they believed.
            28..30 => self.apply(Step::Pause(node)),
            30..34 => self.apply(Step::Resume(node)),
            34..50 => {
                let by_exit = self.random.chance(50);
                let held = self.held(a);
                let Some(name) = held.first().and_then(|(name, _)| name.as_binary()) else { return Ok(()) };
                let keys = Keys::one(String::from_utf8_lossy(name));
                self.apply(if by_exit {
                    Step::Exit(node, Some(keys), Who::default())
                } else {
                    Step::Unregister(node, keys, Who::default())
                })
            }
            _ => {
                let keys = Keys::one(format!("name{}", self.random.below(2)));
                self.apply(Step::Register(node, keys, Who::default()))
            }
        }
    }

    fn apply(&mut self, step: Step) -> Checked {
        self.steps.push((Duration::from_nanos(self.network.now().0.unsigned_abs()), step.clone()));
        let size = self.plan.size;
        if self.network.apply(&step, size) {
            if step == Step::HealAll {
                self.hear_all();
            }
            return Ok(());
        }
        match step {
            Step::Partition(Between { from, to, .. }) => self.mute(&from, &to, true),
            Step::Heal(Between { from, to, .. }) => self.mute(&from, &to, false),
            Step::Crash(nodes) => nodes.of(size).into_iter().for_each(|id| self.stop(id)),
            Step::Start(nodes) => {
                for id in nodes.of(size) {
                    if self.network.node(id).is_none() && !self.paused.contains_key(&id) {
                        self.start(id);
                    }
                }
            }
            Step::Restart(nodes) => {
                for id in nodes.of(size) {
                    self.stop(id);
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
            // The time of day is of no matter.
            Step::Skew(..) => {}
            Step::Rate(nodes, rate) => self.rates.extend(nodes.of(size).into_iter().map(|id| (id, rate))),
            Step::Faults(faults) => {
                self.plan.faults = faults;
                for id in 0..size {
                    self.network.with(id, |node, _| node.faults = faults);
                }
            }
            Step::Register(nodes, keys, _) => {
                for id in nodes.of(size) {
                    for name in keys.of(id) {
                        self.acquire(id, &name, PATIENCE);
                    }
                }
            }
            Step::Unregister(nodes, keys, _) => self.give_up_keys(&nodes, &keys, false),
            Step::Exit(nodes, Some(keys), _) => self.give_up_keys(&nodes, &keys, true),
            other => return Err(format!("a lease cannot do `{other}`")),
        }
        Ok(())
    }

    fn give_up_keys(&mut self, nodes: &Nodes, keys: &Keys, by_exit: bool) {
        for id in nodes.of(self.plan.size) {
            let names: Vec<Term> = keys.of(id).iter().map(|name| Term::from(name.as_str())).collect();
            let held = self.held(id).into_iter().filter(|(name, _)| names.contains(name)).collect();
            self.give_up(id, held, by_exit);
        }
    }

    fn mute(&mut self, from: &Nodes, to: &Nodes, muted: bool) {
        self.network.mute(from, to, self.plan.size, muted, |node| &mut node.muted);
    }

    fn hear_all(&mut self) {
        for id in 0..self.plan.size {
            self.network.with(id, |node, _| node.muted.clear());
        }
    }

    /// A node is gone, and what it knew.
    fn stop(&mut self, id: NodeId) {
        self.crash(id);
        if let Some(node) = self.paused.remove(&id) {
            self.past.extend(node.holding.into_values().chain(node.ended).map(|span| (id, span)));
        }
    }

    fn resume(&mut self, id: NodeId) {
        if let Some(mut node) = self.paused.remove(&id) {
            // Nobody could be told while all stood still.
            let now = self.network.now();
            node.holding.retain(|_, span| {
                if span.until < now {
                    node.ended.push(span.clone());
                }
                span.until >= now
            });
            self.network.start(id, node);
        }
    }

    /// Invariants 1 and 2.
    fn check_holders(&self) -> Checked {
        let mut spans: Vec<(NodeId, Span)> = self.past.clone();
        for node in self.network.nodes().map(|(_, node)| node).chain(self.paused.values()) {
            if let Some(broken) = &node.broken {
                return Err(format!("{broken}, on node {}", node.id));
            }
            let all = node.ended.iter().chain(node.holding.values());
            spans.extend(all.map(|span| (node.id, span.clone())));
        }
        spans.sort_by(|(_, a), (_, b)| a.name.cmp_exact(&b.name).then(a.from.cmp(&b.from)));
        for pair in spans.windows(2) {
            let [(a, first), (b, second)] = pair else { continue };
            if first.name == second.name && second.from < first.until {
                return Err(format!("invariant 1: node {a} holds {first:?} and node {b} {second:?}"));
            }
        }
        Ok(())
    }

    /// Steps that chance brings.
    fn all(mut self, steps: u64) -> Result<u64, Failed> {
        let mut work = || {
            for _ in 0..steps {
                self.step()?;
            }
            self.check_holders()?;
            self.rest()
        };
        let outcome = work();
        let seed = self.plan.seed;
        self.end(
            outcome.map_err(|what| format!("seed {seed}: {what} (FOUNDATION_SIM_SEED={seed} runs it again)")),
        )
    }

    /// The steps of a scenario.
    fn replay(mut self, scenario: &Scenario) -> Result<u64, Failed> {
        let mut work = || {
            for (at, step) in &scenario.steps {
                self.network.run_until(Mono::ZERO + *at);
                self.apply(step.clone())?;
            }
            self.check_holders()?;
            self.rest()
        };
        let outcome = work();
        self.end(outcome)
    }

    fn end(self, outcome: Checked) -> Result<u64, Failed> {
        match outcome {
            Ok(()) => Ok(self.network.delivered()),
            Err(what) => Err(Failed { what, scenario: Box::new(self.scenario()) }),
        }
    }

    /// Invariants 3 to 6.
    fn rest(&mut self) -> Checked {
        let size = self.plan.size;
        for id in 0..size {
            self.resume(id);
            if self.network.node(id).is_none() {
                self.start(id);
            }
        }
        self.network.allow_all();
        self.hear_all();
        for id in 0..size {
            self.network.with(id, |node, _| node.faults = [0; 3]);
        }
        // What was delayed, abstaining, and what nobody has any more.
        self.network.run_for(Duration::from_secs(20));
        for id in 0..size {
            let held = self.held(id);
            self.give_up(id, held, false);
        }
        self.network.run_for(Duration::from_secs(1));
        let [a, b] = [0, 1].map(|id| self.acquire(id, "free", Duration::from_secs(5)));
        self.network.run_for(Duration::from_secs(8));
        let won: usize = [(0, a), (1, b)]
            .into_iter()
            .filter(|(id, command)| {
                self.network.node(*id).is_some_and(|node| node.done.get(command) == Some(&Outcome::Done))
            })
            .count();
        if won != 1 {
            return Err(format!("invariant 3: {won} of two have a free name"));
        }
        self.check_holders()?;
        for id in 0..size {
            let held = self.held(id);
            self.give_up(id, held, true);
        }
        self.network.run_for(Duration::from_secs(10));
        let sent = |network: &Network<Node>| network.nodes().map(|(_, node)| node.messages).sum::<u64>();
        let before = sent(&self.network);
        self.network.run_for(Duration::from_secs(300));
        if sent(&self.network) != before {
            return Err("invariant 5: messages while nobody wants anything".to_owned());
        }
        for (id, node) in self.network.nodes() {
            if node.leases.voter.len() + node.leases.leases.len() + node.leases.monitors.len() > 0 {
                return Err(format!("invariant 4: node {id} keeps something"));
            }
            if node.leases.ignored > 0 {
                return Err(format!("invariant 6: node {id} ignored a message"));
            }
        }
        Ok(())
    }
}

#[test]
fn a_name_never_has_two_holders() {
    let mut delivered = 0;
    for seed in seeds(60) {
        let run = Run::new(Plan::of_seed(seed, None));
        delivered += run.all(300).unwrap_or_else(|failed| panic!("{failed}"));
    }
    println!("lease: {delivered} messages delivered");
}

#[test]
fn scenarios_of_files_hold() {
    for (file, scenario) in committed().into_iter().filter(|(_, scenario)| scenario.is_for("lease")) {
        for size in &scenario.nodes {
            let plan = Plan::of(&scenario, *size, None).unwrap_or_else(|what| panic!("{file}: {what}"));
            let delivered = Run::new(plan).replay(&scenario);
            let delivered = delivered.unwrap_or_else(|failed| panic!("{file}, {size} nodes: {failed}"));
            println!("lease: {file}, {size} nodes: {delivered} messages delivered");
        }
    }
}

#[test]
fn a_rule_that_is_left_out_is_noticed() {
    let mutants = [
        Mutant::VoteAtOnce,
        Mutant::NoDrift,
        Mutant::CountFromVotes,
        Mutant::AnyRound,
        Mutant::Half,
        Mutant::GrantTwice,
    ];
    for mutant in mutants {
        let caught = (0..400).find_map(|seed| Run::new(Plan::of_seed(seed, Some(mutant))).all(300).err());
        let caught = caught.unwrap_or_else(|| panic!("{mutant:?} was not noticed"));
        // What is printed runs the same way again.
        let scenario = Scenario::parse(&caught.scenario.to_string()).unwrap();
        let plan = Plan::of(&scenario, scenario.nodes[0], Some(mutant)).unwrap();
        let again = Run::new(plan).replay(&scenario).unwrap_err();
        assert!(caught.what.contains(&again.what), "{caught} and {again}");
        let what = caught.what;
        println!("lease: without {mutant:?}: {what}");
    }
}
