//! One member of a replicated map: what `DeltaCrdt.CausalCrdt` is on a BEAM.
//!
//! # Protocol (delta_crdt 0.6, as Horde 0.9 and 0.10 run it)
//!
//! | message | meaning |
//! |---|---|
//! | `{:diff, Diff}` | a part of the originator's hash tree, to compare; answered by the next levels, or by one of the next three |
//! | `{:get_diff, Diff, Keys}` | the neighbour asks the originator for keys that differ |
//! | `{:diff, %AWLWWMap{}, Keys}` | the elements of these keys; a key without elements was removed |
//! | `{:ack_diff, Neighbour}` | the comparison is over |
//! | `{:set_neighbours, [Neighbour]}` | whom to compare with: pids, or `{Name, Node}` |
//! | calls `:read`, `{:read, Keys}`, `{:operation, Op}`, `{:bulk_operation, Ops}` | what `DeltaCrdt.put/3`, `to_map/1`, … send |
//!
//! Data flows from the originator of a comparison to its neighbour; each side originates its own. A BEAM does so every
//! `sync_interval` (200 ms; Horde 300 ms), with eight levels of the tree and the leaves in full.
//!
//! # What this member does differently
//!
//! * **Push.** A write goes to all neighbours at once, as a delta that nobody asked for. DeltaCrdt keeps one number for each
//!   replica and takes it to mean "all up to here", so a push must leave no gap: it starts once a first comparison with the
//!   neighbour is over, ends with the connection, goes to the process that was compared with and not to its name, and speaks
//!   of this member's own dots, and of those of others that the neighbour has said it has seen. What replaces or removes
//!   other writes is repaired by a comparison that starts at once. Members of this kind are told exactly which dots they
//!   are, and need none.
//! * **Quiet.** Comparisons start with the root alone (`{Hash, {:partial, _}, {:partial, _}}`), run only after something
//!   changed, with a few neighbours in turn, and otherwise every [`Config::idle_interval`].
//! * **Silence.** A DeltaCrdt that compared with this member and has not for 5 s may have been told to leave it out. This member then
//!   compares with it, and says if it lacks what it had ([`Action::Missing`]).
//! * **Nothing is truncated.** DeltaCrdt's `max_sync_size` (200) sends a part of the keys with the dots of all, which loses
//!   the rest. This member answers with all keys that differ; one that is asked for [`WHOLE_FROM`] or more may see a
//!   truncated list and answers with its whole map. What others truncate costs nothing here: see [`AwLwwMap::join`].
//! * **Long absence.** Where a neighbour shows an empty part of the tree, all keys there are known to differ: the tree is not gone
//!   down with all its leaves first. What a DeltaCrdt has neither got nor seen is not asked for. One that has seen thousands of
//!   writes more is answered once, until its data come: each answer makes it send its whole tree, and it asks at each beat.
//! * **Dots.** The dots of others are adopted from whoever has the same root, and from an answer of a member of this kind,
//!   which is complete. Before, the numbers of a comparison cannot say what was replaced or removed here since the start; a
//!   DeltaCrdt that shows such writes is told of them one by one.
//! * **Pieces.** A long answer to a DeltaCrdt comes in messages of some hundred keys, in the order in which they were written, each
//!   with the numbers of what has come with it. So it is at work on the first while the others are on their way, and what reads its
//!   changes while it is at work on the next; a connection that breaks in between leaves it with what it says it has seen.
//! * **Gaps.** A DeltaCrdt that replaces a write takes all that came before it from the same replica for seen. So an answer to one
//!   leaves out nothing that this member has seen before what it names. What is missing of a replica that died in the middle of
//!   telling counts as seen after [`SETTLED`](neighbour::SETTLED) without news of it, with all neighbours there: nobody has it.
//!
//! Members of this kind know each other by a field that DeltaCrdt does not look at: `beyond`, in the `Diff` with which one
//! starts a comparison (`true`) and in the `%AWLWWMap{}` of an answer (a set of the dots that the sender has seen beyond the
//! gapless numbers in `dots`).

mod neighbour;
mod pieces;
#[cfg(test)]
pub(super) mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Map, Pid, RawTerm, Tape, Term};

use super::aw_lww_map::Told;
use super::wire::{self, Address, Diff, Message, Operation, Request};
use super::{
    AwLwwMap, Change, Context, Delta, Dot, Entry, Few, Gap, LEVELS, Location, MapSetShape, MerkleMap, Subtree,
};
use crate::message::atom;
use crate::mutant::LeftOut;
use crate::{Key, Machine};
use neighbour::Neighbour;
use pieces::pieces;

