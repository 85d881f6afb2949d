//! One error type for the whole crate, ordered by who is to blame, because that is what decides what to do next.

use core::fmt;

use crate::dist::DistributionFlags;

/// The result of everything here that can fail.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// What went wrong, and whose fault it is.
///
/// | variant | the connection | does a retry help? | Erlang reason for links and monitors |
/// |---|---|---|---|
/// | [`Error::Malformed`] | closes | no: the peer will send the same again | `noconnection` |
/// | [`Error::PeerMisbehaved`] | closes | rarely | `noconnection` |
/// | [`Error::PeerIncompatible`] | is never set up | not before one side is upgraded or reconfigured | `noconnection` |
/// | [`Error::NotSupportedByPeer`] | is untouched | not before the peer is upgraded | `notsup` |
/// | [`Error::LimitExceeded`] | closes if a peer exceeded it; a local caller just gets the error | with a higher limit | `noconnection` / `system_limit` |
/// | [`Error::Closed`] | is closed | yes | `noconnection` |
/// | [`Error::ApiMisuse`] | is untouched | no: the calling code is wrong | `badarg` |
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// Bytes that do not follow the format they claim to be in.
    Malformed(Malformed),
    /// Well-formed bytes that the protocol does not allow at this point.
    PeerMisbehaved(PeerMisbehaved),
    /// A correct peer with which nothing in common could be agreed.
    PeerIncompatible(PeerIncompatible),
    /// Something was to be sent for which the peer did not offer this distribution flag.
    NotSupportedByPeer(&'static str),
    /// A bound of [`Limits`](crate::Limits) was reached.
    LimitExceeded {
        /// The field of [`Limits`](crate::Limits).
        limit: &'static str,
        /// What was asked for.
        value: u64,
        /// What is allowed.
        max: u64,
    },
    /// The connection has ended.
    Closed(ClosedBy),
    /// The caller asked for something that cannot be; never caused by a peer.
    ApiMisuse(&'static str),
}

/// Bytes that could not be read.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Malformed {
    /// What was being read, in the words of the OTP documentation (`"MAP_EXT"`, `"distribution header"`).
    pub what: &'static str,
    /// The offset of the offending byte from the start of the input that was handed in.
    pub at: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with malformed bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Problem {
    /// The input ends before the value does.
    Truncated,
    /// A tag or type byte that nobody assigned.
    UnknownTag(u8),
    /// A length or count that the rest of the input cannot hold.
    CountTooLarge(u64),
    /// A value outside of what the field allows.
    OutOfRange(&'static str),
    /// Bytes that should be UTF-8 text and are not.
    NotUtf8,
    /// A map with two keys that are equal by `=:=`.
    DuplicateKey,
    /// Bytes after the end of the value.
    TrailingBytes(usize),
    /// Anything else, in words.
    Other(&'static str),
}

/// A violation of the protocol.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// A handshake message that does not belong to this state.
    UnexpectedHandshakeMessage {
        /// What this side was waiting for.
        expected: &'static str,
        /// The first byte of what came.
        got: u8,
    },
    /// The peer proved a different cookie, or none.
    WrongCookie,
    /// The node that answered is not the one that was dialled.
    WrongName {
        /// The name that was dialled.
        expected: String,
        /// The name that the peer gave.
        got: String,
    },
    /// A control message whose shape is not the one the protocol gives to its operation.
    BadControlMessage {
        /// The name of the operation, or `"unknown"`.
        op: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A fragment that belongs to no open sequence, comes out of order, or opens a sequence twice.
    BadFragment(&'static str),
    /// A reference to an atom cache slot that was never filled.
    EmptyCacheSlot(u16),
    /// A signal in the name of a node that is not the one at the other end.
    ForgedOrigin(&'static str),
    /// Nothing arrived for longer than the net tick time.
    TickTimeout,
    /// The handshake was not finished in time.
    HandshakeTimeout,
    /// A challenge that this node itself has issued on another connection: an attempt to make it answer its own question.
    ReflectedChallenge,
}

/// Why two correct nodes cannot talk.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PeerIncompatible {
    /// Distribution flags that one side requires and the other does not offer.
    MissingFlags(DistributionFlags),
    /// The peer answered `not_allowed`.
    NotAllowed,
    /// The peer answered `nok`: its own connection attempt to this node goes first.
    Nok,
    /// The peer answered `alive` and this side did not want to replace its own connection.
    AlreadyConnected,
    /// A protocol version that is not spoken here.
    Version(u16),
    /// The peer speaks TLS and this side plain TCP.
    SpeaksTls,
}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ClosedBy {
    /// The other end closed, or the network did.
    Peer,
    /// This side closed on purpose.
    Local,
}

impl Error {
    /// Malformed input: `what` was being read, and byte `at` of the input is wrong in the way that `problem` says.
    #[cold]
    pub fn malformed(what: &'static str, at: usize, problem: Problem) -> Self {
        Self::Malformed(Malformed { what, at, problem })
    }

    /// A limit was reached.
    #[cold]
    pub fn limit(limit: &'static str, value: u64, max: u64) -> Self {
        Self::LimitExceeded { limit, value, max }
    }

    /// A control message whose shape is wrong.
    #[cold]
    pub fn bad_control(op: &'static str, why: &'static str) -> Self {
        Self::PeerMisbehaved(PeerMisbehaved::BadControlMessage { op, why })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(m) => m.fmt(f),
            Self::PeerMisbehaved(p) => p.fmt(f),
            Self::PeerIncompatible(p) => p.fmt(f),
            Self::NotSupportedByPeer(flag) => write!(f, "the peer does not support {flag}"),
            Self::LimitExceeded { limit, value, max } => {
                write!(
                    f,
                    "{value} exceeds the limit `{limit}` of {max}; raise it if this peer is to be trusted with more"
                )
            }
            Self::Closed(ClosedBy::Peer) => f.write_str("the connection was closed by the peer"),
            Self::Closed(ClosedBy::Local) => f.write_str("the connection was closed by this node"),
            Self::ApiMisuse(why) => write!(f, "misuse of the API: {why}"),
        }
    }
}

impl core::error::Error for Error {}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed {} at byte {}: {}", self.what, self.at, self.problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the input ends too early"),
            Self::UnknownTag(tag) => write!(f, "unknown tag {tag}"),
            Self::CountTooLarge(n) => write!(f, "a count of {n} does not fit into the bytes that are left"),
            Self::OutOfRange(what) => write!(f, "{what} is out of range"),
            Self::NotUtf8 => f.write_str("not valid UTF-8"),
            Self::DuplicateKey => f.write_str("duplicate map key"),
            Self::TrailingBytes(n) => write!(f, "{n} bytes after the end"),
            Self::Other(why) => f.write_str(why),
        }
    }
}

