//! The check of a small message without laying it out.

use super::Reference;
use super::tag::*;
use crate::Limits;

/// So many terms at the most: longer ones are laid out, which then costs little in comparison.
const TERMS: usize = 64;

/// What was found at the start of the input.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Skimmed {
    /// Bytes of the term.
    pub(super) size: usize,
    /// There are references into the atom cache in it.
    pub(super) has_cache_refs: bool,
}

/// The term at the start of `bytes`, if it is small, made of the terms that messages are mostly made of, and in order. For
/// anything else `None`: [`Tape::parse`](super::Tape::parse) decides, and knows what is wrong. Most messages are looked at
/// once, by their receiver, so that the nodes of a tape would be written on arrival for nobody.
pub(super) fn skim(bytes: &[u8], cached_atoms: usize, limits: &Limits) -> Option<Skimmed> {
    // No term of so few is deeper or larger than this.
    if limits.max_depth < TERMS || limits.max_nodes < TERMS || u32::try_from(bytes.len()).is_err() {
        return None;
    }
    let cached = |index: &u8| usize::from(*index) < cached_atoms;
    let (mut rest, mut missing, mut terms, mut has_cache_refs) = (bytes, 1, 1, false);
    while missing > 0 {
        let mut inside = 0;
        rest = match rest {
            [ATOM_CACHE_REF, index, after @ ..] if cached(index) => {
                has_cache_refs = true;
                after
            }
            [SMALL_INTEGER_EXT, _, after @ ..]
            | [INTEGER_EXT, _, _, _, _, after @ ..]
            | [NIL_EXT, after @ ..] => after,
            [SMALL_TUPLE_EXT, arity, after @ ..] => {
                inside = usize::from(*arity);
                after
            }
            [BINARY_EXT, a, b, c, d, after @ ..] => {
                after.get(u32::from_be_bytes([*a, *b, *c, *d]) as usize..)?
            }
            [SMALL_ATOM_UTF8_EXT, len, after @ ..] => after_name(after, *len)?,
            // Node, id, serial, creation.
            [NEW_PID_EXT, ATOM_CACHE_REF, index, after @ ..] if cached(index) => {
                has_cache_refs = true;
                after.get(12..)?
            }
            [NEW_PID_EXT, SMALL_ATOM_UTF8_EXT, len, after @ ..] => after_name(after, *len)?.get(12..)?,
            [NEWER_REFERENCE_EXT, 0, words, SMALL_ATOM_UTF8_EXT, len, after @ ..]
                if (1..=Reference::MAX_WORDS).contains(&usize::from(*words)) =>
            {
                after_name(after, *len)?.get(4 + 4 * usize::from(*words)..)?
            }
            [NEW_FLOAT_EXT, after @ ..] => {
                let (bits, after) = after.split_first_chunk()?;
                if !f64::from_be_bytes(*bits).is_finite() {
                    return None;
                }
                after
            }
            // Number of words, node, creation, words.
            [NEWER_REFERENCE_EXT, 0, words, ATOM_CACHE_REF, index, after @ ..]
                if cached(index) && (1..=Reference::MAX_WORDS).contains(&usize::from(*words)) =>
            {
                has_cache_refs = true;
                after.get(4 + 4 * usize::from(*words)..)?
            }
            // Without elements it is its tail, which may be the whole term and then does not start here.
            [LIST_EXT, 0, 0, 0, count, after @ ..] if *count > 0 => {
                inside = usize::from(*count) + 1;
                after
            }
            [STRING_EXT, high, low, after @ ..] => {
                after.get(usize::from(u16::from_be_bytes([*high, *low]))..)?
            }
            // Length, sign, magnitude.
            [SMALL_BIG_EXT, len, after @ ..] => after.get(1 + usize::from(*len)..)?,
            _ => return None,
        };
        terms += inside;
        if terms > TERMS {
            return None;
        }
        missing = missing - 1 + inside;
    }
    Some(Skimmed { size: bytes.len() - rest.len(), has_cache_refs })
}

