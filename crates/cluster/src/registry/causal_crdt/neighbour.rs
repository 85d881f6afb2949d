//! When a member compares with whom.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid};

use super::{
    Action, CausalCrdt, FAN_OUT, LEVELS, MAX_GAP, MAX_NEIGHBOURS, MAX_REPLICAS, MAX_ROUND_TIMEOUT, MIN_GAP,
    MonitorId, Mutant, PROBE_LEVELS, ROUND_TIMEOUT, TIMEOUT_OF_A_KEY,
};
use crate::Key;
use crate::registry::wire::{self, Address, Diff};
use crate::registry::{Delta, Dot, Element, Location};

/// The first pause before a neighbour that is not there is looked for again; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);
/// The longest pause between two attempts to find a neighbour.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// A neighbour of another kind compares several times a second. One that has done so and has been silent for this long may have
/// this member no more among its neighbours, and is compared with.
const SILENCE: Duration = Duration::from_secs(5);
/// How long nothing more is said of what a neighbour has lost.
const MISSING_PAUSE: Duration = Duration::from_secs(10);

/// How many dots a message names one by one.
const MAX_NAMED: i64 = 10_000;

/// Keys whose part of the tree is made, sent and read well within a [`BEAT`].
const KEYS_OF_A_BEAT: usize = 2000;
/// Time between two comparisons that a Horde starts.
const BEAT: Duration = Duration::from_millis(300);
/// No two comparisons that a DeltaCrdt starts are answered within this, unless data came between: beats that have waited for a
/// connection arrive all at once.
const MIN_ANSWERED: Duration = Duration::from_millis(150);
/// An answer may be lost: after so many beats another is given.
const MAX_BEATS: usize = 30;

/// After so long without news of a replica, and with all neighbours there, what is missing of it is nowhere. Longer than a
/// connection that is dead can pass for one (75 s with Erlang's `net_ticktime` of 60 s).
pub(super) const SETTLED: Duration = Duration::from_secs(90);

/// A write that was replaced or removed here and that a neighbour still holds.
struct Removed<'a> {
    key: &'a Key,
    dot: Dot,
    /// What is here of the key, unless the same neighbour holds that too.
    instead: Vec<Dot>,
}

/// What is known of a neighbour.
#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) monitor: Option<MonitorId>,
    /// The process behind the address. It is known once it has started a comparison itself.
    pub(super) pid: Option<Pid>,
    /// Whether it takes a set of dots for these dots alone, as members of this kind do.
    pub(super) exact: bool,
    /// What it said it had seen when it last started a comparison, unless it is of this kind. For one process of a DeltaCrdt
    /// this only grows.
    seen: BTreeMap<i64, i64>,
    /// When it is looked at, as it stands in the machine's `wakes`: not later than anything of it is due.
    wake: Option<Mono>,
    /// When to look for it again.
    pub(super) retry_at: Option<Mono>,
    pause: Duration,
    /// Whether it has all own writes up to the latest, so that the next one can be pushed.
    pub(super) synced: bool,
    /// The comparison under way.
    pub(super) round: Option<Round>,
    /// Comparisons that were started and not acknowledged.
    unanswered: u32,
    last_round: Option<Mono>,
    /// The version of the map at the start of the latest comparison.
    last_version: Option<u64>,
    /// It has been sent all own writes up to this one.
    pub(super) told: i64,
    /// When it last started a comparison, or was compared with because it did not; `None` if it is of this kind.
    heard: Option<Mono>,
    /// When it was last said that it has lost something.
    missing_at: Option<Mono>,
    /// How long to wait before the next comparison.
    gap: Duration,
    /// When to start a comparison, or to start the one under way again.
    pub(super) due: Option<Mono>,
    /// Whether it is known to lack something: the comparison starts with all the levels that fit.
    differs: bool,
    /// The version of the map at which both were found equal.
    pub(super) equal_at: Option<u64>,
    /// Comparisons that it starts are passed over until then, unless data come first.
    answered_until: Option<Mono>,
    /// Whether those data are so much that what is here is compared only after they have come, or after that time: it would be
    /// shown most of the tree twice, and asks for all that is here but has come from it.
    first_takes: bool,
}

