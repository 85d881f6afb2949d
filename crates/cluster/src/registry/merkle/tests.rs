use super::*;
use crate::registry::Dot;

const MONOTONIC_START: i64 = -(1 << 59);

fn key(n: i64) -> Key {
    Key(tuple_of([atom("key"), Term::Binary(format!("k{n}").into_bytes().into())]))
}

/// `%{{{{Reg, :"a@h"}, n, nil}, ts} => MapSet.new([{77, n}])}`
fn elements(n: i64, shape: MapSetShape) -> Term {
    let value = tuple_of([tuple_of([atom("Elixir.Reg"), atom("a@h")]), Term::Integer(n), atom("nil")]);
    let dots = vec![Dot { replica: 77, number: n }];
    elements_term(&[Element { value, timestamp: MONOTONIC_START + n, dots }], shape)
}

fn filled(range: std::ops::RangeInclusive<i64>, shape: MapSetShape) -> MerkleMap {
    let mut map = MerkleMap::default();
    for n in range {
        map.put(key(n), elements(n, shape));
    }
    map
}

/// Roots computed by merkle_map 0.2.2 on OTP 25 with Elixir 1.14 and on OTP 27 with Elixir 1.18, for the same 600 entries.
#[test]
fn roots_are_those_of_merkle_map() {
    for (shape, all, three) in
        [(MapSetShape::Versioned, 0xBD3C_B435, 0x0726_1022), (MapSetShape::Plain, 0xB393_CD54, 0x0DD7_A66C)]
    {
        let mut map = filled(1..=600, shape);
        assert_eq!(map.root_hash(), Some(all));
        for n in 1..=597 {
            map.delete(&key(n));
        }
        assert_eq!(map.root_hash(), Some(three));
        assert_eq!(
            filled(598..=600, shape).root_hash(),
            Some(three),
            "the shape follows from the keys alone"
        );
    }
}

/// Walks a comparison to its end, as two members do by messages.
fn differences(a: &mut MerkleMap, b: &mut MerkleMap) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut places = vec![Location::ROOT];
    let mut sides = (a, b);
    while !places.is_empty() {
        let mut next = Vec::new();
        for at in places {
            let theirs = sides.0.subtree(at, LEVELS);
            let (found, further) = sides.1.compare(at, &theirs);
            keys.extend(found);
            next.extend(further);
        }
        places = next;
        sides = (sides.1, sides.0);
    }
    keys.sort();
    keys
}

#[test]
fn a_comparison_finds_exactly_the_keys_that_differ() {
    let shape = MapSetShape::Plain;
    let mut a = filled(1..=3000, shape);
    let mut b = filled(4..=3003, shape);
    b.put(key(1500), elements(9, shape));
    let mut expected: Vec<Key> = [1, 2, 3, 1500, 3001, 3002, 3003].map(key).into();
    expected.sort();
    assert_eq!(differences(&mut a, &mut b), expected);
    let mut empty = MerkleMap::default();
    assert_eq!(differences(&mut empty, &mut a).len(), 3000);
    assert_eq!(differences(&mut a, &mut empty).len(), 3000);
    assert_eq!(empty.root_hash(), None);
}

#[test]
fn locations_are_bit_strings() {
    for depth in [0, 1, 7, 8, 9, 16, 31, 32] {
        let mut at = Location::ROOT;
        for level in 0..depth {
            at = at.child(level % 3 == 0);
        }
        assert_eq!(Location::from_term(&at.to_term()), Some(at), "depth {depth}");
    }
    assert_eq!(Location::from_term(&Term::Binary(vec![0; 5].into())), None);
    assert_eq!(Location::from_term(&Term::Integer(1)), None);
}
