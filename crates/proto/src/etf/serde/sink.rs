//! What a serialiser writes into: a tree of terms, or the encoded bytes.

use core::cell::Cell;

use bytes::{BufMut, Bytes};

use super::error::Error;
use super::native::Native;
use crate::Limits;
use crate::etf::keys::{Key, differ_at, short_hash, short_words};
use crate::etf::tag::{BINARY_EXT, LIST_EXT, MAP_EXT, SMALL_ATOM_UTF8_EXT};
use crate::etf::write::put_integer;
use crate::etf::{
    Atom, RawTerm, Tape, Term, encode_term, put_atom, put_binary, put_f64, put_nil, put_tuple_header,
};

type Result<T> = core::result::Result<T, Error>;

/// A container, whose elements follow one another between `begin` and `end`.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Container {
    /// So many elements.
    Tuple(usize),
    List,
    /// Keys and values in turn; counted in pairs.
    Map,
}

pub(super) trait Sink {
    fn atom(&mut self, text: &str) -> Result<()>;
    fn integer(&mut self, value: i64) -> Result<()>;
    fn wide_integer(&mut self, negative: bool, magnitude: u128) -> Result<()>;
    /// A finite float.
    fn float(&mut self, value: f64) -> Result<()>;
    fn binary(&mut self, bytes: &[u8]) -> Result<()>;
    fn native(&mut self, native: Native) -> Result<()>;
    /// A key of the map that was begun last comes next.
    fn key(&mut self);
    /// A key that is an atom.
    fn key_atom(&mut self, text: &str) -> Result<()> {
        self.key();
        self.atom(text)
    }
    /// The text of an atom, known to be one.
    fn atom_of(&mut self, atom: &[u8]) -> Result<()> {
        self.atom(core::str::from_utf8(atom).map_err(|error| Error::new(error.to_string()))?)
    }
    /// One encoded term, checked, without references into an atom cache.
    fn encoded(&mut self, term: &[u8]) -> Result<()>;
    /// Whether [`encoded`](Self::encoded) is the quickest way for terms that have their encoding.
    const ENCODES: bool;
    /// Begins a container; `end` wants the mark back.
    fn begin(&mut self, container: Container) -> usize;
    fn end(&mut self, container: Container, mark: usize, count: usize) -> Result<()>;
}

fn make_atom(text: &str) -> Result<Atom> {
    Atom::new(text).map_err(|error| Error::new(format!("the name `{text}` cannot be an atom: {error}")))
}

/// Terms: the last ones are the elements of the container that was begun last.
#[derive(Default)]
pub(super) struct Terms {
    stack: Vec<Term>,
}

impl Terms {
    pub(super) fn finish(mut self) -> Result<Term> {
        self.stack.pop().ok_or_else(|| Error::new("the value serialised nothing"))
    }
}

impl Sink for Terms {
    const ENCODES: bool = false;

    fn encoded(&mut self, term: &[u8]) -> Result<()> {
        let raw = RawTerm::new(Bytes::copy_from_slice(term), None, &Limits::unbounded_terms());
        self.native(Native::Raw(raw.map_err(|error| Error::new(error.to_string()))?))
    }

    fn atom(&mut self, text: &str) -> Result<()> {
        self.stack.push(Term::Atom(make_atom(text)?));
        Ok(())
    }

    fn integer(&mut self, value: i64) -> Result<()> {
        self.stack.push(Term::Integer(value));
        Ok(())
    }

    fn wide_integer(&mut self, negative: bool, magnitude: u128) -> Result<()> {
        self.stack.push(Term::from_magnitude(negative, &magnitude.to_le_bytes()));
        Ok(())
    }

    fn float(&mut self, value: f64) -> Result<()> {
        self.stack.push(Term::Float(value));
        Ok(())
    }

    fn binary(&mut self, bytes: &[u8]) -> Result<()> {
        self.stack.push(Term::Binary(Bytes::copy_from_slice(bytes)));
        Ok(())
    }

    fn native(&mut self, native: Native) -> Result<()> {
        let term = match native {
            Native::Term(term) => term,
            Native::Raw(raw) => {
                raw.to_term(&Limits::default()).map_err(|error| Error::new(error.to_string()))?
            }
        };
        self.stack.push(term);
        Ok(())
    }

    fn key(&mut self) {}

    fn begin(&mut self, _: Container) -> usize {
        self.stack.len()
    }

    fn end(&mut self, container: Container, mark: usize, _: usize) -> Result<()> {
        let elements = self.stack.drain(mark..);
        let term = match container {
            Container::Tuple(_) => Term::Tuple(elements.collect()),
            Container::List => Term::List(elements.collect()),
            Container::Map => {
                let mut elements = elements;
                let mut pairs = Vec::new();
                while let (Some(key), Some(value)) = (elements.next(), elements.next()) {
                    pairs.push((key, value));
                }
                drop(elements);
                Term::Map(pairs.into_iter().collect())
            }
        };
        self.stack.push(term);
        Ok(())
    }
}

