//! Members of a registry on a simulated network that breaks connections, keeps pairs apart, crashes nodes and starts them as new
//! incarnations; members leave and join, and processes end at any time. Some of the members may be BEAMs ([`super::beam`]).
//!
//! Invariants, checked as it happens (5, 7) or after the last fault and a time of rest:
//!
//! 1. Convergence: all members hold equal maps, the table of each is what its map says, and the members are those that are.
//! 2. No lost name: what a living process of a member of our kind was given, and has neither given up nor lost by a conflict that it was
//!    told of, is found at all members, with its value. What a process of a BEAM has may also be lost because Horde removed it from the
//!    map, or was given it away meanwhile; or with the writes that a DeltaCrdt claims to have seen, and had not.
//! 3. No resurrected name: what is found is what a living process was given and has not given up, of a node that is a member.
//! 4. At most one owner: all other processes that were given a name were told that they have lost it (2, of the same name).
//! 5. Read your writes: who registers a name finds it at once where it was registered.
//! 6. Bounded state: no counter, index or monitor is left over, and after the rest nobody writes.
//! 7. What readers are told is what is found.
//!
//! A seed that fails prints what happened as a scenario ([`crate::sim::scenario`]); the files of `crates/cluster/scenarios` are run
//! too.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use foundation_proto::Mono;
use foundation_proto::etf::{Pid, Term};

use super::super::{Member, Mutant, place};
use super::node::{Claim, Node, Ours, Registry, Start, What, World, member, name, node_id, node_name, owner};
use crate::Key;
use crate::registry::Dot;
use crate::seeds::seeds;
use crate::sim::scenario::{Between, Keys, Nodes, Scenario, Step, Who, committed};
use crate::sim::{Conditions, Network, NodeId, Random};

/// Whom a member of our kind names.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Naming {
    /// All others, once.
    #[default]
    All,
    /// One, which tells it of the rest.
    One,
    /// Those on nodes that are connected, at each change of these.
    Auto,
}

/// What the members of a run are.
#[derive(Clone, Copy, Default)]
struct Kinds {
    /// The rule that ours leave out.
    mutant: Option<Mutant>,
    /// How many of the members, the last ones, are BEAMs.
    beams: usize,
    /// BEAMs have all members in their configuration; otherwise their members are `:auto`.
    fixed: bool,
    /// BEAMs do not see the nodes of ours.
    hidden: bool,
    naming: Naming,
}

type Checked = Result<(), String>;

/// A run that went wrong, and how to see it again.
struct Failed {
    what: String,
    scenario: Box<Scenario>,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nas a file of crates/cluster/scenarios:\n{}", self.what, self.scenario)
    }
}

fn holds(condition: bool, what: impl FnOnce() -> String) -> Checked {
    if condition { Ok(()) } else { Err(what()) }
}

/// Clocks are ahead by this if nothing is said, so that they can be behind that too.
const AHEAD: Duration = Duration::from_secs(3600);
const A_WHILE: Duration = Duration::from_secs(5);
/// How long nobody may write at the end: longer than any beat.
const QUIET: Duration = Duration::from_secs(40);

struct Run {
    network: Network<Node>,
    world: Rc<RefCell<World>>,
    random: Random,
    size: usize,
    keys: usize,
    creations: u32,
    values: i64,
    seed: u64,
    kinds: Kinds,
    paused: BTreeMap<NodeId, Node>,
    ahead: BTreeMap<NodeId, Duration>,
    /// What DeltaCrdts that are gone have claimed to have seen, and had not.
    claimed: BTreeSet<Dot>,
    steps: Vec<(Duration, Step)>,
}

impl Run {
    fn new(seed: u64, size: usize, keys: usize, kinds: Kinds) -> Self {
        let world = World { hidden: kinds.hidden, beams: size - kinds.beams, ..World::default() };
        let mut run = Self {
            network: Network::new(seed, Conditions::default()),
            world: Rc::new(RefCell::new(world)),
            random: Random::new(!seed),
            size,
            keys,
            creations: 0,
            values: 0,
            seed,
            kinds,
            paused: BTreeMap::new(),
            ahead: BTreeMap::new(),
            claimed: BTreeSet::new(),
            steps: Vec::new(),
        };
        (0..size).for_each(|id| run.start(id));
        run
    }

