//! One iterative pass over an encoded term, into a reusable buffer of flat nodes.
//!
//! The pass decides what is a term: everything else here (views, owned terms, [`RawTerm`](super::RawTerm)) relies on
//! it. It accepts what OTP's `binary_to_term` accepts, with the differences that are listed at [`Tape::parse`].

use std::collections::BTreeMap;

use super::leaf::Context;
use super::tag::*;
use super::{Atom, Kind, View};
use crate::error::Problem;
use crate::{Error, Limits, Result};

/// One term of the input. Everything else is read from the input when somebody asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// The elements end in a tail that is a list itself, or improper.
    pub(super) tailed: bool,
    /// Where the tag is.
    pub(super) at: u32,
    /// Bytes of the whole term, tag included.
    pub(super) size: u32,
    /// The index of the first node after this term and everything inside it.
    pub(super) next: u32,
}

/// A reusable buffer in which encoded terms are laid out for looking into.
///
/// ```
/// use foundation_proto::{Limits, etf::Tape};
///
/// let mut tape = Tape::new();
/// // {ok, 42}
/// let view = tape.parse(&[104, 2, 119, 2, b'o', b'k', 97, 42], &[], &Limits::default())?;
/// let [ok, value] = view.tuple().ok_or("no pair")?;
/// assert!(ok.is_atom("ok"));
/// assert_eq!(value.as_i64(), Some(42));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Tape {
    /// Of these, the first `len` count. The rest is room for longer terms, so that a node is written by one assignment.
    nodes: Vec<Node>,
    len: usize,
    /// For each map inside the key of a map, where its keys stand in `sorted_keys`.
    pub(super) orders: BTreeMap<u32, u32>,
    /// The nodes of keys, in exact term order.
    pub(super) sorted_keys: Vec<u32>,
    open: Vec<Open>,
    /// The keys of maps are known to differ.
    keys_differ: bool,
    pub(super) table: Vec<(u32, u32)>,
}

/// A container that is not complete yet.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// Its node.
    node: u32,
    /// Terms that are still missing.
    remaining: u32,
    state: State,
    /// It is inside the key of a map.
    in_key: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Root,
    Tuple,
    List,
    /// A list whose elements are complete, and the node of its tail.
    Tail(u32),
    Map,
    Fun,
    ExportFun,
    /// The number of atoms at the front.
    Record(u32),
    Local,
}

impl Tape {
    /// An empty buffer. It grows to 16 bytes for each node of the largest term.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives memory beyond `nodes` nodes back, after an unusually large term.
    pub fn shrink_to(&mut self, nodes: usize) {
        if self.nodes.capacity() > nodes {
            self.clear();
            self.nodes.truncate(nodes);
            self.nodes.shrink_to(nodes);
            self.sorted_keys.shrink_to(nodes);
            self.table = Vec::new();
            self.open.shrink_to(nodes);
        }
    }

    fn clear(&mut self) {
        self.len = 0;
        self.orders.clear();
        self.sorted_keys.clear();
        self.open.clear();
    }

    /// The nodes of the term, each container before what is inside it.
    #[inline]
    pub(super) fn nodes(&self) -> &[Node] {
        self.nodes.get(..self.len).unwrap_or_default()
    }

