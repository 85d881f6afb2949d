//! Process groups: one scope of OTP's `pg` (kernel, since OTP 23).
//!
//! A scope is a set of groups that nodes share without a coordinator: each node publishes the memberships of its own
//! processes to the scope processes it knows, and keeps what they publish. Views converge once messages stop; nothing is
//! transitive: a node sees the groups of the nodes it is connected to. A group is any term and exists while it has members.
//! A process may join a group several times and has to leave it as often.
//!
//! # Exchange protocol, version 0 (OTP 23 to 28, and OTP 29 towards them)
//!
//! Scope processes are registered under the name of the scope. All messages go from scope process to scope process.
//!
//! | message | meaning |
//! |---|---|
//! | `{discover, Pid}` | "I am a scope process": answered by `sync`; a receiver that did not know `Pid` monitors it and discovers it back |
//! | `{'$gen_cast', {sync, Pid, [{Group, [Member]}]}}` | all members on the node of `Pid`; replaces what was known of it |
//! | `{join, Pid, Group, MemberOrMembers}` | members were added |
//! | `{leave, Pid, MemberOrMembers, [Group]}` | members were removed, once from each group listed |
//!
//! # Version 1 (OTP 29)
//!
//! `{discover, Pid, 1}`, `{'$gen_cast', {local_data, Pid, 1, #{Group => [Member]}}}` and
//! `{update, Pid, [{Group, Added, Removed}]}` say the same. OTP 29 always opens with the 3-tuple, which stops the scopes of
//! OTP 23 to 25 ("badarg"); so this machine always opens with the 2-tuple and answers in the version it was addressed in.
//!
//! # Differences from OTP
//!
//! * A hidden node is never told of by `net_kernel`, so OTP's scopes do not speak to it first. This machine discovers the
//!   scope on every node it is told to watch, watches the scope's name there, and tries again with back-off while it is not
//!   registered, or after it was restarted.
//! * Nothing that a peer sends stops the scope; what cannot be read is counted in [`Scope::ignored`].
//! * Members that a peer claims for a node that is not its own are ignored.

mod membership;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Map, Pid, Term};

use crate::message::{atom, cast, list, list_of, pid, pid_or_pids, pids, tuple, tuple_of};
use crate::{Key, Machine};
use membership::{Members, Membership};

/// The protocol version of OTP 29's `pg`.
const VERSION_1: i64 = 1;
/// The first pause before a scope that is not registered is looked for again; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);
/// The longest pause between two attempts to find a scope on a connected node.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// A monitor that the machine asked for. Numbers are never reused.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MonitorId(pub u64);

/// What happens to a scope.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Local processes join a group.
    Join {
        /// The group.
        group: Term,
        /// Processes of this node; a process may be listed several times.
        pids: Vec<Pid>,
    },
    /// Local processes leave a group, once for each time they are listed.
    Leave {
        /// The group.
        group: Term,
        /// Processes of this node.
        pids: Vec<Pid>,
    },
    /// A connection to a node came up.
    NodeUp(Atom),
    /// The connection to a node is gone. Its monitors still fire, and they are what ends memberships.
    NodeDown(Atom),
    /// A message arrived at the scope process.
    Message(Term),
    /// A monitor fired.
    Down {
        /// Which.
        monitor: MonitorId,
        /// Whether the reason is `noconnection`.
        noconnection: bool,
    },
}

/// What the host of a scope has to do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// Send a message from the scope process, without connecting to the node if it is not connected.
    Send {
        /// The process, or the scope of the same name on a node.
        to: To,
        /// The message.
        message: Term,
    },
    /// Monitor a process, or the name of this scope on a node, from the scope process.
    Monitor {
        /// How the machine will recognise it.
        monitor: MonitorId,
        /// What to monitor.
        target: To,
    },
    /// Give a monitor up; it must not fire any more.
    Demonitor(MonitorId),
    /// The members of a group changed, as `pg:monitor/2` reports it.
    Changed {
        /// The group.
        group: Term,
        /// Members that joined.
        joined: Vec<Pid>,
        /// Members that left.
        left: Vec<Pid>,
    },
}

/// A destination.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum To {
    /// A process.
    Pid(Pid),
    /// The process registered under the name of this scope on a node.
    Scope(Atom),
}

