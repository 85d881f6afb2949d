//! Duplicate keys of a map, found without quadratic time whatever the peer sends.
//!
//! Keys are compared as terms, not as bytes: one atom has four encodings, one integer five. Each key gets a hash; only
//! keys with equal hashes are compared. A peer can make hashes collide, so that after a bounded number of useless
//! steps the keys are sorted instead. Maps inside keys keep their sorted order on the tape, so that no comparison has
//! to sort them again.

use core::cmp::Ordering;

use super::atom::AtomRef;
use super::order::{Mode, compare};
use super::tag::*;
use super::tape::{Node, Tape};
use super::walk::{Shape, Walk};
use super::{Atom, Kind, View};
use crate::error::Problem;
use crate::{Error, Result};

/// Up to here, which is as large as the BEAM's flat maps get, one bit for each hash does; beyond it there is a table.
const SMALL: usize = 32;

impl Tape {
    /// Refuses a map with two equal keys.
    pub(super) fn check_keys(&mut self, map: u32, bytes: &[u8], atoms: &[Atom]) -> Result<()> {
        self.order_keys(map, bytes, atoms)?;
        let mut table = core::mem::take(&mut self.table);
        let Some(view) = View::at(self, bytes, atoms, map) else { return Ok(()) };
        let unique = are_unique(view, view.len(), &mut table);
        let unique = unique.unwrap_or_else(|| strictly_ascending(view, &sorted_keys(view)));
        self.table = table;
        if unique { Ok(()) } else { Err(self.duplicate(map)) }
    }

    /// Keeps the order of the keys of each map that is inside a key of this one.
    pub(super) fn order_keys(&mut self, map: u32, bytes: &[u8], atoms: &[Atom]) -> Result<()> {
        let Some(view) = View::at(self, bytes, atoms, map) else { return Ok(()) };
        // Nearly always all keys and values are without terms inside.
        if (view.node.next - map) as usize == 1 + 2 * view.len() {
            return Ok(());
        }
        let mut inner = Vec::new();
        let nodes = self.nodes();
        for key in Keys::of(view) {
            let (mut index, end) = (key, nodes.get(key as usize).map_or(key, |key| key.next));
            if end == key + 1 {
                continue;
            }
            while index < end
                && let Some(node) = nodes.get(index as usize)
            {
                index += 1;
                if node.kind == Kind::Map && node.next > index {
                    // With it, everything inside it was put in order.
                    if self.orders.contains_key(&(index - 1)) {
                        index = node.next;
                    } else {
                        inner.push(index - 1);
                    }
                }
            }
        }
        // The innermost first: the order of the others depends on it.
        inner.into_iter().rev().try_for_each(|map| self.keep_order(map, bytes, atoms))
    }

    fn keep_order(&mut self, map: u32, bytes: &[u8], atoms: &[Atom]) -> Result<()> {
        let Some(view) = View::at(self, bytes, atoms, map) else { return Ok(()) };
        let order = sorted_keys(view);
        if !strictly_ascending(view, &order) {
            return Err(self.duplicate(map));
        }
        self.orders.insert(map, self.sorted_keys.len() as u32);
        self.sorted_keys.extend(order);
        Ok(())
    }

    #[cold]
    fn duplicate(&self, map: u32) -> Error {
        let at = self.nodes().get(map as usize).map_or(0, |node| node.at as usize);
        Error::malformed("MAP_EXT", at, Problem::DuplicateKey)
    }
}

/// The keys of a map, as nodes.
struct Keys<'a> {
    map: View<'a>,
    nodes: &'a [Node],
    next: u32,
}

impl<'a> Keys<'a> {
    fn of(map: View<'a>) -> Self {
        Self { map, nodes: map.tape.nodes(), next: map.first() }
    }
}

impl Iterator for Keys<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        let key = self.next;
        if key >= self.map.node.next {
            return None;
        }
        let value = self.nodes.get(key as usize)?.next;
        self.next = self.nodes.get(value as usize)?.next;
        Some(key)
    }
}

/// Whether all keys of the map at node `map` are known to differ because their hashes do: quick, and right for nearly every
/// map without equal keys. Everything inside it is complete and ends before node `end`; `filter` is room for hashes.
#[cold]
#[inline(never)]
pub(super) fn differ(
    nodes: &[Node],
    map: u32,
    end: usize,
    bytes: &[u8],
    atoms: &[Atom],
    filter: &mut Vec<u32>,
) -> bool {
    let (nodes, next) = (nodes.get(..end).unwrap_or_default(), map as usize + 1);
    let mut hashes = Hashes { nodes, next, bytes, atoms, short: true };
    let count = nodes.get(map as usize).and_then(|map| bytes.get(map.at as usize + 1..)?.first_chunk());
    match count.map(|count| u32::from_be_bytes(*count) as usize) {
        Some(count) if count > SMALL => {
            hashes.short = false;
            hashes_differ(&mut hashes, count, filter)
        }
        Some(_) => bits_differ(&mut hashes),
        None => false,
    }
}

