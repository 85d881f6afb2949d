use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::*;
use crate::Limits;
use crate::dist::control::altact;
use crate::dist::header::tests::hex;
use crate::dist::{
    Destination, DistributionFlags as Flags, Inbound, LaneClass, Signal, SpawnRequest, Target,
};
use crate::etf::{Atom, Pid, Reference, Term};
use crate::random::Random;

mod order;

const US: Atom = Atom::new_static("us@127.0.0.1");
const PEER: Atom = Atom::new_static("peer@127.0.0.1");
const PEER_CREATION: u32 = 7;

fn config(flags: Flags) -> ChannelConfig {
    ChannelConfig::new(US, PEER, PEER_CREATION, flags)
}

fn outbound(flags: Flags) -> Outbound {
    Outbound::new(&config(flags), Mono::ZERO)
}

/// The receiving half at the other end.
fn far_end(flags: Flags) -> Inbound {
    Inbound::new(&ChannelConfig::new(PEER, US, 3, flags), Mono::ZERO)
}

fn ours(id: u32) -> Pid {
    Pid { node: US, id, serial: 0, creation: 3 }
}

fn theirs(id: u32) -> Pid {
    Pid { node: PEER, id, serial: 0, creation: PEER_CREATION }
}

fn third() -> Pid {
    Pid { node: Atom::new_static("third@host"), id: 1, serial: 0, creation: 1 }
}

fn stale() -> Pid {
    Pid { creation: PEER_CREATION - 1, ..theirs(1) }
}

fn a_ref(node: Atom, words: usize) -> Reference {
    Reference::new(node, 3, &[1, 2, 3, 4, 5][..words]).unwrap()
}

fn raw(term: impl Into<Term>) -> RawTerm {
    RawTerm::from_term(&term.into()).unwrap()
}

fn binary(len: usize) -> RawTerm {
    raw(Bytes::from(vec![b'x'; len]))
}

fn normal(sender: u64) -> Lane {
    Lane { sender, class: LaneClass::Normal }
}

fn to(id: u32) -> ControlMessage {
    ControlMessage::Send { from: Some(ours(1)), to: theirs(id) }
}

/// Writes at most `max` bytes.
fn write(outbound: &mut Outbound, max: usize) -> Vec<u8> {
    let mut slices = [IoSlice::new(&[]); 8];
    let filled = outbound.poll_transmit(Mono::ZERO, &mut slices);
    let mut bytes: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
    bytes.truncate(max);
    outbound.advance(bytes.len());
    bytes
}

/// Writes everything.
fn write_all(outbound: &mut Outbound) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !outbound.is_empty() {
        bytes.extend(write(outbound, usize::MAX));
    }
    bytes
}

fn signals(inbound: &mut Inbound, bytes: &[u8]) -> Vec<Signal> {
    inbound.handle_input(Mono::ZERO, &mut BytesMut::from(bytes));
    std::iter::from_fn(|| inbound.poll_signal().unwrap()).collect()
}

fn send(outbound: &mut Outbound, control: &ControlMessage, payload: Option<&RawTerm>) -> Result<Queued> {
    outbound.send(control, payload, normal(1))
}

/// Rows of what makes a BEAM close the connection that a caller could ask for.
#[test]
fn what_a_beam_closes_on_is_refused() {
    use ControlMessage as C;
    let mut outbound = outbound(Flags::HIDDEN);
    let reason = raw(Atom::new_static("bye"));
    let r = |node| a_ref(node, 3);
    for (control, payload) in [
        (C::Exit { from: ours(1), to: stale() }, true),
        (C::UnlinkId { id: 1, from: ours(1), to: stale() }, false),
        (C::UnlinkId { id: 0, from: ours(1), to: theirs(1) }, false),
        (C::UnlinkIdAck { id: 1, from: ours(1), to: stale() }, false),
        (C::UnlinkIdAck { id: 0, from: ours(1), to: theirs(1) }, false),
        (C::Unlink { from: ours(1), to: theirs(1) }, false),
        (C::Link { from: third(), to: theirs(1) }, false),
        (C::Link { from: ours(1), to: third() }, false),
        (C::Exit { from: third(), to: theirs(1) }, true),
        (C::Exit2 { from: third(), to: theirs(1) }, true),
        (C::Exit2 { from: ours(1), to: third() }, true),
        (C::MonitorP { watcher: third(), target: Target::Pid(theirs(1)), reference: r(US) }, false),
        (C::MonitorP { watcher: ours(1), target: Target::Pid(third()), reference: r(US) }, false),
        (C::DemonitorP { watcher: third(), target: Target::Pid(theirs(1)), reference: r(US) }, false),
        (C::MonitorPExit { target: Target::Pid(third()), watcher: theirs(1), reference: r(PEER) }, true),
        (C::MonitorPExit { target: Target::Pid(ours(1)), watcher: third(), reference: r(PEER) }, true),
        (C::SpawnReply { req_id: r(US), to: theirs(1), flags: 0, result: Ok(ours(1)) }, false),
        (C::SpawnReply { req_id: r(PEER), to: third(), flags: 0, result: Ok(ours(1)) }, false),
        (
            C::Altact { flags: altact::EXIT, from: ours(1), to: Destination::Name(Atom::new_static("name")) },
            true,
        ),
        (to(1), false),
        (C::Link { from: ours(1), to: theirs(1) }, true),
    ] {
        let refused = send(&mut outbound, &control, payload.then_some(&reason));
        assert!(matches!(refused, Err(Error::ApiMisuse(_))), "{control:?}: {refused:?}");
    }
    assert!(outbound.is_empty());
    for (control, payload) in [
        (C::Send { from: Some(third()), to: stale() }, true),
        (C::RegSend { from: third(), to: Atom::new_static("name") }, true),
        (C::Exit2 { from: ours(1), to: stale() }, true),
        (C::MonitorP { watcher: ours(1), target: Target::Pid(stale()), reference: r(US) }, false),
        (C::DemonitorP { watcher: ours(1), target: Target::Pid(stale()), reference: r(US) }, false),
        (C::MonitorPExit { target: Target::Pid(ours(1)), watcher: stale(), reference: r(PEER) }, true),
    ] {
        assert_eq!(send(&mut outbound, &control, payload.then_some(&reason)), Ok(Queued::Ok), "{control:?}");
    }
}

