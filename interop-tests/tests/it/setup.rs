//! Connections that are set up under difficulties: from both sides at once, without an EPMD for a while, by nodes without a
//! name, by a command.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use foundation_interop_tests::capture::{Proxy, split};
use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::epmd::free_port;
use foundation_interop_tests::{Beam, Case, Epmd, beam, built, case, eventually::eventually_true};
use foundation_node::Node;
use foundation_node::config::{EpmdMode, NodeConfig, Reconnect};
use foundation_node::event::Event;
use foundation_node::net_kernel::NodeType;

use crate::rust::Rust;

const TOPIC: &str = "set-up";

/// Crossing attempts in each order of the two names.
const CROSSINGS: usize = 100;

#[test]
fn crossing_connects() {
    case(
        Case::Smoke,
        TOPIC,
        "connecting from both sides at once leaves one connection, 200 times",
        |release| {
            let epmd = Epmd::start(release);
            let beam = Beam::visible(release, &epmd, "m");
            // The greater name's attempt survives, so each side has to win.
            for name in ["a", "z"] {
                let rust = Rust::with(&epmd, name, |config| config.reconnect(Reconnect::Never));
                let connect = format!("net_kernel:connect_node('{name}@127.0.0.1')");
                let hidden = format!("['{name}@127.0.0.1']");
                for round in 0..CROSSINGS {
                    let (from_beam, from_rust) = std::thread::scope(|scope| {
                        let from_beam = scope.spawn(|| beam.eval(&connect));
                        let from_rust = from_rust_side(&rust);
                        (from_beam.join().unwrap(), from_rust)
                    });
                    assert_eq!((from_beam.as_str(), &from_rust), ("true", &Ok(())), "{name} {round}");
                    assert_eq!(beam.eval("nodes(hidden)"), hidden, "{name} {round}");
                    assert_eq!(rust.node.nodes(NodeType::Connected), ["m@127.0.0.1"], "{name} {round}");
                    if round % 2 == 0 {
                        rust.run(rust.node.disconnect("m@127.0.0.1"));
                    } else {
                        beam.eval(&format!("erlang:disconnect_node('{name}@127.0.0.1')"));
                    }
                    eventually_true("both are alone", Duration::from_secs(5), || {
                        rust.node.nodes(NodeType::Connected).is_empty() && beam.eval("nodes(hidden)") == "[]"
                    });
                }
            }
            Ok(())
        },
    );
}

fn from_rust_side(rust: &Rust) -> Result<(), String> {
    rust.run(rust.node.connect("m@127.0.0.1")).map(|_| ()).map_err(|error| error.to_string())
}

#[test]
fn an_epmd_that_comes_back() {
    case(
        Case::Full,
        TOPIC,
        "a killed EPMD costs no connection; back, it knows the Rust node within a second",
        |release| {
            let epmd = Epmd::start(release);
            let port = epmd.port;
            let rust = Rust::start(&epmd, "rust");
            let beam = Beam::visible(release, &epmd, "beam");
            assert_eq!(beam.eval("net_adm:ping('rust@127.0.0.1')"), "pong");
            drop(epmd);
            assert_eq!(beam.eval("net_adm:ping('rust@127.0.0.1')"), "pong");
            let epmd = Epmd::start_again(release, port);
            let back = Instant::now();
            epmd.wait_for("rust");
            println!("registered {:?} after the EPMD was back", back.elapsed());
            assert!(back.elapsed() < Duration::from_millis(1500), "{:?}", back.elapsed());
            assert_eq!(rust.node.nodes(NodeType::Connected), ["beam@127.0.0.1"]);
            Ok(())
        },
    );
}

#[test]
fn a_rust_node_that_serves_the_epmd_of_beams() {
    case(
        Case::Full,
        TOPIC,
        "BEAM nodes register with a Rust node's EPMD, and with its survivor's",
        |release| {
            let port = free_port();
            let mine = |name: &str| {
                Rust::on(port, name, |config| config.epmd(EpmdMode::Embedded).reconnect(Reconnect::Never))
            };
            let first = mine("first");
            let second = mine("second");
            let beam = beam::Options::new(release, port, "beam").start();
            assert_eq!(beam.eval("net_adm:ping('second@127.0.0.1')"), "pong");
            if release.number < 24 {
                return Err(Unsupported("its erl_epmd does not register again after an EPMD was lost"));
            }
            drop(first);
            let gone = Instant::now();
            let names = "(fun({ok, Names}) -> lists:sort([N || {N, _} <- Names]); (Error) -> Error end)(net_adm:names({127,0,0,1}))";
            // The BEAM itself tries only every 2 s.
            eventually_true("both are registered with the survivor", Duration::from_secs(10), || {
                beam.eval(names) == "[\"beam\",\"second\"]"
            });
            println!("all registered {:?} after the first EPMD was gone", gone.elapsed());
            drop(second);
            Ok(())
        },
    );
}

