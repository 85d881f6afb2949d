//! What this node is to a `Horde.DynamicSupervisor`: the host of [`foundation_cluster::registry::horde::supervisor`].
//!
//! Children run on BEAM nodes; this node sees which runs where, and has them started and stopped there. It is a member that
//! shuts down: it counts for no quorum and gets no children.
//!
//! ```no_run
//! # async fn example(node: foundation_node::Node) -> foundation_node::Result<()> {
//! use std::time::Duration;
//! let supervisor = node.horde_supervisor("MyApp.Supervisor")?;
//! // A visible node is made a member by `members: :auto`; any other names one.
//! supervisor.join("MyApp.Supervisor", "app@host").await?;
//! for child in supervisor.children() {
//!     println!("{:?} on {:?}", child.spec, child.running);
//! }
//! let count = supervisor.count_children(Duration::from_secs(5)).await?;
//! # drop(count);
//! # Ok(())
//! # }
//! ```

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use foundation_cluster::Key;
use foundation_cluster::registry::Change;
use foundation_cluster::registry::horde::supervisor::{Action, Event, HordeSupervisor as Machine};
use foundation_cluster::registry::horde::{Member, map_name};
use foundation_proto::etf::{Atom, Map, Pid, RawTerm, Term};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

pub use foundation_cluster::registry::horde::supervisor::{Child, StartChild, Status};

use crate::error::{Error, Result};
use crate::event;
use crate::node::Node;
use crate::process::{Dest, Message, Process, Reason};
use crate::service::changes::Changes;
use crate::service::delta_crdt::{DeltaCrdt, Monitor, Notice};

/// Commands that wait for the supervisor before their callers do.
const COMMANDS: usize = 64;

/// What this node is to a `Horde.DynamicSupervisor`; cheap to clone.
#[derive(Clone, Debug)]
pub struct HordeSupervisor {
    node: Node,
    name: Atom,
    pid: Pid,
    machine: Arc<RwLock<Machine>>,
    map: DeltaCrdt,
    commands: mpsc::Sender<Command>,
}

/// How many children there are (`Horde.DynamicSupervisor.count_children/1`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Count {
    /// All of them.
    pub specs: u64,
    /// Those that run now.
    pub active: u64,
    /// Those that are supervisors.
    pub supervisors: u64,
    /// Those that are workers.
    pub workers: u64,
}

#[derive(Debug)]
struct Command {
    event: Event,
    done: oneshot::Sender<()>,
}

impl HordeSupervisor {
    /// Starts the supervisor's process under its name.
    pub(in crate::service) fn start(node: &Node, name: &Atom) -> Result<Self> {
        let map = map_name(name).ok_or_else(|| Error::NameTaken(name.clone()))?;
        let map = node.delta_crdt_of(map)?;
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let process = node.process()?;
        process.register(name.clone())?;
        let pid = process.pid().clone();
        let machine = Arc::new(RwLock::new(Machine::new(name.clone(), pid.clone())));
        // Listening before the first look, so that no change is missed.
        let (changes, notices) = (map.monitor(), map.notices());
        let host = Host { node: node.clone(), process, machine: Arc::clone(&machine), map: map.clone() };
        node.inner().runtime.spawn(host.run(inbox, changes, notices));
        Ok(Self { node: node.clone(), name: name.clone(), pid, machine, map, commands })
    }

    /// The process that answers here under the supervisor's name.
    pub fn pid(&self) -> &Pid {
        &self.pid
    }

    /// The map in which members and children stand.
    pub fn map(&self) -> &DeltaCrdt {
        &self.map
    }

    pub(in crate::service) fn is_running(&self) -> bool {
        !self.commands.is_closed()
    }

    /// Joins a member: the supervisor of this name on that node. For a hidden node, and for supervisors that name their members:
    /// one is enough, the map tells of the rest. Where `members: :auto` has made this node a member, it is not needed.
    ///
    /// # Errors
    /// [`Error::NoProc`] if this has ended with its node; a name is too long.
    pub async fn join(&self, name: &str, node: &str) -> Result<()> {
        let member = Member { name: crate::service::elixir_name(name)?, node: crate::node::atom(node)? };
        self.command(Event::Join(member)).await
    }

    /// A connected node runs the supervisor.
    pub(super) async fn met(&self, node: Atom) -> Result<()> {
        self.command(Event::Met(Member { name: self.name.clone(), node })).await
    }

