//! Terms that are sent to harm: each is refused, or taken, in time and memory that its own bytes pay for.

use std::time::Duration;

use foundation_proto::error::Problem;
use foundation_proto::etf::{Tape, Term, decode};
use foundation_proto::{Error, Limits};

fn refused(bytes: &[u8]) -> Error {
    match decode(bytes, &Limits::default()) {
        Err(error) => error,
        Ok(term) => panic!("accepted {:?}", term.kind()),
    }
}

/// A generous bound: what is meant is "not a multiple of the input".
#[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test may look at the clock")]
fn quickly<T>(work: impl FnOnce() -> T) -> T {
    let start = std::time::Instant::now();
    let result = work();
    assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());
    result
}

#[test]
fn counts_beyond_the_input_are_refused_before_anything_is_allocated() {
    for tag in [105, 108, 116, 67] {
        let error = refused(&[131, tag, 255, 255, 255, 255, 0]);
        assert!(matches!(error, Error::Malformed(_)), "tag {tag}: {error}");
    }
    let mut fun = vec![131, 112];
    fun.extend([255; 30]);
    assert!(matches!(refused(&fun), Error::Malformed(_)));
    for bomb in
        [&[131, 109, 255, 255, 255, 255][..], &[131, 77, 255, 255, 255, 255, 8], &[131, 107, 255, 255]]
    {
        assert!(matches!(refused(bomb), Error::Malformed(m) if m.problem == Problem::Truncated));
    }
    assert!(matches!(
        refused(&[131, 111, 255, 255, 255, 255, 0]),
        Error::LimitExceeded { limit: "max_integer_bytes", .. }
    ));
}

#[test]
fn ten_million_levels() {
    let levels = 10_000_000;
    let nests: [&[u8]; 5] =
        [&[104, 1], &[108, 0, 0, 0, 1], &[116, 0, 0, 0, 1], &[108, 0, 0, 0, 1, 97, 1], &[121, 0, 0, 0, 0]];
    for nest in nests {
        let mut bytes = vec![131];
        bytes.extend(nest.repeat(levels));
        let error = quickly(|| refused(&bytes));
        assert!(matches!(error, Error::LimitExceeded { limit: "max_depth", .. }), "{error}");
    }
    // Lists without elements are their tails and nest nothing.
    let mut bytes = vec![131];
    bytes.extend([108, 0, 0, 0, 0].repeat(levels));
    bytes.push(106);
    assert_eq!(quickly(|| decode(&bytes, &Limits::default())), Ok(Term::nil()));
}

#[test]
fn as_deep_as_the_limit_allows() {
    let levels = Limits::default().max_depth;
    let mut bytes = vec![131];
    bytes.extend([104, 2, 97, 1].repeat(levels));
    bytes.push(106);
    let term = decode(&bytes, &Limits::default()).unwrap();
    assert!(term == term.clone());
    bytes.splice(1..1, [104, 1]);
    assert!(matches!(refused(&bytes), Error::LimitExceeded { limit: "max_depth", .. }));
}

#[test]
fn nodes_are_limited_and_memory_can_be_given_back() {
    let limits = {
        let mut limits = Limits::default();
        limits.max_nodes = 100_000;
        limits
    };
    let list = |len: u32| [&[108][..], &len.to_be_bytes(), &vec![106; len as usize + 1]].concat();
    let mut tape = Tape::new();
    assert!(tape.parse(&list(99_999), &[], &limits).is_ok());
    let error = tape.parse(&list(100_000), &[], &limits).unwrap_err();
    assert!(matches!(error, Error::LimitExceeded { limit: "max_nodes", .. }), "{error}");
    tape.shrink_to(1_000);
    assert!(tape.parse(&list(50), &[], &limits).is_ok());
}