fn spawn_request() -> ControlMessage {
    ControlMessage::SpawnRequest(Box::new(SpawnRequest {
        req_id: a_ref(US, 3),
        from: ours(1),
        group_leader: ours(2),
        module: Atom::new_static("m"),
        function: Atom::new_static("f"),
        arity: 0,
        options: Term::List(Vec::new().into()),
    }))
}

#[test]
fn what_the_peer_did_not_offer_is_refused_with_the_name_of_the_flag() {
    use ControlMessage as C;
    let payload = raw(Term::List(Vec::new().into()));
    let watch = C::MonitorP { watcher: ours(1), target: Target::Pid(theirs(1)), reference: a_ref(US, 3) };
    let alias = C::AliasSend { from: ours(1), alias: a_ref(PEER, 3) };
    let both = Flags::ALIAS | Flags::ALTACT_SIG;
    let exit_to_alias =
        C::Altact { flags: altact::EXIT, from: ours(1), to: Destination::Alias(a_ref(PEER, 3)) };
    let ack = C::UnlinkIdAck { id: 1, from: ours(1), to: theirs(1) };
    for (missing, name, control, has_payload) in [
        (Flags::DIST_MONITOR, "DIST_MONITOR", watch.clone(), false),
        (Flags::DIST_MONITOR_NAME, "DIST_MONITOR", watch, false),
        (Flags::SPAWN, "SPAWN", spawn_request(), true),
        (both, "ALIAS", alias, true),
        (Flags::ALTACT_SIG, "ALTACT_SIG", exit_to_alias, true),
        (Flags::UNLINK_ID, "UNLINK_ID", ack, false),
        (Flags::V4_NC, "V4_NC", C::Send { from: Some(ours(1 << 15)), to: theirs(1) }, true),
        (Flags::V4_NC, "V4_NC", C::AliasSend { from: ours(1), alias: a_ref(PEER, 5) }, true),
        (Flags::V4_NC, "V4_NC", C::Link { from: Pid { serial: 1 << 13, ..ours(1) }, to: theirs(1) }, false),
    ] {
        let payload = has_payload.then_some(&payload);
        let refused = send(&mut outbound(Flags::HIDDEN.without(missing)), &control, payload);
        assert_eq!(refused, Err(Error::NotSupportedByPeer(name)), "{control:?}");
        assert_eq!(send(&mut outbound(Flags::HIDDEN), &control, payload), Ok(Queued::Ok));
    }
}

/// What an OTP 23 node would close the connection over.
#[test]
fn payloads_for_peers_without_v4_nc_are_narrow() {
    let old = Flags::HIDDEN.without(Flags::V4_NC);
    let port = |id| Term::Port(Box::new(crate::etf::Port { node: US, id, creation: 3 }));
    let wide_pid = Term::Pid(Pid { id: 1 << 15, ..ours(1) });
    let body = |term: &Term| raw(Term::Tuple([Term::atom("body"), term.clone()].into_iter().collect()));
    for flags in [old, old.without(Flags::FRAGMENTS | Flags::DIST_HDR_ATOM_CACHE)] {
        let mut outbound = outbound(flags);
        for wide in [wide_pid.clone(), port(1 << 28), Term::Reference(Box::new(a_ref(PEER, 4)))] {
            let refused = send(&mut outbound, &to(1), Some(&body(&wide)));
            assert_eq!(refused, Err(Error::NotSupportedByPeer("V4_NC")), "{wide:?}");
            let refused = send(&mut outbound, &spawn_request(), Some(&raw(Term::list([wide]))));
            assert_eq!(refused, Err(Error::NotSupportedByPeer("V4_NC")));
        }
        assert!(outbound.is_empty(), "nothing of what was refused is sent");
        assert_eq!(send(&mut outbound, &to(1), Some(&body(&port(5)))), Ok(Queued::Ok));
        let bytes = write_all(&mut outbound);
        let signal = signals(&mut far_end(flags), &bytes).pop().unwrap();
        assert_eq!(signal.payload.as_ref(), Some(&body(&port(5))));
        assert!(signal.payload.unwrap().as_bytes().contains(&crate::etf::tag::NEW_PORT_EXT));
    }
}

