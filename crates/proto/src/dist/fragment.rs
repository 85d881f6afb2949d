//! Reassembly of messages that come in fragments.
//!
//! # Wire format
//! Only the payload is cut; the first fragment has the header and the whole control message. Fragments are numbered down to
//! 1, so the first says how many there are. Sequences of different senders interleave with each other and with whole
//! messages; a sequence is never given up, except with the connection.
//!
//! Source: erts "External Term Format", section "Distribution Header for fragmented messages"; `erts_net_message` in `dist.c`.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::Buffers;
use crate::error::PeerMisbehaved;
use crate::{Error, Limits, Result};

/// What a sequence costs beside its bytes when it is counted against the limit.
const OVERHEAD: usize = 512;

/// The open sequences of one connection. `T` is what the first fragment says about the message: kept until the last one.
#[derive(Debug)]
pub(crate) struct Reassembly<T> {
    sequences: BTreeMap<u64, Sequence<T>>,
    /// The cost of all of them.
    bytes: usize,
    max_sequences: usize,
    max_fragments: u64,
    max_bytes: usize,
    /// Payloads of earlier messages, to be used again.
    buffers: Buffers,
}

#[derive(Debug)]
struct Sequence<T> {
    /// The number of the fragment that must come next, at least 1.
    next: u64,
    about: T,
    payload: BytesMut,
}

impl<T> Reassembly<T> {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            sequences: BTreeMap::new(),
            bytes: 0,
            max_sequences: limits.max_sequences,
            max_fragments: limits.max_fragments,
            max_bytes: limits.max_reassembly,
            buffers: Buffers::default(),
        }
    }

    /// Whether a first fragment with these numbers is the whole message.
    ///
    /// # Errors
    /// If there can be no such fragment, or not so many.
    pub(crate) fn is_whole(&self, sequence: u64, fragment: u64) -> Result<bool> {
        match (sequence, fragment) {
            (_, 0) => bad("fragment 0"),
            (_, 1) if !self.sequences.contains_key(&sequence) => Ok(true),
            (0, _) => bad("several fragments in sequence 0"),
            _ if self.sequences.contains_key(&sequence) => bad("the sequence is open already"),
            _ if fragment > self.max_fragments => {
                Err(Error::limit("max_fragments", fragment, self.max_fragments))
            }
            _ if self.sequences.len() >= self.max_sequences => {
                Err(Error::limit("max_sequences", self.sequences.len() as u64 + 1, self.max_sequences as u64))
            }
            _ => Ok(false),
        }
    }

    /// Opens a sequence that is not [whole](Self::is_whole) with its first fragment.
    pub(crate) fn open(&mut self, sequence: u64, fragment: u64, about: T, payload: &[u8]) -> Result<()> {
        if self.is_whole(sequence, fragment)? {
            return bad("a whole message is no sequence");
        }
        self.charge(OVERHEAD + payload.len())?;
        let mut open = Sequence { next: fragment - 1, about, payload: BytesMut::new() };
        grow(&mut self.buffers, &mut open.payload, payload.len(), fragment);
        open.payload.extend_from_slice(payload);
        self.sequences.insert(sequence, open);
        Ok(())
    }

    /// Adds a fragment; returns the message if it was the last one.
    pub(crate) fn add(&mut self, sequence: u64, fragment: u64, part: &[u8]) -> Result<Option<(T, Bytes)>> {
        self.charge(part.len())?;
        let Some(open) = self.sequences.get_mut(&sequence) else { return bad("unknown sequence") };
        if fragment != open.next {
            return bad("out of order");
        }
        grow(&mut self.buffers, &mut open.payload, part.len(), fragment);
        open.payload.extend_from_slice(part);
        if fragment > 1 {
            open.next = fragment - 1;
            return Ok(None);
        }
        let Some(Sequence { about, mut payload, .. }) = self.sequences.remove(&sequence) else {
            return Ok(None);
        };
        self.bytes -= OVERHEAD + payload.len();
        let size = payload.capacity();
        let whole = if payload.len() < size / 2 {
            // Less came than the number of fragments made expect: whoever keeps the message must not keep all that room.
            Bytes::copy_from_slice(&payload)
        } else {
            payload.split().freeze()
        };
        self.buffers.keep(payload, size);
        Ok(Some((about, whole)))
    }

    /// Frees the buffers that are kept for messages to come.
    pub(crate) fn release_buffers(&mut self) {
        self.buffers.clear();
    }

    /// How many sequences are open.
    pub(crate) fn open_sequences(&self) -> usize {
        self.sequences.len()
    }

    fn charge(&mut self, bytes: usize) -> Result<()> {
        let total = self.bytes.saturating_add(bytes);
        if total > self.max_bytes {
            return Err(Error::limit("max_reassembly", total as u64, self.max_bytes as u64));
        }
        self.bytes = total;
        Ok(())
    }
}

