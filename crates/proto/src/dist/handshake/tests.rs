//! Each role against recorded peers: conversations with OTP, and the cases of `erl_distribution_wb_SUITE.erl` by name.
//!
//! INVARIANTS
//! 1. The outcome does not depend on how the bytes are split.
//! 2. Nothing of ours proves the cookie to a peer that has not got this far by the rules.
//! 3. Bytes after the last message of the handshake stay in the input.
//! 4. An error is final, and nothing is sent after it that was not queued before.

use super::*;
use crate::error::ClosedBy;

mod whitebox;

const T0: Mono = Mono(1_000_000_000);

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn name(text: &str) -> NodeName {
    NodeName::parse(text).unwrap()
}

fn config(own: &str, creation: u32) -> HandshakeConfig {
    HandshakeConfig::new(name(own), creation, Cookie::new("secret").unwrap())
}

fn initiate(config: HandshakeConfig, dialled: &str, challenge: u32) -> Initiator {
    Initiator::new(config, name(dialled), challenge, T0).unwrap()
}

fn accept(config: HandshakeConfig, challenge: u32) -> Acceptor {
    Acceptor::new(config, challenge, T0).unwrap()
}

/// What the two roles have in common for a test.
trait Handshake {
    fn input(&mut self, input: &mut BytesMut) -> Result<()>;
    fn output(&mut self) -> Option<HandshakeOutput>;
}

impl Handshake for Initiator {
    fn input(&mut self, input: &mut BytesMut) -> Result<()> {
        self.handle_input(T0, input)
    }

    fn output(&mut self) -> Option<HandshakeOutput> {
        self.poll_output()
    }
}

impl Handshake for Acceptor {
    fn input(&mut self, input: &mut BytesMut) -> Result<()> {
        self.handle_input(T0, input)
    }

    fn output(&mut self) -> Option<HandshakeOutput> {
        self.poll_output()
    }
}

fn drain(machine: &mut impl Handshake) -> (Vec<u8>, Vec<HandshakeEvent>) {
    let (mut sent, mut events) = (Vec::new(), Vec::new());
    while let Some(output) = machine.output() {
        match output {
            HandshakeOutput::Transmit(bytes) => sent.extend_from_slice(&bytes),
            HandshakeOutput::Event(event) => events.push(event),
        }
    }
    (sent, events)
}

/// Feeds bytes and gives what comes out.
fn feed(machine: &mut impl Handshake, bytes: &[u8]) -> Result<(Vec<u8>, Vec<HandshakeEvent>)> {
    let mut input = BytesMut::from(bytes);
    machine.input(&mut input)?;
    assert!(input.is_empty(), "bytes were left: {input:?}");
    Ok(drain(machine))
}

fn established(events: &[HandshakeEvent]) -> &Agreement {
    match events {
        [HandshakeEvent::Established(agreement)] => agreement,
        other => panic!("not established: {other:?}"),
    }
}

fn hello(events: &[HandshakeEvent]) -> &PeerHello {
    match events {
        [HandshakeEvent::PeerHello(hello)] => hello,
        other => panic!("no hello: {other:?}"),
    }
}

const NAME_29: &str = "001b 4e 0000006d07df7fbc 11223344 000c 7079403132372e302e302e31";
const CHALLENGE_29: &str = "0020 4e 0000006d07df7fbd e879547e 6b00bdc9 000d 6e3239403132372e302e302e31";
const REPLY_29: &str = "0015 72 4468971e fcea1f89ed9efb170ee288dfbd430ef2";
const ACK_29: &str = "0011 61 c35630963d74174b86c99e9115d4b929";

#[test]
fn initiating_to_otp_29() {
    let mut initiator = initiate(config("py@127.0.0.1", 0x1122_3344), "n29@127.0.0.1", 0x4468_971e);
    assert_eq!(drain(&mut initiator), (hex(NAME_29), vec![]));
    assert_eq!(feed(&mut initiator, &hex("0003 73 6f6b")), Ok((vec![], vec![])));
    assert_eq!(feed(&mut initiator, &hex(CHALLENGE_29)), Ok((hex(REPLY_29), vec![])));
    let (sent, events) = feed(&mut initiator, &hex(ACK_29)).unwrap();
    assert!(sent.is_empty());
    let agreement = established(&events);
    assert_eq!(
        agreement.peer,
        PeerInfo {
            name: name("n29@127.0.0.1"),
            creation: 0x6b00_bdc9,
            flags: DistributionFlags::HIDDEN,
            peer_flags: DistributionFlags::VISIBLE,
            hidden: true,
        }
    );
    assert_eq!((&agreement.own_name, agreement.own_creation), (&name("py@127.0.0.1"), 0x1122_3344));
    assert_eq!(initiator.poll_timeout(), None);
}

