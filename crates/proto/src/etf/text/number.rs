//! Numbers as OTP writes them.

use core::fmt::Write;

use crate::etf::BigInteger;

/// What one output may spend on decimal digits. Making them takes time that grows with the square of an integer's length, so that a
/// message full of integers as long as Erlang allows would keep a printer busy for minutes. This is about a second; what comes
/// after it, and any integer of more than 4,096 bytes, is written in base 16, which both languages read as well.
pub(super) struct DecimalWork(u64);

impl Default for DecimalWork {
    fn default() -> Self {
        Self(1 << 32)
    }
}

impl DecimalWork {
    /// Writes an integer beyond 64 bits; `base_16` is what introduces digits of that base.
    pub(super) fn write(&mut self, out: &mut String, integer: &BigInteger, base_16: &str) {
        let len = integer.magnitude().len() as u64;
        match self.0.checked_sub(len.saturating_mul(len)) {
            Some(left) if len <= 4096 => {
                self.0 = left;
                let _ = write!(out, "{integer}");
            }
            _ => {
                out.push_str(if integer.is_negative() { "-" } else { "" });
                out.push_str(base_16);
                let mut bytes = integer.magnitude().iter().rev();
                let _ = bytes.next().map(|first| write!(out, "{first:X}"));
                for byte in bytes {
                    let _ = write!(out, "{byte:02X}");
                }
            }
        }
    }
}

/// Writes a float with the fewest digits that read back as the same float, as `float_to_list(F, [short])` of OTP 25 does: in
/// positional notation unless that is longer or the float is 2^53 or more.
pub(super) fn write_float(out: &mut String, float: f64) {
    // `{:e}` gives the shortest digits: `-1.2345e-7`.
    let scientific = format!("{float:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        // NaN and the infinities are no Erlang terms.
        out.push_str(&scientific);
        return;
    };
    let mantissa = match mantissa.strip_prefix('-') {
        Some(rest) => {
            out.push('-');
            rest
        }
        None => mantissa,
    };
    let mut digits: String = mantissa.chars().filter(|&c| c != '.').collect();
    if digits.len() >= 15 {
        round_tie_to_even(&mut digits, float);
    }
    // The point stands after this many digits.
    let place = exponent.parse::<i32>().unwrap_or(0) + 1;
    let count = digits.len() as i32;
    if float == 0.0 {
        out.push_str("0.0");
    } else if place > 0 && place < count && float.abs() < 9_007_199_254_740_992.0 {
        let (before, after) = digits.split_at(place as usize);
        let _ = write!(out, "{before}.{after}");
    } else {
        let exponent = (place - 1).to_string();
        let exponent_cost = exponent.len() as i32 + 1 + if count == 1 { 2 } else { 1 };
        if place <= 0 && 2 - place <= exponent_cost {
            out.push_str("0.");
            out.extend((place..0).map(|_| '0'));
            out.push_str(&digits);
        } else if place >= count
            && place - count + 2 <= exponent_cost
            && float.abs() < 9_007_199_254_740_992.0
        {
            out.push_str(&digits);
            out.extend((count..place).map(|_| '0'));
            out.push_str(".0");
        } else {
            let (first, rest) = digits.split_at(1);
            let _ = write!(out, "{first}.{}e{exponent}", if rest.is_empty() { "0" } else { rest });
        }
    }
}

/// If the float lies exactly between two numbers of so many digits, OTP writes the even one.
fn round_tie_to_even(digits: &mut String, float: f64) {
    let exact: String = format!("{:.40e}", float.abs()).chars().filter(|&c| c != '.').collect();
    let Some((down, beyond)) = exact.split_once('e').and_then(|(all, _)| all.split_at_checked(digits.len()))
    else {
        return;
    };
    let is_tie = beyond.strip_prefix('5').is_some_and(|zeros| zeros.bytes().all(|digit| digit == b'0'));
    let down_is_even = down.bytes().last().is_some_and(|digit| digit % 2 == 0);
    if is_tie && down_is_even {
        down.clone_into(digits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::excessive_precision, reason = "the digits are those of a tie, and exact")]
    fn floats_as_printed_by_otp() {
        // As printed by OTP 25 and 29.
        for (float, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (100.0, "100.0"),
            (1e5, "1.0e5"),
            (123_456.0, "123456.0"),
            (1e10, "1.0e10"),
            (0.1, "0.1"),
            (0.001, "0.001"),
            (1e-5, "1.0e-5"),
            (1.5, "1.5"),
            (-1.25, "-1.25"),
            (1e22, "1.0e22"),
            (5e-324, "5.0e-324"),
            (f64::MAX, "1.7976931348623157e308"),
            (9_007_199_254_740_991.0, "9007199254740991.0"),
            (9_007_199_254_740_992.0, "9.007199254740992e15"),
            (123_456_789_012_345_680.0, "1.2345678901234568e17"),
            (1_604_255_162_555_179.25, "1604255162555179.2"),
            (17_836_802_634_788.062_5, "17836802634788.062"),
            (723_794_509_824_299.75, "723794509824299.8"),
        ] {
            let mut out = String::new();
            write_float(&mut out, float);
            assert_eq!(out, text);
        }
    }

    #[test]
    fn long_integers_are_decimal_until_that_took_too_long() {
        use crate::etf::Term;

        let Term::BigInteger(integer) = Term::from_magnitude(true, &[0xAB; 4096]) else { panic!() };
        let mut work = DecimalWork::default();
        let mut write = |integer: &BigInteger| {
            let mut out = String::new();
            work.write(&mut out, integer, "16#");
            out
        };
        assert_eq!(write(&integer), integer.to_string());
        let decimal = (0..1000).take_while(|_| !write(&integer).starts_with("-16#ABAB")).count();
        assert_eq!(decimal, 255);
        assert_eq!(write(&integer).len(), 4 + 2 * 4096);
    }
}
