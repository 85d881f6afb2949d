//! Bytes to owned terms.

use core::iter::once;
use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use super::tag::*;
use super::tape::Node;
use super::{Atom, ExportFun, Fun, ImproperList, Kind, List, Map, Record, Tape, Term, Tuple, View};
use crate::error::Problem;
use crate::{Error, Limits, Result};

/// Reads a standalone term, with the version byte 131, compressed or not. What follows the term is ignored, as
/// `binary_to_term/1` does.
///
/// # Errors
/// As [`Tape::parse`], and [`Error::Malformed`] for another version byte or a compressed stream that is damaged or has
/// another length than it says; [`Error::LimitExceeded`] for `max_inflated`.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Term> {
    let term = uncompressed(bytes, limits)?;
    Tape::new().parse(&term, &[], limits).map(|view| build(view, None))
}

/// As [`decode`], with large binaries as slices of `bytes` instead of copies.
///
/// # Errors
/// As [`decode`].
pub fn decode_bytes(bytes: &Bytes, limits: &Limits) -> Result<Term> {
    let inside = match uncompressed(bytes, limits)? {
        Cow::Borrowed(_) => bytes.slice(1..),
        Cow::Owned(inflated) => inflated.into(),
    };
    Tape::new().parse(&inside, &[], limits).map(|view| build(view, Some(&inside)))
}

/// The term behind the version byte.
pub(super) fn uncompressed<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Cow<'a, [u8]>> {
    match bytes {
        [VERSION_MAGIC, COMPRESSED, size @ ..] => {
            let Some((size, stream)) = size.split_first_chunk() else {
                return Err(Error::malformed("compressed term", 2, Problem::Truncated));
            };
            super::inflate::inflate(stream, u32::from_be_bytes(*size) as usize, limits).map(Cow::Owned)
        }
        [VERSION_MAGIC, term @ ..] => Ok(Cow::Borrowed(term)),
        [version, ..] => Err(Error::malformed("version byte", 0, Problem::UnknownTag(*version))),
        [] => Err(Error::malformed("version byte", 0, Problem::Truncated)),
    }
}

/// From this size on, a binary is a slice of the message; a smaller one is copied.
///
/// A slice keeps the whole buffer alive that the message was read into, so that a few kept bytes could hold 64 KiB. The
/// BEAM draws the line at 64 bytes too (`ERL_ONHEAP_BIN_LIMIT`).
const SLICE_FROM: usize = 64;

/// The copied binaries of a message share blocks of this size: far fewer allocations, and a kept one holds at most this.
const BLOCK: usize = 1024;

/// From this size on, a container is filled in place; a smaller one is taken from the stack of values when it is complete.
const FILL_IN_PLACE: usize = 64;

/// A container that is being filled.
struct Building {
    /// Its node, and where that is.
    node: Node,
    index: u32,
    /// It is a list whose tail has not been reached.
    tailed: bool,
    /// Where its elements start among the values.
    start: usize,
    /// For a container that is filled in place, the values so far; they are set aside meanwhile.
    outer: Option<Vec<Term>>,
}

/// The owned form of a term. `source` is the memory that the view looks at, if large binaries may be slices of it.
pub(super) fn build(view: View<'_>, source: Option<&Bytes>) -> Term {
    if view.byte {
        return Term::Integer(view.as_i64().unwrap_or_default());
    }
    Builder {
        whole: view,
        nodes: view.tape.nodes(),
        binaries: Binaries { source, block: BytesMut::new() },
        atoms: Atoms::default(),
    }
    .term(view.index, LEVELS)
}

/// Levels that are built by recursion, which is faster than a stack of values; what is nested deeper goes to such a stack.
const LEVELS: u32 = 32;

/// Makes owned terms of nodes.
struct Builder<'a> {
    /// Of the tape that the nodes are of.
    whole: View<'a>,
    nodes: &'a [Node],
    binaries: Binaries<'a>,
    atoms: Atoms,
}