    async fn command(&self, event: Event) -> Result<()> {
        let (done, wait) = oneshot::channel();
        self.commands.send(Command { event, done }).await.map_err(|_| Error::NoProc)?;
        wait.await.map_err(|_| Error::NoProc)
    }

    /// The members, this one among them once the others know it: name, node and status of each.
    pub fn members(&self) -> Vec<(Atom, Atom, Status)> {
        self.read().members().into_iter().map(|(member, status)| (member.name, member.node, status)).collect()
    }

    /// The children, and where each runs, as far as it is known here.
    pub fn children(&self) -> Vec<Child> {
        self.map.filter_map(|(key, value)| Child::read(&key.0, value))
    }

    /// Name and node of the member on which `Horde.UniformDistribution` starts a child of this specification now; with
    /// `Horde.UniformQuorumDistribution` the same, while there is a quorum. The id of the specification plays no part. `None` if
    /// no member is alive.
    pub fn choose_node(&self, child_spec: &Map) -> Option<(Atom, Atom)> {
        self.read().choose_node(child_spec).map(|member| (member.name, member.node))
    }

    /// Has a child started, on the node that the supervisor's distribution strategy chooses. The specification is a map, as
    /// `Supervisor.child_spec/2` makes it: at least `id` and `start`, `{Module, Function, Arguments}`.
    ///
    /// # Errors
    /// [`Error::NoProc`] if no member that runs children is connected; as [`Handle::call`](crate::Handle::call).
    pub async fn start_child(&self, child_spec: Map, timeout: Duration) -> Result<StartChild> {
        let request = Term::tuple([Term::atom("start_child"), Term::Map(child_spec)]);
        let reply = self.call(request, timeout).await?;
        StartChild::read(reply).ok_or_else(unexpected)
    }

    /// Has a child stopped, wherever it runs; `false` if the supervisor does not know it (`{:error, :not_found}`).
    ///
    /// # Errors
    /// [`Error::Exit`] with the supervisor's `{:error, Reason}` if the child's node cannot be asked; as
    /// [`HordeSupervisor::start_child`].
    pub async fn terminate_child(&self, child: &Pid, timeout: Duration) -> Result<bool> {
        let request = Term::tuple([Term::atom("terminate_child"), Term::Pid(child.clone())]);
        let reply = self.call(request, timeout).await?;
        if reply.is_atom("ok") {
            return Ok(true);
        }
        match reply.as_tuple() {
            Some([error, reason]) if error.is_atom("error") && reason.is_atom("not_found") => Ok(false),
            Some([error, ..]) if error.is_atom("error") => {
                Err(Error::Exit(Reason::from_raw(RawTerm::from_term(&reply)?)))
            }
            _ => Err(unexpected()),
        }
    }

    /// The children of all members, as the members themselves say: `{undefined, Pid, Type, Modules}` each.
    ///
    /// # Errors
    /// As [`HordeSupervisor::start_child`].
    pub async fn which_children(&self, timeout: Duration) -> Result<Vec<Term>> {
        match self.call(Term::atom("which_children"), timeout).await? {
            Term::List(children) => Ok(children.into_vec()),
            _ => Err(unexpected()),
        }
    }

    /// How many children all members have, as they themselves say.
    ///
    /// # Errors
    /// As [`HordeSupervisor::start_child`].
    pub async fn count_children(&self, timeout: Duration) -> Result<Count> {
        let Term::Map(counts) = self.call(Term::atom("count_children"), timeout).await? else {
            return Err(unexpected());
        };
        let count = |key| {
            let number = counts.get_atom(key).and_then(Term::as_i64).unwrap_or(0);
            u64::try_from(number).unwrap_or(0)
        };
        Ok(Count {
            specs: count("specs"),
            active: count("active"),
            supervisors: count("supervisors"),
            workers: count("workers"),
        })
    }

    /// Asks a member that runs children; what it cannot do itself it passes on.
    async fn call(&self, request: Term, timeout: Duration) -> Result<Term> {
        let member = connected(&self.node, self.read().alive()).ok_or(Error::NoProc)?;
        self.node.call((member.name, member.node), request, timeout).await
    }

