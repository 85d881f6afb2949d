//! The member by hand, and in the simulator.

pub(in crate::registry) mod delta_crdt;
pub(in crate::registry) mod simulation;
mod traffic;

use super::*;
use crate::registry::Element;

const SECOND: Mono = Mono(1_000_000_000);

fn pid(node: &str, id: u32) -> Pid {
    Pid { node: Atom::new(node).unwrap(), id, serial: 0, creation: 4 }
}

fn message(term: Term) -> Event {
    Event::Message(RawTerm::from_term(&term).unwrap())
}

/// The state of some keys, if a message is that; and what the sender has seen beyond its numbers.
fn delta_of(message: &Term) -> Option<(Delta, Option<Vec<Dot>>)> {
    let (raw, mut tape) = (RawTerm::from_term(message).unwrap(), Tape::new());
    let read = wire::read(raw.view(&mut tape).unwrap(), &Atom::new_static("rust@h"));
    match read?.message {
        Message::Delta(mut told) => {
            let (entries, _) = told.next(usize::MAX)?;
            Some((Delta { context: told.context, exact: told.exact, entries }, told.beyond))
        }
        _ => None,
    }
}

fn beam() -> Address {
    Address::Name { name: Atom::new_static("map"), node: Atom::new_static("beam@h") }
}

/// What a BEAM says in a comparison that this member has started, with the dots of its beginning.
fn of_ours<const D: usize>(dots: [(i64, i64); D]) -> Diff {
    Diff {
        keys: Vec::new(),
        dots: dots.into(),
        originator: pid("rust@h", 1),
        from: beam(),
        to: Address::Pid(pid("rust@h", 1)),
        exact: true,
    }
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
    let element =
        Element { value: Term::Integer(1), timestamp: MONOTONIC_START, dots: vec![dot(5, 3)].into() };
    first_step([(key, element)], 3, shape)
}

/// What a BEAM with these elements starts a comparison with, which has seen the writes of replica 5 up to a number.
fn first_step(elements: impl IntoIterator<Item = (i64, Element)>, upto: i64, shape: MapSetShape) -> Term {
    let mut tree = MerkleMap::new(shape);
    for (key, element) in elements {
        tree.put(&Arc::new(Entry::new(Key(Term::Integer(key)), Few::One(element))));
    }
    let diff = Diff {
        keys: Vec::new(),
        dots: BTreeMap::from([(5, upto)]),
        originator: pid("beam@h", 9),
        from: Address::Pid(pid("beam@h", 9)),
        to: Address::Name { name: Atom::new_static("map"), node: Atom::new_static("rust@h") },
        exact: false,
    };
    wire::diff(&diff, &[(Location::ROOT, tree.subtree(Location::ROOT, LEVELS))], shape)
}

/// Whoever decided to remove it had not seen the later one.
#[test]
fn a_value_is_removed_and_what_has_won_over_it_stays() {
    let mut member = member();
    put(&mut member, 1, 10);
    let remove = |value| Event::RemoveValue { key: Key(Term::Integer(1)), value: Term::Integer(value) };
    put(&mut member, 1, 11);
    member.handle(SECOND, remove(10));
    assert_eq!(member.map().get(&Key(Term::Integer(1))), Some(&Term::Integer(11)));
    member.handle(SECOND, remove(11));
    assert!(member.map().is_empty());
    // Beside a later write of another.
    put(&mut member, 1, 12);
    let timestamp = MONOTONIC_START + 3 * SECOND.0;
    let later = Element { value: Term::Integer(20), timestamp, dots: vec![dot(5, 3)].into() };
    let one = Key(Term::Integer(1));
    let numbers = wire::numbers_term(&BTreeMap::from([(5, 3)]));
    let told = wire::delta(numbers, [(&one, &[later][..])], MapSetShape::Plain, None);
    member.handle(SECOND, message(told));
    assert_eq!(member.map().elements(&one).len(), 2);
    member.handle(SECOND, remove(12));
    assert_eq!(member.map().elements(&one).len(), 1);
    assert_eq!(member.map().get(&one), Some(&Term::Integer(20)));
    member.handle(SECOND, remove(20));
    assert!(member.map().is_empty());
}

