//! A node of the simulation: a map, a member of a registry over it, and the processes that register.
//!
//! The map and the registry are tasks of their own, as on a real node: what the one tells the other waits in queues, of which the
//! registry takes from any; between two of its actions the map may have moved on. A registry that is slow misses changes, and looks at
//! the whole map again.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, Term};

use super::super::{Action, Event, Found, HordeRegistry, Member, Mutant, Registration};
use super::beam::Beam;
use crate::Key;
use crate::message::tuple;
use crate::registry::causal_crdt::tests::delta_crdt::DeltaCrdt;
use crate::registry::causal_crdt::tests::simulation::Member as Map;
use crate::registry::causal_crdt::{self, Config, MonitorId};
use crate::registry::{Address, CausalCrdt, Change};
use crate::sim::{Host, Io, NodeId, Random};

/// What nodes of the simulation send each other.
#[derive(Clone, Debug)]
pub(super) enum Wire {
    Message {
        to: Address,
        message: Term,
    },
    /// An exit signal of a BEAM: its process loses a name.
    Conflict {
        to: Pid,
        name: Key,
    },
}

pub(super) fn registry_name() -> Atom {
    Atom::new_static("Elixir.Reg")
}

pub(super) fn node_name(id: NodeId) -> Atom {
    Atom::new(&format!("n{id}@sim")).unwrap()
}

pub(super) fn node_id(name: &Atom) -> NodeId {
    name.as_str()[1..].split('@').next().unwrap().parse().unwrap()
}

pub(super) fn member(id: NodeId) -> Member {
    Member { name: registry_name(), node: node_name(id) }
}

pub(super) fn name(word: &str) -> Key {
    Key(Term::from(word))
}

/// A name that a process was given, and has neither given up nor lost by a conflict that it was told of.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) value: i64,
    /// Horde has lost it, or may have.
    pub(super) lost: Option<&'static str>,
    /// The writes of it.
    pub(super) dots: BTreeSet<crate::registry::Dot>,
}

#[derive(Debug, Default)]
pub(super) struct Process {
    /// It is told of a conflict, and lives on.
    pub(super) notify: bool,
    pub(super) names: BTreeMap<Key, Claim>,
    /// What it had besides, and did not give up: the map may give it back.
    pub(super) had: BTreeSet<Key>,
}

/// What all nodes are judged by, and what they learn of each other without messages: handshakes and remote calls.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) creations: BTreeMap<NodeId, u32>,
    /// Whether members of our kind are hidden nodes.
    pub(super) hidden: bool,
    /// Which nodes, from this one on, are BEAMs.
    pub(super) beams: NodeId,
    /// The living processes.
    pub(super) processes: BTreeMap<Pid, Process>,
    /// How many writes registries have made.
    pub(super) writes: u64,
    pub(super) broken: Option<String>,
}

impl World {
    pub(super) fn lives(&self, pid: &Pid) -> bool {
        self.processes.contains_key(pid)
    }

    pub(super) fn fail(&mut self, what: impl FnOnce() -> String) {
        self.broken.get_or_insert_with(what);
    }

    /// A process has a name now.
    pub(super) fn given(&mut self, pid: &Pid, name: &Key, value: i64) {
        if let Some(process) = self.processes.get_mut(pid) {
            process.had.insert(name.clone());
            let claim = Claim { value, lost: None, dots: BTreeSet::new() };
            let claim = process.names.entry(name.clone()).or_insert(claim);
            (claim.value, claim.lost) = (value, None);
        }
    }

    /// A process gives a name up; if it is its own, for good.
    pub(super) fn given_up(&mut self, pid: &Pid, name: &Key, own: bool) {
        if let Some(process) = self.processes.get_mut(pid) {
            process.names.remove(name);
            if own {
                process.had.remove(name);
            }
        }
    }

    /// A process is told that it has lost a name; `true` if it ends.
    pub(super) fn conflict(&mut self, pid: &Pid, name: &Key) -> bool {
        let Some(process) = self.processes.get_mut(pid) else { return false };
        process.names.remove(name);
        !process.notify
    }

