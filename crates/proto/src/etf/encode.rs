//! Terms to bytes, in exactly the form that OTP 26 and later give them.

use bytes::BufMut;

use super::tag::*;
use super::walk::Items;
use super::write::{Output, checked_count, is_string, write};
use super::{Atom, ExportFun, Fun, Pid, Port, Record, Reference, Term};
use crate::{Error, Result};

/// Appends a standalone term: the version byte 131, then as [`encode_term`].
///
/// # Errors
/// As [`encode_term`].
pub fn encode(term: &Term, buf: &mut impl Output) -> Result<()> {
    let start = buf.written_len();
    buf.put_u8(VERSION_MAGIC);
    let written = write(term, buf);
    if written.is_err() {
        buf.cut(start);
    }
    written
}

/// Appends a term without the version byte, as it stands in a frame.
///
/// The bytes are those of OTP's `term_to_binary`, except that a map keeps its order.
///
/// # Errors
/// [`Error::ApiMisuse`], and nothing is written, if the term is none that Erlang could hold: a NaN or an infinity
/// inside, or more than 2^32 - 1 elements or bytes in one container.
pub fn encode_term(term: &Term, buf: &mut impl Output) -> Result<()> {
    write(term, buf)
}

/// The exact number of bytes that [`encode_term`] appends.
///
/// # Errors
/// As [`encode_term`].
pub fn encoded_len(term: &Term) -> Result<usize> {
    measure(term)
}

/// The bytes of [`encode_term`] in a buffer of about their size.
pub(super) fn to_vec(term: &Term) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(FIRST);
    write(term, &mut bytes)?;
    // Whoever keeps it for long does not keep room for as much again.
    if bytes.len() > FIRST && bytes.capacity() - bytes.len() > bytes.len() / 8 {
        bytes.shrink_to_fit();
    }
    Ok(bytes)
}

/// The room that a buffer begins with: enough for most messages.
const FIRST: usize = 128;

