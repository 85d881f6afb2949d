//! Owned terms straight from checked bytes, in one pass and without a tape.
//!
//! What is rare, or nested too deeply for recursion, ends the attempt. The term is then laid out and built from its nodes
//! (see [`super::decode`]), which knows everything.

use core::iter::once;

use bytes::{Bytes, BytesMut};

use super::leaf::Context;
use super::pool::{Lent, lend};
use super::tag::*;
use super::term::Inside;
use super::{Atom, ExportFun, Fun, List, Map, Pid, Port, Reference, Term, Tuple};

/// Levels that are built by recursion. What is nested deeper is built on a stack of values.
pub(super) const LEVELS: u32 = 32;

/// The term at `at` of `bytes`, which were checked. `source` is the memory that they are, if large binaries may be slices of
/// it. And where the term ends. `None` if there is something in it that is not read here.
pub(super) fn read(bytes: &[u8], at: usize, atoms: &[Atom], source: Option<&Bytes>) -> Option<(Term, usize)> {
    let (rest, binaries) = (bytes.get(at..)?, Binaries::new(source));
    let pool = lend();
    let mut builder =
        Builder { bytes, rest, atoms, long: LongAtoms::default(), binaries, failed: false, pool };
    let term = builder.term(LEVELS);
    if builder.failed { None } else { Some((term, builder.pos())) }
}

struct Builder<'a> {
    bytes: &'a [u8],
    /// From the next term on.
    rest: &'a [u8],
    /// Those of the distribution header.
    atoms: &'a [Atom],
    long: LongAtoms,
    binaries: Binaries<'a>,
    /// Something came that is not read here: what is made is thrown away.
    failed: bool,
    pool: Lent,
}

impl<'a> Builder<'a> {
    /// Where the next term is.
    fn pos(&self) -> usize {
        self.bytes.len() - self.rest.len()
    }

    /// The next term.
    #[inline(never)]
    fn term(&mut self, levels: u32) -> Term {
        let count = |a, b, c, d| u32::from_be_bytes([a, b, c, d]) as usize;
        match *self.rest {
            [SMALL_ATOM_UTF8_EXT, len, ref text @ ..] => {
                let len = usize::from(len);
                self.rest = text.get(len..).unwrap_or_default();
                Term::Atom(self.name(text, len))
            }
            [SMALL_INTEGER_EXT, byte, ref after @ ..] => {
                self.rest = after;
                Term::Integer(i64::from(byte))
            }
            [INTEGER_EXT, a, b, c, d, ref after @ ..] => {
                self.rest = after;
                Term::Integer(i64::from(i32::from_be_bytes([a, b, c, d])))
            }
            [BINARY_EXT, a, b, c, d, ..] => Term::Binary(self.binary(5, count(a, b, c, d))),
            [NIL_EXT, ref after @ ..] => {
                self.rest = after;
                Term::nil()
            }
            [SMALL_TUPLE_EXT, arity, ref after @ ..] if levels > 0 => {
                self.rest = after;
                Term::Tuple(Tuple(self.elements(usize::from(arity), levels - 1)))
            }
            [LIST_EXT, a, b, c, d, ref after @ ..] if levels > 0 => {
                self.rest = after;
                self.list(count(a, b, c, d), levels - 1)
            }
            [MAP_EXT, a, b, c, d, ref after @ ..] if levels > 0 => {
                self.rest = after;
                self.map(count(a, b, c, d), levels - 1)
            }
            [NEW_PID_EXT, SMALL_ATOM_UTF8_EXT, len, ref text @ ..] => self.pid(text, usize::from(len)),
            _ => self.rare(levels).unwrap_or_else(|| self.fail()),
        }
    }

    #[cold]
    fn fail(&mut self) -> Term {
        self.failed = true;
        Term::nil()
    }

