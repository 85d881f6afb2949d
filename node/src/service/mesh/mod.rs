//! Services of the connected nodes: who offers what, how well they are, and who gets the next piece of work. The host of
//! [`foundation_cluster::mesh`].
//!
//! It works between our own nodes; programs on a BEAM call it as a `GenServer` under the name of the mesh
//! (docs/service-mesh.md). What is looked for filters; it does not authorize.
//!
//! ```no_run
//! # async fn example(node: foundation_node::Node) -> Result<(), Box<dyn std::error::Error>> {
//! use foundation_node::service::mesh::{HealthCheck, Query, Registration, Routing, Strategy};
//! use foundation_proto::etf::Term;
//!
//! let mesh = node.services()?;
//! let worker = node.process()?;
//! let payment = Registration::new(Term::atom("payment"), worker.pid()).capabilities([Term::atom("refunds")]);
//! mesh.register(payment).await?;
//! for service in mesh.discover(&Query::new().capability(Term::atom("refunds"))) {
//!     println!("{:?} on {}", service.pid, service.node().as_str());
//! }
//! let route = mesh.route(&Term::atom("payment"), &Routing::new(Strategy::RoundRobin))?;
//! // It counts as a connection until it is dropped.
//! node.process()?.send_term(route.pid(), &Term::atom("work")).await?;
//! # Ok(()) }
//! ```

mod host;
mod probe;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use foundation_cluster::mesh::{Command, Mesh as Machine, Outcome};
use foundation_proto::etf::{Atom, Pid, Term};
use serde::Serialize;
use tokio::sync::{broadcast, mpsc, oneshot};

pub use foundation_cluster::mesh::{
    Change, Check, Config, Constraints, Health, HealthCheck, Load, OnFailure, Query, Registration,
    RouteError, Routing, Rules, Service, Strategy,
};

use super::changes::Changes;
use super::channels::Resolver;
use super::registry::Waited;
use crate::error::{Error, Result};
use crate::net::Clock;
use crate::node::Node;
use crate::process::Handle;
use host::{Host, Request, What};
pub use probe::CheckFn;

/// The name of a node's mesh, unless another is asked for.
pub const NAME: &str = "foundation_services";

/// Commands that wait for the mesh before their callers do.
const COMMANDS: usize = 1024;

/// The mesh of one name on this node; cheap to clone.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// In whose name calls of [`Mesh::call`] are made.
    handle: Handle,
    shared: Arc<Shared>,
    commands: mpsc::Sender<Request>,
}

/// What readers and the host have in common.
#[derive(Debug)]
struct Shared {
    machine: RwLock<Machine>,
    clock: Clock,
    changes: broadcast::Sender<Change>,
}

/// What changes in a mesh, from the moment of [`Mesh::monitor`] on.
pub type Monitor = Changes<Change>;

/// Why a service was not registered.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RegisterError {
    /// The process is of another node that has a mesh: register it there.
    RemoteProcess(Atom),
    /// The process of this node has ended.
    ProcessDead(Pid),
    /// The `health_check` of the metadata is none that can be carried out.
    BadHealthCheck,
    /// Name, capabilities and metadata take more than `Config::names.max_bytes`, or there are more than 256 capabilities.
    TooLarge,
    /// The mesh has as many services as it may have.
    SystemLimit,
    /// The mesh has ended with its node.
    Ended,
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RemoteProcess(node) => {
                write!(f, "remote_process: {} has a mesh itself; register the process there", node.as_str())
            }
            Self::ProcessDead(pid) => write!(f, "process_dead: {pid:?} has ended"),
            Self::BadHealthCheck => f.write_str(
                "bad_health_check: neither alive, {call, Request}, a fun of one argument, {Module, Function, Args} nor one of these with rules",
            ),
            Self::TooLarge => f.write_str("too_large: name, capabilities and metadata take too many bytes"),
            Self::SystemLimit => f.write_str("system_limit: there is no room for more services"),
            Self::Ended => f.write_str("the mesh has ended with its node"),
        }
    }
}

impl core::error::Error for RegisterError {}

/// Why a call to a service has no answer.
#[derive(Clone, Debug)]
pub enum CallError {
    /// Nobody was chosen.
    Route(RouteError),
    /// The instance that was chosen did not answer.
    Call {
        /// Which.
        pid: Pid,
        /// Why.
        error: Error,
    },
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(error) => error.fmt(f),
            Self::Call { pid, error } => write!(f, "calling {pid:?}: {error}"),
        }
    }
}