/// A comparison that this member has started.
#[derive(Debug)]
pub(super) struct Round {
    /// This member's latest own dot when it began.
    own: i64,
    /// The version of the map when it began.
    version: u64,
    /// Whether something differed.
    differed: bool,
    /// Whether another one has to follow.
    again: bool,
}

impl Neighbour {
    /// Whether it has said that it has seen a write. To hear of it once more then makes it take nothing else for seen.
    pub(super) fn has_seen(&self, dot: Dot) -> bool {
        self.seen.get(&dot.replica).is_some_and(|upto| dot.number <= *upto)
    }

    /// When it has been silent for too long.
    fn silent_at(&self) -> Option<Mono> {
        self.heard.map(|at| at + SILENCE)
    }

    /// Whether it is of another kind and compares with this member all the time, which shows what it lacks. Own writes are pushed to it.
    fn compares(&self, now: Mono) -> bool {
        self.synced && self.silent_at().is_some_and(|at| now < at)
    }

    /// The earliest time for another comparison.
    fn earliest(&self, now: Mono) -> Mono {
        let after = self.answered_until.filter(|_| self.first_takes);
        self.last_round.map_or(now, |last| (last + self.gap).max(now)).max(after.unwrap_or(now))
    }

    fn new(address: &Address, unanswered: u32) -> Self {
        let pid = match address {
            Address::Pid(pid) => Some(pid.clone()),
            Address::Name { .. } => None,
        };
        Self {
            monitor: None,
            pid,
            exact: false,
            seen: BTreeMap::new(),
            wake: None,
            retry_at: None,
            pause: RETRY_MIN,
            synced: false,
            round: None,
            unanswered,
            last_round: None,
            last_version: None,
            told: 0,
            heard: None,
            missing_at: None,
            gap: MIN_GAP,
            due: None,
            differs: false,
            equal_at: None,
            answered_until: None,
            first_takes: false,
        }
    }
}

impl CausalCrdt {
    pub(super) fn set_neighbours(&mut self, now: Mono, neighbours: Vec<Address>) {
        let registered =
            |address: &Address| matches!(address, Address::Name { node, .. } if *node == self.me.node);
        let others = neighbours.into_iter().filter(|a| *a != Address::Pid(self.me.clone()) && !registered(a));
        let wanted: BTreeSet<Address> = others.take(MAX_NEIGHBOURS).collect();
        let gone: Vec<Address> = self.neighbours.keys().filter(|a| !wanted.contains(a)).cloned().collect();
        for address in gone {
            let Some(neighbour) = self.neighbours.remove(&address) else { continue };
            if let Some(wake) = neighbour.wake {
                self.wakes.remove(&(wake, address.clone()));
            }
            if let Some(there) = self.by_node.get_mut(address.node()) {
                there.remove(&address);
            }
            if let Some(monitor) = neighbour.monitor {
                self.monitors.remove(&monitor);
                self.act(Action::Demonitor(monitor));
                if neighbour.unanswered > 0 && self.former.len() < MAX_NEIGHBOURS {
                    self.former.insert(address, neighbour.unanswered);
                }
            }
        }
        self.by_node.retain(|_, there| !there.is_empty());
        for address in wanted {
            if !self.neighbours.contains_key(&address) {
                self.by_node.entry(address.node().clone()).or_default().insert(address.clone());
                let unanswered = self.former.remove(&address).unwrap_or(0);
                self.neighbours.insert(address.clone(), Neighbour::new(&address, unanswered));
                self.monitor(now, &address);
            }
        }
        if self.beat.is_none() && !self.neighbours.is_empty() {
            self.beat = Some(now + self.config.interval);
        }
        self.due(now);
    }

