use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use foundation_proto::etf::{Atom, Pid, RawTerm, Tape};
use foundation_proto::{Limits, Mono};

use super::envelope::{compressed, leave};
use super::peer::{Item, Peer};
use super::relay::{Gossip, Heard, Receiver, Relay};
use super::source::{Source, Verdict};
use super::{Config, Envelope, Fanout, Received, Reliability};
use crate::Machine;

/// How long the numbers of a sender are remembered after its last message, at least: longer than any sender keeps its messages.
const REMEMBER: Duration = Duration::from_secs(600);
/// How many senders are remembered, those heard of last. Each takes some hundred bytes.
const SOURCES: usize = 4096;

/// What happens to a channel process. `wall` is the time of day in microseconds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A channel process of another node is in reach.
    PeerUp(Pid),
    /// It is not any more.
    PeerDown(Pid),
    /// Send to all nodes with a channel process, and to those that were lost less than [`Config::retain`] ago.
    Broadcast {
        /// What to send.
        message: RawTerm,
        /// Whether to compress it, whatever the channel's rule is.
        compress: bool,
        /// The time of day.
        wall: i64,
        /// A number that is not in use, to learn what becomes of it: [`Action::Settled`]. Without reliability nothing does.
        ticket: Option<u64>,
    },
    /// The same for one node; nothing happens if it has no channel process.
    Send {
        /// The node.
        node: Atom,
        /// What to send.
        message: RawTerm,
        /// Whether to compress it, whatever the channel's rule is.
        compress: bool,
        /// The time of day.
        wall: i64,
        /// As for a broadcast.
        ticket: Option<u64>,
    },
    /// A message arrived at the channel process.
    Message {
        /// What.
        message: RawTerm,
        /// The time of day.
        wall: i64,
    },
    /// This process ends for good: its peers need keep nothing for it.
    Leave,
    /// Nobody waits for a ticket any more.
    Forget(u64),
}

/// What the host of a channel process has to do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Action {
    /// Send a message from the channel process, without connecting to the node if it is not connected.
    Send {
        /// The process.
        to: Pid,
        /// The message.
        message: RawTerm,
    },
    /// The same for a message of another process that is passed on: to be dropped if the connection is busy.
    Relay {
        /// The process.
        to: Pid,
        /// The message.
        message: RawTerm,
    },
    /// Hand a message to the subscribers of this node.
    Deliver {
        /// The node that it comes from.
        from: Atom,
        /// The message.
        message: RawTerm,
        /// How long it was on its way, and by how much that may be wrong, in microseconds; unless the clocks were not compared yet.
        latency: Option<(i64, i64)>,
    },
    /// What is known of a message whose sender wanted to know; comes once for each ticket.
    Settled {
        /// Which.
        ticket: u64,
        /// What.
        receipt: Receipt,
    },
    /// Messages of, or for, a node were given up.
    Lost {
        /// The node.
        node: Atom,
        /// How many.
        messages: u64,
        /// Whether they were to go to the node, and were given up here; else the node has given them up.
        outgoing: bool,
    },
}

/// What became of a message with a promise.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Receipt {
    /// Nodes that have acknowledged it.
    pub acknowledged: usize,
    /// Nodes that have not; it is kept for them as [`Config::retain`] says, or was given up.
    pub pending: usize,
}

/// What a channel process has done so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Statistics {
    /// Envelopes sent for the first time.
    pub sent: u64,
    /// Envelopes sent again.
    pub resent: u64,
    /// Messages of others that were passed on.
    pub relayed: u64,
    /// Messages delivered from envelopes.
    pub received: u64,
    /// Messages that had been received before.
    pub duplicates: u64,
    /// Messages that were given up here, or by their senders.
    pub lost: u64,
    /// Messages that could not be read.
    pub ignored: u64,
}

/// One channel process; see the [module documentation](super).
#[derive(Debug)]
pub struct Exchange {
    me: Pid,
    config: Config,
    limits: Limits,
    peers: BTreeMap<Atom, Peer>,
    /// Where the numbers for a node begin that is not among the peers: above all that were ever used.
    first: u64,
    sources: BTreeMap<Pid, Source>,
    /// The number of the next message of gossip.
    gossip: u64,
    heard: Heard,
    tickets: BTreeMap<u64, Ticket>,
    actions: VecDeque<Action>,
    statistics: Statistics,
    /// The wall clock as it was last given, with the time of that: acknowledgements also leave on time-outs.
    wall: (i64, Mono),
    tape: Tape,
}

