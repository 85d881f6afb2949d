//! Which processes live on this node, and under which names.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use foundation_proto::etf::Atom;

use super::proc::Proc;

/// How many locks a table is spread over. Numbers of processes go up by one, so neighbours never share one.
const SHARDS: usize = 64;

type Shard = RwLock<HashMap<u64, Arc<Proc>, BuildHasherDefault<NumberHasher>>>;
type NameShard = RwLock<HashMap<Atom, Arc<Proc>, AtomHash>>;

/// The processes of a node by number.
#[derive(Debug)]
pub(crate) struct ProcessTable {
    shards: Box<[Shard]>,
    count: AtomicUsize,
}

impl ProcessTable {
    pub(crate) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| RwLock::default()).collect(), count: AtomicUsize::new(0) }
    }

    fn shard(&self, number: u64) -> &Shard {
        // The index is below SHARDS, which is the length.
        &self.shards[number as usize % SHARDS]
    }

    #[inline]
    pub(crate) fn get(&self, number: u64) -> Option<Arc<Proc>> {
        self.shard(number).read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    /// Adds a process unless its number is in use.
    pub(crate) fn insert(&self, proc: Arc<Proc>) -> Result<(), Arc<Proc>> {
        let mut shard = self.shard(proc.number).write().unwrap_or_else(PoisonError::into_inner);
        if shard.contains_key(&proc.number) {
            return Err(proc);
        }
        shard.insert(proc.number, proc);
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn remove(&self, number: u64) {
        let removed = self.shard(number).write().unwrap_or_else(PoisonError::into_inner).remove(&number);
        if removed.is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// All processes, by number.
    pub(crate) fn all(&self) -> Vec<Arc<Proc>> {
        let mut all = Vec::with_capacity(self.len());
        for shard in &self.shards {
            all.extend(shard.read().unwrap_or_else(PoisonError::into_inner).values().cloned());
        }
        all.sort_unstable_by_key(|proc| proc.number);
        all
    }
}

/// Numbers are this node's own, so spreading them needs no defence against chosen keys.
#[derive(Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(self.0 ^ u64::from(byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // Fibonacci hashing: the table takes its index from the low bits and its tag from the high ones.
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

/// Hashes atoms eight bytes at a time, with a seed of its own. For tables whose keys are this program's own names, or those of
/// peers that have proved the cookie: nobody else chooses what is in them.
#[derive(Clone, Debug)]
pub(crate) struct AtomHash(u64);

impl Default for AtomHash {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0))
    }
}

impl BuildHasher for AtomHash {
    type Hasher = AtomHasher;

    #[inline]
    fn build_hasher(&self) -> AtomHasher {
        AtomHasher(self.0)
    }
}

#[derive(Debug)]
pub(crate) struct AtomHasher(u64);

impl AtomHasher {
    #[inline]
    fn mix(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

impl Hasher for AtomHasher {
    #[inline]
    fn finish(&self) -> u64 {
        // Tables take the index from the low bits and a tag from the high ones.
        self.0 ^ self.0 >> 32
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        match bytes.last_chunk::<8>() {
            Some(last) => {
                // The last word overlaps the one before it, so that no bytes are left over.
                for word in bytes.as_chunks::<8>().0 {
                    self.mix(u64::from_le_bytes(*word));
                }
                self.mix(u64::from_le_bytes(*last));
            }
            None => self.mix(bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte))),
        }
    }

    #[inline]
    fn write_usize(&mut self, length: usize) {
        self.mix(length as u64);
    }
}

/// The registered names of a node.
#[derive(Debug)]
pub(crate) struct Names {
    shards: Box<[NameShard]>,
    hasher: AtomHash,
}

impl Names {
    pub(crate) fn new() -> Self {
        Self { shards: (0..16).map(|_| RwLock::default()).collect(), hasher: AtomHash::default() }
    }

    fn shard(&self, name: &Atom) -> &NameShard {
        // The remainder is below the length.
        &self.shards[self.hasher.hash_one(name) as usize % self.shards.len()]
    }

    pub(crate) fn whereis(&self, name: &Atom) -> Option<Arc<Proc>> {
        self.shard(name).read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Gives the name to a process; `false` if it belongs to one already.
    pub(crate) fn register(&self, name: &Atom, proc: &Arc<Proc>) -> bool {
        let mut shard = self.shard(name).write().unwrap_or_else(PoisonError::into_inner);
        if shard.contains_key(name) {
            return false;
        }
        shard.insert(name.clone(), Arc::clone(proc));
        true
    }

    /// Takes the name from this process, if it is the one that has it.
    pub(crate) fn unregister(&self, name: &Atom, proc: &Proc) -> bool {
        let mut shard = self.shard(name).write().unwrap_or_else(PoisonError::into_inner);
        if shard.get(name).is_some_and(|owner| owner.number == proc.number) {
            shard.remove(name);
            return true;
        }
        false
    }

    /// All names, in Erlang's order.
    pub(crate) fn all(&self) -> Vec<Atom> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(shard.read().unwrap_or_else(PoisonError::into_inner).keys().cloned());
        }
        all.sort_unstable();
        all
    }
}
