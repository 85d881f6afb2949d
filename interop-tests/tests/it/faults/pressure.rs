//! Too much of everything: connections, descriptors, peers that all come back at once, a peer that takes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use foundation_interop_tests::raw_peer::{Accepted, FLAGS, RawPeer, atom, tuple};
use foundation_interop_tests::{
    Beam, Case, Epmd, beam, built, case, eventually, eventually::eventually_true,
};
use foundation_node::config::Reconnect;
use foundation_node::event::Event;
use foundation_node::net_kernel::NodeType;
use foundation_proto::etf::{Atom, Pid, Term};

use super::TOPIC;
use super::figures::Figures;
use crate::rust::{Rust, WAIT};

/// `foundation start` in a process of its own, so that its descriptors and its memory can be counted and bounded.
struct Alone {
    child: Child,
    port: u16,
}

impl Alone {
    /// With at most so many descriptors.
    fn start(epmd: &Epmd, descriptors: u32) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" start --name alone@127.0.0.1")])
            .arg(built::binary("foundation"))
            .env("FOUNDATION_COOKIE", beam::COOKIE)
            .env("ERL_EPMD_PORT", epmd.port.to_string())
            .env("FOUNDATION_RECONNECT", "never")
            .env("FOUNDATION_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains(" is up"), "{line:?}");
        let port = epmd.wait_for("alone");
        Self { child, port }
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    fn resident(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).unwrap() << 10
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `net_adm:ping/1` by hand; whether the answer was `yes`.
fn ping(peer: &mut RawPeer) -> bool {
    let from = tuple(&[&peer.pid(101), &peer.reference(1)]);
    let question = tuple(&[&atom("is_auth"), &atom(&peer.name)]);
    let request = tuple(&[&atom("$gen_call"), &from, &question]);
    peer.send_frame(&peer.reg_send("net_kernel", &request)).unwrap();
    loop {
        match peer.read_frame() {
            Ok(frame) if frame.is_empty() => {}
            Ok(frame) => return frame.windows(3).any(|bytes| bytes == b"yes"),
            Err(_) => return false,
        }
    }
}

#[test]
fn five_hundred_connections() {
    case(
        Case::Full,
        TOPIC,
        "500 connections to one Rust node: each answered, no more memory or descriptors than they need, none left behind",
        |release| {
            let epmd = Epmd::start(release);
            let node = Alone::start(&epmd, 1024);
            let beam = Beam::visible(release, &epmd, "beam");
            assert_eq!(beam.eval("net_adm:ping('alone@127.0.0.1')"), "pong");
            let (descriptors, resident) = (node.descriptors(), node.resident());
            let since = Instant::now();
            let mut peers: Vec<RawPeer> = (0..500)
                .map(|n| {
                    let mut peer = RawPeer::connect(node.port, &format!("peer{n}@127.0.0.1"));
                    assert_eq!(peer.handshake(FLAGS, beam::COOKIE), Accepted::Yes, "{n}");
                    peer
                })
                .collect();
            let took = since.elapsed();
            for peer in &mut peers {
                assert!(ping(peer), "{}", peer.name);
            }
            // A second one for each connection only while less than half of all are in use.
            let used = node.descriptors() - descriptors;
            assert!((500..=500 + 256).contains(&used), "{used}");
            let each = node.resident().saturating_sub(resident) / 500;
            println!("500 connections in {took:?}, {:.1} KiB each", each as f64 / 1024.0);
            assert!(each < 64 << 10, "{each} bytes a connection");
            assert_eq!(beam.eval("net_adm:ping('alone@127.0.0.1')"), "pong");
            drop(peers);
            eventually_true("the descriptors are closed", WAIT, || node.descriptors() <= descriptors);
            assert_eq!(beam.eval("net_adm:ping('alone@127.0.0.1')"), "pong");
            Ok(())
        },
    );
}

#[test]
fn no_descriptors_left() {
    case(
        Case::Full,
        TOPIC,
        "a Rust node without free descriptors keeps its connections, and accepts again when some are free",
        |release| {
            let epmd = Epmd::start(release);
            let node = Alone::start(&epmd, 40);
            let beam = Beam::visible(release, &epmd, "beam");
            assert_eq!(beam.eval("net_adm:ping('alone@127.0.0.1')"), "pong");
            let before = node.descriptors();
            let mut peers = Vec::new();
            // More than fit. Those that do not wait in the kernel's queue.
            for n in 0..60 {
                let mut peer = RawPeer::connect(node.port, &format!("peer{n}@127.0.0.1"));
                peer.patience(Duration::from_millis(if node.descriptors() < 39 { 5_000 } else { 50 }));
                if peer.handshake(FLAGS, beam::COOKIE) == Accepted::Yes {
                    peers.push((peer, true));
                } else {
                    peers.push((peer, false));
                }
            }
            let accepted = peers.iter().filter(|(_, accepted)| *accepted).count();
            println!("{accepted} of 60 accepted with 40 descriptors");
            // Those that it inherited from the harness may lie above the limit.
            assert!(node.descriptors() >= 40);
            assert!((10..40).contains(&accepted), "{accepted}");
            assert_eq!(beam.eval("net_adm:ping('alone@127.0.0.1')"), "pong", "who is connected stays so");
            for (peer, accepted) in &mut peers {
                if *accepted {
                    peer.patience(WAIT);
                    assert!(ping(peer), "{}", peer.name);
                }
            }
            drop(peers);
            let late = Beam::visible(release, &epmd, "late");
            eventually_true("new connections are accepted", WAIT, || {
                late.eval("net_adm:ping('alone@127.0.0.1')") == "pong"
            });
            eventually_true("the descriptors are closed", WAIT, || node.descriptors() <= before + 2);
            Ok(())
        },
    );
}

/// Peers that restart at once.
const PEERS: usize = 60;

#[test]
fn a_reconnect_storm() {
    case(
        Case::Full,
        TOPIC,
        "60 peers that are lost and come back at once are all back within 10 s, each down and up once",
        |release| {
            let epmd = Epmd::start(release);
            let hub = Rust::start(&epmd, "hub");
            let mut events = hub.node.events();
            let start = || -> Vec<Rust> {
                (0..PEERS)
                    .map(|n| Rust::with(&epmd, &format!("p{n}"), |config| config.reconnect(Reconnect::Never)))
                    .collect()
            };
            let peers = start();
            for n in 0..PEERS {
                hub.run(hub.node.connect(&format!("p{n}@127.0.0.1"))).unwrap();
            }
            let tasks = hub.tasks();
            let mut seen: BTreeMap<String, (u32, u32)> = BTreeMap::new();
            for _ in 0..PEERS {
                assert!(matches!(hub.run(events.next()), Some(Event::NodeUp { .. })));
            }
            let gone = Instant::now();
            drop(peers);
            let peers = start();
            println!("storm: {PEERS} peers restarted in {:?}", gone.elapsed());
            let back = Instant::now();
            while seen.values().filter(|(_, ups)| *ups > 0).count() < PEERS {
                match hub.run(events.next()) {
                    Some(Event::NodeUp { node, .. }) => {
                        let seen = seen.entry(node.as_str().to_owned()).or_default();
                        seen.1 += 1;
                        assert_eq!(seen.0, seen.1, "no up before the down: {node:?}");
                    }
                    Some(Event::NodeDown { node, .. }) => {
                        seen.entry(node.as_str().to_owned()).or_default().0 += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
            println!("storm: all back {:?} after the last was up", back.elapsed());
            assert!(back.elapsed() < Duration::from_secs(10), "{:?}", back.elapsed());
            assert!(seen.values().all(|counts| *counts == (1, 1)), "{seen:?}");
            assert_eq!(hub.node.nodes(NodeType::Connected).len(), PEERS);
            eventually_true("no task is left behind", WAIT, || hub.tasks() <= tasks);
            drop(peers);
            Ok(())
        },
    );
}

/// What may wait for a peer that takes nothing.
const MOST_QUEUED: usize = 8 << 20;

/// Processes that send to it.
const SENDERS: usize = 50;

#[test]
fn a_slow_consumer() {
    case(
        Case::Full,
        TOPIC,
        "a stopped BEAM node costs at most 8 MiB, suspends those who send to it and nobody else; then everything arrives in order",
        |release| {
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "rust");
            let slow = Beam::visible(release, &epmd, "slow");
            let fast = Beam::visible(release, &epmd, "fast");
            let count = "Loop = fun Loop(Ns) -> receive \
                   {n, I, N} -> case maps:get(I, Ns, 0) of N -> Loop(Ns#{I => N + 1}); M -> Loop(Ns#{I => {wrong, M, N}}) end; \
                   {report, P} -> P ! {report, lists:sum(maps:values(Ns)), maps:size(Ns)}, Loop(Ns) end end, \
                 register(counter, spawn(fun() -> Loop(#{}) end)), ok";
            slow.eval(count);
            fast.eval("register(echo, spawn(fun Echo() -> receive {P, M} -> P ! M, Echo() end end)), ok");
            let link = rust.run(rust.node.connect("slow@127.0.0.1")).unwrap();
            rust.run(rust.node.connect("fast@127.0.0.1")).unwrap();
            let before = round_trips(&rust, 300);
            slow.pause();
            // 64 MiB in all, if nobody were suspended; small and large messages.
            let per_sender = 200u32;
            let senders: Vec<_> = (0..SENDERS)
                .map(|index| {
                    let process = rust.node.process().unwrap();
                    rust.spawn(async move {
                        let padding = vec![0u8; if index % 2 == 0 { 100 } else { 12_000 }];
                        for n in 0..per_sender {
                            let message = Term::from((Term::atom("n"), index as i64, i64::from(n)));
                            process.send_term(("counter", "slow@127.0.0.1"), &message).await.unwrap();
                            let ignored = Term::from((Term::atom("padding"), Term::binary(&padding)));
                            process.send_term(("nobody", "slow@127.0.0.1"), &ignored).await.unwrap();
                        }
                    })
                })
                .collect();
            eventually("the queue has filled", WAIT, || link.is_busy().then_some(()));
            let mut most = 0;
            let during = round_trips_while(&rust, 300, || most = most.max(link.queued_bytes()));
            let figures = Figures::of(release);
            let fault = "peer stopped, 50 processes send to it";
            let ms = |took: Duration| took.as_secs_f64() * 1_000.0;
            figures.add(fault, "round trip to another peer before, median of 300", "ms", None, ms(before));
            figures.add(fault, "round trip to another peer meanwhile, median of 300", "ms", None, ms(during));
            assert!(most <= MOST_QUEUED, "{most} bytes are queued");
            assert!(senders.iter().any(|sender| !sender.is_finished()), "they are suspended");
            // On a loaded machine the medians of 300 vary by far more than the aim of a tenth.
            assert!(during < before * 4 + Duration::from_millis(20), "{before:?} {during:?}");

            // Whoever waits for nothing is told, and what may not wait is bounded by a limit with a name.
            let watcher = rust.node.process().unwrap();
            let links = rust.spawn(async move {
                for id in 0..20_000u32 {
                    let pid = Pid { node: Atom::new_static("slow@127.0.0.1"), id, serial: 0, creation: 1 };
                    let _ = watcher.monitor(&pid).await;
                }
            });
            round_trips_while(&rust, 100, || most = most.max(link.queued_bytes()));
            figures.add(fault, "queued for it, at most", "MiB", Some(8.0), most as f64 / f64::from(1 << 20));
            figures.done();
            assert!(most <= MOST_QUEUED, "{most} bytes are queued");
            links.abort();

            slow.resume();
            for sender in senders {
                rust.run(sender).unwrap();
            }
            let all = format!("{{{},{SENDERS}}}", per_sender as usize * SENDERS);
            // Each counter counts only what is next.
            eventually_true("everything has arrived in order", WAIT, || {
                slow.eval("counter ! {report, self()}, (fun() -> receive {report, L, S} -> {L, S} end end)()")
                    == all
            });
            assert_eq!(rust.node.nodes(NodeType::Connected).len(), 2);
            Ok(())
        },
    );
}

/// The median time of a message to `fast` and back.
fn round_trips(rust: &Rust, count: usize) -> Duration {
    round_trips_while(rust, count, || {})
}

fn round_trips_while(rust: &Rust, count: usize, mut each: impl FnMut()) -> Duration {
    let mut process = rust.node.process().unwrap();
    let mut times: Vec<Duration> = (0..count)
        .map(|n| {
            each();
            let since = Instant::now();
            rust.run(async {
                let message = Term::from((process.pid().clone(), n as i64));
                process.send_term(("echo", "fast@127.0.0.1"), &message).await.unwrap();
                process.recv().await.unwrap();
            });
            since.elapsed()
        })
        .collect();
    times.sort();
    times[count / 2]
}
