//! A `Horde.Registry` (0.9 and 0.10) for the simulation: what `Horde.RegistryImpl` and `Horde.NodeListener` do over a
//! [`DeltaCrdt`](crate::registry::causal_crdt::tests::delta_crdt::DeltaCrdt), without the remedies of
//! [`HordeRegistry`](super::super::HordeRegistry).
//!
//! * Its table follows the changes of the map, its own writes too. A name is looked up by the process that asks for it.
//! * With `members: :auto` each connection that comes or goes makes the visible nodes the members. Who is none any more loses its
//!   names; nobody writes them again.
//! * `unregister` removes a name, whoever has it.
//! * Whoever sees that a name has another process tells the one that had it, on whatever node that is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use foundation_proto::etf::{Pid, Term};

use super::super::{Member, entry, place};
use super::node::{Node, Registry, What, Wire, World, member, node_id, node_name};
use crate::Key;
use crate::message::{tuple, tuple_of};
use crate::registry::{Address, Change, causal_crdt};
use crate::sim::{Io, NodeId};

#[derive(Debug)]
enum Mail {
    Diffs(Vec<Change>),
    Exit(Pid),
    Asked(What),
}

/// What is done to the map, and to processes.
#[derive(Debug)]
enum Effect {
    Put(Key, Term),
    Remove(Key),
    SetNeighbours(Vec<Address>),
    Exit {
        to: Pid,
        name: Key,
    },
    /// A name is lost for whoever has it.
    Lost(Key, &'static str),
    Given {
        pid: Pid,
        name: Key,
        value: i64,
    },
    GivenUp {
        pid: Pid,
        name: Key,
    },
}

#[derive(Debug)]
pub(super) struct Beam {
    id: NodeId,
    members: BTreeSet<Member>,
    /// Whose names are found.
    pub(super) shown: BTreeSet<Member>,
    pub(super) keys: BTreeMap<Key, (Member, Pid, Term)>,
    pids: BTreeMap<Pid, BTreeSet<Key>>,
    links: BTreeSet<Pid>,
    mailbox: VecDeque<Mail>,
}

impl Beam {
    pub(super) fn new(id: NodeId) -> Self {
        Self {
            id,
            members: BTreeSet::new(),
            shown: BTreeSet::new(),
            keys: BTreeMap::new(),
            pids: BTreeMap::new(),
            links: BTreeSet::new(),
            mailbox: VecDeque::new(),
        }
    }

    pub(super) fn exited(&mut self, pid: &Pid) {
        if self.links.remove(pid) {
            self.mailbox.push_back(Mail::Exit(pid.clone()));
        }
    }

    pub(super) fn told(&mut self, changes: Vec<Change>) {
        self.mailbox.push_back(Mail::Diffs(changes));
    }

    /// What a process asks; it looks first whether it may.
    pub(super) fn asked(&mut self, what: What, peers: &BTreeMap<NodeId, u32>, world: &World) {
        let may = match &what {
            What::Register { name, .. } => !self.finds(name, peers, world),
            What::Update { name, pid, .. } => self.keys.get(name).is_some_and(|(_, has, _)| has == pid),
            _ => true,
        };
        if may {
            self.mailbox.push_back(Mail::Asked(what));
        }
    }

    fn finds(&self, name: &Key, peers: &BTreeMap<NodeId, u32>, world: &World) -> bool {
        let Some((member, pid, _)) = self.keys.get(name) else { return false };
        let id = node_id(&pid.node);
        let reached = id == self.id || peers.contains_key(&id) && !(world.hidden && id < world.beams);
        self.shown.contains(member) && reached && world.lives(pid)
    }

    fn neighbours(&self) -> Effect {
        let others = self.members.iter().filter(|member| member.node != node_name(self.id));
        Effect::SetNeighbours(others.filter_map(Member::map).collect())
    }

    /// The members that it is started with.
    pub(super) fn first(&mut self, members: Vec<Member>) -> Vec<(Key, Term)> {
        self.shown.extend(members.iter().cloned());
        members.iter().map(|member| (member.key(), Term::Integer(1))).collect()
    }

    fn link(&mut self, pid: &Pid, world: &World) {
        if pid.node == node_name(self.id) {
            if world.lives(pid) {
                self.links.insert(pid.clone());
            } else {
                self.mailbox.push_back(Mail::Exit(pid.clone()));
            }
        }
    }

    fn next(&mut self, world: &World) -> Option<Vec<Effect>> {
        let mut effects = Vec::new();
        match self.mailbox.pop_front()? {
            Mail::Exit(pid) => {
                for name in self.pids.remove(&pid).unwrap_or_default() {
                    effects.push(Effect::Lost(name.clone(), "its table had it for a process that ended"));
                    effects.push(Effect::Remove(entry(&name)));
                    self.keys.retain(|key, (_, has, _)| *key != name || *has != pid);
                }
            }
            Mail::Diffs(changes) => {
                for change in changes {
                    self.changed(change, world, &mut effects);
                }
            }
            Mail::Asked(what) => self.ask(what, world, &mut effects),
        }
        Some(effects)
    }

