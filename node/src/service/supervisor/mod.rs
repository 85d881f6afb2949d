//! Children that run once in the cluster, once on each node, or in so many parts, wherever there is a node for them: the host of
//! [`foundation_cluster::supervisor`].
//!
//! Each node that is to run a child registers a factory for it. A child is started through any node, and is started again on
//! another one when its node is lost.
//!
//! ```no_run
//! # async fn example(node: foundation_node::Node) -> Result<(), Box<dyn std::error::Error>> {
//! use foundation_node::process::Reason;
//! use foundation_node::service::supervisor::{ChildSpec, Config};
//! use foundation_proto::etf::{Atom, Term};
//!
//! let jobs = node.supervisor("jobs", Config::default())?;
//! jobs.factory("counter", |start, mut process| async move {
//!     let mut count = start.take_state().and_then(|state| state.as_i64()).unwrap_or(0);
//!     loop {
//!         tokio::select! {
//!             message = process.recv() => match message {
//!                 Ok(_) => count += 1,
//!                 Err(_) => return Reason::NORMAL,
//!             },
//!             // The node leaves, or the child is migrated: the next one goes on with this.
//!             () = start.leaving() => return start.hand_off(count),
//!         }
//!     }
//! })
//! .await?;
//! let pid = jobs.start_singleton(ChildSpec::new("counter", Atom::new_static("counter"))).await?;
//! assert_eq!(jobs.lookup_singleton(&Term::from("counter")), Some(pid));
//! # Ok(())
//! # }
//! ```
//!
//! The supervisor's process has its name, so that programs on a BEAM node call it as a `GenServer`: docs/supervisor.md has the requests.

mod child;
mod host;

use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};

use foundation_cluster::supervisor::{Command, Outcome, Supervisor as Machine};
use foundation_proto::etf::{Atom, Pid, Term};
use tokio::sync::{broadcast, mpsc, oneshot};

pub use child::Start;
pub use foundation_cluster::supervisor::{
    ChildSpec, Config, Kind, Part, Place, Placement, Report, Requirement, Restart, StartId, Stats, Status,
};

use super::changes::Changes;
use crate::error::Result;
use crate::net::Clock;
use crate::node::Node;
use crate::process::{Outcome as ProcessOutcome, Process};
use child::NewFactory;
use host::Host;

/// Requests that wait for the supervisor before their callers do.
const REQUESTS: usize = 1024;

/// A supervisor of this node; cheap to clone. Reading waits for nobody.
#[derive(Clone, Debug)]
pub struct Supervisor {
    pid: Pid,
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    reports: broadcast::Sender<Report>,
}

/// What the supervisor, its process and its children have in common.
#[derive(Debug)]
pub(super) struct Shared {
    machine: RwLock<Machine>,
    clock: Clock,
}

impl Shared {
    fn may_act(&self, start: StartId) -> bool {
        let machine = self.machine.read().unwrap_or_else(PoisonError::into_inner);
        machine.may_act(self.clock.now(), start)
    }
}

/// What the supervisor's process is asked for.
enum Request {
    Factory { factory: NewFactory, done: oneshot::Sender<Result<()>> },
    Command { what: Command, done: oneshot::Sender<Outcome> },
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Refused {
    /// There is such a child; these of its processes run.
    AlreadyStarted(Vec<(Part, Pid)>),
    /// There is no such child, or it ended meanwhile.
    NotFound,
    /// No node in reach has the factory. Register it there, or connect to a node that has it.
    NoFactory,
    /// The child needs a majority, and [`Config::members`] is empty.
    NoMembers,
    /// The node is not in reach, leaves, or lacks the factory; or it did not take the child, which goes on where it was.
    NoSuchNode,
    /// The child was started too often in too short a time; this is why it ended the last time. [`Supervisor::restart_child`] tries again.
    GivenUp(Term),
    /// It was not done in [`Config::wait`]. What was asked for still counts.
    Timeout,
    /// The specification makes no sense, or is larger than [`Config::max_bytes`].
    BadSpec,
    /// There are too many children ([`Config::max_children`]) or callers.
    SystemLimit,
    /// The supervisor has ended with its node.
    NoProc,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AlreadyStarted(pids) => write!(f, "there is such a child, with {} processes", pids.len()),
            Self::NotFound => f.write_str("there is no such child"),
            Self::NoFactory => f.write_str("no node in reach has the factory"),
            Self::NoMembers => f.write_str("the child needs a majority, and no members are configured"),
            Self::NoSuchNode => f.write_str("the node is not in reach, leaves, or cannot take the child"),
            Self::GivenUp(reason) => write!(f, "the child ended too often, the last time with {reason:?}"),
            Self::Timeout => f.write_str("it was not done in time; it still counts"),
            Self::BadSpec => f.write_str("the specification makes no sense, or is too large"),
            Self::SystemLimit => f.write_str("there are too many children or callers"),
            Self::NoProc => f.write_str("the supervisor has ended with its node"),
        }
    }
}

