//! Sessions: what two nodes say to each other from the moment they are connected until each has the other's names.

use std::collections::BTreeMap;
use std::time::Duration;

use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Map, Pid, Term};

use super::locker::{Him, Message, Tell};
use super::locks::{Holder, LockId};
use super::names::{self, External, Name, Op, external_of, names_of, ops_of, ops_term};
use super::partitions::Loss;
use super::{Action, Global, To, VERSION, VERSION_ACKNOWLEDGED, VERSION_OLDEST, in_sync};
use crate::message::{atom, list, tuple, tuple_of};

/// Sessions with nodes that are not connected yet: a peer's `init_connect` may arrive before its `nodeup`.
const MAX_EARLY: usize = 1024;

/// How long a node that is known may go on as a stranger before this side believes it. What puts that right otherwise is a
/// message that is on its way already.
const UNANSWERED: Duration = Duration::from_secs(5);
/// The same for a node that is not known, and that this side has no session with: they have just ended one.
const UNDECIDED: Duration = Duration::from_secs(2);
/// How long to wait, at least and at most, before a session is begun anew. At once, as OTP does it, both sides may go on to
/// cancel each other's for ever.
const RESTART: std::ops::Range<u64> = 50..500;

/// The session with one node.
#[derive(Debug, Default)]
pub(super) struct Session {
    version: i64,
    pub(super) my_tag: Option<i64>,
    his_tag: Option<Term>,
    /// `init_connect` came before `nodeup`.
    early: Option<(Greeting, Mono)>,
    /// This side waits for names, or resolves conflicts.
    resolver: Resolver,
    lock_is_set: bool,
    /// The names of the other side, while the lock is not known to be set here.
    exchange: Option<Vec<Name>>,
    lock: Option<LockId>,
    saved: Saved,
}

#[derive(Debug)]
struct Greeting {
    version: i64,
    tag: Term,
    locker: Pid,
}

#[derive(Debug, Default)]
enum Resolver {
    #[default]
    None,
    Waiting,
    Resolving(Box<Resolution>),
}

/// Names of the other side that are compared with those here, one after the other.
#[derive(Debug)]
struct Resolution {
    names: Vec<Name>,
    /// What changes here, and what the other side has to change.
    ops: Vec<Op>,
    resolved: Vec<Op>,
    /// The conflict that is being resolved: its number, the other side's registration, and the one here.
    conflict: Option<(u64, Name, Name)>,
}

/// `exchange` is over on one side before the other.
#[derive(Debug, Default)]
enum Saved {
    #[default]
    Nothing,
    Ops(Vec<Op>),
    Resolved(Resolved),
}

/// What `resolved` says.
#[derive(Debug)]
struct Resolved {
    ops: Vec<Op>,
    known: Vec<(Atom, i64)>,
    external: Vec<External>,
    external_term: Term,
}

/// Nodes, with their versions if they come with them.
fn nodes_of(term: Term) -> Option<Vec<(Atom, i64)>> {
    list(term)?
        .into_iter()
        .map(|node| match node {
            Term::Atom(node) => Some((node, 0)),
            pair => match tuple(pair)? {
                [Term::Atom(node), Term::Integer(version)] => Some((node, version)),
                _ => None,
            },
        })
        .collect()
}

fn nodes_term<'a>(nodes: impl Iterator<Item = (&'a Atom, &'a i64)>) -> Term {
    Term::list(nodes.map(|(node, version)| tuple_of([Term::Atom(node.clone()), Term::Integer(*version)])))
}

impl Global {
    // -- connections -----------------------------------------------------------------------------------------------------

    pub(super) fn node_up(&mut self, now: Mono, node: &Atom) {
        self.connected.insert(node.clone());
        if !self.config.connect_all {
            return;
        }
        for message in self.greeting.remove(node).unwrap_or_default() {
            self.send(To::Server(node.clone()), message);
        }
        self.open_session(now, node);
    }

