//! A supervisor that is spread over the nodes of a cluster: children that are to run once, once a node, or in so many parts,
//! wherever there is a node for them.
//!
//! # How it works
//!
//! **What is to run** is known to all members: a causal set of specifications (`specs`), which any member writes. A write goes to all
//! at once; members that meet compare how far they have seen, and send each other what is lacking; those that lose a member tell each
//! other how far they have seen it, since its last writes may have reached some only. A specification is there until it is removed, whatever becomes of the node that wrote it, and one that was removed does not come back with a node that was away.
//!
//! **What runs where** each node says of itself, in a registry of unique names ([`crate::names`]) that this machine has within: a
//! node claims a child before it starts it. The claims of a node that is lost are gone at that moment.
//!
//! **Who starts a child that nobody has** all members compute alike, from the members in reach that have the factory
//! ([`Placement`]). The first of them does so at once; the second after 2 s, if the first has not, and so on. A node that
//! has just been connected is given a moment to say what it runs ([`Config::settle`]). Children stay where they are when
//! nodes come.
//!
//! **Two of one.** Both sides of a partition start what they do not see. When they meet, the earlier claim keeps the child, and the
//! other node ends its own. A child with [`Requirement::Safety`] is started only with a lease of a majority of the configured members
//! ([`crate::lease`]), and killed before that runs out; the lease is given back when the child has ended, not before.
//!
//! **Hand-off.** A node that leaves, or that is told to migrate a child, has it end, takes the state that it gives, sends this to the next
//! node, and gives its claim up; the next node starts the child with it. Without a state, or if its node is lost, the next one
//! begins anew.
//!
//! **Budget.** A child that ends by itself is started again on the same node, up to [`ChildSpec::max_restarts`] times in
//! [`ChildSpec::max_seconds`]. Then it is given up: its node keeps the claim, so that it does not go round the cluster. It is
//! tried again when it is asked for ([`Command::RestartChild`]), or when its node is lost.
//!
//! # Protocol
//!
//! One process on each node, under the name of the supervisor. It takes the messages of [`crate::names`] and [`crate::lease`], which are told
//! apart by their first element, and these:
//!
//! | message | meaning |
//! |---|---|
//! | `{supervisor, context, Pid, [{Writer, Number}]}` | what `Pid` has seen: to each member that is found, and to ask for what is lacking |
//! | `{supervisor, seen, Pid, [{Writer, Number}]}` | what `Pid` has seen of those who are not in reach: to all members. Whoever lacks some of it sends a context |
//! | `{supervisor, write, Pid, Number, Item, Removed}` | a write: to all members. `Item` is `{spec, Claim, Spec}`, `{done, Dot, Part}` or `undefined` |
//! | `{supervisor, state, Pid, Context, Live, Items}` | the answer to a context: all dots, and the items that are lacking, `{Dot, Item}` |
//! | `{supervisor, hand_off, Pid, Number, Child, Dot, State}` | take this child; `State` is `{state, Term}` or `undefined` |
//! | `{supervisor, taken \| refused, Pid, Number}` | the answer |
//! | `{supervisor, migrate, Pid, Number, Child, Node}` | to the node that has it: hand it to `Node` |
//! | `{supervisor, migrated, Pid, Number, Done}` | the answer: `true` or `false` |
//! | `{supervisor, restart, Id}` | try again what was given up |
//!
//! A `Dot` is `{Writer, Number}`, a `Child` `{child, Id, Part}`, a `Part` `only`, a number or a node. In the registry, `{member, Node}` has
//! `{alive | leaving, Factories}`, and a child `{Status, Pid, Detail}`.
//!
//! Callers without this library use `GenServer.call/3`: see `calls`.

mod calls;
mod children;
mod config;
mod decide;
mod event;
mod members;
mod placement;
mod spec;
mod specs;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, Term};

use crate::lease::{self, Leases};
use crate::mutant::LeftOut;
use crate::names::{self, Names};
use crate::{Key, Machine};
use calls::Wait;
pub use calls::reply;
use children::{Incoming, Outgoing, Running};
pub use config::Config;
use decide::Vacant;
pub use event::{
    Action, Command, Event, MonitorId, Outcome, Place, Report, StartId, Stats, Status, Stop, To,
};
use members::Member;
pub use spec::{Child, ChildSpec, Kind, MAX_PARTITIONS, MAX_RESTARTS, Part, Placement, Requirement, Restart};
use specs::{Context, Dot, Specs};

