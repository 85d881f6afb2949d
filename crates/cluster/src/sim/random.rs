use std::ops::Range;
use std::time::Duration;

pub use crate::random::Random;

/// What simulations and randomised tests choose.
impl Random {
    /// A number below `end`, or 0 if `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.below_u64(end as u64) as usize
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// A duration of the range; its start if it is empty.
    pub fn duration(&mut self, range: Range<Duration>) -> Duration {
        let width = range.end.saturating_sub(range.start).as_nanos() as usize;
        range.start + Duration::from_nanos(self.below(width) as u64)
    }
}
