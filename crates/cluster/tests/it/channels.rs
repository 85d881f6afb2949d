//! Channels on a simulated network that loses, repeats and delays messages, breaks connections and restarts nodes.
//!
//! Each message is a number that its sender never uses again. The checker counts every message at every receiver.
//!
//! Invariants of reliable channels, checked at each delivery or after a time of rest:
//!
//! 1. At least once: a message that was sent to a node reaches it, unless its sender stopped or gave it up and counted it.
//! 2. Once: no receiving process is given the same message twice.
//! 3. Order: the messages of one sender rise at each receiving process.
//! 4. Accounts: what did not arrive is no more than what senders counted as lost.
//! 5. No growth: after the rest nothing waits, no time-out is pending but those of acknowledgements, and each ticket was settled once.
//!
//! Best effort: invariants 2 and 3, and nothing is ever kept or sent again. Gossip: invariant 2, and the same.
//!
//! All of it whether a sender sends to each node, or others pass its messages on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foundation_cluster::Machine;
use foundation_cluster::channels::{Action, Channel, Config, Event, Exchange, Fanout, Reliability};
use foundation_cluster::sim::{Conditions, Host, Io, Network, NodeId, Random};
use foundation_proto::etf::{Atom, Pid, RawTerm, Term};
use foundation_proto::{Limits, Mono};

type Promise = (Reliability, Fanout);

#[derive(Clone, Debug)]
enum Wire {
    /// What `pg` does: a channel process makes itself known.
    Here(Pid),
    Message(RawTerm),
}

struct Node {
    id: NodeId,
    pid: Pid,
    exchange: Exchange,
    random: Random,
    /// Per cent of messages that the network loses, and that it repeats, beyond what breaks lose.
    faults: usize,
    /// By sending process: what arrived, in order.
    received: BTreeMap<Pid, Vec<i64>>,
    /// What was sent to each node while it was known.
    sent: BTreeMap<NodeId, BTreeSet<i64>>,
    /// Nodes that broadcasts go to.
    known: BTreeSet<NodeId>,
    lost: u64,
    tickets: (u64, u64),
}

fn node_id(name: &Atom) -> NodeId {
    name.as_str()[1..].split('@').next().unwrap().parse().unwrap()
}

impl Node {
    fn new(id: NodeId, creation: u32, (reliability, fanout): Promise, faults: usize) -> Self {
        let pid = Pid { node: Atom::new(&format!("n{id}@sim")).unwrap(), id: 1, serial: 0, creation };
        let mut config = Config::of(Channel::Events).reliability(reliability).fanout(fanout);
        config.buffer_size = 200;
        Self {
            id,
            exchange: Exchange::new(pid.clone(), config, Limits::default()),
            pid,
            random: Random::new(u64::from(creation)),
            faults,
            received: BTreeMap::new(),
            sent: BTreeMap::new(),
            known: BTreeSet::new(),
            lost: 0,
            tickets: (0, 0),
        }
    }

    fn is_gossip(&self) -> bool {
        let config = self.exchange.config();
        config.reliability == Reliability::BestEffort && matches!(config.fanout, Fanout::Gossip(_))
    }

    fn wall(now: Mono) -> i64 {
        now.0 / 1_000
    }

    fn broadcast(&mut self, io: &mut Io<Wire>, number: i64) {
        if self.exchange.is_full(io.now()) {
            return;
        }
        for node in &self.known {
            self.sent.entry(*node).or_default().insert(number);
        }
        self.tickets.0 += 1;
        let message = RawTerm::from_term(&Term::Integer(number)).unwrap();
        let (wall, ticket) = (Self::wall(io.now()), Some(self.tickets.0));
        self.event(io, Event::Broadcast { message, compress: false, wall, ticket });
    }

    fn event(&mut self, io: &mut Io<Wire>, event: Event) {
        self.exchange.handle(io.now(), event);
        self.carry_out(io);
    }

