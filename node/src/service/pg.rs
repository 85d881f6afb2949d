//! Process groups, shared with OTP's `pg` scopes: the host of [`foundation_cluster::pg`].
//!
//! ```no_run
//! # async fn example(node: foundation_node::Node) -> foundation_node::Result<()> {
//! use foundation_proto::etf::{Atom, Term};
//! let groups = node.groups("pg")?;
//! let worker = node.process()?;
//! let group = Term::Atom(Atom::new_static("workers"));
//! groups.join(&group, worker.pid()).await?;
//! for member in groups.members(&group) {
//!     worker.send_term(member, &group).await?;
//! }
//! # Ok(())
//! # }
//! ```

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use foundation_cluster::Machine;
use foundation_cluster::pg::{Action, Event, MonitorId, Scope, To};
use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, RawTerm, Term};
use tokio::sync::{broadcast, mpsc, oneshot};
use tracing::{debug, warn};

use super::changes::Changes;
use super::monitors::Monitors;
use crate::error::{Error, Result};
use crate::event;
use crate::net::Clock;
use crate::net_kernel::NodeType;
use crate::node::Node;
use crate::process::{Dest, Message, Process};

/// Joins and leaves that wait for the scope before their callers do.
const COMMANDS: usize = 1024;

/// The groups of one scope; cheap to clone.
///
/// Reading takes no turn with the scope: it looks at what the scope last knew.
#[derive(Clone, Debug)]
pub struct Groups {
    pid: Pid,
    scope: Arc<RwLock<Scope>>,
    commands: mpsc::Sender<Command>,
    changes: broadcast::Sender<Change>,
}

/// A change of the members of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The group.
    pub group: Term,
    /// Members that joined, of this node or another.
    pub joined: Vec<Pid>,
    /// Members that left or ended, or whose node is out of reach.
    pub left: Vec<Pid>,
}

/// Changes of the members of all groups of a scope, from the moment of [`Groups::monitor`] on (`pg:monitor_scope/1`).
pub type Monitor = Changes<Change>;

#[derive(Debug)]
struct Command {
    event: Event,
    done: oneshot::Sender<()>,
}

impl Groups {
    /// Starts the scope's process under the scope's name.
    pub(super) fn start(node: &Node, name: &Atom) -> Result<Self> {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let changes = Changes::channel();
        let process = node.process()?;
        process.register(name.clone())?;
        let scope = Arc::new(RwLock::new(Scope::new(process.pid().clone())));
        let groups = Self {
            pid: process.pid().clone(),
            scope: Arc::clone(&scope),
            commands,
            changes: changes.clone(),
        };
        let host = Host {
            node: node.clone(),
            name: name.clone(),
            process,
            clock: Clock::start(),
            scope,
            changes,
            monitors: Monitors::default(),
        };
        node.inner().runtime.spawn(host.run(inbox));
        Ok(groups)
    }

    /// The scope's process.
    pub fn pid(&self) -> &Pid {
        &self.pid
    }

    pub(super) fn is_running(&self) -> bool {
        !self.commands.is_closed()
    }

    /// Adds a process of this node to a group, once more if it is a member already. When this returns, readers here see it and
    /// the connected nodes have been told.
    ///
    /// # Errors
    /// [`Error::NoProc`] if the scope has ended with its node, or the process is of another node.
    pub async fn join(&self, group: &Term, pid: &Pid) -> Result<()> {
        if pid.node != self.pid.node {
            return Err(Error::NoProc);
        }
        self.command(Event::Join { group: group.clone(), pids: vec![pid.clone()] }).await
    }

    /// Takes a process out of a group, once; nothing happens if it is no member.
    ///
    /// # Errors
    /// [`Error::NoProc`] if the scope has ended with its node.
    pub async fn leave(&self, group: &Term, pid: &Pid) -> Result<()> {
        self.command(Event::Leave { group: group.clone(), pids: vec![pid.clone()] }).await
    }

    async fn command(&self, event: Event) -> Result<()> {
        let (done, wait) = oneshot::channel();
        self.commands.send(Command { event, done }).await.map_err(|_| Error::NoProc)?;
        wait.await.map_err(|_| Error::NoProc)
    }

    /// The members of a group on all nodes, the latest first; a process is listed as often as it joined.
    pub fn members(&self, group: &Term) -> Vec<Pid> {
        self.read().members(group).to_vec()
    }

    /// The members of a group on this node.
    pub fn local_members(&self, group: &Term) -> Vec<Pid> {
        self.read().local_members(group).to_vec()
    }

