//! Writes `docs/compatibility.md` from the results of the last run of the interop cases.
//!
//! `make matrix` runs every case on every release and then this. It refuses to write a table with holes: each case must
//! have an outcome on each release of the matrix.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a development tool: it stops with a message"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;

use foundation_interop_tests::{case, otp};

/// One row: topic and name, then the outcome by release.
type Rows = BTreeMap<(String, String), BTreeMap<u32, String>>;

fn main() -> ExitCode {
    let (rows, versions) = read();
    let holes: Vec<_> = rows
        .iter()
        .flat_map(|((topic, name), outcomes)| {
            otp::MATRIX
                .iter()
                .filter(|n| !outcomes.contains_key(n))
                .map(move |n| format!("OTP {n}: {topic}: {name}"))
        })
        .collect();
    if rows.is_empty() || !holes.is_empty() {
        eprintln!("no table written: {} outcomes are missing\n{}", holes.len(), holes.join("\n"));
        return ExitCode::FAILURE;
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/compatibility.md");
    fs::write(path, table(&rows, &versions)).unwrap();
    let count = |what: &str| rows.values().flat_map(BTreeMap::values).filter(|o| o.starts_with(what)).count();
    println!(
        "docs/compatibility.md: {} cases on {} releases: {} pass, {} unsupported, {} FAIL",
        rows.len(),
        otp::MATRIX.len(),
        count("pass"),
        count("unsupported"),
        count("FAIL")
    );
    if count("FAIL") == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn read() -> (Rows, BTreeMap<u32, String>) {
    let mut rows = Rows::new();
    let mut versions = BTreeMap::new();
    for entry in fs::read_dir(case::results_dir()).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let mut lines = text.lines();
        let (topic, name) = lines.next().and_then(|line| line.split_once('\t')).expect("a result file");
        if topic == "harness" {
            continue; // BEAM to BEAM: says nothing about us
        }
        let outcomes = rows.entry((topic.to_owned(), name.to_owned())).or_default();
        for line in lines {
            let fields: Vec<&str> = line.splitn(3, '\t').collect();
            let number = fields[0].parse().expect("a release number");
            versions.insert(number, fields[1].to_owned());
            outcomes.insert(number, fields[2].to_owned());
        }
    }
    (rows, versions)
}

fn table(rows: &Rows, versions: &BTreeMap<u32, String>) -> String {
    let mut text = String::from(
        "# Compatibility with Erlang/OTP\n\nWritten by `make matrix`: each row is a test that ran against unmodified nodes of each \
         release. *Unsupported* is what that release itself cannot do.\n",
    );
    let mut notes = BTreeSet::new();
    let mut topic = "";
    for ((row_topic, name), outcomes) in rows {
        if row_topic != topic {
            topic = row_topic;
            let _ = write!(text, "\n## {topic}\n\n| |");
            otp::MATRIX.iter().for_each(|n| write!(text, " OTP {} |", versions[n]).unwrap());
            let _ = writeln!(text, "\n|---|{}", "---|".repeat(otp::MATRIX.len()));
        }
        let _ = write!(text, "| {name} |");
        for number in otp::MATRIX {
            let outcome = &outcomes[&number];
            match outcome.split_once(": ") {
                Some((kind, why)) => {
                    notes.insert(format!("OTP {number}, {name}: {why}"));
                    let _ = write!(text, " *{kind}* |");
                }
                None => write!(text, " {outcome} |").unwrap(),
            }
        }
        text.push('\n');
    }
    if !notes.is_empty() {
        text.push_str("\n## What is unsupported, and why\n\n");
        notes.iter().for_each(|note| writeln!(text, "- {note}").unwrap());
    }
    text
}
