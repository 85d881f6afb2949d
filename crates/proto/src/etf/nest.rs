//! Dropping, cloning and hashing of nested terms without recursion.
//!
//! Derived code would recurse, and a peer that nests a list a million times would overflow the stack. The containers
//! derive `Clone`, `Hash` and `PartialEq` all the same: these go to [`Term`] for each element, and it never comes back.

use core::cell::Cell;
use core::hash::{Hash, Hasher};
use core::mem::{discriminant, take};

use super::pool::{Lent, free, lend};
use super::term::Inside;
use super::walk::Items;
use super::{Fun, ImproperList, List, Map, Record, Term, Tuple};

/// Levels that are dropped by recursion, which is faster than a list of what is left to drop; what is nested deeper
/// goes to such a list.
const LEVELS: u32 = 32;

std::thread_local! {
    /// The containers that this thread is dropping, one inside the other.
    static DROPPING: Cell<u32> = const { Cell::new(0) };
}

/// Lets `drop` take what is inside a container, if the recursion is not too deep for that.
#[inline(always)]
fn recurse(drop: impl FnOnce()) -> bool {
    let Some(end) = recursion() else { return false };
    drop();
    end();
    true
}

/// Begins to drop what is inside a container, if the recursion is not too deep for that; returns what ends it.
#[inline(always)]
fn recursion() -> Option<impl FnOnce()> {
    let depth = DROPPING.get();
    if depth >= LEVELS {
        return None;
    }
    DROPPING.set(depth + 1);
    Some(move || DROPPING.set(depth))
}

/// Drops a term in its place, and leaves one there that has nothing to release, as nearly all have not. What is more than
/// `levels` deep is moved to `pending`.
#[inline(always)]
fn discard(term: &mut Term, levels: u32, pool: &mut Lent, pending: &mut Vec<Term>) {
    match term {
        Term::Integer(_) | Term::Float(_) => {}
        Term::Atom(atom) if atom.is_plain() => {}
        Term::Tuple(Tuple(inside)) | Term::List(List(inside)) => {
            if let Some(elements) = inside.take() {
                discard_inside(elements, levels, pool, pending);
            }
        }
        Term::Map(Map(pairs)) => discard_pairs(take(pairs), levels, pool, pending),
        // `[alias | Reference]`, in every call of a gen_server.
        Term::ImproperList(list) => {
            if let Some(elements) = list.elements.0.take() {
                discard_inside(elements, levels, pool, pending);
            }
            *term = Term::Integer(0);
        }
        _ => *term = Term::Integer(0),
    }
}

/// Drops the elements of a container, and keeps its memory.
fn discard_inside(mut elements: Box<[Term]>, levels: u32, pool: &mut Lent, pending: &mut Vec<Term>) {
    let Some(levels) = levels.checked_sub(1) else {
        pending.push(Term::List(List(Some(elements))));
        return;
    };
    elements.iter_mut().for_each(|term| discard(term, levels, pool, pending));
    pool.keep(elements);
}

fn discard_pairs(mut pairs: Vec<(Term, Term)>, levels: u32, pool: &mut Lent, pending: &mut Vec<Term>) {
    let Some(levels) = levels.checked_sub(1) else {
        pending.push(Term::Map(Map(pairs)));
        return;
    };
    for (key, value) in &mut pairs {
        discard(key, levels, pool, pending);
        discard(value, levels, pool, pending);
    }
    free(pairs);
}

/// Drops terms with everything inside them. What is more than `levels` deep is moved to `pending`.
fn release(elements: Inside, levels: u32, pending: &mut Vec<Term>) {
    elements.into_iter().flatten().for_each(|term| release_one(term, levels, pending));
}

fn release_pairs(pairs: Vec<(Term, Term)>, levels: u32, pending: &mut Vec<Term>) {
    for (key, value) in pairs {
        release_one(key, levels, pending);
        release_one(value, levels, pending);
    }
}

/// Drops a term of which nothing deeper than `levels` is left to the drop of its parts.
#[inline(always)]
fn release_one(term: Term, levels: u32, pending: &mut Vec<Term>) {
    if term.is_nested() {
        release_nested(term, levels, pending);
    }
}

fn release_nested(mut term: Term, levels: u32, pending: &mut Vec<Term>) {
    let Some(levels) = levels.checked_sub(1) else {
        pending.push(term);
        return;
    };
    match &mut term {
        Term::Tuple(Tuple(elements)) | Term::List(List(elements)) => release(take(elements), levels, pending),
        Term::Map(Map(pairs)) => release_pairs(take(pairs), levels, pending),
        Term::ImproperList(list) => {
            release(take(&mut list.elements.0), levels, pending);
            release_one(take(&mut list.tail), levels, pending);
        }
        Term::Fun(fun) => release(take(&mut fun.free.0), levels, pending),
        Term::Record(record) => {
            for (_, value) in take(&mut record.fields) {
                release_one(value, levels, pending);
            }
        }
        _ => {}
    }
}

/// Drops what [`release`] and its like have left over.
fn release_rest(mut pending: Vec<Term>) {
    while let Some(term) = pending.pop() {
        release_one(term, LEVELS, &mut pending);
    }
}

macro_rules! drop_elements {
    ($($name:ident)*) => {
        $(
            impl Drop for $name {
                fn drop(&mut self) {
                    let Some(elements) = self.0.take() else { return };
                    let mut pending = Vec::new();
                    match recursion() {
                        Some(end) => {
                            discard_inside(elements, LEVELS, &mut lend(), &mut pending);
                            end();
                        }
                        None => release(Some(elements), LEVELS, &mut pending),
                    }
                    release_rest(pending);
                }
            }
        )*
    };
}

