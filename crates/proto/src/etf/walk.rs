//! What an owned [`Term`] and a [`View`](super::View) of an encoded one have in common, so that order and hash are
//! written once.

use core::cmp::Ordering;

use super::atom::AtomRef;
use super::{Pid, Port, Record, Reference, Term};

/// A term that can be looked into, one level at a time.
pub(super) trait Walk<'a>: Copy {
    /// The terms directly inside another one.
    type Items: Iterator<Item = Self> + Clone;

    /// The outermost level.
    fn shape(self) -> Shape<'a, Self>;

    /// The integer, if it is one of 64 bits: quicker than by the shape.
    fn integer(self) -> Option<i64>;

    /// For a map inside the key of a map: its pairs in key order, if that order is known already.
    fn known_order(self) -> Option<Vec<(Self, Self)>>;

    /// Compares two maps of equal size by another way than sorting keys, if this one would not do.
    fn compare_maps(self, other: Self, mode: super::order::Mode) -> Option<Ordering>;
}

/// One level of a term.
pub(super) enum Shape<'a, T: Walk<'a>> {
    Integer(i64),
    /// Sign and little-endian magnitude without zero bytes at its end.
    BigInteger(bool, &'a [u8]),
    Float(f64),
    Atom(AtomRef<'a>),
    Pid(PidRef<'a>),
    Port(PortRef<'a>),
    Reference(ReferenceRef<'a>),
    /// Bytes, and how many bits of the last one count.
    Bits(&'a [u8], u8),
    Tuple(usize, T::Items),
    /// Elements and tail; without a tail the list is proper.
    List(T::Items, Option<T>),
    /// Size, then keys and values in turn.
    Map(usize, T::Items),
    Fun(Box<FunRef<'a>>, T::Items),
    ExportFun(AtomRef<'a>, AtomRef<'a>, u8),
    /// The definition and the values.
    Record(Box<RecordRef<'a>>, T::Items),
    Local(&'a [u8]),
}

/// The field order is Erlang's order of pids.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct PidRef<'a> {
    pub(super) serial: u32,
    pub(super) id: u32,
    pub(super) node: AtomRef<'a>,
    pub(super) creation: u32,
}

/// The field order is Erlang's order of ports.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct PortRef<'a> {
    pub(super) node: AtomRef<'a>,
    pub(super) creation: u32,
    pub(super) id: u64,
}

/// The field order is Erlang's order of references.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct ReferenceRef<'a> {
    pub(super) node: AtomRef<'a>,
    pub(super) creation: u32,
    /// From the last word to the first.
    pub(super) words: [u32; Reference::MAX_WORDS],
}

/// The field order is Erlang's order of local funs, as far as it is defined between nodes.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct FunRef<'a> {
    pub(super) module: AtomRef<'a>,
    pub(super) old_index: i64,
    pub(super) old_uniq: i64,
    pub(super) free: usize,
    pub(super) index: u32,
    pub(super) uniq: [u8; 16],
    pub(super) arity: u8,
}

/// The definition of a native record.
#[derive(Clone, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct RecordRef<'a> {
    pub(super) module: AtomRef<'a>,
    pub(super) name: AtomRef<'a>,
    pub(super) fields: Vec<AtomRef<'a>>,
    pub(super) exported: bool,
}

impl<'a> From<&'a Pid> for PidRef<'a> {
    fn from(pid: &'a Pid) -> Self {
        Self { serial: pid.serial, id: pid.id, node: (&pid.node).into(), creation: pid.creation }
    }
}

impl PidRef<'_> {
    pub(super) fn to_pid(self) -> Pid {
        Pid { node: self.node.to_atom(), id: self.id, serial: self.serial, creation: self.creation }
    }
}

impl<'a> From<&'a Port> for PortRef<'a> {
    fn from(port: &'a Port) -> Self {
        Self { node: (&port.node).into(), creation: port.creation, id: port.id }
    }
}

impl<'a> From<&'a Reference> for ReferenceRef<'a> {
    fn from(reference: &'a Reference) -> Self {
        Self::new((&reference.node).into(), reference.creation, reference.words().iter().copied())
    }
}

impl<'a> ReferenceRef<'a> {
    /// A reference of up to five words in wire order.
    pub(super) fn new(node: AtomRef<'a>, creation: u32, words: impl Iterator<Item = u32>) -> Self {
        let mut reversed = [0; Reference::MAX_WORDS];
        reversed.iter_mut().rev().zip(words).for_each(|(slot, word)| *slot = word);
        Self { node, creation, words: reversed }
    }
}

