//! What a node needs to be found and let in, changed under it: the EPMD, its port, its name, the cookie.

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use foundation_interop_tests::raw_peer::{Accepted, FLAGS, RawPeer};
use foundation_interop_tests::{Beam, Case, Epmd, beam, case, eventually::eventually_true};
use foundation_node::Node;
use foundation_node::config::{EpmdMode, NodeConfig, Reconnect};
use foundation_node::event::Event;
use foundation_node::net_kernel::NodeType;

use super::TOPIC;
use super::figures::Figures;
use crate::rust::Rust;

#[test]
fn an_epmd_restarted_and_its_port_taken() {
    case(
        Case::Full,
        TOPIC,
        "an EPMD restarted 5 times, in between its port taken by another program: registered within a second each time",
        |release| {
            let figures = Figures::of(release);
            let epmd = Epmd::start(release);
            let port = epmd.port;
            let rust = Rust::start(&epmd, "rust");
            let beam = Beam::visible(release, &epmd, "beam");
            assert_eq!(beam.eval("net_adm:ping('rust@127.0.0.1')"), "pong");
            let tasks = rust.tasks();
            drop(epmd);
            for round in 0..5 * figures.rounds().end {
                if round % 2 == 1 {
                    // It accepts and says nothing, then it is gone.
                    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
                    let _asker = other.accept().unwrap();
                    assert_eq!(beam.eval("net_adm:ping('rust@127.0.0.1')"), "pong");
                }
                let epmd = Epmd::start_again(release, port);
                let back = Instant::now();
                epmd.wait_for("rust");
                figures.timed("EPMD restarted", "registered again", Some(1.0), back.elapsed());
            }
            figures.done();
            assert_eq!(rust.node.nodes(NodeType::Connected), ["beam@127.0.0.1"]);
            eventually_true("no task is left behind", Duration::from_secs(10), || rust.tasks() <= tasks);

            // Another program where the EPMD should be: the node does not start, and says why.
            let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let taken = other.local_addr().unwrap().port();
            std::thread::spawn(move || {
                use std::io::Write;
                for mut socket in other.incoming().flatten() {
                    let _ = socket.write_all(b"220 mail.example.com ESMTP\r\n");
                }
            });
            for mode in [EpmdMode::Auto, EpmdMode::Embedded, EpmdMode::Require] {
                let config =
                    NodeConfig::new("other@127.0.0.1").cookie(beam::COOKIE).epmd_port(taken).epmd(mode);
                let error = rust.run(Node::start(config)).unwrap_err().to_string();
                assert!(error.contains(&taken.to_string()), "{mode:?}: {error}");
            }
            Ok(())
        },
    );
}

#[test]
fn a_name_clash() {
    case(
        Case::Full,
        TOPIC,
        "a name that is taken: the younger node does not start and says so, the older one notices nothing",
        |release| {
            let epmd = Epmd::start(release);
            let beam = Beam::visible(release, &epmd, "twin");
            let witness = Rust::start(&epmd, "witness");
            witness.run(witness.node.connect("twin@127.0.0.1")).unwrap();
            let mut events = witness.node.events();
            let config = NodeConfig::new("twin@127.0.0.1").cookie(beam::COOKIE).epmd_port(epmd.port);
            let error = witness.run(Node::start(config)).unwrap_err().to_string();
            assert!(error.contains("the name twin seems to be in use"), "{error}");

            // Under another EPMD nobody stops it. Its peers say `alive`, and keep the one that they have.
            let mut younger = RawPeer::connect(epmd.wait_for("witness"), "twin@127.0.0.1");
            let answer = younger.handshake(FLAGS, beam::COOKIE);
            assert_eq!(answer, Accepted::Status("alive".to_owned()));
            drop(younger);
            assert_eq!(witness.node.nodes(NodeType::Connected), ["twin@127.0.0.1"]);

            // The other way round: a BEAM with the name of a Rust node.
            let output = std::process::Command::new(release.program("erl"))
                .args(["-noinput", "-name", "witness@127.0.0.1", "-setcookie", beam::COOKIE])
                .args(["-start_epmd", "false", "-eval", "halt(0)."])
                .env("ERL_EPMD_PORT", epmd.port.to_string())
                .env("ERL_CRASH_DUMP_BYTES", "0")
                .output()
                .unwrap();
            assert!(!output.status.success());
            assert_eq!(beam.eval("net_adm:ping('witness@127.0.0.1')"), "pong");
            assert!(
                witness
                    .run(async { tokio::time::timeout(Duration::from_millis(50), events.next()).await })
                    .is_err(),
                "no nodedown"
            );
            Ok(())
        },
    );
}

#[test]
fn a_cookie_changed_at_run_time() {
    case(
        Case::Full,
        TOPIC,
        "a cookie changed at run time: connections stay, new ones need the new cookie, on either side; also for one peer only",
        |release| {
            let epmd = Epmd::start(release);
            let rust = Rust::with(&epmd, "rust", |config| config.reconnect(Reconnect::Never));
            let beam = Beam::visible(release, &epmd, "beam");
            rust.run(rust.node.connect("beam@127.0.0.1")).unwrap();
            let mut events = rust.node.events();
            let again = |expected: bool, what: &str| {
                rust.run(rust.node.disconnect("beam@127.0.0.1"));
                eventually_true("both are alone", Duration::from_secs(5), || {
                    beam.eval("nodes(hidden)") == "[]"
                });
                let ours = rust.run(rust.node.connect("beam@127.0.0.1")).map(|_| ());
                assert_eq!(ours.is_ok(), expected, "{what}: {ours:?}");
                if let Err(error) = ours {
                    let error = error.to_string();
                    assert!(
                        error.contains("cookie") && !error.contains("n3w") && !error.contains(beam::COOKIE)
                    );
                }
                let theirs = beam.eval("net_adm:ping('rust@127.0.0.1')");
                assert_eq!(theirs, if expected { "pong" } else { "pang" }, "{what}");
            };

            rust.node.set_cookie("n3w").unwrap();
            assert_eq!(beam.eval("net_adm:ping('rust@127.0.0.1')"), "pong", "the connection stays");
            assert!(
                rust.run(async { tokio::time::timeout(Duration::from_millis(50), events.next()).await })
                    .is_err(),
                "no nodedown"
            );
            again(false, "only we have changed it");
            beam.eval("erlang:set_cookie(node(), n3w)");
            again(true, "both have");
            rust.node.set_cookie_of("beam@127.0.0.1", "special").unwrap();
            again(false, "for this peer only we have");
            beam.eval("erlang:set_cookie('rust@127.0.0.1', special)");
            again(true, "for this peer, both");
            assert!(rust.node.set_cookie("").is_err());
            again(true, "a refused one changes nothing");
            assert!(matches!(rust.run(events.next()), Some(Event::NodeDown { .. })));
            Ok(())
        },
    );
}
