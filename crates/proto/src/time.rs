use core::ops::{Add, Sub};
use core::time::Duration;

/// A point on a monotonic clock: nanoseconds from an origin that the host chooses.
///
/// The core never reads a clock. The node makes a `Mono` from the operating system's monotonic clock, the NIF from the
/// BEAM's, a test from nothing at all; `std::time::Instant` could be made from neither of the latter two.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Mono(pub i64);

impl Mono {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// The time from `earlier` to `self`, or zero if `earlier` is later.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        u64::try_from(self.0.saturating_sub(earlier.0)).map_or(Duration::ZERO, Duration::from_nanos)
    }
}

impl Add<Duration> for Mono {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(rhs.as_nanos()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Mono {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(rhs.as_nanos()).unwrap_or(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        assert_eq!(Mono(i64::MAX) + Duration::from_secs(1), Mono(i64::MAX));
        assert_eq!(Mono(i64::MIN) - Duration::from_secs(1), Mono(i64::MIN));
        assert_eq!(Mono(5).saturating_since(Mono(9)), Duration::ZERO);
        assert_eq!(
            (Mono::ZERO + Duration::from_millis(2)).saturating_since(Mono::ZERO),
            Duration::from_millis(2)
        );
    }
}
