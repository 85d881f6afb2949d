//! The registry behind terms is the same registry.

use std::collections::BTreeMap;

use foundation_proto::etf::Map;

use super::super::external::External;
use super::*;
use crate::message::{list, tuple};
use crate::sim::Random;

fn external(node: &str) -> External {
    External::new(tuple_of([atom("r"), Term::from(&pid(node, 1)), Term::Map(Map::default())])).unwrap()
}

fn number(number: u64) -> Term {
    Term::Integer(i64::try_from(number).unwrap())
}

fn message(message: Term) -> Term {
    tuple_of([atom("message"), message, Term::Integer(1000)])
}

fn call(request: Term) -> Term {
    let from = Term::from((Term::from(&pid("a@h", 99)), Term::Integer(1)));
    tuple_of([atom("$gen_call"), from, request])
}

fn register(key: i64, process: u32) -> Term {
    let pid = Term::from(&pid("a@h", process));
    call(tuple_of([atom("register"), Term::Integer(key), atom("v"), pid]))
}

#[test]
fn events_and_actions_are_terms() {
    let mut external = external("a@h");
    let seven = Term::from(&pid("a@h", 7));
    let events = list_of([message(register(1, 7)), message(register(1, 8))]);
    let (actions, due) = external.handle(Mono::ZERO, events).unwrap();
    let from = Term::from((Term::from(&pid("a@h", 99)), Term::Integer(1)));
    let ok = tuple_of([atom("ok"), Term::from(&pid("a@h", 1))]);
    let taken = tuple_of([atom("error"), tuple_of([atom("already_registered"), seven.clone()])]);
    let row = tuple_of([Term::Integer(1), list_of([tuple_of([seven.clone(), atom("v"), atom("true")])])]);
    assert_eq!(
        actions,
        list_of([
            tuple_of([atom("monitor"), number(1), seven.clone()]),
            tuple_of([
                atom("changed"),
                list_of([tuple_of([atom("added"), Term::Integer(1), seven, atom("v")])]),
                list_of([row]),
            ]),
            tuple_of([atom("reply"), from.clone(), ok]),
            tuple_of([atom("reply"), from, taken]),
        ])
    );
    assert_eq!(due, None);

    let (actions, due) =
        external.handle(Mono::ZERO, list_of([tuple_of([atom("node_up"), atom("b@h")])])).unwrap();
    let hello =
        tuple_of([atom("hello"), Term::Integer(1), atom("unique"), Term::from(&pid("a@h", 1)), number(2)]);
    assert_eq!(actions, list_of([tuple_of([atom("send"), list_of([atom("b@h")]), hello])]));
    assert!(due.is_some());

    let down = list_of([tuple_of([atom("down"), number(1)])]);
    let (actions, _) = external.handle(Mono::ZERO, down).unwrap();
    let changed = actions.as_list().unwrap().first().unwrap().as_tuple().unwrap().to_vec();
    assert_eq!(changed[2], list_of([tuple_of([Term::Integer(1), list_of([])])]));
}

#[test]
fn what_is_no_event_does_nothing() {
    let mut external = external("a@h");
    for bad in [
        atom("timeout"),
        list_of([atom("time")]),
        list_of([message(register(1, 7)), tuple_of([atom("down"), Term::Integer(-1)])]),
        list_of([tuple_of([atom("node_up"), Term::Integer(1)])]),
        list_of([tuple_of([atom("message"), atom("x")])]),
        list_of([tuple_of([atom("down"), number(1), number(1)])]),
    ] {
        assert!(external.handle(Mono::ZERO, bad.clone()).is_none(), "{bad:?}");
    }
    assert!(external.names.is_empty());
    let new = |name, options: &[(Term, Term)]| {
        let options = Term::Map(Map::from_pairs(options.to_vec()).unwrap());
        External::new(tuple_of([name, Term::from(&pid("a@h", 1)), options]))
    };
    assert!(new(Term::Integer(1), &[]).is_none());
    assert!(new(atom("r"), &[(atom("keys"), atom("many"))]).is_none());
    assert!(new(atom("r"), &[(atom("max_names"), Term::Integer(-1))]).is_none());
    assert!(new(atom("r"), &[(atom("colour"), Term::Integer(1))]).is_none());
    let full = new(atom("r"), &[(atom("keys"), atom("duplicate")), (atom("max_names"), number(0))]).unwrap();
    assert_eq!((full.names.keys(), full.names.config.max_names), (Keys::Duplicate, 0));
}

/// Something that happens, as the machine takes it and as a term.
fn happening(random: &mut Random) -> (Event, Term) {
    let both = |message_: Term| (Event::Message { message: message_.clone(), wall: 1000 }, message(message_));
    let key = random.below(4) as i64;
    let process = 5 + random.below(4) as u32;
    let node = ["b@h", "c@h", "d@h"][random.below(3)];
    match random.below(10) {
        0..4 => both(register(key, process)),
        4 | 5 => {
            let process = Term::from(&pid("a@h", process));
            both(call(tuple_of([atom("unregister"), Term::Integer(key), process])))
        }
        6 => {
            let monitor = 1 + random.below(20) as u64;
            (Event::Down(MonitorId(monitor)), tuple_of([atom("down"), number(monitor)]))
        }
        7 => {
            let name = Atom::new_static(node);
            if random.below(2) == 0 {
                (Event::NodeUp(name), tuple_of([atom("node_up"), atom(node)]))
            } else {
                (Event::NodeDown(name), tuple_of([atom("node_down"), atom(node)]))
            }
        }
        8 => both(wire::hello(Keys::Unique, &pid(node, 1), 1 + random.below(9) as u64)),
        _ => both(atom("nonsense")),
    }
}

