//! A registry of names between our own nodes: keys of processes, found on every node that is connected.
//!
//! # How it works
//!
//! Each node writes its own entries alone, one after the other, and sends them to all members; a member is the process of this
//! name on a connected node. The writes of a node are numbered, so one number says how much of them a member has: the causal
//! context of a delta CRDT shrinks to that number when each key has a single writer, and nothing has to be merged. What is
//! found under a key is computed from what all nodes in reach have written, by all nodes alike.
//!
//! * **Names of a lost node** are not found while it is out of reach, and kept for [`Config::retain`]. When it is back in the
//!   same incarnation, they are found again once the writes made meanwhile are known: nothing else is sent. Another
//!   incarnation, which is another process of the registry, begins with nothing.
//! * **Unique keys.** If two nodes gave one key away before they knew of each other, the process with the earlier claim keeps it
//!   ([`Entry::claim`]); the node of the other takes it back, and the process is told ([`OnConflict`]).
//! * **Duplicate keys.** Any number of processes have a key, each of them once.
//!
//! # Protocol
//!
//! | message | meaning |
//! |---|---|
//! | `{hello, 1, Keys, Pid, Tag}` | to the name of the registry on a node that was connected: who is there? |
//! | `{welcome, 1, Tag, Pid, Session, Keys, Version}` | the answer to the tag, with a session to ask in and the latest version |
//! | `{have, Pid, Session, Version, Want}` | all up to `Version` is known; `Want` is `false`, `true`, or `{Upto, At}`: the rest of a scan |
//! | `{writes, Pid, Session, Base, To, Last, Entries, Removed}` | what was written after `Base`, up to `To`; `Last` if that is all; `Session` is 0 if nobody asked |
//! | `{scan, Pid, Upto, At, To, Entries}` | the entries that were last written after `At`, up to `To`: for who has not seen removals that are forgotten |
//! | `{head, Pid, Version}` | asks for `have` |
//! | `{unknown, Session}` | the session is not known (any more): say hello again |
//!
//! `Entries` are `{Key, Pid, Value, Claim, Version}`, `Removed` is `{Key}`, or `{Key, Pid}` for duplicate keys. A write goes out at
//! once to all members that have what came before; they acknowledge after 100 ms, or when they are asked. Then nothing
//! more is sent: an idle registry is silent. A BEAM node that has no process of this name drops what comes.
//!
//! Callers without this library use `GenServer.call/3`: see `calls`. A host on a BEAM passes events and actions as terms: [`external`].

mod calls;
mod config;
mod entry;
mod event;
pub mod external;
mod held;
mod index;
mod own;
mod peers;
mod pieces;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, Term, encoded_len};

use crate::message::{atom, tuple_of};
use crate::mutant::LeftOut;
use crate::{Key, Machine};
pub use config::Config;
use entry::Id;
pub use entry::{Entry, Keys};
pub use event::{Action, Change, Command, Event, OnConflict, Outcome, Stats, To};
use held::{Effect, Held};
use index::Index;
use own::Own;
use peers::Peer;

/// A monitor that the machine asked for. Numbers are never reused.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MonitorId(pub u64);

#[derive(Debug)]
enum Watched {
    /// A process that has keys.
    Process(Pid),
    Following(Atom),
    Follower(Atom),
}

#[derive(Debug)]
struct Wait {
    version: u64,
    deadline: Mono,
    whose: Waiter,
}

/// Who is told that a wait is over.
#[derive(Debug)]
enum Waiter {
    Command(u64),
    Call(Term),
}

/// The registry of one name on one node; see the [module documentation](self).
#[derive(Debug)]
pub struct Names {
    name: Atom,
    me: Pid,
    config: Config,
    now: Mono,
    own: Own,
    /// The keys of this node whose processes are told of a conflict and live on.
    notified: BTreeSet<Id>,
    held: BTreeMap<Atom, Held>,
    index: Index,
    peers: BTreeMap<Atom, Peer>,
    connected: BTreeSet<Atom>,
    monitors: BTreeMap<MonitorId, Watched>,
    processes: BTreeMap<Pid, MonitorId>,
    waits: BTreeMap<u64, Wait>,
    next: u64,
    /// Nothing is due before this.
    soonest: Mono,
    /// The version of which the followers were told.
    flushed: u64,
    /// Some follower is to be asked.
    asking: bool,
    actions: VecDeque<Action>,
    stats: Stats,
    /// What has come and gone under duplicate keys, for who asks for it.
    touched: Option<Vec<Arc<Entry>>>,
    mutant: LeftOut<Mutant>,
}

