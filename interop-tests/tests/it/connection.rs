//! Nodes meet, part and meet again.

use std::time::{Duration, Instant};

use foundation_interop_tests::{Beam, Case, Epmd, beam, case, eventually::eventually_true, otp};
use foundation_node::Node;
use foundation_node::config::{NodeConfig, Reconnect};
use foundation_node::event::Event;
use foundation_node::net_kernel::NodeType;
use foundation_proto::etf::Term;

use crate::rust::{Rust, WAIT, next_term};
use crate::soak::count_or;

const TOPIC: &str = "connection";

#[test]
fn a_beam_pings_us() {
    case(Case::Smoke, TOPIC, "a BEAM node pings a Rust node and sees it as hidden", |release| {
        let epmd = Epmd::start(release);
        let rust = Rust::start(&epmd, "rust");
        let beam = Beam::visible(release, &epmd, "beam");
        assert_eq!(beam.eval("net_adm:ping('rust@127.0.0.1')"), "pong");
        assert_eq!(beam.eval("{nodes(), nodes(hidden)}"), "{[],['rust@127.0.0.1']}");
        assert_eq!(rust.node.nodes(NodeType::Hidden), ["beam@127.0.0.1"]);
        // Registered under the same EPMD, so its tools list it.
        assert_eq!(
            beam.eval("lists:sort([N || {N, _} <- element(2, net_adm:names({127,0,0,1}))])"),
            "[\"beam\",\"rust\"]"
        );
        Ok(())
    });
}

#[test]
fn we_connect() {
    case(Case::Smoke, TOPIC, "a Rust node connects; both sides hear of it", |release| {
        let epmd = Epmd::start(release);
        let rust = Rust::start(&epmd, "rust");
        let beam = Beam::visible(release, &epmd, "beam");
        beam.eval("net_kernel:monitor_nodes(true, [{node_type, all}])");
        let mut events = rust.node.events();
        let link = rust.run(rust.node.connect("beam@127.0.0.1")).unwrap();
        assert_eq!(link.peer().name, "beam@127.0.0.1");
        let creation: u32 = beam.eval("erlang:system_info(creation)").parse().unwrap();
        assert_eq!(link.peer().creation, creation);
        match rust.run(events.next()) {
            Some(Event::NodeUp { node, hidden, creation: up, .. }) => {
                assert_eq!((node.as_str(), hidden, up), ("beam@127.0.0.1", true, creation));
            }
            other => panic!("{other:?}"),
        }
        let up = "receive {nodeup, 'rust@127.0.0.1', _} -> up after 5000 -> nothing end";
        assert_eq!(beam.eval(up), "up");

        assert!(rust.run(rust.node.disconnect("beam@127.0.0.1")));
        let down = "receive {nodedown, 'rust@127.0.0.1', _} -> down after 5000 -> nothing end";
        assert_eq!(beam.eval(down), "down");
        match rust.run(events.next()) {
            Some(Event::NodeDown { node, reason, .. }) => {
                assert_eq!((node.as_str(), reason.atom().as_str()), ("beam@127.0.0.1", "disconnect"));
            }
            other => panic!("{other:?}"),
        }
        assert!(rust.node.nodes(NodeType::Connected).is_empty());
        Ok(())
    });
}

#[test]
fn a_wrong_cookie_is_refused() {
    case(
        Case::Smoke,
        TOPIC,
        "a wrong cookie is refused in both directions, and nobody else notices",
        |release| {
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "rust");
            let good = Beam::visible(release, &epmd, "good");
            let bad = beam::Options::new(release, epmd.port, "bad").cookie("xyzzy").start();
            assert_eq!(good.eval("net_adm:ping('rust@127.0.0.1')"), "pong");
            assert_eq!(bad.eval("net_adm:ping('rust@127.0.0.1')"), "pang");
            let error = rust.run(rust.node.connect("bad@127.0.0.1")).unwrap_err().to_string();
            assert!(error.contains("cookie"), "{error}");
            assert!(!error.contains("secret") && !error.contains("xyzzy"), "no cookie in an error: {error}");
            assert_eq!(rust.node.nodes(NodeType::Connected), ["good@127.0.0.1"]);
            assert_eq!(good.eval("net_adm:ping('rust@127.0.0.1')"), "pong");
            Ok(())
        },
    );
}

#[test]
fn a_cookie_for_each_peer() {
    case(
        Case::Full,
        TOPIC,
        "peers with different cookies: one of them by its own cookie, both sides dialling",
        |release| {
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "rust");
            let usual = Beam::visible(release, &epmd, "usual");
            let other = beam::Options::new(release, epmd.port, "other").cookie("xyzzy").start();
            rust.node.set_cookie_of("other@127.0.0.1", "xyzzy").unwrap();
            assert_eq!(usual.eval("net_adm:ping('rust@127.0.0.1')"), "pong");
            assert_eq!(other.eval("net_adm:ping('rust@127.0.0.1')"), "pong");
            assert_eq!(rust.node.nodes(NodeType::Connected).len(), 2);
            rust.run(rust.node.disconnect("other@127.0.0.1"));
            eventually_true("apart", WAIT, || other.eval("nodes(hidden)") == "[]");
            rust.run(rust.node.connect("other@127.0.0.1")).unwrap();
            assert_eq!(other.eval("nodes(hidden)"), "['rust@127.0.0.1']");
            // And the other way round: OTP's set_cookie/2 for us.
            rust.node.set_cookie_of("usual@127.0.0.1", "abc").unwrap();
            rust.run(rust.node.disconnect("usual@127.0.0.1"));
            eventually_true("apart", WAIT, || usual.eval("nodes(hidden)") == "[]");
            assert_eq!(usual.eval("net_adm:ping('rust@127.0.0.1')"), "pang");
            usual.eval("erlang:set_cookie('rust@127.0.0.1', abc)");
            assert_eq!(usual.eval("net_adm:ping('rust@127.0.0.1')"), "pong");
            Ok(())
        },
    );
}

