//! Channels: `control`, `events`, `telemetry` and `data`, the host of [`foundation_cluster::channels`].
//!
//! Each is a topic of the PubSub `Foundation.PubSub`, so any BEAM node with a Phoenix.PubSub of that name takes part and gets the
//! bare message, at most once. Between nodes with this service a channel has the promise of its [`Config`].
//!
//! ```no_run
//! # async fn example(node: foundation_node::Node) -> Result<(), Box<dyn std::error::Error>> {
//! use foundation_node::service::channels::{Channel, Route};
//! let channels = node.channels()?;
//! let mut events = channels.subscribe::<(String, i64)>(Channel::Events)?;
//! channels.broadcast(Channel::Events, &("orders", 3)).await?;
//! channels.route_message(&("reload", "now"), &Route::to_node("app@127.0.0.1").urgent()).await?;
//! let (name, count) = events.next().await?;
//! # Ok(()) }
//! ```
//!
//! # Order
//!
//! A channel sends from a process of its own, in the lane of its priority. So what one task sends on one channel arrives in order
//! everywhere, and nothing is promised between channels: a small message on `control` passes a large one on `data` that was sent
//! before. Until a node's channel process is known, a moment after its PubSub is, it is served as a BEAM node.
//!
//! # Connections
//!
//! All channels share the node's connections unless [`Config::connection`] says otherwise. A channel with connections of its own has a hidden
//! identity, `app_channel_data@host` for the channel `data` of `app@host`, which dials the other nodes, does not listen and stands in no
//! EPMD; what they answer comes over the shared connections. A connection is taken once it is there and the node has said that all has
//! arrived that was sent over the one before, so order holds. If it is lost, nodes with this service are reached over the shared one at
//! once; to a BEAM node nothing goes until it is back, or for 10 seconds.

mod line;
mod meter;
mod own;

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use foundation_cluster::channels::PUBSUB;
pub use foundation_cluster::channels::{
    Channel, Config, Connection, Fanout, Priority, Receipt, Reliability, UnknownChannel,
};
use foundation_proto::etf::serde::{from_raw, to_raw};
use foundation_proto::etf::{Atom, Pid, RawTerm};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::broadcast;

use self::line::Line;
use self::meter::Meter;
pub use self::meter::{Latency, Metrics};
use super::changes::Changes;
use super::pubsub::{PubSub, Subscription, Tap};
use crate::error::{Error, Result};
use crate::net::Link;
use crate::node::Node;

/// How long a sender waits at most, unless it says otherwise: for room, and for acknowledgements where they are promised.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// The channels of a node; cheap to clone.
#[derive(Clone, Debug)]
pub struct Channels {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    node: Node,
    pubsub: PubSub,
    lines: BTreeMap<Channel, Arc<Line>>,
    events: broadcast::Sender<Event>,
    resolver: RwLock<Option<Arc<dyn Resolver>>>,
    /// Counts deliveries to services and capabilities, which their instances take in turn.
    turn: AtomicUsize,
}

/// Finds out who offers a service or a capability, for [`Target::Service`] and [`Target::Capability`].
///
/// A [service mesh](crate::service::mesh::Mesh) is one; a program may bring its own. [`Channels::set_resolver`] takes either.
pub trait Resolver: Send + Sync {
    /// The processes that offer a service.
    fn service(&self, name: &str) -> Vec<Pid>;
    /// The nodes that have a capability.
    fn capability(&self, name: &str) -> Vec<Atom>;
}

impl fmt::Debug for dyn Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

/// Where a message goes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Target {
    /// To the subscribers on all nodes.
    #[default]
    All,
    /// To the subscribers on one node.
    Node(Atom),
    /// To one process that offers this service, in turn; it gets the bare message, at most once.
    Service(String),
    /// To the subscribers on one node that has this capability, in turn.
    Capability(String),
}

