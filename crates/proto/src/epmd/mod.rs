//! EPMD, the Erlang Port Mapper Daemon: who listens where on a host.
//!
//! A node registers its name and port at the EPMD of its own host and keeps that connection open for as long as it lives;
//! others ask the EPMD of a host for the port of a name. OTP: "EPMD Protocol" in the guide "Distribution Protocol",
//! `erts/epmd/src/epmd_srv.c` (server), `erl_epmd.erl` (client).
//!
//! | module | what |
//! |---|---|
//! | [`request`] | what clients send, both directions |
//! | [`response`] | what the server answers, both directions |
//! | [`names`] | the server itself as a machine without sockets: connections, registrations, creations |

pub mod names;
pub mod request;
pub mod response;

pub use names::Names;
pub use request::{NodeInfo, NodeType, Request};
pub use response::{AliveResponse, NamesResponse, PortResponse};

/// The port of EPMD, unless `ERL_EPMD_PORT` says otherwise.
pub const DEFAULT_PORT: u16 = 4369;

/// The handshake version that nodes register since OTP 23.
pub const VERSION: u16 = 6;
