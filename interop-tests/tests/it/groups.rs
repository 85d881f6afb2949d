//! Process groups shared with OTP's own `pg`, hidden on our side.

use foundation_interop_tests::eventually::eventually_true;
use foundation_interop_tests::{Beam, Case, Epmd, case};
use foundation_node::service::pg::Groups;
use foundation_proto::etf::Term;

use crate::rust::{Rust, WAIT};

const TOPIC: &str = "process groups";

fn counts(groups: &Groups, group: &'static str) -> Vec<(String, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    for pid in groups.members(&Term::atom(group)) {
        *counts.entry(pid.node.as_str().to_owned()).or_default() += 1;
    }
    counts.into_iter().collect()
}

/// Waits until the group has that many members on each node, and no others.
fn wait_for(groups: &Groups, group: &'static str, expected: &[(&str, usize)]) {
    let expected: Vec<(String, usize)> = expected.iter().map(|(node, n)| ((*node).to_owned(), *n)).collect();
    eventually_true(&format!("{group} has {expected:?}"), WAIT, || counts(groups, group) == expected);
}

fn wait_on(beam: &Beam, expression: &str, expected: &str) {
    eventually_true(&format!("{expression} is {expected}"), WAIT, || beam.eval(expression) == expected);
}

#[test]
fn members_are_seen_both_ways() {
    case(
        Case::Smoke,
        TOPIC,
        "joins, repeated joins and leaves of pids and lists, both ways, hidden",
        |release| {
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "rust");
            let beam = Beam::visible(release, &epmd, "beam");
            beam.eval("{ok, Scope} = pg:start(sc), Self = self(), ok = pg:join(sc, early, Self)");
            let groups = rust.node.groups("sc").unwrap();
            let worker = rust.node.process().unwrap();
            rust.run(groups.join(&Term::atom("g"), worker.pid())).unwrap();
            assert!(rust.run(rust.node.connect("beam@127.0.0.1")).is_ok());

            wait_for(&groups, "early", &[("beam@127.0.0.1", 1)]);
            wait_on(&beam, "[node(P) || P <- pg:get_members(sc, g)]", "['rust@127.0.0.1']");

            beam.eval("ok = pg:join(sc, g, [Self, Self]), ok = pg:join(sc, {any, \"term\"}, Self)");
            wait_for(&groups, "g", &[("beam@127.0.0.1", 2), ("rust@127.0.0.1", 1)]);
            eventually_true("a group may be any term", WAIT, || groups.which_groups().len() == 3);
            rust.run(groups.join(&Term::atom("g"), worker.pid())).unwrap();
            wait_on(&beam, "length(pg:get_members(sc, g))", "4");
            beam.eval("ok = pg:leave(sc, g, Self)");
            wait_for(&groups, "g", &[("beam@127.0.0.1", 1), ("rust@127.0.0.1", 2)]);
            rust.run(groups.leave(&Term::atom("g"), worker.pid())).unwrap();
            wait_on(&beam, "length(pg:get_members(sc, g))", "2");

            // The death of a member takes it out of all its groups on the other side.
            beam.eval("Dying = spawn(fun() -> receive stop -> ok end end), [pg:join(sc, X, Dying) || X <- [g, h, h]]");
            wait_for(&groups, "h", &[("beam@127.0.0.1", 2)]);
            beam.eval("exit(Dying, kill)");
            wait_for(&groups, "h", &[]);
            drop(worker);
            wait_on(&beam, "[node(P) || P <- pg:get_members(sc, g)]", "['beam@127.0.0.1']");
            Ok(())
        },
    );
}

#[test]
fn scopes_and_nodes_that_come_and_go() {
    case(
        Case::Smoke,
        TOPIC,
        "a scope started late, restarted, and a node killed and started again",
        |release| {
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "rust");
            let beam = Beam::visible(release, &epmd, "beam");
            let groups = rust.node.groups("late").unwrap();
            let worker = rust.node.process().unwrap();
            rust.run(groups.join(&Term::atom("g"), worker.pid())).unwrap();
            assert!(rust.run(rust.node.connect("beam@127.0.0.1")).is_ok());

            // Nothing tells a hidden node that a scope starts: it looks again.
            beam.eval("{ok, Scope} = pg:start(late), ok = pg:join(late, g, self())");
            wait_for(&groups, "g", &[("beam@127.0.0.1", 1), ("rust@127.0.0.1", 1)]);
            wait_on(&beam, "length(pg:get_members(late, g))", "2");

            beam.eval("exit(Scope, kill)");
            wait_for(&groups, "g", &[("rust@127.0.0.1", 1)]);
            beam.eval("{ok, Again} = pg:start(late), ok = pg:join(late, g, self())");
            wait_for(&groups, "g", &[("beam@127.0.0.1", 1), ("rust@127.0.0.1", 1)]);
            wait_on(&beam, "length(pg:get_members(late, g))", "2");

            let beam = beam.restart();
            wait_for(&groups, "g", &[("rust@127.0.0.1", 1)]);
            beam.eval("{ok, _} = pg:start(late), ok = pg:join(late, g, self())");
            wait_for(&groups, "g", &[("beam@127.0.0.1", 1), ("rust@127.0.0.1", 1)]);
            wait_on(&beam, "length(pg:get_members(late, g))", "2");
            Ok(())
        },
    );
}

#[test]
fn many_members() {
    case(
        Case::Full,
        TOPIC,
        "2,000 members in 200 groups on each side, found by a third node that joins late",
        |release| {
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "rust");
            let beam = Beam::visible(release, &epmd, "beam");
            let groups = rust.node.groups("sc").unwrap();
            let workers: Vec<_> = (0..10).map(|_| rust.node.process().unwrap()).collect();
            rust.run(async {
                for n in 0..200 {
                    for worker in &workers {
                        groups.join(&Term::from(n), worker.pid()).await.unwrap();
                    }
                }
            });
            beam.eval(
            "{ok, _} = pg:start(sc), Pids = [spawn(fun() -> receive stop -> ok end end) || _ <- lists:seq(1, 10)], \
             [pg:join(sc, N, Pids) || N <- lists:seq(0, 199)]",
        );
            assert!(rust.run(rust.node.connect("beam@127.0.0.1")).is_ok());
            let late = Rust::start(&epmd, "late");
            let others = late.node.groups("sc").unwrap();
            assert!(late.run(late.node.connect("beam@127.0.0.1")).is_ok());
            assert!(late.run(late.node.connect("rust@127.0.0.1")).is_ok());
            let all = |groups: &Groups| (0..200).map(|n| groups.members(&Term::from(n)).len()).sum::<usize>();
            eventually_true("4,000 members on both", WAIT, || all(&groups) == 4000 && all(&others) == 4000);
            wait_on(&beam, "lists:sum([length(pg:get_members(sc, N)) || N <- lists:seq(0, 199)])", "4000");
            // A hidden node counts for nothing in the full mesh, and is not introduced to the others.
            assert_eq!(beam.eval("lists:sort(nodes(hidden))"), "['late@127.0.0.1','rust@127.0.0.1']");
            Ok(())
        },
    );
}
