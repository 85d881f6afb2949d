//! A DeltaCrdt (0.6, as Horde runs it) for the simulation: what `DeltaCrdt.CausalCrdt` does with each message, without the remedies
//! of [`CausalCrdt`](super::CausalCrdt).
//!
//! * At each beat it monitors the neighbours that it does not, and starts a comparison with each that is there, whether or not the
//!   one before is over: eight levels of its tree, and one number for each replica. Nothing is pushed.
//! * What differs goes on with the next eight levels, from either side. Keys that differ come from the originator of the
//!   comparison, as they are then, with the numbers of its beginning. They go to a name, whoever has it by then.
//! * A number says that all up to it has been seen; a set of dots is taken in as its greatest numbers.
//!
//! The last two make DeltaCrdts lose writes among themselves: one gets an element beyond the numbers that come with it, replaces or
//! removes it, and so claims to have seen all before it; or it is started again and is given the answer to its predecessor. What it
//! claims so is noted, and whether a member of our kind made it do so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, Tape, Term};

use super::super::{Action, Event, MONOTONIC_START, MonitorId};
use crate::registry::wire::{self, Address, Diff, Message};
use crate::registry::{
    Change, Delta, Dot, Element, Entry, Few, LEVELS, Location, MapSetShape, MerkleMap, Subtree,
};
use crate::{Key, Machine};

const BEAT: Duration = Duration::from_millis(300);

pub(in crate::registry) struct DeltaCrdt {
    me: Pid,
    replica: i64,
    numbers: BTreeMap<i64, i64>,
    entries: BTreeMap<Key, Vec<Element>>,
    tree: MerkleMap,
    neighbours: Vec<Address>,
    monitors: BTreeMap<Address, MonitorId>,
    next_monitor: u64,
    beat: Mono,
    timestamp: i64,
    actions: VecDeque<Action>,
    /// The nodes that it has answered in a comparison of theirs, with the numbers of each.
    asked: BTreeMap<Atom, BTreeSet<BTreeMap<i64, i64>>>,
    claimed: BTreeSet<Dot>,
    misled: BTreeSet<Dot>,
}

impl DeltaCrdt {
    pub(in crate::registry) fn new(me: Pid, replica: i64) -> Self {
        Self {
            me,
            replica,
            numbers: BTreeMap::new(),
            entries: BTreeMap::new(),
            tree: MerkleMap::new(MapSetShape::Plain),
            neighbours: Vec::new(),
            monitors: BTreeMap::new(),
            next_monitor: 0,
            beat: Mono::ZERO,
            timestamp: i64::MIN,
            actions: VecDeque::new(),
            asked: BTreeMap::new(),
            claimed: BTreeSet::new(),
            misled: BTreeSet::new(),
        }
    }

    pub(in crate::registry) fn elements(&self, key: &Key) -> &[Element] {
        self.entries.get(key).map_or(&[], Vec::as_slice)
    }

    pub(in crate::registry) fn values(&self) -> BTreeMap<Key, Term> {
        let values = self.entries.iter();
        values.filter_map(|(key, elements)| Some((key.clone(), value(elements)?))).collect()
    }

    /// The dot of the next write here.
    pub(in crate::registry) fn next(&self) -> Dot {
        let number = self.numbers.get(&self.replica).copied().unwrap_or(0) + 1;
        Dot { replica: self.replica, number }
    }

    pub(in crate::registry) fn root_hash(&mut self) -> Option<u32> {
        self.tree.root_hash()
    }

    /// What it has claimed to have seen and had not, and did not hold.
    pub(in crate::registry) fn claimed(&self) -> &BTreeSet<Dot> {
        &self.claimed
    }

    /// What a member of our kind made it claim so, now or when it replaces what it was told.
    pub(in crate::registry) fn misled(&self) -> &BTreeSet<Dot> {
        &self.misled
    }

    fn send(&mut self, to: Address, message: Term) {
        self.actions.push_back(Action::Send { to: vec![to], message });
    }

