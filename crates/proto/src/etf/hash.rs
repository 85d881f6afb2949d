//! `erlang:phash2/1,2`: the same number on every node, release and machine.
//!
//! The algorithm is `make_hash2` of erts `erl_term_hashing.c`: Bob Jenkins' mix over the term in depth-first order, the
//! hash so far going into each step. Two exceptions are not portable, there either: native records (the BEAM takes the
//! values in the order of its own atom numbers; here they come in definition order), and LOCAL_EXT terms, which only
//! the node that made them can read.

use super::atom::AtomRef;
use super::integer::trimmed;
use super::walk::{RecordRef, Shape, Walk};
use super::{Term, View};

/// `erlang:phash2(Term)`: 27 bits.
pub fn phash2(term: &Term) -> u32 {
    full(term) & 0x07FF_FFFF
}

/// `erlang:phash2(Term, Range)` for a range of 1 to 2^32: a number from 0 to `range - 1`. Outside of that, where Erlang
/// raises `badarg`, `None`.
pub fn phash2_range(term: &Term, range: u64) -> Option<u32> {
    in_range(full(term), range)
}

impl View<'_> {
    /// [`phash2`] of the term, without decoding it.
    pub fn phash2(self) -> u32 {
        full(self) & 0x07FF_FFFF
    }

    /// [`phash2_range`] of the term, without decoding it.
    pub fn phash2_range(self, range: u64) -> Option<u32> {
        in_range(full(self), range)
    }
}

fn in_range(hash: u32, range: u64) -> Option<u32> {
    if (1..=1 << 32).contains(&range) { u32::try_from(u64::from(hash) % range).ok() } else { None }
}

const GOLDEN: u32 = 0x9E37_79B9;

/// The constant that tells the types apart.
const fn salt(n: u32) -> u32 {
    n.wrapping_mul(GOLDEN)
}

const NIL: u32 = 3_468_870_702;

fn mix(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32, u32) {
    macro_rules! step {
        ($x:ident $y:ident $z:ident $shifted:expr) => {
            $x = $x.wrapping_sub($y).wrapping_sub($z) ^ $shifted;
        };
    }
    step!(a b c (c >> 13));
    step!(b c a (a << 8));
    step!(c a b (b >> 13));
    step!(a b c (c >> 12));
    step!(b c a (a << 16));
    step!(c a b (b >> 5));
    step!(a b c (c >> 3));
    step!(b c a (a << 10));
    step!(c a b (b >> 15));
    (a, b, c)
}

fn two(hash: u32, x: u32, y: u32, salt: u32) -> u32 {
    mix(salt.wrapping_add(x), salt.wrapping_add(y), hash).2
}

fn one(hash: u32, x: u32, salt: u32) -> u32 {
    two(hash, x, 0, salt)
}

