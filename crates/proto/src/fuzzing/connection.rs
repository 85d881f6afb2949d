use core::time::Duration;

use bytes::{Bytes, BytesMut};

use super::splits;
use crate::dist::connection::{Connection, ConnectionConfig, Event, Output};
use crate::dist::handshake::messages::{Ack, Challenge, LengthPrefix, Name, PeerName, Reply, Status};
use crate::dist::handshake::{Decision, HandshakeConfig};
use crate::dist::{Cookie, DistributionFlags, NodeName};
use crate::error::Result;
use crate::time::Mono;

/// What can be seen of one connection from outside, apart from ticks.
#[derive(Debug, Eq, PartialEq)]
struct Seen {
    events: Vec<String>,
    is_down: bool,
}

/// The first byte of the input, bit by bit.
struct Choice(u8);

impl Choice {
    fn initiates(&self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether an honest handshake comes first and the input is what follows, or the input is all.
    fn is_honest(&self) -> bool {
        self.0 & 2 != 0
    }

    /// What the peer offers in an honest handshake: each form of frames and reasons can be chosen.
    fn flags(&self) -> DistributionFlags {
        let mut flags = DistributionFlags::VISIBLE;
        for (bit, flag) in [
            (4, DistributionFlags::DIST_HDR_ATOM_CACHE),
            (8, DistributionFlags::FRAGMENTS),
            (16, DistributionFlags::EXIT_PAYLOAD),
            (32, DistributionFlags::UNLINK_ID),
        ] {
            if self.0 & bit != 0 {
                flags = flags.without(flag);
            }
        }
        flags
    }
}

/// A peer sends anything, from the first byte of the handshake or after an honest one. The first byte chooses.
///
/// Asserts that the outcome does not depend on how the bytes are split, that signals come only between up and down, that
/// down is final, and that a peer that says nothing more is down when its deadlines are over.
pub fn fuzz_connection(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    let choice = Choice(*choice);
    let mut bytes = Vec::new();
    if choice.is_honest() && honest(&choice, &mut bytes).is_err() {
        return;
    }
    bytes.extend_from_slice(data);
    let [whole, one_by_one, cut] = splits(&bytes).map(|pieces| run(&choice, &pieces));
    assert_eq!(whole, one_by_one, "the outcome depends on how the bytes are split");
    assert_eq!(whole, cut, "the outcome depends on how the bytes are split");
}

const OWN_CHALLENGE: u32 = 0x1111_1111;
const PEER_CHALLENGE: u32 = 0x2222_2222;

fn cookie() -> Result<Cookie> {
    Cookie::new("secret").map_err(|_| crate::Error::ApiMisuse("the cookie of the fuzzers"))
}

fn name(text: &str) -> Result<NodeName> {
    NodeName::parse(text).map_err(|_| crate::Error::ApiMisuse("a name of the fuzzers"))
}

/// All that an honest peer sends in the handshake.
fn honest(choice: &Choice, out: &mut Vec<u8>) -> Result<()> {
    let (prefix, mut bytes) = (LengthPrefix::Two, BytesMut::new());
    let (flags, creation) = (choice.flags(), 0x0102_0304);
    let peer = name("a@127.0.0.1")?;
    let cookie = cookie()?;
    if choice.initiates() {
        Status::Ok.encode(prefix, &mut bytes);
        Challenge { flags, challenge: PEER_CHALLENGE, creation, name: peer }.encode(prefix, &mut bytes)?;
        Ack { digest: cookie.digest(OWN_CHALLENGE) }.encode(prefix, &mut bytes);
    } else {
        let name = Name { flags, creation: Some(creation), name: PeerName::Named(peer) };
        name.encode(prefix, &mut bytes)?;
        Reply { challenge: PEER_CHALLENGE, digest: cookie.digest(OWN_CHALLENGE) }.encode(prefix, &mut bytes);
    }
    out.extend_from_slice(&bytes);
    Ok(())
}

fn connection(choice: &Choice) -> Result<Connection> {
    let handshake = HandshakeConfig::new(name("b@127.0.0.1")?, 0x0506_0708, cookie()?);
    let mut config = ConnectionConfig::new(handshake);
    config.handshake.flags = DistributionFlags::VISIBLE;
    // A fuzzer that guesses a length should not make the test machine swap.
    config.limits.max_frame = 1 << 20;
    config.limits.max_reassembly = 1 << 20;
    if choice.initiates() {
        Connection::initiate(config, name("a@127.0.0.1")?, OWN_CHALLENGE, Mono::ZERO)
    } else {
        Connection::accept(config, OWN_CHALLENGE, Mono::ZERO)
    }
}

fn run(choice: &Choice, pieces: &[&[u8]]) -> Seen {
    let mut seen = Seen { events: Vec::new(), is_down: false };
    let Ok(mut connection) = connection(choice) else { return seen };
    let mut input = BytesMut::new();
    let mut is_up = false;
    let mut deadline = None;
    let mut drain = |connection: &mut Connection, input: &mut BytesMut, now: Mono, seen: &mut Seen| {
        loop {
            let event = match connection.poll_output() {
                Output::Transmit(bytes) => {
                    assert_ne!(bytes, Bytes::new());
                    continue;
                }
                Output::Timeout(timeout) => {
                    assert_eq!(timeout.is_none(), seen.is_down);
                    return timeout;
                }
                Output::Event(event) => event,
            };
            assert!(!seen.is_down, "{event:?} after the end");
            match &event {
                Event::Signal(_) => assert!(is_up),
                Event::Up(_) => assert!(!core::mem::replace(&mut is_up, true)),
                Event::Down(_) => seen.is_down = true,
                _ => assert!(!is_up),
            }
            seen.events.push(format!("{event:?}"));
            let answer = match event {
                Event::PeerHello(_) => Some(connection.decide(now, Decision::Ok)),
                Event::PeerAlive => Some(connection.answer_alive(now, true)),
                Event::PeerProved => Some(connection.replaced(now)),
                _ => None,
            };
            if answer.is_some() {
                connection.handle_input(now, input);
            }
        }
    };
    for piece in pieces {
        input.extend_from_slice(piece);
        connection.handle_input(Mono::ZERO, &mut input);
        deadline = drain(&mut connection, &mut input, Mono::ZERO, &mut seen);
    }
    // Silence from here on: the handshake has 15 s, an established connection its net tick time.
    let end = Mono::ZERO + Duration::from_secs(60);
    let mut alarms = 0;
    while let Some(now) = deadline {
        assert!(now <= end && alarms < 20, "a deadline after the end, or one that does not move");
        alarms += 1;
        connection.handle_timeout(now);
        deadline = drain(&mut connection, &mut input, now, &mut seen);
    }
    assert!(seen.is_down);
    seen
}
