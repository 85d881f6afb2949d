//! Terms to bytes in one pass.
//!
//! What is not known in front (the size of a local fun) is filled in behind, and if a term turns out to be none that
//! Erlang could hold, the output is cut back to where it began.

use bytes::{BufMut, BytesMut};

use super::encode::{
    put_big, put_binary, put_binary_header, put_bits, put_export_fun, put_f64, put_fun_header, put_i64,
    put_list_header, put_map_header, put_nil, put_port, put_record_header, put_tuple_header, wide_integer,
};
use super::tag::{NEW_PID_EXT, NEWER_REFERENCE_EXT, STRING_EXT};
use super::walk::Items;
use super::{Atom, Pid, Reference, Term};
use crate::{Error, Result};

/// What terms are written to: a growing buffer in memory.
pub trait Output: BufMut + sealed::Buffer {}

impl Output for Vec<u8> {}
impl Output for BytesMut {}

mod sealed {
    /// What a writer needs besides appending.
    pub trait Buffer {
        /// The bytes so far, for filling in.
        fn written(&mut self) -> &mut [u8];
        /// How many bytes there are.
        fn written_len(&self) -> usize;
        /// Takes all bytes from `len` on back.
        fn cut(&mut self, len: usize);
        /// Appends bytes.
        fn append(&mut self, bytes: &[u8]);
    }

    macro_rules! buffer {
        ($($type:ty)*) => {
            $(
                impl Buffer for $type {
                    #[inline]
                    fn written(&mut self) -> &mut [u8] {
                        self
                    }

                    #[inline]
                    fn written_len(&self) -> usize {
                        self.len()
                    }

                    #[inline]
                    fn cut(&mut self, len: usize) {
                        self.truncate(len);
                    }

                    #[inline]
                    fn append(&mut self, bytes: &[u8]) {
                        self.extend_from_slice(bytes);
                    }
                }
            )*
        };
    }

    buffer!(Vec<u8> bytes::BytesMut);
}

/// Levels that are written by recursion, which is faster than a list of what is left to write; what is nested deeper goes
/// to such a list.
const LEVELS: u32 = 32;

/// Why a term cannot be written. One byte, so that passing it on costs nothing.
#[derive(Clone, Copy)]
pub(super) enum Unwritable {
    NotFinite,
    TooLong,
}

type Put<T = ()> = core::result::Result<T, Unwritable>;

impl From<Unwritable> for Error {
    fn from(why: Unwritable) -> Self {
        match why {
            Unwritable::NotFinite => Self::ApiMisuse("Erlang floats are finite"),
            Unwritable::TooLong => Self::ApiMisuse("more than 2^32 - 1 in one term"),
        }
    }
}

/// A length as the format counts it.
#[inline]
pub(super) fn checked_count(len: usize) -> Put<u32> {
    u32::try_from(len).map_err(|_| Unwritable::TooLong)
}

/// Appends a term; on an error nothing.
pub(super) fn write<O: Output>(term: &Term, out: &mut O) -> Result<()> {
    let start = out.written_len();
    let written = if put_leaf(term, out) { Ok(()) } else { put_nested(term, LEVELS, out) };
    if written.is_err() {
        out.cut(start);
    }
    Ok(written?)
}

/// Appends one of the frequent terms without terms inside; `false`, and nothing, for any other.
#[inline(always)]
fn put_leaf<O: Output>(term: &Term, out: &mut O) -> bool {
    match term {
        Term::Integer(value) => put_integer(out, *value),
        Term::Atom(atom) => put_short_atom(out, atom),
        // More bytes than can be counted is for the other to refuse.
        Term::Binary(bytes) if bytes.len() < u32::MAX as usize => put_binary(out, bytes),
        _ => return false,
    }
    true
}

/// As `put_i64`, in one piece of fixed size, of which the rest is cut off.
#[inline(always)]
pub(super) fn put_integer<O: Output>(out: &mut O, value: i64) {
    match i32::try_from(value) {
        Ok(_) => put_i64(out, value),
        Err(_) => {
            let (bytes, len) = wide_integer(value);
            let end = out.written_len() + len;
            out.append(&bytes);
            out.cut(end);
        }
    }
}

