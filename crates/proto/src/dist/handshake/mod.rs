//! The handshake: two nodes agree on names, flags and the knowledge of the cookie.
//!
//! Version 6, as spoken since OTP 23, and version 5 openers that complete it. Each role is a machine whose states are
//! named for what they wait for: [`Initiator`], [`Acceptor`]. Bytes, time and challenges come in; bytes to send and events
//! go out through [`poll_output`](Initiator::poll_output).
//!
//! ```text
//!   Initiator                                         Acceptor
//!                                                     ExpectName
//!       | -- send_name 'N' (or 'n') ----------------> |
//!   ExpectStatus                                      ExpectDecision     the host looks at its table
//!       | <------------------------------ status 's'- |
//!       |  [after alive: -- status "true" ----------> ExpectStatusReply]
//!   ExpectChallenge                                   |
//!       | <--------------------------- challenge 'N'- |
//!       |  [after 'n':   -- complement 'c' ---------> ExpectComplement]
//!       | -- challenge_reply 'r' -------------------> ExpectChallengeReply
//!   ExpectChallengeAck                                |
//!       | <----------------------- challenge_ack 'a'- |
//!   established                                       established
//! ```
//!
//! Bytes after the last message belong to the connection: they stay in the input buffer.
//!
//! An error is final. What is left to send, such as `not_allowed`, is still there to be polled; then the connection has to
//! be closed.

mod acceptor;
mod challenges;
mod initiator;
pub mod messages;
mod simultaneous;

use core::fmt;
use core::time::Duration;
use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

pub use acceptor::{Acceptor, Decision};
pub use challenges::OpenChallenges;
pub use initiator::Initiator;
pub use messages::{LengthPrefix, PeerName};
pub use simultaneous::{PeerState, Verdict, decide};

use super::digest::Cookie;
use super::flags::DistributionFlags;
use super::name::NodeName;
use crate::error::{Error, PeerIncompatible, PeerMisbehaved, Result};
use crate::limits::Limits;
use crate::time::Mono;

/// OTP's `net_setuptime`: how long a peer may take for one step.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(7);

/// How long a peer may take for the whole handshake. OTP has no such bound, so one byte per step keeps it busy for long.
pub const TOTAL_TIMEOUT: Duration = Duration::from_secs(15);

/// Who this node says it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum OwnName {
    /// A node with a name and a creation, which EPMD gave or chance.
    Named {
        /// The name.
        name: NodeName,
        /// The creation: 32 bits, neither 0 nor 1 to 3.
        creation: u32,
    },
    /// A node that asks the first peer it connects to for a name, at this host. It cannot accept connections.
    Dynamic {
        /// The part after the `@`.
        host: String,
    },
}

/// What a handshake has to know about this node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HandshakeConfig {
    /// Who this node is.
    pub name: OwnName,
    /// The flags that it offers.
    pub flags: DistributionFlags,
    /// The flags without which it does not talk to a peer.
    pub required: DistributionFlags,
    /// The cookie for this peer. An acceptor that has cookies per peer replaces it when it knows the name.
    pub cookie: Cookie,
    /// The width of the lengths: by the transport.
    pub prefix: LengthPrefix,
    /// Whether `n` messages are answered, which nodes of OTP 23 and 24 send when they do not know a peer's version.
    pub accept_old_name_message: bool,
    /// How long the peer may take for one step.
    pub step_timeout: Duration,
    /// How long it may take for all.
    pub total_timeout: Duration,
    /// The challenges of this node that are open.
    pub open_challenges: OpenChallenges,
    /// The longest message: [`Limits::max_handshake_message`].
    pub max_message: usize,
}

impl HandshakeConfig {
    /// The defaults for a hidden node over plain TCP.
    pub fn new(name: NodeName, creation: u32, cookie: Cookie) -> Self {
        Self::with_name(OwnName::Named { name, creation }, cookie)
    }

    /// The defaults for a hidden node that asks for a name at `host`.
    pub fn dynamic(host: &str, cookie: Cookie) -> Self {
        Self::with_name(OwnName::Dynamic { host: host.to_owned() }, cookie)
    }

    fn with_name(name: OwnName, cookie: Cookie) -> Self {
        Self {
            name,
            flags: DistributionFlags::HIDDEN,
            required: DistributionFlags::REQUIRED,
            cookie,
            prefix: LengthPrefix::Two,
            accept_old_name_message: true,
            step_timeout: STEP_TIMEOUT,
            total_timeout: TOTAL_TIMEOUT,
            open_challenges: OpenChallenges::new(),
            max_message: Limits::default().max_handshake_message,
        }
    }
}

/// The other end of a connection, as the handshake found it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerInfo {
    /// Its name.
    pub name: NodeName,
    /// Its creation: tells this incarnation from earlier ones.
    pub creation: u32,
    /// The effective flags: what both sides offered. They decide every form that is sent.
    pub flags: DistributionFlags,
    /// What the peer offered.
    pub peer_flags: DistributionFlags,
    /// Whether the connection is hidden: unless both sides offered `PUBLISHED`.
    pub hidden: bool,
}

