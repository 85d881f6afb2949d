//! Frames: the unit in which bytes travel once the handshake is done.
//!
//! # Wire format
//! `Length:32, Data:Length`. A frame of length 0 is a tick: it says nothing but that the sender is alive.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::join::{self, Front, join};
use crate::{Error, Limits, Result};

/// The bytes of a frame's length.
pub(crate) const LENGTH_BYTES: usize = 4;

/// A tick.
pub(crate) const TICK: [u8; LENGTH_BYTES] = [0; LENGTH_BYTES];

/// What a reader should make room for when nothing larger is known to be on its way.
const READ_CHUNK: usize = 64 << 10;

/// Cuts a stream of bytes into frames without copying them.
///
/// All whole frames that one read brought are split off the read buffer together, once; each frame is a window into that. A
/// message whose few fragments lie side by side comes out as one frame.
#[derive(Debug)]
pub(crate) struct Deframer {
    max_frame: usize,
    /// Of so many fragments at most.
    joins: u64,
    /// Runs of whole frames, each frame with its length in front; `at` is the position in the first.
    runs: VecDeque<Bytes>,
    at: usize,
    /// What is wrong with the frame behind the last whole one. Reported only after those before it.
    broken: Option<Error>,
}

/// The data of one frame, and the buffer it is a part of.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    run: &'a Bytes,
    start: usize,
    end: usize,
}

impl<'a> Frame<'a> {
    /// The data.
    pub(crate) fn data(&self) -> &'a [u8] {
        self.run.get(self.start..self.end).unwrap_or_default()
    }

    /// The data from `offset` on, sharing the buffer.
    pub(crate) fn share_from(&self, offset: usize) -> Bytes {
        self.run.slice((self.start + offset).min(self.end)..self.end)
    }

    /// A part of [`Self::data`], sharing the buffer.
    pub(crate) fn share(&self, part: &[u8]) -> Bytes {
        self.run.slice_ref(part)
    }
}

impl Deframer {
    /// For frames and messages within these limits.
    pub(crate) fn new(limits: &Limits) -> Self {
        let joins = join::most(limits);
        Self { max_frame: limits.max_frame, joins, runs: VecDeque::new(), at: 0, broken: None }
    }

    /// Takes every whole frame out of `input` and leaves what follows, and before it the fragments that it completes.
    pub(crate) fn take(&mut self, input: &mut BytesMut) {
        if self.broken.is_some() {
            input.clear();
            return;
        }
        let mut whole = 0;
        while let Some(length) = length_at(input, whole) {
            if length > self.max_frame {
                self.broken = Some(Error::limit("max_frame", length as u64, self.max_frame as u64));
                break;
            }
            let end = whole + LENGTH_BYTES + length;
            if end > input.len() {
                break;
            }
            match join(input.get_mut(whole..).unwrap_or_default(), length, self.joins) {
                Front::Other => whole = end,
                Front::Incomplete => break,
                Front::Joined { end, next } => {
                    self.runs.push_back(input.split_to(whole + end).freeze());
                    input.advance(next - end);
                    whole = 0;
                }
            }
        }
        if whole > 0 {
            self.runs.push_back(input.split_to(whole).freeze());
        }
    }

    /// The next frame that is not a tick.
    ///
    /// # Errors
    /// After the last whole frame, if the one behind it exceeds the limit; from then on always.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame<'_>>> {
        while let Some(run) = self.runs.front() {
            while let Some(length) = length_at(run, self.at) {
                let start = self.at + LENGTH_BYTES;
                self.at = start + length;
                if length > 0 {
                    let end = self.at;
                    // Looked up again because a borrow cannot leave a loop that also changes the queue.
                    return Ok(self.runs.front().map(|run| Frame { run, start, end }));
                }
            }
            self.runs.pop_front();
            self.at = 0;
        }
        self.broken.clone().map_or(Ok(None), Err)
    }

    /// The run of whole frames at hand, and where in it the next one starts.
    #[inline]
    pub(crate) fn run(&self) -> Option<(&Bytes, usize)> {
        Some((self.runs.front()?, self.at))
    }

    /// Passes over the frames of this run up to here.
    #[inline]
    pub(crate) fn skip_to(&mut self, at: usize) {
        self.at = at;
    }

    /// How much room the read buffer, which holds the start of a frame or nothing, should have for the next read.
    ///
    /// Never more than what was received of that frame so far (or a fixed chunk), however long it claims to be.
    pub(crate) fn read_hint(&self, rest: &BytesMut) -> usize {
        let missing = length_at(rest, 0)
            .map_or(0, |length| (LENGTH_BYTES + length.min(self.max_frame)).saturating_sub(rest.len()));
        missing.clamp(READ_CHUNK, rest.len().max(READ_CHUNK))
    }
}

/// The length of the frame that starts at `at`, if its four bytes are there.
#[inline]
pub(crate) fn length_at(bytes: &[u8], at: usize) -> Option<usize> {
    let mut prefix = bytes.get(at..at + LENGTH_BYTES)?;
    Some(prefix.get_u32() as usize)
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;

    use super::*;

    fn limited(max_frame: usize) -> Deframer {
        Deframer::new(&Limits { max_frame, ..Limits::default() })
    }

    fn drain(deframer: &mut Deframer) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some(frame) = deframer.next_frame().unwrap() {
            assert_eq!(frame.share_from(0), frame.data());
            frames.push(frame.data().to_vec());
        }
        frames
    }

    #[test]
    fn frames_come_out_whole_wherever_the_stream_is_cut() {
        let stream = b"\0\0\0\x02ab\0\0\0\0\0\0\0\x01c\0\0\0\0\0\0\0\x03def";
        for cut in 0..=stream.len() {
            let mut deframer = limited(16);
            let mut frames = Vec::new();
            let mut input = BytesMut::new();
            for part in [&stream[..cut], &stream[cut..]] {
                input.extend_from_slice(part);
                deframer.take(&mut input);
                frames.extend(drain(&mut deframer));
            }
            assert_eq!(frames, [b"ab".to_vec(), b"c".to_vec(), b"def".to_vec()], "cut at {cut}");
            assert!(input.is_empty());
        }
    }

    #[test]
    fn a_frame_beyond_the_limit_is_an_error_after_the_frames_before_it() {
        let mut deframer = limited(2);
        let mut input = BytesMut::from(&b"\0\0\0\x02ab\xff\xff\xff\xffxyz"[..]);
        deframer.take(&mut input);
        assert_eq!(deframer.next_frame().unwrap().unwrap().data(), b"ab");
        for _ in 0..2 {
            assert_eq!(deframer.next_frame().unwrap_err(), Error::limit("max_frame", 0xffff_ffff, 2));
        }
        deframer.take(&mut input);
        assert!(input.is_empty(), "nothing is kept for a connection that is lost");
    }

    #[test]
    fn room_grows_with_what_was_received_not_with_what_was_claimed() {
        let deframer = limited(1 << 30);
        let mut rest = BytesMut::new();
        assert_eq!(deframer.read_hint(&rest), READ_CHUNK);
        rest.put_u32(1 << 30);
        assert_eq!(deframer.read_hint(&rest), READ_CHUNK);
        rest.resize(1 << 20, 0);
        assert_eq!(deframer.read_hint(&rest), 1 << 20);
        let mut rest = BytesMut::new();
        rest.put_u32(100_000);
        rest.resize(90_000, 0);
        assert_eq!(deframer.read_hint(&rest), READ_CHUNK);
    }
}
