//! What this node has registered, in the order in which it did.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foundation_proto::etf::{Pid, encoded_len};

use super::entry::{Entry, Id, Keys};

/// A part of the writes, for a member that lacks them.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    pub(super) entries: Vec<Arc<Entry>>,
    pub(super) removed: Vec<Id>,
    /// All up to this version is in it.
    pub(super) to: u64,
}

/// One write.
#[derive(Clone, Debug)]
enum Write {
    Put(Id),
    Removed(Id),
}

/// The entries of this node. Each write has the next version, so that one number says how much of it somebody has.
#[derive(Debug)]
pub(super) struct Own {
    keys: Keys,
    entries: BTreeMap<Id, Arc<Entry>>,
    /// The latest write of each entry, and the removals that are still remembered.
    log: BTreeMap<u64, Write>,
    removed: BTreeMap<Id, u64>,
    pids: BTreeMap<Pid, BTreeSet<Id>>,
    version: u64,
    /// Removals up to this version are forgotten.
    floor: u64,
    /// How many removals are remembered.
    max_removed: usize,
}

impl Own {
    pub(super) fn new(keys: Keys, max_removed: usize) -> Self {
        Self {
            keys,
            entries: BTreeMap::new(),
            log: BTreeMap::new(),
            removed: BTreeMap::new(),
            pids: BTreeMap::new(),
            version: 0,
            floor: 0,
            max_removed,
        }
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, id: &Id) -> Option<&Arc<Entry>> {
        self.entries.get(id)
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values()
    }

    /// How many writes are kept.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.log.len()
    }

    pub(super) fn has_pid(&self, pid: &Pid) -> bool {
        self.pids.contains_key(pid)
    }

    pub(super) fn of_pid(&self, pid: &Pid) -> Vec<Id> {
        self.pids.get(pid).into_iter().flatten().cloned().collect()
    }

    /// Writes an entry; its version is set here.
    pub(super) fn put(&mut self, mut entry: Entry) -> Arc<Entry> {
        self.version += 1;
        entry.version = self.version;
        let id = entry.id(self.keys);
        if let Some(removal) = self.removed.remove(&id) {
            self.log.remove(&removal);
        }
        if let Some(before) = self.entries.get(&id).cloned() {
            self.log.remove(&before.version);
            self.forget_pid(&before.pid, &id);
        }
        let entry = Arc::new(entry);
        self.pids.entry(entry.pid.clone()).or_default().insert(id.clone());
        self.log.insert(self.version, Write::Put(id.clone()));
        self.entries.insert(id, Arc::clone(&entry));
        entry
    }

    pub(super) fn remove(&mut self, id: &Id) -> Option<Arc<Entry>> {
        let entry = self.entries.remove(id)?;
        self.log.remove(&entry.version);
        self.forget_pid(&entry.pid, id);
        self.version += 1;
        self.log.insert(self.version, Write::Removed(id.clone()));
        self.removed.insert(id.clone(), self.version);
        if self.removed.len() > self.max_removed {
            self.forget_removal();
        }
        Some(entry)
    }

    fn forget_pid(&mut self, pid: &Pid, id: &Id) {
        if let Some(ids) = self.pids.get_mut(pid) {
            ids.remove(id);
            if ids.is_empty() {
                self.pids.remove(pid);
            }
        }
    }

    /// Forgets the oldest removal.
    fn forget_removal(&mut self) {
        let oldest = self.log.range(self.floor..).find_map(|(version, write)| match write {
            Write::Removed(id) => Some((*version, id.clone())),
            Write::Put(_) => None,
        });
        if let Some((version, id)) = oldest {
            self.log.remove(&version);
            self.removed.remove(&id);
            self.floor = version;
        }
    }

    /// The writes after a version; `None` if removals since then are forgotten.
    pub(super) fn since(&self, version: u64, limits: PartLimits) -> Option<Part> {
        (version >= self.floor).then(|| self.part(version, self.version, limits, true))
    }

    /// The entries that were last written after a version, and no later than `upto`.
    pub(super) fn scan(&self, version: u64, upto: u64, limits: PartLimits) -> Part {
        self.part(version, upto, limits, false)
    }

    fn part(&self, version: u64, upto: u64, limits: PartLimits, removals: bool) -> Part {
        let mut part = Part { to: upto.max(version), ..Part::default() };
        let mut bytes = 0;
        if upto <= version {
            return part;
        }
        for (at, write) in self.log.range(version + 1..=upto) {
            let Some(size) = self.size_of(write) else { continue };
            if part.entries.len() + part.removed.len() >= limits.entries
                || (bytes > 0 && bytes + size > limits.bytes)
            {
                part.to = at - 1;
                break;
            }
            bytes += size;
            match write {
                Write::Put(id) => part.entries.extend(self.entries.get(id).cloned()),
                Write::Removed(id) if removals => part.removed.push(id.clone()),
                Write::Removed(_) => {}
            }
        }
        part
    }

    /// Roughly what a write takes on the wire.
    fn size_of(&self, write: &Write) -> Option<usize> {
        let (id, value) = match write {
            Write::Put(id) => (id, Some(&self.entries.get(id)?.value)),
            Write::Removed(id) => (id, None),
        };
        let len = |term| encoded_len(term).unwrap_or_default();
        Some(100 + len(&id.key.0) + value.map_or(0, len))
    }
}

/// How much goes into one message.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartLimits {
    pub(super) entries: usize,
    /// One write goes in whatever its size.
    pub(super) bytes: usize,
}