    /// Looks for a neighbour. It is compared with when what is due is [started](Self::due).
    fn monitor(&mut self, now: Mono, address: &Address) {
        self.gaps.clear();
        let Some(neighbour) = self.neighbours.get_mut(address) else { return };
        let monitor = MonitorId(self.next_monitor);
        self.next_monitor += 1;
        neighbour.monitor = Some(monitor);
        neighbour.retry_at = None;
        // Whoever is reached for the first time may differ in everything.
        neighbour.due = Some(now);
        self.wake_at(address, now);
        self.monitors.insert(monitor, address.clone());
        self.act(Action::Monitor { monitor, target: address.clone() });
    }

    pub(super) fn down(&mut self, now: Mono, monitor: MonitorId) {
        let Some(address) = self.monitors.remove(&monitor) else { return };
        self.gaps.clear();
        let retries = !self.mutant.is(Mutant::NoRetry);
        let Some(neighbour) = self.neighbours.get_mut(&address) else { return };
        let (pause, wake) = (neighbour.pause, neighbour.wake);
        *neighbour = Neighbour { pause: (pause * 2).min(RETRY_MAX), wake, ..Neighbour::new(&address, 0) };
        neighbour.retry_at = retries.then_some(now + pause);
        self.wake_at(&address, now + pause);
        let foreign = |n: &Neighbour| n.pid.is_some() && !n.exact;
        let own = self.config.replica;
        if !self.neighbours.values().any(foreign)
            && self.map.context().replicas().any(|replica| replica != own)
        {
            self.act(Action::Alone);
        }
    }

    /// All neighbours are compared with as if they had just been reached: the map is another one now.
    pub(super) fn restart(&mut self, now: Mono) {
        self.gaps.clear();
        for (address, neighbour) in &mut self.neighbours {
            (neighbour.synced, neighbour.round, neighbour.told) = (false, None, 0);
            (neighbour.equal_at, neighbour.last_version) = (None, None);
            neighbour.due = neighbour.monitor.is_some().then_some(now);
            wake(&mut self.wakes, address, neighbour, now);
        }
        self.due(now);
    }

