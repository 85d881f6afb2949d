use super::*;
use crate::dist::control::{altact, spawn_reply};
use crate::dist::header::tests::hex;
use crate::dist::{Destination, DistributionFlags as Flags, Target};
use crate::etf::{Pid, Reference, Term, encode_term};

mod bad;
mod golden;

/// Our side of the captured connections.
pub(super) const PY: Atom = Atom::new_static("py@127.0.0.1");
/// The OTP 25 node at the other end.
pub(super) const N25: Atom = Atom::new_static("n25@127.0.0.1");
pub(super) const N29: Atom = Atom::new_static("n29@127.0.0.1");

pub(super) const OUR_CREATION: u32 = 0x1122_3344;
pub(super) const N25_CREATION: u32 = 0x6b00_bdca;

/// A connection whose frames have a header without atoms.
pub(super) const NO_CACHE: Flags = Flags::HIDDEN.without(Flags::DIST_HDR_ATOM_CACHE);

/// The half that receives at `local` what `peer` sends.
pub(super) fn inbound(local: Atom, peer: Atom, flags: Flags) -> Inbound {
    Inbound::new(&ChannelConfig::new(local, peer, N25_CREATION, flags), Mono::ZERO)
}

pub(super) fn framed(data: &[u8]) -> BytesMut {
    let mut frame = BytesMut::from(&(data.len() as u32).to_be_bytes()[..]);
    frame.extend_from_slice(data);
    frame
}

/// All signals in a frame.
pub(super) fn receive(inbound: &mut Inbound, data: &[u8]) -> Result<Vec<Signal>> {
    inbound.handle_input(Mono::ZERO, &mut framed(data));
    let mut signals = Vec::new();
    while let Some(signal) = inbound.poll_signal()? {
        signals.push(signal);
    }
    Ok(signals)
}

pub(super) fn pid(node: Atom, id: u32, creation: u32) -> Pid {
    Pid { node, id, serial: 0, creation }
}

pub(super) fn atom(text: &str) -> Term {
    Term::Atom(Atom::new(text).unwrap())
}

pub(super) fn tuple(elements: impl IntoIterator<Item = Term>) -> Term {
    Term::Tuple(elements.into_iter().collect())
}

pub(super) fn term(raw: &RawTerm) -> Term {
    raw.to_term(&Limits::default()).unwrap()
}

pub(super) fn encoded(term: &Term) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_term(term, &mut bytes).unwrap();
    bytes
}

#[test]
fn any_byte_is_a_sign_of_life_and_silence_for_the_tick_time_is_the_end() {
    let mut inbound = inbound(PY, N25, Flags::HIDDEN);
    let second = core::time::Duration::from_secs(1);
    let at = |seconds| Mono::ZERO + second * seconds;
    assert_eq!(inbound.poll_timeout(), at(60));
    let mut input = BytesMut::from(&b"\0\0"[..]);
    inbound.handle_input(at(10), &mut input);
    assert_eq!(inbound.poll_timeout(), at(70), "half a tick");
    inbound.handle_input(at(20), &mut input);
    assert_eq!(inbound.poll_timeout(), at(70), "nothing new");
    input.extend_from_slice(b"\0\0");
    inbound.handle_input(at(30), &mut input);
    assert!(inbound.poll_signal().unwrap().is_none());
    assert!(inbound.handle_timeout(at(89)).is_ok());
    assert_eq!(
        inbound.handle_timeout(at(90)).unwrap_err(),
        Error::PeerMisbehaved(PeerMisbehaved::TickTimeout)
    );
}

#[test]
fn a_payload_shares_the_buffer_it_came_in() {
    let mut inbound = inbound(PY, N25, NO_CACHE);
    let mut frame = hex("83440068036102770058770c7079403132372e302e302e31000000650000000011223344");
    let big = Term::Binary(Bytes::from(vec![7; 100_000]));
    frame.extend(encoded(&big));
    let mut input = framed(&frame);
    let range = input.as_ptr_range();
    inbound.handle_input(Mono::ZERO, &mut input);
    let signal = inbound.poll_signal().unwrap().unwrap();
    assert!(range.contains(&signal.payload.unwrap().as_bytes().as_ptr()));
}
