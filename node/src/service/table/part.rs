use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use foundation_proto::etf::Term;

use super::Item;
use super::mark::{Known, Mark};

/// Entries that stand in a part itself.
const NEAR: usize = 3;

/// Entries of one place, in one line of memory.
///
/// An entry is *near* if no other of the part has its tag: its key then has this one only. A reader that finds a tag near compares
/// no keys, so for a key that is not there it may find another one with a probability of three in 2⁶⁴ (the tag is SipHash with
/// keys of this table, which nobody else knows). For a key that is there it never does: two keys of one tag are not near.
///
/// One writer changes it; readers may see anything that it does between two changes of the version:
///
/// - A place near gets its tag after its entry and loses it before, and the version is counted up before the place is used again.
///   So who has seen a tag, then an entry, and the same version before and after, has seen the entry of that tag.
/// - What moves between near and far is in both for a while, and the version is counted up before it is in one only. So who
///   has not found a key, and has seen the same version before and after, was right at some moment in between.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Part<T> {
    version: AtomicU64,
    /// 0 where nothing is.
    tags: [AtomicU64; NEAR],
    near: [ArcSwapOption<T>; NEAR],
    far: ArcSwapOption<Far<T>>,
}

/// Entries that are not near, in the order of their marks; those of one key in the order in which they came.
type Far<T> = Box<[Slot<T>]>;

#[derive(Debug)]
pub(super) struct Slot<T> {
    pub(super) mark: Mark,
    tag: u64,
    pub(super) item: Arc<T>,
}

impl<T> Slot<T> {
    pub(super) fn new(known: &Known, item: Arc<T>) -> Self {
        Self { mark: known.mark, tag: known.tag, item }
    }
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self { mark: self.mark, tag: self.tag, item: Arc::clone(&self.item) }
    }
}

impl<T> Default for Part<T> {
    fn default() -> Self {
        Self {
            version: AtomicU64::new(0),
            tags: [const { AtomicU64::new(0) }; NEAR],
            near: [const { ArcSwapOption::const_empty() }; NEAR],
            far: ArcSwapOption::const_empty(),
        }
    }
}

impl<T: Item> Part<T> {
    /// What a function says of the entries of a key, if there are any; `None` if a write came between, and it has to be asked again.
    pub(super) fn read<R>(
        &self,
        known: &Known,
        key: &Term,
        look: impl Fn(&mut dyn Iterator<Item = &Arc<T>>) -> Option<R>,
    ) -> Option<Option<R>> {
        let version = self.version.load(Ordering::Acquire);
        let mut near = self.tags.iter().zip(&self.near);
        let found = match near.find(|(tag, _)| tag.load(Ordering::Acquire) == known.tag) {
            Some((_, item)) => look(&mut item.load().iter()),
            None => self.far.load().as_deref().and_then(|far| look(&mut of_key(far, &known.mark, key))),
        };
        (self.version.load(Ordering::Acquire) == version).then_some(found)
    }

    /// In the order of their marks, the entries that a write may concern: those near whose tags these are, and all that are far.
    pub(super) fn slots(&self, touched: &[u64], hasher: &RandomState) -> Vec<Slot<T>> {
        let near = self.tags().into_iter().zip(&self.near).filter(|(tag, _)| touched.contains(tag));
        let far = self.far.load();
        let far = far.as_deref().map_or(&[][..], |far| far);
        let mut slots = Vec::with_capacity(far.len() + NEAR);
        slots.extend_from_slice(far);
        for (tag, item) in near {
            let Some(item) = item.load_full() else { continue };
            let mark = Known::of(item.key(), hasher).mark;
            slots.insert(slots.partition_point(|slot| slot.mark <= mark), Slot { mark, tag, item });
        }
        slots
    }
}

/// What becomes of a place near.
enum Place<T> {
    Stays,
    Empty,
    Takes(Slot<T>),
}

impl<T> Part<T> {
    /// The tags of all that is near.
    pub(super) fn tags(&self) -> [u64; NEAR] {
        self.tags.each_ref().map(|tag| tag.load(Ordering::Relaxed))
    }

