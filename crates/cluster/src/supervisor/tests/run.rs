//! One run: steps that are drawn from a seed, then rest, then what must hold.

use std::collections::{BTreeMap, BTreeSet};

use super::super::specs::Item;
use super::super::*;
use super::node::{Node, Span, node_id, node_name};
use crate::sim::{Conditions, Network, NodeId, Random};

/// What a run is made of.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) seed: u64,
    pub(super) size: usize,
    pub(super) steps: u64,
    /// Whether there are children that need a majority, with clocks that are off by up to 1 %.
    pub(super) safe: bool,
    pub(super) mutant: Option<Mutant>,
}

pub(super) struct Run {
    scenario: Scenario,
    network: Network<Node>,
    random: Random,
    incarnations: u32,
    arguments: i64,
    /// Nodes that stand still, with their state.
    paused: BTreeMap<NodeId, Node>,
    /// What nodes have done that are gone.
    spans: Vec<Span>,
    removed: BTreeSet<Dot>,
    leaving: BTreeSet<NodeId>,
}

type Checked = Result<(), String>;

fn holds(condition: bool, what: impl FnOnce() -> String) -> Checked {
    if condition { Ok(()) } else { Err(what()) }
}

impl Run {
    pub(super) fn new(scenario: Scenario) -> Self {
        let mut run = Self {
            network: Network::new(scenario.seed, Conditions::default()),
            random: Random::new(!scenario.seed),
            incarnations: 0,
            arguments: 0,
            paused: BTreeMap::new(),
            spans: Vec::new(),
            removed: BTreeSet::new(),
            leaving: BTreeSet::new(),
            scenario,
        };
        for id in 0..run.scenario.size {
            run.start(id);
        }
        run
    }

    fn config(&self) -> Config {
        let mut config = Config::default().members((0..self.scenario.size).map(node_name));
        if !self.scenario.safe {
            config.members.clear();
        }
        config
    }

    fn start(&mut self, id: NodeId) {
        self.incarnations += 1;
        let rate = if self.scenario.safe { 990 + self.random.below(21) as i64 } else { 1000 };
        let Scenario { seed, mutant, .. } = self.scenario;
        let mut node = Node::new(id, self.incarnations, self.config(), seed, rate, mutant);
        node.hangs = 10;
        node.begin(self.network.now(), self.config());
        self.leaving.remove(&id);
        self.network.start(id, node);
    }

    /// A node is gone for good.
    fn bury(&mut self, mut node: Node, now: Option<Mono>) -> Checked {
        if let Some(now) = now {
            node.stand_still(now);
        }
        self.spans.append(&mut node.spans);
        self.removed.extend(node.supervisor.specs.removed.iter().cloned());
        Self::check_node(&node)
    }

    /// What must hold on a node at any time.
    fn check_node(node: &Node) -> Checked {
        if let Some(broken) = &node.broken {
            return Err(broken.clone());
        }
        for (child, times) in &node.restarts {
            for at in 0..times.len() {
                let window =
                    times[at..].iter().take_while(|time| **time < times[at] + Duration::from_secs(5));
                let count = window.count();
                holds(count <= 3, || {
                    format!("invariant 6: node {} has started {child:?} {count} times in 5 s", node.id)
                })?;
            }
        }
        Ok(())
    }

    fn spec(&mut self) -> ChildSpec {
        self.arguments += 1;
        let id = Term::Integer(self.random.below(10) as i64);
        let factory = if self.random.chance(25) { "even" } else { "f" };
        let spec = ChildSpec::new(id, Atom::new_static(factory)).argument(self.arguments);
        let restart = [Restart::Permanent, Restart::Permanent, Restart::Transient, Restart::Temporary];
        let spec = spec.restart(restart[self.random.below(4)]).shutdown(Duration::from_millis(400));
        match self.random.below(6) {
            0 => ChildSpec { kind: Kind::Replicated, ..spec },
            1 => ChildSpec { kind: Kind::Partitioned(1 + self.random.below(4) as u32), ..spec },
            2 => spec.placement(Placement::Ring),
            3 if self.scenario.safe => spec.placement(Placement::Quorum),
            4 | 5 if self.scenario.safe => spec.requirement(Requirement::Safety),
            _ => spec,
        }
    }