/// The supervisor of one name on one node; see the [module documentation](self).
#[derive(Debug)]
pub struct Supervisor {
    name: Atom,
    me: Pid,
    config: Config,
    now: Mono,
    /// The wall clock less `now`, in milliseconds.
    offset: i64,
    names: Names,
    leases: Option<Leases>,
    specs: Specs,
    factories: BTreeSet<Atom>,
    leaving: bool,
    /// The other nodes that are connected, and since when.
    connected: BTreeMap<Atom, Mono>,
    /// The supervisors in reach, this one included.
    members: BTreeMap<Atom, Member>,
    running: BTreeMap<Child, Running>,
    starts: BTreeMap<StartId, Child>,
    /// Replicated children that have ended for good on this node.
    ended: BTreeMap<Child, Dot>,
    /// Children that nobody has.
    vacant: BTreeMap<Child, Vacant>,
    outgoing: BTreeMap<Child, Outgoing>,
    incoming: BTreeMap<Child, Incoming>,
    /// What other members have seen and this one has not.
    offers: BTreeMap<Pid, Context>,
    waits: BTreeMap<u64, Wait>,
    /// Children that have to be looked at.
    dirty: BTreeSet<Child>,
    everything: bool,
    ring: placement::Ring,
    next: u64,
    /// How the registry or the leases answered the latest command.
    answer: Option<(u64, names::Outcome)>,
    /// The child whose lease is being asked for.
    acquiring: Option<Child>,
    actions: VecDeque<Action>,
    stats: Stats,
    mutant: LeftOut<Mutant>,
}

/// A rule that is left out on purpose, to see that the simulation notices.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mutant {
    /// Members that meet do not compare what they know.
    NoExchange,
    /// Writes are taken in although others are missing before them.
    IgnoreGap,
    /// What another member has removed is kept.
    KeepRemoved,
    /// A child that another node has, too, goes on.
    IgnoreConflict,
    /// A child runs on although its specification is gone.
    KeepTerminated,
    /// A child is started again however often it ends.
    NoBudget,
    /// A temporary child is started again when its node is lost.
    StartAgain,
    /// A child goes on without its lease.
    IgnoreLost,
    /// A lease is given back before the child has ended.
    ReleaseEarly,
    /// A child is started before its lease is granted.
    StartWithoutLease,
    /// What was handed over and not taken is forgotten.
    ForgetHandOff,
    /// What was written by somebody who is not in reach is not passed on.
    KeepToOneself,
}

impl Supervisor {
    /// A supervisor without children, whose process on this node is `me`, at `now`, when the wall clock shows `wall` milliseconds
    /// since 1970. `random` spreads attempts to get leases over time.
    pub fn new(now: Mono, wall: i64, name: Atom, me: Pid, config: Config, random: u64) -> Self {
        let mut names_config = names::Config::new(names::Keys::Unique);
        names_config.max_bytes = config.max_bytes.saturating_add(256 << 10);
        // What is not in reach is not claimed: nothing of it has to be kept for long.
        names_config.retain = Duration::from_secs(60);
        let leases = config.leases().map(|leases| Leases::new(now, me.clone(), leases, random));
        let mut supervisor = Self {
            names: Names::new(name.clone(), me.clone(), names_config),
            leases,
            specs: Specs::new(me.clone(), config.max_children, config.max_writers),
            name,
            now,
            offset: wall.saturating_sub(millis(now)),
            factories: BTreeSet::new(),
            leaving: false,
            connected: BTreeMap::new(),
            members: BTreeMap::new(),
            running: BTreeMap::new(),
            starts: BTreeMap::new(),
            ended: BTreeMap::new(),
            vacant: BTreeMap::new(),
            outgoing: BTreeMap::new(),
            incoming: BTreeMap::new(),
            offers: BTreeMap::new(),
            waits: BTreeMap::new(),
            dirty: BTreeSet::new(),
            everything: false,
            ring: placement::Ring::default(),
            next: 0,
            answer: None,
            acquiring: None,
            actions: VecDeque::new(),
            stats: Stats::default(),
            me,
            config,
            mutant: LeftOut::default(),
        };
        supervisor.publish_member();
        supervisor
    }

