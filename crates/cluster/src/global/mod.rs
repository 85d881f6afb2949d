//! Names and locks of a fully connected cluster: OTP's `global` (kernel), protocol versions 7 and 8.
//!
//! Every visible node has all names. A name changes only while the lock `global` is set on all nodes; two nodes that meet
//! set it on both their partitions, exchange their names, resolve what conflicts, and tell their partitions about each other.
//!
//! # Protocol
//!
//! All messages go between the processes `global_name_server`. This machine is that process, and the *locker* and the
//! *registrar* of OTP as well: locks are told apart by their requesters, so one process serves.
//!
//! | message | meaning |
//! |---|---|
//! | cast `{init_connect, {8, Tag}, Node, {locker, _, Known, Locker}}` | a connection is up; each side picks a tag for this session |
//! | `{init_connect_ack, Node, TagOfReceiver, TagOfSender}` | version 8: both mean the same session |
//! | `{cancel_connect, Node, TagOfReceiver}` | version 8: they do not; begin again |
//! | call `{set_lock, {Resource, Requester}}` | `true` or `false` |
//! | call `{del_lock, {Resource, Requester}}` | `true` |
//! | cast `{lock_set, Locker, Set, Known, TagOfReceiver}` | a locker has, or could not get, the lock on its partition |
//! | cast `{exchange, Node, [{Name, Pid, Method}], _, Tag}` | all names of a partition, the lock being set on both |
//! | cast `{resolved, Node, Ops, Known, _, External, Tag}` | what became of conflicts, and who else there is |
//! | cast `{new_nodes, Node, Ops, External, Nodes, [{vsn, V}, {lock, Lock}]}` | the same for the rest of the partition |
//! | cast `{in_sync, Node, _}` | the sender has all names of the receiver |
//! | call `{register, Name, Pid, Method}`, `{register_ext, Name, Pid, Method, Node}`, `{unregister, Name}` | under the lock |
//! | `{lost_connection, Node, Creation, OpId, Other}`, `{remove_connection, Node}` | prevention of overlapping partitions |
//!
//! # Differences from OTP
//!
//! * Towards `global` older than version 7 (OTP 23 and 24) it answers `in_sync` and sets locks when asked, but keeps no
//!   names in common with it: nothing there hangs because of this node.
//! * A call that is not answered within [`CALL_TIMEOUT`] counts as refused. OTP waits for ever.
//! * Whoever sends what cannot be read is ignored, and counted ([`Global::ignored`]). Names and locks are limited in number.

mod calls;
mod locker;
mod locks;
mod names;
mod partitions;
mod registrar;
mod session;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, Term};

use crate::message::{atom, pid, tuple_of};
use crate::random::Random;
use crate::{Key, Machine};
use calls::Calls;
use locker::Locker;
use locks::{Holder, LockId, Locks};
use names::{Entry, Names, Op};
use partitions::Partitions;
use registrar::Registrar;
use session::Session;

/// The version that is spoken.
const VERSION: i64 = 8;
/// From this version on sessions are acknowledged (`?verify_connect_vsn`).
const VERSION_ACKNOWLEDGED: i64 = 8;
/// The oldest version with which names are shared.
const VERSION_OLDEST: i64 = 7;
/// How long another node may take for an answer. Its locks and names are changed in microseconds; what takes longer is a node
/// that does not serve `global`, or a connection about to be lost.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A monitor that the machine asked for. Numbers are never reused.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MonitorId(pub u64);

/// Parameters, named as kernel's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Config {
    /// Connect to the nodes that connected nodes know, and share names with all (`connect_all`).
    pub connect_all: bool,
    /// Leave nodes that others have lost, and tell others of lost nodes (`prevent_overlapping_partitions`). OTP's default
    /// since 25.
    pub prevent_overlapping_partitions: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { connect_all: true, prevent_overlapping_partitions: true }
    }
}

/// What happens to it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A connection to a visible node came up.
    NodeUp(Atom),
    /// The connection to a visible node is gone.
    NodeDown(Atom),
    /// What [`Action::Connect`] asked for came to nothing.
    ConnectFailed(Atom),
    /// A message arrived at the process, calls and casts included.
    Message(Term),
    /// A monitor fired.
    Down(MonitorId),
    /// The answer to [`Action::Resolve`]: what the method returned, `None` if it could not be called.
    Resolved {
        /// Which.
        conflict: u64,
        /// A pid, `none`, or something else, which counts as `none`.
        result: Option<Term>,
    },
    /// Something that a program on this node wants.
    Command {
        /// A number for [`Action::Done`].
        command: u64,
        /// What.
        what: Command,
    },
}

