//! What the network, the machine and the peers do to a node, each with what OTP does as the expectation.
//!
//! # Invariants
//! 1. A lost connection is noticed within 1.25 × `net_ticktime`, whatever was lost of it.
//! 2. Each link and each monitor across it fires exactly once, with `noconnection`, on either side.
//! 3. There is no `nodeup` before the `nodedown` of the connection before, and nothing of the old connection after it.
//! 4. What was lost is back within a second of its return, without anybody sending.
//! 5. Nothing is left behind: tasks, processes, links, monitors and descriptors are as many as before.

mod clock;
mod disconnect;
mod figures;
mod law;
mod lost;
mod names;
mod packets;
mod pair;
mod partial;
mod partition;
mod pressure;
mod soak;

pub(crate) use pair::Pair;

/// The topic of these cases in the compatibility table.
const TOPIC: &str = "faults";

/// `net_ticktime` of both sides.
const TICKTIME: u32 = 4;
