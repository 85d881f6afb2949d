//! Dropping, cloning and hashing of nested terms without recursion.
//!
//! Derived code would recurse, and a peer that nests a list a million times would overflow the stack. The containers
//! derive `Clone`, `Hash` and `PartialEq` all the same: these go to [`Term`] for each element, and it never comes back.

use core::hash::{Hash, Hasher};
use core::mem::{discriminant, take};

use super::walk::Items;
use super::{Fun, ImproperList, List, Map, Record, Term, Tuple};

/// Moves what is nested inside `term` out to `pending`.
fn dismantle(term: &mut Term, pending: &mut Vec<Term>) {
    match term {
        Term::Tuple(Tuple(elements)) | Term::List(List(elements)) => keep_nested(take(elements), pending),
        Term::Map(Map(pairs)) => keep_nested_pairs(take(pairs), pending),
        Term::ImproperList(list) => {
            keep_nested(take(&mut list.elements.0), pending);
            pending.push(take(&mut list.tail));
        }
        Term::Fun(fun) => keep_nested(take(&mut fun.free.0), pending),
        Term::Record(record) => pending.extend(take(&mut record.fields).into_iter().map(|(_, value)| value)),
        _ => {}
    }
}

fn keep_nested(elements: Vec<Term>, pending: &mut Vec<Term>) {
    pending.extend(elements.into_iter().filter(Term::is_nested));
}

fn keep_nested_pairs(pairs: Vec<(Term, Term)>, pending: &mut Vec<Term>) {
    pending.extend(pairs.into_iter().flat_map(|(key, value)| [key, value]).filter(Term::is_nested));
}

fn drop_all(mut pending: Vec<Term>) {
    while let Some(mut term) = pending.pop() {
        dismantle(&mut term, &mut pending);
    }
}

/// Whether dropping this term in place would drop nested terms inside it.
fn is_deep(term: &Term) -> bool {
    match term {
        Term::Tuple(Tuple(elements)) | Term::List(List(elements)) => elements.iter().any(Term::is_nested),
        Term::Map(Map(pairs)) => pairs.iter().any(|(key, value)| key.is_nested() || value.is_nested()),
        Term::ImproperList(_) | Term::Fun(_) | Term::Record(_) => true,
        _ => false,
    }
}

macro_rules! drop_elements {
    ($($name:ident)*) => {
        $(
            impl Drop for $name {
                fn drop(&mut self) {
                    if self.0.iter().any(is_deep) {
                        let mut pending = Vec::new();
                        keep_nested(take(&mut self.0), &mut pending);
                        drop_all(pending);
                    }
                }
            }
        )*
    };
}

drop_elements!(Tuple List);

impl Drop for Map {
    fn drop(&mut self) {
        if self.0.iter().any(|(key, value)| is_deep(key) || is_deep(value)) {
            let mut pending = Vec::new();
            keep_nested_pairs(take(&mut self.0), &mut pending);
            drop_all(pending);
        }
    }
}

impl Drop for ImproperList {
    fn drop(&mut self) {
        if is_deep(&self.tail) {
            drop_all(vec![take(&mut self.tail)]);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.fields.iter().any(|(_, value)| is_deep(value)) {
            drop_all(take(&mut self.fields).into_iter().map(|(_, value)| value).collect());
        }
    }
}

/// A container whose copy is being filled.
struct Copying<'a> {
    source: &'a Term,
    items: Items<'a>,
    filled: Filling,
}

/// The inside of a container that is being made.
pub(super) enum Filling {
    Elements(Vec<Term>),
    /// Pairs, and a key that waits for its value.
    Pairs(Vec<(Term, Term)>, Option<Term>),
}

impl Filling {
    pub(super) fn push(&mut self, term: Term) {
        match self {
            Self::Elements(elements) => elements.push(term),
            Self::Pairs(pairs, key) => match key.take() {
                Some(key) => pairs.push((key, term)),
                None => *key = Some(term),
            },
        }
    }
}

impl Clone for Term {
    fn clone(&self) -> Self {
        let mut open = match begin(self) {
            Ok(copy) => return copy,
            Err(copying) => vec![copying],
        };
        loop {
            let Some(top) = open.last_mut() else { return Self::nil() };
            // The leaves in a row stay in this inner loop.
            let nested = loop {
                match top.items.next().map(begin) {
                    Some(Ok(copy)) => top.filled.push(copy),
                    Some(Err(copying)) => break Some(copying),
                    None => break None,
                }
            };
            if let Some(copying) = nested {
                open.push(copying);
                continue;
            }
            let copy = open.pop().map(finish).unwrap_or_default();
            match open.last_mut() {
                Some(outer) => outer.filled.push(copy),
                None => return copy,
            }
        }
    }
}

/// A copy of a leaf, or a container to fill.
fn begin(source: &Term) -> Result<Term, Copying<'_>> {
    let len = match source {
        Term::Atom(atom) => return Ok(Term::Atom(atom.clone())),
        Term::Integer(value) => return Ok(Term::Integer(*value)),
        Term::BigInteger(value) => return Ok(Term::BigInteger(value.clone())),
        Term::Float(value) => return Ok(Term::Float(*value)),
        Term::Pid(pid) => return Ok(Term::Pid(pid.clone())),
        Term::Port(port) => return Ok(Term::Port(port.clone())),
        Term::Reference(reference) => return Ok(Term::Reference(reference.clone())),
        Term::Binary(bytes) => return Ok(Term::Binary(bytes.clone())),
        Term::BitString(bits) => return Ok(Term::BitString(bits.clone())),
        Term::ExportFun(fun) => return Ok(Term::ExportFun(fun.clone())),
        Term::Local(bytes) => return Ok(Term::Local(bytes.clone())),
        Term::Tuple(elements) => elements.len(),
        Term::List(elements) => elements.len(),
        Term::ImproperList(list) => list.elements.len() + 1,
        Term::Fun(fun) => fun.free.len(),
        Term::Record(record) => record.fields.len(),
        Term::Map(map) => {
            let filled = Filling::Pairs(Vec::with_capacity(map.len()), None);
            return Err(Copying { source, items: Items::of(source), filled });
        }
    };
    Err(Copying { source, items: Items::of(source), filled: Filling::Elements(Vec::with_capacity(len)) })
}

