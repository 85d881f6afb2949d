//! What members say to each other: see the table of the [module](super).

use std::collections::BTreeMap;
use std::time::Duration;

use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid};

use super::entry::{Entry, Id, Keys};
use super::held::{Effect, Held, Scan};
use super::wire::{self, Message, Want};
use super::{Action, MonitorId, Names, To, Watched};

/// A hello that was not answered is said again after this, then after twice the time, up to [`MAX_HELLO`].
const FIRST_HELLO: Duration = Duration::from_secs(1);
/// The longest time between two hellos to a node that does not answer, because it has no registry of this name.
const MAX_HELLO: Duration = Duration::from_secs(600);
/// The shortest time between two hellos to a node.
const MIN_HELLO: Duration = Duration::from_millis(100);
/// What was asked for and has not come is asked for again after this. No message is lost within a connection; this repairs
/// what should not happen.
const PULL_RETRY: Duration = Duration::from_secs(2);
/// Writes are acknowledged together after this, unless the author asks.
const ACK_DELAY: Duration = Duration::from_millis(100);
/// Writes that are not acknowledged after this are asked after, then after twice the time, up to [`MAX_PROBE`].
const FIRST_PROBE: Duration = Duration::from_secs(2);
/// The longest time between two questions after writes.
const MAX_PROBE: Duration = Duration::from_secs(60);

/// A node that is connected, or was.
#[derive(Debug, Default)]
pub(super) struct Peer {
    hello: Option<Hello>,
    /// The latest session that it was offered.
    offered: Option<(Pid, u64)>,
    pub(super) following: Option<Following>,
    pub(super) follower: Option<Follower>,
}

#[derive(Debug)]
struct Hello {
    tag: u64,
    said: Mono,
    again: Mono,
    delay: Duration,
}

/// This member takes in what the peer writes.
#[derive(Debug)]
pub(super) struct Following {
    pub(super) pid: Pid,
    monitor: MonitorId,
    session: u64,
    /// The peer's version when this began: once that is known, its names are found.
    target: u64,
    /// When to ask again for what was asked for.
    pulling: Option<Mono>,
    ack: Option<Mono>,
}

/// The peer takes in what this member writes.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) pid: Pid,
    monitor: MonitorId,
    session: u64,
    pub(super) acked: u64,
    sent: u64,
    /// Whether it is sent each write as it is made. Otherwise it asks.
    streaming: bool,
    /// Since when something is not acknowledged.
    pub(super) lacking: Option<Mono>,
    probe: Option<Mono>,
    delay: Duration,
    /// It is to be asked at once.
    pub(super) ask: bool,
}

impl Names {
    fn send_to(&mut self, pid: &Pid, message: foundation_proto::etf::Term) {
        self.actions.push_back(Action::Send { to: vec![To::Pid(pid.clone())], message });
    }

    fn due(&mut self, at: Mono) -> Mono {
        self.soonest = self.soonest.min(at);
        at
    }

    // -- meeting -------------------------------------------------------------------------------------------------------

    /// Greets a node, which may not have a registry of this name.
    pub(super) fn greet(&mut self, node: &Atom) {
        if node == &self.me.node
            || (self.peers.len() >= self.config.max_members && !self.peers.contains_key(node))
        {
            return;
        }
        let tag = self.number();
        let again = self.due(self.now + FIRST_HELLO);
        let peer = self.peers.entry(node.clone()).or_default();
        peer.hello = Some(Hello { tag, said: self.now, again, delay: FIRST_HELLO });
        self.say_hello(node, tag);
    }

    fn say_hello(&mut self, node: &Atom, tag: u64) {
        let message = wire::hello(self.config.keys, &self.me, tag);
        self.actions.push_back(Action::Send { to: vec![To::Server(node.clone())], message });
    }

    /// A connection came up. Its messages may have come before this, and the monitors of an earlier one may fire after it.
    pub(super) fn node_up(&mut self, node: &Atom) {
        self.connected.insert(node.clone());
        if self.peers.get(node).is_none_or(|peer| peer.following.is_none()) {
            self.greet(node);
        }
    }

    /// The connection to a node that may have no registry is gone. What else there is hears of it by its monitors.
    pub(super) fn node_down(&mut self, node: &Atom) {
        self.connected.remove(node);
        if let Some(peer) = self.peers.get_mut(node) {
            peer.hello = None;
        }
        self.tidy(node);
    }

