//! The distribution protocol.
//!
//! | module | what |
//! |---|---|
//! | [`flags`] | distribution flags and their negotiation |
//! | [`digest`] | the cookie and its proof |
//! | [`name`] | node names |
//! | [`handshake`] | how a connection is set up, in both roles |
//! | [`control`] | control messages and signals |

pub mod control;
pub mod digest;
pub mod flags;
pub mod handshake;
mod lane;
pub mod name;

pub use control::{ControlMessage, Destination, Signal, SpawnRequest, Target};
pub use digest::{Cookie, CookieError};
pub use flags::DistributionFlags;
pub use handshake::{HandshakeConfig, PeerInfo};
pub use lane::{Lane, LaneClass};
pub use name::{NameStyle, NodeName, NodeNameError};
