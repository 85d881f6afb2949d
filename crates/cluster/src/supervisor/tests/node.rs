//! A node of the simulation: one supervisor, and children that run, end and give their state.

use std::collections::{BTreeMap, BTreeSet};

use super::super::specs::Item;
use super::super::*;
use crate::sim::{Host, Io, NodeId, Random};

/// What nodes of the simulation send each other.
#[derive(Clone, Debug)]
pub(super) enum Wire {
    Message { to: Option<Pid>, message: Term },
    Monitor { id: MonitorId, pid: Pid },
    Demonitor { id: MonitorId },
    Down { id: MonitorId },
}

/// A child that runs.
#[derive(Clone, Debug)]
pub(super) struct Kid {
    pub(super) child: Child,
    pub(super) spec: Arc<ChildSpec>,
    pub(super) pid: Pid,
    /// How often it was handed over: its state.
    pub(super) generation: i64,
    from: Mono,
    /// When it says that it runs.
    says: Option<Mono>,
    /// When it ends, why, and whether it gives its state.
    ends: Option<(Mono, Term, bool)>,
}

/// A time for which a child of the safe kind acted, in true time.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) child: Child,
    pub(super) from: Mono,
    pub(super) until: Mono,
}

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) supervisor: Supervisor,
    pub(super) me: Pid,
    skew: i64,
    /// Nanoseconds of this node's clock in 1000 true ones.
    rate: i64,
    random: Random,
    peers: BTreeSet<NodeId>,
    watched_by: BTreeMap<(NodeId, u64), Pid>,
    watching: BTreeMap<MonitorId, NodeId>,
    pub(super) kids: BTreeMap<StartId, Kid>,
    pids: u32,
    commands: u64,
    pub(super) done: BTreeMap<u64, Outcome>,
    pub(super) replies: Vec<Term>,
    pub(super) spans: Vec<Span>,
    /// The specifications that this node has known.
    pub(super) seen: BTreeMap<Dot, Arc<ChildSpec>>,
    /// When each of them was claimed.
    claims: BTreeMap<Dot, i64>,
    /// Removals that were looked at.
    looked: usize,
    /// Ids that it was told to terminate.
    terminated: BTreeSet<Key>,
    /// The specifications that it has known and knows no longer.
    dropped: BTreeSet<Dot>,
    /// What was marked as done before what happens now.
    marked: BTreeSet<(Dot, Part)>,
    restarting: BTreeSet<Child>,
    /// When children that this node has kept were started again.
    pub(super) restarts: BTreeMap<Child, Vec<Mono>>,
    /// Percent of children that do not end when they are told to.
    pub(super) hangs: usize,
    /// Children whose state is lost, as it was told.
    pub(super) lost: BTreeSet<Child>,
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
    pub(super) fn new(
        id: NodeId,
        incarnation: u32,
        config: Config,
        seed: u64,
        rate: i64,
        mutant: Option<Mutant>,
    ) -> Self {
        let me = Pid { node: node_name(id), id: 0, serial: 0, creation: incarnation };
        let mut random = Random::new(seed ^ u64::from(incarnation) << 32);
        let skew = random.below(600_000) as i64 - 300_000;
        let name = Atom::new_static("sup");
        // Its own clock begins with it.
        let supervisor = Supervisor::new(
            Mono::ZERO,
            1_700_000_000_000 + skew,
            name,
            me.clone(),
            config,
            random.next_u64(),
        );
        let mut node = Self {
            id,
            supervisor,
            me,
            skew,
            rate,
            random,
            peers: BTreeSet::new(),
            watched_by: BTreeMap::new(),
            watching: BTreeMap::new(),
            kids: BTreeMap::new(),
            pids: 0,
            commands: 0,
            done: BTreeMap::new(),
            replies: Vec::new(),
            spans: Vec::new(),
            seen: BTreeMap::new(),
            claims: BTreeMap::new(),
            looked: 0,
            terminated: BTreeSet::new(),
            dropped: BTreeSet::new(),
            marked: BTreeSet::new(),
            restarting: BTreeSet::new(),
            restarts: BTreeMap::new(),
            hangs: 0,
            lost: BTreeSet::new(),
            messages: 0,
            broken: None,
        };
        node.supervisor.mutant.rule = mutant;
        node.supervisor.specs.mutant.rule = mutant;
        node.supervisor.handle(Mono::ZERO, Event::Factory(Atom::new_static("f")));
        if id.is_multiple_of(2) {
            node.supervisor.handle(Mono::ZERO, Event::Factory(Atom::new_static("even")));
        }
        node
    }

    /// The machine is made anew, with a clock that shows what it would show at this true time.
    pub(super) fn begin(&mut self, now: Mono, config: Config) {
        let mutant = self.supervisor.mutant.rule;
        let local = self.local(now);
        let wall = self.wall(now);
        let seed = self.random.next_u64();
        let name = Atom::new_static("sup");
        self.supervisor = Supervisor::new(local, wall, name, self.me.clone(), config, seed);
        self.supervisor.mutant.rule = mutant;
        self.supervisor.specs.mutant.rule = mutant;
        self.supervisor.handle(local, Event::Factory(Atom::new_static("f")));
        if self.id.is_multiple_of(2) {
            self.supervisor.handle(local, Event::Factory(Atom::new_static("even")));
        }
    }

    fn local(&self, at: Mono) -> Mono {
        Mono(at.0 / 1000 * self.rate + at.0 % 1000)
    }

    fn truly(&self, local: Mono) -> Mono {
        Mono(local.0 / self.rate * 1000)
    }

    fn wall(&self, now: Mono) -> i64 {
        1_700_000_000_000 + now.0 / 1_000_000 + self.skew
    }

    pub(super) fn event(&mut self, io: &mut Io<Wire>, event: Event) {
        let now = self.local(io.now());
        self.supervisor.handle(now, event);
        self.carry_out(io);
    }

    pub(super) fn command(&mut self, io: &mut Io<Wire>, what: Command) -> u64 {
        self.commands += 1;
        let command = self.commands;
        if let Command::TerminateChild(id) = &what {
            self.terminated.insert(Key(id.clone()));
        }
        let wall = self.wall(io.now());
        self.event(io, Event::Command { command, what, wall });
        command
    }

    pub(super) fn call(&mut self, io: &mut Io<Wire>, request: Term) {
        let from = Term::from((Term::Pid(self.me.clone()), Term::atom("tag")));
        let message = Term::from((Term::atom("$gen_call"), from, request));
        let wall = self.wall(io.now());
        self.event(io, Event::Message { message, wall });
    }

    /// A child of this node ends by itself.
    pub(super) fn kill_kid(&mut self, io: &mut Io<Wire>, pick: usize, reason: &'static str) {
        let running: Vec<StartId> =
            self.kids.iter().filter(|(_, kid)| kid.ends.is_none()).map(|(start, _)| *start).collect();
        if let Some(start) = running.get(pick % running.len().max(1)).copied() {
            self.end(io, start, Term::atom(reason), false);
        }
    }

    fn end(&mut self, io: &mut Io<Wire>, start: StartId, reason: Term, gives: bool) {
        let Some(kid) = self.kids.remove(&start) else { return };
        self.close(&kid, io.now());
        let state = gives.then_some(Term::Integer(kid.generation));
        self.event(io, Event::Ended { start, reason, state });
    }

    fn close(&mut self, kid: &Kid, until: Mono) {
        if kid.spec.requirement == Requirement::Safety {
            self.spans.push(Span { child: kid.child.clone(), from: kid.from, until });
        }
    }

    /// The node stands still, or is gone: its children do not act.
    pub(super) fn stand_still(&mut self, now: Mono) {
        for kid in self.kids.values().cloned().collect::<Vec<_>>() {
            self.close(&kid, now);
        }
    }

    fn carry_out(&mut self, io: &mut Io<Wire>) {
        let mut lost = Vec::new();
        while let Some(action) = self.supervisor.poll_action() {
            match action {
                Action::Send { to, message } => {
                    for to in to {
                        let (node, to) = match to {
                            To::Pid(pid) => (node_id(&pid.node), Some(pid)),
                            To::Server(node) => (node_id(&node), None),
                        };
                        self.messages += 1;
                        io.send(node, Wire::Message { to, message: message.clone() });
                    }
                }
                Action::Monitor { monitor, pid } => {
                    let node = node_id(&pid.node);
                    if self.peers.contains(&node) {
                        self.watching.insert(monitor, node);
                        io.send(node, Wire::Monitor { id: monitor, pid });
                    } else {
                        lost.push(monitor);
                    }
                }
                Action::Demonitor(id) => {
                    if let Some(node) = self.watching.remove(&id) {
                        io.send(node, Wire::Demonitor { id });
                    }
                }
                Action::Start { start, spec, part, state } => {
                    self.start_kid(io.now(), start, spec, part, state)
                }
                Action::Stop { start, how } => self.stop_kid(io.now(), start, how),
                Action::Report(Report::Restarted { child, .. }) => {
                    let now = self.local(io.now());
                    self.restarting.insert(child.clone());
                    self.restarts.entry(child).or_default().push(now);
                }
                Action::Report(Report::StateLost { child }) => drop(self.lost.insert(child)),
                Action::Report(_) => {}
                Action::Reply { reply, .. } => self.replies.push(reply),
                Action::Done { command, outcome } => drop(self.done.insert(command, outcome)),
            }
        }
        for monitor in lost {
            self.event(io, Event::Down(monitor));
        }
        self.look();
    }

    /// Keeps what the machine knows and does for the checks.
    fn look(&mut self) {
        let specs = &self.supervisor.specs;
        let mut there = BTreeSet::new();
        self.marked.clear();
        for (dot, item) in specs.items() {
            match item {
                Item::Spec { spec, claim } => {
                    there.insert(dot);
                    self.claims.insert(dot.clone(), *claim);
                    self.seen.entry(dot.clone()).or_insert_with(|| Arc::clone(spec));
                }
                Item::Done { of, part } => drop(self.marked.insert((of.clone(), part.clone()))),
            }
        }
        for dot in self.seen.keys() {
            let gone = !there.contains(dot);
            if gone {
                self.dropped.insert(dot.clone());
            } else if self.dropped.contains(dot) {
                self.broken.get_or_insert_with(|| format!("invariant 4: {dot:?} came back"));
            }
        }
        let removed = &specs.removed[self.looked..];
        for dot in removed {
            let Some(spec) = self.seen.get(dot) else { continue };
            let id = Key(spec.id.clone());
            // Of several of one id that were removed together, the one that counted; this node need not have known it.
            let of_id = removed.iter().filter(|other| self.seen.get(*other).is_some_and(|o| o.id == spec.id));
            let counted = of_id.min_by_key(|other| (self.claims.get(*other), *other)).unwrap_or(dot);
            let allowed = self.seen.get(counted).is_some_and(|spec| spec.restart != Restart::Permanent)
                || removed.iter().any(|other| !self.seen.contains_key(other))
                || self.terminated.contains(&id)
                || specs.get(&id).is_some();
            if !allowed {
                self.broken.get_or_insert_with(|| format!("invariant 3: {spec:?} was removed by nobody"));
            }
        }
        self.looked = specs.removed.len();
    }

    fn start_kid(
        &mut self,
        now: Mono,
        start: StartId,
        spec: Arc<ChildSpec>,
        part: Part,
        state: Option<Term>,
    ) {
        self.pids += 1;
        let pid = Pid { id: self.pids, ..self.me.clone() };
        let child = Child { id: Key(spec.id.clone()), part: part.clone() };
        if self.kids.values().any(|kid| kid.child == child) {
            self.broken
                .get_or_insert_with(|| format!("invariant 2: {child:?} was started twice on one node"));
        }
        if spec.restart == Restart::Temporary && spec.kind != Kind::Replicated && state.is_none() {
            let of_it = self.supervisor.running.get(&child).map(|running| running.dot.clone());
            if of_it.is_some_and(|of| self.marked.contains(&(of, part))) {
                self.broken.get_or_insert_with(|| format!("invariant 7: {child:?} was started again"));
            }
        }
        if !self.restarting.remove(&child) {
            self.restarts.remove(&child);
        }
        let generation = state.map_or(0, |state| state.as_i64().unwrap() + 1);
        let says = now + self.random.duration(Duration::ZERO..Duration::from_millis(20));
        let kid = Kid { child, spec, pid, generation, from: now, says: Some(says), ends: None };
        self.kids.insert(start, kid);
    }

    fn stop_kid(&mut self, now: Mono, start: StartId, how: Stop) {
        let takes = self.random.duration(Duration::ZERO..Duration::from_millis(150));
        let hangs = self.random.chance(self.hangs);
        let Some(kid) = self.kids.get_mut(&start) else { return };
        let hangs = hangs && kid.spec.restart != Restart::Temporary;
        let reason = Term::atom(if how == Stop::Kill { "killed" } else { "shutdown" });
        let at = match how {
            // Within the margin of its lease, by any clock.
            Stop::Kill => now + takes / 2,
            _ if hangs => return,
            _ => now + takes,
        };
        if kid.ends.as_ref().is_none_or(|(before, ..)| at < *before) {
            kid.ends = Some((at, reason, how == Stop::HandOff));
        }
    }

    /// The node goes on with what it had after it stood still; its connections are gone.
    pub(super) fn resume(&mut self, io: &mut Io<Wire>) {
        let local = self.local(io.now());
        for (start, kid) in &mut self.kids {
            // A child that was held up looks whether it may act.
            let acts = self.supervisor.may_act(local, *start);
            kid.from = if acts { io.now() } else { Mono(i64::MAX) };
        }
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
        self.event(io, Event::NodeDown(node_name(peer)));
    }
}

