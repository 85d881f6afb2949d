use core::fmt;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::build::{LEVELS, read};
use super::decode::{build_on_stack, uncompressed};
use super::encode;
use super::leaf::atom_size;
use super::skim::{Skimmed, skim};
use super::tag::*;
use super::{Atom, Kind, PlainTerm, Tape, Term, View};
use crate::{Limits, Result};

/// One encoded term, checked but not decoded: how the payload of a message travels.
///
/// A clone shares the bytes. Relays and fan-out never look inside; who does makes a [`View`] or a [`Term`].
#[derive(Clone)]
pub struct RawTerm {
    /// Exactly one term, without the version byte.
    bytes: Bytes,
    /// The atoms of the frame's distribution header that ATOM_CACHE_REFs in `bytes` stand for; `None` if there are none
    /// of these.
    atoms: Option<Arc<[Atom]>>,
}

impl RawTerm {
    /// Checks the term at the start of `bytes` (no version byte); what follows it is dropped. `atoms` are those of the
    /// distribution header of the frame it came in.
    ///
    /// # Errors
    /// As [`Tape::parse`].
    pub fn new(bytes: Bytes, atoms: Option<Arc<[Atom]>>, limits: &Limits) -> Result<Self> {
        Self::with_tape(&mut Tape::new(), bytes, atoms, limits)
    }

    /// As [`new`](Self::new), with a buffer that is used again and again, so that nothing is allocated.
    ///
    /// # Errors
    /// As [`Tape::parse`].
    pub fn with_tape(
        tape: &mut Tape,
        bytes: Bytes,
        atoms: Option<Arc<[Atom]>>,
        limits: &Limits,
    ) -> Result<Self> {
        let (term, has_cache_refs) = Self::find(tape, &bytes, atoms.as_deref().unwrap_or_default(), limits)?;
        // In place: a slice would be counted, and what it is of counted down.
        let mut bytes = bytes;
        bytes.truncate(term.end);
        bytes.advance(term.start);
        Ok(Self { bytes, atoms: atoms.filter(|_| has_cache_refs) })
    }

    /// Checks the term at the start of `bytes`, as [`with_tape`](Self::with_tape): where it is, and whether it refers to the
    /// atoms.
    #[inline]
    pub(crate) fn find(
        tape: &mut Tape,
        bytes: &[u8],
        atoms: &[Atom],
        limits: &Limits,
    ) -> Result<(core::ops::Range<usize>, bool)> {
        if let Some(Skimmed { size, has_cache_refs }) = skim(bytes, atoms.len(), limits) {
            return Ok((0..size, has_cache_refs));
        }
        let view = tape.parse(bytes, atoms, limits)?;
        // The term does not start at 0 if it is the tail of lists without elements.
        Ok((view.span(), !atoms.is_empty() && cache_refs(view).next().is_some()))
    }

    /// Exactly one term that [`find`](Self::find) has checked, with the atoms if it refers to them.
    #[inline]
    pub(crate) fn checked_in(bytes: Bytes, atoms: Option<Arc<[Atom]>>) -> Self {
        Self { bytes, atoms }
    }

    /// Encodes a term.
    ///
    /// # Errors
    /// As [`encode_term`](super::encode_term).
    pub fn from_term(term: &Term) -> Result<Self> {
        Ok(Self { bytes: encode::to_vec(term)?.into(), atoms: None })
    }

