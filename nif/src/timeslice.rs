//! What a call costs the process that makes it.

use std::cell::Cell;
use std::time::Instant;

use rustler::Env;
use rustler::schedule::consume_timeslice;

/// One percent of a time slice, the least that `enif_consume_timeslice` takes. OTP's manual calls a slice a millisecond, but 4,000 reductions of Elixir are
/// over in 20 to 40 microseconds on today's machines, and so are those that OTP's own functions (`crc32`) charge themselves. A slice of native calls is no
/// longer, because whoever is woken by a timer waits for several: the one that runs, and one of each process before it in the queue.
const PERCENT_NANOS: u128 = 250;

thread_local! {
    /// What this scheduler's calls have taken and was not charged: less than a percent. Short calls in a loop are paid for by whichever of them
    /// completes one, nearly always the process that loops.
    static OWED: Cell<u128> = const { Cell::new(0) };
}

/// Runs what belongs to a call and charges the time that it took. Without this a native call counts as one reduction however long it takes, and a
/// process that calls in a loop keeps its scheduler for many times its share.
pub(crate) fn charged<R>(env: Env<'_>, run: impl FnOnce() -> R) -> R {
    let begin = Instant::now();
    let result = run();
    let owed = OWED.get() + begin.elapsed().as_nanos();
    let percent = owed / PERCENT_NANOS;
    if percent > 0 {
        // More than a whole slice cannot be charged.
        consume_timeslice(env, i32::try_from(percent.min(100)).unwrap_or(100));
    }
    OWED.set(owed % PERCENT_NANOS);
    result
}
