//! Connections that belong to one channel: a hidden identity of this node that only sends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use foundation_cluster::channels::Channel;
use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid};
use tokio::sync::Notify;
use tracing::{debug, warn};

use super::line::Line;
use crate::config::Builtins;
use crate::discovery::ClusterConfig;
use crate::error::{Error, Result};
use crate::net::Link;
use crate::net_kernel::NodeType;
use crate::node::Node;
use crate::process::{Handle, Process};

/// The first and the longest pause before a node is dialled again that this identity could not reach.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How often it is compared who is to be connected, if nothing else happens.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a node may take to say that all has arrived that was sent over the connection before.
pub(super) const SETTLE: Duration = Duration::from_secs(2);
/// How long the connection is left that it could not say so over.
pub(super) const TRY_AGAIN: Duration = Duration::from_secs(30);
/// How long nothing goes to a BEAM node whose own connection was lost, before the shared one is taken again: longer than what was
/// on the lost one can take to arrive.
pub(super) const FALL_BACK: Duration = Duration::from_secs(10);

/// Which connection the messages for one node take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Way {
    /// That of the node, not to be left before this time.
    Shared { until: Mono },
    /// That of the channel; since when it is lost.
    Own { lost_at: Option<Mono> },
}

/// The hidden identity of a channel.
#[derive(Debug)]
pub(super) struct Own {
    node: Node,
    /// In whose name everything is sent.
    pub(super) sender: Handle,
    /// Others are to be connected.
    pub(super) wake: Notify,
}

impl Own {
    /// The name of the identity: `app_channel_data@host` for the channel `data` of `app@host`. `None` if it is too long.
    pub(super) fn name(node: &Atom, channel: Channel) -> Option<String> {
        let (alive, host) = node.as_str().split_once('@')?;
        let name = format!("{alive}_channel_{channel}@{host}");
        Atom::new(&name).is_ok().then_some(name)
    }

    /// Starts the identity: it does not listen, and stands in no EPMD.
    async fn start(main: &Node, channel: Channel) -> Result<(Arc<Self>, Process), String> {
        let identity = main.inner().net_kernel.identity();
        let name = Self::name(main.name(), channel).ok_or("the name of this node is too long")?;
        let mut config = main.config().clone();
        config.name = Some(name);
        config.cookie = Some(identity.cookie_for(None));
        (config.hidden, config.dist_listen) = (true, false);
        config.builtins = Builtins::None;
        config.cluster = ClusterConfig::default();
        let node = Node::start(config).await.map_err(|error| error.to_string())?;
        let process = node.process().map_err(|error| error.to_string())?;
        let own = Self { node, sender: process.handle(), wake: Notify::new() };
        Ok((Arc::new(own), process))
    }

    /// The channel's connection to a node.
    pub(super) fn link(&self, node: &Atom) -> Option<Arc<Link>> {
        self.node.inner().net_kernel.link(node).filter(|link| !link.is_closing())
    }

    /// All connections of the channel.
    pub(super) fn links(&self) -> Vec<Arc<Link>> {
        self.node.links()
    }

    /// Connects to whoever is wanted and not connected, and leaves the others.
    async fn look(&self, main: &Node, wanted: &BTreeSet<Atom>, pauses: &mut Pauses, now: Mono) {
        for node in self.node.nodes(NodeType::Connected) {
            if !wanted.contains(&node) {
                self.node.disconnect(node.as_str()).await;
            }
        }
        for node in pauses.keys().filter(|node| !wanted.contains(*node)) {
            self.node.inner().net_kernel.release(node);
        }
        pauses.retain(|node, _| wanted.contains(node));
        let theirs = self.node.inner().net_kernel.identity();
        theirs.take_cookies_of(main.inner().net_kernel.identity());
        for node in wanted {
            let (at, pause) = pauses.entry(node.clone()).or_insert((now, PAUSE.0));
            if self.link(node).is_some() {
                (*at, *pause) = (now, PAUSE.0);
            } else if *at <= now {
                (*at, *pause) = (now + *pause, (*pause * 2).min(PAUSE.1));
                let (own, node) = (self.node.clone(), node.clone());
                self.node.inner().runtime.spawn(async move {
                    if let Err(error) = own.connect(node.as_str()).await {
                        debug!(node = node.as_str(), %error, "a channel has no connection of its own");
                    }
                });
            }
        }
    }
}

/// When a node is dialled next, and how long the pause after that is.
type Pauses = BTreeMap<Atom, (Mono, Duration)>;

/// Has the connections of a channel until it does not want them any more, or its node has stopped.
pub(super) async fn keep(line: Arc<Line>, main: Node, channel: Channel) {
    let (own, mut process) = loop {
        match Own::start(&main, channel).await {
            Ok(started) => break started,
            Err(why) => warn!(%channel, why, "the channel has no connections of its own"),
        }
        tokio::time::sleep(PAUSE.1).await;
        if !line.wants_own() || main.inner().net_kernel.is_stopping() {
            return line.own_has_ended();
        }
    };
    line.own_has_started(&own);
    let mut pauses = Pauses::new();
    let mut events = main.events();
    while line.wants_own() && !main.inner().net_kernel.is_stopping() {
        let wanted = line.wanted();
        own.look(&main, &wanted, &mut pauses, line.now()).await;
        line.retain_ways(|node| wanted.contains(node) || own.link(node).is_some());
        tokio::select! {
            () = own.wake.notified() => {}
            _ = events.next() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            // Answers that came too late.
            received = process.recv() => if received.is_err() { break },
        }
    }
    if !main.inner().net_kernel.is_stopping() {
        line.leave_own().await;
    }
    line.own_has_ended();
    own.node.stop().await;
}

/// Waits until a node has received all that this process has sent it: it answers what was sent last.
pub(super) async fn settled(sender: &Handle, worker: &Pid) -> Result<()> {
    let request = (Atom::new_static("is_auth"), sender.pid().node.clone());
    let asked = sender.call_as_self::<foundation_proto::etf::Term>(
        (Atom::new_static("net_kernel"), worker.node.clone()),
        &request,
        SETTLE,
    );
    match asked.await {
        Ok(_) | Err(Error::Raised(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
