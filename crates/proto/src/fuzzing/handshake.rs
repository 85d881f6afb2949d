use bytes::BytesMut;

use super::splits;
use crate::dist::flags::DistributionFlags;
use crate::dist::handshake::{
    Acceptor, Decision, HandshakeConfig, HandshakeEvent, HandshakeOutput, Initiator, LengthPrefix, PeerName,
    STEP_TIMEOUT, TOTAL_TIMEOUT,
};
use crate::dist::{Cookie, NodeName};
use crate::error::Result;
use crate::time::Mono;

/// What can be seen of one handshake from outside.
#[derive(Debug, Eq, PartialEq)]
struct Seen {
    sent: Vec<u8>,
    events: Vec<HandshakeEvent>,
    outcome: Result<()>,
}

/// A peer that was dialled sends anything. The first byte chooses the configuration.
///
/// Asserts that the outcome does not depend on how the bytes are split, that there is one name and at most one proof,
/// that nobody is established after an error, and that a deadline is set until the end.
pub fn fuzz_handshake_initiator(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    let Some(config) = config(*choice, true) else { return };
    let seen = splits(data).map(|pieces| run_initiator(&config, *choice, &pieces));
    assert_same(&seen);
    let [seen, ..] = &seen;
    // A name, "true" or "false", a reply: no other bytes leave, whatever arrives.
    assert!(seen.sent.len() <= 4 + 4 + 19 + 255 + 4 + 6 + 4 + 21);
}

/// Whoever connects sends anything. The first byte chooses the configuration and what the host decides.
///
/// Asserts that the outcome does not depend on how the bytes are split, that nothing is sent before the host decides (but
/// `not_allowed`), that nobody is established after an error, and that a deadline is set until the end.
pub fn fuzz_handshake_acceptor(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    let Some(config) = config(*choice, false) else { return };
    let seen = splits(data).map(|pieces| run_acceptor(&config, *choice, &pieces));
    assert_same(&seen);
    let [seen, ..] = &seen;
    if seen.events.is_empty() {
        assert!(seen.sent.is_empty() || seen.sent.ends_with(b"snot_allowed"));
    }
}

fn assert_same(seen: &[Seen; 3]) {
    let [whole, bytes, pieces] = seen;
    assert_eq!(whole, bytes, "the outcome depends on how the bytes are split");
    assert_eq!(whole, pieces, "the outcome depends on how the bytes are split");
    let is_established = |event: &HandshakeEvent| matches!(event, HandshakeEvent::Established(_));
    assert!(whole.outcome.is_ok() || !whole.events.iter().any(is_established));
}

fn config(choice: u8, initiator: bool) -> Option<HandshakeConfig> {
    let cookie = Cookie::new("secret").ok()?;
    let own = if initiator { "py@127.0.0.1" } else { "n29@127.0.0.1" };
    let mut config = if initiator && choice & 1 != 0 {
        HandshakeConfig::dynamic("127.0.0.1", cookie)
    } else {
        HandshakeConfig::new(NodeName::parse(own).ok()?, 0x1122_3344, cookie)
    };
    if choice & 2 != 0 {
        config.prefix = LengthPrefix::Four;
    }
    if choice & 4 != 0 {
        config.required = DistributionFlags::MANDATORY_26;
    }
    config.accept_old_name_message = choice & 128 == 0;
    Some(config)
}

fn run_initiator(config: &HandshakeConfig, choice: u8, pieces: &[&[u8]]) -> Seen {
    let mut seen = Seen { sent: Vec::new(), events: Vec::new(), outcome: Ok(()) };
    let mut input = BytesMut::new();
    let Ok(dialled) = NodeName::parse("n29@127.0.0.1") else { return seen };
    let Ok(mut machine) = Initiator::new(config.clone(), dialled, 0x4468_971e, Mono::ZERO) else {
        return seen;
    };
    let mut up = false;
    for piece in pieces {
        input.extend_from_slice(piece);
        // The host answers, and then the machine looks at what is left of the input.
        for _ in 0..4 {
            let outcome = machine.handle_input(Mono::ZERO, &mut input);
            note(&mut seen, outcome);
            let mut asked = false;
            while let Some(output) = machine.poll_output() {
                match output {
                    HandshakeOutput::Transmit(bytes) => seen.sent.extend_from_slice(&bytes),
                    HandshakeOutput::Event(event) => {
                        asked |= event == HandshakeEvent::PeerAlive;
                        up |= matches!(event, HandshakeEvent::Established(_));
                        seen.events.push(event);
                    }
                }
            }
            if !asked {
                break;
            }
            let outcome = machine.answer_alive(Mono::ZERO, choice & 8 != 0);
            note(&mut seen, outcome);
        }
    }
    assert_eq!(machine.poll_timeout().is_some(), !up && seen.outcome.is_ok());
    let outcome = machine.handle_timeout(Mono::ZERO + TOTAL_TIMEOUT);
    assert_eq!(outcome.is_ok(), up && seen.outcome.is_ok());
    seen
}

fn run_acceptor(config: &HandshakeConfig, choice: u8, pieces: &[&[u8]]) -> Seen {
    let mut seen = Seen { sent: Vec::new(), events: Vec::new(), outcome: Ok(()) };
    let mut input = BytesMut::new();
    let Ok(mut machine) = Acceptor::new(config.clone(), 0xe879_547e, Mono::ZERO) else { return seen };
    let mut up = false;
    for piece in pieces {
        input.extend_from_slice(piece);
        for _ in 0..4 {
            let outcome = machine.handle_input(Mono::ZERO, &mut input);
            note(&mut seen, outcome);
            let mut answers = Vec::new();
            while let Some(output) = machine.poll_output() {
                match output {
                    HandshakeOutput::Transmit(bytes) => seen.sent.extend_from_slice(&bytes),
                    HandshakeOutput::Event(event) => {
                        up |= matches!(event, HandshakeEvent::Established(_));
                        answers.push(event.clone());
                        seen.events.push(event);
                    }
                }
            }
            let mut asked = false;
            for event in answers {
                let outcome = match event {
                    HandshakeEvent::PeerHello(hello) => match decision(choice, &hello.name) {
                        Some(decision) => machine.decide(Mono::ZERO, decision),
                        None => continue,
                    },
                    HandshakeEvent::PeerProved => machine.replaced(),
                    _ => continue,
                };
                asked = true;
                note(&mut seen, outcome);
            }
            if !asked {
                break;
            }
        }
    }
    assert_eq!(machine.poll_timeout().is_some(), !up && seen.outcome.is_ok());
    let outcome = machine.handle_timeout(Mono::ZERO + STEP_TIMEOUT);
    assert_eq!(outcome.is_ok(), up && seen.outcome.is_ok());
    seen
}

/// Keeps the first error: it is final.
fn note(seen: &mut Seen, outcome: Result<()>) {
    if seen.outcome.is_ok() {
        seen.outcome = outcome;
    } else {
        assert_eq!(outcome, seen.outcome);
    }
}

fn decision(choice: u8, peer: &PeerName) -> Option<Decision> {
    Some(match (peer, choice >> 4 & 7) {
        (_, 0) => Decision::Nok,
        (_, 1) => Decision::NotAllowed,
        (PeerName::Unnamed { host }, _) => {
            Decision::Named { name: NodeName::new("given", host).ok()?, creation: 4 }
        }
        (PeerName::Named(_), 2) => Decision::OkSimultaneous,
        (PeerName::Named(_), 3) => Decision::Alive,
        (PeerName::Named(_), _) => Decision::Ok,
    })
}
