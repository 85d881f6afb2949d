//! Names of processes, found on all connected nodes that have a registry of this name: the host of
//! [`foundation_cluster::names`].
//!
//! It works between our own nodes; programs on a BEAM call it as a `GenServer`. A name is found where it was registered when
//! [`Registry::register`] returns, and on the other nodes as soon as one message has reached them.
//!
//! ```no_run
//! # async fn example(node: foundation_node::Node) -> foundation_node::Result<()> {
//! use std::time::Duration;
//! use foundation_node::service::registry::{Registered, Waited};
//! use foundation_proto::etf::Term;
//!
//! let registry = node.registry("workers")?;
//! let worker = node.process()?;
//! let key = Term::from("worker 1");
//! if registry.register(key.clone(), Term::atom("idle"), worker.pid()).await? == Registered::Yes {
//!     assert_eq!(registry.whereis_name(&key).as_ref(), Some(worker.pid()));
//!     // Until all members that are connected have it.
//!     assert_eq!(registry.wait_until_all(&key, Duration::from_secs(5)).await?, Waited::Everywhere);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Several processes share a key in a registry of [`Keys::Duplicate`]: [`Node::registry_with`].

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use foundation_cluster::names::{Action, Command, Event, MonitorId, Names, Outcome};
use foundation_cluster::{Key, Machine};
use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, Term};
use tokio::sync::{broadcast, mpsc, oneshot};
use tracing::{debug, info, warn};

pub use foundation_cluster::names::{Change, Config, Entry, Keys, OnConflict, Stats};

use super::changes::Changes;
use super::monitors::Monitors;
use super::table::{Item, Table, Write};
use crate::error::{Error, Result};
use crate::event;
use crate::net::Clock;
use crate::net_kernel::NodeType;
use crate::node::Node;
use crate::process::{Message, Process};

/// Commands that wait for the registry before their callers do.
const COMMANDS: usize = 1024;
/// Commands that are carried out together, so that the other nodes are told of them in one message.
const BATCH: usize = 256;

/// A registry of this node; cheap to clone. Reading takes no lock and waits for nobody.
#[derive(Clone, Debug)]
pub struct Registry {
    pid: Pid,
    keys: Keys,
    machine: Arc<RwLock<Names>>,
    table: Arc<Table<Entry>>,
    clock: Clock,
    commands: mpsc::Sender<Request>,
    changes: broadcast::Sender<Change>,
}

/// What changes in a registry, from the moment of [`Registry::monitor`] on.
pub type Monitor = Changes<Change>;

/// Whether a process got a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Registered {
    /// It has it now.
    Yes,
    /// This process has it: another one, or the same already.
    Already(Pid),
}

/// How a wait for all members ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Waited {
    /// All that are connected have acknowledged it.
    Everywhere,
    /// The time is over, and these nodes have not.
    Lacking(Vec<Atom>),
}

#[derive(Debug)]
struct Request {
    what: Command,
    done: oneshot::Sender<Outcome>,
}

impl Registry {
    /// Starts the registry's process under its name.
    pub(super) fn start(node: &Node, name: &Atom, config: Config) -> Result<Self> {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let process = node.process()?;
        process.register(name.clone())?;
        let pid = process.pid().clone();
        let registry = Self {
            keys: config.keys,
            machine: Arc::new(RwLock::new(Names::new(name.clone(), pid.clone(), config))),
            pid,
            table: Arc::default(),
            clock: Clock::start(),
            commands,
            changes: Changes::channel(),
        };
        let host = Host {
            node: node.clone(),
            process,
            name: name.clone(),
            registry: registry.clone_for_host(),
            monitors: Monitors::default(),
            waiting: HashMap::new(),
            count: 0,
        };
        node.inner().runtime.spawn(host.run(inbox));
        Ok(registry)
    }

    /// What the host needs: it must not keep its own inbox open.
    fn clone_for_host(&self) -> Shared {
        Shared {
            machine: Arc::clone(&self.machine),
            table: Arc::clone(&self.table),
            clock: self.clock,
            changes: self.changes.clone(),
        }
    }

    /// The registry's process.
    pub fn pid(&self) -> &Pid {
        &self.pid
    }

    /// How many processes may have one key.
    pub fn keys(&self) -> Keys {
        self.keys
    }

    pub(super) fn is_running(&self) -> bool {
        !self.commands.is_closed()
    }

    /// Gives a process a key, unless another has it as far as it is known here (of duplicate keys: unless it has it itself). When
    /// this returns, it is found here, and the other members are being told. The name ends with the process.
    ///
    /// If another node gave a unique key away before it knew of this, the process with the earlier claim keeps it. The other
    /// gets the exit signal `{name_conflict, {Key, Value}, Registry, Winner}`.
    ///
    /// # Errors
    /// [`Error::SystemLimit`] if the registry is full, or key and value take more than 64 KiB; [`Error::NoProc`] if it has
    /// ended with its node.
    pub async fn register(&self, key: Term, value: Term, pid: &Pid) -> Result<Registered> {
        self.register_with(key, value, pid, OnConflict::Exit).await
    }

