//! Links, monitors and aliases from the side of the process that makes them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use foundation_proto::dist::{ControlMessage, DistributionFlags, Messages, Target};
use foundation_proto::etf::{Pid, RawTerm, Reference, Tape};
use tokio::sync::oneshot;

use super::exit::{ExitKind, refusal, transmit};
use super::id::RefWords;
use super::link_table::{Linked, Unlink};
use super::mailbox::{Envelope, Push};
use super::message::{Message, Monitored};
use super::proc::{AliasKind, Answer, Entry, Monitor, Proc, Watcher, WatcherKind};
use super::reason::Reason;
use super::seq_trace::SeqTraceToken;
use super::undelivered::{Credit, Undelivered};
use crate::error::Error;
use crate::net::{Link, SendError};
use crate::node::NodeInner;

impl NodeInner {
    /// Links two processes of this node. If there is no such process, the exit signal `noproc` says so.
    pub(crate) fn link_local(&self, a: &Arc<Proc>, peer: &Pid) {
        if a.pid == *peer {
            return;
        }
        if let Some(b) = self.process(peer) {
            let (mut of_a, mut of_b) = Proc::both(a, &b);
            if of_a.exited.is_some() {
                return;
            }
            if of_b.exited.is_none() {
                of_a.links.link(&b.pid, &None);
                of_b.links.link(&a.pid, &None);
                return;
            }
        }
        self.exit_unlinked(a, peer, Reason::NOPROC);
    }

    /// Links a process to one across a connection.
    pub(crate) fn link_remote(&self, proc: &Arc<Proc>, peer: &Pid, link: &Arc<Link>) {
        let Some(mut state) = proc.alive() else { return };
        if !link.mld().add_own(proc.number) {
            drop(state);
            self.exit_unlinked(proc, peer, Reason::NOCONNECTION);
            return;
        }
        let linked = state.links.link(peer, &Some(Arc::clone(link)));
        if linked != Linked::New {
            // Only a new entry counts.
            link.mld().remove(proc.number);
        }
        if linked != Linked::Already {
            let control = ControlMessage::Link { from: proc.pid.clone(), to: peer.clone() };
            if let Err(SendError::Refused(error)) = link.send(proc.lane(), &control, None) {
                // The peer never hears of the link, so nothing would ever break it.
                if state.links.exit_received(peer).is_some() {
                    link.mld().remove(proc.number);
                }
                drop(state);
                self.exit_unlinked(proc, peer, refusal(&error));
            }
        }
    }

    /// The exit signal of a link that could not be made.
    pub(crate) fn exit_unlinked(&self, proc: &Arc<Proc>, peer: &Pid, reason: Reason) {
        {
            let Some(mut state) = proc.alive() else { return };
            state.links.link(peer, &None);
        }
        if let Some(death) = self.exit_signal(proc, peer, &reason, ExitKind::Link(None)) {
            self.exit(proc, death);
        }
    }

    /// Removes the link between a process and another, wherever that is.
    pub(crate) fn unlink(&self, proc: &Arc<Proc>, peer: &Pid) {
        if let Some(other) = self.process(peer) {
            if other.number != proc.number {
                let (mut of_a, mut of_b) = Proc::both(proc, &other);
                of_a.links.exit_received(peer);
                of_b.links.exit_received(&proc.pid);
            }
            return;
        }
        let Some(mut state) = proc.alive() else { return };
        let unlink = state.links.unlink(peer, |connection| {
            connection.as_ref().is_some_and(|link| link.peer().flags.contains(DistributionFlags::UNLINK_ID))
        });
        let (from, to) = (proc.pid.clone(), peer.clone());
        match unlink {
            Unlink::WithId { id, connection: Some(link) } => {
                transmit(&link, proc.lane(), &ControlMessage::UnlinkId { id, from, to }, None);
            }
            Unlink::Old { connection: Some(link) } => {
                link.mld().remove(proc.number);
                transmit(&link, proc.lane(), &ControlMessage::Unlink { from, to }, None);
            }
            // The link was within this node, and its other end is gone.
            Unlink::WithId { connection: None, .. } | Unlink::Old { connection: None } | Unlink::Nothing => {}
        }
    }

    /// A reference of a process that stands for nothing yet but what `entry` says.
    pub(crate) fn new_entry(&self, owner: &Proc, entry: Entry) -> Result<(RefWords, Reference), Error> {
        let (words, reference) = self.ids.reference(owner.number);
        let mut state = owner.state();
        if let Some(reason) = &state.exited {
            return Err(Error::Exited(reason.clone()));
        }
        state.references.insert(words, entry);
        Ok((words, reference))
    }

