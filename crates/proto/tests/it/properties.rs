//! Laws of terms.
//!
//! 1. What is encoded decodes to the same term, through a tree and through a view, in as many bytes as foretold.
//! 2. A copy is equal; equal terms have equal hashes of every kind.
//! 3. The two orders are total: antisymmetric and transitive. The exact one is `Equal` only for equal terms.
//! 4. Views compare as the trees they show.
//! 5. The order of pairs in a map makes no difference.
//! 6. A list that goes on in its tail is the list of all the elements.

use std::cmp::Ordering;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use foundation_proto::Limits;
use foundation_proto::etf::{Map, RawTerm, Tape, Term, decode, encode, encoded_len, phash2};

use crate::fuzz::Random;
use crate::generate::term;

const CASES: usize = 3_000;

fn hash(term: &Term) -> u64 {
    BuildHasherDefault::<DefaultHasher>::new().hash_one(term)
}

#[test]
fn encoding_and_copies() {
    let mut random = Random(7);
    let limits = Limits::default();
    for _ in 0..CASES {
        let term = term(&mut random, 3);
        let mut bytes = Vec::new();
        encode(&term, &mut bytes).unwrap();
        assert_eq!(encoded_len(&term).unwrap() + 1, bytes.len());
        assert_eq!(decode(&bytes, &limits).as_ref(), Ok(&term));

        let raw = RawTerm::from_term(&term).unwrap();
        assert_eq!(raw.to_external(), bytes);
        let mut tape = Tape::new();
        let view = raw.view(&mut tape).unwrap();
        assert_eq!(view.to_term(), term);
        assert_eq!((view.kind(), view.phash2()), (term.kind(), phash2(&term)));

        let copy = term.clone();
        assert_eq!(copy, term);
        assert_eq!(hash(&copy), hash(&term));
    }
}

/// OTP writes no list this way, but reads it.
#[test]
fn lists_that_go_on_in_their_tails() {
    let mut random = Random(13);
    let limits = Limits::default();
    // [1,131,[[[]]],[]]: 65,504,431 is what erlang:phash2/1 of OTP 25 says.
    let bytes = b"\x83l\0\0\0\x02a\x01a\x83l\0\0\0\x02l\0\0\0\x01l\0\0\0\x01jjjjj";
    let term_of_otp = decode(bytes, &limits).unwrap();
    assert_eq!(term_of_otp.as_list().map(<[Term]>::len), Some(4));
    assert_eq!(phash2(&term_of_otp), 65_504_431);

    for case in 0..CASES {
        // Whatever stands around it, also beyond the levels that are built by recursion.
        let around = if case % 3 == 0 { random.below(50) } else { 0 };
        let mut bytes = [&[131][..], &[104, 1].repeat(around)].concat();
        let mut elements = Vec::new();
        for _ in 0..1 + random.below(4) {
            let part: Vec<Term> = (0..random.below(4)).map(|_| term(&mut random, 2)).collect();
            bytes.push(108);
            bytes.extend((part.len() as u32).to_be_bytes());
            for element in &part {
                let mut encoded = Vec::new();
                encode(element, &mut encoded).unwrap();
                bytes.extend(&encoded[1..]);
            }
            elements.extend(part);
        }
        let mut expected = match random.below(3) {
            0 => {
                bytes.extend(b"k\0\x02hi");
                elements.extend([Term::from(104), Term::from(105)]);
                Term::list(elements)
            }
            1 if !elements.is_empty() => {
                bytes.extend([97, 7]);
                Term::list_with_tail(elements, Term::from(7))
            }
            _ => {
                bytes.push(106);
                Term::list(elements)
            }
        };
        for _ in 0..around {
            expected = Term::tuple([expected]);
        }
        let decoded = decode(&bytes, &limits).unwrap();
        assert_eq!(decoded, expected, "{bytes:?}");
        let raw = RawTerm::from_external(&bytes, &limits).unwrap();
        let mut tape = Tape::new();
        assert_eq!(raw.view(&mut tape).unwrap().phash2(), phash2(&expected), "{bytes:?}");
    }
}

#[test]
fn orders_are_total() {
    let mut random = Random(11);
    let mut terms: Vec<Term> = (0..250).map(|_| term(&mut random, 2)).collect();
    for order in [Term::cmp_erlang, Term::cmp_exact] {
        // Sorting finds inconsistent orders by itself in part; the pairs afterwards find the rest.
        terms.sort_by(order);
        for (i, left) in terms.iter().enumerate() {
            for right in &terms[i..] {
                assert_ne!(order(left, right), Ordering::Greater, "{left:?} {right:?}");
                assert_eq!(order(left, right), order(right, left).reverse(), "{left:?} {right:?}");
                assert_eq!(left.cmp_exact(right).is_eq(), left == right, "{left:?} {right:?}");
            }
        }
    }
    for two in terms.windows(2) {
        let [left, right] = [&two[0], &two[1]].map(|term| RawTerm::from_term(term).unwrap());
        let (mut left_tape, mut right_tape) = (Tape::new(), Tape::new());
        let (left, right) = (left.view(&mut left_tape).unwrap(), right.view(&mut right_tape).unwrap());
        assert_eq!(left.cmp_erlang(right), two[0].cmp_erlang(&two[1]));
        assert_eq!(left.cmp_exact(right), two[0].cmp_exact(&two[1]));
        assert_eq!(left == right, two[0] == two[1]);
    }
}

#[test]
fn the_order_of_pairs_makes_no_difference() {
    let mut random = Random(13);
    let mut maps = 0;
    while maps < 300 {
        let Term::Map(map) = term(&mut random, 3) else { continue };
        maps += 1;
        let mut pairs = map.to_vec();
        pairs.reverse();
        let reversed = Map::from_pairs(pairs).unwrap();
        let (map, reversed) = (Term::Map(map), Term::Map(reversed));
        assert_eq!(map, reversed);
        assert_eq!(map.cmp_erlang(&reversed), Ordering::Equal);
        assert_eq!((phash2(&map), hash(&map)), (phash2(&reversed), hash(&reversed)));
        assert_eq!(RawTerm::from_term(&map).unwrap(), RawTerm::from_term(&reversed).unwrap());
    }
}
