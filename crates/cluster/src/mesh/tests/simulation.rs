//! Meshes on a simulated network that breaks connections, keeps pairs apart, and crashes nodes; with services that fail their checks,
//! hang and recover, and machines that are busy and idle.
//!
//! Invariants, checked at each step (6, 7) or after the last fault and a time of rest:
//!
//! 1. Convergence: each node finds exactly the services of living processes that were registered last and not deregistered.
//! 2. Health: a service that fails is unhealthy everywhere, one that is well is healthy everywhere.
//! 3. Load: what is found of a node is within a step of what it measured last.
//! 4. Silence: nothing is sent while nothing changes, however long checks and measurements go on.
//! 5. Changes tell the whole story: replaying them gives what is found.
//! 6. Nobody is chosen who is not found where the choice is made, or is unhealthy there.
//! 7. Never more checks under way than allowed, and none of what is gone.
//!
//! `FOUNDATION_SIM_SEED=N` runs one seed, `FOUNDATION_SIM_SEEDS=N` that many.

use super::*;
use crate::names::To;
use crate::seeds::seeds;
use crate::sim::{Conditions, Host, Io, Network, NodeId, Random};

const STEP: u16 = 50;

#[derive(Clone, Debug)]
enum Wire {
    Message { to: Option<Pid>, message: Term },
    Monitor { id: names::MonitorId, pid: Pid },
    Demonitor { id: names::MonitorId },
    Down { id: names::MonitorId },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Answers {
    Well,
    Fails,
    Hangs,
}

/// A process: how it answers checks, and what it is registered as, in which version.
#[derive(Clone, Debug)]
struct Worker {
    answers: Answers,
    services: BTreeMap<i64, i64>,
}

struct Node {
    mesh: Mesh,
    me: Pid,
    peers: std::collections::BTreeSet<NodeId>,
    watched_by: BTreeMap<(NodeId, u64), Pid>,
    watching: BTreeMap<names::MonitorId, NodeId>,
    own_monitors: BTreeMap<names::MonitorId, Pid>,
    workers: BTreeMap<Pid, Worker>,
    /// Checks that will answer, and those that will not.
    answers: BTreeMap<(Mono, u64), bool>,
    hanging: std::collections::BTreeSet<u64>,
    memory: u64,
    measured: u16,
    replay: BTreeMap<(Key, Pid), Service>,
    sent: u64,
    broken: Option<String>,
}

fn node_name(id: NodeId) -> Atom {
    Atom::new(&format!("n{id}@sim")).unwrap()
}

fn node_id(name: &Atom) -> NodeId {
    name.as_str()[1..].split('@').next().unwrap().parse().unwrap()
}

impl Node {
    fn new(id: NodeId, incarnation: u32, mutant: Option<Mutant>) -> Self {
        let me = Pid { node: node_name(id), id: 0, serial: 0, creation: incarnation };
        let mut config = Config::new();
        config.max_probes = 3;
        config.load_step = STEP;
        config.names.part_entries = 8;
        let mut mesh = Mesh::new(Atom::new_static("mesh"), me.clone(), config);
        mesh.mutant.rule = mutant;
        Self {
            mesh,
            me,
            peers: Default::default(),
            watched_by: BTreeMap::new(),
            watching: BTreeMap::new(),
            own_monitors: BTreeMap::new(),
            workers: BTreeMap::new(),
            answers: BTreeMap::new(),
            hanging: Default::default(),
            memory: 300,
            measured: 0,
            replay: BTreeMap::new(),
            sent: 0,
            broken: None,
        }
    }

    fn event(&mut self, io: &mut Io<Wire>, event: Event) {
        self.mesh.handle(io.now(), event);
        self.carry_out(io);
    }

    fn breaks(&mut self, what: impl FnOnce() -> String) {
        self.broken.get_or_insert_with(what);
    }

