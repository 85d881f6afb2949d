//! What a member of a `Horde.Registry` decides: a table of names over the replicated map.
//!
//! # What stands in the map (Horde 0.9 and 0.10)
//!
//! | key | value |
//! |---|---|
//! | `{:member, {Registry, Node}}` | `1` |
//! | `{:key, Name}` | `{{Registry, Node of the owner}, Pid, Value}` |
//! | `{:registry, Key}` | a value that belongs to the registry itself |
//!
//! Each member compares its map with those of all other members. The process of a registry has the registry's name, its map
//! that name with `.Crdt`; other nodes call the former: `{:register, Name, Value, Pid}`, `{:unregister, Name, Pid}`,
//! `{:update_value, Name, Pid, Value}`, `{:put_meta, Key, Value}`, `{:delete_meta, Key}`, `{:set_members, Members}`, `:members`.
//!
//! Two processes may get one name at the same time. The map then decides, and a process of this node that has lost it gets the
//! exit signal `{:name_conflict, {Name, Value}, Registry, Winner}`, as on a BEAM. So does one whose name is given to another by
//! `{:register, …}`, which asks nobody. An entry of this node is taken for what it says, and its process is watched: it is dropped if
//! that process has ended.
//!
//! # Differences from Horde
//!
//! * When a node goes away, Horde with `members: :auto` takes it out of the members and drops its names. If it comes back, the
//!   names stay lost. This member puts itself and the names of its living processes back as soon as it learns of it: from
//!   members that still compare with it; from one that does not any more, when it asks for a member key that it has had
//!   ([`Event::Missing`]); and at each [`Event::NodeUp`] it puts itself back unasked. It is out when it leaves ([`Event::Leave`]).
//! * The members that it was told of ([`Event::SetMembers`]) are compared with also while others have taken them out: BEAMs that lose each
//!   other for a while would otherwise leave a hidden member without any.
//! * A name is removed from the map for whose it was ([`Action::RemoveValue`]): what another was given meanwhile stays.
//! * A name ends with its process, or when it is given up here. `Horde.Registry.unregister/2` on a BEAM removes a name whoever has it;
//!   this member writes its own again, as the function's contract has it (*associated to the current process*).
//! * A name that was registered here is found here at once.
//!
//! [`supervisor`] is what this kind of member is to a `Horde.DynamicSupervisor`, [`distribution`] where that puts its children.

pub mod distribution;
pub mod supervisor;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use foundation_proto::etf::{Atom, Pid, Term};

use super::{Address, Change};
use crate::Key;
use crate::message::{atom, list, list_of, tuple, tuple_of};
use crate::mutant::LeftOut;

/// A member: the name of its registry and its node.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Member {
    /// The registry.
    pub name: Atom,
    /// The node.
    pub node: Atom,
}

impl Member {
    /// `{Name, Node}`.
    pub fn to_term(&self) -> Term {
        tuple_of([Term::Atom(self.name.clone()), Term::Atom(self.node.clone())])
    }

    /// Reads `{Name, Node}`, or a name on `here`.
    fn from_term(term: Term, here: &Atom) -> Option<Self> {
        match Address::from_term(term, here)? {
            Address::Name { name, node } => Some(Self { name, node }),
            Address::Pid(_) => None,
        }
    }

    fn key(&self) -> Key {
        Key(tuple_of([atom("member"), self.to_term()]))
    }

    /// Where its map is.
    fn map(&self) -> Option<Address> {
        Some(Address::Name { name: map_name(&self.name)?, node: self.node.clone() })
    }
}

/// The name of a registry's map; `None` if that would be too long for an atom.
pub fn map_name(registry: &Atom) -> Option<Atom> {
    Atom::new(&format!("{}.Crdt", registry.as_str())).ok()
}

/// A registered name.
#[derive(Clone, Debug, PartialEq)]
pub struct Registration {
    /// The name.
    pub name: Arc<Key>,
    /// The member that registered it.
    pub member: Member,
    /// The process.
    pub pid: Pid,
    /// What it was registered with.
    pub value: Term,
}

impl Registration {
    /// Whether a member has to know when the process ends: a BEAM links all that are its own.
    fn is_watched_by(&self, member: &Member) -> bool {
        self.member == *member || self.pid.node == member.node
    }
}

/// What has become of what is found under a name.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// It is this.
    There(Arc<Registration>),
    /// It was this at most, and is nothing now.
    Gone(Arc<Registration>),
}

