//! Single packets that are lost, overtaken or there twice, between network namespaces: what the system's TCP makes of it must
//! not show.

use std::time::{Duration, Instant};

use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::netns::{self, Hosts};
use foundation_interop_tests::{Beam, Case, case};
use foundation_node::event::Events;
use foundation_node::process::Process;
use foundation_proto::etf::Term;

use super::TOPIC;
use super::figures::{self, Figures};
use super::partition::{Inside, inside};
use crate::rust::{Rust, next_term};

/// `net_ticktime` while every 20th packet is lost. The system sends a lost one again after 0.2, 0.6, 1.4, 3 and 6.2 s.
const TICKTIME: u32 = 8;

/// How long all messages of a round may take to come back through a network that loses every tenth packet.
const PATIENCE: Duration = Duration::from_secs(120);

/// Numbered messages of one packet and of several, echoed by the BEAM node: each comes back, once and in order.
fn in_order(rust: &Rust, process: &mut Process, beam: &Beam, messages: i64) {
    beam.eval(
        "is_pid(whereis(echo)) orelse register(echo, spawn(fun E() -> receive {P, M} -> P ! M, E() end end))",
    );
    let sender = rust.node.process().unwrap();
    let me = process.pid().clone();
    let to = beam.name().to_owned();
    let sending = rust.spawn(async move {
        for n in 0..messages {
            let body = vec![b'x'; if n % 10 == 0 { 6_000 } else { 400 }];
            let message = Term::from((Term::from(n), Term::binary(&body)));
            sender.send_term(("echo", to.as_str()), &Term::from((me.clone(), message))).await.unwrap();
        }
    });
    let started = Instant::now();
    for n in 0..messages {
        // Each has its own deadline of `run`.
        let message = rust.run(next_term(process));
        assert_eq!(message.as_tuple().unwrap()[0], Term::from(n), "in order");
        assert!(started.elapsed() < PATIENCE, "{n} of {messages}");
    }
    rust.run(sending).unwrap();
    assert_eq!(process.mailbox_len(), 0, "nothing twice");
}

/// Nothing but ticks for one and a half times `net_ticktime`: the connection stays.
fn stays(rust: &Rust, events: &mut Events, ticktime: u32) {
    let quiet = rust.run(async {
        tokio::time::timeout(Duration::from_secs(u64::from(ticktime) * 3 / 2), events.next()).await
    });
    assert!(quiet.is_err(), "a false nodedown: {quiet:?}");
}

#[test]
fn lost_at_random() {
    const NAME: &str = "5 and 10 of 100 packets lost each way (network namespaces): every message arrives once and in order, no false nodedown";
    match netns::rerun("faults::packets::lost_at_random") {
        Some(Ok(_)) => return,
        Some(Err(why)) => return case(Case::Full, TOPIC, NAME, |_| Err(Unsupported(why))),
        None => {}
    }
    case(Case::Full, TOPIC, NAME, |release| {
        let hosts = Hosts::new();
        let Inside { rust, beam, mut events, .. } = inside(release, &hosts, TICKTIME);
        let mut process = rust.node.process().unwrap();
        hosts.lose(10);
        in_order(&rust, &mut process, &beam, 200);
        hosts.heal();
        hosts.lose(5);
        in_order(&rust, &mut process, &beam, 2_000);
        stays(&rust, &mut events, TICKTIME);
        let lost = hosts.taken_on_a();
        println!(
            "{}OTP {}: {lost} packets were lost of those that arrived here",
            netns::SAID,
            release.number
        );
        assert!(lost > 10, "{lost} packets were lost");
        hosts.heal();
        assert_eq!(beam.eval("nodes(connected)"), format!("['rust@{}']", netns::A));
        Ok(())
    });
}

#[test]
fn overtaken_and_twice() {
    const NAME: &str = "30 of 100 packets on a slower way and 10 of 100 there twice (network namespaces): every message arrives once and in order";
    match netns::rerun("faults::packets::overtaken_and_twice") {
        Some(Ok(_)) => return,
        Some(Err(why)) => return case(Case::Full, TOPIC, NAME, |_| Err(Unsupported(why))),
        None => {}
    }
    case(Case::Full, TOPIC, NAME, |release| {
        let hosts = Hosts::new();
        let Inside { rust, beam, .. } = inside(release, &hosts, TICKTIME);
        let mut process = rust.node.process().unwrap();
        hosts.reorder(30, 10);
        in_order(&rust, &mut process, &beam, 3_000);
        assert!(hosts.taken_on_a() > 100, "packets took the other way");
        // The system has put back in order what came too early.
        let overtaken = hosts.overtaken_on_a();
        println!("{}OTP {}: {overtaken} packets came too early", netns::SAID, release.number);
        assert!(overtaken > 0);
        Ok(())
    });
}

#[test]
fn a_wire_pulled_out() {
    const NAME: &str = "the wire of one host pulled out (network namespaces): noticed within 1.25 x net_ticktime, back within a second";
    match netns::rerun("faults::packets::a_wire_pulled_out") {
        Some(Ok(said)) => return figures::from_inside(&said),
        Some(Err(why)) => return case(Case::Full, TOPIC, NAME, |_| Err(Unsupported(why))),
        None => {}
    }
    case(Case::Full, TOPIC, NAME, |release| {
        let figures = Figures::of(release);
        let hosts = Hosts::new();
        let mut inside = inside(release, &hosts, super::partition::TICKTIME);
        for _ in figures.rounds() {
            hosts.unplug();
            inside.lost_and_back(&figures, &hosts, "wire pulled out");
        }
        figures.done();
        Ok(())
    });
}
