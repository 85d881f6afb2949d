//! Terms read one after another from checked bytes; see [`super::direct`].

use core::fmt;

use serde::de;

use crate::Limits;
use crate::etf::leaf::Context;
use crate::etf::tag::*;
use crate::etf::tape::skip;
use crate::etf::{RawTerm, Term};

/// The attempt has ended.
#[derive(Debug)]
pub(super) struct Stop;

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not read from the bytes")
    }
}

impl core::error::Error for Stop {}

impl de::Error for Stop {
    #[cold]
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

pub(super) type Result<T> = core::result::Result<T, Stop>;

/// A place in the bytes of a term.
pub(super) struct Reader<'de> {
    pub(super) of: &'de RawTerm,
    pub(super) bytes: &'de [u8],
    /// The next term.
    pub(super) pos: usize,
    pub(super) ended: bool,
}

impl<'de> Reader<'de> {
    #[cold]
    pub(super) fn stop<T>(&mut self) -> Result<T> {
        self.ended = true;
        Err(Stop)
    }

    /// What was found, unless it was nothing.
    #[inline(always)]
    pub(super) fn some<T>(&mut self, found: Option<T>) -> Result<T> {
        match found {
            Some(found) => Ok(found),
            None => self.stop(),
        }
    }

    /// What is made of the terms inside another. If that fails, nobody knows how far it has come.
    #[inline(always)]
    pub(super) fn inside<T>(&mut self, made: Result<T>) -> Result<T> {
        if made.is_err() {
            self.ended = true;
        }
        made
    }

    #[inline(always)]
    pub(super) fn tag(&self) -> Option<u8> {
        self.bytes.get(self.pos).copied()
    }