/// One scope of `pg`; see the [module documentation](self).
#[derive(Debug)]
pub struct Scope {
    /// The scope process of this node; identifies it in every message.
    me: Pid,
    /// Members of all nodes.
    members: Membership,
    /// Members of this node alone: what `sync` publishes.
    local: Membership,
    /// A monitor for each local member, whatever the number of its groups.
    local_monitors: BTreeMap<Pid, MonitorId>,
    /// The scope processes of other nodes.
    peers: BTreeMap<Pid, Peer>,
    /// The nodes on which the scope is looked for.
    nodes: BTreeMap<Atom, Search>,
    /// When it is looked for again on which of them.
    retries: BTreeSet<(Mono, Atom)>,
    monitors: BTreeMap<MonitorId, Watched>,
    next_monitor: u64,
    actions: VecDeque<Action>,
    ignored: u64,
}

#[derive(Debug)]
struct Peer {
    /// Whether it addressed this scope in version 1.
    version_1: bool,
    members: Members,
}

/// The search for the scope on a connected node.
#[derive(Debug)]
struct Search {
    /// The monitor of the name, while there is one.
    monitor: Option<MonitorId>,
    /// When to try again, if the name was not registered.
    retry_at: Option<Mono>,
    pause: Duration,
}

#[derive(Debug)]
enum Watched {
    Member(Pid),
    Peer(Pid),
    Name(Atom),
}

impl Scope {
    /// An empty scope whose process on this node is `me`.
    pub fn new(me: Pid) -> Self {
        Self {
            me,
            members: Membership::default(),
            local: Membership::default(),
            local_monitors: BTreeMap::new(),
            peers: BTreeMap::new(),
            nodes: BTreeMap::new(),
            retries: BTreeSet::new(),
            monitors: BTreeMap::new(),
            next_monitor: 0,
            actions: VecDeque::new(),
            ignored: 0,
        }
    }

    /// The members of a group on all nodes, the latest first; a process is listed as often as it joined.
    pub fn members(&self, group: &Term) -> &[Pid] {
        self.members.get(group)
    }

    /// The members of a group on this node.
    pub fn local_members(&self, group: &Term) -> &[Pid] {
        self.local.get(group)
    }

    /// The groups that have members, in the order of terms.
    pub fn groups(&self) -> impl Iterator<Item = &Term> {
        self.members.groups().map(|(group, _)| group)
    }

    /// The scope processes of other nodes that are known.
    pub fn peers(&self) -> impl Iterator<Item = &Pid> {
        self.peers.keys()
    }

