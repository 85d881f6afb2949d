//! The supervisor's process: it runs the machine, and the children that the machine starts and stops.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};

use foundation_cluster::Machine as _;
use foundation_cluster::supervisor::{
    Action, ChildSpec, Event, MAX_FACTORIES, MonitorId, Outcome, Part, Report, StartId, Stop,
    Supervisor as Machine,
};
use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, Reference, Term};
use tokio::sync::{broadcast, mpsc, oneshot};
use tracing::{debug, info, warn};

use super::child::{Child, Factory, Guard, Link, Start};
use super::{Request, Shared};
use crate::error::Error;
use crate::event;
use crate::net_kernel::NodeType;
use crate::node::Node;
use crate::process::{Down, Message, Process, Reason};
use crate::service;
use crate::service::monitors::Monitors;

pub(super) struct Host {
    node: Node,
    process: Process,
    name: Atom,
    shared: Arc<Shared>,
    reports: broadcast::Sender<Report>,
    monitors: Monitors<MonitorId>,
    factories: HashMap<Atom, Factory>,
    children: BTreeMap<StartId, Child>,
    /// The children by their monitors.
    watched: HashMap<Reference, StartId>,
    gone: mpsc::UnboundedSender<StartId>,
    gones: mpsc::UnboundedReceiver<StartId>,
    waiting: HashMap<u64, oneshot::Sender<Outcome>>,
    count: u64,
}

impl Host {
    pub(super) fn new(
        node: Node,
        process: Process,
        name: Atom,
        shared: Arc<Shared>,
        reports: broadcast::Sender<Report>,
    ) -> Self {
        let (gone, gones) = mpsc::unbounded_channel();
        Self {
            node,
            process,
            name,
            shared,
            reports,
            monitors: Monitors::default(),
            factories: HashMap::new(),
            children: BTreeMap::new(),
            watched: HashMap::new(),
            gone,
            gones,
            waiting: HashMap::new(),
            count: 0,
        }
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Request>) {
        self.serve(&mut inbox).await;
        // Whatever ended the supervisor ends its children.
        for child in self.children.values() {
            child.handle.stop(Reason::SHUTDOWN);
        }
    }