/// What happens to a registry.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// These are the members, besides this one.
    SetMembers(Vec<Member>),
    /// A process of this node gets a name; whether the name is free was looked up before.
    Register {
        /// The name.
        name: Term,
        /// What to keep with it.
        value: Term,
        /// The process.
        pid: Pid,
    },
    /// A name is given up by its process.
    Unregister {
        /// The name.
        name: Term,
        /// The process.
        pid: Pid,
    },
    /// The registry itself keeps a value, or drops it.
    Meta {
        /// The key.
        key: Term,
        /// The value.
        value: Option<Term>,
    },
    /// A `GenServer.call/3`.
    Call {
        /// The caller, `{Pid, Tag}`.
        from: Term,
        /// What it asks.
        request: Term,
    },
    /// The map has changed: this is what it says of a key now, after all that was written to it here.
    Changed(Change),
    /// Keys that were written here are missing from the map of a member that has had them.
    Missing(Vec<Key>),
    /// The map had no room for this key.
    Refused(Key),
    /// A connection to a node came up.
    NodeUp(Atom),
    /// A process that was monitored has ended.
    Down(Pid),
    /// This member leaves, with its names, until it is told its members again.
    Leave,
}

/// What the host of a registry has to do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// What [`lookup`](HordeRegistry::lookup) finds has changed so, for readers that keep a copy of it.
    Found(Vec<Found>),
    /// Write to the map.
    Put(Key, Term),
    /// Remove from the map.
    Remove(Key),
    /// Remove this value from the map, but not one that has won over it: another may have been given the name since, and nobody would
    /// write that again.
    RemoveValue(Key, Term),
    /// These are the neighbours of the map.
    SetNeighbours(Vec<Address>),
    /// Monitor a process.
    Monitor(Pid),
    /// It need not be monitored any more.
    Demonitor(Pid),
    /// Send an exit signal to a process of this node.
    Exit {
        /// The process.
        to: Pid,
        /// Why.
        reason: Term,
    },
    /// Answer a call.
    Reply {
        /// The caller.
        from: Term,
        /// The answer.
        reply: Term,
    },
}

/// The names of one registry.
#[derive(Debug)]
pub struct HordeRegistry {
    me: Member,
    /// The registry's process: what callers that register get back.
    pid: Pid,
    /// It has left, and stays away until it is told its members again.
    left: bool,
    members: BTreeSet<Member>,
    /// The members that this one was told of. Its map is compared with theirs also while they are no members: BEAMs with `members: :auto`
    /// that lose each other take each other out, and this one with them if it is hidden, so that none would be left who tells.
    named: BTreeSet<Member>,
    names: BTreeMap<Arc<Key>, Arc<Registration>>,
    /// How many names there are of each member, and of each incarnation of a node: that of their processes.
    counts: BTreeMap<Member, BTreeMap<(Atom, u32), usize>>,
    /// The names of each process.
    pids: BTreeMap<Pid, BTreeSet<Arc<Key>>>,
    /// The processes of this node, and those that have registered here.
    monitored: BTreeSet<Pid>,
    meta: BTreeMap<Key, Term>,
    actions: VecDeque<Action>,
    mutant: LeftOut<Mutant>,
}

/// A rule that is left out on purpose, to see that the simulation notices.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mutant {
    /// A name that is gone from the map is gone, whoever has it.
    NoInsisting,
    /// Whoever is taken out of the members stays out when it sees that.
    NoJoinOnRemoved,
    /// The same when another's map lacks it.
    NoJoinOnMissing,
    /// The same when a node comes up.
    NoJoinOnNodeUp,
    /// The names of a member that is gone stay in the map.
    KeepGone,
    /// Whoever loses a name is not told.
    NoExit,
    /// What earlier incarnations of this node have counts.
    KeepEarlier,
    /// A name outlives its process.
    KeepEnded,
    /// Processes without names are still watched.
    KeepWatching,
    /// What comes for a member that has left is taken.
    TakeWhenLeft,
    /// What the map says of own entries does not count.
    IgnoreOwn,
    /// Readers are not told of the names of a member that has come.
    NoShow,
    /// A name is removed from the map whoever has it by now.
    RemoveAny,
    /// Whoever is no member is compared with no more, though this one was told of it.
    OnlyMembers,
    /// What is replaced is still counted.
    CountReplaced,
}

