//! One interop case, run against every release that the run is about, and its row in `docs/compatibility.md`.
//!
//! `FOUNDATION_INTEROP` says which releases: `smoke` (the default: everything on the installed release, the cases
//! marked smoke on the other releases found), `installed`, `all` (every release of the matrix; one that is not there
//! is a failure), or a list of numbers.

use std::fmt;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Instant;

use crate::{Release, otp};

/// How a case ended on one release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As expected.
    Pass,
    /// This release cannot do it; the reason stands in the table.
    Unsupported(&'static str),
    /// Something else happened.
    Fail(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.write_str("pass"),
            Self::Unsupported(why) => write!(f, "unsupported: {why}"),
            Self::Fail(_) => f.write_str("FAIL"),
        }
    }
}

/// What a case's body may end with besides passing by returning and failing by a panic.
#[derive(Clone, Copy, Debug)]
pub struct Unsupported(pub &'static str);

/// Which releases a case runs on when the run is a smoke run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Only on the installed release; the matrix has it on all.
    Full,
    /// On every release found, in each run.
    Smoke,
}

impl Case {
    /// The releases of this run.
    ///
    /// # Panics
    /// If `FOUNDATION_INTEROP` names a release that is not here.
    pub fn releases(self) -> Vec<Release> {
        let wanted = std::env::var("FOUNDATION_INTEROP").unwrap_or_else(|_| "smoke".to_owned());
        match wanted.as_str() {
            "smoke" if self == Self::Smoke => otp::matrix().to_vec(),
            "smoke" | "installed" => vec![otp::installed().clone()],
            "all" => numbers(&otp::MATRIX),
            list => {
                let parsed = list.split(',').map(|n| n.trim().parse()).collect::<Result<Vec<u32>, _>>();
                numbers(&parsed.unwrap_or_else(|_| {
                    panic!("FOUNDATION_INTEROP={list}: smoke, installed, all, or numbers")
                }))
            }
        }
    }
}

fn numbers(wanted: &[u32]) -> Vec<Release> {
    let find = |number: &u32| otp::matrix().iter().find(|release| release.number == *number).cloned();
    let found: Vec<_> = wanted.iter().filter_map(find).collect();
    assert_eq!(found.len(), wanted.len(), "not all of OTP {wanted:?} are here: run script/otp-matrix.sh");
    found
}

/// Runs `body` once per release, records how each ended, and fails if one failed.
///
/// `topic` and `name` are the row of `docs/compatibility.md`: name says in words what is true if the case passes.
///
/// # Panics
/// With every failure, after all releases were tried.
pub fn case(scope: Case, topic: &str, name: &str, body: impl Fn(&Release) -> Result<(), Unsupported>) {
    let mut failures = String::new();
    let mut rows = String::new();
    for release in scope.releases() {
        let started = Instant::now();
        let outcome = match catch_unwind(AssertUnwindSafe(|| body(&release))) {
            Ok(Ok(())) => Outcome::Pass,
            Ok(Err(Unsupported(why))) => Outcome::Unsupported(why),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                Outcome::Fail(
                    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                        .unwrap_or_default(),
                )
            }
        };
        println!("OTP {:<3} {topic}: {name}: {outcome} ({:.1?})", release.number, started.elapsed());
        rows.push_str(&format!("{}\t{}\t{outcome}\n", release.number, release.version));
        if let Outcome::Fail(why) = outcome {
            failures.push_str(&format!("\nOTP {}: {why}\n", release.version));
        }
    }
    let file = results_dir().join(format!("{}.tsv", slug(&format!("{topic} {name}"))));
    fs::write(file, format!("{topic}\t{name}\n{rows}")).unwrap();
    assert!(failures.is_empty(), "{topic}: {name}{failures}");
}

/// Where the rows of the last run are, one file a case.
pub fn results_dir() -> PathBuf {
    crate::work_dir("results")
}

fn slug(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}