    fn step(&mut self) -> Checked {
        let pause = self.random.duration(Duration::ZERO..Duration::from_millis(300));
        self.network.run_for(pause);
        let size = self.scenario.size;
        let (a, b) = (self.random.below(size), self.random.below(size));
        let id = Term::Integer(self.random.below(10) as i64);
        match self.random.below(100) {
            0..5 if a != b => self.network.disconnect(a, b),
            5..10 if a != b => {
                let open = self.random.chance(60);
                self.network.allow(a, b, open);
            }
            10..12 => {
                // One side against the other.
                for x in 0..a {
                    for y in a..size {
                        self.network.allow(x, y, false);
                    }
                }
            }
            12..14 => {
                for x in 0..size {
                    for y in 0..x {
                        self.network.allow(x, y, true);
                    }
                }
            }
            14..17 => {
                let now = self.network.now();
                let gone = self.network.crash(a);
                if let Some(node) = gone {
                    self.bury(node, Some(now))?;
                }
                if let Some(node) = self.paused.remove(&a) {
                    self.bury(node, None)?;
                }
                let pause = self.random.duration(Duration::ZERO..Duration::from_secs(1));
                self.network.run_for(pause);
                self.start(a);
            }
            17 => {
                let now = self.network.now();
                if let Some(mut node) = self.network.crash(a) {
                    node.stand_still(now);
                    self.paused.insert(a, node);
                }
            }
            18..20 => self.resume(a),
            20..22 if self.random.chance(30) => {
                self.leaving.insert(a);
                self.command(a, Command::Drain);
            }
            22..30 => self.command(a, Command::TerminateChild(id)),
            30..34 => self.command(a, Command::RestartChild(id)),
            34..46 => {
                let part = if self.random.chance(80) { Part::Only } else { Part::Number(0) };
                self.command(a, Command::Migrate { id, part, to: node_name(b) });
            }
            46..70 => {
                let pick = self.random.next_u64() as usize;
                let reason = ["crash", "crash", "crash", "normal"][self.random.below(4)];
                self.network.with(a, |node, io| node.kill_kid(io, pick, reason));
            }
            70..95 => {
                let spec = self.spec();
                self.command(a, Command::StartChild(Box::new(spec)));
            }
            _ => {
                let pause = self.random.duration(Duration::ZERO..Duration::from_secs(5));
                self.network.run_for(pause);
            }
        }
        Ok(())
    }

    fn command(&mut self, at: NodeId, what: Command) {
        self.network.with(at, |node, io| node.command(io, what));
    }

    fn resume(&mut self, id: NodeId) {
        if let Some(node) = self.paused.remove(&id) {
            self.network.start(id, node);
            self.network.with(id, Node::resume);
        }
    }

    fn rest(&mut self, time: Duration) -> Checked {
        for id in 0..self.scenario.size {
            self.resume(id);
            for other in 0..id {
                self.network.allow(id, other, true);
            }
        }
        for id in std::mem::take(&mut self.leaving) {
            let now = self.network.now();
            if let Some(node) = self.network.crash(id) {
                self.bury(node, Some(now))?;
            }
            self.start(id);
        }
        self.network.run_for(time);
        Ok(())
    }