/// Where `erlang:monotonic_time/0` starts: timestamps of members are compared, so ours are on that scale.
const MONOTONIC_START: i64 = -(1 << 59);
/// How many levels the first message of a comparison carries if the maps are thought to be equal.
const PROBE_LEVELS: u32 = 1;
/// From this many keys on, a list of keys may have been truncated: half of DeltaCrdt's default `max_sync_size`, because
/// half of the places that a truncated list of places names may turn out equal.
pub const WHOLE_FROM: usize = 100;
/// Up to so many places that differ, or if the neighbour has not written more keys than that, are shown without all their leaves, which
/// would be most of what is said: one key differs there as a rule, and one step more finds which. The neighbour then lists a place or
/// two for each of them, so that hardly anything of the list is truncated.
const FEW_PLACES: usize = WHOLE_FROM;
/// How many keys are left below the levels that are shown of such a place, at the most. Of fewer, more would hang within these levels,
/// and a leaf is as long as a dozen nodes.
const KEYS_OF_A_PLACE: usize = 8;
/// Up to this many keys an answer to a process that is not known yet has all keys: 2,000, as many as are told within a beat. A DeltaCrdt
/// is known after its first beat.
const WHOLE_TO_A_NAME: usize = 2000;
/// How many neighbours are compared with at one beat, unless they are known to differ.
const FAN_OUT: usize = 4;
/// The shortest time between two comparisons that this member starts with one neighbour; doubles up to [`MAX_GAP`] while they
/// change nothing.
const MIN_GAP: Duration = Duration::from_millis(50);
/// The longest time between two comparisons with a neighbour that is known to differ.
const MAX_GAP: Duration = Duration::from_secs(10);
/// Neighbours beyond this are not taken.
const MAX_NEIGHBOURS: usize = 4096;
/// A comparison that is not over after this, and [`TIMEOUT_OF_A_KEY`] for each key, is started again; nothing is pushed meanwhile if
/// it was the first. Then after twice the time, up to [`MAX_ROUND_TIMEOUT`]: no message is lost within a connection, and who is
/// slow gets the more to do the more often it is asked.
const ROUND_TIMEOUT: Duration = Duration::from_secs(5);
/// What a BEAM takes for each key of a map of which all differ, several times over.
const TIMEOUT_OF_A_KEY: Duration = Duration::from_micros(200);
/// The longest time until a comparison is started again.
const MAX_ROUND_TIMEOUT: Duration = Duration::from_secs(60);
/// Changes of one [`Action::Changed`], at the most.
const CHANGES: usize = 1000;
/// One in so many keys is looked up in less time than it takes to pass over the whole map.
const LOOKUPS: usize = 8;
/// Contexts of more replicas than this are not adopted. Each start of a member adds one.
const MAX_REPLICAS: usize = 100_000;
/// Nodes of which the shape of sets is remembered.
const MAX_SHAPES: usize = 4096;

/// A monitor that the machine asked for. Numbers are never reused.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MonitorId(pub u64);

/// How a member behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The number of this incarnation: drawn anew at each start, from 1 to 10⁹ as DeltaCrdt does.
    pub replica: i64,
    /// Time between two beats while something has changed: 300 ms, as Horde.
    pub interval: Duration,
    /// Time between two beats while nothing has changed: 30 s. It only matters for what no message tells of.
    pub idle_interval: Duration,
    /// Keys of one message in a long answer to a DeltaCrdt: 500. Fewer make more messages, more let it wait for the first of them, and
    /// what reads its changes, such as Horde, for the whole.
    pub piece: usize,
    /// Keys beyond this are not taken in: 1,048,576 (about 1 GB). They are counted in [`Stats::refused`].
    pub max_keys: usize,
}

impl Config {
    /// The defaults for an incarnation.
    pub fn new(replica: i64) -> Self {
        Self {
            replica,
            interval: Duration::from_millis(300),
            idle_interval: Duration::from_secs(30),
            piece: 500,
            max_keys: 1 << 20,
        }
    }
}

/// What happens to a member.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A key gets a value.
    Put {
        /// The key.
        key: Key,
        /// The value.
        value: Term,
    },
    /// A key is removed.
    Remove(Key),
    /// A value is removed from a key, with those that lost to it; one that has won over it stays.
    RemoveValue {
        /// The key.
        key: Key,
        /// The value.
        value: Term,
    },
    /// These are the neighbours from now on.
    SetNeighbours(Vec<Address>),
    /// A connection to a node came up.
    NodeUp(Atom),
    /// A message arrived.
    Message(RawTerm),
    /// A monitor fired.
    Down(MonitorId),
    /// Everything is forgotten, the dots too: the map starts again, empty, as another incarnation with the same neighbours.
    Forget {
        /// The number of the new incarnation, drawn as [`Config::replica`].
        replica: i64,
    },
}

/// What the host of a member has to do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// Send a message. To a neighbour that has a monitor it must not go over a later connection than the monitor's.
    Send {
        /// The receivers; several get the same bytes.
        to: Vec<Address>,
        /// The message.
        message: Term,
    },
    /// Answer a `GenServer.call/3`.
    Reply {
        /// The caller, `{Pid, Tag}`.
        from: Term,
        /// The answer.
        reply: Term,
    },
    /// Monitor a neighbour. If its node is not connected the host connects, or lets the monitor fire.
    Monitor {
        /// How the machine will recognise it.
        monitor: MonitorId,
        /// What to monitor.
        target: Address,
    },
    /// Give a monitor up; it must not fire any more.
    Demonitor(MonitorId),
    /// Values changed, by a write here or elsewhere.
    Changed(Vec<Change>),
    /// A neighbour lacks these keys, which were written here and which it has had: it has removed or replaced them. What it holds
    /// now is unknown if it does not compare with this member any more.
    Missing(Vec<Key>),
    /// The map holds what others wrote, and no neighbour that compares with this member is left, but for members of this kind.
    Alone,
}

