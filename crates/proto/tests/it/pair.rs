//! Two connections, one wire between them, in virtual time.
//!
//! PURPOSE: what no test of one side can show: that both sides come to the same result, however the bytes are cut and delayed.
//!
//! INVARIANTS
//! 1. Either both sides are up, with the same effective flags and each other's name and creation, or both are down.
//! 2. Cutting or delaying the bytes anywhere (within the deadlines) changes nothing but the time.
//! 3. Signals arrive in the order they were sent, also those that follow the last byte of the handshake at once.
//! 4. Nobody waits for ever: with the wire cut, each side is down within its deadlines.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use foundation_proto::dist::connection::{Connection, ConnectionConfig, Event, Output};
use foundation_proto::dist::handshake::{
    Agreement, Decision, HandshakeConfig, LengthPrefix, PeerState, Verdict, decide,
};
use foundation_proto::dist::{ControlMessage, Cookie, DistributionFlags, Lane, LaneClass, NodeName, Signal};
use foundation_proto::error::{ClosedBy, Error, PeerIncompatible, PeerMisbehaved};
use foundation_proto::etf::{Atom, Pid, RawTerm};
use foundation_proto::{Limits, Mono};

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

fn config(own: &str, creation: u32) -> ConnectionConfig {
    let cookie = Cookie::new("secret").unwrap();
    ConnectionConfig::new(HandshakeConfig::new(name(own), creation, cookie))
}

/// How the wire treats the bytes of one direction.
#[derive(Clone, Debug, Default)]
struct Wire {
    /// The greatest number of bytes that arrive at once; 0 for any number.
    piece: usize,
    /// At this position of the stream the bytes stop for a second.
    pause_at: Option<usize>,
    /// From this position on nothing arrives any more.
    cut_at: Option<usize>,
    sent: usize,
    free_at: Mono,
    in_flight: VecDeque<(Mono, Bytes)>,
}

impl Wire {
    const LATENCY: Duration = Duration::from_millis(1);

    fn send(&mut self, now: Mono, mut bytes: Bytes) {
        while !bytes.is_empty() {
            let mut piece = if self.piece == 0 { bytes.len() } else { self.piece.min(bytes.len()) };
            for stop in [self.pause_at, self.cut_at].into_iter().flatten() {
                if stop > self.sent {
                    piece = piece.min(stop - self.sent);
                }
            }
            let piece = bytes.split_to(piece);
            let mut at = self.free_at.max(now + Self::LATENCY);
            if self.pause_at == Some(self.sent) {
                at = at + Duration::from_secs(1);
            }
            let is_cut = self.cut_at.is_some_and(|cut| self.sent >= cut);
            self.sent += piece.len();
            self.free_at = at;
            if !is_cut {
                self.in_flight.push_back((at, piece));
            }
        }
    }
}

/// One end: a connection and a host that answers its events.
struct End {
    connection: Connection,
    input: BytesMut,
    /// What arrives here.
    wire: Wire,
    decision: Decision,
    answer_alive: bool,
    /// Sent as soon as the connection is up.
    greeting: Vec<Message>,
    up: Option<Agreement>,
    received: Vec<Signal>,
    down: Option<Error>,
    events: Vec<&'static str>,
    timeout: Option<Mono>,
    closed_by_peer: bool,
}

type Message = (ControlMessage, RawTerm);

impl End {
    fn new(connection: Connection) -> Self {
        Self {
            connection,
            input: BytesMut::new(),
            wire: Wire::default(),
            decision: Decision::Ok,
            answer_alive: true,
            greeting: Vec::new(),
            up: None,
            received: Vec::new(),
            down: None,
            events: Vec::new(),
            timeout: None,
            closed_by_peer: false,
        }
    }