    /// A name was removed from the map: processes of BEAMs lose it, whether or not they live; `but` must not.
    pub(super) fn removed(&mut self, name: &Key, why: &'static str, but: Option<&Pid>) {
        let beams = self.beams;
        let all =
            self.processes.iter_mut().filter(|(pid, _)| node_id(&pid.node) >= beams && Some(*pid) != but);
        for (_, process) in all {
            if let Some(claim) = process.names.get_mut(name) {
                claim.lost.get_or_insert(why);
            }
        }
    }
}

/// What a user of a registry asks.
#[derive(Clone, Debug)]
pub(super) enum What {
    Register { name: Key, value: i64, pid: Pid },
    Update { name: Key, value: i64, pid: Pid },
    Unregister { name: Key, pid: Pid },
    SetMembers(Vec<Member>),
    Meta { key: Term, value: Option<Term> },
    Leave,
}

#[derive(Debug)]
enum Look {
    IfGone(Key),
    All,
    Key(Key),
}

/// A member of our kind, with the queues of its host.
#[derive(Debug)]
pub(super) struct Ours {
    pub(super) machine: HordeRegistry,
    /// What readers see.
    pub(super) copy: BTreeMap<Arc<Key>, Arc<Registration>>,
    pub(super) monitors: BTreeMap<Pid, u64>,
    references: u64,
    downs: VecDeque<(Pid, u64)>,
    changes: VecDeque<Key>,
    /// How many changes may wait.
    capacity: usize,
    missed: bool,
    notices: VecDeque<Vec<Key>>,
    ups: VecDeque<Atom>,
    commands: VecDeque<What>,
    /// What is still to be looked at, before anything else.
    looking: VecDeque<Look>,
    /// What is being registered.
    registering: Option<(Pid, Key, i64)>,
}

#[derive(Debug)]
pub(super) enum Registry {
    Ours(Box<Ours>),
    Beam(Beam),
}

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) creation: u32,
    pub(super) map: Box<dyn Map>,
    pub(super) registry: Registry,
    pub(super) peers: BTreeMap<NodeId, u32>,
    /// Nodes that nothing reaches from here, although nobody has noticed yet.
    pub(super) muted: BTreeSet<NodeId>,
    pub(super) world: Rc<RefCell<World>>,
    /// The members follow the connections.
    auto: bool,
    map_pid: Pid,
    /// How far its clock is ahead of the simulation's.
    ahead: Duration,
    watching: BTreeMap<MonitorId, NodeId>,
    random: Random,
    /// When the registry goes on.
    turn: Option<Mono>,
    next_process: u32,
    /// The processes that are told apart by their numbers.
    pub(super) numbered: BTreeMap<u32, Pid>,
}

/// How a node is started.
pub(super) struct Start {
    pub(super) id: NodeId,
    pub(super) creation: u32,
    pub(super) seed: u64,
    pub(super) ahead: Duration,
    pub(super) auto: bool,
    pub(super) beam: bool,
    pub(super) mutant: Option<Mutant>,
    pub(super) world: Rc<RefCell<World>>,
}

impl Node {
    pub(super) fn new(start: Start) -> Self {
        let Start { id, creation, seed, ahead, auto, beam, mutant, world } = start;
        let pid = |id_of: u32| Pid { node: node_name(id), id: id_of, serial: 0, creation };
        let mut random = Random::new(seed ^ u64::from(creation) << 32);
        let replica = i64::from(creation);
        let (map, registry): (Box<dyn Map>, _) = if beam {
            (Box::new(DeltaCrdt::new(pid(1), replica)), Registry::Beam(Beam::new(id)))
        } else {
            let mut machine = HordeRegistry::new(registry_name(), pid(2));
            machine.mutant.rule = mutant;
            let ours = Ours {
                machine,
                copy: BTreeMap::new(),
                monitors: BTreeMap::new(),
                references: 0,
                downs: VecDeque::new(),
                changes: VecDeque::new(),
                capacity: 1 + random.below(16),
                missed: false,
                notices: VecDeque::new(),
                ups: VecDeque::new(),
                commands: VecDeque::new(),
                looking: VecDeque::from([Look::All]),
                registering: None,
            };
            let config = Config { piece: 1 + creation as usize % 4, ..Config::new(replica) };
            (Box::new(CausalCrdt::new(pid(1), config)), Registry::Ours(Box::new(ours)))
        };
        world.borrow_mut().creations.insert(id, creation);
        Self {
            id,
            creation,
            map,
            registry,
            peers: BTreeMap::new(),
            muted: BTreeSet::new(),
            world,
            auto,
            map_pid: pid(1),
            ahead,
            watching: BTreeMap::new(),
            random,
            turn: Some(Mono::ZERO),
            next_process: 10,
            numbered: BTreeMap::new(),
        }
    }

