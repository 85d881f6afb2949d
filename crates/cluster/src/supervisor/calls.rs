//! What programs ask for, here and with `GenServer.call({Supervisor, Node}, Request)` from any node without this library.
//!
//! A specification is a map with `id` and `factory`, and any of `argument`, `restart`, `max_restarts`, `max_seconds`, `placement`,
//! `requirement` and `shutdown` (milliseconds): see [`ChildSpec`].
//!
//! | request | answer |
//! |---|---|
//! | `{:start_singleton, spec}` | `{:ok, pid}` when it runs; `{:error, {:already_started, pid}}` |
//! | `{:start_replicated, spec}` | `{:ok, [{node, pid}]}` when it runs on all nodes in reach with the factory |
//! | `{:start_partitioned, spec, count}` | `{:ok, [{number, pid}]}` when all of them run |
//! | `{:start_child, spec}` | as one of these, by the `kind` of the map: `:singleton`, `:replicated`, `{:partitioned, count}` |
//! | `{:lookup_singleton, id}` | `{:ok, pid}` or `{:error, :not_found}` |
//! | `{:lookup, id}` | `[{part, node, status, pid}]`: `part` is `:only`, a number or a node, `status` `:starting`, `:running`, `:stopping`, `{:moving, node}`, `{:failed, reason}` or `:missing`, `pid` may be `:undefined` |
//! | `:which_children` | as `Supervisor.which_children/1`: `[{id, pid, :worker, [factory]}]`, of all nodes; of several processes of one child the id is `{id, part}`; `:restarting` or `:undefined` stands for a process that is not there |
//! | `:places` | `[{id, part, node, status, pid}]` of all children, as `lookup` |
//! | `:count_children` | as `Supervisor.count_children/1`: `[specs:, active:, supervisors:, workers:]` |
//! | `{:get_childspec, id}` | `{:ok, spec}` or `{:error, :not_found}` |
//! | `{:terminate_child, id}` | `:ok` when nothing of it is left in reach; `id` or the pid of one of its processes |
//! | `{:restart_child, id}` | `:ok`: what was given up is tried again |
//! | `{:migrate, id, node}`, `{:migrate, id, part, node}` | `:ok` when that node has it |
//! | `:drain` | `:ok` when the node that is called has no children any more |
//! | `:members` | `[{node, :alive \| :leaving, [factory]}]` |
//!
//! Errors are `{:error, reason}`: `:not_found`, `:no_factory`, `:no_members`, `:no_such_node`, `{:given_up, reason}`, `:timeout` (after
//! [`Config::wait`](super::Config::wait); what was asked for still counts), `:bad_spec`, `:system_limit`; `:badarg` for another request.

use std::collections::BTreeSet;
use std::sync::Arc;

use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, Term, encoded_len};

use super::event::{Action, Command, Outcome, Place, Status, To};
use super::spec::{Child, ChildSpec, Kind, Part};
use super::specs::Item;
use super::{Supervisor, wire};
use crate::Key;
use crate::message::{atom, list_of, tuple_of};

/// A caller that waits.
#[derive(Debug)]
pub(super) struct Wait {
    what: Awaited,
    pub(super) deadline: Mono,
    waiter: Waiter,
}

#[derive(Debug)]
enum Awaited {
    /// All of a child runs.
    Running(Key),
    /// Nothing of it is left.
    Gone(Key),
    /// The node that has it has moved it.
    Migrated(Atom),
    /// This node has no children.
    Drained,
}

/// Who is told.
#[derive(Clone, Debug)]
pub(super) enum Waiter {
    Command(u64),
    Call(Term),
    /// Another supervisor that asked for a migration.
    Peer(Pid, u64),
}

impl PartialEq for Waiter {
    fn eq(&self, _: &Self) -> bool {
        // Never two for one thing.
        true
    }
}

impl Eq for Waiter {}

