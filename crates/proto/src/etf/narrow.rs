//! Identifiers in the forms that nodes before OTP 24 read.

use std::borrow::Cow;

use super::leaf::atom_size;
use super::tag::*;
use super::{Kind, Pid, RawTerm, Reference, Tape};
use crate::{Error, Result};

/// What a peer without `V4_NC` takes; it closes the connection over anything wider (`erts/emulator/beam/external.c` of
/// OTP 23: `dec_pid`, and `NEWER_REFERENCE_EXT` and `NEW_PORT_EXT` in `dec_term`).
const PID_ID_BITS: u32 = 15;
const PID_SERIAL_BITS: u32 = 13;
const PORT_BITS: u32 = 28;
const REFERENCE_WORDS: usize = 3;

/// Whether a pid is narrow enough.
pub(crate) fn is_narrow_pid(pid: &Pid) -> bool {
    pid.id >> PID_ID_BITS == 0 && pid.serial >> PID_SERIAL_BITS == 0
}

/// Whether a reference is narrow enough.
pub(crate) fn is_narrow_reference(reference: &Reference) -> bool {
    reference.words().len() <= REFERENCE_WORDS
}

/// The term with every identifier in a form that a peer without `V4_NC` reads: ports in NEW_PORT_EXT and not V4_PORT_EXT,
/// references without the zero words at their end. Borrowed if it is so already, as nearly always.
///
/// # Errors
/// [`Error::NotSupportedByPeer`] if an identifier does not fit.
pub(crate) fn narrow<'a>(raw: &'a RawTerm, tape: &mut Tape) -> Result<Cow<'a, RawTerm>> {
    let mut changes = Changes::default();
    {
        let view = raw.view(tape)?;
        let bytes = view.bytes;
        for node in view.tape.nodes() {
            let (at, end) = (node.at as usize, (node.at + node.size) as usize);
            let identifier = bytes.get(at..end).unwrap_or_default();
            let fits = match node.kind {
                Kind::Pid => pid(identifier),
                Kind::Port => port(identifier, at, &mut changes),
                Kind::Reference => reference(identifier, at, &mut changes),
                _ => continue,
            };
            // A term that was checked is never too short; one that were would not fit either.
            if fits != Some(true) {
                return Err(Error::NotSupportedByPeer("V4_NC"));
            }
        }
        if changes.cuts.is_empty() {
            return Ok(Cow::Borrowed(raw));
        }
        // A fun says how long it is.
        for node in view.tape.nodes().iter().filter(|node| node.kind == Kind::Fun) {
            let (at, end) = (node.at as usize, (node.at + node.size) as usize);
            let shorter = (changes.cut_before(end) - changes.cut_before(at)) as u32;
            if let Some(size) = bytes.get(at + 1..).and_then(<[u8]>::first_chunk) {
                let size = u32::from_be_bytes(*size).wrapping_sub(shorter);
                changes.replace(at + 1, &size.to_be_bytes());
            }
        }
    }
    Ok(Cow::Owned(raw.with_bytes(changes.apply(raw.as_bytes()).into())))
}

fn pid(identifier: &[u8]) -> Option<bool> {
    let (id, rest) = word(after_atom(identifier, 1)?)?;
    let (serial, _) = word(rest)?;
    Some(id >> PID_ID_BITS == 0 && serial >> PID_SERIAL_BITS == 0)
}

fn port(identifier: &[u8], at: usize, changes: &mut Changes) -> Option<bool> {
    let rest = after_atom(identifier, 1)?;
    let (first, after) = word(rest)?;
    if identifier.first() != Some(&V4_PORT_EXT) {
        return Some(first >> PORT_BITS == 0);
    }
    let (second, _) = word(after)?;
    changes.replace(at, &[NEW_PORT_EXT]);
    changes.cut(at + identifier.len() - rest.len(), 4);
    Some(first == 0 && second >> PORT_BITS == 0)
}

fn reference(identifier: &[u8], at: usize, changes: &mut Changes) -> Option<bool> {
    let tag = *identifier.first()?;
    if tag == REFERENCE_EXT {
        return Some(true);
    }
    let creation = if tag == NEWER_REFERENCE_EXT { 4 } else { 1 };
    let words = after_atom(identifier, 3)?.get(creation..)?;
    if let Some(surplus @ 1..) = words.len().checked_sub(4 * REFERENCE_WORDS) {
        if words.iter().skip(4 * REFERENCE_WORDS).any(|byte| *byte != 0) {
            return Some(false);
        }
        changes.replace(at + 1, &(REFERENCE_WORDS as u16).to_be_bytes());
        changes.cut(at + identifier.len() - surplus, surplus);
    }
    Some(true)
}

fn word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    bytes.split_first_chunk().map(|(word, rest)| (u32::from_be_bytes(*word), rest))
}

/// What follows the atom that starts at `at`.
fn after_atom(identifier: &[u8], at: usize) -> Option<&[u8]> {
    let rest = identifier.get(at..)?;
    rest.get(atom_size(rest)?..)
}

/// What becomes of the bytes of a term, by their old places.
#[derive(Default)]
struct Changes {
    replacements: Vec<(usize, u8)>,
    /// Ascending, because the nodes of a term are.
    cuts: Vec<Cut>,
}

struct Cut {
    at: usize,
    len: usize,
    /// The length of all cuts up to this one.
    total: usize,
}

impl Changes {
    fn replace(&mut self, at: usize, bytes: &[u8]) {
        self.replacements.extend(bytes.iter().enumerate().map(|(index, byte)| (at + index, *byte)));
    }

    fn cut(&mut self, at: usize, len: usize) {
        let total = self.cuts.last().map_or(0, |cut| cut.total) + len;
        self.cuts.push(Cut { at, len, total });
    }

