//! What is known of the TLS session of a connection, and why there is none.

use std::fmt;

/// The TLS session of a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct TlsInfo {
    /// `tlsv1.2` or `tlsv1.3`.
    pub version: &'static str,
    /// The cipher suite by its IANA name.
    pub cipher_suite: String,
    /// Whether the peer has sent a certificate. That it was checked depends on the options.
    pub peer_certificate: bool,
}

/// Why a TLS handshake or session failed.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TlsError {
    /// The peer has answered with something that is not TLS.
    PlainPeer,
    /// The peer has closed, or the time was up, before it said anything.
    NoAnswer,
    /// The peer has closed during the handshake.
    Closed,
    /// The handshake took longer than `net_setuptime`.
    TimedOut,
    /// The peer's certificate is not accepted.
    PeerCertificate(String),
    /// The peer has refused, with this alert.
    Refused(String),
    /// The two sides have nothing in common.
    Incompatible(String),
    /// The host part of a node name cannot be the name of a TLS server.
    HostName(String),
    /// The peer broke the protocol, or its bytes were changed on the way.
    Protocol(String),
}

impl TlsError {
    /// Whether trying again is of no use before somebody changes a configuration.
    pub(crate) fn is_refusal(&self) -> bool {
        !matches!(self, Self::NoAnswer | Self::Closed | Self::TimedOut)
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PlainPeer => f.write_str(
                "the peer speaks plain TCP and this node TLS (-proto_dist inet_tls): configure both alike; a node that is \
                 configured for TLS never falls back",
            ),
            Self::NoAnswer => f.write_str(
                "the peer has not answered the TLS handshake: a node without TLS (-proto_dist inet_tls) does so, and a \
                 node with TLS that is configured wrongly; its log says more",
            ),
            Self::Closed => f.write_str("the peer has closed the connection during the TLS handshake; its log says more"),
            Self::TimedOut => f.write_str("the TLS handshake took too long (net_setuptime)"),
            Self::PeerCertificate(why) => write!(
                f,
                "the peer's certificate is not accepted: {why}; it must be signed by a CA of this node's cacertfile, be \
                 valid now, and name the host part of the peer's node name"
            ),
            Self::Refused(alert) => write!(f, "the peer has refused the TLS handshake: {alert}"),
            Self::Incompatible(why) => write!(f, "the peer has no TLS version or cipher suite in common: {why}"),
            Self::HostName(host) => write!(f, "{host:?} cannot be the host name of a TLS server"),
            Self::Protocol(why) => write!(f, "TLS error: {why}"),
        }
    }
}

impl std::error::Error for TlsError {}
