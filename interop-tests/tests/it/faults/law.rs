//! What must hold although the network is slow, cuts bytes anywhere, or a node's own time jumps.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use foundation_interop_tests::{
    Beam, Case, Epmd, Wire, beam, built, case, epmd, eventually::eventually_true,
};
use foundation_node::config::Reconnect;
use foundation_node::event::Event;
use foundation_node::process::Message;
use foundation_proto::etf::{Pid, Term};

use super::figures::Figures;
use super::{TICKTIME, TOPIC};
use crate::rust::{Rust, WAIT, next_term, term};

/// Messages of each pair of processes.
const MESSAGES: u32 = 3_000;

#[test]
fn a_slow_network_that_splits_anywhere() {
    case(
        Case::Full,
        TOPIC,
        "40 to 120 ms of latency, each connection another, bytes in pieces of 7: every pair keeps its order, the DOWN comes last, no false nodedown",
        |release| {
            let epmd = Epmd::start(release);
            let wire = Wire::new(&epmd);
            wire.delay(Duration::from_millis(40), Duration::from_millis(80));
            wire.pieces(7);
            let rust = Rust::on(wire.a(), "rust", |config| {
                config.net_ticktime(TICKTIME).reconnect(Reconnect::Never)
            });
            let beams: Vec<Beam> = ["one", "two"]
                .map(|name| {
                    beam::Options::new(release, wire.b(), name)
                        .args(&format!("-kernel net_ticktime {TICKTIME}"))
                        .start()
                })
                .into();
            let mut inbox = rust.node.mailbox("inbox").unwrap();
            let mut results = rust.node.mailbox("results").unwrap();
            let mut events = rust.node.events();
            for beam in &beams {
                rust.run(rust.node.connect(beam.name())).unwrap();
                assert!(matches!(rust.run(events.next()), Some(Event::NodeUp { .. })));
                // Counts what comes in order, and says how many there were when its sender is gone.
                beam.eval(&format!(
                    "Count = fun Count(N) -> receive {{n, N}} -> Count(N + 1); \
                         {{watch, P}} -> monitor(process, P), P ! {{watched, self()}}, Count(0); \
                         {{'DOWN', _, process, _, Why}} -> {{results, 'rust@127.0.0.1'}} ! {{counted, N, Why}}; \
                         Other -> {{results, 'rust@127.0.0.1'}} ! {{wrong, N, Other}} end end, \
                     register(count, spawn(fun() -> Count(0) end)), \
                     Send = spawn(fun() -> receive {{go, To}} -> [To ! {{n, I}} || I <- lists:seq(0, {})], exit(done) end end), \
                     {{inbox, 'rust@127.0.0.1'}} ! Send, ok",
                    MESSAGES - 1
                ));
                let sender: Pid = rust.run(next_term(&mut inbox)).as_pid().cloned().unwrap();
                let mut receiver = rust.node.process().unwrap();
                let mut worker = rust.node.process().unwrap();
                let to = beam.name().to_owned();
                rust.run(async {
                    // From us to it.
                    let watch = Term::from((Term::atom("watch"), Term::from(worker.pid())));
                    worker.send_term(("count", to.as_str()), &watch).await.unwrap();
                    next_term(&mut worker).await;
                    for n in 0..MESSAGES {
                        let message = Term::from((Term::atom("n"), i64::from(n)));
                        worker.send_term(("count", to.as_str()), &message).await.unwrap();
                    }
                    worker.stop(term("done"));
                    // From it to us.
                    receiver.monitor(&sender).await.unwrap();
                    let go = Term::from((Term::atom("go"), Term::from(receiver.pid())));
                    receiver.send_term(&sender, &go).await.unwrap();
                    for n in 0..MESSAGES {
                        let expected = Term::from((Term::atom("n"), i64::from(n)));
                        assert_eq!(next_term(&mut receiver).await, expected);
                    }
                    match receiver.recv().await.unwrap() {
                        Message::Down(_) => {}
                        other => panic!("{other:?}"),
                    }
                });
            }
            let counted = term(&format!("{{counted, {MESSAGES}, done}}"));
            for _ in &beams {
                assert_eq!(rust.run(next_term(&mut results)), counted);
            }
            // Longer than the tick time, with nothing but ticks.
            let quiet = rust.run(async {
                let ticks = Duration::from_secs(u64::from(TICKTIME) * 3 / 2);
                tokio::time::timeout(ticks, events.next()).await
            });
            assert!(quiet.is_err(), "a false nodedown: {quiet:?}");
            Ok(())
        },
    );
}

#[test]
fn a_clock_that_jumps() {
    case(
        Case::Full,
        TOPIC,
        "a Rust node whose process stands still (its clock jumps): unnoticed below the tick time; beyond it given up, and back in a second",
        |release| {
            let figures = Figures::of(release);
            let epmd = Epmd::start(release);
            let beam = beam::Options::new(release, epmd.port, "beam")
                .args(&format!("-kernel net_ticktime {TICKTIME}"))
                .start();
            let mut node = Command::new(built::binary("foundation"))
                .args(["start", "--name", "still@127.0.0.1", "--kernel", "net_ticktime"])
                .arg(TICKTIME.to_string())
                .env("FOUNDATION_COOKIE", beam::COOKIE)
                .env("ERL_EPMD_PORT", epmd.port.to_string())
                .env("FOUNDATION_LOG", "error")
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            BufReader::new(node.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
            let pid = node.id();
            assert_eq!(beam.eval("net_adm:ping('still@127.0.0.1')"), "pong");
            beam.eval("net_kernel:monitor_nodes(true, [{node_type, all}])");
            let hears = |what: &str, within: Duration| {
                beam.eval(&format!(
                    "(fun() -> receive {{{what}, 'still@127.0.0.1', _}} -> yes after {} -> no end end)()",
                    within.as_millis()
                )) == "yes"
            };
            let tick = Duration::from_secs(TICKTIME.into());
            beam::signal("STOP", pid);
            std::thread::sleep(tick / 2);
            beam::signal("CONT", pid);
            assert!(!hears("nodedown", tick / 2), "half a tick time is nothing");

            for _ in figures.rounds() {
                beam::signal("STOP", pid);
                assert!(hears("nodedown", tick * 3));
                beam::signal("CONT", pid);
                let since = Instant::now();
                assert!(hears("nodeup", WAIT / 2));
                figures.back("we were stopped (SIGSTOP)", since.elapsed());
                assert_eq!(beam.eval("net_adm:ping('still@127.0.0.1')"), "pong");
            }
            figures.done();
            let _ = node.kill();
            let _ = node.wait();
            eventually_true("its name is free", Duration::from_secs(5), || {
                epmd::names(epmd.port).is_some_and(|names| names.len() == 1)
            });
            Ok(())
        },
    );
}

/// No time-out, tick or back-off reads the wall clock, so a jump of it changes nothing. What is left of it (the start value of
/// creations, log lines, what `erlang:system_time` tells) is elsewhere.
#[test]
fn the_wall_clock_is_not_used() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let mut files =
        vec![format!("{root}/node/src/net_kernel.rs"), format!("{root}/node/src/epmd/registration.rs")];
    for directory in ["node/src/net", "node/src/process", "crates/proto/src/dist"] {
        for entry in std::fs::read_dir(format!("{root}/{directory}")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension() == Some("rs".as_ref()) {
                files.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    assert!(files.len() > 20, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(!text.contains("SystemTime"), "{file} reads the wall clock");
    }
}
