//! What is measured. Each function makes the lines of one subject.

mod calls;
mod echo;
mod fail_over;
mod formation;
mod head_of_line;
mod idle;
mod limits;
mod mesh;
mod pubsub;
mod registry;
mod send;
mod set_up;
mod tls;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Instant;

use foundation_interop_tests::Release;

use crate::placement::Placement;
use crate::stage::{Peer, Stage, with_cpu};
use crate::table::{Line, Sample};

/// What a run was asked for.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) release: Release,
    /// Other releases, whose nodes are measured with each other.
    pub(crate) others: Vec<Release>,
    /// Parts of names of subjects; all of them if empty.
    pub(crate) subjects: Vec<String>,
    pub(crate) rounds: usize,
    /// How long one sample of a throughput lasts, in milliseconds.
    pub(crate) millis: f64,
    /// Another build of this program, whose Rust nodes take part in each line.
    pub(crate) against: Option<PathBuf>,
    /// Processors that have nothing to do are kept from halting.
    pub(crate) awake: bool,
}

impl Request {
    fn wants(&self, subject: &str) -> bool {
        self.subjects.is_empty() || self.subjects.iter().any(|wanted| subject.contains(wanted.as_str()))
    }
}

/// A subject: its name, where its nodes run, and what makes its lines.
type Subject = (&'static str, Placement, fn(&Request, &Stage, &mut dyn FnMut(Line<'_>)));

/// In the order of the table.
const SUBJECTS: &[Subject] = &[
    ("small", Placement::Unpinned, send::small),
    ("sizes", Placement::Unpinned, send::sizes),
    ("hol", Placement::Unpinned, head_of_line::lines),
    ("calls", Placement::Unpinned, calls::lines),
    ("connect", Placement::Unpinned, set_up::lines),
    ("small-one-cpu", Placement::OneCpu, send::small_placed),
    ("echo-one-cpu", Placement::OneCpu, echo::lines),
    ("calls-one-cpu", Placement::OneCpu, calls::lines),
    ("small-two-cpus", Placement::TwoCpus, send::small_placed),
    ("echo-two-cpus", Placement::TwoCpus, echo::lines),
    ("calls-two-cpus", Placement::TwoCpus, calls::lines),
];

/// The nodes of which one runs a singleton.
pub(crate) const JOBS: [&str; 3] = ["ja", "jb", "jc"];

/// The names of all subjects.
pub(crate) fn names() -> Vec<&'static str> {
    SUBJECTS
        .iter()
        .map(|(name, ..)| *name)
        .chain([
            "tls",
            "pubsub",
            "registry",
            "registry-heal-few",
            "registry-heal-many",
            "fail-over",
            "mesh",
            "formation",
            "idle",
            "limits",
        ])
        .collect()
}

/// Measures everything that was asked for; `show` gets each piece of the table as soon as it is there. A subject that fails is
/// shown as such, and the next one starts with nodes of its own.
pub(crate) fn run(request: &Request, show: &mut dyn FnMut(&str)) {
    for name in names().into_iter().filter(|name| request.wants(name)) {
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| subject(name, request, show)));
        let seconds = start.elapsed().as_secs_f64();
        show(&match outcome {
            Ok(()) => format!("\n[{name}: {seconds:.0} s]\n"),
            Err(panic) => {
                let why = panic.downcast_ref::<String>().map(String::as_str);
                let why = why.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
                format!("\n{name} — failed after {seconds:.0} s: {why}\n")
            }
        });
    }
}

fn subject(name: &str, request: &Request, show: &mut dyn FnMut(&str)) {
    match name {
        "tls" => tls::lines(request, &mut |line| show(&line.run(request.rounds))),
        "pubsub" => pubsub::lines(request, &mut |line| show(&line.run(request.rounds))),
        "registry" => registry::lines(request, &mut |line| show(&line.run(request.rounds))),
        "registry-heal-few" => registry::heal::few(request, &mut |line| show(&line.run(request.rounds))),
        "registry-heal-many" => registry::heal::many(request, &mut |line| show(&line.run(request.rounds))),
        "fail-over" => fail_over::lines(request, &mut |line| show(&line.run(request.rounds))),
        "mesh" => mesh::lines(request, &mut |line| show(&line.run(request.rounds))),
        "formation" => formation::lines(request, &mut |line| show(&line.run(request.rounds))),
        "idle" => show(&idle::text(request)),
        "limits" => limits::lines(request, &mut |line| show(&line.run(request.rounds))),
        _ => {
            for (_, placement, lines) in SUBJECTS.iter().filter(|(subject, ..)| *subject == name) {
                let stage = Stage::start(*placement, request, None);
                lines(request, &stage, &mut |line| show(&line.run(request.rounds)));
            }
        }
    }
}

/// A stage whose nodes speak TLS.
fn tls_stage(request: &Request, optfile: &Path) -> Stage {
    Stage::start(Placement::Unpinned, request, Some(optfile))
}

/// Sends as many messages as take about `millis`, and reports them per second, with the processor time of both sides.
fn throughput<'a>(
    with: &'static str,
    from: &'a dyn Peer,
    to: &'a dyn Peer,
    senders: usize,
    size: usize,
    millis: f64,
    unit: Unit,
) -> impl FnMut() -> Result<Sample, String> + 'a {
    let count = Cell::new(0_usize);
    let once = move |count: usize| {
        let text = format!("{with} node={} senders={senders} count={count} size={size}", to.name());
        let total = (count * senders) as f64;
        let (numbers, cpu_from, cpu_to) = with_cpu(from, to, total, || from.op(&text))?;
        let bad = numbers.get("bad").copied().unwrap_or(f64::NAN);
        if bad != 0.0 {
            return Err(format!("{bad} messages were lost or out of order"));
        }
        let us = numbers.get("us").copied().unwrap_or(f64::NAN);
        Ok((
            us,
            Sample {
                value: unit.of(total, total * size as f64, us),
                extras: vec![("cpu-from", cpu_from), ("cpu-to", cpu_to)],
            },
        ))
    };
    move || {
        if count.get() == 0 {
            // Before the first sample: how many messages fill the time.
            let mut tried = (256_usize << 10).div_ceil(size.max(256)).div_ceil(senders).max(4);
            loop {
                let (us, sample) = once(tried)?;
                let wanted = (tried as f64 * millis * 1e3 / us).ceil() as usize;
                if us > millis * 300.0 {
                    count.set(wanted.max(1));
                    return Ok(sample);
                }
                tried = wanted.clamp(tried + 1, tried * 8);
            }
        }
        once(count.get()).map(|(_, sample)| sample)
    }
}

/// What a throughput is counted in.
#[derive(Clone, Copy, Debug)]
enum Unit {
    Messages,
    Megabytes,
}

impl Unit {
    fn of(self, messages: f64, bytes: f64, us: f64) -> f64 {
        match self {
            Self::Messages => messages * 1e6 / us,
            Self::Megabytes => bytes / us,
        }
    }
}

/// Makes one measurement of times, in microseconds: the median is the value.
fn times<'a>(from: &'a dyn Peer, text: String) -> impl FnMut() -> Result<Sample, String> + 'a {
    move || {
        let numbers = from.op(&text)?;
        let get = |name: &str| numbers.get(name).copied().unwrap_or(f64::NAN);
        Ok(Sample { value: get("p50"), extras: vec![("p99", get("p99")), ("p99.9", get("p999"))] })
    }
}
