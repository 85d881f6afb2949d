//! The nodes that sources name, and how far each has come.

use core::time::Duration;
use std::collections::BTreeMap;

use foundation_proto::Mono;
use foundation_proto::dist::NodeName;

use super::{ABSENT_ANSWERS, ABSENT_FOR, Candidate, SourceId};

/// A name that was only seen (not listed in complete answers) makes room for others after this time, if it is not connected.
const STALE: Duration = Duration::from_secs(60);

/// All of them, in order.
#[derive(Debug, Default)]
pub(super) struct Nodes(BTreeMap<NodeName, Known>);

/// One node.
#[derive(Debug)]
pub(super) struct Known {
    owners: BTreeMap<SourceId, Listing>,
    pub(super) state: State,
    pub(super) failures: u32,
    stamp: u64,
    put_off: bool,
}

/// What one source says about it.
#[derive(Debug)]
struct Listing {
    leaving: bool,
    unready: bool,
    last_seen: Mono,
    absent: u32,
    absent_since: Option<Mono>,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// It will be dialled at this time.
    Waiting(Mono),
    /// It is being dialled since.
    Dialling(Mono),
    /// It is connected.
    Up,
    /// It was disconnected on purpose.
    Held,
}

impl State {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Waiting(_) => "waiting",
            Self::Dialling(_) => "dialling",
            Self::Up => "connected",
            Self::Held => "disconnected on purpose",
        }
    }
}

impl Known {
    pub(super) fn sources(&self) -> Vec<SourceId> {
        self.owners.keys().copied().collect()
    }

    /// Nobody names it any more.
    pub(super) fn is_orphan(&self) -> bool {
        self.owners.is_empty()
    }

    /// One source that knows better than others says that it is being shut down.
    fn is_leaving(&self) -> bool {
        self.owners.values().any(|listing| listing.leaving)
    }

    /// Whether it is to be dialled: somebody names it as ready, and nobody as leaving.
    pub(super) fn is_wanted(&self) -> bool {
        self.owners.values().any(|listing| !listing.unready) && !self.is_leaving()
    }

    /// Whether its first dial may be put off, which it may be once.
    pub(super) fn may_be_put_off(&mut self) -> bool {
        self.failures == 0 && !std::mem::replace(&mut self.put_off, true)
    }

    /// Its first dial has no outcome yet.
    pub(super) fn is_untried(&self) -> bool {
        self.is_wanted() && self.failures == 0 && matches!(self.state, State::Waiting(_) | State::Dialling(_))
    }
}

impl Nodes {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&NodeName, &Known)> {
        self.0.iter()
    }

    pub(super) fn get(&self, node: &NodeName) -> Option<&Known> {
        self.0.get(node)
    }

    pub(super) fn get_mut(&mut self, node: &NodeName) -> Option<&mut Known> {
        self.0.get_mut(node)
    }

    pub(super) fn owns(&self, source: SourceId, node: &NodeName) -> bool {
        self.0.get(node).is_some_and(|known| known.owners.contains_key(&source))
    }

    /// How many nodes a source names.
    pub(super) fn count(&self, source: SourceId) -> usize {
        self.0.values().filter(|known| known.owners.contains_key(&source)).count()
    }

    pub(super) fn owned_by(&self, source: SourceId) -> Vec<NodeName> {
        let owned = self.0.iter().filter(|(_, known)| known.owners.contains_key(&source));
        owned.map(|(node, _)| node.clone()).collect()
    }

    /// A source names this node.
    pub(super) fn list(&mut self, now: Mono, source: SourceId, candidate: Candidate) {
        let known = self.0.entry(candidate.node).or_insert_with(|| Known {
            owners: BTreeMap::new(),
            state: State::Waiting(now),
            failures: 0,
            stamp: candidate.stamp,
            put_off: false,
        });
        let named_anew = known.is_orphan() && known.state == State::Held;
        let started_anew = candidate.stamp != 0 && candidate.stamp != known.stamp;
        if started_anew {
            known.stamp = candidate.stamp;
        }
        if (named_anew || started_anew) && matches!(known.state, State::Held | State::Waiting(_)) {
            known.failures = 0;
            known.state = State::Waiting(now);
        }
        known.owners.insert(
            source,
            Listing {
                leaving: candidate.leaving,
                unready: candidate.unready,
                last_seen: now,
                absent: 0,
                absent_since: None,
            },
        );
    }

    /// A complete answer of a source lacks this node; `true` if that counts as confirmed by now.
    pub(super) fn absent(&mut self, now: Mono, source: SourceId, node: &NodeName) -> bool {
        let Some(listing) = self.0.get_mut(node).and_then(|known| known.owners.get_mut(&source)) else {
            return false;
        };
        listing.absent = listing.absent.saturating_add(1);
        let since = *listing.absent_since.get_or_insert(now);
        // Gone from the list after it was marked: that was to be expected.
        listing.leaving || (listing.absent >= ABSENT_ANSWERS && now.saturating_since(since) >= ABSENT_FOR)
    }

    /// Takes a node from a source; `false` if that never named it.
    pub(super) fn disown(&mut self, source: SourceId, node: &NodeName) -> bool {
        self.0.get_mut(node).is_some_and(|known| known.owners.remove(&source).is_some())
    }

    /// Takes all its nodes from a source that does not run any more. Those that are connected stay so.
    pub(super) fn disown_all(&mut self, source: SourceId) {
        self.0.retain(|_, known| {
            known.owners.remove(&source);
            !known.is_orphan() || matches!(known.state, State::Up | State::Dialling(_))
        });
    }

    /// Makes room among the names that a source has seen.
    pub(super) fn drop_stale(&mut self, now: Mono, source: SourceId) {
        self.0.retain(|_, known| {
            let stale = known.owners.get(&source).is_some_and(|listing| {
                now.saturating_since(listing.last_seen) >= STALE && matches!(known.state, State::Waiting(_))
            });
            if stale {
                known.owners.remove(&source);
            }
            !(stale && known.is_orphan())
        });
    }

    /// An entry is kept as long as somebody names the node or it is connected.
    pub(super) fn forget_if_idle(&mut self, node: &NodeName) {
        if self
            .0
            .get(node)
            .is_some_and(|known| known.is_orphan() && matches!(known.state, State::Waiting(_) | State::Held))
        {
            self.0.remove(node);
        }
    }

    /// The nodes to dial now.
    pub(super) fn due(&self, now: Mono) -> Vec<NodeName> {
        self.0
            .iter()
            .filter(|(_, known)| known.is_wanted() && matches!(known.state, State::Waiting(at) if at <= now))
            .map(|(node, _)| node.clone())
            .collect()
    }

    pub(super) fn next_due(&self) -> Option<Mono> {
        self.0
            .values()
            .filter_map(|known| match known.state {
                State::Waiting(at) if known.is_wanted() => Some(at),
                _ => None,
            })
            .min()
    }
}