/// The encoded form: counts that are not known at the beginning are written at the end.
///
/// What is written is a term by the way it comes about, except that a map may have a key twice and that a peer may not
/// take as much. That is watched on the way; only if it stays unclear, the whole is checked at the end.
pub(super) struct Encoded {
    bytes: Vec<u8>,
    /// The containers around this place.
    depth: usize,
    /// Their greatest number, or more.
    deepest: usize,
    /// Where the keys of the maps around this place are.
    keys: Vec<Key>,
    /// Something may be wrong.
    unclear: bool,
}

/// The room that a buffer begins with: enough for most messages.
const ROOM: usize = 256;

/// A tape for terms of more nodes is not kept.
const KEPT_NODES: usize = 4096;

std::thread_local! {
    /// For the check of what was encoded: making one anew cost as much as the check.
    static TAPE: Cell<Tape> = Cell::default();
    /// Where keys are, for the next value.
    static KEYS: Cell<Vec<Key>> = const { Cell::new(Vec::new()) };
}

impl Encoded {
    /// Encodes into memory that was used before.
    #[inline]
    pub(super) fn with_memory(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        bytes.reserve(ROOM);
        Self { bytes, depth: 0, deepest: 0, keys: Vec::new(), unclear: false }
    }

    #[inline(always)]
    fn note_key(&mut self, hash: u32) {
        if self.keys.capacity() == 0 {
            self.keys = KEYS.take();
        }
        self.keys.push(Key { at: self.bytes.len() as u32, hash });
    }

    #[inline(always)]
    fn short_atom(&mut self, words: (u64, u64), len: usize) {
        self.short_text(u64::from(SMALL_ATOM_UTF8_EXT) | (len as u64) << 8, 2, words, len);
    }

    /// Appends the first `head` bytes of a word and the first `len` bytes of two others, in one piece of fixed size if that is
    /// enough, of which the rest is cut off: the call for a copy costs more.
    #[inline(always)]
    fn short_text(&mut self, start: u64, head: usize, (first, second): (u64, u64), len: usize) {
        let end = self.bytes.len() + head + len;
        let bits = 8 * head as u32;
        let text = u128::from(first) | u128::from(second) << 64;
        self.bytes.extend_from_slice(&(u128::from(start) | text << bits).to_le_bytes());
        if head + len > 16 {
            let rest = second >> (64 - bits);
            self.bytes.extend_from_slice(&rest.to_le_bytes());
        }
        self.bytes.truncate(end);
    }

    #[inline(never)]
    fn long_atom(&mut self, text: &str) -> Result<()> {
        match u8::try_from(text.len()) {
            Ok(len) => {
                self.bytes.extend_from_slice(&[SMALL_ATOM_UTF8_EXT, len]);
                self.bytes.extend_from_slice(text.as_bytes());
            }
            Err(_) => put_atom(&mut self.bytes, &make_atom(text)?),
        }
        Ok(())
    }

    /// The encoded term: a map with a key twice would make the peer close the connection.
    #[inline]
    pub(super) fn finish(self) -> Result<Vec<u8>> {
        // Most values have no maps, and are far below all limits.
        const DEPTH: usize = 64;
        const NODES: usize = 4 << 10;
        let small = self.deepest <= DEPTH && self.bytes.len() <= NODES;
        if small && self.depth == 0 && !self.unclear && self.keys.capacity() == 0 {
            return Ok(self.bytes);
        }
        self.check(&Limits::default())
    }

    fn check(mut self, limits: &Limits) -> Result<Vec<u8>> {
        if self.keys.capacity() > 0 && self.keys.capacity() <= KEPT_NODES {
            self.keys.clear();
            KEYS.set(core::mem::take(&mut self.keys));
        }
        if self.depth > 0 {
            return Err(Error::new("a part that could not be serialised was left incomplete"));
        }
        // Each node takes at least one byte.
        if !self.unclear && self.deepest <= limits.max_depth && self.bytes.len() <= limits.max_nodes {
            return Ok(self.bytes);
        }
        let mut tape = TAPE.take();
        let term = tape.parse(&self.bytes, &[], limits).map(|view| view.span());
        tape.shrink_to(KEPT_NODES);
        TAPE.set(tape);
        match term {
            Ok(term) if term == (0..self.bytes.len()) => Ok(self.bytes),
            // It is the tail of lists without elements.
            Ok(term) => Ok(self.bytes.get(term).unwrap_or_default().to_vec()),
            Err(error) => Err(Error::new(error.to_string())),
        }
    }
}

impl Sink for Encoded {
    const ENCODES: bool = true;

    #[inline]
    fn atom(&mut self, text: &str) -> Result<()> {
        match short_words(text.as_bytes()) {
            Some(words) => self.short_atom(words, text.len()),
            None => self.long_atom(text)?,
        }
        Ok(())
    }

