//! What is found under the keys of a registry, for readers that wait for nobody.
//!
//! A lookup among more names than the processor's caches hold takes as long as the lines of memory that it waits for. So a part of
//! the table stands in one piece with its first slots, a slot has the text of a short key in itself, and there are as many parts
//! as entries: the part's pointer, the part, and the entry itself are all that is read.

mod mark;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::RandomState;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use foundation_proto::etf::Term;

use mark::Mark;

/// Parts of an empty table; a power of two.
const FIRST: usize = 64;
/// Doublings of that: with more than a million entries, parts hold several.
const DOUBLINGS: usize = 14;

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

/// A hash table in parts, each of which is replaced as a whole: a reader loads a pointer and takes no lock. It grows by one part
/// at a time, so that no write takes long (linear hashing; Litwin, 1980). There is one writer.
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
    nothing: Arc<Part<T>>,
}

type Block<T> = Box<[ArcSwap<Part<T>>]>;

/// Entries in the order of their marks; those of one key in the order in which they came.
#[derive(Debug)]
struct Part<T> {
    /// In the same piece of memory as the part; nearly always all.
    first: [Option<Slot<T>>; 2],
    rest: Box<[Slot<T>]>,
}

#[derive(Debug)]
struct Slot<T> {
    mark: Mark,
    item: Arc<T>,
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self { mark: self.mark, item: Arc::clone(&self.item) }
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        let table = Self {
            hasher: RandomState::new(),
            parts: AtomicUsize::new(FIRST),
            entries: AtomicUsize::new(0),
            blocks: [const { OnceLock::new() }; DOUBLINGS + 1],
            nothing: Arc::new(Part { first: [None, None], rest: Box::default() }),
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

    /// What a function says of the first entry of a key.
    pub(super) fn with_first<R>(&self, key: &Term, say: impl Fn(&Arc<T>) -> R) -> Option<R> {
        self.read(key, |part, mark| part.found(mark, key).next().map(&say))
    }

    /// All entries of a key.
    pub(super) fn all(&self, key: &Term) -> Vec<Arc<T>> {
        let all = |part: &Part<T>, mark: &Mark| -> Option<Vec<Arc<T>>> {
            let all: Vec<_> = part.found(mark, key).cloned().collect();
            (!all.is_empty()).then_some(all)
        };
        self.read(key, all).unwrap_or_default()
    }

    fn read<R>(&self, key: &Term, look: impl Fn(&Part<T>, &Mark) -> Option<R>) -> Option<R> {
        let (mark, hash) = Mark::of(key, &self.hasher);
        loop {
            let parts = self.parts.load(Ordering::Acquire);
            let found = look(&self.part(place(hash, parts))?.load(), &mark);
            // What was in that part may have moved to one that has just been added.
            if found.is_some() || self.parts.load(Ordering::Acquire) == parts {
                return found;
            }
        }
    }

    /// Carries out changes in their order.
    pub(super) fn apply(&self, changes: Vec<Write<T>>) {
        let parts = self.parts.load(Ordering::Relaxed);
        let mut placed: Vec<(usize, Mark, Write<T>)> = changes
            .into_iter()
            .map(|change| {
                let (Write::Put(item) | Write::Remove(item)) = &change;
                let (mark, hash) = Mark::of(item.key(), &self.hasher);
                (place(hash, parts), mark, change)
            })
            .collect();
        // Stable: the changes of one key stay in order.
        placed.sort_by_key(|(part, ..)| *part);
        let mut entries = self.entries.load(Ordering::Relaxed);
        for group in placed.chunk_by(|a, b| a.0 == b.0) {
            let Some(part) = group.first().and_then(|(part, ..)| self.part(*part)) else { continue };
            let before = part.load();
            let after = changed(&before, group);
            entries = (entries + after.len()).saturating_sub(before.len());
            part.store(self.shared(after));
        }
        self.entries.store(entries, Ordering::Relaxed);
        self.grow(entries);
    }
}

impl<T: Item> Table<T> {
    /// Adds parts until there are as many as entries.
    fn grow(&self, entries: usize) {
        let mut parts = self.parts.load(Ordering::Relaxed);
        while parts < entries.min(FIRST << DOUBLINGS) {
            if parts.is_power_of_two() {
                self.block((parts / FIRST).ilog2() as usize + 1);
            }
            let lower = parts - (1 << parts.ilog2());
            let (Some(old), Some(new)) = (self.part(lower), self.part(parts)) else { return };
            parts += 1;
            let (stay, go): (Vec<_>, Vec<_>) = old
                .load()
                .iter()
                .cloned()
                .partition(|slot| place(Mark::of(slot.item.key(), &self.hasher).1, parts) == lower);
            if !go.is_empty() {
                new.store(self.shared(go));
            }
            // A reader that still looks into the lower part after this has lost what went finds that there is one more.
            self.parts.store(parts, Ordering::Release);
            old.store(self.shared(stay));
        }
    }
}

impl<T> Table<T> {
    fn part(&self, number: usize) -> Option<&ArcSwap<Part<T>>> {
        // The part n is in block 0 up to `FIRST`, then in the block that its highest bit names.
        let block = (usize::BITS - (number / FIRST).leading_zeros()) as usize;
        let from = if block == 0 { 0 } else { FIRST << (block - 1) };
        self.blocks.get(block)?.get()?.get(number - from)
    }

