//! Names of the unmodified Horde.Registry between BEAM nodes, of our member beside one, and of our own registry between Rust nodes.
//!
//! The two nodes of a pair are connected through a relay of this program that counts bytes and can part them.

pub(super) mod heal;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use foundation_interop_tests::Epmd;
use foundation_interop_tests::wire::{Host, Wire};

use super::Request;
use crate::placement::Placement;
use crate::stage::{Peer, compiled, start_horde_beam, start_rust_with};
use crate::stats::Numbers;
use crate::table::{Line, Sample, at_most, within};

/// What Horde needs, each after what it needs itself, as folders of `$FOUNDATION_ECOSYSTEM`.
const LIBRARIES: [&str; 6] =
    ["telemetry", "telemetry_poller", "merkle_map", "delta_crdt_ex", "libring", "horde"];
/// Names that are there before anything is measured.
const THERE: usize = 10_000;
/// How long a pair may take to agree.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long bytes of pairs that do nothing are counted: several beats, and a tick of each node.
const IDLE: Duration = Duration::from_secs(20);
const HORDE: &str = "Horde BEAM→BEAM";
const TO_BEAM: &str = "Rust→Horde BEAM";
const TO_RUST: &str = "Horde BEAM→Rust";
const OWN: &str = "Rust→Rust";

/// Two nodes that share names.
struct Pair {
    near: Box<dyn Peer>,
    far: Box<dyn Peer>,
    /// The number of the next name that is new.
    next: Cell<usize>,
    wire: Wire,
    _epmd: Epmd,
}

#[derive(Clone, Copy)]
enum Kind {
    Horde,
    Mixed,
    Own,
}

/// A pair and a direction in it.
type Row<'a> = (&'static str, &'a Pair, &'a dyn Peer, &'a dyn Peer);

/// Three pairs, each with both directions that differ.
struct Pairs([Pair; 3]);

impl Pairs {
    fn start(request: &Request, code: &[PathBuf]) -> Result<Self, String> {
        let start = |kind| Pair::start(kind, None, request, code);
        Ok(Self([start(Kind::Horde)?, start(Kind::Mixed)?, start(Kind::Own)?]))
    }

    fn rows(&self) -> [Row<'_>; 4] {
        let [horde, mixed, own] = &self.0;
        [
            (HORDE, horde, &*horde.near, &*horde.far),
            (TO_BEAM, mixed, &*mixed.near, &*mixed.far),
            (TO_RUST, mixed, &*mixed.far, &*mixed.near),
            (OWN, own, &*own.near, &*own.far),
        ]
    }
}

impl Pair {
    /// Rust nodes are of this program, or of another build of it.
    fn start(
        kind: Kind,
        program: Option<&Path>,
        request: &Request,
        code: &[PathBuf],
    ) -> Result<Self, String> {
        let epmd = Epmd::start(&request.release);
        let wire = Wire::new(&epmd);
        let beam = |port, name| -> Result<Box<dyn Peer>, String> {
            Ok(Box::new(start_horde_beam(&request.release, port, name, code)))
        };
        let rust = |port, name| -> Result<Box<dyn Peer>, String> {
            Ok(Box::new(start_rust_with(program, port, name, None, &["--visible"])?))
        };
        let (near, far) = match kind {
            Kind::Horde => (beam(wire.a(), "a")?, beam(wire.b(), "b")?),
            Kind::Mixed => (rust(wire.a(), "r")?, beam(wire.b(), "b")?),
            Kind::Own => (rust(wire.a(), "r")?, rust(wire.b(), "s")?),
        };
        let own = if matches!(kind, Kind::Own) { " own=1" } else { "" };
        near.op(&format!("names_link node={}", far.name()))?;
        for (at, other) in [(&near, &far), (&far, &near)] {
            at.op(&format!("names_open node={}{own}", other.name()))?;
        }
        let pair = Self { near, far, next: Cell::new(0), wire, _epmd: epmd };
        // Both are members once each finds what the other has registered.
        for (at, other) in [(&pair.near, &pair.far), (&pair.far, &pair.near)] {
            let before = count(&**other)?;
            at.op(&format!("names_register first={} count=1", pair.new_names(100)))?;
            until(PATIENCE, "the members find each other", || Ok(count(&**other)? > before))?;
        }
        Ok(pair)
    }