    /// Lays out the term at the start of `bytes`, which has no version byte. What follows the term is ignored, as
    /// `binary_to_term` does; [`View::encoded`] ends where the term does. `atoms` are those of the distribution header,
    /// for ATOM_CACHE_REF.
    ///
    /// Nothing is allocated once the buffer has grown to the size of the terms that come.
    ///
    /// Accepted is what `binary_to_term` of OTP 29 accepts, with these differences: [`Limits`]; an external fun of more
    /// than 255 arguments and a reference without words, which no BEAM makes, are refused; a LOCAL_EXT term of any node
    /// is accepted, as an opaque whole.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the offset of the offending byte, or [`Error::LimitExceeded`] for `max_depth`,
    /// `max_nodes` and `max_integer_bytes`.
    pub fn parse<'a>(&'a mut self, bytes: &'a [u8], atoms: &'a [Atom], limits: &Limits) -> Result<View<'a>> {
        self.keys_differ = false;
        self.lay_out(bytes, atoms, limits)
    }

    /// As [`parse`](Self::parse), for bytes that it has accepted before: does not look again for keys that are equal.
    pub(super) fn parse_checked<'a>(
        &'a mut self,
        bytes: &'a [u8],
        atoms: &'a [Atom],
        limits: &Limits,
    ) -> Result<View<'a>> {
        self.keys_differ = true;
        self.lay_out(bytes, atoms, limits)
    }

    fn lay_out<'a>(&'a mut self, bytes: &'a [u8], atoms: &'a [Atom], limits: &Limits) -> Result<View<'a>> {
        self.clear();
        if u32::try_from(bytes.len()).is_err() {
            return Err(Error::limit("max_frame", bytes.len() as u64, u64::from(u32::MAX)));
        }
        self.run(bytes, atoms, limits)?;
        View::at(self, bytes, atoms, 0).ok_or_else(|| truncated(bytes.len()))
    }

    fn run(&mut self, bytes: &[u8], atoms: &[Atom], limits: &Limits) -> Result<()> {
        let context = Context { atoms, max_integer_bytes: limits.max_integer_bytes };
        let mut top = Open { node: 0, remaining: 1, state: State::Root, in_key: false };
        // LOCAL_EXT terms around this place; inside them, NIL stands for the node that made them, and no atom may
        // depend on the frame.
        let mut local = 0u32;
        let mut cached_atoms = atoms.len();
        let mut pos = 0;
        let mut len = 0;
        let mut nodes = room(&mut self.nodes, limits);
        loop {
            let rest = bytes.get(pos..).unwrap_or_default();
            let Some(slot) = nodes.get_mut(len) else {
                self.grow(limits)?;
                nodes = room(&mut self.nodes, limits);
                continue;
            };
            let next = len as u32 + 1;
            let found = match common(rest, cached_atoms) {
                Some(found) => found,
                None => match container(rest) {
                    Some(container) => Found::Container(container),
                    None => {
                        let (kind, size) = context.leaf(rest, pos, local > 0)?;
                        Found::Leaf(kind, size)
                    }
                },
            };
            match found {
                Found::Leaf(kind, size) => {
                    *slot = Node { kind, tailed: false, at: pos as u32, size: size as u32, next };
                    pos += size;
                    // Where one integer is, there are mostly more.
                    if kind == Kind::Integer && top.remaining > 1 {
                        let after = bytes.get(pos..).unwrap_or_default();
                        if matches!(after.first(), Some(&(SMALL_INTEGER_EXT | INTEGER_EXT | SMALL_BIG_EXT))) {
                            let slots = nodes.get_mut(next as usize..).unwrap_or_default();
                            let row = integers(after, pos as u32, slots, next, top.remaining - 1);
                            pos += row.size;
                            len += row.count as usize;
                            top.remaining -= row.count;
                        }
                    }
                }
                Found::Container(Container { kind, state, head, count }) => {
                    // LIST_EXT without elements is just its tail.
                    if state == State::List && count == 0 {
                        pos += head;
                        continue;
                    }
                    // Each term takes at least one byte, a list one more for its tail.
                    if count > (rest.len() - head) as u64 {
                        return Err(too_many(rest, pos, count));
                    }
                    *slot = Node { kind, tailed: false, at: pos as u32, size: head as u32, next };
                    pos += head;
                    if count > 0 {
                        let depth = self.open.len();
                        if depth >= limits.max_depth {
                            return Err(Error::limit("max_depth", depth as u64 + 1, limits.max_depth as u64));
                        }
                        let is_key = top.state == State::Map && top.remaining.is_multiple_of(2);
                        if state == State::Local {
                            local += 1;
                            cached_atoms = 0;
                        }
                        self.open.push(top);
                        let node = len as u32;
                        top = Open { node, remaining: count as u32, state, in_key: top.in_key || is_key };
                        len += 1;
                        continue;
                    }
                }
            }
            len += 1;
            top.remaining -= 1;
            // A term is complete, and with it perhaps some of the containers around it.
            while top.remaining == 0 {
                match top.state {
                    State::Root => {
                        self.len = len;
                        return Ok(());
                    }
                    State::List if bytes.get(pos) != Some(&NIL_EXT) => {
                        top.state = State::Tail(len as u32);
                        top.remaining = 1;
                        break;
                    }
                    State::List => pos += 1,
                    _ => {}
                }
                if let Some(node) = nodes.get_mut(top.node as usize) {
                    node.next = len as u32;
                    node.size = pos as u32 - node.at;
                }
                if !matches!(top.state, State::Tuple | State::List) {
                    self.len = len;
                    self.close(top, bytes, atoms)?;
                    len = self.len;
                    if top.state == State::Local {
                        local -= 1;
                        cached_atoms = if local == 0 { atoms.len() } else { 0 };
                    }
                    nodes = room(&mut self.nodes, limits);
                }
                let Some(outer) = self.open.pop() else { return Ok(()) };
                top = outer;
                top.remaining -= 1;
            }
        }
    }

    /// Makes room for more nodes.
    #[cold]
    fn grow(&mut self, limits: &Limits) -> Result<()> {
        let len = self.nodes.len();
        if len >= limits.max_nodes {
            return Err(Error::limit("max_nodes", limits.max_nodes as u64 + 1, limits.max_nodes as u64));
        }
        let unused = Node { kind: Kind::List, tailed: false, at: 0, size: 0, next: 0 };
        self.nodes.resize(len.saturating_mul(2).clamp(64, limits.max_nodes.max(64)), unused);
        Ok(())
    }

    /// Checks and completes a container that has ended.
    fn close(&mut self, open: Open, bytes: &[u8], atoms: &[Atom]) -> Result<()> {
        let tail = match open.state {
            State::Tail(tail) => self.nodes.get(tail as usize).map(|node| node.kind),
            _ => None,
        };
        let Some(node) = self.nodes.get_mut(open.node as usize) else { return Ok(()) };
        let at = node.at as usize;
        match open.state {
            State::Tuple | State::List | State::Root => Ok(()),
            State::Tail(_) => {
                node.tailed = true;
                node.kind = if tail == Some(Kind::List) { Kind::List } else { Kind::ImproperList };
                Ok(())
            }
            State::Local => {
                // Opaque: what is inside only means something to the node that made it.
                node.next = open.node + 1;
                self.len = open.node as usize + 1;
                Ok(())
            }
            // The order of a map inside a key is needed all the same.
            State::Map if self.keys_differ && !open.in_key => Ok(()),
            State::Map => self.check_keys(open.node, open.in_key, bytes, atoms),
            State::Fun => {
                self.expect_kinds(open.node, at, &[Kind::Atom, Kind::Integer, Kind::Integer, Kind::Pid])
            }
            State::ExportFun => {
                self.expect_kinds(open.node, at, &[Kind::Atom, Kind::Atom, Kind::Integer])?;
                let arity = View::at(self, bytes, atoms, open.node + 3).and_then(View::as_i64);
                if arity.is_none_or(|arity| u8::try_from(arity).is_err()) {
                    return Err(Error::malformed("EXPORT_EXT", at, Problem::OutOfRange("arity")));
                }
                // A leaf to look at: its parts are read from the bytes.
                if let Some(node) = self.nodes.get_mut(open.node as usize) {
                    node.next = open.node + 1;
                }
                self.len = open.node as usize + 1;
                Ok(())
            }
            State::Record(names) => {
                let names = self.nodes().get(open.node as usize + 1..(open.node + 1 + names) as usize);
                if names.is_some_and(|names| names.iter().all(|name| name.kind == Kind::Atom)) {
                    Ok(())
                } else {
                    Err(Error::malformed("RECORD_EXT", at, Problem::Other("a name is not an atom")))
                }
            }
        }
    }

    /// Checks the types of the leaves that directly follow `node`.
    fn expect_kinds(&self, node: u32, at: usize, kinds: &[Kind]) -> Result<()> {
        let found = self.nodes().get(node as usize + 1..).unwrap_or_default();
        if found.len() >= kinds.len() && found.iter().zip(kinds).all(|(node, kind)| node.kind == *kind) {
            Ok(())
        } else {
            Err(Error::malformed("fun", at, Problem::Other("a part has the wrong type")))
        }
    }
}