impl fmt::Display for PeerMisbehaved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnexpectedHandshakeMessage { expected, got } => {
                write!(
                    f,
                    "the peer broke the handshake: expected {expected}, got a message that starts with byte {got}"
                )
            }
            Self::WrongCookie => f.write_str(
                "the peer has a different cookie (compare ~/.erlang.cookie or --cookie-file on both sides)",
            ),
            Self::WrongName { expected, got } => write!(f, "dialled {expected:?} but {got:?} answered"),
            Self::BadControlMessage { op, why } => write!(f, "bad control message {op}: {why}"),
            Self::BadFragment(why) => write!(f, "bad fragment: {why}"),
            Self::EmptyCacheSlot(slot) => write!(f, "reference to the empty atom cache slot {slot}"),
            Self::ForgedOrigin(op) => write!(f, "{op} in the name of a third node"),
            Self::TickTimeout => f.write_str("nothing was heard from the peer for the whole net tick time"),
            Self::HandshakeTimeout => f.write_str("the peer did not finish the handshake in time"),
            Self::ReflectedChallenge => f.write_str("the peer passed on a challenge of this node's own"),
        }
    }
}

impl fmt::Display for PeerIncompatible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingFlags(names) => write!(f, "the peer lacks the mandatory distribution flags {names}"),
            Self::NotAllowed => f.write_str("the peer refused this node (not_allowed)"),
            Self::Nok => f.write_str("the peer's own connection attempt goes first (nok)"),
            Self::AlreadyConnected => {
                f.write_str("the peer already has a live connection to a node of this name")
            }
            Self::Version(v) => write!(f, "protocol version {v} is not supported"),
            Self::SpeaksTls => f.write_str(
                "the peer speaks TLS (-proto_dist inet_tls) and this node plain TCP: configure both alike",
            ),
        }
    }
}
