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
//! `FOUNDATION_SIM_SEED=N` runs one seed, `FOUNDATION_SIM_SEEDS=N` that many.

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;
use crate::seeds::seeds;
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
    faults: usize,
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
        if self.muted.contains(&node) || self.random.chance(self.faults) {
            return;
        }
        for copy in 0..2 {
            if copy == 1 && !self.random.chance(self.faults) {
                break;
            }
            if self.random.chance(self.faults * 2) {
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

struct Run {
    network: Network<Node>,
    random: Random,
    seed: u64,
    size: usize,
    incarnations: u32,
    commands: u64,
    mutant: Option<Mutant>,
    paused: BTreeMap<NodeId, Node>,
    /// What nodes held that have crashed.
    past: Vec<(NodeId, Span)>,
}

type Checked = Result<(), String>;

impl Run {
    fn new(seed: u64, mutant: Option<Mutant>) -> Self {
        // Slow enough for the difference of clocks, and of question and vote, to matter.
        let latency = Duration::from_micros(50)..Duration::from_millis(60);
        let conditions = Conditions { latency, ..Conditions::default() };
        let size = [3, 5, 4, 7, 2][(seed % 5) as usize];
        let mut run = Self {
            network: Network::new(seed, conditions),
            random: Random::new(!seed),
            seed,
            size,
            incarnations: 0,
            commands: 0,
            mutant,
            paused: BTreeMap::new(),
            past: Vec::new(),
        };
        for id in 0..size {
            run.start(id);
        }
        run
    }

    fn start(&mut self, id: NodeId) {
        self.incarnations += 1;
        let mut config = Config::new((0..self.size).map(node_name));
        config.duration = Duration::from_secs(2);
        config.margin = Duration::from_millis(200);
        // Exact clocks leave no slack that would hide other faults.
        let drifts = match self.mutant {
            Some(mutant) => mutant == Mutant::NoDrift,
            None => self.seed % 2 == 1,
        };
        config.drift = if drifts { 100 } else { 0 };
        let me = Pid { node: node_name(id), id: 0, serial: 0, creation: self.incarnations };
        let rate = if drifts {
            [900, 1100, 900 + self.random.below(201) as i64][self.random.below(3)]
        } else {
            1000
        };
        let mut node = Node {
            id,
            leases: Leases::new(Mono::ZERO, me.clone(), config.clone(), 1),
            me: me.clone(),
            rate,
            random: Random::new(self.seed ^ u64::from(self.incarnations) << 32),
            faults: [0, 5, 15][(self.seed / 5 % 3) as usize],
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
        node.leases = Leases::new(begin, me, config, self.random.next_u64());
        node.leases.mutant = self.mutant;
        self.network.start(id, node);
    }

    fn acquire(&mut self, at: NodeId, name: usize, timeout: Duration) -> u64 {
        self.commands += 1;
        let command = self.commands;
        let name = Term::Integer(name as i64);
        self.network.with(at, |node, io| {
            let pid = Pid { id: command as u32, ..node.me.clone() };
            node.event(io, Event::Acquire { command, name, pid, timeout });
        });
        command
    }

    fn give_up(&mut self, at: NodeId, how_many: usize, by_exit: bool) {
        self.commands += 1;
        let command = self.commands;
        self.network.with(at, |node, io| {
            let now = node.local(io.now());
            let held: Vec<(Term, Pid)> =
                node.leases.held(now).map(|(name, pid)| (name.clone(), pid.clone())).take(how_many).collect();
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

    fn step(&mut self) {
        let pause = self.random.duration(Duration::ZERO..Duration::from_millis(400));
        self.network.run_for(pause);
        let (a, b) = (self.random.below(self.size), self.random.below(self.size));
        match self.random.below(100) {
            0..8 if a != b => self.network.disconnect(a, b),
            8..18 if a != b => {
                let open = self.random.chance(60);
                self.network.allow(a, b, open);
            }
            // One way, and then both.
            18..24 if a != b => {
                let mute = self.random.chance(40);
                self.network
                    .with(a, |node, _| if mute { node.muted.insert(b) } else { node.muted.remove(&b) });
            }
            24..28 => {
                self.crash(a);
                if let Some(node) = self.paused.remove(&a) {
                    self.past.extend(node.holding.into_values().chain(node.ended).map(|span| (a, span)));
                }
                let pause = self.random.duration(Duration::ZERO..Duration::from_secs(3));
                self.network.run_for(pause);
                self.start(a);
            }
            // It stands still, and its processes believe what they believed.
            28..30 => {
                if let Some(node) = self.network.crash(a) {
                    self.paused.insert(a, node);
                }
            }
            30..34 => self.resume(a),
            34..50 => {
                let by_exit = self.random.chance(50);
                self.give_up(a, 1, by_exit);
            }
            _ => {
                let (name, timeout) = (self.random.below(2), Duration::from_secs(6));
                self.acquire(a, name, timeout);
            }
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

    fn all(mut self, steps: u64) -> Result<u64, String> {
        let seed = self.seed;
        let mut work = || {
            for _ in 0..steps {
                self.step();
            }
            self.check_holders()?;
            self.rest()
        };
        work().map_err(|what| format!("seed {seed}: {what} (FOUNDATION_SIM_SEED={seed} runs it again)"))?;
        Ok(self.network.delivered())
    }

    /// Invariants 3 to 6.
    fn rest(&mut self) -> Checked {
        for id in 0..self.size {
            self.resume(id);
            for other in 0..id {
                self.network.allow(id, other, true);
            }
        }
        for id in 0..self.size {
            self.network.with(id, |node, _| {
                node.faults = 0;
                node.muted.clear();
            });
        }
        // What was delayed, abstaining, and what nobody has any more.
        self.network.run_for(Duration::from_secs(20));
        for id in 0..self.size {
            self.give_up(id, usize::MAX, false);
        }
        self.network.run_for(Duration::from_secs(1));
        let (a, b) = (self.acquire(0, 0, Duration::from_secs(5)), self.acquire(1, 0, Duration::from_secs(5)));
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
        for id in 0..self.size {
            self.give_up(id, usize::MAX, true);
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
        delivered += Run::new(seed, None).all(300).unwrap_or_else(|what| panic!("{what}"));
    }
    println!("lease: {delivered} messages delivered");
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
        let caught = (0..400).find_map(|seed| Run::new(seed, Some(mutant)).all(300).err());
        let caught = caught.unwrap_or_else(|| panic!("{mutant:?} was not noticed"));
        println!("lease: without {mutant:?}: {caught}");
    }
}