    pub(super) fn node_down(&mut self, now: Mono, node: &Atom) {
        self.connected.remove(node);
        self.reopening.remove(node);
        self.greeting.remove(node);
        self.forget_calls(now, node);
        self.synced_with(node);
        self.lose(node, Loss::Disconnected);
    }

    /// A node of another partition is not there any more.
    pub(super) fn connect_failed(&mut self, now: Mono, node: &Atom) {
        if self.greeting.remove(node).is_some() {
            self.forget_calls(now, node);
            self.synced_with(node);
            self.lose(node, Loss::Disconnected);
        }
    }

    /// The node is none of this partition any more.
    pub(super) fn lose(&mut self, node: &Atom, loss: Loss) {
        let tag = self.sessions.get(node).and_then(|session| session.my_tag);
        self.cancel_locker(node, tag, None);
        self.sessions.remove(node);
        self.inform_of_loss(node, loss);
        self.pending.remove(node);
        self.known.remove(node);
        self.synced.remove(node);
    }

    fn open_session(&mut self, now: Mono, node: &Atom) {
        let open = self.sessions.get(node).is_some_and(|session| session.my_tag.is_some());
        if self.known.contains_key(node) || open {
            return;
        }
        let tag = i64::try_from(self.number()).unwrap_or(i64::MAX);
        let known =
            Map::from_iter(self.known.iter().map(|(n, v)| (Term::Atom(n.clone()), Term::Integer(*v))));
        let me = Term::Pid(self.me.clone());
        let locker = tuple_of([atom("locker"), atom("no_longer_a_pid"), Term::Map(known), me]);
        let version = tuple_of([Term::Integer(VERSION), Term::Integer(tag)]);
        let message = tuple_of([atom("init_connect"), version, Term::Atom(self.node().clone()), locker]);
        self.cast(node, message);
        self.reopening.remove(node);
        let session = self.sessions.entry(node.clone()).or_default();
        session.my_tag = Some(tag);
        session.resolver = Resolver::Waiting;
        if let Some((greeting, _)) = session.early.take() {
            self.greeted(now, node, greeting);
        }
    }

    pub(super) fn session_deadline(&self) -> Option<Mono> {
        let early = self.sessions.values().filter_map(|session| Some(session.early.as_ref()?.1));
        early.filter(|at| *at != Mono(i64::MAX)).chain(self.reopening.values().copied()).min()
    }

    /// A node that is known here has greeted as a stranger would, and nothing has come of it since: it knows this one no more.
    /// That happens when connections break while partitions merge. The session that it wanted makes up for it.
    pub(super) fn open_sessions(&mut self, now: Mono) {
        let due: Vec<Atom> =
            self.reopening.iter().filter(|(_, at)| **at <= now).map(|(node, _)| node.clone()).collect();
        for node in due {
            self.reopening.remove(&node);
            if self.connected.contains(&node) {
                self.open_session(now, &node);
            }
        }
        let due = |session: &&mut Session| session.early.as_ref().is_some_and(|(_, due)| *due <= now);
        let mut strangers = Vec::new();
        for (node, session) in &mut self.sessions {
            if let Some((_, at)) = Some(session).filter(due).and_then(|session| session.early.as_mut()) {
                *at = Mono(i64::MAX);
                strangers.push(node.clone());
            }
        }
        for node in strangers {
            if self.connected.contains(&node) {
                self.known.remove(&node);
                self.open_session(now, &node);
            }
        }
    }

