use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use foundation_proto::etf::Term;

use super::merkle::hash_of;
use super::{Context, Dot, Few};
use crate::Key;

/// An add-wins map with last-writer-wins values (`DeltaCrdt.AWLWWMap`; after "Delta State Replicated Data Types", Almeida,
/// Shoker and Baquero, 2016).
///
/// Every write carries a [`Dot`] and a timestamp. A key holds one element for each write that no other write has seen; the
/// one with the latest timestamp is the value. A remove takes away exactly the writes it has seen, so a concurrent write
/// survives it.
///
/// Timestamps are nanoseconds of the scale the members share. DeltaCrdt compares `System.monotonic_time/1` of different
/// machines, which starts near -2⁵⁹ when a BEAM starts; a member that wants to be heard uses that scale.
#[derive(Clone, Debug, Default)]
pub struct AwLwwMap {
    entries: BTreeSet<ByKey>,
    context: Context,
}

/// A key with its elements, as it is at some time: a write makes a new one. The map, its hash trees and answers that are on their way
/// share it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    key: Key,
    /// Which of 2³² places of a hash tree the key has.
    key_hash: u32,
    elements: Few<Element>,
}

/// Entries in the order of their keys.
#[derive(Clone, Debug)]
struct ByKey(Arc<Entry>);

/// One write of a key that is still there.
#[derive(Clone, Debug, PartialEq)]
pub struct Element {
    /// The value written.
    pub value: Term,
    /// When, on the scale the members share.
    pub timestamp: i64,
    /// The writes that put this value there at this time, in order; almost always one.
    pub dots: Few<Dot>,
}

/// The state of some keys, for another member to join.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    /// What the sender had seen of these keys.
    pub context: Context,
    /// Whether the context speaks of these keys alone, as that of a single write does. All of it can then be noted as seen,
    /// so that a write which arrives after its own removal stays away.
    pub exact: bool,
    /// The keys this speaks of. One that has no elements was removed, as far as the sender has seen.
    pub entries: BTreeMap<Key, Vec<Element>>,
}

/// What a write or a join changed, as users of the map see it.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The key has this value now.
    Put(Key, Term),
    /// The key is gone.
    Removed(Key),
}

/// A change, by what there is of the key now, or was.
#[derive(Clone, Debug)]
pub(super) enum Told {
    Put(Arc<Entry>),
    Removed(Arc<Entry>),
}

impl Told {
    /// What users see of the step from one entry of a key to the next.
    pub(super) fn of(before: Option<Arc<Entry>>, after: Option<&Arc<Entry>>) -> Option<Self> {
        match (before, after) {
            (None, None) => None,
            (Some(before), None) => Some(Self::Removed(before)),
            (before, Some(after)) => {
                let same = before.is_some_and(|before| before.value() == after.value());
                (!same).then(|| Self::Put(Arc::clone(after)))
            }
        }
    }

    pub(super) fn change(&self) -> Option<Change> {
        Some(match self {
            Self::Put(entry) => Change::Put(entry.key.clone(), entry.value()?.clone()),
            Self::Removed(entry) => Change::Removed(entry.key.clone()),
        })
    }
}

impl Entry {
    /// A key with these elements.
    pub fn new(key: Key, elements: impl Into<Few<Element>>) -> Self {
        Self { key_hash: hash_of(&key.0), key, elements: elements.into() }
    }

    /// The key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// `phash2(Key, 2³²)`.
    pub fn key_hash(&self) -> u32 {
        self.key_hash
    }

    /// The writes that are there, in the order of their timestamps; none if the key was removed.
    pub fn elements(&self) -> &[Element] {
        &self.elements
    }

    /// The value of the key, if it has one.
    pub fn value(&self) -> Option<&Term> {
        winner(&self.elements).map(|element| &element.value)
    }
}

impl Borrow<Key> for ByKey {
    fn borrow(&self) -> &Key {
        &self.0.key
    }
}

impl Ord for ByKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key.cmp(&other.0.key)
    }
}

impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}

impl AwLwwMap {
    /// The value of a key.
    pub fn get(&self, key: &Key) -> Option<&Term> {
        self.entry(key).and_then(|entry| entry.value())
    }

    /// The elements of a key; none if it is not there.
    pub fn elements(&self, key: &Key) -> &[Element] {
        self.entry(key).map_or(&[], |entry| entry.elements())
    }

