//! A service mesh: who offers what, how well they are, and who gets the next piece of work.
//!
//! # How it works
//!
//! Services stand in a registry of names between our own nodes ([`names`], keys duplicate), whose protocol this machine speaks
//! unchanged under the mesh's name; so what holds there holds here: read-your-writes, deltas at once, names that
//! come back with their node, silence when nothing changes.
//!
//! | key | process | value |
//! |---|---|---|
//! | `{service, Name, Pid}` | of the service | `{1, Capabilities, Metadata, RegisteredAt, Health}` |
//! | `load` | of the mesh | `#{cpu, memory, load, processors}`: how busy the machine is |
//!
//! Each node checks what it has registered, and writes what comes of it into the registration. It measures its own load and tells
//! it when a figure has changed by a step. A node that tells nothing is unknown, never idle.
//!
//! Callers without this library use `GenServer.call/3`: see `calls`.

mod calls;
mod check;
mod config;
mod event;
mod index;
mod load;
mod query;
mod route;
mod service;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, Term};

use crate::message::atom;
use crate::mutant::LeftOut;
use crate::names::{self, Entry, Keys, Names, OnConflict};
use crate::{Key, Machine};
pub use check::{Check, HealthCheck, OnFailure, Rules};
use check::{Checks, Verdict};
pub use config::Config;
pub use event::{Action, Change, Command, Event, Outcome, Registration};
use index::Index;
pub use load::{Load, Sample};
pub use query::{BadQuery, Query, Wanted};
use route::Balancer;
pub use route::{Constraints, RouteError, Routing, Strategy};
pub use service::{Health, Service};
use service::{MAX_CAPABILITIES, key, name_of};

/// The number of the registry's commands that are this machine's own.
const OWN: u64 = 0;
/// How long after the first measurement of the load the second one comes: what the processors do needs two.
const SECOND_MEASUREMENT: Duration = Duration::from_secs(1);

/// The mesh of one name on one node; see the [module documentation](self).
#[derive(Debug)]
pub struct Mesh {
    names: Names,
    me: Pid,
    config: Config,
    now: Mono,
    index: Index,
    loads: BTreeMap<Atom, Load>,
    balancer: Balancer,
    checks: Checks,
    sample: Option<Sample>,
    told: Option<Load>,
    measure_at: Option<Mono>,
    probes: u64,
    /// Entries of the registry that are not understood.
    ignored: u64,
    actions: VecDeque<Action>,
    mutant: LeftOut<Mutant>,
}

/// A rule that is left out on purpose, to see that the simulation notices.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mutant {
    /// What comes of checks is not written.
    ForgetMarks,
    /// Each measurement of the load is told.
    TellAll,
    /// A check that is late has succeeded.
    TrustLate,
    /// Unhealthy instances are chosen.
    ChooseUnhealthy,
    /// Nobody is told of another health.
    UntoldHealth,
    /// Whoever registers again stays what it was.
    KeepFirst,
}

impl Mesh {
    /// An empty mesh of this name, whose process on this node is `me`.
    pub fn new(name: Atom, me: Pid, config: Config) -> Self {
        let mut registry = config.names.clone();
        registry.keys = Keys::Duplicate;
        Self {
            names: Names::new(name, me.clone(), registry),
            me,
            now: Mono::ZERO,
            index: Index::default(),
            loads: BTreeMap::new(),
            balancer: Balancer::default(),
            checks: Checks::default(),
            sample: None,
            told: None,
            measure_at: config.load_interval.map(|_| Mono::ZERO),
            probes: 0,
            ignored: 0,
            actions: VecDeque::new(),
            config,
            mutant: LeftOut::default(),
        }
    }

    /// The registry below.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The instances that meet all criteria, the one registered first in front.
    pub fn discover(&self, query: &Query) -> Vec<Arc<Service>> {
        let mut found: Vec<Arc<Service>> = match &query.name {
            Some(name) => self.index.of_name(name).filter(|one| query.matches(one)).cloned().collect(),
            None => self.index.iter().filter(|one| query.matches(one)).cloned().collect(),
        };
        found.sort_by(|a, b| {
            let by_age = a.registered_at.cmp(&b.registered_at);
            by_age.then_with(|| a.pid.cmp(&b.pid)).then_with(|| a.name.cmp_exact(&b.name))
        });
        found
    }