#[derive(Debug, Default)]
struct Ticket {
    waiting: usize,
    receipt: Receipt,
}

impl Exchange {
    /// A channel process `me` without peers.
    pub fn new(me: Pid, config: Config, limits: Limits) -> Self {
        Self {
            me,
            config,
            limits,
            peers: BTreeMap::new(),
            first: 1,
            sources: BTreeMap::new(),
            gossip: 1,
            heard: Heard::default(),
            tickets: BTreeMap::new(),
            actions: VecDeque::new(),
            statistics: Statistics::default(),
            wall: (0, Mono::ZERO),
            tape: Tape::new(),
        }
    }

    /// How the channel behaves.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Another configuration, for what is sent from now on.
    ///
    /// What waits for acknowledgements is given up if the new one promises none.
    pub fn configure(&mut self, config: Config) {
        self.config = config;
        if !self.config.is_reliable() {
            let nodes: Vec<Atom> = self.peers.keys().cloned().collect();
            for node in nodes {
                let given_up = self.peers.get_mut(&node).map(Peer::drain).unwrap_or_default();
                self.give_up(&node, given_up);
            }
        }
    }

    /// What it has done so far.
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// The channel processes that are in reach.
    pub fn peers(&self) -> impl Iterator<Item = &Pid> {
        self.peers.values().filter(|peer| peer.gone_since.is_none()).map(|peer| &peer.pid)
    }

    /// The channel process of a node, if it is in reach.
    pub fn peer(&self, node: &Atom) -> Option<&Pid> {
        self.peers.get(node).filter(|peer| peer.gone_since.is_none()).map(|peer| &peer.pid)
    }

    /// Whether the node incarnation that this process belongs to is served by this machine, now or once it is in reach again.
    pub fn serves(&self, process: &Pid) -> bool {
        self.peers.get(&process.node).is_some_and(|peer| peer.pid.creation == process.creation)
    }

    /// What is known of a message whose ticket was not settled.
    pub fn receipt(&self, ticket: u64) -> Option<Receipt> {
        let known = self.tickets.get(&ticket)?;
        Some(Receipt { pending: known.receipt.pending + known.waiting, ..known.receipt })
    }

    /// Messages that wait for an acknowledgement, each counted once for each node.
    pub fn waiting(&self) -> usize {
        self.peers.values().map(Peer::waiting).sum()
    }

    /// Whether a sender should wait before its next message.
    pub fn is_full(&self, now: Mono) -> bool {
        self.config.is_reliable() && self.peers.values().any(|peer| peer.is_full(now, &self.config))
    }

    fn send(&mut self, now: Mono, nodes: &[Atom], message: &RawTerm, compress: bool, ticket: Option<u64>) {
        let large = message.as_bytes().len() >= Config::COMPRESS_FROM;
        let compress = compress || (self.config.compression && large);
        let packed = if compress && !nodes.is_empty() { compressed(message) } else { None };
        let item = Item {
            compressed: packed.is_some(),
            payload: packed.unwrap_or_else(|| message.to_plain()),
            sent_at: self.wall.0,
            ticket: ticket.filter(|_| self.config.is_reliable()),
        };
        if let Some(ticket) = ticket {
            self.tickets.insert(ticket, Ticket::default());
        }
        let in_reach = self.peers().count();
        match self.config.fanout {
            Fanout::Gossip(fanout) if nodes.len() > 1 && !self.config.is_reliable() => {
                self.gossip(fanout.max(1).into(), in_reach, &item);
            }
            Fanout::Staged(fanout) | Fanout::Gossip(fanout)
                if nodes.len() > 1 && in_reach > usize::from(fanout.max(1)) =>
            {
                let mut receivers = Vec::with_capacity(in_reach);
                for node in nodes {
                    receivers.extend(self.send_to(now, node, item.clone(), true));
                }
                let relay =
                    Relay { body: self.body(&item), fanout: fanout.max(1).into(), receivers: Vec::new() };
                self.pass_on(&relay, &receivers, true);
            }
            _ => {
                for node in nodes {
                    self.send_to(now, node, item.clone(), false);
                }
            }
        }
        if let Some(ticket) = ticket {
            self.settle_if_done(ticket);
        }
    }