    /// Numbers that no name has. They begin with a process of their own, so that each is registered by one node.
    fn new_names(&self, count: usize) -> usize {
        let first = self.next.get();
        self.next.set((first + count).next_multiple_of(100));
        first
    }

    fn carried(&self) -> u64 {
        self.wire.carried_from(Host::A) + self.wire.carried_from(Host::B)
    }

    /// Registers names and waits until both nodes have them.
    fn fill(&self, from: &dyn Peer, to: &dyn Peer, names: usize) -> Result<usize, String> {
        let (here, there) = (count(from)? + names, count(to)? + names);
        let first = self.new_names(names);
        from.op(&format!("names_fill first={first} count={names}"))?;
        until(PATIENCE, "all are registered", || Ok(count(from)? >= here))?;
        until(PATIENCE, "all are found", || Ok(count(to)? >= there))?;
        Ok(first)
    }
}

pub(super) fn figure(numbers: &Numbers, name: &str) -> f64 {
    numbers.get(name).copied().unwrap_or(f64::NAN)
}

fn count(peer: &dyn Peer) -> Result<usize, String> {
    Ok(figure(&peer.op("names_count")?, "names") as usize)
}

pub(super) fn until(
    patience: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<bool, String>,
) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    while !condition()? {
        if Instant::now() > deadline {
            return Err(format!("not within {} s: {what}", patience.as_secs()));
        }
        sleep(Duration::from_millis(5));
    }
    Ok(())
}