    fn ask(&mut self, what: What, world: &World, effects: &mut Vec<Effect>) {
        let me = member(self.id);
        match what {
            What::Register { name, value, pid } => {
                self.link(&pid, world);
                let there = tuple_of([me.to_term(), Term::Pid(pid.clone()), Term::Integer(value)]);
                effects.push(Effect::Given { pid, name: name.clone(), value });
                effects.push(Effect::Put(entry(&name), there));
            }
            What::Update { name, value, pid } => {
                let there = tuple_of([me.to_term(), Term::Pid(pid.clone()), Term::Integer(value)]);
                self.keys.insert(name.clone(), (me, pid.clone(), Term::Integer(value)));
                effects.push(Effect::Given { pid, name: name.clone(), value });
                effects.push(Effect::Put(entry(&name), there));
            }
            What::Unregister { name, pid } => {
                effects.push(Effect::GivenUp { pid: pid.clone(), name: name.clone() });
                effects.push(Effect::Lost(name.clone(), "a process on a BEAM has unregistered it"));
                effects.push(Effect::Remove(entry(&name)));
                self.unregister(&name, &pid);
            }
            What::SetMembers(mut members) => {
                members.push(me);
                let new: BTreeSet<Member> = members.into_iter().collect();
                let gone = self.members.difference(&new).map(|member| Effect::Remove(member.key()));
                effects.extend(gone);
                let added = new.difference(&self.members);
                effects.extend(added.map(|member| Effect::Put(member.key(), Term::Integer(1))));
                self.members = new;
                effects.push(self.neighbours());
            }
            What::Meta { key, value: Some(value) } => effects.push(Effect::Put(place(&Key(key)), value)),
            What::Meta { key, value: None } => effects.push(Effect::Remove(place(&Key(key)))),
            What::Leave => {}
        }
    }

    fn unregister(&mut self, name: &Key, pid: &Pid) {
        if let Some(names) = self.pids.get_mut(pid) {
            names.remove(name);
            if names.is_empty() {
                self.pids.remove(pid);
            }
        }
        self.keys.retain(|key, (_, has, _)| key != name || has != pid);
    }

    fn changed(&mut self, change: Change, world: &World, effects: &mut Vec<Effect>) {
        let (key, value) = match change {
            Change::Put(key, value) => (key, Some(value)),
            Change::Removed(key) => (key, None),
        };
        let [tag, what] = tuple::<2>(key.0).unwrap();
        match (tag.as_atom().unwrap().as_str(), value) {
            ("member", Some(_)) => {
                let member = Member::from_term(what, &node_name(self.id)).unwrap();
                self.members.insert(member.clone());
                self.shown.insert(member);
                effects.push(self.neighbours());
            }
            ("member", None) => {
                let member = Member::from_term(what, &node_name(self.id)).unwrap();
                self.shown.remove(&member);
                let theirs = self.keys.iter().filter(|(_, (of, ..))| *of == member);
                let theirs: Vec<(Key, Pid)> =
                    theirs.map(|(name, (_, pid, _))| (name.clone(), pid.clone())).collect();
                for (name, pid) in theirs {
                    effects.push(Effect::Lost(name.clone(), "its node was taken out of the members"));
                    effects.push(Effect::Remove(entry(&name)));
                    self.unregister(&name, &pid);
                }
                self.members.remove(&member);
            }
            ("key", Some(value)) => {
                let [of, pid, value] = tuple::<3>(value).unwrap();
                let (Term::Pid(pid), name) = (pid, Key(what)) else { panic!("no pid") };
                let of = Member::from_term(of, &node_name(self.id)).unwrap();
                self.link(&pid, world);
                self.pids.entry(pid.clone()).or_default().insert(name.clone());
                let before = self.keys.get(&name).filter(|(_, before, _)| *before != pid);
                if let Some((_, loser, _)) = before.cloned() {
                    self.unregister(&name, &loser);
                    effects.push(Effect::Exit { to: loser, name: name.clone() });
                }
                self.keys.insert(name, (of, pid, value));
            }
            ("key", None) => {
                let name = Key(what);
                if let Some((_, pid, _)) = self.keys.get(&name).cloned() {
                    self.unregister(&name, &pid);
                }
            }
            _ => {}
        }
    }
}

impl Node {
    /// A BEAM is started: it is among the members from the beginning.
    pub(super) fn first_members(&mut self, io: &mut Io<Wire>, mut members: Vec<Member>) {
        let Registry::Beam(beam) = &mut self.registry else { return };
        members.push(member(self.id));
        let neighbours = members.iter().filter(|other| **other != member(self.id)).filter_map(Member::map);
        let neighbours = neighbours.collect();
        for (key, value) in beam.first(members) {
            self.map(io, causal_crdt::Event::Put { key, value });
        }
        self.map(io, causal_crdt::Event::SetNeighbours(neighbours));
    }

    /// The registry of a BEAM takes the next message.
    pub(super) fn beam(&mut self, io: &mut Io<Wire>) -> bool {
        let Registry::Beam(beam) = &mut self.registry else { return false };
        let Some(effects) = beam.next(&self.world.borrow()) else { return false };
        let mut given = None;
        for effect in effects {
            match effect {
                Effect::Put(key, value) => {
                    if let Some((pid, name)) = given.take() {
                        self.note_write(&pid, &name);
                    }
                    self.world.borrow_mut().writes += 1;
                    self.map(io, causal_crdt::Event::Put { key, value });
                }
                Effect::Remove(key) => {
                    self.world.borrow_mut().writes += 1;
                    self.map(io, causal_crdt::Event::Remove(key));
                }
                Effect::SetNeighbours(neighbours) => {
                    self.map(io, causal_crdt::Event::SetNeighbours(neighbours));
                }
                Effect::Exit { to, name } => match node_id(&to.node) {
                    here if here == self.id => self.conflict(io, &to, &name),
                    there => self.say(io, there, Wire::Conflict { to, name }),
                },
                Effect::Lost(name, why) => self.world.borrow_mut().removed(&name, why, None),
                Effect::Given { pid, name, value } => {
                    self.world.borrow_mut().given(&pid, &name, value);
                    given = Some((pid, name));
                }
                Effect::GivenUp { pid, name } => self.world.borrow_mut().given_up(&pid, &name, true),
            }
        }
        true
    }
}
