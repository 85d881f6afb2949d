//! What this node does about a child: start it, leave it to others, or end it.

use std::sync::Arc;
use std::time::Duration;

use foundation_proto::Mono;
use foundation_proto::etf::Atom;

use super::children::{State, Why};
use super::spec::{ChildSpec, Kind, Part, Placement, Restart};
use super::{Child, Dot, Mutant, Supervisor};

/// Each node takes over what those before it in the order have not started so much later.
const TAKEOVER: Duration = Duration::from_secs(2);
/// A child that nobody has is started after this, whoever has just been connected and has not yet said what it runs.
const PATIENCE: Duration = Duration::from_secs(1);
/// A specification of which nothing is left to run is removed after this: what is being handed over has arrived by then.
const COLLECT: Duration = Duration::from_secs(15);

/// A child that nobody in reach has.
#[derive(Clone, Debug)]
pub(super) struct Vacant {
    pub(super) since: Mono,
    /// The node that it was on its way to.
    pub(super) prefer: Option<Atom>,
    /// When this node starts it, or looks again.
    pub(super) due: Option<Mono>,
}

impl Supervisor {
    /// Looks at one child.
    pub(super) fn decide(&mut self, child: &Child) {
        if matches!(&child.part, Part::Node(node) if *node != self.me.node) {
            // It is that node's own.
            return;
        }
        let spec = self.specs.get(&child.id).map(|(dot, spec)| (dot.clone(), Arc::clone(spec)));
        let spec = spec.filter(|(_, spec)| spec.has(&child.part));
        if self.running.contains_key(child) {
            self.vacant.remove(child);
            return self.keep(child, spec);
        }
        let Some((dot, spec)) = spec else {
            self.vacant.remove(child);
            self.ended.remove(child);
            self.forget_outgoing(child);
            // What is on its way may come before its specification: it stays until its time is over.
            return;
        };
        self.one_spec(child, &dot);
        if let Some(place) = self.place(child) {
            self.vacant.remove(child);
            if place.node != self.me.node {
                // The node that it was sent to says whether it took it, or had begun it already.
                if self.outgoing.get(child).is_some_and(|outgoing| outgoing.to != place.node) {
                    self.forget_outgoing(child);
                }
                self.refuse_unless_from(child, &place.node);
            }
            return;
        }
        if self.outgoing.contains_key(child) {
            return;
        }
        self.unclaimed(child, dot, spec);
    }

    /// Of several specifications of one id, the node that is to run it removes those that do not count.
    fn one_spec(&mut self, child: &Child, dot: &Dot) {
        let dots = self.specs.dots(&child.id);
        if dots.len() < 2 {
            return;
        }
        let members: Vec<Atom> = self.members.keys().cloned().collect();
        let order = self.ring.order(&self.name, Placement::Uniform, &child.id.0, &members);
        if order.first() == Some(&self.me.node) {
            let losers = dots.into_iter().filter(|other| other != dot).collect();
            self.write(None, losers);
        }
    }

