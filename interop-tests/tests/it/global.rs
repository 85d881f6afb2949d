//! Names and locks shared with OTP's own `global`.

use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::eventually::eventually_true;
use foundation_interop_tests::{Beam, Case, Epmd, Release, case};
use foundation_node::config::Reconnect;
use foundation_node::process::Process;
use foundation_node::service::global::Global;
use foundation_proto::Limits;
use foundation_proto::etf::{Atom, Term};

use crate::rust::{Rust, WAIT};

const TOPIC: &str = "global";
const OLD: Unsupported =
    Unsupported("its global is older than version 7: it gets in_sync and shares no names");

/// A visible node that takes part.
fn visible(epmd: &Epmd, name: &str) -> (Rust, Global) {
    let rust = Rust::with(epmd, name, |config| config.hidden(false).reconnect(Reconnect::Never));
    let global = rust.node.global().expect("a visible node has it");
    (rust, global)
}

fn connect(rust: &Rust, to: &str) {
    rust.run(rust.node.connect(to)).unwrap_or_else(|error| panic!("{error}"));
}

fn wait_on(beam: &Beam, expression: &str, expected: &str) {
    let mut last = String::new();
    eventually_true(&format!("{expression} is {expected}"), WAIT, || {
        last = beam.eval(expression);
        last == expected
    });
}

fn wait_known(global: &Global, nodes: &[&str]) {
    eventually_true(&format!("{nodes:?} are known"), WAIT, || {
        global.known().iter().map(Atom::as_str).collect::<Vec<_>>() == nodes
    });
}

fn name(text: &'static str) -> Term {
    Term::atom(text)
}

fn registers(rust: &Rust, global: &Global, of: &'static str) -> Process {
    let process = rust.node.process().unwrap();
    assert!(rust.run(global.register_name(&name(of), process.pid())).unwrap());
    process
}

fn is_old(release: &Release) -> bool {
    release.number < 25
}

#[test]
fn names_are_shared() {
    case(
        Case::Smoke,
        TOPIC,
        "names registered on either side are on both, and go with their processes",
        |release| {
            let epmd = Epmd::start(release);
            let beam = Beam::visible(release, &epmd, "beam");
            let (rust, global) = visible(&epmd, "rust");
            // One name each before they meet.
            let early = registers(&rust, &global, "early_rust");
            beam.eval("Early = spawn(fun() -> receive stop -> ok end end), yes = global:register_name(early_beam, Early)");
            connect(&rust, "beam@127.0.0.1");
            // Whatever its version, nothing there waits for this node.
            assert_eq!(beam.eval("global:sync()"), "ok");
            assert_eq!(beam.eval("global:trans({lock, self()}, fun() -> done end)"), "done");
            if is_old(release) {
                return Err(OLD);
            }
            rust.run(global.sync()).unwrap();
            wait_known(&global, &["beam@127.0.0.1"]);
            assert_eq!(beam.eval("node(global:whereis_name(early_rust))"), "'rust@127.0.0.1'");
            assert_eq!(global.whereis_name(&name("early_beam")).unwrap().node, "beam@127.0.0.1");

            // Registered while connected, each with the lock on both.
            let late = registers(&rust, &global, "late_rust");
            assert_eq!(
                beam.eval("lists:sort(global:registered_names())"),
                "[early_beam,early_rust,late_rust]"
            );
            beam.eval("Late = spawn(fun() -> receive stop -> ok end end), yes = global:register_name({late, \"beam\"}, Late)");
            assert_eq!(global.registered_names().len(), 4);
            assert_eq!(beam.eval("global:register_name(late_rust, self())"), "no");
            let other = rust.node.process().unwrap();
            assert!(
                !rust.run(global.register_name(&name("early_beam"), other.pid())).unwrap(),
                "it is taken"
            );

            // Sent to by name.
            let mut late = late;
            beam.eval("global:send(late_rust, {hello, 1})");
            let message = rust.run(late.recv()).unwrap();
            assert_eq!(crate::rust::shown(&message.to_term(&Limits::default()).unwrap()), "{hello,1}");

            // They end, and with them their names.
            drop(early);
            wait_on(&beam, "global:whereis_name(early_rust)", "undefined");
            beam.eval("exit(Early, kill)");
            eventually_true("the name is gone", WAIT, || global.whereis_name(&name("early_beam")).is_none());
            rust.run(global.unregister_name(&name("late_rust"))).unwrap();
            assert_eq!(beam.eval("global:whereis_name(late_rust)"), "undefined");
            beam.eval("global:unregister_name({late, \"beam\"})");
            assert_eq!(global.registered_names(), []);
            // A node ends, and with it the names of its processes.
            beam.eval("yes = global:register_name(last, spawn(fun() -> receive stop -> ok end end))");
            assert_eq!(global.registered_names().len(), 1);
            drop(beam);
            eventually_true("nothing is left", WAIT, || global.registered_names().is_empty());
            assert_eq!(global.known(), [] as [Atom; 0]);
            Ok(())
        },
    );
}