#[test]
fn compressed_terms_cannot_grow_without_bound() {
    // A stream that says 4 GiB.
    let bomb = [131, 80, 255, 255, 255, 255, 0x78, 0x9c, 0x4b, 0x64, 0x04, 0, 0, 0xc5, 0, 0x63];
    assert!(matches!(refused(&bomb), Error::LimitExceeded { limit: "max_inflated", .. }));
    // One that says 1 MiB and holds two bytes; longer and shorter claims; damage; a tag 80 that is not at the front.
    for size in [1u32 << 20, 3, 1, 0] {
        let mut bytes = vec![131, 80];
        bytes.extend(size.to_be_bytes());
        bytes.extend([0x78, 0x9c, 0x4b, 0x64, 0x04, 0, 0, 0xc5, 0, 0x63]);
        assert!(matches!(refused(&bytes), Error::Malformed(_)), "{size}");
    }
    assert!(matches!(refused(&[131, 104, 1, 80, 0, 0, 0, 2]), Error::Malformed(_)));
    let good = [131, 80, 0, 0, 0, 2, 0x78, 0x9c, 0x4b, 0x64, 0x04, 0, 0, 0xc5, 0, 0x63];
    assert_eq!(decode(&good, &Limits::default()), Ok(1.into()));
    for cut in 0..good.len() {
        assert!(decode(&good[..cut], &Limits::default()).is_err(), "{cut}");
    }
}

/// A FLOAT_EXT.
fn float(text: &str) -> Vec<u8> {
    let mut bytes = vec![131, 99];
    bytes.extend_from_slice(text.as_bytes());
    bytes.resize(33, 0);
    bytes
}

/// `binary_to_term` of OTP 29 raises `badarg` for each of these.
#[test]
fn what_otp_refuses() {
    let wrong: &[&[u8]] = &[
        &[],
        &[131],
        &[130, 97, 1],
        &[131, 131, 97, 1],
        &[131, 82, 0],
        &[131, 117, 0, 0, 0, 0],
        &[131, 77, 0, 0, 0, 0, 0],
        &[131, 77, 0, 0, 0, 0, 8],
        &[131, 77, 0, 0, 0, 1, 0, 7],
        &[131, 77, 0, 0, 0, 1, 9, 7],
        &[131, 70, 127, 248, 0, 0, 0, 0, 0, 0],
        &[131, 70, 127, 240, 0, 0, 0, 0, 0, 0],
        b"\x83w\x01\xc8",
        b"\x83w\x03\xed\xa0\x80",
        b"\x83gw\x03a@b\0\0\0\x01\0\0\0\x02\x04",
        b"\x83fw\x03a@b\0\0\0\x01\x04",
        b"\x83ew\x03a@b\0\0\0\x01\x04",
        b"\x83rw\x03a@b\x04\0\0\0\x01",
        b"\x83Z\0\x06w\x03a@b\0\0\0\x03\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0\x01",
        b"\x83qa\x01w\x01ba\x01",
        b"\x83qw\x01aw\x01bj",
        b"\x83qw\x01aw\x01bb\xff\xff\xff\xff",
        b"\x83t\0\0\0\x02a\x01a\x01b\0\0\0\x01a\x02",
    ];
    for bytes in wrong {
        refused(bytes);
    }
    let long =
        |tag: u8, text: &str| [&[131, tag][..], &(text.len() as u16).to_be_bytes(), text.as_bytes()].concat();
    refused(&long(100, &"a".repeat(256)));
    refused(&long(118, &"a".repeat(256)));
    refused(&long(118, &"å".repeat(256)));
    assert!(decode(&long(118, &"å".repeat(255)), &Limits::default()).is_ok());
}

/// `binary_to_term` of OTP 25 to 29 takes each of these.
#[test]
fn what_otp_accepts() {
    let right: &[(&[u8], Term)] = &[
        (&[131, 97, 1, 2], 1.into()),
        (&[131, 110, 0, 0], 0.into()),
        (&[131, 110, 1, 5, 7], (-7).into()),
        (&[131, 111, 0, 0, 0, 2, 1, 7, 0], (-7).into()),
        (&[131, 107, 0, 0], Term::nil()),
        (&[131, 108, 0, 0, 0, 0, 97, 5], 5.into()),
        (&[131, 108, 0, 0, 0, 1, 97, 1, 107, 0, 1, 2], Term::list([1.into(), 2.into()])),
        (&[131, 77, 0, 0, 0, 1, 8, 7], Term::binary(&[7])),
        (b"\x83s\x01\xc8", Term::atom("È")),
        (b"\x83v\0\0", Term::atom("")),
    ];
    for (text, value) in
        [("1.5", 1.5), ("+1.5", 1.5), ("-1,5E+1", -15.0), ("1.50000000000000000000e+00", 1.5)]
    {
        assert_eq!(decode(&float(text), &Limits::default()), Ok(Term::Float(value)), "{text}");
    }
    for (bytes, term) in right {
        assert_eq!(decode(bytes, &Limits::default()).as_ref(), Ok(term), "{bytes:?}");
    }
}
