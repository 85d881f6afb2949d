//! Partitions of real packets between network namespaces: the system's own time-outs take part.

use std::time::{Duration, Instant};

use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::netns::{self, Hosts};
use foundation_interop_tests::{Beam, Case, Epmd, Release, beam, case, epmd};
use foundation_node::config::EpmdMode;
use foundation_node::event::{Event, Events};

use super::TOPIC;
use super::pair::SLACK;
use crate::rust::Rust;

/// A smaller one than elsewhere: three faults in a row.
const TICKTIME: u32 = 2;

/// Rounds of a heal, for the median.
const HEALS: usize = 3;

const NAME: &str = "packets lost in both directions or in one (network namespaces): noticed within 1.25 x net_ticktime, back \
                    within a second";

#[test]
fn lost_packets() {
    match netns::rerun("faults::partition::lost_packets") {
        // The rows were written inside.
        Some(Ok(())) => return,
        Some(Err(why)) => return case(Case::Full, TOPIC, NAME, |_| Err(Unsupported(why))),
        None => {}
    }
    case(Case::Full, TOPIC, NAME, |release| {
        let hosts = Hosts::new();
        let (rust, beam, _epmd) = nodes(release, &hosts);
        let mut events = rust.node.events();
        rust.run(rust.node.connect(beam.name())).unwrap();
        let Some(Event::NodeUp { .. }) = rust.run(events.next()) else { panic!("no nodeup") };
        let mut backs = Vec::new();
        for round in 0..HEALS {
            hosts.lose_from_a();
            if round > 0 {
                hosts.lose_from_b();
            }
            let took = down(&rust, &mut events);
            let what = if round > 0 { "nothing arrives" } else { "nothing arrives there" };
            println!("netns: OTP {} {what}: noticed here after {took:?}", release.number);
            backs.push(heal(&rust, &mut events, &hosts));
        }
        hosts.lose_from_b();
        let took = down(&rust, &mut events);
        println!("netns: OTP {} nothing arrives here: noticed here after {took:?}", release.number);
        backs.push(heal(&rust, &mut events, &hosts));
        backs.sort();
        println!("netns: OTP {} back after {backs:?}", release.number);
        let median = backs[backs.len() / 2];
        assert!(median < Duration::from_secs(1) + SLACK, "{backs:?}");
        Ok(())
    });
}

/// The time until the Rust node gives the connection up.
fn down(rust: &Rust, events: &mut Events) -> Duration {
    let since = Instant::now();
    match rust.run(events.next()) {
        Some(Event::NodeDown { .. }) => {}
        other => panic!("{other:?}"),
    }
    let took = since.elapsed();
    assert!(took < Duration::from_secs(TICKTIME.into()) * 5 / 4 + SLACK, "{took:?}");
    took
}

/// Lets dials fail for a while, heals, and says when the connection was back.
fn heal(rust: &Rust, events: &mut Events, hosts: &Hosts) -> Duration {
    std::thread::sleep(Duration::from_millis(2_300));
    hosts.heal();
    let since = Instant::now();
    match rust.run(events.next()) {
        Some(Event::NodeUp { .. }) => since.elapsed(),
        other => panic!("{other:?}"),
    }
}

/// A Rust node on host A with an EPMD of its own, and a BEAM node on host B with another.
fn nodes(release: &Release, hosts: &Hosts) -> (Rust, Beam, Epmd) {
    let port = epmd::free_port();
    let enter = hosts.enter_b();
    let rust = Rust::named(port, &format!("rust@{}", netns::A), |config| {
        config.net_ticktime(TICKTIME).epmd(EpmdMode::Embedded)
    });
    let address = netns::B.parse().unwrap();
    let epmd = Epmd::try_start_at(release, port, &enter, address).expect("an EPMD on host B");
    let beam = beam::Options::new(release, port, "beam")
        .at(netns::B)
        .inside(&enter, netns::CONTROL_A, netns::B)
        .args(&format!("-kernel net_ticktime {TICKTIME} -kernel prevent_overlapping_partitions false"))
        .start();
    (rust, beam, epmd)
}