    fn carry_out(&mut self, io: &mut Io<Wire>) {
        let mut lost = Vec::new();
        while let Some(action) = self.mesh.poll_action() {
            match action {
                Action::Registry(action) => self.registry(io, action, &mut lost),
                Action::Changed(changes) => changes.into_iter().for_each(|change| self.note(change)),
                Action::Probe { probe, service, .. } => {
                    let Some(worker) = self.workers.get(&service.pid) else {
                        self.breaks(|| format!("invariant 7: {service:?} has ended and is checked"));
                        continue;
                    };
                    match worker.answers {
                        Answers::Hangs => drop(self.hanging.insert(probe)),
                        how => {
                            let after = Duration::from_millis(probe % 7 * 20);
                            self.answers.insert((io.now() + after, probe), how == Answers::Well);
                        }
                    }
                    let running = self.answers.len() + self.hanging.len();
                    if running > 3 {
                        self.breaks(|| format!("invariant 7: {running} checks at once"));
                    }
                }
                Action::Abandon(probe) => {
                    self.answers.retain(|(_, other), _| *other != probe);
                    self.hanging.remove(&probe);
                }
                Action::Measure => {
                    self.measured = self.memory as u16;
                    let sample = Sample { memory: Some((1000 - self.memory, 1000)), ..Sample::default() };
                    self.mesh.handle(io.now(), Event::Measured { sample, wall: 1 });
                }
                Action::Done { .. }
                | Action::Release(_)
                | Action::CheckFailed { .. }
                | Action::CheckSucceededAgain(_) => {}
            }
        }
        for monitor in lost {
            self.event(io, Event::Down(monitor));
        }
    }

    fn registry(&mut self, io: &mut Io<Wire>, action: names::Action, lost: &mut Vec<names::MonitorId>) {
        match action {
            names::Action::Send { to, message } => {
                for to in to {
                    let (node, to) = match to {
                        To::Pid(pid) => (node_id(&pid.node), Some(pid)),
                        To::Server(node) => (node_id(&node), None),
                    };
                    self.sent += 1;
                    io.send(node, Wire::Message { to, message: message.clone() });
                }
            }
            names::Action::Monitor { monitor, pid } => {
                let node = node_id(&pid.node);
                if pid == self.me || self.workers.contains_key(&pid) {
                    self.own_monitors.insert(monitor, pid);
                } else if self.peers.contains(&node) {
                    self.watching.insert(monitor, node);
                    io.send(node, Wire::Monitor { id: monitor, pid });
                } else {
                    lost.push(monitor);
                }
            }
            names::Action::Demonitor(id) => {
                self.own_monitors.remove(&id);
                if let Some(node) = self.watching.remove(&id) {
                    io.send(node, Wire::Demonitor { id });
                }
            }
            other => self.breaks(|| format!("an unexpected action: {other:?}")),
        }
    }

    fn note(&mut self, change: Change) {
        let place = |service: &Service| (Key(service.name.clone()), service.pid.clone());
        let fits = match &change {
            Change::Registered(service) => {
                self.replay.insert(place(service), Service::clone(service)).is_none()
            }
            Change::Updated(service) | Change::Health(service) => {
                self.replay.insert(place(service), Service::clone(service)).is_some()
            }
            Change::Deregistered(service) => self.replay.remove(&place(service)).is_some(),
        };
        if !fits {
            self.breaks(|| format!("invariant 5: {change:?} does not follow from what was said before"));
        }
    }

    fn end(&mut self, io: &mut Io<Wire>, pid: &Pid) {
        self.workers.remove(pid);
        let fired: Vec<_> =
            self.own_monitors.iter().filter(|(_, watched)| *watched == pid).map(|(id, _)| *id).collect();
        for id in fired {
            self.own_monitors.remove(&id);
            self.event(io, Event::Down(id));
        }
    }

    fn register(&mut self, io: &mut Io<Wire>, pid: &Pid, name: i64, version: i64) {
        let mut rules = Rules::new();
        rules.interval = Duration::from_millis(900);
        rules.timeout = Duration::from_millis(300);
        rules.unhealthy_after = 2;
        let registration = Registration::new(name, pid)
            .metadata(metadata([("version", Term::Integer(version))]))
            .health_check(HealthCheck { check: Check::Custom(1), rules: Some(rules) });
        if let Some(worker) = self.workers.get_mut(pid) {
            worker.services.insert(name, version);
        }
        self.event(io, Event::Command { command: 1, what: Command::Register(registration), wall: version });
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
        self.watched_by.retain(|(node, _), _| *node != peer);
        let fired: Vec<_> =
            self.watching.iter().filter(|(_, node)| **node == peer).map(|(id, _)| *id).collect();
        for monitor in fired {
            self.watching.remove(&monitor);
            self.event(io, Event::Down(monitor));
        }
        self.event(io, Event::NodeDown(node_name(peer)));
    }

