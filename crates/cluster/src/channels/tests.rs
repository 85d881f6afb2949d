use foundation_proto::etf::{Pid, RawTerm, Tape};
use foundation_proto::{Limits, Mono};

use super::*;
use crate::Machine;

fn pid(node: &'static str, id: u32) -> Pid {
    Pid { node: Atom::new_static(node), id, serial: 0, creation: 4 }
}

fn raw(number: i64) -> RawTerm {
    RawTerm::from_term(&Term::Integer(number)).unwrap()
}

fn exchange(node: &'static str, reliability: Reliability) -> Exchange {
    let config = Config { buffer_size: 4, ..Config::of(Channel::Events).reliability(reliability) };
    Exchange::new(pid(node, 1), config, Limits::default())
}

fn drain(exchange: &mut Exchange) -> Vec<Action> {
    std::iter::from_fn(|| exchange.poll_action()).collect()
}

fn broadcast(number: i64, wall: i64, ticket: Option<u64>) -> Event {
    Event::Broadcast { message: raw(number), compress: false, wall, ticket }
}

/// Carries what `from` sends to `to`; returns what `to` delivered.
fn carry(from: &mut Exchange, to: &mut Exchange, now: Mono, wall: i64) -> Vec<i64> {
    for action in drain(from) {
        if let Action::Send { message, .. } = action {
            to.handle(now, Event::Message { message, wall });
        }
    }
    let mut delivered = Vec::new();
    let mut rest = Vec::new();
    for action in drain(to) {
        match action {
            Action::Deliver { message, .. } => {
                delivered.extend(message.to_term(&Limits::default()).unwrap().as_i64());
            }
            Action::Send { message, .. } => rest.push(message),
            _ => {}
        }
    }
    for message in rest {
        from.handle(now, Event::Message { message, wall });
    }
    delivered
}

#[test]
fn a_channel_is_chosen_as_the_elixir_side_chooses() {
    assert_eq!(Channel::for_message(Priority::High, 1 << 20), Channel::Control);
    assert_eq!(Channel::for_message(Priority::Normal, LARGE), Channel::Data);
    assert_eq!(Channel::for_message(Priority::Low, LARGE - 1), Channel::Events);
    assert_eq!("coordination".parse(), Ok(Channel::Control));
    assert_eq!(":telemetry".parse(), Ok(Channel::Telemetry));
    assert!("nothing".parse::<Channel>().is_err());
    for channel in Channel::ALL {
        assert_eq!(channel.topic(), format!("foundation:{channel}"));
    }
}

#[test]
fn envelopes_and_acknowledgements_are_read_as_written() {
    let limits = Limits::default();
    let mut tape = Tape::new();
    let long = RawTerm::from_term(&Term::binary(&[1; 5_000])).unwrap();
    let mut sender = exchange("a@h", Reliability::AtLeastOnce);
    sender.handle(Mono::ZERO, Event::PeerUp(pid("b@h", 1)));
    let event = Event::Broadcast { message: long.clone(), compress: true, wall: 77, ticket: None };
    sender.handle(Mono::ZERO, event);
    let Some(Action::Send { to, message }) = sender.poll_action() else { panic!("nothing is sent") };
    assert_eq!(to, pid("b@h", 1));
    assert!(message.as_bytes().len() < 500, "it is compressed");
    let Some(Received::Envelope(envelope)) = Received::decode(&message, &mut tape).unwrap() else {
        panic!("no envelope")
    };
    assert_eq!((envelope.seq, envelope.base, envelope.sent_at, envelope.clock), (1, 1, 77, None));
    assert_eq!(envelope.message(&limits).unwrap().as_bytes(), long.as_bytes());
    assert_eq!(envelope.encode(&limits).unwrap().as_bytes(), message.as_bytes());
    for other in [raw(1), RawTerm::from_term(&Term::tuple((0..9).map(Term::Integer))).unwrap()] {
        assert!(Received::decode(&other, &mut tape).unwrap().is_none());
    }
}

#[test]
fn what_was_lost_is_sent_again_in_order_and_taken_once() {
    let (mut a, mut b) =
        (exchange("a@h", Reliability::AtLeastOnce), exchange("b@h", Reliability::AtLeastOnce));
    a.handle(Mono::ZERO, Event::PeerUp(pid("b@h", 1)));
    a.handle(Mono::ZERO, broadcast(1, 0, None));
    assert_eq!(carry(&mut a, &mut b, Mono::ZERO, 0), [1]);
    a.handle(Mono::ZERO, broadcast(2, 0, None));
    drain(&mut a);
    a.handle(Mono::ZERO, broadcast(3, 0, None));
    assert_eq!(carry(&mut a, &mut b, Mono::ZERO, 0), [], "3 waits for 2");
    assert_eq!(carry(&mut a, &mut b, Mono::ZERO, 0), [2, 3], "the gap was reported at once");
    assert_eq!((a.statistics().resent, b.statistics().received), (2, 3));
    // The connection breaks; what is sent meanwhile follows later, and what was not acknowledged before is no news.
    a.handle(Mono::ZERO, Event::PeerDown(pid("b@h", 1)));
    a.handle(Mono::ZERO, broadcast(4, 0, None));
    assert_eq!(carry(&mut a, &mut b, Mono::ZERO, 0), []);
    a.handle(Mono::ZERO, Event::PeerUp(pid("b@h", 1)));
    assert_eq!(carry(&mut a, &mut b, Mono::ZERO, 0), [4]);
    let now = b.poll_timeout().unwrap();
    b.handle_timeout(now);
    carry(&mut b, &mut a, now, 0);
    assert_eq!((a.waiting(), a.poll_timeout()), (0, None));
}

