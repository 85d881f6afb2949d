//! What the cases of this directory measure, beside its goal: how long a fault goes unnoticed, how long the return takes, what
//! a stopped peer costs.
//!
//! In `make test` each case runs once, and what it measures has only to be below its goal and [`LATE`] more: the machine does
//! other things too. `make soak` sets `FOUNDATION_SOAK_FAULTS` to a number of rounds; then the medians are held against the
//! goals themselves, and a dated table of medians and maxima is written into `interop-tests/results`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use foundation_interop_tests::{Release, netns};

use crate::soak::{self, Report};

/// How much later than its goal a single run may be.
const LATE: f64 = 8.0;

/// Rounds from which on a median says something.
const ENOUGH: usize = 3;

/// Seconds from the heal of a fault until both are in touch again, without anybody sending.
const BACK: f64 = 1.0;

/// One row.
#[derive(Clone, Debug)]
struct Figure {
    unit: &'static str,
    goal: Option<f64>,
    taken: Vec<f64>,
}

/// By fault, what was measured of it, and release.
type Rows = BTreeMap<(String, String, String), Figure>;

/// Those of all cases that have ended.
static ALL: Mutex<Rows> = Mutex::new(Rows::new());

/// What one case measures on one release.
pub(super) struct Figures {
    release: String,
    rows: RefCell<Rows>,
}

impl Figures {
    pub(super) fn of(release: &Release) -> Self {
        Self { release: release.version.clone(), rows: RefCell::default() }
    }

    /// One, or as many as a soak wants.
    pub(super) fn rounds(&self) -> std::ops::Range<u64> {
        0..soak::count_or("FAULTS", 1)
    }

    /// How long it took until the Rust node gave the connection up. The goal is 1.25 × `net_ticktime`.
    pub(super) fn noticed(&self, fault: &str, ticktime: u32, took: Duration) {
        let what = format!("noticed, net_ticktime {ticktime} s");
        self.timed(fault, &what, Some(f64::from(ticktime) * 1.25), took);
    }

    /// How long it took from the heal until the connection was back.
    pub(super) fn back(&self, fault: &str, took: Duration) {
        self.timed(fault, "back after the heal", Some(BACK), took);
    }

    /// Any other time.
    pub(super) fn timed(&self, fault: &str, what: &str, goal: Option<f64>, took: Duration) {
        if let Some(goal) = goal {
            assert!(took.as_secs_f64() < goal + LATE, "{fault}, {what}: {took:?}");
        }
        self.add(fault, what, "s", goal, took.as_secs_f64());
    }

    /// Anything else that is measured.
    pub(super) fn add(&self, fault: &str, what: &str, unit: &'static str, goal: Option<f64>, value: f64) {
        println!("faults: OTP {}: {fault}: {what}: {value:.3} {unit}", self.release);
        let key = (fault.to_owned(), what.to_owned(), self.release.clone());
        let mut rows = self.rows.borrow_mut();
        rows.entry(key).or_insert(Figure { unit, goal, taken: Vec::new() }).taken.push(value);
    }

    /// The case has run all its rounds on this release.
    pub(super) fn done(self) {
        let rows = self.rows.into_inner();
        if netns::is_inside() {
            // The process outside keeps them.
            for ((fault, what, release), figure) in &rows {
                let goal = figure.goal.map(|goal| goal.to_string()).unwrap_or_default();
                let taken: Vec<String> = figure.taken.iter().map(f64::to_string).collect();
                let cells = [fault, what, release, figure.unit, &goal, &taken.join(" ")];
                println!("{}{}", netns::SAID, cells.join("\t"));
            }
        }
        keep(rows);
    }
}

/// Takes in what [`Figures::done`] has said inside of network namespaces.
pub(super) fn from_inside(lines: &[String]) {
    let mut rows = Rows::new();
    for line in lines {
        let cells: Vec<&str> = line.split('\t').collect();
        let [fault, what, release, unit, goal, taken] = cells[..] else { panic!("{line:?}") };
        let figure = Figure {
            unit: if unit == "s" { "s" } else { "" },
            goal: goal.parse().ok(),
            taken: taken.split(' ').map(|value| value.parse().unwrap()).collect(),
        };
        rows.insert((fault.to_owned(), what.to_owned(), release.to_owned()), figure);
    }
    keep(rows);
}

/// In a soak: writes the table anew, and holds the medians of these rows against their goals.
fn keep(rows: Rows) {
    if soak::count("FAULTS").is_none() || netns::is_inside() {
        return;
    }
    let mut all = ALL.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    all.extend(rows.clone());
    let report = Report::new("faults", &["fault", "measured", "OTP", "runs", "median", "max", "goal"]);
    for ((fault, what, release), figure) in all.iter() {
        let (median, max) = figure.median_and_max();
        let unit = figure.unit;
        let goal = figure.goal.map_or("–".to_owned(), |goal| format!("≤ {goal} {unit}"));
        let (median, max) = (format!("{median:.3} {unit}"), format!("{max:.3} {unit}"));
        report.row(&[fault, what, release, &figure.taken.len().to_string(), &median, &max, &goal]);
    }
    report.write();
    drop(all);
    for (of, figure) in &rows {
        let (median, _) = figure.median_and_max();
        let met = figure.taken.len() < ENOUGH || figure.goal.is_none_or(|goal| median <= goal);
        assert!(met, "{of:?}: {figure:?}");
    }
}

impl Figure {
    fn median_and_max(&self) -> (f64, f64) {
        let mut sorted = self.taken.clone();
        sorted.sort_by(f64::total_cmp);
        (sorted[sorted.len() / 2], sorted[sorted.len() - 1])
    }
}