    /// How many messages could not be understood, or came from nobody known.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    fn join(&mut self, group: Term, pids: Vec<Pid>) {
        if pids.is_empty() {
            return;
        }
        for pid in &pids {
            if !self.local_monitors.contains_key(pid) {
                let monitor = self.monitor(Watched::Member(pid.clone()), To::Pid(pid.clone()));
                self.local_monitors.insert(pid.clone(), monitor);
            }
        }
        self.local.join(&group, &pids);
        self.members.join(&group, &pids);
        self.publish(&group, &pids, &[]);
        self.actions.push_back(Action::Changed { group, joined: pids, left: Vec::new() });
    }

    fn leave(&mut self, group: &Term, pids: &[Pid]) {
        let left = self.local.leave(group, pids);
        if left.is_empty() {
            return;
        }
        self.members.leave(group, &left);
        for pid in &left {
            if !self.local.contains(pid) {
                self.forget_member(pid);
            }
        }
        self.publish(group, &[], &left);
        self.actions.push_back(Action::Changed { group: group.clone(), joined: Vec::new(), left });
    }

    fn forget_member(&mut self, pid: &Pid) {
        if let Some(monitor) = self.local_monitors.remove(pid) {
            self.monitors.remove(&monitor);
            self.actions.push_back(Action::Demonitor(monitor));
        }
    }

    /// A local member died: one message takes it out of all its groups.
    fn member_down(&mut self, pid: &Pid) {
        self.local_monitors.remove(pid);
        let groups = self.local.remove(pid);
        if groups.is_empty() {
            return;
        }
        let me = Term::Pid(self.me.clone());
        let leave =
            tuple_of([atom("leave"), me.clone(), Term::Pid(pid.clone()), list_of(groups.iter().cloned())]);
        let update = tuple_of([
            atom("update"),
            me,
            list_of(groups.iter().map(|group| change(group, &[], std::slice::from_ref(pid)))),
        ]);
        self.broadcast(&leave, &update);
        for group in groups {
            let left = vec![pid.clone()];
            self.members.leave(&group, &left);
            self.actions.push_back(Action::Changed { group, joined: Vec::new(), left });
        }
    }

    /// Tells all peers that local members joined or left one group.
    fn publish(&mut self, group: &Term, joined: &[Pid], left: &[Pid]) {
        if self.peers.is_empty() {
            return;
        }
        let me = Term::Pid(self.me.clone());
        let version_0 = if left.is_empty() {
            tuple_of([atom("join"), me.clone(), group.clone(), members_term(joined)])
        } else {
            tuple_of([atom("leave"), me.clone(), members_term(left), list_of([group.clone()])])
        };
        let version_1 = tuple_of([atom("update"), me, list_of([change(group, joined, left)])]);
        self.broadcast(&version_0, &version_1);
    }

    fn broadcast(&mut self, version_0: &Term, version_1: &Term) {
        for (pid, peer) in &self.peers {
            let message = if peer.version_1 { version_1 } else { version_0 }.clone();
            self.actions.push_back(Action::Send { to: To::Pid(pid.clone()), message });
        }
    }

    fn message(&mut self, message: Term) -> Option<()> {
        let elements = match message {
            Term::Tuple(elements) => elements.into_vec(),
            _ => return None,
        };
        let Some(Term::Atom(tag)) = elements.first() else { return None };
        match (tag.as_str(), elements.len()) {
            ("discover", 2) => {
                let [_, peer] = elements.try_into().ok()?;
                self.discovered(pid(peer)?, 0);
            }
            // Later releases may announce a higher version; they then speak the one they are answered in.
            ("discover", 3) => {
                let [_, peer, version] = elements.try_into().ok()?;
                let Term::Integer(version) = version else { return None };
                self.discovered(pid(peer)?, version);
            }
            ("join", 4) => {
                let [_, peer, group, members] = elements.try_into().ok()?;
                self.update(&pid(peer)?, vec![(group, pid_or_pids(members)?, Vec::new())])?;
            }
            ("leave", 4) => {
                let [_, peer, members, groups] = elements.try_into().ok()?;
                let (members, groups) = (pid_or_pids(members)?, list(groups)?);
                self.update(
                    &pid(peer)?,
                    groups.into_iter().map(|g| (g, Vec::new(), members.clone())).collect(),
                )?;
            }
            ("update", 3) => {
                let [_, peer, changes] = elements.try_into().ok()?;
                let changes = list(changes)?.into_iter().map(|c| {
                    let [group, joined, left] = tuple(c)?;
                    Some((group, pids(joined)?, pids(left)?))
                });
                let changes = changes.collect::<Option<Vec<_>>>()?;
                self.update(&pid(peer)?, changes)?;
            }
            ("$gen_cast", 2) => {
                let [_, request] = elements.try_into().ok()?;
                self.cast(request)?;
            }
            _ => return None,
        }
        Some(())
    }

    fn cast(&mut self, request: Term) -> Option<()> {
        let Term::Tuple(elements) = request else { return None };
        let elements = elements.into_vec();
        let Some(Term::Atom(tag)) = elements.first() else { return None };
        let (peer, groups, version_1) = match (tag.as_str(), elements.len()) {
            ("sync", 3) => {
                let [_, peer, groups] = elements.try_into().ok()?;
                let groups = list(groups)?
                    .into_iter()
                    .map(|pair| tuple::<2>(pair).map(|[group, members]| (group, members)));
                (pid(peer)?, groups.collect::<Option<Vec<_>>>()?, false)
            }
            ("local_data", 4) => {
                let [_, peer, _version, groups] = elements.try_into().ok()?;
                let Term::Map(groups) = groups else { return None };
                (pid(peer)?, groups.into_vec(), true)
            }
            _ => return None,
        };
        let groups = groups.into_iter().map(|(group, members)| Some((group, pids(members)?)));
        self.sync(peer, groups.collect::<Option<Vec<_>>>()?, version_1);
        Some(())
    }

    /// A scope process introduced itself: answer with what is here before anything else.
    fn discovered(&mut self, peer: Pid, version: i64) {
        if peer == self.me {
            return;
        }
        let version_1 = version >= VERSION_1;
        self.send_local(&peer, version_1);
        match self.peers.get_mut(&peer) {
            Some(known) => known.version_1 = version_1,
            None => {
                self.add_peer(peer.clone(), version_1);
                self.send(To::Pid(peer), tuple_of([atom("discover"), Term::Pid(self.me.clone())]));
            }
        }
    }

    fn send_local(&mut self, peer: &Pid, version_1: bool) {
        let me = Term::Pid(self.me.clone());
        let groups = self
            .local
            .groups()
            .map(|(group, members)| (group.clone(), list_of(members.iter().cloned().map(Term::Pid))));
        let message = if version_1 {
            // The keys are distinct, because they are the keys of an ordered map.
            let groups = Term::Map(groups.collect::<Map>());
            tuple_of([atom("local_data"), me, Term::Integer(VERSION_1), groups])
        } else {
            tuple_of([atom("sync"), me, list_of(groups.map(|(group, members)| tuple_of([group, members])))])
        };
        self.send(To::Pid(peer.clone()), cast(message));
    }

    fn add_peer(&mut self, peer: Pid, version_1: bool) -> &mut Peer {
        self.monitor(Watched::Peer(peer.clone()), To::Pid(peer.clone()));
        self.peers.entry(peer).or_insert(Peer { version_1, members: Members::default() })
    }

    /// Replaces what is known of a peer.
    fn sync(&mut self, peer: Pid, groups: Vec<(Term, Vec<Pid>)>, version_1: bool) {
        if peer == self.me {
            return;
        }
        if !self.peers.contains_key(&peer) {
            self.add_peer(peer.clone(), version_1);
        }
        let Some(known) = self.peers.get_mut(&peer) else { return };
        known.version_1 |= version_1;
        let mut fresh = Members::default();
        for (group, mut members) in groups {
            members.retain(|member| member.node == peer.node);
            fresh.join(&group, &members);
        }
        let old = std::mem::replace(&mut known.members, fresh);
        let mut changes: BTreeMap<Key, (Vec<Pid>, Vec<Pid>)> = BTreeMap::new();
        for (group, members) in old.groups() {
            let left = without(members, known.members.get(group));
            changes.insert(Key(group.clone()), (Vec::new(), left));
        }
        for (group, members) in known.members.groups() {
            let joined = without(members, old.get(group));
            changes.entry(Key(group.clone())).or_default().0 = joined;
        }
        for (Key(group), (joined, left)) in changes {
            self.apply(group, joined, left);
        }
    }

    /// Takes over the changes that a peer publishes; `None` if the peer is not known, as its `sync` is then still to come.
    fn update(&mut self, peer: &Pid, changes: Vec<(Term, Vec<Pid>, Vec<Pid>)>) -> Option<()> {
        for (group, mut joined, left) in changes {
            let known = self.peers.get_mut(peer)?;
            joined.retain(|member| member.node == peer.node);
            known.members.join(&group, &joined);
            let left = known.members.leave(&group, &left);
            self.apply(group, joined, left);
        }
        Some(())
    }

    fn apply(&mut self, group: Term, joined: Vec<Pid>, left: Vec<Pid>) {
        if joined.is_empty() && left.is_empty() {
            return;
        }
        self.members.join(&group, &joined);
        self.members.leave(&group, &left);
        self.actions.push_back(Action::Changed { group, joined, left });
    }

    /// A scope process of another node is gone; if it was restarted, the monitor of its name starts the next search.
    fn peer_down(&mut self, peer: &Pid) {
        if let Some(gone) = self.peers.remove(peer) {
            for (group, members) in gone.members.groups() {
                self.apply(group.clone(), Vec::new(), members.to_vec());
            }
        }
    }

    fn search(&mut self, node: Atom) {
        let monitor = self.monitor(Watched::Name(node.clone()), To::Scope(node.clone()));
        self.send(To::Scope(node.clone()), tuple_of([atom("discover"), Term::Pid(self.me.clone())]));
        let search = self.nodes.entry(node.clone()).or_insert(Search {
            monitor: None,
            retry_at: None,
            pause: RETRY_MIN,
        });
        if let Some(at) = search.retry_at.take() {
            self.retries.remove(&(at, node));
        }
        if let Some(old) = search.monitor.replace(monitor) {
            self.monitors.remove(&old);
            self.actions.push_back(Action::Demonitor(old));
        }
    }

    fn search_again(&mut self, now: Mono, node: &Atom) {
        if let Some(search) = self.nodes.get_mut(node)
            && search.retry_at.is_none()
        {
            search.retry_at = Some(now + search.pause);
            self.retries.insert((now + search.pause, node.clone()));
            search.pause = (search.pause * 2).min(RETRY_MAX);
        }
    }

    fn down(&mut self, now: Mono, monitor: MonitorId, noconnection: bool) {
        match self.monitors.remove(&monitor) {
            Some(Watched::Member(pid)) => self.member_down(&pid),
            Some(Watched::Peer(pid)) => self.peer_down(&pid),
            Some(Watched::Name(node)) => {
                if let Some(search) = self.nodes.get_mut(&node) {
                    search.monitor = None;
                }
                if !noconnection {
                    self.search_again(now, &node);
                }
            }
            None => {}
        }
    }

    fn node_down(&mut self, node: &Atom) {
        let Some(search) = self.nodes.remove(node) else { return };
        if let Some(at) = search.retry_at {
            self.retries.remove(&(at, node.clone()));
        }
        if let Some(monitor) = search.monitor {
            self.monitors.remove(&monitor);
            self.actions.push_back(Action::Demonitor(monitor));
        }
    }

    fn monitor(&mut self, watched: Watched, target: To) -> MonitorId {
        let monitor = MonitorId(self.next_monitor);
        self.next_monitor += 1;
        self.monitors.insert(monitor, watched);
        self.actions.push_back(Action::Monitor { monitor, target });
        monitor
    }

    fn send(&mut self, to: To, message: Term) {
        self.actions.push_back(Action::Send { to, message });
    }
}

