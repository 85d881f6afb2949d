//! Channels and the commands about groups and topics, beside real nodes.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use foundation_interop_tests::eventually::eventually_true;
use foundation_interop_tests::{Beam, Case, Epmd, Release, beam, case};
use foundation_node::process::Process;
use foundation_node::service::channels::{Channel, Channels, Connection};
use foundation_proto::Limits;
use foundation_proto::etf::Term;

use crate::cli::{foundation, prints, run};
use crate::rust::{Rust, WAIT};

const TOPIC: &str = "channels";
/// The members of a PubSub named Foundation.PubSub.
const MEMBERS: &str = "pg:get_members('Elixir.Phoenix.PubSub', 'Elixir.Foundation.PubSub.Adapter')";

#[test]
fn groups_are_listed() {
    case(
        Case::Smoke,
        TOPIC,
        "`foundation groups` lists the groups of a pg scope of a BEAM node",
        |release| {
            let epmd = Epmd::start(release);
            let beam = Beam::visible(release, &epmd, "app");
            beam.eval(
            "{ok, _} = pg:start(sc), ok = pg:join(sc, workers, [self(), self()]), ok = pg:join(sc, {any, \"term\"}, self())",
        );
            let expected = "workers\t2\tapp@127.0.0.1\n{any,\"term\"}\t1\tapp@127.0.0.1\n";
            prints(&run(&epmd, &["groups", "app@127.0.0.1", "sc"]), expected);
            let none = run(&epmd, &["groups", "app@127.0.0.1", "other"]);
            assert_eq!((none.code, none.out.as_str()), (Some(1), ""));
            assert!(none.err.contains("has no pg scope other"), "{}", none.err);
            eventually_true("the commands are gone", WAIT, || beam.eval("nodes(hidden)") == "[]");
            Ok(())
        },
    );
}

#[test]
fn commands_on_channels_between_nodes_of_ours() {
    case(
        Case::Full,
        TOPIC,
        "`foundation subscribe`, `broadcast` and `channels` with a node of ours that has channels",
        |release| {
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "rust");
            let channels = rust.run(async { rust.node.channels() }).unwrap();
            let mut control = rust.run(async { channels.subscribe::<Term>(Channel::Control) }).unwrap();
            let broadcast = run(&epmd, &["broadcast", "rust@127.0.0.1", "control", "{reload, 1}"]);
            assert_eq!(broadcast.code, Some(0), "{}", broadcast.err);
            let message = rust.run(control.next()).unwrap();
            assert_eq!(message, Term::from((Term::atom("reload"), 1)));

            let mut command = foundation(
                epmd.port,
                beam::COOKIE,
                &["subscribe", "rust@127.0.0.1", "events", "--count", "2", "--format", "elixir"],
            );
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            // It takes part a moment before it has subscribed, and says when it has.
            let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
            assert!(said.any(|line| line.contains("subscribed")), "it ended before it had subscribed");
            eventually_true("the command takes part", WAIT, || channels.nodes(Channel::Events).0.len() == 1);
            for number in 1..=2 {
                rust.run(channels.broadcast(Channel::Events, &("order", number))).unwrap();
            }
            let out = child.wait_with_output().unwrap();
            assert_eq!(String::from_utf8_lossy(&out.stdout), "{\"order\", 1}\n{\"order\", 2}\n");
            eventually_true("it is gone", WAIT, || channels.nodes(Channel::Events).0.is_empty());
            rust.run(channels.broadcast(Channel::Events, &3)).unwrap();
            assert_eq!(
                channels.metrics()[&Channel::Events].queued,
                0,
                "nothing is kept for a command that is over"
            );

            let watching = foundation(
                epmd.port,
                beam::COOKIE,
                &["channels", "rust@127.0.0.1", "--interval", "0.2", "--count", "100"],
            )
            .stdout(Stdio::piped())
            .spawn();
            let mut child = watching.unwrap();
            eventually_true("the command takes part", WAIT, || channels.nodes(Channel::Data).0.len() == 1);
            rust.run(channels.broadcast(Channel::Data, "x")).unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let seen = lines.map_while(Result::ok).any(|line| {
                let mut words = line.split_whitespace();
                words.next() == Some("data") && words.next() == Some("1")
            });
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(seen, "a report counts the message");
            Ok(())
        },
    );
}

