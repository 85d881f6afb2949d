//! A replicated map, shared with `DeltaCrdt` processes on BEAM nodes: the host of [`foundation_cluster::registry::CausalCrdt`].
//!
//! On a BEAM, `DeltaCrdt.start_link(DeltaCrdt.AWLWWMap, name: MyMap)` starts such a map; each side names the other as its
//! neighbour. A write here reaches the neighbours at once; a write on a BEAM arrives at its `sync_interval`.
//!
//! ```no_run
//! # async fn example(node: foundation_node::Node) -> foundation_node::Result<()> {
//! use foundation_proto::etf::Term;
//! let map = node.delta_crdt("MyMap")?;
//! map.set_neighbours([("MyMap", "app@host")]).await?;
//! map.put(Term::from("key"), Term::from(1)).await?;
//! assert_eq!(map.get(&Term::from("key")), Some(Term::from(1)));
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use foundation_cluster::registry::causal_crdt::{Action, Config, Event, MonitorId, Stats};
use foundation_cluster::registry::{Address, CausalCrdt, Change, Entry};
use foundation_cluster::{Key, Machine};
use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, RawTerm, Term};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracing::{debug, warn};

use super::changes::Changes;
use super::monitors::Monitors;
use crate::error::{Error, Result};
use crate::event;
use crate::net::{Clock, Link};
use crate::net_kernel::NodeType;
use crate::node::Node;
use crate::process::{Dest, Message, Process};

/// Writes that wait for the map before their callers do.
const COMMANDS: usize = 1024;
/// Keys that are looked at before a write may come between.
const AT_ONCE: usize = 1000;

/// A replicated map of this node, member among the maps of its neighbours; cheap to clone.
///
/// Writes are seen here once they return, and elsewhere soon after. Of concurrent writes of one key the one with the latest
/// timestamp wins; timestamps are the time since the node started, as `DeltaCrdt` compares the uptimes of BEAM nodes.
#[derive(Clone, Debug)]
pub struct DeltaCrdt {
    pid: Pid,
    crdt: Arc<RwLock<CausalCrdt>>,
    commands: mpsc::Sender<Command>,
    changes: broadcast::Sender<Change>,
    notices: broadcast::Sender<Notice>,
    /// Raised after everything that may have changed what is known of the neighbours.
    progress: watch::Receiver<u64>,
}

/// What whoever keeps something in a map has to know of its neighbours.
#[derive(Clone, Debug)]
pub(super) enum Notice {
    /// A neighbour that had these keys, written here, has them no more.
    Missing(Vec<Key>),
    /// The map holds what others wrote, and none of them is in reach but maps of this kind.
    Alone,
}

/// Changes of the values of a map, from the moment of [`DeltaCrdt::monitor`] on (`on_diffs` of `DeltaCrdt`).
pub type Monitor = Changes<Change>;

#[derive(Debug)]
struct Command {
    events: Vec<Event>,
    done: oneshot::Sender<()>,
}

impl DeltaCrdt {
    /// Starts the map's process under its name.
    pub(super) fn start(node: &Node, name: &Atom) -> Result<Self> {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let changes = Changes::channel();
        let notices = Changes::channel();
        let (raise, progress) = watch::channel(0);
        let process = node.process()?;
        process.register(name.clone())?;
        let crdt = CausalCrdt::new(process.pid().clone(), Config::new(replica()));
        let crdt = Arc::new(RwLock::new(crdt));
        let map = Self {
            pid: process.pid().clone(),
            crdt: Arc::clone(&crdt),
            commands,
            changes: changes.clone(),
            notices: notices.clone(),
            progress,
        };
        let host = Host {
            node: node.clone(),
            name: name.clone(),
            process,
            clock: Clock::start(),
            crdt,
            changes,
            notices,
            progress: raise,
            links: BTreeMap::new(),
            monitors: Monitors::default(),
            nodes: BTreeMap::new(),
        };
        node.inner().runtime.spawn(host.run(inbox));
        Ok(map)
    }