/// The same conversation from the other end: what OTP 29 sent is what our acceptor sends.
#[test]
fn accepting_as_otp_29() {
    let mut acceptor = accept(
        HandshakeConfig { flags: DistributionFlags::VISIBLE, ..config("n29@127.0.0.1", 0x6b00_bdc9) },
        0xe879_547e,
    );
    let (sent, events) = feed(&mut acceptor, &hex(NAME_29)).unwrap();
    assert!(sent.is_empty());
    assert_eq!(
        hello(&events),
        &PeerHello {
            name: PeerName::Named(name("py@127.0.0.1")),
            flags: DistributionFlags::HIDDEN,
            creation: Some(0x1122_3344),
        }
    );
    acceptor.decide(T0, Decision::Ok).unwrap();
    assert_eq!(drain(&mut acceptor), ([hex("0003 73 6f6b"), hex(CHALLENGE_29)].concat(), vec![]));
    let (sent, events) = feed(&mut acceptor, &hex(REPLY_29)).unwrap();
    assert_eq!(sent, hex(ACK_29));
    let peer = &established(&events).peer;
    assert_eq!((peer.creation, peer.flags, peer.hidden), (0x1122_3344, DistributionFlags::HIDDEN, true));
}

#[test]
fn two_visible_nodes_are_visible_to_each_other() {
    let visible = |own| HandshakeConfig { flags: DistributionFlags::VISIBLE, ..config(own, 7) };
    let mut initiator = initiate(visible("a@h"), "b@h", 1);
    let mut acceptor = accept(visible("b@h"), 2);
    let (to_acceptor, _) = drain(&mut initiator);
    feed(&mut acceptor, &to_acceptor).unwrap();
    acceptor.decide(T0, Decision::Ok).unwrap();
    let (to_initiator, _) = drain(&mut acceptor);
    let (to_acceptor, _) = feed(&mut initiator, &to_initiator).unwrap();
    let (to_initiator, events) = feed(&mut acceptor, &to_acceptor).unwrap();
    assert!(!established(&events).peer.hidden);
    let (_, events) = feed(&mut initiator, &to_initiator).unwrap();
    assert!(!established(&events).peer.hidden);
}

const NAME_PY: &str = NAME_29;
const CHALLENGE_25: &str = "0020 4e0000000d07df7fbd15b24ebd6b00bf45000d6e3235403132372e302e302e31";
const REPLY_25: &str = "0015 7227aa3ad7196bb02c1c818c4a95dfe0bf8b466135";
const ACK_25: &str = "0011 613c1969792d367dce2d6100dbf8879df2";

#[test]
fn initiating_to_otp_25_that_believes_it_is_connected() {
    let mut initiator = initiate(config("py@127.0.0.1", 0x1122_3344), "n25@127.0.0.1", 0x27aa_3ad7);
    assert_eq!(drain(&mut initiator).0, hex(NAME_PY));
    assert_eq!(
        feed(&mut initiator, &hex("0006 73 616c697665")),
        Ok((vec![], vec![HandshakeEvent::PeerAlive]))
    );
    initiator.answer_alive(T0, true).unwrap();
    assert_eq!(drain(&mut initiator).0, hex("0005 73 74727565"));
    assert_eq!(feed(&mut initiator, &hex(CHALLENGE_25)).unwrap().0, hex(REPLY_25));
    let (_, events) = feed(&mut initiator, &hex(ACK_25)).unwrap();
    assert_eq!(established(&events).peer.flags.bits(), 0xd_07df_7fbc);
    assert!(matches!(initiator.answer_alive(T0, true), Err(Error::ApiMisuse(_))));
}

#[test]
fn an_obsolete_attempt_says_false_and_ends() {
    let mut initiator = initiate(config("py@127.0.0.1", 0x1122_3344), "n25@127.0.0.1", 1);
    drain(&mut initiator);
    feed(&mut initiator, &hex("0006 73 616c697665")).unwrap();
    let over = Err(Error::PeerIncompatible(PeerIncompatible::AlreadyConnected));
    assert_eq!(initiator.answer_alive(T0, false), over);
    assert_eq!(drain(&mut initiator).0, hex("0006 73 66616c7365"));
    assert_eq!(initiator.handle_input(T0, &mut BytesMut::new()), over);
}