    fn compare_with_all(&mut self) {
        for target in self.neighbours.clone() {
            if !self.monitors.contains_key(&target) {
                let monitor = MonitorId(self.next_monitor);
                self.next_monitor += 1;
                self.monitors.insert(target.clone(), monitor);
                self.actions.push_back(Action::Monitor { monitor, target });
            }
        }
        let tree = self.tree.subtree(Location::ROOT, LEVELS);
        for to in self.monitors.keys().cloned().collect::<Vec<_>>() {
            let diff = Diff {
                keys: Vec::new(),
                dots: self.numbers.clone(),
                originator: self.me.clone(),
                from: Address::Pid(self.me.clone()),
                to: to.clone(),
                exact: false,
            };
            self.send(to, wire::diff(&diff, &[(Location::ROOT, tree.clone())], MapSetShape::Plain));
        }
    }

    fn message(&mut self, message: Message<'_>) {
        match message {
            Message::Diff(diff, trees) => self.go_on(diff, &trees),
            Message::GetDiff { dots, from, keys } => self.tell(from, &dots, &keys),
            Message::Delta(_) => panic!("read as a whole"),
            Message::AckDiff(_) => {}
            other => panic!("{other:?}"),
        }
    }

    /// One step of a comparison.
    fn go_on(&mut self, diff: Diff, trees: &[(Location, Subtree)]) {
        let (from, to) = (diff.to.clone(), diff.from.clone());
        let mut found = Found { keys: diff.keys.clone(), places: Vec::new() };
        for (at, theirs) in trees {
            found.compare(&self.tree.subtree(*at, LEVELS).keys(), theirs, at.depth());
        }
        let mine = diff.originator == self.me;
        if !mine {
            self.asked.entry(diff.originator.node.clone()).or_default().insert(diff.dots.clone());
        }
        if !found.places.is_empty() {
            let trees: Vec<_> = found.places.iter().map(|at| (*at, self.tree.subtree(*at, LEVELS))).collect();
            let next = Diff { keys: found.keys, from, to: to.clone(), ..diff };
            return self.send(to, wire::diff(&next, &trees, MapSetShape::Plain));
        }
        if mine {
            if !found.keys.is_empty() {
                self.tell(to, &diff.dots, &found.keys);
            }
            return;
        }
        let originator = Address::Pid(diff.originator.clone());
        if !found.keys.is_empty() {
            let next = Diff { keys: Vec::new(), from: from.clone(), to: to.clone(), ..diff };
            self.send(to, wire::get_diff(&next, found.keys));
        }
        self.send(originator, wire::ack_diff(&from));
    }

    /// Sends what is here of some keys, with the numbers from when the comparison began.
    fn tell(&mut self, to: Address, dots: &BTreeMap<i64, i64>, keys: &[Key]) {
        let keys: BTreeSet<&Key> = keys.iter().collect();
        let entries = keys.into_iter().map(|key| (key, self.elements(key)));
        let message = wire::delta(wire::numbers_term(dots), entries, MapSetShape::Plain, None);
        self.send(to, message);
    }

    /// Takes in the state of some keys. A member of our kind says in `beyond` what it has seen behind a gap, or names single dots.
    fn join(&mut self, delta: Delta, beyond: Option<&[Dot]>) {
        let ours = beyond.is_some() || delta.exact;
        let dots: BTreeSet<Dot> = delta.context.beyond().collect();
        let upto: BTreeMap<i64, i64> = delta.context.compact().collect();
        let theirs = |dot: &Dot| dots.contains(dot) || seen(&upto, dot);
        let named: Vec<Dot> =
            delta.entries.values().flatten().flat_map(|element| &element.dots).copied().collect();
        for (key, elements) in delta.entries {
            let joined = join(self.elements(&key), &elements, |dot| seen(&self.numbers, dot), theirs);
            self.set(key, joined);
        }
        // A set has no gaps if it names what comes next here; a comparison says all that its numbers claim.
        for dot in &dots {
            let unseen = self.claim(*dot);
            if ours {
                self.misled.extend(unseen);
            }
        }
        for (replica, number) in upto {
            let known = self.numbers.entry(replica).or_default();
            *known = number.max(*known);
        }
        let gap = |dot: &&Dot| !seen(&self.numbers, dot) && !beyond.is_some_and(|all| all.contains(dot));
        for dot in named.iter().filter(|_| ours).filter(gap) {
            self.misled.extend(self.unseen_before(*dot));
        }
    }