    #[inline(always)]
    fn key_atom(&mut self, text: &str) -> Result<()> {
        let Some(words) = short_words(text.as_bytes()) else {
            self.key();
            return self.long_atom(text);
        };
        self.note_key(short_hash(words, text.len()));
        self.short_atom(words, text.len());
        Ok(())
    }

    #[inline]
    fn atom_of(&mut self, atom: &[u8]) -> Result<()> {
        match short_words(atom) {
            Some(words) if (words.0 | words.1) & 0x8080_8080_8080_8080 == 0 => {
                self.short_atom(words, atom.len());
                Ok(())
            }
            _ if atom.is_ascii() && atom.len() <= Atom::MAX_CHARACTERS => {
                self.bytes.extend_from_slice(&[SMALL_ATOM_UTF8_EXT, atom.len() as u8]);
                self.bytes.extend_from_slice(atom);
                Ok(())
            }
            _ => self.atom(core::str::from_utf8(atom).map_err(|error| Error::new(error.to_string()))?),
        }
    }

    fn encoded(&mut self, term: &[u8]) -> Result<()> {
        // Each level takes more than one byte.
        self.deepest = self.deepest.max(self.depth + term.len() / 2 + 1);
        self.bytes.put_slice(term);
        Ok(())
    }

    #[inline]
    fn integer(&mut self, value: i64) -> Result<()> {
        put_integer(&mut self.bytes, value);
        Ok(())
    }

    fn wide_integer(&mut self, negative: bool, magnitude: u128) -> Result<()> {
        let term = Term::from_magnitude(negative, &magnitude.to_le_bytes());
        encode_term(&term, &mut self.bytes).map_err(|error| Error::new(error.to_string()))
    }

    fn float(&mut self, value: f64) -> Result<()> {
        put_f64(&mut self.bytes, value);
        Ok(())
    }

    #[inline]
    fn binary(&mut self, bytes: &[u8]) -> Result<()> {
        let len = count(bytes.len())?;
        match short_words(bytes) {
            Some(words) => {
                // A key of a map, as of one with strings.
                if let Some(key) = self.keys.last_mut()
                    && key.at as usize == self.bytes.len()
                {
                    key.hash = short_hash(words, bytes.len());
                }
                self.short_text(u64::from(BINARY_EXT) | u64::from(len) << 32, 5, words, bytes.len());
            }
            None => put_binary(&mut self.bytes, bytes),
        }
        Ok(())
    }

    fn native(&mut self, native: Native) -> Result<()> {
        match native {
            Native::Term(term) => {
                self.unclear |= term.is_nested() || matches!(term, Term::BigInteger(_) | Term::Local(_));
                encode_term(&term, &mut self.bytes).map_err(|error| Error::new(error.to_string()))
            }
            Native::Raw(raw) => self.encoded(raw.to_plain().as_bytes()),
        }
    }

    #[inline]
    fn key(&mut self) {
        self.note_key(0);
    }

    #[inline]
    fn begin(&mut self, container: Container) -> usize {
        let mark = self.bytes.len();
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
        match container {
            // More elements than a tuple can have end in an error.
            Container::Tuple(len) => {
                put_tuple_header(&mut self.bytes, u32::try_from(len).unwrap_or(u32::MAX))
            }
            Container::List => self.bytes.put_slice(&[LIST_EXT, 0, 0, 0, 0]),
            Container::Map => self.bytes.put_slice(&[MAP_EXT, 0, 0, 0, 0]),
        }
        mark
    }

    fn end(&mut self, container: Container, mark: usize, elements: usize) -> Result<()> {
        let len = elements;
        let elements = count(len)?;
        self.depth = self.depth.saturating_sub(1);
        match container {
            Container::Tuple(_) => return Ok(()),
            Container::List if elements == 0 => {
                self.bytes.truncate(mark);
                put_nil(&mut self.bytes);
                return Ok(());
            }
            Container::List => put_nil(&mut self.bytes),
            Container::Map => {
                let keys = self.keys.len().checked_sub(len);
                match keys.and_then(|from| Some((from, self.keys.get(from..)?))) {
                    Some((from, keys)) => {
                        // Keys that are not all in this map, as of one without a value, are elsewhere than behind it.
                        let inside = keys.first().is_none_or(|first| first.at as usize == mark + 5);
                        self.unclear |= !inside || !differ_at(keys, &self.bytes, &[]);
                        self.keys.truncate(from);
                    }
                    None => self.unclear = true,
                }
            }
        }
        if let Some(header) = self.bytes.get_mut(mark + 1..mark + 5) {
            header.copy_from_slice(&elements.to_be_bytes());
        }
        Ok(())
    }
}

fn count(elements: usize) -> Result<u32> {
    u32::try_from(elements).map_err(|_| Error::new("more elements or bytes than the format can count"))
}