    /// Does what the connection wants; gives the bytes that it sends.
    fn drain(&mut self, now: Mono) -> Vec<Bytes> {
        let mut sent = Vec::new();
        loop {
            let event = match self.connection.poll_output() {
                Output::Transmit(bytes) => {
                    sent.push(bytes);
                    continue;
                }
                Output::Timeout(timeout) => {
                    self.timeout = timeout;
                    return sent;
                }
                Output::Event(event) => event,
            };
            match event {
                Event::PeerHello(_) => {
                    self.events.push("hello");
                    self.connection.decide(now, self.decision.clone()).unwrap();
                }
                Event::PeerProved => {
                    self.events.push("proved");
                    self.connection.replaced(now).unwrap();
                }
                Event::PeerAlive => {
                    self.events.push("alive");
                    self.connection.answer_alive(now, self.answer_alive).unwrap();
                }
                Event::PeerNok => self.events.push("nok"),
                Event::Up(agreement) => {
                    assert!(self.up.is_none() && self.down.is_none());
                    self.up = Some(*agreement);
                    for (control, payload) in &self.greeting {
                        let _ = self.connection.send(control, Some(payload), lane(1)).unwrap();
                    }
                }
                Event::Signal(signal) => {
                    assert!(self.up.is_some() && self.down.is_none());
                    self.received.push(*signal);
                }
                Event::Down(error) => {
                    assert!(self.down.is_none(), "down twice");
                    self.down = Some(error);
                }
                other => panic!("{other:?}"),
            }
            // The bytes behind the one that was answered.
            self.connection.handle_input(now, &mut self.input);
        }
    }
}

struct Pair {
    initiator: End,
    acceptor: End,
    now: Mono,
    /// Whether an end notices that the other has closed.
    carries_close: bool,
}

impl Pair {
    fn new(initiator: ConnectionConfig, dialled: &str, acceptor: ConnectionConfig) -> Self {
        let now = Mono(7_000_000_000);
        Self {
            initiator: End::new(Connection::initiate(initiator, name(dialled), 0x1111_1111, now).unwrap()),
            acceptor: End::new(Connection::accept(acceptor, 0x2222_2222, now).unwrap()),
            now,
            carries_close: true,
        }
    }

    fn ends(&mut self) -> [&mut End; 2] {
        [&mut self.initiator, &mut self.acceptor]
    }

