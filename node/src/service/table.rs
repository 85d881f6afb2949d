//! What is found under the keys of a registry, for readers that wait for nobody.
//!
//! A lookup among more names than the processor's caches hold takes as long as the lines of memory that it waits for. So there are
//! two: the part of the table, which is one line, and the entry itself. The part has no room for keys, only for a hash of them.

mod mark;
mod part;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::RandomState;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use foundation_proto::etf::Term;

use mark::{Known, Mark};
use part::{Part, Slot};

/// Parts of an empty table; a power of two.
const FIRST: usize = 64;
/// Doublings of that: with more than two million entries, parts hold more than they have near.
const DOUBLINGS: usize = 14;
/// Entries for each part. A part has three near, so that of a hundred entries some twelve are not, as hashes fall (Poisson).
const EACH: usize = 2;

/// What stands in a table.
pub(super) trait Item: Debug {
    /// What tells entries of one key apart: one that is put in takes the place of its equal.
    type Id<'a>: Ord
    where
        Self: 'a;

    fn key(&self) -> &Term;
    fn id(&self) -> Self::Id<'_>;
}

/// A change of a table.
#[derive(Debug)]
pub(super) enum Write<T> {
    Put(Arc<T>),
    Remove(Arc<T>),
}

/// A hash table in parts. A reader takes no lock, and looks again if it may have seen half of a write. It grows by one part at a
/// time, so that no write takes long (linear hashing; Litwin, 1980). There is one writer.
#[derive(Debug)]
pub(super) struct Table<T> {
    /// Peers choose keys, so they must not know which of them meet in one place.
    hasher: RandomState,
    /// How many parts are in use.
    parts: AtomicUsize,
    /// How many entries there are.
    entries: AtomicUsize,
    /// The first [`FIRST`] parts, then as many more as there are before: none is ever moved.
    blocks: [OnceLock<Block<T>>; DOUBLINGS + 1],
}

type Block<T> = Box<[Part<T>]>;

impl<T> Default for Table<T> {
    fn default() -> Self {
        let table = Self {
            hasher: RandomState::new(),
            parts: AtomicUsize::new(FIRST),
            entries: AtomicUsize::new(0),
            blocks: [const { OnceLock::new() }; DOUBLINGS + 1],
        };
        table.block(0);
        table
    }
}

impl<T: Item> Table<T> {
    /// The first entry of a key.
    pub(super) fn first(&self, key: &Term) -> Option<Arc<T>> {
        self.with_first(key, Arc::clone)
    }

    /// What a function says of the first entry of a key. It may be asked more than once.
    pub(super) fn with_first<R>(&self, key: &Term, say: impl Fn(&Arc<T>) -> R) -> Option<R> {
        self.read(key, |entries| entries.next().map(&say))
    }

    /// All entries of a key.
    pub(super) fn all(&self, key: &Term) -> Vec<Arc<T>> {
        let all = |entries: &mut dyn Iterator<Item = &Arc<T>>| {
            let all: Vec<_> = entries.cloned().collect();
            (!all.is_empty()).then_some(all)
        };
        self.read(key, all).unwrap_or_default()
    }

    fn read<R>(
        &self,
        key: &Term,
        look: impl Fn(&mut dyn Iterator<Item = &Arc<T>>) -> Option<R>,
    ) -> Option<R> {
        let known = Known::of(key, &self.hasher);
        loop {
            let parts = self.parts.load(Ordering::Acquire);
            let seen = self.part(place(known.hash, parts))?.read(&known, key, &look);
            // What was in that part may have moved to one that has just been added.
            match seen {
                Some(Some(found)) => return Some(found),
                Some(None) if self.parts.load(Ordering::Acquire) == parts => return None,
                _ => {}
            }
        }
    }