    fn greeted(&mut self, now: Mono, node: &Atom, greeting: Greeting) {
        if self.pending.contains_key(node) {
            if greeting.version < VERSION_ACKNOWLEDGED {
                self.actions.push_back(Action::Disconnect(node.clone()));
                return;
            }
            // Two sessions at once: neither is to be trusted.
            self.send_cancel_connect(node, Some(greeting.tag.clone()));
            let tag = self.sessions.get(node).and_then(|session| session.my_tag);
            self.restart(now, node, tag);
        }
        let session = self.sessions.entry(node.clone()).or_default();
        session.version = greeting.version.min(VERSION);
        session.his_tag = Some(greeting.tag.clone());
        let (Some(my_tag), Resolver::Waiting) = (session.my_tag, &session.resolver) else {
            let patience = if self.known.contains_key(node) { UNANSWERED } else { UNDECIDED };
            session.early = Some((greeting, now + patience));
            return;
        };
        let Greeting { version, tag, locker } = greeting;
        let spoken = version.min(VERSION);
        self.locker.tell(Message::Him(Him {
            node: node.clone(),
            locker,
            version: spoken,
            my_tag,
            his_tag: tag.clone(),
        }));
        if version >= VERSION_ACKNOWLEDGED {
            let me = Term::Atom(self.node().clone());
            let ack = tuple_of([atom("init_connect_ack"), me, tag, Term::Integer(my_tag)]);
            self.send(To::Server(node.clone()), ack);
        }
        self.pending.insert(node.clone(), version);
    }

    fn restart(&mut self, now: Mono, node: &Atom, tag: Option<i64>) {
        self.cancel_locker(node, tag, None);
        self.sessions.remove(node);
        self.pending.remove(node);
        if tag.is_some() {
            let pause = RESTART.start + self.random.below_u64(RESTART.end - RESTART.start);
            self.reopening.insert(node.clone(), now + Duration::from_millis(pause));
        }
    }

    fn send_cancel_connect(&mut self, node: &Atom, his_tag: Option<Term>) {
        let tag = his_tag.unwrap_or(atom("undefined"));
        let message = tuple_of([atom("cancel_connect"), Term::Atom(self.node().clone()), tag]);
        self.send(To::Server(node.clone()), message);
    }

    /// Ends a session at the locker, and with the other side if that still believes in it.
    fn cancel_locker(&mut self, node: &Atom, tag: Option<i64>, tell: Option<Tell>) {
        self.locker.tell(Message::Cancel { node: node.clone(), tag, tell });
        let current = self.sessions.get_mut(node).filter(|session| session.my_tag == tag);
        let Some(session) = current else { return };
        session.resolver = Resolver::None;
        let his_tag = session.his_tag.clone();
        if self.pending.get(node).is_some_and(|version| *version >= VERSION_ACKNOWLEDGED) {
            self.send_cancel_connect(node, his_tag);
        }
    }

    fn end_session(&mut self, node: &Atom, tell: Option<Tell>) {
        let tag = self.sessions.get(node).and_then(|session| session.my_tag);
        self.reopening.remove(node);
        // Not pending any more: the other side ends its half by itself.
        self.pending.remove(node);
        self.cancel_locker(node, tag, tell);
        self.sessions.remove(node);
    }

    // -- messages --------------------------------------------------------------------------------------------------------

    pub(super) fn session_cast(&mut self, now: Mono, cast: Vec<Term>) -> Option<()> {
        match (cast.first()?.as_atom()?.as_str(), cast.len()) {
            ("init_connect", 4) => {
                let [_, version, node, init] = <[Term; 4]>::try_from(cast).ok()?;
                self.init_connect(now, version, node.as_atom()?, init)
            }
            ("exchange", 5) => {
                let [_, node, theirs, _, tag] = <[Term; 5]>::try_from(cast).ok()?;
                let (node, theirs) = (node.as_atom()?.clone(), names_of(theirs)?);
                self.in_session(&node, &tag, |global| global.exchange(&node, theirs))
            }
            ("resolved", 7) => {
                let [_, node, ops, known, _, external_term, tag] = <[Term; 7]>::try_from(cast).ok()?;
                let node = node.as_atom()?.clone();
                let external = external_of(external_term.clone())?;
                let resolved =
                    Resolved { ops: ops_of(ops)?, known: nodes_of(known)?, external, external_term };
                self.in_session(&node, &tag, |global| global.resolved_by(&node, resolved))
            }
            ("new_nodes", 6) => {
                let [_, node, ops, external, nodes, extra] = <[Term; 6]>::try_from(cast).ok()?;
                node.as_atom()?;
                self.new_nodes(ops_of(ops)?, &external_of(external)?, nodes_of(nodes)?, extra);
                Some(())
            }
            ("in_sync", 3) => {
                let node = cast.get(1)?.as_atom()?.clone();
                if self.connected.contains(&node) {
                    self.synced.insert(node.clone());
                    self.synced_with(&node);
                }
                self.end_session(&node, None);
                Some(())
            }
            ("lock_set", 4 | 5) => self.lock_set_received(&cast),
            // What releases before R14 sent.
            ("async_del_name" | "async_del_lock", 3) => Some(()),
            _ => None,
        }
    }