/// A key of a map that is being read or written.
#[cfg(feature = "serde")]
#[derive(Clone, Copy)]
pub(super) struct Key {
    /// Where it begins.
    pub(super) at: u32,
    /// As [`short_hash`]; 0 if it is not known.
    pub(super) hash: u32,
}

/// As [`differ`], for these keys.
#[cfg(feature = "serde")]
pub(super) fn differ_at(keys: &[Key], bytes: &[u8], atoms: &[Atom]) -> bool {
    let hash = |key: &Key| if key.hash != 0 { Some(key.hash) } else { hash_at(key.at, bytes, atoms) };
    let mut hashes = keys.iter().map(hash);
    if keys.len() <= SMALL {
        bits_differ(&mut hashes)
    } else {
        hashes_differ(&mut hashes, keys.len(), &mut Vec::new())
    }
}

#[cfg(feature = "serde")]
#[inline(never)]
fn hash_at(at: u32, bytes: &[u8], atoms: &[Atom]) -> Option<u32> {
    usual_hash(bytes.get(at as usize..)?, atoms)
}

/// The hash of an atom in the form SMALL_ATOM_UTF8_EXT, as [`usual_hash`], if its text is in there and ASCII.
#[inline(always)]
pub(super) fn short_atom(start: &[u8; 18]) -> Option<u32> {
    let [_, len, text @ ..] = start;
    let ([first, second], Some((low, high))) = (text.as_chunks::<8>().0, FIRST.get(usize::from(*len))) else {
        return None;
    };
    let (first, second) = (u64::from_le_bytes(*first) & low, u64::from_le_bytes(*second) & high);
    let ascii = (first | second) & 0x8080_8080_8080_8080 == 0;
    ascii.then(|| of_words(first, second, usize::from(*len)))
}

/// Whether all hashes are known and differ in their last ten bits.
#[inline(always)]
fn bits_differ(hashes: &mut impl Iterator<Item = Option<u32>>) -> bool {
    let mut seen = [0u64; 16];
    for hash in hashes {
        let Some(hash) = hash else { return false };
        let bit = 1u64 << (hash % 64);
        let Some(word) = seen.get_mut(hash as usize / 64 % 16) else { return false };
        if *word & bit != 0 {
            return false;
        }
        *word |= bit;
    }
    true
}

/// Whether all of `count` hashes are known and differ.
#[inline]
fn hashes_differ(
    hashes: &mut impl Iterator<Item = Option<u32>>,
    count: usize,
    filter: &mut Vec<u32>,
) -> bool {
    // At most a quarter full, so that most hashes find their place free; 0 marks a free one.
    let slots = (4 * count).next_power_of_two();
    filter.clear();
    filter.resize(slots, 0);
    let mut patience = 2 * count;
    for hash in hashes {
        let Some(hash) = hash else { return false };
        let hash = hash.max(1);
        let mut slot = hash as usize;
        loop {
            match filter.get_mut(slot & (slots - 1)) {
                Some(place @ 0) => {
                    *place = hash;
                    break;
                }
                Some(other) if *other != hash && patience > 0 => patience -= 1,
                _ => return false,
            }
            slot += 1;
        }
    }
    true
}

/// The hashes of the keys of a map, each as [`usual_hash`].
struct Hashes<'a> {
    /// Up to the end of the map.
    nodes: &'a [Node],
    next: usize,
    bytes: &'a [u8],
    atoms: &'a [Atom],
    /// Whether their last 16 bits do.
    short: bool,
}

impl Iterator for Hashes<'_> {
    type Item = Option<u32>;

    #[inline(always)]
    fn next(&mut self) -> Option<Option<u32>> {
        let key = self.nodes.get(self.next)?;
        if self.short && key.hash != 0 {
            // A short atom has one node, so that the next one is known without waiting for this.
            self.next = self.nodes.get(self.next + 1)?.next as usize;
            return Some(Some(key.hash.into()));
        }
        self.next = self.nodes.get(key.next as usize)?.next as usize;
        Some(self.bytes.get(key.at as usize..).and_then(|rest| usual_hash(rest, self.atoms)))
    }
}

