//! Setting up a connection: EPMD lookup, TCP, handshake.

use super::{Request, times};
use crate::foreign::Foreign;
use crate::stage::{Peer, Stage};
use crate::table::{Line, at_most};

pub(super) fn lines(request: &Request, stage: &Stage, show: &mut dyn FnMut(Line<'_>)) {
    show(line(request, stage, &Foreign::all(stage), "connection set-up (EPMD and handshake)"));
}

/// Nodes of other libraries are connected to, not from: how long that takes shows what the BEAM's own side needs.
pub(super) fn line<'a>(request: &Request, stage: &'a Stage, foreign: &'a [Foreign], title: &str) -> Line<'a> {
    let count = (request.millis / 7.0).ceil();
    let mut line = Line::new(title, stage.placement, "µs");
    let pairs: [(&str, &'a dyn Peer, &'a dyn Peer); 4] = [
        ("BEAM→BEAM", &stage.beam, &stage.far_beam),
        ("BEAM→Rust", &stage.beam, &stage.far_rust),
        ("Rust→BEAM", &stage.rust, &stage.far_beam),
        ("Rust→Rust", &stage.rust, &stage.far_rust),
    ];
    for (name, from, to) in stage.with_others(pairs) {
        line = line.with(name, times(from, format!("connect node={} count={count}", to.name())));
    }
    for nodes in foreign {
        let name = format!("BEAM→{}", nodes.library);
        line = match nodes.receiver() {
            Ok(to) => {
                line.with(name, times(&stage.beam, format!("connect node={} count={count}", to.name())))
            }
            Err(why) => line.with(name, move || Err(why.clone())),
        };
    }
    line.goal(at_most("Rust→BEAM", 0.5, "BEAM→BEAM"))
        .goal(at_most("BEAM→Rust", 0.5, "BEAM→BEAM"))
        .goal(at_most("Rust→Rust", 0.5, "BEAM→BEAM"))
}