    /// Sends to a node what is due, directly; with `staged` the item itself is left to the stages, if nothing is before it.
    fn send_to(&mut self, now: Mono, node: &Atom, mut item: Item, staged: bool) -> Option<Receiver> {
        let peer = self.peers.get_mut(node)?;
        let gone = peer.gone_since.is_some();
        if self.config.is_reliable() {
            if let Some(ticket) = item.ticket.and_then(|ticket| self.tickets.get_mut(&ticket)) {
                if gone {
                    // Nobody waits for a node that is out of reach.
                    ticket.receipt.pending += 1;
                    item.ticket = None;
                } else {
                    ticket.waiting += 1;
                }
            }
            self.statistics.sent += 1;
            let given_up = peer.push(now, item, &self.config);
            self.give_up(node, given_up);
            self.transmit(now, node, staged)
        } else if !gone {
            let seq = peer.number();
            let receiver = Receiver { pid: peer.pid.clone(), seq, base: seq, clock: peer.clock() };
            self.statistics.sent += 1;
            if staged {
                return Some(receiver);
            }
            self.envelope(receiver, &item);
            None
        } else {
            None
        }
    }

    /// Puts on its way to a node whatever its window allows; with `staged` the newest message is left to the stages.
    fn transmit(&mut self, now: Mono, node: &Atom, staged: bool) -> Option<Receiver> {
        while let Some(peer) = self.peers.get_mut(node) {
            let (seq, item, again) = peer.transmit(now)?;
            let receiver = Receiver { pid: peer.pid.clone(), seq, base: peer.base(), clock: peer.clock() };
            if staged && !again && seq + 1 == peer.next {
                return Some(receiver);
            }
            self.statistics.resent += u64::from(again);
            self.envelope(receiver, &item);
        }
        None
    }

    /// A message without what is different for each receiver.
    fn body(&self, item: &Item) -> Envelope {
        Envelope {
            sender: self.me.clone(),
            seq: 0,
            base: 0,
            sent_at: item.sent_at,
            clock: None,
            ack_ms: self.config.ack_ms(),
            payload: item.payload.clone(),
            compressed: item.compressed,
        }
    }

    fn envelope(&mut self, to: Receiver, item: &Item) {
        let Receiver { pid, seq, base, clock } = to;
        let message = Envelope { seq, base, clock, ..self.body(item) }.encode(&self.limits);
        self.push(pid, message, true);
    }

    /// Sends a message, of this process or of another.
    fn push(&mut self, to: Pid, message: foundation_proto::Result<RawTerm>, own: bool) {
        match message {
            Ok(message) if own => self.actions.push_back(Action::Send { to, message }),
            Ok(message) => {
                self.statistics.relayed += 1;
                self.actions.push_back(Action::Relay { to, message });
            }
            // The host has checked the message; only nesting at the very limit comes here.
            Err(_) => self.statistics.ignored += 1,
        }
    }

    /// Sends a message to the first of each stage.
    fn pass_on(&mut self, relay: &Relay, receivers: &[Receiver], own: bool) {
        for stage in relay.stages(receivers) {
            let message = match stage.receivers.as_slice() {
                [only] => stage.envelope(only).encode(&self.limits),
                _ => stage.encode(&self.limits),
            };
            if let Some(first) = stage.receivers.first() {
                self.push(first.pid.clone(), message, own);
            }
        }
    }

    fn gossip(&mut self, fanout: usize, nodes: usize, item: &Item) {
        let body = Envelope { seq: self.gossip, base: self.gossip, ..self.body(item) };
        self.gossip += 1;
        let gossip = Gossip { body, fanout, hops: Gossip::hops(fanout, nodes) };
        self.statistics.sent += 1;
        self.tell(&gossip, true);
    }

    fn tell(&mut self, gossip: &Gossip, own: bool) {
        for to in gossip.choose(&self.me, self.peers()) {
            let message = gossip.encode(&self.limits);
            self.push(to, message, own);
        }
    }

