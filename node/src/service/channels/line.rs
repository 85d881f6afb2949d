//! One channel of this node: its process, and who sends in its name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use foundation_cluster::Machine;
use foundation_cluster::channels::{
    Action, Channel, Config, Connection, Event, Exchange, Priority, Receipt, Reliability,
};
use foundation_proto::Mono;
use foundation_proto::dist::LaneClass;
use foundation_proto::etf::{Atom, Pid, RawTerm};
use tokio::sync::{Notify, broadcast, oneshot};
use tracing::debug;

use super::meter::{Meter, Metrics};
use super::own::{self, FALL_BACK, Own, TRY_AGAIN, Way};
use super::publish;
use crate::error::{Error, Result};
use crate::net::{Clock, Link};
use crate::node::Node;
use crate::process::{Dest, Handle, Message, Process};
use crate::service::pg::{Groups, Monitor};
use crate::service::pubsub::PubSub;

/// A sender that waits for room looks again after this time, whatever happens: a peer may have become stuck.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Line {
    node: Node,
    pubsub: PubSub,
    channel: Channel,
    /// The channel process, in whose name and lane everything is sent.
    sender: Handle,
    clock: Clock,
    /// What is sent or delivered is so under this lock: the order of the machine is that on the wire.
    exchange: Mutex<Exchange>,
    /// Senders wait one after the other, so that not all that wait for one busy connection send at once when it has room.
    turn: tokio::sync::Mutex<()>,
    /// Acknowledgements have come, or a node has gone.
    room: Notify,
    /// The process has to look at its next time-out again.
    wake: Notify,
    tickets: AtomicU64,
    receipts: Mutex<HashMap<u64, oneshot::Sender<Receipt>>>,
    /// The connections of the channel's own, if it has any.
    own: RwLock<Option<Arc<Own>>>,
    keeping: AtomicBool,
    /// By node: the incarnation that this is about, and which connection its messages take. Others take the shared one.
    ways: Mutex<BTreeMap<Atom, (u32, Way)>>,
    pub(super) meter: Arc<Meter>,
    events: broadcast::Sender<super::Event>,
}

/// Whom a message is for.
enum To<'a> {
    All,
    Node(&'a Atom),
}

impl Line {
    pub(super) fn start(
        node: &Node,
        pubsub: &PubSub,
        channel: Channel,
        events: broadcast::Sender<super::Event>,
    ) -> Result<Arc<Self>> {
        let process = node.process()?;
        let config = Config::of(channel);
        process.handle().proc.set_lane_class(lane(config.priority));
        let exchange = Exchange::new(process.pid().clone(), config, node.inner().limits().clone());
        let line = Arc::new(Self {
            node: node.clone(),
            pubsub: pubsub.clone(),
            channel,
            sender: process.handle(),
            clock: Clock::start(),
            exchange: Mutex::new(exchange),
            turn: tokio::sync::Mutex::default(),
            room: Notify::new(),
            wake: Notify::new(),
            tickets: AtomicU64::new(0),
            receipts: Mutex::default(),
            own: RwLock::default(),
            keeping: AtomicBool::new(false),
            ways: Mutex::default(),
            meter: Arc::default(),
            events,
        });
        // Listening before looking, so that no change is missed.
        let changes = pubsub.groups().monitor();
        node.inner().runtime.spawn(Arc::clone(&line).run(process, changes));
        Ok(line)
    }

    pub(super) fn is_running(&self) -> bool {
        self.sender.exit_reason().is_none()
    }

    pub(super) fn config(&self) -> Config {
        self.lock().config().clone()
    }

    pub(super) fn configure(self: &Arc<Self>, config: Config) {
        self.sender.proc.set_lane_class(lane(config.priority));
        if let Some(own) = self.own() {
            own.sender.proc.set_lane_class(lane(config.priority));
            own.wake.notify_one();
        }
        let wants_own = config.connection != Connection::Shared;
        {
            let mut exchange = self.lock();
            exchange.configure(config);
            self.carry_out(&mut exchange);
        }
        if wants_own && !self.keeping.swap(true, Ordering::AcqRel) {
            let keeping = own::keep(Arc::clone(self), self.node.clone(), self.channel);
            self.node.inner().runtime.spawn(keeping);
        }
    }