    /// Runs until nothing is in flight and no deadline comes before `until`.
    fn run_until(&mut self, until: Mono) {
        loop {
            let now = self.now;
            for bytes in self.initiator.drain(now) {
                self.acceptor.wire.send(now, bytes);
            }
            for bytes in self.acceptor.drain(now) {
                self.initiator.wire.send(now, bytes);
            }
            // Who is down closes; the other end sees that after the bytes that were sent before.
            let carries_close = self.carries_close;
            let down = [self.initiator.down.is_some(), self.acceptor.down.is_some()];
            for (end, peer_is_down) in self.ends().into_iter().zip([down[1], down[0]]) {
                if carries_close && peer_is_down && end.wire.in_flight.is_empty() && !end.closed_by_peer {
                    end.closed_by_peer = true;
                    end.connection.handle_close();
                }
            }
            if self.ends().iter().any(|end| end.closed_by_peer && end.down.is_none()) {
                continue;
            }
            let next = self
                .ends()
                .iter()
                .flat_map(|end| [end.wire.in_flight.front().map(|(at, _)| *at), end.timeout])
                .flatten()
                .min();
            let Some(next) = next.filter(|next| *next <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(next);
            let now = self.now;
            for end in self.ends() {
                while end.wire.in_flight.front().is_some_and(|(at, _)| *at <= now) {
                    let (_, bytes) = end.wire.in_flight.pop_front().unwrap();
                    end.input.extend_from_slice(&bytes);
                    end.connection.handle_input(now, &mut end.input);
                }
                if end.timeout.is_some_and(|timeout| timeout <= now) {
                    end.connection.handle_timeout(now);
                }
            }
        }
    }

    fn run_for(&mut self, duration: Duration) {
        self.run_until(self.now + duration);
    }

    fn assert_up(&self) {
        let [one, other] = [&self.initiator, &self.acceptor].map(|end| match (&end.up, &end.down) {
            (Some(agreement), None) => agreement,
            other => panic!("not up: {other:?}"),
        });
        assert_eq!(one.peer.flags, other.peer.flags);
        assert_eq!(one.peer.hidden, other.peer.hidden);
        for (one, other) in [(one, other), (other, one)] {
            assert_eq!((&one.own_name, one.own_creation), (&other.peer.name, other.peer.creation));
        }
    }

    fn down(&self) -> [Option<Error>; 2] {
        [self.initiator.down.clone(), self.acceptor.down.clone()]
    }
}

fn lane(sender: u64) -> Lane {
    Lane { sender, class: LaneClass::Normal }
}

/// A message from a process of `node` to a registered name; `text` tells it from others.
fn message(node: &str, creation: u32, text: &str) -> Message {
    let from = Pid { node: Atom::new(node).unwrap(), id: 7, serial: 0, creation };
    let mut term = vec![109, 0, 0, 0, text.len() as u8];
    term.extend_from_slice(text.as_bytes());
    let payload = RawTerm::new(Bytes::from(term), None, &Limits::default()).unwrap();
    (ControlMessage::RegSend { from, to: Atom::new_static("echo") }, payload)
}

fn texts(end: &End) -> Vec<String> {
    end.received
        .iter()
        .map(|signal| {
            assert!(matches!(&signal.control, ControlMessage::RegSend { to, .. } if *to == "echo"));
            String::from_utf8_lossy(&signal.payload.as_ref().unwrap().as_bytes()[5..]).into_owned()
        })
        .collect()
}

/// Both sides greet as soon as they are up: the acceptor's first frames follow its acknowledgement at once.
fn greeting_pair() -> Pair {
    let mut pair = Pair::new(config("a@h", 11), "b@h", config("b@h", 22));
    pair.initiator.greeting = (0..3).map(|i| message("a@h", 11, &format!("a{i}"))).collect();
    pair.acceptor.greeting = (0..3).map(|i| message("b@h", 22, &format!("b{i}"))).collect();
    pair
}

fn assert_greeted(pair: &Pair) {
    pair.assert_up();
    assert_eq!(texts(&pair.acceptor), ["a0", "a1", "a2"]);
    assert_eq!(texts(&pair.initiator), ["b0", "b1", "b2"]);
}

#[test]
fn undisturbed() {
    let mut pair = greeting_pair();
    pair.run_for(Duration::from_secs(1));
    assert_greeted(&pair);
    let agreement = pair.initiator.up.as_ref().unwrap();
    assert_eq!((agreement.peer.name.as_str(), agreement.peer.creation), ("b@h", 22));
    assert_eq!(agreement.peer.flags, DistributionFlags::HIDDEN);
}

#[test]
fn byte_by_byte() {
    for pieces in [(1, 0), (0, 1), (1, 1), (2, 3), (7, 5)] {
        let mut pair = greeting_pair();
        (pair.initiator.wire.piece, pair.acceptor.wire.piece) = pieces;
        pair.run_for(Duration::from_secs(1));
        assert_greeted(&pair);
    }
}

/// A pause of a second at every position of the stream, in either direction.
#[test]
fn a_pause_at_every_byte() {
    let mut whole = greeting_pair();
    whole.run_for(Duration::from_secs(1));
    for at in 0..whole.acceptor.wire.sent {
        let mut pair = greeting_pair();
        pair.acceptor.wire.pause_at = Some(at);
        pair.run_for(Duration::from_secs(3));
        assert_greeted(&pair);
    }
    for at in 0..whole.initiator.wire.sent {
        let mut pair = greeting_pair();
        pair.initiator.wire.pause_at = Some(at);
        pair.run_for(Duration::from_secs(3));
        assert_greeted(&pair);
    }
}

/// The wire goes dead at every position of the handshake, in either direction: both sides are down when their deadlines are.
#[test]
fn a_dead_wire_at_every_byte_of_the_handshake() {
    let mut whole = Pair::new(config("a@h", 11), "b@h", config("b@h", 22));
    whole.run_for(Duration::from_secs(1));
    whole.assert_up();
    let (to_acceptor, to_initiator) = (whole.acceptor.wire.sent, whole.initiator.wire.sent);
    for cut in (0..to_acceptor)
        .map(|at| (Some(at), Some(to_initiator)))
        .chain((0..to_initiator).map(|at| (Some(to_acceptor), Some(at))))
    {
        let mut pair = Pair::new(config("a@h", 11), "b@h", config("b@h", 22));
        (pair.acceptor.wire.cut_at, pair.initiator.wire.cut_at) = cut;
        pair.carries_close = false;
        // 15 s for the handshake; one that came up on one side only is found by the net tick time.
        pair.run_for(Duration::from_secs(15 + 60));
        for end in [&pair.initiator, &pair.acceptor] {
            let expected = match &end.up {
                None => PeerMisbehaved::HandshakeTimeout,
                Some(_) => PeerMisbehaved::TickTimeout,
            };
            assert_eq!(end.down, Some(Error::PeerMisbehaved(expected)), "{cut:?}");
        }
    }
}

/// One byte every five seconds keeps each step alive for a while, and the whole handshake for 15 s at most.
#[test]
fn a_slow_drip_ends_at_the_total_deadline() {
    let mut pair = Pair::new(config("a@h", 11), "b@h", config("b@h", 22));
    let start = pair.now;
    let mut acceptor = End::new(Connection::accept(config("b@h", 22), 1, start).unwrap());
    let bytes = pair.initiator.drain(start).concat();
    for (i, byte) in bytes.iter().enumerate() {
        let now = start + Duration::from_secs(5 * i as u64);
        acceptor.connection.handle_timeout(now);
        acceptor.input.extend_from_slice(&[*byte]);
        acceptor.connection.handle_input(now, &mut acceptor.input);
        acceptor.drain(now);
    }
    assert_eq!(acceptor.down, Some(Error::PeerMisbehaved(PeerMisbehaved::HandshakeTimeout)));
    assert!(acceptor.events.is_empty());
}

#[test]
fn every_status() {
    let refused = |error| [Some(error), Some(Error::Closed(ClosedBy::Local))];
    let nok = refused(Error::PeerIncompatible(PeerIncompatible::Nok));
    let not_allowed = refused(Error::PeerIncompatible(PeerIncompatible::NotAllowed));
    let already = Some(Error::PeerIncompatible(PeerIncompatible::AlreadyConnected));
    for piece in [0, 1] {
        for (decision, answer_alive, down, events) in [
            (Decision::Ok, true, [None, None], (&[][..], &["hello"][..])),
            (Decision::OkSimultaneous, true, [None, None], (&[], &["hello"])),
            (Decision::Nok, true, nok.clone(), (&["nok"], &["hello"])),
            (Decision::NotAllowed, true, not_allowed.clone(), (&[], &["hello"])),
            (Decision::Alive, true, [None, None], (&["alive"], &["hello", "proved"])),
            (Decision::Alive, false, [already.clone(), already.clone()], (&["alive"], &["hello"])),
        ] {
            let mut pair = greeting_pair();
            pair.initiator.wire.piece = piece;
            pair.acceptor.wire.piece = piece;
            pair.acceptor.decision = decision.clone();
            pair.initiator.answer_alive = answer_alive;
            pair.run_for(Duration::from_secs(1));
            assert_eq!(pair.down(), down, "{decision:?}");
            assert_eq!((&pair.initiator.events[..], &pair.acceptor.events[..]), events, "{decision:?}");
            if down == [None, None] {
                assert_greeted(&pair);
            }
        }
    }
}

#[test]
fn a_dynamic_name() {
    let dynamic = HandshakeConfig::dynamic("h", Cookie::new("secret").unwrap());
    let mut pair = Pair::new(ConnectionConfig::new(dynamic), "b@h", config("b@h", 22));
    pair.acceptor.decision = Decision::Named { name: name("XYZ@h"), creation: 77 };
    pair.acceptor.greeting = vec![message("b@h", 22, "welcome")];
    pair.run_for(Duration::from_secs(1));
    pair.assert_up();
    let agreement = pair.initiator.up.as_ref().unwrap();
    assert_eq!((agreement.own_name.as_str(), agreement.own_creation), ("XYZ@h", 77));
    assert_eq!(texts(&pair.initiator), ["welcome"]);
    let (control, payload) = message("XYZ@h", 77, "thanks");
    let _ = pair.initiator.connection.send(&control, Some(&payload), lane(1)).unwrap();
    pair.run_for(Duration::from_secs(1));
    assert_eq!(texts(&pair.acceptor), ["thanks"]);
}

#[test]
fn over_tls_the_lengths_of_the_handshake_are_wider() {
    let mut pair = greeting_pair();
    let tls = |own, creation| {
        let mut config = config(own, creation);
        config.handshake.prefix = LengthPrefix::Four;
        config
    };
    let mut wide = Pair::new(tls("a@h", 11), "b@h", tls("b@h", 22));
    wide.initiator.greeting = pair.initiator.greeting.clone();
    wide.acceptor.greeting = pair.acceptor.greeting.clone();
    pair.run_for(Duration::from_secs(1));
    wide.run_for(Duration::from_secs(1));
    assert_greeted(&wide);
    // Two messages of the initiator, three of the acceptor.
    assert_eq!(wide.acceptor.wire.sent, pair.acceptor.wire.sent + 2 * 2);
    assert_eq!(wide.initiator.wire.sent, pair.initiator.wire.sent + 3 * 2);
}

#[test]
fn different_cookies() {
    let mut other = config("b@h", 22);
    other.handshake.cookie = Cookie::new("another").unwrap();
    let mut pair = Pair::new(config("a@h", 11), "b@h", other);
    pair.run_for(Duration::from_secs(1));
    let wrong = Some(Error::PeerMisbehaved(PeerMisbehaved::WrongCookie));
    assert_eq!(pair.down(), [wrong.clone(), wrong]);
}

#[test]
fn another_node_answers() {
    let mut pair = Pair::new(config("a@h", 11), "c@h", config("b@h", 22));
    pair.run_for(Duration::from_secs(1));
    let wrong = PeerMisbehaved::WrongName { expected: "c@h".to_owned(), got: "b@h".to_owned() };
    assert_eq!(pair.down(), [Some(Error::PeerMisbehaved(wrong)), Some(Error::Closed(ClosedBy::Peer))]);
}

#[test]
fn flags_that_one_side_requires_and_the_other_does_not_offer() {
    let old = |own, creation| {
        let mut config = config(own, creation);
        config.handshake.flags = DistributionFlags::from_bits(0x1_01df_7fbc);
        config
    };
    let strict = |own, creation| {
        let mut config = config(own, creation);
        config.handshake.required = DistributionFlags::MANDATORY_26;
        config
    };
    let lacking = DistributionFlags::V4_NC | DistributionFlags::UNLINK_ID;
    let missing = Some(Error::PeerIncompatible(PeerIncompatible::MissingFlags(lacking)));

    let mut pair = Pair::new(old("a@h", 11), "b@h", strict("b@h", 22));
    pair.run_for(Duration::from_secs(1));
    let refused = Some(Error::PeerIncompatible(PeerIncompatible::NotAllowed));
    assert_eq!(pair.down(), [refused, missing.clone()]);

    let mut pair = Pair::new(strict("a@h", 11), "b@h", old("b@h", 22));
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.down(), [missing, Some(Error::Closed(ClosedBy::Peer))]);