    /// Replaces the entries that [`Part::slots`] has given for the same tags by these, in the order of their marks.
    pub(super) fn write(&self, touched: &[u64], slots: Vec<Slot<T>>) {
        let before = self.far.load();
        let was_far = |tag: u64| before.iter().any(|far| far.iter().any(|other| other.tag == tag));
        let was_near = self.tags();
        let near = placed(was_near, touched, &slots);
        let is_near = |tag: u64| near.iter().any(|place| place.takes(tag));
        let leaves = |slot: &Slot<T>| was_near.contains(&slot.tag) && !is_near(slot.tag);
        let comes = |place: &Place<T>| matches!(place, Place::Takes(slot) if was_far(slot.tag));
        let moves = near.iter().any(comes) || slots.iter().any(leaves);
        if moves {
            self.far.store(Some(Arc::new(slots.clone().into())));
        }
        let mut far = slots;
        far.retain(|slot| !is_near(slot.tag));
        for ((tag, item), after) in self.tags.iter().zip(&self.near).zip(near) {
            let (is, after) = match after {
                Place::Stays => continue,
                Place::Empty => (0, None),
                Place::Takes(slot) => (slot.tag, Some(slot.item)),
            };
            let was = tag.load(Ordering::Relaxed);
            let there = item.load();
            if was == is && there.as_ref().map(Arc::as_ptr) == after.as_ref().map(Arc::as_ptr) {
                continue;
            }
            if was != 0 && was != is {
                tag.store(0, Ordering::Release);
                self.version.fetch_add(1, Ordering::Release);
            }
            item.store(after);
            tag.store(is, Ordering::Release);
        }
        if moves || !same(before.as_deref().map_or(&[], |far| far), &far) {
            self.version.fetch_add(1, Ordering::Release);
            self.far.store((!far.is_empty()).then(|| Arc::new(far.into())));
        }
    }
}

impl<T> Place<T> {
    fn takes(&self, tag: u64) -> bool {
        matches!(self, Self::Takes(slot) if slot.tag == tag)
    }
}

/// What becomes of the places near, where these tags are: an entry that is alone stays where it stands, or comes near if there is room.
fn placed<T>(tags: [u64; NEAR], touched: &[u64], slots: &[Slot<T>]) -> [Place<T>; NEAR] {
    // Of a key with very many entries none has to be compared with all.
    let single: Vec<_> =
        slots.chunk_by(|a, b| a.mark == b.mark).filter(|same| same.len() == 1).flatten().collect();
    let alone = |slot: &&Slot<T>| slots.iter().filter(|other| other.tag == slot.tag).count() == 1;
    let mut near = tags.map(|tag| match single.iter().copied().find(|slot| slot.tag == tag).filter(alone) {
        Some(slot) => Place::Takes(slot.clone()),
        None if tag == 0 || touched.contains(&tag) => Place::Empty,
        None => Place::Stays,
    });
    for slot in single {
        let Some(place) = near.iter().position(|place| matches!(place, Place::Empty)) else { break };
        if !near.iter().any(|place| place.takes(slot.tag))
            && alone(&slot)
            && let Some(place) = near.get_mut(place)
        {
            *place = Place::Takes(slot.clone());
        }
    }
    near
}

/// Of entries in the order of their marks, those of a key.
fn of_key<'a, T: Item>(
    far: &'a [Slot<T>],
    mark: &'a Mark,
    key: &'a Term,
) -> impl Iterator<Item = &'a Arc<T>> {
    // One key may have very many entries.
    let from = far.partition_point(|slot| slot.mark < *mark);
    let marked = far.get(from..).unwrap_or_default().iter().take_while(|slot| slot.mark == *mark);
    marked.filter(move |slot| mark.is_whole() || slot.item.key() == key).map(|slot| &slot.item)
}

/// Whether these are the same entries, not only equal ones.
fn same<T>(a: &[Slot<T>], b: &[Slot<T>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(&a.item, &b.item))
}

#[cfg(test)]
mod tests;