    pub(super) fn ours(&self) -> Option<&Ours> {
        match &self.registry {
            Registry::Ours(ours) => Some(ours),
            Registry::Beam(_) => None,
        }
    }

    /// A process that lives.
    pub(super) fn spawn(&mut self, notify: bool) -> Pid {
        self.next_process += 1;
        let pid = Pid { node: node_name(self.id), id: self.next_process, serial: 0, creation: self.creation };
        self.world.borrow_mut().processes.insert(pid.clone(), Process { notify, ..Process::default() });
        pid
    }

    /// The living process of a number; a new one if there is none.
    pub(super) fn process(&mut self, number: u32, notify: bool) -> Pid {
        if let Some(pid) = self.numbered.get(&number).filter(|pid| self.world.borrow().lives(pid)) {
            return pid.clone();
        }
        let pid = self.spawn(notify);
        self.numbered.insert(number, pid.clone());
        pid
    }

    /// A process of this node ends: whoever watches it is told.
    pub(super) fn end(&mut self, io: &Io<Wire>, pid: &Pid) {
        if self.world.borrow_mut().processes.remove(pid).is_none() {
            return;
        }
        match &mut self.registry {
            Registry::Ours(ours) => {
                if let Some(reference) = ours.monitors.get(pid) {
                    ours.downs.push_back((pid.clone(), *reference));
                }
            }
            Registry::Beam(beam) => beam.exited(pid),
        }
        self.work(io);
    }

    /// A process is told that it has lost a name.
    pub(super) fn conflict(&mut self, io: &Io<Wire>, pid: &Pid, name: &Key) {
        let ends = self.world.borrow_mut().conflict(pid, name);
        if ends {
            self.end(io, pid);
        }
    }

    pub(super) fn command(&mut self, io: &Io<Wire>, what: What) {
        match &mut self.registry {
            Registry::Ours(ours) => ours.commands.push_back(what),
            Registry::Beam(beam) => beam.asked(what, &self.peers, &self.world.borrow()),
        }
        self.work(io);
    }

    /// The registry has something to do, sooner or later.
    fn work(&mut self, io: &Io<Wire>) {
        if self.turn.is_none() {
            let pause = match self.random.below(100) {
                0 => Duration::from_millis(200),
                1..50 => self.random.duration(Duration::ZERO..Duration::from_millis(2)),
                _ => Duration::ZERO,
            };
            self.turn = Some(io.now() + pause);
        }
    }

    pub(super) fn say(&self, io: &mut Io<Wire>, to: NodeId, wire: Wire) {
        if !self.muted.contains(&to) {
            io.send(to, wire);
        }
    }

    /// Something happens to the map.
    pub(super) fn map(&mut self, io: &mut Io<Wire>, event: causal_crdt::Event) {
        self.map.handle(io.now() + self.ahead, event);
        self.carry_out(io);
    }

    fn carry_out(&mut self, io: &mut Io<Wire>) {
        let mut lost = Vec::new();
        while let Some(action) = self.map.poll_action() {
            match action {
                causal_crdt::Action::Send { to, message } => {
                    for to in to {
                        let message = message.clone();
                        self.say(io, node_id(to.node()), Wire::Message { to, message });
                    }
                }
                causal_crdt::Action::Monitor { monitor, target } => {
                    let node = node_id(target.node());
                    if self.peers.contains_key(&node) {
                        self.watching.insert(monitor, node);
                    } else {
                        lost.push(monitor);
                    }
                }
                causal_crdt::Action::Demonitor(id) => drop(self.watching.remove(&id)),
                causal_crdt::Action::Changed(changes) => {
                    match &mut self.registry {
                        Registry::Ours(ours) => changes.into_iter().for_each(|change| ours.told(change)),
                        Registry::Beam(beam) => beam.told(changes),
                    }
                    self.work(io);
                }
                causal_crdt::Action::Missing(keys) => {
                    if let Registry::Ours(ours) = &mut self.registry {
                        ours.notices.push_back(keys);
                        self.work(io);
                    }
                }
                causal_crdt::Action::Alone => {}
                other => panic!("unknown action {other:?}"),
            }
        }
        for monitor in lost {
            self.map(io, causal_crdt::Event::Down(monitor));
        }
    }

