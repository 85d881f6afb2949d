//! What a process can do.

use core::fmt;
use core::future::{Future, poll_fn};
use core::ops::Deref;
use core::task::{Context, Poll};
use core::time::Duration;
use std::sync::Arc;

use foundation_proto::dist::control::altact;
use foundation_proto::dist::{Addressee, ControlMessage, Destination, Target};
use foundation_proto::etf::serde::{to_raw, to_scratch};
use foundation_proto::etf::{Atom, Pid, PlainTerm, RawTerm, Reference, Term};
use serde::Serialize;

use super::dest::{Dest, Recipient};
use super::exit::{ExitKind, transmit};
use super::mailbox::{Receiver, Scanned};
use super::message::{Message, Monitored};
use super::proc::{AliasKind, Entry, Proc};
use super::reason::Reason;
use super::seq_trace::SeqTraceToken;
use super::spawn::{Outcome, SpawnOptions};
use crate::error::{Error, Result};
use crate::net::{Link, SendError};
use crate::node::{Node, NodeInner};

/// A process as its own code, and whoever acts in its name, sees it: everything but receiving. Cheap to clone.
///
/// What is done through one handle after the other arrives in that order, per receiver.
#[derive(Clone)]
pub struct Handle {
    pub(crate) node: Arc<NodeInner>,
    pub(crate) proc: Arc<Proc>,
}

/// A process of this node: its mailbox, and through [`Deref`] all that a [`Handle`] can do.
///
/// Dropping one that was made by [`Node::process`](crate::Node::process) ends it with the reason `normal`; one that runs a
/// spawned function ends when that function returns.
pub struct Process {
    handle: Handle,
    receiver: Receiver,
    run_by_task: bool,
}

impl Handle {
    /// Its pid.
    pub fn pid(&self) -> &Pid {
        &self.proc.pid
    }

    /// The node it lives on.
    pub fn node(&self) -> Node {
        Node::from_inner(Arc::clone(&self.node))
    }

    /// Why it ended; `None` while it lives.
    pub fn exit_reason(&self) -> Option<Reason> {
        self.proc.exit_reason()
    }

    #[cold]
    fn why_it_ended(&self) -> Error {
        Error::Exited(self.exit_reason().unwrap_or(Reason::NORMAL))
    }

    /// The process that started it, if it was one of this node or a remote spawn.
    pub fn parent(&self) -> Option<Pid> {
        self.proc.state().parent.clone()
    }

    /// Messages that were not received yet.
    pub fn mailbox_len(&self) -> usize {
        self.proc.mailbox.len()
    }

    /// Sends an encoded message. A node that is not connected is connected first; waits while the connection is busy, or a
    /// local mailbox that blocks is full. As in Erlang, no error comes of a process that does not exist.
    ///
    /// # Errors
    /// [`Error::NoConnection`]; [`Error::NoProc`] if it is for a name of this node that nobody has; [`Error::Exited`].
    pub async fn send_raw(&self, to: impl Into<Dest>, message: RawTerm) -> Result<()> {
        self.send_with(to.into(), message, false, None).await
    }

    /// Sends an encoded message as a consequence of the one that came with `token`: the message carries the token on, with this
    /// process as its sender and the next serial number, as a BEAM process that has received `token` does. The tracers of
    /// both nodes then see where it belongs (`seq_trace`).
    ///
    /// # Errors
    /// As [`Handle::send_raw`].
    pub async fn send_traced_raw(
        &self,
        to: impl Into<Dest>,
        message: RawTerm,
        token: &SeqTraceToken,
    ) -> Result<()> {
        let serial = self.proc.state().seq_trace_serial(token.serial);
        let token = token.next(self.pid(), serial);
        self.send_with(to.into(), message, false, Some(&token)).await
    }

    /// Sends a value, as [`Handle::send_traced_raw`].
    ///
    /// # Errors
    /// As [`Handle::send`].
    pub async fn send_traced<T: Serialize + ?Sized>(
        &self,
        to: impl Into<Dest>,
        message: &T,
        token: &SeqTraceToken,
    ) -> Result<()> {
        self.send_traced_raw(to, to_raw(message)?, token).await
    }