/// An outcome as callers get it; `kind` decides how processes are shown.
pub fn reply(outcome: &Outcome) -> Term {
    let error = |why| tuple_of([atom("error"), why]);
    match outcome {
        Outcome::Done => atom("ok"),
        Outcome::Started(pids) => tuple_of([atom("ok"), pids_term(pids)]),
        Outcome::AlreadyStarted(pids) if pids.is_empty() => error(atom("already_present")),
        Outcome::AlreadyStarted(pids) => error(tuple_of([atom("already_started"), pids_term(pids)])),
        Outcome::NotFound => error(atom("not_found")),
        Outcome::NoFactory => error(atom("no_factory")),
        Outcome::NoMembers => error(atom("no_members")),
        Outcome::NoSuchNode => error(atom("no_such_node")),
        Outcome::GivenUp(reason) => error(tuple_of([atom("given_up"), reason.clone()])),
        Outcome::Timeout => error(atom("timeout")),
        Outcome::BadSpec => error(atom("bad_spec")),
        Outcome::SystemLimit => error(atom("system_limit")),
    }
}

fn pids_term(pids: &[(Part, Pid)]) -> Term {
    match pids {
        [(Part::Only, pid)] => Term::from(pid),
        many => list_of(many.iter().map(|(part, pid)| tuple_of([part.to_term(), Term::from(pid)]))),
    }
}

impl Supervisor {
    pub(super) fn answer(&mut self, waiter: Waiter, outcome: Outcome) {
        match waiter {
            Waiter::Command(command) => self.actions.push_back(Action::Done { command, outcome }),
            Waiter::Call(from) => self.actions.push_back(Action::Reply { from, reply: reply(&outcome) }),
            Waiter::Peer(pid, number) => {
                let done = wire::migrated(&self.me, number, outcome == Outcome::Done);
                self.send(&pid, done);
            }
        }
    }

    pub(super) fn command(&mut self, command: u64, what: Command) {
        let waiter = Waiter::Command(command);
        match what {
            Command::StartChild(spec) => self.start_child(*spec, waiter),
            Command::TerminateChild(id) => self.terminate_child(Key(id), waiter),
            Command::RestartChild(id) => self.restart_child(Key(id), waiter),
            Command::Migrate { id, part, to } => {
                self.find_and_migrate(&Child { id: Key(id), part }, to, waiter);
            }
            Command::Drain => self.drain(waiter),
        }
    }

    // -- requests ------------------------------------------------------------------------------------------------------

    fn start_child(&mut self, spec: ChildSpec, waiter: Waiter) {
        let id = Key(spec.id.clone());
        if self.specs.get(&id).is_some() {
            let there = self.pids(&id);
            return self.answer(waiter, Outcome::AlreadyStarted(there));
        }
        let fits = encoded_len(&spec.to_term()).is_ok_and(|size| size <= self.config.max_bytes);
        if !spec.is_valid() || !fits {
            return self.answer(waiter, Outcome::BadSpec);
        }
        if spec.needs_members() && self.config.members.is_empty() {
            return self.answer(waiter, Outcome::NoMembers);
        }
        if self.candidates(&spec.factory).is_empty() {
            return self.answer(waiter, Outcome::NoFactory);
        }
        let reserved: usize = self.specs().map(|spec| spec.items()).sum();
        if reserved.saturating_add(spec.items()) > self.config.max_children {
            return self.answer(waiter, Outcome::SystemLimit);
        }
        let claim = self.wall();
        self.write(Some(Item::Spec { claim, spec: Arc::new(spec) }), Vec::new());
        self.wait(Awaited::Running(id), waiter);
    }

    fn terminate_child(&mut self, id: Key, waiter: Waiter) {
        let dots = self.specs.dots(&id);
        if dots.is_empty() {
            return self.answer(waiter, Outcome::NotFound);
        }
        self.write(None, dots);
        self.wait(Awaited::Gone(id), waiter);
    }

    fn restart_child(&mut self, id: Key, waiter: Waiter) {
        if self.specs.get(&id).is_none() {
            return self.answer(waiter, Outcome::NotFound);
        }
        self.restart_failed(&id);
        let me = &self.me;
        let others = self.members.values().filter(|member| member.pid != *me);
        let to: Vec<To> = others.map(|member| To::Pid(member.pid.clone())).collect();
        if !to.is_empty() {
            self.actions.push_back(Action::Send { to, message: wire::restart(&id) });
        }
        self.answer(waiter, Outcome::Done);
    }