/// What was on its way when the connection broke does not wait for the time-out of an acknowledgement.
#[test]
fn what_a_lost_connection_has_swallowed_is_sent_again_at_once() {
    let (mut a, mut b) =
        (exchange("a@h", Reliability::AtLeastOnce), exchange("b@h", Reliability::AtLeastOnce));
    a.handle(Mono::ZERO, Event::PeerUp(pid("b@h", 1)));
    for number in [1, 2] {
        a.handle(Mono::ZERO, broadcast(number, 0, None));
    }
    drain(&mut a);
    a.handle(Mono::ZERO, Event::PeerDown(pid("b@h", 1)));
    a.handle(Mono::ZERO, Event::PeerUp(pid("b@h", 1)));
    assert_eq!(carry(&mut a, &mut b, Mono::ZERO, 0), [1, 2]);
    assert_eq!(a.statistics().resent, 2);
}

#[test]
fn a_buffer_that_overflows_gives_up_the_oldest_and_says_so() {
    let (mut a, mut b) =
        (exchange("a@h", Reliability::AtLeastOnce), exchange("b@h", Reliability::AtLeastOnce));
    a.handle(Mono::ZERO, Event::PeerUp(pid("b@h", 1)));
    a.handle(Mono::ZERO, Event::PeerDown(pid("b@h", 1)));
    for number in 1..=6 {
        a.handle(Mono::ZERO, broadcast(number, 0, None));
    }
    let lost: u64 = drain(&mut a)
        .iter()
        .map(|action| if let Action::Lost { messages, .. } = action { *messages } else { 0 })
        .sum();
    assert_eq!((lost, a.waiting()), (2, 4));
    a.handle(Mono::ZERO, Event::PeerUp(pid("b@h", 1)));
    assert_eq!(carry(&mut a, &mut b, Mono::ZERO, 0), [3, 4, 5, 6]);
    a.handle(Mono::ZERO, Event::PeerDown(pid("b@h", 1)));
    a.handle(Mono::ZERO, broadcast(7, 0, None));
    let end = a.poll_timeout().unwrap();
    assert_eq!(end, Mono::ZERO + a.config().retain);
    a.handle_timeout(end);
    assert_eq!((a.waiting(), a.poll_timeout()), (0, None));
}

#[test]
fn a_full_buffer_makes_senders_wait_unless_the_peer_is_stuck() {
    let mut a = exchange("a@h", Reliability::AtLeastOnce);
    a.handle(Mono::ZERO, Event::PeerUp(pid("b@h", 1)));
    for number in 0..4 {
        assert!(!a.is_full(Mono::ZERO));
        a.handle(Mono::ZERO, broadcast(number, 0, None));
    }
    assert!(a.is_full(Mono::ZERO));
    assert!(!a.is_full(Mono::ZERO + Duration::from_secs(10)));
    a.handle(Mono::ZERO, Event::PeerDown(pid("b@h", 1)));
    assert!(!a.is_full(Mono::ZERO), "nobody waits for a node that is out of reach");
}

#[test]
fn tickets_say_who_has_acknowledged() {
    let (mut a, mut b) = (exchange("a@h", Reliability::Guaranteed), exchange("b@h", Reliability::Guaranteed));
    let settled = |a: &mut Exchange| {
        drain(a).into_iter().find_map(|action| match action {
            Action::Settled { ticket, receipt } => Some((ticket, receipt)),
            _ => None,
        })
    };
    a.handle(Mono::ZERO, broadcast(0, 0, Some(7)));
    assert_eq!(settled(&mut a), Some((7, Receipt::default())), "there is nobody");
    a.handle(Mono::ZERO, Event::PeerUp(pid("b@h", 1)));
    a.handle(Mono::ZERO, broadcast(1, 0, Some(8)));
    assert_eq!(carry(&mut a, &mut b, Mono::ZERO, 0), [1]);
    assert_eq!(settled(&mut a), Some((8, Receipt { acknowledged: 1, pending: 0 })));
    a.handle(Mono::ZERO, broadcast(2, 0, Some(9)));
    drain(&mut a);
    a.handle(Mono::ZERO, Event::PeerDown(pid("b@h", 1)));
    assert_eq!(settled(&mut a), Some((9, Receipt { acknowledged: 0, pending: 1 })));
}