    /// Carries out changes in their order.
    pub(super) fn apply(&self, changes: Vec<Write<T>>) {
        let parts = self.parts.load(Ordering::Relaxed);
        let mut placed: Vec<(usize, Known, Write<T>)> = changes
            .into_iter()
            .map(|change| {
                let (Write::Put(item) | Write::Remove(item)) = &change;
                let known = Known::of(item.key(), &self.hasher);
                (place(known.hash, parts), known, change)
            })
            .collect();
        // Stable: the changes of one key stay in order.
        placed.sort_by_key(|(part, ..)| *part);
        let mut entries = self.entries.load(Ordering::Relaxed);
        for group in placed.chunk_by(|a, b| a.0 == b.0) {
            let Some(part) = group.first().and_then(|(part, ..)| self.part(*part)) else { continue };
            let touched: Vec<u64> = group.iter().map(|(_, known, _)| known.tag).collect();
            let before = part.slots(&touched, &self.hasher);
            let was = before.len();
            let after = changed(before, group);
            entries = (entries + after.len()).saturating_sub(was);
            part.write(&touched, after);
        }
        self.entries.store(entries, Ordering::Relaxed);
        self.grow(entries);
    }

    /// Adds parts until there are enough for the entries.
    fn grow(&self, entries: usize) {
        let mut parts = self.parts.load(Ordering::Relaxed);
        while parts < (entries / EACH).min(FIRST << DOUBLINGS) {
            if parts.is_power_of_two() {
                self.block((parts / FIRST).ilog2() as usize + 1);
            }
            let lower = parts - (1 << parts.ilog2());
            let (Some(old), Some(new)) = (self.part(lower), self.part(parts)) else { return };
            parts += 1;
            let stays = |slot: &Slot<T>| place(Known::of(slot.item.key(), &self.hasher).hash, parts) == lower;
            let touched = old.tags();
            let (stay, go): (Vec<_>, Vec<_>) = old.slots(&touched, &self.hasher).into_iter().partition(stays);
            let moved = !go.is_empty();
            new.write(&[], go);
            // A reader that still looks into the lower part after this has lost what went finds that there is one more.
            self.parts.store(parts, Ordering::Release);
            if moved {
                old.write(&touched, stay);
            }
        }
    }
}

impl<T> Table<T> {
    fn part(&self, number: usize) -> Option<&Part<T>> {
        // The part n is in block 0 up to `FIRST`, then in the block that its highest bit names.
        let block = (usize::BITS - (number / FIRST).leading_zeros()) as usize;
        let from = if block == 0 { 0 } else { FIRST << (block - 1) };
        self.blocks.get(block)?.get()?.get(number - from)
    }

    fn block(&self, number: usize) -> Option<&Block<T>> {
        let parts = if number == 0 { FIRST } else { FIRST << (number - 1) };
        Some(self.blocks.get(number)?.get_or_init(|| (0..parts).map(|_| Part::default()).collect()))
    }
}

/// The part of a hash: its lower bits, one more for the parts that are split already.
fn place(hash: u64, parts: usize) -> usize {
    let bits = parts.ilog2();
    let hash = hash as usize;
    let place = hash & ((2 << bits) - 1);
    if place < parts { place } else { place & ((1 << bits) - 1) }
}

/// The entries of a part with changes carried out, in one pass over it.
fn changed<T: Item>(slots: Vec<Slot<T>>, changes: &[(usize, Known, Write<T>)]) -> Vec<Slot<T>> {
    // Which change of an entry, told apart by what no two have in common, was the last: it counts.
    let mut last: BTreeMap<(&Mark, T::Id<'_>), usize> = BTreeMap::new();
    for (at, (_, known, Write::Put(item) | Write::Remove(item))) in changes.iter().enumerate() {
        last.insert((&known.mark, item.id()), at);
    }
    let put = |at: usize| match changes.get(at) {
        Some((_, known, Write::Put(item))) => Some(Slot::new(known, Arc::clone(item))),
        _ => None,
    };
    let found: Vec<_> = slots.iter().map(|slot| last.remove(&(&slot.mark, slot.item.id()))).collect();
    let mut come: Vec<_> = last.into_values().filter_map(|at| Some((at, put(at)?))).collect();
    come.sort_unstable_by_key(|(at, slot)| (slot.mark, *at));
    let stay = slots.into_iter().zip(&found).filter_map(|(slot, change)| match change {
        None => Some(slot),
        Some(at) => put(*at),
    });
    let mut after = Vec::with_capacity(found.len() + come.len());
    after.extend(stay);
    after.extend(come.into_iter().map(|(_, slot)| slot));
    // Stable, so that those of one key stand in the order in which they came; two runs in order are merged.
    after.sort_by_key(|slot| slot.mark);
    after
}

#[cfg(test)]
mod tests;
