//! The replicated map among members that exchange arbitrary parts of their state: late, twice, out of order, or not at all.
//!
//! Invariants:
//!
//! 1. Add wins: after everyone has exchanged everything, a key holds exactly the writes that no later write or remove of it
//!    had seen. Nothing else is lost, and nothing comes back.
//! 2. Convergence: all members then hold equal states and equal contexts.
//! 3. Bounded context: it then has one number for each replica.
//! 4. `Change` tells the whole story: replaying it gives the map.

use std::collections::{BTreeMap, BTreeSet};

use foundation_cluster::Key;
use foundation_cluster::registry::{AwLwwMap, Change, Delta, Dot};
use foundation_cluster::sim::Random;
use foundation_proto::etf::Term;

const KEYS: usize = 6;

#[derive(Default)]
struct Member {
    map: AwLwwMap,
    replay: BTreeMap<Key, Term>,
}

impl Member {
    fn join(&mut self, delta: Delta) {
        for change in self.map.join(delta) {
            self.note(change);
        }
    }

    fn note(&mut self, change: Change) {
        match change {
            Change::Put(key, value) => {
                assert_ne!(
                    self.replay.insert(key, value.clone()),
                    Some(value),
                    "invariant 4: nothing changed"
                );
            }
            Change::Removed(key) => {
                assert!(self.replay.remove(&key).is_some(), "invariant 4: removed what was not there")
            }
        }
    }
}

fn key(n: usize) -> Key {
    Key(Term::Integer(n as i64))
}

fn dots(map: &AwLwwMap, key: &Key) -> BTreeSet<Dot> {
    map.elements(key).iter().flat_map(|element| element.dots.iter().copied()).collect()
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let mut members: Vec<Member> = (0..2 + random.below(4)).map(|_| Member::default()).collect();
    // The oracle: which write stands at which key, unless something that saw it took it away.
    let mut standing: BTreeMap<Dot, usize> = BTreeMap::new();
    let mut in_flight: Vec<(usize, Delta)> = Vec::new();
    for step in 0..150 {
        let at = random.below(members.len());
        let n = random.below(KEYS);
        let member = &mut members[at];
        match random.below(10) {
            0..=2 => {
                for seen in dots(&member.map, &key(n)) {
                    standing.remove(&seen);
                }
                let dot = member.map.context().next(at as i64);
                standing.insert(dot, n);
                // Clocks that disagree: the timestamp may go back.
                let timestamp = random.below(200) as i64;
                let before = member.map.get(&key(n)).cloned();
                let delta = member.map.put(key(n), Term::Integer(step), at as i64, timestamp);
                if before != Some(Term::Integer(step)) {
                    member.note(Change::Put(key(n), Term::Integer(step)));
                }
                send(&mut random, &mut in_flight, members.len(), delta);
            }
            3 => {
                for seen in dots(&member.map, &key(n)) {
                    standing.remove(&seen);
                }
                if let Some(delta) = member.map.remove(&key(n)) {
                    member.note(Change::Removed(key(n)));
                    send(&mut random, &mut in_flight, members.len(), delta);
                }
            }
            4..=5 => {
                let some = (0..KEYS).filter(|_| random.chance(40)).map(key).collect::<Vec<_>>();
                let delta = member.map.delta(some);
                in_flight.push((random.below(members.len()), delta));
            }
            _ if !in_flight.is_empty() => {
                let (to, delta) = in_flight.swap_remove(random.below(in_flight.len()));
                if random.chance(20) {
                    in_flight.push((to, delta.clone()));
                }
                members[to].join(delta);
            }
            _ => {}
        }
    }
    for (to, delta) in in_flight {
        members[to].join(delta);
    }
    for _ in 0..2 {
        for from in 0..members.len() {
            for to in 0..members.len() {
                let delta = members[from].map.delta((0..KEYS).map(key));
                members[to].join(delta);
                let context = members[from].map.context().clone();
                members[to].map.adopt_context(&context);
            }
        }
    }
    let mut expected: BTreeMap<usize, BTreeSet<Dot>> = BTreeMap::new();
    for (dot, n) in standing {
        expected.entry(n).or_default().insert(dot);
    }
    for member in &members {
        for n in 0..KEYS {
            let found = dots(&member.map, &key(n));
            assert_eq!(
                found,
                expected.get(&n).cloned().unwrap_or_default(),
                "seed {seed}: invariant 1, key {n}"
            );
            assert_eq!(
                member.map.elements(&key(n)),
                members[0].map.elements(&key(n)),
                "seed {seed}: invariant 2"
            );
        }
        assert_eq!(member.map.context(), members[0].map.context(), "seed {seed}: invariant 2");
        assert_eq!(member.map.context().beyond().count(), 0, "seed {seed}: invariant 3");
        let map: BTreeMap<Key, Term> = member.map.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        assert_eq!(member.replay, map, "seed {seed}: invariant 4");
    }
}

fn send(random: &mut Random, in_flight: &mut Vec<(usize, Delta)>, members: usize, delta: Delta) {
    for to in 0..members {
        if random.chance(60) {
            in_flight.push((to, delta.clone()));
        }
    }
}

#[test]
fn nothing_is_lost_and_nothing_comes_back() {
    for seed in super::seeds(2000) {
        run(seed);
    }
}