    fn find_and_migrate(&mut self, child: &Child, to: Atom, waiter: Waiter) {
        if self.running.contains_key(child) {
            return self.migrate(child, to, waiter);
        }
        let Some(place) = self.place(child) else { return self.answer(waiter, Outcome::NotFound) };
        if place.node == to {
            return self.answer(waiter, Outcome::Done);
        }
        let Some(owner) = self.members.get(&place.node).map(|member| member.pid.clone()) else {
            return self.answer(waiter, Outcome::NotFound);
        };
        let Some(number) = self.wait(Awaited::Migrated(place.node), waiter) else { return };
        let message = wire::migrate(&self.me, number, child, &to);
        self.send(&owner, message);
    }

    pub(super) fn asked_to_migrate(&mut self, from: Pid, number: u64, child: Child, to: Atom) {
        self.migrate(&child, to, Waiter::Peer(from, number));
    }

    pub(super) fn migrated(&mut self, from: &Pid, number: u64, done: bool) {
        let by = |wait: &Wait| matches!(&wait.what, Awaited::Migrated(node) if *node == from.node);
        if self.waits.get(&number).is_some_and(by)
            && let Some(wait) = self.waits.remove(&number)
        {
            self.answer(wait.waiter, if done { Outcome::Done } else { Outcome::NoSuchNode });
        }
    }

    /// A node is out of reach: it does not answer.
    pub(super) fn owner_lost(&mut self, node: &Atom) {
        let by = |wait: &Wait| matches!(&wait.what, Awaited::Migrated(owner) if owner == node);
        let over: Vec<u64> =
            self.waits.iter().filter(|(_, wait)| by(wait)).map(|(number, _)| *number).collect();
        for number in over {
            if let Some(wait) = self.waits.remove(&number) {
                self.answer(wait.waiter, Outcome::NotFound);
            }
        }
    }

    fn drain(&mut self, waiter: Waiter) {
        if !self.leaving {
            self.leaving = true;
            self.publish_member();
            self.everything = true;
        }
        self.wait(Awaited::Drained, waiter);
    }

    // -- waiting -------------------------------------------------------------------------------------------------------

    fn wait(&mut self, what: Awaited, waiter: Waiter) -> Option<u64> {
        if self.waits.len() >= self.config.max_waits {
            self.answer(waiter, Outcome::SystemLimit);
            return None;
        }
        if let Awaited::Running(id) | Awaited::Gone(id) = &what {
            self.dirty.insert(Child { id: id.clone(), part: Part::Only });
        }
        let number = self.number();
        let deadline = self.now + self.config.wait;
        self.waits.insert(number, Wait { what, deadline, waiter });
        Some(number)
    }

    /// Tells those that wait for children of these ids, and for none at all.
    pub(super) fn check_waits(&mut self, touched: &BTreeSet<Key>) {
        if self.waits.is_empty() {
            return;
        }
        let mut over = Vec::new();
        for (number, wait) in &self.waits {
            let outcome = match &wait.what {
                Awaited::Running(id) if touched.contains(id) => self.is_running(id),
                Awaited::Gone(id) if touched.contains(id) => self.is_gone(id).then_some(Outcome::Done),
                Awaited::Drained => {
                    let empty = self.running.is_empty() && self.outgoing.is_empty();
                    empty.then_some(Outcome::Done)
                }
                _ => None,
            };
            over.extend(outcome.map(|outcome| (*number, outcome)));
        }
        for (number, outcome) in over {
            if let Some(wait) = self.waits.remove(&number) {
                self.answer(wait.waiter, outcome);
            }
        }
    }

    pub(super) fn waits_due(&mut self) {
        let now = self.now;
        let over = self.waits.iter().filter(|(_, wait)| wait.deadline <= now);
        let over: Vec<u64> = over.map(|(number, _)| *number).collect();
        for number in over {
            if let Some(wait) = self.waits.remove(&number) {
                self.answer(wait.waiter, Outcome::Timeout);
            }
        }
    }