    // By default the peers of OTP 23 are accepted, in both roles.
    for (one, other) in [(old("a@h", 11), config("b@h", 22)), (config("a@h", 11), old("b@h", 22))] {
        let mut pair = Pair::new(one, "b@h", other);
        pair.initiator.greeting = vec![message("a@h", 11, "hello")];
        pair.run_for(Duration::from_secs(1));
        pair.assert_up();
        assert_eq!(texts(&pair.acceptor), ["hello"]);
        assert_eq!(pair.acceptor.up.unwrap().peer.flags.bits(), 0x1_01df_7fbc);
    }
}

/// The flags that decide how frames look, in every combination.
#[test]
fn signals_in_every_frame_form() {
    let optional = [
        DistributionFlags::DIST_HDR_ATOM_CACHE,
        DistributionFlags::FRAGMENTS,
        DistributionFlags::SEND_SENDER,
        DistributionFlags::ALTACT_SIG,
    ];
    for mask in 0..1 << optional.len() {
        let mut offer = DistributionFlags::HIDDEN;
        for (i, flag) in optional.iter().enumerate() {
            if mask >> i & 1 == 1 {
                offer = offer.without(*flag);
            }
        }
        let mut pair = greeting_pair();
        let mut reduced = config("a@h", 11);
        reduced.handshake.flags = offer;
        pair.initiator.connection =
            Connection::initiate(reduced, name("b@h"), 0x1111_1111, pair.now).unwrap();
        pair.initiator.wire.piece = 3;
        pair.run_for(Duration::from_secs(1));
        assert_greeted(&pair);
        assert_eq!(pair.acceptor.up.unwrap().peer.flags, offer);
    }
}