/// What follows the first `len` bytes, if these are ASCII.
#[inline(always)]
fn after_name(bytes: &[u8], len: u8) -> Option<&[u8]> {
    let (text, after) = bytes.split_at_checked(len.into())?;
    if text.is_ascii() { Some(after) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::{Atom, RawTerm, Tape};
    use crate::random::Random;

    fn atoms() -> Vec<Atom> {
        vec![Atom::new_static("msg"), Atom::new_static("a@host")]
    }

    /// What [`Tape`] says of the same bytes: the size of the term, if it begins where they begin.
    fn laid_out(bytes: &[u8], limits: &Limits) -> Option<usize> {
        let (mut tape, atoms) = (Tape::new(), atoms());
        let span = tape.parse(bytes, &atoms, limits).ok()?.span();
        (span.start == 0).then_some(span.end)
    }

    #[test]
    fn the_messages_that_are_sent_most_are_known() {
        let call: &[&[u8]] = &[
            // {'$gen_call', {Pid, [alias | Ref]}, {put, <<"k">>, -1, [1], "ab", []}}
            &[104, 3, 119, 9],
            b"$gen_call",
            &[104, 2, 88, 82, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3],
            &[108, 0, 0, 0, 1, 119, 5],
            b"alias",
            &[90, 0, 3, 82, 1, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3],
            &[104, 6, 82, 0, 109, 0, 0, 0, 1, b'k', 98, 255, 255, 255, 255],
            &[108, 0, 0, 0, 1, 97, 1, 106, 107, 0, 2, b'a', b'b', 106],
        ];
        let bytes = call.concat();
        let followed = [&bytes[..], &[1, 2, 3]].concat();
        let found = skim(&followed, 2, &Limits::default());
        assert_eq!(found, Some(Skimmed { size: bytes.len(), has_cache_refs: true }));
        assert_eq!(laid_out(&followed, &Limits::default()), Some(bytes.len()));
        for end in 0..bytes.len() {
            assert_eq!(skim(&bytes[..end], 2, &Limits::default()), None, "cut at {end}");
        }
        assert_eq!(skim(&bytes, 1, &Limits::default()), None, "an atom that the header does not have");
    }

    #[test]
    fn what_is_long_or_deep_is_left_to_the_tape() {
        let deep = [[104, 1].repeat(TERMS), vec![106]].concat();
        let long = [vec![104, TERMS as u8], [97, 1].repeat(TERMS)].concat();
        for bytes in [deep, long] {
            assert_eq!(skim(&bytes, 0, &Limits::default()), None);
            assert_eq!(laid_out(&bytes, &Limits::default()), Some(bytes.len()));
        }
        let narrow = Limits { max_depth: 3, ..Limits::default() };
        assert_eq!(skim(&[97, 1], 0, &narrow), None, "these limits it does not watch");
        assert_eq!(skim(&[108, 0, 0, 0, 0, 97, 1], 0, &Limits::default()), None, "a tail that is the term");
    }

    /// Bytes that are terms more often than chance would have it.
    fn pieces(random: &mut Random) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..1 + random.below(8) {
            let (head, rest): (&[u8], u64) = match random.below(13) {
                0 => (&[], random.below(4)),
                1 => (&[104, random.below(4) as u8], 0),
                2 => (&[82, random.below(3) as u8], 0),
                3 => (&[97], 1),
                4 => (&[98], 4),
                5 => (&[108, 0, 0, 0, random.below(3) as u8], 0),
                6 => (&[106], 0),
                7 => (&[109, 0, 0, 0, 2], 2),
                8 => (&[107, 0, 3], 3),
                9 => (&[119, 1], 1),
                10 => (&[110, 4], 5),
                11 => (&[88, 82, random.below(3) as u8], 12),
                _ => {
                    let words = random.below(7);
                    (&[90, 0, words as u8, 82, random.below(3) as u8], 4 + 4 * words)
                }
            };
            bytes.extend_from_slice(head);
            bytes.extend(random.bytes(rest));
        }
        bytes
    }

    #[test]
    fn what_it_accepts_is_what_the_tape_accepts() {
        let (limits, mut random, mut accepted) = (Limits::default(), Random(1), 0);
        for _ in 0..20_000 {
            let bytes = pieces(&mut random);
            let Some(Skimmed { size, has_cache_refs }) = skim(&bytes, atoms().len(), &limits) else {
                continue;
            };
            assert_eq!(laid_out(&bytes, &limits), Some(size), "{bytes:?}");
            let raw = RawTerm::new(bytes.clone().into(), Some(atoms().into()), &limits).unwrap();
            assert_eq!(raw.as_bytes(), &bytes[..size]);
            assert_eq!(raw.atoms().is_empty(), !has_cache_refs, "{bytes:?}");
            // Written out it has none, and is the same term.
            assert_eq!(raw.to_plain(), raw);
            accepted += 1;
        }
        assert!(accepted > 5_000, "{accepted}");
    }
}
