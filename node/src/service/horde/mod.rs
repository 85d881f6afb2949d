//! Names of a `Horde.Registry`: the host of [`foundation_cluster::registry::horde`]. [`supervisor`] is the same for a
//! `Horde.DynamicSupervisor`; [`auto`] answers those that take a visible node for a member.
//!
//! A node of ours is a member of its own among the BEAM members; the one names the other, and the map tells the rest. What a
//! BEAM does with our names depends on whether this node is visible: Horde finds a process elsewhere only on the nodes of
//! `Node.list/0`. To a hidden node's names its `select`, `count` and `keys` apply, and whoever has the pid can send to it;
//! `lookup` and `:via` do not find them. [`client`] asks a BEAM node without being a member.
//!
//! ```no_run
//! # async fn example(node: foundation_node::Node) -> foundation_node::Result<()> {
//! use foundation_proto::etf::Term;
//! let registry = node.horde_registry("MyApp.Registry")?;
//! registry.set_members([("MyApp.Registry", "app@host")]).await?;
//! let worker = node.process()?;
//! registry.register(Term::from("worker"), Term::atom("nil"), worker.pid()).await?;
//! # Ok(())
//! # }
//! ```

pub(crate) mod auto;
pub mod client;
pub mod supervisor;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use foundation_cluster::Key;
use foundation_cluster::registry::horde::{Action, Event, Found, HordeRegistry as Machine, Member, map_name};
use foundation_cluster::registry::{Change, Entry};
use foundation_proto::etf::{Atom, Pid, Term};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

pub use foundation_cluster::registry::horde::Registration;

use super::changes::Changes;
use super::delta_crdt::{DeltaCrdt, Monitor, Notice};
use super::monitors::Monitors;
use super::table::{Item, Table, Write};
use crate::error::{Error, Result};
use crate::event;
use crate::net_kernel::NodeType;
use crate::node::Node;
use crate::process::{Message, Process};

/// Registrations that wait for the registry before their callers do.
const COMMANDS: usize = 1024;
/// How long the members in reach may take to hear that this one leaves: two seconds, six of Horde's beats.
const LEAVE: Duration = Duration::from_secs(2);

/// A member of a `Horde.Registry` on this node; cheap to clone.
#[derive(Clone, Debug)]
pub struct HordeRegistry {
    node: Node,
    pid: Pid,
    machine: Arc<RwLock<Machine>>,
    table: Arc<Table<Registration>>,
    map: DeltaCrdt,
    commands: mpsc::Sender<Command>,
}

/// Whether a process got a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Registered {
    /// It has it now.
    Yes,
    /// This process has it: another, or the one that asks (`{error, {already_registered, Pid}}`).
    Already(Pid),
}

#[derive(Debug)]
struct Command {
    what: What,
    done: oneshot::Sender<Result<Registered>>,
}

#[derive(Debug)]
enum What {
    Event(Event),
    /// A process changes the value of its name.
    Update {
        name: Term,
        value: Term,
        pid: Pid,
    },
}

impl HordeRegistry {
    /// Starts the registry's process under its name.
    pub(super) fn start(node: &Node, name: &Atom) -> Result<Self> {
        let map = map_name(name).ok_or_else(|| Error::NameTaken(name.clone()))?;
        let map = node.delta_crdt_of(map)?;
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let process = node.process()?;
        process.register(name.clone())?;
        let pid = process.pid().clone();
        let machine = Arc::new(RwLock::new(Machine::new(name.clone(), pid.clone())));
        let table = Arc::default();
        // Listening before the first look, so that no change is missed.
        let changes = map.monitor();
        let notices = map.notices();
        let host = Host {
            node: node.clone(),
            process,
            machine: Arc::clone(&machine),
            table: Arc::clone(&table),
            map: map.clone(),
            monitors: Monitors::default(),
            refused: false,
        };
        node.inner().runtime.spawn(host.run(inbox, changes, notices));
        Ok(Self { node: node.clone(), pid, machine, table, map, commands })
    }

    /// The registry's process.
    pub fn pid(&self) -> &Pid {
        &self.pid
    }

    /// The map in which the names stand.
    pub fn map(&self) -> &DeltaCrdt {
        &self.map
    }

    pub(super) fn is_running(&self) -> bool {
        !self.commands.is_closed()
    }

