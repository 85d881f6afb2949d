//! Duplicate keys of a map, found without quadratic time whatever the peer sends.
//!
//! Keys are compared as terms, not as bytes: one atom has four encodings, one integer five. Each key gets a hash; only
//! keys with equal hashes are compared. A peer can make hashes collide, so that after a bounded number of useless
//! steps the keys are sorted instead. Maps inside keys keep their sorted order on the tape, so that no comparison has
//! to sort them again.

use core::cmp::Ordering;

use super::order::{Mode, compare};
use super::tape::Tape;
use super::walk::{FunRef, PidRef, PortRef, RecordRef, ReferenceRef, Shape, Walk};
use super::{Atom, Elements, Kind, View};
use crate::error::Problem;
use crate::{Error, Result};

/// Up to here, all hashes are compared with all; the BEAM's flat maps are as large.
const SMALL: usize = 32;

impl Tape {
    /// Refuses a map with two equal keys; for a map inside a key, also keeps the order of the keys.
    pub(super) fn check_keys(&mut self, map: u32, in_key: bool, bytes: &[u8], atoms: &[Atom]) -> Result<()> {
        let mut table = core::mem::take(&mut self.table);
        let Some(view) = View::at(self, bytes, atoms, map) else { return Ok(()) };
        let at = view.node.at as usize;
        let count = view.len();
        let mut order = Vec::new();
        let unique = if in_key {
            order = sorted_keys(view);
            strictly_ascending(view, &order)
        } else if count <= SMALL {
            small_is_unique(view)
        } else {
            large_is_unique(view, count, &mut table)
                .unwrap_or_else(|| strictly_ascending(view, &sorted_keys(view)))
        };
        self.table = table;
        if !unique {
            return Err(Error::malformed("MAP_EXT", at, Problem::DuplicateKey));
        }
        if in_key {
            self.orders.insert(map, self.sorted_keys.len() as u32);
            self.sorted_keys.extend(order);
        }
        Ok(())
    }
}

fn key<'a>(map: View<'a>, index: u32) -> Option<View<'a>> {
    View::at(map.tape, map.bytes, map.atoms, index)
}

fn compare_keys(map: View<'_>, a: u32, b: u32) -> Ordering {
    match (key(map, a), key(map, b)) {
        (Some(a), Some(b)) => compare(a, b, Mode::Exact),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

fn sorted_keys(map: View<'_>) -> Vec<u32> {
    let mut keys: Vec<u32> = map.pairs().map(|(key, _)| key.index).collect();
    keys.sort_by(|a, b| compare_keys(map, *a, *b));
    keys
}

fn strictly_ascending(map: View<'_>, keys: &[u32]) -> bool {
    keys.windows(2).all(|two| matches!(two, [a, b] if compare_keys(map, *a, *b).is_lt()))
}

fn small_is_unique(map: View<'_>) -> bool {
    let mut hashes = [0; SMALL];
    let mut keys = [0; SMALL];
    for (count, (key, _)) in map.pairs().enumerate() {
        let hash = key_hash(key);
        let (Some(seen), Some(seen_keys)) = (hashes.get(..count), keys.get(..count)) else { return true };
        // Without an early exit this is a few vector instructions.
        if seen.iter().fold(false, |any, other| any | (*other == hash)) {
            let equal =
                |(other, index): (&u32, &u32)| *other == hash && compare_keys(map, *index, key.index).is_eq();
            if seen.iter().zip(seen_keys).any(equal) {
                return false;
            }
        }
        if let (Some(hash_slot), Some(key_slot)) = (hashes.get_mut(count), keys.get_mut(count)) {
            (*hash_slot, *key_slot) = (hash, key.index);
        }
    }
    true
}

/// `None` if the hashes collide too often to tell in linear time.
fn large_is_unique(map: View<'_>, count: usize, table: &mut Vec<(u32, u32)>) -> Option<bool> {
    // At most half full; node 0 is never a key, so it marks a free slot.
    let slots = (2 * count).next_power_of_two();
    table.clear();
    table.resize(slots, (0, 0));
    let mut patience = 4 * count + 64;
    for (key, _) in map.pairs() {
        let hash = key_hash(key);
        let mut slot = hash as usize & (slots - 1);
        loop {
            let entry = table.get_mut(slot)?;
            if entry.1 == 0 {
                *entry = (hash, key.index);
                break;
            }
            if entry.0 == hash {
                if compare_keys(map, entry.1, key.index).is_eq() {
                    return Some(false);
                }
                // A comparison may be much longer than a step.
                patience = patience.checked_sub(64)?;
            }
            patience = patience.checked_sub(1)?;
            slot = (slot + 1) & (slots - 1);
        }
    }
    Some(true)
}

/// A hash that is the same for all encodings of a term.
fn key_hash(key: View<'_>) -> u32 {
    let mut hash = Mixer(0);
    match key.kind() {
        Kind::Tuple | Kind::List | Kind::ImproperList | Kind::Map | Kind::Fun | Kind::Record => {
            let mut index = key.index;
            while index < key.node.next
                && let Some(part) = View::at(key.tape, key.bytes, key.atoms, index)
            {
                index += 1;
                match part.kind() {
                    // The same list can be one node or several.
                    Kind::List | Kind::ImproperList => {
                        part.as_byte_list()
                            .unwrap_or_default()
                            .iter()
                            .for_each(|byte| hash.word(u64::from(*byte)));
                    }
                    // Pairs come in any order.
                    Kind::Map => {
                        hash.word(part.len() as u64);
                        index = part.node.next;
                    }
                    _ => leaf_hash(part, &mut hash),
                }
            }
        }
        _ => leaf_hash(key, &mut hash),
    }
    hash.finish()
}

#[inline]
fn leaf_hash(leaf: View<'_>, hash: &mut Mixer) {
    match leaf.kind() {
        Kind::Atom => {
            if let Some(atom) = leaf.as_atom() {
                hash.bytes(atom.utf8_bytes(&mut String::new()));
            }
        }
        Kind::Integer => hash.word(leaf.as_i64().unwrap_or_default() as u64),
        Kind::BigInteger => hash.bytes(leaf.big().map_or(&[][..], |(_, magnitude)| magnitude)),
        Kind::Float => hash.word(leaf.as_f64().unwrap_or_default().to_bits()),
        Kind::Binary => hash.bytes(leaf.as_binary().unwrap_or_default()),
        // Unused bits of the last byte may hold anything.
        Kind::BitString => {
            if let Some((_, whole)) = leaf.as_bits().and_then(|(bytes, _)| bytes.split_last()) {
                hash.bytes(whole);
            }
        }
        Kind::Pid => match leaf.shape() {
            Shape::Pid(PidRef { serial, id, .. }) => hash.word(u64::from(serial) << 32 | u64::from(id)),
            _ => hash.word(1),
        },
        Kind::Port => match leaf.shape() {
            Shape::Port(PortRef { id, .. }) => hash.word(id),
            _ => hash.word(2),
        },
        Kind::Reference => match leaf.shape() {
            Shape::Reference(ReferenceRef { words, .. }) => {
                words.iter().for_each(|word| hash.word(u64::from(*word)))
            }
            _ => hash.word(3),
        },
        Kind::Tuple => hash.word(leaf.len() as u64),
        _ => hash.word(4),
    }
}

/// A multiplicative hash over words of eight bytes.
struct Mixer(u64);

impl Mixer {
    #[inline]
    fn word(&mut self, word: u64) {
        // 2^64 divided by the golden ratio.
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.word(u64::from_le_bytes(*word)));
        let last = rest.iter().fold(bytes.len() as u64, |last, byte| last << 8 | u64::from(*byte));
        self.word(last);
    }

    #[inline]
    fn finish(self) -> u32 {
        (self.0 ^ self.0 >> 29).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_shr(32) as u32
    }
}

impl<'a> Walk<'a> for View<'a> {
    type Items = Elements<'a>;

    fn shape(self) -> Shape<'a, Self> {
        self.known_shape().unwrap_or(Shape::Local(self.encoded()))
    }

    fn known_order(self) -> Option<Vec<(Self, Self)>> {
        let start = *self.tape.orders.get(&self.index)? as usize;
        let keys = self.tape.sorted_keys.get(start..start + self.len())?;
        keys.iter()
            .map(|index| {
                let key = key(self, *index)?;
                Some((key, Self::at(self.tape, self.bytes, self.atoms, key.node.next)?))
            })
            .collect()
    }

    fn compare_maps(self, _: Self, _: Mode) -> Option<Ordering> {
        None
    }
}

