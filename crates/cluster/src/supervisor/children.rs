//! The children of this node, from the claim to the end, and what is handed over.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, Term, encoded_len};

use super::calls::Waiter;
use super::event::{Action, Outcome, Place, Report, StartId, Status, Stop};
use super::spec::{ChildSpec, Kind, Part, Requirement, Restart};
use super::specs::Item;
use super::{Child, Dot, Mutant, Supervisor, Vacant, wire};
use crate::Key;
use crate::lease::{self, Leases};
use crate::message::{atom, list_of, tuple_of};
use crate::names::{self, Entry, OnConflict};

/// How long a child may stay on its way before it is offered to the next node.
const HAND_OFF: Duration = Duration::from_secs(10);
/// Children that a node hands over at a time when it leaves.
const AT_A_TIME: usize = 16;
/// A child that could not be claimed is tried again after this.
const RETRY: Duration = Duration::from_millis(500);
/// Reasons that are longer than this are not told to the other nodes.
const MAX_REASON: usize = 1024;

/// A child that this node has claimed, or wants to.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) dot: Dot,
    pub(super) spec: Arc<ChildSpec>,
    pub(super) state: State,
    pub(super) start: Option<StartId>,
    pid: Option<Pid>,
    /// What it is to start with.
    handed: Option<Incoming>,
    with_state: bool,
    /// When it was started again lately.
    restarts: VecDeque<Mono>,
    lease: Option<Lease>,
}

#[derive(Debug)]
struct Lease {
    command: u64,
    monitor: Option<lease::MonitorId>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// A majority is asked for its lease.
    Leasing,
    Starting,
    Running,
    Stopping {
        why: Why,
        kill: Option<Mono>,
    },
    /// It was given up.
    Failed(Failure),
}

/// A reason, compared by nobody.
#[derive(Clone, Debug)]
pub(super) struct Failure(pub(super) Term);

impl PartialEq for Failure {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Failure {}

/// Why a child is made to end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Why {
    /// It goes to another node: to this one, if it was named.
    HandOff { to: Option<(Atom, Waiter)> },
    /// It is not this node's to run.
    Withdrawn,
    /// Its specification is gone.
    Terminated,
    /// Its lease is lost.
    LeaseLost,
}

/// A child that has ended here and is on its way to another node.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) to: Atom,
    number: u64,
    dot: Dot,
    state: Option<Term>,
    tried: BTreeSet<Atom>,
    named: Option<Waiter>,
    pub(super) deadline: Mono,
}

/// A child that another node has sent.
#[derive(Clone, Debug)]
pub(super) struct Incoming {
    /// Whom to answer; nobody if it was this node's own.
    from: Option<(Pid, u64)>,
    dot: Dot,
    state: Option<Term>,
    size: usize,
    pub(super) deadline: Mono,
}

impl Running {
    pub(super) fn deadline(&self) -> Option<Mono> {
        match &self.state {
            State::Stopping { kill, .. } => *kill,
            _ => None,
        }
    }
}

/// What an entry of the registry says of a child.
pub(super) fn read_place(entry: &Entry) -> Option<Place> {
    let Child { id, part } = Child::from_term(&entry.key.0)?;
    let [status, pid, detail] = entry.value.as_tuple()? else { return None };
    let status = match status.as_atom()?.as_str() {
        "starting" => Status::Starting,
        "running" => Status::Running,
        "stopping" => Status::Stopping,
        "moving" => Status::Moving(detail.as_atom()?.clone()),
        "failed" => Status::Failed(detail.clone()),
        _ => return None,
    };
    Some(Place { id, part, node: entry.node.clone(), status, pid: pid.as_pid().cloned() })
}

/// Whether a child has ended as it should.
fn is_orderly(reason: &Term) -> bool {
    let shutdown = |term: &Term| term.is_atom("shutdown");
    let with_detail = |parts: &[Term]| matches!(parts, [first, _] if shutdown(first));
    reason.is_atom("normal") || shutdown(reason) || reason.as_tuple().is_some_and(with_detail)
}

impl Supervisor {
    pub(super) fn place(&self, child: &Child) -> Option<Place> {
        read_place(self.names.lookup(&child.to_term()).first()?)
    }