/// What a program wants.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Command {
    /// `register_name/3`: done with `false` if the name is taken or the process has another one.
    Register {
        /// The name.
        name: Term,
        /// The process.
        pid: Pid,
        /// The function that resolves a conflict, an export fun.
        method: Term,
    },
    /// `re_register_name/3`: the same, whoever had the name.
    Reregister {
        /// The name.
        name: Term,
        /// The process.
        pid: Pid,
        /// The function that resolves a conflict.
        method: Term,
    },
    /// `unregister_name/1`.
    Unregister {
        /// The name.
        name: Term,
    },
    /// `set_lock/3`. Released by [`Command::DelLock`], or when `owner` ends.
    SetLock {
        /// What is locked.
        resource: Term,
        /// For whom: the same requester gets it again.
        requester: Term,
        /// The process of this node that holds it.
        owner: Pid,
        /// Where; `None` is this node and all that are connected.
        nodes: Option<Vec<Atom>>,
        /// How often to try again, if somebody else holds it; `None` is for ever.
        retries: Option<u32>,
    },
    /// `del_lock/2`.
    DelLock {
        /// What was locked.
        resource: Term,
        /// For whom.
        requester: Term,
        /// The process that holds it.
        owner: Pid,
    },
    /// `sync/0`: done when the names of all connected nodes are known here.
    Sync,
}

/// What the host has to do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// Send a message from the process, without connecting to the node if it is not connected.
    Send {
        /// Where to.
        to: To,
        /// The message.
        message: Term,
    },
    /// Answer a `gen_server` call.
    Reply {
        /// The caller.
        to: Pid,
        /// Its tag, maybe with an alias in it.
        tag: Term,
        /// The reply.
        reply: Term,
    },
    /// Monitor a process from the process.
    Monitor {
        /// How the machine will recognise it.
        monitor: MonitorId,
        /// What to monitor.
        pid: Pid,
        /// Whether its node is to be connected if it is not. Otherwise the monitor fires at once then: whoever asked for a
        /// lock and is out of reach has lost it, and a connection that was just ended must not come back by its last message.
        connect: bool,
    },
    /// Give a monitor up; it must not fire any more.
    Demonitor(MonitorId),
    /// Connect to a node: either [`Event::NodeUp`] or [`Event::ConnectFailed`] follows.
    Connect(Atom),
    /// End the connection to a node, to prevent overlapping partitions.
    Disconnect(Atom),
    /// Call `global:resolve_it(Method, Name, Pid1, Pid2)` on the node of `pid2`, which may be this one, by `rpc`.
    Resolve {
        /// For [`Event::Resolved`].
        conflict: u64,
        /// The function.
        method: Term,
        /// The name.
        name: Term,
        /// The process of the other partition.
        pid1: Pid,
        /// The process of this partition.
        pid2: Pid,
    },
    /// A command is done.
    Done {
        /// Its number.
        command: u64,
        /// How.
        result: bool,
    },
}

/// A destination.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum To {
    /// A process.
    Pid(Pid),
    /// `global_name_server` on a node.
    Server(Atom),
}

/// What a monitor is for.
#[derive(Debug)]
enum Watched {
    Name(Key),
    Lock(LockId, Pid),
    /// A process of this node that holds locks by [`Command::SetLock`].
    Owner(LockId, Pid),
}

/// `global_name_server`; see the [module documentation](self).
#[derive(Debug)]
pub struct Global {
    me: Pid,
    config: Config,
    random: Random,
    /// Visible nodes.
    connected: BTreeSet<Atom>,
    /// The nodes of this partition and their versions, 0 if unknown.
    known: BTreeMap<Atom, i64>,
    /// Nodes that a session is going on with, and their versions.
    pending: BTreeMap<Atom, i64>,
    synced: BTreeSet<Atom>,
    sessions: BTreeMap<Atom, Session>,
    /// Nodes that a session is begun with anew, and when.
    reopening: BTreeMap<Atom, Mono>,
    /// Nodes of other partitions that are being connected, and what they are told then.
    greeting: BTreeMap<Atom, Vec<Term>>,
    /// Commands that wait for nodes to be in sync.
    syncers: Vec<(u64, BTreeSet<Atom>)>,
    partitions: Partitions,
    names: Names,
    locks: Locks,
    calls: Calls,
    locker: Locker,
    registrar: Registrar,
    monitors: BTreeMap<MonitorId, Watched>,
    next: u64,
    actions: VecDeque<Action>,
    ignored: u64,
}

