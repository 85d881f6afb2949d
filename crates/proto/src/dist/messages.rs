use std::sync::Arc;

use bytes::{Buf, Bytes};

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
    places: Places,
    /// How many were taken.
    taken: usize,
    /// Bytes of those that are left.
    bytes: usize,
}

/// Where a message is in the frames.
#[derive(Clone, Copy, Debug, Default)]
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

/// The places of messages. One alone, as of a sender that writes each message by itself, takes no memory of its own.
#[derive(Debug, Default)]
pub(super) struct Places {
    first: Place,
    more: Vec<Place>,
    len: usize,
}

impl Places {
    /// Makes room for so many.
    pub(super) fn reserve(&mut self, count: usize) {
        self.more.reserve(count.saturating_sub(1));
    }

    #[inline]
    pub(super) fn push(&mut self, place: Place) {
        if self.len == 0 {
            self.first = place;
        } else {
            self.more.push(place);
        }
        self.len += 1;
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    fn get(&self, at: usize) -> Option<Place> {
        if at >= self.len {
            return None;
        }
        at.checked_sub(1).map_or(Some(self.first), |at| self.more.get(at).copied())
    }

    fn iter(&self) -> impl Iterator<Item = Place> {
        let first = (self.len > 0).then_some(self.first);
        first.into_iter().chain(self.more.iter().copied())
    }

    fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.more.truncate(self.len.saturating_sub(1));
    }
}

impl Messages {
    /// Copies messages side by side, in this order. References into an atom cache are written out. `None` if they are too long together:
    /// 2 GiB and more.
    pub fn copied(terms: impl IntoIterator<Item = RawTerm>) -> Option<Self> {
        let (mut frames, mut places) = (Vec::new(), Places::default());
        for term in terms {
            let term = term.to_plain();
            places.push(Place::new(frames.len(), term.as_bytes().len(), false)?);
            frames.extend_from_slice(term.as_bytes());
        }
        Some(Self::new(frames.into(), Arc::new([]), places))
    }

    /// At these places are terms that were checked.
    pub(super) fn new(frames: Bytes, atoms: Arc<[Atom]>, places: Places) -> Self {
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

    /// The message if one is left, which then takes the reference to the buffer along.
    ///
    /// # Errors
    /// All of them, if it is another number.
    pub fn into_only(self) -> Result<RawTerm, Self> {
        let Some(place) = self.places.get(self.taken).filter(|_| self.len() == 1) else { return Err(self) };
        let mut bytes = self.frames;
        bytes.truncate(place.start() + place.len());
        bytes.advance(place.start().min(bytes.len()));
        Ok(RawTerm::checked_in(bytes, self.atoms.filter(|_| place.refers())))
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
        let place = self.places.get(self.taken)?;
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
        let mut messages = Messages::copied(all.clone()).unwrap();
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
        let mut messages = Messages::copied(all.clone()).unwrap();
        assert_eq!(messages.next().as_ref(), all.first());
        messages.truncate(usize::MAX);
        assert_eq!(messages.len(), 9);
        messages.truncate(3);
        assert_eq!(messages.bytes(), messages.sizes().sum::<usize>());
        let mut messages = messages.into_only().unwrap_err();
        assert_eq!(messages.by_ref().take(2).collect::<Vec<_>>(), all[1..3]);
        assert_eq!(messages.into_only().as_ref().ok(), all.get(3));
        assert!(Messages::default().into_only().is_err());
        let one = Messages::copied(all[..1].to_vec()).unwrap();
        assert_eq!(one.into_only().as_ref().ok(), all.first());
        let mut none = Messages::copied(all).unwrap();
        none.truncate(0);
        assert!(none.is_empty() && none.bytes() == 0 && none.next().is_none());
    }

    #[test]
    fn a_place_is_not_cut_short() {
        assert!(Place::new(0, 1 << 31, false).is_none());
        assert!(Place::new(1 << 32, 0, false).is_none());
        let place = Place::new(7, (1 << 31) - 1, true).unwrap();
        assert_eq!((place.start(), place.len(), place.refers()), (7, (1 << 31) - 1, true));
    }
}