/// As [`key_hash`], of the term at the front; `None` if it is not in one of the usual forms of a key.
#[inline(always)]
fn usual_hash(rest: &[u8], atoms: &[Atom]) -> Option<u32> {
    // Nearly every key is a short atom with a value behind it.
    if let Some([SMALL_ATOM_UTF8_EXT, len, text @ ..]) = rest.first_chunk::<18>()
        && let Some(hash) = of_start(text, usize::from(*len))
    {
        return Some(hash);
    }
    match *rest {
        [SMALL_ATOM_UTF8_EXT, len, ref text @ ..] => text.get(..usize::from(len)).map(of_bytes),
        [BINARY_EXT, a, b, c, d, ref text @ ..] => {
            let len = u32::from_be_bytes([a, b, c, d]) as usize;
            let short = text.first_chunk().and_then(|text| of_start(text, len));
            short.or_else(|| text.get(..len).map(of_bytes))
        }
        [ATOM_CACHE_REF, index, ..] => Some(of_bytes(atoms.get(usize::from(index))?.as_bytes())),
        [SMALL_INTEGER_EXT, byte, ..] => Some(of_word(u64::from(byte))),
        [INTEGER_EXT, a, b, c, d, ..] => Some(of_word(i64::from(i32::from_be_bytes([a, b, c, d])) as u64)),
        _ => None,
    }
}

