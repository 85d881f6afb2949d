//! Building the bit strings of `<<1, 2:4, "abc"/utf16>>`.

use bytes::Bytes;

use crate::etf::{BigInteger, BitString, Term};

/// Bits, most significant first.
#[derive(Debug, Default)]
pub(super) struct Bits {
    bytes: Vec<u8>,
    /// How many bits of the last byte are in use, 0 to 7; 0: all.
    used: u8,
}

impl Bits {
    pub(super) fn push_byte(&mut self, byte: u8) {
        if self.used == 0 {
            self.bytes.push(byte);
            return;
        }
        if let Some(last) = self.bytes.last_mut() {
            *last |= byte >> self.used;
        }
        self.bytes.push(byte << (8 - self.used));
    }

    /// Appends the `count` (1 to 8) low bits of `byte`.
    fn push_low_bits(&mut self, byte: u8, count: u8) {
        let used = if self.used == 0 { 8 } else { self.used };
        self.push_byte(byte << (8 - count));
        let free = 8 - used;
        if self.used != 0 && count <= free {
            // All of them went into the byte before.
            self.bytes.pop();
        }
        self.used = (used + count) % 8;
    }

    /// Appends the low `size` bits of an integer in two's complement. A binary holds whole bytes in either byte order; `little`
    /// puts the incomplete byte last, as Erlang does.
    pub(super) fn push_integer(&mut self, integer: &Term, size: usize, little: bool) {
        let whole = size / 8;
        let odd = (size % 8) as u8;
        let mut digits = Digits::new(integer);
        let mut low_first: Vec<u8> = (0..whole + usize::from(odd > 0)).map(|_| digits.next_byte()).collect();
        if little {
            let last = if odd > 0 { low_first.pop() } else { None };
            low_first.into_iter().for_each(|byte| self.push_byte(byte));
            if let Some(last) = last {
                self.push_low_bits(last, odd);
            }
        } else {
            if odd > 0 {
                let first = low_first.pop().unwrap_or_default();
                self.push_low_bits(first, odd);
            }
            low_first.into_iter().rev().for_each(|byte| self.push_byte(byte));
        }
    }

    pub(super) fn into_term(self) -> Term {
        let bytes = Bytes::from(self.bytes);
        if self.used == 0 {
            Term::Binary(bytes)
        } else {
            Term::BitString(Box::new(BitString { bytes, last_bits: self.used }))
        }
    }
}

/// The bytes of an integer in two's complement, the least significant first, without end.
struct Digits<'a> {
    magnitude: &'a [u8],
    small: [u8; 8],
    negative: bool,
    carry: bool,
    at: usize,
}

impl<'a> Digits<'a> {
    fn new(integer: &'a Term) -> Self {
        let (magnitude, small, negative): (&[u8], _, _) = match integer {
            Term::Integer(value) => (&[], value.unsigned_abs().to_le_bytes(), *value < 0),
            Term::BigInteger(value) => big(value),
            _ => (&[], [0; 8], false),
        };
        Self { magnitude, small, negative, carry: negative, at: 0 }
    }

    fn next_byte(&mut self) -> u8 {
        let digits = if self.magnitude.is_empty() { &self.small[..] } else { self.magnitude };
        let byte = digits.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        if !self.negative {
            return byte;
        }
        let (byte, carry) = (!byte).overflowing_add(u8::from(self.carry));
        self.carry = carry;
        byte
    }
}

fn big(value: &BigInteger) -> (&[u8], [u8; 8], bool) {
    (value.magnitude(), [0; 8], value.is_negative())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(parts: &[(i64, usize, bool)]) -> Term {
        let mut bits = Bits::default();
        for &(value, size, little) in parts {
            bits.push_integer(&Term::Integer(value), size, little);
        }
        bits.into_term()
    }

    #[test]
    fn segments_as_erlang_builds_them() {
        // As built by OTP 25.
        let binary = |bytes: &'static [u8]| Term::Binary(Bytes::from_static(bytes));
        let odd = |bytes: &'static [u8], last_bits| {
            Term::BitString(Box::new(BitString { bytes: Bytes::from_static(bytes), last_bits }))
        };
        assert_eq!(bits(&[(3, 16, false)]), binary(&[0, 3]));
        assert_eq!(bits(&[(3, 16, true)]), binary(&[3, 0]));
        assert_eq!(bits(&[(-2, 16, false)]), binary(&[255, 254]));
        assert_eq!(bits(&[(5, 3, false)]), odd(&[0b1010_0000], 3));
        assert_eq!(bits(&[(5, 3, false), (1, 5, false)]), binary(&[0b1010_0001]));
        assert_eq!(bits(&[(5, 3, false), (255, 8, false)]), odd(&[0b1011_1111, 0b1110_0000], 3));
        assert_eq!(bits(&[(5, 3, false), (127, 7, false)]), odd(&[0b1011_1111, 0b1100_0000], 2));
        assert_eq!(bits(&[(0x123, 12, false)]), odd(&[0x12, 0x30], 4));
        assert_eq!(bits(&[(0x123, 12, true)]), odd(&[0x23, 0x10], 4));
        assert_eq!(bits(&[(1, 0, false)]), binary(&[]));
    }
}
