//! How processes end, and what that does to those who are linked to them or watch them.
//!
//! Nothing here recurses: a chain of a million linked processes ends as a list of work, not as a stack.

use std::sync::Arc;

use foundation_proto::Error;
use foundation_proto::dist::{ControlMessage, Lane, LaneClass, Target};
use foundation_proto::etf::{Atom, Pid, RawTerm, Term};

use super::id::RefWords;
use super::mailbox::{Envelope, Push};
use super::message::{Down, Exit, Message, Monitored};
use super::proc::{AliasKind, Answer, Entry, Monitor, Proc, State, WatcherKind};
use super::reason::Reason;
use crate::net::{Link, SendError};
use crate::node::NodeInner;

/// A process that has to end, and why.
type Death = (Arc<Proc>, Reason);

/// How an exit signal came about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ExitKind<'a> {
    /// A linked process ended; `None` as the connection is one of this node.
    Link(Option<&'a Arc<Link>>),
    /// `exit/2` was called; with priority if it was, and came through an alias that accepts it.
    Exit2 {
        /// The message of a process that traps exits goes before others.
        priority: bool,
    },
}

impl NodeInner {
    /// Ends a process and everything that its end brings down with it. Does nothing if it has ended.
    pub(crate) fn exit(&self, proc: &Arc<Proc>, reason: Reason) {
        let mut work = vec![(Arc::clone(proc), reason)];
        while let Some((proc, reason)) = work.pop() {
            self.end(&proc, reason, &mut work);
        }
    }

    fn end(&self, proc: &Arc<Proc>, reason: Reason, work: &mut Vec<Death>) {
        let Some(mut state) = proc.alive() else { return };
        proc.set_exited(&mut state, reason.clone());
        let name = state.name.take();
        let links = state.links.take();
        let references = core::mem::take(&mut state.references);
        let watchers = core::mem::take(&mut state.watchers);
        let task = state.task.take();
        drop(state);

        // From here on nobody finds the process, and nothing is sent in its name but what follows.
        self.processes.remove(proc.number);
        if let Some(name) = name {
            self.names.unregister(&name, proc);
        }
        proc.mailbox.close();
        if let Some(task) = task {
            task.abort();
        }

        // Links before monitors, as OTP does it.
        let lane = proc.lane();
        let raw = reason.to_raw();
        for (peer, active, connection) in links {
            match connection {
                None => {
                    if let Some(to) = self.process(&peer)
                        && let Some(death) = self.exit_signal(&to, &proc.pid, &reason, ExitKind::Link(None))
                    {
                        work.push((to, death));
                    }
                }
                Some(link) => {
                    link.mld().remove(proc.number);
                    if active {
                        let control = ControlMessage::Exit { from: proc.pid.clone(), to: peer };
                        transmit(&link, lane, &control, Some(&raw));
                    }
                }
            }
        }
        for (reference, watcher) in watchers {
            match watcher.by {
                WatcherKind::Local(number) => {
                    let Some((words, _)) = self.ids.words(&reference) else { continue };
                    if let Some(by) = self.processes.get(number)
                        && let Some(death) = self.down(&by, words, None, &reason)
                    {
                        work.push((by, death));
                    }
                }
                WatcherKind::Remote { link, pid } => {
                    link.mld().remove(proc.number);
                    let target = match watcher.name {
                        Some(name) => {
                            link.mld().remove_name_monitor(&reference);
                            Target::Name(name)
                        }
                        None => Target::Pid(proc.pid.clone()),
                    };
                    let control = ControlMessage::MonitorPExit { target, watcher: pid, reference };
                    transmit(&link, lane, &control, Some(&raw));
                }
            }
        }
        for (words, entry) in references {
            if let Some(monitor) = entry.monitor {
                self.release_monitor(proc, words, monitor);
            }
            if let Some(spawn) = entry.spawn {
                spawn.link.mld().remove(proc.number);
            }
        }
    }

    /// An exit signal arrives at a process. Returns the reason it has to end with, if it has to.
    pub(crate) fn exit_signal(
        &self,
        to: &Arc<Proc>,
        from: &Pid,
        reason: &Reason,
        kind: ExitKind<'_>,
    ) -> Option<Reason> {
        let mut state = to.alive()?;
        // The signal of a link that is not there, or is being removed, does not count.
        if let ExitKind::Link(connection) = kind {
            let active = state.links.exit_received(from)?;
            if let Some(link) = connection {
                link.mld().remove(to.number);
            }
            if !active {
                return None;
            }
        }
        act_on_exit(to, &mut state, from, reason, kind)
    }

