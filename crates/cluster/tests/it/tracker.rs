//! Phoenix.Tracker's shards on a simulated network that breaks connections and restarts nodes.
//!
//! Invariants, checked after the last fault and a time of rest:
//!
//! 1. Convergence: every node lists exactly what every live node has tracked and not ended.
//! 2. Nothing is left over: no presence of an earlier run of a node, or of one that is gone, is kept.
//! 3. `Diff` tells the whole story: replaying it from the start gives the list.
//! 4. Everything that a shard sends is understood.

use std::collections::BTreeSet;
use std::time::Duration;

use foundation_cluster::Machine;
use foundation_cluster::sim::{Conditions, Host, Io, Network, NodeId, Random};
use foundation_cluster::tracker::{Action, Config, Event, Presence, Shard};
use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Map, Pid, Term};

struct Node {
    shard: Shard,
    name: Atom,
    peers: BTreeSet<NodeId>,
    next_pid: u32,
    creation: u32,
    tracked: Vec<(Pid, i64)>,
    /// Replay of `Diff`.
    replay: BTreeSet<String>,
}

fn node_id(name: &Atom) -> NodeId {
    name.as_str()[1..].split('@').next().unwrap().parse().unwrap()
}

fn shown(presence: &Presence) -> String {
    format!("{:?} {:?} {:?}", presence.pid, presence.key, presence.meta)
}

impl Node {
    fn new(id: NodeId, creation: u32, now: Mono) -> Self {
        let name = Atom::new(&format!("n{id}@sim")).unwrap();
        Self {
            shard: Shard::new(name.clone(), i64::from(creation), Config::default(), now),
            name,
            peers: BTreeSet::new(),
            next_pid: 1,
            creation,
            tracked: Vec::new(),
            replay: BTreeSet::new(),
        }
    }

    fn carry_out(&mut self, io: &mut Io<Term>) {
        while let Some(action) = self.shard.poll_action() {
            match action {
                Action::Broadcast(message) => {
                    self.peers.iter().for_each(|peer| io.send(*peer, message.clone()));
                }
                Action::Direct { node, message } => io.send(node_id(&node), message),
                Action::Diff(diff) => {
                    for presence in &diff.leaves {
                        assert!(self.replay.remove(&shown(presence)), "invariant 3: what goes was there");
                    }
                    for presence in &diff.joins {
                        assert!(self.replay.insert(shown(presence)), "invariant 3: what comes was not there");
                    }
                }
                Action::Monitor(_) | Action::Demonitor(_) => {}
                other => panic!("unknown action {other:?}"),
            }
        }
    }
}

impl Host for Node {
    type Message = Term;

    fn connected(&mut self, _: &mut Io<Term>, peer: NodeId) {
        self.peers.insert(peer);
    }

    fn disconnected(&mut self, _: &mut Io<Term>, peer: NodeId) {
        self.peers.remove(&peer);
    }

    fn receive(&mut self, io: &mut Io<Term>, _: NodeId, message: Term) {
        self.shard.handle(io.now(), Event::Message(message));
        self.carry_out(io);
    }

    fn wake(&mut self, io: &mut Io<Term>) {
        self.shard.handle_timeout(io.now());
        self.carry_out(io);
    }

    fn next_wake(&self) -> Option<Mono> {
        self.shard.poll_timeout()
    }
}

fn act(node: &mut Node, io: &mut Io<Term>, random: &mut Random) {
    let meta = || Term::Map([].into_iter().collect::<Map>());
    let phx_ref = format!("{}", random.next_u64());
    let at = random.below(node.tracked.len());
    match (random.below(10), node.tracked.get(at).cloned()) {
        (0..=4, _) | (_, None) => {
            node.next_pid += 1;
            let pid = Pid { node: node.name.clone(), id: node.next_pid, serial: 0, creation: node.creation };
            let key = random.below(5) as i64;
            node.shard.track(io.now(), &pid, "room", Term::Integer(key), meta(), &phx_ref).unwrap();
            node.tracked.push((pid, key));
        }
        (5..=6, Some((pid, key))) => {
            node.shard.update(io.now(), &pid, "room", Term::Integer(key), meta(), &phx_ref).unwrap();
        }
        (7, Some((pid, key))) => {
            node.shard.untrack(io.now(), &pid, "room", Term::Integer(key));
            node.tracked.swap_remove(at);
        }
        (_, Some((pid, _))) => {
            node.shard.handle(io.now(), Event::Down(pid));
            node.tracked.swap_remove(at);
        }
    }
    node.carry_out(io);
}

fn run(seed: u64, size: usize, steps: usize) -> u64 {
    let mut network = Network::new(seed, Conditions::default());
    let mut random = Random::new(!seed);
    let mut creation = 4;
    for id in 0..size {
        network.start(id, Node::new(id, creation, Mono::ZERO));
    }
    for _ in 0..steps {
        network.run_for(random.duration(Duration::ZERO..Duration::from_millis(300)));
        let (a, b) = (random.below(size), random.below(size));
        match random.below(100) {
            0..4 if a != b => network.disconnect(a, b),
            4..8 if a != b => {
                let open = random.chance(50);
                network.allow(a, b, open);
            }
            8 => {
                network.crash(a);
                network.run_for(random.duration(Duration::ZERO..Duration::from_secs(60)));
                creation += 1;
                let now = network.now();
                network.start(a, Node::new(a, creation, now));
            }
            _ => {
                network.with(a, |node, io| act(node, io, &mut random));
            }
        }
    }
    for a in 0..size {
        for b in a + 1..size {
            network.allow(a, b, true);
        }
    }
    if seed % 2 == 1 {
        // One does not come back: it is down, and later down for good.
        network.crash(0);
        network.run_for(Duration::from_secs(1_300));
    }
    network.run_for(Duration::from_secs(120));
    let expected: BTreeSet<String> = network
        .nodes()
        .flat_map(|(_, node)| node.shard.list("room").into_iter().filter(|p| p.pid.node == node.name))
        .map(|presence| shown(&presence))
        .collect();
    let tracked: usize = network.nodes().map(|(_, node)| node.tracked.len()).sum();
    assert_eq!(expected.len(), tracked, "seed {seed}: invariant 1, what was tracked is there");
    for (id, node) in network.nodes() {
        let found: BTreeSet<String> = node.shard.list("room").iter().map(shown).collect();
        assert_eq!(found, expected, "seed {seed}: invariant 1, node {id}");
        assert_eq!(node.shard.len(), expected.len(), "seed {seed}: invariant 2, node {id}");
        assert_eq!(node.replay, expected, "seed {seed}: invariant 3, node {id}");
        assert_eq!(node.shard.ignored(), 0, "seed {seed}: invariant 4, node {id}");
    }
    network.delivered()
}

#[test]
fn lists_converge_after_churn_breaks_and_restarts() {
    let delivered: u64 = super::seeds(60).map(|seed| run(seed, 2 + (seed % 4) as usize, 200)).sum();
    println!("tracker: {delivered} messages delivered");
}
