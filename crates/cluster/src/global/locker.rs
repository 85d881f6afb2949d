//! The locker: sets the lock on this partition, together with the locker of a node of another one.
//!
//! One at a time. Either side begins; the one that has its partition says so, and the other then locks its own and answers. Both
//! use the same requester, so that a node that belongs to both partitions is locked for both.

use std::collections::VecDeque;
use std::time::Duration;

use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, Term};

use super::calls::Caller;
use super::locks::LockId;
use super::{Global, To, VERSION_ACKNOWLEDGED};
use crate::message::{atom, list_of};

/// A node that wants to be locked together with.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Him {
    pub(super) node: Atom,
    pub(super) locker: Pid,
    pub(super) version: i64,
    pub(super) my_tag: i64,
    pub(super) his_tag: Term,
}

/// What the server tells its locker. It takes some only in some of its phases; the others wait.
#[derive(Debug)]
pub(super) enum Message {
    /// A session has begun (`his_the_locker`).
    Him(Him),
    /// A session is over (`cancel`), with what to tell the partition before the lock is given up.
    Cancel { node: Atom, tag: Option<i64>, tell: Option<Tell> },
    /// The other locker has its partition, or could not get it.
    LockSet { locker: Pid, set: bool, tag: Option<i64> },
}

/// `new_nodes`, and for whom.
#[derive(Debug)]
pub(super) struct Tell {
    pub(super) nodes: Vec<Atom>,
    pub(super) message: Term,
}

/// See the [module documentation](self).
#[derive(Debug, Default)]
pub(super) struct Locker {
    inbox: VecDeque<Message>,
    waiting: Vec<Him>,
    phase: Phase,
    just_synced: bool,
    attempt_at: Option<Mono>,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Idle,
    /// Locks are being set.
    Locking(Attempt),
    /// This partition is locked; the other locker has been told.
    AwaitLockSet { him: Him, lock: LockId, nodes: Vec<Atom> },
    /// Both are locked; names are exchanged.
    AwaitCancel { node: Atom, tag: i64, lock: LockId, nodes: Vec<Atom> },
}

#[derive(Debug)]
struct Attempt {
    him: Him,
    lock: LockId,
    /// The other one has its partition already.
    answers: bool,
    stage: Stage,
    boss: Atom,
    /// Where it is set.
    so_far: Vec<Atom>,
    /// Where it is being set.
    asked: Vec<Atom>,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Boss,
    Both,
    Known,
}

impl Locker {
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle) && self.waiting.is_empty() && self.inbox.is_empty()
    }

    pub(super) fn attempt_at(&self) -> Option<Mono> {
        self.attempt_at
    }

    pub(super) fn tell(&mut self, message: Message) {
        self.inbox.push_back(message);
    }

    fn find(&self, node: &Atom) -> Option<&Him> {
        self.waiting.iter().find(|him| him.node == *node)
    }

    fn remove(&mut self, node: &Atom, tag: Option<i64>) {
        if let Some(place) = self.waiting.iter().position(|him| him.node == *node && Some(him.my_tag) == tag)
        {
            self.waiting.remove(place);
        }
    }
}

impl Global {
    /// Goes on as far as possible.
    pub(super) fn run_locker(&mut self, now: Mono) {
        loop {
            let went_on = match &self.locker.phase {
                Phase::Idle => self.idle(now),
                Phase::Locking(_) => false,
                Phase::AwaitLockSet { .. } => self.await_lock_set(),
                Phase::AwaitCancel { .. } => self.await_cancel(),
            };
            if !went_on {
                return;
            }
        }
    }

    fn idle(&mut self, now: Mono) -> bool {
        let Some(message) = self.locker.inbox.pop_front() else {
            if self.locker.waiting.is_empty() {
                self.locker.attempt_at = None;
            } else if self.locker.attempt_at.is_none() {
                self.locker.attempt_at = Some(now + self.attempt_pause());
            }
            return false;
        };
        self.locker.attempt_at = None;
        match message {
            Message::Him(him) => self.locker.waiting.push(him),
            Message::Cancel { node, tag, tell: None } => self.locker.remove(&node, tag),
            Message::Cancel { .. } | Message::LockSet { set: false, .. } => {}
            Message::LockSet { locker, set: true, tag } => {
                let him = self
                    .locker
                    .find(&locker.node)
                    .filter(|him| tag.is_none_or(|tag| tag == him.my_tag))
                    .cloned();
                match him {
                    Some(him) => {
                        let him = Him { locker, ..him };
                        self.lock_partition(now, him, true);
                    }
                    // Not in a session with it: as OTP does, in the oldest form, and straight to the locker.
                    None => {
                        let message = self.lock_set(false, None);
                        self.send(To::Pid(locker), message);
                    }
                }
            }
        }
        true
    }