    /// The name of the supervisor.
    pub fn name(&self) -> &Atom {
        &self.name
    }

    /// The specification of a child.
    pub fn spec(&self, id: &Term) -> Option<&Arc<ChildSpec>> {
        Some(self.specs.get(&Key(id.clone()))?.1)
    }

    /// All specifications, in the order of their ids.
    pub fn specs(&self) -> impl Iterator<Item = &Arc<ChildSpec>> {
        self.specs.ids().filter_map(|id| Some(self.specs.get(id)?.1))
    }

    /// Where a process of a child is, and what it does; `None` if nobody in reach has it.
    pub fn lookup(&self, id: &Term, part: &Part) -> Option<Place> {
        self.place(&Child { id: Key(id.clone()), part: part.clone() })
    }

    /// All processes of children in reach, in the order of ids and parts.
    pub fn places(&self) -> Vec<Place> {
        self.names.iter().filter_map(|entry| children::read_place(entry)).collect()
    }

    /// The nodes in reach that have this supervisor, this one included, with whether they leave.
    pub fn members(&self) -> impl Iterator<Item = (&Atom, bool)> {
        self.members.iter().map(|(node, member)| (node, member.leaving))
    }

    /// Whether a process of this node still has its lease at `now`; true for children that need none.
    pub fn may_act(&self, now: Mono, start: StartId) -> bool {
        let Some(running) = self.starts.get(&start).and_then(|child| Some((child, self.running.get(child)?)))
        else {
            return false;
        };
        let (child, running) = running;
        if running.spec.requirement == Requirement::Availability {
            return true;
        }
        let leases = self.leases.as_ref();
        leases.is_some_and(|leases| leases.is_held(now, &child.to_term(), &self.me).is_some())
    }