/// A rule that is left out on purpose, to see that the simulation notices.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mutant {
    /// What an incarnation had registered is kept for the next.
    KeepOldIncarnation,
    /// The names of a lost node stay visible.
    ShowLost,
    /// All that the peer has is acknowledged, not only what is known.
    AckTarget,
    /// Writes are taken in although others are missing in between.
    IgnoreGap,
    /// Removals are not taken in.
    ForgetRemovals,
    /// What a scan does not find stays.
    NoSweep,
    /// Nobody is asked after writes that were not acknowledged.
    NoProbe,
    /// The loser of a key keeps it.
    KeepLost,
    /// Each node prefers its own process.
    PreferOwn,
    /// A process that ends keeps its keys.
    IgnoreExit,
}

impl Names {
    /// An empty registry of this name, whose process on this node is `me`.
    pub fn new(name: Atom, me: Pid, config: Config) -> Self {
        Self {
            name,
            me,
            now: Mono::ZERO,
            own: Own::new(config.keys, config.max_removed),
            notified: BTreeSet::new(),
            held: BTreeMap::new(),
            index: Index::new(config.keys),
            peers: BTreeMap::new(),
            connected: BTreeSet::new(),
            monitors: BTreeMap::new(),
            processes: BTreeMap::new(),
            waits: BTreeMap::new(),
            next: 0,
            soonest: Mono(i64::MAX),
            flushed: 0,
            asking: false,
            actions: VecDeque::new(),
            stats: Stats::default(),
            touched: None,
            config,
            mutant: LeftOut::default(),
        }
    }

    /// The name of the registry.
    pub fn name(&self) -> &Atom {
        &self.name
    }

    /// How many processes may have one key.
    pub fn keys(&self) -> Keys {
        self.config.keys
    }

    /// Who has a key: one process at most if keys are unique.
    pub fn lookup(&self, key: &Term) -> &[Arc<Entry>] {
        self.index.found(key)
    }