    /// Sends an encoded message with priority (`erlang:send/3` with `priority`, since OTP 28): through an alias that was made by
    /// [`Handle::priority_alias`] it goes before messages without. To anything else, and towards nodes that do not know
    /// priority, it is an ordinary message; so is one of more than 32 KiB to another node, which OTP 28 could not take.
    ///
    /// # Errors
    /// As [`Handle::send_raw`].
    pub async fn send_priority_raw(&self, to: impl Into<Dest>, message: RawTerm) -> Result<()> {
        self.send_with(to.into(), message, true, None).await
    }

    /// Sends a value with priority, as [`Handle::send_priority_raw`].
    ///
    /// # Errors
    /// As [`Handle::send`].
    pub async fn send_priority<T: Serialize + ?Sized>(&self, to: impl Into<Dest>, message: &T) -> Result<()> {
        self.send_priority_raw(to, to_raw(message)?).await
    }

    async fn send_with(
        &self,
        to: Dest,
        message: RawTerm,
        priority: bool,
        token: Option<&SeqTraceToken>,
    ) -> Result<()> {
        let Some(node) = self.node.remote_node(&to) else {
            return self.send_local(&to, message, priority, token).await;
        };
        let link = match self.node.net_kernel.link(node) {
            Some(link) => link,
            None => self.node.connection(node).await?,
        };
        let size = message.as_bytes().len();
        if self.proc.has_had_its_turn(size) {
            tokio::task::yield_now().await;
        }
        if link.is_busy() {
            link.writable_for(self.proc.lane(), size).await;
        }
        self.send_over(&link, to, &message, priority, token)
    }

    /// Sends a value: anything that serde knows. See [`foundation_proto::etf::serde`] for which term it becomes.
    ///
    /// # Errors
    /// As [`Handle::send_raw`]; [`Error::Value`] if it has no term.
    pub async fn send<T: Serialize + ?Sized>(&self, to: impl Recipient, message: &T) -> Result<()> {
        let message = to_scratch(message)?;
        if let Some(pid) = to.as_pid()
            && self.send_again(&pid.node, Addressee::Pid(pid), message.as_plain())
        {
            return Ok(());
        }
        let to = to.into();
        if let Dest::Remote { name, node } = &to
            && self.send_again(node, Addressee::Name(name), message.as_plain())
        {
            return Ok(());
        }
        let message = message.into_raw();
        self.send_with(to, message, false, None).await
    }

    /// Sends a message over the way of an earlier one, without memory for it; false, and nothing done, if there is no such
    /// way, or something stands before it.
    #[inline]
    fn send_again(&self, node: &Atom, to: Addressee<'_>, message: PlainTerm<'_>) -> bool {
        if *node == self.node.name {
            return false;
        }
        let sent = self.node.net_kernel.with_link(node, |link| {
            !link.is_busy()
                && self.proc.stays_in_its_turn(message.as_bytes().len())
                && link.send_again(self.proc.lane(), &self.proc, to, message)
        });
        sent == Some(true)
    }

    /// Sends a term, as [`Handle::send_raw`].
    ///
    /// # Errors
    /// As [`Handle::send_raw`].
    pub async fn send_term(&self, to: impl Into<Dest>, message: &Term) -> Result<()> {
        self.send_raw(to, RawTerm::from_term(message)?).await
    }

    /// Sends an encoded message without waiting for anything (`erlang:send/3` with `noconnect` and `nosuspend`).
    ///
    /// # Errors
    /// As [`Handle::send_raw`], with [`Error::NoConnection`] also if the node is not connected now; [`Error::Full`] where the
    /// other would wait.
    pub fn try_send_raw(&self, to: impl Into<Dest>, message: RawTerm) -> Result<()> {
        let to = to.into();
        let full = match self.node.remote_node(&to) {
            Some(node) => {
                let bytes = message.as_bytes().len();
                self.node.net_kernel.link(node).is_some_and(|link| link.is_busy_for(self.proc.lane(), bytes))
            }
            None => self.local(&to)?.is_some_and(|proc| proc.mailbox.blocks() && proc.mailbox.is_full()),
        };
        if full { Err(Error::Full) } else { self.send_now(to, message) }
    }