impl Global {
    /// The server of the node of `me`, its process. `random` is for choices that need not be secret, and for the number that
    /// tells this incarnation of the node from others.
    pub fn new(me: Pid, config: Config, random: u64) -> Self {
        let partitions = Partitions::new(random, me.creation);
        Self {
            me,
            config,
            random: Random::new(random),
            connected: BTreeSet::new(),
            known: BTreeMap::new(),
            pending: BTreeMap::new(),
            synced: BTreeSet::new(),
            sessions: BTreeMap::new(),
            reopening: BTreeMap::new(),
            greeting: BTreeMap::new(),
            syncers: Vec::new(),
            partitions,
            names: Names::default(),
            locks: Locks::default(),
            calls: Calls::default(),
            locker: Locker::default(),
            registrar: Registrar::default(),
            monitors: BTreeMap::new(),
            next: 1,
            actions: VecDeque::new(),
            ignored: 0,
        }
    }

    /// The process of a name (`whereis_name/1`).
    pub fn whereis_name(&self, name: &Term) -> Option<&Pid> {
        self.names.get(name).map(|entry| &entry.pid)
    }

    /// All names, in the order of terms (`registered_names/0`).
    pub fn registered_names(&self) -> impl Iterator<Item = &Term> {
        self.names.iter().map(|(name, _)| name)
    }

    /// The nodes of this partition.
    pub fn known(&self) -> impl Iterator<Item = &Atom> {
        self.known.keys()
    }

    /// The connected nodes whose names are known here.
    pub fn synced(&self) -> impl Iterator<Item = &Atom> {
        self.synced.iter()
    }

    /// Whether nothing is under way: no lock is set, no session goes on, and nobody waits.
    pub fn is_idle(&self) -> bool {
        self.sessions.values().all(|session| session.my_tag.is_none())
            && self.pending.is_empty()
            && self.reopening.is_empty()
            && self.greeting.is_empty()
            && self.syncers.is_empty()
            && self.locks.is_empty()
            && self.calls.is_empty()
            && self.registrar.is_idle()
            && self.locker.is_idle()
    }

    /// How many messages could not be understood.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    fn node(&self) -> &Atom {
        &self.me.node
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn send(&mut self, to: To, message: Term) {
        self.actions.push_back(Action::Send { to, message });
    }

    fn cast(&mut self, node: &Atom, message: Term) {
        self.send_reliably(node, crate::message::cast(message));
    }

    /// Sends to a server, once it is connected if that is being tried: a node that is known has to hear of every change.
    fn send_reliably(&mut self, node: &Atom, message: Term) {
        match self.greeting.get_mut(node) {
            Some(later) => later.push(message),
            None => self.send(To::Server(node.clone()), message),
        }
    }

    fn watch(&mut self, pid: &Pid, what: Watched) -> Option<MonitorId> {
        if *pid == self.me {
            return None;
        }
        let monitor = MonitorId(self.number());
        let connect = matches!(what, Watched::Name(_));
        self.monitors.insert(monitor, what);
        self.actions.push_back(Action::Monitor { monitor, pid: pid.clone(), connect });
        Some(monitor)
    }

    fn unwatch(&mut self, monitor: Option<MonitorId>) {
        if let Some(monitor) = monitor
            && self.monitors.remove(&monitor).is_some()
        {
            self.actions.push_back(Action::Demonitor(monitor));
        }
    }

    // -- names and locks on this node ------------------------------------------------------------------------------------

    fn set_local_lock(&mut self, id: &LockId, pid: &Pid) -> bool {
        if !self.locks.can_set(id) {
            return false;
        }
        if !self.locks.is_owner(id, pid) {
            let monitor = self.watch(pid, Watched::Lock(id.clone(), pid.clone()));
            self.locks.insert(id.clone(), pid.clone(), monitor);
        }
        true
    }

