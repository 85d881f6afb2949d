use super::*;
use crate::registry::Dot;

const MONOTONIC_START: i64 = -(1 << 59);

fn key(n: i64) -> Key {
    Key(tuple_of([atom("key"), Term::Binary(format!("k{n}").into_bytes().into())]))
}

/// `%{{{{Reg, :"a@h"}, n, nil}, ts} => MapSet.new([{77, n}])}`
fn entry(k: i64, n: i64) -> Arc<Entry> {
    let value = tuple_of([tuple_of([atom("Elixir.Reg"), atom("a@h")]), Term::Integer(n), atom("nil")]);
    let dots = vec![Dot { replica: 77, number: n }];
    let element = Element { value, timestamp: MONOTONIC_START + n, dots: dots.into() };
    Arc::new(Entry::new(key(k), vec![element]))
}

fn filled(range: std::ops::RangeInclusive<i64>, shape: MapSetShape) -> MerkleMap {
    let mut map = MerkleMap::new(shape);
    for n in range {
        map.put(&entry(n, n));
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
            map.delete(&entry(n, n));
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
            let theirs = sides.0.subtree(at, LEVELS).keys();
            let found = sides.1.compare(at, theirs);
            keys.extend(found.keys.into_iter().chain(found.lacking));
            next.extend(found.places);
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
    b.put(&entry(1500, 9));
    let mut expected: Vec<Key> = [1, 2, 3, 1500, 3001, 3002, 3003].map(key).into();
    expected.sort();
    assert_eq!(differences(&mut a, &mut b), expected);
    let mut empty = MerkleMap::default();
    assert_eq!(differences(&mut empty, &mut a).len(), 3000);
    assert_eq!(differences(&mut a, &mut empty).len(), 3000);
    assert_eq!(empty.root_hash(), None);
}

/// Going down the tree to show each of them would send the whole map for nothing.
#[test]
fn what_the_peer_lacks_is_found_without_going_on() {
    let shape = MapSetShape::Plain;
    let mut large = filled(1..=3000, shape);
    let all = large.compare(Location::ROOT, Subtree::Empty);
    assert_eq!((all.keys.len(), all.lacking.len(), all.places.len()), (0, 3000, 0));
    let one = large.compare(Location::ROOT, filled(7..=7, shape).subtree(Location::ROOT, 1).keys());
    assert!(one.keys.is_empty() && one.places.is_empty() && !one.lacking.contains(&key(7)));
    assert_eq!(one.lacking.len(), 2999);
    // The other way round there is something to ask for.
    let none = MerkleMap::default().compare(Location::ROOT, large.subtree(Location::ROOT, 1).keys());
    assert_eq!((none.keys.len(), none.lacking.len(), none.places.len()), (0, 0, 2));
    let none = MerkleMap::default().compare(Location::ROOT, large.subtree(Location::ROOT, LEVELS).keys());
    assert_eq!((none.lacking.len(), none.keys.len() + none.places.len() > 250), (0, true));
    // A leaf that hangs above a place, but is not in it.
    let mut single = filled(7..=7, shape);
    let hash = hash_of(&key(7).0);
    for depth in [1, 9] {
        let here = Location { bits: hash & (u32::MAX << (32 - depth)), depth };
        let beside = Location { bits: here.bits ^ (1 << (32 - depth)), depth };
        assert_eq!(single.compare(here, Subtree::Empty).lacking, [key(7)]);
        assert!(single.compare(beside, Subtree::Empty).lacking.is_empty());
    }
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

/// There are some 1.44 inner nodes for each key, and twice as many places below them.
#[test]
fn a_place_in_the_tree_takes_two_words() {
    assert_eq!((size_of::<Tree>(), size_of::<Inner>()), (16, 40));
}