/// `None` if the hashes collide too often to tell in linear time.
fn are_unique(map: View<'_>, count: usize, table: &mut Vec<(u32, u32)>) -> Option<bool> {
    // At most half full; node 0 is never a key, so it marks a free slot.
    let slots = (2 * count).next_power_of_two();
    table.clear();
    table.resize(slots, (0, 0));
    let mut patience = 4 * count + 64;
    let keys = Keys::of(map);
    let nodes = keys.nodes;
    for key in keys {
        let hash = key_hash(map, nodes, key);
        let mut slot = hash as usize & (slots - 1);
        loop {
            let entry = table.get_mut(slot)?;
            if entry.1 == 0 {
                *entry = (hash, key);
                break;
            }
            if entry.0 == hash {
                if compare_keys(map, entry.1, key).is_eq() {
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

fn compare_keys(map: View<'_>, a: u32, b: u32) -> Ordering {
    match (map.sibling(a), map.sibling(b)) {
        (Some(a), Some(b)) => compare(a, b, Mode::Exact),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

fn sorted_keys(map: View<'_>) -> Vec<u32> {
    let mut keys: Vec<u32> = Keys::of(map).collect();
    keys.sort_by(|a, b| compare_keys(map, *a, *b));
    keys
}

fn strictly_ascending(map: View<'_>, keys: &[u32]) -> bool {
    keys.windows(2).all(|two| matches!(two, [a, b] if compare_keys(map, *a, *b).is_lt()))
}

/// A hash that is the same for all encodings of a term.
#[inline(always)]
fn key_hash(map: View<'_>, nodes: &[Node], key: u32) -> u32 {
    let Some(node) = nodes.get(key as usize) else { return 0 };
    let rest = map.bytes.get(node.at as usize..).unwrap_or_default();
    let text = |head: usize| rest.get(head..node.size as usize).unwrap_or_default();
    match rest {
        [SMALL_ATOM_UTF8_EXT, ..] => of_bytes(text(2)),
        [BINARY_EXT, ..] => of_bytes(text(5)),
        [SMALL_INTEGER_EXT, byte, ..] => of_word(u64::from(*byte)),
        _ => any_key_hash(map, key),
    }
}

/// As [`key_hash`], for keys of any kind and form.
#[inline(never)]
fn any_key_hash(map: View<'_>, key: u32) -> u32 {
    let Some(key) = map.sibling(key) else { return 0 };
    match key.kind() {
        Kind::Tuple | Kind::List | Kind::ImproperList | Kind::Map | Kind::Fun | Kind::Record => {
            let mut hash = 0;
            let mut index = key.index as u32;
            while index < key.node.next
                && let Some(part) = key.sibling(index)
            {
                index += 1;
                match part.kind() {
                    // The same list can be one node or several.
                    Kind::List | Kind::ImproperList => {
                        let bytes = part.as_byte_list().unwrap_or_default();
                        hash = bytes.iter().fold(hash, |hash, byte| combine(hash, of_word(u64::from(*byte))));
                    }
                    // Pairs come in any order.
                    Kind::Map => {
                        hash = combine(hash, part.len() as u32);
                        index = part.node.next;
                    }
                    Kind::Tuple => hash = combine(hash, part.len() as u32),
                    _ => hash = combine(hash, leaf_hash(part)),
                }
            }
            hash
        }
        _ => leaf_hash(key),
    }
}

fn leaf_hash(leaf: View<'_>) -> u32 {
    match leaf.shape() {
        Shape::Atom(atom) => of_bytes(AtomRef::utf8_bytes(atom, &mut String::new())),
        Shape::Integer(value) => of_word(value as u64),
        Shape::BigInteger(_, magnitude) => of_bytes(magnitude),
        Shape::Float(value) => of_word(value.to_bits()),
        Shape::Bits(bytes, 8) => of_bytes(bytes),
        // Unused bits of the last byte may hold anything.
        Shape::Bits(bytes, _) => of_bytes(bytes.split_last().map_or(&[], |(_, whole)| whole)),
        Shape::Pid(pid) => of_word(u64::from(pid.serial) << 32 | u64::from(pid.id)),
        Shape::Port(port) => of_word(port.id),
        Shape::Reference(reference) => {
            reference.words.iter().fold(0, |hash, word| combine(hash, of_word(u64::from(*word))))
        }
        _ => 0,
    }
}

/// 2^64 divided by the golden ratio: multiplying by it spreads all bits of a word over the upper ones.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

#[inline]
fn of_word(word: u64) -> u32 {
    (word.wrapping_mul(SPREAD) >> 32) as u32
}

#[inline]
fn combine(hash: u32, next: u32) -> u32 {
    of_word(u64::from(hash) << 32 | u64::from(next))
}

/// [`of_bytes`] of the first `len` of these bytes, if there are as many.
#[inline(always)]
fn of_start(text: &[u8; 16], len: usize) -> Option<u32> {
    let ([first, second], Some((low, high))) = (text.as_chunks::<8>().0, FIRST.get(len)) else { return None };
    Some(of_words(u64::from_le_bytes(*first) & low, u64::from_le_bytes(*second) & high, len))
}

/// The first so many of 16 bytes, as two words.
static FIRST: [(u64, u64); 17] = {
    let mut masks = [(u64::MAX, u64::MAX); 17];
    let mut len = 0;
    while len < 16 {
        let mask = (1u128 << (8 * len)) - 1;
        masks[len] = (mask as u64, (mask >> 64) as u64);
        len += 1;
    }
    masks
};

/// The hash of up to 16 bytes, as two words that are filled up with zeros.
#[inline(always)]
fn of_words(first: u64, second: u64, len: usize) -> u32 {
    of_word(first.wrapping_mul(SPREAD).rotate_left(23) ^ second ^ len as u64)
}

/// A text of at most 16 bytes as two words that are filled up with zeros.
#[cfg(feature = "serde")]
#[inline(always)]
pub(super) fn short_words(text: &[u8]) -> Option<(u64, u64)> {
    let long = |word: &[u8; 8]| u64::from_le_bytes(*word);
    let word = |word: &[u8; 4]| u64::from(u32::from_le_bytes(*word));
    let byte = |at: usize| text.get(at).map_or(0, |byte| u64::from(*byte) << (8 * at));
    match text.len() {
        // The words of a text overlap unless it has all of their bytes.
        len @ 8..=16 => {
            let second = long(text.last_chunk()?).checked_shr(8 * (16 - len) as u32);
            Some((long(text.first_chunk()?), second.unwrap_or_default()))
        }
        len @ 4..=7 => Some((word(text.first_chunk()?) | word(text.last_chunk()?) << (8 * (len - 4)), 0)),
        0..=3 => Some((byte(0) | byte(1) | byte(2), 0)),
        _ => None,
    }
}

/// The hash of a text of at most 16 bytes, as [`usual_hash`] has it for an atom or binary.
#[cfg(feature = "serde")]
#[inline(always)]
pub(super) fn short_hash((first, second): (u64, u64), len: usize) -> u32 {
    of_words(first, second, len)
}

#[inline(never)]
fn of_bytes(bytes: &[u8]) -> u32 {
    let word = |eight: &[u8; 8]| u64::from_le_bytes(*eight);
    match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(first), Some(last)) if bytes.len() <= 16 => {
            // The last eight, without those of the first word.
            let second = word(last).checked_shr(8 * (16 - bytes.len()) as u32);
            of_words(word(first), second.unwrap_or_default(), bytes.len())
        }
        (Some(_), Some(last)) => {
            let hash = bytes.as_chunks::<8>().0.iter().fold(bytes.len() as u64, |hash, eight| {
                (hash ^ word(eight)).wrapping_mul(SPREAD).rotate_left(29)
            });
            let hash = (hash ^ word(last)).wrapping_mul(SPREAD);
            of_word(hash ^ hash >> 32)
        }
        _ => {
            let word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            of_words(word, 0, bytes.len())
        }
    }
}

#[cfg(test)]
#[path = "keys/tests.rs"]
mod tests;
