//! Large buffers that are used again.

use std::collections::VecDeque;

use bytes::BytesMut;

/// A smaller buffer is not worth keeping: allocators do that themselves.
const SMALLEST: usize = 32 << 10;

/// A larger one is rare, and would keep out all others.
const LARGEST: usize = 2 << 20;

/// How much is kept at most, whether or not it is still in use.
const MOST_BYTES: usize = 4 << 20;

/// How many buffers are kept at most.
const MOST: usize = 16;

/// Buffers of one connection whose bytes may still be in use: each is used again once nobody holds a part of it.
///
/// An allocator gives large buffers back to the system and gets new ones as pages that have to be zeroed, one fault for each
/// 4 KiB. With messages of 64 KiB that cost more than half of what receiving them cost in all.
#[derive(Debug, Default)]
pub struct Buffers {
    kept: VecDeque<Kept>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    /// Empty; a handle of the whole allocation.
    handle: BytesMut,
    /// The size of the allocation.
    size: usize,
}

impl Buffers {
    /// An empty buffer with room for this many bytes: one that was kept and that nobody uses any more, or a new one.
    pub fn take(&mut self, room: usize) -> BytesMut {
        self.reuse(room).unwrap_or_else(|| BytesMut::with_capacity(room))
    }

    /// An empty buffer with room for this many bytes, and for no more than twice as many, if one was kept that nobody uses any
    /// more.
    pub(crate) fn reuse(&mut self, room: usize) -> Option<BytesMut> {
        // What was kept last is most likely still in the processor's cache.
        for at in (0..self.kept.len()).rev() {
            let kept = self.kept.get_mut(at)?;
            if kept.size >= room && kept.size / 2 <= room && kept.handle.try_reclaim(kept.size) {
                let kept = self.kept.remove(at)?;
                self.bytes -= kept.size;
                return Some(kept.handle);
            }
        }
        None
    }

    /// Makes sure that `buffer` has room for this many bytes more, and keeps its old allocation if it has to have another.
    pub fn make_room(&mut self, buffer: &mut BytesMut, size: &mut usize, room: usize) {
        if buffer.try_reclaim(room) {
            return;
        }
        let mut next = self.take(buffer.len() + room);
        next.extend_from_slice(buffer);
        let full = core::mem::replace(buffer, next);
        self.keep(full, core::mem::replace(size, buffer.capacity()));
    }

    /// Keeps the allocation of `size` bytes that `buffer` is a part of. What `buffer` holds is forgotten.
    pub fn keep(&mut self, mut buffer: BytesMut, size: usize) {
        if !(SMALLEST..=LARGEST).contains(&size) {
            return;
        }
        buffer.clear();
        self.kept.push_back(Kept { handle: buffer, size });
        self.bytes += size;
        while self.bytes > MOST_BYTES || self.kept.len() > MOST {
            self.bytes -= self.kept.pop_front().map_or(0, |kept| kept.size);
        }
    }

    /// Keeps nothing any more.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 64 << 10;

    #[test]
    fn a_buffer_comes_back_only_when_nobody_holds_a_part_of_it() {
        let mut buffers = Buffers::default();
        let mut buffer = buffers.take(SIZE);
        let at = buffer.as_ptr();
        buffer.resize(SIZE, 7);
        let held = buffer.split_to(SIZE / 2).freeze();
        buffers.keep(buffer, SIZE);
        let other = buffers.take(SIZE);
        assert_ne!(other.as_ptr(), at, "half of it is held");
        assert_eq!(held[..], [7; SIZE / 2]);
        drop(held);
        let again = buffers.take(SIZE);
        assert_eq!((again.as_ptr(), again.len()), (at, 0));
        assert!(again.capacity() >= SIZE);
    }

    #[test]
    fn what_was_read_of_a_frame_moves_along() {
        let (mut buffers, mut buffer, mut size) = (Buffers::default(), BytesMut::new(), 0);
        buffers.make_room(&mut buffer, &mut size, SIZE);
        assert!(size >= SIZE);
        buffer.resize(size, 1);
        let whole = buffer.split_to(size - 100).freeze();
        buffer.truncate(100);
        buffers.make_room(&mut buffer, &mut size, SIZE);
        assert_eq!((&buffer[..], whole.len()), (&[1; 100][..], size.min(SIZE) - 100));
        assert!(buffer.capacity() >= SIZE + 100);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut buffers = Buffers::default();
        for _ in 0..100 {
            buffers.keep(BytesMut::with_capacity(SIZE), SIZE);
            assert!(buffers.kept.len() <= MOST);
        }
        for _ in 0..10 {
            buffers.keep(BytesMut::with_capacity(LARGEST), LARGEST);
            assert!(buffers.bytes <= MOST_BYTES);
        }
        buffers.keep(BytesMut::with_capacity(LARGEST + 1), LARGEST + 1);
        buffers.keep(BytesMut::new(), 0);
        assert_eq!((buffers.kept.len(), buffers.bytes), (2, MOST_BYTES));
        assert!(buffers.reuse(SIZE).is_none(), "one much larger than asked for is none");
        assert!(buffers.reuse(LARGEST).is_some());
        buffers.clear();
        assert!(buffers.reuse(LARGEST).is_none());
    }
}
