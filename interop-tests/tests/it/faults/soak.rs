//! The counted soak: messages within a node, connections made and ended, partitions, a peer that takes nothing; and what is left
//! after each quarter.
//!
//! `make soak` runs it and writes a dated table into `interop-tests/results`. The counts come from `FOUNDATION_SOAK_LOCAL`,
//! `FOUNDATION_SOAK_CYCLES`, `FOUNDATION_SOAK_PARTITIONS` and `FOUNDATION_SOAK_STOPS`. The schedule has no randomness: there is no seed.

use std::fs;
use std::time::{Duration, Instant};

use foundation_interop_tests::{Beam, Epmd, Wire, eventually::eventually_true, otp};
use foundation_node::config::Reconnect;
use foundation_node::event::Event;
use foundation_node::net_kernel::NodeType;
use foundation_proto::etf::{RawTerm, Term};

use crate::rust::{Rust, WAIT};
use crate::soak::{self, count_or};

/// Peers on the other host; each reset of the wire is a partition of each.
const PEERS: usize = 25;

/// Growth of resident memory from the first quarter to the end that counts as none: what allocators keep varies by this.
const MEMORY: usize = 8 << 20;

/// What could grow.
#[derive(Clone, Copy, Debug)]
struct Sample {
    resident: usize,
    descriptors: usize,
    tasks: usize,
    processes: usize,
    connected: usize,
}

impl Sample {
    fn of(rust: &Rust) -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        Self {
            resident: line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).unwrap() << 10,
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
            tasks: rust.tasks(),
            processes: rust.node.processes().len(),
            connected: rust.node.nodes(NodeType::Connected).len(),
        }
    }
}

/// One part of the soak: its count, its time, and a sample after each quarter.
struct Part {
    what: &'static str,
    count: u64,
    took: Duration,
    samples: Vec<Sample>,
    note: String,
}

impl Part {
    /// Runs the four quarters of `count`.
    fn run(what: &'static str, count: u64, rust: &Rust, mut quarter: impl FnMut(u64) -> String) -> Self {
        let count = count.div_ceil(4) * 4;
        let since = Instant::now();
        let (mut samples, mut note) = (Vec::new(), String::new());
        for n in 1..=4u32 {
            note = quarter(count / 4);
            samples.push(settled(rust, samples.first()));
            let rate = (count / 4 * u64::from(n)) as f64 / since.elapsed().as_secs_f64();
            println!(
                "{what}: {} of {count}, {rate:.0} a second, {:?}",
                count / 4 * u64::from(n),
                samples.last()
            );
        }
        Self { what, count, took: since.elapsed(), samples, note }
    }

    /// Nothing has grown since the first quarter.
    fn check(&self) {
        let (first, last) = (self.samples[0], self.samples[3]);
        assert!(last.resident < first.resident + MEMORY, "{}: {first:?} {last:?}", self.what);
        for (name, first, last) in [
            ("descriptors", first.descriptors, last.descriptors),
            ("tasks", first.tasks, last.tasks),
            ("processes", first.processes, last.processes),
            ("connected", first.connected, last.connected),
        ] {
            assert!(last <= first, "{}: {name} grew from {first} to {last}", self.what);
        }
    }
}

