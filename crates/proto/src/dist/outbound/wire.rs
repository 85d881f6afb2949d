use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

/// An encoded chunk is closed at this size, so that growing one copies little and written ones are freed piece by piece.
const CHUNK: usize = 64 << 10;

/// How many written chunks are kept for the next ones.
const SPARE: usize = 2;

/// Bytes whose place on the wire is settled: a queue of chunks, of which the last may grow.
#[derive(Debug, Default)]
pub(super) struct Wire {
    chunks: VecDeque<Chunk>,
    /// How much of the first chunk is written.
    written: usize,
    len: usize,
    spare: Vec<Vec<u8>>,
}

#[derive(Debug)]
enum Chunk {
    Encoded(Vec<u8>),
    Shared(Bytes),
}

impl Chunk {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Encoded(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl Wire {
    /// The bytes that wait to be written.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Appends what `encode` puts at the end of the buffer it is given.
    #[inline]
    pub(super) fn append(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        if !matches!(self.chunks.back(), Some(Chunk::Encoded(bytes)) if bytes.len() < CHUNK) {
            self.chunks.push_back(Chunk::Encoded(self.spare.pop().unwrap_or_default()));
        }
        if let Some(Chunk::Encoded(bytes)) = self.chunks.back_mut() {
            let before = bytes.len();
            encode(bytes);
            self.len += bytes.len() - before;
        }
    }

    /// Appends bytes without copying them.
    pub(super) fn share(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.len += bytes.len();
            self.chunks.push_back(Chunk::Shared(bytes));
        }
    }

    /// Lends what is to be written next; returns how many slices were filled.
    pub(super) fn fill<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let mut written = self.written;
        let mut filled = 0;
        for chunk in &self.chunks {
            let rest = chunk.as_slice().get(core::mem::take(&mut written)..).unwrap_or_default();
            if rest.is_empty() {
                continue;
            }
            let Some(slice) = out.get_mut(filled) else { break };
            *slice = IoSlice::new(rest);
            filled += 1;
        }
        filled
    }

    /// Forgets the first `n` bytes: they are written.
    pub(super) fn advance(&mut self, n: usize) {
        let n = n.min(self.len);
        self.len -= n;
        self.written += n;
        while let Some(first) = self.chunks.front() {
            let size = first.as_slice().len();
            if self.written < size {
                break;
            }
            self.written -= size;
            if let Some(Chunk::Encoded(mut bytes)) = self.chunks.pop_front()
                && self.spare.len() < SPARE
                && bytes.capacity() <= 2 * CHUNK
            {
                bytes.clear();
                self.spare.push(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(wire: &Wire) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 16];
        let filled = wire.fill(&mut slices);
        slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect::<Vec<u8>>()
    }

    #[test]
    fn bytes_leave_in_order_whatever_part_is_written() {
        for step in 1..9 {
            let mut wire = Wire::default();
            wire.append(|out| out.extend_from_slice(b"ab"));
            wire.append(|out| out.extend_from_slice(b"cd"));
            wire.share(Bytes::from_static(b"EFG"));
            wire.append(|out| out.extend_from_slice(b"h"));
            wire.share(Bytes::new());
            let mut seen = Vec::new();
            while wire.len() > 0 {
                let next = contents(&wire);
                assert_eq!(next.len(), wire.len());
                let n = step.min(next.len());
                seen.extend_from_slice(&next[..n]);
                wire.advance(n);
            }
            assert_eq!(seen, b"abcdEFGh", "{step} bytes at a time");
        }
    }

    #[test]
    fn a_written_buffer_is_used_again() {
        let mut wire = Wire::default();
        wire.append(|out| out.extend_from_slice(&[1; 1000]));
        let address = contents_address(&wire);
        wire.advance(1000);
        wire.append(|out| out.extend_from_slice(&[2; 1000]));
        assert_eq!(contents_address(&wire), address);
    }

    fn contents_address(wire: &Wire) -> usize {
        wire.chunks.back().unwrap().as_slice().as_ptr() as usize
    }
}
