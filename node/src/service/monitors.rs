//! The monitors that a machine asked for, by its numbers and by the references of the process that hosts it.

use std::collections::{BTreeMap, HashMap};

use foundation_proto::etf::{Atom, Reference};

use crate::node::Node;
use crate::process::{Dest, Process};

/// Monitors that have neither fired nor been given back.
#[derive(Debug)]
pub(super) struct Monitors<Id> {
    references: BTreeMap<Id, Reference>,
    ids: HashMap<Reference, Id>,
}

impl<Id> Default for Monitors<Id> {
    fn default() -> Self {
        Self { references: BTreeMap::new(), ids: HashMap::new() }
    }
}

impl<Id: Clone + Ord> Monitors<Id> {
    pub(super) fn insert(&mut self, id: Id, reference: Reference) {
        if let Some(before) = self.references.insert(id.clone(), reference.clone()) {
            self.ids.remove(&before);
        }
        self.ids.insert(reference, id);
    }

    /// Begins a monitor of something on a node. `false`, and nothing begun, if that node is not connected or this process has ended: a
    /// service never makes connections for this, it follows them.
    pub(super) async fn begin(
        &mut self,
        id: Id,
        on: &Atom,
        of: impl Into<Dest>,
        node: &Node,
        process: &Process,
    ) -> bool {
        let connected = on == node.name() || node.inner().net_kernel.link(on).is_some();
        let reference = if connected { process.monitor(of).await.ok() } else { None };
        let begun = reference.is_some();
        if let Some(reference) = reference {
            self.insert(id, reference);
        }
        begun
    }

    /// Takes the monitor of a `DOWN`; `None` if it is none of these, or was given back.
    pub(super) fn fired(&mut self, reference: &Reference) -> Option<Id> {
        let id = self.ids.remove(reference)?;
        self.references.remove(&id);
        Some(id)
    }

    /// Gives a monitor back; nothing of it arrives afterwards.
    pub(super) fn demonitor(&mut self, id: &Id, process: &mut Process) {
        if let Some(reference) = self.references.remove(id) {
            self.ids.remove(&reference);
            process.demonitor_flush(&reference);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(word: u32) -> Reference {
        Reference::new(Atom::new_static("a@b"), 1, &[word, 0, 0]).unwrap()
    }

    #[test]
    fn a_monitor_fires_once_and_only_the_latest_of_its_number() {
        let mut monitors = Monitors::default();
        monitors.insert(7, reference(1));
        monitors.insert(7, reference(2));
        assert_eq!(monitors.fired(&reference(1)), None);
        assert_eq!(monitors.fired(&reference(2)), Some(7));
        assert_eq!(monitors.fired(&reference(2)), None);
        assert!(monitors.references.is_empty() && monitors.ids.is_empty());
    }
}
