use bytes::Bytes;

use super::{Atom, Pid, Port, Reference};

/// An Erlang term, owned.
///
/// Equality is Erlang's `=:=`. For a look into a message without building this tree, use the view over the encoded bytes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Term {
    /// An atom.
    Atom(Atom),
    /// An integer that fits into 64 bits; always this variant if it does.
    Integer(i64),
    /// Any other integer.
    BigInteger(Box<BigInteger>),
    /// A float; never NaN or infinite, which Erlang does not have.
    Float(f64),
    /// A process identifier.
    Pid(Pid),
    /// A port identifier.
    Port(Box<Port>),
    /// A reference.
    Reference(Box<Reference>),
    /// A binary; a slice of the message it came in.
    Binary(Bytes),
    /// A bit string whose length is no multiple of eight.
    BitString(Box<BitString>),
    /// A tuple.
    Tuple(Tuple),
    /// A proper list, `[]` included. Erlang strings are lists of integers.
    List(List),
    /// A list whose tail is not `[]`.
    ImproperList(Box<ImproperList>),
    /// A map, in wire order.
    Map(Map),
    /// A local fun.
    Fun(Box<Fun>),
    /// `fun Module:Function/Arity`.
    ExportFun(Box<ExportFun>),
    /// A native record (OTP 29).
    Record(Box<Record>),
    /// A LOCAL_EXT term: private to the node that encoded it; kept as it is, tag included.
    Local(Bytes),
}

/// An integer beyond 64 bits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BigInteger {
    negative: bool,
    /// Little-endian, without zero bytes at the end.
    magnitude: Vec<u8>,
}

/// A bit string whose length is no multiple of eight.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BitString {
    /// The bytes; the unused low bits of the last are zero.
    pub bytes: Bytes,
    /// How many bits of the last byte count, from the most significant: 1 to 7.
    pub last_bits: u8,
}

/// The elements of a tuple.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tuple(Vec<Term>);

/// The elements of a proper list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct List(Vec<Term>);

/// The pairs of a map, in wire order; no two keys are equal by `=:=`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map(Vec<(Term, Term)>);

/// A list with a tail other than `[]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ImproperList {
    /// At least one element.
    pub elements: List,
    /// Neither a proper nor an improper list.
    pub tail: Term,
}

/// A local fun (NEW_FUN_EXT). It can be kept, compared and sent back, but only called by a BEAM that has its module.
#[derive(Clone, Debug, PartialEq)]
pub struct Fun {
    /// How many arguments it takes.
    pub arity: u8,
    /// MD5 of the significant parts of the module.
    pub uniq: [u8; 16],
    /// Its index in the module.
    pub index: u32,
    /// The module that defines it.
    pub module: Atom,
    /// Its index in the module's table of old funs.
    pub old_index: i64,
    /// The hash of its parse tree.
    pub old_uniq: i64,
    /// The process that made it.
    pub pid: Pid,
    /// The values it closes over.
    pub free: List,
}

/// `fun Module:Function/Arity`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExportFun {
    /// The module.
    pub module: Atom,
    /// The function.
    pub function: Atom,
    /// How many arguments it takes.
    pub arity: u8,
}

/// A native record (RECORD_EXT, OTP 29).
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The module that defines it.
    pub module: Atom,
    /// Its name.
    pub name: Atom,
    /// Whether the module exports the definition.
    pub exported: bool,
    /// Names and values, in definition order.
    pub fields: Vec<(Atom, Term)>,
}

macro_rules! sequence {
    ($name:ident, $item:ty) => {
        impl $name {
            /// The elements, for keeping or changing.
            pub fn into_vec(mut self) -> Vec<$item> {
                core::mem::take(&mut self.0)
            }
        }

        impl From<Vec<$item>> for $name {
            fn from(elements: Vec<$item>) -> Self {
                Self(elements)
            }
        }

        impl FromIterator<$item> for $name {
            fn from_iter<I: IntoIterator<Item = $item>>(elements: I) -> Self {
                Self(elements.into_iter().collect())
            }
        }

        impl core::ops::Deref for $name {
            type Target = [$item];

            fn deref(&self) -> &[$item] {
                &self.0
            }
        }
    };
}

sequence!(Tuple, Term);
sequence!(List, Term);
sequence!(Map, (Term, Term));

impl Term {
    /// The integer of this sign and magnitude (little-endian, zero bytes at the end allowed), in the variant that it belongs to.
    pub fn from_magnitude(negative: bool, magnitude: &[u8]) -> Self {
        let len = magnitude.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let magnitude = magnitude.get(..len).unwrap_or_default();
        let mut word = [0; 8];
        if let Some(low) = word.get_mut(..len) {
            low.copy_from_slice(magnitude);
            let word = u64::from_le_bytes(word);
            let value = if negative { -i128::from(word) } else { i128::from(word) };
            if let Ok(value) = i64::try_from(value) {
                return Self::Integer(value);
            }
        }
        Self::BigInteger(Box::new(BigInteger { negative, magnitude: magnitude.to_vec() }))
    }
}

impl BigInteger {
    /// Whether it is below zero.
    pub fn is_negative(&self) -> bool {
        self.negative
    }

    /// The absolute value, little-endian, without zero bytes at the end.
    pub fn magnitude(&self) -> &[u8] {
        &self.magnitude
    }
}