    /// The `DOWN` of a monitor arrives at the process that watches. `link`: the connection it came through, `None` if the
    /// watched process is of this node. Returns the reason the watcher has to end with, if it has to.
    pub(crate) fn down(
        &self,
        watcher: &Arc<Proc>,
        words: RefWords,
        link: Option<&Arc<Link>>,
        reason: &Reason,
    ) -> Option<Reason> {
        let mut state = watcher.alive()?;
        let entry = state.references.get_mut(&words)?;
        let ours = match (&entry.monitor, link) {
            (Some(Monitor::Local { .. }), None) => true,
            (Some(Monitor::Remote { link: over, .. }), Some(link)) => Arc::ptr_eq(over, link),
            _ => false,
        };
        if !ours {
            return None;
        }
        if let Some(link) = link {
            link.mld().remove(watcher.number);
        }
        self.deliver_down(watcher, &mut state, words, reason)
    }

    /// Takes the monitor out of the entry and tells the owner that it fired.
    pub(crate) fn deliver_down(
        &self,
        watcher: &Proc,
        state: &mut State,
        words: RefWords,
        reason: &Reason,
    ) -> Option<Reason> {
        let entry = state.references.get_mut(&words)?;
        let object = match entry.monitor.take()? {
            Monitor::Local { pid, name, .. } => match name {
                Some(name) => Monitored::Name { name, node: self.name.clone() },
                None => Monitored::Pid(pid),
            },
            Monitor::Remote { link, target } => match target {
                Target::Pid(pid) => Monitored::Pid(pid),
                Target::Name(name) => Monitored::Name { name, node: link.peer().name.clone() },
            },
        };
        self.deliver_down_of(watcher, state, words, object, reason)
    }

    /// Tells the owner of a reference that what it monitored has ended.
    pub(crate) fn deliver_down_of(
        &self,
        watcher: &Proc,
        state: &mut State,
        words: RefWords,
        object: Monitored,
        reason: &Reason,
    ) -> Option<Reason> {
        let entry = state.references.get_mut(&words)?;
        if matches!(entry.alias, Some(AliasKind::Demonitor | AliasKind::ReplyDemonitor)) {
            entry.alias = None;
        }
        let priority = entry.priority_monitor;
        if let Some(waiting) = entry.waiting.take() {
            state.references.remove(&words);
            // A caller that gave up has dropped its end; then nobody wants this.
            let _ = waiting.send(Answer::Down(reason.clone()));
            return None;
        }
        if entry.alias.is_none() {
            state.references.remove(&words);
        }
        let down = Down { reference: self.ids.restore(words), object, reason: reason.clone() };
        overflow(watcher, Message::Down(Box::new(down)), priority)
    }

    /// Tells a process that a connection is gone: exit signals of links first, then `DOWN`s of pids, then those of names.
    /// Returns the reason it has to end with, if it has to.
    pub(crate) fn connection_lost(&self, proc: &Arc<Proc>, link: &Arc<Link>) -> Option<Reason> {
        let lost = |other: &Arc<Link>| Arc::ptr_eq(other, link);
        let mut state = proc.alive()?;
        state
            .watchers
            .retain(|watcher| !matches!(&watcher.by, WatcherKind::Remote { link, .. } if lost(link)));
        let mut death = None;
        for (peer, active) in state.links.remove_lost(|connection| connection.as_ref().is_some_and(lost)) {
            if active && death.is_none() {
                death = act_on_exit(proc, &mut state, &peer, &Reason::NOCONNECTION, ExitKind::Link(None));
            }
        }
        let mut by_pid = Vec::new();
        let mut by_name = Vec::new();
        let mut spawns = Vec::new();
        for (words, entry) in &mut state.references {
            match &entry.monitor {
                Some(Monitor::Remote { link, target: Target::Pid(_) }) if lost(link) => by_pid.push(*words),
                Some(Monitor::Remote { link, target: Target::Name(_) }) if lost(link) => {
                    by_name.push(*words);
                }
                _ => {}
            }
            if let Some(spawn) = entry.spawn.take_if(|spawn| lost(&spawn.link)) {
                spawns.push((*words, spawn));
            }
        }
        for (words, spawn) in spawns {
            state.references.remove(&words);
            let _ = spawn.reply.send(Err(crate::error::Error::no_connection(&link.peer().name)));
        }
        for words in by_pid.into_iter().chain(by_name) {
            let overflowed = self.deliver_down(proc, &mut state, words, &Reason::NOCONNECTION);
            death = death.or(overflowed);
        }
        death
    }

