//! Small messages beside large ones on the same connection.

use super::{Request, limits};
use crate::stage::{Peer, Stage};
use crate::stats::Numbers;
use crate::table::{Line, Sample, within};

pub(super) fn lines(request: &Request, stage: &Stage, show: &mut dyn FnMut(Line<'_>)) {
    show(line(request, stage, "echo started every 1 ms beside 10 senders of 8 MiB messages"));
}

pub(super) fn line<'a>(request: &Request, stage: &'a Stage, title: &str) -> Line<'a> {
    let millis = (request.millis * 4.0).ceil();
    let mut line = Line::new(title, stage.placement, "ms");
    let pairs: [(&str, &'a dyn Peer, &'a dyn Peer); 4] = [
        ("BEAM→BEAM", &stage.beam, &stage.far_beam),
        ("Rust→BEAM", &stage.rust, &stage.far_beam),
        ("Rust→Rust", &stage.rust, &stage.far_rust),
        ("BEAM→Rust", &stage.beam, &stage.far_rust),
    ];
    for (name, from, to) in stage.with_others(pairs) {
        let text = format!("hol node={} senders=10 size={} millis={millis}", to.name(), 8 << 20);
        line = line.with(name, move || sample(&from.op(&text)?));
    }
    // What the BEAM and the machine need by themselves: nothing stands in front of these echoes on their connection.
    let (from, other, to) = (&stage.rust, &stage.far_rust, &stage.far_beam);
    let text =
        move |senders| format!("hol node={} senders={senders} size={} millis={millis}", to.name(), 8 << 20);
    line = line.with("another node's beside Rust→BEAM", move || {
        let (echo, bulk) = std::thread::scope(|scope| {
            let bulk = scope.spawn(|| from.op(&text(10)));
            (other.op(&text(0)), bulk.join())
        });
        let bulk = bulk.map_err(|_| "the thread of the senders has ended")??;
        let mut numbers = echo?;
        numbers.extend(bulk.into_iter().filter(|(name, _)| name == "bulk"));
        sample(&numbers)
    });
    if !title.contains("TLS") {
        line = line.with("raw TCP, 2 sockets", limits::raw_tcp_beside_bulk(stage.placement, millis));
    }
    line.goal(within("Rust→BEAM", 0.3))
        .goal(within("Rust→BEAM", 2.0).extra("p99"))
        .goal(within("Rust→Rust", 0.3))
        .goal(within("Rust→Rust", 2.0).extra("p99"))
}

fn sample(numbers: &Numbers) -> Result<Sample, String> {
    let get = |name: &str| numbers.get(name).copied().unwrap_or(f64::NAN);
    if get("bad") != 0.0 {
        return Err(format!("{} messages were lost or out of order", get("bad")));
    }
    Ok(Sample {
        value: get("p50") / 1e3,
        extras: vec![("p99", get("p99") / 1e3), ("bulk MB/s", get("bulk"))],
    })
}
