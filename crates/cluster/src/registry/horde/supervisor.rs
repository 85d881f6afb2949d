//! What a node that runs no BEAM code is to a `Horde.DynamicSupervisor`: a member that shuts down.
//!
//! # What stands in the map (Horde 0.9 and 0.10)
//!
//! | key | value |
//! |---|---|
//! | `{:member, {Supervisor, Node}}` | `1` |
//! | `{:member_node_info, {Supervisor, Node}}` | `%Horde.DynamicSupervisor.Member{name: {Supervisor, Node}, status: Status}` |
//! | `{:process, Id}` | `{{Supervisor, Node}, ChildSpec, Pid}`; `{nil, ChildSpec}` while it has no node |
//!
//! With `members: :auto` every visible node is made a member, whether it has Horde or not. A member without a record counts
//! as `:uninitialized`: nothing is started there, but `Horde.UniformQuorumDistribution` counts it among those that should be
//! alive, and a supervisor that has lost its quorum stops its children. A member whose record says `:shutting_down` counts
//! nowhere: neither for the quorum (`active_nodes/1` rejects it), nor on the ring, nor is its process monitored. So this
//! record is all that is needed, as long as it is there whenever somebody counts this node:
//!
//! * It is written before this node is a member, if that can be, and again whenever somebody has removed it: a BEAM node drops
//!   it with the member when it loses this node.
//! * At each connection to a node with the supervisor ([`Event::Met`]) it is written again, as a new write: the removal of the
//!   earlier one, of which this member may not have heard yet, does not touch it. It has another value each time, by a field
//!   that Horde does not look at: a supervisor that has dropped what it knew of a member hears of its record only if that changes.
//!
//! Between the moment when a BEAM node sees this one and the record's arrival, a few milliseconds, this node is
//! `:uninitialized` there, as any BEAM node is that joins. With two or more living members that costs no quorum. A single one
//! loses it for that time if its name sorts before this node's, as it does when a second BEAM node joins.
//!
//! The processes `Supervisor` and `Supervisor.Crdt` are here, `Supervisor.ProcessesSupervisor` is not: `which_children/1`
//! and `count_children/1` ask it on every member and take `noproc` for "none".
//!
//! # What this member does not do
//!
//! It never says that others are dead, removes no members, and starts no children. When the last BEAM member that it knew is
//! gone it forgets everything ([`Event::Alone`]): with what it knows, members that start again would take their former
//! children for running.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use foundation_proto::etf::{Atom, Map, Pid, Term};

use super::distribution::{HashRing, identifier};
use super::{Member, map_name};
use crate::Key;
use crate::message::{atom, list_of, tuple, tuple_of};
use crate::registry::{Address, Change};

const MEMBER: &str = "Elixir.Horde.DynamicSupervisor.Member";

/// What a member says of itself, or others of it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Status {
    /// It has said nothing yet.
    Uninitialized,
    /// It runs children.
    Alive,
    /// It takes no more children.
    ShuttingDown,
    /// Its supervisor has ended, as another one has seen.
    Dead,
}

impl Status {
    fn read(member: &Term) -> Option<Self> {
        let Term::Map(fields) = member else { return None };
        Some(match fields.get_atom("status")?.as_atom()?.as_str() {
            "uninitialized" => Self::Uninitialized,
            "alive" => Self::Alive,
            "shutting_down" => Self::ShuttingDown,
            "dead" => Self::Dead,
            _ => return None,
        })
    }
}

/// A child of the supervisor.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// A number that Horde has drawn, another one at each start.
    pub id: Term,
    /// Its specification, a map.
    pub spec: Term,
    /// The member that runs it, and its process. `None` while a new member is wanted.
    pub running: Option<(Member, Pid)>,
}