    fn carry_out(&mut self, io: &mut Io<Wire>) {
        while let Some(action) = self.exchange.poll_action() {
            match action {
                Action::Send { to, message } | Action::Relay { to, message } => {
                    if !self.random.chance(self.faults) {
                        io.send(node_id(&to.node), Wire::Message(message.clone()));
                    }
                    if self.random.chance(self.faults) {
                        io.send(node_id(&to.node), Wire::Message(message));
                    }
                }
                Action::Deliver { message, from, .. } => {
                    let number = message.to_term(&Limits::default()).unwrap().as_i64().unwrap();
                    // The number says which process of the node it was.
                    let sender = Pid { node: from, id: 1, serial: 0, creation: (number / 1_000_000) as u32 };
                    let gossip = self.is_gossip();
                    let before = self.received.entry(sender).or_default();
                    assert!(
                        if gossip {
                            !before.contains(&number)
                        } else {
                            before.last().is_none_or(|l| *l < number)
                        },
                        "invariants 2 and 3: {number} after {before:?}"
                    );
                    before.push(number);
                }
                Action::Settled { .. } => self.tickets.1 += 1,
                // Both sides count; the sender's account is the one that matters here.
                Action::Lost { messages, outgoing: true, .. } => self.lost += messages,
                Action::Lost { .. } => {}
                other => panic!("unknown action {other:?}"),
            }
        }
    }
}

impl Host for Node {
    type Message = Wire;

    fn connected(&mut self, io: &mut Io<Wire>, peer: NodeId) {
        io.send(peer, Wire::Here(self.pid.clone()));
    }

    fn disconnected(&mut self, io: &mut Io<Wire>, peer: NodeId) {
        let pid = self.exchange.peer(&Atom::new(&format!("n{peer}@sim")).unwrap()).cloned();
        if let Some(pid) = pid {
            self.event(io, Event::PeerDown(pid));
        }
        if self.exchange.config().reliability == Reliability::BestEffort {
            self.known.remove(&peer);
        }
    }

    fn receive(&mut self, io: &mut Io<Wire>, from: NodeId, wire: Wire) {
        match wire {
            Wire::Here(pid) => {
                self.known.insert(from);
                self.event(io, Event::PeerUp(pid));
            }
            Wire::Message(message) => {
                let wall = Self::wall(io.now());
                self.event(io, Event::Message { message, wall });
            }
        }
    }

    fn wake(&mut self, io: &mut Io<Wire>) {
        self.exchange.handle_timeout(io.now());
        self.carry_out(io);
    }

    fn next_wake(&self) -> Option<Mono> {
        self.exchange.poll_timeout()
    }
}

/// What the nodes that stopped had received, by receiver; sends of processes that stopped are promised no more.
type Past = BTreeMap<NodeId, Vec<i64>>;

fn check(seed: u64, network: &Network<Node>, past: &Past, (reliability, _): Promise) -> u64 {
    let nodes: BTreeMap<NodeId, &Node> = network.nodes().collect();
    let mut arrived_in_all = 0;
    for sender in nodes.values() {
        let mut missing = 0;
        for (to, numbers) in &sender.sent {
            let now = nodes[to].received.get(&sender.pid).into_iter().flatten();
            let arrived: BTreeSet<i64> = now.chain(past.get(to).into_iter().flatten()).copied().collect();
            missing += numbers.difference(&arrived).count() as u64;
            arrived_in_all += numbers.intersection(&arrived).count() as u64;
        }
        let statistics = sender.exchange.statistics();
        if reliability == Reliability::BestEffort {
            assert_eq!(statistics.resent, 0, "seed {seed}: nothing is sent again");
        } else {
            assert!(
                missing <= sender.lost,
                "seed {seed}: invariants 1 and 4: {missing} messages of node {} did not arrive, {} were given up",
                sender.id,
                sender.lost
            );
        }
        assert_eq!(sender.exchange.waiting(), 0, "seed {seed}: invariant 5, node {}", sender.id);
        assert_eq!(sender.exchange.poll_timeout(), None, "seed {seed}: invariant 5, node {}", sender.id);
        assert_eq!(
            sender.tickets.0, sender.tickets.1,
            "seed {seed}: invariant 5, tickets of node {}",
            sender.id
        );
        assert_eq!(statistics.ignored, 0, "seed {seed}: all is understood");
    }
    arrived_in_all
}