    /// How long to wait for others before beginning: it has to be more than nothing, or nobody else of the partition ever
    /// gets the lock.
    fn attempt_pause(&mut self) -> Duration {
        if std::mem::take(&mut self.locker.just_synced) {
            Duration::ZERO
        } else if self.known.is_empty() {
            Duration::from_millis(200)
        } else {
            Duration::from_millis((1000 + 100 * self.known.len() as u64).min(3000))
        }
    }

    /// Begins, if it is time to and nobody has the lock (`select_node`). Nodes of this host go first.
    pub(super) fn wake_locker(&mut self, now: Mono) {
        if self.locker.attempt_at.is_none_or(|at| at > now) {
            return;
        }
        self.locker.attempt_at = None;
        if !matches!(self.locker.phase, Phase::Idle) || self.locks.is_names_lock_set() {
            return;
        }
        let known = &self.known;
        self.locker.waiting.retain(|him| !known.contains_key(&him.node));
        let here = host(self.node()).to_owned();
        let is_near = |him: &&Him| host(&him.node) == here;
        let near = self.locker.waiting.iter().filter(is_near).count() as u64;
        let all = self.locker.waiting.len() as u64;
        if all == 0 {
            return;
        }
        let chosen = self.random.below_u64(if near > 0 { near } else { all });
        let mut candidates = self.locker.waiting.iter().filter(|him| near == 0 || is_near(him));
        if let Some(him) = usize::try_from(chosen).ok().and_then(|n| candidates.nth(n)).cloned() {
            self.lock_partition(now, him, false);
        }
    }

    /// `lock_nodes_safely`: the greatest node, then this one and the other one, then all.
    fn lock_partition(&mut self, now: Mono, him: Him, answers: bool) {
        let mut lockers = [Term::Pid(self.me.clone()), Term::Pid(him.locker.clone())];
        lockers.sort_by(|a, b| a.cmp_erlang(b));
        let lock = LockId::names(list_of(lockers));
        let boss = self.boss();
        let possible = boss == *self.node() || self.locks.can_set(&lock);
        let attempt = Attempt {
            him,
            lock: lock.clone(),
            answers,
            stage: Stage::Boss,
            boss: boss.clone(),
            so_far: Vec::new(),
            asked: vec![boss.clone()],
        };
        self.locker.phase = Phase::Locking(attempt);
        if possible {
            self.set_lock_on(now, lock, &[boss], Caller::Locker);
        } else {
            self.locker_answered(now, false);
        }
    }

    fn boss(&self) -> Atom {
        self.known.keys().max().filter(|boss| *boss > self.node()).unwrap_or(self.node()).clone()
    }

    pub(super) fn locker_answered(&mut self, now: Mono, agreed: bool) {
        let Phase::Locking(mut attempt) = std::mem::take(&mut self.locker.phase) else { return };
        if !agreed {
            self.del_lock_on(&attempt.lock, &attempt.so_far);
            if attempt.answers {
                self.tell_lock_set(&attempt.him, false);
            }
            return;
        }
        let boss = attempt.boss.clone();
        attempt.so_far.append(&mut attempt.asked);
        let (stage, nodes): (_, Vec<Atom>) = match attempt.stage {
            Stage::Boss => {
                // The other node is locked too by the one that begins: neither can then lock without the other.
                let both = [self.node().clone(), attempt.him.node.clone()];
                let both = both.into_iter().take(if attempt.answers { 1 } else { 2 });
                (Stage::Both, both.filter(|node| *node != boss).collect())
            }
            Stage::Both => (Stage::Known, self.known.keys().filter(|node| **node != boss).cloned().collect()),
            Stage::Known => return self.partition_locked(attempt),
        };
        attempt.stage = stage;
        attempt.asked.clone_from(&nodes);
        let lock = attempt.lock.clone();
        self.locker.phase = Phase::Locking(attempt);
        self.set_lock_on(now, lock, &nodes, Caller::Locker);
    }