#[test]
fn back_in_touch_after_a_restart() {
    case(
        Case::Smoke,
        TOPIC,
        "a Rust node is back in touch with a killed and restarted BEAM node by itself",
        |release| {
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "rust");
            let beam = Beam::visible(release, &epmd, "beam");
            let first = rust.run(rust.node.connect("beam@127.0.0.1")).unwrap().peer().creation;
            let mut events = rust.node.events();
            beam.kill();
            match rust.run(events.next()) {
                Some(Event::NodeDown { reason, .. }) => assert_eq!(reason.atom(), "connection_closed"),
                other => panic!("{other:?}"),
            }
            let beam = beam.restart();
            let ready = Instant::now();
            match rust.run(events.next()) {
                Some(Event::NodeUp { creation, .. }) => assert_ne!(creation, first, "a new incarnation"),
                other => panic!("{other:?}"),
            }
            println!("back in touch {:?} after the node was up", ready.elapsed());
            eventually_true("both sides agree", Duration::from_secs(5), || {
                beam.eval("nodes(hidden)") == "['rust@127.0.0.1']"
            });
            Ok(())
        },
    );
}

#[test]
fn a_name_in_use_is_refused() {
    case(Case::Full, TOPIC, "a name that is in use is refused in words", |release| {
        let epmd = Epmd::start(release);
        let beam = Beam::visible(release, &epmd, "taken");
        let runtime = crate::runtime();
        let config = NodeConfig::new("taken@127.0.0.1").cookie(beam::COOKIE).epmd_port(epmd.port);
        let error = runtime.block_on(Node::start(config)).expect_err("refused").to_string();
        assert!(error.contains("taken"), "{error}");
        assert_eq!(beam.eval("node()"), "'taken@127.0.0.1'");
        Ok(())
    });
}
/// With `FOUNDATION_SOAK_CONNECTS`, so many rounds on each release.
#[test]
fn simultaneous_connects() {
    case(
        Case::Smoke,
        TOPIC,
        "connects from both sides at once leave exactly one connection, 100 times",
        |release| {
            let epmd = Epmd::start(release);
            // One name on each side of the peer's: who gives way is decided by the order of the names.
            for name in ["aaa", "zzz"] {
                let rust = Rust::start(&epmd, name);
                let beam = Beam::visible(release, &epmd, &format!("m{name}"));
                let rust_name = format!("{name}@127.0.0.1");
                beam.eval(&format!(
                "Main = self(), \
                 Dial = fun() -> spawn(fun() -> Main ! {{dialled, net_kernel:connect_node('{rust_name}')}} end), ok end, \
                 Dialled = fun() -> receive {{dialled, R}} -> R after 9000 -> timeout end end"
            ));
                for round in 0..count_or("CONNECTS", 100).div_ceil(2) {
                    beam.eval("Dial()");
                    rust.run(rust.node.connect(beam.name()))
                        .unwrap_or_else(|error| panic!("round {round} of {name}: {error}"));
                    assert_eq!(beam.eval("Dialled()"), "true", "round {round} of {name}");
                    assert_eq!(beam.eval("nodes(hidden)"), format!("['{rust_name}']"), "round {round}");
                    rust.run(rust.node.disconnect(beam.name()));
                    eventually_true("the BEAM has noticed", Duration::from_secs(5), || {
                        beam.eval("nodes(hidden)") == "[]"
                    });
                }
            }
            Ok(())
        },
    );
}

/// The same between two Rust nodes.
#[test]
fn simultaneous_connects_of_rust_nodes() {
    let epmd = Epmd::start(otp::installed());
    let [a, b] =
        ["aaa", "zzz"].map(|name| Rust::with(&epmd, name, |config| config.reconnect(Reconnect::Never)));
    let alone = |rust: &Rust| rust.node.nodes(NodeType::Connected).is_empty();
    for round in 0..count_or("CONNECTS", 100) {
        std::thread::scope(|scope| {
            scope.spawn(|| a.run(a.node.connect("zzz@127.0.0.1")).unwrap());
            scope.spawn(|| b.run(b.node.connect("aaa@127.0.0.1")).unwrap());
        });
        eventually_true("each has one link", WAIT, || {
            a.node.nodes(NodeType::Connected) == ["zzz@127.0.0.1"]
                && b.node.nodes(NodeType::Connected) == ["aaa@127.0.0.1"]
        });
        let mut inbox = b.node.mailbox("inbox").unwrap();
        let message = Term::from(round as i64);
        let sender = a.node.process().unwrap();
        a.run(sender.send_term(("inbox", "zzz@127.0.0.1"), &message)).unwrap();
        assert_eq!(b.run(next_term(&mut inbox)), message);
        a.run(a.node.disconnect("zzz@127.0.0.1"));
        eventually_true("both are alone", WAIT, || alone(&a) && alone(&b));
    }
}
