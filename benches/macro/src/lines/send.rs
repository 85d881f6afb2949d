//! One-way messages.

use super::{Request, Unit, limits, throughput};
use crate::ei::Ei;
use crate::placement::Placement;
use crate::stage::{Peer, Stage};
use crate::table::{Line, at_least, at_most, reaches, within};

const SMALL: usize = 16;

/// `{msg, N, <<_:16/binary>>}`, encoded one by one, checked for order at the receiver.
pub(super) fn small(request: &Request, stage: &Stage, show: &mut dyn FnMut(Line<'_>)) {
    for senders in [1, 8, 64] {
        let ei = (senders == 1).then(|| Ei::start(stage));
        let mut line = four_ways(request, stage, senders, SMALL, Unit::Messages)
            .goal(at_least("Rust→BEAM", 1.8, "BEAM→BEAM"))
            .goal(at_least("Rust→Rust", 10.0, "BEAM→BEAM"))
            .goal(reaches("Rust→Rust", 5e6));
        if let Some(ei) = &ei {
            line = with_ei(line, request, stage, ei, SMALL, Unit::Messages);
        }
        show(cpu_goals(line));
    }
}

/// The same on stated processors.
pub(super) fn small_placed(request: &Request, stage: &Stage, show: &mut dyn FnMut(Line<'_>)) {
    let ei = Ei::start(stage);
    let mut line = four_ways(request, stage, 1, SMALL, Unit::Messages);
    if stage.placement == Placement::TwoCpus {
        line = line.goal(at_least("Rust→BEAM", 3.0, "BEAM→BEAM"));
    }
    show(cpu_goals(with_ei(line, request, stage, &ei, SMALL, Unit::Messages)));
}

/// Larger messages, in megabytes a second.
pub(super) fn sizes(request: &Request, stage: &Stage, show: &mut dyn FnMut(Line<'_>)) {
    for (size, senders) in [(1 << 10, 1), (64 << 10, 1), (1 << 20, 1), (1 << 20, 8)] {
        let ei = (senders == 1).then(|| Ei::start(stage));
        let mut line = four_ways(request, stage, senders, size, Unit::Megabytes);
        if let Some(ei) = &ei {
            line = with_ei(line, request, stage, ei, size, Unit::Megabytes);
        }
        line = line
            .with("raw TCP", limits::raw_tcp(stage.placement, size.max(64 << 10), request.millis))
            .goal(at_least("Rust→BEAM", 2.0, "BEAM→BEAM"))
            .goal(at_least("BEAM→Rust", 2.0, "BEAM→BEAM"))
            .goal(at_least("Rust→Rust", 2.0, "BEAM→BEAM"));
        if size >= 1 << 20 {
            line = line.goal(at_least("Rust→Rust", 0.95, "raw TCP"));
        }
        show(line);
    }
}

fn four_ways<'a>(request: &Request, stage: &'a Stage, senders: usize, size: usize, unit: Unit) -> Line<'a> {
    let title = format!("{} messages, {senders} sender(s), one connection", bytes(size));
    let name = match unit {
        Unit::Messages => "messages/s",
        Unit::Megabytes => "MB/s",
    };
    let mut line = Line::new(title, stage.placement, name);
    let pairs: [(&str, &'a dyn Peer, &'a dyn Peer); 4] = [
        ("BEAM→BEAM", &stage.beam, &stage.far_beam),
        ("Rust→BEAM", &stage.rust, &stage.far_beam),
        ("BEAM→Rust", &stage.beam, &stage.far_rust),
        ("Rust→Rust", &stage.rust, &stage.far_rust),
    ];
    for (name, from, to) in pairs {
        line = line.with(name, throughput(from, to, senders, size, request.millis, unit));
    }
    line
}

fn with_ei<'a>(
    line: Line<'a>,
    request: &Request,
    stage: &'a Stage,
    ei: &'a Result<Ei, String>,
    size: usize,
    unit: Unit,
) -> Line<'a> {
    match ei {
        Ok(ei) => line
            .with("libei→BEAM", throughput(&ei.sender, &stage.far_beam, 1, size, request.millis, unit))
            .with("BEAM→libei", throughput(&stage.beam, &ei.receiver, 1, size, request.millis, unit)),
        Err(why) => {
            let (one, other) = (why.clone(), why.clone());
            line.with("libei→BEAM", move || Err(one.clone())).with("BEAM→libei", move || Err(other.clone()))
        }
    }
}

fn cpu_goals(line: Line<'_>) -> Line<'_> {
    line.goal(within("BEAM→Rust", 1.1).extra("cpu-to"))
        .goal(at_most("BEAM→Rust", 0.5, "BEAM→BEAM").extra("cpu-to"))
        .goal(within("Rust→BEAM", 0.3).extra("cpu-from"))
        .goal(within("Rust→Rust", 0.2).extra("cpu-from"))
        .goal(within("Rust→Rust", 0.2).extra("cpu-to"))
}

fn bytes(size: usize) -> String {
    match size {
        size if size >= 1 << 20 => format!("{} MiB", size >> 20),
        size if size >= 1 << 10 => format!("{} KiB", size >> 10),
        size => format!("{size}-byte"),
    }
}