/// By how many times what was received a new buffer may be larger, and by how many bytes if that is more than once. The room ahead
/// is address space, which takes memory only as it is filled; and growing copies what is there, so it happens seldom: ten messages
/// of 8 MiB that arrive side by side grow side by side, and whatever arrives behind them waits.
const AHEAD_TIMES: usize = 15;
const AHEAD_BYTES: usize = 16 << 20;

/// Makes room for this fragment and, if fragments keep this size, for those after it. How far ahead is bounded by what was
/// received so far, whatever number of fragments was announced; a buffer that is there already may be larger.
fn grow(buffers: &mut Buffers, payload: &mut BytesMut, part: usize, fragments_left: u64) {
    if payload.capacity() - payload.len() >= part {
        return;
    }
    let left = usize::try_from(fragments_left).unwrap_or(usize::MAX);
    // The last one is seldom full.
    let least = payload.len().saturating_add(part.saturating_mul(left.saturating_sub(1)).max(part));
    let mut larger = buffers.reuse(least).unwrap_or_else(|| {
        let received = payload.len();
        let ahead = received.saturating_mul(AHEAD_TIMES).min(received.max(AHEAD_BYTES));
        buffers.take(received + part.saturating_mul(left).min(ahead).max(part))
    });
    larger.extend_from_slice(payload);
    let size = payload.capacity();
    buffers.keep(core::mem::replace(payload, larger), size);
}

