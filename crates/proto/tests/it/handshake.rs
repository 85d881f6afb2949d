//! Recorded handshakes are replayed in both roles: with the same names, flags and challenges, every byte that this side
//! sends is the one that the BEAM in its place had sent.

use bytes::BytesMut;
use foundation_proto::Mono;
use foundation_proto::dist::handshake::{Acceptor, Decision, HandshakeEvent, HandshakeOutput, Initiator};
use foundation_proto::dist::{Cookie, DistributionFlags, HandshakeConfig, NodeName};

use crate::golden;

const FILES: [&str; 2] = ["connection-hidden.txt", "connection-visible.txt"];

/// One recorded handshake: the messages without lengths.
struct Recorded {
    what: String,
    initiator: Vec<Vec<u8>>,
    acceptor: Vec<Vec<u8>>,
}

impl Recorded {
    fn all() -> impl Iterator<Item = Self> {
        golden::RELEASES.into_iter().flat_map(|release| FILES.map(|file| (release, file))).map(
            |(release, file)| {
                let text = golden::read(release, file);
                let take = |sign, count| golden::direction(&text, sign).into_iter().take(count).collect();
                Self {
                    what: format!("OTP {release} {file}"),
                    initiator: take('>', 2),
                    acceptor: take('<', 3),
                }
            },
        )
    }

    fn name_message(&self) -> &[u8] {
        &self.initiator[0]
    }

    fn challenge_message(&self) -> &[u8] {
        &self.acceptor[1]
    }
}

/// The configuration of the node that sent this `N` message.
fn config(name: &str, flags: &[u8], creation: &[u8]) -> HandshakeConfig {
    let mut config = HandshakeConfig::new(
        NodeName::parse(name).unwrap(),
        u32::from_be_bytes(creation.try_into().unwrap()),
        Cookie::new("secret").unwrap(),
    );
    config.flags = DistributionFlags::from_bits(u64::from_be_bytes(flags.try_into().unwrap()));
    config
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().unwrap())
}

fn framed(messages: &[Vec<u8>]) -> BytesMut {
    let mut bytes = BytesMut::new();
    for message in messages {
        bytes.extend_from_slice(&u16::try_from(message.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(message);
    }
    bytes
}

#[test]
fn as_the_initiator() {
    for recorded in Recorded::all() {
        let what = &recorded.what;
        let name = recorded.name_message();
        // 'N', flags, creation, length, name
        let config = config("a@127.0.0.1", &name[1..9], &name[9..13]);
        let dialled = NodeName::parse("b@127.0.0.1").unwrap();
        let challenge = number(&recorded.initiator[1][1..5]);
        let mut initiator = Initiator::new(config, dialled, challenge, Mono::ZERO).unwrap();
        initiator.handle_input(Mono::ZERO, &mut framed(&recorded.acceptor)).unwrap();

        let (mut sent, mut agreement) = (BytesMut::new(), None);
        while let Some(output) = initiator.poll_output() {
            match output {
                HandshakeOutput::Transmit(bytes) => sent.extend_from_slice(&bytes),
                HandshakeOutput::Event(HandshakeEvent::Established(established)) => {
                    agreement = Some(established)
                }
                HandshakeOutput::Event(other) => panic!("{what}: {other:?}"),
            }
        }
        assert_eq!(sent, framed(&recorded.initiator), "{what}");
        let peer = agreement.expect("established").peer;
        assert_eq!(peer.name.as_str(), "b@127.0.0.1", "{what}");
        assert_eq!(peer.hidden, what.contains("hidden"), "{what}");
        assert_eq!(peer.creation, number(&recorded.challenge_message()[13..17]), "{what}");
    }
}

#[test]
fn as_the_acceptor() {
    for recorded in Recorded::all() {
        let what = &recorded.what;
        let message = recorded.challenge_message();
        // 'N', flags, challenge, creation, length, name
        let config = config("b@127.0.0.1", &message[1..9], &message[13..17]);
        let mut acceptor = Acceptor::new(config, number(&message[9..13]), Mono::ZERO).unwrap();
        let mut input = framed(&recorded.initiator);
        let (mut sent, mut agreement) = (BytesMut::new(), None);
        acceptor.handle_input(Mono::ZERO, &mut input).unwrap();
        while let Some(output) = acceptor.poll_output() {
            match output {
                HandshakeOutput::Transmit(bytes) => sent.extend_from_slice(&bytes),
                HandshakeOutput::Event(HandshakeEvent::PeerHello(hello)) => {
                    assert_eq!(hello.creation, Some(number(&recorded.name_message()[9..13])), "{what}");
                    acceptor.decide(Mono::ZERO, Decision::Ok).unwrap();
                    acceptor.handle_input(Mono::ZERO, &mut input).unwrap();
                }
                HandshakeOutput::Event(HandshakeEvent::Established(established)) => {
                    agreement = Some(established)
                }
                HandshakeOutput::Event(other) => panic!("{what}: {other:?}"),
            }
        }
        assert_eq!(sent, framed(&recorded.acceptor), "{what}");
        let peer = agreement.expect("established").peer;
        assert_eq!(peer.name.as_str(), "a@127.0.0.1", "{what}");
        assert_eq!(peer.hidden, what.contains("hidden"), "{what}");
        assert!(input.is_empty(), "{what}");
    }
}