/// The terms directly inside an owned term.
#[derive(Clone)]
pub(super) enum Items<'a> {
    Slice(core::slice::Iter<'a, Term>),
    /// Elements and the tail.
    Tailed(core::slice::Iter<'a, Term>, Option<&'a Term>),
    /// Keys and values in turn; a value that is still to come.
    Pairs(core::slice::Iter<'a, (Term, Term)>, Option<&'a Term>),
    Fields(core::slice::Iter<'a, (super::Atom, Term)>),
}

impl<'a> Items<'a> {
    /// Everything directly inside `term`.
    pub(super) fn of(term: &'a Term) -> Self {
        match term {
            Term::Tuple(elements) => Self::Slice(elements.iter()),
            Term::List(elements) => Self::Slice(elements.iter()),
            Term::ImproperList(list) => Self::Tailed(list.elements.iter(), Some(&list.tail)),
            Term::Map(map) => Self::of_map(map),
            Term::Fun(fun) => Self::Slice(fun.free.iter()),
            Term::Record(record) => Self::Fields(record.fields.iter()),
            _ => Self::Slice([].iter()),
        }
    }

    /// Takes terms as long as `take` says so; returns the first that it did not.
    #[inline]
    pub(super) fn pass_while(&mut self, mut take: impl FnMut(&'a Term) -> bool) -> Option<&'a Term> {
        match self {
            // The case that counts has a loop of its own.
            Self::Slice(items) => items.find(|item| !take(item)),
            _ => self.find(|item| !take(item)),
        }
    }

    pub(super) fn of_map(map: &'a super::Map) -> Self {
        Self::Pairs(map.iter(), None)
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a Term;

    #[inline]
    fn next(&mut self) -> Option<&'a Term> {
        match self {
            Self::Slice(items) => items.next(),
            Self::Tailed(items, tail) => items.next().or_else(|| tail.take()),
            Self::Pairs(pairs, value) => value.take().or_else(|| {
                let (key, after) = pairs.next()?;
                *value = Some(after);
                Some(key)
            }),
            Self::Fields(fields) => fields.next().map(|(_, value)| value),
        }
    }
}

impl<'a> Walk<'a> for &'a Term {
    type Items = Items<'a>;

    fn shape(self) -> Shape<'a, Self> {
        match self {
            Term::Atom(atom) => Shape::Atom(atom.into()),
            Term::Integer(value) => Shape::Integer(*value),
            Term::BigInteger(value) => Shape::BigInteger(value.is_negative(), value.magnitude()),
            Term::Float(value) => Shape::Float(*value),
            Term::Pid(pid) => Shape::Pid(pid.into()),
            Term::Port(port) => Shape::Port((&**port).into()),
            Term::Reference(reference) => Shape::Reference((&**reference).into()),
            Term::Binary(bytes) => Shape::Bits(bytes, 8),
            Term::BitString(bits) => Shape::Bits(&bits.bytes, bits.last_bits),
            Term::Tuple(elements) => Shape::Tuple(elements.len(), Items::of(self)),
            Term::List(_) => Shape::List(Items::of(self), None),
            Term::ImproperList(list) => Shape::List(Items::Slice(list.elements.iter()), Some(&list.tail)),
            Term::Map(map) => Shape::Map(map.len(), Items::of(self)),
            Term::Fun(fun) => Shape::Fun(
                Box::new(FunRef {
                    module: (&fun.module).into(),
                    old_index: fun.old_index,
                    old_uniq: fun.old_uniq,
                    free: fun.free.len(),
                    index: fun.index,
                    uniq: fun.uniq,
                    arity: fun.arity,
                }),
                Items::of(self),
            ),
            Term::ExportFun(fun) => Shape::ExportFun((&fun.module).into(), (&fun.function).into(), fun.arity),
            Term::Record(record) => Shape::Record(Box::new((&**record).into()), Items::of(self)),
            Term::Local(bytes) => Shape::Local(bytes),
        }
    }

    #[inline]
    fn integer(self) -> Option<i64> {
        self.as_i64()
    }

    fn known_order(self) -> Option<Vec<(Self, Self)>> {
        None
    }

    fn compare_maps(self, other: Self, mode: super::order::Mode) -> Option<Ordering> {
        super::order::compare_through_views(self, other, mode)
    }
}

impl<'a> From<&'a Record> for RecordRef<'a> {
    fn from(record: &'a Record) -> Self {
        Self {
            module: (&record.module).into(),
            name: (&record.name).into(),
            fields: record.fields.iter().map(|(name, _)| name.into()).collect(),
            exported: record.exported,
        }
    }
}
