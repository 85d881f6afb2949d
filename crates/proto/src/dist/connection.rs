//! One connection from the first byte of the handshake to the last tick, without IO.
//!
//! ```text
//!   initiate --> Initiator --\                    /--> Inbound   bytes in, signals out
//!                             >-- Event::Up --> {
//!   accept ----> Acceptor ---/                    \--> Outbound  signals in, bytes out
//!                    \--------- error ---------> Event::Down
//! ```
//!
//! # Use
//! Call one input ([`handle_input`](Connection::handle_input), [`handle_timeout`](Connection::handle_timeout),
//! [`handle_close`](Connection::handle_close), [`send`](Connection::send), or an answer to an event), then
//! [`poll_output`](Connection::poll_output) until it returns [`Output::Timeout`], then do the IO.
//!
//! A host with tasks of its own for reading and writing takes the halves with
//! [`into_established`](Connection::into_established) when [`Event::Up`] has come; tests, fuzzers and simulations go on
//! with the whole.

use core::fmt;
use core::time::Duration;
use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Bytes, BytesMut};

use super::handshake::{
    Acceptor, Agreement, Decision, HandshakeConfig, HandshakeEvent, HandshakeOutput, Initiator, PeerHello,
    PeerInfo,
};
use super::{ChannelConfig, ControlMessage, Cookie, Inbound, Lane, NodeName, Outbound, Queued, Signal};
use crate::error::{ClosedBy, Error, Result};
use crate::etf::RawTerm;
use crate::limits::Limits;
use crate::time::Mono;

/// What a connection has to know about this node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionConfig {
    /// For the handshake.
    pub handshake: HandshakeConfig,
    /// The bounds on what the peer can claim.
    pub limits: Limits,
    /// Kernel parameter `net_ticktime`: a peer that is silent for this long is gone. 60 s.
    pub net_ticktime: Duration,
    /// Kernel parameter `net_tickintensity`: how many ticks are sent in that time to a peer to whom nothing else is. 4.
    pub net_tickintensity: u32,
}

impl ConnectionConfig {
    /// The defaults of OTP and of [`Limits`].
    pub fn new(handshake: HandshakeConfig) -> Self {
        let limits = Limits::default();
        Self { handshake, limits, net_ticktime: Duration::from_secs(60), net_tickintensity: 4 }
    }

    /// The configuration of the two halves of a connection that was agreed on.
    pub fn channel(&self, agreement: &Agreement) -> ChannelConfig {
        let peer = &agreement.peer;
        let mut channel = ChannelConfig::new(
            agreement.own_name.as_atom().clone(),
            peer.name.as_atom().clone(),
            peer.creation,
            peer.flags,
        );
        channel.limits = self.limits.clone();
        channel.net_ticktime = self.net_ticktime;
        channel.net_tickintensity = self.net_tickintensity;
        channel
    }
}

/// One connection.
pub struct Connection {
    config: ConnectionConfig,
    phase: Phase,
    /// What comes before anything that the phase has to say.
    output: VecDeque<Output>,
}

enum Phase {
    Initiating(Box<Initiator>),
    Accepting(Box<Acceptor>),
    Established(Box<Established>),
    Down(Error),
}

/// A connection whose handshake is done: the peer, and two halves that need nothing of each other.
#[derive(Debug)]
#[non_exhaustive]
pub struct Established {
    /// The other end.
    pub peer: PeerInfo,
    /// The name of this node on this connection: the configured one, or the dynamic one that the peer gave.
    pub own_name: NodeName,
    /// The creation of this node, likewise.
    pub own_creation: u32,
    /// Bytes in, signals out.
    pub inbound: Inbound,
    /// Signals in, bytes out.
    pub outbound: Outbound,
}

/// Something that the host has to know or to answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Who has connected. Answer with [`Connection::decide`].
    PeerHello(PeerHello),
    /// After [`Decision::Alive`]: the peer has proved that it has the cookie. Take the old connection down, then call
    /// [`Connection::replaced`].
    PeerProved,
    /// The peer still has a connection to this node. Answer with [`Connection::answer_alive`].
    PeerAlive,
    /// The peer's own attempt goes first. This one waits to be dropped.
    PeerNok,
    /// The connection is up: signals can be sent, and may follow.
    Up(Box<Agreement>),
    /// A signal of the peer.
    Signal(Box<Signal>),
    /// The connection is down, once and for all. Send what was to be sent before, then close.
    Down(Error),
}

/// What a connection wants.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send these bytes.
    Transmit(Bytes),
    /// See to this.
    Event(Event),
    /// Nothing more, until something happens or this time comes.
    Timeout(Option<Mono>),
}

/// The most bytes of one [`Output::Transmit`] of an established connection.
const TRANSMIT: usize = 64 << 10;

