//! One-way messages.

use super::{Request, Unit, limits, throughput};
use crate::foreign::Foreign;
use crate::placement::Placement;
use crate::stage::{Peer, Stage};
use crate::table::{Line, at_least, at_most, reaches, within};

const SMALL: usize = 16;

/// `{msg, N, <<_:16/binary>>}`, encoded one by one, checked for order at the receiver.
pub(super) fn small(request: &Request, stage: &Stage, show: &mut dyn FnMut(Line<'_>)) {
    for senders in [1, 8, 64] {
        let foreign = if senders == 1 { Foreign::all(stage) } else { Vec::new() };
        let line = four_ways(request, stage, senders, SMALL, Unit::Messages)
            .goal(at_least("Rust→BEAM", 1.8, "BEAM→BEAM"))
            .goal(at_least("Rust→Rust", 10.0, "BEAM→BEAM"))
            .goal(reaches("Rust→Rust", 5e6));
        show(cpu_goals(with_foreign(line, request, stage, &foreign, SMALL, Unit::Messages)));
    }
}

/// The same on stated processors.
pub(super) fn small_placed(request: &Request, stage: &Stage, show: &mut dyn FnMut(Line<'_>)) {
    let foreign = Foreign::all(stage);
    let mut line = four_ways(request, stage, 1, SMALL, Unit::Messages);
    if stage.placement == Placement::TwoCpus {
        line = line.goal(at_least("Rust→BEAM", 3.0, "BEAM→BEAM"));
    }
    show(cpu_goals(with_foreign(line, request, stage, &foreign, SMALL, Unit::Messages)));
}

/// Larger messages, in megabytes a second.
pub(super) fn sizes(request: &Request, stage: &Stage, show: &mut dyn FnMut(Line<'_>)) {
    for (size, senders) in [(1 << 10, 1), (64 << 10, 1), (1 << 20, 1), (1 << 20, 8)] {
        let foreign = if senders == 1 { Foreign::all(stage) } else { Vec::new() };
        let line = four_ways(request, stage, senders, size, Unit::Megabytes);
        let mut line = with_foreign(line, request, stage, &foreign, size, Unit::Megabytes)
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
    for (name, from, to) in stage.with_others(pairs) {
        line = line.with(name, throughput("send", from, to, senders, size, request.millis, unit));
    }
    line
}

fn with_foreign<'a>(
    mut line: Line<'a>,
    request: &Request,
    stage: &'a Stage,
    foreign: &'a [Foreign],
    size: usize,
    unit: Unit,
) -> Line<'a> {
    for nodes in foreign {
        let pairs = [
            (
                format!("{}→BEAM", nodes.library),
                nodes.sender().map(|from| (from, &stage.far_beam as &dyn Peer)),
            ),
            (format!("BEAM→{}", nodes.library), nodes.receiver().map(|to| (&stage.beam as &dyn Peer, to))),
        ];
        for (name, pair) in pairs {
            line = match pair {
                Ok((from, to)) => {
                    line.with(name, throughput("send", from, to, 1, size, request.millis, unit))
                }
                Err(why) => line.with(name, move || Err(why.clone())),
            };
        }
    }
    line
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