fn terms(external: &mut External, actions: Vec<Action>) -> Term {
    let (_, mut found) = external.found(&actions);
    list_of(actions.into_iter().map(|action| external.term(action, &mut found)))
}

#[test]
fn it_is_the_same_registry() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut plain = names("a@h", Config::new(Keys::Unique));
        let mut external = external("a@h");
        for at in 0..40 {
            let now = Mono(at * 700_000_000);
            let (event, term) = happening(&mut random);
            plain.handle(now, event);
            let expected = drain(&mut plain);
            let (actions, due) = external.handle(now, list_of([term.clone()])).unwrap();
            let expected = terms(&mut external, expected);
            assert_eq!(actions, expected, "seed {seed}: {term:?}");
            assert_eq!(due, plain.poll_timeout(), "seed {seed}");
            plain.handle_timeout(now);
            let expected = drain(&mut plain);
            let (actions, due) = external.handle(now, list_of([atom("timeout")])).unwrap();
            let expected = terms(&mut external, expected);
            assert_eq!((actions, due), (expected, plain.poll_timeout()), "seed {seed}");
            let found = |names: &Names| {
                names.iter().map(|entry| (entry.key.0.clone(), entry.pid.clone())).collect::<Vec<_>>()
            };
            assert_eq!(found(&plain), found(&external.names), "seed {seed}");
        }
    }
}

/// What a host keeps of a duplicate key, by the book.
#[derive(Default)]
struct Kept {
    row: Option<Term>,
    pieces: BTreeMap<i64, Vec<Term>>,
    /// How many entries were written.
    written: usize,
}

impl Kept {
    fn take(&mut self, actions: Term) {
        let mut gone = Vec::new();
        for action in list(actions).unwrap() {
            let Term::Tuple(elements) = action else { continue };
            let mut elements = elements.into_vec().into_iter();
            let word = elements.next().unwrap();
            let (Some(first), Some(second)) = (elements.next(), elements.next()) else { continue };
            if word.is_atom("pieces") {
                for piece in list(first).unwrap() {
                    let [number, entries] = tuple(piece).unwrap();
                    let entries = list(entries).unwrap();
                    self.written += entries.len();
                    self.pieces.insert(number.as_i64().unwrap(), entries);
                }
                gone = list(second).unwrap();
            } else if word.is_atom("changed") {
                for row in list(second).unwrap() {
                    let [_, row] = tuple(row).unwrap();
                    self.row = Some(row);
                }
            }
        }
        for number in gone {
            assert!(self.pieces.remove(&number.as_i64().unwrap()).is_some());
        }
    }

    fn read(&self) -> Vec<Term> {
        match self.row.clone() {
            None => Vec::new(),
            Some(Term::Tuple(row)) => {
                let [_, numbers] = tuple(Term::Tuple(row)).unwrap();
                let numbers = list(numbers).unwrap();
                assert_eq!(numbers.len(), self.pieces.len());
                numbers.iter().flat_map(|number| self.pieces[&number.as_i64().unwrap()].clone()).collect()
            }
            Some(row) => list(row).unwrap(),
        }
    }
}

#[test]
fn a_key_of_many_processes_is_kept_in_pieces() {
    let options = Term::Map(Map::from_pairs(vec![(atom("keys"), atom("duplicate"))]).unwrap());
    let mut external = External::new(tuple_of([atom("r"), Term::from(&pid("a@h", 1)), options])).unwrap();
    let mut random = Random::new(7);
    let mut kept = Kept::default();
    let mut most = 0;
    for step in 0..3000_i64 {
        // Several calls at once, at times of a clock that goes back and forth, so that those who come stand anywhere.
        let events = (0..random.below(4)).map(|_| {
            let process = 5 + random.below(400) as u32;
            let leaves = random.below(if step < 2000 { 3 } else { 20 }) > 0;
            let request = if leaves == (step < 2000) {
                register(1, process)
            } else {
                call(tuple_of([atom("unregister"), Term::Integer(1), Term::from(&pid("a@h", process))]))
            };
            tuple_of([atom("message"), request, Term::Integer(random.below(1000) as i64)])
        });
        let events = list_of(events.collect::<Vec<_>>());
        kept.written = 0;
        let (actions, _) = external.handle(Mono(step), events).unwrap();
        kept.take(actions);
        let found = external.names.lookup(&Term::Integer(1));
        let expected =
            found.iter().map(|entry| tuple_of([Term::from(&entry.pid), entry.value.clone(), atom("true")]));
        assert_eq!(kept.read(), expected.collect::<Vec<_>>(), "step {step}");
        most = most.max(found.len());
        // Three processes are six pieces, or what was few and is in pieces now.
        assert!(kept.written <= 200, "step {step}: {}", kept.written);
    }
    assert!(most > 150 && kept.read().len() < 33, "{most}, {}", kept.read().len());
}
