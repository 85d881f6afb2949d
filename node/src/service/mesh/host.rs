//! The process of a mesh: it carries out what the machine decides.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};

use foundation_cluster::Machine as _;
use foundation_cluster::mesh::{
    Action, Change, Check, Command, Event, HealthCheck, Mesh as Machine, Outcome, Registration, Rules,
    Sample, Service,
};
use foundation_cluster::names::{self, MonitorId};
use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, Term};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tracing::{debug, info, warn};

use super::probe::{self, CheckFn};
use super::{COMMANDS, Shared};
use crate::event;
use crate::net_kernel::NodeType;
use crate::node::Node;
use crate::process::{Message, Process};
use crate::service;
use crate::service::channels::{Channel, Channels};
use crate::service::monitors::Monitors;

/// Registrations that wait to be broadcast; beyond this they are not.
const ANNOUNCEMENTS: usize = 1024;
/// Commands that are carried out together, so that the other nodes are told of them in one message.
const BATCH: usize = 256;

/// A check of the program, and its rules.
pub(super) type Custom = (Arc<dyn CheckFn>, Option<Rules>);

/// What a program wants.
#[derive(Debug)]
pub(super) enum What {
    Register(Registration, Option<Custom>),
    Other(Command),
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) what: What,
    pub(super) done: oneshot::Sender<Outcome>,
}

/// What a task of the host has found out.
enum Found {
    Probed { probe: u64, well: bool },
    Measured(Sample),
}

pub(super) struct Host {
    node: Node,
    process: Process,
    shared: Arc<Shared>,
    name: Atom,
    monitors: Monitors<MonitorId>,
    waiting: HashMap<u64, oneshot::Sender<Outcome>>,
    count: u64,
    /// The checks of the program, by the numbers that the machine knows.
    custom: HashMap<u64, Arc<dyn CheckFn>>,
    /// The checks under way.
    probes: BTreeMap<u64, AbortHandle>,
    found: (mpsc::Sender<Found>, mpsc::Receiver<Found>),
    announcements: mpsc::Sender<(Channels, Term)>,
}

impl Host {
    pub(super) fn new(node: &Node, process: Process, shared: Arc<Shared>, name: Atom) -> Self {
        let (announcements, announced) = mpsc::channel(ANNOUNCEMENTS);
        node.inner().runtime.spawn(announce(announced));
        Self {
            announcements,
            node: node.clone(),
            process,
            shared,
            name,
            monitors: Monitors::default(),
            waiting: HashMap::new(),
            count: 0,
            custom: HashMap::new(),
            probes: BTreeMap::new(),
            found: mpsc::channel(COMMANDS),
        }
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Request>) {
        // Listening before looking, so that no node is missed; one that is seen twice is greeted once more.
        let mut events = self.node.events();
        self.greet_all().await;
        let clock = self.shared.clock;
        loop {
            let timeout = self.shared.read().poll_timeout();
            tokio::select! {
                message = self.process.recv() => match message {
                    Ok(message) => self.message(message),
                    Err(_) => break,
                },
                event = events.next() => match event {
                    Some(event::Event::NodeUp { node, .. }) => self.handle(Event::NodeUp(node)),
                    Some(event::Event::NodeDown { node, .. }) => self.handle(Event::NodeDown(node)),
                    Some(event::Event::Missed(_)) => self.greet_all().await,
                    None => break,
                },
                Some(request) = inbox.recv() => {
                    self.request(request);
                    for _ in 1..BATCH {
                        let Ok(request) = inbox.try_recv() else { break };
                        self.request(request);
                    }
                },
                Some(found) = self.found.1.recv() => match found {
                    Found::Probed { probe, well } => {
                        self.probes.remove(&probe);
                        self.handle(Event::Probed { probe, well });
                    }
                    Found::Measured(sample) => self.handle(Event::Measured { sample, wall: service::wall() }),
                },
                () = clock.sleep_until(timeout.unwrap_or(Mono(i64::MAX))), if timeout.is_some() => {
                    self.with(|mesh, now| mesh.handle_timeout(now));
                },
            }
            self.carry_out().await;
        }
        self.probes.values().for_each(AbortHandle::abort);
    }

    async fn greet_all(&mut self) {
        for node in self.node.inner().net_kernel.nodes(NodeType::Connected) {
            self.handle(Event::NodeUp(node));
        }
        self.carry_out().await;
    }

    fn request(&mut self, request: Request) {
        self.count += 1;
        let what = match request.what {
            What::Other(command) => command,
            What::Register(registration, None) => Command::Register(registration),
            What::Register(registration, Some((check, rules))) => {
                self.custom.insert(self.count, check);
                let check = HealthCheck { check: Check::Custom(self.count), rules };
                Command::Register(registration.health_check(check))
            }
        };
        self.waiting.insert(self.count, request.done);
        self.handle(Event::Command { command: self.count, what, wall: service::wall() });
    }