impl HordeRegistry {
    /// An empty registry of this name, whose process on this node is `pid`. It puts itself among the members.
    pub fn new(name: Atom, pid: Pid) -> Self {
        let me = Member { name, node: pid.node.clone() };
        let actions = VecDeque::from([Action::Put(me.key(), Term::Integer(1))]);
        Self {
            members: BTreeSet::from([me.clone()]),
            me,
            pid,
            left: false,
            named: BTreeSet::new(),
            names: BTreeMap::new(),
            counts: BTreeMap::new(),
            pids: BTreeMap::new(),
            monitored: BTreeSet::new(),
            meta: BTreeMap::new(),
            actions,
            mutant: LeftOut::default(),
        }
    }

    /// Whether it is one: it has not left.
    pub fn is_member(&self) -> bool {
        !self.left
    }

    /// Who has a name, as far as it is known here. The names of nodes that are no members are not found.
    pub fn lookup(&self, name: &Term) -> Option<&Arc<Registration>> {
        self.names.get(&Key(name.clone())).filter(|found| self.members.contains(&found.member))
    }

    /// The names of members and of nodes that are reached, in Erlang's order. `reached` says of a node and an incarnation whether there
    /// is a connection to it.
    pub fn names(&self, reached: impl Fn(&Atom, u32) -> bool) -> impl Iterator<Item = &Arc<Registration>> {
        let reached = move |pid: &Pid| reached(&pid.node, pid.creation);
        self.names.values().filter(move |found| self.members.contains(&found.member) && reached(&found.pid))
    }

    /// How many these are, without a look at each.
    pub fn count(&self, reached: impl Fn(&Atom, u32) -> bool) -> usize {
        let of_members = self.members.iter().filter_map(|member| self.counts.get(member)).flatten();
        of_members.filter(|((node, creation), _)| reached(node, *creation)).map(|(_, count)| count).sum()
    }

    /// The keys of the map from which this registry has something: what is not there any more has to be taken away.
    pub fn known(&self) -> Vec<Key> {
        let names = self.names.keys().map(|name| entry(name));
        let members = self.members.iter().map(Member::key);
        names.chain(members).chain(self.meta.keys().map(place)).collect()
    }

    /// The names of a process.
    pub fn keys(&self, pid: &Pid) -> impl Iterator<Item = &Term> {
        self.pids.get(pid).into_iter().flatten().map(|name| &name.0)
    }

    /// A value that the registry itself keeps.
    pub fn meta(&self, key: &Term) -> Option<&Term> {
        self.meta.get(&Key(key.clone()))
    }

    /// The members, this one among them.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter()
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Takes in one event.
    pub fn handle(&mut self, event: Event) {
        match event {
            Event::SetMembers(members) => self.set_members(members.into_iter().collect()),
            Event::Register { name, value, pid } => self.register(name, value, pid),
            Event::Unregister { name, pid } => self.unregister(&Key(name), &pid),
            Event::Meta { key, value } => self.set_meta(Key(key), value),
            Event::Call { from, request } => {
                let unknown = tuple_of([atom("error"), atom("badarg")]);
                let reply = self.call(request).unwrap_or(unknown);
                self.actions.push_back(Action::Reply { from, reply });
            }
            Event::Changed(Change::Put(key, value)) => {
                self.changed(key, Some(value));
            }
            Event::Changed(Change::Removed(key)) => {
                self.changed(key, None);
            }
            Event::Missing(keys) => {
                // What else it has dropped it says itself, once it compares with this member again. Another may have written the record.
                let mine = |key: &Key| *key == self.me.key() || self.is_own(key);
                if keys.iter().any(mine) && !self.mutant.is(Mutant::NoJoinOnMissing) {
                    self.join();
                }
            }
            Event::Refused(key) => {
                self.refused(key);
            }
            Event::NodeUp(node) => {
                let of_node = |member: &Member| member.node == node && *member != self.me;
                if self.members.union(&self.named).any(of_node) && !self.mutant.is(Mutant::NoJoinOnNodeUp) {
                    self.join();
                }
            }
            Event::Down(_) if self.mutant.is(Mutant::KeepEnded) => {}
            Event::Down(pid) => {
                self.monitored.remove(&pid);
                for name in self.pids.get(&pid).cloned().unwrap_or_default() {
                    self.unregister(&name, &pid);
                }
            }
            Event::Leave => self.leave(),
        }
    }

