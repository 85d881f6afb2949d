//! Types that serde's data model has no word for pass through it by hand: the value waits in a slot of the thread while serde
//! carries a newtype struct of a reserved name from one side to the other.
//!
//! serde offers no other way to get a value through unchanged (its own formats use reserved names likewise); the slot is empty before and
//! after each such hand-over.

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;

use bytes::Bytes;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::etf::leaf::{UsualPid, usual_pid};
use crate::etf::write::{short_pid, short_reference};
use crate::etf::{Atom, Pid, Port, RawTerm, Reference, Term};

/// The reserved name: any term.
pub(super) const TERM: &str = "$foundation::Term";
/// The reserved name: an atom. What would come as [`TERM`] may come as text, too.
pub(super) const ATOM: &str = "$foundation::Atom";
/// The reserved name: a pid, which comes encoded, with whatever follows it, or as [`TERM`].
pub(super) const PID: &str = "$foundation::Pid";
/// The reserved name: an encoded term.
pub(super) const RAW: &str = "$foundation::RawTerm";

/// What waits in the slot.
pub(super) enum Native {
    Term(Term),
    Raw(RawTerm),
}

std::thread_local! {
    static SLOT: Cell<Option<Native>> = const { Cell::new(None) };
}

/// Leaves a value for the other side.
pub(super) fn put(native: Native) {
    SLOT.set(Some(native));
}

/// Takes the value that the other side left, if it did.
pub(super) fn take() -> Option<Native> {
    SLOT.take()
}

/// In which form the other side takes a value that it knows.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Form {
    /// It is another format, and takes what it can say.
    Other,
    /// Encoded: an atom as its text.
    Bytes,
    /// It waits in the slot.
    Slot,
}

std::thread_local! {
    static FORM: Cell<Form> = const { Cell::new(Form::Other) };
}

/// Says in which form the next value is wanted, if it is one of those here.
pub(super) fn ask(form: Form) {
    FORM.set(form);
}

/// The form in which a value is wanted.
fn wanted() -> Form {
    FORM.replace(Form::Other)
}

/// Hands a value over through the slot.
fn hand_over<S: Serializer>(serializer: S, native: Native) -> Result<S::Ok, S::Error> {
    put(native);
    let result = serializer.serialize_unit();
    let _ = take();
    result
}

/// A value on its way to a serialiser that said what it wants.
struct HandOver<'a, T>(&'a T);

/// Printed as text for other formats.
impl Serialize for HandOver<'_, Term> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match wanted() {
            Form::Other => serializer.collect_str(self.0),
            Form::Bytes | Form::Slot => hand_over(serializer, Native::Term(self.0.clone())),
        }
    }
}

impl Serialize for HandOver<'_, RawTerm> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match wanted() {
            Form::Bytes if self.0.atoms().is_empty() => serializer.serialize_bytes(self.0.as_bytes()),
            Form::Other => serializer.serialize_bytes(self.0.as_bytes()),
            Form::Bytes | Form::Slot => hand_over(serializer, Native::Raw(self.0.clone())),
        }
    }
}

impl Serialize for HandOver<'_, Bytes> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match wanted() {
            Form::Other => serializer.serialize_bytes(self.0),
            Form::Bytes | Form::Slot => hand_over(serializer, Native::Term(Term::Binary(self.0.clone()))),
        }
    }
}

/// Text for other formats.
impl Serialize for HandOver<'_, Atom> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match wanted() {
            Form::Other => serializer.serialize_str(self.0.as_str()),
            // To say once more that it is text takes longer than to write it.
            Form::Bytes | Form::Slot => serializer.serialize_bytes(self.0.as_bytes()),
        }
    }
}

impl Serialize for Term {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(TERM, &HandOver(self))
    }
}

impl<'de> Deserialize<'de> for Term {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer, "a term", Ok)
    }
}

impl Serialize for RawTerm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(RAW, &HandOver(self))
    }
}

impl<'de> Deserialize<'de> for RawTerm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(RAW, RawVisitor)
    }
}

struct RawVisitor;

impl Visitor<'_> for RawVisitor {
    type Value = RawTerm;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an encoded term")
    }

    fn visit_unit<E: de::Error>(self) -> Result<RawTerm, E> {
        match take() {
            Some(Native::Raw(raw)) => Ok(raw),
            _ => Err(E::custom("an encoded term can only be read from terms")),
        }
    }
}

/// Atoms are strings to other formats.
impl Serialize for Atom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(ATOM, &HandOver(self))
    }
}

impl<'de> Deserialize<'de> for Atom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(ATOM, AtomVisitor)
    }
}

struct AtomVisitor;

