//! Numbers from the operating system's random source: challenges, creations, jitter.

use std::io;
use std::time::Duration;

/// 32 random bits.
///
/// # Errors
/// If the system has no random source, which leaves no safe way to go on.
pub(crate) fn bits32() -> io::Result<u32> {
    getrandom::u32().map_err(io::Error::other)
}

/// A creation for a node that got none from an EPMD: 1 to 3 belong to nodes older than OTP 23, 0 to none.
pub(crate) fn creation() -> io::Result<u32> {
    loop {
        let bits = bits32()?;
        if bits > 3 {
            return Ok(bits);
        }
    }
}

/// A duration between the two, so that nodes that lost the same thing do not all come back in the same instant.
pub(crate) fn between(least: Duration, most: Duration) -> Duration {
    // Jitter is no secret: without a random source the middle will do.
    let share = bits32().map_or(0.5, |bits| f64::from(bits) / f64::from(u32::MAX));
    least + most.saturating_sub(least).mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_between_its_bounds() {
        let (least, most) = (Duration::from_millis(100), Duration::from_millis(500));
        for _ in 0..100 {
            assert!((least..=most).contains(&between(least, most)));
            assert!(creation().unwrap() > 3);
        }
        assert_eq!(between(most, most), most);
    }
}