/// A sample once what is ending has ended: connections linger for up to a second.
fn settled(rust: &Rust, first: Option<&Sample>) -> Sample {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let sample = Sample::of(rust);
        let done =
            first.is_some_and(|first| sample.tasks <= first.tasks && sample.descriptors <= first.descriptors);
        if done || Instant::now() > deadline {
            return sample;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
#[ignore = "samples the whole process, so it must run alone, and for minutes: make soak"]
fn soak() {
    let release = otp::installed();
    let parts = [
        // First, while the allocator has nothing to spare that would hide what it costs.
        stopped(release, count_or("STOPS", 20)),
        messages(count_or("LOCAL", 100_000_000)),
        cycles(release, count_or("CYCLES", 10_000)),
        partitions(count_or("PARTITIONS", 1_000)),
    ];
    report(&parts, &release.version);
    parts.iter().for_each(Part::check);
}

/// Messages between two processes of one node, each batch answered.
fn messages(count: u64) -> Part {
    const BATCH: u64 = 1_000;
    let epmd = Epmd::start(otp::installed());
    let rust = Rust::start(&epmd, "soak");
    let message = RawTerm::from_term(&Term::from((Term::atom("tick"), 1))).unwrap();
    let mut sender = rust.node.process().unwrap();
    let mut receiver = rust.node.process().unwrap();
    let (there, back) = (receiver.pid().clone(), sender.pid().clone());
    let answer = message.clone();
    rust.spawn(async move {
        let mut received = 0u64;
        while receiver.recv().await.is_ok() {
            received += 1;
            if received.is_multiple_of(BATCH) {
                receiver.send_raw(&back, answer.clone()).await.unwrap();
            }
        }
    });
    Part::run("messages within a node", count.div_ceil(4 * BATCH) * 4 * BATCH, &rust, |count| {
        for _ in 0..count / BATCH {
            rust.run(async {
                for _ in 0..BATCH {
                    sender.send_raw(&there, message.clone()).await.unwrap();
                }
                sender.recv().await.unwrap();
            });
        }
        String::new()
    })
}

/// A connection to a BEAM node, a round trip, a disconnect from either side.
fn cycles(release: &otp::Release, count: u64) -> Part {
    let epmd = Epmd::start(release);
    let rust = Rust::with(&epmd, "soak", |config| config.reconnect(Reconnect::Never));
    let beam = Beam::visible(release, &epmd, "beam");
    beam.eval(
        "register(peer, spawn(fun Loop() -> receive {P, down} -> erlang:disconnect_node(node(P)), Loop(); {P, M} -> P ! M, Loop() end end)), ok",
    );
    let mut events = rust.node.events();
    let mut process = rust.node.process().unwrap();
    Part::run("connect, round trip, disconnect, with a BEAM node", count, &rust, |count| {
        let mut times = Vec::with_capacity(count as usize);
        for n in 0..count {
            let since = Instant::now();
            rust.run(async {
                rust.node.connect("beam@127.0.0.1").await.unwrap();
                let to = ("peer", "beam@127.0.0.1");
                let ask = |what: Term| Term::from((Term::from(process.pid()), what));
                let hello = ask(Term::from(n as i64));
                process.send_term(to, &hello).await.unwrap();
                let down = ask(Term::atom("down"));
                process.recv().await.unwrap();
                if n % 2 == 0 {
                    assert!(rust.node.disconnect("beam@127.0.0.1").await);
                } else {
                    process.send_term(to, &down).await.unwrap();
                }
                assert!(matches!(events.next().await, Some(Event::NodeUp { .. })));
                assert!(matches!(events.next().await, Some(Event::NodeDown { .. })));
            });
            times.push(since.elapsed());
        }
        times.sort();
        let there = beam.eval("erlang:garbage_collect(), {length(nodes(hidden)), erlang:system_info(port_count), erlang:system_info(process_count)}");
        format!("median {:.2?}; the BEAM's {{nodes, ports, processes}}: {there}", times[times.len() / 2])
    })
}

/// Resets of a wire to 25 Rust nodes: each goes down and is back by itself.
fn partitions(count: u64) -> Part {
    let epmd = Epmd::start(otp::installed());
    let wire = Wire::new(&epmd);
    let rust = Rust::on(wire.a(), "soak", |config| config.net_ticktime(8));
    let peers: Vec<Rust> = (0..PEERS)
        .map(|n| Rust::on(wire.b(), &format!("p{n}"), |config| config.reconnect(Reconnect::Never)))
        .collect();
    let mut events = rust.node.events();
    for n in 0..PEERS {
        rust.run(rust.node.connect(&format!("p{n}@127.0.0.1"))).unwrap();
        assert!(matches!(rust.run(events.next()), Some(Event::NodeUp { .. })));
    }
    let part = Part::run("partitions", count.div_ceil(PEERS as u64 * 4) * PEERS as u64 * 4, &rust, |count| {
        let mut times = Vec::new();
        for _ in 0..count / PEERS as u64 {
            let since = Instant::now();
            wire.cut();
            let (mut downs, mut ups) = (0, 0);
            while ups < PEERS {
                match rust.run(events.next()) {
                    Some(Event::NodeDown { .. }) => downs += 1,
                    Some(Event::NodeUp { .. }) => {
                        ups += 1;
                        times.push(since.elapsed());
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(downs, PEERS);
        }
        times.sort();
        format!("back after {:.0?} (median)", times[times.len() / 2])
    });
    assert_eq!(peers.len(), PEERS);
    part
}

/// What a peer that takes nothing may cost, beside a single larger message.
const STOPPED: usize = 8 << 20;

/// A peer is stopped while 50 processes send 64 MiB to it, and goes on.
fn stopped(release: &otp::Release, count: u64) -> Part {
    const SENDERS: usize = 50;
    const EACH: usize = (64 << 20) / SENDERS / 12_000;
    let epmd = Epmd::start(release);
    let rust = Rust::with(&epmd, "soak", |config| config.reconnect(Reconnect::Never));
    let beam = Beam::visible(release, &epmd, "beam");
    beam.eval("register(sink, spawn(fun S() -> receive {P, M} -> P ! M; _ -> ok end, S() end)), ok");
    let link = rust.run(rust.node.connect("beam@127.0.0.1")).unwrap();
    let message = RawTerm::from_term(&Term::binary(&[7; 12_000])).unwrap();
    let (mut most, mut queued) = (0, 0);
    let mut process = rust.node.process().unwrap();
    Part::run("a peer stopped, 50 processes send 64 MiB to it", count, &rust, |count| {
        for _ in 0..count {
            let before = Sample::of(&rust).resident;
            beam.pause();
            let senders: Vec<_> = (0..SENDERS)
                .map(|_| {
                    let (process, message) = (rust.node.process().unwrap(), message.clone());
                    rust.spawn(async move {
                        for _ in 0..EACH {
                            process.send_raw(("sink", "beam@127.0.0.1"), message.clone()).await.unwrap();
                        }
                    })
                })
                .collect();
            eventually_true("the queue is full", WAIT, || link.is_busy());
            for _ in 0..50 {
                most = most.max(Sample::of(&rust).resident.saturating_sub(before));
                queued = queued.max(link.queued_bytes());
                std::thread::sleep(Duration::from_millis(10));
            }
            beam.resume();
            senders.into_iter().for_each(|sender| rust.run(sender).unwrap());
            rust.run(async {
                let last = Term::from((Term::from(process.pid()), Term::atom("last")));
                process.send_term(("sink", "beam@127.0.0.1"), &last).await.unwrap();
                process.recv().await.unwrap();
            });
        }
        assert!(most <= STOPPED && queued <= STOPPED, "{most} bytes more, {queued} bytes queued");
        let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        format!(
            "while it was stopped at most {:.1} MiB more resident, {:.1} MiB queued",
            mib(most),
            mib(queued)
        )
    })
}

/// The table of this run.
fn report(parts: &[Part], otp: &str) {
    let columns = [
        "part",
        "OTP",
        "count",
        "a second",
        "resident MiB",
        "descriptors",
        "tasks",
        "processes",
        "connected",
        "samples after each quarter",
    ];
    let report = soak::Report::new("left-behind", &columns);
    for part in parts {
        let row = |value: &dyn Fn(&Sample) -> String| {
            part.samples.iter().map(value).collect::<Vec<_>>().join(" → ")
        };
        report.row(&[
            part.what,
            otp,
            &part.count.to_string(),
            &format!("{:.0}", part.count as f64 / part.took.as_secs_f64()),
            &row(&|sample| format!("{:.1}", sample.resident as f64 / f64::from(1 << 20))),
            &row(&|sample| sample.descriptors.to_string()),
            &row(&|sample| sample.tasks.to_string()),
            &row(&|sample| sample.processes.to_string()),
            &row(&|sample| sample.connected.to_string()),
            &part.note,
        ]);
    }
    report.write();
}