/// Where nodes can be written.
fn room<'a>(nodes: &'a mut [Node], limits: &Limits) -> &'a mut [Node] {
    let len = nodes.len().min(limits.max_nodes);
    nodes.get_mut(..len).unwrap_or_default()
}

/// A row of integers that was laid out.
struct Row {
    count: u32,
    /// In bytes.
    size: usize,
}

/// Lays out the integers at the front in their most frequent forms, up to `most` of them, as nodes from number `index` on.
/// `at` is where they stand in the input.
#[inline(never)]
fn integers(bytes: &[u8], at: u32, slots: &mut [Node], index: u32, most: u32) -> Row {
    let most = slots.len().min(most as usize);
    let mut next = index;
    let mut pos = 0;
    for slot in slots.iter_mut().take(most) {
        let size = match bytes.get(pos) {
            Some(&INTEGER_EXT) => 5,
            Some(&SMALL_INTEGER_EXT) => 2,
            // Two bytes of tag and length, a sign, and less than 2^63.
            Some(&SMALL_BIG_EXT) => match bytes.get(pos + 1..) {
                Some([8, _, _, _, _, _, _, _, _, highest, ..]) if *highest <= 0x7F => 11,
                _ => break,
            },
            _ => break,
        };
        next += 1;
        *slot = Node { kind: Kind::Integer, tailed: false, at: at + pos as u32, size, next };
        pos += size as usize;
    }
    // Only the last can reach beyond the input: it is left to those who know what is wrong with it.
    if pos > bytes.len()
        && let Some(last) = slots.get((next - index) as usize - 1)
    {
        return Row { count: next - index - 1, size: (last.at - at) as usize };
    }
    Row { count: next - index, size: pos }
}