/// `pending_up_md5`, from the side under test: the old connection lives until the new one is proved, and the
/// acknowledgement waits until it is down.
fn pending_up(cookie: &str) -> (Vec<u8>, Result<()>) {
    let mut acceptor = accept(
        HandshakeConfig {
            flags: DistributionFlags::from_bits(0xd_07df_7fbd),
            cookie: Cookie::new(cookie).unwrap(),
            ..config("n25@127.0.0.1", 0x6b00_bf45)
        },
        0x15b2_4ebd,
    );
    feed(&mut acceptor, &hex(NAME_PY)).unwrap();
    acceptor.decide(T0, Decision::Alive).unwrap();
    assert_eq!(drain(&mut acceptor).0, hex("0006 73 616c697665"));
    assert_eq!(feed(&mut acceptor, &hex("0005 73 74727565")).unwrap().0, hex(CHALLENGE_25));
    let mut input = BytesMut::from(&hex(REPLY_25)[..]);
    let outcome = acceptor.handle_input(T0, &mut input);
    let (sent, events) = drain(&mut acceptor);
    if outcome.is_err() {
        assert_eq!(events, []);
        return (sent, outcome);
    }
    assert_eq!((sent, events), (vec![], vec![HandshakeEvent::PeerProved]));
    // A frame that the peer sends early waits with the acknowledgement.
    let mut early = BytesMut::from(&b"\0\0\0\0"[..]);
    acceptor.handle_input(T0, &mut early).unwrap();
    assert_eq!(early.len(), 4);
    acceptor.replaced().unwrap();
    let (sent, events) = drain(&mut acceptor);
    established(&events);
    assert!(matches!(acceptor.replaced(), Err(Error::ApiMisuse(_))));
    (sent, outcome)
}

#[test]
fn pending_up_replaces_only_after_the_proof() {
    assert_eq!(pending_up("secret"), (hex(ACK_25), Ok(())));
    let wrong = Err(Error::PeerMisbehaved(PeerMisbehaved::WrongCookie));
    assert_eq!(pending_up("other"), (vec![], wrong));
}

#[test]
fn a_peer_that_answers_alive_with_false_is_done() {
    let mut acceptor = accept(config("n25@127.0.0.1", 7), 1);
    feed(&mut acceptor, &hex(NAME_PY)).unwrap();
    acceptor.decide(T0, Decision::Alive).unwrap();
    drain(&mut acceptor);
    let over = Err(Error::PeerIncompatible(PeerIncompatible::AlreadyConnected));
    assert_eq!(feed(&mut acceptor, &hex("0006 73 66616c7365")), over);
    assert_eq!(drain(&mut acceptor), (vec![], vec![]));
}

#[test]
fn statuses_that_end_an_attempt() {
    let run = |status: &str| {
        let mut initiator = initiate(config("aaa@127.0.0.1", 7), "n25@127.0.0.1", 1);
        drain(&mut initiator);
        let outcome = feed(&mut initiator, &hex(status));
        (initiator, outcome)
    };
    let (_, outcome) = run("000c 73 6e6f745f616c6c6f776564");
    assert_eq!(outcome, Err(Error::PeerIncompatible(PeerIncompatible::NotAllowed)));

    // After `nok` it waits to be dropped, whatever arrives, and not for ever.
    let (mut initiator, outcome) = run("0004 73 6e6f6b");
    assert_eq!(outcome, Ok((vec![], vec![HandshakeEvent::PeerNok])));
    let mut more = BytesMut::from(&hex(CHALLENGE_25)[..]);
    initiator.handle_input(T0, &mut more).unwrap();
    assert_eq!(drain(&mut initiator), (vec![], vec![]));
    let deadline = initiator.poll_timeout().unwrap();
    assert_eq!(deadline, T0 + STEP_TIMEOUT);
    let nok = Error::PeerIncompatible(PeerIncompatible::Nok);
    assert_eq!(initiator.handle_timeout(deadline), Err(nok.clone()));
    let (mut initiator, _) = run("0004 73 6e6f6b");
    assert_eq!(initiator.handle_close(), nok);

    for odd in ["0003 73 6f6f", "0005 73 74727565", "0006 73 66616c7365", "0001 73"] {
        assert!(matches!(run(odd).1, Err(Error::Malformed(_))), "{odd}");
    }
}

#[test]
fn decisions_that_refuse() {
    for (decision, status) in
        [(Decision::Nok, "0004 73 6e6f6b"), (Decision::NotAllowed, "000c 73 6e6f745f616c6c6f776564")]
    {
        let mut acceptor = accept(config("n25@127.0.0.1", 7), 1);
        feed(&mut acceptor, &hex(NAME_PY)).unwrap();
        let closed = Err(Error::Closed(ClosedBy::Local));
        assert_eq!(acceptor.decide(T0, decision), closed);
        assert_eq!(drain(&mut acceptor), (hex(status), vec![]));
        assert_eq!(feed(&mut acceptor, &hex(REPLY_25)).map(|_| ()), closed);
    }
}