fn measure(term: &Term) -> Result<usize> {
    /// A container, and for a fun where it starts.
    struct Open<'a>(Items<'a>, Option<usize>);

    let (mut total, nested) = level_len(term)?;
    if !nested {
        return Ok(total);
    }
    let open_one =
        |term, start: usize| Open(Items::of(term), matches!(term, Term::Fun(_)).then_some(start + 1));
    let mut open = vec![open_one(term, 0)];
    while let Some(Open(items, fun)) = open.last_mut() {
        let mut failed = None;
        let mut start = total;
        let nested = items.pass_while(|item| match level_len(item) {
            Ok((len, nested)) => {
                start = total;
                total += len;
                !nested
            }
            Err(error) => {
                failed = Some(error);
                false
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        if let Some(term) = nested {
            open.push(open_one(term, start));
            continue;
        }
        // A fun starts with its own size.
        if let Some(start) = fun {
            count(total - *start)?;
        }
        open.pop();
    }
    Ok(total)
}

/// The bytes of a term without the terms inside, and whether there are terms inside that follow.
fn level_len(term: &Term) -> Result<(usize, bool)> {
    let leaf = match term {
        Term::Float(value) if value.is_finite() => 9,
        Term::Float(_) => return Err(Error::ApiMisuse("Erlang floats are finite")),
        Term::Tuple(elements) if elements.len() <= 255 => return Ok((2, !elements.is_empty())),
        Term::Tuple(elements) => return count(elements.len()).map(|_| (5, true)),
        Term::List(elements) if elements.is_empty() => 1,
        Term::List(elements) if is_string(elements) => 3 + elements.len(),
        Term::List(elements) => return count(elements.len()).map(|_| (6, true)),
        Term::ImproperList(list) => return count(list.elements.len()).map(|_| (5, true)),
        Term::Map(map) => return count(map.len()).map(|len| (5, len > 0)),
        Term::BigInteger(value) => big_len(value.magnitude().len()),
        Term::BitString(bits) => 6 + count(bits.bytes.len())?,
        Term::Pid(pid) => 13 + atom_len(&pid.node),
        Term::Port(port) => 13 + atom_len(&port.node),
        Term::Reference(reference) => 7 + atom_len(&reference.node) + 4 * reference.words().len(),
        Term::Fun(fun) => return count(fun.free.len()).map(|_| (fun_len(fun), true)),
        Term::ExportFun(fun) => 3 + atom_len(&fun.module) + atom_len(&fun.function),
        Term::Record(record) => {
            count(record.fields.len())?;
            let names: usize = record.fields.iter().map(|(name, _)| atom_len(name)).sum();
            return Ok((6 + atom_len(&record.module) + atom_len(&record.name) + names, true));
        }
        Term::Local(bytes) => bytes.len(),
        Term::Integer(value) => i64_len(*value),
        Term::Atom(atom) => atom_len(atom),
        Term::Binary(bytes) => 5 + count(bytes.len())?,
    };
    Ok((leaf, false))
}

fn count(len: usize) -> Result<usize> {
    Ok(checked_count(len).map(|_| len)?)
}

/// The bytes of an encoded atom.
pub(super) fn atom_len(atom: &Atom) -> usize {
    let len = atom.as_bytes().len();
    if len <= 255 { 2 + len } else { 3 + len }
}

fn i64_len(value: i64) -> usize {
    match value {
        0..=255 => 2,
        _ if i32::try_from(value).is_ok() => 5,
        _ => big_len(magnitude_len(value.unsigned_abs())),
    }
}

fn big_len(magnitude: usize) -> usize {
    if magnitude <= 255 { 3 + magnitude } else { 6 + magnitude }
}

/// Bytes without leading zeros.
fn magnitude_len(value: u64) -> usize {
    8 - value.leading_zeros() as usize / 8
}

/// NEW_FUN_EXT without its free variables.
fn fun_len(fun: &Fun) -> usize {
    30 + atom_len(&fun.module) + i64_len(fun.old_index) + i64_len(fun.old_uniq) + 13 + atom_len(&fun.pid.node)
}

/// Appends an atom.
#[inline]
pub fn put_atom(buf: &mut impl BufMut, atom: &Atom) {
    let text = atom.as_bytes();
    // At most 1,020 bytes.
    match u8::try_from(text.len()) {
        Ok(len) => buf.put_slice(&[SMALL_ATOM_UTF8_EXT, len]),
        Err(_) => {
            buf.put_u8(ATOM_UTF8_EXT);
            buf.put_u16(text.len() as u16);
        }
    }
    buf.put_slice(text);
}

/// Appends an integer of 64 bits.
#[inline(always)]
pub fn put_i64(buf: &mut impl BufMut, value: i64) {
    if let Ok(byte) = u8::try_from(value) {
        buf.put_slice(&[SMALL_INTEGER_EXT, byte]);
    } else if let Ok(small) = i32::try_from(value) {
        let [a, b, c, d] = small.to_be_bytes();
        buf.put_slice(&[INTEGER_EXT, a, b, c, d]);
    } else {
        put_wide(buf, value);
    }
}

/// Appends an integer of more than 32 bits.
fn put_wide(buf: &mut impl BufMut, value: i64) {
    let (all, len) = wide_integer(value);
    buf.put_slice(all.get(..len).unwrap_or(&all));
}

/// An integer of more than 32 bits, and how many of the bytes count.
#[inline(always)]
pub(super) fn wide_integer(value: i64) -> ([u8; 11], usize) {
    let magnitude = value.unsigned_abs();
    let len = magnitude_len(magnitude);
    let [a, b, c, d, e, f, g, h] = magnitude.to_le_bytes();
    ([SMALL_BIG_EXT, len as u8, u8::from(value < 0), a, b, c, d, e, f, g, h], 3 + len)
}

/// Appends an unsigned integer of 64 bits.
pub fn put_u64(buf: &mut impl BufMut, value: u64) {
    match i64::try_from(value) {
        Ok(value) => put_i64(buf, value),
        Err(_) => put_big(buf, false, &value.to_le_bytes()),
    }
}

/// Appends an integer beyond 64 bits: a sign and a little-endian magnitude without zero bytes at its end.
pub(super) fn put_big(buf: &mut impl BufMut, negative: bool, magnitude: &[u8]) {
    match u8::try_from(magnitude.len()) {
        Ok(len) => buf.put_slice(&[SMALL_BIG_EXT, len]),
        Err(_) => {
            buf.put_u8(LARGE_BIG_EXT);
            buf.put_u32(magnitude.len() as u32);
        }
    }
    buf.put_u8(u8::from(negative));
    buf.put_slice(magnitude);
}

/// Appends a float, which must be finite: a BEAM that receives another one closes the connection.
pub fn put_f64(buf: &mut impl BufMut, value: f64) {
    buf.put_u8(NEW_FLOAT_EXT);
    buf.put_f64(value);
}

/// Appends a binary of less than 4 GiB.
#[inline]
pub fn put_binary(buf: &mut impl BufMut, bytes: &[u8]) {
    put_binary_header(buf, bytes.len() as u32);
    buf.put_slice(bytes);
}

/// Appends what comes before the bytes of a binary.
#[inline]
pub fn put_binary_header(buf: &mut impl BufMut, len: u32) {
    put_counted(buf, BINARY_EXT, len);
}

/// Appends a bit string whose last byte counts with `last_bits` bits, 1 to 7.
pub(super) fn put_bits(buf: &mut impl BufMut, bytes: &[u8], last_bits: u8) {
    put_counted(buf, BIT_BINARY_EXT, bytes.len() as u32);
    buf.put_u8(last_bits);
    buf.put_slice(bytes);
}

/// Appends what comes before the elements of a tuple.
#[inline]
pub fn put_tuple_header(buf: &mut impl BufMut, arity: u32) {
    match u8::try_from(arity) {
        Ok(arity) => buf.put_slice(&[SMALL_TUPLE_EXT, arity]),
        Err(_) => put_counted(buf, LARGE_TUPLE_EXT, arity),
    }
}

/// Appends what comes before the elements of a list; after them comes the tail, [`put_nil`] for a proper list.
///
/// A list of nothing but integers 0 to 255 has another form in OTP (STRING_EXT), but this one is accepted everywhere. A
/// list without elements must be written as [`put_nil`].
#[inline]
pub fn put_list_header(buf: &mut impl BufMut, len: u32) {
    put_counted(buf, LIST_EXT, len);
}

/// Appends the empty list.
#[inline]
pub fn put_nil(buf: &mut impl BufMut) {
    buf.put_u8(NIL_EXT);
}

/// Appends what comes before the keys and values of a map.
#[inline]
pub fn put_map_header(buf: &mut impl BufMut, pairs: u32) {
    put_counted(buf, MAP_EXT, pairs);
}

#[inline]
fn put_counted(buf: &mut impl BufMut, tag: u8, count: u32) {
    let [a, b, c, d] = count.to_be_bytes();
    buf.put_slice(&[tag, a, b, c, d]);
}

/// Appends a pid.
pub fn put_pid(buf: &mut impl BufMut, pid: &Pid) {
    buf.put_u8(NEW_PID_EXT);
    put_atom(buf, &pid.node);
    let mut numbers = [0; 12];
    for (room, number) in numbers.chunks_mut(4).zip([pid.id, pid.serial, pid.creation]) {
        room.copy_from_slice(&number.to_be_bytes());
    }
    buf.put_slice(&numbers);
}

/// Appends a port.
pub fn put_port(buf: &mut impl BufMut, port: &Port) {
    buf.put_u8(V4_PORT_EXT);
    put_atom(buf, &port.node);
    buf.put_u64(port.id);
    buf.put_u32(port.creation);
}

/// Appends a reference.
pub fn put_reference(buf: &mut impl BufMut, reference: &Reference) {
    buf.put_slice(&[NEWER_REFERENCE_EXT, 0, reference.words().len() as u8]);
    put_atom(buf, &reference.node);
    buf.put_u32(reference.creation);
    for word in reference.words() {
        buf.put_u32(*word);
    }
}

/// Appends `fun M:F/A`.
pub(super) fn put_export_fun(buf: &mut impl BufMut, fun: &ExportFun) {
    buf.put_u8(EXPORT_EXT);
    put_atom(buf, &fun.module);
    put_atom(buf, &fun.function);
    buf.put_slice(&[SMALL_INTEGER_EXT, fun.arity]);
}

/// Appends a local fun up to its free variables.
pub(super) fn put_fun_header(buf: &mut impl BufMut, fun: &Fun, size: u32) {
    buf.put_u8(NEW_FUN_EXT);
    buf.put_u32(size);
    buf.put_u8(fun.arity);
    buf.put_slice(&fun.uniq);
    buf.put_u32(fun.index);
    buf.put_u32(fun.free.len() as u32);
    put_atom(buf, &fun.module);
    put_i64(buf, fun.old_index);
    put_i64(buf, fun.old_uniq);
    put_pid(buf, &fun.pid);
}

/// Appends a record up to its values.
pub(super) fn put_record_header(buf: &mut impl BufMut, record: &Record) {
    put_counted(buf, RECORD_EXT, record.fields.len() as u32);
    buf.put_u8(u8::from(record.exported));
    put_atom(buf, &record.module);
    put_atom(buf, &record.name);
    for (name, _) in &record.fields {
        put_atom(buf, name);
    }
}
