//! One iterative pass over an encoded term, into a reusable buffer of flat nodes.
//!
//! The pass decides what is a term: everything else here (views, owned terms, [`RawTerm`](super::RawTerm)) relies on
//! it. It accepts what OTP's `binary_to_term` accepts, with the differences that are listed at [`Tape::parse`].

use std::collections::BTreeMap;

use super::keys::{differ, short_atom};
use super::leaf::Context;
use super::tag::*;
use super::{Atom, Kind, View};
use crate::error::Problem;
use crate::{Error, Limits, Result};

/// One term of the input. Everything else is read from the input when somebody asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    state: State,
    /// Of a short atom, some bits of its hash; 0 if they are not known.
    pub(super) hash: u16,
    /// Where the tag is.
    pub(super) at: u32,
    /// Bytes of the whole term, tag included; while it is incomplete, the terms that are missing in the container around it.
    pub(super) size: u32,
    /// The index of the first node after this term and everything inside it; while it is incomplete, that of the container
    /// around it.
    pub(super) next: u32,
}

impl Node {
    /// A term without terms inside.
    #[inline(always)]
    pub(super) const fn leaf(kind: Kind, at: u32, size: u32, next: u32) -> Self {
        Self { kind, state: State::Leaf, hash: 0, at, size, next }
    }

    /// Whether the elements end in a tail that is a list itself, or improper.
    #[inline]
    pub(super) fn tailed(&self) -> bool {
        self.state == State::Tail
    }
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
    keys: Keys,
    pub(super) table: Vec<(u32, u32)>,
    filter: Vec<u32>,
}

/// What a pass does about the keys of a map.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Keys {
    /// They have to differ.
    #[default]
    Check,
    /// They are known to differ, and will be compared.
    Order,
    /// They are known to differ, and will not be compared.
    Ignore,
}

