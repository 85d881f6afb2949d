//! Links, monitors and exit signals, both ways.

use foundation_interop_tests::{Beam, Case, Epmd, case};
use foundation_node::process::{Message, Process, Reason};
use foundation_proto::Limits;
use foundation_proto::etf::{Atom, Pid, Term};

use crate::rust::{Rust, next, next_term, shown, term};

const TOPIC: &str = "links, monitors, exits";

/// A BEAM process that sleeps until it is told to exit with a reason; its pid.
async fn sleeper(inbox: &mut Process, beam: &Beam) -> Pid {
    beam.eval(
        "{inbox, 'rust@127.0.0.1'} ! spawn(fun() -> receive {exit, Reason} -> exit(Reason) end end), ok",
    );
    next_term(inbox).await.as_pid().cloned().expect("a pid")
}

async fn exit_of(process: &mut Process) -> (Pid, String) {
    match process.recv().await.expect("alive") {
        Message::Exit(exit) => (exit.from, shown(&exit.reason.to_term(&Limits::default()).unwrap())),
        other => panic!("{other:?}"),
    }
}

async fn down_of(process: &mut Process) -> String {
    match process.recv().await.expect("alive") {
        Message::Down(down) => shown(&down.reason.to_term(&Limits::default()).unwrap()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn we_link_to_the_beam() {
    case(
        Case::Smoke,
        TOPIC,
        "a Rust process links to BEAM processes: exits, unlink, its own end",
        |release| {
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "rust");
            let beam = Beam::visible(release, &epmd, "beam");
            let mut inbox = rust.node.mailbox("inbox").unwrap();
            inbox.trap_exit(true);
            rust.run(async {
            let pid = sleeper(&mut inbox, &beam).await;
            inbox.link(&pid).await;
            inbox.send_term(&pid, &term("{exit, {shutdown, done}}")).await.unwrap();
            assert_eq!(exit_of(&mut inbox).await, (pid, "{shutdown,done}".into()));

            // After unlink nothing comes.
            let pid = sleeper(&mut inbox, &beam).await;
            inbox.link(&pid).await;
            inbox.unlink(&pid);
            inbox.send_term(&pid, &term("{exit, unheard}")).await.unwrap();
            beam.eval("timer:sleep(50), {inbox, 'rust@127.0.0.1'} ! marker, ok");
            assert_eq!(next(&mut inbox).await, "marker");

            // A link to nobody.
            let nobody = Pid { id: pid.id + 3000, ..pid };
            inbox.link(&nobody).await;
            assert_eq!(exit_of(&mut inbox).await, (nobody, "noproc".into()));

            // Our process ends: the BEAM process that traps exits hears why.
            let worker = rust.node.process().unwrap();
            inbox.send_term(("test", "beam@127.0.0.1"), &Term::from((Term::atom("worker"), worker.pid()))).await.unwrap();
            beam.eval("Worker = receive {worker, P} -> P after 5000 -> exit(nothing) end, process_flag(trap_exit, true), link(Worker)");
            // A ping, so that the link has arrived before the process ends.
            assert_eq!(beam.eval("net_adm:ping('rust@127.0.0.1')"), "pong");
            worker.stop(Reason::from(term("{our, [reason]}")));
            assert_eq!(
                beam.eval("receive {'EXIT', Worker, Why} -> Why after 5000 -> nothing end"),
                "{our,[reason]}"
            );
        });
            Ok(())
        },
    );
}

#[test]
fn exit_signals() {
    case(Case::Smoke, TOPIC, "exit/2 with kill, normal and other reasons, both ways", |release| {
        let epmd = Epmd::start(release);
        let rust = Rust::start(&epmd, "rust");
        let beam = Beam::visible(release, &epmd, "beam");
        let mut inbox = rust.node.mailbox("inbox").unwrap();
        rust.run(async {
            for (reason, expected) in
                [("stop", "stop"), ("kill", "killed"), ("{any, <<\"term\">>}", "{any,<<\"term\">>}")]
            {
                let pid = sleeper(&mut inbox, &beam).await;
                let monitor = inbox.monitor(&pid).await.unwrap();
                inbox.exit(&pid, Reason::from(term(reason))).await;
                match inbox.recv().await.unwrap() {
                    Message::Down(down) => {
                        assert_eq!(down.reference, monitor);
                        assert_eq!(shown(&down.reason.to_term(&Limits::default()).unwrap()), expected);
                    }
                    other => panic!("{other:?}"),
                }
            }

            // `normal` from elsewhere does nothing to a process that does not trap exits.
            let pid = sleeper(&mut inbox, &beam).await;
            inbox.exit(&pid, Reason::NORMAL).await;
            inbox.monitor(&pid).await.unwrap();
            inbox.send_term(&pid, &term("{exit, later}")).await.unwrap();
            assert_eq!(down_of(&mut inbox).await, "later");

            beam.eval(
                "Watch = fun(P, Reason) -> M = monitor(process, P), exit(P, Reason), \
                       receive {'DOWN', M, process, P, Why} -> Why after 5000 -> nothing end end",
            );
            for (index, (reason, expected)) in [("stop", "stop"), ("kill", "killed")].into_iter().enumerate()
            {
                let victim = rust.node.process().unwrap();
                let victim_pid = Term::from((Term::atom("victim"), victim.pid()));
                inbox.send_term(("test", "beam@127.0.0.1"), &victim_pid).await.unwrap();
                beam.eval(&format!(
                    "V{index} = receive {{victim, P{index}}} -> P{index} after 5000 -> exit(nothing) end"
                ));
                assert_eq!(beam.eval(&format!("Watch(V{index}, {reason})")), expected);
                assert!(victim.exit_reason().is_some_and(|why| why.is(expected)));
            }
        });
        Ok(())
    });
}

#[test]
fn monitors() {
    case(Case::Smoke, TOPIC, "monitors of pids and names, noproc, demonitor, both ways", |release| {
        let epmd = Epmd::start(release);
        let rust = Rust::start(&epmd, "rust");
        let beam = Beam::visible(release, &epmd, "beam");
        let mut inbox = rust.node.mailbox("inbox").unwrap();
        rust.run(async {
            // Of a name.
            beam.eval("register(named, spawn(fun() -> receive {exit, R} -> exit(R) end end))");
            inbox.monitor(("named", "beam@127.0.0.1")).await.unwrap();
            inbox.send_term(("named", "beam@127.0.0.1"), &term("{exit, gone}")).await.unwrap();
            assert_eq!(down_of(&mut inbox).await, "gone");
            inbox.monitor(("named", "beam@127.0.0.1")).await.unwrap();
            assert_eq!(down_of(&mut inbox).await, "noproc");

            // After demonitor nothing comes.
            let pid = sleeper(&mut inbox, &beam).await;
            let monitor = inbox.monitor(&pid).await.unwrap();
            assert!(inbox.demonitor(&monitor));
            inbox.send_term(&pid, &term("{exit, unheard}")).await.unwrap();
            beam.eval("timer:sleep(50), {inbox, 'rust@127.0.0.1'} ! marker, ok");
            assert_eq!(next(&mut inbox).await, "marker");
        });

        // The BEAM watches ours.
        let down =
            "receive {'DOWN', _, process, Object, Reason} -> {Object, Reason} after 5000 -> nothing end";
        assert_eq!(
            beam.eval(&format!(
                "Down = fun() -> {down} end, monitor(process, {{nobody, 'rust@127.0.0.1'}}), Down()"
            )),
            "{{nobody,'rust@127.0.0.1'},noproc}"
        );
        let worker = rust.node.mailbox("worker").unwrap();
        beam.eval("monitor(process, {worker, 'rust@127.0.0.1'})");
        beam.eval("Away = monitor(process, {worker, 'rust@127.0.0.1'}), demonitor(Away)");
        // A call, so that the monitor has arrived before the process ends.
        assert_eq!(beam.eval("net_adm:ping('rust@127.0.0.1')"), "pong");
        worker.stop(Reason::from(Atom::new_static("finished")));
        assert_eq!(beam.eval("Down()"), "{{worker,'rust@127.0.0.1'},finished}");
        assert_eq!(
            beam.eval("receive {'DOWN', Away, _, _, _} -> unexpected after 100 -> quiet end"),
            "quiet"
        );
        Ok(())
    });
}

#[test]
fn noconnection() {
    case(
        Case::Smoke,
        TOPIC,
        "a lost connection fires every link and monitor once with noconnection, on both sides",
        |release| {
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "rust");
            let beam = Beam::visible(release, &epmd, "beam");
            let mut inbox = rust.node.mailbox("inbox").unwrap();
            inbox.trap_exit(true);
            rust.run(async {
                let pid = sleeper(&mut inbox, &beam).await;
                inbox.link(&pid).await;
                inbox.monitor(&pid).await.unwrap();
                inbox.monitor(("test", "beam@127.0.0.1")).await.unwrap();
                inbox
                    .send_term(("test", "beam@127.0.0.1"), &Term::from((Term::atom("inbox"), inbox.pid())))
                    .await
                    .unwrap();
            });
            beam.eval("Inbox = receive {inbox, P} -> P after 5000 -> exit(nothing) end, process_flag(trap_exit, true), \
                   link(Inbox), monitor(process, Inbox), monitor(process, {inbox, 'rust@127.0.0.1'})");
            assert_eq!(beam.eval("net_adm:ping('rust@127.0.0.1')"), "pong");
            rust.run(async {
                rust.node.disconnect("beam@127.0.0.1").await;
                let mut reasons = Vec::new();
                // The link that this side made, the one that the BEAM made, and two monitors.
                for _ in 0..4 {
                    reasons.push(match inbox.recv().await.unwrap() {
                        Message::Exit(exit) => ("EXIT", exit.reason.is("noconnection")),
                        Message::Down(down) => ("DOWN", down.reason.is("noconnection")),
                        other => panic!("{other:?}"),
                    });
                }
                reasons.sort_unstable();
                assert_eq!(reasons, [("DOWN", true), ("DOWN", true), ("EXIT", true), ("EXIT", true)]);
            });
            let all = "Collect = fun Collect(Acc) -> receive \
                     {'EXIT', _, R} -> Collect([{exit, R} | Acc]); {'DOWN', _, _, _, R} -> Collect([{down, R} | Acc]) \
                   after 300 -> lists:sort(Acc) end end, Collect([])";
            assert_eq!(beam.eval(all), "[{down,noconnection},{down,noconnection},{exit,noconnection}]");
            assert_eq!(inbox.mailbox_len(), 0, "nothing fires twice");
            Ok(())
        },
    );
}
