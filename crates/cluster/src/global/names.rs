//! The registered names.

use std::collections::BTreeMap;

use foundation_proto::etf::{Atom, Pid, Term};

use super::MonitorId;
use crate::Key;
use crate::message::{list, pid, tuple, tuple_of};

/// The names a node keeps at most. OTP has no limit; this one keeps a peer that has gone mad from filling the memory.
const MAX_NAMES: usize = 1 << 20;

/// One registration.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) pid: Pid,
    /// The function that resolves a conflict, as it came: a fun of another node is not understood here, only kept.
    pub(super) method: Term,
    pub(super) monitor: Option<MonitorId>,
    /// For a process of a node without `global`: the node that has registered it.
    pub(super) external: Option<Atom>,
}

/// A change of the names, as `exchange` and `new_nodes` carry it.
#[derive(Clone, Debug)]
pub(super) enum Op {
    /// `{insert, {Name, Pid, Method}}`.
    Insert(Name),
    /// `{delete, Name}`.
    Delete(Term),
}

/// `{Name, Pid, Method}`.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) name: Term,
    pub(super) pid: Pid,
    pub(super) method: Term,
}

impl Name {
    fn from_term(term: Term) -> Option<Self> {
        let [name, process, method] = tuple(term)?;
        Some(Self { name, pid: pid(process)?, method })
    }

    fn to_term(&self) -> Term {
        tuple_of([self.name.clone(), Term::Pid(self.pid.clone()), self.method.clone()])
    }
}

/// The names of an `exchange`.
pub(super) fn names_of(term: Term) -> Option<Vec<Name>> {
    list(term)?.into_iter().map(Name::from_term).collect()
}

pub(super) fn ops_of(term: Term) -> Option<Vec<Op>> {
    list(term)?
        .into_iter()
        .map(|op| {
            let [what, argument] = tuple(op)?;
            if what.is_atom("insert") {
                Name::from_term(argument).map(Op::Insert)
            } else if what.is_atom("delete") {
                Some(Op::Delete(argument))
            } else {
                None
            }
        })
        .collect()
}

pub(super) fn ops_term(ops: &[Op]) -> Term {
    Term::list(ops.iter().map(|op| match op {
        Op::Insert(name) => tuple_of([Term::atom("insert"), name.to_term()]),
        Op::Delete(name) => tuple_of([Term::atom("delete"), name.clone()]),
    }))
}

/// The processes of nodes without `global`: `{Name, Pid, RegNode}`.
pub(super) type External = (Term, Pid, Atom);

pub(super) fn external_of(term: Term) -> Option<Vec<External>> {
    list(term)?
        .into_iter()
        .map(|one| match tuple(one)? {
            [name, Term::Pid(pid), Term::Atom(node)] => Some((name, pid, node)),
            _ => None,
        })
        .collect()
}

pub(super) fn external_term(external: &[External]) -> Term {
    Term::list(
        external.iter().map(|(name, pid, node)| {
            tuple_of([name.clone(), Term::Pid(pid.clone()), Term::Atom(node.clone())])
        }),
    )
}

/// See the [module documentation](self).
#[derive(Debug, Default)]
pub(super) struct Names {
    entries: BTreeMap<Key, Entry>,
    /// How many names a process has: several after a conflict or `re_register_name/2`.
    processes: BTreeMap<Pid, usize>,
}

impl Names {
    pub(super) fn get(&self, name: &Term) -> Option<&Entry> {
        self.entries.get(&Key(name.clone()))
    }

    pub(super) fn has_room(&self) -> bool {
        self.entries.len() < MAX_NAMES
    }

    /// Puts a name in place and returns what was there.
    pub(super) fn insert(&mut self, name: Term, entry: Entry) -> Option<Entry> {
        *self.processes.entry(entry.pid.clone()).or_default() += 1;
        let before = self.entries.insert(Key(name), entry);
        self.forget(before.as_ref());
        before
    }

    pub(super) fn remove(&mut self, name: &Term) -> Option<Entry> {
        let removed = self.entries.remove(&Key(name.clone()));
        self.forget(removed.as_ref());
        removed
    }

    fn forget(&mut self, removed: Option<&Entry>) {
        let Some(Entry { pid, .. }) = removed else { return };
        let Some(names) = self.processes.get_mut(pid) else { return };
        *names -= 1;
        if *names == 0 {
            self.processes.remove(pid);
        }
    }

    /// Whether the process has a name already. `global` keeps one name per process.
    pub(super) fn has_name(&self, pid: &Pid) -> bool {
        self.processes.contains_key(pid)
    }

    /// All names, in the order of terms.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Term, &Entry)> {
        self.entries.iter().map(|(name, entry)| (&name.0, entry))
    }

    pub(super) fn to_term(&self) -> Term {
        Term::list(self.iter().map(|(name, entry)| {
            tuple_of([name.clone(), Term::Pid(entry.pid.clone()), entry.method.clone()])
        }))
    }

    pub(super) fn external(&self) -> Vec<External> {
        let one = |(name, entry): (&Term, &Entry)| {
            entry.external.as_ref().map(|node| (name.clone(), entry.pid.clone(), node.clone()))
        };
        self.iter().filter_map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_name_until_its_last_one_goes() {
        let pid = Pid { node: Atom::new_static("a@b"), id: 1, serial: 0, creation: 1 };
        let entry = || Entry { pid: pid.clone(), method: Term::atom("none"), monitor: None, external: None };
        let (one, other) = (Term::atom("one"), Term::atom("other"));
        let mut names = Names::default();
        assert!(!names.has_name(&pid));
        names.insert(one.clone(), entry());
        names.insert(one.clone(), entry());
        names.insert(other.clone(), entry());
        names.remove(&one);
        assert!(names.has_name(&pid));
        names.remove(&one);
        assert!(names.has_name(&pid));
        names.remove(&other);
        assert!(!names.has_name(&pid) && names.processes.is_empty());
    }
}
