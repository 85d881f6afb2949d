//! Which nodes to connect to, decided from what several sources report.
//!
//! A source (DNS, Kubernetes, multicast, a list of hosts, …) reports [`Candidate`]s; this machine owns what follows from
//! that: who may be dialled, when, how often, and when a node that is named no more is given up. Sources run side by side,
//! and each owns the nodes that it named.
//!
//! # Rules
//! 1. An error of a source is no answer: it changes nothing but its own back-off.
//! 2. A node is given up by a source after [`ABSENT_ANSWERS`] complete answers in a row without it and at least
//!    [`ABSENT_FOR`]; see [`Prune`] for what happens then. It is given up at all only when no source names it any more.
//! 3. Dials are made side by side, each node with its own back-off and jitter. A refused cookie backs off for minutes. While many nodes
//!    are new, those with greater names are put off by a moment, once: they dial too, and of two attempts at once theirs goes on.
//! 4. A node that a source marks as leaving is not dialled, and not dialled again when it goes. One that all its sources mark as
//!    unready is not dialled until one of them takes that back. Neither is disconnected for it.
//! 5. A name from a source that anybody can write to is dialled only if the [allow-list](AllowList) allows it; the number of
//!    names a source can have is bounded.
//! 6. A deliberate disconnect holds until the node is named anew.
//! 7. Sources of a higher rank only run while all sources of lower ranks fail.
//!
//! # Invariants
//! 1. At most one dial per node is in flight: no [`Action::Connect`] before the outcome of the last one came in.
//! 2. No node is disconnected that any running source names, or under [`Prune::Forget`] or [`Prune::Never`].
//! 3. What is stored is bounded by the limits of the sources, whatever they report.

mod allow;
mod nodes;
#[cfg(test)]
mod tests;

use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};

use foundation_proto::Mono;
use foundation_proto::dist::NodeName;

pub use allow::{AllowError, AllowList, Network};
use nodes::{Known, Nodes, State};

use crate::Machine;

/// Complete answers in a row that must lack a node before its source gives it up.
pub const ABSENT_ANSWERS: u32 = 3;
/// How long it must have been absent at least: three polls in one second prove nothing.
pub const ABSENT_FOR: Duration = Duration::from_secs(10);

/// The first pause after a failed dial; it doubles up to [`SLOWEST_DIAL`].
const FIRST_BACK_OFF: Duration = Duration::from_millis(500);
const SLOWEST_DIAL: Duration = Duration::from_secs(30);
/// The same after a refusal that only a changed configuration can mend.
const FIRST_LASTING: Duration = Duration::from_secs(60);
const SLOWEST_LASTING: Duration = Duration::from_secs(600);
/// The pause before a lost node is dialled again.
const AFTER_LOSS: Duration = Duration::from_millis(500);
/// The first dials of more new nodes than this put off those with greater names, for so long for each of the new ones.
const CROWD: usize = 16;
const PUT_OFF: Duration = Duration::from_millis(5);
/// Failures in a row after which a source counts as failed.
const FAILED_AFTER: u32 = 2;
/// Refused names that are remembered so that each is reported once.
const MAX_REFUSED: usize = 256;
/// A source that has not reported by then does not hold up [`Report::Formed`].
const SETTLED: Duration = Duration::from_secs(1);

/// A source, by its place in [`Config::sources`].
pub type SourceId = usize;

/// What the machine is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node; it is never dialled.
    pub own: NodeName,
    /// Names that may be dialled whichever source reports them.
    pub allow: AllowList,
    /// Where candidates come from.
    pub sources: Vec<Source>,
    /// From the host's random source: nodes that lost the same thing must not come back in the same instant.
    pub seed: u64,
}

/// How the reports of one source are taken.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name in reports, that of the topology.
    pub name: String,
    /// Which of its names may be dialled.
    pub trust: Trust,
    /// What happens to nodes that it names no more.
    pub prune: Prune,
    /// Sources of rank 0 run always, those of rank n + 1 while all of rank n fail.
    pub rank: usize,
    /// The most nodes it can name.
    pub max_nodes: usize,
}

