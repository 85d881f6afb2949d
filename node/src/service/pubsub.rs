//! Topics, shared with Phoenix.PubSub: the host of [`foundation_cluster::pubsub`].
//!
//! ```no_run
//! # async fn example(node: foundation_node::Node) -> foundation_node::Result<()> {
//! use foundation_proto::etf::Term;
//! let pubsub = node.pubsub("MyApp.PubSub")?;
//! let mut subscription = pubsub.subscribe("room:1")?;
//! pubsub.broadcast("room:1", &Term::from("hello")).await?;
//! let message = subscription.next().await?;
//! # Ok(())
//! # }
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

pub use foundation_cluster::pubsub::Broadcast;
use foundation_cluster::pubsub::{
    CHANNEL_DISPATCHER, DISPATCHER, Forward, MAX_POOL, SCOPE, Subscriptions, adapter, group_number,
    listeners, pool_mismatch,
};
use foundation_proto::etf::{Atom, Pid, RawTerm, Tape, Term};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::pg::{Groups, Monitor};
use crate::error::{Error, Result};
use crate::node::Node;
use crate::process::{Dest, Handle, Message, Process};

/// One PubSub of this node, member of the PubSubs of its name on all connected nodes; cheap to clone.
///
/// Delivery is at most once: what is sent while a node is out of reach does not reach it. The messages of one sender arrive in
/// order, so a small one waits for the large ones before it. All who use clones of one `PubSub` are one sender, until
/// [`PubSub::sending_from`] says otherwise.
#[derive(Clone, Debug)]
pub struct PubSub {
    shared: Arc<Shared>,
    /// In whose name broadcasts are sent.
    sender: Handle,
}

#[derive(Debug)]
struct Shared {
    node: Node,
    /// The first group, to which broadcasts go.
    adapter: Atom,
    groups: Groups,
    subscriptions: RwLock<Subscriptions>,
    /// The first worker.
    worker: Handle,
    /// Tells the worker to watch a new subscriber.
    watch: mpsc::UnboundedSender<Pid>,
    /// Who is told of each message that another node forwards.
    tap: OnceLock<Tap>,
}

/// Is given the topic and the encoded size of each message that another node forwards.
pub(super) struct Tap(pub(super) OnForward);

/// What a [`Tap`] calls.
pub(super) type OnForward = Box<dyn Fn(&[u8], usize) + Send + Sync>;

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tap")
    }
}

/// A subscription with a mailbox of its own; dropping it ends it.
///
/// Through [`Deref`] it is the [`Process`] that receives, with its pid, its limits and its handle.
#[derive(Debug)]
pub struct Subscription {
    process: Process,
}

