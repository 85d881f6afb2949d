//! The distribution header: what stands between a frame's length and its terms.
//!
//! # Wire format
//! | first bytes | when | then |
//! |---|---|---|
//! | `112` | neither DIST_HDR_ATOM_CACHE nor FRAGMENTS ("pass-through") | `131, Control [131, Payload]` |
//! | `131 68` | otherwise: a whole message | atom references, `Control [Payload]` |
//! | `131 69` | the first fragment of a message | `SequenceId:64, FragmentId:64`, atom references, `Control`, start of `Payload` |
//! | `131 70` | the fragments after it | `SequenceId:64, FragmentId:64`, next part of `Payload` |
//!
//! Atom references are `N:8`, and if N > 0 `Flags:(N/2+1)/binary` and N entries. Half-byte i of the flags (the low one of
//! each byte first) belongs to entry i: bit 3 says that it is new, bits 0 to 2 are the segment of its slot. Half-byte N has
//! bit 0 set if the texts have lengths of two bytes (LongAtoms). An entry is `Index:8` of the slot in its segment and, if
//! it is new, `Length, Text`. In the terms, `ATOM_CACHE_REF i` stands for entry i.
//!
//! Source: erts "External Term Format", section "Distribution Header".

use std::sync::Arc;

use bytes::{Buf, BufMut};

use super::DistributionFlags;
use super::atom_cache::{ReceiveCache, SendCache};
use crate::error::Problem;
use crate::etf::Atom;
use crate::etf::tag::VERSION_MAGIC;
use crate::{Error, Result};

pub(crate) const DIST_HEADER: u8 = 68;
pub(crate) const DIST_FRAG_HEADER: u8 = 69;
pub(crate) const DIST_FRAG_CONT: u8 = 70;
pub(crate) const PASS_THROUGH: u8 = 112;

/// `131, 69 or 70, SequenceId:64, FragmentId:64`.
pub(crate) const FRAGMENT_PREFIX: usize = 18;

/// The most atoms that one header can list.
const MAX_REFS: usize = 255;

const NEW_ENTRY: u8 = 0b1000;
const SEGMENT: u8 = 0b0111;
const LONG_ATOMS: u8 = 0b0001;

/// Which of the forms above a connection uses, in both directions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum HeaderMode {
    /// Neither flag was negotiated.
    PassThrough,
    /// At least one was.
    Header {
        /// DIST_HDR_ATOM_CACHE: headers may list atoms.
        atom_cache: bool,
        /// FRAGMENTS: large messages come in pieces.
        fragments: bool,
    },
}

impl HeaderMode {
    pub(crate) fn new(flags: DistributionFlags) -> Self {
        let atom_cache = flags.contains(DistributionFlags::DIST_HDR_ATOM_CACHE);
        let fragments = flags.contains(DistributionFlags::FRAGMENTS);
        if atom_cache || fragments { Self::Header { atom_cache, fragments } } else { Self::PassThrough }
    }
}

/// A header as it was read. `body` is the offset of what follows it in the frame.
#[derive(Debug)]
pub(crate) enum Header {
    /// A whole message whose terms start with 131 each.
    PassThrough { body: usize },
    /// A whole message.
    Message { atoms: Option<Arc<[Atom]>>, body: usize },
    /// The first fragment; `fragment` is their number.
    FirstFragment { sequence: u64, fragment: u64, atoms: Option<Arc<[Atom]>>, body: usize },
    /// A further fragment; `fragment` counts down to 1.
    Fragment { sequence: u64, fragment: u64, body: usize },
}

impl Header {
    /// Reads the header of a frame that is not a tick, and takes its new atoms into the cache.
    pub(crate) fn read(mode: HeaderMode, frame: &[u8], cache: &mut ReceiveCache) -> Result<Self> {
        if mode == HeaderMode::PassThrough {
            // The first byte should be 112, but a BEAM skips it without looking.
            return match frame.get(1) {
                Some(&VERSION_MAGIC) => Ok(Self::PassThrough { body: 2 }),
                Some(&other) => Err(Error::malformed("pass-through frame", 1, Problem::UnknownTag(other))),
                None => Err(truncated(frame.len())),
            };
        }
        match *frame {
            [VERSION_MAGIC, DIST_HEADER, ..] => {
                let (atoms, body) = read_refs(frame, 2, cache)?;
                Ok(Self::Message { atoms, body })
            }
            [VERSION_MAGIC, kind @ (DIST_FRAG_HEADER | DIST_FRAG_CONT), ref ids @ ..] => {
                let mut ids = ids.get(..16).ok_or_else(|| truncated(frame.len()))?;
                let (sequence, fragment) = (ids.get_u64(), ids.get_u64());
                if kind == DIST_FRAG_CONT {
                    return Ok(Self::Fragment { sequence, fragment, body: FRAGMENT_PREFIX });
                }
                let (atoms, body) = read_refs(frame, FRAGMENT_PREFIX, cache)?;
                Ok(Self::FirstFragment { sequence, fragment, atoms, body })
            }
            [VERSION_MAGIC, other, ..] => Err(Error::malformed("frame", 1, Problem::UnknownTag(other))),
            [VERSION_MAGIC] | [] => Err(truncated(frame.len())),
            [other, ..] => Err(Error::malformed("frame", 0, Problem::UnknownTag(other))),
        }
    }
}