    /// The members besides this one: name and node of each registry (`Horde.Cluster.set_members/2`). Whoever was a member and is
    /// not named loses its names. If this member had left, it is in again.
    ///
    /// # Errors
    /// [`Error::NoProc`] if the registry has ended with its node, or a name is too long.
    pub async fn set_members(&self, members: impl IntoIterator<Item = (&str, &str)>) -> Result<()> {
        let member = |(name, node): (&str, &str)| -> Result<Member> {
            Ok(Member { name: super::elixir_name(name)?, node: crate::node::atom(node)? })
        };
        let members = members.into_iter().map(member).collect::<Result<Vec<_>>>()?;
        self.command(Event::SetMembers(members)).await.map(drop)
    }

    /// The members, this one among them: name and node of each.
    pub fn members(&self) -> Vec<(Atom, Atom)> {
        self.read().members().map(|member| (member.name.clone(), member.node.clone())).collect()
    }

    /// Gives a process of this node a name, unless a process has it as far as it is known here. When this returns, it is found
    /// here, and the members in reach have been told. If another member gave the name away at the same time, the process that
    /// loses it gets the exit signal `{name_conflict, {Name, Value}, Registry, Winner}`. A name ends with its process.
    ///
    /// A name that [`lookup`](HordeRegistry::lookup) does not find is free: also one of a process whose node is out of reach. If that
    /// lives and comes back, its process gets the exit signal.
    ///
    /// # Errors
    /// [`Error::NotMember`] if this member has left the registry; [`Error::SystemLimit`] if the map has no room for
    /// the name; [`Error::NoProc`] if the registry has ended with its node.
    pub async fn register(&self, name: Term, value: Term, pid: &Pid) -> Result<Registered> {
        self.command(Event::Register { name, value, pid: pid.clone() }).await
    }

    /// Gives the name of a process another value (`Horde.Registry.update_value/3`); `false` if the name is not its.
    ///
    /// # Errors
    /// As [`HordeRegistry::register`].
    pub async fn update_value(&self, name: Term, value: Term, pid: &Pid) -> Result<bool> {
        let done = self.send_command(What::Update { name, value, pid: pid.clone() }).await?;
        Ok(done == Registered::Yes)
    }

    /// Leaves the registry: the names that were registered here are gone, and this member with them. It waits until the members in reach
    /// have heard of it, two seconds at the most. Their names are found here as before; [`HordeRegistry::set_members`] makes this node a
    /// member again. [`Node::stop`] does this for all registries.
    ///
    /// # Errors
    /// [`Error::NoProc`] if the registry has ended with its node.
    pub async fn leave(&self) -> Result<()> {
        let left = async {
            self.command(Event::Leave).await?;
            self.map.settled().await
        };
        match tokio::time::timeout(LEAVE, left).await {
            Ok(left) => left,
            Err(_) => {
                warn!("not all members of a registry have heard in time that this node leaves it");
                Ok(())
            }
        }
    }

    /// Gives up the name of a process; nothing happens if the name is not its.
    ///
    /// # Errors
    /// As [`HordeRegistry::register`].
    pub async fn unregister(&self, name: Term, pid: &Pid) -> Result<()> {
        self.command(Event::Unregister { name, pid: pid.clone() }).await.map(drop)
    }

    /// Who has a name; `None` also if its node is not connected, or is no member any more. It takes no lock and waits for nobody.
    pub fn lookup(&self, name: &Term) -> Option<Arc<Registration>> {
        let found = self.table.first(name)?;
        reaches(&self.node, &found.pid.node, found.pid.creation).then_some(found)
    }

    /// The names of a process.
    pub fn keys(&self, pid: &Pid) -> Vec<Term> {
        self.read().keys(pid).cloned().collect()
    }

    /// All names that [`lookup`](HordeRegistry::lookup) finds, in Erlang's order.
    pub fn select(&self) -> Vec<Arc<Registration>> {
        self.read().names(|node, creation| reaches(&self.node, node, creation)).cloned().collect()
    }

    /// How many names [`lookup`](HordeRegistry::lookup) finds.
    pub fn count(&self) -> usize {
        self.read().count(|node, creation| reaches(&self.node, node, creation))
    }

    /// A value of the registry itself (`Horde.Registry.meta/2`).
    pub fn meta(&self, key: &Term) -> Option<Term> {
        self.read().meta(key).cloned()
    }

    /// Keeps a value for the registry itself (`Horde.Registry.put_meta/3`), or drops it.
    ///
    /// # Errors
    /// As [`HordeRegistry::register`].
    pub async fn put_meta(&self, key: Term, value: Option<Term>) -> Result<()> {
        self.command(Event::Meta { key, value }).await.map(drop)
    }