    /// The next write is that of a name.
    pub(super) fn note_write(&self, pid: &Pid, name: &Key) {
        let mut world = self.world.borrow_mut();
        let claim = world.processes.get_mut(pid).and_then(|process| process.names.get_mut(name));
        if let Some(claim) = claim {
            claim.dots.insert(self.map.next());
        }
    }

    /// The registry goes on for a while.
    fn go_on(&mut self, io: &mut Io<Wire>) {
        self.turn = None;
        loop {
            let busy = match &self.registry {
                Registry::Ours(_) => self.act(io) || self.take(),
                Registry::Beam(_) => self.beam(io),
            };
            if !busy {
                return;
            }
            if self.random.chance(20) {
                return self.work(io);
            }
        }
    }

    /// The next action of the registry.
    fn act(&mut self, io: &mut Io<Wire>) -> bool {
        let Registry::Ours(ours) = &mut self.registry else { return false };
        let Some(action) = ours.machine.poll_action() else {
            ours.done(self.id, &mut self.world.borrow_mut());
            return false;
        };
        match action {
            Action::Found(found) => ours.found(found),
            Action::Put(key, value) => {
                self.world.borrow_mut().writes += 1;
                self.map(io, causal_crdt::Event::Put { key, value });
            }
            Action::Remove(key) => {
                {
                    let mut world = self.world.borrow_mut();
                    world.writes += 1;
                    let value = self.map.ours().and_then(|map| map.map().get(&key));
                    if let Some((name, member, pid)) = value.and_then(|value| owner(&key, value, self.id)) {
                        // Members of our kind take nobody's name but that of one that is taken out of the members.
                        let is_member = ours.machine.members.contains(&member);
                        world.removed(&name, "a name of no member, or given away", is_member.then_some(&pid));
                    }
                }
                self.map(io, causal_crdt::Event::Remove(key));
            }
            Action::RemoveValue(key, value) => {
                if self.map.elements(&key).iter().any(|element| element.value == value) {
                    let mut world = self.world.borrow_mut();
                    world.writes += 1;
                    let (name, member, pid) = owner(&key, &value, self.id).expect("an entry");
                    let is_member = ours.machine.members.contains(&member);
                    world.removed(&name, "a name of no member, or given away", is_member.then_some(&pid));
                }
                self.map(io, causal_crdt::Event::RemoveValue { key, value });
            }
            Action::SetNeighbours(neighbours) => {
                self.map(io, causal_crdt::Event::SetNeighbours(neighbours));
            }
            Action::Monitor(pid) => {
                assert_eq!(pid.node, node_name(self.id), "processes elsewhere are not watched");
                ours.references += 1;
                ours.monitors.insert(pid.clone(), ours.references);
                if !self.world.borrow().lives(&pid) {
                    ours.downs.push_back((pid, ours.references));
                }
            }
            Action::Demonitor(pid) => drop(ours.monitors.remove(&pid)),
            Action::Exit { to, reason } => {
                let [_, lost, _, winner] = tuple::<4>(reason).unwrap();
                // Who has ended elsewhere may not be known to have; here it is.
                if let Term::Pid(winner) = winner
                    && winner.node == to.node
                    && winner.creation != self.creation
                {
                    self.world.borrow_mut().fail(|| format!("invariant 4, {to:?} loses to {winner:?}"));
                }
                let [name, _] = tuple::<2>(lost).unwrap();
                self.conflict(io, &to, &Key(name));
            }
            Action::Reply { .. } => {}
        }
        true
    }