impl Host for Node {
    type Message = Wire;

    fn connected(&mut self, io: &mut Io<Wire>, peer: NodeId) {
        self.peers.insert(peer);
        self.event(io, Event::NodeUp(node_name(peer)));
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
        let now = io.now();
        let due = |at: Option<Mono>| at.is_some_and(|at| at <= now);
        let says: Vec<(StartId, Pid)> = self
            .kids
            .iter()
            .filter(|(_, kid)| due(kid.says))
            .map(|(start, kid)| (*start, kid.pid.clone()))
            .collect();
        for (start, pid) in says {
            if let Some(kid) = self.kids.get_mut(&start) {
                kid.says = None;
            }
            self.event(io, Event::Started { start, pid });
        }
        let ends: Vec<(StartId, Term, bool)> = self
            .kids
            .iter()
            .filter_map(|(start, kid)| {
                let (at, reason, gives) = kid.ends.clone()?;
                (at <= now).then_some((*start, reason, gives))
            })
            .collect();
        for (start, reason, gives) in ends {
            self.end(io, start, reason, gives);
        }
        let local = self.local(io.now());
        self.supervisor.handle_timeout(local);
        self.carry_out(io);
    }

    fn next_wake(&self) -> Option<Mono> {
        let kids = self.kids.values();
        let kids = kids.flat_map(|kid| [kid.says, kid.ends.as_ref().map(|(at, ..)| *at)]);
        // A microsecond later, so that the clock shows at least that.
        let due = self.supervisor.poll_timeout().map(|at| self.truly(at) + Duration::from_micros(2));
        kids.flatten().chain(due).min()
    }
}