    /// Sends to whoever has a name.
    ///
    /// # Errors
    /// [`Error::NoProc`] if nobody has it; as [`Handle::send_raw`](crate::Handle::send_raw).
    pub async fn send(&self, name: &Term, message: &Term) -> Result<()> {
        let to = self.lookup(name).ok_or(Error::NoProc)?.pid.clone();
        let sender = self.node.process()?;
        sender.send_term(to, message).await
    }

    async fn command(&self, event: Event) -> Result<Registered> {
        self.send_command(What::Event(event)).await
    }

    async fn send_command(&self, what: What) -> Result<Registered> {
        let (done, wait) = oneshot::channel();
        self.commands.send(Command { what, done }).await.map_err(|_| Error::NoProc)?;
        wait.await.map_err(|_| Error::NoProc)?
    }

    fn read(&self) -> RwLockReadGuard<'_, Machine> {
        self.machine.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this node is connected to an incarnation of a node, or is it. Pids of old nodes do not say their incarnation.
fn reaches(node: &Node, other: &Atom, creation: u32) -> bool {
    let same = |peer: u32| peer == creation || peer == 0 || creation == 0;
    let link = || node.inner().net_kernel.link(other);
    other == node.name() || link().is_some_and(|link| same(link.peer().creation))
}

struct Host {
    node: Node,
    process: Process,
    machine: Arc<RwLock<Machine>>,
    table: Arc<Table<Registration>>,
    map: DeltaCrdt,
    monitors: Monitors<Pid>,
    /// Whether the map had no room for what was written last.
    refused: bool,
}

impl Host {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut changes: Monitor,
        mut notices: Changes<Notice>,
    ) {
        let mut events = self.node.events();
        // The map may be older than the registry.
        if self.carry_out().await.is_err() || self.look_again().await.is_err() {
            return;
        }
        loop {
            let done = tokio::select! {
                message = self.process.recv() => match message {
                    Ok(message) => self.message(message).await,
                    Err(_) => return,
                },
                change = changes.next() => match change {
                    Ok(Change::Put(key, _) | Change::Removed(key)) => self.changed(key).await,
                    Err(Error::Full) => self.look_again().await,
                    Err(_) => return,
                },
                notice = notices.next() => match notice {
                    Ok(Notice::Missing(keys)) => self.handle(Event::Missing(keys)).await,
                    Ok(Notice::Alone) | Err(Error::Full) => Ok(()),
                    Err(_) => return,
                },
                event = events.next() => match event {
                    Some(event::Event::NodeUp { node, .. }) => self.handle(Event::NodeUp(node)).await,
                    Some(event::Event::Missed(_)) => self.all_nodes_up().await,
                    Some(_) => Ok(()),
                    None => return,
                },
                Some(command) = commands.recv() => self.command(command).await,
            };
            // The map has ended, and with it the node.
            if done.is_err() {
                return;
            }
        }
    }

    /// Changes were missed: whatever may have changed is looked at.
    async fn look_again(&mut self) -> Result<()> {
        for key in self.with(|machine| machine.known()) {
            if self.map.get(&key.0).is_none() {
                self.changed(key).await?;
            }
        }
        // A part at a time: what changes meanwhile is told as well.
        let mut last: Option<Arc<Entry>> = None;
        loop {
            let some = self.map.some_after(last.as_ref().map(|entry| entry.key()));
            for entry in &some {
                self.changed(entry.key().clone()).await?;
            }
            match some.last() {
                Some(entry) => last = Some(Arc::clone(entry)),
                None => return Ok(()),
            }
        }
    }

    async fn all_nodes_up(&mut self) -> Result<()> {
        for node in self.node.inner().net_kernel.nodes(NodeType::Connected) {
            self.handle(Event::NodeUp(node)).await?;
        }
        Ok(())
    }

    /// A key has changed. What the map says of it now counts: this registry may have written to it since.
    async fn changed(&mut self, key: Key) -> Result<()> {
        let value = self.map.get(&key.0);
        let change =
            value.map_or_else(|| Change::Removed(key.clone()), |value| Change::Put(key.clone(), value));
        self.handle(Event::Changed(change)).await
    }