/// The control message as it arrives.
fn arrives_as(flags: Flags, control: ControlMessage, payload: bool) -> (u8, ControlMessage) {
    let mut outbound = outbound(flags);
    let reason = raw(Atom::new_static("because"));
    let _ = send(&mut outbound, &control, payload.then_some(&reason)).unwrap();
    let bytes = write_all(&mut outbound);
    // Length, header without atoms, tuple, opcode.
    let opcode_at = if flags.contains(Flags::FRAGMENTS) { 10 } else { 9 };
    let signal = signals(&mut far_end(flags), &bytes).pop().unwrap();
    assert_eq!(signal.payload.map(|raw| raw.as_bytes().clone()), payload.then(|| reason.as_bytes().clone()));
    (bytes[opcode_at], signal.control)
}

#[test]
fn the_operation_follows_from_the_flags() {
    use ControlMessage as C;
    let all = Flags::HIDDEN.without(Flags::DIST_HDR_ATOM_CACHE);
    let minimal = Flags::MANDATORY_25 | Flags::DIST_MONITOR | Flags::DIST_MONITOR_NAME;
    let name = || Atom::new_static("name");
    let unlink = C::Unlink { from: ours(1), to: theirs(1) };
    let unlink_id = C::UnlinkId { id: 9, from: ours(1), to: theirs(1) };
    let anonymous = C::Send { from: None, to: theirs(1) };
    let exit = C::Exit { from: ours(1), to: theirs(1) };
    let exit2 = C::Exit2 { from: ours(1), to: theirs(1) };
    let down =
        C::MonitorPExit { target: Target::Name(name()), watcher: theirs(1), reference: a_ref(PEER, 3) };
    let altact = |flags, to| C::Altact { flags, from: ours(1), to };
    let alias = || Destination::Alias(a_ref(PEER, 3));
    let prio = altact::PRIORITY;
    for (flags, control, opcode, arrives) in [
        (all, to(1), 22, None),
        (minimal, to(1), 2, Some(anonymous.clone())),
        (all, anonymous.clone(), 2, None),
        (all, exit.clone(), 24, None),
        (minimal, exit, 3, None),
        (all, exit2.clone(), 26, None),
        (minimal, exit2.clone(), 8, None),
        (all, down.clone(), 28, None),
        (minimal, down, 21, None),
        (all, unlink_id.clone(), 35, None),
        (minimal, unlink_id, 4, Some(unlink.clone())),
        (minimal, unlink, 4, None),
        (all, altact(prio, Destination::Pid(theirs(1))), 37, None),
        (minimal, altact(prio, Destination::Pid(theirs(1))), 2, Some(anonymous)),
        (
            all.without(Flags::ALTACT_SIG),
            altact(prio, Destination::Name(name())),
            6,
            Some(C::RegSend { from: ours(1), to: name() }),
        ),
        (
            all.without(Flags::ALTACT_SIG),
            altact(prio, alias()),
            33,
            Some(C::AliasSend { from: ours(1), alias: a_ref(PEER, 3) }),
        ),
        (
            all.without(Flags::ALTACT_SIG),
            altact(prio | altact::EXIT, Destination::Pid(theirs(1))),
            26,
            Some(exit2.clone()),
        ),
        (minimal, altact(altact::EXIT, Destination::Pid(theirs(1))), 8, Some(exit2)),
        (all, C::AliasSend { from: ours(1), alias: a_ref(PEER, 3) }, 37, Some(altact(0, alias()))),
    ] {
        let payload = control.has_payload();
        let (sent_opcode, got) = arrives_as(flags, control.clone(), payload);
        assert_eq!(sent_opcode, opcode, "{control:?}");
        assert_eq!(got, arrives.unwrap_or(control));
    }
    let (opcode, control) = arrives_as(all, spawn_request(), true);
    assert_eq!((opcode, control), (29, spawn_request()));
}

#[test]
fn a_large_message_to_an_alias_has_no_priority() {
    let control =
        |flags| ControlMessage::Altact { flags, from: ours(1), to: Destination::Alias(a_ref(PEER, 3)) };
    let mut outbound = outbound(Flags::HIDDEN);
    let mut far_end = far_end(Flags::HIDDEN);
    for (size, flags) in [(100, altact::PRIORITY), (40_000, 0)] {
        let _ = send(&mut outbound, &control(altact::PRIORITY), Some(&binary(size))).unwrap();
        let arrived = signals(&mut far_end, &write_all(&mut outbound)).pop().unwrap();
        assert_eq!(arrived.control, control(flags));
    }
}