/// What a member has counted since it started.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages that could not be understood.
    pub ignored: u64,
    /// Keys that were not taken in because the map was full.
    pub refused: u64,
    /// Comparisons that this member started.
    pub rounds: u64,
    /// Deltas that it pushed, counted once for each neighbour.
    pub pushed: u64,
    /// Deltas that it took in.
    pub joined: u64,
}

/// What is to be done. Messages and changes are made when they are taken: all at once they would take several times as much memory as
/// the map.
#[derive(Debug)]
enum Pending {
    Ready(Action),
    /// The state of some keys, for a neighbour.
    Tell {
        to: Address,
        numbers: BTreeMap<i64, i64>,
        entries: Vec<Arc<Entry>>,
        shape: MapSetShape,
        /// What has been seen, if nothing else differs.
        complete: Option<Context>,
    },
    Changed(VecDeque<Told>),
}

/// A member of a replicated map; see the [module documentation](self).
#[derive(Debug)]
pub struct CausalCrdt {
    me: Pid,
    config: Config,
    map: AwLwwMap,
    /// The hash tree for each shape in use: nearly always one.
    trees: BTreeMap<MapSetShape, MerkleMap>,
    shapes: BTreeMap<Atom, MapSetShape>,
    default_shape: MapSetShape,
    /// Raised by each change of the elements.
    version: u64,
    /// The number of this member's latest dot.
    own: i64,
    /// Whether it has forgotten what it knew: answers to questions from before may still come.
    forgot: bool,
    last_timestamp: i64,
    neighbours: BTreeMap<Address, Neighbour>,
    by_node: BTreeMap<Atom, BTreeSet<Address>>,
    /// When which neighbour is looked at: each at most once here, not later than anything of it is due.
    wakes: BTreeSet<(Mono, Address)>,
    /// Replicas of which something is missing: what there is, and since when nothing has been added to it.
    gaps: BTreeMap<i64, (Gap, Mono)>,
    /// Comparisons with former neighbours that may still be acknowledged.
    former: BTreeMap<Address, u32>,
    monitors: BTreeMap<MonitorId, Address>,
    next_monitor: u64,
    beat: Option<Mono>,
    /// How many comparisons are still to be made because of the latest change.
    heat: usize,
    /// The logarithm of the distance of the next of them.
    stride: u32,
    /// Whom the latest beat without a change ended with.
    cursor: Option<Address>,
    actions: VecDeque<Pending>,
    stats: Stats,
    mutant: LeftOut<Mutant>,
}

/// A rule that is left out on purpose, to see that the simulation notices.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mutant {
    /// The dots of others are adopted from whoever starts a comparison, whether or not the trees are equal.
    AdoptFromAll,
    /// The dots of others are never adopted.
    NeverAdopt,
    /// The context of an answer is taken for that of its keys alone.
    ClaimAll,
    /// What the sender of an answer has seen and does not have stays.
    IgnoreSeen,
    /// Of a key of which a later write is here nothing is taken in.
    LatestOnly,
    /// Of the keys that differ only the first five are sent, with the dots of all.
    Truncate,
    /// What others wrote does not go into the hash trees.
    StaleTree,
    /// What a join has removed is not told.
    KeepQuiet,
    /// A neighbour that is lost is not looked for until its node comes back.
    NoRetry,
    /// There is no timed comparison.
    NoBeat,
    /// The time between two comparisons is that after a change, always.
    NeverIdle,
    /// A push names the dots of others to a DeltaCrdt that has not said it has seen them.
    NameUnseen,
    /// An answer to a DeltaCrdt has the numbers of the comparison's beginning, whatever its elements are.
    OldNumbers,
    /// Each piece of an answer has the numbers of the whole.
    WholeNumbers,
    /// What is missing of a replica is waited for without end.
    WaitForEver,
}

impl CausalCrdt {
    /// An empty map whose process on this node is `me`.
    pub fn new(me: Pid, config: Config) -> Self {
        Self {
            me,
            config,
            map: AwLwwMap::default(),
            trees: BTreeMap::from([(MapSetShape::default(), MerkleMap::default())]),
            shapes: BTreeMap::new(),
            default_shape: MapSetShape::default(),
            version: 0,
            own: 0,
            forgot: false,
            last_timestamp: i64::MIN,
            neighbours: BTreeMap::new(),
            by_node: BTreeMap::new(),
            wakes: BTreeSet::new(),
            gaps: BTreeMap::new(),
            former: BTreeMap::new(),
            monitors: BTreeMap::new(),
            next_monitor: 0,
            beat: None,
            heat: 0,
            stride: 0,
            cursor: None,
            actions: VecDeque::new(),
            stats: Stats::default(),
            mutant: LeftOut::default(),
        }
    }

    /// The map.
    pub fn map(&self) -> &AwLwwMap {
        &self.map
    }

    /// Whether a key that is not there could be taken in.
    pub fn is_full(&self) -> bool {
        self.map.len() >= self.config.max_keys
    }