    /// What is here of a key counts as seen before it is replaced or removed: both are deltas that name its dots.
    fn take_away(&mut self, key: &Key) {
        let dots = self.elements(key).iter().flat_map(|element| element.dots.iter().copied());
        for dot in dots.collect::<BTreeSet<_>>() {
            self.claim(dot);
        }
    }

    /// Counts a dot as seen, and with it all before it. Gives what that says too much.
    fn claim(&mut self, dot: Dot) -> Vec<Dot> {
        let unseen = self.unseen_before(dot);
        self.claimed.extend(&unseen);
        let known = self.numbers.entry(dot.replica).or_default();
        *known = dot.number.max(*known);
        unseen
    }

    /// What comes before a dot and is neither seen nor here.
    fn unseen_before(&self, dot: Dot) -> Vec<Dot> {
        let elements = self.entries.values().flatten();
        let held: BTreeSet<Dot> = elements.flat_map(|element| element.dots.iter().copied()).collect();
        let known = self.numbers.get(&dot.replica).copied().unwrap_or(0);
        let between = (known + 1..dot.number).map(|number| Dot { replica: dot.replica, number });
        between.filter(|dot| !held.contains(dot)).collect()
    }

    /// An answer came to its name from a node of which it has asked nothing: it claims what its predecessor had.
    pub(in crate::registry) fn takes_for_another(&mut self, from: &Atom, message: &Term) {
        // Ours answer a name so that anybody may take it.
        let Some((delta, None)) = super::delta_of(message) else { return };
        let numbers: BTreeMap<i64, i64> = delta.context.compact().collect();
        if delta.exact || self.asked.get(from).is_some_and(|asked| asked.contains(&numbers)) {
            return;
        }
        let named: BTreeSet<&Dot> = delta.entries.values().flatten().flat_map(|e| &e.dots).collect();
        for (replica, number) in numbers {
            let known = self.numbers.get(&replica).copied().unwrap_or(0);
            let claimed = (known + 1..=number).map(|number| Dot { replica, number });
            self.claimed.extend(claimed.filter(|dot| !named.contains(dot)));
        }
    }

    fn set(&mut self, key: Key, elements: Vec<Element>) {
        let before = value(self.elements(&key));
        let after = value(&elements);
        if elements.is_empty() {
            self.entries.remove(&key);
            self.tree.delete(&Entry::new(key.clone(), Vec::new()));
        } else {
            self.tree.put(&Arc::new(Entry::new(key.clone(), elements.clone())));
            self.entries.insert(key.clone(), elements);
        }
        let change = match after {
            _ if before == after => return,
            Some(after) => Change::Put(key, after),
            None => Change::Removed(key),
        };
        self.actions.push_back(Action::Changed(vec![change]));
    }
}

impl Machine for DeltaCrdt {
    type Event = Event;
    type Action = Action;

    fn handle(&mut self, now: Mono, event: Event) {
        match event {
            Event::Put { key, value } => {
                let dot = self.next();
                self.timestamp = (MONOTONIC_START + now.0).max(self.timestamp + 1);
                let element = Element { value, timestamp: self.timestamp, dots: Few::One(dot) };
                self.take_away(&key);
                self.numbers.insert(dot.replica, dot.number);
                self.set(key, vec![element]);
            }
            Event::Remove(key) => {
                self.take_away(&key);
                self.set(key, Vec::new());
            }
            Event::SetNeighbours(neighbours) => {
                let here = |address: &Address| *address.node() == self.me.node;
                self.neighbours = neighbours.into_iter().filter(|address| !here(address)).collect();
                let gone = self.monitors.iter().filter(|(address, _)| !self.neighbours.contains(address));
                self.actions.extend(gone.map(|(_, monitor)| Action::Demonitor(*monitor)));
                self.monitors.retain(|address, _| self.neighbours.contains(address));
                self.compare_with_all();
            }
            Event::Down(monitor) => self.monitors.retain(|_, there| *there != monitor),
            Event::Message(message) => {
                let mut tape = Tape::new();
                let view = message.view(&mut tape).unwrap();
                if let Some((delta, beyond)) = super::delta_of(&view.to_term()) {
                    return self.join(delta, beyond.as_deref());
                }
                let read = wire::read(view, &self.me.node);
                self.message(read.expect("what a member sends is of the protocol").message);
            }
            // Nothing comes of a connection before the next beat.
            Event::NodeUp(_) => {}
            other => panic!("a DeltaCrdt does not do {other:?}"),
        }
    }

