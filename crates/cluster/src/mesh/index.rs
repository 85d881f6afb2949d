//! The instances that are found, by name and process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use foundation_proto::etf::{Atom, Pid, Term};

use super::service::Service;
use crate::Key;

/// The registrations of one process under one name, the one that counts in front. There is more than one only if a process of a BEAM
/// node was registered by several nodes.
type Registrations = Vec<Arc<Service>>;

#[derive(Debug, Default)]
pub(super) struct Index {
    names: BTreeMap<Key, BTreeMap<Pid, Registrations>>,
    len: usize,
}

/// What stood for a process under a name, and what stands for it now.
pub(super) struct Replaced {
    pub(super) before: Option<Arc<Service>>,
    pub(super) after: Option<Arc<Service>>,
}

impl Index {
    /// How many instances there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn has_name(&self, name: &Term) -> bool {
        self.names.contains_key(&Key(name.clone()))
    }

    /// The instances of a name, in the order of their processes.
    pub(super) fn of_name(&self, name: &Term) -> impl Iterator<Item = &Arc<Service>> {
        let instances = self.names.get(&Key(name.clone()));
        instances.into_iter().flat_map(BTreeMap::values).filter_map(|all| all.first())
    }

    /// The registration of a process that this node made, whether or not it is the one that counts.
    pub(super) fn registered_by(&self, name: &Term, pid: &Pid, registrar: &Atom) -> Option<&Arc<Service>> {
        self.names.get(&Key(name.clone()))?.get(pid)?.iter().find(|service| service.registrar == *registrar)
    }

    /// All instances, in the order of names and processes.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.names.values().flat_map(BTreeMap::values).filter_map(|all| all.first())
    }

    /// Those that come after an instance, which need not be there any more.
    pub(super) fn after(&self, name: Term, pid: &Pid) -> impl Iterator<Item = &Arc<Service>> {
        let name = Key(name);
        let same = self.names.get(&name);
        let rest = same.into_iter().flat_map({
            let after = (Bound::Excluded(pid.clone()), Bound::Unbounded);
            move |instances| instances.range(after.clone()).map(|(_, all)| all)
        });
        let names = self.names.range((Bound::Excluded(name), Bound::Unbounded));
        rest.chain(names.flat_map(|(_, instances)| instances.values())).filter_map(|all| all.first())
    }

    /// Puts what a node has registered of a process in the place of what it had, or takes it out.
    pub(super) fn set(&mut self, name: &Term, pid: &Pid, registrar: &Atom, to: Option<Service>) -> Replaced {
        let instances = self.names.entry(Key(name.clone())).or_default();
        let all = instances.entry(pid.clone()).or_default();
        let before = all.first().cloned();
        all.retain(|service| service.registrar != *registrar);
        if let Some(service) = to {
            let at = all.partition_point(|other| other.counts_before(&service));
            all.insert(at, Arc::new(service));
        }
        let after = all.first().cloned();
        if all.is_empty() {
            instances.remove(pid);
        }
        if instances.is_empty() {
            self.names.remove(&Key(name.clone()));
        }
        self.len = self.len + usize::from(after.is_some()) - usize::from(before.is_some());
        Replaced { before, after }
    }
}