    /// The neighbours, and whether they are reached and compared with: what is written now is pushed to them.
    pub fn neighbours(&self) -> impl Iterator<Item = (&Address, bool)> {
        self.neighbours.iter().map(|(address, neighbour)| (address, neighbour.synced))
    }

    /// The neighbours that are reached and known to hold the same as this member does now, or did after its latest change.
    pub fn equal(&self) -> impl Iterator<Item = &Address> {
        let equal = |n: &Neighbour| n.monitor.is_some() && n.equal_at == Some(self.version);
        self.neighbours.iter().filter(move |(_, n)| equal(n)).map(|(address, _)| address)
    }

    /// Whether all neighbours that are reached are known to hold what this member holds.
    pub fn is_settled(&self) -> bool {
        self.neighbours.values().all(|n| n.monitor.is_none() || n.equal_at == Some(self.version))
    }

    /// What was counted.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The root hash, as peers with sets of this shape have it; `None` for the empty map.
    pub fn root_hash(&mut self, shape: MapSetShape) -> Option<u32> {
        self.tree(shape).root_hash()
    }

    fn put(&mut self, now: Mono, key: Key, value: Term) -> bool {
        if self.is_full() && self.map.elements(&key).is_empty() {
            self.stats.refused += 1;
            return false;
        }
        let timestamp = MONOTONIC_START.saturating_add(now.0).max(self.last_timestamp.saturating_add(1));
        self.last_timestamp = timestamp;
        // Of what it replaces, too: whoever still holds both reads the later one, and clocks begin anew with each start.
        let replaced = self.map.elements(&key).iter().map(|element| element.timestamp).max();
        let timestamp = replaced.map_or(timestamp, |replaced| timestamp.max(replaced.saturating_add(1)));
        let before = self.map.entry(&key).cloned();
        let (entry, context) = self.map.write(key, value, self.config.replica, timestamp);
        self.own += 1;
        self.written(now, &entry, &context);
        self.changed(Told::of(before, Some(&entry)));
        true
    }

    fn remove(&mut self, now: Mono, key: &Key) {
        if let Some((before, context)) = self.map.take_away(key) {
            self.written(now, &Entry::new(key.clone(), Few::default()).into(), &context);
            self.changed([Told::Removed(before)]);
        }
    }

    fn remove_value(&mut self, now: Mono, key: Key, value: &Term) {
        let elements = self.map.elements(&key);
        let Some(at) = elements.iter().filter(|e| e.value == *value).map(|e| e.timestamp).max() else {
            return;
        };
        let wins = |element: &super::Element| {
            element.timestamp > at || element.timestamp == at && element.value.cmp_exact(value).is_lt()
        };
        let (winners, gone): (Vec<_>, Vec<_>) = elements.iter().cloned().partition(wins);
        if winners.is_empty() {
            return self.remove(now, &key);
        }
        let mut context = Context::default();
        gone.iter().flat_map(|element| &*element.dots).for_each(|dot| context.insert(*dot));
        self.join(now, Delta { context, exact: false, entries: BTreeMap::from([(key, winners)]) });
        // Not pushed: it would name what others have written, and a DeltaCrdt may lack more of theirs.
        for address in self.neighbours.keys().cloned().collect::<Vec<_>>() {
            self.must(now, &address, Duration::ZERO);
        }
    }

    fn changed(&mut self, changes: impl IntoIterator<Item = Told>) {
        let changes: VecDeque<Told> = changes.into_iter().collect();
        if !changes.is_empty() {
            self.actions.push_back(Pending::Changed(changes));
        }
    }

    fn act(&mut self, action: Action) {
        self.actions.push_back(Pending::Ready(action));
    }

    /// Tells the neighbours of a write: `entry` is what there is of the key now, `context` what the write has seen of it, and its own
    /// dot.
    fn written(&mut self, now: Mono, entry: &Arc<Entry>, context: &Context) {
        self.touch(now, entry, !entry.elements().is_empty());
        let all = context
            .compact()
            .flat_map(|(replica, upto)| (1..=upto).map(move |number| Dot { replica, number }));
        let (own, others): (Vec<Dot>, Vec<Dot>) =
            all.chain(context.beyond()).partition(|dot| dot.replica == self.config.replica);
        let mut groups: BTreeMap<(MapSetShape, bool), Vec<Address>> = BTreeMap::new();
        let mut lacking = Vec::new();
        for (address, neighbour) in &self.neighbours {
            // DeltaCrdt would take the dots of others for all that came before them, unless it has seen these anyway.
            let exact = neighbour.exact
                || others.iter().all(|dot| neighbour.has_seen(*dot))
                || self.mutant.is(Mutant::NameUnseen);
            match &neighbour.pid {
                Some(pid) if neighbour.synced => {
                    let group = groups.entry((self.shape_of(address.node()), exact)).or_default();
                    group.push(Address::Pid(pid.clone()));
                    lacking.extend((!exact).then(|| address.clone()));
                }
                _ if others.is_empty() => {}
                _ => lacking.push(address.clone()),
            }
        }
        for neighbour in self.neighbours.values_mut().filter(|neighbour| neighbour.synced) {
            neighbour.told = self.own;
        }
        for ((shape, exact), to) in groups {
            let dots: Vec<Dot> = own.iter().chain(others.iter().filter(|_| exact)).copied().collect();
            if !dots.is_empty() {
                let told = [(entry.key(), entry.elements())];
                let message = wire::delta(wire::dots_term(&dots, shape), told, shape, None);
                self.stats.pushed += to.len() as u64;
                self.act(Action::Send { to, message });
            }
        }
        for address in lacking {
            self.must(now, &address, Duration::ZERO);
        }
    }