    /// Monitors an object of this node.
    pub(crate) fn monitor_local(
        &self,
        watcher: &Arc<Proc>,
        object: &Monitored,
        entry: Entry,
    ) -> Result<(RefWords, Reference), Error> {
        let (target, name) = match object {
            Monitored::Pid(pid) => (self.process(pid), None),
            Monitored::Name { name, .. } => (self.names.whereis(name), Some(name.clone())),
        };
        let pid = match (object, &target) {
            (Monitored::Pid(pid), _) => pid.clone(),
            (_, Some(target)) => target.pid.clone(),
            // Nobody looks at the pid of a monitor by name.
            (_, None) => watcher.pid.clone(),
        };
        let number = target.as_ref().map_or(0, |target| target.number);
        let monitor = Monitor::Local { number, pid, name: name.clone() };
        let (words, reference) = self.new_entry(watcher, Entry { monitor: Some(monitor), ..entry })?;
        // A process that monitors itself never hears of it.
        let Some(target) = target.filter(|target| target.number != watcher.number) else {
            if number != watcher.number {
                self.fire(watcher, words, &Reason::NOPROC);
            }
            return Ok((words, reference));
        };
        let (mut of_target, of_watcher) = Proc::both(&target, watcher);
        if of_watcher.exited.is_some() {
            return Ok((words, reference));
        }
        if of_target.exited.is_none() {
            let by = WatcherKind::Local(watcher.number);
            of_target.watchers.insert(reference.clone(), Watcher { by, name });
            return Ok((words, reference));
        }
        drop((of_target, of_watcher));
        self.fire(watcher, words, &Reason::NOPROC);
        Ok((words, reference))
    }

    /// Monitors an object across a connection.
    pub(crate) fn monitor_remote(
        &self,
        watcher: &Arc<Proc>,
        target: Target,
        link: &Arc<Link>,
        entry: Entry,
    ) -> Result<(RefWords, Reference), Error> {
        let (words, reference) = self.ids.reference(watcher.number);
        let mut state = watcher.state();
        if let Some(reason) = &state.exited {
            return Err(Error::Exited(reason.clone()));
        }
        let monitor = Monitor::Remote { link: Arc::clone(link), target: target.clone() };
        state.references.insert(words, Entry { monitor: Some(monitor), ..entry });
        let mut reason = Reason::NOCONNECTION;
        if link.mld().add_own(watcher.number) {
            let control = ControlMessage::MonitorP {
                watcher: watcher.pid.clone(),
                target,
                reference: reference.clone(),
            };
            match link.send(watcher.lane(), &control, None) {
                // A connection that is closing tells the process itself.
                Ok(()) | Err(SendError::Closed) => return Ok((words, reference)),
                Err(SendError::Refused(error)) => {
                    link.mld().remove(watcher.number);
                    reason = refusal(&error);
                }
            }
        }
        let death = self.deliver_down(watcher, &mut state, words, &reason);
        drop(state);
        if let Some(death) = death {
            self.exit(watcher, death);
        }
        Ok((words, reference))
    }

    /// Monitors an object of a node that is out of reach: fires at once.
    pub(crate) fn monitor_unreachable(
        &self,
        watcher: &Arc<Proc>,
        object: Monitored,
        entry: Entry,
    ) -> Result<(RefWords, Reference), Error> {
        let (words, reference) = self.new_entry(watcher, entry)?;
        let death = {
            let Some(mut state) = watcher.alive() else { return Ok((words, reference)) };
            self.deliver_down_of(watcher, &mut state, words, object, &Reason::NOCONNECTION)
        };
        if let Some(death) = death {
            self.exit(watcher, death);
        }
        Ok((words, reference))
    }

    /// A monitor within this node that found nothing fires.
    fn fire(&self, watcher: &Arc<Proc>, words: RefWords, reason: &Reason) {
        if let Some(death) = self.down(watcher, words, None, reason) {
            self.exit(watcher, death);
        }
    }

    /// Ends a monitor; `false` if there was none. An alias that lives with the monitor ends too.
    pub(crate) fn demonitor(&self, watcher: &Proc, reference: &Reference) -> bool {
        let Some((words, owner)) = self.ids.words(reference) else { return false };
        if owner != watcher.number {
            return false;
        }
        let monitor = {
            let Some(mut state) = watcher.alive() else { return false };
            let Some(entry) = state.references.get_mut(&words) else { return false };
            let monitor = entry.monitor.take();
            if matches!(entry.alias, Some(AliasKind::Demonitor | AliasKind::ReplyDemonitor)) {
                entry.alias = None;
            }
            if entry.alias.is_none() && entry.spawn.is_none() {
                state.references.remove(&words);
            }
            monitor
        };
        let Some(monitor) = monitor else { return false };
        self.release_monitor(watcher, words, monitor);
        true
    }

    /// Ends an alias; `false` if there was none. A monitor of the same reference stays.
    pub(crate) fn unalias(&self, owner: &Proc, alias: &Reference) -> bool {
        let Some((words, number)) = self.ids.words(alias) else { return false };
        if number != owner.number {
            return false;
        }
        let Some(mut state) = owner.alive() else { return false };
        let Some(entry) = state.references.get_mut(&words) else { return false };
        let was = entry.alias.take().is_some();
        if entry.monitor.is_none() && entry.spawn.is_none() {
            state.references.remove(&words);
        }
        was
    }