    /// What there is of a key.
    pub fn entry(&self, key: &Key) -> Option<&Arc<Entry>> {
        self.entries.get(key).map(|ByKey(entry)| entry)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keys and values, in the order of terms.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Term)> {
        self.entries().filter_map(|entry| Some((&entry.key, entry.value()?)))
    }

    /// All that is there, in the order of the keys.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.iter().map(|ByKey(entry)| entry)
    }

    /// What comes after a key in the order of the keys, or all.
    pub fn entries_after(&self, key: Option<&Key>) -> impl Iterator<Item = &Arc<Entry>> {
        let from = key.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries.range::<Key, _>((from, Bound::Unbounded)).map(|ByKey(entry)| entry)
    }

    /// The writes this member has seen.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Adopts the context of a member that holds exactly the same elements: nothing can be missing then.
    pub fn adopt_context(&mut self, context: &Context) {
        self.context.merge(context);
    }

    /// Writes a value and returns what to tell the other members.
    pub fn put(&mut self, key: Key, value: Term, replica: i64, timestamp: i64) -> Delta {
        let (entry, context) = self.write(key, value, replica, timestamp);
        let told = (entry.key.clone(), entry.elements.to_vec());
        Delta { context, exact: true, entries: [told].into() }
    }

    /// Removes a key and returns what to tell the other members; `None` if it was not there.
    pub fn remove(&mut self, key: &Key) -> Option<Delta> {
        let (entry, context) = self.take_away(key)?;
        Some(Delta { context, exact: true, entries: [(entry.key.clone(), Vec::new())].into() })
    }

    /// Joins what another member tells, and returns what changed.
    ///
    /// Unless the delta is [exact](Delta::exact), only the dots that its elements carry are noted as seen: its context may
    /// cover keys that it does not speak of.
    pub fn join(&mut self, delta: Delta) -> Vec<Change> {
        let mut changes = Vec::new();
        self.join_each(delta, |before, after| changes.extend(Told::of(before, after)));
        changes.iter().filter_map(Told::change).collect()
    }

    /// Writes a value: what there is of the key now, and the writes that this replaces, with its own.
    pub(super) fn write(
        &mut self,
        key: Key,
        value: Term,
        replica: i64,
        timestamp: i64,
    ) -> (Arc<Entry>, Context) {
        let mut context = self.seen_of(&key);
        let dot = self.context.next(replica);
        self.context.insert(dot);
        context.insert(dot);
        let entry = Arc::new(Entry::new(key, Few::One(Element { value, timestamp, dots: Few::One(dot) })));
        self.entries.replace(ByKey(Arc::clone(&entry)));
        (entry, context)
    }

    /// Removes a key: what was there, and the writes that this takes away. `None` if it was not there.
    pub(super) fn take_away(&mut self, key: &Key) -> Option<(Arc<Entry>, Context)> {
        let context = self.seen_of(key);
        self.entries.take(key).map(|ByKey(entry)| (entry, context))
    }

    /// The dots of a key that the next write of it replaces.
    fn seen_of(&self, key: &Key) -> Context {
        let mut context = Context::default();
        for element in self.elements(key) {
            for &dot in &*element.dots {
                context.insert(dot);
            }
        }
        context
    }

    /// The state of some keys, with everything this member has seen.
    pub fn delta(&self, keys: impl IntoIterator<Item = Key>) -> Delta {
        let entries = keys.into_iter().map(|key| {
            let elements = self.elements(&key).to_vec();
            (key, elements)
        });
        Delta { context: self.context.clone(), exact: false, entries: entries.collect() }
    }

    /// As [`join`](Self::join): says of each key that has changed what there was of it and what there is.
    pub(super) fn join_each(
        &mut self,
        delta: Delta,
        mut changed: impl FnMut(Option<Arc<Entry>>, Option<&Arc<Entry>>),
    ) {
        for (key, theirs) in delta.entries {
            let before = self.entry(&key).cloned();
            let ours = before.as_ref().map_or(&[][..], |entry| entry.elements());
            let joined = join_elements(ours, &self.context, &theirs, &delta.context);
            for dot in theirs.iter().flat_map(|element| &*element.dots) {
                self.context.insert(*dot);
            }
            if *joined == *ours {
                continue;
            }
            if joined.is_empty() {
                self.entries.remove(&key);
                changed(before, None);
            } else {
                let after = Arc::new(Entry::new(key, joined));
                self.entries.replace(ByKey(Arc::clone(&after)));
                changed(before, Some(&after));
            }
        }
        if delta.exact {
            self.context.merge(&delta.context);
        }
    }
}

