use core::fmt;

use super::Term;

/// An integer beyond 64 bits.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct BigInteger {
    negative: bool,
    /// Little-endian, without zero bytes at the end.
    magnitude: Vec<u8>,
}

/// The longest magnitude that is converted from and to decimal digits, in bytes: 9,864 digits. The conversion takes
/// quadratic time, so that longer integers, which OTP can hold too, would occupy a core for seconds.
const MAX_DECIMAL_BYTES: usize = 4096;

/// The longest magnitude that `Debug` writes out, in bytes: 154 digits.
const MAX_DEBUG_BYTES: usize = 64;

/// The largest power of ten in 64 bits, and its exponent.
const CHUNK: u64 = 10_000_000_000_000_000_000;
const CHUNK_DIGITS: usize = 19;

/// The magnitude without zero bytes at its end.
pub(super) fn trimmed(magnitude: &[u8]) -> &[u8] {
    let len = magnitude.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    magnitude.get(..len).unwrap_or_default()
}

/// The value of a sign and a little-endian magnitude, if it fits into 64 bits.
pub(super) fn to_i64(negative: bool, magnitude: &[u8]) -> Option<i64> {
    let magnitude = trimmed(magnitude);
    let mut bytes = [0; 8];
    bytes.get_mut(..magnitude.len())?.copy_from_slice(magnitude);
    let value = u64::from_le_bytes(bytes);
    if negative { 0i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
}

impl Term {
    /// The integer of a sign and a little-endian magnitude: [`Term::Integer`] if it fits into 64 bits.
    pub fn from_magnitude(negative: bool, magnitude: &[u8]) -> Self {
        match to_i64(negative, magnitude) {
            Some(value) => Self::Integer(value),
            None => {
                Self::BigInteger(Box::new(BigInteger { negative, magnitude: trimmed(magnitude).to_vec() }))
            }
        }
    }
}

impl BigInteger {
    /// Whether it is less than zero.
    pub fn is_negative(&self) -> bool {
        self.negative
    }

    /// The magnitude, little-endian, without zero bytes at the end.
    pub fn magnitude(&self) -> &[u8] {
        &self.magnitude
    }

    /// The value, if it fits into 128 bits.
    pub fn to_i128(&self) -> Option<i128> {
        let mut bytes = [0; 16];
        bytes.get_mut(..self.magnitude.len())?.copy_from_slice(&self.magnitude);
        let value = u128::from_le_bytes(bytes);
        if self.negative { 0i128.checked_sub_unsigned(value) } else { i128::try_from(value).ok() }
    }

    /// The integer with these digits in a base of 2 to 36, after an optional sign.
    ///
    /// `None` if a digit is wrong, there is none, or there are more than 9,864 decimal digits or their equivalent: the
    /// conversion takes quadratic time.
    pub fn parse(text: &str, radix: u32) -> Option<Term> {
        if !(2..=36).contains(&radix) {
            return None;
        }
        let (negative, digits) = match text.as_bytes() {
            [b'-', digits @ ..] => (true, digits),
            [b'+', digits @ ..] => (false, digits),
            digits => (false, digits),
        };
        if digits.is_empty() {
            return None;
        }
        let mut limbs: Vec<u64> = Vec::new();
        for digit in digits {
            let mut carry = u128::from(char::from(*digit).to_digit(radix)?);
            for limb in &mut limbs {
                let wide = u128::from(*limb) * u128::from(radix) + carry;
                *limb = wide as u64;
                carry = wide >> 64;
            }
            if carry != 0 {
                if limbs.len() == MAX_DECIMAL_BYTES / 8 {
                    return None;
                }
                limbs.push(carry as u64);
            }
        }
        let magnitude: Vec<u8> = limbs.iter().flat_map(|limb| limb.to_le_bytes()).collect();
        Some(Term::from_magnitude(negative, &magnitude))
    }

    /// The decimal digits in groups of 19, the least significant first.
    fn decimal_chunks(&self) -> Vec<u64> {
        let mut limbs: Vec<u64> = self
            .magnitude
            .chunks(8)
            .map(|chunk| chunk.iter().rev().fold(0, |limb, byte| limb << 8 | u64::from(*byte)))
            .collect();
        let mut chunks = Vec::new();
        while !limbs.is_empty() {
            let mut rest = 0;
            for limb in limbs.iter_mut().rev() {
                let wide = u128::from(rest) << 64 | u128::from(*limb);
                *limb = (wide / u128::from(CHUNK)) as u64;
                rest = (wide % u128::from(CHUNK)) as u64;
            }
            while limbs.last() == Some(&0) {
                limbs.pop();
            }
            chunks.push(rest);
        }
        chunks
    }
}

/// Decimal up to 9,864 digits; beyond that in Erlang's base notation, `16#…`, because the conversion to decimal takes
/// quadratic time.
impl fmt::Display for BigInteger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.negative {
            f.write_str("-")?;
        }
        if self.magnitude.len() > MAX_DECIMAL_BYTES {
            f.write_str("16#")?;
            let mut bytes = self.magnitude.iter().rev();
            if let Some(first) = bytes.next() {
                write!(f, "{first:X}")?;
            }
            return bytes.try_for_each(|byte| write!(f, "{byte:02X}"));
        }
        let mut chunks = self.decimal_chunks().into_iter().rev();
        write!(f, "{}", chunks.next().unwrap_or(0))?;
        chunks.try_for_each(|chunk| write!(f, "{chunk:0CHUNK_DIGITS$}"))
    }
}