#[test]
fn a_trace_token_goes_along() {
    use ControlMessage as C;
    let name = Atom::new_static("name");
    let alias = || a_ref(PEER, 3);
    let token = raw(Term::Tuple(
        [Term::Integer(3), Term::atom("label"), Term::Integer(2), Term::Pid(ours(1)), Term::Integer(1)]
            .into_iter()
            .collect(),
    ));
    let altact = |to| C::Altact { flags: altact::PRIORITY, from: ours(1), to };
    let messages = [
        to(1),
        C::RegSend { from: ours(1), to: name.clone() },
        C::AliasSend { from: ours(1), alias: alias() },
        altact(Destination::Pid(theirs(1))),
        altact(Destination::Name(name)),
        altact(Destination::Alias(alias())),
    ];
    let no_altact = Flags::HIDDEN.without(Flags::ALTACT_SIG);
    for flags in [Flags::HIDDEN, no_altact, no_altact.without(Flags::SEND_SENDER)] {
        let (mut outbound, mut far_end) = (outbound(flags), far_end(flags));
        for control in &messages {
            // The way without a token is remembered, and not mistaken for the one with it; nor the other way round.
            for (traced, size) in
                [(false, 10), (true, 10), (false, 10), (true, FRAGMENT * 2), (true, 10), (false, 10)]
            {
                let message = binary(size);
                let queued = if traced {
                    outbound.send_traced(control, &message, &token, normal(1))
                } else {
                    outbound.send(control, Some(&message), normal(1))
                };
                let _ = queued.unwrap();
                let arrived = signals(&mut far_end, &write_all(&mut outbound)).pop().unwrap();
                assert_eq!(arrived.payload.unwrap().as_bytes(), message.as_bytes());
                let got = arrived.token.map(|token| token.to_plain());
                assert_eq!(
                    got.as_ref().map(RawTerm::as_bytes),
                    traced.then(|| token.as_bytes()),
                    "{control:?}"
                );
                assert!(arrived.control.is_message());
            }
        }
    }
    let mut outbound = outbound(Flags::HIDDEN);
    let exit = C::Exit2 { from: ours(1), to: theirs(1) };
    let refused = outbound.send_traced(&exit, &binary(1), &token, normal(1));
    assert!(matches!(refused, Err(Error::ApiMisuse(_))), "{refused:?}");
}

#[test]
fn the_atom_cache_makes_frames_short_from_the_second_on() {
    let mut outbound = outbound(Flags::HIDDEN);
    let mut far_end = far_end(Flags::HIDDEN);
    let mut sizes = Vec::new();
    for _ in 0..3 {
        let _ = send(&mut outbound, &to(1), Some(&raw(1))).unwrap();
        let bytes = write_all(&mut outbound);
        sizes.push(bytes.len());
        assert_eq!(signals(&mut far_end, &bytes).pop().unwrap().control, to(1));
    }
    // Length, 131 68, N, flags, two indices; {22, Pid, Pid} with 15 bytes a pid; the payload.
    assert_eq!(sizes[1..], [4 + 2 + 5 + 4 + 30 + 2; 2]);
    assert_eq!(sizes[0], sizes[1] + 2 + US.as_bytes().len() + PEER.as_bytes().len());
}

/// A payload that came over another connection refers to the atoms of its own header.
#[test]
fn a_payload_is_relayed_as_it_came_or_rewritten() {
    let atoms: Arc<[Atom]> = ["ok", "third@host"].map(|text| Atom::new(text).unwrap()).into();
    let encoded = Bytes::from(hex("68025200 520 1"));
    let payload = RawTerm::new(encoded.clone(), Some(atoms), &Limits::default()).unwrap();
    for flags in [Flags::HIDDEN, Flags::HIDDEN.without(Flags::DIST_HDR_ATOM_CACHE), Flags::MANDATORY_25] {
        let mut outbound = outbound(flags);
        let mut far_end = far_end(flags);
        for _ in 0..3 {
            let _ = send(&mut outbound, &to(1), Some(&payload)).unwrap();
            let arrived = signals(&mut far_end, &write_all(&mut outbound)).pop().unwrap().payload.unwrap();
            let limits = Limits::default();
            assert_eq!(arrived.to_term(&limits), payload.to_term(&limits));
            assert_eq!(*arrived.as_bytes() == encoded, flags == Flags::HIDDEN);
        }
    }
}

#[test]
fn large_payloads_are_lent_and_never_copied() {
    let mut outbound = outbound(Flags::HIDDEN);
    let payload = binary(300_000);
    let range = payload.as_bytes().as_ptr_range();
    let _ = send(&mut outbound, &to(1), Some(&payload)).unwrap();
    let mut lent = 0;
    while !outbound.is_empty() {
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = outbound.poll_transmit(Mono::ZERO, &mut slices);
        let mut total = 0;
        for slice in &slices[..filled] {
            total += slice.len();
            lent += if range.contains(&slice.as_ptr()) { slice.len() } else { 0 };
        }
        outbound.advance(total);
    }
    assert_eq!(lent, payload.as_bytes().len());
}