    /// What was followed is out of reach, or has ended.
    pub(super) fn lost(&mut self, node: &Atom) {
        self.end_following(node);
        if self.connected.contains(node) {
            self.greet(node);
        }
        self.tidy(node);
    }

    pub(super) fn tidy(&mut self, node: &Atom) {
        let idle = |peer: &Peer| peer.hello.is_none() && peer.following.is_none() && peer.follower.is_none();
        if self.peers.get(node).is_some_and(idle) {
            self.peers.remove(node);
        }
    }

    pub(super) fn message(&mut self, message: Message) -> Option<()> {
        match message {
            Message::Hello { keys, pid, tag } => self.hello(keys, pid, tag),
            Message::Welcome { tag, pid, session, keys, version } => {
                self.welcome(tag, pid, session, keys, version)
            }
            Message::Have { pid, session, version, want } => self.have(pid, session, version, want),
            Message::Writes { incarnation, session, base, to, last, entries, removed } => {
                self.answered(&incarnation, session);
                self.writes(&incarnation, base, to, last, entries, removed)
            }
            Message::Scan { incarnation, scan, to, entries } => self.scanned(&incarnation, scan, to, entries),
            Message::Head { incarnation, version } => self.head(&incarnation, version),
            Message::Unknown { session } => self.unknown(session),
            Message::Call { .. } => None,
        }
    }

    fn hello(&mut self, keys: Keys, pid: Pid, tag: u64) -> Option<()> {
        if pid.node == self.me.node || keys != self.config.keys {
            return None;
        }
        let node = pid.node.clone();
        if self.peers.len() >= self.config.max_members && !self.peers.contains_key(&node) {
            return None;
        }
        let session = self.number();
        let version = self.own.version();
        let message = wire::welcome(tag, &self.me, session, self.config.keys, version);
        self.send_to(&pid, message);
        let peer = self.peers.entry(node.clone()).or_default();
        peer.offered = Some((pid.clone(), session));
        if peer.following.as_ref().is_none_or(|following| following.pid != pid) {
            match &mut peer.hello {
                // Its registry may have begun after this was said.
                Some(hello) if self.now < hello.said + MIN_HELLO => {
                    hello.again = hello.said + MIN_HELLO;
                    let again = hello.again;
                    self.due(again);
                }
                _ => self.greet(&node),
            }
        }
        Some(())
    }