    fn scenario(&self) -> Scenario {
        let Kinds { beams, fixed, hidden, naming, .. } = self.kinds;
        let mut settings = Vec::new();
        if beams > 0 {
            settings.push(("beams", beams.to_string()));
            settings.push(("fixed", fixed.to_string()));
            settings.push(("hidden", hidden.to_string()));
        }
        match naming {
            Naming::All => {}
            Naming::One => settings.push(("members", "one".to_owned())),
            Naming::Auto => settings.push(("members", "auto".to_owned())),
        }
        Scenario::recorded("horde", self.size, self.seed, &settings, self.steps.clone())
    }

    fn is_beam(&self, id: NodeId) -> bool {
        id + self.kinds.beams >= self.size
    }

    fn start(&mut self, id: NodeId) {
        self.creations += 1;
        let (beam, Kinds { naming, fixed, .. }) = (self.is_beam(id), self.kinds);
        let node = Node::new(Start {
            id,
            creation: self.creations,
            seed: self.seed,
            ahead: self.ahead.get(&id).copied().unwrap_or(AHEAD),
            auto: if beam { !fixed } else { naming == Naming::Auto },
            beam,
            mutant: self.kinds.mutant,
            world: Rc::clone(&self.world),
        });
        self.network.start(id, node);
        let others = self.others(id);
        self.network.with(id, |node, io| {
            if beam {
                node.first_members(io, if fixed { others } else { Vec::new() });
            } else if naming != Naming::Auto {
                let some = if naming == Naming::One { 1 } else { others.len() };
                // The last, which may be a BEAM that does not see this node.
                node.command(io, What::SetMembers(others.into_iter().rev().take(some).collect()));
            }
        });
    }

    fn others(&self, id: NodeId) -> Vec<Member> {
        (0..self.size).filter(|other| *other != id).map(member).collect()
    }

    /// A node is gone, and with it its processes.
    fn lost(&mut self, node: Node) {
        self.world.borrow_mut().processes.retain(|pid, _| node_id(&pid.node) != node.id);
        self.heard(node);
    }

    fn heard(&mut self, mut node: Node) {
        if let Some(theirs) = node.map.theirs() {
            self.claimed.extend(theirs.claimed());
        }
    }

    fn crash(&mut self, id: NodeId) {
        let lost: Vec<Node> = self.network.crash(id).into_iter().chain(self.paused.remove(&id)).collect();
        lost.into_iter().for_each(|node| self.lost(node));
    }

    fn resume(&mut self, id: NodeId) {
        use crate::sim::Host as _;
        if let Some(node) = self.paused.remove(&id) {
            self.network.start(id, node);
            self.network.with(id, |node, io| {
                for peer in node.peers.keys().copied().collect::<Vec<_>>() {
                    node.disconnected(io, peer);
                }
            });
        }
    }

