use core::cell::Cell;

use serde::Serialize;

use super::error::Error;
use super::{ser, sink};
use crate::etf::{PlainTerm, RawTerm};

/// The encoded term of a value in memory that the thread uses again: for what is copied to its destination at once.
#[derive(Debug)]
pub struct Scratch {
    bytes: Vec<u8>,
}

/// Memory that grew beyond this is given back.
const KEPT: usize = 16 << 10;

std::thread_local! {
    static BYTES: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// As [`to_raw`](super::to_raw), without memory of its own.
///
/// # Errors
/// As [`to_raw`](super::to_raw).
#[inline]
pub fn to_scratch<T: Serialize + ?Sized>(value: &T) -> Result<Scratch, Error> {
    let mut encoded = sink::Encoded::with_memory(BYTES.take());
    value.serialize(ser::Serializer::new(&mut encoded))?;
    Ok(Scratch { bytes: encoded.finish()? })
}

impl Scratch {
    /// The term.
    #[inline]
    pub fn as_plain(&self) -> PlainTerm<'_> {
        PlainTerm::checked(&self.bytes)
    }

    /// The same term with memory of its own.
    pub fn into_raw(mut self) -> RawTerm {
        if self.bytes.len() > KEPT {
            return RawTerm::checked(core::mem::take(&mut self.bytes));
        }
        self.as_plain().to_raw()
    }
}

impl Drop for Scratch {
    #[inline]
    fn drop(&mut self) {
        if self.bytes.capacity() <= KEPT {
            self.bytes.clear();
            BYTES.set(core::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::serde::to_raw;

    #[test]
    fn it_is_what_to_raw_makes_and_the_memory_is_used_again() {
        let values: Vec<Vec<String>> =
            [0, 3, 40, 4000].into_iter().map(|n| (0..n).map(|i| format!("element {i}")).collect()).collect();
        for value in values.iter().chain(&values) {
            let raw = to_raw(value).unwrap();
            let scratch = to_scratch(value).unwrap();
            assert_eq!(scratch.as_plain().as_bytes(), raw.as_bytes());
            assert_eq!(scratch.into_raw(), raw);
        }
        let address = |value: &[String]| to_scratch(value).unwrap().as_plain().as_bytes().as_ptr();
        let first = address(&values[2]);
        assert_eq!((address(&values[0]), address(&values[2])), (first, first));
    }

    #[test]
    fn what_has_no_term_leaves_it_as_it_was() {
        assert!(to_scratch(&f64::NAN).is_err());
        assert_eq!(to_scratch(&1).unwrap().as_plain().as_bytes(), [97, 1]);
    }
}