#[test]
fn commands_say_what_is_not_there() {
    case(Case::Full, TOPIC, "commands about topics say when a node has no such PubSub", |release| {
        let epmd = Epmd::start(release);
        let _beam = Beam::visible(release, &epmd, "app");
        let none = run(&epmd, &["broadcast", "app@127.0.0.1", "control", "x"]);
        assert_eq!(none.code, Some(1), "{}", none.err);
        assert!(none.err.contains("no Phoenix.PubSub named Foundation.PubSub"), "{}", none.err);
        let topic = run(&epmd, &["subscribe", "app@127.0.0.1", "room:1"]);
        assert_eq!(topic.code, Some(64), "{}", topic.err);
        assert!(topic.err.contains("--pubsub"), "{}", topic.err);
        Ok(())
    });
}

/// Sends `count` small messages on `control`, one after the other, each answered by the BEAM; the round trips, sorted.
fn round_trips(rust: &Rust, inbox: &mut Process, count: i64) -> Vec<Duration> {
    let channels = rust.node.channels().unwrap();
    let mut times = Vec::new();
    for number in 0..count {
        let started = Instant::now();
        rust.run(async {
            channels.broadcast(Channel::Control, &(inbox.pid(), number)).await.unwrap();
            let answer = inbox.recv().await.unwrap().to_term(&Limits::default()).unwrap();
            assert_eq!(answer.as_i64(), Some(number));
        });
        times.push(started.elapsed());
    }
    times.sort_unstable();
    times
}

fn shown(times: &[Duration]) -> String {
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    format!("p50 {:?}, p99 {:?}, max {:?}", at(50), at(99), at(100))
}

/// A BEAM node that takes part with a bare process in the group that Phoenix.PubSub's worker would be in: this is about connections.
fn bare_worker(release: &Release, epmd: &Epmd, rust: &Rust) -> (Beam, Channels) {
    let beam = Beam::visible(release, epmd, "beam");
    // Compiled: a receive that erl_eval interprets crashed the emulator of OTP 29.1.1 in garbage collection, every other run.
    beam.eval(
        "{ok, _} = pg:start('Elixir.Phoenix.PubSub'), Worker = spawn(foundation_channels, worker, []), \
         ok = pg:join('Elixir.Phoenix.PubSub', 'Elixir.Foundation.PubSub.Adapter', Worker)",
    );
    let channels = rust.run(async { rust.node.channels() }).unwrap();
    assert!(rust.run(rust.node.connect("beam@127.0.0.1")).is_ok());
    eventually_true("the BEAM takes part", WAIT, || channels.nodes(Channel::Control).1.len() == 1);
    (beam, channels)
}

/// Round trips on `control` while 8 MiB messages on `data` keep these connections busy, sorted; and how many of those were sent.
fn round_trips_beside_bulk(
    rust: &Rust,
    inbox: &mut Process,
    is_busy: impl Fn() -> bool,
) -> (Vec<Duration>, u64) {
    let channels = rust.node.channels().unwrap();
    let before = channels.metrics()[&Channel::Data].sent;
    let data = channels.clone();
    let bulk = rust.spawn(async move {
        // Bytes that do not compress; a BEAM node gets them as they are in any case.
        let message = Term::binary(&vec![0xA5; 8 << 20]);
        let mut sent = 0_u64;
        loop {
            data.broadcast(Channel::Data, &message).await.unwrap();
            sent += 1;
            if sent == u64::MAX {
                return;
            }
        }
    });
    eventually_true("the connection is busy", WAIT, is_busy);
    let busy = round_trips(rust, inbox, 500);
    bulk.abort();
    let sent = channels.metrics()[&Channel::Data].sent - before;
    assert!(sent > 0, "something large was on its way");
    (busy, sent)
}