drop_elements!(Tuple List);

impl Drop for Map {
    fn drop(&mut self) {
        let pairs = take(&mut self.0);
        if pairs.is_empty() {
            return;
        }
        let mut pending = Vec::new();
        match recursion() {
            Some(end) => {
                discard_pairs(pairs, LEVELS, &mut lend(), &mut pending);
                end();
            }
            None => release_pairs(pairs, LEVELS, &mut pending),
        }
        release_rest(pending);
    }
}

impl Drop for ImproperList {
    fn drop(&mut self) {
        let mut tail = take(&mut self.tail);
        if !recurse(|| drop(take(&mut tail))) {
            release_rest(vec![tail]);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let mut fields = take(&mut self.fields);
        if !recurse(|| fields.clear()) {
            release_rest(fields.into_iter().map(|(_, value)| value).collect());
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
enum Filling {
    Elements(Vec<Term>),
    /// Pairs, and whether the last still lacks its value.
    Pairs(Vec<(Term, Term)>, bool),
}

impl Filling {
    #[inline]
    fn push(&mut self, term: Term) {
        match self {
            Self::Elements(elements) => elements.push(term),
            Self::Pairs(pairs, lacks_value) => {
                match pairs.last_mut() {
                    Some((_, value)) if *lacks_value => *value = term,
                    _ => pairs.push((term, Term::Integer(0))),
                }
                *lacks_value = !*lacks_value;
            }
        }
    }
}

impl Clone for Term {
    fn clone(&self) -> Self {
        if !self.is_nested() {
            let mut copy = Self::nil();
            copy_leaf(self, |term| copy = term);
            return copy;
        }
        let mut open = vec![begin(self)];
        loop {
            let Some(top) = open.last_mut() else { return Self::nil() };
            let filled = &mut top.filled;
            let nested = top.items.pass_while(|item| {
                if item.is_nested() {
                    return false;
                }
                match &mut *filled {
                    Filling::Elements(elements) => copy_leaf(item, |term| elements.push(term)),
                    pairs @ Filling::Pairs(..) => copy_leaf(item, |term| pairs.push(term)),
                }
                true
            });
            if let Some(nested) = nested {
                open.push(begin(nested));
                continue;
            }
            let copy = open.pop().map_or_else(Self::nil, finish);
            match open.last_mut() {
                Some(outer) => outer.filled.push(copy),
                None => return copy,
            }
        }
    }
}

/// Hands a copy of a term without terms inside to `put`.
#[inline(always)]
fn copy_leaf(source: &Term, put: impl FnOnce(Term)) {
    match source {
        Term::Integer(value) => put(Term::Integer(*value)),
        Term::Atom(atom) => put(Term::Atom(atom.clone())),
        Term::Binary(bytes) => put(Term::Binary(bytes.clone())),
        _ => put(copy_rare_leaf(source)),
    }
}

#[inline(never)]
fn copy_rare_leaf(source: &Term) -> Term {
    match source {
        Term::BigInteger(value) => Term::BigInteger(value.clone()),
        Term::Float(value) => Term::Float(*value),
        Term::Pid(pid) => Term::Pid(pid.clone()),
        Term::Port(port) => Term::Port(port.clone()),
        Term::Reference(reference) => Term::Reference(reference.clone()),
        Term::BitString(bits) => Term::BitString(bits.clone()),
        Term::ExportFun(fun) => Term::ExportFun(fun.clone()),
        Term::Local(bytes) => Term::Local(bytes.clone()),
        Term::Tuple(_) => Term::Tuple(Tuple::default()),
        Term::Map(_) => Term::Map(Map::new()),
        _ => Term::nil(),
    }
}

/// The copy of a container to fill.
fn begin(source: &Term) -> Copying<'_> {
    let filled = match source {
        Term::Map(map) => Filling::Pairs(Vec::with_capacity(map.len()), false),
        Term::Tuple(elements) => Filling::Elements(Vec::with_capacity(elements.len())),
        Term::List(elements) => Filling::Elements(Vec::with_capacity(elements.len())),
        Term::ImproperList(list) => Filling::Elements(Vec::with_capacity(list.elements.len() + 1)),
        Term::Fun(fun) => Filling::Elements(Vec::with_capacity(fun.free.len())),
        Term::Record(record) => Filling::Elements(Vec::with_capacity(record.fields.len())),
        _ => Filling::Elements(Vec::new()),
    };
    Copying { source, items: Items::of(source), filled }
}

fn finish(copy: Copying<'_>) -> Term {
    let mut elements = match copy.filled {
        Filling::Pairs(pairs, _) => return Term::Map(Map(pairs)),
        Filling::Elements(elements) => elements,
    };
    match copy.source {
        Term::Tuple(_) => Term::Tuple(elements.into()),
        Term::ImproperList(_) => {
            let tail = elements.pop().unwrap_or_default();
            Term::ImproperList(Box::new(ImproperList { elements: elements.into(), tail }))
        }
        Term::Fun(fun) => Term::Fun(Box::new(Fun {
            arity: fun.arity,
            uniq: fun.uniq,
            index: fun.index,
            module: fun.module.clone(),
            old_index: fun.old_index,
            old_uniq: fun.old_uniq,
            pid: fun.pid.clone(),
            free: elements.into(),
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
        _ => Term::List(elements.into()),
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
                    state.write_usize(elements.as_deref().unwrap_or_default().len())
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
