//! `gen_server:call` and `erpc:call`.

use super::Request;
use crate::stage::{Peer, Stage, with_cpu};
use crate::table::{Line, Sample, at_least, at_most};

pub(super) fn lines(request: &Request, stage: &Stage, show: &mut dyn FnMut(Line<'_>)) {
    for (op, title) in [("call", "gen_server:call"), ("erpc", "erpc:call")] {
        for callers in [1, 64] {
            let count =
                (request.millis * 20.0 / f64::from(callers)).ceil() * if callers == 1 { 0.6 } else { 1.5 };
            let count = count.ceil();
            let (name, unit) =
                if callers == 1 { ("one caller", "µs") } else { ("64 callers at once", "calls/s") };
            let mut line = Line::new(format!("{title}, {name}"), stage.placement, unit);
            let pairs: [(&str, &dyn Peer, &dyn Peer); 4] = [
                ("BEAM→BEAM", &stage.beam, &stage.far_beam),
                ("BEAM→Rust", &stage.beam, &stage.far_rust),
                ("Rust→BEAM", &stage.rust, &stage.far_beam),
                ("Rust→Rust", &stage.rust, &stage.far_rust),
            ];
            for (name, from, to) in stage.with_others(pairs) {
                let text = format!("{op} node={} callers={callers} count={count}", to.name());
                line = line.with(name, move || {
                    let calls = f64::from(callers) * count;
                    let (numbers, cpu_from, cpu_to) = with_cpu(from, to, calls, || from.op(&text))?;
                    let get = |name: &str| numbers.get(name).copied().unwrap_or(f64::NAN);
                    let rate = calls * 1e6 / get("us");
                    let value = if callers == 1 { get("p50") } else { rate };
                    let mut extras = vec![("p50", get("p50")), ("p99", get("p99"))];
                    // What a call costs the side that is a BEAM bounds the rate, whoever is at the other end.
                    if callers > 1 {
                        extras.extend([("cpu-from", cpu_from), ("cpu-to", cpu_to)]);
                    }
                    Ok(Sample { value, extras })
                });
            }
            show(if callers == 1 {
                line.goal(at_most("BEAM→Rust", 0.8, "BEAM→BEAM")).goal(at_most("Rust→BEAM", 0.8, "BEAM→BEAM"))
            } else {
                line.goal(at_least("BEAM→Rust", 5.0, "BEAM→BEAM"))
                    .goal(at_least("Rust→BEAM", 5.0, "BEAM→BEAM"))
                    .goal(at_least("Rust→Rust", 5.0, "BEAM→BEAM"))
            });
        }
    }
}
