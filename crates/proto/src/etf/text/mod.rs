//! Terms as text, as OTP prints them.

mod atom;
mod flat;
mod number;
mod pretty;
mod printer;

pub use number::MAX_DECIMAL_BYTES;
pub use pretty::MAX_INDENTATION;
pub use printer::{Printer, print, write};
