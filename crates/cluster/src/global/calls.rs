//! Calls to several nodes at once, as `gen_server:multi_call/3` makes them, and the locks that are set by them.

use std::collections::{BTreeMap, BTreeSet};

use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Term};

use super::locks::LockId;
use super::{CALL_TIMEOUT, Global};
use crate::message::{atom, tuple_of};

/// Who waits for a round of calls.
#[derive(Clone, Copy, Debug)]
pub(super) enum Caller {
    Locker,
    Registrar,
    /// The command that sets a lock.
    User(u64),
}

/// One request to several nodes.
#[derive(Debug)]
struct Round {
    caller: Caller,
    /// The lock that is being set, if it is about one.
    lock: Option<LockId>,
    asked: usize,
    waiting: BTreeSet<Atom>,
    /// The nodes that have answered `true`.
    yes: Vec<Atom>,
    refused: bool,
    deadline: Mono,
}

/// See the [module documentation](self).
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// By tag: the node that is to answer, and the round.
    open: BTreeMap<i64, (Atom, u64)>,
    rounds: BTreeMap<u64, Round>,
}

impl Calls {
    pub(super) fn is_empty(&self) -> bool {
        self.rounds.is_empty()
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        self.rounds.values().map(|round| round.deadline).min()
    }
}

impl Global {
    /// Sets a lock on nodes; all or nothing (`set_lock_on_nodes`).
    pub(super) fn set_lock_on(&mut self, now: Mono, lock: LockId, nodes: &[Atom], caller: Caller) {
        let here = nodes.contains(self.node());
        if nodes.len() > 1 && here && !self.locks.can_set(&lock) {
            return self.round_done(now, caller, false);
        }
        let request = tuple_of([atom("set_lock"), lock.to_term()]);
        let mut round = self.round(now, caller, nodes);
        if here {
            let me = self.me.clone();
            if self.set_local_lock(&lock, &me) {
                round.yes.push(me.node);
            } else {
                round.refused = true;
            }
        }
        round.lock = Some(lock);
        self.call_all(now, round, nodes, &request);
    }

    /// Sends a request to nodes and waits for their answers, whatever they are. This node is not asked.
    pub(super) fn multi_call(&mut self, now: Mono, request: &Term, nodes: &[Atom], caller: Caller) {
        let round = self.round(now, caller, nodes);
        self.call_all(now, round, nodes, request);
    }

    fn round(&self, now: Mono, caller: Caller, nodes: &[Atom]) -> Round {
        Round {
            caller,
            lock: None,
            asked: nodes.len(),
            waiting: BTreeSet::new(),
            yes: Vec::new(),
            refused: false,
            deadline: now + CALL_TIMEOUT,
        }
    }

    /// Nodes that are not connected, nor about to be, count as not asked.
    fn call_all(&mut self, now: Mono, mut round: Round, nodes: &[Atom], request: &Term) {
        let number = self.number();
        for node in nodes {
            let reachable = self.connected.contains(node) || self.greeting.contains_key(node);
            if node == self.node() || !reachable || !round.waiting.insert(node.clone()) {
                continue;
            }
            let tag = self.send_call(node, request.clone());
            self.calls.open.insert(tag, (node.clone(), number));
        }
        self.calls.rounds.insert(number, round);
        self.finish_round(now, number);
    }

    fn send_call(&mut self, node: &Atom, request: Term) -> i64 {
        let tag = i64::try_from(self.number()).unwrap_or(i64::MAX);
        let from = tuple_of([Term::Pid(self.me.clone()), Term::Integer(tag)]);
        self.send_reliably(node, tuple_of([atom("$gen_call"), from, request]));
        tag
    }

    /// Takes a lock away on nodes. Nobody waits for the answers: what is sent later arrives later.
    pub(super) fn del_lock_on(&mut self, lock: &LockId, nodes: &[Atom]) {
        for node in nodes {
            if node == self.node() {
                let me = self.me.clone();
                self.del_local_lock(lock, &me);
            } else if self.connected.contains(node) || self.greeting.contains_key(node) {
                self.send_call(node, tuple_of([atom("del_lock"), lock.to_term()]));
            }
        }
    }

    /// The lock on the greatest node is taken away last, for the others ask for that one first (`delete_global_lock`).
    pub(super) fn del_names_lock(&mut self, lock: &LockId, nodes: &[Atom]) {
        let Some(boss) = nodes.iter().max() else { return };
        let others: Vec<Atom> = nodes.iter().filter(|node| *node != boss).cloned().collect();
        self.del_lock_on(lock, &others);
        self.del_lock_on(lock, std::slice::from_ref(boss));
    }

    /// An answer to a call of this process. Late ones are nobody's.
    pub(super) fn reply(&mut self, now: Mono, tag: i64, reply: &Term) {
        let Some((node, number)) = self.calls.open.remove(&tag) else { return };
        if let Some(round) = self.calls.rounds.get_mut(&number) {
            round.waiting.remove(&node);
            if round.lock.is_some() {
                if reply.as_bool() == Some(true) {
                    round.yes.push(node);
                } else {
                    round.refused = true;
                }
            }
        }
        self.finish_round(now, number);
    }

    /// A node that is gone will not answer; it counts as not asked.
    pub(super) fn forget_calls(&mut self, now: Mono, node: &Atom) {
        let gone: Vec<(i64, u64)> = self
            .calls
            .open
            .iter()
            .filter(|(_, (n, _))| n == node)
            .map(|(tag, (_, number))| (*tag, *number))
            .collect();
        for (tag, number) in gone {
            self.calls.open.remove(&tag);
            if let Some(round) = self.calls.rounds.get_mut(&number) {
                round.waiting.remove(node);
            }
            self.finish_round(now, number);
        }
    }

    pub(super) fn expire_calls(&mut self, now: Mono) {
        let late: Vec<u64> = self
            .calls
            .rounds
            .iter()
            .filter(|(_, round)| round.deadline <= now)
            .map(|(number, _)| *number)
            .collect();
        for number in late {
            self.calls.open.retain(|_, (_, of)| *of != number);
            if let Some(round) = self.calls.rounds.get_mut(&number) {
                let silent: Vec<Atom> = std::mem::take(&mut round.waiting).into_iter().collect();
                round.refused = true;
                // They may still set it.
                if let Some(lock) = round.lock.clone() {
                    self.del_lock_on(&lock, &silent);
                }
            }
            self.finish_round(now, number);
        }
    }

    fn finish_round(&mut self, now: Mono, number: u64) {
        if self.calls.rounds.get(&number).is_none_or(|round| !round.waiting.is_empty()) {
            return;
        }
        let Some(round) = self.calls.rounds.remove(&number) else { return };
        if let Some(lock) = round.lock.filter(|_| round.refused && round.asked > 1) {
            let free: Vec<Atom> = round.yes.into_iter().filter(|node| !self.is_held(&lock, node)).collect();
            self.del_lock_on(&lock, &free);
        }
        self.round_done(now, round.caller, !round.refused);
    }

    fn round_done(&mut self, now: Mono, caller: Caller, agreed: bool) {
        match caller {
            Caller::Locker => self.locker_answered(now, agreed),
            Caller::Registrar => self.registrar_answered(now, agreed),
            Caller::User(command) => self.user_lock_answered(now, command, agreed),
        }
    }
}