/// How [`Channels::route_message`] treats a message.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Route {
    /// The channel; else `control` for what is urgent, `data` for 10,240 encoded bytes or more, `events` for the rest.
    pub channel: Option<Channel>,
    /// How urgent it is.
    pub priority: Priority,
    /// Whether it is compressed on its way to nodes that have this service, also on a channel that does not compress.
    pub compression: bool,
    /// How long to wait at most.
    pub timeout: Duration,
    /// Where it goes.
    pub to: Target,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            channel: None,
            priority: Priority::Normal,
            compression: false,
            timeout: TIMEOUT,
            to: Target::All,
        }
    }
}

impl Route {
    /// To the subscribers on one node. A name that cannot be an atom is a node that is not available.
    pub fn to_node(node: &str) -> Self {
        Self { to: Target::Node(Atom::new(node).unwrap_or_else(|_| Atom::new_static(""))), ..Self::default() }
    }

    /// To one process that offers the service.
    pub fn to_service(name: &str) -> Self {
        Self { to: Target::Service(name.to_owned()), ..Self::default() }
    }

    /// To one node that has the capability.
    pub fn to_capability(name: &str) -> Self {
        Self { to: Target::Capability(name.to_owned()), ..Self::default() }
    }

    /// On this channel.
    #[must_use]
    pub fn channel(self, channel: Channel) -> Self {
        Self { channel: Some(channel), ..self }
    }

    /// With high priority.
    #[must_use]
    pub fn urgent(self) -> Self {
        Self { priority: Priority::High, ..self }
    }

    /// Compressed.
    #[must_use]
    pub fn compressed(self) -> Self {
        Self { compression: true, ..self }
    }

    /// Within this time.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }
}

/// Why a message was not routed. Nothing was sent.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RouteError {
    /// The node is not connected, or has no PubSub `Foundation.PubSub`: `{node_not_available, Node}`.
    NodeNotAvailable(Atom),
    /// Nobody offers the service, or no [`Resolver`] is set: `{no_service_instances, Service}`.
    NoServiceInstances(String),
    /// No node has the capability, or no [`Resolver`] is set: `{no_capable_nodes, Capability}`.
    NoCapableNodes(String),
    /// Sending failed.
    Send(Error),
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeNotAvailable(node) => {
                write!(
                    f,
                    "node_not_available: {} is not connected or has no Foundation.PubSub",
                    node.as_str()
                )
            }
            Self::NoServiceInstances(service) => write!(f, "no_service_instances: nobody offers {service:?}"),
            Self::NoCapableNodes(capability) => write!(f, "no_capable_nodes: no node has {capability:?}"),
            Self::Send(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RouteError {}

impl From<Error> for RouteError {
    fn from(error: Error) -> Self {
        Self::Send(error)
    }
}

/// What happens on the channels of this node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// `[:foundation, :message, :sent]`: a message was handed in.
    Sent {
        /// Where.
        channel: Channel,
        /// Its encoded size in bytes.
        size: usize,
    },
    /// `[:foundation, :message, :received]`: a message of another node arrived.
    Received {
        /// Where.
        channel: Channel,
        /// Its encoded size in bytes.
        size: usize,
        /// The node that sent it, where an envelope tells; a message of a BEAM node does not.
        from: Option<Atom>,
        /// How long it was on its way, and by how much that may be wrong, where an envelope tells and the clocks were compared.
        latency: Option<(Duration, Duration)>,
    },
    /// Messages with a promise were given up.
    Lost {
        /// Where.
        channel: Channel,
        /// The other node.
        node: Atom,
        /// How many.
        messages: u64,
        /// Whether they were to go to that node; else they were to come from it.
        outgoing: bool,
    },
}

/// Events from the moment of [`Channels::events`] on.
pub type Events = Changes<Event>;