    /// The elements of a key have changed: this is what is there now, or was there.
    fn touch(&mut self, now: Mono, entry: &Arc<Entry>, there: bool) {
        for tree in self.trees.values_mut() {
            if there {
                tree.put(entry);
            } else {
                tree.delete(entry);
            }
        }
        self.version += 1;
        self.heat = self.heat_of_a_change();
        let soon = now + self.config.interval;
        self.beat = Some(self.beat.map_or(soon, |beat| beat.min(soon)));
    }

    fn shape_of(&self, node: &Atom) -> MapSetShape {
        self.shapes.get(node).copied().unwrap_or(self.default_shape)
    }

    fn learn(&mut self, node: &Atom, shape: MapSetShape) {
        if self.shapes.get(node) == Some(&shape) {
            return;
        }
        let cleared = self.shapes.len() >= MAX_SHAPES;
        if cleared {
            self.shapes.clear();
        }
        let before = self.shapes.insert(node.clone(), shape);
        self.default_shape = shape;
        // One more node of a shape that has a tree changes nothing.
        if cleared || before.is_some() || self.trees.len() > 1 || !self.trees.contains_key(&shape) {
            let in_use: BTreeSet<MapSetShape> = self.shapes.values().copied().collect();
            self.trees.retain(|shape, _| in_use.contains(shape));
        }
    }

    fn tree(&mut self, shape: MapSetShape) -> &mut MerkleMap {
        let map = &self.map;
        self.trees.entry(shape).or_insert_with(|| {
            let mut tree = MerkleMap::new(shape);
            map.entries().for_each(|entry| tree.put(entry));
            tree
        })
    }

    fn send(&mut self, to: Address, message: Term) {
        self.act(Action::Send { to: vec![to], message });
    }

    fn message(&mut self, now: Mono, message: &RawTerm) -> Option<()> {
        let mut tape = Tape::new();
        let wire::Read { message, shape } = wire::read(message.view(&mut tape).ok()?, &self.me.node)?;
        match message {
            Message::Diff(diff, trees) => self.compare(now, diff, trees, shape),
            Message::GetDiff { dots, from, keys } => {
                self.differs(&from);
                self.missing(now, &from, &keys);
                let to = self.process_of(from);
                self.send_delta(to, &dots, keys.into_iter().collect(), Vec::new());
            }
            Message::Delta(told) => {
                // It does not say who sent it; it is right for those of whom nothing is known yet.
                self.default_shape = shape.unwrap_or(self.default_shape);
                self.told(now, told)?;
            }
            Message::AckDiff(neighbour) => self.acknowledged(now, &neighbour),
            Message::SetNeighbours(neighbours) => self.set_neighbours(now, neighbours),
            Message::Call { from, request } => {
                let reply = self.request(now, request);
                self.act(Action::Reply { from, reply });
            }
            Message::Cast(operation) => {
                self.operate(now, operation);
            }
        }
        Some(())
    }

    /// Takes in the state of some keys. If some of it cannot be understood, what comes before stays.
    fn told(&mut self, now: Mono, mut told: wire::State<'_>) -> Option<()> {
        let exact = told.exact;
        if !exact {
            self.has_data(now);
        }
        // The numbers are those of the beginning, when all keys were compared; what is beyond them is of now, and
        // speaks of these keys alone.
        let beyond = told.beyond.take();
        let complete = beyond.is_some().then(|| told.context.compact().collect());
        beyond.into_iter().flatten().for_each(|dot| told.context.insert(dot));
        let refused = self.stats.refused;
        self.stats.joined += 1;
        // Each part takes a copy of the context: all of them together no more than the message.
        let most = self.config.piece.max(told.context.size()).max(1);
        loop {
            let (entries, last) = told.next(most)?;
            // A context that speaks of these keys alone is noted after all of them.
            let all = exact && last && self.stats.refused == refused;
            let delta = Delta { context: told.context.clone(), exact: all, entries };
            if !exact {
                self.tell_removed(now, &delta);
            }
            self.join(now, delta);
            if last {
                break;
            }
        }
        // It lacks what the question said was here. After forgetting, equal roots tell what has been seen.
        if let Some(dots) = complete
            && !self.forgot
            && self.stats.refused == refused
        {
            self.adopt(&dots);
        }
        Some(())
    }

    fn request(&mut self, now: Mono, request: Request) -> Term {
        match request {
            Request::Read(None) => {
                let pairs = self.map.iter().map(|(key, value)| (key.0.clone(), value.clone()));
                Term::Map(Map::from_pairs(pairs.collect()).unwrap_or_default())
            }
            Request::Read(Some(keys)) => {
                let keys: BTreeSet<Key> = keys.into_iter().collect();
                let pairs = keys.into_iter().filter_map(|key| Some((self.map.get(&key)?.clone(), key)));
                Term::Map(pairs.map(|(value, key)| (key.0, value)).collect())
            }
            Request::Operations(operations) => {
                let mut fits = true;
                for operation in operations {
                    fits &= self.operate(now, operation);
                }
                if fits { atom("ok") } else { Term::tuple([atom("error"), atom("system_limit")]) }
            }
        }
    }