    /// The registry takes one event from any of its queues.
    fn take(&mut self) -> bool {
        let Registry::Ours(ours) = &mut self.registry else { return false };
        let map = self.map.ours().expect("ours").map();
        if let Some(look) = ours.looking.pop_front() {
            match look {
                Look::IfGone(key) if map.get(&key).is_some() => {}
                Look::IfGone(key) | Look::Key(key) => {
                    let change = match map.get(&key) {
                        Some(value) => Change::Put(key, value.clone()),
                        None => Change::Removed(key),
                    };
                    ours.machine.handle(Event::Changed(change));
                }
                Look::All => ours.looking.extend(map.iter().map(|(key, _)| Look::Key(key.clone()))),
            }
            return true;
        }
        let waiting = [
            !ours.downs.is_empty(),
            ours.missed || !ours.changes.is_empty(),
            !ours.notices.is_empty(),
            !ours.ups.is_empty(),
            !ours.commands.is_empty(),
        ];
        let ready: Vec<usize> = (0..waiting.len()).filter(|queue| waiting[*queue]).collect();
        if ready.is_empty() {
            return false;
        }
        let event = match ready[self.random.below(ready.len())] {
            0 => {
                let (pid, reference) = ours.downs.pop_front().unwrap();
                if ours.monitors.get(&pid) != Some(&reference) {
                    return true;
                }
                ours.monitors.remove(&pid);
                Event::Down(pid)
            }
            1 if std::mem::take(&mut ours.missed) => {
                let known = ours.machine.known().into_iter().map(Look::IfGone);
                ours.looking.extend(known.chain([Look::All]));
                return true;
            }
            1 => {
                let key = ours.changes.pop_front().unwrap();
                ours.looking.push_back(Look::Key(key));
                return true;
            }
            2 => Event::Missing(ours.notices.pop_front().unwrap()),
            3 => Event::NodeUp(ours.ups.pop_front().unwrap()),
            _ => {
                let what = ours.commands.pop_front().unwrap();
                let (peers, world) = (&self.peers, &mut self.world.borrow_mut());
                match ours.permit(what, self.id, peers, world) {
                    Some(event) => event,
                    None => return true,
                }
            }
        };
        ours.machine.handle(event);
        true
    }
}

/// The name, the member and the process of an entry of the map.
pub(super) fn owner(key: &Key, value: &Term, here: NodeId) -> Option<(Key, Member, Pid)> {
    let [tag, name] = tuple::<2>(key.0.clone())?;
    let [member, pid, _] = tuple::<3>(value.clone())?;
    let Term::Pid(pid) = pid else { return None };
    let member = Member::from_term(member, &node_name(here))?;
    tag.is_atom("key").then_some((Key(name), member, pid))
}

impl Ours {
    /// The map has changed; only the latest changes are kept.
    fn told(&mut self, change: Change) {
        let (Change::Put(key, _) | Change::Removed(key)) = change;
        self.changes.push_back(key);
        if self.changes.len() > self.capacity {
            self.changes.pop_front();
            self.missed = true;
        }
    }

    fn found(&mut self, found: Vec<Found>) {
        for found in found {
            match found {
                Found::There(registration) => self.copy.insert(Arc::clone(&registration.name), registration),
                Found::Gone(registration) => self.copy.remove(&registration.name),
            };
        }
    }

    /// What a command does; `None` if nothing.
    fn permit(
        &mut self,
        what: What,
        here: NodeId,
        peers: &BTreeMap<NodeId, u32>,
        world: &mut World,
    ) -> Option<Event> {
        let (name, value, pid, update) = match what {
            What::Register { name, value, pid } => (name, value, pid, false),
            What::Update { name, value, pid } => (name, value, pid, true),
            What::Unregister { name, pid } => {
                let own = self.machine.names.get(&name).is_some_and(|found| found.pid == pid);
                world.given_up(&pid, &name, own);
                return Some(Event::Unregister { name: name.0, pid });
            }
            What::SetMembers(members) => return Some(Event::SetMembers(members)),
            What::Meta { key, value } => return Some(Event::Meta { key, value }),
            What::Leave => {
                let node = node_name(here);
                for process in world.processes.iter_mut().filter(|(pid, _)| pid.node == node).map(|(_, p)| p)
                {
                    process.names.clear();
                    process.had.clear();
                }
                return Some(Event::Leave);
            }
        };
        let holder = self.machine.lookup(&name.0).map(|found| found.pid.clone());
        let lives = |holder: &Pid| {
            let id = node_id(&holder.node);
            if id == here { world.lives(holder) } else { peers.get(&id) == Some(&holder.creation) }
        };
        match holder.filter(lives) {
            _ if !self.machine.is_member() => return None,
            Some(holder) if !update || holder != pid => return None,
            None if update => return None,
            _ => {}
        }
        world.given(&pid, &name, value);
        self.registering = Some((pid.clone(), name.clone(), value));
        Some(Event::Register { name: name.0, value: Term::Integer(value), pid })
    }