    fn call(&mut self, request: Term) -> Option<Term> {
        if request.is_atom("members") {
            return Some(list_of(self.members.iter().map(Member::to_term)));
        }
        let Term::Tuple(elements) = request else { return None };
        let mut elements = elements.into_vec();
        let Some(Term::Atom(tag)) = elements.first().cloned() else { return None };
        match (tag.as_str(), elements.len()) {
            ("register" | "update_value", 4) if !self.is_member() => {
                return Some(tuple_of([atom("error"), atom("not_member")]));
            }
            ("register", 4) => {
                let [_, name, value, pid] = elements.try_into().ok()?;
                let Term::Pid(pid) = pid else { return None };
                self.register(name, value, pid);
                return Some(tuple_of([atom("ok"), Term::Pid(self.pid.clone())]));
            }
            ("update_value", 4) => {
                let [_, name, pid, value] = elements.try_into().ok()?;
                let Term::Pid(pid) = pid else { return None };
                self.register(name, value, pid);
            }
            ("unregister", 3) => {
                let [_, name, pid] = elements.try_into().ok()?;
                let Term::Pid(pid) = pid else { return None };
                self.unregister(&Key(name), &pid);
            }
            ("put_meta", 3) => {
                let [_, key, value] = elements.try_into().ok()?;
                self.set_meta(Key(key), Some(value));
            }
            ("delete_meta", 2) => self.set_meta(Key(elements.pop()?), None),
            ("set_members", 2) => {
                let here = self.me.node.clone();
                let members = list(elements.pop()?)?.into_iter().map(|term| Member::from_term(term, &here));
                self.set_members(members.collect::<Option<_>>()?);
            }
            _ => return None,
        }
        Some(atom("ok"))
    }

    /// These are the members, besides this one.
    fn set_members(&mut self, mut wanted: BTreeSet<Member>) {
        wanted.insert(self.me.clone());
        let left: Vec<Member> = self.members.difference(&wanted).cloned().collect();
        let new: Vec<Member> =
            wanted.difference(&self.members).filter(|member| **member != self.me).cloned().collect();
        self.actions.extend(left.iter().map(|member| Action::Remove(member.key())));
        self.actions.extend(new.iter().map(|member| Action::Put(member.key(), Term::Integer(1))));
        self.members = wanted;
        if !self.mutant.is(Mutant::OnlyMembers) {
            self.named = self.members.clone();
        }
        left.iter().for_each(|member| self.forget(member));
        new.iter().for_each(|member| self.show(member));
        // One that is new here may have taken this member out before: it was no neighbour, and nobody has told.
        if std::mem::take(&mut self.left) || !new.is_empty() {
            self.join();
        }
        self.neighbours();
    }

    /// Is among the members, by a write that none of them can have removed yet.
    fn join(&mut self) {
        if !self.left {
            self.members.insert(self.me.clone());
            self.actions.push_back(Action::Put(self.me.key(), Term::Integer(1)));
        }
    }

    /// Is no member any more, and has no names.
    fn leave(&mut self) {
        let me = self.me.clone();
        self.left = true;
        self.forget(&me);
        self.members.remove(&me);
        self.actions.push_back(Action::Remove(me.key()));
        self.neighbours();
    }

    fn neighbours(&mut self) {
        let others =
            self.members.union(&self.named).filter(|member| **member != self.me).filter_map(Member::map);
        self.actions.push_back(Action::SetNeighbours(others.collect()));
    }

    /// A member has come: names of it that were known before are found now.
    fn show(&mut self, member: &Member) {
        let theirs = self.names.values().filter(|found| found.member == *member);
        let theirs: Vec<Found> = theirs.cloned().map(Found::There).collect();
        if !theirs.is_empty() && !self.mutant.is(Mutant::NoShow) {
            self.actions.push_back(Action::Found(theirs));
        }
    }

    /// A member is gone: its names go with it.
    fn forget(&mut self, member: &Member) {
        let theirs = self.names.values().filter(|found| found.member == *member);
        let theirs: Vec<Arc<Key>> = theirs.map(|found| Arc::clone(&found.name)).collect();
        let gone: Vec<_> = theirs.iter().filter_map(|name| self.take_name(name)).collect();
        if !gone.is_empty() {
            self.actions.push_back(Action::Found(gone.iter().cloned().map(Found::Gone).collect()));
        }
        if !self.mutant.is(Mutant::KeepGone) {
            gone.iter().for_each(|gone| self.remove(gone));
        }
    }

    /// Whether a key of the map is that of a name of this member.
    fn is_own(&self, key: &Key) -> bool {
        let name = tuple::<2>(key.0.clone()).and_then(|[tag, name]| tag.is_atom("key").then_some(Key(name)));
        name.and_then(|name| self.names.get(&name)).is_some_and(|found| found.member == self.me)
    }