#[test]
fn locks_are_shared() {
    case(
        Case::Full,
        TOPIC,
        "locks of either side keep the other out; they go with their owners",
        |release| {
            let epmd = Epmd::start(release);
            let beam = Beam::visible(release, &epmd, "beam");
            let (rust, global) = visible(&epmd, "rust");
            connect(&rust, "beam@127.0.0.1");
            assert_eq!(beam.eval("global:sync()"), "ok");
            if is_old(release) {
                return Err(OLD);
            }
            let owner = rust.node.process().unwrap();
            let (resource, mine) = (name("resource"), name("rust_side"));
            assert_eq!(beam.eval("global:set_lock({resource, beam_side})"), "true");
            assert!(!rust.run(global.set_lock(&resource, &mine, owner.pid(), Some(0))).unwrap());
            assert_eq!(beam.eval("global:del_lock({resource, beam_side})"), "true");
            assert!(rust.run(global.set_lock(&resource, &mine, owner.pid(), Some(3))).unwrap());
            assert_eq!(beam.eval("global:set_lock({resource, beam_side}, [node() | nodes()], 0)"), "false");
            // Re-entrant for the same requester, who may be anywhere.
            assert_eq!(beam.eval("global:set_lock({resource, rust_side}, [node() | nodes()], 0)"), "true");
            assert_eq!(beam.eval("global:del_lock({resource, rust_side}, [node() | nodes()])"), "true");
            assert_eq!(beam.eval("global:set_lock({resource, beam_side}, [node() | nodes()], 0)"), "false");
            drop(owner);
            wait_on(&beam, "global:set_lock({resource, beam_side}, [node() | nodes()], 0)", "true");
            beam.eval("global:del_lock({resource, beam_side})");
            // In turns.
            let owner = rust.node.process().unwrap();
            for _ in 0..20 {
                assert!(rust.run(global.set_lock(&name("turns"), &mine, owner.pid(), None)).unwrap());
                rust.run(global.del_lock(&name("turns"), &mine, owner.pid())).unwrap();
                assert_eq!(beam.eval("global:trans({turns, self()}, fun() -> mine end)"), "mine");
            }
            Ok(())
        },
    );
}

#[test]
fn conflicts_are_resolved() {
    case(
        Case::Full,
        TOPIC,
        "two partitions with the same name: one process is left, the same on both",
        |release| {
            if is_old(release) {
                return Err(OLD);
            }
            let epmd = Epmd::start(release);
            let beam = Beam::visible(release, &epmd, "m");
            // The lesser node resolves, so each has to.
            for this in ["a", "z"] {
                let (rust, global) = visible(&epmd, this);
                let mine = registers(&rust, &global, "twice");
                beam.eval(&format!("P_{this} = spawn(fun() -> receive stop -> ok end end), yes = global:re_register_name(twice, P_{this})"));
                connect(&rust, "m@127.0.0.1");
                rust.run(global.sync()).unwrap();
                let winner = if this == "a" { "a@127.0.0.1" } else { "m@127.0.0.1" };
                // Between the end of one process and the news of the other nobody has the name there.
                wait_on(&beam, "catch node(global:whereis_name(twice))", &format!("'{winner}'"));
                assert_eq!(global.whereis_name(&name("twice")).unwrap().node, winner);
                // The default method kills the process of the greater node.
                wait_on(
                    &beam,
                    &format!("is_process_alive(P_{this})"),
                    if this == "a" { "false" } else { "true" },
                );
                eventually_true("one of them is left", WAIT, || {
                    mine.exit_reason().is_some() == (this == "z")
                });
                // The node ends; the next one begins with a cluster of its own.
                drop((mine, global, rust));
                wait_on(&beam, "nodes()", "[]");
                beam.eval("global:unregister_name(twice)");
            }
            Ok(())
        },
    );
}