    /// All actions have been carried out.
    fn done(&mut self, id: NodeId, world: &mut World) {
        if let Some((pid, name, value)) = self.registering.take() {
            let found = self.copy.get(&name);
            if found.is_none_or(|found| found.pid != pid || found.value != Term::Integer(value)) {
                world.fail(|| format!("invariant 5, node {id}: {name:?} of {pid:?} is {found:?}"));
            }
        }
        let found = self.machine.names.values().filter(|found| self.machine.members.contains(&found.member));
        if !found.eq(self.copy.values()) {
            world.fail(|| format!("invariant 7, node {id}: {:?}", self.copy));
        }
    }
}

impl Host for Node {
    type Message = Wire;

    fn connected(&mut self, io: &mut Io<Wire>, peer: NodeId) {
        let creation = self.world.borrow().creations[&peer];
        self.peers.insert(peer, creation);
        if let Registry::Ours(ours) = &mut self.registry {
            ours.ups.push_back(node_name(peer));
            self.work(io);
        }
        self.map(io, causal_crdt::Event::NodeUp(node_name(peer)));
        self.nodes_changed(io);
    }

    fn disconnected(&mut self, io: &mut Io<Wire>, peer: NodeId) {
        self.peers.remove(&peer);
        let fired: Vec<MonitorId> =
            self.watching.iter().filter(|(_, node)| **node == peer).map(|(id, _)| *id).collect();
        for monitor in fired {
            self.watching.remove(&monitor);
            self.map(io, causal_crdt::Event::Down(monitor));
        }
        self.nodes_changed(io);
    }

    fn receive(&mut self, io: &mut Io<Wire>, from: NodeId, wire: Wire) {
        match wire {
            Wire::Message { to, message } => {
                let named = matches!(to, Address::Name { .. });
                if named || to == Address::Pid(self.map_pid.clone()) {
                    if let Some(theirs) = self.map.theirs().filter(|_| named) {
                        theirs.takes_for_another(&node_name(from), &message);
                    }
                    let raw = foundation_proto::etf::RawTerm::from_term(&message).unwrap();
                    self.map(io, causal_crdt::Event::Message(raw));
                }
            }
            Wire::Conflict { to, name } => self.conflict(io, &to, &name),
        }
    }

    fn wake(&mut self, io: &mut Io<Wire>) {
        if self.turn.is_some_and(|at| at <= io.now()) {
            self.go_on(io);
        }
        if self.map.poll_timeout().is_some_and(|at| at - self.ahead <= io.now()) {
            self.map.handle_timeout(io.now() + self.ahead);
            self.carry_out(io);
        }
    }

    fn next_wake(&self) -> Option<Mono> {
        self.map.poll_timeout().map(|at| at - self.ahead).into_iter().chain(self.turn).min()
    }
}

impl Node {
    /// A connection has come or gone: members that follow the nodes are told.
    fn nodes_changed(&mut self, io: &Io<Wire>) {
        if self.auto && self.ours().is_none_or(|ours| ours.machine.is_member()) {
            let members = self.visible();
            self.command(io, What::SetMembers(members));
        }
    }

    /// The members on the nodes that are reached; a BEAM does not count hidden nodes.
    pub(super) fn visible(&self) -> Vec<Member> {
        let world = self.world.borrow();
        let counts = |id: &NodeId| self.ours().is_some() || !world.hidden || *id >= world.beams;
        self.peers.keys().copied().filter(counts).map(member).collect()
    }
}