    /// The next `count` terms.
    // `extend` instead of `push`: it makes room first and the term afterwards, in its place. A pushed term is made on the
    // stack and then copied, and the copy has to wait for the parts to be written, which costs several times as much.
    fn elements(&mut self, count: usize, levels: u32) -> Inside {
        if count == 0 {
            return None;
        }
        let mut elements = self.pool.room(count);
        let mut rest = self.rest;
        while elements.len() < count {
            match *rest {
                [SMALL_ATOM_UTF8_EXT, len, ref text @ ..] if usize::from(len) <= Atom::INLINE => {
                    let len = usize::from(len);
                    elements.extend(once(text).map(|text| Term::Atom(Atom::from_checked(text, len))));
                    rest = text.get(len..).unwrap_or_default();
                }
                [SMALL_INTEGER_EXT | INTEGER_EXT, ..]
                | [SMALL_BIG_EXT, 8, _, _, _, _, _, _, _, _, 0..=0x7F, ..] => {
                    rest = integers(rest, &mut elements, count);
                }
                [NIL_EXT, ref after @ ..] => {
                    rest = after;
                    elements.extend(once(()).map(|()| Term::nil()));
                }
                [SMALL_TUPLE_EXT, arity, ref after @ ..] if levels > 0 && !self.failed => {
                    self.rest = after;
                    let inside = self.elements(usize::from(arity), levels - 1);
                    elements.extend(once(inside).map(|inside| Term::Tuple(Tuple(inside))));
                    rest = self.rest;
                }
                _ => {
                    self.rest = rest;
                    elements.extend(once(levels).map(|levels| self.term(levels)));
                    if self.failed {
                        return None;
                    }
                    rest = self.rest;
                }
            }
        }
        self.rest = rest;
        Some(elements.into_boxed_slice())
    }

    fn list(&mut self, count: usize, levels: u32) -> Term {
        let elements = self.elements(count, levels);
        if let [NIL_EXT, after @ ..] = self.rest {
            self.rest = after;
            return Term::List(List(elements));
        }
        if self.failed {
            return Term::nil();
        }
        // The one frequent list of this kind is `[alias | Reference]`, in every call of a gen_server.
        let tail = self.term(levels);
        Term::list_with_tail(List(elements).into_vec(), tail)
    }

    fn map(&mut self, count: usize, levels: u32) -> Term {
        let mut pairs = Vec::with_capacity(count);
        while pairs.len() < count && !self.failed {
            pairs.extend(once(levels).map(|levels| (self.term(levels), self.term(levels))));
        }
        Term::Map(Map(pairs))
    }

    /// A binary of `len` bytes behind `head` bytes.
    fn binary(&mut self, head: usize, len: usize) -> Bytes {
        let body = self.rest.get(head..).unwrap_or_default();
        let (bytes, after) = body.split_at_checked(len).unwrap_or_default();
        self.rest = after;
        self.binaries.take(bytes, self.pos(), after.len())
    }

    /// A pid whose node's name is the first `len` bytes of `text`.
    #[inline(never)]
    fn pid(&mut self, text: &'a [u8], len: usize) -> Term {
        let node = self.name(text, len);
        let numbers = text.get(len..).and_then(|numbers| numbers.split_first_chunk::<12>());
        let Some((numbers, after)) = numbers else { return self.fail() };
        let [id, serial, creation] = words(numbers);
        self.rest = after;
        Term::Pid(Pid { node, id, serial, creation })
    }

    /// The atom of the first `len` bytes of `text`.
    #[inline(always)]
    fn name(&mut self, text: &[u8], len: usize) -> Atom {
        if len <= Atom::INLINE {
            Atom::from_checked(text, len)
        } else {
            self.long.atom(text.get(..len).unwrap_or_default())
        }
    }

    /// The less frequent terms.
    #[inline(never)]
    fn rare(&mut self, levels: u32) -> Option<Term> {
        let (&tag, body) = self.rest.split_first()?;
        let context = Context { atoms: self.atoms, max_integer_bytes: usize::MAX };
        let (term, size) = match tag {
            ATOM_CACHE_REF => (Term::Atom(self.atoms.get(usize::from(*body.first()?))?.clone()), 1),
            SMALL_ATOM_EXT | ATOM_UTF8_EXT | ATOM_EXT => {
                let (atom, size) = context.atom(tag, body).ok()?;
                (Term::Atom(atom.to_atom()), size)
            }
            NEW_FLOAT_EXT => (Term::Float(f64::from_be_bytes(*body.first_chunk()?)), 8),
            SMALL_BIG_EXT => {
                let [len, negative, magnitude @ ..] = body else { return None };
                let len = usize::from(*len);
                (Term::from_magnitude(*negative != 0, magnitude.get(..len)?), 2 + len)
            }
            STRING_EXT => {
                let (len, bytes) = body.split_first_chunk()?;
                let len = usize::from(u16::from_be_bytes(*len));
                let mut integers = self.pool.room(len);
                integers.extend(bytes.get(..len)?.iter().map(|byte| Term::Integer(i64::from(*byte))));
                (Term::List(integers.into()), 2 + len)
            }
            NEW_PID_EXT | PID_EXT => {
                let (pid, size) = context.pid(tag, body, false).ok()?;
                (Term::Pid(pid.to_pid()), size)
            }
            NEWER_REFERENCE_EXT => {
                let (reference, size) = self.reference(context, body)?;
                (reference.into(), size)
            }
            V4_PORT_EXT | NEW_PORT_EXT | PORT_EXT => {
                let (port, size) = context.port(tag, body, false).ok()?;
                (Port { node: port.node.to_atom(), id: port.id, creation: port.creation }.into(), size)
            }
            BIT_BINARY_EXT => {
                let [a, b, c, d, bits, ..] = *body else { return None };
                let bytes = self.binary(6, u32::from_be_bytes([a, b, c, d]) as usize);
                return Term::bits(bytes, bits);
            }
            LARGE_TUPLE_EXT => {
                let levels = levels.checked_sub(1)?;
                let (arity, after) = body.split_first_chunk()?;
                self.rest = after;
                let elements = self.elements(u32::from_be_bytes(*arity) as usize, levels);
                return Some(Term::Tuple(Tuple(elements)));
            }
            EXPORT_EXT => {
                self.rest = body;
                let (module, function) = (self.atom()?, self.atom()?);
                let arity = u8::try_from(self.integer()?).ok()?;
                return Some(ExportFun { module, function, arity }.into());
            }
            NEW_FUN_EXT => return self.fun(body, levels.checked_sub(1)?),
            _ => return None,
        };
        self.rest = body.get(size..)?;
        Some(term)
    }

