//! Reading the terms that have no other terms inside.

use super::atom::AtomRef;
use super::integer::to_i64;
use super::tag::*;
use super::walk::{PidRef, PortRef, ReferenceRef};
use super::{Atom, Kind, Pid, Reference};
use crate::error::Problem;
use crate::{Error, Result};

/// What is needed to understand a leaf besides its bytes.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    /// The atoms of the distribution header.
    pub(super) atoms: &'a [Atom],
    pub(super) max_integer_bytes: usize,
}

const CACHE_REF_IN_LOCAL: Problem = Problem::Other("ATOM_CACHE_REF inside LOCAL_EXT");

/// What is wrong, without the place; that is added once.
type Read<T> = core::result::Result<T, Problem>;

impl<'a> Context<'a> {
    /// The kind and size (tag included) of the leaf at the front, which is at `at` of the input. `local`: inside LOCAL_EXT.
    #[inline(never)]
    pub(super) fn leaf(&self, rest: &[u8], at: usize, local: bool) -> Result<(Kind, usize)> {
        let Some((&tag, body)) = rest.split_first() else {
            return Err(Error::malformed("term", at, Problem::Truncated));
        };
        let found = match tag {
            // Opaque terms are kept as they are, so nothing inside may depend on the frame.
            ATOM_CACHE_REF if local => Err(CACHE_REF_IN_LOCAL),
            SMALL_INTEGER_EXT => fixed(body, Kind::Integer, 1),
            INTEGER_EXT => fixed(body, Kind::Integer, 4),
            SMALL_ATOM_UTF8_EXT | ATOM_CACHE_REF | ATOM_UTF8_EXT | SMALL_ATOM_EXT | ATOM_EXT => {
                self.atom(tag, body).map(|(_, size)| (Kind::Atom, size))
            }
            BINARY_EXT => counted(body).and_then(|len| fixed(body, Kind::Binary, len.saturating_add(4))),
            NIL_EXT => Ok((Kind::List, 0)),
            STRING_EXT => match body.first_chunk() {
                Some(len) => fixed(body, Kind::List, 2 + usize::from(u16::from_be_bytes(*len))),
                None => Err(Problem::Truncated),
            },
            SMALL_BIG_EXT => match body.first() {
                Some(len) => self.big(body, 1, usize::from(*len)),
                None => Err(Problem::Truncated),
            },
            NEW_FLOAT_EXT => match body.first_chunk() {
                Some(bytes) if f64::from_be_bytes(*bytes).is_finite() => Ok((Kind::Float, 8)),
                Some(_) => Err(Problem::OutOfRange("NaN or an infinity")),
                None => Err(Problem::Truncated),
            },
            NEW_PID_EXT | PID_EXT => self.pid(tag, body, local).map(|(_, size)| (Kind::Pid, size)),
            NEWER_REFERENCE_EXT | NEW_REFERENCE_EXT | REFERENCE_EXT => {
                self.reference(tag, body, local).map(|(_, size)| (Kind::Reference, size))
            }
            V4_PORT_EXT | NEW_PORT_EXT | PORT_EXT => {
                self.port(tag, body, local).map(|(_, size)| (Kind::Port, size))
            }
            LARGE_BIG_EXT => counted(body).and_then(|len| {
                if len > self.max_integer_bytes {
                    return Err(Problem::CountTooLarge(len as u64));
                }
                self.big(body, 4, len)
            }),
            BIT_BINARY_EXT => bit_binary(body),
            FLOAT_EXT => float_text(body).map(|_| (Kind::Float, 31)),
            // COMPRESSED is a tag only after the version byte, a container's tag only with its count behind it.
            COMPRESSED => return Err(Error::malformed("term", at, Problem::UnknownTag(tag))),
            _ if name(tag).is_none() => return Err(Error::malformed("term", at, Problem::UnknownTag(tag))),
            _ => Err(Problem::Truncated),
        };
        match found {
            Ok((kind, size)) => Ok((kind, 1 + size)),
            Err(problem) => Err(self.explain(tag, at, problem)),
        }
    }

