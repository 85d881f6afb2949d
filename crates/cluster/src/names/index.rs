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
        self.found_of(&Key(key.clone()))
    }

    /// The same of a key that is one already.
    pub(super) fn found_of(&self, key: &Key) -> &[Arc<Entry>] {
        self.visible(self.all(key))
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

    /// Takes entries of one key out, then puts others in; both in the order of their right to it. It takes time for each entry that
    /// the key has, once for all that change.
    pub(super) fn replace(&mut self, key: &Arc<Key>, gone: &[Arc<Entry>], come: &[Arc<Entry>]) {
        let all = self.entries.entry(Arc::clone(key)).or_default();
        let before = all.len();
        match gone {
            [] => {}
            [entry] => {
                let at = all.partition_point(|other| other.precedence(entry).is_lt());
                if all.get(at).is_some_and(|other| Arc::ptr_eq(other, entry)) {
                    all.remove(at);
                }
            }
            _ => {
                let mut gone = gone.iter().peekable();
                all.retain(|other| {
                    while gone.next_if(|entry| entry.precedence(other).is_lt()).is_some() {}
                    gone.next_if(|entry| Arc::ptr_eq(entry, other)).is_none()
                });
            }
        }
        self.len -= before - all.len();
        match come {
            [] => {}
            [entry] => {
                let at = all.partition_point(|other| other.precedence(entry).is_lt());
                all.insert(at, Arc::clone(entry));
            }
            _ => {
                all.extend(come.iter().cloned());
                // Two runs, each of which is in order, are merged.
                all.sort_by(|a, b| a.precedence(b));
            }
        }
        self.len += come.len();
        if all.is_empty() {
            self.entries.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use foundation_proto::etf::{Atom, Pid};

    use super::*;
    use crate::sim::Random;

    #[test]
    fn any_changes_leave_what_is_there_in_order() {
        let mut random = Random::new(1);
        let key = Arc::new(Key(Term::Integer(1)));
        let mut index = Index::new(Keys::Duplicate);
        let mut there: Vec<Arc<Entry>> = Vec::new();
        for process in 0..1000 {
            let mut gone = Vec::new();
            for _ in 0..random.below(4).min(there.len()) {
                gone.push(there.swap_remove(random.below(there.len())));
            }
            let node = Atom::new_static(["a@h", "b@h"][random.below(2)]);
            let mut come: Vec<Arc<Entry>> = (0..random.below(5))
                .map(|n| {
                    let pid = Pid { node: node.clone(), id: process, serial: n as u32, creation: 1 };
                    let claim = random.below(20) as i64;
                    Arc::new(Entry {
                        key: Arc::clone(&key),
                        pid,
                        value: Term::Integer(0),
                        node: node.clone(),
                        claim,
                        version: 1,
                    })
                })
                .collect();
            // Another value of an entry that goes: the same right to the key.
            come.extend(gone.first().map(|entry| Arc::new(Entry::clone(entry))));
            gone.sort_by(|a, b| a.precedence(b));
            come.sort_by(|a, b| a.precedence(b));
            index.replace(&key, &gone, &come);
            there.append(&mut come);
            there.sort_by(|a, b| a.precedence(b));
            let found = index.all(&key);
            assert!(found.len() == there.len() && found.iter().zip(&there).all(|(a, b)| Arc::ptr_eq(a, b)));
            assert_eq!(index.len(), there.len());
            // What is not there is not taken out.
            index.replace(&key, &gone, &[]);
            assert_eq!(index.len(), there.len());
        }
        index.replace(&key, &there, &[]);
        assert!(index.entries.is_empty() && index.len() == 0);
    }
}