    /// Sends at once to whatever is in reach, whether busy or not: for the few messages that a service must neither delay nor
    /// drop.
    pub(crate) fn send_now(&self, to: Dest, message: RawTerm) -> Result<()> {
        match self.node.remote_node(&to) {
            Some(node) => {
                let link = self.node.net_kernel.link(node).ok_or_else(|| Error::no_connection(node))?;
                self.send_over(&link, to, &message, false, None)
            }
            None => {
                let Some(proc) = self.local(&to)? else { return Ok(()) };
                self.push(&proc, &to, message, false, None)
            }
        }
    }

    async fn send_local(
        &self,
        to: &Dest,
        message: RawTerm,
        priority: bool,
        token: Option<&SeqTraceToken>,
    ) -> Result<()> {
        let Some(proc) = self.local(to)? else { return Ok(()) };
        while proc.mailbox.blocks() && proc.mailbox.is_full() {
            proc.mailbox.room().await;
        }
        self.push(&proc, to, message, priority, token)
    }

    /// The process of this node that a message is for; `None` if nobody minds that there is none.
    fn local(&self, to: &Dest) -> Result<Option<Arc<Proc>>> {
        Ok(match to {
            Dest::Pid(pid) => self.node.process(pid),
            Dest::Name(name) => Some(self.node.names.whereis(name).ok_or(Error::NoProc)?),
            Dest::Remote { name, .. } => self.node.names.whereis(name),
            Dest::Alias(alias) => self.node.alias_owner(alias).map(|(owner, _)| owner),
            Dest::Nobody => return Err(Error::NoProc),
        })
    }

    fn push(
        &self,
        to: &Arc<Proc>,
        dest: &Dest,
        message: RawTerm,
        priority: bool,
        token: Option<&SeqTraceToken>,
    ) -> Result<()> {
        let token = token.cloned().map(Box::new);
        if let Some(reason) = self.exit_reason() {
            return Err(Error::Exited(reason));
        }
        match dest {
            Dest::Alias(alias) => self.node.deliver_alias(alias, message, None, priority, token),
            _ => self.node.deliver(to, message, None, token),
        }
        Ok(())
    }

    /// What announces a message of this process, without priority, to a destination on another node.
    fn message_to(&self, to: Dest) -> Result<ControlMessage> {
        let from = self.proc.pid.clone();
        Ok(match to {
            Dest::Nobody => return Err(Error::NoProc),
            Dest::Pid(to) => ControlMessage::Send { from: Some(from), to },
            Dest::Remote { name, .. } | Dest::Name(name) => ControlMessage::RegSend { from, to: name },
            Dest::Alias(alias) => ControlMessage::AliasSend { from, alias },
        })
    }

    /// Sends over a connection, unless the process has ended: under its state, so that nothing follows its exit signals.
    fn send_over(
        &self,
        link: &Link,
        to: Dest,
        message: &RawTerm,
        priority: bool,
        token: Option<&SeqTraceToken>,
    ) -> Result<()> {
        let control = if priority {
            let to = match to {
                Dest::Pid(to) => Destination::Pid(to),
                Dest::Remote { name, .. } | Dest::Name(name) => Destination::Name(name),
                Dest::Alias(alias) => Destination::Alias(alias),
                Dest::Nobody => return Err(Error::NoProc),
            };
            ControlMessage::Altact { flags: altact::PRIORITY, from: self.proc.pid.clone(), to }
        } else {
            self.message_to(to)?
        };
        // What came from another connection names atoms of that one.
        let plain = if message.atoms().is_empty() { None } else { Some(message.to_plain()) };
        let message = plain.as_ref().unwrap_or(message);
        let state = self.proc.state();
        if let Some(reason) = &state.exited {
            return Err(Error::Exited(reason.clone()));
        }
        let sent = match token {
            None => link.send(self.proc.lane(), &control, Some(message)),
            Some(token) => link.send_traced(self.proc.lane(), &control, message, &token.to_raw()?),
        };
        sent.map_err(|error| not_sent(link, error))
    }