    /// The term as it is borrowed, if it refers to no atom cache.
    #[inline]
    pub fn as_plain(&self) -> Option<PlainTerm<'_>> {
        self.atoms.is_none().then(|| PlainTerm::checked(&self.bytes))
    }

    /// A standalone term, with the version byte 131, compressed or not; what follows it is dropped.
    ///
    /// # Errors
    /// As [`decode`](super::decode).
    pub fn from_external(bytes: &[u8], limits: &Limits) -> Result<Self> {
        Self::new(uncompressed(bytes, limits)?.into_owned().into(), None, limits)
    }

    /// The term with the version byte, for files, gossip and the BEAM's `binary_to_term`.
    pub fn to_external(&self) -> Bytes {
        let plain = self.to_plain();
        let mut bytes = BytesMut::with_capacity(1 + plain.bytes.len());
        bytes.put_u8(VERSION_MAGIC);
        bytes.put_slice(&plain.bytes);
        bytes.freeze()
    }

    /// The same, deflated (tag 80) as `term_to_binary(Term, [compressed])` has it, fast rather than small; plain if that is not
    /// shorter.
    pub fn to_external_compressed(&self) -> Bytes {
        // The fastest level: this is for messages, which somebody waits for.
        const LEVEL: u8 = 1;
        let plain = self.to_plain();
        let deflated = miniz_oxide::deflate::compress_to_vec_zlib(&plain.bytes, LEVEL);
        match u32::try_from(plain.bytes.len()) {
            Ok(size) if deflated.len() + 5 < plain.bytes.len() => {
                let mut bytes = BytesMut::with_capacity(6 + deflated.len());
                bytes.put_slice(&[VERSION_MAGIC, super::tag::COMPRESSED]);
                bytes.put_u32(size);
                bytes.put_slice(&deflated);
                bytes.freeze()
            }
            _ => plain.to_external(),
        }
    }

    /// The encoded term, without a version byte. Atoms may be references into the list of [`atoms`](Self::atoms).
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The atoms that ATOM_CACHE_REFs in the bytes stand for; empty if there are none of these.
    pub fn atoms(&self) -> &[Atom] {
        self.atoms.as_deref().unwrap_or_default()
    }

    /// The same term without references into an atom cache, fit for another connection or a file. Shares the bytes if
    /// there are none, as always with peers that use no atom cache.
    pub fn to_plain(&self) -> Self {
        if self.atoms.is_none() {
            return self.clone();
        }
        let mut tape = Tape::new();
        // It was checked when it came in.
        match self.view(&mut tape) {
            Ok(view) => Self { bytes: without_cache_refs(view), atoms: None },
            Err(_) => self.clone(),
        }
    }

    /// Lays the term out for looking into.
    ///
    /// # Errors
    /// None in practice: the term was checked when this was made.
    #[inline]
    pub fn view<'a>(&'a self, tape: &'a mut Tape) -> Result<View<'a>> {
        tape.parse_checked(&self.bytes, self.atoms(), &Limits::unbounded_terms())
    }

    /// Decodes the term. Large binaries are slices of the message.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`](crate::Error::LimitExceeded) if these limits are tighter than those it was checked with.
    pub fn to_term(&self, limits: &Limits) -> Result<Term> {
        self.to_term_with(&mut Tape::new(), limits)
    }

    /// As [`to_term`](Self::to_term), with a buffer that is used again and again.
    ///
    /// # Errors
    /// As [`to_term`](Self::to_term).
    pub fn to_term_with(&self, tape: &mut Tape, limits: &Limits) -> Result<Term> {
        let (bytes, source) = (&self.bytes, Some(&self.bytes));
        // It was checked when it came in; each node takes at least one byte.
        if limits.max_depth > LEVELS as usize
            && limits.max_nodes >= bytes.len()
            && let Some((term, _)) = read(bytes, 0, self.atoms(), source)
        {
            return Ok(term);
        }
        tape.parse_to_read(bytes, self.atoms(), limits).map(|view| build_on_stack(view, source))
    }

    /// A binary inside the term without copying it; `None` if `view` is no binary or not one of this term.
    pub fn slice(&self, view: View<'_>) -> Option<Bytes> {
        self.source().slice(view)
    }

    /// A term inside this one without copying it; `None` if `view` is not one of this term, or an element of a list in
    /// the form STRING_EXT, which has no encoding of its own.
    pub fn inner(&self, view: View<'_>) -> Option<Self> {
        self.source().inner(view)
    }

    /// What it is made of, borrowed.
    #[inline]
    pub(super) fn source(&self) -> Source<'_> {
        Source { bytes: &self.bytes, atoms: self.atoms.as_ref() }
    }

    /// One term that is known to be in order, without references into an atom cache.
    pub(super) fn checked(bytes: Vec<u8>) -> Self {
        Self { bytes: bytes.into(), atoms: None }
    }

    /// The same atoms beside bytes that say the same in another form.
    pub(super) fn with_bytes(&self, bytes: Bytes) -> Self {
        Self { bytes, atoms: self.atoms.clone() }
    }
}

/// Encoded bytes of which parts can be taken without a copy, and the atoms that ATOM_CACHE_REFs in them stand for. Not all of it
/// need have been checked, only what is taken.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) bytes: &'a Bytes,
    pub(super) atoms: Option<&'a Arc<[Atom]>>,
}