#[test]
fn nothing_is_kept_for_a_process_that_has_left() {
    let (mut a, mut b) =
        (exchange("a@h", Reliability::AtLeastOnce), exchange("b@h", Reliability::AtLeastOnce));
    a.handle(Mono::ZERO, Event::PeerUp(pid("b@h", 1)));
    b.handle(Mono::ZERO, Event::PeerUp(pid("a@h", 1)));
    b.handle(Mono::ZERO, Event::Leave);
    carry(&mut b, &mut a, Mono::ZERO, 0);
    a.handle(Mono::ZERO, Event::PeerDown(pid("b@h", 1)));
    a.handle(Mono::ZERO, broadcast(1, 0, None));
    assert_eq!((a.waiting(), a.statistics().lost, a.poll_timeout()), (0, 0, None));
}

/// b's clock is 5 s ahead; messages travel 300 µs, acknowledgements 100 µs.
#[test]
fn latency_is_told_once_the_clocks_were_compared() {
    let (mut a, mut b) = (exchange("a@h", Reliability::Guaranteed), exchange("b@h", Reliability::Guaranteed));
    a.handle(Mono::ZERO, Event::PeerUp(pid("b@h", 1)));
    let mut latencies = Vec::new();
    for round in 0..2 {
        let sent_at = round * 1_000;
        a.handle(Mono::ZERO, broadcast(round, sent_at, None));
        for action in drain(&mut a) {
            if let Action::Send { message, .. } = action {
                b.handle(Mono::ZERO, Event::Message { message, wall: sent_at + 5_000_300 });
            }
        }
        for action in drain(&mut b) {
            match action {
                Action::Deliver { latency, .. } => latencies.push(latency),
                Action::Send { message, .. } => {
                    a.handle(Mono::ZERO, Event::Message { message, wall: sent_at + 400 });
                }
                _ => {}
            }
        }
    }
    assert_eq!(latencies[0], None);
    let (latency, error) = latencies[1].unwrap();
    assert!((latency - 300).abs() <= error, "{latency} is 300 within {error}");
    assert!(error <= 201, "{error}: half of the round trip");
}

#[test]
fn nothing_that_arrives_stops_it() {
    let mut a = exchange("a@h", Reliability::AtLeastOnce);
    a.handle(Mono::ZERO, Event::PeerUp(pid("b@h", 1)));
    a.handle(Mono::ZERO, broadcast(1, 0, None));
    drain(&mut a);
    let ack = |expected| Ack {
        receiver: pid("b@h", 1),
        expected,
        gap: true,
        sent_at: i64::MIN,
        received_at: i64::MAX,
        acked_at: i64::MIN,
    };
    for expected in [u64::MAX, 0, 5] {
        let message = ack(expected).encode(&Limits::default()).unwrap();
        a.handle(Mono::ZERO, Event::Message { message, wall: i64::MAX });
    }
    assert_eq!(a.waiting(), 0);
    let envelope = Envelope {
        sender: pid("c@h", 9),
        seq: u64::MAX >> 1,
        base: u64::MAX >> 1,
        sent_at: i64::MIN,
        clock: Some(Clock { offset: i64::MAX, error: -1 }),
        ack_ms: 0,
        payload: raw(1),
        compressed: false,
    };
    for compressed in [false, true] {
        let message = Envelope { compressed, ..envelope.clone() }.encode(&Limits::default()).unwrap();
        a.handle(Mono::ZERO, Event::Message { message, wall: 0 });
    }
    a.handle(Mono::ZERO, Event::Message { message: raw(3), wall: 0 });
    assert_eq!((a.statistics().received, a.statistics().ignored), (1, 2));
}

/// A list of receivers is a peer's word: nobody gets a message twice for standing there twice, nor for being somebody else.
#[test]
fn each_receiver_of_a_relay_is_passed_on_to_once() {
    let mut a = exchange("a@h", Reliability::BestEffort);
    for node in ["b@h", "c@h"] {
        a.handle(Mono::ZERO, Event::PeerUp(pid(node, 1)));
    }
    let receiver = |node, id| relay::Receiver { pid: pid(node, id), seq: 1, base: 1, clock: None };
    let mut receivers = vec![receiver("a@h", 1), receiver("b@h", 2), receiver("x@h", 1)];
    receivers.extend((0..100).flat_map(|_| [receiver("b@h", 1), receiver("c@h", 1)]));
    let sender = pid("s@h", 1);
    let body = Envelope {
        sender,
        seq: 0,
        base: 0,
        sent_at: 0,
        clock: None,
        ack_ms: 0,
        payload: raw(1),
        compressed: false,
    };
    let message = Relay { body, fanout: 64, receivers }.encode(&Limits::default()).unwrap();
    a.handle(Mono::ZERO, Event::Message { message, wall: 0 });
    let mut to = Vec::new();
    for action in drain(&mut a) {
        if let Action::Relay { to: pid, .. } = action {
            to.push(pid);
        }
    }
    assert_eq!(to, [pid("b@h", 1), pid("c@h", 1)]);
}
