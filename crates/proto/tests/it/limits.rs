//! Each field of [`Limits`] that bounds what a peer can claim: accepted at the limit, refused one beyond.
//!
//! Elsewhere: `max_depth` and `max_nodes` in `hostile.rs`; `max_sequences`, `max_fragments` and `max_reassembly` beside the
//! reassembly; `max_handshake_message` beside the messages of the handshake.

use std::io::IoSlice;

use bytes::BytesMut;
use foundation_proto::dist::{
    ChannelConfig, ControlMessage, DistributionFlags, Inbound, Lane, LaneClass, Outbound, Queued,
};
use foundation_proto::etf::{Atom, Pid, RawTerm, Term, decode};
use foundation_proto::{Error, Limits, Mono, Result};

const US: Atom = Atom::new_static("us@127.0.0.1");
const PEER: Atom = Atom::new_static("peer@127.0.0.1");

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

fn config(limits: Limits) -> ChannelConfig {
    let mut config = ChannelConfig::new(US, PEER, 7, DistributionFlags::HIDDEN);
    config.limits = limits;
    config
}

fn limit_of<T>(result: Result<T>) -> Option<&'static str> {
    match result {
        Err(Error::LimitExceeded { limit, .. }) => Some(limit),
        _ => None,
    }
}

/// Sends a message of `len` bytes to a process of the peer.
fn send(outbound: &mut Outbound, sender: u64, len: usize) -> Result<Queued> {
    let to = Pid { node: PEER, id: 1, serial: 0, creation: 7 };
    let from = Pid { node: US, id: 1, serial: 0, creation: 3 };
    let message = RawTerm::from_term(&Term::Binary(vec![7; len].into())).unwrap();
    let lane = Lane { sender, class: LaneClass::Normal };
    outbound.send(&ControlMessage::Send { from: Some(from), to }, Some(&message), lane)
}

fn written(outbound: &mut Outbound) -> BytesMut {
    let mut wire = BytesMut::new();
    while !outbound.is_empty() {
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = outbound.poll_transmit(Mono::ZERO, &mut slices);
        let before = wire.len();
        slices[..filled].iter().for_each(|slice| wire.extend_from_slice(slice));
        outbound.advance(wire.len() - before);
    }
    wire
}

#[test]
fn max_frame() {
    let mut outbound = Outbound::new(&config(Limits::default()), Mono::ZERO);
    let _ = send(&mut outbound, 1, 500).unwrap();
    let wire = written(&mut outbound);
    let receive = |max_frame| {
        let mut here = config(limits(|limits| limits.max_frame = max_frame));
        core::mem::swap(&mut here.local, &mut here.peer);
        let mut inbound = Inbound::new(&here, Mono::ZERO);
        inbound.handle_input(Mono::ZERO, &mut wire.clone());
        inbound.poll_signal()
    };
    let frame = wire.len() - 4;
    assert!(receive(frame).unwrap().is_some());
    assert_eq!(limit_of(receive(frame - 1)), Some("max_frame"));
    // Refused by its length alone, before it is there.
    let mut here = config(limits(|limits| limits.max_frame = frame - 1));
    core::mem::swap(&mut here.local, &mut here.peer);
    let mut inbound = Inbound::new(&here, Mono::ZERO);
    inbound.handle_input(Mono::ZERO, &mut BytesMut::from(&wire[..4]));
    assert_eq!(limit_of(inbound.poll_signal()), Some("max_frame"));
}

#[test]
fn max_integer_bytes() {
    let integer = |len: u32| [&[131, 111][..], &len.to_be_bytes(), &[0], &vec![1; len as usize]].concat();
    let few = limits(|limits| limits.max_integer_bytes = 300);
    assert!(decode(&integer(300), &few).is_ok());
    assert_eq!(limit_of(decode(&integer(301), &few)), Some("max_integer_bytes"));
    let most = Limits::default().max_integer_bytes as u32;
    assert!(decode(&integer(most), &Limits::default()).is_ok());
    assert_eq!(limit_of(decode(&integer(most + 1), &Limits::default())), Some("max_integer_bytes"));
}

#[test]
fn max_inflated() {
    // `<<97, 1>>` compressed: 2 bytes.
    let compressed = [131, 80, 0, 0, 0, 2, 0x78, 0x9c, 0x4b, 0x64, 0x04, 0, 0, 0xc5, 0, 0x63];
    let of = |max| decode(&compressed, &limits(|limits| limits.max_inflated = max));
    assert_eq!(of(2), Ok(1.into()));
    assert_eq!(limit_of(of(1)), Some("max_inflated"));
}

#[test]
fn busy_limit() {
    for messages in [1, 3] {
        let queued = {
            let mut outbound = Outbound::new(&config(Limits::default()), Mono::ZERO);
            (0..messages).for_each(|_| assert_eq!(send(&mut outbound, 1, 100), Ok(Queued::Ok)));
            outbound.queued_bytes()
        };
        for (busy_limit, last) in [(queued, Queued::Busy), (queued + 1, Queued::Ok)] {
            let mut outbound =
                Outbound::new(&config(limits(|limits| limits.busy_limit = busy_limit)), Mono::ZERO);
            (1..messages).for_each(|_| assert_eq!(send(&mut outbound, 1, 100), Ok(Queued::Ok)));
            assert_eq!(send(&mut outbound, 1, 100), Ok(last), "{busy_limit}");
            let lane = Lane { sender: 2, class: LaneClass::Normal };
            assert_eq!(outbound.is_busy_for(lane, 100), last == Queued::Busy);
            // One byte less is enough to go on.
            let mut slices = [IoSlice::new(&[]); 8];
            assert!(outbound.poll_transmit(Mono::ZERO, &mut slices) > 0);
            outbound.advance(1);
            assert!(!outbound.is_busy_for(lane, 100));
        }
    }
}

#[test]
fn max_queued() {
    let queued = {
        let mut outbound = Outbound::new(&config(Limits::default()), Mono::ZERO);
        let _ = send(&mut outbound, 1, 100).unwrap();
        outbound.queued_bytes()
    };
    // Whoever finds less than the limit in the queue may add to it, whatever the size.
    let second = |max_queued| {
        let mut outbound =
            Outbound::new(&config(limits(|limits| limits.max_queued = max_queued)), Mono::ZERO);
        let _ = send(&mut outbound, 1, 100).unwrap();
        send(&mut outbound, 1, 100)
    };
    assert!(second(queued + 1).is_ok());
    assert_eq!(limit_of(second(queued)), Some("max_queued"));
}
