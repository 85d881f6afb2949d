//! The handle that everything starts from.

use core::ops::Deref;
use core::time::Duration;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use foundation_proto::Limits;
use foundation_proto::etf::{Atom, Pid};
use tokio::runtime;

use crate::config::NodeConfig;
use crate::error::{Error, Result};
use crate::event::{Events, Publisher};
use crate::io::Output;
use crate::net::Link;
use crate::net_kernel::NetKernel;
use crate::process::{Dest, Handle, Ids, MailboxLimit, Names, Proc, Process, ProcessTable, SpawnOptions};
use crate::rpc::{Exports, Statistics};
use crate::service::Services;

/// A running node; cheap to clone, usable from any task.
///
/// Through [`Deref`] it sends, calls and spawns in its own name, as a process that never ends and receives nothing:
/// `node.call(("counter", "app@host"), …)`. What has to be received, linked or monitored needs a [`Process`].
#[derive(Clone, Debug)]
pub struct Node {
    inner: Arc<NodeInner>,
    handle: Handle,
}

/// What the tasks of one node share.
#[derive(Debug)]
pub struct NodeInner {
    pub(crate) config: NodeConfig,
    /// The name that peers know this node by.
    pub(crate) name: Atom,
    /// This incarnation of the name, as the port mapper gave it.
    pub(crate) creation: u32,
    pub(crate) net_kernel: NetKernel,
    pub(crate) ids: Ids,
    pub(crate) processes: ProcessTable,
    pub(crate) names: Names,
    pub(crate) exports: Exports,
    pub(crate) events: Publisher,
    pub(crate) output: Output,
    pub(crate) runtime: runtime::Handle,
    pub(crate) services: Services,
    pub(crate) discovery: crate::discovery::engine::Slot,
    pub(crate) statistics: Statistics,
    pub(crate) mailbox_limit: MailboxLimit,
    pub(crate) process_limit: usize,
    /// The process in whose name the node itself acts.
    system: OnceLock<Arc<Proc>>,
    /// Who prints for processes that were not given anybody else.
    group_leader: RwLock<Option<Pid>>,
}

/// How long a ping waits for an answer, connecting included; OTP's waits for ever.
const PING_TIMEOUT: Duration = Duration::from_secs(15);

impl NodeInner {
    /// A node without connections, on the current tokio runtime.
    pub(crate) fn new(config: NodeConfig, name: Atom, creation: u32, net_kernel: NetKernel) -> Arc<Self> {
        let mut mailbox_limit = MailboxLimit::DEFAULT;
        mailbox_limit.messages = config.limits.mailbox_messages;
        mailbox_limit.bytes = config.limits.mailbox_bytes;
        let node = Arc::new(Self {
            ids: Ids::new(name.clone(), creation, config.wide_identifiers),
            process_limit: config.limits.processes,
            config,
            name,
            creation,
            net_kernel,
            processes: ProcessTable::new(),
            names: Names::new(),
            exports: Exports::default(),
            events: Publisher::new(),
            output: Output::default(),
            statistics: Statistics::new(&runtime::Handle::current()),
            runtime: runtime::Handle::current(),
            services: Services::default(),
            discovery: crate::discovery::engine::Slot::default(),
            mailbox_limit,
            system: OnceLock::new(),
            group_leader: RwLock::new(None),
        });
        node.start_system();
        node
    }

    /// Starts what every node has: the process it acts as itself, then those that others ask for.
    fn start_system(self: &Arc<Self>) {
        let system = self.system();
        self.set_default_group_leader(system.pid.clone());
        crate::kernel_sup::start(self);
    }

    /// The process in whose name the node itself acts.
    pub(crate) fn system(self: &Arc<Self>) -> Arc<Proc> {
        let system = self.system.get_or_init(|| {
            let number = self.ids.next_number();
            let system = Arc::new(Proc::system(self.ids.pid(number), number));
            // The first process of the table cannot find its number taken.
            let _ = self.processes.insert(Arc::clone(&system));
            system
        });
        Arc::clone(system)
    }

    pub(crate) fn default_group_leader(&self) -> Pid {
        let leader = self.group_leader.read().unwrap_or_else(PoisonError::into_inner).clone();
        // Only the very first process is made before there is any.
        leader.unwrap_or_else(|| self.ids.pid(0))
    }

    pub(crate) fn set_default_group_leader(&self, leader: Pid) {
        if let Some(system) = self.system.get() {
            system.state().group_leader = leader.clone();
        }
        *self.group_leader.write().unwrap_or_else(PoisonError::into_inner) = Some(leader);
    }