    #[cold]
    fn explain(&self, tag: u8, at: usize, problem: Problem) -> Error {
        match problem {
            Problem::CountTooLarge(len) if tag == LARGE_BIG_EXT => {
                Error::limit("max_integer_bytes", len, self.max_integer_bytes as u64)
            }
            problem => Error::malformed(name(tag).unwrap_or("term"), at, problem),
        }
    }

    /// SMALL_BIG_EXT and LARGE_BIG_EXT: `head` bytes of length, a sign, `len` bytes.
    #[inline]
    fn big(&self, body: &[u8], head: usize, len: usize) -> Read<(Kind, usize)> {
        let size = head + 1 + len;
        let Some([negative, magnitude @ ..]) = body.get(head..size) else { return Err(Problem::Truncated) };
        // Seven bytes always fit.
        let fits = len < 8 || to_i64(*negative != 0, magnitude).is_some();
        Ok((if fits { Kind::Integer } else { Kind::BigInteger }, size))
    }

    /// An atom and the size of its body.
    #[inline]
    pub(super) fn atom(&self, tag: u8, body: &'a [u8]) -> Read<(AtomRef<'a>, usize)> {
        let (head, len) = match (tag, body) {
            (SMALL_ATOM_UTF8_EXT | SMALL_ATOM_EXT, [len, ..]) => (1, usize::from(*len)),
            (ATOM_UTF8_EXT | ATOM_EXT, [high, low, ..]) => {
                (2, usize::from(u16::from_be_bytes([*high, *low])))
            }
            (ATOM_CACHE_REF, [index, ..]) => {
                return match self.atoms.get(usize::from(*index)) {
                    Some(atom) => Ok((atom.into(), 1)),
                    None => Err(Problem::OutOfRange("atom cache reference")),
                };
            }
            (SMALL_ATOM_UTF8_EXT | SMALL_ATOM_EXT | ATOM_UTF8_EXT | ATOM_EXT | ATOM_CACHE_REF, _) => {
                return Err(Problem::Truncated);
            }
            _ => return Err(Problem::Other("an atom was expected")),
        };
        let Some(text) = body.get(head..head + len) else { return Err(Problem::Truncated) };
        let size = head + len;
        if matches!(tag, SMALL_ATOM_EXT | ATOM_EXT) {
            if len > Atom::MAX_CHARACTERS {
                return Err(Problem::OutOfRange("atom length"));
            }
            return Ok((AtomRef::latin1(text), size));
        }
        if !text.is_ascii() {
            let text = core::str::from_utf8(text).map_err(|_| Problem::NotUtf8)?;
            if len > Atom::MAX_CHARACTERS && text.chars().count() > Atom::MAX_CHARACTERS {
                return Err(Problem::OutOfRange("atom length"));
            }
        } else if len > Atom::MAX_CHARACTERS {
            return Err(Problem::OutOfRange("atom length"));
        }
        Ok((AtomRef::utf8(text), size))
    }

    /// The node name inside an identifier, tag included, and its size.
    fn node(&self, rest: &'a [u8], local: bool) -> Read<(AtomRef<'a>, usize)> {
        match rest.split_first() {
            Some((&NIL_EXT, _)) if local => Ok((AtomRef::utf8(b""), 1)),
            Some((&ATOM_CACHE_REF, _)) if local => Err(CACHE_REF_IN_LOCAL),
            Some((&tag, body)) => self.atom(tag, body).map(|(atom, size)| (atom, 1 + size)),
            None => Err(Problem::Truncated),
        }
    }

