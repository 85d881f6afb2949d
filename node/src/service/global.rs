//! Cluster-wide names and locks, shared with OTP's `global`: the host of [`foundation_cluster::global`].
//!
//! A visible node takes part in `global` and has all its names:
//!
//! ```no_run
//! # async fn example(node: foundation_node::Node) -> foundation_node::Result<()> {
//! use foundation_proto::etf::Term;
//! let name = Term::atom("leader");
//! let worker = node.process()?;
//! if let Some(global) = node.global() {
//!     if global.register_name(&name, worker.pid()).await? {
//!         // global:whereis_name(leader) gives this process on every node of the cluster.
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A hidden node has no part in it; it uses the names of a visible one: [`Node::global_through`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use foundation_cluster::Machine;
use foundation_cluster::global::{Action, Command, Config, Event, Global as GlobalNameServer, MonitorId, To};
use foundation_proto::Mono;
use foundation_proto::etf::{Atom, ExportFun, Pid, RawTerm, Term};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use super::monitors::Monitors;
use crate::error::{Error, Result};
use crate::event;
use crate::net::{Clock, Link};
use crate::net_kernel::NodeType;
use crate::node::Node;
use crate::process::{Dest, Handle, Message, Process};

/// The name of the process.
const NAME: &str = "global_name_server";
/// Commands that wait before their callers do.
const COMMANDS: usize = 1024;
/// What a hidden node waits at most for a name or a lock.
const THROUGH_TIMEOUT: Duration = Duration::from_secs(30);

/// `global` of this node; cheap to clone. Reading looks at what the node knows now.
#[derive(Clone, Debug)]
pub struct Global {
    machine: Arc<RwLock<GlobalNameServer>>,
    commands: mpsc::Sender<Request>,
}

/// What happens when two partitions meet that both have a name.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Resolve {
    /// One of the two processes, of whichever node is greater, is killed (`random_exit_name/3`).
    #[default]
    RandomExit,
    /// One of the two processes is told `{global_name_conflict, Name}` (`random_notify_name/3`).
    RandomNotify,
    /// Both are told `{global_name_conflict, Name, OtherPid}`, and nobody keeps the name (`notify_all_name/3`).
    NotifyAll,
}

impl Resolve {
    const fn function(self) -> &'static str {
        match self {
            Self::RandomExit => "random_exit_name",
            Self::RandomNotify => "random_notify_name",
            Self::NotifyAll => "notify_all_name",
        }
    }

    fn to_term(self) -> Term {
        Term::ExportFun(Box::new(ExportFun {
            module: Atom::new_static("global"),
            function: Atom::new_static(self.function()),
            arity: 3,
        }))
    }

    /// The method of a name that was registered here. A fun of another node cannot be called.
    fn from_term(method: &Term) -> Option<Self> {
        let function = match method {
            Term::ExportFun(fun) if fun.module == "global" && fun.arity == 3 => &fun.function,
            Term::Tuple(_) => match method.as_tuple()? {
                [module, Term::Atom(function)] if module.is_atom("global") => function,
                _ => return None,
            },
            _ => return None,
        };
        [Self::RandomExit, Self::RandomNotify, Self::NotifyAll]
            .into_iter()
            .find(|one| function == one.function())
    }

    /// Calls it (`global:resolve_it/4`). Returns what it returns: a pid, or `none`.
    async fn call(self, process: &Handle, name: &Term, pid1: &Pid, pid2: &Pid) -> Result<Term> {
        let (least, greatest) = if pid1.node < pid2.node { (pid1, pid2) } else { (pid2, pid1) };
        let conflict = Term::atom("global_name_conflict");
        match self {
            Self::RandomExit => {
                info!(?name, pid = ?greatest, "global: name conflict, terminating");
                process.exit(greatest, Term::atom("kill")).await;
            }
            Self::RandomNotify => process.send_term(greatest, &Term::from((conflict, name.clone()))).await?,
            Self::NotifyAll => {
                let tell = |other: &Pid| Term::from((conflict.clone(), name.clone(), Term::from(other)));
                process.send_term(pid1, &tell(pid2)).await?;
                process.send_term(pid2, &tell(pid1)).await?;
                return Ok(Term::atom("none"));
            }
        }
        Ok(Term::from(least))
    }
}

/// `global:resolve_it(Method, Name, Pid1, Pid2)`, as another node calls it. `None` if the method is no function of this node.
pub(crate) async fn resolve_it(process: &Handle, args: &[Term]) -> Option<Term> {
    let [method, name, Term::Pid(pid1), Term::Pid(pid2)] = args else { return None };
    Resolve::from_term(method)?.call(process, name, pid1, pid2).await.ok()
}