    /// The same, saying what becomes of the process if it loses its key.
    ///
    /// # Errors
    /// As [`Registry::register`].
    pub async fn register_with(
        &self,
        key: Term,
        value: Term,
        pid: &Pid,
        on_conflict: OnConflict,
    ) -> Result<Registered> {
        match self.command(Command::Register { key, pid: pid.clone(), value, on_conflict }).await? {
            Outcome::Done => Ok(Registered::Yes),
            Outcome::AlreadyRegistered(pid) => Ok(Registered::Already(pid)),
            _ => Err(Error::SystemLimit),
        }
    }

    /// Gives up the key of a process that was registered on this node; `false` if it was not.
    ///
    /// # Errors
    /// [`Error::NoProc`] if the registry has ended with its node.
    pub async fn unregister(&self, key: Term, pid: &Pid) -> Result<bool> {
        Ok(self.command(Command::Unregister { key, pid: pid.clone() }).await? == Outcome::Done)
    }

    /// Changes what is kept with the key of a process that was registered on this node; `false` if it was not.
    ///
    /// # Errors
    /// As [`Registry::register`].
    pub async fn update_value(&self, key: Term, value: Term, pid: &Pid) -> Result<bool> {
        match self.command(Command::UpdateValue { key, pid: pid.clone(), value }).await? {
            Outcome::Done => Ok(true),
            Outcome::NotRegistered => Ok(false),
            _ => Err(Error::SystemLimit),
        }
    }

    /// Waits until all members that are connected have what was registered under a key on this node. They acknowledge it; no
    /// time is taken for an answer. A member that is lost meanwhile is not waited for.
    ///
    /// # Errors
    /// [`Error::NoProc`] if nothing is registered under the key on this node, or the registry has ended with its node;
    /// [`Error::SystemLimit`] if 65,536 callers wait.
    pub async fn wait_until_all(&self, key: &Term, timeout: Duration) -> Result<Waited> {
        match self.command(Command::WaitUntilAll { key: key.clone(), timeout }).await? {
            Outcome::Done => Ok(Waited::Everywhere),
            Outcome::Timeout(nodes) => Ok(Waited::Lacking(nodes)),
            Outcome::SystemLimit => Err(Error::SystemLimit),
            _ => Err(Error::NoProc),
        }
    }

    async fn command(&self, what: Command) -> Result<Outcome> {
        let (done, wait) = oneshot::channel();
        self.commands.send(Request { what, done }).await.map_err(|_| Error::NoProc)?;
        wait.await.map_err(|_| Error::NoProc)
    }

    /// Who has a key: the first, if several have.
    pub fn lookup(&self, key: &Term) -> Option<Arc<Entry>> {
        self.table.first(key)
    }

    /// All who have a key.
    pub fn lookup_all(&self, key: &Term) -> Vec<Arc<Entry>> {
        self.table.all(key)
    }

    /// The process that has a key.
    pub fn whereis_name(&self, key: &Term) -> Option<Pid> {
        self.table.with_first(key, |entry| entry.pid.clone())
    }

    /// The keys of a process.
    pub fn keys_of(&self, pid: &Pid) -> Vec<Term> {
        self.read().keys_of(pid)
    }

    /// All that is found, in the order of keys.
    pub fn to_vec(&self) -> Vec<Arc<Entry>> {
        self.read().iter().cloned().collect()
    }

    /// How many keys are registered on the nodes in reach.
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// Whether nothing is registered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The other nodes that share this registry and are in reach.
    pub fn members(&self) -> Vec<Atom> {
        self.read().members().cloned().collect()
    }

    /// Those nodes, with the number of writes of this node that each is not known to have.
    pub fn behind(&self) -> Vec<(Atom, u64)> {
        self.read().behind().map(|(node, behind)| (node.clone(), behind)).collect()
    }

    /// What was counted since the start, and how far the other members are behind.
    pub fn stats(&self) -> Stats {
        self.read().stats(self.clock.now())
    }

    /// What is added, removed and in conflict from now on, here and elsewhere.
    pub fn monitor(&self) -> Monitor {
        Changes::of(&self.changes)
    }

