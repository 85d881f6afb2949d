use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Map, Pid, Term};

use super::state::{Context, Remote, Replica, State, Subject, Value};
use super::wire::{self, Message};
use super::{Config, Presence};
use crate::message::atom;
use crate::{Key, Machine};

/// How many replicas are known; far more than a full mesh has nodes.
const REPLICAS: usize = 4096;

/// What happens to a shard.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A message of the shard's topic, by another node.
    Message(Term),
    /// A process that was to be monitored has ended.
    Down(Pid),
    /// The node ends in an orderly way.
    GracefulPermdown,
}

/// What the host of a shard has to do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Action {
    /// Broadcast on the shard's topic, to other nodes only.
    Broadcast(Term),
    /// The same to one node.
    Direct {
        /// The node.
        node: Atom,
        /// The message.
        message: Term,
    },
    /// Monitor a process of this node.
    Monitor(Pid),
    /// Give the monitor up.
    Demonitor(Pid),
    /// Presences came and went.
    Diff(Diff),
}

/// Presences of one topic that came and went, as `handle_diff/2` is told. An update is both.
#[derive(Clone, Debug, PartialEq)]
pub struct Diff {
    /// The topic.
    pub topic: Vec<u8>,
    /// What came.
    pub joins: Vec<Presence>,
    /// What went.
    pub leaves: Vec<Presence>,
}

/// Why a presence was not tracked or updated.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TrackError {
    /// The process is present under the topic and key already: `{already_tracked, Pid, Topic, Key}`.
    AlreadyTracked,
    /// It is not: `nopresence`.
    NoPresence,
    /// The metadata is not a map.
    NotAMap,
    /// The process is of another node.
    NotLocal,
}

impl fmt::Display for TrackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AlreadyTracked => "already_tracked: the process is present under this topic and key",
            Self::NoPresence => "nopresence: the process is not present under this topic and key",
            Self::NotAMap => "badarg: the metadata of a presence is a map",
            Self::NotLocal => "badarg: a process is tracked on its own node",
        })
    }
}

impl core::error::Error for TrackError {}

/// One shard of a tracker on this node; see the [module documentation](super).
#[derive(Debug)]
pub struct Shard {
    config: Config,
    state: State,
    replicas: BTreeMap<Atom, Known>,
    /// The clocks that were heard of since the last comparison.
    pending: Vec<(Replica, Context)>,
    samples_left: u32,
    silent_periods: u32,
    beat_at: Mono,
    flush_at: Option<Mono>,
    /// Makes the references of requests different.
    requests: i64,
    /// Whether the MapSets of the latest peer have a `version`.
    with_version: bool,
    actions: VecDeque<Action>,
    ignored: u64,
}

#[derive(Debug)]
struct Known {
    vsn: i64,
    heard_at: Mono,
    up: bool,
}

impl Shard {
    /// An empty shard, whose first beat is at `first_beat`: nodes that start together should not beat together.
    ///
    /// `vsn` must be above that of every earlier run on this node; Phoenix takes the time of day in microseconds.
    pub fn new(node: Atom, vsn: i64, config: Config, first_beat: Mono) -> Self {
        Self {
            state: State::new(Replica { node, vsn }),
            replicas: BTreeMap::new(),
            pending: Vec::new(),
            samples_left: config.clock_sample_periods,
            silent_periods: config.max_silent_periods,
            beat_at: first_beat,
            flush_at: None,
            requests: 0,
            with_version: false,
            actions: VecDeque::new(),
            ignored: 0,
            config,
        }
    }

    /// This run of the shard.
    pub fn replica(&self) -> &Replica {
        &self.state.replica
    }