impl<'a> Builder<'a> {
    fn view(&self, index: u32, node: Node) -> View<'a> {
        View { index, node, ..self.whole }
    }

    /// The owned form of the term that node `index` stands for.
    #[inline(always)]
    fn term(&mut self, index: u32, levels: u32) -> Term {
        let Some(&node) = self.nodes.get(index as usize) else { return Term::nil() };
        let bytes = self.whole.bytes.get(node.at as usize..).unwrap_or_default();
        match *bytes {
            [SMALL_ATOM_UTF8_EXT, len, ref text @ ..] => Term::Atom(self.atoms.atom(text, usize::from(len))),
            [SMALL_INTEGER_EXT, byte, ..] => Term::Integer(i64::from(byte)),
            [INTEGER_EXT, a, b, c, d, ..] => Term::Integer(i64::from(i32::from_be_bytes([a, b, c, d]))),
            [BINARY_EXT, ..] => Term::Binary(self.binary(index, node)),
            [NIL_EXT, ..] => Term::nil(),
            [SMALL_TUPLE_EXT, arity, ..] if arity > 0 && levels > 0 => {
                Term::Tuple(Tuple(self.elements(index + 1, node.next, usize::from(arity), levels - 1)))
            }
            [LIST_EXT, a, b, c, d, ..] if levels > 0 => {
                self.list(index, node, u32::from_be_bytes([a, b, c, d]) as usize, levels - 1)
            }
            [MAP_EXT, a, b, c, d, ..] if levels > 0 => {
                self.map(index, node, u32::from_be_bytes([a, b, c, d]) as usize, levels - 1)
            }
            _ => self.rare(index, node),
        }
    }

    #[inline(never)]
    fn binary(&mut self, index: u32, node: Node) -> Bytes {
        let view = self.view(index, node);
        self.binaries.take(view.as_binary().unwrap_or_default(), view)
    }

    /// The terms from node `index` up to node `end`, of which there are `count`.
    fn elements(&mut self, mut index: u32, end: u32, count: usize, levels: u32) -> Vec<Term> {
        let mut elements = Vec::with_capacity(count);
        while index < end
            && let Some(node) = self.nodes.get(index as usize)
        {
            let next = node.next;
            // See below at `extend`.
            elements.extend(once(index).map(|index| self.term(index, levels)));
            index = next;
        }
        elements
    }

    fn list(&mut self, index: u32, node: Node, count: usize, levels: u32) -> Term {
        // Where each is one node, they may be nothing but integers.
        let inside = self.nodes.get(index as usize + 1..node.next as usize).unwrap_or_default();
        if inside.len() == count && inside.iter().all(|node| node.kind == Kind::Integer) {
            let mut integers = Vec::with_capacity(count);
            push_integers(&mut integers, inside, self.view(index, node));
            return Term::List(List(integers));
        }
        let tail = usize::from(node.tailed());
        let mut elements = self.elements(index + 1, node.next, count + tail, levels);
        if tail == 0 {
            return Term::List(List(elements));
        }
        // The one frequent list of this kind is `[alias | Reference]`, in every call of a gen_server.
        let tail = elements.pop().unwrap_or_default();
        Term::list_with_tail(elements, tail)
    }

    fn map(&mut self, index: u32, node: Node, count: usize, levels: u32) -> Term {
        let mut pairs = Vec::with_capacity(count);
        let (mut key, end) = (index + 1, node.next);
        while key < end
            && let Some(value) = self.nodes.get(key as usize).map(|key| key.next)
            && let Some(next) = self.nodes.get(value as usize).map(|value| value.next)
        {
            pairs.extend(once(key).map(|key| (self.term(key, levels), self.term(value, levels))));
            key = next;
        }
        Term::Map(Map(pairs))
    }

    /// The less frequent terms, and those that are nested too deeply for recursion.
    #[inline(never)]
    fn rare(&mut self, index: u32, node: Node) -> Term {
        let view = self.view(index, node);
        match node.kind {
            _ if node.next > index + 1 => build_on_stack(view, &mut self.binaries),
            // Whatever has been parsed can be read; the fallbacks only keep this free of panics.
            Kind::Atom => view.to_atom().map_or_else(Term::nil, Term::Atom),
            Kind::Integer => Term::Integer(view.as_i64().unwrap_or_default()),
            Kind::Binary => Term::Binary(self.binary(index, node)),
            _ => rare_leaf(view, &mut self.binaries).unwrap_or_default(),
        }
    }
}

/// The long atoms that came last, which share their text.
#[derive(Default)]
struct Atoms {
    last: [Option<Atom>; 4],
    next: usize,
}

impl Atoms {
    /// The atom whose text is the first `len` bytes.
    #[inline(always)]
    fn atom(&mut self, text: &[u8], len: usize) -> Atom {
        if len <= Atom::INLINE {
            Atom::from_checked(text, len)
        } else {
            self.long(text.get(..len).unwrap_or_default())
        }
    }

    #[inline(never)]
    fn long(&mut self, text: &[u8]) -> Atom {
        if let Some(atom) = self.last.iter().flatten().find(|atom| atom.as_bytes() == text) {
            return atom.clone();
        }
        let atom = Atom::from_checked(text, text.len());
        if let Some(place) = self.last.get_mut(self.next) {
            *place = Some(atom.clone());
        }
        self.next = (self.next + 1) % self.last.len();
        atom
    }
}