/// What is at the front of the input.
enum Found {
    /// Its kind and size.
    Leaf(Kind, usize),
    Container(Container),
}

/// The start of a container.
struct Container {
    kind: Kind,
    state: State,
    /// Bytes up to the first term inside.
    head: usize,
    /// How many terms are inside, a list's tail not counted.
    count: u64,
}

/// What is at the front, if it is one of the forms that messages are full of, and in order. For the rest there are
/// [`container`] and [`Context::leaf`], which also knows what is wrong. `cached_atoms`: how many there are to refer to.
#[inline(always)]
fn common(rest: &[u8], cached_atoms: usize) -> Option<Found> {
    let count = |count: &[u8; 4]| u64::from(u32::from_be_bytes(*count));
    let (tag, body) = rest.split_first()?;
    let (kind, size) = match *tag {
        SMALL_INTEGER_EXT => (Kind::Integer, 2),
        INTEGER_EXT => (Kind::Integer, 5),
        NIL_EXT => (Kind::List, 1),
        SMALL_ATOM_UTF8_EXT => {
            let (len, text) = body.split_first()?;
            if !starts_with_ascii(text, usize::from(*len)) {
                return None;
            }
            (Kind::Atom, 2 + usize::from(*len))
        }
        // Any byte is a character of Latin-1.
        ATOM_EXT => match body {
            [0, len, ..] => (Kind::Atom, 3 + usize::from(*len)),
            _ => return None,
        },
        ATOM_CACHE_REF if usize::from(*body.first()?) < cached_atoms => (Kind::Atom, 2),
        BINARY_EXT => (Kind::Binary, (count(body.first_chunk()?) as usize).saturating_add(5)),
        STRING_EXT => (Kind::List, 3 + usize::from(u16::from_be_bytes(*body.first_chunk()?))),
        SMALL_BIG_EXT => match body {
            // Less than 2^63, whatever the sign.
            [8, _, _, _, _, _, _, _, _, highest, ..] if *highest <= 0x7F => (Kind::Integer, 11),
            // Seven bytes always fit into 64 bits.
            [len @ ..=7, ..] => (Kind::Integer, 3 + usize::from(*len)),
            _ => return None,
        },
        NEW_FLOAT_EXT if f64::from_be_bytes(*body.first_chunk()?).is_finite() => (Kind::Float, 9),
        NEW_PID_EXT => match body {
            [SMALL_ATOM_UTF8_EXT, len, text @ ..] if starts_with_ascii(text, usize::from(*len)) => {
                (Kind::Pid, 15 + usize::from(*len))
            }
            _ => return None,
        },
        NEWER_REFERENCE_EXT => match body {
            [0, words @ 1..=5, SMALL_ATOM_UTF8_EXT, len, text @ ..]
                if starts_with_ascii(text, usize::from(*len)) =>
            {
                (Kind::Reference, 9 + usize::from(*len) + 4 * usize::from(*words))
            }
            _ => return None,
        },
        SMALL_TUPLE_EXT => {
            let count = u64::from(*body.first()?);
            return Some(Found::Container(Container {
                kind: Kind::Tuple,
                state: State::Tuple,
                head: 2,
                count,
            }));
        }
        LIST_EXT => {
            let count = count(body.first_chunk()?);
            return Some(Found::Container(Container {
                kind: Kind::List,
                state: State::List,
                head: 5,
                count,
            }));
        }
        MAP_EXT => {
            let count = 2 * count(body.first_chunk()?);
            return Some(Found::Container(Container { kind: Kind::Map, state: State::Map, head: 5, count }));
        }
        _ => return None,
    };
    if size <= rest.len() { Some(Found::Leaf(kind, size)) } else { None }
}

