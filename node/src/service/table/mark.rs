use std::hash::{BuildHasher, Hasher, RandomState};

use foundation_proto::etf::Term;

/// A text of a UUID and the two bytes before it; with the pointer to the entry, a slot then has 48 bytes.
const ROOM: usize = 40;
const ATOM: u8 = 1;
const BINARY: u8 = 2;
const INTEGER: u8 = 3;
const TUPLE: u8 = 4;
/// Not a key, but the hash of one.
const HASH: u8 = 5;

/// A key in a few bytes: itself if it is short, otherwise a hash of it.
///
/// Atoms, binaries, integers of 64 bits and tuples of them are written one after the other, each with its kind and length in
/// front, and zeros behind the last. So two short keys have the same mark if they are equal (`=:=`), and only then.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Mark([u8; ROOM]);

impl Mark {
    /// The mark of a key, and the hash that places it.
    pub(super) fn of(key: &Term, hasher: &RandomState) -> (Self, u64) {
        let mut mark = Self([0; ROOM]);
        if let Some(used) = mark.write(key, 0) {
            return (mark, mark.hash_of(used, hasher));
        }
        let hash = hasher.hash_one(key);
        mark.0 = [0; ROOM];
        mark.put(0, &[HASH]);
        mark.put(1, &hash.to_le_bytes());
        (mark, hash)
    }

    /// Whether equal marks are equal keys.
    pub(super) fn is_whole(&self) -> bool {
        let [kind, ..] = self.0;
        kind != HASH
    }

    /// The hash of a mark whose bytes from `used` on are zeros.
    fn hash_of(&self, used: usize, hasher: &RandomState) -> u64 {
        let mut state = hasher.build_hasher();
        state.write(self.0.get(..used.next_multiple_of(8)).unwrap_or(&self.0));
        state.finish()
    }

    /// Writes a key at a place, and says where it ends; `None` if it does not fit. Nothing is nested deeper than there are bytes.
    fn write(&mut self, key: &Term, at: usize) -> Option<usize> {
        match key {
            Term::Binary(bytes) => self.text(at, BINARY, bytes),
            Term::Atom(atom) => self.text(at, ATOM, atom.as_str().as_bytes()),
            Term::Integer(value) => {
                self.put(at, &[INTEGER])?;
                self.put(at + 1, &value.to_le_bytes())
            }
            Term::Tuple(elements) => {
                let mut end = self.put(at, &[TUPLE, u8::try_from(elements.len()).ok()?])?;
                for element in elements.iter() {
                    end = self.write(element, end)?;
                }
                Some(end)
            }
            _ => None,
        }
    }

    fn text(&mut self, at: usize, kind: u8, text: &[u8]) -> Option<usize> {
        let from = self.put(at, &[kind, u8::try_from(text.len()).ok()?])?;
        self.put(from, text)
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> Option<usize> {
        self.0.get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
        Some(at + bytes.len())
    }
}