/// As `put_atom`; text inside the value goes out as one piece of fixed size, of which the rest is cut off.
#[inline]
pub(super) fn put_short_atom<O: Output>(out: &mut O, atom: &Atom) {
    match atom.encoded() {
        Some((bytes, len)) => {
            let end = out.written_len() + len;
            out.append(&bytes);
            out.cut(end);
        }
        None => super::encode::put_atom(out, atom),
    }
}

fn put_elements<O: Output>(elements: &[Term], levels: u32, out: &mut O) -> Put {
    for element in elements {
        if put_leaf(element, out) {
            continue;
        }
        match element {
            Term::Tuple(inside) if levels > 0 => {
                put_tuple_header(out, checked_count(inside.len())?);
                put_elements(inside, levels - 1, out)?;
            }
            Term::List(inside) if inside.is_empty() => put_nil(out),
            Term::List(inside) if is_string(inside) => put_string(out, inside),
            Term::List(inside) if levels > 0 => {
                put_list_header(out, checked_count(inside.len())?);
                put_elements(inside, levels - 1, out)?;
                put_nil(out);
            }
            other => put_nested(other, levels, out)?,
        }
    }
    Ok(())
}

/// What comes after the terms inside a container.
enum After {
    /// Nothing is inside, or nothing follows.
    Nothing,
    Nil,
    /// The size of a fun that begins here has to be filled in.
    FunSize(usize),
}

impl After {
    fn put<O: Output>(self, out: &mut O) -> Put {
        match self {
            Self::Nothing => Ok(()),
            Self::Nil => {
                put_nil(out);
                Ok(())
            }
            Self::FunSize(start) => {
                let size = checked_count(out.written_len() - start - 1)?;
                if let Some(room) = out.written().get_mut(start + 1..start + 5) {
                    room.copy_from_slice(&size.to_be_bytes());
                }
                Ok(())
            }
        }
    }
}

/// Appends a term of any kind.
fn put_nested<O: Output>(term: &Term, levels: u32, out: &mut O) -> Put {
    let Some(levels) = levels.checked_sub(1) else { return put_deep(term, out) };
    match term {
        Term::Tuple(elements) => {
            put_tuple_header(out, checked_count(elements.len())?);
            put_elements(elements, levels, out)
        }
        Term::List(elements) if !is_string(elements) => {
            put_list_header(out, checked_count(elements.len())?);
            put_elements(elements, levels, out)?;
            put_nil(out);
            Ok(())
        }
        Term::Map(map) => {
            put_map_header(out, checked_count(map.len())?);
            for (key, value) in map.iter() {
                if !put_leaf(key, out) {
                    put_nested(key, levels, out)?;
                }
                if !put_leaf(value, out) {
                    put_nested(value, levels, out)?;
                }
            }
            Ok(())
        }
        _ => put_rare(term, levels, out),
    }
}

/// As [`put_nested`], for the less frequent kinds.
#[inline(never)]
fn put_rare<O: Output>(term: &Term, levels: u32, out: &mut O) -> Put {
    let after = put_head(term, out)?;
    match term {
        Term::ImproperList(list) => {
            put_elements(&list.elements, levels, out)?;
            put_elements(core::slice::from_ref(&list.tail), levels, out)?;
        }
        Term::Fun(fun) => put_elements(&fun.free, levels, out)?,
        Term::Record(record) => {
            for (_, value) in &record.fields {
                put_elements(core::slice::from_ref(value), levels, out)?;
            }
        }
        _ => {}
    }
    after.put(out)
}

