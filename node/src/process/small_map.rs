//! A map that is small while it holds little.

use std::collections::BTreeMap;

/// More entries than this go into a tree.
const FLAT: usize = 8;

/// A sorted map whose first entries take their own room only.
///
/// A [`BTreeMap`] has room for eleven entries as soon as it has one: 1.3 KiB more than this for a single monitor of a process. Nearly every
/// process has none, one or two.
#[derive(Debug)]
pub(crate) enum SmallMap<K, V> {
    /// In the order of the keys.
    Flat(Vec<(K, V)>),
    Tree(BTreeMap<K, V>),
}

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        Self::Flat(Vec::new())
    }
}

impl<K: Ord, V> SmallMap<K, V> {
    /// Adds an entry; returns what had its key before.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let entries = match self {
            Self::Tree(map) => return map.insert(key, value),
            Self::Flat(entries) => entries,
        };
        match entries.binary_search_by(|(known, _)| known.cmp(&key)) {
            Ok(at) => entries.get_mut(at).map(|(_, known)| core::mem::replace(known, value)),
            Err(at) if entries.len() < FLAT => {
                if entries.len() == entries.capacity() {
                    entries.reserve_exact(entries.len().max(1));
                }
                entries.insert(at, (key, value));
                None
            }
            Err(_) => {
                let mut map: BTreeMap<K, V> = core::mem::take(entries).into_iter().collect();
                map.insert(key, value);
                *self = Self::Tree(map);
                None
            }
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        match self {
            Self::Flat(entries) => {
                let at = entries.binary_search_by(|(known, _)| known.cmp(key)).ok()?;
                entries.get(at).map(|(_, value)| value)
            }
            Self::Tree(map) => map.get(key),
        }
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let removed = match self {
            Self::Flat(entries) => {
                let at = entries.binary_search_by(|(known, _)| known.cmp(key)).ok()?;
                Some(entries.remove(at).1)
            }
            Self::Tree(map) => map.remove(key),
        };
        self.forget_if_empty();
        removed
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&V) -> bool) {
        match self {
            Self::Flat(entries) => entries.retain(|(_, value)| keep(value)),
            Self::Tree(map) => map.retain(|_, value| keep(value)),
        }
        self.forget_if_empty();
    }

    /// The values in the order of their keys.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        let (few, many) = match self {
            Self::Flat(entries) => (entries.as_slice(), None),
            Self::Tree(map) => (&[][..], Some(map)),
        };
        few.iter().map(|(_, value)| value).chain(many.into_iter().flat_map(BTreeMap::values))
    }

    fn forget_if_empty(&mut self) {
        let empty = match self {
            Self::Flat(entries) => entries.is_empty(),
            Self::Tree(map) => map.is_empty(),
        };
        if empty {
            *self = Self::default();
        }
    }
}

impl<K, V> IntoIterator for SmallMap<K, V> {
    type Item = (K, V);
    type IntoIter =
        core::iter::Chain<std::vec::IntoIter<(K, V)>, std::collections::btree_map::IntoIter<K, V>>;

    /// In the order of the keys.
    fn into_iter(self) -> Self::IntoIter {
        let (few, many) = match self {
            Self::Flat(entries) => (entries, BTreeMap::new()),
            Self::Tree(map) => (Vec::new(), map),
        };
        few.into_iter().chain(many)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same steps on both, in an order that goes up and down across the border of few and many.
    #[test]
    fn it_is_a_sorted_map_however_many_there_are() {
        let (mut few, mut map) = (SmallMap::default(), BTreeMap::new());
        let mut many = 0;
        for step in 0..2_000_u32 {
            let key = step.wrapping_mul(2_654_435_761) >> 28;
            if step / 64 % 2 == 0 {
                assert_eq!(few.insert(key, step), map.insert(key, step));
            } else {
                assert_eq!(few.remove(&key), map.remove(&key));
            }
            assert_eq!(few.get(&key), map.get(&key));
            assert!(few.values().eq(map.values()));
            many += u32::from(matches!(few, SmallMap::Tree(_)));
            if step % 500 == 499 {
                few.retain(|value| value % 3 == 0);
                map.retain(|_, value| *value % 3 == 0);
            }
        }
        assert!((100..1_900).contains(&many), "{many}");
        assert!(few.into_iter().eq(map));
    }

    #[test]
    fn one_entry_takes_its_own_room_and_none_takes_nothing() {
        let mut few = SmallMap::default();
        for (count, room) in [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8)] {
            few.insert(count, ());
            assert!(matches!(&few, SmallMap::Flat(entries) if entries.capacity() == room));
        }
        few.retain(|()| false);
        assert!(matches!(&few, SmallMap::Flat(entries) if entries.capacity() == 0));
    }
}
