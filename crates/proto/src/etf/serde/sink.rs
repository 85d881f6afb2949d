//! What a serialiser writes into: a tree of terms, or the encoded bytes.

use core::cell::Cell;

use bytes::{BufMut, Bytes};

use super::error::Error;
use super::native::Native;
use crate::Limits;
use crate::etf::tag::{LIST_EXT, MAP_EXT};
use crate::etf::{
    Atom, RawTerm, Tape, Term, encode_term, put_atom, put_binary, put_f64, put_i64, put_nil, put_pid,
    put_tuple_header,
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
pub(super) struct Encoded {
    bytes: Vec<u8>,
}

impl Default for Encoded {
    fn default() -> Self {
        Self { bytes: Vec::with_capacity(ROOM) }
    }
}

/// What a small message needs, so that it is encoded into memory that is asked for once.
const ROOM: usize = 64;

/// A tape for terms of more nodes is not kept.
const KEPT_NODES: usize = 4096;

std::thread_local! {
    /// For the check of what was encoded: making one anew cost as much as the check.
    static TAPE: Cell<Tape> = Cell::default();
}

impl Encoded {
    /// The encoded term, checked: a map with a key twice would make the peer close the connection.
    pub(super) fn finish(self, limits: &Limits) -> Result<RawTerm> {
        let mut tape = TAPE.take();
        let term = RawTerm::with_tape(&mut tape, self.bytes.into(), None, limits);
        tape.shrink_to(KEPT_NODES);
        TAPE.set(tape);
        term.map_err(|error| Error::new(error.to_string()))
    }
}

impl Sink for Encoded {
    fn atom(&mut self, text: &str) -> Result<()> {
        put_atom(&mut self.bytes, &make_atom(text)?);
        Ok(())
    }

    fn integer(&mut self, value: i64) -> Result<()> {
        put_i64(&mut self.bytes, value);
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

    fn binary(&mut self, bytes: &[u8]) -> Result<()> {
        count(bytes.len())?;
        put_binary(&mut self.bytes, bytes);
        Ok(())
    }

    fn native(&mut self, native: Native) -> Result<()> {
        match native {
            Native::Term(Term::Atom(atom)) => {
                put_atom(&mut self.bytes, &atom);
                Ok(())
            }
            Native::Term(Term::Pid(pid)) => {
                put_pid(&mut self.bytes, &pid);
                Ok(())
            }
            Native::Term(term) => {
                encode_term(&term, &mut self.bytes).map_err(|error| Error::new(error.to_string()))
            }
            Native::Raw(raw) => {
                if raw.atoms().is_empty() {
                    self.bytes.put_slice(raw.as_bytes());
                } else {
                    self.bytes.put_slice(raw.to_plain().as_bytes());
                }
                Ok(())
            }
        }
    }

    fn begin(&mut self, container: Container) -> usize {
        let mark = self.bytes.len();
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
        let elements = count(elements)?;
        match container {
            Container::Tuple(_) => return Ok(()),
            Container::List if elements == 0 => {
                self.bytes.truncate(mark);
                put_nil(&mut self.bytes);
                return Ok(());
            }
            Container::List => put_nil(&mut self.bytes),
            Container::Map => {}
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