    fn receive(&mut self, io: &mut Io<Wire>, from: NodeId, wire: Wire) {
        match wire {
            Wire::Message { to, message } => {
                if to.is_none_or(|pid| pid == self.me) {
                    self.event(io, Event::Message { message, wall: 1, random: 0 });
                }
            }
            Wire::Monitor { id, pid } => {
                if pid == self.me {
                    self.watched_by.insert((from, id.0), pid);
                } else {
                    io.send(from, Wire::Down { id });
                }
            }
            Wire::Demonitor { id } => drop(self.watched_by.remove(&(from, id.0))),
            Wire::Down { id } => {
                if self.watching.remove(&id).is_some() {
                    self.event(io, Event::Down(id));
                }
            }
        }
    }

    fn wake(&mut self, io: &mut Io<Wire>) {
        while let Some(first) = self.answers.first_entry().filter(|first| first.key().0 <= io.now()) {
            let ((_, probe), well) = first.remove_entry();
            self.event(io, Event::Probed { probe, well });
        }
        self.mesh.handle_timeout(io.now());
        self.carry_out(io);
    }

    fn next_wake(&self) -> Option<Mono> {
        let answer = self.answers.first_key_value().map(|((at, _), _)| *at);
        self.mesh.poll_timeout().into_iter().chain(answer).min()
    }
}

struct Run {
    network: Network<Node>,
    random: Random,
    size: usize,
    incarnations: u32,
    counter: i64,
    mutant: Option<Mutant>,
}

impl Run {
    fn new(seed: u64, mutant: Option<Mutant>) -> Self {
        let mut run = Self {
            network: Network::new(seed, Conditions::default()),
            random: Random::new(!seed),
            size: 2 + (seed % 4) as usize,
            incarnations: 0,
            counter: 0,
            mutant,
        };
        (0..run.size).for_each(|id| run.start(id));
        run
    }

    fn start(&mut self, id: NodeId) {
        self.incarnations += 1;
        self.network.start(id, Node::new(id, self.incarnations, self.mutant));
    }

    fn step(&mut self) -> Result<(), String> {
        let (at, other) = (self.random.below(self.size), self.random.below(self.size));
        self.counter += 1;
        let version = self.counter;
        let (name, pick, what) =
            (self.random.below(3) as i64, self.random.below(1 << 20), self.random.below(100));
        let random = self.random.next_u64();
        let broken = self.network.with(at, |node, io| {
            let known: Vec<Pid> = node.workers.keys().cloned().collect();
            let some = known.get(pick % known.len().max(1)).cloned();
            match (what, some) {
                (0..15, _) | (_, None) => {
                    let pid = Pid { id: version as u32, ..node.me.clone() };
                    node.workers
                        .insert(pid.clone(), Worker { answers: Answers::Well, services: BTreeMap::new() });
                    node.register(io, &pid, name, version);
                }
                (15..25, Some(pid)) => node.register(io, &pid, name, version),
                (25..32, Some(pid)) => {
                    if let Some(worker) = node.workers.get_mut(&pid) {
                        worker.services.remove(&name);
                    }
                    let what = Command::Deregister { name: Term::Integer(name), pid };
                    node.event(io, Event::Command { command: 1, what, wall: 1 });
                }
                (32..38, Some(pid)) => node.end(io, &pid),
                (38..60, Some(pid)) => {
                    let answers = [Answers::Well, Answers::Fails, Answers::Hangs][pick % 3];
                    node.workers.entry(pid).and_modify(|worker| worker.answers = answers);
                }
                (60..70, _) => node.memory = pick as u64 % 1000,
                (70..90, _) => {
                    let strategies = [Strategy::LeastConnections, Strategy::RoundRobin, Strategy::Weighted];
                    let routing = Routing::new(strategies[pick % 3]);
                    if let Ok(service) = node.mesh.pick(&Term::Integer(name), &routing, random) {
                        let found = node.mesh.discover(&Query::new().name(name));
                        if !found.contains(&service) || service.health == Health::Unhealthy {
                            node.breaks(|| format!("invariant 6: {service:?} was chosen"));
                        }
                    }
                }
                _ => {}
            }
            node.broken.take()
        });
        match what {
            90..93 => self.network.disconnect(at, other),
            93..96 if at != other => self.network.allow(at, other, false),
            96..98 if at != other => self.network.allow(at, other, true),
            98.. => {
                self.network.crash(at);
                self.start(at);
            }
            _ => {}
        }
        let wait = self.random.below(400) as u64;
        self.network.run_for(Duration::from_millis(wait));
        broken.flatten().map_or(Ok(()), Err)
    }