    fn del_local_lock(&mut self, id: &LockId, pid: &Pid) {
        let monitor = self.locks.remove(id, pid, false);
        self.unwatch(monitor);
    }

    fn insert_name(&mut self, name: Term, pid: Pid, method: Term, external: Option<Atom>, by: &Holder) {
        self.delete_name(&name);
        // Without the lock the change is a late one of somebody who is gone.
        if !self.locks.still_set(by) || !self.names.has_room() {
            return;
        }
        let monitor = self.watch(&pid, Watched::Name(Key(name.clone())));
        self.names.insert(name, Entry { pid, method, monitor, external });
    }

    fn delete_name(&mut self, name: &Term) {
        if let Some(entry) = self.names.remove(name) {
            self.unwatch(entry.monitor);
        }
    }

    fn apply(&mut self, ops: Vec<Op>, external: &[names::External], by: &Holder) {
        let (inserts, deletes): (Vec<Op>, Vec<Op>) =
            ops.into_iter().partition(|op| matches!(op, Op::Insert(_)));
        for op in inserts.into_iter().chain(deletes) {
            match op {
                Op::Insert(names::Name { name, pid, method }) => {
                    let node = external
                        .iter()
                        .find(|(n, p, _)| *n == name && *p == pid)
                        .map(|(_, _, node)| node.clone());
                    self.insert_name(name, pid, method, node, by);
                }
                Op::Delete(name) => self.delete_name(&name),
            }
        }
    }

    fn down(&mut self, monitor: MonitorId) {
        match self.monitors.remove(&monitor) {
            // Its monitor is given up with a name: this is the one of today.
            Some(Watched::Name(Key(name))) => drop(self.names.remove(&name)),
            Some(Watched::Lock(id, pid)) => drop(self.locks.remove(&id, &pid, true)),
            Some(Watched::Owner(id, pid)) => self.release(&id, &pid),
            None => {}
        }
    }

    // -- messages --------------------------------------------------------------------------------------------------------

    fn message(&mut self, now: Mono, message: Term) -> Option<()> {
        let mut elements = match message {
            Term::Tuple(elements) => elements.into_vec(),
            _ => return None,
        };
        let tag = elements.first()?.clone();
        if let Term::Integer(call) = tag {
            let [_, reply] = <[Term; 2]>::try_from(elements).ok()?;
            self.reply(now, call, &reply);
            return Some(());
        }
        match (tag.as_atom()?.as_str(), elements.len()) {
            ("$gen_call", 3) => {
                let [_, from, request] = <[Term; 3]>::try_from(elements).ok()?;
                let [process, tag] = crate::message::tuple(from)?;
                let caller = pid(process)?;
                let reply = self.call(&caller, request)?;
                self.actions.push_back(Action::Reply { to: caller, tag, reply });
                Some(())
            }
            ("$gen_cast", 2) => match elements.pop()? {
                Term::Tuple(cast) => self.session_cast(now, cast.into_vec()),
                _ => None,
            },
            _ => self.session_message(now, elements),
        }
    }

    /// Answers a call. `None` if it cannot be understood; OTP leaves those unanswered as well.
    fn call(&mut self, caller: &Pid, request: Term) -> Option<Term> {
        let elements = match request {
            Term::Tuple(elements) => elements.into_vec(),
            Term::Atom(what) => return self.question(what.as_str()),
            _ => return None,
        };
        let what = elements.first()?.as_atom()?.clone();
        Some(match (what.as_str(), elements.len()) {
            ("set_lock", 2) => {
                let [_, id] = <[Term; 2]>::try_from(elements).ok()?;
                Term::from(self.set_local_lock(&LockId::from_term(id)?, caller))
            }
            ("del_lock", 2) => {
                let [_, id] = <[Term; 2]>::try_from(elements).ok()?;
                self.del_local_lock(&LockId::from_term(id)?, caller);
                Term::from(true)
            }
            ("register", 4) => {
                let [_, name, process, method] = <[Term; 4]>::try_from(elements).ok()?;
                self.insert_name(name, pid(process)?, method, None, &Holder::Process(caller.clone()));
                atom("yes")
            }
            ("register_ext", 5) => {
                let [_, name, process, method, node] = <[Term; 5]>::try_from(elements).ok()?;
                let node = node.as_atom()?.clone();
                self.insert_name(name, pid(process)?, method, Some(node), &Holder::Process(caller.clone()));
                atom("yes")
            }
            ("unregister", 2) => {
                self.delete_name(elements.get(1)?);
                atom("ok")
            }
            _ => return None,
        })
    }