    /// All that is found, in the order of keys.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.index.iter()
    }

    /// How many keys are registered on nodes in reach, those that conflict included.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether nothing is registered on any node in reach.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The nodes in reach on which there is a registry of this name, besides this one.
    pub fn members(&self) -> impl Iterator<Item = &Atom> {
        let member = |peer: &Peer| peer.following.is_some() || peer.follower.is_some();
        self.peers.iter().filter(move |(_, peer)| member(peer)).map(|(node, _)| node)
    }

    /// The members, with the number of writes of this node that each is not known to have.
    pub fn behind(&self) -> impl Iterator<Item = (&Atom, u64)> {
        let version = self.own.version();
        let acked =
            |node: &Atom| self.peers.get(node).and_then(|peer| peer.follower.as_ref()).map_or(0, |f| f.acked);
        self.members().map(move |node| (node, version.saturating_sub(acked(node))))
    }

    /// What was counted, and how far the members are behind at `now`.
    pub fn stats(&self, now: Mono) -> Stats {
        let since = self.peers.values().filter_map(|peer| peer.follower.as_ref()?.lacking).min();
        Stats {
            behind: self.behind().map(|(_, behind)| behind).max().unwrap_or_default(),
            lag: since.map_or(Duration::ZERO, |since| now.saturating_since(since)),
            ..self.stats
        }
    }

    /// From now on `touched` is told.
    fn tell_touched(&mut self) {
        self.touched = Some(Vec::new());
    }

    /// The entries under duplicate keys that have come or gone since it was asked.
    fn take_touched(&mut self) -> Vec<Arc<Entry>> {
        self.touched.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn watch(&mut self, pid: Pid, what: Watched) -> MonitorId {
        let monitor = MonitorId(self.number());
        self.monitors.insert(monitor, what);
        self.actions.push_back(Action::Monitor { monitor, pid });
        monitor
    }

    fn unwatch(&mut self, monitor: MonitorId) {
        if self.monitors.remove(&monitor).is_some() {
            self.actions.push_back(Action::Demonitor(monitor));
        }
    }

    // -- the names of this node ----------------------------------------------------------------------------------------

    fn id(&self, key: &Arc<Key>, pid: &Pid) -> Id {
        let pid = (self.config.keys == Keys::Duplicate).then(|| pid.clone());
        Id { key: Arc::clone(key), pid }
    }

    fn register(&mut self, key: Term, pid: Pid, value: Term, on_conflict: OnConflict, wall: i64) -> Outcome {
        if !self.fits(&key, &value) {
            return Outcome::TooLarge;
        }
        let key = Arc::new(Key(key));
        let id = self.id(&key, &pid);
        let taken = match self.config.keys {
            Keys::Unique => self.index.all(&key).first(),
            Keys::Duplicate => self.own.get(&id),
        };
        if let Some(taken) = taken {
            return Outcome::AlreadyRegistered(taken.pid.clone());
        }
        if self.room() == 0 {
            return Outcome::SystemLimit;
        }
        // Whoever had the key before, as far as it is known here, has the earlier claim.
        let before = self.held.values().filter_map(|held| Some(held.get(&id)?.claim)).max();
        let claim = before.map_or(wall, |before| wall.max(before.saturating_add(1)));
        match on_conflict {
            OnConflict::Exit => self.notified.remove(&id),
            OnConflict::Notify => self.notified.insert(id),
        };
        if !self.processes.contains_key(&pid) {
            let monitor = self.watch(pid.clone(), Watched::Process(pid.clone()));
            self.processes.insert(pid.clone(), monitor);
        }
        let node = self.me.node.clone();
        let entry = self.own.put(Entry { key, pid, value, node, claim, version: 0 });
        self.apply(Effect { gone: Vec::new(), come: vec![entry] });
        Outcome::Done
    }

    fn fits(&self, key: &Term, value: &Term) -> bool {
        let size = |term| encoded_len(term).unwrap_or(usize::MAX);
        size(key).saturating_add(size(value)) <= self.config.max_bytes
    }

    fn unregister(&mut self, key: Term, pid: &Pid) -> Outcome {
        let id = self.id(&Arc::new(Key(key)), pid);
        if self.own.get(&id).is_none_or(|entry| entry.pid != *pid) {
            return Outcome::NotRegistered;
        }
        self.take_back(&id);
        Outcome::Done
    }

    /// Removes an entry of this node.
    fn take_back(&mut self, id: &Id) -> Option<Arc<Entry>> {
        let entry = self.own.remove(id)?;
        self.notified.remove(id);
        if !self.own.has_pid(&entry.pid)
            && let Some(monitor) = self.processes.remove(&entry.pid)
        {
            self.unwatch(monitor);
        }
        self.apply(Effect { gone: vec![Arc::clone(&entry)], come: Vec::new() });
        Some(entry)
    }

    fn update_value(&mut self, key: Term, pid: &Pid, value: Term) -> Outcome {
        if !self.fits(&key, &value) {
            return Outcome::TooLarge;
        }
        let id = self.id(&Arc::new(Key(key)), pid);
        let Some(before) = self.own.get(&id).filter(|entry| entry.pid == *pid).cloned() else {
            return Outcome::NotRegistered;
        };
        let entry = self.own.put(Entry { value, ..Entry::clone(&before) });
        self.apply(Effect { gone: vec![before], come: vec![entry] });
        Outcome::Done
    }

    // -- what is found -------------------------------------------------------------------------------------------------

    /// Changes what is found, tells of it, and takes back the keys that this node's processes lose by it.
    fn apply(&mut self, effect: Effect) {
        let Effect { gone, come } = effect;
        if gone.is_empty() && come.is_empty() {
            return;
        }
        let mut keys: BTreeMap<Arc<Key>, Effect> = BTreeMap::new();
        for entry in gone {
            keys.entry(Arc::clone(&entry.key)).or_default().gone.push(entry);
        }
        for entry in &come {
            keys.entry(Arc::clone(&entry.key)).or_default().come.push(Arc::clone(entry));
        }
        let mut changes = Vec::new();
        for (key, mut effect) in keys {
            effect.gone.sort_by(|a, b| a.precedence(b));
            effect.come.sort_by(|a, b| a.precedence(b));
            match self.config.keys {
                Keys::Unique => {
                    let before = self.index.found(&key.0).to_vec();
                    self.index.replace(&key, &effect.gone, &effect.come);
                    tell(&before, self.index.found(&key.0), &mut changes);
                }
                // A key may have very many: only those that change are looked at.
                Keys::Duplicate => {
                    self.index.replace(&key, &effect.gone, &effect.come);
                    // Also what keeps its process and its value and changes its place.
                    if let Some(touched) = &mut self.touched
                        && !alike(&effect.gone, &effect.come)
                    {
                        touched.extend(effect.gone.iter().chain(&effect.come).cloned());
                    }
                    tell(&effect.gone, &effect.come, &mut changes);
                }
            }
        }
        let mut lost = Vec::new();
        if self.config.keys == Keys::Unique {
            for entry in &come {
                self.conflict(entry, &mut changes, &mut lost);
            }
        }
        if !changes.is_empty() {
            self.actions.push_back(Action::Changed(changes));
        }
        for (loser, winner) in lost {
            self.lose(&loser, &winner);
        }
    }

    /// Looks whether an entry that has just come has a key that another node has given away as well.
    fn conflict(
        &self,
        entry: &Arc<Entry>,
        changes: &mut Vec<Change>,
        lost: &mut Vec<(Arc<Entry>, Arc<Entry>)>,
    ) {
        let [winner, losers @ ..] = self.index.all(&entry.key) else { return };
        for loser in losers {
            if !Arc::ptr_eq(entry, winner) && !Arc::ptr_eq(entry, loser) {
                continue;
            }
            changes.push(Change::Conflict { winner: Arc::clone(winner), loser: Arc::clone(loser) });
            if loser.node == self.me.node && !self.mutant.is(Mutant::PreferOwn) {
                lost.push((Arc::clone(loser), Arc::clone(winner)));
            }
        }
    }

    /// A process of this node has lost its key.
    fn lose(&mut self, loser: &Arc<Entry>, winner: &Entry) {
        let id = loser.id(self.config.keys);
        // It may have been taken back since.
        if self.own.get(&id).is_none_or(|entry| entry.version != loser.version) {
            return;
        }
        let notified = self.notified.contains(&id);
        self.stats.conflicts += 1;
        if !self.mutant.is(Mutant::KeepLost) {
            self.take_back(&id);
        }
        let reason = tuple_of([
            atom("name_conflict"),
            tuple_of([loser.key.0.clone(), loser.value.clone()]),
            Term::Atom(self.name.clone()),
            Term::from(&winner.pid),
        ]);
        let to = loser.pid.clone();
        self.actions.push_back(if notified {
            Action::Send { to: vec![To::Pid(to)], message: reason }
        } else {
            Action::Exit { to, reason }
        });
    }

    // -- waiting -------------------------------------------------------------------------------------------------------

    fn wait(&mut self, key: Term, timeout: Duration, whose: Waiter) {
        let entries = self.index.all(&Key(key));
        let version =
            entries.iter().filter(|entry| entry.node == self.me.node).map(|entry| entry.version).max();
        let Some(version) = version else { return self.waited(whose, Outcome::NotRegistered) };
        if self.waits.len() >= self.config.max_waits {
            return self.waited(whose, Outcome::SystemLimit);
        }
        if self.lacking(version).is_empty() {
            return self.waited(whose, Outcome::Done);
        }
        for follower in self.peers.values_mut().filter_map(|peer| peer.follower.as_mut()) {
            follower.ask |= follower.acked < version;
            self.asking |= follower.ask;
        }
        let deadline = self.now + timeout;
        self.soonest = self.soonest.min(deadline);
        let number = self.number();
        self.waits.insert(number, Wait { version, deadline, whose });
    }

    fn lacking(&self, version: u64) -> Vec<Atom> {
        let behind = self.own.version().saturating_sub(version);
        self.behind().filter(|(_, by)| *by > behind).map(|(node, _)| node.clone()).collect()
    }

    fn waited(&mut self, whose: Waiter, outcome: Outcome) {
        self.actions.push_back(match whose {
            Waiter::Command(command) => Action::Done { command, outcome },
            Waiter::Call(from) => Action::Reply { from, reply: calls::reply(&outcome) },
        });
    }

    /// Ends the waits of which all members have what was waited for.
    fn check_waits(&mut self) {
        if self.waits.is_empty() {
            return;
        }
        let version = self.own.version();
        let behind = self.behind().map(|(_, behind)| behind).max().unwrap_or_default();
        let everywhere = version - behind.min(version);
        let over: Vec<u64> = self
            .waits
            .iter()
            .filter(|(_, wait)| wait.version <= everywhere)
            .map(|(number, _)| *number)
            .collect();
        for number in over {
            if let Some(wait) = self.waits.remove(&number) {
                self.waited(wait.whose, Outcome::Done);
            }
        }
    }

    fn expire_waits(&mut self) {
        let now = self.now;
        let over: Vec<u64> =
            self.waits.iter().filter(|(_, wait)| wait.deadline <= now).map(|(number, _)| *number).collect();
        for number in over {
            if let Some(wait) = self.waits.remove(&number) {
                let lacking = self.lacking(wait.version);
                self.waited(wait.whose, Outcome::Timeout(lacking));
            }
        }
    }

    fn command(&mut self, command: u64, what: Command, wall: i64) {
        let outcome = match what {
            Command::Register { key, pid, value, on_conflict } => {
                self.register(key, pid, value, on_conflict, wall)
            }
            Command::Unregister { key, pid } => self.unregister(key, &pid),
            Command::UpdateValue { key, pid, value } => self.update_value(key, &pid, value),
            Command::WaitUntilAll { key, timeout } => {
                return self.wait(key, timeout, Waiter::Command(command));
            }
        };
        self.actions.push_back(Action::Done { command, outcome });
    }

    fn down(&mut self, monitor: MonitorId) {
        match self.monitors.remove(&monitor) {
            Some(Watched::Process(pid)) => {
                self.processes.remove(&pid);
                if !self.mutant.is(Mutant::IgnoreExit) {
                    for id in self.own.of_pid(&pid) {
                        self.take_back(&id);
                    }
                }
            }
            Some(Watched::Following(node)) => self.lost(&node),
            Some(Watched::Follower(node)) => {
                self.end_follower(&node);
                self.tidy(&node);
            }
            None => {}
        }
    }
}

