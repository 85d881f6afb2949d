//! Carries the bytes of a handshake between a socket and proto's machines, and turns the outcome into a link.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use foundation_proto::dist::handshake::{
    Acceptor, Agreement, Decision, HandshakeConfig, HandshakeEvent, HandshakeOutput, Initiator, LengthPrefix,
    OwnName, PeerHello, PeerName, Verdict,
};
use foundation_proto::dist::{ChannelConfig, Inbound, NodeName, Outbound};
use foundation_proto::error::{ClosedBy, PeerIncompatible};
use foundation_proto::etf::Atom;
use foundation_proto::{Error, Mono};
use tracing::{Span, debug};

use super::read_half::ReadHalf;
use super::stream::Stream;
use super::{Clock, Identity, Link, PeerInfo, connection};
use crate::net_kernel::{Accepting, NetKernel};
use crate::node::NodeInner;
use crate::random;

/// A handshake message has some 50 bytes.
const BUFFER: usize = 256;

/// A connection whose both ends have proved themselves.
pub(crate) struct Established {
    agreement: Agreement,
    stream: Stream,
    address: SocketAddr,
    /// What came behind the last message of the handshake.
    leftover: BytesMut,
}

/// The tasks of a link that is in place and not read yet.
pub(crate) struct Start {
    link: Arc<Link>,
    stream: ReadHalf,
    inbound: Inbound,
    leftover: BytesMut,
    clock: Clock,
    span: Span,
}

impl Established {
    /// The name of the node at the other end.
    pub(crate) fn peer(&self) -> &Atom {
        self.agreement.peer.name.as_atom()
    }

    /// This node's name and creation, which the peer may have given.
    pub(super) fn own(&self) -> (NodeName, u32) {
        (self.agreement.own_name.clone(), self.agreement.own_creation)
    }

    pub(crate) fn into_link(self, identity: &Identity) -> (Arc<Link>, Start) {
        let Self { agreement, stream, address, leftover } = self;
        let clock = identity.clock;
        let now = clock.now();
        let peer = agreement.peer;
        let mut config = ChannelConfig::new(
            agreement.own_name.into(),
            peer.name.as_atom().clone(),
            peer.creation,
            peer.flags,
        );
        config.limits = identity.config.limits.wire.clone();
        config.net_ticktime = std::time::Duration::from_secs(u64::from(identity.config.net_ticktime));
        config.net_tickintensity = identity.config.net_tickintensity;
        // Of the highest level: whatever is logged of a connection names its peer.
        let span = tracing::error_span!(parent: None, "connection", peer = peer.name.as_str(), %address);
        let info = PeerInfo {
            name: peer.name.into(),
            creation: peer.creation,
            flags: peer.flags,
            hidden: peer.hidden,
            address,
            tls: stream.session().map(|session| session.info()),
        };
        let inbound = Inbound::new(&config, now);
        let outbound = Outbound::new(&config, now);
        let undelivered = identity.config.limits.undelivered_bytes;
        let (stream, write) = stream.split();
        let link = Arc::new(Link::new(info, write, outbound, clock, &config.limits, undelivered));
        (Arc::clone(&link), Start { link, stream, inbound, leftover, clock, span })
    }
}

impl Start {
    /// What the log says about this connection stands in this span.
    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Begins to read the connection.
    pub(crate) fn run(self, node: &Arc<NodeInner>) {
        let Self { link, stream, inbound, leftover, clock, span } = self;
        connection::start(node, link, stream, inbound, leftover, clock, span);
    }
}

/// What both roles have in common; the machines themselves share no trait.
enum Role {
    Initiator(Initiator),
    Acceptor(Acceptor),
}

impl Role {
    fn handle_input(&mut self, now: Mono, input: &mut BytesMut) -> Result<(), Error> {
        match self {
            Self::Initiator(machine) => machine.handle_input(now, input),
            Self::Acceptor(machine) => machine.handle_input(now, input),
        }
    }

