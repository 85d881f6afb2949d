//! Terms to and from those of the `eetf` crate, for programs that use it or `erl_dist` besides.
//!
//! Values only: `eetf` never reads bytes that came from a peer here, because a few bytes are enough to make it abort. Its
//! terms are dropped by recursion, so none is made that is nested more deeply than [`MAX_DEPTH`].
//!
//! ```
//! use foundation_node::convert::Eetf;
//! use foundation_proto::etf::Term;
//!
//! let term = Term::from((Term::atom("ok"), Term::from(1)));
//! let Eetf(theirs) = Eetf::try_from(&term)?;
//! assert_eq!(theirs.to_string(), "{'ok',1}");
//! assert_eq!(Term::try_from(Eetf(theirs))?, term);
//! # Ok::<(), foundation_node::convert::ConvertError>(())
//! ```

use core::fmt;

use foundation_proto::etf::{self, Term};
use num_bigint::{BigInt, Sign};

/// How deeply a term may be nested to become one of `eetf`: 1,024, which its recursion needs some 200 kB of stack for.
pub const MAX_DEPTH: usize = 1024;

/// A term of the `eetf` crate.
#[derive(Clone, Debug, PartialEq)]
pub struct Eetf(pub eetf::Term);

/// A term that the other side has no equal for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ConvertError {
    /// It is nested more deeply than [`MAX_DEPTH`].
    TooDeep,
    /// `eetf` has no native records, no LOCAL_EXT, and funs only with 32-bit indices.
    NotInEetf,
    /// An atom of more than 255 characters, a float that is not finite, a reference without words, a fun in the form that OTP
    /// gave up with release 23, or a bit string whose parts do not fit together.
    NotInErlang,
    /// A map with a key twice.
    DuplicateKey,
}

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooDeep => "the term is nested more deeply than eetf can take",
            Self::NotInEetf => "eetf has no such term",
            Self::NotInErlang => "Erlang has no such term",
            Self::DuplicateKey => "the map has a key twice",
        })
    }
}

impl core::error::Error for ConvertError {}

/// A container that is being converted: its parts still to come, the parts done, and what makes it whole.
struct Open<'a, From, To> {
    rest: Vec<&'a From>,
    done: Vec<To>,
    whole: &'a From,
}