    /// An ordinary message arrives for a process. Never waits.
    pub(crate) fn deliver(
        &self,
        to: &Arc<Proc>,
        message: RawTerm,
        credit: Option<Credit>,
        token: Option<Box<SeqTraceToken>>,
    ) {
        if to.has_calls() {
            // Servers that do not know aliases reply to the pid.
            if let Some(words) = reply_tag(&message).and_then(|tag| self.ids.words(&tag))
                && self.answer(to, words.0, &message)
            {
                return;
            }
        }
        let envelope = Envelope { message: Message::Term(message), credit, token };
        if let Push::Full(messages) = to.mailbox.push(envelope, false) {
            self.exit(to, super::exit::overflow_reason(messages));
        }
    }

    /// Ordinary messages arrive together for a process that has no calls under way. Never waits.
    pub(crate) fn deliver_all(&self, to: &Arc<Proc>, messages: Messages, undelivered: &Arc<Undelivered>) {
        if let Push::Full(messages) = to.mailbox.push_all(messages, undelivered) {
            self.exit(to, super::exit::overflow_reason(messages));
        }
    }

    /// A message arrives for an alias. Unknown aliases, and those that ended, are nobody's. Sent with `priority`, it has
    /// that if the alias was made for it.
    pub(crate) fn deliver_alias(
        &self,
        alias: &Reference,
        message: RawTerm,
        credit: Option<Credit>,
        priority: bool,
        token: Option<Box<SeqTraceToken>>,
    ) {
        let Some((words, number)) = self.ids.words(alias) else { return };
        let Some(to) = self.processes.get(number) else { return };
        if self.answer(&to, words, &message) {
            return;
        }
        let (monitor, push) = {
            let Some(mut state) = to.alive() else { return };
            let Some(entry) = state.references.get_mut(&words) else { return };
            let priority = priority && entry.priority_alias;
            let monitor = match entry.alias {
                None => return,
                Some(AliasKind::ExplicitUnalias | AliasKind::Demonitor) => None,
                Some(kind @ (AliasKind::Reply | AliasKind::ReplyDemonitor)) => {
                    entry.alias = None;
                    let monitor = if kind == AliasKind::ReplyDemonitor { entry.monitor.take() } else { None };
                    if entry.monitor.is_none() {
                        state.references.remove(&words);
                    }
                    monitor
                }
            };
            (monitor, to.mailbox.push(Envelope { message: Message::Term(message), credit, token }, priority))
        };
        if let Some(monitor) = monitor {
            self.release_monitor(&to, words, monitor);
        }
        if let Push::Full(messages) = push {
            self.exit(&to, super::exit::overflow_reason(messages));
        }
    }

    /// The process that has this alias now, and whether the alias accepts priority.
    pub(crate) fn alias_owner(&self, alias: &Reference) -> Option<(Arc<Proc>, bool)> {
        let (words, number) = self.ids.words(alias)?;
        let proc = self.processes.get(number)?;
        let priority = {
            let state = proc.state();
            let entry = state.references.get(&words).filter(|entry| entry.alias.is_some())?;
            entry.priority_alias
        };
        Some((proc, priority))
    }

    /// Hands a reply to the call that waits for it; `false` if none does.
    fn answer(&self, to: &Proc, words: RefWords, message: &RawTerm) -> bool {
        let entry = {
            let Some(mut state) = to.alive() else { return false };
            match state.references.get(&words) {
                Some(entry) if entry.waiting.is_some() => state.references.remove(&words),
                _ => return false,
            }
        };
        let Some(mut entry) = entry else { return false };
        if let Some(waiting) = entry.waiting.take() {
            // A caller that gave up has dropped its end; then nobody wants this.
            let _ = waiting.send(Answer::Reply(message.clone()));
        }
        self.drop_entry(to, words, entry);
        true
    }
}

impl Entry {
    /// For a call: what comes through the reference goes to the returned receiver.
    pub(crate) fn waiting(alias: Option<AliasKind>) -> (Self, oneshot::Receiver<Answer>) {
        let (waiting, answer) = oneshot::channel();
        (Self { alias, waiting: Some(waiting), ..Self::default() }, answer)
    }
}

/// The tag of a message that looks like the reply to a call, `{Tag, Reply}`: `Ref` or `[alias | Ref]`.
fn reply_tag(message: &RawTerm) -> Option<Reference> {
    let mut tape = Tape::new();
    let [tag, _] = message.view(&mut tape).ok()?.tuple()?;
    tag.as_reference().or_else(|| tag.tail()?.as_reference())
}

/// A call that waits for its answer. Dropping it gives it up: the monitor and the alias go, and an answer finds nobody.
pub(crate) struct Call<'a> {
    node: &'a NodeInner,
    caller: &'a Arc<Proc>,
    words: RefWords,
}

impl<'a> Call<'a> {
    /// From now on what arrives for the caller is looked at: it may be the answer.
    pub(crate) fn new(node: &'a NodeInner, caller: &'a Arc<Proc>, words: RefWords) -> Self {
        caller.calls.fetch_add(1, Ordering::Relaxed);
        Self { node, caller, words }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.caller.calls.fetch_sub(1, Ordering::Relaxed);
        let entry = self.caller.state().references.remove(&self.words);
        if let Some(entry) = entry {
            self.node.drop_entry(self.caller, self.words, entry);
        }
    }
}
