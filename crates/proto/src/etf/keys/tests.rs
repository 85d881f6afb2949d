use super::*;
use crate::Limits;
use crate::etf::{Term, decode, encode};

fn parse(bytes: &[u8]) -> Result<Term> {
    decode(bytes, &Limits::default())
}

/// A map with these encoded keys, each with the value `[]`.
fn map(keys: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![131, 116];
    bytes.extend((keys.len() as u32).to_be_bytes());
    for key in keys {
        bytes.extend_from_slice(key);
        bytes.push(106);
    }
    bytes
}

#[test]
fn one_term_in_two_encodings_is_one_key() {
    let pairs: &[(&[u8], &[u8])] = &[
        (&[97, 1], &[98, 0, 0, 0, 1]),
        (&[97, 1], &[110, 1, 0, 1]),
        (&[97, 1], &[111, 0, 0, 0, 2, 0, 1, 0]),
        (b"w\x01a", b"d\0\x01a"),
        (b"w\x01a", b"s\x01a"),
        (b"w\x01a", b"v\0\x01a"),
        (b"w\x02\xc3\xa5", b"s\x01\xe5"),
        (b"k\0\x02ab", b"l\0\0\0\x02aaabj"),
        (b"k\0\x02ab", b"l\0\0\0\x01aak\0\x01b"),
        (b"j", b"k\0\0"),
        (b"j", b"l\0\0\0\0j"),
        (b"h\x01aa", b"i\0\0\0\x01aa"),
        (b"m\0\0\0\x01a", b"M\0\0\0\x01\x08a"),
        (b"M\0\0\0\x01\x03\xe0", b"M\0\0\0\x01\x03\xff"),
        (b"F\x3f\xf8\0\0\0\0\0\0", b"c1.5\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        (b"Z\0\x01w\x01a\0\0\0\x01\0\0\0\x07", b"Z\0\x02w\x01a\0\0\0\x01\0\0\0\x07\0\0\0\0"),
        (b"gw\x01a\0\0\0\x01\0\0\0\x02\x03", b"Xw\x01a\0\0\0\x01\0\0\0\x02\0\0\0\x03"),
        (b"t\0\0\0\x02a\x01ja\x02j", b"t\0\0\0\x02a\x02ja\x01j"),
        (b"h\x01t\0\0\0\x02a\x01ja\x02j", b"h\x01t\0\0\0\x02a\x02ja\x01j"),
    ];
    for (a, b) in pairs {
        parse(&map(&[a])).unwrap();
        parse(&map(&[b])).unwrap();
        let twice = parse(&map(&[a, b]));
        assert!(twice.is_err(), "{twice:?}");
        // Beyond the size up to which all keys are compared with all.
        let others: Vec<Vec<u8>> =
            (0..100u16).map(|n| [&[98, 1, 1], &n.to_be_bytes()[..]].concat()).collect();
        let mut keys: Vec<&[u8]> = others.iter().map(Vec::as_slice).collect();
        keys.insert(20, a);
        parse(&map(&keys)).unwrap();
        keys.push(b);
        assert!(parse(&map(&keys)).is_err());
    }
}

#[test]
fn different_terms_are_different_keys() {
    parse(&map(&[&[97, 1], b"F\x3f\xf0\0\0\0\0\0\0"])).unwrap();
    parse(&map(&[b"F\0\0\0\0\0\0\0\0", b"F\x80\0\0\0\0\0\0\0"])).unwrap();
    parse(&map(&[b"w\x01a", b"m\0\0\0\x01a", b"k\0\x01a", b"aa"])).unwrap();
}

/// Hash collisions by intent: each key differs from the others only where the hash does not look.
#[test]
fn colliding_keys_take_no_quadratic_time() {
    // Maps inside keys count with their size only, so that all of these have one hash.
    let keys: Vec<Term> =
        (0..20_000).map(|n| Term::Map([(Term::from(n), Term::nil())].into_iter().collect())).collect();
    let pairs: Vec<(Term, Term)> = keys.into_iter().map(|key| (key, Term::nil())).collect();
    let mut bytes = Vec::new();
    encode(&Term::Map(super::super::Map::from_pairs(pairs).unwrap()), &mut bytes).unwrap();
    parse(&bytes).unwrap();
}

/// A map whose only key is a map whose only key …, with two entries on each level to make sorting necessary.
#[test]
fn maps_nested_in_keys() {
    let mut bytes = vec![131];
    for _ in 0..60_000 {
        bytes.extend([116, 0, 0, 0, 2, 97, 1, 97, 2]);
    }
    bytes.push(106);
    bytes.extend([97, 3].repeat(60_000));
    let term = parse(&bytes).unwrap();
    assert!(term == term.clone());
    assert!(term.cmp_erlang(&term).is_eq());
}
