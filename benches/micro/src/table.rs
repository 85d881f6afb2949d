//! Times: each operation in short slices that take turns with the BEAM's, so that both meet the same load.

use std::io::Result;
use std::time::{Duration, Instant};

use crate::beam::Beam;
use crate::operation::{self, Against, Operation};
use crate::{Subject, subjects};

/// Turns of each side.
const ROUNDS: usize = 15;
/// How long a turn lasts: shorter than what a scheduler gives, so that most turns are whole.
const TURN: Duration = Duration::from_millis(2);

/// What the median of a line's ratios has to reach, as a multiple of the BEAM's speed.
fn goal(term: &str, operation: &str) -> Option<f64> {
    let integers = matches!(term, "ints10k" | "ints_random" | "i64_1k");
    match (operation, term) {
        // Neither side touches the bytes.
        ("look" | "owned", "bin1m") => Some(1.0),
        // These two are bounded by the peers alone.
        ("look", "rpc_small" | "proplist") => None,
        ("look", _) => Some(if integers { 3.5 } else { 8.0 }),
        ("owned", _) => Some(if integers { 0.8 } else { 1.0 }),
        ("typed" | "typed, borrowed" | "typed by view", _) => Some(3.0),
        // Bound by the copy of a mebibyte on both sides.
        ("encode", "bin1m") => None,
        ("encode typed", "bin1m") => None,
        ("encode" | "encode typed", _) => Some(2.6),
        _ => None,
    }
}

/// The look goes against the field's decoders too, by the fastest turns of each.
const LOOK_AGAINST_PEERS: f64 = 7.0;

/// Nanoseconds of the fastest turn, and of each.
struct Times(Vec<f64>);

impl Times {
    fn best(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

fn turn(work: &mut operation::Work, count: &mut u64) -> f64 {
    loop {
        let start = Instant::now();
        work(*count);
        let spent = start.elapsed();
        if spent >= TURN {
            return spent.as_nanos() as f64 / *count as f64;
        }
        let factor = (TURN.as_nanos() * 11 / 10) / spent.as_nanos().max(1) + 1;
        *count = (*count * factor.min(1000) as u64).max(*count + 1);
    }
}

/// The ratio in the middle, turn by turn.
fn median(beam: &Times, ours: &Times) -> f64 {
    let mut ratios: Vec<f64> = beam.0.iter().zip(&ours.0).map(|(beam, ours)| beam / ours).collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
}

fn verdict(reached: f64, goal: Option<f64>) -> String {
    match goal {
        Some(goal) if reached >= goal => format!("PASS >= {goal}"),
        Some(goal) => format!("MISS >= {goal}"),
        None => String::new(),
    }
}

pub(crate) fn print(wanted: &[String]) -> Result<()> {
    let directory = std::env::temp_dir().join(format!("foundation-codec-terms-{}", std::process::id()));
    let mut beam = Beam::start(&directory)?;
    let all = subjects(&directory, wanted)?;
    std::fs::remove_dir_all(&directory)?;
    println!(
        "codec against OTP {}: {ROUNDS} turns of {} ms each, in turns; ns of the fastest; ratio = BEAM's time / this time, of the fastest \
         turns, and the median turn by turn, which goals are for",
        beam.release,
        TURN.as_millis()
    );
    let mut missed = 0;
    for subject in &all {
        missed += one(subject, &mut beam)?;
    }
    println!("{missed} goals missed");
    Ok(())
}

fn one(subject: &Subject, beam: &mut Beam) -> Result<usize> {
    let nodes = operation::nodes(subject);
    let mut operations = operation::all(subject);
    let mut counts = vec![1; operations.len()];
    let mut times: Vec<Times> = operations.iter().map(|_| Times(Vec::new())).collect();
    let (mut decode, mut encode) = (Times(Vec::new()), Times(Vec::new()));
    let micros = TURN.as_micros() as u32;
    for _ in 0..ROUNDS {
        decode.0.push(beam.time("decode", &subject.name, micros)?);
        encode.0.push(beam.time("encode", &subject.name, micros)?);
        for ((operation, count), times) in operations.iter_mut().zip(&mut counts).zip(&mut times) {
            times.0.push(turn(&mut operation.work, count));
        }
    }
    println!(
        "\n{}: {} bytes, {nodes} nodes; binary_to_term {:.0} ns, term_to_binary {:.0} ns",
        subject.name,
        subject.external.len(),
        decode.best(),
        encode.best()
    );
    println!("  {:<22} {:>12} {:>9} {:>7} {:>7}", "", "ns", "ns/node", "ratio", "median");
    let mut missed = 0;
    for (operation, times) in operations.iter().zip(&times) {
        let beams = match operation.against {
            Against::Decode => Some(&decode),
            Against::Encode => Some(&encode),
            Against::Nothing => None,
        };
        let line =
            format!("  {:<22} {:>12.1} {:>9.2}", operation.name, times.best(), times.best() / nodes as f64);
        match beams {
            Some(beams) => {
                let ratio = beams.best() / times.best();
                let median = median(beams, times);
                let verdict = verdict(median, goal(&subject.name, operation.name));
                missed += usize::from(verdict.starts_with("MISS"));
                println!("{line} {ratio:>7.2} {median:>7.2}  {verdict}");
            }
            None => println!("{line}"),
        }
    }
    missed += against_peers(&operations, &times);
    Ok(missed)
}

/// The look beside the field's fastest decoder.
fn against_peers(operations: &[Operation], times: &[Times]) -> usize {
    let best = |wanted: &str| {
        let found = operations.iter().zip(times).filter(|(operation, _)| operation.name.starts_with(wanted));
        found.map(|(_, times)| times.best()).fold(f64::INFINITY, f64::min)
    };
    let (look, eetf, erltf) = (best("look"), best("eetf decode"), best("erltf decode"));
    if look.is_infinite() {
        return 0;
    }
    let peer = eetf.min(erltf);
    if peer.is_infinite() {
        return 0;
    }
    let verdict = verdict(peer / look, Some(LOOK_AGAINST_PEERS));
    println!("  look against the faster of eetf and erltf: {:.1}  {verdict}", peer / look);
    usize::from(verdict.starts_with("MISS"))
}
