//! Partitions that part some nodes of a cluster and not others, with a hidden Rust node that both sides still reach, or that
//! only one side reaches.

use std::time::{Duration, Instant};

use foundation_interop_tests::{Beam, Case, Epmd, Release, Wire, beam, case, eventually::eventually_true};
use foundation_node::event::{Event, Events};
use foundation_node::net_kernel::NodeType;
use foundation_node::process::{Message, Process};
use foundation_proto::etf::{Pid, Term};

use super::figures::Figures;
use super::{TICKTIME, TOPIC};
use crate::rust::{Rust, WAIT, next_term, shown, term};

/// What OTP needs at most to notice that another BEAM node is gone, and more on a loaded machine.
const THERE: Duration = Duration::from_secs(TICKTIME as u64 * 2 + 8);

/// A BEAM node that finds others by the EPMD on this port. `watch` is a process that says what becomes of what it is told to
/// monitor and link, `echo` one that answers.
fn beam(release: &Release, epmd: u16, name: &str) -> Beam {
    let beam =
        beam::Options::new(release, epmd, name).args(&format!("-kernel net_ticktime {TICKTIME}")).start();
    beam.eval(
        "Loop = fun Loop(Seen) -> receive \
             {watch, P, From} -> link(P), monitor(process, P), From ! watching, Loop(Seen); \
             forget -> Loop([]); \
             {seen, From} -> From ! {seen, lists:sort(Seen)}, Loop(Seen); \
             {'EXIT', _, Why} -> Loop([{exit, Why} | Seen]); \
             {'DOWN', _, process, _, Why} -> Loop([{down, Why} | Seen]) end end, \
         register(watch, spawn(fun() -> process_flag(trap_exit, true), Loop([]) end)), \
         register(echo, spawn(fun Echo() -> receive {P, M} -> P ! {echo, M}, Echo() end end)), \
         Sleep = fun() -> spawn(fun() -> receive stop -> ok end end) end, \
         net_kernel:monitor_nodes(true, [{node_type, all}]), ok",
    );
    beam
}

/// What `watch` has seen on this node.
fn seen(beam: &Beam) -> String {
    beam.eval("watch ! {seen, self()}, (fun() -> receive {seen, S} -> S after 9000 -> timeout end end)()")
}

fn hears(beam: &Beam, what: &str, node: &str, within: Duration) -> bool {
    beam.eval(&format!(
        "(fun() -> receive {{{what}, '{node}@127.0.0.1', _}} -> true after {} -> false end end)()",
        within.as_millis()
    )) == "true"
}

/// `watch` on `at` watches a process of `of`, which it is told by name.
fn watches(at: &Beam, of: &Beam) {
    let sleeper = of.eval_bytes("term_to_binary(Sleep())");
    let bytes: Vec<String> = sleeper.iter().map(u8::to_string).collect();
    at.eval(&format!(
        "watch ! {{watch, binary_to_term(<<{}>>), self()}}, receive watching -> ok end",
        bytes.join(",")
    ));
}

/// The Rust node's process is linked to a process of this BEAM node and monitors it, and the other way round.
fn entangle(rust: &Rust, process: &mut Process, beam: &Beam) -> Pid {
    beam.eval("{inbox, 'rust@127.0.0.1'} ! Sleep(), ok");
    rust.run(async {
        let sleeper = next_term(process).await.as_pid().cloned().unwrap();
        process.link(&sleeper).await;
        process.monitor(&sleeper).await.unwrap();
        let watch = Term::from((Term::atom("watch"), process.pid().clone(), process.pid().clone()));
        process.send_term(("watch", beam.name()), &watch).await.unwrap();
        assert_eq!(shown(&next_term(process).await), "watching");
        sleeper
    })
}

fn echoes(rust: &Rust, process: &mut Process, node: &str) {
    rust.run(async {
        let message = Term::from((process.pid().clone(), Term::binary(node.as_bytes())));
        process.send_term(("echo", node), &message).await.unwrap();
        assert_eq!(next_term(process).await, Term::from((Term::atom("echo"), Term::binary(node.as_bytes()))));
    });
}