#[test]
fn decisions_that_do_not_fit_leave_everything_as_it_was() {
    let mut acceptor = accept(config("n25@127.0.0.1", 7), 1);
    assert!(matches!(acceptor.decide(T0, Decision::Ok), Err(Error::ApiMisuse(_))));
    feed(&mut acceptor, &hex(NAME_PY)).unwrap();
    let given = Decision::Named { name: name("x@127.0.0.1"), creation: 5 };
    assert!(matches!(acceptor.decide(T0, given), Err(Error::ApiMisuse(_))));
    assert_eq!(acceptor.decide(T0, Decision::OkSimultaneous), Ok(()));

    let mut acceptor = accept(config("n25@127.0.0.1", 7), 1);
    feed(&mut acceptor, &hex("0018 4e 0000006f07df7fbc 00000000 0009 3132372e302e302e31")).unwrap();
    let elsewhere = Decision::Named { name: name("x@127.0.0.2"), creation: 5 };
    for decision in [elsewhere, Decision::Ok, Decision::OkSimultaneous, Decision::Alive] {
        assert!(matches!(acceptor.decide(T0, decision), Err(Error::ApiMisuse(_))));
    }
    let given = Decision::Named { name: name("x@127.0.0.1"), creation: 5 };
    assert_eq!(acceptor.decide(T0, given), Ok(()));
}

/// A dynamic name, asked of OTP 25.
#[test]
fn asking_otp_25_for_a_name() {
    let config = HandshakeConfig {
        // A node without a name is never visible.
        flags: DistributionFlags::VISIBLE,
        ..HandshakeConfig::dynamic("127.0.0.1", Cookie::new("secret").unwrap())
    };
    assert!(Acceptor::new(config.clone(), 1, T0).is_err());
    let mut initiator = initiate(config, "n25@127.0.0.1", 1);
    assert_eq!(drain(&mut initiator).0, hex("0018 4e 0000006f07df7fbc 00000000 0009 3132372e302e302e31"));
    feed(
        &mut initiator,
        &hex("0024 73 6e616d65643a 0017 315450314b4d4444504b335959403132372e302e302e31 ae4743b9"),
    )
    .unwrap();
    let challenge = "0020 4e 0000000f07df7fbc 819a8f07 6b00bf45 000d 6e3235403132372e302e302e31";
    let (reply, _) = feed(&mut initiator, &hex(challenge)).unwrap();
    assert_eq!(reply.len(), 23);
    let digest = Cookie::new("secret").unwrap().digest(1);
    let (_, events) = feed(&mut initiator, &[&hex("0011 61")[..], &digest].concat()).unwrap();
    let agreement = established(&events);
    assert_eq!(
        (&agreement.own_name, agreement.own_creation),
        (&name("1TP1KMDDPK3YY@127.0.0.1"), 0xae47_43b9)
    );
    assert!(agreement.peer.hidden);
}