    /// A neighbour lacks what is here of these keys. Those that it was told of before, it has lost since.
    pub(super) fn missing<'a>(&mut self, now: Mono, from: &Address, keys: impl IntoIterator<Item = &'a Key>) {
        let address = self.neighbour(from);
        let Some(neighbour) = address.and_then(|address| self.neighbours.get_mut(&address)) else { return };
        let (replica, told) = (self.config.replica, neighbour.told);
        if told == 0 {
            return;
        }
        let had = |dot: &Dot| dot.replica == replica && dot.number <= told;
        let lost = |key: &&Key| self.map.elements(key).iter().any(|element| element.dots.iter().any(had));
        let lost: Vec<Key> = keys.into_iter().filter(lost).cloned().collect();
        // Whoever writes again because of it must not do so at every comparison with somebody who does not take it.
        if !lost.is_empty() && neighbour.missing_at.is_none_or(|at| now >= at + MISSING_PAUSE) {
            neighbour.missing_at = Some(now);
            self.act(Action::Missing(lost));
        }
    }

    pub(super) fn node_up(&mut self, now: Mono, node: &Atom) {
        // What was under way on an earlier connection is not answered any more.
        self.former.retain(|address, _| address.node() != node);
        let there = self.by_node.get(node).cloned().unwrap_or_default();
        for address in there {
            if let Some(neighbour) = self.neighbours.get_mut(&address)
                && neighbour.monitor.is_none()
            {
                neighbour.pause = RETRY_MIN;
                self.monitor(now, &address);
            }
        }
        self.due(now);
    }

    /// A neighbour lacks something: it is compared with after `delay`, but not too often.
    pub(super) fn must(&mut self, now: Mono, address: &Address, delay: Duration) {
        if let Some(neighbour) = self.neighbours.get_mut(address) {
            neighbour.differs = true;
            self.again(now, address, delay);
        }
    }

    /// A neighbour is compared with after `delay`, but not too often.
    fn again(&mut self, now: Mono, address: &Address, delay: Duration) {
        let Some(neighbour) = self.neighbours.get_mut(address) else { return };
        match &mut neighbour.round {
            Some(round) => round.again = true,
            None if neighbour.monitor.is_some() => {
                let at = (now + delay).max(neighbour.earliest(now));
                neighbour.due = Some(neighbour.due.map_or(at, |due| due.min(at)));
                self.wake_at(address, at);
            }
            None => {}
        }
        self.due(now);
    }

    pub(super) fn must_node(&mut self, now: Mono, node: &Atom, delay: Duration) {
        let there = self.by_node.get(node).cloned().unwrap_or_default();
        for address in there {
            self.must(now, &address, delay);
        }
    }

    /// The only neighbour on a node.
    fn only(&self, node: &Atom) -> Option<Address> {
        let there = self.by_node.get(node)?;
        there.first().filter(|_| there.len() == 1).cloned()
    }

    /// The neighbour that calls itself so: by its address, or by its process.
    fn neighbour(&self, from: &Address) -> Option<Address> {
        if self.neighbours.contains_key(from) {
            return Some(from.clone());
        }
        let Address::Pid(pid) = from else { return None };
        let there = self.by_node.get(&pid.node)?;
        let known =
            |address: &&Address| self.neighbours.get(*address).is_some_and(|n| n.pid.as_ref() == Some(pid));
        there.iter().find(known).cloned().or_else(|| self.only(&pid.node))
    }

    /// Whether a neighbour is of this kind, and whether it is told of each write at once.
    pub(super) fn kind_of(&self, to: &Address) -> (bool, bool) {
        let neighbour = self.neighbour(to).and_then(|address| self.neighbours.get(&address));
        neighbour.map_or((false, false), |neighbour| (neighbour.exact, neighbour.synced))
    }

    /// What the process of a DeltaCrdt has said it has seen.
    pub(super) fn seen_by(&self, to: &Address) -> Option<&BTreeMap<i64, i64>> {
        let Address::Pid(pid) = to else { return None };
        let neighbour = self.neighbour(to).and_then(|address| self.neighbours.get(&address))?;
        // Before it has started a comparison it may be of this kind.
        let known = neighbour.heard.is_some() && neighbour.pid.as_ref() == Some(pid);
        known.then_some(&neighbour.seen)
    }

    /// The process of a neighbour, if it is known.
    pub(super) fn process_of(&self, from: Address) -> Address {
        let pid = self.neighbours.get(&from).and_then(|neighbour| neighbour.pid.clone());
        pid.map_or(from, Address::Pid)
    }

    /// A process has started a comparison, and has seen so much.
    pub(super) fn met(&mut self, now: Mono, pid: &Pid, exact: bool, dots: &BTreeMap<i64, i64>) {
        let Some(address) = self.only(&pid.node) else { return };
        let Some(neighbour) = self.neighbours.get_mut(&address).filter(|n| n.monitor.is_some()) else {
            return;
        };
        neighbour.heard = (!exact).then_some(now);
        if exact || dots.len() > MAX_REPLICAS {
            neighbour.seen.clear();
        } else if neighbour.seen != *dots {
            neighbour.seen.clone_from(dots);
        }
        if neighbour.pid.as_ref() != Some(pid) {
            neighbour.pid = Some(pid.clone());
            neighbour.exact = exact;
            neighbour.synced = false;
            self.again(now, &address, Duration::ZERO);
        }
        if !exact {
            self.wake_at(&address, now + SILENCE);
        }
    }

    /// Whether a comparison that the only neighbour on a node has started is to be passed over. A process of DeltaCrdt starts one at
    /// each beat, whether or not the one before is over: the answers to those would say the same again, and a large map takes
    /// longer to answer than a beat.
    pub(super) fn passes_over(&self, now: Mono, node: &Atom) -> bool {
        let neighbour = self.only(node).and_then(|address| self.neighbours.get(&address));
        neighbour.and_then(|neighbour| neighbour.answered_until).is_some_and(|until| now < until)
    }

    /// A comparison that the only neighbour on a node has started was answered with a part of the tree in which so many keys are shown,
    /// or with a question for so many; `new` is how many writes the neighbour had seen that are not seen here.
    pub(super) fn answered(&mut self, now: Mono, node: &Atom, new: usize, shown: usize) {
        // Nothing may come of it: what has been pushed meanwhile does not differ any more.
        let beats = (shown.max(new) / KEYS_OF_A_BEAT).min(MAX_BEATS);
        let pause = BEAT.saturating_mul(u32::try_from(beats).unwrap_or(u32::MAX)).max(MIN_ANSWERED);
        if let Some(neighbour) = self.only(node).and_then(|address| self.neighbours.get_mut(&address))
            && !neighbour.exact
        {
            neighbour.answered_until = Some(now + pause);
            neighbour.first_takes = new >= KEYS_OF_A_BEAT;
        }
    }

    /// An answer of a DeltaCrdt has come, so that the next comparison finds another difference. It does not say whose it is.
    pub(super) fn has_data(&mut self, now: Mono) {
        for (address, neighbour) in &mut self.neighbours {
            neighbour.answered_until = None;
            if std::mem::take(&mut neighbour.first_takes)
                && neighbour.round.is_none()
                && let Some(due) = neighbour.due
            {
                let due = due.min(neighbour.earliest(now + MIN_GAP));
                neighbour.due = Some(due);
                wake(&mut self.wakes, address, neighbour, due);
            }
        }
    }

    /// Whether a comparison that this member has started is given up, because the neighbour has so much that is not here: it starts
    /// again when that has come.
    pub(super) fn gives_up(&mut self, now: Mono, from: &Address) -> bool {
        let Some(address) = self.neighbour(from) else { return false };
        let Some(neighbour) = self.neighbours.get_mut(&address) else { return false };
        if !neighbour.first_takes || neighbour.answered_until.is_none_or(|until| until <= now) {
            return false;
        }
        neighbour.round = None;
        neighbour.unanswered = neighbour.unanswered.saturating_sub(1);
        neighbour.differs = true;
        let due = neighbour.earliest(now);
        neighbour.due = Some(due);
        self.wake_at(&address, due);
        true
    }

    /// A DeltaCrdt holds writes that were replaced or removed here, and the numbers of a comparison do not say so: they have
    /// gaps. Whoever has seen these writes is told of each of them; nothing says which of the neighbours has sent this. Who may lack
    /// what has replaced a write is told of that first: a key that is gone for a moment is a process that does not hear that it has
    /// lost its name.
    pub(super) fn tell_removed(&mut self, now: Mono, delta: &Delta) {
        let context = self.map.context();
        let mut removed: Vec<Removed<'_>> = Vec::new();
        for (key, elements) in &delta.entries {
            let here = self.map.elements(key);
            let held = |dot: &Dot| here.iter().any(|element| element.dots.contains(dot));
            let shown: Vec<Dot> = elements.iter().flat_map(|element| &*element.dots).copied().collect();
            let there = here.iter().flat_map(|element| &*element.dots).copied();
            let instead: Vec<Dot> = there.filter(|dot| !shown.contains(dot)).collect();
            let gone = shown
                .iter()
                .copied()
                .filter(|dot| dot.number > context.upto(dot.replica) && context.contains(*dot) && !held(dot));
            removed.extend(gone.map(|dot| Removed { key, dot, instead: instead.clone() }));
        }
        if removed.is_empty() {
            return;
        }
        let (mut messages, mut lacking) = (Vec::new(), Vec::new());
        for (address, neighbour) in self.neighbours.iter().filter(|(_, n)| n.monitor.is_some()) {
            // What is written here is pushed in its order.
            let pushed = |dot: &Dot| neighbour.synced && dot.replica == self.config.replica;
            let has = |dot: &Dot| neighbour.has_seen(*dot) || pushed(dot);
            let (told, later): (Vec<_>, Vec<_>) = removed
                .iter()
                .filter(|removed| neighbour.has_seen(removed.dot))
                .partition(|removed| removed.instead.iter().all(has));
            if !later.is_empty() {
                lacking.push(address.clone());
            }
            if let Some(pid) = neighbour.pid.clone().filter(|_| !told.is_empty()) {
                let shape = self.shape_of(&pid.node);
                let dots: Vec<Dot> = told.iter().map(|removed| removed.dot).collect();
                let keys: BTreeSet<&Key> = told.iter().map(|removed| removed.key).collect();
                let entries = keys.into_iter().map(|key| (key, &[][..]));
                messages.push((pid, wire::delta(wire::dots_term(&dots, shape), entries, shape, None)));
            }
        }
        for address in lacking {
            self.must(now, &address, Duration::ZERO);
        }
        for (pid, message) in messages {
            self.send(Address::Pid(pid), message);
        }
        // Whoever has not seen them can be told of them only with all before them.
        self.close_gaps(now);
    }

    /// Counts as seen what is missing of replicas that have nothing more to say: one that died in the middle of telling, and whose
    /// latest state nobody was equal to. Without, its writes could never be removed from a DeltaCrdt that has got them from
    /// somebody since, and their dots would be kept one by one.
    fn close_gaps(&mut self, now: Mono) {
        if self.mutant.is(Mutant::WaitForEver) || self.neighbours.values().any(|n| n.monitor.is_none()) {
            return;
        }
        let gaps = self.map.context().gaps();
        self.gaps.retain(|replica, _| gaps.contains_key(replica));
        let mut closed = BTreeMap::new();
        for (replica, gap) in gaps {
            let (known, since) = self.gaps.entry(replica).or_insert((gap, now));
            if *known != gap {
                (*known, *since) = (gap, now);
            } else if now >= *since + SETTLED {
                closed.insert(replica, gap.latest);
            }
        }
        if closed.is_empty() {
            return;
        }
        self.adopt(&closed);
        let differ = self.neighbours.iter().filter(|(_, n)| n.equal_at != Some(self.version));
        let differ: Vec<Address> = differ.map(|(address, _)| address.clone()).collect();
        for address in differ {
            self.must(now, &address, Duration::ZERO);
        }
    }

    /// A comparison that this member has started found a difference.
    pub(super) fn differs(&mut self, from: &Address) {
        let Some(address) = self.neighbour(from) else { return };
        if let Some(round) = self.neighbours.get_mut(&address).and_then(|n| n.round.as_mut()) {
            round.differed = true;
        }
    }

    /// The only neighbour on a node holds the same as this member.
    pub(super) fn is_equal(&mut self, node: &Atom) {
        let version = self.version;
        if let Some(neighbour) = self.only(node).and_then(|address| self.neighbours.get_mut(&address)) {
            neighbour.equal_at = Some(version);
        }
    }

    /// A comparison that this member has started is over.
    pub(super) fn acknowledged(&mut self, now: Mono, from: &Address) {
        let own = self.own;
        let address = self.neighbour(from);
        let Some((address, neighbour)) =
            address.and_then(|a| Some((a.clone(), self.neighbours.get_mut(&a)?)))
        else {
            if let Some(unanswered) = self.former.get_mut(from) {
                *unanswered = unanswered.saturating_sub(1);
            }
            return;
        };
        neighbour.unanswered = neighbour.unanswered.saturating_sub(1);
        if neighbour.unanswered > 0 {
            return;
        }
        let Some(round) = neighbour.round.take() else { return };
        neighbour.told = neighbour.told.max(round.own);
        neighbour.pause = RETRY_MIN;
        neighbour.due = round.again.then(|| neighbour.earliest(now));
        let due = neighbour.due;
        if !round.differed {
            neighbour.equal_at = Some(round.version);
        }
        if let (false, Some(pid)) = (neighbour.synced, neighbour.pid.clone()) {
            neighbour.synced = true;
            neighbour.told = own;
            if round.own < own {
                // What was written since it began was not pushed, and must come before anything that is.
                self.catch_up(pid, round.own);
                self.must(now, &address, MIN_GAP);
            }
        }
        if let Some(at) = due {
            self.wake_at(&address, at);
        }
        self.due(now);
    }

    /// Sends all own writes after a number.
    fn catch_up(&mut self, to: Pid, after: i64) {
        let replica = self.config.replica;
        let newer = |dot: &Dot| dot.replica == replica && dot.number > after;
        // Not what others have written to the same keys: a DeltaCrdt that replaces it takes all before it for seen.
        let own = |elements: &[Element]| -> Vec<Element> {
            elements.iter().filter(|element| element.dots.iter().any(newer)).cloned().collect()
        };
        let written = self.map.entries().map(|entry| (entry.key(), own(entry.elements())));
        let written: Vec<(&Key, Vec<Element>)> =
            written.filter(|(_, elements)| !elements.is_empty()).collect();
        let entries = written.iter().map(|(key, elements)| (*key, elements.as_slice()));
        let shape = self.shape_of(&to.node);
        let dots = if self.own - after <= MAX_NAMED {
            // Each by its name, so that a member of this kind has no gap where a write was replaced meanwhile.
            let dots: Vec<Dot> = (after + 1..=self.own).map(|number| Dot { replica, number }).collect();
            wire::dots_term(&dots, shape)
        } else {
            wire::numbers_term(&BTreeMap::from([(replica, self.own)]))
        };
        let message = wire::delta(dots, entries, shape, None);
        self.stats.pushed += 1;
        self.send(Address::Pid(to), message);
    }

    fn wake_at(&mut self, address: &Address, at: Mono) {
        if let Some(neighbour) = self.neighbours.get_mut(address) {
            wake(&mut self.wakes, address, neighbour, at);
        }
    }

    /// Starts what is due.
    pub(super) fn due(&mut self, now: Mono) {
        let is_due = |at: Option<Mono>| at.is_some_and(|at| at <= now);
        let mut awake = BTreeSet::new();
        while let Some((at, _)) = self.wakes.first()
            && *at <= now
            && let Some((_, address)) = self.wakes.pop_first()
        {
            if let Some(neighbour) = self.neighbours.get_mut(&address) {
                neighbour.wake = None;
                awake.insert(address);
            }
        }
        let those = |time: fn(&Neighbour) -> Option<Mono>| -> Vec<Address> {
            let due = |address: &&Address| self.neighbours.get(*address).is_some_and(|n| is_due(time(n)));
            awake.iter().filter(due).cloned().collect()
        };
        let (lost, mut starts, silent) =
            (those(|n| n.retry_at), those(|n| n.due), those(Neighbour::silent_at));
        for address in lost {
            self.monitor(now, &address);
            starts.push(address);
        }
        for address in starts {
            self.originate(now, &address);
        }
        for address in silent {
            if let Some(neighbour) = self.neighbours.get_mut(&address) {
                neighbour.heard = Some(now);
            }
            self.originate(now, &address);
        }
        for address in &awake {
            let Some(neighbour) = self.neighbours.get_mut(address) else { continue };
            let times = [neighbour.retry_at, neighbour.due, neighbour.silent_at()];
            if let Some(next) = times.into_iter().flatten().filter(|at| *at > now).min() {
                wake(&mut self.wakes, address, neighbour, next);
            }
        }
        if is_due(self.beat) {
            self.beat(now);
        }
    }

    fn beat(&mut self, now: Mono) {
        if self.neighbours.is_empty() || self.mutant.is(Mutant::NoBeat) {
            self.beat = None;
            return;
        }
        // What was written while nobody was in reach is hashed now, so that whoever comes does not wait for it.
        for tree in self.trees.values_mut() {
            tree.root_hash();
        }
        let idle = |n: &Neighbour| n.monitor.is_some() && n.round.is_none();
        let mut chosen: Vec<Address> = Vec::new();
        if self.heat > 0 {
            // At distances of 1, 2, 4, … from this member in the order of addresses: if each that learns of a change does so,
            // all learn of it within as many steps.
            let all: Vec<&Address> = self.neighbours.keys().collect();
            let here = all.iter().filter(|address| address.node() < &self.me.node).count();
            for _ in 0..FAN_OUT.min(self.heat) {
                let at = (here + (1 << self.stride) - 1) % all.len();
                self.stride = (self.stride + 1) % strides(all.len());
                let differs = |n: &Neighbour| idle(n) && n.equal_at != Some(self.version) && !n.compares(now);
                let address =
                    all.get(at).filter(|address| self.neighbours.get(*address).is_some_and(differs));
                chosen.extend(address.map(|address| Address::clone(address)));
            }
            self.heat = self.heat.saturating_sub(FAN_OUT);
        } else {
            let turn = |address: &Address| self.cursor.as_ref().is_none_or(|cursor| address > cursor);
            let (after, before): (Vec<_>, Vec<_>) = self
                .neighbours
                .iter()
                .filter(|(_, n)| idle(n))
                .map(|(address, _)| address)
                .partition(|a| turn(a));
            chosen.extend(after.into_iter().chain(before).take(FAN_OUT).cloned());
            self.cursor = chosen.last().cloned().or(self.cursor.take());
        }
        chosen.dedup();
        let hurries = self.heat > 0 || self.mutant.is(Mutant::NeverIdle);
        let pause = if hurries { self.config.interval } else { self.config.idle_interval };
        self.beat = Some(now + pause);
        for address in chosen {
            self.originate(now, &address);
        }
        self.close_gaps(now);
    }

    /// How many comparisons a change makes due.
    pub(super) fn heat_of_a_change(&self) -> usize {
        strides(self.neighbours.len()) as usize
    }

    /// Starts a comparison with a neighbour.
    fn originate(&mut self, now: Mono, address: &Address) {
        let (own, version) = (self.own, self.version);
        let shape = self.shape_of(address.node());
        let Some(neighbour) = self.neighbours.get_mut(address).filter(|n| n.monitor.is_some()) else {
            return;
        };
        let levels = if std::mem::take(&mut neighbour.differs) { LEVELS } else { PROBE_LEVELS };
        neighbour.unanswered += 1;
        neighbour.last_round = Some(now);
        let unchanged = neighbour.last_version.replace(version) == Some(version);
        neighbour.gap = if unchanged { (neighbour.gap * 2).min(MAX_GAP) } else { MIN_GAP };
        let timeout = (ROUND_TIMEOUT + TIMEOUT_OF_A_KEY * u32::try_from(self.map.len()).unwrap_or(u32::MAX))
            .saturating_mul(1 << (neighbour.unanswered - 1).min(4))
            .min(MAX_ROUND_TIMEOUT);
        neighbour.due = Some(now + timeout);
        wake(&mut self.wakes, address, neighbour, now + timeout);
        neighbour.round = Some(match neighbour.round.take() {
            // The answer to the earlier one may still come, so what this one proves is what that one would have.
            Some(round) => Round { differed: true, again: false, ..round },
            None => Round { own, version, differed: false, again: false },
        });
        self.stats.rounds += 1;
        let tree = self.tree(shape).subtree(Location::ROOT, levels);
        let diff = Diff {
            keys: Vec::new(),
            dots: self.map.context().compact().collect(),
            originator: self.me.clone(),
            from: Address::Pid(self.me.clone()),
            to: address.clone(),
            exact: true,
        };
        self.send(address.clone(), wire::diff(&diff, &[(Location::ROOT, tree)], shape));
    }
}

/// Something of a neighbour is due at `at`.
fn wake(wakes: &mut BTreeSet<(Mono, Address)>, address: &Address, neighbour: &mut Neighbour, at: Mono) {
    if neighbour.wake.is_some_and(|earlier| earlier <= at) {
        return;
    }
    if let Some(later) = neighbour.wake.replace(at) {
        wakes.remove(&(later, address.clone()));
    }
    wakes.insert((at, address.clone()));
}

/// How many distances of 1, 2, 4, … there are among so many neighbours.
fn strides(neighbours: usize) -> u32 {
    neighbours.checked_ilog2().unwrap_or(0) + 1
}
