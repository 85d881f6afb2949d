//! Partitions of real packets between network namespaces: the system's own time-outs take part.

use std::time::{Duration, Instant};

use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::netns::{self, Hosts};
use foundation_interop_tests::{Beam, Case, Epmd, Release, beam, case, epmd};
use foundation_node::config::EpmdMode;
use foundation_node::event::{Event, Events};

use super::TOPIC;
use super::figures::{self, Figures};
use crate::rust::Rust;

/// A smaller one than elsewhere: three faults in a row.
pub(super) const TICKTIME: u32 = 2;

const NAME: &str = "packets lost in both directions or in one (network namespaces): noticed within 1.25 x net_ticktime, back \
                    within a second";

#[test]
fn lost_packets() {
    match netns::rerun("faults::partition::lost_packets") {
        // The rows were written inside.
        Some(Ok(said)) => return figures::from_inside(&said),
        Some(Err(why)) => return case(Case::Full, TOPIC, NAME, |_| Err(Unsupported(why))),
        None => {}
    }
    case(Case::Full, TOPIC, NAME, |release| {
        let figures = Figures::of(release);
        let hosts = Hosts::new();
        let mut inside = inside(release, &hosts, TICKTIME);
        for _ in figures.rounds() {
            hosts.lose_from_a();
            inside.lost_and_back(&figures, &hosts, "all packets lost from here");
            hosts.lose_from_b();
            inside.lost_and_back(&figures, &hosts, "all packets lost from there");
            hosts.lose_from_a();
            hosts.lose_from_b();
            inside.lost_and_back(&figures, &hosts, "all packets lost both ways");
        }
        figures.done();
        Ok(())
    });
}

/// What is inside of the namespaces: a Rust node on host A with an EPMD of its own, and a BEAM node on host B with another, in
/// touch.
pub(super) struct Inside {
    pub(super) rust: Rust,
    pub(super) beam: Beam,
    pub(super) events: Events,
    ticktime: u32,
    _epmd: Epmd,
}

pub(super) fn inside(release: &Release, hosts: &Hosts, ticktime: u32) -> Inside {
    let port = epmd::free_port();
    let enter = hosts.enter_b();
    let rust = Rust::named(port, &format!("rust@{}", netns::A), |config| {
        config.net_ticktime(ticktime).epmd(EpmdMode::Embedded)
    });
    let address = netns::B.parse().unwrap();
    let epmd = Epmd::try_start_at(release, port, &enter, address).expect("an EPMD on host B");
    let beam = beam::Options::new(release, port, "beam")
        .at(netns::B)
        .inside(&enter, netns::CONTROL_A, netns::B)
        .args(&format!("-kernel net_ticktime {ticktime} -kernel prevent_overlapping_partitions false"))
        .start();
    let mut events = rust.node.events();
    rust.run(rust.node.connect(beam.name())).unwrap();
    let Some(Event::NodeUp { .. }) = rust.run(events.next()) else { panic!("no nodeup") };
    Inside { rust, beam, events, ticktime, _epmd: epmd }
}

impl Inside {
    /// A fault has begun: waits until the Rust node gives the connection up, lets dials fail for a while, heals, and waits for
    /// the connection.
    pub(super) fn lost_and_back(&mut self, figures: &Figures, hosts: &Hosts, fault: &str) {
        let since = Instant::now();
        match self.rust.run(self.events.next()) {
            Some(Event::NodeDown { .. }) => figures.noticed(fault, self.ticktime, since.elapsed()),
            other => panic!("{other:?}"),
        }
        std::thread::sleep(Duration::from_millis(2_300));
        hosts.heal();
        let since = Instant::now();
        match self.rust.run(self.events.next()) {
            Some(Event::NodeUp { .. }) => figures.back(fault, since.elapsed()),
            other => panic!("{other:?}"),
        }
    }
}