    /// The map's process.
    pub fn pid(&self) -> &Pid {
        &self.pid
    }

    pub(super) fn is_running(&self) -> bool {
        !self.commands.is_closed()
    }

    /// With whom this map exchanges its writes: name and node of each (`DeltaCrdt.set_neighbours/2`). Data flows both ways only
    /// if they name this map in turn.
    ///
    /// # Errors
    /// [`Error::NoProc`] if the map has ended with its node, or a name is too long.
    pub async fn set_neighbours(&self, neighbours: impl IntoIterator<Item = (&str, &str)>) -> Result<()> {
        let address = |(name, node): (&str, &str)| -> Result<Address> {
            let name = super::elixir_name(name)?;
            let node = crate::node::atom(node)?;
            Ok(Address::Name { name, node })
        };
        self.set_addresses(neighbours.into_iter().map(address).collect::<Result<Vec<_>>>()?).await
    }

    pub(super) async fn set_addresses(&self, neighbours: Vec<Address>) -> Result<()> {
        self.command(vec![Event::SetNeighbours(neighbours)]).await
    }

    /// Gives a key a value. When this returns, readers here see it and the neighbours in reach have been told.
    ///
    /// # Errors
    /// [`Error::SystemLimit`] if the key is new and the map is full; [`Error::NoProc`] if the map has ended with its node.
    pub async fn put(&self, key: Term, value: Term) -> Result<()> {
        self.merge([(key, value)]).await
    }

    /// Gives several keys a value, one after the other.
    ///
    /// # Errors
    /// As [`DeltaCrdt::put`].
    pub async fn merge(&self, pairs: impl IntoIterator<Item = (Term, Term)>) -> Result<()> {
        let put = |(key, value)| Event::Put { key: Key(key), value };
        let events: Vec<Event> = pairs.into_iter().map(put).collect();
        let refused = |event: &Event| matches!(event, Event::Put { key, .. } if self.has_no_room_for(key));
        if events.iter().any(refused) {
            return Err(Error::SystemLimit);
        }
        self.command(events).await
    }

    /// Whether a key is not there and cannot be, because the map is full.
    pub(super) fn has_no_room_for(&self, key: &Key) -> bool {
        let crdt = self.read();
        crdt.is_full() && crdt.map().elements(key).is_empty()
    }

    /// Removes keys; writes elsewhere that have not arrived here survive it.
    ///
    /// # Errors
    /// [`Error::NoProc`] if the map has ended with its node.
    pub async fn drop_keys(&self, keys: impl IntoIterator<Item = Term>) -> Result<()> {
        self.command(keys.into_iter().map(|key| Event::Remove(Key(key))).collect()).await
    }

    /// Removes a key.
    ///
    /// # Errors
    /// As [`DeltaCrdt::drop_keys`].
    pub async fn delete(&self, key: Term) -> Result<()> {
        self.drop_keys([key]).await
    }

    /// Removes a key if this is its value.
    pub(super) async fn delete_value(&self, key: Key, value: Term) -> Result<()> {
        self.command(vec![Event::RemoveValue { key, value }]).await
    }

    /// What is said of neighbours from now on.
    pub(super) fn notices(&self) -> Changes<Notice> {
        Changes::of(&self.notices)
    }

    /// Forgets everything, as if the map had just been started.
    pub(super) async fn forget(&self) -> Result<()> {
        self.command(vec![Event::Forget { replica: replica() }]).await
    }

    /// Looks at each key and value, without a copy of the whole.
    pub(super) fn filter_map<T>(&self, look: impl FnMut((&Key, &Term)) -> Option<T>) -> Vec<T> {
        self.read().map().iter().filter_map(look).collect()
    }

    async fn command(&self, events: Vec<Event>) -> Result<()> {
        let (done, wait) = oneshot::channel();
        self.commands.send(Command { events, done }).await.map_err(|_| Error::NoProc)?;
        wait.await.map_err(|_| Error::NoProc)
    }

