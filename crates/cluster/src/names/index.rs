//! Which keys are found, and whose they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use foundation_proto::etf::Term;

use super::entry::{Entry, Keys};
use crate::Key;

/// The entries of this node and of all nodes that are in reach, by key. Those of one key stand in the order of their right
/// to it, so the first has it if keys are unique.
#[derive(Debug, Default)]
pub(super) struct Index {
    keys: Keys,
    entries: BTreeMap<Arc<Key>, Vec<Arc<Entry>>>,
    len: usize,
}

impl Index {
    pub(super) fn new(keys: Keys) -> Self {
        Self { keys, ..Self::default() }
    }

    /// All entries of a key, also those that will give way.
    pub(super) fn all(&self, key: &Key) -> &[Arc<Entry>] {
        self.entries.get(key).map_or(&[], Vec::as_slice)
    }

    /// The entries of a key that are found.
    pub(super) fn found(&self, key: &Term) -> &[Arc<Entry>] {
        // A key is compared as a whole term, so looking for it needs one of its own.
        self.visible(self.all(&Key(key.clone())))
    }

    fn visible<'a>(&self, all: &'a [Arc<Entry>]) -> &'a [Arc<Entry>] {
        match self.keys {
            Keys::Unique => all.get(..1).unwrap_or_default(),
            Keys::Duplicate => all,
        }
    }

    /// All entries that are found, in the order of keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values().flat_map(|all| self.visible(all))
    }

    /// The same from a key on.
    pub(super) fn after<'a>(&'a self, key: &Key) -> impl Iterator<Item = &'a Arc<Entry>> + use<'a> {
        let from = (std::ops::Bound::Excluded(key), std::ops::Bound::Unbounded);
        self.entries.range::<Key, _>(from).flat_map(|(_, all)| self.visible(all))
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, entry: &Arc<Entry>) {
        let all = self.entries.entry(Arc::clone(&entry.key)).or_default();
        let at = all.partition_point(|other| other.precedence(entry).is_lt());
        all.insert(at, Arc::clone(entry));
        self.len += 1;
    }

    pub(super) fn remove(&mut self, entry: &Arc<Entry>) {
        let Some(all) = self.entries.get_mut(&entry.key) else { return };
        let before = all.len();
        all.retain(|other| !Arc::ptr_eq(other, entry));
        self.len -= before - all.len();
        if all.is_empty() {
            self.entries.remove(&entry.key);
        }
    }
}
