//! Names that never have two holders at once: the host of [`foundation_cluster::lease`].
//!
//! A lease is granted by more than half of the configured members, which all run this service under the same name. It trades
//! availability for safety: without a majority in reach nobody has the name. A [registry](super::registry) makes the other choice.
//!
//! ```no_run
//! # async fn example(node: foundation_node::Node) -> foundation_node::Result<()> {
//! use std::time::Duration;
//! use foundation_node::service::lease::{Acquired, Config};
//! use foundation_proto::etf::{Atom, Term};
//!
//! let members = ["a@host", "b@host", "c@host"].map(Atom::new_static);
//! let leases = node.leases("singletons", Config::new(members))?;
//! let worker = node.process()?;
//! let name = Term::atom("biller");
//! if leases.acquire(&name, worker.pid(), Duration::from_secs(30)).await? == Acquired::Yes {
//!     while leases.is_held(&name, worker.pid()) {
//!         // One bill.
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A process that loses its lease gets the exit signal `{lease_lost, Name}` before anybody else can have the name
//! ([`Config::margin`]). A process that may be held up for longer than that looks at [`Leases::is_held`] before each act.
//!
//! The service sends to the members that are connected and connects to none: that is up to discovery, or to the program.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use foundation_cluster::Machine;
use foundation_cluster::lease::{Action, Event, Leases as LeaseMachine, MonitorId, Outcome, lost_reason};
use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, RawTerm, Term};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

pub use foundation_cluster::lease::Config;

use super::monitors::Monitors;
use crate::error::{Error, Result};
use crate::net::Clock;
use crate::node::Node;
use crate::process::{Dest, Message, Process};

/// Commands that wait for the service before their callers do.
const COMMANDS: usize = 1024;

/// The leases of this node among the members; cheap to clone.
#[derive(Clone, Debug)]
pub struct Leases {
    pid: Pid,
    machine: Arc<RwLock<LeaseMachine>>,
    clock: Clock,
    commands: mpsc::Sender<Request>,
}

/// Whether a process got a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Acquired {
    /// It has it now, until it gives it up, ends, or gets the exit signal `{lease_lost, Name}`.
    Yes,
    /// A process of this node has it, or wants it.
    Taken(Pid),
}

#[derive(Debug)]
enum What {
    Acquire { name: Term, pid: Pid, timeout: Duration },
    Release { name: Term, pid: Pid },
}

#[derive(Debug)]
struct Request {
    what: What,
    done: oneshot::Sender<Outcome>,
}

impl Leases {
    /// Starts the service's process under its name.
    pub(super) fn start(node: &Node, name: &Atom, config: Config) -> Result<Self> {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let process = node.process()?;
        process.register(name.clone())?;
        let pid = process.pid().clone();
        let clock = Clock::start();
        // Without a random source attempts are less spread, which is no reason not to start.
        let random = crate::random::bits32().map_or(u64::from(pid.creation), u64::from);
        let machine = LeaseMachine::new(clock.now(), pid.clone(), config, random << 1 | 1);
        let machine = Arc::new(RwLock::new(machine));
        let host = Host {
            node: node.clone(),
            name: name.clone(),
            process,
            machine: Arc::clone(&machine),
            clock,
            monitors: Monitors::default(),
            waiting: HashMap::new(),
            count: 0,
        };
        node.inner().runtime.spawn(host.run(inbox));
        Ok(Self { pid, machine, clock, commands })
    }

    /// The service's process.
    pub fn pid(&self) -> &Pid {
        &self.pid
    }

    pub(super) fn is_running(&self) -> bool {
        !self.commands.is_closed()
    }

    /// Waits until a process of this node has a name, which is then renewed until it is given up, the process ends, or no majority can be
    /// reached any more. After a member was started it votes only when [`Config::duration`] is over, by the slowest clock.
    ///
    /// # Errors
    /// [`Error::Timeout`] if no majority granted it in time; [`Error::SystemLimit`] if this node has too many leases, or the name is too
    /// long; [`Error::NoProc`] if the process has ended or is of another node, or the service has ended with its node.
    pub async fn acquire(&self, name: &Term, pid: &Pid, timeout: Duration) -> Result<Acquired> {
        if pid.node != self.pid.node {
            return Err(Error::NoProc);
        }
        let what = What::Acquire { name: name.clone(), pid: pid.clone(), timeout };
        match self.command(what).await? {
            Outcome::Done => Ok(Acquired::Yes),
            Outcome::Taken(pid) => Ok(Acquired::Taken(pid)),
            Outcome::Timeout => Err(Error::Timeout),
            Outcome::SystemLimit => Err(Error::SystemLimit),
            _ => Err(Error::NoProc),
        }
    }

    /// Gives up a name; `false` if the process does not have it. Others can have it at once.
    ///
    /// # Errors
    /// [`Error::NoProc`] if the service has ended with its node.
    pub async fn release(&self, name: &Term, pid: &Pid) -> Result<bool> {
        let what = What::Release { name: name.clone(), pid: pid.clone() };
        Ok(self.command(what).await? == Outcome::Done)
    }