    /// The value of a key.
    pub fn get(&self, key: &Term) -> Option<Term> {
        // A key is compared as a whole term, so looking for it needs one of its own.
        let key = Key(key.clone());
        self.read().map().get(&key).cloned()
    }

    /// Keys and values, in Erlang's order of keys.
    pub fn to_vec(&self) -> Vec<(Term, Term)> {
        self.read().map().iter().map(|(key, value)| (key.0.clone(), value.clone())).collect()
    }

    /// Some of what comes after a key, or from the beginning. Nothing is copied, and writes do not wait long.
    pub(super) fn some_after(&self, key: Option<&Key>) -> Vec<Arc<Entry>> {
        self.read().map().entries_after(key).take(AT_ONCE).cloned().collect()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.read().map().len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The neighbours, and whether what is written now is pushed to them. A neighbour that does not name this map as its own is
    /// never pushed to, and learns of writes by comparison.
    pub fn neighbours(&self) -> Vec<(Address, bool)> {
        self.read().neighbours().map(|(address, pushed)| (address.clone(), pushed)).collect()
    }

    /// Waits until all neighbours in reach are known to hold what this map holds.
    ///
    /// # Errors
    /// [`Error::NoProc`] if the map has ended with its node.
    pub async fn settled(&self) -> Result<()> {
        let mut progress = self.progress.clone();
        loop {
            progress.borrow_and_update();
            if self.read().is_settled() {
                return Ok(());
            }
            progress.changed().await.map_err(|_| Error::NoProc)?;
        }
    }

    /// What changes from now on.
    pub fn monitor(&self) -> Monitor {
        Changes::of(&self.changes)
    }

    /// What was counted since the start.
    pub fn stats(&self) -> Stats {
        self.read().stats()
    }

    fn read(&self) -> RwLockReadGuard<'_, CausalCrdt> {
        self.crdt.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number for an incarnation, from the range that DeltaCrdt draws from.
fn replica() -> i64 {
    // Without a random source the node would not have started.
    1 + i64::from(crate::random::bits32().unwrap_or_default()) % 1_000_000_000
}

struct Host {
    node: Node,
    name: Atom,
    process: Process,
    clock: Clock,
    crdt: Arc<RwLock<CausalCrdt>>,
    changes: broadcast::Sender<Change>,
    notices: broadcast::Sender<Notice>,
    progress: watch::Sender<u64>,
    /// The connection over which a node's members are monitored; what is meant for it must not go over a later one.
    links: BTreeMap<Atom, Arc<Link>>,
    monitors: Monitors<MonitorId>,
    /// The node of what a monitor watches.
    nodes: BTreeMap<MonitorId, Atom>,
}

impl Host {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut events = self.node.events();
        loop {
            let timeout = self.crdt.read().unwrap_or_else(PoisonError::into_inner).poll_timeout();
            let clock = self.clock;
            tokio::select! {
                message = self.process.recv() => match message {
                    Ok(message) => self.message(message).await,
                    Err(_) => return,
                },
                event = events.next() => match event {
                    Some(event::Event::NodeUp { node, .. }) => self.handle(Event::NodeUp(node)).await,
                    Some(event::Event::NodeDown { .. }) => {}
                    Some(event::Event::Missed(_)) => {
                        for node in self.node.inner().net_kernel.nodes(NodeType::Connected) {
                            self.handle(Event::NodeUp(node)).await;
                        }
                    }
                    None => return,
                },
                Some(command) = commands.recv() => {
                    for event in command.events {
                        self.handle(event).await;
                    }
                    // Whoever asked may have gone.
                    let _ = command.done.send(());
                },
                () = clock.sleep_until(timeout.unwrap_or(Mono(i64::MAX))), if timeout.is_some() => {
                    self.with(|crdt, now| crdt.handle_timeout(now));
                    self.carry_out().await;
                },
            }
            self.progress.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    async fn message(&mut self, message: Message) {
        let event = match message {
            Message::Term(raw) => Event::Message(raw),
            Message::Down(down) => {
                let Some(monitor) = self.monitors.fired(&down.reference) else { return };
                self.forget(monitor);
                Event::Down(monitor)
            }
            Message::Exit(_) => return,
        };
        self.handle(event).await;
    }

    /// Without a monitor on a node, any connection to it will do.
    fn forget(&mut self, monitor: MonitorId) {
        let Some(node) = self.nodes.remove(&monitor) else { return };
        if !self.nodes.values().any(|other| *other == node) {
            self.links.remove(&node);
        }
    }

    async fn handle(&mut self, event: Event) {
        self.with(|crdt, now| crdt.handle(now, event));
        self.carry_out().await;
    }

    fn with<R>(&self, act: impl FnOnce(&mut CausalCrdt, Mono) -> R) -> R {
        act(&mut self.crdt.write().unwrap_or_else(PoisonError::into_inner), self.clock.now())
    }

    async fn carry_out(&mut self) {
        while let Some(action) = self.with(|crdt, _| crdt.poll_action()) {
            match action {
                Action::Send { to, message } => self.send(&to, &message),
                Action::Reply { from, reply } => super::reply(&self.process, &from, &reply),
                Action::Monitor { monitor, target } => self.monitor(monitor, &target).await,
                Action::Demonitor(monitor) => {
                    self.monitors.demonitor(&monitor, &mut self.process);
                    self.forget(monitor);
                }
                Action::Changed(changes) => {
                    for change in changes {
                        // Nobody has to listen.
                        let _ = self.changes.send(change);
                    }
                }
                // Nobody has to listen.
                Action::Missing(keys) => drop(self.notices.send(Notice::Missing(keys))),
                Action::Alone => drop(self.notices.send(Notice::Alone)),
                other => debug!(?other, "an action that this host does not know"),
            }
        }
    }

    fn send(&self, to: &[Address], message: &Term) {
        let raw = match RawTerm::from_term(message) {
            Ok(raw) => raw,
            Err(error) => return warn!(map = self.name.as_str(), %error, "a write cannot be sent"),
        };
        for to in to {
            if let Some(monitored) = self.links.get(to.node())
                && !self
                    .node
                    .inner()
                    .net_kernel
                    .link(to.node())
                    .is_some_and(|link| Arc::ptr_eq(&link, monitored))
            {
                continue;
            }
            // A lost connection says so through the monitors.
            if let Err(error) = self.process.send_now(dest(to), raw.clone()) {
                debug!(map = self.name.as_str(), %error, "not sent");
            }
        }
    }

    async fn monitor(&mut self, monitor: MonitorId, target: &Address) {
        let node = target.node();
        let link = self.node.inner().net_kernel.link(node);
        if link.is_none() {
            // As monitoring does on a BEAM; the event of the connection brings the machine back here.
            let (kernel, wanted) = (self.node.clone(), node.clone());
            self.node.inner().runtime.spawn(async move {
                if let Err(error) = kernel.inner().net_kernel.connect(&wanted).await {
                    debug!(node = wanted.as_str(), %error, "a neighbour's node is out of reach");
                }
            });
        }
        let reference = match &link {
            Some(_) => self.process.monitor(dest(target)).await.ok(),
            None => None,
        };
        match (reference, link) {
            (Some(reference), Some(link)) => {
                self.links.insert(node.clone(), link);
                self.nodes.insert(monitor, node.clone());
                self.monitors.insert(monitor, reference);
            }
            _ => self.with(|crdt, now| crdt.handle(now, Event::Down(monitor))),
        }
    }
}

fn dest(to: &Address) -> Dest {
    match to {
        Address::Pid(pid) => Dest::from(pid),
        Address::Name { name, node } => Dest::from((name.clone(), node.clone())),
    }
}