#[test]
fn ticks_keep_an_idle_connection_and_their_absence_ends_it() {
    let mut pair = Pair::new(config("a@h", 11), "b@h", config("b@h", 22));
    pair.run_for(Duration::from_secs(3600));
    pair.assert_up();
    // The wire goes dead in one direction; the other side still hears everything, and is told by the close.
    pair.acceptor.wire.cut_at = Some(pair.acceptor.wire.sent);
    pair.run_for(Duration::from_secs(61));
    assert_eq!(
        pair.down(),
        [Some(Error::Closed(ClosedBy::Peer)), Some(Error::PeerMisbehaved(PeerMisbehaved::TickTimeout))]
    );
    let (control, payload) = message("a@h", 11, "late");
    assert_eq!(
        pair.initiator.connection.send(&control, Some(&payload), lane(1)),
        Err(Error::Closed(ClosedBy::Peer))
    );
}

/// A hidden peer that only listens is asked for a sign of life, also while messages are sent to it; a visible one has to
/// tick by itself.
#[test]
fn a_hidden_peer_that_is_silent_gets_a_tick_amid_traffic() {
    for (flags, ticks) in [(DistributionFlags::HIDDEN, true), (DistributionFlags::VISIBLE, false)] {
        let offer = |own, creation| {
            let mut config = config(own, creation);
            config.handshake.flags = flags;
            config
        };
        let mut pair = Pair::new(offer("a@h", 11), "b@h", offer("b@h", 22));
        pair.run_for(Duration::from_secs(1));
        pair.assert_up();
        let mut connection = pair.initiator.connection;
        let (control, payload) = message("a@h", 11, "again");
        let mut is_ticked = false;
        for _ in 0..3 {
            let _ = connection.send(&control, Some(&payload), lane(1)).unwrap();
            let deadline = loop {
                match connection.poll_output() {
                    Output::Transmit(bytes) => is_ticked |= *bytes == [0; 4],
                    Output::Timeout(timeout) => break timeout.unwrap(),
                    Output::Event(event) => panic!("{event:?}"),
                }
            };
            connection.handle_timeout(deadline);
            while let Output::Transmit(bytes) = connection.poll_output() {
                is_ticked |= *bytes == [0; 4];
            }
        }
        assert_eq!(is_ticked, ticks);
    }
}

