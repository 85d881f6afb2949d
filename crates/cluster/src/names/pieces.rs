//! How a host keeps a key that very many processes have, so that a change to one of them does not write all of them again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::entry::Entry;
use crate::Key;

/// A key with more entries than this is kept in pieces.
const WHOLE: usize = 32;
/// How many entries a new piece has. One that comes to have more than twice as many is divided.
const PIECE: usize = 16;
/// Pieces that have become smaller than this on average are made anew.
const SPARSE: usize = 4;

/// The pieces of all keys that are kept so. A piece is never changed: another takes its place, under a number of its own, so that who reads
/// a key finds all the pieces of one moment, or sees that one is gone.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    keys: BTreeMap<Arc<Key>, Vec<Piece>>,
    last: u64,
}

/// The entries from `from` up to the next piece, in the order of their right to the key; the first piece has what is before, too.
#[derive(Debug)]
struct Piece {
    number: u64,
    from: Arc<Entry>,
}

/// What has become of pieces.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) new: Vec<(u64, Vec<Arc<Entry>>)>,
    pub(super) gone: Vec<u64>,
}

impl Pieces {
    /// Takes in that of a key's entries, which are `all` now, `touched` have come or gone. The numbers of its pieces; `None` if it is kept as a whole.
    pub(super) fn update(
        &mut self,
        key: &Arc<Key>,
        all: &[Arc<Entry>],
        touched: &[Arc<Entry>],
        written: &mut Written,
    ) -> Option<Vec<u64>> {
        if all.len() <= WHOLE {
            let before = self.keys.remove(key).unwrap_or_default();
            written.gone.extend(before.iter().map(|piece| piece.number));
            return None;
        }
        let pieces = self.keys.entry(Arc::clone(key)).or_default();
        if pieces.len() * SPARSE > all.len() {
            written.gone.extend(pieces.drain(..).map(|piece| piece.number));
        }
        let holder = |entry: &Arc<Entry>| {
            pieces.partition_point(|piece| piece.from.precedence(entry).is_le()).saturating_sub(1)
        };
        let stale: BTreeSet<usize> =
            if pieces.is_empty() { [0].into() } else { touched.iter().map(holder).collect() };
        // From the last on, so that the places of the others stay.
        for at in stale.into_iter().rev() {
            let before = |bound: &Piece| all.partition_point(|entry| entry.precedence(&bound.from).is_lt());
            let start = pieces.get(at).filter(|_| at > 0).map_or(0, before);
            let end = pieces.get(at + 1).map_or(all.len(), before);
            let part = all.get(start..end).unwrap_or_default();
            let size = if part.len() > 2 * PIECE { PIECE } else { part.len().max(1) };
            let mut made = Vec::new();
            for entries in part.chunks(size) {
                let Some(from) = entries.first() else { continue };
                self.last += 1;
                made.push(Piece { number: self.last, from: Arc::clone(from) });
                written.new.push((self.last, entries.to_vec()));
            }
            let place = at..(at + 1).min(pieces.len());
            written.gone.extend(pieces.splice(place, made).map(|piece| piece.number));
        }
        Some(pieces.iter().map(|piece| piece.number).collect())
    }
}

#[cfg(test)]
mod tests {
    use foundation_proto::etf::{Atom, Pid, Term};

    use super::*;
    use crate::sim::Random;

    fn entry(key: &Arc<Key>, random: &mut Random, process: u32) -> Arc<Entry> {
        let node = Atom::new_static(["a@h", "b@h"][random.below(2)]);
        let pid = Pid { node: node.clone(), id: process, serial: 0, creation: 1 };
        let claim = random.below(50) as i64;
        Arc::new(Entry { key: Arc::clone(key), pid, value: Term::Integer(0), node, claim, version: 1 })
    }

    /// As a host keeps them: what is written, and what is read back.
    #[derive(Default)]
    struct Table(BTreeMap<u64, Vec<Arc<Entry>>>);

    impl Table {
        fn take(&mut self, written: Written) {
            for (number, entries) in written.new {
                assert!(self.0.insert(number, entries).is_none());
            }
            for number in written.gone {
                assert!(self.0.remove(&number).is_some());
            }
        }

        fn read(&self, numbers: &[u64]) -> Vec<Arc<Entry>> {
            numbers.iter().flat_map(|number| self.0[number].clone()).collect()
        }
    }

    #[test]
    fn pieces_are_all_there_is_in_order_and_only_those_that_change_are_written() {
        for seed in 0..40 {
            let mut random = Random::new(seed);
            let key = Arc::new(Key(Term::Integer(1)));
            let (mut pieces, mut table) = (Pieces::default(), Table::default());
            let mut all: Vec<Arc<Entry>> = Vec::new();
            for step in 0..600 {
                // It grows, then shrinks to nothing; at times very many change at once.
                let many = if random.below(40) == 0 { 200 } else { 4 };
                let (come, gone) = if step < 400 { (many, many / 2) } else { (many / 4, many) };
                let mut touched = Vec::new();
                for _ in 0..random.below(gone + 1).min(all.len()) {
                    touched.push(all.swap_remove(random.below(all.len())));
                }
                for n in 0..random.below(come + 1) {
                    let new = entry(&key, &mut random, step * 1000 + n as u32);
                    touched.push(Arc::clone(&new));
                    all.push(new);
                }
                all.sort_by(|a, b| a.precedence(b));
                let mut written = Written::default();
                let numbers = pieces.update(&key, &all, &touched, &mut written);
                let wrote: usize = written.new.iter().map(|(_, entries)| entries.len()).sum();
                let anew = wrote == all.len();
                assert!(anew || wrote <= touched.len() * 2 * PIECE + 2 * PIECE, "{wrote} of {}", all.len());
                table.take(written);
                match numbers {
                    None => assert!(all.len() <= WHOLE && table.0.is_empty() && pieces.keys.is_empty()),
                    Some(numbers) => {
                        let read = table.read(&numbers);
                        let same = read.iter().zip(&all).all(|(a, b)| Arc::ptr_eq(a, b));
                        assert!(read.len() == all.len() && same);
                        assert!(
                            numbers.len() == table.0.len() && numbers.len() * SPARSE <= all.len() + PIECE
                        );
                    }
                }
            }
        }
    }
}
