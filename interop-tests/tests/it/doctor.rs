//! `foundation doctor` and `foundation discover` beside real nodes, and beside what only looks like one.

use std::io::{Read, Write};
use std::net::TcpListener;

use foundation_interop_tests::{Beam, Case, Epmd, beam, case, epmd};

use crate::cli::{Outcome, foundation};

const TOPIC: &str = "command line";

fn run(epmd_port: u16, cookie: &str, arguments: &[&str]) -> Outcome {
    let out = foundation(epmd_port, cookie, arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome { code: out.status.code(), out: text(out.stdout), err: text(out.stderr) }
}

/// That the step ended so, and said this.
#[track_caller]
fn step(outcome: &Outcome, state: &str, step: &str, word: &str) {
    let mut lines = outcome.out.lines();
    let found = lines.any(|line| line.starts_with(&format!("{state:8} {step:10} ")));
    assert!(
        found && outcome.out.contains(word),
        "{state} {step} {word:?} in\n{}{}",
        outcome.out,
        outcome.err
    );
}

/// A program that listens, and answers whoever connects with this.
fn listener(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            std::thread::spawn(move || {
                let mut received = [0; 512];
                if socket.read(&mut received).is_ok_and(|length| length > 0) {
                    let _ = socket.write_all(answer);
                }
            });
        }
    });
    port
}

