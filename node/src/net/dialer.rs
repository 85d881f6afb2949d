//! From a node name to a connection: resolve the host, ask its EPMD, connect, shake hands.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use foundation_proto::Error;
use foundation_proto::dist::{NodeName, NodeNameError};
use foundation_proto::error::{ClosedBy, PeerIncompatible, PeerMisbehaved};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::handshake::{self, Established};
use super::stream::Stream;
use super::tls::Session;
use super::{Identity, TlsError};
use crate::config::NodeConfig;
use crate::epmd::{EpmdError, client};
use crate::names::{self, NameError};
use crate::net_kernel::NetKernel;

/// Why there is no connection to a node. Each text says what happened and how to mend it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// Not a node name.
    BadName {
        /// What was given.
        name: String,
        /// What is wrong with it.
        why: NodeNameError,
    },
    /// A name of the other style than this node's.
    Style(NameError),
    /// The node itself.
    Self_,
    /// The host part cannot be resolved.
    Resolve {
        /// The host.
        host: String,
        /// What the resolver said.
        error: Arc<io::Error>,
    },
    /// The EPMD of the host was of no use.
    Epmd {
        /// The host.
        host: String,
        /// Why.
        error: Arc<EpmdError>,
    },
    /// The EPMD of the host knows no such node.
    NotRegistered {
        /// The part of the name before the `@`.
        alive: String,
        /// The host.
        host: String,
    },
    /// Nobody listens where the node should.
    PortClosed {
        /// Where it should be.
        address: SocketAddr,
        /// What the system said.
        error: Arc<io::Error>,
        /// Whether the EPMD says that it is there.
        registered: bool,
    },
    /// The node was reached and there is no TLS session with it.
    Tls {
        /// Where it is.
        address: SocketAddr,
        /// Why.
        error: TlsError,
    },
    /// The node was reached and the handshake failed.
    Handshake {
        /// Where it is.
        address: SocketAddr,
        /// Why.
        error: Error,
    },
    /// It took longer than `net_setuptime`.
    TimedOut {
        /// What was waited for.
        stage: &'static str,
    },
    /// It is not connected, and `dist_auto_connect` does not let a send connect it.
    NoAutoConnect,
    /// This node is stopping.
    Stopping,
}

