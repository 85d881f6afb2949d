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
    pub(super) nodes: Vec<Node>,
    /// For each map inside the key of a map, where its keys stand in `sorted_keys`.
    pub(super) orders: BTreeMap<u32, u32>,
    /// The nodes of keys, in exact term order.
    pub(super) sorted_keys: Vec<u32>,
    open: Vec<Open>,
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
        self.nodes.clear();
        self.sorted_keys.clear();
        self.table.clear();
        self.open.clear();
        self.nodes.shrink_to(nodes);
        self.sorted_keys.shrink_to(nodes);
        self.table.shrink_to(nodes);
        self.open.shrink_to(nodes);
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
        self.nodes.clear();
        self.orders.clear();
        self.sorted_keys.clear();
        self.open.clear();
        if u32::try_from(bytes.len()).is_err() {
            return Err(Error::limit("max_frame", bytes.len() as u64, u64::from(u32::MAX)));
        }
        self.run(bytes, atoms, limits)?;
        View::at(self, bytes, atoms, 0).ok_or_else(|| truncated(bytes.len()))
    }

    fn run(&mut self, bytes: &[u8], atoms: &[Atom], limits: &Limits) -> Result<()> {
        let context = Context { atoms, max_integer_bytes: limits.max_integer_bytes };
        let mut top = Open { node: 0, remaining: 1, state: State::Root, in_key: false };
        let mut pos = 0;
        // LOCAL_EXT terms around this place; inside them, NIL stands for the node that made them.
        let mut local = 0u32;
        loop {
            let at = pos;
            let Some((&tag, body)) = bytes.get(pos..).and_then(<[u8]>::split_first) else {
                return Err(truncated(pos));
            };
            if self.nodes.len() >= limits.max_nodes {
                return Err(Error::limit("max_nodes", self.nodes.len() as u64 + 1, limits.max_nodes as u64));
            }
            let node = self.nodes.len() as u32;
            if let Some((kind, size)) = context.leaf(tag, body, at, local > 0)? {
                self.nodes.push(Node {
                    kind,
                    tailed: false,
                    at: at as u32,
                    size: size as u32,
                    next: node + 1,
                });
                pos += size;
            } else {
                let Container { kind, state, head, count } = container(tag, body, at)?;
                pos += head;
                // LIST_EXT without elements is just its tail.
                if state == State::List && count == 0 {
                    continue;
                }
                // Each term takes at least one byte, a list one more for its tail.
                if count > (bytes.len() - pos) as u64 {
                    return Err(Error::malformed(
                        name(tag).unwrap_or("term"),
                        at,
                        Problem::CountTooLarge(count),
                    ));
                }
                self.nodes.push(Node {
                    kind,
                    tailed: false,
                    at: at as u32,
                    size: head as u32,
                    next: node + 1,
                });
                if count > 0 {
                    if self.open.len() >= limits.max_depth {
                        return Err(Error::limit(
                            "max_depth",
                            self.open.len() as u64 + 1,
                            limits.max_depth as u64,
                        ));
                    }
                    let is_key = top.state == State::Map && top.remaining.is_multiple_of(2);
                    local += u32::from(state == State::Local);
                    self.open.push(top);
                    top = Open { node, remaining: count as u32, state, in_key: top.in_key || is_key };
                    continue;
                }
            }
            // A term is complete, and with it perhaps some of the containers around it.
            loop {
                top.remaining -= 1;
                if top.remaining > 0 {
                    break;
                }
                if top.state == State::Root {
                    return Ok(());
                }
                if top.state == State::List {
                    if bytes.get(pos) != Some(&NIL_EXT) {
                        top.state = State::Tail(self.nodes.len() as u32);
                        top.remaining = 1;
                        break;
                    }
                    pos += 1;
                }
                self.close(top, pos, bytes, atoms)?;
                local -= u32::from(top.state == State::Local);
                match self.open.pop() {
                    Some(outer) => top = outer,
                    None => return Ok(()),
                }
            }
        }
    }

    /// Completes a container that ends before `pos`.
    #[inline]
    fn close(&mut self, open: Open, pos: usize, bytes: &[u8], atoms: &[Atom]) -> Result<()> {
        let next = self.nodes.len() as u32;
        let tail = match open.state {
            State::Tail(tail) => self.nodes.get(tail as usize).map(|node| node.kind),
            _ => None,
        };
        let Some(node) = self.nodes.get_mut(open.node as usize) else { return Ok(()) };
        node.next = next;
        node.size = pos as u32 - node.at;
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
                self.nodes.truncate(open.node as usize + 1);
                Ok(())
            }
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
                self.nodes.truncate(open.node as usize + 1);
                Ok(())
            }
            State::Record(names) => {
                let names = self.nodes.get(open.node as usize + 1..(open.node + 1 + names) as usize);
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
        let found = self.nodes.get(node as usize + 1..).unwrap_or_default();
        if found.len() >= kinds.len() && found.iter().zip(kinds).all(|(node, kind)| node.kind == *kind) {
            Ok(())
        } else {
            Err(Error::malformed("fun", at, Problem::Other("a part has the wrong type")))
        }
    }
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

#[inline]
fn container(tag: u8, body: &[u8], at: usize) -> Result<Container> {
    let count32 = || body.first_chunk().map(|count| u64::from(u32::from_be_bytes(*count)));
    let found = match tag {
        SMALL_TUPLE_EXT => body.first().map(|arity| (Kind::Tuple, State::Tuple, 2, u64::from(*arity))),
        LIST_EXT => count32().map(|len| (Kind::List, State::List, 5, len)),
        MAP_EXT => count32().map(|pairs| (Kind::Map, State::Map, 5, 2 * pairs)),
        LARGE_TUPLE_EXT => count32().map(|arity| (Kind::Tuple, State::Tuple, 5, arity)),
        EXPORT_EXT => Some((Kind::ExportFun, State::ExportFun, 1, 3)),
        NEW_FUN_EXT => body
            .get(25..29)
            .and_then(<[u8]>::first_chunk)
            .map(|free| (Kind::Fun, State::Fun, 30, 4 + u64::from(u32::from_be_bytes(*free)))),
        RECORD_EXT => count32().filter(|_| body.len() > 4).map(|fields| {
            let names = 2 + fields;
            (Kind::Record, State::Record(names.min(u64::from(u32::MAX)) as u32), 6, names + fields)
        }),
        LOCAL_EXT => body.get(..4).map(|_| (Kind::Local, State::Local, 5, 1)),
        _ => return Err(Error::malformed("term", at, Problem::UnknownTag(tag))),
    };
    let (kind, state, head, count) = found.ok_or_else(|| truncated(at))?;
    Ok(Container { kind, state, head, count })
}

#[cold]
fn truncated(at: usize) -> Error {
    Error::malformed("term", at, Problem::Truncated)
}
