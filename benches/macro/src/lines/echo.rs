//! Round trips.

use super::{Request, times};
use crate::foreign::Foreign;
use crate::placement::Placement;
use crate::stage::{Peer, Stage};
use crate::table::{Line, at_most};

/// `{From, Binary}` to a registered name, which sends the binary back.
pub(super) fn lines(request: &Request, stage: &Stage, show: &mut dyn FnMut(Line<'_>)) {
    let foreign = Foreign::all(stage);
    for (size, count) in [(16, 3000), (1 << 10, 3000), (64 << 10, 1000), (1 << 20, 100)] {
        let count = (f64::from(count) * request.millis / 300.0).ceil().max(10.0);
        let mut line = Line::new(format!("echo of {size} bytes, round trip"), stage.placement, "µs");
        let pairs: [(&str, &dyn Peer, &dyn Peer); 4] = [
            ("BEAM↔BEAM", &stage.beam, &stage.far_beam),
            ("Rust↔BEAM", &stage.rust, &stage.far_beam),
            ("BEAM↔Rust", &stage.beam, &stage.far_rust),
            ("Rust↔Rust", &stage.rust, &stage.far_rust),
        ];
        for (name, from, to) in stage.with_others(pairs) {
            line = line.with(name, times(from, format!("echo node={} count={count} size={size}", to.name())));
        }
        for nodes in &foreign {
            let name = format!("BEAM↔{}", nodes.library);
            line = match nodes.receiver() {
                Ok(to) => {
                    let text = format!("echo node={} count={count} size={size}", to.name());
                    line.with(name, times(&stage.beam, text))
                }
                Err(why) => line.with(name, move || Err(why.clone())),
            };
        }
        if size >= 64 << 10 {
            line = line.goal(at_most("BEAM↔Rust", 0.6, "BEAM↔BEAM")).goal(at_most(
                "Rust↔Rust",
                0.6,
                "BEAM↔BEAM",
            ));
        } else if stage.placement != Placement::Unpinned {
            line = line.goal(at_most("BEAM↔Rust", 1.0, "BEAM↔libei"));
        }
        show(line);
    }
}