impl<'de> Visitor<'de> for AtomVisitor {
    type Value = Atom;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an atom")
    }

    /// From terms.
    fn visit_unit<E: de::Error>(self) -> Result<Atom, E> {
        match take() {
            Some(Native::Term(Term::Atom(atom))) => Ok(atom),
            Some(Native::Term(term)) => {
                let got = super::de::describe(&term);
                Err(E::custom(format_args!("expected an atom, got {got}")))
            }
            _ => Err(E::custom("an atom can only be read from terms")),
        }
    }

    /// From other formats: what they can say.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Atom, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Atom, E> {
        Atom::new(text).map_err(E::custom)
    }

    /// From terms that are read straight from their bytes.
    #[inline]
    fn visit_bytes<E: de::Error>(self, text: &[u8]) -> Result<Atom, E> {
        match Atom::from_short_ascii(text) {
            Some(atom) => Ok(atom),
            None => self.visit_str(core::str::from_utf8(text).map_err(E::custom)?),
        }
    }
}

macro_rules! identifier {
    ($type:ident, $short:expr, $term:expr) => {
        /// Identifiers are printed for other formats, and cannot be read back from them.
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_newtype_struct(TERM, &HandOver(self))
            }
        }

        impl Serialize for HandOver<'_, $type> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let form = wanted();
                if form == Form::Bytes
                    && let Some((bytes, len)) = $short(self.0)
                {
                    return serializer.serialize_bytes(bytes.get(..len).unwrap_or(&bytes));
                }
                let term = $term(self.0.clone());
                match form {
                    Form::Other => serializer.collect_str(&term),
                    Form::Bytes | Form::Slot => hand_over(serializer, Native::Term(term)),
                }
            }
        }
    };
}

identifier!(Pid, short_pid, Term::Pid);
identifier!(Port, no_short_form, |port| Term::Port(Box::new(port)));
identifier!(Reference, short_reference, |reference| Term::Reference(Box::new(reference)));

fn no_short_form(_: &Port) -> Option<([u8; 0], usize)> {
    None
}

impl<'de> Deserialize<'de> for Pid {
    #[inline]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(PID, PidVisitor)
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer, "a port", |term| match term {
            Term::Port(port) => Ok(*port),
            other => Err(other),
        })
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer, "a reference", |term| match term {
            Term::Reference(reference) => Ok(*reference),
            other => Err(other),
        })
    }
}

struct PidVisitor;

impl PidVisitor {
    fn native() -> NativeVisitor<Pid> {
        let convert = |term| match term {
            Term::Pid(pid) => Ok(pid),
            other => Err(other),
        };
        NativeVisitor { expected: "a pid", convert, lifetime: PhantomData }
    }
}

impl<'de> Visitor<'de> for PidVisitor {
    type Value = Pid;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Self::native().expecting(f)
    }

    /// From terms.
    fn visit_unit<E: de::Error>(self) -> Result<Pid, E> {
        Self::native().visit_unit()
    }

    /// From terms that are read straight from their bytes, without the detour through the slot.
    #[inline]
    fn visit_borrowed_bytes<E: de::Error>(self, bytes: &'de [u8]) -> Result<Pid, E> {
        match usual_pid(bytes).filter(UsualPid::is_ascii) {
            Some(pid) => Ok(pid.to_pid()),
            None => Self::native().visit_bytes(bytes),
        }
    }

    /// From other formats: what they can say.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Pid, D::Error> {
        deserializer.deserialize_any(Self::native())
    }
}

/// Up to this size, a copy costs less than a counted reference on its way through the slot.
const COPIED: usize = 64;

/// Serialises bytes without copying them, unless they are few.
pub(super) fn serialize_binary<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    if bytes.len() <= COPIED {
        return serializer.serialize_bytes(bytes);
    }
    serializer.serialize_newtype_struct(TERM, &HandOver(bytes))
}

/// Reads bytes without copying them if they come from a term that shares its buffer.
pub(super) fn deserialize_binary<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    deserialize(deserializer, "a binary", |term| match term {
        Term::Binary(bytes) => Ok(bytes),
        other => Err(other),
    })
}

fn deserialize<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    expected: &'static str,
    convert: fn(Term) -> core::result::Result<T, Term>,
) -> Result<T, D::Error> {
    deserializer.deserialize_newtype_struct(TERM, NativeVisitor { expected, convert, lifetime: PhantomData })
}

struct NativeVisitor<T> {
    expected: &'static str,
    convert: fn(Term) -> core::result::Result<T, Term>,
    lifetime: PhantomData<T>,
}

impl<T> NativeVisitor<T> {
    fn convert<E: de::Error>(self, term: Term) -> Result<T, E> {
        (self.convert)(term).map_err(|term| {
            let got = super::de::describe(&term);
            E::custom(format_args!("expected {}, got {got}", self.expected))
        })
    }
}

impl<'de, T> Visitor<'de> for NativeVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    /// From terms.
    fn visit_unit<E: de::Error>(self) -> Result<T, E> {
        match take() {
            Some(Native::Term(term)) => self.convert(term),
            _ => Err(E::custom(format_args!("{} can only be read from terms", self.expected))),
        }
    }

    /// From other formats: what they can say.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        let atom = Atom::new(text).map_err(E::custom)?;
        self.convert(Term::Atom(atom))
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<T, E> {
        self.convert(Term::Binary(Bytes::copy_from_slice(bytes)))
    }
}
