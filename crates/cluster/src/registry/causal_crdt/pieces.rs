//! Cutting an answer into messages.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Dot, Entry};

/// The pieces of an answer have no more numbers than this in all: 100,000 (about 5 MB). Each has one for each replica, so those of an answer
/// that speaks of many replicas are longer.
pub(super) const NUMBERS_OF_PIECES: usize = 100_000;

/// A part of an answer, and the numbers up to which the receiver has seen everything once it has it.
type Piece = (BTreeMap<i64, i64>, Vec<Arc<Entry>>);

/// Takes the entries of an answer to a DeltaCrdt that can go ahead of the rest, in pieces of `size` keys, each with the numbers up to
/// which the receiver has seen everything once it has the piece. It has seen `seen`, and will have seen `numbers` in the end.
///
/// A DeltaCrdt drops an element whose dot it counts as seen, and takes all before one that it replaces for seen. So the dots that are
/// new to it go in their order, replica by replica; an entry with several of them, and what comes after these, go last.
pub(super) fn pieces(
    entries: &mut Vec<Arc<Entry>>,
    numbers: &BTreeMap<i64, i64>,
    seen: &BTreeMap<i64, i64>,
    size: usize,
) -> Vec<Piece> {
    let upto = |of: &BTreeMap<i64, i64>, replica| of.get(&replica).copied().unwrap_or(0);
    let mut limits: BTreeMap<i64, i64> = BTreeMap::new();
    let mut order = Vec::new();
    let mut last = Vec::new();
    for entry in entries.drain(..) {
        let dots = entry.elements().iter().flat_map(|element| &element.dots).copied();
        let new: Vec<Dot> = dots.filter(|dot| dot.number > upto(seen, dot.replica)).collect();
        match *new {
            [] => last.push(entry),
            [dot] if dot.number <= upto(numbers, dot.replica) => order.push((dot, entry)),
            _ => {
                for dot in new {
                    let limit = limits.entry(dot.replica).or_insert(dot.number);
                    *limit = dot.number.min(*limit);
                }
                last.push(entry);
            }
        }
    }
    order.sort_unstable_by_key(|(dot, _)| *dot);
    let in_order = |dot: &Dot| limits.get(&dot.replica).is_none_or(|limit| dot.number < *limit);
    let (order, later): (Vec<_>, Vec<_>) = order.into_iter().partition(|(dot, _)| in_order(dot));
    last.extend(later.into_iter().map(|(_, entry)| entry));
    // Both have seen these: what was replaced or removed is known by them.
    let known = seen.iter().map(|(&replica, &number)| (replica, number.min(upto(numbers, replica))));
    let mut known: BTreeMap<i64, i64> = known.filter(|(_, number)| *number > 0).collect();
    let size = size.max(order.len().saturating_mul(numbers.len()) / NUMBERS_OF_PIECES).max(1);
    let mut pieces = Vec::new();
    let mut order = order.into_iter();
    while order.len() > size {
        let mut piece = Vec::with_capacity(size);
        for (dot, entry) in order.by_ref().take(size) {
            known.insert(dot.replica, dot.number);
            piece.push(entry);
        }
        pieces.push((known.clone(), piece));
    }
    *entries = last;
    entries.extend(order.map(|(_, entry)| entry));
    pieces
}