    /// A name as it is kept here already, so that it is not kept twice.
    fn kept(&self, name: Key) -> Arc<Key> {
        let kept = self.names.get_key_value(&name).map(|(kept, _)| Arc::clone(kept));
        kept.unwrap_or_else(|| Arc::new(name))
    }

    /// Gives a process a name, whoever has it.
    fn register(&mut self, name: Term, value: Term, pid: Pid) {
        let name = self.kept(Key(name));
        let registration = Registration { name, member: self.me.clone(), pid, value };
        self.conflict(&registration);
        let write = Action::Put(entry(&registration.name), value_of(&registration));
        self.insert(registration);
        self.actions.push_back(write);
    }

    /// Tells a process of this node that it loses a name.
    fn conflict(&mut self, winner: &Registration) {
        let here = |before: &&Arc<Registration>| before.pid != winner.pid && before.pid.node == self.me.node;
        let Some(loser) = self.names.get(&winner.name).filter(here) else { return };
        if self.mutant.is(Mutant::NoExit) {
            return;
        }
        let lost = tuple_of([loser.name.0.clone(), loser.value.clone()]);
        let registry = Term::Atom(self.me.name.clone());
        let reason = tuple_of([atom("name_conflict"), lost, registry, Term::Pid(winner.pid.clone())]);
        self.actions.push_back(Action::Exit { to: loser.pid.clone(), reason });
    }

    /// Writes a name of this member again that it has.
    fn insist(&mut self, name: &Key) {
        if let Some(mine) = self.names.get(name).filter(|found| found.member == self.me) {
            self.actions.push_back(Action::Put(entry(name), value_of(mine)));
        }
    }

    fn unregister(&mut self, name: &Key, pid: &Pid) {
        if let Some(found) = self.names.get(name).filter(|found| found.pid == *pid).cloned() {
            self.drop_name(name);
            self.remove(&found);
        }
    }

    /// Removes a name from the map, but not what is another's by now.
    fn remove(&mut self, gone: &Registration) {
        self.actions.push_back(match self.mutant.is(Mutant::RemoveAny) {
            true => Action::Remove(entry(&gone.name)),
            false => Action::RemoveValue(entry(&gone.name), value_of(gone)),
        });
    }

    fn set_meta(&mut self, key: Key, value: Option<Term>) {
        let place = place(&key);
        match value {
            Some(value) => {
                self.actions.push_back(Action::Put(place, value.clone()));
                self.meta.insert(key, value);
            }
            None => {
                self.actions.push_back(Action::Remove(place));
                self.meta.remove(&key);
            }
        }
    }

    fn insert(&mut self, registration: Registration) {
        let registration = Arc::new(registration);
        let Registration { name, member, pid, .. } = &*registration;
        self.pids.entry(pid.clone()).or_default().insert(Arc::clone(name));
        let before = self.names.insert(Arc::clone(name), Arc::clone(&registration));
        self.count_one(&registration, true);
        if !self.mutant.is(Mutant::CountReplaced) {
            before.iter().for_each(|before| self.count_one(before, false));
        }
        let found = if self.members.contains(member) { Found::There } else { Found::Gone };
        self.actions.push_back(Action::Found(vec![found(Arc::clone(&registration))]));
        if registration.is_watched_by(&self.me) && self.monitored.insert(pid.clone()) {
            self.actions.push_back(Action::Monitor(pid.clone()));
        }
        if let Some(before) = before.filter(|before| before.pid != *pid) {
            self.forget_name(name, &before.pid);
        }
    }

    fn drop_name(&mut self, name: &Key) {
        if let Some(found) = self.take_name(name) {
            self.actions.push_back(Action::Found(vec![Found::Gone(found)]));
        }
    }

    fn take_name(&mut self, name: &Key) -> Option<Arc<Registration>> {
        let found = self.names.remove(name)?;
        self.count_one(&found, false);
        self.forget_name(name, &found.pid);
        Some(found)
    }