#[test]
fn partitions_become_one() {
    case(
        Case::Full,
        TOPIC,
        "two partitions meet through one connection: all are connected, all have all names",
        |release| {
            if is_old(release) {
                return Err(OLD);
            }
            let epmd = Epmd::start(release);
            let (first, second) = (Beam::visible(release, &epmd, "b1"), Beam::visible(release, &epmd, "b2"));
            assert_eq!(second.eval("net_adm:ping('b1@127.0.0.1')"), "pong");
            wait_on(&first, "nodes()", "['b2@127.0.0.1']");
            first.eval("global:sync(), yes = global:register_name(of_first, spawn(fun() -> receive stop -> ok end end))");
            let ((r1, g1), (r2, g2)) = (visible(&epmd, "r1"), visible(&epmd, "r2"));
            connect(&r1, "r2@127.0.0.1");
            r1.run(g1.sync()).unwrap();
            let _of_r2 = registers(&r2, &g2, "of_r2");

            connect(&r1, "b1@127.0.0.1");
            for (global, others) in [
                (&g1, ["b1@127.0.0.1", "b2@127.0.0.1", "r2@127.0.0.1"]),
                (&g2, ["b1@127.0.0.1", "b2@127.0.0.1", "r1@127.0.0.1"]),
            ] {
                wait_known(global, &others);
                eventually_true("both names", WAIT, || global.registered_names().len() == 2);
            }
            for beam in [&first, &second] {
                wait_on(beam, "lists:sort(global:registered_names())", "[of_first,of_r2]");
                wait_on(beam, "length(nodes())", "3");
                assert_eq!(beam.eval("global:sync()"), "ok");
            }
            // A name that one of four registers is on all of them when it is said to be.
            let _late = registers(&r1, &g1, "late");
            assert_eq!(second.eval("node(global:whereis_name(late))"), "'r1@127.0.0.1'");
            assert_eq!(g2.whereis_name(&name("late")).unwrap().node, "r1@127.0.0.1");
            Ok(())
        },
    );
}

#[test]
fn overlapping_partitions_are_prevented() {
    case(Case::Full, TOPIC, "who loses one of three is left by the other; both sides agree", |release| {
        if is_old(release) {
            return Err(OLD);
        }
        let epmd = Epmd::start(release);
        let (first, second) = (Beam::visible(release, &epmd, "b1"), Beam::visible(release, &epmd, "b2"));
        let (rust, global) = visible(&epmd, "rust");
        assert_eq!(second.eval("net_adm:ping('b1@127.0.0.1')"), "pong");
        connect(&rust, "b1@127.0.0.1");
        wait_known(&global, &["b1@127.0.0.1", "b2@127.0.0.1"]);
        for beam in [&first, &second] {
            wait_on(beam, "length(nodes())", "2");
            wait_on(
                beam,
                "lists:member('rust@127.0.0.1', gen_server:call(global_name_server, get_known))",
                "true",
            );
        }
        // b1 loses b2: everybody leaves b2, and b2 leaves everybody.
        first.eval("erlang:disconnect_node('b2@127.0.0.1')");
        eventually_true("b2 is left", WAIT, || {
            !rust
                .node
                .nodes(foundation_node::net_kernel::NodeType::Visible)
                .iter()
                .any(|n| *n == "b2@127.0.0.1")
        });
        wait_on(&second, "nodes()", "[]");
        Ok(())
    });
}

#[test]
fn from_outside() {
    case(Case::Full, TOPIC, "a hidden node has names and locks through a visible one", |release| {
        let epmd = Epmd::start(release);
        let beam = Beam::visible(release, &epmd, "beam");
        let rust = Rust::start(&epmd, "rust");
        assert!(rust.node.global().is_none());
        connect(&rust, "beam@127.0.0.1");
        let through = rust.node.global_through(&Atom::new_static("beam@127.0.0.1"));
        let process = rust.node.process().unwrap();
        assert!(rust.run(through.register_name(&name("hidden"), process.pid())).unwrap());
        assert_eq!(beam.eval("node(global:whereis_name(hidden))"), "'rust@127.0.0.1'");
        assert_eq!(rust.run(through.whereis_name(&name("hidden"))).unwrap().as_ref(), Some(process.pid()));
        let nodes = [Atom::new_static("beam@127.0.0.1")];
        let (resource, me) = (name("resource"), name("me"));
        assert!(rust.run(through.set_lock(&resource, &me, &process, &nodes)).unwrap());
        assert_eq!(beam.eval("global:set_lock({resource, other}, [node()], 0)"), "false");
        rust.run(through.del_lock(&resource, &me, &process, &nodes)).unwrap();
        assert_eq!(beam.eval("global:set_lock({resource, other}, [node()], 0)"), "true");
        assert!(!rust.run(through.set_lock(&resource, &me, &process, &nodes)).unwrap());
        drop(process);
        wait_on(&beam, "global:whereis_name(hidden)", "undefined");
        Ok(())
    });
}