    /// The reference whose body is at the front, and the size of that.
    fn reference(&mut self, context: Context<'_>, body: &[u8]) -> Option<(Reference, usize)> {
        let [0, count, name @ ..] = body else { return None };
        let (node, size) = match name {
            [SMALL_ATOM_UTF8_EXT, len, text @ ..] => {
                (self.name(text, usize::from(*len)), 2 + usize::from(*len))
            }
            [tag, text @ ..] => {
                let (node, size) = context.atom(*tag, text).ok()?;
                (node.to_atom(), 1 + size)
            }
            [] => return None,
        };
        let (creation, rest) = name.get(size..)?.split_first_chunk()?;
        let count = usize::from(*count);
        let mut numbers = [0; Reference::MAX_WORDS];
        let chunks = rest.get(..4 * count)?.as_chunks().0;
        numbers.iter_mut().zip(chunks).for_each(|(number, bytes)| *number = u32::from_be_bytes(*bytes));
        let reference = Reference::new(node, u32::from_be_bytes(*creation), numbers.get(..count)?)?;
        Some((reference, 2 + size + 4 + 4 * count))
    }

    /// A local fun. `body` is what follows its tag.
    fn fun(&mut self, body: &'a [u8], levels: u32) -> Option<Term> {
        let (_size, body) = body.split_first_chunk::<4>()?;
        let (arity, body) = body.split_first()?;
        let (uniq, body) = body.split_first_chunk()?;
        let (numbers, after) = body.split_first_chunk::<8>()?;
        let [index, free] = words(numbers);
        self.rest = after;
        let module = self.atom()?;
        let (old_index, old_uniq) = (self.integer()?, self.integer()?);
        let Term::Pid(pid) = self.term(0) else { return None };
        let free = List(self.elements(free as usize, levels));
        let (arity, uniq) = (*arity, *uniq);
        Some(Fun { arity, uniq, index, module, old_index, old_uniq, pid, free }.into())
    }

    fn atom(&mut self) -> Option<Atom> {
        if let Term::Atom(atom) = self.term(0) { Some(atom) } else { None }
    }

    fn integer(&mut self) -> Option<i64> {
        self.term(0).as_i64()
    }
}

/// Takes the integers at the front in their most frequent forms, up to `most` elements in all; returns what follows.
#[inline(always)]
fn integers<'a>(mut rest: &'a [u8], elements: &mut Vec<Term>, most: usize) -> &'a [u8] {
    while elements.len() < most {
        let value = match *rest {
            [SMALL_INTEGER_EXT, byte, ref after @ ..] => {
                rest = after;
                i64::from(byte)
            }
            [INTEGER_EXT, a, b, c, d, ref after @ ..] => {
                rest = after;
                i64::from(i32::from_be_bytes([a, b, c, d]))
            }
            [SMALL_BIG_EXT, 8, negative, a, b, c, d, e, f, g, h @ 0..=0x7F, ref after @ ..] => {
                rest = after;
                let magnitude = i64::from_le_bytes([a, b, c, d, e, f, g, h]);
                if negative == 0 { magnitude } else { -magnitude }
            }
            _ => break,
        };
        elements.extend(once(value).map(Term::Integer));
    }
    rest
}