    fn read(&self) -> RwLockReadGuard<'_, Names> {
        self.machine.read().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Shared {
    machine: Arc<RwLock<Names>>,
    table: Arc<Table<Entry>>,
    clock: Clock,
    changes: broadcast::Sender<Change>,
}

struct Host {
    node: Node,
    process: Process,
    name: Atom,
    registry: Shared,
    monitors: Monitors<MonitorId>,
    waiting: HashMap<u64, oneshot::Sender<Outcome>>,
    count: u64,
}

impl Host {
    async fn run(mut self, mut inbox: mpsc::Receiver<Request>) {
        // Listening before looking, so that no node is missed; one that is seen twice is greeted once more.
        let mut events = self.node.events();
        self.greet_all().await;
        let clock = self.registry.clock;
        loop {
            let timeout = self.registry.machine.read().unwrap_or_else(PoisonError::into_inner).poll_timeout();
            tokio::select! {
                message = self.process.recv() => match message {
                    Ok(message) => self.message(message),
                    Err(_) => return,
                },
                event = events.next() => match event {
                    Some(event::Event::NodeUp { node, .. }) => self.handle(Event::NodeUp(node)),
                    Some(event::Event::NodeDown { node, .. }) => self.handle(Event::NodeDown(node)),
                    Some(event::Event::Missed(_)) => self.greet_all().await,
                    None => return,
                },
                Some(request) = inbox.recv() => {
                    self.request(request);
                    for _ in 1..BATCH {
                        let Ok(request) = inbox.try_recv() else { break };
                        self.request(request);
                    }
                },
                () = clock.sleep_until(timeout.unwrap_or(Mono(i64::MAX))), if timeout.is_some() => {
                    self.with(|names, now| names.handle_timeout(now));
                },
            }
            self.carry_out().await;
        }
    }

    async fn greet_all(&mut self) {
        for node in self.node.inner().net_kernel.nodes(NodeType::Connected) {
            self.handle(Event::NodeUp(node));
        }
        self.carry_out().await;
    }

    fn request(&mut self, request: Request) {
        self.count += 1;
        self.waiting.insert(self.count, request.done);
        self.handle(Event::Command { command: self.count, what: request.what, wall: super::wall() });
    }

    fn message(&mut self, message: Message) {
        let event = match message {
            Message::Term(raw) => match raw.to_term(self.node.inner().limits()) {
                Ok(message) => Event::Message { message, wall: super::wall() },
                Err(error) => return warn!(%error, "a message to a registry was dropped"),
            },
            Message::Down(down) => {
                let Some(monitor) = self.monitors.fired(&down.reference) else { return };
                Event::Down(monitor)
            }
            Message::Exit(_) => return,
        };
        self.handle(event);
    }

    fn handle(&self, event: Event) {
        self.with(|names, now| names.handle(now, event));
    }

    fn with<R>(&self, act: impl FnOnce(&mut Names, Mono) -> R) -> R {
        let mut names = self.registry.machine.write().unwrap_or_else(PoisonError::into_inner);
        act(&mut names, self.registry.clock.now())
    }

    async fn carry_out(&mut self) {
        while let Some(action) = self.with(|names, _| names.poll_action()) {
            match action {
                Action::Send { to, message } => super::send(&self.process, &self.name, to, &message),
                Action::Reply { from, reply } => super::reply(&self.process, &from, &reply),
                Action::Monitor { monitor, pid } => self.monitor(monitor, &pid).await,
                Action::Demonitor(monitor) => self.monitors.demonitor(&monitor, &mut self.process),
                Action::Exit { to, reason } => {
                    info!(pid = ?to, ?reason, "a process has lost its name");
                    self.process.exit(&to, reason).await;
                }
                Action::Changed(changes) => {
                    self.registry.table.apply(changes.iter().filter_map(write).collect());
                    for change in changes {
                        // Nobody has to listen.
                        let _ = self.registry.changes.send(change);
                    }
                }
                Action::Done { command, outcome } => {
                    if let Some(done) = self.waiting.remove(&command) {
                        // Whoever asked may have gone.
                        let _ = done.send(outcome);
                    }
                }
                other => debug!(?other, "an action that this host does not know"),
            }
        }
    }

    async fn monitor(&mut self, monitor: MonitorId, pid: &Pid) {
        if !self.monitors.begin(monitor, &pid.node, pid, &self.node, &self.process).await {
            self.handle(Event::Down(monitor));
        }
    }
}

impl Item for Entry {
    type Id<'a> = (&'a Pid, &'a Atom, &'a Key);

    fn key(&self) -> &Term {
        &self.key.0
    }

    fn id(&self) -> Self::Id<'_> {
        (&self.pid, &self.node, &self.key)
    }
}

fn write(change: &Change) -> Option<Write<Entry>> {
    match change {
        Change::Added(entry) | Change::Updated(entry) => Some(Write::Put(Arc::clone(entry))),
        Change::Removed(entry) => Some(Write::Remove(Arc::clone(entry))),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
