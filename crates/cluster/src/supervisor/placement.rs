//! Where a child is started.

use foundation_proto::etf::{Atom, Term, phash2};

use super::spec::Placement;
use crate::message::tuple_of;
use crate::registry::horde::Member;
use crate::registry::horde::distribution::HashRing;

/// The ring of the nodes that were asked about last.
#[derive(Debug, Default)]
pub(super) struct Ring {
    nodes: Vec<Atom>,
    ring: HashRing,
}

impl Ring {
    /// The nodes in the order in which they are to run a child. `name` is the name of the supervisor, as it is in `Horde`'s
    /// ring.
    pub(super) fn order(
        &mut self,
        name: &Atom,
        placement: Placement,
        child: &Term,
        nodes: &[Atom],
    ) -> Vec<Atom> {
        let mut order = by_weight(child, nodes);
        if placement == Placement::Ring {
            if self.nodes != nodes {
                let members: Vec<Member> =
                    nodes.iter().map(|node| Member { name: name.clone(), node: node.clone() }).collect();
                *self = Self { nodes: nodes.to_vec(), ring: HashRing::new(&members) };
            }
            let key = Term::Integer(i64::from(phash2(child)));
            let first = self.ring.key_to_node(&key).map(|member| member.node.clone());
            if let Some(at) = first.and_then(|first| order.iter().position(|node| *node == first)) {
                let first = order.remove(at);
                order.insert(0, first);
            }
        }
        order
    }
}

/// Rendezvous hashing: by the hash of child and node, the greatest first.
fn by_weight(child: &Term, nodes: &[Atom]) -> Vec<Atom> {
    let weight = |node: &Atom| phash2(&tuple_of([child.clone(), Term::Atom(node.clone())]));
    let mut order: Vec<(u32, &Atom)> = nodes.iter().map(|node| (weight(node), node)).collect();
    order.sort_by(|a, b| b.cmp(a));
    order.into_iter().map(|(_, node)| node.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn nodes(count: usize) -> Vec<Atom> {
        (0..count).map(|n| Atom::new(&format!("n{n}@h")).unwrap()).collect()
    }

    #[test]
    fn children_are_spread_and_stay_where_they_can() {
        for placement in [Placement::Uniform, Placement::Ring] {
            let (four, five) = (nodes(4), nodes(5));
            let (mut before, mut after) = (Ring::default(), Ring::default());
            let mut counts: BTreeMap<Atom, usize> = BTreeMap::new();
            let name = Atom::new_static("sup");
            let mut moved = 0;
            for child in 0..1000 {
                let child = Term::Integer(child);
                let first = before.order(&name, placement, &child, &four).remove(0);
                let later = after.order(&name, placement, &child, &five).remove(0);
                if first != later {
                    assert_eq!(later, five[4], "a child moves to the new node only");
                    moved += 1;
                }
                *counts.entry(first).or_default() += 1;
            }
            assert!(counts.values().all(|count| (150..350).contains(count)), "{placement:?}: {counts:?}");
            assert!((100..300).contains(&moved), "{placement:?}: {moved}");
        }
    }

    #[test]
    fn the_ring_is_that_of_horde() {
        let nodes = ["a@h", "b@h", "c@h"].map(Atom::new_static);
        let members: Vec<Member> = nodes
            .iter()
            .map(|node| Member { name: Atom::new_static("Elixir.Sup"), node: node.clone() })
            .collect();
        let ring = HashRing::new(&members);
        for child in 0..50 {
            let child = Term::Integer(child);
            let name = Atom::new_static("Elixir.Sup");
            let order = Ring::default().order(&name, Placement::Ring, &child, &nodes);
            let key = Term::Integer(i64::from(phash2(&child)));
            assert_eq!(Some(&order[0]), ring.key_to_node(&key).map(|member| &member.node));
            assert_eq!(order.len(), 3);
        }
    }
}
