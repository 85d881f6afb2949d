//! Bytes to owned terms.

use core::iter::once;
use std::borrow::Cow;

use bytes::Bytes;

use super::build::{Binaries, read};
use super::tag::*;
use super::tape::Node;
use super::{Atom, ExportFun, Fun, ImproperList, Kind, Map, Record, Tape, Term, Tuple, View};
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
    if view.is_byte() {
        return Term::Integer(view.as_i64().unwrap_or_default());
    }
    // No further than the term: what follows it in a message needs no room.
    let bytes = view.bytes.get(..view.span().end).unwrap_or(view.bytes);
    match read(bytes, view.node.at as usize, view.atoms, source) {
        Some((term, _)) => term,
        None => build_on_stack(view, source),
    }
}

/// The owned form of a term of any depth.
///
/// Terms are made in the order of the nodes and pushed to a stack of values; a container takes its elements off that stack
/// when its last node has passed.
#[inline(never)]
pub(super) fn build_on_stack(view: View<'_>, source: Option<&Bytes>) -> Term {
    let mut values = Vec::with_capacity(16);
    build_nodes(view, &mut values, &mut Binaries::new(source));
    values.pop().unwrap_or_default()
}

fn build_nodes(root: View<'_>, values: &mut Vec<Term>, binaries: &mut Binaries<'_>) {
    let nodes = root.tape.nodes();
    let mut open: Vec<Building> = Vec::new();
    // Of the innermost container: the first node after it, and whether it is a list that may go on in its tail.
    let (mut end, mut tailed) = (root.node.next, false);
    let mut index = root.index as u32;
    while let Some(&node) = nodes.get(index as usize) {
        let view = View { node, index: index as usize, ..root };
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
    Building {
        node: view.node,
        index: view.index as u32,
        tailed: view.node.tailed(),
        start: values.len(),
        outer,
    }
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
            let bytes = take(binaries, view.as_binary().unwrap_or_default(), view);
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
            Term::bits(take(binaries, bytes, view), last_bits)?
        }
        Kind::ExportFun => {
            let (module, function, arity) = view.export_fun()?;
            ExportFun { module: module.to_atom(), function: function.to_atom(), arity }.into()
        }
        Kind::Local => Term::Local(take(binaries, view.encoded(), view)),
        // Never without parts.
        Kind::ImproperList | Kind::Fun | Kind::Record | Kind::Integer | Kind::Atom | Kind::Binary => {
            return None;
        }
    })
}

/// The last bytes of a leaf, as a slice of the message or as a copy.
fn take(binaries: &mut Binaries<'_>, bytes: &[u8], leaf: View<'_>) -> Bytes {
    let end = leaf.span().end;
    binaries.take(bytes, end, leaf.bytes.len() - end)
}

/// Replaces the elements of a full container by the container, which is inside `whole`.
fn finish(built: Building, whole: View<'_>, values: &mut Vec<Term>) {
    let view = View { node: built.node, index: built.index as usize, ..whole };
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
        Kind::Tuple => Term::Tuple(elements.into()),
        Kind::ImproperList => {
            let tail = elements.pop().unwrap_or_default();
            Term::ImproperList(Box::new(ImproperList { elements: elements.into(), tail }))
        }
        Kind::Fun => fun(view, elements).unwrap_or_default(),
        Kind::Record => record(view, elements).unwrap_or_default(),
        _ => Term::List(elements.into()),
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
        free: free.into(),
    })))
}

fn record(view: View<'_>, values: Vec<Term>) -> Option<Term> {
    let (exported, names) = view.record_head()?;
    let mut names = names.map(|name| name.to_atom());
    let (module, name): (Atom, Atom) = (names.next()?, names.next()?);
    Some(Term::Record(Box::new(Record { module, name, exported, fields: names.zip(values).collect() })))
}
