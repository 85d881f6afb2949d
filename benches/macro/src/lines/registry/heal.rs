//! Names that were registered while the nodes were apart: how long until the other node has them, and what they take.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::super::Request;
use super::{HORDE, Kind, OWN, Pair, TO_BEAM, TO_RUST, count, figure, until};
use crate::placement::{Placement, resident, resident_peak};
use crate::stage::Peer;
use crate::table::{Line, Sample, at_most};

/// How long each step may take: registering, connecting again, finding all. A row that needs longer says so, and its nodes end.
const FEW: (usize, Duration) = (10_000, Duration::from_secs(60));
/// The same for many.
const MANY: (usize, Duration) = (100_000, Duration::from_secs(300));
/// Buffers of the exchange are given back within this.
const SETTLED: Duration = Duration::from_secs(3);
/// A pair, and whether its far node registers.
const ROWS: [(&str, Kind, bool); 4] = [
    (HORDE, Kind::Horde, false),
    (TO_BEAM, Kind::Mixed, false),
    (TO_RUST, Kind::Mixed, true),
    (OWN, Kind::Own, false),
];

/// What one pair has done.
#[derive(Clone, Debug)]
struct Healed {
    /// From the moment in which the network carried again until both nodes named each other.
    linked: Duration,
    /// From that moment until all names were found.
    found: Duration,
    /// Of both directions.
    bytes: u64,
    /// What the node that registered has taken, and the other: resident, at the most, and of a BEAM what it has allocated.
    memory: [[f64; 3]; 2],
}

/// Of 10,000 names. With `--against`, also between Rust nodes of that program and the same others.
pub(in crate::lines) fn few(request: &Request, show: &mut dyn FnMut(Line<'_>)) {
    let Some(code) = code(request, show) else { return };
    let (names, patience) = FEW;
    let line = Line::new(
        "10,000 names registered while apart, from the heal until the other node has them",
        Placement::Unpinned,
        "s",
    );
    let mut few = ROWS.into_iter().fold(line, |line, row| {
        let code = &code;
        line.with(row.0, move || Ok(heal(request, code, row, None, names, patience)?.sample(names)))
    });
    if let Some(earlier) = request.against.as_deref() {
        for row in ROWS.into_iter().filter(|(_, kind, _)| !matches!(kind, Kind::Horde)) {
            let code = &code;
            few = few.with(format!("{}, earlier", row.0), move || {
                Ok(heal(request, code, row, Some(earlier), names, patience)?.sample(names))
            });
        }
    }
    show(few.goal(at_most(TO_BEAM, 1.0, HORDE)).goal(at_most(OWN, 1.0, HORDE)));
}

/// Of 100,000 names, and their memory.
pub(in crate::lines) fn many(request: &Request, show: &mut dyn FnMut(Line<'_>)) {
    let Some(code) = code(request, show) else { return };
    let (names, patience) = MANY;
    let healed: RefCell<BTreeMap<&str, Result<Healed, String>>> = RefCell::default();
    let line = Line::new(
        "100,000 names registered while apart, from the heal until the other node has them",
        Placement::Unpinned,
        "s",
    );
    let many = ROWS.into_iter().fold(line, |line, row| {
        let (code, healed) = (&code, &healed);
        line.with(row.0, move || {
            let done = heal(request, code, row, None, names, patience);
            healed.borrow_mut().insert(row.0, done.clone());
            Ok(done?.sample(names))
        })
    });
    show(many.goal(at_most(TO_BEAM, 1.0, HORDE)).goal(at_most(OWN, 1.0, HORDE)).once());

    let mut line = Line::new("memory of each of these names", Placement::Unpinned, "bytes resident");
    for (name, ..) in ROWS {
        for (side, at) in [("here", 0), ("there", 1)] {
            let healed = &healed;
            line = line.with(format!("{name}, {side}"), move || {
                let done = healed.borrow().get(name).cloned().ok_or("not run")??;
                let [resident, peak, own] = done.memory[at].map(|bytes| bytes / names as f64);
                let mut extras = vec![("at the most", peak)];
                extras.extend((!own.is_nan()).then_some(("erlang:memory(total)", own)));
                Ok(Sample { value: resident, extras })
            });
        }
    }
    show(
        line.goal(at_most("Rust→Horde BEAM, here", 1.0, "Rust→Horde BEAM, there"))
            .goal(at_most("Horde BEAM→Rust, there", 1.0, "Horde BEAM→Rust, here"))
            .once(),
    );
}

/// The unmodified libraries; without them a line says why there is nothing.
fn code(request: &Request, show: &mut dyn FnMut(Line<'_>)) -> Option<Vec<PathBuf>> {
    let code = super::code(request);
    code.inspect_err(|why| {
        show(Line::new("names", Placement::Unpinned, "").with(HORDE, || Err(why.clone())));
    })
    .ok()
}

impl Healed {
    fn sample(&self, names: usize) -> Sample {
        let linked = self.linked.as_secs_f64();
        let bytes = self.bytes as f64 / names as f64;
        Sample {
            value: self.found.as_secs_f64(),
            extras: vec![("connected after", linked), ("bytes a name", bytes)],
        }
    }
}

/// Parts two nodes of their own, registers names on one of them, lets the network carry again, and waits until the other node
/// has them. The nodes end with it: what they still say to each other disturbs nobody.
fn heal(
    request: &Request,
    code: &[PathBuf],
    (_, kind, backwards): (&str, Kind, bool),
    program: Option<&Path>,
    names: usize,
    patience: Duration,
) -> Result<Healed, String> {
    let pair = Pair::start(kind, program, request, code)?;
    let ends = [&*pair.near, &*pair.far];
    let [from, to] = if backwards { [ends[1], ends[0]] } else { ends };
    let near = |at: &dyn Peer, of: &dyn Peer| -> Result<bool, String> {
        Ok(figure(&at.op(&format!("names_near node={}", of.name()))?, "near") > 0.0)
    };
    let there = count(to)? + names;
    let before = [memory(from), memory(to)];
    pair.wire.partition();
    pair.wire.cut();
    until(patience, "both notice", || Ok(!near(from, to)? && !near(to, from)?))?;
    let first = pair.new_names(names);
    from.op(&format!("names_fill first={first} count={names}"))?;
    // With the one from before. Horde also counts that of the other node; ours does not find what is out of reach.
    until(patience, "all are registered", || Ok(count(from)? > names))?;
    let carried = pair.carried();
    let start = Instant::now();
    pair.wire.heal();
    until(patience, "both are connected again", || Ok(near(from, to)? && near(to, from)?))?;
    let linked = start.elapsed();
    until(patience, "all are found", || Ok(count(to)? >= there))?;
    let found = start.elapsed();
    let bytes = pair.carried() - carried;
    sleep(SETTLED);
    let after = [memory(from), memory(to)];
    let memory = [0, 1].map(|side: usize| {
        let ([was, _, own_was], [is, most, own]) = (before[side], after[side]);
        [is - was, most - was, own - own_was]
    });
    Ok(Healed { linked, found, bytes, memory })
}

/// Resident bytes, the most that there were since the start, and what a BEAM says that it has allocated; it gives garbage back first.
fn memory(peer: &dyn Peer) -> [f64; 3] {
    let own = peer.op("names_memory").map_or(f64::NAN, |numbers| figure(&numbers, "bytes"));
    [resident(peer.pid()) as f64, resident_peak(peer.pid()) as f64, own]
}