    // -- starting ------------------------------------------------------------------------------------------------------

    /// Claims a child and starts it; first asks for its lease if it needs one.
    pub(super) fn begin(&mut self, child: &Child, dot: Dot, spec: Arc<ChildSpec>) {
        let safe = spec.requirement == Requirement::Safety;
        let handed = self.incoming.remove(child);
        let running = Running {
            dot,
            spec,
            state: State::Leasing,
            start: None,
            pid: None,
            handed,
            with_state: false,
            restarts: VecDeque::new(),
            lease: None,
        };
        self.running.insert(child.clone(), running);
        if !safe {
            return self.claim(child);
        }
        self.acquire(child);
        if self.mutant.is(Mutant::StartWithoutLease) {
            self.claim(child);
        }
    }

    fn acquire(&mut self, child: &Child) {
        let command = self.number();
        if let Some(running) = self.running.get_mut(child) {
            running.lease = Some(Lease { command, monitor: None });
        }
        // Longer than a lease that somebody else may still have.
        let timeout = self.config.lease * 3 + Duration::from_secs(1);
        let (name, pid) = (child.to_term(), self.me.clone());
        self.acquiring = Some(child.clone());
        self.with_leases(lease::Event::Acquire { command, name, pid, timeout });
        self.acquiring = None;
    }

    /// A lease that is being asked for ends with this monitor.
    pub(super) fn lease_ends_with(&mut self, monitor: lease::MonitorId) {
        let running = self.acquiring.as_ref().and_then(|child| self.running.get_mut(child));
        if let Some(lease) = running.and_then(|running| running.lease.as_mut()) {
            lease.monitor = Some(monitor);
        }
    }

    /// The majority has answered.
    pub(super) fn leased(&mut self, command: u64, outcome: &lease::Outcome) {
        let of = |running: &Running| running.lease.as_ref().is_some_and(|lease| lease.command == command);
        let found = self.running.iter().find(|(_, running)| of(running)).map(|(child, _)| child.clone());
        let Some(child) = found else { return };
        if self.running.get(&child).is_none_or(|running| running.state != State::Leasing) {
            return;
        }
        if *outcome == lease::Outcome::Done {
            let done =
                |running: &Running| running.handed.is_none() && self.specs.is_done(&running.dot, &child.part);
            if !self.running.get(&child).is_some_and(done) || self.mutant.is(Mutant::StartAgain) {
                return self.claim(&child);
            }
            // Another node has started it, and that was known only after the majority was asked.
            self.give_lease_back(&child);
            self.running.remove(&child);
            self.dirty.insert(child);
            return;
        }
        self.retry_later(&child);
        if let Some(running) = self.running.remove(&child)
            && let Some(handed) = running.handed
        {
            self.incoming.insert(child.clone(), handed);
        }
        self.dirty.insert(child);
    }

    /// It could not be had: it is tried again a little later, as long as nobody else has it.
    fn retry_later(&mut self, child: &Child) {
        let since = self.now + RETRY;
        self.vacant.insert(child.clone(), Vacant { since, prefer: None, due: Some(since) });
    }

    fn claim(&mut self, child: &Child) {
        let Some(running) = self.running.get_mut(child) else { return };
        running.state = State::Starting;
        let value = claim_value("starting", None, None);
        let (key, pid, on_conflict) = (child.to_term(), self.me.clone(), OnConflict::Notify);
        let outcome = self.command_names(names::Command::Register { key, pid, value, on_conflict });
        if outcome != Some(names::Outcome::Done) {
            let handed = self.running.get_mut(child).and_then(|running| running.handed.take());
            self.give_lease_back(child);
            self.running.remove(child);
            self.retry_later(child);
            self.dirty.insert(child.clone());
            if let Some((from, number)) = handed.and_then(|handed| handed.from) {
                let refused = wire::refused(&self.me, number);
                self.send(&from, refused);
            }
            return;
        }
        let Some(running) = self.running.get_mut(child) else { return };
        let handed = running.handed.take();
        let once = running.spec.restart == Restart::Temporary && running.spec.kind != Kind::Replicated;
        let dot = running.dot.clone();
        if once && !self.specs.is_done(&dot, &child.part) {
            self.mark_done(child, dot);
        }
        let (from, state) = handed.map_or((None, None), |handed| (handed.from, handed.state));
        if let Some((from, number)) = from {
            let taken = wire::taken(&self.me, number);
            self.send(&from, taken);
        }
        self.start(child, state);
    }

