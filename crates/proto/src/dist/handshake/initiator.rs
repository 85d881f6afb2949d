//! The side that dialled.
//!
//! ```text
//!   send_name ->
//! ExpectStatus ----- ok, ok_simultaneous, named: --------------------> ExpectChallenge
//!   |  |  \--------- not_allowed -> error
//!   |  \------------ nok ---------> ExpectReplacement -> dropped by the host, or error
//!   \--------------- alive -------> AwaitAnswer -- true, status -> --> ExpectChallenge
//!                                            \---- false, status -> --> error
//! ExpectChallenge -- challenge; challenge_reply -> ------------------> ExpectChallengeAck
//! ExpectChallengeAck -- challenge_ack -------------------------------> Established
//! ```

use core::fmt;

use bytes::BytesMut;

use super::challenges::OpenChallenge;
use super::messages::{Ack, Challenge, Name, PeerName, Reply, Status};
use super::{
    Agreement, Common, HandshakeConfig, HandshakeEvent, HandshakeOutput, OwnName, PeerInfo, peer_info,
};
use crate::dist::flags::DistributionFlags;
use crate::dist::name::NodeName;
use crate::error::{ClosedBy, Error, PeerIncompatible, PeerMisbehaved, Problem, Result};
use crate::time::Mono;

/// The handshake of the side that dialled.
pub struct Initiator {
    common: Common,
    state: State,
    /// The name that was dialled; whoever answers has to have it.
    dialled: NodeName,
    /// This side's challenge, which the acknowledgement has to answer.
    challenge: OpenChallenge,
    /// The flags that were offered.
    flags: DistributionFlags,
}

#[derive(Debug)]
enum State {
    ExpectStatus,
    /// The peer said `alive`; the host is asked what to answer.
    AwaitAnswer,
    /// The peer said `nok`.
    ExpectReplacement,
    ExpectChallenge {
        own_name: NodeName,
        own_creation: u32,
    },
    ExpectChallengeAck(Box<Agreement>),
    Established,
    Failed(Error),
}

impl Initiator {
    /// Begins a handshake with the node that was dialled. `challenge` has to be unpredictable.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] if this node's name has characters that a handshake cannot carry.
    pub fn new(config: HandshakeConfig, dialled: NodeName, challenge: u32, now: Mono) -> Result<Self> {
        let (flags, name) = match &config.name {
            OwnName::Named { name, creation } => (
                config.flags,
                Name { flags: config.flags, creation: Some(*creation), name: PeerName::Named(name.clone()) },
            ),
            OwnName::Dynamic { host } => {
                let flags = config.flags.without(DistributionFlags::PUBLISHED) | DistributionFlags::NAME_ME;
                (flags, Name { flags, creation: Some(0), name: PeerName::Unnamed { host: host.clone() } })
            }
        };
        let challenge = config.open_challenges.issue(challenge);
        let mut common = Common::new(config, now);
        common.transmit(|prefix, out| name.encode(prefix, out))?;
        Ok(Self { common, state: State::ExpectStatus, dialled, challenge, flags })
    }