impl Child {
    /// Reads an entry of the map; `None` if it is none of a child.
    pub fn read(key: &Term, value: &Term) -> Option<Self> {
        let [tag, id] = key.as_tuple()? else { return None };
        if !tag.is_atom("process") {
            return None;
        }
        let (spec, running) = match value.as_tuple()? {
            [nobody, spec] if nobody.is_atom("nil") => (spec, None),
            [member, spec, Term::Pid(pid)] => {
                let [Term::Atom(name), Term::Atom(node)] = member.as_tuple()? else { return None };
                let member = Member { name: name.clone(), node: node.clone() };
                (spec, Some((member, pid.clone())))
            }
            _ => return None,
        };
        Some(Self { id: id.clone(), spec: spec.clone(), running })
    }
}

/// What happens to a supervisor.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The program names a member: this one joins it, and stays a member unless asked.
    Join(Member),
    /// This member's node is connected, and runs the supervisor.
    Met(Member),
    /// A connection to a node came up.
    NodeUp(Atom),
    /// The connection to a node is gone.
    NodeDown(Atom),
    /// The map has changed.
    Changed(Change),
    /// The map may have changed in many places; this is what it holds now.
    Now(Vec<(Term, Term)>),
    /// Keys that were written here are missing from the map of a member that has had them.
    Missing(Vec<Key>),
    /// No member that runs children compares with this one any more.
    Alone,
    /// A message to the process of the supervisor.
    Message(Term),
}

/// What the host of a supervisor has to do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// Write to the map.
    Put(Key, Term),
    /// These are the neighbours of the map.
    SetNeighbours(Vec<Address>),
    /// The map starts again, empty.
    Forget,
    /// Send a message to the first of these supervisors that is connected; if none is, answer the caller.
    Forward {
        /// The supervisors.
        to: Vec<Member>,
        /// What to send.
        message: Term,
        /// The caller, `{Pid, Tag}`.
        from: Term,
        /// What to answer if nobody can.
        otherwise: Term,
    },
    /// Answer a call.
    Reply {
        /// The caller.
        from: Term,
        /// The answer.
        reply: Term,
    },
}

/// The member of one supervisor.
#[derive(Debug)]
pub struct HordeSupervisor {
    me: Member,
    /// Its process, which makes records of an earlier incarnation different.
    pid: Pid,
    /// How many records it has written.
    announced: i64,
    /// Whether it makes itself a member, or leaves that to the others.
    joins: bool,
    members: BTreeSet<Member>,
    statuses: BTreeMap<Member, Status>,
    /// Those that run children, or have: the others' maps are of this kind, and are not compared with.
    supervisors: BTreeSet<Member>,
    /// Those that are known to run the supervisor although nothing in the map says so; `true` if the program has named it.
    met: BTreeMap<Member, bool>,
    neighbours: Vec<Address>,
    actions: VecDeque<Action>,
}

impl HordeSupervisor {
    /// What stands on a node for the supervisor of this name; `pid` is its process there.
    pub fn new(name: Atom, pid: Pid) -> Self {
        let mut supervisor = Self {
            me: Member { name, node: pid.node.clone() },
            pid,
            announced: 0,
            joins: false,
            members: BTreeSet::new(),
            statuses: BTreeMap::new(),
            supervisors: BTreeSet::new(),
            met: BTreeMap::new(),
            neighbours: Vec::new(),
            actions: VecDeque::new(),
        };
        supervisor.announce();
        supervisor
    }

    /// The members, and what is known of each.
    pub fn members(&self) -> BTreeMap<Member, Status> {
        let status = |member| self.statuses.get(member).copied().unwrap_or(Status::Uninitialized);
        self.members.iter().map(|member| (member.clone(), status(member))).collect()
    }

    /// The members that run children.
    pub fn alive(&self) -> impl Iterator<Item = &Member> {
        let alive = |member: &&Member| self.statuses.get(*member) == Some(&Status::Alive);
        self.members.iter().filter(alive)
    }