    /// How many bytes are cut before this place.
    fn cut_before(&self, at: usize) -> usize {
        let cuts = self.cuts.partition_point(|cut| cut.at < at);
        cuts.checked_sub(1).and_then(|last| self.cuts.get(last)).map_or(0, |cut| cut.total)
    }

    fn apply(&self, old: &[u8]) -> Vec<u8> {
        let mut bytes = old.to_vec();
        for (at, byte) in &self.replacements {
            if let Some(place) = bytes.get_mut(*at) {
                *place = *byte;
            }
        }
        let mut new = Vec::with_capacity(bytes.len());
        let mut copied = 0;
        for cut in &self.cuts {
            new.extend_from_slice(bytes.get(copied..cut.at).unwrap_or_default());
            copied = cut.at + cut.len;
        }
        new.extend_from_slice(bytes.get(copied..).unwrap_or_default());
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;
    use crate::etf::{Atom, Fun, Port, Term};

    const NODE: Atom = Atom::new_static("a@h");

    fn port_of(id: u64) -> Term {
        Term::Port(Box::new(Port { node: NODE, id, creation: 7 }))
    }

    fn pid_of(id: u32, serial: u32) -> Term {
        Term::Pid(Pid { node: NODE, id, serial, creation: 7 })
    }

    fn reference_of(words: &[u32]) -> Term {
        Term::Reference(Box::new(Reference::new(NODE, 7, words).unwrap()))
    }

    fn narrowed(term: &Term) -> Result<RawTerm> {
        let raw = RawTerm::from_term(term).unwrap();
        narrow(&raw, &mut Tape::new()).map(Cow::into_owned)
    }

    fn fun(free: Vec<Term>) -> Term {
        Term::Fun(Box::new(Fun {
            module: NODE,
            arity: 0,
            uniq: [1; 16],
            index: 0,
            old_index: 0,
            old_uniq: 0,
            pid: Pid { node: NODE, id: 1, serial: 0, creation: 7 },
            free: free.into(),
        }))
    }

    #[test]
    fn a_port_gets_its_old_form() {
        let raw = narrowed(&port_of((1 << 28) - 1)).unwrap();
        assert_eq!(raw.as_bytes()[..], *b"\x59\x77\x03a@h\x0f\xff\xff\xff\0\0\0\x07");
        assert_eq!(narrowed(&port_of(1 << 28)), Err(Error::NotSupportedByPeer("V4_NC")));
        assert_eq!(narrowed(&port_of(1 << 32)), Err(Error::NotSupportedByPeer("V4_NC")));
    }

    #[test]
    fn what_is_around_a_port_stays() {
        let inner = |port: Term| fun(vec![Term::binary(b"before"), port, fun(vec![port_of(3), port_of(4)])]);
        let term = Term::Tuple(
            [Term::atom("x"), inner(port_of(1)), reference_of(&[1, 2, 3]), Term::Integer(9)]
                .into_iter()
                .collect(),
        );
        let raw = narrowed(&term).unwrap();
        assert_eq!(raw.as_bytes().len() + 3 * 4, RawTerm::from_term(&term).unwrap().as_bytes().len());
        // Checked from scratch: the sizes of the funs are right.
        let again = RawTerm::new(raw.as_bytes().clone(), None, &Limits::default()).unwrap();
        assert_eq!(again.as_bytes(), raw.as_bytes());
        assert_eq!(again.to_term(&Limits::default()).unwrap(), term);
    }

    #[test]
    fn atoms_of_a_header_stay_references() {
        let bytes = bytes::Bytes::from_static(b"\x68\x02\x52\0\x78\x52\0\0\0\0\0\0\0\0\x05\0\0\0\x07");
        let atoms = std::sync::Arc::from([NODE]);
        let raw = RawTerm::new(bytes, Some(atoms), &Limits::default()).unwrap();
        let mut tape = Tape::new();
        let narrow = narrow(&raw, &mut tape).unwrap();
        assert_eq!(narrow.as_bytes()[..], *b"\x68\x02\x52\0\x59\x52\0\0\0\0\x05\0\0\0\x07");
        assert_eq!(narrow.atoms(), [NODE]);
        assert_eq!(*narrow, raw);
    }

    #[test]
    fn references_lose_only_zero_words() {
        let raw = narrowed(&reference_of(&[1, 2, 3, 0, 0])).unwrap();
        assert_eq!(raw, narrowed(&reference_of(&[1, 2, 3])).unwrap());
        assert_eq!(raw.as_bytes()[..3], [NEWER_REFERENCE_EXT, 0, 3]);
        for wide in [&[1, 2, 3, 4][..], &[1, 2, 3, 0, 1]] {
            assert_eq!(narrowed(&reference_of(wide)), Err(Error::NotSupportedByPeer("V4_NC")), "{wide:?}");
            assert!(!is_narrow_reference(&Reference::new(NODE, 7, wide).unwrap()));
        }
        narrowed(&reference_of(&[u32::MAX; 3])).unwrap();
    }

    #[test]
    fn a_wide_pid_has_no_narrow_form() {
        narrowed(&Term::List(vec![pid_of((1 << 15) - 1, (1 << 13) - 1)].into())).unwrap();
        for (id, serial) in [(1 << 15, 0), (0, 1 << 13)] {
            let deep = Term::List(vec![Term::nil(), Term::from((1, pid_of(id, serial)))].into());
            assert_eq!(narrowed(&deep), Err(Error::NotSupportedByPeer("V4_NC")));
            assert!(!is_narrow_pid(&Pid { node: NODE, id, serial, creation: 7 }));
        }
    }
}
