//! What a deserialiser reads from: an owned term, or a view of an encoded one.

use std::borrow::Cow;

use super::error::Error;
use crate::etf::walk::Items;
use crate::etf::{AtomRef, Elements, Kind, RawTerm, Term, View, decode, raw};

/// A term that can be looked into, one level at a time, and whose text outlives the look.
pub(super) trait Source<'de>: Copy {
    /// The terms directly inside.
    type Items: Iterator<Item = Self> + Clone;

    /// The outermost level.
    fn shape(self) -> Shape<'de, Self>;

    /// The whole of it, owned.
    fn term(self) -> Term;

    /// The whole of it, encoded.
    fn raw(self) -> Result<RawTerm, Error>;
}

/// One level of a term.
pub(super) enum Shape<'de, S: Source<'de>> {
    Atom(Cow<'de, str>),
    Integer(i64),
    /// Sign and little-endian magnitude.
    BigInteger(bool, &'de [u8]),
    Float(f64),
    /// Bytes, and how many bits of the last one count.
    Bits(&'de [u8], u8),
    Tuple(usize, S::Items),
    /// Whether it is proper.
    List(S::Items, bool),
    /// Pairs; keys and values in turn.
    Map(usize, S::Items),
    /// What serde's data model does not have.
    Other(Kind),
}

impl<'de> Source<'de> for &'de Term {
    type Items = Items<'de>;

    fn shape(self) -> Shape<'de, Self> {
        match self {
            Term::Atom(atom) => Shape::Atom(Cow::Borrowed(atom.as_str())),
            Term::Integer(value) => Shape::Integer(*value),
            Term::BigInteger(value) => Shape::BigInteger(value.is_negative(), value.magnitude()),
            Term::Float(value) => Shape::Float(*value),
            Term::Binary(bytes) => Shape::Bits(bytes, 8),
            Term::BitString(bits) => Shape::Bits(&bits.bytes, bits.last_bits),
            Term::Tuple(elements) => Shape::Tuple(elements.len(), Items::of(self)),
            Term::List(_) => Shape::List(Items::of(self), true),
            Term::ImproperList(_) => Shape::List(Items::of(self), false),
            Term::Map(map) => Shape::Map(map.len(), Items::of(self)),
            _ => Shape::Other(self.kind()),
        }
    }

    fn term(self) -> Term {
        self.clone()
    }

    fn raw(self) -> Result<RawTerm, Error> {
        RawTerm::from_term(self).map_err(|error| Error::new(error.to_string()))
    }
}

/// A term inside an encoded one.
#[derive(Clone, Copy)]
pub(super) struct Inner<'de> {
    pub(super) of: raw::Source<'de>,
    pub(super) view: View<'de>,
}

/// The terms inside a term inside an encoded one.
#[derive(Clone)]
pub(super) struct InnerItems<'de> {
    of: raw::Source<'de>,
    elements: Elements<'de>,
}

impl<'de> Iterator for InnerItems<'de> {
    type Item = Inner<'de>;

    #[inline]
    fn next(&mut self) -> Option<Inner<'de>> {
        self.elements.next().map(|view| Inner { of: self.of, view })
    }
}

fn atom_text(atom: AtomRef<'_>) -> Cow<'_, str> {
    match atom.as_str() {
        Some(text) => Cow::Borrowed(text),
        None => Cow::Owned(atom.to_atom().as_str().to_owned()),
    }
}

impl<'de> Source<'de> for Inner<'de> {
    type Items = InnerItems<'de>;

    fn shape(self) -> Shape<'de, Self> {
        let view = self.view;
        let items = || InnerItems { of: self.of, elements: view.elements() };
        let shape = match view.kind() {
            Kind::Atom => view.as_atom().map(|atom| Shape::Atom(atom_text(atom))),
            Kind::Integer => view.as_i64().map(Shape::Integer),
            Kind::BigInteger => {
                view.big().map(|(negative, magnitude)| Shape::BigInteger(negative, magnitude))
            }
            Kind::Float => view.as_f64().map(Shape::Float),
            Kind::Binary | Kind::BitString => view.as_bits().map(|(bytes, bits)| Shape::Bits(bytes, bits)),
            Kind::Tuple => Some(Shape::Tuple(view.len(), items())),
            Kind::List => Some(Shape::List(items(), true)),
            Kind::ImproperList => Some(Shape::List(items(), false)),
            Kind::Map => Some(Shape::Map(view.len(), items())),
            _ => None,
        };
        shape.unwrap_or(Shape::Other(view.kind()))
    }

    fn term(self) -> Term {
        match self.of.slice(self.view) {
            // However small it is: who asks for bytes without a copy gets them.
            Some(bytes) => Term::Binary(bytes),
            None => decode::build(self.view, Some(self.of.bytes)),
        }
    }

    fn raw(self) -> Result<RawTerm, Error> {
        match self.of.inner(self.view) {
            Some(raw) => Ok(raw),
            None => (&self.view.to_term()).raw(),
        }
    }
}