/// The owned form of a term of any depth.
///
/// Terms are made in the order of the nodes and pushed to a stack of values; a container takes its elements off that stack
/// when its last node has passed.
#[inline(never)]
fn build_on_stack(view: View<'_>, binaries: &mut Binaries<'_>) -> Term {
    let mut values = Vec::with_capacity(16);
    build_nodes(view, &mut values, binaries);
    values.pop().unwrap_or_default()
}

fn build_nodes(root: View<'_>, values: &mut Vec<Term>, binaries: &mut Binaries<'_>) {
    let nodes = root.tape.nodes();
    let mut open: Vec<Building> = Vec::new();
    // Of the innermost container: the first node after it, and whether it is a list that may go on in its tail.
    let (mut end, mut tailed) = (root.node.next, false);
    let mut index = root.index;
    while let Some(&node) = nodes.get(index as usize) {
        let view = View { node, index, ..root };
        index += 1;
        if node.next > index {
            match open.last_mut() {
                // The tail of a list that is a list itself: its elements are those of the list.
                Some(list) if tailed && node.next == end && is_list(node.kind) => list.tailed = node.tailed(),
                _ => open.push(begin(view, values)),
            }
            (end, tailed) = (node.next, node.tailed());
            // Names and the like are read at the end.
            index += match node.kind {
                Kind::Fun => 4,
                Kind::Record => 2 + view.record_fields(),
                _ => 0,
            };
        } else if tailed && index == end && is_list(node.kind) {
            // The tail of a list that is a list itself, in the form STRING_EXT or NIL_EXT.
            values.extend(bytes_as_integers(view));
        } else if node.kind == Kind::Integer {
            let rest = nodes.get(index as usize - 1..end as usize).unwrap_or_default();
            let run = rest.iter().take_while(|node| node.kind == Kind::Integer);
            let before = values.len();
            push_integers(values, rest.get(..run.count()).unwrap_or_default(), view);
            index += (values.len() - before) as u32 - 1;
        } else {
            push_leaf(view, values, binaries);
        }
        while index == end {
            let Some(built) = open.pop() else { return };
            finish(built, root, values);
            (end, tailed) =
                open.last().map_or((root.node.next, false), |outer| (outer.node.next, outer.tailed));
        }
    }
}

fn is_list(kind: Kind) -> bool {
    matches!(kind, Kind::List | Kind::ImproperList)
}

fn begin(view: View<'_>, values: &mut Vec<Term>) -> Building {
    // The length of a list that goes on in its tail is not known without walking it, and what a map needs are pairs.
    let len = match view.kind() {
        Kind::Map => 0,
        _ if view.node.tailed() => 0,
        _ => view.len(),
    };
    let outer =
        if len < FILL_IN_PLACE { None } else { Some(core::mem::replace(values, Vec::with_capacity(len))) };
    Building { node: view.node, index: view.index, tailed: view.node.tailed(), start: values.len(), outer }
}

fn bytes_as_integers<'a>(string: View<'a>) -> impl Iterator<Item = Term> + use<'a> {
    string.as_byte_list().unwrap_or_default().iter().map(|byte| Term::Integer(i64::from(*byte)))
}

// `extend` instead of `push`, here: it makes room first and the term afterwards, in its place. A pushed term is made on the
// stack and then copied, and the copy has to wait for the parts to be written, which costs several times as much.

/// Pushes the owned form of a term without terms inside that is no integer.
#[inline]
fn push_leaf(view: View<'_>, values: &mut Vec<Term>, binaries: &mut Binaries<'_>) {
    match view.kind() {
        // Whatever has been parsed can be read; the fallbacks only keep this free of panics.
        Kind::Atom => values.extend(once(view).map(|view| view.to_atom().map_or_else(Term::nil, Term::Atom))),
        Kind::Binary => {
            let bytes = binaries.take(view.as_binary().unwrap_or_default(), view);
            values.extend(once(bytes).map(Term::Binary));
        }
        _ => values.push(rare_leaf(view, binaries).unwrap_or_default()),
    }
}

/// Pushes a row of integers, of which `first` is the first.
fn push_integers(values: &mut Vec<Term>, row: &[Node], first: View<'_>) {
    values.extend(row.iter().map(|node| {
        Term::Integer(match first.bytes.get(node.at as usize..) {
            Some([SMALL_INTEGER_EXT, byte, ..]) => i64::from(*byte),
            Some([INTEGER_EXT, a, b, c, d, ..]) => i64::from(i32::from_be_bytes([*a, *b, *c, *d])),
            _ => View { node: *node, ..first }.as_i64().unwrap_or_default(),
        })
    }));
}