    /// What was counted since the start.
    pub fn stats(&self) -> Stats {
        Stats { ignored: self.stats.ignored + self.names.stats(self.now).ignored, ..self.stats }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn wall(&self) -> i64 {
        self.offset.saturating_add(millis(self.now))
    }

    fn report(&mut self, report: Report) {
        self.actions.push_back(Action::Report(report));
    }

    fn send(&mut self, to: &Pid, message: Term) {
        self.actions.push_back(Action::Send { to: vec![To::Pid(to.clone())], message });
    }

    // -- the registry and the leases within --------------------------------------------------------------------------

    fn command_names(&mut self, what: names::Command) -> Option<names::Outcome> {
        let command = self.number();
        let wall = self.wall();
        self.names.handle(self.now, names::Event::Command { command, what, wall });
        self.take_names();
        self.answer.take().filter(|(number, _)| *number == command).map(|(_, outcome)| outcome)
    }

    fn take_names(&mut self) {
        while let Some(action) = self.names.poll_action() {
            match action {
                names::Action::Send { to, message } => {
                    if matches!(to.as_slice(), [To::Pid(pid)] if *pid == self.me) {
                        self.conflict(&message);
                    } else {
                        self.actions.push_back(Action::Send { to, message });
                    }
                }
                // This process ends with all its claims.
                names::Action::Monitor { pid, .. } if pid == self.me => {}
                names::Action::Monitor { monitor, pid } => {
                    self.actions.push_back(Action::Monitor { monitor, pid });
                }
                names::Action::Demonitor(monitor) => self.actions.push_back(Action::Demonitor(monitor)),
                names::Action::Changed(changes) => {
                    changes.into_iter().for_each(|change| self.changed(change));
                }
                names::Action::Done { command, outcome } => self.answer = Some((command, outcome)),
                // Nobody calls the registry, and its processes are told of conflicts.
                names::Action::Reply { .. } | names::Action::Exit { .. } => {}
            }
        }
    }

    fn with_leases(&mut self, event: lease::Event) {
        if let Some(leases) = &mut self.leases {
            leases.handle(self.now, event);
        }
        self.take_leases();
    }

    fn take_leases(&mut self) {
        while let Some(action) = self.leases.as_mut().and_then(Machine::poll_action) {
            match action {
                lease::Action::Send { to, message } => {
                    let to = to.into_iter().map(To::Server).collect();
                    self.actions.push_back(Action::Send { to, message });
                }
                // It is fired by hand, when the child has ended.
                lease::Action::Monitor { monitor, .. } => self.lease_ends_with(monitor),
                lease::Action::Lost { name, .. } => {
                    if let Some(child) = Child::from_term(&name) {
                        self.lease_lost(&child);
                    }
                }
                lease::Action::Done { command, outcome } => self.leased(command, &outcome),
                lease::Action::Demonitor(_) | lease::Action::Held { .. } | lease::Action::Released { .. } => {
                }
            }
        }
    }

    /// Does what follows from what has happened.
    fn settle(&mut self) {
        let mut touched = BTreeSet::new();
        loop {
            self.take_names();
            self.take_leases();
            if std::mem::take(&mut self.everything) {
                self.all_dirty();
            }
            if let Some(child) = self.dirty.pop_first() {
                self.decide(&child);
                touched.insert(child.id);
            } else if !self.leaving || !self.hand_next() {
                break;
            }
        }
        self.check_waits(&touched);
    }

    fn message(&mut self, message: Term, wall: i64) {
        let tag = message.as_tuple().and_then(|elements| elements.first()?.as_atom());
        let understood = match tag.map_or("", Atom::as_str) {
            "supervisor" => wire::read(message).and_then(|message| self.told(message)),
            "$gen_call" => match message.as_tuple() {
                Some([_, from, request]) => self.call(from.clone(), request.clone()),
                _ => None,
            },
            "ask" | "vote" | "release" => {
                self.with_leases(lease::Event::Message(message));
                Some(())
            }
            _ => {
                self.names.handle(self.now, names::Event::Message { message, wall });
                Some(())
            }
        };
        self.stats.ignored += u64::from(understood.is_none());
    }

    /// When something is to be done besides what the registry and the leases do.
    fn due(&self) -> Option<Mono> {
        let vacant = self.vacant.values().filter_map(|vacant| vacant.due);
        let running = self.running.values().filter_map(|running| running.deadline());
        let outgoing = self.outgoing.values().map(|outgoing| outgoing.deadline);
        let incoming = self.incoming.values().map(|incoming| incoming.deadline);
        let waits = self.waits.values().map(|wait| wait.deadline);
        vacant.chain(running).chain(outgoing).chain(incoming).chain(waits).min()
    }
}

/// The most factories of a node: their names are told to all members, in one entry of the registry.
pub const MAX_FACTORIES: usize = 240;

/// Milliseconds of a time.
fn millis(time: Mono) -> i64 {
    time.0 / 1_000_000
}

impl Machine for Supervisor {
    type Event = Event;
    type Action = Action;

    fn handle(&mut self, now: Mono, event: Event) {
        self.now = now;
        if let Event::Message { wall, .. } | Event::Command { wall, .. } = event {
            self.offset = wall.saturating_sub(millis(now));
        }
        match event {
            Event::NodeUp(node) => self.node_up(node),
            Event::NodeDown(node) => self.node_down(node),
            Event::Message { message, wall } => self.message(message, wall),
            Event::Down(monitor) => self.names.handle(now, names::Event::Down(monitor)),
            Event::Factory(factory) => {
                if self.factories.len() < MAX_FACTORIES && self.factories.insert(factory) {
                    self.publish_member();
                    self.everything = true;
                }
            }
            Event::Started { start, pid } => self.started(start, pid),
            Event::Ended { start, reason, state } => self.child_ended(start, reason, state),
            Event::Command { command, what, .. } => self.command(command, what),
        }
        self.settle();
    }

    fn handle_timeout(&mut self, now: Mono) {
        self.now = now;
        self.names.handle_timeout(now);
        if let Some(leases) = &mut self.leases {
            leases.handle_timeout(now);
        }
        self.children_due();
        self.vacant_due();
        self.settle();
        self.waits_due();
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Mono> {
        let leases = self.leases.as_ref().and_then(Machine::poll_timeout);
        self.names.poll_timeout().into_iter().chain(leases).chain(self.due()).min()
    }
}
