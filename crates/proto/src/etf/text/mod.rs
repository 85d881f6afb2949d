//! Terms as text: printed as OTP and Elixir print them, and read from the syntax of either.

mod algebra;
mod atom;
mod bits;
mod elixir;
mod erlang;
mod erlang_binary;
mod flat;
mod number;
mod pretty;
mod printer;
mod scanner;

pub use erlang::{parse_erlang, parse_erlang_call, parse_erlang_terms};
pub use number::MAX_DECIMAL_BYTES;
pub use pretty::MAX_INDENTATION;
pub use printer::{Printer, inspect, print, write};
pub use scanner::{Call, ParseError, ParseProblem};
