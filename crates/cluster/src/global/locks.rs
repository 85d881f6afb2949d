//! The locks that are set on this node.

use std::collections::BTreeMap;

use foundation_proto::etf::{Pid, Term};

use super::MonitorId;
use crate::Key;

/// The locks a node keeps at most. More are refused (`false`), as if somebody else held them.
const MAX_LOCKS: usize = 1 << 16;

/// `{ResourceId, LockRequesterId}`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct LockId {
    pub(super) resource: Term,
    pub(super) requester: Term,
}

impl LockId {
    /// The lock under which names change: resource `global`.
    pub(super) fn names(requester: Term) -> Self {
        Self { resource: Term::atom(NAMES), requester }
    }

    pub(super) fn from_term(term: Term) -> Option<Self> {
        let [resource, requester] = crate::message::tuple(term)?;
        Some(Self { resource, requester })
    }

    pub(super) fn to_term(&self) -> Term {
        crate::message::tuple_of([self.resource.clone(), self.requester.clone()])
    }
}

/// The resource that protects the names (`?GLOBAL_RID`).
const NAMES: &str = "global";

#[derive(Debug)]
struct Lock {
    requester: Term,
    /// Who set it; the same requester may set it from several processes.
    owners: Vec<(Pid, Option<MonitorId>)>,
}

/// See the [module documentation](self).
#[derive(Debug, Default)]
pub(super) struct Locks {
    table: BTreeMap<Key, Lock>,
    /// The lock on the names was last taken away because its owner went down.
    pub(super) names_lock_down: bool,
}

impl Locks {
    /// Whether nobody else holds it.
    pub(super) fn can_set(&self, id: &LockId) -> bool {
        match self.table.get(&Key(id.resource.clone())) {
            Some(lock) => lock.requester == id.requester,
            None => self.table.len() < MAX_LOCKS,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub(super) fn is_names_lock_set(&self) -> bool {
        self.names_lock().is_some()
    }

    fn names_lock(&self) -> Option<&Lock> {
        self.table.get(&Key(Term::atom(NAMES)))
    }

    /// Whether `pid` is among the owners of the lock already.
    pub(super) fn is_owner(&self, id: &LockId, pid: &Pid) -> bool {
        self.table.get(&Key(id.resource.clone())).is_some_and(|lock| {
            lock.requester == id.requester && lock.owners.iter().any(|(owner, _)| owner == pid)
        })
    }

    /// Adds an owner; the caller has asked [`Self::can_set`].
    pub(super) fn insert(&mut self, id: LockId, pid: Pid, monitor: Option<MonitorId>) {
        let LockId { resource, requester } = id;
        let lock = self.table.entry(Key(resource)).or_insert(Lock { requester, owners: Vec::new() });
        lock.owners.push((pid, monitor));
    }

    /// Takes an owner away. Returns its monitor, to be given up.
    pub(super) fn remove(&mut self, id: &LockId, pid: &Pid, down: bool) -> Option<MonitorId> {
        let key = Key(id.resource.clone());
        let lock = self.table.get_mut(&key).filter(|lock| lock.requester == id.requester)?;
        let place = lock.owners.iter().position(|(owner, _)| owner == pid)?;
        let (_, monitor) = lock.owners.swap_remove(place);
        if lock.owners.is_empty() {
            self.table.remove(&key);
            if id.resource.is_atom(NAMES) {
                self.names_lock_down = down;
            }
        }
        monitor
    }

    /// Whether a name that `by` has brought may be inserted: the lock under which it was brought is still set, or nobody's
    /// death has taken it away.
    pub(super) fn still_set(&self, by: &Holder) -> bool {
        match (self.names_lock(), by) {
            (Some(lock), Holder::Process(pid)) => lock.owners.iter().any(|(owner, _)| owner == pid),
            (Some(lock), Holder::Requester(requester)) => requester.as_ref() == Some(&lock.requester),
            (None, _) => !self.names_lock_down,
        }
    }
}

/// Who changes names.
#[derive(Clone, Debug)]
pub(super) enum Holder {
    /// The registrar that has called.
    Process(Pid),
    /// Two lockers, as `new_nodes` names them; `None` if it does not.
    Requester(Option<Term>),
}