    /// Takes whole messages off `input` and leaves the rest, which after [`HandshakeEvent::Established`] belongs to the
    /// connection. Nothing is taken while an event waits for an answer: call this again after it.
    ///
    /// # Errors
    /// Whatever the peer did wrong; final.
    pub fn handle_input(&mut self, now: Mono, input: &mut BytesMut) -> Result<()> {
        while let State::ExpectStatus | State::ExpectChallenge { .. } | State::ExpectChallengeAck(_) =
            &self.state
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

    /// The answer to [`HandshakeEvent::PeerAlive`]: `true` to replace the connection that the peer still has.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] if the peer has not asked, [`PeerIncompatible::AlreadyConnected`] after `false`.
    pub fn answer_alive(&mut self, now: Mono, replace: bool) -> Result<()> {
        if !matches!(self.state, State::AwaitAnswer) {
            return Err(Error::ApiMisuse("the peer has not said that it is connected already"));
        }
        let status = if replace { Status::True } else { Status::False };
        self.common.transmit(|prefix, out| {
            status.encode(prefix, out);
            Ok(())
        })?;
        let step = if replace {
            self.common.next_step(now);
            self.expect_challenge(None)
        } else {
            Err(Error::PeerIncompatible(PeerIncompatible::AlreadyConnected))
        };
        self.or_fail(step)
    }

    /// Fails if the peer has taken too long.
    ///
    /// # Errors
    /// [`PeerMisbehaved::HandshakeTimeout`], or [`PeerIncompatible::Nok`] if the peer's own attempt did not come.
    pub fn handle_timeout(&mut self, now: Mono) -> Result<()> {
        if self.poll_timeout().is_some_and(|deadline| deadline <= now) {
            let error = match self.state {
                State::ExpectReplacement => Error::PeerIncompatible(PeerIncompatible::Nok),
                _ => Error::PeerMisbehaved(PeerMisbehaved::HandshakeTimeout),
            };
            return self.or_fail(Err(error));
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
            // A peer that is not satisfied with the proof says so by closing.
            State::ExpectChallengeAck(_) => Error::PeerMisbehaved(PeerMisbehaved::WrongCookie),
            State::ExpectReplacement => Error::PeerIncompatible(PeerIncompatible::Nok),
            _ => Error::Closed(ClosedBy::Peer),
        };
        self.state = State::Failed(error.clone());
        error
    }

    fn handle_message(&mut self, now: Mono, message: &[u8]) -> Result<()> {
        match core::mem::replace(&mut self.state, State::Established) {
            State::ExpectStatus => self.handle_status(Status::decode(message)?)?,
            State::ExpectChallenge { own_name, own_creation } => {
                self.handle_challenge(Challenge::decode(message)?, own_name, own_creation)?;
            }
            State::ExpectChallengeAck(agreement) => {
                let ack = Ack::decode(message)?;
                if !self.common.config.cookie.verify(self.challenge.challenge(), &ack.digest) {
                    return Err(Error::PeerMisbehaved(PeerMisbehaved::WrongCookie));
                }
                self.common.event(HandshakeEvent::Established(agreement));
            }
            state => self.state = state,
        }
        self.common.next_step(now);
        Ok(())
    }

    fn handle_status(&mut self, status: Status) -> Result<()> {
        match status {
            Status::Ok | Status::OkSimultaneous => self.expect_challenge(None),
            Status::Named { name, creation } => self.expect_challenge(Some((name, creation))),
            Status::Alive => {
                self.state = State::AwaitAnswer;
                self.common.event(HandshakeEvent::PeerAlive);
                Ok(())
            }
            Status::Nok => {
                self.state = State::ExpectReplacement;
                self.common.event(HandshakeEvent::PeerNok);
                Ok(())
            }
            Status::NotAllowed => Err(Error::PeerIncompatible(PeerIncompatible::NotAllowed)),
            Status::True | Status::False => {
                Err(Error::malformed("status", 1, Problem::Other("an answer to no question")))
            }
        }
    }

    /// `given` is the name that the peer gave to this node.
    fn expect_challenge(&mut self, given: Option<(NodeName, u32)>) -> Result<()> {
        let (own_name, own_creation) = match (&self.common.config.name, given) {
            (OwnName::Named { name, creation }, None) => (name.clone(), *creation),
            (OwnName::Dynamic { host }, Some((name, creation))) if name.host() == host => (name, creation),
            (OwnName::Dynamic { .. }, Some(_)) => {
                return Err(Error::malformed("status", 7, Problem::Other("a name at another host")));
            }
            (OwnName::Dynamic { .. }, None) => {
                return Err(Error::malformed("status", 1, Problem::Other("no name where one was asked for")));
            }
            (OwnName::Named { .. }, Some(_)) => {
                return Err(Error::malformed("status", 1, Problem::Other("a name that was not asked for")));
            }
        };
        self.state = State::ExpectChallenge { own_name, own_creation };
        Ok(())
    }

    fn handle_challenge(&mut self, peer: Challenge, own_name: NodeName, own_creation: u32) -> Result<()> {
        if peer.name != self.dialled {
            return Err(Error::PeerMisbehaved(PeerMisbehaved::WrongName {
                expected: self.dialled.to_string(),
                got: peer.name.to_string(),
            }));
        }
        let flags = self.common.negotiate(self.flags, peer.flags)?;
        self.common.check_challenge(peer.challenge)?;
        let reply = Reply {
            challenge: self.challenge.challenge(),
            digest: self.common.config.cookie.digest(peer.challenge),
        };
        self.common.transmit(|prefix, out| {
            reply.encode(prefix, out);
            Ok(())
        })?;
        let peer: PeerInfo = peer_info(peer.name, peer.creation, flags, peer.flags);
        self.state = State::ExpectChallengeAck(Box::new(Agreement { peer, own_name, own_creation }));
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

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initiator")
            .field("dialled", &self.dialled)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
