//! What happens to a mesh, and what its host has to do.

use std::sync::Arc;
use std::time::Duration;

use foundation_proto::etf::{Atom, Map, Pid, Term};

use super::check::{Check, HealthCheck};
use super::load::Sample;
use super::service::{Health, Service};
use crate::names;

/// What happens to a mesh.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A connection to a node came up.
    NodeUp(Atom),
    /// The connection to a node is gone.
    NodeDown(Atom),
    /// A message arrived, calls included.
    Message {
        /// The message.
        message: Term,
        /// The time of the wall clock, in milliseconds since 1970: for registrations by a call.
        wall: i64,
        /// Any number: for choices by chance.
        random: u64,
    },
    /// A monitor fired.
    Down(names::MonitorId),
    /// Something that a program on this node wants; [`Action::Done`] follows.
    Command {
        /// A number for [`Action::Done`], not 0.
        command: u64,
        /// What.
        what: Command,
        /// The time of the wall clock, in milliseconds since 1970.
        wall: i64,
    },
    /// A check has ended.
    Probed {
        /// Which, as [`Action::Probe`] said.
        probe: u64,
        /// Whether the service is well.
        well: bool,
    },
    /// The load was measured, as [`Action::Measure`] asked.
    Measured {
        /// What was read; what could not be is left out.
        sample: Sample,
        /// The time of the wall clock, in milliseconds since 1970.
        wall: i64,
    },
}

/// A service to register.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Registration {
    /// Its name.
    pub name: Term,
    /// Its process: of this node, or of a node that has no mesh of its own.
    pub pid: Pid,
    /// What it can do, up to 256 of them.
    pub capabilities: Vec<Term>,
    /// What else is said of it.
    pub metadata: Map,
    /// How it is checked. If `None`, `health_check` of the metadata says it, as for callers on a BEAM.
    pub health_check: Option<HealthCheck>,
}

impl Registration {
    /// A service without capabilities and metadata.
    pub fn new(name: impl Into<Term>, pid: &Pid) -> Self {
        Self {
            name: name.into(),
            pid: pid.clone(),
            capabilities: Vec::new(),
            metadata: Map::new(),
            health_check: None,
        }
    }

    /// With these capabilities.
    #[must_use]
    pub fn capabilities(mut self, capabilities: impl IntoIterator<Item = Term>) -> Self {
        self.capabilities = capabilities.into_iter().collect();
        self
    }

    /// With these metadata. `weight` is for [`Strategy::Weighted`](super::Strategy::Weighted); `health`, if it is `degraded` or `unhealthy`, is the
    /// state to begin with.
    #[must_use]
    pub fn metadata(mut self, metadata: Map) -> Self {
        self.metadata = metadata;
        self
    }

    /// With a check.
    #[must_use]
    pub fn health_check(mut self, check: impl Into<HealthCheck>) -> Self {
        self.health_check = Some(check.into());
        self
    }
}

/// What a program wants.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Command {
    /// A process offers a service from now on, or with other capabilities and metadata than before.
    Register(Registration),
    /// It does not any more.
    Deregister {
        /// The service.
        name: Term,
        /// The process, registered on this node.
        pid: Pid,
    },
    /// A service is in this state, until a check or somebody else says otherwise.
    Mark {
        /// The service.
        name: Term,
        /// The process, registered on this node.
        pid: Pid,
        /// The state.
        health: Health,
    },
    /// Done when all members in reach have what was registered of a process on this node.
    WaitUntilAll {
        /// The service.
        name: Term,
        /// The process, registered on this node.
        pid: Pid,
        /// How long at most.
        timeout: Duration,
    },
}

/// What became of a command.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// It is done.
    Done,
    /// This node has registered no such process under the name.
    NotRegistered,
    /// The process is of a node that has a mesh itself: register it there.
    RemoteProcess,
    /// Nobody could carry out the health check, or the caller may not name code for another node.
    BadHealthCheck,
    /// Name, capabilities and metadata take too many bytes, or there are more than 256 capabilities.
    TooLarge,
    /// There is no room for more services, or for more callers that wait.
    SystemLimit,
    /// These nodes did not have it when the time was over.
    Timeout(Vec<Atom>),
}

/// What the host of a mesh has to do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// What the host of a registry does: send, answer, monitor, send exit signals. [`names::Action::Changed`] and
    /// [`names::Action::Done`] do not occur.
    Registry(names::Action),
    /// What is found has changed.
    Changed(Vec<Change>),
    /// A command is done.
    Done {
        /// Its number.
        command: u64,
        /// How.
        outcome: Outcome,
    },
    /// See how a service is, and hand in [`Event::Probed`].
    Probe {
        /// The number of this check.
        probe: u64,
        /// The service.
        service: Arc<Service>,
        /// What to ask.
        check: Check,
        /// For how long; the machine counts it as failed after that by itself.
        timeout: Duration,
    },
    /// Nobody waits for this check any more.
    Abandon(u64),
    /// A function of [`Check::Custom`] is not needed any more.
    Release(u64),
    /// A check has failed: to be logged as `Service health check failed`.
    CheckFailed {
        /// The service.
        service: Arc<Service>,
        /// How often in a row.
        consecutive_failures: u32,
        /// What is done: `retrying`, `marking_degraded`, `marking_unhealthy` or `deregistering`.
        action: &'static str,
    },
    /// A service that was marked is well again.
    CheckSucceededAgain(Arc<Service>),
    /// Read a [`Sample`] and hand in [`Event::Measured`].
    Measure,
}

/// What was found and is not any more, or the reverse.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// An instance is found.
    Registered(Arc<Service>),
    /// It was registered again, or by another node.
    Updated(Arc<Service>),
    /// Its health is another one.
    Health(Arc<Service>),
    /// It is found no more: it was deregistered, has ended, or its node is out of reach.
    Deregistered(Arc<Service>),
}
