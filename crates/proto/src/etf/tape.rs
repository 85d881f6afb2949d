//! One iterative pass over an encoded term, into a reusable buffer of flat nodes.
//!
//! The pass decides what is a term: everything else here (views, owned terms, [`RawTerm`](super::RawTerm)) relies on
//! it. It accepts what OTP's `binary_to_term` accepts, with the differences that are listed at [`Tape::parse`].

use std::collections::BTreeMap;

use super::keys::differ;
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
    /// While the term is incomplete: what it waits for.
    state: State,
    /// While the term is incomplete: it is inside the key of a map.
    in_key: bool,
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
        Self { kind, tailed: false, state: State::Leaf, in_key: false, at, size, next }
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
    /// The keys of maps are known to differ.
    keys_differ: bool,
    pub(super) table: Vec<(u32, u32)>,
    filter: Vec<u32>,
}

/// A container whose last term has come.
#[derive(Clone, Copy, Debug)]
struct Complete {
    /// Its node.
    node: u32,
    /// The node of that last term.
    last: u32,
    state: State,
    /// It is inside the key of a map.
    in_key: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Nothing is inside.
    Leaf,
    Tuple,
    List,
    /// A list whose elements are complete, not so its tail.
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

    /// Containers that are incomplete are chained through their nodes, so that there is no other stack.
    fn run(&mut self, bytes: &[u8], atoms: &[Atom], limits: &Limits) -> Result<()> {
        let context = Context { atoms, max_integer_bytes: limits.max_integer_bytes };
        // LOCAL_EXT terms around this place; inside them, NIL stands for the node that made them, and no atom may
        // depend on the frame.
        let mut local = 0u32;
        // The innermost container that is incomplete, and how many terms it lacks; at first the one term that is wanted.
        let (mut top, mut state, mut in_key, mut remaining) = (0u32, State::Leaf, false, 1u32);
        let mut depth = 0;
        let (mut pos, mut len) = (0, 0);
        let mut nodes = room(&mut self.nodes, limits);
        loop {
            let Some(slot) = nodes.get_mut(len) else {
                self.grow(limits)?;
                nodes = room(&mut self.nodes, limits);
                continue;
            };
            let at = pos as u32;
            let start = bytes.get(pos..pos + START).and_then(<[u8]>::first_chunk);
            let form = start.and_then(|start: &[u8; START]| FORMS.get(usize::from(start[0])));
            let mut integer = false;
            let container = match (start, form) {
                (Some(start), Some(form)) if form.is_leaf() => {
                    let end = pos as u64 + form.size(start);
                    if end <= bytes.len() as u64 && (!form.is_text() || form.is_ascii(start, bytes, pos)) {
                        len += 1;
                        *slot = Node::leaf(form.kind, at, end as u32 - at, len as u32);
                        pos = end as usize;
                        remaining -= 1;
                        integer = form.kind == Kind::Integer;
                        if !integer && remaining > 0 {
                            continue;
                        }
                        None
                    } else {
                        Some(rare(bytes, pos, local > 0, context)?)
                    }
                }
                (Some(start), Some(form)) if form.is_container() => {
                    let count = form.count(start);
                    if count > 0 && count <= (bytes.len() - pos - usize::from(form.head)) as u64 {
                        Some(Found {
                            kind: form.kind,
                            state: form.state,
                            head: usize::from(form.head),
                            count: count as u32,
                        })
                    } else {
                        Some(rare(bytes, pos, local > 0, context)?)
                    }
                }
                _ => Some(rare(bytes, pos, local > 0, context)?),
            };
            if let Some(found) = container {
                let Some(slot) = nodes.get_mut(len) else { continue };
                if found.count > 0 {
                    if depth >= limits.max_depth {
                        return Err(Error::limit("max_depth", depth as u64 + 1, limits.max_depth as u64));
                    }
                    depth += 1;
                    if state == State::Map {
                        in_key |= remaining.is_multiple_of(2);
                    }
                    state = found.state;
                    let size = remaining - 1;
                    *slot = Node { kind: found.kind, tailed: false, state, in_key, at, size, next: top };
                    (top, remaining) = (len as u32, found.count);
                    pos += found.head;
                    len += 1;
                    if state == State::Local {
                        local += 1;
                    }
                    continue;
                }
                pos += found.head;
                // LIST_EXT without elements is just its tail.
                if found.state == State::List {
                    continue;
                }
                len += 1;
                *slot = Node::leaf(found.kind, at, found.head as u32, len as u32);
                remaining -= 1;
                integer = found.kind == Kind::Integer;
            }
            // Where one integer is, there are mostly more.
            if integer && remaining > 0 {
                let after = bytes.get(pos..).unwrap_or_default();
                if matches!(after.first(), Some(&(SMALL_INTEGER_EXT | INTEGER_EXT | SMALL_BIG_EXT))) {
                    let slots = nodes.get_mut(len..).unwrap_or_default();
                    let row = integers(after, pos as u32, slots, len as u32, remaining);
                    pos += row.size;
                    len += row.count as usize;
                    remaining -= row.count;
                }
            }
            // A term is complete, and with it perhaps some of the containers around it.
            let mut last = len as u32 - 1;
            while remaining == 0 {
                if depth == 0 {
                    self.len = len;
                    return Ok(());
                }
                let Some(node) = nodes.get_mut(top as usize) else { return Ok(()) };
                if state == State::List {
                    if bytes.get(pos) != Some(&NIL_EXT) {
                        (state, node.state, remaining) = (State::Tail, State::Tail, 1);
                        break;
                    }
                    pos += 1;
                }
                let (outer, missing) = (node.next, node.size);
                (node.next, node.size) = (len as u32, pos as u32 - node.at);
                if !matches!(state, State::Tuple | State::List)
                    && !(state == State::Map
                        && !in_key
                        && (self.keys_differ || differ(nodes, top, bytes, atoms, &mut self.filter)))
                {
                    self.len = len;
                    self.close(Complete { node: top, last, state, in_key }, bytes, atoms)?;
                    len = self.len;
                    local -= u32::from(state == State::Local);
                    nodes = room(&mut self.nodes, limits);
                }
                depth -= 1;
                last = top;
                (top, remaining) = (outer, missing);
                if let Some(node) = nodes.get(outer as usize) {
                    (state, in_key) = (node.state, node.in_key);
                }
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

    /// Checks and completes a container that has ended.
    #[inline(never)]
    fn close(&mut self, open: Complete, bytes: &[u8], atoms: &[Atom]) -> Result<()> {
        let last = self.nodes.get(open.last as usize).map(|node| node.kind);
        let Some(node) = self.nodes.get_mut(open.node as usize) else { return Ok(()) };
        let at = node.at as usize;
        match open.state {
            State::Leaf | State::Tuple | State::List => Ok(()),
            State::Tail => {
                node.tailed = true;
                node.kind = if last == Some(Kind::List) { Kind::List } else { Kind::ImproperList };
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
            State::Record => {
                let fields = View::at(self, bytes, atoms, open.node).map_or(0, View::record_fields);
                let names =
                    self.nodes().get(open.node as usize + 1..open.node as usize + 3 + fields as usize);
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
struct Found {
    kind: Kind,
    state: State,
    /// Bytes up to the first term inside; of a leaf, all of them.
    head: usize,
    /// How many terms are inside, a list's tail not counted; there are at least as many bytes.
    count: u32,
}

/// How the length of a term follows from its first five bytes.
#[derive(Clone, Copy)]
struct Form {
    kind: Kind,
    /// Of a leaf and of any tag that is none of the frequent ones: `Leaf`.
    state: State,
    /// Bytes in front of what is counted.
    head: u8,
    /// How far the four bytes after the tag, as a big-endian number, are shifted to the right to be the count.
    shift: u8,
    class: Class,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Class {
    /// Any bytes will do.
    Leaf,
    /// What is counted is text of UTF-8.
    Text,
    Container,
    Rare,
}

/// The first bytes of a term, which are read at once.
const START: usize = 16;

/// The forms that messages are full of, by tag. Within the last [`START`] bytes of the input, [`rare`] reads them.
static FORMS: [Form; 256] = {
    const fn form(class: Class, kind: Kind, state: State, head: u8, shift: u8) -> Form {
        Form { kind, state, head, shift, class }
    }
    let mut forms = [form(Class::Rare, Kind::Local, State::Leaf, 0, 32); 256];
    forms[SMALL_INTEGER_EXT as usize] = form(Class::Leaf, Kind::Integer, State::Leaf, 2, 32);
    forms[INTEGER_EXT as usize] = form(Class::Leaf, Kind::Integer, State::Leaf, 5, 32);
    forms[NIL_EXT as usize] = form(Class::Leaf, Kind::List, State::Leaf, 1, 32);
    forms[STRING_EXT as usize] = form(Class::Leaf, Kind::List, State::Leaf, 3, 16);
    forms[BINARY_EXT as usize] = form(Class::Leaf, Kind::Binary, State::Leaf, 5, 0);
    forms[SMALL_ATOM_UTF8_EXT as usize] = form(Class::Text, Kind::Atom, State::Leaf, 2, 24);
    forms[SMALL_TUPLE_EXT as usize] = form(Class::Container, Kind::Tuple, State::Tuple, 2, 24);
    forms[LIST_EXT as usize] = form(Class::Container, Kind::List, State::List, 5, 0);
    // The count is that of pairs.
    forms[MAP_EXT as usize] = form(Class::Container, Kind::Map, State::Map, 5, 0);
    forms
};

impl Form {
    #[inline(always)]
    fn is_leaf(self) -> bool {
        matches!(self.class, Class::Leaf | Class::Text)
    }

    #[inline(always)]
    fn is_text(self) -> bool {
        self.class == Class::Text
    }

    #[inline(always)]
    fn is_container(self) -> bool {
        self.class == Class::Container
    }

    #[inline(always)]
    fn counted(self, start: &[u8; START]) -> u64 {
        let [_, a, b, c, d, ..] = start;
        u64::from(u32::from_be_bytes([*a, *b, *c, *d])).wrapping_shr(self.shift.into())
    }

    /// The bytes of a leaf.
    #[inline(always)]
    fn size(self, start: &[u8; START]) -> u64 {
        u64::from(self.head) + self.counted(start)
    }

    /// The terms in a container, the tail of a list not counted.
    #[inline(always)]
    fn count(self, start: &[u8; START]) -> u64 {
        self.counted(start) << u32::from(self.state == State::Map)
    }

    /// Whether the text of a whole atom, which is at `pos`, is ASCII.
    #[inline(always)]
    fn is_ascii(self, start: &[u8; START], bytes: &[u8], pos: usize) -> bool {
        let len = usize::from(start[1]);
        match (TEXT.get(len), start.as_chunks::<8>().0) {
            (Some((first, second)), [low, high]) => {
                u64::from_le_bytes(*low) & first | u64::from_le_bytes(*high) & second == 0
            }
            _ => is_ascii(bytes.get(pos + 2..).unwrap_or_default(), len),
        }
    }
}

/// Of a start with an atom of so many bytes, the highest bits of those bytes.
static TEXT: [(u64, u64); START - 1] = {
    let mut masks = [(0, 0); START - 1];
    let mut len = 0;
    while len < START - 1 {
        let mask = (0x8080_8080_8080_8080_8080_8080_8080_8080 & ((1u128 << (8 * len)) - 1)) << 16;
        masks[len] = (mask as u64, (mask >> 64) as u64);
        len += 1;
    }
    masks
};

/// Where the term at `pos` ends, found without a tape; `None` if there is anything but leaves, tuples, lists and maps in
/// it. For bytes that were accepted before.
pub(super) fn skip(bytes: &[u8], mut pos: usize, atoms: &[Atom]) -> Option<usize> {
    let context = Context { atoms, max_integer_bytes: usize::MAX };
    let mut missing = 1u64;
    while missing > 0 {
        missing -= 1;
        let start = bytes.get(pos..pos + START).and_then(<[u8]>::first_chunk);
        if let Some(start) = start
            && let Some(form) = FORMS.get(usize::from(start[0]))
            && form.is_leaf()
        {
            pos += form.size(start) as usize;
            continue;
        }
        let found = rare(bytes, pos, false, context).ok()?;
        pos += found.head;
        missing += match found.state {
            State::Leaf => 0,
            State::Tuple | State::Map => u64::from(found.count),
            State::List => u64::from(found.count) + 1,
            State::Tail | State::Fun | State::ExportFun | State::Record | State::Local => return None,
        };
    }
    (pos <= bytes.len()).then_some(pos)
}

/// What is at `at` in any form; knows what is wrong. `local`: inside LOCAL_EXT.
#[inline(never)]
fn rare(bytes: &[u8], at: usize, local: bool, context: Context<'_>) -> Result<Found> {
    let rest = bytes.get(at..).unwrap_or_default();
    let cached_atoms = if local { 0 } else { context.atoms.len() };
    if let Some((kind, size)) = common(rest, cached_atoms) {
        return Ok(Found { kind, state: State::Leaf, head: size, count: 0 });
    }
    if let Some(Container { kind, state, head, count }) = container(rest) {
        // Each term takes at least one byte, a list one more for its tail.
        return match u32::try_from(count).ok().filter(|count| *count as usize <= rest.len() - head) {
            Some(count) => Ok(Found { kind, state, head, count }),
            None => Err(too_many(rest, at, count)),
        };
    }
    let (kind, size) = context.leaf(rest, at, local)?;
    Ok(Found { kind, state: State::Leaf, head: size, count: 0 })
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

/// The kind and size of the leaf at the front, if it is in one of the usual forms, and in order.
#[inline(always)]
fn common(rest: &[u8], cached_atoms: usize) -> Option<(Kind, usize)> {
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
        _ => return None,
    };
    (size <= rest.len()).then_some((kind, size))
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

/// The container at the front; `None` if there is none, or not enough of it.
fn container(rest: &[u8]) -> Option<Container> {
    let count = |count: &[u8; 4]| u64::from(u32::from_be_bytes(*count));
    let (tag, body) = rest.split_first()?;
    let (kind, state, head, count) = match *tag {
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
            let Tape { nodes, len: _, orders, sorted_keys, keys_differ: _, table, filter } = tape;
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