/// Converts from the inside out without recursion. `parts` lists what is inside a term, none for a leaf; `close` makes the
/// term of its converted parts.
fn convert<'a, From, To>(
    term: &'a From,
    max_depth: usize,
    parts: impl Fn(&'a From) -> Vec<&'a From>,
    close: impl Fn(&'a From, Vec<To>) -> Result<To, ConvertError>,
) -> Result<To, ConvertError> {
    let mut open: Vec<Open<'a, From, To>> = Vec::new();
    let mut next = term;
    loop {
        if open.len() >= max_depth {
            return Err(ConvertError::TooDeep);
        }
        let mut rest = parts(next);
        rest.reverse();
        open.push(Open { done: Vec::with_capacity(rest.len()), rest, whole: next });
        loop {
            let Some(innermost) = open.last_mut() else { return Err(ConvertError::TooDeep) };
            if let Some(part) = innermost.rest.pop() {
                next = part;
                break;
            }
            let Some(complete) = open.pop() else { return Err(ConvertError::TooDeep) };
            let converted = close(complete.whole, complete.done)?;
            match open.last_mut() {
                Some(outer) => outer.done.push(converted),
                None => return Ok(converted),
            }
        }
    }
}

impl TryFrom<&Term> for Eetf {
    type Error = ConvertError;

    fn try_from(term: &Term) -> Result<Self, ConvertError> {
        convert(term, MAX_DEPTH, parts_of_ours, to_eetf).map(Self)
    }
}

impl TryFrom<Eetf> for Term {
    type Error = ConvertError;

    fn try_from(Eetf(term): Eetf) -> Result<Self, ConvertError> {
        convert(&term, usize::MAX, parts_of_eetf, from_eetf)
    }
}

fn parts_of_ours(term: &Term) -> Vec<&Term> {
    match term {
        Term::Tuple(elements) => elements.iter().collect(),
        Term::List(elements) => elements.iter().collect(),
        Term::ImproperList(list) => list.elements.iter().chain([&list.tail]).collect(),
        Term::Map(map) => map.iter().flat_map(|(key, value)| [key, value]).collect(),
        Term::Fun(fun) => fun.free.iter().collect(),
        _ => Vec::new(),
    }
}

fn to_eetf(term: &Term, mut parts: Vec<eetf::Term>) -> Result<eetf::Term, ConvertError> {
    Ok(match term {
        Term::Atom(atom) => atom_to(atom).into(),
        Term::Integer(value) => match i32::try_from(*value) {
            Ok(value) => eetf::FixInteger { value }.into(),
            Err(_) => eetf::BigInteger::from(*value).into(),
        },
        Term::BigInteger(value) => {
            let sign = if value.is_negative() { Sign::Minus } else { Sign::Plus };
            eetf::BigInteger { value: BigInt::from_bytes_le(sign, value.magnitude()) }.into()
        }
        Term::Float(value) => eetf::Float { value: *value }.into(),
        Term::Pid(pid) => pid_to(pid).into(),
        Term::Port(port) => {
            eetf::Port { node: atom_to(&port.node), id: port.id, creation: port.creation }.into()
        }
        Term::Reference(reference) => eetf::Reference {
            node: atom_to(&reference.node),
            id: reference.words().to_vec(),
            creation: reference.creation,
        }
        .into(),
        Term::Binary(bytes) => eetf::Binary { bytes: bytes.to_vec() }.into(),
        Term::BitString(bits) => {
            let bytes = shifted(&bits.bytes, |last| last >> (8 - bits.last_bits));
            eetf::BitBinary { bytes, tail_bits_size: bits.last_bits }.into()
        }
        Term::Tuple(_) => eetf::Tuple { elements: parts }.into(),
        Term::List(_) => eetf::List { elements: parts }.into(),
        Term::ImproperList(_) => {
            let last = parts.pop().ok_or(ConvertError::NotInErlang)?;
            eetf::ImproperList { elements: parts, last: Box::new(last) }.into()
        }
        Term::Map(_) => eetf::Map { map: pairs(parts).into_iter().collect() }.into(),
        Term::Fun(fun) => eetf::InternalFun::New {
            module: atom_to(&fun.module),
            arity: fun.arity,
            pid: pid_to(&fun.pid),
            free_vars: parts,
            index: fun.index,
            uniq: fun.uniq,
            old_index: i32::try_from(fun.old_index).map_err(|_| ConvertError::NotInEetf)?,
            old_uniq: i32::try_from(fun.old_uniq).map_err(|_| ConvertError::NotInEetf)?,
        }
        .into(),
        Term::ExportFun(fun) => eetf::ExternalFun {
            module: atom_to(&fun.module),
            function: atom_to(&fun.function),
            arity: fun.arity,
        }
        .into(),
        _ => return Err(ConvertError::NotInEetf),
    })
}

fn parts_of_eetf(term: &eetf::Term) -> Vec<&eetf::Term> {
    match term {
        eetf::Term::Tuple(tuple) => tuple.elements.iter().collect(),
        eetf::Term::List(list) => list.elements.iter().collect(),
        eetf::Term::ImproperList(list) => list.elements.iter().chain([&*list.last]).collect(),
        eetf::Term::Map(map) => sorted(map).into_iter().flat_map(|(key, value)| [key, value]).collect(),
        eetf::Term::InternalFun(fun) => match &**fun {
            eetf::InternalFun::New { free_vars, .. } | eetf::InternalFun::Old { free_vars, .. } => {
                free_vars.iter().collect()
            }
        },
        _ => Vec::new(),
    }
}

/// The pairs in an order that does not depend on how they were hashed.
#[allow(clippy::iter_over_hash_type, reason = "the pairs are sorted")]
fn sorted(map: &eetf::Map) -> Vec<(&eetf::Term, &eetf::Term)> {
    let mut pairs: Vec<_> = map.map.iter().collect();
    pairs.sort_by_cached_key(|(key, _)| key.to_string());
    pairs
}

fn from_eetf(term: &eetf::Term, mut parts: Vec<Term>) -> Result<Term, ConvertError> {
    Ok(match term {
        eetf::Term::Atom(atom) => Term::Atom(atom_from(atom)?),
        eetf::Term::FixInteger(value) => Term::from(value.value),
        eetf::Term::BigInteger(value) => {
            let (sign, magnitude) = value.value.to_bytes_le();
            Term::from_magnitude(sign == Sign::Minus, &magnitude)
        }
        eetf::Term::Float(value) => Term::try_from(value.value).map_err(|_| ConvertError::NotInErlang)?,
        eetf::Term::Pid(pid) => Term::Pid(pid_from(pid)?),
        eetf::Term::Port(port) => {
            Term::from(etf::Port { node: atom_from(&port.node)?, id: port.id, creation: port.creation })
        }
        eetf::Term::Reference(reference) => {
            let node = atom_from(&reference.node)?;
            etf::Reference::new(node, reference.creation, &reference.id)
                .map(Term::from)
                .ok_or(ConvertError::NotInErlang)?
        }
        eetf::Term::ExternalFun(fun) => Term::from(etf::ExportFun {
            module: atom_from(&fun.module)?,
            function: atom_from(&fun.function)?,
            arity: fun.arity,
        }),
        eetf::Term::InternalFun(fun) => match &**fun {
            eetf::InternalFun::New { module, arity, pid, index, uniq, old_index, old_uniq, .. } => {
                Term::from(etf::Fun {
                    arity: *arity,
                    uniq: *uniq,
                    index: *index,
                    module: atom_from(module)?,
                    old_index: i64::from(*old_index),
                    old_uniq: i64::from(*old_uniq),
                    pid: pid_from(pid)?,
                    free: parts.into(),
                })
            }
            eetf::InternalFun::Old { .. } => return Err(ConvertError::NotInErlang),
        },
        eetf::Term::Binary(binary) => Term::binary(&binary.bytes),
        eetf::Term::BitBinary(bits) => {
            let unused = 8_u8.checked_sub(bits.tail_bits_size).ok_or(ConvertError::NotInErlang)?;
            let bytes = shifted(&bits.bytes, |last| last.checked_shl(unused.into()).unwrap_or(0));
            Term::bits(bytes.into(), bits.tail_bits_size).ok_or(ConvertError::NotInErlang)?
        }
        eetf::Term::ByteList(list) => Term::list(list.bytes.iter().map(|&byte| Term::from(byte))),
        eetf::Term::List(_) => Term::list(parts),
        eetf::Term::ImproperList(_) => {
            let tail = parts.pop().ok_or(ConvertError::NotInErlang)?;
            Term::list_with_tail(parts, tail)
        }
        eetf::Term::Tuple(_) => Term::tuple(parts),
        eetf::Term::Map(_) => {
            Term::Map(etf::Map::from_pairs(pairs(parts)).map_err(|_| ConvertError::DuplicateKey)?)
        }
    })
}

/// The bytes of a bit string with the last one moved: `eetf` has its bits at the low end.
fn shifted(bytes: &[u8], shift: impl Fn(u8) -> u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some(last) = bytes.last_mut() {
        *last = shift(*last);
    }
    bytes
}

/// Keys and values that came one after the other.
fn pairs<T>(parts: Vec<T>) -> Vec<(T, T)> {
    let mut parts = parts.into_iter();
    core::iter::from_fn(|| Some((parts.next()?, parts.next()?))).collect()
}

fn atom_to(atom: &etf::Atom) -> eetf::Atom {
    eetf::Atom { name: atom.as_str().to_owned() }
}

fn atom_from(atom: &eetf::Atom) -> Result<etf::Atom, ConvertError> {
    etf::Atom::new(&atom.name).map_err(|_| ConvertError::NotInErlang)
}

fn pid_to(pid: &etf::Pid) -> eetf::Pid {
    eetf::Pid { node: atom_to(&pid.node), id: pid.id, serial: pid.serial, creation: pid.creation }
}

fn pid_from(pid: &eetf::Pid) -> Result<etf::Pid, ConvertError> {
    Ok(etf::Pid { node: atom_from(&pid.node)?, id: pid.id, serial: pid.serial, creation: pid.creation })
}

#[cfg(test)]
mod tests {
    use foundation_proto::Limits;
    use foundation_proto::etf::{RawTerm, decode};

    use super::*;

    fn everything() -> Term {
        let node = etf::Atom::new_static("a@b");
        let pid = etf::Pid { node: node.clone(), id: 1, serial: 2, creation: 3 };
        let fun = etf::Fun {
            arity: 1,
            uniq: [7; 16],
            index: 4,
            module: etf::Atom::new_static("m"),
            old_index: 5,
            old_uniq: 6,
            pid: pid.clone(),
            free: vec![Term::from(8)].into(),
        };
        let export = etf::ExportFun {
            module: etf::Atom::new_static("m"),
            function: etf::Atom::new_static("f"),
            arity: 2,
        };
        Term::tuple([
            Term::atom("atom"),
            Term::from(-1),
            Term::from(i64::MAX),
            Term::from_magnitude(true, &[0xff; 20]),
            Term::Float(1.5),
            Term::from(pid),
            Term::from(etf::Port { node: node.clone(), id: 1 << 40, creation: 3 }),
            Term::from(etf::Reference::new(node, 3, &[1, 2, 3]).unwrap()),
            Term::binary(b"binary"),
            Term::bits(vec![0xf0].into(), 4).unwrap(),
            Term::list([]),
            Term::list([Term::from(1000), Term::nil()]),
            Term::list_with_tail(vec![Term::from(1)], Term::from(2)),
            Term::from(etf::Map::from_pairs(vec![(Term::atom("k"), Term::tuple([]))]).unwrap()),
            Term::from(fun),
            Term::from(export),
        ])
    }

    #[test]
    fn every_kind_of_term_comes_back() {
        let term = everything();
        let Eetf(theirs) = Eetf::try_from(&term).unwrap();
        assert_eq!(Term::try_from(Eetf(theirs)).unwrap(), term);
    }

    /// What eetf encodes of it is the same term: an encoder that is not ours.
    #[test]
    fn both_encode_the_same_term() {
        let term = everything();
        let Eetf(theirs) = Eetf::try_from(&term).unwrap();
        let mut bytes = Vec::new();
        theirs.encode(&mut bytes).unwrap();
        assert_eq!(decode(&bytes, &Limits::default()).unwrap(), term);
        let ours = RawTerm::from_term(&term).unwrap().to_external();
        assert_eq!(Term::try_from(Eetf(eetf::Term::decode(&ours[..]).unwrap())).unwrap(), term);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let mut deep = Term::nil();
        for _ in 0..MAX_DEPTH {
            deep = Term::list([deep]);
        }
        assert_eq!(Eetf::try_from(&deep), Err(ConvertError::TooDeep));
        let local = Term::Local(vec![121].into());
        assert_eq!(Eetf::try_from(&local), Err(ConvertError::NotInEetf));
        let long = eetf::Atom { name: "x".repeat(256) };
        assert_eq!(Term::try_from(Eetf(long.into())), Err(ConvertError::NotInErlang));
        let float = eetf::Float { value: f64::NAN };
        assert_eq!(Term::try_from(Eetf(float.into())), Err(ConvertError::NotInErlang));
    }
}