#[test]
fn nothing_is_pushed_before_the_first_comparison_is_over_and_everything_after() {
    let mut member = member();
    assert_eq!(sent(&mut member).len(), 1, "a comparison starts");
    member.handle(SECOND, message(from_beam(1, MapSetShape::Versioned)));
    put(&mut member, 2, 20);
    let told = sent(&mut member);
    let names: Vec<_> = told.iter().map(|(_, m)| m.as_tuple().unwrap()[0].clone()).collect();
    assert_eq!(
        names,
        [atom("get_diff"), atom("ack_diff")],
        "the process is known, but no comparison is over"
    );
    member.handle(SECOND, message(wire::ack_diff(&beam())));
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
fn what_was_written_before_the_first_comparison_was_over_follows_without_the_writes_of_others() {
    let mut member = member();
    member.handle(SECOND, message(from_beam(9, MapSetShape::Plain)));
    put(&mut member, 1, 1);
    let element = Element { value: Term::Integer(2), timestamp: 1, dots: vec![dot(6, 2)].into() };
    let key = Key(Term::Integer(1));
    let dots = wire::dots_term(&element.dots, MapSetShape::Plain);
    let delta = wire::delta(dots, [(&key, &[element][..])], MapSetShape::Plain, None);
    member.handle(SECOND, message(delta));
    assert_eq!(member.map().elements(&key).len(), 2, "both were written without the other");
    sent(&mut member);
    member.handle(SECOND, message(wire::ack_diff(&beam())));
    let (_, message) = sent(&mut member).swap_remove(0);
    let (delta, _) = delta_of(&message).unwrap();
    let told: Vec<&Dot> = delta.entries[&key].iter().flat_map(|element| &element.dots).collect();
    assert_eq!(told, [&dot(77, 1)]);
}

#[test]
fn the_writes_of_others_are_never_claimed_towards_a_beam() {
    let mut member = member();
    member.handle(SECOND, message(from_beam(1, MapSetShape::Plain)));
    let element = Element {
        value: Term::Integer(1),
        timestamp: MONOTONIC_START,
        dots: vec![Dot { replica: 5, number: 3 }].into(),
    };
    let key = Key(Term::Integer(1));
    let dots = wire::numbers_term(&BTreeMap::from([(5, 3)]));
    let delta = wire::delta(dots, [(&key, &[element][..])], MapSetShape::Plain, None);
    member.handle(SECOND, message(delta));
    assert_eq!(member.map().context().upto(5), 0, "a part of the keys says nothing of the others");
    member.handle(SECOND, message(wire::ack_diff(&beam())));
    member.handle(SECOND, message(wire::ack_diff(&beam())));
    sent(&mut member);
    put(&mut member, 1, 2);
    // It has said that it has seen it itself, so that it may be told what was replaced.
    assert_eq!(claimed(&mut member), [(vec![dot(77, 1), dot(5, 3)], vec![1])]);
    // Another write came from elsewhere: to claim it would mean all before it, too.
    let other = Element { value: Term::Integer(2), timestamp: MONOTONIC_START, dots: vec![dot(6, 8)].into() };
    let key = Key(Term::Integer(2));
    let delta = wire::delta(
        wire::dots_term(&[dot(6, 8)], MapSetShape::Plain),
        [(&key, &[other][..])],
        MapSetShape::Plain,
        None,
    );
    member.handle(SECOND, message(delta));
    sent(&mut member);
    put(&mut member, 2, 3);
    assert_eq!(claimed(&mut member), [(vec![dot(77, 2)], vec![2])]);
}

fn dot(replica: i64, number: i64) -> Dot {
    Dot { replica, number }
}

/// The dots of the deltas that are sent, and their keys.
fn claimed(member: &mut CausalCrdt) -> Vec<(Vec<Dot>, Vec<i64>)> {
    let deltas = sent(member).into_iter().filter_map(|(_, message)| {
        let (delta, _) = delta_of(&message)?;
        let keys = delta.entries.keys().filter_map(|key| key.0.as_i64()).collect();
        let upto = delta
            .context
            .compact()
            .flat_map(|(replica, upto)| (1..=upto).map(move |number| dot(replica, number)));
        let mut dots: Vec<Dot> = upto.chain(delta.context.beyond()).collect();
        dots.sort_unstable_by_key(|dot| std::cmp::Reverse(dot.replica));
        Some((dots, keys))
    });
    deltas.collect()
}

/// It takes all before an element for seen when it replaces it.
#[test]
fn an_answer_to_a_beam_has_what_came_before_its_elements_since_the_comparison_began() {
    let answer = |written: &[i64]| {
        let mut member = member();
        member.handle(SECOND, message(from_beam(9, MapSetShape::Plain)));
        for &number in written {
            let element = Element {
                value: Term::Integer(1),
                timestamp: MONOTONIC_START,
                dots: vec![dot(6, number)].into(),
            };
            let key = Key(Term::Integer(number));
            let dots = wire::dots_term(&element.dots, MapSetShape::Plain);
            let delta = wire::delta(dots, [(&key, &[element][..])], MapSetShape::Plain, None);
            member.handle(SECOND, message(delta));
        }
        sent(&mut member);
        let question = wire::get_diff(&of_ours([]), [Key(Term::Integer(2))]);
        member.handle(SECOND, message(question));
        claimed(&mut member)
    };
    assert_eq!(answer(&[1, 2]), [(vec![dot(6, 1), dot(6, 2)], vec![1, 2])]);
    assert_eq!(answer(&[2]), [(vec![], vec![2])], "what has not come here cannot be added");
}

#[test]
fn what_is_missing_of_a_replica_counts_as_seen_after_a_long_time_without_news_of_it() {
    let mut member = member();
    let Some(Action::Monitor { monitor, .. }) = member.poll_action() else { panic!() };
    let element = Element { value: Term::Integer(1), timestamp: 1, dots: vec![dot(5, 3)].into() };
    let key = Key(Term::Integer(1));
    let shown = || {
        let numbers = wire::numbers_term(&BTreeMap::from([(5, 1)]));
        message(wire::delta(numbers, [(&key, &[element.clone()][..])], MapSetShape::Plain, None))
    };
    member.handle(SECOND, message(first_step([(1, element.clone())], 1, MapSetShape::Plain)));
    member.handle(SECOND, shown());
    member.handle(SECOND, Event::Remove(key.clone()));
    let shown_at = |member: &mut CausalCrdt, second: i64| {
        sent(member);
        member.handle(Mono(SECOND.0 * second), shown());
        member.map().context().upto(5)
    };
    assert_eq!((1..=90).map(|second| shown_at(&mut member, second)).max(), Some(0));
    // While a neighbour is away, it may be the one that has what is missing.
    member.handle(Mono(SECOND.0 * 90), Event::Down(monitor));
    assert_eq!((90..=300).map(|second| shown_at(&mut member, second)).max(), Some(0));
    member.handle(Mono(SECOND.0 * 300), Event::NodeUp(Atom::new_static("beam@h")));
    assert_eq!((300..390).map(|second| shown_at(&mut member, second)).max(), Some(0));
    assert_eq!(shown_at(&mut member, 390), 3);
    assert_eq!(tags(&mut member), ["diff"], "the BEAM is compared with, by the numbers of now");
}

#[test]
fn a_beam_that_shows_what_was_removed_here_is_told_of_it_by_its_dots() {
    let mut member = member();
    let dots = || wire::numbers_term(&BTreeMap::from([(5, 3)]));
    let element = Element {
        value: Term::Integer(1),
        timestamp: MONOTONIC_START + 10_000_000_000,
        dots: vec![dot(5, 3)].into(),
    };
    let key = Key(Term::Integer(1));
    let shown = || wire::delta(dots(), [(&key, std::slice::from_ref(&element))], MapSetShape::Plain, None);
    // Its dots from 1 to 2 are not known here, as after a restart.
    member.handle(SECOND, message(shown()));
    put(&mut member, 1, 2);
    assert!(
        member.map().elements(&key)[0].timestamp > element.timestamp,
        "whoever holds both reads the later write"
    );
    sent(&mut member);
    // It has said nothing yet of what it has seen.
    member.handle(SECOND, message(shown()));
    assert_eq!(claimed(&mut member), []);
    member.handle(SECOND, message(from_beam(1, MapSetShape::Plain)));
    sent(&mut member);
    member.handle(SECOND, message(shown()));
    assert_eq!(
        claimed(&mut member),
        [],
        "it would have nothing of the key: the later write has not come there"
    );
    assert_eq!(member.map().get(&key), Some(&Term::Integer(2)));
    let both = [element.clone(), member.map().elements(&key)[0].clone()];
    let both = wire::delta(dots(), [(&key, &both[..])], MapSetShape::Plain, None);
    member.handle(SECOND, message(both));
    assert_eq!(claimed(&mut member), [(vec![dot(5, 3)], vec![1])]);
    assert_eq!(member.map().get(&key), Some(&Term::Integer(2)));
    member.handle(SECOND, Event::Remove(key.clone()));
    sent(&mut member);
    member.handle(SECOND, message(shown()));
    assert_eq!(claimed(&mut member), [(vec![dot(5, 3)], vec![1])], "a removal as well");
}

#[test]
fn a_long_list_of_keys_is_answered_with_the_whole_map() {
    let mut member = member();
    for key in 0..500 {
        put(&mut member, key, key);
    }
    sent(&mut member);
    let ask = |keys: i64| {
        let diff = of_ours([(77, 500)]);
        wire::get_diff(&diff, (0..keys).map(|key| Key(Term::Integer(key))))
    };
    let answer = |member: &mut CausalCrdt, asked: i64| {
        sent(member);
        member.handle(SECOND, message(ask(asked)));
        let (to, message) = sent(member).pop().unwrap();
        (to, message.as_tuple().unwrap()[2].as_list().unwrap().len())
    };
    // Nobody knows which process has the name when it is answered.
    assert_eq!(answer(&mut member, 1), (vec![beam()], 500));
    member.handle(SECOND, message(from_beam(1, MapSetShape::Plain)));
    let process = || vec![Address::Pid(pid("beam@h", 9))];
    assert_eq!(answer(&mut member, 99), (process(), 99));
    assert_eq!(answer(&mut member, 200), (process(), 500));
}

#[test]
fn callers_read_and_write_as_with_delta_crdt() {
    let mut member = member();
    let from = Term::tuple([Term::Pid(pid("beam@h", 3)), Term::Integer(1)]);
    let call = |request: Term| message(Term::tuple([atom("$gen_call"), from.clone(), request]));
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
    member.handle(SECOND, message(Term::tuple([atom("diff"), atom("nonsense")])));
    member.handle(SECOND, message(Term::Integer(1)));
    for key in 0..3 {
        put(&mut member, key, 1);
    }
    put(&mut member, 1, 2);
    assert_eq!((member.stats().ignored, member.stats().refused, member.map().len()), (2, 1, 2));
    assert_eq!(member.map().get(&Key(Term::Integer(1))), Some(&Term::Integer(2)));
}

#[test]
fn what_a_full_map_has_not_taken_in_counts_as_not_seen() {
    let config = Config { max_keys: 1, ..Config::new(1) };
    let mut member = CausalCrdt::new(pid("rust@h", 1), config);
    put(&mut member, 0, 1);
    let element =
        Element { value: Term::Integer(1), timestamp: MONOTONIC_START, dots: vec![dot(5, 1)].into() };
    let key = Key(Term::Integer(1));
    let shown = |dots, complete: Option<&Context>| {
        wire::delta(dots, [(&key, std::slice::from_ref(&element))], MapSetShape::Plain, complete)
    };
    let pushed = shown(wire::dots_term(&[dot(5, 1)], MapSetShape::Plain), None);
    let answered = shown(wire::numbers_term(&BTreeMap::from([(5, 1)])), Some(&Context::default()));
    for told in [pushed, answered] {
        member.handle(SECOND, message(told));
        assert!(!member.map().context().contains(dot(5, 1)), "it would be removed elsewhere");
    }
    assert_eq!((member.stats().refused, member.map().len()), (2, 1));
    // Once there is room, it comes in.
    member.handle(SECOND, Event::Remove(Key(Term::Integer(0))));
    let again = shown(wire::dots_term(&[dot(5, 1)], MapSetShape::Plain), None);
    member.handle(SECOND, message(again));
    assert_eq!(member.map().get(&key), Some(&Term::Integer(1)));
}

fn told(member: &mut CausalCrdt) -> Vec<Action> {
    std::iter::from_fn(|| member.poll_action())
        .filter(|action| !matches!(action, Action::Send { .. }))
        .collect()
}

#[test]
fn what_a_neighbour_has_had_and_has_no_more_is_told() {
    let mut member = CausalCrdt::new(pid("rust@h", 1), Config::new(77));
    put(&mut member, 1, 10);
    member.handle(SECOND, Event::SetNeighbours(vec![beam()]));
    told(&mut member);
    let asks = |member: &mut CausalCrdt, seconds: i64| {
        let diff = of_ours([(77, 1)]);
        let keys = [1, 2].map(|key| Key(Term::Integer(key)));
        member.handle(Mono(SECOND.0 * seconds), message(wire::get_diff(&diff, keys)));
        told(member)
    };
    assert_eq!(asks(&mut member, 1), [], "it has never had it");
    member.handle(SECOND, message(wire::ack_diff(&beam())));
    assert_eq!(asks(&mut member, 2), [Action::Missing(vec![Key(Term::Integer(1))])]);
    assert_eq!(asks(&mut member, 3), [], "not at each comparison");
    assert_eq!(asks(&mut member, 12), [Action::Missing(vec![Key(Term::Integer(1))])]);
}

#[test]
fn a_member_that_is_left_alone_says_so_and_forgets_when_told_to() {
    let mut member = CausalCrdt::new(pid("rust@h", 1), Config::new(77));
    member.handle(SECOND, Event::SetNeighbours(vec![beam()]));
    let Some(Action::Monitor { monitor, .. }) = member.poll_action() else { panic!() };
    put(&mut member, 2, 20);
    member.handle(SECOND, message(from_beam(1, MapSetShape::Plain)));
    let element =
        Element { value: Term::Integer(1), timestamp: 1, dots: vec![Dot { replica: 5, number: 3 }].into() };
    let key = Key(Term::Integer(1));
    let dots = wire::numbers_term(&BTreeMap::from([(5, 3)]));
    let delta = wire::delta(dots, [(&key, &[element][..])], MapSetShape::Plain, None);
    member.handle(SECOND, message(delta));
    told(&mut member);
    assert_eq!(member.map().len(), 2);
    member.handle(SECOND, Event::Down(monitor));
    assert_eq!(told(&mut member), [Action::Alone]);
    member.handle(SECOND, Event::Forget { replica: 78 });
    let removed = [1, 2].map(|key| Change::Removed(Key(Term::Integer(key))));
    assert_eq!(told(&mut member), [Action::Changed(removed.to_vec())]);
    assert!(member.map().is_empty());
    assert_eq!(member.root_hash(MapSetShape::Plain), None);
    assert_eq!(member.map().context().replicas().count(), 0, "another incarnation");
    put(&mut member, 2, 21);
    let written = &member.map().elements(&Key(Term::Integer(2)))[0];
    assert_eq!(*written.dots, [Dot { replica: 78, number: 1 }]);
    // The answer to a comparison that began before: answered in turn, with the dots of then, all would be removed there.
    sent(&mut member);
    let ask = |dots: [(i64, i64); 1]| {
        let diff = of_ours(dots);
        message(wire::get_diff(&diff, [1, 2].map(|key| Key(Term::Integer(key)))))
    };
    member.handle(SECOND, ask([(5, 3)]));
    assert_eq!(sent(&mut member), []);
    member.handle(SECOND, ask([(78, 1)]));
    assert_eq!(sent(&mut member).len(), 1);
}

#[test]
fn a_neighbour_that_falls_silent_is_compared_with() {
    let mut member = member();
    member.handle(SECOND, message(from_beam(1, MapSetShape::Plain)));
    for _ in 0..2 {
        member.handle(SECOND, message(wire::ack_diff(&beam())));
    }
    sent(&mut member);
    let at = |seconds: i64| Mono(SECOND.0 * seconds);
    assert_eq!(member.stats().rounds, 2);
    // It compares every second, and nothing more is to be said.
    for second in 2..20 {
        member.handle(at(second), message(from_beam(1, MapSetShape::Plain)));
        member.handle_timeout(at(second));
        member.handle(at(second), message(wire::ack_diff(&beam())));
    }
    let rounds = member.stats().rounds;
    for second in 20..30 {
        if member.poll_timeout().is_some_and(|due| due <= at(second)) {
            member.handle_timeout(at(second));
            member.handle(at(second), message(wire::ack_diff(&beam())));
        }
    }
    assert_eq!(member.stats().rounds, rounds + 2, "after 5 s, and again after as long");
}

/// What a BEAM with these keys, each of which it has written once, starts a comparison with.
fn question(keys: std::ops::Range<i64>) -> Term {
    let written = keys.end;
    let element = |key| {
        let dots = vec![dot(5, key + 1)];
        (key, Element { value: Term::Integer(key), timestamp: MONOTONIC_START, dots: dots.into() })
    };
    first_step(keys.map(element), written, MapSetShape::Plain)
}

/// So many beats of 300 ms after the first second.
fn beat(number: i64) -> Mono {
    SECOND + Duration::from_millis(300) * u32::try_from(number).unwrap()
}

/// How many parts of the tree are sent in answer.
fn answers(member: &mut CausalCrdt, at: Mono, question: Term) -> usize {
    sent(member);
    member.handle(at, message(question));
    let diff =
        |message: &Term| message.as_tuple().is_some_and(|parts| parts.len() == 2 && parts[0] == atom("diff"));
    sent(member)
        .iter()
        .filter(|(to, message)| diff(message) && *to == [Address::Pid(pid("beam@h", 9))])
        .count()
}

#[test]
fn a_large_map_answers_one_comparison_until_data_come() {
    let mut large = member();
    (10_000..20_000).for_each(|key| put(&mut large, key, 1));
    assert_eq!(answers(&mut large, SECOND, question(0..3000)), 1);
    // The next beats do not wait for what the first one brings.
    assert_eq!((1..4).map(|n| answers(&mut large, beat(n), question(0..3001))).sum::<usize>(), 0);
    assert_eq!(answers(&mut large, beat(4), question(0..3002)), 1, "the answer may have been lost");
    let nothing = wire::numbers_term(&BTreeMap::new());
    let data = wire::delta(nothing, std::iter::empty(), MapSetShape::Plain, None);
    large.handle(beat(4), message(data));
    assert_eq!(answers(&mut large, beat(5), question(0..3003)), 1, "data have come");

    let mut small = member();
    (10_000..11_000).for_each(|key| put(&mut small, key, 1));
    assert_eq!((0..3).map(|n| answers(&mut small, beat(n), question(0..1000 + n))).sum::<usize>(), 3);
    // Those that waited for a connection come at once.
    let queued = (0..3).map(|n| answers(&mut small, beat(9), question(0..1000 + n)));
    assert_eq!(queued.sum::<usize>(), 1);
}

/// The messages of a kind to the neighbour's process or name.
fn tags(member: &mut CausalCrdt) -> Vec<String> {
    let tag = |message: Term| message.as_tuple()?.first()?.as_atom().map(|tag| tag.as_str().to_owned());
    sent(member).into_iter().filter_map(|(_, message)| tag(message)).collect()
}

#[test]
fn what_a_beam_has_never_seen_is_not_asked_for() {
    let mut large = member();
    (10_000..13_000).for_each(|key| put(&mut large, key, 1));
    sent(&mut large);
    // One key that is lacking here, and nothing of what is here.
    large.handle(SECOND, message(from_beam(1, MapSetShape::Plain)));
    let answered = sent(&mut large);
    let asked: Vec<&Term> = answered
        .iter()
        .filter_map(|(_, message)| match message.as_tuple()? {
            [tag, _, keys] if tag.is_atom("get_diff") => Some(keys),
            _ => None,
        })
        .collect();
    assert_eq!(asked, [&Term::list([Term::Integer(1)])]);
    // What it has seen and does not have, it has removed.
    let mut large = member();
    (10_000..13_000).for_each(|key| put(&mut large, key, 1));
    sent(&mut large);
    let Term::Tuple(parts) = from_beam(1, MapSetShape::Plain) else { panic!() };
    let [tag, mut diff] = <[Term; 2]>::try_from(parts.into_vec()).unwrap();
    if let Term::Map(fields) = &mut diff {
        fields.insert(atom("dots"), wire::numbers_term(&BTreeMap::from([(5, 3), (77, 2)])));
    }
    large.handle(SECOND, message(Term::tuple([tag, diff])));
    let keys = sent(&mut large).into_iter().find_map(|(_, message)| match message.as_tuple()? {
        [tag, _, keys] if tag.is_atom("get_diff") => Some(keys.as_list()?.len()),
        _ => None,
    });
    assert_eq!(keys, Some(3));
}

#[test]
fn a_beam_that_has_nothing_is_sent_everything_after_its_first_answer() {
    let mut large = member();
    (0..3000).for_each(|key| put(&mut large, key, 1));
    sent(&mut large);
    let answer = wire::diff(
        &of_ours([]),
        &[(Location::ROOT.children().0, Subtree::Empty), (Location::ROOT.children().1, Subtree::Empty)],
        MapSetShape::Plain,
    );
    large.handle(SECOND, message(answer));
    let answered = sent(&mut large);
    // No part of the tree first. What was written since the comparison began is another one's matter.
    assert_eq!(answered[0].1.as_tuple().unwrap()[2].as_list().unwrap().len(), 3000);
}

/// Each answer makes it send its whole map: 20 times 11 MB, when 100,000 names came to an empty map.
#[test]
fn a_beam_that_has_much_more_is_answered_once() {
    let mut empty = member();
    let much = |keys: i64| {
        let Term::Tuple(parts) = question(0..keys) else { panic!() };
        let [tag, mut diff] = <[Term; 2]>::try_from(parts.into_vec()).unwrap();
        if let Term::Map(fields) = &mut diff {
            fields.insert(atom("dots"), wire::numbers_term(&BTreeMap::from([(5, 40_000)])));
        }
        Term::tuple([tag, diff])
    };
    assert_eq!(answers(&mut empty, SECOND, much(3000)), 1);
    assert_eq!((1..20).map(|n| answers(&mut empty, beat(n), much(3001 + n))).sum::<usize>(), 0);
    assert_eq!(answers(&mut empty, beat(20), much(3030)), 1, "the answer may have been lost");
}

/// One that was started again may be heard of before it is monitored, and then passes for a DeltaCrdt.
#[test]
fn a_member_of_this_kind_is_answered_each_time() {
    let mut member = member();
    let Some(Action::Monitor { monitor, .. }) = member.poll_action() else { panic!() };
    member.handle(SECOND, Event::Down(monitor));
    let asks = |member: &mut CausalCrdt| {
        let Term::Tuple(step) = from_beam(1, MapSetShape::Plain) else { panic!() };
        let [tag, mut diff] = <[Term; 2]>::try_from(step.into_vec()).unwrap();
        let Term::Map(fields) = &mut diff else { panic!() };
        fields.insert(atom("beyond"), atom("true"));
        member.handle(SECOND, message(Term::tuple([tag, diff])));
        tags(member)
    };
    tags(&mut member);
    assert_eq!(asks(&mut member), ["get_diff", "ack_diff"]);
    assert_eq!(asks(&mut member), ["get_diff", "ack_diff"]);
}

/// It shows most of its tree again otherwise, and asks for all that has just come from it.
#[test]
fn what_is_here_is_compared_after_the_data_of_a_beam_that_has_much_more() {
    let data = || {
        let numbers = wire::numbers_term(&BTreeMap::from([(5, 3)]));
        message(wire::delta(numbers, std::iter::empty(), MapSetShape::Plain, None))
    };
    let answered = |member: &mut CausalCrdt| {
        put(member, -1, 1);
        assert_eq!(answers(member, SECOND, question(0..3000)), 1);
        let answer = wire::diff(
            &of_ours([]),
            &[(Location::ROOT, Subtree::Partial(Location::ROOT))],
            MapSetShape::Plain,
        );
        member.handle(SECOND, message(answer));
        assert_eq!(tags(member), Vec::<String>::new(), "its own comparison is given up");
    };
    let starts = |member: &mut CausalCrdt, at: Mono| {
        member.handle_timeout(at);
        tags(member).contains(&"diff".to_owned())
    };
    let mut one = member();
    answered(&mut one);
    assert!(!starts(&mut one, SECOND + Duration::from_millis(200)));
    one.handle(SECOND + Duration::from_millis(200), data());
    assert!(starts(&mut one, SECOND + Duration::from_millis(250)), "data have come");

    let mut other = member();
    answered(&mut other);
    assert!(!starts(&mut other, SECOND + Duration::from_millis(299)));
    assert!(starts(&mut other, beat(1)), "they may be lost");
}

#[test]
fn a_comparison_that_is_not_answered_is_started_again_less_and_less_often() {
    let mut member = member();
    let mut at = Vec::new();
    for second in 1..=100 {
        member.handle_timeout(Mono(SECOND.0 * second));
        if tags(&mut member).contains(&"diff".to_owned()) && second > 1 {
            at.push(second);
        }
    }
    assert_eq!(at, [5, 15, 35, 75]);
}

/// The numbers of a piece, and its keys.
type Said = (Vec<(i64, i64)>, Vec<i64>);

/// The pieces of an answer with these keys, each with its dots, as numbers and keys; the last is the rest.
fn in_pieces<const N: usize>(
    entries: [(i64, &[(i64, i64)]); N],
    numbers: &[(i64, i64)],
    seen: &[(i64, i64)],
    size: usize,
) -> Vec<Said> {
    let map = |pairs: &[(i64, i64)]| -> BTreeMap<i64, i64> { pairs.iter().copied().collect() };
    let entry = |(key, dots): (i64, &[(i64, i64)])| {
        let elements = dots.iter().map(|(replica, number)| {
            let dots = vec![dot(*replica, *number)];
            Element { value: Term::Integer(*replica), timestamp: *number, dots: dots.into() }
        });
        Arc::new(Entry::new(Key(Term::Integer(key)), elements.collect::<Vec<_>>()))
    };
    let mut rest = entries.into_iter().map(entry).collect();
    let keys = |entries: Vec<Arc<Entry>>| -> Vec<i64> {
        entries.into_iter().map(|entry| entry.key().0.as_i64().unwrap()).collect()
    };
    let pieces = super::pieces(&mut rest, &map(numbers), &map(seen), size);
    let pieces = pieces.into_iter().map(|(upto, piece)| (upto.into_iter().collect(), keys(piece)));
    let mut pieces: Vec<_> = pieces.collect();
    pieces.push((numbers.to_vec(), keys(rest)));
    pieces
}

#[test]
fn a_piece_says_no_more_than_what_has_come_with_it() {
    // In the order of the dots, whatever that of the keys is; what has been seen, or is gone, comes last.
    let entries =
        [(1, &[(5, 4)][..]), (2, &[(5, 3)]), (3, &[(5, 1)]), (4, &[(6, 1)]), (5, &[]), (6, &[(5, 7)])];
    assert_eq!(
        in_pieces(entries, &[(5, 7), (6, 1), (7, 9)], &[(5, 2), (7, 20)], 2),
        [(vec![(5, 4), (7, 9)], vec![2, 1]), (vec![(5, 7), (6, 1), (7, 9)], vec![3, 5, 6, 4]),]
    );
    assert_eq!(
        in_pieces(entries, &[(5, 7), (6, 1)], &[], 1),
        [
            (vec![(5, 1)], vec![3]),
            (vec![(5, 3)], vec![2]),
            (vec![(5, 4)], vec![1]),
            (vec![(5, 7)], vec![6]),
            (vec![(5, 7), (6, 1)], vec![5, 4]),
        ]
    );
    // One key with two new dots holds up what comes after either; so does a dot that the numbers do not reach.
    let entries = [
        (1, &[(5, 2), (6, 3)][..]),
        (2, &[(5, 1)]),
        (3, &[(5, 3)]),
        (4, &[(6, 2)]),
        (5, &[(7, 1)]),
        (6, &[(7, 3)]),
    ];
    assert_eq!(
        in_pieces(entries, &[(5, 3), (6, 3), (7, 1)], &[], 1),
        [
            (vec![(5, 1)], vec![2]),
            (vec![(5, 1), (6, 2)], vec![4]),
            (vec![(5, 3), (6, 3), (7, 1)], vec![1, 6, 3, 5]),
        ]
    );
}

#[test]
fn pieces_that_speak_of_many_replicas_are_longer() {
    let (replicas, size) = (1000, 2);
    let numbers: BTreeMap<i64, i64> = (1..=replicas).map(|replica| (replica, 1)).collect();
    let entry = |replica| {
        let element = Element { value: Term::Integer(0), timestamp: 0, dots: Few::One(dot(replica, 1)) };
        Arc::new(Entry::new(Key(Term::Integer(replica)), Few::One(element)))
    };
    let mut rest = (1..=replicas).map(entry).collect();
    let pieces = super::pieces(&mut rest, &numbers, &BTreeMap::new(), size);
    assert!(pieces.iter().all(|(_, piece)| piece.len() == 10));
    assert_eq!(pieces.len(), 99);
    let said: usize = pieces.iter().map(|(upto, _)| upto.len()).sum();
    assert!(said <= super::pieces::NUMBERS_OF_PIECES, "{said}");
}