impl Header {
    /// The atoms and the place of the terms, if this is a whole message with a list of atoms that came just like this shortly
    /// before. Changes nothing; for anything else, [`Self::read`] decides.
    #[inline]
    pub(crate) fn known<'a>(
        mode: HeaderMode,
        frame: &[u8],
        cache: &'a ReceiveCache,
    ) -> Option<(&'a Arc<[Atom]>, usize)> {
        let [VERSION_MAGIC, DIST_HEADER, count, rest @ ..] = frame else { return None };
        if *count == 0 || !matches!(mode, HeaderMode::Header { atom_cache: true, .. }) {
            return None;
        }
        let key = usize::from(*count) / 2 + 1 + usize::from(*count);
        // Only headers without new entries are remembered.
        Some((cache.recall(rest.get(..key)?)?, 3 + key))
    }
}

#[cold]
fn truncated(at: usize) -> Error {
    Error::malformed("distribution header", at, Problem::Truncated)
}

/// Reads `N, Flags, Entries` at `start`; returns the atoms, and where the terms start.
fn read_refs(frame: &[u8], start: usize, cache: &mut ReceiveCache) -> Result<(Option<Arc<[Atom]>>, usize)> {
    let short = || truncated(frame.len());
    let count = usize::from(*frame.get(start).ok_or_else(short)?);
    if count == 0 {
        return Ok((None, start + 1));
    }
    let flags_at = start + 1;
    let refs_at = flags_at + count / 2 + 1;
    let flags = frame.get(flags_at..refs_at).ok_or_else(short)?;
    let half_byte = |i: usize| flags.get(i / 2).map_or(0, |byte| byte >> (4 * (i % 2)));

    // Nothing new, as in almost every message: all entries are one byte, and the list may be known already.
    let last_is_shared = count % 2 == 1;
    let new_anywhere = match flags.split_last() {
        Some((last, rest)) => {
            let last = if last_is_shared { last & 0x0f } else { 0 };
            rest.iter().fold(last, |all, byte| all | byte) & (NEW_ENTRY << 4 | NEW_ENTRY) != 0
        }
        None => false,
    };
    if !new_anywhere {
        let end = refs_at + count;
        let key = frame.get(flags_at..end).ok_or_else(short)?;
        if let Some(atoms) = cache.recall(key) {
            return Ok((Some(atoms.clone()), end));
        }
        let slots = key.get(refs_at - flags_at..).unwrap_or_default().iter().enumerate();
        let atoms: Result<Arc<[Atom]>> =
            slots.map(|(i, &index)| cache.get(slot(half_byte(i), index)).cloned()).collect();
        let atoms = atoms?;
        cache.remember(key, &atoms);
        return Ok((Some(atoms), end));
    }

    let length_bytes = if half_byte(count) & LONG_ATOMS != 0 { 2 } else { 1 };
    let mut atoms = Vec::with_capacity(count);
    let mut at = refs_at;
    for i in 0..count {
        let slot = slot(half_byte(i), *frame.get(at).ok_or_else(short)?);
        at += 1;
        if half_byte(i) & NEW_ENTRY == 0 {
            atoms.push(cache.get(slot)?.clone());
            continue;
        }
        let mut length = frame.get(at..at + length_bytes).ok_or_else(short)?;
        at += length_bytes;
        let length = length.get_uint(length_bytes) as usize;
        let text = frame.get(at..at + length).ok_or_else(short)?;
        let bad = |problem| Error::malformed("distribution header", at, problem);
        let text = core::str::from_utf8(text).map_err(|_| bad(Problem::NotUtf8))?;
        let atom = Atom::new(text).map_err(|_| bad(Problem::OutOfRange("length of an atom")))?;
        at += length;
        cache.set(slot, atom.clone());
        atoms.push(atom);
    }
    Ok((Some(atoms.into()), at))
}

#[inline]
fn slot(half_byte: u8, index: u8) -> u16 {
    u16::from(half_byte & SEGMENT) << 8 | u16::from(index)
}

