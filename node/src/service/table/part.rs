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
        let mut slots: Vec<_> = near
            .filter_map(|(tag, item)| Some((tag, item.load_full()?)))
            .map(|(tag, item)| Slot { mark: Known::of(item.key(), hasher).mark, tag, item })
            .collect();
        slots.extend(self.far.load().iter().flat_map(|far| far.iter().cloned()));
        slots.sort_by_key(|slot| slot.mark);
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
        let (near, far) = self.placed(touched, &slots);
        let comes_near = |place: &Place<T>| matches!(place, Place::Takes(slot) if was_far(slot.tag));
        let moves = near.iter().any(comes_near) || far.iter().any(|slot| self.tags().contains(&slot.tag));
        if moves {
            self.far.store(Some(Arc::new(slots.into())));
        }
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

    /// Where entries will stand: near, each where it stands already if it does, and far.
    fn placed(&self, touched: &[u64], slots: &[Slot<T>]) -> ([Place<T>; NEAR], Vec<Slot<T>>) {
        let mut tags: Vec<u64> = slots.iter().map(|slot| slot.tag).collect();
        tags.sort_unstable();
        let alone = |tag: u64| {
            let from = tags.partition_point(|other| *other < tag);
            tags.get(from + 1).is_none_or(|next| *next != tag)
        };
        let mut near = self.tags().map(|tag| match slots.iter().find(|slot| slot.tag == tag && alone(tag)) {
            Some(slot) => Place::Takes(slot.clone()),
            None if tag == 0 || touched.contains(&tag) => Place::Empty,
            None => Place::Stays,
        });
        let mut far = Vec::new();
        for slot in slots {
            if near.iter().any(|place| matches!(place, Place::Takes(there) if there.tag == slot.tag)) {
                continue;
            }
            match near.iter_mut().find(|place| matches!(place, Place::Empty)) {
                Some(place) if alone(slot.tag) => *place = Place::Takes(slot.clone()),
                _ => far.push(slot.clone()),
            }
        }
        (near, far)
    }
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