    fn count_one(&mut self, registration: &Registration, more: bool) {
        let Registration { member, pid, .. } = registration;
        let of_member = self.counts.entry(member.clone()).or_default();
        let count = of_member.entry((pid.node.clone(), pid.creation)).or_default();
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            of_member.remove(&(pid.node.clone(), pid.creation));
            if of_member.is_empty() {
                self.counts.remove(member);
            }
        }
    }

    fn forget_name(&mut self, name: &Key, pid: &Pid) {
        let Some(names) = self.pids.get_mut(pid) else { return };
        names.remove(name);
        let (all, me) = (&self.names, &self.me);
        let watched = |name: &Arc<Key>| all.get(name).is_some_and(|found| found.is_watched_by(me));
        if !names.iter().any(watched) && !self.mutant.is(Mutant::KeepWatching) && self.monitored.remove(pid) {
            self.actions.push_back(Action::Demonitor(pid.clone()));
        }
        if names.is_empty() {
            self.pids.remove(pid);
        }
    }

    /// The map has a new value for a key, or none any more. What is not Horde's is left alone.
    fn changed(&mut self, key: Key, value: Option<Term>) -> Option<()> {
        let [tag, what] = tuple::<2>(key.0)?;
        match (tag.as_atom()?.as_str(), value) {
            ("member", Some(_)) => {
                let member = Member::from_term(what, &self.me.node)?;
                if member == self.me {
                    // By one that has not heard yet that it has left.
                    if self.left && !self.mutant.is(Mutant::TakeWhenLeft) {
                        self.actions.push_back(Action::Remove(member.key()));
                    }
                    // Only what was written here is known to be missing elsewhere.
                    self.join();
                } else if self.members.insert(member.clone()) {
                    self.show(&member);
                    self.neighbours();
                }
            }
            ("member", None) => {
                let member = Member::from_term(what, &self.me.node)?;
                if member == self.me {
                    if !self.mutant.is(Mutant::NoJoinOnRemoved) {
                        self.join();
                    }
                } else if self.members.remove(&member) {
                    self.forget(&member);
                    self.neighbours();
                }
            }
            ("key", Some(value)) => self.registered(Key(what), value)?,
            ("key", None) => self.removed(&Key(what)),
            ("registry", Some(value)) => {
                self.meta.insert(Key(what), value);
            }
            ("registry", None) => {
                self.meta.remove(&Key(what));
            }
            _ => return None,
        }
        Some(())
    }

    fn registered(&mut self, name: Key, value: Term) -> Option<()> {
        let [member, pid, value] = tuple::<3>(value)?;
        let Term::Pid(pid) = pid else { return None };
        let member = Member::from_term(member, &self.me.node)?;
        let registration = Registration { name: self.kept(name), member, pid, value };
        let Registration { name, member, pid, .. } = &registration;
        let ours = self.names.get(name).is_some_and(|before| before.member == self.me);
        // What an earlier incarnation of this node has is over.
        let earlier = pid.node == self.pid.node && pid.creation != self.pid.creation;
        if earlier && !self.mutant.is(Mutant::KeepEarlier) {
            if ours {
                self.insist(name);
            } else {
                self.drop_name(name);
                self.remove(&registration);
            }
            return Some(());
        }
        if *member == self.me && !self.is_member() && !self.mutant.is(Mutant::TakeWhenLeft) {
            self.remove(&registration);
            return Some(());
        }
        if *member == self.me && self.mutant.is(Mutant::IgnoreOwn) {
            return Some(());
        }
        // Whoever has missed changes looks at the whole map again.
        if self.names.get(&registration.name).is_none_or(|before| **before != registration) {
            self.conflict(&registration);
            self.insert(registration);
        }
        Some(())
    }

    fn removed(&mut self, name: &Key) {
        match self.names.get(name) {
            // It lives, and has not given the name up: the node was only thought to be gone, or another has unregistered it.
            Some(mine) if mine.member == self.me && !self.mutant.is(Mutant::NoInsisting) => self.insist(name),
            _ => self.drop_name(name),
        }
    }

    /// There was no room for what this member has written.
    fn refused(&mut self, key: Key) -> Option<()> {
        let [tag, name] = tuple::<2>(key.0)?;
        let name = Key(name);
        if tag.is_atom("key") && self.names.get(&name).is_some_and(|found| found.member == self.me) {
            self.drop_name(&name);
        }
        Some(())
    }
}

/// The key of a value of the registry itself in the map.
fn place(key: &Key) -> Key {
    Key(tuple_of([atom("registry"), key.0.clone()]))
}

/// The key of a name in the map.
fn entry(name: &Key) -> Key {
    Key(tuple_of([atom("key"), name.0.clone()]))
}

fn value_of(registration: &Registration) -> Term {
    let Registration { member, pid, value, .. } = registration;
    tuple_of([member.to_term(), Term::Pid(pid.clone()), value.clone()])
}

#[cfg(test)]
mod tests;
