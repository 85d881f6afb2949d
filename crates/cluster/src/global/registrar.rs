//! What programs on this node change: names, one change after the other under the lock on all known nodes, and locks.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, Term};

use super::calls::Caller;
use super::locks::{Holder, LockId};
use super::{Action, Global, MonitorId, Watched, pause};
use crate::message::{atom, tuple_of};

/// A change of the names.
#[derive(Clone, Debug)]
pub(super) enum Task {
    Register { name: Term, pid: Pid, method: Term, anyway: bool },
    Unregister { name: Term },
}

/// See the [module documentation](self).
#[derive(Debug, Default)]
pub(super) struct Registrar {
    queue: VecDeque<(u64, Task)>,
    running: Option<Running>,
    /// Locks that are being set, by command.
    setting: BTreeMap<u64, Setting>,
    held: Vec<Held>,
}

#[derive(Debug)]
struct Running {
    command: u64,
    task: Task,
    stage: Stage,
    times: u32,
    boss: Atom,
    nodes: Vec<Atom>,
}

#[derive(Debug)]
enum Stage {
    LockBoss,
    LockAll,
    Change { result: bool },
    Sleep { until: Mono },
}

/// A lock on its way.
#[derive(Debug)]
struct Setting {
    lock: LockId,
    owner: Pid,
    nodes: Vec<Atom>,
    retries: Option<u32>,
    times: u32,
    until: Option<Mono>,
}

/// A lock that a process of this node holds.
#[derive(Debug)]
struct Held {
    lock: LockId,
    owner: Pid,
    nodes: Vec<Atom>,
    monitor: Option<MonitorId>,
}

impl Registrar {
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.running.is_none() && self.setting.is_empty() && self.held.is_empty()
    }

    pub(super) fn wake_at(&self) -> Option<Mono> {
        let asleep = match &self.running {
            Some(Running { stage: Stage::Sleep { until }, .. }) => Some(*until),
            _ => None,
        };
        self.setting.values().filter_map(|setting| setting.until).chain(asleep).min()
    }
}

impl Global {
    pub(super) fn enqueue(&mut self, now: Mono, command: u64, task: Task) {
        self.registrar.queue.push_back((command, task));
        self.next_task(now);
    }

    fn next_task(&mut self, now: Mono) {
        if self.registrar.running.is_some() {
            return;
        }
        let Some((command, task)) = self.registrar.queue.pop_front() else { return };
        let (boss, nodes) = (self.node().clone(), Vec::new());
        self.registrar.running =
            Some(Running { command, task, stage: Stage::LockBoss, times: 0, boss, nodes });
        self.lock_boss(now);
    }

    fn names_lock(&self) -> LockId {
        LockId::names(Term::Pid(self.me.clone()))
    }

    /// The greatest node is locked first, so that those who want the lock at the same time meet there.
    fn lock_boss(&mut self, now: Mono) {
        let nodes: Vec<Atom> =
            std::iter::once(self.node().clone()).chain(self.known.keys().cloned()).collect();
        let lock = self.names_lock();
        let Some(running) = &mut self.registrar.running else { return };
        running.stage = Stage::LockBoss;
        running.boss = nodes.iter().max().unwrap_or(&running.boss).clone();
        running.nodes = nodes;
        let boss = [running.boss.clone()];
        self.set_lock_on(now, lock, &boss, Caller::Registrar);
    }

    pub(super) fn registrar_answered(&mut self, now: Mono, agreed: bool) {
        let lock = self.names_lock();
        let Some(running) = &mut self.registrar.running else { return };
        match &running.stage {
            Stage::LockBoss if agreed => {
                running.stage = Stage::LockAll;
                let nodes = running.nodes.clone();
                self.set_lock_on(now, lock, &nodes, Caller::Registrar);
            }
            Stage::LockBoss => self.sleep(now),
            Stage::LockAll => {
                let nodes = running.nodes.clone();
                let boss = [running.boss.clone()];
                // A node that has become known meanwhile is not locked.
                if agreed && self.known.keys().all(|node| nodes.contains(node)) {
                    return self.change(now);
                }
                self.del_lock_on(&lock, if agreed { &nodes } else { &boss });
                self.sleep(now);
            }
            Stage::Change { result } => {
                let result = *result;
                self.end_task(now, result);
            }
            Stage::Sleep { .. } => {}
        }
    }

    fn sleep(&mut self, now: Mono) {
        let times = self.registrar.running.as_ref().map_or(0, |running| running.times);
        let until = now + Duration::from_millis(1 + self.random.below_u64(pause(times)));
        if let Some(running) = &mut self.registrar.running {
            running.times += 1;
            running.stage = Stage::Sleep { until };
        }
    }

