//! Fragments of one message that lie side by side in the read buffer, made one frame again.
//!
//! A payload of 64 KiB and its tuple are a few bytes too long for one fragment. Put together in a buffer of its own
//! ([`Reassembly`](super::fragment::Reassembly)), such a message is copied whole; here only what follows the first fragment is, by the
//! few bytes of the headers between. The first fragment then says that it is the only one, and all that is checked of a first fragment
//! is checked of it.

use super::frame::{LENGTH_BYTES, length_at};
use super::header::{DIST_FRAG_CONT, DIST_FRAG_HEADER, FRAGMENT_PREFIX};
use crate::Limits;
use crate::etf::tag::VERSION_MAGIC;

/// A shorter first fragment is not worth it. Peers fill them: 64 KiB.
const LEAST: usize = 16 << 10;

/// A longer fragment is none of a peer that cuts messages for fairness.
const LARGEST: usize = 128 << 10;

/// So many fragments have room in one read; more would have to wait in the read buffer for too long.
const MOST: u64 = 4;

/// What stands at the front of the read buffer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Front {
    /// Something else, or fragments that cannot be joined.
    Other,
    /// The first fragment of a message whose others are still to come, as far as can be told.
    Incomplete,
    /// A frame that ends at `end`, made of fragments that ended at `next`, where the next frame begins.
    Joined {
        /// Behind the message.
        end: usize,
        /// Behind what it was made of.
        next: usize,
    },
}

/// How many fragments of a message may be joined.
pub(crate) fn most(limits: &Limits) -> u64 {
    // Such a message is in no buffer of its own, so it is not counted there: a limit that small has to be.
    if limits.max_reassembly < LARGEST * MOST as usize { 0 } else { MOST.min(limits.max_fragments) }
}

/// Joins the message whose first frame, of `length` bytes, is at the front of `bytes` and whole.
#[inline]
pub(crate) fn join(bytes: &mut [u8], length: usize, most: u64) -> Front {
    if (LEAST..=LARGEST).contains(&length) { join_fragments(bytes, length, most) } else { Front::Other }
}

fn join_fragments(bytes: &mut [u8], length: usize, most: u64) -> Front {
    let first_end = LENGTH_BYTES + length;
    let Some((sequence, count)) = first_fragment(bytes) else { return Front::Other };
    // A sequence 0 of several fragments is an error, which is for others to say.
    if sequence == 0 || !(2..=most).contains(&count) {
        return Front::Other;
    }
    let mut next = first_end;
    for number in (1..count).rev() {
        let Some(length) = length_at(bytes, next) else { return Front::Incomplete };
        let arrived = bytes.get(next + LENGTH_BYTES..).unwrap_or_default();
        let prefix = continued(sequence, number);
        let is_next = arrived.iter().zip(&prefix).all(|(arrived, expected)| arrived == expected);
        if !is_next || !(FRAGMENT_PREFIX..=LARGEST).contains(&length) {
            return Front::Other;
        }
        next += LENGTH_BYTES + length;
    }
    if next > bytes.len() {
        return Front::Incomplete;
    }
    let (mut end, mut from) = (first_end, first_end);
    while from < next {
        let Some(length) = length_at(bytes, from) else { return Front::Other };
        let part = from + LENGTH_BYTES + FRAGMENT_PREFIX..from + LENGTH_BYTES + length;
        from = part.end;
        let moved = part.len();
        bytes.copy_within(part, end);
        end += moved;
    }
    let joined = u32::try_from(end - LENGTH_BYTES).unwrap_or(u32::MAX);
    if let Some(place) = bytes.get_mut(..LENGTH_BYTES) {
        place.copy_from_slice(&joined.to_be_bytes());
    }
    let number = LENGTH_BYTES + FRAGMENT_PREFIX - 8..LENGTH_BYTES + FRAGMENT_PREFIX;
    if let Some(place) = bytes.get_mut(number) {
        place.copy_from_slice(&1_u64.to_be_bytes());
    }
    Front::Joined { end, next }
}

/// The sequence of the first fragment in front, and of how many fragments it is.
fn first_fragment(bytes: &[u8]) -> Option<(u64, u64)> {
    let prefix = bytes.get(LENGTH_BYTES..)?.first_chunk::<FRAGMENT_PREFIX>()?;
    let [VERSION_MAGIC, DIST_FRAG_HEADER, numbers @ ..] = prefix else { return None };
    let (sequence, number) = numbers.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*sequence), u64::from_be_bytes(*number.first_chunk::<8>()?)))
}

/// What a fragment behind the first begins with.
fn continued(sequence: u64, number: u64) -> [u8; FRAGMENT_PREFIX] {
    let mut prefix = [0; FRAGMENT_PREFIX];
    let bytes =
        [VERSION_MAGIC, DIST_FRAG_CONT].into_iter().chain(sequence.to_be_bytes()).chain(number.to_be_bytes());
    prefix.iter_mut().zip(bytes).for_each(|(place, byte)| *place = byte);
    prefix
}

#[cfg(test)]
mod tests;
