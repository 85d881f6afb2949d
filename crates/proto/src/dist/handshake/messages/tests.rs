//! Messages as they went over the wire between a test client and OTP 23, 25 and 29.

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn named(name: &str) -> PeerName {
    PeerName::Named(NodeName::parse(name).unwrap())
}

fn flags(bits: u64) -> DistributionFlags {
    DistributionFlags::from_bits(bits)
}

/// Any message, for tests over all of them.
#[derive(Clone, Debug, PartialEq)]
enum Message {
    Name(Name),
    Status(Status),
    Challenge(Challenge),
    Complement(Complement),
    Reply(Reply),
    Ack(Ack),
}

impl Message {
    fn encode(&self, prefix: LengthPrefix) -> BytesMut {
        let mut out = BytesMut::new();
        match self {
            Self::Name(message) => message.encode(prefix, &mut out).unwrap(),
            Self::Status(message) => message.encode(prefix, &mut out),
            Self::Challenge(message) => message.encode(prefix, &mut out).unwrap(),
            Self::Complement(message) => message.encode(prefix, &mut out),
            Self::Reply(message) => message.encode(prefix, &mut out),
            Self::Ack(message) => message.encode(prefix, &mut out),
        }
        out
    }

    fn decode_like(&self, message: &[u8]) -> Result<Self> {
        Ok(match self {
            Self::Name(_) => Self::Name(Name::decode(message)?),
            Self::Status(_) => Self::Status(Status::decode(message)?),
            Self::Challenge(_) => Self::Challenge(Challenge::decode(message)?),
            Self::Complement(_) => Self::Complement(Complement::decode(message)?),
            Self::Reply(_) => Self::Reply(Reply::decode(message)?),
            Self::Ack(_) => Self::Ack(Ack::decode(message)?),
        })
    }

    /// Whether bytes after the end are ignored.
    fn is_extensible(&self) -> bool {
        match self {
            Self::Name(name) => name.creation.is_some(),
            Self::Status(status) => matches!(status, Status::Named { .. }),
            Self::Challenge(_) | Self::Complement(_) => true,
            Self::Reply(_) | Self::Ack(_) => false,
        }
    }
}

fn captured() -> Vec<(Message, &'static str)> {
    let digest = |text| <[u8; 16]>::try_from(hex(text)).unwrap();
    vec![
        // Test client to OTP 29.
        (
            Message::Name(Name {
                flags: flags(0x6d_07df_7fbc),
                creation: Some(0x1122_3344),
                name: named("py@127.0.0.1"),
            }),
            "001b 4e 0000006d07df7fbc 11223344 000c 7079403132372e302e302e31",
        ),
        (Message::Status(Status::Ok), "0003 73 6f6b"),
        (
            Message::Challenge(Challenge {
                flags: flags(0x6d_07df_7fbd),
                challenge: 0xe879_547e,
                creation: 0x6b00_bdc9,
                name: NodeName::parse("n29@127.0.0.1").unwrap(),
            }),
            "0020 4e 0000006d07df7fbd e879547e 6b00bdc9 000d 6e3239403132372e302e302e31",
        ),
        (
            Message::Reply(Reply {
                challenge: 0x4468_971e,
                digest: digest("fcea1f89ed9efb170ee288dfbd430ef2"),
            }),
            "0015 72 4468971e fcea1f89ed9efb170ee288dfbd430ef2",
        ),
        (
            Message::Ack(Ack { digest: digest("c35630963d74174b86c99e9115d4b929") }),
            "0011 61 c35630963d74174b86c99e9115d4b929",
        ),
        (Message::Status(Status::Alive), "0006 73 616c697665"),
        (Message::Status(Status::True), "0005 73 74727565"),
        (Message::Status(Status::False), "0006 73 66616c7365"),
        (Message::Status(Status::Nok), "0004 73 6e6f6b"),
        (Message::Status(Status::OkSimultaneous), "0010 73 6f6b5f73696d756c74616e656f7573"),
        (Message::Status(Status::NotAllowed), "000c 73 6e6f745f616c6c6f776564"),
        // A dynamic name, asked of OTP 25.
        (
            Message::Name(Name {
                flags: flags(0x6f_07df_7fbc),
                creation: Some(0),
                name: PeerName::Unnamed { host: "127.0.0.1".to_owned() },
            }),
            "0018 4e 0000006f07df7fbc 00000000 0009 3132372e302e302e31",
        ),
        (
            Message::Status(Status::Named {
                name: NodeName::parse("1TP1KMDDPK3YY@127.0.0.1").unwrap(),
                creation: 0xae47_43b9,
            }),
            "0024 73 6e616d65643a 0017 315450314b4d4444504b335959403132372e302e302e31 ae4743b9",
        ),
        // OTP 23 without EPMD, as an old opener.
        (
            Message::Name(Name {
                flags: flags(0x01df_7fbd),
                creation: None,
                name: named("noepmd@127.0.0.1"),
            }),
            "0017 6e 0005 01df7fbd 6e6f65706d64403132372e302e302e31",
        ),
        (
            Message::Complement(Complement { flags: flags(1 << 32), creation: 0xeb72_6790 }),
            "0009 63 00000001 eb726790",
        ),
    ]
}