/// Whether the first `len` bytes are there and ASCII.
#[inline(always)]
fn starts_with_ascii(text: &[u8], len: usize) -> bool {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    match text.first_chunk() {
        // Most atoms are short and have something behind them, which is shifted out: one load, and no branch that depends
        // on the length.
        Some(chunk) if len <= 8 => u64::from_le_bytes(*chunk).wrapping_shl(64 - 8 * len as u32) & HIGH == 0,
        _ => is_ascii(text, len),
    }
}

/// As [`starts_with_ascii`], for longer texts and at the end of the input.
#[inline(never)]
fn is_ascii(text: &[u8], len: usize) -> bool {
    text.get(..len).is_some_and(<[u8]>::is_ascii)
}

/// The container at the front in one of the rarer forms; `None` if there is none, or not enough of it.
fn container(rest: &[u8]) -> Option<Container> {
    let count = |count: &[u8; 4]| u64::from(u32::from_be_bytes(*count));
    let (tag, body) = rest.split_first()?;
    let (kind, state, head, count) = match *tag {
        LARGE_TUPLE_EXT => (Kind::Tuple, State::Tuple, 5, count(body.first_chunk()?)),
        EXPORT_EXT => (Kind::ExportFun, State::ExportFun, 1, 3),
        NEW_FUN_EXT => (Kind::Fun, State::Fun, 30, 4 + count(body.get(25..29)?.first_chunk()?)),
        RECORD_EXT => {
            let names = 2 + count(body.get(..5)?.first_chunk()?);
            (Kind::Record, State::Record(names.min(u64::from(u32::MAX)) as u32), 6, 2 * names - 2)
        }
        LOCAL_EXT => body.get(..4).map(|_| (Kind::Local, State::Local, 5, 1))?,
        _ => return None,
    };
    Some(Container { kind, state, head, count })
}

#[cold]
fn too_many(rest: &[u8], at: usize, count: u64) -> Error {
    let what = rest.first().and_then(|tag| name(*tag)).unwrap_or("term");
    Error::malformed(what, at, Problem::CountTooLarge(count))
}

#[cold]
fn truncated(at: usize) -> Error {
    Error::malformed("term", at, Problem::Truncated)
}
