//! What this member has granted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foundation_proto::Mono;
use foundation_proto::etf::Pid;

use super::wire::Ask;
use crate::Key;

/// The grants of this member, each to one claim until it runs out.
#[derive(Debug)]
pub(super) struct Voter {
    /// Before this, an earlier incarnation of this member may have granted anything.
    abstains: Mono,
    grants: BTreeMap<Key, Grant>,
    expiries: BTreeSet<(Mono, Key)>,
}

#[derive(Debug)]
struct Grant {
    holder: Pid,
    claim: u64,
    until: Mono,
    pid: Pid,
}

impl Voter {
    pub(super) fn new(abstains: Mono) -> Self {
        Self { abstains, grants: BTreeMap::new(), expiries: BTreeSet::new() }
    }

    /// Grants a name, or refuses it. `mutants`: vote although it should abstain, and although another has the name.
    pub(super) fn vote(
        &mut self,
        now: Mono,
        ask: &Ask,
        hold: Duration,
        max: usize,
        mutants: (bool, bool),
    ) -> bool {
        self.expire(now);
        if now < self.abstains && !mutants.0 {
            return false;
        }
        match self.grants.get(&ask.name) {
            Some(grant) if (grant.holder != ask.holder || grant.claim != ask.claim) && !mutants.1 => {
                return false;
            }
            None if self.grants.len() >= max => return false,
            _ => {}
        }
        let until = now + hold;
        let grant = Grant { holder: ask.holder.clone(), claim: ask.claim, until, pid: ask.pid.clone() };
        if let Some(before) = self.grants.insert(ask.name.clone(), grant) {
            self.expiries.remove(&(before.until, ask.name.clone()));
        }
        self.expiries.insert((until, ask.name.clone()));
        true
    }

    pub(super) fn release(&mut self, name: &Key, holder: &Pid, claim: u64) {
        let its = self.grants.get(name).is_some_and(|grant| grant.holder == *holder && grant.claim == claim);
        if its && let Some(grant) = self.grants.remove(name) {
            self.expiries.remove(&(grant.until, name.clone()));
        }
    }

    pub(super) fn expire(&mut self, now: Mono) {
        while let Some((_, name)) = self.expiries.first().filter(|(until, _)| *until <= now).cloned() {
            self.expiries.pop_first();
            self.grants.remove(&name);
        }
    }

    pub(super) fn granted(&self, now: Mono, name: &Key) -> Option<&Pid> {
        self.grants.get(name).filter(|grant| grant.until > now).map(|grant| &grant.pid)
    }

    pub(super) fn next_expiry(&self) -> Option<Mono> {
        self.expiries.first().map(|(until, _)| *until)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.grants.len()
    }
}