/// Control message and payload of a fragment are 65,536 bytes together, as in OTP.
#[test]
fn fragments_have_the_size_that_otp_gives_them() {
    let mut outbound = outbound(Flags::HIDDEN.without(Flags::DIST_HDR_ATOM_CACHE));
    let _ = send(&mut outbound, &to(1), Some(&binary(200_000))).unwrap();
    let bytes = write_all(&mut outbound);
    let mut lengths = Vec::new();
    let mut rest = &bytes[..];
    while let Some((length, data)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        assert_eq!(data[1], if lengths.is_empty() { 69 } else { 70 });
        lengths.push(length);
        rest = &data[length..];
    }
    assert_eq!(lengths[..3], [18 + 1 + 65_536, 18 + 65_536, 18 + 65_536]);
    assert_eq!(lengths.len(), 4);
    // Without FRAGMENTS it is one frame.
    let mut outbound = self::outbound(Flags::HIDDEN.without(Flags::FRAGMENTS));
    let _ = send(&mut outbound, &to(1), Some(&binary(200_000))).unwrap();
    let bytes = write_all(&mut outbound);
    assert_eq!(bytes[..4], (bytes.len() as u32 - 4).to_be_bytes());
}

/// The position among the signals and in bytes at which the message to process 99 arrives.
fn position_of_99(bytes: &[u8]) -> usize {
    let mut far_end = far_end(Flags::HIDDEN);
    let mut input = BytesMut::new();
    for (at, chunk) in bytes.chunks(1024).enumerate() {
        input.extend_from_slice(chunk);
        far_end.handle_input(Mono::ZERO, &mut input);
        while let Some(signal) = far_end.poll_signal().unwrap() {
            if signal.control == to(99) {
                return at * 1024;
            }
        }
    }
    panic!("it never arrived");
}

#[test]
fn a_small_message_waits_for_little_of_what_others_send() {
    let mut outbound = outbound(Flags::HIDDEN);
    for sender in 1..=7 {
        let _ = outbound.send(&to(1), Some(&binary(8 << 20)), normal(sender)).unwrap();
    }
    let mut before = Vec::new();
    for _ in 0..50 {
        before.extend(write(&mut outbound, 100_000));
    }
    let started = before.len();
    let _ = outbound.send(&to(99), Some(&raw(1)), normal(11)).unwrap();
    let mut bytes = before;
    bytes.extend(write_all(&mut outbound));
    let waited = position_of_99(&bytes) - started;
    assert!(waited <= SETTLED + FRAGMENT + 1024, "it waited for {waited} bytes");
}

#[test]
fn large_messages_take_turns_and_small_ones_do_not_starve_them() {
    let mut outbound = outbound(Flags::HIDDEN);
    let mut far_end = far_end(Flags::HIDDEN);
    for (sender, class) in [(1, LaneClass::Normal), (2, LaneClass::Normal), (3, LaneClass::Bulk)] {
        let _ = outbound
            .send(&to(sender), Some(&binary(1 << 20)), Lane { sender: u64::from(sender), class })
            .unwrap();
    }
    let mut arrived = Vec::new();
    let mut written = 0;
    while arrived.len() < 3 {
        // There is always a small one that could go first.
        for sender in 10..400 {
            let _ = outbound.send(&to(99), Some(&binary(1000)), normal(sender)).unwrap();
        }
        let bytes = write(&mut outbound, 300_000);
        written += bytes.len();
        let large = signals(&mut far_end, &bytes).into_iter().map(|signal| signal.control);
        arrived.extend(large.filter(|control| *control != to(99)).map(|control| (control, written)));
        assert!(written < 64 << 20, "starved: {arrived:?}");
    }
    assert_eq!(arrived[2].0, to(3), "bulk stands back");
    assert!(arrived[1].1 - arrived[0].1 < 1 << 20, "two equal ones end at about the same time");
}

#[test]
fn limits_are_reported_and_then_enforced() {
    let limits = Limits { busy_limit: 10_000, max_queued: 20_000, ..Limits::default() };
    let mut outbound = Outbound::new(&ChannelConfig { limits, ..config(Flags::HIDDEN) }, Mono::ZERO);
    let payload = binary(4000);
    let results: Vec<_> = (0..7).map(|_| send(&mut outbound, &to(1), Some(&payload))).collect();
    assert_eq!(results[..2], [Ok(Queued::Ok), Ok(Queued::Ok)]);
    assert_eq!(results[2..5], [Ok(Queued::Busy), Ok(Queued::Busy), Ok(Queued::Busy)]);
    assert!(matches!(results[5], Err(Error::LimitExceeded { limit: "max_queued", .. })), "{results:?}");
    let queued = outbound.queued_bytes();
    assert!(outbound.is_busy_for(normal(2), 0));
    assert_eq!(write(&mut outbound, 15_000).len(), 15_000);
    assert_eq!(outbound.queued_bytes(), queued - 15_000);
    assert!(!outbound.is_busy_for(normal(2), 0));
    assert_eq!(send(&mut outbound, &to(1), Some(&payload)), Ok(Queued::Ok));
}

