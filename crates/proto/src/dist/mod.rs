//! The distribution protocol.

pub mod control;
mod lane;

pub use control::{ControlMessage, Destination, Signal, SpawnRequest, Target};
pub use lane::{Lane, LaneClass};