    pub(super) fn session_message(&mut self, now: Mono, message: Vec<Term>) -> Option<()> {
        match (message.first()?.as_atom()?.as_str(), message.len()) {
            ("lock_set", 4 | 5) => self.lock_set_received(&message),
            ("init_connect_ack", 4) => {
                let [_, node, my_tag, his_tag] = <[Term; 4]>::try_from(message).ok()?;
                let node = node.as_atom()?.clone();
                let session = self.sessions.get(&node);
                let mine = session.and_then(|session| session.my_tag);
                let his = session.and_then(|session| session.his_tag.as_ref());
                if mine.is_none() || mine != my_tag.as_i64() || his != Some(&his_tag) {
                    self.send_cancel_connect(&node, Some(his_tag));
                    self.restart(now, &node, mine);
                }
                Some(())
            }
            ("cancel_connect", 3) => {
                let node = message.get(1)?.as_atom()?.clone();
                let mine = self.sessions.get(&node).and_then(|session| session.my_tag);
                if mine.is_some() && mine == message.get(2)?.as_i64() {
                    self.restart(now, &node, mine);
                }
                Some(())
            }
            ("whereis", 3) => {
                let [_, name, from] = <[Term; 3]>::try_from(message).ok()?;
                self.whereis(&name, from)
            }
            _ => self.partition_message(now, message),
        }
    }

    /// Does something if the tag is that of the current session, else ends the one that it is of.
    fn in_session(&mut self, node: &Atom, tag: &Term, act: impl FnOnce(&mut Self)) -> Option<()> {
        let tag = tag.as_i64()?;
        if self.sessions.get(node).and_then(|session| session.my_tag) == Some(tag) {
            act(self);
        } else {
            self.cancel_locker(node, Some(tag), None);
        }
        Some(())
    }

    fn init_connect(&mut self, now: Mono, version: Term, node: &Atom, init: Term) -> Option<()> {
        let version = version.as_tuple()?;
        let (number, tag) = (version.first()?.as_i64()?, version.get(1)?.clone());
        if number < VERSION_OLDEST {
            let message = in_sync(self.node());
            self.cast(node, message);
            return Some(());
        }
        let [_, _, _, locker] = tuple(init)?;
        let locker = crate::message::pid(locker)?;
        if locker.node != *node || (!self.connected.contains(node) && self.sessions.len() >= MAX_EARLY) {
            return None;
        }
        self.greeted(now, node, Greeting { version: number, tag, locker });
        Some(())
    }

    fn lock_set_received(&mut self, message: &[Term]) -> Option<()> {
        let locker = message.get(1)?.as_pid()?.clone();
        let set = message.get(2)?.as_bool()?;
        let mine = self.sessions.get(&locker.node).and_then(|session| session.my_tag);
        let tag = match message.get(4) {
            Some(tag) if tag.as_i64() != mine || mine.is_none() => return Some(()), // of an earlier session
            Some(_) => mine,
            None => None,
        };
        self.locker.tell(Message::LockSet { locker, set, tag });
        Some(())
    }

    // -- names -----------------------------------------------------------------------------------------------------------