    fn step(&mut self) {
        let longest = if self.random.chance(10) { 1000 } else { 30 };
        let pause = self.random.duration(Duration::ZERO..Duration::from_millis(longest));
        self.network.run_for(pause);
        let (a, b) = (self.random.below(self.size), self.random.below(self.size));
        let keys = Keys::one(self.random.below(self.keys).to_string());
        let node = Nodes::one(a);
        let between = |one_way| Between { from: Nodes::one(a), to: Nodes::one(b), one_way };
        let process = Some(self.random.below(3) as u32);
        let notify = self.random.chance(20);
        let step = match self.random.below(100) {
            0..4 if a != b => Step::Break(node, Nodes::one(b)),
            4..7 if a != b => {
                let open = self.random.chance(50);
                if open { Step::Heal(between(false)) } else { Step::Partition(between(false)) }
            }
            7 if a != b => {
                let open = self.random.chance(50);
                if open { Step::Heal(between(true)) } else { Step::Partition(between(true)) }
            }
            8 => {
                self.apply(Step::Crash(node.clone()));
                let pause = self.random.duration(Duration::ZERO..Duration::from_secs(1));
                self.network.run_for(pause);
                Step::Start(node)
            }
            9 => {
                let millis = self.random.below(120_000) as i64 - 60_000;
                self.apply(Step::Skew(node.clone(), millis));
                Step::Restart(node)
            }
            10 => Step::Pause(node),
            11 | 12 => Step::Resume(node),
            13 => Step::Leave(node),
            14 | 15 => Step::Join(node),
            16..30 => Step::Unregister(node, keys, Who { process, notify: false }),
            30..36 => Step::Unregister(node, keys, Who::default()),
            36..42 => Step::Exit(node, None, Who { process, notify: false }),
            42..45 => Step::Exit(node, Some(keys), Who::default()),
            45 => Step::Register(node, Keys::one("meta"), Who::default()),
            46 => Step::Unregister(node, Keys::one("meta"), Who::default()),
            47..55 => Step::Update(node, keys, Who::default()),
            _ => Step::Register(node, keys, Who { process, notify }),
        };
        self.apply(step);
    }

    fn apply(&mut self, step: Step) {
        self.steps.push((Duration::from_nanos(self.network.now().0.unsigned_abs()), step.clone()));
        let size = self.size;
        if self.network.apply(&step, size) {
            if step == Step::HealAll {
                let all = Nodes::all();
                self.mute(&all, &all, false);
            }
            return;
        }
        match step {
            Step::Partition(Between { from, to, .. }) => self.mute(&from, &to, true),
            Step::Heal(Between { from, to, .. }) => self.mute(&from, &to, false),
            Step::Crash(nodes) => nodes.of(size).into_iter().for_each(|id| self.crash(id)),
            Step::Start(nodes) => {
                for id in nodes.of(size) {
                    if self.network.node(id).is_none() && !self.paused.contains_key(&id) {
                        self.start(id);
                    }
                }
            }
            Step::Restart(nodes) => {
                for id in nodes.of(size) {
                    self.crash(id);
                    self.start(id);
                }
            }
            Step::Pause(nodes) => {
                for id in nodes.of(size) {
                    if let Some(node) = self.network.crash(id) {
                        self.paused.insert(id, node);
                    }
                }
            }
            Step::Resume(nodes) => nodes.of(size).into_iter().for_each(|id| self.resume(id)),
            Step::Leave(nodes) => {
                for id in nodes.of(size) {
                    self.network
                        .with(id, |node, io| node.ours().is_some().then(|| node.command(io, What::Leave)));
                }
            }
            Step::Join(nodes) => {
                for id in nodes.of(size) {
                    let others = self.others(id);
                    self.network.with(id, |node, io| {
                        if node.ours().is_some_and(|ours| !ours.machine.is_member()) {
                            node.command(io, What::SetMembers(others));
                        }
                    });
                }
            }
            Step::Skew(nodes, millis) => {
                let ahead = AHEAD.as_millis() as i64 + millis;
                let ahead = Duration::from_millis(u64::try_from(ahead).expect("an hour at most"));
                self.ahead.extend(nodes.of(size).into_iter().map(|id| (id, ahead)));
            }
            // No time that a member measures has to be exact.
            Step::Rate(..) => {}
            Step::Register(nodes, keys, who) => {
                self.each(&nodes, &keys, |node, name, value, _| {
                    if is_meta(&name) {
                        return vec![What::Meta { key: name.0, value: Some(Term::Integer(value)) }];
                    }
                    let pid = match who.process {
                        Some(number) => node.process(number, who.notify),
                        None => node.spawn(who.notify),
                    };
                    vec![What::Register { name, value, pid }]
                });
            }
            Step::Update(nodes, keys, _) => {
                self.each(&nodes, &keys, |node, name, value, world| {
                    let update = |pid| What::Update { name: name.clone(), value, pid };
                    holders(world, node.id, &name).into_iter().map(update).collect()
                });
            }
            Step::Unregister(nodes, keys, who) => {
                self.each(&nodes, &keys, |node, name, _, world| {
                    if is_meta(&name) {
                        return vec![What::Meta { key: name.0, value: None }];
                    }
                    let pids = match who.process {
                        Some(number) => vec![node.process(number, false)],
                        None => holders(world, node.id, &name),
                    };
                    pids.into_iter().map(|pid| What::Unregister { name: name.clone(), pid }).collect()
                });
            }
            Step::Exit(nodes, None, who) => {
                for id in nodes.of(size) {
                    self.network.with(id, |node, io| {
                        let pid = node.process(who.process.unwrap_or_default(), false);
                        node.end(io, &pid);
                    });
                }
            }
            Step::Exit(nodes, Some(keys), _) => {
                for id in nodes.of(size) {
                    for word in keys.of(id) {
                        let pids = holders(&self.world, id, &name(&word));
                        self.network.with(id, |node, io| pids.iter().for_each(|pid| node.end(io, pid)));
                    }
                }
            }
            other => panic!("a registry cannot do `{other}`"),
        }
    }