    /// Where `Horde.UniformDistribution` puts a child of this specification; `None` if no member is alive.
    pub fn choose_node(&self, child_spec: &Map) -> Option<Member> {
        HashRing::new(self.alive()).key_to_node(&identifier(child_spec)).cloned()
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Takes in one event.
    pub fn handle(&mut self, event: Event) {
        match event {
            Event::Join(member) => {
                self.joins = true;
                self.met.insert(member, true);
                self.announce();
                self.set_neighbours();
            }
            Event::Met(member) => {
                self.met.entry(member).or_insert(false);
                self.announce();
                self.set_neighbours();
            }
            Event::NodeUp(node) => {
                // What is known to be there is written anew at once; of others the host says that they were met.
                if self.met.keys().any(|member| member.node == node) {
                    self.announce();
                }
            }
            Event::NodeDown(node) => {
                self.met.retain(|member, named| *named || member.node != node);
                self.set_neighbours();
            }
            Event::Changed(Change::Put(key, value)) => {
                self.changed(&key.0, Some(&value));
                self.set_neighbours();
            }
            Event::Changed(Change::Removed(key)) => {
                self.changed(&key.0, None);
                self.set_neighbours();
            }
            Event::Now(entries) => {
                self.members.clear();
                self.statuses.clear();
                self.supervisors.clear();
                for (key, value) in &entries {
                    self.changed(key, Some(value));
                }
                if self.statuses.get(&self.me) != Some(&Status::ShuttingDown) {
                    self.announce();
                }
                self.set_neighbours();
            }
            Event::Missing(keys) => {
                if keys.contains(&record_key(&self.me)) || self.joins && keys.contains(&self.me.key()) {
                    self.announce();
                }
            }
            Event::Alone => self.actions.push_back(Action::Forget),
            Event::Message(message) => {
                // Whatever else is sent to it is not for a supervisor.
                let _ = self.message(message);
            }
        }
    }

    /// Says that it shuts down, by a write that nobody can have removed yet.
    fn announce(&mut self) {
        self.announced += 1;
        let fields = [
            ("__struct__", atom(MEMBER)),
            ("name", self.me.to_term()),
            ("status", atom("shutting_down")),
            ("announced", tuple_of([Term::Pid(self.pid.clone()), Term::Integer(self.announced)])),
        ];
        let record = Term::Map(fields.into_iter().map(|(key, value)| (atom(key), value)).collect());
        // Before the membership: whoever takes them in one after the other never sees a member without a record.
        self.actions.push_back(Action::Put(record_key(&self.me), record));
        if self.joins {
            self.actions.push_back(Action::Put(self.me.key(), Term::Integer(1)));
        }
    }

    fn changed(&mut self, key: &Term, value: Option<&Term>) -> Option<()> {
        let [tag, what] = key.as_tuple()? else { return None };
        let tag = tag.as_atom()?.as_str();
        if tag != "member" && tag != "member_node_info" {
            return None;
        }
        let member = Member::from_term(what.clone(), &self.me.node)?;
        let mine = member == self.me;
        match (tag, value) {
            ("member", Some(_)) => {
                self.members.insert(member);
            }
            ("member", None) => {
                self.members.remove(&member);
                if mine && self.joins {
                    self.announce();
                }
            }
            (_, Some(record)) => {
                let status = Status::read(record)?;
                if mine && status != Status::ShuttingDown {
                    self.announce();
                }
                if matches!(status, Status::Alive | Status::Dead) && !mine {
                    self.supervisors.insert(member.clone());
                }
                self.statuses.insert(member, status);
            }
            (_, None) => {
                self.statuses.remove(&member);
                self.supervisors.remove(&member);
                if mine {
                    self.announce();
                }
            }
        }
        Some(())
    }

    fn set_neighbours(&mut self) {
        let members = self.supervisors.iter().filter(|member| self.members.contains(*member));
        let all: BTreeSet<&Member> =
            members.chain(self.met.keys()).filter(|member| **member != self.me).collect();
        let address = |member: &Member| {
            Some(Address::Name { name: map_name(&member.name)?, node: member.node.clone() })
        };
        let neighbours: Vec<Address> = all.into_iter().filter_map(address).collect();
        if neighbours != self.neighbours {
            self.neighbours.clone_from(&neighbours);
            self.actions.push_back(Action::SetNeighbours(neighbours));
        }
    }

    fn message(&mut self, message: Term) -> Option<()> {
        let Term::Tuple(elements) = message else { return None };
        let mut elements = elements.into_vec();
        let tag = elements.first()?.as_atom()?.clone();
        let (from, request) = match (tag.as_str(), elements.len()) {
            ("$gen_call", 3) => {
                let request = elements.pop()?;
                (elements.pop()?, request)
            }
            // Nobody chooses this member, so nobody should ask in another's name; but whoever asked waits for ever.
            ("proxy_operation", 3 | 4) => {
                elements.truncate(3);
                (elements.pop()?, elements.pop()?)
            }
            _ => return None,
        };
        self.call(from, request);
        Some(())
    }

    /// What is asked of one supervisor any other can answer: with `{:proxy_operation, Request, From}` it answers the caller itself.
    fn call(&mut self, from: Term, request: Term) {
        let kind = match &request {
            Term::Tuple(elements) => elements.first(),
            other => Some(other),
        };
        let kind = kind.and_then(Term::as_atom).map_or("", Atom::as_str);
        let otherwise = match kind {
            "members" => {
                let reply = list_of(self.members.iter().map(Member::to_term));
                return self.actions.push_back(Action::Reply { from, reply });
            }
            "which_children" => list_of([]),
            "count_children" => Term::Map(Map::default()),
            "start_child" | "terminate_child" | "wait_for_quorum" => {
                let why = "no member that runs children is connected";
                let reason = tuple_of([atom("node_dead_or_shutting_down"), Term::from(why)]);
                tuple_of([atom("error"), reason])
            }
            // Horde's words for a member that shuts down.
            _ => {
                let reason = tuple_of([atom("shutting_down"), Term::from("this node is shutting down.")]);
                let reply = tuple_of([atom("error"), reason]);
                return self.actions.push_back(Action::Reply { from, reply });
            }
        };
        let to = self.alive().cloned().collect();
        let message = tuple_of([atom("proxy_operation"), request, from.clone()]);
        self.actions.push_back(Action::Forward { to, message, from, otherwise });
    }
}

/// The key of what a member says of itself. Each writes it before it compares its map with anybody's.
pub fn record_key(member: &Member) -> Key {
    Key(tuple_of([atom("member_node_info"), member.to_term()]))
}

/// What the caller of `Horde.DynamicSupervisor.start_child/2` gets.
#[derive(Clone, Debug, PartialEq)]
pub enum StartChild {
    /// `{:ok, Pid}` or `{:ok, Pid, Info}`.
    Ok(Pid, Option<Term>),
    /// `:ignore`: its function did not want to.
    Ignore,
    /// `{:error, Reason}`, or `{:error, Reason, Text}` as a proxied request gets it whose time to live has run out.
    Error(Term),
}

impl StartChild {
    /// Reads the answer; `None` if it is none.
    pub fn read(reply: Term) -> Option<Self> {
        if reply.is_atom("ignore") {
            return Some(Self::Ignore);
        }
        let reply = match tuple::<3>(reply.clone()) {
            Some([ok, Term::Pid(pid), info]) if ok.is_atom("ok") => return Some(Self::Ok(pid, Some(info))),
            Some([error, reason, _]) if error.is_atom("error") => return Some(Self::Error(reason)),
            _ => reply,
        };
        match tuple::<2>(reply)? {
            [ok, Term::Pid(pid)] if ok.is_atom("ok") => Some(Self::Ok(pid, None)),
            [error, reason] if error.is_atom("error") => Some(Self::Error(reason)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
