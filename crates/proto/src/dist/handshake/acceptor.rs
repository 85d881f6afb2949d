//! The side that was dialled.
//!
//! ```text
//! ExpectName -- send_name ----------------------------------> AwaitDecision
//!           \-- mandatory flags missing: not_allowed -> -----> error
//! AwaitDecision -- Ok, OkSimultaneous, Named; status, challenge -> --> (A)
//!              \-- Alive; status -> ------> ExpectStatusReply -- true; challenge -> --> (A)
//!               \                                            \-- false --> error
//!                \-- Nok, NotAllowed; status -> --> refused
//! (A) after 'N' --------------------------------------------> ExpectChallengeReply
//!     after 'n' --> ExpectComplement -- complement ----------> ExpectChallengeReply
//! ExpectChallengeReply -- challenge_reply; challenge_ack -> --> Established
//!                     \-- the same after Alive -----> AwaitReplaced -- challenge_ack -> --> Established
//! ```

use core::fmt;

use bytes::BytesMut;

use super::challenges::OpenChallenge;
use super::messages::{Ack, Challenge, Complement, Name, PeerName, Reply, Status};
use super::{
    Agreement, Common, HandshakeConfig, HandshakeEvent, HandshakeOutput, OwnName, PeerHello, peer_info,
};
use crate::dist::digest::Cookie;
use crate::dist::flags::DistributionFlags;
use crate::dist::name::NodeName;
use crate::error::{ClosedBy, Error, PeerIncompatible, PeerMisbehaved, Problem, Result};
use crate::time::Mono;

/// The flags that an old `send_name` can carry.
const LOW_HALF: DistributionFlags = DistributionFlags::from_bits(u32::MAX as u64);

/// The handshake of the side that was dialled.
pub struct Acceptor {
    common: Common,
    state: State,
    own_name: NodeName,
    own_creation: u32,
    /// This side's challenge, which the reply has to answer.
    challenge: OpenChallenge,
}

#[derive(Debug)]
enum State {
    ExpectName,
    /// The host is asked what to do with this peer.
    AwaitDecision(PeerHello),
    ExpectStatusReply(Peer),
    ExpectComplement(Peer),
    ExpectChallengeReply(Peer, u32),
    /// The host is taking the old connection down.
    AwaitReplaced(Box<Agreement>, Ack),
    Established,
    Failed(Error),
}

/// What is known of the peer after the decision.
#[derive(Clone, Debug)]
struct Peer {
    name: NodeName,
    creation: Option<u32>,
    flags: DistributionFlags,
    /// Whether it got its name here.
    named: bool,
    /// Whether it is to replace a connection.
    replaces: bool,
}

/// What the host does with a peer that has said who it is.
///
/// [`decide`](super::decide) gives the answer of OTP for a state of the host's table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decision {
    /// Go on.
    Ok,
    /// Go on; this node's own attempt has been given up.
    OkSimultaneous,
    /// Refuse, because this node's own attempt goes first.
    Nok,
    /// Refuse, because this peer is not wanted.
    NotAllowed,
    /// There is a connection already: ask the peer whether to replace it.
    Alive,
    /// Go on, with a peer that asked for a name.
    Named {
        /// Its name from now on; at the host that it gave.
        name: NodeName,
        /// Its creation: at least 4, and another one each time that a name is given again.
        creation: u32,
    },
}

impl Acceptor {
    /// Waits for the name of whoever has connected. `challenge` has to be unpredictable.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] if this node has no name yet.
    pub fn new(config: HandshakeConfig, challenge: u32, now: Mono) -> Result<Self> {
        let OwnName::Named { name, creation } = &config.name else {
            return Err(Error::ApiMisuse("a node without a name cannot accept connections"));
        };
        let (own_name, own_creation) = (name.clone(), *creation);
        let challenge = config.open_challenges.issue(challenge);
        let common = Common::new(config, now);
        Ok(Self { common, state: State::ExpectName, own_name, own_creation, challenge })
    }

    /// Uses another cookie for this peer. Before [`Self::decide`].
    pub fn set_cookie(&mut self, cookie: Cookie) {
        self.common.config.cookie = cookie;
    }

