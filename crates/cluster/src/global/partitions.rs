//! Prevention of overlapping partitions: when two nodes lose each other, the others leave one of them, so that whoever
//! shares names is connected to everybody else who does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Term};

use super::{Action, Global, To, VERSION_OLDEST};
use crate::message::{atom, tuple_of};

/// How long a report is remembered: OTP's two hours.
const REMEMBERED: Duration = Duration::from_secs(2 * 60 * 60);
/// The reports that are remembered at most; then the oldest is forgotten, and would be passed on once more.
const MAX_REPORTS: usize = 4096;

/// How a node was lost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Loss {
    /// The connection is gone.
    Disconnected,
    /// It is to go: the other side was asked to end it, or has asked.
    Removed,
}

#[derive(Debug)]
struct Report {
    creation: Term,
    operation: i64,
    until: Mono,
}

/// See the [module documentation](self).
#[derive(Debug)]
pub(super) struct Partitions {
    /// Tells reports of this incarnation of the node from those of others.
    creation: i64,
    /// Nodes whose connections are about to end by agreement.
    removing: BTreeSet<Atom>,
    reports: BTreeMap<(Atom, Atom), Report>,
}

impl Partitions {
    pub(super) fn new(random: u64, creation: u32) -> Self {
        let extension = i64::try_from((random >> 6) & !0xffff_ffff).unwrap_or(0);
        Self {
            creation: extension + i64::from(creation),
            removing: BTreeSet::new(),
            reports: BTreeMap::new(),
        }
    }

    /// Whether the report is new; it is remembered then.
    fn is_news(&mut self, now: Mono, from: &Atom, of: &Atom, creation: Term, operation: i64) -> bool {
        let key = (from.clone(), of.clone());
        let old = self.reports.get(&key);
        if old.is_some_and(|report| report.creation == creation && operation <= report.operation) {
            return false;
        }
        if self.reports.len() >= MAX_REPORTS {
            self.reports.retain(|_, report| report.until > now);
            if self.reports.len() >= MAX_REPORTS
                && let Some(oldest) =
                    self.reports.iter().min_by_key(|(_, report)| report.until).map(|(key, _)| key.clone())
            {
                self.reports.remove(&oldest);
            }
        }
        self.reports.insert(key, Report { creation, operation, until: now + REMEMBERED });
        true
    }
}

impl Global {
    pub(super) fn inform_of_loss(&mut self, node: &Atom, loss: Loss) {
        match loss {
            Loss::Removed => {
                self.partitions.removing.insert(node.clone());
            }
            Loss::Disconnected if self.partitions.removing.remove(node) => {}
            Loss::Disconnected => {
                if self.config.connect_all && self.config.prevent_overlapping_partitions {
                    let operation = i64::try_from(self.number()).unwrap_or(i64::MAX);
                    let message = tuple_of([
                        atom("lost_connection"),
                        Term::Atom(self.node().clone()),
                        Term::Integer(self.partitions.creation),
                        Term::Integer(operation),
                        Term::Atom(node.clone()),
                    ]);
                    self.multicast(&message, node);
                }
            }
        }
    }

    /// To all that are known, or about to be, but one.
    fn multicast(&mut self, message: &Term, but: &Atom) {
        let current = |(_, version): &(&Atom, &i64)| **version >= VERSION_OLDEST;
        let nodes: BTreeSet<Atom> = self
            .known
            .iter()
            .chain(self.pending.iter())
            .filter(current)
            .map(|(node, _)| node.clone())
            .collect();
        for node in nodes {
            if node != *but {
                self.send(To::Server(node), message.clone());
            }
        }
    }

    fn is_potentially_known(&self, node: &Atom) -> bool {
        self.known.contains_key(node) || self.pending.contains_key(node)
    }

    pub(super) fn partition_message(&mut self, now: Mono, message: Vec<Term>) -> Option<()> {
        match (message.first()?.as_atom()?.as_str(), message.len()) {
            ("lost_connection", 5) => {
                let from = message.get(1)?.as_atom()?.clone();
                let lost = message.get(4)?.as_atom()?.clone();
                let (creation, operation) = (message.get(2)?.clone(), message.get(3)?.as_i64()?);
                if self.config.connect_all && self.config.prevent_overlapping_partitions {
                    self.lost_by(now, &from, &lost, creation, operation, Term::tuple(message));
                }
                Some(())
            }
            ("remove_connection", 2) => {
                let node = message.get(1)?.as_atom()?.clone();
                if self.is_potentially_known(&node) {
                    self.actions.push_back(Action::Disconnect(node.clone()));
                    self.lose(&node, Loss::Removed);
                }
                Some(())
            }
            _ => None,
        }
    }

    fn lost_by(
        &mut self,
        now: Mono,
        from: &Atom,
        lost: &Atom,
        creation: Term,
        operation: i64,
        message: Term,
    ) {
        if !self.partitions.is_news(now, from, lost, creation, operation) {
            return;
        }
        // Passed on, for the reporter may lose others while it reports.
        self.multicast(&message, from);
        let leave = if lost == self.node() { from } else { lost };
        if !self.is_potentially_known(leave) {
            return;
        }
        let remove = tuple_of([atom("remove_connection"), Term::Atom(self.node().clone())]);
        self.send(To::Server(leave.clone()), remove);
        self.lose(leave, Loss::Removed);
    }
}
