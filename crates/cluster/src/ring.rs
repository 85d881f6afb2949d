//! Which of several nodes has a key: a consistent hash ring whose points are those of libring (`HashRing`), so that Elixir nodes with that library or
//! with ours, and Rust nodes, place a key alike without asking.
//!
//! A node has as many points as its weight, at `phash2({Node, I}, 2³² - 1)` for `I` from 1; a key belongs to the node of the first point at
//! `phash2(Key, 2³² - 1)` or after it, around the ring. A node that comes or goes moves the keys next to its points and no others.

use foundation_proto::etf::{Term, phash2_range};

use crate::message::tuple_of;

/// Points of a node, unless it has another weight (libring's default).
pub const POINTS: u32 = 128;
/// The range of all hashes on the ring: libring takes 2³² - 1, not 2³².
const RANGE: u64 = (1 << 32) - 1;

/// The place of a term on the ring. libring hashes an atom by its external format, which differs between releases: its caller has to encode it.
pub fn place(key: &Term) -> u32 {
    // The range is a valid one, so there is a hash.
    phash2_range(key, RANGE).unwrap_or_default()
}

/// A ring of nodes, which it knows by their numbers in the order in which they were given.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ring {
    /// Place and node, in the order of places, each place once.
    points: Vec<(u32, u32)>,
}

impl Ring {
    /// The ring of these nodes with their weights. Each node must be given once.
    pub fn new<'a>(nodes: impl IntoIterator<Item = (&'a Term, u32)>) -> Self {
        let mut points = Vec::new();
        for (number, (node, weight)) in (0..).zip(nodes) {
            for i in 1..=i64::from(weight) {
                points.push((place(&tuple_of([node.clone(), Term::Integer(i)])), number));
            }
        }
        // Stable: of two nodes that meet in one place, the one that was given first has it.
        points.sort_by_key(|(place, _)| *place);
        points.dedup_by_key(|(place, _)| *place);
        Self { points }
    }

    /// The number of the node to which a place belongs; `None` if the ring is empty.
    pub fn owner(&self, place: u32) -> Option<usize> {
        let next = self.points.partition_point(|(at, _)| *at < place);
        let (_, number) = self.points.get(next).or_else(|| self.points.first())?;
        usize::try_from(*number).ok()
    }

    /// Place and number of each point, in the order of places.
    pub fn points(&self) -> &[(u32, u32)] {
        &self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What libring 1.7.0 said on OTP 25 of `HashRing.add_nodes(["a", {"b", 64}, {"c", 32}])` and of integers as keys.
    #[test]
    fn it_is_the_ring_of_libring() {
        let nodes = ["a", "b", "c"].map(Term::from);
        let ring = Ring::new(nodes.iter().zip([POINTS, 64, 32]));
        let owners: Vec<_> =
            (0..LIBRING.len()).map(|key| ring.owner(place(&Term::from(key as i64)))).collect();
        let expected: Vec<_> = LIBRING.bytes().map(|name| Some(usize::from(name - b'a'))).collect();
        assert_eq!(owners, expected);
        assert_eq!(ring.points().len(), 128 + 64 + 32);
        assert_eq!(Ring::default().owner(7), None);
    }

    const LIBRING: &str = "baabaaaaaaccccababaaaaaaabaacaabbaaaaaaaaaaaaaacbbccaabbcacacaccbaaabbbaaabcacabaaaaaacbccacaabbaaab";

    #[test]
    fn a_node_that_goes_moves_its_own_keys_only() {
        let nodes: Vec<Term> = (0..5).map(Term::Integer).collect();
        let all = Ring::new(nodes.iter().map(|node| (node, POINTS)));
        let less = Ring::new(nodes.iter().take(4).map(|node| (node, POINTS)));
        let mut moved = 0;
        for key in 0..10_000 {
            let place = place(&Term::Integer(key));
            let (before, after) = (all.owner(place), less.owner(place));
            assert!(before == after || before == Some(4));
            moved += usize::from(before != after);
        }
        assert!((1000..3500).contains(&moved), "about a fifth: {moved}");
    }
}