impl PubSub {
    pub(super) fn start(node: &Node, name: &Atom) -> Result<Self> {
        let adapter = adapter(name).ok_or_else(|| Error::NameTaken(name.clone()))?;
        let groups = node.groups(SCOPE.as_str())?;
        let worker = node.process()?;
        worker.register(adapter.clone())?;
        let (watch, watched) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            node: node.clone(),
            adapter: adapter.clone(),
            groups: groups.clone(),
            subscriptions: RwLock::default(),
            worker: worker.handle(),
            watch,
            tap: OnceLock::new(),
        });
        let runtime = &node.inner().runtime;
        runtime.spawn(Shared::work(Arc::clone(&shared), worker, adapter, Some(watched)));
        // Listening before the first look at the groups, so that none is missed.
        let changes = groups.monitor();
        runtime.spawn(Shared::follow_pools(Arc::clone(&shared), changes));
        let sender = shared.worker.clone();
        Ok(Self { shared, sender })
    }

    pub(super) fn is_running(&self) -> bool {
        self.shared.worker.exit_reason().is_none()
    }

    /// The same PubSub, whose broadcasts go out in the name of a process of this node, as those of a BEAM process do: in order with what
    /// else it sends, and beside what others send. Once the process has ended, they fail with [`Error::Exited`].
    #[must_use]
    pub fn sending_from(&self, process: &Handle) -> Self {
        Self { shared: Arc::clone(&self.shared), sender: process.clone() }
    }

    /// A new subscription to a topic.
    ///
    /// # Errors
    /// [`Error::SystemLimit`].
    pub fn subscribe(&self, topic: &str) -> Result<Subscription> {
        let process = self.shared.node.process()?;
        self.subscribe_pid(topic, process.pid());
        Ok(Subscription { process })
    }

    /// Subscribes a process of this node, once more if it has subscribed already; ends with the process.
    pub fn subscribe_pid(&self, topic: &str, pid: &Pid) {
        if self.shared.write().subscribe(topic.as_bytes(), pid) {
            // The worker lives as long as the node; without it there is nobody to deliver either.
            let _ = self.shared.watch.send(pid.clone());
        }
    }

    /// Removes all subscriptions of a process to a topic.
    pub fn unsubscribe_pid(&self, topic: &str, pid: &Pid) {
        self.shared.write().unsubscribe(topic.as_bytes(), pid);
    }

    /// Sends to all subscribers on all nodes. Waits while a connection is busy.
    ///
    /// # Errors
    /// [`Error::Term`] if the message cannot be encoded, [`Error::Exited`] if the process in whose name it is sent has ended.
    pub async fn broadcast(&self, topic: &str, message: &Term) -> Result<()> {
        self.broadcast_raw(topic, RawTerm::from_term(message)?, None).await
    }

    /// The same, without delivering to one process of this node.
    ///
    /// # Errors
    /// As [`PubSub::broadcast`].
    pub async fn broadcast_from(&self, from: &Pid, topic: &str, message: &Term) -> Result<()> {
        self.broadcast_raw(topic, RawTerm::from_term(message)?, Some(from)).await
    }

    /// Sends an encoded message to all subscribers on all nodes, but for one process of this node.
    ///
    /// # Errors
    /// As [`PubSub::broadcast`].
    pub async fn broadcast_raw(&self, topic: &str, message: RawTerm, but: Option<&Pid>) -> Result<()> {
        self.dispatch(topic, &message, but, &DISPATCHER).await
    }

    /// As [`PubSub::broadcast`], for the other nodes to deliver by a module of theirs (`Phoenix.PubSub.broadcast/4`). The
    /// subscribers of this node get the message as it is.
    ///
    /// A node that does not have the module loses its PubSub worker, and with it what else is on its way to that worker.
    ///
    /// # Errors
    /// As [`PubSub::broadcast`].
    pub async fn broadcast_with(&self, topic: &str, message: &Term, dispatcher: &str) -> Result<()> {
        let dispatcher = super::elixir_name(dispatcher)?;
        self.dispatch(topic, &RawTerm::from_term(message)?, None, &dispatcher).await
    }

    /// Sends to the clients, channels and LiveViews that are on a topic, as `Phoenix.Endpoint.broadcast/3` does. All nodes with this
    /// PubSub have to have Phoenix: see [`PubSub::broadcast_with`].
    ///
    /// The subscribers of this node get the message of [`Broadcast::to_term`].
    ///
    /// # Errors
    /// As [`PubSub::broadcast`].
    pub async fn endpoint_broadcast(&self, topic: &str, event: &str, payload: &Term) -> Result<()> {
        let broadcast =
            Broadcast { topic: topic.to_owned(), event: event.to_owned(), payload: payload.clone() };
        let message = RawTerm::from_term(&broadcast.to_term())?;
        self.dispatch(topic, &message, None, &CHANNEL_DISPATCHER).await
    }

    async fn dispatch(
        &self,
        topic: &str,
        message: &RawTerm,
        but: Option<&Pid>,
        dispatcher: &Atom,
    ) -> Result<()> {
        if let Some(reason) = self.sender.exit_reason() {
            return Err(Error::Exited(reason));
        }
        let node = &self.shared.node;
        let mut forward = None;
        for worker in self.remote_workers() {
            let message = match &forward {
                Some(forward) => RawTerm::clone(forward),
                None => Forward::encode(topic.as_bytes(), message, dispatcher, node.inner().limits())?,
            };
            forward = Some(message.clone());
            // A node that goes away now has its members removed next; broadcasts do not wait for it.
            if let Err(error) = self.sender.send_raw(Dest::from(worker), message).await {
                debug!(%error, "a broadcast did not reach a node");
            }
        }
        self.shared.deliver(topic.as_bytes(), message, but);
        Ok(())
    }

    /// Sends to the subscribers on one node.
    ///
    /// # Errors
    /// As [`Handle::send_raw`](crate::Handle::send_raw), and [`Error::Term`].
    pub async fn direct_broadcast(&self, node: &str, topic: &str, message: &Term) -> Result<()> {
        let message = RawTerm::from_term(message)?;
        if *self.shared.node.name() == node {
            self.shared.deliver(topic.as_bytes(), &message, None);
            return Ok(());
        }
        let forward = self.shared.forward(topic, &message)?;
        self.sender.send_raw((self.shared.adapter.as_str(), node), forward).await
    }

    /// Delivers to the subscribers on this node alone.
    ///
    /// # Errors
    /// [`Error::Term`].
    pub fn local_broadcast(&self, topic: &str, message: &Term) -> Result<()> {
        self.shared.deliver(topic.as_bytes(), &RawTerm::from_term(message)?, None);
        Ok(())
    }

    /// The same for an encoded message.
    pub fn local_broadcast_raw(&self, topic: &str, message: &RawTerm) {
        self.shared.deliver(topic.as_bytes(), message, None);
    }

    /// The scope that it shares with all PubSubs of the node.
    pub(super) fn groups(&self) -> &Groups {
        &self.shared.groups
    }

    /// The workers of other nodes that broadcasts go to.
    pub(super) fn remote_workers(&self) -> impl Iterator<Item = Pid> {
        let members = self.shared.groups.members(&Term::Atom(self.shared.adapter.clone()));
        let own = self.shared.node.name().clone();
        members.into_iter().filter(move |member| member.node != own)
    }

    /// What a worker of another node is sent.
    pub(super) fn forward(&self, topic: &str, message: &RawTerm) -> Result<RawTerm> {
        self.shared.forward(topic, message)
    }

    /// Whom to tell of forwarded messages; the first counts.
    pub(super) fn set_tap(&self, tap: Tap) {
        let _ = self.shared.tap.set(tap);
    }

    /// The size of the pool of each BEAM node, if these are not all equal. BEAM nodes whose `:pool_size` differs lose messages to
    /// each other; what they send to this node, and it to them, arrives. A warning in the log says so when it is noticed.
    pub fn pool_mismatch(&self) -> Option<BTreeMap<Atom, usize>> {
        self.shared.pool_mismatch()
    }

    /// The nodes that have a PubSub of this name.
    pub fn nodes(&self) -> Vec<Atom> {
        let members = self.shared.groups.members(&Term::Atom(self.shared.adapter.clone()));
        let nodes: BTreeSet<Atom> = members.into_iter().map(|member| member.node).collect();
        nodes.into_iter().collect()
    }
}