impl ConnectError {
    /// Whether trying again cannot help before somebody changes a configuration.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::BadName { .. } | Self::Style(_) | Self::Self_ | Self::Stopping => true,
            Self::Handshake { error, .. } => {
                matches!(
                    error,
                    Error::PeerMisbehaved(PeerMisbehaved::WrongCookie)
                        | Error::PeerIncompatible(PeerIncompatible::NotAllowed | PeerIncompatible::SpeaksTls)
                )
            }
            Self::Tls { error, .. } => *error == TlsError::PlainPeer,
            _ => false,
        }
    }

    /// Whether the peer prefers its own attempt to connect.
    pub(crate) fn is_nok(&self) -> bool {
        matches!(self, Self::Handshake { error: Error::PeerIncompatible(PeerIncompatible::Nok), .. })
    }

    /// Whether the peer, or something in its place, is there and does not want this connection.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Handshake { error, .. } => {
                matches!(error, Error::PeerIncompatible(_) | Error::PeerMisbehaved(_) | Error::Malformed(_))
            }
            Self::Tls { error, .. } => error.is_refusal(),
            _ => false,
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadName { name, why } => write!(f, "{name:?} is no node name: {why}"),
            Self::Style(error) => error.fmt(f),
            Self::Self_ => f.write_str("that is this node itself"),
            Self::Resolve { host, error } => write!(
                f,
                "the host {host:?} cannot be resolved: {error}\nAdd it to DNS or /etc/hosts, or use a node name with an IP \
                 address."
            ),
            Self::Epmd { host, error } => write!(f, "no node can be looked up on {host}: {error}"),
            Self::NotRegistered { alive, host } => write!(
                f,
                "no node named {alive} is registered with the epmd of {host}\nIs it running, with distribution (-name or \
                 -sname) and this name? `epmd -names` on {host} lists the ones that are."
            ),
            Self::PortClosed { address, error, registered: true } => write!(
                f,
                "the node is registered, but its port {address} cannot be reached: {error}\nA firewall between the hosts, \
                 or a node that has just died; with a firewall open the node's port \
                 (inet_dist_listen_min/max fixes it)."
            ),
            Self::PortClosed { address, error, registered: false } => write!(
                f,
                "nobody can be reached at {address}: {error}\nThe node must listen on this port (-erl_epmd_port), and its \
                 host part must resolve to its address."
            ),
            Self::Tls { address, error } => write!(f, "no TLS session with the node at {address}: {error}"),
            Self::Handshake { address, error } => match error {
                Error::PeerMisbehaved(PeerMisbehaved::WrongCookie) => write!(
                    f,
                    "the node at {address} has another cookie\nUse the same on both sides: ~/.erlang.cookie, \
                     --cookie-file, or FOUNDATION_COOKIE."
                ),
                Error::PeerIncompatible(PeerIncompatible::AlreadyConnected | PeerIncompatible::Nok) => {
                    write!(
                        f,
                        "the node at {address} is connected to another node with the name of this one: {error}\nEach node \
                     of a cluster needs a name of its own."
                    )
                }
                Error::PeerIncompatible(PeerIncompatible::NotAllowed) => write!(
                    f,
                    "the node at {address} does not allow this one (not_allowed)\nCheck net_kernel:allow/1 there, and that \
                     its OTP release is 23 or later."
                ),
                Error::PeerMisbehaved(PeerMisbehaved::WrongName { got, .. }) => write!(
                    f,
                    "the node at {address} calls itself {got}\nNodes are dialled by exactly the name they have: use that one."
                ),
                Error::Closed(ClosedBy::Peer) => write!(
                    f,
                    "what listens at {address} has closed the connection during the handshake\nIs it an Erlang node, and \
                     without TLS (-proto_dist inet_tls)? Its log says more."
                ),
                error => write!(f, "the handshake with {address} failed: {error}"),
            },
            Self::TimedOut { stage } => write!(f, "timed out while {stage} (net_setuptime)"),
            Self::NoAutoConnect => f.write_str(
                "it is not connected, and dist_auto_connect does not let a send connect it\nConnect it explicitly.",
            ),
            Self::Stopping => f.write_str("this node is stopping"),
        }
    }
}

impl std::error::Error for ConnectError {}

/// Connects to a node, up to the proof of the cookie. Each TCP connection may take `patience` to come about.
pub(crate) async fn dial(
    kernel: &NetKernel,
    peer: &NodeName,
    number: u64,
    patience: Duration,
) -> Result<Established, ConnectError> {
    let (stream, address) = reach(kernel.identity(), peer, patience).await?;
    let session = stream.session().cloned();
    let outcome = handshake::initiate(kernel, peer, number, stream, address).await;
    outcome.map_err(|error| why(error, session.as_deref(), address))
}

/// Connects to a node that gives this one a name.
pub(super) async fn dial_unnamed(identity: &Identity, peer: &NodeName) -> Result<Established, ConnectError> {
    let (stream, address) = reach(identity, peer, identity.step_timeout()).await?;
    let session = stream.session().cloned();
    let outcome = handshake::initiate_unnamed(identity, peer, stream, address).await;
    outcome.map_err(|error| why(error, session.as_deref(), address))
}

/// With TLS 1.3 the peer judges our certificate after our side of the TLS handshake is done.
fn why(error: Error, session: Option<&Session>, address: SocketAddr) -> ConnectError {
    match session.and_then(Session::failure) {
        Some(error) => ConnectError::Tls { address, error },
        None => ConnectError::Handshake { address, error },
    }
}