/// Collects the atoms of one outgoing message and writes the header that lists them.
///
/// Slots change hands as soon as an atom is added, so headers must be written in the order in which they were begun: by
/// whoever serialises the writes.
#[derive(Debug)]
pub(crate) struct HeaderWriter {
    /// `None`: every atom is written in full, and headers list nothing.
    cache: Option<SendCache>,
    /// The slots of the atoms of this message, and whether the peer has yet to be told.
    refs: Vec<(u16, bool)>,
    /// How many atoms were ever put into slots.
    changes: u64,
}

impl HeaderWriter {
    /// For a connection of this mode.
    pub(crate) fn new(mode: HeaderMode) -> Self {
        let cached = matches!(mode, HeaderMode::Header { atom_cache: true, .. });
        Self { cache: cached.then(SendCache::default), refs: Vec::new(), changes: 0 }
    }

    /// Starts a message.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.refs.clear();
    }

    /// The index under which the terms of this message can refer to `atom`, if they can.
    pub(crate) fn reference(&mut self, atom: &Atom) -> Option<u8> {
        let cache = self.cache.as_mut()?;
        let slot = SendCache::slot_of(atom);
        let in_slot = cache.get(slot) == Some(atom);
        if let Some(at) = self.refs.iter().position(|(used, _)| *used == slot) {
            // A slot that this message uses already cannot be given to another atom.
            return if in_slot { u8::try_from(at).ok() } else { None };
        }
        if self.refs.len() == MAX_REFS {
            return None;
        }
        if !in_slot {
            cache.set(slot, atom);
            self.changes += 1;
        }
        self.refs.push((slot, !in_slot));
        u8::try_from(self.refs.len() - 1).ok()
    }

    /// Changes whenever a header that was written before may no longer mean the same.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether the header of this message tells the peer nothing, so that it can be sent again as it is.
    pub(crate) fn is_repeatable(&self) -> bool {
        !self.refs.iter().any(|(_, new)| *new)
    }

    /// Makes entry i of this message's list `atoms[i]`, for a payload that was encoded with that list. False if that
    /// cannot be; the atoms that were added by then stay in the list, which does no harm.
    pub(crate) fn adopt(&mut self, atoms: &[Atom]) -> bool {
        self.refs.is_empty()
            && atoms.iter().enumerate().all(|(i, atom)| self.reference(atom).map(usize::from) == Some(i))
    }

    /// The bytes that [`Self::write`] will write.
    pub(crate) fn len(&self) -> usize {
        if self.refs.is_empty() {
            return 1;
        }
        let length_bytes = if self.long_atoms() { 2 } else { 1 };
        let texts: usize = self.new_atoms().map(|text| length_bytes + text.len()).sum();
        1 + self.refs.len() / 2 + 1 + self.refs.len() + texts
    }

    /// Writes `N, Flags, Entries`.
    pub(crate) fn write(&self, out: &mut impl BufMut) {
        out.put_u8(self.refs.len() as u8);
        if self.refs.is_empty() {
            return;
        }
        let long_atoms = self.long_atoms();
        let last = if long_atoms { LONG_ATOMS } else { 0 };
        let half_byte = |entry: Option<&(u16, bool)>| {
            entry.map_or(last, |(slot, new)| (slot >> 8) as u8 | if *new { NEW_ENTRY } else { 0 })
        };
        let mut pairs = self.refs.chunks_exact(2);
        for pair in pairs.by_ref() {
            out.put_u8(half_byte(pair.first()) | half_byte(pair.last()) << 4);
        }
        // The half-byte behind the last entry completes this byte, or starts it.
        out.put_u8(match pairs.remainder().first() {
            Some(entry) => half_byte(Some(entry)) | last << 4,
            None => last,
        });
        for (slot, new) in &self.refs {
            out.put_u8(*slot as u8);
            if *new {
                let text = self.text(*slot);
                if long_atoms {
                    out.put_u16(text.len() as u16);
                } else {
                    out.put_u8(text.len() as u8);
                }
                out.put_slice(text);
            }
        }
    }

    fn long_atoms(&self) -> bool {
        self.new_atoms().any(|text| text.len() > usize::from(u8::MAX))
    }

    fn new_atoms(&self) -> impl Iterator<Item = &[u8]> {
        self.refs.iter().filter(|(_, new)| *new).map(|(slot, _)| self.text(*slot))
    }

    fn text(&self, slot: u16) -> &[u8] {
        self.cache.as_ref().and_then(|cache| cache.get(slot)).map_or(&[], Atom::as_bytes)
    }
}

#[cfg(test)]
pub(crate) mod tests;