impl core::error::Error for CallError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Route(error) => Some(error),
            Self::Call { error, .. } => Some(error),
        }
    }
}

/// An instance that was chosen. While this lives it counts as one of this node's connections to it
/// ([`Strategy::LeastConnections`]).
#[derive(Debug)]
pub struct Route {
    service: Arc<Service>,
    shared: Arc<Shared>,
}

impl Route {
    /// The instance.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Its process.
    pub fn pid(&self) -> &Pid {
        &self.service.pid
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        self.shared.write().end(&self.service.pid);
    }
}

impl Shared {
    fn read(&self) -> RwLockReadGuard<'_, Machine> {
        self.machine.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Machine> {
        self.machine.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mesh {
    /// Starts the mesh's process under its name.
    pub(super) fn start(node: &Node, name: &Atom, config: Config) -> Result<Self> {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let process = node.process()?;
        process.register(name.clone())?;
        let machine = Machine::new(name.clone(), process.pid().clone(), config);
        let shared = Arc::new(Shared {
            machine: RwLock::new(machine),
            clock: Clock::start(),
            changes: Changes::channel(),
        });
        let mesh = Self { handle: process.handle(), shared: Arc::clone(&shared), commands };
        node.inner().runtime.spawn(Host::new(node, process, shared, name.clone()).run(inbox));
        Ok(mesh)
    }

    /// The mesh's process.
    pub fn pid(&self) -> &Pid {
        self.handle.pid()
    }

    pub(super) fn is_running(&self) -> bool {
        !self.commands.is_closed()
    }

    /// Registers a process as an instance of a service, until it ends or is deregistered. When this returns, it is found here,
    /// and the other members are being told. The same name and process again replaces capabilities, metadata and check.
    ///
    /// The process is one of this node, or of a node without a mesh: then it is lost with either node.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub async fn register(&self, what: Registration) -> Result<(), RegisterError> {
        self.put(what, None).await
    }

    /// The same, and checks it with this function of the program.
    ///
    /// # Errors
    /// As [`Mesh::register`].
    pub async fn register_checked(
        &self,
        what: Registration,
        rules: Option<Rules>,
        check: impl CheckFn,
    ) -> Result<(), RegisterError> {
        self.put(what, Some((Arc::new(check), rules))).await
    }

    async fn put(&self, what: Registration, check: Option<host::Custom>) -> Result<(), RegisterError> {
        let pid = what.pid.clone();
        if pid.node == self.handle.pid().node && !self.handle.node().is_process_alive(&pid) {
            return Err(RegisterError::ProcessDead(pid));
        }
        match self.command(What::Register(what, check)).await.map_err(|_| RegisterError::Ended)? {
            Outcome::Done => Ok(()),
            Outcome::RemoteProcess => Err(RegisterError::RemoteProcess(pid.node)),
            Outcome::BadHealthCheck => Err(RegisterError::BadHealthCheck),
            Outcome::TooLarge => Err(RegisterError::TooLarge),
            _ => Err(RegisterError::SystemLimit),
        }
    }

    /// Ends the registration of a process that was registered on this node; `false` if it was not.
    ///
    /// # Errors
    /// [`Error::NoProc`] if the mesh has ended with its node.
    pub async fn deregister(&self, name: Term, pid: &Pid) -> Result<bool> {
        let what = Command::Deregister { name, pid: pid.clone() };
        Ok(self.command(What::Other(what)).await? == Outcome::Done)
    }

    /// Marks a service that was registered on this node, until a check or somebody else says otherwise; `false` if it was not
    /// registered.
    ///
    /// # Errors
    /// As [`Mesh::deregister`].
    pub async fn mark(&self, name: Term, pid: &Pid, health: Health) -> Result<bool> {
        let what = Command::Mark { name, pid: pid.clone(), health };
        Ok(self.command(What::Other(what)).await? == Outcome::Done)
    }

    /// Waits until all members that are connected have what was registered of a process on this node.
    ///
    /// # Errors
    /// [`Error::NoProc`] if it is not registered under the name on this node, or the mesh has ended;
    /// [`Error::SystemLimit`] if too many wait.
    pub async fn wait_until_all(&self, name: Term, pid: &Pid, timeout: Duration) -> Result<Waited> {
        match self.command(What::Other(Command::WaitUntilAll { name, pid: pid.clone(), timeout })).await? {
            Outcome::Done => Ok(Waited::Everywhere),
            Outcome::Timeout(nodes) => Ok(Waited::Lacking(nodes)),
            Outcome::SystemLimit => Err(Error::SystemLimit),
            _ => Err(Error::NoProc),
        }
    }

    async fn command(&self, what: What) -> Result<Outcome> {
        let (done, wait) = oneshot::channel();
        self.commands.send(Request { what, done }).await.map_err(|_| Error::NoProc)?;
        wait.await.map_err(|_| Error::NoProc)
    }

    /// The instances that meet all criteria, the one registered first in front.
    pub fn discover(&self, query: &Query) -> Vec<Arc<Service>> {
        // A function of the program may ask this mesh: it runs without the lock.
        let Some((query, wanted)) = query.split_health_check() else {
            return self.shared.read().discover(query);
        };
        let mut found = self.shared.read().discover(&query);
        found.retain(|service| wanted(service));
        found
    }

    /// How many instances are found.
    pub fn len(&self) -> usize {
        self.shared.read().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Chooses an instance of a service. It takes time in proportion to the number of its instances.
    ///
    /// # Errors
    /// [`RouteError`].
    pub fn route(&self, name: &Term, routing: &Routing) -> Result<Route, RouteError> {
        let random = if routing.strategy == Strategy::Random { host::random() } else { 0 };
        let chosen = |routing: &Routing| {
            let mut machine = self.shared.write();
            let service = machine.pick(name, routing, random)?;
            machine.begin(&service.pid);
            Ok(service)
        };
        let service = if routing.query.split_health_check().is_some() {
            let wanted = self.discover(&routing.query.clone().name(name.clone()));
            let pids: BTreeSet<Pid> = wanted.iter().map(|service| service.pid.clone()).collect();
            let query = routing.query.clone().health_check(move |service| pids.contains(&service.pid));
            chosen(&routing.clone().query(query))
        } else {
            chosen(routing)
        };
        service.map(|service| Route { service, shared: Arc::clone(&self.shared) })
    }

    /// Chooses an instance and calls it (`GenServer.call/3`), as `Foundation.LoadBalancer.route/3` does. It counts as a connection
    /// until the answer is there.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call(
        &self,
        name: &Term,
        request: impl Serialize,
        routing: &Routing,
        timeout: Duration,
    ) -> Result<Term, CallError> {
        let route = self.route(name, routing).map_err(CallError::Route)?;
        let answer = self.handle.call(route.pid(), request, timeout).await;
        answer.map_err(|error| CallError::Call { pid: route.pid().clone(), error })
    }

    /// How many connections of this node to a process there are.
    pub fn connections(&self, pid: &Pid) -> u32 {
        self.shared.read().connections(pid)
    }

    /// How busy the machines of the nodes in reach are, as far as they tell.
    pub fn loads(&self) -> BTreeMap<Atom, Load> {
        self.shared.read().loads().clone()
    }

    /// The other nodes that share this mesh and are in reach.
    pub fn members(&self) -> Vec<Atom> {
        self.shared.read().names().members().cloned().collect()
    }

    /// What was counted in the registry below.
    pub fn stats(&self) -> super::registry::Stats {
        self.shared.read().names().stats(self.shared.clock.now())
    }

    /// What is registered, deregistered and marked from now on, here and elsewhere.
    pub fn monitor(&self) -> Monitor {
        Changes::of(&self.shared.changes)
    }
}

/// Channels find services and capabilities in a mesh: `channels.set_resolver(Arc::new(mesh))`. A name is that of an atom or of a binary.
/// Unhealthy instances are left out.
impl Resolver for Mesh {
    fn service(&self, name: &str) -> Vec<Pid> {
        let mut found = self.discover(&Query::new().name(name));
        if let Ok(atom) = Atom::new(name) {
            found.extend(self.discover(&Query::new().name(Term::Atom(atom))));
        }
        found.retain(|service| service.health != Health::Unhealthy);
        found.iter().map(|service| service.pid.clone()).collect()
    }

    fn capability(&self, name: &str) -> Vec<Atom> {
        let mut found = self.discover(&Query::new().capability(name));
        if let Ok(atom) = Atom::new(name) {
            found.extend(self.discover(&Query::new().capability(Term::Atom(atom))));
        }
        found.retain(|service| service.health != Health::Unhealthy);
        let mut nodes: Vec<Atom> = found.iter().map(|service| service.node().clone()).collect();
        nodes.sort();
        nodes.dedup();
        nodes
    }
}
