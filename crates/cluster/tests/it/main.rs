//! The machines in the simulator. Each module opens with its numbered invariants.
//!
//! A failing seed is part of the message of the assertion; `FOUNDATION_SIM_SEED=N` runs that one alone, and
//! `FOUNDATION_SIM_SEEDS=N` runs N of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test panics")]

mod aw_lww_map;
mod causal_crdt;
mod channels;
mod global;
mod pg;
mod seeds;
mod tracker;

use seeds::seeds;

/// The scenarios of files, by their names.
fn scenarios() -> Vec<(String, foundation_cluster::sim::scenario::Scenario)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let scenario = std::fs::read_to_string(path).unwrap().parse();
        (name.clone(), scenario.unwrap_or_else(|error| panic!("{name}: {error}")))
    };
    files.iter().map(read).collect()
}