    /// What processes of some nodes ask for each of some names.
    fn each(
        &mut self,
        nodes: &Nodes,
        keys: &Keys,
        what: impl Fn(&mut Node, Key, i64, &RefCell<World>) -> Vec<What>,
    ) {
        for id in nodes.of(self.size) {
            for word in keys.of(id) {
                self.values += 1;
                let (value, world) = (self.values, &self.world);
                self.network.with(id, |node, io| {
                    let asked = what(node, name(&word), value, world);
                    asked.into_iter().for_each(|what| node.command(io, what));
                });
            }
        }
    }

    /// What one side says does not arrive. When it does again, what was said meanwhile is lost, and with it the connection.
    fn mute(&mut self, from: &Nodes, to: &Nodes, muted: bool) {
        let heard = self.network.mute(from, to, self.size, muted, |node| &mut node.muted);
        heard.into_iter().for_each(|(a, b)| self.network.disconnect(a, b));
    }

    fn rest(&mut self, time: Duration) {
        for id in 0..self.size {
            self.resume(id);
            if self.network.node(id).is_none() {
                self.start(id);
            }
        }
        self.network.allow_all();
        let all = Nodes::all();
        self.mute(&all, &all, false);
        self.network.run_for(time);
    }

    /// Rests, and says what must hold then and does not.
    fn end(mut self) -> Result<(u64, Scenario), Failed> {
        let until = self.network.now() + rest_of(self.size);
        self.rest(A_WHILE);
        while self.network.now() < until && self.check().is_err() {
            self.network.run_for(A_WHILE);
        }
        let checked = self.check().and_then(|()| self.is_quiet()).and_then(|()| self.check());
        let scenario = self.scenario();
        match checked {
            Ok(()) => Ok((self.network.delivered(), scenario)),
            Err(what) => {
                Err(Failed { what: format!("seed {}: {what}", self.seed), scenario: Box::new(scenario) })
            }
        }
    }

    /// Soon nobody writes any more. One that has left is told late, and some may take it for one that has lost what they wrote.
    fn is_quiet(&mut self) -> Checked {
        let mut writes = 0;
        for _ in 0..3 {
            let before = self.world.borrow().writes;
            self.network.run_for(QUIET);
            writes = self.world.borrow().writes - before;
            if writes == 0 {
                return Ok(());
            }
        }
        Err(format!("invariant 6, {writes} writes at rest"))
    }

