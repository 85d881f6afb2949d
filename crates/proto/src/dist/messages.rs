use std::sync::Arc;

use bytes::Bytes;

use crate::etf::{Atom, RawTerm};

/// Ordinary messages that arrived side by side for one process: checked, but still together in the buffer that they were read
/// into. As an iterator it takes them apart in the order of arrival.
///
/// Until then a message is eight bytes, and shares one reference to the buffer with the others.
#[derive(Debug, Default)]
pub struct Messages {
    /// The frames of which the messages are parts.
    frames: Bytes,
    /// What the references into the atom cache in them stand for.
    atoms: Option<Arc<[Atom]>>,
    places: Vec<Place>,
    /// How many were taken.
    taken: usize,
    /// Bytes of those that are left.
    bytes: usize,
}

/// Where a message is in the frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    start: u32,
    /// Twice its length, and one more if it refers to the atoms.
    size: u32,
}

impl Place {
    /// `None` for what is too long, or too far behind.
    #[inline]
    pub(super) fn new(start: usize, len: usize, refers: bool) -> Option<Self> {
        let size = u32::try_from(len).ok()?.checked_mul(2)? | u32::from(refers);
        Some(Self { start: u32::try_from(start).ok()?, size })
    }

    #[inline]
    fn start(self) -> usize {
        self.start as usize
    }

    #[inline]
    fn len(self) -> usize {
        (self.size / 2) as usize
    }

    #[inline]
    fn refers(self) -> bool {
        self.size % 2 == 1
    }
}

impl Messages {
    /// At these places are terms that were checked.
    pub(super) fn new(frames: Bytes, atoms: Arc<[Atom]>, places: Vec<Place>) -> Self {
        let bytes = places.iter().map(|place| place.len()).sum();
        Self { frames, atoms: Some(atoms), places, taken: 0, bytes }
    }

    /// How many are left.
    #[inline]
    pub fn len(&self) -> usize {
        self.places.len() - self.taken
    }

    /// Whether none is left.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the encoded terms that are left.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes of each one that is left.
    pub fn sizes(&self) -> impl Iterator<Item = usize> {
        self.places.iter().skip(self.taken).map(|place| place.len())
    }

    /// Drops what is behind the first `count` that are left.
    pub fn truncate(&mut self, count: usize) {
        self.bytes = self.sizes().take(count).sum();
        self.places.truncate(self.taken.saturating_add(count));
    }
}

impl Iterator for Messages {
    type Item = RawTerm;

    #[inline]
    fn next(&mut self) -> Option<RawTerm> {
        let place = *self.places.get(self.taken)?;
        self.taken += 1;
        self.bytes -= place.len();
        let end = (place.start() + place.len()).min(self.frames.len());
        let bytes = self.frames.slice(place.start().min(end)..end);
        let atoms = if place.refers() { self.atoms.clone() } else { None };
        Some(RawTerm::checked_in(bytes, atoms))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

/// Copies the messages side by side, in the order of the iterator. References into an atom cache are written out.
impl FromIterator<RawTerm> for Messages {
    fn from_iter<I: IntoIterator<Item = RawTerm>>(terms: I) -> Self {
        let (mut frames, mut places) = (Vec::new(), Vec::new());
        for term in terms {
            let term = term.to_plain();
            // Messages beyond 2 GiB are not put together.
            let Some(place) = Place::new(frames.len(), term.as_bytes().len(), false) else { break };
            frames.extend_from_slice(term.as_bytes());
            places.push(place);
        }
        Self::new(frames.into(), Arc::new([]), places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::Term;

    fn terms(numbers: core::ops::Range<i64>) -> Vec<RawTerm> {
        numbers.map(|n| RawTerm::from_term(&Term::from((Term::Integer(n * 100), "x"))).unwrap()).collect()
    }

    #[test]
    fn they_come_out_as_they_went_in() {
        let all = terms(0..20);
        let sum = |terms: &[RawTerm]| terms.iter().map(|term| term.as_bytes().len()).sum::<usize>();
        let mut messages: Messages = all.iter().cloned().collect();
        for (n, term) in all.iter().enumerate() {
            assert_eq!((messages.len(), messages.bytes()), (20 - n, sum(&all[n..])));
            assert_eq!(messages.sizes().sum::<usize>(), messages.bytes());
            assert_eq!(messages.next().as_ref(), Some(term));
        }
        assert!(messages.is_empty() && messages.next().is_none());
    }

    #[test]
    fn what_is_cut_off_is_not_counted() {
        let all = terms(0..10);
        let mut messages: Messages = all.iter().cloned().collect();
        assert_eq!(messages.next().as_ref(), all.first());
        messages.truncate(usize::MAX);
        assert_eq!(messages.len(), 9);
        messages.truncate(3);
        assert_eq!(messages.bytes(), messages.sizes().sum::<usize>());
        assert_eq!(messages.collect::<Vec<_>>(), all[1..4]);
    }

    #[test]
    fn a_place_is_not_cut_short() {
        assert!(Place::new(0, 1 << 31, false).is_none());
        assert!(Place::new(1 << 32, 0, false).is_none());
        let place = Place::new(7, (1 << 31) - 1, true).unwrap();
        assert_eq!((place.start(), place.len(), place.refers()), (7, (1 << 31) - 1, true));
    }
}