    /// Takes whole messages off `input` and leaves the rest, which after [`HandshakeEvent::Established`] belongs to the
    /// connection. Nothing is taken while an event waits for an answer: call this again after it.
    ///
    /// # Errors
    /// Whatever the peer did wrong; final. There may still be bytes to send.
    pub fn handle_input(&mut self, now: Mono, input: &mut BytesMut) -> Result<()> {
        while let State::ExpectName
        | State::ExpectStatusReply(_)
        | State::ExpectComplement(_)
        | State::ExpectChallengeReply(..) = &self.state
        {
            let step = match self.common.next_message(input) {
                Ok(None) => break,
                Ok(Some(message)) => self.handle_message(now, &message),
                Err(error) => Err(error),
            };
            self.or_fail(step)?;
        }
        self.failure()
    }

    /// The answer to [`HandshakeEvent::PeerHello`].
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] if nobody asked, or for a decision that does not fit: a name for a peer that has one, none for
    /// one that has not, or one at another host. [`Error::Closed`] by this side after a refusal.
    pub fn decide(&mut self, now: Mono, decision: Decision) -> Result<()> {
        let State::AwaitDecision(hello) = &self.state else {
            return Err(Error::ApiMisuse("no peer waits for a decision"));
        };
        let (status, named) = match (decision, &hello.name) {
            (Decision::NotAllowed, _) => return self.refuse(&Status::NotAllowed),
            (Decision::Nok, _) => return self.refuse(&Status::Nok),
            (Decision::Ok, PeerName::Named(name)) => (Status::Ok, (name, hello.creation)),
            (Decision::OkSimultaneous, PeerName::Named(name)) => {
                (Status::OkSimultaneous, (name, hello.creation))
            }
            (Decision::Alive, PeerName::Named(name)) => (Status::Alive, (name, hello.creation)),
            (Decision::Named { name, creation }, PeerName::Unnamed { host }) if name.host() == host => {
                let status = Status::Named { name: name.clone(), creation };
                (status, (&name.clone(), Some(creation)))
            }
            _ => return Err(Error::ApiMisuse("this decision does not fit the peer's name")),
        };
        let (name, creation) = named;
        let peer = Peer {
            name: name.clone(),
            creation,
            flags: hello.flags,
            named: matches!(status, Status::Named { .. }),
            replaces: status == Status::Alive,
        };
        self.send_status(&status)?;
        self.common.next_step(now);
        if peer.replaces {
            self.state = State::ExpectStatusReply(peer);
            return Ok(());
        }
        let step = self.send_challenge(peer);
        self.or_fail(step)
    }

    /// The answer to [`HandshakeEvent::PeerProved`]: the old connection is down.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] if nothing was to be replaced.
    pub fn replaced(&mut self) -> Result<()> {
        match core::mem::replace(&mut self.state, State::Established) {
            State::AwaitReplaced(agreement, ack) => self.establish(agreement, ack),
            state => {
                self.state = state;
                Err(Error::ApiMisuse("no connection was to be replaced"))
            }
        }
    }

    /// Fails if the peer has taken too long.
    ///
    /// # Errors
    /// [`PeerMisbehaved::HandshakeTimeout`].
    pub fn handle_timeout(&mut self, now: Mono) -> Result<()> {
        if self.poll_timeout().is_some_and(|deadline| deadline <= now) {
            return self.or_fail(Err(Error::PeerMisbehaved(PeerMisbehaved::HandshakeTimeout)));
        }
        self.failure()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Mono> {
        match self.state {
            State::Established | State::Failed(_) => None,
            _ => Some(self.common.deadline()),
        }
    }

    /// What to send and what to see to.
    pub fn poll_output(&mut self) -> Option<HandshakeOutput> {
        self.common.output.pop_front()
    }

    /// What it means that the peer has closed the connection now.
    pub fn handle_close(&mut self) -> Error {
        let error = match &self.state {
            State::Failed(error) => error.clone(),
            _ => Error::Closed(ClosedBy::Peer),
        };
        self.state = State::Failed(error.clone());
        error
    }

    fn handle_message(&mut self, now: Mono, message: &[u8]) -> Result<()> {
        match core::mem::replace(&mut self.state, State::Established) {
            State::ExpectName => self.handle_name(Name::decode(message)?)?,
            State::ExpectStatusReply(peer) => match Status::decode(message)? {
                Status::True => self.send_challenge(peer)?,
                Status::False => return Err(Error::PeerIncompatible(PeerIncompatible::AlreadyConnected)),
                _ => return Err(Error::malformed("status", 1, Problem::Other("neither true nor false"))),
            },
            State::ExpectComplement(peer) => {
                let complement = Complement::decode(message)?;
                let peer = Peer {
                    flags: (peer.flags & LOW_HALF) | complement.flags,
                    creation: Some(complement.creation),
                    ..peer
                };
                self.check_flags(self.common.config.required, peer.flags)?;
                self.state = State::ExpectChallengeReply(peer, complement.creation);
            }
            State::ExpectChallengeReply(peer, creation) => {
                self.handle_reply(Reply::decode(message)?, peer, creation)?;
            }
            state => self.state = state,
        }
        self.common.next_step(now);
        Ok(())
    }

    fn handle_name(&mut self, name: Name) -> Result<()> {
        let required = match name.creation {
            Some(_) => self.common.config.required,
            None if self.common.config.accept_old_name_message => self.common.config.required & LOW_HALF,
            None => {
                return Err(Error::PeerIncompatible(PeerIncompatible::Version(super::messages::OLD_VERSION)));
            }
        };
        self.check_flags(required, name.flags)?;
        let hello = PeerHello { name: name.name, flags: name.flags, creation: name.creation };
        self.common.event(HandshakeEvent::PeerHello(hello.clone()));
        self.state = State::AwaitDecision(hello);
        Ok(())
    }

    /// Tells the peer `not_allowed` if it lacks flags.
    fn check_flags(&mut self, required: DistributionFlags, offered: DistributionFlags) -> Result<()> {
        let missing = required.without(offered.expand_digest());
        if missing.is_empty() {
            return Ok(());
        }
        self.send_status(&Status::NotAllowed)?;
        Err(Error::PeerIncompatible(PeerIncompatible::MissingFlags(missing)))
    }

    fn refuse(&mut self, status: &Status) -> Result<()> {
        self.send_status(status)?;
        self.or_fail(Err(Error::Closed(ClosedBy::Local)))
    }

    fn send_status(&mut self, status: &Status) -> Result<()> {
        self.common.transmit(|prefix, out| {
            status.encode(prefix, out);
            Ok(())
        })
    }

    /// The flags offered to this peer. A BEAM that asked for a name crashes unless `NAME_ME` comes back.
    fn own_flags(&self, peer: &Peer) -> DistributionFlags {
        let flags = self.common.config.flags;
        if peer.named {
            flags.without(DistributionFlags::PUBLISHED) | DistributionFlags::NAME_ME
        } else {
            flags
        }
    }

    fn send_challenge(&mut self, peer: Peer) -> Result<()> {
        let challenge = Challenge {
            flags: self.own_flags(&peer),
            challenge: self.challenge.challenge(),
            creation: self.own_creation,
            name: self.own_name.clone(),
        };
        self.common.transmit(|prefix, out| challenge.encode(prefix, out))?;
        self.state = match peer.creation {
            Some(creation) => State::ExpectChallengeReply(peer, creation),
            None => State::ExpectComplement(peer),
        };
        Ok(())
    }

    fn handle_reply(&mut self, reply: Reply, peer: Peer, creation: u32) -> Result<()> {
        let cookie = &self.common.config.cookie;
        if !cookie.verify(self.challenge.challenge(), &reply.digest) {
            return Err(Error::PeerMisbehaved(PeerMisbehaved::WrongCookie));
        }
        let ack = Ack { digest: cookie.digest(reply.challenge) };
        self.common.check_challenge(reply.challenge)?;
        let flags = self.common.negotiate(self.own_flags(&peer), peer.flags)?;
        let agreement = Box::new(Agreement {
            peer: peer_info(peer.name, creation, flags, peer.flags),
            own_name: self.own_name.clone(),
            own_creation: self.own_creation,
        });
        if peer.replaces {
            self.common.event(HandshakeEvent::PeerProved);
            self.state = State::AwaitReplaced(agreement, ack);
            return Ok(());
        }
        self.establish(agreement, ack)
    }

    fn establish(&mut self, agreement: Box<Agreement>, ack: Ack) -> Result<()> {
        self.common.transmit(|prefix, out| {
            ack.encode(prefix, out);
            Ok(())
        })?;
        self.common.event(HandshakeEvent::Established(agreement));
        self.state = State::Established;
        Ok(())
    }

    fn or_fail(&mut self, step: Result<()>) -> Result<()> {
        if let Err(error) = &step {
            self.state = State::Failed(error.clone());
        }
        step
    }

    fn failure(&self) -> Result<()> {
        match &self.state {
            State::Failed(error) => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("state", &self.state).finish_non_exhaustive()
    }
}