impl Connection {
    /// A connection to a node that was dialled. `challenge` has to be unpredictable.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] if this node's name has characters that a handshake cannot carry.
    pub fn initiate(config: ConnectionConfig, dialled: NodeName, challenge: u32, now: Mono) -> Result<Self> {
        let initiator = Initiator::new(config.handshake.clone(), dialled, challenge, now)?;
        Ok(Self::with(config, Phase::Initiating(Box::new(initiator))))
    }

    /// A connection that somebody has opened. `challenge` has to be unpredictable.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] if this node has no name yet.
    pub fn accept(config: ConnectionConfig, challenge: u32, now: Mono) -> Result<Self> {
        let acceptor = Acceptor::new(config.handshake.clone(), challenge, now)?;
        Ok(Self::with(config, Phase::Accepting(Box::new(acceptor))))
    }

    fn with(config: ConnectionConfig, phase: Phase) -> Self {
        let mut connection = Self { config, phase, output: VecDeque::new() };
        connection.drain_handshake(Mono::ZERO);
        connection
    }

    /// Takes what is complete off `input` and leaves the rest there. Nothing is taken while an event waits for an answer:
    /// call this again after it.
    pub fn handle_input(&mut self, now: Mono, input: &mut BytesMut) {
        let outcome = match &mut self.phase {
            Phase::Initiating(initiator) => initiator.handle_input(now, input),
            Phase::Accepting(acceptor) => acceptor.handle_input(now, input),
            Phase::Established(_) | Phase::Down(_) => Ok(()),
        };
        self.after(now, outcome);
        if let Phase::Established(established) = &mut self.phase {
            established.inbound.handle_input(now, input);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Mono) {
        let outcome = match &mut self.phase {
            Phase::Initiating(initiator) => initiator.handle_timeout(now),
            Phase::Accepting(acceptor) => acceptor.handle_timeout(now),
            Phase::Established(established) => {
                let Established { peer, inbound, outbound, .. } = &mut **established;
                let tick_is_due = outbound.poll_timeout() <= now;
                outbound.handle_timeout(now);
                // C nodes do not tick, they answer ticks: traffic towards them does not show that they are there.
                let interval = self.config.net_ticktime / self.config.net_tickintensity.max(1);
                if tick_is_due && peer.hidden && now.saturating_since(inbound.last_heard()) >= interval {
                    outbound.tick();
                }
                inbound.handle_timeout(now)
            }
            Phase::Down(_) => Ok(()),
        };
        self.after(now, outcome);
    }

    /// The peer has closed, or the transport broke.
    pub fn handle_close(&mut self) {
        let error = match &mut self.phase {
            Phase::Initiating(initiator) => initiator.handle_close(),
            Phase::Accepting(acceptor) => acceptor.handle_close(),
            Phase::Established(_) => Error::Closed(ClosedBy::Peer),
            Phase::Down(_) => return,
        };
        self.fail(error);
    }

    /// Uses another cookie for the peer that has connected. Before [`Self::decide`].
    pub fn set_cookie(&mut self, cookie: Cookie) {
        if let Phase::Accepting(acceptor) = &mut self.phase {
            acceptor.set_cookie(cookie);
        }
    }

    /// The answer to [`Event::PeerHello`].
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] if nobody asked or the decision does not fit.
    pub fn decide(&mut self, now: Mono, decision: Decision) -> Result<()> {
        match &mut self.phase {
            Phase::Accepting(acceptor) => {
                let outcome = acceptor.decide(now, decision);
                self.after_answer(now, outcome)
            }
            _ => Err(Error::ApiMisuse("no peer waits for a decision")),
        }
    }

    /// The answer to [`Event::PeerProved`]: the old connection is down.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] if nothing was to be replaced.
    pub fn replaced(&mut self, now: Mono) -> Result<()> {
        match &mut self.phase {
            Phase::Accepting(acceptor) => {
                let outcome = acceptor.replaced();
                self.after_answer(now, outcome)
            }
            _ => Err(Error::ApiMisuse("no connection was to be replaced")),
        }
    }

    /// The answer to [`Event::PeerAlive`]: `true` unless this attempt is obsolete.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] if the peer has not asked.
    pub fn answer_alive(&mut self, now: Mono, replace: bool) -> Result<()> {
        match &mut self.phase {
            Phase::Initiating(initiator) => {
                let outcome = initiator.answer_alive(now, replace);
                self.after_answer(now, outcome)
            }
            _ => Err(Error::ApiMisuse("the peer has not said that it is connected already")),
        }
    }

    /// Accepts a signal for the peer; see [`Outbound::send`].
    ///
    /// # Errors
    /// Those of [`Outbound::send`]; [`Error::ApiMisuse`] before [`Event::Up`], and what [`Event::Down`] said after it.
    pub fn send(
        &mut self,
        control: &ControlMessage,
        payload: Option<&RawTerm>,
        lane: Lane,
    ) -> Result<Queued> {
        match &mut self.phase {
            Phase::Established(established) => established.outbound.send(control, payload, lane),
            Phase::Down(error) => Err(error.clone()),
            Phase::Initiating(_) | Phase::Accepting(_) => {
                Err(Error::ApiMisuse("the connection is not up yet"))
            }
        }
    }