    fn handle_timeout(&mut self, now: Mono) -> Result<(), Error> {
        match self {
            Self::Initiator(machine) => machine.handle_timeout(now),
            Self::Acceptor(machine) => machine.handle_timeout(now),
        }
    }

    fn handle_close(&mut self) -> Error {
        match self {
            Self::Initiator(machine) => machine.handle_close(),
            Self::Acceptor(machine) => machine.handle_close(),
        }
    }

    fn poll_timeout(&self) -> Option<Mono> {
        match self {
            Self::Initiator(machine) => machine.poll_timeout(),
            Self::Acceptor(machine) => machine.poll_timeout(),
        }
    }

    fn poll_output(&mut self) -> Option<HandshakeOutput> {
        match self {
            Self::Initiator(machine) => machine.poll_output(),
            Self::Acceptor(machine) => machine.poll_output(),
        }
    }
}

/// One handshake on one socket.
struct Exchange {
    role: Role,
    stream: Stream,
    input: BytesMut,
    clock: Clock,
}

impl Exchange {
    fn new(role: Role, stream: Stream, clock: Clock) -> Self {
        Self { role, stream, input: BytesMut::with_capacity(BUFFER), clock }
    }

    /// Sends and receives until there is an event.
    async fn next_event(&mut self) -> Result<HandshakeEvent, Error> {
        loop {
            if let Some(event) = self.transmit().await? {
                return Ok(event);
            }
            let deadline = self.role.poll_timeout();
            let outcome = tokio::select! {
                read = self.stream.read_buf(&mut self.input) => match read {
                    // A reset is what a peer's close looks like when it left something unread.
                    Ok(0) | Err(_) => Err(self.role.handle_close()),
                    Ok(_) => self.role.handle_input(self.clock.now(), &mut self.input),
                },
                () = self.clock.sleep_until(deadline.unwrap_or(Mono::ZERO)), if deadline.is_some() => {
                    self.role.handle_timeout(self.clock.now())
                }
            };
            if let Err(error) = outcome {
                return Err(self.last_words(error).await);
            }
        }
    }

    /// Sends what there is to send, up to the next event.
    async fn transmit(&mut self) -> Result<Option<HandshakeEvent>, Error> {
        while let Some(output) = self.role.poll_output() {
            match output {
                HandshakeOutput::Transmit(bytes) => {
                    if self.stream.write_all(&bytes).await.is_err() {
                        return Err(self.role.handle_close());
                    }
                }
                HandshakeOutput::Event(event) => return Ok(Some(event)),
            }
        }
        Ok(None)
    }

    /// A failed handshake may still have something to say, such as `not_allowed`.
    async fn last_words(&mut self, error: Error) -> Error {
        let _unheard = self.transmit().await;
        error
    }

    /// Goes on with what has arrived already, after an event was answered.
    async fn answered(&mut self, outcome: Result<(), Error>) -> Result<(), Error> {
        let outcome = outcome.and_then(|()| self.role.handle_input(self.clock.now(), &mut self.input));
        match outcome {
            Ok(()) => Ok(()),
            Err(error) => Err(self.last_words(error).await),
        }
    }

    fn established(self, agreement: Agreement, address: SocketAddr) -> Established {
        Established { agreement, stream: self.stream, address, leftover: self.input }
    }
}

fn config(identity: &Identity, peer: Option<&NodeName>) -> HandshakeConfig {
    let mut config =
        HandshakeConfig::new(identity.name.clone(), identity.creation, identity.cookie_for(peer));
    config.flags = identity.flags;
    config.prefix = if identity.tls.is_some() { LengthPrefix::Four } else { LengthPrefix::Two };
    config.step_timeout = identity.step_timeout();
    config.total_timeout = identity.total_timeout();
    config.open_challenges = identity.open_challenges.clone();
    config.max_message = identity.config.limits.wire.max_handshake_message;
    config
}