    fn check(&mut self) -> Checked {
        let mut claimed = self.claimed.clone();
        for id in 0..self.size {
            let theirs = self.network.with(id, |node, _| {
                node.map.theirs().map(|theirs| theirs.claimed().iter().copied().collect::<Vec<_>>())
            });
            claimed.extend(theirs.into_iter().flatten().flatten());
        }
        let world = self.world.borrow();
        holds(world.broken.is_none(), || world.broken.clone().unwrap_or_default())?;
        let nodes: Vec<&Node> = self.network.nodes().map(|(_, node)| node).collect();
        let in_it = |node: &&Node| node.ours().is_none_or(|ours| ours.machine.is_member());
        let (members, left): (Vec<&Node>, Vec<&Node>) = nodes.iter().copied().partition(in_it);
        let is_member: BTreeSet<Member> = members.iter().map(|node| member(node.id)).collect();
        let Some(first) = members.first() else { return Ok(()) };
        let all = first.map.values();
        for node in &members {
            let values = node.map.values();
            holds(values == all, || {
                let (here, there): (BTreeSet<_>, BTreeSet<_>) =
                    (all.keys().collect(), values.keys().collect());
                let same = here.intersection(&there).filter(|key| all[**key] != values[**key]);
                let only = here
                    .symmetric_difference(&there)
                    .chain(same.collect::<Vec<_>>())
                    .map(|key| (key, all.get(*key), values.get(*key)));
                format!("invariant 1, nodes {} and {}: {:?}", first.id, node.id, only.collect::<Vec<_>>())
            })?;
        }
        let records: BTreeSet<Key> = is_member.iter().map(Member::key).collect();
        let is_record = |key: &&Key| matches!(&key.0, Term::Tuple(tuple) if tuple[0].is_atom("member"));
        let there: BTreeSet<Key> = all.keys().filter(is_record).cloned().collect();
        // A BEAM may count a node that has left, and need not hear of it while that has no neighbours.
        let visible = self.kinds.beams > 0 && (!self.kinds.hidden || self.kinds.fixed);
        let counted: BTreeSet<Member> = left.iter().map(|node| member(node.id)).collect();
        let may = |key: &Key| visible && counted.iter().any(|member| member.key() == *key);
        let extra = there.difference(&records).all(may);
        // One of another BEAM that comes and goes Horde may take out for good: a list that has grown old while it waited counts.
        let lost = records.difference(&there).all(|key| {
            is_member.iter().any(|member| member.key() == *key && node_id(&member.node) >= world.beams)
        });
        holds(extra && lost, || format!("invariant 1, of {records:?} the members are {there:?}"))?;
        let shown: BTreeSet<Member> =
            is_member.union(&counted).filter(|member| there.contains(&member.key())).cloned().collect();
        let entries: BTreeMap<Key, (Member, Pid, Term)> = all
            .iter()
            .filter_map(|(key, value)| {
                let (name, member, pid) = owner(key, value, first.id)?;
                let [_, _, value] = crate::message::tuple::<3>(value.clone())?;
                Some((name, (member, pid, value)))
            })
            .collect();
        let meta = place(&name("meta"));
        for node in &members {
            let value = node.ours().map(|ours| ours.machine.meta(&name("meta").0));
            holds(value.is_none_or(|value| value == all.get(&meta)), || {
                format!("invariant 1, node {} has {value:?} of its own", node.id)
            })?;
            table(node, &entries, &shown)?;
        }
        for (pid, process) in &world.processes {
            for (name, claim) in &process.names {
                stands(pid, name, claim, &entries, world.beams, &claimed)?;
            }
        }
        for (name, (of, pid, _)) in &entries {
            let given = world.processes.get(pid).is_some_and(|process| process.had.contains(name));
            holds(given, || format!("invariant 3, {name:?} of {pid:?}"))?;
            holds(is_member.contains(of), || format!("invariant 3, {name:?} of {of:?}, which is no member"))?;
        }
        for node in members.iter().chain(&left) {
            if let Some(ours) = node.ours() {
                bounded(node.id, ours, &world)?;
            }
        }
        Ok(())
    }
}

/// A value of the registry itself goes by this name, which no process has.
fn is_meta(key: &Key) -> bool {
    *key == name("meta")
}