#[test]
fn large_messages_make_their_like_and_their_sender_wait_but_nobody_else() {
    let mut outbound = outbound(Flags::HIDDEN);
    let huge = binary(100 << 20);
    assert_eq!(outbound.send(&to(1), Some(&huge), normal(1)), Ok(Queued::Busy));
    assert!(outbound.is_busy_for(normal(1), 10), "the next of the same sender comes after it");
    assert!(outbound.is_busy_for(normal(2), 1 << 20));
    assert!(outbound.is_busy_for(Lane { sender: 2, class: LaneClass::Bulk }, 10));
    assert!(!outbound.is_busy_for(normal(2), 10));
    // It is beyond `max_queued`, but its sender had waited; others that cannot wait still have their room.
    assert_eq!(outbound.send(&to(1), Some(&binary(60 << 20)), normal(2)), Ok(Queued::Busy));
    assert_eq!(outbound.send(&to(1), Some(&binary(10 << 20)), normal(3)), Ok(Queued::Busy));
    let refused = outbound.send(&to(1), Some(&raw(1)), normal(4));
    assert!(matches!(refused, Err(Error::LimitExceeded { limit: "max_queued", .. })), "{refused:?}");
    let mut far_end = Inbound::new(
        &ChannelConfig {
            limits: Limits { max_reassembly: 1 << 30, ..Limits::default() },
            ..ChannelConfig::new(PEER, US, 3, Flags::HIDDEN)
        },
        Mono::ZERO,
    );
    let mut arrived = 0;
    while !outbound.is_empty() {
        arrived += signals(&mut far_end, &write(&mut outbound, usize::MAX)).len();
    }
    assert_eq!(arrived, 3);
    assert_eq!(outbound.queued_bytes(), 0);
}

/// The front of a message that goes the way of an earlier one is not encoded again: it must still mean the same after the
/// atom cache has changed, and beside others with the same numbers.
#[test]
fn repeated_routes_mean_the_same_whatever_came_between() {
    for flags in [
        Flags::HIDDEN,
        Flags::HIDDEN.without(Flags::DIST_HDR_ATOM_CACHE),
        Flags::HIDDEN.without(Flags::DIST_HDR_ATOM_CACHE).without(Flags::FRAGMENTS),
        Flags::HIDDEN.without(Flags::SEND_SENDER),
    ] {
        let mut outbound = outbound(flags);
        let (mut by_signal, mut by_message) = (far_end(flags), far_end(flags));
        let name = |n: u32| Atom::new(&format!("name_{n}")).unwrap();
        for n in 0..4000_u32 {
            let control = match n % 7 {
                0 | 1 => to(n / 7 % 40),
                2 => ControlMessage::Send { from: Some(third()), to: theirs(1) },
                3 => ControlMessage::RegSend { from: ours(1), to: name(n / 70 % 3) },
                // Thousands of names: every slot of the cache changes hands.
                4 => ControlMessage::RegSend { from: ours(2), to: name(n) },
                5 => ControlMessage::Send { from: Some(ours(1)), to: stale() },
                _ => ControlMessage::Exit2 { from: ours(1), to: theirs(1) },
            };
            let payload = raw(Term::from((Term::Integer(i64::from(n)), Term::Atom(name(n % 5)))));
            assert_eq!(send(&mut outbound, &control, Some(&payload)), Ok(Queued::Ok));
            let bytes = write_all(&mut outbound);
            let [signal] = <[Signal; 1]>::try_from(signals(&mut by_signal, &bytes)).unwrap();
            let anonymous = match &control {
                ControlMessage::Send { to, .. } if !flags.contains(Flags::SEND_SENDER) => {
                    ControlMessage::Send { from: None, to: to.clone() }
                }
                control => control.clone(),
            };
            assert_eq!(signal.control, anonymous);
            assert_eq!(signal.payload.unwrap().as_bytes(), payload.as_bytes());

            by_message.handle_input(Mono::ZERO, &mut BytesMut::from(&bytes[..]));
            match by_message.poll_messages(3).unwrap() {
                Some((to, mut messages)) => {
                    let message = messages.next().unwrap();
                    assert!(messages.is_empty());
                    let ControlMessage::Send { to: sent, .. } = &control else { panic!("{control:?}") };
                    assert_eq!((to.id, to.serial, to.creation), (sent.id, sent.serial, sent.creation));
                    assert_eq!(message.as_bytes(), payload.as_bytes());
                }
                None => assert_eq!(by_message.poll_signal().unwrap().unwrap().control, anonymous),
            }
            assert!(by_message.poll_messages(3).unwrap().is_none());
            assert!(by_message.poll_signal().unwrap().is_none());
        }
    }
}

