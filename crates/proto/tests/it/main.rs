//! What the crate does with bytes that Erlang/OTP itself wrote (`interop-tests/golden`), without any Erlang.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod channel;
mod epmd;
mod etf;
mod fuzz;
mod golden;
mod handshake;
mod pair;
mod print;
