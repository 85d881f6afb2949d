use super::order;
use super::{Atom, Term};
use crate::error::{Error, Problem};

/// The pairs of a map, in wire order; no two keys are equal by `=:=`.
///
/// A message's maps are mostly small and read once, so looking a key up walks the pairs. Equality ignores the order.
#[derive(Clone, Default)]
pub struct Map(pub(super) Vec<(Term, Term)>);

impl Map {
    /// The empty map.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// A map of these pairs, in this order.
    ///
    /// # Errors
    /// [`Problem::DuplicateKey`] if two keys are equal by `=:=`.
    pub fn from_pairs(pairs: Vec<(Term, Term)>) -> Result<Self, Error> {
        let map = Self(pairs);
        if order::has_duplicate_keys(&map) {
            return Err(Error::malformed("map", 0, Problem::DuplicateKey));
        }
        Ok(map)
    }

    /// The value of the key that is equal by `=:=`: `1` does not find `1.0`.
    pub fn get(&self, key: &Term) -> Option<&Term> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value)
    }

    /// The value of an atom key.
    pub fn get_atom(&self, key: &str) -> Option<&Term> {
        self.0.iter().find(|(k, _)| k.is_atom(key)).map(|(_, value)| value)
    }

    /// Sets the value of a key and returns the one it had; a new key goes to the end.
    pub fn insert(&mut self, key: Term, value: Term) -> Option<Term> {
        if let Some((_, old)) = self.0.iter_mut().find(|(k, _)| *k == key) {
            return Some(core::mem::replace(old, value));
        }
        self.0.push((key, value));
        None
    }

    /// Takes a key out and returns its value; the others keep their order.
    pub fn remove(&mut self, key: &Term) -> Option<Term> {
        let index = self.0.iter().position(|(k, _)| k == key)?;
        Some(self.0.remove(index).1)
    }

    /// The pairs, for keeping or changing.
    pub fn into_vec(mut self) -> Vec<(Term, Term)> {
        core::mem::take(&mut self.0)
    }
}

/// Later pairs win over earlier ones with the same key, as in `maps:from_list/1`; the key stays where it came first.
impl FromIterator<(Term, Term)> for Map {
    fn from_iter<I: IntoIterator<Item = (Term, Term)>>(pairs: I) -> Self {
        let map = Self(pairs.into_iter().collect());
        if order::has_duplicate_keys(&map) { last_wins(map.into_vec()) } else { map }
    }
}

/// Of equal keys, the first with the value of the last. Sorts, so that many repetitions take no quadratic time.
fn last_wins(pairs: Vec<(Term, Term)>) -> Map {
    let (keys, values): (Vec<Term>, Vec<Term>) = pairs.into_iter().unzip();
    let mut values: Vec<Option<Term>> = values.into_iter().map(Some).collect();
    let mut sorted: Vec<(usize, &Term)> = keys.iter().enumerate().collect();
    // Stable: equal keys stay in the order in which they came.
    sorted.sort_by(|(_, a), (_, b)| a.cmp_exact(b));
    let mut last_of = vec![None; keys.len()];
    for equal in sorted.chunk_by(|(_, a), (_, b)| a == b) {
        if let (Some((first, _)), Some((last, _))) = (equal.first(), equal.last())
            && let Some(slot) = last_of.get_mut(*first)
        {
            *slot = Some(*last);
        }
    }
    let pairs = keys.into_iter().zip(last_of);
    Map(pairs.filter_map(|(key, last)| Some((key, values.get_mut(last?)?.take()?))).collect())
}

impl<const N: usize> From<[(Atom, Term); N]> for Map {
    fn from(pairs: [(Atom, Term); N]) -> Self {
        pairs.into_iter().map(|(key, value)| (Term::Atom(key), value)).collect()
    }
}

impl core::ops::Deref for Map {
    type Target = [(Term, Term)];

    fn deref(&self) -> &[(Term, Term)] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(i64, i64)]) -> Map {
        pairs.iter().map(|&(k, v)| (k.into(), v.into())).collect()
    }

    #[test]
    fn keys_are_exact() {
        let mut m = map(&[(1, 10)]);
        assert_eq!(m.get(&1.into()), Some(&10.into()));
        assert_eq!(m.get(&Term::Float(1.0)), None);
        assert_eq!(m.insert(Term::Float(1.0), 20.into()), None);
        assert_eq!(m.insert(1.into(), 30.into()), Some(10.into()));
        assert_eq!(m.remove(&1.into()), Some(30.into()));
        assert_eq!(m.len(), 1);
    }

    #[test]
    fn equality_ignores_the_order() {
        assert_eq!(map(&[(1, 10), (2, 20)]), map(&[(2, 20), (1, 10)]));
        assert_ne!(map(&[(1, 10), (2, 20)]), map(&[(2, 10), (1, 20)]));
    }

    #[test]
    fn duplicates_are_refused_or_the_last_wins() {
        let pairs = vec![(Term::from(1), Term::from(1)), (1.into(), 2.into())];
        assert!(Map::from_pairs(pairs.clone()).is_err());
        assert_eq!(pairs.into_iter().collect::<Map>(), map(&[(1, 2)]));
        let many: Map = (0..50_000).map(|n| (Term::from(n % 25_000), Term::from(n))).collect();
        assert_eq!(many.len(), 25_000);
        assert!(many.iter().enumerate().all(|(n, (key, value))| {
            (key, value) == (&Term::from(n as i64), &Term::from(n as i64 + 25_000))
        }));
    }
}
