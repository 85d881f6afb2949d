use super::*;
use crate::registry::{Element, elements_term};

const SECOND: Mono = Mono(1_000_000_000);

fn pid(node: &str, id: u32) -> Pid {
    Pid { node: Atom::new(node).unwrap(), id, serial: 0, creation: 4 }
}

fn beam() -> Address {
    Address::Name { name: Atom::new_static("map"), node: Atom::new_static("beam@h") }
}

fn member() -> CausalCrdt {
    let mut member = CausalCrdt::new(pid("rust@h", 1), Config::new(77));
    member.handle(Mono::ZERO, Event::SetNeighbours(vec![beam()]));
    member
}

fn put(member: &mut CausalCrdt, key: i64, value: i64) {
    member.handle(SECOND, Event::Put { key: Key(Term::Integer(key)), value: Term::Integer(value) });
}

fn sent(member: &mut CausalCrdt) -> Vec<(Vec<Address>, Term)> {
    let actions = std::iter::from_fn(|| member.poll_action());
    actions
        .filter_map(|action| match action {
            Action::Send { to, message } => Some((to, message)),
            _ => None,
        })
        .collect()
}

/// What a BEAM with one key that this member lacks starts a comparison with.
fn from_beam(key: i64, shape: MapSetShape) -> Term {
    let element = Element {
        value: Term::Integer(1),
        timestamp: MONOTONIC_START,
        dots: vec![Dot { replica: 5, number: 3 }],
    };
    let mut tree = MerkleMap::default();
    tree.put(Key(Term::Integer(key)), elements_term(&[element], shape));
    let _ = tree.root_hash();
    wire::diff(&Diff {
        trees: vec![(Location::ROOT, tree.subtree(Location::ROOT, LEVELS))],
        keys: Vec::new(),
        dots: BTreeMap::from([(5, 3)]),
        originator: pid("beam@h", 9),
        from: Address::Pid(pid("beam@h", 9)),
        to: Address::Name { name: Atom::new_static("map"), node: Atom::new_static("rust@h") },
        exact: false,
    })
}

#[test]
fn nothing_is_pushed_before_the_first_comparison_is_over_and_everything_after() {
    let mut member = member();
    assert_eq!(sent(&mut member).len(), 1, "a comparison starts");
    member.handle(SECOND, Event::Message(from_beam(1, MapSetShape::Versioned)));
    put(&mut member, 2, 20);
    let told = sent(&mut member);
    let names: Vec<_> = told.iter().map(|(_, m)| m.as_tuple().unwrap()[0].clone()).collect();
    assert_eq!(
        names,
        [atom("get_diff"), atom("ack_diff")],
        "the process is known, but no comparison is over"
    );
    member.handle(SECOND, Event::Message(wire::ack_diff(&beam())));
    let caught_up = sent(&mut member);
    assert_eq!(
        caught_up[0].0,
        [Address::Pid(pid("beam@h", 9))],
        "what was written meanwhile follows at once"
    );
    put(&mut member, 3, 30);
    let pushed = sent(&mut member);
    assert_eq!(pushed[0].0, [Address::Pid(pid("beam@h", 9))]);
    let delta = pushed[0].1.as_tuple().unwrap();
    let dots = delta[1].as_map().unwrap().get_atom("dots").unwrap();
    assert!(dots.as_map().unwrap().get_atom("version").is_some(), "sets have the shape of the peer's");
    assert_eq!(delta[2], Term::list([Term::Integer(3)]));
}

#[test]
fn the_writes_of_others_are_never_claimed_towards_a_beam() {
    let mut member = member();
    member.handle(SECOND, Event::Message(from_beam(1, MapSetShape::Plain)));
    let element = Element {
        value: Term::Integer(1),
        timestamp: MONOTONIC_START,
        dots: vec![Dot { replica: 5, number: 3 }],
    };
    let key = Key(Term::Integer(1));
    let dots = wire::numbers_term(&BTreeMap::from([(5, 3)]));
    let delta = wire::delta(dots, [(&key, &[element][..])], MapSetShape::Plain, None);
    member.handle(SECOND, Event::Message(delta));
    assert_eq!(member.map().context().upto(5), 0, "a part of the keys says nothing of the others");
    member.handle(SECOND, Event::Message(wire::ack_diff(&beam())));
    member.handle(SECOND, Event::Message(wire::ack_diff(&beam())));
    sent(&mut member);
    put(&mut member, 1, 2);
    for (_, message) in sent(&mut member) {
        let Some([_, map, _]) = message.as_tuple() else { continue };
        let dots = map.as_map().unwrap().get_atom("dots").unwrap();
        assert_eq!(dots, &wire::dots_term(&[Dot { replica: 77, number: 1 }], MapSetShape::Plain));
    }
}

#[test]
fn a_long_list_of_keys_is_answered_with_the_whole_map() {
    let mut member = member();
    for key in 0..500 {
        put(&mut member, key, key);
    }
    sent(&mut member);
    let ask = |keys: i64| {
        let diff = Diff {
            trees: Vec::new(),
            keys: Vec::new(),
            dots: BTreeMap::from([(77, 500)]),
            originator: pid("rust@h", 1),
            from: beam(),
            to: Address::Pid(pid("rust@h", 1)),
            exact: true,
        };
        wire::get_diff(&diff, (0..keys).map(|key| Key(Term::Integer(key))))
    };
    for (asked, answered) in [(99, 99), (200, 500)] {
        member.handle(SECOND, Event::Message(ask(asked)));
        let (to, message) = sent(&mut member).pop().unwrap();
        assert_eq!(to, [beam()]);
        assert_eq!(message.as_tuple().unwrap()[2].as_list().unwrap().len(), answered);
    }
}

#[test]
fn callers_read_and_write_as_with_delta_crdt() {
    let mut member = member();
    let from = Term::tuple([Term::Pid(pid("beam@h", 3)), Term::Integer(1)]);
    let call = |request: Term| Event::Message(Term::tuple([atom("$gen_call"), from.clone(), request]));
    let add = Term::tuple([atom("add"), Term::list([Term::Integer(1), Term::Integer(2)])]);
    member.handle(SECOND, call(Term::tuple([atom("operation"), add])));
    member.handle(SECOND, call(atom("read")));
    let replies: Vec<Term> = std::iter::from_fn(|| member.poll_action())
        .filter_map(|action| match action {
            Action::Reply { reply, .. } => Some(reply),
            _ => None,
        })
        .collect();
    let map: Map = [(Term::Integer(1), Term::Integer(2))].into_iter().collect();
    assert_eq!(replies, [atom("ok"), Term::Map(map)]);
}

#[test]
fn what_cannot_be_understood_is_counted_and_a_full_map_takes_no_more() {
    let config = Config { max_keys: 2, ..Config::new(1) };
    let mut member = CausalCrdt::new(pid("rust@h", 1), config);
    member.handle(SECOND, Event::Message(Term::tuple([atom("diff"), atom("nonsense")])));
    member.handle(SECOND, Event::Message(Term::Integer(1)));
    for key in 0..3 {
        put(&mut member, key, 1);
    }
    put(&mut member, 1, 2);
    assert_eq!((member.stats().ignored, member.stats().refused, member.map().len()), (2, 1, 2));
    assert_eq!(member.map().get(&Key(Term::Integer(1))), Some(&Term::Integer(2)));
}
