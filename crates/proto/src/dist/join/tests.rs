use bytes::BytesMut;

use super::*;
use crate::dist::frame::Deframer;
use crate::random::Random;

const SEQUENCE: u64 = 77;

/// The frames of a message in fragments: 10 bytes stand for the atom references and the control message.
fn fragments(sequence: u64, parts: &[&[u8]]) -> Vec<Vec<u8>> {
    let frame = |(at, part): (usize, &&[u8])| {
        let tag = if at == 0 { DIST_FRAG_HEADER } else { DIST_FRAG_CONT };
        let mut data = vec![VERSION_MAGIC, tag];
        data.extend(sequence.to_be_bytes());
        data.extend(((parts.len() - at) as u64).to_be_bytes());
        data.extend(if at == 0 { &[9; 10][..] } else { &[] });
        data.extend(*part);
        data
    };
    parts.iter().enumerate().map(frame).collect()
}

/// What the joined frame is.
fn whole(sequence: u64, parts: &[&[u8]]) -> Vec<u8> {
    let all = parts.concat();
    fragments(sequence, &[&all]).remove(0)
}

fn stream(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.iter().flat_map(|data| [&(data.len() as u32).to_be_bytes()[..], data].concat()).collect()
}

/// The frames that come out of a stream that is cut at these places, and what is left of it.
fn taken(limits: &Limits, stream: &[u8], cuts: &[usize]) -> (Vec<Vec<u8>>, usize) {
    let (mut deframer, mut input, mut frames) = (Deframer::new(limits), BytesMut::new(), Vec::new());
    let mut from = 0;
    for cut in cuts.iter().copied().chain([stream.len()]) {
        input.extend_from_slice(&stream[from..cut]);
        from = cut;
        deframer.take(&mut input);
        while let Some(frame) = deframer.next_frame().unwrap() {
            frames.push(frame.data().to_vec());
        }
    }
    (frames, input.len())
}

fn all(stream: &[u8]) -> (Vec<Vec<u8>>, usize) {
    taken(&Limits::default(), stream, &[])
}

#[test]
fn a_message_with_a_short_end_comes_out_whole() {
    let parts: [&[u8]; 2] = [&[1; 65_536], b"the end"];
    let other = b"other".to_vec();
    let frames = [&[other.clone()][..], &fragments(SEQUENCE, &parts), std::slice::from_ref(&other)].concat();
    assert_eq!(all(&stream(&frames)), (vec![other.clone(), whole(SEQUENCE, &parts), other], 0));
}

#[test]
fn what_is_behind_a_first_fragment_is_waited_for() {
    let parts: [&[u8]; 3] = [&[1; LEAST], &[2; 5000], b"x"];
    let all = stream(&fragments(SEQUENCE, &parts));
    let first = LENGTH_BYTES + FRAGMENT_PREFIX + 10 + LEAST;
    for cut in [first, first + 3, first + 4, first + 10, first + 4 + 18, first + 3000, all.len() - 1] {
        let (frames, left) = taken(&Limits::default(), &all[..cut], &[]);
        assert_eq!((frames.len(), left), (0, cut), "cut at {cut}");
        let (frames, left) = taken(&Limits::default(), &all, &[cut]);
        assert_eq!((frames, left), (vec![whole(SEQUENCE, &parts)], 0), "cut at {cut}");
    }
}

#[test]
fn nothing_else_is_joined_or_waited_for() {
    let big = [1; LEAST];
    let two = fragments(SEQUENCE, &[&big, b"end"]);
    let other = |sequence| fragments(sequence, &[&big, b"end"]);
    let unchanged = |frames: Vec<Vec<u8>>, why: &str| {
        assert_eq!(all(&stream(&frames)), (frames.clone(), 0), "{why}");
    };
    unchanged(fragments(SEQUENCE, &[b"a", b"b"]), "short");
    unchanged(fragments(0, &[&big, b"end"]), "sequence 0");
    unchanged(fragments(SEQUENCE, &[&big, b"", b"", b"", b""]), "too many");
    unchanged(vec![two[0].clone(), b"tock".to_vec(), two[1].clone()], "not side by side");
    unchanged(vec![two[0].clone(), vec![7; 40]], "no fragment at all");
    unchanged(vec![two[0].clone(), other(78)[0].clone(), two[1].clone(), other(78)[1].clone()], "in turns");
    unchanged(vec![two[0].clone(), other(78)[1].clone()], "another sequence");
    unchanged(vec![two[1].clone()], "no first one");
    unchanged(vec![fragments(SEQUENCE, &[&big, b"", b""])[0].clone(), two[1].clone()], "one is missing");
    unchanged(vec![two[0].clone(), vec![VERSION_MAGIC; 17]], "too short for a fragment");
    unchanged(fragments(SEQUENCE, &[&big, &[0; LARGEST]]), "a fragment that is too long");
    // A tick has no data and comes out as nothing.
    let ticked = [stream(&two[..1]), vec![0; 4], stream(&two[1..])].concat();
    assert_eq!(all(&ticked), (two, 0));
}

#[test]
fn small_limits_are_kept() {
    let frames = fragments(SEQUENCE, &[&[1; LEAST], b"a", b"b"]);
    let unchanged = |limits| assert_eq!(taken(&limits, &stream(&frames), &[]).0, frames);
    unchanged(Limits { max_fragments: 2, ..Limits::default() });
    unchanged(Limits { max_reassembly: 100_000, ..Limits::default() });
    let three = Limits { max_fragments: 3, ..Limits::default() };
    assert_eq!(taken(&three, &stream(&frames), &[]).0.len(), 1);
}

/// However it is cut, a stream says the same: what is joined is what its fragments say one after the other.
#[test]
fn cuts_do_not_change_what_is_said() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let (mut frames, mut said) = (Vec::new(), Vec::new());
        for message in 0..1 + random.below(4) {
            let sequence = random.below(3);
            let sizes: Vec<u64> =
                (0..1 + random.below(5)).map(|_| random.pick(&[0, 1, LEAST as u64, 70_000])).collect();
            let parts: Vec<Vec<u8>> =
                sizes.into_iter().map(|size| (0..size).map(|at| (at + message) as u8).collect()).collect();
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            frames.extend(fragments(sequence, &parts));
            said.push((sequence, [&[9; 10][..], &parts.concat()].concat()));
        }
        let stream = stream(&frames);
        let mut cuts: Vec<usize> =
            (0..random.below(6)).map(|_| random.below(stream.len() as u64) as usize).collect();
        cuts.sort_unstable();
        let (out, left) = taken(&Limits::default(), &stream, &cuts);
        assert_eq!(left, 0, "seed {seed}");
        let mut heard: Vec<(u64, Vec<u8>)> = Vec::new();
        for frame in out {
            let sequence = u64::from_be_bytes(*frame[2..].first_chunk().unwrap());
            if frame[1] == DIST_FRAG_HEADER {
                heard.push((sequence, Vec::new()));
            }
            let (of, payload) = heard.last_mut().unwrap();
            assert_eq!(*of, sequence, "seed {seed}");
            payload.extend_from_slice(&frame[FRAGMENT_PREFIX..]);
        }
        assert!(heard == said, "seed {seed}");
    }
}
