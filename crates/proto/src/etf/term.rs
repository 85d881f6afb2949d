use bytes::Bytes;

use super::{Atom, BigInteger, Map, Pid, Port, Reference};

/// An Erlang term, owned.
///
/// Equality is Erlang's `=:=`. For a look into a message without building this tree, use [`View`](super::View) over the
/// encoded bytes.
///
/// A term may be nested as deeply as memory allows: dropping, cloning, comparing, hashing, printing and encoding never
/// recurse.
#[non_exhaustive]
pub enum Term {
    /// An atom.
    Atom(Atom),
    /// An integer that fits into 64 bits; always this variant if it does.
    Integer(i64),
    /// Any other integer.
    BigInteger(Box<BigInteger>),
    /// A float. Erlang has no NaN and no infinities; such a value cannot be encoded.
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

/// What a term is, for matching on the type alone.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// An atom.
    Atom,
    /// An integer that fits into 64 bits.
    Integer,
    /// Any other integer.
    BigInteger,
    /// A float.
    Float,
    /// A process identifier.
    Pid,
    /// A port identifier.
    Port,
    /// A reference.
    Reference,
    /// A binary.
    Binary,
    /// A bit string whose length is no multiple of eight.
    BitString,
    /// A tuple.
    Tuple,
    /// A proper list, `[]` included.
    List,
    /// A list whose tail is not `[]`.
    ImproperList,
    /// A map.
    Map,
    /// A local fun.
    Fun,
    /// `fun Module:Function/Arity`.
    ExportFun,
    /// A native record.
    Record,
    /// A LOCAL_EXT term.
    Local,
}

/// A bit string whose length is no multiple of eight.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct BitString {
    /// The bytes; the unused low bits of the last are zero.
    pub bytes: Bytes,
    /// How many bits of the last byte count, from the most significant: 1 to 7.
    pub last_bits: u8,
}

/// The elements of a tuple.
#[derive(Clone, Default, Eq, Hash, PartialEq)]
pub struct Tuple(pub(super) Inside);

/// The elements of a proper list.
#[derive(Clone, Default, Eq, Hash, PartialEq)]
pub struct List(pub(super) Inside);

/// The elements of a container, `None` if there are none: a pointer and a length, which a value that was just made is moved
/// with in two registers. A vector moves through memory, in pieces that are not those it was written in, and each such move
/// waits until the writes have reached the cache.
pub(super) type Inside = Option<Box<[Term]>>;

/// A list with a tail other than `[]`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ImproperList {
    /// At least one element.
    pub elements: List,
    /// Neither a proper nor an improper list.
    pub tail: Term,
}

/// A local fun (NEW_FUN_EXT). It can be kept, compared and sent back, but only called by a BEAM that has its module.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
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
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ExportFun {
    /// The module.
    pub module: Atom,
    /// The function.
    pub function: Atom,
    /// How many arguments it takes.
    pub arity: u8,
}

/// A native record (RECORD_EXT, OTP 29).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
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

