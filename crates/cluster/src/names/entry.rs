use std::cmp::Ordering;
use std::sync::Arc;

use foundation_proto::etf::{Atom, Pid, Term};

use crate::Key;

/// How many processes may have one key.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Keys {
    /// One (`keys: :unique` of Elixir's `Registry`).
    #[default]
    Unique,
    /// Any number, each once (`keys: :duplicate`).
    Duplicate,
}

impl Keys {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Unique => "unique",
            Self::Duplicate => "duplicate",
        }
    }
}

/// A key that a process has.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: Arc<Key>,
    /// The process.
    pub pid: Pid,
    /// What was registered with it.
    pub value: Term,
    /// The node that registered it, which is the only one to change it.
    pub node: Atom,
    /// When it was registered: milliseconds of the wall clock there, and later than all that the node had seen of this key.
    pub claim: i64,
    /// Which write of its node this is.
    pub version: u64,
}

impl Entry {
    pub(super) fn id(&self, keys: Keys) -> Id {
        let pid = (keys == Keys::Duplicate).then(|| self.pid.clone());
        Id { key: Arc::clone(&self.key), pid }
    }

    /// The order in which two processes have a right to the same key: the earlier claim, then the lesser node, then the lesser
    /// process. All nodes compute it alike.
    pub(super) fn precedence(&self, other: &Self) -> Ordering {
        let by_claim = self.claim.cmp(&other.claim);
        by_claim.then_with(|| self.node.cmp(&other.node)).then_with(|| self.pid.cmp(&other.pid))
    }
}

/// What a node has one entry for: a key if keys are unique, otherwise a key of one process.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Id {
    pub(super) key: Arc<Key>,
    pub(super) pid: Option<Pid>,
}