    /// Stops watching, on the side of what is watched.
    pub(crate) fn release_monitor(&self, watcher: &Proc, words: RefWords, monitor: Monitor) {
        let reference = self.ids.restore(words);
        match monitor {
            Monitor::Local { number, .. } => {
                if let Some(target) = self.processes.get(number) {
                    target.state().watchers.remove(&reference);
                }
            }
            Monitor::Remote { link, target } => {
                link.mld().remove(watcher.number);
                let control = ControlMessage::DemonitorP { watcher: watcher.pid.clone(), target, reference };
                transmit(&link, watcher.lane(), &control, None);
            }
        }
    }

    /// Removes what a reference of a process stands for, and whatever that has set up elsewhere.
    pub(crate) fn drop_entry(&self, owner: &Proc, words: RefWords, entry: Entry) {
        if let Some(monitor) = entry.monitor {
            self.release_monitor(owner, words, monitor);
        }
        if let Some(spawn) = entry.spawn {
            spawn.link.mld().remove(owner.number);
        }
    }
}

/// What an exit signal does to a process; see erts' "Processes", "Receiving Exit Signals".
fn act_on_exit(
    to: &Proc,
    state: &mut State,
    from: &Pid,
    reason: &Reason,
    kind: ExitKind<'_>,
) -> Option<Reason> {
    if to.is_system() {
        return None;
    }
    let exit2 = matches!(kind, ExitKind::Exit2 { .. });
    if exit2 && reason.is("kill") {
        return Some(Reason::KILLED);
    }
    if state.trap_exit {
        let priority = matches!(kind, ExitKind::Exit2 { priority: true });
        let exit = Exit { from: from.clone(), reason: reason.clone() };
        return overflow(to, Message::Exit(Box::new(exit)), priority);
    }
    // `exit(self(), normal)` is the one case in which `normal` ends a process.
    if reason.is("normal") && !(exit2 && *from == to.pid) {
        return None;
    }
    Some(reason.clone())
}

/// Delivers a message that cannot wait; returns the reason to end with if the mailbox has no room for it.
fn overflow(to: &Proc, message: Message, priority: bool) -> Option<Reason> {
    match to.mailbox.push(Envelope::from(message), priority) {
        Push::Done => None,
        Push::Full(messages) => Some(overflow_reason(messages)),
    }
}

/// `{mailbox_overflow, N}`.
pub(crate) fn overflow_reason(messages: usize) -> Reason {
    let count = i64::try_from(messages).unwrap_or(i64::MAX);
    Reason::from(Term::Tuple(
        [Term::Atom(Atom::new_static("mailbox_overflow")), Term::Integer(count)].into_iter().collect(),
    ))
}

/// Sends a signal that cannot fail for its sender: a connection that does not take it is on its way down, and then everything
/// across it fires. An exit reason that the peer could not read is replaced, because whoever is linked or watches must hear.
pub(crate) fn transmit(link: &Link, lane: Lane, control: &ControlMessage, payload: Option<&RawTerm>) {
    let plain = payload.map(RawTerm::to_plain);
    let mut sent = link.send(lane, control, plain.as_ref());
    if let Err(SendError::Refused(error)) = &sent
        && matches!(
            control,
            ControlMessage::Exit { .. } | ControlMessage::Exit2 { .. } | ControlMessage::MonitorPExit { .. }
        )
    {
        sent = link.send(lane, control, Some(&refusal(error).to_raw()));
    }
    if let Err(error) = sent {
        tracing::debug!(peer = link.peer().name.as_str(), %error, "a signal was not sent");
    }
}

/// The reason that Erlang has for a signal that a connection cannot carry; see [`Error`].
pub(crate) fn refusal(error: &Error) -> Reason {
    Reason::from(match error {
        Error::NotSupportedByPeer(_) => "notsup",
        Error::LimitExceeded { .. } => "system_limit",
        _ => "badarg",
    })
}

/// The lane of what this node answers for a process that does not exist.
pub(crate) fn lane_of(pid: &Pid) -> Lane {
    Lane { sender: u64::from(pid.serial) << 32 | u64::from(pid.id), class: LaneClass::Control }
}