    fn operate(&mut self, now: Mono, operation: Operation) -> bool {
        match operation {
            Operation::Add(key, value) => self.put(now, key, value),
            Operation::Remove(key) => {
                self.remove(now, &key);
                true
            }
        }
    }

    /// One step of a comparison that a peer started, or that this member started and a peer answered.
    fn compare(
        &mut self,
        now: Mono,
        mut diff: Diff,
        trees: Vec<(Location, Subtree)>,
        shape: Option<MapSetShape>,
    ) {
        let mine = diff.originator == self.me;
        let peer = if mine { diff.from.node().clone() } else { diff.originator.node.clone() };
        let first = !mine && matches!(trees.as_slice(), [(at, _)] if *at == Location::ROOT);
        // An answer follows the shape of the question; only who has asked adapts to what is answered.
        if let Some(shape) = shape.filter(|_| mine || first) {
            self.learn(&peer, shape);
        }
        if first {
            self.met(now, &diff.originator, diff.exact, &diff.dots);
        }
        // A process, not a name: what it is answered must not reach one that was started since.
        let me = Address::Pid(self.me.clone());
        let shape = self.shape_of(&peer);
        if first && self.mutant.is(Mutant::AdoptFromAll) {
            self.adopt(&diff.dots);
        }
        let tree = self.tree(shape);
        if let [(_, theirs)] = trees.as_slice()
            && first
            && root_of(theirs) == Some(tree.root_hash())
        {
            self.adopt(&diff.dots);
            self.is_equal(&peer);
            return self.send(Address::Pid(diff.originator), wire::ack_diff(&diff.to));
        }
        // One of this kind waits for each of its comparisons to be over.
        if first && !diff.exact && self.passes_over(now, &peer) || mine && self.gives_up(now, &diff.from) {
            return;
        }
        let tree = self.tree(shape);
        let mut keys: BTreeSet<Key> = diff.keys.drain(..).collect();
        let mut places = BTreeSet::new();
        let mut lacking = Vec::new();
        let mut compared = BTreeSet::new();
        for (at, theirs) in trees {
            // A place that is named twice would list all keys there twice.
            if !compared.insert(at) {
                continue;
            }
            let found = tree.compare(at, theirs);
            keys.extend(found.keys);
            lacking.extend(found.lacking);
            places.extend(found.places);
        }
        if mine {
            // Told below.
        } else if diff.exact {
            // A member of this kind may have seen more than the numbers say.
            keys.extend(lacking.drain(..));
        } else if !lacking.is_empty() {
            // What a DeltaCrdt does not have and has not seen either needs no question: it stays, and the peer is told of it in a
            // comparison that starts here, after it has said what it has.
            let seen = |dot: &Dot| diff.dots.get(&dot.replica).is_some_and(|upto| dot.number <= *upto);
            let removed =
                |elements: &[super::Element]| elements.iter().any(|element| element.dots.iter().any(seen));
            if lacking.len() < self.map.len() / LOOKUPS {
                keys.extend(lacking.drain(..).filter(|key| removed(self.map.elements(key))));
            } else {
                let all = self.map.entries().filter(|entry| removed(entry.elements()));
                let all: BTreeSet<&Key> = all.map(|entry| entry.key()).collect();
                keys.extend(lacking.drain(..).filter(|key| all.contains(key)));
            }
            self.must_node(now, &peer, MIN_GAP);
        }
        if !places.is_empty() {
            let new = self.map.context().unseen(&diff.dots);
            let few = places.len() <= FEW_PLACES || !mine && new <= places.len();
            let len = self.map.len();
            let levels = |at: Location| if few { levels_of_few(len, at) } else { LEVELS };
            let whole = places.iter().filter(|at| levels(**at) == LEVELS);
            let shown = whole.map(|at| keys_of(len, *at)).sum::<usize>();
            let tree = self.tree(shape);
            let trees: Vec<_> = places.into_iter().map(|at| (at, tree.subtree(at, levels(at)))).collect();
            let keys = keys.into_iter().chain(lacking).collect();
            let next = Diff { keys, from: me, to: diff.from.clone(), ..diff };
            if mine {
                self.differs(&diff.from);
            } else {
                self.answered(now, &peer, new, shown);
            }
            self.send(diff.from, wire::diff(&next, &trees, shape));
        } else if mine {
            if !keys.is_empty() || !lacking.is_empty() {
                self.differs(&diff.from);
                self.missing(now, &diff.from, keys.iter().chain(&lacking));
                let to = self.process_of(diff.from.clone());
                self.send_delta(to, &diff.dots, keys, lacking);
            }
            self.acknowledged(now, &diff.from);
        } else {
            let originator = Address::Pid(diff.originator.clone());
            let named = diff.to.clone();
            if !keys.is_empty() {
                if keys.iter().any(|key| !self.map.elements(key).is_empty()) {
                    // It asks for what it lacks only in a comparison that starts here, after it has said what it has.
                    self.must_node(now, &peer, MIN_GAP);
                }
                let new = self.map.context().unseen(&diff.dots);
                self.answered(now, &peer, new, keys.len());
                let back = Diff { keys: Vec::new(), from: me, to: diff.from, ..diff };
                self.send(originator.clone(), wire::get_diff(&back, keys));
            }
            self.send(originator, wire::ack_diff(&named));
        }
    }