impl<'a> View<'a> {
    /// `None` only for a kind that has no shape of its own.
    fn known_shape(self) -> Option<Shape<'a, Self>> {
        Some(match self.kind() {
            Kind::Atom => Shape::Atom(self.as_atom()?),
            Kind::Integer => Shape::Integer(self.as_i64()?),
            Kind::BigInteger => {
                let (negative, magnitude) = self.big()?;
                Shape::BigInteger(negative, magnitude)
            }
            Kind::Float => Shape::Float(self.as_f64()?),
            Kind::Binary => Shape::Bits(self.as_binary()?, 8),
            Kind::BitString => {
                let (bytes, bits) = self.as_bits()?;
                Shape::Bits(bytes, bits)
            }
            Kind::Pid => Shape::Pid(self.pid_ref()?),
            Kind::Port => Shape::Port(self.port_ref()?),
            Kind::Reference => Shape::Reference(self.reference_ref()?),
            Kind::Tuple => Shape::Tuple(self.len(), self.elements()),
            Kind::List => Shape::List(self.elements(), None),
            Kind::ImproperList => Shape::List(self.elements(), self.tail()),
            Kind::Map => Shape::Map(self.len(), self.elements()),
            Kind::Fun => {
                let head = self.fun_head()?;
                let fun = FunRef {
                    module: self.part(0)?.as_atom()?,
                    old_index: self.part(1)?.as_i64()?,
                    old_uniq: self.part(2)?.as_i64()?,
                    free: head.free,
                    index: head.index,
                    uniq: head.uniq,
                    arity: head.arity,
                };
                Shape::Fun(Box::new(fun), self.elements())
            }
            Kind::ExportFun => {
                let (module, function, arity) = self.export_fun()?;
                Shape::ExportFun(module, function, arity)
            }
            Kind::Record => {
                let (exported, mut names) = self.record_head()?;
                let record = RecordRef {
                    module: names.next()?,
                    name: names.next()?,
                    fields: names.collect(),
                    exported,
                };
                Shape::Record(Box::new(record), self.elements())
            }
            Kind::Local => return None,
        })
    }
}

#[cfg(test)]
#[path = "keys/tests.rs"]
mod tests;