    /// The next bytes, if there are as many.
    #[inline(always)]
    pub(super) fn start<const N: usize>(&self) -> Option<&'de [u8; N]> {
        self.bytes.get(self.pos..)?.first_chunk()
    }

    /// Passes over `head` bytes and takes the `len` that follow.
    #[inline(always)]
    pub(super) fn take(&mut self, head: usize, len: usize) -> Option<&'de [u8]> {
        let text = self.bytes.get(self.pos + head..)?.get(..len)?;
        self.pos += head + len;
        Some(text)
    }

    /// The text of an atom in UTF-8; consumed if it is one.
    #[inline(always)]
    pub(super) fn atom(&mut self) -> Option<&'de [u8]> {
        match self.start()? {
            [SMALL_ATOM_UTF8_EXT, len] => self.take(2, usize::from(*len)),
            [ATOM_CACHE_REF, index] => {
                let atom = self.of.atoms().get(usize::from(*index))?;
                self.pos += 2;
                Some(atom.as_bytes())
            }
            [ATOM_EXT, 0] => {
                let [_, _, len] = self.start()?;
                let len = usize::from(*len);
                let text = self.bytes.get(self.pos + 3..)?.get(..len)?;
                // Latin-1 beyond ASCII has other bytes in UTF-8.
                if text.is_ascii() { self.take(3, len) } else { None }
            }
            _ => None,
        }
    }

    /// As [`atom`](Self::atom), not consumed.
    #[inline(always)]
    pub(super) fn peek_atom(&mut self) -> Option<&'de [u8]> {
        let pos = self.pos;
        let atom = self.atom();
        self.pos = pos;
        atom
    }

    /// The bytes of a binary; consumed if it is one.
    #[inline(always)]
    pub(super) fn binary(&mut self) -> Option<&'de [u8]> {
        let [BINARY_EXT, a, b, c, d] = self.start()? else { return None };
        self.take(5, u32::from_be_bytes([*a, *b, *c, *d]) as usize)
    }

    /// An integer of 64 bits; consumed if it is one.
    #[inline(always)]
    pub(super) fn integer(&mut self) -> Option<i64> {
        match self.bytes.get(self.pos..)? {
            [SMALL_INTEGER_EXT, byte, ..] => {
                self.pos += 2;
                Some(i64::from(*byte))
            }
            [INTEGER_EXT, a, b, c, d, ..] => {
                self.pos += 5;
                Some(i64::from(i32::from_be_bytes([*a, *b, *c, *d])))
            }
            _ => self.big(),
        }
    }

    #[inline(never)]
    pub(super) fn big(&mut self) -> Option<i64> {
        match self.bytes.get(self.pos..)? {
            [SMALL_BIG_EXT, 8, negative, a, b, c, d, e, f, g, h, ..] => {
                let magnitude = u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
                let value = signed(*negative != 0, magnitude)?;
                self.pos += 11;
                Some(value)
            }
            [SMALL_BIG_EXT, len @ ..=7, negative, magnitude @ ..] => {
                let mut bytes = [0; 8];
                for (room, byte) in bytes.iter_mut().zip(magnitude.get(..usize::from(*len))?) {
                    *room = *byte;
                }
                self.pos += 3 + usize::from(*len);
                signed(*negative != 0, u64::from_le_bytes(bytes))
            }
            _ => None,
        }
    }

    /// An integer beyond `i64` that `u64` holds.
    pub(super) fn wide(&mut self) -> Option<u64> {
        let [SMALL_BIG_EXT, 8, 0, a, b, c, d, e, f, g, h] = self.start()? else { return None };
        self.pos += 11;
        Some(u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
    }

    #[inline(always)]
    pub(super) fn float(&mut self) -> Option<f64> {
        let [NEW_FLOAT_EXT, bits @ ..] = self.start::<9>()? else { return None };
        self.pos += 9;
        Some(f64::from_be_bytes(*bits))
    }

    /// The number of elements of a tuple, which are next.
    #[inline(always)]
    pub(super) fn tuple(&mut self) -> Option<u32> {
        let [SMALL_TUPLE_EXT, arity] = self.start()? else { return None };
        self.pos += 2;
        Some(u32::from(*arity))
    }

    /// The number of elements of a list, or of pairs of a map, which are next.
    #[inline(always)]
    pub(super) fn counted(&mut self, tag: u8) -> Option<u32> {
        let [found, a, b, c, d] = self.start()?;
        if *found != tag {
            return None;
        }
        self.pos += 5;
        Some(u32::from_be_bytes([*a, *b, *c, *d]))
    }

    #[inline(always)]
    pub(super) fn nil(&mut self) -> Option<()> {
        if self.tag()? != NIL_EXT {
            return None;
        }
        self.pos += 1;
        Some(())
    }

    /// Where the next term is; passes over it.
    pub(super) fn skip(&mut self) -> Option<core::ops::Range<usize>> {
        let start = self.pos;
        self.pos = skip(self.bytes, start, self.of.atoms())?;
        Some(start..self.pos)
    }

    pub(super) fn pid(&mut self) -> Option<Term> {
        let body = self.bytes.get(self.pos + 1..)?;
        let context = Context { atoms: self.of.atoms(), max_integer_bytes: usize::MAX };
        let (pid, size) = context.pid(NEW_PID_EXT, body, false).ok()?;
        self.pos += 1 + size;
        Some(Term::Pid(pid.to_pid()))
    }

    /// The next term, owned.
    pub(super) fn term(&mut self) -> Option<Term> {
        match self.tag()? {
            SMALL_INTEGER_EXT | INTEGER_EXT => self.integer().map(Term::Integer),
            BINARY_EXT => {
                let end = self.binary().map(|bytes| (self.pos - bytes.len())..self.pos)?;
                // However small it is: who asks for bytes without a copy gets them.
                Some(Term::Binary(self.of.as_bytes().slice(end)))
            }
            NEW_PID_EXT => self.pid(),
            _ => {
                let range = self.skip()?;
                self.of.range(range).to_term(&Limits::unbounded_terms()).ok()
            }
        }
    }
}

#[inline(always)]
fn signed(negative: bool, magnitude: u64) -> Option<i64> {
    if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}