    /// How many instances are found.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries of other nodes that are not understood, counted since the start.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// How busy the machines of the nodes in reach are, as far as they tell.
    pub fn loads(&self) -> &BTreeMap<Atom, Load> {
        &self.loads
    }

    /// Chooses an instance of a service. `random` is any number, for [`Strategy::Random`].
    ///
    /// # Errors
    /// [`RouteError`].
    pub fn pick(&mut self, name: &Term, routing: &Routing, random: u64) -> Result<Arc<Service>, RouteError> {
        let found = self.index.of_name(name).filter(|one| routing.query.matches_but_name(one)).cloned();
        let candidates = if self.mutant.is(Mutant::ChooseUnhealthy) {
            found.collect()
        } else {
            route::candidates(found, &routing.constraints, &self.loads)?
        };
        let chosen = self.balancer.choose(name, candidates, routing.strategy, random);
        chosen.ok_or(RouteError::NoInstance { unhealthy: 0 })
    }

    /// A connection to a process begins: what [`Strategy::LeastConnections`] counts.
    pub fn begin(&mut self, pid: &Pid) {
        self.balancer.begin(pid);
    }

    /// It ends.
    pub fn end(&mut self, pid: &Pid) {
        self.balancer.end(pid);
    }

    /// How many connections to a process have begun and not ended.
    pub fn connections(&self, pid: &Pid) -> u32 {
        self.balancer.connections(pid)
    }

    // -- the services of this node -------------------------------------------------------------------------------------

    /// `caller` is the node that asked by a call; it may name code for its own processes only.
    fn register(&mut self, what: Registration, caller: Option<&Atom>, wall: i64) -> Outcome {
        let Registration { name, pid, capabilities, mut metadata, health_check } = what;
        if pid.node != self.me.node && self.names.members().any(|node| *node == pid.node) {
            return Outcome::RemoteProcess;
        }
        if capabilities.len() > MAX_CAPABILITIES {
            return Outcome::TooLarge;
        }
        let defaults = self.config.checks;
        let check = match (health_check, metadata.get_atom("health_check")) {
            (None, Some(said)) => match HealthCheck::read(said, &defaults) {
                Some(check) => Some(check),
                None => return Outcome::BadHealthCheck,
            },
            (check, _) => check,
        };
        let named = check.as_ref().is_some_and(|check| check.check.is_named_code());
        if named && caller.is_some_and(|caller| *caller != pid.node) {
            return Outcome::BadHealthCheck;
        }
        let health = metadata.get_atom("health").and_then(Health::of);
        if health.is_some() {
            metadata.remove(&atom("health"));
        }
        let service = Service {
            name,
            pid,
            registrar: self.me.node.clone(),
            capabilities,
            metadata,
            registered_at: wall,
            health: health.unwrap_or_default(),
        };
        let id = (Key(service.name.clone()), service.pid.clone());
        if self.mutant.is(Mutant::KeepFirst) && self.own(&id).is_some() {
            return Outcome::Done;
        }
        let outcome = self.write(&service, wall);
        if outcome == Outcome::Done {
            self.check_no_more(&id);
            if let Some(HealthCheck { check, rules }) = check {
                self.checks.insert(self.now, id, check, rules.unwrap_or(defaults));
            }
        }
        outcome
    }

    /// Writes a service of this node into the registry.
    fn write(&mut self, service: &Service, wall: i64) -> Outcome {
        let (key, pid, value) = (key(&service.name, &service.pid), service.pid.clone(), service.value());
        self.put(key, pid, value, wall)
    }

    fn put(&mut self, key: Term, pid: Pid, value: Term, wall: i64) -> Outcome {
        let on_conflict = OnConflict::default();
        let update = names::Command::UpdateValue { key: key.clone(), pid: pid.clone(), value: value.clone() };
        match self.registry(update, wall) {
            names::Outcome::NotRegistered => {
                let register = names::Command::Register { key, pid, value, on_conflict };
                outcome(self.registry(register, wall))
            }
            other => outcome(other),
        }
    }

    fn deregister(&mut self, name: &Term, pid: &Pid) -> Outcome {
        outcome(self.registry(names::Command::Unregister { key: key(name, pid), pid: pid.clone() }, 0))
    }

