//! Terms read one after another from their bytes; see [`super::direct`].

use core::fmt;

use serde::de;

use super::de::MAX_DEPTH;
use crate::Limits;
use crate::etf::build;
use crate::etf::keys::{Key, differ_at};
use crate::etf::leaf::{Context, UsualPid, usual_pid};
use crate::etf::raw::Source;
use crate::etf::skim::skim;
use crate::etf::tag::*;
use crate::etf::tape::skip;
use crate::etf::{Pid, Tape, Term};

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
    pub(super) of: Source<'de>,
    /// From the next term on.
    pub(super) rest: &'de [u8],
    pub(super) ended: bool,
    /// Terms that have to come, of all the containers that were begun and of the whole.
    pub(super) missing: u64,
    checks: Option<Checks>,
}

/// A place in the bytes.
pub(super) struct Place<'de> {
    pub(super) rest: &'de [u8],
    missing: u64,
}

/// For bytes that nobody has checked: they are while they are read. What is read is a term by the way it is read, except for
/// what is passed over, and except that a map may have a key twice.
struct Checks {
    /// For a term that is passed over: [`Limits::max_depth`], `max_nodes`, `max_integer_bytes`.
    limits: [usize; 3],
    /// Where the keys of the maps around this place are, of those that may be equal to others.
    keys: Vec<Key>,
}

impl<'de> Reader<'de> {
    /// Reads the term at `pos` of bytes that were checked.
    pub(super) fn checked(of: Source<'de>, pos: usize) -> Self {
        let rest = of.bytes.get(pos..).unwrap_or_default();
        Self { of, rest, ended: false, missing: 1, checks: None }
    }

    /// Reads bytes that nobody has checked; `None` if these limits are narrower than what one who reads would notice.
    pub(super) fn unchecked(of: Source<'de>, limits: &Limits) -> Option<Self> {
        // Each level of a value is two levels of terms at the most: a property list is a list of tuples.
        let max_depth = limits.max_depth.checked_sub(2 * MAX_DEPTH + 2)?;
        // Each term takes at least one byte, and what is not read here is laid out with places of 32 bits.
        if of.bytes.len() > limits.max_nodes.min(u32::MAX as usize) {
            return None;
        }
        let limits = [max_depth, limits.max_nodes, limits.max_integer_bytes];
        let checks = Some(Checks { limits, keys: Vec::new() });
        Some(Self { checks, ..Self::checked(of, 0) })
    }