    /// Links this process with another (`erlang:link/1`). If that does not exist, or its node cannot be reached, the exit
    /// signal `noproc` or `noconnection` follows.
    pub async fn link(&self, peer: &Pid) {
        if peer.node == self.node.name {
            self.node.link_local(&self.proc, peer);
            return;
        }
        match self.node.connection(&peer.node).await {
            Ok(link) => {
                link.writable_for(self.proc.lane(), 0).await;
                self.node.link_remote(&self.proc, peer, &link);
            }
            Err(_) => self.node.exit_unlinked(&self.proc, peer, Reason::NOCONNECTION),
        }
    }

    /// Removes a link (`erlang:unlink/1`). No exit signal of the other follows, but an `Exit` message that is already in the
    /// mailbox stays there.
    pub fn unlink(&self, peer: &Pid) {
        self.node.unlink(&self.proc, peer);
    }

    /// The processes it is linked with.
    pub fn links(&self) -> Vec<Pid> {
        self.proc.state().links.active()
    }

    /// Watches a process or a registered name (`erlang:monitor/2`): one [`Message::Down`] comes when it ends, does not exist,
    /// or its node is out of reach.
    ///
    /// # Errors
    /// [`Error::Exited`].
    pub async fn monitor(&self, object: impl Into<Dest>) -> Result<Reference> {
        Ok(self.monitor_entry(object.into(), Entry::default()).await?.1)
    }

    /// The same with an alias (`erlang:monitor/3` with the option `alias`): the reference is also a destination for messages.
    ///
    /// # Errors
    /// [`Error::Exited`].
    pub async fn monitor_alias(&self, object: impl Into<Dest>, kind: AliasKind) -> Result<Reference> {
        let entry = Entry { alias: Some(kind), ..Entry::default() };
        Ok(self.monitor_entry(object.into(), entry).await?.1)
    }

    /// The same as [`Handle::monitor`], with a `Down` that goes before messages without priority (`erlang:monitor/3` with
    /// `priority`, since OTP 28).
    ///
    /// # Errors
    /// [`Error::Exited`].
    pub async fn monitor_priority(&self, object: impl Into<Dest>) -> Result<Reference> {
        let entry = Entry { priority_monitor: true, ..Entry::default() };
        Ok(self.monitor_entry(object.into(), entry).await?.1)
    }

    pub(crate) async fn monitor_entry(
        &self,
        object: Dest,
        entry: Entry,
    ) -> Result<(super::id::RefWords, Reference)> {
        let object = match object {
            Dest::Pid(pid) => Monitored::Pid(pid),
            Dest::Name(name) => Monitored::Name { name, node: self.node.name.clone() },
            Dest::Remote { name, node } => Monitored::Name { name, node },
            Dest::Alias(_) | Dest::Nobody => return Err(Error::NoProc),
        };
        let (node, target) = match &object {
            Monitored::Pid(pid) => (&pid.node, Target::Pid(pid.clone())),
            Monitored::Name { name, node } => (node, Target::Name(name.clone())),
        };
        if *node == self.node.name {
            return self.node.monitor_local(&self.proc, &object, entry);
        }
        match self.node.connection(node).await {
            Ok(link) => {
                link.writable_for(self.proc.lane(), 0).await;
                self.node.monitor_remote(&self.proc, target, &link, entry)
            }
            Err(_) => self.node.monitor_unreachable(&self.proc, object, entry),
        }
    }

    /// Stops watching (`erlang:demonitor/1`); `false` if nothing was watched. A `Down` that is already in the mailbox stays
    /// there; [`Process::demonitor_flush`] takes it out.
    pub fn demonitor(&self, monitor: &Reference) -> bool {
        self.node.demonitor(&self.proc, monitor)
    }

