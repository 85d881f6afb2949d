//! The 13 handshakes of `erl_distribution_wb_SUITE:whitebox/1` and `dflag_mandatory_25/1`, with our acceptor in the place of the
//! node under test: three situations, each opened in four ways, by a client that knows nothing of this crate but bytes.
//! (Its 8 splits around the switch to frames are `switch_options` beside this.)

use super::*;

/// The node under test, its creation and the cookie of the suite.
const NODE: &str = "node@127.0.0.1";

/// How the client opens: what it sends as its version, and whether it believes what EPMD says about the node.
#[derive(Clone, Copy, Debug)]
struct Opening {
    version: u16,
    trusts_epmd: bool,
}

const FLAGS: u64 = DistributionFlags::MANDATORY_26.bits() | DistributionFlags::MANDATORY_25_DIGEST.bits();
const CREATION: u32 = 0x0102_0304;

impl Opening {
    /// A client that does not believe EPMD has to expect an old node, and opens with `n`.
    fn is_old(self) -> bool {
        !self.trusts_epmd
    }

    fn send_name(self, name: &str) -> Vec<u8> {
        let mut message = Vec::new();
        if self.is_old() {
            message.push(b'n');
            message.extend_from_slice(&self.version.to_be_bytes());
            message.extend_from_slice(&(FLAGS as u32).to_be_bytes());
        } else {
            message.push(b'N');
            message.extend_from_slice(&FLAGS.to_be_bytes());
            message.extend_from_slice(&CREATION.to_be_bytes());
            message.extend_from_slice(&(name.len() as u16).to_be_bytes());
        }
        message.extend_from_slice(name.as_bytes());
        packet(&message)
    }

    fn send_complement(self) -> Vec<u8> {
        if !self.is_old() {
            return Vec::new();
        }
        let high = (FLAGS >> 32) as u32;
        packet(&[&b"c"[..], &high.to_be_bytes(), &CREATION.to_be_bytes()].concat())
    }
}

fn packet(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

fn digest(challenge: u32) -> [u8; 16] {
    Cookie::new("secret").unwrap().digest(challenge)
}

/// Splits what was sent into messages.
fn messages(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (message, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)));
        messages.push(message);
        bytes = rest;
    }
    messages
}

/// `recv_challenge/2`: the node's challenge.
fn challenge_of(message: &[u8]) -> u32 {
    assert_eq!((message[0], &message[19..]), (b'N', NODE.as_bytes()));
    u32::from_be_bytes(message[9..13].try_into().unwrap())
}

/// Complement and reply to `challenge`, then the acknowledgement of ours; with the old connection taken down between them if
/// there was one. Gives the peer as the node sees it.
fn finish(acceptor: &mut Acceptor, opening: Opening, challenge: u32, replaces: bool) -> PeerInfo {
    let ours = 0x00ab_cdef;
    let reply = packet(&[&b"r"[..], &u32::to_be_bytes(ours), &digest(challenge)].concat());
    let (mut sent, mut events) = feed(acceptor, &[opening.send_complement(), reply].concat()).unwrap();
    if replaces {
        assert_eq!((sent, events), (vec![], vec![HandshakeEvent::PeerProved]));
        acceptor.replaced().unwrap();
        (sent, events) = drain(acceptor);
    }
    assert_eq!(sent, packet(&[&b"a"[..], &digest(ours)].concat()));
    established(&events).peer.clone()
}

fn connect(opening: Opening, our_name: &str, challenge: u32) -> Acceptor {
    let mut acceptor = accept(config(NODE, 7), challenge);
    let (_, events) = feed(&mut acceptor, &opening.send_name(our_name)).unwrap();
    let hello = hello(&events);
    assert_eq!(hello.name, PeerName::Named(name(our_name)));
    assert_eq!(hello.creation, (!opening.is_old()).then_some(CREATION));
    acceptor
}

fn verdict(our_name: &str, state: PeerState) -> Decision {
    match decide(&name(NODE), &name(our_name), state) {
        Verdict::Decide(decision) => decision,
        Verdict::GiveUpOwnAttempt => Decision::OkSimultaneous,
        Verdict::Close => panic!("closed without a word"),
    }
}

