//! Whole recorded connections: every frame that OTP nodes sent each other.

use std::io::IoSlice;

use bytes::BytesMut;
use foundation_proto::dist::{ChannelConfig, DistributionFlags, Inbound, Lane, LaneClass, Outbound, Signal};
use foundation_proto::etf::{Atom, Term};
use foundation_proto::{Limits, Mono};

use crate::golden;

const A: Atom = Atom::new_static("a@127.0.0.1");
const B: Atom = Atom::new_static("b@127.0.0.1");

/// The creation of both nodes of a recording, and the flags: from the name message.
fn handshake(message: &[u8]) -> (DistributionFlags, u32) {
    assert_eq!(message[0], b'N');
    let flags = u64::from_be_bytes(message[1..9].try_into().unwrap());
    (DistributionFlags::from_bits(flags), u32::from_be_bytes(message[9..13].try_into().unwrap()))
}

fn read(inbound: &mut Inbound, input: &mut BytesMut, frame: &[u8]) -> Vec<Signal> {
    input.extend_from_slice(&u32::try_from(frame.len()).unwrap().to_be_bytes());
    input.extend_from_slice(frame);
    inbound.handle_input(Mono::ZERO, input);
    std::iter::from_fn(|| inbound.poll_signal().unwrap()).collect()
}

fn payload(signal: &Signal) -> Option<Term> {
    signal.payload.as_ref().map(|raw| raw.to_term(&Limits::default()).unwrap())
}

/// Reads all that `from` sent to `to`, which has this creation; sends each signal again and reads that.
fn replay(frames: &[Vec<u8>], from: &Atom, to: &Atom, flags: DistributionFlags, creation: u32) -> usize {
    let here = ChannelConfig::new(to.clone(), from.clone(), creation, flags);
    let there = ChannelConfig::new(from.clone(), to.clone(), creation, flags);
    let mut inbound = Inbound::new(&here, Mono::ZERO);
    let mut outbound = Outbound::new(&there, Mono::ZERO);
    let mut again = Inbound::new(&here, Mono::ZERO);
    let (mut count, mut input) = (0, BytesMut::new());
    for frame in frames.iter().filter(|frame| !frame.is_empty()) {
        for signal in read(&mut inbound, &mut input, frame) {
            count += 1;
            let lane = Lane { sender: 1, class: LaneClass::Normal };
            let _ = outbound.send(&signal.control, signal.payload.as_ref(), lane).unwrap();
            let mut wire = BytesMut::new();
            while !outbound.is_empty() {
                let mut slices = [IoSlice::new(&[]); 8];
                let filled = outbound.poll_transmit(Mono::ZERO, &mut slices);
                let before = wire.len();
                slices[..filled].iter().for_each(|slice| wire.extend_from_slice(slice));
                outbound.advance(wire.len() - before);
            }
            again.handle_input(Mono::ZERO, &mut wire);
            let arrived = again.poll_signal().unwrap().unwrap();
            assert_eq!(arrived.control, signal.control);
            assert_eq!(payload(&arrived), payload(&signal));
        }
    }
    assert_eq!((inbound.open_sequences(), input.len()), (0, 0));
    count
}

#[test]
fn every_frame_of_recorded_connections_is_understood_and_can_be_sent_again() {
    for release in golden::RELEASES {
        for file in ["connection-hidden.txt", "connection-visible.txt"] {
            let text = golden::read(release, file);
            let (initiator, acceptor) = (golden::direction(&text, '>'), golden::direction(&text, '<'));
            let (initiator_flags, to_initiator) = handshake(&initiator[0]);
            let challenge = &acceptor[1];
            let to_acceptor = u32::from_be_bytes(challenge[13..17].try_into().unwrap());
            let acceptor_flags = u64::from_be_bytes(challenge[1..9].try_into().unwrap());
            let flags = initiator_flags
                .negotiate(DistributionFlags::from_bits(acceptor_flags), DistributionFlags::NONE)
                .unwrap();
            let sent = replay(&initiator[2..], &A, &B, flags, to_acceptor);
            let answered = replay(&acceptor[3..], &B, &A, flags, to_initiator);
            assert!(sent > 30 && answered > 30, "OTP {release}, {file}: {sent} and {answered} signals");
        }
    }
}