    fn block(&self, number: usize) -> Option<&Block<T>> {
        let parts = if number == 0 { FIRST } else { FIRST << (number - 1) };
        let empty = || (0..parts).map(|_| ArcSwap::new(Arc::clone(&self.nothing))).collect();
        Some(self.blocks.get(number)?.get_or_init(empty))
    }

    fn shared(&self, slots: Vec<Slot<T>>) -> Arc<Part<T>> {
        if slots.is_empty() { Arc::clone(&self.nothing) } else { Arc::new(Part::new(slots)) }
    }
}

/// The part of a hash: its lower bits, one more for the parts that are split already.
fn place(hash: u64, parts: usize) -> usize {
    let bits = parts.ilog2();
    let hash = hash as usize;
    let place = hash & ((2 << bits) - 1);
    if place < parts { place } else { place & ((1 << bits) - 1) }
}

impl<T> Part<T> {
    fn new(mut slots: Vec<Slot<T>>) -> Self {
        let rest = if slots.len() > 2 { slots.split_off(2) } else { Vec::new() };
        let mut slots = slots.into_iter();
        Self { first: [slots.next(), slots.next()], rest: rest.into() }
    }

    fn iter(&self) -> impl Iterator<Item = &Slot<T>> {
        self.first.iter().flatten().chain(&self.rest)
    }

    fn len(&self) -> usize {
        self.first.iter().flatten().count() + self.rest.len()
    }
}

impl<T: Item> Part<T> {
    fn found<'a>(&'a self, mark: &'a Mark, key: &'a Term) -> impl Iterator<Item = &'a Arc<T>> {
        // One key may have very many entries.
        let from = if self.rest.is_empty() { 0 } else { self.rest.partition_point(|slot| slot.mark < *mark) };
        let rest = self.rest.get(from..).unwrap_or_default().iter().take_while(|slot| slot.mark == *mark);
        let first = self.first.iter().flatten().filter(|slot| slot.mark == *mark);
        let same = move |slot: &&Slot<T>| mark.is_whole() || slot.item.key() == key;
        first.chain(rest).filter(same).map(|slot| &slot.item)
    }
}

/// Which change of an entry was the last, and what is there after it.
type Last<'a, T> = (usize, Option<&'a Arc<T>>);

/// The entries of a part with changes carried out, in one pass over it.
fn changed<T: Item>(part: &Part<T>, changes: &[(usize, Mark, Write<T>)]) -> Vec<Slot<T>> {
    // What becomes of an entry, told apart by what no two have in common; the last change of it counts.
    let mut last: BTreeMap<(&Mark, T::Id<'_>), Last<'_, T>> = BTreeMap::new();
    for (at, (_, mark, change)) in changes.iter().enumerate() {
        let (item, there) = match change {
            Write::Put(item) => (item, Some(item)),
            Write::Remove(item) => (item, None),
        };
        last.insert((mark, item.id()), (at, there));
    }
    let mut slots = Vec::with_capacity(part.len() + last.len());
    for slot in part.iter() {
        match last.remove(&(&slot.mark, slot.item.id())) {
            None => slots.push(slot.clone()),
            Some((_, Some(item))) => slots.push(Slot { mark: slot.mark, item: Arc::clone(item) }),
            Some((_, None)) => {}
        }
    }
    let mut come: Vec<_> =
        last.into_iter().filter_map(|((mark, _), (at, item))| Some((*mark, at, item?))).collect();
    come.sort_unstable_by_key(|(mark, at, _)| (*mark, *at));
    slots.extend(come.into_iter().map(|(mark, _, item)| Slot { mark, item: Arc::clone(item) }));
    // Stable, so that those of one key stand in the order in which they came; two runs in order are merged.
    slots.sort_by_key(|slot| slot.mark);
    slots
}

#[cfg(test)]
mod tests;