/// Messages that are taken together, any number at a time, are those that come one by one, and so is what is wrong with a frame
/// among them.
#[test]
fn messages_together_are_the_signals_one_by_one() {
    let (mut together, mut refused) = (0, 0);
    for seed in 0..400 {
        let mut random = Random(seed);
        let flags = random.pick(&[Flags::HIDDEN, Flags::HIDDEN.without(Flags::DIST_HDR_ATOM_CACHE)]);
        let mut outbound = outbound(flags);
        // One that refers to the atoms of the header.
        let refers =
            RawTerm::new(vec![104, 2, 82, 1, 82, 0].into(), Some([PEER, US].into()), &Limits::default());
        let refers = refers.unwrap();
        let mut bytes = Vec::new();
        for n in 0..60 {
            let to = random.pick(&[1, 1, 1, 1, 2]);
            let control = match random.below(12) {
                0 => {
                    ControlMessage::RegSend { from: ours(1), to: Atom::new(&format!("n{}", n % 9)).unwrap() }
                }
                1 => ControlMessage::Send { from: Some(ours(1)), to: stale() },
                2 | 3 => ControlMessage::Send { from: Some(ours(2)), to: theirs(to) },
                _ => ControlMessage::Send { from: Some(ours(1)), to: theirs(to) },
            };
            let payload = match random.below(4) {
                0 => refers.clone(),
                1 => binary(random.below(300) as usize),
                _ => raw(Term::from((Term::atom("msg"), Term::Integer(n)))),
            };
            assert_eq!(send(&mut outbound, &control, Some(&payload)), Ok(Queued::Ok));
            bytes.extend(write_all(&mut outbound));
            if random.below(20) == 0 {
                bytes.extend(TICK);
            }
        }
        // Sometimes one byte is another one.
        if random.below(2) == 0 {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] = random.below(256) as u8;
        }
        let (mut one_by_one, mut by_messages) = (far_end(flags), far_end(flags));
        one_by_one.handle_input(Mono::ZERO, &mut BytesMut::from(&bytes[..]));
        by_messages.handle_input(Mono::ZERO, &mut BytesMut::from(&bytes[..]));
        loop {
            let most = 1 + random.below(9) as usize;
            match by_messages.poll_messages(most) {
                Ok(Some((to, messages))) => {
                    assert!((1..=most).contains(&messages.len()));
                    together += usize::from(messages.len() > 1);
                    for message in messages {
                        let signal = one_by_one.poll_signal().unwrap().unwrap();
                        let ControlMessage::Send { to: sent, .. } = &signal.control else {
                            panic!("{signal:?}")
                        };
                        assert_eq!((to.id, to.serial, to.creation), (sent.id, sent.serial, sent.creation));
                        let payload = signal.payload.unwrap();
                        assert_eq!(
                            (message.as_bytes(), message.atoms()),
                            (payload.as_bytes(), payload.atoms())
                        );
                    }
                    continue;
                }
                Ok(None) => {}
                Err(error) => {
                    assert_eq!(one_by_one.poll_signal().unwrap_err(), error);
                    assert_eq!(by_messages.poll_messages(most).unwrap_err(), error);
                    refused += 1;
                    break;
                }
            }
            let (signal, expected) = (by_messages.poll_signal(), one_by_one.poll_signal());
            assert_eq!(format!("{signal:?}"), format!("{expected:?}"));
            if !matches!(signal, Ok(Some(_))) {
                break;
            }
        }
    }
    assert!(together > 1000 && refused > 3, "{together} {refused}");
}

#[test]
fn ticks_are_sent_only_when_nothing_else_is() {
    let mut outbound = outbound(Flags::HIDDEN);
    let at = |seconds| Mono::ZERO + Duration::from_secs(seconds);
    assert_eq!(outbound.poll_timeout(), at(15));
    outbound.handle_timeout(at(14));
    assert!(outbound.is_empty(), "not yet");
    outbound.handle_timeout(at(15));
    assert_eq!(write_all(&mut outbound), [0; 4]);
    outbound.handle_timeout(at(30));
    assert!(outbound.is_empty(), "the tick itself was written since");
    outbound.handle_timeout(at(45));
    assert_eq!(write_all(&mut outbound), [0; 4]);
    outbound.handle_timeout(at(60));
    let _ = send(&mut outbound, &to(1), Some(&raw(1))).unwrap();
    outbound.handle_timeout(at(75));
    assert_eq!(signals(&mut far_end(Flags::HIDDEN), &write_all(&mut outbound)).len(), 1);
    assert!(outbound.is_empty(), "the socket takes nothing: a tick would not help");
    outbound.tick();
    outbound.tick();
    assert_eq!(write_all(&mut outbound), [0; 4]);
}

/// The short way says what the long one says, or nothing.
#[test]
fn what_is_sent_again_is_what_send_writes() {
    let old = Flags::HIDDEN.without(Flags::V4_NC);
    for flags in [Flags::HIDDEN, Flags::HIDDEN.without(Flags::DIST_HDR_ATOM_CACHE), Flags::MANDATORY_25, old]
    {
        let (mut short, mut long) = (outbound(flags), outbound(flags));
        let (mut again, mut steps) = (0, Vec::new());
        for step in 0..200_u32 {
            let control = if step % 7 == 0 {
                ControlMessage::RegSend { from: ours(1), to: Atom::new("name").unwrap() }
            } else {
                to(step % 3)
            };
            let message = match step % 11 {
                0 => raw(Atom::new(&format!("atom{step}")).unwrap()),
                1 => binary(5000),
                2 => binary(100_000),
                _ => raw(i64::from(step)),
            };
            let lane = normal(u64::from(step % 2));
            let plain = message.as_plain().unwrap();
            let (from, receiver) = routes::ends(&control).unwrap();
            if short.send_again(from, receiver, plain, lane) {
                again += 1;
            } else {
                let _ = short.send(&control, Some(&message), lane).unwrap();
            }
            let _ = long.send(&control, Some(&message), lane).unwrap();
            if step % 5 == 0 {
                steps.push((write_all(&mut short), write_all(&mut long)));
            }
        }
        for (short, long) in steps {
            assert_eq!(short, long, "{flags:?}");
        }
        // The identifiers in payloads for an old peer have to be looked at.
        assert!(if flags.contains(Flags::V4_NC) { again > 50 } else { again == 0 }, "{again} with {flags:?}");
    }
}