    fn relayed(&mut self, now: Mono, relay: &Relay) {
        let mut receivers = relay.receivers.iter();
        match receivers.next() {
            Some(first) if first.pid == self.me => self.delivered(now, &relay.envelope(first)),
            _ => return self.statistics.ignored += 1,
        }
        // To nobody else than who would be sent to anyhow: a message cannot make this process send wherever it says.
        // Each once, however often it stands there.
        let mut once = BTreeSet::new();
        let others: Vec<Receiver> = receivers
            .filter(|receiver| {
                self.peer(&receiver.pid.node) == Some(&receiver.pid) && once.insert(&receiver.pid)
            })
            .cloned()
            .collect();
        self.pass_on(relay, &others, false);
    }

    fn heard(&mut self, now: Mono, mut gossip: Gossip) {
        if gossip.body.sender == self.me || !self.heard.is_new(now, &gossip.body.sender, gossip.body.seq) {
            return;
        }
        self.deliver(&gossip.body);
        if let Some(hops) = gossip.hops.checked_sub(1) {
            gossip.hops = hops;
            self.tell(&gossip, false);
        }
    }

    fn received(&mut self, now: Mono, message: &RawTerm) {
        match Received::decode(message, &mut self.tape) {
            Ok(Some(Received::Envelope(envelope))) => self.delivered(now, &envelope),
            Ok(Some(Received::Ack(ack))) => {
                let node = ack.receiver.node.clone();
                let Some(peer) = self.peers.get_mut(&node).filter(|peer| peer.pid == ack.receiver) else {
                    return;
                };
                let done = peer.acknowledged(now, self.wall.0, &ack);
                for ticket in done.into_iter().filter_map(|item| item.ticket) {
                    self.settle(ticket, true);
                }
                self.transmit(now, &node, false);
            }
            Ok(Some(Received::Relay(relay))) => self.relayed(now, &relay),
            Ok(Some(Received::Gossip(gossip))) => self.heard(now, gossip),
            Ok(Some(Received::Leave(pid))) => {
                if self.peers.get(&pid.node).is_some_and(|peer| peer.pid == pid) {
                    self.remove(&pid.node);
                }
            }
            Ok(None) | Err(_) => self.statistics.ignored += 1,
        }
    }

    fn delivered(&mut self, now: Mono, envelope: &Envelope) {
        let from = envelope.sender.clone();
        if from == self.me {
            self.statistics.ignored += 1;
            return;
        }
        if !self.sources.contains_key(&from) && self.sources.len() >= SOURCES {
            let oldest =
                self.sources.iter().min_by_key(|(_, source)| source.heard_at).map(|(pid, _)| pid.clone());
            oldest.and_then(|pid| self.sources.remove(&pid));
        }
        let source = self.sources.entry(from.clone()).or_insert_with(|| Source::new(envelope, now));
        let verdict = source.receive(now, self.wall.0, envelope);
        match verdict {
            Verdict::Deliver { lost } => {
                if lost > 0 {
                    self.statistics.lost += lost;
                    self.actions.push_back(Action::Lost {
                        node: from.node.clone(),
                        messages: lost,
                        outgoing: false,
                    });
                }
                self.deliver(envelope);
            }
            Verdict::Duplicate => self.statistics.duplicates += 1,
            Verdict::Early => {}
        }
        self.acknowledge(now, &from);
    }

    fn deliver(&mut self, envelope: &Envelope) {
        let Ok(message) = envelope.message(&self.limits) else {
            self.statistics.ignored += 1;
            return;
        };
        self.statistics.received += 1;
        let latency = envelope.clock.map(|clock| {
            let here = self.wall.0.saturating_sub(clock.offset);
            (here.saturating_sub(envelope.sent_at).max(0), clock.error)
        });
        let from = envelope.sender.node.clone();
        self.actions.push_back(Action::Deliver { from, message, latency });
    }

    fn acknowledge(&mut self, now: Mono, source: &Pid) {
        let wall = self.wall.0.saturating_add(micros(now.saturating_since(self.wall.1)));
        let Some(ack) = self.sources.get_mut(source).and_then(|known| known.ack(now, wall, &self.me)) else {
            return;
        };
        if let Ok(message) = ack.encode(&self.limits) {
            self.actions.push_back(Action::Send { to: source.clone(), message });
        }
    }

    fn settle(&mut self, ticket: u64, acknowledged: bool) {
        if let Some(known) = self.tickets.get_mut(&ticket) {
            known.waiting = known.waiting.saturating_sub(1);
            if acknowledged {
                known.receipt.acknowledged += 1;
            } else {
                known.receipt.pending += 1;
            }
            self.settle_if_done(ticket);
        }
    }