#[test]
fn captured_messages_decode_and_encode() {
    for (message, bytes) in captured() {
        let bytes = hex(bytes);
        assert_eq!(message.encode(LengthPrefix::Two), bytes, "{message:?}");
        let body = LengthPrefix::Two.message(&bytes, 4096).unwrap().unwrap();
        assert_eq!(message.decode_like(body), Ok(message));
    }
}

/// Over TLS only the length is wider.
#[test]
fn captured_messages_over_tls() {
    for (message, bytes) in captured() {
        let bytes = [vec![0, 0], hex(bytes)].concat();
        assert_eq!(message.encode(LengthPrefix::Four), bytes, "{message:?}");
        let body = LengthPrefix::Four.message(&bytes, 4096).unwrap().unwrap();
        assert_eq!(message.decode_like(body), Ok(message));
    }
}

#[test]
fn a_message_that_ends_too_early_is_another_message_or_none() {
    for (message, bytes) in captured() {
        let bytes = hex(bytes);
        for end in 0..bytes.len() {
            assert_eq!(LengthPrefix::Two.message(&bytes[..end], 4096), Ok(None));
            if end > 2 {
                assert_ne!(message.decode_like(&bytes[2..end]), Ok(message.clone()));
            }
        }
        assert!(message.decode_like(&[]).is_err());
    }
}

#[test]
fn bytes_after_the_end_are_ignored_where_the_protocol_reserves_them() {
    for (message, bytes) in captured() {
        let longer = [&hex(bytes)[2..], b"\0future"].concat();
        let decoded = message.decode_like(&longer);
        assert_eq!(decoded == Ok(message.clone()), message.is_extensible(), "{message:?}");
    }
}

#[test]
fn names_are_latin_1_and_in_a_status_utf_8() {
    let name = NodeName::parse("n@h\u{f6}st").unwrap();
    let mut out = BytesMut::new();
    let message =
        Name { flags: DistributionFlags::HIDDEN, creation: Some(4), name: PeerName::Named(name.clone()) };
    message.encode(LengthPrefix::Two, &mut out).unwrap();
    assert!(out.ends_with(b"\0\x06n@h\xf6st"));
    assert_eq!(Name::decode(&out[2..]), Ok(message));

    let mut out = BytesMut::new();
    let status = Status::Named { name, creation: 4 };
    status.encode(LengthPrefix::Two, &mut out);
    assert!(out.ends_with(b"\0\x07n@h\xc3\xb6st\0\0\0\x04"));
    assert_eq!(Status::decode(&out[2..]), Ok(status));

    let beyond = PeerName::Named(NodeName::parse("n@\u{20ac}").unwrap());
    let message = Name { flags: DistributionFlags::HIDDEN, creation: Some(4), name: beyond };
    assert!(matches!(message.encode(LengthPrefix::Two, &mut BytesMut::new()), Err(Error::ApiMisuse(_))));
}

#[test]
fn names_that_no_node_can_have_are_refused() {
    for name in ["", "nohost", "@h", "a@", "a@b@c", "a b@c", "a@b\x1b[2J", "a@b\n"] {
        let mut message = hex("4e 0000006d07df7fbc 11223344");
        message.put_u16(name.len() as u16);
        message.put_slice(name.as_bytes());
        assert!(matches!(Name::decode(&message), Err(Error::Malformed(_))), "{name:?}");
    }
    // With NAME_ME it is the host alone.
    for host in ["", "a@b", "h h"] {
        let mut message = hex("4e 0000006f07df7fbc 00000000");
        message.put_u16(host.len() as u16);
        message.put_slice(host.as_bytes());
        assert!(matches!(Name::decode(&message), Err(Error::Malformed(_))), "{host:?}");
    }
}

#[test]
fn lengths_beyond_the_limit_are_refused_before_the_bytes_arrive() {
    let refused = |length| Err(Error::limit("max_handshake_message", length, 4096));
    assert_eq!(LengthPrefix::Two.message(&[0x10, 0x01], 4096), refused(4097));
    assert_eq!(LengthPrefix::Two.message(&[0x10, 0x00], 4096), Ok(None));
    assert_eq!(LengthPrefix::Four.message(&[0xff; 4], 4096), refused(u64::from(u32::MAX)));
    assert!(LengthPrefix::Two.message(&[0, 0], 4096).is_err());
    assert!(LengthPrefix::Four.message(&[0; 4], 4096).is_err());
}

#[test]
fn other_messages_are_named() {
    let unexpected = |error| {
        matches!(error, Error::PeerMisbehaved(PeerMisbehaved::UnexpectedHandshakeMessage { got: b'z', .. }))
    };
    assert!(unexpected(Name::decode(b"z").unwrap_err()));
    assert!(unexpected(Status::decode(b"z").unwrap_err()));
    assert!(unexpected(Challenge::decode(b"z").unwrap_err()));
    assert!(unexpected(Complement::decode(b"z").unwrap_err()));
    assert!(unexpected(Reply::decode(b"z").unwrap_err()));
    assert!(unexpected(Ack::decode(b"z").unwrap_err()));
    let version = |version| Err(Error::PeerIncompatible(PeerIncompatible::Version(version)));
    assert_eq!(Name::decode(b"n\0\x04\0\0\0\0a@b"), version(4));
    assert_eq!(Challenge::decode(b"n\0\x05\0\0\0\0\0\0\0\0a@b").map(|_| ()), version(5).map(|_: Name| ()));
    assert!(Status::decode(b"sok!").is_err());
}
