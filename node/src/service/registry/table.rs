//! What is found under the keys of a registry, for readers that wait for nobody.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use foundation_cluster::Key;
use foundation_cluster::names::{Change, Entry};
use foundation_proto::etf::{Atom, Pid, Term};

/// A write copies one part of the table: with a million names, about 500 pointers.
const PARTS: usize = 2048;

/// A hash table in parts, each of which is replaced as a whole: a reader loads a pointer and takes no lock.
#[derive(Debug)]
pub(super) struct Table {
    /// Peers choose keys, so they must not know which of them meet in one place.
    hasher: RandomState,
    parts: Box<[ArcSwap<Part>]>,
}

/// Entries in the order of the hashes of their keys; those of one key in the order in which they came.
type Part = Vec<(u64, Arc<Entry>)>;

impl Default for Table {
    fn default() -> Self {
        let empty: Arc<Part> = Arc::default();
        let parts = (0..PARTS).map(|_| ArcSwap::new(Arc::clone(&empty))).collect();
        Self { hasher: RandomState::new(), parts }
    }
}

impl Table {
    fn place(&self, key: &Term) -> (u64, Option<&ArcSwap<Part>>) {
        let hash = self.hasher.hash_one(key);
        // The upper bits choose the part, all of them the place in it.
        (hash, self.parts.get((hash >> 32) as usize % PARTS))
    }

    /// The first entry of a key.
    pub(super) fn first(&self, key: &Term) -> Option<Arc<Entry>> {
        let (hash, part) = self.place(key);
        let part: Guard<Arc<Part>> = part?.load();
        found(&part, hash, key).next().cloned()
    }

    /// All entries of a key.
    pub(super) fn all(&self, key: &Term) -> Vec<Arc<Entry>> {
        let (hash, Some(part)) = self.place(key) else { return Vec::new() };
        let part: Guard<Arc<Part>> = part.load();
        found(&part, hash, key).cloned().collect()
    }

    /// Carries out changes in their order. There is one writer.
    pub(super) fn apply(&self, changes: &[Change]) {
        let mut placed: Vec<(usize, u64, &Change)> = changes
            .iter()
            .filter_map(|change| {
                let (Change::Added(entry) | Change::Updated(entry) | Change::Removed(entry)) = change else {
                    return None;
                };
                let hash = self.hasher.hash_one(&entry.key.0);
                Some(((hash >> 32) as usize % PARTS, hash, change))
            })
            .collect();
        // Stable: the changes of one key stay in order.
        placed.sort_by_key(|(part, ..)| *part);
        for group in placed.chunk_by(|a, b| a.0 == b.0) {
            let Some(part) = group.first().and_then(|(part, ..)| self.parts.get(*part)) else { continue };
            let entries = changed(&part.load(), group);
            part.store(Arc::new(entries));
        }
    }
}

fn found<'a>(part: &'a Part, hash: u64, key: &'a Term) -> impl Iterator<Item = &'a Arc<Entry>> {
    let from = part.partition_point(|(other, _)| *other < hash);
    let same = part.get(from..).unwrap_or_default().iter().take_while(move |(other, _)| *other == hash);
    same.map(|(_, entry)| entry).filter(move |entry| entry.key.0 == *key)
}

/// What no two entries have in common: hash of the key, process, node, key.
type Place<'a> = (u64, &'a Pid, &'a Atom, &'a Key);

/// A part with changes carried out, in one pass over it.
fn changed(part: &Part, changes: &[(usize, u64, &Change)]) -> Part {
    // What becomes of an entry, told apart by what no two have in common; the last change of it counts.
    let mut last: BTreeMap<Place<'_>, (usize, Option<&Arc<Entry>>)> = BTreeMap::new();
    for (at, (_, hash, change)) in changes.iter().enumerate() {
        let (entry, there) = match change {
            Change::Added(entry) | Change::Updated(entry) => (entry, Some(entry)),
            Change::Removed(entry) => (entry, None),
            _ => continue,
        };
        last.insert((*hash, &entry.pid, &entry.node, &entry.key), (at, there));
    }
    let mut entries = Part::with_capacity(part.len() + last.len());
    for (hash, entry) in part {
        match last.remove(&(*hash, &entry.pid, &entry.node, &*entry.key)) {
            None => entries.push((*hash, Arc::clone(entry))),
            Some((_, Some(entry))) => entries.push((*hash, Arc::clone(entry))),
            Some((_, None)) => {}
        }
    }
    let mut come: Vec<_> =
        last.into_iter().filter_map(|(place, (at, entry))| Some((place.0, at, entry?))).collect();
    come.sort_unstable_by_key(|(hash, at, _)| (*hash, *at));
    entries.extend(come.into_iter().map(|(hash, _, entry)| (hash, Arc::clone(entry))));
    // Stable, so that those of one key stand in the order in which they came; two runs in order are merged.
    entries.sort_by_key(|(hash, _)| *hash);
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: i64, process: u32, value: i64) -> Arc<Entry> {
        let node = Atom::new_static("a@b");
        let pid = Pid { node: node.clone(), id: process, serial: 0, creation: 1 };
        let key = Arc::new(Key(Term::Integer(key)));
        Arc::new(Entry { key, pid, value: Term::Integer(value), node, claim: 0, version: 1 })
    }

    #[test]
    fn readers_see_each_batch_of_changes() {
        let table = Table::default();
        let key = Term::Integer(1);
        assert_eq!(table.first(&key), None);
        table.apply(&(0..5000).map(|n| Change::Added(entry(n, 7, 0))).collect::<Vec<_>>());
        assert!(
            (0..5000).all(|n| table.first(&Term::Integer(n)).is_some_and(|e| e.key.0 == Term::Integer(n)))
        );
        table.apply(&[Change::Added(entry(1, 8, 0)), Change::Updated(entry(1, 7, 5))]);
        assert_eq!(
            table.all(&key).iter().map(|e| e.value.clone()).collect::<Vec<_>>(),
            [5, 0].map(Term::Integer)
        );
        table.apply(&[Change::Removed(entry(1, 7, 0)), Change::Removed(entry(1, 8, 0))]);
        assert_eq!(table.all(&key), []);
        table.apply(&[Change::Removed(entry(2, 7, 0)), Change::Added(entry(2, 9, 0))]);
        assert_eq!(table.first(&Term::Integer(2)).unwrap().pid.id, 9);
        assert_eq!(table.first(&Term::Float(2.0)), None, "keys are compared by =:=");
    }

    /// Looking at each of them for each of them would take minutes.
    #[test]
    fn one_key_has_very_many_processes() {
        let table = Table::default();
        let key = Term::Integer(1);
        let changes = |change: fn(Arc<Entry>) -> Change, value| {
            (0..50_000).map(|process| change(entry(1, process, value))).collect::<Vec<_>>()
        };
        let all = || table.all(&key).iter().map(|entry| entry.pid.id).collect::<Vec<_>>();
        table.apply(&changes(Change::Added, 0));
        assert_eq!(all(), (0..50_000).collect::<Vec<_>>(), "in the order in which they came");
        table.apply(&changes(Change::Updated, 5));
        assert!(table.all(&key).iter().all(|entry| entry.value == Term::Integer(5)));
        table.apply(&changes(Change::Removed, 5)[1..]);
        assert_eq!(all(), [0]);
        table.apply(&[
            Change::Removed(entry(1, 0, 5)),
            Change::Added(entry(1, 2, 0)),
            Change::Added(entry(1, 1, 0)),
        ]);
        assert_eq!(all(), [2, 1]);
    }
}