    /// Whoever answers the latest hello to its node is alive now, whatever else arrives late.
    fn welcome(&mut self, tag: u64, pid: Pid, session: u64, keys: Keys, version: u64) -> Option<()> {
        if keys != self.config.keys {
            return None;
        }
        let node = pid.node.clone();
        let hello = self.peers.get(&node).and_then(|peer| peer.hello.as_ref());
        if hello.is_none_or(|hello| hello.tag != tag) {
            return Some(());
        }
        self.end_following(&node);
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.hello = None;
        }
        let keep_old = self.mutant.is(super::Mutant::KeepOldIncarnation);
        match self.held.get_mut(&node) {
            Some(held) if held.incarnation == pid => held.lost = None,
            Some(held) if keep_old => {
                held.incarnation = pid.clone();
                held.lost = None;
            }
            _ => {
                self.held.insert(node.clone(), Held::new(pid.clone(), self.config.keys));
            }
        }
        let monitor = self.watch(pid.clone(), Watched::Following(node.clone()));
        let following = Following { pid, monitor, session, target: version, pulling: None, ack: None };
        self.peers.entry(node.clone()).or_default().following = Some(following);
        self.caught_up(&node);
        // Also if nothing is lacking: the answer says that the peer knows of this session.
        self.pull(&node);
        Some(())
    }

    /// The peer's registry is out of reach: its names are not found any more, but kept for when it comes back.
    pub(super) fn end_following(&mut self, node: &Atom) {
        let Some(following) = self.peers.get_mut(node).and_then(|peer| peer.following.take()) else { return };
        self.unwatch(following.monitor);
        let expires = self.due(self.now + self.config.retain);
        let Some(held) = self.held.get_mut(node) else { return };
        // A session that it was offered stays offered.
        held.lost = Some(expires);
        if std::mem::take(&mut held.visible) {
            let gone = held.iter().cloned().collect();
            if !self.mutant.is(super::Mutant::ShowLost) {
                self.apply(Effect { gone, come: Vec::new() });
            }
        }
        self.check_waits();
    }

    pub(super) fn end_follower(&mut self, node: &Atom) {
        if let Some(follower) = self.peers.get_mut(node).and_then(|peer| peer.follower.take()) {
            self.unwatch(follower.monitor);
        }
        self.check_waits();
    }

    fn unknown(&mut self, session: u64) -> Option<()> {
        let of = |peer: &Peer| peer.following.as_ref().is_some_and(|following| following.session == session);
        let node = self.peers.iter().find(|(_, peer)| of(peer)).map(|(node, _)| node.clone());
        if let Some(node) = node {
            self.end_following(&node);
            self.greet(&node);
        }
        Some(())
    }

    // -- taking in -----------------------------------------------------------------------------------------------------

    fn tell(&mut self, node: &Atom, want: Want) {
        let version = match (self.held.get(node), self.mutant.is(super::Mutant::AckTarget)) {
            (_, true) => {
                self.peers.get(node).and_then(|peer| peer.following.as_ref()).map_or(0, |f| f.target)
            }
            (Some(held), false) => held.version,
            (None, false) => 0,
        };
        let Some(following) = self.peers.get_mut(node).and_then(|peer| peer.following.as_mut()) else {
            return;
        };
        following.ack = None;
        let message = wire::have(&self.me, following.session, version, want);
        let pid = following.pid.clone();
        self.send_to(&pid, message);
    }

    fn acknowledge(&mut self, node: &Atom) {
        self.tell(node, Want::Nothing);
    }

    /// Asks for what is lacking.
    fn pull(&mut self, node: &Atom) {
        let scan = self.held.get(node).and_then(|held| held.scan);
        let again = self.due(self.now + PULL_RETRY);
        if let Some(following) = self.peers.get_mut(node).and_then(|peer| peer.following.as_mut()) {
            following.pulling = Some(again);
        }
        self.tell(node, scan.map_or(Want::Writes, Want::Rest));
    }

    /// What was followed of an incarnation, if it is that one.
    fn followed(&mut self, incarnation: &Pid) -> Option<(&mut Following, &mut Held)> {
        let following = self.peers.get_mut(&incarnation.node)?.following.as_mut()?;
        let held = self.held.get_mut(&incarnation.node)?;
        (following.pid == *incarnation && held.incarnation == *incarnation).then_some((following, held))
    }

    /// How many more names fit.
    pub(super) fn room(&self) -> usize {
        let held: usize = self.held.values().map(Held::len).sum();
        self.config.max_names.saturating_sub(self.own.len() + held)
    }

    /// The peer has answered in this session, so it knows of it. What was sent before, or to all, does not say so.
    fn answered(&mut self, incarnation: &Pid, session: u64) {
        if let Some((following, _)) = self.followed(incarnation)
            && following.session == session
        {
            following.pulling = None;
        }
    }

    fn writes(
        &mut self,
        incarnation: &Pid,
        base: u64,
        to: u64,
        last: bool,
        entries: Vec<Entry>,
        removed: Vec<Id>,
    ) -> Option<()> {
        let node = &incarnation.node;
        let room = self.room();
        let gaps = self.mutant.is(super::Mutant::IgnoreGap);
        let forget = self.mutant.is(super::Mutant::ForgetRemovals);
        let (now, keys) = (self.now, self.config.keys);
        let Some((following, held)) = self.followed(incarnation) else { return Some(()) };
        let fits = |pid: bool| pid == (keys == Keys::Duplicate);
        if to < base || removed.iter().any(|id| !fits(id.pid.is_some())) {
            return None;
        }
        if held.scan.is_some() {
            return Some(());
        }
        if base > held.version && !gaps {
            // Something is missing in between.
            if following.pulling.is_none() {
                self.pull(node);
            }
            return Some(());
        }
        let mut effect = Effect::default();
        if to >= held.version {
            let removed = if forget { Vec::new() } else { removed };
            let (done, refused) = held.written(entries, removed, to, room);
            effect = done;
            if following.ack.is_none() && to > base {
                following.ack = Some(now + ACK_DELAY);
                self.soonest = self.soonest.min(now + ACK_DELAY);
            }
            self.stats.refused += refused;
        }
        if self.held.get(node).is_some_and(|held| held.visible) {
            self.apply(effect);
        }
        if !last {
            self.pull(node);
        } else {
            self.caught_up(node);
        }
        Some(())
    }

    fn scanned(&mut self, incarnation: &Pid, scan: Scan, to: u64, entries: Vec<Entry>) -> Option<()> {
        let node = &incarnation.node;
        let room = self.room();
        let Some((following, held)) = self.followed(incarnation) else { return Some(()) };
        let begins = scan.at == 0 && held.scan.is_none_or(|current| current.upto != scan.upto);
        let expected = if begins { scan.upto > held.version } else { held.scan == Some(scan) };
        if !expected || following.pulling.is_none() || to < scan.at || to > scan.upto {
            return Some(());
        }
        let (effect, refused) = held.scanned(scan, entries, to, room);
        let visible = held.visible;
        self.stats.refused += refused;
        if visible {
            self.apply(effect);
        }
        self.pull(node);
        Some(())
    }

    /// All that the peer had written when it was asked is known.
    fn caught_up(&mut self, node: &Atom) {
        let target = self.peers.get(node).and_then(|peer| peer.following.as_ref()).map_or(0, |f| f.target);
        let sweeps = !self.mutant.is(super::Mutant::NoSweep);
        let Some(held) = self.held.get_mut(node) else { return };
        if held.version < target || held.scan.is_some() {
            return;
        }
        let visible = held.visible;
        held.visible = true;
        let swept = if sweeps { held.sweep() } else { Vec::new() };
        if visible {
            self.apply(Effect { gone: swept, come: Vec::new() });
        } else {
            let come = held.iter().cloned().collect();
            self.apply(Effect { gone: Vec::new(), come });
        }
    }

    fn head(&mut self, incarnation: &Pid, version: u64) -> Option<()> {
        let node = &incarnation.node;
        match self.followed(incarnation) {
            Some((_, held)) if held.version >= version => self.acknowledge(node),
            Some(_) => self.pull(node),
            None => {}
        }
        Some(())
    }

    // -- giving out ----------------------------------------------------------------------------------------------------

    fn have(&mut self, pid: Pid, session: u64, version: u64, want: Want) -> Option<()> {
        if version > self.own.version() {
            return None;
        }
        let node = pid.node.clone();
        let known =
            |peer: &Peer| peer.follower.as_ref().is_some_and(|f| f.pid == pid && f.session == session);
        if !self.peers.get(&node).is_some_and(known) {
            let offered = self.peers.get(&node).and_then(|peer| peer.offered.as_ref());
            if offered != Some(&(pid.clone(), session)) {
                self.send_to(&pid, wire::unknown(session));
                return Some(());
            }
            self.end_follower(&node);
            let monitor = self.watch(pid.clone(), Watched::Follower(node.clone()));
            let follower = Follower {
                pid: pid.clone(),
                monitor,
                session,
                acked: 0,
                sent: version,
                streaming: version == self.own.version(),
                lacking: (version < self.own.version()).then_some(self.now),
                probe: None,
                delay: FIRST_PROBE,
                ask: false,
            };
            self.peers.entry(node.clone()).or_default().follower = Some(follower);
        }
        let now = self.now;
        let follower = self.peers.get_mut(&node)?.follower.as_mut()?;
        if version < follower.acked {
            // Overtaken by a later one.
            return Some(());
        }
        follower.acked = version;
        let sent = match want {
            Want::Nothing => None,
            Want::Writes => Some(self.own.since(version, self.config.part()).ok_or(None)),
            Want::Rest(scan) if self.own.floor() > scan.upto || scan.upto > self.own.version() => {
                Some(Err(None))
            }
            Want::Rest(scan) => Some(Err(Some(scan))),
        };
        let last = self.own.version();
        let message = match sent {
            None => None,
            Some(Ok(part)) => {
                follower.sent = part.to;
                follower.streaming = part.to == last;
                Some(wire::writes(&self.me, session, version, &part, part.to == last))
            }
            Some(Err(scan)) => {
                follower.streaming = false;
                let scan = scan.unwrap_or(Scan { upto: last, at: 0 });
                let part = self.own.scan(scan.at, scan.upto, self.config.part());
                Some(wire::scan(&self.me, scan, part.to, &part.entries))
            }
        };
        if follower.acked >= last {
            if let Some(lacking) = follower.lacking.take() {
                self.stats.slowest = self.stats.slowest.max(now.saturating_since(lacking));
            }
            (follower.probe, follower.delay) = (None, FIRST_PROBE);
        } else {
            follower.probe = Some(now + follower.delay);
            self.soonest = self.soonest.min(now + follower.delay);
        }
        if let Some(message) = message {
            self.send_to(&pid, message);
        }
        self.check_waits();
        Some(())
    }

    /// Tells the followers what was written, in one message for all that have the same.
    pub(super) fn flush(&mut self) {
        let version = self.own.version();
        let now = self.now;
        self.flushed = version;
        let mut groups: BTreeMap<u64, Vec<To>> = BTreeMap::new();
        for follower in self.peers.values_mut().filter_map(|peer| peer.follower.as_mut()) {
            if follower.acked < version {
                follower.lacking = follower.lacking.or(Some(now));
                let probe = *follower.probe.get_or_insert(now + follower.delay);
                self.soonest = self.soonest.min(probe);
            }
            if follower.streaming && follower.sent < version {
                groups.entry(follower.sent).or_default().push(To::Pid(follower.pid.clone()));
            }
        }
        for (base, to) in groups {
            let part = self.own.since(base, self.config.part());
            for peer in self.peers.values_mut() {
                let Some(follower) = peer.follower.as_mut().filter(|f| f.streaming && f.sent == base) else {
                    continue;
                };
                match &part {
                    Some(part) => {
                        follower.sent = part.to;
                        follower.streaming = part.to == version;
                    }
                    None => {
                        follower.streaming = false;
                        follower.ask = true;
                        self.asking = true;
                    }
                }
            }
            if let Some(part) = part {
                self.stats.pushed += to.len() as u64;
                let last = part.to == version;
                let message = wire::writes(&self.me, 0, base, &part, last);
                self.actions.push_back(Action::Send { to, message });
            }
        }
        if std::mem::take(&mut self.asking) {
            let mut to = Vec::new();
            for follower in self.peers.values_mut().filter_map(|peer| peer.follower.as_mut()) {
                if std::mem::take(&mut follower.ask) {
                    to.push(To::Pid(follower.pid.clone()));
                }
            }
            if !to.is_empty() {
                self.actions.push_back(Action::Send { to, message: wire::head(&self.me, version) });
            }
        }
    }

    // -- time ----------------------------------------------------------------------------------------------------------

    /// Does what is due, and finds out when the next is.
    pub(super) fn time(&mut self) {
        let now = self.now;
        let version = self.own.version();
        self.soonest = Mono(i64::MAX);
        let nodes: Vec<Atom> = self.peers.keys().cloned().collect();
        for node in nodes {
            let Some(peer) = self.peers.get_mut(&node) else { continue };
            let mut hello = None;
            if let Some(waiting) = peer.hello.as_mut().filter(|hello| hello.again <= now) {
                (waiting.said, waiting.again) = (now, now + waiting.delay);
                waiting.delay = (waiting.delay * 2).min(MAX_HELLO);
                hello = Some(waiting.tag);
            }
            if let Some(follower) = peer.follower.as_mut().filter(|f| f.probe.is_some_and(|at| at <= now)) {
                follower.delay = (follower.delay * 2).min(MAX_PROBE);
                follower.probe = (follower.acked < version).then_some(now + follower.delay);
                follower.ask = follower.probe.is_some();
                self.asking |= follower.ask;
            }
            let following = peer.following.as_ref();
            let pull = following.is_some_and(|following| following.pulling.is_some_and(|at| at <= now));
            let ack = following.is_some_and(|following| following.ack.is_some_and(|at| at <= now));
            if let Some(tag) = hello {
                self.say_hello(&node, tag);
            }
            if pull {
                self.pull(&node);
            } else if ack {
                self.acknowledge(&node);
            }
        }
        if self.mutant.is(super::Mutant::NoProbe) {
            self.asking = false;
            self.peers.values_mut().filter_map(|peer| peer.follower.as_mut()).for_each(|f| f.ask = false);
        }
        self.held.retain(|_, held| held.lost.is_none_or(|expires| expires > now));
        self.expire_waits();
        let peers = self.peers.values().flat_map(|peer| {
            let hello = peer.hello.as_ref().map(|hello| hello.again);
            let following = peer.following.as_ref();
            let pulling = following.and_then(|following| following.pulling);
            let ack = following.and_then(|following| following.ack);
            let probe = peer.follower.as_ref().and_then(|follower| follower.probe);
            [hello, pulling, ack, probe].into_iter().flatten()
        });
        let held = self.held.values().filter_map(|held| held.lost);
        let waits = self.waits.values().map(|wait| wait.deadline);
        self.soonest = peers.chain(held).chain(waits).min().unwrap_or(Mono(i64::MAX));
    }
}