/// A dynamic name, asked by OTP 29, which crashes unless `NAME_ME` comes back with the challenge.
#[test]
fn naming_otp_29() {
    let mut acceptor =
        accept(HandshakeConfig { flags: DistributionFlags::VISIBLE, ..config("namer@127.0.0.1", 5) }, 1);
    let (_, events) =
        feed(&mut acceptor, &hex("0018 4e0000006f07df7fbc0000000000093132372e302e302e31")).unwrap();
    assert_eq!(hello(&events).name, PeerName::Unnamed { host: "127.0.0.1".to_owned() });
    let given = Decision::Named { name: name("RUSTNAMED01@127.0.0.1"), creation: 0x5566_7788 };
    acceptor.decide(T0, given).unwrap();
    assert_eq!(
        drain(&mut acceptor).0,
        hex("0022 736e616d65643a 0015 525553544e414d45443031403132372e302e302e31 55667788
             0022 4e 0000006f07df7fbc 00000001 00000005 000f 6e616d6572403132372e302e302e31")
    );
    let digest = Cookie::new("secret").unwrap().digest(1);
    let (_, events) = feed(&mut acceptor, &[&hex("0015 72 00000009")[..], &digest].concat()).unwrap();
    let peer = &established(&events).peer;
    assert_eq!((peer.name.as_str(), peer.creation), ("RUSTNAMED01@127.0.0.1", 0x5566_7788));
    assert!(peer.hidden);
}

#[test]
fn names_that_were_not_asked_for_and_names_that_were_not_given() {
    let named = "0024 73 6e616d65643a 0017 315450314b4d4444504b335959403132372e302e302e31 ae4743b9";
    let mut initiator = initiate(config("py@127.0.0.1", 7), "n25@127.0.0.1", 1);
    assert!(matches!(feed(&mut initiator, &hex(named)), Err(Error::Malformed(_))));
    let dynamic = |host| HandshakeConfig::dynamic(host, Cookie::new("secret").unwrap());
    let mut initiator = initiate(dynamic("127.0.0.2"), "n25@127.0.0.1", 1);
    assert!(matches!(feed(&mut initiator, &hex(named)), Err(Error::Malformed(_))));
    let mut initiator = initiate(dynamic("127.0.0.1"), "n25@127.0.0.1", 1);
    assert!(matches!(feed(&mut initiator, &hex("0003 73 6f6b")), Err(Error::Malformed(_))));
}

const OLD_NAME: &str = "0017 6e 0005 01df7fbd 6e6f65706d64403132372e302e302e31";
const COMPLEMENT: &str = "0009 63 00000001 eb726790";

/// An OTP 23 node that does not know who it dials: `n`, and `c` after the challenge.
#[test]
fn accepting_an_old_opener() {
    let mut acceptor = accept(config("rs@127.0.0.1", 7), 1);
    let (_, events) = feed(&mut acceptor, &hex(OLD_NAME)).unwrap();
    assert_eq!(hello(&events).creation, None);
    acceptor.decide(T0, Decision::Ok).unwrap();
    drain(&mut acceptor);
    feed(&mut acceptor, &hex(COMPLEMENT)).unwrap();
    let digest = Cookie::new("secret").unwrap().digest(1);
    let (_, events) = feed(&mut acceptor, &[&hex("0015 72 00000009")[..], &digest].concat()).unwrap();
    let peer = &established(&events).peer;
    assert_eq!((peer.name.as_str(), peer.creation), ("noepmd@127.0.0.1", 0xeb72_6790));
    assert_eq!((peer.peer_flags.bits(), peer.flags.bits()), (0x1_01df_7fbd, 0x1_01df_7fbc));
}

#[test]
fn an_old_opener_that_skips_its_complement_proves_nothing() {
    let mut acceptor = accept(config("rs@127.0.0.1", 7), 1);
    feed(&mut acceptor, &hex(OLD_NAME)).unwrap();
    acceptor.decide(T0, Decision::Ok).unwrap();
    drain(&mut acceptor);
    let digest = Cookie::new("secret").unwrap().digest(1);
    let outcome = feed(&mut acceptor, &[&hex("0015 72 00000009")[..], &digest].concat());
    assert!(matches!(
        outcome,
        Err(Error::PeerMisbehaved(PeerMisbehaved::UnexpectedHandshakeMessage { got: b'r', .. }))
    ));
    assert_eq!(drain(&mut acceptor), (vec![], vec![]));
}

#[test]
fn old_openers_can_be_refused() {
    let mut acceptor =
        accept(HandshakeConfig { accept_old_name_message: false, ..config("rs@127.0.0.1", 7) }, 1);
    assert_eq!(
        feed(&mut acceptor, &hex(OLD_NAME)),
        Err(Error::PeerIncompatible(PeerIncompatible::Version(5)))
    );
}

fn name_message(version: u16, flags: DistributionFlags) -> Vec<u8> {
    let mut out = BytesMut::new();
    let creation = (version == 6).then_some(9);
    let message = messages::Name { flags, creation, name: PeerName::Named(name("zz@127.0.0.1")) };
    message.encode(LengthPrefix::Two, &mut out).unwrap();
    out.to_vec()
}

const NOT_ALLOWED: &str = "000c 73 6e6f745f616c6c6f776564";

/// `missing_compulsory_dflags`: both versions, each flag; those of the upper half can be missed after the complement only.
fn missing_compulsory_dflags(version: u16, flag: DistributionFlags) {
    let strict = DistributionFlags::MANDATORY_26;
    let offer = DistributionFlags::HIDDEN.without(DistributionFlags::MANDATORY_25_DIGEST);
    let late = version == 5 && flag == DistributionFlags::V4_NC;
    let mut acceptor = accept(HandshakeConfig { required: strict, ..config("n@127.0.0.1", 7) }, 1);
    let mut outcome = feed(&mut acceptor, &name_message(version, offer.without(flag)));
    if late {
        hello(&outcome.unwrap().1);
        acceptor.decide(T0, Decision::Ok).unwrap();
        drain(&mut acceptor);
        outcome = feed(&mut acceptor, &hex("0009 63 00000069 eb726790"));
    }
    assert_eq!(outcome, Err(Error::PeerIncompatible(PeerIncompatible::MissingFlags(flag))));
    assert_eq!(drain(&mut acceptor), (hex(NOT_ALLOWED), vec![]));
}

macro_rules! missing {
    ($($name:ident: $version:literal, $flag:ident;)*) => {
        $(
            #[test]
            fn $name() {
                missing_compulsory_dflags($version, DistributionFlags::$flag);
            }
        )*
    };
}

missing! {
    missing_compulsory_dflags_5_bit_binaries: 5, BIT_BINARIES;
    missing_compulsory_dflags_5_handshake_23: 5, HANDSHAKE_23;
    missing_compulsory_dflags_5_v4_nc: 5, V4_NC;
    missing_compulsory_dflags_5_unlink_id: 5, UNLINK_ID;
    missing_compulsory_dflags_6_bit_binaries: 6, BIT_BINARIES;
    missing_compulsory_dflags_6_handshake_23: 6, HANDSHAKE_23;
    missing_compulsory_dflags_6_v4_nc: 6, V4_NC;
    missing_compulsory_dflags_6_unlink_id: 6, UNLINK_ID;
}

/// `dflag_mandatory_25`: the digest alone stands for the whole set.
#[test]
fn dflag_mandatory_25() {
    let mut acceptor = accept(config("n@127.0.0.1", 7), 1);
    let (_, events) = feed(&mut acceptor, &name_message(6, DistributionFlags::MANDATORY_25_DIGEST)).unwrap();
    hello(&events);
    acceptor.decide(T0, Decision::Ok).unwrap();
    assert!(drain(&mut acceptor).0.starts_with(&hex("0003 73 6f6b")));
}

#[test]
fn a_peer_without_mandatory_flags_is_not_given_a_proof() {
    let mut initiator = initiate(config("py@127.0.0.1", 7), "n29@127.0.0.1", 1);
    drain(&mut initiator);
    feed(&mut initiator, &hex("0003 73 6f6b")).unwrap();
    let outcome = feed(
        &mut initiator,
        &hex("0020 4e 0000000000000000 e879547e 6b00bdc9 000d 6e3239403132372e302e302e31"),
    );
    let missing = DistributionFlags::REQUIRED;
    assert_eq!(outcome, Err(Error::PeerIncompatible(PeerIncompatible::MissingFlags(missing))));
    assert_eq!(drain(&mut initiator), (vec![], vec![]));
}

#[test]
fn a_peer_of_another_name_is_not_given_a_proof() {
    let mut initiator = initiate(config("py@127.0.0.1", 7), "n28@127.0.0.1", 1);
    drain(&mut initiator);
    feed(&mut initiator, &hex("0003 73 6f6b")).unwrap();
    assert_eq!(
        feed(&mut initiator, &hex(CHALLENGE_29)),
        Err(Error::PeerMisbehaved(PeerMisbehaved::WrongName {
            expected: "n28@127.0.0.1".to_owned(),
            got: "n29@127.0.0.1".to_owned(),
        }))
    );
    assert_eq!(drain(&mut initiator), (vec![], vec![]));
}

#[test]
fn wrong_cookies() {
    let other = HandshakeConfig { cookie: Cookie::new("other").unwrap(), ..config("py@127.0.0.1", 7) };
    let wrong = Error::PeerMisbehaved(PeerMisbehaved::WrongCookie);
    // The initiator finds out by the acknowledgement, or because the acceptor closes.
    let reach_ack = || {
        let mut initiator = initiate(other.clone(), "n29@127.0.0.1", 0x4468_971e);
        drain(&mut initiator);
        feed(&mut initiator, &[hex("0003 73 6f6b"), hex(CHALLENGE_29)].concat()).unwrap();
        initiator
    };
    assert_eq!(feed(&mut reach_ack(), &hex(ACK_29)), Err(wrong.clone()));
    assert_eq!(reach_ack().handle_close(), wrong.clone());
    // The acceptor finds out by the reply, and answers nothing.
    let mut acceptor = accept(other, 0xe879_547e);
    feed(&mut acceptor, &hex(NAME_29)).unwrap();
    acceptor.decide(T0, Decision::Ok).unwrap();
    drain(&mut acceptor);
    assert_eq!(feed(&mut acceptor, &hex(REPLY_29)), Err(wrong));
    assert_eq!(drain(&mut acceptor), (vec![], vec![]));
}

#[test]
fn a_cookie_for_one_peer() {
    let mut acceptor = accept(
        HandshakeConfig { cookie: Cookie::new("other").unwrap(), ..config("n29@127.0.0.1", 7) },
        0xe879_547e,
    );
    feed(&mut acceptor, &hex(NAME_29)).unwrap();
    acceptor.set_cookie(Cookie::new("secret").unwrap());
    acceptor.decide(T0, Decision::Ok).unwrap();
    drain(&mut acceptor);
    assert_eq!(feed(&mut acceptor, &hex(REPLY_29)).unwrap().0, hex(ACK_29));
}

/// A peer without the cookie that passes the challenge of our acceptor to our initiator.
#[test]
fn a_challenge_of_our_own_is_not_answered() {
    let own = config("py@127.0.0.1", 7);
    let mut acceptor = accept(own.clone(), 0xe879_547e);
    let mut initiator = initiate(own.clone(), "n29@127.0.0.1", 0x4468_971e);
    drain(&mut initiator);
    feed(&mut initiator, &hex("0003 73 6f6b")).unwrap();
    assert_eq!(
        feed(&mut initiator, &hex(CHALLENGE_29)),
        Err(Error::PeerMisbehaved(PeerMisbehaved::ReflectedChallenge))
    );
    assert_eq!(drain(&mut initiator), (vec![], vec![]));
    // When the other handshake is over, the number may occur again.
    feed(&mut acceptor, &hex(NAME_29)).unwrap();
    drop(acceptor);
    let mut initiator = initiate(own, "n29@127.0.0.1", 0x4468_971e);
    drain(&mut initiator);
    feed(&mut initiator, &hex("0003 73 6f6b")).unwrap();
    assert_eq!(feed(&mut initiator, &hex(CHALLENGE_29)).unwrap().0, hex(REPLY_29));
}

/// The same towards an acceptor: a peer with the cookie that passes on what it was asked is not answered either.
#[test]
fn a_challenge_of_our_own_in_a_reply_is_not_answered() {
    let own = config("n29@127.0.0.1", 7);
    let _other = initiate(own.clone(), "x@127.0.0.1", 0x4468_971e);
    let mut acceptor = accept(own, 0xe879_547e);
    feed(&mut acceptor, &hex(NAME_29)).unwrap();
    acceptor.decide(T0, Decision::Ok).unwrap();
    drain(&mut acceptor);
    assert_eq!(
        feed(&mut acceptor, &hex(REPLY_29)),
        Err(Error::PeerMisbehaved(PeerMisbehaved::ReflectedChallenge))
    );
    assert_eq!(drain(&mut acceptor), (vec![], vec![]));
}

#[test]
fn tls_at_a_plain_port() {
    let tls = Err(Error::PeerIncompatible(PeerIncompatible::SpeaksTls));
    let hello = hex("16 03 01 02 00 01 00 01 fc 03 03");
    assert_eq!(feed(&mut accept(config("n@h", 7), 1), &hello), tls);
    // A TLS server answers a plain name with an alert.
    assert_eq!(feed(&mut initiate(config("n@h", 7), "m@h", 1), &hex("15 03 03 00 02 02 46")), tls);
    // And anything else that is no handshake is refused by its length.
    let http = feed(&mut accept(config("n@h", 7), 1), b"GET / HTTP/1.1\r\n\r\n");
    assert!(matches!(http, Err(Error::LimitExceeded { limit: "max_handshake_message", .. })));
}

#[test]
fn silence_ends_at_the_step_and_slowness_at_the_total() {
    let late = Err(Error::PeerMisbehaved(PeerMisbehaved::HandshakeTimeout));
    let mut acceptor = accept(config("n29@127.0.0.1", 7), 1);
    assert_eq!(acceptor.poll_timeout(), Some(T0 + STEP_TIMEOUT));
    assert_eq!(acceptor.handle_timeout(T0 + STEP_TIMEOUT - Duration::from_nanos(1)), Ok(()));
    // One byte is no step.
    let mut input = BytesMut::from(&hex(NAME_29)[..1]);
    acceptor.handle_input(T0 + Duration::from_secs(6), &mut input).unwrap();
    assert_eq!(acceptor.poll_timeout(), Some(T0 + STEP_TIMEOUT));
    assert_eq!(acceptor.handle_timeout(T0 + STEP_TIMEOUT), late);
    assert_eq!(acceptor.poll_timeout(), None);
    assert_eq!(acceptor.handle_input(T0, &mut BytesMut::from(&hex(NAME_29)[..])), late);

    let mut acceptor = accept(config("n29@127.0.0.1", 7), 1);
    let at = |seconds| T0 + Duration::from_secs(seconds);
    acceptor.handle_input(at(6), &mut BytesMut::from(&hex(NAME_29)[..])).unwrap();
    assert_eq!(acceptor.poll_timeout(), Some(at(13)));
    acceptor.decide(at(6), Decision::Alive).unwrap();
    acceptor.handle_input(at(12), &mut BytesMut::from(&hex("0005 73 74727565")[..])).unwrap();
    assert_eq!(acceptor.poll_timeout(), Some(at(15)));
    assert_eq!(acceptor.handle_timeout(at(15)), late);

    let mut initiator = initiate(config("n29@127.0.0.1", 7), "m@h", 1);
    assert_eq!(initiator.poll_timeout(), Some(at(7)));
    assert_eq!(initiator.handle_timeout(at(7)), late);
}

/// `switch_options`: bytes of the first frames arrive together with the last message of the handshake. Wherever they are
/// cut, the handshake takes its own and leaves the rest.
fn switch_options(cuts: impl Iterator<Item = usize>) {
    let frames = hex("00000004 00000003 00000004 00000004 00000004 00000005");
    let mut script = [hex("0003 73 6f6b"), hex(CHALLENGE_29), hex(ACK_29)].concat();
    let end = script.len();
    script.extend_from_slice(&frames);
    for cut in cuts.take_while(|cut| *cut <= script.len()) {
        let mut initiator = initiate(config("py@127.0.0.1", 0x1122_3344), "n29@127.0.0.1", 0x4468_971e);
        let mut input = BytesMut::from(&script[..cut]);
        initiator.handle_input(T0, &mut input).unwrap();
        assert_eq!(input.len(), if cut > end { cut - end } else { input.len() });
        input.extend_from_slice(&script[cut..]);
        initiator.handle_input(T0, &mut input).unwrap();
        assert_eq!(input, frames, "cut at {cut}");
        let (sent, events) = drain(&mut initiator);
        assert_eq!(sent, [hex(NAME_29), hex(REPLY_29)].concat());
        established(&events);
    }
}

/// So many bytes of the frames come with the last message of the handshake.
fn switch_options_after(bytes: usize) {
    let end = [hex("0003 73 6f6b"), hex(CHALLENGE_29), hex(ACK_29)].concat().len();
    switch_options(std::iter::once(end + bytes));
}

macro_rules! switches {
    ($($name:ident: $bytes:literal;)*) => {
        $(
            #[test]
            fn $name() {
                switch_options_after($bytes);
            }
        )*
    };
}

// The splits of the suite: 0 to 7 bytes before the options of the socket are switched.
switches! {
    switch_options_0: 0;
    switch_options_1: 1;
    switch_options_2: 2;
    switch_options_3: 3;
    switch_options_4: 4;
    switch_options_5: 5;
    switch_options_6: 6;
    switch_options_7: 7;
}

#[test]
fn switch_options_anywhere() {
    switch_options(0..);
    let frames = hex("00000004 00000003 00000004 00000004 00000004 00000005");
    // The accepting side: what follows the reply.
    for cut in 0..=frames.len() {
        let mut acceptor = accept(config("n29@127.0.0.1", 7), 0xe879_547e);
        feed(&mut acceptor, &hex(NAME_29)).unwrap();
        acceptor.decide(T0, Decision::Ok).unwrap();
        let mut input = BytesMut::from(&[&hex(REPLY_29)[..], &frames[..cut]].concat()[..]);
        acceptor.handle_input(T0, &mut input).unwrap();
        assert_eq!(input, frames[..cut]);
    }
}

#[test]
fn byte_by_byte() {
    let script = [hex("0003 73 6f6b"), hex(CHALLENGE_29), hex(ACK_29)].concat();
    let mut initiator = initiate(config("py@127.0.0.1", 0x1122_3344), "n29@127.0.0.1", 0x4468_971e);
    let mut input = BytesMut::new();
    for byte in script {
        input.extend_from_slice(&[byte]);
        initiator.handle_input(T0, &mut input).unwrap();
    }
    let (sent, events) = drain(&mut initiator);
    assert_eq!(sent, [hex(NAME_29), hex(REPLY_29)].concat());
    established(&events);
}

/// Every single-bit error in what a peer sends ends in an error or in a connection that was agreed on by the rules;
/// never in a panic, and never in an established connection whose digest was touched.
#[test]
fn bit_flips() {
    let script = [hex("0003 73 6f6b"), hex(CHALLENGE_29), hex(ACK_29)].concat();
    let digest = script.len() - 16;
    for bit in 0..script.len() * 8 {
        let mut script = script.clone();
        script[bit / 8] ^= 1 << (bit % 8);
        let mut initiator = initiate(config("py@127.0.0.1", 0x1122_3344), "n29@127.0.0.1", 0x4468_971e);
        let outcome = initiator.handle_input(T0, &mut BytesMut::from(&script[..]));
        let (_, events) = drain(&mut initiator);
        let is_up = events.iter().any(|event| matches!(event, HandshakeEvent::Established(_)));
        assert!(!(is_up && outcome.is_err()));
        assert!(!(is_up && bit / 8 >= digest), "bit {bit}");
    }
}

#[test]
fn nothing_secret_is_printed() {
    let acceptor = accept(config("n@h", 7), 0x1234_5678);
    let initiator = initiate(config("n@h", 7), "m@h", 0x1234_5678);
    let text = format!("{acceptor:?} {initiator:?} {:?}", config("n@h", 7));
    assert!(!text.contains("secret"), "{text}");
}