    fn all(seed: u64, mutant: Option<Mutant>) -> Result<u64, String> {
        let mut run = Self::new(seed, mutant);
        for _ in 0..200 {
            run.step()?;
        }
        for a in 0..run.size {
            for b in 0..a {
                run.network.allow(a, b, true);
            }
        }
        run.network.run_for(Duration::from_secs(60));
        run.check()?;
        let sent = |run: &Self| run.network.nodes().map(|(_, node)| node.sent).sum::<u64>();
        let before = sent(&run);
        run.network.run_for(Duration::from_secs(3600));
        let more = sent(&run) - before;
        if more > 0 {
            return Err(format!("invariant 4: {more} messages in an hour in which nothing changed"));
        }
        run.check()?;
        Ok(run.network.delivered())
    }

    fn check(&self) -> Result<(), String> {
        let mut expected = BTreeMap::new();
        let mut loads = BTreeMap::new();
        for (_, node) in self.network.nodes() {
            for (pid, worker) in &node.workers {
                let well = worker.answers == Answers::Well;
                let health = if well { Health::Healthy } else { Health::Unhealthy };
                for (name, version) in &worker.services {
                    expected.insert((Key(Term::Integer(*name)), pid.clone()), (*version, health));
                }
            }
            loads.insert(node.me.node.clone(), node.measured);
        }
        for (id, node) in self.network.nodes() {
            if let Some(broken) = &node.broken {
                return Err(format!("node {id}: {broken}"));
            }
            let found: BTreeMap<(Key, Pid), Service> = node
                .mesh
                .discover(&Query::new())
                .iter()
                .map(|service| ((Key(service.name.clone()), service.pid.clone()), Service::clone(service)))
                .collect();
            let shown: BTreeMap<_, _> = found
                .iter()
                .map(|(place, service)| (place.clone(), (service.registered_at, service.health)))
                .collect();
            if shown != expected {
                return Err(format!("invariants 1 and 2: node {id} finds {shown:?}, not {expected:?}"));
            }
            if found != node.replay {
                return Err(format!(
                    "invariant 5: node {id} finds {found:?}, its changes say {:?}",
                    node.replay
                ));
            }
            let told = node.mesh.loads();
            let near = |(name, measured): (&Atom, &u16)| {
                told.get(name)
                    .and_then(|load| load.memory)
                    .is_some_and(|told| told.abs_diff(*measured) < STEP)
            };
            if told.len() != loads.len() || !loads.iter().all(near) {
                return Err(format!("invariant 3: node {id} knows {told:?}, measured was {loads:?}"));
            }
            if node.mesh.ignored() > 0 {
                return Err(format!("node {id} has ignored what others sent"));
            }
        }
        Ok(())
    }
}

#[test]
fn meshes_converge_and_are_silent_then() {
    let mut delivered = 0;
    for seed in seeds(20) {
        delivered += Run::all(seed, None).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
    println!("mesh: {delivered} messages delivered");
}

#[test]
fn a_seed_runs_the_same_way_twice() {
    assert_eq!(Run::all(3, None), Run::all(3, None));
}

#[test]
fn a_rule_that_is_left_out_is_noticed() {
    let mutants = [
        Mutant::ForgetMarks,
        Mutant::TellAll,
        Mutant::TrustLate,
        Mutant::ChooseUnhealthy,
        Mutant::UntoldHealth,
        Mutant::KeepFirst,
    ];
    for mutant in mutants {
        let caught = (0..100).find_map(|seed| Run::all(seed, Some(mutant)).err());
        let caught = caught.unwrap_or_else(|| panic!("{mutant:?} was not noticed"));
        println!("mesh: without {mutant:?}: {caught}");
    }
}
