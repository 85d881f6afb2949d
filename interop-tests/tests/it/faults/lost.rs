//! Connections that are lost: by a death, in silence, in one direction, in both.

use std::time::{Duration, Instant};

use foundation_interop_tests::{Case, Release, case};

use super::figures::Figures;
use super::pair::{BEAM, RUST};
use super::{Pair, TICKTIME, TOPIC};
use crate::rust::WAIT;

#[test]
fn a_killed_peer() {
    case(
        Case::Smoke,
        TOPIC,
        "a killed BEAM node is noticed at once; each link and monitor fires once with noconnection",
        |release| {
            let figures = Figures::of(release);
            for _ in figures.rounds() {
                let mut pair = Pair::start(release);
                pair.entangle();
                let since = Instant::now();
                pair.beam.kill();
                let (reason, took) = pair.rust_notices(since);
                figures.timed("peer killed", "noticed", Some(0.1), took);
                assert_eq!(reason, "connection_closed");
                pair.all_fired_here();
            }
            figures.done();
            Ok(())
        },
    );
}

#[test]
fn a_stopped_peer() {
    case(
        Case::Full,
        TOPIC,
        "a stopped BEAM node (SIGSTOP) is given up within 1.25 x net_ticktime, and back when it goes on",
        |release| {
            let figures = Figures::of(release);
            for _ in figures.rounds() {
                let mut pair = Pair::start(release);
                pair.entangle();
                pair.beam.pause();
                let (reason, took) = pair.rust_notices(Instant::now());
                figures.noticed("peer stopped (SIGSTOP)", TICKTIME, took);
                assert_eq!(reason, "net_tick_timeout");
                pair.all_fired_here();
                pair.beam.resume();
                figures.back("peer stopped (SIGSTOP)", pair.rust_is_back(Instant::now()));
                pair.beam_hears("nodedown", WAIT / 2);
                pair.beam_hears("nodeup", WAIT / 2);
                pair.all_fired_there();
                pair.nothing_is_left();
            }
            figures.done();
            Ok(())
        },
    );
}

#[test]
fn a_two_way_partition() {
    case(
        Case::Full,
        TOPIC,
        "a partition is noticed on both sides within their tick times; healed, they are in touch within a second",
        |release| {
            lost_and_back(release, "net_tick_timeout", "partition", |pair| pair.wire.partition());
            Ok(())
        },
    );
}

#[test]
fn nothing_arrives_here() {
    case(
        Case::Full,
        TOPIC,
        "a one-way partition, the Rust node hears nothing: noticed within 1.25 x net_ticktime, healed within a second",
        |release| {
            lost_and_back(release, "net_tick_timeout", "one-way, nothing arrives here", |pair| {
                pair.wire.stall_from(BEAM)
            });
            Ok(())
        },
    );
}

#[test]
fn nothing_arrives_there() {
    case(
        Case::Full,
        TOPIC,
        "a one-way partition, the BEAM node hears nothing: noticed within 1.25 x net_ticktime, healed within a second",
        |release| {
            lost_and_back(release, "connection_closed", "one-way, nothing arrives there", |pair| {
                pair.wire.stall_from(RUST)
            });
            Ok(())
        },
    );
}

/// Harms the wire; both sides give the connection up, the Rust node for this reason. Healed, they are in touch again.
fn lost_and_back(release: &Release, reason: &str, fault: &str, harm: impl Fn(&Pair)) {
    let figures = Figures::of(release);
    for _ in figures.rounds() {
        let mut pair = Pair::start(release);
        pair.entangle();
        harm(&pair);
        let since = Instant::now();
        let (said, took) = pair.rust_notices(since);
        figures.noticed(fault, TICKTIME, took);
        assert_eq!(said, reason);
        pair.all_fired_here();
        // The documented interval of OTP for a symmetric fault; more was measured for a one-way one.
        let there = pair.beam_hears("nodedown", WAIT / 2);
        assert!(there == "net_tick_timeout" || there == "connection_closed", "{there}");
        figures.timed(fault, &format!("noticed by OTP, net_ticktime {TICKTIME} s"), None, since.elapsed());
        pair.all_fired_there();
        // A second in which dials come to nothing.
        std::thread::sleep(Duration::from_secs(1));
        pair.wire.heal();
        figures.back(fault, pair.rust_is_back(Instant::now()));
        assert_eq!(pair.beam_hears("nodeup", WAIT / 2), "up");
        pair.nothing_is_left();
    }
    figures.done();
}