    /// All parts of a child, wherever they are to be, with what is known of each.
    fn parts(&self, id: &Key) -> Vec<(Part, Option<Place>)> {
        let Some((_, spec)) = self.specs.get(id) else { return Vec::new() };
        let parts = match spec.kind {
            Kind::Replicated => self.candidates(&spec.factory).into_iter().map(Part::Node).collect(),
            _ => spec.parts(&self.me.node),
        };
        let place = |part: Part| {
            let place = self.place(&Child { id: id.clone(), part: part.clone() });
            (part, place)
        };
        parts.into_iter().map(place).collect()
    }

    fn pids(&self, id: &Key) -> Vec<(Part, Pid)> {
        let pid = |(part, place): (Part, Option<Place>)| Some((part, place?.pid?));
        self.parts(id).into_iter().filter_map(pid).collect()
    }

    /// How a wait for a child ends, if it does now.
    fn is_running(&self, id: &Key) -> Option<Outcome> {
        if self.specs.get(id).is_none() {
            return Some(Outcome::NotFound);
        }
        let mut pids = Vec::new();
        let mut missing = false;
        for (part, place) in self.parts(id) {
            match place.map(|place| (place.status, place.pid)) {
                Some((Status::Failed(reason), _)) => return Some(Outcome::GivenUp(reason)),
                Some((Status::Running, Some(pid))) => pids.push((part, pid)),
                _ => missing = true,
            }
        }
        (!missing).then_some(Outcome::Started(pids))
    }

    fn is_gone(&self, id: &Key) -> bool {
        // A child that was started anew meanwhile is another.
        self.specs.get(id).is_some()
            || (!self.running.keys().any(|child| child.id == *id)
                && !self.places().iter().any(|place| place.id == *id))
    }

    // -- calls ---------------------------------------------------------------------------------------------------------

    pub(super) fn call(&mut self, from: Term, request: Term) -> Option<()> {
        let answer = match &request {
            Term::Atom(word) => match word.as_str() {
                "which_children" => Some(self.which_children()),
                "count_children" => Some(self.count_children()),
                "places" => Some(self.places_term()),
                "members" => Some(self.members_term()),
                "drain" => {
                    self.drain(Waiter::Call(from));
                    return Some(());
                }
                _ => None,
            },
            Term::Tuple(elements) => {
                let Some(Term::Atom(word)) = elements.first() else { return self.bad(from) };
                match self.request(word.as_str(), elements, &from) {
                    Some(Answer::Now(answer)) => Some(answer),
                    Some(Answer::Later) => return Some(()),
                    None => None,
                }
            }
            _ => None,
        };
        let Some(reply) = answer else { return self.bad(from) };
        self.actions.push_back(Action::Reply { from, reply });
        Some(())
    }

    fn bad(&mut self, from: Term) -> Option<()> {
        let reply = tuple_of([atom("error"), atom("badarg")]);
        self.actions.push_back(Action::Reply { from, reply });
        None
    }