/// Which names of a source may be dialled without an entry of the allow-list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Trust {
    /// All: the user wrote them, or the hosts they are on.
    Named,
    /// Those with one of these parts before the `@`: the user wrote the query.
    Basenames(Vec<String>),
    /// None: anybody on the network can write to it.
    Open,
}

/// What happens to a node once no source names it any more.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Prune {
    /// Nothing: it is dialled for ever.
    Never,
    /// It is dialled no more; a connection that lives is left alone.
    #[default]
    Forget,
    /// It is disconnected.
    Disconnect,
}

/// A node that a source names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Candidate {
    /// Its name, exactly as it calls itself.
    pub node: NodeName,
    /// Where its host part leads, if the source knows or the host has looked it up.
    pub addresses: Vec<IpAddr>,
    /// What the source has seen, for people: `pod web-1 in namespace default`.
    pub evidence: String,
    /// Changes when the node has been started anew; what was held against it is then forgotten. 0: unknown.
    pub stamp: u64,
    /// It is being shut down.
    pub leaving: bool,
    /// It takes no work at the moment.
    pub unready: bool,
}

impl Candidate {
    /// A candidate of which only the name and the evidence are known.
    pub fn new(node: NodeName, evidence: impl Into<String>) -> Self {
        Self {
            node,
            addresses: Vec::new(),
            evidence: evidence.into(),
            stamp: 0,
            leaving: false,
            unready: false,
        }
    }
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// A source has answered completely: these are all nodes it knows.
    Answer {
        /// Which one.
        source: SourceId,
        /// All of them.
        candidates: Vec<Candidate>,
    },
    /// A source has seen this node, and says nothing about others.
    Seen {
        /// Which one.
        source: SourceId,
        /// The node.
        candidate: Candidate,
    },
    /// A source was told that this node is gone.
    Gone {
        /// Which one.
        source: SourceId,
        /// The node.
        node: NodeName,
    },
    /// A source could not answer.
    Failed {
        /// Which one.
        source: SourceId,
        /// Why.
        why: String,
    },
    /// A node is connected, whoever dialled it.
    Up(NodeName),
    /// A node is not connected any more.
    Down {
        /// The node.
        node: NodeName,
        /// This side meant it.
        deliberate: bool,
    },
    /// The dial that an [`Action::Connect`] asked for has failed.
    NotConnected {
        /// The node.
        node: NodeName,
        /// Why.
        why: String,
        /// Trying again soon cannot help.
        lasting: bool,
    },
}

/// What to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Run this source.
    Start(SourceId),
    /// Stop running it.
    Stop(SourceId),
    /// Dial this node, and report [`Event::Up`] or [`Event::NotConnected`].
    Connect(NodeName),
    /// End the connection to this node.
    Disconnect(NodeName),
    /// Nobody wants this node any more: dials that were begun elsewhere are to be given up.
    Release(NodeName),
    /// For logs, metrics and whoever listens.
    Report(Report),
}

/// What is worth saying.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Report {
    /// A source cannot answer; said when that begins.
    SourceFailed {
        /// Which one.
        source: SourceId,
        /// Why.
        why: String,
    },
    /// A source answers again.
    SourceRecovered {
        /// Which one.
        source: SourceId,
    },
    /// A name may not be dialled; said once per name.
    Refused {
        /// Which source named it.
        source: SourceId,
        /// The node.
        node: NodeName,
        /// What the source has seen.
        evidence: String,
    },
    /// A source names more nodes than it may; said once.
    TooMany {
        /// Which one.
        source: SourceId,
        /// How many it may.
        limit: usize,
    },
    /// A node that sources name is connected.
    Connected {
        /// The node.
        node: NodeName,
        /// Who names it.
        sources: Vec<SourceId>,
        /// How long the dial took; zero if the node came by itself.
        duration: Duration,
    },
    /// A dial has failed.
    NotConnected {
        /// The node.
        node: NodeName,
        /// Who names it.
        sources: Vec<SourceId>,
        /// Why.
        why: String,
        /// Failures in a row.
        failures: u32,
    },
    /// A node was lost.
    Lost {
        /// The node.
        node: NodeName,
        /// Who names it.
        sources: Vec<SourceId>,
    },
    /// No source names this node any more.
    Absent {
        /// The node.
        node: NodeName,
        /// Who did last.
        source: SourceId,
        /// Its connection is ended for it.
        disconnects: bool,
    },
    /// Sources of this rank begin to run because those before them fail, or end because one of those answers again.
    FailedOver {
        /// The highest rank that runs now.
        rank: usize,
    },
    /// All that was found at first has been tried, and somebody is there. Said once.
    Formed {
        /// Nodes in the cluster, this one among them.
        node_count: usize,
        /// From the start of the machine to the last connection.
        formation_time: Duration,
        /// Who named the connected nodes.
        sources: Vec<SourceId>,
    },
}

