//! Bytes to owned terms.

use std::borrow::Cow;

use bytes::Bytes;

use super::nest::Filling;
use super::tag::{COMPRESSED, VERSION_MAGIC};
use super::{Atom, Elements, ExportFun, Fun, ImproperList, Kind, List, Record, Tape, Term, Tuple, View};
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
/// BEAM draws the line at 64 bytes (`ERL_ONHEAP_BIN_LIMIT`).
const SLICE_FROM: usize = 64;

/// A container that is being filled.
struct Building<'a> {
    view: View<'a>,
    elements: Elements<'a>,
    filled: Filling,
}

/// The owned form of a term. `source` is the memory that the view looks at, if large binaries may be slices of it.
pub(super) fn build(view: View<'_>, source: Option<&Bytes>) -> Term {
    if let Some(leaf) = leaf(view, source) {
        return leaf;
    }
    let mut open = vec![begin(view)];
    loop {
        let Some(top) = open.last_mut() else { return Term::nil() };
        // The leaves in a row stay in this inner loop.
        let nested = loop {
            match top.elements.next().or_else(|| top.elements.take_tail()) {
                Some(element) => match leaf(element, source) {
                    Some(leaf) => top.filled.push(leaf),
                    None => break Some(element),
                },
                None => break None,
            }
        };
        if let Some(element) = nested {
            open.push(begin(element));
            continue;
        }
        let term = open.pop().map(finish).unwrap_or_default();
        match open.last_mut() {
            Some(outer) => outer.filled.push(term),
            None => return term,
        }
    }
}

/// A container to fill.
fn begin(view: View<'_>) -> Building<'_> {
    let filled = match view.kind() {
        Kind::Map => Filling::Pairs(Vec::with_capacity(view.len()), None),
        // The length of such a list is not known without walking it.
        _ if view.node.tailed => Filling::Elements(Vec::new()),
        _ => Filling::Elements(Vec::with_capacity(view.len())),
    };
    Building { view, elements: view.elements(), filled }
}

/// The owned form of a term without terms inside; `None` for any other.
#[inline]
fn leaf(view: View<'_>, source: Option<&Bytes>) -> Option<Term> {
    // Whatever has been parsed can be read; the fallback only keeps this free of panics.
    let leaf = match view.kind() {
        Kind::Integer => view.as_i64().map(Term::Integer),
        Kind::Atom => view.as_atom().map(|atom| Term::Atom(atom.to_atom())),
        Kind::Binary => view.as_binary().map(|bytes| Term::Binary(owned(bytes, view, source))),
        Kind::List if view.node.next == view.index + 1 => {
            let bytes = view.as_byte_list().unwrap_or_default();
            Some(Term::List(bytes.iter().map(|byte| Term::Integer(i64::from(*byte))).collect()))
        }
        Kind::Tuple | Kind::List | Kind::ImproperList | Kind::Map | Kind::Fun | Kind::Record => return None,
        Kind::Float => view.as_f64().map(Term::Float),
        Kind::Pid => view.as_pid().map(Term::Pid),
        Kind::Reference => view.as_reference().map(Term::from),
        Kind::Port => view.as_port().map(Term::from),
        Kind::BigInteger => view.big().map(|(negative, magnitude)| Term::from_magnitude(negative, magnitude)),
        Kind::BitString => {
            view.as_bits().and_then(|(bytes, last_bits)| Term::bits(owned(bytes, view, source), last_bits))
        }
        Kind::ExportFun => view.export_fun().map(|(module, function, arity)| {
            ExportFun { module: module.to_atom(), function: function.to_atom(), arity }.into()
        }),
        Kind::Local => Some(Term::Local(owned(view.encoded(), view, source))),
    };
    Some(leaf.unwrap_or_default())
}

/// The last bytes of a leaf, as a slice of the message or as a copy.
fn owned(bytes: &[u8], leaf: View<'_>, source: Option<&Bytes>) -> Bytes {
    match source {
        Some(source) if bytes.len() >= SLICE_FROM => {
            let end = (leaf.node.at + leaf.node.size) as usize;
            source.slice(end - bytes.len()..end)
        }
        _ => Bytes::copy_from_slice(bytes),
    }
}

fn finish(built: Building<'_>) -> Term {
    let view = built.view;
    let mut elements = match built.filled {
        Filling::Pairs(pairs, _) => return Term::Map(super::Map(pairs)),
        Filling::Elements(elements) => elements,
    };
    match view.kind() {
        Kind::Tuple => Term::Tuple(Tuple(elements)),
        Kind::ImproperList => {
            let tail = elements.pop().unwrap_or_default();
            Term::ImproperList(Box::new(ImproperList { elements: List(elements), tail }))
        }
        Kind::Fun => fun(view, elements).unwrap_or_default(),
        Kind::Record => record(view, elements).unwrap_or_default(),
        _ => Term::List(List(elements)),
    }
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
