//! Numbers as OTP writes them.

use core::fmt::Write;

use crate::etf::{BigInteger, Term};

/// The largest integer, in bytes, that is written in decimal: 2,466 digits. The work grows with the square of the length, so a
/// message of 128 MiB of integers as large as Erlang allows would keep a printer busy for hours; beyond this they are
/// written in base 16, which is linear and just as valid Erlang and Elixir.
pub const MAX_DECIMAL_BYTES: usize = 1024;

/// Writes an integer beyond 64 bits; `base_16` is what introduces digits of that base.
pub(super) fn write_big_integer(out: &mut String, integer: &BigInteger, base_16: &str) {
    if integer.is_negative() {
        out.push('-');
    }
    let magnitude = integer.magnitude();
    if magnitude.len() > MAX_DECIMAL_BYTES {
        out.push_str(base_16);
        write_hex(out, magnitude);
    } else {
        write_decimal(out, magnitude);
    }
}

fn write_hex(out: &mut String, magnitude: &[u8]) {
    let mut bytes = magnitude.iter().rev();
    if let Some(first) = bytes.next() {
        let _ = write!(out, "{first:X}");
    }
    for byte in bytes {
        let _ = write!(out, "{byte:02X}");
    }
}

fn write_decimal(out: &mut String, magnitude: &[u8]) {
    const GROUP: u64 = 1_000_000_000;
    let mut limbs: Vec<u32> = magnitude
        .chunks(4)
        .map(|chunk| chunk.iter().rev().fold(0, |limb, &byte| limb << 8 | u32::from(byte)))
        .collect();
    let mut groups = Vec::new();
    while limbs.last() == Some(&0) {
        limbs.pop();
    }
    while !limbs.is_empty() {
        let mut remainder = 0;
        for limb in limbs.iter_mut().rev() {
            let value = remainder << 32 | u64::from(*limb);
            *limb = (value / GROUP) as u32;
            remainder = value % GROUP;
        }
        groups.push(remainder);
        while limbs.last() == Some(&0) {
            limbs.pop();
        }
    }
    let mut groups = groups.iter().rev();
    let _ = write!(out, "{}", groups.next().copied().unwrap_or(0));
    for group in groups {
        let _ = write!(out, "{group:09}");
    }
}

/// The largest integer, in bytes, that is read from digits: 9,864 decimal ones. Reading takes quadratic time, too.
const MAX_PARSED_LIMBS: usize = 4096 / 8;

/// The integer of these digits; `None` if there are too many.
pub(super) fn parse_integer(negative: bool, digits: &str, radix: u32) -> Option<Term> {
    let mut limbs: Vec<u64> = Vec::new();
    for digit in digits.chars() {
        let mut carry = u128::from(digit.to_digit(radix)?);
        for limb in &mut limbs {
            let wide = u128::from(*limb) * u128::from(radix) + carry;
            *limb = wide as u64;
            carry = wide >> 64;
        }
        if carry != 0 {
            if limbs.len() == MAX_PARSED_LIMBS {
                return None;
            }
            limbs.push(carry as u64);
        }
    }
    let magnitude: Vec<u8> = limbs.iter().flat_map(|limb| limb.to_le_bytes()).collect();
    Some(Term::from_magnitude(negative, &magnitude))
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
    fn large_integers_in_decimal_up_to_the_bound_and_then_in_hexadecimal() {
        let mut out = String::new();
        write_decimal(&mut out, &[0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(out, "18446744073709551616");
        out.clear();
        // 10^27: groups of zeros keep their width.
        write_decimal(&mut out, &[0, 0, 0, 0xE8, 0x3C, 0x80, 0xD0, 0x9F, 0x3C, 0x2E, 0x3B, 0x03]);
        assert_eq!(out, "1000000000000000000000000000");
        out.clear();
        write_hex(&mut out, &[0x0A, 0, 0x1]);
        assert_eq!(out, "1000A");
    }
}