    /// How many messages could not be understood.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// How many presences are kept, those of replicas that are down included.
    pub fn len(&self) -> usize {
        self.state.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The presences of a topic (`Phoenix.Tracker.list/2`).
    pub fn list(&self, topic: &str) -> Vec<Presence> {
        let of_topic = self.state.topic(topic.as_bytes());
        of_topic
            .map(|(subject, meta)| Presence {
                pid: subject.pid.clone(),
                key: subject.key.0.clone(),
                meta: meta.clone(),
            })
            .collect()
    }

    /// The presences of a topic under one key (`Phoenix.Tracker.get_by_key/3`).
    pub fn get_by_key(&self, topic: &str, key: &Term) -> Vec<Presence> {
        let key = Key(key.clone());
        self.list(topic).into_iter().filter(|presence| Key(presence.key.clone()) == key).collect()
    }

    /// The nodes whose presences are listed.
    pub fn nodes(&self) -> impl Iterator<Item = &Atom> {
        self.replicas.iter().filter(|(_, known)| known.up).map(|(node, _)| node)
    }

    /// Makes a process of this node present. `phx_ref` is put into the metadata; it has to be new.
    ///
    /// # Errors
    /// [`TrackError`].
    pub fn track(
        &mut self,
        now: Mono,
        pid: &Pid,
        topic: &str,
        key: Term,
        meta: Term,
        phx_ref: &str,
    ) -> Result<(), TrackError> {
        if pid.node != self.state.replica.node {
            return Err(TrackError::NotLocal);
        }
        let subject = subject(pid, topic, key);
        if self.state.get(&subject).is_some() {
            return Err(TrackError::AlreadyTracked);
        }
        let first = self.state.subjects(pid).is_empty();
        self.set(now, subject, None, meta, phx_ref)?;
        if first {
            self.actions.push_back(Action::Monitor(pid.clone()));
        }
        Ok(())
    }

    /// Changes the metadata of a presence of this node.
    ///
    /// # Errors
    /// [`TrackError`].
    pub fn update(
        &mut self,
        now: Mono,
        pid: &Pid,
        topic: &str,
        key: Term,
        meta: Term,
        phx_ref: &str,
    ) -> Result<(), TrackError> {
        let subject = subject(pid, topic, key);
        let known = self.state.get(&subject).filter(|(_, tag)| tag.0 == self.state.replica);
        let (before, _) = known.cloned().ok_or(TrackError::NoPresence)?;
        self.set(now, subject, Some(&before), meta, phx_ref)
    }

    /// Gives a presence its metadata, in place of those before.
    fn set(
        &mut self,
        now: Mono,
        subject: Subject,
        before: Option<&Term>,
        meta: Term,
        phx_ref: &str,
    ) -> Result<(), TrackError> {
        let phx_ref = ("phx_ref", Term::binary(phx_ref.as_bytes()));
        let meta = match before {
            Some(before) => {
                let previous = wire::field(before, "phx_ref").cloned().unwrap_or_else(|| atom("nil"));
                with(meta, [phx_ref, ("phx_ref_prev", previous)])?
            }
            None => with(meta, [phx_ref])?,
        };
        let left = before.map(|before| presence(&subject, before));
        self.report(&subject.topic, vec![presence(&subject, &meta)], left.into_iter().collect());
        if before.is_some() {
            self.state.leave_join(&subject, meta);
        } else {
            self.state.join(subject, meta);
        }
        self.changed(now);
        Ok(())
    }

    /// Ends a presence of this node, if there is one.
    pub fn untrack(&mut self, now: Mono, pid: &Pid, topic: &str, key: Term) {
        self.leave(now, &subject(pid, topic, key));
        if self.state.subjects(pid).is_empty() {
            self.actions.push_back(Action::Demonitor(pid.clone()));
        }
    }

    /// Ends all presences of a process of this node.
    pub fn untrack_all(&mut self, now: Mono, pid: &Pid) {
        for subject in self.state.subjects(pid) {
            self.leave(now, &subject);
        }
        self.actions.push_back(Action::Demonitor(pid.clone()));
    }

    fn leave(&mut self, now: Mono, subject: &Subject) {
        let Some((meta, _)) = self.state.get(subject).filter(|(_, tag)| tag.0 == self.state.replica) else {
            return;
        };
        let gone = presence(subject, meta);
        self.report(&subject.topic, Vec::new(), vec![gone]);
        self.state.leave(subject);
        self.changed(now);
    }

    fn changed(&mut self, now: Mono) {
        self.flush_at.get_or_insert(now + self.config.flush_after);
    }

    fn report(&mut self, topic: &[u8], joins: Vec<Presence>, leaves: Vec<Presence>) {
        self.actions.push_back(Action::Diff(Diff { topic: topic.to_vec(), joins, leaves }));
    }

    fn report_values(&mut self, joins: &[Value], leaves: &[Value]) {
        let mut topics: BTreeMap<&[u8], (Vec<Presence>, Vec<Presence>)> = BTreeMap::new();
        for value in joins {
            topics.entry(&value.subject.topic).or_default().0.push(presence(&value.subject, &value.meta));
        }
        for value in leaves {
            topics.entry(&value.subject.topic).or_default().1.push(presence(&value.subject, &value.meta));
        }
        for (topic, (joins, leaves)) in topics {
            self.report(topic, joins, leaves);
        }
    }

    fn message(&mut self, now: Mono, message: Term) -> Option<()> {
        let (message, version) = Message::decode(message)?;
        if let Some(version) = version {
            self.with_version = version;
        }
        match message {
            Message::Heartbeat { from, delta, clocks } => {
                if from.node == self.state.replica.node {
                    return Some(());
                }
                self.heard(now, &from)?;
                if let Some(delta) = delta {
                    self.merge(delta);
                }
                self.append_clock(clocks);
            }
            Message::TransferRequest { reference, from, clocks } => {
                let state = self.state.extract(&from, &clocks);
                let message = wire::transfer_ack(reference, &self.state.replica, &state, self.with_version);
                self.actions.push_back(Action::Direct { node: from.node, message });
            }
            Message::TransferAck { from, state } => {
                // One that was forgotten meanwhile has nothing to say.
                if self.replicas.get(&from.node).is_some_and(|known| known.vsn == from.vsn) {
                    self.merge(state);
                }
            }
            Message::Permdown(replica) => {
                if self.replicas.get(&replica.node).is_some_and(|known| known.vsn == replica.vsn) {
                    self.replicas.remove(&replica.node);
                    self.down(&replica);
                    self.state.remove_replica(&replica);
                }
            }
        }
        Some(())
    }

    fn merge(&mut self, remote: Remote) {
        let (joins, leaves) = self.state.merge(remote, self.config.max_values);
        let listed = |value: &&Value| !self.state.down.contains(&value.tag.0);
        let joins: Vec<Value> = joins.iter().filter(listed).cloned().collect();
        let leaves: Vec<Value> = leaves.iter().filter(listed).cloned().collect();
        self.report_values(&joins, &leaves);
    }

    /// A replica has shown that it lives. `None` if there are too many.
    fn heard(&mut self, now: Mono, from: &Replica) -> Option<()> {
        let fresh = Known { vsn: from.vsn, heard_at: now, up: true };
        if !self.replicas.contains_key(&from.node) && self.replicas.len() >= REPLICAS {
            return None;
        }
        let before = self.replicas.insert(from.node.clone(), fresh);
        match before {
            Some(known) if known.vsn == from.vsn && known.up => return Some(()),
            Some(known) if known.vsn != from.vsn => {
                // The node has started again: what its earlier run had is gone for good.
                let old = Replica { node: from.node.clone(), vsn: known.vsn };
                if known.up {
                    self.down(&old);
                }
                self.state.remove_replica(&old);
            }
            _ => {}
        }
        let joins = self.state.replica_up(from);
        self.report_values(&joins, &[]);
        Some(())
    }

    fn down(&mut self, replica: &Replica) {
        let leaves = self.state.replica_down(replica);
        self.report_values(&[], &leaves);
    }

    fn beat(&mut self, now: Mono) {
        self.broadcast_heartbeat();
        self.request_transfers();
        self.detect_downs(now);
        self.beat_at = now + self.config.broadcast_period;
    }

    fn flush(&mut self) {
        self.flush_at = None;
        let delta = self.state.take_delta();
        let clocks = self.state.clocks();
        let message = wire::heartbeat(&self.state.replica, Some(&delta), &clocks, self.with_version);
        self.actions.push_back(Action::Broadcast(message));
        self.silent_periods = 0;
    }

    fn broadcast_heartbeat(&mut self) {
        if self.state.has_delta() {
            self.flush();
        } else if self.silent_periods >= self.config.max_silent_periods {
            let message = wire::heartbeat(&self.state.replica, None, &self.state.clocks(), self.with_version);
            self.actions.push_back(Action::Broadcast(message));
            self.silent_periods = 0;
        } else {
            self.silent_periods += 1;
        }
    }

    /// Asks those whose clocks are ahead, as often as clocks are compared.
    fn request_transfers(&mut self) {
        if self.samples_left > 1 {
            self.samples_left -= 1;
            return;
        }
        self.samples_left = self.config.clock_sample_periods;
        let own = self.state.clocks();
        self.append_clock((self.state.replica.clone(), own));
        for (replica, _) in core::mem::take(&mut self.pending) {
            if replica == self.state.replica {
                continue;
            }
            self.requests += 1;
            let message = wire::transfer_request(
                Term::Integer(self.requests),
                &self.state.replica,
                &self.state.clocks(),
            );
            self.actions.push_back(Action::Direct { node: replica.node, message });
        }
    }

    /// Keeps of the clocks heard of those that no other dominates (`Phoenix.Tracker.Clock.append_clock/2`).
    fn append_clock(&mut self, (replica, clock): (Replica, Context)) {
        if clock.is_empty() || self.pending.len() >= REPLICAS {
            return;
        }
        let mut all = Context::new();
        for (_, known) in &self.pending {
            for (replica, clock) in known {
                let highest = all.entry(replica.clone()).or_default();
                *highest = (*highest).max(*clock);
            }
        }
        if dominates(&clock, &all) {
            self.pending = vec![(replica, clock)];
        } else if !dominates(&all, &clock) {
            self.pending.retain(|(_, known)| !dominates(&clock, known));
            self.pending.push((replica, clock));
        }
    }

    fn detect_downs(&mut self, now: Mono) {
        let silent = |known: &Known, period: Duration| now.saturating_since(known.heard_at) > period;
        let mut down = Vec::new();
        for (node, known) in &mut self.replicas {
            if known.up && silent(known, self.config.down_period) {
                known.up = false;
                down.push(Replica { node: node.clone(), vsn: known.vsn });
            }
        }
        for replica in down {
            self.down(&replica);
        }
        let gone: Vec<Replica> = self
            .replicas
            .iter()
            .filter(|(_, known)| silent(known, self.config.permdown_period))
            .map(|(node, known)| Replica { node: node.clone(), vsn: known.vsn })
            .collect();
        for replica in gone {
            self.replicas.remove(&replica.node);
            self.state.remove_replica(&replica);
        }
    }
}

impl Machine for Shard {
    type Event = Event;
    type Action = Action;