/// The less frequent terms without terms inside.
#[inline(never)]
fn rare_leaf(view: View<'_>, binaries: &mut Binaries<'_>) -> Option<Term> {
    Some(match view.kind() {
        Kind::Float => Term::Float(view.as_f64()?),
        Kind::List => Term::List(bytes_as_integers(view).collect()),
        Kind::Tuple => Term::Tuple(Tuple::default()),
        Kind::Map => Term::Map(Map::new()),
        Kind::Pid => Term::Pid(view.as_pid()?),
        Kind::Reference => view.as_reference()?.into(),
        Kind::Port => view.as_port()?.into(),
        Kind::BigInteger => {
            let (negative, magnitude) = view.big()?;
            Term::from_magnitude(negative, magnitude)
        }
        Kind::BitString => {
            let (bytes, last_bits) = view.as_bits()?;
            Term::bits(binaries.take(bytes, view), last_bits)?
        }
        Kind::ExportFun => {
            let (module, function, arity) = view.export_fun()?;
            ExportFun { module: module.to_atom(), function: function.to_atom(), arity }.into()
        }
        Kind::Local => Term::Local(binaries.take(view.encoded(), view)),
        // Never without parts.
        Kind::ImproperList | Kind::Fun | Kind::Record | Kind::Integer | Kind::Atom | Kind::Binary => {
            return None;
        }
    })
}

/// Where the bytes of binaries go.
struct Binaries<'a> {
    source: Option<&'a Bytes>,
    /// Room for further small ones.
    block: BytesMut,
}

impl Binaries<'_> {
    /// The last bytes of a leaf, as a slice of the message or as a copy.
    fn take(&mut self, bytes: &[u8], leaf: View<'_>) -> Bytes {
        if bytes.is_empty() {
            return Bytes::new();
        }
        if bytes.len() >= SLICE_FROM {
            let end = leaf.span().end;
            return match self.source {
                Some(source) => source.slice(end - bytes.len()..end),
                None => Bytes::copy_from_slice(bytes),
            };
        }
        if self.block.capacity() < bytes.len() {
            // What can still come in this message.
            let rest = leaf.bytes.len() - leaf.node.at as usize;
            self.block = BytesMut::with_capacity(rest.clamp(bytes.len(), BLOCK));
        }
        self.block.extend_from_slice(bytes);
        self.block.split().freeze()
    }
}

/// Replaces the elements of a full container by the container, which is inside `whole`.
fn finish(built: Building, whole: View<'_>, values: &mut Vec<Term>) {
    let view = View { node: built.node, index: built.index, ..whole };
    if view.kind() == Kind::Map {
        let mut pairs = Vec::with_capacity((values.len() - built.start) / 2);
        let mut elements = values.drain(built.start..);
        while let (Some(key), Some(value)) = (elements.next(), elements.next()) {
            pairs.push((key, value));
        }
        drop(elements);
        values.push(Term::Map(Map(pairs)));
        return;
    }
    let mut elements = match built.outer {
        Some(outer) => core::mem::replace(values, outer),
        None => values.split_off(built.start),
    };
    values.push(match view.kind() {
        Kind::Tuple => Term::Tuple(Tuple(elements)),
        Kind::ImproperList => {
            let tail = elements.pop().unwrap_or_default();
            Term::ImproperList(Box::new(ImproperList { elements: List(elements), tail }))
        }
        Kind::Fun => fun(view, elements).unwrap_or_default(),
        Kind::Record => record(view, elements).unwrap_or_default(),
        _ => Term::List(List(elements)),
    });
}

fn fun(view: View<'_>, free: Vec<Term>) -> Option<Term> {
    let head = view.fun_head()?;
    Some(Term::Fun(Box::new(Fun {
        arity: head.arity,
        uniq: head.uniq,
        index: head.index,
        module: view.part(0)?.as_atom()?.to_atom(),
        old_index: view.part(1)?.as_i64()?,
        old_uniq: view.part(2)?.as_i64()?,
        pid: view.part(3)?.as_pid()?,
        free: List(free),
    })))
}

fn record(view: View<'_>, values: Vec<Term>) -> Option<Term> {
    let (exported, names) = view.record_head()?;
    let mut names = names.map(|name| name.to_atom());
    let (module, name): (Atom, Atom) = (names.next()?, names.next()?);
    Some(Term::Record(Box::new(Record { module, name, exported, fields: names.zip(values).collect() })))
}