    /// It is not to be started (again) wherever its specification is known.
    pub(super) fn mark_done(&mut self, child: &Child, of: Dot) {
        self.write(Some(Item::Done { of, part: child.part.clone() }), Vec::new());
    }

    fn start(&mut self, child: &Child, state: Option<Term>) {
        let start = StartId(self.number());
        let Some(running) = self.running.get_mut(child) else { return };
        running.start = Some(start);
        running.pid = None;
        running.state = State::Starting;
        running.with_state = state.is_some();
        let spec = Arc::clone(&running.spec);
        self.starts.insert(start, child.clone());
        self.stats.started += 1;
        self.actions.push_back(Action::Start { start, spec, part: child.part.clone(), state });
    }

    pub(super) fn started(&mut self, start: StartId, pid: Pid) {
        let Some(child) = self.starts.get(&start).cloned() else { return };
        let Some(running) = self.running.get_mut(&child) else { return };
        running.pid = Some(pid.clone());
        if running.state == State::Starting {
            running.state = State::Running;
            let with_state = running.with_state;
            self.report(Report::Started { child: child.clone(), pid, with_state });
        }
        self.publish(&child);
        self.dirty.insert(child);
    }

    /// Says what a child of this node is doing.
    fn publish(&mut self, child: &Child) {
        let Some(running) = self.running.get(child) else { return };
        let pid = running.pid.as_ref();
        let value = match &running.state {
            State::Leasing => return,
            State::Starting => claim_value("starting", pid, None),
            State::Running => claim_value("running", pid, None),
            State::Stopping { why: Why::HandOff { to: Some((to, _)) }, .. } => {
                claim_value("moving", pid, Some(Term::from(to)))
            }
            State::Stopping { .. } => claim_value("stopping", pid, None),
            State::Failed(Failure(reason)) => claim_value("failed", None, Some(reason.clone())),
        };
        let (key, pid) = (child.to_term(), self.me.clone());
        self.command_names(names::Command::UpdateValue { key, pid, value });
    }

    // -- ending --------------------------------------------------------------------------------------------------------

    /// Has a child end. A reason that weighs more takes the place of one that weighs less.
    pub(super) fn stop(&mut self, child: &Child, why: Why) {
        let weight = |why: &Why| match why {
            Why::HandOff { .. } => 0,
            Why::Withdrawn => 1,
            Why::Terminated => 2,
            Why::LeaseLost => 3,
        };
        let now = self.now;
        let Some(running) = self.running.get_mut(child) else { return };
        match &mut running.state {
            State::Leasing => {
                let handed = running.handed.take();
                self.give_lease_back(child);
                self.running.remove(child);
                if let Some(handed) = handed {
                    self.incoming.insert(child.clone(), handed);
                }
                self.dirty.insert(child.clone());
            }
            State::Failed(_) => self.vacate(child),
            State::Stopping { why: before, kill } => {
                if weight(&why) <= weight(before) {
                    return;
                }
                let lost = why == Why::LeaseLost;
                let before = std::mem::replace(before, why);
                let start = running.start.filter(|_| lost);
                if lost {
                    *kill = None;
                }
                if let Some(start) = start {
                    self.actions.push_back(Action::Stop { start, how: Stop::Kill });
                }
                if let Why::HandOff { to: Some((_, waiter)) } = before {
                    self.answer(waiter, Outcome::NotFound);
                }
            }
            State::Starting | State::Running => {
                let how = match why {
                    Why::HandOff { .. } => Stop::HandOff,
                    Why::Withdrawn | Why::Terminated => Stop::Shutdown,
                    Why::LeaseLost => Stop::Kill,
                };
                let kill = (how != Stop::Kill).then_some(now + running.spec.shutdown);
                running.state = State::Stopping { why, kill };
                if let Some(start) = running.start {
                    self.actions.push_back(Action::Stop { start, how });
                }
                if self.mutant.is(Mutant::ReleaseEarly) {
                    self.give_lease_back(child);
                }
                self.publish(child);
            }
        }
    }