impl<'a> Source<'a> {
    pub(super) fn atoms(self) -> &'a [Atom] {
        self.atoms.map(|atoms| &**atoms).unwrap_or_default()
    }

    /// See [`RawTerm::slice`].
    pub(super) fn slice(self, view: View<'_>) -> Option<Bytes> {
        let bytes = view.as_binary().filter(|_| self.is_seen_by(view))?;
        let end = (view.node.at + view.node.size) as usize;
        Some(self.bytes.slice(end - bytes.len()..end))
    }

    /// See [`RawTerm::inner`].
    pub(super) fn inner(self, view: View<'_>) -> Option<RawTerm> {
        Some(self.range(self.place(view)?))
    }

    /// Where the term that the view looks at is; as for [`inner`](Self::inner).
    pub(super) fn place(self, view: View<'_>) -> Option<core::ops::Range<usize>> {
        (!view.is_byte() && self.is_seen_by(view)).then(|| view.span())
    }

    /// The term at this place.
    pub(super) fn range(self, range: core::ops::Range<usize>) -> RawTerm {
        RawTerm { bytes: self.bytes.slice(range), atoms: self.atoms.cloned() }
    }

    /// Whether the view looks at these bytes.
    fn is_seen_by(self, view: View<'_>) -> bool {
        core::ptr::eq(self.bytes.as_ptr(), view.bytes.as_ptr()) && self.bytes.len() == view.bytes.len()
    }
}

/// The encoded term with each ATOM_CACHE_REF replaced by its atom.
fn without_cache_refs(view: View<'_>) -> Bytes {
    let bytes = view.encoded();
    let atom = |at: usize| view.atoms.get(usize::from(bytes.get(at + 1).copied().unwrap_or_default()));
    // Where the references are, and how many bytes all up to each of them add.
    let mut added = 0;
    let refs: Vec<(usize, usize)> = cache_refs(view)
        .map(|at| {
            // Two bytes become a tag, a length and the text.
            added += atom(at).map_or(0, encode::atom_len) - 2;
            (at, added)
        })
        .collect();
    let added_before = |at: usize| match refs.partition_point(|(place, _)| *place < at).checked_sub(1) {
        Some(index) => refs.get(index).map_or(0, |(_, added)| *added),
        None => 0,
    };
    // A fun says how long it is.
    let funs = view.tape.nodes().iter().filter(|node| node.kind == Kind::Fun).map(|node| {
        let (start, end) = (node.at as usize, (node.at + node.size) as usize);
        (start + 1, added_before(end) - added_before(start))
    });
    let mut out = BytesMut::with_capacity(bytes.len() + added);
    let mut copied = 0;
    let mut funs = funs.peekable();
    let mut copy_to = |out: &mut BytesMut, end: usize| {
        while let Some((at, grown)) = funs.next_if(|(at, _)| *at < end) {
            out.put_slice(bytes.get(copied..at).unwrap_or_default());
            let size =
                bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |size| u32::from_be_bytes(*size));
            out.put_u32(size.wrapping_add(grown as u32));
            copied = at + 4;
        }
        out.put_slice(bytes.get(copied..end).unwrap_or_default());
        copied = end + 2;
    };
    for (at, _) in &refs {
        copy_to(&mut out, *at);
        if let Some(atom) = atom(*at) {
            encode::put_atom(&mut out, atom);
        }
    }
    copy_to(&mut out, bytes.len());
    out.freeze()
}

/// Where the ATOM_CACHE_REFs are, in ascending order: atoms, and the atoms in identifiers and external funs.
fn cache_refs(view: View<'_>) -> impl Iterator<Item = usize> {
    let bytes = view.bytes;
    let places = view.tape.nodes().iter().flat_map(move |node| {
        let at = node.at as usize;
        match (node.kind, bytes.get(at)) {
            (Kind::Atom, _) => [Some(at), None],
            (Kind::Pid | Kind::Port, _) | (Kind::Reference, Some(&REFERENCE_EXT)) => [Some(at + 1), None],
            (Kind::Reference, _) => [Some(at + 3), None],
            (Kind::ExportFun, _) => {
                let size = atom_size(bytes.get(at + 1..).unwrap_or_default());
                [Some(at + 1), size.map(|size| at + 1 + size)]
            }
            _ => [None, None],
        }
    });
    places.flatten().filter(move |at| bytes.get(*at) == Some(&ATOM_CACHE_REF))
}

/// Equal as terms by `=:=`, whatever the encoding.
impl PartialEq for RawTerm {
    fn eq(&self, other: &Self) -> bool {
        if self.bytes == other.bytes && self.atoms.is_none() && other.atoms.is_none() {
            return true;
        }
        let (mut left, mut right) = (Tape::new(), Tape::new());
        match (self.view(&mut left), other.view(&mut right)) {
            (Ok(left), Ok(right)) => left == right,
            _ => false,
        }
    }
}

impl Eq for RawTerm {}

impl fmt::Debug for RawTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.view(&mut Tape::new()) {
            Ok(view) => view.fmt(f),
            Err(error) => error.fmt(f),
        }
    }
}

impl TryFrom<&Term> for RawTerm {
    type Error = crate::Error;

    fn try_from(term: &Term) -> Result<Self> {
        Self::from_term(term)
    }
}

#[cfg(test)]
#[path = "raw/tests.rs"]
mod tests;