/// The messages of one channel as values; dropping it ends the subscription.
///
/// Through [`Deref`] it is the [`Subscription`], and through that the process that receives.
#[derive(Debug)]
pub struct Messages<T> {
    subscription: Subscription,
    values: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Messages<T> {
    /// The next message. Nothing is lost if this is cancelled.
    ///
    /// # Errors
    /// [`Error::Value`] if it is not what the type wants: it is then dropped, and the next one is none the worse.
    /// [`Error::Exited`] if the mailbox overflowed.
    pub async fn next(&mut self) -> Result<T> {
        Ok(from_raw(&self.subscription.next().await?)?)
    }
}

impl<T> Messages<T> {
    /// The next message, still encoded.
    ///
    /// # Errors
    /// [`Error::Exited`] if the mailbox overflowed.
    pub async fn next_raw(&mut self) -> Result<RawTerm> {
        self.subscription.next().await
    }

    /// Ends the subscription.
    pub fn unsubscribe(self) {}
}

impl<T> Deref for Messages<T> {
    type Target = Subscription;

    fn deref(&self) -> &Subscription {
        &self.subscription
    }
}

impl Channels {
    pub(super) fn start(node: &Node) -> Result<Self> {
        let pubsub = node.pubsub(PUBSUB)?;
        let events = Changes::channel();
        let mut lines = BTreeMap::new();
        for channel in Channel::ALL {
            lines.insert(channel, Line::start(node, &pubsub, channel, events.clone())?);
        }
        let meters: Vec<(Channel, Arc<Meter>)> =
            lines.iter().map(|(channel, line)| (*channel, Arc::clone(&line.meter))).collect();
        let told = events.clone();
        pubsub.set_tap(Tap(Box::new(move |topic, size| {
            if let Some((channel, meter)) =
                meters.iter().find(|(channel, _)| channel.topic().as_bytes() == topic)
            {
                meter.received(size, None);
                publish(&told, || Event::Received { channel: *channel, size, from: None, latency: None });
            }
        })));
        let shared = Shared {
            node: node.clone(),
            pubsub,
            lines,
            events,
            resolver: RwLock::default(),
            turn: AtomicUsize::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(super) fn is_running(&self) -> bool {
        self.shared.lines.values().all(|line| line.is_running())
    }

    fn line(&self, channel: Channel) -> Result<&Arc<Line>> {
        // All four are made by `start`.
        self.shared.lines.get(&channel).ok_or(Error::NoProc)
    }

    /// Sends to the subscribers on all nodes, this one included. Waits for room, and on a [`Reliability::Guaranteed`] channel for
    /// the acknowledgements of the nodes in reach that have this service.
    ///
    /// # Errors
    /// [`Error::Value`] if the value has no term; [`Error::Term`]; [`Error::Timeout`] if there was no room: nothing was sent then.
    pub async fn broadcast<T: Serialize + ?Sized>(&self, channel: Channel, message: &T) -> Result<Receipt> {
        self.broadcast_raw(channel, to_raw(message)?).await
    }

    /// The same for an encoded message.
    ///
    /// # Errors
    /// As [`Channels::broadcast`].
    pub async fn broadcast_raw(&self, channel: Channel, message: RawTerm) -> Result<Receipt> {
        self.line(channel)?.broadcast(message, false, TIMEOUT).await
    }

    /// Subscribes: a stream of what is sent on a channel from now on, by any node.
    ///
    /// # Errors
    /// [`Error::SystemLimit`].
    pub fn subscribe<T: DeserializeOwned>(&self, channel: Channel) -> Result<Messages<T>> {
        Ok(Messages { subscription: self.shared.pubsub.subscribe(channel.topic())?, values: PhantomData })
    }

    /// Subscribes a process of this node, once more if it has subscribed already; ends with the process.
    pub fn subscribe_pid(&self, channel: Channel, pid: &Pid) {
        self.shared.pubsub.subscribe_pid(channel.topic(), pid);
    }

    /// Removes all subscriptions of a process to a channel.
    pub fn unsubscribe_pid(&self, channel: Channel, pid: &Pid) {
        self.shared.pubsub.unsubscribe_pid(channel.topic(), pid);
    }

    /// Sends a message on the channel that suits it, to where the route says.
    ///
    /// # Errors
    /// [`RouteError`].
    pub async fn route_message<T: Serialize + ?Sized>(
        &self,
        message: &T,
        route: &Route,
    ) -> Result<Receipt, RouteError> {
        self.route_raw(to_raw(message).map_err(Error::from)?, route).await
    }

    /// The same for an encoded message.
    ///
    /// # Errors
    /// [`RouteError`].
    pub async fn route_raw(&self, message: RawTerm, route: &Route) -> Result<Receipt, RouteError> {
        let chosen = || Channel::for_message(route.priority, message.as_bytes().len());
        let line = self.line(route.channel.unwrap_or_else(chosen))?;
        let node = match &route.to {
            Target::All => return Ok(line.broadcast(message, route.compression, route.timeout).await?),
            Target::Node(node) => node.clone(),
            Target::Service(name) => {
                let none = || RouteError::NoServiceInstances(name.clone());
                let pid = self.in_turn(|resolver| resolver.service(name)).ok_or_else(none)?;
                line.send_bare(&pid, message, route.timeout).await?;
                return Ok(Receipt::default());
            }
            Target::Capability(name) => {
                let none = || RouteError::NoCapableNodes(name.clone());
                self.in_turn(|resolver| resolver.capability(name)).ok_or_else(none)?
            }
        };
        let sent = line.send(&node, message, route.compression, route.timeout).await?;
        sent.ok_or(RouteError::NodeNotAvailable(node))
    }

    fn in_turn<T: Clone>(&self, of: impl FnOnce(&dyn Resolver) -> Vec<T>) -> Option<T> {
        let resolver = self.shared.resolver.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        let all = of(&*resolver);
        let turn = self.shared.turn.fetch_add(1, Ordering::Relaxed);
        all.get(turn.checked_rem(all.len())?).cloned()
    }

    /// Who finds services and capabilities from now on.
    pub fn set_resolver(&self, resolver: Arc<dyn Resolver>) {
        *self.shared.resolver.write().unwrap_or_else(PoisonError::into_inner) = Some(resolver);
    }

    /// How a channel behaves.
    pub fn config(&self, channel: Channel) -> Config {
        self.shared.lines.get(&channel).map_or_else(|| Config::of(channel), |line| line.config())
    }

    /// Changes how a channel of this node behaves, for what it sends from now on. What waits for acknowledgements is given up if
    /// the new configuration promises none.
    pub fn configure(&self, channel: Channel, config: Config) {
        if let Some(line) = self.shared.lines.get(&channel) {
            line.configure(config);
        }
    }

    /// What has happened on each channel of this node.
    pub fn metrics(&self) -> BTreeMap<Channel, Metrics> {
        self.shared.lines.iter().map(|(channel, line)| (*channel, line.metrics())).collect()
    }

    /// What happens from now on.
    pub fn events(&self) -> Events {
        Changes::of(&self.shared.events)
    }

    /// The nodes that take part: with this service, and as BEAM nodes or not yet known as more.
    pub fn nodes(&self, channel: Channel) -> (Vec<Atom>, Vec<Atom>) {
        self.shared.lines.get(&channel).map(|line| line.nodes()).unwrap_or_default()
    }

    /// Tells the other nodes that this one ends for good, so that they keep no messages for it. A node that only restarts does
    /// without, and gets what was sent meanwhile.
    pub fn leave(&self) {
        self.shared.lines.values().for_each(|line| line.leave());
    }

    /// The connections of a channel's own that its messages take now; empty unless [`Config::connection`] asks for them.
    pub fn own_links(&self, channel: Channel) -> Vec<Arc<Link>> {
        self.shared.lines.get(&channel).map(|line| line.own_links()).unwrap_or_default()
    }

    /// The PubSub underneath.
    pub fn pubsub(&self) -> &PubSub {
        &self.shared.pubsub
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.shared.node
    }
}

/// Tells whoever listens, and makes the event only if somebody does.
fn publish(events: &broadcast::Sender<Event>, event: impl FnOnce() -> Event) {
    if events.receiver_count() > 0 {
        // They may have gone meanwhile.
        let _ = events.send(event());
    }
}