fn run(seed: u64, size: usize, steps: usize, promise: Promise, faults: usize) -> u64 {
    let mut network = Network::new(seed, Conditions::default());
    let mut random = Random::new(!seed);
    let mut creation = 4;
    let mut past = Past::new();
    for id in 0..size {
        network.start(id, Node::new(id, creation + id as u32, promise, faults));
    }
    creation += size as u32;
    let mut number = 0;
    for _ in 0..steps {
        network.run_for(random.duration(Duration::ZERO..Duration::from_millis(20)));
        let (a, b) = (random.below(size), random.below(size));
        match random.below(100) {
            0..4 if a != b => network.disconnect(a, b),
            4..6 if a != b => {
                let open = random.chance(50);
                network.allow(a, b, open);
            }
            6 if random.chance(50) => {
                if let Some(node) = network.crash(a) {
                    past.entry(a).or_default().extend(node.received.into_values().flatten());
                }
                network.run_for(random.duration(Duration::ZERO..Duration::from_secs(1)));
                network.start(a, Node::new(a, creation, promise, faults));
                creation += 1;
            }
            _ => {
                let burst = 1 + random.below(30);
                network.with(a, |node, io| {
                    for _ in 0..burst {
                        number += 1;
                        node.broadcast(io, i64::from(node.pid.creation) * 1_000_000 + number);
                    }
                });
            }
        }
    }
    for a in 0..size {
        for b in a + 1..size {
            network.allow(a, b, true);
        }
    }
    network.run_for(Duration::from_secs(300));
    check(seed, &network, &past, promise)
}

#[test]
fn every_message_arrives_or_is_counted() {
    let arrived: u64 = super::seeds(40)
        .map(|seed| {
            let promise = (Reliability::AtLeastOnce, Fanout::Direct);
            run(seed, 2 + (seed % 4) as usize, 150, promise, (seed % 3 * 5) as usize)
        })
        .sum();
    println!("channels, at least once: {arrived} messages arrived, each counted");
}

#[test]
fn guaranteed_is_no_less() {
    super::seeds(15)
        .for_each(|seed| assert!(run(seed, 3, 150, (Reliability::Guaranteed, Fanout::Direct), 5) > 0));
}

#[test]
fn best_effort_never_repeats_and_never_reorders() {
    super::seeds(15).for_each(|seed| {
        assert!(run(seed, 3, 150, (Reliability::BestEffort, Fanout::Direct), (seed % 3 * 5) as usize) > 0);
    });
}

#[test]
fn stages_keep_what_is_promised() {
    let arrived: u64 = super::seeds(20)
        .map(|seed| {
            let reliability = if seed % 4 == 0 { Reliability::Guaranteed } else { Reliability::AtLeastOnce };
            let promise = (reliability, Fanout::Staged(1 + (seed % 3) as u8));
            run(seed, 4 + (seed % 5) as usize, 120, promise, (seed % 3 * 5) as usize)
        })
        .sum();
    println!("channels in stages: {arrived} messages arrived, each counted");
    super::seeds(10).for_each(|seed| {
        let promise = (Reliability::BestEffort, Fanout::Staged(2));
        assert!(run(seed, 6, 100, promise, (seed % 3 * 5) as usize) > 0);
    });
}

#[test]
fn gossip_is_given_to_nobody_twice() {
    super::seeds(15).for_each(|seed| {
        let promise = (Reliability::BestEffort, Fanout::Gossip(1 + (seed % 4) as u8));
        assert!(run(seed, 3 + (seed % 6) as usize, 100, promise, (seed % 3 * 5) as usize) > 0);
    });
}