    fn mark(&mut self, name: &Term, pid: &Pid, health: Health) -> Outcome {
        match self.index.registered_by(name, pid, &self.me.node) {
            None => Outcome::NotRegistered,
            Some(service) if service.health == health || self.mutant.is(Mutant::ForgetMarks) => Outcome::Done,
            Some(service) => {
                let service = Service { health, ..Service::clone(service) };
                self.write(&service, 0)
            }
        }
    }

    /// Carries out a command of the registry that is done at once.
    fn registry(&mut self, what: names::Command, wall: i64) -> names::Outcome {
        self.names.handle(self.now, names::Event::Command { command: OWN, what, wall });
        // Not to the end, which would send each write in a message of its own.
        while let Some(action) = self.names.poll_action() {
            if let names::Action::Done { command: OWN, outcome } = action {
                return outcome;
            }
            self.take(action);
        }
        names::Outcome::SystemLimit
    }

    // -- what the registry says ----------------------------------------------------------------------------------------

    fn take(&mut self, action: names::Action) {
        match action {
            names::Action::Changed(changes) => self.changed(changes),
            names::Action::Done { command, outcome: how } => {
                self.actions.push_back(Action::Done { command, outcome: outcome(how) });
            }
            other => self.actions.push_back(Action::Registry(other)),
        }
    }

    fn changed(&mut self, changes: Vec<names::Change>) {
        let mut told = Vec::new();
        for change in changes {
            let (entry, there) = match &change {
                names::Change::Added(entry) | names::Change::Updated(entry) => (entry, true),
                names::Change::Removed(entry) => (entry, false),
                // Keys are duplicate: nobody is in anybody's way.
                _ => continue,
            };
            if let Some(name) = name_of(entry) {
                told.extend(self.service(name, entry, there));
            } else if entry.key.0.is_atom("load") && entry.pid.node == entry.node {
                match Load::read(&entry.value).filter(|load| there && load.is_known()) {
                    Some(load) => self.loads.insert(entry.node.clone(), load),
                    None => self.loads.remove(&entry.node),
                };
            } else {
                self.ignored += 1;
            }
        }
        if !told.is_empty() {
            self.actions.push_back(Action::Changed(told));
        }
    }

    fn service(&mut self, name: &Term, entry: &Entry, there: bool) -> Option<Change> {
        let service = if there { Service::read(entry) } else { None };
        self.ignored += u64::from(there && service.is_none());
        if entry.node == self.me.node && service.is_none() {
            self.check_no_more(&(Key(name.clone()), entry.pid.clone()));
        }
        let replaced = self.index.set(name, &entry.pid, &entry.node, service);
        match (replaced.before, replaced.after) {
            (None, Some(after)) => Some(Change::Registered(after)),
            (Some(before), None) => {
                let last = !self.index.has_name(name);
                self.balancer.forget(name, &entry.pid, last);
                Some(Change::Deregistered(before))
            }
            (Some(before), Some(after)) if before != after => {
                let same = Service { health: after.health, ..Service::clone(&before) };
                let health = same == *after;
                (!health || !self.mutant.is(Mutant::UntoldHealth))
                    .then(|| if health { Change::Health(after) } else { Change::Updated(after) })
            }
            _ => None,
        }
    }

    // -- checks --------------------------------------------------------------------------------------------------------

    fn check_no_more(&mut self, id: &check::Id) {
        if let Some((check, probe)) = self.checks.remove(id) {
            self.actions.extend(probe.map(Action::Abandon));
            if let Check::Custom(function) = check {
                self.actions.push_back(Action::Release(function));
            }
        }
    }

    fn own(&self, (name, pid): &check::Id) -> Option<&Arc<Service>> {
        self.index.registered_by(&name.0, pid, &self.me.node)
    }

    fn start_checks(&mut self) {
        while let Some((id, check, timeout)) =
            self.checks.due(self.now, self.config.max_probes.max(1), self.probes + 1)
        {
            self.probes += 1;
            let probe = self.probes;
            match self.own(&id).cloned() {
                Some(service) => {
                    self.actions.push_back(Action::Probe { probe, service, check, timeout });
                }
                None => {
                    self.checks.remove(&id);
                }
            }
        }
    }

