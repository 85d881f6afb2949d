//! Erlang's wire protocols as plain data and state machines.
//!
//! This crate turns bytes into values and values into bytes, and tracks one connection. It never opens a socket, reads
//! a clock, draws a random number, starts a thread or looks at the environment: time ([`Mono`]), bytes and randomness
//! come in as arguments, actions go out. The node (tokio), the NIF, the simulator and the fuzzers all drive the same code.
//!
//! # Layout
//!
//! | module | what | OTP documentation |
//! |---|---|---|
//! | [`etf`] | the External Term Format: borrowed view, owned [`etf::Term`], [`etf::RawTerm`] | erts "External Term Format" |
//! | [`epmd`] | requests and responses of the Erlang Port Mapper Daemon, and its table of names | erts "Distribution Protocol" |
//! | [`dist`] | handshake, frames, atom cache, fragments, control messages, one connection | erts "Distribution Protocol" |
//! | [`limits`] | every bound that a peer can reach, with its default and the reason | – |
//! | [`error`] | one error type, by who is to blame | – |
//! | [`fuzzing`] | bodies of the fuzz targets | – |

pub mod dist;
pub mod epmd;
pub mod error;
pub mod etf;
pub mod fuzzing;
pub mod limits;
#[cfg(test)]
mod random;
mod time;

pub use error::{Error, Result};
pub use limits::Limits;
pub use time::Mono;