/// The living processes of a node that have been given a name.
fn holders(world: &RefCell<World>, id: NodeId, name: &Key) -> Vec<Pid> {
    let (world, node) = (world.borrow(), node_name(id));
    let of_node = world.processes.iter().filter(|(pid, _)| pid.node == node);
    of_node.filter(|(_, process)| process.names.contains_key(name)).map(|(pid, _)| pid.clone()).collect()
}

/// The table of a node is what the map says.
fn table(node: &Node, entries: &BTreeMap<Key, (Member, Pid, Term)>, members: &BTreeSet<Member>) -> Checked {
    let id = node.id;
    match &node.registry {
        Registry::Ours(ours) => {
            let names = ours.machine.names.values();
            let names =
                names.map(|r| ((*r.name).clone(), (r.member.clone(), r.pid.clone(), r.value.clone())));
            let names: BTreeMap<_, _> = names.collect();
            holds(names == *entries, || format!("invariant 1, node {id} has {names:?} for {entries:?}"))?;
            let has = &ours.machine.members;
            holds(has == members, || format!("invariant 1, node {id} has members {has:?}"))?;
            let looked_up = |name: &Key| {
                let found = ours.machine.lookup(&name.0)?;
                Some((found.member.clone(), found.pid.clone(), found.value.clone()))
            };
            let found = |(name, entry): (_, &(Member, _, _))| {
                looked_up(name).as_ref() == Some(entry).filter(|(of, ..)| members.contains(of))
            };
            holds(entries.iter().all(found), || format!("invariant 1, node {id} does not find {entries:?}"))
        }
        Registry::Beam(beam) => {
            let names = &beam.keys;
            holds(names == entries, || format!("invariant 1, BEAM {id} has {names:?} for {entries:?}"))?;
            let shown = &beam.shown;
            holds(shown == members, || format!("invariant 1, BEAM {id} has members {shown:?}"))
        }
    }
}

/// A process has what it was given.
fn stands(
    pid: &Pid,
    name: &Key,
    claim: &Claim,
    entries: &BTreeMap<Key, (Member, Pid, Term)>,
    beams: NodeId,
    claimed: &BTreeSet<Dot>,
) -> Checked {
    let found = entries.get(name);
    let has = found.is_some_and(|(_, has, value)| has == pid && *value == Term::Integer(claim.value));
    let beam = node_id(&pid.node) >= beams;
    let excused = beam && (claim.lost.is_some() || !claim.dots.is_disjoint(claimed));
    holds(has || excused, || format!("invariant 2, {name:?} of {pid:?} with {} is {found:?}", claim.value))
}

/// Nothing is left over.
fn bounded(id: NodeId, ours: &Ours, world: &World) -> Checked {
    let machine = &ours.machine;
    let mut counts: BTreeMap<Member, BTreeMap<_, usize>> = BTreeMap::new();
    let mut pids: BTreeMap<Pid, BTreeSet<_>> = BTreeMap::new();
    let mut watched = BTreeSet::new();
    for found in machine.names.values() {
        let incarnation = (found.pid.node.clone(), found.pid.creation);
        *counts.entry(found.member.clone()).or_default().entry(incarnation).or_default() += 1;
        pids.entry(found.pid.clone()).or_default().insert(found.name.clone());
        if found.is_watched_by(&machine.me) {
            watched.insert(found.pid.clone());
        }
    }
    holds(counts == machine.counts, || format!("invariant 6, node {id} counts {:?}", machine.counts))?;
    holds(pids == machine.pids, || format!("invariant 6, node {id} has processes {:?}", machine.pids))?;
    let monitored = &machine.monitored;
    holds(watched == *monitored, || format!("invariant 6, node {id} watches {monitored:?}"))?;
    let alive = watched.iter().all(|pid| world.lives(pid));
    let host: BTreeSet<Pid> = ours.monitors.keys().cloned().collect();
    holds(alive && host == watched, || format!("invariant 6, node {id} watches {host:?}"))?;
    holds(machine.actions.is_empty(), || format!("invariant 6, node {id} is to do {:?}", machine.actions))
}

