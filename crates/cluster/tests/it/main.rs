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
mod tracker;

/// The seeds to run: `default` of them unless the environment says otherwise.
#[expect(
    clippy::disallowed_methods,
    reason = "a test run is steered by its environment; the machines are not"
)]
fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match (number("FOUNDATION_SIM_SEED"), number("FOUNDATION_SIM_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(default),
    }
}
