use std::collections::BTreeMap;

use foundation_proto::etf::{Pid, Term};

use crate::Key;

/// Who is in which group, and how often; the latest member first, as OTP lists them.
#[derive(Debug, Default)]
pub(super) struct Membership {
    groups: BTreeMap<Key, Vec<Pid>>,
    /// The groups of each member, with repetitions, so that a death need not search all groups.
    of: BTreeMap<Pid, Vec<Key>>,
}

impl Membership {
    pub(super) fn get(&self, group: &Term) -> &[Pid] {
        self.groups.get(&Key(group.clone())).map_or(&[], Vec::as_slice)
    }

    pub(super) fn contains(&self, pid: &Pid) -> bool {
        self.of.contains_key(pid)
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = (&Term, &[Pid])> {
        self.groups.iter().map(|(Key(group), members)| (group, members.as_slice()))
    }

    pub(super) fn join(&mut self, group: &Term, pids: &[Pid]) {
        if pids.is_empty() {
            return;
        }
        let key = Key(group.clone());
        for pid in pids {
            self.of.entry(pid.clone()).or_default().push(key.clone());
        }
        let members = self.groups.entry(key).or_default();
        members.splice(0..0, pids.iter().cloned());
    }

    /// Removes each of `pids` once and returns those that were there.
    pub(super) fn leave(&mut self, group: &Term, pids: &[Pid]) -> Vec<Pid> {
        let key = Key(group.clone());
        let Some(members) = self.groups.get_mut(&key) else { return Vec::new() };
        let mut left = Vec::new();
        for pid in pids {
            if let Some(at) = members.iter().position(|member| member == pid) {
                members.remove(at);
                left.push(pid.clone());
            }
        }
        if members.is_empty() {
            self.groups.remove(&key);
        }
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
        for key in &keys {
            if let Some(members) = self.groups.get_mut(key) {
                if let Some(at) = members.iter().position(|member| member == pid) {
                    members.remove(at);
                }
                if members.is_empty() {
                    self.groups.remove(key);
                }
            }
        }
        keys.into_iter().map(|Key(group)| group).collect()
    }
}
