use std::collections::BTreeMap;

use foundation_proto::etf::{Pid, Term};

use crate::Key;

/// Who is in which group, and how often; the latest member first, as OTP lists them.
#[derive(Debug, Default)]
pub(super) struct Members(BTreeMap<Key, Vec<Pid>>);

impl Members {
    pub(super) fn get(&self, group: &Term) -> &[Pid] {
        self.0.get(&Key(group.clone())).map_or(&[], Vec::as_slice)
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = (&Term, &[Pid])> {
        self.0.iter().map(|(Key(group), members)| (group, members.as_slice()))
    }

    pub(super) fn join(&mut self, group: &Term, pids: &[Pid]) {
        if !pids.is_empty() {
            let members = self.0.entry(Key(group.clone())).or_default();
            members.splice(0..0, pids.iter().cloned());
        }
    }

    /// Removes each of `pids` once and returns those that were there.
    pub(super) fn leave(&mut self, group: &Term, pids: &[Pid]) -> Vec<Pid> {
        let key = Key(group.clone());
        let Some(members) = self.0.get_mut(&key) else { return Vec::new() };
        let mut left = Vec::new();
        for pid in pids {
            if let Some(at) = members.iter().position(|member| member == pid) {
                members.remove(at);
                left.push(pid.clone());
            }
        }
        if members.is_empty() {
            self.0.remove(&key);
        }
        left
    }
}

/// The same, and the groups of each member, with repetitions, so that a death need not search all groups.
#[derive(Debug, Default)]
pub(super) struct Membership {
    members: Members,
    of: BTreeMap<Pid, Vec<Key>>,
}

impl Membership {
    pub(super) fn get(&self, group: &Term) -> &[Pid] {
        self.members.get(group)
    }

    pub(super) fn contains(&self, pid: &Pid) -> bool {
        self.of.contains_key(pid)
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = (&Term, &[Pid])> {
        self.members.groups()
    }

    pub(super) fn join(&mut self, group: &Term, pids: &[Pid]) {
        for pid in pids {
            self.of.entry(pid.clone()).or_default().push(Key(group.clone()));
        }
        self.members.join(group, pids);
    }

    /// Removes each of `pids` once and returns those that were there.
    pub(super) fn leave(&mut self, group: &Term, pids: &[Pid]) -> Vec<Pid> {
        let left = self.members.leave(group, pids);
        let key = Key(group.clone());
        for pid in &left {
            if let Some(groups) = self.of.get_mut(pid) {
                if let Some(at) = groups.iter().position(|group| *group == key) {
                    groups.swap_remove(at);
                }
                if groups.is_empty() {
                    self.of.remove(pid);
                }
            }
        }
        left
    }

    /// Removes a member from everything; a group is listed as often as it was a member of it.
    pub(super) fn remove(&mut self, pid: &Pid) -> Vec<Term> {
        let mut keys = self.of.remove(pid).unwrap_or_default();
        keys.sort();
        for Key(group) in &keys {
            self.members.leave(group, std::slice::from_ref(pid));
        }
        keys.into_iter().map(|Key(group)| group).collect()
    }
}