    /// Children that have not ended in time are killed; what was not taken up goes to the next.
    pub(super) fn children_due(&mut self) {
        let now = self.now;
        for running in self.running.values_mut() {
            if let State::Stopping { kill, .. } = &mut running.state
                && kill.is_some_and(|kill| kill <= now)
            {
                *kill = None;
                if let Some(start) = running.start {
                    self.actions.push_back(Action::Stop { start, how: Stop::Kill });
                }
            }
        }
        let late = self.outgoing.iter().filter(|(_, outgoing)| outgoing.deadline <= now);
        let late: Vec<Child> = late.map(|(child, _)| child.clone()).collect();
        for child in late {
            self.not_taken(&child);
        }
        let late = self.incoming.iter().filter(|(_, incoming)| incoming.deadline <= now);
        let late: Vec<Child> = late.map(|(child, _)| child.clone()).collect();
        for child in late {
            if self.incoming.get(&child).is_some_and(|incoming| incoming.state.is_some()) {
                self.report(Report::StateLost { child: child.clone() });
            }
            self.refuse_incoming(&child);
            self.dirty.insert(child);
        }
    }

    pub(super) fn child_ended(&mut self, start: StartId, reason: Term, state: Option<Term>) {
        let Some(child) = self.starts.remove(&start) else { return };
        let short = encoded_len(&reason).is_ok_and(|size| size <= MAX_REASON);
        let reason = if short { reason } else { atom("too_long") };
        self.dirty.insert(child.clone());
        let Some(running) = self.running.get_mut(&child).filter(|running| running.start == Some(start))
        else {
            return;
        };
        running.start = None;
        running.pid = None;
        let orderly = is_orderly(&reason);
        let permanent = running.spec.restart == Restart::Permanent;
        match running.state.clone() {
            State::Starting | State::Running => self.ended_by_itself(&child, reason),
            // It was done before it was asked.
            State::Stopping { why: Why::HandOff { to }, .. }
                if reason.is_atom("normal") && !permanent && state.is_none() =>
            {
                if let Some((_, waiter)) = to {
                    self.answer(waiter, Outcome::NotFound);
                }
                self.finish(&child);
            }
            State::Stopping { why: Why::HandOff { to }, .. } => {
                let fits = |state: &Term| encoded_len(state).is_ok_and(|size| size <= self.config.max_state);
                let state = state.filter(|_| orderly);
                let too_large = state.as_ref().is_some_and(|state| !fits(state));
                if too_large {
                    self.report(Report::StateLost { child: child.clone() });
                }
                self.hand_over(&child, state.filter(|_| !too_large), to, BTreeSet::new());
            }
            State::Stopping { .. } => self.vacate(&child),
            State::Leasing | State::Failed(_) => {}
        }
    }

    fn ended_by_itself(&mut self, child: &Child, reason: Term) {
        let now = self.now;
        let unbounded = self.mutant.is(Mutant::NoBudget);
        let Some(running) = self.running.get_mut(child) else { return };
        let again = match running.spec.restart {
            Restart::Permanent => true,
            Restart::Transient => !is_orderly(&reason),
            Restart::Temporary => false,
        };
        if !again {
            return self.finish(child);
        }
        if self.leaving {
            return self.vacate(child);
        }
        let window = Duration::from_secs(running.spec.max_seconds.into());
        while running.restarts.front().is_some_and(|at| *at + window < now) {
            running.restarts.pop_front();
        }
        let safe = running.spec.requirement == Requirement::Safety;
        let spent = running.restarts.len() >= running.spec.max_restarts as usize;
        running.restarts.push_back(now);
        if spent && !unbounded {
            running.restarts.clear();
            running.state = State::Failed(Failure(reason.clone()));
            self.stats.given_up += 1;
            self.give_lease_back(child);
            self.publish(child);
            return self.report(Report::GivenUp { child: child.clone(), reason });
        }
        let held = |leases: &Leases| leases.is_held(now, &child.to_term(), &self.me).is_some();
        if safe && !self.leases.as_ref().is_some_and(held) {
            // It ran out while nobody looked.
            return self.vacate(child);
        }
        self.stats.restarted += 1;
        self.report(Report::Restarted { child: child.clone(), reason });
        self.start(child, None);
        self.publish(child);
    }