    fn request(&mut self, word: &str, elements: &[Term], from: &Term) -> Option<Answer> {
        let waiter = || Waiter::Call(from.clone());
        let not_found = || tuple_of([atom("error"), atom("not_found")]);
        let kind = match (word, elements) {
            ("start_singleton", [_, _]) => Some(Kind::Singleton),
            ("start_replicated", [_, _]) => Some(Kind::Replicated),
            ("start_partitioned", [_, _, count]) => {
                Some(Kind::Partitioned(u32::try_from(count.as_i64()?).ok()?))
            }
            _ => None,
        };
        match (word, elements) {
            ("start_singleton" | "start_replicated" | "start_partitioned" | "start_child", [_, spec, ..]) => {
                match ChildSpec::from_term(spec) {
                    Some(spec) => {
                        let spec = ChildSpec { kind: kind.unwrap_or(spec.kind), ..spec };
                        self.start_child(spec, waiter());
                    }
                    None => self.answer(waiter(), Outcome::BadSpec),
                }
            }
            ("lookup_singleton", [_, id]) => {
                let pid = self.lookup(id, &Part::Only).and_then(|place| place.pid);
                let found = pid.map(|pid| tuple_of([atom("ok"), Term::Pid(pid)]));
                return Some(Answer::Now(found.unwrap_or_else(not_found)));
            }
            ("lookup", [_, id]) => {
                let parts = self.parts(&Key(id.clone()));
                return Some(Answer::Now(list_of(parts.into_iter().map(|place| tuple_of(shown(place))))));
            }
            ("get_childspec", [_, id]) => {
                let spec = self.spec(id).map(|spec| tuple_of([atom("ok"), spec.to_term()]));
                return Some(Answer::Now(spec.unwrap_or_else(not_found)));
            }
            ("terminate_child", [_, Term::Pid(pid)]) => {
                let of_pid = |place: &Place| place.pid.as_ref() == Some(pid);
                match self.places().into_iter().find(of_pid) {
                    Some(place) => self.terminate_child(place.id, waiter()),
                    None => return Some(Answer::Now(not_found())),
                }
            }
            ("terminate_child", [_, id]) => self.terminate_child(Key(id.clone()), waiter()),
            ("restart_child", [_, id]) => self.restart_child(Key(id.clone()), waiter()),
            ("migrate", [_, id, Term::Atom(to)]) => {
                let child = Child { id: Key(id.clone()), part: Part::Only };
                self.find_and_migrate(&child, to.clone(), waiter());
            }
            ("migrate", [_, id, part, Term::Atom(to)]) => {
                let child = Child { id: Key(id.clone()), part: Part::from_term(part)? };
                self.find_and_migrate(&child, to.clone(), waiter());
            }
            _ => return None,
        }
        Some(Answer::Later)
    }

    fn places_term(&self) -> Term {
        let mut children = Vec::new();
        for id in self.specs.ids() {
            for place in self.parts(id) {
                let [part, node, status, pid] = shown(place);
                children.push(tuple_of([id.0.clone(), part, node, status, pid]));
            }
        }
        list_of(children)
    }

    fn which_children(&self) -> Term {
        let mut children = Vec::new();
        for spec in self.specs() {
            let modules = list_of([Term::from(&spec.factory)]);
            for (part, place) in self.parts(&Key(spec.id.clone())) {
                let id = match part {
                    Part::Only => spec.id.clone(),
                    part => tuple_of([spec.id.clone(), part.to_term()]),
                };
                let process = match place {
                    Some(Place { pid: Some(pid), .. }) => Term::Pid(pid),
                    Some(Place { status: Status::Starting, .. }) => atom("restarting"),
                    _ => atom("undefined"),
                };
                children.push(tuple_of([id, process, atom("worker"), modules.clone()]));
            }
        }
        list_of(children)
    }

    fn count_children(&self) -> Term {
        let (mut specs, mut active) = (0, 0);
        for id in self.specs.ids() {
            for (_, place) in self.parts(id) {
                specs += 1;
                active += i64::from(place.is_some_and(|place| place.pid.is_some()));
            }
        }
        let counts = [("specs", specs), ("active", active), ("supervisors", 0), ("workers", specs)];
        list_of(counts.into_iter().map(|(name, count)| tuple_of([atom(name), Term::Integer(count)])))
    }
}

enum Answer {
    Now(Term),
    Later,
}

/// Part, node, status, process.
fn shown((part, place): (Part, Option<Place>)) -> [Term; 4] {
    let part = part.to_term();
    let Some(place) = place else {
        return [part, atom("undefined"), atom("missing"), atom("undefined")];
    };
    let status = match place.status {
        Status::Starting => atom("starting"),
        Status::Running => atom("running"),
        Status::Stopping => atom("stopping"),
        Status::Moving(to) => tuple_of([atom("moving"), Term::Atom(to)]),
        Status::Failed(reason) => tuple_of([atom("failed"), reason]),
    };
    let pid = place.pid.map_or_else(|| atom("undefined"), Term::Pid);
    [part, Term::Atom(place.node), status, pid]
}
