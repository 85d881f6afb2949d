mod node;
mod run;
mod simulation;

use std::time::Duration;

use super::*;
use crate::sim::{Conditions, Network};
use node::{Node, node_name};

/// Nodes that are connected and have the factory `f`, at rest.
fn cluster(size: usize, members: bool) -> Network<Node> {
    let mut network = Network::new(1, Conditions::default());
    for id in 0..size {
        let config =
            if members { Config::default().members((0..size).map(node_name)) } else { Config::default() };
        network.start(id, Node::new(id, id as u32 + 1, config, 7, 1000, None));
    }
    network.run_for(Duration::from_secs(5));
    network
}

fn spec(id: &str) -> ChildSpec {
    ChildSpec::new(id, Atom::new_static("f"))
}

fn command(network: &mut Network<Node>, at: usize, what: Command) -> u64 {
    network.with(at, |node, io| node.command(io, what)).unwrap()
}

fn outcome(network: &mut Network<Node>, at: usize, number: u64) -> Option<Outcome> {
    network.with(at, |node, _| node.done.remove(&number)).flatten()
}

fn run(network: &mut Network<Node>, at: usize, what: Command) -> Outcome {
    let number = command(network, at, what);
    network.run_for(Duration::from_secs(8));
    outcome(network, at, number).expect("the command is done")
}

fn start(network: &mut Network<Node>, at: usize, spec: ChildSpec) -> Outcome {
    run(network, at, Command::StartChild(Box::new(spec)))
}

/// The node that runs a child, as each node sees it, if all agree.
fn owner(network: &Network<Node>, id: &str, part: &Part) -> Option<usize> {
    let seen: BTreeSet<Option<Atom>> = network
        .nodes()
        .map(|(_, node)| {
            let place = node.supervisor.lookup(&Term::from(id), part);
            place.filter(|place| place.status == Status::Running).map(|place| place.node)
        })
        .collect();
    let mut seen = seen.into_iter();
    let first = seen.next()?;
    if seen.next().is_some() { None } else { first.map(|node| node::node_id(&node)) }
}

#[test]
fn a_singleton_is_on_another_node_within_two_seconds_of_a_loss() {
    for members in [false, true] {
        let mut network = cluster(5, members);
        let requirement = if members { Requirement::Safety } else { Requirement::Availability };
        let started = start(&mut network, 0, spec("one").requirement(requirement));
        assert!(matches!(started, Outcome::Started(_)), "{started:?}");
        let first = owner(&network, "one", &Part::Only).expect("all agree");
        assert_eq!(start(&mut network, 1, spec("one")), {
            let place = network.node(1).unwrap().supervisor.lookup(&Term::from("one"), &Part::Only).unwrap();
            Outcome::AlreadyStarted(vec![(Part::Only, place.pid.unwrap())])
        });
        network.crash(first);
        // The connections notice within 500 ms.
        network.run_for(Duration::from_millis(2500));
        let second = owner(&network, "one", &Part::Only).expect("it runs again");
        assert_ne!(first, second);
    }
}

#[test]
fn what_its_starter_wrote_outlives_it() {
    let mut network = cluster(3, false);
    let placed = start(&mut network, 2, spec("one"));
    assert!(matches!(placed, Outcome::Started(_)));
    for gone in [2, 1] {
        network.crash(gone);
        network.run_for(Duration::from_secs(4));
        assert!(owner(&network, "one", &Part::Only).is_some());
    }
    assert_eq!(run(&mut network, 0, Command::TerminateChild(Term::from("one"))), Outcome::Done);
    assert_eq!(network.node(0).unwrap().kids.len(), 0);
    assert_eq!(run(&mut network, 0, Command::TerminateChild(Term::from("one"))), Outcome::NotFound);
}

#[test]
fn what_a_lost_node_wrote_reaches_those_that_were_apart_from_it() {
    // 2 is apart from the writer: 1 tells it when that is lost.
    let mut network = cluster(3, false);
    network.allow(0, 2, false);
    network.run_for(Duration::from_secs(4));
    start(&mut network, 0, spec("one"));
    network.crash(0);
    network.run_for(Duration::from_secs(4));
    assert!(owner(&network, "one", &Part::Only).is_some());

    // 2 is apart from all that know it, and is told by 3, which was, too, until the writer was lost.
    let mut network = cluster(4, false);
    for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        network.allow(a, b, false);
    }
    network.run_for(Duration::from_secs(4));
    start(&mut network, 0, spec("one"));
    network.crash(0);
    network.run_for(Duration::from_secs(4));
    network.allow(1, 3, true);
    network.run_for(Duration::from_secs(4));
    assert!(network.nodes().all(|(_, node)| node.supervisor.spec(&Term::from("one")).is_some()));
}