    /// The handle of a process of this node.
    pub(crate) fn handle(self: &Arc<Self>, proc: &Arc<Proc>) -> Handle {
        Handle { node: Arc::clone(self), proc: Arc::clone(proc) }
    }

    /// A process of this node, if it lives and is of this incarnation.
    pub(crate) fn process(&self, pid: &Pid) -> Option<Arc<Proc>> {
        self.processes.get(self.ids.number(pid)?)
    }

    /// The node that a destination is on; `None` if it is this one.
    #[inline]
    pub(crate) fn remote_node<'a>(&self, to: &'a Dest) -> Option<&'a Atom> {
        let node = match to {
            Dest::Pid(pid) => &pid.node,
            Dest::Remote { node, .. } => node,
            Dest::Alias(alias) => &alias.node,
            Dest::Name(_) | Dest::Nobody => return None,
        };
        (*node != self.name).then_some(node)
    }

    /// The connection to a node, made if there is none.
    pub(crate) async fn connection(&self, node: &Atom) -> Result<Arc<Link>> {
        if let Some(link) = self.net_kernel.link(node) {
            return Ok(link);
        }
        self.net_kernel
            .auto_connect(node)
            .await
            .map_err(|error| Error::NoConnection { node: node.clone(), why: Some(error.to_string()) })
    }

    /// What a term may be that this node decodes.
    pub(crate) fn limits(&self) -> &Limits {
        &self.config.limits.wire
    }
}

impl Node {
    pub(crate) fn inner(&self) -> &Arc<NodeInner> {
        &self.inner
    }

    pub(crate) fn from_inner(inner: Arc<NodeInner>) -> Self {
        let handle = inner.handle(&inner.system());
        Self { inner, handle }
    }

    /// The name that peers know this node by.
    pub fn name(&self) -> &Atom {
        &self.inner.name
    }

    /// The configuration it was started with.
    pub fn config(&self) -> &NodeConfig {
        &self.inner.config
    }

    /// Which incarnation of the name this is.
    pub fn creation(&self) -> u32 {
        self.inner.creation
    }

    /// A process that whoever holds it receives from; dropping it ends it.
    ///
    /// # Errors
    /// [`Error::SystemLimit`].
    pub fn process(&self) -> Result<Process> {
        self.process_opt(&SpawnOptions::default())
    }

    /// The same with options.
    ///
    /// # Errors
    /// [`Error::SystemLimit`].
    pub fn process_opt(&self, options: &SpawnOptions) -> Result<Process> {
        let proc = self.inner.new_proc(None, options)?;
        Ok(Process::new(Arc::clone(&self.inner), proc))
    }

    /// A process with a registered name, for others to send to.
    ///
    /// # Errors
    /// [`Error::NameTaken`], [`Error::SystemLimit`].
    pub fn mailbox(&self, name: &str) -> Result<Process> {
        let process = self.process()?;
        process.register(atom(name)?)?;
        Ok(process)
    }

    /// The process that has this name on this node.
    pub fn whereis(&self, name: &str) -> Option<Pid> {
        Some(self.inner.names.whereis(&Atom::new(name).ok()?)?.pid.clone())
    }

    /// All names that processes of this node have, in Erlang's order.
    pub fn registered(&self) -> Vec<Atom> {
        self.inner.names.all()
    }

    /// The processes of this node.
    pub fn processes(&self) -> Vec<Pid> {
        self.inner.processes.all().into_iter().map(|proc| proc.pid.clone()).collect()
    }

    /// Whether a process of this node lives.
    pub fn is_process_alive(&self, pid: &Pid) -> bool {
        self.inner.process(pid).is_some_and(|proc| proc.exit_reason().is_none())
    }

    /// Whether a node can be reached and shares the cookie (`net_adm:ping/1`); connects to it if need be.
    pub async fn ping(&self, node: &str) -> bool {
        let Ok(node) = Atom::new(node) else { return false };
        let request = (Atom::new_static("is_auth"), self.name());
        let answer = self.call((Atom::new_static("net_kernel"), node), request, PING_TIMEOUT).await;
        answer.is_ok_and(|answer| answer.is_atom("yes"))
    }

    /// Nodes that come and go from now on.
    pub fn events(&self) -> Events {
        self.inner.events.subscribe()
    }
}

impl Deref for Node {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

/// A name of the caller's as an atom.
pub(crate) fn atom(text: &str) -> Result<Atom> {
    Atom::new(text)
        .map_err(|_| Error::Term(foundation_proto::Error::ApiMisuse("an atom has at most 255 characters")))
}