#[derive(Debug)]
struct Request {
    what: Command,
    done: oneshot::Sender<bool>,
}

/// A server that is to be started, or was.
#[derive(Debug, Default)]
pub(crate) struct Slot(Mutex<Option<(Global, Option<mpsc::Receiver<Request>>)>>);

impl Slot {
    fn get(&self) -> Option<Global> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(global, _)| global.clone())
    }

    /// A new server with nothing in it, for a process that has not begun yet: whoever asks finds it from now on.
    pub(crate) fn prepare(&self, process: &Pid, config: &crate::config::NodeConfig) {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let config = Config {
            connect_all: config.connect_all,
            prevent_overlapping_partitions: config.prevent_overlapping_partitions,
        };
        // Without a random source the choices are poor, which is no reason not to start.
        let random = crate::random::bits32().map_or(u64::from(process.creation), u64::from) << 32
            | crate::random::bits32().map_or(1, u64::from);
        let machine = GlobalNameServer::new(process.clone(), config, random);
        let global = Global { machine: Arc::new(RwLock::new(machine)), commands };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((global, Some(inbox)));
    }

    fn take(&self) -> Option<(Global, mpsc::Receiver<Request>)> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (global, inbox) = slot.as_mut()?;
        Some((global.clone(), inbox.take()?))
    }
}

impl Node {
    /// The names and locks that all visible nodes share. `None` on a hidden node.
    pub fn global(&self) -> Option<Global> {
        self.inner().services.global.get()
    }

    /// The names and locks of the cluster of a visible node, for a node that is hidden: names are registered there by
    /// `global:register_name_external/2`, and locks are set by calls to each node.
    pub fn global_through(&self, visible: &Atom) -> GlobalThrough {
        GlobalThrough { node: self.clone(), visible: visible.clone() }
    }
}

impl Global {
    /// The process of a name (`global:whereis_name/1`).
    pub fn whereis_name(&self, name: &Term) -> Option<Pid> {
        self.read().whereis_name(name).cloned()
    }

    /// All names (`global:registered_names/0`).
    pub fn registered_names(&self) -> Vec<Term> {
        self.read().registered_names().cloned().collect()
    }

    /// The nodes with which names are shared.
    pub fn known(&self) -> Vec<Atom> {
        self.read().known().cloned().collect()
    }

    /// Registers a process on all nodes (`global:register_name/2`): `false` if the name is taken, or the process has another.
    ///
    /// # Errors
    /// [`Error::NoProc`] once the node has stopped.
    pub async fn register_name(&self, name: &Term, pid: &Pid) -> Result<bool> {
        self.register_name_with(name, pid, Resolve::default()).await
    }

    /// The same, saying what becomes of a conflict (`global:register_name/3`).
    ///
    /// # Errors
    /// As [`Global::register_name`].
    pub async fn register_name_with(&self, name: &Term, pid: &Pid, resolve: Resolve) -> Result<bool> {
        let (name, pid, method) = (name.clone(), pid.clone(), resolve.to_term());
        self.ask(Command::Register { name, pid, method }).await
    }

    /// Gives a name to a process, whoever had it (`global:re_register_name/2`).
    ///
    /// # Errors
    /// As [`Global::register_name`].
    pub async fn re_register_name(&self, name: &Term, pid: &Pid) -> Result<()> {
        let (name, pid, method) = (name.clone(), pid.clone(), Resolve::default().to_term());
        self.ask(Command::Reregister { name, pid, method }).await.map(|_| ())
    }

    /// Frees a name on all nodes (`global:unregister_name/1`).
    ///
    /// # Errors
    /// As [`Global::register_name`].
    pub async fn unregister_name(&self, name: &Term) -> Result<()> {
        self.ask(Command::Unregister { name: name.clone() }).await.map(|_| ())
    }

    /// Sets a lock on this and all connected nodes (`global:set_lock/3`): for `requester`, held by the process `owner` of this
    /// node until it gives it up or ends. With `retries` it gives up after so many attempts and returns `false`; between
    /// them it waits a random time of up to 8 s.
    ///
    /// # Errors
    /// As [`Global::register_name`].
    pub async fn set_lock(
        &self,
        resource: &Term,
        requester: &Term,
        owner: &Pid,
        retries: Option<u32>,
    ) -> Result<bool> {
        let (resource, requester, owner) = (resource.clone(), requester.clone(), owner.clone());
        self.ask(Command::SetLock { resource, requester, owner, nodes: None, retries }).await
    }