/// How long a network of so many members may need to come to rest.
fn rest_of(size: usize) -> Duration {
    // Each compares with four others every 30 s when nothing changes.
    Duration::from_secs(if size <= 10 { 120 + 30 * size as u64 } else { 360 + 8 * size as u64 })
}

fn run(seed: u64, size: usize, kinds: Kinds) -> Result<(u64, Scenario), Failed> {
    let mut run = Run::new(seed, size, 8, kinds);
    for _ in 0..150 {
        run.step();
    }
    run.end()
}

/// `mutant` is the rule that is left out; what the members are stands in the scenario.
fn replay(scenario: &Scenario, size: usize, mutant: Option<Mutant>) -> Result<u64, Failed> {
    let mut kinds = Kinds { mutant, ..Kinds::default() };
    for (name, value, line) in scenario.settings_of("horde") {
        match (name, value) {
            ("beams", number) => {
                kinds.beams = number.parse().unwrap_or_else(|_| panic!("line {line}: {value}"))
            }
            ("fixed", "true" | "false") => kinds.fixed = value == "true",
            ("hidden", "true" | "false") => kinds.hidden = value == "true",
            ("members", "one") => kinds.naming = Naming::One,
            ("members", "auto") => kinds.naming = Naming::Auto,
            _ => panic!("line {line}: horde has no {name} {value}"),
        }
    }
    let mut run = Run::new(scenario.seed, size, 0, kinds);
    for (at, step) in &scenario.steps {
        run.network.run_until(Mono::ZERO + *at);
        run.apply(step.clone());
    }
    Ok(run.end()?.0)
}

fn size_of(seed: u64) -> usize {
    2 + (seed % 5) as usize
}

fn naming(seed: u64) -> Naming {
    [Naming::All, Naming::One, Naming::Auto][(seed / 5 % 3) as usize]
}

/// Members of our kind alone.
fn alone(seed: u64, mutant: Option<Mutant>) -> Result<(u64, Scenario), Failed> {
    run(seed, size_of(seed), Kinds { mutant, naming: naming(seed), ..Kinds::default() })
}

/// One BEAM among several of ours, one of ours among several BEAMs, or any number between.
fn mixed(seed: u64, mutant: Option<Mutant>) -> Result<(u64, Scenario), Failed> {
    let beams = 1 + (seed / 5) as usize % (size_of(seed) - 1);
    let naming = naming(seed / 3);
    run(seed, size_of(seed), Kinds { mutant, beams, fixed: seed % 7 > 4, hidden: seed % 2 == 1, naming })
}

#[test]
fn names_of_members_converge_and_none_is_lost_or_comes_back() {
    let ran = seeds(60).map(|seed| alone(seed, None));
    let delivered: u64 = ran.map(|ran| ran.unwrap_or_else(|failed| panic!("{failed}")).0).sum();
    println!("horde: {delivered} messages delivered");
}

#[test]
fn names_of_members_among_beams_converge_and_none_of_ours_is_lost() {
    let ran = seeds(40).map(|seed| mixed(seed, None));
    let delivered: u64 = ran.map(|ran| ran.unwrap_or_else(|failed| panic!("{failed}")).0).sum();
    println!("horde: {delivered} messages delivered among ours and BEAMs");
}

#[test]
fn a_seed_runs_the_same_way_twice() {
    for ran in [alone, mixed] {
        let run = || ran(7, None).unwrap_or_else(|failed| panic!("{failed}"));
        let (delivered, scenario) = run();
        assert_eq!(run().0, delivered);
        // And what it prints does too.
        let scenario = Scenario::parse(&scenario.to_string()).unwrap();
        assert_eq!(replay(&scenario, scenario.nodes[0], None).ok(), Some(delivered));
    }
}