    /// It has ended for good.
    fn finish(&mut self, child: &Child) {
        let Some(running) = self.running.get(child) else { return };
        let (dot, kind) = (running.dot.clone(), running.spec.kind);
        match kind {
            Kind::Singleton => {
                // Others of this id that lost against it go with it. One that counts before it has not ended, and stays.
                let counts = self.specs.get(&child.id).is_some_and(|(counted, _)| *counted == dot);
                let dots = if counts { self.specs.dots(&child.id) } else { vec![dot] };
                self.write(None, dots);
            }
            Kind::Replicated => drop(self.ended.insert(child.clone(), dot)),
            Kind::Partitioned(_) => {
                if !self.specs.is_done(&dot, &child.part) {
                    self.mark_done(child, dot);
                }
            }
        }
        self.vacate(child);
    }

    /// This node has it no longer.
    fn vacate(&mut self, child: &Child) {
        self.give_lease_back(child);
        if let Some(running) = self.running.remove(child)
            && let Some(start) = running.start
        {
            self.starts.remove(&start);
        }
        self.command_names(names::Command::Unregister { key: child.to_term(), pid: self.me.clone() });
        self.dirty.insert(child.clone());
    }

    fn give_lease_back(&mut self, child: &Child) {
        let lease = self.running.get_mut(child).and_then(|running| running.lease.take());
        if let Some(monitor) = lease.and_then(|lease| lease.monitor) {
            self.with_leases(lease::Event::Down(monitor));
        }
    }

    /// A majority does not renew it: the child must have ended before others can have it.
    pub(super) fn lease_lost(&mut self, child: &Child) {
        if let Some(running) = self.running.get_mut(child) {
            running.lease = None;
        }
        self.stats.leases_lost += 1;
        self.report(Report::LeaseLost { child: child.clone() });
        if !self.mutant.is(Mutant::IgnoreLost) {
            self.stop(child, Why::LeaseLost);
        }
    }

    /// The registry says that another node has a child of this one, too, and keeps it.
    pub(super) fn conflict(&mut self, message: &Term) {
        let Some([_, named, ..]) = message.as_tuple() else { return };
        let Some(child) = named.as_tuple().and_then(|named| Child::from_term(named.first()?)) else { return };
        self.stats.conflicts += 1;
        if !self.mutant.is(Mutant::IgnoreConflict) {
            self.stop(&child, Why::Withdrawn);
        }
        self.report(Report::Conflict { child });
    }

    /// A node that leaves hands over so many children at a time, so that their states do not fill its connections. `false` if there is
    /// nothing to do now.
    pub(super) fn hand_next(&mut self) -> bool {
        let on_its_way = |running: &&Running| matches!(running.state, State::Stopping { .. });
        let under_way = self.running.values().filter(on_its_way).count() + self.outgoing.len();
        let waiting = self.running.iter().filter(|(_, running)| !on_its_way(running));
        let next: Vec<Child> =
            waiting.take(AT_A_TIME.saturating_sub(under_way)).map(|(child, _)| child.clone()).collect();
        for child in &next {
            self.stop(child, Why::HandOff { to: None });
        }
        !next.is_empty()
    }

    // -- handing over --------------------------------------------------------------------------------------------------

    /// Moves a child of this node to another.
    pub(super) fn migrate(&mut self, child: &Child, to: Atom, waiter: Waiter) {
        let Some(running) = self.running.get(child) else { return self.answer(waiter, Outcome::NotFound) };
        let able = self.candidates(&running.spec.factory).contains(&to);
        if !able || running.spec.kind == Kind::Replicated {
            return self.answer(waiter, Outcome::NoSuchNode);
        }
        if to == self.me.node {
            return self.answer(waiter, Outcome::Done);
        }
        match running.state {
            State::Starting | State::Running => self.stop(child, Why::HandOff { to: Some((to, waiter)) }),
            _ => self.answer(waiter, Outcome::NotFound),
        }
    }

