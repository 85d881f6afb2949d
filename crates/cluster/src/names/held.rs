//! What another node has registered, as far as it is known here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foundation_proto::Mono;
use foundation_proto::etf::Pid;

use super::entry::{Entry, Id, Keys};

/// The entries of another node: of one incarnation of it, told apart by the pid of its registry's process.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) incarnation: Pid,
    keys: Keys,
    entries: BTreeMap<Id, Arc<Entry>>,
    versions: BTreeMap<u64, Id>,
    /// All writes up to this one are known.
    pub(super) version: u64,
    pub(super) scan: Option<Scan>,
    /// What a scan did not find, at which version: removed when all is known, unless it was written again.
    doomed: BTreeMap<Id, u64>,
    /// Whether they are found.
    pub(super) visible: bool,
    /// When the node was lost.
    pub(super) lost: Option<Mono>,
}

/// The node has forgotten removals that are not known here, so that all its entries are gone through.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Scan {
    /// Its version when this began.
    pub(super) upto: u64,
    /// How far it has come.
    pub(super) at: u64,
}

/// What became of the entries.
#[derive(Debug, Default)]
pub(super) struct Effect {
    pub(super) gone: Vec<Arc<Entry>>,
    pub(super) come: Vec<Arc<Entry>>,
}

impl Held {
    pub(super) fn new(incarnation: Pid, keys: Keys) -> Self {
        Self {
            incarnation,
            keys,
            entries: BTreeMap::new(),
            versions: BTreeMap::new(),
            version: 0,
            scan: None,
            doomed: BTreeMap::new(),
            visible: false,
            lost: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values()
    }

    pub(super) fn get(&self, id: &Id) -> Option<&Arc<Entry>> {
        self.entries.get(id)
    }

    /// Begins or goes on with a scan; nothing is known to be missing until it is over.
    pub(super) fn scanned(&mut self, scan: Scan, entries: Vec<Entry>, to: u64, room: usize) -> (Effect, u64) {
        if self.scan.is_none_or(|current| current.upto != scan.upto) {
            self.doomed.clear();
        }
        let there: Vec<(u64, Id)> =
            self.versions.range(scan.at + 1..=to.max(scan.at + 1)).map(|(v, id)| (*v, id.clone())).collect();
        let found: BTreeSet<u64> = entries.iter().map(|entry| entry.version).collect();
        for (version, id) in there {
            if version <= to && !found.contains(&version) {
                self.doomed.insert(id, version);
            }
        }
        let result = self.put_all(entries, room);
        if to >= scan.upto {
            self.version = scan.upto;
            self.scan = None;
        } else {
            self.scan = Some(Scan { at: to, ..scan });
        }
        result
    }

    /// Takes in the writes up to a version, which follow those that are known.
    pub(super) fn written(
        &mut self,
        entries: Vec<Entry>,
        removed: Vec<Id>,
        to: u64,
        room: usize,
    ) -> (Effect, u64) {
        let mut effect = Effect::default();
        for id in removed {
            effect.gone.extend(self.remove(&id));
        }
        let (more, refused) = self.put_all(entries, room + effect.gone.len());
        effect.gone.extend(more.gone);
        effect.come.extend(more.come);
        self.version = to;
        (effect, refused)
    }

    /// All is known: what a scan missed and nothing has written since is gone.
    pub(super) fn sweep(&mut self) -> Vec<Arc<Entry>> {
        let doomed = std::mem::take(&mut self.doomed);
        let still = doomed
            .into_iter()
            .filter(|(id, version)| self.entries.get(id).is_some_and(|entry| entry.version == *version));
        let ids: Vec<Id> = still.map(|(id, _)| id).collect();
        ids.iter().filter_map(|id| self.remove(id)).collect()
    }

    fn remove(&mut self, id: &Id) -> Option<Arc<Entry>> {
        let entry = self.entries.remove(id)?;
        self.versions.remove(&entry.version);
        Some(entry)
    }

    /// An entry that stands in a message twice, as no member sends it, counts once: what is told must be what is kept.
    fn put_all(&mut self, entries: Vec<Entry>, mut room: usize) -> (Effect, u64) {
        let mut effect = Effect::default();
        let mut refused = 0;
        let mut come: BTreeMap<Id, Arc<Entry>> = BTreeMap::new();
        for entry in entries {
            let id = entry.id(self.keys);
            match self.entries.get(&id) {
                Some(there) if there.version >= entry.version => continue,
                Some(_) => {
                    let before = self.remove(&id);
                    if !come.contains_key(&id) {
                        effect.gone.extend(before);
                    }
                }
                None if room == 0 => {
                    refused += 1;
                    continue;
                }
                None => room -= 1,
            }
            let entry = Arc::new(entry);
            self.versions.insert(entry.version, id.clone());
            self.entries.insert(id.clone(), Arc::clone(&entry));
            come.insert(id, entry);
        }
        effect.come = come.into_values().collect();
        (effect, refused)
    }
}