    pub(super) fn wants_own(&self) -> bool {
        self.lock().config().connection != Connection::Shared
    }

    /// The nodes that the channel is to have a connection of its own to.
    pub(super) fn wanted(&self) -> BTreeSet<Atom> {
        let exchange = self.lock();
        match exchange.config().connection {
            Connection::Shared => BTreeSet::new(),
            Connection::Own => exchange.peers().map(|pid| pid.node.clone()).collect(),
            Connection::OwnToAll => self.pubsub.remote_workers().map(|worker| worker.node).collect(),
        }
    }

    pub(super) fn own_has_started(&self, own: &Arc<Own>) {
        own.sender.proc.set_lane_class(lane(self.config().priority));
        *self.own.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(own));
    }

    /// Whether it has to be started again is looked at anew: the configuration may have changed just now.
    pub(super) fn own_has_ended(self: &Arc<Self>) {
        *self.own.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.ways().clear();
        self.keeping.store(false, Ordering::Release);
        if !self.node.inner().net_kernel.is_stopping() {
            self.configure(self.config());
        }
    }

    pub(super) fn now(&self) -> Mono {
        self.clock.now()
    }

    fn own(&self) -> Option<Arc<Own>> {
        self.own.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn ways(&self) -> MutexGuard<'_, BTreeMap<Atom, (u32, Way)>> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the nodes that need not be known any more.
    pub(super) fn retain_ways(&self, keep: impl Fn(&Atom) -> bool) {
        self.ways().retain(|node, _| keep(node));
    }

    /// The connections of the channel's own that messages take now.
    pub(super) fn own_links(&self) -> Vec<Arc<Link>> {
        let Some(own) = self.own() else { return Vec::new() };
        let ways = self.ways();
        let taken = |node: &Atom| matches!(ways.get(node), Some((_, Way::Own { .. })));
        own.links().into_iter().filter(|link| taken(&link.peer().name)).collect()
    }

    /// The identity that the next message for a node comes from, if that is not this node.
    fn own_way(&self, node: &Atom) -> Option<Arc<Own>> {
        if !self.keeping.load(Ordering::Acquire) {
            return None;
        }
        let taken = self.ways().get(node).is_some_and(|(_, way)| matches!(way, Way::Own { .. }));
        self.own().filter(|_| taken)
    }

    /// Waits until another message for a node can be sent.
    async fn writable(&self, node: &Atom, bytes: usize) {
        let own = self.own_way(node);
        let (sender, link) = match &own {
            Some(own) => (&own.sender, own.link(node)),
            None => (&self.sender, self.node.inner().net_kernel.link(node)),
        };
        if let Some(link) = link {
            link.writable_for(sender.proc.lane(), bytes).await;
        }
    }

    /// Takes the shared connections again, for all nodes.
    pub(super) async fn leave_own(&self) {
        let _turn = self.turn.lock().await;
        let all = async {
            for worker in self.pubsub.remote_workers() {
                self.change_way(&worker).await;
            }
        };
        // Who does not answer by then has lost its order, or its connection.
        let _ = tokio::time::timeout(own::SETTLE, all).await;
    }

    /// Changes the connection that messages for a node take, where another one is wanted and there. What went over the one before
    /// has arrived then.
    async fn change_way(&self, worker: &Pid) {
        let node = &worker.node;
        let known = self.ways().get(node).filter(|(creation, _)| *creation == worker.creation).copied();
        let shared = Way::Shared { until: Mono::ZERO };
        let (now, way) = (self.clock.now(), known.map_or(shared, |(_, way)| way));
        let wanted = match self.config().connection {
            Connection::Shared => false,
            Connection::Own => self.lock().serves(worker),
            Connection::OwnToAll => true,
        };
        let own = self.own();
        let link = own.as_ref().and_then(|own| own.link(node));
        let next = match (way, own.filter(|_| link.is_some())) {
            (Way::Shared { until }, Some(_)) if wanted && until <= now => {
                // Noted before: whoever sends may not want to wait as long.
                let later = Way::Shared { until: now + TRY_AGAIN };
                self.ways().insert(node.clone(), (worker.creation, later));
                match own::settled(&self.sender, worker).await {
                    Ok(()) => Way::Own { lost_at: None },
                    Err(error) => {
                        debug!(channel = self.channel.name(), %error, "a node does not say what has arrived");
                        later
                    }
                }
            }
            (Way::Own { .. }, Some(own)) if !wanted => match own::settled(&own.sender, worker).await {
                Ok(()) => shared,
                Err(_) => Way::Own { lost_at: Some(now) },
            },
            (Way::Own { .. }, Some(_)) => Way::Own { lost_at: None },
            (Way::Own { lost_at: None }, None) => Way::Own { lost_at: Some(now) },
            (Way::Own { lost_at: Some(at) }, None) if now.saturating_since(at) >= FALL_BACK => shared,
            (other, _) => other,
        };
        let mut ways = self.ways();
        if next == shared {
            ways.remove(node);
        } else {
            ways.insert(node.clone(), (worker.creation, next));
        }
    }

    pub(super) fn metrics(&self) -> Metrics {
        let exchange = self.lock();
        let statistics = exchange.statistics();
        Metrics {
            errors: self.meter.read().errors + statistics.ignored,
            resent: statistics.resent,
            duplicates: statistics.duplicates,
            relayed: statistics.relayed,
            lost: statistics.lost,
            queued: exchange.waiting(),
            ..self.meter.read()
        }
    }

    pub(super) fn nodes(&self) -> (Vec<Atom>, Vec<Atom>) {
        let exchange = self.lock();
        let ours = exchange.peers().map(|pid| pid.node.clone()).collect();
        let plain = self.pubsub.remote_workers().filter(|worker| !exchange.serves(worker));
        (ours, plain.map(|worker| worker.node).collect::<BTreeSet<_>>().into_iter().collect())
    }

    pub(super) async fn broadcast(
        &self,
        message: RawTerm,
        compress: bool,
        timeout: Duration,
    ) -> Result<Receipt> {
        let sent = self.send_to(To::All, message, compress, timeout).await?;
        Ok(sent.unwrap_or_default())
    }

    /// To one node; `None` if it takes no part.
    pub(super) async fn send(
        &self,
        node: &Atom,
        message: RawTerm,
        compress: bool,
        timeout: Duration,
    ) -> Result<Option<Receipt>> {
        if node == self.node.name() {
            self.count_sent(&message);
            self.pubsub.local_broadcast_raw(self.channel.topic(), &message);
            return Ok(Some(Receipt::default()));
        }
        self.send_to(To::Node(node), message, compress, timeout).await
    }

    /// To one process, as it is.
    pub(super) async fn send_bare(&self, pid: &Pid, message: RawTerm, timeout: Duration) -> Result<()> {
        let size = message.as_bytes().len();
        let sending = async {
            let _turn = self.turn.lock().await;
            self.sender.send_raw(pid, message).await
        };
        let sent = tokio::time::timeout(timeout, sending).await.unwrap_or(Err(Error::Timeout));
        self.count(size, sent.is_ok());
        sent
    }

    async fn send_to(
        &self,
        to: To<'_>,
        message: RawTerm,
        compress: bool,
        timeout: Duration,
    ) -> Result<Option<Receipt>> {
        let deadline = tokio::time::Instant::now() + timeout;
        let size = message.as_bytes().len();
        let committed = tokio::time::timeout_at(deadline, self.commit(&to, &message, compress)).await;
        let committed = committed.unwrap_or(Err(Error::Timeout));
        self.count(size, matches!(committed, Ok(Some(_))));
        let Some(committed) = committed? else { return Ok(None) };
        let Some((ticket, receipt)) = committed.ticket else { return Ok(Some(Receipt::default())) };
        match tokio::time::timeout_at(deadline, receipt).await {
            Ok(Ok(receipt)) => Ok(Some(receipt)),
            // What was not acknowledged in time is kept as the configuration says; here nobody waits any longer.
            Ok(Err(_)) | Err(_) => {
                self.receipts().remove(&ticket);
                let mut exchange = self.lock();
                let receipt = exchange.receipt(ticket).unwrap_or_default();
                exchange.handle(self.clock.now(), Event::Forget(ticket));
                Ok(Some(receipt))
            }
        }
    }

    /// Waits for room, then sends to all at once; `None` if there is nobody.
    async fn commit(&self, to: &To<'_>, message: &RawTerm, compress: bool) -> Result<Option<Committed>> {
        let _turn = self.turn.lock().await;
        self.wait_for_room().await;
        let bytes = message.as_bytes().len();
        let workers: Vec<Pid> = match to {
            To::All => self.pubsub.remote_workers().collect(),
            To::Node(node) => self.pubsub.remote_workers().filter(|worker| worker.node == **node).collect(),
        };
        for worker in &workers {
            if self.keeping.load(Ordering::Acquire) {
                self.change_way(worker).await;
            }
            self.writable(&worker.node, bytes).await;
        }
        let mut exchange = self.lock();
        let plain: Vec<Pid> = workers.into_iter().filter(|worker| !exchange.serves(worker)).collect();
        if let To::Node(node) = to
            && plain.is_empty()
            && exchange.peer(node).is_none()
        {
            return Ok(None);
        }
        if !plain.is_empty() {
            let forward = self.pubsub.forward(self.channel.topic(), message)?;
            for worker in plain {
                // A node that goes away now has its worker removed next. Where the connection of the channel's own is lost, the
                // shared one could be faster than what is still on its way.
                let own = self.own_way(&worker.node);
                let sender = own.as_ref().map_or(&self.sender, |own| &own.sender);
                if let Err(error) = sender.send_now(Dest::from(worker), forward.clone()) {
                    self.meter.error();
                    debug!(channel = self.channel.name(), %error, "a message did not reach a node");
                }
            }
        }
        let ticket = (exchange.config().reliability == Reliability::Guaranteed).then(|| {
            let (told, receipt) = oneshot::channel();
            let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
            self.receipts().insert(ticket, told);
            (ticket, receipt)
        });
        let (message, wall) = (message.clone(), wall());
        let number = ticket.as_ref().map(|(ticket, _)| *ticket);
        let event = match to {
            To::All => Event::Broadcast { message: message.clone(), compress, wall, ticket: number },
            To::Node(node) => Event::Send {
                node: Atom::clone(node),
                message: message.clone(),
                compress,
                wall,
                ticket: number,
            },
        };
        self.handle(&mut exchange, event);
        if matches!(to, To::All) {
            self.pubsub.local_broadcast_raw(self.channel.topic(), &message);
        }
        Ok(Some(Committed { ticket }))
    }

    pub(super) fn leave(&self) {
        self.handle(&mut self.lock(), Event::Leave);
    }

    async fn wait_for_room(&self) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if !self.lock().is_full(self.clock.now()) {
                return;
            }
            // The outcome does not matter: it looks again either way.
            let _ = tokio::time::timeout(LOOK_AGAIN, room).await;
        }
    }

    fn count_sent(&self, message: &RawTerm) {
        self.count(message.as_bytes().len(), true);
    }

    fn count(&self, size: usize, sent: bool) {
        if sent {
            self.meter.sent(size);
            publish(&self.events, || super::Event::Sent { channel: self.channel, size });
        } else {
            self.meter.error();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Exchange> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn receipts(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Receipt>>> {
        self.receipts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channel process.
    async fn run(self: Arc<Self>, mut process: Process, mut changes: Monitor) {
        let group = self.channel.group();
        if self.pubsub.groups().join(&group, process.pid()).await.is_err() {
            return;
        }
        self.look(self.pubsub.groups());
        let clock = self.clock;
        loop {
            let timeout = self.lock().poll_timeout();
            tokio::select! {
                message = process.recv() => match message {
                    Ok(Message::Term(message)) => {
                        let event = Event::Message { message, wall: wall() };
                        self.handle(&mut self.lock(), event);
                    }
                    Ok(_) => {}
                    Err(_) => return,
                },
                change = changes.next() => match change {
                    Ok(change) if change.group == group => {
                        let mut exchange = self.lock();
                        for pid in change.left {
                            self.handle(&mut exchange, Event::PeerDown(pid));
                        }
                        for pid in change.joined {
                            self.handle(&mut exchange, Event::PeerUp(pid));
                        }
                        if let Some(own) = self.own() {
                            own.wake.notify_one();
                        }
                    }
                    Ok(_) => {}
                    Err(Error::Full) => self.look(self.pubsub.groups()),
                    Err(_) => return,
                },
                () = clock.sleep_until(timeout.unwrap_or(Mono(i64::MAX))), if timeout.is_some() => {
                    let mut exchange = self.lock();
                    exchange.handle_timeout(clock.now());
                    self.carry_out(&mut exchange);
                }
                () = self.wake.notified() => {}
            }
        }
    }

    /// Compares the members of the group with the peers.
    fn look(&self, groups: &Groups) {
        let members = groups.members(&self.channel.group());
        let mut exchange = self.lock();
        let known: Vec<Pid> = exchange.peers().cloned().collect();
        for pid in known.iter().filter(|pid| !members.contains(pid)) {
            self.handle(&mut exchange, Event::PeerDown(pid.clone()));
        }
        for pid in members.into_iter().filter(|pid| !known.contains(pid)) {
            self.handle(&mut exchange, Event::PeerUp(pid));
        }
    }

    fn handle(&self, exchange: &mut Exchange, event: Event) {
        let before = exchange.poll_timeout();
        exchange.handle(self.clock.now(), event);
        self.carry_out(exchange);
        let after = exchange.poll_timeout();
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            self.wake.notify_one();
        }
    }

    fn carry_out(&self, exchange: &mut Exchange) {
        while let Some(action) = exchange.poll_action() {
            match action {
                Action::Send { to, message } => {
                    // A lost connection says so through the group. Numbers keep the order, so the shared one serves as well.
                    let own = self.own_way(&to.node).filter(|own| own.link(&to.node).is_some());
                    let sender = own.as_ref().map_or(&self.sender, |own| &own.sender);
                    if let Err(error) = sender.send_now(Dest::from(to), message) {
                        debug!(channel = self.channel.name(), %error, "not sent");
                    }
                }
                Action::Relay { to, message } => {
                    // Who promised it sends it again.
                    if let Err(error) = self.sender.try_send_raw(to, message) {
                        debug!(channel = self.channel.name(), %error, "not passed on");
                    }
                }
                Action::Deliver { from, message, latency } => {
                    let size = message.as_bytes().len();
                    let latency = latency.map(|(latency, error)| (micros(latency), micros(error)));
                    self.meter.received(size, latency);
                    self.pubsub.local_broadcast_raw(self.channel.topic(), &message);
                    let channel = self.channel;
                    publish(&self.events, || super::Event::Received {
                        channel,
                        size,
                        from: Some(from),
                        latency,
                    });
                }
                Action::Settled { ticket, receipt } => {
                    if let Some(told) = self.receipts().remove(&ticket) {
                        // Whoever asked may have gone.
                        let _ = told.send(receipt);
                    }
                }
                Action::Lost { node, messages, outgoing } => {
                    debug!(
                        channel = self.channel.name(),
                        node = node.as_str(),
                        messages,
                        outgoing,
                        "given up"
                    );
                    let channel = self.channel;
                    publish(&self.events, || super::Event::Lost { channel, node, messages, outgoing });
                }
                other => debug!(?other, "an action that this host does not know"),
            }
        }
        self.room.notify_waiters();
    }
}

struct Committed {
    ticket: Option<(u64, oneshot::Receiver<Receipt>)>,
}

/// The lane of a channel's priority.
fn lane(priority: Priority) -> LaneClass {
    match priority {
        Priority::High => LaneClass::Control,
        Priority::Normal => LaneClass::Normal,
        Priority::Low => LaneClass::Bulk,
    }
}

fn wall() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn micros(count: i64) -> Duration {
    Duration::from_micros(u64::try_from(count).unwrap_or_default())
}