#[test]
fn scenarios_of_files_hold() {
    for (file, scenario) in committed().into_iter().filter(|(_, scenario)| scenario.is_for("horde")) {
        for size in scenario.nodes.iter().filter(|size| **size <= 10) {
            let delivered = replay(&scenario, *size, None);
            let delivered = delivered.unwrap_or_else(|failed| panic!("{file}, {size} nodes: {failed}"));
            println!("horde: {file}, {size} nodes: {delivered} messages delivered");
        }
    }
}

/// A hidden node whose connection broke, and which the BEAM has taken out meanwhile: whether it is in again within three seconds.
fn is_back_soon(mutant: Option<Mutant>) -> Checked {
    let kinds = Kinds { mutant, beams: 1, hidden: true, ..Kinds::default() };
    let mut run = Run::new(1, 2, 8, kinds);
    run.network.run_for(A_WHILE);
    run.apply(Step::Register(Nodes::one(0), Keys::one("name"), Who::default()));
    run.network.run_for(A_WHILE);
    run.check()?;
    run.apply(Step::Break(Nodes::one(0), Nodes::one(1)));
    run.network.run_for(Duration::from_secs(4));
    run.check()
}

#[test]
fn a_member_that_was_thought_to_be_gone_is_back_soon() {
    is_back_soon(None).unwrap_or_else(|what| panic!("{what}"));
    let without = is_back_soon(Some(Mutant::NoJoinOnNodeUp));
    println!("horde: without NoJoinOnNodeUp: {}", without.expect_err("NoJoinOnNodeUp was not noticed"));
}

/// The winner has never heard of the loser, which is told and lives on: nothing takes its entry out of the map.
const HIDDEN_ENTRY: &str = "
for horde
nodes 2
at 2s partition 0 > 1
at 2.01s register 0 name notify
at 2.05s register 1 name
at 2.2s unregister 1 name
at 2.4s heal 0 > 1
";

/// BEAMs that lose each other take each other out, and the hidden node with them; it is left with nobody who would tell.
const ALONE: &str = "
for horde
nodes 3
set horde.beams 2
set horde.hidden true
at 2s register 0 name
at 3s partition 1 | 2
at 30s heal
";

#[test]
fn what_few_seeds_come_upon_is_noticed() {
    for (mutant, text) in [(Mutant::IgnoreOwn, HIDDEN_ENTRY), (Mutant::OnlyMembers, ALONE)] {
        let scenario = Scenario::parse(text).unwrap();
        replay(&scenario, scenario.nodes[0], None).unwrap_or_else(|failed| panic!("{failed}"));
        let without = replay(&scenario, scenario.nodes[0], Some(mutant)).err();
        let without = without.unwrap_or_else(|| panic!("{mutant:?} was not noticed"));
        println!("horde: without {mutant:?}: {}", without.what);
    }
}

#[test]
fn a_rule_that_is_left_out_is_noticed() {
    use Mutant::*;
    type Runs = fn(u64, Option<Mutant>) -> Result<(u64, Scenario), Failed>;
    let mutants: [(Mutant, Runs); 12] = [
        (NoInsisting, alone),
        (NoJoinOnRemoved, mixed),
        (NoJoinOnMissing, mixed),
        (KeepGone, alone),
        (NoExit, alone),
        (KeepEarlier, alone),
        (KeepEnded, alone),
        (KeepWatching, alone),
        (TakeWhenLeft, alone),
        (NoShow, alone),
        (CountReplaced, alone),
        (RemoveAny, mixed),
    ];
    for (mutant, runs) in mutants {
        let caught = (0..100).find_map(|seed| runs(seed, Some(mutant)).err());
        let caught = caught.unwrap_or_else(|| panic!("{mutant:?} was not noticed"));
        // What is printed runs the same way again.
        let scenario = Scenario::parse(&caught.scenario.to_string()).unwrap();
        let again = replay(&scenario, scenario.nodes[0], Some(mutant)).err().map(|failed| failed.what);
        assert_eq!(again.as_ref(), Some(&caught.what), "{caught}");
        println!("horde: without {mutant:?}: {}", caught.what);
    }
}