#[test]
fn parts_are_spread_and_replicas_are_everywhere() {
    let mut network = cluster(4, false);
    let many = ChildSpec { kind: Kind::Partitioned(32), ..spec("parts") };
    let Outcome::Started(parts) = start(&mut network, 0, many) else { panic!("all run") };
    assert_eq!(parts.len(), 32);
    let nodes: BTreeSet<&Atom> = parts.iter().map(|(_, pid)| &pid.node).collect();
    assert_eq!(nodes.len(), 4);
    let each = ChildSpec { kind: Kind::Replicated, ..spec("each") };
    let Outcome::Started(parts) = start(&mut network, 0, each) else { panic!("all run") };
    assert_eq!(parts.len(), 4);
    network.crash(3);
    network.run_for(Duration::from_secs(4));
    for number in 0..32 {
        assert!(owner(&network, "parts", &Part::Number(number)).is_some_and(|node| node < 3));
    }
    let config = Config::default();
    network.start(3, Node::new(3, 9, config, 7, 1000, None));
    network.run_for(Duration::from_secs(4));
    assert_eq!(owner(&network, "each", &Part::Node(node_name(3))), Some(3));
}

#[test]
fn a_child_goes_on_with_its_state_where_it_is_sent() {
    for members in [false, true] {
        let mut network = cluster(3, members);
        let requirement = if members { Requirement::Safety } else { Requirement::Availability };
        start(&mut network, 0, spec("one").requirement(requirement));
        let first = owner(&network, "one", &Part::Only).unwrap();
        let to = (first + 1) % 3;
        let what = Command::Migrate { id: Term::from("one"), part: Part::Only, to: node_name(to) };
        assert_eq!(run(&mut network, (first + 2) % 3, what), Outcome::Done);
        assert_eq!(owner(&network, "one", &Part::Only), Some(to));
        let generation = |network: &Network<Node>, at: usize| {
            network.node(at).unwrap().kids.values().next().map(|kid| kid.generation)
        };
        assert_eq!(generation(&network, to), Some(1), "the state came along");
        // A node that leaves passes on what it has.
        assert_eq!(run(&mut network, to, Command::Drain), Outcome::Done);
        let last = owner(&network, "one", &Part::Only).unwrap();
        assert_ne!(last, to);
        assert_eq!(generation(&network, last), Some(2));
        let back = Command::Migrate { id: Term::from("one"), part: Part::Only, to: node_name(to) };
        assert_eq!(run(&mut network, last, back), Outcome::NoSuchNode, "that node leaves");
        assert_eq!(owner(&network, "one", &Part::Only), Some(last));
    }
}

#[test]
fn a_child_that_ends_too_often_is_given_up_until_it_is_asked_for() {
    let mut network = cluster(3, false);
    start(&mut network, 0, spec("one").budget(2, 60));
    let at = owner(&network, "one", &Part::Only).unwrap();
    for _ in 0..3 {
        network.with(at, |node, io| node.kill_kid(io, 0, "boom"));
        network.run_for(Duration::from_secs(1));
    }
    for (_, node) in network.nodes() {
        let place = node.supervisor.lookup(&Term::from("one"), &Part::Only).unwrap();
        assert_eq!(place.status, Status::Failed(Term::atom("boom")));
    }
    assert_eq!(network.nodes().map(|(_, node)| node.kids.len()).sum::<usize>(), 0);
    assert_eq!(run(&mut network, (at + 1) % 3, Command::RestartChild(Term::from("one"))), Outcome::Done);
    assert_eq!(owner(&network, "one", &Part::Only), Some(at));
}

#[test]
fn a_child_without_a_majority_runs_nowhere() {
    let mut network = cluster(3, true);
    for (id, child) in [
        ("safe", spec("safe").requirement(Requirement::Safety)),
        ("quorum", spec("quorum").placement(Placement::Quorum)),
        ("any", spec("any")),
    ] {
        assert!(matches!(start(&mut network, 0, child), Outcome::Started(_)), "{id}");
    }
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        network.allow(a, b, false);
    }
    network.run_for(Duration::from_secs(8));
    for (at, node) in network.nodes() {
        let ids: Vec<&Term> = node.kids.values().map(|kid| &kid.spec.id).collect();
        assert_eq!(ids, [&Term::from("any")], "on {at}");
    }
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        network.allow(a, b, true);
    }
    network.run_for(Duration::from_secs(20));
    for id in ["safe", "quorum", "any"] {
        assert!(owner(&network, id, &Part::Only).is_some(), "{id}");
    }
    assert_eq!(network.nodes().map(|(_, node)| node.kids.len()).sum::<usize>(), 3);
}