/// What is known of one source.
#[derive(Debug)]
struct Running {
    source: Source,
    active: bool,
    failures: u32,
    reported: bool,
    too_many: bool,
}

/// The machine; see the [module documentation](self).
#[derive(Debug)]
pub struct Discovery {
    own: NodeName,
    allow: AllowList,
    sources: Vec<Running>,
    nodes: Nodes,
    refused: BTreeSet<(SourceId, NodeName)>,
    rank: usize,
    random: u64,
    started: Mono,
    last_up: Option<Mono>,
    formed: bool,
    actions: VecDeque<Action>,
}

impl Discovery {
    /// Starts the sources of rank 0.
    pub fn new(config: Config, now: Mono) -> Self {
        let sources = config.sources.into_iter();
        let mut machine = Self {
            own: config.own,
            allow: config.allow,
            sources: sources
                .map(|source| Running {
                    source,
                    active: false,
                    failures: 0,
                    reported: false,
                    too_many: false,
                })
                .collect(),
            nodes: Nodes::default(),
            refused: BTreeSet::new(),
            rank: 0,
            random: config.seed,
            started: now,
            last_up: None,
            formed: false,
            actions: VecDeque::new(),
        };
        machine.run_ranks();
        machine
    }

    /// The nodes that sources name, in order: the state of each in a word, and who names it.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeName, &'static str, Vec<SourceId>)> {
        self.nodes.iter().map(|(node, known)| (node, known.state.word(), known.sources()))
    }

    /// Whether a name that a source reports may be dialled.
    pub fn allows(&self, source: SourceId, candidate: &Candidate) -> bool {
        let by_source = self.sources.get(source).is_some_and(|running| match &running.source.trust {
            Trust::Named => true,
            Trust::Basenames(names) => names.iter().any(|name| name == candidate.node.alive()),
            Trust::Open => false,
        });
        by_source || self.allow.allows(&candidate.node, &candidate.addresses)
    }

    fn report(&mut self, report: Report) {
        self.actions.push_back(Action::Report(report));
    }

    // -- sources ---------------------------------------------------------------------------------------------------------

    fn answered(&mut self, source: SourceId) {
        let Some(running) = self.sources.get_mut(source) else { return };
        running.reported = true;
        if running.failures >= FAILED_AFTER {
            self.actions.push_back(Action::Report(Report::SourceRecovered { source }));
        }
        running.failures = 0;
        self.run_ranks();
    }

    fn failed(&mut self, source: SourceId, why: String) {
        let Some(running) = self.sources.get_mut(source).filter(|running| running.active) else { return };
        running.reported = true;
        running.failures = running.failures.saturating_add(1);
        if running.failures == FAILED_AFTER {
            self.actions.push_back(Action::Report(Report::SourceFailed { source, why }));
        }
        self.run_ranks();
    }

    /// Runs the sources up to the first rank in which one does not fail.
    fn run_ranks(&mut self) {
        let highest = self.sources.iter().map(|running| running.source.rank).max().unwrap_or(0);
        let healthy = |rank: usize| {
            self.sources.iter().any(|running| running.source.rank == rank && running.failures < FAILED_AFTER)
        };
        let rank = (0..=highest).find(|rank| healthy(*rank)).unwrap_or(highest);
        if rank != self.rank {
            self.rank = rank;
            self.report(Report::FailedOver { rank });
        }
        for (source, running) in self.sources.iter_mut().enumerate() {
            let active = running.source.rank <= rank;
            if active != running.active {
                running.active = active;
                running.failures = 0;
                self.actions.push_back(if active { Action::Start(source) } else { Action::Stop(source) });
                if !active {
                    self.nodes.disown_all(source);
                }
            }
        }
    }

    // -- what sources report ---------------------------------------------------------------------------------------------

    fn answer(&mut self, now: Mono, source: SourceId, candidates: Vec<Candidate>) {
        if !self.sources.get(source).is_some_and(|running| running.active) {
            return;
        }
        let mut listed = BTreeSet::new();
        for candidate in candidates {
            if self.take(now, source, candidate.clone()) {
                listed.insert(candidate.node);
            }
        }
        for node in self.nodes.owned_by(source) {
            if !listed.contains(&node) && self.nodes.absent(now, source, &node) {
                self.give_up(source, &node);
            }
        }
    }

    /// Notes a candidate; `false` if it is not to be dialled.
    fn take(&mut self, now: Mono, source: SourceId, candidate: Candidate) -> bool {
        if candidate.node == self.own {
            return false;
        }
        if !self.allows(source, &candidate) {
            self.refuse(source, candidate);
            return false;
        }
        let limit = self.sources.get(source).map_or(0, |running| running.source.max_nodes);
        if !self.nodes.owns(source, &candidate.node) && self.nodes.count(source) >= limit {
            self.nodes.drop_stale(now, source);
            if self.nodes.count(source) >= limit {
                if let Some(running) = self.sources.get_mut(source).filter(|running| !running.too_many) {
                    running.too_many = true;
                    self.report(Report::TooMany { source, limit });
                }
                return false;
            }
        }
        let held_back = candidate.leaving || candidate.unready;
        let node = candidate.node.clone();
        self.nodes.list(now, source, candidate);
        if held_back && self.nodes.get(&node).is_some_and(|known| !known.is_wanted()) {
            self.actions.push_back(Action::Release(node));
        }
        true
    }

    fn refuse(&mut self, source: SourceId, candidate: Candidate) {
        let Candidate { node, evidence, .. } = candidate;
        if self.refused.len() < MAX_REFUSED && self.refused.insert((source, node.clone())) {
            self.report(Report::Refused { source, node, evidence });
        }
    }

    /// A source does not name this node any more.
    fn give_up(&mut self, source: SourceId, node: &NodeName) {
        let prune = self.sources.get(source).map_or(Prune::Never, |running| running.source.prune);
        if prune == Prune::Never || !self.nodes.disown(source, node) {
            return;
        }
        let Some(known) = self.nodes.get(node) else { return };
        if !known.is_orphan() {
            return;
        }
        let up = known.state == State::Up;
        let disconnects = up && prune == Prune::Disconnect;
        self.report(Report::Absent { node: node.clone(), source, disconnects });
        self.actions.push_back(Action::Release(node.clone()));
        if disconnects {
            self.actions.push_back(Action::Disconnect(node.clone()));
        }
        self.nodes.forget_if_idle(node);
    }

    // -- connections -----------------------------------------------------------------------------------------------------

    fn up(&mut self, now: Mono, node: NodeName) {
        let Some(known) = self.nodes.get_mut(&node) else { return };
        let duration = match known.state {
            State::Up => return,
            State::Dialling(since) => now.saturating_since(since),
            _ => Duration::ZERO,
        };
        known.state = State::Up;
        known.failures = 0;
        let sources = known.sources();
        self.last_up = Some(now);
        self.report(Report::Connected { node, sources, duration });
    }

    fn down(&mut self, now: Mono, node: NodeName, deliberate: bool) {
        let pause = self.between(AFTER_LOSS, AFTER_LOSS * 2);
        let Some(known) = self.nodes.get_mut(&node) else { return };
        let sources = known.sources();
        known.failures = 0;
        known.state = if deliberate { State::Held } else { State::Waiting(now + pause) };
        let unwanted = !known.is_wanted();
        self.report(Report::Lost { node: node.clone(), sources });
        if unwanted {
            self.actions.push_back(Action::Release(node.clone()));
        }
        self.nodes.forget_if_idle(&node);
    }

    fn not_connected(&mut self, now: Mono, node: NodeName, why: String, lasting: bool) {
        let Some(known) = self.nodes.get(&node).filter(|known| matches!(known.state, State::Dialling(_)))
        else {
            return;
        };
        let failures = known.failures.saturating_add(1);
        let (first, slowest) =
            if lasting { (FIRST_LASTING, SLOWEST_LASTING) } else { (FIRST_BACK_OFF, SLOWEST_DIAL) };
        let most = first.saturating_mul(1_u32 << (failures - 1).min(16)).min(slowest);
        let pause = self.between(most / 2, most);
        if let Some(known) = self.nodes.get_mut(&node) {
            known.failures = failures;
            known.state = State::Waiting(now + pause);
            let sources = known.sources();
            self.report(Report::NotConnected { node: node.clone(), sources, why, failures });
        }
        self.nodes.forget_if_idle(&node);
    }

    /// Dials what is due.
    fn dial(&mut self, now: Mono) {
        let due = self.nodes.due(now);
        if due.is_empty() {
            return;
        }
        let crowd = self.nodes.iter().filter(|(_, known)| known.is_untried()).count();
        let most = PUT_OFF.saturating_mul(u32::try_from(crowd).unwrap_or(u32::MAX)).min(SETTLED);
        for node in due {
            let pause = self.between(most / 2, most);
            if let Some(known) = self.nodes.get_mut(&node) {
                if crowd > CROWD && node > self.own && known.may_be_put_off() {
                    known.state = State::Waiting(now + pause);
                    continue;
                }
                known.state = State::Dialling(now);
                self.actions.push_back(Action::Connect(node));
            }
        }
    }

    fn form(&mut self, now: Mono) {
        let Some(last_up) = self.last_up.filter(|_| !self.formed) else { return };
        let all_reported = self.sources.iter().all(|running| running.reported || !running.active);
        if !(all_reported || now >= self.started + SETTLED)
            || self.nodes.iter().any(|(_, known)| known.is_untried())
        {
            return;
        }
        let up: Vec<&Known> =
            self.nodes.iter().map(|(_, known)| known).filter(|known| known.state == State::Up).collect();
        if up.is_empty() {
            return;
        }
        let sources: BTreeSet<SourceId> = up.iter().flat_map(|known| known.sources()).collect();
        let node_count = up.len() + 1;
        self.formed = true;
        self.report(Report::Formed {
            node_count,
            formation_time: last_up.saturating_since(self.started),
            sources: sources.into_iter().collect(),
        });
    }

    /// A duration between the two (SplitMix64).
    fn between(&mut self, least: Duration, most: Duration) -> Duration {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let share = ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
        least + most.saturating_sub(least).mul_f64(share)
    }
}

impl Machine for Discovery {
    type Event = Event;
    type Action = Action;

    fn handle(&mut self, now: Mono, event: Event) {
        match event {
            Event::Answer { source, candidates } => {
                self.answered(source);
                self.answer(now, source, candidates);
            }
            Event::Seen { source, candidate } => {
                self.answered(source);
                if self.sources.get(source).is_some_and(|running| running.active) {
                    self.take(now, source, candidate);
                }
            }
            Event::Gone { source, node } => {
                self.answered(source);
                self.give_up(source, &node);
            }
            Event::Failed { source, why } => self.failed(source, why),
            Event::Up(node) => self.up(now, node),
            Event::Down { node, deliberate } => self.down(now, node, deliberate),
            Event::NotConnected { node, why, lasting } => self.not_connected(now, node, why, lasting),
        }
        self.handle_timeout(now);
    }

    fn handle_timeout(&mut self, now: Mono) {
        self.dial(now);
        self.form(now);
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Mono> {
        let settled = (!self.formed && self.last_up.is_some()).then_some(self.started + SETTLED);
        let settled =
            settled.filter(|_| self.sources.iter().any(|running| running.active && !running.reported));
        self.nodes.next_due().into_iter().chain(settled).min()
    }
}