/// Up to four bytes, little-endian.
fn word(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

fn block(bytes: &[u8], init: u32) -> u32 {
    let (mut a, mut b, mut c) = (GOLDEN, GOLDEN, init);
    let mut add = |chunk: &[u8], len: u32| {
        let (first, rest) = chunk.split_at(chunk.len().min(4));
        let (second, third) = rest.split_at(rest.len().min(4));
        a = a.wrapping_add(word(first));
        b = b.wrapping_add(word(second));
        // In the last chunk the lowest byte of `c` holds the length.
        c = c.wrapping_add(if len == 0 && chunk.len() == 12 { word(third) } else { word(third) << 8 });
        c = c.wrapping_add(len);
        (a, b, c) = mix(a, b, c);
        c
    };
    let mut chunks = bytes.chunks_exact(12);
    for chunk in &mut chunks {
        add(chunk, 0);
    }
    add(chunks.remainder(), bytes.len() as u32)
}

/// The hash of an atom's text: PJW over its bytes, with Latin-1 characters as one byte each.
fn atom_text(atom: AtomRef<'_>) -> u32 {
    let mut room = String::new();
    let mut bytes = atom.utf8_bytes(&mut room).iter().copied().peekable();
    let mut hash: u32 = 0;
    while let Some(mut byte) = bytes.next() {
        if byte & 0xFE == 0xC2
            && let Some(low) = bytes.next_if(|next| next & 0xC0 == 0x80)
        {
            byte = byte << 6 | low & 0x3F;
        }
        hash = (hash << 4).wrapping_add(u32::from(byte));
        let high = hash & 0xF000_0000;
        if high != 0 {
            hash ^= high >> 24;
            hash ^= high;
        }
    }
    hash
}

fn atom(hash: u32, text: AtomRef<'_>) -> u32 {
    if hash == 0 { atom_text(text) } else { one(hash, atom_text(text), salt(3)) }
}

fn nil(hash: u32) -> u32 {
    if hash == 0 { NIL } else { one(hash, 2, salt(2)) }
}

fn integer(mut hash: u32, value: i64) -> u32 {
    match i32::try_from(value) {
        Ok(small) if (-(1 << 27)..1 << 27).contains(&small) => {
            if small < 0 {
                hash = one(hash, small.unsigned_abs(), GOLDEN);
            }
            one(hash, small as u32, GOLDEN)
        }
        _ => big_integer(hash, value < 0, &value.unsigned_abs().to_le_bytes()),
    }
}

fn big_integer(hash: u32, negative: bool, magnitude: &[u8]) -> u32 {
    let salt = salt(if negative { 10 } else { 11 });
    trimmed(magnitude).chunks(8).fold(hash, |hash, digit| {
        let (low, high) = digit.split_at(digit.len().min(4));
        two(hash, word(low), word(high), salt)
    })
}

fn float(hash: u32, value: f64) -> u32 {
    let bits = if value == 0.0 { 0 } else { value.to_bits() };
    two(hash, (bits >> 32) as u32, bits as u32, salt(12))
}

fn bits(hash: u32, bytes: &[u8], last_bits: u8) -> u32 {
    let init = salt(13).wrapping_add(hash);
    if bytes.is_empty() {
        return init;
    }
    match bytes.split_last() {
        Some((last, whole)) if last_bits < 8 => {
            let hash = block(whole, init);
            two(hash, u32::from(last_bits), u32::from(last >> (8 - last_bits)), salt(15))
        }
        _ => block(bytes, init),
    }
}

/// The hash of the tuple `{Module, Name, IsExported, Field1, …}`.
fn record_definition(record: &RecordRef<'_>) -> u32 {
    let mut hash = one(0, 3 + record.fields.len() as u32, salt(9));
    hash = atom(atom(hash, record.module), record.name);
    hash = atom(hash, AtomRef::utf8(if record.exported { b"true" } else { b"false" }));
    record.fields.iter().fold(hash, |hash, field| atom(hash, *field))
}

/// What is left to hash of a container that was begun.
enum Open<'a, T: Walk<'a>> {
    Items(T::Items),
    List(T::Items, Option<T>),
    Pairs {
        items: T::Items,
        /// The hash up to the map.
        before: u32,
        /// The pairs so far, each hashed from 0; `xor` because they have no order.
        pairs: u32,
    },
    Value {
        value: T,
    },
}

/// A number for the pair of a map that depends on which is the key.
pub(super) fn pair(key: &Term, value: &Term) -> u32 {
    one(full(value), full(key), salt(1))
}

/// All 32 bits.
pub(super) fn full<'a, T: Walk<'a>>(term: T) -> u32 {
    let mut hash = 0;
    let mut open = Vec::new();
    let mut next = Some(term);
    loop {
        if let Some(term) = next.take() {
            hash = level(hash, term, &mut open);
        }
        match open.pop() {
            None => return hash,
            Some(Open::Value { value }) => next = Some(value),
            Some(Open::Items(mut items)) => {
                next = items.next();
                if next.is_some() {
                    open.push(Open::Items(items));
                }
            }
            Some(Open::List(mut items, tail)) => {
                (hash, next) = byte_run(hash, &mut items);
                if next.is_some() {
                    open.push(Open::List(items, tail));
                } else if tail.is_some() {
                    next = tail;
                } else {
                    hash = nil(hash);
                }
            }
            Some(Open::Pairs { mut items, before, pairs }) => {
                let pairs = pairs ^ hash;
                if let (Some(key), Some(value)) = (items.next(), items.next()) {
                    hash = 0;
                    next = Some(key);
                    open.push(Open::Pairs { items, before, pairs });
                    open.push(Open::Value { value });
                } else {
                    hash = one(before, pairs, salt(19));
                }
            }
        }
    }
}

/// Packs the bytes at the front of a list four to a word; returns the first element that is none.
fn byte_run<'a, T: Walk<'a>>(mut hash: u32, items: &mut T::Items) -> (u32, Option<T>) {
    let (mut word, mut len) = (0, 0);
    let mut other = None;
    for item in items {
        let Some(value @ 0..=255) = item.integer() else {
            other = Some(item);
            break;
        };
        word = word << 8 | value as u32;
        len += 1;
        if len == 4 {
            hash = one(hash, word, salt(4));
            (word, len) = (0, 0);
        }
    }
    if len > 0 {
        hash = one(hash, word, salt(4));
    }
    (hash, other)
}

/// Hashes the outermost level and opens what is inside.
fn level<'a, T: Walk<'a>>(hash: u32, term: T, open: &mut Vec<Open<'a, T>>) -> u32 {
    if let Some(value) = term.integer() {
        return integer(hash, value);
    }
    match term.shape() {
        Shape::Integer(value) => integer(hash, value),
        Shape::BigInteger(negative, magnitude) => big_integer(hash, negative, magnitude),
        Shape::Float(value) => float(hash, value),
        Shape::Atom(text) => atom(hash, text),
        Shape::Pid(pid) => one(hash, pid.id, salt(5)),
        Shape::Port(port) => two(hash, port.id as u32, (port.id >> 32) as u32, salt(6)),
        Shape::Reference(reference) => one(hash, reference.words.last().copied().unwrap_or(0), salt(7)),
        Shape::Bits(bytes, last_bits) => bits(hash, bytes, last_bits),
        Shape::Tuple(arity, items) => {
            open.push(Open::Items(items));
            one(hash, arity as u32, salt(9))
        }
        Shape::List(items, tail) => {
            open.push(Open::List(items, tail));
            hash
        }
        Shape::Map(size, items) => {
            let hash = one(hash, size as u32, salt(16));
            if size > 0 {
                // The first look at the pairs takes `hash` back out.
                open.push(Open::Pairs { items, before: hash, pairs: hash });
            }
            hash
        }
        Shape::Fun(fun, items) => {
            open.push(Open::Items(items));
            let hash = two(hash, fun.free as u32, atom_text(fun.module), GOLDEN);
            two(hash, fun.index, fun.old_uniq as u32, GOLDEN)
        }
        Shape::ExportFun(module, function, arity) => {
            let hash = two(hash, u32::from(arity), atom_text(module), GOLDEN);
            one(hash, atom_text(function), salt(14))
        }
        Shape::Record(record, items) => {
            open.push(Open::Items(items));
            two(hash, record.fields.len() as u32, record_definition(&record), salt(23))
        }
        Shape::Local(bytes) => block(bytes, hash),
    }
}

#[cfg(test)]
#[path = "hash/tests.rs"]
mod tests;