    fn partition_locked(&mut self, attempt: Attempt) {
        // Not those known now: a node that was lost meanwhile and is connected still has the lock.
        let Attempt { him, lock, answers, so_far: mut nodes, .. } = attempt;
        nodes.sort();
        nodes.dedup();
        self.tell_lock_set(&him, true);
        if answers {
            self.both_locked(him, lock, nodes);
        } else {
            self.locker.phase = Phase::AwaitLockSet { him, lock, nodes };
        }
    }

    /// The names can be exchanged.
    fn both_locked(&mut self, him: Him, lock: LockId, nodes: Vec<Atom>) {
        self.locker.remove(&him.node, Some(him.my_tag));
        self.locker.just_synced = true;
        let Him { node, my_tag: tag, .. } = him;
        self.locker.phase = Phase::AwaitCancel { node: node.clone(), tag, lock: lock.clone(), nodes };
        self.lock_is_set(&node, tag, &lock);
    }

    fn await_lock_set(&mut self) -> bool {
        let Phase::AwaitLockSet { him, .. } = &self.locker.phase else { return false };
        let (node, tag) = (him.node.clone(), him.my_tag);
        let concerns = |message: &Message| match message {
            Message::LockSet { locker, .. } => locker.node == node,
            Message::Cancel { node: n, tag: t, .. } => *n == node && *t == Some(tag),
            Message::Him(_) => false,
        };
        let Some(place) = self.locker.inbox.iter().position(concerns) else { return false };
        let Some(message) = self.locker.inbox.remove(place) else { return false };
        if let Message::LockSet { tag: Some(of), .. } = message
            && of != tag
        {
            return true; // of an earlier session
        }
        let Phase::AwaitLockSet { him, lock, nodes } = std::mem::take(&mut self.locker.phase) else {
            return false;
        };
        match message {
            Message::LockSet { set: true, .. } => self.both_locked(him, lock, nodes),
            Message::LockSet { .. } | Message::Him(_) => self.del_names_lock(&lock, &nodes),
            Message::Cancel { tell, .. } => {
                self.tell_partition(tell);
                self.del_names_lock(&lock, &nodes);
                self.locker.remove(&him.node, Some(tag));
            }
        }
        true
    }

    fn await_cancel(&mut self) -> bool {
        let Phase::AwaitCancel { node, tag, .. } = &self.locker.phase else { return false };
        let ends = |message: &Message| matches!(message, Message::Cancel { node: n, tag: t, .. } if n == node && *t == Some(*tag));
        let Some(place) = self.locker.inbox.iter().position(ends) else { return false };
        let Some(Message::Cancel { tell, .. }) = self.locker.inbox.remove(place) else { return false };
        let Phase::AwaitCancel { lock, nodes, .. } = std::mem::take(&mut self.locker.phase) else {
            return false;
        };
        // The partition hears of the new nodes before the lock is given up.
        self.tell_partition(tell);
        self.del_names_lock(&lock, &nodes);
        true
    }

    fn tell_partition(&mut self, tell: Option<Tell>) {
        let Some(Tell { nodes, message }) = tell else { return };
        for node in &nodes {
            self.cast(node, message.clone());
        }
    }

    fn lock_set(&self, set: bool, tag: Option<&Term>) -> Term {
        let known = list_of(self.known.keys().cloned().map(Term::Atom));
        let mut elements = vec![atom("lock_set"), Term::Pid(self.me.clone()), Term::from(set), known];
        elements.extend(tag.cloned());
        Term::tuple(elements)
    }

    fn tell_lock_set(&mut self, him: &Him, set: bool) {
        let tag = (him.version >= VERSION_ACKNOWLEDGED).then_some(&him.his_tag);
        let message = self.lock_set(set, tag);
        self.cast(&him.node, message);
    }
}

/// The part of a node name behind the `@`.
fn host(node: &Atom) -> &str {
    node.as_str().split_once('@').map_or("", |(_, host)| host)
}
