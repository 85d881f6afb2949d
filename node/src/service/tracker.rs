//! Who is where: presences, shared with `Phoenix.Tracker` and `Phoenix.Presence`. The host of [`foundation_cluster::tracker`].
//!
//! ```no_run
//! # async fn example(node: foundation_node::Node) -> foundation_node::Result<()> {
//! use foundation_proto::etf::{Map, Term};
//! // A BEAM's `MyAppWeb.Presence`, `use Phoenix.Presence, pubsub_server: MyApp.PubSub`.
//! let presence = node.tracker("MyApp.PubSub", "MyAppWeb.Presence", Default::default())?;
//! let worker = node.process()?;
//! presence.track(worker.pid(), "room:1", Term::from("worker-1"), Term::Map(Map::default()))?;
//! for present in presence.list("room:1") {
//!     println!("{:?} {:?}", present.key, present.pid);
//! }
//! # Ok(())
//! # }
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use foundation_cluster::Machine;
use foundation_cluster::tracker::{Action, Event, Shard, pubsub_topic, shard_name, shard_of};
pub use foundation_cluster::tracker::{Config, Diff, Presence, TrackError};
use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, RawTerm, Term};
use tokio::sync::{Notify, broadcast};
use tracing::{debug, warn};

use super::changes::Changes;
use super::monitors::Monitors;
use super::pubsub::PubSub;
use crate::error::{Error, Result};
use crate::net::Clock;
use crate::node::Node;
use crate::process::{Dest, Handle, Message, Process};

/// The most shards of a tracker. Phoenix has one by default, and as many as schedulers for very large ones.
const MAX_POOL: u32 = 1024;

/// How a tracker is set up; the defaults are those of Phoenix. All nodes must have the same pool size.
#[derive(Clone, Debug)]
pub struct Options {
    /// `:pool_size`, between 1 and 1,024.
    pub pool_size: u32,
    /// The rest.
    pub config: Config,
}

impl Default for Options {
    fn default() -> Self {
        Self { pool_size: 1, config: Config::default() }
    }
}

/// A tracker of this node, member among the trackers of its name on all connected nodes; cheap to clone.
#[derive(Clone, Debug)]
pub struct Tracker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pool: Vec<Arc<Slot>>,
    changes: broadcast::Sender<Diff>,
    /// Makes the references of presences different.
    references: AtomicU64,
    vsn: i64,
}

/// A shard, and what its host waits for.
#[derive(Debug)]
struct Slot {
    shard: RwLock<Shard>,
    clock: Clock,
    /// Raised when the shard has been given something to do.
    wake: Notify,
    process: Handle,
}

impl Slot {
    fn read(&self) -> RwLockReadGuard<'_, Shard> {
        self.shard.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Shard> {
        self.shard.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<R>(&self, act: impl FnOnce(&mut Shard, Mono) -> R) -> R {
        let result = act(&mut self.write(), self.clock.now());
        self.wake.notify_one();
        result
    }
}

/// Presences that come and go, from the moment of [`Tracker::monitor`] on (`handle_diff/2`).
pub type Monitor = Changes<Diff>;

impl Tracker {
    pub(super) fn start(node: &Node, pubsub: &PubSub, name: &Atom, options: &Options) -> Result<Self> {
        let changes = Changes::channel();
        let vsn = vsn();
        let clock = Clock::start();
        let mut hosts = Vec::new();
        for number in 0..options.pool_size.clamp(1, MAX_POOL) {
            let name = shard_name(name, number).ok_or_else(|| Error::NameTaken(name.clone()))?;
            let process = node.process()?;
            process.register(name.clone())?;
            // Nodes that start together do not beat together.
            let period = options.config.broadcast_period;
            let first_beat = clock.now() + crate::random::between(period / 4, period);
            let shard = Shard::new(node.name().clone(), vsn, options.config.clone(), first_beat);
            let slot = Arc::new(Slot {
                shard: RwLock::new(shard),
                clock,
                wake: Notify::new(),
                process: process.handle(),
            });
            let topic = pubsub_topic(&name);
            pubsub.subscribe_pid(&topic, process.pid());
            hosts.push(Host {
                node: node.clone(),
                slot,
                pubsub: pubsub.clone(),
                topic,
                process,
                changes: changes.clone(),
                monitors: Monitors::default(),
            });
        }
        let pool = hosts.iter().map(|host| Arc::clone(&host.slot)).collect();
        for host in hosts {
            node.inner().runtime.spawn(host.run());
        }
        let shared = Shared { pool, changes, references: AtomicU64::new(0), vsn };
        Ok(Self(Arc::new(shared)))
    }

    pub(super) fn is_running(&self) -> bool {
        self.0.pool.iter().all(|slot| slot.process.exit_reason().is_none())
    }

    fn slot(&self, topic: &str) -> &Slot {
        let pool = &self.0.pool;
        let number = shard_of(topic, u32::try_from(pool.len()).unwrap_or(MAX_POOL));
        &pool[usize::try_from(number).unwrap_or_default() % pool.len()]
    }