    /// A child has ended here: the next node is told to start it, with its state. Its lease is given back before, and its claim
    /// after, so that the next node knows whose turn it is when it sees that nobody has the child.
    fn hand_over(
        &mut self,
        child: &Child,
        state: Option<Term>,
        to: Option<(Atom, Waiter)>,
        mut tried: BTreeSet<Atom>,
    ) {
        let Some(running) = self.running.get(child) else { return };
        let (dot, spec) = (running.dot.clone(), Arc::clone(&running.spec));
        if spec.kind == Kind::Replicated {
            // The other nodes have their own.
            return self.vacate(child);
        }
        let mut candidates = self.candidates(&spec.factory);
        tried.insert(self.me.node.clone());
        candidates.retain(|node| !tried.contains(node));
        let next = match &to {
            Some((to, _)) => candidates.contains(to).then(|| to.clone()),
            None => {
                let order = self.ring.order(&self.name, spec.placement, &child.to_term(), &candidates);
                order.into_iter().next()
            }
        };
        let Some(next) = next else {
            self.vacate(child);
            return self.nobody_takes(child, dot, state, to.map(|(_, waiter)| waiter));
        };
        let outgoing = Outgoing {
            to: next,
            number: 0,
            dot,
            state,
            tried,
            named: to.map(|(_, waiter)| waiter),
            deadline: self.now,
        };
        self.give_lease_back(child);
        self.offer(child, outgoing);
        self.vacate(child);
    }

    fn offer(&mut self, child: &Child, mut outgoing: Outgoing) {
        let Some(member) = self.members.get(&outgoing.to) else { return };
        let pid = member.pid.clone();
        outgoing.number = self.number();
        outgoing.deadline = self.now + HAND_OFF;
        let (number, dot) = (outgoing.number, &outgoing.dot);
        let message = wire::hand_off(&self.me, number, child, dot, outgoing.state.as_ref());
        self.send(&pid, message);
        self.stats.handed_off += 1;
        self.report(Report::HandedOff { child: child.clone(), to: outgoing.to.clone() });
        if !self.mutant.is(Mutant::ForgetHandOff) {
            self.outgoing.insert(child.clone(), outgoing);
        }
    }

    /// The node that it was offered to does not take it.
    fn not_taken(&mut self, child: &Child) {
        self.dirty.insert(child.clone());
        if self.place(child).is_some_and(|place| place.node != self.me.node) {
            return self.forget_outgoing(child);
        }
        let Some(mut outgoing) = self.outgoing.remove(child) else { return };
        outgoing.tried.insert(outgoing.to.clone());
        let spec = self.specs.get(&child.id).map(|(_, spec)| Arc::clone(spec));
        let mut candidates = spec.as_ref().map_or_else(Vec::new, |spec| self.candidates(&spec.factory));
        candidates.retain(|node| !outgoing.tried.contains(node));
        let next = match (&outgoing.named, &spec) {
            (None, Some(spec)) => {
                let order = self.ring.order(&self.name, spec.placement, &child.to_term(), &candidates);
                order.into_iter().next()
            }
            _ => None,
        };
        match next {
            Some(next) => {
                outgoing.to = next;
                self.offer(child, outgoing);
            }
            None => self.nobody_takes(child, outgoing.dot, outgoing.state, outgoing.named),
        }
    }

    /// A node that stays takes it back itself; with one that leaves its state is lost.
    fn nobody_takes(&mut self, child: &Child, dot: Dot, state: Option<Term>, named: Option<Waiter>) {
        if !self.leaving {
            let size = state.as_ref().map_or(0, |state| encoded_len(state).unwrap_or(0));
            let deadline = self.now + HAND_OFF;
            self.incoming.insert(child.clone(), Incoming { from: None, dot, state, size, deadline });
        } else if state.is_some() {
            self.report(Report::StateLost { child: child.clone() });
        }
        self.dirty.insert(child.clone());
        if let Some(waiter) = named {
            self.answer(waiter, Outcome::NoSuchNode);
        }
    }

    /// Another node has begun it without what was to be handed over, or it is not to run any more.
    pub(super) fn forget_outgoing(&mut self, child: &Child) {
        let Some(outgoing) = self.outgoing.remove(child) else { return };
        let place = self.place(child);
        let taken = place.as_ref().is_some_and(|place| place.node == outgoing.to);
        if place.is_some() && outgoing.state.is_some() {
            self.report(Report::StateLost { child: child.clone() });
        }
        if let Some(waiter) = outgoing.named {
            self.answer(waiter, if taken { Outcome::Done } else { Outcome::NotFound });
        }
    }