    /// The groups that have members, in Erlang's order.
    pub fn which_groups(&self) -> Vec<Term> {
        self.read().groups().cloned().collect()
    }

    /// The nodes on which the scope runs, as far as it is known.
    pub fn nodes(&self) -> Vec<Atom> {
        self.read().peers().map(|peer| peer.node.clone()).collect()
    }

    /// What changes from now on.
    pub fn monitor(&self) -> Monitor {
        Changes::of(&self.changes)
    }

    fn read(&self) -> RwLockReadGuard<'_, Scope> {
        self.scope.read().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Host {
    node: Node,
    name: Atom,
    process: Process,
    clock: Clock,
    scope: Arc<RwLock<Scope>>,
    changes: broadcast::Sender<Change>,
    monitors: Monitors<MonitorId>,
}

impl Host {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        // Listening before looking, so that no node is missed; one that is seen twice is searched once more.
        let mut events = self.node.events();
        self.search_all().await;
        loop {
            let timeout = self.scope.read().unwrap_or_else(PoisonError::into_inner).poll_timeout();
            let clock = self.clock;
            tokio::select! {
                message = self.process.recv() => match message {
                    Ok(message) => self.message(message).await,
                    Err(_) => return,
                },
                event = events.next() => match event {
                    Some(event::Event::NodeUp { node, .. }) => self.handle(Event::NodeUp(node)).await,
                    Some(event::Event::NodeDown { node, .. }) => self.handle(Event::NodeDown(node)).await,
                    Some(event::Event::Missed(_)) => self.search_all().await,
                    None => return,
                },
                Some(command) = commands.recv() => {
                    self.handle(command.event).await;
                    // Whoever asked may have gone.
                    let _ = command.done.send(());
                },
                () = clock.sleep_until(timeout.unwrap_or(Mono(i64::MAX))), if timeout.is_some() => {
                    self.with(|scope, now| scope.handle_timeout(now));
                    self.carry_out().await;
                },
            }
        }
    }

    async fn search_all(&mut self) {
        for node in self.node.inner().net_kernel.nodes(NodeType::Connected) {
            self.handle(Event::NodeUp(node)).await;
        }
    }

    async fn message(&mut self, message: Message) {
        let event = match message {
            Message::Term(raw) => match raw.to_term(self.node.inner().limits()) {
                Ok(term) => Event::Message(term),
                Err(error) => {
                    return warn!(scope = self.name.as_str(), %error, "a message to the scope was dropped");
                }
            },
            Message::Down(down) => {
                let Some(monitor) = self.monitors.fired(&down.reference) else { return };
                Event::Down { monitor, noconnection: down.reason.is("noconnection") }
            }
            Message::Exit(_) => return,
        };
        self.handle(event).await;
    }

    async fn handle(&mut self, event: Event) {
        self.with(|scope, now| scope.handle(now, event));
        self.carry_out().await;
    }

    fn with<R>(&self, act: impl FnOnce(&mut Scope, Mono) -> R) -> R {
        act(&mut self.scope.write().unwrap_or_else(PoisonError::into_inner), self.clock.now())
    }

    async fn carry_out(&mut self) {
        while let Some(action) = self.with(|scope, _| scope.poll_action()) {
            match action {
                Action::Send { to, message } => self.send(&to, &message),
                Action::Monitor { monitor, target } => self.monitor(monitor, target).await,
                Action::Demonitor(monitor) => self.monitors.demonitor(&monitor, &mut self.process),
                // Nobody has to listen.
                Action::Changed { group, joined, left } => {
                    drop(self.changes.send(Change { group, joined, left }))
                }
                other => debug!(?other, "an action that this host does not know"),
            }
        }
    }

    fn send(&self, to: &To, message: &Term) {
        let sent = RawTerm::from_term(message)
            .map_err(Error::from)
            .and_then(|raw| self.process.send_now(self.dest(to), raw));
        // A lost connection says so through the monitors.
        if let Err(error) = sent {
            debug!(scope = self.name.as_str(), %error, "not sent");
        }
    }

    async fn monitor(&mut self, monitor: MonitorId, target: To) {
        let node = match &target {
            To::Pid(pid) => &pid.node,
            To::Scope(node) => node,
        };
        if !self.monitors.begin(monitor, node, self.dest(&target), &self.node, &self.process).await {
            self.with(|scope, now| scope.handle(now, Event::Down { monitor, noconnection: true }));
        }
    }

    fn dest(&self, to: &To) -> Dest {
        match to {
            To::Pid(pid) => Dest::from(pid),
            To::Scope(node) => Dest::from((self.name.clone(), node.clone())),
        }
    }
}
