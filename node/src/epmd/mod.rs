//! The Erlang Port Mapper Daemon: a client of the running one, and one served in-process.
//!
//! | module | what |
//! |---|---|
//! | [`client`] | register, look up, list; what `erl_epmd` does |
//! | [`server`] | an EPMD that OTP's `epmd -names`, `erl` and `iex` use like their own |
//! | [`registration`] | keeps the name of one node registered, whatever happens to the EPMD |

pub mod client;
pub mod registration;
pub mod server;

use std::fmt;
use std::io;
use std::net::SocketAddr;

pub use registration::Registration;
pub use server::Server;

/// Why the port mapper was of no use.
#[derive(Debug)]
#[non_exhaustive]
pub enum EpmdError {
    /// No EPMD answers at this address.
    Unreachable {
        /// Where it should be.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// An EPMD answers, but not in time.
    TimedOut {
        /// Where it is.
        address: SocketAddr,
    },
    /// Whatever listens there does not speak EPMD.
    NoEpmd {
        /// Where it is.
        address: SocketAddr,
        /// What is wrong with its answer.
        error: foundation_proto::Error,
    },
    /// The name is registered already.
    NameTaken {
        /// The part of the name before the `@`.
        alive: String,
    },
    /// The port is needed for an EPMD of this node and cannot be had.
    Bind {
        /// The port.
        port: u16,
        /// What the system said.
        error: io::Error,
    },
}

impl fmt::Display for EpmdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { address, error } => write!(
                f,
                "Cannot connect to epmd at {address}: {error}\nStart one there (`epmd -daemon` or `foundation epmd`), or set \
                 ERL_EPMD_PORT to its port, or work without (--no-epmd --dist-port PORT)."
            ),
            Self::TimedOut { address } => write!(f, "epmd at {address} does not answer in time"),
            Self::NoEpmd { address, error } => write!(
                f,
                "What listens at {address} is no epmd: {error}\nSet ERL_EPMD_PORT to the port of the real one."
            ),
            Self::NameTaken { alive } => write!(
                f,
                "the name {alive} seems to be in use by another Erlang node\nStop that node (`epmd -names` lists the \
                 names of this host) or choose another name."
            ),
            Self::Bind { port, error } => {
                write!(f, "Cannot serve an epmd on port {port}: {error}\nSet ERL_EPMD_PORT to a free port.")
            }
        }
    }
}

impl std::error::Error for EpmdError {}

#[cfg(test)]
mod tests;