    /// The locker has the lock on both partitions.
    pub(super) fn lock_is_set(&mut self, node: &Atom, tag: i64, lock: &LockId) {
        let names = self.names.to_term();
        let me = Term::Atom(self.node().clone());
        let Some(session) = self.sessions.get_mut(node).filter(|session| session.my_tag == Some(tag)) else {
            return self.cancel_locker(node, Some(tag), None);
        };
        session.lock = Some(lock.clone());
        session.lock_is_set = true;
        let his_tag = session.his_tag.clone().unwrap_or(atom("undefined"));
        let theirs = session.exchange.take();
        self.cast(node, tuple_of([atom("exchange"), me, names, Term::list([]), his_tag]));
        if let Some(theirs) = theirs {
            self.exchange(node, theirs);
        }
    }

    fn exchange(&mut self, node: &Atom, mut theirs: Vec<Name>) {
        let Some(session) = self.sessions.get_mut(node) else { return };
        if !session.lock_is_set {
            session.exchange = Some(theirs);
            return;
        }
        session.lock_is_set = false;
        theirs.reverse();
        let resolution = Resolution { names: theirs, ops: Vec::new(), resolved: Vec::new(), conflict: None };
        session.resolver = Resolver::Resolving(Box::new(resolution));
        self.resolve(node);
    }

    /// Goes through the names of the other side up to the next conflict that is this node's to resolve (`exchange_names`).
    fn resolve(&mut self, node: &Atom) {
        loop {
            let Some(Session { resolver: Resolver::Resolving(resolution), .. }) = self.sessions.get_mut(node)
            else {
                return;
            };
            let Some(theirs) = resolution.names.pop() else { break };
            match self.names.get(&theirs.name) {
                None => resolution.ops.push(Op::Insert(theirs)),
                Some(ours) if ours.pid == theirs.pid => {}
                // All conflicts are resolved in the same partition: that of the lesser node.
                Some(_) if self.me.node >= *node => {}
                Some(ours) => {
                    let ours = Name {
                        name: theirs.name.clone(),
                        pid: ours.pid.clone(),
                        method: ours.method.clone(),
                    };
                    self.next += 1;
                    let conflict = self.next;
                    self.actions.push_back(Action::Resolve {
                        conflict,
                        method: ours.method.clone(),
                        name: ours.name.clone(),
                        pid1: theirs.pid.clone(),
                        pid2: ours.pid.clone(),
                    });
                    resolution.conflict = Some((conflict, theirs, ours));
                    return;
                }
            }
        }
        self.exchanged(node);
    }

    pub(super) fn conflict_resolved(&mut self, conflict: u64, result: Option<Term>) {
        let mut found = None;
        for (node, session) in &mut self.sessions {
            if let Resolver::Resolving(resolution) = &mut session.resolver
                && let Some((_, theirs, ours)) =
                    resolution.conflict.take_if(|(number, ..)| *number == conflict)
            {
                match result.as_ref().map(|term| term.as_pid()) {
                    Some(Some(pid)) if *pid == ours.pid => resolution.resolved.push(Op::Insert(ours)),
                    Some(Some(pid)) if *pid == theirs.pid => resolution.ops.push(Op::Insert(theirs)),
                    // The node of ours could not be asked.
                    None => resolution.ops.push(Op::Insert(theirs)),
                    Some(_) => {
                        resolution.ops.push(Op::Delete(theirs.name.clone()));
                        resolution.resolved.push(Op::Delete(theirs.name));
                    }
                }
                found = Some(node.clone());
                break;
            }
        }
        if let Some(node) = found {
            self.resolve(&node);
        }
    }