    /// What must hold after a time of rest.
    fn check(&mut self) -> Checked {
        let now = self.network.now();
        let mut spans = self.spans.clone();
        let mut removed = self.removed.clone();
        for (_, node) in self.network.nodes() {
            Self::check_node(node)?;
            removed.extend(node.supervisor.specs.removed.iter().cloned());
            spans.extend(node.spans.iter().cloned());
        }
        let mut ids = (0..self.scenario.size).collect::<Vec<_>>();
        for id in ids.drain(..) {
            self.network.with(id, |node, _| node.stand_still(now));
        }
        for (_, node) in self.network.nodes() {
            spans.extend(node.spans.iter().filter(|span| span.until == now).cloned());
        }
        check_spans(spans)?;
        self.check_specs(&removed)?;
        self.check_children()?;
        self.check_bounds()?;
        let sent = |network: &Network<Node>| network.nodes().map(|(_, node)| node.messages).sum::<u64>();
        let before = sent(&self.network);
        self.network.run_for(Duration::from_secs(300));
        let quiet = sent(&self.network) - before;
        holds(self.scenario.safe || quiet == 0, || {
            format!("invariant 9: {quiet} messages while nothing happened")
        })
    }

    fn check_specs(&self, removed: &BTreeSet<Dot>) -> Checked {
        let items = |node: &Node| -> BTreeMap<Dot, Item> {
            let items = node.supervisor.specs.items();
            items.map(|(dot, item)| (dot.clone(), item.clone())).collect()
        };
        let mut first: Option<BTreeMap<Dot, Item>> = None;
        for (id, node) in self.network.nodes() {
            let items = items(node);
            for dot in node.seen.keys() {
                let there = items.contains_key(dot);
                holds(there || removed.contains(dot), || format!("invariant 3: node {id} has lost {dot:?}"))?;
            }
            let first = first.get_or_insert_with(|| items.clone());
            holds(*first == items, || {
                let other = items.keys().find(|dot| !first.contains_key(*dot));
                format!("invariant 1: node {id} differs in what is to run: {other:?}")
            })?;
        }
        Ok(())
    }

    fn check_children(&self) -> Checked {
        let Some((_, some)) = self.network.nodes().next() else { return Ok(()) };
        let places: BTreeMap<Child, Place> = some
            .supervisor
            .places()
            .into_iter()
            .map(|place| (Child { id: place.id.clone(), part: place.part.clone() }, place))
            .collect();
        let mut running: BTreeMap<Child, Vec<(NodeId, Pid)>> = BTreeMap::new();
        for (id, node) in self.network.nodes() {
            let seen: Vec<Place> = node.supervisor.places();
            holds(seen.iter().eq(places.values()), || format!("invariant 1: node {id} sees other children"))?;
            for kid in node.kids.values() {
                running.entry(kid.child.clone()).or_default().push((id, kid.pid.clone()));
            }
        }
        for (child, kids) in &running {
            holds(kids.len() == 1, || format!("invariant 2: {child:?} runs {} times", kids.len()))?;
            holds(!matches!(&child.part, Part::Node(node) if node_id(node) != kids[0].0), || {
                format!("invariant 1: {child:?} runs on {}", kids[0].0)
            })?;
            let spec = some.supervisor.spec(&child.id.0);
            holds(spec.is_some_and(|spec| spec.has(&child.part)), || {
                format!("invariant 4: {child:?} runs, although it was terminated")
            })?;
            let place = places.get(child);
            let found = place.is_some_and(|place| {
                place.pid.as_ref() == Some(&kids[0].1) && node_id(&place.node) == kids[0].0
            });
            holds(found, || format!("invariant 1: {child:?} is at {kids:?}, and found at {place:?}"))?;
        }
        for spec in some.supervisor.specs() {
            let id = Key(spec.id.clone());
            let parts: Vec<Part> = match spec.kind {
                Kind::Replicated => {
                    let able = |node: &NodeId| spec.factory.as_str() == "f" || node.is_multiple_of(2);
                    (0..self.scenario.size).filter(able).map(|node| Part::Node(node_name(node))).collect()
                }
                _ => spec.parts(&some.me.node),
            };
            let dot = some.supervisor.specs.get(&id).map(|(dot, _)| dot.clone());
            for part in parts {
                let child = Child { id: id.clone(), part };
                let failed =
                    places.get(&child).is_some_and(|place| matches!(place.status, Status::Failed(_)));
                let done = dot.as_ref().is_some_and(|dot| some.supervisor.specs.is_done(dot, &child.part));
                let ended = spec.kind == Kind::Replicated && spec.restart != Restart::Permanent;
                let lacks = !running.contains_key(&child) && !failed && !done && !ended;
                holds(!lacks, || format!("invariant 3: nobody runs {child:?} of {spec:?}"))?;
            }
        }
        Ok(())
    }

