//! What the crate does with bytes that Erlang/OTP itself wrote (`interop-tests/golden`), without any Erlang.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod channel;
mod epmd;
mod etf;
mod fuzz;
mod generate;
mod golden;
mod handshake;
mod hostile;
mod limits;
mod oracle;
mod pair;
mod print;
mod properties;