    fn handle(&mut self, now: Mono, event: Event) {
        match event {
            Event::Message(message) => {
                if self.message(now, message).is_none() {
                    self.ignored += 1;
                }
            }
            Event::Down(pid) => {
                for subject in self.state.subjects(&pid) {
                    self.leave(now, &subject);
                }
            }
            Event::GracefulPermdown => {
                self.actions.push_back(Action::Broadcast(wire::permdown(&self.state.replica)));
            }
        }
    }

    fn handle_timeout(&mut self, now: Mono) {
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush();
        }
        if self.beat_at <= now {
            self.beat(now);
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Mono> {
        Some(self.flush_at.map_or(self.beat_at, |at| at.min(self.beat_at)))
    }
}

/// Whether the first is at least as far as the second for all replicas (`Phoenix.Tracker.Clock.dominates?/2`).
fn dominates(one: &Context, other: &Context) -> bool {
    one.len() >= other.len()
        && other.iter().all(|(replica, clock)| one.get(replica).copied().unwrap_or_default() >= *clock)
}

fn subject(pid: &Pid, topic: &str, key: Term) -> Subject {
    Subject { topic: topic.as_bytes().to_vec(), key: Key(key), pid: pid.clone() }
}

fn presence(subject: &Subject, meta: &Term) -> Presence {
    Presence { pid: subject.pid.clone(), key: subject.key.0.clone(), meta: meta.clone() }
}

/// A map with further pairs in place of those with the same keys.
fn with<const N: usize>(map: Term, pairs: [(&'static str, Term); N]) -> Result<Term, TrackError> {
    let Term::Map(map) = map else { return Err(TrackError::NotAMap) };
    let mut all = map.into_vec();
    all.retain(|(key, _)| !pairs.iter().any(|(name, _)| key.is_atom(name)));
    all.extend(pairs.map(|(name, value)| (atom(name), value)));
    Ok(Term::Map(all.into_iter().collect::<Map>()))
}