    async fn serve(&mut self, inbox: &mut mpsc::Receiver<Request>) {
        // Listening before looking, so that no node is missed; one that is seen twice is greeted once more.
        let mut events = self.node.events();
        self.greet_all().await;
        let clock = self.shared.clock;
        loop {
            let timeout = self.shared.machine.read().unwrap_or_else(PoisonError::into_inner).poll_timeout();
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
                Some(start) = self.gones.recv() => self.gone(start),
                Some(request) = inbox.recv() => self.request(request),
                () = clock.sleep_until(timeout.unwrap_or(Mono(i64::MAX))), if timeout.is_some() => {
                    self.with(|machine, now| machine.handle_timeout(now));
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
        match request {
            Request::Factory { factory, done } => {
                let result = if self.factories.contains_key(&factory.name) {
                    Err(Error::NameTaken(factory.name))
                } else if self.factories.len() >= MAX_FACTORIES {
                    Err(Error::SystemLimit)
                } else {
                    self.factories.insert(factory.name.clone(), factory.make);
                    self.handle(Event::Factory(factory.name));
                    Ok(())
                };
                // Whoever asked may have gone.
                let _ = done.send(result);
            }
            Request::Command { what, done } => {
                self.count += 1;
                self.waiting.insert(self.count, done);
                self.handle(Event::Command { command: self.count, what, wall: service::wall() });
            }
        }
    }

    fn message(&mut self, message: Message) {
        let event = match message {
            Message::Term(raw) => match raw.to_term(self.node.inner().limits()) {
                Ok(message) => Event::Message { message, wall: service::wall() },
                Err(error) => return warn!(%error, "a message to a supervisor was dropped"),
            },
            Message::Down(down) => {
                if let Some(start) = self.watched.remove(&down.reference) {
                    return self.down(start, *down);
                }
                let Some(monitor) = self.monitors.fired(&down.reference) else { return };
                Event::Down(monitor)
            }
            Message::Exit(_) => return,
        };
        self.handle(event);
    }

    fn handle(&self, event: Event) {
        self.with(|machine, now| machine.handle(now, event));
    }

    fn with<R>(&self, act: impl FnOnce(&mut Machine, Mono) -> R) -> R {
        // The time is taken under the lock: it must not go back between two events.
        let mut machine = self.shared.machine.write().unwrap_or_else(PoisonError::into_inner);
        act(&mut machine, self.shared.clock.now())
    }

    async fn carry_out(&mut self) {
        while let Some(action) = self.with(|machine, _| machine.poll_action()) {
            match action {
                Action::Send { to, message } => service::send(&self.process, &self.name, to, &message),
                Action::Reply { from, reply } => service::reply(&self.process, &from, &reply),
                Action::Monitor { monitor, pid } => self.monitor(monitor, &pid).await,
                Action::Demonitor(monitor) => self.monitors.demonitor(&monitor, &mut self.process),
                Action::Start { start, spec, part, state } => self.start(start, spec, part, state),
                Action::Stop { start, how } => self.stop(start, how).await,
                Action::Report(report) => self.report(report),
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

    // -- children ------------------------------------------------------------------------------------------------------

    fn start(&mut self, start: StartId, spec: Arc<ChildSpec>, part: Part, state: Option<Term>) {
        let failed = |reason: &'static str| Event::Ended { start, reason: Term::atom(reason), state: None };
        let Some(make) = self.factories.get(&spec.factory).cloned() else {
            return self.handle(failed("no_factory"));
        };
        let link = Arc::new(Link::new(state));
        let guard = Guard(start, self.gone.clone());
        let shared = Arc::clone(&self.shared);
        let begin = Start { id: start, spec, part, link: Arc::clone(&link), shared };
        let spawned = self.process.spawn_monitor(move |process| {
            let body = make(begin, process);
            async move {
                let _guard = guard;
                body.await
            }
        });
        match spawned {
            Ok((handle, monitor)) => {
                let pid = handle.pid().clone();
                self.watched.insert(monitor.clone(), start);
                let child = Child { handle, monitor, link, reason: None, gone: false };
                self.children.insert(start, child);
                self.handle(Event::Started { start, pid });
            }
            Err(error) => {
                warn!(%error, "a child could not be started");
                self.handle(failed("system_limit"));
            }
        }
    }

    async fn stop(&mut self, start: StartId, how: Stop) {
        let Some(child) = self.children.get(&start) else { return };
        let pid = child.handle.pid().clone();
        match how {
            Stop::HandOff if child.link.ask() => {}
            Stop::HandOff | Stop::Shutdown => self.process.exit(&pid, Reason::SHUTDOWN).await,
            Stop::Kill => child.handle.stop(Reason::KILLED),
        }
    }

    fn down(&mut self, start: StartId, down: Down) {
        if let Some(child) = self.children.get_mut(&start) {
            child.reason = Some(down.reason);
            self.ended(start);
        }
    }

    fn gone(&mut self, start: StartId) {
        if let Some(child) = self.children.get_mut(&start) {
            child.gone = true;
            self.ended(start);
        }
    }

    /// A child has ended when its process has, and its function is gone: a process that was killed may be at work until then.
    fn ended(&mut self, start: StartId) {
        let over = |child: &Child| child.gone && child.reason.is_some();
        if !self.children.get(&start).is_some_and(over) {
            return;
        }
        let Some(child) = self.children.remove(&start) else { return };
        self.watched.remove(&child.monitor);
        let reason = child.reason.unwrap_or(Reason::NORMAL);
        let reason = reason.to_term(self.node.inner().limits()).unwrap_or_else(|_| Term::atom("too_long"));
        let state = child.link.state();
        self.handle(Event::Ended { start, reason, state });
    }

    fn report(&self, report: Report) {
        match &report {
            Report::Started { child, pid, with_state } => info!(?child, ?pid, with_state, "child started"),
            Report::Restarted { child, reason } => warn!(?child, ?reason, "child ended, started again"),
            Report::GivenUp { child, reason } => {
                warn!(?child, ?reason, "child ended too often, given up");
            }
            Report::Conflict { child } => warn!(?child, "another node has this child, too; it ends here"),
            Report::LeaseLost { child } => warn!(?child, "lease could not be renewed, child killed"),
            Report::HandedOff { child, to } => info!(?child, to = to.as_str(), "child handed over"),
            Report::StateLost { child } => warn!(?child, "nobody takes this child, its state is lost"),
            other => debug!(?other, "supervisor"),
        }
        // Nobody has to listen.
        let _ = self.reports.send(report);
    }
}
