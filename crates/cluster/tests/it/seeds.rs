//! What the environment says of a simulation; the file is part of each test binary that has some.

use std::ops::Range;

/// The number in a variable of the environment.
#[expect(
    clippy::disallowed_methods,
    reason = "a test run is steered by its environment; the machines are not"
)]
pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The seeds to run: `default` of them, or what `FOUNDATION_SIM_SEED` and `FOUNDATION_SIM_SEEDS` say.
pub(crate) fn seeds(default: u64) -> Range<u64> {
    match (number("FOUNDATION_SIM_SEED"), number("FOUNDATION_SIM_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(default),
    }
}
