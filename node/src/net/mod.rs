//! Listener, dialer and the task of a connection.
//!
//! | module | what |
//! |---|---|
//! | [`link`] | one live connection as the rest of the node sees it; sending |
//! | [`connection`] | the two tasks of a connection: reading and delivering, writing and ticking |
//! | [`handshake`] | carries the bytes of a handshake, in both roles |
//! | [`dialer`] | from a node name to a connected socket |
//! | [`listener`] | listening sockets, connections that have not proved themselves yet |
//! | [`stream`] | the bytes under a connection: TCP, or TLS over it |
//! | `buffered` (feature `http`) | the same for libraries that poll a stream |
//! | [`read_half`], [`write_half`] | the same once the connection is live |
//! | [`nap`] | reading by the clock while small messages come in a stream |
//! | [`give_way`] | letting a sender on the same processor go on first |
//! | [`tls`] | distribution over TLS |
//! | [`endpoint`] | what a node has before it has peers: name, cookie, sockets, registration |

#[cfg(feature = "http")]
pub(crate) mod buffered;
mod connection;
pub(crate) mod dialer;
pub(crate) mod endpoint;
#[cfg(target_os = "linux")]
mod give_way;
mod handshake;
mod link;
pub(crate) mod listener;
#[cfg(target_os = "linux")]
mod nap;
mod read_half;
pub(crate) mod stream;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;
mod tls_error;
mod write_half;

use std::time::{Duration, Instant};

use foundation_proto::Mono;

pub use dialer::ConnectError;
pub(crate) use endpoint::Identity;
pub use endpoint::{Checked, StartError};
pub(crate) use handshake::Established;
pub use link::{DownReason, Link, PeerInfo, SendError};
#[cfg(feature = "http")]
pub(crate) use tls::https;
pub use tls_error::{TlsError, TlsInfo};

/// The monotonic clock of one node: its origin is the start of the node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Mono {
        Mono::ZERO + self.0.elapsed()
    }

    pub(crate) fn instant(self, at: Mono) -> tokio::time::Instant {
        (self.0 + at.saturating_since(Mono::ZERO).min(Duration::from_secs(365 * 86_400))).into()
    }

    pub(crate) fn sleep_until(self, at: Mono) -> tokio::time::Sleep {
        tokio::time::sleep_until(self.instant(at))
    }
}