#[test]
fn says_what_is_wrong_between_two_nodes() {
    case(
        Case::Full,
        TOPIC,
        "doctor: cookie, name forms, EPMD, registration, port, status, and what is no node, each named with its remedy",
        |release| {
            let epmd = Epmd::start(release);
            let app = Beam::visible(release, &epmd, "app");
            let node = "app@127.0.0.1";
            let doctor =
                |arguments: &[&str]| run(epmd.port, beam::COOKIE, &[&["doctor"], arguments].concat());

            let healthy = doctor(&[node]);
            assert_eq!(healthy.code, Some(0), "{}{}", healthy.out, healthy.err);
            for name in
                ["name", "host", "epmd", "registered", "port", "handshake", "cookie", "flags", "clock"]
            {
                step(&healthy, "ok", name, "");
            }
            step(&healthy, "ok", "release", &format!("OTP {}", release.number));
            step(&healthy, "ok", "ticktime", "60 s on both sides");
            let json = doctor(&[node, "--json"]);
            assert!(json.out.starts_with("{\"node\":\"app@127.0.0.1\",\"healthy\":true,"), "{}", json.out);

            let cookie = run(epmd.port, "xyzzy", &["doctor", node]);
            assert_eq!(cookie.code, Some(77), "{}", cookie.out);
            step(&cookie, "failed", "cookie", "another cookie");
            assert!(!cookie.out.contains("xyzzy") && !cookie.out.contains(beam::COOKIE));

            let short = doctor(&["--sname", "x", node]);
            assert_eq!(short.code, Some(78), "{}", short.out);
            step(&short, "failed", "name", "--name instead of --sname");
            // And whatever else can be told in spite of it.
            step(&short, "ok", "cookie", "");
            let dotless = doctor(&["--name", "x@127.0.0.1", "app@localhost"]);
            assert_eq!(dotless.code, Some(78), "{}", dotless.out);
            step(&dotless, "failed", "name", "--name app@127.0.0.1");
            assert_eq!(doctor(&["a b@h"]).code, Some(64));

            let host = doctor(&["app@no-such-host.invalid"]);
            assert_eq!(host.code, Some(69), "{}", host.out);
            step(&host, "failed", "host", "/etc/hosts");

            let alone = run(epmd::free_port(), beam::COOKIE, &["doctor", node]);
            assert_eq!(alone.code, Some(69), "{}", alone.out);
            step(&alone, "failed", "epmd", "ERL_EPMD_PORT");

            let unknown = doctor(&["nobody@127.0.0.1"]);
            assert_eq!(unknown.code, Some(69), "{}", unknown.out);
            step(&unknown, "failed", "registered", "it knows app");

            let _closed = epmd.register("closed", epmd::free_port());
            let closed = doctor(&["closed@127.0.0.1"]);
            assert_eq!(closed.code, Some(69), "{}", closed.out);
            step(&closed, "failed", "port", "inet_dist_use_interface");

            let _http = epmd.register("http", listener(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
            let http = doctor(&["http@127.0.0.1"]);
            assert_eq!(http.code, Some(69), "{}", http.out);
            step(&http, "failed", "handshake", "does not speak Erlang's distribution");
            let _mute = epmd.register("mute", listener(b""));
            let mute = doctor(&["mute@127.0.0.1"]);
            assert_eq!(mute.code, Some(69), "{}", mute.out);
            step(&mute, "failed", "handshake", "another program listens");
            // An alert of TLS 1.2: `unexpected_message`, as a node with TLS answers to plain bytes.
            let _tls = epmd.register("tls", listener(&[21, 3, 3, 0, 2, 2, 10]));
            step(&doctor(&["tls@127.0.0.1"]), "failed", "tls", "configure both alike");

            app.eval("net_kernel:allow(['friend@127.0.0.1'])");
            let refused = doctor(&[node]);
            assert_eq!(refused.code, Some(69), "{}", refused.out);
            step(&refused, "failed", "handshake", "not_allowed");
            Ok(())
        },
    );
}

#[test]
fn differences_are_told() {
    case(
        Case::Full,
        TOPIC,
        "doctor: the connections of a node that runs are left alone, another net_ticktime; discover: what is found, refused and reached",
        |release| {
            let epmd = Epmd::start(release);
            let app = beam::Options::new(release, epmd.port, "app").args("-kernel net_ticktime 8").start();
            let other = Beam::visible(release, &epmd, "other");
            let node = "app@127.0.0.1";
            let tick = run(epmd.port, beam::COOKIE, &["doctor", node]);
            assert_eq!(tick.code, Some(0), "{}", tick.out);
            step(&tick, "warning", "ticktime", "8 s there and 60 s here");

            assert_eq!(other.eval("net_adm:ping('app@127.0.0.1')"), "pong");
            let used = run(epmd.port, beam::COOKIE, &["doctor", "--name", other.name(), node]);
            assert_eq!(used.code, Some(0), "{}", used.out);
            step(
                &used,
                "ok",
                "this side",
                "other@127.0.0.1 is running; the rest is tried under another name",
            );
            assert_eq!(app.eval("nodes()"), "['other@127.0.0.1']", "nobody was disturbed");

            let _stranger = beam::Options::new(release, epmd.port, "stranger").cookie("other").start();
            let discover = |arguments: &[&str]| {
                let own = ["--name", "x@127.0.0.1", "--cluster", "local_epmd", "discover"];
                run(epmd.port, beam::COOKIE, &[&own, arguments].concat())
            };
            let found = discover(&["--explain"]);
            assert_eq!(found.code, Some(0), "{}", found.err);
            for words in [
                &["discovery: local_epmd: written in the configuration"][..],
                &["source local_epmd (local_epmd): 1 complete answers"],
                &["app@127.0.0.1", "connected in"],
                &["other@127.0.0.1", "connected in"],
                &["stranger@127.0.0.1", "not connected", "another cookie"],
                &["    local_epmd: registered with the epmd of 127.0.0.1, port"],
            ] {
                let line = found.out.lines().any(|line| words.iter().all(|word| line.contains(word)));
                assert!(line, "{words:?} in\n{}", found.out);
            }
            app.eval("net_kernel:monitor_nodes(true, #{node_type => all})");
            let dry = discover(&["--dry-run", "--json"]);
            assert_eq!(dry.code, Some(0), "{}", dry.err);
            assert!(dry.out.contains("{\"node\":\"app@127.0.0.1\",\"verdict\":\"allowed\","), "{}", dry.out);
            assert!(!dry.out.contains("\"connected\""), "{}", dry.out);
            let dialled = "receive {nodeup, 'x@127.0.0.1', _} -> yes; {nodeup, N, _} -> N after 0 -> no end";
            assert_eq!(app.eval(dialled), "no");
            // Nobody is there: that is no success.
            let nobody = run(
                epmd::free_port(),
                beam::COOKIE,
                &["--cluster", "local_epmd", "discover", "--seconds", "1"],
            );
            assert_eq!(nobody.code, Some(69), "{}", nobody.out);
            assert!(nobody.out.contains("source local_epmd failed: the epmd of this host"), "{}", nobody.out);
            Ok(())
        },
    );
}