    /// Gives a lock up (`global:del_lock/2`).
    ///
    /// # Errors
    /// As [`Global::register_name`].
    pub async fn del_lock(&self, resource: &Term, requester: &Term, owner: &Pid) -> Result<()> {
        let (resource, requester, owner) = (resource.clone(), requester.clone(), owner.clone());
        self.ask(Command::DelLock { resource, requester, owner }).await.map(|_| ())
    }

    /// Waits until the names of all nodes that are connected now are known here (`global:sync/0`).
    ///
    /// # Errors
    /// As [`Global::register_name`].
    pub async fn sync(&self) -> Result<()> {
        self.ask(Command::Sync).await.map(|_| ())
    }

    async fn ask(&self, what: Command) -> Result<bool> {
        let (done, wait) = oneshot::channel();
        self.commands.send(Request { what, done }).await.map_err(|_| Error::NoProc)?;
        wait.await.map_err(|_| Error::NoProc)
    }

    fn read(&self) -> RwLockReadGuard<'_, GlobalNameServer> {
        self.machine.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The names and locks of a cluster, used through one of its visible nodes; see [`Node::global_through`].
#[derive(Clone, Debug)]
pub struct GlobalThrough {
    node: Node,
    visible: Atom,
}

impl GlobalThrough {
    /// The process of a name.
    ///
    /// # Errors
    /// Those of [`Handle::rpc`].
    pub async fn whereis_name(&self, name: &Term) -> Result<Option<Pid>> {
        Ok(self.rpc("whereis_name", vec![name.clone()]).await?.as_pid().cloned())
    }

    /// Registers a process of this node; `false` if the name is taken. The name goes when the process ends, or the visible
    /// node does.
    ///
    /// # Errors
    /// Those of [`Handle::rpc`].
    pub async fn register_name(&self, name: &Term, pid: &Pid) -> Result<bool> {
        let answer = self.rpc("register_name_external", vec![name.clone(), Term::from(pid)]).await?;
        Ok(answer.is_atom("yes"))
    }

    /// Frees a name.
    ///
    /// # Errors
    /// Those of [`Handle::rpc`].
    pub async fn unregister_name(&self, name: &Term) -> Result<()> {
        self.rpc("unregister_name_external", vec![name.clone()]).await.map(|_| ())
    }

    /// Tries once to set a lock on nodes, all or none; `owner` holds it until it gives it up or ends.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn set_lock(
        &self,
        resource: &Term,
        requester: &Term,
        owner: &Handle,
        nodes: &[Atom],
    ) -> Result<bool> {
        let request = (Atom::new_static("set_lock"), (resource, requester));
        // The greatest first: that is where all who want it meet.
        let mut nodes = nodes.to_vec();
        nodes.sort_by(|a, b| b.cmp(a));
        for (done, node) in nodes.iter().enumerate() {
            let server = (Atom::new_static(NAME), node.clone());
            // The lock belongs to the process that asks.
            let outcome: Result<Term> = owner.call_as_self(server, &request, THROUGH_TIMEOUT).await;
            if !outcome.as_ref().is_ok_and(|answer| answer.as_bool() == Some(true)) {
                self.del_lock(resource, requester, owner, nodes.get(..done).unwrap_or_default()).await?;
                return outcome.map(|_| false);
            }
        }
        Ok(true)
    }

    /// Gives a lock up on nodes.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn del_lock(
        &self,
        resource: &Term,
        requester: &Term,
        owner: &Handle,
        nodes: &[Atom],
    ) -> Result<()> {
        let request = (Atom::new_static("del_lock"), (resource, requester));
        for node in nodes {
            let server = (Atom::new_static(NAME), node.clone());
            let _: Term = owner.call_as_self(server, &request, THROUGH_TIMEOUT).await?;
        }
        Ok(())
    }

    async fn rpc(&self, function: &str, args: Vec<Term>) -> Result<Term> {
        self.node.process()?.rpc(&self.visible, "global", function, args, THROUGH_TIMEOUT).await
    }
}

/// What tasks of the server report back to it.
#[derive(Debug)]
enum Report {
    Event(Event),
    /// The node of this process is connected, or cannot be.
    Reached {
        monitor: MonitorId,
        pid: Pid,
        connected: bool,
    },
}

struct Host {
    node: Node,
    process: Process,
    clock: Clock,
    machine: Arc<RwLock<GlobalNameServer>>,
    reports: mpsc::UnboundedSender<Report>,
    monitors: Monitors<MonitorId>,
    /// The connections that the machine was told of.
    links: BTreeMap<Atom, Arc<Link>>,
    waiting: BTreeMap<u64, oneshot::Sender<bool>>,
    commands: u64,
}