#[test]
fn nothing_is_sent_before_the_connection_is_up() {
    let mut pair = Pair::new(config("a@h", 11), "b@h", config("b@h", 22));
    let (control, payload) = message("a@h", 11, "early");
    assert!(matches!(
        pair.initiator.connection.send(&control, Some(&payload), lane(1)),
        Err(Error::ApiMisuse(_))
    ));
    assert!(matches!(pair.acceptor.connection.answer_alive(pair.now, true), Err(Error::ApiMisuse(_))));
    assert!(matches!(pair.acceptor.connection.decide(pair.now, Decision::Ok), Err(Error::ApiMisuse(_))));
    assert!(pair.initiator.connection.into_established().is_err());
}

/// The halves go on where the whole was, with the bytes that came behind the handshake.
#[test]
fn the_halves_of_a_connection() {
    let mut pair = greeting_pair();
    pair.run_for(Duration::from_secs(1));
    let (control, payload) = message("b@h", 22, "more");
    let _ = pair.acceptor.connection.send(&control, Some(&payload), lane(1)).unwrap();
    let Output::Transmit(bytes) = pair.acceptor.connection.poll_output() else { panic!() };
    let mut halves = pair.initiator.connection.into_established().unwrap();
    assert_eq!(halves.peer.name, name("b@h"));
    halves.inbound.handle_input(pair.now, &mut BytesMut::from(&bytes[..]));
    let signal = halves.inbound.poll_signal().unwrap().unwrap();
    assert_eq!(signal.payload.unwrap().as_bytes(), payload.as_bytes());
}

/// Two nodes that dial each other at the same moment, with every interleaving of whose name arrives first. Afterwards there
/// is one connection, and it is the same one on both sides.
#[test]
fn simultaneous_connects() {
    for (one, other) in [("A@h", "n@h"), ("zzzzzzzzzzzzzz@h", "n@h")] {
        for first in [0, 1] {
            // Each acceptor decides by its node's own attempt, which has sent its name already.
            let mut pairs = [(one, other), (other, one)].map(|(dialling, dialled)| {
                let mut pair = Pair::new(config(dialling, 11), dialled, config(dialled, 22));
                pair.acceptor.decision = match decide(&name(dialled), &name(dialling), PeerState::Dialled) {
                    Verdict::Decide(decision) => decision,
                    Verdict::GiveUpOwnAttempt => Decision::OkSimultaneous,
                    Verdict::Close => panic!("nobody is replacing anything"),
                };
                pair
            });
            pairs[first].run_for(Duration::from_secs(1));
            pairs[1 - first].run_for(Duration::from_secs(1));
            let up = pairs.each_ref().map(|pair| pair.initiator.up.is_some() && pair.acceptor.up.is_some());
            let greater = if one > other { [true, false] } else { [false, true] };
            assert_eq!(up, greater, "the attempt of the greater name survives");
            for (pair, up) in pairs.iter().zip(up) {
                if up {
                    pair.assert_up();
                } else {
                    let nok = Some(Error::PeerIncompatible(PeerIncompatible::Nok));
                    assert_eq!(pair.down(), [nok, Some(Error::Closed(ClosedBy::Local))]);
                }
            }
        }
    }
}