#[test]
fn control_passes_bulk() {
    case(
        Case::Full,
        TOPIC,
        "small messages on `control` are answered while 8 MiB messages on `data` saturate the connection",
        |release| {
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "rust");
            let (beam, _channels) = bare_worker(release, &epmd, &rust);
            let mut inbox = rust.node.process().unwrap();
            let idle = round_trips(&rust, &mut inbox, 500);
            let is_busy = || rust.node.links().iter().any(|link| link.queued_bytes() > 1 << 20);
            let (busy, sent) = round_trips_beside_bulk(&rust, &mut inbox, is_busy);
            println!(
                "control round trip: idle {}; beside {sent} messages of 8 MiB {}",
                shown(&idle),
                shown(&busy)
            );
            assert_eq!(beam.eval(&format!("length({MEMBERS})")), "2");
            Ok(())
        },
    );
}

#[test]
fn connections_of_a_channels_own() {
    case(
        Case::Full,
        TOPIC,
        "a channel takes a connection of its own and leaves it without losing or reordering anything; `control` beside 8 MiB messages there",
        |release| {
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "rust");
            let (beam, channels) = bare_worker(release, &epmd, &rust);
            let stop = Arc::new(AtomicBool::new(false));
            let sender = rust.spawn({
                let (channels, stop) = (channels.clone(), Arc::clone(&stop));
                async move {
                    let mut number = 0_i64;
                    while !stop.load(Ordering::Acquire) {
                        number += 1;
                        channels.broadcast(Channel::Events, &number).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    number
                }
            });
            let connect = |channel, connection| {
                let config = channels.config(channel).connection(connection);
                rust.run(async { channels.configure(channel, config) });
            };
            connect(Channel::Events, Connection::OwnToAll);
            eventually_true("the channel has its connection", WAIT, || {
                channels.own_links(Channel::Events).len() == 1
            });
            assert_eq!(
                beam.eval("lists:sort(nodes(hidden))"),
                "['rust@127.0.0.1','rust_channel_events@127.0.0.1']"
            );
            assert_eq!(beam.eval("nodes()"), "[]");
            let sent = channels.own_links(Channel::Events)[0].bytes().1;
            eventually_true("it is used", WAIT, || {
                channels.own_links(Channel::Events).iter().any(|link| link.bytes().1 > sent + 10_000)
            });
            connect(Channel::Events, Connection::Shared);
            eventually_true("it is left", WAIT, || beam.eval("nodes(hidden)") == "['rust@127.0.0.1']");
            stop.store(true, Ordering::Release);
            let numbers = rust.run(sender).unwrap();
            let count = "(fun() -> Worker ! {count, self()}, receive {count, _, L, G} -> {L, G} after 10000 -> none end end)()";
            eventually_true("each number has come, after the one before", WAIT, || {
                beam.eval(count) == format!("{{{numbers},0}}")
            });

            connect(Channel::Data, Connection::OwnToAll);
            rust.run(channels.broadcast(Channel::Data, &1)).unwrap();
            eventually_true("the channel has its connection", WAIT, || {
                channels.own_links(Channel::Data).len() == 1 || {
                    rust.run(channels.broadcast(Channel::Data, &1)).unwrap();
                    false
                }
            });
            let mut inbox = rust.node.process().unwrap();
            let is_busy =
                || channels.own_links(Channel::Data).iter().any(|link| link.queued_bytes() > 1 << 20);
            let (busy, sent) = round_trips_beside_bulk(&rust, &mut inbox, is_busy);
            println!(
                "control round trip beside {sent} messages of 8 MiB on another connection: {}",
                shown(&busy)
            );
            Ok(())
        },
    );
}