    fn read(&self) -> RwLockReadGuard<'_, Machine> {
        self.machine.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer that Horde does not give.
fn unexpected() -> Error {
    Error::Term(foundation_proto::Error::ApiMisuse("the supervisor's answer is none of Horde's"))
}

/// The first member whose node is connected.
fn connected<'a>(node: &Node, members: impl IntoIterator<Item = &'a Member>) -> Option<Member> {
    let link = |member: &&Member| node.inner().net_kernel.link(&member.node).is_some();
    members.into_iter().find(link).cloned()
}

struct Host {
    node: Node,
    process: Process,
    machine: Arc<RwLock<Machine>>,
    map: DeltaCrdt,
}

impl Host {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut changes: Monitor,
        mut notices: Changes<Notice>,
    ) {
        let mut events = self.node.events();
        // The map may be older than the supervisor.
        if self.handle(Event::Now(self.map.to_vec())).await.is_err() {
            return;
        }
        loop {
            let done = tokio::select! {
                message = self.process.recv() => match message {
                    Ok(message) => self.message(message).await,
                    Err(_) => return,
                },
                change = changes.next() => match change {
                    Ok(change) if concerns_members(&change) => self.handle(Event::Changed(change)).await,
                    Ok(_) => Ok(()),
                    Err(Error::Full) => self.handle(Event::Now(self.map.to_vec())).await,
                    Err(_) => return,
                },
                notice = notices.next() => match notice {
                    Ok(Notice::Missing(keys)) => self.handle(Event::Missing(keys)).await,
                    Ok(Notice::Alone) => self.handle(Event::Alone).await,
                    Err(Error::Full) => Ok(()),
                    Err(_) => return,
                },
                event = events.next() => match event {
                    Some(event::Event::NodeUp { node, .. }) => self.handle(Event::NodeUp(node)).await,
                    Some(event::Event::NodeDown { node, .. }) => self.handle(Event::NodeDown(node)).await,
                    Some(event::Event::Missed(_)) => Ok(()),
                    None => return,
                },
                Some(command) = commands.recv() => {
                    let done = self.handle(command.event).await;
                    // Whoever asked may have gone.
                    let _ = command.done.send(());
                    done
                },
            };
            // The map has ended, and with it the node.
            if done.is_err() {
                return;
            }
        }
    }

    async fn message(&mut self, message: Message) -> Result<()> {
        let Message::Term(raw) = message else { return Ok(()) };
        match raw.to_term(self.node.inner().limits()) {
            Ok(message) => self.handle(Event::Message(message)).await,
            Err(error) => {
                warn!(%error, "a message to a supervisor was dropped");
                Ok(())
            }
        }
    }

    fn with<R>(&self, act: impl FnOnce(&mut Machine) -> R) -> R {
        act(&mut self.machine.write().unwrap_or_else(PoisonError::into_inner))
    }

    async fn handle(&mut self, event: Event) -> Result<()> {
        self.with(|machine| machine.handle(event));
        while let Some(action) = self.with(Machine::poll_action) {
            match action {
                Action::Put(key, value) => match self.map.put(key.0, value).await {
                    Err(Error::SystemLimit) => {
                        warn!("the record of this node does not fit into a supervisor's map");
                    }
                    done => done?,
                },
                Action::SetNeighbours(neighbours) => self.map.set_addresses(neighbours).await?,
                Action::Forget => self.map.forget().await?,
                Action::Forward { to, message, from, otherwise } => {
                    if !self.forward(&to, &message) {
                        crate::service::reply(&self.process, &from, &otherwise);
                    }
                }
                Action::Reply { from, reply } => crate::service::reply(&self.process, &from, &reply),
                other => debug!(?other, "an action that this host does not know"),
            }
        }
        Ok(())
    }

    /// Sends to the first of these that is connected; `false` if it cannot be sent.
    fn forward(&self, to: &[Member], message: &Term) -> bool {
        let Some(member) = connected(&self.node, to) else { return false };
        let Ok(message) = RawTerm::from_term(message) else { return false };
        let sent = self.process.send_now(Dest::from((member.name, member.node)), message);
        sent.inspect_err(|error| debug!(%error, "a request to a supervisor was not passed on")).is_ok()
    }
}

/// Whether a change is of a member, and not of one of the children, which are looked up in the map itself.
fn concerns_members(change: &Change) -> bool {
    let (Change::Put(Key(key), _) | Change::Removed(Key(key))) = change;
    let [tag, _] = key.as_tuple().unwrap_or_default() else { return false };
    tag.is_atom("member") || tag.is_atom("member_node_info")
}
