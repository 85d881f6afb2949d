use std::collections::BTreeMap;

use foundation_proto::etf::Term;

use super::{Context, Dot};
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
    entries: BTreeMap<Key, Vec<Element>>,
    context: Context,
}

/// One write of a key that is still there.
#[derive(Clone, Debug, PartialEq)]
pub struct Element {
    /// The value written.
    pub value: Term,
    /// When, on the scale the members share.
    pub timestamp: i64,
    /// The writes that put this value there at this time, in order; almost always one.
    pub dots: Vec<Dot>,
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

impl AwLwwMap {
    /// The value of a key.
    pub fn get(&self, key: &Key) -> Option<&Term> {
        self.entries.get(key).and_then(|elements| winner(elements)).map(|element| &element.value)
    }

    /// The elements of a key; none if it is not there.
    pub fn elements(&self, key: &Key) -> &[Element] {
        self.entries.get(key).map_or(&[], Vec::as_slice)
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
        self.entries.iter().filter_map(|(key, elements)| Some((key, &winner(elements)?.value)))
    }

    /// Keys and their elements, in the order of terms.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&Key, &[Element])> {
        self.entries.iter().map(|(key, elements)| (key, elements.as_slice()))
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
        let mut context = self.remove_seen(&key);
        let dot = self.context.next(replica);
        self.context.insert(dot);
        context.insert(dot);
        let elements = vec![Element { value, timestamp, dots: vec![dot] }];
        self.entries.insert(key.clone(), elements.clone());
        Delta { context, exact: true, entries: BTreeMap::from([(key, elements)]) }
    }

    /// Removes a key and returns what to tell the other members; `None` if it was not there.
    pub fn remove(&mut self, key: &Key) -> Option<Delta> {
        if !self.entries.contains_key(key) {
            return None;
        }
        let context = self.remove_seen(key);
        self.entries.remove(key);
        Some(Delta { context, exact: true, entries: BTreeMap::from([(key.clone(), Vec::new())]) })
    }

    /// The dots of a key that the next write of it replaces.
    fn remove_seen(&self, key: &Key) -> Context {
        let mut context = Context::default();
        for element in self.elements(key) {
            for &dot in &element.dots {
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

    /// Joins what another member tells, and returns what changed.
    ///
    /// Unless the delta is [exact](Delta::exact), only the dots that its elements carry are noted as seen: its context may
    /// cover keys that it does not speak of.
    pub fn join(&mut self, delta: Delta) -> Vec<Change> {
        let mut changes = Vec::new();
        for (key, theirs) in delta.entries {
            let ours = self.entries.remove(&key).unwrap_or_default();
            let before = winner(&ours).map(|element| element.value.clone());
            let joined = join_elements(&ours, &self.context, &theirs, &delta.context);
            let after = winner(&joined).map(|element| element.value.clone());
            for dot in theirs.iter().flat_map(|element| &element.dots) {
                self.context.insert(*dot);
            }
            if !joined.is_empty() {
                self.entries.insert(key.clone(), joined);
            }
            match (before, after) {
                (before, Some(after)) if before.as_ref() != Some(&after) => {
                    changes.push(Change::Put(key, after))
                }
                (Some(_), None) => changes.push(Change::Removed(key)),
                _ => {}
            }
        }
        if delta.exact {
            self.context.merge(&delta.context);
        }
        changes
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
                    there.dots.extend(kept);
                    there.dots.sort_unstable();
                    there.dots.dedup();
                }
                None => joined.push(Element { dots: kept, ..element.clone() }),
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
