//! The distribution protocol.
//!
//! | module | what |
//! |---|---|
//! | [`flags`] | distribution flags and their negotiation |
//! | [`digest`] | the cookie and its proof |
//! | [`name`] | node names |
//! | [`handshake`] | how a connection is set up, in both roles |
//! | [`connection`] | one connection from its first byte to its last tick |
//! | [`control`] | control messages and signals |
//! | [`Buffers`] | read buffers that are used again |
//! | [`Messages`] | neighbours for one process, taken apart by their receiver |
//! | [`Inbound`], [`Outbound`] | the two halves of an established connection: frames, atom cache, fragments, lanes, ticks |

pub(crate) mod atom_cache;
mod buffers;
mod channel;
pub mod connection;
pub mod control;
pub mod digest;
pub mod flags;
pub(crate) mod fragment;
mod frame;
pub mod handshake;
pub(crate) mod header;
mod inbound;
mod join;
mod lane;
mod messages;
pub mod name;
mod outbound;

pub use buffers::Buffers;
pub use channel::ChannelConfig;
pub use connection::{Connection, ConnectionConfig, Established};
pub use control::{ControlMessage, Destination, LocalPid, Signal, SpawnRequest, Target};
pub use digest::{Cookie, CookieError};
pub use flags::DistributionFlags;
pub use handshake::{HandshakeConfig, PeerInfo};
pub use inbound::Inbound;
pub use lane::{Lane, LaneClass};
pub use messages::Messages;
pub use name::{NameStyle, NodeName, NodeNameError};
pub use outbound::{Addressee, Outbound, Queued};