#[test]
fn a_node_without_a_name() {
    case(
        Case::Full,
        TOPIC,
        "a node started without a name (-name undefined) gets one from a Rust node",
        |release| {
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "rust");
            let mut events = rust.node.events();
            let output = Command::new(release.program("erl"))
                .args(["-noshell", "-name", "undefined@127.0.0.1", "-setcookie", beam::COOKIE, "-eval"])
                .arg(
                    "R = 'rust@127.0.0.1', true = net_kernel:connect_node(R), \
                 io:format(\"~w ~w ~w\", [net_adm:ping(R), is_alive(), node()]), halt().",
                )
                .env("ERL_EPMD_PORT", epmd.port.to_string())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let Some(Event::NodeUp { node, hidden, .. }) = rust.run(events.next()) else {
                panic!("no nodeup: {said}")
            };
            assert!(hidden && node.as_str().ends_with("@127.0.0.1"), "{node:?}");
            assert_eq!(said, format!("pong true '{}'", node.as_str()));
            Ok(())
        },
    );
}

#[test]
fn we_have_no_name() {
    case(
        Case::Full,
        TOPIC,
        "a Rust node without a name gets one from a BEAM node, and the two speak",
        |release| {
            let epmd = Epmd::start(release);
            let beam = Beam::visible(release, &epmd, "beam");
            let runtime = crate::runtime();
            let config = NodeConfig::new("undefined@127.0.0.1").cookie(beam::COOKIE).epmd_port(epmd.port);
            let node = runtime.block_on(Node::start_named_by(config, "beam@127.0.0.1")).unwrap();
            assert_eq!(beam.eval("nodes(hidden)"), format!("['{}']", node.name().as_str()));
            assert!(runtime.block_on(node.ping("beam@127.0.0.1")));
            assert_eq!(beam.eval("net_adm:ping(hd(nodes(hidden)))"), "pong");
            let epmd_names: Vec<String> = epmd.names().into_iter().map(|(name, _)| name).collect();
            assert_eq!(epmd_names, ["beam"], "it is not registered");
            runtime.block_on(node.stop());
            eventually_true("gone", Duration::from_secs(5), || beam.eval("nodes(hidden)") == "[]");
            Ok(())
        },
    );
}

#[test]
fn old_openers() {
    case(
        Case::Smoke,
        TOPIC,
        "a BEAM node that believes us to speak version 5 opens with `n` and completes it",
        |release| {
            if release.number > 24 {
                return Err(Unsupported("it opens with `N` whatever it was told"));
            }
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "rust");
            let (_, port) = epmd.names().into_iter().find(|(name, _)| name == "rust").expect("registered");
            let proxy = Proxy::start(port);
            let beam = beam::Options::new(release, epmd.port, "beam")
                .args(&format!("-epmd_module foundation_epmd_5 -foundation_peer_port {}", proxy.port))
                .start();
            assert_eq!(beam.eval("net_adm:ping('rust@127.0.0.1')"), "pong");
            assert_eq!(beam.eval("erpc:call('rust@127.0.0.1', erlang, node, [])"), "'rust@127.0.0.1'");
            let said = split(&proxy.streams()[0].initiator, 2);
            assert_eq!((said[0][0], said[1][0]), (b'n', b'c'), "version 5, then its complement");
            drop(rust);
            Ok(())
        },
    );
}

#[test]
fn without_epmd() {
    case(
        Case::Smoke,
        TOPIC,
        "without an EPMD, all nodes at one fixed port of their own addresses: both sides dial",
        |release| {
            let port = free_port();
            let rust = Rust::on(free_port(), "rust", |mut config| {
                config.erl_epmd_node_listen_port = Some(port);
                config.epmd(EpmdMode::None)
            });
            let beam = beam::Options::new(release, free_port(), "beam")
                .at("127.0.0.2")
                .interface("127.0.0.2")
                .args(&format!("-erl_epmd_port {port}"))
                .start();
            assert_eq!(beam.eval("net_adm:ping('rust@127.0.0.1')"), "pong");
            assert_eq!(beam.eval("erlang:disconnect_node('rust@127.0.0.1')"), "true");
            eventually_true("apart", Duration::from_secs(10), || rust.node.links().is_empty());
            let link = rust.run(rust.node.connect("beam@127.0.0.2")).unwrap();
            assert_eq!(link.peer().address, SocketAddr::from(([127, 0, 0, 2], port)));
            assert_eq!(beam.eval("nodes(hidden)"), "['rust@127.0.0.1']");
            Ok(())
        },
    );
}