impl Machine for Scope {
    type Event = Event;
    type Action = Action;

    fn handle(&mut self, now: Mono, event: Event) {
        match event {
            Event::Join { group, pids } => self.join(group, pids),
            Event::Leave { group, pids } => self.leave(&group, &pids),
            Event::NodeUp(node) => self.search(node),
            Event::NodeDown(node) => self.node_down(&node),
            Event::Message(message) => {
                if self.message(message).is_none() {
                    self.ignored += 1;
                }
            }
            Event::Down { monitor, noconnection } => self.down(now, monitor, noconnection),
        }
    }

    fn handle_timeout(&mut self, now: Mono) {
        let due: Vec<Atom> =
            self.retries.iter().take_while(|(at, _)| *at <= now).map(|(_, node)| node.clone()).collect();
        for node in due {
            self.search(node);
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Mono> {
        self.retries.first().map(|(at, _)| *at)
    }
}

/// What `join` and `leave` carry: OTP sends a single process bare.
fn members_term(members: &[Pid]) -> Term {
    match members {
        [one] => Term::Pid(one.clone()),
        several => list_of(several.iter().cloned().map(Term::Pid)),
    }
}

/// One entry of version 1's `update`.
fn change(group: &Term, joined: &[Pid], left: &[Pid]) -> Term {
    let list = |pids: &[Pid]| list_of(pids.iter().cloned().map(Term::Pid));
    tuple_of([group.clone(), list(joined), list(left)])
}

/// The elements of `all` that are not in `taken`, counting repetitions.
fn without(all: &[Pid], taken: &[Pid]) -> Vec<Pid> {
    let mut taken: Vec<&Pid> = taken.iter().collect();
    taken.sort();
    let mut rest = Vec::new();
    let mut counts: BTreeMap<&Pid, usize> = BTreeMap::new();
    for pid in taken {
        *counts.entry(pid).or_default() += 1;
    }
    for pid in all {
        match counts.get_mut(pid) {
            Some(count) if *count > 0 => *count -= 1,
            _ => rest.push(pid.clone()),
        }
    }
    rest
}