    /// Answers with the state of the keys that differ, those that the receiver `lacks` among them, and with what this member had seen
    /// when the comparison began.
    fn send_delta(
        &mut self,
        to: Address,
        dots: &BTreeMap<i64, i64>,
        mut keys: BTreeSet<Key>,
        mut lacks: Vec<Key>,
    ) {
        // A comparison from before everything was forgotten: with its dots, what is not here any more would count as removed.
        if dots.iter().any(|(replica, number)| self.map.context().upto(*replica) < *number) {
            return;
        }
        if self.mutant.is(Mutant::Truncate) {
            keys = keys.into_iter().chain(lacks.drain(..)).take(5).collect();
        }
        // All that is here, and those of the keys that are not. Also if the answer goes to a name: a process that was started again
        // since it asked would take what it is not told of for removed.
        let named = matches!(to, Address::Name { .. }) && self.map.len() <= WHOLE_TO_A_NAME;
        let whole = keys.len() + lacks.len() >= WHOLE_FROM || named;
        if !whole {
            keys.extend(lacks);
        }
        let (exact, synced) = self.kind_of(&to);
        let numbers = if exact || self.mutant.is(Mutant::OldNumbers) {
            dots.clone()
        } else {
            self.without_gaps(dots, &mut keys, whole, synced)
        };
        let shape = self.shape_of(to.node());
        let gone = |key: Key| Arc::new(Entry::new(key, Few::default()));
        let mut entries: Vec<Arc<Entry>> = if whole {
            // Both in order: a look-up of each key would take longer than all the rest.
            let mut here = self.map.entries().peekable();
            keys.retain(|key| {
                while here.next_if(|other| other.key() < key).is_some() {}
                here.peek().is_none_or(|other| other.key() != key)
            });
            self.map.entries().cloned().chain(keys.into_iter().map(gone)).collect()
        } else {
            keys.into_iter().map(|key| self.map.entry(&key).cloned().unwrap_or_else(|| gone(key))).collect()
        };
        if let Some(seen) = self.seen_by(&to) {
            for (upto, entries) in pieces(&mut entries, &numbers, seen, self.config.piece) {
                let numbers = if self.mutant.is(Mutant::WholeNumbers) { numbers.clone() } else { upto };
                self.actions.push_back(Pending::Tell {
                    to: to.clone(),
                    numbers,
                    entries,
                    shape,
                    complete: None,
                });
            }
        }
        let complete = Some(self.map.context().clone());
        self.actions.push_back(Pending::Tell { to, numbers, entries, shape, complete });
    }

    /// The numbers for an answer to a DeltaCrdt: those from when the comparison began. It takes all that came before an element for
    /// seen when it replaces it; so if one has come here since, the numbers are those of now, and all that has come is added.
    fn without_gaps(
        &self,
        dots: &BTreeMap<i64, i64>,
        keys: &mut BTreeSet<Key>,
        whole: bool,
        synced: bool,
    ) -> BTreeMap<i64, i64> {
        let context = self.map.context();
        let new = |dot: &Dot| {
            let then = dots.get(&dot.replica).copied().unwrap_or(0);
            then < dot.number && dot.number <= context.upto(dot.replica)
        };
        // What is written here is pushed in its order.
        let pushed = |dot: &Dot| synced && dot.replica == self.config.replica;
        let mut named = keys.iter().flat_map(|key| self.map.elements(key)).flat_map(|element| &*element.dots);
        if !whole && !named.any(|dot| new(dot) && !pushed(dot)) {
            return dots.clone();
        }
        if !whole {
            let any_new = |elements: &[super::Element]| elements.iter().any(|e| e.dots.iter().any(new));
            let since = self.map.entries().filter(|entry| any_new(entry.elements()));
            keys.extend(since.map(|entry| entry.key().clone()));
        }
        context.compact().collect()
    }

