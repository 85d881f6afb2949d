//! A model of what must arrive: for each sender its signals, in order and unchanged, whatever happens between.

use std::collections::BTreeMap;

use super::*;
use crate::random::Random;

/// What tells two signals apart: receiver, and the number in the payload.
type Arrived = Vec<(u32, i64, usize)>;

fn payload(number: i64, size: usize, cached: bool) -> RawTerm {
    let mut bytes = hex("6803");
    if cached {
        bytes.extend([82, (number % 2) as u8]);
    } else {
        bytes.extend(hex("770161"));
    }
    crate::etf::put_i64(&mut bytes, number);
    crate::etf::put_binary(&mut bytes, &vec![number as u8; size]);
    let atoms: Arc<[Atom]> = ["b", "c"].map(|text| Atom::new(text).unwrap()).into();
    RawTerm::new(bytes.into(), Some(atoms), &Limits::default()).unwrap()
}

fn run(seed: u64, flags: Flags) -> (BTreeMap<u64, Arrived>, Vec<u8>) {
    let mut random = Random(seed);
    let mut outbound = outbound(flags);
    let mut sent: BTreeMap<u64, Arrived> = BTreeMap::new();
    let mut bytes = Vec::new();
    for number in 0..300 {
        let sender = random.below(6);
        let class = random.pick(&[LaneClass::Control, LaneClass::Normal, LaneClass::Normal, LaneClass::Bulk]);
        let size = random.pick(&[0, 1, 50, 1000, 4095, 5000, 65_000, 65_536, 70_000, 131_072, 300_000]);
        let payload = payload(number, size, random.below(3) == 0);
        // The receiver says who sent it.
        let control = ControlMessage::Send { from: Some(ours(1)), to: theirs(sender as u32) };
        let _ = outbound.send(&control, Some(&payload), Lane { sender, class }).unwrap();
        sent.entry(sender).or_default().push((sender as u32, number, size));
        if random.below(4) == 0 {
            let max = random.pick(&[0, 1, 3, 100, 70_000, 200_000, 1_000_000]);
            bytes.extend(write(&mut outbound, max));
        }
    }
    bytes.extend(write_all(&mut outbound));
    assert_eq!(outbound.queued_bytes(), 0);
    (sent, bytes)
}

fn arrived(inbound: &mut Inbound, bytes: &[u8], into: &mut BTreeMap<u64, Arrived>) {
    for signal in signals(inbound, bytes) {
        let ControlMessage::Send { to, .. } = signal.control else { panic!("{signal:?}") };
        let Term::Tuple(parts) = signal.payload.unwrap().to_term(&Limits::default()).unwrap() else {
            panic!()
        };
        let [Term::Atom(atom), Term::Integer(number), Term::Binary(bytes)] = &parts[..] else { panic!() };
        assert!(bytes.iter().all(|byte| *byte == *number as u8));
        assert!(*atom == "a" || *atom == ["b", "c"][(number % 2) as usize]);
        into.entry(u64::from(to.id)).or_default().push((to.id, *number, bytes.len()));
    }
}

#[test]
fn every_sender_keeps_its_order_whatever_the_lanes_sizes_and_writes() {
    for flags in [
        Flags::HIDDEN,
        Flags::HIDDEN.without(Flags::DIST_HDR_ATOM_CACHE),
        Flags::HIDDEN.without(Flags::FRAGMENTS),
        Flags::MANDATORY_25,
    ] {
        for seed in 0..3 {
            let (sent, bytes) = run(seed, flags);
            let mut got = BTreeMap::new();
            let mut far_end = far_end(flags);
            arrived(&mut far_end, &bytes, &mut got);
            assert_eq!(got, sent, "seed {seed}, {flags}");
            assert_eq!(far_end.open_sequences(), 0);
        }
    }
}

#[test]
fn any_split_of_the_stream_gives_the_same_signals() {
    let (sent, bytes) = run(7, Flags::HIDDEN);
    for seed in 0..4 {
        let mut random = Random(seed);
        let mut far_end = far_end(Flags::HIDDEN);
        let mut input = BytesMut::new();
        let mut got = BTreeMap::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let max = random.pick(&[1, 2, 3, 7, 100, 5000, 70_000, 300_000]);
            let (part, later) = rest.split_at((1 + random.below(max) as usize).min(rest.len()));
            rest = later;
            input.extend_from_slice(part);
            far_end.handle_input(Mono::ZERO, &mut input);
            arrived(&mut far_end, &[], &mut got);
        }
        assert_eq!(got, sent, "seed {seed}");
    }
}

#[test]
fn a_stream_of_small_signals_can_be_cut_anywhere() {
    let mut outbound = outbound(Flags::HIDDEN);
    for number in 0..5 {
        let _ = send(&mut outbound, &to(number), Some(&raw(i64::from(number)))).unwrap();
    }
    let bytes = write_all(&mut outbound);
    for cut in 0..bytes.len() {
        let mut far_end = far_end(Flags::HIDDEN);
        let mut input = BytesMut::from(&bytes[..cut]);
        far_end.handle_input(Mono::ZERO, &mut input);
        let mut got: Vec<_> = std::iter::from_fn(|| far_end.poll_signal().unwrap()).collect();
        input.extend_from_slice(&bytes[cut..]);
        far_end.handle_input(Mono::ZERO, &mut input);
        got.extend(std::iter::from_fn(|| far_end.poll_signal().unwrap()));
        let receivers: Vec<_> = got.into_iter().map(|signal| signal.control).collect();
        assert_eq!(receivers, (0..5).map(to).collect::<Vec<_>>(), "cut at {cut}");
    }
}