    fn handle_timeout(&mut self, now: Mono) {
        if now >= self.beat {
            self.beat = now + BEAT;
            self.compare_with_all();
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Mono> {
        Some(self.beat)
    }
}

/// The value of the latest of some elements; of equal ones the first in the order of terms.
fn value(elements: &[Element]) -> Option<Term> {
    let latest = elements.iter().map(|element| element.timestamp).max()?;
    let latest = elements.iter().filter(|element| element.timestamp == latest);
    latest.map(|element| element.value.clone()).min_by(Term::cmp_exact)
}

fn seen(numbers: &BTreeMap<i64, i64>, dot: &Dot) -> bool {
    numbers.get(&dot.replica).is_some_and(|number| dot.number <= *number)
}

/// Of each value at its time: the dots that both have, and those of one side that the other has not seen.
fn join(
    ours: &[Element],
    theirs: &[Element],
    we_saw: impl Fn(&Dot) -> bool,
    they_saw: impl Fn(&Dot) -> bool,
) -> Vec<Element> {
    let mut all: Vec<Element> = Vec::new();
    for element in ours.iter().chain(theirs) {
        let same = |other: &&Element| other.timestamp == element.timestamp && other.value == element.value;
        if all.iter().any(|other| same(&other)) {
            continue;
        }
        let dots = |side: &[Element]| -> BTreeSet<Dot> {
            side.iter().filter(same).flat_map(|element| element.dots.iter().copied()).collect()
        };
        let (a, b) = (dots(ours), dots(theirs));
        let kept = a.union(&b).filter(|dot| match (a.contains(dot), b.contains(dot)) {
            (true, false) => !they_saw(dot),
            (false, true) => !we_saw(dot),
            _ => true,
        });
        all.push(Element { dots: kept.copied().collect(), ..element.clone() });
    }
    all.retain(|element| !element.dots.is_empty());
    all.sort_by(|a, b| a.timestamp.cmp(&b.timestamp).then_with(|| a.value.cmp_exact(&b.value)));
    all
}

/// What a step of a comparison has found. It does not compare as [`MerkleMap`] does: what that has wrong would be wrong here, too, and not
/// be noticed.
#[derive(Default)]
struct Found {
    keys: Vec<Key>,
    places: Vec<Location>,
}

impl Found {
    fn compare(&mut self, ours: &Subtree, theirs: &Subtree, depth: u32) {
        match (ours, theirs) {
            (Subtree::Empty, other) | (other, Subtree::Empty) => self.all(other),
            (
                Subtree::Inner { hash: a, left: al, right: ar },
                Subtree::Inner { hash: b, left: bl, right: br },
            ) => {
                if a != b {
                    self.compare(al, bl, depth + 1);
                    self.compare(ar, br, depth + 1);
                }
            }
            (_, Subtree::Partial(at)) | (Subtree::Partial(at), _) => self.places.push(*at),
            (
                Subtree::Leaf { hash: a, contents: ours, .. },
                Subtree::Leaf { hash: b, contents: theirs, .. },
            ) => {
                if a != b {
                    let lack = theirs.iter().filter(|key| !ours.contains(key));
                    self.keys.extend(ours.iter().chain(lack).cloned());
                }
            }
            (leaf @ Subtree::Leaf { key_hash, .. }, Subtree::Inner { left, right, .. })
            | (Subtree::Inner { left, right, .. }, leaf @ Subtree::Leaf { key_hash, .. }) => {
                let goes_right = key_hash.checked_shl(depth).unwrap_or(0) >> 31 == 1;
                let (with, without) = if goes_right { (right, left) } else { (left, right) };
                self.compare(with, leaf, depth + 1);
                self.all(without);
            }
        }
    }

    fn all(&mut self, tree: &Subtree) {
        match tree {
            Subtree::Empty => {}
            Subtree::Leaf { contents, .. } => self.keys.extend(contents.iter().cloned()),
            Subtree::Inner { left, right, .. } => {
                self.all(left);
                self.all(right);
            }
            Subtree::Partial(at) => self.places.push(*at),
        }
    }
}