#[test]
fn what_cannot_be_is_refused() {
    let mut network = cluster(2, false);
    let unknown = ChildSpec::new("x", Atom::new_static("unknown"));
    assert_eq!(start(&mut network, 0, unknown), Outcome::NoFactory);
    let safe = spec("x").requirement(Requirement::Safety);
    assert_eq!(start(&mut network, 0, safe), Outcome::NoMembers);
    let large = spec("x").argument(Term::binary(&[0; 20_000]));
    assert_eq!(start(&mut network, 0, large), Outcome::BadSpec);
    let none = ChildSpec { kind: Kind::Partitioned(0), ..spec("x") };
    assert_eq!(start(&mut network, 0, none), Outcome::BadSpec);
    let budget = spec("x").budget(MAX_RESTARTS + 1, 1);
    assert_eq!(start(&mut network, 0, budget), Outcome::BadSpec);
    let many = |count| ChildSpec { kind: Kind::Partitioned(count), ..spec("y") };
    assert_eq!(start(&mut network, 0, many(MAX_PARTITIONS + 1)), Outcome::BadSpec);
    assert_eq!(network.node(0).unwrap().supervisor.specs.len(), 0);
    let config = Config { max_children: 5, ..Config::default() };
    network.start(2, Node::new(2, 9, config, 7, 1000, None));
    network.run_for(Duration::from_secs(2));
    assert_eq!(start(&mut network, 2, many(5)), Outcome::SystemLimit);
    assert!(matches!(start(&mut network, 2, many(4)), Outcome::Started(_)));
    assert_eq!(start(&mut network, 2, spec("z")), Outcome::SystemLimit);
}

#[test]
fn a_node_that_leaves_hands_over_a_few_at_a_time() {
    let mut network = cluster(2, false);
    let parts = ChildSpec { kind: Kind::Partitioned(100), ..spec("parts") };
    assert!(matches!(start(&mut network, 0, parts), Outcome::Started(_)));
    let number = command(&mut network, 0, Command::Drain);
    let mut most = 0;
    let mut left = true;
    while left {
        network.run_for(Duration::from_millis(5));
        let machine = &network.node(0).unwrap().supervisor;
        let stopping = |running: &&Running| matches!(running.state, children::State::Stopping { .. });
        most = most.max(machine.running.values().filter(stopping).count() + machine.outgoing.len());
        left = !machine.running.is_empty() || !machine.outgoing.is_empty();
    }
    assert!((2..=16).contains(&most), "{most}");
    assert_eq!(outcome(&mut network, 0, number), Some(Outcome::Done));
    network.run_for(Duration::from_secs(1));
    let there = &network.node(1).unwrap().kids;
    assert_eq!(there.len(), 100);
    assert!(there.values().filter(|kid| kid.generation == 1).count() > 20, "with their states");
}

/// What a stranger calls and what it is answered.
#[test]
fn callers_without_this_library_are_answered() {
    let mut network = cluster(2, false);
    let ask = |network: &mut Network<Node>, request: Term| -> Term {
        network.with(0, |node, io| node.call(io, request));
        network.run_for(Duration::from_secs(2));
        network.with(0, |node, _| node.replies.pop()).flatten().expect("an answer")
    };
    let word = Term::atom;
    let wanted: foundation_proto::etf::Map =
        [(word("id"), Term::from("one")), (word("factory"), word("f"))].into_iter().collect();
    let wanted = Term::Map(wanted);
    let started = ask(&mut network, Term::from((word("start_singleton"), wanted.clone())));
    let Some([ok, Term::Pid(pid)]) = started.as_tuple() else { panic!("{started:?}") };
    assert!(ok.is_atom("ok"));
    let again = ask(&mut network, Term::from((word("start_singleton"), wanted)));
    let taken = Term::from((word("already_started"), Term::Pid(pid.clone())));
    assert_eq!(again, Term::from((word("error"), taken)));
    let found = ask(&mut network, Term::from((word("lookup_singleton"), "one")));
    assert_eq!(found, Term::from((word("ok"), Term::Pid(pid.clone()))));
    let children = ask(&mut network, word("which_children"));
    let child =
        Term::from((Term::from("one"), Term::Pid(pid.clone()), word("worker"), Term::list([word("f")])));
    assert_eq!(children, Term::list([child]));
    let counts = ask(&mut network, word("count_children"));
    let count = |name, n: i64| Term::from((word(name), n));
    let expected = [count("specs", 1), count("active", 1), count("supervisors", 0), count("workers", 1)];
    assert_eq!(counts, Term::list(expected));
    assert_eq!(ask(&mut network, Term::from((word("terminate_child"), Term::Pid(pid.clone())))), word("ok"));
    let gone = ask(&mut network, Term::from((word("lookup_singleton"), "one")));
    assert_eq!(gone, Term::from((word("error"), word("not_found"))));
    for bad in [word("else"), Term::from((word("migrate"), 1i64)), Term::Integer(1), Term::tuple([])] {
        assert_eq!(ask(&mut network, bad), Term::from((word("error"), word("badarg"))));
    }
}