    /// All names of the other side are looked through (`exchange_ops`).
    fn exchanged(&mut self, node: &Atom) {
        let known = nodes_term(self.known.iter());
        let me = Term::Atom(self.node().clone());
        let external = names::external_term(&self.names.external());
        let Some(session) = self.sessions.get_mut(node) else { return };
        let Resolver::Resolving(resolution) = std::mem::take(&mut session.resolver) else { return };
        session.resolver = Resolver::Waiting;
        let his_tag = session.his_tag.clone().unwrap_or(atom("undefined"));
        let saved = std::mem::replace(&mut session.saved, Saved::Ops(resolution.ops));
        let ops = ops_term(&resolution.resolved);
        self.cast(node, tuple_of([atom("resolved"), me, ops, known, atom("unused"), external, his_tag]));
        if let Saved::Resolved(resolved) = saved {
            self.resolved_by(node, resolved);
        }
    }

    fn resolved_by(&mut self, node: &Atom, theirs: Resolved) {
        let Some(session) = self.sessions.get_mut(node) else { return };
        match std::mem::take(&mut session.saved) {
            Saved::Ops(ops) => self.resolved(node, ops, theirs),
            Saved::Nothing | Saved::Resolved(_) => session.saved = Saved::Resolved(theirs),
        }
    }

    /// Both sides have compared: the names are merged, and the partitions become one.
    fn resolved(&mut self, node: &Atom, mut ops: Vec<Op>, theirs: Resolved) {
        let Some(session) = self.sessions.get(node) else { return };
        let (version, lock) = (session.version, session.lock.clone());
        ops.extend(theirs.ops);
        let partition: Vec<Atom> = self.known.keys().cloned().collect();
        let mut new_nodes: BTreeMap<Atom, i64> = theirs.known.iter().cloned().collect();
        new_nodes.insert(node.clone(), self.pending.get(node).copied().unwrap_or(version));
        new_nodes.remove(self.node());

        let requester = lock.as_ref().map(|lock| lock.requester.clone());
        let lock = lock.map_or(atom("undefined"), |lock| lock.to_term());
        let extra =
            Term::list([tuple_of([atom("vsn"), Term::Integer(version)]), tuple_of([atom("lock"), lock])]);
        let message = tuple_of([
            atom("new_nodes"),
            Term::Atom(self.node().clone()),
            ops_term(&ops),
            theirs.external_term,
            nodes_term(new_nodes.iter()),
            extra,
        ]);
        let others: Vec<Atom> = theirs.known.into_iter().map(|(node, _)| node).collect();
        self.greet(&others);
        self.apply(ops, &theirs.external, &Holder::Requester(requester));
        self.synced_with(node);
        for other in &others {
            self.end_session(other, None);
        }
        self.end_session(node, Some(Tell { nodes: partition, message }));
        self.add_to_known(new_nodes);
        self.synced.insert(node.clone());
    }

    fn new_nodes(&mut self, ops: Vec<Op>, external: &[External], nodes: Vec<(Atom, i64)>, extra: Term) {
        let added = self.add_to_known(nodes);
        self.greet(&added);
        let lock = list(extra).into_iter().flatten().find_map(|entry| {
            let [what, lock] = tuple(entry)?;
            what.is_atom("lock").then(|| LockId::from_term(lock)).flatten()
        });
        self.apply(ops, external, &Holder::Requester(lock.map(|lock| lock.requester)));
    }

    /// Returns the nodes that were not known.
    fn add_to_known(&mut self, nodes: impl IntoIterator<Item = (Atom, i64)>) -> Vec<Atom> {
        let mut added = Vec::new();
        for (node, version) in nodes {
            if node == *self.node() {
                continue;
            }
            let known = self.known.entry(node.clone()).or_insert_with(|| {
                added.push(node);
                version
            });
            if *known < 0 {
                *known = version;
            }
        }
        added
    }

    /// Says `in_sync` to nodes of the other partition (`sync_others`), which has to be connected to for that.
    fn greet(&mut self, nodes: &[Atom]) {
        for node in nodes {
            if node == self.node() {
                continue;
            }
            if !self.connected.contains(node) && !self.greeting.contains_key(node) {
                self.greeting.insert(node.clone(), Vec::new());
                self.actions.push_back(Action::Connect(node.clone()));
            }
            let message = in_sync(self.node());
            self.cast(node, message);
        }
    }
}