    async fn message(&mut self, message: Message) -> Result<()> {
        let event = match message {
            Message::Term(raw) => match raw.to_term(self.node.inner().limits()) {
                Ok(Term::Tuple(call)) => match <[Term; 3]>::try_from(call.into_vec()) {
                    Ok([tag, from, request]) if tag.is_atom("$gen_call") => Event::Call { from, request },
                    _ => return Ok(()),
                },
                Ok(_) => return Ok(()),
                Err(error) => {
                    warn!(%error, "a message to a registry was dropped");
                    return Ok(());
                }
            },
            Message::Down(down) => match self.monitors.fired(&down.reference) {
                Some(pid) => Event::Down(pid),
                None => return Ok(()),
            },
            Message::Exit(_) => return Ok(()),
        };
        self.handle(event).await
    }

    async fn command(&mut self, command: Command) -> Result<()> {
        let event = match self.permit(command.what) {
            Ok(event) => event,
            Err(refused) => {
                // Whoever asked may have gone.
                let _ = command.done.send(refused);
                return Ok(());
            }
        };
        let written = matches!(event, Event::Register { .. });
        self.handle(event).await?;
        let refused = written && self.refused;
        let _ = command.done.send(if refused { Err(Error::SystemLimit) } else { Ok(Registered::Yes) });
        Ok(())
    }

    /// What a command does; the answer to it if that is nothing.
    fn permit(&self, what: What) -> std::result::Result<Event, Result<Registered>> {
        let (event, update) = match what {
            What::Event(event) => (event, false),
            What::Update { name, value, pid } => (Event::Register { name, value, pid }, true),
        };
        let Event::Register { name, pid, .. } = &event else { return Ok(event) };
        let (is_member, holder) =
            self.with(|machine| (machine.is_member(), machine.lookup(name).map(|found| found.pid.clone())));
        let lives = |holder: &Pid| {
            let here = holder.node == *self.node.name();
            if here {
                self.node.is_process_alive(holder)
            } else {
                reaches(&self.node, &holder.node, holder.creation)
            }
        };
        match holder.filter(lives) {
            _ if !is_member => Err(Err(Error::NotMember)),
            Some(holder) if !update || holder != *pid => Err(Ok(Registered::Already(holder))),
            // It has the name no more.
            None if update => Err(Ok(Registered::Already(pid.clone()))),
            _ => Ok(event),
        }
    }

    fn with<R>(&self, act: impl FnOnce(&mut Machine) -> R) -> R {
        act(&mut self.machine.write().unwrap_or_else(PoisonError::into_inner))
    }

    async fn handle(&mut self, event: Event) -> Result<()> {
        self.with(|machine| machine.handle(event));
        self.carry_out().await
    }

    async fn carry_out(&mut self) -> Result<()> {
        self.refused = false;
        while let Some(action) = self.with(|machine| machine.poll_action()) {
            match action {
                Action::Found(found) => self.table.apply(found.into_iter().map(write).collect()),
                Action::Put(key, value) => self.put(key, value).await?,
                Action::Remove(key) => self.map.delete(key.0).await?,
                Action::RemoveValue(key, value) => self.map.delete_value(key, value).await?,
                Action::SetNeighbours(neighbours) => self.map.set_addresses(neighbours).await?,
                Action::Monitor(pid) => {
                    let reference = self.process.monitor(&pid).await?;
                    self.monitors.insert(pid, reference);
                }
                Action::Demonitor(pid) => self.monitors.demonitor(&pid, &mut self.process),
                Action::Exit { to, reason } => self.process.exit(&to, reason).await,
                Action::Reply { from, reply } => {
                    let refused = Term::tuple([Term::atom("error"), Term::atom("system_limit")]);
                    super::reply(&self.process, &from, if self.refused { &refused } else { &reply });
                }
                other => debug!(?other, "an action that this host does not know"),
            }
        }
        Ok(())
    }

    async fn put(&mut self, key: Key, value: Term) -> Result<()> {
        let full = match self.map.put(key.0.clone(), value).await {
            Err(Error::SystemLimit) => true,
            // What others have written may have filled it meanwhile.
            done => done.map(|()| self.map.has_no_room_for(&key))?,
        };
        if full {
            warn!(key = %key.0, "the map of a registry has no room for this");
            self.refused = true;
            self.with(|machine| machine.handle(Event::Refused(key)));
        }
        Ok(())
    }
}

impl Item for Registration {
    type Id<'a> = &'a Key;

    fn key(&self) -> &Term {
        &self.name.0
    }

    fn id(&self) -> Self::Id<'_> {
        &self.name
    }
}

fn write(found: Found) -> Write<Registration> {
    match found {
        Found::There(registration) => Write::Put(registration),
        Found::Gone(registration) => Write::Remove(registration),
    }
}