/// What is inside a term, or still to come there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Nothing is inside.
    Leaf,
    Tuple,
    List,
    /// A list with a tail.
    Tail,
    Map,
    Fun,
    ExportFun,
    Record,
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
            self.filter = Vec::new();
        }
    }

    fn clear(&mut self) {
        self.len = 0;
        if !self.orders.is_empty() {
            self.orders.clear();
        }
        self.sorted_keys.clear();
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
    #[inline]
    pub fn parse<'a>(&'a mut self, bytes: &'a [u8], atoms: &'a [Atom], limits: &Limits) -> Result<View<'a>> {
        self.keys = Keys::Check;
        self.lay_out(bytes, atoms, limits)?;
        View::at(self, bytes, atoms, 0).ok_or_else(|| truncated(bytes.len()))
    }

    /// As [`parse`](Self::parse), for bytes that it has accepted before: does not look again for keys that are equal.
    #[inline]
    pub(super) fn parse_checked<'a>(
        &'a mut self,
        bytes: &'a [u8],
        atoms: &'a [Atom],
        limits: &Limits,
    ) -> Result<View<'a>> {
        self.keys = Keys::Order;
        self.lay_out(bytes, atoms, limits)?;
        View::at(self, bytes, atoms, 0).ok_or_else(|| truncated(bytes.len()))
    }

    /// As [`parse_checked`](Self::parse_checked), for a view in which no maps are compared.
    #[inline]
    pub(super) fn parse_to_read<'a>(
        &'a mut self,
        bytes: &'a [u8],
        atoms: &'a [Atom],
        limits: &Limits,
    ) -> Result<View<'a>> {
        self.keys = Keys::Ignore;
        self.lay_out(bytes, atoms, limits)?;
        View::at(self, bytes, atoms, 0).ok_or_else(|| truncated(bytes.len()))
    }

    /// The view is made by the callers, whose own code this becomes: a node that was just written field by field and is moved as a
    /// whole waits until all of it has reached the cache.
    fn lay_out(&mut self, bytes: &[u8], atoms: &[Atom], limits: &Limits) -> Result<()> {
        self.clear();
        if u32::try_from(bytes.len()).is_err() {
            return Err(Error::limit("max_frame", bytes.len() as u64, u64::from(u32::MAX)));
        }
        self.run(bytes, atoms, limits)
    }

    /// Containers that are incomplete are chained through their nodes, so that there is no other stack.
    fn run(&mut self, bytes: &[u8], atoms: &[Atom], limits: &Limits) -> Result<()> {
        let context = Context { atoms, max_integer_bytes: limits.max_integer_bytes };
        // LOCAL_EXT terms around this place; inside them, NIL stands for the node that made them, and no atom may
        // depend on the frame.
        let mut local = 0u32;
        let mut cached_atoms = atoms.len();
        // The innermost container that is incomplete, and how many terms it lacks; at first the one term that is wanted.
        let (mut top, mut remaining) = (NONE, 1u32);
        let mut levels = limits.max_depth;
        let (mut rest, mut len) = (bytes, 0usize);
        let mut nodes = room(&mut self.nodes, limits);
        loop {
            let Some(slot) = nodes.get_mut(len) else {
                self.grow(limits)?;
                nodes = room(&mut self.nodes, limits);
                continue;
            };
            let at = (bytes.len() - rest.len()) as u32;
            let found = match rest.first_chunk().and_then(|start| front(start, rest, cached_atoms)) {
                Some(front) => front,
                None => {
                    let front = rare(rest, at, local > 0, context)?;
                    if matches!(front, Front::Container(Container { state: State::Local, .. })) {
                        (local, cached_atoms) = (local + 1, 0);
                    }
                    front
                }
            };
            match found {
                Front::Leaf(kind, hash, size) => {
                    let Some(after) = rest.get(size..) else { return Err(truncated(bytes.len())) };
                    rest = after;
                    len += 1;
                    *slot = Node { hash, ..Node::leaf(kind, at, size as u32, len as u32) };
                    remaining -= 1;
                    if remaining > 0 {
                        continue;
                    }
                }
                Front::Container(Container { kind, state, head, count }) => {
                    let Some(less) = levels.checked_sub(1) else { return Err(too_deep(limits)) };
                    let Some(after) = rest.get(head..) else { return Err(truncated(bytes.len())) };
                    let open = Node { kind, state, hash: 0, at, size: remaining - 1, next: top };
                    // Most tuples are pairs of a name and something: a step for both, or at least for the name.
                    if state == State::Tuple
                        && count == 2
                        && let Some(place) = nodes.get_mut(len..).and_then(<[Node]>::first_chunk_mut)
                        && let Some(pair) = pair(after, at + head as u32, place, len as u32, cached_atoms)
                    {
                        let (Pair::Whole(size) | Pair::Name(size)) = pair;
                        rest = after.get(size..).unwrap_or_default();
                        let [whole, ..] = place;
                        if let Pair::Name(_) = pair {
                            *whole = open;
                            (top, remaining, levels) = (len as u32, 1, less);
                            len += 2;
                            continue;
                        }
                        len += 3;
                        *whole = Node { size: (head + size) as u32, next: len as u32, ..open };
                        remaining -= 1;
                        if remaining > 0 {
                            continue;
                        }
                    } else if let Some(slot) = nodes.get_mut(len) {
                        *slot = open;
                        (top, remaining, levels) = (len as u32, count, less);
                        len += 1;
                        rest = after;
                        // Where one integer is, there are mostly more.
                        if let [SMALL_INTEGER_EXT | INTEGER_EXT | SMALL_BIG_EXT, ..] = rest
                            && state == State::List
                        {
                            let slots = nodes.get_mut(len..).unwrap_or_default();
                            let row = integers(rest, at + head as u32, slots, len as u32, remaining);
                            rest = rest.get(row.size..).unwrap_or_default();
                            len += row.count as usize;
                            remaining -= row.count;
                        }
                        if remaining > 0 {
                            continue;
                        }
                    }
                }
                // LIST_EXT without elements is just its tail.
                Front::Nothing(size) => {
                    rest = rest.get(size..).unwrap_or_default();
                    continue;
                }
            }
            // With a term, perhaps some of the containers around it are complete.
            while remaining == 0 {
                let Some(node) = nodes.get_mut(top as usize) else {
                    self.len = len;
                    return Ok(());
                };
                let state = node.state;
                if state == State::List {
                    let [NIL_EXT, after @ ..] = rest else {
                        (node.state, remaining) = (State::Tail, 1);
                        break;
                    };
                    rest = after;
                }
                let (outer, missing) = (node.next, node.size);
                (node.next, node.size) = (len as u32, (bytes.len() - rest.len()) as u32 - node.at);
                let known = matches!(state, State::Tuple | State::List)
                    || state == State::Map
                        && match self.keys {
                            Keys::Check => differ(nodes, top, len, bytes, atoms, &mut self.filter),
                            Keys::Order => false,
                            Keys::Ignore => true,
                        };
                if !known {
                    self.len = len;
                    self.close(top, bytes, atoms)?;
                    len = self.len;
                    nodes = room(&mut self.nodes, limits);
                    if state == State::Local {
                        local -= 1;
                        cached_atoms = if local > 0 { 0 } else { atoms.len() };
                    }
                }
                levels += 1;
                (top, remaining) = (outer, missing);
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
        let unused = Node::leaf(Kind::List, 0, 0, 0);
        self.nodes.resize(len.saturating_mul(2).clamp(64, limits.max_nodes.max(64)), unused);
        Ok(())
    }

    /// Checks and completes a container that has ended, neither a tuple nor a list with `[]` as its tail.
    #[cold]
    #[inline(never)]
    fn close(&mut self, open: u32, bytes: &[u8], atoms: &[Atom]) -> Result<()> {
        let Some(&Node { state, at, next: end, .. }) = self.nodes.get(open as usize) else { return Ok(()) };
        let at = at as usize;
        match state {
            State::Leaf | State::Tuple | State::List => Ok(()),
            State::Tail => {
                let mut tail = self.nodes.get(open as usize + 1);
                while let Some(element) = tail
                    && element.next < end
                {
                    tail = self.nodes.get(element.next as usize);
                }
                let is_list = tail.is_some_and(|tail| tail.kind == Kind::List);
                if let Some(node) = self.nodes.get_mut(open as usize) {
                    node.kind = if is_list { Kind::List } else { Kind::ImproperList };
                }
                Ok(())
            }
            State::Local => {
                // Opaque: what is inside only means something to the node that made it.
                if let Some(node) = self.nodes.get_mut(open as usize) {
                    node.next = open + 1;
                }
                self.len = open as usize + 1;
                self.orders.split_off(&open);
                Ok(())
            }
            State::Map if self.keys == Keys::Order => self.order_keys(open, bytes, atoms),
            State::Map => self.check_keys(open, bytes, atoms),
            State::Fun => self.expect_kinds(open, at, &[Kind::Atom, Kind::Integer, Kind::Integer, Kind::Pid]),
            State::ExportFun => {
                self.expect_kinds(open, at, &[Kind::Atom, Kind::Atom, Kind::Integer])?;
                let arity = View::at(self, bytes, atoms, open + 3).and_then(View::as_i64);
                if arity.is_none_or(|arity| u8::try_from(arity).is_err()) {
                    return Err(Error::malformed("EXPORT_EXT", at, Problem::OutOfRange("arity")));
                }
                // A leaf to look at: its parts are read from the bytes.
                if let Some(node) = self.nodes.get_mut(open as usize) {
                    node.next = open + 1;
                }
                self.len = open as usize + 1;
                Ok(())
            }
            State::Record => {
                let fields = View::at(self, bytes, atoms, open).map_or(0, View::record_fields);
                let names = self.nodes().get(open as usize + 1..open as usize + 3 + fields as usize);
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

/// The number of no node.
const NONE: u32 = u32::MAX;

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
#[cold]
#[inline(never)]
fn integers(bytes: &[u8], at: u32, slots: &mut [Node], index: u32, most: u32) -> Row {
    let most = slots.len().min(most as usize);
    let (mut next, mut pos) = (index, 0);
    for slot in slots.iter_mut().take(most) {
        // Branches, and not a table of sizes: the processor guesses them, and reads on before it knows the size.
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
        *slot = Node::leaf(Kind::Integer, at + pos as u32, size, next);
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
enum Front {
    /// A term without terms inside, and its size.
    Leaf(Kind, u16, usize),
    Container(Container),
    /// So many bytes that are no part of any term.
    Nothing(usize),
}

/// The start of a term with terms inside.
struct Container {
    kind: Kind,
    state: State,
    /// Bytes up to the first term inside.
    head: usize,
    /// How many terms are inside, a list's tail not counted; there are at least as many bytes.
    count: u32,
}

/// What was laid out of a pair, in bytes.
#[derive(Clone, Copy)]
enum Pair {
    Whole(usize),
    /// Its second element comes next.
    Name(usize),
}

/// Lays out a short atom at the front, and what follows it if there are no terms inside, as the elements of a tuple with the
/// number `index`, at the nodes behind it. `at` is where the atom stands in the input.
#[inline(always)]
fn pair(rest: &[u8], at: u32, nodes: &mut [Node; 3], index: u32, cached_atoms: usize) -> Option<Pair> {
    let start = rest.first_chunk()?;
    if start[0] != SMALL_ATOM_UTF8_EXT || short_atom(start).is_none() {
        return None;
    }
    let name = 2 + usize::from(start[1]);
    let behind = rest.get(name..)?;
    let [_, first, second] = nodes;
    *first = Node::leaf(Kind::Atom, at, name as u32, index + 2);
    match behind.first_chunk().and_then(|start| front(start, behind, cached_atoms)) {
        Some(Front::Leaf(kind, _, size)) if size <= behind.len() => {
            *second = Node::leaf(kind, at + name as u32, size as u32, index + 3);
            Some(Pair::Whole(name + size))
        }
        _ => Some(Pair::Name(name)),
    }
}

/// What the frequent terms begin with, read at once: a tag, a length and the text of a short atom.
const START: usize = 18;

/// What is at the front in one of the forms that messages are full of. For what is too short or too long, and at the end of
/// the input, there is [`rare`].
#[inline(always)]
fn front(start: &[u8; START], rest: &[u8], cached_atoms: usize) -> Option<Front> {
    let count = || u32::from_be_bytes([start[1], start[2], start[3], start[4]]);
    let container = |kind, state, head, count| Front::Container(Container { kind, state, head, count });
    let (kind, size) = match start[0] {
        SMALL_INTEGER_EXT => (Kind::Integer, 2),
        INTEGER_EXT => (Kind::Integer, 5),
        NIL_EXT => (Kind::List, 1),
        SMALL_ATOM_UTF8_EXT => match short_atom(start) {
            Some(hash) => return Some(Front::Leaf(Kind::Atom, hash as u16, 2 + usize::from(start[1]))),
            None if is_ascii(rest, 2, start[1]) => (Kind::Atom, 2 + usize::from(start[1])),
            None => return None,
        },
        ATOM_CACHE_REF if usize::from(start[1]) < cached_atoms => (Kind::Atom, 2),
        BINARY_EXT => (Kind::Binary, (count() as usize).saturating_add(5)),
        STRING_EXT => (Kind::List, 3 + usize::from(u16::from_be_bytes([start[1], start[2]]))),
        // Two bytes of tag and length, a sign, and less than 2^63.
        SMALL_BIG_EXT if start[1] < 8 || start[1] == 8 && start[10] <= 0x7F => {
            (Kind::Integer, 3 + usize::from(start[1]))
        }
        NEW_FLOAT_EXT if is_finite(start) => (Kind::Float, 9),
        NEW_PID_EXT if start[1] == SMALL_ATOM_UTF8_EXT && is_ascii(rest, 3, start[2]) => {
            (Kind::Pid, 15 + usize::from(start[2]))
        }
        NEWER_REFERENCE_EXT
            if start[1] == 0
                && (1..=5).contains(&start[2])
                && start[3] == SMALL_ATOM_UTF8_EXT
                && is_ascii(rest, 5, start[4]) =>
        {
            (Kind::Reference, 9 + usize::from(start[4]) + 4 * usize::from(start[2]))
        }
        SMALL_TUPLE_EXT if start[1] > 0 && usize::from(start[1]) <= rest.len() - 2 => {
            return Some(container(Kind::Tuple, State::Tuple, 2, u32::from(start[1])));
        }
        LIST_EXT if count() > 0 && count() as usize <= rest.len() - 5 => {
            return Some(container(Kind::List, State::List, 5, count()));
        }
        // The count is that of pairs.
        MAP_EXT if count() > 0 && count() as usize <= (rest.len() - 5) / 2 => {
            return Some(container(Kind::Map, State::Map, 5, 2 * count()));
        }
        _ => return None,
    };
    Some(Front::Leaf(kind, 0, size))
}

/// Whether the `len` bytes behind `head` are there and ASCII.
#[cold]
#[inline(never)]
fn is_ascii(rest: &[u8], head: usize, len: u8) -> bool {
    let Some(text) = rest.get(head..head + usize::from(len)) else { return false };
    // Most names are that long: two words, which may overlap.
    match (text.first_chunk(), text.last_chunk()) {
        (Some(first), Some(last)) if len <= 16 => {
            (u64::from_le_bytes(*first) | u64::from_le_bytes(*last)) & 0x8080_8080_8080_8080 == 0
        }
        _ => text.is_ascii(),
    }
}

/// Whether a term that begins like this holds a finite float.
#[inline(always)]
fn is_finite(start: &[u8; START]) -> bool {
    let [_, bits @ .., _, _, _, _, _, _, _, _, _] = *start;
    f64::from_be_bytes(bits).is_finite()
}

/// Where the term at `pos` ends, found without a tape; `None` if there is anything but leaves, tuples, lists and maps in
/// it. For bytes that were accepted before.
pub(super) fn skip(bytes: &[u8], pos: usize, atoms: &[Atom]) -> Option<usize> {
    let context = Context { atoms, max_integer_bytes: usize::MAX };
    let mut rest = bytes.get(pos..)?;
    let mut missing = 1u64;
    while missing > 0 {
        missing -= 1;
        let found = match rest.first_chunk().and_then(|start| front(start, rest, atoms.len())) {
            Some(front) => front,
            None => rare(rest, 0, false, context).ok()?,
        };
        let size = match found {
            Front::Leaf(_, _, size) => size,
            Front::Container(Container { state: State::Tuple | State::Map, head, count, .. }) => {
                missing += u64::from(count);
                head
            }
            Front::Container(Container { state: State::List, head, count, .. }) => {
                missing += u64::from(count) + 1;
                head
            }
            Front::Container(_) => return None,
            Front::Nothing(size) => {
                missing += 1;
                size
            }
        };
        rest = rest.get(size..)?;
    }
    Some(bytes.len() - rest.len())
}

/// What is at the front, which is at `at` of the input, in any form; knows what is wrong. `local`: inside LOCAL_EXT.
// Cold, as other functions that the pass calls for what is not in front of it most of the time: its registers are not kept
// free for them.
#[cold]
#[inline(never)]
fn rare(rest: &[u8], at: u32, local: bool, context: Context<'_>) -> Result<Front> {
    let cached_atoms = if local { 0 } else { context.atoms.len() };
    // Near the end of the input, as if zeros followed.
    if rest.len() < START {
        let mut start = [0; START];
        start.iter_mut().zip(rest).for_each(|(room, byte)| *room = *byte);
        if let Some(Front::Leaf(kind, hash, size)) = front(&start, &start, cached_atoms)
            && size <= rest.len()
        {
            return Ok(Front::Leaf(kind, hash, size));
        }
    }
    let Some((kind, state, head, count)) = container(rest) else {
        return context.leaf(rest, at as usize, local).map(|(kind, size)| Front::Leaf(kind, 0, size));
    };
    // Each term takes at least one byte, a list one more for its tail.
    match u32::try_from(count).ok().filter(|count| *count as usize <= rest.len() - head) {
        Some(0) if state == State::List => Ok(Front::Nothing(head)),
        Some(0) => Ok(Front::Leaf(kind, 0, head)),
        Some(count) => Ok(Front::Container(Container { kind, state, head, count })),
        None => Err(too_many(rest, at as usize, count)),
    }
}

/// Kind, size of the head, and number of terms inside of the container at the front; `None` if there is none, or not enough
/// of it.
fn container(rest: &[u8]) -> Option<(Kind, State, usize, u64)> {
    let count = |count: &[u8; 4]| u64::from(u32::from_be_bytes(*count));
    let (tag, body) = rest.split_first()?;
    Some(match *tag {
        SMALL_TUPLE_EXT => (Kind::Tuple, State::Tuple, 2, u64::from(*body.first()?)),
        LIST_EXT => (Kind::List, State::List, 5, count(body.first_chunk()?)),
        MAP_EXT => (Kind::Map, State::Map, 5, 2 * count(body.first_chunk()?)),
        LARGE_TUPLE_EXT => (Kind::Tuple, State::Tuple, 5, count(body.first_chunk()?)),
        EXPORT_EXT => (Kind::ExportFun, State::ExportFun, 1, 3),
        NEW_FUN_EXT => (Kind::Fun, State::Fun, 30, 4 + count(body.get(25..29)?.first_chunk()?)),
        RECORD_EXT => {
            let names = 2 + count(body.get(..5)?.first_chunk()?);
            (Kind::Record, State::Record, 6, 2 * names - 2)
        }
        LOCAL_EXT => body.get(..4).map(|_| (Kind::Local, State::Local, 5, 1))?,
        _ => return None,
    })
}

#[cold]
fn too_many(rest: &[u8], at: usize, count: u64) -> Error {
    let what = rest.first().and_then(|tag| name(*tag)).unwrap_or("term");
    Error::malformed(what, at, Problem::CountTooLarge(count))
}

#[cold]
fn too_deep(limits: &Limits) -> Error {
    Error::limit("max_depth", limits.max_depth as u64 + 1, limits.max_depth as u64)
}

#[cold]
fn truncated(at: usize) -> Error {
    Error::malformed("term", at, Problem::Truncated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::{Map, RawTerm, Term};

    /// Nothing else here or in a view owns memory, except for a map inside the key of a map.
    #[test]
    fn nothing_is_allocated_for_a_second_look() {
        let pair = |n: i64| {
            (
                Term::from(n.to_string()),
                Term::list([n.into(), Term::atom("x"), Term::tuple([n.into(), Term::Float(1.5)])]),
            )
        };
        let map: Map = (0..100).map(pair).collect();
        let bytes = RawTerm::from_term(&Term::list([map.into(), "text".into()])).unwrap();
        let mut tape = Tape::new();
        let rooms = |tape: &Tape| {
            let Tape { nodes, len: _, orders, sorted_keys, keys: _, table, filter } = tape;
            assert!(orders.is_empty() && sorted_keys.capacity() == 0 && table.capacity() == 0);
            [(nodes.as_ptr() as usize, nodes.capacity()), (filter.as_ptr() as usize, filter.capacity())]
        };
        let limits = Limits::default();
        let count =
            |view: View<'_>| view.elements().flat_map(View::elements).flat_map(View::elements).count();
        assert_eq!(tape.parse(bytes.as_bytes(), &[], &limits).map(count), Ok(300));
        let before = rooms(&tape);
        for _ in 0..3 {
            assert_eq!(tape.parse(bytes.as_bytes(), &[], &limits).map(count), Ok(300));
            assert_eq!(rooms(&tape), before);
        }
    }

    /// The nodes of a pair are written together, but count one by one.
    #[test]
    fn a_pair_takes_no_more_room_than_there_is() {
        let pair = |value: Term| Term::tuple([Term::atom("name"), value]);
        for value in [1.into(), "text".into(), Term::list([2.into()]), pair(3.into())] {
            let raw = RawTerm::from_term(&Term::list([pair(value.clone()), pair(value)])).unwrap();
            let bytes = raw.as_bytes();
            let parse = |max_nodes, max_depth| {
                let limits = Limits { max_nodes, max_depth, ..Limits::default() };
                Tape::new().parse(bytes, &[], &limits).map(|view| view.node.next as usize)
            };
            let nodes = parse(64, 8).unwrap();
            let depth = (0..8).find(|depth| parse(64, *depth).is_ok()).unwrap();
            assert_eq!(depth, if nodes == 7 { 2 } else { 3 });
            assert_eq!(parse(nodes, depth), Ok(nodes));
            assert_eq!(
                parse(nodes - 1, depth),
                Err(Error::limit("max_nodes", nodes as u64, nodes as u64 - 1))
            );
        }
    }

    #[test]
    fn every_form_at_every_distance_from_the_end() {
        // The first 16 bytes of a term are read at once, the last ones of the input one by one.
        let limits = Limits::default();
        let long = Term::Atom(Atom::new(&"l".repeat(40)).unwrap());
        let leaves = [1.into(), 256.into(), (1i64 << 40).into(), Term::atom("ok"), long, "text".into()];
        for leaf in leaves {
            for wrap in [
                |leaf: Term| Term::from((leaf.clone(), leaf)),
                |leaf: Term| Term::list([leaf, Term::nil(), Term::tuple([])]),
                |leaf: Term| Term::Map([(leaf.clone(), leaf), (Term::nil(), 1.into())].into_iter().collect()),
            ] {
                let raw = RawTerm::from_term(&wrap(leaf.clone())).unwrap();
                let len = raw.as_bytes().len();
                for behind in 0..20 {
                    let mut bytes = raw.as_bytes().to_vec();
                    bytes.resize(len + behind, 0xFF);
                    let mut tape = Tape::new();
                    let view = tape.parse(&bytes, &[], &limits).unwrap();
                    assert_eq!(view.span(), 0..len);
                    assert_eq!(view.to_term(), wrap(leaf.clone()));
                    assert_eq!(skip(&bytes, 0, &[]), Some(len));
                }
                for cut in 0..len {
                    let bytes = raw.as_bytes().slice(..cut);
                    assert!(Tape::new().parse(&bytes, &[], &limits).is_err(), "{cut}");
                    assert_eq!(skip(&bytes, 0, &[]), None, "{cut}");
                }
            }
        }
    }
}