/// Appends a term that may be nested as deeply as memory allows.
fn put_deep<O: Output>(term: &Term, out: &mut O) -> Put {
    let mut open: Vec<(Items<'_>, After)> = Vec::new();
    let mut next = Some(term);
    loop {
        if let Some(term) = next.take() {
            let after = put_head(term, out)?;
            // A list of bytes is complete.
            if term.is_nested() && !(matches!(term, Term::List(_)) && matches!(after, After::Nothing)) {
                open.push((Items::of(term), after));
            }
        }
        let Some((items, _)) = open.last_mut() else { return Ok(()) };
        next = items.pass_while(|item| put_leaf(item, out));
        if next.is_none()
            && let Some((_, after)) = open.pop()
        {
            after.put(out)?;
        }
    }
}

/// Appends a term up to the first term inside, or all of it if there is none.
fn put_head<O: Output>(term: &Term, out: &mut O) -> Put<After> {
    match term {
        Term::Tuple(elements) => put_tuple_header(out, checked_count(elements.len())?),
        Term::List(elements) if elements.is_empty() => put_nil(out),
        Term::List(elements) if is_string(elements) => put_string(out, elements),
        Term::List(elements) => {
            put_list_header(out, checked_count(elements.len())?);
            return Ok(After::Nil);
        }
        Term::Map(map) => put_map_header(out, checked_count(map.len())?),
        Term::Float(value) if value.is_finite() => put_f64(out, *value),
        Term::Float(_) => return Err(Unwritable::NotFinite),
        Term::Pid(pid) => put_short_pid(out, pid),
        Term::Reference(reference) => put_short_reference(out, reference),
        Term::Port(port) => put_port(out, port),
        Term::ImproperList(list) => put_list_header(out, checked_count(list.elements.len())?),
        Term::BigInteger(value) => {
            checked_count(value.magnitude().len())?;
            put_big(out, value.is_negative(), value.magnitude());
        }
        Term::BitString(bits) => {
            checked_count(bits.bytes.len())?;
            put_bits(out, &bits.bytes, bits.last_bits);
        }
        Term::Fun(fun) => {
            checked_count(fun.free.len())?;
            let start = out.written_len();
            put_fun_header(out, fun, 0);
            return Ok(After::FunSize(start));
        }
        Term::ExportFun(fun) => put_export_fun(out, fun),
        Term::Record(record) => {
            checked_count(record.fields.len())?;
            put_record_header(out, record);
        }
        Term::Local(bytes) => out.append(bytes),
        Term::Integer(value) => put_integer(out, *value),
        Term::Atom(atom) => put_short_atom(out, atom),
        Term::Binary(bytes) => {
            put_binary_header(out, checked_count(bytes.len())?);
            out.append(bytes);
        }
    }
    Ok(After::Nothing)
}

/// Whether a list takes the form STRING_EXT or, without elements, NIL_EXT.
#[inline]
pub(super) fn is_string(elements: &[Term]) -> bool {
    elements.len() <= usize::from(u16::MAX) && elements.iter().all(|e| matches!(e, Term::Integer(0..=255)))
}

/// Appends a list of 1 to 65,535 bytes.
#[inline(never)]
fn put_string<O: Output>(out: &mut O, elements: &[Term]) {
    let [high, low] = (elements.len() as u16).to_be_bytes();
    out.append(&[STRING_EXT, high, low]);
    let byte = |element: &Term| if let Term::Integer(byte) = element { *byte as u8 } else { 0 };
    for chunk in elements.chunks(64) {
        let mut bytes = [0; 64];
        bytes.iter_mut().zip(chunk).for_each(|(room, element)| *room = byte(element));
        out.append(bytes.get(..chunk.len()).unwrap_or_default());
    }
}

/// As `put_pid`, in one piece if the name of the node is inside the value.
pub(super) fn put_short_pid<O: Output>(out: &mut O, pid: &Pid) {
    match short_pid(pid) {
        Some((all, len)) => put_start(out, &all, len),
        None => super::encode::put_pid(out, pid),
    }
}

/// Appends the first `len` bytes of an array: all of them in one piece, of which the rest is cut off.
#[inline(always)]
fn put_start<O: Output, const N: usize>(out: &mut O, all: &[u8; N], len: usize) {
    let end = out.written_len() + len;
    out.append(all);
    out.cut(end);
}

/// An encoded pid and how many of the bytes count, if the name of the node is inside the value.
#[inline]
pub(super) fn short_pid(pid: &Pid) -> Option<([u8; 1 + Atom::ENCODED + 12], usize)> {
    let (node, len) = pid.node.encoded()?;
    let mut all = [NEW_PID_EXT; 1 + Atom::ENCODED + 12];
    let (_, rest) = all.split_at_mut(1);
    rest.iter_mut().zip(node).for_each(|(room, byte)| *room = byte);
    if let Some(numbers) = rest.get_mut(len..).and_then(<[u8]>::first_chunk_mut::<12>) {
        for (room, number) in numbers.as_chunks_mut().0.iter_mut().zip([pid.id, pid.serial, pid.creation]) {
            *room = number.to_be_bytes();
        }
    }
    Some((all, len + 13))
}

/// As `put_reference`, in one piece if the name of the node is inside the value.
fn put_short_reference<O: Output>(out: &mut O, reference: &Reference) {
    match short_reference(reference) {
        Some((all, len)) => put_start(out, &all, len),
        None => super::encode::put_reference(out, reference),
    }
}

/// As [`short_pid`], a reference.
#[inline]
pub(super) fn short_reference(
    reference: &Reference,
) -> Option<([u8; 3 + Atom::ENCODED + 4 + 4 * Reference::MAX_WORDS], usize)> {
    let (node, len) = reference.node.encoded()?;
    let words = reference.words();
    let mut all = [0; 3 + Atom::ENCODED + 4 + 4 * Reference::MAX_WORDS];
    let (head, rest) = all.split_at_mut(3);
    head.copy_from_slice(&[NEWER_REFERENCE_EXT, 0, words.len() as u8]);
    rest.iter_mut().zip(node).for_each(|(room, byte)| *room = byte);
    let numbers = rest.get_mut(len..).unwrap_or_default().as_chunks_mut().0;
    for (room, number) in numbers.iter_mut().zip(core::iter::once(&reference.creation).chain(words)) {
        *room = number.to_be_bytes();
    }
    Some((all, 3 + len + 4 + 4 * words.len()))
}

#[cfg(test)]
mod tests {
    use super::super::{Fun, encoded_len};
    use super::*;
    use crate::Limits;

    fn fun(free: Vec<Term>) -> Term {
        let module: Atom = "m".try_into().unwrap();
        let pid = Pid { node: "a@b".try_into().unwrap(), id: 1, serial: 0, creation: 2 };
        let free = free.into();
        Fun { arity: 1, uniq: [7; 16], index: 3, module, old_index: 0, old_uniq: 5, pid, free }.into()
    }

    #[test]
    fn both_sides_of_the_recursion() {
        let wrap: [fn(Term) -> Term; 6] = [
            |inner| Term::tuple([1.into(), inner]),
            |inner| Term::list([inner, Term::nil(), Term::list([7.into()])]),
            |inner| Term::Map([(Term::atom("key"), inner)].into_iter().collect()),
            |inner| Term::list_with_tail(vec![inner], 2.into()),
            |inner| fun(vec![inner, Term::binary(b"free")]),
            |inner| Term::tuple([fun(vec![]), inner]),
        ];
        let limits = Limits::default();
        for wrap in wrap {
            let mut term = Term::nil();
            for level in 0..3 * LEVELS {
                let mut bytes = Vec::new();
                super::super::encode(&term, &mut bytes).unwrap();
                assert_eq!(bytes.len(), 1 + encoded_len(&term).unwrap(), "{level}");
                assert_eq!(super::super::decode(&bytes, &limits).as_ref(), Ok(&term), "{level}");
                let mut other = BytesMut::new();
                super::super::encode(&term, &mut other).unwrap();
                assert_eq!(bytes, other, "{level}");
                term = wrap(term);
            }
        }
    }

    #[test]
    fn nothing_is_left_of_what_cannot_be_written() {
        let mut term = Term::Float(f64::NAN);
        for _ in 0..2 * LEVELS {
            let mut out = b"before".to_vec();
            assert!(super::super::encode(&term, &mut out).is_err());
            assert!(super::super::encode_term(&term, &mut out).is_err());
            assert_eq!(out, b"before");
            term = Term::list(["long enough to be written".into(), term]);
        }
    }
}