    pub(super) fn hand_off_answered(&mut self, from: &Pid, number: u64, taken: bool) {
        let of = |outgoing: &Outgoing| outgoing.number == number && outgoing.to == from.node;
        let found = self.outgoing.iter().find(|(_, outgoing)| of(outgoing)).map(|(child, _)| child.clone());
        let Some(child) = found else { return };
        if !taken {
            return self.not_taken(&child);
        }
        if let Some(waiter) = self.outgoing.remove(&child).and_then(|outgoing| outgoing.named) {
            self.answer(waiter, Outcome::Done);
        }
        self.dirty.insert(child);
    }

    /// A member is out of reach: what it was offered goes to the next.
    pub(super) fn member_lost(&mut self, node: &Atom) {
        let to_it = self.outgoing.iter().filter(|(_, outgoing)| outgoing.to == *node);
        let to_it: Vec<Child> = to_it.map(|(child, _)| child.clone()).collect();
        for child in to_it {
            self.not_taken(&child);
        }
        self.owner_lost(node);
    }

    /// Another node wants this one to go on with a child.
    pub(super) fn offered(&mut self, from: Pid, number: u64, child: Child, dot: Dot, state: Option<Term>) {
        let size = state.as_ref().map_or(0, |state| encoded_len(state).unwrap_or(usize::MAX));
        let before: usize = self.incoming.values().map(|incoming| incoming.size).sum();
        let room = size <= self.config.max_state
            && before.saturating_add(size) <= self.config.max_states
            && self.incoming.len() < self.config.max_children
            && child.part.is_shared();
        if !room || self.leaving || self.running.contains_key(&child) {
            let refused = wire::refused(&self.me, number);
            return self.send(&from, refused);
        }
        let deadline = self.now + HAND_OFF;
        // A later offer of the same child is the one that counts.
        self.refuse_incoming(&child);
        self.incoming
            .insert(child.clone(), Incoming { from: Some((from, number)), dot, state, size, deadline });
        self.dirty.insert(child);
    }

    pub(super) fn refuse_incoming(&mut self, child: &Child) {
        if let Some((from, number)) = self.incoming.remove(child).and_then(|incoming| incoming.from) {
            let refused = wire::refused(&self.me, number);
            self.send(&from, refused);
        }
    }

    /// A state of another specification of the same id is of no use.
    pub(super) fn refuse_unless_of(&mut self, child: &Child, dot: &Dot) {
        if self.incoming.get(child).is_some_and(|incoming| incoming.dot != *dot) {
            self.refuse_incoming(child);
        }
    }

    /// Somebody has a child that was offered to this node: it waits for it only if that is who offers it.
    pub(super) fn refuse_unless_from(&mut self, child: &Child, owner: &Atom) {
        let from = self.incoming.get(child).and_then(|incoming| incoming.from.as_ref());
        if from.is_none_or(|(from, _)| from.node != *owner) {
            self.refuse_incoming(child);
        }
    }

    /// Children of an id that were given up here are tried again.
    pub(super) fn restart_failed(&mut self, id: &Key) {
        let failed = |running: &Running| matches!(running.state, State::Failed(_));
        let of_id = self.running.iter().filter(|(child, running)| child.id == *id && failed(running));
        let children: Vec<Child> = of_id.map(|(child, _)| child.clone()).collect();
        for child in children {
            let Some(running) = self.running.get_mut(&child) else { continue };
            if running.spec.requirement == Requirement::Safety {
                // Anew, with a lease.
                self.vacate(&child);
            } else {
                running.state = State::Starting;
                self.start(&child, None);
                self.publish(&child);
            }
        }
    }
}

impl Part {
    /// Whether it can be on any node.
    fn is_shared(&self) -> bool {
        !matches!(self, Self::Node(_))
    }
}

fn claim_value(status: &'static str, pid: Option<&Pid>, detail: Option<Term>) -> Term {
    let pid = pid.map_or_else(|| atom("undefined"), Term::from);
    tuple_of([atom(status), pid, detail.unwrap_or_else(|| list_of([]))])
}