/// A byte stream to a node, encrypted if this node has TLS.
async fn reach(
    identity: &Identity,
    peer: &NodeName,
    patience: Duration,
) -> Result<(Stream, SocketAddr), ConnectError> {
    names::check_peer(peer, identity.style).map_err(ConnectError::Style)?;
    let deadline = Instant::now() + identity.step_timeout();
    let (stream, address) = connect(&identity.config, peer, deadline, patience).await?;
    set_options(&stream, &identity.config);
    let stream = match &identity.tls {
        None => Stream::plain(stream),
        Some(tls) => tls
            .connect(stream, peer.host(), identity.step_timeout())
            .await
            .map_err(|error| ConnectError::Tls { address, error })?,
    };
    Ok((stream, address))
}

/// Whether the EPMD of its host knows the node, or it needs none.
pub(crate) async fn is_registered(config: &NodeConfig, peer: &NodeName) -> bool {
    if config.erl_epmd_node_listen_port.is_some() {
        return true;
    }
    for ip in names::resolve(peer.host()).await.unwrap_or_default() {
        if let Ok(Some(_)) = client::lookup(SocketAddr::new(ip, config.epmd_port), peer.alive()).await {
            return true;
        }
    }
    false
}

/// Finds the node's socket and connects to it.
async fn connect(
    config: &NodeConfig,
    peer: &NodeName,
    deadline: Instant,
    patience: Duration,
) -> Result<(TcpStream, SocketAddr), ConnectError> {
    let host = peer.host();
    let ips = timeout_at(deadline, names::resolve(host))
        .await
        .map_err(|_| ConnectError::TimedOut { stage: "resolving the host" })?
        .map_err(|error| ConnectError::Resolve { host: host.to_owned(), error: Arc::new(error) })?;
    let mut failure = None;
    for ip in ips.into_iter().filter(|ip| config.proto_dist.uses(ip)) {
        let port = match config.erl_epmd_node_listen_port {
            Some(port) => port,
            None => {
                let epmd = SocketAddr::new(ip, config.epmd_port);
                let within = deadline.min(Instant::now() + patience);
                let answer = timeout_at(within, client::lookup(epmd, peer.alive()))
                    .await
                    .map_err(|_| ConnectError::TimedOut { stage: "asking the epmd of the host" })?;
                match answer {
                    Ok(Some(node)) => node.port,
                    Ok(None) => {
                        failure = Some(ConnectError::NotRegistered {
                            alive: peer.alive().to_owned(),
                            host: host.to_owned(),
                        });
                        continue;
                    }
                    Err(error) => {
                        debug!(%ip, %error, "no answer from the EPMD");
                        failure = failure
                            .or(Some(ConnectError::Epmd { host: host.to_owned(), error: Arc::new(error) }));
                        continue;
                    }
                }
            }
        };
        let address = SocketAddr::new(ip, port);
        match timeout_at(deadline.min(Instant::now() + patience), TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok((stream, address)),
            Ok(Err(error)) => {
                failure = Some(ConnectError::PortClosed {
                    address,
                    error: Arc::new(error),
                    registered: config.erl_epmd_node_listen_port.is_none(),
                });
            }
            Err(_) => return Err(ConnectError::TimedOut { stage: "connecting to the node's port" }),
        }
    }
    Err(failure.unwrap_or_else(|| ConnectError::Resolve {
        host: host.to_owned(),
        error: Arc::new(io::Error::new(
            io::ErrorKind::NotFound,
            "it has no address of the family that proto_dist uses",
        )),
    }))
}

/// The socket options of a connection in either direction. One that the system lacks costs speed, not correctness.
pub(super) fn set_options(stream: &TcpStream, config: &NodeConfig) {
    let _ = stream.set_nodelay(config.dist_nodelay);
    let socket = SockRef::from(stream);
    let _ = socket.set_keepalive(true);
    // Bounds the case that this side's packets are lost and the peer's ticks still arrive.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket.set_tcp_user_timeout(Some(Duration::from_secs(u64::from(config.net_ticktime))));
}