    /// A reference that other processes can send to (`erlang:alias/1`). Only [`AliasKind::ExplicitUnalias`] and
    /// [`AliasKind::Reply`] make sense without a monitor; the other kinds behave as the first.
    ///
    /// # Errors
    /// [`Error::Exited`].
    pub fn alias(&self, kind: AliasKind) -> Result<Reference> {
        Ok(self.node.new_entry(&self.proc, Entry { alias: Some(kind), ..Entry::default() })?.1)
    }

    /// An alias through which messages with priority go before others (`erlang:alias/1` with `priority`, since OTP 28). Whoever
    /// knows it decides for each message whether it has priority; see [`Handle::send_priority`].
    ///
    /// # Errors
    /// [`Error::Exited`].
    pub fn priority_alias(&self, kind: AliasKind) -> Result<Reference> {
        let entry = Entry { alias: Some(kind), priority_alias: true, ..Entry::default() };
        Ok(self.node.new_entry(&self.proc, entry)?.1)
    }

    /// Ends an alias (`erlang:unalias/1`); `false` if it was none of this process. Nothing comes through it afterwards.
    pub fn unalias(&self, alias: &Reference) -> bool {
        self.node.unalias(&self.proc, alias)
    }

    /// Sends an exit signal (`exit/2`). It is no error if there is nobody to get it, or no connection and none can be made.
    pub async fn exit(&self, to: &Pid, reason: impl Into<Reason>) {
        let reason = reason.into();
        if to.node != self.node.name {
            let Ok(link) = self.node.connection(&to.node).await else { return };
            let reason = reason.to_raw();
            link.writable_for(self.proc.lane(), reason.as_bytes().len()).await;
            if let Some(_alive) = self.proc.alive() {
                let control = ControlMessage::Exit2 { from: self.proc.pid.clone(), to: to.clone() };
                transmit(&link, self.proc.lane(), &control, Some(&reason));
            }
            return;
        }
        if let Some(proc) = self.node.process(to)
            && let Some(death) = self.node.exit_signal(&proc, &self.proc.pid, &reason, EXIT2)
        {
            self.node.exit(&proc, death);
        }
    }

    /// Sends an exit signal through an alias (`exit/3`, since OTP 28): with `priority`, and through an alias made by
    /// [`Handle::priority_alias`], the message of a process that traps exits goes before those without priority.
    ///
    /// # Errors
    /// [`Error::NoConnection`]; [`Error::Term`] if the node of the alias does not know such signals; [`Error::Exited`].
    pub async fn exit_alias(
        &self,
        alias: &Reference,
        reason: impl Into<Reason>,
        priority: bool,
    ) -> Result<()> {
        let reason = reason.into();
        if alias.node == self.node.name {
            if let Some((proc, accepts)) = self.node.alias_owner(alias)
                && let kind = (ExitKind::Exit2 { priority: priority && accepts })
                && let Some(death) = self.node.exit_signal(&proc, &self.proc.pid, &reason, kind)
            {
                self.node.exit(&proc, death);
            }
            return Ok(());
        }
        let link = self.node.connection(&alias.node).await?;
        let state = self.proc.state();
        if let Some(reason) = &state.exited {
            return Err(Error::Exited(reason.clone()));
        }
        let control = ControlMessage::Altact {
            flags: altact::EXIT | if priority { altact::PRIORITY } else { 0 },
            from: self.proc.pid.clone(),
            to: Destination::Alias(alias.clone()),
        };
        let reason = reason.to_raw().to_plain();
        link.send(self.proc.lane(), &control, Some(&reason)).map_err(|error| not_sent(&link, error))
    }

    /// Ends this process (`exit/1`). What runs it stops at its next `await`.
    pub fn stop(&self, reason: impl Into<Reason>) {
        self.node.exit(&self.proc, reason.into());
    }

