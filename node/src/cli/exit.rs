//! Why a command failed, and its exit code: those of `sysexits.h` where one fits.

use std::fmt;

use foundation_node::config::ConfigError;
use foundation_node::net::{ConnectError, StartError};
use foundation_proto::Error;
use foundation_proto::error::PeerMisbehaved;

/// Success.
pub(crate) const OK: u8 = 0;
/// The other node answered with an error.
pub(crate) const REMOTE: u8 = 1;
/// Wrong arguments.
pub(crate) const USAGE: u8 = 64;
/// A node or EPMD cannot be reached.
pub(crate) const UNREACHABLE: u8 = 69;
/// It took too long.
pub(crate) const TIMEOUT: u8 = 75;
/// The cookie was not accepted.
pub(crate) const COOKIE: u8 = 77;
/// The configuration, or this machine's.
pub(crate) const CONFIG: u8 = 78;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    Usage(String),
    Config(String),
    Start(StartError),
    Connect {
        node: String,
        error: ConnectError,
    },
    Unreachable(String),
    Timeout(String),
    /// The text is a whole message of its own, in Erlang's form.
    Remote(String),
}

impl Failure {
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::Config(_) => CONFIG,
            Self::Start(StartError::Epmd(_)) => UNREACHABLE,
            Self::Start(_) => CONFIG,
            Self::Connect { error, .. } => match error {
                ConnectError::Handshake {
                    error: Error::PeerMisbehaved(PeerMisbehaved::WrongCookie), ..
                } => COOKIE,
                ConnectError::BadName { .. } => USAGE,
                ConnectError::Style(_) => CONFIG,
                ConnectError::TimedOut { .. }
                | ConnectError::Handshake {
                    error: Error::PeerMisbehaved(PeerMisbehaved::HandshakeTimeout),
                    ..
                } => TIMEOUT,
                _ => UNREACHABLE,
            },
            Self::Unreachable(_) => UNREACHABLE,
            Self::Timeout(_) => TIMEOUT,
            Self::Remote(_) => REMOTE,
        }
    }

    pub(crate) fn print(&self) {
        eprintln!("{self}");
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote(text) => f.write_str(text),
            Self::Connect { node, error } => write!(f, "foundation: cannot connect to {node}: {error}"),
            Self::Start(error) => write!(f, "foundation: {error}"),
            Self::Usage(text) | Self::Config(text) | Self::Unreachable(text) | Self::Timeout(text) => {
                write!(f, "foundation: {text}")
            }
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Config(error.to_string())
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}