    pub(super) fn pid(&self, tag: u8, body: &'a [u8], local: bool) -> Read<(PidRef<'a>, usize)> {
        let (node, size) = self.node(body, local)?;
        let rest = body.get(size..).unwrap_or_default();
        let (id, rest) = word(rest)?;
        let (serial, rest) = word(rest)?;
        let (creation, size_of_creation) = creation(tag == PID_EXT, rest)?;
        Ok((PidRef { serial, id, node, creation }, size + 8 + size_of_creation))
    }

    pub(super) fn port(&self, tag: u8, body: &'a [u8], local: bool) -> Read<(PortRef<'a>, usize)> {
        let (node, size) = self.node(body, local)?;
        let rest = body.get(size..).unwrap_or_default();
        let (high, size, rest) = if tag == V4_PORT_EXT {
            let (high, rest) = word(rest)?;
            (high, size + 4, rest)
        } else {
            (0, size, rest)
        };
        let (low, rest) = word(rest)?;
        let (creation, size_of_creation) = creation(tag == PORT_EXT, rest)?;
        Ok((
            PortRef { node, creation, id: u64::from(high) << 32 | u64::from(low) },
            size + 4 + size_of_creation,
        ))
    }

    /// A reference, and its words in wire order.
    pub(super) fn reference(&self, tag: u8, body: &'a [u8], local: bool) -> Read<(ReferenceRef<'a>, usize)> {
        let (words, head) = match (tag, body) {
            (REFERENCE_EXT, _) => (1, 0),
            (_, [high, low, ..]) => (usize::from(u16::from_be_bytes([*high, *low])), 2),
            _ => return Err(Problem::Truncated),
        };
        if !(1..=Reference::MAX_WORDS).contains(&words) {
            return Err(Problem::OutOfRange("number of words"));
        }
        let (node, size) = self.node(body.get(head..).unwrap_or_default(), local)?;
        let size = head + size;
        let rest = body.get(size..).unwrap_or_default();
        let (creation, rest, size_of_creation) = if tag == REFERENCE_EXT {
            let (_, after) = word(rest)?;
            let (creation, size) = creation(true, after)?;
            (creation, rest, size)
        } else {
            let (creation, size) = creation(tag == NEW_REFERENCE_EXT, rest)?;
            (creation, rest.get(size..).unwrap_or_default(), size)
        };
        let Some(ids) = rest.get(..4 * words) else { return Err(Problem::Truncated) };
        let ids = ids.as_chunks().0.iter().map(|word| u32::from_be_bytes(*word));
        Ok((ReferenceRef::new(node, creation, ids), size + 4 * words + size_of_creation))
    }
}

/// A pid in the form in which nearly all are.
pub(super) struct UsualPid<'a> {
    /// The name of its node, and all that follows it.
    pub(super) name: &'a [u8],
    /// How long the name is.
    pub(super) len: usize,
    pub(super) id: u32,
    pub(super) serial: u32,
    pub(super) creation: u32,
}

impl<'a> UsualPid<'a> {
    /// For a name that was checked.
    #[inline]
    pub(super) fn to_pid(&self) -> Pid {
        let node = Atom::from_checked(self.name, self.len);
        Pid { node, id: self.id, serial: self.serial, creation: self.creation }
    }

    /// Whether its name is text of the usual kind.
    #[cfg(feature = "serde")]
    #[inline]
    pub(super) fn is_ascii(&self) -> bool {
        self.name.get(..self.len).is_some_and(<[u8]>::is_ascii)
    }

    /// What follows it.
    #[inline]
    pub(super) fn rest(&self) -> Option<&'a [u8]> {
        self.name.get(self.len + 12..)
    }
}

/// The pid at the front, if it is in the form in which nearly all are. Its name may be no text.
#[inline]
pub(super) fn usual_pid(rest: &[u8]) -> Option<UsualPid<'_>> {
    let [NEW_PID_EXT, SMALL_ATOM_UTF8_EXT, len, name @ ..] = rest else { return None };
    let len = usize::from(*len);
    let numbers = name.get(len..)?.first_chunk::<12>()?;
    let [id, serial, creation] = numbers.as_chunks().0 else { return None };
    let number = |bytes: &[u8; 4]| u32::from_be_bytes(*bytes);
    Some(UsualPid { name, len, id: number(id), serial: number(serial), creation: number(creation) })
}