    /// Gives this process a name on this node (`erlang:register/2`).
    ///
    /// # Errors
    /// [`Error::NameTaken`] if another has it, or this one has a name; [`Error::Exited`].
    pub fn register(&self, name: impl Into<Atom>) -> Result<()> {
        let name = name.into();
        let mut state = self.proc.state();
        if let Some(reason) = &state.exited {
            return Err(Error::Exited(reason.clone()));
        }
        if state.name.is_some() || name == "undefined" || !self.node.names.register(&name, &self.proc) {
            return Err(Error::NameTaken(name));
        }
        state.name = Some(name);
        Ok(())
    }

    /// Takes the name of this process from it (`erlang:unregister/1`); `false` if it had none.
    pub fn unregister(&self) -> bool {
        let mut state = self.proc.state();
        state.name.take().is_some_and(|name| self.node.names.unregister(&name, &self.proc))
    }

    /// The name of this process.
    pub fn registered_name(&self) -> Option<Atom> {
        self.proc.state().name.clone()
    }

    /// Whether exit signals become [`Message::Exit`] (`process_flag(trap_exit, _)`); returns what it was.
    pub fn trap_exit(&self, trap: bool) -> bool {
        core::mem::replace(&mut self.proc.state().trap_exit, trap)
    }

    /// Who prints for this process.
    pub fn group_leader(&self) -> Pid {
        self.proc.state().group_leader.clone()
    }

    /// Changes who prints for a process (`group_leader/2`), this one or another, of any node.
    pub async fn set_group_leader(&self, leader: &Pid, of: &Pid) {
        if of.node == self.node.name {
            if let Some(proc) = self.node.process(of)
                && let Some(mut state) = proc.alive()
            {
                state.group_leader = leader.clone();
            }
        } else if let Ok(link) = self.node.connection(&of.node).await
            && let Some(_alive) = self.proc.alive()
        {
            let control = ControlMessage::GroupLeader { leader: leader.clone(), pid: of.clone() };
            transmit(&link, self.proc.lane(), &control, None);
        }
    }

    /// Starts a process on this node.
    ///
    /// # Errors
    /// [`Error::SystemLimit`].
    pub fn spawn<F, R>(&self, function: F) -> Result<Self>
    where
        F: FnOnce(Process) -> R + Send + 'static,
        R: Future<Output: Outcome> + Send + 'static,
    {
        self.spawn_opt(&SpawnOptions::default(), function)
    }

    /// The same with options.
    ///
    /// # Errors
    /// [`Error::SystemLimit`].
    pub fn spawn_opt<F, R>(&self, options: &SpawnOptions, function: F) -> Result<Self>
    where
        F: FnOnce(Process) -> R + Send + 'static,
        R: Future<Output: Outcome> + Send + 'static,
    {
        let proc = self.node.new_proc(Some(&self.proc), options)?;
        if options.link {
            self.node.link_local(&self.proc, &proc.pid);
        }
        self.node.run(&proc, function);
        Ok(Self { node: Arc::clone(&self.node), proc })
    }

    /// Starts a process on this node that is linked with this one before it runs.
    ///
    /// # Errors
    /// [`Error::SystemLimit`].
    pub fn spawn_link<F, R>(&self, function: F) -> Result<Self>
    where
        F: FnOnce(Process) -> R + Send + 'static,
        R: Future<Output: Outcome> + Send + 'static,
    {
        self.spawn_opt(&SpawnOptions::default().link(), function)
    }

    /// Starts a process on this node that this one monitors before it runs.
    ///
    /// # Errors
    /// [`Error::SystemLimit`], [`Error::Exited`].
    pub fn spawn_monitor<F, R>(&self, function: F) -> Result<(Self, Reference)>
    where
        F: FnOnce(Process) -> R + Send + 'static,
        R: Future<Output: Outcome> + Send + 'static,
    {
        let proc = self.node.new_proc(Some(&self.proc), &SpawnOptions::default())?;
        let object = Monitored::Pid(proc.pid.clone());
        let (_, reference) = self.node.monitor_local(&self.proc, &object, Entry::default())?;
        self.node.run(&proc, function);
        Ok((Self { node: Arc::clone(&self.node), proc }, reference))
    }
}