    fn join(&mut self, now: Mono, mut delta: Delta) {
        let (replica, own) = (self.config.replica, self.own);
        // Nobody can have seen a write of this incarnation that it has not made.
        let invented = |dot: &Dot| dot.replica == replica && dot.number > own;
        let mut room = self.config.max_keys.saturating_sub(self.map.len());
        let mut refused = 0;
        delta.entries.retain(|key, elements| {
            for element in elements.iter_mut().filter(|element| element.dots.iter().any(invented)) {
                element.dots = element.dots.iter().filter(|dot| !invented(dot)).copied().collect();
            }
            elements.retain(|element| !element.dots.is_empty());
            if elements.is_empty() || !self.map.elements(key).is_empty() {
                return true;
            }
            let fits = room > 0;
            room = room.saturating_sub(1);
            refused += u64::from(!fits);
            fits
        });
        self.stats.refused += refused;
        // What was not taken in has not been seen: to say so would remove it elsewhere.
        delta.exact &= refused == 0;
        delta.exact |= self.mutant.is(Mutant::ClaimAll);
        if self.mutant.is(Mutant::IgnoreSeen) {
            delta.context = Context::default();
        }
        if self.mutant.is(Mutant::LatestOnly) {
            let latest = |elements: &[super::Element]| elements.iter().map(|e| e.timestamp).max();
            delta.entries.retain(|key, theirs| latest(theirs) >= latest(self.map.elements(key)));
        }
        if delta.exact {
            let mut context = Context::default();
            let upto = delta.context.compact().filter(|(r, _)| *r != replica);
            upto.for_each(|(replica, number)| context.insert_upto(replica, number));
            delta.context.beyond().filter(|dot| dot.replica != replica).for_each(|dot| context.insert(dot));
            delta.context = context;
        }
        let quiet = self.mutant.is(Mutant::KeepQuiet);
        let (mut touched, mut changes) = (Vec::new(), VecDeque::new());
        self.map.join_each(delta, |before, after| {
            touched.extend(after.or(before.as_ref()).map(|entry| (Arc::clone(entry), after.is_some())));
            changes.extend(Told::of(before, after).filter(|told| !quiet || matches!(told, Told::Put(_))));
        });
        if !self.mutant.is(Mutant::StaleTree) {
            for (entry, there) in touched {
                self.touch(now, &entry, there);
            }
        }
        self.changed(changes);
    }

    /// Starts again with an empty map.
    fn forget(&mut self, now: Mono, replica: i64) {
        let map = std::mem::take(&mut self.map);
        self.config.replica = replica;
        (self.own, self.forgot) = (0, true);
        self.version += 1;
        self.trees.iter_mut().for_each(|(shape, tree)| *tree = MerkleMap::new(*shape));
        self.restart(now);
        self.changed(map.entries().map(|entry| Told::Removed(Arc::clone(entry))));
    }

    /// Takes over the dots of a member that holds the same elements, or has just sent all that were missing.
    fn adopt(&mut self, dots: &BTreeMap<i64, i64>) {
        if dots.len() > MAX_REPLICAS || self.mutant.is(Mutant::NeverAdopt) {
            return;
        }
        let mut context = Context::default();
        for (replica, number) in dots.iter().filter(|(replica, _)| **replica != self.config.replica) {
            context.insert_upto(*replica, *number);
        }
        self.map.adopt_context(&context);
    }
}

/// About how many of `len` keys are at a place.
fn keys_of(len: usize, at: Location) -> usize {
    len.checked_shr(at.depth()).unwrap_or(0)
}

/// How many levels are sent of a place, one of few that differ, in a map of `len` keys: all, or if that is much, down to where
/// [`KEYS_OF_A_PLACE`] keys are left.
fn levels_of_few(len: usize, at: Location) -> u32 {
    match (keys_of(len, at) / KEYS_OF_A_PLACE).checked_ilog2() {
        Some(levels @ 1..) => (levels + 1).min(LEVELS),
        _ => LEVELS,
    }
}

/// The hash of a whole tree as it was sent: `Some(None)` if that is empty.
fn root_of(tree: &Subtree) -> Option<Option<u32>> {
    match tree {
        Subtree::Leaf { hash, .. } | Subtree::Inner { hash, .. } => Some(Some(*hash)),
        Subtree::Empty => Some(None),
        Subtree::Partial(_) => None,
    }
}

impl Machine for CausalCrdt {
    type Event = Event;
    type Action = Action;

    fn handle(&mut self, now: Mono, event: Event) {
        match event {
            Event::Put { key, value } => {
                self.put(now, key, value);
            }
            Event::Remove(key) => self.remove(now, &key),
            Event::RemoveValue { key, value } => self.remove_value(now, key, &value),
            Event::SetNeighbours(neighbours) => self.set_neighbours(now, neighbours),
            Event::NodeUp(node) => self.node_up(now, &node),
            Event::Message(message) => {
                if self.message(now, &message).is_none() {
                    self.stats.ignored += 1;
                }
            }
            Event::Down(monitor) => self.down(now, monitor),
            Event::Forget { replica } => self.forget(now, replica),
        }
    }

    fn handle_timeout(&mut self, now: Mono) {
        self.due(now);
    }

    fn poll_action(&mut self) -> Option<Action> {
        Some(match self.actions.pop_front()? {
            Pending::Ready(action) => action,
            Pending::Tell { to, numbers, entries, shape, complete } => {
                let entries = entries.iter().map(|entry| (entry.key(), entry.elements()));
                let message = wire::delta(wire::numbers_term(&numbers), entries, shape, complete.as_ref());
                Action::Send { to: vec![to], message }
            }
            Pending::Changed(mut told) => {
                let some = told.drain(..told.len().min(CHANGES));
                let some = some.filter_map(|told| told.change()).collect();
                if !told.is_empty() {
                    self.actions.push_front(Pending::Changed(told));
                }
                Action::Changed(some)
            }
        })
    }

    fn poll_timeout(&self) -> Option<Mono> {
        let soonest = self.wakes.first().map(|(at, _)| *at);
        soonest.into_iter().chain(self.beat).min()
    }
}