impl std::error::Error for Refused {}

/// How many children there are, and how many of them run (`Supervisor.count_children/1`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Specifications.
    pub specs: usize,
    /// Processes that run, on all nodes in reach.
    pub active: usize,
}

impl Supervisor {
    /// Starts the supervisor's process under its name.
    pub(super) fn start(node: &Node, name: &Atom, config: Config) -> Result<Self> {
        let (requests, inbox) = mpsc::channel(REQUESTS);
        let process = node.process()?;
        process.register(name.clone())?;
        let pid = process.pid().clone();
        let clock = Clock::start();
        // Without a random source attempts to get leases are less spread, which is no reason not to start.
        let random = crate::random::bits32().map_or(u64::from(pid.creation), u64::from);
        let wall = super::wall();
        let machine = Machine::new(clock.now(), wall, name.clone(), pid.clone(), config, random << 1 | 1);
        let shared = Arc::new(Shared { machine: RwLock::new(machine), clock });
        let reports = Changes::channel();
        let host = Host::new(node.clone(), process, name.clone(), Arc::clone(&shared), reports.clone());
        node.inner().runtime.spawn(host.run(inbox));
        Ok(Self { pid, shared, requests, reports })
    }

    /// The supervisor's process.
    pub fn pid(&self) -> &Pid {
        &self.pid
    }

    pub(super) fn is_running(&self) -> bool {
        !self.requests.is_closed()
    }

    /// Lets this node make children of a kind: the function runs as the child's process, with what the child is started with. When
    /// this returns, children of that kind may be started here. A name is given once; the same function has to be meant by it on all
    /// nodes.
    ///
    /// # Errors
    /// [`Error::NameTaken`](crate::Error::NameTaken) if there is such a factory;
    /// [`Error::SystemLimit`](crate::Error::SystemLimit) beyond 240 of them; [`Error::NoProc`](crate::Error::NoProc) if the
    /// supervisor has ended with its node; if the name is no atom.
    pub async fn factory<F, R>(&self, name: &str, make: F) -> Result<()>
    where
        F: Fn(Start, Process) -> R + Send + Sync + 'static,
        R: Future<Output: ProcessOutcome> + Send + 'static,
    {
        let name = crate::node::atom(name)?;
        let factory = NewFactory { name, make: child::factory(make) };
        let (done, wait) = oneshot::channel();
        let request = Request::Factory { factory, done };
        self.requests.send(request).await.map_err(|_| crate::Error::NoProc)?;
        wait.await.map_err(|_| crate::Error::NoProc)?
    }

