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

#[test]
fn an_opaque_term_leaves_no_order_of_keys() {
    // Nodes of what is inside LOCAL_EXT are used again: the map in a key there and the last map have the same number.
    let term = |pairs: &[u8]| {
        let opaque = b"h\x02yhasht\0\0\0\x01t\0\0\0\x02a\x03a\x04a\x01a\x02j";
        [&opaque[..], b"h\x01t\0\0\0\x02", pairs].concat()
    };
    let (left, right) = (term(b"a\x05a\x06a\x07a\x08"), term(b"a\x07a\x08a\x05a\x06"));
    let (mut left_tape, mut right_tape) = (Tape::new(), Tape::new());
    let limits = Limits::default();
    let left = left_tape.parse(&left, &[], &limits).unwrap();
    let right = right_tape.parse(&right, &[], &limits).unwrap();
    assert_eq!(left.cmp_exact(right), Ordering::Equal);
    assert!(left == right);
}

#[test]
fn the_ways_to_a_hash_agree() {
    let text = b"the text of a key that is long";
    for len in 0..text.len() {
        let expected = of_bytes(&text[..len]);
        for room in [0, 1, 20] {
            let atom = [&[SMALL_ATOM_UTF8_EXT, len as u8], &text[..len], &vec![b'j'; room]].concat();
            assert_eq!(usual_hash(&atom, &[]), Some(expected), "{len}");
            let head = [BINARY_EXT, 0, 0, 0, len as u8];
            let binary = [&head[..], &text[..len], &vec![b'j'; room]].concat();
            assert_eq!(usual_hash(&binary, &[]), Some(expected), "{len}");
            #[cfg(feature = "serde")]
            if let Some(words) = short_words(&text[..len]) {
                let written = [words.0.to_le_bytes(), words.1.to_le_bytes()].concat();
                assert_eq!((&written[..len], short_hash(words, len)), (&text[..len], expected));
                assert!(written[len..].iter().all(|byte| *byte == 0));
            } else {
                assert!(len > 16);
            }
        }
    }
}