    fn question(&self, what: &str) -> Option<Term> {
        Some(match what {
            "get_known" => Term::list(self.known.keys().cloned().map(Term::Atom)),
            "get_synced" => Term::list(self.synced.iter().cloned().map(Term::Atom)),
            "get_protocol_version" => Term::Integer(VERSION),
            "get_names_ext" => names::external_term(&self.names.external()),
            _ => return None,
        })
    }

    /// What `whereis_name/1` of a node without tables asks: answered with what is known now, also while names change.
    fn whereis(&mut self, name: &Term, from: Term) -> Option<()> {
        let [process, tag] = crate::message::tuple(from)?;
        let reply = self.whereis_name(name).map_or(atom("undefined"), |pid| Term::Pid(pid.clone()));
        self.actions.push_back(Action::Reply { to: pid(process)?, tag, reply });
        Some(())
    }

    fn command(&mut self, now: Mono, command: u64, what: Command) {
        match what {
            Command::Register { name, pid, method } => {
                self.enqueue(now, command, registrar::Task::Register { name, pid, method, anyway: false });
            }
            Command::Reregister { name, pid, method } => {
                self.enqueue(now, command, registrar::Task::Register { name, pid, method, anyway: true });
            }
            Command::Unregister { name } => self.enqueue(now, command, registrar::Task::Unregister { name }),
            Command::SetLock { resource, requester, owner, nodes, retries } => {
                let nodes = nodes.unwrap_or_else(|| {
                    std::iter::once(self.node().clone()).chain(self.connected.iter().cloned()).collect()
                });
                self.set_user_lock(now, command, LockId { resource, requester }, owner, nodes, retries);
            }
            Command::DelLock { resource, requester, owner } => {
                self.release(&LockId { resource, requester }, &owner);
                self.actions.push_back(Action::Done { command, result: true });
            }
            Command::Sync => {
                let missing: BTreeSet<Atom> = self.connected.difference(&self.synced).cloned().collect();
                self.syncers.push((command, missing));
                self.sync_done();
            }
        }
    }

    /// Ends the waits that are over.
    fn sync_done(&mut self) {
        let actions = &mut self.actions;
        self.syncers.retain(|(command, missing)| {
            if missing.is_empty() {
                actions.push_back(Action::Done { command: *command, result: true });
            }
            !missing.is_empty()
        });
    }

    fn synced_with(&mut self, node: &Atom) {
        for (_, missing) in &mut self.syncers {
            missing.remove(node);
        }
        self.sync_done();
    }
}

impl Machine for Global {
    type Event = Event;
    type Action = Action;

    fn handle(&mut self, now: Mono, event: Event) {
        match event {
            Event::NodeUp(node) => self.node_up(now, &node),
            Event::NodeDown(node) => self.node_down(now, &node),
            Event::ConnectFailed(node) => self.connect_failed(now, &node),
            Event::Message(message) => {
                if self.message(now, message).is_none() {
                    self.ignored += 1;
                }
            }
            Event::Down(monitor) => self.down(monitor),
            Event::Resolved { conflict, result } => self.conflict_resolved(conflict, result),
            Event::Command { command, what } => self.command(now, command, what),
        }
        self.run_locker(now);
    }

    fn handle_timeout(&mut self, now: Mono) {
        self.expire_calls(now);
        self.open_sessions(now);
        self.wake_registrar(now);
        self.wake_locker(now);
        self.run_locker(now);
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Mono> {
        let deadlines = [
            self.calls.deadline(),
            self.registrar.wake_at(),
            self.locker.attempt_at(),
            self.session_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }
}

/// `Tmax` of `global:random_sleep/1`: a quarter of a second at first, then doubling up to 8 s.
fn pause(times: u32) -> u64 {
    if times > 5 { 8000 } else { 1000 * (1 << times) / 8 }
}

fn in_sync(node: &Atom) -> Term {
    tuple_of([atom("in_sync"), Term::Atom(node.clone()), Term::from(true)])
}