/// The result of a handshake.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Agreement {
    /// The other end.
    pub peer: PeerInfo,
    /// The name of this node: the configured one, or the dynamic one that the peer gave.
    pub own_name: NodeName,
    /// The creation of this node, likewise.
    pub own_creation: u32,
}

/// What an acceptor learns from the first message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerHello {
    /// The peer's name, not proved yet.
    pub name: PeerName,
    /// The flags that it offers; of an old message only the low half.
    pub flags: DistributionFlags,
    /// Its creation; unknown after an old message, 0 if it asks for a name.
    pub creation: Option<u32>,
}

/// Something that the host has to know or to answer.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum HandshakeEvent {
    /// Acceptor: who is there. Answer with [`Acceptor::decide`].
    PeerHello(PeerHello),
    /// Acceptor, after [`Decision::Alive`]: the peer has proved that it has the cookie. Take the old connection down, deliver
    /// its `noconnection`s, then call [`Acceptor::replaced`].
    PeerProved,
    /// Initiator: the peer still has a connection to this node. Answer with [`Initiator::answer_alive`]: `true` unless this
    /// attempt is obsolete.
    PeerAlive,
    /// Initiator: the peer's own attempt goes first and is on its way. This one waits to be dropped, and fails if nobody
    /// does.
    PeerNok,
    /// Both sides have proved themselves.
    Established(Box<Agreement>),
}

/// What a handshake wants.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HandshakeOutput {
    /// Send these bytes.
    Transmit(Bytes),
    /// See to this.
    Event(HandshakeEvent),
}

/// What both roles have in common: framing, deadlines, output.
struct Common {
    config: HandshakeConfig,
    output: VecDeque<HandshakeOutput>,
    step_deadline: Mono,
    total_deadline: Mono,
    first_message: bool,
}

impl Common {
    fn new(config: HandshakeConfig, now: Mono) -> Self {
        Self {
            step_deadline: now + config.step_timeout,
            total_deadline: now + config.total_timeout,
            config,
            output: VecDeque::new(),
            first_message: true,
        }
    }

    fn deadline(&self) -> Mono {
        self.step_deadline.min(self.total_deadline)
    }

    fn next_step(&mut self, now: Mono) {
        self.step_deadline = now + self.config.step_timeout;
    }

    fn transmit(&mut self, write: impl FnOnce(LengthPrefix, &mut BytesMut) -> Result<()>) -> Result<()> {
        let mut out = BytesMut::new();
        write(self.config.prefix, &mut out)?;
        self.output.push_back(HandshakeOutput::Transmit(out.freeze()));
        Ok(())
    }

    fn event(&mut self, event: HandshakeEvent) {
        self.output.push_back(HandshakeOutput::Event(event));
    }

    /// The next message, taken off `input`; `None` if it is not complete.
    fn next_message(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>> {
        if self.first_message && self.config.prefix == LengthPrefix::Two && looks_like_tls(input) {
            return Err(Error::PeerIncompatible(PeerIncompatible::SpeaksTls));
        }
        let Some(message) = self.config.prefix.message(input, self.config.max_message)? else {
            return Ok(None);
        };
        let length = message.len();
        self.first_message = false;
        input.advance(self.config.prefix.bytes());
        Ok(Some(input.split_to(length).freeze()))
    }

    /// Refuses a challenge of this node's own.
    fn check_challenge(&self, challenge: u32) -> Result<()> {
        if self.config.open_challenges.contains(challenge) {
            return Err(Error::PeerMisbehaved(PeerMisbehaved::ReflectedChallenge));
        }
        Ok(())
    }

    fn negotiate(&self, own: DistributionFlags, peer: DistributionFlags) -> Result<DistributionFlags> {
        own.negotiate(peer, self.config.required)
            .map_err(|missing| Error::PeerIncompatible(PeerIncompatible::MissingFlags(missing)))
    }
}

impl fmt::Debug for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Common").field("output", &self.output).field("deadline", &self.deadline()).finish()
    }
}

/// Whether the peer has begun with a TLS record: a handshake, or the alert that a TLS server sends when it meets a plain
/// `send_name`. As lengths of messages both are far beyond the limit.
fn looks_like_tls(input: &[u8]) -> bool {
    matches!(input, [0x15 | 0x16, 0x03, ..])
}

fn peer_info(
    name: NodeName,
    creation: u32,
    flags: DistributionFlags,
    peer_flags: DistributionFlags,
) -> PeerInfo {
    PeerInfo { name, creation, flags, peer_flags, hidden: !flags.contains(DistributionFlags::PUBLISHED) }
}

#[cfg(test)]
mod tests;