    fn reference(&self) -> String {
        format!("{:016x}{:08x}", self.0.vsn, self.0.references.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes a process of this node present under a topic and a key, until it ends or is untracked
    /// (`Phoenix.Tracker.track/5`). The metadata is a map; the result is the `phx_ref` that is put into it. Seen here at once,
    /// elsewhere a moment later.
    ///
    /// # Errors
    /// [`Error::Track`].
    pub fn track(&self, pid: &Pid, topic: &str, key: Term, meta: Term) -> Result<String> {
        let reference = self.reference();
        self.slot(topic).change(|shard, now| shard.track(now, pid, topic, key, meta, &reference))?;
        Ok(reference)
    }

    /// Changes the metadata of a presence (`Phoenix.Tracker.update/5`). The result is its new `phx_ref`.
    ///
    /// # Errors
    /// [`Error::Track`].
    pub fn update(&self, pid: &Pid, topic: &str, key: Term, meta: Term) -> Result<String> {
        let reference = self.reference();
        self.slot(topic).change(|shard, now| shard.update(now, pid, topic, key, meta, &reference))?;
        Ok(reference)
    }

    /// Ends a presence, if there is one (`Phoenix.Tracker.untrack/4`).
    pub fn untrack(&self, pid: &Pid, topic: &str, key: Term) {
        self.slot(topic).change(|shard, now| shard.untrack(now, pid, topic, key));
    }

    /// Ends all presences of a process (`Phoenix.Tracker.untrack/2`).
    pub fn untrack_all(&self, pid: &Pid) {
        for slot in &self.0.pool {
            slot.change(|shard, now| shard.untrack_all(now, pid));
        }
    }

    /// The presences of a topic on all nodes (`Phoenix.Tracker.list/2`).
    pub fn list(&self, topic: &str) -> Vec<Presence> {
        self.slot(topic).read().list(topic)
    }

    /// The presences of a topic under one key (`Phoenix.Tracker.get_by_key/3`).
    pub fn get_by_key(&self, topic: &str, key: &Term) -> Vec<Presence> {
        self.slot(topic).read().get_by_key(topic, key)
    }

    /// The nodes that have a tracker of this name and are heard of.
    pub fn nodes(&self) -> Vec<Atom> {
        self.0.pool.first().map(|slot| slot.read().nodes().cloned().collect()).unwrap_or_default()
    }

    /// What changes from now on.
    pub fn monitor(&self) -> Monitor {
        Changes::of(&self.0.changes)
    }

    /// Tells all others that this node will not come back, so that they drop its presences at once
    /// (`Phoenix.Tracker.graceful_permdown/1`).
    pub fn graceful_permdown(&self) {
        for slot in &self.0.pool {
            slot.change(|shard, now| shard.handle(now, Event::GracefulPermdown));
        }
    }
}

/// A number above that of every earlier run: the time of day in microseconds, as Phoenix has it.
fn vsn() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

struct Host {
    node: Node,
    slot: Arc<Slot>,
    pubsub: PubSub,
    topic: String,
    process: Process,
    changes: broadcast::Sender<Diff>,
    monitors: Monitors<Pid>,
}

impl Host {
    async fn run(mut self) {
        loop {
            let timeout = self.slot.read().poll_timeout();
            let clock = self.slot.clock;
            tokio::select! {
                message = self.process.recv() => match message {
                    Ok(message) => self.message(message),
                    Err(_) => return,
                },
                () = self.slot.wake.notified() => {},
                () = clock.sleep_until(timeout.unwrap_or(Mono(i64::MAX))), if timeout.is_some() => {
                    self.slot.write().handle_timeout(clock.now());
                },
            }
            self.carry_out().await;
        }
    }

    fn message(&mut self, message: Message) {
        let event = match message {
            Message::Term(raw) => match raw.to_term(self.node.inner().limits()) {
                Ok(term) => Event::Message(term),
                Err(error) => return warn!(topic = self.topic, %error, "a message to a tracker was dropped"),
            },
            Message::Down(down) => match self.monitors.fired(&down.reference) {
                Some(pid) => Event::Down(pid),
                None => return,
            },
            Message::Exit(_) => return,
        };
        self.slot.write().handle(self.slot.clock.now(), event);
    }

    async fn carry_out(&mut self) {
        loop {
            let Some(action) = self.slot.write().poll_action() else { return };
            match action {
                Action::Broadcast(message) => self.send(None, &message),
                Action::Direct { node, message } => self.send(Some(&node), &message),
                Action::Monitor(pid) => match self.process.monitor(&pid).await {
                    Ok(reference) => self.monitors.insert(pid, reference),
                    Err(_) => self.slot.write().handle(self.slot.clock.now(), Event::Down(pid)),
                },
                Action::Demonitor(pid) => self.monitors.demonitor(&pid, &mut self.process),
                // Nobody has to listen.
                Action::Diff(diff) => drop(self.changes.send(diff)),
                other => debug!(?other, "an action that this host does not know"),
            }
        }
    }

    /// Hands a message to the PubSub of one other node, or of all: at once, since beats must not wait for a busy connection.
    fn send(&self, only: Option<&Atom>, message: &Term) {
        let forward = RawTerm::from_term(message)
            .map_err(Error::from)
            .and_then(|message| self.pubsub.forward(&self.topic, &message));
        let forward = match forward {
            Ok(forward) => forward,
            Err(error) => return warn!(topic = self.topic, %error, "a presence cannot be sent"),
        };
        for worker in
            self.pubsub.remote_workers().filter(|worker| only.is_none_or(|node| *node == worker.node))
        {
            if let Err(error) = self.process.send_now(Dest::from(worker), forward.clone()) {
                // What it misses it asks for when it is back.
                debug!(topic = self.topic, %error, "not sent");
            }
        }
    }
}
