//! Where a `Horde.DynamicSupervisor` puts a child: `Horde.UniformDistribution` and `Horde.UniformQuorumDistribution` over
//! libring's ring.
//!
//! All members that see the same living members choose the same one, so whoever has the members can say where a child will be.
//! (`Horde.UniformRandomDistribution` draws at random; there is nothing to say.)

use std::collections::BTreeMap;

use foundation_proto::etf::{Map, Term, phash2};

use super::Member;
use super::supervisor::Status;
use crate::ring::{POINTS, Ring, place};

/// A hash ring of members (`HashRing` of libring).
#[derive(Clone, Debug, Default)]
pub struct HashRing {
    members: Vec<Member>,
    ring: Ring,
}

impl HashRing {
    /// The ring of these members.
    pub fn new<'a>(members: impl IntoIterator<Item = &'a Member>) -> Self {
        let members: Vec<Member> = members.into_iter().cloned().collect();
        let terms: Vec<Term> = members.iter().map(Member::to_term).collect();
        let ring = Ring::new(terms.iter().map(|term| (term, POINTS)));
        Self { members, ring }
    }

    /// Who has a key: the member at the first point from the key's hash on, around the ring. `None` if the ring is empty.
    /// libring hashes an atom by its external format; such keys have no place here, and Horde uses none.
    pub fn key_to_node(&self, key: &Term) -> Option<&Member> {
        self.members.get(self.ring.owner(place(key))?)
    }
}

/// What decides where a child is: `phash2` of its specification without the id, which Horde draws at random.
pub fn identifier(child_spec: &Map) -> Term {
    let kept = child_spec.iter().filter(|(key, _)| !key.is_atom("id"));
    let spec: Map = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
    Term::Integer(i64::from(phash2(&Term::Map(spec))))
}

/// Whether the members have a quorum for `Horde.UniformQuorumDistribution`: more than half of those that are not shutting down
/// are alive. If their number is even, the first by name does not count.
pub fn has_quorum(members: &BTreeMap<Member, Status>) -> bool {
    let counted: Vec<Status> =
        members.values().filter(|status| **status != Status::ShuttingDown).copied().collect();
    let counted =
        if counted.len().is_multiple_of(2) { counted.get(1..).unwrap_or_default() } else { &counted };
    let alive = counted.iter().filter(|status| **status == Status::Alive).count();
    2 * alive > counted.len()
}

#[cfg(test)]
mod tests {
    use foundation_proto::etf::Atom;

    use super::*;
    use crate::message::{atom, list_of, tuple_of};

    fn member(node: &'static str) -> Member {
        Member { name: Atom::new_static("Elixir.Sup"), node: Atom::new_static(node) }
    }

    fn ring() -> HashRing {
        HashRing::new(&[member("a@h"), member("b@h"), member("c@h")])
    }

    fn node(member: Option<&Member>) -> &str {
        member.map_or("", |member| member.node.as_str())
    }

    /// What libring 1.7.0 said on OTP 25.
    #[test]
    fn the_ring_is_that_of_libring() {
        let ring = ring();
        let lowest: Vec<_> = ring
            .ring
            .points()
            .iter()
            .take(4)
            .map(|(at, who)| (*at, ring.members[*who as usize].node.as_str()))
            .collect();
        assert_eq!(
            lowest,
            [(36_179_536, "a@h"), (51_475_108, "b@h"), (52_545_153, "b@h"), (60_570_662, "b@h")]
        );
        let first = tuple_of([member("a@h").to_term(), Term::Integer(1)]);
        assert_eq!(place(&first), 2_762_938_235);
        let owners: Vec<_> = (0..10).map(|key| node(ring.key_to_node(&Term::Integer(key)))).collect();
        assert_eq!(owners, ["c@h", "c@h", "c@h", "c@h", "a@h", "a@h", "b@h", "a@h", "b@h", "a@h"]);
        assert_eq!(HashRing::default().key_to_node(&Term::Integer(1)), None);
    }

    #[test]
    fn children_are_where_horde_puts_them() {
        let ring = ring();
        let int = Term::Integer;
        let cases = [
            ("Elixir.Map", "new", vec![], 90_382_358, "a@h"),
            ("Elixir.Kernel", "max", vec![int(1), int(1)], 2_823_878, "c@h"),
            ("Elixir.Kernel", "max", vec![int(2), int(2)], 116_407_802, "a@h"),
            ("Elixir.List", "wrap", vec![int(1)], 114_663_021, "b@h"),
            ("Elixir.Kernel", "self", vec![], 43_040_865, "c@h"),
        ];
        for (module, function, args, hash, owner) in cases {
            let args = list_of([atom(module), atom(function), list_of(args)]);
            let start = tuple_of([atom("Elixir.Agent"), atom("start_link"), args]);
            let spec: Map = [(atom("id"), int(99)), (atom("start"), start)].into_iter().collect();
            let key = identifier(&spec);
            assert_eq!(key, int(hash), "{module}.{function}");
            assert_eq!(node(ring.key_to_node(&key)), owner, "{module}.{function}");
        }
    }

    /// What `Horde.UniformQuorumDistribution.has_quorum?/1` (0.10) says of the same members.
    #[test]
    fn a_member_that_shuts_down_counts_nowhere() {
        let quorum = |members: &[(&'static str, Status)]| {
            has_quorum(&members.iter().map(|(node, status)| (member(node), *status)).collect())
        };
        use Status::{Alive, Dead, ShuttingDown, Uninitialized};
        assert!(!quorum(&[]));
        assert!(quorum(&[("a@h", Alive)]));
        assert!(!quorum(&[("a@h", Alive), ("z@h", Uninitialized)]), "a visible node that says nothing");
        assert!(quorum(&[("a@h", Uninitialized), ("z@h", Alive)]), "the first of two does not count");
        assert!(quorum(&[("a@h", Alive), ("z@h", ShuttingDown)]));
        assert!(!quorum(&[("a@h", Alive), ("b@h", Dead), ("c@h", Dead), ("z@h", ShuttingDown)]));
        assert!(quorum(&[("a@h", Alive), ("b@h", Alive), ("c@h", Dead), ("z@h", ShuttingDown)]));
        assert!(!quorum(&[("z@h", ShuttingDown)]));
    }
}