fn challenge() -> Result<u32, Error> {
    random::bits32().map_err(|_| Error::ApiMisuse("the system has no random source"))
}

/// The handshake of the side that has dialled `peer`.
pub(super) async fn initiate(
    kernel: &NetKernel,
    peer: &NodeName,
    number: u64,
    stream: Stream,
    address: SocketAddr,
) -> Result<Established, Error> {
    let identity = kernel.identity();
    let clock = identity.clock;
    if !kernel.dialled(peer.as_atom(), number).await {
        return Err(Error::Closed(ClosedBy::Local));
    }
    let machine = Initiator::new(config(identity, Some(peer)), peer.clone(), challenge()?, clock.now())?;
    let mut exchange = Exchange::new(Role::Initiator(machine), stream, clock);
    loop {
        match exchange.next_event().await? {
            HandshakeEvent::PeerNok => {
                debug!("nok: waiting for the peer's own attempt");
                kernel.gives_way(peer.as_atom(), number);
            }
            HandshakeEvent::PeerAlive => {
                let replace = kernel.should_replace(peer.as_atom());
                if let Role::Initiator(machine) = &mut exchange.role {
                    let outcome = machine.answer_alive(clock.now(), replace);
                    exchange.answered(outcome).await?;
                }
            }
            HandshakeEvent::Established(agreement) => return Ok(exchange.established(*agreement, address)),
            _ => {}
        }
    }
}

/// The handshake of a node that has no name yet and asks the peer for one. It has nothing else to do meanwhile, so nothing of
/// the peer's answers depends on a table.
pub(super) async fn initiate_unnamed(
    identity: &Identity,
    peer: &NodeName,
    stream: Stream,
    address: SocketAddr,
) -> Result<Established, Error> {
    let clock = identity.clock;
    let mut config = config(identity, Some(peer));
    config.name = OwnName::Dynamic { host: identity.name.host().to_owned() };
    let machine = Initiator::new(config, peer.clone(), challenge()?, clock.now())?;
    let mut exchange = Exchange::new(Role::Initiator(machine), stream, clock);
    loop {
        match exchange.next_event().await? {
            HandshakeEvent::Established(agreement) => return Ok(exchange.established(*agreement, address)),
            // Both concern a node that the peer knows already.
            HandshakeEvent::PeerNok | HandshakeEvent::PeerAlive => {
                return Err(Error::PeerIncompatible(PeerIncompatible::Nok));
            }
            _ => {}
        }
    }
}

