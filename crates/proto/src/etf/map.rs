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

/// Later pairs win over earlier ones with the same key, as in `maps:from_list/1`.
impl FromIterator<(Term, Term)> for Map {
    fn from_iter<I: IntoIterator<Item = (Term, Term)>>(pairs: I) -> Self {
        let mut map = Self(pairs.into_iter().collect());
        if order::has_duplicate_keys(&map) {
            let mut last_wins = Self::new();
            for (key, value) in map.into_vec() {
                last_wins.insert(key, value);
            }
            map = last_wins;
        }
        map
    }
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
    }
}