    /// To come back to.
    #[inline(always)]
    pub(super) fn place(&self) -> Place<'de> {
        Place { rest: self.rest, missing: self.missing }
    }

    #[inline(always)]
    pub(super) fn go_back(&mut self, place: Place<'de>) {
        (self.rest, self.missing) = (place.rest, place.missing);
    }

    /// Goes on behind a term.
    #[inline(always)]
    fn go_on(&mut self, rest: &'de [u8]) {
        self.rest = rest;
        self.missing = self.missing.wrapping_sub(1);
    }

    /// Goes on behind the head of a term with so many terms inside. Each that is missing takes at least one byte: without this,
    /// a type that reads nothing would be made as often as a peer says, whatever there is.
    #[inline(always)]
    fn go_into(&mut self, rest: &'de [u8], inside: u64) -> Option<()> {
        let missing = self.missing.wrapping_add(inside).wrapping_sub(1);
        if missing > rest.len() as u64 {
            return None;
        }
        (self.rest, self.missing) = (rest, missing);
        Some(())
    }

    /// Where the next term is.
    #[inline(always)]
    pub(super) fn pos(&self) -> usize {
        self.of.bytes.len() - self.rest.len()
    }

    /// Passes over a term of so many bytes.
    #[inline(always)]
    fn pass(&mut self, bytes: usize) -> Option<()> {
        self.go_on(self.rest.get(bytes..)?);
        Some(())
    }

    /// How many keys of maps around this place were noted.
    #[inline(always)]
    pub(super) fn noted_keys(&self) -> usize {
        self.checks.as_ref().map_or(0, |checks| checks.keys.len())
    }

    /// Notes a key that may be equal to another one, and what is from there on.
    #[inline(always)]
    pub(super) fn note_key(&mut self, rest: &[u8]) {
        if let Some(checks) = &mut self.checks {
            checks.keys.push(Key { at: (self.of.bytes.len() - rest.len()) as u32, hash: 0 });
        }
    }

    /// Whether the keys that were noted since there were so many are known to differ. Forgets them.
    #[inline(always)]
    pub(super) fn keys_differ(&mut self, since: usize) -> bool {
        let Some(checks) = &mut self.checks else { return true };
        let keys = checks.keys.get(since..).unwrap_or_default();
        let differ = keys.len() < 2 || differ_at(keys, self.of.bytes, self.of.atoms());
        checks.keys.truncate(since);
        differ
    }

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
        self.rest.first().copied()
    }

    /// The next bytes, if there are as many.
    #[inline(always)]
    pub(super) fn start<const N: usize>(&self) -> Option<&'de [u8; N]> {
        self.rest.first_chunk()
    }

    /// Takes the first `len` bytes of what is behind the head of the next term.
    #[inline(always)]
    pub(super) fn take(&mut self, body: &'de [u8], len: usize) -> Option<&'de [u8]> {
        let (taken, rest) = body.split_at_checked(len)?;
        self.go_on(rest);
        Some(taken)
    }

    /// The text of an atom, which is only UTF-8 if the bytes were checked; consumed if it is one.
    #[inline(always)]
    pub(super) fn atom(&mut self) -> Option<&'de [u8]> {
        match self.rest {
            [SMALL_ATOM_UTF8_EXT, len, body @ ..] => self.take(body, usize::from(*len)),
            [ATOM_CACHE_REF | ATOM_EXT, ..] => self.other_atom(),
            _ => None,
        }
    }

    #[inline(never)]
    fn other_atom(&mut self) -> Option<&'de [u8]> {
        match self.rest {
            [ATOM_CACHE_REF, index, rest @ ..] => {
                let atom = self.of.atoms().get(usize::from(*index))?;
                self.go_on(rest);
                Some(atom.as_bytes())
            }
            // Latin-1 beyond ASCII has other bytes in UTF-8.
            [ATOM_EXT, 0, len, body @ ..] if body.get(..usize::from(*len))?.is_ascii() => {
                self.take(body, usize::from(*len))
            }
            _ => None,
        }
    }

    /// The bytes of a binary; consumed if it is one.
    #[inline(always)]
    pub(super) fn binary(&mut self) -> Option<&'de [u8]> {
        let [BINARY_EXT, a, b, c, d, body @ ..] = self.rest else { return None };
        self.take(body, u32::from_be_bytes([*a, *b, *c, *d]) as usize)
    }

    /// An integer of 64 bits; consumed if it is one.
    #[inline(always)]
    pub(super) fn integer(&mut self) -> Option<i64> {
        match self.rest {
            [SMALL_INTEGER_EXT, byte, rest @ ..] => {
                self.go_on(rest);
                Some(i64::from(*byte))
            }
            [INTEGER_EXT, a, b, c, d, rest @ ..] => {
                self.go_on(rest);
                Some(i64::from(i32::from_be_bytes([*a, *b, *c, *d])))
            }
            _ => self.big(),
        }
    }

    #[inline(never)]
    fn big(&mut self) -> Option<i64> {
        if let Some(([SMALL_BIG_EXT, 8, negative, magnitude @ ..], rest)) =
            self.rest.split_first_chunk::<11>()
        {
            let magnitude = i64::from_le_bytes(*magnitude);
            // Less than 2^63.
            if magnitude >= 0 {
                self.go_on(rest);
                return Some(if *negative == 0 { magnitude } else { -magnitude });
            }
        }
        let [SMALL_BIG_EXT, len @ ..=8, negative, body @ ..] = self.rest else { return None };
        let (magnitude, rest) = body.split_at_checked(usize::from(*len))?;
        let mut bytes = [0; 8];
        bytes.iter_mut().zip(magnitude).for_each(|(room, byte)| *room = *byte);
        let value = signed(*negative != 0, u64::from_le_bytes(bytes))?;
        self.go_on(rest);
        Some(value)
    }

    /// An integer beyond `i64` that `u64` holds.
    pub(super) fn wide(&mut self) -> Option<u64> {
        let [SMALL_BIG_EXT, 8, 0, a, b, c, d, e, f, g, h, rest @ ..] = self.rest else { return None };
        self.go_on(rest);
        Some(u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
    }

    #[inline(always)]
    pub(super) fn float(&mut self) -> Option<f64> {
        let ([NEW_FLOAT_EXT, bits @ ..], rest) = self.rest.split_first_chunk::<9>()? else { return None };
        let value = f64::from_be_bytes(*bits);
        if !value.is_finite() {
            return None;
        }
        self.go_on(rest);
        Some(value)
    }

    /// The number of elements of a tuple, which are next.
    #[inline(always)]
    pub(super) fn tuple(&mut self) -> Option<u32> {
        let [SMALL_TUPLE_EXT, arity, rest @ ..] = self.rest else { return None };
        self.go_into(rest, u64::from(*arity))?;
        Some(u32::from(*arity))
    }

    /// The number of elements of a list, or of pairs of a map, which are next.
    #[inline(always)]
    pub(super) fn counted(&mut self, tag: u8) -> Option<u32> {
        let [found, a, b, c, d, rest @ ..] = self.rest else { return None };
        if *found != tag {
            return None;
        }
        let count = u32::from_be_bytes([*a, *b, *c, *d]);
        // A list has a tail, a map twice as many terms.
        let inside = if tag == LIST_EXT { u64::from(count) + 1 } else { 2 * u64::from(count) };
        self.go_into(rest, inside)?;
        Some(count)
    }

    #[inline(always)]
    pub(super) fn nil(&mut self) -> Option<()> {
        let [NIL_EXT, rest @ ..] = self.rest else { return None };
        self.go_on(rest);
        Some(())
    }

    /// Where the next term is; passes over it.
    pub(super) fn skip(&mut self) -> Option<core::ops::Range<usize>> {
        let start = self.pos();
        let Some(checks) = &self.checks else {
            let end = skip(self.of.bytes, start, self.of.atoms())?;
            self.pass(end - start)?;
            return Some(start..end);
        };
        let [max_depth, max_nodes, max_integer_bytes] = checks.limits;
        let limits = Limits { max_depth, max_nodes, max_integer_bytes, ..Limits::default() };
        if let Some(skimmed) = skim(self.rest, self.of.atoms().len(), &limits) {
            self.pass(skimmed.size)?;
            return Some(start..start + skimmed.size);
        }
        let mut tape = Tape::new();
        let span = tape.parse(self.rest, self.of.atoms(), &limits).ok()?.span();
        self.pass(span.end)?;
        Some(start + span.start..start + span.end)
    }

    /// The bytes from a pid of the usual form on, whose name may be no text; consumed if there is one.
    #[inline(always)]
    pub(super) fn encoded_pid(&mut self) -> Option<&'de [u8]> {
        let from = self.rest;
        self.go_on(usual_pid(from)?.rest()?);
        Some(from)
    }

    pub(super) fn pid(&mut self) -> Option<Pid> {
        if let Some(pid) = usual_pid(self.rest).filter(UsualPid::is_ascii) {
            self.go_on(pid.rest()?);
            return Some(pid.to_pid());
        }
        let body = self.rest.get(1..)?;
        let context = Context { atoms: self.of.atoms(), max_integer_bytes: usize::MAX };
        let (pid, size) = context.pid(NEW_PID_EXT, body, false).ok()?;
        self.pass(1 + size)?;
        Some(pid.to_pid())
    }

    /// The next term, owned.
    pub(super) fn term(&mut self) -> Option<Term> {
        match self.tag()? {
            SMALL_INTEGER_EXT | INTEGER_EXT => self.integer().map(Term::Integer),
            BINARY_EXT => {
                let end = self.binary().map(|bytes| (self.pos() - bytes.len())..self.pos())?;
                // However small it is: who asks for bytes without a copy gets them.
                Some(Term::Binary(self.of.bytes.slice(end)))
            }
            NEW_PID_EXT => self.pid().map(Term::Pid),
            _ => self.any_term(),
        }
    }

    fn any_term(&mut self) -> Option<Term> {
        let (start, before) = (self.pos(), self.place());
        let place = if self.checks.is_some() { self.skip()? } else { start..start };
        let source = self.of.bytes;
        if let Some((term, end)) = build::read(source, place.start, self.of.atoms(), Some(source)) {
            self.go_back(before);
            self.pass(end - start)?;
            return Some(term);
        }
        self.go_back(before);
        let place = self.skip()?;
        self.of.range(place).to_term(&Limits::unbounded_terms()).ok()
    }
}

#[inline(always)]
fn signed(negative: bool, magnitude: u64) -> Option<i64> {
    if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}
