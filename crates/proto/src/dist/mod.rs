//! The distribution protocol.
//!
//! | module | what |
//! |---|---|
//! | [`flags`] | distribution flags and their negotiation |
//! | [`control`] | control messages and signals |

pub mod control;
pub mod flags;
mod lane;

pub use control::{ControlMessage, Destination, Signal, SpawnRequest, Target};
pub use flags::DistributionFlags;
pub use lane::{Lane, LaneClass};
