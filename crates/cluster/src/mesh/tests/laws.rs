//! What holds for any query, any instances and any sequence of choices. A failing case prints its seed.
//!
//! # Laws
//! 1. A query finds exactly what meets each of its criteria alone: more criteria find the intersection.
//! 2. A query from a term finds what the same query made by hand finds.
//! 3. In turn: after any number of choices among the same instances, the numbers of choices differ by one at most.
//! 4. By weight: after as many choices as the weights add up to, each has had its weight; on the way nobody is further from its share
//!    than the number of instances.
//! 5. By connections: who is chosen has the fewest; if each choice begins a connection, the numbers differ by one at most.
//! 6. Pages of any length hold what the whole holds, each once.

use super::*;
use crate::message::{list_of, tuple_of};
use crate::sim::Random;

const CASES: u64 = 300;

fn any(random: &mut Random, words: &[&'static str]) -> Term {
    atom(words[random.below(words.len())])
}

fn populate(random: &mut Random, mesh: &mut Mesh) {
    for n in 0..1 + random.below(30) as u32 {
        let node = ["a@h", "beam@h", "other@h"][random.below(3)];
        let capabilities = (0..random.below(4)).map(|_| any(random, &["c1", "c2", "c3"])).collect::<Vec<_>>();
        let said = metadata([
            ("level", any(random, &["high", "low"])),
            ("weight", Term::Integer(random.below(9) as i64 - 1)),
            ("health", any(random, &["healthy", "degraded", "unhealthy"])),
        ]);
        let registration = Registration::new(any(random, &["x", "y"]), &pid(node, 10 + n));
        let registration = registration.capabilities(capabilities).metadata(said);
        assert_eq!(register(mesh, registration), Outcome::Done);
    }
}

/// A criterion: by hand, as a pair of a term, and what it means.
type Meaning = Box<dyn Fn(&Service) -> bool>;

fn criterion(random: &mut Random, query: Query) -> (Query, Term, Meaning) {
    let pair = |key: &'static str, value: &Term| tuple_of([atom(key), value.clone()]);
    match random.below(5) {
        0 => {
            let name = any(random, &["x", "y", "z"]);
            (query.name(name.clone()), pair("name", &name), Box::new(move |service| service.name == name))
        }
        1 => {
            let wanted = any(random, &["c1", "c2", "c4"]);
            let term = pair("capabilities", &list_of([wanted.clone()]));
            let meaning = {
                let wanted = wanted.clone();
                move |service: &Service| service.capabilities.contains(&wanted)
            };
            (query.capability(wanted), term, Box::new(meaning))
        }
        2 => {
            let node = any(random, &["a@h", "beam@h", "nobody@h"]);
            let name = node.as_atom().unwrap().clone();
            let meaning = {
                let name = name.clone();
                move |service: &Service| *service.node() == name
            };
            (query.node(name), pair("node", &node), Box::new(meaning))
        }
        3 => {
            let health = [Health::Healthy, Health::Degraded, Health::Unhealthy][random.below(3)];
            (
                query.health(health),
                pair("health", &health.term()),
                Box::new(move |service| service.health == health),
            )
        }
        _ => {
            let level = any(random, &["high", "low", "medium"]);
            let meaning = {
                let level = level.clone();
                move |service: &Service| service.metadata.get_atom("level") == Some(&level)
            };
            (query.metadata(atom("level"), level.clone()), pair("level", &level), Box::new(meaning))
        }
    }
}

#[test]
fn queries_find_what_they_say() {
    for seed in 0..CASES {
        let mut random = Random::new(seed);
        let mut mesh = mesh();
        populate(&mut random, &mut mesh);
        let everything = mesh.discover(&Query::new());
        let (mut query, mut terms, mut meanings) = (Query::new(), Vec::<Term>::new(), Vec::new());
        for _ in 0..random.below(4) {
            let (next, term, meaning) = criterion(&mut random, query);
            // A second value of one key takes the place of the first, except where all have to be met.
            let key = term.as_tuple().unwrap()[0].clone();
            if !key.is_atom("capabilities") && !key.is_atom("level") {
                while let Some(at) = terms.iter().position(|other| other.as_tuple().unwrap()[0] == key) {
                    terms.remove(at);
                    drop(meanings.remove(at));
                }
            }
            query = next;
            terms.push(term);
            meanings.push(meaning);
        }
        let expected: Vec<_> = everything
            .iter()
            .filter(|service| meanings.iter().all(|meets| meets(service)))
            .cloned()
            .collect();
        assert_eq!(mesh.discover(&query), expected, "seed {seed}, law 1: {query:?}");
        let read = Query::from_term(&list_of(terms)).unwrap();
        assert_eq!(mesh.discover(&read), expected, "seed {seed}, law 2: {query:?}");
        let limit = 1 + random.below(5);
        let mut paged: Vec<Arc<Service>> = Vec::new();
        loop {
            let all: Box<dyn Iterator<Item = &Arc<Service>>> = match paged.last() {
                None => Box::new(mesh.index.iter()),
                Some(last) => Box::new(mesh.index.after(last.name.clone(), &last.pid)),
            };
            let page: Vec<_> = all.filter(|one| query.matches(one)).take(limit).cloned().collect();
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged.len(), expected.len(), "seed {seed}, law 6");
        assert!(expected.iter().all(|one| paged.contains(one)), "seed {seed}, law 6");
    }
}

#[test]
fn choices_are_fair() {
    for seed in 0..CASES {
        let mut random = Random::new(seed);
        let mut mesh = mesh();
        populate(&mut random, &mut mesh);
        let well = |service: &Service| service.name.is_atom("x") && service.health != Health::Unhealthy;
        let found: Vec<_> = mesh.discover(&Query::new()).into_iter().filter(|one| well(one)).collect();
        if found.is_empty() {
            continue;
        }
        let pick = |mesh: &mut Mesh, strategy| mesh.pick(&atom("x"), &Routing::new(strategy), 0);
        let spread = |counts: &BTreeMap<Pid, i64>| {
            let count = |service: &Arc<Service>| counts.get(&service.pid).copied().unwrap_or_default();
            found.iter().map(count).max().unwrap() - found.iter().map(count).min().unwrap()
        };

        let mut counts = BTreeMap::new();
        for _ in 0..random.below(100) {
            *counts.entry(pick(&mut mesh, Strategy::RoundRobin).unwrap().pid.clone()).or_insert(0i64) += 1;
            assert!(spread(&counts) <= 1, "seed {seed}, law 3: {counts:?}");
        }

        let sum: i64 = found.iter().map(|service| i64::from(service.weight())).sum();
        let mut counts: BTreeMap<Pid, i64> = BTreeMap::new();
        for n in 1..=sum * 2 {
            *counts.entry(pick(&mut mesh, Strategy::Weighted).unwrap().pid.clone()).or_default() += 1;
            for service in &found {
                let (count, weight) =
                    (counts.get(&service.pid).copied().unwrap_or_default(), i64::from(service.weight()));
                let off = (count * sum - weight * n).abs();
                assert!(off <= sum * found.len() as i64, "seed {seed}, law 4: {counts:?}");
                assert!(n % sum != 0 || off == 0, "seed {seed}, law 4 after {n} of {sum}: {counts:?}");
            }
        }

        let mut counts = BTreeMap::new();
        for _ in 0..random.below(100) {
            let chosen = pick(&mut mesh, Strategy::LeastConnections).unwrap();
            let least = found.iter().map(|service| mesh.connections(&service.pid)).min().unwrap();
            assert_eq!(mesh.connections(&chosen.pid), least, "seed {seed}, law 5");
            mesh.begin(&chosen.pid);
            *counts.entry(chosen.pid.clone()).or_insert(0i64) += 1;
            assert!(spread(&counts) <= 1, "seed {seed}, law 5: {counts:?}");
        }
    }
}
