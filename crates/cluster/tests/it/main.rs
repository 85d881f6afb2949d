//! The machines in the simulator. Each module opens with its numbered invariants.
//!
//! A failing seed is part of the message of the assertion; `FOUNDATION_SIM_SEED=N` runs that one alone, and
//! `FOUNDATION_SIM_SEEDS=N` runs N of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test panics")]

mod aw_lww_map;
mod channels;
mod global;
mod pg;
mod seeds;
mod tracker;

use seeds::seeds;