/// `exit/2` to a pid, which has no priority.
const EXIT2: ExitKind<'static> = ExitKind::Exit2 { priority: false };

fn not_sent(link: &Link, error: SendError) -> Error {
    match error {
        SendError::Refused(error) => Error::Term(error),
        closed => Error::NoConnection { node: link.peer().name.clone(), why: Some(closed.to_string()) },
    }
}

impl Process {
    pub(crate) fn new(node: Arc<NodeInner>, proc: Arc<Proc>) -> Self {
        Self { handle: Handle { node, proc }, receiver: Receiver::default(), run_by_task: false }
    }

    pub(crate) fn run_by_task(node: Arc<NodeInner>, proc: Arc<Proc>) -> Self {
        Self { handle: Handle { node, proc }, receiver: Receiver::default(), run_by_task: true }
    }

    /// A handle for acting in the name of this process from elsewhere.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The next message. Nothing is lost if this is cancelled.
    ///
    /// # Errors
    /// [`Error::Exited`] once the process has ended.
    #[inline]
    pub async fn recv(&mut self) -> Result<Message> {
        // As `recv_match`, one future less.
        let mut scanned = Scanned::default();
        poll_fn(|context| self.poll_match(&mut scanned, &mut |_| true, context)).await
    }

    /// The sequential trace token that the message received last came with, if its sender is traced; see
    /// [`Handle::send_traced`].
    pub fn seq_trace_token(&self) -> Option<&SeqTraceToken> {
        self.receiver.token()
    }

    /// The first message that `wanted` accepts, a selective receive: the others stay where they are. Nothing is lost if this
    /// is cancelled.
    ///
    /// # Errors
    /// [`Error::Exited`] once the process has ended.
    #[inline]
    pub async fn recv_match(&mut self, mut wanted: impl FnMut(&Message) -> bool) -> Result<Message> {
        let mut scanned = Scanned::default();
        poll_fn(|context| self.poll_match(&mut scanned, &mut wanted, context)).await
    }

    #[inline]
    fn poll_match(
        &mut self,
        scanned: &mut Scanned,
        wanted: &mut impl FnMut(&Message) -> bool,
        context: &mut Context<'_>,
    ) -> Poll<Result<Message>> {
        match self.receiver.poll(&self.handle.proc.mailbox, scanned, wanted, context) {
            Poll::Ready(Some(message)) => Poll::Ready(Ok(message)),
            Poll::Ready(None) => Poll::Ready(Err(self.handle.why_it_ended())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// The next message, if one comes in time. Nothing is lost if this is cancelled.
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::Exited`] once the process has ended.
    pub async fn recv_timeout(&mut self, timeout: Duration) -> Result<Message> {
        tokio::time::timeout(timeout, self.recv()).await.unwrap_or(Err(Error::Timeout))
    }

    /// Stops watching, and takes the `Down` out of the mailbox if it is there (`demonitor(Ref, [flush])`); `false` if nothing
    /// was watched.
    pub fn demonitor_flush(&mut self, monitor: &Reference) -> bool {
        let was = self.handle.demonitor(monitor);
        if !was {
            self.receiver.flush(
                &self.handle.proc.mailbox,
                |message| matches!(message, Message::Down(down) if down.reference == *monitor),
            );
        }
        was
    }

    /// Removes a link, and takes the `Exit` of that process out of the mailbox if it is there.
    pub fn unlink_flush(&mut self, peer: &Pid) {
        self.handle.unlink(peer);
        self.receiver.flush(
            &self.handle.proc.mailbox,
            |message| matches!(message, Message::Exit(exit) if exit.from == *peer),
        );
    }
}

impl Deref for Process {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.run_by_task {
            self.handle.stop(Reason::NORMAL);
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.proc.pid).finish()
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Process").field(&self.handle.proc.pid).finish()
    }
}