impl Term {
    /// What the term is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Atom(_) => Kind::Atom,
            Self::Integer(_) => Kind::Integer,
            Self::BigInteger(_) => Kind::BigInteger,
            Self::Float(_) => Kind::Float,
            Self::Pid(_) => Kind::Pid,
            Self::Port(_) => Kind::Port,
            Self::Reference(_) => Kind::Reference,
            Self::Binary(_) => Kind::Binary,
            Self::BitString(_) => Kind::BitString,
            Self::Tuple(_) => Kind::Tuple,
            Self::List(_) => Kind::List,
            Self::ImproperList(_) => Kind::ImproperList,
            Self::Map(_) => Kind::Map,
            Self::Fun(_) => Kind::Fun,
            Self::ExportFun(_) => Kind::ExportFun,
            Self::Record(_) => Kind::Record,
            Self::Local(_) => Kind::Local,
        }
    }

    /// The empty list.
    pub const fn nil() -> Self {
        Self::List(List(None))
    }

    /// An atom of the program itself, as [`Atom::new_static`].
    ///
    /// # Panics
    /// If the text has more than 255 bytes.
    pub const fn atom(text: &'static str) -> Self {
        Self::Atom(Atom::new_static(text))
    }

    /// A tuple of anything that converts to terms: `Term::tuple([Term::atom("ok"), 1.into()])`.
    pub fn tuple(elements: impl IntoIterator<Item = Self>) -> Self {
        Self::Tuple(elements.into_iter().collect())
    }

    /// A proper list.
    pub fn list(elements: impl IntoIterator<Item = Self>) -> Self {
        Self::List(elements.into_iter().collect())
    }

    /// A list with a tail, in the one form that the term has: if `tail` is itself a list, its elements are taken over.
    pub fn list_with_tail(mut elements: Vec<Self>, tail: Self) -> Self {
        match tail {
            Self::List(rest) => {
                elements.extend(rest.into_vec());
                Self::List(elements.into())
            }
            Self::ImproperList(rest) => {
                let (more, tail) = rest.into_parts();
                elements.extend(more.into_vec());
                Self::ImproperList(Box::new(ImproperList { elements: elements.into(), tail }))
            }
            tail if elements.is_empty() => tail,
            tail => Self::ImproperList(Box::new(ImproperList { elements: elements.into(), tail })),
        }
    }

    /// The list of characters that Erlang calls a string.
    pub fn charlist(text: &str) -> Self {
        text.chars().map(|c| Self::Integer(i64::from(u32::from(c)))).collect::<List>().into()
    }

    /// A binary that owns a copy of `bytes`.
    pub fn binary(bytes: &[u8]) -> Self {
        Self::Binary(Bytes::copy_from_slice(bytes))
    }

    /// A bit string of `bytes`, of which the last counts with its `last_bits` most significant bits (1 to 8); a binary if
    /// these are whole bytes. `None` if the two do not fit together.
    pub fn bits(bytes: Bytes, last_bits: u8) -> Option<Self> {
        match (bytes.split_last(), last_bits) {
            (_, 8) => Some(Self::Binary(bytes)),
            (Some((last, whole)), 1..=7) => {
                let last_byte = last & (0xFF << (8 - last_bits));
                let bytes =
                    if last_byte == *last { bytes.clone() } else { [whole, &[last_byte]].concat().into() };
                Some(Self::BitString(Box::new(BitString { bytes, last_bits })))
            }
            _ => None,
        }
    }

    /// The atom, if it is one.
    pub fn as_atom(&self) -> Option<&Atom> {
        if let Self::Atom(atom) = self { Some(atom) } else { None }
    }

    /// Whether it is the atom with this text.
    pub fn is_atom(&self, text: &str) -> bool {
        self.as_atom().is_some_and(|atom| atom == text)
    }

    /// `true` or `false`, if it is one of these two atoms.
    pub fn as_bool(&self) -> Option<bool> {
        match self.as_atom()?.as_bytes() {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        }
    }

    /// The integer, if it is one of 64 bits.
    pub fn as_i64(&self) -> Option<i64> {
        if let Self::Integer(value) = self { Some(*value) } else { None }
    }

    /// The integer, if it is one of 128 bits.
    pub fn as_i128(&self) -> Option<i128> {
        match self {
            Self::Integer(value) => Some(i128::from(*value)),
            Self::BigInteger(value) => value.to_i128(),
            _ => None,
        }
    }

    /// The float, if it is one. An integer is none.
    pub fn as_f64(&self) -> Option<f64> {
        if let Self::Float(value) = self { Some(*value) } else { None }
    }

    /// The bytes, if it is a binary.
    pub fn as_binary(&self) -> Option<&Bytes> {
        if let Self::Binary(bytes) = self { Some(bytes) } else { None }
    }

    /// The text, if it is a binary of UTF-8: an Elixir string.
    pub fn as_str(&self) -> Option<&str> {
        core::str::from_utf8(self.as_binary()?).ok()
    }

    /// The pid, if it is one.
    pub fn as_pid(&self) -> Option<&Pid> {
        if let Self::Pid(pid) = self { Some(pid) } else { None }
    }

    /// The port, if it is one.
    pub fn as_port(&self) -> Option<&Port> {
        if let Self::Port(port) = self { Some(port) } else { None }
    }

    /// The reference, if it is one.
    pub fn as_reference(&self) -> Option<&Reference> {
        if let Self::Reference(reference) = self { Some(reference) } else { None }
    }

    /// The elements, if it is a tuple.
    pub fn as_tuple(&self) -> Option<&[Self]> {
        if let Self::Tuple(elements) = self { Some(elements) } else { None }
    }

    /// The elements, if it is a proper list.
    pub fn as_list(&self) -> Option<&[Self]> {
        if let Self::List(elements) = self { Some(elements) } else { None }
    }

    /// The pairs, if it is a map.
    pub fn as_map(&self) -> Option<&Map> {
        if let Self::Map(map) = self { Some(map) } else { None }
    }

    /// Whether other terms are inside.
    pub(super) fn is_nested(&self) -> bool {
        match self {
            Self::Tuple(Tuple(elements)) | Self::List(List(elements)) => elements.is_some(),
            Self::Map(map) => !map.is_empty(),
            Self::ImproperList(_) | Self::Fun(_) | Self::Record(_) => true,
            _ => false,
        }
    }
}