    /// The lock is set everywhere.
    fn change(&mut self, now: Mono) {
        let Some(running) = &mut self.registrar.running else { return };
        let nodes = running.nodes.clone();
        let by = Holder::Process(self.me.clone());
        match running.task.clone() {
            Task::Register { name, pid, method, anyway } => {
                let free = self.names.get(&name).is_none() && !self.names.has_name(&pid);
                if !free && !anyway {
                    return self.end_task(now, false);
                }
                running.stage = Stage::Change { result: true };
                let request =
                    tuple_of([atom("register"), name.clone(), Term::Pid(pid.clone()), method.clone()]);
                self.insert_name(name, pid, method, None, &by);
                self.multi_call(now, &request, &nodes, Caller::Registrar);
            }
            Task::Unregister { name } => {
                if self.names.get(&name).is_none() {
                    return self.end_task(now, true);
                }
                running.stage = Stage::Change { result: true };
                self.delete_name(&name);
                self.multi_call(now, &tuple_of([atom("unregister"), name]), &nodes, Caller::Registrar);
            }
        }
    }

    fn end_task(&mut self, now: Mono, result: bool) {
        let lock = self.names_lock();
        let Some(running) = self.registrar.running.take() else { return };
        self.del_names_lock(&lock, &running.nodes);
        self.actions.push_back(Action::Done { command: running.command, result });
        self.next_task(now);
    }

    // -- locks -----------------------------------------------------------------------------------------------------------

    pub(super) fn set_user_lock(
        &mut self,
        now: Mono,
        command: u64,
        lock: LockId,
        owner: Pid,
        nodes: Vec<Atom>,
        retries: Option<u32>,
    ) {
        let setting =
            Setting { lock: lock.clone(), owner, nodes: nodes.clone(), retries, times: 1, until: None };
        self.registrar.setting.insert(command, setting);
        self.set_lock_on(now, lock, &nodes, Caller::User(command));
    }

    pub(super) fn user_lock_answered(&mut self, now: Mono, command: u64, agreed: bool) {
        let Some(setting) = self.registrar.setting.get_mut(&command) else { return };
        if !agreed && setting.retries != Some(0) {
            setting.retries = setting.retries.map(|left| left - 1);
            let times = setting.times;
            setting.times += 1;
            let until = now + Duration::from_millis(1 + self.random.below_u64(pause(times)));
            if let Some(setting) = self.registrar.setting.get_mut(&command) {
                setting.until = Some(until);
            }
            return;
        }
        let Some(setting) = self.registrar.setting.remove(&command) else { return };
        if agreed {
            let Setting { lock, owner, nodes, .. } = setting;
            // Held since before: the nodes may be others.
            let monitor = self.watch(&owner, Watched::Owner(lock.clone(), owner.clone()));
            self.registrar.held.push(Held { lock, owner, nodes, monitor });
        }
        self.actions.push_back(Action::Done { command, result: agreed });
    }

    /// Whether a process of this node holds the lock on a node.
    pub(super) fn is_held(&self, lock: &LockId, node: &Atom) -> bool {
        self.registrar.held.iter().any(|held| held.lock == *lock && held.nodes.contains(node))
    }

    /// A process gives a lock up, or has ended. Others of this node with the same requester keep it.
    pub(super) fn release(&mut self, lock: &LockId, owner: &Pid) {
        let (gone, kept): (Vec<Held>, Vec<Held>) = std::mem::take(&mut self.registrar.held)
            .into_iter()
            .partition(|held| held.lock == *lock && held.owner == *owner);
        self.registrar.held = kept;
        for held in gone {
            self.unwatch(held.monitor);
            let free: Vec<Atom> = held.nodes.into_iter().filter(|node| !self.is_held(lock, node)).collect();
            self.del_lock_on(lock, &free);
        }
    }

    pub(super) fn wake_registrar(&mut self, now: Mono) {
        if let Some(Running { stage: Stage::Sleep { until }, .. }) = &self.registrar.running
            && *until <= now
        {
            self.lock_boss(now);
        }
        let due: Vec<u64> = self
            .registrar
            .setting
            .iter()
            .filter(|(_, setting)| setting.until.is_some_and(|until| until <= now))
            .map(|(command, _)| *command)
            .collect();
        for command in due {
            let Some(setting) = self.registrar.setting.get_mut(&command) else { continue };
            setting.until = None;
            let (lock, nodes) = (setting.lock.clone(), setting.nodes.clone());
            self.set_lock_on(now, lock, &nodes, Caller::User(command));
        }
    }
}
