//! Functions called on another node, and functions of this node offered to others (`erpc`, `rpc`).
//!
//! Both directions are OTP's: a call is a `SPAWN_REQUEST` for `erpc:execute_call/4` with a monitor, and the value comes
//! back as the exit reason of the process that was started. Peers without SPAWN are called through their `rex` server.

mod client;
mod exports;
mod rex;
mod server;

pub use client::RemoteSpawn;
pub use exports::{Function, RemoteCall};

pub(crate) use exports::Exports;
pub(crate) use rex::handle as rex;
pub(crate) use server::{apply, exit_reason, spawn_requested};