/// As many numbers as there are in these bytes.
#[inline(always)]
fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    words
}

/// The long atoms that came last, which share their text.
#[derive(Default)]
struct LongAtoms {
    last: Vec<Atom>,
    next: usize,
}

impl LongAtoms {
    /// So many are remembered.
    const COUNT: usize = 4;

    #[inline(never)]
    fn atom(&mut self, text: &[u8]) -> Atom {
        if let Some(atom) = self.last.iter().find(|atom| atom.as_bytes() == text) {
            return atom.clone();
        }
        let atom = Atom::from_checked(text, text.len());
        match self.last.get_mut(self.next) {
            Some(place) => *place = atom.clone(),
            None => self.last.push(atom.clone()),
        }
        self.next = (self.next + 1) % Self::COUNT;
        atom
    }
}

/// From this size on, a binary is a slice of the message; a smaller one is copied.
///
/// A slice keeps the whole buffer alive that the message was read into, so that a few kept bytes could hold 64 KiB. The
/// BEAM draws the line at 64 bytes too (`ERL_ONHEAP_BIN_LIMIT`).
const SLICE_FROM: usize = 64;

/// The copied binaries of a message share blocks of this size: far fewer allocations, and a kept one holds at most this.
const BLOCK: usize = 1024;

/// Where the bytes of binaries go.
pub(super) struct Binaries<'a> {
    source: Option<&'a Bytes>,
    /// Room for further small ones.
    block: BytesMut,
}

impl<'a> Binaries<'a> {
    pub(super) fn new(source: Option<&'a Bytes>) -> Self {
        Self { source, block: BytesMut::new() }
    }

