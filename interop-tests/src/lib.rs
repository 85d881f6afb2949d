//! Real BEAM nodes for tests: found, started on loopback with an EPMD of their own, asked, and stopped by pid.
//!
//! Nothing here depends on the crates under test, so that it can be their judge: values come back from a BEAM as the
//! text that it prints, digests and frames of [`raw_peer`] are made by hand.
//!
//! | module | what |
//! |---|---|
//! | [`otp`] | which Erlang/OTP releases this machine has |
//! | [`epmd`] | an EPMD of one release on a port of its own |
//! | [`beam`] | one `erl` node: started, evaluated in, paused, killed |
//! | [`built`] | programs of this workspace |
//! | [`mod@case`] | one interop case over the releases, and its row in `docs/compatibility.md` |
//! | [`mod@eventually`] | waiting for a condition with a deadline |
//! | [`raw_peer`] | a peer made of bytes: handshakes and frames that no correct node would send |
//! | [`netns`] | two hosts in network namespaces, for losses that only the system notices |
//! | [`wire`] | a network between two hosts that a test can hurt: delays, stalls, cuts |
//! | [`capture`] | a recording proxy between two nodes, for golden bytes |
//!
//! Failures are panics with the node's log: this crate is used by tests only.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test harness reports by panicking; nothing here runs in production"
)]

pub mod beam;
pub mod built;
pub mod capture;
pub mod case;
pub mod epmd;
pub mod eventually;
#[path = "../../node/tests/it/free_port.rs"]
mod free_port;
pub mod futures_socket;
pub mod netns;
pub mod otp;
pub mod raw_peer;
pub mod wire;

use std::path::PathBuf;

pub use beam::Beam;
pub use case::{Case, Outcome, case};
pub use epmd::Epmd;
pub use eventually::eventually;
pub use otp::Release;
pub use wire::Wire;

/// The directory for what a run leaves behind: compiled helper modules, logs of nodes, results of cases.
pub fn work_dir(part: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")), PathBuf::from);
    let dir = target.join("interop").join(part);
    std::fs::create_dir_all(&dir).expect("target/interop can be made");
    dir.canonicalize().expect("target/interop exists")
}