fn up(rust: &Rust, events: &mut Events, node: &str) {
    rust.run(rust.node.connect(node)).unwrap();
    match rust.run(events.next()) {
        Some(Event::NodeUp { node: up, .. }) => assert_eq!(up.as_str(), node),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_hidden_node_between_both_sides() {
    case(
        Case::Full,
        TOPIC,
        "two BEAM nodes that lose each other, and a hidden Rust node that both reach: its connections, links and monitors stay, what it passes on arrives",
        |release| {
            let epmd = Epmd::start(release);
            let wire = Wire::new(&epmd);
            let (one, two) = (beam(release, wire.a(), "one"), beam(release, wire.b(), "two"));
            // Not by the wire: it reaches both directly.
            let rust = Rust::on(epmd.port, "rust", |config| config.net_ticktime(TICKTIME));
            let mut events = rust.node.events();
            let mut inbox = rust.node.mailbox("inbox").unwrap();
            inbox.trap_exit(true);
            up(&rust, &mut events, "one@127.0.0.1");
            up(&rust, &mut events, "two@127.0.0.1");
            assert_eq!(one.eval("net_adm:ping('two@127.0.0.1')"), "pong");
            for beam in [&one, &two] {
                assert!(hears(beam, "nodeup", "rust", WAIT));
                entangle(&rust, &mut inbox, beam);
            }
            watches(&one, &two);
            watches(&two, &one);

            wire.partition();
            assert!(hears(&one, "nodedown", "two", THERE) && hears(&two, "nodedown", "one", THERE));
            for beam in [&one, &two] {
                eventually_true("theirs have fired", WAIT, || {
                    seen(beam) == "[{down,noconnection},{exit,noconnection}]"
                });
                assert_eq!(beam.eval("nodes(connected)"), "['rust@127.0.0.1']");
                echoes(&rust, &mut inbox, beam.name());
            }
            // A process that one side cannot reach, named by the other: the Rust node passes a message on to it.
            two.eval("register(taker, spawn(fun() -> receive {passed, N} -> {inbox, 'rust@127.0.0.1'} ! {taken, N} end end)), ok");
            one.eval("{inbox, 'rust@127.0.0.1'} ! {pass, taker, 7}, ok");
            rust.run(async {
                assert_eq!(next_term(&mut inbox).await, term("{pass, taker, 7}"));
                inbox.send_term(("taker", "two@127.0.0.1"), &term("{passed, 7}")).await.unwrap();
                assert_eq!(next_term(&mut inbox).await, term("{taken, 7}"));
            });
            // For as long as a tick time more.
            let quiet = rust.run(async {
                tokio::time::timeout(Duration::from_secs(TICKTIME.into()), events.next()).await
            });
            assert!(quiet.is_err(), "{quiet:?}");

            wire.heal();
            eventually_true("they meet again when one asks", WAIT, || {
                one.eval("net_adm:ping('two@127.0.0.1')") == "pong"
            });
            for beam in [&one, &two] {
                assert_eq!(seen(beam), "[{down,noconnection},{exit,noconnection}]", "each once");
                assert!(!hears(beam, "nodedown", "rust", Duration::ZERO));
                echoes(&rust, &mut inbox, beam.name());
            }
            assert_eq!(inbox.mailbox_len(), 0, "nothing has fired");
            assert_eq!(inbox.links().len(), 4, "each link is there, from either side");
            assert_eq!(rust.node.nodes(NodeType::Connected), ["one@127.0.0.1", "two@127.0.0.1"]);
            Ok(())
        },
    );
}

#[test]
fn one_side_out_of_reach() {
    case(
        Case::Full,
        TOPIC,
        "a hidden Rust node that loses one of two BEAM nodes, which still reach each other: only what leads there fires, once; back within a second",
        |release| {
            let figures = Figures::of(release);
            let epmd = Epmd::start(release);
            let wire = Wire::new(&epmd);
            // `near` is on the Rust node's side of the wire. `far` is not, and dials `near` directly.
            let (near, far) = (beam(release, wire.a(), "near"), beam(release, epmd.port, "far"));
            let rust = Rust::on(wire.a(), "rust", |config| config.net_ticktime(TICKTIME));
            let mut events = rust.node.events();
            up(&rust, &mut events, "near@127.0.0.1");
            up(&rust, &mut events, "far@127.0.0.1");
            assert_eq!(far.eval("net_adm:ping('near@127.0.0.1')"), "pong");
            watches(&far, &near);
            for beam in [&near, &far] {
                assert!(hears(beam, "nodeup", "rust", WAIT));
            }
            let mut to_near = rust.node.mailbox("inbox").unwrap();
            to_near.trap_exit(true);
            entangle(&rust, &mut to_near, &near);
            to_near.unregister();
            for _ in figures.rounds() {
                let mut to_far = rust.node.mailbox("inbox").unwrap();
                to_far.trap_exit(true);
                let sleeper = entangle(&rust, &mut to_far, &far);

                wire.partition();
                let since = Instant::now();
                match rust.run(events.next()) {
                    Some(Event::NodeDown { node, .. }) => assert_eq!(node.as_str(), "far@127.0.0.1"),
                    other => panic!("{other:?}"),
                }
                figures.noticed("one of two nodes out of reach", TICKTIME, since.elapsed());
                // One link that was made here, one that was made there, and the monitor; in whatever order.
                let mut fired = rust.run(async {
                    let mut fired = Vec::new();
                    for _ in 0..3 {
                        fired.push(match to_far.recv().await.unwrap() {
                            Message::Exit(exit) => {
                                assert!(exit.reason.is("noconnection"), "{exit:?}");
                                if exit.from == sleeper {
                                    "exit of the sleeper"
                                } else {
                                    "exit of the watcher"
                                }
                            }
                            Message::Down(down) => {
                                assert!(down.reason.is("noconnection"), "{down:?}");
                                "down"
                            }
                            other => panic!("{other:?}"),
                        });
                    }
                    fired
                });
                fired.sort_unstable();
                assert_eq!(fired, ["down", "exit of the sleeper", "exit of the watcher"]);
                echoes(&rust, &mut to_near, "near@127.0.0.1");
                assert!(hears(&far, "nodedown", "rust", THERE));
                assert_eq!(rust.node.nodes(NodeType::Connected), ["near@127.0.0.1"]);

                wire.heal();
                let since = Instant::now();
                match rust.run(events.next()) {
                    Some(Event::NodeUp { node, .. }) => assert_eq!(node.as_str(), "far@127.0.0.1"),
                    other => panic!("{other:?}"),
                }
                figures.back("one of two nodes out of reach", since.elapsed());
                assert!(hears(&far, "nodeup", "rust", WAIT));
                assert_eq!(to_far.mailbox_len(), 0, "nothing fires twice");
                echoes(&rust, &mut to_far, "far@127.0.0.1");
                // What far saw of us, each once; nothing of near.
                assert_eq!(seen(&far), "[{down,noconnection},{exit,noconnection}]");
                far.eval("watch ! forget, ok");
            }
            for (beam, other) in [(&near, "far"), (&far, "near")] {
                assert!(!hears(beam, "nodedown", other, Duration::ZERO), "{other} stays");
            }
            assert_eq!(seen(&near), "[]");
            assert_eq!(to_near.mailbox_len(), 0);
            assert_eq!(to_near.links().len(), 2);
            figures.done();
            Ok(())
        },
    );
}
