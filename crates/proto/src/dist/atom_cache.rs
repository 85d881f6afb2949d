//! The atom cache: 2,048 numbered slots per connection and direction.
//!
//! Source: erts "External Term Format", section "Distribution Header"; `erts/emulator/beam/external.c`.

use std::sync::Arc;

use crate::error::PeerMisbehaved;
use crate::etf::Atom;
use crate::{Error, Result};

/// How many slots there are: 8 segments of 256.
pub(crate) const SLOTS: usize = 2048;

/// Atoms by slot. Takes memory only for slots that are in use: 4 KiB for the index from the first atom on, 24 bytes an atom.
#[derive(Debug, Default)]
struct Slots {
    /// For each slot 0, or 1 + the position in `atoms`. Empty before the first atom.
    positions: Vec<u16>,
    atoms: Vec<Atom>,
}

impl Slots {
    #[inline]
    fn get(&self, slot: u16) -> Option<&Atom> {
        let position = *self.positions.get(usize::from(slot))?;
        self.atoms.get(usize::from(position.checked_sub(1)?))
    }

    /// Puts `atom` there and says whether that replaced another one.
    fn set(&mut self, slot: u16, atom: Atom) -> bool {
        if self.positions.is_empty() {
            self.positions = vec![0; SLOTS];
        }
        let Some(position) = self.positions.get_mut(usize::from(slot)) else { return false };
        if let Some(old) = position.checked_sub(1).and_then(|at| self.atoms.get_mut(usize::from(at))) {
            let changed = *old != atom;
            if changed {
                *old = atom;
            }
            return changed;
        }
        self.atoms.push(atom);
        // At most one atom a slot, so this is at most 2,048.
        *position = self.atoms.len() as u16;
        false
    }
}

/// What the peer has put into its slots.
#[derive(Debug, Default)]
pub(crate) struct ReceiveCache {
    slots: Slots,
    /// The lists that recent headers without new entries stood for, so that a steady stream of messages shares them.
    recent: [Option<Recent>; Self::RECENT],
    next: usize,
}

/// A header without new entries, as bytes, and the atoms it stands for.
#[derive(Debug)]
struct Recent {
    len: u8,
    key: [u8; Self::KEY],
    atoms: Arc<[Atom]>,
}

impl Recent {
    /// The longest header worth remembering: 16 references.
    const KEY: usize = 25;
}

impl ReceiveCache {
    /// One per kind of message that takes turns on a connection; more is not found faster than resolved.
    const RECENT: usize = 4;

    /// The list that the same flags and indices stood for recently.
    #[inline]
    pub(crate) fn recall(&self, key: &[u8]) -> Option<&Arc<[Atom]>> {
        self.recent
            .iter()
            .flatten()
            .find(|recent| recent.key.get(..usize::from(recent.len)) == Some(key))
            .map(|recent| &recent.atoms)
    }

    /// Remembers what a header without new entries stands for.
    pub(crate) fn remember(&mut self, key: &[u8], atoms: &Arc<[Atom]>) {
        let mut copy = [0; Recent::KEY];
        let Some(room) = copy.get_mut(..key.len()) else { return };
        room.copy_from_slice(key);
        if let Some(oldest) = self.recent.get_mut(self.next) {
            *oldest = Some(Recent { len: key.len() as u8, key: copy, atoms: atoms.clone() });
        }
        self.next = (self.next + 1) % Self::RECENT;
    }

    /// What is in the slot.
    ///
    /// # Errors
    /// If the peer never put anything there.
    pub(crate) fn get(&self, slot: u16) -> Result<&Atom> {
        self.slots.get(slot).ok_or(Error::PeerMisbehaved(PeerMisbehaved::EmptyCacheSlot(slot)))
    }

    /// Puts an atom into a slot, over whatever is there.
    pub(crate) fn set(&mut self, slot: u16, atom: Atom) {
        if self.slots.set(slot, atom) {
            self.recent = Default::default();
        }
    }
}

/// What this side has put into the peer's slots.
///
/// The slot of an atom follows from its text, so a lookup is one comparison. Two atoms with the same slot replace each other.
#[derive(Debug, Default)]
pub(crate) struct SendCache {
    slots: Slots,
}

impl SendCache {
    /// The slot that is for this atom.
    #[inline]
    pub(crate) fn slot_of(atom: &Atom) -> u16 {
        // Any function would do. Multiplicative hashing, eight bytes at a time; the top bits are the best mixed.
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let text = atom.as_bytes();
        let mut hash = text.len() as u64;
        let mut mix = |word: u64| hash = (hash.rotate_left(23) ^ word).wrapping_mul(FACTOR);
        match text.last_chunk::<8>() {
            Some(last) => {
                // The last word overlaps the one before it, so that no bytes are left over.
                let (words, rest) = text.as_chunks::<8>();
                let whole = if rest.is_empty() { words.len() - 1 } else { words.len() };
                words.iter().take(whole).for_each(|word| mix(u64::from_le_bytes(*word)));
                mix(u64::from_le_bytes(*last));
            }
            None => mix(text.iter().fold(0, |word, byte| word << 8 | u64::from(*byte))),
        }
        (hash >> 53) as u16
    }

    /// What is in the slot.
    #[inline]
    pub(crate) fn get(&self, slot: u16) -> Option<&Atom> {
        self.slots.get(slot)
    }

    /// Puts the atom into its slot. The next header has to say so.
    pub(crate) fn set(&mut self, slot: u16, atom: &Atom) {
        self.slots.set(slot, atom.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_slot_is_the_peers_mistake() {
        let mut cache = ReceiveCache::default();
        let empty = |slot| Error::PeerMisbehaved(PeerMisbehaved::EmptyCacheSlot(slot));
        assert_eq!(cache.get(7).unwrap_err(), empty(7));
        cache.set(7, Atom::new_static("seven"));
        assert_eq!(cache.get(7).unwrap(), "seven");
        assert_eq!(cache.get(8).unwrap_err(), empty(8));
        assert_eq!(cache.get(2048).unwrap_err(), empty(2048));
    }

    #[test]
    fn an_overwritten_slot_forgets_the_lists_that_named_it() {
        let mut cache = ReceiveCache::default();
        cache.set(1, Atom::new_static("a"));
        let list: Arc<[Atom]> = [Atom::new_static("a")].into();
        cache.remember(b"key", &list);
        cache.set(1, Atom::new_static("a"));
        cache.set(2, Atom::new_static("b"));
        assert!(Arc::ptr_eq(cache.recall(b"key").unwrap(), &list));
        assert!(cache.recall(b"ke").is_none());
        cache.set(1, Atom::new_static("c"));
        assert!(cache.recall(b"key").is_none());
    }

    #[test]
    fn slots_are_in_range_and_spread() {
        let mut used = std::collections::BTreeSet::new();
        for n in 0..1000 {
            let slot = SendCache::slot_of(&Atom::new(&format!("atom_{n}")).unwrap());
            assert!(usize::from(slot) < SLOTS);
            used.insert(slot);
        }
        assert!(used.len() > 700, "1,000 atoms share {} slots", used.len());
    }
}