#[cold]
fn bad<T>(why: &'static str) -> Result<T> {
    Err(Error::PeerMisbehaved(PeerMisbehaved::BadFragment(why)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reassembly() -> Reassembly<&'static str> {
        Reassembly::new(&Limits {
            max_sequences: 3,
            max_fragments: 1000,
            max_reassembly: 10_000,
            ..Limits::default()
        })
    }

    fn bad(why: &'static str) -> Error {
        super::bad::<()>(why).unwrap_err()
    }

    #[test]
    fn sequences_interleave_and_leave_nothing_behind() {
        let mut all = reassembly();
        all.open(7, 3, "seven", b"a").unwrap();
        all.open(8, 2, "eight", b"x").unwrap();
        assert_eq!(all.add(7, 2, b"").unwrap(), None);
        assert_eq!(all.add(8, 1, b"y").unwrap(), Some(("eight", Bytes::from("xy"))));
        assert_eq!(all.add(7, 1, b"b").unwrap(), Some(("seven", Bytes::from("ab"))));
        assert_eq!((all.bytes, all.open_sequences()), (0, 0));
        all.open(7, 2, "again", b"").unwrap();
    }

    #[test]
    fn numbers_must_count_down_in_an_open_sequence() {
        let mut all = reassembly();
        assert_eq!(all.add(7, 2, b"").unwrap_err(), bad("unknown sequence"));
        all.open(7, 3, "seven", b"a").unwrap();
        assert_eq!(all.is_whole(7, 3).unwrap_err(), bad("the sequence is open already"));
        assert_eq!(all.is_whole(7, 1).unwrap_err(), bad("the sequence is open already"));
        for wrong in [0, 1, 3, u64::MAX] {
            assert_eq!(all.add(7, wrong, b"").unwrap_err(), bad("out of order"));
        }
        assert_eq!(all.is_whole(5, 0).unwrap_err(), bad("fragment 0"));
        assert_eq!(all.is_whole(0, 2).unwrap_err(), bad("several fragments in sequence 0"));
        assert_eq!(all.is_whole(0, 1), Ok(true));
        assert_eq!(all.is_whole(9, 1), Ok(true));
        // Whoever opens a sequence unasked learns the same.
        assert_eq!(all.open(5, 0, "", b"").unwrap_err(), bad("fragment 0"));
        assert_eq!(all.open(7, 2, "", b"").unwrap_err(), bad("the sequence is open already"));
        assert_eq!(all.open(9, 1, "", b"").unwrap_err(), bad("a whole message is no sequence"));
    }

    #[test]
    fn every_limit_holds() {
        let mut all = reassembly();
        assert_eq!(all.is_whole(1, 1001).unwrap_err(), Error::limit("max_fragments", 1001, 1000));
        for sequence in 1..=3 {
            all.open(sequence, 1000, "", b"").unwrap();
        }
        assert_eq!(all.open(4, 2, "", b"").unwrap_err(), Error::limit("max_sequences", 4, 3));
        assert!(all.add(1, 999, &[0; 8000]).is_ok());
        let over = (3 * OVERHEAD + 8000 + 1000) as u64;
        assert_eq!(all.add(2, 999, &[0; 1000]).unwrap_err(), Error::limit("max_reassembly", over, 10_000));
        let left = 10_000 - 3 * OVERHEAD - 8000;
        let over = Error::limit("max_reassembly", 10_001, 10_000);
        assert_eq!(all.add(2, 999, &vec![0; left + 1]).unwrap_err(), over);
        assert!(all.add(2, 999, &vec![0; left]).is_ok(), "as much as is left");
        assert_eq!(all.add(3, 999, &[0]).unwrap_err(), over);
    }

    #[test]
    fn room_is_made_for_what_came_not_for_what_was_announced() {
        let mut all = Reassembly::new(&Limits::default());
        all.open(1, 65_536, (), &[0; 100]).unwrap();
        for fragment in (60_000..65_536).rev() {
            all.add(1, fragment, &[0; 100]).unwrap();
            let payload = &all.sequences.get(&1).unwrap().payload;
            assert!(payload.capacity() <= (1 + AHEAD_TIMES) * payload.len());
        }
    }

    #[test]
    fn room_ahead_is_bounded_in_bytes() {
        let mut all = Reassembly::new(&Limits::default());
        all.open(1, 65_536, (), &[0; 60_000]).unwrap();
        for fragment in (65_000..65_536).rev() {
            all.add(1, fragment, &[0; 60_000]).unwrap();
            let payload = &all.sequences.get(&1).unwrap().payload;
            assert!(payload.capacity() - payload.len() <= payload.len().max(AHEAD_BYTES));
        }
    }

    #[test]
    fn a_buffer_is_used_again_when_its_message_is_gone() {
        let mut all = Reassembly::new(&Limits::default());
        let mut message = |fill: u8| {
            all.open(1, 3, (), &[fill; 50_000]).unwrap();
            assert_eq!(all.add(1, 2, &[fill; 50_000]).unwrap(), None);
            all.add(1, 1, &[fill; 10_000]).unwrap().unwrap().1
        };
        let first = message(1);
        let at = message(2).as_ptr();
        let third = message(3);
        assert_eq!(third.as_ptr(), at);
        assert_ne!(third.as_ptr(), first.as_ptr(), "that one is in use");
        assert!(first.iter().all(|byte| *byte == 1) && third.iter().all(|byte| *byte == 3));
        assert_eq!((first.len(), third.len()), (110_000, 110_000));
    }

    #[test]
    fn a_small_message_does_not_keep_a_large_buffer() {
        let mut all = Reassembly::new(&Limits::default());
        for _ in 0..3 {
            all.open(1, 20, (), &[1; 50_000]).unwrap();
            for fragment in (2..20).rev() {
                all.add(1, fragment, &[1; 50_000]).unwrap();
            }
            all.add(1, 1, &[1; 50_000]).unwrap();
        }
        // A buffer of that size is there now, and is taken for what looks like another such message.
        all.open(1, 20, (), &[2; 50_000]).unwrap();
        for fragment in (2..20).rev() {
            all.add(1, fragment, b"").unwrap();
        }
        let (_, whole) = all.add(1, 1, b"").unwrap().unwrap();
        assert_eq!(whole.len(), 50_000);
        let buffer = whole.try_into_mut().unwrap();
        assert!(buffer.capacity() < 100_000);
    }
}