    /// What to do next. To be called until it returns [`Output::Timeout`].
    pub fn poll_output(&mut self) -> Output {
        if let Some(output) = self.output.pop_front() {
            return output;
        }
        let Phase::Established(established) = &mut self.phase else {
            return Output::Timeout(match &self.phase {
                Phase::Initiating(initiator) => initiator.poll_timeout(),
                Phase::Accepting(acceptor) => acceptor.poll_timeout(),
                Phase::Established(_) | Phase::Down(_) => None,
            });
        };
        if let Some(bytes) = transmit(&mut established.outbound) {
            return Output::Transmit(bytes);
        }
        match established.inbound.poll_signal() {
            Ok(Some(signal)) => Output::Event(Event::Signal(Box::new(signal))),
            Ok(None) => {
                let deadline = established.inbound.poll_timeout().min(established.outbound.poll_timeout());
                Output::Timeout(Some(deadline))
            }
            Err(error) => {
                self.phase = Phase::Down(error.clone());
                Output::Event(Event::Down(error))
            }
        }
    }

    /// The halves of a connection that is up, for a host that reads and writes in different places.
    ///
    /// What was polled before is not repeated; bytes that the handshake has left in the input go to
    /// [`Inbound::handle_input`].
    ///
    /// # Errors
    /// The connection itself, if it is not up or has output left.
    pub fn into_established(self) -> Result<Established, Box<Self>> {
        match self.phase {
            Phase::Established(established) if self.output.is_empty() => Ok(*established),
            phase => Err(Box::new(Self { phase, ..self })),
        }
    }

    /// The answer has been given: what it means that it was wrong or that it ends the connection.
    fn after_answer(&mut self, now: Mono, outcome: Result<()>) -> Result<()> {
        match outcome {
            Err(Error::ApiMisuse(_)) => outcome,
            outcome => {
                self.after(now, outcome);
                Ok(())
            }
        }
    }

    fn after(&mut self, now: Mono, outcome: Result<()>) {
        self.drain_handshake(now);
        if let Err(error) = outcome {
            self.fail(error);
        }
    }

    fn fail(&mut self, error: Error) {
        if !matches!(self.phase, Phase::Down(_)) {
            self.phase = Phase::Down(error.clone());
            self.output.push_back(Output::Event(Event::Down(error)));
        }
    }

    fn drain_handshake(&mut self, now: Mono) {
        loop {
            let output = match &mut self.phase {
                Phase::Initiating(initiator) => initiator.poll_output(),
                Phase::Accepting(acceptor) => acceptor.poll_output(),
                Phase::Established(_) | Phase::Down(_) => None,
            };
            let event = match output {
                None => return,
                Some(HandshakeOutput::Transmit(bytes)) => {
                    self.output.push_back(Output::Transmit(bytes));
                    continue;
                }
                Some(HandshakeOutput::Event(event)) => event,
            };
            self.output.push_back(Output::Event(match event {
                HandshakeEvent::PeerHello(hello) => Event::PeerHello(hello),
                HandshakeEvent::PeerProved => Event::PeerProved,
                HandshakeEvent::PeerAlive => Event::PeerAlive,
                HandshakeEvent::PeerNok => Event::PeerNok,
                HandshakeEvent::Established(agreement) => {
                    let channel = self.config.channel(&agreement);
                    self.phase = Phase::Established(Box::new(Established {
                        peer: agreement.peer.clone(),
                        own_name: agreement.own_name.clone(),
                        own_creation: agreement.own_creation,
                        inbound: Inbound::new(&channel, now),
                        outbound: Outbound::new(&channel, now),
                    }));
                    Event::Up(agreement)
                }
            }));
        }
    }
}

/// Takes up to [`TRANSMIT`] bytes off the queue.
fn transmit(outbound: &mut Outbound) -> Option<Bytes> {
    let mut slices = [IoSlice::new(&[]); 16];
    // The time is for pacing, which nobody has asked for here.
    let filled = outbound.poll_transmit(Mono::ZERO, &mut slices);
    let mut bytes = BytesMut::new();
    for slice in slices.iter().take(filled) {
        let room = TRANSMIT - bytes.len();
        bytes.extend_from_slice(slice.get(..room).unwrap_or(slice));
    }
    if bytes.is_empty() {
        return None;
    }
    outbound.advance(bytes.len());
    Some(bytes.freeze())
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase: &dyn fmt::Debug = match &self.phase {
            Phase::Initiating(initiator) => initiator,
            Phase::Accepting(acceptor) => acceptor,
            Phase::Established(established) => &established.peer,
            Phase::Down(error) => error,
        };
        f.debug_struct("Connection").field("phase", phase).finish_non_exhaustive()
    }
}