#[test]
fn a_stopped_peer_is_noticed() {
    case(
        Case::Full,
        TOPIC,
        "a stopped BEAM node is given up after the tick time and is back when it goes on",
        |release| {
            let epmd = Epmd::start(release);
            let rust = Rust::with(&epmd, "rust", |config| config.net_ticktime(2));
            let beam = beam::Options::new(release, epmd.port, "beam").args("-kernel net_ticktime 2").start();
            rust.run(rust.node.connect("beam@127.0.0.1")).unwrap();
            let mut events = rust.node.events();
            beam.pause();
            let since = Instant::now();
            let event = rust.run(events.next());
            let took = since.elapsed();
            beam.resume();
            assert!(
                matches!(&event, Some(Event::NodeDown { reason, .. }) if reason.atom() == "net_tick_timeout"),
                "{event:?}"
            );
            assert!((Duration::from_millis(1400)..Duration::from_secs(4)).contains(&took), "{took:?}");
            assert!(matches!(rust.run(events.next()), Some(Event::NodeUp { .. })));
            assert_eq!(beam.eval("net_adm:ping('rust@127.0.0.1')"), "pong");
            Ok(())
        },
    );
}

/// The binary, built from the sources that are tested.
fn foundation(port: u16, arguments: &[&str]) -> Output {
    let mut command = Command::new(built::binary("foundation"));
    command.args(arguments).env("ERL_EPMD_PORT", port.to_string()).env("FOUNDATION_COOKIE", beam::COOKIE);
    command.output().unwrap()
}

#[test]
fn commands() {
    case(Case::Smoke, TOPIC, "the commands of `foundation` against a BEAM node", |release| {
        let epmd = Epmd::start(release);
        let beam = Beam::visible(release, &epmd, "beam");
        let target = "beam@127.0.0.1";
        let is = |arguments: &[&str], code: i32, out: &str| {
            let output = foundation(epmd.port, arguments);
            let said = String::from_utf8_lossy(&output.stdout);
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!((output.status.code(), &*said), (Some(code), out), "{arguments:?}: {error}");
            error
        };
        is(&["ping", target], 0, "pong\n");
        is(&["rpc", target, "lists:seq(1, 5)"], 0, "[1,2,3,4,5]\n");
        is(&["rpc", target, "lists", "seq", "1", "5"], 0, "[1,2,3,4,5]\n");
        is(&["rpc", target, "io:format(\"printed~n\")"], 0, "printed\nok\n");
        is(&["rpc", target, "maps:from_list([{a,1},{<<\"k\">>,[x]}])"], 0, "#{a => 1,<<\"k\">> => [x]}\n");
        let error = is(&["rpc", target, "erlang:error(boom)"], 1, "");
        assert!(error.starts_with("** exception error: boom\n"), "{error}");
        let error = is(&["rpc", target, "no:such(1, 2)"], 1, "");
        assert!(error.starts_with("** exception error: undefined function no:such/2\n"), "{error}");
        let error = is(&["rpc", target, "erlang:throw(x)"], 1, "");
        assert!(error.starts_with("** exception throw: x"), "{error}");
        let error = is(&["rpc", target, "erlang:exit(gone)"], 1, "");
        assert!(error.starts_with("** exception exit: gone"), "{error}");
        is(&["call", target, "net_kernel", "{is_auth, x}"], 0, "yes\n");
        is(&["nodes", target], 0, "[]\n");
        is(&["pid", target], 0, &format!("{}\n", beam.eval("list_to_integer(os:getpid())")));
        beam.eval("Me = self(), register(inbox, spawn(fun() -> receive Any -> Me ! {inbox, Any} end end))");
        is(&["send", target, "inbox", "{hello, [1,2]}"], 0, "");
        assert_eq!(beam.eval("receive {inbox, {hello, List}} -> List after 5000 -> nothing end"), "[1,2]");
        is(&["--timeout", "0.3", "rpc", target, "timer:sleep(5000)"], 75, "");
        let error = is(&["ping", "--setcookie", "wrong", target], 77, "pang\n");
        assert!(error.contains("another cookie"), "{error}");
        is(&["stop", target], 0, "");
        eventually_true("the node is gone", Duration::from_secs(10), || epmd.names().is_empty());
        Ok(())
    });
}