impl Shared {
    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Subscriptions> {
        self.subscriptions.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn forward(&self, topic: &str, message: &RawTerm) -> Result<RawTerm> {
        Ok(Forward::encode(topic.as_bytes(), message, &DISPATCHER, self.node.inner().limits())?)
    }

    fn deliver(&self, topic: &[u8], message: &RawTerm, but: Option<&Pid>) {
        let subscribers = self.subscriptions.read().unwrap_or_else(PoisonError::into_inner).of_topic(topic);
        for subscriber in subscribers.iter().flat_map(|all| all.iter()) {
            if Some(&subscriber.pid) != but {
                // One that has ended is taken out by its monitor; one that is full ends by its own rule.
                let _ = self.worker.send_now(Dest::from(&subscriber.pid), message.clone());
            }
        }
    }

    /// A worker: delivers what other nodes forward to its group.
    async fn work(
        self: Arc<Self>,
        mut worker: Process,
        group: Atom,
        mut watched: Option<mpsc::UnboundedReceiver<Pid>>,
    ) {
        if watched.is_some() {
            // Before the group, so that nobody takes it for a pool. If it fails, so does the next.
            let _ended = self.groups.join(&listeners(&self.adapter), worker.pid()).await;
        }
        if self.groups.join(&Term::Atom(group), worker.pid()).await.is_err() {
            return;
        }
        let mut tape = Tape::new();
        loop {
            let watch = async {
                match &mut watched {
                    Some(watched) => watched.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = worker.recv() => match message {
                    Ok(Message::Term(raw)) => self.forwarded(&raw, &mut tape),
                    Ok(Message::Down(down)) => {
                        if let crate::process::Monitored::Pid(pid) = down.object {
                            self.write().down(&pid);
                        }
                    }
                    Ok(Message::Exit(_)) => {}
                    Err(_) => return,
                },
                Some(pid) = watch => {
                    if worker.monitor(&pid).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn forwarded(&self, raw: &RawTerm, tape: &mut Tape) {
        match Forward::decode(raw, tape) {
            Ok(Some(forward)) => {
                let mut tape = Tape::new();
                if let Ok(topic) = forward.topic.view(&mut tape)
                    && let Some(topic) = topic.as_binary()
                {
                    if let Some(Tap(tap)) = self.tap.get() {
                        tap(topic, forward.message.as_bytes().len());
                    }
                    self.deliver(topic, &forward.message, None);
                }
            }
            // Phoenix's workers ignore what they do not know, too.
            Ok(None) => {}
            Err(error) => warn!(%error, "a forwarded message was dropped"),
        }
    }

    /// Joins every group that another node listens on, and says when the sizes of the pools differ.
    async fn follow_pools(self: Arc<Self>, mut changes: Monitor) {
        let mut joined = BTreeSet::from([self.adapter.clone()]);
        let mut reported = None;
        loop {
            for group in self.groups.which_groups() {
                let Term::Atom(group) = group else { continue };
                let listens = group_number(&self.adapter, &group).is_some();
                if listens && joined.len() <= MAX_POOL && joined.insert(group.clone()) {
                    self.start_worker(&group);
                }
            }
            self.report_pools(&mut reported);
            loop {
                match changes.next().await {
                    Ok(change) if matches!(&change.group, Term::Atom(group) if group_number(&self.adapter, group).is_some()) =>
                    {
                        break;
                    }
                    Ok(_) => {}
                    Err(Error::Full) => break,
                    Err(_) => return,
                }
            }
        }
    }

    fn start_worker(self: &Arc<Self>, group: &Atom) {
        let worker = self.node.process().and_then(|worker| worker.register(group.clone()).map(|()| worker));
        match worker {
            Ok(worker) => {
                self.node.inner().runtime.spawn(Self::work(Arc::clone(self), worker, group.clone(), None));
            }
            Err(error) => warn!(group = group.as_str(), %error, "messages to this group are not received"),
        }
    }

    fn pool_mismatch(&self) -> Option<BTreeMap<Atom, usize>> {
        let listeners = self.groups.members(&listeners(&self.adapter));
        let is_pool =
            |pid: &Pid| pid.node != *self.node.name() && !listeners.iter().any(|l| l.node == pid.node);
        let members: Vec<(Atom, Vec<Pid>)> = self
            .groups
            .which_groups()
            .into_iter()
            .filter_map(|group| {
                let pids = self.groups.members(&group).into_iter().filter(is_pool).collect();
                let Term::Atom(name) = group else { return None };
                Some((name, pids))
            })
            .collect();
        pool_mismatch(&self.adapter, members.iter().map(|(group, pids)| (group, pids.as_slice())))
    }

    fn report_pools(&self, reported: &mut Option<String>) {
        let text = self.pool_mismatch().map(|sizes| {
            let sizes: Vec<String> =
                sizes.iter().map(|(node, size)| format!("{}: {size}", node.as_str())).collect();
            sizes.join(", ")
        });
        if let Some(sizes) = text.as_ref().filter(|_| text != *reported) {
            warn!(
                pubsub = self.adapter.as_str(),
                pool_sizes = sizes,
                "nodes run this PubSub with different pool sizes and lose messages between them; give all the same :pool_size"
            );
        }
        *reported = text;
    }
}

impl Subscription {
    /// The next message. Nothing is lost if this is cancelled.
    ///
    /// # Errors
    /// [`Error::Exited`] if the mailbox overflowed.
    pub async fn next(&mut self) -> Result<RawTerm> {
        loop {
            if let Message::Term(raw) = self.process.recv().await? {
                return Ok(raw);
            }
        }
    }
}

impl Deref for Subscription {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}
