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
//! exit signal `{:name_conflict, {Name, Value}, Registry, Winner}`, as on a BEAM.
//!
//! # Differences from Horde
//!
//! * When a node goes away, Horde with `members: :auto` takes it out of the members and drops its names. If it comes back, the
//!   names stay lost. This member puts itself and the names of its living processes back as soon as it learns of it: from
//!   members that still compare with it; from one that does not any more, when it asks for a member key that it has had
//!   ([`Event::Missing`]); and at each [`Event::NodeUp`] it puts itself back unasked.
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
    /// The map has changed.
    Changed(Change),
    /// Keys that were written here are missing from the map of a member that has had them.
    Missing(Vec<Key>),
    /// A connection to a node came up.
    NodeUp(Atom),
    /// A process that was monitored has ended.
    Down(Pid),
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
    members: BTreeSet<Member>,
    names: BTreeMap<Arc<Key>, Arc<Registration>>,
    /// The names of each process.
    pids: BTreeMap<Pid, BTreeSet<Arc<Key>>>,
    /// The processes that have registered here.
    monitored: BTreeSet<Pid>,
    meta: BTreeMap<Key, Term>,
    actions: VecDeque<Action>,
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
            names: BTreeMap::new(),
            pids: BTreeMap::new(),
            monitored: BTreeSet::new(),
            meta: BTreeMap::new(),
            actions,
        }
    }

    /// Who has a name, as far as it is known here. The names of nodes that are no members are not found.
    pub fn lookup(&self, name: &Term) -> Option<&Arc<Registration>> {
        self.names.get(&Key(name.clone())).filter(|found| self.members.contains(&found.member))
    }

    /// All names, in Erlang's order.
    pub fn names(&self) -> impl Iterator<Item = &Arc<Registration>> {
        self.names.values()
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are no names.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
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
            Event::SetMembers(members) => self.set_members(members),
            Event::Register { name, value, pid } => {
                let name = self.kept(Key(name));
                self.write(Registration { name, member: self.me.clone(), pid, value });
            }
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
                // What else it has dropped it says itself, once it compares with this member again.
                if keys.contains(&self.me.key()) {
                    self.join();
                }
            }
            Event::NodeUp(node) => {
                if self.members.iter().any(|member| member.node == node && *member != self.me) {
                    self.join();
                }
            }
            Event::Down(pid) => {
                let names = self.pids.get(&pid).cloned().unwrap_or_default();
                for name in names {
                    self.unregister(&name, &pid);
                }
            }
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
            ("register", 4) => {
                let [_, name, value, pid] = elements.try_into().ok()?;
                let Term::Pid(pid) = pid else { return None };
                self.handle(Event::Register { name, value, pid });
                return Some(tuple_of([atom("ok"), Term::Pid(self.pid.clone())]));
            }
            ("update_value", 4) => {
                let [_, name, pid, value] = elements.try_into().ok()?;
                let Term::Pid(pid) = pid else { return None };
                self.handle(Event::Register { name, value, pid });
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

    fn set_members(&mut self, members: Vec<Member>) {
        let mut wanted: BTreeSet<Member> = members.into_iter().collect();
        wanted.insert(self.me.clone());
        for gone in self.members.difference(&wanted) {
            self.actions.push_back(Action::Remove(gone.key()));
        }
        for new in wanted.difference(&self.members) {
            self.actions.push_back(Action::Put(new.key(), Term::Integer(1)));
        }
        let left: Vec<Member> = self.members.difference(&wanted).cloned().collect();
        let new: Vec<Member> = wanted.difference(&self.members).cloned().collect();
        self.members = wanted;
        left.iter().for_each(|member| self.forget(member));
        new.iter().for_each(|member| self.show(member));
        self.neighbours();
    }

    /// Puts itself among the members, by a write that none of them can have removed yet.
    fn join(&mut self) {
        self.actions.push_back(Action::Put(self.me.key(), Term::Integer(1)));
    }

    fn neighbours(&mut self) {
        let others = self.members.iter().filter(|member| **member != self.me).filter_map(Member::map);
        self.actions.push_back(Action::SetNeighbours(others.collect()));
    }

    /// A member has come: names of it that were known before are found now.
    fn show(&mut self, member: &Member) {
        let theirs = self.names.values().filter(|found| found.member == *member);
        let theirs: Vec<Found> = theirs.cloned().map(Found::There).collect();
        if !theirs.is_empty() {
            self.actions.push_back(Action::Found(theirs));
        }
    }

    /// A member is gone: its names go with it.
    fn forget(&mut self, member: &Member) {
        let theirs = self.names.values().filter(|found| found.member == *member);
        let theirs: Vec<Arc<Key>> = theirs.map(|found| Arc::clone(&found.name)).collect();
        let gone = theirs.iter().filter_map(|name| self.take_name(name)).map(Found::Gone).collect();
        if !theirs.is_empty() {
            self.actions.push_back(Action::Found(gone));
        }
        self.actions.extend(theirs.iter().map(|name| Action::Remove(entry(name))));
    }

    /// A name as it is kept here already, so that it is not kept twice.
    fn kept(&self, name: Key) -> Arc<Key> {
        let kept = self.names.get_key_value(&name).map(|(kept, _)| Arc::clone(kept));
        kept.unwrap_or_else(|| Arc::new(name))
    }

    fn write(&mut self, registration: Registration) {
        let write = Action::Put(entry(&registration.name), value_of(&registration));
        self.insert(registration);
        self.actions.push_back(write);
    }

    fn unregister(&mut self, name: &Key, pid: &Pid) {
        if self.names.get(name).is_some_and(|found| found.pid == *pid) {
            self.drop_name(name);
            self.actions.push_back(Action::Remove(entry(name)));
        }
    }

    fn set_meta(&mut self, key: Key, value: Option<Term>) {
        let place = Key(tuple_of([atom("registry"), key.0.clone()]));
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
        let found = if self.members.contains(member) { Found::There } else { Found::Gone };
        self.actions.push_back(Action::Found(vec![found(Arc::clone(&registration))]));
        if *member == self.me && self.monitored.insert(pid.clone()) {
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
        self.forget_name(name, &found.pid);
        Some(found)
    }

    fn forget_name(&mut self, name: &Key, pid: &Pid) {
        let Some(names) = self.pids.get_mut(pid) else { return };
        names.remove(name);
        let mine = |name: &Arc<Key>| self.names.get(name).is_some_and(|found| found.member == self.me);
        if !names.iter().any(mine) && self.monitored.remove(pid) {
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
                if self.members.insert(member.clone()) {
                    self.show(&member);
                    self.neighbours();
                }
            }
            ("member", None) => {
                let member = Member::from_term(what, &self.me.node)?;
                if member == self.me {
                    self.join();
                } else if self.members.remove(&member) {
                    self.forget(&member);
                    self.neighbours();
                }
            }
            ("key", Some(value)) => self.registered(Key(what), value)?,
            ("key", None) => self.removed(Key(what)),
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
        if member == self.me {
            // This member knows what it has registered. What an earlier incarnation of this node has is over.
            let earlier = pid.node == self.pid.node && pid.creation != self.pid.creation;
            if earlier && self.names.get(&name).is_none_or(|found| found.member != self.me) {
                self.actions.push_back(Action::Remove(entry(&name)));
            }
            return Some(());
        }
        let conflict =
            self.names.get(&name).filter(|before| before.pid != pid && before.pid.node == self.me.node);
        if let Some(loser) = conflict {
            let lost = tuple_of([name.0.clone(), loser.value.clone()]);
            let registry = Term::Atom(self.me.name.clone());
            let reason = tuple_of([atom("name_conflict"), lost, registry, Term::Pid(pid.clone())]);
            self.actions.push_back(Action::Exit { to: loser.pid.clone(), reason });
        }
        // Whoever has missed changes looks at the whole map again.
        let same =
            |found: &Arc<Registration>| found.member == member && found.pid == pid && found.value == value;
        if !self.names.get(&name).is_some_and(same) {
            let name = self.kept(name);
            self.insert(Registration { name, member, pid, value });
        }
        Some(())
    }

    fn removed(&mut self, name: Key) {
        match self.names.get(&name) {
            // It lives, and has not given the name up: the node was only thought to be gone.
            Some(mine) if mine.member == self.me => {
                let value = value_of(mine);
                self.actions.push_back(Action::Put(entry(&name), value));
            }
            _ => self.drop_name(&name),
        }
    }
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