/// The handshake of the side that was dialled, up to the link. `Ok` also if it came to nothing in an orderly way. `proved` is
/// called once the peer has proved the cookie, before the link is put in place.
pub(super) async fn accept(
    node: &Arc<NodeInner>,
    stream: Stream,
    address: SocketAddr,
    proved: impl FnOnce(),
) -> Result<(), Refused> {
    let kernel = &node.net_kernel;
    let identity = kernel.identity();
    let clock = identity.clock;
    let unnamed = |error| Refused { peer: None, error };
    let allow = match stream.session() {
        Some(session) if !identity.config.allow.is_empty() => {
            session.narrow(&identity.config.allow, address.ip())
        }
        _ => identity.config.allow.clone(),
    };
    if allow.is_empty() && !identity.config.allow.is_empty() {
        debug!("the peer's certificate is for nobody who is allowed");
        return Err(unnamed(Error::PeerIncompatible(PeerIncompatible::NotAllowed)));
    }
    let challenge = challenge().map_err(unnamed)?;
    let machine = Acceptor::new(config(identity, None), challenge, clock.now()).map_err(unnamed)?;
    let mut exchange = Exchange::new(Role::Acceptor(machine), stream, clock);
    let mut accepting: Option<Accepting<'_>> = None;
    let mut named = None;
    let result = async {
        loop {
            match exchange.next_event().await? {
                HandshakeEvent::PeerHello(hello) => {
                    if let PeerName::Named(name) = &hello.name {
                        kernel.settled(name.as_atom()).await;
                    }
                    let decision;
                    let name;
                    (decision, name, accepting) = judge(kernel, &allow, &hello)?;
                    if let Some(name) = name {
                        if let Role::Acceptor(machine) = &mut exchange.role {
                            machine.set_cookie(identity.cookie_for(Some(&name)));
                        }
                        named = Some(name);
                    }
                    if let Role::Acceptor(machine) = &mut exchange.role {
                        let outcome = machine.decide(clock.now(), decision);
                        exchange.answered(outcome).await?;
                    }
                }
                HandshakeEvent::PeerProved => {
                    if let Some(accepting) = &accepting {
                        kernel.replace(accepting.peer()).await;
                    }
                    if let Role::Acceptor(machine) = &mut exchange.role {
                        let outcome = machine.replaced();
                        exchange.answered(outcome).await?;
                    }
                }
                HandshakeEvent::Established(agreement) => return Ok(*agreement),
                _ => {}
            }
        }
    }
    .await;
    match result {
        Ok(agreement) => {
            proved();
            let established = exchange.established(agreement, address);
            kernel.install(node, established, None).await;
            drop(accepting);
            Ok(())
        }
        Err(error) => Err(Refused { peer: named, error }),
    }
}

/// An accepted connection that came to nothing.
#[derive(Debug)]
pub(super) struct Refused {
    /// The name that the peer gave, if it came that far. It is not proved.
    pub(super) peer: Option<NodeName>,
    pub(super) error: Error,
}

/// The answer, the peer's name if it has one, and the mark that the handshake with it goes on.
type Judgement<'a> = (Decision, Option<NodeName>, Option<Accepting<'a>>);

/// What to answer whoever has said its name.
fn judge<'a>(kernel: &'a NetKernel, allow: &[String], hello: &PeerHello) -> Result<Judgement<'a>, Error> {
    match &hello.name {
        PeerName::Named(name) => {
            let known = Some(name.clone());
            if !is_allowed(allow, name) || !kernel.has_room() {
                return Ok((Decision::NotAllowed, known, None));
            }
            let (verdict, accepting) = kernel.consider(name);
            match verdict {
                Verdict::Decide(decision) => Ok((decision, known, accepting)),
                // Our own attempt is not stopped yet: this connection has not proved that it is the peer. If it is, the
                // peer answers our attempt with `nok`, and the one that is up first ends the other.
                Verdict::GiveUpOwnAttempt => Ok((Decision::OkSimultaneous, known, accepting)),
                Verdict::Close => Err(Error::Closed(ClosedBy::Local)),
            }
        }
        PeerName::Unnamed { host } => {
            if !kernel.has_room() {
                return Ok((Decision::NotAllowed, None, None));
            }
            let random = || random::bits32().map_err(|_| Error::ApiMisuse("the system has no random source"));
            let alive = format!("{:08X}{:08X}", random()?, random()?);
            let creation =
                random::creation().map_err(|_| Error::ApiMisuse("the system has no random source"))?;
            let name = NodeName::new(&alive, host)
                .map_err(|_| Error::PeerIncompatible(PeerIncompatible::NotAllowed))?;
            if !is_allowed(allow, &name) {
                return Ok((Decision::NotAllowed, None, None));
            }
            Ok((Decision::Named { name: name.clone(), creation }, Some(name), None))
        }
    }
}

/// Whether a peer may connect: `net_kernel:allow/1` takes node names, hosts, and `name@`.
fn is_allowed(allow: &[String], peer: &NodeName) -> bool {
    allow.is_empty()
        || allow.iter().any(|entry| match entry.strip_suffix('@') {
            Some(alive) => alive == peer.alive(),
            None => entry == peer.as_str() || entry == peer.host(),
        })
}