/// Serves until the process ends.
pub(crate) async fn serve(process: Process) -> Result<()> {
    let node = process.node();
    let Some((global, inbox)) = node.inner().services.global.take() else { return Err(Error::NoProc) };
    // Bounded by what the machine asks for: one report for each action.
    let (reports, reported) = mpsc::unbounded_channel();
    let host = Host {
        node,
        process,
        clock: Clock::start(),
        machine: global.machine,
        reports,
        monitors: Monitors::default(),
        links: BTreeMap::new(),
        waiting: BTreeMap::new(),
        commands: 0,
    };
    host.run(inbox, reported).await
}

impl Host {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Request>,
        mut reported: mpsc::UnboundedReceiver<Report>,
    ) -> Result<()> {
        let mut events = self.node.events();
        // They knew a server before this one, and take a new one seriously only on a new connection.
        for node in self.node.nodes(NodeType::Visible) {
            self.node.inner().net_kernel.disconnect(&node).await;
        }
        loop {
            let timeout = self.read(|machine| machine.poll_timeout());
            let clock = self.clock;
            // Connections before messages, as a BEAM delivers them: what a node sends comes after its `nodeup`.
            tokio::select! {
                biased;
                event = events.next() => match event {
                    Some(event::Event::NodeUp { node, hidden: false, .. }) => self.node_up(node).await,
                    // While this node stops, the others are not lost.
                    Some(event::Event::NodeDown { node, hidden: false, .. })
                        if !self.node.inner().net_kernel.is_stopping() =>
                    {
                        self.node_down(node).await;
                    }
                    Some(event::Event::Missed(_)) => self.look_again().await,
                    Some(_) => {}
                    None => return Ok(()),
                },
                Some(report) = reported.recv() => self.report(report).await,
                message = self.process.recv() => self.message(message?).await,
                Some(Request { what, done }) = inbox.recv() => {
                    self.commands += 1;
                    self.waiting.insert(self.commands, done);
                    self.handle(Event::Command { command: self.commands, what }).await;
                },
                () = clock.sleep_until(timeout.unwrap_or(Mono(i64::MAX))), if timeout.is_some() => {
                    self.with(|machine, now| machine.handle_timeout(now));
                    self.carry_out().await;
                },
            }
        }
    }

    fn read<R>(&self, look: impl FnOnce(&GlobalNameServer) -> R) -> R {
        look(&self.machine.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn with<R>(&self, act: impl FnOnce(&mut GlobalNameServer, Mono) -> R) -> R {
        act(&mut self.machine.write().unwrap_or_else(PoisonError::into_inner), self.clock.now())
    }

    async fn handle(&mut self, event: Event) {
        self.with(|machine, now| machine.handle(now, event));
        self.carry_out().await;
    }

    /// Whether the connection that the machine was told of is the one there is.
    fn is_current(&self, node: &Atom) -> bool {
        let current = self.node.inner().net_kernel.link(node);
        self.links.get(node).zip(current).is_some_and(|(told, current)| Arc::ptr_eq(told, &current))
    }

    async fn node_up(&mut self, node: Atom) {
        if self.is_current(&node) {
            return;
        }
        self.node_down(node.clone()).await;
        // Without a link it is down again, and the event that says so is on its way.
        if let Some(link) = self.node.inner().net_kernel.link(&node) {
            self.links.insert(node.clone(), link);
            self.handle(Event::NodeUp(node)).await;
        }
    }

    async fn node_down(&mut self, node: Atom) {
        // The event of an earlier connection may come after the machine was told of this one.
        if !self.is_current(&node) && self.links.remove(&node).is_some() {
            self.handle(Event::NodeDown(node)).await;
        }
    }

    /// Makes up for events that were missed: connections that are gone or were replaced, and those that are new.
    async fn look_again(&mut self) {
        for node in self.links.keys().cloned().collect::<Vec<_>>() {
            self.node_down(node).await;
        }
        for node in self.node.nodes(NodeType::Visible) {
            self.node_up(node).await;
        }
    }

    async fn message(&mut self, message: Message) {
        let event = match message {
            Message::Term(raw) => match raw.to_term(self.node.inner().limits()) {
                Ok(term) => Event::Message(term),
                Err(error) => return warn!(%error, "a message to global_name_server was dropped"),
            },
            Message::Down(down) => {
                let Some(monitor) = self.monitors.fired(&down.reference) else { return };
                Event::Down(monitor)
            }
            Message::Exit(_) => return,
        };
        self.handle(event).await;
    }

    async fn report(&mut self, report: Report) {
        match report {
            Report::Event(event) => self.handle(event).await,
            Report::Reached { monitor, pid, connected: true } => self.monitor(monitor, &pid, true).await,
            Report::Reached { monitor, connected: false, .. } => self.handle(Event::Down(monitor)).await,
        }
    }

    async fn carry_out(&mut self) {
        while let Some(action) = self.with(|machine, _| machine.poll_action()) {
            match action {
                Action::Send { to: To::Pid(pid), message } => self.send(Dest::from(pid), &message),
                Action::Send { to: To::Server(node), message } => {
                    self.send(Dest::from((Atom::new_static(NAME), node)), &message);
                }
                Action::Reply { to, tag, reply } => {
                    super::reply(&self.process, &Term::from((Term::Pid(to), tag)), &reply);
                }
                Action::Monitor { monitor, pid, connect } => self.monitor(monitor, &pid, connect).await,
                Action::Demonitor(monitor) => self.monitors.demonitor(&monitor, &mut self.process),
                Action::Connect(node) => self.connect(node),
                Action::Disconnect(node) => {
                    warn!(
                        node = node.as_str(),
                        "global: disconnected in order to prevent overlapping partitions"
                    );
                    let this = self.node.clone();
                    self.node
                        .inner()
                        .runtime
                        .spawn(async move { this.inner().net_kernel.disconnect(&node).await });
                }
                Action::Resolve { conflict, method, name, pid1, pid2 } => {
                    self.resolve(
                        conflict,
                        vec![method, name, Term::Pid(pid1), Term::Pid(pid2.clone())],
                        pid2.node,
                    );
                }
                Action::Done { command, result } => {
                    if let Some(done) = self.waiting.remove(&command) {
                        // Whoever asked may have gone.
                        let _ = done.send(result);
                    }
                }
                other => debug!(?other, "an action that this host does not know"),
            }
        }
    }

    fn send(&self, to: Dest, message: &Term) {
        let sent =
            RawTerm::from_term(message).map_err(Error::from).and_then(|raw| self.process.send_now(to, raw));
        // A lost connection says so by its event.
        if let Err(error) = sent {
            debug!(%error, "global_name_server: not sent");
        }
    }

    /// Watches a process. Its node is connected in a task of its own: nobody else has to wait for that.
    async fn monitor(&mut self, monitor: MonitorId, pid: &Pid, connect: bool) {
        let near = pid.node == *self.node.name() || self.node.inner().net_kernel.link(&pid.node).is_some();
        if !near && !connect {
            return self.with(|machine, now| machine.handle(now, Event::Down(monitor)));
        }
        if !near {
            debug!(node = pid.node.as_str(), "global: connecting, to watch what has a name");
            let (node, pid, reports) = (self.node.clone(), pid.clone(), self.reports.clone());
            self.node.inner().runtime.spawn(async move {
                let connected = node.inner().net_kernel.auto_connect(&pid.node).await.is_ok();
                reports.send(Report::Reached { monitor, pid, connected })
            });
            return;
        }
        match self.process.monitor(pid).await {
            Ok(reference) => self.monitors.insert(monitor, reference),
            Err(_) => self.with(|machine, now| machine.handle(now, Event::Down(monitor))),
        }
    }

    fn connect(&self, node: Atom) {
        debug!(node = node.as_str(), "global: connecting");
        let (this, reports) = (self.node.clone(), self.reports.clone());
        self.node.inner().runtime.spawn(async move {
            if let Err(error) = this.inner().net_kernel.connect(&node).await {
                warn!(node = node.as_str(), %error, "global: failed to connect");
                // The server may have ended.
                let _ = reports.send(Report::Event(Event::ConnectFailed(node)));
            }
        });
    }

    /// Asks the node of the process that is registered here what becomes of a conflict.
    fn resolve(&self, conflict: u64, args: Vec<Term>, at: Atom) {
        let (node, reports) = (self.node.clone(), self.reports.clone());
        self.node.inner().runtime.spawn(async move {
            let result = async {
                let process = node.process().ok()?;
                if at == *node.name() {
                    return resolve_it(&process, &args).await;
                }
                let answer = process.rpc(&at, "global", "resolve_it", args, THROUGH_TIMEOUT).await.ok()?;
                let refused =
                    answer.as_tuple().is_some_and(|tuple| tuple.first().is_some_and(|t| t.is_atom("badrpc")));
                (!refused).then_some(answer)
            }
            .await;
            // The server may have ended.
            let _ = reports.send(Report::Event(Event::Resolved { conflict, result }));
        });
    }
}