/// The size of the atom at the front, tag included.
pub(super) fn atom_size(rest: &[u8]) -> Option<usize> {
    match rest {
        [ATOM_CACHE_REF, ..] => Some(2),
        [SMALL_ATOM_UTF8_EXT | SMALL_ATOM_EXT, len, ..] => Some(2 + usize::from(*len)),
        [ATOM_UTF8_EXT | ATOM_EXT, high, low, ..] => Some(3 + usize::from(u16::from_be_bytes([*high, *low]))),
        _ => None,
    }
}

/// A leaf of `kind` whose body has this size.
#[inline]
fn fixed(body: &[u8], kind: Kind, size: usize) -> Read<(Kind, usize)> {
    if body.len() < size { Err(Problem::Truncated) } else { Ok((kind, size)) }
}

/// A length of 32 bits at the front.
#[inline]
fn counted(body: &[u8]) -> Read<usize> {
    body.first_chunk().map(|len| u32::from_be_bytes(*len) as usize).ok_or(Problem::Truncated)
}

fn word(rest: &[u8]) -> Read<(u32, &[u8])> {
    rest.split_first_chunk().map(|(word, rest)| (u32::from_be_bytes(*word), rest)).ok_or(Problem::Truncated)
}

/// A creation and its size: 32 bits, or the two bits in one byte of the old forms.
fn creation(old: bool, rest: &[u8]) -> Read<(u32, usize)> {
    if !old {
        return word(rest).map(|(creation, _)| (creation, 4));
    }
    match rest.first() {
        Some(creation @ 0..=3) => Ok((u32::from(*creation), 1)),
        Some(_) => Err(Problem::OutOfRange("creation")),
        None => Err(Problem::Truncated),
    }
}

fn bit_binary(body: &[u8]) -> Read<(Kind, usize)> {
    let len = counted(body)?;
    match body.get(4) {
        // OTP 25 took an empty one with 0 bits; OTP 29 does not.
        Some(1..=8) if len > 0 => {}
        Some(_) => return Err(Problem::OutOfRange("bits of the last byte")),
        None => return Err(Problem::Truncated),
    }
    let kind = if body.get(4) == Some(&8) { Kind::Binary } else { Kind::BitString };
    fixed(body, kind, len.saturating_add(5))
}

/// The 31 bytes of FLOAT_EXT: digits, a point or comma, digits, perhaps an exponent; then zero bytes.
pub(super) fn float_text(body: &[u8]) -> Read<f64> {
    const WRONG: Problem = Problem::Other("not a float in decimal notation");
    let text = body.get(..31).ok_or(Problem::Truncated)?;
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let digits = |text: &mut core::iter::Peekable<core::slice::Iter<'_, u8>>| {
        let mut any = false;
        while text.next_if(|byte| byte.is_ascii_digit()).is_some() {
            any = true;
        }
        any
    };
    let mut rest = text.iter().peekable();
    let sign = |byte: &&u8| matches!(byte, b'+' | b'-');
    rest.next_if(sign);
    let whole = digits(&mut rest);
    let point = rest.next_if(|byte| matches!(byte, b'.' | b',')).is_some();
    let fraction = digits(&mut rest);
    let exponent = rest.next_if(|byte| matches!(byte, b'e' | b'E')).is_none() || {
        rest.next_if(sign);
        digits(&mut rest)
    };
    if !(whole && point && fraction && exponent && rest.next().is_none()) {
        return Err(WRONG);
    }
    let text: String = text.iter().map(|byte| if *byte == b',' { '.' } else { char::from(*byte) }).collect();
    text.parse().ok().filter(|value: &f64| value.is_finite()).ok_or(WRONG)
}