pub(super) fn lines(request: &Request, show: &mut dyn FnMut(Line<'_>)) {
    match code(request).and_then(|code| Pairs::start(request, &code)) {
        Ok(pairs) => few(request, &pairs, show),
        Err(why) => show(Line::new("names", Placement::Unpinned, "").with("all", move || Err(why.clone()))),
    }
}

/// The unmodified libraries, compiled.
pub(super) fn code(request: &Request) -> Result<Vec<PathBuf>, String> {
    let sources = sources().ok_or_else(|| {
        format!("$FOUNDATION_ECOSYSTEM lacks one of {}; see make ecosystem", LIBRARIES.join(", "))
    })?;
    let epmd = Epmd::start(&request.release);
    Ok(compiled(&request.release, epmd.port, &sources))
}

type Run<'a> = Box<dyn FnMut() -> Result<Sample, String> + 'a>;

fn each<'a>(
    title: &str,
    unit: &'static str,
    rows: &[Row<'a>],
    run: impl Fn(&'a Pair, &'a dyn Peer, &'a dyn Peer) -> Run<'a>,
) -> Line<'a> {
    let line = Line::new(title, Placement::Unpinned, unit);
    rows.iter().fold(line, |line, (name, pair, from, to)| line.with(*name, run(pair, *from, *to)))
}

fn percentiles(numbers: &Numbers, scale: f64) -> Sample {
    let get = |name| figure(numbers, name) / scale;
    Sample { value: get("p50"), extras: vec![("p99", get("p99"))] }
}

fn few(request: &Request, pairs: &Pairs, show: &mut dyn FnMut(Line<'_>)) {
    let rows = pairs.rows();
    let there = Cell::new(0);
    show(
        each(
            &format!("{THERE} names, one after the other, until both nodes have them"),
            "s",
            &rows,
            |pair, from, to| {
                let there = &there;
                Box::new(move || {
                    let start = Instant::now();
                    there.set(pair.fill(from, to, THERE)?);
                    Ok(start.elapsed().as_secs_f64().into())
                })
            },
        )
        .once(),
    );
    let samples = (request.millis * 2.0) as usize;
    show(
        each("registering a name, one after the other", "µs", &rows, |pair, from, _| {
            Box::new(move || {
                let first = pair.new_names(samples);
                Ok(percentiles(&from.op(&format!("names_register first={first} count={samples}"))?, 1.0))
            })
        })
        .goal(at_most(TO_BEAM, 1.0, HORDE))
        .goal(at_most(OWN, 1.0, HORDE)),
    );
    // Few stay in the processor's cache, so that the work is seen; many do not, as the names of a large cluster. The passes over
    // many take longer than a beat of Horde, which disturbs those of all nodes here.
    for (names, rounds) in [(100, request.millis), (THERE, request.millis / 2.0)] {
        let rounds = rounds.ceil() as usize;
        let limit = rows.iter().find(|(name, ..)| *name == OWN).map(|(.., from, _)| *from);
        let lookups = each(
            &format!("looking up a name of this node, {names} in turn, the fastest pass"),
            "ns",
            &rows,
            |pair, from, to| {
                let first = Cell::new(None);
                Box::new(move || {
                    let there = match first.get() {
                        Some(there) => there,
                        None => pair.fill(from, to, names)?,
                    };
                    first.set(Some(there));
                    let text = format!("names_lookup first={there} count={names} rounds={rounds}");
                    Ok(figure(&from.op(&text)?, "ns").into())
                })
            },
        );
        let lookups = limit.into_iter().fold(lookups, |lookups, node| {
            lookups.with("two reads of memory", move || {
                Ok(figure(&node.op(&format!("names_limit count={names} rounds={rounds}"))?, "ns").into())
            })
        });
        show(lookups.goal(within(OWN, 200.0)).goal(within(TO_BEAM, 200.0)));
    }
    // What was registered so far, and is still on its way, would be in the way.
    for pair in &pairs.0 {
        let agreed =
            until(PATIENCE, "both nodes have all names", || Ok(count(&*pair.near)? == count(&*pair.far)?));
        if let Err(why) = agreed {
            eprintln!("{why}");
        }
    }
    show(
        each(
            "a name registered here, until the other node finds it and has said so",
            "ms",
            &rows,
            |pair, from, to| {
                Box::new(move || {
                    let first = pair.new_names(10);
                    let text = format!("names_seen node={} first={first} count=10", to.name());
                    let numbers = from.op(&text)?;
                    let mut sample = percentiles(&numbers, 1e3);
                    sample.extras.push(("there after", figure(&numbers, "there") / 1e3));
                    Ok(sample)
                })
            },
        )
        .goal(within(TO_BEAM, 1.0).extra("there after"))
        .goal(at_most(TO_BEAM, 0.1, HORDE))
        .goal(at_most(OWN, 0.1, HORDE)),
    );
    show(
        each("one name every 10 ms, bytes of both directions", "bytes a name", &rows, |pair, from, to| {
            Box::new(move || {
                let (first, there) = (pair.new_names(500), count(to)? + 500);
                let before = pair.carried();
                from.op(&format!("names_paced first={first} count=500 every=10"))?;
                until(PATIENCE, "all are found", || Ok(count(to)? >= there))?;
                // What follows a write: acknowledgements, and the next beat.
                sleep(Duration::from_secs(1));
                Ok(((pair.carried() - before) as f64 / 500.0).into())
            })
        })
        .goal(at_most(TO_BEAM, 1.0, HORDE))
        .goal(at_most(OWN, 1.0, HORDE))
        .once(),
    );
    let one_way: Vec<Row<'_>> = rows.iter().filter(|(name, ..)| *name != TO_RUST).copied().collect();
    show(
        each(
            "nothing happens, bytes of both directions, ticks included",
            "bytes/min",
            &one_way,
            |pair, _, _| {
                Box::new(move || {
                    // What was written has been said.
                    sleep(Duration::from_secs(2));
                    let before = pair.carried();
                    sleep(IDLE);
                    Ok(((pair.carried() - before) as f64 * 60.0 / IDLE.as_secs_f64()).into())
                })
            },
        )
        .goal(at_most(OWN, 0.01, HORDE))
        .once(),
    );
}

/// The unmodified libraries, each in its first version that is there.
fn sources() -> Option<Vec<PathBuf>> {
    let root = PathBuf::from(std::env::var_os("FOUNDATION_ECOSYSTEM")?);
    let sources = LIBRARIES.map(|library| root.join(library));
    let there = |folder: &PathBuf| ["mix.exs", "rebar.config"].iter().any(|file| folder.join(file).is_file());
    sources.iter().all(there).then(|| sources.into())
}