fn finish(copy: Copying<'_>) -> Term {
    let mut elements = match copy.filled {
        Filling::Pairs(pairs, _) => return Term::Map(Map(pairs)),
        Filling::Elements(elements) => elements,
    };
    match copy.source {
        Term::Tuple(_) => Term::Tuple(Tuple(elements)),
        Term::ImproperList(_) => {
            let tail = elements.pop().unwrap_or_default();
            Term::ImproperList(Box::new(ImproperList { elements: List(elements), tail }))
        }
        Term::Fun(fun) => Term::Fun(Box::new(Fun {
            arity: fun.arity,
            uniq: fun.uniq,
            index: fun.index,
            module: fun.module.clone(),
            old_index: fun.old_index,
            old_uniq: fun.old_uniq,
            pid: fun.pid.clone(),
            free: List(elements),
        })),
        Term::Record(record) => {
            let names = record.fields.iter().map(|(name, _)| name.clone());
            Term::Record(Box::new(Record {
                module: record.module.clone(),
                name: record.name.clone(),
                exported: record.exported,
                fields: names.zip(elements).collect(),
            }))
        }
        _ => Term::List(List(elements)),
    }
}

/// Equal terms have equal hashes. The numbers are for tables of this program; for one that all nodes agree on, see
/// [`phash2`](super::phash2).
impl Hash for Term {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut open: Vec<Items<'_>> = Vec::new();
        let mut next = Some(self);
        while let Some(term) = next {
            discriminant(term).hash(state);
            match term {
                Self::Atom(atom) => atom.hash(state),
                Self::Integer(value) => value.hash(state),
                Self::BigInteger(value) => value.hash(state),
                Self::Float(value) => value.to_bits().hash(state),
                Self::Pid(pid) => pid.hash(state),
                Self::Port(port) => port.hash(state),
                Self::Reference(reference) => reference.hash(state),
                Self::Binary(bytes) | Self::Local(bytes) => bytes.hash(state),
                Self::BitString(bits) => bits.hash(state),
                Self::ExportFun(fun) => fun.hash(state),
                // The pairs have no order, so they cannot go through `state` one after the other.
                Self::Map(map) => map.hash(state),
                Self::Tuple(Tuple(elements)) | Self::List(List(elements)) => {
                    state.write_usize(elements.len())
                }
                Self::ImproperList(list) => state.write_usize(list.elements.len()),
                Self::Fun(fun) => (&fun.module, fun.index, fun.uniq).hash(state),
                Self::Record(record) => (&record.module, &record.name, record.fields.len()).hash(state),
            }
            if term.is_nested() && !matches!(term, Self::Map(_)) {
                open.push(Items::of(term));
            }
            next = loop {
                match open.last_mut().map(Iterator::next) {
                    Some(None) => open.pop(),
                    Some(Some(item)) => break Some(item),
                    None => break None,
                };
            };
        }
    }
}

impl Hash for Map {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.len());
        state.write_u32(self.iter().fold(0, |all, (key, value)| all ^ super::hash::pair(key, value)));
    }
}

impl PartialEq for Map {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && super::order::equal_maps(self, other)
    }
}

impl Eq for Map {}

#[cfg(test)]
mod tests {
    use super::*;

    fn deep(levels: usize) -> Vec<Term> {
        let wrap: [fn(Term) -> Term; 5] = [
            |inner| Term::tuple([inner, 1.into()]),
            |inner| Term::list([inner]),
            |inner| Term::Map([(Term::atom("k"), inner)].into_iter().collect()),
            |inner| Term::list_with_tail(vec![1.into()], Term::tuple([inner])),
            |inner| {
                Term::Record(Box::new(Record {
                    module: "m".try_into().unwrap(),
                    name: "n".try_into().unwrap(),
                    exported: true,
                    fields: vec![("f".try_into().unwrap(), inner)],
                }))
            },
        ];
        wrap.iter().map(|wrap| (0..levels).fold(Term::nil(), |inner, _| wrap(inner))).collect()
    }

    #[test]
    fn a_hundred_thousand_levels() {
        for term in deep(100_000) {
            let copy = term.clone();
            assert!(copy == term);
            assert_eq!(super::super::hash::full(&copy), super::super::hash::full(&term));
            copy.hash(&mut std::hash::DefaultHasher::new());
            assert!(format!("{copy:?}").len() > 100_000);
        }
    }

    #[test]
    fn equal_maps_have_equal_hashes() {
        let pairs = [(Term::from(1), Term::from(2)), (3.into(), 4.into()), ("x".into(), Term::nil())];
        let forward: Map = pairs.iter().cloned().collect();
        let backward: Map = pairs.iter().rev().cloned().collect();
        let hash = |term: Term| {
            let mut state = std::hash::DefaultHasher::new();
            Term::tuple([term]).hash(&mut state);
            state.finish()
        };
        assert_eq!(forward, backward);
        assert_eq!(hash(forward.into()), hash(backward.into()));
    }
}