    fn settle_if_done(&mut self, ticket: u64) {
        if self.tickets.get(&ticket).is_some_and(|known| known.waiting == 0)
            && let Some(known) = self.tickets.remove(&ticket)
        {
            self.actions.push_back(Action::Settled { ticket, receipt: known.receipt });
        }
    }

    fn give_up(&mut self, node: &Atom, items: Vec<Item>) {
        if items.is_empty() {
            return;
        }
        let messages = items.len() as u64;
        self.statistics.lost += messages;
        self.actions.push_back(Action::Lost { node: node.clone(), messages, outgoing: true });
        for ticket in items.into_iter().filter_map(|item| item.ticket) {
            self.settle(ticket, false);
        }
    }

    fn peer_up(&mut self, now: Mono, pid: Pid) {
        let node = pid.node.clone();
        if node == self.me.node {
            return;
        }
        let first = self.first;
        self.peers.entry(node.clone()).or_insert_with(|| Peer::new(pid.clone(), first, now)).up(now, pid);
        self.transmit(now, &node, false);
    }

    fn peer_down(&mut self, now: Mono, pid: &Pid) {
        let Some(peer) = self.peers.get_mut(&pid.node).filter(|peer| peer.pid == *pid) else { return };
        peer.down(now);
        let tickets: Vec<u64> = peer.tickets().collect();
        for ticket in tickets {
            self.settle(ticket, false);
        }
        if self.config.reliability == Reliability::BestEffort {
            self.remove(&pid.node);
        }
    }

    fn remove(&mut self, node: &Atom) {
        if let Some(mut peer) = self.peers.remove(node) {
            self.first = self.first.max(peer.next);
            let given_up = peer.drain();
            self.give_up(node, given_up);
        }
    }

    fn learn(&mut self, now: Mono, wall: i64) {
        self.wall = (wall, now);
    }
}

impl Machine for Exchange {
    type Event = Event;
    type Action = Action;

    fn handle(&mut self, now: Mono, event: Event) {
        match event {
            Event::PeerUp(pid) => self.peer_up(now, pid),
            Event::PeerDown(pid) => self.peer_down(now, &pid),
            Event::Broadcast { message, compress, wall, ticket } => {
                self.learn(now, wall);
                let nodes: Vec<Atom> = self.peers.keys().cloned().collect();
                self.send(now, &nodes, &message, compress, ticket);
            }
            Event::Send { node, message, compress, wall, ticket } => {
                self.learn(now, wall);
                self.send(now, &[node], &message, compress, ticket);
            }
            Event::Message { message, wall } => {
                self.learn(now, wall);
                self.received(now, &message);
            }
            Event::Leave => {
                let peers: Vec<Pid> = self.peers().cloned().collect();
                for to in peers {
                    if let Ok(message) = leave(&self.me, &self.limits) {
                        self.actions.push_back(Action::Send { to, message });
                    }
                }
            }
            Event::Forget(ticket) => {
                self.tickets.remove(&ticket);
            }
        }
    }

    fn handle_timeout(&mut self, now: Mono) {
        let nodes: Vec<Atom> = self.peers.keys().cloned().collect();
        for node in nodes {
            let Some(peer) = self.peers.get_mut(&node) else { continue };
            let over = peer.gone_since.is_some_and(|since| since + self.config.retain <= now);
            if over {
                self.remove(&node);
            } else if peer.retry_at().is_some_and(|at| at <= now) {
                peer.handle_timeout(now);
                self.transmit(now, &node, false);
            }
        }
        self.sources.retain(|_, source| now.saturating_since(source.heard_at) < REMEMBER);
        self.heard.retain(|heard_at| now.saturating_since(heard_at) < REMEMBER);
        let due: Vec<Pid> = self
            .sources
            .iter()
            .filter(|(_, source)| source.ack_at.is_some_and(|at| at <= now))
            .map(|(pid, _)| pid.clone())
            .collect();
        for source in due {
            self.acknowledge(now, &source);
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Mono> {
        let retain = self.config.retain;
        let peers = self.peers.values().filter_map(|peer| match peer.gone_since {
            Some(since) => Some(since + retain),
            None => peer.retry_at(),
        });
        let acks = self.sources.values().filter_map(|source| source.ack_at);
        peers.chain(acks).min()
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
