use super::*;
use bytes::BytesMut;

fn info(name: &str, port: u16, node_type: NodeType, extra: &'static [u8]) -> NodeInfo {
    NodeInfo { node_type, extra: Bytes::from_static(extra), ..NodeInfo::new(name, port, false) }
}

/// Requests that `epmd` of OTP 25 and 29 accepted.
fn captured() -> Vec<(Request, &'static [u8])> {
    vec![
        (
            Request::Alive(info("rusty", 40001, NodeType::NORMAL, b"")),
            b"\0\x12x\x9cAM\0\0\x06\0\x05\0\x05rusty\0\0",
        ),
        (
            Request::Alive(NodeInfo { highest_version: 5, ..info("old5", 40005, NodeType::HIDDEN, b"") }),
            b"\0\x11x\x9cEH\0\0\x05\0\x05\0\x04old5\0\0",
        ),
        (
            Request::Alive(info("extr", 40006, NodeType::HIDDEN, b"\x01\x02hello")),
            b"\0\x18x\x9cFH\0\0\x06\0\x05\0\x04extr\0\x07\x01\x02hello",
        ),
        (Request::Port(Bytes::from_static(b"rusty")), b"\0\x06zrusty"),
        (Request::Names, b"\0\x01n"),
        (Request::Dump, b"\0\x01d"),
        (Request::Kill, b"\0\x01k"),
        (Request::Stop(Bytes::from_static(b"rusty")), b"\0\x06srusty"),
    ]
}

#[test]
fn captured_requests_decode_and_encode() {
    for (request, bytes) in captured() {
        let mut out = BytesMut::new();
        request.encode(&mut out).unwrap();
        assert_eq!(out, bytes);
        let body = Request::body(bytes).unwrap().unwrap();
        assert_eq!(Request::decode(Bytes::copy_from_slice(body)).unwrap(), request);
    }
}

#[test]
fn a_request_is_complete_with_its_last_byte_and_not_before() {
    for (_, bytes) in captured() {
        for end in 0..bytes.len() {
            assert_eq!(Request::body(&bytes[..end]), Ok(None));
        }
        let longer = [bytes, b"!"].concat();
        assert!(matches!(Request::body(&longer), Err(Error::Malformed(_))));
    }
}

#[test]
fn every_truncation_of_a_registration_is_an_error() {
    let (_, bytes) = &captured()[2];
    for end in 0..bytes.len() - 2 {
        assert!(Request::decode(Bytes::copy_from_slice(&bytes[2..2 + end])).is_err(), "{end}");
    }
}

#[test]
fn what_no_epmd_takes_is_not_sent() {
    for request in [
        Request::Alive(NodeInfo::new(&"a".repeat(256), 1, false)),
        Request::Alive(info("a", 1, NodeType::NORMAL, &[0; 1021])),
        Request::Port(Bytes::from(vec![b'a'; 1021])),
    ] {
        assert!(matches!(request.encode(&mut BytesMut::new()), Err(Error::Malformed(_))));
    }
    let largest = Request::Alive(NodeInfo {
        name: Bytes::from("\u{1f600}".repeat(255)),
        ..info("", 1, NodeType::NORMAL, &[0; 1020])
    });
    let mut out = BytesMut::new();
    largest.encode(&mut out).unwrap();
    assert_eq!(Request::decode(out.freeze().slice(2..)), Ok(largest));
}

#[test]
fn versions_of_a_registered_node() {
    for (highest, lowest, speaks) in [(6, 5, true), (6, 6, true), (7, 6, true), (5, 5, false), (7, 7, false)]
    {
        let info =
            NodeInfo { highest_version: highest, lowest_version: lowest, ..NodeInfo::new("a", 1, false) };
        assert_eq!(info.speaks_version_6(), speaks);
    }
}