/// As `Display` up to 64 bytes; of a longer integer only how long it is, so that a log line stays one.
impl fmt::Debug for BigInteger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.magnitude.len() <= MAX_DEBUG_BYTES {
            return fmt::Display::fmt(self, f);
        }
        write!(f, "#Integer<{}{} bytes>", if self.negative { "-" } else { "" }, self.magnitude.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn big(term: Term) -> BigInteger {
        match term {
            Term::BigInteger(value) => *value,
            other => panic!("{other:?} is not big"),
        }
    }

    #[test]
    fn decimal_there_and_back() {
        for text in
            ["18446744073709551616", "-9223372036854775809", "340282366920938463463374607431768211456"]
        {
            assert_eq!(big(BigInteger::parse(text, 10).unwrap()).to_string(), text);
        }
        // 2^64 · 10^19: a group of nineteen zeros
        let zeros = "184467440737095516160000000000000000000";
        assert_eq!(big(BigInteger::parse(zeros, 10).unwrap()).to_string(), zeros);
        assert_eq!(BigInteger::parse("-42", 10), Some(Term::Integer(-42)));
        assert_eq!(BigInteger::parse("ff", 16), Some(Term::Integer(255)));
        assert_eq!(BigInteger::parse("0000", 10), Some(Term::Integer(0)));
        for wrong in ["", "-", "1a", "1 "] {
            assert_eq!(BigInteger::parse(wrong, 10), None);
        }
    }

    #[test]
    fn the_cap_on_decimal_digits() {
        assert!(BigInteger::parse(&"9".repeat(9_864), 10).is_some());
        assert!(BigInteger::parse(&"9".repeat(9_866), 10).is_none());
        let long = big(Term::from_magnitude(true, &[0xAB; MAX_DECIMAL_BYTES + 1]));
        let text = long.to_string();
        assert!(text.starts_with("-16#ABAB"));
        assert_eq!(text.len(), 4 + 2 * (MAX_DECIMAL_BYTES + 1));
        assert_eq!(format!("{long:?}"), "#Integer<-4097 bytes>");
    }

    #[test]
    fn the_borders_of_64_bits() {
        assert_eq!(Term::from_magnitude(false, &i64::MAX.to_le_bytes()), Term::Integer(i64::MAX));
        assert_eq!(Term::from_magnitude(true, &(1u64 << 63).to_le_bytes()), Term::Integer(i64::MIN));
        assert_eq!(big(Term::from_magnitude(false, &(1u64 << 63).to_le_bytes())).to_i128(), Some(1 << 63));
        assert_eq!(Term::from_magnitude(true, &[7, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Term::Integer(-7));
        assert_eq!(Term::from_magnitude(true, &[]), Term::Integer(0));
    }
}