    fn message(&mut self, message: Message) {
        let event = match message {
            Message::Term(raw) => match raw.to_term(self.node.inner().limits()) {
                Ok(message) => Event::Message { message, wall: service::wall(), random: random() },
                Err(error) => return warn!(%error, "a message to a mesh was dropped"),
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
        self.with(|mesh, now| mesh.handle(now, event));
    }

    fn with<R>(&self, act: impl FnOnce(&mut Machine, Mono) -> R) -> R {
        act(&mut self.shared.write(), self.shared.clock.now())
    }

    async fn carry_out(&mut self) {
        while let Some(action) = self.with(|mesh, _| mesh.poll_action()) {
            match action {
                Action::Registry(action) => self.registry(action).await,
                Action::Changed(changes) => {
                    for change in changes {
                        self.log(&change);
                        // Nobody has to listen.
                        let _ = self.shared.changes.send(change);
                    }
                }
                Action::Done { command, outcome } => {
                    if outcome != Outcome::Done {
                        // A check that was not taken in; what was is released by the machine.
                        self.custom.remove(&command);
                    }
                    if let Some(done) = self.waiting.remove(&command) {
                        // Whoever asked may have gone.
                        let _ = done.send(outcome);
                    }
                }
                Action::Probe { probe, service, check, timeout } => {
                    let custom = match &check {
                        Check::Custom(number) => self.custom.get(number).cloned(),
                        _ => None,
                    };
                    let (handle, found) = (self.process.handle(), self.found.0.clone());
                    let task = self.node.inner().runtime.spawn(async move {
                        let well = probe::well(handle, service, check, custom, timeout).await;
                        // The mesh may have ended.
                        let _ = found.send(Found::Probed { probe, well }).await;
                    });
                    self.probes.insert(probe, task.abort_handle());
                }
                Action::Abandon(probe) => {
                    if let Some(task) = self.probes.remove(&probe) {
                        task.abort();
                    }
                }
                Action::Release(number) => {
                    self.custom.remove(&number);
                }
                Action::CheckFailed { service, consecutive_failures, action } => {
                    let Service { name, .. } = &*service;
                    let node = service.node().as_str();
                    warn!(service = ?name, node, pid = ?service.pid, consecutive_failures, action, "Service health check failed");
                }
                Action::CheckSucceededAgain(service) => {
                    let node = service.node().as_str();
                    info!(service = ?service.name, node, pid = ?service.pid, "Service health check succeeded again");
                }
                Action::Measure => {
                    let found = self.found.0.clone();
                    self.node.inner().runtime.spawn(async move {
                        // The mesh may have ended.
                        let _ = found.send(Found::Measured(probe::measure().await)).await;
                    });
                }
                other => debug!(?other, "an action that this host does not know"),
            }
        }
    }

    /// The events of the services that this node has registered. Each node tells its own.
    fn log(&self, change: &Change) {
        let own = |service: &Service| service.registrar == *self.node.name();
        match change {
            Change::Registered(service) | Change::Updated(service) if own(service) => {
                info!(name = ?service.name, node = service.node().as_str(), pid = ?service.pid, "service registered");
                self.announce(service);
            }
            Change::Deregistered(service) if own(service) => {
                info!(name = ?service.name, node = service.node().as_str(), pid = ?service.pid, "service deregistered");
            }
            _ => {}
        }
    }

    /// Tells the subscribers of the channel `events`, if the program uses channels.
    fn announce(&self, service: &Service) {
        let channels = &self.node.inner().services.channels;
        let channels = channels.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(channels) = channels.filter(Channels::is_running) else { return };
        let message = Term::from((Term::atom("service_registered"), service.name.clone(), service.info()));
        if self.announcements.try_send((channels, message)).is_err() {
            warn!(name = ?service.name, "a registration is not broadcast: too many wait");
        }
    }

    async fn registry(&mut self, action: names::Action) {
        match action {
            names::Action::Send { to, message } => service::send(&self.process, &self.name, to, &message),
            names::Action::Reply { from, reply } => service::reply(&self.process, &from, &reply),
            names::Action::Monitor { monitor, pid } => self.monitor(monitor, &pid).await,
            names::Action::Demonitor(monitor) => self.monitors.demonitor(&monitor, &mut self.process),
            other => debug!(?other, "an action that this host does not know"),
        }
    }

    async fn monitor(&mut self, monitor: MonitorId, pid: &Pid) {
        if !self.monitors.begin(monitor, &pid.node, pid, &self.node, &self.process).await {
            self.handle(Event::Down(monitor));
        }
    }
}

/// Broadcasts registrations, one after the other, so that a slow channel does not hold up the mesh.
async fn announce(mut announced: mpsc::Receiver<(Channels, Term)>) {
    while let Some((channels, message)) = announced.recv().await {
        if let Err(error) = channels.broadcast(Channel::Events, &message).await {
            debug!(%error, "a registration was not broadcast");
        }
    }
}

/// For choices by chance, which are no secret: without a random source it is always the first.
pub(super) fn random() -> u64 {
    crate::random::bits32().map_or(0, u64::from)
}
