use std::hash::{BuildHasher, Hasher, RandomState};

use foundation_proto::etf::Term;

/// A text of a UUID and the two bytes before it, in whole words.
const ROOM: usize = 40;
const ATOM: u8 = 1;
const BINARY: u8 = 2;
const INTEGER: u8 = 3;
const TUPLE: u8 = 4;
/// Not a key, but the hash of one.
const HASH: u8 = 5;
/// What the tag of a key is the hash of, besides the key.
const TAG: u8 = 6;

/// A key in a few bytes: itself if it is short, otherwise a hash of it.
///
/// Atoms, binaries, integers of 64 bits and tuples of them are written one after the other, each with its kind and length in
/// front, and zeros behind the last. So two short keys have the same mark if they are equal (`=:=`), and only then.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Mark([u8; ROOM]);

/// What a table knows a key by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) mark: Mark,
    /// What places it.
    pub(super) hash: u64,
    /// Another hash, by which keys of one place are told apart; never 0. Nothing can be said of one from the other, for both are
    /// of SipHash and of different inputs.
    pub(super) tag: u64,
}

impl Known {
    pub(super) fn of(key: &Term, hasher: &RandomState) -> Self {
        let mut mark = Mark([0; ROOM]);
        let (hash, tag) = match mark.write(key, 0) {
            Some(used) => mark.hashes(used, hasher),
            None => {
                let hash = hasher.hash_one(key);
                mark.0 = [0; ROOM];
                mark.put(0, &[HASH]);
                mark.put(1, &hash.to_le_bytes());
                (hash, hasher.hash_one((TAG, key)))
            }
        };
        Self { mark, hash, tag: tag.max(1) }
    }
}

impl Mark {
    /// Whether equal marks are equal keys.
    pub(super) fn is_whole(&self) -> bool {
        let [kind, ..] = self.0;
        kind != HASH
    }

    /// The hashes of a mark whose bytes from `used` on are zeros.
    fn hashes(&self, used: usize, hasher: &RandomState) -> (u64, u64) {
        let mut state = hasher.build_hasher();
        state.write(self.0.get(..used.next_multiple_of(8)).unwrap_or(&self.0));
        let hash = state.finish();
        // What was written is hashed already; this goes on from there.
        state.write_u8(TAG);
        (hash, state.finish())
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