/// Large messages wait for the answers to MONITOR_P, and small ones do not.
#[test]
fn large_messages_wait_until_the_peer_has_read() {
    let mut outbound = outbound(Flags::HIDDEN);
    let mut far_end = far_end(Flags::HIDDEN);
    outbound.pace(ours(9), a_ref(US, 3));
    let _ = outbound.send(&to(1), Some(&raw(1)), normal(1)).unwrap();
    let _ = outbound.send(&to(1), Some(&binary(8 << 20)), normal(1)).unwrap();
    let (mut asked, mut whole, mut rounds) = (0, 0, 0);
    while whole < 2 {
        rounds += 1;
        assert!(rounds < 1000);
        let mut bytes = Vec::new();
        loop {
            let part = write(&mut outbound, usize::MAX);
            if part.is_empty() {
                break;
            }
            bytes.extend(part);
        }
        assert!(bytes.len() < 4 << 20, "{} at once", bytes.len());
        let signals = signals(&mut far_end, &bytes);
        let probes = signals.iter().filter(|signal| {
            matches!(&signal.control, ControlMessage::MonitorP { watcher, target: Target::Name(_), reference }
                if *watcher == ours(9) && *reference == a_ref(US, 3))
        });
        let probes = probes.count();
        whole += signals.len() - probes;
        asked += probes;
        if whole < 2 {
            assert!(probes > 0, "nothing more would come");
            assert!(!outbound.is_empty());
            // A small message of another process is on the wire at once.
            let _ = outbound.send(&to(1), Some(&raw(2)), normal(2)).unwrap();
            let small = write(&mut outbound, usize::MAX);
            assert!((1..100).contains(&small.len()));
            let _ = self::signals(&mut far_end, &small);
        }
        for _ in 0..probes {
            outbound.paced(Mono::ZERO);
        }
    }
    assert!(asked > 8, "{asked}");
    // What is left when the connection ends goes at once.
    let _ = outbound.send(&to(1), Some(&binary(8 << 20)), normal(1)).unwrap();
    let _ = write(&mut outbound, usize::MAX);
    outbound.stop_pacing();
    assert!(write_all(&mut outbound).len() > 7 << 20);
    // A peer without fragments is not asked.
    let mut outbound = self::outbound(Flags::HIDDEN.without(Flags::FRAGMENTS));
    outbound.pace(ours(9), a_ref(US, 3));
    let _ = outbound.send(&to(1), Some(&binary(8 << 20)), normal(1)).unwrap();
    assert!(write_all(&mut outbound).len() > 8 << 20);
}

/// Both sides send large messages, and pace them: the answers to the other side's probes are no small messages that wait.
#[test]
fn large_messages_of_an_exchange_go_whole() {
    let mut outbound = outbound(Flags::HIDDEN);
    outbound.pace(ours(9), a_ref(US, 3));
    let noproc = raw(Atom::new_static("noproc"));
    let answer = ControlMessage::MonitorPExit {
        target: Target::Name(Atom::new_static(PROBED)),
        watcher: theirs(9),
        reference: a_ref(PEER, 3),
    };
    let mut now = Mono::ZERO;
    let mut round = |small: &ControlMessage| {
        let _ = send(&mut outbound, &to(1), Some(&binary(300_000))).unwrap();
        let first = write_at(&mut outbound, now);
        while !outbound.is_empty() {
            now = now + Duration::from_micros(20);
            outbound.paced(now);
            write_at(&mut outbound, now);
        }
        // It comes before the last answer.
        let _ = outbound.send(small, Some(&noproc), normal(2)).unwrap();
        write_at(&mut outbound, now);
        now = now + Duration::from_micros(100);
        (0..8).for_each(|_| outbound.paced(now));
        // The second byte of the frame: of a whole message, or of the first of several fragments.
        first[5]
    };
    assert_eq!([round(&answer), round(&answer), round(&answer)], [69, 68, 68], "known from the second on");
    assert_eq!([round(&to(2)), round(&to(2))], [68, 69], "a small message has had a large one in front");
}

/// Writes what there is to write at this time.
fn write_at(outbound: &mut Outbound, now: Mono) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = outbound.poll_transmit(now, &mut slices);
        if filled == 0 {
            return bytes;
        }
        let before = bytes.len();
        slices[..filled].iter().for_each(|slice| bytes.extend_from_slice(slice));
        outbound.advance(bytes.len() - before);
    }
}