#[test]
fn a_half_open_connection() {
    case(
        Case::Full,
        TOPIC,
        "a connection that only one side still believes in: found out by either, replaced, the corpse disturbs nobody",
        |release| {
            let figures = Figures::of(release);
            for _ in figures.rounds() {
                // The BEAM has lost it, and says so by connecting anew.
                let mut pair = Pair::start(release);
                pair.entangle();
                pair.wire.half_open(RUST);
                assert_eq!(pair.beam_hears("nodedown", WAIT / 2), "connection_closed");
                assert_eq!(pair.beam.eval("net_kernel:connect_node('rust@127.0.0.1')"), "true");
                let (reason, _) = pair.rust_notices(Instant::now());
                assert_eq!(reason, "connection_closed");
                pair.all_fired_here();
                pair.rust_is_back(Instant::now());
                pair.all_fired_there();
                pair.nothing_is_left();

                // We have lost it: we dial, and the BEAM gives its own up.
                let mut pair = Pair::start(release);
                pair.entangle();
                pair.wire.half_open(BEAM);
                let since = Instant::now();
                let (reason, _) = pair.rust_notices(since);
                assert_eq!(reason, "connection_closed");
                pair.all_fired_here();
                let back = pair.rust_is_back(since);
                // OTP 23 answers `alive` and lets the new connection wait until its own tick time has ended the old one.
                let goal = if release.number < 25 { f64::from(TICKTIME) * 1.25 } else { 1.0 };
                figures.timed("half-open, the peer does not know", "back after the loss", Some(goal), back);
                assert_ne!(pair.beam_hears("nodedown", WAIT / 2), "nothing");
                assert_eq!(pair.beam_hears("nodeup", WAIT / 2), "up");
                pair.all_fired_there();
                pair.nothing_is_left();
                // The dead sockets say nothing for longer than the tick time, and nobody minds.
                std::thread::sleep(Duration::from_secs(TICKTIME.into()) * 3 / 2);
                assert_eq!(pair.beam_hears("nodedown", Duration::ZERO), "nothing");

                // Nobody connects: the silence is noticed.
                let mut pair = Pair::start(release);
                pair.entangle();
                pair.wire.half_open(RUST);
                let (reason, took) = pair.rust_notices(Instant::now());
                figures.noticed("half-open, we do not know", TICKTIME, took);
                assert_eq!(reason, "net_tick_timeout");
                pair.all_fired_here();
            }
            figures.done();
            Ok(())
        },
    );
}

#[test]
fn a_reset_connection() {
    case(
        Case::Full,
        TOPIC,
        "a reset connection is made anew within a second, 20 times in a row",
        |release| {
            let figures = Figures::of(release);
            let mut pair = Pair::start(release);
            pair.entangle();
            for round in 0..20 {
                let since = Instant::now();
                pair.wire.cut();
                let (reason, _) = pair.rust_notices(since);
                assert_eq!(reason, "connection_closed");
                figures.timed("connection reset", "back after the loss", Some(1.0), pair.rust_is_back(since));
                assert_eq!(pair.beam_hears("nodedown", WAIT / 2), "connection_closed");
                assert_eq!(pair.beam_hears("nodeup", WAIT / 2), "up");
                if round == 0 {
                    pair.all_fired_here();
                    pair.all_fired_there();
                    pair.nothing_is_left();
                }
            }
            pair.nothing_is_left();
            figures.done();
            Ok(())
        },
    );
}