fn pending_up_md5(opening: Opening) {
    let mut first = connect(opening, "ccc@127.0.0.1", 1);
    first.decide(T0, verdict("ccc@127.0.0.1", PeerState::Unknown)).unwrap();
    let (sent, _) = drain(&mut first);
    let [status, challenge] = messages(&sent)[..] else { panic!() };
    assert_eq!(status, b"sok");
    finish(&mut first, opening, challenge_of(challenge), false);

    let mut second = connect(opening, "ccc@127.0.0.1", 2);
    second.decide(T0, verdict("ccc@127.0.0.1", PeerState::Connected)).unwrap();
    assert_eq!(drain(&mut second).0, packet(b"salive"));
    let (sent, _) = feed(&mut second, &packet(b"strue")).unwrap();
    let [challenge] = messages(&sent)[..] else { panic!() };
    let peer = finish(&mut second, opening, challenge_of(challenge), true);
    assert_eq!((peer.creation, peer.flags.bits()), (CREATION, FLAGS), "{opening:?}");
}

fn simultaneous_md5_smaller_name(opening: Opening) {
    let mut acceptor = connect(opening, "A@127.0.0.1", 1);
    let refused = acceptor.decide(T0, verdict("A@127.0.0.1", PeerState::Dialled));
    assert_eq!(refused, Err(Error::Closed(ClosedBy::Local)));
    assert_eq!(drain(&mut acceptor).0, packet(b"snok"));

    // But the node's own attempt goes on.
    let mut initiator = initiate(config(NODE, 7), "A@127.0.0.1", 0x0bad_cafe);
    let (sent, _) = drain(&mut initiator);
    let flags = u64::from_be_bytes(sent[3..11].try_into().unwrap());
    assert_ne!(flags & DistributionFlags::HANDSHAKE_23.bits(), 0);
    feed(&mut initiator, &packet(b"sok_simultaneous")).unwrap();
    let mut challenge = vec![b'N'];
    challenge.extend_from_slice(&FLAGS.to_be_bytes());
    challenge.extend_from_slice(&55u32.to_be_bytes());
    challenge.extend_from_slice(&CREATION.to_be_bytes());
    challenge.extend_from_slice(b"\0\x0bA@127.0.0.1");
    let (reply, _) = feed(&mut initiator, &packet(&challenge)).unwrap();
    let expected = [&b"r"[..], &0x0bad_cafe_u32.to_be_bytes(), &digest(55)].concat();
    assert_eq!(reply, packet(&expected));
    let ack = packet(&[&b"a"[..], &digest(0x0bad_cafe)].concat());
    let (_, events) = feed(&mut initiator, &ack).unwrap();
    established(&events);
}

fn simultaneous_md5_greater_name(opening: Opening) {
    let our_name = "zzzzzzzzzzzzzz@127.0.0.1";
    let mut acceptor = connect(opening, our_name, 1);
    // The node gives its own attempt up; that one is closed by its host.
    acceptor.decide(T0, verdict(our_name, PeerState::Dialled)).unwrap();
    let (sent, _) = drain(&mut acceptor);
    let [status, challenge] = messages(&sent)[..] else { panic!() };
    assert_eq!(status, b"sok_simultaneous");
    finish(&mut acceptor, opening, challenge_of(challenge), false);
}

macro_rules! handshakes {
    ($($name:ident: $check:ident($version:literal, $trusts_epmd:literal);)*) => {
        $(
            #[test]
            fn $name() {
                $check(Opening { version: $version, trusts_epmd: $trusts_epmd });
            }
        )*
    };
}

// The thirteenth is `dflag_mandatory_25` beside this.
handshakes! {
    pending_up_md5_version_5_trusting_epmd: pending_up_md5(5, true);
    pending_up_md5_version_5_not_trusting_epmd: pending_up_md5(5, false);
    pending_up_md5_version_6_trusting_epmd: pending_up_md5(6, true);
    pending_up_md5_version_6_not_trusting_epmd: pending_up_md5(6, false);
    simultaneous_md5_smaller_name_version_5_trusting_epmd: simultaneous_md5_smaller_name(5, true);
    simultaneous_md5_smaller_name_version_5_not_trusting_epmd: simultaneous_md5_smaller_name(5, false);
    simultaneous_md5_smaller_name_version_6_trusting_epmd: simultaneous_md5_smaller_name(6, true);
    simultaneous_md5_smaller_name_version_6_not_trusting_epmd: simultaneous_md5_smaller_name(6, false);
    simultaneous_md5_greater_name_version_5_trusting_epmd: simultaneous_md5_greater_name(5, true);
    simultaneous_md5_greater_name_version_5_not_trusting_epmd: simultaneous_md5_greater_name(5, false);
    simultaneous_md5_greater_name_version_6_trusting_epmd: simultaneous_md5_greater_name(6, true);
    simultaneous_md5_greater_name_version_6_not_trusting_epmd: simultaneous_md5_greater_name(6, false);
}