/// The element with the latest timestamp; of equal ones the first in the order of terms, as DeltaCrdt reads them.
fn winner(elements: &[Element]) -> Option<&Element> {
    elements.iter().max_by(|a, b| a.timestamp.cmp(&b.timestamp).then_with(|| b.value.cmp_exact(&a.value)))
}

/// Keeps of each element the dots that both sides hold, and those that one side holds and the other has never seen.
fn join_elements(
    ours: &[Element],
    our_context: &Context,
    theirs: &[Element],
    their_context: &Context,
) -> Vec<Element> {
    let mut joined: Vec<Element> = Vec::new();
    for (mine, others, seen_by_others) in [(ours, theirs, their_context), (theirs, ours, our_context)] {
        for element in mine {
            let held_by_others =
                others.iter().find(|other| same(other, element)).map_or(&[][..], |other| &other.dots);
            let kept = element
                .dots
                .iter()
                .filter(|dot| held_by_others.contains(dot) || !seen_by_others.contains(**dot));
            let kept: Vec<Dot> = kept.copied().collect();
            if kept.is_empty() {
                continue;
            }
            match joined.iter_mut().find(|other| same(other, element)) {
                Some(there) => {
                    let mut all = [&there.dots, &*kept].concat();
                    all.sort_unstable();
                    all.dedup();
                    there.dots = all.into();
                }
                None => joined.push(Element { dots: kept.into(), ..element.clone() }),
            }
        }
    }
    // One order everywhere, so that equal states are equal values.
    joined.sort_by(|a, b| a.timestamp.cmp(&b.timestamp).then_with(|| a.value.cmp_exact(&b.value)));
    joined
}

fn same(a: &Element, b: &Element) -> bool {
    a.timestamp == b.timestamp && a.value == b.value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: i64) -> Key {
        Key(Term::Integer(n))
    }

    fn value(n: i64) -> Term {
        Term::Integer(n)
    }

    #[test]
    fn a_key_with_one_write_is_in_one_place() {
        // Key, hash, value, timestamp, dot: what is behind the two terms comes on top.
        assert_eq!(size_of::<Entry>(), 40 + 8 + 40 + 8 + 24);
    }

    #[test]
    fn the_latest_timestamp_wins_and_a_concurrent_write_survives_a_remove() {
        let (mut a, mut b) = (AwLwwMap::default(), AwLwwMap::default());
        b.join(a.put(key(1), value(10), 1, 100));
        let from_a = a.put(key(1), value(11), 1, 300);
        let from_b = b.put(key(1), value(12), 2, 200);
        a.join(from_b);
        assert_eq!(b.join(from_a), [Change::Put(key(1), value(11))]);
        assert_eq!((a.get(&key(1)), b.get(&key(1))), (Some(&value(11)), Some(&value(11))));
        assert_eq!(a.elements(&key(1)).len(), 2);

        let removed = a.remove(&key(1)).unwrap();
        let written = b.put(key(1), value(13), 2, 400);
        a.join(written);
        assert_eq!(b.join(removed), []);
        assert_eq!((a.get(&key(1)), b.get(&key(1))), (Some(&value(13)), Some(&value(13))));
    }

    #[test]
    fn a_write_that_arrives_after_its_removal_stays_away() {
        let (mut a, mut b) = (AwLwwMap::default(), AwLwwMap::default());
        let written = a.put(key(1), value(10), 1, 100);
        let removed = a.remove(&key(1)).unwrap();
        b.join(removed);
        assert_eq!(b.join(written), []);
        assert!(b.is_empty());
    }

    #[test]
    fn a_partial_delta_with_a_full_context_loses_nothing() {
        let (mut a, mut b) = (AwLwwMap::default(), AwLwwMap::default());
        for n in 0..10 {
            a.put(key(n), value(n), 1, n);
        }
        // What DeltaCrdt sends when it truncates: the context of everything with some of the keys.
        b.join(a.delta((0..5).map(key)));
        let back = b.delta((0..10).map(key));
        assert_eq!(a.join(back), []);
        assert_eq!(a.len(), 10);
        b.join(a.delta((5..10).map(key)));
        assert_eq!(b.len(), 10);
        assert_eq!(b.context(), a.context());
    }
}