/// Whether who looks for them finds the same.
fn alike(gone: &[Arc<Entry>], come: &[Arc<Entry>]) -> bool {
    let same = |(a, b): (&Arc<Entry>, &Arc<Entry>)| a.precedence(b).is_eq() && a.value == b.value;
    gone.len() == come.len() && gone.iter().zip(come).all(same)
}

/// Notes how what is found under a key has changed. Both sides have an entry of a process and a node once at most.
fn tell(before: &[Arc<Entry>], after: &[Arc<Entry>], changes: &mut Vec<Change>) {
    fn by_process(entries: &[Arc<Entry>]) -> BTreeMap<(&Pid, &Atom), &Arc<Entry>> {
        entries.iter().map(|entry| ((&entry.pid, &entry.node), entry)).collect()
    }
    let (was, is) = (by_process(before), by_process(after));
    for entry in before.iter().filter(|entry| !is.contains_key(&(&entry.pid, &entry.node))) {
        changes.push(Change::Removed(Arc::clone(entry)));
    }
    for entry in after {
        match was.get(&(&entry.pid, &entry.node)) {
            None => changes.push(Change::Added(Arc::clone(entry))),
            Some(other) if other.value != entry.value => changes.push(Change::Updated(Arc::clone(entry))),
            Some(_) => {}
        }
    }
}

impl Machine for Names {
    type Event = Event;
    type Action = Action;

    fn handle(&mut self, now: Mono, event: Event) {
        self.now = now;
        match event {
            Event::NodeUp(node) => self.node_up(&node),
            Event::NodeDown(node) => self.node_down(&node),
            Event::Message { message, wall } => {
                let understood = match wire::read(message) {
                    Some(wire::Message::Call { from, request }) => self.call(from, request, wall),
                    Some(message) => self.message(message),
                    None => None,
                };
                self.stats.ignored += u64::from(understood.is_none());
            }
            Event::Down(monitor) => self.down(monitor),
            Event::Command { command, what, wall } => self.command(command, what, wall),
        }
    }

    fn handle_timeout(&mut self, now: Mono) {
        self.now = now;
        if self.soonest <= now {
            self.time();
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        if self.actions.is_empty() && (self.asking || self.flushed < self.own.version()) {
            self.flush();
        }
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Mono> {
        Some(self.soonest).filter(|at| *at < Mono(i64::MAX))
    }
}