    /// Starts a child that runs once in the cluster; returns when it runs, wherever that is.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn start_singleton(&self, spec: ChildSpec) -> Result<Pid, Refused> {
        let mut pids = self.start_kind(spec, Kind::Singleton).await?;
        pids.pop().map(|(_, pid)| pid).ok_or(Refused::NotFound)
    }

    /// Starts a child that runs once on each node that has its factory, and on each that gets it later; returns when it runs
    /// on all that are in reach.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn start_replicated(&self, spec: ChildSpec) -> Result<Vec<(Part, Pid)>, Refused> {
        self.start_kind(spec, Kind::Replicated).await
    }

    /// Starts so many parts of a child, each of which runs once in the cluster; returns when all of them run.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn start_partitioned(
        &self,
        spec: ChildSpec,
        partitions: u32,
    ) -> Result<Vec<(Part, Pid)>, Refused> {
        self.start_kind(spec, Kind::Partitioned(partitions)).await
    }

    async fn start_kind(&self, mut spec: ChildSpec, kind: Kind) -> Result<Vec<(Part, Pid)>, Refused> {
        spec.kind = kind;
        match self.command(Command::StartChild(Box::new(spec))).await? {
            Outcome::Started(pids) => Ok(pids),
            other => Err(refused(other)),
        }
    }

    /// Ends a child and forgets its specification everywhere; returns when nothing of it is left on the nodes in reach.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn terminate_child(&self, id: &Term) -> Result<(), Refused> {
        self.done(Command::TerminateChild(id.clone())).await
    }

    /// Tries again what was given up.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn restart_child(&self, id: &Term) -> Result<(), Refused> {
        self.done(Command::RestartChild(id.clone())).await
    }

    /// Moves a singleton to another node: it ends where it is, and goes on there with the state that it leaves
    /// ([`Start::hand_off`]). Without one, whatever it has in memory is lost. If that node does not take it, it goes on
    /// where it was.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn migrate(&self, id: &Term, to: &Atom) -> Result<(), Refused> {
        self.migrate_part(id, Part::Only, to).await
    }

    /// The same for a part of a child.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn migrate_part(&self, id: &Term, part: Part, to: &Atom) -> Result<(), Refused> {
        self.done(Command::Migrate { id: id.clone(), part, to: to.clone() }).await
    }

    /// Leaves gracefully: the children of this node go to others with the states that they leave, and no more are started here. Returns
    /// when none is left. To be called before the node stops.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn drain(&self) -> Result<(), Refused> {
        self.done(Command::Drain).await
    }

    async fn done(&self, what: Command) -> Result<(), Refused> {
        match self.command(what).await? {
            Outcome::Done => Ok(()),
            other => Err(refused(other)),
        }
    }

    async fn command(&self, what: Command) -> Result<Outcome, Refused> {
        let (done, wait) = oneshot::channel();
        self.requests.send(Request::Command { what, done }).await.map_err(|_| Refused::NoProc)?;
        wait.await.map_err(|_| Refused::NoProc)
    }

    /// The process of a singleton, if it runs on a node in reach.
    pub fn lookup_singleton(&self, id: &Term) -> Option<Pid> {
        self.lookup(id, &Part::Only)?.pid
    }

    /// Where a process of a child is, and what it does.
    pub fn lookup(&self, id: &Term, part: &Part) -> Option<Place> {
        self.read(|machine| machine.lookup(id, part))
    }

    /// All processes of children on the nodes in reach, in the order of ids and parts.
    pub fn which_children(&self) -> Vec<Place> {
        self.read(Machine::places)
    }

    /// How many children there are.
    pub fn count_children(&self) -> Counts {
        self.read(|machine| Counts {
            specs: machine.specs().count(),
            active: machine.places().iter().filter(|place| place.pid.is_some()).count(),
        })
    }

    /// The specification of a child.
    pub fn get_childspec(&self, id: &Term) -> Option<ChildSpec> {
        self.read(|machine| machine.spec(id).map(|spec| ChildSpec::clone(spec)))
    }

    /// The nodes in reach that have this supervisor, this one included, without those that leave.
    pub fn members(&self) -> Vec<Atom> {
        self.read(|machine| {
            machine.members().filter(|(_, leaving)| !leaving).map(|(node, _)| node.clone()).collect()
        })
    }

    /// What was counted since the start.
    pub fn stats(&self) -> Stats {
        self.read(Machine::stats)
    }

    /// What happens to children of this node from now on.
    pub fn monitor(&self) -> Changes<Report> {
        Changes::of(&self.reports)
    }

    fn read<R>(&self, look: impl FnOnce(&Machine) -> R) -> R {
        look(&self.shared.machine.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn refused(outcome: Outcome) -> Refused {
    match outcome {
        Outcome::AlreadyStarted(pids) => Refused::AlreadyStarted(pids),
        Outcome::NoFactory => Refused::NoFactory,
        Outcome::NoMembers => Refused::NoMembers,
        Outcome::NoSuchNode => Refused::NoSuchNode,
        Outcome::GivenUp(reason) => Refused::GivenUp(reason),
        Outcome::Timeout => Refused::Timeout,
        Outcome::BadSpec => Refused::BadSpec,
        Outcome::SystemLimit => Refused::SystemLimit,
        _ => Refused::NotFound,
    }
}