    /// Bytes that end at `end` of the message, as a slice of it or as a copy; `rest` more follow there.
    pub(super) fn take(&mut self, bytes: &[u8], end: usize, rest: usize) -> Bytes {
        if bytes.is_empty() {
            return Bytes::new();
        }
        if bytes.len() >= SLICE_FROM {
            return match self.source {
                Some(source) => source.slice(end - bytes.len()..end),
                None => Bytes::copy_from_slice(bytes),
            };
        }
        if self.block.capacity() < bytes.len() {
            if rest < bytes.len() {
                // No other comes that would share a block with it.
                return Bytes::copy_from_slice(bytes);
            }
            // What can still come in this message.
            self.block = BytesMut::with_capacity((bytes.len() + rest).min(BLOCK));
        }
        self.block.extend_from_slice(bytes);
        self.block.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::super::decode::build_on_stack;
    use super::*;
    use crate::etf::{RawTerm, Tape};
    use crate::random::Random;
    use crate::{Limits, etf};

    fn terms() -> Vec<Term> {
        let node = Atom::new_static("some.long.name@some.long.host.example");
        let pid = Pid { node: node.clone(), id: 1, serial: 2, creation: 3 };
        let (module, function) = (Atom::new_static("m"), Atom::new_static("f"));
        let fun = Fun {
            arity: 1,
            uniq: [7; 16],
            index: 3,
            module: module.clone(),
            old_index: 1 << 40,
            old_uniq: -5,
            pid: pid.clone(),
            free: vec![1.into(), Term::list([Term::nil(), 2.into()])].into(),
        };
        let reference = Reference::new(node.clone(), 4, &[1, 2, 3, 4, 5]).unwrap();
        let alias = Term::list_with_tail(vec![Term::atom("alias")], reference.clone().into());
        let leaves: Vec<Term> = vec![
            Term::atom("ok"),
            node.clone().into(),
            Atom::new(&"ä".repeat(200)).unwrap().into(),
            0.into(),
            (-1).into(),
            i64::MIN.into(),
            i64::MAX.into(),
            u64::MAX.into(),
            Term::Float(-0.5),
            pid.into(),
            Pid { node: Atom::new_static("a@b"), id: 1, serial: 0, creation: 0 }.into(),
            Port { node: node.clone(), id: 1 << 40, creation: 9 }.into(),
            reference.into(),
            Reference::new(Atom::new_static("a@b"), 1, &[1]).unwrap().into(),
            Term::binary(b""),
            Term::binary(&[5; 63]),
            Term::binary(&[6; 64]),
            Term::binary(&[7; 3000]),
            Term::bits(Bytes::from_static(&[1, 0xE0]), 3).unwrap(),
            Term::nil(),
            Term::charlist("text"),
            Term::tuple([]),
            Term::tuple(vec![Term::atom("x"); 300]),
            Term::Map(Map::new()),
            ExportFun { module, function, arity: 255 }.into(),
            fun.into(),
            alias,
        ];
        let pairs = leaves.iter().cloned().enumerate().map(|(n, leaf)| (Term::from(n as i64), leaf));
        let map = Term::Map(pairs.collect());
        let mut all = leaves.clone();
        all.extend([Term::list(leaves.clone()), Term::list_with_tail(leaves, map.clone()), map]);
        all.push(Term::from_magnitude(true, &[1; 300]));
        let mut deep = Term::nil();
        for level in 0..2 * LEVELS {
            deep = if level % 2 == 0 { Term::tuple([deep]) } else { Term::list([deep, 1.into()]) };
            all.push(deep.clone());
        }
        all
    }

    /// What is read without a tape is what is built from the nodes of one, whatever bytes were accepted.
    #[test]
    fn both_ways_agree() {
        let limits = Limits::default();
        let atoms = [Atom::new_static("cached"), Atom::new_static("a@cache")];
        let (mut random, mut read_here) = (Random(1), 0);
        let terms = terms();
        let mut inputs: Vec<Vec<u8>> = terms.iter().map(|term| etf::encode::to_vec(term).unwrap()).collect();
        for old in [
            &b"d\0\x02ok"[..],
            b"s\x01\xE4",
            b"v\0\x01x",
            b"l\0\0\0\x01a\x01l\0\0\0\x01a\x02j",
            b"l\0\0\0\x01a\x01k\0\x02ab",
            b"l\0\0\0\0l\0\0\0\0j",
            b"l\0\0\0\0h\0",
            b"o\0\0\0\x01\0\x05",
            b"XR\x01\0\0\0\x01\0\0\0\x02\0\0\0\x03",
            b"Z\0\x01R\x01\0\0\0\x01\0\0\0\x02",
            b"qR\0w\x01fn\x01\0\x05",
            b"h\x02R\0R\x01",
            b"n\x08\x01\0\0\0\0\0\0\0\x80",
            b"n\x08\0\0\0\0\0\0\0\0\x80",
            b"l\0\0\0\x02n\x08\x01\x01\0\0\0\0\0\0\x7Fn\x02\0\x05\0j",
            b"M\0\0\0\x01\x08a",
        ] {
            inputs.push(old.to_vec());
        }
        for bytes in inputs {
            for attempt in 0..200 {
                let mut bytes = bytes.clone();
                for _ in 0..attempt % 4 {
                    let at = random.below(bytes.len() as u64) as usize;
                    bytes[at] = random.bytes(1)[0];
                }
                let mut tape = Tape::new();
                let Ok(view) = tape.parse(&bytes, &atoms, &limits) else { continue };
                let (start, end) = (view.span().start, view.span().end);
                let slow = build_on_stack(view, None);
                if let Some((fast, fast_end)) = read(&bytes, start, &atoms, None) {
                    assert_eq!((&fast, fast_end), (&slow, end), "{bytes:?}");
                    read_here += 1;
                }
                let raw = RawTerm::new(bytes.into(), Some(atoms.clone().into()), &limits).unwrap();
                assert_eq!(raw.to_term(&limits), Ok(slow));
            }
        }
        assert!(read_here > 5000, "{read_here}");
    }

    #[test]
    fn the_usual_needs_no_tape() {
        let all = terms();
        let (shallow, deep) = all.split_at(all.len() - 1 - LEVELS as usize);
        for term in shallow {
            let bytes = etf::encode::to_vec(term).unwrap();
            let found = read(&bytes, 0, &[], None);
            let large = matches!(term, Term::BigInteger(_));
            assert!(found == Some((term.clone(), bytes.len())) || large, "{term:?}");
        }
        for term in deep.iter().rev().take(20) {
            assert!(read(&etf::encode::to_vec(term).unwrap(), 0, &[], None).is_none());
        }
    }

    /// What is kept of a long message must not keep room for the rest of it.
    #[test]
    fn a_small_binary_that_is_taken_out_of_a_message_has_room_of_its_own() {
        let names = (0..500).map(|n| Term::from(format!("name:{n}").as_str()));
        let raw = RawTerm::from_term(&Term::list(names)).unwrap();
        let mut tape = Tape::new();
        for name in raw.view(&mut tape).unwrap().elements() {
            let Term::Binary(bytes) = name.to_term() else { panic!("{name:?}") };
            let len = bytes.len();
            assert_eq!(bytes.try_into_mut().unwrap().capacity(), len);
        }
    }
}