    fn check_bounds(&self) -> Checked {
        for (id, node) in self.network.nodes() {
            let machine = &node.supervisor;
            let left = [
                machine.vacant.len(),
                machine.outgoing.len(),
                machine.incoming.len(),
                machine.waits.len(),
                machine.offers.len(),
                machine.starts.len() - node.kids.len().min(machine.starts.len()),
            ];
            holds(left == [0; 6], || {
                format!("invariant 8: node {id} has {left:?} left: {:?} {:?}", machine.vacant, machine.waits)
            })?;
            holds(machine.specs.context().len() <= self.incarnations as usize, || {
                format!("invariant 8: node {id} knows too many writers")
            })?;
            holds(machine.stats().ignored == 0, || format!("invariant 10: node {id} ignored a message"))?;
        }
        Ok(())
    }

    /// All steps, rest, and the check.
    pub(super) fn all(mut self) -> Result<u64, String> {
        let seed = self.scenario.seed;
        let mut work = || {
            for _ in 0..self.scenario.steps {
                self.step()?;
            }
            self.rest(Duration::from_secs(300))?;
            self.check()
        };
        work().map_err(|what| format!("seed {seed}: {what} (FOUNDATION_SIM_SEED={seed} runs it again)"))?;
        Ok(self.network.delivered())
    }
}

/// Two of three nodes leave at nearly the same time, so that one refuses what the other hands over: the children go on with their states on
/// the third, or it is told that a state is lost.
pub(super) fn leave_together(seed: u64, mutant: Option<Mutant>) -> Result<(), String> {
    let mut network = Network::new(seed, Conditions::default());
    for id in 0..3 {
        network.start(id, Node::new(id, id as u32 + 1, Config::default(), seed, 1000, mutant));
    }
    network.run_for(Duration::from_secs(5));
    let spec = ChildSpec::new("parts", Atom::new_static("f"));
    let spec = ChildSpec { kind: Kind::Partitioned(12), ..spec };
    network.with(0, |node, io| node.command(io, Command::StartChild(Box::new(spec))));
    network.run_for(Duration::from_secs(8));
    let mut moved = BTreeSet::new();
    let pause = Random::new(seed).duration(Duration::ZERO..Duration::from_millis(150));
    for id in 0..2 {
        network.with(id, |node, io| {
            moved.extend(node.kids.values().map(|kid| kid.child.clone()));
            node.command(io, Command::Drain)
        });
        network.run_for(if id == 0 { pause } else { Duration::from_secs(60) });
    }
    let lost: BTreeSet<Child> = network.nodes().flat_map(|(_, node)| node.lost.iter().cloned()).collect();
    let third: BTreeMap<Child, i64> = network
        .node(2)
        .into_iter()
        .flat_map(|node| node.kids.values().map(|kid| (kid.child.clone(), kid.generation)))
        .collect();
    holds(third.len() == 12, || format!("seed {seed}: {} of 12 run", third.len()))?;
    for child in moved.iter().filter(|child| !lost.contains(*child)) {
        let kept = third.get(child).is_some_and(|generation| *generation > 0);
        holds(kept, || format!("seed {seed}: invariant 11: the state of {child:?} is gone"))?;
    }
    Ok(())
}

/// No two times of one child overlap.
fn check_spans(mut spans: Vec<Span>) -> Checked {
    spans.retain(|span| span.from < span.until);
    spans.sort_by(|a, b| (&a.child, a.from).cmp(&(&b.child, b.from)));
    for pair in spans.windows(2) {
        let [a, b] = pair else { continue };
        let apart = a.child != b.child || a.until <= b.from;
        holds(apart, || format!("invariant 5: {:?} ran twice: {a:?} and {b:?}", a.child))?;
    }
    Ok(())
}