/// A cluster of `size` nodes that all know each other, and one broadcast after the other from node 0. Returns for each way how many nodes
/// got it of those that could, the most messages that one node sent for one broadcast, and how long until the last had it.
fn spread(size: usize, promise: Promise, broadcasts: i64) -> (f64, u64, Duration) {
    let mut nodes: Vec<Node> = (0..size).map(|id| Node::new(id, 4 + id as u32, promise, 0)).collect();
    let pids: Vec<Pid> = nodes.iter().map(|node| node.pid.clone()).collect();
    for node in &mut nodes {
        for pid in &pids {
            node.exchange.handle(Mono::ZERO, Event::PeerUp(pid.clone()));
        }
    }
    let mut random = Random::new(7);
    let (mut reached, mut most, mut longest) = (0_usize, 0, Duration::ZERO);
    for number in 0..broadcasts {
        let start = Mono::ZERO + Duration::from_secs(number as u64 + 1);
        let mut agenda: BTreeMap<(Mono, u64), (NodeId, RawTerm)> = BTreeMap::new();
        let mut sent = vec![0_u64; size];
        let mut sequence = 0;
        let message = RawTerm::from_term(&Term::Integer(4_000_000 + number)).unwrap();
        let broadcast = Event::Broadcast { message, compress: false, wall: 0, ticket: None };
        nodes[0].exchange.handle(start, broadcast);
        let (mut at, mut now) = (0, start);
        loop {
            while let Some(action) = nodes[at].exchange.poll_action() {
                match action {
                    Action::Send { to, message } | Action::Relay { to, message } => {
                        sent[at] += 1;
                        sequence += 1;
                        let latency = Conditions::default().latency;
                        agenda
                            .insert((now + random.duration(latency), sequence), (node_id(&to.node), message));
                    }
                    Action::Deliver { .. } => {
                        reached += 1;
                        longest = longest.max(now.saturating_since(start));
                    }
                    _ => {}
                }
            }
            let Some(((time, _), (to, message))) = agenda.pop_first() else { break };
            (at, now) = (to, time);
            nodes[at].exchange.handle(now, Event::Message { message, wall: 0 });
        }
        most = most.max(sent.into_iter().max().unwrap_or_default());
    }
    (reached as f64 / (broadcasts as usize * (size - 1)) as f64, most, longest)
}

/// What the fan-outs are for, in a thousand nodes. In stages, a node also acknowledges.
#[test]
fn others_spread_what_one_node_would_have_to_send() {
    let size = 1_000;
    for (fanout, enough, most) in
        [(Fanout::Direct, 1.0, 999), (Fanout::Staged(8), 1.0, 9), (Fanout::Gossip(6), 0.99, 6)]
    {
        let (reached, sent, longest) = spread(size, (Reliability::BestEffort, fanout), 5);
        println!(
            "{size} nodes, {fanout:?}: {:.2} % reached, at most {sent} messages by one node, {longest:?}",
            100.0 * reached
        );
        assert!(reached >= enough, "{fanout:?} reached {reached}");
        assert!(sent <= most, "{fanout:?}: one node sent {sent}");
    }
}

/// Without breaks and without faults nothing is sent twice, and nothing is lost.
#[test]
fn a_quiet_network_has_no_repetitions() {
    let mut network = Network::new(1, Conditions::default());
    for id in 0..4 {
        network.start(id, Node::new(id, 4 + id as u32, (Reliability::AtLeastOnce, Fanout::Direct), 0));
    }
    network.run_for(Duration::from_secs(2));
    for number in 0..1_000 {
        network.with(0, |node, io| node.broadcast(io, 4_000_000 + number));
        network.run_for(Duration::from_millis(1));
    }
    network.run_for(Duration::from_secs(2));
    for (id, node) in network.nodes() {
        let statistics = node.exchange.statistics();
        assert_eq!((statistics.resent, statistics.duplicates, statistics.lost), (0, 0, 0));
        assert_eq!(statistics.received, if id == 0 { 0 } else { 1_000 });
    }
}
