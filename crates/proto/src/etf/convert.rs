//! Conversions between terms and Rust's own types.

use bytes::Bytes;

use super::{
    Atom, BitString, ExportFun, Fun, ImproperList, List, Map, Pid, Port, Record, Reference, Term, Tuple,
};
use crate::Error;

macro_rules! from_integer {
    ($($int:ty)*) => {
        $(
            impl From<$int> for Term {
                fn from(value: $int) -> Self {
                    Self::Integer(i64::from(value))
                }
            }
        )*
    };
}

from_integer!(u8 u16 u32 i8 i16 i32 i64);

macro_rules! from_wide_integer {
    ($($int:ty)*) => {
        $(
            impl From<$int> for Term {
                #[allow(unused_comparisons, reason = "the unsigned types share this body")]
                fn from(value: $int) -> Self {
                    match i64::try_from(value) {
                        Ok(value) => Self::Integer(value),
                        Err(_) => Self::from_magnitude(value < 0, &value.abs_diff(0).to_le_bytes()),
                    }
                }
            }
        )*
    };
}

from_wide_integer!(u64 u128 i128 usize isize);

macro_rules! from_variant {
    ($($from:ty => $variant:ident)*) => {
        $(
            impl From<$from> for Term {
                fn from(value: $from) -> Self {
                    Self::$variant(value.into())
                }
            }
        )*
    };
}

from_variant! {
    Atom => Atom
    bool => Atom
    Pid => Pid
    Port => Port
    Reference => Reference
    Bytes => Binary
    BitString => BitString
    Tuple => Tuple
    List => List
    ImproperList => ImproperList
    Vec<Self> => List
    Map => Map
    Fun => Fun
    ExportFun => ExportFun
    Record => Record
}

/// A string becomes a binary, as in Elixir; see [`Term::charlist`] and [`Term::atom`] for the other two readings.
impl From<&str> for Term {
    fn from(text: &str) -> Self {
        Self::binary(text.as_bytes())
    }
}

/// A string becomes a binary, as in Elixir.
impl From<String> for Term {
    fn from(text: String) -> Self {
        Self::Binary(text.into())
    }
}

impl From<&Atom> for Term {
    fn from(atom: &Atom) -> Self {
        Self::Atom(atom.clone())
    }
}

impl From<&Pid> for Term {
    fn from(pid: &Pid) -> Self {
        Self::Pid(pid.clone())
    }
}

impl From<&Reference> for Term {
    fn from(reference: &Reference) -> Self {
        Self::Reference(Box::new(reference.clone()))
    }
}

/// Fails for NaN and the infinities, which Erlang does not have.
impl TryFrom<f64> for Term {
    type Error = Error;

    fn try_from(value: f64) -> Result<Self, Error> {
        if value.is_finite() {
            Ok(Self::Float(value))
        } else {
            Err(Error::ApiMisuse("Erlang floats are finite"))
        }
    }
}

macro_rules! tuple {
    ($($name:ident)*) => {
        impl<$($name: Into<Term>),*> From<($($name,)*)> for Term {
            #[allow(non_snake_case, reason = "the type parameters double as variables")]
            fn from(($($name,)*): ($($name,)*)) -> Self {
                Self::Tuple(vec![$($name.into()),*].into())
            }
        }
    };
}

tuple!(A);
tuple!(A B);
tuple!(A B C);
tuple!(A B C D);
tuple!(A B C D E);
tuple!(A B C D E F);
tuple!(A B C D E F G);
tuple!(A B C D E F G H);

/// The term is not of the wanted type, or its value does not fit; here it is back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WrongType(pub Term);

impl core::fmt::Display for WrongType {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "a term of another type or size was expected, not {:?}", self.0)
    }
}

impl core::error::Error for WrongType {}

macro_rules! try_into_integer {
    ($($int:ty)*) => {
        $(
            impl TryFrom<Term> for $int {
                type Error = WrongType;

                fn try_from(term: Term) -> Result<Self, WrongType> {
                    term.as_i128().and_then(|value| value.try_into().ok()).ok_or(WrongType(term))
                }
            }
        )*
    };
}

try_into_integer!(u8 u16 u32 u64 usize i8 i16 i32 i64 isize i128);

macro_rules! try_into_variant {
    ($($into:ty, $pattern:pat => $value:expr;)*) => {
        $(
            impl TryFrom<Term> for $into {
                type Error = WrongType;

                fn try_from(term: Term) -> Result<Self, WrongType> {
                    match term {
                        $pattern => Ok($value),
                        other => Err(WrongType(other)),
                    }
                }
            }
        )*
    };
}

try_into_variant! {
    Atom, Term::Atom(atom) => atom;
    f64, Term::Float(value) => value;
    Pid, Term::Pid(pid) => pid;
    Port, Term::Port(port) => *port;
    Reference, Term::Reference(reference) => *reference;
    Bytes, Term::Binary(bytes) => bytes;
    Tuple, Term::Tuple(elements) => elements;
    List, Term::List(elements) => elements;
    Map, Term::Map(map) => map;
}

impl TryFrom<Term> for bool {
    type Error = WrongType;

    fn try_from(term: Term) -> Result<Self, WrongType> {
        term.as_bool().ok_or(WrongType(term))
    }
}

/// The text of a binary of UTF-8.
impl TryFrom<Term> for String {
    type Error = WrongType;

    fn try_from(term: Term) -> Result<Self, WrongType> {
        term.as_str().map(Self::from).ok_or(WrongType(term))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_take_the_smallest_form() {
        assert!(matches!(Term::from(u64::MAX), Term::BigInteger(_)));
        assert!(matches!(Term::from(i64::MAX as u64), Term::Integer(i64::MAX)));
        assert!(matches!(Term::from(i128::from(i64::MIN)), Term::Integer(i64::MIN)));
        for value in [i128::MIN, i128::MAX, i128::from(i64::MIN) - 1, -1, 0, 1 << 64] {
            assert_eq!(i128::try_from(Term::from(value)), Ok(value));
        }
        assert_eq!(u64::try_from(Term::from(u64::MAX)), Ok(u64::MAX));
        assert!(u8::try_from(Term::from(256)).is_err());
    }

    #[test]
    fn tuples_nest() {
        let term = Term::from((Term::atom("reply"), ("x", 1), true));
        assert_eq!(term.as_tuple().unwrap()[1], Term::tuple(["x".into(), 1.into()]));
        assert_eq!(term.as_tuple().unwrap()[2].as_bool(), Some(true));
        assert!(Term::try_from(f64::NAN).is_err());
    }
}