    fn probed(&mut self, probe: u64, well: bool) {
        let Some(service) = self.checks.of_probe(probe).and_then(|id| self.own(id)).cloned() else { return };
        let Some((_, verdict)) = self.checks.ended(self.now, probe, well, service.health) else { return };
        match verdict {
            Verdict::Nothing => {}
            Verdict::Well => {
                self.actions.push_back(Action::CheckSucceededAgain(Arc::clone(&service)));
                self.mark(&service.name, &service.pid, Health::Healthy);
            }
            Verdict::Failed { failures, mark, deregister, say } => {
                let action = match mark {
                    _ if deregister => "deregistering",
                    Some(Health::Unhealthy) => "marking_unhealthy",
                    Some(Health::Degraded) => "marking_degraded",
                    _ => "retrying",
                };
                if say {
                    self.actions.push_back(Action::CheckFailed {
                        service: Arc::clone(&service),
                        consecutive_failures: failures,
                        action,
                    });
                }
                if deregister {
                    self.deregister(&service.name, &service.pid);
                } else if let Some(health) = mark {
                    self.mark(&service.name, &service.pid, health);
                }
            }
        }
    }

    // -- the load ------------------------------------------------------------------------------------------------------

    fn measured(&mut self, sample: Sample, wall: i64) {
        let load = Load::measured(self.sample.replace(sample), &sample);
        let differs = self.told.map_or(load.is_known(), |told| load.differs(&told, self.config.load_step));
        if differs || self.mutant.is(Mutant::TellAll) {
            // No room in the registry: it is tried again with the next measurement.
            if self.put(atom("load"), self.me.clone(), load.term(), wall) == Outcome::Done {
                self.told = Some(load);
            }
        }
    }

    fn time(&mut self) {
        while let Some(probe) = self.checks.late(self.now) {
            self.actions.push_back(Action::Abandon(probe));
            self.probed(probe, self.mutant.is(Mutant::TrustLate));
        }
        self.start_checks();
        if let (Some(at), Some(interval)) = (self.measure_at, self.config.load_interval)
            && at <= self.now
        {
            self.actions.push_back(Action::Measure);
            let interval = interval.max(SECOND_MEASUREMENT);
            let next = if self.sample.is_none() { SECOND_MEASUREMENT } else { interval };
            self.measure_at = Some(self.now + next);
        }
    }
}

fn outcome(outcome: names::Outcome) -> Outcome {
    match outcome {
        names::Outcome::Done => Outcome::Done,
        names::Outcome::NotRegistered => Outcome::NotRegistered,
        names::Outcome::TooLarge => Outcome::TooLarge,
        names::Outcome::Timeout(nodes) => Outcome::Timeout(nodes),
        _ => Outcome::SystemLimit,
    }
}

impl Machine for Mesh {
    type Event = Event;
    type Action = Action;

    fn handle(&mut self, now: Mono, event: Event) {
        self.now = now;
        match event {
            Event::NodeUp(node) => self.names.handle(now, names::Event::NodeUp(node)),
            Event::NodeDown(node) => self.names.handle(now, names::Event::NodeDown(node)),
            Event::Message { message, wall, random } => {
                if let Some(message) = self.call(message, wall, random) {
                    self.names.handle(now, names::Event::Message { message, wall });
                }
            }
            Event::Down(monitor) => self.names.handle(now, names::Event::Down(monitor)),
            Event::Command { command, what, wall } => {
                let outcome = match what {
                    Command::Register(what) => self.register(what, None, wall),
                    Command::Deregister { name, pid } => self.deregister(&name, &pid),
                    Command::Mark { name, pid, health } => self.mark(&name, &pid, health),
                    Command::WaitUntilAll { name, pid, timeout } => {
                        let what = names::Command::WaitUntilAll { key: key(&name, &pid), timeout };
                        return self.names.handle(now, names::Event::Command { command, what, wall });
                    }
                };
                self.actions.push_back(Action::Done { command, outcome });
            }
            Event::Probed { probe, well } => {
                self.probed(probe, well);
                self.start_checks();
            }
            Event::Measured { sample, wall } => self.measured(sample, wall),
        }
    }

    fn handle_timeout(&mut self, now: Mono) {
        self.now = now;
        self.names.handle_timeout(now);
        self.time();
    }

    fn poll_action(&mut self) -> Option<Action> {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Some(action);
            }
            let action = self.names.poll_action()?;
            self.take(action);
        }
    }

    fn poll_timeout(&self) -> Option<Mono> {
        let checks = self.checks.next(self.config.max_probes.max(1));
        self.names.poll_timeout().into_iter().chain(checks).chain(self.measure_at).min()
    }
}