    /// Nobody in reach has it.
    fn unclaimed(&mut self, child: &Child, dot: Dot, spec: Arc<ChildSpec>) {
        self.refuse_unless_of(child, &dot);
        let incoming = self.incoming.contains_key(child);
        if !incoming && self.specs.is_done(&dot, &child.part) && !self.mutant.is(Mutant::StartAgain) {
            return self.collect(child, &dot, &spec);
        }
        if self.ended.get(child).is_some_and(|ended| *ended == dot) {
            return;
        }
        if self.leaving || !self.factories.contains(&spec.factory) {
            self.vacant.remove(child);
            return self.refuse_incoming(child);
        }
        if spec.placement == Placement::Quorum && !self.has_quorum() {
            self.vacant.remove(child);
            return;
        }
        // It was tried a moment ago.
        let now = self.now;
        if self.vacant.get(child).is_some_and(|vacant| vacant.since > now) {
            return;
        }
        if incoming || spec.kind == Kind::Replicated {
            self.vacant.remove(child);
            return self.begin(child, dot, spec);
        }
        let candidates = self.candidates(&spec.factory);
        let order = self.ring.order(&self.name, spec.placement, &child.to_term(), &candidates);
        let settled = self.settled();
        let vacant = self.vacant.entry(child.clone()).or_insert_with(|| Vacant {
            since: now,
            prefer: None,
            due: None,
        });
        let me = &self.me.node;
        let mut rank = order.iter().position(|node| node == me).unwrap_or(order.len());
        if let Some(preferred) = vacant.prefer.as_ref().and_then(|to| order.iter().position(|n| n == to)) {
            rank = match rank {
                rank if rank == preferred => 0,
                rank if rank < preferred => rank + 1,
                rank => rank,
            };
        }
        let turn = vacant.since + TAKEOVER * u32::try_from(rank).unwrap_or(u32::MAX).min(1 << 16);
        let ready = settled.min(vacant.since + PATIENCE);
        let due = turn.max(ready);
        if due > now {
            vacant.due = Some(due);
            return;
        }
        self.vacant.remove(child);
        self.begin(child, dot, spec);
    }

    /// A part that is not to be started (again). Once that is true of all of them, the specification is removed.
    fn collect(&mut self, child: &Child, dot: &Dot, spec: &ChildSpec) {
        let parts = spec.parts(&self.me.node);
        let idle = |part| self.place(&Child { id: child.id.clone(), part }).is_none();
        // The last one to end is the one that is looked at then.
        if self.specs.done_parts(dot) < parts.len() || !parts.into_iter().all(idle) {
            self.vacant.remove(child);
            return;
        }
        let members: Vec<Atom> = self.members.keys().cloned().collect();
        let order = self.ring.order(&self.name, Placement::Uniform, &child.id.0, &members);
        let rank = order.iter().position(|node| *node == self.me.node).unwrap_or(order.len());
        let now = self.now;
        let vacant = self.vacant.entry(child.clone()).or_insert_with(|| Vacant {
            since: now,
            prefer: None,
            due: None,
        });
        let due = vacant.since + COLLECT * u32::try_from(rank + 1).unwrap_or(u32::MAX).min(1 << 16);
        if due > now {
            vacant.due = Some(due);
            return;
        }
        let dots = self.specs.dots(&child.id);
        self.write(None, dots);
    }

    /// This node has it.
    fn keep(&mut self, child: &Child, spec: Option<(Dot, Arc<ChildSpec>)>) {
        let Some((dot, spec)) = spec else {
            if !self.mutant.is(Mutant::KeepTerminated) {
                self.stop(child, Why::Terminated);
            }
            return;
        };
        self.one_spec(child, &dot);
        let quorum = spec.placement != Placement::Quorum || self.has_quorum();
        let elsewhere = self.place(child).is_some_and(|place| place.node != self.me.node);
        let Some(running) = self.running.get_mut(child) else { return };
        if running.dot != dot {
            // Of two that were written at a time, the other counts: it may well mean the same.
            if running.spec != spec {
                return self.stop(child, Why::Terminated);
            }
            running.dot = dot.clone();
            if spec.restart == Restart::Temporary && !self.specs.is_done(&dot, &child.part) {
                self.mark_done(child, dot);
            }
        }
        let leasing = self.running.get(child).is_some_and(|running| running.state == State::Leasing);
        if (leasing && elsewhere) || !quorum {
            self.stop(child, Why::Withdrawn);
        }
    }

    /// Looks at the children that are due.
    pub(super) fn vacant_due(&mut self) {
        let now = self.now;
        let due = self.vacant.iter().filter(|(_, vacant)| vacant.due.is_some_and(|due| due <= now));
        let due: Vec<Child> = due.map(|(child, _)| child.clone()).collect();
        for child in due {
            if let Some(vacant) = self.vacant.get_mut(&child) {
                vacant.due = None;
            }
            self.dirty.insert(child);
        }
    }
}