impl Default for Term {
    fn default() -> Self {
        Self::nil()
    }
}

macro_rules! sequence {
    ($($name:ident)*) => {
        $(
            impl $name {
                /// The elements, for keeping or changing.
                pub fn into_vec(mut self) -> Vec<Term> {
                    self.0.take().map_or_else(Vec::new, <[Term]>::into_vec)
                }
            }

            impl From<Vec<Term>> for $name {
                #[inline]
                fn from(elements: Vec<Term>) -> Self {
                    Self(if elements.is_empty() { None } else { Some(elements.into_boxed_slice()) })
                }
            }

            impl FromIterator<Term> for $name {
                fn from_iter<I: IntoIterator<Item = Term>>(elements: I) -> Self {
                    elements.into_iter().collect::<Vec<_>>().into()
                }
            }

            impl core::ops::Deref for $name {
                type Target = [Term];

                fn deref(&self) -> &[Term] {
                    self.0.as_deref().unwrap_or_default()
                }
            }
        )*
    };
}

sequence!(Tuple List);

impl ImproperList {
    /// Elements and tail, for keeping or changing.
    pub fn into_parts(mut self) -> (List, Term) {
        (core::mem::take(&mut self.elements), core::mem::take(&mut self.tail))
    }
}

impl Record {
    /// The value of a field.
    pub fn get(&self, field: &str) -> Option<&Term> {
        self.fields.iter().find(|(name, _)| name == field).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_is_five_words() {
        assert_eq!(size_of::<Term>(), 40);
    }

    #[test]
    fn a_list_has_one_form() {
        let two = Term::list([1.into(), 2.into()]);
        assert_eq!(Term::list_with_tail(vec![1.into()], Term::list([2.into()])), two);
        assert_eq!(Term::list_with_tail(vec![1.into(), 2.into()], Term::nil()), two);
        assert_eq!(Term::list_with_tail(vec![], 7.into()), 7.into());
        let improper = Term::list_with_tail(vec![2.into()], 3.into());
        let longer = Term::list_with_tail(vec![1.into()], improper);
        let Term::ImproperList(longer) = longer else { panic!("{longer:?}") };
        let (elements, tail) = longer.into_parts();
        assert_eq!((Term::from(elements), tail), (two, 3.into()));
    }

    #[test]
    fn bit_strings_have_one_form() {
        assert_eq!(Term::bits(Bytes::from_static(&[7]), 8), Some(Term::binary(&[7])));
        assert_eq!(Term::bits(Bytes::from_static(&[0xFF]), 3), Term::bits(Bytes::from_static(&[0xE0]), 3));
        assert_eq!(Term::bits(Bytes::new(), 3), None);
        assert_eq!(Term::bits(Bytes::from_static(&[1]), 9), None);
    }
}