    async fn command(&self, what: What) -> Result<Outcome> {
        let (done, wait) = oneshot::channel();
        self.commands.send(Request { what, done }).await.map_err(|_| Error::NoProc)?;
        wait.await.map_err(|_| Error::NoProc)
    }

    /// Whether a process has a name now, by the clock of this node: whatever has happened to the process or its task
    /// meanwhile, nobody else has it at this moment.
    pub fn is_held(&self, name: &Term, pid: &Pid) -> bool {
        self.remaining(name, pid).is_some()
    }

    /// For how long a process has a name from now on if it cannot be renewed; `None` if it does not have it.
    pub fn remaining(&self, name: &Term, pid: &Pid) -> Option<Duration> {
        let now = self.clock.now();
        Some(self.read().is_held(now, name, pid)?.saturating_since(now))
    }

    /// The names that processes of this node have.
    pub fn held(&self) -> Vec<(Term, Pid)> {
        let now = self.clock.now();
        self.read().held(now).map(|(name, pid)| (name.clone(), pid.clone())).collect()
    }

    /// For whom this node has voted: the process that has the name, or tries to have it, or had it until a moment ago. It says where to look,
    /// not who has it: only the holder itself knows that.
    pub fn voted_for(&self, name: &Term) -> Option<Pid> {
        self.read().voted_for(self.clock.now(), name).cloned()
    }

    fn read(&self) -> RwLockReadGuard<'_, LeaseMachine> {
        self.machine.read().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Host {
    node: Node,
    name: Atom,
    process: Process,
    machine: Arc<RwLock<LeaseMachine>>,
    clock: Clock,
    monitors: Monitors<MonitorId>,
    waiting: HashMap<u64, oneshot::Sender<Outcome>>,
    count: u64,
}

impl Host {
    async fn run(mut self, mut inbox: mpsc::Receiver<Request>) {
        loop {
            let timeout = self.machine.read().unwrap_or_else(PoisonError::into_inner).poll_timeout();
            let clock = self.clock;
            tokio::select! {
                message = self.process.recv() => match message {
                    Ok(message) => self.message(message),
                    Err(_) => return,
                },
                Some(request) = inbox.recv() => self.request(request),
                () = clock.sleep_until(timeout.unwrap_or(Mono(i64::MAX))), if timeout.is_some() => {
                    self.with(|leases, now| leases.handle_timeout(now));
                },
            }
            self.carry_out().await;
        }
    }

    fn request(&mut self, request: Request) {
        self.count += 1;
        self.waiting.insert(self.count, request.done);
        let command = self.count;
        self.handle(match request.what {
            What::Acquire { name, pid, timeout } => Event::Acquire { command, name, pid, timeout },
            What::Release { name, pid } => Event::Release { command, name, pid },
        });
    }

    fn message(&mut self, message: Message) {
        let event = match message {
            Message::Term(raw) => match raw.to_term(self.node.inner().limits()) {
                Ok(message) => Event::Message(message),
                Err(error) => return warn!(leases = self.name.as_str(), %error, "a message was dropped"),
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
        self.with(|leases, now| leases.handle(now, event));
    }

    fn with<R>(&self, act: impl FnOnce(&mut LeaseMachine, Mono) -> R) -> R {
        // The time is taken under the lock: it must not go back between two events.
        let mut leases = self.machine.write().unwrap_or_else(PoisonError::into_inner);
        act(&mut leases, self.clock.now())
    }

    async fn carry_out(&mut self) {
        while let Some(action) = self.with(|leases, _| leases.poll_action()) {
            match action {
                Action::Send { to, message } => self.send(to, &message),
                Action::Monitor { monitor, pid } => match self.process.monitor(&pid).await {
                    Ok(reference) => self.monitors.insert(monitor, reference),
                    Err(_) => self.handle(Event::Down(monitor)),
                },
                Action::Demonitor(monitor) => self.monitors.demonitor(&monitor, &mut self.process),
                Action::Lost { name, pid } => {
                    warn!(leases = self.name.as_str(), ?name, ?pid, "a lease could not be renewed");
                    self.process.exit(&pid, lost_reason(&name)).await;
                }
                Action::Done { command, outcome } => {
                    if let Some(done) = self.waiting.remove(&command) {
                        // Whoever asked may have gone.
                        let _ = done.send(outcome);
                    }
                }
                // Readers ask the machine.
                Action::Held { .. } | Action::Released { .. } => {}
                other => debug!(?other, "an action that this host does not know"),
            }
        }
    }

    fn send(&self, to: Vec<Atom>, message: &Term) {
        let raw = match RawTerm::from_term(message) {
            Ok(raw) => raw,
            Err(error) => return warn!(leases = self.name.as_str(), %error, "a question cannot be sent"),
        };
        for node in to {
            // Whoever is not reached has no vote this time.
            if let Err(error) = self.process.send_now(Dest::from((self.name.clone(), node)), raw.clone()) {
                debug!(leases = self.name.as_str(), %error, "not sent");
            }
        }
    }
}
